"""The residual generator of CycleGAN and CUT."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import overload

from torch import Tensor, nn

from medgan.nets.layers import Layers, Net

__all__ = ["ResNet"]


class ResNet(Net):
    """Two halvings, `num_blocks` residual blocks at a quarter of the size, two doublings, tanh.

    Antialiased, it halves by a conv that keeps the size and a blur, and doubles by linear interpolation and a conv.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, in [-1, 1].
        layers: number of spatial axes, norm, and whether it is antialiased.
        num_blocks: 9 is `resnet_9blocks`, 6 is `resnet_6blocks`.
        width: channels at full size (ngf).
        dropout: whether the blocks drop half of their features between the two convs.

    Attributes:
        taps: the layers of `body` whose outputs CUT compares, with their channels: the padded input, the convs of
            the two halvings before their norm, the first and the fifth block.

    Source:
        Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
        arXiv:1703.10593, §7.2, after Johnson et al. 2016, arXiv:1603.08155. Taps and antialiasing: Park et al. 2020,
        arXiv:2007.15651, and its reference implementation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: Layers,
        *,
        num_blocks: int = 9,
        width: int = 64,
        dropout: bool = False,
    ) -> None:
        # Reflection by one voxel at a quarter of the size needs two voxels there.
        super().__init__(layers.spatial_dims, divisor=4, smallest=8)
        blocks = [_Block(width * 4, layers, dropout=dropout) for _ in range(num_blocks)]
        self.body = nn.Sequential(
            *(layers.reflect(3), *_normed(layers.conv(in_channels, width, 7, bias=layers.bias), width, layers)),
            *_halving(width, layers),
            *_halving(width * 2, layers),
            *blocks,
            *_doubling(width * 4, layers),
            *_doubling(width * 2, layers),
            *(layers.reflect(3), layers.conv(width, out_channels, 7, bias=True), nn.Tanh()),
        )

        first, second = 4, 4 + len(_halving(width, layers))
        block = 2 * second - first
        self.taps = {0: in_channels, first: width * 2, second: width * 4, block: width * 4, block + 4: width * 4}

    @overload
    def forward(self, x: Tensor) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, taps: Sequence[int]) -> list[Tensor]: ...

    def forward(self, x: Tensor, taps: Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """(N, in_channels, *spatial) to (N, out_channels, *spatial).

        With taps, to the outputs of those layers of the body, in its order, -1 for the image itself; layers behind
        the last tap do not run.
        """
        self.require_size(x.shape[2:])
        if taps is None:
            y: Tensor = self.body(x)
            return y
        places, seen = {tap % len(self.body) for tap in taps}, []
        for place, layer in enumerate(islice(self.body, max(places) + 1)):
            x = layer(x)
            if place in places:
                seen.append(x)
        return seen


class _Block(nn.Module):
    """x + conv(relu(conv(x))), each conv padded by reflection and normed; no activation after the sum."""

    def __init__(self, channels: int, layers: Layers, *, dropout: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(layers.reflect(1), *_normed(layers.conv(channels, channels, 3, bias=layers.bias), channels, layers)),
            *([nn.Dropout(0.5)] if dropout else []),
            *(layers.reflect(1), layers.conv(channels, channels, 3, bias=layers.bias), layers.norm(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


def _normed(conv: nn.Module, channels: int, layers: Layers) -> tuple[nn.Module, ...]:
    return conv, layers.norm(channels), nn.ReLU(inplace=True)


def _halving(channels: int, layers: Layers) -> tuple[nn.Module, ...]:
    if layers.antialias:
        conv = layers.conv(channels, channels * 2, 3, padding=1, bias=layers.bias)
        return *_normed(conv, channels * 2, layers), layers.blur_down()
    conv = layers.conv(channels, channels * 2, 3, stride=2, padding=1, bias=layers.bias)
    return _normed(conv, channels * 2, layers)


def _doubling(channels: int, layers: Layers) -> tuple[nn.Module, ...]:
    if layers.antialias:
        conv = layers.conv(channels, channels // 2, 3, padding=1, bias=layers.bias)
        return layers.blur_up(), *_normed(conv, channels // 2, layers)
    return _normed(layers.conv_up(channels, channels // 2, 3, bias=layers.bias), channels // 2, layers)
