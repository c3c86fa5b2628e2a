"""Differences of a prediction and its reference, voxel by voxel, over a mask."""

from __future__ import annotations

from itertools import product

import numpy as np

from medgan.errors import InputError
from medgan.metrics.pairs import RANGE_2023, Array, Pair, Range, Spacing, checked_range, checked_spacing

__all__ = ["bias", "gradient_error", "mae", "nmse", "psnr", "rmse", "tolerant_mae"]

_SLAB_VOXELS = 2**16


def mae(pred: Array, ref: Array, mask: Array | None = None) -> float:
    """Mean absolute error over the mask, Σ|pred − ref| / n, in the unit of the images; nothing is clipped.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty.

    Example:
        >>> mae(np.array([[[1.0, 5.0]]]), np.array([[[2.0, 9.0]]]))
        2.5
    """
    return Pair.of(pred, ref, mask).mean(lambda p, r: np.abs(p - r))


def bias(pred: Array, ref: Array, mask: Array | None = None) -> float:
    """Mean error over the mask, Σ(pred − ref) / n, in the unit of the images; above 0 the prediction is too bright.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty.

    Example:
        >>> bias(np.array([[[1.0, 5.0]]]), np.array([[[2.0, 9.0]]]))
        -2.5
    """
    return Pair.of(pred, ref, mask).mean(np.subtract)


def rmse(pred: Array, ref: Array, mask: Array | None = None) -> float:
    """Root mean square error over the mask, √(Σ(pred − ref)² / n), in the unit of the images; nothing is clipped.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty.

    Example:
        >>> rmse(np.array([[[1.0, 9.0]]]), np.array([[[2.0, 2.0]]]))
        5.0
    """
    return float(np.sqrt(Pair.of(pred, ref, mask).mean(_squared_error)))


def nmse(pred: Array, ref: Array, mask: Array | None = None) -> float:
    """Normalised mean square error over the mask, Σ(pred − ref)² / Σref², no unit. NaN where the reference is 0.

    It hangs on where 0 is: it suits MR, where 0 is no signal, better than HU, where 0 is water.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty.

    Source:
        Zbontar et al. 2018, "fastMRI", arXiv:1811.08839, equation 10.

    Example:
        >>> nmse(np.array([[[1.0, 5.0]]]), np.array([[[0.0, 2.0]]]))
        2.5
    """
    pair = Pair.of(pred, ref, mask)
    energy = pair.total(lambda _, r: r * r)
    return pair.total(_squared_error) / energy if energy else float("nan")


def psnr(pred: Array, ref: Array, mask: Array | None = None, value_range: Range = RANGE_2023) -> float:
    """Peak signal-to-noise ratio over the mask, dB: 10·log10(L²/MSE), both images clipped to the range of width L.

    It is infinite where the clipped images are equal.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        value_range: lowest and highest value, in the unit of the images.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty or the range is none.

    Example:
        >>> psnr(np.full((1, 1, 2), 9.0), np.full((1, 1, 2), 8.0), None, (0, 10))
        20.0
    """
    low, high = checked_range(value_range)
    mse = Pair.of(pred, ref, mask).mean(lambda p, r: _squared_error(np.clip(p, low, high), np.clip(r, low, high)))
    return float(10 * np.log10((high - low) ** 2 / mse)) if mse else float("inf")


def gradient_error(pred: Array, ref: Array, mask: Array | None = None, *, spacing_mm: Spacing) -> float:
    """Mean difference of edges over the mask, mean | |∇pred| − |∇ref| |, in the unit of the images per mm.

    Gradients are central differences, (v[i + 1] − v[i − 1]) / (2 · spacing). Only voxels count whose six neighbours lie
    in the volume and in the mask, so that no edge of the mask is taken for one of the image. NaN where there is none.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        spacing_mm: distances of neighbouring voxels, by axis.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty or the spacing is none.

    Example:
        >>> ramp = np.add.outer(np.arange(3.0), np.zeros((3, 3)))  # 1 a voxel
        >>> gradient_error(3 * ramp, ramp, spacing_mm=(2, 1, 1))
        1.0
    """
    pair = Pair.of(pred, ref, mask)
    given = checked_spacing(spacing_mm)
    spacing = [given[axis] for axis in pair.order]
    total, count = 0.0, 0
    for start, stop in _starts(pair, 1, pair.ref.shape[0] - 1):
        planes = slice(start - 1, stop + 1)
        kept = _with_neighbours(pair.inside[planes])
        if kept.any():
            total += float(_gradient_difference(pair.pred[planes], pair.ref[planes], spacing)[kept].sum())
            count += int(np.count_nonzero(kept))
    return total / count if count else float("nan")


def tolerant_mae(pred: Array, ref: Array, mask: Array | None = None, *, tolerance: int = 1) -> float:
    """Mean absolute error that forgives shifts of some voxels, in the unit of the images; at most the MAE.

    Each voxel is compared with the one of the other image that is most alike among those of the mask at most
    `tolerance` voxels away along each axis: F = mean over x of min over s of |pred(x) − ref(x + s)|. As F alone
    forgives what the prediction lost (a thin bone is nowhere looked for), the result is the larger of F and of F with
    the images exchanged. It is symmetric therefore. NaN if a voxel of the mask is not finite.

    Args:
        pred: (X, Y, Z).
        ref: (X, Y, Z).
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume. Others are not looked at.
        tolerance: voxels, 0 or more; 0 gives the MAE.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty or the tolerance is negative.

    Example:
        >>> ref = np.array([[[0.0, 0.0, 9.0, 0.0]]])
        >>> tolerant_mae(np.roll(ref, 1), ref), tolerant_mae(0 * ref, ref), mae(np.roll(ref, 1), ref)
        (0.0, 2.25, 4.5)
    """
    pair = Pair.of(pred, ref, mask)
    if int(tolerance) != tolerance or tolerance < 0:
        raise InputError(f"a tolerance is a whole number of voxels, 0 or more; seen {tolerance:g}")
    if not pair.is_finite():
        return float("nan")
    sums = np.zeros(2)
    for start, stop in _starts(pair, 0, pair.ref.shape[0]):
        made, real, kept = _surroundings(pair, start, stop, int(tolerance))
        if kept.any():
            sums += [_nearest(one, other, int(tolerance))[kept].sum() for one, other in ((made, real), (real, made))]
    return float(sums.max() / np.count_nonzero(pair.inside))


def _squared_error(pred: Array, ref: Array) -> Array:
    error = pred - ref
    return np.asarray(error * error)


def _starts(pair: Pair, first: int, last: int) -> list[tuple[int, int]]:
    thickness = max(1, _SLAB_VOXELS // int(np.prod(pair.ref.shape[1:])))
    return [(start, min(start + thickness, last)) for start in range(first, last, thickness)]


def _with_neighbours(inside: Array) -> Array:
    """(X, Y, Z) to (X − 2, Y − 2, Z − 2): voxels of a mask whose six neighbours are in it."""
    core = (slice(1, -1),) * 3
    kept = inside[core].copy()
    for axis in range(3):
        for one in (slice(None, -2), slice(2, None)):
            kept &= inside[(*core[:axis], one, *core[axis + 1 :])]
    return kept


def _gradient_difference(pred: Array, ref: Array, spacing: list[float]) -> Array:
    with np.errstate(invalid="ignore"):  # outside the mask may be anything
        return np.asarray(np.abs(_gradient(pred, spacing) - _gradient(ref, spacing)))


def _gradient(image: Array, spacing: list[float]) -> Array:
    """Magnitudes of the gradient, (X, Y, Z) to (X − 2, Y − 2, Z − 2)."""
    image, core = image.astype(np.float64), (slice(1, -1),) * 3
    squares = np.zeros([max(length - 2, 0) for length in image.shape])
    for axis, step in enumerate(spacing):
        before, after = ((*core[:axis], one, *core[axis + 1 :]) for one in (slice(None, -2), slice(2, None)))
        squares += ((image[after] - image[before]) / (2 * step)) ** 2
    return np.asarray(np.sqrt(squares))


def _surroundings(pair: Pair, start: int, stop: int, reach: int) -> tuple[Array, Array, Array]:
    """Planes of both images and `reach` voxels around them, infinitely far apart where the mask is not; their mask."""
    low, high = max(start - reach, 0), min(stop + reach, pair.ref.shape[0])
    widths = [(low - start + reach, stop + reach - high), (reach, reach), (reach, reach)]
    made, real = (
        np.pad(np.where(pair.inside[low:high], image[low:high].astype(np.float64), far), widths, constant_values=far)
        for image, far in ((pair.pred, np.inf), (pair.ref, -np.inf))
    )
    return made, real, pair.inside[start:stop]


def _nearest(image: Array, other: Array, reach: int) -> Array:
    """How far each voxel is from the most alike of the other image's around it; `reach` less on each side."""
    shape = [length - 2 * reach for length in image.shape]
    here = image[tuple(slice(reach, reach + length) for length in shape)]
    least, apart = np.full(shape, np.inf), np.empty(shape)
    for shift in product(range(2 * reach + 1), repeat=3):
        there = other[tuple(slice(one, one + length) for one, length in zip(shift, shape, strict=True))]
        np.subtract(here, there, out=apart)
        np.abs(apart, out=apart)
        np.minimum(least, apart, out=least)
    return least
