"""How far apart the two images of a pair lie, and whether one of them is mirrored: an audit, no registration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medgan.errors import GeometryError, InputError
from medgan.prep import foreground
from medgan.volume import Grid, Volume

__all__ = ["Misalignment", "misalignment", "shrunk"]

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Bins = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
Shift = tuple[int, int, int]

_SEARCHED_MM = 48.0
_STEP_MM = 2.0
_NUM_BINS = 24
_MOST_VOXELS = 160_000
_LEAST_VOXELS = 2_000
_LEAST_OF_BLOCK = 500
_REACHES_MM = (12.0, 6.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0)
_STILL, _REWEIGHTED, _CLEARLY_WORSE = 0.1, 8, 0.75
# What a head or a body may be turned by, and how well one block is placed: keeps thin volumes from turning wildly.
_LIKELY_TURN_RAD, _LIKELY_NOISE_MM = 0.2, 1.0


@dataclass(frozen=True)
class Misalignment:
    """Where the anatomy of b lies, seen from that of a, in RAS+ world coordinates.

    Args:
        shift_mm: to the right, to the front and upwards, at the middle of the body, mm.
        uncertainty_mm: standard error of each, from how much the parts of the body disagree, mm.
        rotation_deg: about those three axes, degrees, by the right-hand rule.
        disagreement_mm: how far the parts of the body lie from where shift and rotation put them (the median), mm:
            large where the anatomy is another, or bends.
        nmi: normalised mutual information of both, laid upon one another: 1 unrelated, 2 one to one.
        nmi_in_place: the same as they lie.
        nmi_mirrored: the same with b mirrored left to right and then laid upon a.
    """

    shift_mm: tuple[float, float, float]
    uncertainty_mm: tuple[float, float, float]
    rotation_deg: tuple[float, float, float]
    disagreement_mm: float
    nmi: float
    nmi_in_place: float
    nmi_mirrored: float

    @property
    def distance_mm(self) -> float:
        """Length of the shift, mm."""
        return float(np.linalg.norm(self.shift_mm))

    @property
    def distance_uncertainty_mm(self) -> float:
        """Standard error along the shift, mm; the mean of the three where there is none."""
        shift, error = np.array(self.shift_mm), np.array(self.uncertainty_mm)
        way = shift / self.distance_mm if self.distance_mm > 0.1 else np.full(3, 3**-0.5)
        return float(np.linalg.norm(way * error))

    @property
    def turn_deg(self) -> float:
        """The angle of the rotation about its own axis, degrees."""
        return float(np.linalg.norm(self.rotation_deg))

    @property
    def mirror_gain(self) -> float:
        """How much more b tells of a when mirrored: above 0 where it fits better so, as a share of what it tells."""
        return (self.nmi_mirrored - self.nmi) / max(self.nmi - 1, 1e-9)


def misalignment(a: Volume, b: Volume, mask: Volume | None = None) -> Misalignment:
    """Estimate how far b lies from a, in mm and degrees, whatever the modalities, grids and units.

    Both are looked at on one world grid of 2 mm, inside the body of a. A search over shifts, from coarse to fine, finds
    where normalised mutual information is greatest; then the eighths of the body are placed one by one, and shift and
    rotation are fitted to them. What they disagree by gives the uncertainty. Meant for an audit: it finds shifts of up
    to 48 mm and rotations of some 15 degrees; a registration does better.

    Args:
        a: the image that stays.
        b: the image to place.
        mask: where to look; the body of a, widened by 4 mm, if not given. Any non-zero voxel counts, on any grid.

    Raises:
        GeometryError: if the images have hardly anything in common: less than 16 ml of the body.
        InputError: if an image is constant or not finite where they meet.

    Source:
        Studholme, Hill, Hawkes 1999, Pattern Recognition 32(1), equation 9, over blocks as in Ourselin et al. 2001,
        Image and Vision Computing 19.

    Example:
        >>> from medgan.phantom import head
        >>> grid = Grid.regular((48, 60, 40), spacing_mm=(4, 4, 4), origin_mm=(-94, -118, -75))
        >>> one = head(1, grid=grid)
        >>> affine = one.ct.grid.affine.copy()
        >>> affine[0, 3] += 10
        >>> found = misalignment(one.mr, Volume(one.ct.array, Grid(grid.shape, affine), "HU"))
        >>> [round(shift) for shift in found.shift_mm]
        [10, 0, 0]
    """
    scene = _Scene.of(a, b, mask)
    plain, turned = scene.fitted(np.eye(4)), scene.fitted(scene.mirror, _REACHES_MM[:2])
    if turned.nmi - 1 > _CLEARLY_WORSE * (plain.nmi - 1):
        turned = scene.fitted(scene.mirror)
    rotation = np.degrees(Rotation.from_matrix(plain.pose[:3, :3]).as_rotvec())
    centre = scene.centre
    shift = plain.pose[:3, :3] @ centre + plain.pose[:3, 3] - centre
    return Misalignment(
        _three(shift),
        _three(plain.error_mm),
        _three(rotation),
        plain.residual_mm,
        plain.nmi,
        scene.nmi(scene.placed(np.eye(4))),
        turned.nmi,
    )


@dataclass(frozen=True, eq=False)
class _Fit:
    """A pose, (4, 4) from world positions of a to those of b, and how well the parts of the body agree with it."""

    pose: Array
    error_mm: Array
    residual_mm: float
    nmi: float


@dataclass(frozen=True, eq=False)
class _Scene:
    """Both images, a on the grid where all is compared."""

    grid: Grid
    a: Bins
    body: Mask
    b: Volume
    edges: Array

    @classmethod
    def of(cls, a: Volume, b: Volume, mask: Volume | None) -> _Scene:
        a, b = shrunk(a.without_padding()), shrunk(b.without_padding())
        grid = _world_grid(a.grid)
        values = _sampled(a, grid, np.eye(4))
        body = _body(a, grid, mask) & np.isfinite(values)
        grid, values, body = _cropped(grid, values, body)
        seen = values[body]
        if body.sum() < _LEAST_VOXELS:
            raise GeometryError(f"a shows {body.sum() * _STEP_MM**3 / 1000:.0f} ml of a body; 16 ml are needed")
        return cls(grid, _binned(values, _edges(seen, "a")), body, b, _edges(b.array[np.isfinite(b.array)], "b"))

    @property
    def centre(self) -> Array:
        """World position of the middle of the body, mm."""
        return self.grid.to_world(np.argwhere(self.body).mean(axis=0))

    @property
    def mirror(self) -> Array:
        """(4, 4), left to right about the middle of b."""
        pose = np.eye(4)
        middle = self.b.grid.to_world((np.array(self.b.grid.shape) - 1) / 2)[0]
        pose[0, 0], pose[0, 3] = -1, 2 * middle
        return pose

    def placed(self, pose: Array) -> Bins:
        """The bins of b on the grid, moved by the pose; -1 where it has no voxel."""
        return _binned(_sampled(self.b, self.grid, pose), self.edges)

    def nmi(self, b: Bins) -> float:
        """Of both in the body, b placed already."""
        return _nmi(self.a[self.body], b[self.body])

    def fitted(self, start: Array, reaches_mm: Sequence[float] = _REACHES_MM) -> _Fit:
        """From a start, with steps of 8 and 4 mm; then block by block until it stands still."""
        pose = start @ self._shifted(self.placed(start), 4, _SEARCHED_MM)
        pose = pose @ self._shifted(self.placed(pose), 2, 8.0)
        rounds, b = [], self.placed(pose)
        for reach in reaches_mm:
            change, error, residual = self._turned(b, reach)
            pose = pose @ change
            b = self.placed(pose)
            rounds.append(_Fit(pose, error, residual, self.nmi(b)))
            if np.linalg.norm(change - np.eye(4)) < _STILL:
                break
        return max(rounds, key=lambda fit: fit.nmi)

    def _shifted(self, b: Bins, factor: int, reach_mm: float) -> Array:
        """The best shift of the whole."""
        places = np.argwhere(self.body[::factor, ::factor, ::factor]) * factor
        found = _best_shift(self.a, b, places, factor, reach_mm)
        if found is None:
            raise GeometryError("the images have hardly anything in common: they show different places")
        return _about(self.centre, np.zeros(3), found)

    def _turned(self, b: Bins, reach_mm: float) -> tuple[Array, Array, float]:
        """What the blocks of the body would move b by, the standard error of its shift, and what they disagree by."""
        blocks = list(self._blocks())
        found = [_placed_block(self.a, b, block, reach_mm) for block in blocks]
        middles = [self.grid.to_world(block.mean(axis=0)) for block in blocks]
        known = [(where, shift) for where, shift in zip(middles, found, strict=True) if shift is not None]
        if len(known) < 3:
            raise GeometryError("too little of the body is in both images to tell how they lie")
        where, shifts = (np.array(part) for part in zip(*known, strict=True))
        return _rigid(where, shifts, self.centre)

    def _blocks(self) -> Iterator[npt.NDArray[np.intp]]:
        """(N, 3) indices of the voxels of each eighth of the body, thinned out."""
        places = np.argwhere(self.body)
        places = places[:: -(-len(places) // _MOST_VOXELS)]
        side = places > np.median(places, axis=0)
        for eighth in product((False, True), repeat=3):
            block = places[(side == eighth).all(axis=1)]
            if len(block) >= _LEAST_OF_BLOCK:
                yield block


def _placed_block(a: Bins, b: Bins, block: npt.NDArray[np.intp], reach_mm: float) -> Array | None:
    """Where one block of a lies in b, mm: by 4 mm, then by 2 mm; None where b does not tell."""
    coarse = _best_shift(a, b, block[::4], 2, reach_mm) if reach_mm > 4 else np.zeros(3)
    if coarse is None:
        return None
    start = np.rint(coarse / _STEP_MM).astype(int)
    return _best_shift(a, b, block, 1, 4.0, start=(int(start[0]), int(start[1]), int(start[2])))


def _best_shift(
    a: Bins,
    b: Bins,
    places: npt.NDArray[np.intp],
    step: int,
    reach_mm: float,
    *,
    start: Shift = (0, 0, 0),
) -> Array | None:
    """The shift of b's content with the greatest NMI at the places, mm; None if there is nothing to compare."""
    count = round(reach_mm / _STEP_MM / step)
    pad = count * step + max(map(abs, start))
    padded = np.pad(b, pad, constant_values=-1)
    strides = np.array(padded.strides) // padded.itemsize
    flat, own = padded.ravel(), a[tuple(places.T)]
    at = (places + pad + np.array(start)) @ strides
    sides = np.arange(-count, count + 1) * step
    offsets = (np.stack(np.meshgrid(sides, sides, sides, indexing="ij"), axis=-1) @ strides).ravel()
    scores = np.array([_nmi(own, flat[at + offset]) for offset in offsets]).reshape((len(sides),) * 3)
    if not np.isfinite(scores).any():
        return None
    return np.asarray((_peak(scores) * step + np.array(start)) * _STEP_MM)


def _peak(scores: Array) -> Array:
    """Where the scores are greatest, from the middle, between the steps by a parabola along each axis."""
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    best = np.unravel_index(int(scores.argmax()), scores.shape)
    place = np.array(best, dtype=np.float64)
    for axis, index in enumerate(best):
        line = scores[tuple(slice(None) if k == axis else best[k] for k in range(3))]
        if 0 < index < len(line) - 1:
            before, here, after = line[index - 1 : index + 2]
            bend = before - 2 * here + after
            place[axis] += 0.5 * (before - after) / bend if np.isfinite(bend) and bend < 0 else 0.0
    return place - (np.array(scores.shape) - 1) / 2


def _nmi(a: Bins, b: Bins) -> float:
    """Of two lists of bins; NaN if fewer than half of the second are known."""
    counts = np.bincount(a * (_NUM_BINS + 1) + b + 1, minlength=_NUM_BINS * (_NUM_BINS + 1))
    joint = counts.reshape(_NUM_BINS, _NUM_BINS + 1)[:, 1:]
    total = joint.sum()
    if total < 0.5 * len(a):
        return float("nan")
    both = _entropy(joint / total)
    return (_entropy(joint.sum(0) / total) + _entropy(joint.sum(1) / total)) / both if both else float("nan")


def _entropy(shares: Array) -> float:
    known = shares[shares > 0]
    return float(-(known * np.log(known)).sum())


def _rigid(where: Array, shifts: Array, centre: Array) -> tuple[Array, Array, float]:
    """The rigid motion that takes places to places plus shifts, the error of its shift, and the median residual, mm.

    A block that is far from where the others put it hardly counts (Cauchy's weights): some see too little.
    """
    arm = where - centre
    rows = np.zeros((len(arm), 3, 6))
    rows[:, :, :3] = np.eye(3)
    for axis in range(3):
        rows[:, :, 3 + axis] = np.cross(np.eye(3)[axis], arm)
    prior = np.diag([0, 0, 0, *3 * [(_LIKELY_NOISE_MM / _LIKELY_TURN_RAD) ** 2]])
    weights = np.ones(len(arm))
    for _ in range(_REWEIGHTED):
        inverse = np.linalg.inv(np.einsum("n,nij,nik->jk", weights, rows, rows) + prior)
        found = inverse @ np.einsum("n,nij,ni->j", weights, rows, shifts)
        rest = shifts - rows @ found
        weights = 1 / (1 + (rest**2).sum(axis=1) / _LIKELY_NOISE_MM**2)
    apart = np.linalg.norm(rest, axis=1)
    spread = float((weights * apart**2).sum() / max(3 * weights.sum() - 6, 1))
    error = np.sqrt(spread * np.diag(inverse)[:3])
    return _about(centre, found[3:], found[:3]), error, float(np.median(apart))


def _about(centre: Array, turn_rad: Array, shift_mm: Array) -> Array:
    """(4, 4): a turn about a point, then a shift."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(turn_rad).as_matrix()
    pose[:3, 3] = centre + shift_mm - pose[:3, :3] @ centre
    return pose


# --- one grid for both ------------------------------------------------------------------------------------------------


def shrunk(volume: Volume) -> Volume:
    """Means over blocks of voxels that together are no longer than 2 mm; smaller, and in the same place.

    Example:
        >>> shrunk(Volume(np.ones((8, 8, 8)), Grid.regular((8, 8, 8), spacing_mm=(1, 1, 2)))).array.shape
        (4, 4, 8)
    """
    factors = [max(1, int(_STEP_MM / spacing + 0.01)) for spacing in volume.grid.spacing_mm]
    shape = [size // factor for size, factor in zip(volume.array.shape, factors, strict=True)]
    if min(shape) < 1:
        return volume.with_array(volume.array.astype(np.float32))
    array = volume.array[tuple(slice(size * factor) for size, factor in zip(shape, factors, strict=True))]
    split = [side for size, factor in zip(shape, factors, strict=True) for side in (size, factor)]
    means = array.reshape(split).mean(axis=(1, 3, 5), dtype=np.float32)
    affine = volume.grid.affine @ np.diag([*factors, 1.0])
    affine[:3, 3] = volume.grid.to_world((np.array(factors) - 1) / 2)
    return Volume(means, Grid((shape[0], shape[1], shape[2]), affine), volume.unit, volume.modality)


def _world_grid(grid: Grid) -> Grid:
    """Along the axes of the world, around all of a grid."""
    corners = grid.to_world(list(product(*((0, size - 1) for size in grid.shape))))
    low, high = corners.min(axis=0), corners.max(axis=0)
    shape = np.floor((high - low) / _STEP_MM + 1e-6).astype(int) + 1
    return Grid.regular(shape.tolist(), spacing_mm=(_STEP_MM,) * 3, origin_mm=low.tolist())


def _sampled(volume: Volume, grid: Grid, pose: Array, order: int = 1) -> Image:
    """(X, Y, Z) values of a volume on a grid whose world is moved by the pose; NaN outside."""
    way = np.linalg.inv(volume.grid.affine) @ pose @ grid.affine
    array = volume.array.astype(np.float32, copy=False)
    return np.asarray(ndimage.affine_transform(array, way[:3, :3], way[:3, 3], grid.shape, order=order, cval=np.nan))


def _body(a: Volume, grid: Grid, mask: Volume | None) -> Mask:
    if mask is not None:
        given = mask.with_array((mask.array != 0).astype(np.float32))
        return _sampled(given, grid, np.eye(4), order=0) > 0.5
    body = foreground(np.nan_to_num(a.array)).astype(np.float32)
    inside = _sampled(a.with_array(body), grid, np.eye(4), order=0) > 0.5
    return np.asarray(ndimage.binary_dilation(inside, iterations=2))


def _cropped(grid: Grid, values: Image, body: Mask) -> tuple[Grid, Image, Mask]:
    """The box of the body."""
    if not body.any():
        return grid, values, body
    places = np.argwhere(body)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    window = tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))
    shape: Sequence[int] = (high - low).tolist()
    box = Grid.regular(shape, spacing_mm=(_STEP_MM,) * 3, origin_mm=grid.to_world(low).tolist())
    return box, values[window], body[window]


def _edges(values: npt.NDArray[np.float32], name: str) -> Array:
    """Between bins of equal width over all values but the lowest and the highest half per cent."""
    if not values.size or values.min() == values.max():
        raise InputError(f"{name} is constant where it is looked at; there is nothing to lay upon one another")
    low, high = np.percentile(values, [0.5, 99.5])
    return np.linspace(low, high, _NUM_BINS + 1)[1:-1]


def _binned(values: Image, edges: Array) -> Bins:
    bins = np.searchsorted(edges, values)
    return np.where(np.isfinite(values), bins, -1)


def _three(values: Array) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
