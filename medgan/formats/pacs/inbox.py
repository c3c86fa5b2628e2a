"""Where instances land that others send: whole, durable, and never outside their folder, whatever their UIDs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from pydicom import Dataset
from pydicom.tag import Tag

from medgan.atomic import replacing
from medgan.errors import DicomError
from medgan.formats.dicom.elements import DAMAGE, open_dicom
from medgan.formats.pacs.query import is_uid

__all__ = ["Inbox", "Instance", "file_name", "uid_of"]


@dataclass(frozen=True)
class Instance:
    """One that arrived.

    Args:
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        instance_uid: SOPInstanceUID.
    """

    study_uid: str
    series_uid: str
    instance_uid: str


@dataclass(frozen=True)
class Inbox:
    """A folder of instances, as STUDY/SERIES/INSTANCE.dcm.

    Args:
        root: the folder.
        wanted: StudyInstanceUID and SeriesInstanceUID of what is taken; None takes all.
    """

    root: Path
    wanted: tuple[str, str] | None = None

    def place(self, instance: Instance) -> Path:
        """Where it lies, or would."""
        return self.folder(instance.study_uid, instance.series_uid) / f"{file_name(instance.instance_uid)}.dcm"

    def folder(self, study_uid: str, series_uid: str) -> Path:
        """Where a series lies, or would."""
        return self.root / file_name(study_uid) / file_name(series_uid)

    def opened(self, data: bytes) -> Instance:
        """What a file says that it is.

        Raises:
            DicomError: if it is no instance, or not of a series that is wanted.
        """
        instance = _instance(data)
        if self.wanted not in {None, (instance.study_uid, instance.series_uid)}:
            raise DicomError("an instance arrived of a series that was not asked for; it was not kept")
        return instance

    def keep(self, data: bytes) -> Instance:
        """Write one file, to the disk itself; what has the same identifiers is replaced.

        Raises:
            DicomError: as `opened`.
            OutputError: if it cannot be written.
        """
        instance = self.opened(data)
        with replacing(self.place(instance)) as temporary, temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return instance


def file_name(uid: str) -> str:
    """A UID as a name of a file; what is no UID, such as `../../x`, is named by its hash.

    Example:
        >>> file_name("1.2.840"), file_name("../../x")
        ('1.2.840', 'no-uid-9cdf6a50100a862e')
    """
    return uid if is_uid(uid) else f"no-uid-{sha256(uid.encode(errors='replace')).hexdigest()[:16]}"


def uid_of(dataset: Dataset, key: str) -> str:
    """A UID as its bytes have it, without pydicom's judgement, whose warnings would print it; "" if there is none."""
    element = dataset.get_item(Tag(key)) if Tag(key) in dataset else None
    value = element.value if element is not None else b""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0")


def _instance(data: bytes) -> Instance:
    try:
        dataset = open_dicom(BytesIO(data), pixels=False)
        uids = [uid_of(dataset, key) for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    except DAMAGE as error:
        raise DicomError(f"an instance arrived damaged ({type(error).__name__}); it was not kept") from None
    if not all(uids):
        raise DicomError("an instance arrived without the UIDs of its study, series or itself; it was not kept")
    return Instance(*uids)
