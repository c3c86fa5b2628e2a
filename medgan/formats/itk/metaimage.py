"""MetaImage (.mha, .mhd): lines of `Key = Value`, then the voxels or the name of their file.

Axes are DICOM's (LPS), as in ITK. Each row of three numbers of TransformMatrix is the direction of one array axis.
CenterOfRotation and AnatomicalOrientation change nothing, as in ITK.

Source: ITK's documentation of MetaIO; checked against SimpleITK.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError
from medgan.formats.itk.layout import LPS_TO_RAS, Layout, damage_named, data_beside, grid_lps, start_of
from medgan.formats.sidecar import Marks, of_descrip, of_json
from medgan.volume import Grid

__all__ = ["SIZE_WIDTH", "compose", "is_metaimage", "parse"]

Array = npt.NDArray[Any]
SIZE_WIDTH = 20  # of the number of compressed bytes, which is known only after they are written
_FIRST = re.compile(rb"\s*[A-Za-z]\w*[ \t]*=")
_DIMENSIONS = re.compile(rb"^[ \t]*NDims[ \t]*=", re.MULTILINE)
_LAST = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*?)[ \t]*(?:\r?\n|\Z)", re.MULTILINE)
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # as MetaIO has it, whatever the machine calls long
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_NAMES = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "i4": "MET_INT", "f4": "MET_FLOAT", "f8": "MET_DOUBLE"}
_MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR", "MET_MOD_NM": "NM", "MET_MOD_US": "US"}
_NO_SCALE = (("Slope", "1"), ("Offset", "0"))
_MAX_VALUE = 3000  # MetaIO takes longer values for damage


def is_metaimage(start: bytes) -> bool:
    """True if a file that starts so is a MetaImage."""
    return bool(_FIRST.match(start) and _DIMENSIONS.search(start))


def parse(path: Path) -> Layout:
    """The layout that the header of a MetaImage describes.

    Raises:
        InputError: if it is damaged, or of an image that is not one real number a voxel in two or three axes.
    """
    with damage_named(path):
        start = start_of(path)
        end = _LAST.search(start)
        if not is_metaimage(start) or end is None:
            raise InputError(f"{path}: is no MetaImage (it has no lines NDims and ElementDataFile); convert it again")
        fields = _fields(start[: end.end()].decode("utf-8", "replace"))
        _refuse_other_images(fields, path)
        shape = _shape(fields, path)
        file, first = _voxels(fields, path, end.end())
        return Layout(
            grid=_grid(fields, shape, path),
            dtype=_dtype(fields, path),
            file=file,
            start=first,
            encoding="zlib" if _is_true(fields, "CompressedData") else "raw",
            marks=_marks(fields),
            oddities=_oddities(fields),
        )


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _is_true(fields: dict[str, str], *keys: str) -> bool:
    return any(fields.get(key, "").lower() in {"true", "1"} for key in keys)


def _refuse_other_images(fields: dict[str, str], path: Path) -> None:
    if fields.get("ObjectType", "Image").lower() != "image":
        raise InputError(f"{path}: is a MetaIO object of type {fields['ObjectType'][:40]!r}; medgan reads images")
    if "BinaryData" in fields and not _is_true(fields, "BinaryData"):
        raise InputError(f"{path}: has its voxels as text (BinaryData = False); convert it to a binary file")
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    if channels != 1:
        raise InputError(f"{path}: has {channels} numbers a voxel; medgan reads images of one real number a voxel")
    scale = [float(fields.get(f"ElementToIntensityFunction{key}", default)) for key, default in _NO_SCALE]
    if scale != [1.0, 0.0]:
        raise InputError(f"{path}: has an ElementToIntensityFunction, which ITK ignores; apply it and write it anew")
    if fields.get("DistanceUnits", "mm").lower() not in {"mm", "?", "???"}:
        raise InputError(f"{path}: is in {fields['DistanceUnits'][:20]!r}, which ITK takes for mm; write it anew in mm")


def _shape(fields: dict[str, str], path: Path) -> tuple[int, ...]:
    """The number of voxels along each axis, as many axes as NDims says."""
    sizes = tuple(int(part) for part in fields.get("DimSize", "").split())
    stated = fields.get("NDims", "0")
    if not sizes or len(sizes) != int(stated) or min(sizes) < 1:
        raise InputError(f"{path}: has no voxels or a wrong DimSize ({sizes[:8]} for NDims = {stated[:10]})")
    if len(sizes) < 2:
        raise InputError(f"{path}: has one axis; medgan reads images of two or three")
    if int(np.prod(sizes[3:], dtype=object)) > 1:
        count = int(np.prod(sizes[3:], dtype=object))
        raise InputError(f"{path}: holds {count} volumes (DimSize {sizes}); give one 3-D volume a file")
    return sizes


def _grid(fields: dict[str, str], shape: tuple[int, ...], path: Path) -> Grid:
    count = len(shape)
    directions = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), np.eye(count).ravel(), path)
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), np.ones(count), path)
    offset = _numbers(fields, ("Offset", "Position", "Origin"), np.zeros(count), path)
    if spacing.min() <= 0:
        raise InputError(f"{path}: has an ElementSpacing that is not above 0 ({spacing.tolist()}); correct its header")
    axes, origin, kept = np.eye(3), np.zeros(3), min(count, 3)
    axes[:kept, :kept] = (directions.reshape(count, count) * spacing[:, None]).T[:kept, :kept]
    origin[:kept] = offset[:kept]
    return grid_lps((*shape[:kept], 1), axes, origin)


def _numbers(fields: dict[str, str], names: tuple[str, ...], default: Array, path: Path) -> Array:
    """The numbers of the first key that is there, which have to be as many as the default's."""
    name = next((name for name in names if name in fields), "")
    values = np.array([float(part) for part in fields[name].split()]) if name else default
    if values.shape != default.shape or not np.isfinite(values).all():
        raise InputError(f"{path}: has a wrong {name} ({len(values)} numbers, {len(default)} are needed); correct it")
    return values


def _dtype(fields: dict[str, str], path: Path) -> np.dtype[Any]:
    name = fields.get("ElementType", "")
    if name not in _TYPES:
        raise InputError(f"{path}: has voxels of type {name[:40]!r}; medgan reads {', '.join(_TYPES)}")
    order = ">" if _is_true(fields, "BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
    return np.dtype(order + _TYPES[name])


def _voxels(fields: dict[str, str], path: Path, end_of_header: int) -> tuple[Path, int]:
    """The file of the voxels and the byte at which they start."""
    name, skipped = fields.get("ElementDataFile", ""), int(fields.get("HeaderSize", "0"))
    if name.upper() == "LOCAL":
        return path, end_of_header
    if not name or name.upper().startswith("LIST") or "%" in name:
        raise InputError(f"{path}: keeps its slices in files of their own ({name[:40]!r}); convert it to one file")
    if skipped < -1 or (skipped and _is_true(fields, "CompressedData")):
        raise InputError(f"{path}: has a HeaderSize of {skipped}, which its voxels cannot have; correct its header")
    return data_beside(path, name), skipped


def _marks(fields: dict[str, str]) -> Marks:
    own = of_json(fields.get("medgan", "")).over(of_descrip(fields.get("Comment", "")))
    return own.over(Marks(modality=_MODALITIES.get(fields.get("Modality", "").upper(), "")))


def _oddities(fields: dict[str, str]) -> tuple[str, ...]:
    lines = []
    if int(fields["NDims"]) == 2:
        lines.append("is 2-D: taken as one axial slice of 1 mm at height 0, its rows to the left, columns to the back")
    elif not {"TransformMatrix", "Rotation", "Orientation"} & fields.keys():
        lines.append("has no TransformMatrix: taken as axial, as ITK does")
    if not {"ElementSpacing", "ElementSize"} & fields.keys():
        lines.append("has no ElementSpacing: 1 mm is assumed, as ITK does")
    return tuple(lines)


def compose(grid: Grid, dtype: np.dtype[Any], marks: Marks, data: str) -> bytes:
    """The header of a compressed image in `data`, with room for the number of compressed bytes."""
    affine = LPS_TO_RAS @ grid.affine
    direction, spacing = affine[:3, :3] / np.array(grid.spacing_mm), grid.spacing_mm
    modality = {code: name for name, code in _MODALITIES.items()}.get(marks.modality, "MET_MOD_UNKNOWN")
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": " " * SIZE_WIDTH,
        "TransformMatrix": _text(direction.T.ravel()),
        "Offset": _text(affine[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": _text(spacing),
        "Comment": marks.descrip(),
        "Modality": modality,
        "medgan": _marks_text(marks),
        "DimSize": " ".join(map(str, grid.shape)),
        "ElementType": _NAMES[dtype.str[1:]],
        "ElementDataFile": data,
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items()).encode()


def _marks_text(marks: Marks) -> str:
    """The marks in one line of ASCII; a mark too long for MetaIO gives its wordy parts up."""
    text = json.dumps(marks.to_json())
    if len(text) > _MAX_VALUE and marks.synthetic:
        short = replace(marks.synthetic, description="", conditions={})
        text = json.dumps(replace(marks, synthetic=short).to_json())
    return text


def _text(numbers: Any) -> str:
    return " ".join(repr(float(number) + 0.0) for number in numbers)
