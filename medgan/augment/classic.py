"""Classic augmentation: whole batches mirrored, turned, zoomed and shifted at random."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from medgan.settings import Settings

__all__ = ["Classic"]


class Classic(Settings):
    """Random changes of a batch, masks among the channels included; each image has its own.

    Args:
        flip_axes: axes (0 the first of the image) that are mirrored half of the time; leave out those along which the
            body is not symmetric.
        rotate_deg: largest rotation, in every plane.
        scale: largest zoom in or out, as a share.
        shift: largest shift, as a share of each side; what comes in repeats the border.
    """

    flip_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] = (0,)
    rotate_deg: float = Field(default=10, ge=0, le=180)
    scale: float = Field(default=0.1, ge=0, lt=1)
    shift: float = Field(default=0.08, ge=0, lt=1)

    def changed(self, x: Tensor, draw: torch.Generator) -> Tensor:
        """(N, C, X, Y[, Z]) images, changed.

        Args:
            x: images.
            draw: random numbers on the CPU.

        Example:
            >>> x = torch.arange(6.0).reshape(1, 1, 2, 3)
            >>> still = Classic(flip_axes=(), rotate_deg=0, scale=0, shift=0)
            >>> torch.allclose(still.changed(x, torch.Generator()), x)
            True
        """
        theta = self._matrices(x, draw).to(x.device)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

    def _matrices(self, x: Tensor, draw: torch.Generator) -> Tensor:
        """(N, D, D + 1) from places in the result to places in x, which run from −1 to 1, the last axis first."""
        count, dims = len(x), x.dim() - 2
        turn = torch.eye(dims).repeat(count, 1, 1)
        for plane in combinations(range(dims), 2):
            turn = turn @ _rotations(_even(draw, count) * math.radians(self.rotate_deg), plane, dims)
        zoom = 1 + self.scale * _even(draw, count, dims)
        mirror = torch.where(torch.rand(count, dims, generator=draw) < 0.5, -1.0, 1.0)
        mirror[:, [axis for axis in range(dims) if axis not in self.flip_axes]] = 1
        sides = torch.tensor(x.shape[2:], dtype=torch.float32)
        matrix = turn * (zoom * mirror)[:, None, :] * sides[None, None, :] / sides[None, :, None]
        shift = 2 * self.shift * _even(draw, count, dims)
        return torch.cat([matrix.flip(1, 2), shift.flip(1)[:, :, None]], dim=2)


def _even(draw: torch.Generator, *size: int) -> Tensor:
    """Even between −1 and 1."""
    return 2 * torch.rand(*size, generator=draw) - 1


def _rotations(angles: Tensor, plane: tuple[int, int], dims: int) -> Tensor:
    first, second = plane
    turn = torch.eye(dims).repeat(len(angles), 1, 1)
    turn[:, first, first] = turn[:, second, second] = torch.cos(angles)
    turn[:, first, second] = -torch.sin(angles)
    turn[:, second, first] = torch.sin(angles)
    return turn
