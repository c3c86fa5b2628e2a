"""What a check says of scans from the scanner, and what a preparation makes of its list."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from cohorts import write_plan, write_table

from medgan import check, index, read, write
from medgan.cases import read_cases, read_exclusions
from medgan.errors import CasesError, GeometryError
from medgan.findings import CheckedCase
from medgan.plausible import Fault
from medgan.prepare import prepare

LIST = "case,preparation,reason\np0,mends it,apart\np1,,of two people\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "scans")


def test_images_on_other_grids_are_refused_unless_they_are_to_be_registered(table: Path, tmp_path: Path) -> None:
    images = {"a": "mr.nii.gz", "b": "ct.nii.gz", "out": tmp_path / "cases.csv"}
    with pytest.raises(GeometryError, match="index with --unregistered"):
        index(table.parent, **images)  # type: ignore[arg-type]
    assert len(index(table.parent, **images, unregistered=True)) == 5  # type: ignore[arg-type]


def test_a_case_is_mendable_if_all_that_excludes_it_is() -> None:
    shifted, offset = Fault("shifted", "", ""), Fault("offset", "", "")
    odd = Fault("couch", "", "", excludes=False)
    verdicts = {CheckedCase("p", "p", faults=own).verdict for own in [(shifted, odd), (shifted, offset), (odd,), ()]}
    assert verdicts == {"prepare", "leave out", "look", "good"}
    assert CheckedCase("p", "p", faults=(shifted, odd)).is_mendable
    assert not CheckedCase("p", "p", faults=(odd,)).is_mendable


def test_a_list_leaves_out_more_in_a_training_than_in_a_preparation(table: Path, tmp_path: Path) -> None:
    exclude = tmp_path / "exclude.csv"
    exclude.write_text(LIST)
    assert read_exclusions(exclude).keys() == {"p0", "p1"}
    assert read_exclusions(exclude, to_prepare=True).keys() == {"p1"}
    kept = read_cases(table, exclude=exclude, to_prepare=True)
    assert [case.name for case in kept] == ["p0", "p2", "p3", "p4"]
    exclude.write_text(LIST + "p9,mends it,apart\n")
    with pytest.raises(CasesError, match="p9"):
        read_cases(table, exclude=exclude, to_prepare=True)


@pytest.mark.slow
def test_the_list_of_a_check_says_what_is_mended_and_a_preparation_takes_it(tmp_path: Path) -> None:
    table = write_table(tmp_path / "scans", splits=("train", "train", "test"))
    image = table.parent / "p2" / "ct.nii.gz"
    volume = read(image)
    write(volume.with_array((volume.array + 1024).astype(np.int16)), image)
    checked = check(table, out=tmp_path / "checked")
    with (tmp_path / "checked" / "exclude.csv").open() as stream:
        told = {row["case"]: row["preparation"] for row in csv.DictReader(stream)}
    assert told["p2"] == ""
    assert list(checked.lines())[-1].startswith("3 of 3 cases should be left out")
    assert {name for name, said in told.items() if said == "mends it"} == {
        case.name for case in checked.cases if case.verdict == "prepare"
    }
    plan = write_plan(tmp_path / "plan.yaml", registration=None)
    exclude = tmp_path / "exclude.csv"
    exclude.write_text("case\np0\n")
    done = prepare(table, plan, out=tmp_path / "out", exclude=exclude)
    assert {case.name: case.status for case in done.cases} == {"p1": "prepared", "p2": "refused"}
    assert "subtract what was added" in done.cases[-1].reason
