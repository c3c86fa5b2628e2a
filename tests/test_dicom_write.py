"""DICOM out: same place and values, new identity, and a header that says what the image is."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_folders import make_slices, ramp, save
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import UID
from scipy.spatial.transform import Rotation

from medgan import __version__
from medgan.errors import GeometryError, InputError, OutputError
from medgan.formats.dicom import Subject, find_series, read, write
from medgan.formats.dicom.stored import stored
from medgan.volume import Grid, Synthesis, Volume

SYNTHESIS = Synthesis("pix2pix", weights_sha256="ab" * 32, version="0.1.0", description="trained on pairs")
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SliceLocation")
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def headers(folder: Path) -> list[Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def raw(dataset: Dataset, key: str) -> list[str] | None:
    """The very characters of a decimal string in a file."""
    values = dataset.get(key)
    if values is None:
        return None
    return [getattr(value, "original_string", str(value)) for value in np.atleast_1d(np.array(values, dtype=object))]


def as_ct(volume: Volume) -> Volume:
    hu = volume.array.astype(np.float32) * 4 - 1000.4
    return volume.with_array(hu, unit="HU", modality="CT").marked(SYNTHESIS)


# --- place and values -------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    slices = make_slices(ramp(), directions=((0.6, 0.8, 0.0), (0.0, 0.0, -1.0)), origin=(1.23456789, -7.000001, 3))
    for index, one in enumerate(slices):
        one.SliceLocation = f"{index}.50"
    return save(slices, tmp_path / "source")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), straight=st.booleans(), orientation=st.sampled_from(["RAS", "LPI", "SAR", "PIL"]))
def test_the_way_there_and_back_is_exact(tmp_path_factory, seed, straight, orientation):
    """Any orientation, any order of the array's axes: places bit-equal, values equal."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    if straight:
        turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)[:, None]
    pixels = rng.integers(-1000, 30000, rng.integers(2, 7, 3), dtype=np.int16)
    base = tmp_path_factory.mktemp("round")
    slices = make_slices(pixels, directions=(turn[0], turn[1]), origin=rng.uniform(-99, 99, 3), spacing=(1.3, 0.7))
    original = read(save(slices[::-1], base / "source"))

    back = read(write(original.reorient(orientation), base / "derived"))

    assert np.array_equal(back.array, original.array)
    assert np.array_equal(back.grid.affine, original.grid.affine)
    by_height = sorted(slices, key=lambda one: float(np.dot(one.ImagePositionPatient, np.cross(turn[0], turn[1]))))
    for before, after in zip(by_height, headers(base / "derived"), strict=True):
        assert [raw(before, key) for key in PLACE] == [raw(after, key) for key in PLACE]


def test_simpleitk_finds_the_voxels_at_the_same_place(source, tmp_path):
    volume = as_ct(read(source))
    folder = write(volume.reorient("RAS"), tmp_path / "ct")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    assert np.abs(sitk.GetArrayFromImage(image).transpose(2, 1, 0) - volume.array).max() <= 0.5
    for index in ((0, 0, 0), (9, 0, 5), (3, 7, 2)):
        there = LPS_TO_RAS * image.TransformIndexToPhysicalPoint(index)
        assert volume.grid.to_world(index) == pytest.approx(there, abs=1e-3)


def test_dcm2niix_finds_the_voxels_at_the_same_place(source, tmp_path):
    dcm2niix = pytest.importorskip("dcm2niix", reason="dcm2niix is not installed")
    volume = as_ct(read(source))
    folder = write(volume, tmp_path / "ct")
    (tmp_path / "out").mkdir()
    subprocess.run([dcm2niix.bin, "-b", "n", "-o", tmp_path / "out", folder], check=True, capture_output=True)
    (path,) = (tmp_path / "out").iterdir()
    image = nibabel.as_closest_canonical(nibabel.load(path))
    ours = volume.reorient("RAS")
    assert np.abs(image.affine - ours.grid.affine).max() < 1e-3
    assert np.abs(image.get_fdata() - ours.array).max() <= 0.5


def test_values_without_a_header_go_onto_the_slices_of_like(source, tmp_path):
    like = read(source)
    bare = Volume(like.array, like.grid).reorient("SAR")
    back = read(write(bare, tmp_path / "mr", like=like))
    assert (back.modality, back.unit) == ("MR", "a.u.")
    assert np.array_equal(back.array, like.array)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda grid: Grid(grid.shape, grid.affine + _shift(0.5)), "0.5 mm apart"),
        (lambda grid: Grid((10, 8, 7), grid.affine), "their shapes differ"),
        (lambda grid: Grid(grid.shape, _turn(25) @ grid.affine), "mm apart"),
    ],
)
def test_another_grid_is_refused_and_both_are_named(source, tmp_path, change, why):
    like = read(source)
    grid = change(like.grid)
    with pytest.raises(GeometryError, match=why) as seen:
        write(Volume(np.zeros(grid.shape), grid), tmp_path / "out", like=like)
    assert like.grid.describe() in str(seen.value)
    assert not (tmp_path / "out").exists()


def _shift(x_mm: float) -> np.ndarray:
    shift = np.zeros((4, 4))
    shift[0, 3] = x_mm
    return shift


def _turn(degrees: float) -> np.ndarray:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    return turn


def test_a_real_series_comes_back_bit_equal(shared, tmp_path):
    folder = shared / "dicom" / "dcm_qa_decubitus" / "HFS_3_t1_fl2d_sag"
    original = read(folder)
    back = read(write(original.reorient("RAS"), tmp_path / "out"))
    assert np.array_equal(back.array, original.array)
    assert np.array_equal(back.grid.affine, original.grid.affine)
    normal = np.cross(*np.array(headers(folder)[0].ImageOrientationPatient, float).reshape(2, 3))
    before = sorted(headers(folder), key=lambda one: float(np.dot(one.ImagePositionPatient, normal)))
    for one, other in zip(before, headers(tmp_path / "out"), strict=True):
        assert [raw(one, key) for key in PLACE] == [raw(other, key) for key in PLACE]
        assert one.EchoTime == other.EchoTime
        assert one.PixelData == other.PixelData


# --- the header of a derived series -----------------------------------------------------------------------------------


@pytest.fixture
def pair(source, tmp_path):
    for path in source.iterdir():
        one = pydicom.dcmread(path)
        one.WindowCenter, one.WindowWidth = "1", "2"
        one.add_new("SmallestImagePixelValue", "US", 3)
        one.BurnedInAnnotation, one.PatientIdentityRemoved, one.DeidentificationMethod = "NO", "YES", "by hand"
        one.RequestAttributesSequence = [Dataset()]
        one.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"secret")
        one.save_as(path)
    folder = write(as_ct(read(source)), tmp_path / "ct", description="sCT of the brain")
    return headers(source), headers(folder)


def equal(*keys):
    return lambda before, after: all(before.get(key) == after.get(key) for key in keys)


def item(after, purpose):
    found = [
        one for one in after.ContributingEquipmentSequence if one.PurposeOfReferenceCodeSequence[0].CodeValue == purpose
    ]
    assert len(found) == 1
    return found[0]


RULES = {
    "new uids": lambda b, a: b.SOPInstanceUID != a.SOPInstanceUID and b.SeriesInstanceUID != a.SeriesInstanceUID,
    "valid uids": lambda b, a: UID(a.SOPInstanceUID).is_valid and UID(a.SeriesInstanceUID).is_valid,
    "meta": lambda b, a: (
        a.file_meta.MediaStorageSOPInstanceUID == a.SOPInstanceUID
        and a.file_meta.MediaStorageSOPClassUID == a.SOPClassUID
    ),
    "series number": lambda b, a: a.SeriesNumber not in (None, b.SeriesNumber),
    "moments": lambda b, a: a.SeriesDate == a.ContentDate == a.InstanceCreationDate > b.StudyDate,
    "patient": equal("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    "de-identification": equal("PatientIdentityRemoved", "DeidentificationMethod"),
    "study": equal(
        "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"
    ),
    "frame": equal("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined"),
    "place": equal(*PLACE),
    "identity": lambda b, a: (a.Modality, UID(a.SOPClassUID).name) == ("CT", "CT Image Storage"),
    "image type": lambda b, a: list(a.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"],
    "truth": lambda b, a: a.SyntheticData == "YES",
    "synthesizer": lambda b, a: (
        item(a, "109100").ManufacturerModelName == "pix2pix"
        and "ab" * 32 in item(a, "109100").ContributionDescription
        and item(a, "109100").SoftwareVersions == "0.1.0"
    ),
    "scanner": lambda b, a: item(a, "109101").ManufacturerModelName == "Scanner 3000",
    "maker": lambda b, a: (a.Manufacturer, a.SoftwareVersions) == ("medgan", __version__),
    "derivation": lambda b, a: all(
        word in a.DerivationDescription for word in ("pix2pix", "from MR", "[-1024, 3071]", "voxels")
    ),
    "source image": lambda b, a: (
        a.SourceImageSequence[0].ReferencedSOPInstanceUID == b.SOPInstanceUID
        and a.SourceImageSequence[0].ReferencedSOPClassUID == b.SOPClassUID
        and a.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    ),
    "source series": lambda b, a: (
        a.ReferencedSeriesSequence[0].SeriesInstanceUID == b.SeriesInstanceUID
        and a.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == b.SOPInstanceUID
    ),
    "pixels": lambda b, a: (
        (a.BitsAllocated, a.BitsStored, a.HighBit, a.PixelRepresentation, a.SamplesPerPixel) == (16, 16, 15, 1, 1)
        and a.PhotometricInterpretation == "MONOCHROME2"
    ),
    "rescale": lambda b, a: (a.RescaleIntercept, a.RescaleSlope, a.RescaleType) == (0, 1, "HU"),
    "clip": lambda b, a: a.pixel_array.min() >= -1024 and a.pixel_array.max() <= 3071,
    "window": lambda b, a: (a.WindowCenter, a.WindowWidth) == (40, 400),
    "nothing stale": lambda b, a: not {"SmallestImagePixelValue", "PixelPaddingValue"} & set(a.dir()),
    "no acquisition of the other kind": lambda b, a: not {"EchoTime", "ScanningSequence"} & set(a.dir()),
    "no requests": lambda b, a: "RequestAttributesSequence" not in a,
    "nothing private": lambda b, a: not any(element.tag.is_private for element in a.iterall()),
    "lossy": lambda b, a: a.LossyImageCompression == "00",
    "burned in": lambda b, a: a.BurnedInAnnotation == "NO",
    "a face": lambda b, a: a.RecognizableVisualFeatures == "YES",
    "empties": lambda b, a: all(key in a for key in ("KVP", "AcquisitionNumber")),
    "qualification": lambda b, a: a.ContentQualification == "RESEARCH",
    "label": lambda b, a: (
        a.SeriesDescription == "sCT of the brain, synthetic, not for diagnostic use"
        and a.ImageComments == "synthetic, not for diagnostic use"
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_of_a_derived_series(pair, rule):
    befores, afters = pair
    assert len(befores) == len(afters) == 6
    for before, after in zip(befores, afters, strict=True):
        assert RULES[rule](before, after)


def test_slices_are_numbered_along_the_normal_and_share_their_series(pair):
    _, afters = pair
    assert [one.InstanceNumber for one in afters] == [1, 2, 3, 4, 5, 6]
    assert len({one.SOPInstanceUID for one in afters}) == 6
    for key in ("SeriesInstanceUID", "SeriesNumber", "SeriesTime", "SeriesDescription"):
        assert len({str(one[key].value) for one in afters}) == 1
    normal = np.cross(*np.array(afters[0].ImageOrientationPatient, float).reshape(2, 3))
    heights = [float(np.dot(one.ImagePositionPatient, normal)) for one in afters]
    assert heights == sorted(heights)


def test_two_writings_share_no_uids(source, tmp_path):
    volume = as_ct(read(source))
    first, second = (headers(write(volume, tmp_path / name)) for name in "ab")
    uids = [{one.SOPInstanceUID for one in made} | {made[0].SeriesInstanceUID} for made in (first, second)]
    assert not uids[0] & uids[1]


def test_what_made_it_is_read_back(source, tmp_path):
    again = read(write(as_ct(read(source)), tmp_path / "ct"))
    assert again.synthetic == SYNTHESIS
    assert find_series(tmp_path / "ct")[0].synthetic


def test_what_is_made_from_synthetic_data_says_so_and_keeps_its_makers(source, tmp_path):
    first = read(write(as_ct(read(source)), tmp_path / "ct"))
    plain = Volume(first.array, first.grid, "HU", "CT")
    one = headers(write(plain, tmp_path / "copy", like=first))[0]
    assert one.SyntheticData == "YES"
    assert item(one, "109100").ManufacturerModelName == "pix2pix"
    second = first.with_array(first.array).marked(Synthesis("cyclegan"))
    two = headers(write(second, tmp_path / "second"))[0]
    makers = [one.ManufacturerModelName for one in two.ContributingEquipmentSequence]
    assert makers == ["Scanner 3000", "pix2pix", "cyclegan"]


def test_a_real_image_rewritten_bears_no_synthetic_marks(source, tmp_path):
    before, after = headers(source)[0], headers(write(read(source), tmp_path / "mr"))[0]
    assert "SyntheticData" not in after
    assert "synthetic" not in str(after).lower()
    assert list(after.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert equal("EchoTime", "RepetitionTime", "ScanningSequence")(before, after)
    assert "RescaleSlope" not in after
    assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID


def test_a_synthetic_mr_does_not_claim_the_sequence_of_its_source(source, tmp_path):
    after = headers(write(read(source).marked(SYNTHESIS), tmp_path / "mr"))[0]
    assert (after.ScanningSequence, after.EchoTime) == ("RM", None)


def test_lossy_stays_lossy(tmp_path):
    slices = make_slices(ramp(), LossyImageCompression="01", LossyImageCompressionRatio="10")
    after = headers(write(read(save(slices, tmp_path / "s")), tmp_path / "mr"))[0]
    assert (after.LossyImageCompression, after.LossyImageCompressionRatio) == ("01", 10)


def test_a_source_without_uids_still_gives_a_valid_series(tmp_path):
    slices = make_slices(ramp())
    for one in slices:
        del one.FrameOfReferenceUID, one.StudyInstanceUID, one.PatientName
    afters = headers(write(read(save(slices, tmp_path / "s")), tmp_path / "mr"))
    assert len({one.FrameOfReferenceUID for one in afters}) == len({one.StudyInstanceUID for one in afters}) == 1
    assert afters[0].PatientName == ""


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_an_age_that_is_none_does_not_come_along_but_places_and_studies_do(tmp_path):
    slices = make_slices(ramp(), PatientSize="1.70", StudyDescription="knee", StudyInstanceUID="1.02.3")
    long = ["-20.0000000000000001", "-30", "10.00000000000000001"]
    ignore = {"validation_mode": pydicom.config.IGNORE}
    slices[0]["ImagePositionPatient"] = pydicom.DataElement(0x00200032, "DS", long, **ignore)
    for one in slices:
        one["PatientAge"] = pydicom.DataElement(0x00101010, "AS", "0Y", **ignore)
    with pydicom.config.disable_value_validation():
        save(slices, tmp_path / "s")
    after = headers(write(read(tmp_path / "s"), tmp_path / "mr"))[0]
    assert "PatientAge" not in after
    assert after.StudyInstanceUID == "1.02.3"
    assert raw(after, "ImagePositionPatient") == long
    assert (after.PatientSize, after.StudyDescription) == (1.7, "knee")


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_names_keep_their_letters(tmp_path, charset):
    slices = make_slices(ramp(), SpecificCharacterSet=charset, PatientName="Müller^Jürgen")
    volume = read(save(slices, tmp_path / "s"))
    after = headers(write(volume, tmp_path / "mr", description="Größe 5 µm\\x" + "y" * 90))[0]
    assert str(after.PatientName) == "Müller^Jürgen"
    assert len(after.SeriesDescription.encode()) == 64
    assert after.SeriesDescription.startswith("Größe 5 µm/x" if charset == "ISO_IR 192" else "Gr??e 5 ?m/x")


# --- numbers ----------------------------------------------------------------------------------------------------------


def volume_of(values, modality="MR", unit="a.u."):
    array = np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)
    return Volume(array, Grid.regular(array.shape), unit, modality)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-(2.0**30), 2.0**30, width=32), min_size=2, max_size=20), st.floats(1e-6, 1), st.booleans())
def test_stored_mr_values_lose_less_than_a_thousandth_of_the_range(values, scale, whole):
    array = np.array(values, np.float32) * scale
    volume = volume_of(np.rint(array) if whole else array)
    kept = stored(volume, modality="MR", clip=True)
    back = kept.pixels.astype(float) * float(kept.slope)
    exact = volume.array.astype(np.float64)
    assert np.abs(back - exact).max() <= max(1e-3 * np.ptp(exact), np.abs(exact).max() / 32767)
    if kept.slope == "1" and whole:
        assert np.array_equal(back, volume.array)
    assert len(kept.slope) <= 16


def test_small_values_are_scaled_and_come_back(source, tmp_path):
    mr = read(source)
    small = mr.with_array(mr.array * np.float32(1e-3))
    folder = write(small, tmp_path / "mr")
    assert headers(folder)[0].RescaleType == "US"
    assert "scaled to 16 bits" in headers(folder)[0].DerivationDescription
    assert np.abs(read(folder).array - small.array).max() < 1e-5


def test_ct_is_rounded_to_hounsfield_units_and_clipped_where_synthetic():
    volume = volume_of([-5000, -1024.4, -0.6, 12.4, 3071, 9000], "CT", "HU")
    assert stored(volume, modality="CT", clip=True).pixels.ravel().tolist() == [-1024, -1024, -1, 12, 3071, 3071]
    assert stored(volume, modality="CT", clip=True).remark == "values clipped to [-1024, 3071] HU (3 voxels)"
    assert stored(volume, modality="CT", clip=False).pixels.ravel().tolist() == [-5000, -1024, -1, 12, 3071, 9000]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(source, tmp_path, bad):
    volume = as_ct(read(source))
    volume.array[1, 2, 3] = bad
    with pytest.raises(InputError, match="1 voxels are NaN or infinite"):
        write(volume, tmp_path / "ct")
    assert not (tmp_path / "ct").exists()


# --- scans without a source -------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), mirror=st.booleans())
def test_a_made_up_scan_lies_where_its_grid_says(tmp_path_factory, seed, mirror):
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix() * ([1, 1, -1] if mirror else [1, 1, 1])
    shape = tuple(int(n) for n in rng.integers(2, 7, 3))
    grid = Grid.regular(shape, spacing_mm=rng.uniform(0.3, 4, 3), origin_mm=rng.uniform(-99, 99, 3), direction=turn)
    volume = Volume(np.zeros(shape, np.int16), grid, "HU", "CT", Synthesis("phantom"))
    index = tuple(int(rng.integers(n)) for n in shape)
    volume.array[index] = 1000
    back = read(write(volume, tmp_path_factory.mktemp("made") / "ct", subject=Subject()))
    where = np.argwhere(back.array == 1000)
    assert len(where) == 1
    assert back.grid.to_world(where[0]) == pytest.approx(grid.to_world(index), abs=1e-6)
    assert back.synthetic == Synthesis("phantom")


def made_up(modality="CT", unit="HU"):
    rng = np.random.default_rng(0)
    grid = Grid.regular((12, 10, 5), spacing_mm=(1, 2, 3))
    return Volume(rng.normal(0, 300, grid.shape).astype(np.float32), grid, unit, modality, Synthesis("phantom"))


def test_scans_of_one_subject_share_study_and_frame(tmp_path):
    subject = Subject(patient_id="P7", patient_name="Phantom^Seven", sex="F")
    ct = headers(write(made_up(), tmp_path / "ct", subject=subject))[0]
    mr = headers(write(made_up("MR", "a.u."), tmp_path / "mr", subject=subject))[0]
    keys = ("PatientID", "PatientName", "PatientSex", "StudyInstanceUID", "StudyTime", "FrameOfReferenceUID")
    assert equal(*keys)(ct, mr)
    assert (ct.PatientID, ct.PatientSex) == ("P7", "F")
    assert ct.SeriesInstanceUID != mr.SeriesInstanceUID
    assert ct.SyntheticData == "YES"
    assert list(ct.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert "SourceImageSequence" not in ct


def test_a_sheared_grid_is_refused(tmp_path):
    affine = np.eye(4)
    affine[1, 2] = 0.2
    volume = Volume(np.zeros((3, 3, 3)), Grid((3, 3, 3), affine), "HU", "CT")
    with pytest.raises(GeometryError, match="right angles"):
        write(volume, tmp_path / "ct", subject=Subject())


def test_neither_source_nor_subject_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"pass the source series \(like\), or a subject"):
        write(made_up(), tmp_path / "ct")
    with pytest.raises(InputError, match="was not read from DICOM"):
        write(made_up(), tmp_path / "ct", like=made_up())


def test_source_and_subject_together_are_refused(source, tmp_path):
    with pytest.raises(InputError, match="both a source series"):
        write(read(source), tmp_path / "mr", like=read(source), subject=Subject())


@pytest.mark.parametrize(
    ("modality", "unit", "why"),
    [
        ("US", "a.u.", "modality 'US' cannot be written as DICOM; accepted are CT, MR, PT"),
        ("", "a.u.", "modality '' cannot"),
        ("CT", "a.u.", "this CT volume is in 'a.u.'; DICOM's CT is in HU"),
        ("MR", "label", "'label'"),
    ],
)
def test_what_dicom_has_no_place_for_is_refused(tmp_path, modality, unit, why):
    with pytest.raises(InputError, match=why):
        write(made_up(modality, unit), tmp_path / "out", subject=Subject())


def test_a_full_folder_is_left_alone(source, tmp_path):
    with pytest.raises(OutputError, match="something in it"):
        write(read(source), source)
    assert len(list(source.iterdir())) == 6


# --- validators -------------------------------------------------------------------------------------------------------


def written(kind: str, source: Path, base: Path) -> Path:
    mr = read(source)
    pet = mr.with_array(mr.array * np.float32(10.5), unit="Bq/ml", modality="PT")
    volumes = {
        "CT from MR": as_ct(mr),
        "MR rewritten": mr,
        "MR from MR": mr.marked(SYNTHESIS),
        "PET from MR": pet.marked(SYNTHESIS),
    }
    if kind in volumes:
        return write(volumes[kind], base / "out")
    volume = made_up() if kind == "CT made up" else made_up("MR", "a.u.")
    return write(volume, base / "out", subject=Subject())


KINDS = ["CT from MR", "MR rewritten", "MR from MR", "PET from MR", "CT made up", "MR made up"]


@pytest.mark.parametrize("kind", KINDS)
def test_all_attributes_that_the_standard_demands_are_there(source, tmp_path, kind):
    """Types 1 and 2 of the mandatory modules, after the tables that highdicom carries."""
    found = importlib.util.find_spec("highdicom")
    if found is None or found.origin is None:
        pytest.skip("highdicom, whose tables of the standard this test uses, is not installed")
    tables = Path(found.origin).parent / "_standard"
    modules, attributes, classes = (
        json.loads((tables / f"{name}.json").read_text())
        for name in ("iod_module_map", "module_attribute_map", "sop_class_iod_map")
    )
    checked = 0
    for one in headers(written(kind, source, tmp_path)):
        for module in modules[classes[one.SOPClassUID]]:
            rows = [row for row in attributes[module["key"]] if module["usage"] == "M" and not row["path"]]
            for row in rows:
                if row["type"] in {"1", "2"}:
                    assert row["keyword"] in one, f"{module['key']}: {row['keyword']} is absent"
                    checked += 1
                if row["type"] == "1":
                    assert one[row["keyword"]].value not in ("", None, []), f"{row['keyword']} is empty"
    assert checked > 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(source, tmp_path, kind):
    for path in sorted(written(kind, source, tmp_path).iterdir()):
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        # SyntheticData is newer than Debian's dciodvfy.
        errors = [line for line in lines if line.startswith("Error") and "(0x0008,0x001c)" not in line]
        assert errors == []
        assert any("Image" in line for line in lines)


@pytest.mark.skipif(shutil.which("dcentvfy") is None, reason="dcentvfy (Debian package dicom3tools) is not installed")
def test_dcentvfy_finds_source_and_derived_series_consistent(source, tmp_path):
    folder = written("CT from MR", source, tmp_path)
    files = [str(path) for path in (*source.iterdir(), *folder.iterdir())]
    done = subprocess.run(["dcentvfy", *files], capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr).strip() == ""


def test_normalised_mr_says_so_and_comes_back_so(tmp_path: Path) -> None:
    grid = Grid.regular((6, 5, 4), spacing_mm=(1, 1, 3))
    values = np.linspace(0, 2500, 120).reshape(6, 5, 4).astype(np.float32)
    mark = Synthesis("pix2pix", "ab" * 32, "0.1.0", "CT to MR")
    volume = Volume(values, grid, "normalised", "MR", mark)
    back = read(write(volume, tmp_path / "mr", subject=Subject()))
    assert (back.unit, back.modality, back.synthetic) == ("normalised", "MR", mark)
    turned = back.reorient(grid.orientation)
    assert np.abs(turned.array - values).max() <= 1.3
