"""When an attribute of type 1C or 2C has to be there, for those whose condition the file itself tells.

Source: PS3.3, the tables of C.7 and C.8. What is not listed (laterality, temporal relations, anything that hangs on how
a scan was done) is left unjudged.
"""

from __future__ import annotations

from collections.abc import Callable

from pydicom import Dataset

from medgan.formats.dicom.elements import number, text

__all__ = ["is_required"]

_CT, _MR, _PET = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "128"))
_ENHANCED = (f"{_CT}.1", f"{_MR}.1", f"{_MR}.2", f"{_MR}.3")
_ACQUIRED = (
    "AcquisitionContrast",
    "AcquisitionDateTime",
    "AcquisitionDuration",
    "ApplicableSafetyStandardAgency",
    "ComplexImageComponent",
    "ContentQualification",
    "MagneticFieldStrength",
    "ResonantNucleus",
)
_TEXT_VRS = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}


def is_required(keyword: str, item: Dataset, root: Dataset) -> bool:
    """True if the condition of an attribute of type 1C or 2C is known and holds.

    Args:
        keyword: of the attribute.
        item: the dataset, or the item of a sequence, that it would be in.
        root: the dataset of the file.
    """
    condition = _CONDITIONS.get(keyword)
    return condition is not None and condition(item, root)


def _is_identity_removed_without(other: str) -> Callable[[Dataset, Dataset], bool]:
    return lambda item, _: text(item, "PatientIdentityRemoved") == "YES" and other not in item


def _is_pet_series(position: int, *values: str) -> Callable[[Dataset, Dataset], bool]:
    return lambda item, _: bool({*text(item, "SeriesType").split("\\")[position : position + 1]} & {*values})


def _is_palette(item: Dataset, _: Dataset) -> bool:
    return text(item, "PhotometricInterpretation") == "PALETTE COLOR"


def _has_no_code(item: Dataset, _: Dataset) -> bool:
    return not any(key in item for key in ("LongCodeValue", "URNCodeValue"))


def _has_code(item: Dataset, _: Dataset) -> bool:
    return any(text(item, key) for key in ("CodeValue", "LongCodeValue"))


def _is_scanned_without_orientation_code(item: Dataset, root: Dataset) -> bool:
    return text(root, "SOPClassUID") in {_CT, _MR, *_ENHANCED} and "PatientOrientationCodeSequence" not in item


def _is_of_no_plane(item: Dataset, root: Dataset) -> bool:
    """Classes with a plane, in the file or in its functional groups, tell the orientation there."""
    planes = {"ImageOrientationPatient", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"}
    return item is root and not any(key in item for key in planes) and text(root, "SOPClassUID") not in {_CT, _MR, _PET}


def _is_acquired(item: Dataset, root: Dataset) -> bool:
    is_of_scanner = text(item, "ImageType").split("\\")[0] in {"ORIGINAL", "MIXED"}
    return item is root and is_of_scanner and text(root, "SOPClassUID") in _ENHANCED


def _has_repetition(item: Dataset, _: Dataset) -> bool:
    is_echo_planar = "EP" in text(item, "ScanningSequence").split("\\")
    return not is_echo_planar or "SK" in text(item, "SequenceVariant").split("\\")


def _is_inverted(item: Dataset, _: Dataset) -> bool:
    return "IR" in text(item, "ScanningSequence").split("\\")


def _is_gated(item: Dataset, _: Dataset) -> bool:
    return bool({"CG", "PPG"} & {*text(item, "ScanOptions").split("\\")})


def _is_written_in_letters_beyond_ascii(_: Dataset, root: Dataset) -> bool:
    return any(not text(root, e.keyword).isascii() for e in root if e.VR in _TEXT_VRS and e.keyword)


def _has_no_other_pixels(item: Dataset, _: Dataset) -> bool:
    return not {"PixelDataProviderURL", "FloatPixelData", "DoubleFloatPixelData"} & {*item.dir("Pixel")}


def _is_lossy(item: Dataset, _: Dataset) -> bool:
    return text(item, "LossyImageCompression") == "01"


_CONDITIONS: dict[str, Callable[[Dataset, Dataset], bool]] = {
    "CodeValue": _has_no_code,
    "CodingSchemeDesignator": _has_code,
    "DecayFactor": lambda item, _: text(item, "DecayCorrection") in {"START", "ADMIN"},
    "DeidentificationMethod": _is_identity_removed_without("DeidentificationMethodCodeSequence"),
    "DeidentificationMethodCodeSequence": _is_identity_removed_without("DeidentificationMethod"),
    "FrameIncrementPointer": lambda item, _: (number(item, "NumberOfFrames") or 1) > 1,
    "InversionTime": _is_inverted,
    "LossyImageCompressionMethod": _is_lossy,
    "LossyImageCompressionRatio": _is_lossy,
    "NumberOfTimeSlices": _is_pet_series(0, "DYNAMIC"),
    "NumberOfTimeSlots": _is_pet_series(0, "GATED"),
    "PatientOrientation": _is_of_no_plane,
    "PatientPosition": _is_scanned_without_orientation_code,
    "PixelData": _has_no_other_pixels,
    "PlanarConfiguration": lambda item, _: (number(item, "SamplesPerPixel") or 1) > 1,
    "ReprojectionMethod": _is_pet_series(1, "REPROJECTION"),
    "RepetitionTime": _has_repetition,
    "RescaleSlope": lambda item, _: "RescaleIntercept" in item,
    "RescaleType": lambda item, _: "RescaleIntercept" in item and text(item, "Modality") != "CT",
    "SpecificCharacterSet": _is_written_in_letters_beyond_ascii,
    "TriggerTime": _is_gated,
    "WindowWidth": lambda item, _: "WindowCenter" in item,
    **{f"{colour}PaletteColorLookupTableDescriptor": _is_palette for colour in ("Red", "Green", "Blue")},
    **dict.fromkeys(_ACQUIRED, _is_acquired),
}
