"""Strided convolutions of small maps as one matrix product.

Deep in a U-Net a map has a handful of voxels and its weights millions of numbers. A CPU's convolution brings all of
them into another order on every call, which takes longer than the arithmetic; a matrix product reads them as they lie.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from medgan.nets.products import product

__all__ = ["conv_4_2", "conv_up_4_2", "pays"]

MOST_PLACES = 128
WEIGHTS_A_PLACE = 2**15  # that pay for it
KERNEL = 4


def pays(layer: nn.modules.conv._ConvNd, x: Tensor) -> bool:
    """Whether a matrix product does the same faster: large weights, few places (measured by tools/bench/small_maps.py).

    Args:
        layer: a convolution.
        x: its input, (N, C, *spatial).
    """
    if x.device.type != "cpu" or (layer.kernel_size[0], layer.stride[0]) != (KERNEL, 2):
        return False
    places = x[:, 0].numel() // (1 if layer.transposed else 2 ** (x.ndim - 2))
    return places <= min(MOST_PLACES, layer.weight.numel() // WEIGHTS_A_PLACE)


def conv_4_2(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of kernel 4, stride 2, padding 1.

    Args:
        x: (N, I, *spatial), even sizes.
        weight: (O, I, 4, 4) or (O, I, 4, 4, 4), in whatever memory format.
        bias: (O,) or None.

    Returns:
        (N, O, *half).
    """
    spatial = x.ndim - 2
    x = F.pad(x, [1] * 2 * spatial)
    for axis in range(spatial):
        x = x.unfold(2 + axis, KERNEL, 2)
    half = x.shape[2 : 2 + spatial]
    places, taps = range(2, 2 + spatial), range(2 + spatial, 2 + 2 * spatial)
    rows = x.permute(0, *places, *_as_they_lie(weight, 1, [*taps])).reshape(len(x) * half.numel(), -1)
    matrix = weight.permute(0, *_as_they_lie(weight, 1, [*places])).reshape(len(weight), -1)
    return _biased(product(rows, matrix.mT).view(len(x), *half, -1).movedim(-1, 1), bias)


def conv_up_4_2(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The transposed convolution of kernel 4, stride 2, padding 1.

    Args:
        x: (N, I, *spatial).
        weight: (I, O, 4, 4) or (I, O, 4, 4, 4), in whatever memory format.
        bias: (O,) or None.

    Returns:
        (N, O, *double).
    """
    spatial, outs = x.ndim - 2, weight.shape[1]
    taps = [KERNEL] * spatial
    rows = x.movedim(1, -1).reshape(-1, len(weight))
    matrix = weight.permute(0, *_as_they_lie(weight, 1, [*range(2, 2 + spatial)])).reshape(len(weight), -1)
    laid = product(rows, matrix).view(len(x), *x.shape[2:], *_as_they_lie(weight, outs, taps))
    y = laid.movedim(-1 if _channels_last(weight) else 1 + spatial, 1)
    for axis in range(spatial):
        y = _overlaid(y, 2 + axis, 2 + spatial)
    return _biased(y, bias)


def _biased(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias.to(y.dtype).view(-1, *[1] * (y.ndim - 2))


def _overlaid(y: Tensor, axis: int, tap_axis: int) -> Tensor:
    """Sum what the four taps of neighbouring places, two voxels apart, put on the same voxel along one axis.

    Tap 2q + r of place i lies on voxel 2(i + q) + r − 1.
    """
    y = y.movedim(tap_axis, axis + 1)
    near, far = y.reshape(*y.shape[: axis + 1], 2, 2, *y.shape[axis + 2 :]).unbind(axis + 1)
    behind = [0, 0] * (y.ndim - axis - 1)
    both = F.pad(near, [*behind, 0, 1]) + F.pad(far, [*behind, 1, 0])
    return both.flatten(axis, axis + 1).narrow(axis, 1, 2 * y.shape[axis])


def _as_they_lie(weight: Tensor, channels: int, taps: list[int]) -> list[int]:
    """Channels and taps in the order in which the weight has them in memory."""
    return [*taps, channels] if _channels_last(weight) else [channels, *taps]


def _channels_last(weight: Tensor) -> bool:
    return not weight.is_contiguous()
