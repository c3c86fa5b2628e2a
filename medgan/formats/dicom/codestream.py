"""What a compressed picture says of its own size, told without decoding it.

A decoder believes the codestream, not the file around it: where that is damaged and claims no height, or a thousand
times the width, it takes all memory there is before it gives up, and some end the whole process. Hence this look.

Source: ITU-T T.81 B.2.2 (JPEG, frame header), T.87 C.2.2 (JPEG-LS), T.800 A.5.1 (JPEG 2000, image and tile size).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import RLELossless

from medgan.formats.dicom.elements import number, stored_bytes

__all__ = ["check_frames", "stated_matrix"]

_JPEG, _JPEG_2000, _JP2 = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_SCAN, _FILL = 0xDA, 0xFF


def check_frames(dataset: Dataset) -> None:
    """Compare the size that compressed pictures state with Rows and Columns.

    Raises:
        ValueError: if one of them states another.
    """
    if not dataset.file_meta.TransferSyntaxUID.is_compressed or dataset.file_meta.TransferSyntaxUID == RLELossless:
        return
    matrix = tuple(int(number(dataset, key) or 0) for key in ("Rows", "Columns"))
    for frame in _frames(dataset):
        if frame.startswith((_JPEG, _JPEG_2000, _JP2)) and stated_matrix(frame) != matrix:
            raise ValueError(f"a compressed picture of {stated_matrix(frame)} in a file of {matrix} pixels")


def stated_matrix(frame: bytes) -> tuple[int, int] | None:
    """The rows and columns of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it does not tell.

    Example:
        >>> stated_matrix(bytes.fromhex("ffd8 fff7 000b 08 0040 0030 01 01 11 00"))
        (64, 48)
    """
    try:
        return _of_jpeg(frame) if frame.startswith(_JPEG) else _of_jpeg_2000(frame)
    except struct.error:
        return None


def _of_jpeg(frame: bytes) -> tuple[int, int] | None:
    found = next((at for at, marker in _segments(frame) if marker in _FRAME_HEADERS), None)
    if found is None:
        return None
    rows, columns = struct.unpack_from(">2H", frame, found + 5)
    return rows, columns


def _of_jpeg_2000(frame: bytes) -> tuple[int, int] | None:
    start = _in_boxes(frame) if frame.startswith(_JP2) else 0
    if not frame.startswith(_JPEG_2000, start):
        return None
    right, bottom, left, top = struct.unpack_from(">4L", frame, start + 8)
    return bottom - top, right - left


def _in_boxes(frame: bytes) -> int:
    """Where the codestream starts in a JP2 file; its length where it does not, as where a box has no length."""
    at = 12
    while at < len(frame):
        length, kind = struct.unpack_from(">L4s", frame, at)
        if kind == b"jp2c":
            return at + 8
        at = at + length if length else len(frame)
    return at


def _frames(dataset: Dataset) -> Iterator[bytes]:
    count = max(1, int(number(dataset, "NumberOfFrames") or 1))
    return generate_frames(stored_bytes(dataset, "PixelData"), number_of_frames=count)


def _segments(frame: bytes) -> Iterator[tuple[int, int]]:
    """Where the segments before the first scan start, and their markers."""
    at = 2
    while at + 4 <= len(frame) and frame[at] == _FILL and frame[at + 1] != _SCAN:
        marker = frame[at + 1]
        if marker == _FILL:
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            yield at, marker
            at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
