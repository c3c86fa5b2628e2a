"""What recomputing saves: peak memory of one forward and backward pass of each 3-D generator, on a CPU.

    python tools/memory.py

prints the figures of docs/how-to/memory.md. Each pass has a process of its own, whose largest resident size counts;
what it held before the pass (PyTorch, the weights) is taken off.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import torch

from medgan import nets
from medgan.tables import columns

GENERATORS = {
    "resnet_9blocks": (32, (128, 128, 64)),
    "res_unet_32": (32, (128, 128, 64)),
    "swin_unetr": (24, (96, 96, 96)),
}


def one_pass(name: str, recompute: bool) -> float:
    """GiB that a pass takes at batch 1 in float32 on one thread."""
    torch.set_num_threads(1)
    width, size = GENERATORS[name]
    net = nets.build(name, 1, 1, "instance", spatial_dims=3, width=width, recompute=recompute)
    x, before = torch.randn(1, 1, *size), peak_gib()
    net(x).square().mean().backward()
    return peak_gib() - before


def peak_gib() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def in_own_process(name: str, recompute: bool) -> float:
    """`one_pass` in a process that has done nothing else."""
    command = [sys.executable, __file__, name, str(int(recompute))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def table() -> str:
    """A row a generator."""
    rows = [["generator", "width", "patch", "GiB", "recomputed"]]
    for name, (width, size) in GENERATORS.items():
        figures = [f"{in_own_process(name, recompute=recompute):.1f}" for recompute in (False, True)]
        rows.append([name, str(width), "×".join(map(str, size)), *figures])
    return columns(rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(one_pass(sys.argv[1], recompute=sys.argv[2] == "1"))
    else:
        print(table())
