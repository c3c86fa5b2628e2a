"""Which cases of a cohort stand apart from the others, number by number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Outlier", "outliers"]

LEAST_CASES, MOST_Z = 8, 5.0
_USUAL_SPREAD = 0.05  # of cohorts that hardly differ: a deviation below a quarter of this is none


@dataclass(frozen=True)
class Outlier:
    """A number that stands apart.

    Args:
        case: whose it is.
        name: of the number.
        value: as given.
        usual: the median of the cohort.
        z: how many standard deviations it is away from that, by the median absolute deviation.
    """

    case: str
    name: str
    value: float
    usual: float
    z: float


def outliers(numbers: Mapping[str, Mapping[str, float]]) -> Iterator[Outlier]:
    """Numbers more than 5 robust standard deviations from the median of all cases that have them; none below 8 cases.

    Numbers whose names end in a unit (`_mm`, `_ml`, `_au`) are compared by their logarithms: twice and half are as far.

    Args:
        numbers: by case and name.

    Source:
        Iglewicz, Hoaglin 1993, How to Detect and Handle Outliers, with a limit of 5 instead of 3.5: many are looked at.

    Example:
        >>> cohort = {f"p{n}": {"body_ml": 3000.0 + n} for n in range(9)} | {"odd": {"body_ml": 900.0}}
        >>> [(one.case, one.name, one.usual) for one in outliers(cohort)]
        [('odd', 'body_ml', 3003.5)]
    """
    names = dict.fromkeys(name for own in numbers.values() for name in own)
    for name in names:
        known = {case: own[name] for case, own in numbers.items() if name in own}
        if len(known) >= LEAST_CASES:
            yield from _of_number(name, known)


def _of_number(name: str, known: Mapping[str, float]) -> Iterator[Outlier]:
    values = np.array(list(known.values()), dtype=np.float64)
    scaled = np.log(np.maximum(values, 1e-9)) if name.endswith(("_mm", "_ml", "_au")) else values
    away = scaled - np.median(scaled)
    spread = max(1.4826 * float(np.median(np.abs(away))), _USUAL_SPREAD)
    for case, value, z in zip(known, values, away / spread, strict=True):
        if abs(z) > MOST_Z:
            yield Outlier(case, name, float(value), float(np.median(values)), float(z))
