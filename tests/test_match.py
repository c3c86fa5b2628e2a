"""Which files belong together: by name, by rule, by table."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from dicom_folders import make_slices, ramp, save
from hypothesis import given, settings
from hypothesis import strategies as st

from medgan import Grid, Volume, write
from medgan.cases import Case, write_cases
from medgan.errors import InputError
from medgan.match import Match, match


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def told(matches: list[Match], folder: Path) -> dict[str, tuple[str, str]]:
    return {
        one.case: tuple("" if p is None else p.relative_to(folder).as_posix() for p in (one.pred, one.ref))  # type: ignore[misc]
        for one in matches
    }


def test_a_rule_names_cases_in_files_of_one_folder(tmp_path: Path) -> None:
    touch(*(tmp_path / "out" / f"{case}_sct.nii.gz" for case in ("p1", "p2")), tmp_path / "out" / "log.txt")
    touch(*(tmp_path / "ref" / f"ct-{case}.mha" for case in ("p1", "p2", "p3")))
    found = match(tmp_path / "out" / "{case}_sct.nii.gz", tmp_path / "ref" / "ct-{case}.mha")
    assert told(found, tmp_path) == {
        "p1": ("out/p1_sct.nii.gz", "ref/ct-p1.mha"),
        "p2": ("out/p2_sct.nii.gz", "ref/ct-p2.mha"),
        "p3": ("", "ref/ct-p3.mha"),
    }


def test_a_rule_names_cases_and_patients_by_folders(tmp_path: Path) -> None:
    for patient, visit in (("ann", "1"), ("ann", "2"), ("bob", "1")):
        home = tmp_path / patient / f"visit{visit}"
        touch(home / "ct.nii.gz", home / "sct.nii.gz", home / "body.nii.gz", home / "old" / "ct.nii.gz")
    rule = f"{tmp_path}/{{patient}}/{{case}}/"
    with pytest.raises(InputError, match=r"case 'visit1' is there twice"):
        match(Path(rule + "sct.nii.gz"), Path(rule + "ct.nii.gz"))
    rule = f"{tmp_path}/{{patient}}/visit1/"
    found = match(Path(rule + "sct.nii.gz"), Path(rule + "ct.nii.gz"), mask=Path(rule + "b*.nii.gz"))
    assert [(one.case, one.patient) for one in found] == [("ann", "ann"), ("bob", "bob")]
    assert found[0].mask == tmp_path / "ann" / "visit1" / "body.nii.gz"


def test_a_name_is_the_same_wherever_the_rule_says_it(tmp_path: Path) -> None:
    touch(tmp_path / "p1" / "p1_ct.nii", tmp_path / "p1" / "p2_ct.nii", tmp_path / "p2" / "p2_ct.nii")
    rule = tmp_path / "{case}" / "{case}_ct.nii"
    assert [one.case for one in match(rule, rule)] == ["p1", "p2"]


def test_a_rule_may_name_folders_of_dicom(tmp_path: Path) -> None:
    save(make_slices(ramp()), tmp_path / "p1" / "ct")
    touch(tmp_path / "out" / "p1.nii.gz")
    [found] = match(tmp_path / "out", tmp_path / "{case}" / "ct")
    assert (found.pred, found.ref) == (tmp_path / "out" / "p1.nii.gz", tmp_path / "p1" / "ct")


def test_a_rule_that_nothing_fits_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "p1.nii")
    with pytest.raises(InputError, match="nothing there fits this rule"):
        match(tmp_path / "{case}_ct.nii", tmp_path / "p1.nii")


@settings(max_examples=50, deadline=None)
@given(name=st.text(st.characters(codec="utf-8", exclude_characters="/\0{}*"), min_size=1, max_size=12))
def test_any_name_of_a_file_can_be_a_case(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Also names with brackets, dots and signs that mean something in a pattern."""
    folder = tmp_path_factory.mktemp("names")
    path = folder / f"x{name}_ct.nii"
    touch(path)
    rule = folder / "x{case}_ct.nii"
    assert [one.case for one in match(rule, rule)] == [unicodedata.normalize("NFC", name)]


def test_composed_and_decomposed_letters_are_the_same(tmp_path: Path) -> None:
    name = "Zoë"
    touch(tmp_path / "a" / f"{unicodedata.normalize('NFD', name)}.nii.gz", tmp_path / "b" / f"{name}.nii.gz")
    [found] = match(tmp_path / "a", tmp_path / "b")
    assert found.case == name
    assert found.pred is not None


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_every_format_is_found_in_a_folder(suffix: str, tmp_path: Path) -> None:
    one = Volume(np.zeros((4, 4, 4), np.int16), Grid.regular((4, 4, 4)), "HU", "CT")
    write(one, tmp_path / "a" / f"p1{suffix}")
    write(one, tmp_path / "b" / "p1" / f"image{suffix}")
    [found] = match(tmp_path / "a", tmp_path / "b")
    assert (found.pred, found.ref) == (tmp_path / "a" / f"p1{suffix}", tmp_path / "b" / "p1" / f"image{suffix}")


def test_a_case_that_is_there_twice_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "p1.nii", tmp_path / "a" / "p1.mha", tmp_path / "b" / "p1.nii")
    with pytest.raises(InputError, match=r"case 'p1' is there twice, p1.mha and p1.nii; keep one"):
        match(tmp_path / "a", tmp_path / "b")


def test_a_table_tells_patients_and_sources(tmp_path: Path) -> None:
    for name in ("x", "y"):
        touch(tmp_path / f"{name}_mr.nii.gz", tmp_path / f"{name}_ct.nii.gz", tmp_path / "out" / f"{name}.nii.gz")
    images = {name: {"a": tmp_path / f"{name}_mr.nii.gz", "b": tmp_path / f"{name}_ct.nii.gz"} for name in ("x", "y")}
    table = write_cases([Case(name, "ann", "test", images[name]) for name in ("x", "y")], tmp_path / "cases.csv")
    found = match(tmp_path / "out", table)
    assert [(one.case, one.patient, one.source) for one in found] == [
        ("x", "ann", tmp_path / "x_mr.nii.gz"),
        ("y", "ann", tmp_path / "y_mr.nii.gz"),
    ]


def test_segmentations_are_found_by_case(tmp_path: Path) -> None:
    for role in ("pred", "ref", "seg_ref"):
        touch(tmp_path / role / "p1.nii", tmp_path / role / "p2.nii")
    touch(tmp_path / "seg_pred" / "p1.nii")
    found = match(tmp_path / "pred", tmp_path / "ref", labels=(tmp_path / "seg_pred", tmp_path / "seg_ref"))
    assert [(one.pred_labels is None, one.ref_labels is None) for one in found] == [(False, False), (True, False)]
    touch(tmp_path / "odd" / "other.nii")
    with pytest.raises(InputError, match=r"segmentations of other, but scored are p1, p2"):
        match(tmp_path / "pred", tmp_path / "ref", labels=(tmp_path / "seg_pred", tmp_path / "odd"))
