"""DCGAN: convolutions and batch norm, the plainest sampler of images that works."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from medgan.losses import gan
from medgan.models.base import Kind
from medgan.models.noise import Conditional, FromNoise, Penalties
from medgan.nets.dcgan import DCGANDiscriminator, DCGANGenerator, NormInCritic
from medgan.settings import Settings

__all__ = ["DCGAN", "DCGANSettings"]


class DCGANSettings(Settings):
    """The settings of DCGAN; the defaults are the published ones.

    Attributes:
        name: picks this model.
        latent_size: random numbers that an image is made of.
        width: channels of the generator before its last layer.
        width_d: channels of the discriminator after its first layer.
        norm: of the discriminator: `batch` as published, `spectral` or `none`.
        gan: the adversarial loss.
        penalties: what holds the discriminator's gradient; none as published.
    """

    conditional: ClassVar[Conditional] = "never"

    name: Literal["dcgan"] = "dcgan"
    latent_size: int = Field(default=100, ge=1)
    width: int = Field(default=64, ge=1)
    width_d: int = Field(default=64, ge=1)
    norm: NormInCritic = "batch"
    gan: Literal["vanilla", "lsgan", "hinge"] = "vanilla"
    penalties: Penalties = Penalties()

    def build(self, kind: Kind) -> DCGAN:
        """The game with fresh weights."""
        return DCGAN(self, kind)


class DCGAN(FromNoise):
    """Learns to make images like those it sees, by strided convolutions.

    Args:
        settings: nets and losses.
        kind: of the images.

    Source:
        Radford, Metz, Chintala 2016, arXiv:1511.06434, §3.
    """

    def __init__(self, settings: DCGANSettings, kind: Kind) -> None:
        super().__init__(
            DCGANGenerator(settings.latent_size, kind.channels, kind.size, width=settings.width),
            DCGANDiscriminator(kind.channels, kind.size, width=settings.width_d, norm=settings.norm),
            gan(settings.gan),
            latent_size=settings.latent_size,
            penalties=settings.penalties,
        )
        self.settings = settings
