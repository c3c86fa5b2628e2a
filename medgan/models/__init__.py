"""The models: one file each, and one union of their settings, which is the whole registry.

A new model is a file with its settings and its class, a member of the union below and a YAML in configs/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import Field

from medgan.models.base import Batch, Fakes, Game, Losses, Player, Sampler, Translator
from medgan.models.cgan import CGAN, CGANSettings
from medgan.models.cut import CUT, CUTSettings
from medgan.models.cyclegan import CycleGAN, CycleGANSettings
from medgan.models.dcgan import DCGAN, DCGANSettings
from medgan.models.gan import GAN, GANSettings
from medgan.models.pix2pix import Pix2pix, Pix2pixSettings
from medgan.models.supervised import Supervised, SupervisedSettings
from medgan.models.wgan import WGAN, WGANSettings

__all__ = [
    "CGAN",
    "CUT",
    "DCGAN",
    "GAN",
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
    "Losses",
    "ModelSettings",
    "Pix2pix",
    "Pix2pixSettings",
    "Player",
    "Sampler",
    "SamplerSettings",
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
    GANSettings | DCGANSettings | WGANSettings | CGANSettings, Field(discriminator="name")
]
SAMPLERS = ("gan", "dcgan", "wgan", "cgan")


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


def build_sampler(
    settings: SamplerSettings, *, channels: int, size: Sequence[int], groups: Sequence[int] = ()
) -> Sampler:
    """The game of a sampler, its weights drawn from torch's global random numbers.

    Args:
        settings: a member of the union, told apart by its `name`.
        channels: of the images.
        size: of the images, (X, Y) or (X, Y, Z), voxels.
        groups: entries of each condition, in their order.
    """
    return settings.build(channels=channels, size=size, groups=groups)
