"""Slices that lean or are not evenly apart become a straight grid, and images on that grid go back onto the slices.

Both ways each picture is shifted within its plane (by cubic convolution, Keys 1981, a = -1/2, which neither blurs nor
shifts by more than linear interpolation does) and neighbours are blended linearly along the normal. Where an output
slice lies at the very place of an input slice, that one alone counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.formats.dicom.stack import Stack
from medgan.volume import Grid

__all__ = ["ladder_gap_mm", "onto_slices", "straight_grid", "straightened"]

Array = npt.NDArray[Any]
_MOST_SLICES = 8  # of the straight grid for each slice that there is
_ON_LADDER_MM = 0.03
_SAME = 1e-3  # of a gap or a pixel: nearer than this is the same place


def ladder_gap_mm(stack: Stack) -> float:
    """The gap of an even ladder that the slices of an uneven stack are resampled to, mm.

    The widest ladder that has a step at every slice, if there is one with at most eight steps a slice; else one about
    as narrow as the narrowest gap, within the same limit, that ends at the last slice.
    """
    heights, least = stack.heights - stack.heights[0], float(stack.gaps.min())
    narrowest = float(heights[-1]) / (_MOST_SLICES * len(heights))
    for parts in range(1, 9):
        gap = _fitted(heights, least / parts)
        if gap >= narrowest and float(np.abs(heights / gap - np.rint(heights / gap)).max()) * gap < _ON_LADDER_MM:
            return gap
    return float(heights[-1]) / int(np.ceil(float(heights[-1]) / max(least, narrowest)))


def _fitted(heights: Array, gap: float) -> float:
    """The gap near this one that meets the slices best."""
    steps = np.rint(heights / gap)
    return float(heights @ steps / (steps @ steps))


def straight_grid(stack: Stack, gap_mm: float) -> Grid:
    """(columns, rows, slices) at right angles, large enough for every slice, its slices this far apart."""
    along, down = _shifts(stack)
    row_gap, column_gap = _pixel_mm(stack)
    first = stack.places[0] + along.min() * column_gap * stack.axes[0] + down.min() * row_gap * stack.axes[1]
    num_slices = int(np.ceil((stack.heights[-1] - stack.heights[0]) / gap_mm - _SAME)) + 1
    grid = stack.grid_of(first, stack.axes[2] * gap_mm, num_slices)
    columns, rows = (n + int(np.ceil(np.ptp(s) - _SAME)) for n, s in zip(grid.shape[:2], (along, down), strict=True))
    return Grid((columns, rows, num_slices), grid.affine)


def straightened(array: Array, stack: Stack, grid: Grid) -> Array:
    """(X, Y, Z) on the straight grid, of (columns, rows, N) on the slices; integers stay integers.

    Where no slice reaches, the lowest value stands: air in a CT. No value lies beyond those that there were.
    """
    along, down = _shifts(stack)
    along, down = along - along.min(), down - down.min()
    heights = (stack.heights - stack.heights[0]) / grid.spacing_mm[2]
    moved = [_Moved(array[:, :, k], (float(along[k]), float(down[k])), grid.shape[:2]) for k in range(len(heights))]
    out = np.empty(grid.shape, array.dtype, order="F")  # picture by picture, as files hold it
    lowest, highest = array.min(), array.max()
    for z in range(grid.shape[2]):
        picture = _filled(_blend(moved, heights, z), lowest)
        out[:, :, z] = _as(array.dtype, np.clip(picture, lowest, highest))
    return out


def onto_slices(array: Array, grid: Grid, stack: Stack) -> Array:
    """(columns, rows, N) on the slices, of (X, Y, Z) on their straight grid."""
    along, down = _shifts(stack)
    along, down = along - along.min(), down - down.min()
    heights = (stack.heights - stack.heights[0]) / grid.spacing_mm[2]
    shape = (stack.headers[0].columns, stack.headers[0].rows)
    out = np.empty((*shape, len(heights)), array.dtype, order="F")
    for k, height in enumerate(heights):
        picture = _between(array, float(height))
        back = _Moved(picture, (-float(along[k]), -float(down[k])), shape).picture()
        out[:, :, k] = _as(array.dtype, _filled(back, array.min()))
    return out


# --- along the normal -------------------------------------------------------------------------------------------------


def _between(array: Array, height: float) -> Array:
    """The picture at a fractional index of the last axis."""
    below = min(max(int(np.floor(height + _SAME)), 0), array.shape[2] - 1)
    part = height - below
    if part < _SAME or below + 1 == array.shape[2]:
        return array[:, :, below].astype(np.float32)
    low, high = array[:, :, below].astype(np.float32), array[:, :, below + 1].astype(np.float32)
    return np.asarray((1 - part) * low + part * high)


def _blend(moved: list[_Moved], heights: Array, z: float) -> Array:
    """The picture at a height between slices, NaN where none reaches; beyond the ends the last slice."""
    above = int(np.searchsorted(heights, z - _SAME))
    if above == len(heights) or above == 0 or heights[above] - z < _SAME:
        return moved[min(above, len(heights) - 1)].picture()
    part = (z - heights[above - 1]) / (heights[above] - heights[above - 1])
    low, high = moved[above - 1].picture(), moved[above].picture()
    both = (1 - part) * low + part * high
    return np.where(np.isnan(both), np.where(np.isnan(low), high, low), both)


# --- within the plane -------------------------------------------------------------------------------------------------


def _pixel_mm(stack: Stack) -> tuple[float, ...]:
    return stack.headers[0].pixel_spacing or (1.0, 1.0)


def _shifts(stack: Stack) -> tuple[Array, Array]:
    """(N,) each: how far a slice lies from the first along a row and along a column, pixels."""
    row_gap, column_gap = _pixel_mm(stack)
    offsets = stack.places - stack.places[0]
    return _rounded(offsets @ stack.axes[0] / column_gap), _rounded(offsets @ stack.axes[1] / row_gap)


def _rounded(shifts: Array) -> Array:
    """Whole pixels where it makes no difference: what is only rounding in the headers must not move a picture."""
    return np.where(np.abs(shifts - np.rint(shifts)) < 0.01, np.rint(shifts), shifts)


class _Moved:
    """A picture that is to be moved by a fraction of pixels onto a canvas."""

    def __init__(self, picture: Array, shift: tuple[float, float], shape: tuple[int, ...]) -> None:
        self._source, self._shift, self._shape = picture, shift, shape

    def picture(self) -> Array:
        """(columns, rows) float32 on the canvas, NaN where the picture does not reach."""
        moved = self._source.astype(np.float32)
        for axis, (shift, length) in enumerate(zip(self._shift, self._shape, strict=True)):
            moved = _moved_along(moved, axis, shift, length)
        return moved


def _moved_along(picture: Array, axis: int, shift: float, length: int) -> Array:
    start = int(np.ceil(shift - _SAME))
    part = start - shift  # how far behind the picture's own pixel a canvas pixel lies, 0 <= part < 1
    source = np.moveaxis(picture, axis, 0)
    if part >= _SAME:
        source, start = _interpolated(source, part), start - 1
    first, last = max(start, 0), min(start + len(source), length)
    shape = (length, picture.shape[1]) if axis == 0 else (picture.shape[0], length)
    out = np.full(shape, np.nan, np.float32, order="F")
    if last > first:
        np.moveaxis(out, axis, 0)[first:last] = source[first - start : last - start]
    return out


def _interpolated(source: Array, part: float) -> Array:
    """Values between pixels i and i + 1 of the first axis; the first and last half pixel are those of the rim."""
    padded = np.concatenate([source[:1], source[:1], source, source[-1:], source[-1:]])
    count = len(source) + 1
    return np.asarray(sum(w * padded[j : j + count] for j, w in enumerate(_cubic(part))), dtype=np.float32)


def _cubic(t: float) -> Iterator[float]:
    yield -0.5 * t + t**2 - 0.5 * t**3
    yield 1 - 2.5 * t**2 + 1.5 * t**3
    yield 0.5 * t + 2 * t**2 - 1.5 * t**3
    yield -0.5 * t**2 + 0.5 * t**3


def _filled(picture: Array, lowest: Any) -> Array:
    return np.where(np.isnan(picture), np.float32(lowest), picture)


def _as(dtype: Any, picture: Array) -> Array:
    if np.dtype(dtype).kind not in "iu":
        return picture.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(picture), limits.min, limits.max).astype(dtype)
