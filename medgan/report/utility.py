"""The page of a study of utility: the verdict, the scores of every training, and what synthetic images added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medgan.report.charts import Reach, ReachChart, StripChart, draw_dots, draw_reaches
from medgan.report.page import write_page
from medgan.report.tables import Heading

if TYPE_CHECKING:
    from medgan.augment.statistics import Difference
    from medgan.augment.utility import ArmScores, Utility
    from medgan.augment.verdict import Against, Verdict

__all__ = ["utility_report"]

LOOKS = {"helps": "good", "no evidence": "unsure", "harms": "bad"}
TOLD = {
    "helps": "The synthetic images help this task: with them it is learnt better than by every way of doing without.",
    "no evidence": "There is no evidence that the synthetic images help this task, or that they harm it.",
    "harms": "The synthetic images harm this task: without them it is learnt better.",
}


@dataclass(frozen=True)
class Section:
    """What was found beside one share of the real images.

    Args:
        title: the share.
        note: what to know when reading it.
        scores: of every training.
        differences: of each arm with synthetic images to those without.
        rows: the verdicts in words: arm, verdict, corrected p, hardest control, difference to it.
    """

    title: str
    note: str
    scores: StripChart
    differences: tuple[ReachChart, ...]
    rows: tuple[tuple[str, str, str, str, str], ...]


@dataclass(frozen=True)
class ScoreRow:
    """An arm, and the mean and standard deviation over the seeds of each score, in words."""

    arm: str
    share: str
    cells: tuple[str, ...]


def utility_report(utility: Utility, path: Path | str) -> Path:
    """Write the page of a study of utility.

    Args:
        utility: what was found.
        path: of the page.

    Returns:
        The path.

    Raises:
        OutputError: if the page cannot be written.
    """
    names = list(dict.fromkeys(name for arm in utility.arms for name in arm.mean))
    places = {"verdicts": "What synthetic images add", "scores": "All scores", "study": "The study"}
    alone = [arm for arm in utility.arms if arm.cell.fraction is None]
    return write_page(
        path,
        "utility.html.j2",
        title=f"Do synthetic images help {utility.settings.task.name}?",
        places=list(places.items()),
        verdict=utility.verdict,
        told=TOLD[utility.verdict],
        reason=utility.reason,
        looks=LOOKS,
        metric=_label(utility),
        seeds=utility.settings.seeds,
        sections=_sections(utility),
        alone=_dots("Synthetic images alone, and tried on synthetic images", alone) if alone else None,
        names=names,
        table=[_row(arm, names) for arm in sorted(utility.arms, key=_largest_first)],
        against=[
            (f"{one.cell}", _share(one.cell.fraction), _difference(one.difference), _p(one.p_holm))
            for one in sorted(utility.against_real, key=_largest_first)
        ],
        study=_study(utility),
    )


def _label(utility: Utility) -> str:
    return {"auc": "AUC", "dice": "Dice"}.get(utility.settings.task.metric, utility.settings.task.metric)


def _largest_first(one: ArmScores | Against) -> float:
    return -(one.cell.fraction or 0)


# --- each share of the real images ------------------------------------------------------------------------------------


def _sections(utility: Utility) -> list[Section]:
    """The largest share first: the verdict is on it."""
    shares = {arm.cell.fraction for arm in utility.arms if arm.cell.fraction is not None}
    return [_section(utility, share) for share in sorted(shares, reverse=True)]


def _section(utility: Utility, share: float) -> Section:
    label, arms = _label(utility), [arm for arm in utility.arms if arm.cell.fraction == share]
    told = [one for one in utility.verdicts if one.cell.fraction == share]
    charts = [_differences(one, label) for one in told]
    flattered = "The synthetic images were learnt from all real patients, so that they flatter a smaller share."
    return Section(
        title=f"Beside {_share(share)}",
        note=flattered if share < 1 else "The verdict is on this.",
        scores=_dots(f"{label} on the test set, {_share(share)}", arms),
        differences=tuple(chart for chart in charts if chart),
        rows=tuple(_verdict_row(one) for one in told),
    )


def _dots(label: str, arms: Sequence[ArmScores]) -> StripChart:
    """A dot a seed."""
    values = {str(arm.cell): {f"seed {seed}": value for seed, value in enumerate(arm.values, start=1)} for arm in arms}
    return draw_dots(Heading(label, "", True), values, lambda value: f"{value:.3f}")


def _differences(verdict: Verdict, label: str) -> ReachChart | None:
    lines: Mapping[str, tuple[Reach, Reach | None]] = {
        f"− {name}": (Reach(found.mean, found.low, found.high), None) for name, found in verdict.controls.items()
    }
    name = f"{verdict.cell} less each way of doing without: difference in {label}"
    return draw_reaches(name, lines, note="mean and 95 % interval", mark=0.0)


def _verdict_row(verdict: Verdict) -> tuple[str, str, str, str, str]:
    found = verdict.controls[verdict.hardest]
    return str(verdict.cell), verdict.word, _p(verdict.p_holm), verdict.hardest, _difference(found)


# --- tables -----------------------------------------------------------------------------------------------------------


def _row(arm: ArmScores, names: Sequence[str]) -> ScoreRow:
    cells = tuple(f"{arm.mean[name]:.3f} ± {arm.sd[name]:.3f}" if name in arm.mean else "–" for name in names)
    return ScoreRow(str(arm.cell), _share(arm.cell.fraction), cells)


def _share(fraction: float | None) -> str:
    if fraction is None:
        return "–"
    return "all real patients" if fraction == 1 else f"{100 * fraction:g} % of the real patients"


def _difference(found: Difference) -> str:
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})".replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def _study(utility: Utility) -> dict[str, str]:
    settings, counts = utility.settings, utility.num_images
    task = ", ".join(f"{name} {value}" for name, value in settings.task.model_dump(mode="json").items())
    return {
        "images": ", ".join(f"{name} {count}" for name, count in counts.items()),
        "task": task,
        "steps": f"{settings.steps}, the same in every arm",
        "seeds": str(settings.seeds),
        "ratios": ", ".join(f"{ratio:g}" for ratio in settings.ratios),
        "trainings": f"{len(utility.rows)} in {sum(row.seconds for row in utility.rows):.0f} s",
    }
