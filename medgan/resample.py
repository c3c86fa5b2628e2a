"""A volume onto another grid: interpolated once, and blurred before where the new voxels are larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medgan.errors import GeometryError
from medgan.volume import Grid, Volume, slabs

__all__ = ["blurred", "resample"]

Array = npt.NDArray[Any]
_PARALLEL_VOXELS = 1e-3


def resample(volume: Volume, grid: Grid, *, order: int = 1, overwrite: bool = False) -> Volume:
    """The volume on another grid, by linear (order 1) or nearest (order 0) interpolation.

    Where only axes are flipped or permuted, no voxel is interpolated; where all axes are parallel, they are
    interpolated one after another. Where the new voxels are larger, the image is blurred first (Gaussian of half the
    added width), so that thin structures do not alias. Beyond the volume its border continues.

    Args:
        volume: in whatever orientation.
        grid: where the new voxels are.
        order: of the interpolation.
        overwrite: whether the values of `volume`, float32, may be changed on the way: less memory for what is not
            needed again.

    Raises:
        GeometryError: if the two grids do not overlap at all.
    """
    turned = volume.reorient(grid.orientation)
    if turned.grid.same_as(grid, tolerance_mm=1e-4):
        return replace(turned, grid=grid)
    _refuse_apart(volume.grid, grid)
    to_old = np.linalg.inv(turned.grid.affine) @ grid.affine
    smooth = blurred(turned, grid, overwrite=overwrite) if order else turned.array
    drift = np.abs(to_old[:3, :3] - np.diag(np.diag(to_old)[:3])) @ grid.shape
    if drift.max() < _PARALLEL_VOXELS:
        array = _axis_by_axis(smooth, to_old, grid.shape, order)
    else:
        array = ndimage.affine_transform(smooth, to_old, output_shape=grid.shape, order=order, mode="nearest")
    return replace(volume, array=array, grid=grid)


def blurred(volume: Volume, grid: Grid, *, overwrite: bool = False) -> Array:
    """The array without detail finer than the new voxels, along each of its own axes; turning coarsens nothing.

    With `overwrite` the array of the volume, float32, is blurred in place.
    """
    across = volume.grid.direction.T @ grid.direction
    widths = np.sqrt(across**2 @ np.square(grid.spacing_mm))
    ratio = widths / np.asarray(volume.grid.spacing_mm)
    sigma = np.where(ratio > 1.05, 0.5 * np.sqrt(np.maximum(ratio**2 - 1, 0)), 0)
    array = volume.array.astype(np.float32, copy=False)
    if not sigma.any():
        return array
    in_place = overwrite or array is not volume.array
    return np.asarray(ndimage.gaussian_filter(array, sigma, output=array if in_place else None, mode="nearest"))


@dataclass(frozen=True)
class _Places:
    """Where new voxels lie along one axis of the old ones.

    Args:
        below: the old voxel before each.
        above: the one after it.
        share: of the one after it; None where all lie on old voxels.
    """

    below: npt.NDArray[np.intp]
    above: npt.NDArray[np.intp]
    share: npt.NDArray[np.float32] | None

    @classmethod
    def of(cls, index: npt.NDArray[np.float64], size: int, order: int) -> _Places:
        """The places at fractional indices, along an axis of that size."""
        index = index.clip(0, size - 1)
        nearest = np.floor(index + 0.5).astype(np.intp)
        if order == 0 or np.allclose(index, nearest, rtol=0, atol=1e-6):
            return cls(nearest, nearest, None)
        below = np.floor(index).astype(np.intp)
        return cls(below, np.minimum(below + 1, size - 1), (index - below).astype(np.float32))

    def cut(self, part: slice) -> tuple[slice, _Places]:
        """The old voxels that some of the new ones are made of, and where the new ones lie among those."""
        first, last = int(self.below[part].min()), int(self.above[part].max())
        share = None if self.share is None else self.share[part]
        return slice(first, last + 1), _Places(self.below[part] - first, self.above[part] - first, share)


def _axis_by_axis(array: Array, to_old: npt.NDArray[np.float64], shape: Sequence[int], order: int) -> Array:
    """What `affine_transform` gives for parallel axes, in a third of the time; in memory as the array is.

    Slab by slab: what is done along one axis alone would be as large as the volume.
    """
    indices = [to_old[axis, axis] * np.arange(size) + to_old[axis, 3] for axis, size in enumerate(shape)]
    places = [_Places.of(index, size, order) for index, size in zip(indices, array.shape, strict=True)]
    if abs(array.strides[0]) < abs(array.strides[-1]):  # first axis fastest
        return _slab_by_slab(array.T, places[::-1], (2, 1, 0)).T
    return _slab_by_slab(array, places, (0, 1, 2))


def _slab_by_slab(array: Array, places: Sequence[_Places], axes: Sequence[int]) -> Array:
    """The values at places along all axes, which are interpolated in the order of `axes`."""
    made = np.empty([len(one.below) for one in places], array.dtype)
    for part in slabs(made.shape):
        seen, own = places[0].cut(part)
        slab = array[seen]
        for axis in axes:
            slab = _along(slab, places[axis] if axis else own, axis)
        made[part] = slab
    return made


def _along(array: Array, places: _Places, axis: int) -> Array:
    """The values at the places along one axis."""
    if places.share is None:
        stays = np.array_equal(places.below, np.arange(array.shape[axis]))
        return array if stays else array.take(places.below, axis)
    low, high = array.take(places.below, axis), array.take(places.above, axis)
    high -= low
    high *= places.share.reshape([-1 if each == axis else 1 for each in range(array.ndim)])
    high += low
    return np.asarray(high)


def _refuse_apart(seen: Grid, wanted: Grid) -> None:
    reach = (np.linalg.norm(np.multiply(g.spacing_mm, g.shape)) / 2 for g in (seen, wanted))
    centres = [g.to_world((np.array(g.shape) - 1) / 2) for g in (seen, wanted)]
    distance = np.linalg.norm(centres[0] - centres[1])
    if distance > sum(reach):
        raise GeometryError(f"the grids lie {distance:.0f} mm apart: {seen.describe()} and {wanted.describe()}")
