"""Rules on one file that says, or gives away, that it was made from other images or by a model.

Source: PS3.3 C.7.6.1.1.2 (ImageType), C.8.2.1.1.1 (CT), C.8.3.1.1.1 (MR), C.8.9.4.1.1 (PET), C.12.1 (SyntheticData),
C.7.6.1 (derivation, source images), C.12.2 (references); PS3.16 CID 7005 (contributing equipment).
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import Dataset

from medgan.formats.dicom.attributes import HEAD
from medgan.formats.dicom.elements import text
from medgan.formats.dicom.lint.complaint import Checks
from medgan.formats.dicom.lint.image import Image, claimed_scanner, is_synthetic, items, synthesizers

__all__ = ["CHECKS", "image_type", "source_uids"]

_NOBODY = "synthetic, no subject"
_ACQUIRED = (
    "KVP",
    "XRayTubeCurrent",
    "ExposureTime",
    "Exposure",
    "CTDIvol",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "MagneticFieldStrength",
    "SAR",
    "SequenceName",
)


def image_type_values(image: Image) -> Iterator[str]:
    """ImageType whose first two values are none of those that there are."""
    parts = image_type(image.dataset)
    mixed = {"MIXED"} if "SharedFunctionalGroupsSequence" in image.dataset else set()
    if not parts:
        return
    if parts[0] not in {"ORIGINAL", "DERIVED"} | mixed:
        yield "value 1 of ImageType is neither ORIGINAL nor DERIVED"
    if len(parts) < 2 or parts[1] not in {"PRIMARY", "SECONDARY"} | mixed:
        yield "value 2 of ImageType is neither PRIMARY nor SECONDARY"
    elif claimed_scanner(image.dataset) == "PT" and parts[1] != "PRIMARY":
        yield "value 2 of ImageType is not PRIMARY, the only one that PET has"


def image_type_value_3(image: Image) -> Iterator[str]:
    """CT and MR say in value 3 of ImageType what the image is: AXIAL or LOCALIZER in CT; in MR any term."""
    parts, scanner = image_type(image.dataset), claimed_scanner(image.dataset)
    third = parts[2] if len(parts) > 2 else ""
    if parts and scanner == "CT" and third not in {"AXIAL", "LOCALIZER"}:
        yield f"value 3 of ImageType is {repr(third) if third else 'absent'}; a CT has AXIAL (any plane) or LOCALIZER"
    if parts and scanner == "MR" and not third:
        yield "value 3 of ImageType is absent; an MR has one, such as OTHER"


def synthetic_not_derived(image: Image) -> Iterator[str]:
    """Synthetic data whose ImageType is not DERIVED."""
    if is_synthetic(image.dataset) and image_type(image.dataset)[:1] != ["DERIVED"]:
        yield "says that it is synthetic, but value 1 of ImageType is not DERIVED"


def derivation_not_derived(image: Image) -> Iterator[str]:
    """A file that tells how its pixels were derived, with ImageType ORIGINAL."""
    told = [key for key in ("DerivationDescription", "DerivationCodeSequence") if text(image.dataset, key)]
    if told and image_type(image.dataset)[:1] == ["ORIGINAL"] and not is_synthetic(image.dataset):
        yield f"{told[0]} says how its pixels were derived, but value 1 of ImageType is ORIGINAL"


def synthetic_not_said(image: Image) -> Iterator[str]:
    """A file that gives away that it is synthetic without SyntheticData YES."""
    if is_synthetic(image.dataset) and text(image.dataset, "SyntheticData") != "YES":
        yield "its equipment, derivation or label says that it is synthetic, but SyntheticData is not YES"


def synthesizing_equipment(image: Image) -> Iterator[str]:
    """Synthetic data that does not name what made it."""
    if text(image.dataset, "SyntheticData") == "YES" and not synthesizers(image.dataset):
        yield "SyntheticData is YES, but ContributingEquipmentSequence has no item of Synthesizing Equipment (109100)"


def diagnostic_label(image: Image) -> Iterator[str]:
    """Synthetic data without a label that people see."""
    told = " ".join(text(image.dataset, key).lower() for key in ("SeriesDescription", "ImageComments"))
    if is_synthetic(image.dataset) and not ("not for diagnos" in told or "not for clinical" in told):
        yield "is synthetic, but neither SeriesDescription nor ImageComments says 'not for diagnostic use'"


def content_qualification(image: Image) -> Iterator[str]:
    """Synthetic data that is not qualified as RESEARCH."""
    if is_synthetic(image.dataset) and text(image.dataset, "ContentQualification") not in {"RESEARCH", "SERVICE"}:
        yield "is synthetic, but ContentQualification is not RESEARCH"


def private_in_synthetic(image: Image) -> Iterator[str]:
    """Private groups of a scanner in an image that no scanner made."""
    if image.creators and is_synthetic(image.dataset):
        named = ", ".join(sorted({creator or "nobody named" for creator in image.creators}))
        yield f"is synthetic, but holds private attributes of {named}; they describe another image"


def acquisition_claimed(image: Image) -> Iterator[str]:
    """An acquisition parameter of a scanner in an image that no scanner made."""
    claimed = [key for key in _ACQUIRED if text(image.dataset, key)]
    if claimed and is_synthetic(image.dataset):
        yield f"is synthetic, but states how it was acquired: {', '.join(claimed)}"


def procedure_step_kept(image: Image) -> Iterator[str]:
    """The performed procedure step or request of the scan in an image that no scanner made."""
    keys = ("ReferencedPerformedProcedureStepSequence", "RequestAttributesSequence")
    kept = [key for key in keys if items(image.dataset, key)]
    if kept and is_synthetic(image.dataset):
        yield f"is synthetic, but refers to the procedure of the scan: {', '.join(kept)}"


def no_source_images(image: Image) -> Iterator[str]:
    """Synthetic data of a patient that does not name the images that it was made from."""
    is_of_nobody = text(image.dataset, "DeidentificationMethod") == _NOBODY
    if is_synthetic(image.dataset) and not is_of_nobody and not source_uids(image.dataset):
        yield "is synthetic and has no SourceImageSequence; that is right only if no image went into it"


def unlisted_source(image: Image) -> Iterator[str]:
    """A source image that ReferencedSeriesSequence, where there is one, does not list."""
    series = items(image.dataset, "ReferencedSeriesSequence")
    listed = {
        text(one, "ReferencedSOPInstanceUID") for each in series for one in items(each, "ReferencedInstanceSequence")
    }
    if "StudiesContainingOtherReferencedInstancesSequence" in image.dataset or not source_uids(image.dataset):
        return
    if is_synthetic(image.dataset) and not series:
        yield "names source images, but has no ReferencedSeriesSequence that says where they are"
    elif series and not listed.issuperset(source_uids(image.dataset)):
        yield "SourceImageSequence names images that ReferencedSeriesSequence does not list"


def source_of_itself(image: Image) -> Iterator[str]:
    """An image that names itself as its source."""
    if image.uid and image.uid in source_uids(image.dataset):
        yield "SourceImageSequence names the image itself"


def recognizable_features(image: Image) -> Iterator[str]:
    """A synthetic head that does not say whether it shows a face."""
    is_head = text(image.dataset, "BodyPartExamined").upper() in HEAD
    if is_head and is_synthetic(image.dataset) and not text(image.dataset, "RecognizableVisualFeatures"):
        yield "is of a head and synthetic, but does not state RecognizableVisualFeatures"


def hu_not_stated(image: Image) -> Iterator[str]:
    """A synthetic CT that does not say that its values are HU."""
    unit = text(image.dataset, "RescaleType")
    if claimed_scanner(image.dataset) == "CT" and is_synthetic(image.dataset) and unit not in {"HU", "HU_MOD"}:
        yield f"is a synthetic CT, and RescaleType is {repr(unit) if unit else 'absent'}; write HU"


CHECKS: Checks = {
    "error": (image_type_values, synthetic_not_derived, synthetic_not_said, source_of_itself),
    "warning": (
        image_type_value_3,
        derivation_not_derived,
        synthesizing_equipment,
        diagnostic_label,
        private_in_synthetic,
        acquisition_claimed,
        procedure_step_kept,
        unlisted_source,
        recognizable_features,
        hu_not_stated,
    ),
    "note": (content_qualification, no_source_images),
}


def image_type(dataset: Dataset) -> list[str]:
    """The values of ImageType."""
    whole = text(dataset, "ImageType")
    return [part.strip() for part in whole.split("\\")] if whole else []


def source_uids(dataset: Dataset) -> set[str]:
    """The instances that SourceImageSequence names."""
    return {text(item, "ReferencedSOPInstanceUID") for item in items(dataset, "SourceImageSequence")} - {""}
