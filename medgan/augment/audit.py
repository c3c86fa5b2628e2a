"""Audit a set of synthetic images before it is shared or trained on: does it vary as real images do, and whom does it
show?"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medgan.augment.auditable import CriticScores, refuse_unfit
from medgan.augment.beside import beside
from medgan.augment.likeness import likeness_scores, scores_by_class
from medgan.augment.masks import mask_scores
from medgan.augment.reasons import (
    Level,
    Memory,
    Reason,
    differ,
    of_classes,
    of_critic,
    of_likeness,
    of_masks,
    of_memory,
    of_split,
    worst,
)
from medgan.errors import InputError
from medgan.imageset import ImageSet
from medgan.metrics.distribution import Floored
from medgan.metrics.features import Features, RandomConv
from medgan.metrics.membership import Membership, membership, split_difference
from medgan.metrics.memorisation import (
    Exchanged,
    Hits,
    authenticity,
    closer_to_train,
    copies,
    distance_ratio,
    effective_number,
    hits,
    share_below,
)
from medgan.metrics.nearness import Nearness
from medgan.metrics.reduction import Reduction
from medgan.metrics.spaces import correlation, in_features, in_pixels
from medgan.pictures import montage

__all__ = ["Audit", "CriticScores", "Pair", "audit", "near_copies", "pairs_picture"]

Array = npt.NDArray[Any]
SPLIT_COMPONENTS = 32  # of the features by which training and held-out images are compared
NUM_PAIRS = 16
LONGEST_SIDE = {2: 32, 3: 24}  # of images whose features are taken in every mirror image


@dataclass(frozen=True)
class Pair:
    """A synthetic image and the training image it is nearest to.

    Args:
        synthetic: its place in the set.
        train: the other's place in the training set. (A name would tell readers of the audit who it is.)
        distance: in pixels, see `medgan.metrics.nearness.in_pixels`.
        ratio: of the distances to its nearest and second nearest patient, held-out ones counted.
        correlation: of the images at full size, the training image mirrored as fits best.
    """

    synthetic: int
    train: int
    distance: float
    ratio: float
    correlation: float


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found about a set.

    Args:
        verdict: the gravest of the reasons. PASS says that nothing was found, never that nothing is there.
        reasons: everything that was looked at.
        counts: images and patients of each set.
        likeness: scores of the set beside those of real images, by name.
        classes: the same within each class; None where there are too few images to say.
        masks: scores of the masks that were made along, beside those of real masks; none without masks.
        memory: what each space of distances says about memory.
        critic: membership inference by the critic's scores, if they were given.
        split: how training and held-out images differ, if there are any held out.
        pairs: the nearest pairs, nearest first.
        near_copies: names of synthetic images that may be copies; those to drop.
        seed: of everything random in it.
    """

    verdict: Level
    reasons: tuple[Reason, ...]
    counts: Mapping[str, int]
    likeness: Mapping[str, Floored]
    classes: Mapping[str, Mapping[str, Floored] | None]
    masks: Mapping[str, Floored]
    memory: tuple[Memory, ...]
    critic: Membership | None
    split: Exchanged | None
    pairs: tuple[Pair, ...]
    near_copies: tuple[str, ...]
    seed: int

    def to_json(self) -> str:
        """All of it as JSON text; numbers that are not finite are null. It names no training image and no patient."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=2, ensure_ascii=False, allow_nan=False)


def audit(
    train: ImageSet,
    synthetic: ImageSet,
    holdout: ImageSet | None = None,
    *,
    features: Features | None = None,
    likeness: Features | None = None,
    critic: CriticScores | None = None,
    within: str | None = None,
    with_masks: bool = False,
    seed: int = 0,
) -> Audit:
    """Audit synthetic images against the real ones that their generator was trained on.

    Args:
        train: what the generator has seen, all of it.
        synthetic: what it made.
        holdout: real images of other patients, split off at random by patient and not seen by the generator. Without
            them no verdict is better than REVIEW.
        features: in which the sets are compared; `RandomConv` if not given. They are reduced to at most 32 principal
            axes of training images.
        likeness: in which near copies are sought, besides pixels; `RandomConv` of images brought to at most 32 voxels
            a side (24 in 3-D) if not given.
        critic: scores of the discriminator for training and held-out images.
        within: condition whose values are classes, such as `label`; diversity is then asked for in each of them.
        with_masks: whether the last channel of all images is a mask.
        seed: of splits, exchanges and resampling; the same seed gives the same audit.

    Raises:
        InputError: if sizes differ, a value is not finite, a patient is in both training and held-out images, there
            are too few images or patients to say anything, or a condition is not known.

    Source:
        The tests are those of `medgan.metrics.distribution`, `.memorisation` and `.membership`.
    """
    refuse_unfit(train, synthetic, holdout, critic, within)
    spaces = _spaces(train, synthetic, holdout, likeness)
    found = [hits(near) for near in spaces]
    memory = tuple(_memory(near, hit, _patients(train, holdout), seed) for near, hit in zip(spaces, found, strict=True))
    split = None if holdout is None else _split(train, holdout, features, seed)
    told = None if critic is None or holdout is None else _critic(critic, train, holdout, seed)
    scores = likeness_scores(train, synthetic, features or RandomConv(), seed)
    classes = {} if within is None else scores_by_class(train, synthetic, features or RandomConv(), within, seed)
    masks = mask_scores(train, synthetic, seed) if with_masks else {}
    reasons = (
        *of_memory(memory, images=len(synthetic), biased=differ(split), fewest_p=_fewest_p(spaces[0])),
        *of_split(split, _shared_images(train, holdout)),
        *of_critic(told),
        *of_likeness(scores),
        *of_classes(classes),
        *of_masks(masks),
    )
    return Audit(
        verdict=worst(reasons),
        reasons=reasons,
        counts=_counts(train, synthetic, holdout),
        likeness=scores,
        classes=classes,
        masks=masks,
        memory=memory,
        critic=told,
        split=split,
        pairs=_pairs(spaces[0], found[0], train, synthetic),
        near_copies=_named(synthetic, spaces, found),
        seed=seed,
    )


def near_copies(
    train: ImageSet, synthetic: ImageSet, holdout: ImageSet | None = None, *, likeness: Features | None = None
) -> tuple[str, ...]:
    """Names of the synthetic images that may be copies of a training patient's, in the order of the set.

    Of independent images as many are named as real images are as near to another patient, less than 1 % for each of the
    two spaces where all patients differ. The arguments are those of `audit`, and so
    are the names.

    Raises:
        InputError: as `audit`.
    """
    refuse_unfit(train, synthetic, holdout, None, None)
    spaces = _spaces(train, synthetic, holdout, likeness)
    return _named(synthetic, spaces, [hits(near) for near in spaces])


def pairs_picture(found: Audit, train: ImageSet, synthetic: ImageSet, *, count: int = 8) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: the nearest pairs, a row each, nearest on top.

    From left to right: the synthetic image, the training image mirrored as fits best, and their difference from blue
    (synthetic darker) to red, ±1 of the network's range at full colour. Of several channels the first, of a volume its
    middle slice; turned as axes that run right, anterior, superior are hung by radiologists. The middle column shows
    patients: the picture is for those who may see the training images.

    Args:
        found: the audit of these sets.
        train: its training set.
        synthetic: its synthetic set.
        count: number of rows at most.

    Raises:
        InputError: if the sets are not those of the audit.
    """
    if found.counts["train_images"] != len(train) or found.counts["synthetic_images"] != len(synthetic):
        raise InputError("the pairs of an audit are shown of the sets that it was made of")
    return np.asarray(montage([_row(synthetic.x[pair.synthetic], train.x[pair.train]) for pair in found.pairs[:count]]))


def _row(ours: Tensor, real: Tensor) -> list[Array]:
    return beside(ours, correlation(ours, real)[1])


# --- memory -----------------------------------------------------------------------------------------------------------


def _spaces(
    train: ImageSet, synthetic: ImageSet, holdout: ImageSet | None, likeness: Features | None
) -> tuple[Nearness, ...]:
    held, patients = None if holdout is None else holdout.x, _patients(train, holdout)
    features = likeness or RandomConv(longest_side=LONGEST_SIDE[train.x.ndim - 2])
    return (
        in_pixels(train.x, synthetic.x, held, patients),
        in_features(features, train.x, synthetic.x, held, patients),
    )


def _patients(train: ImageSet, holdout: ImageSet | None) -> list[str]:
    return [*train.patients, *(() if holdout is None else holdout.patients)]


def _memory(near: Nearness, found: Hits, patients: Sequence[str], seed: int) -> Memory:
    held = near.num_train < len(near.real)
    score = -near.synthetic.min(axis=0)
    train, others = score[: near.num_train], score[near.num_train :]
    owners = patients[: near.num_train], patients[near.num_train :]
    return Memory(
        space=near.space,
        closer_to_train=closer_to_train(near, seed=seed) if held else None,
        copies=copies(near, found, seed=seed),
        patients_hit=len(np.unique(found.patient[_of_train(near, found)])),
        distance_ratio=distance_ratio(near),
        authenticity=authenticity(near),
        share_below=share_below(near),
        membership=membership(train, others, *owners, seed=seed) if held else None,
        effective_number=effective_number(near, found, seed=seed),
    )


def _of_train(near: Nearness, found: Hits) -> npt.NDArray[np.bool_]:
    return np.asarray(found.near & near.is_train[found.patient])


def _named(synthetic: ImageSet, spaces: Sequence[Nearness], found: Sequence[Hits]) -> tuple[str, ...]:
    copied = np.any([_of_train(near, hit) for near, hit in zip(spaces, found, strict=True)], axis=0)
    return tuple(synthetic.names[int(place)] for place in np.flatnonzero(copied))


def _pairs(near: Nearness, found: Hits, train: ImageSet, synthetic: ImageSet) -> tuple[Pair, ...]:
    distance = near.synthetic[:, : near.num_train]
    nearest = distance.argmin(axis=1)
    order = np.argsort(distance.min(axis=1), kind="stable")[:NUM_PAIRS]
    return tuple(
        Pair(
            synthetic=int(place),
            train=int(nearest[place]),
            distance=float(distance[place, nearest[place]]),
            ratio=float(found.ratio[place]),
            correlation=correlation(synthetic.x[place], train.x[nearest[place]])[0],
        )
        for place in order
    )


def _critic(scores: CriticScores, train: ImageSet, holdout: ImageSet, seed: int) -> Membership:
    members, others = (np.asarray(side, dtype=np.float64) for side in (scores.train, scores.holdout))
    return membership(members, others, train.patients, holdout.patients, seed=seed)


def _split(train: ImageSet, holdout: ImageSet, features: Features | None, seed: int) -> Exchanged:
    rows = (features or RandomConv())(torch.cat([train.x, holdout.x]))
    names = {name: number for number, name in enumerate(dict.fromkeys(_patients(train, holdout)))}
    numbers = np.array([names[name] for name in _patients(train, holdout)])
    is_train = np.arange(len(names)) < len(set(train.patients))
    return split_difference(Reduction.fit(rows, SPLIT_COMPONENTS)(rows), numbers, is_train, seed=seed)


def _fewest_p(near: Nearness) -> float:
    """One over the number of ways to name as many training patients."""
    return 1 / math.comb(len(near.is_train), int(near.is_train.sum()))


def _shared_images(train: ImageSet, holdout: ImageSet | None) -> int:
    """How many real images another patient has as well, voxel for voxel."""
    images = [*train.x, *(() if holdout is None else holdout.x)]
    owners: dict[bytes, set[str]] = {}
    seen = [image.contiguous().numpy().tobytes() for image in images]
    for image, patient in zip(seen, _patients(train, holdout), strict=True):
        owners.setdefault(image, set()).add(patient)
    return sum(len(owners[image]) > 1 for image in seen)


# --- what is told -----------------------------------------------------------------------------------------------------


def _counts(train: ImageSet, synthetic: ImageSet, holdout: ImageSet | None) -> dict[str, int]:
    return {
        "train_images": len(train),
        "train_patients": len(set(train.patients)),
        "synthetic_images": len(synthetic),
        "holdout_images": 0 if holdout is None else len(holdout),
        "holdout_patients": 0 if holdout is None else len(set(holdout.patients)),
    }


def _plain(value: Any) -> Any:
    """The same with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
