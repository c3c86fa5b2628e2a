"""What a translation has to beat: intensity maps that look at one voxel at a time and know no anatomy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from medgan.errors import GeometryError, InputError

__all__ = ["ConditionalMean", "MonotoneMap", "Pair"]

Array = npt.NDArray[Any]
Pair = tuple[Array, Array, Array | None]


@dataclass(frozen=True, eq=False)
class ConditionalMean:
    """The mean intensity of the target given that of the source: no voxel-wise map has a smaller squared error.

    Args:
        source: (K,) mean source intensity of each bin, ascending.
        target: (K,) mean target intensity of each bin.

    Example:
        >>> x = np.arange(8.0).reshape(2, 2, 2)
        >>> ConditionalMean.fit([(x, 10 - x, None)]).apply(np.array([2.5]))
        array([7.5])
    """

    source: Array
    target: Array

    @classmethod
    def fit(cls, pairs: Iterable[Pair], *, num_bins: int = 256) -> Self:
        """Fit on training cases.

        Args:
            pairs: (source, target, mask or None) of each case, all (X, Y, Z); any non-zero mask voxel counts.
            num_bins: bins of about equally many voxels, fewer where intensities repeat.

        Raises:
            InputError: if there is no voxel to fit on.
            GeometryError: if the arrays of a case differ in shape.
        """
        source, target, _ = _binned(pairs, num_bins)
        return cls(source, target)

    def apply(self, source: Array) -> Array:
        """float64 target intensities of source intensities of any shape: linear between bins, constant beyond them."""
        return np.asarray(np.interp(source, self.source, self.target))


@dataclass(frozen=True, eq=False)
class MonotoneMap:
    """The rising or falling intensity map, whichever fits better, of least squared error.

    Args:
        source: (K,) mean source intensity of each bin, ascending.
        target: (K,) fitted target intensity of each bin, monotone.
        rising: whether brighter source means brighter target.

    Example:
        >>> x = np.arange(8.0).reshape(2, 2, 2)
        >>> MonotoneMap.fit([(x, 10 - x, None)]).rising
        False
    """

    source: Array
    target: Array
    rising: bool

    @classmethod
    def fit(cls, pairs: Iterable[Pair], *, num_bins: int = 256) -> Self:
        """Fit on training cases by isotonic regression of the binned conditional mean, in both directions.

        Args:
            pairs: (source, target, mask or None) of each case, all (X, Y, Z); any non-zero mask voxel counts.
            num_bins: bins of about equally many voxels, fewer where intensities repeat.

        Raises:
            InputError: if there is no voxel to fit on.
            GeometryError: if the arrays of a case differ in shape.

        Source:
            Barlow et al., "Statistical inference under order restrictions", 1972: pool adjacent violators.
        """
        source, target, counts = _binned(pairs, num_bins)
        fits = {rising: isotonic_regression(target, weights=counts, increasing=rising).x for rising in (True, False)}
        rising = min(fits, key=lambda way: float((counts * (fits[way] - target) ** 2).sum()))
        return cls(source, fits[rising], rising)

    def apply(self, source: Array) -> Array:
        """float64 target intensities of source intensities of any shape: linear between bins, constant beyond them."""
        return np.asarray(np.interp(source, self.source, self.target))


def _binned(pairs: Iterable[Pair], num_bins: int) -> tuple[Array, Array, Array]:
    """Mean source, mean target and number of voxels of each bin that is not empty, by ascending source."""
    source, target = _voxels(pairs)
    number = _bin_numbers(source, num_bins)
    counts = np.bincount(number)
    kept = counts > 0
    counts = counts[kept].astype(np.float64)
    return (
        np.bincount(number, weights=source)[kept] / counts,
        np.bincount(number, weights=target)[kept] / counts,
        counts,
    )


def _bin_numbers(source: Array, num_bins: int) -> Array:
    """Bins of equal shares by rank; a value that many voxels have stays by itself."""
    levels, number, counts = np.unique(source, return_inverse=True, return_counts=True)
    if levels.size <= num_bins:
        return np.asarray(number)
    rank = (np.cumsum(counts) - counts / 2) / source.size
    return np.asarray((num_bins * rank).astype(np.intp)[number])


def _voxels(pairs: Iterable[Pair]) -> tuple[Array, Array]:
    chosen = [_inside(*pair) for pair in pairs]
    if not sum(source.size for source, _ in chosen):
        raise InputError(
            "there is no voxel to fit an intensity map on; give at least one pair with a mask that marks some"
        )
    return np.concatenate([source for source, _ in chosen]), np.concatenate([target for _, target in chosen])


def _inside(source: Array, target: Array, mask: Array | None) -> tuple[Array, Array]:
    inside = np.ones(source.shape, dtype=bool) if mask is None else np.asarray(mask) != 0
    if not source.shape == target.shape == inside.shape:
        raise GeometryError(f"source, target and mask differ in shape: {source.shape}, {target.shape}, {inside.shape}")
    return source[inside].astype(np.float64), target[inside].astype(np.float64)
