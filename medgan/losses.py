"""Losses: a few tensors in, one number out.

Adversarial losses work on logits, so a discriminator ends without a sigmoid. All means are taken in float32 or
better, also under bf16 autocast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.errors import ConfigError

__all__ = [
    "Adversarial",
    "GanMode",
    "feature_distance",
    "gan",
    "gradient_difference",
    "l1",
    "l2",
    "patch_nce",
    "roughness",
    "ssim_distance",
]

GanMode = Literal["vanilla", "saturating", "lsgan", "hinge", "wgan"]


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
            arXiv:1406.2661, eq. 1 and end of §3); `saturating`, the same with the generator's loss of eq. 1, whose
            gradient vanishes where the discriminator wins; `lsgan`, least squares to the labels 0 and 1 (Mao et al.
            2017, arXiv:1611.04076, eq. 9, without its ½); `hinge` (Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018,
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


def l1(x: Tensor, y: Tensor, mask: Tensor | None = None, mean_mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference, in the unit of x.

    Args:
        x: (N, C, *spatial).
        y: the same shape.
        mask: (N, 1 or C, *spatial), bool or weights; the mean is over what it keeps, 0 where it keeps nothing.
        mean_mask: (1, 1 or C, *spatial), where x is a part of a batch: the mean of the masks of all of it. The mean
            over parts of equal size is then that of the whole, however much the mask keeps of each.

    Example:
        >>> float(l1(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])))
        2.0
    """
    return _mean((x - y).abs(), mask, mean_mask)


def l2(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference, in the squared unit of x; arguments as `l1`.

    Example:
        >>> float(l2(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0])))
        5.0
    """
    return _mean((x - y).square(), mask)


def gradient_difference(x: Tensor, y: Tensor, mask: Tensor | None = None, mean_mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference of the steps from voxel to voxel, averaged over the axes, in the unit of x.

    Blur costs here what it saves in `l1`: a smooth image has no steps.

    Args:
        x: (N, C, *spatial).
        y: the same shape.
        mask: (N, 1 or C, *spatial), bool or weights; a step counts as the voxel at its end does.
        mean_mask: as for `l1`.

    Source:
        Mathieu, Couprie, LeCun 2016, arXiv:1511.05440, eq. 6 with α = 1, of signed steps.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
        >>> float(gradient_difference(x, torch.zeros_like(x)))  # 0 along one axis, 1 along the other
        0.5
    """
    error, steps = _precise(x) - _precise(y), []
    for axis in range(2, x.ndim):
        weights = [None if one is None else one.narrow(axis, 1, x.shape[axis] - 1) for one in (mask, mean_mask)]
        steps.append(_mean(error.diff(dim=axis).abs(), *weights))
    return torch.stack(steps).mean()


def ssim_distance(
    x: Tensor, y: Tensor, mask: Tensor | None = None, mean_mask: Tensor | None = None, *, window: int = 11
) -> Tensor:
    """1 − the mean structural similarity of images in [-1, 1], with Gaussian windows, σ 1.5 voxels.

    The mean is over the windows that lie within the image. Sums of shifted images blur them axis by axis: a convolution
    by the whole window takes a CPU 40 times as long in 3-D, and a GPU may round its factors to ten bits.

    Args:
        x: (N, C, *spatial), at least `window` voxels along each axis.
        y: the same shape.
        mask: (N, 1 or C, *spatial), bool or weights; a window counts as the voxel in its middle does.
        mean_mask: as for `l1`.
        window: side of a window, voxels, odd.

    Source:
        Wang et al. 2004, "Image Quality Assessment", IEEE TIP 13(4), eq. 13; as a loss Zhao et al. 2017,
        arXiv:1511.08861, §III-B.
    """
    weights = [None if one is None else _middles(one, window) for one in (mask, mean_mask)]
    return _mean(1 - _similarity(_precise(x), _precise(y), window), *weights)


def feature_distance(seen: Sequence[Sequence[Tensor]], wanted: Sequence[Sequence[Tensor]]) -> Tensor:
    """How differently a discriminator sees two images: 4 × the mean L1 distance of its features.

    The mean is over layers and scales, so deeper layers, whose features are fewer, count as much as the first.

    Args:
        seen: features of the fake, by scale and layer.
        wanted: those of the real image, of the same shapes; they get no gradient.

    Source:
        Wang et al. 2018, arXiv:1711.11585, eq. 4, with the weights of its reference implementation: 4 / (number of
        layers) for a layer, 1 / (number of scales) for a scale.

    Example:
        >>> float(feature_distance([[torch.zeros(1, 1, 2), torch.ones(1, 1, 1)]], [[torch.ones(1, 1, 2)] * 2]))
        2.0
    """
    scales = [
        torch.stack([l1(x, y.detach()) for x, y in zip(ours, theirs, strict=True)]).mean()
        for ours, theirs in zip(seen, wanted, strict=True)
    ]
    return torch.stack(scales).mean() * 4


def roughness(field: Tensor) -> Tensor:
    """How much a field of displacements changes from voxel to voxel: mean squared steps, summed over the axes.

    Where all is moved alike it is 0.

    Args:
        field: (N, spatial_dims, *spatial), voxels.

    Source:
        Kong et al. 2021, arXiv:2110.06465, §3 (the smoothness loss), with the means of its reference implementation.

    Example:
        >>> float(roughness(torch.tensor([[0.0, 2.0], [0.0, 2.0]])[None, None]))  # 0 along one axis, 2² along the other
        4.0
    """
    steps = [_precise(field.diff(dim=axis)) for axis in range(2, field.ndim)]
    return torch.stack([step.square().mean() for step in steps]).sum()


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


def _similarity(x: Tensor, y: Tensor, window: int) -> Tensor:
    """The structural similarity of each window that lies within the image."""
    mean_x, mean_y, xx, yy, xy = _blurred(torch.stack([x, y, x * x, y * y, x * y]), window)
    low, high = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    luminance = (2 * mean_x * mean_y + low) / (mean_x.square() + mean_y.square() + low)
    variances = xx - mean_x.square() + yy - mean_y.square()
    similarity: Tensor = luminance * (2 * (xy - mean_x * mean_y) + high) / (variances + high)
    return similarity


def _blurred(images: Tensor, window: int, sigma: float = 1.5) -> Tensor:
    """(K, N, C, *spatial), blurred along each spatial axis and shorter by `window` − 1 voxels there."""
    bell = [math.exp(-(((i - window // 2) / sigma) ** 2) / 2) for i in range(window)]
    for axis in range(3, images.ndim):
        length = images.shape[axis] - window + 1
        blurred = torch.zeros_like(images.narrow(axis, 0, length))
        for shift, height in enumerate(bell):
            blurred = blurred.add(images.narrow(axis, shift, length), alpha=height / sum(bell))
        images = blurred
    return images


def _middles(mask: Tensor, window: int) -> Tensor:
    """The voxels in the middle of windows that lie within the image."""
    for axis in range(2, mask.ndim):
        mask = mask.narrow(axis, window // 2, mask.shape[axis] - window + 1)
    return mask


def _mean(values: Tensor, mask: Tensor | None, mean_mask: Tensor | None = None) -> Tensor:
    values = _precise(values)
    if mask is None:
        return values.mean()
    weights = mask.to(values.dtype).expand_as(values)
    kept = weights.sum() if mean_mask is None else mean_mask.to(values.dtype).expand_as(values).sum()
    return (values * weights).sum() / kept.clamp(min=1)


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


def _saturating(logits: Tensor) -> Tensor:
    return -_cross_entropy_to_0(logits)


def _raise_mean(logits: Tensor) -> Tensor:
    return -_precise(logits).mean()


_MODES: dict[str, Adversarial] = {
    "vanilla": Adversarial(_cross_entropy_to_1, _cross_entropy_to_0, fool=_cross_entropy_to_1),
    "saturating": Adversarial(_cross_entropy_to_1, _cross_entropy_to_0, fool=_saturating),
    "lsgan": Adversarial(_squares_to_1, _squares_to_0, fool=_squares_to_1, middle=0.5),
    "hinge": Adversarial(_hinge_above_1, _hinge_below_minus_1, fool=_raise_mean),
    "wgan": Adversarial(_raise_mean, _lower_mean, fool=_raise_mean),
}
