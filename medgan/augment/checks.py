"""What a study of utility refuses: sets that know the test set, or that do not fit one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from medgan.augment.tasks import Classification, Task
from medgan.errors import InputError
from medgan.imageset import ImageSet

__all__ = ["Sets", "refuse_leaks", "refuse_unfit"]

LEAST_PATIENTS = 3
MOST_NAMED = 5


class Sets(NamedTuple):
    """The images of a study: real ones to train on, synthetic ones, and real ones of other patients to test on."""

    train: ImageSet
    synthetic: ImageSet
    test: ImageSet


def refuse_leaks(sets: Sets) -> None:
    """Refuse a test set of which a patient, or an image, is among those that are trained on.

    Images of one value throughout are left aside: empty slices are alike in all patients.

    Raises:
        InputError: naming it.
    """
    test = sets.test
    for name, images in {"training": sets.train, "synthetic": sets.synthetic}.items():
        if shared := sorted(set(images.patients) & set(test.patients)):
            raise InputError(
                f"patient {shared[0]} is in the {name} images and in the test set ({len(shared)} are); split by patient"
            )
        theirs = {key: place for place, key in enumerate(_keys(images)) if key}
        twins = [(place, theirs[key]) for place, key in enumerate(_keys(test)) if key in theirs]
        if twins:
            told = ", ".join(f"{test.names[own]} and {images.names[other]}" for own, other in twins[:MOST_NAMED])
            raise InputError(
                f"{len(twins)} images of the test set are among the {name} images as well: {told}"
                f"{' …' * (len(twins) > MOST_NAMED)}; leave them out of one"
            )


def refuse_unfit(sets: Sets, task: Task, *, alone: bool) -> None:
    """Refuse sets of which nothing can be learnt, or that differ in size.

    Args:
        sets: of the study.
        task: settled on the training set.
        alone: whether the synthetic images are used alone, so that each class must be among them.

    Raises:
        InputError: naming the set and what it lacks.
    """
    wanted = tuple(sets.train.x.shape[1:])
    for name, images in sets._asdict().items():
        if (seen := tuple(images.x.shape[1:])) != wanted:
            raise InputError(f"{name}: has images of {seen}, the training images are of {wanted}; give one size")
        if len(images) < 2:
            raise InputError(f"{name}: has {len(images)} images; give two or more")
        if not torch.isfinite(images.x).all():
            raise InputError(f"{name}: holds values that are not finite; leave such images out")
    if (num := len(set(sets.test.patients))) < LEAST_PATIENTS:
        raise InputError(f"test: has {num} patients; intervals need {LEAST_PATIENTS} or more")
    if isinstance(task, Classification):
        _refuse_missing(task, sets.synthetic, sets.test, alone)


def _refuse_missing(task: Classification, synthetic: ImageSet, test: ImageSet, alone: bool) -> None:
    held, labels = set(task.labels(synthetic)), task.labels(test)
    for name in task.classes:
        if alone and name not in held:
            raise InputError(
                f"synthetic: has no image of the class {name!r}; sample some, or leave out the arms synthetic and TRTS"
            )
        owners = {patient for patient, label in zip(test.patients, labels, strict=True) if label == name}
        if len(owners) < 2:
            raise InputError(f"test: has {len(owners)} patients of the class {name!r}; every class needs two or more")


def _keys(images: ImageSet) -> Sequence[bytes]:
    """The bytes of each image, none if it is of one value."""
    return [x.numpy().tobytes() if x.max() > x.min() else b"" for x in images.x]
