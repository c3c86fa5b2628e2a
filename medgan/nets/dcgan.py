"""Nets that make images of random numbers, and that judge whole images: fully connected, and convolutional (DCGAN)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from medgan.nets.layers import Layers, Net, init_weights

__all__ = [
    "Critic",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DenseDiscriminator",
    "DenseGenerator",
    "NormInCritic",
    "halvings",
    "middle",
]

NormInCritic = Literal["none", "batch", "spectral"]
SMALLEST = 4  # voxels along the shortest side at which the doubling starts
MOST_DOUBLINGS = 6
WIDEST = 8  # times the width at full size
BACKGROUND = -1.0


def halvings(size: Sequence[int]) -> int:
    """How often an image is halved until its shortest side has 4 to 7 voxels; once at least, six times at most.

    Example:
        >>> halvings((64, 64)), halvings((28, 36)), halvings((2, 2))
        (4, 2, 1)
    """
    return max(1, min(MOST_DOUBLINGS, int(math.log2(max(min(size), SMALLEST) / SMALLEST))))


def middle(x: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of (N, C, *larger), (N, C, *size): nets that double reach powers of two, images need not be."""
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x


def around(x: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, *smaller) in the middle of background, (N, C, *size)."""
    margins = [n - own for own, n in zip(x.shape[2:], size, strict=True)]
    if not any(margins):
        return x
    return F.pad(x, [side for n in reversed(margins) for side in (n // 2, n - n // 2)], value=BACKGROUND)


class DenseGenerator(Net):
    """Three hidden layers that are fully connected: the GAN as it was first published, for small images and lessons.

    Args:
        latent_size: random numbers that an image is made of.
        channels: of the image.
        size: of the image, (X, Y) or (X, Y, Z).
        width: of the hidden layers.
        bounded: whether a tanh holds the values in [-1, 1].

    Source:
        Goodfellow et al. 2014, arXiv:1406.2661, §5, with leaky rectifiers.
    """

    def __init__(
        self, latent_size: int, channels: int, size: Sequence[int], *, width: int = 256, bounded: bool = True
    ) -> None:
        super().__init__(len(size))
        self.shape = (channels, *size)
        self.body = nn.Sequential(
            nn.Linear(latent_size, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, math.prod(self.shape)),
            nn.Tanh() if bounded else nn.Identity(),
        )

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:  # noqa: ARG002 - it knows of none
        """(N, latent_size) to (N, C, *size)."""
        x: Tensor = self.body(z)
        return x.view(len(z), *self.shape)


class Critic(Net):
    """A net that judges a whole image by one logit, and may know what the image should show.

    The logit is that of the image alone and, where there is a condition, how well features and condition go together:
    their inner product, once the condition is as long as the features.

    Args:
        size: of the images.
        num_features: what `features` returns of an image.
        condition_size: entries of a condition; 0 for none.
        tells_condition: whether it also guesses the condition, as an auxiliary classifier; then the logit does not
            hang on it.

    Source:
        Miyato & Koyama 2018, "cGANs with Projection Discriminator", arXiv:1802.05637, eq. 3. Auxiliary classifier:
        Odena, Olah, Shlens 2017, arXiv:1610.09585, §3.
    """

    def __init__(
        self, size: Sequence[int], num_features: int, condition_size: int, *, tells_condition: bool = False
    ) -> None:
        super().__init__(len(size))
        self.size = tuple(size)
        self.head = nn.Linear(num_features, 1)
        known = condition_size if not tells_condition else 0
        self.embedding = nn.Linear(known, num_features, bias=False) if known else None
        self.guess = nn.Linear(num_features, condition_size) if tells_condition else None

    def features(self, x: Tensor) -> Tensor:
        """(N, C, *size) to (N, num_features)."""
        raise NotImplementedError

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, C, *size) and what they should show, (N, K) or nothing, to logits (N, 1)."""
        return self.judged(self.features(x), condition)

    def judged(self, features: Tensor, condition: Tensor | None) -> Tensor:
        """Logits (N, 1) of features."""
        logit: Tensor = self.head(features)
        if self.embedding is None or condition is None:
            return logit
        match: Tensor = (self.embedding(condition) * features).sum(1, keepdim=True)
        return logit + match

    def told(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (N, 1), and those of its guess at the condition, (N, K), if it makes one; in one pass."""
        features = self.features(x)
        return self.judged(features, condition), None if self.guess is None else self.guess(features)


class DenseDiscriminator(Critic):
    """Two hidden layers that are fully connected.

    Args:
        channels: of the images.
        size: of the images.
        width: of the hidden layers.
    """

    def __init__(self, channels: int, size: Sequence[int], *, width: int = 256) -> None:
        super().__init__(size, width, 0)
        self.body = nn.Sequential(
            nn.Linear(channels * math.prod(size), width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)
        )

    def features(self, x: Tensor) -> Tensor:
        """(N, C, *size) to (N, width)."""
        features: Tensor = self.body(x.flatten(1))
        return features


class DCGANGenerator(Net):
    """Random numbers to a coarse map, which transposed convs 4 double until it has the size of the image.

    Batch norm and ReLU after all but the last; a tanh at the end. Sizes that are no power of two times the coarse map
    are cut from the middle. Under a condition each batch norm has a scale and a shift of what is asked for.

    Args:
        latent_size: random numbers that an image is made of.
        channels: of the image.
        size: of the image, (X, Y) or (X, Y, Z).
        condition_size: entries of a condition; 0 for none.
        width: channels before the last layer; they double towards the coarse map, up to eight times that.
        concat: whether the condition stands behind the random numbers instead of steering the norms.

    Source:
        Radford, Metz, Chintala 2016, arXiv:1511.06434, §3. Conditional norm: Dumoulin et al. 2017, arXiv:1610.07629.
    """

    def __init__(
        self,
        latent_size: int,
        channels: int,
        size: Sequence[int],
        *,
        condition_size: int = 0,
        width: int = 64,
        concat: bool = False,
    ) -> None:
        super().__init__(len(size))
        layers, doublings = Layers(len(size), "batch"), halvings(size)
        self.size, self.concat = tuple(size), concat
        self.coarse = [-(-n // 2**doublings) for n in size]
        widths = [width * min(WIDEST, 2**n) for n in reversed(range(doublings))]
        steers = 0 if concat else condition_size
        self.first = nn.Linear(latent_size + condition_size * concat, widths[0] * math.prod(self.coarse), bias=False)
        self.norms = nn.ModuleList([SteeredNorm(outs, layers, steers) for outs in widths])
        pairs = zip(widths, [*widths[1:], channels], strict=True)
        self.ups = nn.ModuleList([layers.conv_up(ins, outs, 4, bias=outs == channels) for ins, outs in pairs])
        init_weights(self)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, latent_size) and (N, K) or nothing to (N, C, *size) in [-1, 1]."""
        if self.concat and condition is not None:
            z = torch.cat([z, condition], dim=1)
        x: Tensor = self.first(z).view(len(z), -1, *self.coarse)
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(F.relu(norm(x, condition)))
        return torch.tanh(middle(x, self.size))


class SteeredNorm(nn.Module):
    """Batch norm whose scale and shift hang on a condition, if there is one.

    Args:
        channels: of its maps.
        layers: makes the norm.
        condition_size: entries of a condition; 0 for a plain norm.
    """

    def __init__(self, channels: int, layers: Layers, condition_size: int) -> None:
        super().__init__()
        self.norm = layers.norm(channels)
        self.steer = nn.Linear(condition_size, 2 * channels, bias=False) if condition_size else None

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """(N, C, *spatial) to the same shape."""
        x = self.norm(x)
        if self.steer is None or condition is None:
            return x
        scale, shift = self.steer(condition)[(...,) + (None,) * (x.ndim - 2)].chunk(2, dim=1)
        steered: Tensor = x * (1 + scale) + shift
        return steered


class DCGANDiscriminator(Critic):
    """Convs 4 of stride 2 down to a map of 4 to 7 voxels, whose features are judged where they are, not pooled.

    Args:
        channels: of the images.
        size: of the images, (X, Y) or (X, Y, Z).
        condition_size: entries of a condition; 0 for none.
        width: channels after the first conv; they double up to eight times that.
        norm: `batch` as published, on all but the first layer; `none` for a critic whose gradient is held, which
            batch norm would tie across samples; `spectral` scales each layer's weights to a largest singular value
            of 1.
        concat: whether the condition stands beside the image, as constant channels, instead of being projected.
        tells_condition: whether it guesses the condition instead of being told.

    Source:
        Radford, Metz, Chintala 2016, arXiv:1511.06434, §3. Spectral norm: Miyato et al. 2018, arXiv:1802.05957.
    """

    def __init__(
        self,
        channels: int,
        size: Sequence[int],
        *,
        condition_size: int = 0,
        width: int = 64,
        norm: NormInCritic = "batch",
        concat: bool = False,
        tells_condition: bool = False,
    ) -> None:
        times = halvings(size)
        coarse = [-(-n // 2**times) for n in size]
        widths = [width * min(WIDEST, 2**n) for n in range(times)]
        num_features = widths[-1] * math.prod(coarse)
        super().__init__(size, num_features, condition_size * (not concat), tells_condition=tells_condition)
        self.concat, self.padded = concat, [n * 2**times for n in coarse]
        layers = Layers(len(size), "batch")
        blocks: list[nn.Module] = []
        for ins, outs in zip([channels + condition_size * concat, *widths], widths, strict=False):
            normed = norm == "batch" and bool(blocks)
            blocks.append(layers.conv(ins, outs, 4, stride=2, padding=1, bias=not normed))
            blocks += [layers.norm(outs)] if normed else []
            blocks.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*blocks)
        init_weights(self)
        if norm == "spectral":
            _hold(self)

    def features(self, x: Tensor) -> Tensor:
        """(N, C, *size) to (N, num_features)."""
        features: Tensor = self.body(around(x, self.padded)).flatten(1)
        return features

    def told(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `Critic.told`; the condition may stand beside the image."""
        if self.concat and condition is not None:
            beside = condition[(...,) + (None,) * (x.ndim - 2)].expand(-1, -1, *x.shape[2:])
            return super().told(torch.cat([x, beside], dim=1))
        return super().told(x, condition)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, C, *size) and what they should show, (N, K) or nothing, to logits (N, 1)."""
        return self.told(x, condition)[0]


def _hold(net: nn.Module) -> None:
    """Scale the weights of each layer to a largest singular value of 1."""
    for module in list(net.modules()):
        if isinstance(getattr(module, "weight", None), nn.Parameter):
            spectral_norm(module)
