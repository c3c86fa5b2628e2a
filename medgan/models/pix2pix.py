"""pix2pix: paired translation by a U-Net that a conditional PatchGAN judges."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from medgan.errors import InputError
from medgan.losses import gan, l1
from medgan.models.base import Batch, Fakes, Losses, Player, Translator, Verdicts
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


class Pix2pix(Translator):
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

    order: tuple[Player, ...] = ("discriminator", "generator")

    def __init__(self, settings: Pix2pixSettings, *, in_channels: int, out_channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.settings = settings
        self.gan = gan(settings.gan)
        self.generators = nn.ModuleDict({"b": settings.generator.build(in_channels, out_channels, spatial_dims)})
        self.discriminators = nn.ModuleDict(
            {"b": settings.discriminator.build(in_channels + out_channels, spatial_dims)}
        )

    def generate(self, batch: Batch) -> Fakes:
        """{"b": the translation of a}."""
        a, _ = batch.pair()
        return {"b": self.translate(a)}

    def discriminator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`D_fake` and `D_real`, half of the adversarial loss each."""
        a, b = batch.pair()
        return {
            "D_fake": 0.5 * self.gan.fake(self._judge(a, fakes["b"])),
            "D_real": 0.5 * self.gan.real(self._judge(a, b)),
        }

    def judge(self, batch: Batch, fakes: Fakes) -> Verdicts:
        """Of a next to b, and of a next to the fake."""
        a, b = batch.pair()
        return {"b": (self._judge(a, b) - self.gan.middle, self._judge(a, fakes["b"]) - self.gan.middle)}

    def generator_losses(self, batch: Batch, fakes: Fakes) -> Losses:
        """`G_GAN`, and `G_L1` times `lambda_l1`, within the mask if the batch has one."""
        a, b = batch.pair()
        return {
            "G_GAN": self.gan.fool(self._judge(a, fakes["b"])),
            "G_L1": self.settings.lambda_l1 * l1(fakes["b"], b, batch.mask),
        }

    def translate(self, x: Tensor, to: str = "b") -> Tensor:
        """(N, in_channels, *spatial) to (N, out_channels, *spatial) in [-1, 1].

        Raises:
            InputError: if `to` is not "b": pix2pix learns one direction.
        """
        if to != "b":
            raise InputError(f"pix2pix translates from a to b only; seen to={to!r}; swap a and b and train again")
        fake: Tensor = self.generators["b"](x)
        return fake

    def _judge(self, a: Tensor, b: Tensor) -> Tensor:
        logits: Tensor = self.discriminators["b"](torch.cat([a, b], 1))
        return logits
