"""Damage to the elements of DICOM files, by a seed: a case is the same on every day and every machine."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from dicom_mutations import NUMBERS, TEXTS, content_of
from pydicom import DataElement
from pydicom.uid import UID

_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}  # VRs with 4 bytes of length
_ITEMS = 0xFFFE
_UNDEFINED = 0xFFFFFFFF
_VRS = ("AT", "CS", "DA", "DS", "FD", "IS", "LO", "OB", "OW", "PN", "SQ", "UI", "UL", "UN", "US", "ZZ")
_MOMENTS = {"DA": "20200102", "TM": "101112", "DT": "20200102101112"}
_WORDS = ("YES", "MIXED", "ISO_IR 192", "RGB", "1e308\\-1e308\\1e308", "\xff\xff", "\xff\xff\xff\xff")
_VALUES = (*NUMBERS, *TEXTS, *_WORDS)


@dataclass(frozen=True)
class Place:
    """Where an element lies in a file of explicit VR, little endian; the value of a sequence is elements of their own.

    Args:
        start: its first byte.
        value: the first byte of its value.
        end: the first byte of what follows.
        vr: as it is stored.
    """

    start: int
    value: int
    end: int
    vr: str


Damage = Callable[[bytes, Place, random.Random], bytes]


# --- files that are always the same -----------------------------------------------------------------------------------


def steady(folder: Path, known: dict[str, str]) -> list[bytes]:
    """The files of a folder with fixed moments, and UIDs that only hang on the order in which they appear.

    Args:
        folder: of explicit VR, little endian.
        known: the UIDs that were given so far; it grows.
    """
    datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    for dataset in datasets:
        for element in dataset.iterall():
            _fix(element, known)
    return [content_of(dataset) for dataset in datasets]


def _fix(element: DataElement, known: dict[str, str]) -> None:
    if element.VR == "UI" and element.value and UID(element.value).name == element.value:
        element.value = known.setdefault(element.value, f"1.2.3.{100 + len(known)}")
    if element.VR in _MOMENTS and element.value:
        element.value = _MOMENTS[element.VR]


# --- elements ---------------------------------------------------------------------------------------------------------


def places(content: bytes) -> Iterator[Place]:
    """All elements after the preamble, those in sequences too."""
    at = 132
    while at + 8 <= len(content):
        group, vr = struct.unpack_from("<H", content, at)[0], content[at + 4 : at + 6].decode("latin1")
        head = 12 if vr in _LONG else 8
        length = struct.unpack_from("<L" if vr in _LONG else "<H", content, at + (8 if vr in _LONG else 6))[0]
        if group == _ITEMS:
            at += 8
            continue
        has_items = vr == "SQ" or length == _UNDEFINED
        yield Place(at, at + head, at + head + (0 if has_items else length), vr)
        at += head + (0 if has_items else length)


def gone(content: bytes, place: Place, _: random.Random) -> bytes:
    """Without the element; of a sequence its items stay, as elements where none belong."""
    return content[: place.start] + content[place.end :]


def emptied(content: bytes, place: Place, _: random.Random) -> bytes:
    return with_value(content, place, b"")


def of_another_vr(content: bytes, place: Place, rng: random.Random) -> bytes:
    """The same bytes, said to be another kind of value."""
    return with_value(content, place, content[place.value : place.end], rng.choice(_VRS))


def of_another_value(content: bytes, place: Place, rng: random.Random) -> bytes:
    return with_value(content, place, rng.choice(_VALUES).encode("latin1"))


def repeated(content: bytes, place: Place, rng: random.Random) -> bytes:
    """Several values where one belongs."""
    parts = [content[place.value : place.end].strip(b" \0")] * rng.choice([2, 3, 7])
    return with_value(content, place, b"\\".join(parts))


def of_another_length(content: bytes, place: Place, rng: random.Random) -> bytes:
    """The value stays, its length lies."""
    length = place.end - place.value + rng.choice([-2, -1, 1, 2, 8, 1000])
    head = _head(content[place.start : place.start + 4], place.vr, max(0, length))
    return content[: place.start] + head + content[place.value :]


WAYS: tuple[Damage, ...] = (gone, emptied, of_another_vr, of_another_value, repeated, of_another_length)


def with_value(content: bytes, place: Place, value: bytes, vr: str = "") -> bytes:
    """The file with another value of an element, and another VR if one is given."""
    value += b" " * (len(value) % 2)
    head = _head(content[place.start : place.start + 4], vr or place.vr, len(value))
    return content[: place.start] + head + value + content[place.end :]


def _head(tag: bytes, vr: str, length: int) -> bytes:
    if vr in _LONG:
        return tag + vr.encode("latin1") + struct.pack("<HL", 0, length & 0xFFFFFFFF)
    return tag + vr.encode("latin1") + struct.pack("<H", length & 0xFFFF)
