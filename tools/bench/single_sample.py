"""One 3-D patch at a time: residual U-Net, torch's choice of routine against medgan's.

python tools/bench/single_sample.py [--size 32] [--width 16] [--rounds 5] [--threads 2]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from interleaved import machine, rounds, table

from medgan import nets
from medgan.nets import convs

NEGLECTED_BELOW = convs.NEGLECTED_BELOW


def way(net: torch.nn.Module, x: torch.Tensor, *, learns: bool, below: int) -> Callable[[], None]:
    def once() -> None:
        convs.NEGLECTED_BELOW = below
        with torch.set_grad_enabled(learns):
            y = net(x)
        if learns:
            y.square().mean().backward()

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    net = nets.build("res_unet_16", 1, 1, "instance", spatial_dims=3, width=options.width)
    x = torch.rand(1, 1, *[options.size] * 3) * 2 - 1
    print(machine())
    for name, learns in (("translating", False), ("forward and backward", True)):
        ways = {
            f"{name}, torch's choice": way(net, x, learns=learns, below=0),
            f"{name}, medgan": way(net, x, learns=learns, below=NEGLECTED_BELOW),
        }
        print(table(rounds(ways, options.rounds)))


if __name__ == "__main__":
    main()
