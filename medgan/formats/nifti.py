"""NIfTI-1 and NIfTI-2, single files and pairs, compressed or not, told by content.

Where the voxels are. A header may hold two answers. medgan takes the sform if its code is above 0, else the qform if
its code is above 0, else it refuses: a file without either does not know left from right. Where both are set and
differ, the sform wins, as in nibabel, SPM and FreeSurfer, and `inspect` reports the difference. A spatial unit of
metres or micrometres is converted; an unknown one counts as millimetres.

What the numbers mean. Slope and intercept are applied, and integers stay integers where that is exact. Unit, modality
and the mark of a synthetic image come from the JSON file beside the image, else from a comment inside it, else from
the description field. Without any of them the unit is `a.u.` and the modality "".
"""

from __future__ import annotations

import gzip
import json
import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medgan.atomic import replacing
from medgan.errors import GeometryError, NiftiError
from medgan.formats.sidecar import Marks, of_comment, of_descrip, of_sidecar, refuse_foreign, sidecar_path
from medgan.volume import Grid, Synthesis, Volume

__all__ = ["Space", "is_nifti", "oddities", "read", "read_grid", "read_mark", "write"]

Array = npt.NDArray[Any]
_COMMENT = 6
_GZIP = b"\x1f\x8b"
_GZIP_MAX_RATIO = 1040
_MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, HeaderDataError, WrapStructError)
_QUIET = logging.Logger("nibabel's small repairs, unheard", logging.CRITICAL)
_HEADERS = {
    b"n+1\0": nib.Nifti1Header,
    b"ni1\0": nib.nifti1.Nifti1PairHeader,
    b"n+2\0": nib.Nifti2Header,
    b"ni2\0": nib.nifti2.Nifti2PairHeader,
}


@dataclass(frozen=True)
class Space:
    """The `header` of a volume read from NIfTI: which space its coordinates are in (1 scanner, 2 aligned, 4 MNI, …)."""

    code: int


def is_nifti(path: Path) -> bool:
    """True if the file starts as a NIfTI header does, compressed or not; its name does not count."""
    path = _header_file(Path(path))
    try:
        return path.is_file() and _header_class(path) is not None
    except _DAMAGE:
        return False


def read(path: Path) -> Volume:
    """Read a NIfTI image: (X, Y, Z) in the unit that it records, on its RAS+ mm grid.

    Raises:
        NiftiError: if it is damaged, empty, holds several volumes, complex or colour values, or values that are not
            finite, or has no usable affine.
    """
    path = Path(path)
    header = _read_header(path)
    grid = _grid(header, path)
    array = _array(header, path).reshape(grid.shape, order="F")
    _refuse_not_finite(array, str(path))
    marks = of_sidecar(path).over(_own_marks(header))
    return Volume(array, grid, marks.unit or "a.u.", marks.modality, marks.synthetic, Space(_affine(header, path)[1]))


def read_grid(path: Path) -> Grid:
    """Where the voxels are, from the header alone.

    Raises:
        NiftiError: as `read`, as far as the header tells.
    """
    return _grid(_read_header(Path(path)), Path(path))


def read_mark(path: Path) -> Synthesis | None:
    """What made the image, told by the image itself and not by the JSON file beside it.

    Raises:
        NiftiError: as `read`, as far as the header tells.
    """
    return _own_marks(_read_header(Path(path))).synthetic


def oddities(path: Path) -> tuple[str, ...]:
    """What is unusual about a header that can be read: each a line for people."""
    header = _read_header(Path(path))
    grid = _grid(header, Path(path))
    return tuple(line for line in (_disagreement(header, grid), _wrong_pixdim(header, grid)) if line)


def write(volume: Volume, path: Path, *, like: Volume | None = None, description: str = "") -> Path:
    """Write `name.nii` or `name.nii.gz`, and `name.json` beside it.

    Values are stored as int16 where that is exact, else in the smallest of int32, float32 and float64 that is exact
    (masks of one byte stay so). sform and qform are both set, except on a sheared grid, which a qform cannot say.

    Args:
        volume: to be written.
        path: ends in `.nii` or `.nii.gz`.
        like: its space code is taken if the volume itself has none; otherwise the code is 1 (scanner).
        description: one line for the JSON file.

    Raises:
        NiftiError: if a value is not finite.
        OutputError: if the place cannot be written, or another program's JSON file is there.
    """
    path = Path(path)
    _refuse_not_finite(volume.array, "the volume to be written")
    refuse_foreign(sidecar_path(path))
    image = _image(volume, _space_code(volume, like))
    with replacing(path) as temporary:
        temporary.write_bytes(_packed(image.to_bytes()) if path.name.endswith(".gz") else image.to_bytes())
        with replacing(sidecar_path(path)) as sidecar:
            sidecar.write_text(json.dumps(Marks.of(volume).to_json(description), indent=2, ensure_ascii=False) + "\n")
    return path


# --- the header -------------------------------------------------------------------------------------------------------


def _read_header(path: Path) -> Any:
    file = _header_file(path)
    with _damage_named(file):
        header_class = _header_class(file)
        if header_class is None:
            raise NiftiError(f"{path}: does not start as NIfTI does{_hint(file)}; give a NIfTI-1 or NIfTI-2 file")
        with _opened(file) as stream, warnings.catch_warnings(action="ignore"):
            header = header_class.from_fileobj(stream, check=False)
        header.check_fix(logger=_QUIET)
    _refuse_unusable(header, path)
    return header


def _header_class(path: Path) -> Any:
    """The class of nibabel for the header that a file starts with, or None."""
    with _opened(path) as stream:
        start = stream.read(348)
    size = {start[:4], start[3::-1]} if len(start) >= 4 else set()
    if (348).to_bytes(4, "little") in size:
        return _HEADERS.get(start[344:348])
    return _HEADERS.get(start[4:8]) if (540).to_bytes(4, "little") in size else None


def _hint(path: Path) -> str:
    with _opened(path) as stream:
        start = stream.read(4)
    if not start:
        return " (it is empty)"
    analyze = (348).to_bytes(4, "little") in (start, start[::-1])
    return " (it looks like ANALYZE 7.5, which does not know left from right)" if analyze else ""


def _refuse_unusable(header: Any, path: Path) -> None:
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if not shape or min(shape) < 1:
        raise NiftiError(f"{path}: has no voxels (shape {shape}); give an image of one volume")
    if math.prod(shape[3:]) > 1:
        raise NiftiError(f"{path}: holds {math.prod(shape[3:])} volumes (shape {shape}); give one 3-D volume a file")
    if dtype.kind not in "iuf":
        name = "colour" if dtype.kind == "V" else "complex"
        raise NiftiError(f"{path}: has {name} values; medgan reads images of one real number a voxel")


def _grid(header: Any, path: Path) -> Grid:
    affine, _ = _affine(header, path)
    shape = (*header.get_data_shape(), 1, 1)[:3]
    try:
        return Grid(shape, affine)
    except GeometryError as error:
        raise NiftiError(f"{path}: {error}; correct its sform or qform") from None


def _affine(header: Any, path: Path) -> tuple[Array, int]:
    """The affine in mm and the code of the space that it leads to."""
    for form in ("sform", "qform"):
        code = int(header[f"{form}_code"])
        if code > 0:
            return _form_mm(header, form, path), code
    raise NiftiError(
        f"{path}: knows no orientation (sform_code and qform_code are 0); convert it again from its source, "
        "or set one of them if you are sure of it"
    )


@np.errstate(invalid="ignore")
def _form_mm(header: Any, form: str, path: Path) -> Array:
    try:
        affine = np.array(getattr(header, f"get_{form}")(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise NiftiError(f"{path}: its {form} is no rotation ({error}); correct it") from None
    affine[:3] *= _MM_PER_UNIT.get(_spatial_unit(header), 1.0)
    return affine


def _spatial_unit(header: Any) -> str:
    try:
        return str(header.get_xyzt_units()[0])
    except KeyError:
        return "unknown"


def _own_marks(header: Any) -> Marks:
    """What the image itself says: a comment of medgan's, else the description field."""
    marks = Marks()
    for extension in header.extensions:
        if extension.get_code() == _COMMENT:
            content = extension.get_content()
            marks = marks.over(of_comment(content if isinstance(content, str) else content.decode("utf-8", "replace")))
    return marks.over(of_descrip(header["descrip"].item().decode("ascii", "replace")))


def _disagreement(header: Any, grid: Grid) -> str:
    if int(header["qform_code"]) <= 0 or int(header["sform_code"]) <= 0:
        return ""
    try:
        apart = grid.distance_mm(Grid(grid.shape, _form_mm(header, "qform", Path())))
    except (NiftiError, GeometryError):
        return "the qform is broken, the sform is used"
    return f"qform and sform differ by up to {apart:.1f} mm, the sform is used" if apart > 0.1 else ""


@np.errstate(invalid="ignore")
def _wrong_pixdim(header: Any, grid: Grid) -> str:
    factor = _MM_PER_UNIT.get(_spatial_unit(header), 1.0)
    pixdim = np.abs(np.array(header["pixdim"][1 : 1 + min(3, len(header.get_data_shape()))], dtype=np.float64)) * factor
    spacing = np.array(grid.spacing_mm)[: len(pixdim)]
    if np.allclose(pixdim, spacing, rtol=1e-2):
        return ""
    return f"pixdim says {_times(pixdim)} mm, the affine {_times(spacing)} mm; the affine is used"


def _times(values: Array) -> str:
    return "×".join(f"{value:.4g}" for value in values)


# --- the voxels -------------------------------------------------------------------------------------------------------


def _array(header: Any, path: Path) -> Array:
    file = _data_file(path)
    with _damage_named(file), _opened(file) as stream:
        _refuse_short(header, file)
        raw = header.raw_data_from_fileobj(stream)
        # Only at its end does a gzip file tell whether its bytes are what was written.
        while stream.read(1 << 20):
            pass
    slope, inter = header.get_slope_inter()
    return _scaled(raw.astype(raw.dtype.newbyteorder("="), copy=False), slope, inter)


def _scaled(raw: Array, slope: float | None, inter: float | None) -> Array:
    """`raw * slope + inter`: integers where that is exact, else float32, float64 where the raw values need it."""
    slope, inter = 1.0 if slope is None else slope, inter or 0.0
    if raw.dtype.itemsize > 8:
        raw = raw.astype(np.float64)
    if (slope, inter) == (1.0, 0.0):
        return raw
    values = raw.astype(np.float64) * slope + inter
    if raw.dtype.kind in "iu" and float(slope).is_integer() and float(inter).is_integer():
        return _as_integers(values)
    return values.astype(np.result_type(raw.dtype, np.float32))


def _as_integers(values: Array) -> Array:
    low, high = float(values.min()), float(values.max())
    for dtype in (np.int16, np.int32, np.int64):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values


def _refuse_short(header: Any, file: Path) -> None:
    """Before memory is taken: a damaged header may claim any size."""
    claimed = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize + int(header.get_data_offset())
    most = file.stat().st_size * (_GZIP_MAX_RATIO if _is_gzip(file) else 1)
    if claimed > most:
        raise NiftiError(f"{file}: is cut short (its header claims {claimed} bytes); copy or convert it again")


def _refuse_not_finite(array: Array, what: str) -> None:
    bad = 0 if array.dtype.kind in "iub" else int(array.size - np.isfinite(array).sum())
    if bad:
        raise NiftiError(
            f"{what}: {bad} of {array.size} voxels are NaN or infinite; replace them by a background value"
        )


# --- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise NiftiError(f"{path}: cannot be opened ({error.strerror}); check path and permissions") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise NiftiError(f"{path}: is damaged or cut short ({reason}); copy or convert it again") from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed if they start as gzip does."""
    if _is_gzip(path):
        with gzip.open(path, "rb") as stream:
            yield cast(BinaryIO, stream)
    else:
        with path.open("rb") as plain:
            yield plain


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP


def _header_file(path: Path) -> Path:
    """Where the header lies: the file itself, or the .hdr of a pair that was named by its .img."""
    return _partner(path, ".img", ".hdr")


def _data_file(path: Path) -> Path:
    return _partner(path, ".hdr", ".img")


def _partner(path: Path, mine: str, other: str) -> Path:
    name = path.name.removesuffix(".gz")
    if not name.endswith(mine):
        return path
    plain = path.with_name(name.removesuffix(mine) + other)
    packed = plain.with_name(plain.name + ".gz")
    return packed if packed.is_file() and not plain.is_file() else plain


# --- writing ----------------------------------------------------------------------------------------------------------


def _space_code(volume: Volume, like: Volume | None) -> int:
    headers = (volume.header, like.header if like else None)
    return next((header.code for header in headers if isinstance(header, Space)), 1)


def _image(volume: Volume, code: int) -> Any:
    array, affine, marks = _exact(volume.array), volume.grid.affine, Marks.of(volume)
    kind = nib.Nifti1Image if max(array.shape) < 1 << 15 else nib.Nifti2Image
    image = kind(array, affine, dtype=array.dtype)
    image.set_sform(affine, code)
    image.set_qform(affine, 0 if volume.grid.is_sheared else code)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = marks.descrip().encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, marks.comment().encode()))
    return image


def _packed(content: bytes) -> bytes:
    """Compressed without time and file name, so that the same image gives the same file."""
    return gzip.compress(content, compresslevel=4, mtime=0)


def _exact(array: Array) -> Array:
    """The values in the first type of the list that holds every one of them."""
    byte = (np.uint8,) if array.dtype in (np.bool_, np.uint8) else ()
    with np.errstate(invalid="ignore", over="ignore"):
        for dtype in (*byte, np.int16, np.int32, np.float32):
            stored = array.astype(dtype)
            if np.array_equal(stored, array):
                return stored
    return array.astype(np.float64)
