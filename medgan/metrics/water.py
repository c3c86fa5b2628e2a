"""How much water a beam has crossed, and how far off that is in a synthetic CT: water-equivalent path lengths.

Beams are parallel. A voxel is a box of one value, and what a ray crosses of each box is taken exactly; what is outside
the volume counts as nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError, InputError
from medgan.metrics.curves import CURVES, PHOTONS, PROTONS, Curve, curve_of, read_curve
from medgan.metrics.rays import Rays

__all__ = [
    "ANGLES_DEG",
    "CURVES",
    "PHOTONS",
    "PROTONS",
    "Curve",
    "beam_direction",
    "curve_of",
    "read_curve",
    "wepl",
    "wepl_scores",
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

ANGLES_DEG = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)
_TISSUE = 0.5  # of water: less than this is air, inside the body or around it
_SLAB_VALUES = 1 << 19


# --- what is asked ----------------------------------------------------------------------------------------------------


def beam_direction(angle_deg: float) -> Vector:
    """Where a beam goes, as a unit vector of the array axes, in a volume whose axes run RAS.

    Angles are those of a gantry about a patient on the back with the head first (IEC 61217): 0° comes from the front,
    90° from the patient's left, 180° from the back.

    Raises:
        InputError: if the angle is not finite.

    Example:
        >>> beam_direction(0), beam_direction(90)
        ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0))
    """
    if not np.isfinite(angle_deg):
        raise InputError(f"an angle is a finite number of degrees; seen {angle_deg:g}")
    x, y = np.round([np.sin(np.radians(angle_deg)), -np.cos(np.radians(angle_deg))], 15) + 0.0
    return float(x), float(y), 0.0


def wepl(
    volume_hu: Array,
    *,
    spacing_mm: Sequence[float],
    direction: float | Sequence[float],
    curve: Curve = PROTONS,
) -> Floats:
    """Water-equivalent path length, mm, of a beam from where it enters to the centre of each voxel: ∫ curve(HU) ds.

    Args:
        volume_hu: (X, Y, Z), HU.
        spacing_mm: distance between voxel centres along each array axis, mm.
        direction: where the beam goes: a vector along the array axes, of any length but in mm; or a number, the
            angle of a gantry as of `beam_direction`, for a volume whose axes run RAS.
        curve: values relative to water: `PROTONS`, `PHOTONS` or one of your own.

    Returns:
        (X, Y, Z) float64; NaN behind voxels that are not finite.

    Raises:
        GeometryError: if the volume is not 3-D or there are not three positive spacings.
        InputError: if the direction is none.

    Source:
        Siddon, "Fast calculation of the exact radiological path for a three-dimensional CT array", Med Phys 12(2),
        1985, for the path through voxels.

    Example:
        >>> wepl(np.zeros((3, 1, 1)), spacing_mm=(2, 2, 2), direction=(1, 0, 0)).ravel().tolist()  # water
        [1.0, 3.0, 5.0]
    """
    volume_hu = np.asanyarray(volume_hu)
    rays = Rays.of(_checked_shape(volume_hu), _spacings(spacing_mm), _vector(direction))
    columns = rays.columns(curve(volume_hu))
    lengths = np.empty_like(columns)
    if rays.meet_centres:
        for k, centres in enumerate(islice(rays.walked(columns), 0, None, 2)):
            lengths[k] = centres[rays.met(rays.rows(k))]
    else:
        for k in range(len(columns)):
            lengths[k] = rays.walked_to(columns, k)
    return rays.volume(lengths)


def wepl_scores(
    pred_hu: Array,
    ref_hu: Array,
    mask: Array | None = None,
    *,
    spacing_mm: Sequence[float],
    angles_deg: Sequence[float] = ANGLES_DEG,
    curve: Curve = PROTONS,
) -> dict[str, float]:
    """Errors of water-equivalent path length (WEPL) and of range along parallel beams in the plane of the first axes.

    Rays are one row of voxels apart, and looked at where they cross the middle of a column of voxels, at the places
    that lie in the mask and, on their ray, not before the first or behind the last tissue of the reference: there
    `wepl_mae` is the mean |WEPL in the prediction − WEPL in the reference|, mm, and `wepl_bias` the mean of the
    difference. The last such place of a ray is the distal edge, and the WEPL of the reference there is the range of a
    beam that just reaches it. The shift is how far behind (or before) the edge that beam ends in the prediction.
    `range_error` is the mean |shift| over rays, mm, `range_error_p95` its 95th percentile, and `range_error_percent`
    the mean |shift| in percent of the mean range: rays that only graze the body have short ranges, and would rule a
    mean of percentages. What lies both behind the edge and behind the last tissue of the prediction (more than half as
    dense as water) counts as water: else a beam that leaves the body would seem to go on through all the air behind.

    Args:
        pred_hu: (X, Y, Z), HU, axes running RAS.
        ref_hu: (X, Y, Z), HU, on the same grid.
        mask: (X, Y, Z), a target to be reached, any non-zero voxel counts; None is all tissue of the reference.
        spacing_mm: distance between voxel centres along each array axis, mm.
        angles_deg: of the gantry, as of `beam_direction`.
        curve: values relative to water: `PROTONS`, `PHOTONS` or one of your own.

    Returns:
        The five numbers; NaN where a ray meets a voxel that is not finite, and of the ranges where none is.

    Raises:
        GeometryError: if the shapes differ or there are not three positive spacings.
        InputError: if the mask is empty, or there is no angle.

    Example:
        >>> water = np.zeros((10, 10, 1))
        >>> scores = wepl_scores(water + 41.46, water, spacing_mm=(1, 1, 1), angles_deg=(0,))  # 4.867 % denser
        >>> round(scores["wepl_mae"], 5), round(scores["range_error"], 5)  # at 5 and at 9.5 mm
        (0.24335, 0.44091)
    """
    pred_hu, ref_hu = np.asanyarray(pred_hu), np.asanyarray(ref_hu)
    inside = _checked_mask(pred_hu, ref_hu, mask)
    spacing, directions = _spacings(spacing_mm), [beam_direction(angle) for angle in angles_deg]
    if not directions:
        raise InputError("angles_deg is empty: name the angles of the beams, in degrees")
    sums, shifts, ranges = np.zeros(3), [np.empty(0)], [np.empty(0)]
    for slab in _slabs(ref_hu.shape):
        pred, ref = curve(pred_hu[slab]), curve(ref_hu[slab])
        tissue = ~(ref <= _TISSUE)  # of NaN it is not sure that it is none
        marked = tissue if inside is None else inside[slab]
        for direction in directions if marked.any() else ():
            beam = _Beam.through(pred, ref, marked, tissue, Rays.of(ref.shape, spacing, direction))
            sums += beam.sums()
            shift, distance = beam.shifts()
            shifts.append(shift)
            ranges.append(distance)
    return _scores(sums, np.concatenate(shifts), np.concatenate(ranges))


def _scores(sums: Floats, shifts: Floats, ranges: Floats) -> dict[str, float]:
    count, total, absolute = sums
    known = shifts.size > 0
    return {
        "wepl_mae": float(absolute / count) if count else float("nan"),
        "wepl_bias": float(total / count) if count else float("nan"),
        "range_error": float(np.abs(shifts).mean()) if known else float("nan"),
        "range_error_p95": float(np.percentile(np.abs(shifts), 95)) if known else float("nan"),
        "range_error_percent": float(100 * np.abs(shifts).mean() / ranges.mean()) if known else float("nan"),
    }


def _checked_shape(volume: Array) -> tuple[int, int, int]:
    if volume.ndim != 3 or not volume.size:
        raise GeometryError(f"a volume is 3-D, with voxels; seen shape {volume.shape}")
    x, y, z = volume.shape
    return x, y, z


def _checked_mask(pred: Array, ref: Array, mask: Array | None) -> Array | None:
    shapes = [np.shape(array) for array in (pred, ref) if array is not None]
    _checked_shape(ref)
    inside = None if mask is None else np.asarray(mask).astype(bool, copy=False)
    if pred.shape != ref.shape or (inside is not None and inside.shape != ref.shape):
        seen = f"{shapes[0]}, {shapes[1]}" + ("" if inside is None else f", {inside.shape}")
        raise GeometryError(f"prediction, reference and mask are 3-D and of one shape; seen {seen}")
    if inside is not None and not inside.any():
        raise InputError("the mask is empty: it marks no voxel to score; give a mask with non-zero voxels, or none")
    return inside


def _spacings(spacing_mm: Sequence[float]) -> Floats:
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise GeometryError(f"spacing_mm is one positive number for each of 3 axes; seen {tuple(spacing_mm)}")
    return spacing


def _vector(direction: float | Sequence[float]) -> Floats:
    named = beam_direction(direction) if isinstance(direction, int | float) else direction
    vector = np.asarray(named, dtype=np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all() or not vector.any():
        raise InputError(f"a direction is an angle in degrees or three numbers that are not all 0; seen {direction}")
    return np.asarray(vector / np.linalg.norm(vector))


def _slabs(shape: Sequence[int]) -> Iterator[tuple[slice, slice, slice]]:
    """Some slices at a time: beams stay within theirs."""
    thickness = max(1, _SLAB_VALUES // (shape[0] * shape[1]))
    for start in range(0, shape[2], thickness):
        yield slice(None), slice(None), slice(start, start + thickness)


# --- beams ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Beam:
    """What rays meet in prediction and reference, one ray a column of these arrays; only rays that meet the mask.

    Args:
        pred: (2K + 1, N) mm of water where they enter, in the middle and at the end of each of K columns.
        ref: (2K + 1, N).
        marked: (K, N) where the middle of a column lies in the mask.
        step_mm: from column to column.
    """

    pred: Floats
    ref: Floats
    marked: Array
    step_mm: float

    @classmethod
    def through(cls, pred: Floats, ref: Floats, marked: Array, tissue: Array, rays: Rays) -> Self:
        """The rays that meet the mask in a slab, in the body: of a mask with a rim the air around it does not count."""
        seen = rays.over_rays(rays.columns(marked)) & _from_first_to_last(rays.over_rays(rays.columns(tissue)))
        meets = np.asarray(seen.any(axis=0))
        pred, ref = (_profile(rays, volume, meets) for volume in (pred, ref))
        return cls(pred, ref, seen[:, meets], rays.step_mm)

    def sums(self) -> Floats:
        """(3,) the number of places in the mask, and the sums of differences and of absolute differences, mm."""
        differences = (self.pred[1::2] - self.ref[1::2])[self.marked]
        return np.array([differences.size, differences.sum(), np.abs(differences).sum()])

    def shifts(self) -> tuple[Floats, Floats]:
        """For each ray how far behind the distal edge a beam ends that should reach it, and its range, mm."""
        edges = 2 * (len(self.marked) - 1 - self.marked[::-1].argmax(axis=0)) + 1
        ranges = np.take_along_axis(self.ref, edges[None], axis=0)[0]
        depths = _depths(self.pred, ranges, self._ends(edges), self.step_mm / 2)
        return (depths - edges) * self.step_mm / 2, ranges

    def _ends(self, edges: Array) -> Array:
        """Behind each ray's last tissue in the prediction, and behind the column of its distal edge."""
        is_tissue = ~(np.diff(self.pred[::2], axis=0) <= _TISSUE * self.step_mm)  # nor is it sure that NaN is none
        ends = np.where(is_tissue.any(axis=0), 2 * (len(is_tissue) - is_tissue[::-1].argmax(axis=0)), 0)
        return np.asarray(np.maximum(ends, edges + 1))


def _from_first_to_last(tissue: Array) -> Array:
    """(K, …) the places from a ray's first tissue to its last."""
    first, behind = tissue.argmax(axis=0), len(tissue) - tissue[::-1].argmax(axis=0)
    places = np.arange(len(tissue))[:, None, None]
    return np.asarray((places >= first) & (places < behind) & tissue.any(axis=0))


def _depths(waters: Floats, ranges: Floats, ends: Array, step_mm: float) -> Floats:
    """(N,) after how many steps there is so much water, behind the ends of which water goes on."""
    count = np.sum(waters < ranges, axis=0)
    after = np.clip(count, 1, ends)
    low, high, at_end = (np.take_along_axis(waters, n[None], axis=0)[0] for n in (after - 1, after, ends))
    with np.errstate(invalid="ignore", divide="ignore"):
        within = after - 1 + (ranges - low) / (high - low)
    return np.asarray(np.where(count > ends, ends + (ranges - at_end) / step_mm, within))


def _profile(rays: Rays, volume: Floats, meets: Array) -> Floats:
    profile = np.zeros((2 * rays.shape[0] + 1, int(meets.sum())))
    for place, total in enumerate(rays.walked(rays.columns(volume)), 1):
        profile[place] = total[meets]
    return profile
