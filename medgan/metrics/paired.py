"""Is one method better than another on the same patients, and by how much: tests and effect sizes of differences.

Everything here is a function of one difference a patient. Several cases of a patient are averaged first: they are not
independent, and a test that takes them for it finds differences where there are none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from medgan.errors import InputError
from medgan.metrics.statistics import CI, TAILS, rounded

__all__ = [
    "EXACT_SIGNED_RANKS",
    "EXACT_SIGNS",
    "PERMUTATIONS",
    "Shift",
    "Tested",
    "Wins",
    "differences",
    "hodges_lehmann",
    "permutation",
    "rank_biserial",
    "wilcoxon",
    "win_rate",
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

EXACT_SIGNED_RANKS = 50  # differences up to which the distribution of signed ranks is worked out, as in scipy and R
EXACT_SIGNS = 16  # differences up to which all signs are gone through
PERMUTATIONS = 9_999
_BLOCK = 2**20  # signs that are worked on at once


@dataclass(frozen=True)
class Tested:
    """A test of there being no difference, two-sided.

    Args:
        p: probability of so large a difference, either way, if there is none.
        num: differences that the test rests on.
        how: `exact`, `normal` or `Monte Carlo`.
    """

    p: float
    num: int
    how: str


@dataclass(frozen=True)
class Shift:
    """A difference between two methods and its 95 % confidence interval."""

    value: float
    ci: CI


@dataclass(frozen=True)
class Wins:
    """How often the first method is better.

    Args:
        wins: patients in whom it is.
        ties: in whom both are equal.
        losses: in whom it is worse.
        rate: (wins + ties / 2) / patients.
        ci: Wilson's interval of the rate.
    """

    wins: int
    ties: int
    losses: int
    rate: float
    ci: CI


def differences(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """a − b in the first 12 digits of the larger scores, so that what rounding alone tells apart counts as equal.

    Infinite on both sides, two scores are equal: their difference is 0.

    Args:
        a: (N,) scores of one method, one a patient.
        b: (N,) of the other, in the same order.

    Raises:
        InputError: if they are not two rows of one length, or hold a NaN.

    Example:
        >>> differences([0.3, 5.0], [0.1 + 0.2, 4.5]).tolist()
        [0.0, 0.5]
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or np.isnan(first).any() or np.isnan(second).any():
        raise InputError(f"paired scores are two rows of one length without NaN; seen {first.shape} and {second.shape}")
    found = np.zeros(first.shape)
    np.subtract(first, second, out=found, where=first != second)
    return rounded(found, np.concatenate([first, second]))


def wilcoxon(gains: npt.ArrayLike) -> Tested:
    """Wilcoxon's signed-rank test of the differences being symmetric about 0.

    Differences of 0 are dropped (Wilcoxon's own rule, as in R); equal sizes share their mean rank. Up to 50 differences
    p is exact, also with ties: all signs of the ranks at hand are equally likely. Beyond, it is that of the normal
    distribution, corrected for ties, not for continuity.

    Args:
        gains: (N,) one difference a patient; may be infinite.

    Returns:
        The test; p is 1 where no difference is left.

    Source:
        Wilcoxon 1945, "Individual comparisons by ranking methods", Biometrics Bulletin 1; Hollander & Wolfe 1999,
        "Nonparametric Statistical Methods", §3.1.

    Example:
        >>> wilcoxon([1.1, 2.3, 0.4, 3.0, 1.9, 0.7])  # all six one way: 2 / 2⁶
        Tested(p=0.03125, num=6, how='exact')
    """
    ranks, up = _signed_ranks(_checked(gains))
    num = ranks.size
    if num <= EXACT_SIGNED_RANKS:
        chances = _rank_sums(np.rint(2 * ranks).astype(np.int64))
        place = round(2 * float(ranks[up].sum()))
        tail = min(float(chances[: place + 1].sum()), float(chances[place:].sum()))
        return Tested(min(1.0, 2 * tail), num, "exact")
    found = stats.wilcoxon(np.where(up, ranks, -ranks), correction=False, method="asymptotic")
    return Tested(float(found.pvalue), num, "normal")


def permutation(gains: npt.ArrayLike, *, seed: int = 0, resamples: int = PERMUTATIONS) -> Tested:
    """Sign-flip test of the mean difference being 0: two methods that are alike could be swapped in any patient.

    Up to 16 differences that are not 0 all signs are gone through: p is the share that gives a mean as far from 0.
    Beyond, signs are drawn: p = (1 + draws that do) / (1 + draws), never 0.

    Args:
        gains: (N,) one finite difference a patient.
        seed: of the draws.
        resamples: how many.

    Raises:
        InputError: if a difference is not finite.

    Source:
        Fisher 1935, "The Design of Experiments", §21; Phipson & Smyth 2010, "Permutation p-values should never be
        zero", Stat. Appl. Genet. Mol. Biol. 9.

    Example:
        >>> darwin = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]  # Fisher's own example
        >>> round(permutation(darwin).p, 5)
        0.05267
    """
    found = _finite(gains)
    found = found[found != 0]
    least = abs(float(found.sum())) * (1 - 1e-12)
    if found.size <= EXACT_SIGNS:
        every = np.arange(2**found.size)[:, None] >> np.arange(found.size) & 1
        return Tested(float(np.mean(np.abs((2 * every - 1) @ found) >= least)), found.size, "exact")
    rng, most = np.random.default_rng(seed), max(1, _BLOCK // found.size)
    rows = [min(most, resamples - start) for start in range(0, resamples, most)]
    as_far = sum(int((np.abs((2 * rng.integers(0, 2, (num, found.size)) - 1) @ found) >= least).sum()) for num in rows)
    return Tested((1 + as_far) / (1 + resamples), found.size, "Monte Carlo")


def hodges_lehmann(gains: npt.ArrayLike) -> Shift:
    """The median of the means of all pairs of differences (each with itself too), and the interval that goes with it.

    It is the shift that makes Wilcoxon's test find nothing, and the interval holds all shifts that the test at 5 % does
    not reject: from the k-th smallest to the k-th largest of these means, k the 2.5 % quantile of the sum of signed
    ranks, exact up to 50 differences. Below 6 there is no such interval. Memory grows with N²: 0.1 GB for 5,000.

    Args:
        gains: (N,) one finite difference a patient, in the unit of the measure.

    Raises:
        InputError: if a difference is not finite.

    Source:
        Hodges & Lehmann 1963, "Estimates of location based on rank tests", Ann. Math. Statist. 34; Hollander & Wolfe
        1999, §3.2 and §3.3.

    Example:
        >>> hodges_lehmann([1.0, 2.0, 9.0]).value  # 1, 1.5, 2, 5, 5.5, 9
        3.5
    """
    found = np.sort(_finite(gains))
    if not found.size:
        return Shift(math.nan, CI(math.nan, math.nan, "none: no patient"))
    means = np.sort(np.concatenate([(found[k:] + found[k]) / 2 for k in range(found.size)]))
    place, how = _lower_place(found.size)
    none = CI(math.nan, math.nan, f"none: {found.size} patients are too few for 95 %")
    ci = CI(float(means[place - 1]), float(means[-place]), how) if place else none
    return Shift(float(np.median(means)), ci)


def rank_biserial(gains: npt.ArrayLike) -> float:
    """(R₊ − R₋) / (R₊ + R₋), R the sums of the ranks of positive and negative differences; NaN if all are 0.

    1 if the first method is better in every patient, −1 if it is worse in every one; differences of 0 are dropped.

    Source:
        Kerby 2014, "The simple difference formula: an approach to teaching nonparametric correlation", Compr. Psychol.
        3.

    Example:
        >>> rank_biserial([3.0, 2.0, -1.0])  # (3 + 2 − 1) / 6
        0.6666666666666666
    """
    ranks, up = _signed_ranks(_checked(gains))
    return float((ranks[up].sum() - ranks[~up].sum()) / ranks.sum()) if ranks.size else math.nan


def win_rate(gains: npt.ArrayLike) -> Wins:
    """In which share of the patients the first method is better, ties counted half, with Wilson's interval.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22.

    Example:
        >>> found = win_rate([1.0, 2.0, 0.5, -1.0])
        >>> found.rate, round(found.ci.low, 4), round(found.ci.high, 4)
        (0.75, 0.3006, 0.9544)
    """
    found = _checked(gains)
    num, wins, losses = found.size, int((found > 0).sum()), int((found < 0).sum())
    if not num:
        return Wins(0, 0, 0, math.nan, CI(math.nan, math.nan, "none: no patient"))
    rate, z = (wins + (num - wins - losses) / 2) / num, float(stats.norm.ppf(TAILS[1]))
    middle = (rate + z**2 / (2 * num)) / (1 + z**2 / num)
    reach = z / (1 + z**2 / num) * math.sqrt(rate * (1 - rate) / num + z**2 / (4 * num**2))
    return Wins(
        wins, num - wins - losses, losses, rate, CI(max(0.0, middle - reach), min(1.0, middle + reach), "Wilson")
    )


def _checked(gains: npt.ArrayLike) -> Floats:
    found = np.asarray(gains, dtype=np.float64)
    if found.ndim != 1 or np.isnan(found).any():
        raise InputError(f"differences are a row of numbers, one a patient; seen shape {found.shape} or a NaN")
    return found


def _finite(gains: npt.ArrayLike) -> Floats:
    found = _checked(gains)
    if not np.isfinite(found).all():
        raise InputError("a mean of differences needs finite ones; leave out the patients without")
    return found


def _signed_ranks(found: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Ranks of the sizes of differences other than 0, and which of them are positive."""
    found = found[found != 0]
    return np.asarray(stats.rankdata(np.abs(found)), dtype=np.float64), found > 0


def _rank_sums(ranks: npt.NDArray[np.int64]) -> Floats:
    """Of each sum from 0 to the largest its probability, if every rank is counted or not by the toss of a coin."""
    chances = np.ones(1)
    for rank in ranks:
        longer = np.zeros(chances.size + rank)
        longer[: chances.size] = chances
        longer[rank:] += chances
        chances = longer / 2
    return chances


def _lower_place(num: int) -> tuple[int, str]:
    """The smallest sum that at least 2.5 % of all signs of `num` ranks reach from below; 0 if that is nothing."""
    if num <= EXACT_SIGNED_RANKS:
        below = _rank_sums(np.arange(1, num + 1)).cumsum()
        return int((below < TAILS[0]).sum()), "exact"
    mean, variance = num * (num + 1) / 4, num * (num + 1) * (2 * num + 1) / 24
    return math.ceil(mean + float(stats.norm.ppf(TAILS[0])) * math.sqrt(variance) - 0.5), "normal"
