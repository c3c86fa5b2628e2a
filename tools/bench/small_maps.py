"""Where a matrix product is the faster way to halve or double a small map: torch's convolution against medgan's.

    python tools/bench/small_maps.py [--rounds 9] [--threads 1]

Forward and backward pass. `medgan.nets.gemm` takes the product where a place of the kernel has enough weights.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from interleaved import machine, rounds
from torch import Tensor

from medgan.nets import gemm
from medgan.tables import columns

CONV = {2: F.conv2d, 3: F.conv3d}
CONV_UP = {2: F.conv_transpose2d, 3: F.conv_transpose3d}


def pass_of(conv: Callable[..., Tensor], x: Tensor, weight: Tensor, *rest: object) -> Callable[[], None]:
    towards = torch.randn_like(conv(x, weight, *rest))

    def way() -> None:
        x.grad = weight.grad = None
        conv(x, weight, *rest).backward(towards)

    return way


def row(spatial: int, channels: int, half: int, precision: str, number: int) -> list[str]:
    weight = (torch.randn(channels, channels, *[4] * spatial) * 0.02).requires_grad_()
    large, small = (torch.randn(1, channels, *[size] * spatial).requires_grad_() for size in (2 * half, half))
    ways = {
        "conv": pass_of(CONV[spatial], large, weight, None, 2, 1),
        "product": pass_of(gemm.conv_4_2, large, weight, None),
        "conv up": pass_of(CONV_UP[spatial], small, weight, None, 2, 1),
        "product up": pass_of(gemm.conv_up_4_2, small, weight, None),
    }
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        taken = rounds(ways, number, warm=2)
    ratios = [
        statistics.median(a / b for a, b in zip(taken[f"conv{up}"], taken[f"product{up}"], strict=True))
        for up in ("", " up")
    ]
    chosen = half**spatial <= min(gemm.MOST_PLACES, weight.numel() // gemm.WEIGHTS_A_PLACE)
    name = f"{spatial}-D, {channels} channels"
    return [name, str(half**spatial), precision, *(f"{ratio:.2f}" for ratio in ratios), "product" if chosen else "conv"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine())
    cases = [*product([2], [64, 128, 256, 512], [1, 2, 4, 8]), *product([3], [64, 128, 256], [1, 2, 4])]
    rows = [row(*case, precision, options.rounds) for precision in ("fp32", "bf16") for case in cases]
    print(columns([["weights", "places", "", "halving", "doubling", "medgan takes"], *rows]))


if __name__ == "__main__":
    main()
