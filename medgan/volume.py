"""A volume: voxels, where they are in the patient, and what their numbers mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError

__all__ = ["Grid", "Synthesis", "Volume", "slabs"]

Array = npt.NDArray[Any]
_AIR_HU = -1000
_SLAB = 2**20  # voxels: small beside a volume, large beside what a loop costs
_AXES = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie: a shape and an affine from indices to RAS+ millimetres.

    Args:
        shape: (X, Y, Z), number of voxels along the three array axes.
        affine: (4, 4) float64; maps (i, j, k, 1) of a voxel's centre to (right, anterior, superior, 1) in mm.

    Raises:
        GeometryError: if the shape is not three positive numbers or the affine is singular or not finite.

    Example:
        >>> Grid.regular((4, 5, 6), spacing_mm=(1, 1, 3)).spacing_mm
        (1.0, 1.0, 3.0)
    """

    shape: tuple[int, int, int]
    affine: Array

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"a grid has three axes of at least one voxel; seen shape {shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"an affine is a finite 4×4 matrix; seen {affine.tolist()}")
        _refuse_singular(affine)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def regular(
        cls,
        shape: Sequence[int],
        *,
        spacing_mm: Sequence[float] = (1, 1, 1),
        origin_mm: Sequence[float] = (0, 0, 0),
        direction: Array | None = None,
    ) -> Grid:
        """A grid of right angles.

        Args:
            shape: (X, Y, Z).
            spacing_mm: distance between voxel centres along each array axis, mm.
            origin_mm: RAS+ position of the centre of voxel (0, 0, 0), mm.
            direction: (3, 3), unit vectors of the array axes in its columns; the identity if not given.
        """
        affine = np.eye(4)
        affine[:3, :3] = (np.eye(3) if direction is None else np.asarray(direction)) * np.asarray(spacing_mm)
        affine[:3, 3] = origin_mm
        return cls((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each array axis, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def direction(self) -> Array:
        """(3, 3) unit vectors of the array axes, in its columns."""
        return np.asarray(self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def orientation(self) -> str:
        """Three letters: to which side of the patient each array axis runs, such as `RAS` or `LPS`.

        On an oblique grid the nearest anatomical axis is named, each exactly once.
        """
        axis_of, sign_of = _nearest_axes(self.direction)
        return "".join(_AXES[axis][int(sign > 0)] for axis, sign in zip(axis_of, sign_of, strict=True))

    @property
    def is_sheared(self) -> bool:
        """True if the array axes are not at right angles (to about 0.06 degrees), as under a gantry tilt."""
        return bool(np.abs(self.direction.T @ self.direction - np.eye(3)).max() > 1e-3)

    def to_world(self, index: Any) -> Array:
        """RAS+ mm positions (…, 3) of voxel indices (…, 3)."""
        return np.asarray(np.asarray(index, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, position_mm: Any) -> Array:
        """Voxel indices (…, 3), fractional, of RAS+ mm positions (…, 3)."""
        offset = np.asarray(position_mm, dtype=np.float64) - self.affine[:3, 3]
        return np.asarray(offset @ np.linalg.inv(self.affine[:3, :3]).T)

    def same_as(self, other: Grid, *, tolerance_mm: float = 1e-2) -> bool:
        """True if both grids put all voxels at the same place, in the same order."""
        return self.shape == other.shape and self.distance_mm(other) <= tolerance_mm

    def distance_mm(self, other: Grid) -> float:
        """The farthest that a corner of this grid lies from the same index of another grid, mm."""
        corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(self.shape) - 1)
        return float(np.linalg.norm(self.to_world(corners) - other.to_world(corners), axis=1).max())

    def describe(self) -> str:
        """One line for people: shape, spacing and orientation."""
        shape, spacing = "×".join(map(str, self.shape)), "×".join(f"{s:.4g}" for s in self.spacing_mm)
        return f"{shape} at {spacing} mm {self.orientation}"


@dataclass(frozen=True)
class Synthesis:
    """What made an image that no scanner has acquired. A volume that carries it is marked wherever it is written.

    Args:
        model: name of the method, such as `pix2pix`.
        weights_sha256: hash of the weights file, "" where there are no weights (a phantom).
        version: version of medgan.
        description: one line for people.
        quantity: what the values are where they are no image but a map that belongs to one, such as `standard
            deviation`; "" for the image itself.
        seed: what the noise of a sampled image was drawn with; None for an image that is not drawn.
        number: which of the images of that seed it is.
        conditions: what was asked for, by its name: a class, or a number written as text.
        truncation: how far the noise was drawn towards its mean; None where it was not.
    """

    model: str
    weights_sha256: str = ""
    version: str = ""
    description: str = ""
    quantity: str = ""
    seed: int | None = None
    number: int | None = None
    conditions: Mapping[str, str] = field(default_factory=dict, hash=False)
    truncation: float | None = None


@dataclass(frozen=True, eq=False)
class Volume:
    """One image of one patient.

    Args:
        array: (X, Y, Z) voxel values in `unit`.
        grid: where the voxels are; its shape is the array's.
        unit: what a value of 1 means: `HU`, `a.u.`, `Bq/ml`, `label`, …
        modality: DICOM's code: `MR`, `CT`, `PT`, …; "" where it is not known.
        synthetic: what made the image if no scanner did, else None.
        header: what a format needs to write the image back to where it came from; opaque to all but `medgan.formats`.
        padding: lowest and highest of the values that stand for no measurement, such as those that a CT scanner writes
            outside its circle; None where there are none.

    Raises:
        GeometryError: if array and grid differ in shape.
    """

    array: Array
    grid: Grid
    unit: str = "a.u."
    modality: str = ""
    synthetic: Synthesis | None = None
    header: Any = None
    padding: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise GeometryError(f"array and grid differ in shape: {self.array.shape} and {self.grid.shape}")

    def with_array(self, array: Array, *, unit: str | None = None, modality: str | None = None) -> Self:
        """The same place, header and provenance with other values of the same shape, none of them padding."""
        modality = modality or self.modality
        return replace(self, array=array, unit=unit or self.unit, modality=modality, padding=None)

    def without_padding(self) -> Self:
        """The same image with air where nothing was measured: -1000 HU, in other units the lowest value measured."""
        if self.padding is None:
            return self
        low, high = self.padding
        is_padding = (self.array >= low) & (self.array <= high)
        if not is_padding.any() or is_padding.all():
            return replace(self, padding=None)
        air = _AIR_HU if self.unit == "HU" else self.array[~is_padding].min()
        return self.with_array(np.where(is_padding, self.array.dtype.type(air), self.array))

    def marked(self, synthesis: Synthesis) -> Self:
        """The same volume, saying what made it."""
        return replace(self, synthetic=synthesis)

    def reorient(self, orientation: str = "RAS") -> Self:
        """Flip and permute array axes so that they run to the named sides; no voxel is interpolated or moved.

        Args:
            orientation: three letters, one of each pair R/L, A/P, S/I.

        Raises:
            GeometryError: if the letters do not name three axes.

        Example:
            >>> volume = Volume(np.zeros((2, 3, 4)), Grid.regular((2, 3, 4)))
            >>> volume.reorient("SLA").array.shape
            (4, 2, 3)
        """
        order, flips = _moves(self.grid.orientation, orientation)
        array = np.flip(self.array.transpose(order), axis=tuple(axis for axis in range(3) if flips[axis]))
        affine = self.grid.affine @ _index_map(self.grid.shape, order, flips)
        return replace(self, array=array, grid=Grid(array.shape, affine))

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> Self:
        """Voxels `start <= index < stop` along each axis, at the place where they were."""
        window = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        affine = self.grid.affine.copy()
        affine[:3, 3] = self.grid.to_world([w.start for w in window])
        array = self.array[window]
        return replace(self, array=array, grid=Grid(array.shape, affine))


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Parts of the first axis, one after another: work on one at a time needs no second copy of the whole.

    Example:
        >>> list(slabs((512, 512, 40)))[:2]
        [slice(0, 51, None), slice(51, 102, None)]
    """
    step = max(1, _SLAB // max(1, math.prod(shape[1:])))
    return (slice(first, min(first + step, shape[0])) for first in range(0, shape[0], step))


def _refuse_singular(affine: Array) -> None:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < 1e-6 or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-4:
        raise GeometryError(f"the affine is singular (voxel axes of {lengths.tolist()} mm that do not span space)")


def _nearest_axes(direction: Array) -> tuple[list[int], list[float]]:
    """For each array axis the anatomical axis it is assigned to, best matches first, and on which side it runs."""
    left, axis_of = np.abs(direction).copy(), [0, 0, 0]
    for _ in range(3):
        axis, column = np.unravel_index(int(left.argmax()), (3, 3))
        axis_of[int(column)] = int(axis)
        left[axis, :] = left[:, column] = -1
    return axis_of, [float(direction[axis, column]) for column, axis in enumerate(axis_of)]


def _moves(seen: str, wanted: str) -> tuple[list[int], list[bool]]:
    pairs = [next((axis for axis, pair in enumerate(_AXES) if letter in pair), -1) for letter in wanted]
    if sorted(pairs) != [0, 1, 2]:
        raise GeometryError(f"an orientation has one letter each of R/L, A/P and S/I, such as RAS; seen {wanted!r}")
    order = [next(i for i, letter in enumerate(seen) if letter in _AXES[axis]) for axis in pairs]
    return order, [seen[source] != letter for source, letter in zip(order, wanted, strict=True)]


def _index_map(shape: tuple[int, int, int], order: list[int], flips: list[bool]) -> Array:
    """(4, 4) from indices of the reoriented array to indices of the old one."""
    index_map = np.zeros((4, 4))
    index_map[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        index_map[old, new] = -1 if flip else 1
        index_map[old, 3] = shape[old] - 1 if flip else 0
    return index_map
