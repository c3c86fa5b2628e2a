"""A trained run against what needs no network, on patients that none of them has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medgan.baselines import ConditionalMean, MonotoneMap
from medgan.cases import Case, read_cases
from medgan.data import Pair, read_pairs
from medgan.errors import CasesError
from medgan.evaluate import Row, score
from medgan.formats import read
from medgan.prep import in_contract_unit
from medgan.run import Run
from medgan.scoring import Scoring
from medgan.translate import output_path, translate
from medgan.volume import Volume

__all__ = ["Outcome", "Study", "study"]


@dataclass(frozen=True)
class Outcome:
    """One held-out case: what went in, what came out as it was written, what was wanted, and where errors count."""

    case: str
    source: Volume
    synthetic: Volume
    reference: Volume
    mask: Volume


@dataclass(frozen=True)
class Study:
    """Rows of `medgan.evaluate` by method, the run's own first, and the held-out cases themselves."""

    results: dict[str, list[Row]]
    outcomes: list[Outcome]


def study(
    run: Run, out: Path | str, *, split: str = "test", preset: str = "synthrad2023", device: str = "auto"
) -> Study:
    """Translate the held-out cases of the run's own table and score them beside two intensity maps.

    The maps are fitted on the training cases, inside their masks: the best monotone map from source to target, and
    the mean target intensity given the source intensity. All are scored inside the masks, in the unit of the run's
    output; the run's images as they were written and read back.

    Args:
        run: a trained run.
        out: folder that gets the translations.
        split: the held-out cases.
        preset: of `medgan.evaluate`; where the output is not in HU, the run's range replaces the preset's.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        CasesError: if the split has no case.
    """
    cases, out = _cases(run, split), Path(out)
    translate(run, run.config.cases, out, split=split, device=device)
    training = read_pairs(_cases(run, "train"), run.config.prep, "Reading training cases")
    held_out = read_pairs(cases, run.config.prep, "Reading held-out cases")
    outcomes = [_outcome(pair, case, out) for pair, case in zip(held_out, cases, strict=True)]
    maps = _baselines(run, training, outcomes)
    predictions = {run.config.model.name: [one.synthetic for one in outcomes], **maps}
    return Study({name: _scored(run, volumes, outcomes, preset) for name, volumes in predictions.items()}, outcomes)


def _cases(run: Run, split: str) -> list[Case]:
    cases = read_cases(run.config.cases, split=split, required=("a", "b"), exclude=run.config.exclude)
    if not cases:
        raise CasesError(f"{run.config.cases}: has no case in the split {split}")
    return cases


def _outcome(pair: Pair, case: Case, out: Path) -> Outcome:
    synthetic = read(output_path(case, out)).reorient(pair.source.grid.orientation)
    mask = Volume(pair.mask.astype(np.uint8), pair.source.grid, "label")
    return Outcome(case.name, pair.source, synthetic, pair.target, mask)


def _baselines(run: Run, training: Sequence[Pair], outcomes: Sequence[Outcome]) -> dict[str, list[Volume]]:
    """Each map over each held-out source, both scaled as the network sees them."""
    intensity = run.config.prep.a
    pairs = [(in_contract_unit(pair.source, intensity).array, pair.target.array, pair.mask) for pair in training]
    maps: dict[str, MonotoneMap | ConditionalMean] = {
        "monotone intensity map": MonotoneMap.fit(pairs),
        "mean target given source": ConditionalMean.fit(pairs),
    }
    sources = [in_contract_unit(one.source, intensity).array for one in outcomes]
    return {
        name: [one.reference.with_array(fit.apply(x)) for x, one in zip(sources, outcomes, strict=True)]
        for name, fit in maps.items()
    }


def _scored(run: Run, volumes: Sequence[Volume], outcomes: Sequence[Outcome], preset: str) -> list[Row]:
    how = Scoring(preset, None if run.config.prep.b.unit == "HU" else run.config.prep.b.output_range)
    return [
        score(volume, one.reference, one.mask, case=one.case, how=how)
        for volume, one in zip(volumes, outcomes, strict=True)
    ]
