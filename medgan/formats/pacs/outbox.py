"""What is sent: files that prove to be DICOM, and what became of each."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import UID

from medgan.errors import InputError
from medgan.formats.dicom.codestream import check_frames
from medgan.formats.dicom.elements import DAMAGE, looks_like_dicom, open_dicom
from medgan.formats.pacs.inbox import uid_of

__all__ = ["Outcome", "Parcel", "Sent", "judged", "opened", "parcels"]

_DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR: of its folder, not of an archive
_DUPLICATE = 0x0111
_WARNINGS = {0x0001, 0x0107, 0x0116}
_MEANINGS = {
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0117: "invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0213: "resource limitation",
    0xA700: "out of resources",
    0xA900: "data set does not match SOP class",
    0xB000: "coercion of data elements",
    0xB006: "elements discarded",
    0xB007: "data set does not match SOP class",
    0xC000: "cannot understand",
    0xC122: "transfer syntax not supported",
}


class Outcome(StrEnum):
    """What became of one file."""

    STORED = "stored"
    WARNING = "stored with a warning"
    DUPLICATE = "duplicate"
    SKIPPED = "not DICOM"
    REFUSED = "refused"
    UNSENT = "not sent"


@dataclass(frozen=True)
class Parcel:
    """One file to be sent.

    Args:
        path: of the file.
        sop_class: SOPClassUID.
        instance_uid: SOPInstanceUID.
        syntax: TransferSyntaxUID.
    """

    path: Path
    sop_class: str
    instance_uid: str
    syntax: str


@dataclass(frozen=True)
class Sent:
    """What became of one file.

    Args:
        path: of the file.
        outcome: in a word.
        reason: in more words; never of the patient.
        code: DICOM's status or failure reason; None where the archive gave none.
        passing: True if another try may help: the archive was full, away or busy.
    """

    path: Path
    outcome: Outcome
    reason: str = ""
    code: int | None = None
    passing: bool = False


def judged(path: Path, code: int) -> Sent:
    """What a status of C-STORE, or a failure reason of STOW, means.

    Source: PS3.7 annex C, PS3.4 table B.2-1, PS3.18 table I.2-1.

    Example:
        >>> judged(Path("x"), 0xA700).outcome, judged(Path("x"), 0xA700).passing
        (<Outcome.REFUSED: 'refused'>, True)
    """
    if code == 0:
        return Sent(path, Outcome.STORED, code=0)
    family = code & 0xFF00 if code >= 0xA000 else code
    family = 0xC000 if code >= 0xC000 and code not in _MEANINGS else family
    reason = f"0x{code:04X}, {_MEANINGS.get(code) or _MEANINGS.get(family, 'a status of its own')}"
    if code == _DUPLICATE:
        return Sent(path, Outcome.DUPLICATE, reason, code)
    if code in _WARNINGS or 0xB000 <= code <= 0xBFFF:
        return Sent(path, Outcome.WARNING, reason, code)
    return Sent(path, Outcome.REFUSED, reason, code, passing=family in {0xA700, 0x0213})


def parcels(paths: Iterable[Path]) -> tuple[list[Parcel], list[Sent]]:
    """What of some files and folders can be sent, and what not.

    Hidden files and a DICOMDIR are passed over without a word. Of files with one SOPInstanceUID the first is sent.

    Raises:
        InputError: if a path is missing, or a file that is named itself is no DICOM.
    """
    ready: dict[str, Parcel] = {}
    others: list[Sent] = []
    for file in _files(paths):
        one = _parcel(file)
        if isinstance(one, Sent):
            others.append(one)
        elif one is not None and one.instance_uid in ready:
            others.append(_twin(one, ready[one.instance_uid]))
        elif one is not None:
            ready[one.instance_uid] = one
    return list(ready.values()), others


def opened(parcel: Parcel, *, decompress: bool) -> Dataset:
    """The file as it is sent: with a whole file meta group; on request with plain pixels, its identity unchanged.

    Raises:
        What `DAMAGE` lists, OSError or RuntimeError, if it cannot be read or decoded.
    """
    dataset = open_dicom(parcel.path, pixels=True)
    dataset.file_meta.MediaStorageSOPClassUID = UID(parcel.sop_class)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(parcel.instance_uid)
    if dataset.preamble is None:
        dataset.preamble = b"\0" * 128
    if decompress:
        check_frames(dataset)
        dataset.decompress(generate_instance_uid=False)
    return dataset


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if path.is_file() and isinstance(_parcel(path), Sent):
            raise InputError(f"{path}: is no DICOM file, and nothing else can be sent to an archive")
        below = (each for each in sorted(path.rglob("*")) if each.is_file() and not each.name.startswith("."))
        yield from [path] if path.is_file() else below


def _parcel(file: Path) -> Parcel | Sent | None:
    """None for a DICOMDIR."""
    try:
        with file.open("rb") as stream:
            if not looks_like_dicom(stream.read(132)):
                return Sent(file, Outcome.SKIPPED, "is no DICOM")
            stream.seek(0)
            dataset = open_dicom(stream, pixels=False)
        if _DIRECTORY in {uid_of(dataset.file_meta, "MediaStorageSOPClassUID"), uid_of(dataset, "SOPClassUID")}:
            return None
        sop_class, instance = uid_of(dataset, "SOPClassUID"), uid_of(dataset, "SOPInstanceUID")
        syntax = uid_of(dataset.file_meta, "TransferSyntaxUID")
    except OSError as error:
        return Sent(file, Outcome.SKIPPED, f"cannot be read ({error.strerror or error})")
    except DAMAGE as error:
        return Sent(file, Outcome.SKIPPED, f"its header is damaged ({type(error).__name__})")
    if not all((sop_class, instance, syntax)):
        return Sent(file, Outcome.SKIPPED, "names no SOP class or instance of its own")
    return Parcel(file, sop_class, instance, syntax)


def _twin(one: Parcel, first: Parcel) -> Sent:
    if filecmp.cmp(one.path, first.path, shallow=False):
        return Sent(one.path, Outcome.DUPLICATE, f"is {first.path.name} once more")
    return Sent(one.path, Outcome.REFUSED, f"has the SOPInstanceUID of {first.path.name}, but another content")
