"""What images are asked to show: classes and numbers, as the vector that nets see.

Each condition is a few entries of the vector that add up to 1: of a class its own entry is 1; a number lies between two
knots, which share the 1 by how near they are. So a layer without bias learns a vector a class, and between knots goes
straight from one vector to the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor

from medgan.errors import InputError
from medgan.settings import Settings

__all__ = ["Condition", "encode"]

_KNOTS = range  # whose own name is a field of the settings


class Condition(Settings):
    """One thing that an image can be asked for: either one of some classes, or a number.

    Args:
        classes: their names, as the column `condition:<name>` of the table of cases has them.
        range: lowest and highest number; what lies beyond is refused.
        knots: between which a number is interpolated, the ends included.
    """

    classes: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    knots: int = Field(default=4, ge=2, le=64)

    @model_validator(mode="after")
    def _class_or_number(self) -> Condition:
        if bool(self.classes) == (self.range is not None):
            raise ValueError("give either classes or the range of a number")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError(f"the lower end {self.range[0]:g} must be below the upper end {self.range[1]:g}")
        if self.classes and (len(set(self.classes)) < max(2, len(self.classes)) or not all(self.classes)):
            raise ValueError(f"classes are two or more different names; seen {list(self.classes)}")
        if self.classes and self.knots != type(self).model_fields["knots"].default:
            raise ValueError("knots belong to a number, not to classes; leave them out")
        return self

    @property
    def width(self) -> int:
        """Entries of the vector."""
        return len(self.classes) or self.knots

    def encode(self, value: str, name: str) -> list[float]:
        """The entries of one image, which add up to 1.

        Args:
            value: a class, or a number as text.
            name: of the condition, for messages.

        Raises:
            InputError: for another class, no number, or one out of range.

        Example:
            >>> Condition(range=(20, 80), knots=4).encode("50", "age")  # between the knots 40 and 60
            [0.0, 0.5, 0.5, 0.0]
        """
        if self.classes:
            if value not in self.classes:
                raise InputError(f"{name}: {value!r} is none of the classes {', '.join(self.classes)}")
            return [float(value == one) for one in self.classes]
        place = self._place(value, name)
        return [max(0.0, 1 - abs(place - knot)) for knot in _KNOTS(self.knots)]

    def _place(self, value: str, name: str) -> float:
        """Of a number among the knots, from 0."""
        low, high = self.range or (0, 1)
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"{name}: {value!r} is no number; give one from {low:g} to {high:g}") from None
        if not (math.isfinite(number) and low <= number <= high):
            raise InputError(f"{name}: {number:g} is not within {low:g} to {high:g}, where the run has learnt")
        return (number - low) / (high - low) * (self.knots - 1)


def width(conditions: Mapping[str, Condition]) -> int:
    """Entries of the whole vector; 0 without conditions."""
    return sum(condition.width for condition in conditions.values())


def encode(conditions: Mapping[str, Condition], values: Mapping[str, Sequence[str]]) -> Tensor | None:
    """(N, K) of the values that N images have under each name, or None where there are no conditions.

    Raises:
        InputError: for a condition without values, values without a condition, or values that are not accepted.
    """
    accepted = ", ".join(conditions) or "none: the run learnt without conditions"
    if unknown := [name for name in values if name not in conditions]:
        raise InputError(f"{', '.join(unknown)}: no condition of the run (accepted: {accepted})")
    if missing := [name for name in conditions if name not in values]:
        raise InputError(f"{', '.join(missing)}: not given, and the run's images hang on it; give all of {accepted}")
    if not conditions:
        return None
    groups = [
        torch.tensor([condition.encode(value, name) for value in values[name]])
        for name, condition in conditions.items()
    ]
    return torch.cat(groups, dim=1)
