"""Numbers that describe an image, in the manner of radiomics: intensities, grey levels side by side, sharpness.

Definitions of intensities and texture are those of the Image Biomarker Standardisation Initiative (IBSI; Zwanenburg et
al. 2020, Radiology 295(2); reference manual: arXiv:1612.07003), whose digital phantom the tests reproduce. Nothing is
resampled: neighbours are neighbouring voxels, however far apart they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError, InputError
from medgan.metrics.grey_levels import TEXTURE, Discretisation, cooccurrence, distribution, texture
from medgan.metrics.slabs import slabs

__all__ = ["NAMES", "Discretisation", "intensities", "radiomics", "sharpness"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

SCALES = (1, 2, 4)
_QUANTILES = {"minimum": 0, "p10": 10, "p25": 25, "median": 50, "p75": 75, "p90": 90, "maximum": 100}
_INTENSITIES = (
    *("mean", "variance", "skewness", "kurtosis", *_QUANTILES, "interquartile_range", "mean_absolute_deviation"),
    *("robust_mean_absolute_deviation", "energy", "root_mean_square"),
)
NAMES = (
    *_INTENSITIES,
    *("entropy", "uniformity"),
    *TEXTURE,
    *(f"{kind}_{scale}" for scale in SCALES for kind in ("gradient", "laplacian")),
)


def radiomics(
    image: Array,
    mask: Array | None = None,
    *,
    spacing_mm: Sequence[float] = (1, 1, 1),
    grey_levels: Discretisation | None = None,
) -> dict[str, float]:
    """All features of an image by name, those in `NAMES` in their order: `intensities`, `entropy` and `uniformity` of
    the grey levels (IBSI 3.4.18, 3.4.19), `texture` and `sharpness`.

    Undefined ones are NaN: skewness, kurtosis and correlations of a constant region, sharpness along no axis; all, if a
    value in the region is not finite.

    Args:
        image: (X, Y, Z) or (X, Y), in its unit.
        mask: of its shape, any non-zero voxel counts; None is the whole image.
        spacing_mm: along each axis, mm.
        grey_levels: how values become grey levels; 32 bins between lowest and highest if not given.

    Raises:
        GeometryError: if shapes or spacings do not fit.
        InputError: if the mask is empty.

    Example:
        >>> ramp = np.arange(8.0)[:, None, None] * np.ones((8, 8, 8))
        >>> found = radiomics(ramp, spacing_mm=(2, 1, 1))
        >>> found["mean"], found["gradient_1"], round(found["entropy"], 6)
        (3.5, 0.5, 3.0)
    """
    image, inside, spacing = _checked(image, mask, spacing_mm)
    values = image[inside]
    if not np.isfinite(values).all():
        return dict.fromkeys(NAMES, math.nan)
    levels, count = (grey_levels or Discretisation()).levels(image, inside)
    found = {**intensities(values), **distribution(levels, count)}
    return {**found, **texture(cooccurrence(levels, count)), **sharpness(image, inside, spacing)}


def intensities(values: Array) -> dict[str, float]:
    """What is there, wherever it is (IBSI 3.3).

    `mean`; `variance` (over n); `skewness` and `kurtosis`, less 3, from moments over n; `minimum`, `p10`, `p25`,
    `median`, `p75`, `p90`, `maximum`, interpolated; `interquartile_range`; `mean_absolute_deviation` from the mean;
    `robust_mean_absolute_deviation`, that of the values from p10 to p90; `energy`, the sum of squares;
    `root_mean_square`. In the unit of the image, variance and energy in its square, skewness and kurtosis in none.

    Args:
        values: (N,), at least one.

    Example:
        >>> found = intensities(np.array([1.0, 1.0, 2.0, 4.0]))
        >>> found["mean"], found["variance"], found["interquartile_range"]
        (2.0, 1.5, 1.5)
    """
    found = _quantiles(values)
    middle = values[(values >= found["p10"]) & (values <= found["p90"])]
    mean = _mean_of(values, lambda x: x)
    variance, third, fourth = (_moment(values, mean, power) for power in (2, 3, 4))
    spread = math.sqrt(variance) if variance > (1e-12 * abs(mean)) ** 2 else math.nan
    squares = _mean_of(values, lambda x: x * x)
    numbers = {
        "mean": mean,
        "variance": variance,
        "skewness": third / spread**3,
        "kurtosis": fourth / spread**4 - 3,
        **found,
        "interquartile_range": found["p75"] - found["p25"],
        "mean_absolute_deviation": _deviation(values, mean),
        "robust_mean_absolute_deviation": _deviation(middle, _mean_of(middle, lambda x: x)),
        "energy": squares * values.size,
        "root_mean_square": math.sqrt(squares),
    }
    return {name: numbers[name] for name in _INTENSITIES}


def sharpness(image: Array, inside: Array, spacing_mm: Sequence[float]) -> dict[str, float]:
    """How steep an image is at three scales: at full size, and as means of 2 and 4 voxels a side.

    `gradient_1`, `_2`, `_4`: root mean square of the length of the gradient by central differences, image unit/mm;
    `laplacian_1` …: that of the sum of second differences, image unit/mm². Over voxels of the region that have both
    neighbours along every axis of at least 3 voxels; a shorter axis has no slope, and one below 6 is not halved. NaN
    where there is none.

    Args:
        image: (X, Y, Z).
        inside: (X, Y, Z) bool; of a mean those count whose voxels are all inside.
        spacing_mm: along each axis, mm.
    """
    found: dict[str, float] = {}
    spacing = [float(step) for step in spacing_mm]
    for scale in SCALES:
        if scale > 1:
            image, inside, spacing = _halved(image, inside, spacing)
        steepness, curvature = _slopes(image, inside, spacing)
        found |= {f"gradient_{scale}": steepness, f"laplacian_{scale}": curvature}
    return found


def _checked(image: Array, mask: Array | None, spacing_mm: Sequence[float]) -> tuple[Array, Array, list[float]]:
    """Three axes each, the region as booleans."""
    image = np.asarray(image)
    inside = np.ones(image.shape, bool) if mask is None else np.asarray(mask).astype(bool, copy=False)
    spacing = [float(step) for step in spacing_mm]
    if image.ndim not in (2, 3) or inside.shape != image.shape:
        raise GeometryError(f"image and mask are 2-D or 3-D and of one shape; seen {image.shape} and {inside.shape}")
    if len(spacing) < image.ndim or not all(0 < step < math.inf for step in spacing):
        raise GeometryError(f"spacing is a positive number of mm for each axis; seen {spacing} for {image.shape}")
    if not inside.any():
        raise InputError("the mask is empty: it marks no voxel to describe; give a mask with non-zero voxels, or none")
    shape = (*image.shape, *(1,) * (3 - image.ndim))
    return image.reshape(shape), inside.reshape(shape), [*spacing, 1.0][:3]


# --- intensities ------------------------------------------------------------------------------------------------------


def _mean_of(values: Array, of: Callable[[Floats], Floats]) -> float:
    parts = (values[part].astype(np.float64) for part in slabs(values.shape))
    return math.fsum(float(of(part).sum()) for part in parts) / values.size


def _moment(values: Array, centre: float, power: int) -> float:
    return _mean_of(values, lambda x: (x - centre) ** power)


def _quantiles(values: Array) -> dict[str, float]:
    """Interpolated in float64 between two values, whatever their type is."""
    places = {name: share / 100 * (values.size - 1) for name, share in _QUANTILES.items()}
    wanted = sorted({whole for place in places.values() for whole in (math.floor(place), math.ceil(place))})
    ordered = np.partition(values, wanted)
    return {name: _between(ordered, place) for name, place in places.items()}


def _between(ordered: Array, place: float) -> float:
    low, high = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
    return low + (place - math.floor(place)) * (high - low)


def _deviation(values: Array, centre: float) -> float:
    return _mean_of(values, lambda x: np.abs(x - centre))


# --- sharpness --------------------------------------------------------------------------------------------------------


def _slopes(image: Array, inside: Array, spacing: Sequence[float]) -> tuple[float, float]:
    axes = [axis for axis in range(3) if image.shape[axis] >= 3]
    core = tuple(slice(1, -1) if axis in axes else slice(None) for axis in range(3))
    if not axes or not inside[core].any():
        return math.nan, math.nan
    steep = curved = 0.0
    for part in slabs(inside[core].shape):
        wide = slice(part.start, part.stop + 2) if 0 in axes else part
        gradient, laplacian = _differences(image[wide].astype(np.float64), axes, core, spacing)
        kept = inside[core][part]
        steep, curved = steep + float(gradient[kept].sum()), curved + float((laplacian[kept] ** 2).sum())
    count = int(np.count_nonzero(inside[core]))
    return math.sqrt(steep / count), math.sqrt(curved / count)


def _differences(
    image: Floats, axes: Sequence[int], core: tuple[slice, ...], spacing: Sequence[float]
) -> tuple[Floats, Floats]:
    """Squared length of the gradient, and the Laplacian, where both neighbours are there along every axis."""
    middle = image[core]
    gradient, laplacian = np.zeros(middle.shape), np.zeros(middle.shape)
    for axis in axes:
        before, after = (image[(*core[:axis], side, *core[axis + 1 :])] for side in (slice(None, -2), slice(2, None)))
        gradient += ((after - before) / (2 * spacing[axis])) ** 2
        laplacian += (after + before - 2 * middle) / spacing[axis] ** 2
    return gradient, laplacian


def _halved(image: Array, inside: Array, spacing: Sequence[float]) -> tuple[Array, Array, list[float]]:
    """Means of 2 voxels along each axis of at least 6; an odd voxel at the end is dropped."""
    steps = [2 if length >= 6 else 1 for length in image.shape]
    shape = [length // step for length, step in zip(image.shape, steps, strict=True)]
    means, whole = np.empty(shape), np.empty(shape, bool)
    for part in slabs((shape[0], steps[0] * math.prod(image.shape[1:]))):
        means[part] = _blocks(image, part, shape, steps).mean(axis=(1, 3, 5), dtype=np.float64)
        whole[part] = _blocks(inside, part, shape, steps).all(axis=(1, 3, 5))
    return means, whole, [step * length for step, length in zip(steps, spacing, strict=True)]


def _blocks(image: Array, part: slice, shape: Sequence[int], steps: Sequence[int]) -> Array:
    """(x, 2, y, 2, z, 2): what belongs to some slices of the halved image."""
    wide = slice(part.start * steps[0], part.stop * steps[0])
    rest = (slice(length * step) for length, step in zip(shape[1:], steps[1:], strict=True))
    sizes = (part.stop - part.start, steps[0], shape[1], steps[1], shape[2], steps[2])
    return image[(wide, *rest)].reshape(sizes)
