"""Plain files, read fast: little endian, not compressed, one picture. Everything else is left to pydicom.

Most files are plain, and a folder has thousands: what is needed of a header is found by stepping over the elements of
the outermost level, which takes a tenth of the time that a general reader does. Files of a series say the same over
long runs of elements, byte by byte; such a run is stepped over as one.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

__all__ = ["Plain", "Runs", "Scanned", "scan"]

Array = npt.NDArray[Any]
Content = bytes | mmap
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"}
_SHORT |= {b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
_META = (0x0002, 0x0010)
_SYNTAXES: dict[str, UID] = {uid: uid for uid in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)}
_PIXELS = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_OPEN = 0xFFFFFFFF
_PIECE, _LONG_PIECE = 16, 4096  # elements and bytes
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
        elements: value representation (None where the file does not tell) and bytes of the wanted elements by tag; no
            sequences.
        syntax: the transfer syntax.
        offset: of the pixels, from the start of the file.
        length: of the pixels in bytes, as stated.
    """

    elements: Mapping[int, tuple[str | None, bytes]]
    syntax: UID
    offset: int
    length: int

    def dataset(self) -> Dataset:
        """The elements as pydicom knows them."""
        dataset = self.only(self.elements)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = self.syntax
        return dataset

    def only(self, tags: Collection[int]) -> Dataset:
        """Those of some tags, without the transfer syntax."""
        return Dataset({BaseTag(tag): self._element(BaseTag(tag)) for tag in self.elements if tag in tags})

    def _element(self, tag: BaseTag) -> RawDataElement:
        vr, value = self.elements[tag]
        return RawDataElement(tag, vr, len(value), value, 0, self.syntax.is_implicit_VR, True, True)


class Run(NamedTuple):
    """Elements that follow one another in a file and are not wanted: their bytes, and the tag of the last."""

    said: bytes
    last: int


Runs = dict[int, Run]  # by the tag of the first


def scan(content: Content, wanted: Collection[int], unwanted: Collection[int], seen: dict[UID, Runs]) -> Scanned | None:
    """What a file tells; None where it is not plain or is damaged.

    Args:
        content: the whole file.
        wanted: tags of the elements to keep.
        unwanted: tags of elements that make a file anything but plain.
        seen: runs of the files before, by transfer syntax; those of this file are added.
    """
    try:
        name, start = _meta(content)
        syntax = _SYNTAXES.get(name)
        if syntax is None:
            return None
        return _scanned(_Passed(content, seen.setdefault(syntax, {})), start, syntax, wanted, unwanted)
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
    passed: _Passed, place: int, syntax: UID, wanted: Collection[int], unwanted: Collection[int]
) -> Scanned | None:
    content, runs, last = passed.content, passed.runs, 0
    explicit, kept = syntax == ExplicitVRLittleEndian, {}
    while True:
        tag, vr, length, start = _next(content, place, explicit)
        if tag <= last or tag > _PIXELS or tag in unwanted:
            return None
        if tag == _PIXELS:
            break
        run = runs.get(tag)
        if run is not None and content[place : place + len(run.said)] == run.said:
            passed.close()
            place, last = place + len(run.said), run.last
            continue
        is_nested, last = length == _OPEN or vr == b"SQ", tag
        end = _after(content, start, length, explicit) if is_nested else start + length
        if not is_nested and (tag in wanted or _is_asked(tag)):
            passed.close()
            kept[tag] = (vr.decode("ascii") if explicit else None, content[start:end])
        else:
            passed.add(tag, place, end)
        place = end
    passed.close()
    return None if length == _OPEN or place > len(content) else Scanned(kept, syntax, start, length)


def _is_asked(tag: int) -> bool:
    return tag >> 16 in _PRIVATE and (tag & 0xFF00 == 0 or tag & 0xFF in _ASKED)


@dataclass
class _Passed:
    """The run of elements that is being passed over, in short pieces: one other byte costs one of them."""

    content: Content
    runs: Runs
    first: int = 0
    last: int = 0
    start: int = 0
    end: int = 0
    count: int = 0

    def add(self, tag: int, start: int, end: int) -> None:
        if not self.count:
            self.first, self.start = tag, start
        self.last, self.end, self.count = tag, end, self.count + 1
        if self.count == _PIECE or end - self.start > _LONG_PIECE:
            self.close()

    def close(self) -> None:
        if self.count and self.end - self.start <= _LONG_PIECE and self.end <= len(self.content):
            self.runs[self.first] = Run(self.content[self.start : self.end], self.last)
        self.count = 0


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
