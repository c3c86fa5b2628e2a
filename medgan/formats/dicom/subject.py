"""Who a made-up scan is of."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pydicom.uid import generate_uid

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """The patient and study that scans without a source series belong to, such as phantoms.

    Scans written with the same subject are of one study and share one frame of reference.

    Args:
        patient_id: as in DICOM's PatientID.
        patient_name: in DICOM's form, `Family^Given`.
        sex: `M`, `F`, `O` or "".
        study_uid: StudyInstanceUID; a new one if not given.
        frame_of_reference_uid: FrameOfReferenceUID; a new one if not given.
        study_description: as in DICOM's StudyDescription.
        study_time: date and time of the study; now if not given.
    """

    patient_id: str = "MADE-UP"
    patient_name: str = "Made-up^Subject"
    sex: str = ""
    study_uid: str = field(default_factory=lambda: str(generate_uid()))
    frame_of_reference_uid: str = field(default_factory=lambda: str(generate_uid()))
    study_description: str = "Made-up scans"
    study_time: datetime = field(default_factory=datetime.now)
