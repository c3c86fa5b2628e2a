"""index: cases are found by pattern, and refused where they lack images, do not fit, or leak."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medgan.cases import Case, read_cases
from medgan.errors import CasesError, GeometryError, InputError, MedganError, OutputError
from medgan.formats import read, write
from medgan.formats.dicom import Subject
from medgan.index import index
from medgan.volume import Grid, Volume

GRID = Grid.regular((6, 5, 4), spacing_mm=(1, 2, 3))
random_of = np.random.default_rng(0)


def scan(path: Path, grid: Grid = GRID, **fields: Any) -> Path:
    """A scan that is like no other."""
    return write(Volume(random_of.integers(0, 999, grid.shape).astype(np.int16), grid), path, **fields)


def study(folder: Path, *names: str) -> Path:
    for name in names:
        scan(folder / name / "t1.nii.gz")
        scan(folder / name / "flair.nii.gz")
    return folder


def run(folder: Path, **options: Any) -> list[Case]:
    options = {"a": "t1.nii.gz", "b": "flair.nii.gz", "out": folder / "cases.csv"} | options
    return index(folder, **options)


def refusal(folder: Path, kind: type[MedganError] = CasesError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        run(folder, **options)
    assert "\n" not in str(caught.value)
    assert not (folder / "cases.csv").exists()
    return str(caught.value)


@pytest.fixture
def five(tmp_path: Path) -> Path:
    return study(tmp_path / "study", "p1", "p2", "p3", "p4", "p5")


# --- images of samplers -----------------------------------------------------------------------------------------------


def sampler_table(folder: Path, **options: Any) -> list[Case]:
    options = {"images": {"t1": "t1.nii.gz", "flair": "flair.nii.gz"}} | options
    return index(folder, out=folder / "cases.csv", **options)


def test_images_of_a_sampler_have_columns_of_their_own(five: Path) -> None:
    cases = sampler_table(five, images={"t1": "t1.nii.gz"}, mask="flair.nii.gz")
    assert read_cases(five / "cases.csv", required=["t1", "mask"]) == cases
    assert cases[0].images == {"t1": five / "p1/t1.nii.gz", "mask": five / "p1/flair.nii.gz"}
    assert {case.split for case in cases} == {"train", "val", "test"}


def test_all_channels_are_there_and_on_one_grid(five: Path) -> None:
    scan(five / "p2" / "flair.nii.gz", Grid.regular((6, 5, 5), spacing_mm=(1, 2, 3)))
    with pytest.raises(GeometryError, match=r"p2: t1 is .*, flair is"):
        sampler_table(five)
    (five / "p2" / "flair.nii.gz").unlink()
    with pytest.raises(CasesError, match="p2 has no flair"):
        sampler_table(five)


@pytest.mark.parametrize("key", ["case", "patient"])
def test_what_is_known_is_joined_by_case_or_by_patient(five: Path, key: str) -> None:
    (five / "known.csv").write_text(f"{key},class,age\n" + "".join(f"p{n},sick,{40 + n}\n" for n in range(1, 7)))
    cases = sampler_table(five, conditions=five / "known.csv")
    assert cases[1].conditions == {"class": "sick", "age": "42"}
    assert read_cases(five / "cases.csv", conditions=["class", "age"]) == cases


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("case,class\np1,a\n", "has no line for the case p2; p3"),
        ("case,class\np1,a\np1,b\n", "names the case p1 twice"),
        ("case,class\np1,\n", "none empty"),
        ("case,class\np1\n", "none empty"),
        ("case,class\np1,a,b\n", "none empty"),
        ("name,class\np1,a\n", "case or patient"),
        ("case\np1\n", "case or patient"),
        ("", "case or patient"),
    ],
)
def test_a_table_of_conditions_that_tells_too_little_is_refused(five: Path, text: str, told: str) -> None:
    (five / "known.csv").write_text(text)
    with pytest.raises(CasesError, match=told):
        sampler_table(five, conditions=five / "known.csv")


@pytest.mark.parametrize(
    "options", [{"a": "t1.nii.gz"}, {"images": None, "a": "t1.nii.gz"}, {"images": None}, {"unpaired": True}]
)
def test_it_is_a_translator_or_a_sampler(five: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="name either both a and b"):
        sampler_table(five, **options)


def test_a_column_that_means_something_else_is_refused(five: Path) -> None:
    with pytest.raises(CasesError, match="patient are columns already"):
        sampler_table(five, images={"patient": "t1.nii.gz"})


# --- finding ----------------------------------------------------------------------------------------------------------


def test_the_table_is_what_is_returned(five: Path) -> None:
    cases = run(five)
    assert read_cases(five / "cases.csv") == cases
    assert [case.name for case in cases] == [case.patient for case in cases] == ["p1", "p2", "p3", "p4", "p5"]
    assert cases[0].images == {"a": five / "p1/t1.nii.gz", "b": five / "p1/flair.nii.gz"}
    assert {case.split for case in cases} == {"train", "val", "test"}
    assert "\np1,p1," in (five / "cases.csv").read_text()
    assert "p1/t1.nii.gz" in (five / "cases.csv").read_text()


@pytest.mark.parametrize(
    ("place", "pattern", "name", "patient"),
    [
        ("p1/t1.nii.gz", "t1.nii.gz", "p1", "p1"),
        ("p1/v1/t1.nii.gz", "{patient}/{case}/t1.nii.gz", "p1_v1", "p1"),
        ("p1_t1.nii.gz", "{patient}_t1.nii.gz", "p1", "p1"),
        ("sub_1_t1.nii.gz", "{patient}_t1.nii.gz", "sub_1", "sub_1"),
        ("p1_v1_x_t1.nii.gz", "{patient}_{case}_t1.nii.gz", "p1_v1_x", "p1"),
        ("sub-1/anat/sub-1_t1.nii.gz", "sub-{patient}/anat/sub-{patient}_t1.nii.gz", "1", "1"),
        ("scans/c1/t1.nii.gz", "scans/{case}/t1.nii.gz", "c1", "c1"),
        ("p1/007_T1 (axial)/t1.nii.gz", "{patient}/*T1 (axial)/t1.nii.gz", "p1", "p1"),
    ],
)
def test_patterns(tmp_path: Path, place: str, pattern: str, name: str, patient: str) -> None:
    scan(tmp_path / place)
    scan(tmp_path / place.replace("t1", "flair"))
    (case,) = run(tmp_path, a=pattern, b=pattern.replace("t1", "flair"))
    assert (case.name, case.patient) == (name, patient)
    assert case.images["a"] == tmp_path / place


def test_a_repeated_field_is_the_same_text(tmp_path: Path) -> None:
    scan(tmp_path / "p1/p2_t1.nii.gz")
    assert "nothing below" in refusal(tmp_path, a="{patient}/{patient}_t1.nii.gz")


@pytest.mark.parametrize("pattern", ["{subject}/t1.nii.gz", "", "../{patient}/t1.nii.gz", "{}/t1.nii.gz"])
def test_other_patterns_are_refused(five: Path, pattern: str) -> None:
    assert "pattern of a" in refusal(five, a=pattern)


def test_patterns_of_different_fields_are_refused(five: Path) -> None:
    assert "different fields" in refusal(five, b="{patient}/{case}/flair.nii.gz")


def test_a_pattern_that_fits_nothing_says_what_is_there(five: Path) -> None:
    said = refusal(five, b="t2.nii.gz")
    assert "fits {patient}/t2.nii.gz as b" in said
    assert "p1 holds: flair.json; flair.nii.gz; t1.json; t1.nii.gz" in said


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "is no folder" in refusal(tmp_path / "nowhere", InputError)


def test_incomplete_cases_are_listed(five: Path) -> None:
    (five / "p2/flair.nii.gz").unlink()
    (five / "p4/t1.nii.gz").unlink()
    assert "incomplete cases: p2 has no b; p4 has no a; move them out" in refusal(five)


def test_two_images_in_one_role_are_refused(five: Path) -> None:
    scan(five / "p3/t1_again.nii.gz")
    said = refusal(five, a="t1*.nii.gz")
    assert "p3 has two images as a" in said


def test_a_place_that_cannot_be_written_is_said(five: Path) -> None:
    with pytest.raises(OutputError):
        run(five, out=five)


# --- patients and splits ----------------------------------------------------------------------------------------------


def test_cases_of_one_person_stay_together(five: Path, tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\np1,x\np2,x\np3,x\n")
    for patients in ({"p1": "x", "p2": "x", "p3": "x"}, table):
        for seed in range(6):
            cases = run(five, patients=patients, seed=seed)
            assert [case.patient for case in cases] == ["x", "x", "x", "p4", "p5"]
            assert len({case.split for case in cases[:3]}) == 1


def test_cases_of_one_folder_are_one_person(tmp_path: Path) -> None:
    for number in range(3):
        study(tmp_path / f"p{number}", "before", "after")
    for seed in range(6):
        cases = run(tmp_path, a="{patient}/{case}/t1.nii.gz", b="{patient}/{case}/flair.nii.gz", seed=seed)
        assert all(first.split == second.split for first, second in zip(cases[::2], cases[1::2], strict=True))
        assert {case.split for case in cases} == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("case,person\np1,x\n", "columns case and patient"),
        ("case,patient\np1,\n", "none of them empty"),
        ("", "columns"),
        ("case,patient\np1,x\np1,y\n", "names cases twice: p1"),
    ],
)
def test_a_broken_table_of_patients_is_refused(five: Path, tmp_path: Path, content: str, said: str) -> None:
    table = tmp_path / "patients.csv"
    table.write_text(content)
    assert said in refusal(five, patients=table)


def test_patients_of_unknown_cases_are_refused(five: Path, tmp_path: Path) -> None:
    assert "names cases that are not there: q1; the cases are p1; p2" in refusal(five, patients={"q1": "x"})
    assert "cannot be read" in refusal(five, patients=tmp_path / "nowhere.csv")


def test_one_split_for_all(five: Path) -> None:
    assert {case.split for case in run(five, split="test")} == {"test"}
    (five / "cases.csv").unlink()
    assert "unknown split 'all'" in refusal(five, split="all")


def test_folds_are_tables_beside_each_other(five: Path) -> None:
    cases = run(five, folds=5, fractions=(0.5, 0.5, 0))
    tables = [read_cases(five / f"cases_fold{number}of5.csv") for number in range(1, 6)]
    assert tables[0] == cases
    assert not (five / "cases.csv").exists()
    tested = [case.name for table in tables for case in table if case.split == "test"]
    assert sorted(tested) == ["p1", "p2", "p3", "p4", "p5"]
    assert all(sum(case.split == "val" for case in table) == 2 for table in tables)


def test_a_fixed_split_is_kept(five: Path) -> None:
    before = run(five, seed=5)
    scan(five / "p2/t1.nii.gz")
    assert run(five, split_file=five / "cases.csv") == before
    (five / "cases.csv").rename(five / "split.csv")
    study(five, "p6")
    assert "has no line for the patients p6" in refusal(five, split_file=five / "split.csv")


def test_strata_come_from_conditions(five: Path) -> None:
    study(five, "p6")
    known = "".join(f"p{n},{'AB'[n % 2]}\n" for n in range(1, 7))
    (five / "known.csv").write_text(f"patient,site\n{known}")
    for seed in range(5):
        options = {"conditions": five / "known.csv", "stratify": "site", "fractions": (0.4, 0.3, 0.3), "seed": seed}
        cases = run(five, **options)
        assert len({(case.split, case.conditions["site"]) for case in cases}) == 6
    (five / "cases.csv").unlink()
    assert "site is not known of p1; p2" in refusal(five, stratify="site")


def test_too_few_patients_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(study(tmp_path, "p1"))
    assert "Too few patients (1): nobody is in val and test" in capsys.readouterr().err
    run(tmp_path, split="test")
    run(tmp_path, fractions=(1, 0, 0))
    assert "Too few" not in capsys.readouterr().err


# --- grids ------------------------------------------------------------------------------------------------------------


def test_another_grid_is_refused_with_both_named(five: Path) -> None:
    scan(five / "p2/flair.nii.gz", Grid.regular((6, 5, 8), spacing_mm=(1, 2, 1.5)))
    scan(five / "p4/flair.nii.gz", Grid.regular((6, 5, 4), spacing_mm=(1, 2, 3), origin_mm=(0, 0, 0.5)))
    said = refusal(five, GeometryError)
    assert "2 images lie on another grid" in said
    assert "p2: a is 6×5×4 at 1×2×3 mm RAS, b is 6×5×8 at 1×2×1.5 mm RAS" in said
    assert "p4: a is 6×5×4 at 1×2×3 mm RAS, b is 6×5×4 at 1×2×3 mm RAS, up to 0.5 mm apart" in said


def test_a_mask_on_another_grid_is_refused(five: Path) -> None:
    for number in range(1, 6):
        scan(five / f"p{number}/mask.nii.gz", Grid.regular((6, 5, 4)) if number == 3 else GRID)
    assert "p3: a is 6×5×4 at 1×2×3 mm RAS, mask is 6×5×4 at 1×1×1 mm RAS" in refusal(
        five, GeometryError, mask="mask.nii.gz"
    )


def test_the_order_in_which_voxels_are_stored_does_not_count(five: Path) -> None:
    path = five / "p2/flair.nii.gz"
    write(read(path).reorient("LPS"), path)
    assert len(run(five)) == 5


# --- leaks ------------------------------------------------------------------------------------------------------------


def test_a_copy_under_another_name_is_refused(five: Path) -> None:
    shutil.copy(five / "p1/t1.nii.gz", five / "p4/t1.nii.gz")
    said = refusal(five)
    assert re.search("different patients have an image in common: p1 and p4, .*: the same image, voxel for voxel", said)
    assert len(run(five, patients={"p4": "p1"})) == 5


def test_a_copy_is_seen_through_format_order_and_header(five: Path) -> None:
    original = read(five / "p1/t1.nii.gz")
    other = Volume(original.array.astype(np.float64), original.grid, unit="a.u.", modality="MR")
    write(other.reorient("SLA"), five / "p4/t1.nii.gz", description="another header")
    assert "p1 and p4" in refusal(five)


def test_equal_masks_are_no_leak(five: Path) -> None:
    for number in range(1, 6):
        write(Volume(np.ones(GRID.shape, np.uint8), GRID), five / f"p{number}/mask.nii.gz")
    assert len(run(five, mask="mask.nii.gz")) == 5


def test_a_and_b_must_differ(five: Path) -> None:
    assert "a and b are the same image" in refusal(five, b="t1.nii.gz")


def test_images_that_cannot_be_read_are_listed(five: Path) -> None:
    for name in ("p2", "p3"):
        path = five / name / "t1.nii.gz"
        path.write_bytes(path.read_bytes()[:-30])
    said = refusal(five)
    assert "p2, a: " in said
    assert "p3, a: " in said


# --- leaving out ------------------------------------------------------------------------------------------------------


def _four_d(folder: Path) -> None:
    image = nib.Nifti1Image(random_of.integers(0, 99, (6, 5, 4, 3)).astype(np.int16), GRID.affine)
    nib.save(image, folder / "t1.nii.gz")


def _singular(folder: Path) -> None:
    image = nib.load(folder / "t1.nii.gz")
    assert isinstance(image, nib.Nifti1Image)
    header = image.header.copy()
    header.set_sform(np.diag([1, 0, 1, 1]), code=1)
    header.set_qform(None, code=0)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, header), folder / "t1.nii.gz")


def _other_mask(folder: Path) -> None:
    scan(folder / "mask.nii.gz", Grid.regular((6, 5, 5), spacing_mm=(1, 2, 3)))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "lacks": (lambda folder: (folder / "flair.nii.gz").unlink(), "p2 has no b"),
    "damaged": (lambda folder: (folder / "t1.nii.gz").write_bytes(b"none"), "p2, a: .*t1.nii.gz"),
    "4-D": (_four_d, "p2, a: .*read_set gives each as a volume"),
    "affine": (_singular, "p2, a: .*affine"),
    "grid": (lambda folder: scan(folder / "flair.nii.gz", Grid.regular((6, 5, 5))), "p2: a is .*, b is "),
    "mask": (_other_mask, "p2: a is .*, mask is "),
    "twins": (
        lambda folder: shutil.copy(folder / "t1.nii.gz", folder / "flair.nii.gz"),
        "p2: a and b are the same image",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_case_is_refused_or_left_out_as_told(
    five: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("p1", "p2", "p3", "p4", "p5"):
        scan(five / name / "mask.nii.gz")
    spoil, told = FAULTS[fault]
    spoil(five / "p2")
    said = refusal(five, MedganError, mask="mask.nii.gz")
    assert re.search(told, said)
    assert said.endswith("or leave these cases out (--leave-out)")
    cases = run(five, mask="mask.nii.gz", leave_out=True)
    assert [case.name for case in cases] == ["p1", "p3", "p4", "p5"]
    assert [case.name for case in read_cases(five / "cases.csv")] == ["p1", "p3", "p4", "p5"]
    assert re.search("Left out " + told, capsys.readouterr().err)


def test_a_leak_is_refused_whatever_is_left_out(five: Path) -> None:
    for name in ("t1", "flair"):
        shutil.copy(five / "p1" / f"{name}.nii.gz", five / "p4" / f"{name}.nii.gz")
    assert "p1 and p4" in refusal(five, leave_out=True)


def test_if_nothing_is_left_all_is_refused(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", "p1", "p2")
    for name in ("p1", "p2"):
        (folder / name / "t1.nii.gz").write_bytes(b"none")
    assert "images that cannot be read: p1, a" in refusal(folder, leave_out=True)


def test_an_empty_folder_and_one_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds: nothing" in refusal(tmp_path / "empty")
    assert [case.split for case in run(study(tmp_path / "one", "p1"))] == ["train"]
    assert "Too few patients (1)" in capsys.readouterr().err


# --- DICOM ------------------------------------------------------------------------------------------------------------


def dicom_study(folder: Path, identifiers: dict[str, str]) -> Path:
    for name, identifier in identifiers.items():
        subject = Subject(patient_id=identifier, patient_name="Secret^Name")
        array = random_of.integers(0, 999, GRID.shape).astype(np.int16)
        write(Volume(array, GRID, modality="MR"), folder / name / "mr", subject=subject)
        write(Volume(array - 500, GRID, unit="HU", modality="CT"), folder / name / "ct", subject=subject)
    return folder


def test_series_are_indexed_by_their_folders(tmp_path: Path) -> None:
    folder = dicom_study(tmp_path, {"p1": "ID1", "p2": "ID2", "p3": "ID3"})
    write(Volume(np.ones(GRID.shape, np.uint8), GRID), folder / "p1/mask.nii.gz")
    for name in ("p2", "p3"):
        shutil.copy(folder / "p1/mask.nii.gz", folder / name / "mask.nii.gz")
    cases = run(folder, a="mr", b="{patient}/ct", mask="mask.nii.gz")
    assert cases[0].images == {"a": folder / "p1/mr", "b": folder / "p1/ct", "mask": folder / "p1/mask.nii.gz"}
    assert "ID1" not in (folder / "cases.csv").read_text()


def test_one_identifier_under_two_patients_is_refused_without_showing_it(tmp_path: Path) -> None:
    folder = dicom_study(tmp_path, {"p1": "SECRET", "p2": "SECRET", "p3": "SECRET", "p4": "ID4"})
    said = refusal(folder, a="mr", b="ct")
    assert "one patient identifier in their DICOM headers: p1 and p2 and p3" in said
    assert "SECRET" not in said.upper()
    assert "one patient identifier" in refusal(folder, a="mr", b="ct", folds=2)
    assert not list(folder.glob("*.csv"))
    one = run(folder, a="mr", b="ct", patients={"p1": "x", "p2": "x", "p3": "x"})
    assert [case.patient for case in one] == ["x", "x", "x", "p4"]
    placeholder = run(folder, a="mr", b="ct", patients={name: name for name in ("p1", "p2", "p3")})
    assert [case.patient for case in placeholder] == ["p1", "p2", "p3", "p4"]


def test_a_role_of_several_series_is_refused(tmp_path: Path) -> None:
    folder = dicom_study(tmp_path, {"p1": "ID1", "p2": "ID2", "p3": "ID3"})
    shutil.copytree(folder / "p2/ct", folder / "p2/mr/more")
    assert "p2, a: " in refusal(folder, a="mr", b="ct")


# --- real scans -------------------------------------------------------------------------------------------------------


def test_real_pairs_are_indexed(shared: Path, tmp_path: Path) -> None:
    options = {"mask": "brainmask.nii.gz", "out": tmp_path / "cases.csv", "patients": {"Subj16": "Subj15"}}
    for seed in range(3):
        cases = run(shared / "nichart_t1_flair_3d2mm", seed=seed, **options)
        split_of = {case.name: case.split for case in cases}
        assert len(cases) == 13
        assert split_of["Subj15"] == split_of["Subj16"]
        assert set(split_of.values()) == {"train", "val", "test"}
    assert read_cases(tmp_path / "cases.csv") == cases


def test_real_pairs_that_are_not_registered_are_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(
        GeometryError, match="Subj01: a is 106×127×135 at 2×2×2 mm LPS, b is 110×110×87 at 2×2×2 mm LPS"
    ):
        run(shared / "nichart_unregistered_pairs", out=tmp_path / "cases.csv")
    assert not (tmp_path / "cases.csv").exists()


# --- without pairs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """Six patients with a alone, five with b alone, three with both, on two grids."""
    for number in range(6):
        scan(tmp_path / f"mr/m{number}.nii.gz")
    for number in range(5):
        scan(tmp_path / f"ct/c{number}.nii.gz", OTHER)
    for number in range(3):
        scan(tmp_path / f"mr/both{number}.nii.gz")
        scan(tmp_path / f"ct/both{number}.nii.gz", OTHER)
    return tmp_path


OTHER = Grid.regular((5, 5, 5), spacing_mm=(2, 2, 2))
LOOSE: dict[str, Any] = {"a": "mr/{patient}.nii.gz", "b": "ct/{patient}.nii.gz", "unpaired": True}


def test_cases_without_pairs_have_what_there_is(loose: Path) -> None:
    cases = run(loose, **LOOSE)
    assert read_cases(loose / "cases.csv", required=()) == cases
    roles = {case.name: set(case.images) for case in cases}
    assert roles["m0"] == {"a"}
    assert roles["c0"] == {"b"}
    assert roles["both0"] == {"a", "b"}


@pytest.mark.parametrize("seed", range(5))
def test_each_split_has_some_of_all(loose: Path, seed: int) -> None:
    cases = run(loose, seed=seed, **LOOSE)
    kinds = {(case.split, *sorted(case.images)) for case in cases}
    assert kinds == {(split, *roles) for split in ("train", "val", "test") for roles in (("a",), ("b",), ("a", "b"))}


def test_pairs_are_asked_for_unless_told(loose: Path) -> None:
    assert "index without pairs (--unpaired)" in refusal(loose, **LOOSE | {"unpaired": False})


def test_a_mask_still_has_to_fit(loose: Path) -> None:
    scan(loose / "masks/m1.nii.gz", OTHER)
    told = refusal(loose, GeometryError, mask="masks/{patient}.nii.gz", **LOOSE)
    assert "m1: a is 6×5×4" in told
    scan(loose / "masks/m1.nii.gz")
    scan(loose / "masks/c1.nii.gz", OTHER)
    assert {case.name for case in run(loose, mask="masks/{patient}.nii.gz", **LOOSE) if "mask" in case.images} == {
        "m1",
        "c1",
    }


def test_a_copy_on_the_other_side_is_refused_without_pairs(loose: Path) -> None:
    shutil.copy(loose / "mr/m0.nii.gz", loose / "ct/c9.nii.gz")
    shutil.copy(loose / "mr/m0.json", loose / "ct/c9.json")
    assert "cases of different patients have an image in common" in refusal(loose, **LOOSE)
