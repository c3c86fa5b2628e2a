"""Writing NIfTI: one volume, or a set of volumes on one grid as a 4-D image."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from medgan.atomic import replacing
from medgan.errors import GeometryError, InputError, NiftiError
from medgan.formats import gradients as gradient_files
from medgan.formats.gradients import Gradients
from medgan.formats.nifti.header import COMMENT
from medgan.formats.nifti.reading import Space
from medgan.formats.packed import packing
from medgan.formats.sidecar import Marks, refuse_foreign, sidecar_path
from medgan.formats.voxels import count_not_finite, in_file_order, smallest_exact
from medgan.volume import Volume

__all__ = ["write", "write_set"]

_EVEN = 1e-3  # of a time step: the most that times of even steps may stray


def write(
    volume: Volume,
    path: Path,
    *,
    like: Volume | None = None,
    description: str = "",
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write `name.nii` or `name.nii.gz`, and `name.json` beside it.

    Values are stored as int16 where that is exact, else in the smallest of int32, float32 and float64 that is exact
    (masks of one byte stay so). sform and qform are both set, except on a sheared grid, which a qform cannot say.

    Args:
        volume: to be written.
        path: ends in `.nii` or `.nii.gz`.
        like: its space code is taken if the volume itself has none; otherwise the code is 1 (scanner).
        description: one line for the JSON file.
        about: further entries for the JSON file, such as those of `medgan.formats.dicom.bids`; they name no patient.

    Raises:
        NiftiError: if a value is not finite.
        OutputError: if the place cannot be written, or another program's JSON file or gradients are there.
    """
    return write_set([volume], path, like=like, description=description, about=about)


def write_set(
    volumes: Sequence[Volume],
    path: Path,
    *,
    like: Volume | None = None,
    description: str = "",
    times_s: Sequence[float] | None = None,
    gradients: Gradients | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write volumes as one 4-D image, with `name.json` and, where there are gradients, `.bval` and `.bvec` beside it.

    The volumes are written one after the other, and nothing is held but a part of one. All are stored in the type
    that holds every value of each. A set of one volume is a 3-D image.

    Args:
        volumes: of one grid, unit, modality and origin.
        path: ends in `.nii` or `.nii.gz`.
        like: as for `write`.
        description: one line for the JSON file.
        times_s: when each volume began, in seconds. Even steps become the time step of the header; others stand in
            the JSON file as `VolumeTiming`.
        gradients: one entry a volume.
        about: as for `write`.

    Raises:
        GeometryError: if the volumes are on several grids.
        InputError: if there is none, they differ in unit, modality or mark, or times and gradients are not one each.
        NiftiError: if a value is not finite.
        OutputError: as `write`.
    """
    path = Path(path)
    _refuse_unlike(volumes, times_s, gradients)
    _refuse_not_finite(volumes)
    refuse_foreign(sidecar_path(path))
    if gradients is None:
        gradient_files.refuse_stale(path)
    step = _even_step(times_s)
    uneven = times_s is not None and len(times_s) > 1 and step is None
    timing = {"VolumeTiming": [float(time) for time in times_s or ()]} if uneven else {}
    header = _header(volumes, _space_code(volumes[0], like))
    if step is not None and times_s:
        _set_times(header, step, times_s[0])
    with replacing(path) as temporary:
        _write_image(header, volumes, temporary)
        with replacing(sidecar_path(path)) as sidecar:
            fields = Marks.of(volumes[0]).to_json(description, {**(about or {}), **timing})
            sidecar.write_text(json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            if gradients is not None:
                gradient_files.write(gradients, volumes[0].grid, path)
    return path


def _refuse_unlike(volumes: Sequence[Volume], times_s: Sequence[float] | None, gradients: Gradients | None) -> None:
    if not volumes:
        raise InputError("a set of no volumes cannot be written; give at least one")
    first = volumes[0]
    for number, volume in enumerate(volumes):
        if not volume.grid.same_as(first.grid):
            raise GeometryError(
                f"volume {number} of a set is on another grid than volume 0: {volume.grid.describe()} and "
                f"{first.grid.describe()}; a 4-D image has one grid, write them one by one or resample them"
            )
        if Marks.of(volume) != Marks.of(first):
            raise InputError(
                f"volume {number} of a set differs from volume 0 in what it is ({_kind(volume)} and {_kind(first)}); "
                "write them one by one"
            )
    for name, entries in (("times", times_s), ("gradients", gradients)):
        if entries is not None and len(entries) != len(volumes):
            raise InputError(f"{len(volumes)} volumes have {len(entries)} {name}; give one a volume")


def _kind(volume: Volume) -> str:
    made = f", made by {volume.synthetic.model}" if volume.synthetic else ""
    return f"{volume.modality or 'no modality'} in {volume.unit}{made}"


def _refuse_not_finite(volumes: Sequence[Volume]) -> None:
    bad, size = sum(count_not_finite(volume.array) for volume in volumes), sum(volume.array.size for volume in volumes)
    if bad:
        what = "the volume to be written" if len(volumes) == 1 else "the volumes to be written"
        raise NiftiError(f"{what}: {bad} of {size} voxels are NaN or infinite; replace them by a background value")


def _even_step(times_s: Sequence[float] | None) -> float | None:
    """The time from volume to volume, if it is always the same and some."""
    if times_s is None or len(times_s) < 2:
        return None
    steps = np.diff(np.asarray(times_s, dtype=np.float64))
    step = float(steps.mean())
    return step if step > 0 and float(np.abs(steps - step).max()) <= _EVEN * step else None


def _set_times(header: Any, step_s: float, start_s: float) -> None:
    header.set_xyzt_units("mm", "sec")
    header["pixdim"][4], header["toffset"] = step_s, start_s


def _space_code(volume: Volume, like: Volume | None) -> int:
    headers = (volume.header, like.header if like else None)
    return next((header.code for header in headers if isinstance(header, Space)), 1)


def _header(volumes: Sequence[Volume], code: int) -> Any:
    grid, marks = volumes[0].grid, Marks.of(volumes[0])
    shape = grid.shape if len(volumes) == 1 else (*grid.shape, len(volumes))
    dtype = smallest_exact(volume.array for volume in volumes)
    kind = nib.Nifti1Image if max(shape) < 1 << 15 else nib.Nifti2Image
    # nibabel sets up a header for an image; the image here takes one voxel's memory.
    image = kind(np.broadcast_to(np.zeros((), dtype), shape), grid.affine, dtype=dtype)
    image.set_sform(grid.affine, code)
    image.set_qform(grid.affine, 0 if grid.is_sheared else code)
    header = image.header
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["pixdim"][4:] = [0.0] * 4 if len(volumes) > 1 else header["pixdim"][4:]
    header["descrip"] = marks.descrip().encode()
    header.extensions.append(nib.nifti1.Nifti1Extension(COMMENT, marks.comment().encode()))
    return header


def _write_image(header: Any, volumes: Sequence[Volume], path: Path) -> None:
    with _written(path) as stream:
        stream.write(_as_bytes(header))
        for volume in volumes:
            for part in in_file_order(volume.array, header.get_data_dtype()):
                stream.write(part)


def _as_bytes(header: Any) -> bytes:
    """A header with its extensions, up to the first voxel; nibabel moves about in what it writes to."""
    held = io.BytesIO()
    header.write_to(held)
    return held.getvalue().ljust(held.tell(), b"\0")


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as plain:
        if not path.name.endswith(".gz"):
            yield plain
            return
        with packing(plain) as packed:
            yield packed
