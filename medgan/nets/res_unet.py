"""A U-Net with a residual encoder, after nnU-Net: what wins challenges where there are pairs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan.nets.layers import Layers, Net

__all__ = ["ResUNet"]

BLOCKS = (1, 3, 4, 6, 6, 6)
WIDEST = 10  # times the width of the first stage: 320 from 32


class ResUNet(Net):
    """Residual blocks that halve the image stage by stage, and one conv a stage on the way back up.

    Stage i has width·min(2^i, 10) channels and 1, 3, 4, 6, 6, 6 blocks. Doublings are transposed convs 2 stride 2. The
    output is a plain conv; in evaluation it is cut to [-1, 1], in training not, so that what lies at the ends of the
    range keeps its gradient.

    Antialiased, the first conv of a block that halves keeps the size, and a blur behind its activation halves it, as
    one does around the block in place of means of two voxels. Doublings are linear interpolation and a conv 3.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        layers: number of spatial axes, norm, padding, how sizes are doubled, whether it is antialiased.
        num_downs: 5 is `res_unet_32`, 4 is `res_unet_16`.
        width: channels of the first stage.
        dropout: whether blocks drop half of their features between the two convs.
        recompute: whether blocks are computed again in the backward pass instead of being kept.

    Source:
        Isensee et al. 2024, "nnU-Net Revisited", arXiv:2404.09556, §2 (ResEnc presets); He et al. 2016,
        arXiv:1512.03385, for the blocks. Norms have no weights of their own here where they are instance norms.
        Antialiasing: Zhang 2019, arXiv:1904.11486, §3.2, at the places of its reference implementation's ResNets.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: Layers,
        *,
        num_downs: int = 5,
        width: int = 32,
        dropout: bool = False,
        recompute: bool = False,
    ) -> None:
        # Reflection by one voxel needs two voxels below.
        smallest = 2 ** (num_downs + (layers.padding == "reflect"))
        super().__init__(
            layers.spatial_dims, divisor=2**num_downs, smallest=smallest, norms_below=True, recompute=recompute
        )
        widths = [width * min(2**stage, WIDEST) for stage in range(num_downs + 1)]
        self.stem = nn.Sequential(*_normed(layers, in_channels, width), nn.LeakyReLU(0.01))
        self.stages = nn.ModuleList(
            _stage(layers, max(stage - 1, 0), stage, widths, dropout=dropout) for stage in range(num_downs + 1)
        )
        self.ups = nn.ModuleList(layers.unpool(below, above) for above, below in reversed(list(pairwise(widths))))
        self.merges = nn.ModuleList(
            nn.Sequential(*_normed(layers, 2 * above, above), nn.LeakyReLU(0.01)) for above in reversed(widths[:-1])
        )
        self.head = layers.conv(width, out_channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *spatial) to (N, out_channels, *spatial)."""
        y = self.at_any_size(self._all_stages, x)
        return y if self.training else y.clamp(-1, 1)

    def _all_stages(self, x: Tensor) -> Tensor:
        x = self.run(self.stem, x)
        features = []
        for stage in self.stages:
            for block in cast(Iterable[nn.Module], stage):
                x = self.run(block, x)
            features.append(x)
        x = features.pop()
        for up, merge, skip in zip(self.ups, self.merges, reversed(features), strict=True):
            x = self.run(_Merging(up, merge), x, skip)
        y: Tensor = self.head(x)
        return y


class _Merging(nn.Module):
    def __init__(self, up: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.up, self.merge = up, merge

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.merge(torch.cat([self.up(x), skip], 1))
        return y


class _Block(nn.Module):
    """conv, norm, act, conv, norm; the input is added, halved and widened where that is needed; act."""

    def __init__(self, layers: Layers, ins: int, outs: int, *, halves: bool, dropout: bool) -> None:
        super().__init__()
        blurs = halves and layers.antialias
        self.body = nn.Sequential(
            *_normed(layers, ins, outs, stride=2 if halves and not blurs else 1),
            nn.LeakyReLU(0.01),
            *([layers.blur_down()] if blurs else []),
            *([nn.Dropout(0.5)] if dropout else []),
            *_normed(layers, outs, outs),
        )
        self.halve = layers.pool() if halves else nn.Identity()
        self.widen = nn.Sequential(*_normed(layers, ins, outs, kernel=1)) if ins != outs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        halved = self.halve(x)  # first: the order of a forward pass decides the last digits of the gradients
        y: Tensor = F.leaky_relu(self.body(x) + self.widen(halved), 0.01)
        return y


def _stage(layers: Layers, before: int, stage: int, widths: list[int], *, dropout: bool) -> nn.Sequential:
    num_blocks = BLOCKS[min(stage, len(BLOCKS) - 1)]
    ins = [widths[before], *[widths[stage]] * (num_blocks - 1)]
    halves = [stage > 0, *[False] * (num_blocks - 1)]
    return nn.Sequential(
        *(_Block(layers, i, widths[stage], halves=h, dropout=dropout) for i, h in zip(ins, halves, strict=True))
    )


def _normed(layers: Layers, ins: int, outs: int, *, kernel: int = 3, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = layers.conv(ins, outs, kernel, stride=stride, padding=kernel // 2, bias=layers.bias)
    return conv, layers.norm(outs)
