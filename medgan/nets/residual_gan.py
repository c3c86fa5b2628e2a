"""A residual generator and discriminator without norms, noise or styles (R3GAN), for images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from medgan.errors import InputError
from medgan.nets.dcgan import Critic
from medgan.nets.equalised import blurred_down, conv_same, doubled, leaky, shrinking, widths_of
from medgan.nets.layers import Net

__all__ = ["ResidualDiscriminator", "ResidualGenerator"]

EXPANSION = 2  # channels inside a block, against those outside
GROUP_WIDTH = 16  # channels that a grouped convolution sees together
GAIN = math.sqrt(2 / (1 + 0.2**2))  # He et al. 2015, for a slope of 0.2


class ResidualGenerator(Net):
    """Random numbers scale the channels of a learnt coarse map, which residual blocks draw on and double to an image.

    No tanh: the image learns to stay in [-1, 1] as real images do, and who samples clamps it. Where a map doubled is
    one voxel too long, as halves were rounded up, its last is cut off.

    Args:
        latent_size: random numbers that an image is made of.
        channels: of the image.
        size: of the image, (X, Y) or (X, Y, Z); it is halved until its longest side has 4 to 7 voxels.
        condition_size: entries of a condition, embedded without bias behind the random numbers; 0 for none.
        width: channels at full size; they double with every halving.
        max_width: most channels.
        blocks: residual blocks at each size, 2 as published.

    Source:
        Huang et al. 2024, "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, §3:
        bottlenecks of convs 1, 3 (grouped) and 1, linear resampling, the initialisation of Zhang, Dauphin, Ma 2019,
        arXiv:1901.09321.
    """

    keeps_own_weights = True

    def __init__(
        self,
        latent_size: int,
        channels: int,
        size: Sequence[int],
        *,
        condition_size: int = 0,
        width: int = 32,
        max_width: int = 512,
        blocks: int = 1,
    ) -> None:
        super().__init__(len(size))
        axes, self.sizes = len(size), shrinking(size)[::-1]
        widths = widths_of(len(self.sizes), width, max_width)[::-1]
        self.embedding = nn.Linear(condition_size, latent_size, bias=False) if condition_size else None
        self.scales = nn.Linear(latent_size * (1 + bool(condition_size)), widths[0])
        self.coarse = nn.Parameter(torch.randn(1, widths[0], *self.sizes[0]))
        self.stages = nn.ModuleList(_blocks(outs, axes, blocks, len(widths)) for outs in widths)
        self.widen = nn.ModuleList(_Conv(ins, outs, 1, axes, bias=False) for ins, outs in pairwise(widths))
        self.to_image = _Conv(widths[-1], channels, 1, axes)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, latent_size) and (N, condition_size) or nothing to (N, C, *size).

        Raises:
            InputError: where the net was built for conditions and there is none.
        """
        if self.embedding is not None:
            if condition is None:
                needed = self.embedding.in_features
                raise InputError(f"this generator was built for conditions of {needed} entries; seen none")
            z = torch.cat([z, self.embedding(condition)], dim=1)
        scales: Tensor = self.scales(z)
        x: Tensor = self.stages[0](self.coarse * scales.view(*scales.shape, *[1] * self.spatial_dims))
        for size, widen, stage in zip(self.sizes[1:], self.widen, self.stages[1:], strict=True):
            x = stage(doubled(widen(x), size))
        image: Tensor = self.to_image(x)
        return image


class ResidualDiscriminator(Critic):
    """The generator the other way round: blocks that halve an image, and a learnt map that weighs each coarse channel.

    Args:
        channels: of the images.
        size: of the images, (X, Y) or (X, Y, Z).
        condition_size: entries of a condition, which is projected; 0 for none.
        width: channels at full size; they double with every halving.
        max_width: most channels.
        blocks: residual blocks at each size.

    Source:
        As `ResidualGenerator`.
    """

    keeps_own_weights = True

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        *,
        condition_size: int = 0,
        width: int = 32,
        max_width: int = 512,
        blocks: int = 1,
    ) -> None:
        axes, sizes = len(size), shrinking(size)
        widths = widths_of(len(sizes), width, max_width)
        super().__init__(size, widths[-1], condition_size)
        self.from_image = _Conv(channels, widths[0], 1, axes)
        self.stages = nn.ModuleList(_blocks(outs, axes, blocks, len(widths)) for outs in widths)
        self.widen = nn.ModuleList(_Conv(ins, outs, 1, axes, bias=False) for ins, outs in pairwise(widths))
        self.weights = nn.Parameter(torch.randn(1, widths[-1], *sizes[-1]) / math.sqrt(math.prod(sizes[-1])))

    def features(self, x: Tensor) -> Tensor:
        """(N, C, *size) to (N, num_features)."""
        x = self.stages[0](self.from_image(x))
        for widen, stage in zip(self.widen, self.stages[1:], strict=True):
            x = stage(widen(blurred_down(x)))
        return (x * self.weights).flatten(2).sum(2)


class _Block(nn.Module):
    """x + conv 1 of what a grouped conv 3 makes of a conv 1 of x; it begins as x."""

    def __init__(self, width: int, axes: int, shrink: float) -> None:
        super().__init__()
        inner = width * EXPANSION
        groups = inner // GROUP_WIDTH if inner % GROUP_WIDTH == 0 else 1
        self.first = _Conv(width, inner, 1, axes, gain=GAIN * shrink)
        self.second = _Conv(inner, inner, 3, axes, groups=groups, gain=GAIN * shrink)
        self.third = _Conv(inner, width, 1, axes, bias=False, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.third(leaky(self.second(leaky(self.first(x)))))
        return x + y


class _Conv(nn.Module):
    """A convolution that keeps every size, of weights N(0, gain² / fan in) and biases 0."""

    def __init__(
        self, ins: int, outs: int, kernel: int, axes: int, *, groups: int = 1, bias: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        fan_in = ins // groups * kernel**axes
        self.weight = nn.Parameter(torch.randn(outs, ins // groups, *[kernel] * axes) * gain / math.sqrt(fan_in))
        self.bias = nn.Parameter(torch.zeros(outs)) if bias else None
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return conv_same(x, self.weight, self.bias, self.groups)


def _blocks(width: int, axes: int, blocks: int, num_sizes: int) -> nn.Sequential:
    """The deeper the net, the smaller its blocks start: by L^(−1 / 4) for L blocks of three convs."""
    shrink = (blocks * num_sizes) ** -0.25
    return nn.Sequential(*(_Block(width, axes, shrink) for _ in range(blocks)))
