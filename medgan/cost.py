"""What a training will cost on this machine, measured by a few steps before it starts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from medgan.config import Config, dump
from medgan.formats import read_header
from medgan.learner import fabric_for, set_up
from medgan.models.base import Batch
from medgan.play import play
from medgan.prep import network_grid
from medgan.train import cases_of, load_config

__all__ = ["estimate"]

TIMED_STEPS = 3
BYTES_A_VOXEL = 4 + 2 * 4 + 2  # the target for the network, two images as read, and two masks
BYTES_A_SOURCE = 4  # a voxel of each contrast, for the network


def estimate(config: Config | Path | str, overrides: Sequence[str] = (), *, device: str = "auto") -> str:
    """The resolved config as YAML, and below it, as comments, what it will cost here.

    Args:
        config: the settings, or a YAML file of them.
        overrides: `dotted.key=value`, applied to the file.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: for settings that do not fit one another.
        CasesError: for a table that cannot be used.
    """
    config = load_config(config, overrides)
    training, validation = cases_of(config, "train"), cases_of(config, "val")
    seconds, parameters = _step_s(config, device)
    first = next(case.images["a"] for case in training if "a" in case.images)
    grid = network_grid(read_header(first).grid, config.prep.spacing_mm, config.prep.axes)
    bytes_a_voxel = BYTES_A_VOXEL + BYTES_A_SOURCE * len(config.prep.sources)
    cache_gib = len(training + validation) * torch.Size(grid.shape).numel() * bytes_a_voxel / 2**30
    lines = [
        f"{len(training)} training cases, {len(validation)} validation cases",
        f"{parameters / 1e6:.2f} million parameters in the generator",
        f"{seconds:.3g} s a step here, {config.train.steps * seconds / 60:.3g} min in all, validations not counted",
        f"{cache_gib:.2g} GiB of prepared volumes, mapped from the cache, if all are as large as the first",
    ]
    return dump(config) + "".join(f"# {line}\n" for line in lines)


def _step_s(config: Config, device: str) -> tuple[float, int]:
    """Median seconds of a step after a warm-up, and the generator's parameters."""
    fabric = fabric_for(config, device)
    game = config.build().to(fabric.device)
    parameters = sum(p.numel() for p in game.generators.parameters())
    size = [side for side in config.patch if side > 1]
    game.require_size(size)
    optimizers = set_up(game, fabric, config, None)
    x = torch.rand(config.train.batch, config.in_channels, *size, device=fabric.device) * 2 - 1
    times = []
    for _ in range(TIMED_STEPS + 1):
        began = time.perf_counter()
        losses = play(game, Batch(a=x, b=-x[:, :1]).split(config.train.accumulate), optimizers, fabric)
        torch.stack(list(losses.values())).sum().item()  # waits for the device
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]), parameters
