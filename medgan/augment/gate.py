"""medgan audit: the tables of a study → the verdict on a synthetic set, as a page of words, numbers and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan.atomic import replacing
from medgan.augment.audit import Audit, CriticScores, audit, pairs_picture
from medgan.augment.critic import critic_scores
from medgan.augment.sets import TABLE, Contract, contract_of, read_real, read_synthetic
from medgan.cases import read_cases, write_cases
from medgan.errors import InputError
from medgan.formats.png import write_png
from medgan.imageset import ImageSet
from medgan.metrics.features import TorchScript, extractor
from medgan.report.audit import audit_report

__all__ = ["Audited", "audit_set"]

AT_ONCE = 64
KEPT = "cases_without_near_copies.csv"


@dataclass(frozen=True)
class Audited:
    """An audit and what was written of it.

    Args:
        audit: the verdict and its reasons.
        report: `audit.json`.
        kept: the table without near copies, if it was asked for and anything is left.
    """

    audit: Audit
    report: Path
    kept: Path | None


def audit_set(
    real: Path | str,
    synthetic: Path | str,
    *,
    holdout: Path | str | None = None,
    run: Path | str | None = None,
    features: str = "random-conv",
    within: str | None = None,
    drop_near_copies: bool = False,
    out: Path | str | None = None,
    seed: int = 0,
) -> Audited:
    """Audit a synthetic set against the patients that its generator was trained on.

    Written into the folder of the set, or into `out`: `audit.json`, the same as a page `audit.html`, and
    `audit_pairs.png`, which shows the synthetic images that lie nearest to a training image beside that image. That
    picture shows patients: do not pass it on. The page names and shows none.

    Args:
        real: the table of cases of the training; its split train is what the generator has seen.
        synthetic: the folder of the set.
        holdout: a table of cases of other patients; if not given, the splits val and test of `real`.
        run: that made the set: also tries what its discriminator gives away.
        features: `random-conv`, `hand-made`, or a TorchScript file, in which sets are compared.
        within: the condition within whose classes diversity is judged; the first with two classes or more if not given.
        drop_near_copies: also write a table of the set without near copies.
        out: another folder.
        seed: of everything random in it.

    Raises:
        InputError: if the set is not marked synthetic, has no manifest, or the sets do not fit one another.
        RunError: if the run is another one than the set's.
    """
    folder = Path(synthetic)
    contract = contract_of(folder)
    made = read_synthetic(folder, contract)
    train = read_real(Path(real), contract, splits=("train",))
    if train is None:
        raise InputError(f"{real}: has no case in the split train, which is what the generator has seen")
    held = _held_out(Path(real), None if holdout is None else Path(holdout), contract)
    critic = None
    if run and held is not None:
        critic = CriticScores(*(critic_scores(Path(run), folder, images) for images in (train, held)))
    within = within or next(iter(contract.conditions), None)
    space = extractor(features)
    # A net of the user's own may tell persons apart better than ours do: near copies are sought by it, too.
    likeness = space if isinstance(space, TorchScript) else None
    ways: dict[str, Any] = {"within": within, "with_masks": contract.prep.mask is not None, "seed": seed}
    found = audit(train, made, held, features=space, likeness=likeness, critic=critic, **ways)
    return _written(found, train, made, Path(out or folder), folder if drop_near_copies else None)


def _held_out(real: Path, holdout: Path | None, contract: Contract) -> ImageSet | None:
    if holdout is None:
        return read_real(real, contract, splits=("val", "test"), label="Reading held-out images")
    return read_real(holdout, contract, splits=("train", "val", "test"), label="Reading held-out images")


def _written(found: Audit, train: ImageSet, made: ImageSet, out: Path, folder: Path | None) -> Audited:
    with replacing(out / "audit.json") as temporary:
        temporary.write_text(found.to_json() + "\n", encoding="utf-8")
    audit_report(found, None, out / "audit.html")
    if found.pairs:
        shows = {"Shows": "synthetic image | nearest training image, of a patient | difference; do not pass on"}
        write_png(pairs_picture(found, train, made), out / "audit_pairs.png", text=shows)
    return Audited(found, out / "audit.json", _without(found, folder) if folder else None)


def _without(found: Audit, folder: Path) -> Path | None:
    """A table of what is no near copy, if there is anything."""
    cases = [case for case in read_cases(folder / TABLE) if case.name not in set(found.near_copies)]
    return write_cases(cases, folder / KEPT) if cases else None
