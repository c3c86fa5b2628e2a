"""Supervised translation: a net that learns b from a by being near to it, with or without a discriminator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from medgan import nets
from medgan.errors import InputError
from medgan.losses import gan, gradient_difference, l1, ssim_distance
from medgan.models.base import Batch, Fakes, Losses
from medgan.models.conditional import Conditional, PairedDiscriminatorSettings
from medgan.models.perceptual import PerceptualSettings
from medgan.models.players import GeneratorSettings
from medgan.settings import Settings

__all__ = ["Supervised", "SupervisedSettings"]

SSIM_WINDOW = 11


class SupervisedGeneratorSettings(GeneratorSettings):
    """A U-Net with a residual encoder unless told otherwise."""

    name: nets.GeneratorName = "res_unet_32"
    width: int = Field(default=32, ge=1)
    norm: nets.NormName = "instance"


class SupervisedSettings(Settings):
    """The settings of supervised translation.

    Attributes:
        name: picks this model.
        generator: `res_unet_32` with instance norm, width 32.
        discriminator: none, or a PatchGAN that sees a next to b, as in pix2pix, at one scale or several.
        gan: the adversarial loss, if there is a discriminator.
        lambda_gan: its weight.
        lambda_l1: weight of the L1 distance to the true image.
        lambda_ssim: weight of 1 − SSIM, windows of 11 voxels; 0 leaves it out.
        lambda_gradient: weight of the L1 distance between the images' differences from voxel to voxel; 0 leaves it out.
        lambda_feature: weight of the distance between what the discriminator sees in the fake and in the true image;
            0 leaves it out.
        perceptual: a loss by the features of a net trained elsewhere, from a file or a package; null for none.
    """

    paired: ClassVar[bool] = True

    name: Literal["supervised"] = "supervised"
    generator: SupervisedGeneratorSettings = SupervisedGeneratorSettings()
    discriminator: PairedDiscriminatorSettings | None = None
    gan: Literal["vanilla", "lsgan", "hinge"] = "lsgan"
    lambda_gan: float = Field(default=0.01, gt=0)
    lambda_l1: float = Field(default=1.0, ge=0)
    lambda_ssim: float = Field(default=0.0, ge=0)
    lambda_gradient: float = Field(default=0.0, ge=0)
    lambda_feature: float = Field(default=0.0, ge=0)
    perceptual: PerceptualSettings | None = None

    @model_validator(mode="after")
    def _something_to_learn_from(self) -> SupervisedSettings:
        if not (self.lambda_l1 or self.lambda_ssim or self.lambda_gradient or self.perceptual):
            raise ValueError("lambda_l1, lambda_ssim and lambda_gradient are all 0, so nothing is learnt; set one")
        if self.lambda_feature and self.discriminator is None:
            raise ValueError("lambda_feature compares what the discriminator sees, and there is none; set it to 0")
        return self

    def build(self, *, in_channels: int, out_channels: int, spatial_dims: int) -> Supervised:
        """The game with fresh weights."""
        return Supervised(self, in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims)


class Supervised(Conditional):
    """Learns b from a, voxel for voxel, in pairs, from distances alone or with a discriminator beside them.

    Args:
        settings: nets and weights.
        in_channels: channels of a.
        out_channels: channels of b.
        spatial_dims: 2 or 3.

    Source:
        SSIM as a loss: Zhao et al. 2017, "Loss Functions for Image Restoration with Neural Networks",
        arXiv:1511.08861, §III-B. Differences of gradients: Mathieu, Couprie, LeCun 2016, arXiv:1511.05440, eq. 6 with
        α = 1.
    """

    def __init__(self, settings: SupervisedSettings, *, in_channels: int, out_channels: int, spatial_dims: int) -> None:
        generator = settings.generator.build(in_channels, out_channels, spatial_dims)
        judge = settings.discriminator
        discriminator = judge.build(in_channels + out_channels, spatial_dims) if judge else None
        super().__init__(
            settings.name,
            generator,
            discriminator,
            gan(settings.gan),
            out_channels=out_channels,
            lambda_feature=settings.lambda_feature,
            perceptual=settings.perceptual,
        )
        self.settings = settings

    def require_size(self, size: Sequence[int]) -> None:
        """Refuse patches of a size, voxels, that a net or the windows of SSIM cannot take.

        Raises:
            InputError: naming the size and what would fit.
        """
        super().require_size(size)
        if self.settings.lambda_ssim and min(size) < SSIM_WINDOW:
            seen = "×".join(str(n) for n in size)
            raise InputError(
                f"a patch of {seen} is smaller than the windows of SSIM, {SSIM_WINDOW} voxels a side; "
                "cut larger ones or set model.lambda_ssim to 0"
            )

    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`G_L1`, `G_SSIM`, `G_gradient`, `G_GAN`, `G_feature` and `G_perceptual`, weighted.

        Those of weight 0 are left out. The first three count voxels as the batch's mask says.
        """
        (_, b), fake, weights = batch.pair(), fakes["b"], self.settings
        masks = batch.mask, batch.mean_mask
        losses: Losses = {}
        if weights.lambda_l1:
            losses["G_L1"] = weights.lambda_l1 * l1(fake, b, *masks)
        if weights.lambda_ssim:
            losses["G_SSIM"] = weights.lambda_ssim * ssim_distance(fake, b, *masks, window=SSIM_WINDOW)
        if weights.lambda_gradient:
            losses["G_gradient"] = weights.lambda_gradient * gradient_difference(fake, b, *masks)
        if self.discriminators:
            losses |= self.adversarial_losses(batch, fakes, weights.lambda_gan)
        return losses | self.perceptual_losses(fake, b)
