"""The settings of the nets that play: as published, changed where a YAML says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor

from medgan import nets
from medgan.settings import Settings

__all__ = ["DiscriminatorSettings", "GeneratorSettings", "in_one_pass"]


class GeneratorSettings(Settings):
    """The net that makes images.

    Attributes:
        name: the U-Net's number is the least patch size and its divisor; resnets take multiples of 4, `swin_unetr` of
            32.
        width: channels at full resolution (ngf); less is faster and blurrier. A multiple of 12 for `swin_unetr`.
        norm: `batch` as in pix2pix, `instance` as in CycleGAN.
        dropout: drop half of the inner features while training.
        antialias: halve and double sizes by fixed blurs instead of strides, as in CUT: steadier when the anatomy moves
            by a voxel, no checkerboards, slower. Not for `swin_unetr`.
        upsample: `transposed` doubles sizes by transposed convs as published; `resize` by interpolation and a conv, as
            `antialias` does, against checkerboards. Not for `swin_unetr`.
        padding: what convs see beyond the edge where the published net pads by `zeros`; `reflect` mirrors the image
            there. Not for `swin_unetr`.
        recompute: keep less of the forward pass and compute it again in the backward pass: the same training in less
            memory and more time. Not for the U-Nets, which keep little.
    """

    name: nets.GeneratorName = "unet_256"
    width: int = Field(default=64, ge=1)
    norm: nets.NormName = "batch"
    dropout: bool = False
    antialias: bool = False
    upsample: nets.UpsampleName = "transposed"
    padding: nets.PaddingName = "zeros"
    recompute: bool = False

    @model_validator(mode="after")
    def _fits_the_net(self) -> GeneratorSettings:
        if told := nets.misfit(self.name, self.width, self.model_dump()):
            raise ValueError(told)
        return self

    def build(self, in_channels: int, out_channels: int, spatial_dims: int) -> nets.Net:
        """The net itself, its weights drawn from torch's global random numbers."""
        return nets.build(
            self.name,
            in_channels,
            out_channels,
            self.norm,
            self.dropout,
            spatial_dims,
            width=self.width,
            antialias=self.antialias,
            upsample=self.upsample,
            padding=self.padding,
            recompute=self.recompute,
        )


class DiscriminatorSettings(Settings):
    """The net that judges images.

    Attributes:
        name: `basic` judges patches of 70 voxels a side, `pixel` single voxels, `n_layers` as its number says.
        num_layers: for `n_layers` alone: 1 to 5 give patches of 16, 34, 70, 142, 286.
        width: channels after the first conv (ndf).
        norm: `batch` as in pix2pix, `instance` as in CycleGAN.
        antialias: but for `pixel`, halve sizes by fixed blurs instead of strides, as in CUT.
    """

    name: nets.DiscriminatorName = "basic"
    num_layers: int | None = Field(default=None, ge=1, le=5)
    width: int = Field(default=64, ge=1)
    norm: nets.NormName = "batch"
    antialias: bool = False

    @model_validator(mode="after")
    def _fits_the_net(self) -> DiscriminatorSettings:
        if told := nets.misfit(self.name, self.width, {"antialias": self.antialias}):
            raise ValueError(told)
        return self

    @model_validator(mode="after")
    def _num_layers_has_effect(self) -> DiscriminatorSettings:
        if self.num_layers is not None and self.name != "n_layers":
            raise ValueError(f"num_layers belongs to the discriminator n_layers, not to {self.name}; leave one out")
        return self

    def build(self, in_channels: int, spatial_dims: int) -> nets.Net:
        """The net itself, its weights drawn from torch's global random numbers."""
        return nets.build(
            self.name,
            in_channels,
            norm=self.norm,
            spatial_dims=spatial_dims,
            width=self.width,
            num_layers=self.num_layers,
            antialias=self.antialias,
        )


def in_one_pass(
    net: Callable[[Tensor], Sequence[Tensor]], images: Sequence[Tensor], norm: nets.NormName
) -> list[list[Tensor]]:
    """What a net makes of each image, in one pass where the samples of a batch do not see one another.

    Args:
        net: one image, (N, C, *spatial), to some tensors of N samples.
        images: of whatever sizes; one pass needs one size.
        norm: of the net; under instance norm one pass gives the same numbers as several.
    """
    if norm != "instance" or len({image.shape[1:] for image in images}) > 1:
        return [list(net(image)) for image in images]
    sizes = [len(image) for image in images]
    parts = [torch.split(y, sizes) for y in net(torch.cat(list(images)))]
    return [list(part) for part in zip(*parts, strict=True)]
