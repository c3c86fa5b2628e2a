"""Several pictures in one file: enhanced multi-frame objects, mosaics, doses; and what is made of odd sources."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from dicom_folders import SAGITTAL, joined, leaning, make_slices, ramp, save, texts
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedMRImageStorage

from medgan.errors import DicomError
from medgan.formats.dicom import find_series, read, read_volumes, write
from medgan.lint import lint
from medgan.volume import Synthesis

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def as_array(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(pixels).transpose(2, 1, 0)


# --- multi-frame ------------------------------------------------------------------------------------------------------


def enhanced(slices: list[Dataset], order: list[int]) -> Dataset:
    """The slices as frames of one object, in this order."""
    one = Dataset()
    one.update(slices[0])
    for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "EchoTime"):
        del one[key]
    one.SOPClassUID, one.NumberOfFrames = EnhancedMRImageStorage, len(order)
    shared = Dataset()
    shared.PlaneOrientationSequence = Items([item(slices[0], "ImageOrientationPatient")])
    shared.PixelMeasuresSequence = Items([item(slices[0], "PixelSpacing", "SliceThickness")])
    one.SharedFunctionalGroupsSequence = Items([shared])
    one.PerFrameFunctionalGroupsSequence = Items([_groups(slices[index], index) for index in order])
    one.add_new("PixelData", "OW", b"".join(slices[index].PixelData for index in order))
    return one


def item(source: Dataset, *keys: str) -> Dataset:
    made = Dataset()
    for key in keys:
        made[key] = source[key]
    return made


def _groups(source: Dataset, index: int) -> Dataset:
    groups, values, echo, content = Dataset(), Dataset(), Dataset(), Dataset()
    groups.PlanePositionSequence = Items([item(source, "ImagePositionPatient")])
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = str(1 + index), "-3", "US"
    groups.PixelValueTransformationSequence = Items([values])
    echo.EffectiveEchoTime = float(source.EchoTime)
    groups.MREchoSequence = Items([echo])
    content.TemporalPositionIndex, content.StackID = int(source.get("AcquisitionNumber", 1)), "1"
    groups.FrameContentSequence = Items([content])
    return groups


def test_frames_lie_where_their_groups_say(tmp_path):
    slices = make_slices(ramp())
    order = [3, 0, 5, 1, 4, 2]
    save([enhanced(slices, order)], tmp_path)
    volume = read(tmp_path)
    expected = ramp() * (1.0 + np.arange(6))[:, None, None] - 3
    assert np.array_equal(volume.array, as_array(expected).astype(np.float32))
    assert volume.grid.spacing_mm == pytest.approx((1.0, 1.5, 2.5))
    assert volume.grid.to_world([0, 0, 0]) == pytest.approx(LPS_TO_RAS * (-20, -30, 10))


def test_frames_of_several_times_and_echoes(tmp_path):
    groups = [
        make_slices(ramp() + 1000 * (2 * echo + time), EchoTime=str(10 + echo), AcquisitionNumber=str(time + 1))
        for time in range(2)
        for echo in range(2)
    ]
    made = enhanced(joined(*groups), list(range(24))[::-1])
    for groups_of_frame in made.PerFrameFunctionalGroupsSequence:
        del groups_of_frame.PixelValueTransformationSequence
    save([made], tmp_path)
    found = find_series(tmp_path)
    assert [(one.labels, one.num_volumes) for one in sorted(found, key=lambda one: one.labels)] == [
        (("e1",), 2),
        (("e2",), 2),
    ]
    first = next(one for one in found if one.labels == ("e1",))
    assert [int(volume.array.min()) for volume in read_volumes(first)] == [0, 1000]


def test_frames_whose_temporal_position_says_nothing(tmp_path):
    """Canon numbers every frame 1: then their order in the file counts, and is said."""
    slices = joined(make_slices(ramp()), make_slices(ramp() + 1000))
    made = enhanced(slices, list(range(12)))
    for groups in made.PerFrameFunctionalGroupsSequence:
        del groups.PixelValueTransformationSequence
    (found,) = find_series(save([made], tmp_path))
    assert (found.num_volumes, found.notes) == (2, ("2 volumes, told apart by InstanceNumber",))
    assert [int(volume.array.min()) for volume in read_volumes(found)] == [0, 1000]


def test_a_file_for_each_moment(tmp_path):
    """Siemens XA writes every volume of an fMRI as an enhanced object of its own."""
    groups = [make_slices(ramp() + 1000 * n, AcquisitionNumber="1") for n in range(3)]
    joined(*groups)
    made = [enhanced(slices, [2, 0, 1, 3, 5, 4]) for slices in groups]
    for number, one in enumerate(made, start=1):
        one.InstanceNumber = number
        for frame in one.PerFrameFunctionalGroupsSequence:
            del frame.PixelValueTransformationSequence
    (found,) = find_series(save(made[::-1], tmp_path))
    assert (found.num_slices, found.num_volumes) == (6, 3)
    assert [int(volume.array.min()) for volume in read_volumes(found)] == [0, 1000, 2000]
    assert np.array_equal(read_volumes(found)[1].array, as_array(ramp() + 1000))


def test_another_number_of_frames_than_described_is_damage(tmp_path):
    made = enhanced(make_slices(ramp()), list(range(6)))
    made.NumberOfFrames = 7
    save([made], tmp_path)
    with pytest.raises(DicomError, match=r"000\.dcm: its header is damaged"):
        read(tmp_path)


def test_a_derived_series_of_frames_names_its_frames(tmp_path):
    save([enhanced(make_slices(ramp()), [3, 0, 5, 1, 4, 2])], tmp_path / "source")
    volume = read(tmp_path / "source")
    made = write(volume.marked(Synthesis("pix2pix")), tmp_path / "made")
    files = [pydicom.dcmread(path) for path in sorted(made.iterdir())]
    assert [one.SourceImageSequence[0].ReferencedFrameNumber for one in files] == [2, 4, 6, 1, 5, 3]
    assert np.abs(read(made).array - volume.array).max() < 0.01


# --- tiles and planes ------------------------------------------------------------------------------------------------


def uih_vframe(pixels: np.ndarray, *, gap: float = 3.5) -> Dataset:
    """United Imaging's mosaic: the header of each tile stands in a private sequence."""
    across = int(np.ceil(np.sqrt(len(pixels))))
    sheet = np.zeros((across * 8, across * 10), np.uint16)
    for index, picture in enumerate(pixels):
        row, column = divmod(index, across)
        sheet[8 * row : 8 * row + 8, 10 * column : 10 * column + 10] = picture
    (one,) = make_slices(sheet[None], directions=SAGITTAL, gap=gap, ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"])
    one.Manufacturer = "UIH"
    normal = np.cross(*SAGITTAL)
    headers = [Dataset() for _ in pixels]
    for index, header in enumerate(headers):
        header.ImagePositionPatient = texts(np.array([5.0, -30.0, 40.0]) - index * gap * normal)
    block = one.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", str(len(pixels)))
    block.add_new(0x51, "SQ", headers)
    return one


def test_tiles_of_united_imaging_lie_where_their_own_headers_say(tmp_path):
    pixels = ramp(7)
    volume = read(save([uih_vframe(pixels)], tmp_path))
    assert volume.array.shape == (10, 8, 7)
    normal = np.cross(*SAGITTAL)
    for index, picture in enumerate(pixels):
        world = (np.array([5.0, -30.0, 40.0]) - index * 3.5 * normal) * LPS_TO_RAS
        place = volume.grid.to_index(world)
        assert place == pytest.approx([0, 0, round(place[2])], abs=1e-6)
        assert np.array_equal(volume.array[:, :, round(place[2])], picture.T)


@pytest.mark.parametrize("lost", ["count", "headers"])
def test_tiles_without_their_headers_are_refused(tmp_path, lost):
    one = uih_vframe(ramp(7))
    block = one.private_block(0x0065, "Image Private Header")
    del block[0x50 if lost == "count" else 0x51]
    with pytest.raises(DicomError, match="a mosaic"):
        read(save([one], tmp_path))


def test_planes_of_a_dose_lie_at_their_offsets_in_gray(tmp_path):
    (one,) = make_slices(ramp(1))
    one.SOPClassUID, one.Modality, one.DoseUnits, one.DoseGridScaling = (
        "1.2.840.10008.5.1.4.1.1.481.2",
        "RTDOSE",
        "GY",
        "0.01",
    )
    one.NumberOfFrames, one.GridFrameOffsetVector = 4, ["0", "-2", "-4", "-6"]
    one.PixelData = ramp(4).tobytes()
    volume = read(save([one], tmp_path))
    assert (volume.unit, volume.modality, volume.grid.spacing_mm) == ("Gy", "RTDOSE", pytest.approx((1.0, 1.5, 2.0)))
    lowest = volume.grid.to_index(np.array([-20.0, -30.0, 10.0 - 6]) * LPS_TO_RAS)
    assert lowest == pytest.approx([0, 0, 0], abs=1e-6)
    assert volume.array == pytest.approx(ramp(4)[::-1].transpose(2, 1, 0) * 0.01)


@pytest.mark.parametrize("kind", ["tilt", "uneven", "enhanced", "mosaic"])
def test_what_is_made_of_odd_sources_is_valid(tmp_path, kind):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian's dicom3tools) is not installed")
    sources = {
        "tilt": leaning,
        "uneven": lambda: leaning(0, heights=[0, 1.1, 3.5, 7.2, 10.0]),
        "enhanced": lambda: [enhanced(make_slices(ramp()), [3, 0, 5, 1, 4, 2])],
        "mosaic": lambda: [uih_vframe(ramp(7))],
    }
    volume = read(save(sources[kind](), tmp_path / "source"))
    ct = volume.with_array(volume.array.astype(np.float32), unit="HU", modality="CT").marked(Synthesis("pix2pix"))
    made = write(ct, tmp_path / "made")
    for path in sorted(made.iterdir()):
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error") and "0x0008,0x001c" not in line]
        assert errors == []
    verdict = lint(made, source=tmp_path / "source")
    assert [one for one in verdict.complaints if one.severity == "error"] == []
