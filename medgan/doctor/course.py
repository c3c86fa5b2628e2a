"""What a training gave cause to say, now and in its course."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medgan.doctor.samplers import of_sampler
from medgan.doctor.signs import Alarm
from medgan.doctor.translators import of_translator

__all__ = ["Spell", "alarms", "names_told", "spells"]


@dataclass(frozen=True)
class Spell:
    """An alarm and how long it lasted.

    Args:
        alarm: as it was when it began.
        since: the step at which it began.
        until: the step at which it was gone; None if it lasts.
    """

    alarm: Alarm
    since: int
    until: int | None = None


def alarms(lines: Sequence[Mapping[str, Any]], *, samples: bool = False) -> list[Alarm]:
    """What the lines of metrics.jsonl so far give cause to say about the last of them.

    Args:
        lines: of a run.
        samples: whether it is that of a sampler, which ails in other ways and has other settings to turn.
    """
    return list(of_sampler(lines) if samples else of_translator(lines))


def names_told(lines: Sequence[Mapping[str, Any]]) -> set[str]:
    """The names of the alarms that the last check-up in the lines of metrics.jsonl told; older logs hold names alone.

    Example:
        >>> names_told([{"step": 5, "alarms": [{"name": "a", "reason": "b", "remedy": "c"}]}, {"step": 6}])
        {'a'}
        >>> names_told([{"step": 5, "alarms": ["a"]}])  # of an older log
        {'a'}
    """
    told: list[Any] = next((line["alarms"] for line in reversed(lines) if isinstance(line.get("alarms"), list)), [])
    names = [one.get("name") if isinstance(one, Mapping) else one for one in told]
    return {name for name in names if isinstance(name, str)}


def spells(lines: Sequence[Mapping[str, Any]], *, samples: bool = False) -> list[Spell]:
    """All alarms that the lines of metrics.jsonl gave cause for at a check-up, in the order in which they began.

    The arguments are those of `alarms`.
    """
    began: dict[str, Spell] = {}
    over: list[Spell] = []
    for number, line in enumerate(lines, start=1):
        if "vitals" in line:
            now = {alarm.name: alarm for alarm in alarms(lines[:number], samples=samples)}
            over += [replace(began.pop(name), until=line["step"]) for name in [*began] if name not in now]
            began = {name: Spell(alarm, line["step"]) for name, alarm in now.items()} | began
    return sorted([*over, *began.values()], key=lambda spell: spell.since)
