"""Values of a DICOM dataset as plain Python: trimmed text, finite numbers, or nothing."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import DataElement, Dataset, dcmread
from pydicom.config import RAISE, disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import validate_value

__all__ = [
    "DAMAGE",
    "is_valid",
    "looks_like_dicom",
    "name_of",
    "number",
    "numbers",
    "open_dicom",
    "quietly",
    "stored_bytes",
    "text",
    "values",
    "whole",
]

# All that pydicom raises on bytes that are not what they say (found by changing bytes at random).
DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    StopIteration,  # pixels of fewer frames than there should be
    MemoryError,  # an element that claims gigabytes
    struct.error,
    zlib.error,
)
# (implicit, little endian), as found in files that do not name their encoding.
_SYNTAXES: dict[Any, UID] = {(False, True): ExplicitVRLittleEndian, (False, False): ExplicitVRBigEndian}
_FIRST_VRS = (b"UL", b"UI", b"CS", b"SH", b"LO", b"DA", b"TM", b"DT", b"OB", b"US", b"ST", b"LT", b"AE", b"SQ", b"PN")
_PLAIN_VRS = {"AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI"}


@contextmanager
def quietly() -> Iterator[None]:
    """Let pydicom read and write what scanners really send, without warnings: those would print patient data."""
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_dicom(file: Path | BinaryIO, *, pixels: bool) -> Dataset:
    """The dataset of a file, with or without preamble; raises what `DAMAGE` lists."""
    dataset = dcmread(file, force=True, stop_before_pixels=not pixels)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _SYNTAXES.get(dataset.original_encoding, ImplicitVRLittleEndian)
    return dataset


@cache
def name_of(uid: str) -> str:
    """What the standard calls a UID; the UID itself where it is unknown."""
    with quietly():
        return UID(uid).name


def looks_like_dicom(start: bytes) -> bool:
    """True if a file with these first 132 bytes may be DICOM: the magic word, or a first element without preamble."""
    if start[128:132] == b"DICM":
        return True
    if len(start) < 12:
        return False
    return any(_is_first_element(start, order) for order in ("<", ">"))


def _is_first_element(start: bytes, order: str) -> bool:
    group, element = struct.unpack(f"{order}HH", start[:4])
    if group not in {2, 8} or element > 0x70:
        return False
    (length,) = struct.unpack(f"{order}L", start[4:8])
    return start[4:6] in _FIRST_VRS or length <= 256


def text(dataset: Dataset, key: str) -> str:
    """A value as trimmed text, parts joined by a backslash; "" where it is absent or empty."""
    return "\\".join(str(value) for value in values(dataset, key)).strip(" \0")


def number(dataset: Dataset, key: str) -> float | None:
    """The first of a value's numbers; None where it is absent, empty, no number or not finite."""
    try:
        found = values(dataset, key)
        value = float(found[0]) if found else math.nan
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def numbers(dataset: Dataset, key: str, count: int) -> tuple[float, ...] | None:
    """A value of exactly so many finite numbers, else None."""
    try:
        found = tuple(float(value) for value in values(dataset, key))
    except (TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def whole(value: float | None) -> int | None:
    """A number as an integer."""
    return None if value is None else int(value)


def stored_bytes(dataset: Dataset, key: str) -> bytes:
    """A value that is bytes, such as PixelData; b"" where it is absent, empty or something else."""
    value = dataset.get(key)
    return bytes(value) if isinstance(value, (bytes, bytearray)) else b""


def values(dataset: Dataset, key: str) -> list[Any]:
    """The parts of a value; none where it is absent or empty."""
    plain = _plain(dataset, _tag(key))
    if plain is not None:
        return plain
    value = dataset.get(key)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, int, float)) or not hasattr(value, "__iter__") else list(value)


def is_valid(element: DataElement) -> bool:
    """False for an age, date or time that is not in DICOM's form; other values are not judged."""
    if element.VR not in {"AS", "DA", "DT", "TM"}:
        return True
    parts = element.value if isinstance(element.value, MultiValue) else [element.value]
    try:
        for part in parts:
            validate_value(element.VR, str(part or ""), RAISE)
    except ValueError:
        return False
    return True


@cache
def _tag(key: str) -> BaseTag:
    return Tag(key)


@cache
def _vr(tag: BaseTag) -> str:
    return dictionary_VR(tag)


def _plain(dataset: Dataset, tag: BaseTag) -> list[Any] | None:
    """The parts of a value that is plain ASCII, straight from the bytes: pydicom's own way takes ten times as long."""
    if tag not in dataset:
        return []
    element: Any = dataset.get_item(tag)
    if not isinstance(element, RawDataElement) or element.value is None:
        return None
    vr = element.VR if element.VR not in {None, "UN"} else _vr(tag)
    if vr == "US" and len(element.value) == 2:
        return [int.from_bytes(element.value, "little" if element.is_little_endian else "big")]
    if vr not in _PLAIN_VRS or not element.value.isascii():
        return None
    content = element.value.decode("ascii").rstrip(" \0")
    return [part.strip(" \0") for part in content.split("\\")] if content else []
