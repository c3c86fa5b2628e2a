"""What a difference between two ways of training is worth: scores under weights, a paired bootstrap.

Every score is a function of weights of the test images: a draw of the bootstrap is a row of weights, and a thousand of
them are scored in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["Difference", "auc", "macro_auc", "paired_difference", "patient_draws", "recalls"]

Floats = npt.NDArray[np.float64]
NOTHING = 1e-18  # a variance that rounding alone makes


def auc(scores: npt.ArrayLike, positive: npt.ArrayLike, weights: Floats | None = None) -> Floats:
    """(B,) area under the ROC curve under each row of weights: how often a positive scores above a negative.

    Ties count half, as in the rank-sum statistic.

    Args:
        scores: (N,) higher for the positive.
        positive: (N,) whether each is one.
        weights: (B, N) how often each is counted; one row of ones if None.

    Source:
        Hanley & McNeil 1982, "The meaning and use of the area under a ROC curve", Radiology 143.

    Example:
        >>> auc([0.1, 0.4, 0.4, 0.8], [False, False, True, True]).tolist()  # 3.5 of 4 pairs
        [0.875]
    """
    values, true = np.asarray(scores, float), np.asarray(positive, bool)
    counts = np.ones((1, len(values))) if weights is None else weights
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)  # of groups of equal scores
    ones = np.add.reduceat((counts * true)[:, order], starts, axis=1)
    noughts = np.add.reduceat((counts * ~true)[:, order], starts, axis=1)
    below = noughts.cumsum(axis=1) - noughts / 2
    return np.asarray((ones * below).sum(axis=1) / (ones.sum(axis=1) * noughts.sum(axis=1)))


def macro_auc(logits: npt.ArrayLike, labels: npt.ArrayLike, weights: Floats | None = None) -> Floats:
    """(B,) of two classes the AUC; of more the mean AUC of each class against the rest.

    Args:
        logits: (N, K) logarithms of the probabilities of K classes, up to a constant an image.
        labels: (N,) class of each image, from 0; each class comes up under every row of weights.
        weights: (B, N); one row of ones if None.
    """
    values, true = np.asarray(logits, float), np.asarray(labels)
    if values.shape[1] == 2:
        return auc(values[:, 1] - values[:, 0], true == 1, weights)
    odds = _log_odds(values)
    return np.asarray(np.mean([auc(odds[:, k], true == k, weights) for k in range(values.shape[1])], axis=0))


def recalls(logits: npt.ArrayLike, labels: npt.ArrayLike, weights: Floats | None = None) -> Floats:
    """(B, K) share of the images of each class for which that class is the likeliest; their mean is balanced accuracy.

    Args:
        logits: (N, K).
        labels: (N,) class of each image, from 0.
        weights: (B, N); one row of ones if None.

    Example:
        >>> recalls([[1, 0], [0, 1], [0, 1]], [0, 0, 1]).tolist()
        [[0.5, 1.0]]
    """
    values, true = np.asarray(logits, float), np.asarray(labels)
    counts = np.ones((1, len(values))) if weights is None else weights
    right = values.argmax(axis=1) == true
    classes = [true == k for k in range(values.shape[1])]
    return np.stack([(counts * (own & right)).sum(axis=1) / (counts * own).sum(axis=1) for own in classes], axis=1)


def patient_draws(patients: Sequence[str], *, num: int, seed: int = 0) -> Floats:
    """(1 + num, N) weights of N images: all ones, then weights drawn at random for each patient.

    Patients are weighted rather than drawn with replacement, so that no class is ever missing; a patient comes with all
    images.

    Args:
        patients: (N,) whose each image is; three or more.
        num: of draws.
        seed: of the draws.

    Source:
        Rubin 1981, "The Bayesian bootstrap", Ann. Statist. 9.
    """
    names, owner = np.unique(np.array(patients), return_inverse=True)
    count = len(names)
    # A mean varies under weights of Dirichlet(α, …, α) by Σ(x − mean)² / count / (count α + 1): unbiased for this α.
    drawn = np.random.default_rng(seed).dirichlet(np.full(count, (count - 2) / count), num)
    return np.concatenate([np.ones((1, len(owner))), count * drawn[:, owner]])


@dataclass(frozen=True)
class Difference:
    """A mean difference, its 95 % interval, and the two-sided p-value of there being none.

    Args:
        mean: over seeds, on the whole test set.
        low: lower end of the interval.
        high: upper end.
        p: probability of so large a difference, either way, if there is none.
    """

    mean: float
    low: float
    high: float
    p: float


def paired_difference(a: Floats, b: Floats, *, num_patients: int) -> Difference:
    """How much better a scores than b on average, over patients and seeds at once.

    Seeds stand to patients as readers to cases in a reading study. The variance of the mean difference has three
    parts: σ²_s / S of the seeds, σ²_p / P of the patients and σ²_sp / (S P) of both at once. The spread over seeds
    holds the first and third, the bootstrap over patients of the mean the second and third; the third, held twice, is
    found by the bootstrap of single seeds. The interval is mean ± t √variance, where t has the degrees of freedom of
    Satterthwaite, few if seeds differ more than patients.

    Args:
        a: (S, 1 + B) scores of S seeds on the whole test set and under B draws of `patient_draws`.
        b: the same of the other, seeds and draws in the same order.
        num_patients: in the test set.

    Source:
        Obuchowski & Rockette 1995, "Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests",
        Commun. Stat. Simul. Comput. 24; Satterthwaite 1946, Biometrics Bulletin 2.

    Example:
        >>> a = np.array([[0.9, 0.8, 1.0], [0.8, 0.7, 0.9]])
        >>> paired_difference(a, a, num_patients=9)
        Difference(mean=0.0, low=0.0, high=0.0, p=1.0)
    """
    whole, draws = (a - b)[:, 0], (a - b)[:, 1:]
    seeds, mean = len(whole), float(whole.mean())
    of_seeds = float(whole.var(ddof=1)) / seeds
    of_patients = float(draws.mean(axis=0).var(ddof=1))
    of_both = max(float(draws.var(axis=1, ddof=1).mean()) - of_patients, 0) / (seeds - 1)
    total = max(of_seeds + of_patients - of_both, of_seeds, of_patients)
    if total < NOTHING:
        return Difference(mean, mean, mean, 1.0 if abs(mean) < np.sqrt(NOTHING) else 0.0)
    freedom = total**2 / (of_seeds**2 / (seeds - 1) + (total - of_seeds) ** 2 / (num_patients - 1))
    error = float(np.sqrt(total))
    reach = float(stats.t.ppf(0.975, freedom)) * error
    return Difference(mean, mean - reach, mean + reach, float(2 * stats.t.sf(abs(mean) / error, freedom)))


def _log_odds(logits: Floats) -> Floats:
    """Of each class against all others, which ranks as its probability does without running into 1."""
    rest = [np.logaddexp.reduce(np.delete(logits, k, axis=1), axis=1) for k in range(logits.shape[1])]
    return np.asarray(logits - np.stack(rest, axis=1))
