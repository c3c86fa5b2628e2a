"""Penalties, unweighted, on the slope of a critic or a generator, and what else holds a game of two in balance.

A critic is here any function from images (N, C, *spatial) to logits (N, 1) or (N,): a net, or a net that is told a
condition. Slopes are taken per sample, their lengths in float32 or better also under bf16 autocast, and they can be
learnt from: their gradients have gradients.

A penalty may be computed on every n-th step alone, n times as strong (Karras et al. 2020, arXiv:1912.04958, §3.1 and
appendix B): over n steps it weighs the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LogitsOf", "clip_weights_", "gradient_penalty", "path_length", "r1", "relativistic", "squared_slopes"]

LogitsOf: TypeAlias = Callable[[Tensor], Tensor]


def squared_slopes(logits: Tensor, x: Tensor) -> Tensor:
    """How steeply each logit changes with its image: ‖∂D(xᵢ)/∂xᵢ‖², (N,).

    For a game that has the logits already, which saves it a pass: R1 is half their mean.

    Args:
        logits: (N, 1) or (N,), of a critic that looked at x.
        x: (N, C, *spatial), with `requires_grad` set before the critic looked.
    """
    [slopes] = torch.autograd.grad(_precise(logits).sum(), x, create_graph=True)
    return _precise(slopes).flatten(1).square().sum(1)


def r1(critic: LogitsOf, x: Tensor) -> Tensor:
    """Half the mean of ‖∇D‖², to be weighted by γ: R1 at real images, R2 at fakes.

    Args:
        critic: of (N, C, *spatial).
        x: (N, C, *spatial); gets no gradient.

    Source:
        Mescheder, Geiger, Nowozin 2018, "Which Training Methods for GANs do actually Converge?", arXiv:1801.04406,
        eq. 9 and 10; both together: Huang et al. 2024, "The GAN is dead; long live the GAN!", arXiv:2501.05441.

    Example:
        >>> float(r1(lambda x: 3 * x.sum(dim=(1, 2)), torch.zeros(5, 2, 2)))  # ½ · 4 · 3²
        18.0
    """
    x = x.detach().requires_grad_()
    return squared_slopes(critic(x), x).mean() / 2


def gradient_penalty(critic: LogitsOf, real: Tensor, fake: Tensor, *, target: float = 1.0) -> Tensor:
    """Holds the slope of a critic near a target between real images and fakes: the mean of (‖∇D‖ − target)².

    Args:
        critic: of (N, C, *spatial); without batch norm, through which one sample's logit hangs on the others.
        real: (N, C, *spatial); gets no gradient.
        fake: the same shape; gets no gradient.
        target: the slope, 1 for an estimate of the Wasserstein distance.

    Source:
        Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", arXiv:1704.00028, eq. 3 (its λ is 10): at one
        place on the line from each real image to a fake, drawn evenly for each sample from torch's global random
        numbers.

    Example:
        >>> images = torch.zeros(2, 1, 2, 2)
        >>> float(gradient_penalty(lambda x: 2 * x.sum(dim=(1, 2, 3)), images, images))  # (2 · √4 − 1)²
        9.0
    """
    real, fake = _precise(real.detach()), _precise(fake.detach())
    share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
    between = torch.lerp(fake, real, share).requires_grad_()
    return (_root(squared_slopes(critic(between), between)) - target).square().mean()


def path_length(images: Tensor, styles: Tensor, mean: Tensor, *, decay: float = 0.01) -> tuple[Tensor, Tensor]:
    """How unevenly an image changes with its styles: the mean squared distance of ‖Jᵀy‖ from its running mean.

    Noise y of N(0, 1) over the root of the number of voxels comes from torch's global random numbers.

    Args:
        images: (N, C, *spatial), drawn from the styles.
        styles: (N, num_styles, style_size).
        mean: the running mean so far, a single number; 0 at the start.
        decay: share of the new lengths in the mean.

    Returns:
        The penalty, unweighted (published weight 2), and the new running mean, without gradient.

    Source:
        Karras et al. 2020, arXiv:1912.04958, §3.2, eq. 4: the square over a style is summed, its mean taken over
        num_styles, as in the reference implementation.
    """
    noise = torch.randn_like(images) * images[0, 0].numel() ** -0.5
    [slopes] = torch.autograd.grad((_precise(images) * noise).sum(), styles, create_graph=True)
    lengths = _root(_precise(slopes).square().sum(2).mean(1))
    moved = torch.lerp(mean.to(lengths.dtype), lengths.detach().mean(), decay)
    return (lengths - moved).square().mean(), moved.to(mean.dtype)


def relativistic(above: Tensor, below: Tensor) -> Tensor:
    """What one player pays so that logits lie above others, pair by pair: the mean of log(1 + exp(below − above)).

    The discriminator wants real ones above fakes, the generator fakes above real ones.

    Args:
        above: logits of any shape.
        below: the same shape.

    Source:
        Jolicoeur-Martineau 2018, "The relativistic discriminator", arXiv:1807.00734, eq. 5 and 6, with R1 and R2 in
        Huang et al. 2024, arXiv:2501.05441, eq. 2.

    Example:
        >>> round(float(relativistic(torch.zeros(3, 1), torch.zeros(3, 1))), 4)  # ln 2
        0.6931
    """
    return F.softplus(_precise(below) - _precise(above)).mean()


@torch.no_grad()
def clip_weights_(net: nn.Module, limit: float = 0.01) -> None:
    """Clamp every weight to [-limit, limit], after a step of the critic.

    Args:
        net: changed in place.
        limit: c.

    Source:
        Arjovsky, Chintala, Bottou 2017, "Wasserstein GAN", arXiv:1701.07875, algorithm 1.
    """
    for weight in net.parameters():
        weight.clamp_(-limit, limit)


def _root(squares: Tensor) -> Tensor:
    """√, with a slope of 0 at 0 instead of an infinite one: a dead critic gets no gradient and not NaN."""
    zero = squares == 0
    return squares.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
