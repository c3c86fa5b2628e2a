"""Whether sampled masks could be masks at all, judged by real ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from medgan.errors import InputError
from medgan.imageset import ImageSet
from medgan.metrics.distribution import Floored, against_real

__all__ = ["mask_is_valid", "mask_scores"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
DECIDED = 0.5  # a value nearer to 0 than this is neither inside nor outside
MOST_UNDECIDED = 0.05
SLACK = 0.1


def mask_is_valid(masks: Tensor, *, like: Tensor) -> Bools:
    """(N,) whether each mask is one that could be real: decided, of a likely volume, in as many parts.

    A mask is valid if no more than 5 % of its pixels are undecided (|value| < 0.5; more only if real ones have more),
    if its volume lies between the least and the greatest real one, 10 % beyond either included, and if it has no more
    connected parts than the real one that has most. It may be empty only if a real one is.

    Args:
        masks: (N, 1, X, Y[, Z]), 1 inside and −1 outside.
        like: (M, 1, X, Y[, Z]) real masks of the same size.

    Raises:
        InputError: if there is no real mask, or sizes or channels differ.

    Example:
        >>> import torch
        >>> real = -torch.ones(1, 1, 8, 8)
        >>> real[0, 0, 2:5, 2:5] = 1
        >>> mask_is_valid(torch.cat([real, real.roll(2, 2), -real]), like=real).tolist()
        [True, True, False]
    """
    if not len(like) or masks.shape[1:] != like.shape[1:] or masks.shape[1] != 1:
        raise InputError(
            f"masks of {tuple(masks.shape[1:])} beside {len(like)} real ones of {tuple(like.shape[1:])}: give one "
            "channel of one size, and at least one real mask"
        )
    real, ours = _traits(like), _traits(masks)
    volumes = real.volume[real.volume > 0]
    low, high = (volumes.min() * (1 - SLACK), volumes.max() * (1 + SLACK)) if len(volumes) else (1, 0)
    fits = ((ours.volume >= low) & (ours.volume <= high)) | ((ours.volume == 0) & (real.volume == 0).any())
    decided = ours.undecided <= max(MOST_UNDECIDED, real.undecided.max())
    return np.asarray(fits & decided & (ours.parts <= real.parts.max()))


def mask_scores(train: ImageSet, synthetic: ImageSet, seed: int) -> dict[str, Floored]:
    """Of the masks in the last channel: the share that could be real ones, and the share that are not empty.

    Args:
        train: real images.
        synthetic: of the same channels and size.
        seed: of the halves of real patients that are compared.
    """

    def score(real: Floats, ours: Floats) -> dict[str, float]:
        valid = mask_is_valid(torch.from_numpy(ours), like=torch.from_numpy(real))
        filled = (ours > 0).reshape(len(ours), -1).any(axis=1)
        return {"valid_masks": float(valid.mean()), "filled_masks": float(filled.mean())}

    masks = [images.x[:, -1:].numpy() for images in (train, synthetic)]
    return against_real(score, masks[0], masks[1], train.patients, seed=seed)


@dataclass(frozen=True, eq=False)
class _Traits:
    """Of N masks: volumes in pixels, numbers of connected parts, shares of undecided pixels."""

    volume: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int64]
    undecided: npt.NDArray[np.float64]


def _traits(masks: Tensor) -> _Traits:
    values = masks[:, 0].numpy()
    inside = values > 0
    pixels = tuple(range(1, values.ndim))
    return _Traits(
        volume=inside.sum(axis=pixels),
        parts=np.array([ndimage.label(mask)[1] for mask in inside], dtype=np.int64),
        undecided=(abs(values) < DECIDED).mean(axis=pixels),
    )
