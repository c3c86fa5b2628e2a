"""The models: one file each, and one union of their settings, which is the whole registry.

A new model is a file with its settings and its class, a member of the union below and a YAML in configs/.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from medgan.models.base import Batch, Fakes, Game, Kind, Losses, Player, Sampler, Translator
from medgan.models.cgan import CGAN, CGANSettings
from medgan.models.cut import CUT, CUTSettings
from medgan.models.cyclegan import CycleGAN, CycleGANSettings
from medgan.models.dcgan import DCGAN, DCGANSettings
from medgan.models.gan import GAN, GANSettings
from medgan.models.pix2pix import Pix2pix, Pix2pixSettings
from medgan.models.r3gan import R3GAN, R3GANSettings
from medgan.models.stylegan2 import StyleGAN2, StyleGAN2Settings
from medgan.models.supervised import Supervised, SupervisedSettings
from medgan.models.wgan import WGAN, WGANSettings

__all__ = [
    "CGAN",
    "CUT",
    "DCGAN",
    "GAN",
    "R3GAN",
    "SAMPLERS",
    "WGAN",
    "Batch",
    "CGANSettings",
    "CUTSettings",
    "CycleGAN",
    "CycleGANSettings",
    "DCGANSettings",
    "Fakes",
    "GANSettings",
    "Game",
    "Kind",
    "Losses",
    "ModelSettings",
    "Pix2pix",
    "Pix2pixSettings",
    "Player",
    "R3GANSettings",
    "Sampler",
    "SamplerSettings",
    "StyleGAN2",
    "StyleGAN2Settings",
    "Supervised",
    "SupervisedSettings",
    "Translator",
    "WGANSettings",
    "build",
    "build_sampler",
]

ModelSettings: TypeAlias = Annotated[
    Pix2pixSettings | SupervisedSettings | CycleGANSettings | CUTSettings, Field(discriminator="name")
]

SamplerSettings: TypeAlias = Annotated[
    GANSettings | DCGANSettings | WGANSettings | CGANSettings | StyleGAN2Settings | R3GANSettings,
    Field(discriminator="name"),
]
SAMPLERS = ("gan", "dcgan", "wgan", "cgan", "stylegan2", "r3gan")


def build(settings: ModelSettings, *, in_channels: int, out_channels: int, spatial_dims: int) -> Game:
    """The game that the settings describe, its weights drawn from torch's global random numbers.

    Args:
        settings: a member of the union, told apart by its `name`.
        in_channels: channels of a, neighbouring slices included.
        out_channels: channels of b.
        spatial_dims: 2 for slices, 3 for volumes.

    Raises:
        ConfigError: if the nets cannot be built with these numbers.
    """
    return settings.build(in_channels=in_channels, out_channels=out_channels, spatial_dims=spatial_dims)


def build_sampler(settings: SamplerSettings, kind: Kind) -> Sampler:
    """The game of a sampler, its weights drawn from torch's global random numbers.

    Args:
        settings: a member of the union, told apart by its `name`.
        kind: of the images that it makes.
    """
    return settings.build(kind)
