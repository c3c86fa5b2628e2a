"""convert: voxels and grid come through unchanged, there and back, on made and on real scans."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medgan.convert import convert as convert_all
from medgan.errors import InputError, OutputError
from medgan.formats import read, write
from medgan.formats.dicom import Subject
from medgan.volume import Grid, Volume

GRID = Grid.regular((8, 9, 5), spacing_mm=(0.7, 0.9, 3), origin_mm=(10.123, -20, 30))
CT = Volume((np.arange(360).reshape(8, 9, 5) - 1024).astype(np.int16), GRID, unit="HU", modality="CT")
SAGITTAL = "dicom/dcm_qa_decubitus/HFS_3_t1_fl2d_sag"


def convert(*args: Path, **options: object) -> Path:
    """What one scan became."""
    (done,) = convert_all(*args, **options)
    assert done.path is not None
    return done.path


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return write(CT, tmp_path / "series", subject=Subject())


def test_there_and_back_is_bit_equal(series: Path, tmp_path: Path) -> None:
    packed = convert(series, tmp_path / "x.nii.gz")
    back = convert(packed, tmp_path / "back", like=series)
    first, last = read(series), read(back)
    assert np.array_equal(first.array, last.array)
    assert np.array_equal(first.grid.affine, last.grid.affine)
    assert (last.unit, last.modality) == ("HU", "CT")
    assert np.abs(read(packed).grid.affine - first.grid.affine).max() < 1e-5  # a NIfTI-1 header holds float32


def test_a_file_without_unit_takes_that_of_like(series: Path, tmp_path: Path) -> None:
    volume = read(series)
    nib.save(nib.Nifti1Image(volume.array, volume.grid.affine), tmp_path / "plain.nii.gz")
    back = read(convert(tmp_path / "plain.nii.gz", tmp_path / "back", like=series))
    assert (back.unit, back.modality) == ("HU", "CT")
    assert np.array_equal(back.array, volume.array)
    with_unit = read(convert(tmp_path / "plain.nii.gz", tmp_path / "with_unit.nii.gz", like=series))
    assert (with_unit.unit, with_unit.modality) == ("HU", "CT")


def test_a_recorded_unit_is_not_replaced(series: Path, tmp_path: Path) -> None:
    mr = write(CT.with_array(CT.array + 1024, unit="a.u.", modality="MR"), tmp_path / "mr.nii")
    assert read(convert(mr, tmp_path / "again.nii", like=series)).modality == "MR"
    assert read(convert(mr, tmp_path / "mr", like=series)).modality == "MR"


def test_one_series_of_several(tmp_path: Path) -> None:
    for number, name in enumerate(("first", "second")):
        write(CT.with_array(CT.array + number), tmp_path / "both" / name, subject=Subject(), description=name)
    path = convert(tmp_path / "both", tmp_path / "x.nii", series="second")
    assert np.array_equal(read(path).reorient("RAS").array, CT.array + 1)


def test_nothing_is_overwritten(series: Path, tmp_path: Path) -> None:
    path = convert(series, tmp_path / "x.nii.gz")
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"x\.nii\.gz: exists already"):
        convert(series, path)
    with pytest.raises(OutputError, match="series: is a folder with something in it"):
        convert(path, series, like=series)
    assert path.read_bytes() == before


def test_nifti_to_dicom_needs_a_series_to_join(series: Path, tmp_path: Path) -> None:
    path = convert(series, tmp_path / "x.nii.gz")
    with pytest.raises(InputError, match="like"):
        convert(path, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        convert(tmp_path / "nowhere", tmp_path / "x.nii")


def test_a_real_sagittal_series_goes_there_and_back(shared: Path, tmp_path: Path) -> None:
    source = shared / SAGITTAL
    packed = convert(source, tmp_path / "t1.nii.gz")
    back = read(convert(packed, tmp_path / "back", like=source))
    assert np.array_equal(back.array, read(source).array)
    assert np.array_equal(back.grid.affine, read(source).grid.affine)


def test_a_real_series_lies_where_simpleitk_puts_it(shared: Path, tmp_path: Path) -> None:
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(shared / SAGITTAL))
    reference = sitk.ReadImage(files)
    image = nib.load(convert(shared / SAGITTAL, tmp_path / "t1.nii.gz"))
    values = np.asanyarray(image.dataobj)
    for index in np.random.default_rng(0).integers(0, reference.GetSize(), (50, 3)):
        world = np.array(reference.TransformIndexToPhysicalPoint(index.tolist())) * (-1, -1, 1)
        here = np.linalg.solve(image.affine, [*world, 1])[:3]
        assert np.abs(here - np.rint(here)).max() < 1e-3
        assert values[tuple(np.rint(here).astype(int))] == reference[index.tolist()]


def test_dicom2nifti_agrees_on_its_own_scans(shared: Path, tmp_path: Path) -> None:
    folder = shared / "dicom/dicom2nifti/tests/data"
    for name in ("anatomical/001", "siemens/anatomical/001", "philips/anatomical/001", "hitachi/anatomical/001"):
        reference = nib.load(folder / f"{name}_ground_truth.nii.gz")
        seen = read(convert(folder / name, tmp_path / name.replace("/", "_") / "x.nii.gz")).reorient("RAS")
        wanted = Volume(np.asanyarray(reference.dataobj), Grid(reference.shape, reference.affine)).reorient("RAS")
        assert seen.grid.same_as(wanted.grid), name
        assert np.array_equal(seen.array, wanted.array), name
