"""How close a predicted volume is to its reference as the SynthRAD challenges compute it, voxel for voxel.

All arithmetic is float64. Windows are taken around the mask alone, which changes no number: a window that the published
code keeps lies wholly inside the volume.

The `_fixed` variants are equal to the originals wherever these have a number. Where they have none although the images
would allow one, the variants say which voxels count instead; and where they have one that means nothing (a voxel that
is not finite), the variants have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from medgan.metrics.errors import mae, psnr
from medgan.metrics.pairs import RANGE_2023, RANGE_2025, Array, Pair, Range, checked_range
from medgan.metrics.windows import (
    UNIFORM,
    Box,
    Images,
    edged,
    fields,
    halved,
    luminance_and_structure,
    mean_by_slice,
    mirrored,
    moments,
    windows_inside,
)

__all__ = [
    "MS_SSIM_SMALLEST_AXIS",
    "MS_SSIM_WEIGHTS",
    "mae",
    "ms_ssim_2025",
    "ms_ssim_2025_fixed",
    "ms_ssim_2025_rescues",
    "psnr",
    "ssim_2023",
    "ssim_2023_fixed",
    "ssim_2023_rescues",
]

Which = Callable[[Array], Array]  # of the voxels of a mask

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_SMALLEST_AXIS = 97  # halved four times, it still holds one 7-voxel window

_SAMPLE_COVARIANCE = 7**3 / (7**3 - 1)


def ssim_2023(pred: Array, ref: Array, mask: Array | None = None, value_range: Range = RANGE_2023) -> float:
    """Structural similarity averaged over the mask, no unit: clip, lowest value outside the mask, uniform 7³ window.

    Voxels closer than 3 to the border of the volume are left out. NaN if no mask voxel is left then, or one is NaN.

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
    pair, limits = Pair.of(pred, ref, mask), checked_range(value_range)
    if pair.holds(np.isnan):
        return float("nan")
    return _scale(_shifted(pair, limits), _cropped(pair.inside), limits[1] - limits[0])


def ssim_2023_fixed(pred: Array, ref: Array, mask: Array | None = None, value_range: Range = RANGE_2023) -> float:
    """`ssim_2023`, with a number for a mask at the border and none for images that are not finite.

    If no voxel of the mask is 3 voxels inside the volume, as in one of fewer than 7 slices, none is left out, and
    windows go on beyond the border into its mirror image: the published code computes these values too, and drops them.
    NaN only if a voxel of the mask is not finite.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        value_range: lowest and highest value, in the unit of the images.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty or the range is none.
    """
    pair, limits = Pair.of(pred, ref, mask), checked_range(value_range)
    if not pair.is_finite():
        return float("nan")
    images = mirrored(_shifted(pair, limits), pair.ref.shape)
    return _scale(images, _cropped_or_all(pair.inside), limits[1] - limits[0])


def ssim_2023_rescues(mask: Array) -> list[str]:
    """What `ssim_2023_fixed` does otherwise than `ssim_2023` for a mask (X, Y, Z), in words; nothing for most."""
    border = not _cropped(mask).any()
    return ["ssim: the mask is all border, so none of it is left out"] if border else []


def ms_ssim_2025(pred: Array, ref: Array, mask: Array | None = None, value_range: Range = RANGE_2025) -> float:
    """Multi-scale structural similarity over the mask, no unit, 0 to 1, as SynthRAD2025 computes it.

    It is not that of Wang 2003: luminance counts at all five scales, and the weights are powers of each voxel rather
    than of each scale's mean. Axes shorter than 97 are padded by their edge values. NaN if a scale has no mask voxel
    left at least 3 voxels inside its border, or a voxel of the mask is NaN.

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
    pair, limits = Pair.of(pred, ref, mask), checked_range(value_range)
    return float("nan") if pair.holds(np.isnan) else _ms_ssim(pair, limits, _cropped, _every_second)


def ms_ssim_2025_fixed(pred: Array, ref: Array, mask: Array | None = None, value_range: Range = RANGE_2025) -> float:
    """`ms_ssim_2025`, with a number for every mask and none for images that are not finite.

    If every second voxel of a mask leaves none of it for the next scale, a coarse voxel counts there whenever a voxel
    that it is averaged from does. If no voxel of a scale's mask is 3 voxels inside its border, none is left out, and
    windows go on beyond the border into its mirror image. All five scales count, with their weights, so that numbers
    can be compared. NaN only if a voxel of the mask is not finite.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        value_range: lowest and highest value, in the unit of the images.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty or the range is none.
    """
    pair, limits = Pair.of(pred, ref, mask), checked_range(value_range)
    return _ms_ssim(pair, limits, _cropped_or_all, _every_second_or_touched) if pair.is_finite() else float("nan")


def ms_ssim_2025_rescues(mask: Array) -> list[str]:
    """What `ms_ssim_2025_fixed` does otherwise than `ms_ssim_2025` for a mask (X, Y, Z), in words; nothing for most."""
    inside, found = np.pad(mask, _lacks(mask.shape), mode="edge"), []
    for scale in range(1, len(MS_SSIM_WEIGHTS) + 1):
        if scale > 1:
            touched = not _every_second(inside).any()
            found += [f"ms_ssim: the mask of scale {scale} is what the mask before it touches"] if touched else []
            inside = _every_second_or_touched(inside)
        border = not _cropped(inside).any()
        found += [f"ms_ssim: the mask of scale {scale} is all border, so none of it is left out"] if border else []
    return found


def _ms_ssim(pair: Pair, limits: Range, centres: Which, coarser: Which) -> float:
    lacks = _lacks(pair.ref.shape)
    images, inside = _shifted(pair, limits), pair.inside
    if any(before or after for before, after in lacks):
        images = edged(images, inside.shape, [before for before, _ in lacks])
        inside = np.pad(inside, lacks, mode="edge")
    scales = []
    for level, weight in enumerate(MS_SSIM_WEIGHTS):
        if level:
            images, inside = halved(images, inside.shape, UNIFORM, lead=1), coarser(inside)
        beyond = mirrored(images, inside.shape)
        scales.append(np.clip(_scale(beyond, centres(inside), limits[1] - limits[0], weight), 0, 1))
    return float(np.prod(scales))


def _scale(images: Images, centres: Array, width: float, weight: float = 1) -> float:
    """The mean of SSIM over some voxels; of its power, where it has a weight.

    Contrast times structure, (2σxσy + C2)/(σx² + σy² + C2) · (σxy + C2/2)/(σxσy + C2/2), is the one fraction that SSIM
    has; the factors that may not be negative are not, so the product of their powers is the power of their product.
    """

    def maps() -> Iterator[tuple[Box, Array]]:
        for box, means in moments(fields(images), centres, UNIFORM):
            luminance, structure = luminance_and_structure(means, width, _SAMPLE_COVARIANCE)
            luminance *= structure
            yield box, luminance if weight == 1 else np.maximum(luminance, 0) ** weight

    return float(mean_by_slice(maps(), centres, None)[0])


def _shifted(pair: Pair, limits: Range) -> Images:
    """Reference and prediction, clipped to the range and moved to start at 0, which they also are off the mask."""

    def read(box: Box) -> tuple[Array, Array]:
        outside = ~pair.inside[box]
        return _clipped(pair.ref[box], outside, limits), _clipped(pair.pred[box], outside, limits)

    return read


def _clipped(image: Array, outside: Array, limits: Range) -> Array:
    made = np.array(image, dtype=np.float64, order="C")
    np.clip(made, *limits, out=made)
    made -= limits[0]
    made[outside] = 0
    return made


def _lacks(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """What an axis lacks for five scales, before and after."""
    short = [max(MS_SSIM_SMALLEST_AXIS - length, 0) for length in shape]
    return [(lack // 2, lack - lack // 2) for lack in short]


def _cropped(inside: Array) -> Array:
    return windows_inside(inside, UNIFORM)


def _cropped_or_all(inside: Array) -> Array:
    cropped = _cropped(inside)
    return cropped if cropped.any() else inside


def _every_second(inside: Array) -> Array:
    return inside[::2, ::2, ::2]


def _every_second_or_touched(inside: Array) -> Array:
    kept = _every_second(inside)
    if kept.any():
        return kept
    touched = np.zeros(kept.shape, dtype=bool)
    places = (np.argwhere(inside) + 1) // 2  # a coarse voxel i is averaged from 2i − 1 and 2i; the last may go unused
    touched[tuple(np.minimum(places, np.array(kept.shape) - 1).T)] = True
    return touched
