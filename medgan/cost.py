"""What a training will cost on this machine, measured by a few steps before it starts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from medgan.config import AnyConfig, Config, dump
from medgan.formats import read_header
from medgan.learner import fabric_for, set_up
from medgan.lessons import cases_of, load_config
from medgan.models.base import Batch
from medgan.play import play
from medgan.prep import network_grid

__all__ = ["estimate"]

TIMED_STEPS = 3
BYTES_A_VOXEL = 4 + 2 * 4 + 2  # the target for the network, two images as read, and two masks
BYTES_A_SOURCE = 4  # a voxel of each contrast, for the network


def estimate(source: AnyConfig | Path | str, overrides: Sequence[str] = (), *, device: str = "auto") -> str:
    """The resolved config as YAML, and below it, as comments, what it will cost here.

    Args:
        source: the settings, or a YAML file of them.
        overrides: `dotted.key=value`, applied to the file.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: for settings that do not fit one another.
        CasesError: for a table that cannot be used.
    """
    config = load_config(source, overrides)
    training, validation = cases_of(config, "train"), cases_of(config, "val")
    seconds, parameters = _step_s(config, device)
    role = "a" if isinstance(config, Config) else config.prep.roles[0]
    first = next(case.images[role] for case in training if role in case.images)
    grid = network_grid(read_header(first).grid, config.prep.spacing_mm, config.prep.axes)
    cache_gib = len(training + validation) * torch.Size(grid.shape).numel() * _bytes_a_voxel(config) / 2**30
    lines = [
        f"{len(training)} training cases, {len(validation)} validation cases",
        f"{parameters / 1e6:.2f} million parameters in the generator",
        f"{seconds:.3g} s a step here, {config.train.steps * seconds / 60:.3g} min in all, validations not counted",
        f"{cache_gib:.2g} GiB of prepared volumes, mapped from the cache, if all are as large as the first",
    ]
    return dump(config) + "".join(f"# {line}\n" for line in lines)


def _bytes_a_voxel(config: AnyConfig) -> int:
    if isinstance(config, Config):
        return BYTES_A_VOXEL + BYTES_A_SOURCE * len(config.prep.sources)
    return 1 + BYTES_A_SOURCE * len(config.prep.roles)


def _step_s(config: AnyConfig, device: str) -> tuple[float, int]:
    """Median seconds of a step after a warm-up, and the generator's parameters."""
    fabric, settings = fabric_for(config, device), config.train
    game = config.build().to(fabric.device)
    parameters = sum(p.numel() for p in game.generators.parameters())
    game.require_size(config.size)
    optimizers = set_up(game, fabric, config, None)
    batch = _any_batch(config).to(fabric.device)
    times = []
    for _ in range(TIMED_STEPS + 1):
        began = time.perf_counter()
        for _ in range(game.warm_ups):
            play(game, batch.split(settings.accumulate), optimizers, fabric, order=("discriminator",))
        losses = play(game, batch.split(settings.accumulate), optimizers, fabric)
        torch.stack(list(losses.values())).sum().item()  # waits for the device
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]), parameters


def _any_batch(config: AnyConfig) -> Batch:
    """Of the sizes that the training will have."""
    count = config.train.batch
    if isinstance(config, Config):
        x = torch.rand(count, config.in_channels, *config.size) * 2 - 1
        return Batch(a=x, b=-x[:, : config.out_channels])
    size = sum(condition.width for condition in config.conditions.values())
    condition = torch.full((count, size), 1 / size) if size else None
    return Batch(b=torch.rand(count, len(config.prep.roles), *config.size) * 2 - 1, condition=condition)
