"""How good a synthetic CT is in air, lung, soft tissue and bone: error, volume and overlap by range of HU.

The voxels of a region are those whose REFERENCE lies in its range, so that every method is scored on the same ones.
Volume, Dice and surfaces hold the thresholded prediction against the thresholded reference. All of it inside the mask.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_fill_holes, label

from medgan.errors import GeometryError, InputError
from medgan.metrics.surfaces import checked_spacing, diagonal_mm, joint_box, surface_distances

__all__ = ["BODY_HU", "HU_REGIONS", "Region", "body", "parse_region", "region_scores"]

Array = npt.NDArray[Any]

BODY_HU = -500.0  # half-way between air and water

_BONE = "bone"  # the region whose surface is measured
_SLAB_VOXELS = 2**18
_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_REGION = re.compile(rf"(\w+)=({_NUMBER})?\.\.({_NUMBER})?", re.ASCII)


@dataclass(frozen=True)
class Region:
    """A range of HU with a name, `low <= HU < high`.

    Args:
        name: letters, digits and `_`; part of the names of its columns.
        low: lowest value that belongs to it; −∞ for none.
        high: lowest value above it; +∞ for none.

    Raises:
        InputError: if the name is none, or no value lies between the limits.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.name, re.ASCII):
            raise InputError(f"the name of a region has letters, digits and _ only; seen {self.name!r}")
        if not self.low < self.high:
            raise InputError(f"region {self.name}: its low limit is below its high one; seen {self.low}..{self.high}")

    def holds(self, image: Array) -> Array:
        """Which voxels lie in the range."""
        return np.asarray((image >= self.low) & (image < self.high))


HU_REGIONS = (
    Region("air", -np.inf, -950.0),
    Region("lung", -950.0, -200.0),
    Region("soft_tissue", -200.0, 200.0),
    Region("bone", 200.0, np.inf),
)


def parse_region(text: str) -> Region:
    """A region from `NAME=LOW..HIGH`; a limit that is left out is infinite, HIGH itself is outside.

    Raises:
        InputError: if the text is none.

    Example:
        >>> parse_region("bone=150..3071"), parse_region("gas=..-200").low
        (Region(name='bone', low=150.0, high=3071.0), -inf)
    """
    found = _REGION.fullmatch(text.strip().replace("−", "-"))
    if not found:
        raise InputError(f"a region is NAME=LOW..HIGH in HU, such as bone=200..3071 or air=..-950; seen {text!r}")
    name, low, high = found.groups()
    return Region(name, float(low or "-inf"), float(high or "inf"))


def region_scores(
    pred: Array,
    ref: Array,
    mask: Array | None = None,
    *,
    spacing_mm: Sequence[float],
    regions: Sequence[Region] = HU_REGIONS,
) -> dict[str, float]:
    """Scores of one pair by region, by column.

    Over the voxels of the mask whose reference lies in the range: `mae_<region>` and `bias_<region>` (mean of
    prediction − reference), HU. Of the voxels of the mask whose prediction (P) and whose reference (R) lies in it:
    `volume_error_<region>` |P| − |R| in ml, and `dice_<region>` 2|P∩R| / (|P| + |R|), no unit. NaN where neither image
    has the region; Dice is 0 where one has it.

    `surface_distance_body`, and `surface_distance_bone` and `hd95_bone` if a region is called bone, in mm: the mean
    symmetric distance and the HD95 of `medgan.metrics.surfaces`, the ends of the volume left open. Where one image
    lacks the shape they are the diagonal of the volume; NaN where neither has a surface. For the body see `body`.

    All are NaN if a voxel of the mask is not finite.

    Args:
        pred: (X, Y, Z), HU.
        ref: (X, Y, Z), HU.
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
        spacing_mm: distance between voxel centres along each array axis.
        regions: with names of their own; they may overlap, and leave gaps.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if the mask is empty, two regions have one name or none is given, or the spacing is none.

    Source:
        Limits: −950 HU of air and lung from Schneider, Bortfeld, Schlegel, "Correlation between CT numbers and tissue
        parameters needed for Monte Carlo simulations", Phys. Med. Biol. 45, 2000; ±200 HU as is common for synthetic
        CT.

    Example:
        >>> ref = np.array([[[-1000.0, 40.0, 60.0, 500.0]]])
        >>> pred = np.array([[[-990.0, 50.0, 300.0, 460.0]]])
        >>> found = region_scores(pred, ref, spacing_mm=(10, 10, 10))
        >>> found["mae_soft_tissue"], found["bias_bone"], found["volume_error_bone"], round(found["dice_bone"], 3)
        (125.0, -40.0, 1.0, 0.667)
    """
    spacing = checked_spacing(spacing_mm).tolist()
    pred, ref, inside = _checked(pred, ref, mask)
    _refuse_doubles(regions)
    totals = _totals(pred, ref, inside, regions)
    by_region = [_of_region(row, math.prod(spacing) / 1000) for row in totals]
    scores = {
        f"{score}_{region.name}": value
        for region, row in zip(regions, by_region, strict=True)
        for score, value in row.items()
    }
    scores |= _surface_scores(pred, ref, inside, spacing, next((one for one in regions if one.name == _BONE), None))
    return dict.fromkeys(scores, math.nan) if np.isnan(totals).any() else scores


def body(image: Array, mask: Array | None = None) -> Array:
    """The patient in a CT: the largest connected part above −500 HU, its holes filled slice by slice.

    Voxels connect through their faces. Slices run across the last axis; in each, all that the part encloses is filled,
    lungs and airways too, which in three dimensions are open to the outside.

    Args:
        image: (X, Y, Z), HU.
        mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.

    Returns:
        (X, Y, Z), bool, inside the mask but for what is filled; empty where nothing is above −500 HU.

    Example:
        >>> image = np.full((8, 8, 1), -1000.0)
        >>> image[2:7, 2:7], image[4, 4], image[0, 0] = 0, -900, 40
        >>> int(body(image).sum())
        25
    """
    found = np.ascontiguousarray(np.asarray(image) > BODY_HU)
    if mask is not None:
        found &= np.asarray(mask).astype(bool, copy=False)
    box = joint_box(found, found)
    part = _largest(found[box])
    for plane in np.moveaxis(part, 2, 0):
        binary_fill_holes(plane, output=plane)
    found[...] = False
    found[box] = part
    return found


def _largest(found: Array) -> Array:
    parts, number = label(found)
    if number < 2:
        return found.copy()
    sizes = np.zeros(number + 1, dtype=np.int64)
    for plane in parts:
        sizes += np.bincount(plane.ravel(), minlength=number + 1)
    return np.asarray(parts == 1 + sizes[1:].argmax())


def _totals(pred: Array, ref: Array, inside: Array, regions: Sequence[Region]) -> Array:
    """(R, 5) for each region: voxels in the reference, in the prediction, in both, and the sums of |error| and error.

    All NaN if a voxel is not finite.
    """
    totals = np.zeros((len(regions), 5))
    for p, r in _lines(pred, ref, inside):
        if not (np.isfinite(p).all() and np.isfinite(r).all()):
            return np.full_like(totals, np.nan)
        error = p - r
        totals += [_sums(region.holds(p), region.holds(r), error) for region in regions]
    return totals


def _sums(in_pred: Array, in_ref: Array, error: Array) -> list[float]:
    own = error[in_ref]
    counts = [float(np.count_nonzero(one)) for one in (in_ref, in_pred, in_pred & in_ref)]
    return [*counts, float(np.abs(own).sum()), float(own.sum())]


def _lines(pred: Array, ref: Array, inside: Array) -> Iterator[tuple[Array, Array]]:
    """The voxels of the mask of both images, float64, part by part along the axis that is slowest in memory."""
    order = np.argsort([-abs(stride) for stride in ref.strides], kind="stable")
    pred, ref, inside = pred.transpose(order), ref.transpose(order), inside.transpose(order)
    step = max(1, _SLAB_VOXELS // (ref.shape[1] * ref.shape[2]))
    for part in (slice(start, start + step) for start in range(0, len(ref), step)):
        kept = inside[part]
        yield pred[part][kept].astype(np.float64), ref[part][kept].astype(np.float64)


def _of_region(totals: Array, voxel_ml: float) -> dict[str, float]:
    num_ref, num_pred, num_both, absolute, signed = totals.tolist()
    return {
        "mae": _ratio(absolute, num_ref),
        "bias": _ratio(signed, num_ref),
        "volume_error": (num_pred - num_ref) * voxel_ml if num_pred + num_ref else math.nan,
        "dice": _ratio(2 * num_both, num_pred + num_ref),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _surface_scores(
    pred: Array, ref: Array, inside: Array, spacing: Sequence[float], bone: Region | None
) -> dict[str, float]:
    mean, _ = _apart(body(pred, inside), body(ref, inside), spacing)
    scores = {"surface_distance_body": mean}
    if bone:
        mean, hd95 = _apart(bone.holds(pred) & inside, bone.holds(ref) & inside, spacing)
        scores |= {f"surface_distance_{bone.name}": mean, f"hd95_{bone.name}": hd95}
    return scores


def _apart(a: Array, b: Array, spacing: Sequence[float]) -> tuple[float, float]:
    """Mean surface distance and HD95; the worst there is where one of them alone is there, or has a surface."""
    found = surface_distances(a, b, spacing, open_ends=True)
    if bool(found.from_a.size) == bool(found.from_b.size) and a.any() == b.any():
        return found.mean(), found.hd95()
    worst = diagonal_mm(a.shape, spacing)
    return worst, worst


def _refuse_doubles(regions: Sequence[Region]) -> None:
    names = [region.name for region in regions]
    if not names or len(set(names)) < len(names):
        raise InputError(f"regions, one at least, have names of their own; seen {', '.join(names) or 'none'}")


def _checked(pred: Array, ref: Array, mask: Array | None) -> tuple[Array, Array, Array]:
    """The images and the mask as booleans."""
    inside = np.ones(np.shape(ref), dtype=bool) if mask is None else np.asarray(mask).astype(bool, copy=False)
    if not np.shape(pred) == np.shape(ref) == inside.shape or inside.ndim != 3:
        seen = f"{np.shape(pred)}, {np.shape(ref)}, {inside.shape}"
        raise GeometryError(f"prediction, reference and mask are 3-D and of one shape; seen {seen}")
    if not inside.any():
        raise InputError("the mask is empty: it marks no voxel to score; give a mask with non-zero voxels, or none")
    return np.asarray(pred), np.asarray(ref), inside
