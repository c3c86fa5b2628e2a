"""Headers of plain files, read fast: most of what the first file of a series says, the others repeat.

What files say is split into what tells one picture of a series from the next, read anew each time, and all the rest:
where another file has said the very same bytes, its header is taken again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from io import BufferedReader
from mmap import ACCESS_READ, mmap
from pathlib import Path

from pydicom.tag import Tag
from pydicom.uid import UID

from medgan.errors import DicomError
from medgan.formats.dicom.elements import DAMAGE, number, numbers, text, whole
from medgan.formats.dicom.frames import Picture
from medgan.formats.dicom.headers import TELLING, Header, header_of
from medgan.formats.dicom.mosaic import is_mosaic
from medgan.formats.dicom.plain import Plain, Runs, Scanned, scan
from medgan.formats.dicom.scale import SCALE_KEYS, scale_of

__all__ = ["Seen", "header_of_plain"]

# What tells the pictures of a series apart; times and numbers only, whose reading no other element changes.
_OWN_TELLING = (
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "TriggerTime",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
)
_OWN = ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", *_OWN_TELLING)
_SHARED = (
    "SpecificCharacterSet",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "SOPClassUID",
    "Manufacturer",
    "Modality",
    "SeriesDescription",
    "SeriesNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "SyntheticData",
    "LossyImageCompression",
    "PixelPaddingValue",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
_OWN_TAGS = frozenset(int(Tag(key)) for key in _OWN)
_WANTED = frozenset(int(Tag(key)) for key in (*_OWN, *_SHARED, *TELLING, *SCALE_KEYS))
# What only the thorough way understands: frames, tables of values.
_NOT_PLAIN = frozenset(
    int(Tag(key))
    for key in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ModalityLUTSequence")
)


@dataclass(frozen=True)
class _Like:
    """The header of the first file that said these bytes, and how many bytes its pixels take."""

    header: Header
    num_bytes: int


@dataclass
class Seen:
    """What the files before said."""

    runs: dict[UID, Runs] = field(default_factory=dict)
    likes: dict[object, _Like | None] = field(default_factory=dict)


def header_of_plain(path: Path, file: BufferedReader, seen: Seen) -> Header | None:
    """The header of a plain file of one picture; None where the thorough way has to look at it.

    Args:
        path: the file.
        file: the same, open.
        seen: what the files before said; what this one says is added.
    """
    with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        scanned = scan(content, _WANTED, _NOT_PLAIN, seen.runs)
        if scanned is None:
            return None
        like = _like(path, scanned, seen)
        return None if like is None else _own(path, scanned, like, len(content))


def _like(path: Path, scanned: Scanned, seen: Seen) -> _Like | None:
    said = (scanned.syntax, *(item for item in scanned.elements.items() if item[0] not in _OWN_TAGS))
    if said not in seen.likes:
        seen.likes[said] = _first(path, scanned)
    return seen.likes[said]


def _first(path: Path, scanned: Scanned) -> _Like | None:
    own = scanned.dataset()
    try:
        if "SOPClassUID" not in own or (number(own, "NumberOfFrames") or 1) > 1 or is_mosaic(own):
            return None
        header = header_of(path, own, Picture(own), False, False)
        allocated, stored, high = (whole(number(own, key)) or 0 for key in ("BitsAllocated", "BitsStored", "HighBit"))
        is_signed = number(own, "PixelRepresentation") == 1
    except DAMAGE:
        return None
    if not header.rows or not header.columns:
        return None
    num_bytes = header.rows * header.columns * header.samples * (allocated or 16) // 8
    is_usual = header.samples == 1 and allocated in {8, 16, 32} and 0 < stored <= allocated and high == stored - 1
    if not is_usual or header.synthetic:
        return _Like(header, num_bytes)
    try:
        plain = Plain(scanned.offset, allocated, stored, is_signed)
        return _Like(replace(header, plain=plain, scale=scale_of(own, path.name)), num_bytes)
    except (DicomError, *DAMAGE):
        return _Like(header, num_bytes)  # told when it is read


def _own(path: Path, scanned: Scanned, like: _Like, size: int) -> Header | None:
    """The header, with what this file alone says."""
    own = scanned.only(_OWN_TAGS)
    is_truncated = size - scanned.offset < like.num_bytes or scanned.length < like.num_bytes
    plain = like.header.plain
    try:
        return replace(
            like.header,
            path=path,
            instance_uid=text(own, "SOPInstanceUID"),
            instance_number=whole(number(own, "InstanceNumber")),
            position=numbers(own, "ImagePositionPatient", 3),
            telling=tuple(
                text(own, key) if key in _OWN_TELLING else known
                for key, known in zip(TELLING, like.header.telling, strict=True)
            ),
            truncated=is_truncated,
            plain=None if plain is None or is_truncated else replace(plain, offset=scanned.offset),
            scale=None if is_truncated else like.header.scale,
        )
    except DAMAGE:
        return None
