"""The conditional GAN: images of a class, of an age, of a diameter."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from medgan.losses import gan
from medgan.models.base import Kind
from medgan.models.noise import Conditional, FromNoise, Penalties
from medgan.nets.dcgan import DCGANDiscriminator, DCGANGenerator, NormInCritic
from medgan.settings import Settings

__all__ = ["CGAN", "CGANSettings"]


class CGANSettings(Settings):
    """The settings of the conditional GAN.

    Attributes:
        name: picks this model.
        latent_size: random numbers that an image is made of.
        width: channels of the generator before its last layer.
        width_d: channels of the discriminator after its first layer.
        told: how the nets know what is asked for. `projection`: the generator's norms hang on it, and the
            discriminator compares it with its features. `concat`: it stands beside the random numbers and beside the
            image. `classifier`: the discriminator guesses it (AC-GAN), which makes classes purer and images more
            alike.
        norm: of the discriminator.
        gan: the adversarial loss.
        critic_moves: of the discriminator for each of the generator.
        penalties: what holds the discriminator's gradient.
    """

    conditional: ClassVar[Conditional] = "always"

    name: Literal["cgan"] = "cgan"
    latent_size: int = Field(default=128, ge=1)
    width: int = Field(default=64, ge=1)
    width_d: int = Field(default=64, ge=1)
    told: Literal["projection", "concat", "classifier"] = "projection"
    norm: NormInCritic = "spectral"
    gan: Literal["vanilla", "lsgan", "hinge"] = "hinge"
    critic_moves: int = Field(default=1, ge=1, le=100)
    penalties: Penalties = Penalties()

    def build(self, kind: Kind) -> CGAN:
        """The game with fresh weights."""
        return CGAN(self, kind)


class CGAN(FromNoise):
    """Learns to make images of what it is asked for.

    Args:
        settings: nets and losses.
        kind: of the images.

    Source:
        Mirza & Osindero 2014, arXiv:1411.1784 (`concat`); Odena, Olah, Shlens 2017, arXiv:1610.09585
        (`classifier`); Miyato & Koyama 2018, arXiv:1802.05637 (`projection`).
    """

    def __init__(self, settings: CGANSettings, kind: Kind) -> None:
        condition_size, concat = sum(kind.groups), settings.told == "concat"
        super().__init__(
            DCGANGenerator(
                settings.latent_size,
                kind.channels,
                kind.size,
                condition_size=condition_size,
                width=settings.width,
                concat=concat,
            ),
            DCGANDiscriminator(
                kind.channels,
                kind.size,
                condition_size=condition_size,
                width=settings.width_d,
                norm=settings.norm,
                concat=concat,
                tells_condition=settings.told == "classifier",
            ),
            gan(settings.gan),
            latent_size=settings.latent_size,
            penalties=settings.penalties,
            groups=kind.groups,
        )
        self.settings, self.warm_ups = settings, settings.critic_moves - 1
