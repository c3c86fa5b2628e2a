"""A DICOM series becomes a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from medgan.errors import DicomError
from medgan.formats.dicom.headers import DAMAGE, number, open_dicom, quietly, text
from medgan.formats.dicom.mark import synthesis_of, unit_of
from medgan.formats.dicom.scan import Series, find_series
from medgan.formats.dicom.source import Source, remembered
from medgan.volume import Volume

__all__ = ["read", "read_series"]

Array = npt.NDArray[Any]
_LISTED = 8  # so many series stand in a message, the rest is counted


def read(path: Path, *, series: str | None = None) -> Volume:
    """Read one series of slices as a volume on a proved regular grid.

    Slices are ordered by their position along the normal; file names and instance numbers do not matter. The array
    is (columns, rows, slices) of rescaled values: int16 where that is exact, else float32. The unit is HU for CT,
    Bq/ml for PET that says so, `normalised` for MR that a run of medgan made so, else a.u.

    Args:
        path: a folder, searched with its sub-folders, or one file.
        series: SeriesInstanceUID, SeriesNumber or SeriesDescription, where a folder holds several series.

    Raises:
        InputError: if there is no such file or folder.
        DicomError: if there is no series or no one choice of it, if its slices do not prove one regular grid (the
            message names the files), or if a file's pixels cannot be decoded.
    """
    found = find_series(path)
    # Files too damaged to name their series stand apart: without a matrix, never to be chosen.
    damaged = [one for one in found if not one.rows]
    chosen = _chosen([one for one in found if one.rows] or damaged, series, Path(path))
    _refuse_damaged_neighbours(damaged, chosen)
    return read_series(chosen)


def read_series(series: Series) -> Volume:
    """Read a series that `find_series` has found; see `read`.

    Raises:
        DicomError: if the series has no grid (the message is its first problem) or cannot be decoded.
    """
    if series.grid is None:
        raise DicomError(series.problems[0])
    with quietly():
        slices = [_slice(path) for path in series.files]
    units = {one.unit for one in slices}
    return Volume(
        array=_values(slices),
        grid=series.grid,
        unit=units.pop() if len(units) == 1 else "a.u.",
        modality=series.modality,
        synthetic=next((mark for one in slices if (mark := synthesis_of(one.header))), None),
        header=Source(series.grid, tuple(one.header for one in slices)),
    )


@dataclass(frozen=True, eq=False)
class _Slice:
    pixels: Array  # (rows, columns), as stored
    slope: float
    intercept: float
    unit: str
    header: Dataset


def _chosen(found: list[Series], wanted: str | None, path: Path) -> Series:
    if not found:
        raise DicomError(f"{path}: holds no DICOM image; accepted are a file or folder of CT, MR or PET slices")
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted is None:
        raise DicomError(f"{path}: holds {len(found)} series; choose one by its number or UID: {_listed(found)}")
    fitting = next((fits for key in _KEYS if (fits := [one for one in found if key(one) == wanted])), [])
    if len(fitting) != 1:
        seen = f"{len(fitting)} series are called" if fitting else "no series is called"
        raise DicomError(f"{path}: {seen} {wanted!r}; choose one by its number or UID: {_listed(found)}")
    return fitting[0]


_KEYS = (lambda one: one.uid, lambda one: str(one.number), lambda one: one.description)


def _listed(found: list[Series]) -> str:
    rest = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return "; ".join(f"{one.describe()} {one.uid}" for one in found[:_LISTED]) + rest


def _refuse_damaged_neighbours(damaged: list[Series], chosen: Series) -> None:
    """A file too damaged to name its series may be a slice of the chosen one, where it lies beside its files."""
    folders = {path.parent for path in chosen.files}
    for one in damaged:
        if any(path.parent in folders for path in one.files):
            raise DicomError(one.problems[0])


def _slice(path: Path) -> _Slice:
    try:
        dataset = open_dicom(path, pixels=True)
        pixels = dataset.pixel_array
        if pixels.shape != (dataset.Rows, dataset.Columns):
            raise DicomError(f"{path.name}: holds {pixels.shape} pixels, not what its header says; send it again")
        return _Slice(pixels, *_rescale(dataset, path), _unit(dataset), remembered(dataset))
    except OSError as error:
        raise DicomError(f"{path.name}: cannot be read ({error.strerror or error}); check the file") from error
    except (*DAMAGE, RuntimeError) as error:
        raise DicomError(f"{path.name}: {_undecodable(path)}") from error


def _undecodable(path: Path) -> str:
    syntax = open_dicom(path, pixels=False).file_meta.get("TransferSyntaxUID")
    known = f"{syntax.name} ({syntax})" if syntax else "an encoding that it does not name"
    return (
        f"its pixels, stored as {known}, cannot be decoded: damaged, or an encoding that is not supported; "
        "send it again, or decompress it, for example with dcmdjpeg"
    )


def _rescale(dataset: Dataset, path: Path) -> tuple[float, float]:
    """Slope and intercept from stored values to the unit."""
    if "ModalityLUTSequence" in dataset:
        raise DicomError(
            f"{path.name}: maps its values by a table (ModalityLUTSequence); accepted is slope and intercept"
        )
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope == 0:
        raise DicomError(f"{path.name}: RescaleSlope is 0, which leaves no image; send the series again")
    return 1.0 if slope is None else slope, intercept or 0.0


def _values(slices: Sequence[_Slice]) -> Array:
    """(columns, rows, slices) of rescaled values: int16 where that is exact, else float32."""
    dtype = np.int16 if all(map(_fits_int16, slices)) else np.float32
    rows, columns = slices[0].pixels.shape
    values = np.empty((columns, rows, len(slices)), dtype)
    for index, one in enumerate(slices):
        values[:, :, index] = (one.pixels.T.astype(np.float64) * one.slope + one.intercept).astype(dtype)
    return values


def _fits_int16(one: _Slice) -> bool:
    if one.slope != 1 or one.intercept != round(one.intercept) or one.pixels.dtype.kind not in "iu":
        return False
    limits = np.iinfo(np.int16)
    return bool(one.pixels.min() + one.intercept >= limits.min and one.pixels.max() + one.intercept <= limits.max)


def _unit(dataset: Dataset) -> str:
    modality = text(dataset, "Modality")
    if modality == "CT" and "RescaleIntercept" in dataset and text(dataset, "RescaleType") in {"", "HU"}:
        return "HU"
    return "Bq/ml" if modality == "PT" and text(dataset, "Units") == "BQML" else unit_of(dataset) or "a.u."
