"""What can be audited, and what an audit would say nothing of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from medgan.augment.likeness import FEWEST_IMAGES, FEWEST_PATIENTS, smallest_half
from medgan.errors import InputError
from medgan.imageset import ImageSet
from medgan.metrics.features import Array

__all__ = ["CriticScores", "refuse_unfit"]


@dataclass(frozen=True, eq=False)
class CriticScores:
    """What the discriminator of a run says of real images, higher for more real: one number an image.

    Args:
        train: of the training images, in their order.
        holdout: of those held out.
    """

    train: Array
    holdout: Array


def refuse_unfit(
    train: ImageSet, synthetic: ImageSet, holdout: ImageSet | None, critic: CriticScores | None, within: str | None
) -> None:
    """Refuse sets of which an audit could say nothing; the arguments are those of `audit`.

    Raises:
        InputError: if sizes differ, a value is not finite, a patient is in both training and held-out images, there
            are too few images or patients, or a condition is not known.
    """
    for name, images in (("training", train), ("synthetic", synthetic), ("held-out", holdout)):
        if images is not None:
            _check_images(name, images, train)
    if len(set(train.patients)) < FEWEST_PATIENTS or min(smallest_half(train), len(synthetic)) < FEWEST_IMAGES:
        raise InputError(
            f"{len(train)} training images of {len(set(train.patients))} patients and {len(synthetic)} synthetic ones "
            f"are too few for an audit (accepted: {FEWEST_PATIENTS} patients and {2 * FEWEST_IMAGES} images, "
            f"{FEWEST_IMAGES} synthetic ones)"
        )
    if holdout is not None:
        _check_holdout(train, holdout)
    _check_critic(train, holdout, critic)
    if within is not None and not (within in train.conditions and within in synthetic.conditions):
        raise InputError(f"condition {within!r} is not known of both sets (training: {_known(train)})")


def _check_images(name: str, images: ImageSet, train: ImageSet) -> None:
    if images.x.shape[1:] != train.x.shape[1:]:
        seen, wanted = (tuple(one.x.shape[1:]) for one in (images, train))
        raise InputError(f"{name} images are of {seen}, training images of {wanted}; an audit is of one size")
    if not bool(torch.isfinite(images.x).all()):
        raise InputError(f"{name} images hold values that are not finite; remove those images")


def _check_holdout(train: ImageSet, holdout: ImageSet) -> None:
    both = sorted(set(train.patients) & set(holdout.patients))
    if both:
        raise InputError(
            f"{len(both)} patients are both in training and held out ({', '.join(both[:3])}); hold out patients whom "
            "the generator has not seen"
        )
    if len(set(holdout.patients)) < 2:
        raise InputError("held-out images of a single patient tell nothing; hold out two patients or more, or none")


def _check_critic(train: ImageSet, holdout: ImageSet | None, critic: CriticScores | None) -> None:
    if critic is None:
        return
    if holdout is None:
        raise InputError("scores of a critic tell members from others only beside held-out images; give some")
    if len(critic.train) != len(train) or len(critic.holdout) != len(holdout):
        raise InputError(
            f"{len(critic.train)} and {len(critic.holdout)} scores of a critic for {len(train)} training and "
            f"{len(holdout)} held-out images; give one for each"
        )
    if not (np.isfinite(critic.train).all() and np.isfinite(critic.holdout).all()):
        raise InputError("scores of the critic are not all finite; use those of an earlier step of the run")


def _known(images: ImageSet) -> str:
    return ", ".join(images.conditions) or "none"
