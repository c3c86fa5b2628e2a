"""Parallel rays through the voxels of a grid, and integrals along them that are exact where a voxel has one value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Rays"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_SLIVER = 1e-12  # of a voxel: a rounding error, not a part of a ray


@dataclass(frozen=True)
class Rays:
    """Parallel rays through a grid, which runs so that from one column to the next they move by at most one row.

    A column is a plane of voxels across the axis along which the rays run most; a row is a place in it. Rays are
    numbered by the row at which they cross the middle of column 0, whole numbers, inside the grid or not.

    Args:
        axis: the one along which the rays run most.
        is_backward: whether they run against it.
        slopes: how many rows they move from column to column, along each of the other axes.
        step_mm: way from column to column.
        shape: number of columns, and of rows along each of the other axes.
    """

    axis: int
    is_backward: bool
    slopes: tuple[float, float]
    step_mm: float
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, shape: Sequence[int], spacing_mm: Floats, direction: Sequence[float] | Floats) -> Self:
        """Those of a direction, in mm along the array axes."""
        moves = np.asarray(direction) / spacing_mm
        axis = int(np.abs(moves).argmax())
        others = [other for other in range(3) if other != axis]
        first, second = (float(moves[other] / abs(moves[axis])) for other in others)
        step_mm = float(np.linalg.norm(direction) / abs(moves[axis]))
        turned = (shape[axis], shape[others[0]], shape[others[1]])
        return cls(axis, bool(moves[axis] < 0), (first, second), step_mm, turned)

    def columns(self, volume: Array) -> Array:
        """A view whose first axis is that of the columns, as the rays meet them."""
        columns = np.moveaxis(volume, self.axis, 0)
        return columns[::-1] if self.is_backward else columns

    def volume(self, columns: Array) -> Array:
        """The way back."""
        return np.moveaxis(columns[::-1] if self.is_backward else columns, 0, self.axis)

    @property
    def meet_centres(self) -> bool:
        """Whether they cross each column at the centres of voxels."""
        return all(slope.is_integer() for slope in self.slopes)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """Along each axis of the rows the first ray that meets the grid, or one before it, and how many there are."""
        ends = [
            (len_ - 1, slope * (self.shape[0] - 1)) for len_, slope in zip(self.shape[1:], self.slopes, strict=True)
        ]
        lows = [math.floor(-max(drift, 0)) - (drift != 0) for _, drift in ends]
        highs = [math.ceil(last - min(drift, 0)) + (drift != 0) for last, drift in ends]
        return [(low, high - low + 1) for low, high in zip(lows, highs, strict=True)]

    def rows(self, k: int) -> tuple[int, int]:
        """What is to be added to the number of a ray for the row that it is in, in the middle of column k."""
        first, second = (math.floor(k * slope + 0.5) for slope in self.slopes)
        return first, second

    def met(self, rows: Sequence[int]) -> tuple[slice, slice]:
        """The rays that are in the grid where this is to be added to their number for their row."""
        starts = [-row - low for row, (low, _) in zip(rows, self._spans, strict=True)]
        first, second = (slice(a, a + length) for a, length in zip(starts, self.shape[1:], strict=True))
        return first, second

    def over_rays(self, columns: Array) -> Array:
        """(K, B, C) what each ray meets in the middle of each column; 0 outside the grid."""
        seen = np.zeros((self.shape[0], *(count for _, count in self._spans)), dtype=columns.dtype)
        for k, column in enumerate(columns):
            seen[k][self.met(self.rows(k))] = column
        return seen

    def walked(self, columns: Floats) -> Iterator[Floats]:
        """(B, C) for each ray the integral from where it enters, mm: to the middle and to the end of each column."""
        total = np.zeros([count for _, count in self._spans])
        for column, (to_middle, to_end) in zip(columns, self._halves, strict=True):
            for pieces in (to_middle, to_end):
                for share, met in pieces:
                    total[met] += share * self.step_mm * column
                yield total.copy()

    @cached_property
    def _halves(self) -> list[list[list[tuple[float, tuple[slice, slice]]]]]:
        """For both halves of each column the pieces of a ray, and the rays that are in the grid there."""
        halves = (-0.5, 0.0), (0.0, 0.5)
        return [
            [[(share, self.met(rows)) for share, rows in self._pieces(k, half)] for half in halves]
            for k in range(self.shape[0])
        ]

    def walked_to(self, columns: Floats, k: int) -> Floats:
        """The integral, mm, from where a ray enters to each voxel centre of column k; each centre has its own ray."""
        total = np.zeros(self.shape[1:])
        for before in range(k + 1):
            for share, rows in self._pieces(before - k, (-0.5, 0.0 if before == k else 0.5)):
                to, of = _overlap(rows, self.shape[1:])
                total[to] += share * self.step_mm * columns[before][of]
        return total

    def _pieces(self, column: int, part: tuple[float, float]) -> Iterator[tuple[float, tuple[int, int]]]:
        """A ray in a part of a column, cut where it changes rows: what share of a column each piece is, and its row."""
        cuts = {*part}
        for slope in self.slopes:
            place = column * slope
            ends = sorted(place + slope * end for end in part)
            borders = [row + 0.5 for row in range(math.floor(ends[0]) - 1, math.ceil(ends[1]) + 1)]
            cuts |= {(border - place) / slope for border in borders if ends[0] < border < ends[1]}
        for start, stop in pairwise(sorted(cuts)):
            if stop - start > _SLIVER:
                first, second = (math.floor(column * s + s * (start + stop) / 2 + 0.5) for s in self.slopes)
                yield stop - start, (first, second)


def _overlap(rows: Sequence[int], shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where rows and those that lie so many further on are both in the grid."""
    to = tuple(slice(max(0, -row), max(0, min(length, length - row))) for row, length in zip(rows, shape, strict=True))
    of = tuple(slice(max(0, row), max(0, min(length, length + row))) for row, length in zip(rows, shape, strict=True))
    return to, of
