"""Cases → cached volumes → MONAI patches and loaders → `Batch`.

Which patch of which case comes at which step, and how it is augmented, depends on (seed, step) alone: not on
workers, on what was loaded before, or on where a training was resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, RandAdjustContrast, RandAffine, RandFlip, RandGaussianNoise
from monai.utils import convert_to_tensor
from pydantic import Field, model_validator
from torch import Tensor

from medgan.cases import Case
from medgan.errors import ConfigError, GeometryError
from medgan.formats import read
from medgan.models.base import Batch
from medgan.prep import Intensity, Prep, check, foreground, in_contract_unit, network_grid, resample, to_network
from medgan.progress import track
from medgan.settings import Settings
from medgan.volume import Grid, Volume

__all__ = [
    "Augment",
    "Pair",
    "Patches",
    "Region",
    "Scan",
    "UnpairedPatches",
    "Weights",
    "batches",
    "flat_axis",
    "read_pair",
    "read_pairs",
    "read_scan",
    "read_scans",
]

Size = tuple[int, int, int]
BACKGROUND = -1.0
TRIES = 64
SAME_GRID_MM = 0.1


class Augment(Settings):
    """Random changes of a training patch. Geometry changes source and target alike, intensity the source alone.

    Models that learn without pairs have no use for `gamma` and `noise`: their sources are targets as well.

    Args:
        flip_axes: network axes (0 left-right, 1 front-back, 2 bottom-top) that are mirrored half of the time.
        rotate_deg: largest rotation in the axial plane, or in the plane of a 2-D patch.
        scale: largest zoom in or out, as a share.
        gamma: largest change of contrast, as a share; 0 for quantitative sources (CT).
        noise: largest standard deviation of added noise, in network units (the window is 2 wide).
    """

    flip_axes: tuple[int, ...] = (0,)
    rotate_deg: float = Field(default=10, ge=0, le=180)
    scale: float = Field(default=0.1, ge=0, lt=1)
    gamma: float = Field(default=0.2, ge=0, lt=1)
    noise: float = Field(default=0.02, ge=0)


class Region(Settings):
    """Voxels of the target that count more or less.

    Args:
        range: lowest and highest value, in the unit of the run's output (HU for CT).
        weight: of each such voxel, against 1 of others; 0 leaves them out.
    """

    range: tuple[float, float]
    weight: float = Field(ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Region:
        if self.range[0] >= self.range[1]:
            raise ValueError(f"the lower end {self.range[0]:g} must be below the upper end {self.range[1]:g}")
        return self


class Weights(Settings):
    """How much each voxel counts where a translation is compared with its target.

    Args:
        body_only: count nothing outside the case's mask, or the foreground of the source where it has none.
        regions: tissues by the value of the target; where two hold a value, the later one counts.
    """

    body_only: bool = False
    regions: tuple[Region, ...] = ()

    def of(self, b: Tensor, body: Tensor, intensity: Intensity) -> Tensor:
        """The weight of each voxel.

        Args:
            b: the target in [-1, 1].
            body: the share (0..1) of each voxel that is body, the same shape.
            intensity: of the target.
        """
        low, high = intensity.output_range
        values = low + (b + 1) * (high - low) / 2
        factors = torch.ones_like(b)
        for region in self.regions:
            inside = (values >= region.range[0]) & (values <= region.range[1])
            factors = torch.where(inside, region.weight, factors)
        return factors * body.round() if self.body_only else factors


@dataclass(frozen=True)
class Scan:
    """One image, ready for the network.

    Args:
        name: of its case.
        x: (1, X, Y, Z) in [-1, 1] on the network's grid.
        body: (X, Y, Z) bool, where patches are centred.
        source: the image as read.
    """

    name: str
    x: Tensor
    body: npt.NDArray[np.bool_]
    source: Volume


@dataclass(frozen=True)
class Pair(Scan):
    """The scan to translate from, and what should come out.

    Args:
        b: (1, X, Y, Z) in [-1, 1], the target on the network's grid.
        target: the target in the unit of the run's output, on the grid of the source.
        mask: (X, Y, Z) bool on that grid, where errors are counted.
    """

    b: Tensor
    target: Volume
    mask: npt.NDArray[np.bool_]


def read_pairs(cases: Sequence[Case], prep: Prep, label: str) -> list[Pair]:
    """Read and prepare both images of all cases, showing progress."""
    return [read_pair(case, prep) for case in track(cases, label)]


def read_scans(cases: Sequence[Case], role: str, prep: Prep, label: str) -> list[Scan]:
    """Read and prepare the images that the cases have in one role, "a" or "b", showing progress."""
    return [read_scan(case, role, prep) for case in track([case for case in cases if role in case.images], label)]


def read_pair(case: Case, prep: Prep) -> Pair:
    """Read one case's images and bring them to the network's grid and range.

    Raises:
        InputError: if an image is of another modality or unit than the run's, or cannot be read.
        GeometryError: if its images are not on one grid (in whatever order of axes).
    """
    source, target = _read(case, "a", prep), _read(case, "b", prep)
    target = _on_grid(target, source.grid, f"{case.name}, b")
    mask = _mask(case, source)
    x, b = (
        to_network(source, prep.a, prep.spacing_mm, prep.axes),
        to_network(target, prep.b, prep.spacing_mm, prep.axes),
    )
    return Pair(case.name, x, _body(mask, source, prep), source, b, in_contract_unit(target, prep.b), mask)


def read_scan(case: Case, role: str, prep: Prep) -> Scan:
    """Read one image of a case and bring it to the network's grid and range.

    Raises:
        InputError: if it is of another modality or unit than the run's, or cannot be read.
        GeometryError: if its mask is not on its grid (in whatever order of axes).
    """
    source = _read(case, role, prep)
    mask = _mask(case, source) if role == "a" or "a" not in case.images else foreground(source.array)
    return Scan(
        case.name,
        to_network(source, getattr(prep, role), prep.spacing_mm, prep.axes),
        _body(mask, source, prep),
        source,
    )


def _body(mask: npt.NDArray[np.bool_], source: Volume, prep: Prep) -> npt.NDArray[np.bool_]:
    """The mask on the network's grid."""
    volume = Volume(mask.astype(np.uint8), source.grid)
    return np.asarray(resample(volume, network_grid(source.grid, prep.spacing_mm, prep.axes), order=0).array > 0)


def _read(case: Case, role: str, prep: Prep) -> Volume:
    volume = read(case.images[role])
    check(volume, getattr(prep, role), f"{case.name}, {role}")
    return volume


def _mask(case: Case, source: Volume) -> npt.NDArray[np.bool_]:
    if "mask" not in case.images:
        return foreground(source.array)
    return np.asarray(_on_grid(read(case.images["mask"]), source.grid, f"{case.name}, mask").array > 0)


def _on_grid(volume: Volume, grid: Grid, name: str) -> Volume:
    turned = volume.reorient(grid.orientation)
    if not turned.grid.same_as(grid, tolerance_mm=SAME_GRID_MM):
        apart = f", up to {turned.grid.distance_mm(grid):.3g} mm apart" if turned.grid.shape == grid.shape else ""
        raise GeometryError(
            f"{name}: its grid ({volume.grid.describe()}) is not that of a ({grid.describe()}){apart}; "
            "register and resample the images onto one grid first"
        )
    return replace(turned, grid=grid)


class Patches(Dataset):  # type: ignore[misc]
    """Random patches of prepared pairs: item i is a function of (seed, i).

    Items are dicts of `a` and `b`, (1, X, Y, Z), or (1, U, V) where the patch is one voxel thick along one axis. With
    neighbours `a` is (1 + 2 · neighbours, U, V): the slices around that of b, in the order of their position. With
    `weigh`, a function of b and of the share of body, what it returns is there as `mask`.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        patch: Size,
        augment: Augment,
        seed: int,
        *,
        neighbours: int = 0,
        weigh: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(data=pairs, transform=None)
        self.seed, self.cut, self.tint = seed, _Cutter(patch, augment), _intensity(augment)
        self.neighbours, self.weigh = neighbours, weigh

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        pair = self.data[_turn(len(self.data), index, self.seed)]
        inside = [] if self.weigh is None else [(torch.from_numpy(pair.body)[None], 0)]
        cut = self.cut([(pair.x, self.neighbours), (pair.b, 0), *inside], pair.body, rng)
        a, b, body = torch.split(cut, [1 + 2 * self.neighbours, 1, len(inside)])
        tinted = _plain(self.tint.set_random_state(seed=int(rng.integers(2**31)))(a))
        return {"a": tinted, "b": b} | ({} if self.weigh is None else {"mask": self.weigh(b, (body + 1) / 2)})


class UnpairedPatches(Dataset):  # type: ignore[misc]
    """Random patches of a and, drawn on their own, of b: item i is a function of (seed, i).

    Items are dicts as those of `Patches`; which scans and which places in them come together is chance, also where
    both are there for one patient.
    """

    def __init__(self, a: Sequence[Scan], b: Sequence[Scan], patch: Size, augment: Augment, seed: int) -> None:
        super().__init__(data=[*a, *b], transform=None)
        self.scans, self.seed, self.cut = {"a": a, "b": b}, seed, _Cutter(patch, augment)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {role: self._one(scans, index, side) for side, (role, scans) in enumerate(self.scans.items())}

    def _one(self, scans: Sequence[Scan], index: int, side: int) -> Tensor:
        rng = np.random.default_rng((self.seed, index, side))
        scan = scans[_turn(len(scans), index, self.seed, side)]
        return self.cut([(scan.x, 0)], scan.body, rng)


class _Cutter:
    """Cuts the same patch, at a random place in the body and moved at random, from images on one grid."""

    def __init__(self, patch: Size, augment: Augment) -> None:
        self.flat = flat_axis(patch)
        self.crop = _crop_size(patch, augment, self.flat)
        self.move = _geometry(patch, augment, self.flat)

    def __call__(
        self, images: Sequence[tuple[Tensor, int]], body: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> Tensor:
        """Images (1, X, Y, Z), each with its number of neighbours, to one (channels, *patch without its flat axis).

        What is true or false becomes 1 or -1, so that all are filled with the same beyond their ends.
        """
        start = _centre(body, rng) - np.array(self.crop) // 2
        slabs = [self._slab(image, start, neighbours) for image, neighbours in images]
        cut = torch.cat([slab if slab.is_floating_point() else slab * 2.0 - 1 for slab in slabs])
        return _plain(self.move.set_random_state(seed=int(rng.integers(2**31)))(cut))

    def _slab(self, image: Tensor, start: npt.NDArray[np.int64], neighbours: int) -> Tensor:
        """A block, or a slice and those around it as channels."""
        if self.flat is None:
            return _cut(image, start, self.crop)
        x, y, z = (2 * neighbours * (axis == self.flat) for axis in range(3))
        size = (self.crop[0] + x, self.crop[1] + y, self.crop[2] + z)
        return _cut(image, start - np.array([x, y, z]) // 2, size)[0].movedim(self.flat, 0)


def batches(
    patches: Patches | UnpairedPatches, *, batch: int, start: int, stop: int, workers: int = 0
) -> Iterator[Batch]:
    """The batches of steps start..stop-1; batch k holds the items k·batch … (k + 1)·batch - 1."""
    order = range(start * batch, stop * batch)
    loader = DataLoader(
        patches, batch_size=batch, sampler=order, num_workers=workers, pin_memory=torch.cuda.is_available()
    )
    return (Batch(**item) for item in loader)


def flat_axis(patch: Size) -> int | None:
    """The axis along which a patch is one voxel thick: 2-D training runs in the other two. None for 3-D.

    Raises:
        ConfigError: if more than one axis is one voxel thick.
    """
    flat = [axis for axis in range(3) if patch[axis] == 1]
    if len(flat) > 1:
        raise ConfigError(f"patch: at most one of its three sizes may be 1; seen {list(patch)}")
    return flat[0] if flat else None


def _turn(count: int, index: int, *seeds: int) -> int:
    """Every case once before any comes again, in an order that is drawn anew each time."""
    epoch, position = divmod(index, count)
    return int(np.random.default_rng((*seeds, count, epoch)).permutation(count)[position])


def _centre(body: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A random voxel inside the body: drawn until one is hit, since listing all would double the memory."""
    draws = rng.integers(body.shape, size=(TRIES, 3))
    inside = np.flatnonzero(body[tuple(draws.T)])
    return np.asarray(draws[inside[0] if inside.size else 0])


def _cut(x: Tensor, start: npt.NDArray[np.int64], size: Size) -> Tensor:
    """A box of (1, X, Y, Z), filled with background where it leaves the volume."""
    box = x.new_full((x.shape[0], *size), BACKGROUND if x.is_floating_point() else 0)
    low = np.maximum(start, 0)
    high = np.minimum(start + size, x.shape[1:])
    if (high > low).all():
        inner = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
        outer = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        box[(slice(None), *inner)] = x[(slice(None), *outer)]
    return box


def _crop_size(patch: Size, augment: Augment, flat: int | None) -> Size:
    """Large enough that a turned and shrunk patch still lies inside."""
    angle = math.radians(min(augment.rotate_deg, 45))
    turned = (math.cos(angle) + math.sin(angle)) * (1 + augment.scale)
    in_plane = (0, 1) if flat is None else tuple(axis for axis in range(3) if axis != flat)
    grow = [turned if axis in in_plane else 1 if axis == flat else 1 + augment.scale for axis in range(3)]
    x, y, z = (math.ceil(size * factor) for size, factor in zip(patch, grow, strict=True))
    return x, y, z


def _geometry(patch: Size, augment: Augment, flat: int | None) -> Compose:
    """For source and target stacked as channels, so that both move alike."""
    axes = [axis for axis in range(3) if axis != flat]
    flips = [RandFlip(prob=0.5, spatial_axis=axes.index(axis)) for axis in augment.flip_axes if axis in axes]
    if augment.rotate_deg == 0 and augment.scale == 0:
        return Compose(flips)
    angle = math.radians(augment.rotate_deg)
    turn = RandAffine(
        prob=1.0,
        # In 3-D only about the long axis of the patient: slices are thick, and a tilt would mix their spacing.
        rotate_range=angle if flat is not None else (0.0, 0.0, angle),
        scale_range=[(-augment.scale, augment.scale)] * len(axes),
        spatial_size=[patch[axis] for axis in axes],
        mode="bilinear",
        padding_mode="border",
    )
    return Compose([*flips, turn])


def _intensity(augment: Augment) -> Compose:
    gamma = RandAdjustContrast(prob=0.5, gamma=(1 - augment.gamma, 1 + augment.gamma))
    noise = RandGaussianNoise(prob=0.5, std=augment.noise, sample_std=True)
    return Compose([*([gamma] if augment.gamma else []), *([noise] if augment.noise else [])])


def _plain(x: Tensor) -> Tensor:
    """A tensor without MONAI's metadata, which would slow every operation of the training down."""
    return torch.as_tensor(convert_to_tensor(x, track_meta=False)).clamp(-1, 1)
