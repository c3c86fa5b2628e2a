"""Training steps of medgan against the published procedure: the same weights, the same batch, in turn."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
from interleaved import gflop, machine, peaks, rounds, table
from torch import Tensor, nn

from medgan.config import Config
from medgan.learner import fabric_for, lay_out, set_up
from medgan.models.base import Batch, Game
from medgan.play import play

Step = Callable[[Tensor, Tensor], dict[str, float]]
WAYS = {
    "medgan fp32": {},
    "medgan fp32, channels_last": {"channels_last": True},
    "medgan bf16": {"precision": "bf16"},
    "medgan bf16, channels_last": {"precision": "bf16", "channels_last": True},
}


def options(description: str | None, *, rounds: int) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def measure(model: str, plain: Callable[..., Step], asked: argparse.Namespace, *, steps: int) -> None:
    """Print how far the losses of some steps lie apart, and the table of ratios.

    Args:
        model: the game with its published settings.
        plain: the published procedure from a game's weights and a device; `dropout=0` leaves dropout out.
        asked: as `options` returns it.
        steps: whose losses are compared.
    """
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    ways = {name: config(model, asked.size, batch=asked.batch, **train) for name, train in WAYS.items()}
    game = next(iter(ways.values())).build()
    a, b = (torch.rand(asked.batch, 1, asked.size, asked.size, device=asked.device) * 2 - 1 for _ in range(2))
    print(machine())
    for name, settings in ways.items():
        exact = plain(game, asked.device, dropout=0.0)
        apart = losses_apart(ours(still(game), settings, asked.device), exact, a, b, steps)
        print(f"{name}: losses of {steps} steps differ from the published ones by {apart:.1e}")
    reference, best = plain(game, asked.device), peaks(asked.device)
    work = gflop(lambda: reference(a, b))
    timed = {"published procedure, fp32": lambda: reference(a, b)}
    for name, settings in ways.items():
        step = ours(game, settings, asked.device)
        timed[name] = lambda step=step: step(a, b)
    print(f"{model} step, batch {asked.batch}: {work:.0f} GFLOP, at least {1e3 * work / best['fp32']:.0f} ms in fp32")
    print(table(rounds(timed, asked.rounds), gflop=work, peaks=best))


def config(model: str, size: int, **train: object) -> Config:
    mr, ct = {"modality": "MR", "times_median": [0, 3]}, {"modality": "CT", "unit": "HU", "range": [-1000, 2000]}
    settings = {"cases": "-", "prep": {"a": mr, "b": ct}, "patch": [size, size, 1], "model": {"name": model}}
    return Config.parse({**settings, "augment": {"gamma": 0, "noise": 0}, "train": train})


def ours(game: Game, settings: Config, device: str) -> Step:
    """A step of medgan as its loop makes it, from that game's weights."""
    fabric, game = fabric_for(settings, device), copy.deepcopy(game)
    lay_out(game, fabric.device, settings)
    optimizers = set_up(game, fabric, settings, None)
    return lambda a, b: play(game, [Batch(a, b).to(memory_format=settings.memory_format)], optimizers, fabric)


def losses_apart(step: Step, reference: Step, a: Tensor, b: Tensor, steps: int) -> float:
    """The largest relative difference of a loss over some steps."""
    worst = 0.0
    for _ in range(steps):
        seen, wanted = step(a, b), reference(a, b)
        worst = max(worst, *(abs(float(seen[name]) / wanted[name] - 1) for name in wanted))
    return worst


def still(game: Game) -> Game:
    """A copy without dropout, so that two ways can be compared number by number."""
    game = copy.deepcopy(game)
    for module in game.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return game
