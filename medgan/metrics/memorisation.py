"""Whether synthetic images are copies of training images, told by what cannot be memory: real images held out.

Each test asks whether the synthetic images are closer to the training patients than to other real patients. It is
answered by exchanging patients between the two sets: to a generator that knows neither they are alike, whatever it
makes. So a generator of dull, blurred or collapsed images, which is close to everything, is not taken for a copier.

A test that finds nothing proves nothing: images may leak what no distance shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError
from medgan.metrics.distribution import Interval
from medgan.metrics.nearness import Nearness, by_patient

__all__ = [
    "Beside",
    "Copies",
    "Exchanged",
    "Hits",
    "authenticity",
    "closer_to_train",
    "copies",
    "distance_ratio",
    "effective_number",
    "exchanged",
    "hits",
    "share_below",
]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
EXCHANGES = 1999
QUANTILE = 0.01
CLOSE = 0.5  # of what is usual among real patients
STARK = 0.5  # of the smallest that is seen among them
_UNSEEN = 1e-3  # accepted chance that a list of neighbours ends before the smaller set comes up


# --- what exchanging patients says ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exchanged:
    """A number, and what it would be if the synthetic images knew neither set of patients.

    Args:
        value: the number.
        low: 2.5 % of exchanges of patients between the sets give less.
        high: 2.5 % give more.
        p: share of exchanges that give as much or more, this one counted too.
    """

    value: float
    low: float
    high: float
    p: float


def exchanged(
    score: Callable[[Bools], float], is_train: Bools, *, exchanges: int = EXCHANGES, seed: int = 0
) -> Exchanged:
    """A score of who is a training patient, against that of patients named so at random.

    Args:
        score: of (P,) whether each patient is a training patient.
        is_train: (P,) as it is.
        exchanges: how many.
        seed: of the exchanges.
    """
    rng = np.random.default_rng(seed)
    value = score(is_train)
    others = np.array([score(rng.permutation(is_train)) for _ in range(exchanges)])
    low, high = np.quantile(others, [0.025, 0.975])
    p = (1 + int((others >= value - 1e-12).sum())) / (1 + exchanges)
    return Exchanged(float(value), float(low), float(high), p)


def closer_to_train(near: Nearness, *, exchanges: int = EXCHANGES, seed: int = 0) -> Exchanged:
    """Share (0..1) of synthetic images that closer to a training patient than to a held-out one; 0.5 if independent.

    As many patients of each set count: the share is the mean over all ways of drawing the smaller number of patients
    from the larger set. That mean needs no draws. If k patients of the larger set, of M, are nearer than the nearest of
    the smaller one, of m, then none of them is drawn with probability C(M − k, m) / C(M, m). Ties count half.

    Raises:
        InputError: if there is no held-out patient.

    Source:
        Lopez-Paz and Oquab 2017 (nearest neighbours as a two-sample test); the exact mean is our own.
    """
    is_train = near.is_train
    if is_train.all():
        raise InputError("without held-out patients nothing tells how close an independent image would be")
    nearest, distance = by_patient(near.synthetic, near.patients, _depth(is_train))
    return exchanged(_Closer(nearest, distance, is_train), is_train, exchanges=exchanges, seed=seed)


class _Closer:
    """The share as a function of who is a training patient, the lists of neighbours being the same for all."""

    def __init__(self, nearest: Ints, distance: Array, is_train: Bools) -> None:
        num_train, num_held = int(is_train.sum()), int((~is_train).sum())
        self.train_is_larger = num_train >= num_held
        self.none_drawn = _none_drawn(max(num_train, num_held), min(num_train, num_held), nearest.shape[1])
        self.nearest, self.rows = nearest, np.arange(len(nearest))
        self.first_equal, self.past_equal = _ties(distance)

    def __call__(self, is_train: Bools) -> float:
        larger = (is_train == self.train_is_larger)[self.nearest]
        passed = np.concatenate([np.zeros((len(larger), 1), dtype=np.int64), larger.cumsum(axis=1)], axis=1)
        place = larger.argmin(axis=1)  # of the nearest patient of the smaller set
        place[larger.all(axis=1)] = larger.shape[1] - 1
        nearer = passed[self.rows, self.first_equal[self.rows, place]]
        as_near = passed[self.rows, self.past_equal[self.rows, place]]
        smaller_wins = float((self.none_drawn[nearer] + self.none_drawn[as_near]).mean() / 2)
        return 1 - smaller_wins if self.train_is_larger else smaller_wins


def _ties(distance: Array) -> tuple[Ints, Ints]:
    """(N, K) places of the first of equal distances and of the first after them, along ascending rows."""
    places = np.broadcast_to(np.arange(distance.shape[1]), distance.shape)
    rises = np.diff(distance, axis=1, prepend=-1) > 0
    ends = np.diff(distance, axis=1, append=np.inf) > 0
    first = np.maximum.accumulate(np.where(rises, places, 0), axis=1)
    past = np.minimum.accumulate(np.where(ends, places, places[0, -1])[:, ::-1], axis=1)[:, ::-1] + 1
    return np.asarray(first, dtype=np.int64), np.asarray(past, dtype=np.int64)


def _none_drawn(larger: int, drawn: int, most: int) -> Array:
    """(most + 1,): probability that none of k named ones is among `drawn` of `larger`, for k = 0, 1 …"""
    left = larger - np.arange(most)
    steps = np.clip(left - drawn, 0, None) / np.clip(left, 1, None)
    return np.concatenate([[1.0], np.cumprod(steps)])


def _depth(is_train: Bools) -> int:
    """How many neighbours are looked at, so that the smaller set is nearly always among them."""
    smaller = min(int(is_train.sum()), int((~is_train).sum()))
    if smaller == 0:
        return min(2, len(is_train))
    absent = 1 - smaller / len(is_train)
    return min(len(is_train), int(np.ceil(np.log(_UNSEEN) / np.log(absent))))


# --- near copies ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Hits:
    """Synthetic images nearer to one real patient than real patients are to one another.

    Args:
        near: (N,) whether each is: its distance to the nearest patient, and the ratio of that to its distance to the
            second nearest, are both small. Small is below what 1 % of the real images have to other patients, or below
            half the median if that is more, as it is where some patients have a twin in the set.
        stark: (N,) whether both are below half of the smallest that any real image has.
        patient: (N,) number of the nearest patient.
        distance: (N,) to it.
        ratio: (N,) of the distances to it and to the second nearest patient.
        below: the distance and the ratio below which an image is near.
        usual: share (0..1) of the real images that are as near to another patient.
    """

    near: Bools
    stark: Bools
    patient: Ints
    distance: Array
    ratio: Array
    below: tuple[float, float]
    usual: float


def hits(near: Nearness) -> Hits:
    """Which synthetic images may be copies of a real patient's, training or held out.

    Of independent images as many are as of real ones, which is less than 1 % where all patients differ. Real images
    that equal another patient's count for no limit.

    Raises:
        InputError: if the real images are of fewer than three patients.
    """
    if near.patients.max() < 2:
        raise InputError("how close real patients are to one another is told by three patients or more")
    patient, distance = by_patient(near.synthetic, near.patients, 2)
    _, real = by_patient(near.real, near.patients, 2, own=near.patients)
    ratio, real_ratio = _ratio(distance), _ratio(real)
    differ = real[:, 0] > 0
    below = _small(real[differ, 0]), _small(real_ratio[differ])
    stark = _smallest(real[differ, 0]), _smallest(real_ratio[differ])
    return Hits(
        near=(distance[:, 0] < below[0]) & (ratio < below[1]),
        stark=(distance[:, 0] < stark[0]) & (ratio < stark[1]),
        patient=patient[:, 0],
        distance=distance[:, 0],
        ratio=ratio,
        below=below,
        usual=float(((real[:, 0] < below[0]) & (real_ratio < below[1])).mean()),
    )


def _small(values: Array) -> float:
    if not len(values):
        return 0.0
    return max(float(np.quantile(values, QUANTILE, method="lower")), CLOSE * float(np.median(values)))


def _smallest(values: Array) -> float:
    return STARK * float(values.min()) if len(values) else 0.0


@dataclass(frozen=True)
class Copies:
    """How many synthetic images are hits, and of whom.

    Args:
        of_train: number of hits of a training patient.
        of_holdout: number of hits of a held-out patient, none of which is a copy.
        stark: number of stark hits of a training patient.
        chance: of at least as many hits of training patients, were the images independent. How many are usual is known
            from P real patients alone: if k of them are as near to another one, then the number of hits of N
            independent images is beta-binomial (N, k + 1, P − k).
        excess: share (0..1) of the synthetic images that hit a training patient, beyond what as many held-out patients
            are hit; None without held-out patients.
    """

    of_train: int
    of_holdout: int
    stark: int
    chance: float
    excess: Exchanged | None


def copies(near: Nearness, found: Hits, *, exchanges: int = EXCHANGES, seed: int = 0) -> Copies:
    """Near copies of training patients, beside those of held-out patients, which cannot be copies."""
    is_train = near.is_train
    hit, weight = found.patient[found.near], is_train.sum() / max(1, (~is_train).sum())

    def excess(named: Bools) -> float:
        of_train = int(named[hit].sum())
        return float((of_train - weight * (len(hit) - of_train)) / len(found.near))

    of_train = is_train[found.patient]
    return Copies(
        of_train=int((found.near & of_train).sum()),
        of_holdout=int((found.near & ~of_train).sum()),
        stark=int((found.stark & of_train).sum()),
        chance=_chance_of_hits(int((found.near & of_train).sum()), found, len(is_train)),
        excess=None if is_train.all() else exchanged(excess, is_train, exchanges=exchanges, seed=seed),
    )


def _chance_of_hits(count: int, found: Hits, patients: int) -> float:
    from scipy.stats import betabinom

    usual = min(patients - 1, math.ceil(found.usual * patients - 1e-9))
    return float(betabinom.sf(count - 1, len(found.near), usual + 1, patients - usual))


# --- numbers that the literature gives, each beside the held-out images' ---------------------------------------------


@dataclass(frozen=True)
class Beside:
    """A number of the synthetic images beside the same of held-out images (None without any)."""

    synthetic: float
    holdout: float | None


def distance_ratio(near: Nearness) -> Beside:
    """Median ratio (0..1) of distances to the nearest and second nearest training patient; near 0 for copies."""
    return _beside(near, lambda rows: float(np.median(_ratio(by_patient(rows, _train_patients(near), 2)[1]))))


def share_below(near: Nearness) -> Beside:
    """Share (0..1) nearer to training than 1 % of training images are to other training patients; about 0.01 if real.

    A dull generator exceeds it as a copier does; only the held-out patients tell which it is.
    """
    own = _train_patients(near)
    _, among = by_patient(near.real[: near.num_train, : near.num_train], own, 1, own=own)
    limit = np.quantile(among[:, 0], QUANTILE)
    return _beside(near, lambda rows: float((rows.min(axis=1) < limit).mean()))


def authenticity(near: Nearness) -> Beside:
    """Share (0..1) farther from their nearest training image than that is from other training patients; about 0.5.

    Source:
        Alaa et al. 2022, arXiv:2102.08921, §3.3, with "another image" read as one of another patient.
    """
    own = _train_patients(near)
    _, among = by_patient(near.real[: near.num_train, : near.num_train], own, 1, own=own)

    def authentic(rows: Array) -> float:
        nearest = rows.argmin(axis=1)
        return float((rows.min(axis=1) >= among[nearest, 0]).mean())

    return _beside(near, authentic)


def _beside(near: Nearness, number: Callable[[Array], float]) -> Beside:
    held = near.real[near.num_train :, : near.num_train]
    return Beside(number(near.synthetic[:, : near.num_train]), number(held) if len(held) else None)


def _train_patients(near: Nearness) -> Ints:
    return near.patients[: near.num_train]


# --- effective number -------------------------------------------------------------------------------------------------


def effective_number(near: Nearness, found: Hits, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """How many fresh real images the synthetic ones are worth, as far as covering real images goes.

    1. Near copies of training patients are left out, and so is each synthetic image that is as near to one kept before
       it as near copies are to a patient. m are left.
    2. They are pooled with the n reference images: those held out, or those of training where none is. Each image
       seeks its nearest of the pool, a real one among other patients. Pairs that are each other's nearest are kept:
       a real images are paired with a synthetic one, b with a real one.
    3. Were the m fresh real images, the partner would be one of them with probability m / (m + n − 1), whatever the
       features and the distribution: the expected coverage of one neighbour, of mutual pairs alone. Solved for m this
       is the number: (n − 1)·a / b, at most m.

    Coverage of one side alone would be deceived: a single mean image is nearer to most real images than they are to
    one another. The interval is from resampling the reference patients.

    Args:
        near: distances.
        found: which synthetic images are near to a patient.
        resamples: how many.
        seed: of the resampling.

    Source:
        Naeem et al. 2020, arXiv:2002.09797, eq. 7 with k = 1, solved for the number of images.
    """
    reference = slice(near.num_train, None) if near.num_train < len(near.real) else slice(None)
    owners, real = near.patients[reference], near.real[reference, reference]
    apart = _other_patients(real, owners)
    kept = _distinct(near.among, ~(found.near & near.is_train[found.patient]), found.below[0])
    if not len(kept):
        return Interval(0.0, 0.0, 0.0)
    with_synthetic, with_real = _partners(apart, near.synthetic[kept, reference].T, near.among[np.ix_(kept, kept)])
    others = float(np.isfinite(apart).sum(axis=1).mean())
    weight = np.concatenate([np.ones((1, len(real))), _resampled(owners, resamples, np.random.default_rng(seed))])
    a, b = weight @ with_synthetic, weight @ with_real
    worth = np.minimum(np.divide(others * a, b, out=np.where(a > 0, np.inf, 0.0), where=b > 0), len(kept))
    low, high = np.quantile(worth[1:], [0.025, 0.975])
    return Interval(float(worth[0]), float(low), float(high))


def _distinct(among: Array, eligible: Bools, closest: float) -> Ints:
    """Places of eligible images of which none is nearer to one before it than `closest`."""
    kept: list[int] = []
    for place in np.flatnonzero(eligible):
        if not (among[place, kept] < closest).any():
            kept.append(int(place))
    return np.array(kept, dtype=np.int64)


def _partners(real: Array, between: Array, among: Array) -> tuple[Array, Array]:
    """(n,) whether each real image is in a mutual pair with a synthetic one, and with a real one."""
    among = among.copy()
    np.fill_diagonal(among, np.inf)
    pool = np.block([[real, between], [between.T, among]])
    nearest = pool.argmin(axis=1)
    mutual = (nearest[nearest] == np.arange(len(pool)))[: len(real)]
    synthetic = nearest[: len(real)] >= len(real)
    return (mutual & synthetic).astype(np.float64), (mutual & ~synthetic).astype(np.float64)


def _resampled(owners: Ints, resamples: int, rng: np.random.Generator) -> Array:
    _, owner = np.unique(owners, return_inverse=True)
    count = int(owner.max()) + 1
    return np.asarray(rng.multinomial(count, np.full(count, 1 / count), size=resamples)[:, owner], dtype=np.float64)


def _other_patients(real: Array, owners: Ints) -> Array:
    """Distances to images of other patients; those to a patient's own images are infinite."""
    return np.where(owners[:, None] == owners[None, :], np.inf, real)


def _ratio(distance: Array) -> Array:
    """(N,) of the first to the second column; 1 where both are 0."""
    return np.asarray(np.divide(distance[:, 0], distance[:, 1], out=np.ones(len(distance)), where=distance[:, 1] > 0))
