"""The bricks of every net: one set for images (2-D) and volumes (3-D)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan.errors import InputError

__all__ = ["BlurDown", "InitName", "InstanceNorm", "Layers", "Net", "init_weights"]

InitName = Literal["normal", "xavier"]
_Maker = Callable[..., nn.Module]


class Net(nn.Module):
    """A net that knows which sizes it takes.

    Attributes:
        spatial_dims: 2 for (N, C, X, Y), 3 for (N, C, X, Y, Z).
        divisor: every spatial size is a multiple of it.
        smallest: the least spatial size along an axis, voxels.
    """

    def __init__(self, spatial_dims: int, *, divisor: int = 1, smallest: int = 1) -> None:
        super().__init__()
        self.spatial_dims, self.divisor, self.smallest = spatial_dims, divisor, smallest

    def require_size(self, size: Sequence[int]) -> None:
        """Refuse a spatial size (X, Y) or (X, Y, Z), voxels, that the net cannot take.

        Raises:
            InputError: naming the size and what would fit.
        """
        if len(size) == self.spatial_dims and all(n >= self.smallest and n % self.divisor == 0 for n in size):
            return
        seen = "×".join(str(int(n)) for n in size)
        multiples = f" and a multiple of {self.divisor}" if self.divisor > 1 else ""
        raise InputError(
            f"a patch of {seen} does not fit the net {type(self).__name__}: it takes {self.spatial_dims} axes, "
            f"each at least {self.smallest}{multiples}; pad, cut other patches or choose a shallower net"
        )


class InstanceNorm(nn.Module):
    """Brings every channel of every sample to mean 0 and variance 1; no weights, no running statistics.

    The same in training and evaluation. It stands in for `nn.InstanceNorm2d`, whose input gradient is wrong on a
    CPU at batch 1 when the gradient that arrives is channels_last (seen in torch 2.13); the batch norm of one
    sample is the same function, right in every layout, and faster.

    Source:
        Ulyanov, Vedaldi, Lempitsky 2016, "Instance Normalization", arXiv:1607.08022, §2.

    Example:
        >>> y = InstanceNorm()(torch.arange(8.0).reshape(1, 1, 2, 4))
        >>> round(float(y[0, 0, 0, 0]), 4)  # (0 − 3.5) / sqrt(5.25)
        -1.5275
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) to the same shape."""
        if len(x) == 1:
            return self._one(x)
        return torch.cat([self._one(sample) for sample in torch.split(x, 1)])

    def _one(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True, eps=self.eps)


class BlurDown(nn.Module):
    """Halves every size, odd ones rounded up: every second voxel after a blur by 1, 2, 1 along each axis.

    Edges are reflected. What is finer than the voxels that remain is averaged away instead of appearing as something
    else, so that an image moved by one voxel gives nearly the same features.

    Source:
        Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", arXiv:1904.11486, §3.2.

    Example:
        >>> BlurDown(2)(torch.eye(4)[None, None])[0, 0]
        tensor([[0.5000, 0.1250],
                [0.1250, 0.3750]])
    """

    kernel: Tensor

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        kernel = torch.ones(1, 1)
        for _ in range(spatial_dims):
            kernel = kernel[..., None] * torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", kernel, persistent=False)  # known, so no part of the weights

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial), at least two voxels along each axis, to (N, C, *halved)."""
        channels, spatial_dims = x.shape[1], x.ndim - 2
        padded = F.pad(x, [1] * 2 * spatial_dims, mode="reflect")
        each = self.kernel.to(x.dtype).expand(channels, *self.kernel.shape[1:])
        conv = F.conv2d if spatial_dims == 2 else F.conv3d
        return conv(padded, each, stride=2, groups=channels)


class _Conv3d(nn.Conv3d):
    """`nn.Conv3d`, also right in bfloat16 on a CPU where the input is shorter than the kernel.

    There torch 2.13 fills weight gradients from memory that nobody wrote. Padding by hand avoids it.
    """

    def forward(self, x: Tensor) -> Tensor:
        if all(size >= kernel for size, kernel in zip(x.shape[2:], self.kernel_size, strict=True)):
            return super().forward(x)
        margin = int(self.padding[0])
        return F.conv3d(F.pad(x, [margin] * 6), self.weight, self.bias, self.stride)


class _ConvUp3d(nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` that doubles sizes, also right in bfloat16 on a CPU where an axis is one voxel long.

    There the backward pass of torch 2.13 writes outside its memory and may kill the process. Cutting the margin off
    by hand, instead of by `padding`, avoids it.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if min(x.shape[2:]) > 1:
            return super().forward(x, output_size)
        whole = F.conv_transpose3d(x, self.weight, self.bias, self.stride)
        length, width, depth = (2 * size for size in x.shape[2:])
        return whole[:, :, 1 : 1 + length, 1 : 1 + width, 1 : 1 + depth]


_CONV: dict[int, _Maker] = {2: nn.Conv2d, 3: _Conv3d}
_UNPOOL: dict[int, _Maker] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_CONV_UP: dict[int, _Maker] = {2: nn.ConvTranspose2d, 3: _ConvUp3d}
_BATCH_NORM: dict[int, _Maker] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_REFLECT: dict[int, _Maker] = {2: nn.ReflectionPad2d, 3: nn.ReflectionPad3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Layers:
    """Makes the layers of a net for one number of spatial axes (2 or 3) and one norm ("batch" or "instance").

    Where `antialias` is set, sizes are halved and doubled by fixed blurs, beside convs that keep the size.
    """

    spatial_dims: int
    norm_name: str
    antialias: bool = False

    @property
    def bias(self) -> bool:
        """Whether a conv in front of a norm has a bias: batch norm brings its own."""
        return self.norm_name == "instance"

    def conv(self, ins: int, outs: int, kernel: int, *, stride: int = 1, padding: int = 0, bias: bool) -> nn.Module:
        """A convolution from `ins` to `outs` channels."""
        return _CONV[self.spatial_dims](ins, outs, kernel, stride, padding, bias=bias)

    def conv_up(self, ins: int, outs: int, kernel: int, *, bias: bool) -> nn.Module:
        """A transposed convolution that doubles every size: stride 2, padding 1."""
        extra = kernel % 2  # an odd kernel falls one voxel short of the double
        return _CONV_UP[self.spatial_dims](ins, outs, kernel, 2, 1, output_padding=extra, bias=bias)

    def blur_down(self) -> nn.Module:
        """Halves every size after a blur by 1, 2, 1."""
        return BlurDown(self.spatial_dims)

    def blur_up(self) -> nn.Module:
        """Doubles every size, blurred by 1, 3, 3, 1 with the edges repeated: which is linear interpolation."""
        return nn.Upsample(scale_factor=2, mode=_LINEAR[self.spatial_dims], align_corners=False)

    def unpool(self, ins: int, outs: int) -> nn.Module:
        """A transposed convolution that makes each voxel a block of two along every axis."""
        return _UNPOOL[self.spatial_dims](ins, outs, 2, 2, bias=self.bias)

    def norm(self, channels: int) -> nn.Module:
        """The norm of `channels` channels."""
        return InstanceNorm() if self.norm_name == "instance" else _BATCH_NORM[self.spatial_dims](channels)

    def reflect(self, padding: int) -> nn.Module:
        """Padding by reflection on all sides."""
        return _REFLECT[self.spatial_dims](padding)


def init_weights(net: nn.Module, generator: torch.Generator | None = None, *, how: InitName = "normal") -> None:
    """Draw the weights as published: convs N(0, 0.02), batch norm weights N(1, 0.02), biases 0.

    Args:
        net: changed in place.
        generator: the random numbers to use; torch's global ones if not given.
        how: `normal` as above; `xavier` draws what has inputs and outputs from N(0, 0.02 · √(2 / (fan in + fan out))).

    Source:
        Isola et al. 2017, arXiv:1611.07004, appendix 6.2; Zhu et al. 2017, arXiv:1703.10593, §7.1 ("Training details").
        Xavier: Glorot & Bengio 2010, eq. 16 for the normal distribution, times the gain of the reference
        implementation of CUT.
    """
    draw = partial(nn.init.normal_, std=0.02) if how == "normal" else partial(nn.init.xavier_normal_, gain=0.02)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim > 1:  # the weights of a conv have several axes, those of a norm one
            draw(parameter, generator=generator)
        else:
            nn.init.normal_(parameter, 1.0, 0.02, generator=generator)
