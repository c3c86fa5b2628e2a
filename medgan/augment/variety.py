"""What choosing among synthetic images costs: how much of what real images show is covered before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.imageset import ImageSet
from medgan.metrics.distribution import neighbourhoods
from medgan.metrics.features import Features
from medgan.metrics.reduction import Reduction

__all__ = ["Bias", "Variety", "bias_of", "classes_of"]

Array = npt.NDArray[Any]
_COMPONENTS = 32
_NEIGHBOURS = 5
_DRAWS = 20


@dataclass(frozen=True)
class Variety:
    """How much of what real images show a set covers; None where it has too few images to tell.

    Args:
        num_images: in the set.
        coverage: share of real images in whose neighbourhood there is one of the set, 0 to 1.
        recall: share of real images that lie in the neighbourhood of one of the set, 0 to 1.
    """

    num_images: int
    coverage: float | None
    recall: float | None


@dataclass(frozen=True)
class Bias:
    """What the choice costs.

    Args:
        real: the real images that variety is measured by: `held-out` or `training`.
        before: variety of all images.
        after: variety of those that were kept.
        by_chance: mean variety of as many of each class, drawn at random from all: what the choice alone costs is the
            difference to this.
        classes: number of images of each class, before and after.
    """

    real: str
    before: Variety
    after: Variety
    by_chance: Variety
    classes: Mapping[str, tuple[int, int]]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def bias_of(
    features: Features,
    train: ImageSet,
    synthetic: ImageSet,
    labels: Sequence[str],
    *,
    kept: npt.NDArray[np.bool_],
    held_out: ImageSet | None = None,
) -> Bias:
    """Variety of a set and of the chosen part of it, on the principal axes of the training images' features.

    Args:
        features: turns images into rows.
        train: the images that the generator learnt from.
        synthetic: all images.
        labels: class of each.
        kept: whether each is kept.
        held_out: real images of other patients, by which variety is measured; the training images if not given.
    """
    learnt = features(train.x)
    reduce = Reduction.fit(learnt, _COMPONENTS)
    real = reduce(learnt if held_out is None else features(held_out.x))
    made = reduce(features(synthetic.x))
    draws = [_variety(real, made[_random_like(kept, labels, draw)]) for draw in range(1 if kept.all() else _DRAWS)]
    before, after = Counter(labels), Counter(label for label, stays in zip(labels, kept, strict=True) if stays)
    return Bias(
        real="training" if held_out is None else "held-out",
        before=_variety(real, made),
        after=_variety(real, made[kept]),
        by_chance=Variety(int(kept.sum()), _mean([d.coverage for d in draws]), _mean([d.recall for d in draws])),
        classes={label: (before[label], after[label]) for label in before},
    )


def classes_of(labels: Sequence[str]) -> dict[str, list[int]]:
    """The places of each class, classes in the order of their first image."""
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    return places


def _variety(real: Array, made: Array) -> Variety:
    if min(len(real), len(made)) <= _NEIGHBOURS:
        return Variety(len(made), None, None)
    found = neighbourhoods(real, made, _NEIGHBOURS)
    return Variety(len(made), found.coverage, found.recall)


def _random_like(kept: Array, labels: Sequence[str], seed: int) -> list[int]:
    """Places of as many images of each class as were kept, drawn at random."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(members)[: int(kept[members].sum())] for members in classes_of(labels).values()]
    return sorted(int(place) for places in drawn for place in places)


def _mean(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return float(np.mean(told)) if told else None
