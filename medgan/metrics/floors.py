"""What real images score: every number of a set beside the same number between real images of different patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError

__all__ = ["Floored", "against_real", "against_test", "gap_closed", "patient_halves"]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


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
    fake_patients: Sequence[str] | None = None,
    splits: int = 10,
    seed: int = 0,
) -> dict[str, Floored]:
    """Scores of a set, each beside that of real images.

    In each split the patients fall into two random halves A and B. The floor is `score(A, B)`, the value is
    `score(A, F)`, where F and B have as many images, drawn at random from the larger, of as many patients as far as
    that goes. So both are off by the same where a score hangs on the number of images, as Fréchet distance does.

    Args:
        score: of (N, d) real and (M, d) other features.
        real: (N, d).
        fake: (M, d).
        patients: whose each real image is.
        fake_patients: what fake images belong together; each is of its own if not given.
        splits: how many.
        seed: of the splits.

    Raises:
        InputError: if there is but one patient, or the score cannot be had of so few.
    """
    rng, owners = np.random.default_rng(seed), (_numbered(patients, len(real)), _numbered(fake_patients, len(fake)))
    found: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(splits):
        a, b = patient_halves(patients, rng)
        kept, f = _as_many(owners[0][b], owners[1], rng)
        found.append((score(real[a], fake[f]), score(real[a], real[b[kept]])))
    return {name: _floored(*([pair[side][name] for pair in found] for side in (0, 1))) for name in found[0][0]}


def against_test(
    score: Callable[[Array, Array], dict[str, float]],
    real: Array,
    fake: Array,
    test: Array,
    *,
    fake_patients: Sequence[str] | None = None,
    test_patients: Sequence[str] | None = None,
    splits: int = 10,
    seed: int = 0,
) -> dict[str, Floored]:
    """Scores of a set, each beside that of real images of other patients, such as those of another hospital.

    The floor is `score(real, T)`, the value is `score(real, F)`, where T and F have as many images, drawn at random
    from the larger set, of as many patients as far as that goes, anew in each split.

    Args:
        score: of (N, d) real and (M, d) other features.
        real: (N, d).
        fake: (M, d).
        test: (K, d), real images of patients that are not in `real`.
        fake_patients: what fake images belong together; each is of its own if not given.
        test_patients: likewise.
        splits: how many.
        seed: of what is drawn.
    """
    rng = np.random.default_rng(seed)
    owners = _numbered(fake_patients, len(fake)), _numbered(test_patients, len(test))
    found: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(splits):
        f, t = _as_many(*owners, rng)
        found.append((score(real, fake[f]), score(real, test[t])))
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


def _floored(values: list[float], floors: list[float]) -> Floored:
    value, floor = float(np.median(values)), float(np.median(floors))
    return Floored(value, min(values), max(values), floor, min(floors), max(floors))


def _numbered(patients: Sequence[str] | None, count: int) -> Ints:
    """(N,): numbers from 0 of whose each image is."""
    return np.arange(count) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]


def _as_many(first: Ints, second: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Places in two sets of as many images, of as many patients as far as these have enough."""
    count, num_patients = min(len(first), len(second)), min(len(np.unique(first)), len(np.unique(second)))
    return _drawn(first, count, num_patients, rng), _drawn(second, count, num_patients, rng)


def _drawn(owners: Ints, count: int, num_patients: int, rng: np.random.Generator) -> Ints:
    """Places of as many images of each of so many patients, or of as many more as it takes to have enough images."""
    _, owner, sizes = np.unique(owners, return_inverse=True, return_counts=True)
    place = rng.permutation(len(owner))
    if len(sizes) == len(owner):
        return place[:count]
    order = rng.permutation(len(sizes))
    enough = max(num_patients, int(np.searchsorted(sizes[order].cumsum(), count)) + 1)
    others = np.argsort(order)[owner[place]] >= enough
    return place[np.lexsort((_turn(owner[place]), others))][:count]


def _turn(owner: Ints) -> Ints:
    """(N,): 0 for the first image of each owner, 1 for its second."""
    order = np.argsort(owner, kind="stable")
    starts = np.cumsum(np.bincount(owner)) - np.bincount(owner)
    turn = np.empty_like(order)
    turn[order] = np.arange(len(owner)) - starts[owner[order]]
    return turn
