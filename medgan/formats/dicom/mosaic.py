"""Mosaics: many slices of one volume, tiled into one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from medgan.formats.dicom.csa import csa
from medgan.formats.dicom.elements import number, numbers, values
from medgan.formats.dicom.private import Block, private_items, private_numbers

__all__ = ["Mosaic", "is_mosaic", "mosaic_of"]

Array = npt.NDArray[Any]
_SIEMENS = Block("SIEMENS", 0x0019, "SIEMENS MR HEADER")
_SIEMENS_COUNT = 0x0A
_UIH = Block("UIH", 0x0065, "Image Private Header")
_UIH_COUNT, _UIH_HEADERS = 0x50, 0x51
_MOST_TILES = 1024


@dataclass(frozen=True, eq=False)
class Mosaic:
    """How a picture is tiled.

    Args:
        rows: of a tile.
        columns: of a tile.
        across: tiles in a row of the picture; they are filled row by row.
        places: (N, 3) LPS mm of the first pixel of each tile as a slice of its own.
    """

    rows: int
    columns: int
    across: int
    places: Array


def is_mosaic(dataset: Dataset) -> bool:
    """True if a header says that its picture is many slices."""
    marked = {"MOSAIC", "VFRAME"} & {str(part) for part in values(dataset, "ImageType")}
    return bool(marked) or _count(dataset, _SIEMENS, _SIEMENS_COUNT) > 0 or _count(dataset, _UIH, _UIH_COUNT) > 0


def mosaic_of(dataset: Dataset) -> Mosaic | None:
    """How a picture is tiled; None where it is no mosaic, or does not tell how many tiles it has and where they lie."""
    if not is_mosaic(dataset):
        return None
    places = _stated_places(dataset)
    if places is None:
        places = _siemens_places(dataset)
    return None if places is None else _tiling(dataset, places)


def _tiling(dataset: Dataset, places: Array) -> Mosaic | None:
    across = math.ceil(math.sqrt(len(places)))
    rows, columns = int(number(dataset, "Rows") or 0), int(number(dataset, "Columns") or 0)
    if rows % across or columns % across:
        return None
    return Mosaic(rows // across, columns // across, across, places)


def _stated_places(dataset: Dataset) -> Array | None:
    """UIH writes a header of each tile."""
    count, headers = _count(dataset, _UIH, _UIH_COUNT), private_items(dataset, _UIH, _UIH_HEADERS)
    if not count or len(headers) < count:
        return None
    found = [numbers(header, "ImagePositionPatient", 3) for header in headers[:count]]
    return None if any(place is None for place in found) else np.array(found)


def _siemens_places(dataset: Dataset) -> Array | None:
    """Siemens states the corner that the whole picture would have as one slice, centred where the tiles are."""
    told = csa(dataset, "image")
    count, gap = (
        _siemens_count(dataset, told),
        number(dataset, "SpacingBetweenSlices") or number(dataset, "SliceThickness"),
    )
    corner, directions = numbers(dataset, "ImagePositionPatient", 3), numbers(dataset, "ImageOrientationPatient", 6)
    spacing = numbers(dataset, "PixelSpacing", 2)
    if not count or not gap or corner is None or directions is None or spacing is None:
        return None
    row, column = np.array(directions).reshape(2, 3)
    across = math.ceil(math.sqrt(count))
    rows, columns = int(number(dataset, "Rows") or 0), int(number(dataset, "Columns") or 0)
    margin = (1 - 1 / across) / 2
    first = np.array(corner) + row * columns * margin * spacing[1] + column * rows * margin * spacing[0]
    return np.asarray(first + np.outer(np.arange(count) * gap, _upwards(told, row, column)))


def _siemens_count(dataset: Dataset, told: dict[str, list[str]]) -> int:
    stated = next(iter(told.get("NumberOfImagesInMosaic", [])), "")
    return _count(dataset, _SIEMENS, _SIEMENS_COUNT) or (int(stated) if stated.isdecimal() else 0)


def _count(dataset: Dataset, block: Block, offset: int) -> int:
    stated = private_numbers(dataset, block, offset, "US")
    return int(stated[0]) if len(stated) == 1 and 1 <= stated[0] <= _MOST_TILES else 0


def _upwards(told: dict[str, list[str]], row: Array, column: Array) -> Array:
    """The unit vector from tile to tile: along the slices' normal, in the sense that Siemens' own header tells."""
    normal = np.cross(row, column)
    try:
        stated = np.array([float(part) for part in told.get("SliceNormalVector", [])])
    except ValueError:
        return normal
    return -normal if stated.shape == (3,) and stated @ normal < 0 else normal
