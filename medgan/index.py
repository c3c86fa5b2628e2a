"""From a folder of scans to a checked table of cases."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from medgan.cases import FIXED_COLUMNS, SPLITS, Case, listed, tell_alike, write_cases
from medgan.errors import CasesError, GeometryError, InputError, MedganError, OutputError
from medgan.formats import Header, read, read_header
from medgan.layouts import LAYOUTS, find, synthrad
from medgan.leaks import Seen, leaks, look_at
from medgan.names import is_case_name, is_text
from medgan.progress import say, track
from medgan.splits import Sharing, table_paths
from medgan.volume import Grid, Volume

__all__ = ["index"]

T = TypeVar("T")
Faults = dict[str, list[str]]  # what is wrong with a case, in lines that name it, by its name
_TOLERANCE_MM = 1e-2


def index(
    folder: Path,
    *,
    layout: str = "patterns",
    a: str | None = None,
    b: str | None = None,
    contrasts: Mapping[str, str] | None = None,
    images: Mapping[str, str] | None = None,
    mask: str | None = None,
    out: Path,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    patients: Mapping[str, str] | Path | None = None,
    conditions: Path | None = None,
    split: str | None = None,
    split_file: Path | None = None,
    folds: int | None = None,
    stratify: str | None = None,
    unpaired: bool = False,
    unregistered: bool = False,
    leave_out: bool = False,
) -> list[Case]:
    """Find the cases in a folder, prove that their images fit and that no split sees another's patients, write a table.

    How images are named is for the layout to say. Patterns are paths relative to the folder, with the fields
    `{patient}` and `{case}` for what differs and `*` for what does not matter, as in `{patient}/t1.nii.gz` or
    `{patient}/{case}/MR*`; `t1.nii.gz` alone means `{patient}/t1.nii.gz`. A DICOM image is the folder of its series.
    Where two fields share a name, the first takes as little as fits. A case is named by its fields, joined by `_`. In
    BIDS names are suffixes, with entities where needed, such as `T1w`, `acq-hr_T1w` or
    `derivatives/brains/desc-brain_mask`; in the Decathlon the modalities of dataset.json, and `label`; in SynthRAD
    those of files, by default mr or cbct to ct with the mask. In a DICOM tree they are rules for series, such
    as `MR:*T1*|!*GD*`.

    Args:
        folder: with the scans.
        layout: `patterns`, `bids`, `decathlon`, `synthrad` or `dicom`.
        a: name of the images to translate from, as the layout has it; with b, or neither of them.
        b: name of the images to translate to.
        contrasts: names of further sources, by the name of their column in the table, such as `t2`. A case may lack
            some of them; only a model trained with `prep.contrast_dropout` can use it.
        images: instead of a and b the names of the images that a sampler learns, by the name of their column. A case
            has all of them.
        mask: name of the masks, if there are any.
        out: the CSV file to write.
        fractions: shares of the patients in train, val and test.
        seed: of the split.
        patients: which cases are of one person, where the folders do not tell: case name to patient name, or a CSV
            file with the columns case and patient. Cases not named here are of the patient that their path says.
        conditions: what is known of the images, for samplers: a CSV file with the column case or patient and others,
            such as class or age, which become columns `condition:…` of the table.
        split: put all cases into this one, instead of sharing them out.
        split_file: a fixed split instead: a CSV file with the columns patient and split, such as another table of
            cases. It names every patient, and may name others.
        folds: write as many tables instead of one, `cases_fold1of5.csv` and so on for `cases.csv`: each patient is test
            in one of them; the others are shared out between train and val by the first two fractions.
        stratify: a condition, such as site, of which each split gets its share within one patient.
        unpaired: accept cases that have only a or only b, and a and b of one case on different grids. The split then
            shares out those with a alone, with b alone and with both one by one, so that each has some of all.
        unregistered: accept images of a case on different grids, as they come from the scanner: for `check` and
            `prepare`, which lays them upon one another.
        leave_out: leave out, and tell of, cases whose name cannot stand in a table, that lack an image, that cannot be
            read, whose images lie on different grids, show nothing or are one image, instead of refusing all. A leak is
            refused all the same.

    Returns:
        The cases, sorted by name; with folds, as the first table has them.

    Raises:
        InputError: if there is no such folder or layout.
        CasesError: if no case is found, one lacks an image, an image cannot be read or is of one value alone, or one
            person is in two splits: by the patient identifiers or UIDs in DICOM headers, or by images that are equal,
            voxel for voxel. What only looks alike is told.
        GeometryError: if the images of a case are on different grids; names both.
        OutputError: if the table cannot be written.
    """
    folder = Path(folder)
    sharing = Sharing(fractions, seed, split, split_file, folds, stratify)
    if unpaired and contrasts:
        raise InputError(f"contrasts: {', '.join(contrasts)} serve models that learn from pairs; leave out one of both")
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give the one that the patterns are relative to")
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r} (accepted: {', '.join(LAYOUTS)})")
    if layout == "synthrad" and not images:
        a, b, mask = synthrad.named(folder, a, b, mask)
    if Path(out).is_dir():
        raise OutputError(f"{out}: is a folder; name the file of the table, such as {Path(out) / 'cases.csv'}")
    wanted = _wanted(_roles(a, b, images, translators=bool(contrasts) or unpaired), contrasts or {}, mask)
    cases = _stripped(find(layout, folder, wanted, table=Path(out)))
    usable = partial(_usable, leave_out=leave_out)
    cases = usable(cases, *_misnamed(cases))
    if unpaired:
        cases = [case for case in cases if case.images.keys() & {"a", "b"}]
    else:
        cases = usable(cases, *_incomplete(folder, cases, wanted, contrasts or {}))
    cases = _labelled(_renamed(cases, patients), conditions)
    tell_alike(cases, folder)
    sharing.tables(cases)  # refuses what contradicts itself before hours of reading
    headers, unread = _each(cases, read_header, "reading headers")
    cases = usable(cases, unread, CasesError, "images that cannot be read", "mend or remove them")
    if not unregistered:
        cases = usable(cases, *_on_other_grids(cases, headers, unpaired=unpaired))
    cases, seen = _seen(cases, usable)
    tables = sharing.tables(cases)
    _tell_empty(tables[0], sharing)
    for table in tables:
        _refuse_identities(table, headers, patients)
    _refuse_leaks(seen)
    for path, table in zip(table_paths(Path(out), folds), tables, strict=True):
        write_cases(table, path)
    return tables[0]


# --- finding ----------------------------------------------------------------------------------------------------------


def _wanted(roles: Mapping[str, str], contrasts: Mapping[str, str], mask: str | None) -> dict[str, str]:
    """What the user calls the images of each role."""
    named = [*contrasts, *(role for role in roles if roles.keys() != {"a", "b"})]
    if taken := [role for role in named if role in FIXED_COLUMNS]:
        raise CasesError(f"images: {', '.join(taken)} are columns already; name the column otherwise")
    return {**roles, **contrasts} | ({"mask": mask} if mask else {})


def _roles(a: str | None, b: str | None, images: Mapping[str, str] | None, *, translators: bool) -> Mapping[str, str]:
    if images and a is None and b is None and not translators:
        return images
    if images or a is None or b is None:
        raise InputError(
            "name either both a and b, the images of a translator, or those of a sampler alone: --image t1=t1.nii.gz"
        )
    return {"a": a, "b": b}


def _stripped(cases: Sequence[Case]) -> list[Case]:
    """Named without white space around, as readers of tables see them."""
    return [replace(case, name=case.name.strip(), patient=case.patient.strip()) for case in cases]


def _misnamed(cases: Sequence[Case]) -> tuple[Faults, type[MedganError], str, str]:
    """Cases that a table cannot name, or that have a name together."""
    counts, faults = Counter(case.name for case in cases), defaultdict(list)
    for case in cases:
        place = repr(str(next(iter(case.images.values()))))
        if counts[case.name] > 1:
            faults[case.name].append(f"{case.name} is there several times, as in {place}")
        elif not is_case_name(case.name) or not all(map(is_text, case.images.values())):
            faults[case.name].append(f"{case.name!r}, as in {place}")
    remedy = "rename these folders or files: names are printable, start with no dot, and have 200 letters at most"
    return faults, CasesError, "cases that a table cannot name", remedy


def _incomplete(
    folder: Path, cases: list[Case], wanted: Mapping[str, str], optional: Container[str]
) -> tuple[Faults, type[MedganError], str, str]:
    """Cases without an image that they need, and how to say so; contrasts may be missing, which is only told."""
    lacking = [(case.name, role) for case in cases for role in wanted if role not in case.images]
    if without := listed(f"{name} has no {role}" for name, role in lacking if role in optional):
        say(f"Contrasts are missing, without which only prep.contrast_dropout can do: {without}")
    faults: Faults = defaultdict(list)
    for name, role in lacking:
        if role not in optional:
            faults[name].append(f"{name} has no {role}")
    other_way = ", or index without pairs (--unpaired)" if "a" in wanted else ""
    shown = ", ".join(f"{role}: {text}" for role, text in wanted.items())
    remedy = f"move them out of the folder, or correct the patterns ({shown}){other_way}"
    return faults, CasesError, f"{folder}: incomplete cases", remedy


def _usable(
    cases: list[Case], faults: Faults, error: type[MedganError], what: str, remedy: str, *, leave_out: bool
) -> list[Case]:
    """The cases without faults; those with some are refused, or told if they are to be left out."""
    lines = [line for _, own in sorted(faults.items()) for line in own]
    if lines and (not leave_out or len(faults) == len(cases)):
        also = "" if leave_out else ", or leave these cases out (--leave-out)"
        raise error(f"{what}: {listed(lines)}; {remedy}{also}")
    for line in lines:
        say(f"Left out {line}")
    return [case for case in cases if case.name not in faults]


# --- patients and splits ----------------------------------------------------------------------------------------------


def _renamed(cases: list[Case], patients: Mapping[str, str] | Path | None) -> list[Case]:
    """The cases with the patients that the user names."""
    person_of = _persons(patients)
    unknown = sorted(set(person_of) - {case.name for case in cases})
    if unknown:
        raise CasesError(
            f"patients: names cases that are not there: {listed(unknown)}; "
            f"the cases are {listed(case.name for case in cases)}"
        )
    return [replace(case, patient=person_of.get(case.name, case.patient)) for case in cases]


def _persons(patients: Mapping[str, str] | Path | None) -> Mapping[str, str]:
    if patients is None or isinstance(patients, Mapping):
        return patients or {}
    try:
        with Path(patients).open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CasesError(f"{patients}: cannot be read as a table of patients ({error})") from None
    if not rows or any(not row.get("case") or not row.get("patient") for row in rows):
        raise CasesError(f"{patients}: is a CSV file with the columns case and patient, none of them empty")
    twice = sorted({row["case"] for row in rows if sum(other["case"] == row["case"] for other in rows) > 1})
    if twice:
        raise CasesError(f"{patients}: names cases twice: {listed(twice)}; give each case one patient")
    return {row["case"]: row["patient"] for row in rows}


def _labelled(cases: list[Case], conditions: Path | None) -> list[Case]:
    """The cases with what a table says of them, or of their patients."""
    if conditions is None:
        return cases
    key, known = _known(conditions)
    of_case = {case.name: case.name if key == "case" else case.patient for case in cases}
    if missing := sorted(set(of_case.values()) - known.keys()):
        raise CasesError(f"{conditions}: has no line for the {key} {listed(missing)}; add it, or move the images away")
    return [replace(case, conditions={**case.conditions, **known[of_case[case.name]]}) for case in cases]


def _known(path: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """Whether the lines of a table are of cases or of patients, and what they say by the name of each."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CasesError(f"{path}: cannot be read as a table of conditions ({error})") from None
    keys = [key for key in ("case", "patient") if rows and key in rows[0]]
    if not keys or len(rows[0]) < 2 or any(not value or not name for row in rows for name, value in row.items()):
        raise CasesError(f"{path}: is a CSV file with the column case or patient and others, such as class, none empty")
    key = keys[0]
    if twice := sorted(name for name, count in Counter(row[key] for row in rows).items() if count > 1):
        raise CasesError(f"{path}: names the {key} {listed(twice)} twice; give each one line")
    return key, {row[key]: {name: row[name] for name in row if name not in ("case", "patient")} for row in rows}


def _tell_empty(cases: list[Case], sharing: Sharing) -> None:
    """Of splits that would have somebody if there were more patients."""
    there = {case.split for case in cases}
    empty = [split for split, share in zip(SPLITS, sharing.fractions, strict=True) if share and split not in there]
    if empty and sharing.split is None and sharing.file is None:
        say(f"Too few patients ({len({case.patient for case in cases})}): nobody is in {' and '.join(empty)}")


# --- proving ----------------------------------------------------------------------------------------------------------


def _each(cases: list[Case], look: Callable[[Path], T], label: str) -> tuple[dict[str, dict[str, T]], Faults]:
    """What is seen in every image, by case and role, and what cannot be."""
    seen: dict[str, dict[str, T]] = {case.name: {} for case in cases}
    bad: Faults = defaultdict(list)
    for case, role, path in track([(c, role, path) for c in cases for role, path in c.images.items()], label):
        try:
            seen[case.name][role] = look(path)
        except (MedganError, OSError) as error:
            bad[case.name].append(f"{case.name}, {role}: {error}")
    return seen, bad


def _on_other_grids(
    cases: list[Case], headers: Mapping[str, Mapping[str, Header]], *, unpaired: bool
) -> tuple[Faults, type[MedganError], str, str]:
    """All images of a case lie on the grid of the first, which is a where there is one; unpaired b may not."""
    wrong: Faults = defaultdict(list)
    for case in cases:
        for role in sorted(case.images.keys() - ({"b"} if unpaired else set())):
            if difference := _difference(headers[case.name], next(iter(case.images)), role):
                wrong[case.name].append(f"{case.name}: {difference}")
    what = f"{sum(map(len, wrong.values()))} images lie on another grid than the first of their case"
    return wrong, GeometryError, what, "index with --unregistered, and let medgan prepare lay them upon one another"


def _difference(headers: Mapping[str, Header], one: str, other: str) -> str:
    """Both grids in words, or "" if they put the same voxels at the same places, in whatever order they store them."""
    first, second = _in_ras(headers[one].grid), _in_ras(headers[other].grid)
    if first.same_as(second, tolerance_mm=_TOLERANCE_MM):
        return ""
    apart = f", up to {first.distance_mm(second):.3g} mm apart" if first.shape == second.shape else ""
    return f"{one} is {headers[one].grid.describe()}, {other} is {headers[other].grid.describe()}{apart}"


def _in_ras(grid: Grid) -> Grid:
    return Volume(np.broadcast_to(np.uint8(0), grid.shape), grid).reorient("RAS").grid


def _refuse_identities(
    cases: list[Case], headers: Mapping[str, Mapping[str, Header]], patients: Mapping[str, str] | Path | None
) -> None:
    """One identifier in two splits; of the cases that the user named in `patients`, the user knows better."""
    sure = _persons(patients)
    of_person: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        for identifier in {header.patient_id.strip() for header in headers[case.name].values()} - {""}:
            if case.name not in sure:
                of_person[identifier].append(case)
    shared = [own for own in of_person.values() if len({case.split for case in own}) > 1]
    if shared:
        raise CasesError(
            f"cases in different splits have one patient identifier in their DICOM headers: {_persons_listed(shared)}; "
            "say by `patients` whose each case is: one name for one person, or different names if the identifier is a "
            "placeholder"
        )


def _seen(cases: list[Case], usable: Callable[..., list[Case]]) -> tuple[list[Case], list[Seen]]:
    """Also proves that every image can be read. Masks may be equal: two may well be empty."""
    masks = [replace(case, images={"mask": case.images["mask"]}) for case in cases if "mask" in case.images]
    _, bad = _each(masks, read, "reading masks")
    seen = look_at(cases)
    for one in seen:
        if one.error:
            bad[one.case.name].append(f"{one.case.name}, {one.role}: {one.error}")
    cases = usable(cases, bad, CasesError, "images that cannot be read", "mend or remove them")
    cases = usable(cases, _blank(seen), CasesError, "images that show nothing", "mend or remove them")
    cases = usable(cases, _twins(seen), CasesError, "one image in two roles", "correct the patterns")
    names = {case.name for case in cases}
    return cases, [one for one in seen if one.case.name in names]


def _blank(seen: Sequence[Seen]) -> Faults:
    """Images of one value alone, as an export that failed leaves behind."""
    faults: Faults = defaultdict(list)
    for one in seen:
        if one.fingerprint and one.fingerprint.is_blank:
            faults[one.case.name].append(f"{one.case.name}, {one.role}: all voxels are equal")
    return faults


def _twins(seen: Sequence[Seen]) -> Faults:
    """One image in two roles of a case."""
    of_case: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in seen:
        if one.fingerprint and one.fingerprint.voxels:
            of_case[one.case.name, one.fingerprint.voxels].append(one.role)
    return {
        name: [f"{name}: {' and '.join(roles)} are the same image, voxel for voxel"]
        for (name, _), roles in of_case.items()
        if len(roles) > 1
    }


def _refuse_leaks(seen: Sequence[Seen]) -> None:
    """Images that two patients have in common are refused, those that only look so are told."""
    found = leaks(seen, lambda case: case.patient)
    if shared := [leak.describe() for leak in found if leak.kind in ("voxels", "uid")]:
        raise CasesError(
            f"cases of different patients have an image in common: {listed(shared)}; "
            "if they are one person, say so by `patients`; if one is a copy, remove it"
        )
    if alike := [leak.describe() for leak in found if leak.kind == "look"]:
        say(
            f"Warning: cases of different patients look as if they were of one person: {listed(alike)}; if they are, "
            "say so by `patients`; if one is a copy, remove it"
        )


def _persons_listed(groups: Iterable[list[Case]]) -> str:
    return listed(dict.fromkeys(" and ".join(case.name for case in group) for group in groups))
