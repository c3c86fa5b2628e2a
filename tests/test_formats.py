"""read, read_header and write: the format is told by content, and what is no scan is refused in words."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_folders import SAGITTAL, joined, make_slices, ramp, save

from medgan.errors import DicomError, InputError, NiftiError, OutputError
from medgan.formats import nifti, read, read_header, write
from medgan.formats.dicom import Subject
from medgan.volume import Grid, Synthesis, Volume

GRID = Grid.regular((8, 9, 5), spacing_mm=(1, 2, 3), origin_mm=(10, -20, 30))
CT = Volume((np.arange(360).reshape(8, 9, 5) - 1024).astype(np.int16), GRID, unit="HU", modality="CT")


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return write(CT, tmp_path / "series", subject=Subject(patient_id="SECRET-1"))


def test_nifti_is_told_by_content(tmp_path: Path) -> None:
    path = write(CT, tmp_path / "x.nii.gz")
    shutil.copy(path, tmp_path / "scan")
    for name in ("x.nii.gz", "scan"):
        assert np.array_equal(read(tmp_path / name).array, CT.array)


def test_dicom_is_told_by_content(series: Path) -> None:
    for number, file in enumerate(sorted(series.iterdir())):
        file.rename(series / f"slice {number}.nii")
    seen = read(series)
    assert np.array_equal(seen.reorient("RAS").array, CT.array)
    assert (seen.unit, seen.modality) == ("HU", "CT")
    assert read(next(series.iterdir())).array.shape[2] == 1


def test_a_header_tells_grid_modality_and_patient_but_prints_no_patient(series: Path, tmp_path: Path) -> None:
    header = read_header(series)
    assert header.grid.same_as(read(series).grid, tolerance_mm=0)
    assert (header.modality, header.patient_id) == ("CT", "SECRET-1")
    assert "SECRET" not in repr(header)
    assert read_header(write(CT, tmp_path / "x.nii")).grid.same_as(GRID, tolerance_mm=0)


@pytest.mark.parametrize("reader", [read, read_header])
def test_what_is_no_scan_is_refused(tmp_path: Path, reader) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="does not exist; give a NIfTI, MetaImage or NRRD file, a DICOM file"):
        reader(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no scan at all")
    with pytest.raises(
        InputError, match=r"neither NIfTI, MetaImage, NRRD nor DICOM \(seen: a file of 14 bytes ending in \.txt\)"
    ):
        reader(tmp_path / "notes.txt")
    with pytest.raises(DicomError, match="holds no DICOM"):
        reader(tmp_path)
    (tmp_path / "empty.nii.gz").touch()
    with pytest.raises(NiftiError, match="it is empty"):
        reader(tmp_path / "empty.nii.gz")
    (tmp_path / "wrong.nii").write_text("no scan at all" * 40)
    with pytest.raises(NiftiError, match="does not start as NIfTI does"):
        reader(tmp_path / "wrong.nii")


def test_two_series_need_a_choice(series: Path, tmp_path: Path) -> None:
    write(CT, tmp_path / "both/one", subject=Subject(), description="first")
    write(CT.with_array(CT.array + 1), tmp_path / "both/two", subject=Subject(), description="second")
    with pytest.raises(DicomError, match="2 series"):
        read(tmp_path / "both")
    assert np.array_equal(read(tmp_path / "both", series="second").reorient("RAS").array, CT.array + 1)
    with pytest.raises(DicomError, match="holds 2 series"):
        read_header(tmp_path / "both")


@pytest.mark.parametrize("name", ["x.hdr", "x.dcm", "x.nii.zip", "x.jpg"])
def test_other_endings_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"end the name in \.nii or \.nii\.gz for NIfTI, .*, or give it no ending"):
        write(CT, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_with_a_dot_takes_a_series(tmp_path: Path) -> None:
    (tmp_path / "case.1").mkdir()
    assert np.array_equal(read(write(CT, tmp_path / "case.1", subject=Subject())).reorient("RAS").array, CT.array)


def test_the_mark_survives_both_formats(tmp_path: Path) -> None:
    made = CT.marked(Synthesis("pix2pix", weights_sha256="ab" * 32, version="0.1.0", description="MR to CT"))
    seen = read(write(made, tmp_path / "series", subject=Subject()))
    again = read(write(seen, tmp_path / "x.nii.gz"))
    assert seen.synthetic is not None
    assert again.synthetic == seen.synthetic
    assert seen.synthetic.model == "pix2pix"
    assert seen.synthetic.weights_sha256 == "ab" * 32


def test_nothing_of_the_patient_goes_into_nifti(series: Path, tmp_path: Path) -> None:
    path = write(read(series), tmp_path / "x.nii", description="head")
    for file in tmp_path.glob("x.*"):
        assert b"SECRET" not in file.read_bytes()
        assert b"Made-up" not in file.read_bytes()
    assert nifti.read(path).unit == "HU"


def test_the_header_of_a_folder_with_a_localizer_is_that_of_the_scan(tmp_path: Path) -> None:
    scout = make_slices(ramp(3), directions=SAGITTAL, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save(joined(make_slices(ramp()), scout), tmp_path)
    assert read_header(tmp_path).grid.same_as(read(tmp_path).grid)


def test_a_4d_series_has_no_one_header(tmp_path: Path) -> None:
    save(joined(*(make_slices(ramp(), AcquisitionNumber=str(n)) for n in range(2))), tmp_path)
    with pytest.raises(InputError, match="is 4-D, accepted is one volume"):
        read_header(tmp_path)
