"""Predicted volumes against their references: matched by case, checked, scored, written down."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from medgan import __version__
from medgan.atomic import replacing
from medgan.errors import GeometryError, InputError
from medgan.formats import read
from medgan.match import Trio, match
from medgan.metrics import PRESETS, Preset
from medgan.prep import NORMALISED_UNIT, Intensity, in_contract_unit
from medgan.progress import track
from medgan.run import open_run
from medgan.volume import Volume

__all__ = ["Row", "evaluate", "score", "summarise"]

Row = dict[str, Any]
Range = tuple[float, float]

UNKNOWN_UNIT = "a.u."
SCORED, NO_PREDICTION, NO_REFERENCE = "scored", "no prediction", "no reference"
_METRICS = tuple(dict.fromkeys(name for preset in PRESETS.values() for name in preset.metrics))
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
) -> list[Row]:
    """Score predicted volumes against their references, one row a case.

    A path is a NIfTI file, a folder of one DICOM series, or a folder of cases: NIfTI files named by case, or
    sub-folders named by case that hold one NIfTI file or DICOM series each. References may also be a table of cases
    (.csv): its role `b`, and its masks unless others are given. Two single volumes match whatever their
    names are. Volumes are compared on one grid: array axes may run differently, but nothing is resampled.

    A row has `case`, `status` (`scored`, `no prediction`, `no reference`), `preset`, `range` [low, high], the preset's
    metrics (`mae`, `psnr`, and `ssim` or `ms_ssim`; None where a number is missing, undefined or infinite), `dtype`
    (of prediction/reference as read), `unit`, `num_voxels` scored, `mask` (whether one was used) and `note`, which
    says why a number is missing.

    Args:
        pred: predictions.
        ref: references.
        mask: masks by case, or one mask for all cases; any non-zero voxel counts. Without it whole volumes are scored.
        preset: `synthrad2023` or `synthrad2025`.
        out: folder for `metrics.csv` and `metrics.json`.
        value_range: lowest and highest value in place of the preset's, for images that are not in HU.
        run: the run that made the predictions; references are brought to the unit of its output (MR is scaled by the
            median of each image's own foreground), and where that is not HU its range takes the preset's place.
        split: which cases of a table; all if not given.

    Raises:
        RunError: if the run cannot be used.
        InputError: if a path or the preset cannot be used, no case matches, a mask is missing or empty, or the units
            of a pair contradict each other.
        GeometryError: if the volumes of a case do not lie on one grid.
        OutputError: if `out` cannot be written.
    """
    chosen = _preset(preset)
    trios = match(Path(pred), Path(ref), None if mask is None else Path(mask), split)
    target = None if run is None else open_run(Path(run)).config.prep.b
    if target and target.unit != "HU":
        value_range = value_range or target.output_range
    rows = [_row(trio, chosen, value_range, target) for trio in track(trios, "evaluate")]
    if out is not None:
        settings = {"pred": str(pred), "ref": str(ref), "mask": None if mask is None else str(mask)}
        settings["run"] = None if run is None else str(run)
        _write(Path(out), rows, trios, {**settings, "preset": preset, "value_range": value_range})
    return rows


def score(
    pred: Volume,
    ref: Volume,
    mask: Volume | None = None,
    *,
    case: str = "",
    preset: str = "synthrad2023",
    value_range: Range | None = None,
) -> Row:
    """The row of one pair that is in memory; see `evaluate`.

    Args:
        pred: predicted volume.
        ref: reference volume.
        mask: any non-zero voxel counts; None is the whole volume.
        case: name written into the row and into errors.
        preset: `synthrad2023` or `synthrad2025`.
        value_range: lowest and highest value in place of the preset's.

    Raises:
        InputError: if the preset is unknown, the mask is empty or the units contradict each other.
        GeometryError: if the volumes do not lie on one grid.

    Example:
        >>> from medgan import Grid
        >>> ref = Volume(np.zeros((8, 8, 8)), Grid.regular((8, 8, 8)), unit="HU")
        >>> score(ref.with_array(ref.array + 4), ref)["mae"]
        4.0
    """
    chosen = _preset(preset)
    unit = _common_unit(pred, ref, case)
    p, r = _on_one_grid(pred, ref, "prediction", case)
    m = None if mask is None else _on_one_grid(mask, ref, "mask", case)[0].array != 0
    if m is not None and not m.any():
        raise InputError(f"case {case!r}: the mask is empty; it has to mark the voxels to score")
    numbers = chosen.score(p.array, r.array, m, value_range)
    return {
        **_blank(case, SCORED, chosen, value_range),
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "dtype": f"{pred.array.dtype}/{ref.array.dtype}",
        "unit": unit,
        "num_voxels": r.array.size if m is None else int(m.sum()),
        "mask": mask is not None,
        "note": "; ".join(_notes(numbers, pred.unit, ref.unit, unit, value_range)),
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


def _row(trio: Trio, preset: Preset, value_range: Range | None, target: Intensity | None) -> Row:
    if trio.pred is None:
        return _blank(trio.case, NO_PREDICTION, preset, value_range)
    if trio.ref is None:
        return _blank(trio.case, NO_REFERENCE, preset, value_range)
    pred, ref, mask = _load(trio.pred, trio.ref, trio.mask)
    ref = in_contract_unit(ref, target) if target else ref
    return score(pred, ref, mask, case=trio.case, preset=preset.name, value_range=value_range)


def _load(pred: Path, ref: Path, mask: Path | None) -> tuple[Volume, Volume, Volume | None]:
    return read(pred), read(ref), None if mask is None else read(mask)


def _blank(case: str, status: str, preset: Preset, value_range: Range | None) -> Row:
    return {
        "case": case,
        "status": status,
        "preset": preset.name,
        "range": [float(value) for value in value_range or preset.value_range],
        **dict.fromkeys(preset.metrics),
        "dtype": "",
        "unit": "",
        "num_voxels": 0,
        "mask": False,
        "note": "" if status == SCORED else f"{status}: not scored",
    }


def _notes(numbers: Mapping[str, float], pred: str, ref: str, unit: str, value_range: Range | None) -> list[str]:
    notes = [f"{name} is {_why(value)}" for name, value in numbers.items() if not math.isfinite(value)]
    if pred != ref:
        notes.append(f"the {'prediction' if pred == UNKNOWN_UNIT else 'reference'} states no unit, taken as {unit}")
    if value_range is not None:
        notes.append("the range is not the preset's")
    elif unit != "HU":
        notes.append(f"the range is the preset's for HU, the unit is {unit}")
    return notes


def _why(value: float) -> str:
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


def _write(out: Path, rows: list[Row], trios: list[Trio], settings: dict[str, Any]) -> None:
    record = {
        "summary": summarise(rows),
        "counts": {status: sum(row["status"] == status for row in rows) for status in _statuses()},
        "rows": rows,
        "settings": settings,
        "versions": _versions(),
        "sha256": {trio.case: _hashes(trio) for trio in trios},
    }
    with replacing(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with replacing(out / "metrics.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
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


def _hashes(trio: Trio) -> dict[str, str]:
    paths = {"pred": trio.pred, "ref": trio.ref, "mask": trio.mask}
    return {role: _sha256(path) for role, path in paths.items() if path is not None}


def _sha256(path: Path) -> str:
    """Of a file its content's, of a folder that of its files' hashes in order: the names do not matter."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    inner = sorted(_sha256(file) for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("".join(inner).encode()).hexdigest()
