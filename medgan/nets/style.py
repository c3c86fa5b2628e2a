"""A generator that draws by styles, and the discriminator that goes with it (StyleGAN2), for images and volumes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, overload

import torch
from torch import Tensor, nn

from medgan.errors import InputError
from medgan.nets.dcgan import Critic
from medgan.nets.equalised import (
    GAIN,
    EqualConv,
    EqualLinear,
    ModulatedConv,
    doubled,
    leaky,
    precise,
    shrinking,
    to_unit_size,
    widths_of,
)
from medgan.nets.layers import Net

__all__ = ["Mapping", "StyleDiscriminator", "StyleGenerator"]

NUM_FOR_MEAN = 1024  # styles that the mean style is taken of
GROUP = 4  # samples whose spread the discriminator sees together
MAPPING_LR = 0.01


class Mapping(nn.Module):
    """Random numbers to a style: fully connected layers that learn a hundred times slower than the rest.

    Args:
        latent_size: entries of z.
        style_size: entries of a style.
        condition_size: entries of a condition; 0 for none. It is embedded without bias, so that a mix of two classes
            lies between theirs, and stands behind z, both scaled to a mean square of 1.
        num_layers: 8 as first published, 2 in the settings for small sets of StyleGAN2-ADA.

    Source:
        Karras et al. 2019, "A Style-Based Generator Architecture", arXiv:1812.04948, §2; conditions as in
        Karras et al. 2020, arXiv:2006.06676.
    """

    def __init__(self, latent_size: int, style_size: int, condition_size: int = 0, *, num_layers: int = 2) -> None:
        super().__init__()
        self.latent_size, self.condition_size = latent_size, condition_size
        self.embedding = EqualLinear(condition_size, style_size, bias=False) if condition_size else None
        joined = latent_size + style_size * bool(condition_size)
        sizes = [joined, *[style_size] * num_layers]
        self.layers = nn.ModuleList(
            EqualLinear(ins, outs, lr_multiplier=MAPPING_LR, gain=GAIN) for ins, outs in pairwise(sizes)
        )

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, latent_size) and (N, condition_size) or nothing to styles (N, style_size).

        Raises:
            InputError: where the net was built for conditions and there is none.
        """
        x = to_unit_size(z)
        if self.embedding is not None:
            if condition is None:
                raise InputError(f"this generator was built for conditions of {self.condition_size} entries; seen none")
            x = torch.cat([x, to_unit_size(self.embedding(condition))], dim=1)
        for layer in self.layers:
            x = leaky(layer(x))
        return x

    def mean(self, condition: Tensor | None = None) -> Tensor:
        """The mean style, (1, style_size), or that of each condition, (N, style_size).

        It is a function of the weights: the mean over 1024 z that are always the same. So averaged weights have the
        mean of their own, and nothing has to be saved along with them.
        """
        z = torch.randn(NUM_FOR_MEAN, self.latent_size, generator=torch.Generator().manual_seed(0))
        z = z.to(next(self.parameters()).device)
        if condition is None:
            mean: Tensor = self(z).mean(0, keepdim=True)
            return mean
        kinds, which = torch.unique(condition, dim=0, return_inverse=True)
        means = [self(z, kind.expand(NUM_FOR_MEAN, -1)).mean(0) for kind in kinds]
        return torch.stack(means)[which]


class StyleGenerator(Net):
    """A learnt coarse map that styled convs draw on and double until it is an image; each size adds to the image.

    Sizes double from the image's own size halved so often that its longest side has 4 to 7 voxels. Halves were rounded
    up, so where a map doubled is one voxel too long, its last is cut off there and then.

    The image is a sum of linear layers without a tanh, as published: it learns to stay in [-1, 1] as real images do,
    and who samples clamps it.

    Every conv adds noise, for texture that no style has to describe. In training it is drawn from torch's global random
    numbers. In evaluation it is drawn from a generator that the bits of a sample's own z seed: so an image hangs on
    its z and condition alone, not on what is sampled beside it, and not all images carry one pattern.

    Args:
        latent_size: random numbers that an image is made of.
        channels: of the image.
        size: of the image, (X, Y) or (X, Y, Z).
        condition_size: entries of a condition; 0 for none.
        width: channels at full size; they double with every halving.
        max_width: most channels.
        style_size: entries of a style.
        mapping_layers: of the mapping.

    Attributes:
        num_styles: styles that an image takes, the coarsest first; one style is as a rule given to all.
        num_noise: random numbers that the noise of an image is made of.

    Source:
        Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, §2, fig. 7
        (skip generator), without the 3-D it has here.
    """

    keeps_own_weights = True

    def __init__(
        self,
        latent_size: int,
        channels: int,
        size: Sequence[int],
        *,
        condition_size: int = 0,
        width: int = 32,
        max_width: int = 512,
        style_size: int = 128,
        mapping_layers: int = 2,
    ) -> None:
        super().__init__(len(size))
        self.sizes = shrinking(size)[::-1]
        widths = widths_of(len(self.sizes), width, max_width)[::-1]
        self.mapping = Mapping(latent_size, style_size, condition_size, num_layers=mapping_layers)
        self.coarse = nn.Parameter(torch.randn(1, widths[0], *self.sizes[0]))
        convs = [StyledConv(widths[0], widths[0], style_size, len(size))]
        for ins, outs in pairwise(widths):
            convs += [StyledConv(ins, outs, style_size, len(size), up=True)]
            convs += [StyledConv(outs, outs, style_size, len(size))]
        self.convs = nn.ModuleList(convs)
        self.to_images = nn.ModuleList(_ToImage(ins, channels, style_size, len(size)) for ins in widths)
        self.num_styles = len(convs) + 1
        self._grains = [self.sizes[(place + 1) // 2] for place in range(len(convs))]
        self.num_noise = sum(map(math.prod, self._grains))

    @overload
    def forward(
        self, z: Tensor, condition: Tensor | None = None, *, truncation: float = 1.0, mixing: float = 0.0
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        z: Tensor,
        condition: Tensor | None = None,
        *,
        truncation: float = 1.0,
        mixing: float = 0.0,
        with_styles: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        z: Tensor,
        condition: Tensor | None = None,
        *,
        truncation: float = 1.0,
        mixing: float = 0.0,
        with_styles: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(N, latent_size) and (N, condition_size) or nothing to (N, C, *size).

        Args:
            z: drawn from N(0, 1).
            condition: what the images shall show.
            truncation: 1 for all that was learnt, towards 0 ever nearer to the mean image of the condition.
            mixing: share of samples whose finer sizes take the style of another z, from torch's global random numbers.
            with_styles: whether to return the styles (N, num_styles, style_size) too, for the path length.
        """
        styles = self.styles(z, condition, truncation=truncation, mixing=mixing)
        noise = None if self.training else self.noise_of(z)
        images = self.synthesis(styles, noise)
        return (images, styles) if with_styles else images

    def styles(
        self, z: Tensor, condition: Tensor | None = None, *, truncation: float = 1.0, mixing: float = 0.0
    ) -> Tensor:
        """The styles of each size, (N, num_styles, style_size); arguments as `forward`."""
        style: Tensor = self.mapping(z, condition)
        if truncation != 1:
            style = torch.lerp(self.mapping.mean(condition), style, truncation)
        styles = self.for_all_sizes(style)
        if not mixing:
            return styles
        return mixed(styles, self.for_all_sizes(self.mapping(torch.randn_like(z), condition)), mixing)

    def for_all_sizes(self, style: Tensor) -> Tensor:
        """(N, style_size) to (N, num_styles, style_size), the same at every size."""
        return style.unsqueeze(1).expand(-1, self.num_styles, -1)

    def synthesis(self, styles: Tensor, noise: Tensor | None = None) -> Tensor:
        """Draw images (N, C, *size).

        Args:
            styles: (N, num_styles, style_size), the coarsest first.
            noise: (N or 1, num_noise) of N(0, 1); drawn from torch's global random numbers if not given.
        """
        if noise is None:
            noise = torch.randn(len(styles), self.num_noise, device=styles.device)
        grains = self._grains_of(noise)
        x = self.coarse.expand(len(styles), *self.coarse.shape[1:])
        x = self.convs[0](x, styles[:, 0], grains[0])
        image: Tensor = self.to_images[0](x, styles[:, 1])
        for place, (size, to_image) in enumerate(zip(self.sizes[1:], self.to_images[1:], strict=True)):
            first = 2 * place + 1
            for conv in (first, first + 1):
                x = self.convs[conv](x, styles[:, conv], grains[conv])
            image = doubled(image, size) + to_image(x, styles[:, first + 2])
        return image

    def noise_of(self, z: Tensor) -> Tensor:
        """The noise that goes with each z, (N, num_noise): always the same for the same bits."""
        seeds = [zlib.crc32(row.tobytes()) for row in z.detach().cpu().numpy()]
        rows = [torch.randn(self.num_noise, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(rows).to(z.device)

    def _grains_of(self, noise: Tensor) -> list[Tensor]:
        """The noise of each conv, (N or 1, 1, *spatial)."""
        parts = torch.split(noise, [math.prod(size) for size in self._grains], dim=1)
        return [part.view(-1, 1, *size) for part, size in zip(parts, self._grains, strict=True)]


class StyledConv(nn.Module):
    """A conv 3 under a style, noise, a bias and a leaky rectifier.

    Args:
        ins: channels of the input.
        outs: channels of the output.
        style_size: entries of a style.
        spatial_dims: 2 or 3.
        up: whether it doubles.
    """

    def __init__(self, ins: int, outs: int, style_size: int, spatial_dims: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(ins, outs, 3, style_size, spatial_dims, up=up, gain=GAIN)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(1, outs, *[1] * spatial_dims))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """(N, ins, *spatial) to the spatial size of the noise, (N or 1, 1, *spatial)."""
        y: Tensor = self.conv(x, style)
        for axis, n in enumerate(noise.shape[2:], start=2):
            y = y.narrow(axis, 0, n)
        return leaky(y + (self.bias * GAIN).to(y.dtype) + (noise * (self.strength * GAIN)).to(y.dtype))


class _ToImage(nn.Module):
    """What maps of one size add to the image: a conv 1 under a style that is not demodulated."""

    def __init__(self, ins: int, channels: int, style_size: int, spatial_dims: int) -> None:
        super().__init__()
        self.conv = ModulatedConv(ins, channels, 1, style_size, spatial_dims, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, channels, *[1] * spatial_dims))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(N, ins, *spatial) to (N, channels, *spatial), in float32 or better."""
        y: Tensor = self.conv(x, style)
        return precise(y) + self.bias


def mixed(styles: Tensor, others: Tensor, share: float) -> Tensor:
    """Some samples take other styles from a size on that is drawn for each; from torch's global random numbers.

    Args:
        styles: (N, num_styles, style_size).
        others: the same shape.
        share: of samples that are mixed.

    Source:
        Karras et al. 2019, arXiv:1812.04948, §3.1.
    """
    number, layers, _ = styles.shape
    first = torch.randint(1, layers, (number, 1), device=styles.device)
    is_mixed = torch.rand(number, 1, device=styles.device) < share
    taken = is_mixed & (torch.arange(layers, device=styles.device) >= first)
    return torch.where(taken.unsqueeze(2), others, styles)


class StyleDiscriminator(Critic):
    """Residual blocks that halve an image to a map of 4 to 7 voxels, whose features are judged where they are.

    Before that map it sees how much the samples of a batch differ, four by four, so that a generator that always draws
    the same is found out.

    Args:
        channels: of the images.
        size: of the images, (X, Y) or (X, Y, Z); odd ones are halved rounded up.
        condition_size: entries of a condition, which is projected; 0 for none.
        width: channels at full size; they double with every halving.
        max_width: most channels.

    Source:
        Karras et al. 2020, arXiv:1912.04958, fig. 7 (residual discriminator). Spread of the batch: Karras et al. 2018,
        arXiv:1710.10196, §3. Projection: Miyato & Koyama 2018, arXiv:1802.05637, eq. 3, over the root of the number
        of features.
    """

    keeps_own_weights = True

    def __init__(
        self, channels: int, size: Sequence[int], *, condition_size: int = 0, width: int = 32, max_width: int = 512
    ) -> None:
        sizes = shrinking(size)
        widths = widths_of(len(sizes), width, max_width)
        last, axes = widths[-1], len(size)
        super().__init__(size, last, condition_size)
        self.from_image = EqualConv(channels, widths[0], 1, axes, gain=GAIN)
        self.blocks = nn.ModuleList(_Halving(ins, outs, axes) for ins, outs in pairwise(widths))
        self.conv = EqualConv(last + 1, last, 3, axes, gain=GAIN)
        self.dense = EqualLinear(last * math.prod(sizes[-1]), last, gain=GAIN)
        self.head = EqualLinear(last, 1)
        if self.embedding is not None:
            self.embedding = EqualLinear(condition_size, last, bias=False, gain=1 / math.sqrt(last))

    def features(self, x: Tensor) -> Tensor:
        """(N, C, *size) to (N, num_features)."""
        x = leaky(self.from_image(x))
        for block in self.blocks:
            x = block(x)
        x = leaky(self.conv(torch.cat([x, spread(x)], dim=1)))
        return leaky(self.dense(x.flatten(1)))


class _Halving(nn.Module):
    """Two convs, the second of which halves, and past them a conv 1 of the halved maps; the sum keeps its size."""

    def __init__(self, ins: int, outs: int, spatial_dims: int) -> None:
        super().__init__()
        self.past = EqualConv(ins, outs, 1, spatial_dims, down=True, bias=False, gain=math.sqrt(0.5))
        self.first = EqualConv(ins, ins, 3, spatial_dims, gain=GAIN)
        self.second = EqualConv(ins, outs, 3, spatial_dims, down=True, gain=GAIN * math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        past: Tensor = self.past(x)
        return past + leaky(self.second(leaky(self.first(x))))


def spread(x: Tensor) -> Tensor:
    """How much samples differ: the standard deviation over groups of four, mean over channels and places, as one map.

    Where the batch is no multiple of four, groups are of three or two; a sample alone has no spread.

    Args:
        x: (N, C, *spatial).

    Returns:
        (N, 1, *spatial), the same number everywhere in a sample and for all of a group.
    """
    number = len(x)
    group = next(size for size in range(min(GROUP, number), 0, -1) if number % size == 0)
    variance = precise(x).reshape(group, -1, *x.shape[1:]).var(0, correction=0)
    each: Tensor = (variance + 1e-8).sqrt().flatten(1).mean(1).repeat(group)
    return each.view(-1, *[1] * (x.ndim - 1)).expand(-1, 1, *x.shape[2:]).to(x.dtype)
