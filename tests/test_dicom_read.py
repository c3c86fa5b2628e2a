"""DICOM in: a marker's place, every refusal with its reason, and real series against references."""

from __future__ import annotations

import copy
import random
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_folders import AXIAL, make_slices, ramp, save, save_one, set_pixels, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    RLELossless,
    generate_uid,
)
from scipy.spatial.transform import Rotation

from medgan.errors import DicomError, InputError
from medgan.formats.dicom import find_series, is_dicom, read
from medgan.formats.dicom.stack import position_tolerance_mm

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


# --- where voxels are -------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    spacing=st.tuples(st.floats(0.2, 4), st.floats(0.2, 4)),
    gap=st.floats(0.3, 8),
    shape=st.tuples(st.integers(2, 6), st.integers(2, 7), st.integers(2, 7)),
    straight=st.booleans(),
    data=st.data(),
)
def test_a_marker_is_where_its_own_header_says(tmp_path_factory, seed, spacing, gap, shape, straight, data):  # noqa: PLR0917
    """All orientations and oblique, any order of files: the formula of PS3.3 C.7.6.2.1.1, and SimpleITK, agree."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    if straight:
        turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)[:, None]
    origin = rng.uniform(-200, 200, 3)
    pixels = np.zeros(shape, np.uint16)
    k, row, column = (data.draw(st.integers(0, n - 1)) for n in shape)
    pixels[k, row, column] = 1000
    slices = make_slices(pixels, directions=(turn[0], turn[1]), origin=origin, spacing=spacing, gap=gap)
    holder = slices[k]
    expected = LPS_TO_RAS * (
        np.array(holder.ImagePositionPatient, float)
        + turn[0] * column * float(holder.PixelSpacing[1])
        + turn[1] * row * float(holder.PixelSpacing[0])
    )
    random.Random(seed).shuffle(slices)
    folder = save(slices, tmp_path_factory.mktemp("marker"))

    volume = read(folder)

    assert volume.array.shape == (shape[2], shape[1], shape[0])
    where = np.argwhere(volume.array == 1000)
    assert len(where) == 1
    assert np.abs(volume.grid.to_world(where[0]) - expected).max() < 1e-6
    assert np.linalg.det(volume.grid.affine[:3, :3]) > 0
    assert np.abs(_marker_by_simpleitk(folder) - expected).max() < 1e-3


def _marker_by_simpleitk(folder: Path) -> np.ndarray:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    index = np.argwhere(sitk.GetArrayViewFromImage(image) == 1000)[0][::-1]
    return LPS_TO_RAS * image.TransformIndexToPhysicalPoint([int(i) for i in index])


def test_pixel_spacing_is_row_gap_then_column_gap(tmp_path):
    volume = read(save(make_slices(ramp(), spacing=(1.5, 1.0156), gap=2.5), tmp_path))
    assert volume.grid.spacing_mm == pytest.approx((1.0156, 1.5, 2.5))
    assert volume.grid.orientation == "LPS"


def test_thickness_and_stated_gap_do_not_count(tmp_path):
    slices = make_slices(ramp(), gap=2.5, SliceThickness="9", SpacingBetweenSlices="7.5")
    assert read(save(slices, tmp_path)).grid.spacing_mm[2] == pytest.approx(2.5)
    assert any("SpacingBetweenSlices says 7.5" in problem for problem in find_series(tmp_path)[0].problems)


@pytest.mark.parametrize("change", ["shuffled", "absent", "equal"])
def test_instance_numbers_do_not_count(tmp_path, change):
    slices = make_slices(ramp())
    for one, number in zip(slices, [4, 1, 6, 2, 5, 3], strict=True):
        one.InstanceNumber = {"shuffled": number, "absent": None, "equal": 1}[change]
    volume = read(save(slices, tmp_path))
    assert np.array_equal(volume.array, ramp().transpose(2, 1, 0))


def test_a_hundredth_of_a_millimetre_of_jitter_is_no_gap(tmp_path):
    slices = make_slices(ramp(20))
    rng = np.random.default_rng(0)
    for one in slices:
        one.ImagePositionPatient = texts(np.array(one.ImagePositionPatient, float) + rng.uniform(-0.01, 0.01, 3))
    grid = read(save(slices, tmp_path)).grid
    for index, one in enumerate(slices):
        stated = LPS_TO_RAS * np.array(one.ImagePositionPatient, float)
        assert np.linalg.norm(grid.to_world([0, 0, index]) - stated) < position_tolerance_mm(2.5) + 0.01


@pytest.mark.parametrize("key", ["SliceThickness", "SpacingBetweenSlices"])
def test_a_single_slice_has_the_depth_that_it_states(tmp_path, key):
    slices = make_slices(ramp(1))
    del slices[0].SliceThickness
    setattr(slices[0], key, "3.5")
    volume = read(save_one(slices[0], tmp_path / "one"))
    assert volume.array.shape == (10, 8, 1)
    assert volume.grid.spacing_mm == pytest.approx((1, 1.5, 3.5))


# --- which files ------------------------------------------------------------------------------------------------------


def test_files_are_found_by_content_in_nested_folders(tmp_path):
    slices = make_slices(ramp())
    save(slices[:3], tmp_path / "a" / "b", pattern="IM{}")
    save(slices[3:], tmp_path / "c", pattern="I.{}.txt")
    (tmp_path / "readme.md").write_text("notes")
    (tmp_path / "c" / "empty").touch()
    (tmp_path / "c" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    (tmp_path / "c" / "zeros").write_bytes(bytes(1000))
    save_one(_report(slices[0]), tmp_path / "c" / "report.dcm")
    (found,) = find_series(tmp_path)
    assert (found.num_slices, found.problems) == (6, ())
    assert np.array_equal(read(tmp_path).array, ramp().transpose(2, 1, 0))


def _report(one: Dataset) -> Dataset:
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", generate_uid()
    report.SeriesInstanceUID, report.StudyInstanceUID = generate_uid(), one.StudyInstanceUID
    report.Modality, report.PatientID = "SR", one.PatientID
    return report


def test_a_dicomdir_is_passed_over(tmp_path):
    folder = save(make_slices(ramp()), tmp_path / "images", pattern="IM{}")
    directory = FileSet()
    for path in folder.iterdir():
        directory.add(path)
    directory.write(tmp_path / "set")
    assert (tmp_path / "set" / "DICOMDIR").is_file()
    assert read(tmp_path / "set").array.shape == (10, 8, 6)
    assert read(tmp_path / "set" / "DICOMDIR").array.shape == (10, 8, 6)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, None])
def test_files_without_preamble_are_read(tmp_path, syntax):
    for index, one in enumerate(make_slices(ramp())):
        implicit = syntax == ImplicitVRLittleEndian
        pydicom.dcmwrite(
            tmp_path / str(index), one, implicit_vr=implicit, little_endian=True, enforce_file_format=False
        )
        assert (tmp_path / str(index)).read_bytes()[128:132] != b"DICM"
    assert is_dicom(tmp_path / "0")
    assert np.array_equal(read(tmp_path).array, ramp().transpose(2, 1, 0))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_encodings_do_not_change_values(tmp_path, syntax):
    volume = read(save(make_slices(ramp()), tmp_path, syntax=syntax))
    assert np.array_equal(volume.array, ramp().transpose(2, 1, 0))


def test_big_endian(tmp_path):
    slices = make_slices(ramp())
    for one in slices:
        one["PixelData"].value = np.frombuffer(one.PixelData, "<u2").astype(">u2").tobytes()
    assert np.array_equal(read(save(slices, tmp_path, syntax=ExplicitVRBigEndian)).array, ramp().transpose(2, 1, 0))


def test_run_length_encoding(tmp_path):
    slices = make_slices(ramp())
    for one in slices:
        _compress(one)
    assert np.array_equal(read(save(slices, tmp_path, syntax=RLELossless)).array, ramp().transpose(2, 1, 0))


def _compress(one: Dataset) -> None:
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)


def test_what_is_dicom(tmp_path):
    folder = save(make_slices(ramp(1)), tmp_path / "scan" / "deep")
    (tmp_path / "text").write_text("x" * 500)
    (tmp_path / "nifti.nii").write_bytes(nibabel.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)).to_bytes())
    assert is_dicom(folder / "000.dcm")
    assert is_dicom(tmp_path / "scan")
    assert not is_dicom(tmp_path / "text")
    assert not is_dicom(tmp_path / "nifti.nii")
    with pytest.raises(InputError, match="no such file or folder"):
        is_dicom(tmp_path / "nowhere")


# --- several series ---------------------------------------------------------------------------------------------------


@pytest.fixture
def two_series(tmp_path):
    first = {"StudyInstanceUID": "1.2.3", "SeriesNumber": 4, "SeriesDescription": "first"}
    second = {"StudyInstanceUID": "1.2.3", "SeriesNumber": 5, "SeriesDescription": "second"}
    save(
        make_slices(ramp(), **first),
        tmp_path,
        pattern="a{}",
    )
    save(make_slices(ramp(4), modality="CT", **second), tmp_path, pattern="b{}")
    return tmp_path


def test_two_series_are_refused_with_a_list(two_series):
    with pytest.raises(DicomError, match=r"2 series.*4 MR 'first' \(6 slices\) .*; 5 CT 'second' \(4 slices\)") as seen:
        read(two_series)
    assert "SECRET" not in str(seen.value)
    assert "Secret" not in str(seen.value)


def test_a_series_is_chosen_by_number_description_or_uid(two_series):
    uid = find_series(two_series)[1].uid
    for key in ("5", "second", uid):
        volume = read(two_series, series=key)
        assert (volume.modality, volume.array.shape) == ("CT", (10, 8, 4))
    with pytest.raises(DicomError, match="no series is called 'third'"):
        read(two_series, series="third")


def test_a_choice_must_be_unique(tmp_path):
    for name in ("a", "b"):
        save(make_slices(ramp(), SeriesNumber=4, SeriesDescription="same"), tmp_path / name)
    with pytest.raises(DicomError, match="2 series are called '4'"):
        read(tmp_path, series="4")


def test_a_series_tells_no_identity_unless_asked(two_series):
    found = find_series(two_series)
    assert found[0].patient_id == "SECRET-ID"
    assert "SECRET" not in repr(found)
    assert [one.number for one in found] == [4, 5]


# --- refusals ---------------------------------------------------------------------------------------------------------


def _missing(slices):
    del slices[2]
    return r"1 slice is missing .*between 001\.dcm \(12\.50 mm\) and 002\.dcm \(17\.50 mm\)"


def _same_place(slices):
    again = copy.deepcopy(slices[2])
    again.SOPInstanceUID = generate_uid()
    slices.append(again)
    return r"1 place holds more than one image: 002\.dcm, 006\.dcm at 15\.00 mm"


def _other_content(slices):
    again = copy.deepcopy(slices[2])
    set_pixels(again, np.zeros((8, 10), np.uint16))
    slices.append(again)
    return r"002\.dcm and \S*006\.dcm have one SOPInstanceUID but differ in content"


def _sideways(slices):
    slices[3].ImagePositionPatient = texts([-15, -30, 17.5])
    return r"shifted sideways by up to .* most of all 003\.dcm"


def _one_place(slices):
    for one in slices:
        one.ImagePositionPatient = slices[0].ImagePositionPatient
    return "a 4-D series, which is more than one volume"


def _enhanced(slices):
    del slices[1:]
    slices[0].SOPClassUID, slices[0].NumberOfFrames = EnhancedMRImageStorage, 3
    slices[0].PixelData = slices[0].PixelData * 3
    return r"a multi-frame object of 3 frames \(Enhanced MR Image Storage\) that does not say where they lie"


def _mosaic(slices):
    for one in slices:
        one.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    return "a mosaic"


def _colour(slices):
    for one in slices:
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
        one.BitsAllocated = one.BitsStored = 8
        one.HighBit = 7
        one.add_new("PixelData", "OB", bytes(8 * 10 * 3))
    return r"a colour image \(RGB"


def _no_geometry(slices):
    for one in slices:
        one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        del one.ImagePositionPatient, one.ImageOrientationPatient
    return r"no geometry, ImagePositionPatient and ImageOrientationPatient missing \(Secondary Capture Image Storage\)"


def _bent(slices):
    for one in slices:
        one.ImageOrientationPatient = texts([1, 0, 0, 0.1, 0.99, 0])
    return "is not two unit vectors at right angles"


def _two_patients(slices):
    slices[3].PatientID = "ANOTHER-SECRET"
    return r"000\.dcm and 003\.dcm are of one series but differ in PatientID"


def _two_frames(slices):
    slices[3].FrameOfReferenceUID = generate_uid()
    return "differ in FrameOfReferenceUID"


def _no_slope(slices):
    slices[1].RescaleSlope, slices[1].RescaleIntercept = "0", "0"
    return r"001\.dcm: RescaleSlope is 0"


def _table(slices):
    for one in slices:
        one.ModalityLUTSequence = [Dataset()]
    return "ModalityLUTSequence"


@pytest.mark.parametrize(
    "spoil",
    [
        _missing,
        _same_place,
        _other_content,
        _sideways,
        _one_place,
        _enhanced,
        _mosaic,
        _colour,
        _no_geometry,
        _bent,
        _two_patients,
        _two_frames,
        _no_slope,
        _table,
    ],
    ids=lambda spoil: spoil.__name__.strip("_"),
)
def test_what_is_no_regular_grid_is_refused_with_its_reason(tmp_path, spoil):
    slices = make_slices(ramp())
    reason = spoil(slices)
    save(slices, tmp_path)
    with pytest.raises(DicomError, match=reason) as seen:
        read(tmp_path)
    assert "secret" not in str(seen.value).lower()
    assert "\n" not in str(seen.value)
    if spoil not in (_no_slope, _table, _one_place):
        (found,) = find_series(tmp_path)
        assert found.grid is None
        assert found.problems == (str(seen.value),)


@pytest.mark.parametrize("left", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_a_truncated_file_is_refused_by_name(tmp_path, left, syntax):
    slices = make_slices(ramp(6, 30, 30))
    if syntax == RLELossless:
        for one in slices:
            _compress(one)
    save(slices, tmp_path, syntax=syntax)
    path = tmp_path / "005.dcm"
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(DicomError, match=r"005\.dcm: (truncated|its header is cut off|its pixels.*cannot be decoded)"):
        read(tmp_path)


def test_an_empty_slice_is_refused_by_name(tmp_path):
    save(make_slices(ramp()), tmp_path)
    (tmp_path / "005.dcm").write_bytes(b"")
    with pytest.raises(DicomError, match=r"005\.dcm: is empty"):
        read(tmp_path)


def test_a_copied_file_counts_once(tmp_path):
    slices = make_slices(ramp())
    save(slices, tmp_path)
    shutil.copy(tmp_path / "002.dcm", tmp_path / "copy of 002.dcm")
    save_one(slices[3], tmp_path / "again", syntax=ImplicitVRLittleEndian)
    assert np.array_equal(read(tmp_path).array, ramp().transpose(2, 1, 0))
    assert find_series(tmp_path)[0].problems == ("2 files repeat another one, left out",)


@pytest.mark.parametrize("syntax", [JPEGExtended12Bit, MPEG2MPML])
def test_an_encoding_that_is_not_supported_is_named(tmp_path, syntax):
    slices = make_slices(ramp())
    for one in slices:
        one.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 no jpeg \xff\xd9"])
        one["PixelData"].VR = "OB"
        one["PixelData"].is_undefined_length = True
    save(slices, tmp_path, syntax=syntax)
    with pytest.raises(DicomError, match=rf"000\.dcm: .*{re.escape(syntax)}"):
        read(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    assert find_series(tmp_path) == []
    with pytest.raises(DicomError, match="holds no DICOM image"):
        read(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        read(tmp_path / "nowhere")


@settings(max_examples=150, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_bytes_never_raise_anything_else(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("damage")
    path = save_one(make_slices(ramp(1))[0], folder / "one.dcm")
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content)
    try:
        read(folder)
    except DicomError as error:
        assert "Secret" not in str(error)  # noqa: PT017


# --- values -----------------------------------------------------------------------------------------------------------


def test_ct_is_in_hounsfield_units_and_exact(tmp_path):
    pixels = np.array([0, 1024, 4095, 3000], np.uint16).reshape(2, 1, 2)
    volume = read(save(make_slices(pixels, modality="CT"), tmp_path))
    assert (volume.unit, volume.modality, volume.array.dtype) == ("HU", "CT", np.int16)
    assert volume.array.transpose(2, 1, 0).ravel().tolist() == [-1024, 0, 3071, 1976]


@pytest.mark.parametrize("change", [{"RescaleType": "US"}, {"RescaleIntercept": None}])
def test_ct_that_does_not_say_hounsfield_is_not(tmp_path, change):
    slices = make_slices(ramp(), modality="CT")
    for one in slices:
        for key, value in change.items():
            setattr(one, key, value) if value else delattr(one, key)
    assert read(save(slices, tmp_path)).unit == "a.u."


@pytest.mark.parametrize(("units", "unit"), [("BQML", "Bq/ml"), ("CNTS", "a.u.")])
def test_pet_is_in_becquerel_where_it_says_so(tmp_path, units, unit):
    slices = make_slices(ramp(), Modality="PT", SOPClassUID="1.2.840.10008.5.1.4.1.1.128", Units=units)
    assert read(save(slices, tmp_path)).unit == unit


def test_each_slice_has_its_own_slope(tmp_path):
    slices = make_slices(ramp())
    for index, one in enumerate(slices):
        one.RescaleSlope, one.RescaleIntercept = texts([0.5 + index])[0], str(-index)
    volume = read(save(slices, tmp_path))
    expected = ramp() * (0.5 + np.arange(6))[:, None, None] - np.arange(6)[:, None, None]
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, expected.transpose(2, 1, 0).astype(np.float32))


def test_values_beyond_int16_stay_exact(tmp_path):
    pixels = np.full((2, 3, 4), 40000, np.uint16)
    volume = read(save(make_slices(pixels), tmp_path))
    assert volume.array.dtype == np.float32
    assert (volume.array == 40000).all()


def test_signed_twelve_bits_in_sixteen_with_garbage_above(tmp_path):
    values = np.array([-2048, -1, 0, 5, 2047, -700], np.int16).reshape(2, 1, 3)
    slices = make_slices(values)
    for one in slices:
        words = np.frombuffer(one.PixelData, "<u2")
        one.PixelData = ((words & 0x0FFF) | 0xA000).astype("<u2").tobytes()
        one.BitsStored, one.HighBit = 12, 11
    volume = read(save(slices, tmp_path))
    assert np.array_equal(volume.array, values.transpose(2, 1, 0))


def test_odd_marks_are_told_and_values_kept(tmp_path):
    slices = make_slices(ramp(), PhotometricInterpretation="MONOCHROME1", LossyImageCompression="01")
    for one in slices:
        one.add_new("PixelPaddingValue", "US", 0)
    volume = read(save(slices, tmp_path))
    assert np.array_equal(volume.array, ramp().transpose(2, 1, 0))
    (found,) = find_series(tmp_path)
    assert found.problems == ()
    assert all(word in " ".join(found.notes) for word in ("MONOCHROME1", "PixelPaddingValue", "lossy"))


def test_synthetic_data_of_others_is_recognized(tmp_path):
    volume = read(save(make_slices(ramp(), SyntheticData="YES"), tmp_path))
    assert volume.synthetic is not None
    assert volume.synthetic.model == "unknown"
    assert find_series(tmp_path)[0].synthetic


def test_an_oblique_stack_that_leans_less_than_the_tolerance_is_read(tmp_path):
    lean = make_slices(ramp(), directions=AXIAL, step=(0, 2.5 * 0.0005, 2.5))
    assert not read(save(lean, tmp_path)).grid.is_sheared


# --- real series ------------------------------------------------------------------------------------------------------


def test_a_clean_siemens_series_agrees_with_simpleitk(shared):
    folder = shared / "dicom" / "dcm_qa_decubitus" / "HFS_3_t1_fl2d_sag"
    volume = read(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    for index in ((0, 0, 0), (255, 0, 34), (13, 200, 5)):
        assert volume.grid.to_world(index) == pytest.approx(
            LPS_TO_RAS * image.TransformIndexToPhysicalPoint(index), abs=1e-3
        )
