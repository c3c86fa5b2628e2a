"""How a scanner acquired an image, in the names that BIDS and dcm2niix use, for the JSON file beside it.

Only what the Basic Profile of de-identification lets stand: numbers, codes, and the names of machine, sequence, kernel
and tracer. No person, institution, station, serial number, description, date, time or UID.

Source: PS3.15 table E.1-1; BIDS 1.10, metadata of MRI and PET; dcm2niix's JSON files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydicom import Dataset

from medgan.formats.dicom.elements import DAMAGE, number, text

__all__ = ["KEYWORDS", "acquisition"]

_Value = TypeVar("_Value")
_MOST_LETTERS = 64
_TEXTS = {
    "Manufacturer": "Manufacturer",
    "ManufacturersModelName": "ManufacturerModelName",
    "SoftwareVersions": "SoftwareVersions",
    "BodyPart": "BodyPartExamined",
    "PatientPosition": "PatientPosition",
    "MRAcquisitionType": "MRAcquisitionType",
    "ScanningSequence": "ScanningSequence",
    "SequenceVariant": "SequenceVariant",
    "ScanOptions": "ScanOptions",
    "SequenceName": "SequenceName",
    "ReceiveCoilName": "ReceiveCoilName",
    "InPlanePhaseEncodingDirectionDICOM": "InPlanePhaseEncodingDirection",
    "ConvolutionKernel": "ConvolutionKernel",
    "FilterType": "FilterType",
    "ReconMethodName": "ReconstructionMethod",
    "AttenuationCorrection": "AttenuationCorrectionMethod",
    "ScatterCorrectionMethod": "ScatterCorrectionMethod",
    "RandomsCorrectionMethod": "RandomsCorrectionMethod",
    "DecayCorrection": "DecayCorrection",
}
_NUMBERS = {
    "MagneticFieldStrength": "MagneticFieldStrength",  # T
    "ImagingFrequency": "ImagingFrequency",  # MHz
    "FlipAngle": "FlipAngle",  # degrees
    "EchoNumber": "EchoNumbers",
    "EchoTrainLength": "EchoTrainLength",
    "NumberOfAverages": "NumberOfAverages",
    "PixelBandwidth": "PixelBandwidth",  # Hz
    "PercentPhaseFOV": "PercentPhaseFieldOfView",
    "PercentSampling": "PercentSampling",
    "PhaseEncodingSteps": "NumberOfPhaseEncodingSteps",
    "SAR": "SAR",  # W/kg
    "SliceThickness": "SliceThickness",  # mm
    "SpacingBetweenSlices": "SpacingBetweenSlices",  # mm
    "KVP": "KVP",  # kV
    "XRayTubeCurrent": "XRayTubeCurrent",  # mA
    "XRayExposure": "Exposure",  # mAs
    "GantryDetectorTilt": "GantryDetectorTilt",  # degrees
    "ReconstructionDiameter": "ReconstructionDiameter",  # mm
    "SpiralPitchFactor": "SpiralPitchFactor",
    "DecayCorrectionFactor": "DecayFactor",
    "DoseCalibrationFactor": "DoseCalibrationFactor",
    "ScatterFraction": "ScatterFractionFactor",
}
# DICOM has milliseconds, BIDS seconds.
_TIMES = {
    "EchoTime": "EchoTime",
    "RepetitionTime": "RepetitionTime",
    "InversionTime": "InversionTime",
    "ExposureTime": "ExposureTime",
    "FrameDuration": "ActualFrameDuration",
}
_TRACER = "RadiopharmaceuticalInformationSequence"
_LISTS = {"ScatterFraction", "DecayCorrectionFactor", "FrameDuration"}  # one number a frame, in BIDS
KEYWORDS = ("ImageType", *_TEXTS.values(), *_NUMBERS.values(), *_TIMES.values(), _TRACER)


def acquisition(header: Dataset) -> dict[str, Any]:
    """How the slice with this header was acquired; what it does not say, or says wrongly, is left out.

    Args:
        header: of a classic file, or of one frame with its attributes under their classic names.

    Returns:
        Plain values for JSON: times in s, lengths in mm, angles in degrees, activity in MBq.

    Example:
        >>> header = Dataset()
        >>> header.EchoTime, header.StationName = "2.46", "MR1"
        >>> acquisition(header)
        {'EchoTime': 0.00246}
    """
    fields: dict[str, Any] = {name: _sound(text, header, keyword) for name, keyword in _TEXTS.items()}
    fields |= {name: _sound(number, header, keyword) for name, keyword in _NUMBERS.items()}
    fields |= {name: _scaled(_sound(number, header, keyword), 1e-3) for name, keyword in _TIMES.items()}
    fields["ImageType"] = [part for part in (_sound(text, header, "ImageType") or "").split("\\") if part]
    fields |= _sound(_tracer, header, _TRACER) or {}
    return {name: _plain(name, value) for name, value in fields.items() if _is_told(value)}


def _sound(read: Callable[[Dataset, str], _Value], header: Dataset, keyword: str) -> _Value | None:
    """What is read of an attribute; None where it is damaged."""
    try:
        return read(header, keyword)
    except DAMAGE:
        return None


def _tracer(header: Dataset, keyword: str) -> dict[str, Any]:
    """What was injected; not when, nor by whom."""
    item = next(iter(header.get(keyword) or ()), None)
    if item is None:
        return {}
    nuclide = next(iter(item.get("RadionuclideCodeSequence") or ()), Dataset())
    dose_mbq = _scaled(number(item, "RadionuclideTotalDose"), 1e-6)
    return {
        "TracerName": text(item, "Radiopharmaceutical"),
        "TracerRadionuclide": text(nuclide, "CodeMeaning").strip("^"),
        "InjectedRadioactivity": dose_mbq,
        "InjectedRadioactivityUnits": "MBq" if dose_mbq is not None else "",
        "RadionuclideHalfLife": number(item, "RadionuclideHalfLife"),
        "RadionuclidePositronFraction": number(item, "RadionuclidePositronFraction"),
    }


def _scaled(value: float | None, factor: float) -> float | None:
    """To nine decimals: 2.46 ms are 0.00246 s, without the noise of binary fractions."""
    return None if value is None else round(value * factor, 9)


def _is_told(value: Any) -> bool:
    return value is not None and value not in ("", []) and not (isinstance(value, str) and len(value) > _MOST_LETTERS)


def _plain(name: str, value: Any) -> Any:
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return [value] if name in _LISTS else value
