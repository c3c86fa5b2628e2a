"""How a training went: its losses, vitals and validations as charts, and what the doctor said."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medgan.doctor import Spell, spells
from medgan.report.charts import Family, FamilyChart, draw_family

__all__ = ["Course", "course"]

Lines = Sequence[Mapping[str, Any]]
Points = list[tuple[int, float]]
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
    marks: dict[int, str] = {}
    for number, spell in enumerate(found, start=1):
        marks[spell.since] = f"{marks[spell.since]}, {number}" if spell.since in marks else str(number)
    last_step = max((line["step"] for line in lines), default=0)
    charts = [draw_family(family, last_step, marks) for family in _families(lines, error_unit)]
    return Course(tuple(chart for chart in charts if chart), tuple(found), sum("vitals" in line for line in lines))


def _families(lines: Lines, error_unit: str) -> Iterable[Family]:
    losses, vitals = _series(lines, "loss"), _series(lines, "vitals")
    yield Family("Validation MAE", _only(_series(lines, "val"), {"mae": "mean over the patients"}), error_unit)
    yield Family("What the generator minimises", _shares(lines), "%", PERCENT, note="share of each weighted term")
    yield Family(
        "Losses of the discriminator", {name: points for name, points in losses.items() if name.startswith("D_")}
    )
    for domain in ("b", "a"):
        yield from _of_domain(domain, vitals)
    yield Family(
        "Length of the gradients", _series(lines, "grad"), logarithmic=True, note="at the steps that were logged"
    )


def _of_domain(domain: str, vitals: Mapping[str, Points]) -> Iterable[Family]:
    """Charts of the discriminator and of the fakes of a domain; they have no lines where it has none."""
    sorts = {"real": "real, training", "fake": "fakes", "held_out": "real, validation"}
    rights = _only(vitals, {f"right_{sort}_{domain}": name for sort, name in sorts.items()})
    percent = {name: [(step, 100 * value) for step, value in points] for name, points in rights.items()}
    yield Family(f"Discriminator of {domain}: patches judged rightly", percent, "%", PERCENT, note="a guess is 50%")
    verdicts = _only(vitals, {f"logit_{sort}_{domain}": name for sort, name in sorts.items()})
    yield Family(f"Discriminator of {domain}: mean verdict", verdicts, note="above 0 is taken for real")
    likeness = {f"variety_{domain}": "from patch to patch", f"spread_{domain}": "inside a patch"}
    note = "1 is as among real images"
    yield Family(f"Fakes of {domain}: how much brightness varies", _only(vitals, likeness), note=note)


def _shares(lines: Lines) -> dict[str, Points]:
    """Of the absolute values of the generator's terms, in percent."""
    shares: dict[str, Points] = {}
    for line in lines:
        terms = {name: abs(value) for name, value in _numbers(line, "loss").items() if name.startswith("G_")}
        for name, value in terms.items():
            if total := sum(terms.values()):
                shares.setdefault(name, []).append((line["step"], 100 * value / total))
    return shares if len(shares) > 1 else {}


def _series(lines: Lines, kind: str) -> dict[str, Points]:
    """The points of every number that lines of a kind hold, by its name."""
    series: dict[str, Points] = {}
    for line in lines:
        for name, value in _numbers(line, kind).items():
            series.setdefault(name, []).append((line["step"], value))
    return series


def _numbers(line: Mapping[str, Any], kind: str) -> dict[str, float]:
    values = line.get(kind)
    if not isinstance(values, Mapping):
        return {}
    return {name: x for name, x in values.items() if isinstance(x, int | float) and math.isfinite(x)}


def _only(series: Mapping[str, Points], names: Mapping[str, str]) -> dict[str, Points]:
    """Some of them, under other names."""
    return {name: series[key] for key, name in names.items() if key in series}
