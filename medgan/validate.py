"""How good the generator is now: whole volumes of held-out patients, in the unit of the target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from medgan.config import Config
from medgan.data import Pair, Scan
from medgan.device import autocast
from medgan.metrics import mae, psnr, ssim_2023
from medgan.models.base import Batch, Game, Translator
from medgan.pictures import diverging, montage, plane, slice_picture
from medgan.prep import from_network
from medgan.sliding import predict
from medgan.volume import Volume

__all__ = ["Scores", "mean", "restate", "score", "show", "translate_scan"]

Scores = dict[str, float | None]
PICTURED_CASES = 3
ERROR_SHARE = 1 / 8  # of the output range: full colour in the pictures of errors


def translate_scan(game: Translator, scan: Scan, config: Config, device: torch.device) -> Volume:
    """The translation of one source, on its grid, in the unit of the run's output."""
    y = predict(
        game.translate,
        scan.x,
        patch=config.patch,
        neighbours=config.neighbours,
        kept=config.neighbours_made,
        overlap=config.overlap,
        device=device,
        precision=config.train.precision,
        memory_format=config.memory_format,
    )
    return from_network(y, scan.source, config.prep.b, config.prep.spacing_mm, config.prep.axes)


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
def restate(game: Game, sample: Iterable[Batch], precision: str = "32") -> None:
    """Estimate BatchNorm statistics anew for averaged weights: those of the trained weights do not fit them."""
    norms = [module for module in game.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    for batch in sample:
        device = next(game.parameters()).device
        with autocast(device, precision):
            game.generate(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
