"""Discriminators that judge patches: a map of logits, one for each receptive field."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, overload

import torch.nn.functional as F
from torch import Tensor, nn

from medgan.nets.layers import Layers, Net

__all__ = ["Judge", "MultiScale", "PatchGAN", "PixelGAN", "Seen"]

Seen = list[list[Tensor]]  # by scale: the features of each layer, and at the end the logits


class Judge(Net):
    """A discriminator that can also tell what it saw on the way.

    Attributes:
        body: its layers.
        taps: the layers whose outputs are its features.
    """

    body: nn.Sequential
    taps: tuple[int, ...]

    @overload
    def forward(self, x: Tensor, *, features: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, *, features: Literal[True]) -> Seen: ...

    def forward(self, x: Tensor, *, features: bool = False) -> Tensor | Seen:
        """(N, in_channels, *spatial) to logits (N, out_channels, *smaller).

        With `features`, to [[what each layer makes of it, logits]].
        """
        self.require_size(x.shape[2:])
        if not features:
            y: Tensor = self.body(x)
            return y
        seen = []
        for place, layer in enumerate(self.body):
            x = layer(x)
            if place in self.taps:
                seen.append(x)
        return [[*seen, x]]


class PatchGAN(Judge):
    """Judges patches of 16, 34, 70, 142 or 286 voxels a side, for `num_layers` 1 to 5.

    `num_layers` convs 4 of stride 2, two of stride 1; LeakyReLU 0.2 after all but the last, norm between.
    No sigmoid: the map holds logits. 256² becomes 30² with three layers.

    Antialiased, convs of stride 1 stand in for those of stride 2 and a blur behind each halves the size; the patches
    are then 18, 40, 84, 172 or 348 voxels a side.

    Args:
        in_channels: channels of the images it judges, condition included.
        out_channels: channels of the map of logits, 1 as published.
        layers: number of spatial axes, norm, and whether it is antialiased.
        num_layers: how many convs halve the size; 3 is the published 70×70 PatchGAN.
        width: channels after the first conv (ndf); they double up to eight times that.

    Source:
        Isola et al. 2017, arXiv:1611.07004, §3.2.2 and appendix 6.1.2.
    """

    def __init__(
        self, in_channels: int, out_channels: int, layers: Layers, *, num_layers: int = 3, width: int = 64
    ) -> None:
        # Two convs 4 of stride 1 and padding 1 take away one voxel each.
        super().__init__(layers.spatial_dims, smallest=3 * 2**num_layers)
        widths = [width * min(2**layer, 8) for layer in range(num_layers + 1)]
        stride, blur = (1, [layers.blur_down()]) if layers.antialias else (2, [])
        body = [layers.conv(in_channels, width, 4, stride=stride, padding=1, bias=True), _leaky(), *blur]
        for ins, outs in pairwise(widths[:-1]):
            conv = layers.conv(ins, outs, 4, stride=stride, padding=1, bias=layers.bias)
            body += [conv, layers.norm(outs), _leaky(), *blur]
        ins, outs = widths[-2:]
        self.body = nn.Sequential(
            *body,
            *(layers.conv(ins, outs, 4, padding=1, bias=layers.bias), layers.norm(outs), _leaky()),
            layers.conv(widths[-1], out_channels, 4, padding=1, bias=True),
        )
        self.taps = _before_convs(self.body)


class PixelGAN(Judge):
    """Judges every voxel by itself: three convs of kernel 1.

    Args:
        in_channels: channels of the images it judges, condition included.
        out_channels: channels of the map of logits, 1 as published.
        layers: number of spatial axes and norm.
        width: channels after the first conv (ndf).

    Source:
        Isola et al. 2017, arXiv:1611.07004, §4.4 and appendix 6.1.2 (1×1 discriminator).
    """

    def __init__(self, in_channels: int, out_channels: int, layers: Layers, *, width: int = 64) -> None:
        super().__init__(layers.spatial_dims, smallest=2)  # one voxel has no variance to norm by
        self.body = nn.Sequential(
            *(layers.conv(in_channels, width, 1, bias=True), _leaky()),
            *(layers.conv(width, width * 2, 1, bias=layers.bias), layers.norm(width * 2)),
            _leaky(),
            layers.conv(width * 2, out_channels, 1, bias=layers.bias),
        )
        self.taps = _before_convs(self.body)


class MultiScale(Net):
    """Several discriminators of one kind: the first judges the image, each further one an image half as large.

    Sizes are halved, odd ones rounded up, by means over 3 voxels along each axis; what lies beyond the edge is not
    counted. So the last judge's patches cover 2 or 4 times as much of the patient a side.

    Args:
        judges: 2 or more, of one kind, for the full size first.

    Source:
        Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs",
        arXiv:1711.11585, §3.2; the halving is that of its reference implementation.
    """

    def __init__(self, judges: Sequence[Judge]) -> None:
        finest = judges[0]
        halvings = len(judges) - 1
        # Halves are rounded up, so one voxel more than the halved least size of the last judge is enough.
        super().__init__(finest.spatial_dims, smallest=(finest.smallest - 1) * 2**halvings + 1)
        self.judges = nn.ModuleList(judges)

    @overload
    def forward(self, x: Tensor, *, features: Literal[False] = False) -> list[Tensor]: ...

    @overload
    def forward(self, x: Tensor, *, features: Literal[True]) -> Seen: ...

    def forward(self, x: Tensor, *, features: bool = False) -> list[Tensor] | Seen:
        """(N, in_channels, *spatial) to the logits of each judge, the full size first.

        With `features`, for each judge to the list of what its layers make of it, and its logits.
        """
        self.require_size(x.shape[2:])
        seen: Seen = []
        for judge in self.judges:
            if seen:
                x = _halved(x)
            seen += judge(x, features=True)
        return seen if features else [logits for *_, logits in seen]


def _halved(x: Tensor) -> Tensor:
    pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
    return pool(x, 3, stride=2, padding=1, count_include_pad=False)


def _before_convs(body: nn.Sequential) -> tuple[int, ...]:
    """The layers that convs read from, the image aside: what stands behind each activation."""
    kernels = [any(p.ndim > 1 for p in layer.parameters()) for layer in body]
    return tuple(place - 1 for place, is_conv in enumerate(kernels) if is_conv and place)


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)
