"""How alike two sets of images are, and how varied: numbers of sets of features, each with what real images score.

Rows of `real` and `fake` are images, columns features; `medgan.metrics.features` makes them. No number here means
anything by itself: `against_real` sets it beside the same number between two halves of the real patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError

__all__ = [
    "Floored",
    "Interval",
    "Neighbourhoods",
    "against_real",
    "expected_coverage",
    "frechet_distance",
    "gap_closed",
    "kernel",
    "kernel_distance",
    "kid",
    "mean_correlation",
    "neighbourhoods",
    "patient_halves",
    "spread_ratio",
    "squared_distances",
]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
_ROWS = 512  # of a matrix of distances that are worked on at once


@dataclass(frozen=True)
class Interval:
    """A number and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float


def frechet_distance(real: Array, fake: Array) -> float:
    """Squared Fréchet distance of the normal distributions fitted to two sets, in squared units of the features.

    |µ₁ − µ₂|² + tr S₁ + tr S₂ − 2 tr (S₁^½ S₂ S₁^½)^½. Called FID only where the features are those of Inception.

    Args:
        real: (N, d).
        fake: (M, d).

    Raises:
        InputError: if a set has no more images than features: its covariance would be of lower rank.

    Source:
        Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500, eq. 6.

    Example:
        >>> square = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> round(frechet_distance(square, square + [3.0, 4.0]), 9)
        25.0
    """
    count, num_features = min(len(real), len(fake)), real.shape[1]
    if count <= num_features:
        raise InputError(
            f"a Fréchet distance in {num_features} features needs more than {num_features} images a set; seen {count}; "
            "reduce the features first (Reduction.fit with fewer components)"
        )
    covariances = [np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (real, fake)]
    root = _root(covariances[0])
    lengths = np.linalg.eigvalsh(root @ covariances[1] @ root)
    shared = np.sqrt(np.clip(lengths, 0, None)).sum()
    shift = float(((real.mean(axis=0) - fake.mean(axis=0)) ** 2).sum())
    return shift + float(np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * shared)


def kid(
    real: Array, fake: Array, patients: Sequence[str] | None = None, *, resamples: int = 500, seed: int = 0
) -> Interval:
    """Kernel distance: the unbiased squared maximum mean discrepancy under (x·y/d + 1)³, no unit; around 0 at best.

    The interval is from resampling real patients and fake images with replacement, an image being never compared with
    itself. Between sets of one distribution it is wider than it need be.

    Args:
        real: (N, d).
        fake: (M, d).
        patients: whose each real image is; each of its own if not given.
        resamples: how many.
        seed: of the resampling.

    Raises:
        InputError: if a set has fewer than two images.

    Source:
        Gretton et al. 2012, JMLR 13, eq. 3; Bińkowski et al. 2018, arXiv:1801.01401, §3.

    Example:
        >>> kid(np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]])).value  # 1 + 8 − 2·1
        7.0
    """
    blocks = _blocks(real, fake)
    rng = np.random.default_rng(seed)
    drawn = _drawn(rng, patients or range(len(real)), resamples), _drawn(rng, range(len(fake)), resamples)
    low, high = np.nanquantile(_discrepancy(blocks, *drawn), [0.025, 0.975])
    return Interval(kernel_distance(real, fake), float(low), float(high))


def kernel_distance(real: Array, fake: Array) -> float:
    """The number that `kid` gives, without its interval: of rows (N, d) and (M, d).

    Raises:
        InputError: if a set has fewer than two images.
    """
    every = np.ones((1, len(real))), np.ones((1, len(fake)))
    return float(_discrepancy(_blocks(real, fake), *every)[0])


def kernel(x: Array, y: Array) -> Array:
    """(N, M): (x·y/d + 1)³ of the rows of x (N, d) and y (M, d)."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


@dataclass(frozen=True)
class Neighbourhoods:
    """Shares (0..1) of one set that lie in the neighbourhoods of the other.

    Args:
        precision: fake images in a real neighbourhood: are they real-looking?
        recall: real images in a fake neighbourhood: can the real ones be made?
        density: real neighbourhoods that a fake image lies in, over k; about 1 for real images, more in the middle.
        coverage: real neighbourhoods that hold a fake image.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(real: Array, fake: Array, k: int = 5) -> Neighbourhoods:
    """Precision and recall, density and coverage.

    The neighbourhood of an image is the closed ball that reaches to the k-th nearest other image of its own set.

    Args:
        real: (N, d).
        fake: (M, d).
        k: how many neighbours.

    Raises:
        InputError: if a set has no more than k images.

    Source:
        Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 1–2; Naeem et al. 2020, arXiv:2002.09797, eq. 3–4.

    Example:
        >>> line = np.arange(6.0)[:, None]
        >>> neighbourhoods(line, line[:2] + 0.5, k=1)
        Neighbourhoods(precision=1.0, recall=0.5, density=2.0, coverage=0.5)
    """
    if min(len(real), len(fake)) <= k:
        raise InputError(
            f"neighbourhoods of {k} neighbours need {k + 1} images a set; seen {len(real)} and {len(fake)}"
        )
    between = squared_distances(real, fake)
    around_real = between <= _radii(real, k)[:, None]
    around_fake = between <= _radii(fake, k)[None, :]
    return Neighbourhoods(
        precision=float(around_real.any(axis=0).mean()),
        recall=float(around_fake.any(axis=1).mean()),
        density=float(around_real.sum() / (k * len(fake))),
        coverage=float(around_real.any(axis=1).mean()),
    )


def expected_coverage(num_real: int, num_fake: int, k: int = 5) -> float:
    """Coverage (0..1) to be expected where both sets are of one distribution, whatever it is.

    Source:
        Naeem et al. 2020, arXiv:2002.09797, eq. 7.

    Example:
        >>> expected_coverage(11, 10, k=1)  # one of 20 others is the nearest: of 10 it is a fake one
        0.5
    """
    steps = np.arange(1, k + 1)
    return float(1 - np.prod((num_real - steps) / (num_real + num_fake - steps)))


def spread_ratio(real: Array, fake: Array) -> float:
    """Root of the total variance of a set over that of the real one, no unit; 1 where it varies as much.

    It is to be taken within a class: the difference between classes would hide that each of them collapsed.

    Raises:
        InputError: if a set has fewer than two images, or the real ones are all equal.

    Example:
        >>> spread_ratio(np.array([[0.0], [4.0]]), np.array([[9.0], [10.0]]))
        0.25
    """
    if min(len(real), len(fake)) < 2 or not (real != real[0]).any():
        raise InputError("a spread is compared with that of two real images or more that differ")
    return float(np.sqrt(fake.var(axis=0, ddof=1).sum() / real.var(axis=0, ddof=1).sum()))


def mean_correlation(images: Array) -> float:
    """Mean over all pairs of images of their correlation across voxels, −1 to 1; higher where images are more alike.

    With u an image less its mean and over its length, it is (|Σu|² − Σ|u|²)/(N(N − 1)), so it takes no loop over pairs.

    Args:
        images: (N, voxels); a constant image correlates with none.

    Raises:
        InputError: if there are fewer than two images.

    Example:
        >>> mean_correlation(np.array([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0]]))  # 1, −1, −1
        -0.3333333333333333
    """
    if len(images) < 2:
        raise InputError(f"a mean over pairs needs two images or more; seen {len(images)}")
    centred = images - images.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-9)
    total, own = (unit.sum(axis=0) ** 2).sum(), (unit**2).sum()
    return float((total - own) / (len(images) * (len(images) - 1)))


# --- what real images score -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Floored:
    """A number of a set beside the same number of real images, measured in one way and on as many images.

    Args:
        value: median over the splits; half of the real patients against the other set.
        low: smallest over the splits.
        high: largest.
        floor: median over the splits; half of the real patients against the other half.
        floor_low: smallest over the splits.
        floor_high: largest.
    """

    value: float
    low: float
    high: float
    floor: float
    floor_low: float
    floor_high: float


def against_real(
    score: Callable[[Array, Array], dict[str, float]],
    real: Array,
    fake: Array,
    patients: Sequence[str],
    *,
    splits: int = 10,
    seed: int = 0,
) -> dict[str, Floored]:
    """Scores of a set, each beside that of real images.

    In each split the patients fall into two random halves A and B. The floor is `score(A, B)`, the value is
    `score(A, F)`, where F and B have as many images, drawn at random from the larger. So both are off by the same
    where a score hangs on the number of images, as Fréchet distance does.

    Args:
        score: of (N, d) real and (M, d) other features.
        real: (N, d).
        fake: (M, d).
        patients: whose each real image is.
        splits: how many.
        seed: of the splits.

    Raises:
        InputError: if there is but one patient, or the score cannot be had of so few.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(splits):
        a, b = patient_halves(patients, rng)
        count = min(len(b), len(fake))
        b, f = rng.permutation(b)[:count], rng.permutation(len(fake))[:count]
        found.append((score(real[a], fake[f]), score(real[a], real[b])))
    return {name: _floored(*([pair[side][name] for pair in found] for side in (0, 1))) for name in found[0][0]}


def patient_halves(patients: Sequence[str], rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Places of the images of a random half of the patients, and of the other half.

    Raises:
        InputError: if there is but one patient.

    Example:
        >>> [sorted(half.tolist()) for half in patient_halves(["p", "q", "p"], np.random.default_rng(1))]
        [[0, 2], [1]]
    """
    names = np.unique(np.asarray(patients))
    if len(names) < 2:
        raise InputError("halves by patient need two patients or more; all images are of one")
    first = np.isin(np.asarray(patients), rng.permutation(names)[: len(names) // 2])
    return np.flatnonzero(first), np.flatnonzero(~first)


def gap_closed(value: float, floor: float, ceiling: float) -> float:
    """How much of the way from bad to as good as real a number has gone: 0 at the ceiling, 1 at the floor.

    Times 100 it reads "closes x % of the gap between untrained and real-versus-real".

    Args:
        value: of a generator.
        floor: of real images against real ones.
        ceiling: of something bad, such as the generator before its training.

    Raises:
        InputError: if floor and ceiling are equal.

    Example:
        >>> gap_closed(30.0, 20.0, 120.0), gap_closed(0.5, 0.75, 0.25)  # lower is better; higher is better
        (0.9, 0.5)
    """
    if floor == ceiling:
        raise InputError(f"there is no gap to close: floor and ceiling are both {floor:g}")
    return (ceiling - value) / (ceiling - floor)


def squared_distances(x: Array, y: Array) -> Array:
    """(N, M) squared Euclidean distances of the rows of x (N, d) and y (M, d), never negative."""
    lengths = (y**2).sum(axis=1)
    parts = [_squared(rows, y, lengths) for rows in np.split(x, range(_ROWS, len(x), _ROWS))]
    return np.concatenate(parts)


def _squared(x: Array, y: Array, lengths: Array) -> Array:
    return np.asarray(np.clip((x**2).sum(axis=1)[:, None] + lengths - 2 * (x @ y.T), 0, None))


def _radii(x: Array, k: int) -> Array:
    """(N,) squared distances to the k-th nearest other row."""
    return np.asarray(np.partition(squared_distances(x, x), k, axis=1)[:, k])


def _root(covariance: Array) -> Array:
    lengths, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.clip(lengths, 0, None))) @ axes.T)


def _drawn(rng: np.random.Generator, owners: Sequence[Any], resamples: int) -> Array:
    """(resamples, N): how often each image is in a resample of its owners."""
    _, owner = np.unique(np.asarray(owners), return_inverse=True)
    num_owners = int(owner.max()) + 1
    counts = rng.multinomial(num_owners, np.full(num_owners, 1 / num_owners), size=resamples)
    return np.asarray(counts[:, owner], dtype=np.float64)


def _blocks(real: Array, fake: Array) -> tuple[Array, Array, Array]:
    """Kernels within the real, within the fake and between them, an image's with itself being 0."""
    if min(len(real), len(fake)) < 2:
        raise InputError(f"a kernel distance is of two images or more a set; seen {len(real)} and {len(fake)}")
    blocks = kernel(real, real), kernel(fake, fake), kernel(real, fake)
    for within in blocks[:2]:
        np.fill_diagonal(within, 0)
    return blocks


def _discrepancy(blocks: tuple[Array, Array, Array], real: Array, fake: Array) -> Array:
    """(resamples,): squared discrepancies under weights (resamples, N) and (resamples, M); the diagonals are 0."""
    within_real, within_fake, between = blocks
    across = ((real @ between) * fake).sum(axis=1) / (real.sum(axis=1) * fake.sum(axis=1))
    return np.asarray(_mean_within(within_real, real) + _mean_within(within_fake, fake) - 2 * across)


def _mean_within(block: Array, weight: Array) -> Array:
    pairs = weight.sum(axis=1) ** 2 - (weight**2).sum(axis=1)
    with np.errstate(invalid="ignore"):  # a resample of a single image has no pair, and no discrepancy
        return np.asarray(((weight @ block) * weight).sum(axis=1) / pairs)


def _floored(values: list[float], floors: list[float]) -> Floored:
    value, floor = float(np.median(values)), float(np.median(floors))
    return Floored(value, min(values), max(values), floor, min(floors), max(floors))
