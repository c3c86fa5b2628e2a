"""One DICOM file, de-identified by the Basic Profile and looked through for what it must no longer hold."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID, DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from medgan import __version__
from medgan.errors import DicomError
from medgan.formats.dicom.attributes import HEAD
from medgan.formats.dicom.deidentify.clean import Cleaning
from medgan.formats.dicom.deidentify.pixels import drop_hidden_overlays, is_cut_off
from medgan.formats.dicom.deidentify.profile import EDITION
from medgan.formats.dicom.deidentify.pseudonyms import Pseudonyms
from medgan.formats.dicom.deidentify.refusal import HEAD_SCANS, why_refused
from medgan.formats.dicom.elements import DAMAGE, looks_like_dicom, open_dicom, quietly, text
from medgan.formats.dicom.mark import code

__all__ = ["BASIC_PROFILE", "MODIFIED_DATES", "Choices", "Cleaned", "deidentify_file"]

BASIC_PROFILE = ("113100", "Basic Application Confidentiality Profile")
MODIFIED_DATES = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
_METHOD = f"medgan {__version__}, DICOM PS3.15 {EDITION} Basic Profile"
_DESCRIPTIONS = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
)
_HEAD_WORDS = re.compile("head|brain|skull|crani|cereb|neuro|face|facial|orbit|mprage|flair|kopf|hirn|schaedel|sch.del")


@dataclass(frozen=True)
class Choices:
    """How files are de-identified.

    Args:
        pseudonyms: the source of new identifiers.
        shift_dates: move dates by an offset that is the same for all files of a person, instead of removing them.
        allow_burned_in: release images that do not say whether there is text in their pixels.
    """

    pseudonyms: Pseudonyms
    shift_dates: bool = False
    allow_burned_in: bool = False


@dataclass(frozen=True)
class Cleaned:
    """A de-identified file; nothing here was in the old one but its modality and its pixels.

    Args:
        content: all bytes of the new file.
        subject: the new PatientID.
        study_uid: the new StudyInstanceUID.
        series_uid: the new SeriesInstanceUID.
        instance_uid: the new SOPInstanceUID.
        modality: DICOM's code.
        may_show_face: True for CT, MR and PET of the head, or of nobody knows what.
        replaced: attributes that the profile keeps, but that repeated something removed, by keyword.
        num_searched: how many removed values were looked for in the bytes.
        num_leaks: how many of them were found; a file with any must not be released.
    """

    content: bytes = field(repr=False)
    subject: str
    study_uid: str
    series_uid: str
    instance_uid: str
    modality: str
    may_show_face: bool
    replaced: Counter[str]
    num_searched: int
    num_leaks: int


def deidentify_file(path: Path, choices: Choices) -> Cleaned | None:
    """De-identify one file; None if it is not DICOM, or a DICOMDIR, which is not copied.

    Raises:
        DicomError: why the file cannot be released; the message holds nothing of the file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DicomError("cannot be read") from error
    if not looks_like_dicom(content[:132]):
        return None
    with quietly():
        try:
            return _deidentified(content, choices)
        except (*DAMAGE, OSError) as error:  # pydicom's word for a sequence without an end
            raise DicomError(f"is damaged ({type(error).__name__})") from error


def _deidentified(content: bytes, choices: Choices) -> Cleaned | None:
    dataset = open_dicom(BytesIO(content), pixels=True)
    if _is_no_object(dataset, content):
        return None
    reason = why_refused(dataset, allow_burned_in=choices.allow_burned_in)
    if reason:
        raise DicomError(reason)
    if is_cut_off(dataset):
        raise DicomError("is cut off: it holds less than its header says, or is an image without pixels")
    may_show_face = _may_show_face(dataset)
    drop_hidden_overlays(dataset)
    cleaning = _cleaning(dataset, choices)
    cleaning.clean(dataset)
    replaced = cleaning.removed.scrub(dataset)
    _flag(dataset, choices, is_head=may_show_face is True)
    written = _written(dataset)
    pixels = dataset.PixelData if "PixelData" in dataset else b""
    return Cleaned(
        content=written,
        subject=cleaning.subject,
        study_uid=text(dataset, "StudyInstanceUID"),
        series_uid=text(dataset, "SeriesInstanceUID"),
        instance_uid=text(dataset, "SOPInstanceUID"),
        modality=text(dataset, "Modality"),
        may_show_face=may_show_face is not False,
        replaced=replaced,
        num_searched=cleaning.removed.count,
        num_leaks=cleaning.removed.found_in(_inflated(written, dataset), pixels or b"", dataset),
    )


def _is_no_object(dataset: Dataset, content: bytes) -> bool:
    """True for bytes that look like DICOM by chance, and for the directory of a medium."""
    if dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return True
    return "DirectoryRecordSequence" in dataset or ("SOPClassUID" not in dataset and content[128:132] != b"DICM")


def _cleaning(dataset: Dataset, choices: Choices) -> Cleaning:
    pseudonyms = choices.pseudonyms
    subject = pseudonyms.subject(text(dataset, "PatientID"), text(dataset, "StudyInstanceUID"))
    days = pseudonyms.days(subject) if choices.shift_dates else None
    return Cleaning(pseudonyms, subject, text(dataset, "SOPClassUID"), days)


def _may_show_face(dataset: Dataset) -> bool | None:
    """Whether it is a scan of a head; None if nothing says of what it is."""
    if text(dataset, "SOPClassUID") not in HEAD_SCANS or text(dataset, "RecognizableVisualFeatures") == "NO":
        return False
    part = text(dataset, "BodyPartExamined").upper()
    described = " ".join(text(dataset, key) for key in _DESCRIPTIONS).lower()
    if part in HEAD or _HEAD_WORDS.search(described):
        return True
    return False if part else None


def _flag(dataset: Dataset, choices: Choices, *, is_head: bool) -> None:
    """Say in the file that it was de-identified, and how."""
    codes = (BASIC_PROFILE, MODIFIED_DATES) if choices.shift_dates else (BASIC_PROFILE,)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = _METHOD
    dataset.DeidentificationMethodCodeSequence = [code(value, "DCM", meaning) for value, meaning in codes]
    dataset.LongitudinalTemporalInformationModified = "MODIFIED" if choices.shift_dates else "REMOVED"
    if is_head:
        dataset.RecognizableVisualFeatures = "YES"


def _written(dataset: Dataset) -> bytes:
    """The bytes of a file with an empty preamble and new meta information."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_implicit_VR and any(element.VR is None for element in dataset.values()):
        for _ in dataset.iterall():  # a file that is not encoded as it says is decoded
            pass
    dataset.preamble = b"\0" * 128
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = UID(text(dataset, "SOPClassUID"))
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(text(dataset, "SOPInstanceUID"))
    dataset.file_meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = f"MEDGAN {__version__}"[:16]
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _inflated(content: bytes, dataset: Dataset) -> bytes:
    """The bytes of a file as they can be searched."""
    if dataset.file_meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
        return content
    start = 144 + int.from_bytes(content[140:144], "little")
    return content[:start] + zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[start:])
