"""Reading NIfTI: one volume, or a set of volumes on one grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from medgan.errors import NiftiError
from medgan.formats import gradients
from medgan.formats.gradients import Gradients
from medgan.formats.nifti.files import damage_named, data_file
from medgan.formats.nifti.header import affine_of, grid_of, marks_of, num_volumes, oddities_of, read_header
from medgan.formats.packed import MAX_RATIO, is_gzip, opened
from medgan.formats.sidecar import of_sidecar
from medgan.formats.voxels import count_not_finite, filled, scaled
from medgan.volume import Grid, Synthesis, Volume

__all__ = ["Space", "oddities", "read", "read_gradients", "read_grid", "read_mark", "read_set", "read_set_grid"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Space:
    """The `header` of a volume read from NIfTI: which space its coordinates are in (1 scanner, 2 aligned, 4 MNI, …)."""

    code: int


def read(path: Path) -> Volume:
    """Read a NIfTI image: (X, Y, Z) in the unit that it records, on its RAS+ mm grid.

    Raises:
        NiftiError: if it is damaged, empty, holds several volumes, complex or colour values, or values that are not
            finite, or has no usable affine.
    """
    path = Path(path)
    header = read_header(path)
    _refuse_set(header, path)
    return _volumes(header, path)[0]


def read_set(path: Path) -> list[Volume]:
    """Read a NIfTI image of one volume or several: each (X, Y, Z) in the unit that it records, on one RAS+ mm grid.

    Raises:
        NiftiError: as `read`, but for several volumes in a fourth axis; further axes are refused.
    """
    return _volumes(_header_of_set(Path(path)), Path(path))


def read_gradients(path: Path) -> Gradients | None:
    """The diffusion gradients beside an image; None where there are none.

    Raises:
        NiftiError: if they are not one a volume, or their files are no tables.
    """
    path = Path(path)
    header = read_header(path)
    found = gradients.read(path, grid_of(header, path))
    if found is not None and len(found) != num_volumes(header):
        raise NiftiError(f"{path}: holds {num_volumes(header)} volumes, and {len(found)} gradients lie beside it")
    return found


def read_grid(path: Path) -> Grid:
    """Where the voxels are, from the header alone.

    Raises:
        NiftiError: as `read`, as far as the header tells.
    """
    header = read_header(Path(path))
    _refuse_set(header, Path(path))
    return grid_of(header, Path(path))


def read_set_grid(path: Path) -> Grid:
    """Where the voxels of each volume of a set are, from the header alone.

    Raises:
        NiftiError: as `read_set`, as far as the header tells.
    """
    return grid_of(_header_of_set(Path(path)), Path(path))


def read_mark(path: Path) -> Synthesis | None:
    """What made the image, told by the image itself and not by the JSON file beside it.

    Raises:
        NiftiError: as `read`, as far as the header tells.
    """
    return marks_of(read_header(Path(path))).synthetic


def oddities(path: Path) -> tuple[str, ...]:
    """What is unusual about a header that can be read: each a line for people."""
    header = read_header(Path(path))
    return oddities_of(header, grid_of(header, Path(path)))


def _header_of_set(path: Path) -> Any:
    header = read_header(path)
    shape = header.get_data_shape()
    if math.prod(shape[4:]) > 1:
        raise NiftiError(f"{path}: has a fifth axis (shape {shape}); give one number for each voxel and volume")
    return header


def _refuse_set(header: Any, path: Path) -> None:
    count = num_volumes(header)
    if count > 1:
        raise NiftiError(
            f"{path}: holds {count} volumes (shape {header.get_data_shape()}); give one 3-D volume a file "
            "(medgan.formats.nifti.read_set gives each as a volume)"
        )


def _volumes(header: Any, path: Path) -> list[Volume]:
    grid = grid_of(header, path)
    array = _array(header, path).reshape((*grid.shape, num_volumes(header)), order="F")
    _refuse_not_finite(array, path)
    marks = of_sidecar(path).over(marks_of(header))
    space = Space(affine_of(header, path)[1])
    return [
        Volume(array[..., index], grid, marks.unit or "a.u.", marks.modality, marks.synthetic, space, marks.padding)
        for index in range(array.shape[3])
    ]


def _array(header: Any, path: Path) -> Array:
    file = data_file(path)
    with damage_named(file), opened(file) as stream:
        _refuse_short(header, file)
        stream.seek(int(header.get_data_offset()))
        raw = filled(stream, header.get_data_shape(), header.get_data_dtype())
        # Only at its end does a gzip file tell whether its bytes are what was written.
        while stream.read(1 << 20):
            pass
        slope, inter = header.get_slope_inter()
    return scaled(raw, 1.0 if slope is None else slope, inter or 0.0)


def _refuse_short(header: Any, file: Path) -> None:
    """Before memory is taken: a damaged header may claim any size."""
    claimed = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize + int(header.get_data_offset())
    most = file.stat().st_size * (MAX_RATIO if is_gzip(file) else 1)
    if claimed > most:
        raise NiftiError(f"{file}: is cut short (its header claims {claimed} bytes); copy or convert it again")


def _refuse_not_finite(array: Array, path: Path) -> None:
    bad = count_not_finite(array)
    if bad:
        raise NiftiError(
            f"{path}: {bad} of {array.size} voxels are NaN or infinite; replace them by a background value"
        )
