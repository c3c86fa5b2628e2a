"""The nearest point of a surface: of values on a grid that are interpolated linearly along each axis.

The surface is the graph of the values over space. A point of it is √(|x|² + r²) away, where x is the way to it in units
of the distance that is tolerated, and r the difference of the values in units of the difference that is tolerated. The
nearest one is proved: every cell of the grid, and every part of a cell, is either shown by a bound from below to hold
nothing nearer, or is searched further.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PRECISION", "Surface"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Limits = tuple[Floats, Floats]

PRECISION = 1e-4  # a distance found is never below the true one, and above it by no more than this
_STEPS = 3  # of the search in a box before it is cut into smaller ones
_TINY = 1e-300  # in place of 0 where that would divide


class Surface:
    """Values on a regular grid, as cells between neighbours that are searched from the nearest outwards.

    Args:
        values: any number of axes; one of a single voxel counts as none.
        steps: between neighbours along each axis, in units of the distance that is tolerated.
        farthest: where the search ends, in the same unit.
    """

    def __init__(self, values: Array, steps: Sequence[float] | Floats, farthest: float) -> None:
        self._axes = [axis for axis, length in enumerate(values.shape) if length > 1]
        self._shape = tuple(values.shape[axis] for axis in self._axes)
        self._ways = [int(np.prod(self._shape[axis + 1 :])) for axis in range(len(self._shape))]
        self._values = np.ascontiguousarray(values).reshape(-1)
        self._steps = [float(steps[axis]) for axis in self._axes]
        self._offsets = _offsets(self._shape, self._steps, farthest)
        self._farthest = farthest

    def distances(self, voxels: Sequence[Array], values: Floats, tolerances: Floats) -> Floats:
        """(N,) how far the surface is from points above voxels, but no more than `farthest`.

        Args:
            voxels: their indices along each axis of the grid.
            values: (N,) of the points.
            tolerances: (N,) the difference of values that is tolerated at each point.
        """
        index = np.array([voxels[axis] for axis in self._axes], dtype=np.intp).reshape(len(self._axes), values.size)
        flat = np.asarray(self._ways, dtype=np.intp) @ index
        straight = np.abs(self._values[flat] - values) / tolerances
        squares, left = np.minimum(straight, self._farthest) ** 2, np.arange(values.size)
        for distance, offset in self._offsets:
            left = left[squares[left] > (distance + PRECISION) ** 2]
            if not left.size:
                break
            here = left[self._has(index[:, left], offset)]
            corners = (self._corners(flat[here], offset) - values[here]) / tolerances[here]
            gaps = np.maximum(np.maximum(_over(np.minimum, corners), -_over(np.maximum, corners)), 0)
            near = distance**2 + gaps**2 < _beaten(squares[here])
            boxes = _cells(corners[..., near], offset, self._steps)
            squares[here[near]] = _least(boxes, squares[here[near]])
        return np.asarray(np.sqrt(squares))

    def _has(self, index: Array, offset: Sequence[int]) -> Array:
        """(N,) whether there is a cell whose lower corner has this offset from a voxel."""
        inside = np.ones(index.shape[1], dtype=bool)
        for axis, shift, length in zip(index, offset, self._shape, strict=True):
            inside &= (axis >= -shift) & (axis < length - 1 - shift)
        return inside

    def _corners(self, flat: Array, offset: Sequence[int]) -> Floats:
        """(2, …, 2, N) values at the corners of cells."""
        first = flat + int(np.dot(offset, self._ways))
        corners = np.empty((*(2 for _ in self._ways), flat.size))
        for corner in np.ndindex(corners.shape[:-1]):
            corners[corner] = self._values[first + int(np.dot(corner, self._ways))]
        return corners


def _offsets(shape: Sequence[int], steps: Sequence[float], farthest: float) -> list[tuple[float, tuple[int, ...]]]:
    """How far the cells around a voxel are, and where, the nearest first."""
    reaches = [min(int(farthest / step) + 1, length - 1) for length, step in zip(shape, steps, strict=True)]
    found = []
    for offset in itertools.product(*(range(-reach, reach) for reach in reaches)):
        ways = [max(o, -o - 1, 0) * step for o, step in zip(offset, steps, strict=True)]
        found.append((float(np.linalg.norm(ways)), offset))
    return sorted(one for one in found if one[0] < farthest)


def _over(pick: np.ufunc, corners: Floats) -> Floats:
    return np.asarray(pick.reduce(corners, axis=tuple(range(corners.ndim - 1))))


def _beaten(squares: Floats) -> Floats:
    """What a square has to be below to matter."""
    return np.asarray(np.maximum(np.sqrt(squares) - PRECISION, 0) ** 2)


# --- boxes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Boxes:
    """N boxes of one size, and in each the difference r as a polynomial that is linear along each axis.

    Args:
        terms: (2, …, 2, N) its coefficients about the middle of the box; index 1 along an axis is that of its x.
        middles: (d, N), or (d, 1) where all boxes are at one place.
        halves: (d,) half their widths.
    """

    terms: Floats
    middles: Floats
    halves: Floats

    def __getitem__(self, chosen: Array) -> _Boxes:
        middles = self.middles if self.middles.shape[1] == 1 else self.middles[:, chosen]
        return _Boxes(self.terms[..., chosen], middles, self.halves)

    def limits(self) -> list[Limits]:
        """Along each axis the least and the greatest x."""
        return [(middle - half, middle + half) for middle, half in zip(self.middles, self.halves, strict=True)]

    def sizes(self) -> Floats:
        """(2, …, 2) the greatest product of the x, about the middle, that each coefficient has."""
        sizes = np.ones((1,) * len(self.halves))
        for axis, half in enumerate(self.halves):
            sizes = np.concatenate([sizes, sizes * half], axis=axis)
        return sizes

    def cut(self) -> _Boxes:
        """Each box halved along each axis: all first parts, then all second ones, and so on."""
        halves = self.halves / 2
        middles = np.broadcast_to(self.middles, (len(halves), self.terms.shape[-1]))
        shifts = [np.multiply(signs, halves) for signs in itertools.product((-1, 1), repeat=len(halves))]
        terms = np.concatenate([_moved(self.terms, shift) for shift in shifts], axis=-1)
        return _Boxes(terms, np.concatenate([middles + shift[:, None] for shift in shifts], axis=-1), halves)

    def rough_bounds(self) -> Floats:
        """(N,) what |x|² + r² is nowhere below, cheap and wide."""
        terms, sizes = np.abs(self.terms.reshape(2 ** len(self.halves), -1)), self.sizes().ravel()
        gaps = np.maximum(terms[0] - np.tensordot(sizes[1:], terms[1:], 1), 0)
        ways = np.maximum(np.abs(self.middles) - self.halves[:, None], 0)
        return np.asarray((ways**2).sum(axis=0) + gaps**2)


def _cells(corners: Floats, offset: Sequence[int], steps: Sequence[float]) -> _Boxes:
    """Whole cells of the grid, from r at their corners."""
    halves = np.array(steps) / 2
    for axis, half in enumerate(halves):
        low, high = np.moveaxis(corners, axis, 0)
        corners = np.stack([(low + high) / 2, (high - low) / (2 * half)], axis=axis)
    return _Boxes(corners, ((2 * np.array(offset) + 1) * halves)[:, None], halves)


def _moved(terms: Floats, shift: Floats) -> Floats:
    """The same polynomials about another middle."""
    for axis, way in enumerate(shift):
        level, slope = np.moveaxis(terms, axis, 0)
        terms = np.stack([level + way * slope, slope], axis=axis)
    return terms


def _linearised(terms: Floats, place: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
    """(N,) values of polynomials at a place, and their slopes along each axis."""
    if not place:
        return terms, []
    value, slopes = _linearised(terms[0] + terms[1] * place[0], place[1:])
    return value, [_value(terms[1], place[1:]), *slopes]


def _value(terms: Floats, place: Sequence[Floats]) -> Floats:
    for x in place:
        terms = terms[0] + terms[1] * x
    return terms


# --- the search -------------------------------------------------------------------------------------------------------


def _least(boxes: _Boxes, squares: Floats) -> Floats:
    """(N,) these squares, or the least |x|² + r² in the boxes where that is lower."""
    owners, least = np.arange(squares.size), squares.copy()
    while owners.size:
        found, bounds = _searched(boxes)
        np.minimum.at(least, owners, found)
        unsure = bounds < _beaten(least[owners])
        boxes, owners = boxes[unsure].cut(), np.tile(owners[unsure], 2 ** len(boxes.halves))
        near = boxes.rough_bounds() < _beaten(least[owners])
        boxes, owners = boxes[near], owners[near]
    return least


def _searched(boxes: _Boxes) -> tuple[Floats, Floats]:
    """(N,) |x|² + r² in each box, as low as some steps lead, and a bound from below for all of the box."""
    limits = boxes.limits()
    place = [np.clip(0, low, high) for low, high in limits]
    for _ in range(_STEPS):
        rest, slopes = _linearised(boxes.terms, _about(place, boxes))
        place = _stepped(rest, slopes, place, limits)
    rest, slopes = _linearised(boxes.terms, _about(place, boxes))
    found = sum((x * x for x in place), rest * rest)
    return found, found + _deepest(boxes, place, rest, slopes)


def _about(place: Sequence[Floats], boxes: _Boxes) -> list[Floats]:
    return [x - middle for x, middle in zip(place, boxes.middles, strict=True)]


def _stepped(rest: Floats, slopes: Sequence[Floats], place: Sequence[Floats], limits: Sequence[Limits]) -> list[Floats]:
    """Where a box has its least |x|² + r², were r the plane that touches it at a place.

    There x = −r·slope along each axis, or the nearest limit. What the plane is at that x, less r, falls with r, and is
    straight between those r at which an axis meets a limit: the two of these that enclose its zero tell where that is.
    """
    level = rest - sum(slope * x for slope, x in zip(slopes, place, strict=True))
    low, high = np.full_like(rest, -np.inf), np.full_like(rest, np.inf)
    above, below = level, level
    for slope, ends in zip(slopes, limits, strict=True):
        inverse = -slope / np.maximum(slope * slope, _TINY)
        for end in ends:
            r = end * inverse
            over = _over_plane(r, level, slopes, limits)
            raises, lowers = (over >= 0) & (r > low), (over < 0) & (r < high)
            low, above = np.where(raises, r, low), np.where(raises, over, above)
            high, below = np.where(lowers, r, high), np.where(lowers, over, below)
    r = _zero(low, high, above, below)
    return [np.minimum(np.maximum(-r * slope, a), b) for slope, (a, b) in zip(slopes, limits, strict=True)]


def _over_plane(r: Floats, level: Floats, slopes: Sequence[Floats], limits: Sequence[Limits]) -> Floats:
    over = level - r
    for slope, (low, high) in zip(slopes, limits, strict=True):
        over = over + slope * np.minimum(np.maximum(-r * slope, low), high)
    return over


def _zero(low: Floats, high: Floats, above: Floats, below: Floats) -> Floats:
    """Of the line through (low, above) and (high, below); where one is missing, all axes are pinned: it falls by 1."""
    with np.errstate(invalid="ignore"):
        between = low + above * (high - low) / (above - below)
    return np.where(np.isinf(high), low + above, np.where(np.isinf(low), high + below, between))


def _deepest(boxes: _Boxes, place: Sequence[Floats], rest: Floats, slopes: Sequence[Floats]) -> Floats:
    """(N,) how far |x|² + r² can at most fall below its value at a place, within the box; 0 or negative.

    At x + t it is at least pull·t + |t|² − 2|r| Σ mixed_ij·|t_i·t_j| higher, by r(x + t)² ≥ r² + 2r·(r(x + t) − r) and
    as r is linear along each axis. A pair's term is carried by one axis alone, where that is pushed against a limit so
    hard that it can; else by the squares of both.
    """
    ways = [(low - x, high - x) for x, (low, high) in zip(place, boxes.limits(), strict=True)]
    pulls = [2 * (x + rest * slope) for x, slope in zip(place, slopes, strict=True)]
    pushed = [np.where(pull > 0, way[0] == 0, way[1] == 0) for pull, way in zip(pulls, ways, strict=True)]
    spare = [np.abs(pull) * is_pushed for pull, is_pushed in zip(pulls, pushed, strict=True)]
    bends = [np.ones_like(rest) for _ in place]
    for i, j, mixed in _mixed(boxes):
        load = np.abs(rest) * mixed
        for one, other in ((i, j), (j, i)):
            whole = load * (4 * boxes.halves[other])
            carries = spare[one] >= whole
            spare[one], load = spare[one] - carries * whole, load * ~carries
        bends[i], bends[j] = bends[i] - load, bends[j] - load
    slopes = [np.where(*three) for three in zip(pushed, map(np.copysign, spare, pulls), pulls, strict=True)]
    return sum(map(_lowest, slopes, bends, ways), np.zeros_like(rest))


def _mixed(boxes: _Boxes) -> Iterator[tuple[int, int, Floats]]:
    """Pairs of axes, and how great the slope along one of the slope along the other can be in each box."""
    sizes = boxes.sizes()
    for i, j in itertools.combinations(range(len(boxes.halves)), 2):
        both = tuple(1 if axis in (i, j) else slice(None) for axis in range(sizes.ndim))
        parts = np.abs(boxes.terms[both]).reshape(-1, boxes.terms.shape[-1])
        weights = (sizes[both] / (boxes.halves[i] * boxes.halves[j])).ravel()
        yield i, j, sum(weight * part for weight, part in zip(weights, parts, strict=True))


def _lowest(slope: Floats, bend: Floats, way: Limits) -> Floats:
    """The least slope·t + bend·t² over the way that t has; t may be 0."""
    low, high = way
    turn = np.minimum(np.maximum(-slope / (2 * np.maximum(bend, _TINY)), low), high)
    ends = np.minimum(low * (slope + bend * low), high * (slope + bend * high))
    return np.asarray(np.minimum(ends, turn * (slope + bend * turn)))
