"""A real image found again among those that a generator can draw."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.nets.style import StyleGenerator

__all__ = ["Inversion", "find_style"]

LR = 0.1
WARM_UP, COOL_DOWN = 0.05, 0.25  # shares of the steps
COARSEST = 8  # voxels along the shortest side at which images are still compared


class Inversion(NamedTuple):
    """What was found for N images.

    Attributes:
        style: (N, style_size), to be changed and drawn again.
        image: (N, C, *size), what is drawn by it.
        error: (N,), mean absolute difference from the real image, network units.
    """

    style: Tensor
    image: Tensor
    error: Tensor


def find_style(generator: StyleGenerator, x: Tensor, *, condition: Tensor | None = None, steps: int = 300) -> Inversion:
    """Find the style by which a generator draws an image most like a real one.

    From the mean style down the squared difference at full, half and so on size, by Adam. A style says less than an
    image, so what a generator has not learnt stays different: a lesion that it never drew is missing, which `error`
    and the difference show. The noise is 0 throughout, as it could take on what the style should tell.

    Args:
        generator: its weights stay as they are.
        x: (N, C, *size) in [-1, 1].
        condition: (N, K), what the images show; for a generator that was built for conditions.
        steps: of Adam.

    Source:
        Karras et al. 2020, arXiv:1912.04958, appendix D, in W, with squared differences at several sizes instead of
        LPIPS, whose net knows photographs.
    """
    noise = torch.zeros(1, generator.num_noise, device=x.device)

    def draw(style: Tensor) -> Tensor:
        return generator.synthesis(generator.for_all_sizes(style), noise)

    with torch.no_grad():
        style = generator.mapping.mean(condition).repeat(len(x) if condition is None else 1, 1)
    style.requires_grad_()
    adam = torch.optim.Adam([style], lr=LR)
    for step in range(steps):
        adam.param_groups[0]["lr"] = LR * _pace(step / steps)
        with torch.enable_grad():
            [style.grad] = torch.autograd.grad(_unlike(draw(style), x), style)
        adam.step()
    with torch.no_grad():
        image = draw(style).clamp(-1, 1)
    return Inversion(style.detach(), image, (image - x).abs().flatten(1).mean(1))


def _unlike(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference of each image at full, half … size, summed over sizes and images."""
    pool = F.avg_pool2d if ours.ndim == 4 else F.avg_pool3d
    difference = ours - theirs
    total = difference.square().flatten(1).mean(1)
    while min(difference.shape[2:]) >= 2 * COARSEST:
        difference = pool(difference, 2)
        total = total + difference.square().flatten(1).mean(1)
    return total.sum()


def _pace(done: float) -> float:
    """The share of the learning rate: quickly up, and slowly down at the end."""
    return min(1.0, done / WARM_UP) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - done) / COOL_DOWN)))
