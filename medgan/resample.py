"""A volume onto another grid: interpolated once, and blurred before where the new voxels are larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medgan.errors import GeometryError
from medgan.volume import Grid, Volume

__all__ = ["blurred", "resample"]

Array = npt.NDArray[Any]
_PARALLEL_VOXELS = 1e-3


def resample(volume: Volume, grid: Grid, *, order: int = 1) -> Volume:
    """The volume on another grid, by linear (order 1) or nearest (order 0) interpolation.

    Where only axes are flipped or permuted, no voxel is interpolated; where all axes are parallel, they are
    interpolated one after another. Where the new voxels are larger, the image is blurred first (Gaussian of half the
    added width), so that thin structures do not alias. Beyond the volume its border continues.

    Raises:
        GeometryError: if the two grids do not overlap at all.
    """
    turned = volume.reorient(grid.orientation)
    if turned.grid.same_as(grid, tolerance_mm=1e-4):
        return replace(turned, grid=grid)
    _refuse_apart(volume.grid, grid)
    to_old = np.linalg.inv(turned.grid.affine) @ grid.affine
    smooth = blurred(turned, grid) if order else turned.array
    drift = np.abs(to_old[:3, :3] - np.diag(np.diag(to_old)[:3])) @ grid.shape
    if drift.max() < _PARALLEL_VOXELS:
        array = _axis_by_axis(smooth, to_old, grid.shape, order)
    else:
        array = ndimage.affine_transform(smooth, to_old, output_shape=grid.shape, order=order, mode="nearest")
    return replace(volume, array=array, grid=grid)


def blurred(volume: Volume, grid: Grid) -> Array:
    """The array without detail finer than the new voxels, along each of its own axes; turning coarsens nothing."""
    across = volume.grid.direction.T @ grid.direction
    widths = np.sqrt(across**2 @ np.square(grid.spacing_mm))
    ratio = widths / np.asarray(volume.grid.spacing_mm)
    sigma = np.where(ratio > 1.05, 0.5 * np.sqrt(np.maximum(ratio**2 - 1, 0)), 0)
    array = volume.array.astype(np.float32, copy=False)
    return np.asarray(ndimage.gaussian_filter(array, sigma, mode="nearest")) if sigma.any() else array


def _axis_by_axis(array: Array, to_old: npt.NDArray[np.float64], shape: Sequence[int], order: int) -> Array:
    """What `affine_transform` gives for parallel axes, in a third of the time; in memory as the array is."""
    lies_reversed = array.flags.f_contiguous
    placed = array.T if lies_reversed else array
    for axis, size in enumerate(shape):
        index = (to_old[axis, axis] * np.arange(size) + to_old[axis, 3]).clip(0, array.shape[axis] - 1)
        placed = _along(placed, index, 2 - axis if lies_reversed else axis, order)
    return placed.T if lies_reversed else placed


def _along(array: Array, index: npt.NDArray[np.float64], axis: int, order: int) -> Array:
    """The values at fractional places along one axis."""
    nearest = np.floor(index + 0.5).astype(np.intp)
    if order == 0 or np.allclose(index, nearest, rtol=0, atol=1e-6):
        stays = np.array_equal(nearest, np.arange(array.shape[axis]))
        return array if stays else array.take(nearest, axis)
    below = np.floor(index).astype(np.intp)
    share = (index - below).astype(np.float32).reshape([-1 if each == axis else 1 for each in range(array.ndim)])
    low, high = array.take(below, axis), array.take(np.minimum(below + 1, array.shape[axis] - 1), axis)
    high -= low
    high *= share
    high += low
    return np.asarray(high)


def _refuse_apart(seen: Grid, wanted: Grid) -> None:
    reach = (np.linalg.norm(np.multiply(g.spacing_mm, g.shape)) / 2 for g in (seen, wanted))
    centres = [g.to_world((np.array(g.shape) - 1) / 2) for g in (seen, wanted)]
    distance = np.linalg.norm(centres[0] - centres[1])
    if distance > sum(reach):
        raise GeometryError(f"the grids lie {distance:.0f} mm apart: {seen.describe()} and {wanted.describe()}")
