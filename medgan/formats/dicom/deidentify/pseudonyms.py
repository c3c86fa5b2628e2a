"""New identifiers and dates for old ones, from a secret key: the same key gives the same ones."""

from __future__ import annotations

import base64
import csv
import hmac
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

from medgan.errors import DicomError, InputError
from medgan.formats.dicom.elements import name_of

__all__ = ["Pseudonyms", "read_patients", "shifted"]

_MOST_DAYS = 3650
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DATE = re.compile(r"(\d{4})(?:(\.?)(\d\d)(?:\2(\d\d)(\d{2,6}(?:\.\d{1,6})?)?)?)?(?:[+-]\d{4})?", re.ASCII)
_COLUMNS = ["patient_id", "new_id"]


@dataclass(frozen=True)
class Pseudonyms:
    """Identifiers that derive from a key by HMAC-SHA256.

    Args:
        key: the secret, at least 32 bytes.
        patients: new identifiers by PatientID; None to derive them too.

    Example:
        >>> pseudonyms = Pseudonyms(bytes(32))
        >>> pseudonyms.uid("1.2.3") == pseudonyms.uid("1.2.3 "), pseudonyms.uid("1.2.840.10008.5.1.4.1.1.2")
        (True, '1.2.840.10008.5.1.4.1.1.2')
    """

    key: bytes = field(repr=False)
    patients: Mapping[str, str] | None = field(default=None, repr=False)

    def uid(self, old: str) -> str:
        """A UID for another one; those of the standard itself, and nothing at all, stay what they are."""
        old = old.strip(" \0")
        if name_of(old) != old or not old:
            return old
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', old)[:16], version=4).int}"

    def subject(self, patient_id: str, study_uid: str) -> str:
        """The new PatientID; of a file that names no patient, one of its study.

        Raises:
            DicomError: if there is a table of patients, and this one is not in it.
        """
        patient_id = patient_id.strip(" \0")
        if self.patients is None:
            digest = (
                self._digest("patient", patient_id) if patient_id else self._digest("study", study_uid.strip(" \0"))
            )
            return "P" + base64.b32encode(digest)[:12].decode()
        if patient_id not in self.patients:
            raise DicomError("its patient is not in the table of patients")
        return self.patients[patient_id]

    def days(self, subject: str) -> int:
        """By how many days the dates of a person go back: 1 to 3650."""
        return 1 + int.from_bytes(self._digest("days", subject)[:8], "big") % _MOST_DAYS

    def _digest(self, *texts: str) -> bytes:
        return hmac.digest(self.key, "\0".join(texts).encode("utf-8", "surrogateescape"), "sha256")


def shifted(value: str, days: int) -> str:
    """A DICOM date, or date and time, so many days earlier; "" if it is none or would be before the year 1.

    A date that names no day or no month is taken for its first, and stays as short. The offset from UTC is dropped.

    Example:
        >>> shifted("20200301", 1), shifted("20200301101112.5+0100", 1), shifted("2020", 400), shifted("soon", 1)
        ('20200229', '20200229101112.5', '2018', '')
    """
    found = _DATE.fullmatch(value.strip(" \0"))
    if found is None:
        return ""
    year, _, month, day, clock = found.groups()
    try:
        moved = date(int(year), int(month or 1), int(day or 1)) - timedelta(days)
    except (ValueError, OverflowError):
        return ""
    length = 8 if day else 6 if month else 4
    return f"{moved:%Y%m%d}".rjust(8, "0")[:length] + (clock or "")


def read_patients(path: Path) -> dict[str, str]:
    """A table of new identifiers: CSV with the columns patient_id and new_id.

    Raises:
        InputError: if it is no such table; the message names lines, never identifiers.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table of patients; give CSV in UTF-8") from error
    if not rows or rows[0] != _COLUMNS:
        raise InputError(f"{path}: is no table of patients; its first line has to be {','.join(_COLUMNS)}")
    patients: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if row:
            _add(patients, [cell.strip() for cell in row], f"{path}: line {number}")
    reused = set(patients) & set(patients.values())
    if reused:
        raise InputError(f"{path}: {len(reused)} new_id are the patient_id of somebody; choose others")
    return patients


def _add(patients: dict[str, str], row: list[str], place: str) -> None:
    if len(row) != len(_COLUMNS) or not row[0]:
        raise InputError(f"{place} has not just a patient_id and a new_id")
    if not _NAME.fullmatch(row[1]):
        raise InputError(f"{place}: a new_id is 1 to 64 letters, digits, dots, dashes or underscores")
    if patients.setdefault(row[0], row[1]) != row[1]:
        raise InputError(f"{place} gives a patient a second new_id")
