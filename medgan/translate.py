"""A trained run over new patients: one volume, or every case of a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from medgan.cases import Case, read_cases
from medgan.device import pick_device
from medgan.ensemble import Ensemble, Member
from medgan.errors import CasesError, InputError, OutputError
from medgan.formats.nifti import Space
from medgan.ledger import claim, discard, output_path, refuse_taken, write_all
from medgan.match import map_path
from medgan.models.base import Translator
from medgan.prep import (
    Intensity,
    Prep,
    check,
    clipped_share,
    foreground,
)
from medgan.processes import gathered, place, share
from medgan.progress import say, track
from medgan.run import Run, open_run
from medgan.scans import read_sources
from medgan.uncertainty import Sampling
from medgan.volume import Volume

__all__ = ["Translated", "output_path", "translate", "translate_volume"]

PRECISIONS = ("32", "bf16")
TOLD_FAILURES = 3  # in one line


@dataclass(frozen=True)
class Translated:
    """What became of one volume.

    Args:
        case: its name.
        path: the synthetic image.
        unit: of its values.
        low, high: the range that the run can express, in `unit`.
        clipped_share: share (0..1) of the source's foreground voxels beyond the window that the network sees; the
            largest, where there are several contrasts.
        saturated_share: share (0..1) of the output voxels at the upper end of the run's range.
        contrasts: roles of the sources that it was made from.
        missing: roles of the sources that the run knows and the case lacked.
        mean_std: mean standard deviation in the source's foreground, in `unit`; None where there was one translation.
        maps: the maps beside the image, by kind: `std`, the standard deviation, and `cycle`, the residual of the way
            back.
    """

    case: str
    path: Path
    unit: str
    low: float
    high: float
    clipped_share: float
    saturated_share: float
    contrasts: tuple[str, ...] = ("a",)
    missing: tuple[str, ...] = ()
    mean_std: float | None = None
    maps: Mapping[str, Path] = field(default_factory=dict)


def translate(
    run: Path | Run,
    source: Path | str,
    out: Path | str,
    *,
    to: str = "b",
    contrasts: Mapping[str, Path | str] | None = None,
    series: str | None = None,
    split: str | None = None,
    device: str = "auto",
    batch: int = 8,
    overlap: float | None = None,
    precision: str | None = None,
    trust: bool = False,
    samples: int | None = None,
    vary: str | None = None,
    seed: int | None = None,
    with_runs: Sequence[Path | Run] = (),
    triplanar: bool = False,
    cycle: bool = False,
) -> list[Translated]:
    """Translate one volume (a DICOM series or a NIfTI file) or every case of a table.

    Where a source is translated several times, by `samples`, `with_runs` or `triplanar`, the image is the mean, and the
    voxel-wise standard deviation in its unit lies beside it: `x_std.nii.gz` beside `x.nii.gz`, a series `x_std` beside
    a series `x`.

    Args:
        run: a run folder.
        source: a file, a folder of one DICOM series, or a cases table (.csv), of which the other role than `to` is
            translated.
        out: for one volume a `.nii` or `.nii.gz` file, or a new folder for a DICOM series on the slices of the source;
            for a table a folder, which gets one file or series of the source's kind a case.
        to: the domain to translate to: "b", or "a" by a model that learns both ways.
        contrasts: the further images of one volume that the run was trained on, by role; they lie on its grid.
        series: which one, where the folder holds several.
        split: which cases of a table; all if not given.
        device: `auto`, `cpu` or `cuda`.
        batch: windows that go through the network together.
        overlap: share of a window that its neighbour covers again; the run's own if not given.
        precision: `32`, or `bf16` for a network that works in bfloat16 where that is safe; the one that the run was
            trained in if not given.
        trust: take the input for what the run expects although its modality or unit says otherwise.
        samples: translations by each run, 2 or more; one, with dropout at rest, if not given.
        vary: what differs between samples: `dropout` (if not given) or `flips`.
        seed: of the dropout; 0 if not given.
        with_runs: further runs with the same contract, whose translations are joined with those of `run`.
        triplanar: by a run of slices, translate along all three axes.
        cycle: also write what is left of the source after the way there and back, less the source as the network saw
            it, in its unit: `x_cycle.nii.gz`. By `run` alone, with dropout at rest.

    Raises:
        RunError: if the run cannot be used, or not in this direction, not so, or not with those others.
        InputError: if the input cannot be read, or is of another modality or unit than the run was trained on.
        OutputError: if `out` cannot be written.
    """
    sampling = Sampling.of(samples, vary, seed, triplanar=triplanar)
    _refuse_precision(precision)
    source, out, place = Path(source), Path(out), pick_device(device)
    is_table = source.suffix.lower() == ".csv"
    _refuse_idle(is_table, series, split, contrasts)
    runs = [one if isinstance(one, Run) else open_run(Path(one)) for one in (run, *with_runs)]
    how: dict[str, Any] = {"device": place, "batch": batch, "overlap": overlap, "precision": precision}
    members = [Member.of(one, to=to, **how) for one in runs]
    ensemble = _How(Ensemble(tuple(members), sampling, cycle), trust)
    if is_table:
        return _translate_table(ensemble, source, out, split)
    images = {"a": source} | {role: Path(path) for role, path in (contrasts or {}).items()}
    return [_translate_one(ensemble, _Job(source.name.split(".")[0], images, out, series))]


def translate_volume(
    run: Run,
    volume: Volume,
    *,
    contrasts: Mapping[str, Volume] | None = None,
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
        volume: the source, whose grid and header are kept.
        contrasts: all sources by role, if the run has several; they lie on the grid of `volume`, which is one of them.
        game: the run's translator, if it is loaded already.
        to: the domain to translate to: "b", or "a" by a model that learns both ways.
        device: where the network runs.
        batch: windows that go through the network together.
        overlap: share of a window that its neighbour covers again.
        label: shown beside the progress; nothing is shown without one.
    """
    member = Member.of(run, to=to, device=torch.device(device), batch=batch, overlap=overlap, game=game)
    sources = contrasts or {"a": volume}
    made = member.answer(member.seen(sources), label=label)
    return member.told(made, volume).marked(run.synthesis(to, seen=sources))


@dataclass(frozen=True)
class _How:
    ensemble: Ensemble
    trust: bool

    @property
    def first(self) -> Member:
        return self.ensemble.first

    @property
    def prep(self) -> Prep:
        return self.first.prep


@dataclass(frozen=True)
class _Job:
    case: str
    images: Mapping[str, Path]
    out: Path
    series: str | None = None
    claimed: bool = False  # maps that lie there are of an image that was never finished

    @property
    def source(self) -> Path:
        return next(iter(self.images.values()))


def _refuse_precision(precision: str | None) -> None:
    if precision not in (None, *PRECISIONS):
        raise InputError(f"precision: {precision!r} is none of {', '.join(PRECISIONS)}")


def _refuse_idle(is_table: bool, series: str | None, split: str | None, contrasts: Collection[str] | None) -> None:
    """An option or a process that would have no effect."""
    if not is_table and place().count > 1:
        raise InputError(
            f"one volume cannot be shared by {place().count} processes; name a table, or start one process"
        )
    if is_table and contrasts:
        raise InputError(f"contrasts: {', '.join(contrasts)} go with one volume; a table has a column for each")
    if is_table and series is not None:
        raise InputError(f"series: {series!r} names a series of a folder; a table already names its images")
    if not is_table and split is not None:
        raise InputError(f"split: {split!r} goes with a table of cases; one volume has none")


def _translate_one(how: _How, job: _Job) -> Translated:
    places = [map_path(job.out, kind) for kind in how.ensemble.kinds]
    for path in places if job.claimed else ():
        discard(path)
    refuse_taken([job.out, *places])
    volumes = _read(how, job)
    volume = next(iter(volumes.values()))
    if isinstance(volume.header, Space) and not job.out.name.endswith((".nii", ".nii.gz")):
        raise OutputError(f"{job.out}: the source is no DICOM series, so the output is a file: name it .nii.gz")
    synthetic, maps = _made(how, job, volumes)
    paths = write_all(synthetic, job.out, maps)
    told = _told(how.prep, job, volumes, synthetic)
    mean_std = float(maps["std"].array[foreground(volume.array)].mean()) if "std" in maps else None
    return replace(told, mean_std=mean_std, maps=paths)


def _made(how: _How, job: _Job, volumes: Mapping[str, Volume]) -> tuple[Volume, dict[str, Volume]]:
    """The synthetic image, and the maps that belong to it."""
    try:
        return how.ensemble.translate(volumes, f"Translating {job.case}")
    except InputError as error:
        raise InputError(f"{job.source}: {error}") from None
    except (torch.OutOfMemoryError, MemoryError) as error:
        device, batch = how.first.device, how.first.batch
        raise InputError(
            f"{job.source}: {device} has too little memory for {batch} windows at once; lower --batch"
        ) from error


def _read(how: _How, job: _Job) -> dict[str, Volume]:
    unknown = [role for role in job.images if role not in how.prep.sources]
    if unknown:
        raise InputError(f"contrasts: {', '.join(unknown)} unknown to this run (it sees {', '.join(how.prep.sources)})")
    return read_sources(job.images, how.prep, "", series=job.series, judge=_believe if how.trust else _check)


def _believe(_volume: Volume, _intensity: Intensity, _name: str) -> None:
    """The user knows better."""


def _check(volume: Volume, intensity: Intensity, name: str) -> None:
    if volume.synthetic and volume.synthetic.quantity:
        raise InputError(f"{name}: is the {volume.synthetic.quantity} of an image; name the image itself")
    try:
        check(volume, intensity, name)
    except InputError as error:
        raise InputError(f"{error}; if you know better, say so with --trust") from None


def _told(prep: Prep, job: _Job, volumes: Mapping[str, Volume], synthetic: Volume) -> Translated:
    low, high = prep.b.output_range
    saturated = float((synthetic.array > high - 0.002 * (high - low)).mean())
    missing = tuple(role for role in prep.sources if role not in volumes)
    clipped = max(clipped_share(volume, prep.sources[role]) for role, volume in volumes.items())
    return Translated(job.case, job.out, synthetic.unit, low, high, clipped, saturated, tuple(volumes), missing)


def _translate_table(how: _How, table: Path, out: Path, split: str | None) -> list[Translated]:
    """All cases; those that are there already from the same weights are not done again.

    One that cannot be read does not keep the others waiting: it is told when they are done.
    """
    columns = _columns(how)
    all_of_them = how.first.run.config.model.paired and not how.prep.contrast_dropout
    required = tuple(columns.values()) if all_of_them else ()
    cases = _with_images(read_cases(table, split=split, required=required), columns)
    if not cases:
        raise CasesError(
            f"{table}: has no case with an image {' or '.join(columns.values())} in the split {split}; "
            "name another split, or none for all cases"
        )
    jobs = [_job(case, columns, out) for case in cases]
    _refuse_namesakes(jobs, how)
    made_by = {"weights_sha256": how.first.run.weights_sha256, "to": how.first.to, "synthetic": True}
    claim(out, made_by | how.ensemble.facts())
    own = share(jobs)  # before looking what is there: meanwhile other processes write
    todo = [job for job in own if not job.out.exists()]
    if len(todo) < len(own):
        say(f"{out}: {len(own) - len(todo)} of {len(own)} cases are there already")
    tried = [_tried(how, job) for job in track(todo, "Translating cases")]
    every = [one for part in gathered(tried) for one in part]
    if failures := [one for one in every if isinstance(one, InputError)]:
        raise _told_together(failures, len(every), table)
    order = {job.case: number for number, job in enumerate(jobs)}
    return sorted((one for one in every if isinstance(one, Translated)), key=lambda one: order[one.case])


def _tried(how: _How, job: _Job) -> Translated | InputError:
    try:
        return _translate_one(how, job)
    except InputError as error:
        return error.with_traceback(None)


def _told_together(failures: Sequence[InputError], count: int, table: Path) -> InputError:
    if count == 1:
        return failures[0]
    others = "the others are done" if len(failures) < count else "that is all of them"
    reasons = " ".join(f"({number}) {error}" for number, error in enumerate(failures[:TOLD_FAILURES], start=1))
    more = f" and {len(failures) - TOLD_FAILURES} more" if len(failures) > TOLD_FAILURES else ""
    return InputError(
        f"{table}: {len(failures)} of {count} cases could not be translated, {others}: {reasons}{more}. "
        "Mend them or take them out of the table; the same command then goes on"
    )


def _columns(how: _How) -> dict[str, str]:
    """The columns of a table that are translated, by what they are to the run."""
    return {"a": "b"} if how.first.to == "a" else {role: role for role in how.prep.sources}


def _with_images(cases: list[Case], columns: Mapping[str, str]) -> list[Case]:
    """The cases that have an image in one of the columns."""
    having = [case for case in cases if case.images.keys() & columns.values()]
    if len(having) < len(cases):
        wanted = " or ".join(columns.values())
        say(f"{len(cases) - len(having)} of {len(cases)} cases have no image {wanted} to translate")
    return having


def _job(case: Case, columns: Mapping[str, str], out: Path) -> _Job:
    images = {role: case.images[column] for role, column in columns.items() if column in case.images}
    return _Job(case.name, images, output_path(case, out, columns[next(iter(images))]), claimed=True)


def _refuse_namesakes(jobs: Sequence[_Job], how: _How) -> None:
    """A case whose name is that of another one's map."""
    maps = {map_path(job.out, kind): job.case for job in jobs for kind in how.ensemble.kinds}
    for job in jobs:
        if job.out in maps:
            raise CasesError(
                f"{job.out}: is the place of case {job.case!r} and of a map of {maps[job.out]!r}; rename one"
            )
