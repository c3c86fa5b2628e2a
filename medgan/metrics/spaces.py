"""The spaces in which distances between images are taken: their voxels, or features, whatever way round they lie."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medgan.errors import InputError
from medgan.metrics.distribution import squared_distances
from medgan.metrics.features import Features, mirrored, mirrors, shrunk
from medgan.metrics.nearness import Nearness
from medgan.metrics.reduction import Reduction

__all__ = ["correlation", "in_features", "in_pixels"]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
PIXELS_SIDE = {2: 16, 3: 10}  # small enough that being moved by a few per cent of the side is no disguise
_DECIMALS = 6  # of a distance: what rounding makes of equal images is equal


def in_pixels(train: Tensor, synthetic: Tensor, holdout: Tensor | None, patients: Sequence[str]) -> Nearness:
    """√(2 − 2·correlation) of images brought to at most 16 voxels a side (10 in 3-D), however they lie.

    It is the smallest over all `mirrors` and over shifts by one of these voxels. So it is 0 for an image, its mirror
    images and any of them at another brightness or contrast, and small where it was moved; √2 for what is unlike it.

    Args:
        train: (N, C, X, Y[, Z]).
        synthetic: (M, C, X, Y[, Z]).
        holdout: (K, C, X, Y[, Z]), or None.
        patients: whose each image is, of train and then holdout.
    """
    side = PIXELS_SIDE[train.ndim - 2]
    real, ours = shrunk(_joined(train, holdout), side), shrunk(synthetic, side)
    return Nearness(
        "pixels",
        _pixel_distances(real, ours).T,
        _pixel_distances(real, real),
        _pixel_distances(ours, ours),
        _numbered(patients, len(real)),
        len(train),
    )


def _pixel_distances(x: Tensor, y: Tensor) -> Array:
    """(N, M), the same either way round: the turns and shifts of one of the two stand for those of the other."""
    reference = _unit(y)
    best = np.full((len(x), len(y)), -1.0)
    for view in _shifts(x):
        np.maximum(best, _unit(view) @ reference.T, out=best)
    blank, reference_blank = (np.abs(rows).max(axis=1) == 0 for rows in (_unit(x), reference))
    best[np.logical_and.outer(blank, reference_blank)] = 1  # constant images are alike
    return np.asarray(np.round(np.sqrt(np.clip(2 - 2 * best, 0, None)), _DECIMALS))


def _shifts(x: Tensor) -> Iterator[Tensor]:
    """The images in all `mirrors`, as they are and moved by one voxel along every choice of axes."""
    spatial = range(2, x.ndim)
    for view in mirrors(x):
        for steps in itertools.product((-1, 0, 1), repeat=len(spatial)):
            yield view.roll(steps, tuple(spatial))


def in_features(
    features: Features, train: Tensor, synthetic: Tensor, holdout: Tensor | None, patients: Sequence[str]
) -> Nearness:
    """Euclidean distance of features averaged over all `mirrors`, each over its standard deviation in real images.

    That is of training and held-out images alike: taken from one of the two it would set it apart.
    The other arguments are those of `in_pixels`.
    """
    rows = mirrored(features, _joined(train, holdout))
    reduce = Reduction.fit(rows, None)
    real, ours = reduce(rows), reduce(mirrored(features, synthetic))
    return Nearness(
        features.name,
        _distances(ours, real),
        _distances(real, real),
        _distances(ours, ours),
        _numbered(patients, len(real)),
        len(train),
    )


def correlation(synthetic: Tensor, train: Tensor) -> tuple[float, Tensor]:
    """Largest correlation (−1..1) of an image with another over its `mirrors`, at full size; and that mirror image.

    Args:
        synthetic: (C, X, Y[, Z]).
        train: (C, X, Y[, Z]).
    """
    ours = _unit(synthetic[None])
    views = list(mirrors(train[None]))
    found = [float((ours @ _unit(view).T).item()) for view in views]
    best = int(np.argmax(found))
    return found[best], views[best][0]


def _joined(train: Tensor, holdout: Tensor | None) -> Tensor:
    return train if holdout is None else torch.cat([train, holdout])


def _numbered(patients: Sequence[str], count: int) -> Ints:
    if len(patients) != count:
        raise InputError(f"{count} real images and {len(patients)} patients: name the patient of each image")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(patients))}
    return np.array([numbers[name] for name in patients], dtype=np.int64)


def _unit(x: Tensor) -> Array:
    """(N, voxels) float64: less their mean, of length 1; a constant image is 0."""
    rows = x.double().flatten(1).numpy()
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-9))


def _distances(x: Array, y: Array) -> Array:
    return np.asarray(np.round(np.sqrt(squared_distances(x, y)), _DECIMALS))
