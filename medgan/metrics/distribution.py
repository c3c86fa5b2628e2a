"""How alike two sets of images are, and how varied: numbers of sets of features, each with what real images score.

Rows of `real` and `fake` are images, columns features; `medgan.metrics.features` makes them. No number here means
anything by itself: `against_real` sets it beside the same number between two halves of the real patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError
from medgan.metrics.floors import Floored, against_real, against_test, gap_closed, patient_halves

__all__ = [
    "Floored",
    "Interval",
    "Neighbourhoods",
    "against_real",
    "against_test",
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
Names = Sequence[Any] | Array  # of whose each image is
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
    real: Array,
    fake: Array,
    patients: Sequence[str] | None = None,
    *,
    fake_patients: Sequence[str] | None = None,
    within_patients: bool = True,
    resamples: int = 500,
    seed: int = 0,
) -> Interval:
    """Kernel distance: the unbiased squared maximum mean discrepancy under (x·y/d + 1)³, no unit; around 0 at best.

    The interval is from resampling real patients and fake images (or their patients) with replacement, an image being
    never compared with itself. Between sets of one distribution it is wider than it need be.

    Args:
        real: (N, d).
        fake: (M, d).
        patients: whose each real image is; each of its own if not given.
        fake_patients: what fake images belong together, such as slices of one volume; each of its own if not given.
        within_patients: whether images of one patient are compared with each other. They are more alike than those of
            two, so that sets of several images a patient seem to differ where they do not; without them they do not.
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
    owners = patients or range(len(real)), fake_patients or range(len(fake))
    apart = (None, None) if within_patients else owners
    rng = np.random.default_rng(seed)
    drawn = [_drawn(rng, owner, resamples) for owner in owners]
    low, high = np.nanquantile(_discrepancy(_blocks(real, fake, *apart), *drawn), [0.025, 0.975])
    return Interval(kernel_distance(real, fake, *apart), float(low), float(high))


def kernel_distance(
    real: Array, fake: Array, patients: Names | None = None, fake_patients: Names | None = None
) -> float:
    """The number that `kid` gives, without its interval: of rows (N, d) and (M, d).

    Args:
        real: (N, d).
        fake: (M, d).
        patients: whose each real image is; those of one are not compared with each other.
        fake_patients: likewise.

    Raises:
        InputError: if a set has fewer than two images, or all of its images are of one patient.
    """
    every = np.ones((1, len(real))), np.ones((1, len(fake)))
    return float(_discrepancy(_blocks(real, fake, patients, fake_patients), *every)[0])


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


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Kernels within the real, within the fake and between them; those of one owner's images are 0 within a set."""

    real: Array
    fake: Array
    between: Array
    real_owners: Array  # (N,): number of whose each image is
    fake_owners: Array


def _blocks(real: Array, fake: Array, patients: Names | None = None, fake_patients: Names | None = None) -> _Blocks:
    """All kernels; without patients each image is of its own."""
    if min(len(real), len(fake)) < 2:
        raise InputError(f"a kernel distance is of two images or more a set; seen {len(real)} and {len(fake)}")
    owners = _numbered(patients, len(real)), _numbered(fake_patients, len(fake))
    if not owners[0].any() or not owners[1].any():
        raise InputError("all images of a set are of one patient; a kernel distance compares those of different ones")
    within = kernel(real, real), kernel(fake, fake)
    for block, owner in zip(within, owners, strict=True):
        block[owner[:, None] == owner] = 0
    return _Blocks(*within, kernel(real, fake), *owners)


def _numbered(names: Names | None, count: int) -> Array:
    """(N,): numbers from 0 of whose each image is."""
    return np.arange(count) if names is None else np.unique(np.asarray(names), return_inverse=True)[1]


def _discrepancy(blocks: _Blocks, real: Array, fake: Array) -> Array:
    """(resamples,): squared discrepancies under weights (resamples, N) and (resamples, M)."""
    across = ((real @ blocks.between) * fake).sum(axis=1) / (real.sum(axis=1) * fake.sum(axis=1))
    within = _mean_within(blocks.real, blocks.real_owners, real), _mean_within(blocks.fake, blocks.fake_owners, fake)
    return np.asarray(within[0] + within[1] - 2 * across)


def _mean_within(block: Array, owner: Array, weight: Array) -> Array:
    num_owners = int(owner.max()) + 1
    by_owner = weight if num_owners == len(owner) else weight @ np.eye(num_owners)[owner]
    pairs = weight.sum(axis=1) ** 2 - (by_owner**2).sum(axis=1)
    with np.errstate(invalid="ignore"):  # a resample of a single image has no pair, and no discrepancy
        return np.asarray(((weight @ block) * weight).sum(axis=1) / pairs)
