"""Predicted volumes against their references: matched by case, checked, scored, written down."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from medgan import __version__
from medgan.atomic import replacing
from medgan.config import Config
from medgan.data import flat_axis
from medgan.diagram import draw_calibration
from medgan.errors import GeometryError, InputError
from medgan.formats import read
from medgan.formats.png import write_png
from medgan.match import Match, match
from medgan.metrics import LEVELS, PRESETS, Calibration, Preset, calibration, slice_jump, slice_roughness
from medgan.prep import NORMALISED_UNIT, Intensity, in_contract_unit
from medgan.processes import all_of, is_first, share
from medgan.progress import track
from medgan.run import open_run
from medgan.volume import Volume

__all__ = ["Row", "evaluate", "score", "summarise"]

Row = dict[str, Any]
Range = tuple[float, float]

UNKNOWN_UNIT = "a.u."
STD = "standard deviation"
SCORED, NO_PREDICTION, NO_REFERENCE = "scored", "no prediction", "no reference"
_COVERAGE = tuple(f"coverage_{100 * level:.0f}" for level in LEVELS)
_CALIBRATION = (*_COVERAGE, "miscalibration", "ence", "spearman", "sigma_scale", "mean_sigma", "zero_sigma_share")
_SLICES = {"slice_roughness": slice_roughness, "slice_jump": slice_jump}
_METRICS = (*dict.fromkeys(name for preset in PRESETS.values() for name in preset.metrics), *_SLICES, *_CALIBRATION)
_AXES = {"x": 0, "y": 1, "z": 2}  # left-right, back-front, bottom-top
_NUM_RESAMPLES, _SEED = 2000, 0


def evaluate(
    pred: Path | str,
    ref: Path | str,
    *,
    mask: Path | str | None = None,
    preset: str = "synthrad2023",
    out: Path | str | None = None,
    value_range: Range | None = None,
    run: Path | str | None = None,
    split: str | None = None,
    std: Path | str | None = None,
) -> list[Row]:
    """Score predicted volumes against their references, one row a case.

    A path is a NIfTI file, a folder of one DICOM series, or a folder of cases: NIfTI files named by case, or
    sub-folders named by case that hold one NIfTI file or DICOM series each. References may also be a table of cases
    (.csv): its role `b`, and its masks unless others are given. Two single volumes match whatever their
    names are. Volumes are compared on one grid: array axes may run differently, but nothing is resampled.

    A row has `case`, `status` (`scored`, `no prediction`, `no reference`), `preset`, `range` [low, high], the preset's
    metrics (`mae`, `psnr`, and `ssim` or `ms_ssim`; None where a number is missing, undefined or infinite),
    `slice_roughness`, `slice_jump`, `dtype` (of prediction/reference as read), `unit`, `num_voxels` scored, `mask`
    (whether one was used) and `note`, which says why a number is missing.

    Where predictions have standard deviations (σ), rows also have `coverage_50` to `coverage_95`, `miscalibration`,
    `ence`, `spearman`, `sigma_scale`, `mean_sigma`, `zero_sigma_share` and `error_by_sigma` (bins of `sigma`, `rmse`,
    `count`), and `out` gets a reliability diagram, `calibration.png`.

    Args:
        pred: predictions.
        ref: references.
        mask: masks by case, or one mask for all cases; any non-zero voxel counts. Without it whole volumes are scored.
        preset: `synthrad2023` or `synthrad2025`.
        out: folder for `metrics.csv` and `metrics.json`.
        value_range: lowest and highest value in place of the preset's, for images that are not in HU.
        run: the run that made the predictions; references are brought to the unit of its output (MR is scaled by the
            median of each image's own foreground), and where that is not HU its range takes the preset's place.
            Consistency of slices is measured across those that it translates; bottom to top without it.
        split: which cases of a table; all if not given.
        std: standard deviations of the predictions by case; if not given, `CASE_std` beside each prediction, as
            `translate` writes it.

    Raises:
        RunError: if the run cannot be used.
        InputError: if a path or the preset cannot be used, no case matches, a mask is missing or empty, the units
            of a pair contradict each other, or a standard deviation is none.
        GeometryError: if the volumes of a case do not lie on one grid.
        OutputError: if `out` cannot be written.
    """
    chosen = _preset(preset)
    matches = match(
        Path(pred), Path(ref), None if mask is None else Path(mask), split, None if std is None else Path(std)
    )
    config = None if run is None else open_run(Path(run)).config
    target, across = config.prep.b if config else None, _across(config)
    if target and target.unit != "HU":
        value_range = value_range or target.output_range
    own = [_row(found, chosen, value_range, target, across) for found in track(share(matches), "evaluate")]
    rows = _alike(all_of(own))
    if out is not None and is_first():
        named = {"pred": pred, "ref": ref, "mask": mask, "run": run, "std": std}
        settings = {name: None if path is None else str(path) for name, path in named.items()}
        _write(Path(out), rows, matches, {**settings, "preset": preset, "value_range": value_range, "across": across})
    return rows


def score(
    pred: Volume,
    ref: Volume,
    mask: Volume | None = None,
    *,
    case: str = "",
    preset: str = "synthrad2023",
    value_range: Range | None = None,
    std: Volume | None = None,
    across: str = "z",
) -> Row:
    """The row of one pair that is in memory; see `evaluate`.

    Args:
        pred: predicted volume.
        ref: reference volume.
        mask: any non-zero voxel counts; None is the whole volume.
        case: name written into the row and into errors.
        preset: `synthrad2023` or `synthrad2025`.
        value_range: lowest and highest value in place of the preset's.
        std: standard deviation of each voxel of `pred`.
        across: slices are compared along this axis of the patient: `x` left-right, `y` back-front, `z` bottom-top.

    Raises:
        InputError: if the preset is unknown, the mask is empty, the units contradict each other or `std` is none.
        GeometryError: if the volumes do not lie on one grid.

    Example:
        >>> from medgan import Grid
        >>> ref = Volume(np.zeros((8, 8, 8)), Grid.regular((8, 8, 8)), unit="HU")
        >>> score(ref.with_array(ref.array + 4), ref)["mae"]
        4.0
    """
    chosen = _preset(preset)
    _refuse_map(pred, case)
    unit = _common_unit(pred, ref, case)
    p, r = _on_one_grid(pred, ref, "prediction", case)
    m = None if mask is None else _on_one_grid(mask, ref, "mask", case)[0].array != 0
    if m is not None and not m.any():
        raise InputError(f"case {case!r}: the mask is empty; it has to mark the voxels to score")
    numbers = dict(chosen.score(p.array, r.array, m, value_range))
    numbers |= {name: metric(p.array, r.array, m, _AXES[across]) for name, metric in _SLICES.items()}
    found = None if std is None else calibration(p.array, r.array, _sigma(std, pred, ref, case), m)
    told = _calibrated(found) if found else {}
    return {
        **_blank(case, SCORED, chosen, value_range),
        **{name: value if math.isfinite(value) else None for name, value in {**numbers, **told}.items()},
        **({"error_by_sigma": [asdict(one) for one in found.bins]} if found else {}),
        "dtype": f"{pred.array.dtype}/{ref.array.dtype}",
        "unit": unit,
        "num_voxels": r.array.size if m is None else int(m.sum()),
        "mask": mask is not None,
        "note": "; ".join(_notes({**numbers, **told}, pred.unit, ref.unit, unit, value_range)),
    }


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, float | int | None]]:
    """Over the scored rows, by metric: how many numbers there are, and where they lie.

    `n` numbers, `num_undefined` scored rows without one, `mean`, `sd` (sample), `median`, `q1`, `q3`, `min`, `max`, and
    `ci95_low` and `ci95_high` of the mean (percentile bootstrap over cases, 2000 resamples, fixed seed). What the
    number of cases does not allow is None.

    Args:
        rows: as `evaluate` returns them.

    Example:
        >>> rows = [{"status": "scored", "mae": value} for value in (1.0, 2.0, 6.0)]
        >>> summarise(rows)["mae"]["mean"]
        3.0
    """
    scored = [row for row in rows if row["status"] == SCORED]
    names = [name for name in _METRICS if any(name in row for row in rows)]
    return {name: _statistics([row[name] for row in scored]) for name in names}


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is unknown (accepted: {', '.join(PRESETS)})")
    return PRESETS[name]


def _across(config: Config | None) -> str:
    """The axis of the patient along which a run cuts slices; from bottom to top where it cuts none."""
    flat = flat_axis(config.patch) if config else None
    side = config.prep.axes[flat] if config and flat is not None else "S"
    return next(axis for axis, sides in {"x": "LR", "y": "PA", "z": "IS"}.items() if side in sides)


def _row(found: Match, preset: Preset, value_range: Range | None, target: Intensity | None, across: str) -> Row:
    if found.pred is None:
        return _blank(found.case, NO_PREDICTION, preset, value_range)
    if found.ref is None:
        return _blank(found.case, NO_REFERENCE, preset, value_range)
    pred, ref = read(found.pred), read(found.ref)
    mask, std = (None if path is None else read(path) for path in (found.mask, found.std))
    ref = in_contract_unit(ref, target) if target else ref
    return score(pred, ref, mask, case=found.case, preset=preset.name, value_range=value_range, std=std, across=across)


def _alike(rows: list[Row]) -> list[Row]:
    """All rows with the columns that any of them has."""
    names = dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def _sigma(std: Volume, pred: Volume, ref: Volume, case: str) -> npt.NDArray[Any]:
    """Standard deviations on the reference's grid, proved to be some, in the unit of the prediction."""
    quantity = std.synthetic.quantity if std.synthetic else STD
    if quantity != STD:
        raise InputError(
            f"case {case!r}: its standard deviation is {quantity or 'an image'}; name what translate wrote"
        )
    if not {std.unit, pred.unit} <= {UNKNOWN_UNIT, pred.unit}:
        raise InputError(f"case {case!r}: the prediction is in {pred.unit}, its standard deviation in {std.unit}")
    sigma = _on_one_grid(std, ref, "standard deviation", case)[0].array
    if sigma.min() < 0:
        raise InputError(f"case {case!r}: its standard deviation is negative somewhere, which none can be")
    return sigma


def _calibrated(found: Calibration) -> dict[str, float]:
    return dict(zip(_COVERAGE, found.coverage, strict=True)) | {
        "miscalibration": found.miscalibration,
        "ence": found.ence,
        "spearman": found.spearman,
        "sigma_scale": found.scale,
        "mean_sigma": found.mean_sigma,
        "zero_sigma_share": found.zero_share,
    }


def _refuse_map(pred: Volume, case: str) -> None:
    if pred.synthetic and pred.synthetic.quantity:
        raise InputError(f"case {case!r}: the prediction is the {pred.synthetic.quantity} of an image; name the image")


def _blank(case: str, status: str, preset: Preset, value_range: Range | None) -> Row:
    return {
        "case": case,
        "status": status,
        "preset": preset.name,
        "range": [float(value) for value in value_range or preset.value_range],
        **dict.fromkeys((*preset.metrics, *_SLICES)),
        "dtype": "",
        "unit": "",
        "num_voxels": 0,
        "mask": False,
        "note": "" if status == SCORED else f"{status}: not scored",
    }


def _notes(numbers: Mapping[str, float], pred: str, ref: str, unit: str, value_range: Range | None) -> list[str]:
    notes = [f"{name} is {_why(name, value)}" for name, value in numbers.items() if not math.isfinite(value)]
    if pred != ref:
        notes.append(f"the {'prediction' if pred == UNKNOWN_UNIT else 'reference'} states no unit, taken as {unit}")
    if value_range is not None:
        notes.append("the range is not the preset's")
    elif unit != "HU":
        notes.append(f"the range is the preset's for HU, the unit is {unit}")
    return notes


def _why(name: str, value: float) -> str:
    if name in _SLICES:
        return "undefined: there are no neighbours to compare, or an image does not change"
    if name in _CALIBRATION:
        return "undefined: the errors or the standard deviation are the same everywhere"
    if math.isinf(value):
        return "infinite: no error is left in the range"
    return "undefined: no scored voxel is far enough inside the volume at every scale, or a voxel is not finite"


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


def _on_one_grid(volume: Volume, ref: Volume, what: str, case: str) -> tuple[Volume, Volume]:
    """Both in RAS order, proved to have each voxel at the same place."""
    volume, ref = volume.reorient("RAS"), ref.reorient("RAS")
    if volume.grid.same_as(ref.grid):
        return volume, ref
    apart = f", {volume.grid.distance_mm(ref.grid):.3g} mm apart" if volume.grid.shape == ref.grid.shape else ""
    raise GeometryError(
        f"case {case!r}: the {what} is not on the reference's grid: {volume.grid.describe()} "
        f"and {ref.grid.describe()}{apart}; resample it to the reference first"
    )


def _statistics(numbers: Sequence[float | None]) -> dict[str, float | int | None]:
    known = np.array([number for number in numbers if number is not None], dtype=np.float64)
    counts: dict[str, float | int | None] = {"n": known.size, "num_undefined": len(numbers) - known.size}
    names = ("mean", "sd", "median", "q1", "q3", "min", "max", "ci95_low", "ci95_high")
    if not known.size:
        return counts | dict.fromkeys(names)
    q1, median, q3 = np.quantile(known, (0.25, 0.5, 0.75))
    sd, low, high = (None, None, None) if known.size < 2 else (known.std(ddof=1), *_ci95_of_mean(known))
    values = (known.mean(), sd, median, q1, q3, known.min(), known.max(), low, high)
    return counts | {n: None if v is None else float(v) for n, v in zip(names, values, strict=True)}


def _ci95_of_mean(numbers: npt.NDArray[np.float64]) -> tuple[float, float]:
    drawn = np.random.default_rng(_SEED).integers(0, numbers.size, (_NUM_RESAMPLES, numbers.size))
    low, high = np.quantile(numbers[drawn].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def _write(out: Path, rows: list[Row], matches: list[Match], settings: dict[str, Any]) -> None:
    record = {
        "summary": summarise(rows),
        "counts": {status: sum(row["status"] == status for row in rows) for status in _statuses()},
        "rows": rows,
        "settings": settings,
        "versions": _versions(),
        "sha256": {found.case: _hashes(found) for found in matches},
    }
    if any(row.get("error_by_sigma") for row in rows):
        write_png(draw_calibration(rows), out / "calibration.png")
    with replacing(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with replacing(out / "metrics.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        columns = [name for name in rows[0] if name != "error_by_sigma"]  # a list of bins is no cell
        table = csv.DictWriter(file, fieldnames=columns, extrasaction="ignore")
        table.writeheader()
        table.writerows({**row, "range": "{:g}..{:g}".format(*row["range"])} for row in rows)


def _statuses() -> tuple[str, str, str]:
    return SCORED, NO_PREDICTION, NO_REFERENCE


def _versions() -> dict[str, str]:
    return {
        "medgan": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }


def _hashes(found: Match) -> dict[str, str]:
    paths = {"pred": found.pred, "ref": found.ref, "mask": found.mask, "std": found.std}
    return {role: _sha256(path) for role, path in paths.items() if path is not None}


def _sha256(path: Path) -> str:
    """Of a file its content's, of a folder that of its files' hashes in order: the names do not matter."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    inner = sorted(_sha256(file) for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("".join(inner).encode()).hexdigest()
