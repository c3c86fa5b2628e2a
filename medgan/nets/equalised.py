"""The bricks of StyleGAN2: weights of one learning rate, convolutions that a style steers, and blurs between sizes.

Images and volumes by one code. Activations are leaky rectifiers times √2. As max(x, 0.2 x) scales with x, the √2 stands
in the weights and biases in front of it and costs no pass of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "EqualConv",
    "EqualLinear",
    "ModulatedConv",
    "blurred_down",
    "conv_same",
    "doubled",
    "leaky",
    "neighbours_summed",
    "precise",
    "shrinking",
    "to_unit_size",
    "widths_of",
]

GAIN = math.sqrt(2)  # what a leaky rectifier takes away of the size of its input, about
SLOPE = 0.2
COARSEST = 4  # voxels along the longest side that a map has at least
EPSILON = 1e-8
_SHARE = 1 / 8  # 1 / (1 + 3 + 3 + 1)


class EqualLinear(nn.Linear):
    """A fully connected layer whose weights are drawn from N(0, 1) and scaled at work.

    So Adam, whose steps are of one size, changes all layers at one relative rate.

    Args:
        ins: entries of the input.
        outs: entries of the output.
        bias: whether there is one.
        bias_init: where it starts.
        lr_multiplier: how fast it learns against other layers.
        gain: of the output.

    Source:
        Karras et al. 2018, "Progressive Growing of GANs", arXiv:1710.10196, §4.1.
    """

    def __init__(
        self,
        ins: int,
        outs: int,
        *,
        bias: bool = True,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__(ins, outs, bias=bias)
        self.weight_scale, self.bias_scale = gain * lr_multiplier / math.sqrt(ins), gain * lr_multiplier
        nn.init.normal_(self.weight, std=1 / lr_multiplier)
        if bias:
            nn.init.constant_(self.bias, bias_init / lr_multiplier)

    def forward(self, x: Tensor) -> Tensor:
        """(N, ins) to (N, outs)."""
        bias = None if self.bias is None else self.bias * self.bias_scale
        return F.linear(x, self.weight * self.weight_scale, bias)


class EqualConv(nn.Module):
    """A convolution that keeps every size, or halves it after a blur by 1, 3, 3, 1; weights as in `EqualLinear`.

    Args:
        ins: channels of the input.
        outs: channels of the output.
        kernel: 1 or 3.
        spatial_dims: 2 or 3.
        down: whether it halves every size, odd ones rounded up.
        bias: whether there is one.
        gain: of the output.

    Source:
        Karras et al. 2020, arXiv:1912.04958, §4.1 (discriminator); blur: Zhang 2019, arXiv:1904.11486.
    """

    def __init__(
        self, ins: int, outs: int, kernel: int, spatial_dims: int, *, down: bool = False, bias: bool = True, gain: float
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outs, ins, *[kernel] * spatial_dims))
        self.bias = nn.Parameter(torch.zeros(outs)) if bias else None
        self.down, self.gain = down, gain
        self.scale = gain / math.sqrt(ins * kernel**spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(N, ins, *spatial) to (N, outs, *spatial) or (N, outs, *halved)."""
        weight, bias = self.weight * self.scale, None if self.bias is None else self.bias * self.gain
        if not self.down:
            return conv_same(x, weight, bias)
        if weight.shape[-1] == 1:
            return conv_same(blurred_down(x), weight, bias)
        conv = F.conv2d if x.ndim == 4 else F.conv3d
        return conv(_blurred(x, 2), weight, bias, stride=2)


class ModulatedConv(nn.Module):
    """A convolution whose input channels a style scales; demodulated, its outputs keep variance 1 under any style.

    Published as a convolution with other weights for each sample: w″ = s w / √(Σ (s w)²). Here s scales the input and
    the root the output: the same numbers, by one convolution for the whole batch.

    Args:
        ins: channels of the input.
        outs: channels of the output.
        kernel: 1 or 3.
        style_size: entries of a style.
        spatial_dims: 2 or 3.
        up: whether it doubles every size: by a transposed convolution, blurred by 1, 3, 3, 1.
        demodulate: whether the outputs are scaled back.
        gain: of the output.

    Source:
        Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, eq. 1 to 3.
    """

    def __init__(
        self,
        ins: int,
        outs: int,
        kernel: int,
        style_size: int,
        spatial_dims: int,
        *,
        up: bool = False,
        demodulate: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outs, ins, *[kernel] * spatial_dims))
        self.to_scales = EqualLinear(style_size, ins, bias_init=1.0)
        self.up, self.demodulate, self.gain = up, demodulate, gain
        self.scale = 1 / math.sqrt(ins * kernel**spatial_dims)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(N, ins, *spatial) and (N, style_size) to (N, outs, *spatial) or (N, outs, *doubled)."""
        scales, weight = self.to_scales(style), self.weight * self.scale
        if not self.demodulate:
            return conv_same(x * _upright(scales * self.gain, x.ndim), weight)
        x = x * _upright(scales, x.ndim)
        y = _conv_doubled(x, weight) if self.up else conv_same(x, weight)
        return y * _upright(self._back(scales, weight).to(y.dtype), x.ndim)

    def _back(self, scales: Tensor, weight: Tensor) -> Tensor:
        """What each output channel is to be multiplied by, (N, outs): in float32, as squares are summed."""
        with torch.autocast(scales.device.type, enabled=False):
            strengths = precise(weight).square().flatten(2).sum(2)
            return self.gain * (F.linear(precise(scales).square(), strengths) + EPSILON).rsqrt()


def shrinking(size: Sequence[int]) -> list[tuple[int, ...]]:
    """The sizes between an image and its coarsest map, the image first; each is half of the one before, rounded up.

    The longest side ends at 4 to 7 voxels. A short one may end at 1.

    Example:
        >>> shrinking((20, 9))
        [(20, 9), (10, 5), (5, 3)]
    """
    sizes = [tuple(size)]
    while max(sizes[-1]) >= 2 * COARSEST:
        sizes.append(tuple(-(-n // 2) for n in sizes[-1]))
    return sizes


def widths_of(num_sizes: int, width: int, max_width: int) -> list[int]:
    """Channels at each of those sizes, the image's own first: doubled with every halving, up to `max_width`.

    Example:
        >>> widths_of(4, 32, 128)
        [32, 64, 128, 128]
    """
    return [min(width * 2**halving, max_width) for halving in range(num_sizes)]


def leaky(x: Tensor) -> Tensor:
    """The leaky rectifier of slope 0.2."""
    return F.leaky_relu(x, SLOPE)


def precise(x: Tensor) -> Tensor:
    """x in float32 or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def to_unit_size(x: Tensor) -> Tensor:
    """Rows of (N, D), each scaled to a mean square of 1, in float32 or better."""
    x = precise(x)
    return x * (x.square().mean(1, keepdim=True) + EPSILON).rsqrt()


def blurred_down(x: Tensor) -> Tensor:
    """(N, C, *spatial) blurred by 1, 3, 3, 1 and halved, odd sizes rounded up; zeros beyond the edge.

    Example:
        >>> blurred_down(torch.ones(1, 1, 4, 4))[0, 0, 1, 1].item() == (7 / 8) ** 2
        True
    """
    x = neighbours_summed(_padded(x * _SHARE ** (x.ndim - 2), 1), 2)
    for axis in range(2, x.ndim):
        x = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :]).sum(axis + 1)
    return x


def conv_same(x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """The convolution of an odd kernel that keeps every size.

    Args:
        x: (N, I, *spatial).
        weight: (O, I / groups, *kernel).
        bias: (O,) or None.
        groups: parts of the channels that do not see each other.
    """
    margin = weight.shape[-1] // 2
    if x.ndim == 4:
        return F.conv2d(x, weight, bias, padding=margin, groups=groups)
    if min(x.shape[2:]) >= weight.shape[-1]:
        return F.conv3d(x, weight, bias, padding=margin, groups=groups)
    # torch 2.13 on a CPU fills weight gradients in bfloat16 with anything where it pads maps shorter than the kernel
    return F.conv3d(F.pad(x, [margin] * 6), weight, bias, groups=groups)


def doubled(x: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, *spatial) doubled by linear interpolation, edges repeated, and cut to `size`, odd ones at their far end.

    Example:
        >>> doubled(torch.tensor([[[[0.0, 4.0]]]]), (1, 4)).flatten().tolist()
        [0.0, 1.0, 3.0, 4.0]
    """
    for axis, n in enumerate(size, start=2):
        last = x.shape[axis] - 1
        before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, last)], axis)
        behind = torch.cat([x.narrow(axis, 1, last), x.narrow(axis, last, 1)], axis)
        pairs = torch.stack([x.lerp(before, 0.25), x.lerp(behind, 0.25)], axis + 1)
        x = pairs.flatten(axis, axis + 1).narrow(axis, 0, n)
    return x


def _blurred(x: Tensor, margin: int) -> Tensor:
    """The mean by 1, 3, 3, 1 of what `_padded` gives, three voxels shorter."""
    return neighbours_summed(_padded(x * _SHARE ** (x.ndim - 2), margin), 3)


def neighbours_summed(x: Tensor, times: int) -> Tensor:
    """(N, C, *spatial) summed by 1, 1 along each axis, some times, each time one voxel shorter.

    Three times that is 1, 3, 3, 1, four times 1, 4, 6, 4, 1; in 3-D on a CPU it takes a fifth of what a convolution
    takes there and back.

    Example:
        >>> neighbours_summed(torch.tensor([[[[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]]]), 1).flatten().tolist()
        [1.0, 2.0]
    """
    summed: Tensor = _Summed.apply(x, times)  # type: ignore[no-untyped-call]
    return summed


class _Summed(torch.autograd.Function):
    """Its transpose is the same of a map with zeros around it: one pass, where torch would fill a map for each sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, times: int) -> Tensor:
        ctx.times = times
        for axis in range(2, x.ndim):
            for _ in range(times):
                x = x.narrow(axis, 0, x.shape[axis] - 1) + x.narrow(axis, 1, x.shape[axis] - 1)
        return x

    @staticmethod
    def backward(ctx: Any, *towards: Tensor) -> tuple[Tensor, None]:
        around = F.pad(towards[0], [ctx.times] * 2 * (towards[0].ndim - 2))
        return _Summed.apply(around, ctx.times), None  # type: ignore[no-untyped-call]


def _padded(x: Tensor, margin: int) -> Tensor:
    """Zeros on every side, one more behind odd sizes."""
    return F.pad(x, [side for n in reversed(x.shape[2:]) for side in (margin, margin + n % 2)])


def _conv_doubled(x: Tensor, weight: Tensor) -> Tensor:
    """The transposed convolution of stride 2, 2 n + 1 voxels of n, blurred to 2 n; of the gain of a convolution."""
    transposed = F.conv_transpose2d if x.ndim == 4 else F.conv_transpose3d
    y = transposed(x, weight.transpose(0, 1) * (2 * _SHARE) ** (x.ndim - 2), stride=2)
    return neighbours_summed(F.pad(y, [1] * 2 * (x.ndim - 2)), 3)


def _upright(values: Tensor, ndim: int) -> Tensor:
    """(N, C) or (C,) to (N, C, 1, …): beside maps of that many axes."""
    return values[(...,) + (None,) * (ndim - 2)]
