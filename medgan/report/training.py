"""How a training went: its losses, vitals and validations as charts, and what the doctor said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from medgan.doctor import Spell, spells
from medgan.report.charts import Family, FamilyChart, draw_family
from medgan.report.series import Lines, Points, finite, marks, picked, series

__all__ = ["Course", "course", "split_told"]

PERCENT = (0.0, 100.0)


@dataclass(frozen=True)
class Course:
    """What a page shows of a training.

    Args:
        charts: its quantities by step; a mark is the number of an alarm that began there.
        spells: all alarms, in the order of their numbers, from 1.
        num_checks: how often the doctor looked.
    """

    charts: tuple[FamilyChart, ...]
    spells: tuple[Spell, ...]
    num_checks: int


def course(lines: Lines, error_unit: str = "") -> Course:
    """What the lines of a run's metrics.jsonl tell.

    Args:
        lines: as `Run.metrics` gives them.
        error_unit: unit of the validation errors.
    """
    found = spells(lines)
    last_step = max((line["step"] for line in lines), default=0)
    charts = [draw_family(family, last_step, marks(found)) for family in _families(lines, error_unit)]
    return Course(tuple(chart for chart in charts if chart), tuple(found), sum("vitals" in line for line in lines))


def split_told(card: Mapping[str, Any]) -> dict[str, str]:
    """Who was in which split, as a hash: equal in runs whose patients were split alike; {} where the card has none."""
    split = card.get("split_sha256")
    return {"split": f"sha256:{split}"} if split else {}


def _families(lines: Lines, error_unit: str) -> Iterable[Family]:
    losses, vitals = series(lines, "loss"), series(lines, "vitals")
    yield Family("Validation MAE", picked(series(lines, "val"), {"mae": "mean over the patients"}), error_unit)
    sets = {"fd": "translations", "fd_of_training_images": "training images"}
    yield Family("FD-random-conv to held-out images", picked(series(lines, "val"), sets), note="as sets; without pairs")
    yield Family("What the generator minimises", _shares(lines), "%", PERCENT, note="share of each weighted term")
    yield Family(
        "Losses of the discriminator", {name: points for name, points in losses.items() if name.startswith("D_")}
    )
    for domain in ("b", "a"):
        yield from _of_domain(domain, vitals)
    yield Family(
        "Length of the gradients", series(lines, "grad"), logarithmic=True, note="at the steps that were logged"
    )


def _of_domain(domain: str, vitals: Mapping[str, Points]) -> Iterable[Family]:
    """Charts of the discriminator and of the fakes of a domain; they have no lines where it has none."""
    sorts = {"real": "real, training", "fake": "fakes, training", "held_out": "real, validation"}
    rights = picked(vitals, {f"right_{sort}_{domain}": name for sort, name in sorts.items()}, times=100)
    yield Family(f"Discriminator of {domain}: patches judged rightly", rights, "%", PERCENT, note="a guess is 50%")
    sorts |= {"held_out_fake": "fakes, validation"}
    verdicts = picked(vitals, {f"logit_{sort}_{domain}": name for sort, name in sorts.items()})
    yield Family(f"Discriminator of {domain}: mean verdict", verdicts, note="above 0 is taken for real")
    likeness = {f"variety_{domain}": "from patch to patch", f"spread_{domain}": "inside a patch"}
    note = "1 is as among real images"
    yield Family(f"Fakes of {domain}: how much brightness varies", picked(vitals, likeness), note=note)


def _shares(lines: Lines) -> dict[str, Points]:
    """Of the absolute values of the generator's terms, in percent."""
    shares: dict[str, Points] = {}
    for line in lines:
        terms = {name: abs(value) for name, value in finite(line, "loss").items() if name.startswith("G_")}
        for name, value in terms.items():
            if total := sum(terms.values()):
                shares.setdefault(name, []).append((line["step"], 100 * value / total))
    return shares if len(shares) > 1 else {}
