"""Plain files, read fast: little endian, not compressed, one picture. Everything else is left to pydicom.

Most files are plain, and a folder has thousands: what is needed of a header is found by stepping over the elements of
the outermost level, which takes a tenth of the time that a general reader does.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

__all__ = ["Plain", "Scanned", "scan"]

Array = npt.NDArray[Any]
Content = bytes | mmap
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"}
_SHORT |= {b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
_META = (0x0002, 0x0010)
_PIXELS = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_OPEN = 0xFFFFFFFF
# Where vendors count the tiles of a mosaic, and GE says which part of a complex number is shown.
_PRIVATE, _ASKED = {0x0019, 0x0043, 0x0065}, {0x0A, 0x2F, 0x50}
_element, _length = struct.Struct("<HH2sH"), struct.Struct("<L")
_implicit = struct.Struct("<HHL")


@dataclass(frozen=True)
class Plain:
    """Where the pixels of a plain file lie, and how they are stored.

    Args:
        offset: of the first byte, from the start of the file.
        bits: that a value takes.
        bits_stored: that count; those above are cleared.
        signed: True for two's complement.
    """

    offset: int
    bits: int
    bits_stored: int
    signed: bool

    def read(self, path: Path, rows: int, columns: int) -> Array:
        """(rows, columns) integers, as stored.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it ends too early.
        """
        kind = np.dtype(f"<{'i' if self.signed else 'u'}{self.bits // 8}")
        with path.open("rb") as file:
            file.seek(self.offset)
            stored = np.frombuffer(file.read(rows * columns * kind.itemsize), kind).reshape(rows, columns)
        unused = self.bits - self.bits_stored
        return np.asarray((stored << unused) >> unused) if unused else stored


@dataclass(frozen=True)
class Scanned:
    """The short elements of a plain file's outermost level, and where its pixels begin.

    Args:
        dataset: of the wanted elements, without sequences.
        offset: of the pixels, from the start of the file.
        length: of the pixels in bytes, as stated.
    """

    dataset: Dataset
    offset: int
    length: int


def scan(content: Content, wanted: Collection[int], unwanted: Collection[int]) -> Scanned | None:
    """What a file tells; None where it is not plain or is damaged.

    Args:
        content: the whole file.
        wanted: tags of the elements to keep.
        unwanted: tags of elements that make a file anything but plain.
    """
    try:
        syntax, start = _meta(content)
        if syntax not in {ExplicitVRLittleEndian, ImplicitVRLittleEndian}:
            return None
        return _scanned(content, start, syntax == ExplicitVRLittleEndian, wanted, unwanted)
    except (struct.error, ValueError, RecursionError):
        return None


def _meta(content: Content) -> tuple[str, int]:
    """The transfer syntax, and where the dataset starts; the group before it is always explicit."""
    if content[128:132] != b"DICM":
        raise ValueError("no file meta information")
    place, syntax = 132, ""
    while _implicit.unpack_from(content, place)[0] == 2:
        group, element, vr, length = _element.unpack_from(content, place)
        head = 12 if vr in _LONG else 8
        length = _length.unpack_from(content, place + 8)[0] if vr in _LONG else length
        if (group, element) == _META:
            syntax = content[place + head : place + head + length].decode("ascii").strip(" \0")
        place += head + length
    return syntax, place


def _scanned(
    content: Content, place: int, explicit: bool, wanted: Collection[int], unwanted: Collection[int]
) -> Scanned | None:
    last = 0
    kept: dict[BaseTag, Any] = {}
    while True:
        tag, vr, length, start = _next(content, place, explicit)
        if tag == _PIXELS:
            break
        if tag <= last or tag > _PIXELS or tag in unwanted:
            return None
        last = tag
        if length == _OPEN or vr == b"SQ":
            place = _after(content, start, length, explicit)
            continue
        place = start + length
        if tag in wanted or (tag >> 16 in _PRIVATE and (tag & 0xFF00 == 0 or tag & 0xFF in _ASKED)):
            name = vr.decode("ascii") if explicit else None
            value = content[start:place]
            kept[BaseTag(tag)] = RawDataElement(BaseTag(tag), name, length, value, start, not explicit, True, True)
    if place > len(content):
        return None
    dataset = Dataset(kept)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian)
    return None if length == _OPEN else Scanned(dataset, start, length)


def _next(content: Content, place: int, explicit: bool) -> tuple[int, bytes, int, int]:
    """Tag, value representation, length and place of the value of the element at a place."""
    if not explicit:
        group, element, length = _implicit.unpack_from(content, place)
        return group << 16 | element, b"", length, place + 8
    group, element, vr, length = _element.unpack_from(content, place)
    if vr in _SHORT:
        return group << 16 | element, vr, length, place + 8
    if vr not in _LONG:
        raise ValueError("an unknown value representation")
    return group << 16 | element, vr, _length.unpack_from(content, place + 8)[0], place + 12


def _after(content: Content, start: int, length: int, explicit: bool) -> int:
    """The place behind a sequence; one of open length has to be walked."""
    if length != _OPEN:
        return start + length
    place = start
    while True:
        group, element, item_length = _implicit.unpack_from(content, place)
        tag, place = group << 16 | element, place + 8
        if tag == _SEQUENCE_END:
            return place
        if tag != _ITEM:
            raise ValueError("no item in a sequence")
        place = place + item_length if item_length != _OPEN else _after_item(content, place, explicit)


def _after_item(content: Content, place: int, explicit: bool) -> int:
    while True:
        group, element, _ = _implicit.unpack_from(content, place)
        if group << 16 | element == _ITEM_END:
            return place + 8
        _, vr, length, start = _next(content, place, explicit)
        place = _after(content, start, length, explicit) if length == _OPEN or vr == b"SQ" else start + length
