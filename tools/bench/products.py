"""Where oneDNN is the faster one for matrix products in float32: torch's own choice against medgan's way.

    python tools/bench/products.py [--rounds 25] [--threads 2]

A product (M, K) × (K, N) as in a U-Net's small maps, forward and backward. Rates of the forward pass, in 10⁹ operations
a second, and ratios (min, median, max over rounds). `medgan.nets.products` goes by the number of multiplications.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from itertools import product as combinations

import torch
from interleaved import machine, rounds
from torch import Tensor

from medgan.nets import products
from medgan.tables import columns

WAYS = {"torch": torch.matmul, "oneDNN": products.product}
LARGEST = (768, 768, 768)


def row(m: int, k: int, n: int, number: int, least_work: int) -> list[str]:
    a, b, towards = torch.randn(m, k).requires_grad_(), torch.randn(k, n).requires_grad_(), torch.randn(m, n)

    def both_passes(way: Callable[[Tensor, Tensor], Tensor]) -> None:
        a.grad = b.grad = None
        way(a, b).backward(towards)

    def forward(way: Callable[[Tensor, Tensor], Tensor]) -> None:
        with torch.inference_mode():
            way(a, b)

    cells = []
    for passes in (forward, both_passes):
        taken = rounds({name: lambda way=way, run=passes: run(way) for name, way in WAYS.items()}, number, warm=5)
        if passes is forward:
            cells += [f"{2 * m * k * n / min(times) / 1e9:.0f}" for times in taken.values()]
        ratios = [one / other for one, other in zip(*taken.values(), strict=True)]
        cells.append(" / ".join(f"{f(ratios):.2f}" for f in (min, statistics.median, max)))
    chosen = "oneDNN" if m * k * n >= least_work else "torch"
    return [f"{m} × {k} × {n}", f"{m * k * n / 1e6:.1f}", *cells, chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine())
    least_work, products.LEAST_WORK = products.LEAST_WORK, 1
    sizes = [(m, c, 16 * c) for c, m in combinations((64, 128, 256, 512), (1, 4, 16, 64))]
    rows = [row(*size, options.rounds, least_work) for size in (*sizes, LARGEST)]
    head = ["M × K × N", "10⁶", "torch, GF/s", "oneDNN, GF/s", "forward", "and backward", "medgan takes"]
    print(columns([head, *rows]))


if __name__ == "__main__":
    main()
