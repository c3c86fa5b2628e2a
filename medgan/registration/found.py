"""What a registration has found, and how images follow it: the algebra of positions in RAS+ mm, no optimisation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

from medgan.resample import resample
from medgan.volume import Grid, Volume

__all__ = ["Kind", "Registration", "three"]

Array: TypeAlias = npt.NDArray[Any]
Matrix: TypeAlias = npt.NDArray[np.float64]
Kind: TypeAlias = Literal["rigid", "affine"]
_ROUNDING = 1e-6  # of an index


@dataclass(frozen=True, eq=False)
class Registration:
    """Where in the moving image each place of the fixed one is: y = matrix · x.

    Args:
        matrix: (4, 4) from world positions of the fixed image to those of the moving one, RAS+ mm.
        kind: what the matrix may do.
        centre_mm: middle of the fixed body, where the translation is told.
        nmi_before: normalised mutual information of both in the fixed body as they lay, 1 (unrelated) to 2; NaN where
            they hardly overlapped.
        nmi_after: the same of the result.
        overlap: share of the smaller body that lies in the other one.
        seed: which voxels were looked at.
        version: of SimpleITK.
    """

    matrix: Matrix
    kind: Kind = "rigid"
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    nmi_before: float = float("nan")
    nmi_after: float = float("nan")
    overlap: float = float("nan")
    seed: int = 0
    version: str = ""

    @property
    def translation_mm(self) -> tuple[float, float, float]:
        """How far the middle of the body is moved to the right, to the front and upwards, mm."""
        return three(self.matrix[:3, :3] @ self.centre_mm + self.matrix[:3, 3] - self.centre_mm)

    @property
    def rotation_deg(self) -> tuple[float, float, float]:
        """Rotation vector about these three axes, degrees, by the right-hand rule; an affine's without its stretch."""
        return three(np.degrees(Rotation.from_matrix(polar(self.matrix[:3, :3])[0]).as_rotvec()))

    def carried(self, volume: Volume) -> Volume:
        """A moving image whose voxels are where they belong in the fixed one's world; none is interpolated."""
        return replace(volume, grid=Grid(volume.grid.shape, np.linalg.inv(self.matrix) @ volume.grid.affine))

    def moved(self, volume: Volume, onto: Grid, *, order: int = 1, outside: float) -> Volume:
        """A moving image in the place of the fixed one, interpolated once.

        Args:
            volume: the moving image, or one that lies as it does.
            onto: the grid wanted, in the fixed image's world.
            order: 0 nearest (masks, labels), 1 linear, 3 cubic, whose overshoot beyond the image's range is cut off.
            outside: the value where the moving image has no voxel, in its unit.

        Returns:
            float32 values, with order 0 in the type of the volume.

        Raises:
            GeometryError: if the grids do not overlap at all.

        Example:
            >>> right = np.eye(4)
            >>> right[0, 3] = 1.0  # what is at 0 mm in the fixed image is at 1 mm in the moving one
            >>> line = Volume(np.array([[[1.0]], [[2.0]], [[3.0]]]), Grid.regular((3, 1, 1)))
            >>> Registration(right).moved(line, line.grid, outside=-1).array.ravel().tolist()
            [2.0, 3.0, -1.0]
        """
        source = volume.without_padding()
        placed = self.carried(source)
        found = resample(placed, onto, order=order)
        array = np.array(found.array, dtype=np.float32 if order else source.array.dtype)
        if order > 1:
            np.clip(array, source.array.min(), source.array.max(), out=array)
        _fill_outside(array, outside, placed.grid, onto)
        return replace(found, array=array)

    def inverse(self) -> Registration:
        """From the moving image to the fixed one."""
        centre = three(np.asarray(self.centre_mm) + self.translation_mm)
        return replace(self, matrix=np.asarray(np.linalg.inv(self.matrix), dtype=np.float64), centre_mm=centre)

    def to_json(self) -> dict[str, Any]:
        """What was found, in plain numbers."""
        return {
            "kind": self.kind,
            "matrix_ras_mm": self.matrix.tolist(),
            "centre_mm": list(self.centre_mm),
            "translation_mm": list(self.translation_mm),
            "rotation_deg": list(self.rotation_deg),
            "nmi_before": None if np.isnan(self.nmi_before) else self.nmi_before,
            "nmi_after": None if np.isnan(self.nmi_after) else self.nmi_after,
            "overlap": None if np.isnan(self.overlap) else self.overlap,
            "seed": self.seed,
            "library": "SimpleITK",
            "version": self.version,
        }


def _fill_outside(array: Array, value: float, source: Grid, onto: Grid) -> None:
    """Put a value where voxels of `onto` lie outside all voxels of `source`: along its last axis, before and behind."""
    first, last = _reached(source, onto)
    k = np.arange(onto.shape[2])
    for plane, begin, end in zip(array, first, last, strict=True):
        plane[(k < begin[:, None]) | (k > end[:, None])] = value


def _reached(source: Grid, onto: Grid) -> tuple[Matrix, Matrix]:
    """(X, Y) each: the first and the last index along the third axis of `onto` whose voxels lie in `source`."""
    way = np.linalg.inv(source.affine) @ onto.affine
    i, j = np.ogrid[: onto.shape[0], : onto.shape[1]]
    first, last = np.full(onto.shape[:2], -np.inf), np.full(onto.shape[:2], np.inf)
    for (in_i, in_j, in_k, start), size in zip(way[:3], source.shape, strict=True):
        here = in_i * i + in_j * j + start
        low, high = -0.5 - _ROUNDING - here, size - 0.5 + _ROUNDING - here
        if abs(in_k) * onto.shape[2] < _ROUNDING:
            first = np.where((low <= 0) & (high >= 0), first, np.inf)
        else:
            ends = np.sort([low / in_k, high / in_k], axis=0)
            first, last = np.maximum(first, ends[0]), np.minimum(last, ends[1])
    return first, last


def three(values: Array) -> tuple[float, float, float]:
    """As plain numbers."""
    x, y, z = (float(value) for value in values)
    return x, y, z
