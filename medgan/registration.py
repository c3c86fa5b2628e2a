"""Lay one image upon another: rigid or affine, by SimpleITK; none of the optimisation is ours.

World positions are RAS+ mm everywhere but between here and SimpleITK, which has LPS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

from medgan.errors import GeometryError, InputError
from medgan.itk import LPS, image_of, matrix_of, one_thread, simpleitk
from medgan.metrics import nmi
from medgan.prep import foreground, resample
from medgan.volume import Grid, Volume

__all__ = ["Registration", "register"]

Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Kind = Literal["rigid", "affine"]

_WORKING_MM = 2.0
_NUM_BINS = 32
_AROUND_BODY_MM = 8.0
_CLIPPED_PERCENT = 0.2
# What a registration may find. Beyond, it is refused: heads and bodies do not lie so on a table.
_LEAST_OVERLAP, _MOST_TURN_DEG, _MOST_SCALING = 0.5, 50.0, 1.25
_SAME_MM = 1.0
_LEAST_ML = 16.0
_NUM_POINTS = 100_000
_SLAB_VOXELS = 1_000_000


@dataclass(frozen=True)
class _Level:
    """How finely both images are looked at, and for how long."""

    shrink: int
    sigma_mm: float
    samples: int
    step_mm: float


_COARSE = _Level(4, 4.0, 12_000, 4.0)
_FINER = (_Level(2, 2.0, 30_000, 2.0), _Level(1, 1.0, 60_000, 1.0))
# Stretches lie in a ravine, along which steps of one length stand still: lines are searched instead.
_AFFINE, _ROUNDS_OF_LINES = _Level(2, 2.0, 30_000, 0.0), 40
_ROUNDS, _RELAXATION, _LAST_STEP = 200, 0.9, 0.005  # a step halved at each turn stands still long before the peak


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
        return _three(self.matrix[:3, :3] @ self.centre_mm + self.matrix[:3, 3] - self.centre_mm)

    @property
    def rotation_deg(self) -> tuple[float, float, float]:
        """Rotation vector about these three axes, degrees, by the right-hand rule; an affine's without its stretch."""
        return _three(np.degrees(Rotation.from_matrix(polar(self.matrix[:3, :3])[0]).as_rotvec()))

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
        placed = replace(source, grid=Grid(source.grid.shape, np.linalg.inv(self.matrix) @ source.grid.affine))
        found = resample(placed, onto, order=order)
        array = np.array(found.array, dtype=np.float32 if order else source.array.dtype)
        if order > 1:
            np.clip(array, source.array.min(), source.array.max(), out=array)
        for part, coordinates in _ways(placed.grid, onto):
            array[..., part][_beyond(coordinates, placed.grid.shape)] = outside
        return replace(found, array=array)

    def inverse(self) -> Registration:
        """From the moving image to the fixed one."""
        centre = _three(np.asarray(self.centre_mm) + self.translation_mm)
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


def register(
    fixed: Volume,
    moving: Volume,
    *,
    kind: Kind = "rigid",
    mask: Volume | None = None,
    seed: int = 0,
) -> Registration:
    """Find where each place of one image is in another, whatever the modalities, grids and units.

    SimpleITK maximises Mattes' mutual information, on images of 2 mm, from coarse to fine. It starts from the images as
    they lie, from equal middles and from equal centres of the bodies; the best of what the coarse level makes of these
    goes on. The same images, seed and version of SimpleITK give the same bytes: it runs on one thread.

    Args:
        fixed: the image that stays.
        moving: the image to place.
        kind: `rigid` (turn and shift), or `affine` (stretch and shear as well).
        mask: where in the fixed image to look; its body and 8 mm around if not given. Any non-zero voxel counts, on any
            grid.
        seed: which voxels are looked at, from 0.

    Raises:
        GeometryError: if the result cannot be right: mutual information is no larger than before; less than half of
            the smaller body lies in the other one; a turn of more than 50°, a volume or axis stretched by more than
            25 %. Images are left as they were.
        InputError: if an image is constant or not finite, or SimpleITK is not installed.

    Source:
        Mattes et al. 2003, IEEE TMI 22(1).

    Example:
        >>> from medgan.phantom import head
        >>> grid = Grid.regular((48, 60, 40), spacing_mm=(4, 4, 4), origin_mm=(-94, -118, -75))
        >>> one = head(1, grid=grid)
        >>> affine = one.ct.grid.affine.copy()
        >>> affine[0, 3] += 10
        >>> found = register(one.mr, Volume(one.ct.array, Grid(grid.shape, affine), "HU"))
        >>> [round(shift) for shift in found.translation_mm]
        [10, 0, 0]
    """
    sitk = simpleitk()
    scene = _Scene.of(sitk, fixed, moving, mask, seed)
    with one_thread(sitk):
        found = scene.rigid()
        if kind == "affine":
            found = scene.affine(found)
    matrix = scene.no_worse(matrix_of(found))
    result = Registration(
        matrix,
        kind,
        _three(scene.centre),
        scene.nmi(np.eye(4)),
        scene.nmi(matrix),
        scene.overlap(matrix),
        seed,
        sitk.Version_VersionString(),
    )
    _refuse_wrong(result)
    return result


@dataclass(frozen=True, eq=False)
class _Scene:
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
    def of(cls, sitk: Any, fixed: Volume, moving: Volume, mask: Volume | None, seed: int) -> _Scene:
        """Of the fixed image only the box of what is looked at is kept."""
        a, b = _working(fixed, "the fixed image"), _working(moving, "the moving image")
        bodies = foreground(a.array), foreground(b.array)
        looked_at = _widened(bodies[0], a.grid) if mask is None else _given(mask, a.grid)
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
        """The images as they lie, where a result next to that tells less: they lay right before."""
        apart = np.linalg.norm(self.points @ matrix[:3, :3].T + matrix[:3, 3] - self.points, axis=1).max()
        return np.eye(4) if apart < _SAME_MM and self.nmi(matrix) < self.nmi(np.eye(4)) else matrix

    def nmi(self, matrix: Matrix) -> float:
        """Of both at the points; NaN where too few of them are in the moving image."""
        there = self.points @ matrix[:3, :3].T + matrix[:3, 3]
        a, b = _values(self.fixed, self.points), _values(self.moving, there)
        known = np.isfinite(a) & np.isfinite(b)
        least = _LEAST_OVERLAP * min(1.0, self.bodies[1].sum() / self.looked_at.sum())
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
        for shift in self._shifts():
            start = self.sitk.Euler3DTransform()
            start.SetCenter((LPS[:3, :3] @ self.centre).tolist())
            start.SetTranslation((LPS[:3, :3] @ shift).tolist())
            try:
                found = self._optimised(start, _COARSE)
            except _Apart:
                continue
            if np.isfinite(self._nmi_of(found)):
                yield found

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
            level.step_mm, _LAST_STEP * level.step_mm, _ROUNDS, _RELAXATION, 1e-8
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


def _refuse_wrong(result: Registration) -> None:
    """Results that no patient's motion explains."""
    stretch = np.linalg.svd(result.matrix[:3, :3], compute_uv=False)
    turn = float(np.linalg.norm(result.rotation_deg))
    wrong = ""
    if not result.overlap >= _LEAST_OVERLAP:
        wrong = f"only {result.overlap:.0%} of the smaller body lies in the other one"
    elif np.isnan(result.nmi_after):
        wrong = "the moving image shows too little of what is looked at in the fixed one"
    elif result.nmi_after < result.nmi_before:
        wrong = f"mutual information fell from {result.nmi_before:.3f} to {result.nmi_after:.3f}"
    elif turn > _MOST_TURN_DEG:
        wrong = f"it turned by {turn:.0f}°"
    elif max(stretch.max(), 1 / stretch.min()) > _MOST_SCALING:
        wrong = f"it stretched by {stretch.max():.2f} and {stretch.min():.2f}"
    if wrong:
        raise GeometryError(
            f"the registration failed: {wrong}. Are these images of one patient and place? "
            "Give a mask of what both show, or leave the case out"
        )


# --- images -----------------------------------------------------------------------------------------------------------


def _working(volume: Volume, name: str) -> Volume:
    """float32 in even voxels of 2 mm, the brightest and darkest few cut off."""
    array = volume.without_padding().array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds numbers that are not finite; mend it before it is registered")
    low, high = np.percentile(array, [_CLIPPED_PERCENT, 100 - _CLIPPED_PERCENT])
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


def _widened(body: Mask, grid: Grid) -> Mask:
    return np.asarray(ndimage.distance_transform_edt(~body, sampling=grid.spacing_mm) <= _AROUND_BODY_MM)


def _given(mask: Volume, grid: Grid) -> Mask:
    values = mask.with_array((mask.array != 0).astype(np.uint8))
    return np.asarray(Registration(np.eye(4)).moved(values, grid, order=0, outside=0).array > 0)


def _box(mask: Mask) -> tuple[slice, ...]:
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(one[0]), int(one[-1]) + 1) for one in places)


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


def _ways(source: Grid, onto: Grid) -> Iterator[tuple[slice, Sequence[Array]]]:
    """Slab by slab along the last axis of `onto`: three arrays that broadcast to (X, Y, Z), of indices in `source`."""
    way = np.linalg.inv(source.affine) @ onto.affine
    step = max(1, _SLAB_VOXELS // (onto.shape[0] * onto.shape[1]))
    for start in range(0, onto.shape[2], step):
        stop = min(start + step, onto.shape[2])
        i, j, k = np.ogrid[: onto.shape[0], : onto.shape[1], start:stop]
        yield slice(start, stop), [way[a, 0] * i + way[a, 1] * j + (way[a, 2] * k + way[a, 3]) for a in range(3)]


def _beyond(coordinates: Sequence[Array], shape: tuple[int, int, int]) -> Mask:
    """Where indices lie outside all voxels, by more than rounding."""
    outside = [(one < -0.5 - 1e-6) | (one > size - 0.5 + 1e-6) for one, size in zip(coordinates, shape, strict=True)]
    return np.asarray(np.logical_or.reduce(outside))


def _three(values: Array) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
