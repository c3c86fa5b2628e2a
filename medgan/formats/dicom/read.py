"""A DICOM series becomes a volume, or a 4-D one becomes several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import DicomError
from medgan.formats.dicom.choose import chosen
from medgan.formats.dicom.elements import quietly
from medgan.formats.dicom.repair import Plan, Repair, plan
from medgan.formats.dicom.scale import Scaling
from medgan.formats.dicom.scan import Series, find_series
from medgan.formats.dicom.slices import Slice, key_of, slices_of
from medgan.formats.dicom.source import Source
from medgan.formats.dicom.stack import Stack
from medgan.volume import Volume

__all__ = ["read", "read_series", "read_volumes"]

Array = npt.NDArray[Any]


def read(path: Path, *, series: str | None = None, repair: Repair | None = None, scaling: Scaling = "stated") -> Volume:
    """Read one series of slices as a volume on a regular grid.

    Slices are ordered by their position along the normal; file names and instance numbers do not matter. Stacks that
    lean (gantry tilt) or are not evenly apart are resampled to a straight grid, and remember where each slice lies.
    The array is (columns, rows, slices) of rescaled values: int16 where that is exact, else float32. The unit is HU
    for CT, Bq/ml for PET that says so, Gy for RT dose, `normalised` for MR that a run of medgan made so, else a.u.

    Args:
        path: a folder, searched with its sub-folders, or one file.
        series: SeriesInstanceUID, SeriesNumber, SeriesDescription or name, where a folder holds several series.
            Localizers and captured screens beside the only other series need not be ruled out.
        repair: what may be done about slices that are missing, lean or are not evenly apart; see `Repair`.
        scaling: `stated`, `philips` for Philips MR's floating-point values, or `suv` for PET.

    Raises:
        InputError: if there is no such file or folder.
        DicomError: if there is no series or no one choice of it, if it is 4-D, if its slices are no stack (the
            message names the files), or if a file's pixels cannot be decoded.
    """
    return read_series(chosen(find_series(path, repair=repair), series, Path(path)), scaling=scaling)


def read_series(series: Series, *, scaling: Scaling = "stated") -> Volume:
    """Read a series of one volume that `find_series` has found; see `read`.

    Raises:
        DicomError: if the series has no grid (the message is its first problem), is 4-D or cannot be decoded.
    """
    if series.num_volumes > 1:
        raise DicomError(
            f"{series.describe()}: a 4-D series, which is more than one volume; convert it to a 4-D NIfTI file first, "
            "or read it with medgan.formats.dicom.read_volumes"
        )
    (volume,) = read_volumes(series, scaling=scaling)
    return volume


def read_volumes(series: Series, *, scaling: Scaling = "stated", remember: bool = True) -> list[Volume]:
    """Read all volumes of a series that `find_series` has found, in the order of time; see `read`.

    Args:
        series: with a grid.
        scaling: `stated`, or `philips` or `suv`; see `medgan.formats.dicom.scale.scale_of`.
        remember: False leaves out the headers that are needed only to write a derived series.

    Raises:
        DicomError: if the series has no grid (the message is its first problem) or cannot be decoded.
    """
    if series.grid is None:
        raise DicomError(series.problems[0])
    headers = [header for stack in series.stacks for header in stack.headers]
    with quietly():
        slices = slices_of(headers, remember=remember, scaling=scaling)
    dtype = np.int16 if all(one.fits_int16 for one in slices.values()) else np.float32
    planned = plan(series.stacks[0], series.repair)
    return [
        _volume(series, stack, planned, [slices[key_of(one)] for one in stack.headers], dtype)
        for stack in series.stacks
    ]


def _volume(series: Series, stack: Stack, planned: Plan, slices: Sequence[Slice], dtype: Any) -> Volume:
    units = {one.scale.unit for one in slices}
    paddings = {one.scale.padding_values for one in slices}
    unit = units.pop() if len(units) == 1 else "a.u."
    as_read = Volume(
        _values(slices, dtype), stack.nominal_grid, unit, padding=paddings.pop() if len(paddings) == 1 else None
    )
    _refuse_overflow(as_read.array, stack.headers[0].name)
    if planned.resamples:  # what was not measured must not be mixed into what was
        as_read = as_read.without_padding()
    kept = [one.header for one in slices if one.header is not None]
    return Volume(
        array=planned.apply(as_read.array, stack),
        grid=planned.grid,
        unit=unit,
        modality=series.modality,
        synthetic=slices[0].synthetic,
        header=Source(planned.grid, tuple(kept), stack, planned.resamples) if kept else None,
        padding=as_read.padding,
    )


def _values(slices: Sequence[Slice], dtype: Any) -> Array:
    """(columns, rows, slices) in the unit."""
    rows, columns = slices[0].pixels.shape
    values = np.empty((columns, rows, len(slices)), dtype, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # refused by the caller
        _fill(values, slices, dtype)
    return values


def _fill(values: Array, slices: Sequence[Slice], dtype: Any) -> None:
    for index, one in enumerate(slices):
        values[:, :, index] = one.values(dtype).T


def _refuse_overflow(values: Array, name: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DicomError(f"{name}: slope and intercept lead to values that are not finite; send the series again")
