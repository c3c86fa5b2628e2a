"""Structural similarity as Wang et al. define it, in slices and in volumes, at one scale and at several, and in masks.

Images are moved so that the low end of the range is 0, as SSIM is made for values that are not negative; nothing is
clipped, and nothing is set outside a mask. All arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from medgan.errors import InputError
from medgan.metrics.image import MS_SSIM_WEIGHTS
from medgan.metrics.pairs import RANGE_2025, Array, Pair, Range, checked_range
from medgan.metrics.windows import (
    GAUSSIAN,
    Box,
    Fields,
    Images,
    Window,
    fields,
    halved,
    luminance_and_structure,
    mean_by_slice,
    mirrored,
    moments,
    products,
    windows_inside,
)

__all__ = ["ms_ssim_2003", "nc_ssim", "smallest_axis", "ssim_2004"]


def ssim_2004(
    pred: Array,
    ref: Array,
    mask: Array | None = None,
    value_range: Range = RANGE_2025,
    *,
    axis: int | None = None,
) -> float:
    """Structural similarity with a Gaussian window, no unit, 1 at best: 11 voxels wide, σ = 1.5 voxels.

    Variances are those of populations, K1 = .01, K2 = .03, and only windows that lie inside the volume count. It equals
    scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)` of images that
    start at 0. Windows reach beyond the mask: see `nc_ssim` for windows that do not. NaN if the window of no voxel of
    the mask lies inside the volume, or any voxel of the volume is not finite.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), centres of the windows that count, any non-zero voxel; None is the whole volume.
        value_range: lowest and highest value, in the unit of the images; its width is L, its low end becomes 0.
        axis: windows stay in the slices across this axis, and the result is the mean over slices, each counted once
            where it has windows; None for windows in 3-D.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty, the range is none or there is no such axis.

    Source:
        Wang et al., "Image quality assessment", IEEE TIP 13(4), 2004, equation 13.

    Example:
        >>> ref = np.full((16, 16, 16), 100.0)
        >>> round(ssim_2004(ref + 10, ref, None, (0, 255)), 6)  # (2·110·100 + 2.55²) / (110² + 100² + 2.55²)
        0.995476
    """
    pair, (low, high) = Pair.of(pred, ref, mask), checked_range(value_range)
    if not pair.is_finite(anywhere=True):
        return float("nan")
    window = GAUSSIAN.within(pair.axis(axis))
    centres = windows_inside(pair.inside, window)
    slices = _similarity(_moved(pair, low), centres, window, high - low)
    return _mean_of(slices[~np.isnan(slices)])


def ms_ssim_2003(
    pred: Array,
    ref: Array,
    mask: Array | None = None,
    value_range: Range = RANGE_2025,
    *,
    axis: int | None = None,
    num_scales: int = 5,
) -> float:
    """Multi-scale structural similarity, no unit, 0 to 1: luminance at the coarsest scale, structure at all.

    The product over scales of powers of their means, with the window of `ssim_2004`, each scale half of the one before
    by averages of 2×2×2 voxels (2×2 in slices; a last odd one is left out). A mean below 0 counts as 0. A voxel of the
    mask counts at a coarse scale if any of those that it is averaged from does. NaN if an axis is shorter than
    `smallest_axis()` (176 voxels for five scales), no voxel of the mask has its window inside the volume at
    every scale, or any voxel of the volume is not finite.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        value_range: lowest and highest value, in the unit of the images; its width is L, its low end becomes 0.
        axis: windows stay in the slices across this axis, and the result is the mean over those that have a number;
            None for windows in 3-D.
        num_scales: 1 to 5; of fewer than five, the finest are taken and their weights divided by their sum. Say so
            beside the number: it cannot be compared with that of five.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty, the range is none, or there is no such axis or number of scales.

    Source:
        Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar 2003,
        equation 7.
    """
    pair, (low, high) = Pair.of(pred, ref, mask), checked_range(value_range)
    weights, window = _weights(num_scales), GAUSSIAN.within(pair.axis(axis))
    if not pair.is_finite(anywhere=True):
        return float("nan")
    images, inside, scales = _moved(pair, low), pair.inside, []
    for level, weight in enumerate(weights):
        if level:
            images, inside = halved(images, inside.shape, window), _touched(inside, window.flat)
        what: Literal["both", "structure"] = "both" if level == len(weights) - 1 else "structure"
        means = _similarity(images, windows_inside(inside, window), window, high - low, what)
        scales.append(np.maximum(means, 0) ** weight)
    slices = np.prod(scales, axis=0)
    return _mean_of(slices[~np.isnan(slices)])


def smallest_axis(num_scales: int = 5) -> int:
    """The fewest voxels along an axis for which `ms_ssim_2003` has a number: one window at the coarsest scale.

    Example:
        >>> smallest_axis(), smallest_axis(3)
        (176, 44)
    """
    return len(GAUSSIAN.weights) << len(_weights(num_scales)) - 1


def nc_ssim(pred: Array, ref: Array, mask: Array | None = None, value_range: Range = RANGE_2025) -> float:
    """Structural similarity that looks at the mask alone, no unit, 1 at best: windows end where the mask does.

    Means and variances in the window of `ssim_2004` are taken of the voxels that lie in the mask, with weights that are
    divided by their sum (normalised convolution), so that no value outside can change the result: neither the
    background nor what was put there. The border of the volume is treated as that of the mask, so every voxel of the
    mask counts; those with a window wholly inside the mask have the value that they have in `ssim_2004`. NaN if a voxel
    of the mask is not finite.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        value_range: lowest and highest value, in the unit of the images; its width is L, its low end becomes 0.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty or the range is none.

    Source:
        Knutsson, Westin, "Normalized and differential convolution", CVPR 1993, applied to the statistics of Wang 2004.
    """
    pair, (low, high) = Pair.of(pred, ref, mask), checked_range(value_range)
    if not pair.is_finite():
        return float("nan")

    def maps() -> Iterator[tuple[Box, Array]]:
        for box, (weight, *means) in moments(_weighted(pair, low), pair.inside, GAUSSIAN):
            weight[weight <= 0] = 1  # no voxel of the mask is near, so this is no centre
            luminance, structure = luminance_and_structure([mean / weight for mean in means], high - low)
            yield box, luminance * structure

    return float(mean_by_slice(maps(), pair.inside, None)[0])


def _similarity(
    images: Images, centres: Array, window: Window, width: float, what: Literal["both", "structure"] = "both"
) -> Array:
    """Means over slices, or (1,) of a volume, of luminance · structure or of structure alone."""

    def maps() -> Iterator[tuple[Box, Array]]:
        for box, means in moments(fields(images), centres, window):
            luminance, structure = luminance_and_structure(means, width)
            yield box, luminance * structure if what == "both" else structure

    return mean_by_slice(maps(), centres, window.flat)


def _moved(pair: Pair, low: float) -> Images:
    """Reference and prediction, with the low end of the range at 0."""
    return lambda box: (_less(pair.ref[box], low), _less(pair.pred[box], low))


def _less(image: Array, low: float) -> Array:
    return np.subtract(image, low, dtype=np.float64, order="C")


def _weighted(pair: Pair, low: float) -> Fields:
    """The mask as weights, and what means are taken of, all 0 outside it and beyond the volume."""
    reach = len(GAUSSIAN.weights) // 2
    inside, images = np.pad(pair.inside, reach), mirrored(_moved(pair, low), pair.ref.shape)

    def of(box: Box) -> list[Array]:
        here = inside[tuple(slice(one.start + reach, one.stop + reach) for one in box)]
        x, y = (np.where(here, image, 0) for image in images(box))
        return [here.astype(np.float64), *products(x, y)]

    return of


def _weights(num_scales: int) -> Array:
    if num_scales not in range(1, len(MS_SSIM_WEIGHTS) + 1):
        raise InputError(f"MS-SSIM has 1 to {len(MS_SSIM_WEIGHTS)} scales; seen {num_scales}")
    weights = np.array(MS_SSIM_WEIGHTS[:num_scales])
    return weights if num_scales == len(MS_SSIM_WEIGHTS) else weights / weights.sum()


def _touched(inside: Array, flat: int | None) -> Array:
    """The mask at half the resolution: where any of the voxels that are averaged is in it."""
    for axis in range(3):
        if axis != flat:
            lines = np.moveaxis(inside, axis, 0)
            even = len(lines) // 2 * 2
            inside = np.moveaxis(lines[0:even:2] | lines[1:even:2], 0, axis)
    return inside


def _mean_of(slices: Array) -> float:
    return float(slices.mean()) if slices.size else float("nan")
