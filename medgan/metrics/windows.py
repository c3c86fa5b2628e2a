"""Means over sliding windows, tile by tile: what every SSIM is made of.

A tile and the means in it stay in the cache, so memory does not grow with the volume and each voxel is filtered once
along each axis. The weighted sums of neighbours are products with a narrow banded matrix: those are what a processor
does best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from medgan.metrics.pairs import Array, extent

__all__ = [
    "GAUSSIAN",
    "UNIFORM",
    "Box",
    "Fields",
    "Images",
    "Window",
    "edged",
    "fields",
    "halved",
    "luminance_and_structure",
    "mean_by_slice",
    "mirrored",
    "moments",
    "products",
    "read_from",
    "windows_inside",
]

Box = tuple[slice, slice, slice]
Images = Callable[[Box], tuple[Array, Array]]
Fields = Callable[[Box], list[Array]]

_TILE_VOXELS = 2**13  # of a plane of a tile
_FEWEST_ROWS = 16  # of a tile: those around it are read again for the next
_PLANES = 8  # of a tile at a time
_SLAB_VOXELS = 2**17  # that are halved at a time
_BAND = 8  # windows at a time: few zeros are multiplied, and products too small for a BLAS to start threads


@dataclass(frozen=True)
class Window:
    """Weights of neighbours along each axis, the same for all three, or for two and none along a flat one.

    Args:
        weights: an odd number of them with sum 1.
        flat: the axis across slices, if windows are to stay within them.
    """

    weights: tuple[float, ...]
    flat: int | None = None

    def within(self, flat: int | None) -> Window:
        """The window that stays within slices across an axis."""
        return Window(self.weights, flat)

    @property
    def radii(self) -> tuple[int, int, int]:
        """How many neighbours on each side it reaches to, by axis."""
        first, second, third = (0 if axis == self.flat else len(self.weights) // 2 for axis in range(3))
        return first, second, third

    def over(self, image: Array, axis: int) -> Array:
        """Weighted means along one axis over all windows that fit, so that it is shorter by 2 radii."""
        if axis == self.flat:
            return image
        length = image.shape[axis] - len(self.weights) + 1
        made = np.empty((*image.shape[:axis], length, *image.shape[axis + 1 :]))
        one, other = ((lines.transpose(1, 0, 2) if axis == 0 else lines) for lines in (image, made))
        for start in range(0, length, _BAND):
            band = _band(self.weights, min(_BAND, length - start))
            here, there = slice(start, start + band.shape[1]), slice(start, start + len(band))
            if axis == 2:
                np.matmul(one[..., here], band.T, out=other[..., there])
            else:
                np.matmul(band, one[:, here], out=other[:, there])
        return made


def _gaussian(sigma: float, radius: int) -> tuple[float, ...]:
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return tuple(float(weight) for weight in weights / weights.sum())


UNIFORM = Window((1 / 7,) * 7)
GAUSSIAN = Window(_gaussian(1.5, 5))


def read_from(x: Array, y: Array) -> Images:
    """Two arrays in memory, float64."""
    return lambda box: (x[box], y[box])


def mirrored(images: Images, shape: tuple[int, ...]) -> Images:
    """Images that go on beyond their border in its mirror image, edge voxels twice: d c b a | a b c d | d c b a."""

    def place(wanted: Array, axis: int) -> Array:
        within = wanted % (2 * shape[axis])
        return np.where(within < shape[axis], within, 2 * shape[axis] - 1 - within)

    return _elsewhere(images, shape, place)


def edged(images: Images, shape: tuple[int, ...], before: Sequence[int]) -> Images:
    """Images whose edge values go on beyond their border; their voxel 0 is now number `before`, by axis."""
    return _elsewhere(images, (), lambda wanted, axis: np.clip(wanted - before[axis], 0, shape[axis] - 1))


def windows_inside(inside: Array, window: Window) -> Array:
    """The voxels of a mask whose windows lie inside the volume."""
    core = tuple(
        slice(radius, max(length - radius, radius)) for radius, length in zip(window.radii, inside.shape, strict=True)
    )
    kept = np.zeros_like(inside)
    kept[core] = inside[core]
    return kept


def fields(images: Images) -> Fields:
    """What means are taken of, box by box: x, y, x·y and x² + y²."""
    return lambda box: products(*images(box))


def products(x: Array, y: Array) -> list[Array]:
    """x, y, x·y and x² + y²."""
    squares = x * x
    squares += y * y
    return [x, y, x * y, squares]


def moments(of: Fields, centres: Array, window: Window) -> Iterator[tuple[Box, list[Array]]]:
    """Means over the windows of all centres, box by box.

    Args:
        of: the fields (float64) of a box, which reaches beyond the volume where windows do.
        centres: (X, Y, Z), the voxels that windows are wanted of; boxes also hold others between them.
        window: what weights.

    Yields:
        A box of centres, and of each field its means in it.
    """
    for tile in _tiles(centres):
        yield from _sweep(of, tile, window)


def luminance_and_structure(means: list[Array], width: float, correction: float = 1.0) -> tuple[Array, Array]:
    """The two factors of SSIM: (2µxµy + C1)/(µx² + µy² + C1) and (2σxy + C2)/(σx² + σy² + C2).

    Args:
        means: of `fields`; they are changed.
        width: of the range of values, L; C1 = (.01 L)², C2 = (.03 L)².
        correction: of variances, n/(n − 1) for those of samples of n.
    """
    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    x, y, products, squares = means
    product = x * y
    both = x * x
    both += y * y
    products -= product
    squares -= both
    structure = (2 * correction * products + c2) / (correction * squares + c2)
    return np.asarray((2 * product + c1) / (both + c1)), np.asarray(structure)


def mean_by_slice(maps: Iterator[tuple[Box, Array]], centres: Array, flat: int | None) -> Array:
    """Means of a map over its centres, one of each slice across the flat axis, or (1,) if there is none.

    NaN where there is no centre.
    """
    others = tuple(axis for axis in range(3) if axis != flat)
    totals = np.zeros(1 if flat is None else centres.shape[flat])
    for box, values in maps:
        where = slice(None) if flat is None else box[flat]
        totals[where] += values.sum(axis=others, where=centres[box])
    counts = np.count_nonzero(centres, axis=others)
    return np.asarray(np.divide(totals, counts, out=np.full_like(totals, np.nan), where=np.atleast_1d(counts) > 0))


def halved(images: Images, shape: tuple[int, ...], window: Window, lead: int = 0) -> Images:
    """Both images at half the resolution: the means of two neighbours along each axis that is not flat.

    Args:
        images: float64.
        shape: of both.
        window: whose flat axis stays as it is.
        lead: voxels of 0 before the first, 0 or 1; a last one without a partner is left out.
    """
    leads = [0 if axis == window.flat else lead for axis in range(3)]
    halves = [length if axis == window.flat else (length + lead) // 2 for axis, length in enumerate(shape)]
    made = (np.empty(halves), np.empty(halves))
    step = 1 if window.flat == 0 else 2
    thickness = max(1, _SLAB_VOXELS // max(shape[1] * shape[2], 1))
    for start in range(0, halves[0], thickness):
        stop = min(start + thickness, halves[0])
        planes = slice(max(start * step - leads[0], 0), stop * step - leads[0])
        missing = planes.stop - planes.start < (stop - start) * step
        for half, image in zip(made, images((planes, slice(0, shape[1]), slice(0, shape[2]))), strict=True):
            lacking = [(leads[0] * missing, 0), (leads[1], 0), (leads[2], 0)]
            half[start:stop] = _paired(np.pad(image, lacking) if lead else image, window.flat)
    return read_from(*made)


def _paired(image: Array, flat: int | None) -> Array:
    for axis in (2, 1, 0):
        if axis != flat:
            lines = np.moveaxis(image, axis, 0)
            even = len(lines) // 2 * 2
            image = np.moveaxis((lines[0:even:2] + lines[1:even:2]) * 0.5, 0, axis)
    return image


def _elsewhere(images: Images, shape: tuple[int, ...], place: Callable[[Array, int], Array]) -> Images:
    """Images whose voxels beyond a shape are others of them, by axis; () if that is true of all."""

    def read(box: Box) -> tuple[Array, Array]:
        if shape and all(one.start >= 0 and one.stop <= length for one, length in zip(box, shape, strict=True)):
            return images(box)
        places = [place(np.arange(one.start, one.stop), axis) for axis, one in enumerate(box)]
        first, second, third = (slice(int(one.min()), int(one.max()) + 1) for one in places)
        at = np.ix_(*(one - one.min() for one in places))
        x, y = images((first, second, third))
        return x[at], y[at]

    return read


@lru_cache(maxsize=256)
def _band(weights: tuple[float, ...], num_windows: int) -> Array:
    """(windows, windows + 2 radii): each row holds the weights, one place further right than in the row before."""
    band = np.zeros((num_windows, num_windows + len(weights) - 1))
    for row in range(num_windows):
        band[row, row : row + len(weights)] = weights
    return band


def _tiles(centres: Array) -> Iterator[Box]:
    """Boxes around centres, from the first plane to the last, that together hold all of them."""
    rows = max(_FEWEST_ROWS, _TILE_VOXELS // max(centres.shape[2], 1))
    for start in range(0, centres.shape[1], rows):
        here = centres[:, start : start + rows]
        if here.any():
            first, second, third = (extent(here, axis) for axis in range(3))
            yield first, slice(start + second.start, start + second.stop), third


def _sweep(of: Fields, tile: Box, window: Window) -> Iterator[tuple[Box, list[Array]]]:
    """Through the planes of a tile: those that the next windows also reach are filtered within planes only once."""
    radius, *others = window.radii
    rest = [slice(one.start - reach, one.stop + reach) for one, reach in zip(tile[1:], others, strict=True)]
    held: list[Array] = []
    read = tile[0].start - radius
    for start in range(tile[0].start, tile[0].stop, _PLANES):
        stop = min(start + _PLANES, tile[0].stop)
        new = [window.over(window.over(one, 2), 1) for one in of((slice(read, stop + radius), rest[0], rest[1]))]
        read = stop + radius
        planes = [np.concatenate(pair) for pair in zip(held, new, strict=True)] if held else new
        held = [one[len(one) - 2 * radius :] for one in planes] if radius else []
        yield (slice(start, stop), tile[1], tile[2]), [window.over(one, 0) for one in planes]
