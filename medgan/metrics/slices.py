"""Whether neighbouring slices of a prediction fit one another: what a network that sees single slices gets wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError

__all__ = ["slice_jump", "slice_roughness"]

Array = npt.NDArray[Any]


def slice_roughness(pred: Array, ref: Array, mask: Array | None = None, axis: int = 2) -> float:
    """How much a prediction changes across slices beyond what it does within them, no unit; 1 as in the reference.

    With R(axes) = Σ|pred[k+1] − pred[k]| / Σ|ref[k+1] − ref[k]|, the sums over neighbours along those axes that both
    lie in the mask, it is R(across slices) / R(within slices). Above 1 slices flicker, below it they are blurred into
    one another. An image that is too smooth, or too noisy, alike in all directions has 1 too. NaN where the mask holds
    no neighbours along an axis, or an image does not change.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        axis: across slices.

    Raises:
        GeometryError: if the shapes differ.

    Example:
        >>> ref = np.add.outer(np.add.outer(np.arange(4.0), np.arange(4.0)), np.arange(4.0))
        >>> slice_roughness(ref + [0, 2, 0, 2], ref)  # across slices steps of 3, -1, 3 against 1, 1, 1
        2.3333333333333335
    """
    inside = _checked(pred, ref, mask)
    across = _roughness(pred, ref, inside, [axis])
    within = _roughness(pred, ref, inside, [other for other in range(3) if other != axis])
    return across / within if within > 0 else float("nan")


def slice_jump(pred: Array, ref: Array, mask: Array | None = None, axis: int = 2) -> float:
    """How much the brightness of a prediction jumps from slice to slice, in the unit of the images; 0 at best.

    The mean over k of |mean(e[k+1] − e[k])|, e = pred − ref, the inner mean over voxels of the mask that both slices
    have. Noise and blur average out in it, an error that is the same in all slices cancels. NaN where the mask holds no
    two neighbours.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        axis: across slices.

    Raises:
        GeometryError: if the shapes differ.

    Example:
        >>> ref = np.arange(12.0).reshape(2, 2, 3)
        >>> slice_jump(ref + [5, 9, 7], ref)  # jumps of 4 and 2
        3.0
    """
    jumps = [abs(float((made - real).mean())) for made, real in _steps(pred, ref, _checked(pred, ref, mask), axis)]
    return float(np.mean(jumps)) if jumps else float("nan")


def _roughness(pred: Array, ref: Array, inside: Array, axes: Sequence[int]) -> float:
    """How much more than the reference a prediction changes along some axes."""
    sums = [np.abs(pair).sum(axis=1) for axis in axes for pair in _steps(pred, ref, inside, axis)]
    made, real = np.sum(sums, axis=0) if sums else (0.0, 0.0)
    return float(made / real) if real else float("nan")


def _steps(pred: Array, ref: Array, inside: Array, axis: int) -> Iterator[Array]:
    """From each plane across an axis to the next: (2, N), the steps of both images where both are in the mask."""
    p, r, kept = (np.moveaxis(image, axis, 0) for image in (pred, ref, inside))
    for k in range(len(kept) - 1):
        both = kept[k] & kept[k + 1]
        if both.any():
            yield np.stack([image[k + 1][both].astype(np.float64) - image[k][both] for image in (p, r)])


def _checked(pred: Array, ref: Array, mask: Array | None) -> Array:
    inside = np.ones(ref.shape, dtype=bool) if mask is None else np.asarray(mask).astype(bool, copy=False)
    if not pred.shape == ref.shape == inside.shape or ref.ndim != 3:
        raise GeometryError(
            f"prediction, reference and mask are 3-D and of one shape; seen {pred.shape}, {ref.shape}, {inside.shape}"
        )
    return inside
