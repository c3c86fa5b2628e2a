"""How near synthetic images are to real ones: what memory is told by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Nearness", "by_patient"]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Nearness:
    """Distances of synthetic and real images in one space; real images are those of training, then those held out.

    Args:
        space: what the distances are of.
        synthetic: (N, R) of each synthetic image to each real one.
        real: (R, R) among the real images.
        among: (N, N) among the synthetic images.
        patients: (R,) number of the patient whom each real image is of, 0 to P − 1, in the order of first images.
        num_train: how many of the real images are training images.
    """

    space: str
    synthetic: Array
    real: Array
    among: Array
    patients: Ints
    num_train: int

    @property
    def is_train(self) -> Bools:
        """(P,) whether each patient is a training patient."""
        found = np.zeros(int(self.patients.max()) + 1, dtype=bool)
        found[self.patients[: self.num_train]] = True
        return found


def by_patient(rows: Array, patients: Ints, depth: int, own: Ints | None = None) -> tuple[Ints, Array]:
    """(N, depth) numbers of the nearest patients, nearest first, and distances; never an image's `own` one."""
    order = np.argsort(patients, kind="stable")
    numbers, starts = np.unique(patients[order], return_index=True)
    nearest = np.minimum.reduceat(rows[:, order], starts, axis=1)
    if own is not None:
        nearest[numbers[None, :] == own[:, None]] = np.inf
    chosen = np.argsort(nearest, axis=1, kind="stable")[:, :depth]
    return numbers[chosen], np.take_along_axis(nearest, chosen, axis=1)
