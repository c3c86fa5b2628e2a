"""Convolutions that are right and fast where torch's own on a CPU are not, and torch's own everywhere else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan.nets import gemm, winograd
from medgan.nets.products import HAS_ONEDNN

__all__ = ["Conv2d", "Conv3d", "ConvUp2d", "ConvUp3d"]

NEGLECTED_BELOW = 20480  # channels times the first two axes
WORTH_A_SECOND_SAMPLE = 16**3  # voxels


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, also fast where it halves small maps, and faster where it has many channels and keeps the size."""

    _kept: tuple[int, Tensor] | None = None  # a state of the weights, and what they are in another base

    def settle(self) -> None:
        """Do once what would be done on every call, for a layer that will not learn any more.

        Wide convolutions keep their weights in another base too, which takes four times the memory of the weights.
        """
        if winograd.suits(self) and not self.weight.is_inference():  # of those torch does not tell whether they changed
            self._kept = self.weight._version, winograd.kernel_of(self.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        if gemm.pays(self, x):
            return gemm.conv_4_2(x, self.weight, self.bias)
        if winograd.pays(self, x):
            return winograd.conv_3(x, self.weight, self.bias, int(self.padding[0]), kernel=self._kernel())
        return super().forward(x)

    def _kernel(self) -> Tensor | None:
        if self._kept is None:
            return None
        version, kernel = self._kept
        return kernel if version == self.weight._version else None


class ConvUp2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d`, also fast where it doubles small maps."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if gemm.pays(self, x):
            return gemm.conv_up_4_2(x, self.weight, self.bias)
        return super().forward(x, output_size)


class Conv3d(nn.Conv3d):
    """`nn.Conv3d`, also fast where it halves small maps or sees one sample, and right in bfloat16 on the smallest maps.

    Where a map is shorter than the kernel, torch 2.13 on a CPU fills weight gradients in bfloat16 from memory that
    nobody wrote. Padding by hand avoids it.
    """

    def forward(self, x: Tensor) -> Tensor:
        if gemm.pays(self, x):
            return gemm.conv_4_2(x, self.weight, self.bias)
        margin, stride = int(self.padding[0]), int(self.stride[0])
        if all(size >= kernel for size, kernel in zip(x.shape[2:], self.kernel_size, strict=True)):
            return _conv3d(x, self.weight, self.bias, stride, margin)
        return _conv3d(F.pad(x, [margin] * 6), self.weight, self.bias, stride, 0)


def _conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`F.conv3d`, fast also for one sample.

    A single sample of few channels and small kernels torch 2.13 gives to a routine of its own on a CPU, up to 13 times
    slower than the library that convolves two samples.
    """
    if not _is_neglected(x, weight):
        return F.conv3d(x, weight, bias, stride, padding)
    if not torch.is_grad_enabled():
        return torch.mkldnn_convolution(x, weight, bias, [padding] * 3, [stride] * 3, [1] * 3, 1)
    if x[0, 0].numel() < WORTH_A_SECOND_SAMPLE:
        return F.conv3d(x, weight, bias, stride, padding)
    return F.conv3d(torch.cat([x, torch.zeros_like(x)]), weight, bias, stride, padding)[:1]


def _is_neglected(x: Tensor, weight: Tensor) -> bool:
    """Torch's own condition (`use_mkldnn` in its Convolution.cpp)."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not HAS_ONEDNN:
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    return len(x) == 1 and weight.shape[-1] <= 3 and x[0, :, :, :, 0].numel() <= NEGLECTED_BELOW


class ConvUp3d(nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` that doubles sizes, also fast on small maps, and right in bfloat16 one voxel long.

    There the backward pass of torch 2.13 on a CPU writes outside its memory and may kill the process. Cutting the
    margin off by hand, instead of by `padding`, avoids it.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if gemm.pays(self, x):
            return gemm.conv_up_4_2(x, self.weight, self.bias)
        if min(x.shape[2:]) > 1:
            return super().forward(x, output_size)
        whole = F.conv_transpose3d(x, self.weight, self.bias, self.stride)
        length, width, depth = (2 * size for size in x.shape[2:])
        return whole[:, :, 1 : 1 + length, 1 : 1 + width, 1 : 1 + depth]
