"""Numbers that describe an image, in the manner of radiomics: intensities, grey levels side by side, sharpness.

Definitions of intensities and texture are those of the Image Biomarker Standardisation Initiative (IBSI; Zwanenburg et
al. 2020, Radiology 295(2); reference manual: arXiv:1612.07003), whose digital phantom the tests reproduce. Nothing is
resampled: neighbours are neighbouring voxels, however far apart they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError, InputError

__all__ = ["NAMES", "Discretisation", "cooccurrence", "intensities", "radiomics", "sharpness", "texture"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Range = tuple[float, float]

SCALES = (1, 2, 4)
_QUANTILES = {"minimum": 0, "p10": 10, "p25": 25, "median": 50, "p75": 75, "p90": 90, "maximum": 100}
_INTENSITIES = (
    *("mean", "variance", "skewness", "kurtosis", *_QUANTILES, "interquartile_range", "mean_absolute_deviation"),
    *("robust_mean_absolute_deviation", "energy", "root_mean_square"),
)
_TEXTURE = (
    *("joint_maximum", "joint_variance", "joint_entropy", "angular_second_moment", "contrast", "correlation"),
    *("difference_average", "difference_variance", "difference_entropy", "sum_entropy"),
    *("inverse_difference", "inverse_difference_moment", "information_correlation_1", "information_correlation_2"),
)
NAMES = (
    *_INTENSITIES,
    *("entropy", "uniformity"),
    *_TEXTURE,
    *(f"{kind}_{scale}" for scale in SCALES for kind in ("gradient", "laplacian")),
)

_CHUNK = 2**18  # voxels that are worked on at once: they stay in the cache
_MOST_LEVELS = 1024
_HALF_OF_NEIGHBOURS = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]


@dataclass(frozen=True)
class Discretisation:
    """How values become grey levels 1, 2, 3 … before they are counted.

    Args:
        bins: how many of equal width there are, where no width is given (IBSI: fixed bin number).
        width: of a bin in the unit of the image, the first bin beginning at the lowest value (IBSI: fixed bin size):
            for values that mean the same in every image, such as HU.
        value_range: lowest and highest value; what lies beyond is in the outermost bin. Those of the region if not
            given.

    Raises:
        InputError: if these are no bins, or no range.

    Example:
        >>> row = np.array([[[0.0, 24.0, 25.0, 99.0]]])
        >>> Discretisation(width=25).levels(row, row > 0)[0].tolist()  # from the lowest value inside, 24
        [[[0, 1, 1, 4]]]
    """

    bins: int = 32
    width: float | None = None
    value_range: Range | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.bins <= _MOST_LEVELS or not (self.width is None or 0 < self.width < math.inf):
            seen = f"{self.bins}, {self.width}"
            raise InputError(f"grey levels are 2 to {_MOST_LEVELS} bins, or bins of a width above 0; seen {seen}")
        if self.value_range and not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
            raise InputError(f"a value range is two finite numbers, the lower first; seen {self.value_range}")

    def levels(self, image: Array, inside: Array) -> tuple[npt.NDArray[np.uint16], int]:
        """Levels (X, Y, Z), 0 outside the region, and the highest that there may be.

        Raises:
            InputError: if a width makes more than 1024 of them.
        """
        low, high = self.value_range or (float(image[inside].min()), float(image[inside].max()))
        factor, divisor = (1.0, self.width) if self.width else (float(self.bins), (high - low) or 1.0)
        steps = factor * (high - low) / divisor
        count = self.bins if not self.width else math.ceil(steps) if self.value_range else math.floor(steps) + 1
        if count > _MOST_LEVELS:
            raise InputError(f"{count} grey levels from {low:g} to {high:g}; at most {_MOST_LEVELS}, take wider bins")
        found = np.zeros(image.shape, np.uint16)
        for part in _slabs(image.shape):
            level = np.floor(factor * (image[part].astype(np.float64) - low) / divisor) + 1
            found[part] = np.where(inside[part], np.clip(level, 1, count), 0)
        return found, count


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
    shares = _counts(levels, count) / values.size
    found = {**intensities(values), "entropy": float(_entropy(shares)), "uniformity": float((shares**2).sum())}
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


def cooccurrence(levels: Array, num_levels: int | None = None) -> Floats:
    """(D, L, L): how often two grey levels are neighbours, as shares, symmetric, for each direction of neighbours.

    There are 13 directions in 3-D, 4 in 2-D, to all neighbours at a Chebyshev distance of 1; those without a pair in
    the region are left out.

    Args:
        levels: (X, Y, Z) or (X, Y) integers from 1; 0 is outside the region.
        num_levels: the highest level L; the highest there is if not given.

    Example:
        >>> cooccurrence(np.array([[[1, 1, 2]]])).tolist()  # 1 beside 1, and 1 beside 2
        [[[0.5, 0.25], [0.25, 0.0]]]
    """
    levels = levels.reshape((*levels.shape, *(1,) * (3 - levels.ndim)))
    count = int(levels.max()) if num_levels is None else num_levels
    counted = (_pairs(levels, step, count) for step in _HALF_OF_NEIGHBOURS)
    matrices = [pairs + pairs.T for pairs in counted if pairs.any()]
    return np.array([matrix / matrix.sum() for matrix in matrices], dtype=np.float64).reshape(-1, count, count)


def texture(matrices: Floats) -> dict[str, float]:
    """How grey levels lie side by side, the mean over all directions (IBSI 3.6, 3-D averaged; no unit, entropies bits).

    With p the share of a pair of levels i and j, µ and σ² of each of them: `joint_maximum` of p, `joint_variance` σ²,
    `joint_entropy`, `angular_second_moment` Σp², `contrast` Σ(i − j)²p, `correlation`; of |i − j| `difference_average`
    (also called dissimilarity), `difference_variance`, `difference_entropy`; of i + j `sum_entropy`;
    `inverse_difference` Σp/(1 + |i − j|), `inverse_difference_moment` Σp/(1 + (i − j)²); `information_correlation_1`
    and `_2`. NaN without a direction; correlations also where there is but one level.

    Args:
        matrices: (D, L, L) as `cooccurrence` makes them.

    Source:
        Haralick et al. 1973, IEEE TSMC 3(6); Clausi 2002 for the inverse differences.

    Example:
        >>> found = texture(np.array([[[0.5, 0.25], [0.25, 0.0]]]))
        >>> found["contrast"], round(found["correlation"], 4)
        (0.5, -0.3333)
    """
    if not len(matrices):
        return dict.fromkeys(_TEXTURE, math.nan)
    each = [_texture(matrix) for matrix in matrices]
    return {name: float(np.mean([found[name] for found in each])) for name in _TEXTURE}


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


def _slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Along the first axis."""
    thickness = max(1, _CHUNK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], thickness):
        yield slice(start, min(start + thickness, shape[0]))


# --- intensities ------------------------------------------------------------------------------------------------------


def _mean_of(values: Array, of: Callable[[Floats], Floats]) -> float:
    parts = (values[part].astype(np.float64) for part in _slabs(values.shape))
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


def _entropy(shares: Array) -> Any:
    """In bits, over the last axis."""
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=-1)


def _counts(levels: Array, count: int) -> Array:
    """(L,): of each level; bincount takes eight bytes a voxel."""
    parts = (np.bincount(levels[part].ravel(), minlength=count + 1) for part in _slabs(levels.shape))
    return np.asarray(np.sum(list(parts), axis=0)[1:])


# --- texture ----------------------------------------------------------------------------------------------------------


def _pairs(levels: Array, step: Sequence[int], count: int) -> npt.NDArray[np.int64]:
    """(L, L): how often a level has another one step ahead."""
    first, second = (levels[tuple(_reach(s * sign) for s in step)] for sign in (1, -1))
    total = np.zeros((count + 1) ** 2, np.int64)
    for part in _slabs(first.shape):
        places = first[part].astype(np.intp)
        places *= count + 1
        places += second[part]
        total += np.bincount(places.ravel(order="K"), minlength=total.size)
    return total.reshape(count + 1, count + 1)[1:, 1:]


def _reach(step: int) -> slice:
    """The voxels of an axis that have another one a step ahead."""
    return slice(max(0, -step), -step if step > 0 else None)


def _texture(p: Floats) -> dict[str, float]:
    count = len(p)
    level = np.arange(1, count + 1)
    apart = np.abs(level[:, None] - level)
    by_sum = np.bincount((level[:, None] + level).ravel(), p.ravel())
    by_difference = np.bincount(apart.ravel(), p.ravel())
    steps = np.arange(count)
    own, average = p.sum(axis=1), float(by_difference @ steps)
    mean = float(own @ level)
    variance, contrast = float(own @ (level - mean) ** 2), float(by_difference @ steps**2)
    return {
        "joint_maximum": float(p.max()),
        "joint_variance": variance,
        "joint_entropy": float(_entropy(p.ravel())),
        "angular_second_moment": float((p**2).sum()),
        "contrast": contrast,
        "correlation": 1 - contrast / (2 * variance) if variance else math.nan,  # both levels have one variance
        "difference_average": average,
        "difference_variance": float(by_difference @ (steps - average) ** 2),
        "difference_entropy": float(_entropy(by_difference)),
        "sum_entropy": float(_entropy(by_sum)),
        "inverse_difference": float(by_difference @ (1 / (1 + steps))),
        "inverse_difference_moment": float(by_difference @ (1 / (1 + steps**2))),
        **_information(p, own),
    }


def _information(p: Floats, own: Floats) -> dict[str, float]:
    """From entropies of the pairs, of a level, and of pairs of independent levels, which is twice that of a level."""
    joint, alone = float(_entropy(p.ravel())), float(_entropy(own))
    first = (joint - 2 * alone) / alone if alone else math.nan
    second = math.sqrt(max(0.0, 1 - math.exp(-2 * (2 * alone - joint)))) if alone else math.nan
    return {"information_correlation_1": first, "information_correlation_2": second}


# --- sharpness --------------------------------------------------------------------------------------------------------


def _slopes(image: Array, inside: Array, spacing: Sequence[float]) -> tuple[float, float]:
    axes = [axis for axis in range(3) if image.shape[axis] >= 3]
    core = tuple(slice(1, -1) if axis in axes else slice(None) for axis in range(3))
    if not axes or not inside[core].any():
        return math.nan, math.nan
    steep = curved = 0.0
    for part in _slabs(inside[core].shape):
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
    for part in _slabs((shape[0], steps[0] * math.prod(image.shape[1:]))):
        means[part] = _blocks(image, part, shape, steps).mean(axis=(1, 3, 5), dtype=np.float64)
        whole[part] = _blocks(inside, part, shape, steps).all(axis=(1, 3, 5))
    return means, whole, [step * length for step, length in zip(steps, spacing, strict=True)]


def _blocks(image: Array, part: slice, shape: Sequence[int], steps: Sequence[int]) -> Array:
    """(x, 2, y, 2, z, 2): what belongs to some slices of the halved image."""
    wide = slice(part.start * steps[0], part.stop * steps[0])
    rest = (slice(length * step) for length, step in zip(shape[1:], steps[1:], strict=True))
    sizes = (part.stop - part.start, steps[0], shape[1], steps[1], shape[2], steps[2])
    return image[(wide, *rest)].reshape(sizes)
