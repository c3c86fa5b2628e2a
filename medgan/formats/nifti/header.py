"""What a NIfTI header says: where the voxels are, how many volumes there are, and what made them."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from medgan.errors import GeometryError, NiftiError
from medgan.formats.nifti.files import DAMAGE, damage_named, header_file
from medgan.formats.packed import opened
from medgan.formats.sidecar import Marks, of_comment, of_descrip
from medgan.volume import Grid

__all__ = ["COMMENT", "affine_of", "grid_of", "is_nifti", "marks_of", "num_volumes", "oddities_of", "read_header"]

Array = npt.NDArray[Any]
COMMENT = 6  # the code of an extension that is plain text
_MM_PER_UNIT = {"meter": 1e3, "micron": 1e-3}
_QUIET = logging.Logger("nibabel's small repairs, unheard", logging.CRITICAL)
_HEADERS = {
    b"n+1\0": nib.Nifti1Header,
    b"ni1\0": nib.nifti1.Nifti1PairHeader,
    b"n+2\0": nib.Nifti2Header,
    b"ni2\0": nib.nifti2.Nifti2PairHeader,
}


def is_nifti(path: Path) -> bool:
    """True if the file starts as a NIfTI header does, compressed or not; its name does not count."""
    path = header_file(Path(path))
    try:
        return path.is_file() and _header_class(path) is not None
    except DAMAGE:
        return False


def read_header(path: Path) -> Any:
    """The header of a file, as nibabel's object; whatever it claims is checked.

    Raises:
        NiftiError: if it is damaged, or of an image without voxels, in colour or of complex numbers.
    """
    file = header_file(path)
    with damage_named(file):
        header_class = _header_class(file)
        if header_class is None:
            raise NiftiError(f"{path}: does not start as NIfTI does{_hint(file)}; give a NIfTI-1 or NIfTI-2 file")
        with opened(file) as stream, warnings.catch_warnings(action="ignore"):
            header = header_class.from_fileobj(stream, check=False)
        stated = header["pixdim"][1:4].copy()
        header.check_fix(logger=_QUIET)
    _refuse_unusable(header, path)
    _refuse_sizes_of_0(header, stated, path)
    return header


def _header_class(path: Path) -> Any:
    """The class of nibabel for the header that a file starts with, or None."""
    with opened(path) as stream:
        start = stream.read(348)
    size = {start[:4], start[3::-1]} if len(start) >= 4 else set()
    if (348).to_bytes(4, "little") in size:
        return _HEADERS.get(start[344:348])
    return _HEADERS.get(start[4:8]) if (540).to_bytes(4, "little") in size else None


def _hint(path: Path) -> str:
    with opened(path) as stream:
        start = stream.read(4)
    if not start:
        return " (it is empty)"
    analyze = (348).to_bytes(4, "little") in (start, start[::-1])
    return " (it looks like ANALYZE 7.5, which does not know left from right)" if analyze else ""


def _refuse_unusable(header: Any, path: Path) -> None:
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if not shape or min(shape) < 1:
        raise NiftiError(f"{path}: has no voxels (shape {shape}); give an image of one volume")
    if dtype.kind not in "iuf":
        name = "colour" if dtype.kind == "V" else "complex"
        raise NiftiError(f"{path}: has {name} values; medgan reads images of one real number a voxel")


def _refuse_sizes_of_0(header: Any, pixdim: Array, path: Path) -> None:
    """Before nibabel puts 1 for 0. An sform does not need them, nor does an axis of one voxel."""
    sizes = header.get_data_shape()[:3]
    if int(header["sform_code"]) <= 0 and any(size > 1 and mm == 0 for size, mm in zip(sizes, pixdim, strict=False)):
        raise NiftiError(f"{path}: has voxels of {_times(pixdim)} mm, and no sform; correct its pixdim")


def num_volumes(header: Any) -> int:
    """How many volumes a file holds."""
    return math.prod(header.get_data_shape()[3:])


def grid_of(header: Any, path: Path) -> Grid:
    """Where the voxels of each volume are.

    Raises:
        NiftiError: if the header does not tell, or tells nonsense.
    """
    affine, _ = affine_of(header, path)
    shape = (*header.get_data_shape(), 1, 1)[:3]
    try:
        return Grid(shape, affine)
    except GeometryError as error:
        raise NiftiError(f"{path}: {error}; correct its sform or qform") from None


def affine_of(header: Any, path: Path) -> tuple[Array, int]:
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


def marks_of(header: Any) -> Marks:
    """What the image itself says: a comment of medgan's, else the description field."""
    marks = Marks()
    for extension in header.extensions:
        if extension.get_code() == COMMENT:
            content = extension.get_content()
            marks = marks.over(of_comment(content if isinstance(content, str) else content.decode("utf-8", "replace")))
    return marks.over(of_descrip(header["descrip"].item().decode("ascii", "replace")))


def oddities_of(header: Any, grid: Grid) -> tuple[str, ...]:
    """What is unusual about a header that can be read: each a line for people."""
    return tuple(line for line in (_disagreement(header, grid), _wrong_pixdim(header, grid)) if line)


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
