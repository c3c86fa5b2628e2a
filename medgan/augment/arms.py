"""The arms of a utility study: what each of them trains on, as random as its seed and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from medgan.augment.tasks import Task
from medgan.imageset import ImageSet

__all__ = ["ARMS", "Arm", "Job", "num_added", "training_set"]


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Args:
        name: of it.
        real: whether it trains on real images.
        added: what it trains on besides, or alone.
        classic: whether the images are changed at random.
        on_synthetic: whether it is tried on the synthetic images, and not on the test set.
    """

    name: str
    real: bool = True
    added: Literal["", "duplicates", "synthetic"] = ""
    classic: bool = False
    on_synthetic: bool = False

    @property
    def in_sweep(self) -> bool:
        """Whether it is run for each share of the real images."""
        return self.real and not self.on_synthetic

    @property
    def plain(self) -> str:
        """The arm which is the same but for what is added."""
        return "real+classic" if self.classic else "real"

    @property
    def duplicates(self) -> str:
        """The arm that adds as many real images again."""
        return f"{self.plain}+duplicates"


ARMS = {
    arm.name: arm
    for arm in (
        Arm("real"),
        Arm("real+classic", classic=True),
        Arm("real+duplicates", added="duplicates"),
        Arm("real+classic+duplicates", added="duplicates", classic=True),
        Arm("real+synthetic", added="synthetic"),
        Arm("real+classic+synthetic", added="synthetic", classic=True),
        Arm("synthetic", real=False, added="synthetic"),
        Arm("TRTS", on_synthetic=True),
    )
}


@dataclass(frozen=True)
class Job:
    """One training of a study.

    Args:
        arm: its name.
        ratio: images added for each real one; None where nothing is, or all synthetic images are.
        fraction: of the real patients; None where all of them train, or none.
        seed: of everything random.
    """

    arm: str
    ratio: float | None
    fraction: float | None
    seed: int


def num_added(num_real: int, ratio: float) -> int:
    """How many images a ratio adds; one at least."""
    return max(1, round(ratio * num_real))


def training_set(job: Job, train: ImageSet, synthetic: ImageSet, task: Task) -> ImageSet:
    """What a job trains on.

    Of the real patients of each kind a share is chosen, at least one, the same in every arm and for every ratio of a
    seed, and a part of those of a larger share. Synthetic images are chosen at random, the same with classic
    augmentation and without. Duplicates are real images again, as many of each kind as the synthetic images would be.
    """
    arm = ARMS[job.arm]
    if not arm.real:
        return synthetic
    real = train if job.fraction is None else _share(train, task.kinds(train), job.fraction, job.seed)
    if job.ratio is None:
        return real
    order = np.random.default_rng([job.seed, 2]).permutation(len(synthetic))
    added = synthetic.take(order[: num_added(len(real), job.ratio)])
    if arm.added == "duplicates":
        added = _again(real, task.kinds(real), task.kinds(added), job.seed)
    return real.joined(replace(added, names=[f"added {name}" for name in added.names]))


def _share(train: ImageSet, kinds: Sequence[str], fraction: float, seed: int) -> ImageSet:
    held: dict[str, set[str]] = {}
    for patient, kind in zip(train.patients, kinds, strict=True):
        held.setdefault(patient, set()).add(kind)
    chosen: set[str] = set()
    for group in sorted({tuple(sorted(kinds)) for kinds in held.values()}):
        members = sorted(patient for patient, kinds in held.items() if tuple(sorted(kinds)) == group)
        order = np.random.default_rng([seed, 1]).permutation(len(members))
        count = max(1, round(fraction * len(members)))
        chosen |= {members[place] for place in order[:count]}
    return train.where([patient in chosen for patient in train.patients])


def _again(real: ImageSet, kinds: Sequence[str], wanted: Sequence[str], seed: int) -> ImageSet:
    """Real images of the wanted kinds, each as often as the others; of any kind where there are none of one."""
    order = np.random.default_rng([seed, 3]).permutation(len(real))
    places: list[int] = []
    for kind in sorted(set(wanted)):
        own = [int(place) for place in order if kinds[place] == kind] or [int(place) for place in order]
        places += [own[number % len(own)] for number in range(list(wanted).count(kind))]
    return ImageSet(
        real.x[places],
        [f"{number} {real.names[place]}" for number, place in enumerate(places)],
        [real.patients[place] for place in places],
        {name: [values[place] for place in places] for name, values in real.conditions.items()},
    )
