"""What is asked for in an archive, and what it says to have: one search, whatever the language."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from pydicom import Dataset

from medgan.errors import InputError
from medgan.formats.dicom.elements import number, text

__all__ = ["Ask", "Found", "Query", "instances_of", "is_uid", "search"]

Ask = Callable[[str, Mapping[str, str]], Iterable[Dataset]]
"""Asks at a level (STUDY, SERIES or IMAGE) for what fits these keys; those without a value are to be told."""
_DATE = re.compile(r"\d{8}|\d{8}-\d{8}|\d{8}-|-\d{8}")


def is_uid(text: str) -> bool:
    """True for a UID as the standard has it: at most 64 digits and single dots.

    Source: PS3.5, section 9.1.
    """
    return len(text) <= 64 and bool(re.fullmatch(r"[0-9]+(\.[0-9]+)*", text))


@dataclass(frozen=True)
class Query:
    """Which series; all that is given must fit.

    Args:
        patient: PatientID; the archive may understand `*` and `?`.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        accession: AccessionNumber.
        modality: DICOM's code, such as `MR`.
        date: of the study, `20260131` or a range `20260101-20260131`.

    Raises:
        InputError: if a value is not in DICOM's form, or nothing but a modality is given: that would be the whole
            archive.
    """

    patient: str = field(default="", repr=False)
    study: str = ""
    series: str = ""
    accession: str = field(default="", repr=False)
    modality: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        for name in ("study", "series"):
            if (uid := getattr(self, name)) and not is_uid(uid):
                raise InputError(f"{name}: is no UID; accepted are at most 64 digits and dots")
        if self.date and not _DATE.fullmatch(self.date):
            raise InputError(f"date: seen {self.date!r}, accepted are 20260131 or 20260101-20260131")
        if self.modality and not re.fullmatch(r"[A-Z0-9_ ]{1,16}", self.modality):
            raise InputError(f"modality: seen {self.modality!r}, accepted is a code in capitals, such as MR")
        for name in ("patient", "accession"):
            if len(getattr(self, name)) > 64 or re.search(r"[\\\x00-\x1f]", getattr(self, name)):
                raise InputError(f"{name}: accepted are at most 64 letters without a backslash")
        if not any((self.patient, self.study, self.series, self.accession, self.date)):
            raise InputError("nothing says which scans; give a patient, study, series, accession number or date")


@dataclass(frozen=True)
class Found:
    """One series, as an archive describes it.

    Args:
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        modality: DICOM's code.
        number: SeriesNumber; None where it is not told.
        description: SeriesDescription.
        num_instances: how many instances it has; None where the archive does not count.
        patient_id: identity; to be shown only to those who ask for it.
        study_date: likewise.
    """

    study_uid: str
    series_uid: str
    modality: str = ""
    number: int | None = None
    description: str = field(default="", repr=False)
    num_instances: int | None = None
    patient_id: str = field(default="", repr=False)
    study_date: str = field(default="", repr=False)


def search(query: Query, ask: Ask) -> list[Found]:
    """All series that fit, study by study; what an archive answers beyond the question is left out.

    Source: PS3.4, annex C.6.2 (Study Root); PS3.18, section 10.6.
    """
    found: dict[str, Found] = {}
    for study in _studies(query, ask):
        keys = {
            "StudyInstanceUID": study.study_uid,
            "SeriesInstanceUID": query.series,
            "Modality": query.modality,
            **dict.fromkeys(("SeriesNumber", "SeriesDescription", "NumberOfSeriesRelatedInstances"), ""),
        }
        for answer in ask("SERIES", keys):
            one = _found(answer, study)
            if _fits(query, one):
                found.setdefault(one.series_uid, one)
    return sorted(found.values(), key=lambda one: (one.study_date, one.study_uid, one.number or 0, one.series_uid))


def instances_of(found: Found, ask: Ask) -> dict[str, str]:
    """SOP class by SOPInstanceUID of a series; "" where it is not told, nothing where the archive does not list."""
    keys = {"StudyInstanceUID": found.study_uid, "SeriesInstanceUID": found.series_uid}
    answers = ask("IMAGE", {**keys, "SOPInstanceUID": "", "SOPClassUID": ""})
    told = {text(answer, "SOPInstanceUID"): text(answer, "SOPClassUID") for answer in answers}
    return {uid: sop_class for uid, sop_class in told.items() if uid}


def _studies(query: Query, ask: Ask) -> Iterable[Found]:
    """The studies to look into; without a key of a study, whichever has the series."""
    if not any((query.patient, query.study, query.accession, query.date)):
        return [Found("", "")]
    keys = {
        "PatientID": query.patient,
        "StudyInstanceUID": query.study,
        "AccessionNumber": query.accession,
        "StudyDate": query.date,
        "ModalitiesInStudy": query.modality,
    }
    told = [
        Found(text(one, "StudyInstanceUID"), "", patient_id=text(one, "PatientID"), study_date=text(one, "StudyDate"))
        for one in ask("STUDY", keys)
    ]
    return [one for one in told if is_uid(one.study_uid) and query.study in {"", one.study_uid}]


def _found(answer: Dataset, study: Found) -> Found:
    count, position = number(answer, "NumberOfSeriesRelatedInstances"), number(answer, "SeriesNumber")
    return replace(
        study,
        study_uid=study.study_uid or text(answer, "StudyInstanceUID"),
        series_uid=text(answer, "SeriesInstanceUID"),
        modality=text(answer, "Modality"),
        number=None if position is None else int(position),
        description=text(answer, "SeriesDescription"),
        num_instances=None if count is None else int(count),
    )


def _fits(query: Query, one: Found) -> bool:
    wanted = (query.series, one.series_uid), (query.modality, one.modality)
    return is_uid(one.series_uid) and is_uid(one.study_uid) and all(not this or this == that for this, that in wanted)
