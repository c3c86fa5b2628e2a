"""A training step of pix2pix, 256 × 256, unet_256: medgan's against the published procedure in plain torch.

python tools/bench/pix2pix_step.py [--batch 1] [--rounds 7] [--threads 2] [--device cpu]
"""

from __future__ import annotations

import argparse
import copy

import torch
from interleaved import gflop, machine, peaks, rounds, table
from published import Pix2pixStep, Unet, patchgan, same_weights
from torch import nn

from medgan.config import Config
from medgan.learner import fabric_for, lay_out, set_up
from medgan.models.base import Batch
from medgan.play import play

SIZE = 256


def config(batch: int, **train: object) -> Config:
    return config_of("pix2pix", SIZE, batch=batch, **train)


def config_of(model: str, size: int, **train: object) -> Config:
    mr, ct = {"modality": "MR", "times_median": [0, 3]}, {"modality": "CT", "unit": "HU", "range": [-1000, 2000]}
    prep = {"a": mr, "b": ct}
    settings = {"cases": "-", "prep": prep, "patch": [size, size, 1], "model": {"name": model}}
    return Config.parse({**settings, "augment": {"gamma": 0, "noise": 0}, "train": train})


def plain(game: nn.Module, device: str, *, dropout: float = 0.5) -> Pix2pixStep:
    nets = Unet(1, 1, dropout=dropout), patchgan(2, nn.BatchNorm2d)
    same_weights(game.generators["b"], nets[0])
    same_weights(game.discriminators["b"], nets[1])
    return Pix2pixStep(*(net.to(device) for net in nets))


def ours(game: nn.Module, settings: Config, device: str):
    """A step of medgan as its loop makes it, from that game's weights."""
    fabric, game = fabric_for(settings, device), copy.deepcopy(game)
    layout = settings.memory_format
    lay_out(game, fabric.device, settings)
    optimizers = set_up(game, fabric, settings, None)
    return lambda a, b: play(game, [Batch(a, b).to(memory_format=layout)], optimizers, fabric)


def losses_apart(step, reference, a: torch.Tensor, b: torch.Tensor, *, steps: int = 3) -> float:
    """The largest relative difference of a loss over some steps."""
    worst = 0.0
    for _ in range(steps):
        seen, wanted = step(a, b), reference(a, b)
        worst = max(worst, *(abs(float(seen[name]) / wanted[name] - 1) for name in wanted))
    return worst


def still(game: nn.Module) -> nn.Module:
    """A copy without dropout, so that two ways can be compared number by number."""
    game = copy.deepcopy(game)
    for module in game.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return game


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    ways = {
        "medgan fp32": config(options.batch),
        "medgan fp32, channels_last": config(options.batch, channels_last=True),
        "medgan bf16": config(options.batch, precision="bf16"),
        "medgan bf16, channels_last": config(options.batch, precision="bf16", channels_last=True),
    }
    game = config(options.batch).build()
    a, b = (torch.rand(options.batch, 1, SIZE, SIZE, device=options.device) * 2 - 1 for _ in range(2))
    print(machine())
    for name, settings in ways.items():
        apart = losses_apart(ours(still(game), settings, options.device), plain(game, options.device, dropout=0), a, b)
        print(f"{name}: losses of three steps differ from the published ones by {apart:.1e}")
    reference = plain(game, options.device)
    work = gflop(lambda: reference(a, b))
    steps = {"published procedure, fp32": lambda: reference(a, b)}
    for name, settings in ways.items():
        step = ours(game, settings, options.device)
        steps[name] = lambda step=step: step(a, b)
    best = peaks(options.device)
    print(f"pix2pix step, batch {options.batch}: {work:.0f} GFLOP, at least {1e3 * work / best['fp32']:.0f} ms in fp32")
    print(table(rounds(steps, options.rounds), gflop=work, peaks=best))


if __name__ == "__main__":
    main()
