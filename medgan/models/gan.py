"""The GAN as first published: fully connected nets. For lessons and for small images, not for results."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from medgan.losses import gan
from medgan.models.base import Kind
from medgan.models.noise import Conditional, FromNoise, Penalties
from medgan.nets.dcgan import DenseDiscriminator, DenseGenerator
from medgan.settings import Settings

__all__ = ["GAN", "GANSettings"]


class GANSettings(Settings):
    """The settings of the plain GAN.

    Attributes:
        name: picks this model.
        latent_size: random numbers that an image is made of.
        width: of the hidden layers of both nets.
        gan: `vanilla`, where the generator raises the logits of its fakes; `saturating`, where it plays the zero-sum
            game of the theory, and its gradient vanishes as soon as the discriminator wins.
        bounded: whether a tanh holds images in [-1, 1].
        penalties: what holds the discriminator's gradient; without any, as published, few of the kinds of images that
            there are may come.
    """

    conditional: ClassVar[Conditional] = "never"

    name: Literal["gan"] = "gan"
    latent_size: int = Field(default=64, ge=1)
    width: int = Field(default=256, ge=1)
    gan: Literal["vanilla", "saturating"] = "vanilla"
    bounded: bool = True
    penalties: Penalties = Penalties()

    def build(self, kind: Kind) -> GAN:
        """The game with fresh weights."""
        return GAN(self, kind)


class GAN(FromNoise):
    """Learns to make images like those it sees.

    Args:
        settings: nets and losses.
        kind: of the images.

    Source:
        Goodfellow et al. 2014, arXiv:1406.2661, eq. 1 and §3.
    """

    def __init__(self, settings: GANSettings, kind: Kind) -> None:
        super().__init__(
            DenseGenerator(
                settings.latent_size, kind.channels, kind.size, width=settings.width, bounded=settings.bounded
            ),
            DenseDiscriminator(kind.channels, kind.size, width=settings.width),
            gan(settings.gan),
            latent_size=settings.latent_size,
            penalties=settings.penalties,
        )
        self.settings = settings
