"""Rules that compare a derived series with the series that it was made from.

Source: PS3.3 C.7.6.1 (source images), C.7.4.1 (frame of reference), C.7.6.2 (image plane), C.7.6.1.1.5 (lossy).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medgan.formats.dicom.elements import number, text
from medgan.formats.dicom.lint.complaint import Checks, Found
from medgan.formats.dicom.lint.derived import image_type, source_uids
from medgan.formats.dicom.lint.image import Image, finite, is_synthetic

__all__ = ["CHECKS", "KEPT"]

_PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
KEPT = (
    *_PATIENT,
    *_STUDY,
    "FrameOfReferenceUID",
    "PatientPosition",
    "SourceImageSequence",
    "BurnedInAnnotation",
    "LossyImageCompression",
)
_SAME_PLACE_MM = 0.01


def uid_of_source(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """An instance or series UID of the source in the derived series."""
    for key, what in (("SOPInstanceUID", "instances"), ("SeriesInstanceUID", "series")):
        taken = {text(image.dataset, key) for image in source} - {""}
        bad = [image.path for image in images if text(image.dataset, key) in taken]
        if bad:
            yield f"has the {key} of the source; a derived series has {what} of its own", bad


def source_patient(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """Another patient than the source's."""
    yield from _not_kept(images, source, _PATIENT)


def source_study(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """Another study than the source's."""
    yield from _not_kept(images, source, _STUDY)


def source_frame(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """Another frame of reference or patient position than the source's, so that viewers do not lay them together."""
    keys = ["FrameOfReferenceUID"]
    if {text(image.dataset, "Modality") for image in images} <= {"CT", "MR"}:
        keys.append("PatientPosition")
    yield from _not_kept(images, source, keys)


def source_missing(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """A SourceImageSequence that names images that the source does not have."""
    held = {image.uid for image in source}
    bad = [image.path for image in images if not source_uids(image.dataset) <= held]
    if bad:
        yield "SourceImageSequence names images that are not in the source series", bad


def source_not_named(images: Sequence[Image], _source: Sequence[Image]) -> Found:
    """No SourceImageSequence, though there is a source."""
    bad = [image.path for image in images if not source_uids(image.dataset)]
    if bad:
        yield "has no SourceImageSequence, so nobody can tell what it was made from", bad


def original_with_source(images: Sequence[Image], _source: Sequence[Image]) -> Found:
    """A series made from another whose ImageType is not DERIVED."""
    bad = [image.path for image in images if image_type(image.dataset)[:1] != ["DERIVED"]]
    if bad:
        yield "was made from the source, but value 1 of ImageType is not DERIVED", bad


def synthetic_lost(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """What is made from synthetic data is synthetic data."""
    if any(is_synthetic(image.dataset) for image in source):
        bad = [image.path for image in images if text(image.dataset, "SyntheticData") != "YES"]
        if bad:
            yield "the source is synthetic, so SyntheticData has to be YES here too", bad


def lossy_lost(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """What was compressed with loss once stays so."""
    if any(text(image.dataset, "LossyImageCompression") == "01" for image in source):
        bad = [image.path for image in images if text(image.dataset, "LossyImageCompression") != "01"]
        if bad:
            yield "the source was compressed with loss, so LossyImageCompression stays 01", bad


def burned_in_claimed(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """BurnedInAnnotation NO, which the source does not say."""
    if all(text(image.dataset, "BurnedInAnnotation") == "NO" for image in source):
        return
    bad = [image.path for image in images if text(image.dataset, "BurnedInAnnotation") == "NO"]
    if bad:
        yield "BurnedInAnnotation is NO, which the source does not say", bad


def geometry_moved(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """A slice on the matrix of the source image that it names, at another place."""
    moved = [(image, off) for image, off in _offsets(images, source) if off > _SAME_PLACE_MM]
    if moved:
        told = f"lies up to {max(off for _, off in moved):.3f} mm off the source image that it names"
        yield told, [image.path for image, _ in moved]


def geometry_rounded(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """A slice at the place of the source image that it names, but not to the last digit."""
    rounded = [image.path for image, off in _offsets(images, source) if 0 < off <= _SAME_PLACE_MM]
    if rounded:
        yield (
            "position, orientation or spacing is not to the last digit that of the source image; copy the text",
            rounded,
        )


def source_window(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """The window of the source in an image of another modality."""
    windows = {_window(image) for image in source} - {None}
    others = {text(image.dataset, "Modality") for image in source}
    bad = [
        image.path for image in images if text(image.dataset, "Modality") not in others and _window(image) in windows
    ]
    if bad:
        yield "has the window of the source, which is of another modality", bad


def series_number_of_source(images: Sequence[Image], source: Sequence[Image]) -> Found:
    """The SeriesNumber of the source, so that lists show two series under one number."""
    taken = {number(image.dataset, "SeriesNumber") for image in source} - {None}
    bad = [image.path for image in images if number(image.dataset, "SeriesNumber") in taken]
    if bad:
        yield "has the SeriesNumber of the source; give it one of its own", bad


CHECKS: Checks = {
    "error": (
        uid_of_source,
        source_patient,
        source_study,
        source_frame,
        source_missing,
        original_with_source,
        synthetic_lost,
        lossy_lost,
        geometry_moved,
    ),
    "warning": (source_not_named, burned_in_claimed, geometry_rounded, source_window, series_number_of_source),
}


def _not_kept(images: Sequence[Image], source: Sequence[Image], keys: Sequence[str]) -> Found:
    """Attributes that no source image has in that value; empty and absent are the same."""
    for key in keys:
        known = {text(image.dataset, key) for image in source}
        bad = [image.path for image in images if text(image.dataset, key) not in known]
        if bad and known != {""}:
            yield f"{key} is not that of the source", bad


def _offsets(images: Sequence[Image], source: Sequence[Image]) -> Iterator[tuple[Image, float]]:
    """How far, in mm, slices lie off the one source image that each names, where they have its matrix and spacing."""
    by_uid = {image.uid: image for image in source}
    for image in images:
        named = [by_uid[uid] for uid in source_uids(image.dataset) if uid in by_uid]
        if len(named) == 1 and image.is_slice and named[0].is_slice and _has_matrix_of(image, named[0]):
            yield image, _offset_mm(image, named[0])


def _has_matrix_of(image: Image, other: Image) -> bool:
    if any(number(image.dataset, key) != number(other.dataset, key) for key in ("Rows", "Columns")):
        return False
    axes, spacings = (image.orientation, other.orientation), (image.spacing, other.spacing)
    return np.allclose(*axes, atol=1e-2) and np.allclose(*spacings, rtol=1e-2)  # type: ignore[arg-type]


def _offset_mm(image: Image, other: Image) -> float:
    """The farthest that a corner of the slice lies off; least above 0 where only digits differ."""
    if (image.position, image.orientation, image.spacing) == (other.position, other.orientation, other.spacing):
        return 0.0
    return max(float(np.linalg.norm(_corners(image) - _corners(other), axis=1).max()), 1e-12)


def _corners(image: Image) -> np.ndarray:
    rows, columns = (number(image.dataset, key) or 1 for key in ("Rows", "Columns"))
    down, across = image.spacing or (1.0, 1.0)
    axes = np.array(image.orientation).reshape(2, 3) * [[across], [down]]
    ends = np.array([[x, y] for x in (0, columns - 1) for y in (0, rows - 1)])
    return np.asarray(ends @ axes + np.array(image.position))


def _window(image: Image) -> tuple[float, ...] | None:
    return (*finite(image.dataset, "WindowCenter"), *finite(image.dataset, "WindowWidth")) or None
