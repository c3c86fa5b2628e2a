"""Grey PNG files as slices that keep unit and place.

What a slice looks like. A picture hangs as radiologists hang it: of an axial slice the columns run to the patient's
left and the rows to the back, of a coronal one to the left and down, of a sagittal one to the back and down. The text
records the order of the array's axes and the affine, so that reading gives the array back as it was. A file of another
program, which records neither, is read as an axial slice: (X, Y, 1), orientation LPS, its first pixel at the origin.

What the pixels mean. Whole numbers from 0 to 255 are stored as they are, in 8 bits; all else is spread over 16 bits,
with slope and intercept in the text. Unit, modality and the mark of a synthetic image are in the same text; for other
programs the file has a chunk `pHYs`, a line `Synthetic` and, as XMP, the IPTC's DigitalSourceType.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.atomic import replacing
from medgan.errors import GeometryError, InputError, NiftiError
from medgan.formats.png import COMMENT, Picture, encode_slice, made_by, mark_text, open_png
from medgan.formats.sidecar import Marks, fields_of_comment, of_comment, of_sidecar
from medgan.volume import Grid, Volume

__all__ = ["oddities", "read", "read_grid", "write"]

Array = npt.NDArray[Any]
_HANGING = {"S": "LPS", "A": "LIP", "R": "PIR"}  # by the side that the slice is seen along: columns, rows, the rest
_SIDES = {"I": "S", "P": "A", "L": "R"}
_NOMINAL = np.diag([-1.0, -1.0, 1.0])
_STEPS = 65535


def read(path: Path) -> Volume:
    """Read a grey PNG of 8 or 16 bits as one slice: values in the unit that it records, on an RAS+ mm grid.

    Written by medgan, the array has its axes again as they were; by another program, it is (X, Y, 1), LPS, in `a.u.`.
    A JSON file beside it, as beside NIfTI, counts where the picture itself tells no unit or modality.

    Raises:
        InputError: if it is damaged, has colours, a palette, transparency or fewer than 8 bits, or if another program
            has changed the pixels that its text describes.
    """
    picture = open_png(path)
    told = _told(Path(path), picture)
    own = of_comment(picture.text.get(COMMENT, ""))
    marks = own.over(Marks(synthetic=made_by(picture.text))).over(_beside(Path(path)))
    hung = Volume(_values(picture, told), told.grid, marks.unit or "a.u.", marks.modality, marks.synthetic)
    return hung.reorient(told.orientation)


def read_grid(path: Path) -> Grid:
    """Where the pixels are; see `read`.

    Raises:
        InputError: as `read`.
    """
    told = _told(Path(path), open_png(path))
    shown = Volume(np.broadcast_to(np.uint8(0), told.grid.shape), told.grid)
    return shown.reorient(told.orientation).grid


def oddities(path: Path) -> tuple[str, ...]:
    """What a picture that can be read does not say: each a line for people."""
    picture = open_png(path)
    if _slope_fields(picture):
        return ()
    size = "" if picture.spacing_mm else "no pixel size recorded, 1 mm is assumed; "
    return (f"{size}no place in the patient recorded, it is taken as an axial slice",)


def write(volume: Volume, path: Path, *, limits: tuple[float, float] | None = None) -> Path:
    """Write one slice as a grey PNG that keeps unit, place and mark.

    Args:
        volume: of one slice: one of its axes has length 1.
        path: of the new file.
        limits: the values that are black and white, in the volume's unit, so that all pictures of a set show a value
            by the same grey. If not given, whole numbers from 0 to 255 stay as they are, in 8 bits, and all else is
            spread over 16 bits from its own lowest to its highest value.

    Raises:
        InputError: if the volume is more than one slice, or a value is not finite or beyond the limits.
        OutputError: if the place cannot be written.
    """
    path = Path(path)
    hung = volume.reorient(_hanging(volume, path))
    stored = _stored(hung.array[:, :, 0], limits, path)
    comment = Marks.of(volume).comment(
        RescaleSlope=stored.slope,
        RescaleIntercept=stored.intercept,
        Whole=stored.whole,
        BitDepth=8 * stored.pixels.itemsize,
        Size=list(hung.grid.shape[:2]),
        Affine=hung.grid.affine.tolist(),
        Orientation=volume.grid.orientation,
    )
    text = {**mark_text(volume.synthetic), COMMENT: comment}
    width_mm, height_mm, _ = hung.grid.spacing_mm
    encoded = encode_slice(stored.pixels.T, text=text, spacing_mm=(width_mm, height_mm))
    with replacing(path) as temporary:
        temporary.write_bytes(encoded)
    return path


def _hanging(volume: Volume, path: Path) -> str:
    """The orientation in which a slice is shown, told by the side that its thin axis runs to."""
    thin = [axis for axis, length in enumerate(volume.grid.shape) if length == 1]
    if not thin:
        size = "×".join(map(str, volume.grid.shape))
        raise InputError(f"{path}: a PNG holds one slice, and this volume has {size} voxels; write NIfTI or DICOM")
    side = volume.grid.orientation[thin[-1]]
    return _HANGING[_SIDES.get(side, side)]


# --- what a file tells ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Told:
    grid: Grid  # of the picture as it hangs
    orientation: str  # of the array that was written
    slope: float = 1.0
    intercept: float = 0.0
    whole: bool = True  # rounding brings the values back exactly


def _told(path: Path, picture: Picture) -> _Told:
    fields, shape = _slope_fields(picture), (picture.pixels.shape[1], picture.pixels.shape[0], 1)
    if not fields:
        spacing = (*(picture.spacing_mm or (1.0, 1.0)), 1.0)
        return _Told(Grid.regular(shape, spacing_mm=spacing, direction=_NOMINAL), "LPS")
    depth = 8 * picture.pixels.itemsize
    if (fields.get("Size"), fields.get("BitDepth")) != (list(shape[:2]), depth):
        raise InputError(
            f"{path}: has {shape[0]}×{shape[1]} pixels of {depth} bits, not what its text describes, so another "
            "program has changed it and its values are unsure; take the file as medgan wrote it"
        )
    try:
        return _parsed(fields, shape)
    except (GeometryError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: the place or scale in its text is none; take the file as medgan wrote it") from None


def _parsed(fields: Mapping[str, Any], shape: tuple[int, int, int]) -> _Told:
    grid = Grid(shape, np.array(fields["Affine"], dtype=np.float64))
    slope, intercept = float(fields["RescaleSlope"]), float(fields["RescaleIntercept"])
    orientation = str(fields["Orientation"])
    Volume(np.broadcast_to(np.uint8(0), shape), grid).reorient(orientation)
    if not (slope > 0 and math.isfinite(slope * _STEPS + intercept)):
        raise ValueError(slope, intercept)
    return _Told(grid, orientation, slope, intercept, bool(fields["Whole"]))


def _slope_fields(picture: Picture) -> Mapping[str, Any]:
    """What medgan wrote into the comment of a slice; nothing for another program's picture."""
    fields = fields_of_comment(picture.text.get(COMMENT, ""))
    return fields if "RescaleSlope" in fields else {}


def _values(picture: Picture, told: _Told) -> Array:
    """(columns, rows, 1) in the unit: integers where they were, else float32, float64 where the steps need it."""
    pixels = picture.pixels.T[:, :, None]
    if (told.slope, told.intercept) == (1, 0):
        return pixels
    values = pixels * told.slope + told.intercept
    if told.whole:
        values = np.rint(values)
        fits = values.min() >= -(1 << 15) and values.max() < 1 << 15
        return values.astype(np.int16 if fits else np.int64)
    is_fine = np.spacing(np.float32(np.abs(values).max())) < told.slope / 8
    return values.astype(np.float32) if is_fine else values


def _beside(path: Path) -> Marks:
    try:
        return of_sidecar(path)
    except NiftiError as error:
        raise InputError(str(error)) from None


# --- the values that a file gets --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Stored:
    pixels: Array  # (columns, rows) uint8 or uint16; value = pixels * slope + intercept
    slope: float
    intercept: float
    whole: bool  # the values are whole numbers, which rounding brings back exactly


def _stored(values: Array, limits: tuple[float, float] | None, path: Path) -> _Stored:
    _refuse_not_finite(values, path)
    lowest, highest = float(values.min()), float(values.max())
    whole = bool(np.array_equal(values, np.rint(values)))
    if limits is None and whole and lowest >= 0 and highest <= 255:
        return _Stored(values.astype(np.uint8), 1.0, 0.0, True)
    low, high = limits or (lowest, highest)
    slope = (float(high) - float(low)) / _STEPS
    _refuse_beyond((low, high), slope, (lowest, highest), path)
    slope = slope or float(np.spacing(abs(low)))  # of a constant slice: a step too small to matter
    steps = np.rint((values.astype(np.float64) - low) / slope)
    return _Stored(np.clip(steps, 0, _STEPS).astype(np.uint16), slope, float(low), whole and slope <= 1)


def _refuse_not_finite(values: Array, path: Path) -> None:
    bad = int(np.size(values) - np.isfinite(values).sum())
    if bad:
        raise InputError(f"{path}: {bad} of {values.size} voxels are NaN or infinite; replace them by a background")


def _refuse_beyond(limits: tuple[float, float], slope: float, seen: tuple[float, float], path: Path) -> None:
    if not (np.isfinite(slope) and slope >= 0):
        raise InputError(f"{path}: limits of {limits[0]:g} and {limits[1]:g}; give two finite ones, the lower first")
    if seen[0] < limits[0] - slope / 2 or seen[1] > limits[1] + slope / 2:
        raise InputError(
            f"{path}: values from {seen[0]:g} to {seen[1]:g} are beyond the limits of {limits[0]:g} and "
            f"{limits[1]:g}; give wider ones"
        )
