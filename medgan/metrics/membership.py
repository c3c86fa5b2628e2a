"""Whether scores of real images tell who was in the training set: membership inference, with its control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError
from medgan.metrics.distribution import Interval, kernel, patient_halves
from medgan.metrics.memorisation import Exchanged, exchanged

__all__ = ["Membership", "area_under_curve", "membership", "split_difference", "true_positive_rate"]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
FALSE_POSITIVE_RATE = 0.01
RESAMPLES = 500
SPLITS = 200


@dataclass(frozen=True)
class Membership:
    """How well an attacker does who calls images of high score members.

    Args:
        auc: area under the curve of members against others, 0.5 if nothing is told; by resampling patients.
        exchanged: the same, against patients exchanged between members and others.
        tpr: share (0..1) of members found at 1 % of false alarms, 0.01 if nothing is told; by resampling patients.
        control: what the attack makes of two random halves of the *members*: the mean over splits of the larger of
            AUC and 1 − AUC. This much is chance and the choice of the split.
        difference: `auc` less the control.
    """

    auc: Interval
    exchanged: Exchanged
    tpr: Interval
    control: float
    difference: float


def membership(
    members: Array, others: Array, member_patients: Sequence[str], other_patients: Sequence[str], *, seed: int = 0
) -> Membership:
    """Membership inference by a score that is to be higher for members.

    Against samples the score of a candidate is minus its distance to the nearest sample; against a critic it is the
    critic's.

    Args:
        members: (N,) scores of training images.
        others: (M,) scores of real images that were not seen in training.
        member_patients: whose each training image is.
        other_patients: whose each other image is.
        seed: of resampling, exchanges and halves.

    Raises:
        InputError: if there are fewer than two patients on a side, or lengths differ.

    Source:
        Chen et al. 2020, "GAN-Leaks", arXiv:1909.03935, eq. 4 (full black box); Hayes et al. 2019, "LOGAN",
        arXiv:1705.07663 (critic). The rate at few false alarms: Carlini et al. 2022, arXiv:2112.03570.

    Example:
        >>> found = membership(np.arange(9.0) + 0.5, np.arange(9.0), list("abcdefghi"), list("jklmnopqr"))
        >>> round(found.auc.value, 3)  # 45 of 81 pairs
        0.556
    """
    from scipy.stats import rankdata

    if len(members) != len(member_patients) or len(others) != len(other_patients):
        raise InputError("membership is told of as many scores as there are images, members and others each")
    if min(len(set(member_patients)), len(set(other_patients))) < 2:
        raise InputError("membership is told of two patients or more among the members, and among the others")
    names, owner = np.unique(np.asarray([*member_patients, *other_patients]), return_inverse=True)
    is_member = np.isin(names, np.asarray(member_patients))
    ranks = rankdata(np.concatenate([members, others]))
    rng = np.random.default_rng(seed)
    drawn = zip(_resamples(member_patients, rng), _resamples(other_patients, rng), strict=True)
    resampled = [(members[m], others[o]) for m, o in drawn]
    control = float(np.mean([_of_halves(members, member_patients, rng) for _ in range(SPLITS)]))
    auc = area_under_curve(members, others)
    return Membership(
        auc=_interval(auc, [area_under_curve(*scores) for scores in resampled]),
        exchanged=exchanged(lambda named: _from_ranks(ranks, named[owner]), is_member, seed=seed),
        tpr=_interval(true_positive_rate(members, others), [true_positive_rate(*scores) for scores in resampled]),
        control=control,
        difference=auc - control,
    )


def area_under_curve(positive: Array, negative: Array) -> float:
    """Probability that a positive scores higher than a negative, ties counted half.

    Example:
        >>> area_under_curve(np.array([1.0, 3.0]), np.array([0.0, 1.0]))
        0.875
    """
    ordered = np.sort(negative)
    below, not_above = (np.searchsorted(ordered, positive, side=side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(negative)))


def _from_ranks(ranks: Array, positive: npt.NDArray[np.bool_]) -> float:
    """Mann and Whitney's U over the number of pairs."""
    count = int(positive.sum())
    return float((ranks[positive].mean() - (count + 1) / 2) / (len(ranks) - count))


def true_positive_rate(positive: Array, negative: Array, rate: float = FALSE_POSITIVE_RATE) -> float:
    """Share (0..1) of positives above the lowest threshold that no more than `rate` of the negatives exceed.

    With fewer than 1/rate negatives the threshold is the highest of them.

    Example:
        >>> true_positive_rate(np.array([1.0, 5.0]), np.arange(4.0), rate=0.25)
        0.5
    """
    allowed = int(np.floor(rate * len(negative) + 1e-9))
    return float((positive > np.sort(negative)[len(negative) - 1 - allowed]).mean())


def _of_halves(scores: Array, patients: Sequence[str], rng: np.random.Generator) -> float:
    a, b = patient_halves(patients, rng)
    found = area_under_curve(scores[a], scores[b])
    return max(found, 1 - found)


def _resamples(patients: Sequence[str], rng: np.random.Generator) -> Iterator[Ints]:
    """Places of all images of patients drawn with replacement, many times over."""
    _, owner = np.unique(np.asarray(patients), return_inverse=True)
    count = int(owner.max()) + 1
    for times in rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES):
        yield np.repeat(np.arange(len(owner)), times[owner])


def _interval(value: float, resampled: list[float]) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def split_difference(features: Array, patients: Ints, is_train: npt.NDArray[np.bool_], *, seed: int = 0) -> Exchanged:
    """Kernel distance of training and held-out images, against patients exchanged between them.

    A low p says that the two were not split at random, but by scanner, site or time. Then what is closer to training
    images, or tells them apart, need not be memory.

    Args:
        features: (R, d) of the real images, of about unit variance.
        patients: (R,) number of each image's patient.
        is_train: (P,) whether each patient is a training patient.
        seed: of the exchanges.
    """
    block = kernel(features, features)
    np.fill_diagonal(block, 0)

    def distance(named: npt.NDArray[np.bool_]) -> float:
        train, held = named[patients].astype(np.float64), (~named[patients]).astype(np.float64)
        toward = block @ np.stack([train, held], axis=1)
        n, m = train.sum(), held.sum()
        within = train @ toward[:, 0] / (n * (n - 1)) + held @ toward[:, 1] / (m * (m - 1))
        return float(within - 2 * (held @ toward[:, 0]) / (n * m))

    return exchanged(distance, is_train, exchanges=499, seed=seed)
