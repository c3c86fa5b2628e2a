"""All cases of a cohort: what is done already, what is to be done, and what all of them have in common."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from medgan import __version__
from medgan.atomic import replacing
from medgan.cases import Case
from medgan.errors import ConfigError, InputError, MedganError, OutputError
from medgan.formats import read
from medgan.prepare.picture import after, before, joined
from medgan.prepare.plan import Plan, dump
from medgan.prepare.records import (
    PROVENANCE,
    Source,
    is_whole,
    read_half,
    read_provenance,
    sources_of,
    take_half,
    write_case,
)
from medgan.prepare.scales import Learnt, Scales, fitted_scales, read_scales, unfitted
from medgan.prepare.way import Half, finished, halfway
from medgan.processes import copies
from medgan.progress import say, track
from medgan.volume import Volume

__all__ = [
    "KEPT",
    "MADE",
    "PAGE",
    "REFUSED",
    "SUMMARY",
    "TABLE",
    "PreparedCase",
    "claimed",
    "left_over",
    "made",
    "put",
    "refuse_missing_libraries",
    "results_of",
    "scaled",
]

TABLE, SETTINGS, SUMMARY, SCALES = "cases.csv", "prepare.yaml", "prepare.json", "harmonisation.json"
PAGE = "report.html"  # written by the command line, not from here
MADE, KEPT, REFUSED = "prepared", "unchanged", "refused"
# ITK tells by a RuntimeError what it cannot do, NumPy and SciPy by the others.
FAILED = (MedganError, OSError, RuntimeError, MemoryError, ValueError, ArithmeticError)
_HALVES, _LOCK = ".halfway", ".lock"
_RESERVED = (TABLE, SETTINGS, SUMMARY, SCALES, PAGE)
_ANEW = "its files, the settings, what is learnt from train, or the version of medgan have changed"


@dataclass(frozen=True)
class PreparedCase:
    """What became of a case.

    Args:
        name: of the case.
        status: `prepared`, `unchanged` (it was prepared before) or `refused`.
        reason: why it was refused, or prepared anew; "" if neither.
        notes: what people should know.
    """

    name: str
    status: str
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Job:
    """A case, what it is made of, and the key of its half way; without a key it cannot be made, for a reason."""

    case: Case
    sources: Mapping[str, Source]
    key: str
    reason: str = ""


@contextmanager
def claimed(home: Path, plan: Plan) -> Iterator[None]:
    """The folder of a cohort, for this process alone.

    Raises:
        OutputError: if it holds something else, another process works on it, or it cannot be written.
    """
    _refuse_foreign(home)
    with _locked(home):
        _tidy(home)
        _write_settings(home, plan)
        yield


def refuse_missing_libraries(plan: Plan) -> None:
    """Before any work is done.

    Raises:
        ConfigError: naming the setting, and what to install for it.
    """
    biased = [f"images.{role}.bias_field" for role, image in plan.images.items() if image.bias_field]
    wanted = dict.fromkeys([*(["registration"] if plan.moved else []), *biased], ("SimpleITK", "registration"))
    wanted |= {"registration.kind": ("itk", "elastix")} if plan.is_bent else {}
    wanted |= {"mask.source": ("deepbet", "features")} if plan.mask and plan.mask.source == "brain" else {}
    for key, (library, extra) in wanted.items():
        if find_spec(library) is None:
            raise ConfigError(f"{key}: needs {library}; pip install 'medgan[{extra}]', or leave this step out")


def scaled(cases: Sequence[Case], plan: Plan, home: Path, processes: int) -> Scales:
    """The scale of each image that is harmonised: of the plan's file, of an earlier run, or of the cases in train.

    Raises:
        InputError: if no case of train can be prepared.
        ConfigError: if the plan's file is none, or of other methods.
    """
    if not unfitted(plan):
        return fitted_scales(plan, {})
    if plan.harmonisation is not None:
        scales = read_scales(plan.harmonisation, plan)
        put(home / SCALES, scales.text)
        return scales
    jobs = [_job(case, plan) for case in cases if case.split == "train"]
    keys = sorted(job.key for job in jobs)
    known = _known(home / SCALES, plan)
    return known if known is not None and known.keys == keys else _fitted(jobs, plan, home, processes)


def made(cases: Sequence[Case], plan: Plan, scales: Scales, home: Path, processes: int) -> list[PreparedCase]:
    """Every case, in the order of the table."""
    count = min(processes, len(cases))
    with copies(count, "prepares cases") as over:
        done = list(track(over(partial(_made, plan, scales, home), cases), "prepare", len(cases)))
    shutil.rmtree(home / _HALVES, ignore_errors=True)
    return done


def results_of(folder: Path) -> dict[str, Path]:
    """The images of a prepared case, by role."""
    return {role: folder / f"{role}.nii.gz" for role in read_provenance(folder)["results"]}


def left_over(home: Path, cases: Sequence[Case]) -> tuple[str, ...]:
    """Folders of cases that the table does not name."""
    named = {case.name for case in cases}
    return tuple(sorted(path.parent.name for path in home.glob(f"*/{PROVENANCE}") if path.parent.name not in named))


def put(path: Path, text: str) -> None:
    """Write a file, unless it holds just that."""
    text = text.rstrip("\n") + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


# --- the folder -------------------------------------------------------------------------------------------------------


def _refuse_foreign(home: Path) -> None:
    if home.is_file() or (home.is_dir() and not (home / SETTINGS).is_file() and any(map(_is_foreign, home.iterdir()))):
        raise OutputError(f"{home}: holds something that medgan prepare did not write; name a new or empty folder")


def _is_foreign(path: Path) -> bool:
    """Other than what a run leaves that was killed, or ran out of room, before it wrote anything."""
    return path.name != _LOCK and not (path.name.startswith(".") and ".part." in path.name)


def _locked(home: Path) -> TextIO:
    """Held as long as it is open; the system lets go of it however the process ends."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{home}: another medgan prepares this cohort; wait for it, or name another folder") from None
    except OSError as error:
        raise OutputError(f"{home}: cannot be written ({error.strerror or error}); choose another place") from None
    return lock


def _tidy(home: Path) -> None:
    """Take away what a run that was killed had begun."""
    for path in home.glob(".*.part.*"):
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)


def _write_settings(home: Path, plan: Plan) -> None:
    """As they are told to whom prepares new patients the same way."""
    text = dump(plan.model_copy(update={"harmonisation": Path(SCALES) if unfitted(plan) else None}))
    if (home / SETTINGS).is_file() and (home / SETTINGS).read_text(encoding="utf-8") != text:
        say(f"{home}: was prepared with other settings; what they change is prepared anew")
    put(home / SETTINGS, text)


# --- what a case hangs on ---------------------------------------------------------------------------------------------


def _job(case: Case, plan: Plan) -> _Job:
    if case.name in _RESERVED:
        return _Job(case, {}, "", f"a case cannot be named {case.name}, as a file beside it; rename it")
    try:
        sources = sources_of(case)
    except InputError as error:
        return _Job(case, {}, "", str(error))
    done = plan.model_dump(mode="json", exclude={"harmonisation": True, "images": {"__all__": {"harmonise", "clip"}}})
    hashes = {role: source.sha256 for role, source in sources.items()}
    return _Job(case, sources, _hash({"medgan": __version__, "case": case.name, "plan": done, "sources": hashes}))


def _final_key(job: _Job, plan: Plan, scales: Scales) -> str:
    last = {role: image.model_dump(mode="json", include={"harmonise", "clip"}) for role, image in plan.images.items()}
    return _hash({"half": job.key, "patient": job.case.patient, "last": last, "scales": scales.digest})


def _hash(values: Mapping[str, Any]) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


# --- what all have in common ------------------------------------------------------------------------------------------


def _known(path: Path, plan: Plan) -> Scales | None:
    """What an earlier run has learnt, if it still fits."""
    try:
        return read_scales(path, plan) if path.is_file() else None
    except ConfigError:
        return None


def _fitted(jobs: Sequence[_Job], plan: Plan, home: Path, processes: int) -> Scales:
    with copies(min(processes, len(jobs)), "prepares cases") as over:
        reasons = list(track(over(partial(_aside, plan, home), jobs), "prepare what is learnt from", len(jobs)))
    good = [job for job, reason in zip(jobs, reasons, strict=True) if not reason]
    if not good:
        told = next(iter(reasons), "there is none")
        raise InputError(
            f"values are harmonised by what the cases of the split train have in common, and none can be prepared "
            f"({told}); give some, or name by harmonisation the file of a cohort that was prepared before"
        )
    folders = [_half_folder(home, job) for job in good]
    halves: dict[str, Learnt] = {role: partial(_images_and_masks, folders, role) for role in unfitted(plan)}
    scales = fitted_scales(plan, halves, sorted(job.key for job in jobs))
    put(home / SCALES, scales.text)
    return scales


def _images_and_masks(folders: Sequence[Path], role: str) -> tuple[Iterator[Volume], Iterator[Volume]]:
    """Of each case that has the image, read one at a time."""
    having = [folder for folder in folders if (folder / f"{role}.nii").is_file()]
    images = (read(folder / f"{role}.nii") for folder in having)
    return images, (read(folder / "mask.nii") for folder in having)


def _half_folder(home: Path, job: _Job) -> Path:
    return home / _HALVES / job.key


def _aside(plan: Plan, home: Path, job: _Job) -> str:
    """Put the half of a case aside; says why it cannot be made."""
    if job.reason or (_half_folder(home, job) / "half.json").is_file():
        return job.reason
    try:
        take_half(_half_folder(home, job), *_half(job, plan))
    except OutputError:
        raise
    except FAILED as error:
        return _reason(error)
    return ""


# --- case by case -----------------------------------------------------------------------------------------------------


def _half(job: _Job, plan: Plan) -> tuple[Half, Any]:
    wanted = {*plan.images, *plan.labels, *(["mask"] if plan.mask and plan.mask.source == "given" else [])}
    volumes = {role: read(path) for role, path in job.case.images.items() if role in wanted}
    half = halfway(volumes, plan)
    images = {role: volumes[role] for role in plan.images if role in volumes}
    return half, before(images, next(iter(half.volumes.values())).grid)


def _made(plan: Plan, scales: Scales, home: Path, case: Case) -> PreparedCase:
    job, folder = _job(case, plan), home / case.name
    if job.reason:
        return PreparedCase(case.name, REFUSED, job.reason)
    key, old = _final_key(job, plan, scales), read_provenance(folder)
    if is_whole(folder, key):
        return PreparedCase(case.name, KEPT, notes=tuple(old["notes"]))
    try:
        half, picture = _waiting(home, job, plan)
        result = finished(half, plan, scales.by_role)
        both = joined([picture, after(result.volumes)])
        write_case(folder, result, both, case=case, sources=job.sources, key=key)
    except OutputError:
        raise
    except FAILED as error:
        shutil.rmtree(folder, ignore_errors=True)
        return PreparedCase(case.name, REFUSED, _reason(error))
    return PreparedCase(case.name, MADE, _ANEW if old else "", result.notes)


def _reason(error: BaseException) -> str:
    """In one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _waiting(home: Path, job: _Job, plan: Plan) -> tuple[Half, Any]:
    """The half that was put aside, or a new one."""
    folder = _half_folder(home, job)
    return read_half(folder) if (folder / "half.json").is_file() else _half(job, plan)
