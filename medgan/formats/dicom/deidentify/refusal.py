"""What is not released: what cannot be cleaned, and images that may have text in their pixels."""

from __future__ import annotations

import re

from pydicom import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeformableSpatialRegistrationStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    NuclearMedicineImageStorage,
    ParametricMapStorage,
    PositronEmissionTomographyImageStorage,
    RealWorldValueMappingStorage,
    RTDoseStorage,
    RTIonPlanStorage,
    RTPlanStorage,
    RTStructureSetStorage,
    SegmentationStorage,
    SpatialRegistrationStorage,
)

from medgan.formats.dicom.elements import name_of, number, text

__all__ = ["HEAD_SCANS", "why_refused"]

# Scanners write no text into these.
HEAD_SCANS = {
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MRImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    PositronEmissionTomographyImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
}
_SCANS = HEAD_SCANS | {NuclearMedicineImageStorage}
_MEASURES = {
    DeformableSpatialRegistrationStorage,
    ParametricMapStorage,
    RTDoseStorage,
    RTIonPlanStorage,
    RTPlanStorage,
    RTStructureSetStorage,
    RealWorldValueMappingStorage,
    SegmentationStorage,
    SpatialRegistrationStorage,
}
# In ImageType: pictures of a screen, of a protocol or of a dose report in the guise of a scan.
_SCREEN_WORDS = {"SCREEN", "SCREENSAVE", "CAPTURE", "PASTED", "DOSE", "PROT", "PROTOCOL", "REPORT"}


def why_refused(dataset: Dataset, *, allow_burned_in: bool) -> str:
    """Why an object is not released, without a word of its own; "" if it may be.

    Args:
        dataset: as it came, with its pixels.
        allow_burned_in: accept images that do not say whether there is text in their pixels.
    """
    sop_class = text(dataset, "SOPClassUID")
    if not sop_class or not text(dataset, "SOPInstanceUID"):
        return "does not say what it is (no SOPClassUID or SOPInstanceUID)"
    if sop_class in _MEASURES:
        return ""
    if "Image Storage" not in name_of(sop_class):
        return f"holds text or data that cannot be cleaned ({_kind(sop_class)})"
    burned_in = text(dataset, "BurnedInAnnotation")
    if burned_in == "YES":
        return "says that text is burned into its pixels (BurnedInAnnotation YES)"
    if burned_in == "NO" or allow_burned_in or not _may_show_text(dataset, sop_class):
        return ""
    return f"may have text in its pixels and does not say BurnedInAnnotation NO ({_kind(sop_class)})"


def _kind(sop_class: str) -> str:
    name = name_of(sop_class)
    return name if UID(sop_class).keyword else "a private or unknown class"


def _may_show_text(dataset: Dataset, sop_class: str) -> bool:
    """False for grey images of a scanner that are no pictures of a screen."""
    if sop_class not in _SCANS or (number(dataset, "SamplesPerPixel") or 1) > 1:
        return True
    return not _SCREEN_WORDS.isdisjoint(re.findall("[A-Z]+", text(dataset, "ImageType").upper()))
