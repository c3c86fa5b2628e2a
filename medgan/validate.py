"""How good the generator is now: whole volumes of held-out patients, in the unit of the target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from medgan.config import AnyConfig, Config
from medgan.data import Pair, Scan
from medgan.device import autocast
from medgan.metrics import mae, psnr, ssim_2023
from medgan.models.base import Batch, Game, Translator
from medgan.pictures import diverging, montage, plane, slice_picture
from medgan.prep import from_network
from medgan.processes import place
from medgan.sliding import predict
from medgan.volume import Volume

__all__ = ["SMALL", "Scores", "at_once", "mean", "restate", "score", "show", "translate_scan"]

Scores = dict[str, float | None]
PICTURED_CASES = 3
ERROR_SHARE = 1 / 8  # of the output range: full colour in the pictures of errors
FEW, SMALL = 8, 2**19  # patches, and their voxels in all: eight of 256 × 256, one of 80 × 80 × 80


def at_once(config: AnyConfig) -> int:
    """Patches that go through the nets together between two steps.

    A part of a step, which there is memory for with all that its gradients need; several, where they are so small that
    no step of them fills a memory.
    """
    part = config.train.batch // (config.train.accumulate * place().count)
    return max(part, min(FEW, SMALL // math.prod(config.patch)), 1)


def translate_scan(game: Translator, scan: Scan, config: Config, device: torch.device) -> Volume:
    """The translation of one source, on its grid, in the unit of the run's output."""
    y = predict(
        game.translate,
        scan.x,
        patch=config.patch,
        neighbours=config.neighbours,
        kept=config.neighbours_made,
        overlap=config.overlap,
        batch=at_once(config),
        device=device,
        precision=config.train.precision,
        memory_format=config.memory_format,
    )
    return from_network(y, scan.source, config.prep.b, config.prep.spacing_mm, config.prep.axes, overwrite=True)


def score(fake: Volume, scan: Scan, value_range: tuple[float, float]) -> dict[str, float]:
    """Inside the mask `mae` (unit of the output), `psnr` (dB) and `ssim`; nothing where the scan has no target."""
    if not isinstance(scan, Pair):
        return {}
    triple = fake.array, scan.target.array, scan.mask
    return {"mae": mae(*triple), "psnr": psnr(*triple, value_range), "ssim": ssim_2023(*triple, value_range)}


def mean(scores: Iterable[Mapping[str, float]]) -> Scores:
    """Over the cases that were scored; nothing where none was.

    None where a number does not exist: SSIM in volumes thinner than its window, PSNR of equal images.
    """
    scored = [one for one in scores if one]
    means = {name: float(np.mean([one[name] for one in scored])) for name in (scored[0] if scored else ())}
    return {name: value if np.isfinite(value) else None for name, value in means.items()}


def show(fakes: Sequence[Volume], scans: Sequence[Scan], value_range: tuple[float, float]) -> npt.NDArray[Any]:
    """(H, W, 3) uint8: the middle slices of the first cases.

    Source | synthetic, and where there is a target | target | signed error.
    """
    shown = list(zip(fakes, scans, strict=True))[:PICTURED_CASES]
    return montage([_row(fake, scan, value_range) for fake, scan in shown])


def _row(fake: Volume, scan: Scan, value_range: tuple[float, float]) -> list[npt.NDArray[Any]]:
    low, high = (float(value) for value in np.percentile(scan.source.array, (0.5, 99.5)))
    images = [slice_picture(scan.source, "axial", window=(low, max(high, low + 1e-6)))]
    images.append(slice_picture(fake, "axial", window=value_range))
    if not isinstance(scan, Pair):
        return images
    error = plane(fake.with_array(fake.array - scan.target.array), "axial")
    limit = (value_range[1] - value_range[0]) * ERROR_SHARE
    return [*images, slice_picture(scan.target, "axial", window=value_range), diverging(error, limit)]


@torch.no_grad()
def restate(game: Game, sample: Iterable[Batch], precision: str = "32", *, at_once: int | None = None) -> None:
    """Estimate BatchNorm statistics anew for averaged weights: those of the trained weights do not fit them.

    Args:
        game: whose batch norms are changed in place.
        sample: batches, whose statistics are averaged.
        precision: in which the nets work.
        at_once: samples that go through the nets together; a whole batch if not given. The variance of a batch is that
            inside its parts and that of their means: a single sample tells nothing of how samples differ.

    Source:
        Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2, lines 8 to 12.
    """
    norms = [module for module in game.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a plain mean over all that it sees
        norm.train()
    with autocast(next(game.parameters()).device, precision):
        seen = [_joined([_statistics(game, norms, part) for part in batch.parts(at_once)]) for batch in sample]
    means, variances = (torch.stack(each).mean(0) for each in zip(*seen, strict=True))
    sizes = [norm.num_features for norm in norms]
    for norm, momentum, centre, variance in zip(
        norms, momenta, torch.split(means, sizes), torch.split(variances, sizes), strict=True
    ):
        cast(Tensor, norm.running_mean).copy_(centre)
        cast(Tensor, norm.running_var).copy_(variance)
        norm.momentum = momentum
        norm.eval()


def _statistics(game: Game, norms: Sequence[_BatchNorm], batch: Batch) -> tuple[Tensor, Tensor]:
    """The mean and the variance of every channel of all norms, in one row each."""
    for norm in norms:
        norm.reset_running_stats()
    game.generate(batch)
    rows = ([getattr(norm, name) for norm in norms] for name in ("running_mean", "running_var"))
    means, variances = (torch.cat(row) for row in rows)
    return means, variances


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and variance of a batch from those of its parts, which are of one size."""
    means, variances = (torch.stack(each) for each in zip(*parts, strict=True))
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)
