"""How alike synthetic and real images are, and how varied, altogether and within each class."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from medgan.imageset import ImageSet
from medgan.metrics.distribution import (
    Floored,
    against_real,
    frechet_distance,
    kernel_distance,
    mean_correlation,
    neighbourhoods,
    spread_ratio,
)
from medgan.metrics.features import Features
from medgan.metrics.reduction import Reduction

__all__ = ["FEWEST_IMAGES", "FEWEST_PATIENTS", "likeness_scores", "scores_by_class", "smallest_half"]

Array = npt.NDArray[Any]
COMPONENTS = 32  # of features in which sets are compared; fewer where there are few images
IMAGES_PER_COMPONENT = 4
FEWEST_IMAGES, FEWEST_PATIENTS = 6, 4  # of a half of the training set, and of the whole: five neighbours, two halves


def likeness_scores(train: ImageSet, synthetic: ImageSet, features: Features, seed: int) -> dict[str, Floored]:
    """Scores by name: of features, and of pixels.

    The reduction is fitted anew on the half of the training patients with which the other half and the synthetic
    images are compared. Fitted on all of them it would know the other half and not the synthetic images, and make
    these look closer than real patients are.
    """
    components = _num_components(train, synthetic)

    def score(a: Array, b: Array) -> dict[str, float]:
        reduce = Reduction.fit(a, components)
        a, b = reduce(a), reduce(b)
        distances = {f"FD-{features.name}": frechet_distance(a, b), f"KID-{features.name}": kernel_distance(a, b)}
        return {**distances, **dataclasses.asdict(neighbourhoods(a, b))}

    rows = features(train.x), features(synthetic.x)
    pixels = _pixels(train.x), _pixels(synthetic.x)
    return {
        **against_real(score, *rows, train.patients, seed=seed),
        **against_real(_variety, *pixels, train.patients, seed=seed),
    }


def _variety(real: Array, fake: Array) -> dict[str, float]:
    return {"mean_correlation": mean_correlation(fake), "spread_ratio": spread_ratio(real, fake)}


def _pixels(x: Tensor) -> Array:
    return np.asarray(x.flatten(1).double().numpy())


def _num_components(train: ImageSet, synthetic: ImageSet) -> int:
    return max(1, min(COMPONENTS, min(smallest_half(train), len(synthetic)) // IMAGES_PER_COMPONENT))


def smallest_half(images: ImageSet) -> int:
    """How many images the half of the patients with fewest images has."""
    counts = sorted(Counter(images.patients).values())
    return sum(counts[: len(counts) // 2])


def scores_by_class(
    train: ImageSet, synthetic: ImageSet, features: Features, within: str, seed: int
) -> dict[str, dict[str, Floored] | None]:
    """Scores within each class of the training set."""
    found: dict[str, dict[str, Floored] | None] = {}
    for name in sorted(set(train.conditions[within])):
        real, ours = (images.where(np.asarray(images.conditions[within]) == name) for images in (train, synthetic))
        enough = len(set(real.patients)) >= FEWEST_PATIENTS and min(smallest_half(real), len(ours)) >= FEWEST_IMAGES
        found[name] = likeness_scores(real, ours, features, seed) if enough else None
    return found
