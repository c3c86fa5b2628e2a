"""Which attributes a derived series takes over from its source, and which its kind of image must have.

A derived file is built from these lists, never by copying a header and dropping what is wrong in it: what is not
named here (private groups, windows, extreme values, requests, times of another acquisition) does not come along.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import (
    UID,
    CTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

__all__ = ["EQUIPMENT", "HEAD", "KINDS", "KNOWN", "SERIES_WIDE", "SLICE_WISE", "TYPE_2", "Kind", "kind_of"]

_PATIENT = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "QualityControlSubject",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
)
_TRIAL = (
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
)
_STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "LongitudinalTemporalInformationModified",
)
_PLACE = (
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "PatientPosition",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    "Laterality",
)
_PICTURE = (
    "RecognizableVisualFeatures",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
SERIES_WIDE = ("SpecificCharacterSet", *_PATIENT, *_TRIAL, *_STUDY, *_PLACE, *_PICTURE)
SLICE_WISE = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
)
EQUIPMENT = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)
_PROVENANCE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "ImageType",
    "BurnedInAnnotation",
    "SyntheticData",
    "ContributingEquipmentSequence",
)
# Attributes that every file has, if only empty.
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "PatientPosition",
    "SliceThickness",
    "AcquisitionNumber",
)
HEAD = {"HEAD", "BRAIN", "FACE", "SKULL", "HEADNECK", "ORBIT", "JAW", "SINUS", "EAR"}

_ACQUISITION = (
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionNumber",
    "ProtocolName",
    "ScanOptions",
    "ReconstructionDiameter",
    "ContrastBolusAgent",
    "ContrastBolusRoute",
)
_MR = (
    "ScanningSequence",
    "SequenceVariant",
    "MRAcquisitionType",
    "SequenceName",
    "AngioFlag",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "EchoTrainLength",
    "EchoNumbers",
    "FlipAngle",
    "NumberOfAverages",
    "ImagingFrequency",
    "ImagedNucleus",
    "MagneticFieldStrength",
    "NumberOfPhaseEncodingSteps",
    "PercentSampling",
    "PercentPhaseFieldOfView",
    "PixelBandwidth",
    "ReceiveCoilName",
    "TransmitCoilName",
    "AcquisitionMatrix",
    "InPlanePhaseEncodingDirection",
    "VariableFlipAngleFlag",
    "SAR",
    "dBdt",
    "TriggerTime",
)
_CT = (
    "KVP",
    "DataCollectionDiameter",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "GantryDetectorTilt",
    "TableHeight",
    "RotationDirection",
    "ExposureTime",
    "XRayTubeCurrent",
    "Exposure",
    "FilterType",
    "GeneratorPower",
    "FocalSpots",
    "ConvolutionKernel",
    "RevolutionTime",
    "SingleCollimationWidth",
    "TotalCollimationWidth",
    "TableSpeed",
    "TableFeedPerRotation",
    "SpiralPitchFactor",
    "CTDIvol",
)
_PT = (
    "Units",
    "CountsSource",
    "SeriesType",
    "ReprojectionMethod",
    "CorrectedImage",
    "DecayCorrection",
    "CollimatorType",
    "RandomsCorrectionMethod",
    "AttenuationCorrectionMethod",
    "ScatterCorrectionMethod",
    "ReconstructionMethod",
    "SUVType",
    "RadiopharmaceuticalInformationSequence",
    "PatientOrientationCodeSequence",
    "PatientGantryRelationshipCodeSequence",
    "FrameReferenceTime",
    "ActualFrameDuration",
    "DecayFactor",
    "DoseCalibrationFactor",
    "ScatterFractionFactor",
    "DeadTimeFactor",
)


@dataclass(frozen=True)
class Kind:
    """What files of one modality are.

    Args:
        sop_class: the class of object that they are.
        image_type: ImageType of a derived image.
        units: units of a volume that its values can be in.
        acquisition: attributes on how the scanner made the image; kept only where it is still the scanner's image.
        needed: attributes that the class demands, with the value that claims least; None is an empty value.
    """

    sop_class: UID
    image_type: tuple[str, ...]
    units: tuple[str, ...]
    acquisition: tuple[str, ...]
    needed: dict[str, Any] = field(default_factory=dict)


KINDS = {
    "CT": Kind(
        sop_class=CTImageStorage,
        image_type=("DERIVED", "SECONDARY", "AXIAL"),
        units=("HU",),
        acquisition=(*_ACQUISITION, *_CT),
        needed={"KVP": None},
    ),
    "MR": Kind(
        sop_class=MRImageStorage,
        image_type=("DERIVED", "SECONDARY", "OTHER"),
        units=("a.u.", "normalised"),
        acquisition=(*_ACQUISITION, *_MR),
        needed={
            "ScanningSequence": "RM",
            "SequenceVariant": "NONE",
            "ScanOptions": None,
            "MRAcquisitionType": None,
            "RepetitionTime": None,
            "EchoTime": None,
            "EchoTrainLength": None,
        },
    ),
    "PT": Kind(
        sop_class=PositronEmissionTomographyImageStorage,
        image_type=("DERIVED", "PRIMARY"),  # the only second value that PET may have
        units=("Bq/ml", "a.u."),
        acquisition=(*_ACQUISITION, *_PT),
        needed={
            "Units": "NONE",
            "CountsSource": "EMISSION",
            "SeriesType": ["STATIC", "IMAGE"],
            "CorrectedImage": None,
            "DecayCorrection": "NONE",
            "CollimatorType": None,
            "RadiopharmaceuticalInformationSequence": [],
            "PatientOrientationCodeSequence": [],
            "PatientGantryRelationshipCodeSequence": [],
            "AcquisitionDate": None,
            "AcquisitionTime": None,
            "FrameReferenceTime": 0,
            "ActualFrameDuration": 0,
        },
    ),
}
# What a sampled image of any other modality is: no scanner's class fits an image that nothing captured.
_CAPTURE = Kind(
    sop_class=SecondaryCaptureImageStorage,
    image_type=("DERIVED", "SECONDARY"),
    units=("a.u.", "normalised"),
    acquisition=(),
    needed={"ConversionType": "SYN"},
)


def kind_of(modality: str) -> Kind:
    """What files of a modality are: Secondary Capture, if it has no class of its own here."""
    return KINDS.get(modality, _CAPTURE)


# All that is ever asked of a source.
KNOWN = (*_PROVENANCE, *EQUIPMENT, *SERIES_WIDE, *SLICE_WISE, *_ACQUISITION, *_MR, *_CT, *_PT)
