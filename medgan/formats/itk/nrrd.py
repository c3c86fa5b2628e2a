"""NRRD (.nrrd, .nhdr): lines of `field: value` and `key:=value`, an empty line, then the voxels or their file's name.

A file has to say in which space its directions are (LPS, RAS or LAS): one that does not knows no left from right, and
is refused, except for a picture of two axes in a plane.

Source: the definition of the format, version 5 (teem); checked against SimpleITK and pynrrd.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError
from medgan.formats.itk.layout import LPS_TO_RAS, Encoding, Layout, damage_named, data_beside, grid_lps, start_of
from medgan.formats.sidecar import Marks, of_json
from medgan.volume import Grid

__all__ = ["compose", "is_nrrd", "parse"]

Array = npt.NDArray[Any]
_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
_VECTOR = re.compile(r"none|\([^()]*\)", re.IGNORECASE)
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}
_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_CODES = {name: code for code, names in _TYPES.items() for name in names.split(", ")}
_NAMES = {"u1": "uint8", "i2": "int16", "i4": "int32", "f4": "float", "f8": "double"}
_MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", ""}


def is_nrrd(start: bytes) -> bool:
    """True if a file that starts so is an NRRD."""
    return _MAGIC.match(start) is not None


def parse(path: Path) -> Layout:
    """The layout that the header of an NRRD describes.

    Raises:
        InputError: if it is damaged, knows no left from right, or is not one real number a voxel in two or three axes.
    """
    with damage_named(path):
        start = start_of(path)
        if not is_nrrd(start):
            raise InputError(f"{path}: does not start as NRRD does (NRRD0001 to NRRD0005); convert it again")
        end = _END.search(start)
        length = end.end() if end else len(start)
        fields, keys = _lines(start[:length].decode("utf-8", "replace"))
        sizes = tuple(int(part) for part in fields.get("sizes", "").split())
        if not sizes or len(sizes) != int(fields.get("dimension", "0")) or min(sizes) < 1:
            raise InputError(f"{path}: has no voxels or wrong sizes ({sizes[:8]}); correct its header")
        grid, oddities = _grid(fields, sizes, path)
        file, first = _voxels(fields, path, length)
        marks = of_json(keys.get("medgan", ""))
        return Layout(grid, _dtype(fields, path), file, first, _encoding(fields, path), marks, oddities)


def _lines(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Fields by their names in small letters, and the free keys."""
    fields, keys = dict[str, str](), dict[str, str]()
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(":")
        if line.startswith("#") or not value:
            continue
        if value.startswith("="):
            keys[name] = _unescaped(value[1:])
        else:
            fields[name.strip().lower()] = value.strip()
    return fields, keys


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found.group(1), found.group(1)), text)


def _grid(fields: dict[str, str], sizes: tuple[int, ...], path: Path) -> tuple[Grid, tuple[str, ...]]:
    if any(unit.strip('" ').lower() not in _MILLIMETRES for unit in fields.get("space units", "").split()):
        raise InputError(f"{path}: is in {fields['space units'][:40]}; write it anew in mm")
    if fields.get("space", "").lower() in _TO_LPS and "space directions" in fields:
        return _grid_in_space(fields, sizes, path)
    if len(sizes) == 2 and "space" not in fields:
        return _grid_in_plane(fields, sizes, path)
    if len(sizes) > 3:
        raise _refused(fields, sizes, path)
    seen = fields.get("space", "none")[:40]
    raise InputError(
        f"{path}: knows no left from right (space {seen!r}); medgan reads left-posterior-superior, "
        "right-anterior-superior and left-anterior-superior, with space directions: convert it again from its source"
    )


def _grid_in_space(fields: dict[str, str], sizes: tuple[int, ...], path: Path) -> tuple[Grid, tuple[str, ...]]:
    to_lps = np.array(_TO_LPS[fields["space"].lower()], dtype=np.float64)
    vectors = [_vector(text, path) for text in _VECTOR.findall(fields["space directions"])]
    if len(vectors) != len(sizes):
        raise InputError(f"{path}: has {len(vectors)} space directions for {len(sizes)} axes; correct its header")
    placed = [(size, vector) for size, vector in zip(sizes, vectors, strict=True) if vector is not None]
    if math.prod(sizes) != math.prod(size for size, _ in placed) or not 2 <= len(placed) <= 3:
        raise _refused(fields, sizes, path)
    origin = _vector(fields.get("space origin", "(0,0,0)"), path)
    axes = [vector * to_lps for _, vector in placed if vector is not None]
    shape, lines = (
        tuple(size for size, _ in placed),
        [] if "space origin" in fields else ["has no space origin: 0 is taken"],
    )
    if len(axes) == 2:
        normal = np.cross(axes[0], axes[1])
        axes, shape = [*axes, normal / max(float(np.linalg.norm(normal)), 1e-12)], (*shape, 1)
        lines.append("is a single slice that states no thickness: 1 mm is assumed")
    return grid_lps(shape, np.stack(axes, axis=1), np.zeros(3) if origin is None else origin * to_lps), tuple(lines)


def _grid_in_plane(fields: dict[str, str], sizes: tuple[int, ...], path: Path) -> tuple[Grid, tuple[str, ...]]:
    """A picture: an axial slice, as a PNG is, with the steps and the origin that it states for its plane."""
    axes, origin = np.eye(3), np.zeros(3)
    if "space directions" in fields:
        vectors = [_vector(text, path, 2) for text in _VECTOR.findall(fields["space directions"])]
        axes[:2, :2] = np.stack([np.zeros(2) if vector is None else vector for vector in vectors], axis=1)
    elif "spacings" in fields:
        axes[0, 0], axes[1, 1] = (float(part) for part in fields["spacings"].split())
    if "space origin" in fields:
        place = _vector(fields["space origin"], path, 2)
        origin[:2] = 0 if place is None else place
    remark = "is 2-D: taken as one axial slice of 1 mm at height 0, its rows to the left, columns to the back"
    return grid_lps((*sizes, 1), axes, origin), (remark,)


def _vector(text: str, path: Path, count: int = 3) -> Array | None:
    if text.lower() == "none":
        return None
    vector = np.array([float(part) for part in text.strip("() ").split(",")])
    if vector.shape != (count,) or not np.isfinite(vector).all():
        raise InputError(f"{path}: has a vector of {vector.size} numbers, {count} are needed; correct its header")
    return vector


def _refused(fields: dict[str, str], sizes: tuple[int, ...], path: Path) -> InputError:
    kinds = fields.get("kinds", "")[:60]
    what = f"sizes {sizes}, kinds {kinds}" if kinds else f"sizes {sizes}"
    return InputError(f"{path}: is no single 3-D image of one number a voxel ({what}); give one 3-D volume a file")


def _dtype(fields: dict[str, str], path: Path) -> np.dtype[Any]:
    code = _CODES.get(" ".join(fields.get("type", "").lower().split()))
    if code is None:
        raise InputError(
            f"{path}: has voxels of type {fields.get('type', '')[:40]!r}; medgan reads {', '.join(_CODES)}"
        )
    order = fields.get("endian", "").lower()
    if order not in {"little", "big"} and np.dtype(code).itemsize > 1:
        raise InputError(f"{path}: does not say its endian (little or big); correct its header")
    return np.dtype((">" if order == "big" else "<") + code)


def _encoding(fields: dict[str, str], path: Path) -> Encoding:
    name = fields.get("encoding", "").lower()
    if name not in _ENCODINGS:
        raise InputError(f"{path}: has the encoding {name[:40]!r}; medgan reads {', '.join(_ENCODINGS)}")
    return _ENCODINGS[name]


def _voxels(fields: dict[str, str], path: Path, end_of_header: int) -> tuple[Path, int]:
    """The file of the voxels and the byte at which they start."""
    name = fields.get("data file", fields.get("datafile", ""))
    lines = int(fields.get("line skip", fields.get("lineskip", "0")))
    skipped = int(fields.get("byte skip", fields.get("byteskip", "0")))
    if lines or skipped < -1 or (skipped and _encoding(fields, path) != "raw"):
        raise InputError(
            f"{path}: skips lines, or bytes of compressed voxels; write it anew without line and byte skip"
        )
    if not name:
        return path, end_of_header + skipped if skipped >= 0 else -1
    if name.upper().startswith("LIST") or "%" in name:
        raise InputError(f"{path}: keeps its voxels in several files ({name[:40]!r}); convert it to one file")
    return data_beside(path, name), skipped


def compose(grid: Grid, dtype: np.dtype[Any], marks: Marks) -> bytes:
    """The header of an image whose compressed voxels follow."""
    affine = LPS_TO_RAS @ grid.affine
    lines = [
        "NRRD0004",
        f"type: {_NAMES[dtype.str[1:]]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, grid.shape))}",
        f"space directions: {' '.join(_text(affine[:3, axis]) for axis in range(3))}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_text(affine[:3, 3])}",
        f"medgan:={_escaped(json.dumps(marks.to_json()))}",
    ]
    return ("\n".join(lines) + "\n\n").encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _text(numbers: Any) -> str:
    return f"({','.join(repr(float(number) + 0.0) for number in numbers)})"
