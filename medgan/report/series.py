"""The numbers in the lines of metrics.jsonl, as series over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from medgan.doctor import Spell

__all__ = ["Lines", "Points", "finite", "marks", "picked", "series"]

Lines: TypeAlias = Sequence[Mapping[str, Any]]
Points: TypeAlias = list[tuple[int, float]]


def series(lines: Lines, kind: str) -> dict[str, Points]:
    """The points (step, value) of every number that lines of a kind hold, by its name.

    Example:
        >>> series([{"step": 5, "val": {"mae": 60.0, "ssim": None}}, {"step": 9, "val": {"mae": 50.0}}], "val")
        {'mae': [(5, 60.0), (9, 50.0)]}
    """
    found: dict[str, Points] = {}
    for line in lines:
        for name, value in finite(line, kind).items():
            found.setdefault(name, []).append((line["step"], value))
    return found


def finite(line: Mapping[str, Any], kind: str) -> dict[str, float]:
    """The finite numbers that a line of a kind holds; none if it is of another kind."""
    values = line.get(kind)
    if not isinstance(values, Mapping):
        return {}
    return {name: x for name, x in values.items() if isinstance(x, int | float) and math.isfinite(x)}


def picked(known: Mapping[str, Points], names: Mapping[str, str], *, times: float = 1.0) -> dict[str, Points]:
    """Some series under other names, each value so many times as large."""
    return {name: [(step, times * value) for step, value in known[key]] for key, name in names.items() if key in known}


def marks(spells: Sequence[Spell]) -> dict[int, str]:
    """The numbers of the alarms, from 1, by the step at which they began.

    Example:
        >>> from medgan.doctor import Alarm
        >>> marks([Spell(Alarm("a", "", ""), 20), Spell(Alarm("b", "", ""), 20), Spell(Alarm("c", "", ""), 30)])
        {20: '1, 2', 30: '3'}
    """
    numbers: dict[int, list[str]] = {}
    for number, spell in enumerate(spells, start=1):
        numbers.setdefault(spell.since, []).append(str(number))
    return {step: ", ".join(group) for step, group in numbers.items()}
