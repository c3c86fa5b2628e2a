"""pix2pix: paired translation by a U-Net that a conditional PatchGAN judges, also of pairs that lie a little apart."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from torch import nn

from medgan.losses import gan, l1, roughness
from medgan.models.base import Batch, Fakes, Losses
from medgan.models.conditional import Conditional, PairedDiscriminatorSettings
from medgan.models.perceptual import PerceptualSettings
from medgan.models.players import GeneratorSettings
from medgan.nets.registration import RegistrationNet, warp
from medgan.settings import Settings

__all__ = ["Pix2pix", "Pix2pixSettings", "RegistrationSettings"]


class Pix2pixGeneratorSettings(GeneratorSettings):
    """A generator that drops features unless told otherwise: pix2pix takes its noise from there."""

    dropout: bool = True


class RegistrationSettings(Settings):
    """A net that bends the fake onto the target before the two are compared, as in RegGAN.

    Attributes:
        lambda_smooth: weight of changes of the displacement from voxel to voxel, as a share of `lambda_l1`.
        width: channels of the net at full size.
    """

    lambda_smooth: float = Field(default=0.5, gt=0)
    width: int = Field(default=32, ge=1)


class Pix2pixSettings(Settings):
    """The settings of pix2pix; the defaults are the published ones.

    Attributes:
        name: picks this model.
        generator: `unet_256` with batch norm and dropout, width 64.
        discriminator: the 70×70 PatchGAN with batch norm, width 64, at one scale.
        gan: the adversarial loss.
        lambda_l1: weight of the L1 distance to the true image, against 1 for the adversarial loss.
        lambda_feature: weight of the distance between what the discriminator sees in the fake and in the true image;
            0 leaves it out. pix2pixHD has 10.
        perceptual: a loss by the features of a net trained elsewhere, from a file or a package; null for none.
        registration: bends the fake before it is compared with the target, for pairs that are not registered well;
            true for its defaults, null for none.
    """

    paired: ClassVar[bool] = True

    name: Literal["pix2pix"] = "pix2pix"
    generator: Pix2pixGeneratorSettings = Pix2pixGeneratorSettings()
    discriminator: PairedDiscriminatorSettings = PairedDiscriminatorSettings()
    gan: Literal["vanilla", "lsgan", "hinge"] = "vanilla"
    lambda_l1: float = Field(default=100.0, ge=0)
    lambda_feature: float = Field(default=0.0, ge=0)
    perceptual: PerceptualSettings | None = None
    registration: RegistrationSettings | None = None

    @field_validator("registration", mode="before")
    @classmethod
    def _one_switch(cls, given: object) -> object:
        """True for its defaults, false for none."""
        return ({} if given else None) if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _registration_learns(self) -> Pix2pixSettings:
        if self.registration and not self.lambda_l1:
            raise ValueError("registration learns from the L1 loss, and lambda_l1 is 0; set it to 20")
        if self.registration and self.lambda_feature:
            raise ValueError(
                "lambda_feature compares fake and target place by place, where registration takes them to lie apart; "
                "set it to 0, or leave registration out"
            )
        return self

    def build(self, *, in_channels: int, out_channels: int, spatial_dims: int) -> Pix2pix:
        """The game with fresh weights."""
        return Pix2pix(self, in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims)


class Pix2pix(Conditional):
    """Learns b from a, voxel for voxel, in pairs.

    The discriminator sees a next to b or next to the fake; the generator wants its fake taken for real and near b.

    With registration, a helper R learns along that sees the fake and b and says how the fake has to be bent to lie on
    b; only then are the two compared. The discriminator sees b or the fake alone: next to a it could tell real pairs by
    their lying apart, and the generator would learn to move the anatomy.

    Args:
        settings: nets and weights.
        in_channels: channels of a.
        out_channels: channels of b.
        spatial_dims: 2 or 3.

    Source:
        Isola et al. 2017, arXiv:1611.07004: eq. 4 (objective), §3.3 (the discriminator's objective is halved). Several
        scales, features: Wang et al. 2018, arXiv:1711.11585, eq. 3 to 5. Registration: Kong et al. 2021,
        arXiv:2110.06465, §3, its mode NC+R.
    """

    def __init__(self, settings: Pix2pixSettings, *, in_channels: int, out_channels: int, spatial_dims: int) -> None:
        sees_source = settings.registration is None
        generator = settings.generator.build(in_channels, out_channels, spatial_dims)
        discriminator = settings.discriminator.build(in_channels * sees_source + out_channels, spatial_dims)
        super().__init__(
            settings.name,
            generator,
            discriminator,
            gan(settings.gan),
            out_channels=out_channels,
            lambda_feature=settings.lambda_feature,
            perceptual=settings.perceptual,
            sees_source=sees_source,
        )
        self.settings = settings
        if settings.registration:
            net = RegistrationNet(2 * out_channels, spatial_dims, width=settings.registration.width)
            self.helpers = nn.ModuleDict({"registration": net})

    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`G_GAN`, and `G_L1` times `lambda_l1`, within the mask if the batch has one.

        With registration `G_correction`, the L1 distance of the bent fake, and `G_smooth` in place of `G_L1`. Beside
        them `G_feature` and `G_perceptual` if they are asked for; the bent fake is what the latter sees.
        """
        (_, b), fake, weight = batch.pair(), fakes["b"], self.settings.lambda_l1
        losses = self.adversarial_losses(batch, fakes)
        if not self.settings.registration:
            losses["G_L1"] = weight * l1(fake, b, batch.mask, batch.mean_mask)
            return losses | self.perceptual_losses(fake, b)
        displacement = self.helpers["registration"](fake, b)
        bent = warp(fake, displacement)
        losses["G_correction"] = weight * l1(bent, b, batch.mask, batch.mean_mask)
        losses["G_smooth"] = weight * self.settings.registration.lambda_smooth * roughness(displacement)
        return losses | self.perceptual_losses(bent, b)
