"""How much two images tell of one another, whatever their units."""

from __future__ import annotations

import numpy as np

from medgan.errors import InputError
from medgan.metrics.pairs import RANGE_2025, Array, Pair, Range, checked_range

__all__ = ["nmi"]


def nmi(
    pred: Array, ref: Array, mask: Array | None = None, value_range: Range = RANGE_2025, *, num_bins: int = 100
) -> float:
    """Normalised mutual information over the mask, (H(pred) + H(ref)) / H(pred, ref): 1 unrelated, 2 one to one.

    Entropies are of histograms with bins of equal width over the range, to which values are clipped: number, range and
    mask belong to the result. NaN if both images are constant, or a voxel of the mask is not finite.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        value_range: lowest and highest value, in the unit of the images.
        num_bins: of each image.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty, the range is none or there are fewer than 2 bins.

    Source:
        Studholme, Hill, Hawkes 1999, "An overlap invariant entropy measure of 3D medical image alignment", Pattern
        Recognition 32(1), equation 9.

    Example:
        >>> ref = np.arange(8.0).reshape(2, 2, 2)
        >>> round(nmi(7 - ref, ref, None, (0, 7), num_bins=8), 9)
        2.0
    """
    if num_bins < 2:
        raise InputError(f"a histogram has 2 bins or more; seen {num_bins}")
    pair = Pair.of(pred, ref, mask)
    edges = np.linspace(*checked_range(value_range), num_bins + 1)
    if not pair.is_finite():
        return float("nan")
    counts = np.zeros(num_bins**2)
    for made, real in pair.voxels():
        counts += np.bincount(_bins(made, edges) * num_bins + _bins(real, edges), minlength=num_bins**2)
    shares = counts.reshape(num_bins, num_bins) / counts.sum()
    joint = _entropy(shares)
    return (_entropy(shares.sum(0)) + _entropy(shares.sum(1))) / joint if joint else float("nan")


def _bins(values: Array, edges: Array) -> Array:
    """The bin of each value; one on an edge is in the upper bin, as `numpy.histogram` has it."""
    low, high, last = edges[0], edges[-1], len(edges) - 2
    values = np.clip(values, low, high)
    found = np.minimum(((values - low) * ((last + 1) / (high - low))).astype(np.intp), last)
    found -= values < edges[found]
    found += (values >= edges[found + 1]) & (found < last)
    return np.asarray(found)


def _entropy(shares: Array) -> float:
    known = shares[shares > 0]
    return float(-(known * np.log(known)).sum())
