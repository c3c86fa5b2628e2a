"""What the header of one DICOM file says, told without reading its pixels."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import DataElement, Dataset, dcmread
from pydicom.config import RAISE, disable_value_validation
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import validate_value

__all__ = [
    "DAMAGE",
    "Header",
    "differing",
    "is_valid",
    "looks_like_dicom",
    "name_of",
    "number",
    "numbers",
    "open_dicom",
    "quietly",
    "read_header",
    "text",
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
    struct.error,
    zlib.error,
)
# Where the images of a 4-D series differ although they lie at one place.
_TELLING = (
    "EchoTime",
    "EchoNumbers",
    "ImageType",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "InversionTime",
    "TriggerTime",
    "FlipAngle",
    "ImageComments",
    "AcquisitionNumber",
    "AcquisitionTime",
)
_SUFFIXES = {".dcm", ".ima"}  # an empty file of such a name is a slice that has not arrived
# (implicit, little endian), as found in files that do not name their encoding.
_PLAIN = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian}
_SYNTAXES: dict[Any, UID] = {(False, True): ExplicitVRLittleEndian, (False, False): ExplicitVRBigEndian}
_FIRST_VRS = (b"UL", b"UI", b"CS", b"SH", b"LO", b"DA", b"TM", b"DT", b"OB", b"US", b"ST", b"LT", b"AE", b"SQ", b"PN")


@dataclass(frozen=True)
class Header:
    """One file, as its header describes it: plain values, lengths in mm, positions in DICOM's LPS axes.

    Where the file is DICOM but cannot be parsed, `damage` says why and the rest is empty.
    """

    path: Path
    damage: str = ""
    patient_id: str = ""
    study_uid: str = ""
    series_uid: str = ""
    instance_uid: str = ""
    frame_uid: str = ""
    sop_class: str = ""
    transfer_syntax: str = ""
    modality: str = ""
    description: str = ""
    number: int | None = None
    image_type: tuple[str, ...] = ()
    rows: int = 0
    columns: int = 0
    frames: int = 1
    samples: int = 1
    photometric: str = ""
    mosaic: bool = False
    synthetic: bool = False
    lossy: bool = False
    padding: bool = False
    truncated: bool = False
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    pixel_spacing: tuple[float, ...] | None = None
    thickness: float | None = None
    stated_gap: float | None = None
    telling: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the file, without its folder."""
        return self.path.name


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


def read_header(path: Path) -> Header | None:
    """What one file says of itself; None if it is not a DICOM image (a report, a DICOMDIR, or no DICOM at all)."""
    try:
        with path.open("rb") as file, quietly():
            start = file.read(132)
            if not start and path.suffix.lower() in _SUFFIXES:
                return Header(path, damage="is empty")
            if not looks_like_dicom(start):
                return None
            file.seek(0)
            return _parsed(path, file)
    except OSError as error:
        return Header(path, damage=f"cannot be read ({error.strerror or error})")


def _parsed(path: Path, file: BinaryIO) -> Header | None:
    try:
        dataset = open_dicom(file, pixels=False)
        if "SOPClassUID" not in dataset and "Modality" not in dataset:
            return _without_class(path, file, dataset)
        if not {"Rows", "Columns"} <= set(dataset.dir("Rows", "Columns")):
            return _without_matrix(path, dataset)
        return _header(path, dataset, _is_truncated(file, dataset))
    except DAMAGE as error:
        return Header(path, damage=f"its header is damaged ({type(error).__name__})")


def _without_class(path: Path, file: BinaryIO, dataset: Dataset) -> Header | None:
    file.seek(128)
    if file.read(4) != b"DICM" or "DirectoryRecordSequence" in dataset:
        return None
    return Header(path, damage="its header is cut off")


def _without_matrix(path: Path, dataset: Dataset) -> Header | None:
    """Reports, plans and states have no matrix; a header of an image class without one has lost it."""
    if "Image Storage" not in name_of(text(dataset, "SOPClassUID")):
        return None
    return Header(path, series_uid=text(dataset, "SeriesInstanceUID"), damage="its header is cut off")


def _is_truncated(file: BinaryIO, dataset: Dataset) -> bool:
    """True if the rest of the file is too short for its pixels; compressed ones are of any length but none."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        return False
    here = file.tell()
    held = file.seek(0, 2) - here
    counts = [int(number(dataset, key) or 1) for key in ("NumberOfFrames", "SamplesPerPixel", "Rows", "Columns")]
    needed = 0 if syntax not in _PLAIN else (math.prod(counts) * int(number(dataset, "BitsAllocated") or 16) + 7) // 8
    return held < 8 + needed


def _header(path: Path, dataset: Dataset, truncated: bool) -> Header:
    image_type = tuple(str(part) for part in _values(dataset, "ImageType"))
    return Header(
        path=path,
        patient_id=text(dataset, "PatientID"),
        study_uid=text(dataset, "StudyInstanceUID"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        instance_uid=text(dataset, "SOPInstanceUID"),
        frame_uid=text(dataset, "FrameOfReferenceUID"),
        sop_class=text(dataset, "SOPClassUID"),
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        modality=text(dataset, "Modality"),
        description=text(dataset, "SeriesDescription"),
        number=_whole(number(dataset, "SeriesNumber")),
        image_type=image_type,
        rows=int(number(dataset, "Rows") or 0),
        columns=int(number(dataset, "Columns") or 0),
        frames=int(number(dataset, "NumberOfFrames") or 1),
        samples=int(number(dataset, "SamplesPerPixel") or 1),
        photometric=text(dataset, "PhotometricInterpretation"),
        mosaic=bool({"MOSAIC", "VFRAME"} & set(image_type)) or _is_private_mosaic(dataset),
        synthetic=text(dataset, "SyntheticData") == "YES",
        lossy=text(dataset, "LossyImageCompression") == "01",
        padding="PixelPaddingValue" in dataset,
        truncated=truncated,
        position=numbers(dataset, "ImagePositionPatient", 3),
        orientation=numbers(dataset, "ImageOrientationPatient", 6),
        pixel_spacing=numbers(dataset, "PixelSpacing", 2),
        thickness=number(dataset, "SliceThickness"),
        stated_gap=number(dataset, "SpacingBetweenSlices"),
        telling=tuple(text(dataset, key) for key in _TELLING),
    )


def differing(headers: list[Header]) -> list[str]:
    """Names of the attributes in which images at one place differ."""
    columns = zip(*(header.telling for header in headers), strict=True)
    return [key for key, column in zip(_TELLING, columns, strict=True) if len(set(column)) > 1]


def _is_private_mosaic(dataset: Dataset) -> bool:
    """Siemens' count of tiles, looked up by its creator because private blocks move between numbers."""
    for group, creator, offset in ((0x0019, "SIEMENS MR HEADER", 0x0A), (0x0065, "Image Private Header", 0x50)):
        try:
            dataset.private_block(group, creator)[offset]
        except KeyError:
            continue
        return True
    return False


def text(dataset: Dataset, key: str) -> str:
    """A value as trimmed text, parts joined by a backslash; "" where it is absent or empty."""
    return "\\".join(str(value) for value in _values(dataset, key)).strip(" \0")


def number(dataset: Dataset, key: str) -> float | None:
    """The first of a value's numbers; None where it is absent, empty, no number or not finite."""
    try:
        values = _values(dataset, key)
        value = float(values[0]) if values else math.nan
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def numbers(dataset: Dataset, key: str, count: int) -> tuple[float, ...] | None:
    """A value of exactly so many finite numbers, else None."""
    try:
        values = tuple(float(value) for value in _values(dataset, key))
    except (TypeError, ValueError):
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


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


def _values(dataset: Dataset, key: str) -> list[Any]:
    value = dataset.get(key)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, int, float)) or not hasattr(value, "__iter__") else list(value)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
