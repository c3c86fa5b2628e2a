"""The search for a registration: both images as SimpleITK gets them, and its levels, from coarse to fine.

World positions are RAS+ mm everywhere but between here and SimpleITK, which has LPS.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medgan.errors import GeometryError, InputError
from medgan.itk import LPS, image_of, matrix_of
from medgan.metrics import nmi
from medgan.prep import foreground
from medgan.registration.found import Array, Matrix, Registration
from medgan.resample import resample
from medgan.volume import Grid, Volume

__all__ = ["LEAST_OVERLAP", "Mask", "Scene", "widened"]

Mask: TypeAlias = npt.NDArray[np.bool_]

LEAST_OVERLAP = 0.5
_WORKING_MM = 2.0
_NUM_BINS = 32
_AROUND_BODY_MM = 8.0
_CLIPPED_PERCENT = 0.2
_NEAR_MM = 5.0
_LEAST_ML = 16.0
_NUM_POINTS = 100_000
_LARGE = 1_000_000


@dataclass(frozen=True)
class _Level:
    """How finely both images are looked at, and for how long."""

    shrink: int
    sigma_mm: float
    samples: int
    step_mm: float
    relaxation: float = 0.8  # a step halved at each turn stands still long before the peak
    last_step: float = 0.02


# The first level has far to go and costs little: it is given more turns.
_COARSE = _Level(4, 4.0, 12_000, 4.0, relaxation=0.9, last_step=0.005)
_FINER = (_Level(2, 2.0, 30_000, 2.0), _Level(1, 1.0, 60_000, 1.0))
# Stretches lie in a ravine, along which steps of one length stand still: lines are searched instead.
_AFFINE, _ROUNDS_OF_LINES = _Level(2, 2.0, 30_000, 0.0), 40
_ROUNDS = 200
# From further off than some 20 degrees no optimiser finds its way.
_TURNS = Rotation.from_rotvec([(0, 0, 0), *(turn * axis for turn in (-40, -20, 20, 40) for axis in np.eye(3))], True)
_NUM_STARTS, _SPARSELY = 2, 5


@dataclass(frozen=True, eq=False)
class Scene:
    """Both images on grids of their own of 2 mm, with what is body in each; and SimpleITK's copies of them."""

    sitk: Any
    fixed: Volume
    moving: Volume
    looked_at: Mask
    bodies: tuple[Mask, Mask]
    points: Matrix
    images: tuple[Any, Any, Any]
    seed: int

    @classmethod
    def of(cls, sitk: Any, fixed: Volume, moving: Volume, mask: Volume | None, seed: int) -> Scene:
        """Of the fixed image only the box of what is looked at is kept."""
        a, b = _working(fixed, "the fixed image"), _working(moving, "the moving image")
        bodies = foreground(a.array), foreground(b.array)
        looked_at = widened(bodies[0], a.grid) if mask is None else _given(mask, a.grid)
        if looked_at.sum() * np.prod(a.grid.spacing_mm) < 1000 * _LEAST_ML:
            raise GeometryError(f"there are less than {_LEAST_ML:g} ml of the fixed image to look at")
        window = _box(looked_at)
        start, stop = [part.start for part in window], [part.stop for part in window]
        a, looked_at, body = a.crop(start, stop), looked_at[window], bodies[0][window]
        images = image_of(sitk, a), image_of(sitk, b), image_of(sitk, a.with_array(looked_at.astype(np.uint8)))
        return cls(sitk, a, b, looked_at, (body, bodies[1]), _points(looked_at, a.grid, seed), images, seed)

    @property
    def centre(self) -> Matrix:
        """World position of the middle of the fixed body, mm."""
        return _middle(self.fixed.grid, self.bodies[0])

    def rigid(self) -> Any:
        """The best of all starts at the coarse level, made finer."""
        tried = [(self._nmi_of(found), found) for found in self._coarse()]
        if not tried:
            raise GeometryError("the images have hardly anything in common from wherever a registration starts")
        _, best = max(tried, key=lambda one: one[0])
        for level in _FINER:
            best = self._optimised(best, level)
        return best

    def affine(self, rigid: Any) -> Any:
        """From the rigid result on."""
        found = self.sitk.AffineTransform(3)
        found.SetCenter(rigid.GetCenter())
        found.SetMatrix(rigid.GetMatrix())
        found.SetTranslation(rigid.GetTranslation())
        way = self._way(_AFFINE)
        way.SetOptimizerAsConjugateGradientLineSearch(1.0, _ROUNDS_OF_LINES, 1e-6, 8, 0, 5, 0.01, 12)
        way.SetOptimizerScalesFromPhysicalShift()
        way.SetInitialTransform(found, inPlace=False)
        return self._executed(way)

    def no_worse(self, matrix: Matrix) -> Matrix:
        """The images as they lie, where a result near that tells less: both are one peak, and they lay right."""
        apart = np.linalg.norm(self.points @ matrix[:3, :3].T + matrix[:3, 3] - self.points, axis=1).max()
        return np.eye(4) if apart < _NEAR_MM and self.nmi(matrix) < self.nmi(np.eye(4)) else matrix

    def nmi(self, matrix: Matrix) -> float:
        """Of both, the moving one placed by a matrix."""
        return self.nmi_at(self.points @ matrix[:3, :3].T + matrix[:3, 3])

    def nmi_at(self, there: Matrix) -> float:
        """Of the fixed image at the points and the moving one `there`; NaN where too few are in it.

        Args:
            there: (N, 3) world positions, one a point.
        """
        a, b = _values(self.fixed, self.points), _values(self.moving, there)
        known = np.isfinite(a) & np.isfinite(b)
        least = LEAST_OVERLAP * min(1.0, self.bodies[1].sum() / self.looked_at.sum())
        if known.mean() < least:
            return float("nan")
        a, b = (_unit_range(values[known])[:, None, None] for values in (a, b))
        return nmi(a, b, None, (0, 1), num_bins=_NUM_BINS)

    def overlap(self, matrix: Matrix) -> float:
        """Share (0..1) of the smaller body that lies in the other one."""
        body = self.moving.with_array(self.bodies[1].astype(np.uint8))
        moved = Registration(matrix).moved(body, self.fixed.grid, order=0, outside=0).array > 0
        voxels = [np.prod(grid.spacing_mm) for grid in (self.fixed.grid, self.moving.grid)]
        smaller = min(body.sum() * voxel for body, voxel in zip(self.bodies, voxels, strict=True))
        return float((moved & self.bodies[0]).sum() * voxels[0] / smaller)

    def _coarse(self) -> Iterator[Any]:
        """What each start becomes; those from which the images do not meet are left out."""
        for start in self._starts():
            begun = self.sitk.Euler3DTransform()
            begun.SetCenter((LPS[:3, :3] @ self.centre).tolist())
            begun.SetMatrix((LPS[:3, :3] @ start[:3, :3] @ LPS[:3, :3]).ravel().tolist())
            begun.SetTranslation((LPS[:3, :3] @ (start[:3, :3] @ self.centre + start[:3, 3] - self.centre)).tolist())
            try:
                found = self._optimised(begun, _COARSE)
            except _Apart:
                continue
            if np.isfinite(self._nmi_of(found)):
                yield found

    def _starts(self) -> list[Matrix]:
        """(4, 4) each: the images as they lie, and of all shifts and turns those two that tell most."""
        seen = replace(self, points=self.points[::_SPARSELY])
        _, *others = (_moved(shift, turn, self.centre) for shift in self._shifts() for turn in _TURNS)
        told = [(seen.nmi(other), number) for number, other in enumerate(others)]
        best = sorted((one for one in told if np.isfinite(one[0])), reverse=True)[:_NUM_STARTS]
        return [np.eye(4), *(others[number] for _, number in best)]

    def _shifts(self) -> list[Matrix]:
        """Of the fixed image to the moving one: none, of the middles, of the centres of the bodies; each once."""
        whole = [np.ones(volume.grid.shape, dtype=bool) for volume in (self.fixed, self.moving)]
        grids = self.fixed.grid, self.moving.grid
        shifts = [np.zeros(3)]
        for masks in (whole, self.bodies):
            fixed, moving = (_middle(grid, mask) for grid, mask in zip(grids, masks, strict=True))
            if min(np.linalg.norm(moving - fixed - known) for known in shifts) > 2 * _WORKING_MM:
                shifts.append(moving - fixed)
        return shifts

    def _nmi_of(self, transform: Any) -> float:
        return self.nmi(matrix_of(transform))

    def _optimised(self, start: Any, level: _Level) -> Any:
        """A start at one level, made better by SimpleITK."""
        way = self._way(level)
        way.SetOptimizerAsRegularStepGradientDescent(
            level.step_mm, level.last_step * level.step_mm, _ROUNDS, level.relaxation, 1e-8
        )
        way.SetOptimizerScalesFromPhysicalShift()
        way.SetInitialTransform(start, inPlace=False)
        return self._executed(way)

    def _executed(self, way: Any) -> Any:
        try:
            return way.Execute(*self.images[:2]).GetNthTransform(0)
        except RuntimeError as error:
            if "samples map outside" in str(error) or "VirtualSampledPointSet" in str(error):
                raise _Apart from error
            raise

    def _way(self, level: _Level) -> Any:
        way = self.sitk.ImageRegistrationMethod()
        way.SetNumberOfThreads(1)
        way.SetMetricAsMattesMutualInformation(_NUM_BINS)
        way.SetMetricFixedMask(self.images[2])
        way.SetMetricSamplingStrategy(way.RANDOM)
        inside = float(np.mean(self.looked_at))
        share = level.samples / (self.fixed.array.size / level.shrink**3 * inside)
        way.SetMetricSamplingPercentage(min(share, 1.0), self.seed + 1)  # 0 would be the clock
        way.SetInterpolator(self.sitk.sitkLinear)
        way.SetShrinkFactorsPerLevel([level.shrink])
        way.SetSmoothingSigmasPerLevel([level.sigma_mm])
        way.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        return way


class _Apart(Exception):  # noqa: N818
    """From a start, the images do not meet."""


# --- images -----------------------------------------------------------------------------------------------------------


def _working(volume: Volume, name: str) -> Volume:
    """float32 in even voxels of 2 mm, the brightest and darkest few cut off."""
    array = volume.without_padding().array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds numbers that are not finite; mend it before it is registered")
    seen = array[::2, ::2, ::2] if array.size > _LARGE else array
    low, high = np.percentile(seen, [_CLIPPED_PERCENT, 100 - _CLIPPED_PERCENT]).astype(np.float32)
    if low == high:
        raise InputError(f"{name} is constant; there is nothing to lay upon one another")
    clipped = volume.with_array(np.clip(array, low, high))
    return resample(clipped, _even_grid(volume.grid))


def _even_grid(grid: Grid) -> Grid:
    """Voxels of 2 mm at right angles around a grid, along its own axes where these are at right angles."""
    direction = np.linalg.qr(grid.direction)[0] if not grid.is_sheared else np.eye(3)
    direction = direction * np.sign((direction * grid.direction).sum(axis=0)) if not grid.is_sheared else direction
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(grid.shape) - 1)
    along = grid.to_world(corners) @ direction
    low, high = along.min(axis=0), along.max(axis=0)
    shape = np.maximum(np.rint((high - low) / _WORKING_MM).astype(int) + 1, 1)
    origin = direction @ ((low + high) / 2 - (shape - 1) * _WORKING_MM / 2)
    return Grid.regular(shape.tolist(), spacing_mm=(_WORKING_MM,) * 3, origin_mm=origin.tolist(), direction=direction)


def widened(body: Mask, grid: Grid) -> Mask:
    """A body and what is near it."""
    return np.asarray(ndimage.distance_transform_edt(~body, sampling=grid.spacing_mm) <= _AROUND_BODY_MM)


def _given(mask: Volume, grid: Grid) -> Mask:
    values = mask.with_array((mask.array != 0).astype(np.uint8))
    return np.asarray(Registration(np.eye(4)).moved(values, grid, order=0, outside=0).array > 0)


def _box(mask: Mask) -> tuple[slice, ...]:
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(one[0]), int(one[-1]) + 1) for one in places)


def _moved(shift_mm: Matrix, turn: Rotation, centre_mm: Matrix) -> Matrix:
    """(4, 4): a turn about a place, then a shift."""
    found = np.eye(4)
    found[:3, :3] = turn.as_matrix()
    found[:3, 3] = centre_mm + shift_mm - found[:3, :3] @ centre_mm
    return found


def _middle(grid: Grid, mask: Mask) -> Matrix:
    return grid.to_world(np.array(ndimage.center_of_mass(mask)))


def _points(mask: Mask, grid: Grid, seed: int) -> Matrix:
    """(N, 3) world positions in a mask, between voxel centres: on these an image that is not moved is not blurred."""
    rng = np.random.default_rng(seed)
    places = np.argwhere(mask)
    chosen = places[rng.choice(len(places), min(_NUM_POINTS, len(places)), replace=False)]
    return grid.to_world(chosen + rng.uniform(-0.5, 0.5, chosen.shape))


def _values(volume: Volume, position_mm: Matrix) -> Array:
    """(N,) values at world positions, linear; NaN outside."""
    index = volume.grid.to_index(position_mm).T
    return np.asarray(ndimage.map_coordinates(volume.array, index, order=1, mode="constant", cval=np.nan))


def _unit_range(values: Array) -> Array:
    low, high = np.percentile(values, [_CLIPPED_PERCENT, 100 - _CLIPPED_PERCENT])
    return np.asarray(np.clip((values - low) / max(high - low, 1e-12), 0, 1))
