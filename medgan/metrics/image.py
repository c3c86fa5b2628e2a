"""How close a predicted volume is to its reference: the paired metrics of the SynthRAD challenges, voxel for voxel.

All arithmetic is float64. SSIM maps are computed in slabs around the mask, which changes no number: a window that
the published code keeps lies wholly inside the volume, so nothing outside the mask's neighbourhood is ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError, InputError

__all__ = ["HIGHER_IS_BETTER", "PRESETS", "Metric", "Preset", "mae", "ms_ssim_2025", "psnr", "ssim_2023"]

Array = npt.NDArray[Any]
Range = tuple[float, float]
Box = tuple[slice, slice, slice]
Metric = Callable[[Array, Array, Array | None, Range], float]

RANGE_2023: Range = (-1024.0, 3000.0)
RANGE_2025: Range = (-1024.0, 3071.0)
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_SMALLEST_AXIS = 97  # halved four times, it still holds one 7-voxel window

_WINDOW, _RADIUS = 7, 3
_WINDOW_VOXELS = _WINDOW**3
_SAMPLE_COVARIANCE = _WINDOW_VOXELS / (_WINDOW_VOXELS - 1)
_SLAB_VOXELS = 2**18  # small enough for the cache, large enough that the windows at its ends cost little


def mae(pred: Array, ref: Array, mask: Array | None = None) -> float:
    """Mean absolute error over the mask, in the unit of the images; nothing is clipped.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty.

    Example:
        >>> mae(np.array([[[1.0, 5.0]]]), np.array([[[2.0, 9.0]]]))
        2.5
    """
    pred, ref, inside = _checked(pred, ref, mask)
    return float(np.abs(_float(pred[inside]) - _float(ref[inside])).mean())


def psnr(pred: Array, ref: Array, mask: Array | None = None, value_range: Range = RANGE_2023) -> float:
    """Peak signal-to-noise ratio over the mask, dB: 10·log10(L²/MSE), both images clipped to the range of width L.

    It is infinite where the clipped images are equal.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        value_range: lowest and highest value, in the unit of the images.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty or the range is none.

    Example:
        >>> psnr(np.full((1, 1, 2), 9.0), np.full((1, 1, 2), 8.0), None, (0, 10))
        20.0
    """
    pred, ref, inside = _checked(pred, ref, mask)
    low, high = _checked_range(value_range)
    error = np.clip(_float(pred[inside]), low, high) - np.clip(_float(ref[inside]), low, high)
    mse = float(np.mean(error**2))
    return float(10 * np.log10((high - low) ** 2 / mse)) if mse else float("inf")


def ssim_2023(pred: Array, ref: Array, mask: Array | None = None, value_range: Range = RANGE_2023) -> float:
    """Structural similarity averaged over the mask, no unit: clip, lowest value outside the mask, uniform 7³ window.

    Voxels closer than 3 to the border of the volume are left out. NaN if no mask voxel is left then.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        value_range: lowest and highest value, in the unit of the images.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty or the range is none.

    Source:
        Wang et al., "Image quality assessment", IEEE TIP 13(4), 2004, equation 13; masked as in SynthRAD2023.
    """
    pred, ref, inside = _checked(pred, ref, mask)
    limits = _checked_range(value_range)
    pairs = (
        (_shifted(ref[box], inside[box], limits), _shifted(pred[box], inside[box], limits), kept)
        for box, kept in _slabs(inside)
    )
    return _mean(_ssim_map(x, y, limits[1] - limits[0])[kept] for x, y, kept in pairs)


def ms_ssim_2025(pred: Array, ref: Array, mask: Array | None = None, value_range: Range = RANGE_2025) -> float:
    """Multi-scale structural similarity over the mask, no unit, 0 to 1, as SynthRAD2025 computes it.

    It is not that of Wang 2003: luminance counts at all five scales, and the weights are powers of each voxel rather
    than of each scale's mean. Axes shorter than 97 are padded by their edge values. NaN if a scale has no mask voxel
    left at least 3 voxels inside its border.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        value_range: lowest and highest value, in the unit of the images.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty or the range is none.

    Source:
        The evaluation container of SynthRAD2025 (12 May 2025), with range −1024 to 3071.
    """
    pred, ref, inside = _checked(pred, ref, mask)
    low, high = _checked_range(value_range)
    x, y = (_padded(_shifted(image, inside, (low, high))) for image in (ref, pred))
    inside, scales = _padded(inside), []
    for level, weight in enumerate(MS_SSIM_WEIGHTS):
        if level:
            x, y, inside = _halved(x), _halved(y), inside[::2, ::2, ::2]
        scales.append(np.clip(_scale((x, y), inside, high - low, weight), 0, 1))
    return float(np.prod(scales))


@dataclass(frozen=True)
class Preset:
    """A named set of metrics with the range that belongs to it, so that numbers of two papers can be compared.

    Args:
        name: as written in every row of results.
        value_range: lowest and highest value, HU.
        metrics: what is computed, by name.
    """

    name: str
    value_range: Range
    metrics: Mapping[str, Metric]

    def score(
        self, pred: Array, ref: Array, mask: Array | None = None, value_range: Range | None = None
    ) -> dict[str, float]:
        """All metrics of the preset for one pair (X, Y, Z), with another range than the preset's if one is given."""
        limits = value_range or self.value_range
        return {name: metric(pred, ref, mask, limits) for name, metric in self.metrics.items()}


def _mae(pred: Array, ref: Array, mask: Array | None, _: Range) -> float:
    return mae(pred, ref, mask)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset("synthrad2023", RANGE_2023, MappingProxyType({"mae": _mae, "psnr": psnr, "ssim": ssim_2023})),
            Preset("synthrad2025", RANGE_2025, MappingProxyType({"mae": _mae, "psnr": psnr, "ms_ssim": ms_ssim_2025})),
        )
    }
)
HIGHER_IS_BETTER: Mapping[str, bool] = MappingProxyType({"mae": False, "psnr": True, "ssim": True, "ms_ssim": True})


def _checked(pred: Array, ref: Array, mask: Array | None) -> tuple[Array, Array, Array]:
    """The three arrays, the mask as booleans, their axes ordered so that the first is the slowest in memory."""
    inside = np.ones(ref.shape, dtype=bool) if mask is None else np.asarray(mask).astype(bool, copy=False)
    if not pred.shape == ref.shape == inside.shape or ref.ndim != 3:
        raise GeometryError(
            f"prediction, reference and mask are 3-D and of one shape; seen {pred.shape}, {ref.shape}, {inside.shape}"
        )
    if not inside.any():
        raise InputError("the mask is empty: it marks no voxel to score; give a mask with non-zero voxels, or none")
    order = np.argsort([-abs(stride) for stride in ref.strides], kind="stable")
    return pred.transpose(order), ref.transpose(order), inside.transpose(order)


def _checked_range(value_range: Range) -> Range:
    low, high = (float(value) for value in value_range)
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"a value range is two finite numbers, the lower first; seen {low:g} and {high:g}")
    return low, high


def _float(image: Array) -> Array:
    return np.ascontiguousarray(image, dtype=np.float64)


def _shifted(image: Array, inside: Array, limits: Range) -> Array:
    """The image clipped to the range and moved to start at 0, which is also its value outside the mask."""
    image = np.clip(_float(image), *limits)
    image -= limits[0]
    image[~inside] = 0
    return image


def _slabs(inside: Array) -> Iterator[tuple[Box, Array]]:
    """Boxes that hold whole windows, each with the mask of the windows' centres in it; together they cover the mask."""
    core = inside[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    if not core.any():
        return
    (first, last), *rest = (_extent(core, axis) for axis in range(3))
    thickness = max(2, _SLAB_VOXELS // int(np.prod([stop - start + _WINDOW - 1 for start, stop in rest])))
    for start in range(first, last, thickness):
        extents = [(start, min(start + thickness, last)), *rest]
        box = tuple(slice(low, high + _WINDOW - 1) for low, high in extents)
        yield (box[0], box[1], box[2]), core[tuple(slice(low, high) for low, high in extents)]


def _extent(core: Array, axis: int) -> tuple[int, int]:
    seen = np.flatnonzero(core.any(axis=tuple({0, 1, 2} - {axis})))
    return int(seen[0]), int(seen[-1]) + 1


def _mean(parts: Iterator[Array]) -> float:
    sums = [(float(part.sum()), part.size) for part in parts]
    count = sum(size for _, size in sums)
    return sum(total for total, _ in sums) / count if count else float("nan")


def _box_mean(image: Array) -> Array:
    """Means over all 7³ windows that fit: (X, Y, Z) to (X − 6, Y − 6, Z − 6)."""
    for axis in (2, 1, 0):
        lines = np.moveaxis(image, axis, 0)
        pairs = lines[:-1] + lines[1:]
        fours = pairs[:-2] + pairs[2:]
        sums = fours[:-3]
        sums += pairs[4:-1]
        sums += lines[6:]
        image = np.moveaxis(sums, 0, axis)
    image /= _WINDOW_VOXELS
    return image


def _ssim_map(x: Array, y: Array, width: float) -> Array:
    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    ux, uy = _box_mean(x), _box_mean(y)
    product, squares = ux * uy, ux**2 + uy**2
    covariance = _SAMPLE_COVARIANCE * (_box_mean(x * y) - product)
    variances = _SAMPLE_COVARIANCE * (_box_mean(x * x + y * y) - squares)
    return np.asarray((2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2)))


def _scale(pair: tuple[Array, Array], inside: Array, width: float, weight: float) -> float:
    x, y = pair
    # All three factors are ≥ 0, so the product of their powers is the power of their product, taken only where asked.
    return _mean(_factors(x[box], y[box], width)[kept] ** weight for box, kept in _slabs(inside))


def _factors(x: Array, y: Array, width: float) -> Array:
    """Luminance · contrast · structure, each at least 0."""
    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    ux, uy = _box_mean(x), _box_mean(y)
    vx = _SAMPLE_COVARIANCE * (_box_mean(x * x) - ux**2)
    vy = _SAMPLE_COVARIANCE * (_box_mean(y * y) - uy**2)
    vxy = _SAMPLE_COVARIANCE * (_box_mean(x * y) - ux * uy)
    deviations = np.sqrt(np.maximum(vx, 0)) * np.sqrt(np.maximum(vy, 0))
    luminance = (2 * ux * uy + c1) / (ux**2 + uy**2 + c1)
    contrast = (2 * deviations + c2) / (vx + vy + c2)
    structure = (vxy + c2 / 2) / (deviations + c2 / 2)
    return np.asarray(np.maximum(luminance, 0) * np.maximum(contrast, 0) * np.maximum(structure, 0))


def _padded(image: Array) -> Array:
    short = [max(MS_SSIM_SMALLEST_AXIS - length, 0) for length in image.shape]
    return np.pad(image, [(lack // 2, lack - lack // 2) for lack in short], mode="edge") if any(short) else image


def _halved(image: Array) -> Array:
    """Every second voxel, averaged with the one before it along each axis; before the first there is 0."""
    for axis in range(3):
        lines = np.moveaxis(image, axis, 0)
        half = lines[::2].copy(order="K")
        half[1:] += lines[1::2][: len(half) - 1]
        half *= 0.5
        image = np.moveaxis(half, 0, axis)
    return image
