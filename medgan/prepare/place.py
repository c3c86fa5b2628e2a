"""Where the images of a case lie: one grid, and the way of each image onto it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from medgan.errors import GeometryError
from medgan.registration import Registration, Way
from medgan.volume import Grid, Volume

__all__ = ["around", "common_view", "placed", "spaced"]

STAYS = Registration(np.eye(4))


def spaced(grid: Grid, spacing_mm: tuple[float, float, float]) -> Grid:
    """A grid of exactly this spacing around the same middle, with as many voxels as cover the same place best.

    Example:
        >>> spaced(Grid.regular((10, 10, 4), spacing_mm=(1, 1, 3)), (2, 2, 2)).describe()
        '5×5×6 at 2×2×2 mm RAS'
    """
    shape = [max(1, round(n * old / new)) for n, old, new in zip(grid.shape, grid.spacing_mm, spacing_mm, strict=True)]
    affine = grid.affine.copy()
    affine[:3, :3] = grid.direction * np.asarray(spacing_mm)
    middle = grid.to_world((np.array(grid.shape) - 1) / 2)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid((shape[0], shape[1], shape[2]), affine)


def placed(volume: Volume, way: Way, onto: Grid, *, order: int = 1, outside: float = 0) -> Volume:
    """An image on a grid, interpolated once: float32, or with order 0 in its own type. Untouched where it lies there.

    Raises:
        GeometryError: if it does not reach the grid at all.
    """
    turned = volume.reorient(onto.orientation)
    if way is STAYS and turned.grid.same_as(onto, tolerance_mm=1e-4):
        return replace(turned, grid=onto)
    exact = volume.with_array(volume.array.astype(np.float32, copy=False)) if order else volume
    return way.moved(exact, onto, order=order, outside=outside)


def common_view(grids: Mapping[str, Grid], ways: Mapping[str, Way], onto: Grid) -> Any:
    """(X, Y, Z) bool: where every image was measured; True alone where all reach everywhere."""
    seen: Any = np.True_
    for role, grid in grids.items():
        whole = Volume(np.ones(grid.shape, np.uint8), grid)
        seen = seen & (placed(whole, ways[role], onto, order=0).array > 0)
    return seen


def around(mask: Volume, margin_mm: float) -> tuple[list[int], list[int]]:
    """First and last-but-one index along each axis of the box that holds a mask and a margin, within the grid.

    Raises:
        GeometryError: if the mask is empty.

    Example:
        >>> array = np.zeros((9, 9, 9), np.uint8)
        >>> array[4, 4, 4] = 1
        >>> around(Volume(array, Grid.regular((9, 9, 9), spacing_mm=(1, 2, 4))), 2)
        ([2, 3, 3], [7, 6, 6])
    """
    inside = mask.array != 0
    if not inside.any():
        raise GeometryError("the mask is empty, so there is nothing to crop to; look at it, or leave the case out")
    start, stop = [], []
    for axis, spacing in enumerate(mask.grid.spacing_mm):
        found = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        margin = int(np.ceil(margin_mm / spacing - 1e-9))
        start.append(max(0, int(found[0]) - margin))
        stop.append(min(mask.grid.shape[axis], int(found[-1]) + 1 + margin))
    return start, stop
