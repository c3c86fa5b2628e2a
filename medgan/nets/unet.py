"""The U-Net generator of pix2pix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medgan.nets.layers import Layers, Net

__all__ = ["UNet"]


class UNet(Net):
    """Halves the image `num_downs` times, down to one voxel where the size is 2^num_downs, and builds it up again.

    Level i has width·min(2^i, 8) channels. Encoder: LeakyReLU 0.2, conv 4 stride 2, norm; the outermost level is the
    conv alone, the innermost has no norm. Decoder, on the encoder's features and those from below: ReLU, transposed
    conv 4 stride 2, norm; the last one ends in tanh. Dropout 0.5 sits in the inner levels of full width.

    Antialiased, a level of the encoder is conv 3, norm, the activation that would begin what comes next, and a blur
    that halves the size. Skips carry what comes out of the blur. Kernels are of 3 since those of 4 keep no size; with
    the blur behind, a voxel sees 5 of the map above along each axis. The innermost blur takes two voxels to their mean.
    The decoder interpolates and convolves by 3, as that of antialiased resnets does.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, in [-1, 1].
        layers: number of spatial axes, norm, padding, how sizes are doubled, whether it is antialiased.
        num_downs: 8 is `unet_256`, 7 is `unet_128`.
        width: channels of the outermost level (ngf).
        dropout: whether the inner levels drop half of their features.

    Source:
        Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks", arXiv:1611.07004,
        §3.2.1 and appendix 6.1.1. Antialiasing: Zhang 2019, arXiv:1904.11486, §3.2 (a strided conv and its ReLU become
        a conv, the ReLU and a blur).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: Layers,
        *,
        num_downs: int = 8,
        width: int = 64,
        dropout: bool = False,
    ) -> None:
        super().__init__(layers.spatial_dims, divisor=2**num_downs, smallest=2**num_downs)
        widths = [width * min(2**level, 8) for level in range(num_downs)]
        inner = num_downs - 1
        down = _blurred_down if layers.antialias else _down
        self.downs = nn.ModuleList(down(level, [in_channels, *widths], layers) for level in range(num_downs))
        self.ups = nn.ModuleList(
            _up(level, [out_channels, *widths], layers, dropout=dropout and 4 <= level < inner)
            for level in reversed(range(num_downs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *spatial) to (N, out_channels, *spatial)."""
        return self.at_any_size(self._all_levels, x)

    def _all_levels(self, x: Tensor) -> Tensor:
        features = []
        for down in self.downs:
            x = down(x)
            features.append(x)
        x = self.ups[0](features.pop())
        for up, skip in zip(self.ups[1:], reversed(features), strict=True):
            x = up(torch.cat([skip, x], 1))
        return x


def _down(level: int, widths: list[int], layers: Layers) -> nn.Sequential:
    inner = len(widths) - 2
    conv = layers.conv(widths[level], widths[level + 1], 4, stride=2, padding=1, bias=layers.bias)
    if level == 0:
        return nn.Sequential(conv)
    # In place: the skip then carries activated features, and the ReLU of the decoder makes the same of both.
    act = nn.LeakyReLU(0.2, inplace=True)
    return nn.Sequential(act, conv) if level == inner else nn.Sequential(act, conv, layers.norm(widths[level + 1]))


def _blurred_down(level: int, widths: list[int], layers: Layers) -> nn.Sequential:
    inner, outs = len(widths) - 2, widths[level + 1]
    conv = layers.conv(widths[level], outs, 3, padding=1, bias=layers.bias)
    norm = [] if level in {0, inner} else [layers.norm(outs)]
    act = nn.ReLU(inplace=True) if level == inner else nn.LeakyReLU(0.2, inplace=True)
    return nn.Sequential(conv, *norm, act, layers.blur_down())


def _up(level: int, widths: list[int], layers: Layers, *, dropout: bool) -> nn.Sequential:
    inner = len(widths) - 2
    ins, outs = widths[level + 1] * (1 if level == inner else 2), widths[level]
    act = nn.ReLU(inplace=True)
    if level == 0:
        return nn.Sequential(act, *layers.doubling(ins, outs, 4, bias=True), nn.Tanh())
    block = nn.Sequential(act, *layers.doubling(ins, outs, 4, bias=layers.bias), layers.norm(outs))
    return block.append(nn.Dropout(0.5)) if dropout else block
