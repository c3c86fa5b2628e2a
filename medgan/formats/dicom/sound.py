"""Files that cannot be pictures of one scan are refused, each by name and with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from pydicom import Dataset

from medgan.errors import DicomError
from medgan.formats.dicom.elements import DAMAGE, name_of, open_dicom, quietly
from medgan.formats.dicom.headers import Header
from medgan.formats.dicom.stack import ANGLE_TOLERANCE, listed, named

__all__ = ["refuse_unsound", "without_copies", "without_damage"]


def without_damage(headers: Sequence[Header], *, drop: bool) -> tuple[list[Header], tuple[str, ...]]:
    """The headers of whole files, and what was left out: nothing, unless damaged and truncated ones are dropped.

    Raises:
        DicomError: if a file is damaged or cut off, and is not to be dropped; or if none is whole.
    """
    bad = [header for header in headers if header.damage or header.truncated]
    if not bad:
        return list(headers), ()
    whole = [header for header in headers if not (header.damage or header.truncated)]
    if not drop or not whole:
        _refuse_damaged(bad)
        _refuse_truncated(bad)
    return whole, (f"{_files(bad)}: damaged or cut off, left out",)


def _files(headers: Sequence[Header]) -> str:
    return listed(list(dict.fromkeys(header.path.name for header in headers)))


def _refuse_damaged(headers: Sequence[Header]) -> None:
    damaged = [header for header in headers if header.damage]
    if damaged:
        raise DicomError(
            f"{_files(damaged)}: {damaged[0].damage}; send the series again, or remove the file if it is of another one"
        )


def _refuse_truncated(headers: Sequence[Header]) -> None:
    truncated = [header for header in headers if header.truncated]
    if truncated:
        raise DicomError(
            f"{_files(truncated)}: truncated, the file ends before its {truncated[0].rows}×{truncated[0].columns} "
            "pixels do; send the series again, or let --fill interpolate what is lost"
        )


def without_copies(headers: Sequence[Header]) -> list[Header]:
    """Each picture once.

    Raises:
        DicomError: if two files claim to be one image but differ.
    """
    first: dict[tuple[str, int], Header] = {}
    kept = []
    for header in headers:
        earlier = first.setdefault((header.instance_uid, header.frame), header)
        if earlier is header or not header.instance_uid:
            kept.append(header)
        elif header.frame == earlier.frame == 0 and not _same_content(earlier, header):
            raise DicomError(
                f"{_with_folder(earlier)} and {_with_folder(header)} have one SOPInstanceUID but differ in content; "
                "remove the wrong one"
            )
    return kept


def _with_folder(header: Header) -> str:
    return f"{header.path.parent.name}/{header.name}"


def _same_content(a: Header, b: Header) -> bool:
    if a.path.read_bytes() == b.path.read_bytes():
        return True
    try:
        with quietly():
            return _content(a) == _content(b)
    except DAMAGE:
        return False


def _content(header: Header) -> Dataset:
    return open_dicom(header.path, pixels=True)


def refuse_unsound(headers: Sequence[Header]) -> None:
    """Refuse what is no grey picture with a place, and files of two scans under one SeriesInstanceUID.

    Raises:
        DicomError: naming the first such file.
    """
    for header in headers:
        if kind := _other_kind(header):
            raise DicomError(f"{header.name}: {kind}")
    for header in headers:
        if why := _placeless(header):
            raise DicomError(f"{header.name}: {why}; accepted are slices with a position in the patient")
    _refuse_two_scans(headers)


def _other_kind(header: Header) -> str:
    name = name_of(header.sop_class)
    if header.samples != 1:
        return f"a colour image ({header.photometric or header.samples}, {name}); accepted are grey ones"
    if header.frames > 1:
        return f"a multi-frame object of {header.frames} frames ({name}) that does not say where they lie"
    if header.mosaic:
        return (
            "a mosaic, many slices tiled into one picture, that does not say how many and where they lie; "
            "send it again without anonymising its private header, or export single slices"
        )
    return ""


def _placeless(header: Header) -> str:
    stated = {
        "ImagePositionPatient": header.position,
        "ImageOrientationPatient": header.orientation,
        "PixelSpacing": header.pixel_spacing,
    }
    lacking = [key for key, value in stated.items() if value is None]
    if lacking:
        return f"no geometry, {' and '.join(lacking)} missing ({name_of(header.sop_class)})"
    return _bad_geometry(header)


def _bad_geometry(header: Header) -> str:
    if not _are_directions(header.orientation or ()):
        return f"ImageOrientationPatient {list(header.orientation or ())} is not two unit vectors at right angles"
    if min(header.pixel_spacing or (0,)) <= 0 or min(header.rows, header.columns) < 1:
        return f"PixelSpacing {list(header.pixel_spacing or ())} of {header.rows}×{header.columns} pixels is no grid"
    return ""


@lru_cache(1024)
def _are_directions(orientation: tuple[float, ...]) -> bool:
    """True for two unit vectors at right angles."""
    row, column = np.array(orientation).reshape(2, 3)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm([row, column], axis=1)
        return bool(np.abs(lengths - 1).max() <= ANGLE_TOLERANCE and abs(row @ column) <= ANGLE_TOLERANCE)


def _refuse_two_scans(headers: Sequence[Header]) -> None:
    """A series is of one patient in one frame of reference; else its positions have nothing to do with one another."""
    keys = {"PatientID": "patient_id", "StudyInstanceUID": "study_uid", "FrameOfReferenceUID": "frame_uid"}
    for key, field in keys.items():
        odd = [header for header in headers if getattr(header, field) != getattr(headers[0], field)]
        if odd:
            raise DicomError(
                f"{headers[0].name} and {named(odd)} are of one series but differ in {key}; "
                "they are two scans mixed up, keep one"
            )
