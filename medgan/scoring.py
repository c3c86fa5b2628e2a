"""One prediction against its reference, both in memory: proved to be comparable, scored, one row.

What cannot be compared is refused with the reason; what was assumed stands in the row's note.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError, InputError
from medgan.metrics.calibration import LEVELS, Calibration, calibration
from medgan.metrics.labels import label_scores
from medgan.metrics.presets import PRESETS, Preset
from medgan.metrics.regions import Region, region_scores
from medgan.metrics.slices import slice_jump, slice_roughness
from medgan.prep import NORMALISED_UNIT, resample
from medgan.volume import Grid, Volume

__all__ = ["SCORED", "Row", "Scoring", "blank", "preset_of", "score"]

Row = dict[str, Any]
Range = tuple[float, float]
Array = npt.NDArray[Any]

UNKNOWN_UNIT = "a.u."
STD = "standard deviation"
SCORED = "scored"
TOLERANCE_MM = 0.01
COVERAGE = tuple(f"coverage_{100 * level:.0f}" for level in LEVELS)
CALIBRATION = (*COVERAGE, "miscalibration", "ence", "spearman", "sigma_scale", "mean_sigma", "zero_sigma_share")
SLICES = {"slice_roughness": slice_roughness, "slice_jump": slice_jump}
_AXES = {"x": 0, "y": 1, "z": 2}  # left-right, back-front, bottom-top


@dataclass(frozen=True)
class Scoring:
    """How predictions are compared with references; it is the same for all cases.

    Args:
        preset: a name of `PRESETS`.
        value_range: lowest and highest value in place of the preset's.
        across: slices are compared along this axis of the patient: `x` left-right, `y` back-front, `z` bottom-top.
        regions: ranges of the reference's values that are scored on their own, HU.
        labels: names of the labels of segmentations; numbers where they have none.
        tolerance_mm: how far voxels of one place may lie apart.
        resample: whether a prediction on another grid is resampled to the reference's instead of refused.
    """

    preset: str = "synthrad2023"
    value_range: Range | None = None
    across: str = "z"
    regions: tuple[Region, ...] = ()
    labels: Mapping[int, str] | None = None
    tolerance_mm: float = TOLERANCE_MM
    resample: bool = False


@dataclass(frozen=True)
class _Placed:
    """Arrays of a case on the reference's grid, in RAS order, and what was done to get there."""

    pred: Array
    ref: Array
    mask: Array | None
    grid: Grid
    notes: tuple[str, ...]


def score(
    pred: Volume,
    ref: Volume,
    mask: Volume | None = None,
    *,
    case: str = "",
    how: Scoring | None = None,
    std: Volume | None = None,
    labels: tuple[Volume, Volume] | None = None,
) -> Row:
    """The row of one pair that is in memory; see `medgan.evaluate`.

    Args:
        pred: predicted volume.
        ref: reference volume.
        mask: any non-zero voxel counts; None is the whole volume.
        case: name written into the row and into errors.
        how: preset, range, regions and the like.
        std: standard deviation of each voxel of `pred`.
        labels: segmentations of the prediction and of the reference.

    Raises:
        InputError: if the preset is unknown, the mask is empty, the units or modalities contradict each other, the two
            are swapped, `std` is none, or regions are asked of values that are not HU.
        GeometryError: if the volumes do not lie on one grid.

    Example:
        >>> from medgan import Grid
        >>> ref = Volume(np.zeros((8, 8, 8)), Grid.regular((8, 8, 8)), unit="HU")
        >>> score(ref.with_array(ref.array + 4), ref)["mae"]
        4.0
    """
    how = how or Scoring()
    preset = preset_of(how.preset)
    _refuse_strange(pred, ref, case)
    unit = _common_unit(pred, ref, case)
    placed = _placed(pred, ref, mask, how, case)
    numbers = _numbers(placed, preset, how, unit)
    found = None if std is None else _calibration(placed, _sigma(std, pred, ref, how, case))
    told = _calibrated(found) if found else {}
    organs = {} if labels is None else _organs(labels, ref, how, case)
    return {
        **blank(case, SCORED, how),
        **{name: value if math.isfinite(value) else None for name, value in {**numbers, **told, **organs}.items()},
        **({"error_by_sigma": [asdict(one) for one in found.bins]} if found else {}),
        "dtype": f"{pred.array.dtype}/{ref.array.dtype}",
        "unit": unit,
        "num_voxels": placed.ref.size if placed.mask is None else int(placed.mask.sum()),
        "mask": mask is not None,
        "note": "; ".join(
            (
                *placed.notes,
                *(known := preset.notes(placed.pred, placed.ref, placed.mask)),
                *_undefined({**numbers, **told}, is_known=bool(known)),
                *_assumed(pred.unit, ref.unit, unit, how.value_range),
            )
        ),
    }


def blank(case: str, status: str, how: Scoring, note: str = "") -> Row:
    """The row of a case without numbers."""
    preset = preset_of(how.preset)
    return {
        "case": case,
        "status": status,
        "preset": preset.name,
        "range": [float(value) for value in how.value_range or preset.value_range],
        **dict.fromkeys((*preset.metrics, *SLICES)),
        "dtype": "",
        "unit": "",
        "num_voxels": 0,
        "mask": False,
        "note": note or ("" if status == SCORED else f"{status}: not scored"),
    }


def preset_of(name: str) -> Preset:
    """The preset of a name.

    Raises:
        InputError: if there is none.
    """
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is unknown (accepted: {', '.join(PRESETS)})")
    return PRESETS[name]


# --- is it comparable? ------------------------------------------------------------------------------------------------


def _refuse_strange(pred: Volume, ref: Volume, case: str) -> None:
    """A map in place of an image, two modalities, or the two arguments in the wrong order."""
    if pred.synthetic and pred.synthetic.quantity:
        raise InputError(f"case {case!r}: the prediction is the {pred.synthetic.quantity} of an image; name the image")
    if ref.synthetic and not pred.synthetic:
        raise InputError(
            f"case {case!r}: the reference says that it is synthetic, the prediction does not; swap them if they are "
            "in the wrong order, or score against a real image"
        )
    if pred.modality and ref.modality and pred.modality != ref.modality:
        raise InputError(
            f"case {case!r}: the prediction is {pred.modality}, the reference {ref.modality}; one of them is another "
            "image than was meant"
        )


def _common_unit(pred: Volume, ref: Volume, case: str) -> str:
    """The unit of both; one that is not stated is taken to be the other's."""
    if (pred.unit == NORMALISED_UNIT) != (ref.unit == NORMALISED_UNIT):
        raise InputError(
            f"case {case!r}: the prediction is in {pred.unit}, the reference in {ref.unit}; an image in "
            f"{NORMALISED_UNIT} values is compared in the unit of the run that made it: name the run by --run"
        )
    stated = {unit for unit in (pred.unit, ref.unit) if unit != UNKNOWN_UNIT}
    if len(stated) > 1:
        raise InputError(
            f"case {case!r}: the prediction is in {pred.unit}, the reference in {ref.unit}; convert one of them"
        )
    return stated.pop() if stated else UNKNOWN_UNIT


def _placed(pred: Volume, ref: Volume, mask: Volume | None, how: Scoring, case: str) -> _Placed:
    reference = ref.reorient("RAS")
    image, notes = _on_grid(pred, reference, "prediction", how, case)
    inside, told = (None, ()) if mask is None else _on_grid(mask, reference, "mask", how, case, order=0)
    marked = None if inside is None else inside.array != 0
    if marked is not None and not marked.any():
        raise InputError(f"case {case!r}: the mask is empty; it has to mark the voxels to score")
    return _Placed(image.array, reference.array, marked, reference.grid, (*notes, *told))


def _on_grid(
    volume: Volume, ref: Volume, what: str, how: Scoring, case: str, *, order: int = 1
) -> tuple[Volume, tuple[str, ...]]:
    """In the reference's order of axes, proved to have each voxel at its place; or resampled, and told."""
    volume = volume.reorient("RAS")
    if volume.grid.same_as(ref.grid, tolerance_mm=how.tolerance_mm):
        return volume, ()
    if how.resample:
        share = _share_outside(volume.grid, ref.grid)
        way = "nearest" if order == 0 else "linear"
        return resample(volume, ref.grid, order=order), (
            f"the {what} was resampled to the reference ({way}, from {volume.grid.describe()}; "
            f"{100 * share:.2g} % of the reference lie outside it and repeat its rim)",
        )
    apart = f", {volume.grid.distance_mm(ref.grid):.3g} mm apart" if volume.grid.shape == ref.grid.shape else ""
    raise GeometryError(
        f"case {case!r}: the {what} is not on the reference's grid: {volume.grid.describe()} "
        f"and {ref.grid.describe()}{apart}; resample it to the reference first, or ask for it by --resample"
    )


def _share_outside(grid: Grid, ref: Grid) -> float:
    """The share of a reference's voxels whose centres lie more than half a voxel outside a grid."""
    places = np.stack(np.meshgrid(*(np.linspace(0, n - 1, min(n, 64)) for n in ref.shape), indexing="ij"), axis=-1)
    index = grid.to_index(ref.to_world(places.reshape(-1, 3)))
    inside = ((index >= -0.5) & (index <= np.array(grid.shape) - 0.5)).all(axis=1)
    return float(1 - inside.mean())


# --- numbers ----------------------------------------------------------------------------------------------------------


def _numbers(placed: _Placed, preset: Preset, how: Scoring, unit: str) -> dict[str, float]:
    pred, ref, mask, spacing = placed.pred, placed.ref, placed.mask, placed.grid.spacing_mm
    numbers = dict(preset.score(pred, ref, mask, how.value_range, spacing_mm=spacing))
    numbers |= {name: metric(pred, ref, mask, _AXES[how.across]) for name, metric in SLICES.items()}
    if how.regions and unit != "HU":
        raise InputError(f"regions are ranges of HU, the images are in {unit}; score them without --region")
    return numbers | (region_scores(pred, ref, mask, spacing_mm=spacing, regions=how.regions) if how.regions else {})


def _calibration(placed: _Placed, sigma: Array) -> Calibration:
    return calibration(placed.pred, placed.ref, sigma, placed.mask)


def _sigma(std: Volume, pred: Volume, ref: Volume, how: Scoring, case: str) -> Array:
    """Standard deviations on the reference's grid, proved to be some, in the unit of the prediction."""
    quantity = std.synthetic.quantity if std.synthetic else STD
    if quantity != STD:
        raise InputError(
            f"case {case!r}: its standard deviation is {quantity or 'an image'}; name what translate wrote"
        )
    if not {std.unit, pred.unit} <= {UNKNOWN_UNIT, pred.unit}:
        raise InputError(f"case {case!r}: the prediction is in {pred.unit}, its standard deviation in {std.unit}")
    sigma = _on_grid(std, ref.reorient("RAS"), "standard deviation", how, case)[0].array
    if sigma.min() < 0:
        raise InputError(f"case {case!r}: its standard deviation is negative somewhere, which none can be")
    return sigma


def _calibrated(found: Calibration) -> dict[str, float]:
    return dict(zip(COVERAGE, found.coverage, strict=True)) | {
        "miscalibration": found.miscalibration,
        "ence": found.ence,
        "spearman": found.spearman,
        "sigma_scale": found.scale,
        "mean_sigma": found.mean_sigma,
        "zero_sigma_share": found.zero_share,
    }


def _organs(labels: tuple[Volume, Volume], ref: Volume, how: Scoring, case: str) -> dict[str, float]:
    reference = ref.reorient("RAS")
    names = ("prediction's segmentation", "reference's segmentation")
    found = [
        _on_grid(one, reference, what, how, case, order=0)[0].array for one, what in zip(labels, names, strict=True)
    ]
    return label_scores(found[0], found[1], spacing_mm=reference.grid.spacing_mm, labels=how.labels)


# --- notes ------------------------------------------------------------------------------------------------------------


def _undefined(numbers: Mapping[str, float], *, is_known: bool) -> Iterator[str]:
    """What is no number, and why, where the preset has not told it."""
    for name, value in numbers.items():
        if not math.isfinite(value):
            yield f"{name} is {'undefined' if is_known and math.isnan(value) else _why(name, value)}"


def _why(name: str, value: float) -> str:
    if name in SLICES:
        return "undefined: there are no neighbours to compare, or an image does not change"
    if name in CALIBRATION:
        return "undefined: the errors or the standard deviation are the same everywhere"
    if math.isinf(value):
        return "infinite: no error is left in the range"
    if "_" in name and name.rsplit("_", 1)[0] in {"mae", "bias", "dice", "volume_error"}:
        return "undefined: neither image has the region"
    return "undefined: no scored voxel is far enough inside the volume at every scale, or a voxel is not finite"


def _assumed(pred: str, ref: str, unit: str, value_range: Range | None) -> Iterator[str]:
    if pred != ref:
        yield f"the {'prediction' if pred == UNKNOWN_UNIT else 'reference'} states no unit, taken as {unit}"
    if value_range is not None:
        yield "the range is not the preset's"
    elif unit != "HU":
        yield f"the range is the preset's for HU, the unit is {unit}"
