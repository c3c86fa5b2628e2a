"""Mosaics: many slices of one volume, tiled into one picture."""

from __future__ import annotations

import math
import re
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
_ALONG = 1e-2  # a stated normal strays from that of the picture by rounding alone
_PROTOCOLS = ("MrPhoenixProtocol", "MrProtocol")
_PLANNED = re.compile(r"sSliceArray\.asSlice\[(\d+)\]\.sPosition\.d(Sag|Cor|Tra)\s*=\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)")


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
    """Siemens states the corner that the whole picture would have as one slice, laid around the first tile's centre."""
    told, planned = csa(dataset, "image"), _planned(dataset)
    count = _siemens_count(dataset, told) or len(planned)
    corner, directions = numbers(dataset, "ImagePositionPatient", 3), numbers(dataset, "ImageOrientationPatient", 6)
    spacing = numbers(dataset, "PixelSpacing", 2)
    if not count or corner is None or directions is None or spacing is None:
        return None
    row, column = np.array(directions).reshape(2, 3)
    size = np.array([number(dataset, "Columns") or 0, number(dataset, "Rows") or 0]) * (spacing[1], spacing[0])
    centre = np.array(corner) + (row * size[0] + column * size[1]) / 2  # to half a pixel, which all tiles share
    step = _step(dataset, told, planned, centre, np.cross(row, column))
    if step is None:
        return None
    across = math.ceil(math.sqrt(count))
    first = np.array(corner) + (row * size[0] + column * size[1]) * (1 - 1 / across) / 2
    return np.asarray(first + np.outer(np.arange(count), step))


def _siemens_count(dataset: Dataset, told: dict[str, list[str]]) -> int:
    stated = next(iter(told.get("NumberOfImagesInMosaic", [])), "")
    return _count(dataset, _SIEMENS, _SIEMENS_COUNT) or (int(stated) if stated.isdecimal() else 0)


def _count(dataset: Dataset, block: Block, offset: int) -> int:
    stated = private_numbers(dataset, block, offset, "US")
    return int(stated[0]) if len(stated) == 1 and 1 <= stated[0] <= _MOST_TILES else 0


def _step(dataset: Dataset, told: dict[str, list[str]], planned: Array, centre: Array, normal: Array) -> Array | None:
    """(3,) LPS mm from tile to tile; None where nothing tells in which sense of the normal they follow."""
    gap = number(dataset, "SpacingBetweenSlices") or number(dataset, "SliceThickness")
    stated = _vector(told.get("SliceNormalVector", []))
    if stated is not None:
        along = float(stated @ normal)
        return normal * gap * np.sign(along) if gap and abs(abs(along) - 1) < _ALONG else None
    return _planned_step(planned, centre, normal)


def _planned_step(planned: Array, centre: Array, normal: Array) -> Array | None:
    """The step between the planned slices, from the end of them at which the first tile lies."""
    if len(planned) < 2:
        return None
    step = normal * float((planned[-1] - planned[0]) @ normal) / (len(planned) - 1)
    heights = (planned - centre) @ normal
    near = abs(float(step @ normal)) / 4
    if abs(heights[0]) < near:
        return np.asarray(step)
    return np.asarray(-step) if abs(heights[-1]) < near else None


def _planned(dataset: Dataset) -> Array:
    """(N, 3) LPS mm of the slices' centres in the scan protocol, in its order; none where there is no protocol."""
    protocol = "\n".join(text for key in _PROTOCOLS for text in csa(dataset, "series").get(key, []))
    count = re.search(r"sSliceArray\.lSize\s*=\s*(\d+)", protocol)
    if count is None or not 1 <= int(count[1]) <= _MOST_TILES:
        return np.empty((0, 3))
    places = np.zeros((int(count[1]), 3))  # a coordinate of zero is not written
    for index, axis, value in _PLANNED.findall(protocol):
        if int(index) < len(places):
            places[int(index), ("Sag", "Cor", "Tra").index(axis)] = float(value)
    return places


def _vector(texts: list[str]) -> Array | None:
    try:
        vector = np.array([float(part) for part in texts])
    except ValueError:
        return None
    return vector if vector.shape == (3,) else None
