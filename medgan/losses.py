"""Losses: a few tensors in, one number out.

Adversarial losses work on logits, so a discriminator ends without a sigmoid. All means are taken in float32 or
better, also under bf16 autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from monai.losses import SSIMLoss
from torch import Tensor

from medgan.errors import ConfigError

__all__ = ["Adversarial", "GanMode", "gan", "gradient_difference", "l1", "l2", "patch_nce", "ssim_distance"]

GanMode = Literal["vanilla", "lsgan", "hinge", "wgan"]


class Adversarial(NamedTuple):
    """Three losses on logits of any shape.

    Attributes:
        real: what the discriminator pays on real images.
        fake: what the discriminator pays on fakes.
        fool: what the generator pays on its fakes.
        middle: the logit between real and fake.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    fool: Callable[[Tensor], Tensor]
    middle: float = 0.0


def gan(mode: str) -> Adversarial:
    """The adversarial losses of one kind.

    Args:
        mode: `vanilla`, cross entropy with the generator's non-saturating loss (Goodfellow et al. 2014,
            arXiv:1406.2661, eq. 1 and end of §3); `lsgan`, least squares to the labels 0 and 1 (Mao et al. 2017,
            arXiv:1611.04076, eq. 9, without its ½); `hinge` (Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018,
            arXiv:1802.05957, eq. 16 and 17); `wgan`, the critic's difference of means, sound only with a Lipschitz
            constraint on the critic (Arjovsky et al. 2017, arXiv:1701.07875, eq. 2).

    Raises:
        ConfigError: for another mode.

    Example:
        >>> round(float(gan("vanilla").real(torch.zeros(1, 1, 4, 4))), 4)  # ln 2
        0.6931
    """
    if mode not in _MODES:
        raise ConfigError(f"unknown GAN mode {mode!r}; accepted: {', '.join(get_args(GanMode))}")
    return _MODES[mode]


def l1(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference, in the unit of x.

    Args:
        x: (N, C, *spatial).
        y: the same shape.
        mask: (N, 1 or C, *spatial), bool or weights; the mean is over what it keeps, 0 where it keeps nothing.

    Example:
        >>> float(l1(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])))
        2.0
    """
    return _mean((x - y).abs(), mask)


def l2(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference, in the squared unit of x; arguments as `l1`.

    Example:
        >>> float(l2(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])))
        5.0
    """
    return _mean((x - y).square(), mask)


def gradient_difference(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference of the steps from voxel to voxel, averaged over the axes, in the unit of x.

    Blur costs here what it saves in `l1`: a smooth image has no steps.

    Args:
        x: (N, C, *spatial).
        y: the same shape.
        mask: (N, 1 or C, *spatial), bool or weights; a step counts as the voxel at its end does.

    Source:
        Mathieu, Couprie, LeCun 2016, arXiv:1511.05440, eq. 6 with α = 1, of signed steps.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
        >>> float(gradient_difference(x, torch.zeros_like(x)))  # 0 along one axis, 1 along the other
        0.5
    """
    error, steps = _precise(x) - _precise(y), []
    for axis in range(2, x.ndim):
        weights = None if mask is None else mask.narrow(axis, 1, x.shape[axis] - 1)
        steps.append(_mean(error.diff(dim=axis).abs(), weights))
    return torch.stack(steps).mean()


def ssim_distance(x: Tensor, y: Tensor, *, window: int = 11) -> Tensor:
    """1 − the mean structural similarity of images in [-1, 1], with Gaussian windows, σ 1.5 voxels.

    Args:
        x: (N, C, *spatial), at least `window` voxels along each axis.
        y: the same shape.
        window: side of a window, voxels.

    Source:
        Wang et al. 2004, "Image Quality Assessment", IEEE TIP 13(4), eq. 13; as a loss Zhao et al. 2017,
        arXiv:1511.08861, §III-B.
    """
    with torch.autocast(x.device.type, enabled=False):
        distance = SSIMLoss(x.ndim - 2, data_range=2.0, win_size=window)(_precise(x), _precise(y))
    return torch.as_tensor(distance)


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """Cross entropy of finding, for every place of a fake, the same place of its source among all places there.

    Args:
        queries: (N, P, C), features of length 1 of fakes at P places.
        keys: the same shape, of their sources at the same places; they get no gradient.
        temperature: less counts the most similar places alone.

    Source:
        Park et al. 2020, arXiv:2007.15651, eq. 2 and 3: the mean of −log(exp(q·k⁺/τ) / Σ exp(q·k/τ)), the sum over k⁺
        and the places k⁻ of the same image.

    Example:
        >>> round(float(patch_nce(torch.eye(2)[None], torch.eye(2)[None], temperature=1.0)), 4)  # ln(1 + 1/e)
        0.3133
    """
    with torch.autocast(queries.device.type, enabled=False):
        likeness = _precise(queries) @ _precise(keys.detach()).transpose(1, 2) / temperature
        own = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)
        return F.cross_entropy(likeness.transpose(1, 2), own)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    values = _precise(values)
    if mask is None:
        return values.mean()
    weights = mask.to(values.dtype).expand_as(values)
    return (values * weights).sum() / weights.sum().clamp(min=1)


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _cross_entropy_to_1(logits: Tensor) -> Tensor:
    return -F.logsigmoid(_precise(logits)).mean()


def _cross_entropy_to_0(logits: Tensor) -> Tensor:
    return -F.logsigmoid(-_precise(logits)).mean()


def _squares_to_1(logits: Tensor) -> Tensor:
    return (_precise(logits) - 1).square().mean()


def _squares_to_0(logits: Tensor) -> Tensor:
    return _precise(logits).square().mean()


def _hinge_above_1(logits: Tensor) -> Tensor:
    return F.relu(1 - _precise(logits)).mean()


def _hinge_below_minus_1(logits: Tensor) -> Tensor:
    return F.relu(1 + _precise(logits)).mean()


def _lower_mean(logits: Tensor) -> Tensor:
    return _precise(logits).mean()


def _raise_mean(logits: Tensor) -> Tensor:
    return -_precise(logits).mean()


_MODES: dict[str, Adversarial] = {
    "vanilla": Adversarial(_cross_entropy_to_1, _cross_entropy_to_0, fool=_cross_entropy_to_1),
    "lsgan": Adversarial(_squares_to_1, _squares_to_0, fool=_squares_to_1, middle=0.5),
    "hinge": Adversarial(_hinge_above_1, _hinge_below_minus_1, fool=_raise_mean),
    "wgan": Adversarial(_raise_mean, _lower_mean, fool=_raise_mean),
}
