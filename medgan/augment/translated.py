"""A table of labelled images → the same in another modality, with the labels: what to train a segmenter of it on."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

import medgan
from medgan.atomic import replacing
from medgan.augment.sets import MANIFEST, TABLE
from medgan.cases import SPLITS, Case, listed, read_cases, write_cases
from medgan.errors import CasesError, GeometryError, InputError, OutputError
from medgan.formats import read_header
from medgan.ledger import output_path
from medgan.processes import is_first
from medgan.progress import say
from medgan.run import Run, open_run
from medgan.scans import SAME_GRID_MM
from medgan.translate import translate
from medgan.volume import Grid, Volume

__all__ = ["augment", "translated_manifest"]

IMAGES = "images"
_TAKEN = ("case", "patient", "split", "mask")
_ROLE = re.compile(r"[a-z][a-z0-9_]*")
_TOLD = {"weights_sha256", "to", "role", "split", "cases_sha256"}


def augment(
    run: Path | Run,
    table: Path | str,
    out: Path | str,
    *,
    to: str = "b",
    role: str | None = None,
    split: str = "train",
    device: str = "auto",
    batch: int = 8,
    trust: bool = False,
    unlabelled: bool = False,
) -> list[Case]:
    """Translate the labelled images of one split of a table, and make a table of the translations with their labels.

    The folder gets `images/`, the translations, each on the grid of its source and marked as synthetic; `cases.csv`, in
    which a translation stands in the place of what it was made from, and all other columns are carried over; and
    `manifest.json`, which tells by which run and weights. Labels are referred to where they lie and not copied: one
    that is corrected later is corrected here, too, and the folder holds no image that is not synthetic. Patients keep
    their names and their split, since a translation is an image of its patient still. A call that was stopped goes on.

    Args:
        run: the folder of a translator's run.
        table: the cases (.csv); its column `a`, and those of the contrasts that the run knows, are translated; with
            `to` "a" its column `b`.
        out: the folder, new or of the same call.
        to: the domain to translate to: "b", or "a" by a model that learns both ways.
        role: the column of the translations in the new table; that of the domain if not given.
        split: whose cases are translated; one folder holds one split.
        device: `auto`, `cpu` or `cuda`.
        batch: windows that go through the network together.
        trust: take the images for what the run expects although their modality or unit says otherwise.
        unlabelled: take cases along that have nothing to carry over.

    Returns:
        The cases of the new table.

    Raises:
        RunError: if the run cannot be used, or not in this direction.
        CasesError: if the table cannot be used, the split is empty, a case has no label, or its place for the
            translation is taken.
        GeometryError: if a label is not on the grid of its image (in whatever order of axes).
        OutputError: if `out` holds something else or cannot be written.
    """
    run, table, out = run if isinstance(run, Run) else open_run(Path(run)), Path(table), Path(out)
    job = _Job(run, table, out, to, to if role is None else role, split)
    cases = job.cases()
    _refuse_unfit(job, cases, unlabelled=unlabelled)
    _refuse_other_grids(job, cases)
    _tell_of_leaks(job)
    _claim(job)
    translate(run, table, out / IMAGES, to=to, split=split, device=device, batch=batch, trust=trust)
    made = [job.made(case) for case in cases]
    if is_first():
        write_cases(made, out / TABLE)
        _write(out, {**job.facts(), "run": str(run.path.resolve()), "images": [job.line(case) for case in made]})
    return made


def translated_manifest(folder: Path) -> dict[str, Any] | None:
    """What the manifest of a folder tells if `augment` has written it, else None."""
    try:
        told = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and told.keys() >= _TOLD else None


@dataclass(frozen=True)
class _Job:
    run: Run
    table: Path
    out: Path
    to: str
    role: str
    split: str

    @property
    def sources(self) -> list[str]:
        """The columns that are translated."""
        return ["b"] if self.to == "a" else list(self.run.config.prep.sources)

    def source(self, case: Case) -> str:
        """The column whose grid the translation of a case has."""
        return next(role for role in self.sources if role in case.images)

    def carried(self, case: Case) -> dict[str, Path]:
        """The images of a case that go over into the new table as they are."""
        return {role: path for role, path in case.images.items() if role not in self.sources}

    def cases(self) -> list[Case]:
        """Those of the split that have an image to translate."""
        cases = read_cases(self.table, split=self.split, required=())
        return [case for case in cases if case.images.keys() & set(self.sources)]

    def made(self, case: Case) -> Case:
        """The case in the new table."""
        image = output_path(case, self.out / IMAGES, self.source(case))
        return Case(case.name, case.patient, case.split, {self.role: image, **self.carried(case)}, case.conditions)

    def line(self, case: Case) -> dict[str, Any]:
        """What the manifest tells of a case in the new table."""
        carried = [role for role in case.images if role != self.role]
        return {"case": case.name, "file": case.images[self.role].name, "carried": carried}

    def facts(self) -> dict[str, Any]:
        """By what and how, as plain values: folders of two different calls are never mixed."""
        return {
            "synthetic": True,
            "medgan": medgan.__version__,
            "torch": torch.__version__,
            "model": self.run.config.model.name,
            "weights_sha256": self.run.weights_sha256,
            "contract": self.run.config.prep.towards(self.to).b.model_dump(mode="json"),
            "to": self.to,
            "role": self.role,
            "split": self.split,
            "cases_sha256": _digest(self.table),
        }


# --- what is refused --------------------------------------------------------------------------------------------------


def _refuse_unfit(job: _Job, cases: Sequence[Case], *, unlabelled: bool) -> None:
    """A table, or a name for the new column, of which nothing can be made."""
    if job.table.suffix.lower() != ".csv":
        raise CasesError(f"{job.table}: is no table of cases by its name; name a .csv file")
    if not _ROLE.fullmatch(job.role) or job.role in _TAKEN:
        raise InputError(f"role: {job.role!r} can be no column of a table; give a name in lower case, such as b")
    if not cases:
        raise CasesError(
            f"{job.table}: has no case with an image {' or '.join(job.sources)} in the split {job.split}; name "
            "another split"
        )
    if taken := [case.name for case in cases if job.role in job.carried(case)]:
        raise CasesError(
            f"{job.table}: cases have an image {job.role} of their own already ({listed(taken, most=3)}); name "
            "another column for the translations by --role"
        )
    bare = [case.name for case in cases if not job.carried(case) and not case.conditions]
    if bare and not unlabelled:
        raise CasesError(
            f"{job.table}: cases have no label to carry over, neither an image besides {', '.join(job.sources)} nor a "
            f"condition ({listed(bare, most=3)}); add some, or take these along by --unlabelled"
        )


def _refuse_other_grids(job: _Job, cases: Sequence[Case]) -> None:
    wrong = [line for case in cases for line in _off_grid(job, case)]
    if wrong:
        raise GeometryError(
            f"{len(wrong)} labels are not on the grid of their image: {listed(wrong, most=3)}; resample them onto it "
            "first, by the nearest neighbour"
        )


def _off_grid(job: _Job, case: Case) -> list[str]:
    """A line for each image of a case that is not on the grid of the one that is translated."""
    carried, source = job.carried(case), job.source(case)
    if not carried:
        return []
    own, lines = _in_ras(read_header(case.images[source]).grid), []
    for role, path in carried.items():
        grid = _in_ras(read_header(path).grid)
        if not grid.same_as(own, tolerance_mm=SAME_GRID_MM):
            apart = f", up to {grid.distance_mm(own):.3g} mm apart" if grid.shape == own.shape else ""
            lines.append(f"{case.name}: {role} is {grid.describe()}, {source} is {own.describe()}{apart}")
    return lines


def _in_ras(grid: Grid) -> Grid:
    return Volume(np.broadcast_to(np.uint8(0), grid.shape), grid).reorient("RAS").grid


def _tell_of_leaks(job: _Job) -> None:
    """Patients that are held out here and that the run has learnt from, as far as their names tell."""
    learnt = job.run.config.cases
    if not learnt.is_file() or _digest(learnt) == _digest(job.table):
        return
    before, now = _places(learnt), _places(job.table)
    if both := [patient for patient, place in now.items() if before.get(patient, place) < place]:
        say(
            f"{job.table}: holds out patients whose names were in the training of the run ({listed(both, most=3)}); if "
            "they are the same persons, what is found on them is too good"
        )


def _places(table: Path) -> dict[str, int]:
    """Of each patient's split among the splits; of nobody, if the table cannot be read any more."""
    try:
        return {case.patient: SPLITS.index(case.split) for case in read_cases(table, required=())}
    except CasesError:
        return {}


# --- what is written --------------------------------------------------------------------------------------------------


def _claim(job: _Job) -> None:
    """Take the folder for this call; one in which nothing was made yet may be taken for another."""
    names = [path.name for path in job.out.iterdir()] if job.out.is_dir() else []
    there = {name for name in names if ".part." not in name}  # which another process of this call is writing
    held = translated_manifest(job.out) or {}
    if there and not held:
        raise OutputError(f"{job.out}: is a folder with something in it; name a new or empty one")
    other = [key for key, value in job.facts().items() if held.get(key) != value]
    if other and there - {MANIFEST}:
        raise OutputError(f"{job.out}: holds images made otherwise ({', '.join(other)}); name another folder")
    if other:
        _write(job.out, job.facts())


def _write(out: Path, told: dict[str, Any]) -> None:
    with replacing(out / MANIFEST) as temporary:
        temporary.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _digest(table: Path) -> str:
    return sha256(table.read_bytes()).hexdigest()
