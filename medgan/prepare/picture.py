"""Before and after, side by side: what a preparation did to a case, at one look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medgan.errors import GeometryError
from medgan.pictures import Axis, captioned, grey, montage, plane
from medgan.prep import foreground
from medgan.registration import Registration
from medgan.volume import Grid, Volume

__all__ = ["after", "before", "joined"]

_AXES: tuple[Axis, ...] = ("axial", "coronal", "sagittal")
_PX, _SQUARES = 200, 8


def before(images: Mapping[str, Volume], grid: Grid) -> Any:
    """(H, W) uint8: the images as they came, each where its header puts it, in the middle planes of a grid."""
    return _rows(images, grid, "before")


def after(volumes: Mapping[str, Volume]) -> Any:
    """(H, W) uint8: the images as they are now, in the middle planes of their grid, and the mask."""
    images = {role: one for role, one in volumes.items() if one.unit != "label" or role == "mask"}
    return _rows(images, next(iter(images.values())).grid, "after")


def joined(pictures: Sequence[Any]) -> Any:
    """(H, W) uint8: one beside the other, from their upper ends on."""
    height = max(picture.shape[0] for picture in pictures)
    return np.hstack([np.pad(one, ((0, height - len(one)), (0, 0)), constant_values=255) for one in pictures])


def _rows(images: Mapping[str, Volume], grid: Grid, when: str) -> Any:
    """A row an image, and behind the first two one in which the squares of a chessboard show them in turn."""
    thin = [_thin(grid, axis) for axis in _AXES]
    windows = {role: _window(volume) for role, volume in images.items()}
    rows = {
        role: [_square(_cut(volume, one, axis), windows[role]) for one, axis in zip(thin, _AXES, strict=True)]
        for role, volume in images.items()
    }
    first, *others = [role for role in rows if role != "mask"]
    if others:
        both = [_chessboard(a, b) for a, b in zip(rows[first], rows[others[0]], strict=True)]
        rows = {f"{first} | {others[0]}": both, **rows}
    return montage([[captioned(one, f"{when}: {name}") for one in row] for name, row in rows.items()])[..., 0]


def _thin(grid: Grid, axis: Axis) -> Grid:
    """One plane of a grid, through its middle, across the array axis that is nearest to an anatomical one."""
    letters = {"axial": "IS", "coronal": "PA", "sagittal": "LR"}[axis]
    across = next(number for number, letter in enumerate(grid.orientation) if letter in letters)
    start, stop = [0, 0, 0], list(grid.shape)
    start[across] = grid.shape[across] // 2
    stop[across] = start[across] + 1
    return Volume(np.broadcast_to(np.uint8(0), grid.shape), grid).crop(start, stop).grid


def _cut(volume: Volume, thin: Grid, axis: Axis) -> Any:
    """The plane of a volume that lies there, lowest where it does not reach."""
    lowest = volume.array.min()
    try:
        found = Registration(np.eye(4)).moved(volume, thin, order=0, outside=lowest)
    except GeometryError:  # it lies elsewhere
        found = Volume(np.full(thin.shape, lowest), thin)
    return plane(found, axis, longest_px=_PX)


def _window(volume: Volume) -> tuple[float, float]:
    """Of the body; of a whole image most is air."""
    if volume.unit == "label":
        return 0.0, 1.0
    coarse = volume.array[::3, ::3, ::3]
    inside = coarse[foreground(coarse)]
    low, high = np.percentile(inside if inside.size else coarse, [1, 99])
    return (float(min(low, volume.array.min() if volume.unit != "HU" else low)), float(high if high > low else low + 1))


def _square(values: Any, window: tuple[float, float]) -> Any:
    picture = grey(values, window)
    canvas = np.zeros((_PX, _PX), dtype=np.uint8)
    top, left = ((_PX - size) // 2 for size in picture.shape)
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def _chessboard(one: Any, other: Any) -> Any:
    i, j = np.indices(one.shape) * _SQUARES // _PX
    return np.where((i + j) % 2 == 0, one, other)
