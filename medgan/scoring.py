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
from medgan.metrics.measures import base_of, measure
from medgan.metrics.presets import PRESETS, Preset
from medgan.metrics.regions import Region, region_scores
from medgan.metrics.slices import slice_jump, slice_roughness
from medgan.metrics.water import ANGLES_DEG, Curve, wepl_scores
from medgan.prep import NORMALISED_UNIT
from medgan.resample import resample
from medgan.volume import Grid, Volume

__all__ = ["SCORED", "Row", "Scoring", "blank", "preset_of", "score"]

Row = dict[str, Any]
Range = tuple[float, float]
Array = npt.NDArray[Any]

UNKNOWN_UNIT, HU = "a.u.", "HU"
STD = "standard deviation"
SCORED = "scored"
TOLERANCE_MM = 0.01
COVERAGE = tuple(f"coverage_{100 * level:.0f}" for level in LEVELS)
CALIBRATION = (*COVERAGE, "miscalibration", "ence", "spearman", "sigma_scale", "mean_sigma", "zero_sigma_share")
WATER = ("wepl_mae", "wepl_bias", "range_error", "range_error_percent")
SLICES = {"slice_roughness": slice_roughness, "slice_jump": slice_jump}
_AXES = {"x": 0, "y": 1, "z": 2}  # left-right, back-front, bottom-top
_TILT_DEG = 1.0  # more is worth a note
_BY_REGION = {"mae", "bias", "volume_error", "dice", "surface_distance", "hd95"}
_REASONS = {  # why there is no number
    **dict.fromkeys(("ssim", "ms_ssim"), "no scored voxel is far enough inside the volume at every scale"),
    **dict.fromkeys(SLICES, "there are no neighbours to compare, or an image does not change"),
    **dict.fromkeys(("dice", "hd95", "surface_dice"), "the reference has no label"),
    **dict.fromkeys(WATER, "no beam meets tissue in the mask"),
    "nmse": "the reference is 0",
    "nmi": "both images are constant",
    "gradient_error": "no voxel has all its neighbours in the mask",
}


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
        unit: of images that state none.
        wepl: the curve by which errors of water-equivalent path length are computed, if they are.
        angles_deg: of the gantry, for them: 0 from the front, 90 from the patient's left.
    """

    preset: str = "synthrad2023"
    value_range: Range | None = None
    across: str = "z"
    regions: tuple[Region, ...] = ()
    labels: Mapping[int, str] | None = None
    tolerance_mm: float = TOLERANCE_MM
    resample: bool = False
    unit: str = UNKNOWN_UNIT
    wepl: Curve | None = None
    angles_deg: tuple[float, ...] = ANGLES_DEG


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
            are swapped, `std` is none, or regions or path lengths are asked of values that are not HU.
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
    unit = _common_unit(pred, ref, how, case)
    _refuse_without_hu(unit, how, case)
    placed = _placed(pred, ref, mask, how, case)
    sigma = None if std is None else _sigma(std, pred, ref, how, case)
    found = None if sigma is None else calibration(placed.pred, placed.ref, sigma, placed.mask)
    organs = {} if labels is None else _organs(labels, ref, how, case)
    numbers = {**_numbers(placed, preset, how), **(_calibrated(found) if found else {}), **organs}
    assumed = (*_assumed(pred.unit, ref.unit, unit, how.value_range), *_tilted(placed.grid, how))
    return {
        **blank(case, SCORED, how),
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        **({"error_by_sigma": [asdict(one) for one in found.bins]} if found else {}),
        "dtype": f"{pred.array.dtype}/{ref.array.dtype}",
        "unit": unit,
        "num_voxels": placed.ref.size if placed.mask is None else int(np.count_nonzero(placed.mask)),
        "mask": mask is not None,
        "infinite": ", ".join(name for name, value in numbers.items() if _is_perfect(name, value)),
        "note": "; ".join((*placed.notes, *_explained(numbers, preset, placed), *assumed)),
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
        **_beams(how),
        "dtype": "",
        "unit": "",
        "num_voxels": 0,
        "mask": False,
        "infinite": "",
        "note": note or ("" if status == SCORED else f"{status}: not scored"),
    }


def _beams(how: Scoring) -> dict[str, str]:
    angles = ", ".join(f"{angle:g}" for angle in how.angles_deg)
    return {} if how.wepl is None else {"wepl_curve": how.wepl.name, "wepl_angles": angles}


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


def _common_unit(pred: Volume, ref: Volume, how: Scoring, case: str) -> str:
    """The unit of both; one that is not stated is taken to be the other's, or what was said of such images."""
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
    return stated.pop() if stated else how.unit


def _refuse_without_hu(unit: str, how: Scoring, case: str) -> None:
    asked = {"regions are ranges of HU": how.regions, "a curve of path lengths is one of HU": how.wepl}
    for what, given in asked.items():
        if given and unit != HU:
            way = "say --unit HU if they are in HU" if unit == UNKNOWN_UNIT else "score them without"
            raise InputError(f"case {case!r}: {what}, the images are in {unit}; {way}")


def _placed(pred: Volume, ref: Volume, mask: Volume | None, how: Scoring, case: str) -> _Placed:
    reference = ref.reorient("RAS")
    image, notes = _on_grid(pred, reference, "prediction", how, case)
    inside, told = (None, ()) if mask is None else _on_grid(mask, reference, "mask", how, case, order=0)
    marked = None if inside is None else inside.array != 0
    if marked is not None and not marked.any():
        raise InputError(f"case {case!r}: the mask is empty; it has to mark the voxels to score")
    graded = () if inside is None or marked is None else tuple(_graded(inside.array, marked))
    return _Placed(image.array, reference.array, marked, reference.grid, (*notes, *told, *graded))


def _graded(mask: Array, marked: Array) -> Iterator[str]:
    """A mask of several values may be an image or probabilities that was named by mistake."""
    if (marked & (mask != mask.max())).any():
        values = mask[marked]
        yield f"the mask has values from {values.min():g} to {values.max():g}, and all but 0 count"


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
            f"the {what} was resampled to the reference ({way}, from {volume.grid.describe()}, "
            f"where {100 * share:.2g} % of the reference lie outside it and repeat its rim)",
        )
    apart = f", {volume.grid.distance_mm(ref.grid):.3g} mm apart" if volume.grid.shape == ref.grid.shape else ""
    raise GeometryError(
        f"case {case!r}: the {what} is not on the reference's grid: {volume.grid.describe()} "
        f"and {ref.grid.describe()}{apart}; resample it first, or ask for it by --resample-to reference"
    )


def _share_outside(grid: Grid, ref: Grid) -> float:
    """The share of a reference's voxels whose centres lie more than half a voxel outside a grid."""
    places = np.stack(np.meshgrid(*(np.linspace(0, n - 1, min(n, 64)) for n in ref.shape), indexing="ij"), axis=-1)
    index = grid.to_index(ref.to_world(places.reshape(-1, 3)))
    inside = ((index >= -0.5) & (index <= np.array(grid.shape) - 0.5)).all(axis=1)
    return float(1 - inside.mean())


# --- numbers ----------------------------------------------------------------------------------------------------------


def _numbers(placed: _Placed, preset: Preset, how: Scoring) -> dict[str, float]:
    images, spacing = (placed.pred, placed.ref, placed.mask), placed.grid.spacing_mm
    numbers = dict(preset.score(*images, how.value_range, spacing_mm=spacing))
    numbers |= {name: metric(*images, _AXES[how.across]) for name, metric in SLICES.items()}
    if how.regions:
        numbers |= region_scores(*images, spacing_mm=spacing, regions=how.regions)
    if how.wepl:
        numbers |= wepl_scores(*images, spacing_mm=spacing, curve=how.wepl, angles_deg=how.angles_deg)
    return numbers


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


def _explained(numbers: Mapping[str, float], preset: Preset, placed: _Placed) -> Iterator[str]:
    """What a preset tells of a pair, and why the other numbers are missing that are."""
    told = preset.told(placed.pred, placed.ref, placed.mask)
    yield from (note.text for note in told)
    known = {name for note in told for name in note.explains}
    for name, value in numbers.items():
        if not math.isfinite(value) and name not in known:
            yield f"{name} is {_why(name, value)}"


def _is_perfect(name: str, value: float) -> bool:
    """Infinitely good, as a PSNR without error; an infinite error is none, but that of a voxel that is not finite."""
    return value == math.inf and measure(name).better == "higher"


def _why(name: str, value: float) -> str:
    """What there is instead of a number, and what may be the reason."""
    if _is_perfect(name, value):
        return "infinite: no error is left in the range"
    if name in CALIBRATION:
        return "undefined: the errors or the standard deviation are the same everywhere"
    base = base_of(name)
    known = "neither image has the region" if base in _BY_REGION and name != base else _REASONS.get(base)
    return f"undefined: {', or '.join(filter(None, (known, 'a voxel is not finite')))}"


def _assumed(pred: str, ref: str, unit: str, value_range: Range | None) -> Iterator[str]:
    if pred != ref:
        yield f"the {'prediction' if pred == UNKNOWN_UNIT else 'reference'} states no unit, taken as {unit}"
    elif pred != unit:
        yield f"no image states its unit, taken as {unit}"
    if value_range is not None:
        yield "the range is not the preset's"
    elif unit != HU:
        yield f"the range is the preset's for HU, the unit is {unit}"


def _tilted(grid: Grid, how: Scoring) -> Iterator[str]:
    """Beams run along the axes of the array."""
    angle = math.degrees(math.acos(min(1.0, float(np.diag(grid.direction).min()))))
    if how.wepl and angle > _TILT_DEG:
        yield f"beams run in the plane of the slices, whose axes are up to {angle:.1f}° off the patient's"
