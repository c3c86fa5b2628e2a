"""The bricks of every net: one set for images (2-D) and volumes (3-D)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from medgan.errors import InputError
from medgan.nets.convs import Conv2d, Conv3d, ConvUp2d, ConvUp3d

__all__ = [
    "BlurDown",
    "InitName",
    "InstanceNorm",
    "Layers",
    "Net",
    "PaddingName",
    "UpsampleName",
    "init_weights",
    "statistics_kept",
]

InitName = Literal["normal", "xavier"]
PaddingName = Literal["zeros", "reflect"]
UpsampleName = Literal["transposed", "resize"]
_Maker = Callable[..., nn.Module]


class Net(nn.Module):
    """A net that knows which sizes it takes.

    Attributes:
        spatial_dims: 2 for (N, C, X, Y), 3 for (N, C, X, Y, Z).
        divisor: every spatial size is a multiple of it.
        smallest: the least spatial size along an axis, voxels.
        norms_below: whether it norms where `divisor` voxels have become one: one alone has no variance, so one side
            has to be twice the divisor or more.
        recompute: whether inner features are computed again in the backward pass instead of being kept.
        keeps_own_weights: whether `init_weights` leaves it as it was built.
    """

    keeps_own_weights = False

    def __init__(
        self,
        spatial_dims: int,
        *,
        divisor: int = 1,
        smallest: int = 1,
        norms_below: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.spatial_dims, self.divisor, self.smallest = spatial_dims, divisor, smallest
        self.norms_below, self.recompute = norms_below, recompute

    def require_size(self, size: Sequence[int]) -> None:
        """Refuse a spatial size (X, Y) or (X, Y, Z), voxels, that the net cannot take.

        Raises:
            InputError: naming the size and what would fit.
        """
        fits = len(size) == self.spatial_dims and all(n >= self.smallest and n % self.divisor == 0 for n in size)
        if fits and not (self.norms_below and max(size) == self.divisor):
            return
        seen = "×".join(str(int(n)) for n in size)
        multiples = f" and a multiple of {self.divisor}" if self.divisor > 1 else ""
        wanted = f"it takes {self.spatial_dims} axes, each at least {self.smallest}{multiples}"
        raise InputError(
            f"a patch of {seen} does not fit the net {type(self).__name__}: "
            f"{f'one side at least has to be {2 * self.divisor} or more' if fits else wanted}; "
            "pad, cut other patches or choose a shallower net"
        )

    def at_any_size(self, body: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """body(x) in evaluation, where `x` need not fit: its edge is repeated at the far ends and cut off again.

        Training is strict: there the net would learn from what was padded.

        Args:
            body: (N, C, *spatial) to (N, C', *spatial), of sizes that fit.
            x: (N, C, *spatial).

        Raises:
            InputError: in training, for a size that does not fit; always, for another number of axes.
        """
        size = x.shape[2:]
        if self.training or len(size) != self.spatial_dims:
            self.require_size(size)
            return body(x)
        more = [fit - n for fit, n in zip(self._least_size(size), size, strict=True)]
        if not any(more):
            return body(x)
        padded = F.pad(x, [margin for n in reversed(more) for margin in (0, n)], mode="replicate")
        y = body(padded)
        for axis, n in enumerate(size, start=2):
            y = y.narrow(axis, 0, n)
        return y

    def _least_size(self, size: Sequence[int]) -> list[int]:
        """The least size that fits and holds `size`."""
        least = [max(self.smallest, -(-n // self.divisor) * self.divisor) for n in size]
        if self.norms_below and max(least) == self.divisor:
            least[0] *= 2
        return least

    def run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """block(*inputs), keeping for the backward pass the inputs alone where `recompute` says so.

        The backward pass then runs the block once more: with the same random numbers, and without counting what it
        sees a second time into the running statistics of batch norms. The block must not change its inputs.

        Source:
            Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174, §4.1.
        """
        y: Tensor
        if not (self.recompute and torch.is_grad_enabled()):
            y = block(*inputs)
        elif torch.compiler.is_compiling():  # which takes no such context, and counts once by itself
            y = checkpoint(block, *inputs, use_reentrant=False)
        else:
            passes = partial(_first_and_second_pass, block)
            y = checkpoint(block, *inputs, use_reentrant=False, context_fn=passes)
        return y


def _first_and_second_pass(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), statistics_kept(block)


@contextmanager
def statistics_kept(net: nn.Module) -> Iterator[None]:
    """Batch norms work as in training, but their running statistics learn nothing from it."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm.named_buffers()) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


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


_CONV: dict[int, _Maker] = {2: Conv2d, 3: Conv3d}
# Plain ones pad by hand where they reflect, so they are right in bfloat16 too.
_CONV_REFLECTED: dict[int, _Maker] = {2: nn.Conv2d, 3: nn.Conv3d}
_UNPOOL: dict[int, _Maker] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_CONV_UP: dict[int, _Maker] = {2: ConvUp2d, 3: ConvUp3d}
_BATCH_NORM: dict[int, _Maker] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_REFLECT: dict[int, _Maker] = {2: nn.ReflectionPad2d, 3: nn.ReflectionPad3d}
_MEAN: dict[int, _Maker] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Layers:
    """Makes the layers of a net for one number of spatial axes (2 or 3) and one norm ("batch" or "instance").

    Where `antialias` is set, sizes are halved and doubled by fixed blurs, beside convs that keep the size. `upsample`
    "resize" doubles them so and leaves the halving to strides. `padding` says what a padded conv sees beyond the edge.
    """

    spatial_dims: int
    norm_name: str
    antialias: bool = False
    upsample: UpsampleName = "transposed"
    padding: PaddingName = "zeros"

    @property
    def bias(self) -> bool:
        """Whether a conv in front of a norm has a bias: batch norm brings its own."""
        return self.norm_name == "instance"

    def conv(self, ins: int, outs: int, kernel: int, *, stride: int = 1, padding: int = 0, bias: bool) -> nn.Module:
        """A convolution from `ins` to `outs` channels."""
        if padding and self.padding == "reflect":
            reflected = _CONV_REFLECTED[self.spatial_dims]
            return reflected(ins, outs, kernel, stride, padding, bias=bias, padding_mode="reflect")
        return _CONV[self.spatial_dims](ins, outs, kernel, stride, padding, bias=bias)

    def conv_up(self, ins: int, outs: int, kernel: int, *, bias: bool) -> nn.Module:
        """A transposed convolution that doubles every size: stride 2, padding 1."""
        extra = kernel % 2  # an odd kernel falls one voxel short of the double
        return _CONV_UP[self.spatial_dims](ins, outs, kernel, 2, 1, output_padding=extra, bias=bias)

    @property
    def resizes(self) -> bool:
        """Whether sizes are doubled by interpolation and a conv instead of a transposed conv."""
        return self.antialias or self.upsample == "resize"

    def doubling(self, ins: int, outs: int, kernel: int, *, bias: bool) -> tuple[nn.Module, ...]:
        """Doubles every size: by a transposed conv of that kernel, or by interpolation and a conv 3.

        Strides of a transposed conv give neighbouring voxels to different weights, which may show as a checkerboard.

        Source:
            Odena, Dumoulin, Olah 2016, "Deconvolution and Checkerboard Artifacts", doi:10.23915/distill.00003.
        """
        if not self.resizes:
            return (self.conv_up(ins, outs, kernel, bias=bias),)
        return self.blur_up(), self.conv(ins, outs, 3, padding=1, bias=bias)

    def blur_down(self) -> nn.Module:
        """Halves every size after a blur by 1, 2, 1."""
        return BlurDown(self.spatial_dims)

    def pool(self) -> nn.Module:
        """Halves every size: by means of blocks of two, or antialiased by `blur_down`."""
        return self.blur_down() if self.antialias else _MEAN[self.spatial_dims](2)

    def blur_up(self) -> nn.Module:
        """Doubles every size, blurred by 1, 3, 3, 1 with the edges repeated: which is linear interpolation."""
        return nn.Upsample(scale_factor=2, mode=_LINEAR[self.spatial_dims], align_corners=False)

    def unpool(self, ins: int, outs: int) -> nn.Module:
        """Doubles every size: by a transposed conv that makes each voxel a block of two, or as `doubling`."""
        if self.resizes:
            return nn.Sequential(*self.doubling(ins, outs, 2, bias=self.bias))
        return _UNPOOL[self.spatial_dims](ins, outs, 2, 2, bias=self.bias)

    def norm(self, channels: int) -> nn.Module:
        """The norm of `channels` channels."""
        return InstanceNorm() if self.norm_name == "instance" else _BATCH_NORM[self.spatial_dims](channels)

    def reflect(self, padding: int) -> nn.Module:
        """Padding by reflection on all sides."""
        return _REFLECT[self.spatial_dims](padding)


def init_weights(net: nn.Module, generator: torch.Generator | None = None, *, how: InitName = "normal") -> None:
    """Draw the weights as published: convs N(0, 0.02), batch norm weights N(1, 0.02), biases 0.

    Nets that are initialised in a way of their own are left as they are.

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
    own = [module for module in net.modules() if isinstance(module, Net) and module.keeps_own_weights]
    kept = {parameter for module in own for parameter in module.parameters()}
    for name, parameter in net.named_parameters():
        if parameter in kept:
            continue
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim > 1:  # the weights of a conv have several axes, those of a norm one
            draw(parameter, generator=generator)
        else:
            nn.init.normal_(parameter, 1.0, 0.02, generator=generator)
