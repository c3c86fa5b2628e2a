"""Random changes of training patches: mirrored, turned, zoomed, and the source tinted.

The draws and the arithmetic are those of MONAI's `RandFlip`, `RandAffine`, `RandAdjustContrast` and
`RandGaussianNoise`, number by number (`tests/test_jitter.py` compares every bit), without the metadata that those carry
from step to step, which takes longer than the change itself.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from medgan.settings import Settings

__all__ = ["Augment", "Move", "Size", "Tint", "crop_size"]

Size = tuple[int, int, int]
HALF = 0.5  # how often a patch is mirrored, its contrast changed, or noise added
TINY = 1e-7
_OF_THREAD = threading.local()  # a generator, seeded before each use: making one takes longer than most changes


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


def crop_size(patch: Size, augment: Augment, flat: int | None) -> Size:
    """Voxels to cut for a patch: so many that it still lies inside when turned and shrunk."""
    angle = math.radians(min(augment.rotate_deg, 45))
    turned = (math.cos(angle) + math.sin(angle)) * (1 + augment.scale)
    in_plane = (0, 1) if flat is None else tuple(axis for axis in range(3) if axis != flat)
    grow = [turned if axis in in_plane else 1 if axis == flat else 1 + augment.scale for axis in range(3)]
    x, y, z = (math.ceil(size * factor) for size, factor in zip(patch, grow, strict=True))
    return x, y, z


class Move:
    """Mirrors, turns and zooms all channels of a patch alike.

    Args:
        patch: size of the result.
        augment: how much.
        flat: the axis along which it is one voxel thick, if any.
    """

    def __init__(self, patch: Size, augment: Augment, flat: int | None) -> None:
        axes = [axis for axis in range(3) if axis != flat]
        self.flips = [1 + axes.index(axis) for axis in augment.flip_axes if axis in axes]
        self.turns = augment.rotate_deg > 0 or augment.scale > 0
        angle = math.radians(augment.rotate_deg)
        # In 3-D only about the long axis of the patient: slices are thick, and a tilt would mix their spacing.
        self.angles = (angle,) if flat is not None else (0.0, 0.0, angle)
        self.scale, self.size = augment.scale, tuple(patch[axis] for axis in axes)
        self.places = _places(self.size)

    def __call__(self, x: Tensor, seed: int) -> Tensor:
        """(C, *crop) in [-1, 1] to (C, *patch) in [-1, 1]; x itself if nothing changes."""
        if not self.flips and not self.turns:
            return x
        draw, seeds = _seeded(seed, len(self.flips) + self.turns)
        for axis, own in zip(self.flips, seeds, strict=False):
            draw.seed(own)
            x = x.flip(axis) if draw.rand() < HALF else x
        if self.turns:
            draw.seed(seeds[-1])
            self._matrix(draw)  # MONAI draws twice and takes the second
            x = self._turned(x, self._matrix(draw))
        return x

    def _matrix(self, draw: np.random.RandomState) -> Tensor:
        """From places in the result to places in the crop, both from their middles, homogeneous."""
        angles = [draw.uniform(-most, most) for most in self.angles]
        scales = [draw.uniform(-self.scale, self.scale) + 1.0 for _ in self.size]
        turn, angle = torch.eye(len(scales) + 1), torch.as_tensor(angles[-1], dtype=torch.float32)
        turn[0, 0] = turn[1, 1] = torch.cos(angle)
        turn[1, 0] = torch.sin(angle)
        turn[0, 1] = -turn[1, 0]
        return turn @ torch.diag(torch.as_tensor([*scales, 1.0]))

    def _turned(self, x: Tensor, matrix: Tensor) -> Tensor:
        places = (matrix @ self.places)[: len(self.size)].flip(0).double()  # grid_sample counts axes from the last
        places *= torch.tensor([2.0 / max(2, side) for side in reversed(x.shape[1:])], dtype=torch.double)[:, None]
        grid = places.view(-1, *self.size).movedim(0, -1)[None]
        turned = F.grid_sample(x.double()[None], grid, padding_mode="border", align_corners=False)[0].float()
        return turned.clamp_(-1, 1)


class Tint:
    """Changes the contrast of a source, and adds noise."""

    def __init__(self, augment: Augment) -> None:
        self.gamma, self.noise = augment.gamma, augment.noise
        self.changes = [*([self._bent] if self.gamma else []), *([self._noisy] if self.noise else [])]

    def __call__(self, x: Tensor, seed: int) -> Tensor:
        """Values in [-1, 1] of any shape, x itself if nothing changes."""
        if not self.changes:
            return x
        changed = x
        draw, seeds = _seeded(seed, len(self.changes))
        for change, own in zip(self.changes, seeds, strict=True):
            draw.seed(own)
            changed = change(changed, draw) if draw.rand() < HALF else changed
        return changed if changed is x else changed.clamp_(-1, 1)

    def _bent(self, x: Tensor, draw: np.random.RandomState) -> Tensor:
        low, power = x.min(), draw.uniform(1 - self.gamma, 1 + self.gamma)
        span = x.max() - low
        return ((x - low) / float(span + TINY)) ** power * span + low

    def _noisy(self, x: Tensor, draw: np.random.RandomState) -> Tensor:
        noise = draw.normal(0.0, draw.uniform(0, self.noise), size=x.shape)
        return x + torch.from_numpy(noise.astype(np.float32))


def _seeded(seed: int, count: int) -> tuple[np.random.RandomState, list[int]]:
    """A generator to be seeded anew for each change, and the seeds."""
    if not hasattr(_OF_THREAD, "draw"):
        _OF_THREAD.draw = np.random.RandomState()
    draw: np.random.RandomState = _OF_THREAD.draw
    draw.seed(seed)
    return draw, [int(draw.randint(2**32, dtype="uint32")) for _ in range(count)]


def _places(size: Sequence[int]) -> Tensor:
    """(axes + 1, voxels): where the voxels lie from the middle, homogeneous."""
    ranges = [torch.arange(side) - (side - 1) / 2 for side in size]
    grid = torch.meshgrid(*ranges, indexing="ij")
    return torch.stack([*grid, torch.ones_like(grid[0])]).flatten(1)
