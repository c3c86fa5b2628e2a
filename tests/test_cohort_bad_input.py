"""What people hand to index, check, prepare and export-cohort by mistake: told in one line, and the others go on.

Every fault that one case can have is in one cohort (`cohort_faults`), beside three good cases: each command meets all
of them at once. What is wrong with a table, a folder or a place is a table of its own.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
import pytest
from cohort_faults import FAULTS, GOOD, Fault, pair, put_case, put_file, slug
from cohorts import write_plan
from command_line import Done, medgan, tree
from test_bad_input import QUIET, files_end_at, no_parts, small_disk

from medgan import read, write
from medgan.cases import read_cases
from medgan.formats.dicom import Subject

Make = Callable[[Path], object]
T = TypeVar("T")
NAMES = ("--a", "mr.nii.gz", "--b", "ct.nii.gz")
WITH_MASK = (*NAMES, "--mask", "mask.nii.gz")
HEADER = "case,patient,split,a,b,mask\n"
GIVEN: dict[str, Any] = {"mask": {"source": "given", "of": "b"}}
BAD = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


def row(name: str, patient: str = "", split: str = "train", *, place: str = "") -> str:
    place = f"scans/{place or name}"
    return f"{name},{patient or name},{split},{place}/mr.nii.gz,{place}/ct.nii.gz,{place}/mask.nii.gz\n"


def refused_in_a_line(done: Done, says: str, code: int = 1) -> None:
    """Nothing but one line says what is wrong; notes and warnings may come before it."""
    assert (done.code, done.out, done.warned) == (code, "", ())
    assert re.fullmatch(f"Error: .*{says}.*", done.error), done.err
    assert done.err.count("Error: ") == 1


# --- one case is bad --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cases.csv, plan.yaml and scans: three good cases, and one for each fault."""
    home = tmp_path_factory.mktemp("cohort")
    for seed, name in enumerate((*GOOD, *(slug(fault.name) for fault in FAULTS)), start=1):
        put_case(home / "scans" / name, seed)
    for fault in FAULTS:
        fault.make(home / "scans" / slug(fault.name))
    rows = [row(good) for good in GOOD] + [row(slug(fault.name)) for fault in FAULTS]
    (home / "cases.csv").write_text(HEADER + "".join(rows))
    write_plan(home / "plan.yaml", **GIVEN)
    return home


@pytest.fixture(scope="module")
def indexed(cohort: Path) -> Done:
    return medgan("index", cohort / "scans", *WITH_MASK, "--leave-out", "--out", cohort / "new.csv")


@pytest.fixture(scope="module")
def checked(cohort: Path) -> Done:
    return medgan("check", cohort / "cases.csv", "--out", cohort / "checked", "--json")


@pytest.fixture(scope="module")
def prepared(cohort: Path) -> Done:
    return medgan("prepare", cohort / "cases.csv", cohort / "plan.yaml", "--out", cohort / "prepared", "--json")


@BAD
def test_index_leaves_it_out_and_says_why(fault: Fault, indexed: Done, cohort: Path) -> None:
    told = [line for line in indexed.err.splitlines() if re.match(rf"Left out {slug(fault.name)}\b", line)]
    kept = {case.name for case in read_cases(cohort / "new.csv", present=False)}
    assert (slug(fault.name) in kept) == (not fault.index)
    assert len(told) == bool(fault.index), told
    assert all(re.search(fault.index, line) for line in told), told


def test_index_keeps_the_others(indexed: Done, cohort: Path) -> None:
    assert (indexed.code, indexed.warned) == (0, ())
    assert set(GOOD) <= {case.name for case in read_cases(cohort / "new.csv")}


def test_index_refuses_a_cohort_with_bad_cases(cohort: Path) -> None:
    done = medgan("index", cohort / "scans", *WITH_MASK, "--out", cohort / "none.csv")
    refused_in_a_line(done, r"incomplete cases: .* has no (b|mask); .*\(--leave-out\)")
    assert not (cohort / "none.csv").exists()


@BAD
def test_check_finds_it(fault: Fault, checked: Done) -> None:
    case = next(one for one in json.loads(checked.out) if one["case"] == slug(fault.name))
    told = [f"{one['kind']}: {one['reason']}" for one in case["faults"]]
    assert any(re.search(fault.check, line) for line in [*told, ""]), told
    assert case["excluded"] == (bool(fault.check) and not fault.is_told), told
    assert not any("\n" in line for line in told)


def test_check_finds_nothing_in_the_others(checked: Done, cohort: Path) -> None:
    assert (checked.code, checked.warned) == (1, ())
    assert {one["case"] for one in json.loads(checked.out) if not one["excluded"] and one["pose"]} >= set(GOOD)
    with (cohort / "checked" / "exclude.csv").open(newline="") as stream:
        excluded = {line["case"] for line in csv.DictReader(stream)}
    assert excluded == {slug(fault.name) for fault in FAULTS if fault.check and not fault.is_told}
    assert (cohort / "checked" / "report.html").stat().st_size > 10_000


@BAD
def test_prepare_refuses_it(fault: Fault, prepared: Done, cohort: Path) -> None:
    case = next(one for one in json.loads(prepared.out)["cases"] if one["name"] == slug(fault.name))
    assert case["status"] == ("refused" if fault.prepare else "prepared"), case
    assert re.search(fault.prepare, case["reason"]), case
    assert "\n" not in case["reason"]
    assert (cohort / "prepared" / slug(fault.name)).exists() == (not fault.prepare)


def test_prepare_makes_the_others(prepared: Done, cohort: Path) -> None:
    assert (prepared.code, prepared.err, prepared.warned) == (4, "", ())
    made = [case.name for case in read_cases(cohort / "prepared" / "cases.csv")]
    assert made == [*GOOD, *(slug(fault.name) for fault in FAULTS if not fault.prepare)]
    told = json.loads((cohort / "prepared" / "prepare.json").read_text())
    assert [one["name"] for one in told["refused"]] == [slug(fault.name) for fault in FAULTS if fault.prepare]
    assert no_parts(cohort / "prepared")


@BAD
def test_export_hands_over_what_works_and_nothing_else(fault: Fault, cohort: Path, tmp_path: Path) -> None:
    name = slug(fault.name)
    table = cohort / f"{name}.csv"
    table.write_text(HEADER + row(GOOD[0]) + row(name))
    done = medgan("export-cohort", table, "decathlon", tmp_path / "out")
    table.unlink()
    if fault.export:
        refused_in_a_line(done, rf"{name}: .*{fault.export}")
        assert not tree(tmp_path)
    else:
        assert (done.code, done.err) == (0, "")
        assert (tmp_path / "out" / "imagesTr" / f"{name}_0001.nii.gz").is_file()


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({slug(fault.name) for fault in FAULTS}) == len(FAULTS)


def test_a_file_that_may_not_be_read_is_one_case(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, and disks do not break on demand."""
    locked = study / "scans" / "p2" / "ct.nii.gz"

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def look(path: Path) -> Any:
            if Path(path) == locked:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        return look

    for module, name in (("index", "read_header"), ("check", "read"), ("prepare.cohort", "read"), ("formats", "read")):
        home = import_module(f"medgan.{module}")
        monkeypatch.setattr(home, name, refusing(getattr(home, name)))
    monkeypatch.setattr(import_module("medgan.export_cohort.cohort"), "read", import_module("medgan.formats").read)
    done = medgan("index", study / "scans", *NAMES, "--leave-out", "--out", study / "new.csv")
    assert "Left out p2, b: " in done.err
    assert [case.name for case in read_cases(study / "new.csv")] == ["p1", "p3"]
    (study / "cases.csv").write_text(HEADER + row("p2"))
    done = medgan("check", study / "cases.csv", "--json")
    assert [one["faults"][0]["kind"] for one in json.loads(done.out)] == ["unreadable"]
    (study / "cases.csv").write_text(TABLE)
    done = medgan("prepare", study / "cases.csv", study / "plan.yaml", "--out", study / "prepared")
    assert (done.code, "p2: refused: " in done.out, "2 prepared" in done.out) == (4, True, True)
    refused_in_a_line(
        medgan("export-cohort", study / "cases.csv", "bids", study / "bids"), "p2: b: .*Permission denied"
    )


# --- one case, two sessions, nothing ----------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three good cases, one in each split."""
    for seed, name in enumerate(("p1", "p2", "p3"), start=1):
        put_case(tmp_path / "scans" / name, seed)
    (tmp_path / "cases.csv").write_text(HEADER + row("p1") + row("p2", split="val") + row("p3", split="test"))
    write_plan(tmp_path / "plan.yaml")
    return tmp_path


def test_one_case_alone_will_do(study: Path) -> None:
    shutil.rmtree(study / "scans" / "p2")
    shutil.rmtree(study / "scans" / "p3")
    done = medgan("index", study / "scans", *WITH_MASK, "--out", study / "one.csv")
    assert (done.code, done.err) == (0, "Too few patients (1): nobody is in val and test\n")
    (study / "cases.csv").write_text(HEADER + row("p1"))
    done = medgan("check", study / "cases.csv", "--out", study / "checked")
    assert (done.code, done.err, "0 of 1 cases" in done.out) == (0, "", True)
    assert medgan("prepare", study / "cases.csv", study / "plan.yaml", "--out", study / "out").code == 0
    assert medgan("export-cohort", study / "out" / "cases.csv", "decathlon", study / "task").code == 0


def test_two_sessions_of_a_patient_stay_together(study: Path) -> None:
    """In the table, prepared, and handed over."""
    for session, seed in (("ses-1", 1), ("ses-2", 4), ("ses-1", 2), ("ses-1", 3)):
        put_case(study / "sessions" / f"q{min(seed, 3) if seed < 4 else 1}" / session, seed)
    named = [word.replace("m", "{patient}/{case}/m", 1) if ".nii" in word else word for word in WITH_MASK]
    named = [word if "{" in word or ".nii" not in word else "{patient}/{case}/" + word for word in named]
    assert medgan("index", study / "sessions", *named, "--out", study / "table.csv").code == 0
    assert medgan("prepare", study / "table.csv", study / "plan.yaml", "--out", study / "out").code == 0
    before, after = (read_cases(table) for table in (study / "table.csv", study / "out" / "cases.csv"))
    assert [(one.name, one.patient, one.split) for one in after] == [
        (one.name, one.patient, one.split) for one in before
    ]
    own = [one for one in after if one.patient == "q1"]
    assert [one.name for one in own] == ["q1_ses-1", "q1_ses-2"]
    assert len({one.split for one in own}) == 1
    table = study / "out" / "cases.csv"
    assert medgan("export-cohort", table, "bids", study / "bids", "--name", "a=T1w").code == 0
    assert [path.name for path in sorted((study / "bids" / "sub-q1").iterdir())] == ["ses-1", "ses-2"]
    people = (study / "bids" / "participants.tsv").read_text().splitlines()[1:]
    assert people == sorted({f"sub-{one.patient}\t{one.split}" for one in after})
    assert medgan("export-cohort", table, "decathlon", study / "task", "--name", "a=T1w").code == 0
    told = json.loads((study / "task" / "dataset.json").read_text())
    homes = {kind: {one["patient"] for one in told.get(kind, [])} for kind in ("training", "validation", "test")}
    assert [kind for kind, people_there in homes.items() if "q1" in people_there] == [
        {"train": "training", "val": "validation", "test": "test"}[own[0].split]
    ]


NOTHING: dict[str, tuple[tuple[str, ...], str]] = {
    "patterns": (NAMES, r"nothing below .* fits \{patient\}/mr\.nii\.gz as a; .* holds: nothing"),
    "bids": (("--a", "T1w", "--b", "FLAIR"), r"has no folders sub-…, as BIDS has: .* holds: nothing"),
    "decathlon": (("--a", "MR", "--b", "CT"), r"has no dataset\.json; give the folder of one task"),
    "synthrad": ((), r"has no folders with images, as SynthRAD has"),
    "dicom": (("--a", "MR", "--b", "CT"), r"holds no DICOM series that is a volume; medgan inspect tells"),
}


@pytest.mark.parametrize("layout", NOTHING)
def test_an_empty_folder(layout: str, tmp_path: Path) -> None:
    names, says = NOTHING[layout]
    (tmp_path / "empty").mkdir()
    done = medgan("index", tmp_path / "empty", "--layout", layout, *names, "--out", tmp_path / "cases.csv")
    refused_in_a_line(done, says)
    assert list(tree(tmp_path)) == ["empty"]


# --- tables that people made ------------------------------------------------------------------------------------------

TABLE = HEADER + row("p1") + row("p2", split="val") + row("p3", split="test")
TABLES: dict[str, tuple[str | bytes, str]] = {
    "of Excel, semicolons": ("\ufeff" + TABLE.replace(",", ";").replace("\n", "\r\n"), "save it with commas between"),
    "tabs": (TABLE.replace(",", "\t"), "lacks columns: case, patient, split .* save it with commas between"),
    "UTF-16": (TABLE.encode("utf-16"), "it is no CSV text in UTF-8 .* save it as CSV UTF-8"),
    "Latin-1": (
        TABLE.replace("p1,p1", "Zoë,p1").encode("latin-1"),
        "it is no CSV text in UTF-8 .* save it as CSV UTF-8",
    ),
    "no bytes": ("", r"lacks columns: case, patient, split \(seen.*: nothing\)"),
    "a header alone": (HEADER, "has no cases, only a header; make"),
    "a column missing": (TABLE.replace("patient", "subject"), "lacks columns: patient .*seen.* subject"),
    "no column of images": ("case,patient,split\np1,p1,train\n", "lacks columns: a role such as a"),
    "a cell too many": (TABLE.replace("p2,p2", "p2,p2,p2"), "the header has 6 columns, but rows have more or fewer: 3"),
    "an empty line of cells": (TABLE + ",,,,,\n" + row("p3"), "cases named twice: p3"),
    "a case twice": (TABLE.replace("p2,p2", "p1,p2"), "cases named twice: p1; each case needs a name of its own"),
    "a patient in two splits": (
        TABLE.replace("p2,p2", "p2,p1"),
        "one patient is in two splits: p1 in train, p2 in val",
    ),
    "white space hides a patient": (TABLE.replace("p2,p2", "p2 , p1 "), "one patient is in two splits"),
    "another split": (TABLE.replace("val", "Val"), r"unknown split 'Val' \(accepted: train, val, test\)"),
    "a name that leads away": (TABLE.replace("p2,p2", "../p2,p2"), r"names of files; these cannot: '\.\./p2'"),
    "a name too long": (
        TABLE.replace("p2,p2", "p" * 250 + ",p2"),
        "names of cases become names of files; these cannot",
    ),
    "no patient": (TABLE.replace("p2,p2", "p2,"), "cases without a patient: p2"),
    "columns that nobody knows": (TABLE.replace("mask", "Mask"), "columns besides case, patient and split are roles"),
}


@pytest.mark.parametrize("command", ["check", "prepare", "export-cohort"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_used(command: str, name: str, study: Path) -> None:
    content, says = TABLES[name]
    (study / "cases.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = tree(study)
    refused_in_a_line(run(command, study), rf"cases\.csv: .*{says}")
    assert tree(study) == before


def only_a(table: str) -> str:
    """Without b and mask: nothing that takes long is to be compared."""
    return "".join(",".join(line.split(",")[:4]) + "\n" for line in table.splitlines())


def run(command: str, study: Path, out: object = "out", *more: object) -> Done:
    place = study / str(out)
    words: Mapping[str, tuple[object, ...]] = {
        "check": ("check", study / "cases.csv", "--out", place),
        "prepare": ("prepare", study / "cases.csv", study / "plan.yaml", "--out", place),
        "export-cohort": ("export-cohort", study / "cases.csv", "decathlon", place),
    }
    return medgan(*words[command], *more)


@pytest.mark.parametrize(
    "change",
    [
        lambda text, home: text.replace("\n", "\r\n"),
        lambda text, home: "\ufeff" + text,
        lambda text, home: text.replace(",", ", ") + "\n\n",
        lambda text, home: text.replace("scans/", f"{home}/scans/"),
        lambda text, home: text.replace("p2,p2", '"p ""2"", <b>,🧠",p2'),
    ],
    ids=["CRLF", "BOM", "white space and empty lines", "absolute paths", "quotes and commas"],
)
def test_a_table_that_looks_odd_and_is_whole(change: Callable[[str, Path], str], study: Path) -> None:
    (study / "cases.csv").write_bytes(change(TABLE, study).encode())
    done = run("prepare", study)
    assert (done.code, done.err) == (0, "")
    cases = read_cases(study / "out" / "cases.csv")
    assert [case.split for case in cases] == ["train", "val", "test"]
    assert run("export-cohort", study, "task").code == 0
    assert len(list((study / "task" / "imagesTr").glob("*.nii.gz"))) == 4


# --- names ------------------------------------------------------------------------------------------------------------


def renamed(study: Path, *names: str) -> Path:
    for number, name in enumerate(names, start=1):
        (study / "scans" / f"p{number}").rename(study / "scans" / name)
    return study / "scans"


@pytest.mark.parametrize("names", [("P2", "p2", "x"), ("p 2", "p2", "x")], ids=["capitals", "white space"])
def test_one_patient_under_two_names_is_suspected(names: tuple[str, ...], study: Path) -> None:
    renamed(study, *names)
    told = rf"patients differ only in capitals or white space: {names[0]} and {names[1]}; if they are one person"
    done = medgan("index", study / "scans", *NAMES, "--out", study / "new.csv")
    assert done.code == 0
    assert re.search(f"Warning: .*{told}", done.err)
    rows = [row(name, split=split) for name, split in zip(names, ("train", "val", "test"), strict=True)]
    (study / "cases.csv").write_text(only_a(HEADER + "".join(rows)))
    for command in ("check", "prepare"):
        assert re.search(rf"Warning: .*cases\.csv: {told}", run(command, study, command).err)


def test_cases_that_some_systems_take_for_one_are_told(study: Path) -> None:
    (study / "cases.csv").write_text(TABLE.replace("p2,p2", "P1,p2"))
    assert "names of cases differ only in capitals or white space: p1 and P1; some systems" in run("prepare", study).err


def test_identifiers_of_dicom_that_differ_in_capitals_are_told_without_showing_them(tmp_path: Path) -> None:
    for number, identifier in enumerate(("SECRET1", "secret 1", "OTHER"), start=1):
        dicom_study(tmp_path / "tree" / str(number), number, identifier)
    done = medgan("index", tmp_path / "tree", *DICOM, "--out", tmp_path / "cases.csv")
    assert done.code == 0
    people = sorted({case.patient for case in read_cases(tmp_path / "cases.csv")})
    told = re.search(r"PatientIDs differ only in capitals or white space: those of (\w+) and (\w+);", done.err)
    assert told
    assert set(told.groups()) < set(people)
    assert "secret" not in done.err.lower()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (".p2", r"'\.p2', as in .*rename these folders"),
        ("p\n2", r"'p\\n2', as in"),
        ("p\udcff2", r"'p\\udcff2', as in"),
        ("p" * 240, "'ppp.*rename these folders or files: names are printable"),
        ("p3 ", "p3 is there several times, as in .*p3"),
    ],
    ids=["hidden", "a line break", "bytes that are no text", "too long", "white space makes two of one"],
)
def test_a_folder_that_no_table_can_name(name: str, says: str, study: Path) -> None:
    renamed(study, "p1", name)
    done = medgan("index", study / "scans", *NAMES, "--out", study / "new.csv")
    refused_in_a_line(done, f"cases that a table cannot name: .*{says}")
    assert not (study / "new.csv").exists()
    done = medgan("index", study / "scans", *NAMES, "--leave-out", "--out", study / "new.csv")
    assert (done.code, "Left out " in done.err) == (0, True)
    assert "p1" in [case.name for case in read_cases(study / "new.csv")]


@pytest.mark.parametrize("name", [" p2", "p2 ", "\tp2", "p,2", 'p "2"', "Zoë 🧠;%", "p[2]", "{p}*"])
def test_odd_names_are_written_and_read_back(name: str, study: Path) -> None:
    renamed(study, "p1", name)
    done = medgan("index", study / "scans", *WITH_MASK, "--out", study / "scans" / "cases.csv")
    assert (done.code, done.warned) == (0, ())
    case = next(one for one in read_cases(study / "scans" / "cases.csv") if one.name not in ("p1", "p3"))
    assert case.name == case.patient == name.strip()
    assert np.array_equal(read(case.images["b"]).array, pair(2)["ct"].array)


def test_a_prediction_in_other_capitals_is_hinted_at(study: Path) -> None:
    for folder, cases in (("pred", ("p1", "P2", "q")), ("ref", ("p1", "p2", "p3"))):
        for seed, case in enumerate(cases, start=1):
            put_file(study / folder / f"{case}.nii.gz", seed, "ct")
    rows = {one["case"]: one for one in json.loads(medgan("evaluate", study / "pred", study / "ref", "--json").out)}
    assert rows["P2"]["note"] == (
        "no reference: not scored; the other side has 'p2', which differs only in capitals or white space: "
        "name them alike"
    )
    assert "the other side has 'P2'" in rows["p2"]["note"]
    assert (rows["p3"]["note"], rows["q"]["note"]) == ("no prediction: not scored", "no reference: not scored")
    (study / "pred" / "p1.nii.gz").unlink()
    done = medgan("evaluate", study / "pred", study / "ref")
    refused_in_a_line(done, r"no case is in both: .*\(P2: the other side has 'p2'")


# --- layouts ----------------------------------------------------------------------------------------------------------

BIDS = ("--layout", "bids", "--a", "T1w", "--b", "FLAIR")
DECATHLON = ("--layout", "decathlon", "--a", "MR", "--b", "CT")
SYNTHRAD = ("--layout", "synthrad")
DICOM = ("--layout", "dicom", "--a", "MR", "--b", "CT")


def bids(home: Path) -> None:
    for seed in (1, 2, 3):
        bids_session(home, f"0{seed}", "1", seed)


def bids_session(home: Path, subject: str, session: str, seed: int, *suffixes: str) -> None:
    start = f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}"
    for suffix in suffixes or ("T1w", "FLAIR"):
        put_file(home / f"{start}_{suffix}.nii.gz", seed, {"T1w": "mr", "FLAIR": "ct"}[suffix])


def decathlon(home: Path, **changes: Any) -> None:
    for seed in (1, 2, 3):
        put_file(home / f"imagesTr/x{seed}_0000.nii.gz", seed, "mr")
        put_file(home / f"imagesTr/x{seed}_0001.nii.gz", seed, "ct")
    entries = [{"image": f"./imagesTr/x{seed}.nii.gz"} for seed in (1, 2, 3)]
    told = {"modality": {"0": "MR", "1": "CT"}, "training": entries[:2], "validation": entries[2:], "test": []}
    (home / "dataset.json").write_text(json.dumps({**told, **changes}))


def wrong_path(home: Path) -> None:
    decathlon(home, validation=[{"image": "imagesTr/gone.nii.gz"}])


def synthrad(home: Path) -> None:
    for seed in (1, 2, 3):
        put_case(home / "brain" / f"1BA00{seed}", seed)


def dicom_study(home: Path, seed: int, patient_id: str = "") -> None:
    subject = Subject(patient_id=patient_id or f"ID{seed}")
    write(pair(seed)["mr"], home / "mr", subject=subject, description="T1")
    write(pair(seed)["ct"], home / "ct", subject=subject, description="planning")


def dicom(home: Path) -> None:
    for seed in (1, 2, 3):
        dicom_study(home / str(seed), seed)


def then(*makes: Make) -> Make:
    return lambda home: [make(home) for make in makes]


def slices(home: Path, which: str) -> list[Path]:
    return sorted((home / which).glob("*"))


def localizers(*which: str) -> Make:
    def make(home: Path) -> None:
        for file in (file for folder in which for file in slices(home, folder)):
            dataset = pydicom.dcmread(file)
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            dataset.save_as(file)

    return make


def mixed(home: Path) -> None:
    for file in slices(home, "2/ct"):
        file.rename(home / "2" / "mr" / f"ct_{file.name}")
    (home / "2" / "ct").rmdir()


def cut_slice(home: Path) -> None:
    file = slices(home, "2/ct")[8]
    file.write_bytes(file.read_bytes()[:-500])


def stray(home: Path) -> None:
    (home / "brain" / "overview").mkdir()
    (home / "brain" / "overview" / "1BA001.png").write_text("x")
    (home / "brain" / "1BA001" / "._mr.nii.gz").write_text("x")
    for place in ("brain/list.xlsx", ".DS_Store", "brain/stray.nii.gz"):
        (home / place).write_text("x")
    put_file(home / "brain" / "extra" / "mr_old.nii.gz", 7, "mr")


ALL_OF_THEM = [f"{seed}/{kind}" for seed in (1, 2, 3) for kind in ("mr", "ct")]
# Of the folder, the options, what refuses it, and how many cases remain with --leave-out: none if that does not help.
FOLDERS: dict[str, tuple[Make, tuple[str, ...], str, int]] = {
    "a session without its target": (
        then(bids, lambda home: bids_session(home, "02", "2", 9, "T1w")),
        BIDS,
        "incomplete cases: sub-02_ses-2 has no b; .*--unpaired.*--leave-out",
        3,
    ),
    "a suffix that nobody has": (bids, (*BIDS[:-1], "CT"), r"no image is named CT, .*; there are: FLAIR \(3\)", 0),
    "a subject that is a link to all": (
        then(bids, lambda home: (home / "sub-06").symlink_to(".")),
        BIDS,
        r"has 2 images named T1w, wanted as a: .*/sub-01/.*; .*/sub-06/sub-01/.*; remove one of them",
        0,
    ),
    "a path that leads nowhere": (wrong_path, DECATHLON, r"gone, a: .*imagesTr/gone\.nii\.gz: does not exist", 2),
    "entries that are none": (
        lambda home: decathlon(home, training=[{"img": "x"}, 5]),
        DECATHLON,
        "entries without an `image`: {'img': 'x'}; 5",
        0,
    ),
    "a list that is none": (lambda home: decathlon(home, test="imagesTs"), DECATHLON, "it has no list `test`", 0),
    "no table of training": (lambda home: decathlon(home, training=None), DECATHLON, "it has no list `training`", 0),
    "an image twice": (
        lambda home: decathlon(home, validation=[{"image": "imagesTr/x1.nii.gz"}]),
        DECATHLON,
        "names images twice: x1; remove one of each",
        0,
    ),
    "no JSON": (
        then(decathlon, lambda home: (home / "dataset.json").write_text("[" * 99_999)),
        DECATHLON,
        r"dataset\.json: cannot be read \(.*\); mend it",
        0,
    ),
    "a patient without a target": (
        then(synthrad, lambda home: (home / "brain/1BA002/ct.nii.gz").unlink()),
        SYNTHRAD,
        "incomplete cases: 1BA002 has no b",
        2,
    ),
    "an image in two formats": (
        then(synthrad, lambda home: put_file(home / "brain/1BA002/mr.mha", 2, "mr")),
        SYNTHRAD,
        r"1BA002: has two images called mr, mr\.mha and mr\.nii\.gz; keep one",
        0,
    ),
    "a patient in two places": (
        then(synthrad, lambda home: put_case(home / "old" / "1BA002", 9)),
        SYNTHRAD,
        "patients are there twice: .*1BA002 and .*1BA002; index one of these folders",
        0,
    ),
    "a slice missing": (
        then(dicom, lambda home: slices(home, "2/ct")[8].unlink()),
        DICOM,
        "incomplete cases: .* has no b",
        2,
    ),
    "a slice cut short": (then(dicom, cut_slice), DICOM, "incomplete cases: .* has no b", 2),
    "a localizer alone": (then(dicom, localizers("2/mr")), DICOM, "incomplete cases: .* has no a", 2),
    "only localizers": (
        then(dicom, localizers(*ALL_OF_THEM)), DICOM, "holds no DICOM series that is a volume; medgan inspect", 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_with_something_wrong(name: str, tmp_path: Path) -> None:
    make, options, says, left = FOLDERS[name]
    make(tmp_path / "in")
    done = medgan("index", tmp_path / "in", *options, "--out", tmp_path / "cases.csv")
    refused_in_a_line(done, says)
    assert not (tmp_path / "cases.csv").exists()
    done = medgan("index", tmp_path / "in", *options, "--leave-out", "--out", tmp_path / "cases.csv")
    assert done.code == (0 if left else 1)
    assert len(read_cases(tmp_path / "cases.csv") if left else []) == left


def test_what_is_wrong_with_a_series_is_told(tmp_path: Path) -> None:
    then(dicom, lambda home: slices(home, "2/ct")[8].unlink())(tmp_path / "in")
    done = medgan("index", tmp_path / "in", *DICOM, "--out", tmp_path / "cases.csv")
    assert re.search(r"Passed over .*2/ct.* 1 slice is missing .* between IM0008\.dcm .* and IM0010\.dcm", done.err)


@pytest.mark.parametrize(
    ("make", "options"),
    [(then(dicom, mixed), DICOM), (then(synthrad, stray), SYNTHRAD), (decathlon, DECATHLON)],
    ids=["two series in a folder", "stray files", "a list of validation"],
)
def test_a_folder_that_looks_wrong_and_is_whole(make: Make, options: tuple[str, ...], tmp_path: Path) -> None:
    make(tmp_path / "in")
    done = medgan("index", tmp_path / "in", *options, "--out", tmp_path / "in" / "cases.csv")
    assert done.code == 0, done.err
    cases = read_cases(tmp_path / "in" / "cases.csv")
    shown = {read(case.images["b"]).reorient("RAS").array.tobytes() for case in cases}
    assert shown == {pair(seed)["ct"].reorient("RAS").array.tobytes() for seed in (1, 2, 3)}


@pytest.mark.parametrize(
    ("make", "options", "name"),
    [
        (then(bids, lambda home: (home / "sub-02").rename(home / "SUB-02")), BIDS, "SUB-02"),
        (lambda home: [put_case(home / p, n) for n, p in enumerate("abc")] + [put_file(home / "d" / "MR.nii", 5, "mr")],
         NAMES, "d"),
    ],
    ids=["a subject in capitals", "a patient whose files are called otherwise"],
)  # fmt: skip
def test_a_patient_who_is_passed_over_is_told(make: Make, options: tuple[str, ...], name: str, tmp_path: Path) -> None:
    make(tmp_path / "in")
    done = medgan("index", tmp_path / "in", *options, "--out", tmp_path / "cases.csv")
    assert done.code == 0
    assert f"Passed over, as nothing in them is named as wanted: {name}\n" in done.err


def test_folders_that_lead_back_to_themselves(study: Path) -> None:
    (study / "scans" / "p2" / "again").symlink_to("..")
    (study / "scans" / "self").symlink_to("self")
    done = medgan("index", study / "scans", *NAMES, "--out", study / "new.csv")
    assert (done.code, len(read_cases(study / "new.csv"))) == (0, 3)


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check", "prepare", "export-cohort"])
@pytest.mark.parametrize("place", ["file", "file/below", "loop", "/sys/medgan", "n" * 300])
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    command: str, place: str, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study / "file").write_text("precious")
    (study / "loop").symlink_to("loop")
    before = tree(study)
    worked: list[object] = []
    monkeypatch.setattr(import_module("medgan.check"), "examined", lambda *_, **__: worked.append(1))
    monkeypatch.setattr(import_module("medgan.prepare.cohort"), "halfway", lambda *_, **__: worked.append(1))
    done = run(command, study, place)
    assert (done.code, done.out, worked) == (1, "", [])
    assert re.match(r"Error: .*(cannot be written|is a file; name a folder|holds something|too long)", done.error)
    assert tree(study) == before


@pytest.mark.parametrize("command", ["prepare", "export-cohort"])
def test_a_folder_of_others_is_left_as_it_is(command: str, study: Path) -> None:
    (study / "out").mkdir()
    (study / "out" / "thesis.tex").write_text("precious")
    before = tree(study)
    assert run(command, study).code == 1
    assert tree(study) == before


def test_a_damaged_provenance_is_told(study: Path) -> None:
    (study / "scans" / "p2" / "provenance.json").write_text("{")
    done = medgan("export-cohort", study / "cases.csv", "bids", study / "bids", "--name", "a=T1w")
    refused_in_a_line(done, r"p2/provenance\.json: is damaged .*; prepare its case again")
    assert not (study / "bids").exists()


def test_a_table_does_not_take_the_place_of_a_folder(study: Path) -> None:
    done = medgan("index", study / "none", *NAMES, "--out", study / "scans")
    assert done.code == 1
    refused_in_a_line(
        medgan("index", study / "scans", *NAMES, "--out", study / "scans"), r"scans: is a folder; name the file"
    )


@pytest.mark.parametrize("size", [200, 3000])
@pytest.mark.parametrize("command", ["check", "prepare", "export-cohort"])
def test_no_room(command: str, size: int, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, nothing half written, and the same command goes on once there is room."""
    (study / "cases.csv").write_text(only_a(HEADER + row("p1")))
    write_plan(study / "plan.yaml", mask={"source": "body", "of": "a"})
    with files_end_at(size):
        done = run(command, study)
    assert (done.code, done.out) == (1, "")
    assert re.match(r"Error: .*out.*: cannot be written \(File too large\); choose", done.error)
    assert no_parts(study)
    assert not [path for path in (study / "out").rglob("*") if path.suffix in (".gz", ".html")]
    assert run(command, study).code == 0


def test_a_full_disk(study: Path) -> None:
    disk = study / "disk"
    disk.mkdir()
    with small_disk(disk, "36k"):
        done = run("prepare", study, "disk/out")
        assert (done.code, done.out) == (1, "")
        assert re.match(r"Error: .*: cannot be written \(No space left on device\); choose", done.error)
        assert no_parts(disk)


# --- killed -----------------------------------------------------------------------------------------------------------

KILLED = {
    "prepare": ["prepare", "cases.csv", "plan.yaml", "images.a.harmonise={name: nyul}"],
    "check": ["check", "cases.csv"],
}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight cases, all in train."""
    home = tmp_path_factory.mktemp("several")
    for seed in range(1, 9):
        put_case(home / "scans" / f"p{seed}", seed)
    (home / "cases.csv").write_text(HEADER + "".join(row(f"p{seed}") for seed in range(1, 9)))
    write_plan(home / "plan.yaml")
    return home


@pytest.fixture(scope="module")
def undisturbed(several: Path) -> Mapping[str, Mapping[str, Any]]:
    """What each command leaves behind."""
    found = {}
    for command, argv in KILLED.items():
        whole = [*PROGRAM, *argv, "--out", f"whole_{command}"]
        subprocess.run(whole, cwd=several, env=QUIET, check=True, capture_output=True)
        found[command] = tree(several / f"whole_{command}")
    return found


PROGRAM = [sys.executable, "-m", "medgan"]


@pytest.mark.slow
@pytest.mark.parametrize("all_at_once", [False, True], ids=["one", "group"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", KILLED)
def test_the_same_command_goes_on_as_if_nothing_had_been(
    command: str, sent: signal.Signals, all_at_once: bool, several: Path, undisturbed: Mapping[str, Mapping[str, Any]]
) -> None:
    """Killed when two processes have begun, and later: none outlives it, and the end is as without."""
    out = several / f"{command}_{sent}_{all_at_once}"
    argv = [*PROGRAM, *KILLED[command], "--processes", "2", "--out", out.name]
    begun = {"prepare": lambda: any(out.glob(".halfway/*/half.json")), "check": lambda: time.sleep(0.8) or True}[
        command
    ]
    for is_begun in (lambda: True, begun):
        process = subprocess.Popen(argv, cwd=several, env=QUIET, start_new_session=True, stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)  # fmt: skip
        until(partial(children, process.pid), lambda seen: len(seen) >= 2)
        until(is_begun, bool)
        helpers = children(process.pid)
        assert process.poll() is None, "it was done before it could be killed"
        (os.killpg if all_at_once else os.kill)(process.pid, sent)
        assert process.wait(30) in (-sent, 130)
        until(partial(living, helpers), lambda left: not left)
    done = subprocess.run(argv, cwd=several, env=QUIET, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert tree(out) == undisturbed[command]


def until(look: Callable[[], T], is_enough: Callable[[T], bool], patience_s: float = 30) -> T:
    """What is seen once it is enough."""
    end = time.monotonic() + patience_s
    while not is_enough(seen := look()):
        assert time.monotonic() < end, f"still {seen}"
        time.sleep(0.01)
    return seen


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def living(pids: list[int]) -> list[int]:
    return list(filter(is_alive, pids))


def is_alive(pid: int) -> bool:
    """False for what has ended and only waits to be counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
