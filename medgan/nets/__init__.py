"""Nets: tensor to tensor, images or volumes by one code.

```
generators      unet_256  unet_128  unet_64  unet_32  resnet_9blocks  resnet_6blocks  res_unet_32  res_unet_16
                swin_unetr
discriminators  basic  n_layers  pixel
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

from medgan.errors import ConfigError
from medgan.nets.layers import (
    InitName,
    InstanceNorm,
    Layers,
    Net,
    PaddingName,
    UpsampleName,
    init_weights,
    statistics_kept,
)
from medgan.nets.patchgan import PatchGAN, PixelGAN
from medgan.nets.res_unet import ResUNet
from medgan.nets.resnet import ResNet
from medgan.nets.unet import UNet

__all__ = [
    "DiscriminatorName",
    "GeneratorName",
    "InitName",
    "InstanceNorm",
    "Net",
    "NormName",
    "PaddingName",
    "UpsampleName",
    "build",
    "can_antialias",
    "init_weights",
    "misfit",
    "statistics_kept",
]

GeneratorName = Literal[
    "unet_256",
    "unet_128",
    "unet_64",
    "unet_32",
    "resnet_9blocks",
    "resnet_6blocks",
    "res_unet_32",
    "res_unet_16",
    "swin_unetr",
]
DiscriminatorName = Literal["basic", "n_layers", "pixel"]
NormName = Literal["batch", "instance"]

SWIN_WIDTHS = 12  # what the width of swin_unetr is a multiple of
_TAKEN_BY = {  # beginnings of names; U-Nets keep little, so there is nothing to be saved in them
    "upsample": ("unet_", "resnet_", "res_unet_"),
    "padding": ("unet_", "resnet_", "res_unet_"),
    "recompute": ("resnet_", "res_unet_", "swin_unetr"),
}
_TO_BLUR = ("unet_", "resnet_", "res_unet_", "basic", "n_layers")
_NOT_TO_BLUR = {
    "swin_unetr": "whose patches MONAI's transformer merges in its own way",
    "pixel": "which halves nothing",
}


def _swin_unetr(*args: Any, **options: Any) -> Net:
    from medgan.nets.swin import SwinUNETR  # imports MONAI's networks

    return SwinUNETR(*args, **options)


_GENERATORS: dict[str, Callable[..., Net]] = {
    "unet_256": partial(UNet, num_downs=8),
    "unet_128": partial(UNet, num_downs=7),
    "unet_64": partial(UNet, num_downs=6),
    "unet_32": partial(UNet, num_downs=5),
    "resnet_9blocks": partial(ResNet, num_blocks=9),
    "resnet_6blocks": partial(ResNet, num_blocks=6),
    "res_unet_32": partial(ResUNet, num_downs=5),
    "res_unet_16": partial(ResUNet, num_downs=4),
    "swin_unetr": _swin_unetr,
}
_DISCRIMINATORS: dict[str, Callable[..., Net]] = {"basic": PatchGAN, "n_layers": PatchGAN, "pixel": PixelGAN}


def build(  # noqa: PLR0917 (the order of the reference implementation's tables)
    name: str,
    in_channels: int,
    out_channels: int = 1,
    norm: str = "batch",
    dropout: bool = False,
    spatial_dims: int = 2,
    *,
    width: int = 64,
    num_layers: int | None = None,
    antialias: bool = False,
    upsample: UpsampleName = "transposed",
    padding: PaddingName = "zeros",
    recompute: bool = False,
) -> Net:
    """A net by name, its weights drawn as published from torch's global random numbers.

    A generator maps (N, in_channels, *spatial) to (N, out_channels, *spatial) in [-1, 1], a discriminator to a map
    of logits with `out_channels` channels. The entries of its state_dict stand in the order of the reference
    implementation of pix2pix and CycleGAN, with the same shapes.

    Args:
        name: one of the names above; `basic` is `n_layers` with 3 layers.
        in_channels: channels of the input; a conditional discriminator counts both images.
        out_channels: channels of the output.
        norm: "batch" or "instance".
        dropout: whether a generator drops half of its inner features while it trains.
        spatial_dims: 2 for images (N, C, X, Y), 3 for volumes (N, C, X, Y, Z).
        width: channels of the widest-resolution layer (ngf, ndf); less for small machines.
        num_layers: 1 to 5, for `n_layers` only; 3 if not given.
        antialias: halve and double sizes by fixed blurs instead of strides; not for `swin_unetr` and `pixel`.
        upsample: "transposed" doubles sizes by transposed convs as published, "resize" by interpolation and a conv.
        padding: what a padded conv of a generator sees beyond the edge: "zeros" as published, or "reflect".
        recompute: whether a generator (no U-Net) keeps less for the backward pass and computes it again there.

    Raises:
        ConfigError: for an unknown name or an argument out of range, naming what is accepted.

    Example:
        >>> sum(p.numel() for p in build("basic", 2).parameters())
        2764609
    """
    _refuse_unknown("net", name, (*_GENERATORS, *_DISCRIMINATORS))
    _refuse_unknown("norm", norm, get_args(NormName))
    _refuse_outside("spatial_dims", spatial_dims, 2, 3)
    for label, count in {"in_channels": in_channels, "out_channels": out_channels, "width": width}.items():
        _refuse_outside(label, count, 1)
    _refuse_unknown("upsample", upsample, get_args(UpsampleName))
    _refuse_unknown("padding", padding, get_args(PaddingName))
    choices = {"antialias": antialias, "upsample": upsample, "padding": padding, "recompute": recompute}
    if told := misfit(name, width, choices):
        raise ConfigError(told)
    options = _options(name, dropout, num_layers) | ({"recompute": True} if recompute else {})
    maker = _GENERATORS[name] if name in _GENERATORS else _DISCRIMINATORS[name]
    layers = Layers(spatial_dims, norm, antialias, upsample, padding)
    net: Net = maker(in_channels, out_channels, layers, width=width, **options)
    init_weights(net)
    return net


def can_antialias(name: str) -> bool:
    """Whether the net of that name can halve and double sizes by blurs."""
    return name.startswith(_TO_BLUR)


def misfit(name: str, width: int, choices: Mapping[str, object]) -> str:
    """Why choices for a net do not go together or have no effect, and what to do; "" if they go.

    Args:
        name: of the net.
        width: channels of the widest-resolution layer.
        choices: some of `antialias`, `upsample`, `padding` and `recompute`.
    """
    if choices.get("antialias") and not can_antialias(name):
        return (
            f"antialias belongs to U-Nets, resnets and PatchGANs, not to {name}, {_NOT_TO_BLUR[name]}; set it to false"
        )
    published = {"upsample": "transposed", "padding": "zeros", "recompute": False}
    for key, taken_by in _TAKEN_BY.items():
        if choices.get(key, published[key]) != published[key] and not name.startswith(taken_by):
            takers = ", ".join(f"{start}…" if start.endswith("_") else start for start in taken_by)
            return f"{key} belongs to the generators {takers}, not to {name}; leave it out"
    if name == "swin_unetr" and width % SWIN_WIDTHS:
        return f"width: that of swin_unetr is a multiple of {SWIN_WIDTHS}; seen {width}; set it to 24 or 48"
    if choices.get("antialias") and choices.get("upsample") == "resize":
        return "upsample: antialias doubles sizes by interpolation already; leave upsample out"
    return ""


def _options(name: str, dropout: bool, num_layers: int | None) -> dict[str, int | bool]:
    """The arguments that only some nets take; an argument without effect is refused."""
    if num_layers is not None and name != "n_layers":
        raise ConfigError(f"num_layers belongs to the net n_layers alone; seen num_layers={num_layers} with {name}")
    if name in _GENERATORS:
        return {"dropout": dropout}
    if dropout:
        raise ConfigError(f"a discriminator has no dropout; seen dropout=True with {name}")
    if num_layers is None:
        return {}
    _refuse_outside("num_layers", num_layers, 1, 5)
    return {"num_layers": num_layers}


def _refuse_unknown(label: str, seen: str, accepted: Sequence[str]) -> None:
    if seen not in accepted:
        raise ConfigError(f"unknown {label} {seen!r}; accepted: {', '.join(accepted)}")


def _refuse_outside(label: str, seen: int, low: int, high: int | None = None) -> None:
    if isinstance(seen, bool) or not isinstance(seen, int) or seen < low or (high is not None and seen > high):
        span = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
        raise ConfigError(f"{label} is {span}; seen {seen!r}")
