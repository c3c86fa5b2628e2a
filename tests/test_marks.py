"""A sampled image says so in every format, comes back with all it was drawn with, and is the same file each time."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgan.errors import InputError
from medgan.formats import read, write
from medgan.formats.dicom import Subject
from medgan.formats.marks import is_marked, missing_marks
from medgan.formats.npz import StoredSet, read_set, write_set
from medgan.formats.sidecar import sampling_from_json, sampling_to_json
from medgan.inspect import inspect
from medgan.volume import Grid, Synthesis, Volume

MADE = Synthesis(
    "dcgan", "ab" * 32, "0.1.0", "T1, “glioma”; not for diagnostic use", seed=7, number=12,
    conditions={"class": "glioma", "age": "61.5", "größe": "ö"}, truncation=0.7,
)  # fmt: skip
NOON = datetime(2026, 11, 22, 12, 0, 5)
FORMATS = ["x.nii", "x.nii.gz", "x.png", "x"]


def nobody(name: str = "SYN-000012", seed: str = "abab/7/12") -> Subject:
    return Subject.sampled(name, seed=seed, time=NOON)


def drawn(
    modality: str = "MR", unit: str = "a.u.", shape: tuple[int, int, int] = (8, 6, 1), made: Synthesis | None = MADE
) -> Volume:
    grid = Grid.regular(shape, spacing_mm=(0.7, 1.3, 4), origin_mm=(10, -20, 30))
    values = np.random.default_rng(0).normal(0, 300, shape).astype(np.float32)
    return Volume(values, grid, unit, modality, made)


def headers(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_the_mark_comes_back_whole(tmp_path, name):
    back = read(write(drawn(), tmp_path / name, subject=nobody()))
    assert back.synthetic == MADE
    assert (back.unit, back.modality) == ("a.u.", "MR")
    assert back.synthetic.conditions == {"class": "glioma", "age": "61.5", "größe": "ö"}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "made",
    [
        Synthesis("dcgan", seed=0),
        Synthesis("dcgan", number=0, truncation=0.0),
        Synthesis("dcgan", seed=2**64, conditions={"a; sampled {": '"}; b'}),
        Synthesis("dcgan", quantity="standard deviation", seed=1, description="sampled at noon"),
        Synthesis("pix2pix", "cd" * 32, "0.1.0", "MR to CT"),
    ],
)
def test_any_part_of_the_mark_comes_back(tmp_path, name, made):
    assert read(write(drawn(made=made), tmp_path / name, subject=nobody())).synthetic == made


@settings(max_examples=25, deadline=None)
@given(
    seed=st.none() | st.integers(-(2**70), 2**70),
    number=st.none() | st.integers(0, 10**9),
    truncation=st.none() | st.floats(0, 2),
    conditions=st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=3),
)
def test_what_an_image_was_drawn_with_survives_json(seed, number, truncation, conditions):
    made = Synthesis("m", seed=seed, number=number, truncation=truncation, conditions=conditions)
    fields = json.loads(json.dumps(sampling_to_json(made)))
    assert Synthesis("m", **sampling_from_json(fields)) == made


def test_what_is_of_another_type_counts_as_absent():
    wrong = {"Seed": "7", "Number": True, "Truncation": float("nan"), "Conditions": ["class"]}
    assert Synthesis("m", **sampling_from_json(wrong)) == Synthesis("m")
    assert sampling_from_json({"Conditions": {"a": 1, "b": "x"}})["conditions"] == {"b": "x"}


@pytest.mark.parametrize(
    ("modality", "unit", "half"),
    [("CT", "HU", 0.5), ("MR", "a.u.", None), ("MR", "normalised", None), ("PT", "Bq/ml", None), ("DX", "a.u.", None)],
)
@pytest.mark.parametrize("shape", [(8, 6, 1), (8, 6, 5)])
def test_values_come_back_from_dicom_within_half_a_step(tmp_path, modality, unit, half, shape):
    volume = drawn(modality, unit, shape)
    if half is None:
        volume = volume.with_array(volume.array / 100)
    back = read(write(volume, tmp_path / "x", subject=nobody()))
    step = float(headers(tmp_path / "x")[0].get("RescaleSlope", 1))
    assert step == 1 if half else step < 1e-3
    turned = back.reorient("RAS")
    assert np.abs(turned.array - volume.array).max() <= 0.5 * step + 1e-6
    assert turned.grid.same_as(volume.grid, tolerance_mm=1e-6)
    assert (back.unit, back.modality, back.synthetic) == (unit, modality, MADE)


# --- the same file each time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_equal_images_become_equal_files_whenever_they_are_written(tmp_path, monkeypatch, name):
    def contents(folder: str) -> dict[str, bytes]:
        write(drawn(shape=(8, 6, 1)), tmp_path / folder / name, subject=nobody())
        files = [file for file in (tmp_path / folder).rglob("*") if file.is_file()]
        return {file.relative_to(tmp_path / folder).as_posix(): file.read_bytes() for file in files}

    first = contents("a")
    later = time.time() + 10**7
    monkeypatch.setattr(time, "time", lambda: later)
    assert contents("b") == first


def test_all_dates_are_those_of_the_set(tmp_path):
    found = list(headers(write(drawn(), tmp_path / "x", subject=nobody()))[0].iterall())
    dates = {str(one.value) for one in found if one.VR in ("DA", "TM", "DT")} - {""}
    assert dates == {"20261122", "120005", "20261122120005"}


def test_identifiers_hang_on_seed_pixels_and_place(tmp_path):
    def uids(name: str, volume: Volume, subject: Subject) -> tuple[str, str, str, str]:
        one = headers(write(volume, tmp_path / name, subject=subject))[0]
        return one.StudyInstanceUID, one.FrameOfReferenceUID, one.SeriesInstanceUID, one.SOPInstanceUID

    volume = drawn()
    base = uids("a", volume, nobody())
    assert uids("b", volume, nobody()) == base
    assert not set(uids("c", volume, nobody(seed="abab/7/13"))) & set(base)
    for name, other in {
        "d": volume.with_array(volume.array + 1),
        "e": replace(volume, grid=Grid.regular(volume.grid.shape, spacing_mm=(1, 1, 4))),
        "f": volume.with_array(volume.array, modality="PT"),
    }.items():
        again = uids(name, other, nobody())
        assert again[:2] == base[:2]
        assert not set(again[2:]) & set(base[2:])
    assert all(uid.startswith("2.25.") and len(uid) <= 64 and int(uid[5:]) < 1 << 128 for uid in base)


def test_slices_of_a_series_have_identifiers_of_their_own(tmp_path):
    found = headers(write(drawn(shape=(8, 6, 5)), tmp_path / "x", subject=nobody()))
    assert len({one.SOPInstanceUID for one in found}) == 5
    assert len({one.SeriesInstanceUID for one in found}) == 1
    assert [one.file_meta.MediaStorageSOPInstanceUID for one in found] == [one.SOPInstanceUID for one in found]


# --- what DICOM says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modality", "unit", "sop_class", "kind"),
    [
        ("CT", "HU", "CT Image Storage", ["DERIVED", "SECONDARY", "AXIAL"]),
        ("MR", "normalised", "MR Image Storage", ["DERIVED", "SECONDARY", "OTHER"]),
        ("PT", "Bq/ml", "Positron Emission Tomography Image Storage", ["DERIVED", "PRIMARY"]),
        ("DX", "a.u.", "Secondary Capture Image Storage", ["DERIVED", "SECONDARY"]),
        ("", "a.u.", "Secondary Capture Image Storage", ["DERIVED", "SECONDARY"]),
    ],
)
def test_every_file_says_what_it_is(tmp_path, modality, unit, sop_class, kind):
    for one in headers(write(drawn(modality, unit, (8, 6, 3)), tmp_path / "x", subject=nobody())):
        assert (one.SOPClassUID.name, one.Modality, list(one.ImageType)) == (sop_class, modality or "OT", kind)
        assert (one.SyntheticData, one.ContentQualification, one.BurnedInAnnotation) == ("YES", "RESEARCH", "NO")
        assert (one.PatientIdentityRemoved, one.DeidentificationMethod) == ("YES", "synthetic, no subject")
        assert (one.PatientID, str(one.PatientName)) == ("SYN-000012", "Synthetic^SYN-000012")
        assert (one.get("ConversionType") == "SYN") == (sop_class == "Secondary Capture Image Storage")
        (item,) = one.ContributingEquipmentSequence
        (purpose,) = item.PurposeOfReferenceCodeSequence
        assert (purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning) == (
            "109100", "DCM", "Synthesizing Equipment",
        )  # fmt: skip
        assert (item.ManufacturerModelName, item.SoftwareVersions) == ("dcgan", "0.1.0")
        assert (item.ContributionDateTime, one.StudyDate, one.ContentTime) == ("20261122120005", "20261122", "120005")
        assert "ab" * 32 in item.ContributionDescription
        assert one.DerivationDescription.endswith(
            f"seed 7, image 12, class glioma, age 61.5, größe ö, truncation 0.7, weights sha256 {'ab' * 32}"
        )
        assert len(one.DerivationDescription) <= 1024
        assert "not for diagnostic use" in one.SeriesDescription
        for absent in ("SourceImageSequence", "DerivationImageSequence", "ReferencedSeriesSequence"):
            assert absent not in one


def test_the_picture_of_a_capture_says_how_it_hangs(tmp_path):
    upright = Grid.regular((8, 6, 1), direction=np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]))
    volume = Volume(drawn().array, upright, "a.u.", "DX", MADE)
    assert upright.orientation == "LIA"
    one = headers(write(volume.reorient("LSA"), tmp_path / "x", subject=nobody()))[0]
    assert len(one.PatientOrientation) == 2
    rows, columns = np.split(np.array(one.ImageOrientationPatient, dtype=float), 2)
    named = {"L": [1, 0, 0], "P": [0, 1, 0], "H": [0, 0, 1], "R": [-1, 0, 0], "A": [0, -1, 0], "F": [0, 0, -1]}
    assert [named[side] for side in one.PatientOrientation] == [rows.tolist(), columns.tolist()]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
@pytest.mark.parametrize(("modality", "unit"), [("CT", "HU"), ("MR", "normalised"), ("PT", "Bq/ml"), ("DX", "a.u.")])
@pytest.mark.parametrize("depth", [1, 3])
def test_dciodvfy_finds_no_error(tmp_path, modality, unit, depth):
    for path in write(drawn(modality, unit, (8, 6, depth)), tmp_path / "x", subject=nobody()).iterdir():
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        # SyntheticData is newer than Debian's dciodvfy.
        assert [line for line in lines if line.startswith("Error") and "(0x0008,0x001c)" not in line] == []
        assert any("Image" in line for line in lines)


def test_a_person_is_never_the_subject_of_a_drawn_image(tmp_path):
    with pytest.raises(InputError, match="its patient is SYN- and something more"):
        Subject.sampled("P7", seed="x", time=NOON)
    with pytest.raises(InputError, match="the seed a text that no other image has"):
        Subject.sampled("SYN-1", seed="", time=NOON)
    person = read(write(drawn(made=None), tmp_path / "person", subject=Subject(patient_id="P7")))
    with pytest.raises(InputError, match="was drawn from noise, so it is of no patient"):
        write(drawn(), tmp_path / "x", like=person)
    again = read(write(read(write(drawn(), tmp_path / "drawn", subject=nobody())), tmp_path / "again"))
    assert again.synthetic == MADE


def test_what_dicom_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"conditions of \d+ letters are too long for DICOM"):
        write(drawn(made=replace(MADE, conditions={"class": "x" * 600})), tmp_path / "x", subject=nobody())
    with pytest.raises(InputError, match="modality 'x-ray' is no code of DICOM"):
        write(drawn("x-ray"), tmp_path / "x", subject=nobody())
    with pytest.raises(InputError, match="DICOM's CT is in HU"):
        write(drawn("CT", "a.u."), tmp_path / "x", subject=nobody())
    assert not (tmp_path / "x").exists()


# --- what is missing --------------------------------------------------------------------------------------------------


def a_set(folder: Path, made: Synthesis | None = MADE) -> Path:
    """One image in every format."""
    for name in FORMATS:
        write(drawn(made=made), folder / name.replace("x", name.replace(".", "_")), subject=nobody())
    images = drawn().array[None, None, :, :, 0]
    write_set(StoredSet(np.repeat(images, 2, axis=0), ["SYN-1", "SYN-2"], [made, MADE]), folder / "set.npz")
    (folder / "cases.csv").write_text("case,patient\nSYN-1,SYN-1\n")
    return folder


def test_a_marked_set_lacks_nothing(tmp_path):
    folder = a_set(tmp_path / "set")
    assert missing_marks(folder) == ()
    assert is_marked(folder)
    assert all(is_marked(file) for file in folder.rglob("*") if file.is_file() and file.suffix not in (".csv", ".json"))
    assert all(finding.synthetic for finding in inspect(folder))
    assert {finding.kind for finding in inspect(folder)} == {"nifti", "png", "dicom", "npz"}
    assert read_set(folder / "set.npz").synthetic == [MADE, MADE]


def test_every_unmarked_file_is_named_with_what_it_lacks(tmp_path):
    assert missing_marks(a_set(tmp_path / "set", made=None)) == (
        "set.npz: lacks a mark of 1 of its 2 images",
        "x/IM0001.dcm: lacks SyntheticData YES, Synthesizing Equipment",
        "x_nii.nii: lacks a comment that it is synthetic",
        "x_nii_gz.nii.gz: lacks a comment that it is synthetic",
        "x_png.png: lacks the text Synthetic, medgan's comment that it is synthetic, the DigitalSourceType in its XMP",
    )
    assert not is_marked(tmp_path / "set")


def without(key: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = sorted(folder.rglob("*.dcm"))[1]
        dataset = pydicom.dcmread(path)
        if key == "ImageType":
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        else:
            del dataset[key]
        dataset.save_as(path)

    return change


@pytest.mark.parametrize("key", ["SyntheticData", "ContributingEquipmentSequence", "ImageType"])
def test_one_slice_without_a_mark_is_enough(tmp_path, key):
    folder = write(drawn(shape=(8, 6, 3)), tmp_path / "x", subject=nobody())
    assert is_marked(folder)
    without(key)(folder)
    (line,) = missing_marks(tmp_path)
    assert line.startswith("x/IM0002.dcm: lacks ")
    assert not is_marked(folder)


def test_a_json_file_beside_an_image_is_no_mark(tmp_path):
    path = write(drawn(made=None), tmp_path / "x.nii")
    (tmp_path / "x.json").write_text('{"SyntheticData": true, "GeneratedBy": [{"Name": "medgan"}]}')
    assert read(path).synthetic is not None
    assert not is_marked(path)
    (tmp_path / "x.json").unlink()
    assert is_marked(write(drawn(), tmp_path / "y.nii"))


def test_places_without_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        is_marked(tmp_path / "nowhere")
    (tmp_path / "cases.csv").write_text("case\n")
    with pytest.raises(InputError, match=r"holds no image; give NIfTI, MetaImage, NRRD, PNG, DICOM or \.npz files"):
        missing_marks(tmp_path)


def test_damaged_images_are_refused_not_passed(tmp_path):
    folder = write(drawn(), tmp_path / "x", subject=nobody())
    (file,) = folder.iterdir()
    content, rng = file.read_bytes(), np.random.default_rng(0)
    told: set[str] = set()
    for _ in range(200):
        damaged = bytearray(content)
        for place in rng.integers(0, 1200, 6):
            damaged[place] = int(rng.integers(256))
        file.write_bytes(damaged)
        try:
            told.update(missing_marks(folder))
        except InputError as error:
            told.add(str(error))
    file.write_bytes(b"no DICOM")
    assert missing_marks(folder) == ("IM0001.dcm: lacks an image, though it is named like one",)
    assert any("its header is damaged" in line for line in told)
    assert all("\n" not in line for line in told)
