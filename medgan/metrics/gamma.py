"""The gamma index: how far a dose distribution is from its reference, in dose and distance at once.

The evaluated dose is a continuous function here, bilinear or trilinear between the voxels, and the minimum over it is
proved to `PRECISION` rather than sampled; see `medgan.metrics.multilinear`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError, InputError
from medgan.metrics.multilinear import PRECISION, Surface

__all__ = ["PRECISION", "Criteria", "gamma", "gamma_pass_rate", "gamma_scores"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_ROUNDING = 1e-9  # a gamma of 1 that is rounded up still passes
_NO_DOSE = 1e-9  # of the normalisation: what is below has no dose of its own to be compared with
_SLAB = 1 << 20  # voxels at a time that are looked through for marked ones
_PART = 1 << 15  # marked voxels at a time: their numbers stay in the cache


class Criteria(TypedDict, total=False):
    """The settings of a gamma analysis, as `gamma` takes them."""

    dose_percent: float
    distance_mm: float
    cutoff_percent: float
    local: bool
    max_gamma: float
    normalisation: float | None


def gamma(
    evaluated: Array,
    reference: Array,
    mask: Array | None = None,
    *,
    spacing_mm: Sequence[float],
    dose_percent: float = 3.0,
    distance_mm: float = 3.0,
    cutoff_percent: float = 10.0,
    local: bool = False,
    max_gamma: float = 2.0,
    normalisation: float | None = None,
) -> Floats:
    """Gamma of every reference voxel r, no unit: the least √(|p − r|²/Δd² + (D_eval(p) − D_ref(r))²/ΔD²).

    p is any place within the grid, between voxels too, where the evaluated dose is interpolated linearly along each
    axis. What is found exceeds the true minimum by at most `PRECISION` (0.0001), and is never below it. An axis of one
    voxel counts as none, so a single slice is compared in its plane.

    Args:
        evaluated: dose (X, Y, Z) or (X, Y), such as that of a plan calculated anew on a synthetic CT.
        reference: dose of the same shape, in the same unit and on the same grid.
        mask: of the same shape, any non-zero voxel counts; None is all voxels.
        spacing_mm: distance between voxel centres along each array axis, mm.
        dose_percent: ΔD, in percent of the normalisation, or with `local` of the reference dose of each voxel.
        distance_mm: Δd, mm.
        cutoff_percent: voxels with less reference dose than this percentage of the normalisation are left out.
        local: take the dose difference relative to each voxel's own reference dose.
        max_gamma: greater values are reported as this one; the search ends there.
        normalisation: the dose that is 100 %; the greatest reference dose if not given.

    Returns:
        Of the shape of the reference; NaN where a voxel is outside the mask or below the cutoff, or with `local` has no
        dose of its own.

    Raises:
        GeometryError: if the shapes differ, or there is not one positive spacing for each axis.
        InputError: if a dose is negative or not finite, the reference has none at all, the mask is empty, or a setting
            is out of range.

    Source:
        Low et al., "A technique for the quantitative evaluation of dose distributions", Med Phys 25(5), 1998,
        equations 4 and 5.

    Example:
        >>> ref = np.full((4, 4, 4), 2.0)
        >>> float(gamma(ref * 1.015, ref, spacing_mm=(2, 2, 2)).max().round(6))  # 1.5 % off, of 3 %
        0.5
    """
    evaluated, reference = np.asanyarray(evaluated), np.asanyarray(reference)
    inside = _checked(evaluated, reference, mask)
    full = float(reference.max()) if normalisation is None else normalisation
    _refuse_odd(
        cutoff_percent, distance_mm=distance_mm, dose_percent=dose_percent, max_gamma=max_gamma, normalisation=full
    )
    steps = _spacings(spacing_mm, reference.ndim) / distance_mm
    inside = inside & (reference >= cutoff_percent / 100 * full)
    if local:
        inside &= reference > _NO_DOSE * full
    order = np.argsort([-abs(stride) for stride in reference.strides], kind="stable")
    evaluated, reference, inside = (array.transpose(order) for array in (evaluated, reference, inside))
    surface, gammas = Surface(evaluated, steps[order], max_gamma), np.full(reference.shape, np.nan)
    for voxels in _parts(inside):
        doses = reference[voxels].astype(np.float64)
        tolerances = dose_percent / 100 * (doses if local else np.full_like(doses, full))
        gammas[voxels] = surface.distances(voxels, doses, tolerances)
    return gammas.transpose(np.argsort(order))


def gamma_pass_rate(gammas: Array) -> float:
    """Percent of the voxels with a gamma whose gamma is at most 1; NaN where no voxel has one.

    Args:
        gammas: as `gamma` returns them.

    Example:
        >>> gamma_pass_rate(np.array([0.2, 1.0, 1.3, 2.0, np.nan]))
        50.0
    """
    known = gammas[~np.isnan(gammas)]
    return float(100 * np.mean(known <= 1 + _ROUNDING)) if known.size else float("nan")


def gamma_scores(
    evaluated: Array,
    reference: Array,
    mask: Array | None = None,
    *,
    spacing_mm: Sequence[float],
    **criteria: Unpack[Criteria],
) -> dict[str, float]:
    """`gamma_pass`, percent, and `gamma_mean` of a pair of doses; NaN where no voxel reaches the cutoff.

    Args:
        evaluated: dose (X, Y, Z) or (X, Y).
        reference: dose of the same shape, in the same unit and on the same grid.
        mask: of the same shape, any non-zero voxel counts; None is all voxels.
        spacing_mm: distance between voxel centres along each array axis, mm.
        **criteria: as of `gamma`. Where a gamma is above `max_gamma`, the mean takes it as that.

    Raises:
        GeometryError: as `gamma`.
        InputError: as `gamma`.

    Example:
        >>> ref = np.full((4, 4, 4), 2.0)
        >>> {name: round(value, 6) for name, value in gamma_scores(ref * 1.015, ref, spacing_mm=(2, 2, 2)).items()}
        {'gamma_pass': 100.0, 'gamma_mean': 0.5}
    """
    gammas = gamma(evaluated, reference, mask, spacing_mm=spacing_mm, **criteria)
    known = gammas[~np.isnan(gammas)]
    return {"gamma_pass": gamma_pass_rate(known), "gamma_mean": float(known.mean()) if known.size else float("nan")}


def _checked(evaluated: Array, reference: Array, mask: Array | None) -> Array:
    """The mask, as booleans."""
    inside = np.ones(reference.shape, dtype=bool) if mask is None else np.asarray(mask).astype(bool, copy=False)
    if not evaluated.shape == reference.shape == inside.shape or reference.ndim not in (2, 3) or not reference.size:
        raise GeometryError(
            "evaluated dose, reference dose and mask are 2-D or 3-D and of one shape; "
            f"seen {evaluated.shape}, {reference.shape}, {inside.shape}"
        )
    for what, dose in (("evaluated", evaluated), ("reference", reference)):
        _refuse_no_dose(what, float(dose.min()), float(dose.max()))
    if not reference.any():
        raise InputError("the reference dose is 0 everywhere: there is nothing to compare; give another one")
    if not inside.any():
        raise InputError("the mask is empty: it marks no voxel to score; give a mask with non-zero voxels, or none")
    return inside


def _refuse_no_dose(what: str, low: float, high: float) -> None:
    if not np.isfinite([low, high]).all():
        raise InputError(f"the {what} dose has NaN or infinite values; give finite ones, 0 where there is no dose")
    if low < 0:
        raise InputError(f"the {what} dose is negative somewhere (lowest: {low:g}), which no dose is; clip it at 0")


def _refuse_odd(cutoff_percent: float, **positive: float) -> None:
    for name, value in positive.items():
        if not 0 < value < np.inf:
            raise InputError(f"{name} is a finite number above 0; seen {value:g}")
    if not 0 <= cutoff_percent <= 100:
        raise InputError(f"cutoff_percent is a number from 0 to 100; seen {cutoff_percent:g}")


def _spacings(spacing_mm: Sequence[float], ndim: int) -> Floats:
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (ndim,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise GeometryError(f"spacing_mm is one positive number for each of {ndim} axes; seen {tuple(spacing_mm)}")
    return spacing


def _parts(inside: Array) -> Iterator[tuple[Array, ...]]:
    """Indices of the marked voxels, some at a time."""
    flat = np.ascontiguousarray(inside).reshape(-1)
    for start in range(0, flat.size, _SLAB):
        marked = start + np.flatnonzero(flat[start : start + _SLAB])
        for first in range(0, marked.size, _PART):
            yield np.unravel_index(marked[first : first + _PART], inside.shape)
