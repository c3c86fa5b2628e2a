"""DICOM trees of any shape: cases by PatientID and study, roles by modality and description."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from command_line import medgan
from conftest import tiny_pair
from pydicom.data import get_testdata_file

from medgan import read, write
from medgan.cases import Case, read_cases
from medgan.errors import CasesError, OutputError
from medgan.formats.dicom import Subject
from medgan.index import index
from medgan.volume import Volume

RULES = {"a": "MR:T1*", "b": "CT"}


def study(folder: Path, number: int, *, patient_id: str | None = None, extra: bool = False) -> None:
    """MR `T1 tra` and CT `planning` of one study, with `extra` a second MR, T1 with contrast medium."""
    subject = Subject(patient_id=patient_id or f"SECRET{number}", patient_name="Secret^Name")
    mr, ct = tiny_pair(number)
    write(mr, folder / "x" / "mr", subject=subject, description="T1 tra")
    write(ct, folder / "y", subject=subject, description="planning")
    if extra:
        write(mr.with_array(mr.array * 2 + 1), folder / "z", subject=subject, description="T1 tra GD")


def flat(folder: Path, out: Path) -> Path:
    """All files of a tree in one folder, in no order that tells anything."""
    out.mkdir()
    for number, file in enumerate(sorted(folder.rglob("*.dcm"), key=lambda path: path.read_bytes()[-40:])):
        shutil.copy(file, out / f"IM{number:05d}")
    return out


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(4):
        study(tmp_path / "tree" / f"batch{number % 2}" / f"{number}", number)
    return tmp_path / "tree"


def found(folder: Path, out: Path, **wanted: str) -> list[Case]:
    return index(folder, layout="dicom", out=out / "cases.csv", **(wanted or RULES))  # type: ignore[arg-type]


def values(cases: list[Case]) -> set[tuple[bytes, ...]]:
    """What the pairs show, whatever they are called."""
    return {shown(read(case.images["a"]), read(case.images["b"])) for case in cases}


def shown(*volumes: Volume) -> tuple[bytes, ...]:
    return tuple(np.sort(volume.array, None).astype(np.float32).tobytes() for volume in volumes)


def test_studies_are_cases_and_roles_are_told_by_rules(tree: Path, tmp_path: Path) -> None:
    cases = found(tree, tmp_path)
    assert len(cases) == 4
    assert {case.images["a"].name for case in cases} == {"mr"}
    assert values(cases) == {shown(*tiny_pair(number)) for number in range(4)}


def test_a_flat_folder_gives_the_same_pairs(tree: Path, tmp_path: Path) -> None:
    first = found(tree, tmp_path)
    (tmp_path / "flat").mkdir()
    second = found(flat(tree, tmp_path / "dump"), tmp_path / "flat")
    assert [(case.name, case.patient, case.split) for case in second] == [
        (case.name, case.patient, case.split) for case in first
    ]
    assert values(second) == values(first)
    assert {case.images["a"].parent for case in second} == {tmp_path / "flat" / "cases_series"}
    links = sorted((tmp_path / "flat" / "cases_series").rglob("*.dcm"))
    assert all(link.is_symlink() and not Path(link.readlink()).is_absolute() for link in links)
    again = found(tmp_path / "dump", tmp_path / "flat")  # links of before are replaced
    assert values(again) == values(first)


def test_links_replace_nothing_else(tree: Path, tmp_path: Path) -> None:
    dump = flat(tree, tmp_path / "dump")
    case = found(dump, tmp_path)[0]
    (case.images["a"] / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds mine\.txt"):
        found(dump, tmp_path)
    assert (case.images["a"] / "mine.txt").read_text() == "mine"


def test_nothing_printed_or_written_names_a_person(tree: Path, tmp_path: Path) -> None:
    done = medgan("index", tree, "--layout", "dicom", "--a", "MR:T1*", "--b", "CT", "--out", tmp_path / "cases.csv")
    for text in (done.out, done.err, (tmp_path / "cases.csv").read_text()):
        assert "SECRET" not in text
        assert "Secret" not in text


def test_two_studies_of_a_person_are_two_cases_of_one_patient(tmp_path: Path) -> None:
    study(tmp_path / "tree" / "0", 0, patient_id="ONE")
    study(tmp_path / "tree" / "1", 1, patient_id="ONE")
    study(tmp_path / "tree" / "2", 2, patient_id="TWO")
    cases = found(tmp_path / "tree", tmp_path)
    assert len(cases) == 3
    assert len({case.patient for case in cases}) == 2


def test_images_of_different_studies_are_one_case_if_nothing_else_fits(tmp_path: Path) -> None:
    study(tmp_path / "tree" / "0", 0, patient_id="ONE")
    mr, ct = tiny_pair(1)
    write(mr, tmp_path / "tree" / "1" / "mr", subject=Subject(patient_id="TWO"), description="T1 tra")
    write(ct, tmp_path / "tree" / "1" / "ct", subject=Subject(patient_id="TWO"), description="planning")
    cases = found(tmp_path / "tree", tmp_path)
    assert values(cases) == {shown(*tiny_pair(0)), shown(mr, ct)}
    assert sorted("_" in case.name for case in cases) == [False, True]
    write(ct, tmp_path / "tree" / "1" / "again", subject=Subject(patient_id="TWO"), description="planning")
    with pytest.raises(CasesError, match=r"has no b"):
        found(tmp_path / "tree", tmp_path)


def test_names_do_not_hang_on_who_else_is_there(tree: Path, tmp_path: Path) -> None:
    before = {case.name for case in found(tree, tmp_path)}
    study(tree / "new", 7)
    assert before < {case.name for case in found(tree, tmp_path)}


def test_several_fitting_series_are_listed_and_can_be_told_apart(tmp_path: Path) -> None:
    study(tmp_path / "tree", 0, extra=True)
    with pytest.raises(CasesError, match=r"a \(MR:T1\*\): .*'T1 tra GD' \(8 slices\); .*'T1 tra' \(8 slices\)"):
        found(tmp_path / "tree", tmp_path)
    plain = found(tmp_path / "tree", tmp_path, a="mr:t1*|!*gd*", b="ct:planning")
    assert plain[0].images["a"].name == "mr"
    enhanced = found(tmp_path / "tree", tmp_path, a="MR:*GD|*contrast*", b="CT")
    assert enhanced[0].images["a"].name == "z"


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("PT", r"no series fits PT \(as a\); there are: CT:planning; MR:T1 tra"),
        ("MR:FLAIR*", r"no series fits MR:FLAIR\* \(as a\)"),
        (":T1*", "is no rule for series"),
        ("MR:T1|", "is no rule for series"),
        ("MR:!", "is no rule for series"),
    ],
)
def test_rules_that_fit_nothing_tell_what_there_is(tree: Path, tmp_path: Path, rule: str, told: str) -> None:
    with pytest.raises(CasesError, match=told):
        found(tree, tmp_path, a=rule, b="CT")


def test_a_tree_without_series_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "note.txt").write_text("none")
    with pytest.raises(CasesError, match="holds no DICOM series that is a volume"):
        found(tmp_path / "tree", tmp_path)


def test_studies_without_a_patient_id_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        study(tmp_path / "tree" / f"{number}", number)
    for file in (tmp_path / "tree").rglob("*.dcm"):
        header = pydicom.dcmread(file)
        header.PatientID = ""
        header.save_as(file)
    assert len({case.patient for case in found(tmp_path / "tree", tmp_path)}) == 2
    assert "2 studies have no PatientID" in capsys.readouterr().err


def test_series_that_are_no_volume_are_told_and_passed_over(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = sorted((tree / "batch0" / "0" / "y").iterdir())[3]
    lost.unlink()
    with pytest.raises(CasesError, match="has no b"):
        found(tree, tmp_path)
    assert "slice is missing" in (told := capsys.readouterr().err)
    assert "Passed over" in told
    left = index(tree, layout="dicom", a="MR:T1*", b="CT", out=tmp_path / "cases.csv", leave_out=True)
    assert len(left) == 3
    assert "Left out p" in capsys.readouterr().err


def test_a_damaged_slice_in_a_flat_folder_is_no_missing_slice(tree: Path, tmp_path: Path) -> None:
    dump = flat(tree / "batch0" / "0", tmp_path / "dump")
    last = max((file for file in dump.iterdir()), key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2])
    last.write_bytes(last.read_bytes()[:400])
    with pytest.raises(CasesError, match=r"damaged|cut off"):
        found(dump, tmp_path)


def test_a_discs_directory_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = get_testdata_file("dicomdirtests/DICOMDIR")
    assert isinstance(directory, str)
    cases = index(Path(directory).parent, layout="dicom", images={"ct": "CT:*gated*"}, out=tmp_path / "cases.csv")
    assert len(cases) == 1
    assert read(cases[0].images["ct"]).modality == "CT"
    assert "too damaged to tell of a series" in capsys.readouterr().err


def test_real_series_are_found(shared: Path, tmp_path: Path) -> None:
    cases = index(
        shared / "dicom" / "dcm_qa_decubitus", layout="dicom", images={"t1": "MR:*t1*"}, out=tmp_path / "cases.csv"
    )
    assert [case.images["t1"].name for case in cases] == ["HFS_3_t1_fl2d_sag"]
    assert 35 in read(cases[0].images["t1"]).grid.shape


def test_the_table_reads_back(tree: Path, tmp_path: Path) -> None:
    cases = found(flat(tree, tmp_path / "dump"), tmp_path)
    home = tmp_path / "cases.csv"
    assert [replace(case, images={}) for case in read_cases(home)] == [replace(case, images={}) for case in cases]
    assert "cases_series/" in home.read_text()
    assert str(tmp_path) not in home.read_text()
