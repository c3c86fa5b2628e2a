"""Rules across the files of a series, and across the series of a study and a patient.

Source: PS3.3 Annex A.1.2 (attributes of a patient, study, series or frame of reference are the same in all its
instances), C.12.1 (SOPInstanceUID).
"""

from __future__ import annotations

import filecmp
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from medgan.formats.dicom.elements import text
from medgan.formats.dicom.lint.complaint import Checks, Found
from medgan.formats.dicom.lint.derived import image_type
from medgan.formats.dicom.lint.image import Image, finite, is_synthetic
from medgan.formats.dicom.mark import synthesis_of

__all__ = ["CHECKS", "KEPT", "SET_CHECKS"]

_PATIENT = ("PatientName", "PatientBirthDate", "PatientSex")
_STUDY_IDENTITY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_STUDY = (
    "StudyDate",
    "StudyTime",
    "StudyID",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
)
_SERIES_IDENTITY = ("StudyInstanceUID", "Modality", "FrameOfReferenceUID", "PatientID")
_SERIES = (
    "AccessionNumber",
    "SeriesNumber",
    "SeriesDescription",
    "SeriesDate",
    "SeriesTime",
    "BodyPartExamined",
    "Laterality",
    "PatientPosition",
    "ProtocolName",
    "Manufacturer",
    "ManufacturerModelName",
    "PositionReferenceIndicator",
    "SyntheticData",
)
_MARKS = ("ImageType", "ContributingEquipmentSequence", "DerivationCodeSequence", "ImageComments")
_WINDOW = ("WindowCenter", "WindowWidth", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept")
KEPT = (
    *_PATIENT,
    *_STUDY_IDENTITY,
    *_STUDY,
    *_SERIES_IDENTITY,
    *_SERIES,
    *_MARKS,
    *_WINDOW,
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "PixelPaddingValue",
    "RescaleType",
)


def series_identity(images: Sequence[Image]) -> Found:
    """Files of one SeriesInstanceUID of other studies, patients, frames of reference or modalities."""
    yield from _differing(images, _SERIES_IDENTITY, "a series has one")


def series_attributes(images: Sequence[Image]) -> Found:
    """Files of one series that describe the series differently."""
    yield from _differing(images, _SERIES, "the files of a series have one")


def instance_uid_twice(images: Sequence[Image]) -> Found:
    """Different files with one SOPInstanceUID."""
    for twins in _twins(images):
        if not _are_copies(twins):
            yield "different files share a SOPInstanceUID; a PACS keeps one of them", [image.path for image in twins]


def copied_file(images: Sequence[Image]) -> Found:
    """The same file twice."""
    for twins in _twins(images):
        if _are_copies(twins):
            yield "the same file lies here more than once", [image.path for image in twins]


def stale_window(images: Sequence[Image]) -> Found:
    """A window that shows all pixels of the series as one grey: outside their range, or far wider."""
    ranges = [image.values for image in images if image.values is not None]
    if not ranges:
        return
    low, high = min(least for least, _ in ranges), max(most for _, most in ranges)
    bad = [image.path for image in images if low < high and _shows_one_grey(image, low, high)]
    if bad:
        told = f"its windows show all values of the series, {low:g} to {high:g}, as one grey; are they another image's?"
        yield told, bad


def stale_padding(images: Sequence[Image]) -> Found:
    """PixelPaddingValue in a synthetic series, none of whose pixels has it."""
    stated = [image.path for image in images if "PixelPaddingValue" in image.dataset and is_synthetic(image.dataset)]
    if stated and not any(image.pixels.num_padding for image in images):
        yield "PixelPaddingValue is stated, but no pixel of the series has it; is it another image's?", stated


def ct_without_air(images: Sequence[Image]) -> Found:
    """A CT in HU no value of which is below 0: a rescale that was forgotten, or no CT."""
    slices = [image for image in images if _is_ct_in_hu(image)]
    lows = [image.values[0] for image in slices if image.values is not None]
    if slices and len(lows) == len(slices) and min(lows) >= 0:
        yield "is a CT in HU, but no value is below 0: there is no air, fat or water", [image.path for image in slices]


def patient_identity(images: Sequence[Image]) -> Found:
    """Files of one PatientID whose name, birth date or sex differ."""
    for group in _groups(images, "PatientID"):
        yield from _differing(group, _PATIENT, "a patient (PatientID) has one")


def study_identity(images: Sequence[Image]) -> Found:
    """Files of one StudyInstanceUID of different patients."""
    for group in _groups(images, "StudyInstanceUID"):
        yield from _differing(group, _STUDY_IDENTITY, "a study (StudyInstanceUID) has one")


def study_attributes(images: Sequence[Image]) -> Found:
    """Files of one study that describe the study differently."""
    for group in _groups(images, "StudyInstanceUID"):
        yield from _differing(group, _STUDY, "the files of a study have one")


def frame_of_other_patient(images: Sequence[Image]) -> Found:
    """A FrameOfReferenceUID that files of several patients share."""
    for group in _groups(images, "FrameOfReferenceUID"):
        if any(True for _ in _differing(group, ("PatientID",), "")):
            yield "files of several patients share a FrameOfReferenceUID", [image.path for image in group]


def instance_uid_in_two_series(images: Sequence[Image]) -> Found:
    """Files of different series with one SOPInstanceUID."""
    for twins in _twins(images):
        if len({image.series for image in twins}) > 1:
            yield "files of different series share a SOPInstanceUID", [image.path for image in twins]


CHECKS: Checks = {
    "error": (series_identity, instance_uid_twice),
    "warning": (series_attributes, stale_window, stale_padding, ct_without_air),
    "note": (copied_file,),
}
# Of all series together.
SET_CHECKS: Checks = {
    "error": (patient_identity, study_identity, frame_of_other_patient, instance_uid_in_two_series),
    "warning": (study_attributes,),
}


def _differing(images: Sequence[Image], keys: Sequence[str], rule: str) -> Found:
    """Which attributes are not the same in all files; an absent one counts as an empty one."""
    for key in keys:
        told = [text(image.dataset, key) for image in images]
        usual, _ = Counter(told).most_common(1)[0]
        odd = [image.path for image, one in zip(images, told, strict=True) if one != usual]
        if odd:
            yield f"{key} differs from that of the other files; {rule}", odd


def _groups(images: Sequence[Image], key: str) -> Iterator[list[Image]]:
    groups: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        groups[text(image.dataset, key)].append(image)
    yield from (group for name, group in groups.items() if name)


def _twins(images: Sequence[Image]) -> Iterator[list[Image]]:
    yield from (group for group in _groups(images, "SOPInstanceUID") if len(group) > 1)


def _are_copies(twins: Sequence[Image]) -> bool:
    return all(_is_copy(twins[0].path, other.path) for other in twins[1:])


def _is_copy(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _shows_one_grey(image: Image, low: float, high: float) -> bool:
    """Of several windows all have to."""
    centres, widths = finite(image.dataset, "WindowCenter"), finite(image.dataset, "WindowWidth")
    windows = [(centre - width / 2, centre + width / 2) for centre, width in zip(centres, widths, strict=False)]
    return bool(windows) and all(
        end < low or start > high or (high - low) < 0.02 * (end - start) for start, end in windows
    )


def _is_ct_in_hu(image: Image) -> bool:
    """Not so of a localizer, nor of a map that belongs to a CT, such as its standard deviation."""
    made_by = synthesis_of(image.dataset)
    is_ct = text(image.dataset, "Modality") == "CT" and "LOCALIZER" not in image_type(image.dataset)
    is_map = made_by is not None and made_by.quantity
    return is_ct and not is_map and text(image.dataset, "RescaleType") in {"", "HU"} and image.values is not None
