"""Which of several series is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medgan.errors import DicomError
from medgan.formats.dicom.scan import Series

__all__ = ["chosen"]

_LISTED = 8  # so many series stand in a message, the rest is counted
_KEYS = (
    lambda one: one.name,
    lambda one: one.uid,
    lambda one: str(one.number),
    lambda one: one.description,
)


def chosen(found: Sequence[Series], wanted: str | None, path: Path) -> Series:
    """The one series that is meant.

    Args:
        found: by `find_series`.
        wanted: SeriesInstanceUID, SeriesNumber, SeriesDescription or name; None if there should be only one.
        path: where they were found, for messages.

    Raises:
        DicomError: if there is none, or more than one.
    """
    # Files too damaged to name their series stand apart: without a matrix, never to be chosen.
    damaged = [one for one in found if not one.rows]
    series = _chosen([one for one in found if one.rows] or damaged, wanted, path)
    _refuse_damaged_neighbours(damaged, series)
    return series


def _chosen(found: list[Series], wanted: str | None, path: Path) -> Series:
    if not found:
        raise DicomError(f"{path}: holds no DICOM image; accepted are a file or folder of CT, MR or PET slices")
    if wanted is None:
        scans = [one for one in found if not (one.is_localizer or one.is_screenshot)] or found
        if len(scans) == 1:
            return scans[0]
        raise DicomError(f"{path}: holds {len(found)} series; choose one by its number or UID: {_listed(found)}")
    fitting = next((fits for key in _KEYS if (fits := [one for one in found if key(one) == wanted])), [])
    main = [one for one in fitting if not one.labels] or fitting
    if len(main) != 1:
        seen = f"{len(main)} series are called" if main else "no series is called"
        raise DicomError(f"{path}: {seen} {wanted!r}; choose one by its number or UID: {_listed(found)}")
    return main[0]


def _listed(found: Sequence[Series]) -> str:
    rest = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return "; ".join(f"{one.describe()} {_handle(one)}" for one in found[:_LISTED]) + rest


def _handle(series: Series) -> str:
    return series.name if series.labels else series.uid


def _refuse_damaged_neighbours(damaged: list[Series], chosen: Series) -> None:
    """A file too damaged to name its series may be a slice of the chosen one, where it lies beside its files."""
    folders = {path.parent for path in chosen.files}
    for one in damaged:
        if any(path.parent in folders for path in one.files) and not chosen.repair.fill:
            raise DicomError(one.problems[0])
