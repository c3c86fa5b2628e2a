"""Whether neighbouring slices of a prediction fit one another: what a network that sees single slices gets wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medgan.metrics.pairs import Array, Pair

__all__ = ["slice_jump", "slice_roughness"]


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
        InputError: if the mask is empty.

    Example:
        >>> ref = np.add.outer(np.add.outer(np.arange(4.0), np.arange(4.0)), np.arange(4.0))
        >>> slice_roughness(ref + [0, 2, 0, 2], ref)  # across slices steps of 3, -1, 3 against 1, 1, 1
        2.3333333333333335
    """
    pair, changes = Pair.of(pred, ref, mask).cropped(), np.zeros((3, 2))
    for slab in _slabs(pair):
        for along in range(3):
            steps, _ = slab.steps(along)
            changes[pair.order[along]] += np.abs(steps, out=steps).sum(axis=(1, 2, 3))
    across, within = _ratio(changes[axis]), _ratio(np.delete(changes, axis, axis=0).sum(axis=0))
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
        InputError: if the mask is empty.

    Example:
        >>> ref = np.arange(12.0).reshape(2, 2, 3)
        >>> slice_jump(ref + [5, 9, 7], ref)  # jumps of 4 and 2
        3.0
    """
    pair = Pair.of(pred, ref, mask).cropped()
    along, (totals, counts) = pair.order.index(axis % 3), np.zeros((2, ref.shape[axis]))
    for slab in _slabs(pair):
        steps, both = slab.steps(along)
        planes = slab.planes(along, len(both))
        totals[planes] += (steps[0] - steps[1]).sum(axis=(1, 2))
        counts[planes] += np.count_nonzero(both, axis=(1, 2))
    jumps = np.abs(totals[counts > 0] / counts[counts > 0])
    return float(jumps.mean()) if jumps.size else float("nan")


def _ratio(changes: Array) -> float:
    """How much more than the reference a prediction changes."""
    return float(changes[0] / changes[1]) if changes[1] else float("nan")


@dataclass(frozen=True)
class _Slab:
    """Some planes across the first axis of a pair.

    Args:
        images: (2, planes, Y, Z) prediction and reference, float64; their own planes and the one behind these.
        inside: (planes, Y, Z) the mask of them.
        start: which plane of the pair the first one is.
        num_own: how many planes are its own.
    """

    images: Array
    inside: Array
    start: int
    num_own: int

    def steps(self, axis: int) -> tuple[Array, Array]:
        """From plane to plane across an axis: (2, K, …), 0 unless both voxels count; and (K, …) where they do."""
        own = slice(None) if axis == 0 else slice(self.num_own)
        images, inside = np.moveaxis(self.images[:, own], axis + 1, 1), np.moveaxis(self.inside[own], axis, 0)
        both = inside[1:] & inside[:-1]
        with np.errstate(invalid="ignore"):  # outside the mask may be anything
            steps = np.asarray(images[:, 1:] - images[:, :-1])
        if not both.all():
            np.copyto(steps, 0, where=~both)
        return steps, both

    def planes(self, axis: int, number: int) -> slice:
        """Which planes of the pair across an axis such steps start from."""
        start = self.start if axis == 0 else 0
        return slice(start, start + number)


def _slabs(pair: Pair) -> Iterator[_Slab]:
    for slab in pair.slabs():
        planes = slice(slab.start, slab.stop + 1)
        if pair.inside[planes].any():
            images = np.stack([image[planes].astype(np.float64) for image in (pair.pred, pair.ref)])
            yield _Slab(images, pair.inside[planes], slab.start, slab.stop - slab.start)
