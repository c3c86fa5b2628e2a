"""What the header of one DICOM file says of its pictures, told without reading their pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from io import BufferedReader
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medgan.errors import DicomError
from medgan.formats.dicom.elements import (
    DAMAGE,
    looks_like_dicom,
    name_of,
    number,
    numbers,
    open_dicom,
    quietly,
    text,
    values,
    whole,
)
from medgan.formats.dicom.frames import Picture, pictures
from medgan.formats.dicom.mosaic import is_mosaic
from medgan.formats.dicom.plain import Plain, Scanned, scan
from medgan.formats.dicom.private import Block, private_numbers
from medgan.formats.dicom.scale import SCALE_KEYS, Scale, scale_of

__all__ = ["ORDERING", "SPLITTING", "Header", "differing", "read_headers"]

# In what images of one series and one place differ although they are no repetition: other quantities ...
SPLITTING = ("ComplexImageComponent", "EchoNumbers", "EchoTime", "ImageType", "StackID")
# ... or the same quantity at other moments.
ORDERING = (
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "DiffusionBValue",
    "InversionTime",
    "TriggerTime",
    "FlipAngle",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "SequenceName",
    "ContentTime",
    "ImageComments",
)
_TELLING = (*SPLITTING, *ORDERING)
_ASKED = (
    "SpecificCharacterSet",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "FrameOfReferenceUID",
    "SOPClassUID",
    "Manufacturer",
    "Modality",
    "SeriesDescription",
    "SeriesNumber",
    "InstanceNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "SyntheticData",
    "LossyImageCompression",
    "PixelPaddingValue",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
_WANTED = frozenset(int(Tag(key)) for key in (*_ASKED, *_TELLING, *SCALE_KEYS))
# What only the thorough way understands: frames, tables of values, tiles.
_NOT_PLAIN = {
    int(Tag(key))
    for key in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ModalityLUTSequence")
}
_GE, _GE_KIND = Block("GE", 0x0043, "GEMS_PARM_01"), 0x2F
_GE_COMPONENTS = {0: "MAGNITUDE", 1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
_FRAMES = "NumberOfFrames"
_SUFFIXES = {".dcm", ".ima"}  # an empty file of such a name is a slice that has not arrived
_PLAIN = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian}


@dataclass(frozen=True)
class Header:
    """One picture, as its file's header describes it: plain values, lengths in mm, positions in DICOM's LPS axes.

    Where the file is DICOM but cannot be parsed, `damage` says why and the rest is empty. A `stray` is named like DICOM
    but does not begin as DICOM does.
    """

    path: Path
    damage: str = ""
    stray: bool = False
    frame: int = 0
    across: int = 0
    frames: int = 1
    patient_id: str = field(default="", repr=False)
    study_uid: str = ""
    series_uid: str = ""
    instance_uid: str = ""
    frame_uid: str = ""
    sop_class: str = ""
    transfer_syntax: str = ""
    modality: str = ""
    description: str = ""
    number: int | None = None
    instance_number: int | None = None
    image_type: tuple[str, ...] = ()
    rows: int = 0
    columns: int = 0
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
    telling: tuple[str, ...] = ("",) * len(_TELLING)
    plain: Plain | None = None
    scale: Scale | None = None

    @property
    def name(self) -> str:
        """The name of the file, without its folder; of its frame, where it has several."""
        return f"{self.path.name} frame {self.frame + 1}" if self.frame else self.path.name

    def told(self, key: str) -> str:
        """The value of one of `SPLITTING` and `ORDERING`; "" where it is absent."""
        return self.telling[_TELLING.index(key)]


def read_headers(path: Path) -> list[Header]:
    """What one file says of its pictures; nothing if it is no DICOM image (a report, a DICOMDIR, no DICOM at all)."""
    try:
        with path.open("rb") as file, quietly():
            start = file.read(132)
            if not start and path.suffix.lower() in _SUFFIXES:
                return [Header(path, damage="is empty")]
            if not looks_like_dicom(start):
                return [Header(path, stray=True)] if path.suffix.lower() in _SUFFIXES else []
            return _of_plain(path, file) or _parsed(path, file)
    except OSError as error:
        return [Header(path, damage=f"cannot be read ({error.strerror or error})")]


def differing(headers: list[Header]) -> list[str]:
    """Names of the attributes in which images at one place differ."""
    columns = zip(*(header.telling for header in headers), strict=True)
    return [key for key, column in zip(_TELLING, columns, strict=True) if len(set(column)) > 1]


def _of_plain(path: Path, file: BufferedReader) -> list[Header]:
    """The fast way, for plain files of one picture; nothing, where the other way has to look at it."""
    with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        scanned = scan(content, _WANTED, _NOT_PLAIN)
        if scanned is None or "SOPClassUID" not in scanned.dataset or (number(scanned.dataset, _FRAMES) or 1) > 1:
            return []
        try:
            if is_mosaic(scanned.dataset):
                return []
            header = _header(path, scanned.dataset, Picture(scanned.dataset), False, False)
            return [_with_pixels(header, scanned, len(content))] if header.rows and header.columns else []
        except DAMAGE:
            return []


def _with_pixels(header: Header, scanned: Scanned, size: int) -> Header:
    own = scanned.dataset
    allocated, stored, high = (whole(number(own, key)) or 0 for key in ("BitsAllocated", "BitsStored", "HighBit"))
    needed = header.rows * header.columns * header.samples * (allocated or 16) // 8
    if size - scanned.offset < needed or scanned.length < needed:
        return replace(header, truncated=True)
    is_usual = header.samples == 1 and allocated in {8, 16, 32} and 0 < stored <= allocated and high == stored - 1
    if not is_usual or header.synthetic or header.mosaic or header.frames > 1:
        return header
    plain = Plain(scanned.offset, allocated, stored, number(own, "PixelRepresentation") == 1)
    try:
        return replace(header, plain=plain, scale=scale_of(own, header.path.name))
    except DicomError:
        return header  # told when it is read


def _parsed(path: Path, file: BinaryIO) -> list[Header]:
    series = ""
    file.seek(0)
    try:
        dataset = open_dicom(file, pixels=False)
        series = text(dataset, "SeriesInstanceUID")
        if "SOPClassUID" not in dataset and "Modality" not in dataset:
            return _without_class(path, file, dataset)
        if "Rows" not in dataset or "Columns" not in dataset:
            return _without_matrix(path, dataset)
        truncated, is_tiled = _is_truncated(file, dataset), is_mosaic(dataset)
        return [_header(path, dataset, picture, truncated, is_tiled) for picture in pictures(dataset)]
    except DAMAGE as error:
        return [Header(path, series_uid=series, damage=f"its header is damaged ({type(error).__name__})")]


def _without_class(path: Path, file: BinaryIO, dataset: Dataset) -> list[Header]:
    file.seek(128)
    if file.read(4) != b"DICM" or "DirectoryRecordSequence" in dataset:
        return []
    return [Header(path, damage="its header is cut off")]


def _without_matrix(path: Path, dataset: Dataset) -> list[Header]:
    """Reports, plans and states have no matrix; a header of an image class without one has lost it."""
    if "Image Storage" not in name_of(text(dataset, "SOPClassUID")):
        return []
    return [Header(path, series_uid=text(dataset, "SeriesInstanceUID"), damage="its header is cut off")]


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


def _component_by_ge(dataset: Dataset) -> str:
    """GE's own word for what DICOM calls ComplexImageComponent; "" where there is none."""
    if not text(dataset, "Manufacturer").upper().startswith("GE"):
        return ""
    told = private_numbers(dataset, _GE, _GE_KIND, "SS")
    return _GE_COMPONENTS.get(int(told[0]), "") if told else ""


def _header(path: Path, whole_file: Dataset, picture: Picture, truncated: bool, is_tiled: bool) -> Header:
    own = picture.dataset
    return Header(
        path=path,
        frame=picture.frame,
        across=picture.across,
        frames=picture.standing_for,
        patient_id=text(own, "PatientID"),
        study_uid=text(own, "StudyInstanceUID"),
        series_uid=text(own, "SeriesInstanceUID"),
        instance_uid=text(own, "SOPInstanceUID"),
        frame_uid=text(own, "FrameOfReferenceUID"),
        sop_class=text(own, "SOPClassUID"),
        transfer_syntax=str(whole_file.file_meta.TransferSyntaxUID),
        modality=text(own, "Modality"),
        description=text(own, "SeriesDescription"),
        number=whole(number(own, "SeriesNumber")),
        instance_number=whole(number(own, "InstanceNumber")),
        image_type=tuple(str(part) for part in values(own, "ImageType")),
        rows=int(number(own, "Rows") or 0),
        columns=int(number(own, "Columns") or 0),
        samples=int(number(own, "SamplesPerPixel") or 1),
        photometric=text(own, "PhotometricInterpretation"),
        mosaic=is_tiled and not picture.across,
        synthetic=text(own, "SyntheticData") == "YES",
        lossy=text(own, "LossyImageCompression") == "01",
        padding="PixelPaddingValue" in own,
        truncated=truncated,
        position=numbers(own, "ImagePositionPatient", 3),
        orientation=numbers(own, "ImageOrientationPatient", 6),
        pixel_spacing=numbers(own, "PixelSpacing", 2),
        thickness=number(own, "SliceThickness"),
        stated_gap=number(own, "SpacingBetweenSlices"),
        telling=(text(own, _TELLING[0]) or _component_by_ge(own), *(text(own, key) for key in _TELLING[1:])),
    )
