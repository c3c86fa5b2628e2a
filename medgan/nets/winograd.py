"""Convolutions of 3 × 3 with a quarter of the multiplications, for wide layers in float32 on a CPU.

The map is cut into tiles of 6 × 6 that overlap by 2. In the right base, convolving a tile is a product value by value:
36 multiplications for 4 × 4 results instead of 144. Over all channels that is 36 matrix products. What it costs is the
way into that base and back, which pays where there are many channels, and some accuracy: the result is right to 2·10⁻⁶
of itself, that of a convolution as it is written down to some 10⁻⁷.

Source:
    Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, §4.3, F(4×4, 3×3). Its
    points 0, ±1, ±2 are replaced by 0, ±√½, ±√2: half the rounding error, and a third or less of the largest one.
    That points decide on it: Barabasz et al. 2020, "Error Analysis and Improving the Accuracy of Winograd Convolution
    for Deep Neural Networks", arXiv:1803.10986.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medgan.nets.products import product, products

__all__ = ["conv_3", "kernel_of", "pays", "suits"]

Matrix = npt.NDArray[np.floating[Any]]

KERNEL, STEP = 3, 4
TILE = STEP + KERNEL - 1
POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))  # and infinity
EXACT_ENOUGH = (torch.float32, torch.float64)
FEWEST_CHANNELS = 256
FEWEST_TILES = 256
WEIGHTS_A_TILE = 512  # at most; more take longer to transform than is won
TILES_AT_ONCE = 256  # larger products are faster, until a core's cache is full


def pays(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether this way is the faster one (measured by tools/bench/winograd.py).

    Args:
        layer: a convolution.
        x: its input, (N, C, X, Y).
    """
    if not suits(layer) or x.device.type != "cpu" or x.dtype not in EXACT_ENOUGH or torch.is_autocast_enabled("cpu"):
        return False
    margin = 2 * int(layer.padding[0]) - KERNEL + 1
    tiles = len(x) * _tiles_along(x.shape[2] + margin) * _tiles_along(x.shape[3] + margin)
    affordable = layer.in_channels * layer.out_channels <= WEIGHTS_A_TILE * tiles
    return tiles >= FEWEST_TILES and affordable and not torch.compiler.is_compiling()


def suits(layer: nn.Conv2d) -> bool:
    """Whether this way can pay for a layer: kernel 3, stride 1, and enough channels."""
    plain = (layer.kernel_size, layer.stride, layer.dilation, layer.groups) == ((KERNEL,) * 2, (1, 1), (1, 1), 1)
    return plain and min(layer.in_channels, layer.out_channels) >= FEWEST_CHANNELS


def kernel_of(weight: Tensor) -> Tensor:
    """The weights (O, I, 3, 3) in the other base: (36, O, I), four times as many numbers."""
    return _transformed(WEIGHT, weight.permute(2, 3, 0, 1).flatten(0, 1))


def conv_3(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int = 0, *, kernel: Tensor | None = None) -> Tensor:
    """The convolution of kernel 3 and stride 1.

    Args:
        x: (N, I, X, Y), in whatever memory format.
        weight: (O, I, 3, 3).
        bias: (O,) or None.
        padding: zeros on every side.
        kernel: `kernel_of` the weight, where it is at hand.

    Returns:
        (N, O, X + 2·padding − 2, Y + 2·padding − 2), channels last in memory.
    """
    sizes = [size + 2 * padding - KERNEL + 1 for size in x.shape[2:]]
    beyond_x, beyond_y = (STEP * _tiles_along(size) - size for size in sizes)
    if padding or beyond_x or beyond_y:
        x = F.pad(x, [padding, padding + beyond_y, padding, padding + beyond_x])
    y: Tensor = _Winograd.apply(x.movedim(1, -1).contiguous(), weight, kernel)  # type: ignore[no-untyped-call]
    y = y[:, : sizes[0], : sizes[1]].movedim(-1, 1)
    return y if bias is None else y + bias.view(-1, 1, 1)


class _Winograd(torch.autograd.Function):
    """(N, 4h + 2, 4w + 2, I) and (O, I, 3, 3) to (N, 4h, 4w, O)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, kept: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        tiles, kernel = _tiles(x), (kernel_of(weight) if kept is None else kept).mT
        y = x.new_empty(len(x), tiles.shape[3] * STEP, tiles.shape[4] * STEP, len(weight))
        squares = _squares(y)
        for strip in _strips(tiles):
            mixed = products(_transformed(INPUT, tiles[strip]), kernel)
            squares[strip] = _transformed(OUTPUT, mixed).view(squares[strip].shape)
        return y

    @staticmethod
    def backward(ctx: Any, *towards: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted: this way has none of its own
            return *_written_down(towards[0], x, weight), None
        [towards_y], (to_x, to_weight, _) = towards, ctx.needs_input_grad
        return _to_input(towards_y, weight) if to_x else None, _to_weight(towards_y, x) if to_weight else None, None


def _to_input(towards: Tensor, weight: Tensor) -> Tensor:
    """The gradient that reaches the padded map: tiles put back where they were cut, summed where they overlap."""
    samples, length, width, _ = towards.shape
    kernel, given = kernel_of(weight), _squares(towards)
    whole = towards.new_zeros(samples, length + STEP, width + STEP, weight.shape[1])
    squares, over = _squares(whole), TILE - STEP
    for strip in _strips(given):
        sample, rows = strip[2:]
        below = slice(rows.start + 1, rows.stop + 1)
        parts = _transformed(INPUT.T, products(_transformed(OUTPUT.T, given[strip]), kernel))
        parts = parts.view(TILE, TILE, rows.stop - rows.start, width // STEP, -1)
        squares[:, :, sample, rows, :-1] += parts[:STEP, :STEP]
        squares[:over, :, sample, below, :-1] += parts[STEP:, :STEP]
        squares[:, :over, sample, rows, 1:] += parts[:STEP, STEP:]
        squares[:over, :over, sample, below, 1:] += parts[STEP:, STEP:]
    return whole[:, : length + over, : width + over]


def _to_weight(towards: Tensor, x: Tensor) -> Tensor:
    """The gradient that reaches the weight: (O, I, 3, 3)."""
    tiles, given = _tiles(x), _squares(towards)
    kernel = x.new_zeros(TILE**2, towards.shape[-1], x.shape[-1])
    for strip in _strips(tiles):
        kernel += products(_transformed(OUTPUT.T, given[strip]).mT, _transformed(INPUT, tiles[strip]))
    taps = product(x.new_tensor(WEIGHT.T), kernel.view(TILE**2, -1))
    return taps.T.contiguous().view(*kernel.shape[1:], KERNEL, KERNEL)


def _strips(tiles: Tensor) -> Iterator[tuple[Any, ...]]:
    """Where a few rows of the tiles of one sample lie among all."""
    samples, rows, across = tiles.shape[2:5]
    step = max(1, TILES_AT_ONCE // across)
    for sample in range(samples):
        for first in range(0, rows, step):
            yield slice(None), slice(None), sample, slice(first, min(first + step, rows))


def _tiles(x: Tensor) -> Tensor:
    """(N, X, Y, C) seen as (6, 6, N, rows, across, C): tiles that begin at every fourth place."""
    return x.unfold(1, TILE, STEP).unfold(2, TILE, STEP).permute(4, 5, 0, 1, 2, 3)


def _squares(y: Tensor) -> Tensor:
    """(N, X, Y, C) seen as (4, 4, N, rows, across, C): squares side by side."""
    return y.unfold(1, STEP, STEP).unfold(2, STEP, STEP).permute(4, 5, 0, 1, 2, 3)


def _transformed(matrix: Matrix, parts: Tensor) -> Tensor:
    """Each part, whose voxels are on the first axes, in another base: (values, places, C)."""
    mixed = product(parts.new_tensor(matrix), parts.reshape(matrix.shape[1], -1))
    return mixed.view(len(matrix), -1, parts.shape[-1])


def _written_down(towards: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by torch's convolution, which can be differentiated again."""
    geometry: list[Any] = [[1, 1], [0, 0], [1, 1], False, [0, 0], 1]
    towards, x = towards.movedim(-1, 1), x.movedim(-1, 1)
    to_x, to_weight, _ = torch.ops.aten.convolution_backward(towards, x, weight, None, *geometry, [True, True, False])
    return to_x.movedim(1, -1), to_weight


def _tiles_along(size: int) -> int:
    return -(-size // STEP)


def _base_change() -> tuple[Matrix, Matrix, Matrix]:
    """Matrices for tiles (36 × 36), weights (36 × 9) and results (16 × 36), by Toom and Cook.

    A tile and a kernel are polynomials. Their product is known from its values at the points: of the kernel by
    evaluation (divided by what Lagrange asks for), of the tile by the transpose of interpolation.
    """
    powers = np.vander(POINTS, TILE, increasing=True)
    tile, kernel, result = np.zeros((TILE, TILE)), np.zeros((TILE, KERNEL)), np.zeros((STEP, TILE))
    for i, point in enumerate(POINTS):
        others = np.delete(POINTS, i)
        tile[i, :-1] = np.poly(others)[::-1]
        kernel[i] = powers[i, :KERNEL] / np.prod(point - others)
    tile[-1], kernel[-1, -1] = np.poly(POINTS)[::-1], 1
    result[:, :-1], result[-1, -1] = powers[:, :STEP].T, 1
    return np.kron(tile, tile), np.kron(kernel, kernel), np.kron(result, result)


INPUT, WEIGHT, OUTPUT = _base_change()
