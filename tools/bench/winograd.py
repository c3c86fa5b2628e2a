"""Where Winograd's way is the faster 3 × 3 convolution: torch's own against medgan's, float32.

    python tools/bench/winograd.py [--rounds 9] [--threads 2]

Ratios (min, median, max over rounds) of a forward pass, and of a forward and backward pass, and how far each result is
from the one in float64 (root mean square).
`medgan.nets.winograd` is taken where there are enough channels and tiles of 4 × 4, and not too many weights for them.
"""

from __future__ import annotations

import argparse
import statistics

import torch
import torch.nn.functional as F
from interleaved import machine, rounds
from torch import Tensor, nn

from medgan.nets import winograd
from medgan.tables import columns

SHAPES = [(1, 128, 64), (1, 128, 128), (1, 256, 32), (2, 256, 32), (1, 256, 64), (2, 256, 64), (1, 512, 32)]
WAYS = {"conv": F.conv2d, "winograd": winograd.conv_3}


def forward(way: str, x: Tensor, weight: Tensor) -> None:
    with torch.inference_mode():
        WAYS[way](x, weight, None)


def both_passes(way: str, x: Tensor, weight: Tensor) -> None:
    x.grad = weight.grad = None
    y = WAYS[way](x, weight, None)
    y.backward(torch.ones_like(y))


def error(way: str, x: Tensor, weight: Tensor) -> float:
    with torch.inference_mode():
        exact = F.conv2d(x.double(), weight.double())
        return float((WAYS[way](x, weight, None) - exact).norm() / exact.norm())


def row(samples: int, channels: int, size: int, number: int) -> list[str]:
    x = torch.randn(samples, channels, size + 2, size + 2).to(memory_format=torch.channels_last).requires_grad_()
    weight = (torch.randn(channels, channels, 3, 3) * 0.02).requires_grad_()
    cells = []
    for passes in (forward, both_passes):
        taken = rounds({way: lambda way=way, run=passes: run(way, x, weight) for way in WAYS}, number, warm=2)
        ratios = [a / b for a, b in zip(*taken.values(), strict=True)]
        cells.append(" / ".join(f"{f(ratios):.2f}" for f in (min, statistics.median, max)))
    chosen = winograd.pays(nn.Conv2d(channels, channels, 3), x)
    errors = " / ".join(f"{error(way, x, weight):.0e}" for way in WAYS)
    return [f"{samples} × {channels} × {size}²", *cells, errors, "winograd" if chosen else "conv"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(machine())
    rows = [row(*shape, options.rounds) for shape in SHAPES]
    print(columns([["input", "forward", "and backward", "error of conv / winograd", "medgan takes"], *rows]))


if __name__ == "__main__":
    main()
