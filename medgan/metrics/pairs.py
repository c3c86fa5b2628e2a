"""A prediction, its reference and a mask: proved to fit one another, and read piece by piece as float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError, InputError

__all__ = [
    "RANGE_2023",
    "RANGE_2025",
    "Array",
    "Pair",
    "Range",
    "Spacing",
    "checked_range",
    "checked_spacing",
    "extent",
]

Array = npt.NDArray[Any]
Range = tuple[float, float]
Spacing = Sequence[float]

RANGE_2023: Range = (-1024.0, 3000.0)
RANGE_2025: Range = (-1024.0, 3071.0)
_SLAB_VOXELS = 2**17  # small enough for the cache


@dataclass(frozen=True)
class Pair:
    """Two images and the voxels that count, axes ordered so that the first is the slowest in memory.

    Args:
        pred: (X, Y, Z) in that order, as is `ref`.
        ref: its reference.
        inside: the mask as booleans, at least one of them true.
        order: which axis of the caller's arrays each axis is.
    """

    pred: Array
    ref: Array
    inside: Array
    order: tuple[int, int, int]

    @classmethod
    def of(cls, pred: Array, ref: Array, mask: Array | None) -> Pair:
        """Of the arrays of a caller; any non-zero voxel of the mask counts, None is the whole volume.

        Raises:
            GeometryError: if the shapes differ or are not 3-D.
            InputError: if the mask is empty or an image holds no real numbers.
        """
        pred, ref = np.asarray(pred), np.asarray(ref)
        if "O" in pred.dtype.kind + ref.dtype.kind:
            raise InputError("metrics are of arrays: of volumes give .array, or use medgan.score, which checks grids")
        inside = np.broadcast_to(True, ref.shape) if mask is None else np.asarray(mask).astype(bool, copy=False)
        _refuse_unlike(pred, ref, inside)
        order = sorted(range(3), key=lambda axis: -abs(ref.strides[axis]))
        pred, ref, inside = (array.transpose(order) for array in (pred, ref, inside))
        return cls(pred, ref, inside, (order[0], order[1], order[2]))

    def axis(self, given: int | None) -> int | None:
        """Where an axis of the caller's arrays is here.

        Raises:
            InputError: if there is no such axis.
        """
        if given is not None and given not in range(-3, 3):
            raise InputError(f"axis {given} is none of a volume (accepted: 0, 1, 2)")
        return None if given is None else self.order.index(given % 3)

    def cropped(self) -> Pair:
        """The smallest box of it that holds all voxels that count."""
        box = tuple(extent(self.inside, axis) for axis in range(3))
        return replace(self, pred=self.pred[box], ref=self.ref[box], inside=self.inside[box])

    def voxels(self) -> Iterator[tuple[Array, Array]]:
        """The voxels that count, a slab at a time: prediction and reference, each (N,)."""
        for slab in self.slabs():
            inside = self.inside[slab]
            if inside.all():
                yield _float(self.pred[slab]).ravel(), _float(self.ref[slab]).ravel()
            elif inside.any():
                yield _float(self.pred[slab][inside]), _float(self.ref[slab][inside])

    def total(self, of: Callable[[Array, Array], Array]) -> float:
        """Sum over the voxels that count of a function of prediction and reference."""
        with np.errstate(invalid="ignore", over="ignore"):
            return sum(float(of(pred, ref).sum()) for pred, ref in self.voxels())

    def mean(self, of: Callable[[Array, Array], Array]) -> float:
        """Mean over the voxels that count of a function of prediction and reference."""
        return self.total(of) / int(np.count_nonzero(self.inside))

    def slabs(self) -> Iterator[slice]:
        """Planes across the first axis, some at a time."""
        planes, *rest = self.ref.shape
        thickness = max(1, _SLAB_VOXELS // int(np.prod(rest)))
        for start in range(0, planes, thickness):
            yield slice(start, min(start + thickness, planes))

    def holds(self, what: Callable[[Array], Array], *, anywhere: bool = False) -> bool:
        """Whether something is so of any voxel that counts, or of any voxel at all."""
        for slab in self.slabs():
            for image in (self.pred[slab], self.ref[slab]):
                seen = what(image) if image.dtype.kind == "f" else np.False_
                if seen.any() and (anywhere or (seen & self.inside[slab]).any()):
                    return True
        return False

    def is_finite(self, *, anywhere: bool = False) -> bool:
        """Whether all voxels that count are numbers and not infinite; or all voxels, in the mask or not."""
        return not self.holds(lambda image: ~np.isfinite(image), anywhere=anywhere)


def extent(inside: Array, axis: int) -> slice:
    """From the first voxel of a mask (X, Y, Z) along an axis to the last."""
    seen = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
    return slice(int(seen[0]), int(seen[-1]) + 1)


def checked_range(value_range: Range) -> Range:
    """The lowest and the highest value.

    Raises:
        InputError: if they are not two finite numbers, the lower first.
    """
    low, high = (float(value) for value in value_range)
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"a value range is two finite numbers, the lower first; seen {low:g} and {high:g}")
    return low, high


def checked_spacing(spacing_mm: Spacing) -> tuple[float, ...]:
    """The distances of neighbouring voxels along each axis, mm.

    Raises:
        InputError: if they are not three positive numbers.
    """
    spacing = tuple(float(value) for value in spacing_mm)
    if len(spacing) != 3 or not all(np.isfinite(value) and value > 0 for value in spacing):
        raise InputError(
            f"a spacing is three positive numbers, mm; seen {', '.join(f'{value:g}' for value in spacing)}"
        )
    return spacing


def _refuse_unlike(pred: Array, ref: Array, inside: Array) -> None:
    if not pred.shape == ref.shape == inside.shape or ref.ndim != 3:
        raise GeometryError(
            f"prediction, reference and mask are 3-D and of one shape; seen {pred.shape}, {ref.shape}, {inside.shape}"
        )
    if not inside.any():
        raise InputError("the mask is empty: it marks no voxel to score; give a mask with non-zero voxels, or none")
    for image in (pred, ref):
        if image.dtype.kind not in "biuf":
            raise InputError(f"an image holds real numbers (accepted: integers, floats, booleans); seen {image.dtype}")


def _float(image: Array) -> Array:
    return np.ascontiguousarray(image, dtype=np.float64)
