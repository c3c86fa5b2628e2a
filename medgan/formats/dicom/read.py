"""A DICOM series becomes a volume, or a 4-D one becomes several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from medgan.errors import DicomError
from medgan.formats.dicom.elements import DAMAGE, number, open_dicom, quietly, text
from medgan.formats.dicom.frames import pictures
from medgan.formats.dicom.headers import Header
from medgan.formats.dicom.mark import synthesis_of, unit_of
from medgan.formats.dicom.pixels import pixels_of
from medgan.formats.dicom.repair import Repair, plan
from medgan.formats.dicom.scan import Series, find_series
from medgan.formats.dicom.source import Source, remembered
from medgan.formats.dicom.stack import Stack
from medgan.volume import Synthesis, Volume

__all__ = ["chosen", "read", "read_series", "read_volumes"]

Array = npt.NDArray[Any]
_LISTED = 8  # so many series stand in a message, the rest is counted


def read(path: Path, *, series: str | None = None, repair: Repair | None = None) -> Volume:
    """Read one series of slices as a volume on a regular grid.

    Slices are ordered by their position along the normal; file names and instance numbers do not matter. Stacks that
    lean (gantry tilt) or are not evenly apart are resampled to a straight grid, and remember where each slice lies.
    The array is (columns, rows, slices) of rescaled values: int16 where that is exact, else float32. The unit is HU
    for CT, Bq/ml for PET that says so, Gy for RT dose, `normalised` for MR that a run of medgan made so, else a.u.

    Args:
        path: a folder, searched with its sub-folders, or one file.
        series: SeriesInstanceUID, SeriesNumber, SeriesDescription or name, where a folder holds several series. A
            localizer beside the only other series need not be ruled out.
        repair: what may be done about slices that are missing, lean or are not evenly apart; see `Repair`.

    Raises:
        InputError: if there is no such file or folder.
        DicomError: if there is no series or no one choice of it, if it is 4-D, if its slices are no stack (the
            message names the files), or if a file's pixels cannot be decoded.
    """
    return read_series(chosen(find_series(path, repair=repair), series, Path(path)))


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


def read_series(series: Series) -> Volume:
    """Read a series of one volume that `find_series` has found; see `read`.

    Raises:
        DicomError: if the series has no grid (the message is its first problem), is 4-D or cannot be decoded.
    """
    if series.num_volumes > 1:
        raise DicomError(
            f"{series.describe()}: a 4-D series, which is more than one volume; convert it to a 4-D NIfTI file first, "
            "or read it with medgan.formats.dicom.read_volumes"
        )
    (volume,) = read_volumes(series)
    return volume


def read_volumes(series: Series, *, remember: bool = True) -> list[Volume]:
    """Read all volumes of a series that `find_series` has found, in the order of time; see `read`.

    Args:
        series: with a grid.
        remember: False leaves out the headers that are needed only to write a derived series.

    Raises:
        DicomError: if the series has no grid (the message is its first problem) or cannot be decoded.
    """
    if series.grid is None:
        raise DicomError(series.problems[0])
    with quietly():
        slices = _slices([header for stack in series.stacks for header in stack.headers], remember)
    slope_is_one = _dtype(slices.values())
    return [
        _volume(series, stack, [slices[_key(one)] for one in stack.headers], slope_is_one) for stack in series.stacks
    ]


def _volume(series: Series, stack: Stack, slices: Sequence[_Slice], dtype: Any) -> Volume:
    planned = plan(series.stacks, series.repair)
    units = {one.unit for one in slices}
    kept = [one.header for one in slices if one.header is not None]
    return Volume(
        array=planned.apply(_values(slices, dtype), stack),
        grid=planned.grid,
        unit=units.pop() if len(units) == 1 else "a.u.",
        modality=series.modality,
        synthetic=slices[0].synthetic,
        header=Source(planned.grid, tuple(kept), stack, planned.resamples) if kept else None,
    )


@dataclass(frozen=True, eq=False)
class _Slice:
    pixels: Array  # (rows, columns), as stored
    slope: float
    intercept: float
    unit: str
    synthetic: Synthesis | None
    header: Dataset | None


def _chosen(found: list[Series], wanted: str | None, path: Path) -> Series:
    if not found:
        raise DicomError(f"{path}: holds no DICOM image; accepted are a file or folder of CT, MR or PET slices")
    if wanted is None:
        scans = [one for one in found if not one.is_localizer] or found
        if len(scans) == 1:
            return scans[0]
        raise DicomError(f"{path}: holds {len(found)} series; choose one by its number or UID: {_listed(found)}")
    fitting = next((fits for key in _KEYS if (fits := [one for one in found if key(one) == wanted])), [])
    main = [one for one in fitting if not one.labels] or fitting
    if len(main) != 1:
        seen = f"{len(main)} series are called" if main else "no series is called"
        raise DicomError(f"{path}: {seen} {wanted!r}; choose one by its number or UID: {_listed(found)}")
    return main[0]


_KEYS = (
    lambda one: one.name,
    lambda one: one.uid,
    lambda one: str(one.number),
    lambda one: one.description,
)


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


# --- pixels -----------------------------------------------------------------------------------------------------------


def _key(header: Header) -> tuple[Path, int]:
    return header.path, header.frame


def _slices(headers: Iterable[Header], remember: bool) -> dict[tuple[Path, int], _Slice]:
    """Every picture, each file opened once."""
    found: dict[tuple[Path, int], _Slice] = {}
    for path, group in groupby(sorted(headers, key=_key), key=lambda header: header.path):
        try:
            found |= {_key(header): one for header, one in _of_file(path, list(group), remember)}
        except OSError as error:
            raise DicomError(f"{path.name}: cannot be read ({error.strerror or error}); check the file") from error
        except DAMAGE as error:
            raise DicomError(f"{path.name}: its header is damaged ({type(error).__name__}); send it again") from error
    return found


def _of_file(path: Path, headers: Sequence[Header], remember: bool) -> Iterator[tuple[Header, _Slice]]:
    dataset = open_dicom(path, pixels=True)
    pixels, told = pixels_of(dataset, path), list(pictures(dataset))
    for header in headers:
        own = told[header.frame].dataset
        picture = _cut(pixels, header, path)
        kept = remembered(own, header.frame + 1 if len(told) > 1 else None) if remember else None
        yield header, _Slice(picture, *_rescale(own, path), _unit(own), synthesis_of(own), kept)


def _cut(pixels: Array, header: Header, path: Path) -> Array:
    """The picture of a frame, or of a tile."""
    if header.across:
        down, right = divmod(header.frame, header.across)
        rows, columns = down * header.rows, right * header.columns
        picture = pixels[rows : rows + header.rows, columns : columns + header.columns]
    else:
        picture = pixels[header.frame] if pixels.ndim == 3 else pixels
    if picture.shape != (header.rows, header.columns):
        raise DicomError(f"{path.name}: holds {pixels.shape} pixels, not what its header says; send it again")
    return picture


def _rescale(dataset: Dataset, path: Path) -> tuple[float, float]:
    """Slope and intercept from stored values to the unit."""
    if "ModalityLUTSequence" in dataset:
        raise DicomError(
            f"{path.name}: maps its values by a table (ModalityLUTSequence); accepted is slope and intercept"
        )
    key = "DoseGridScaling" if text(dataset, "Modality") == "RTDOSE" else "RescaleSlope"
    slope, intercept = number(dataset, key), number(dataset, "RescaleIntercept")
    if slope == 0:
        raise DicomError(f"{path.name}: {key} is 0, which leaves no image; send the series again")
    return 1.0 if slope is None else slope, intercept or 0.0


def _values(slices: Sequence[_Slice], dtype: Any) -> Array:
    """(columns, rows, slices) of rescaled values."""
    rows, columns = slices[0].pixels.shape
    values = np.empty((columns, rows, len(slices)), dtype, order="F")
    for index, one in enumerate(slices):
        values[:, :, index] = _rescaled(one, dtype).T
    return values


def _rescaled(one: _Slice, dtype: Any) -> Array:
    if (one.slope, one.intercept) == (1.0, 0.0):
        return one.pixels
    if dtype == np.int16:  # the sum fits, see _fits_int16
        return np.asarray(one.pixels.astype(np.int32) + int(one.intercept))
    return np.asarray(one.pixels * one.slope + one.intercept)


def _dtype(slices: Iterable[_Slice]) -> Any:
    """int16 where that is exact for all, else float32."""
    return np.int16 if all(map(_fits_int16, slices)) else np.float32


def _fits_int16(one: _Slice) -> bool:
    if one.slope != 1 or one.intercept != round(one.intercept) or one.pixels.dtype.kind not in "iu":
        return False
    limits = np.iinfo(np.int16)
    return bool(one.pixels.min() + one.intercept >= limits.min and one.pixels.max() + one.intercept <= limits.max)


def _unit(dataset: Dataset) -> str:
    modality = text(dataset, "Modality")
    if modality == "CT" and "RescaleIntercept" in dataset and text(dataset, "RescaleType") in {"", "HU"}:
        return "HU"
    if modality == "RTDOSE" and text(dataset, "DoseUnits") == "GY":
        return "Gy"
    return "Bq/ml" if modality == "PT" and text(dataset, "Units") == "BQML" else unit_of(dataset) or "a.u."
