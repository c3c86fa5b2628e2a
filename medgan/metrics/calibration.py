"""Whether a stated standard deviation σ is as large as the errors: coverage, calibration error, rank correlation.

All numbers are over the voxels of a mask, e = prediction − reference. What divides by σ leaves out voxels with σ = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from medgan.errors import GeometryError, InputError

__all__ = [
    "LEVELS",
    "NUM_BINS",
    "Bin",
    "Calibration",
    "calibration",
    "coverage",
    "ence",
    "error_by_sigma",
    "rank_correlation",
]

Array = npt.NDArray[Any]
LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95)
NUM_BINS = 10
_FINE = tuple(number / 100 for number in range(1, 100))


@dataclass(frozen=True)
class Bin:
    """Voxels of about the same σ.

    Args:
        sigma: root mean square of their σ.
        rmse: root mean square of their errors; equal to `sigma` where σ is right.
        count: how many there are.
    """

    sigma: float
    rmse: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """How well σ tells the error of a prediction; NaN where a number is not defined.

    Args:
        coverage: share (0..1) of voxels inside prediction ± z·σ, for each of `LEVELS`.
        miscalibration: mean distance of coverage and level over the levels 1 % to 99 %; 0 at best, 0.5 at worst.
        ence: expected normalised calibration error; 0 at best.
        spearman: rank correlation of |error| and σ; 1 if σ orders the errors, 0 if it knows nothing of them.
        scale: factor by which σ would have to be multiplied; above 1 it is too small.
        mean_sigma: mean σ, in the unit of the images.
        zero_share: share (0..1) of voxels with σ = 0, which `ence` and `scale` leave out.
        bins: the voxels by σ, ascending, in bins of equal count.
    """

    coverage: tuple[float, ...]
    miscalibration: float
    ence: float
    spearman: float
    scale: float
    mean_sigma: float
    zero_share: float
    bins: tuple[Bin, ...]


def calibration(pred: Array, ref: Array, sigma: Array, mask: Array | None = None) -> Calibration:
    """All numbers of one prediction.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z), in the unit of `pred`.
        sigma: (X, Y, Z), standard deviation of each voxel of `pred` in its unit, never negative.
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty or a σ is negative.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sigma = rng.uniform(1, 9, (40, 40, 40))
        >>> found = calibration(rng.normal(0, sigma), np.zeros_like(sigma), sigma)
        >>> [round(share, 2) for share in found.coverage], round(found.scale, 2)
        ([0.5, 0.68, 0.8, 0.9, 0.95], 1.0)
    """
    error, sigma = _inside(pred, ref, sigma, mask)
    known = sigma > 0
    bins = error_by_sigma(error[known], sigma[known])
    fine = coverage(error, sigma, _FINE)
    return Calibration(
        coverage=tuple(coverage(error, sigma)),
        miscalibration=float(np.abs(np.subtract(fine, _FINE)).mean()),
        ence=ence(bins),
        spearman=rank_correlation(np.abs(error), sigma),
        scale=float(np.sqrt(np.mean((error[known] / sigma[known]) ** 2))) if known.any() else float("nan"),
        mean_sigma=float(sigma.mean()),
        zero_share=float(1 - known.mean()),
        bins=tuple(bins),
    )


def coverage(error: Array, sigma: Array, levels: Sequence[float] = LEVELS) -> list[float]:
    """Share (0..1) of voxels whose |error| is at most z·σ, with z so that a normal error is inside by that probability.

    Args:
        error: (N,) in the unit of the images.
        sigma: (N,) likewise, never negative; a voxel with σ = 0 is inside only where it has no error.
        levels: probabilities in ascending order.

    Example:
        >>> coverage(np.array([0.0, 1.0, 2.0, 3.0]), np.ones(4), [0.68, 0.95, 0.99])  # z = 0.994, 1.960, 2.576
        [0.25, 0.5, 0.75]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.where(error == 0, 0.0, np.abs(error) / sigma)
    probability = erf(deviation / np.sqrt(2))
    first = np.searchsorted(np.asarray(levels), probability)
    return [float(share) for share in np.bincount(first, minlength=len(levels) + 1).cumsum()[:-1] / error.size]


def error_by_sigma(error: Array, sigma: Array, num_bins: int = NUM_BINS) -> list[Bin]:
    """What the errors are where σ is small, larger, largest: voxels in the order of σ, in bins of equal count.

    Args:
        error: (N,).
        sigma: (N,).
        num_bins: how many; fewer where there are fewer voxels.

    Source:
        Levi, Gispan, Giladi, Fetaya 2019, "Evaluating and Calibrating Uncertainty Prediction in Regression Tasks",
        arXiv:1905.11659, §3.2: RMV (eq. 7) and RMSE (eq. 8) of a bin.
    """
    order = np.argsort(sigma, kind="stable")
    parts = [part for part in np.array_split(order, num_bins) if part.size]
    return [Bin(_root_mean_square(sigma[part]), _root_mean_square(error[part]), part.size) for part in parts]


def ence(bins: Sequence[Bin]) -> float:
    """Expected normalised calibration error, no unit: the mean over bins of |σ − RMSE| / σ. NaN without a bin.

    Source:
        Levi et al. 2019, arXiv:1905.11659, eq. 9.

    Example:
        >>> ence([Bin(1.0, 1.5, 10), Bin(2.0, 2.0, 10)])
        0.25
    """
    return float(np.mean([abs(one.sigma - one.rmse) / one.sigma for one in bins])) if bins else float("nan")


def rank_correlation(x: Array, y: Array) -> float:
    """Spearman's, equal values sharing their mean rank. NaN where one of them is constant.

    Example:
        >>> rank_correlation(np.array([1.0, 2.0, 30.0]), np.array([0.1, 0.2, 0.3]))
        1.0
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (x, y)]
    if min(float(np.ptp(rank)) for rank in ranks) == 0:
        return float("nan")
    return round(float(np.corrcoef(*ranks)[0, 1]), 12)


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _inside(pred: Array, ref: Array, sigma: Array, mask: Array | None) -> tuple[Array, Array]:
    """Errors and σ of the voxels of the mask, float64."""
    inside = np.ones(ref.shape, dtype=bool) if mask is None else np.asarray(mask).astype(bool, copy=False)
    if not pred.shape == ref.shape == sigma.shape == inside.shape:
        seen = f"{pred.shape}, {ref.shape}, {sigma.shape}, {inside.shape}"
        raise GeometryError(f"prediction, reference, σ and mask are of one shape; seen {seen}")
    if not inside.any():
        raise InputError("the mask is empty: it marks no voxel to score; give a mask with non-zero voxels, or none")
    spread = sigma[inside].astype(np.float64)
    if spread.min() < 0:
        raise InputError(f"a standard deviation is never negative; seen {spread.min():g}; is this the image itself?")
    return pred[inside].astype(np.float64) - ref[inside].astype(np.float64), spread
