"""What the headers of MetaImage and NRRD have in common: how voxels lie in a file, and where they are in space."""

from __future__ import annotations

import bz2
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from medgan.errors import GeometryError, InputError
from medgan.formats.packed import LONGEST_REASON, MAX_RATIO, PACKING_DAMAGE, unpacked
from medgan.formats.sidecar import Marks
from medgan.formats.voxels import count_not_finite, filled
from medgan.volume import Grid

__all__ = ["LPS_TO_RAS", "Layout", "damage_named", "data_beside", "grid_lps", "read_voxels", "start_of"]

Array = npt.NDArray[Any]
Encoding = Literal["raw", "gzip", "zlib", "bzip2"]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MAX_HEADER = 1 << 20
_MAX_RATIOS = {"raw": 1, "gzip": MAX_RATIO, "zlib": MAX_RATIO, "bzip2": 50_000_000}
_AUTOMATIC = 47  # zlib's word for: a header of zlib or of gzip, whichever is there
_CHUNK = 1 << 18
_DAMAGE: tuple[type[Exception], ...] = (*PACKING_DAMAGE, ValueError, OverflowError)


@dataclass(frozen=True, eq=False)
class Layout:
    """How voxels lie in a file.

    Args:
        grid: where they are.
        dtype: what each is, with its byte order.
        file: which file holds them.
        start: the first byte that belongs to them; -1 where they are the end of the file.
        encoding: how they are compressed.
        marks: what the header says of unit, modality and origin.
        oddities: what is unusual about the header, each a line for people.
    """

    grid: Grid
    dtype: np.dtype[Any]
    file: Path
    start: int
    encoding: Encoding
    marks: Marks = field(default_factory=Marks)
    oddities: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """What the voxels take when they are not compressed."""
        return math.prod(self.grid.shape) * self.dtype.itemsize


def start_of(path: Path, length: int = _MAX_HEADER) -> bytes:
    """The first bytes of a file: as many as a header can have, if not fewer are wanted."""
    with path.open("rb") as stream:
        return stream.read(length)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """What a damaged or missing file raises becomes an InputError that names it."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
            yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check path and permissions") from None
    except GeometryError as error:
        raise InputError(f"{path}: {error}; correct its header") from None
    except MemoryError as error:
        raise InputError(f"{path}: needs more memory than there is ({error}); crop it, or free some") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise InputError(f"{path}: is damaged or cut short ({reason}); copy or convert it again") from error


def data_beside(header: Path, name: str) -> Path:
    """The file of voxels that a header names; it has to lie in the header's folder or below.

    Raises:
        InputError: if it is elsewhere, or missing.
    """
    target, folder = header.parent / name, header.parent.resolve()
    if "\0" in name or Path(name).is_absolute() or not target.resolve().is_relative_to(folder):
        raise InputError(
            f"{header}: says that its voxels are in {name[:80]!r}, outside its own folder, where medgan does not look; "
            "move the file beside it and correct the name"
        )
    if not target.is_file():
        raise InputError(f"{header}: says that its voxels are in {name[:80]!r}, which is no file; copy it beside it")
    return target


def grid_lps(shape: tuple[int, ...], axes: Array, origin: Array) -> Grid:
    """The grid of an image that is given in LPS millimetres.

    Args:
        shape: number of voxels along the array axes.
        axes: (3, 3) the step from voxel to voxel along each array axis, in the columns.
        origin: position of the first voxel.
    """
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, origin
    return Grid((shape[0], shape[1], shape[2]), LPS_TO_RAS @ affine)


def read_voxels(layout: Layout, path: Path) -> Array:
    """The (X, Y, Z) values, in this machine's byte order.

    Raises:
        InputError: if the file is damaged or too short, or a value is NaN or infinite.
    """
    _refuse_short(layout, path)
    with damage_named(path), layout.file.open("rb") as file:
        file.seek(layout.start if layout.start >= 0 else layout.file.stat().st_size - layout.num_bytes)
        stream = _decoded(file, layout.encoding)
        array = filled(stream, layout.grid.shape, layout.dtype)
        # Only at its end does a compressed stream tell whether its bytes are what was written.
        while layout.encoding != "raw" and stream.read(_CHUNK):
            pass
    bad = count_not_finite(array)
    if bad:
        raise InputError(
            f"{path}: {bad} of {array.size} voxels are NaN or infinite; replace them by a background value"
        )
    return array


def _refuse_short(layout: Layout, path: Path) -> None:
    """Before memory is taken: a damaged header may claim any size."""
    with damage_named(path):
        held = layout.file.stat().st_size - max(0, layout.start)
    if layout.num_bytes > held * _MAX_RATIOS[layout.encoding]:
        raise InputError(f"{path}: is cut short (its header claims {layout.num_bytes} bytes); copy or convert it again")


def _decoded(file: BinaryIO, encoding: Encoding) -> BinaryIO:
    if encoding == "gzip":
        return unpacked(file)
    if encoding == "bzip2":
        return cast(BinaryIO, bz2.BZ2File(file))
    return cast(BinaryIO, io.BufferedReader(_Inflated(file))) if encoding == "zlib" else file


class _Inflated(io.RawIOBase):
    """The decompressed bytes of a stream of zlib or gzip, which need not be the end of its file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._zlib = file, isal_zlib.decompressobj(wbits=_AUTOMATIC)

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        part = b""
        while not part and not self._zlib.eof:
            chunk = self._zlib.unconsumed_tail or self._file.read(_CHUNK)
            if not chunk:
                raise EOFError("the compressed voxels end early")
            part = self._zlib.decompress(chunk, len(room))
        room[: len(part)] = part
        return len(part)
