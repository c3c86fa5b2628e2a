"""Images moved by matrices, in a way whose gradient has a gradient under every torch that is supported."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["warped"]


def warped(x: Tensor, places: Tensor) -> Tensor:
    """Images seen from other places: what lies at p from the middle of the result lies at `places` · p in the image.

    Values between voxels are interpolated linearly; beyond the edge lies 0. Gradients reach x alone.

    Args:
        x: (N, C, *spatial).
        places: (N, axes + 1, axes + 1), homogeneous, voxels from the middle of the image, axes in the order of x.

    Example:
        >>> one_further = torch.eye(3)[None] + torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
        >>> warped(torch.tensor([[[[1.0, 2.0, 3.0]]]]), one_further).round(decimals=3).flatten().tolist()
        [2.0, 3.0, 0.0]
    """
    size = torch.tensor([*x.shape[2:], 2.0], device=x.device, dtype=places.dtype)  # shares of a side are half of 2
    shares = (places * size / size[:, None])[:, :-1]
    last_first = [*reversed(range(x.ndim - 2)), x.ndim - 2]  # grid_sample counts the last axis first
    shares = shares[:, last_first[:-1]][:, :, last_first]
    grid = F.affine_grid(shares, list(x.shape), align_corners=False)
    moved: Tensor = _Warp.apply(x, grid.to(x.dtype))  # type: ignore[no-untyped-call]
    return moved


class _Warp(torch.autograd.Function):
    """(N, C, *spatial) and (N, *spatial, axes) to (N, C, *spatial): linear in the first, so its own second derivative.

    Torch knows the gradient of the gradient of `grid_sample` since 2.12 alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        return F.grid_sample(x, grid, align_corners=False)

    @staticmethod
    def backward(ctx: Any, *towards: Tensor) -> tuple[Tensor, None]:
        return _WarpBack.apply(towards[0], *ctx.saved_tensors), None  # type: ignore[no-untyped-call]


class _WarpBack(torch.autograd.Function):
    """The transpose of `_Warp`."""

    @staticmethod
    def forward(ctx: Any, towards: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        with torch.enable_grad():
            x = torch.zeros_like(towards, requires_grad=True)
            [given] = torch.autograd.grad(F.grid_sample(x, grid, align_corners=False), x, towards)
        return given

    @staticmethod
    def backward(ctx: Any, *towards: Tensor) -> tuple[Tensor, None]:
        return _Warp.apply(towards[0], *ctx.saved_tensors), None  # type: ignore[no-untyped-call]
