"""Made-up patients as scanners leave them: what is planted is there, where it is said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medgan import phantoms, read
from medgan.alignment import misalignment
from medgan.cases import read_cases
from medgan.errors import InputError
from medgan.formats.dicom import find_series
from medgan.index import index
from medgan.phantoms import LAYOUTS, Patient


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    for wrong in ({"layout": "minc"}, {"num": 3}, {"num": 100}, {"seed": -1}):
        with pytest.raises(InputError):
            phantoms(tmp_path / "scans", **wrong)
    assert not (tmp_path / "scans").exists()


def test_the_second_image_lies_where_the_list_says(tmp_path: Path) -> None:
    (truth,) = LAYOUTS["bids"](tmp_path, Patient(1, 6, 0))
    stem = tmp_path / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1"
    seen = misalignment(read(Path(f"{stem}_T1w.nii.gz")), read(Path(f"{stem}_FLAIR.nii.gz")))
    assert seen.shift_mm == pytest.approx((truth.right_mm, truth.front_mm, truth.up_mm), abs=1)
    assert seen.turn_deg == pytest.approx(truth.turn_deg, abs=1.5)
    assert truth.distance_mm >= 3


def test_an_archive_has_several_series_and_identifiers_that_stay(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        list(LAYOUTS["dicom"](tmp_path / folder, Patient(5, 6, 0)))
    found = find_series(tmp_path / "one" / "disc05")
    told = sorted(one.description.partition(",")[0] for one in found)
    assert told == ["Localizer", "Planning CT", "T1 tra", "T1 tra GD"]
    assert len({one.study_uid for one in found}) == 2
    again = {one.study_uid for one in find_series(tmp_path / "two")}
    assert again == {one.study_uid for one in found}
    ct = read(next(tmp_path.glob("one/disc05")), series=next(one.uid for one in found if one.modality == "CT"))
    assert np.percentile(ct.array, 1) > -100  # the last but one has lost its offset
    cases = index(
        tmp_path / "one",
        layout="dicom",
        a="MR:T1*|!*GD*",
        b="CT",
        unregistered=True,
        split="train",
        out=tmp_path / "c.csv",
    )
    assert len(cases) == 1
    assert read_cases(tmp_path / "c.csv")[0].images.keys() == {"a", "b"}
