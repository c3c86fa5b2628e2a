"""What a column of scores says: where it lies, how sure that is, and how firm a ranking of methods by it is.

The unit of analysis is the patient: a resample draws patients with replacement, and each comes with all its cases.
Slices of a volume, or scans of one person, resemble one another; drawn singly they make every interval too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from medgan.errors import InputError

__all__ = ["CI", "RESAMPLES", "Ranking", "Summary", "draws", "holm", "owners_of", "rank_stability", "summary"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RESAMPLES = 10_000
TAILS = (0.025, 0.975)
DIGITS = 12  # that equal scores of different files have in common
NOTHING = 1e-12  # relative difference that rounding alone makes
_BLOCK = 2**20  # numbers that are worked on at once


@dataclass(frozen=True)
class CI:
    """A 95 % confidence interval.

    Args:
        low: lower end; NaN where there is none.
        high: upper end.
        how: `percentile`, `BCa` and the like; `none: ` and the reason where there is none.
    """

    low: float
    high: float
    how: str

    def to_json(self) -> dict[str, float | str | None]:
        """As plain values; an end that is not finite is None."""
        return {"low": plain(self.low), "high": plain(self.high), "how": self.how}


@dataclass(frozen=True)
class Summary:
    """Where the values of one measure lie; NaN where there are too few of them to tell.

    Args:
        n: values, one a case.
        num_undefined: cases without a finite value; they are in none of the numbers below.
        num_patients: whose the values are.
        mean: over cases.
        sd: standard deviation of the sample (n − 1).
        median: over cases.
        q1: lower quartile, interpolated linearly.
        q3: upper quartile.
        min: the smallest value.
        max: the largest.
        mean_ci: of the mean, percentile bootstrap.
        median_ci: of the median, percentile bootstrap.
        mean_bca: of the mean, bias-corrected and accelerated; the percentile interval, and says so, where that has no
            value.
    """

    n: int
    num_undefined: int
    num_patients: int
    mean: float
    sd: float
    median: float
    q1: float
    q3: float
    min: float
    max: float
    mean_ci: CI
    median_ci: CI
    mean_bca: CI

    def to_json(self) -> dict[str, Any]:
        """As plain values; what is not finite is None."""
        numbers = ("mean", "sd", "median", "q1", "q3", "min", "max")
        return {
            "n": self.n,
            "num_undefined": self.num_undefined,
            "num_patients": self.num_patients,
            **{name: plain(getattr(self, name)) for name in numbers},
            **{name: getattr(self, name).to_json() for name in ("mean_ci", "median_ci", "mean_bca")},
        }


@dataclass(frozen=True)
class Ranking:
    """Methods in order, and how firm the order is; the methods are those of the columns that were ranked.

    Args:
        mean_rank: of each method over patients; 1 is best, equals share their mean rank.
        rank: of each method by `mean_rank`; equals share the better one.
        share: row by method, column by rank: share of the resamples in which the method has that rank.
        tau: Kendall's τ-b between this ranking and that of a resample, mean over resamples; 1 if all agree. A resample
            in which all methods are equal counts as 0.
    """

    mean_rank: tuple[float, ...]
    rank: tuple[int, ...]
    share: tuple[tuple[float, ...], ...]
    tau: float


def summary(
    values: npt.ArrayLike, patients: Sequence[Hashable] | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> Summary:
    """Mean, spread, quartiles and bootstrap intervals of the values of one measure.

    A resample draws as many patients as there are, with replacement, with all their cases; its mean and median are
    those over its cases. The percentile interval reaches from the 2.5th to the 97.5th percentile of the resamples. BCa
    moves these percentiles to Φ(z₀ + (z₀ + z)/(1 − a(z₀ + z))), z = ±1.96; z₀ = Φ⁻¹(share of resamples below the mean,
    equals half); a = Σd³ / (6 (Σd²)^1.5), d the mean of the jackknife's values less each, a patient left out at a time.

    Args:
        values: (N,) one a case; None, NaN and infinite ones are counted and left out.
        patients: (N,) whose each case is; each its own if not given.
        seed: of the draws; the same seed gives the same intervals.
        resamples: how many.

    Raises:
        InputError: if the values are not a row of numbers, or not as many as the patients.

    Source:
        Efron 1987, "Better bootstrap confidence intervals", JASA 82; Davison & Hinkley 1997, "Bootstrap Methods and
        their Application", §3.8 (clusters).

    Example:
        >>> found = summary([1.0, 2.0, 6.0, 7.0, float("nan")])
        >>> found.n, found.num_undefined, found.mean, found.median, round(found.sd, 3)
        (4, 1, 4.0, 4.0, 2.944)
    """
    numbers = _row(values)
    known = np.isfinite(numbers)
    owner = _numbered(owners_of(patients, numbers.size)[known])
    numbers, num_undefined = numbers[known], int(numbers.size - known.sum())
    if not numbers.size:
        return _nothing(num_undefined)
    mean_ci, median_ci, mean_bca = _intervals(numbers, owner, seed, resamples)
    q1, median, q3 = (float(q) for q in np.quantile(numbers, (0.25, 0.5, 0.75)))
    return Summary(
        n=numbers.size,
        num_undefined=num_undefined,
        num_patients=int(owner.max()) + 1,
        mean=float(numbers.mean()),
        sd=float(numbers.std(ddof=1)) if numbers.size > 1 else math.nan,
        median=median,
        q1=q1,
        q3=q3,
        min=float(numbers.min()),
        max=float(numbers.max()),
        mean_ci=mean_ci,
        median_ci=median_ci,
        mean_bca=mean_bca,
    )


def draws(num_patients: int, *, seed: int = 0, resamples: int = RESAMPLES, width: int = 1) -> Iterator[Ints]:
    """How often each patient is drawn, (B, P) in blocks of B resamples that fit into memory.

    Args:
        num_patients: P, one or more.
        seed: of the draws.
        resamples: rows over all blocks.
        width: numbers that are made of each row, such as cases; the more, the smaller are the blocks.
    """
    rng = np.random.default_rng(seed)
    most = max(1, _BLOCK // max(num_patients, width))
    for start in range(0, resamples, most):
        rows = min(most, resamples - start)
        drawn = rng.integers(0, num_patients, (rows, num_patients)) + num_patients * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * num_patients).reshape(rows, num_patients)


def owners_of(patients: Sequence[Hashable] | None, num_cases: int) -> Ints:
    """(N,) the number of each case's patient, from 0 in order of appearance.

    Raises:
        InputError: if there are not as many patients as cases.

    Example:
        >>> owners_of(["p2", "p1", "p2"], 3).tolist()
        [0, 1, 0]
    """
    if patients is None:
        return np.arange(num_cases)
    if len(patients) != num_cases:
        raise InputError(f"{len(patients)} patients for {num_cases} values; name one for each, in the same order")
    return _numbered(patients)


def rank_stability(badness: npt.ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Ranking:
    """Methods ranked patient by patient, ordered by their mean rank, and again for each resample of patients.

    Args:
        badness: (P, M) for each patient and method a number that is lower for the better; +inf is worst.
        seed: of the draws.
        resamples: how many.

    Raises:
        InputError: if there is no patient or no method, or a number is NaN.

    Source:
        Wiesenfarth et al. 2021, "Methods and open-source toolkit for analyzing and visualizing challenge results",
        Sci. Rep. 11 (challengeR): rank, then aggregate by the mean; bootstrap over cases.

    Example:
        >>> found = rank_stability([[1, 2, 3], [1, 3, 2], [2, 1, 3]])
        >>> found.rank, [round(rank, 2) for rank in found.mean_rank]
        ((1, 2, 3), [1.33, 2.0, 2.67])
    """
    table = np.asarray(badness, dtype=np.float64)
    if table.ndim != 2 or not table.size or np.isnan(table).any():
        raise InputError(f"a ranking needs a number for each patient and method; seen shape {table.shape} or a NaN")
    from scipy.stats import rankdata

    ranks = rankdata(rounded(table, table), axis=1)
    observed = rankdata(ranks.sum(axis=0), method="min").astype(int)
    blocks = draws(len(table), seed=seed, resamples=resamples)
    resampled = np.concatenate([rankdata(block @ ranks, method="min", axis=1) for block in blocks]).astype(int)
    places = range(1, table.shape[1] + 1)
    return Ranking(
        mean_rank=tuple(float(rank) for rank in ranks.mean(axis=0)),
        rank=tuple(int(rank) for rank in observed),
        share=tuple(tuple(float(np.mean(own == place)) for place in places) for own in resampled.T),
        tau=_mean_tau(observed, resampled),
    )


def holm(p: Sequence[float]) -> list[float]:
    """p-values of several tests so that the chance of any false finding is at most the level they are compared with.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6.

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005])
        [0.03, 0.06, 0.06, 0.02]
    """
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p, float)[order] * factors), 1)
    return [float(value) for value in adjusted]


def rounded(numbers: Floats, like: Floats) -> Floats:
    """Numbers in the first 12 digits of the largest of some others, so that rounding alone makes no order."""
    scale = float(np.abs(like[np.isfinite(like)]).max(initial=0))
    decimals = DIGITS - 1 - math.floor(math.log10(scale)) if scale else 0
    return np.asarray(np.round(numbers, decimals) + 0.0) if abs(decimals) < 300 else numbers


def plain(value: float) -> float | None:
    """A number as JSON can hold it."""
    return float(value) if math.isfinite(value) else None


def _nothing(num_undefined: int) -> Summary:
    nan, none = math.nan, CI(math.nan, math.nan, "none: no value")
    return Summary(0, num_undefined, 0, nan, nan, nan, nan, nan, nan, nan, none, none, none)


def _row(values: npt.ArrayLike) -> Floats:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("the values of a measure are numbers, one a case; None and NaN stand for none") from error
    if numbers.ndim != 1:
        raise InputError(f"the values of a measure are a row, one a case; seen shape {numbers.shape}")
    return numbers


def _numbered(names: Sequence[Hashable] | Ints) -> Ints:
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)


def _intervals(values: Floats, owner: Ints, seed: int, resamples: int) -> tuple[CI, CI, CI]:
    """Of the mean, of the median, and BCa of the mean."""
    sizes, sums = np.bincount(owner), np.bincount(owner, weights=values)
    if sizes.size == 1:
        none = CI(math.nan, math.nan, "none: one patient")
        return none, none, none
    if not np.ptp(values):
        same = CI(float(values[0]), float(values[0]), "percentile, all values are equal")
        return same, same, same
    blocks = [
        ((block @ sums) / (block @ sizes), _medians(values, block[:, owner]))
        for block in draws(sizes.size, seed=seed, resamples=resamples, width=values.size)
    ]
    means, medians = (np.concatenate(column) for column in zip(*blocks, strict=True))
    jackknife = (sums.sum() - sums) / (sizes.sum() - sizes)
    return _percentile(means), _percentile(medians), _bca(float(sums.sum() / sizes.sum()), means, jackknife)


def _percentile(resampled: Floats) -> CI:
    low, high = np.quantile(resampled, TAILS)
    return CI(float(low), float(high), "percentile")


def _medians(values: Floats, weights: Ints) -> Floats:
    """Of each row of weights: the median of the values, each counted that often."""
    order = np.argsort(values, kind="stable")
    reached = weights[:, order].cumsum(axis=1)
    total = reached[:, -1:]
    lower, upper = (values[order][(reached < place).sum(axis=1)] for place in ((total + 1) // 2, total // 2 + 1))
    return np.asarray((lower + upper) / 2)


def _bca(mean: float, resampled: Floats, jackknife: Floats) -> CI:
    scale = NOTHING * float(np.abs(resampled).max())
    share = float(np.mean(resampled < mean - scale) + np.mean(np.abs(resampled - mean) <= scale) / 2)
    deviation = jackknife.mean() - jackknife
    if not 0 < share < 1 or np.abs(deviation).max() <= scale:
        return _without_bca(resampled)
    deviation /= np.abs(deviation).max()  # which changes nothing but that squares of tiny numbers stay numbers
    shift, acceleration = ndtri(share), float((deviation**3).sum() / (6 * (deviation**2).sum() ** 1.5))
    reach = shift + ndtri(np.asarray(TAILS))
    if (1 - acceleration * reach).min() <= 0:
        return _without_bca(resampled)
    low, high = np.quantile(resampled, ndtr(shift + reach / (1 - acceleration * reach)))
    return CI(float(low), float(high), "BCa")


def _without_bca(resampled: Floats) -> CI:
    found = _percentile(resampled)
    return CI(found.low, found.high, "percentile, BCa has no value here")


def _mean_tau(observed: Ints, resampled: Ints) -> float:
    orders, counts = np.unique(resampled, axis=0, return_counts=True)
    taus = np.array([_tau(observed, order) for order in orders])
    return float((taus * counts).sum() / counts.sum())


def _tau(a: Ints, b: Ints) -> float:
    """τ-b by its definition; scipy's is NaN where all are equal, and slow for a handful of methods."""
    i, j = np.triu_indices(a.size, 1)
    x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    pairs = math.sqrt(float((x**2).sum()) * float((y**2).sum()))
    return float((x * y).sum()) / pairs if pairs else 0.0
