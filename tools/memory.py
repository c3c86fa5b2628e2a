"""Peak memory on a CPU: what recomputing saves in a pass of each 3-D generator, and what comes between steps.

    python tools/memory.py

prints the figures of docs/how-to/memory.md. Each row has a process of its own, whose largest resident size counts;
what it held before (PyTorch, the weights) is taken off.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from medgan import Grid, Volume, nets
from medgan.config import Config
from medgan.doctor import examine
from medgan.learner import set_up
from medgan.models.base import Batch, Translator
from medgan.play import play
from medgan.scans import Scan
from medgan.tables import columns
from medgan.validate import at_once, restate, translate_scan

GENERATORS = {
    "resnet_9blocks": (32, (128, 128, 64)),
    "res_unet_32": (32, (128, 128, 64)),
    "swin_unetr": (24, (96, 96, 96)),
}
SIDE, EXAMINED, RESTATED = 64, 8, 4  # voxels of a patch, patches of a look and of a batch of statistics
NORMS = ("instance", "batch")


def one_pass(name: str, recompute: bool) -> float:
    """GiB that a pass takes at batch 1 in float32 on one thread."""
    width, size = GENERATORS[name]
    net = nets.build(name, 1, 1, "instance", spatial_dims=3, width=width, recompute=recompute)
    x, before = torch.randn(1, 1, *size), peak_gib()
    net(x).square().mean().backward()
    return peak_gib() - before


def in_training(what: str, norm: str) -> float:
    """GiB that a step of pix2pix at batch 1 takes, or what comes between two steps."""
    config = _config(norm)
    game = config.build()
    work = _works(config, game)[what]
    before = peak_gib()
    work()
    return peak_gib() - before


def _config(norm: str) -> Config:
    generator = {"name": "res_unet_32", "width": 16, "norm": norm, "dropout": False, "recompute": True}
    ct = {"modality": "CT", "unit": "HU", "range": [-1000, 1000]}
    model = {"name": "pix2pix", "generator": generator, "discriminator": {"norm": norm, "width": 16}}
    values = {"cases": "none.csv", "patch": [SIDE] * 3, "prep": {"a": ct, "b": ct}, "model": model}
    return Config.parse(values | {"train": {"batch": 1}})


def _works(config: Config, game: Translator) -> dict[str, Callable[[], object]]:
    def patches(count: int) -> Batch:
        return Batch(*torch.rand(2, count, 1, *config.patch))

    fabric = Fabric(accelerator="cpu")
    optimizers = set_up(game, fabric, config, None)
    grid = Grid.regular((SIDE + SIDE // 2,) * 3)
    ct = Volume(np.zeros(grid.shape, np.float32), grid, "HU", "CT")
    scan = Scan("one", torch.zeros(1, *grid.shape), ct.array > 0, ct)
    few = at_once(config)
    return {
        "step": lambda: play(game, [patches(1)], optimizers, fabric),
        "validation": lambda: translate_scan(game, scan, config, torch.device("cpu")),
        "check-up": lambda: examine(game, patches(EXAMINED), patches(EXAMINED), at_once=few),
        "statistics": lambda: restate(game, [patches(RESTATED)], at_once=few),
    }


def peak_gib() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def in_own_process(*arguments: str) -> str:
    """What this file prints in a process that has done nothing else."""
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def passes() -> str:
    """A row a generator."""
    rows = [["generator", "width", "patch", "GiB", "recomputed"]]
    for name, (width, size) in GENERATORS.items():
        figures = [in_own_process("pass", name, recompute) for recompute in ("", "recompute")]
        rows.append([name, str(width), "×".join(map(str, size)), *figures])
    return columns(rows)


def trainings() -> str:
    """A row a norm."""
    rows = [["GiB", "step", "validation", "check-up", "statistics"]]
    rows += [[norm, *(in_own_process("training", what, norm) for what in rows[0][1:])] for norm in NORMS]
    return columns(rows)


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    if arguments:
        measured = one_pass(arguments[1], bool(arguments[2])) if arguments[0] == "pass" else in_training(*arguments[1:])
        print(f"{measured:.2f}")
    else:
        print(passes(), trainings(), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
