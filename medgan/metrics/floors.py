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


def against_test(
    score: Callable[[Array, Array], dict[str, float]],
    real: Array,
    fake: Array,
    test: Array,
    *,
    splits: int = 10,
    seed: int = 0,
) -> dict[str, Floored]:
    """Scores of a set, each beside that of real images of other patients, such as those of another hospital.

    The floor is `score(real, T)`, the value is `score(real, F)`, where T and F have as many images, drawn at random
    from the larger set, anew in each split.

    Args:
        score: of (N, d) real and (M, d) other features.
        real: (N, d).
        fake: (M, d).
        test: (K, d), real images of patients that are not in `real`.
        splits: how many.
        seed: of what is drawn.
    """
    rng, count = np.random.default_rng(seed), min(len(fake), len(test))
    found: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(splits):
        f, t = (rng.permutation(len(rows))[:count] for rows in (fake, test))
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
