"""StyleGAN2 with adaptive augmentation: the sampler for a few hundred to a few thousand images."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from medgan.losses import gan
from medgan.models.base import Batch, Fakes, Kind, Losses
from medgan.models.noise import AdaptiveSettings, Conditional, FromNoise, Penalties
from medgan.nets.style import StyleDiscriminator, StyleGenerator
from medgan.penalties import path_length
from medgan.settings import Settings

__all__ = ["StyleGAN2", "StyleGAN2Settings"]


class StyleGAN2Settings(Settings):
    """The settings of StyleGAN2.

    Attributes:
        name: picks this model.
        latent_size: random numbers that an image is made of.
        style_size: entries of a style.
        mapping_layers: between the two; 8 as published, 2 for small sets.
        width: channels at full size, of both nets; they double with every halving.
        max_width: most channels.
        r1: γ of the gradient penalty on real images; as a start 0.0002 · voxels of an image / batch, then ×2 or ÷2:
            more is steadier and less diverse.
        r1_every: moves of the discriminator between two penalties, each as many times as strong.
        path_length: weight of the path length penalty of the generator; 0 for none.
        path_every: moves of the generator between two of those.
        mixing: share of images whose finer sizes take another style; 0 for images up to 32 voxels wide.
        adaptive: changes of what the discriminator sees, stronger the better it knows the images; null for none.
    """

    conditional: ClassVar[Conditional] = "may"

    name: Literal["stylegan2"] = "stylegan2"
    latent_size: int = Field(default=128, ge=1)
    style_size: int = Field(default=128, ge=1)
    mapping_layers: int = Field(default=2, ge=1, le=8)
    width: int = Field(default=32, ge=1)
    max_width: int = Field(default=512, ge=1)
    r1: float = Field(default=0.1, ge=0)
    r1_every: int = Field(default=16, ge=1)
    path_length: float = Field(default=2.0, ge=0)
    path_every: int = Field(default=4, ge=1)
    mixing: float = Field(default=0.0, ge=0, le=1)
    adaptive: AdaptiveSettings | None = AdaptiveSettings()

    def build(self, kind: Kind) -> StyleGAN2:
        """The game with fresh weights."""
        return StyleGAN2(self, kind)


class StyleGAN2(FromNoise):
    """Learns to make images like those it sees, by styles.

    `truncation` draws styles towards their mean: 1 for all of the diversity, 0 for the mean image alone.

    Args:
        settings: nets and losses.
        kind: of the images.

    Source:
        Karras et al. 2020, arXiv:1912.04958; adaptive augmentation: Karras et al. 2020, arXiv:2006.06676.
    """

    mean_length: Tensor
    generator_moves: Tensor

    def __init__(self, settings: StyleGAN2Settings, kind: Kind) -> None:
        condition_size, widths = sum(kind.groups), {"width": settings.width, "max_width": settings.max_width}
        adaptive = settings.adaptive
        super().__init__(
            StyleGenerator(
                settings.latent_size,
                kind.channels,
                kind.size,
                condition_size=condition_size,
                style_size=settings.style_size,
                mapping_layers=settings.mapping_layers,
                **widths,
            ),
            StyleDiscriminator(kind.channels, kind.size, condition_size=condition_size, **widths),
            gan("vanilla"),
            latent_size=settings.latent_size,
            penalties=Penalties(r1=settings.r1, every=settings.r1_every),
            groups=kind.groups,
            adaptive=(adaptive.build(kind), adaptive.target) if adaptive else None,
        )
        self.settings = settings
        self.register_buffer("mean_length", torch.zeros(()))
        self.register_buffer("generator_moves", torch.zeros((), dtype=torch.long))

    def generate(self, batch: Batch) -> Fakes:
        """`b`: as many images as the batch has, with the conditions of those; some of two styles."""
        z = self.noise(batch.images())
        return {"b": self.maker(z, batch.condition, mixing=self.settings.mixing if self.training else 0.0)}

    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`G_GAN`, and when it is due `G_path`, of as many images as half of the batch has."""
        losses = super().generator_losses(batch, fakes)
        if not self.settings.path_length:
            return losses
        due = int(self.generator_moves) % self.settings.path_every == 0
        self.generator_moves += 1
        return losses | ({"G_path": self._uneven(batch)} if due else {})

    def _uneven(self, batch: Batch) -> Tensor:
        rows, maker = max(1, len(batch.images()) // 2), cast(StyleGenerator, self.maker)
        z, condition = self.noise(batch.images()[:rows]), batch.condition
        asked = None if condition is None else condition[:rows]
        images, styles = maker(z, asked, mixing=self.settings.mixing, with_styles=True)
        penalty, mean = path_length(images, styles, self.mean_length)
        self.mean_length.copy_(mean)
        return penalty * self.settings.path_length * self.settings.path_every

    def sample(self, z: Tensor, condition: Tensor | None = None, truncation: float | None = None) -> Tensor:
        """(N, latent_size) normal random numbers to images (N, C, *spatial) in [-1, 1].

        Args:
            z: of each image its own.
            condition: (N, K), what is asked for.
            truncation: ψ, the share of its way from the mean style that a style keeps; None or 1 for all.
        """
        x: Tensor = self.maker(z, condition, truncation=1.0 if truncation is None else truncation)
        return x.clamp(-1, 1)
