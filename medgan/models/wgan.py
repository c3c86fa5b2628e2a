"""WGAN: a critic whose loss tells how far fakes are from images, with a gradient penalty or clipped weights."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from medgan.losses import gan
from medgan.models.base import Batch, Fakes, Kind, Losses
from medgan.models.noise import Conditional, FromNoise, Penalties
from medgan.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from medgan.penalties import clip_weights_
from medgan.settings import Settings

__all__ = ["WGAN", "WGANSettings"]


class WGANSettings(Settings):
    """The settings of WGAN; the defaults are those of WGAN-GP.

    Attributes:
        name: picks this model.
        latent_size: random numbers that an image is made of.
        width: channels of the generator before its last layer.
        width_d: channels of the critic after its first layer.
        critic_moves: of the critic for each of the generator.
        gradient_penalty: weight of the squared distance of the critic's gradient from length 1; 0 to clip instead.
        clip: largest weight of the critic, as in WGAN before the penalty (0.01 there); 0 for none.
        drift: weight of the squared logits of real images, 0.001 in progressive GANs.
    """

    conditional: ClassVar[Conditional] = "never"

    name: Literal["wgan"] = "wgan"
    latent_size: int = Field(default=128, ge=1)
    width: int = Field(default=64, ge=1)
    width_d: int = Field(default=64, ge=1)
    critic_moves: int = Field(default=5, ge=1, le=100)
    gradient_penalty: float = Field(default=10.0, ge=0)
    clip: float = Field(default=0.0, ge=0)
    drift: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _held_in_one_way(self) -> WGANSettings:
        if bool(self.gradient_penalty) == bool(self.clip):
            raise ValueError("the critic is held by gradient_penalty or by clip, one of them above 0 and the other 0")
        return self

    def build(self, kind: Kind) -> WGAN:
        """The game with fresh weights."""
        return WGAN(self, kind)


class WGAN(FromNoise):
    """Learns to make images like those it sees by lowering a distance that a critic estimates.

    The critic has no norm: batch norm would tie the samples whose gradients are held one by one.

    Args:
        settings: nets and losses.
        kind: of the images.

    Source:
        Arjovsky, Chintala, Bottou 2017, arXiv:1701.07875, algorithm 1. Penalty: Gulrajani et al. 2017,
        arXiv:1704.00028, eq. 3 and algorithm 1. Drift: Karras et al. 2018, arXiv:1710.10196, appendix A.1.
    """

    def __init__(self, settings: WGANSettings, kind: Kind) -> None:
        super().__init__(
            DCGANGenerator(settings.latent_size, kind.channels, kind.size, width=settings.width),
            DCGANDiscriminator(kind.channels, kind.size, width=settings.width_d, norm="none"),
            gan("wgan"),
            latent_size=settings.latent_size,
            penalties=Penalties(gradient=settings.gradient_penalty, drift=settings.drift),
            centred=False,
        )
        self.settings, self.warm_ups = settings, settings.critic_moves - 1

    def discriminator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`D_real`, `D_fake`, and `D_gradient` or none; weights are clipped before they are used.

        Clipped so, the critic that judges is within its bounds, as if they had been clipped after its last move.
        """
        self._clip()
        return super().discriminator_losses(batch, fakes)

    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`G_GAN`, by a critic within its bounds."""
        self._clip()
        return super().generator_losses(batch, fakes)

    @torch.no_grad()
    def _clip(self) -> None:
        if self.settings.clip:
            clip_weights_(self.critic, self.settings.clip)

    def distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """The critic's estimate of the distance between two sets of images (N, C, *spatial), of whatever N."""
        difference: Tensor = self.critic(real).mean() - self.critic(fake).mean()
        return difference
