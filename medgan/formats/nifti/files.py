"""The files of a NIfTI image: one, or a pair of header and data; compressed or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medgan.errors import NiftiError
from medgan.formats.packed import LONGEST_REASON, PACKING_DAMAGE

__all__ = ["DAMAGE", "damage_named", "data_file", "header_file"]

DAMAGE: tuple[type[Exception], ...] = (
    *PACKING_DAMAGE,
    ValueError,
    OverflowError,  # an offset of infinity
    HeaderDataError,
    WrapStructError,
)


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """What a damaged or missing file raises becomes a NiftiError that names it."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise NiftiError(f"{path}: cannot be opened ({error.strerror}); check path and permissions") from None
    except MemoryError as error:
        raise NiftiError(f"{path}: needs more memory than there is ({error}); crop it, or free some") from None
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise NiftiError(f"{path}: is damaged or cut short ({reason}); copy or convert it again") from error


def header_file(path: Path) -> Path:
    """Where the header lies: the file itself, or the .hdr of a pair that was named by its .img."""
    return _partner(path, ".img", ".hdr")


def data_file(path: Path) -> Path:
    """Where the voxels lie: the file itself, or the .img of a pair that was named by its .hdr."""
    return _partner(path, ".hdr", ".img")


def _partner(path: Path, mine: str, other: str) -> Path:
    name = path.name.removesuffix(".gz")
    if not name.endswith(mine):
        return path
    plain = path.with_name(name.removesuffix(mine) + other)
    packed = plain.with_name(plain.name + ".gz")
    return packed if packed.is_file() and not plain.is_file() else plain
