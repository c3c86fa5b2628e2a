"""R3GAN: a relativistic loss with both gradient penalties, and nothing else: steady where other losses need tricks."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from medgan.losses import gan
from medgan.models.base import Batch, Fakes, Kind, Losses
from medgan.models.noise import AdaptiveSettings, Conditional, FromNoise, Penalties
from medgan.nets.residual_gan import ResidualDiscriminator, ResidualGenerator
from medgan.penalties import relativistic
from medgan.settings import Settings

__all__ = ["R3GAN", "R3GANSettings"]


class R3GANSettings(Settings):
    """The settings of R3GAN.

    Attributes:
        name: picks this model.
        latent_size: random numbers that an image is made of.
        width: channels at full size, of both nets; they double with every halving.
        max_width: most channels.
        gamma: of both gradient penalties; more is steadier and less diverse.
        every: moves of the discriminator between two penalties; 1 as published.
        adaptive: changes of what the discriminator sees; null for none, which suits 10,000 images and more.
    """

    conditional: ClassVar[Conditional] = "may"

    name: Literal["r3gan"] = "r3gan"
    latent_size: int = Field(default=64, ge=1)
    width: int = Field(default=32, ge=1)
    max_width: int = Field(default=512, ge=1)
    gamma: float = Field(default=0.5, gt=0)
    every: int = Field(default=1, ge=1)
    adaptive: AdaptiveSettings | None = None

    def build(self, kind: Kind) -> R3GAN:
        """The game with fresh weights."""
        return R3GAN(self, kind)


class R3GAN(FromNoise):
    """Learns to make images that are taken for more real than the real ones, pair by pair.

    Args:
        settings: nets and losses.
        kind: of the images.

    Source:
        Huang et al. 2024, "The GAN is dead; long live the GAN!", arXiv:2501.05441, eq. 2 and §2.2.
    """

    def __init__(self, settings: R3GANSettings, kind: Kind) -> None:
        condition_size, widths = sum(kind.groups), {"width": settings.width, "max_width": settings.max_width}
        adaptive = settings.adaptive
        super().__init__(
            ResidualGenerator(settings.latent_size, kind.channels, kind.size, condition_size=condition_size, **widths),
            ResidualDiscriminator(kind.channels, kind.size, condition_size=condition_size, **widths),
            gan("vanilla"),
            latent_size=settings.latent_size,
            penalties=Penalties(r1=settings.gamma, r2=settings.gamma, every=settings.every),
            groups=kind.groups,
            centred=False,
            adaptive=(adaptive.build(kind), adaptive.target) if adaptive else None,
        )
        self.settings = settings

    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`G_GAN`, each fake against a real image."""
        with torch.no_grad():
            real = self.critic(self.seen(batch.images()), batch.condition)
        return {"G_GAN": relativistic(self.critic(self.seen(fakes["b"]), batch.condition), real)}

    def discriminator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`D_GAN`, each real image against a fake, and when they are due `D_R1` and `D_R2`."""
        real, fake = self.seen(batch.images()), self.seen(fakes["b"])
        of_real, of_fake = (self.critic(x, batch.condition) for x in (real, fake))
        self.follow((of_real - of_fake).detach())
        return {"D_GAN": relativistic(of_real, of_fake)} | self.held(batch, fakes)
