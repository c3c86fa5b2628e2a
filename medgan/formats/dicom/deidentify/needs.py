"""How much of an attribute must be left, so that the object stays valid without what the profile takes from it.

Type 1 attributes, and 1C ones that were there, must have a value (D); type 2 and 2C ones must be there, if only empty
(Z); all others may go (X). At the top of an object the types are those of its class. Within sequences, those of the
profile's attributes are listed here whose weakest action would be too weak.

Source:
    DICOM PS3.3, Annexes A and C, and PS3.15, Section E.1.1.
"""

from __future__ import annotations

from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.tag import BaseTag
from pydicom.uid import EnhancedPETImageStorage

from medgan.formats.dicom.lint.iod import iod_of

__all__ = ["weakest"]

_STRENGTH = {"X": 1, "Z": 2, "D": 3}
_BY_TYPE = {"1": "D", "1C": "D", "2": "Z", "2C": "Z"}
# A condition for a sequence of references or codes falls away with them.
_NEVER_NEEDED = {"ReferencedPerformedProcedureStepSequence", "OperatorIdentificationSequence"}
_WITHIN = (
    ("D", "BreedRegistrationSequence", "BreedRegistrationNumber"),
    ("D", "GroupOfPatientsIdentificationSequence", "PatientID"),
    ("D", "OperatorIdentificationSequence", "InstitutionName"),
    ("D", "SourcePatientGroupIdentificationSequence", "PatientID"),
    ("D", "SourceSeriesInformationSequence", "SeriesDate SeriesTime SeriesDescription"),
    ("D", "XRay3DAcquisitionSequence", "ContrastBolusAgent StartAcquisitionDateTime EndAcquisitionDateTime"),
    ("Z", "AcquisitionDeviceSequence", "DeviceSerialNumber"),
    ("Z", "AuthorIdentificationSequence", "InstitutionName InstitutionCodeSequence StationName"),
    ("Z", "BeamSequence", "TreatmentMachineName"),
    ("Z", "EnhancedRTBeamLimitingDeviceSequence", "DeviceSerialNumber"),
    ("Z", "GeneralAccessoryDefinitionSequence", "DeviceSerialNumber"),
    ("Z", "IonBeamSequence", "TreatmentMachineName"),
    ("Z", "PatientSupportDevicesSequence", "DeviceSerialNumber"),
    ("Z", "PatientTreatmentPreparationDeviceSequence", "DeviceSerialNumber"),
    (
        "Z",
        "PatientTreatmentPreparationProcedureSequence",
        "PatientTreatmentPreparationProcedureParameterDescription",
    ),
    ("Z", "PlanOverviewSequence", "TreatmentSite"),
    ("Z", "RTBeamLimitingDeviceDefinitionSequence", "DeviceSerialNumber"),
    ("Z", "ReferencedPatientSetupPhotoSequence", "PatientSetupPhotoDescription"),
    ("Z", "TreatmentMachineSequence", "TreatmentMachineName"),
    ("Z", "XRayFilterSequence", "DeviceSerialNumber"),
    (
        "D",
        "ContributingSourcesSequence",
        "AcquisitionDateTime StationName OperatorsName DeviceSerialNumber ProtocolName DetectorID "
        "AcquisitionDeviceProcessingDescription DateOfLastDetectorCalibration TimeOfLastDetectorCalibration",
    ),
)
_NEEDS = {(parent, keyword): need for need, parent, keywords in _WITHIN for keyword in keywords.split()}
_START = ("RadiopharmaceuticalInformationSequence", "RadiopharmaceuticalStartDateTime")


def weakest(action: str, tag: BaseTag, parent: str, sop_class: str) -> str:
    """The weakest part of a compound action that leaves an object valid: X, Z or D.

    Args:
        action: such as `X/Z/D`.
        tag: of the attribute.
        parent: keyword of the sequence that it stands in, "" for none.
        sop_class: SOPClassUID of the object.

    Example:
        >>> from pydicom.tag import Tag
        >>> from pydicom.uid import CTImageStorage, PositronEmissionTomographyImageStorage as PETImageStorage
        >>> [weakest("X/D", Tag("SeriesDate"), "", uid) for uid in (CTImageStorage, PETImageStorage)]
        ['X', 'D']
    """
    keyword = keyword_for_tag(tag)
    need = _within(parent, keyword, sop_class) if parent else _at_top(tag, keyword, sop_class)
    return max(need, min(action.split("/"), key=_STRENGTH.__getitem__), key=_STRENGTH.__getitem__)


def _within(parent: str, keyword: str, sop_class: str) -> str:
    if (parent, keyword) == _START and sop_class == EnhancedPETImageStorage:
        return "D"
    return _NEEDS.get((parent, keyword), "X")


def _at_top(tag: BaseTag, keyword: str, sop_class: str) -> str:
    iod = iod_of(sop_class)
    if iod is None or keyword in _NEVER_NEEDED or not dictionary_has_tag(tag):
        return "X"
    lists = [iod.mandatory] if keyword in iod.mandatory else list(iod.optional.values())
    needs = [_BY_TYPE.get(one[keyword].kind, "X") for one in lists if keyword in one]
    return max(needs, key=_STRENGTH.__getitem__, default="X")
