"""Discriminators that judge patches: a map of logits, one for each receptive field."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from medgan.nets.layers import Layers, Net

__all__ = ["PatchGAN", "PixelGAN"]


class PatchGAN(Net):
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

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *spatial) to logits (N, out_channels, *smaller)."""
        self.require_size(x.shape[2:])
        y: Tensor = self.body(x)
        return y


class PixelGAN(Net):
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

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *spatial) to logits (N, out_channels, *spatial)."""
        self.require_size(x.shape[2:])
        y: Tensor = self.body(x)
        return y


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)
