"""Scans → MONAI patches and loaders → `Batch`.

Which patch of which case comes at which step, and how it is augmented, depends on (seed, step) alone: not on
workers, on what was loaded before, or on where a training was resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from monai.data import DataLoader, Dataset
from pydantic import Field, model_validator
from torch import Tensor

from medgan.errors import ConfigError
from medgan.jitter import Augment, Move, Size, Tint, crop_size
from medgan.kept import read_pairs, read_scans
from medgan.models.base import Batch
from medgan.prep import BACKGROUND, Intensity
from medgan.scans import Pair, Scan, read_pair, read_scan
from medgan.settings import Settings

__all__ = [
    "AllPatches",
    "Augment",
    "Batches",
    "Pair",
    "Patches",
    "Region",
    "Scan",
    "Size",
    "UnpairedPatches",
    "Weights",
    "batches",
    "flat_axis",
    "paste",
    "read_pair",
    "read_pairs",
    "read_scan",
    "read_scans",
    "turn",
]

TRIES = 64


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
        factors = self.of_values(low + (b + 1) * (high - low) / 2)
        return factors * body.round() if self.body_only else factors

    def of_values(self, values: Tensor) -> Tensor:
        """The weight of each value of the target, in its unit, within the body."""
        factors = torch.ones_like(values)
        for region in self.regions:
            inside = (values >= region.range[0]) & (values <= region.range[1])
            factors = torch.where(inside, region.weight, factors)
        return factors


class Patches(Dataset):  # type: ignore[misc]
    """Random patches of prepared pairs: item i is a function of (seed, i).

    Items are dicts of `a` and `b`, (C, X, Y, Z), or (C, U, V) where the patch is one voxel thick along one axis; b has
    one channel, a one for each contrast. With neighbours each contrast comes 1 + 2 · neighbours times in `a`: all of
    the first slice, all of the next, in the order of their position around that of b. A contrast is blanked with
    probability `contrast_dropout`, but never all that the case has. With `weigh`, a function of b and of the share of
    body, what it returns is there as `mask`.
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
        contrast_dropout: float = 0,
    ) -> None:
        super().__init__(data=pairs, transform=None)
        self.seed, self.cut, self.tint = seed, _Cutter(patch, augment), Tint(augment)
        self.neighbours, self.weigh, self.contrast_dropout = neighbours, weigh, contrast_dropout

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        pair = self.data[turn(len(self.data), index, self.seed)]
        inside = [] if self.weigh is None else [(torch.from_numpy(pair.body)[None], 0)]
        images = [(pair.x, self.neighbours), (pair.b, 0), *inside]
        cut = self.cut(images, pair.body, rng)
        a, b, *body = torch.split(cut, [len(x) * (1 + 2 * neighbours) for x, neighbours in images])
        self._tint(a, pair, rng)
        return {"a": a, "b": b} | ({} if self.weigh is None else {"mask": self.weigh(b, (body[0] + 1) / 2)})

    def _tint(self, a: Tensor, pair: Pair, rng: np.random.Generator) -> None:
        """Tint each contrast on its own, all its slices alike, and blank some."""
        count = len(pair.x)
        for contrast in range(count):
            own = a[contrast::count]
            if (tinted := self.tint(own, int(rng.integers(2**31)))) is not own:
                own.copy_(tinted)
        dropped = _dropped(count, pair.missing, self.contrast_dropout, rng) if self.contrast_dropout else pair.missing
        for contrast in dropped:
            a[contrast::count] = BACKGROUND


def _dropped(count: int, missing: tuple[int, ...], probability: float, rng: np.random.Generator) -> list[int]:
    """The contrasts to blank: those that are missing, and some by chance; one that is there always stays."""
    there = [channel for channel in range(count) if channel not in missing]
    lucky = rng.random(count) >= probability
    kept = [channel for channel in there if lucky[channel]] or [int(rng.choice(there))]
    return [channel for channel in range(count) if channel not in kept]


class UnpairedPatches(Dataset):  # type: ignore[misc]
    """Random patches of a and, drawn on their own, of b: item i is a function of (seed, i).

    Items are dicts as those of `Patches`, of both domains with as many neighbours; which scans and which places in them
    come together is chance, also where both are there for one patient. A domain without scans is left out.
    """

    def __init__(
        self,
        a: Sequence[Scan],
        b: Sequence[Scan],
        patch: Size,
        augment: Augment,
        seed: int,
        *,
        neighbours: int = 0,
    ) -> None:
        super().__init__(data=[*a, *b], transform=None)
        self.scans, self.seed, self.cut, self.neighbours = {"a": a, "b": b}, seed, _Cutter(patch, augment), neighbours

    @property
    def has_both(self) -> bool:
        """Whether there are scans of either domain."""
        return all(self.scans.values())

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {role: self._one(scans, index, side) for side, (role, scans) in enumerate(self.scans.items()) if scans}

    def _one(self, scans: Sequence[Scan], index: int, side: int) -> Tensor:
        rng = np.random.default_rng((self.seed, index, side))
        scan = scans[turn(len(scans), index, self.seed, side)]
        return self.cut([(scan.x, self.neighbours)], scan.body, rng)


class _Cutter:
    """Cuts the same patch, at a random place in the body and moved at random, from images on one grid."""

    def __init__(self, patch: Size, augment: Augment) -> None:
        self.flat = flat_axis(patch)
        self.crop = crop_size(patch, augment, self.flat)
        self.move = Move(patch, augment, self.flat)

    def __call__(
        self, images: Sequence[tuple[Tensor, int]], body: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> Tensor:
        """Images (C, X, Y, Z), each with its number of neighbours, to one (channels, *patch without its flat axis).

        What is true or false becomes 1 or -1, so that all are filled with the same beyond their ends.
        """
        middle, counts = _centre(body, rng), [len(image) * (1 + 2 * neighbours) for image, neighbours in images]
        cut = self._empty(sum(counts))
        for part, (image, neighbours) in zip(torch.split(cut, counts), images, strict=True):
            start = [place - size // 2 for place, size in zip(middle, self.crop, strict=True)]
            if self.flat is not None:
                start[self.flat] -= neighbours
            paste(self._as_block(part, len(image)), image, start)
        return self.move(cut, int(rng.integers(2**31)))

    def _empty(self, channels: int) -> Tensor:
        """Room for the crops, in memory as the images are: slice by slice."""
        if self.flat is None:
            return torch.empty(channels, self.crop[2], *self.crop[:2]).movedim(1, -1)
        return torch.empty(channels, *(size for axis, size in enumerate(self.crop) if axis != self.flat))

    def _as_block(self, part: Tensor, contrasts: int) -> Tensor:
        """(contrasts, X, Y, Z) of a part in which the channels are slices, all contrasts of a slice together."""
        if self.flat is None:
            return part
        return part.view(-1, contrasts, *part.shape[1:]).movedim(0, self.flat + 1)


class Batches(Iterator[Batch]):
    """Batches, one after another, and how long they were waited for.

    Attributes:
        waited_s: seconds in all that passed between asking for a batch and having it.
    """

    def __init__(self, items: Iterator[dict[str, Tensor]]) -> None:
        self._items, self.waited_s = items, 0.0

    def __next__(self) -> Batch:
        began = time.perf_counter()
        item = next(self._items)
        self.waited_s += time.perf_counter() - began
        return Batch(**item)


AllPatches: TypeAlias = Patches | UnpairedPatches


def batches(
    patches: Dataset,
    *,
    batch: int,
    start: int,
    stop: int,
    turns: int = 1,
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Batches:
    """The batches of steps start..stop-1; that of turn k, `turns` a step, holds the items k·batch … (k + 1)·batch - 1.

    Those of a step come as one, the first turn first. Of each turn, with `part` = (rank, count), come the rank-th of
    count equal parts, as processes that train together share it.
    """
    own = batch // part[1]
    firsts = range(start * turns * batch + part[0] * own, stop * turns * batch, batch)
    order = [item for first in firsts for item in range(first, first + own)]
    loader = DataLoader(
        patches, batch_size=own * turns, sampler=order, num_workers=workers, pin_memory=torch.cuda.is_available()
    )
    return Batches(iter(loader))


def flat_axis(patch: Size) -> int | None:
    """The axis along which a patch is one voxel thick: 2-D training runs in the other two. None for 3-D.

    Raises:
        ConfigError: if more than one axis is one voxel thick.
    """
    flat = [axis for axis in range(3) if patch[axis] == 1]
    if len(flat) > 1:
        raise ConfigError(f"patch: at most one of its three sizes may be 1; seen {list(patch)}")
    return flat[0] if flat else None


def turn(count: int, index: int, *seeds: int) -> int:
    """Every case once before any comes again, in an order that is drawn anew each time."""
    epoch, position = divmod(index, count)
    return int(_order(count, epoch, seeds)[position])


@lru_cache(maxsize=16)
def _order(count: int, epoch: int, seeds: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.random.default_rng((*seeds, count, epoch)).permutation(count)


def _centre(body: npt.NDArray[np.bool_], rng: np.random.Generator) -> list[int]:
    """A random voxel inside the body: drawn until one is hit, since listing all would double the memory."""
    draws = rng.integers(body.shape, size=(TRIES, 3))
    inside = np.flatnonzero(body[tuple(draws.T)])
    return [int(place) for place in draws[inside[0] if inside.size else 0]]


def paste(box: Tensor, x: Tensor, start: Sequence[int]) -> None:
    """Fill a box (C, *size) with what lies there in x (C, X, Y, Z), and with background beyond its ends."""
    sides = list(zip(start, box.shape[1:], x.shape[1:], strict=True))
    if any(first < 0 or first + size > end for first, size, end in sides):
        box.fill_(BACKGROUND)
    if all(first < end and first + size > 0 for first, size, end in sides):
        u, v, w = (slice(max(-first, 0), min(end - first, size)) for first, size, end in sides)
        inner = box[:, u, v, w]
        u, v, w = (slice(max(first, 0), min(first + size, end)) for first, size, end in sides)
        inner.copy_(x[:, u, v, w])
        if x.dtype == torch.bool:
            inner.mul_(2).sub_(1)
