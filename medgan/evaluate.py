"""Predicted volumes against their references: matched by case, checked, scored, written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from medgan.cases import Case, read_cases
from medgan.diagram import draw_calibration
from medgan.errors import CasesError, InputError, MedganError
from medgan.formats import read
from medgan.formats.png import write_png
from medgan.leaks import trained_on
from medgan.match import Match, match
from medgan.metrics.regions import Region
from medgan.metrics.water import ANGLES_DEG, Curve, curve_of
from medgan.prep import Intensity, in_contract_unit
from medgan.processes import all_of, copies, is_first, share
from medgan.progress import say, track
from medgan.results import Scored, kept, key_of, metric_columns, remember, sha256_of, summarise, write_results
from medgan.scoring import HU, SCORED, TOLERANCE_MM, UNKNOWN_UNIT, Range, Row, Scoring, blank, preset_of, score

__all__ = ["Row", "evaluate", "score", "summarise"]

Angles = tuple[float, ...]
NO_PREDICTION, NO_REFERENCE, REFUSED = "no prediction", "no reference", "refused"


@dataclass(frozen=True)
class _Task:
    """What is done to each case: how it is scored, and the contract whose unit counts."""

    how: Scoring
    target: Intensity | None
    hashed: bool


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
    source: Path | str | None = None,
    labels: tuple[Path | str, Path | str] | None = None,
    label_names: Mapping[int, str] | None = None,
    regions: Sequence[Region] = (),
    wepl: Curve | Path | str | None = None,
    angles_deg: Sequence[float] | None = None,
    unit: str = UNKNOWN_UNIT,
    resample: bool = False,
    tolerance_mm: float = TOLERANCE_MM,
    processes: int = 1,
) -> list[Row]:
    """Score predicted volumes against their references, one row a case.

    A path is a file (NIfTI, MetaImage, NRRD), a folder of one DICOM series, or a folder of cases: files named by case,
    or sub-folders named by case that hold one file or DICOM series each. It may be a rule instead: in
    `data/{case}/ct.nii.gz` the name that stands for `{case}` is the case; `{patient}` tells patients, `*` is any part
    of a name. References may also be a table of cases (.csv): its role `b`, its patients, and its masks unless others
    are given. Two single volumes match whatever their names are. Volumes are compared on one grid: array axes may run
    differently, but nothing is resampled unless that is asked for.

    A row has `case`, `patient`, `status` (`scored`, `no prediction`, `no reference`, or `refused`, with the reason in
    the note), `preset`, `range` [low, high], the preset's metrics (None where a number is missing, undefined or
    infinite), `slice_roughness`, `slice_jump`, `dtype` (of prediction/reference as read), `unit`, `num_voxels` scored,
    `mask` (whether one was used), `infinite` (metrics that are infinitely good, as the PSNR of an image without error)
    and `note`, which says why a number is missing and what was assumed. With `wepl` it also has what `wepl_scores` in
    `medgan.metrics.water` gives, `wepl_curve` and `wepl_angles`.

    Where predictions have standard deviations (σ), rows also have `coverage_50` to `coverage_95`, `miscalibration`,
    `ence`, `spearman`, `sigma_scale`, `mean_sigma`, `zero_sigma_share` and `error_by_sigma` (bins of `sigma`, `rmse`,
    `count`), and `out` gets a reliability diagram, `calibration.png`.

    Args:
        pred: predictions.
        ref: references.
        mask: masks by case, or one mask for all cases; any non-zero voxel counts. Without it whole volumes are scored.
        preset: a name of `medgan.metrics.PRESETS`.
        out: folder for `metrics.csv` and `metrics.json`. What was scored is kept there case by case: a run that was
            broken off goes on, and one that is repeated does nothing again.
        value_range: lowest and highest value in place of the preset's, for images that are not in HU.
        run: the run that made the predictions; references are brought to the unit of its output (MR is scaled by the
            median of each image's own foreground), and where that is not HU its range takes the preset's place.
            Consistency of slices is measured across those that it translates; bottom to top without it.
        split: which cases of a table; all if not given.
        std: standard deviations of the predictions by case; if not given, `CASE_std` beside each prediction, as
            `translate` writes it.
        source: what was translated, by case, for the pictures of the report; a table's role `a` if not given.
        labels: segmentations of predictions and of references, by case: Dice, HD95 and surface Dice of each label.
        label_names: of the numbers in them.
        regions: ranges of HU that are scored on their own, by the reference's values.
        wepl: the curve by which errors of water-equivalent path length are computed, of images in HU: one of yours,
            `protons`, `photons`, or the file of one; see `medgan.metrics.water`. The mask is the target of the beams.
        angles_deg: of the gantry, for them: 0 from the front, 90 from the patient's left; eight around if not given.
        unit: of images that state none.
        resample: whether predictions and masks on another grid are resampled to the reference's; notes tell it.
        tolerance_mm: how far voxels of one place may lie apart.
        processes: that score at once.

    Raises:
        RunError: if the run cannot be used.
        InputError: if a path or the preset cannot be used, no case matches, or a mask is missing. What is wrong with a
            single case becomes its row, unless all are refused: then the first reason is raised.
        GeometryError: if the volumes of no case lie on one grid.
        OutputError: if `out` cannot be written.
    """
    preset_of(preset)
    target, across = (None, "z") if run is None else _of_run(Path(run))
    contract = target.output_range if target and target.unit != HU else None
    curve, angles = _beams(wepl, angles_deg)
    how = Scoring(
        preset=preset,
        value_range=value_range or contract,
        across=across,
        regions=tuple(regions),
        labels=label_names,
        tolerance_mm=tolerance_mm,
        resample=resample,
        unit=unit,
        wepl=curve,
        angles_deg=angles,
    )
    places = {"pred": pred, "ref": ref, "mask": mask, "run": run, "std": std, "source": source}
    masks, stds, sources, folder = (None if path is None else Path(path) for path in (mask, std, source, out))
    segmented = None if labels is None else (Path(labels[0]), Path(labels[1]))
    matches = match(Path(pred), Path(ref), mask=masks, split=split, std=stds, labels=segmented, source=sources)
    matches = _without_trained(matches, Path(run) if run else None, Path(ref), split)
    scored = _scored(matches, _Task(how, target, hashed=out is not None), folder, processes)
    _refuse_all_refused(scored)
    if folder is not None and is_first():
        _write(folder, scored, {name: path and str(path) for name, path in places.items()} | _told(how))
    return [one.row for one in scored]


def _without_trained(matches: list[Match], run: Path | None, ref: Path, split: str | None) -> list[Match]:
    """Cases that were trained on are refused, unless it is training cases that are asked for."""
    training = [] if split == "train" else _training_of(run, ref)
    images = {one.case: {"a": one.source, "b": one.ref} for one in matches if one.pred and one.ref}
    tested = [
        Case(case, case, "", {role: path for role, path in own.items() if path is not None})
        for case, own in images.items()
    ]
    reasons = trained_on(training, tested) if training and tested else {}
    told = "{} was trained on: {}; to score training cases on purpose, give their table and --split train"
    refused = {case: told.format(case, reason) for case, reason in reasons.items()}
    return [replace(one, refused=refused.get(one.case, "")) for one in matches]


def _training_of(run: Path | None, ref: Path) -> list[Case]:
    """The training cases of the run, or else those of the table of references."""
    table = ref if run is None else _table_of(run)
    if table.suffix.lower() != ".csv":
        return []
    unknown = "Warning: whether tested cases were trained on cannot be told"
    if not table.is_file():
        say(f"{unknown}: the table that {run} was trained from, {table}, is not there")
        return []
    try:
        return read_cases(table, split="train", required=())
    except CasesError as error:
        say(f"{unknown}: {error}")
        return []


def _table_of(run: Path) -> Path:
    """That the run was trained from, which the run itself does not hold: it would tell who is in it."""
    from medgan.run import open_run, table_hash

    opened = open_run(run)
    table = opened.config.cases
    if table.is_file() and opened.card.get("cases_sha256") != table_hash(opened.config):
        say(f"Warning: {table} has changed since {run} was trained from it; its training cases may have been others")
    return table


def _beams(wepl: Curve | Path | str | None, angles_deg: Sequence[float] | None) -> tuple[Curve | None, Angles]:
    """The curve of path lengths, and the angles of the beams."""
    if wepl is None and angles_deg:
        raise InputError("angles are those of beams, whose path lengths need a curve: name one (--wepl), or no angles")
    curve = curve_of(wepl) if isinstance(wepl, str | Path) else wepl
    return curve, tuple(float(angle) for angle in angles_deg or ANGLES_DEG)


def _told(how: Scoring) -> dict[str, Any]:
    return asdict(how) | {
        "regions": [f"{one.name}={one.low:g}..{one.high:g}" for one in how.regions],
        "labels": None if how.labels is None else {str(number): name for number, name in how.labels.items()},
        "angles_deg": None if how.wepl is None else list(how.angles_deg),
    }


def _of_run(run: Path) -> tuple[Intensity, str]:
    """What its images mean, and the axis of the patient along which it cuts slices; bottom to top if it cuts none."""
    from medgan.data import flat_axis  # these take seconds to import, and few evaluations need them
    from medgan.run import open_run

    config = open_run(run).config
    flat = flat_axis(config.patch)
    side = "S" if flat is None else config.prep.axes[flat]
    return config.prep.b, next(axis for axis, sides in {"x": "LR", "y": "PA", "z": "IS"}.items() if side in sides)


# --- case by case -----------------------------------------------------------------------------------------------------


def _scored(matches: Sequence[Match], task: _Task, out: Path | None, processes: int) -> list[Scored]:
    """Every case of all processes of the job, in the order of the matches."""
    known = {} if out is None else kept(out)
    own = share(matches)
    keys = [_key(one, task) if out else "" for one in own]
    todo = [(one, key) for one, key in zip(own, keys, strict=True) if key not in known]
    with copies(min(processes, len(todo)), "scores cases") as over:
        new: Iterable[Scored] = track(over(partial(_case, task), todo), "evaluate", len(todo))
        made = list(new if out is None else remember(out, new))
    fresh = iter(made)
    done = [known[key] if key in known else next(fresh) for key in keys]
    return _alike(all_of(done))


def _key(found: Match, task: _Task) -> str:
    refused = {name: told for name in ("refused", "hint") if (told := getattr(found, name))}
    return key_of(found.paths, {"task": asdict(task), "case": found.case, **refused})


def _case(task: _Task, todo: tuple[Match, str]) -> Scored:
    found, key = todo
    return Scored(
        key,
        {"case": found.case, "patient": found.patient, **_row(found, task)},
        {role: sha256_of(path) for role, path in found.paths.items()} if task.hashed else {},
        {role: str(path) for role, path in found.paths.items()},
    )


def _row(found: Match, task: _Task) -> Row:
    if found.pred is None or found.ref is None:
        status = NO_PREDICTION if found.pred is None else NO_REFERENCE
        return blank(
            found.case, status, task.how, found.hint and f"{status}: not scored; {found.hint}: name them alike"
        )
    if found.refused:
        return blank(found.case, REFUSED, task.how, found.refused)
    try:
        return _compared(found, found.pred, found.ref, task)
    except MedganError as error:
        return blank(found.case, REFUSED, task.how, str(error))
    except OSError as error:
        told = f"{error.filename or found.pred}: {error.strerror or error}; check the path and its permissions"
        return blank(found.case, REFUSED, task.how, told)


def _compared(found: Match, pred: Path, ref: Path, task: _Task) -> Row:
    reference = read(ref)
    mask, std = (None if path is None else read(path) for path in (found.mask, found.std))
    segmented = (read(found.pred_labels), read(found.ref_labels)) if found.pred_labels and found.ref_labels else None
    reference = in_contract_unit(reference, task.target) if task.target else reference
    row = score(read(pred), reference, mask, case=found.case, how=task.how, std=std, labels=segmented)
    told = {
        "the prediction has no segmentation": found.ref_labels is not None and found.pred_labels is None,
        "the prediction and the reference are one file": pred.samefile(ref),
    }
    return {**row, "note": "; ".join([*filter(None, [row["note"]]), *(note for note, holds in told.items() if holds)])}


def _alike(scored: Sequence[Scored]) -> list[Scored]:
    """All rows with the columns that any of them has; metrics stand together."""
    metrics = metric_columns([one.row for one in scored])
    first = ("case", "patient", "status", "preset", "range")
    last = ("dtype", "unit", "num_voxels", "mask", "infinite", "note")
    others = dict.fromkeys(name for one in scored for name in one.row if name not in {*first, *last, *metrics})
    names = (*first, *metrics, *others, *last)
    return [Scored(one.key, {name: one.row.get(name) for name in names}, one.sha256, one.files) for one in scored]


def _refuse_all_refused(scored: Sequence[Scored]) -> None:
    if not any(one.row["status"] == SCORED for one in scored):
        reasons = [one.row["note"] for one in scored if one.row["status"] == REFUSED]
        more = f" (and {len(reasons) - 1} more cases are refused)" if len(reasons) > 1 else ""
        raise InputError(f"{reasons[0]}{more}")


def _write(out: Path, scored: Sequence[Scored], settings: dict[str, Any]) -> None:
    rows = [one.row for one in scored]
    if any(row.get("error_by_sigma") for row in rows):
        write_png(draw_calibration(rows), out / "calibration.png")
    write_results(out, scored, settings)
