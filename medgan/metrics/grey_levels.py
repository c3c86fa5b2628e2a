"""Grey levels of an image, and how they lie side by side.

Definitions are those of the Image Biomarker Standardisation Initiative (IBSI): see `medgan.metrics.radiomics`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError
from medgan.metrics.slabs import slabs

__all__ = ["TEXTURE", "Discretisation", "cooccurrence", "distribution", "texture"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Range = tuple[float, float]

TEXTURE = (
    *("joint_maximum", "joint_variance", "joint_entropy", "angular_second_moment", "contrast", "correlation"),
    *("difference_average", "difference_variance", "difference_entropy", "sum_entropy"),
    *("inverse_difference", "inverse_difference_moment", "information_correlation_1", "information_correlation_2"),
)
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
        for part in slabs(image.shape):
            level = np.floor(factor * (image[part].astype(np.float64) - low) / divisor) + 1
            found[part] = np.where(inside[part], np.clip(level, 1, count), 0)
        return found, count


def distribution(levels: Array, count: int) -> dict[str, float]:
    """What levels there are, wherever they lie: `entropy`, bits, and `uniformity`, no unit (IBSI 3.4.18, 3.4.19).

    Args:
        levels: (X, Y, Z) integers from 1; 0 is outside the region.
        count: the highest level that there may be.

    Example:
        >>> distribution(np.array([[[1, 2, 3, 4, 0]]]), 4)
        {'entropy': 2.0, 'uniformity': 0.25}
    """
    numbers = _counts(levels, count)
    shares = numbers / numbers.sum()
    return {"entropy": float(_entropy(shares)), "uniformity": float((shares**2).sum())}


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
        return dict.fromkeys(TEXTURE, math.nan)
    each = [_texture(matrix) for matrix in matrices]
    return {name: float(np.mean([found[name] for found in each])) for name in TEXTURE}


def _entropy(shares: Array) -> Any:
    """In bits, over the last axis."""
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=-1)


def _counts(levels: Array, count: int) -> Array:
    """(L,): of each level; bincount takes eight bytes a voxel."""
    parts = (np.bincount(levels[part].ravel(), minlength=count + 1) for part in slabs(levels.shape))
    return np.asarray(np.sum(list(parts), axis=0)[1:])


def _pairs(levels: Array, step: Sequence[int], count: int) -> npt.NDArray[np.int64]:
    """(L, L): how often a level has another one step ahead."""
    first, second = (levels[tuple(_reach(s * sign) for s in step)] for sign in (1, -1))
    total = np.zeros((count + 1) ** 2, np.int64)
    for part in slabs(first.shape):
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
