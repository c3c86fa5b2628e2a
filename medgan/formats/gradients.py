"""Diffusion gradients of a set of volumes, and the two text files in which FSL and BIDS keep them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.atomic import replacing
from medgan.errors import NiftiError, OutputError
from medgan.volume import Grid

__all__ = ["Gradients", "gradient_paths", "read", "refuse_stale", "write"]

Array = npt.NDArray[Any]
_ENDINGS = (".nii", ".hdr", ".img", ".mha", ".mhd", ".nrrd", ".nhdr")
_DECIMALS = 6
_LENGTH_TOLERANCE = 0.05
_MOST_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class Gradients:
    """How the volumes of a diffusion set were weighted.

    Args:
        b_values: (N,) s/mm², one a volume.
        directions_ras: (N, 3) unit vectors in the patient's RAS+ axes; zero where a volume has no direction.

    Raises:
        NiftiError: if the shapes do not fit, a number is not finite or below 0, or a vector is of another length.
    """

    b_values: Array
    directions_ras: Array

    def __post_init__(self) -> None:
        b_values = np.array(self.b_values, dtype=np.float64)
        directions = np.array(self.directions_ras, dtype=np.float64)
        if b_values.ndim != 1 or directions.shape != (len(b_values), 3):
            raise NiftiError(
                f"gradients are N b values and N vectors of three numbers; seen {b_values.shape} and {directions.shape}"
            )
        if not (np.isfinite(b_values).all() and np.isfinite(directions).all() and (b_values >= 0).all()):
            raise NiftiError("b values and gradient vectors are finite, and b values not below 0; correct them")
        object.__setattr__(self, "b_values", b_values)
        object.__setattr__(self, "directions_ras", _units(directions))

    def __len__(self) -> int:
        return len(self.b_values)


def _units(vectors: Array) -> Array:
    """The vectors at length 1, those of length 0 as they are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    odd = lengths[(lengths > 1e-3) & (np.abs(lengths - 1) > _LENGTH_TOLERANCE)]
    if odd.size:
        raise NiftiError(
            f"a gradient vector has the length {odd[0]:.4g}; vectors have length 1, or 0 where there is no direction "
            "(weaker gradients are told by smaller b values)"
        )
    return np.where(lengths > 1e-3, vectors / np.where(lengths > 1e-3, lengths, 1), 0.0)


def gradient_paths(image: Path) -> tuple[Path, Path]:
    """Where the b values and the vectors of an image lie.

    Example:
        >>> [path.as_posix() for path in gradient_paths(Path("sub-01/dwi.nii.gz"))]
        ['sub-01/dwi.bval', 'sub-01/dwi.bvec']
    """
    name = image.name.removesuffix(".gz")
    stem = name.rpartition(".")[0] if name.lower().endswith(_ENDINGS) else name
    return image.with_name(f"{stem}.bval"), image.with_name(f"{stem}.bvec")


def write(gradients: Gradients, grid: Grid, image: Path) -> tuple[Path, Path]:
    """Write `.bval` and `.bvec` beside an image, in FSL's convention.

    A vector is given along the voxel axes of the image, and its first number changes sign where the affine has a
    positive determinant, that is where the image is not stored as radiologists see it.

    Args:
        gradients: one entry a volume.
        grid: of the image, as it is stored.
        image: the path of the image.

    Source: FSL's documentation of FDT, "What conventions do the bvecs use?".
    """
    paths = gradient_paths(Path(image))
    vectors = gradients.directions_ras @ _fsl_axes(grid)
    rows = [" ".join(_number(value) for value in row) for row in vectors.T]
    with replacing(paths[0]) as b_values, replacing(paths[1]) as directions:
        b_values.write_text(" ".join(f"{value:.6g}" for value in gradients.b_values) + "\n")
        directions.write_text("\n".join(rows) + "\n")
    return paths


def read(image: Path, grid: Grid) -> Gradients | None:
    """The gradients beside an image; None where there are none.

    Args:
        image: the path of the image.
        grid: of the image, as it is stored.

    Raises:
        NiftiError: if only one of the two files is there, or they do not hold a table.
    """
    paths = gradient_paths(Path(image))
    missing = [path for path in paths if not path.is_file()]
    if len(missing) == len(paths):
        return None
    if missing:
        raise NiftiError(f"{missing[0]}: is missing, though {image.name} has the other gradient file; add or remove it")
    b_values, vectors = (_table(path) for path in paths)
    if vectors.ndim != 2 or 3 not in vectors.shape:
        raise NiftiError(
            f"{paths[1]}: has a table of {vectors.shape}; gradient vectors are three rows, or three columns"
        )
    vectors = vectors if len(vectors) == 3 else vectors.T
    try:
        return Gradients(b_values.ravel(), vectors.T @ _fsl_axes(grid).T)
    except NiftiError as error:
        raise NiftiError(f"{paths[1]}: {error}") from None


def refuse_stale(image: Path) -> None:
    """Protect an image without gradients from being read with those of another.

    Raises:
        OutputError: if gradient files lie where those of `image` would.
    """
    for path in gradient_paths(Path(image)):
        if path.exists():
            raise OutputError(
                f"{path}: holds gradients, and {image.name} is to have none; remove it or choose another name"
            )


def _table(path: Path) -> Array:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError
        rows = [[float(part) for part in line.split()] for line in path.read_text("ascii").splitlines() if line.strip()]
        return np.array(rows, dtype=np.float64)
    except (OSError, ValueError):  # also for rows of different lengths
        raise NiftiError(f"{path}: is no table of numbers; correct or remove it") from None


def _fsl_axes(grid: Grid) -> Array:
    """(3, 3) the axes of FSL's vectors in RAS+, in the columns: right angles even where the grid is sheared."""
    first, second, third = grid.direction.T
    second = second - first * (first @ second)
    normal = np.cross(first, second)
    side = np.sign(normal @ third)
    axes = np.stack([-side * first, second / np.linalg.norm(second), side * normal / np.linalg.norm(normal)], axis=1)
    return np.asarray(axes)


def _number(value: float) -> str:
    """Six decimals, without a sign at zero."""
    return f"{round(value, _DECIMALS) + 0.0:.{_DECIMALS}f}"
