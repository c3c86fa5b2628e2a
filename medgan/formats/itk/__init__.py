"""The formats of ITK beside NIfTI: MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr), told by content.

Both keep DICOM's axes; a volume has RAS+ as everywhere in medgan. Unit, modality and the mark of a synthetic image are
in the JSON file beside the image and, as free keys that ITK hands on, in its header. What a header names outside its
folder is not followed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from isal import isal_zlib

from medgan.atomic import replacing
from medgan.errors import GeometryError, InputError, OutputError
from medgan.formats.itk import metaimage, nrrd
from medgan.formats.itk.layout import Layout, damage_named, read_voxels, start_of
from medgan.formats.packed import packing
from medgan.formats.sidecar import Marks, of_sidecar, refuse_foreign, sidecar_path
from medgan.formats.voxels import count_not_finite, in_file_order, smallest_exact
from medgan.volume import Grid, Synthesis, Volume

__all__ = ["ENDINGS", "is_itk", "is_itk_name", "oddities", "read", "read_grid", "read_mark", "write"]

ENDINGS = (".mha", ".mhd", ".nrrd")  # that are written
_READ = (*ENDINGS, ".nhdr")
_LEVEL = 2
_SNIFFED = 4096


def is_itk(path: Path) -> bool:
    """True if a file starts as a MetaImage or NRRD does; its name does not count."""
    path = Path(path)
    try:
        start = start_of(path, _SNIFFED) if path.is_file() else b""
    except OSError:
        return False
    return nrrd.is_nrrd(start) or metaimage.is_metaimage(start)


def is_itk_name(path: Path) -> bool:
    """True if the name is one that MetaImage and NRRD files have."""
    return path.name.lower().endswith(_READ)


def read(path: Path) -> Volume:
    """Read a MetaImage or NRRD: (X, Y, Z) in the unit that it records, on its RAS+ mm grid.

    Raises:
        InputError: if it is damaged, 4-D, in colour, has values that are not finite, knows no left from right, or
            names a file of voxels outside its folder.
    """
    path = Path(path)
    layout = _layout(path)
    array = read_voxels(layout, path)
    marks = of_sidecar(path).over(layout.marks)
    return Volume(array, layout.grid, marks.unit or "a.u.", marks.modality, marks.synthetic, padding=marks.padding)


def read_grid(path: Path) -> Grid:
    """Where the voxels are, from the header alone.

    Raises:
        InputError: as `read`, as far as the header tells.
    """
    return _layout(Path(path)).grid


def read_mark(path: Path) -> Synthesis | None:
    """What made the image, told by the image itself and not by the JSON file beside it.

    Raises:
        InputError: as `read`, as far as the header tells.
    """
    return _layout(Path(path)).marks.synthetic


def oddities(path: Path) -> tuple[str, ...]:
    """What is unusual about a header that can be read: each a line for people."""
    return _layout(Path(path)).oddities


def write(volume: Volume, path: Path, *, description: str = "", about: Mapping[str, Any] | None = None) -> Path:
    """Write `name.mha`, `name.mhd` with `name.zraw`, or `name.nrrd`, compressed, and `name.json` beside it.

    Values are stored as in NIfTI: int16 where that is exact, else the smallest of int32, float32 and float64 that is.

    Args:
        volume: to be written.
        path: ends in `.mha`, `.mhd` or `.nrrd`.
        description: one line for the JSON file.
        about: further entries for the JSON file; they name no patient.

    Raises:
        GeometryError: if the grid is sheared, which these formats' readers do not expect.
        InputError: if a value is not finite.
        OutputError: if the place cannot be written, or another program's JSON file is there.
    """
    path = Path(path)
    _refuse_unwritable(volume, path)
    with replacing(path) as temporary, replacing(sidecar_path(path)) as sidecar:
        fields = Marks.of(volume).to_json(description, about)
        sidecar.write_text(json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        if path.name.endswith(".nrrd"):
            _write_nrrd(volume, temporary)
        elif path.name.endswith(".mha"):
            _write_metaimage(volume, temporary)
        else:
            _write_pair(volume, temporary, path.with_suffix(".zraw"))
    return path


def _layout(path: Path) -> Layout:
    with damage_named(path):
        start = start_of(path)
    if nrrd.is_nrrd(start):
        return nrrd.parse(path)
    if not start:
        raise InputError(f"{path}: is empty; copy or convert it again")
    return metaimage.parse(path)


def _refuse_unwritable(volume: Volume, path: Path) -> None:
    if not path.name.endswith(ENDINGS):
        raise OutputError(f"{path}: names no format of ITK; end it in {', '.join(ENDINGS)}")
    if volume.grid.is_sheared:
        raise GeometryError(
            f"a grid without right angles ({volume.grid.describe()}) is not written as {path.suffix}, whose readers "
            "expect them; write it as NIfTI, or resample it first"
        )
    bad = count_not_finite(volume.array)
    if bad:
        raise InputError(f"{bad} of {volume.array.size} voxels are NaN or infinite; replace them by a background value")
    refuse_foreign(sidecar_path(path))
    data = path.with_suffix(".zraw")
    if path.suffix == ".mhd" and data.exists() and not path.exists():
        raise OutputError(
            f"{data}: would be overwritten, and no {path.name} lies beside it; choose another output name"
        )


def _write_nrrd(volume: Volume, path: Path) -> None:
    dtype = smallest_exact([volume.array])
    with path.open("wb") as plain:
        plain.write(nrrd.compose(volume.grid, dtype, Marks.of(volume)))
        with packing(plain) as packed:
            for part in in_file_order(volume.array, dtype):
                packed.write(part)


def _write_metaimage(volume: Volume, path: Path) -> None:
    dtype = smallest_exact([volume.array])
    header = metaimage.compose(volume.grid, dtype, Marks.of(volume), "LOCAL")
    with path.open("wb") as stream:
        stream.write(header)
        _patch(stream, header, _deflate(volume, dtype, stream))


def _write_pair(volume: Volume, path: Path, data: Path) -> None:
    dtype = smallest_exact([volume.array])
    header = metaimage.compose(volume.grid, dtype, Marks.of(volume), data.name)
    with path.open("wb") as stream, replacing(data) as voxels:
        stream.write(header)
        with voxels.open("wb") as packed:
            size = _deflate(volume, dtype, packed)
        _patch(stream, header, size)


def _patch(stream: BinaryIO, header: bytes, size: int) -> None:
    """Fill the number of compressed bytes in, which is known only now."""
    blank = b" " * metaimage.SIZE_WIDTH
    stream.seek(header.index(blank))
    stream.write(f"{size:>{metaimage.SIZE_WIDTH}}".encode())


def _deflate(volume: Volume, dtype: Any, stream: BinaryIO) -> int:
    """The voxels in zlib's form; the number of bytes written."""
    packer, start = isal_zlib.compressobj(level=_LEVEL), stream.tell()
    for part in in_file_order(volume.array, dtype):
        stream.write(packer.compress(part))
    stream.write(packer.flush())
    return stream.tell() - start
