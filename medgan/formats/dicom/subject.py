"""Who a made-up scan is of."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from pydicom.uid import generate_uid

from medgan.errors import InputError

__all__ = ["Subject", "uid_from"]

_PREFIX = "SYN-"
_NAMESPACE = uuid.UUID("5f1c7a0e-6d0b-5a53-9c8e-2b4d3f7e9a61")  # drawn once, so that texts of others cannot coincide


def uid_from(*texts: str) -> str:
    """A DICOM UID that is the same for the same texts (2.25 and a name-based UUID).

    Example:
        >>> uid_from("a", "b") == uid_from("a", "b"), uid_from("a", "b") == uid_from("ab", "")
        (True, False)
    """
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(texts)).int}"


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
        seed: what the identifiers of a sampled image derive from, see `sampled`; "" for everybody else.
    """

    patient_id: str = "MADE-UP"
    patient_name: str = "Made-up^Subject"
    sex: str = ""
    study_uid: str = field(default_factory=lambda: str(generate_uid()))
    frame_of_reference_uid: str = field(default_factory=lambda: str(generate_uid()))
    study_description: str = "Made-up scans"
    study_time: datetime = field(default_factory=datetime.now)
    seed: str = ""

    @classmethod
    def sampled(cls, patient_id: str, *, seed: str, time: datetime) -> Self:
        """Nobody: whom an image drawn from noise is of. Equal images of equal subjects become equal files.

        Args:
            patient_id: starts with `SYN-`, so that nobody takes it for a person's.
            seed: a text that belongs to this image alone, such as the hash of the weights, the seed and the image's
                number: study, series and image UIDs derive from it.
            time: when the set was drawn; all dates in the files.

        Raises:
            InputError: if the identifier does not start with SYN-, or the seed is empty.
        """
        if not patient_id.startswith(_PREFIX) or not seed:
            raise InputError(
                f"a sampled image of patient {patient_id!r} with the seed {seed!r}; its patient is {_PREFIX} and "
                "something more, and the seed a text that no other image has"
            )
        return cls(
            patient_id=patient_id,
            patient_name=f"Synthetic^{patient_id}",
            study_uid=uid_from(seed, "study"),
            frame_of_reference_uid=uid_from(seed, "frame of reference"),
            study_description="Sampled images",
            study_time=time,
            seed=seed,
        )
