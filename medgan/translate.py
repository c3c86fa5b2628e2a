"""A trained run over new patients: one volume, or every case of a table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from medgan.atomic import replacing
from medgan.cases import Case, read_cases
from medgan.device import pick_device
from medgan.errors import CasesError, InputError, OutputError, RunError
from medgan.formats import read, write
from medgan.formats.nifti import Space
from medgan.models.base import Translator
from medgan.prep import Prep, check, clipped_share, from_network, to_network
from medgan.progress import say, track
from medgan.run import Run, open_run
from medgan.sliding import predict
from medgan.volume import Volume

__all__ = ["Translated", "output_path", "translate", "translate_volume"]

LEDGER = "translation.json"


@dataclass(frozen=True)
class Translated:
    """What became of one volume.

    Args:
        case: its name.
        path: the synthetic image.
        unit: of its values.
        low, high: the range that the run can express, in `unit`.
        clipped_share: share (0..1) of the source's foreground voxels beyond the window that the network sees.
        saturated_share: share (0..1) of the output voxels at the upper end of the run's range.
    """

    case: str
    path: Path
    unit: str
    low: float
    high: float
    clipped_share: float
    saturated_share: float


def translate(
    run: Path | Run,
    source: Path | str,
    out: Path | str,
    *,
    to: str = "b",
    series: str | None = None,
    split: str | None = None,
    device: str = "auto",
    batch: int = 8,
    overlap: float | None = None,
    trust: bool = False,
) -> list[Translated]:
    """Translate one volume (a DICOM series or a NIfTI file) or every case of a table.

    Args:
        run: a run folder.
        source: a file, a folder of one DICOM series, or a cases table (.csv), of which the other role than `to` is
            translated.
        out: for one volume a `.nii` or `.nii.gz` file, or a new folder for a DICOM series on the slices of the source;
            for a table a folder, which gets one file or series of the source's kind a case.
        to: the domain to translate to: "b", or "a" by a model that learns both ways.
        series: which one, where the folder holds several.
        split: which cases of a table; all if not given.
        device: `auto`, `cpu` or `cuda`.
        batch: windows that go through the network together.
        overlap: share of a window that its neighbour covers again; the run's own if not given.
        trust: take the input for what the run expects although its modality or unit says otherwise.

    Raises:
        RunError: if the run cannot be used, or not in this direction.
        InputError: if the input cannot be read, or is of another modality or unit than the run was trained on.
        OutputError: if `out` cannot be written.
    """
    run = run if isinstance(run, Run) else open_run(Path(run))
    source, out, place = Path(source), Path(out), pick_device(device)
    is_table = source.suffix.lower() == ".csv"
    _refuse_idle(is_table, series, split)
    overlap = run.config.overlap if overlap is None else overlap
    how = _How(run, _translator(run, to).to(place), to, place, batch, overlap, trust)
    if is_table:
        return _translate_table(how, source, out, split)
    return [_translate_one(how, _Job(source.name.split(".")[0], source, out, series))]


def translate_volume(
    run: Run,
    volume: Volume,
    *,
    game: Translator | None = None,
    to: str = "b",
    device: torch.device | str = "cpu",
    batch: int = 8,
    overlap: float = 0.5,
    label: str = "",
) -> Volume:
    """Translate a volume in memory: same grid and header, the unit of the run's output, marked as synthetic.

    Args:
        run: whose weights, contract and mark are used.
        volume: the source.
        game: the run's translator, if it is loaded already.
        to: the domain to translate to: "b", or "a" by a model that learns both ways.
        device: where the network runs.
        batch: windows that go through the network together.
        overlap: share of a window that its neighbour covers again.
        label: shown beside the progress; nothing is shown without one.
    """
    config, device = run.config, torch.device(device)
    prep, game = config.prep.towards(to), game or _translator(run, to).to(device)
    x = to_network(volume, prep.a, prep.spacing_mm, prep.axes)
    y = predict(
        partial(game.translate, to=to),
        x,
        patch=config.patch,
        neighbours=config.neighbours,
        overlap=overlap,
        batch=batch,
        device=device,
        precision=config.train.precision,
        label=label,
    )
    return from_network(y, volume, prep.b, prep.spacing_mm, prep.axes).marked(run.synthesis(to))


def _translator(run: Run, to: str) -> Translator:
    game = run.translator()
    if to not in game.generators:
        made = " and ".join(game.generators)
        raise RunError(f"{run.path}: its model, {run.config.model.name}, translates to {made} alone; seen to={to!r}")
    return game


@dataclass(frozen=True)
class _How:
    run: Run
    game: Translator
    to: str
    device: torch.device
    batch: int
    overlap: float
    trust: bool

    @property
    def prep(self) -> Prep:
        return self.run.config.prep.towards(self.to)


@dataclass(frozen=True)
class _Job:
    case: str
    source: Path
    out: Path
    series: str | None = None


def _refuse_idle(is_table: bool, series: str | None, split: str | None) -> None:
    """An option that would have no effect."""
    if is_table and series is not None:
        raise InputError(f"series: {series!r} names a series of a folder; a table already names its images")
    if not is_table and split is not None:
        raise InputError(f"split: {split!r} goes with a table of cases; one volume has none")


def _translate_one(how: _How, job: _Job) -> Translated:
    if job.out.is_file() or (job.out.is_dir() and any(job.out.iterdir())):
        raise OutputError(f"{job.out}: exists already; choose another name or remove it")
    volume = read(job.source, series=job.series)
    if not how.trust:
        _check(volume, how.prep, job.source)
    if isinstance(volume.header, Space) and not job.out.name.endswith((".nii", ".nii.gz")):
        raise OutputError(f"{job.out}: the source is no DICOM series, so the output is a file: name it .nii.gz")
    synthetic = _synthetic(how, job, volume)
    write(synthetic, job.out)
    return _told(how.prep, job, volume, synthetic)


def _synthetic(how: _How, job: _Job, volume: Volume) -> Volume:
    try:
        return translate_volume(
            how.run,
            volume,
            game=how.game,
            to=how.to,
            device=how.device,
            batch=how.batch,
            overlap=how.overlap,
            label=f"Translating {job.case}",
        )
    except InputError as error:
        raise InputError(f"{job.source}: {error}") from None
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError(
            f"{job.source}: {how.device} has too little memory for {how.batch} windows at once; lower --batch"
        ) from error


def _check(volume: Volume, prep: Prep, source: Path) -> None:
    try:
        check(volume, prep.a, str(source))
    except InputError as error:
        raise InputError(f"{error}; if you know better, say so with --trust") from None


def _told(prep: Prep, job: _Job, volume: Volume, synthetic: Volume) -> Translated:
    low, high = prep.b.output_range
    saturated = float((synthetic.array > high - 0.002 * (high - low)).mean())
    clipped = clipped_share(volume, prep.a)
    return Translated(job.case, job.out, synthetic.unit, low, high, clipped, saturated)


def _translate_table(how: _How, table: Path, out: Path, split: str | None) -> list[Translated]:
    """All cases; those that are there already from the same weights are not done again."""
    role = "a" if how.to == "b" else "b"
    cases = _sources(read_cases(table, split=split, required=(role,) if how.run.config.model.paired else ()), role)
    if not cases:
        raise CasesError(
            f"{table}: has no case with an image {role} in the split {split}; name another split, or none for all cases"
        )
    _claim(out, how)
    jobs = [_Job(case.name, case.images[role], output_path(case, out, role)) for case in cases]
    todo = [job for job in jobs if not job.out.exists()]
    if len(todo) < len(jobs):
        say(f"{out}: {len(jobs) - len(todo)} of {len(jobs)} cases are there already")
    return [_translate_one(how, job) for job in track(todo, "Translating cases")]


def _sources(cases: list[Case], role: str) -> list[Case]:
    """The cases that have an image in that role."""
    having = [case for case in cases if role in case.images]
    if len(having) < len(cases):
        say(f"{len(cases) - len(having)} of {len(cases)} cases have no image {role} to translate")
    return having


def _claim(out: Path, how: _How) -> None:
    """A folder belongs to one set of weights and one direction: results of two are never mixed."""
    ledger, claim = out / LEDGER, {"weights_sha256": how.run.weights_sha256, "to": how.to, "synthetic": True}
    if not ledger.exists():
        with replacing(ledger) as temporary:
            temporary.write_text(json.dumps(claim) + "\n")
    elif (held := _claim_in(ledger)) != claim:
        other = "by other weights" if held.get("weights_sha256") != how.run.weights_sha256 else "of another direction"
        raise OutputError(f"{out}: holds translations {other}; name another folder")


def _claim_in(ledger: Path) -> dict[str, Any]:
    try:
        told = json.loads(ledger.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{ledger}: cannot be read ({error}); name another folder") from None
    return told if isinstance(told, dict) else {}


def output_path(case: Case, out: Path, role: str = "a") -> Path:
    """Where the translation of a case of a table lies: a DICOM folder or a NIfTI file, as its source is."""
    return out / (case.name if case.images[role].is_dir() else f"{case.name}.nii.gz")
