"""What an image looks like, coarsely: the pattern of its edges, whatever its contrast, sampling and field of view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from medgan.volume import Grid, Volume

__all__ = ["LEAST_LIKENESS", "LEAST_SPECTRUM", "coarseness_mm", "is_map", "likeness", "look_of", "spectrum_of"]

Array = npt.NDArray[Any]
Look = npt.NDArray[np.int8]
LEAST_LIKENESS, LEAST_SPECTRUM = 0.6, 0.5  # docs/concepts/leaks.md: what copies and what other people reach
_SAMPLES = 48  # along the longest side of most images
_PERIOD = 64  # of the Fourier transforms that are compared
_BAND = (3, 21)  # cycles in it
_BLUR = 2.0  # coarse voxels
_NOISE = 0.05  # of the range: what is no edge
_STEPS = 32.0  # of a look in one local standard deviation
_LEAST_OVERLAP = 0.3  # of the edges of the image that has fewer
_LEAST_SIDE = 16
_LABELS = 0.6  # share of neighbours in the foreground that are equal, above which an image is a map of labels


def coarseness_mm(grids: Sequence[Grid]) -> float:
    """The voxel size (mm) at which images of these grids are compared: a power of √2, for few things to change it.

    Example:
        >>> round(coarseness_mm([Grid.regular((256, 256, 180))]), 2)
        5.66
    """
    sides = [max(side * size for side, size in zip(grid.spacing_mm, grid.shape, strict=True)) for grid in grids]
    return float(2 ** (round(2 * np.log2(np.median(sides) / _SAMPLES)) / 2))


def look_of(volume: Volume, size_mm: float) -> Look | None:
    """The edges of an image, (X, Y, Z) in RAS order; None where there are too few of them, and of maps of labels.

    Values are taken relative to their surroundings, in units of their local standard deviation.

    Args:
        volume: an image.
        size_mm: of the voxels of the look; an axis of one voxel stays one.
    """
    volume = volume.reorient("RAS")
    if is_map(volume.array):
        return None
    coarse = _sampled(np.asarray(volume.array, np.float32), np.array(volume.grid.spacing_mm) / size_mm)
    if sum(side >= _LEAST_SIDE for side in coarse.shape) < 2:
        return None
    scale = float(np.ptp(coarse))
    if not 0 < scale < np.inf:  # one value throughout, or values that are no numbers
        return None
    blur = [_BLUR if side > 4 else 0 for side in coarse.shape]
    edges = coarse - ndimage.gaussian_filter(coarse, blur)
    spread = np.sqrt(ndimage.gaussian_filter(edges**2, blur) + (_NOISE * scale) ** 2)
    return np.asarray(np.rint(_STEPS * edges / spread).clip(-127, 127), np.int8)


def spectrum_of(look: Look) -> npt.NDArray[np.float32]:
    """How much more of each wave there is than of others of its length: a unit vector, wherever the image lies."""
    middle = tuple(slice(max(0, (side - _PERIOD) // 2), (side + _PERIOD + 1) // 2) for side in look.shape)
    edges = look[middle].astype(np.float32)
    period = [_PERIOD if side > 1 else 1 for side in edges.shape]
    power = np.log(np.abs(fft.rfftn(edges, period)) + 1e-3 * np.linalg.norm(edges) + 1e-6)
    waves = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in period[:2]), np.arange(power.shape[2]), indexing="ij")
    length = np.rint(np.sqrt(sum(wave**2 for wave in waves))).astype(int)
    is_in_band = (length >= _BAND[0]) & (length <= _BAND[1])
    power, length = power[is_in_band], length[is_in_band]
    power = power - (np.bincount(length, power) / np.maximum(1, np.bincount(length)))[length]
    return np.asarray(power / max(float(np.linalg.norm(power)), 1e-6), np.float32)


def likeness(one: Look, other: Look) -> float:
    """The correlation (0..1) of two looks in what they share, where they fit best; of negatives too."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    period = [fft.next_fast_len(n + m - 1, real=True) for n, m in zip(a.shape, b.shape, strict=True)]
    fit = fft.irfftn(fft.rfftn(a, period) * np.conj(fft.rfftn(b, period)), period)
    peak = np.unravel_index(int(np.abs(fit).argmax()), fit.shape)
    shift = [int(k) if k < n else int(k) - p for k, n, p in zip(peak, a.shape, period, strict=True)]
    places = list(zip(shift, a.shape, b.shape, strict=True))
    in_a = a[tuple(slice(max(0, s), min(n, m + s)) for s, n, m in places)]
    in_b = b[tuple(slice(max(0, -s), min(m, n - s)) for s, n, m in places)]
    energies = float((in_a**2).sum()), float((in_b**2).sum())
    if min(energies) <= _LEAST_OVERLAP * min(float((a**2).sum()), float((b**2).sum())):
        return 0.0
    return float(abs((in_a * in_b).sum()) / np.sqrt(energies[0] * energies[1]))


def is_map(array: Array) -> bool:
    """True for whole numbers that neighbours share, as in masks and segmentations: they are alike between people."""
    first, second = array[:-1], array[1:]
    inside = (first != array.min()) & (second != array.min())
    shared = int(np.count_nonzero(inside & (first == second)))
    return shared > _LABELS * int(np.count_nonzero(inside)) and np.array_equal(array, np.rint(array))


def _sampled(array: Array, ratio: Array) -> Array:
    """The image at another voxel size, outliers cut off: whole voxels are averaged, the rest is interpolated."""
    blocks = [max(1, min(side, int(1 / share + 1e-6))) for side, share in zip(array.shape, ratio, strict=True)]
    kept = tuple(slice(0, side - side % block) for side, block in zip(array.shape, blocks, strict=True))
    split = [n for side, block in zip(array[kept].shape, blocks, strict=True) for n in (side // block, block)]
    mean = np.clip(array[kept], *_limits(array)).reshape(split).mean(axis=(1, 3, 5))
    step = 1 / (ratio * blocks)
    shape = [max(1, round(side / one)) for side, one in zip(mean.shape, step, strict=True)]
    start = (np.array(mean.shape) - 1) / 2 - step * (np.array(shape) - 1) / 2
    return np.asarray(ndimage.affine_transform(mean, step, start, output_shape=tuple(shape), order=1, mode="nearest"))


def _limits(array: Array) -> tuple[float, float]:
    thinned = array[tuple(slice(None, None, max(1, side // 64)) for side in array.shape)]
    low, high = np.percentile(thinned, (1, 99.5))
    return float(low), float(max(high, np.nextafter(low, np.inf)))
