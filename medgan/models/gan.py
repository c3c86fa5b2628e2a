"""The GAN as first published: fully connected nets. For lessons and for small images, not for results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from medgan.losses import gan
from medgan.models.noise import Conditional, FromNoise
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
    """

    conditional: ClassVar[Conditional] = "never"

    name: Literal["gan"] = "gan"
    latent_size: int = Field(default=64, ge=1)
    width: int = Field(default=256, ge=1)
    gan: Literal["vanilla", "saturating"] = "vanilla"
    bounded: bool = True

    def build(self, *, channels: int, size: Sequence[int], groups: Sequence[int] = ()) -> GAN:  # noqa: ARG002
        """The game with fresh weights."""
        return GAN(self, channels=channels, size=size)


class GAN(FromNoise):
    """Learns to make images like those it sees.

    Args:
        settings: nets and losses.
        channels: of the images.
        size: of the images, (X, Y) or (X, Y, Z).

    Source:
        Goodfellow et al. 2014, arXiv:1406.2661, eq. 1 and §3.
    """

    def __init__(self, settings: GANSettings, *, channels: int, size: Sequence[int]) -> None:
        super().__init__(
            DenseGenerator(settings.latent_size, channels, size, width=settings.width, bounded=settings.bounded),
            DenseDiscriminator(channels, size, width=settings.width),
            gan(settings.gan),
            latent_size=settings.latent_size,
        )
        self.settings = settings
