"""pix2pix: paired translation by a U-Net that a conditional PatchGAN judges."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from medgan.losses import gan, l1
from medgan.models.base import Batch, Fakes, Losses
from medgan.models.conditional import Conditional
from medgan.models.players import DiscriminatorSettings, GeneratorSettings
from medgan.settings import Settings

__all__ = ["Pix2pix", "Pix2pixSettings"]


class Pix2pixGeneratorSettings(GeneratorSettings):
    """A generator that drops features unless told otherwise: pix2pix takes its noise from there."""

    dropout: bool = True


class Pix2pixSettings(Settings):
    """The settings of pix2pix; the defaults are the published ones.

    Attributes:
        name: picks this model.
        generator: `unet_256` with batch norm and dropout, width 64.
        discriminator: the 70×70 PatchGAN with batch norm, width 64.
        gan: the adversarial loss.
        lambda_l1: weight of the L1 distance to the true image, against 1 for the adversarial loss.
    """

    paired: ClassVar[bool] = True

    name: Literal["pix2pix"] = "pix2pix"
    generator: Pix2pixGeneratorSettings = Pix2pixGeneratorSettings()
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    gan: Literal["vanilla", "lsgan", "hinge"] = "vanilla"
    lambda_l1: float = Field(default=100.0, ge=0)

    def build(self, *, in_channels: int, out_channels: int, spatial_dims: int) -> Pix2pix:
        """The game with fresh weights."""
        return Pix2pix(self, in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims)


class Pix2pix(Conditional):
    """Learns b from a, voxel for voxel, in pairs.

    The discriminator sees a next to b or next to the fake; the generator wants its fake taken for real and near b.

    Args:
        settings: nets and weights.
        in_channels: channels of a.
        out_channels: channels of b.
        spatial_dims: 2 or 3.

    Source:
        Isola et al. 2017, arXiv:1611.07004: eq. 4 (objective), §3.3 (the discriminator's objective is halved).
    """

    def __init__(self, settings: Pix2pixSettings, *, in_channels: int, out_channels: int, spatial_dims: int) -> None:
        generator = settings.generator.build(in_channels, out_channels, spatial_dims)
        discriminator = settings.discriminator.build(in_channels + out_channels, spatial_dims)
        super().__init__(settings.name, generator, discriminator, gan(settings.gan))
        self.settings = settings

    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`G_GAN`, and `G_L1` times `lambda_l1`, within the mask if the batch has one."""
        a, b = batch.pair()
        return {
            "G_GAN": self.gan.fool(self.verdict(a, fakes["b"])),
            "G_L1": self.settings.lambda_l1 * l1(fakes["b"], b, batch.mask),
        }
