"""The models: one file each, and one union of their settings, which is the whole registry.

A new model is a file with its settings and its class, a member of the union below and a YAML in configs/.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from medgan.models.base import Batch, Fakes, Game, Losses, Player, Translator
from medgan.models.cut import CUT, CUTSettings
from medgan.models.cyclegan import CycleGAN, CycleGANSettings
from medgan.models.pix2pix import Pix2pix, Pix2pixSettings
from medgan.models.supervised import Supervised, SupervisedSettings

__all__ = [
    "CUT",
    "Batch",
    "CUTSettings",
    "CycleGAN",
    "CycleGANSettings",
    "Fakes",
    "Game",
    "Losses",
    "ModelSettings",
    "Pix2pix",
    "Pix2pixSettings",
    "Player",
    "Supervised",
    "SupervisedSettings",
    "Translator",
    "build",
]

ModelSettings: TypeAlias = Annotated[
    Pix2pixSettings | SupervisedSettings | CycleGANSettings | CUTSettings, Field(discriminator="name")
]


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
