"""Whether synthetic images help: every arm that has them against every arm that does without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from medgan.augment.arms import ARMS
from medgan.augment.statistics import Difference, Floats, paired_difference
from medgan.metrics.statistics import holm

__all__ = ["Against", "Cell", "Verdict", "against_real", "headline", "verdicts"]

HELPS, NO_EVIDENCE, HARMS = "helps", "no evidence", "harms"
LEVEL = 0.05


class Cell(NamedTuple):
    """What is run once for each seed: an arm, with a ratio of added images, on a share of the real patients."""

    arm: str
    ratio: float | None
    fraction: float | None

    def __str__(self) -> str:
        added = "" if self.ratio is None else f" × {self.ratio:g}"
        return self.arm + added


Scores = Mapping[Cell, Floats]


@dataclass(frozen=True)
class Against:
    """An arm against training on the same real images alone.

    Args:
        cell: of the arm.
        difference: of its score to that of `real`.
        p_holm: its p-value, corrected for all arms and ratios of the fraction.
    """

    cell: Cell
    difference: Difference
    p_holm: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.cell._asdict(), **asdict(self.difference), "p_holm": self.p_holm}


@dataclass(frozen=True)
class Verdict:
    """Whether synthetic images helped in one arm, at one ratio, beside one share of the real images.

    Args:
        cell: of the arm.
        word: `helps`, `no evidence` or `harms`.
        p_holm: the p-value on which it rests, corrected for all such verdicts of the fraction.
        controls: the difference to each arm that does without synthetic images.
    """

    cell: Cell
    word: str
    p_holm: float
    controls: Mapping[str, Difference]

    @property
    def hardest(self) -> str:
        """The control that it comes off worst against."""
        return min(self.controls, key=lambda name: self.controls[name].mean)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        controls = {name: asdict(difference) for name, difference in self.controls.items()}
        return {**self.cell._asdict(), "verdict": self.word, "p_holm": self.p_holm, "controls": controls}


def against_real(scores: Scores, *, num_patients: int) -> list[Against]:
    """Every arm of the sweep against `real`, the p-values corrected by Holm over arms and ratios of each fraction."""
    told = []
    for fraction in _fractions(scores):
        cells = [cell for cell in scores if cell.fraction == fraction and cell.arm != "real"]
        real = scores[Cell("real", None, fraction)]
        found = [paired_difference(scores[cell], real, num_patients=num_patients) for cell in cells]
        corrected = holm([difference.p for difference in found])
        told += [Against(*parts) for parts in zip(cells, found, corrected, strict=True)]
    return told


def verdicts(scores: Scores, *, num_patients: int) -> list[Verdict]:
    """A verdict on each arm that adds synthetic images to real ones, at each ratio and fraction.

    Its controls are all arms of the same fraction that do without synthetic images: `real`, `real+classic`, and those
    that add as many duplicates instead (at the same ratio). Its p-value is the largest of those against each control
    if it scores higher than all of them; that against its plain arm (`real`, or `real+classic` where images are changed
    at random) if it scores lower than that one; else 1. These are corrected by Holm over the arms and ratios of the
    fraction. With a corrected p of 0.05 or less it *helps* in the first case and *harms* in the second. In all others
    there is *no evidence*.

    To beat all controls at the level each is to beat the best of them at that level, whichever that is.

    Source:
        Berger 1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24 (the largest p).

    Args:
        scores: (S, 1 + B) of each cell of the sweep, seeds and draws in one order.
        num_patients: in the test set.
    """
    told = []
    for fraction in _fractions(scores):
        cells = [cell for cell in scores if cell.fraction == fraction and ARMS[cell.arm].added == "synthetic"]
        controls = [_controls(cell, scores, num_patients) for cell in cells]
        rested = [_p_value(cell, found) for cell, found in zip(cells, controls, strict=True)]
        corrected = holm([p for p, _ in rested])
        told += [
            Verdict(cell, word if p <= LEVEL else NO_EVIDENCE, p, found)
            for cell, (_, word), p, found in zip(cells, rested, corrected, controls, strict=True)
        ]
    return told


def headline(told: Sequence[Verdict], metric: str) -> tuple[str, str]:
    """The verdict on all the real images that there are, and a sentence why.

    It is that of the largest fraction, which is all of them: `helps` if any arm does at any ratio, else `harms` if any
    does.

    Args:
        told: all verdicts of a study, one at least.
        metric: name of the score.
    """
    largest = max(one.cell.fraction or 0 for one in told)
    last = [one for one in told if one.cell.fraction == largest]
    for word in (HELPS, HARMS):
        if found := [one for one in last if one.word == word]:
            return word, _because(min(found, key=lambda one: one.p_holm), metric)
    return NO_EVIDENCE, _because(max(last, key=lambda one: one.controls[one.hardest].mean), metric)


def _fractions(scores: Scores) -> list[float]:
    return sorted({cell.fraction for cell in scores if cell.fraction is not None})


def _controls(cell: Cell, scores: Scores, num_patients: int) -> dict[str, Difference]:
    others = [
        other
        for other in scores
        if other.fraction == cell.fraction
        and other.ratio in {None, cell.ratio}
        and ARMS[other.arm].added != "synthetic"
    ]
    return {other.arm: paired_difference(scores[cell], scores[other], num_patients=num_patients) for other in others}


def _p_value(cell: Cell, controls: Mapping[str, Difference]) -> tuple[float, str]:
    """On which the verdict rests, and the verdict if it is small."""
    plain = controls[ARMS[cell.arm].plain]
    if all(difference.mean > 0 for difference in controls.values()):
        return max(difference.p for difference in controls.values()), HELPS
    return (plain.p, HARMS) if plain.mean < 0 else (1.0, NO_EVIDENCE)


def _because(verdict: Verdict, metric: str) -> str:
    control = ARMS[verdict.cell.arm].plain if verdict.word == HARMS else verdict.hardest
    found = verdict.controls[control]
    return (
        f"{verdict.cell}: {metric} {found.mean:+.3f} (95 % interval {found.low:+.3f} to {found.high:+.3f}) against "
        f"{control}, Holm-corrected p {verdict.p_holm:.2g}"
    )
