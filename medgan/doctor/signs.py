"""An alarm, and the borders and readings that games of both kinds share."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Alarm", "by_heart", "faded", "of_kind"]

SURE = 0.98
GUESSING = 0.55
LITTLE_VARIETY = 0.3
LITTLE_SPREAD, MUCH_SPREAD = 0.5, 2.0
VANISHED, LATELY = 0.01, 5
WORSE = 1.1
LONG_AGO = 3
LEARNT = 0.75
KNOWN_BY_HEART = 0.5
ENOUGH_LINES = 10


@dataclass(frozen=True)
class Alarm:
    """Something that goes wrong.

    Args:
        name: short, the same each time.
        reason: what was seen.
        remedy: what to change.
    """

    name: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}. {self.remedy}"


def of_kind(lines: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, float]]:
    """What the lines say of one kind, such as `loss`, where that is numbers."""
    found = [line[kind] for line in lines if isinstance(line.get(kind), Mapping)]
    numbers = [{name: x for name, x in one.items() if isinstance(x, int | float)} for one in found]
    return [one for one in numbers if one]


def by_heart(vitals: Mapping[str, float]) -> str:
    """How it shows that the discriminator knows its training images, or "" if it does not."""
    needed = {"right_real", "right_fake", "logit_real", "logit_fake", "logit_held_out"}
    if not vitals.keys() >= needed or min(vitals["right_real"], vitals["right_fake"]) < LEARNT:
        return ""  # what it cannot tell it does not know
    real, fake, unseen = vitals["logit_real"], vitals["logit_fake"], vitals["logit_held_out"]
    if real - unseen <= KNOWN_BY_HEART * (real - fake):
        return ""
    return f"real images score {real:.2g} in training but {unseen:.2g} in validation, fakes {fake:.2g}"


def faded(gradients: Sequence[Mapping[str, float]], player: str, *, freaks: int = 0) -> tuple[float, float] | None:
    """The length of a player's gradient now and in the beginning, where next to nothing of it is left.

    Now is the median of some lines of the log, as one may be chance. The beginning is the longest of the first lines:
    their median would be that of a dead gradient if it died early, and of all lines after the first half of them.

    Args:
        gradients: of the lines so far.
        player: whose.
        freaks: how many of the first lines may be longer than the rest by chance.
    """
    lengths = [length for one in gradients if math.isfinite(length := one.get(player, math.nan))]
    if len(lengths) <= ENOUGH_LINES:
        return None
    now, first = statistics.median(lengths[-LATELY:]), sorted(lengths[:ENOUGH_LINES])[-1 - freaks]
    return (now, first) if now <= VANISHED * first else None
