"""Damage that once escaped as another error, hung, or took all memory: each case is told in a line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_damage import places, with_value
from dicom_folders import make_slices, ramp, save, save_one
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from medgan.errors import DicomError
from medgan.formats.dicom import read
from medgan.formats.dicom.codestream import check_frames, stated_matrix
from medgan.inspect import inspect
from medgan.lint import lint

GREY = Image.fromarray(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64))


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    GREY.save(stream, kind, **options)
    return stream.getvalue()


FRAMES = {
    "JPEG": encoded("JPEG"),
    "progressive JPEG": encoded("JPEG", progressive=True),
    "JP2": encoded("JPEG2000"),
    "JPEG 2000": encoded("JPEG2000", no_jp2=True),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_codestream_tells_its_size(frame: bytes) -> None:
    assert stated_matrix(frame) == (48, 64)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_codestream_that_is_cut_tells_no_wrong_size(frame: bytes) -> None:
    told = {stated_matrix(frame[:length]) for length in range(0, len(frame), 3)}
    assert told == {None, (48, 64)}


ENCODED = ("JPEG-LL.dcm", "JPEG-lossy.dcm", "JPEG2000.dcm", "JPGExtended.dcm", "MR_small_jpeg_ls_lossless.dcm")
ENCODED += ("SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_gdcm_KY.dcm", "693_J2KR.dcm", "US1_J2KI.dcm", "color3d_jpeg_baseline.dcm")


@pytest.mark.parametrize("name", ENCODED)
def test_the_pictures_of_other_encoders_have_the_size_of_their_files(name: str) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} is not among the files that came with pydicom")
    dataset = pydicom.dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID.is_compressed
    check_frames(dataset)
    dataset.Columns += 1
    with pytest.raises(ValueError, match="a compressed picture of"):
        check_frames(dataset)


def of_codestream(frame: bytes, path: Path, syntax: str) -> Path:
    one = make_slices(np.zeros((1, 48, 64), np.uint16))[0]
    one.BitsAllocated, one.BitsStored, one.HighBit = 8, 8, 7
    one.PixelData = encapsulate([frame])
    one["PixelData"].VR = "OB"
    return save_one(one, path, syntax=syntax)


def test_a_jpeg_is_read(tmp_path: Path) -> None:
    volume = read(of_codestream(FRAMES["JPEG"], tmp_path / "one.dcm", JPEGBaseline8Bit))
    assert np.abs(volume.array[:, :, 0].T.astype(int) - np.asarray(GREY)).max() <= 16


@pytest.mark.parametrize("rows", [b"\0\0", b"\xff\xff"])
def test_a_jpeg_of_another_height_is_refused_before_it_takes_all_memory(tmp_path: Path, rows: bytes) -> None:
    frame = FRAMES["JPEG"].replace(b"\x08\0\x30\0\x40", b"\x08" + rows + b"\0\x40")
    assert frame != FRAMES["JPEG"]
    refused(of_codestream(frame, tmp_path / "one.dcm", JPEGBaseline8Bit))


def test_a_box_without_a_length_does_not_hang(tmp_path: Path) -> None:
    """pydicom walks over the boxes of a JP2 file without an end where one of them has the length 0."""
    frame = FRAMES["JP2"]
    refused(of_codestream(frame[:12] + bytes(4) + frame[16:], tmp_path / "one.dcm", JPEG2000Lossless))


def test_compressed_pixels_without_a_frame_are_refused(tmp_path: Path) -> None:
    one = make_slices(ramp(1))[0]
    one.PixelData = encapsulate([b"1234"])
    path = save_one(one, tmp_path / "one.dcm", syntax=RLELossless)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\xfe\xff\x00\xe0")] + b"\xfe\xff\xdd\xe0\0\0\0\0")
    refused(path)


def refused(path: Path) -> None:
    with pytest.raises(DicomError, match="cannot be decoded"):
        read(path)
    verdict = lint(path)
    assert verdict.num_files == 1
    assert "undecodable" in {one.rule for one in verdict.complaints}


def test_a_unit_that_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    """RescaleType as a number of eight bytes that has two."""
    save(make_slices(ramp(), modality="CT"), tmp_path)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        place = next(one for one in places(content) if content[one.start :].startswith(b"\x28\0\x54\x10LO"))
        path.write_bytes(with_value(content, place, b"HU", "UV"))
    with pytest.raises(DicomError, match="its header is damaged"):
        read(tmp_path)
    (finding,) = inspect(tmp_path)
    assert "its header is damaged" in finding.error
