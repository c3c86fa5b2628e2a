"""The residual generator of CycleGAN and CUT."""

from __future__ import annotations

from collections.abc import Sequence
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
        layers: number of spatial axes, norm, padding of the halvings, how sizes are doubled, whether it is antialiased.
        num_blocks: 9 is `resnet_9blocks`, 6 is `resnet_6blocks`.
        width: channels at full size (ngf).
        dropout: whether the blocks drop half of their features between the two convs.
        recompute: whether its parts are computed again in the backward pass instead of being kept.

    Attributes:
        ends: the last layers of its parts: what leads to the blocks, each block, each doubling.
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
        recompute: bool = False,
    ) -> None:
        # Reflection by one voxel at a quarter of the size needs two voxels there.
        super().__init__(layers.spatial_dims, divisor=4, smallest=8, recompute=recompute)
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
        doubled = block + num_blocks + 2 + layers.resizes
        self.ends = (*range(block - 1, block + num_blocks), doubled, len(self.body) - 1)
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
        if taps is None:
            return self.at_any_size(lambda x: self._through(x, {len(self.body) - 1})[0], x)
        self.require_size(x.shape[2:])
        return self._through(x, {tap % len(self.body) for tap in taps})

    def _through(self, x: Tensor, places: set[int]) -> list[Tensor]:
        """The outputs of the layers at those places, part by part."""
        start, seen = 0, []
        for end in sorted({*places, *(end for end in self.ends if end < max(places))}):
            x = self.run(self.body[start : end + 1], x)
            start = end + 1
            if end in places:
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
    *resized, conv = layers.doubling(channels, channels // 2, 3, bias=layers.bias)
    return *resized, *_normed(conv, channels // 2, layers)
