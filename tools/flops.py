"""What nets and training steps cost: parameters, and floating-point operations counted by torch, at 256 × 256.

    python tools/flops.py
    python tools/flops.py samplers

prints the figures of docs/models/: a multiplication with its addition counts as two. Nothing is computed: the tensors
have shapes and no values. Samplers, at 64 × 64, are played for sixteen steps, as some penalties are due in some steps
alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from medgan import nets
from medgan.config import load
from medgan.models import (
    Batch,
    CGANSettings,
    CUTSettings,
    CycleGANSettings,
    DCGANSettings,
    GANSettings,
    Kind,
    ModelSettings,
    Pix2pixSettings,
    Player,
    R3GANSettings,
    Sampler,
    SamplerSettings,
    StyleGAN2Settings,
    SupervisedSettings,
    WGANSettings,
    build_sampler,
)
from medgan.nets import winograd
from medgan.nets.resnet import ResNet
from medgan.tables import columns

winograd.FEWEST_TILES = sys.maxsize  # convolutions count as they are written down
CONFIGS = Path(__file__).parents[1] / "configs"
STEPS = {
    "pix2pix": Pix2pixSettings(),
    "pix2pix, two scales": Pix2pixSettings.parse({"discriminator": {"scales": 2}}),
    "pix2pix, three scales": Pix2pixSettings.parse({"discriminator": {"scales": 3}}),
    "pix2pix, lambda_feature": Pix2pixSettings.parse({"lambda_feature": 10}),
    "pix2pix, two scales, lambda_feature": Pix2pixSettings.parse(
        {"discriminator": {"scales": 2}, "lambda_feature": 10}
    ),
    "pix2pix, registration": Pix2pixSettings.parse({"registration": {}}),
    "mr_to_ct_hd.yaml": load(CONFIGS / "mr_to_ct_hd.yaml").model,
    "supervised": SupervisedSettings(),
    "cyclegan": CycleGANSettings(),
    "cut": CUTSettings(),
    "cut without antialiasing": CUTSettings.parse(
        {"generator": {"antialias": False}, "discriminator": {"antialias": False}}
    ),
    "fastcut, not mirrored": CUTSettings.parse({"lambda_nce": 10, "identity": False}),
}
SAMPLERS: dict[str, SamplerSettings] = {
    "gan": GANSettings(),
    "dcgan": DCGANSettings(),
    "wgan": WGANSettings(),
    "cgan": CGANSettings(),
    "stylegan2": StyleGAN2Settings(),
    "stylegan2, path_length 0": StyleGAN2Settings(path_length=0),
    "stylegan2, width 16, max_width 64, path_length 0": StyleGAN2Settings(width=16, max_width=64, path_length=0),
    "r3gan": R3GANSettings(),
    "r3gan, every 4": R3GANSettings(every=4),
}
ROUND, IMAGES = 16, 4  # steps in which every penalty comes as often as it is due, and images a step


def of_net(name: str, *size: int, antialias: bool = False) -> list[str]:
    """A forward pass of a net as published, one channel in and out; in 3-D as wide as in 2-D."""
    norm, width = {"res_unet": ("instance", 32), "swin_une": ("instance", 24)}.get(name[:8], ("batch", 64))
    net = nets.build(name, 1, 1, norm, spatial_dims=len(size), width=width, antialias=antialias)
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 1, *size))
    label = f"{name}{', antialiased' if antialias else ''}, {'×'.join(map(str, size))}"
    return [label, f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f}", f"{counter.get_total_flops() / 1e9:.1f}"]


def of_encoder() -> list[str]:
    """The part of the generator that CUT runs to compare features: up to its last tap."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        net = nets.build("resnet_9blocks", 1, 1, "instance", antialias=True)
        net(torch.empty(1, 1, 256, 256), tuple(cast(ResNet, net).taps))
    return ["its encoder up to the last tap", "", f"{counter.get_total_flops() / 1e9:.1f}"]


def of_step(name: str, settings: ModelSettings) -> list[str]:
    """Both players' losses and gradients, batch 1; the optimizer, which multiplies no matrices, is not counted."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        game = settings.build(in_channels=1, out_channels=1, spatial_dims=2)
        batch = Batch(torch.empty(1, 1, 256, 256), torch.empty(1, 1, 256, 256))
        fakes = game.generate(batch)
        for player in game.order:
            for other in game.order:
                game.nets(other).requires_grad_(other == player)
            torch.stack(list(game.losses(player, batch, fakes).values())).sum().backward()
    return [f"a step of {name}", "", f"{counter.get_total_flops() / 1e9:.0f}"]


class Counter(TorchDispatchMode):
    """Counts as torch's own counter does, which does not bear gradients of gradients."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what was called, and count it."""
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def of_sampler(name: str, settings: SamplerSettings) -> list[str]:
    """Both nets, and a step of both players for one image: a mean over the steps of a round."""
    groups = () if settings.conditional == "never" else (2,)
    game = build_sampler(settings, Kind(channels=1, size=(64, 64), groups=groups, modality="MR"))
    condition = torch.eye(2).repeat(IMAGES // 2, 1) if groups else None
    batch = Batch(b=torch.rand(IMAGES, 1, 64, 64) * 2 - 1, condition=condition)
    with Counter() as counter:
        for _ in range(ROUND):
            for order in [*[("discriminator",)] * game.warm_ups, game.order]:
                _play(game, batch, order)
    makers, judges = (
        sum(p.numel() for p in game.nets(player).parameters()) for player in ("generator", "discriminator")
    )
    cost = counter.total / ROUND / IMAGES / 1e9
    return [name, f"{makers / 1e6:.2f} + {judges / 1e6:.2f}", f"{cost:.2f}"]


def _play(game: Sampler, batch: Batch, order: Sequence[Player]) -> None:
    fakes = game.generate(batch)
    for player in order:
        for other in game.order:
            game.nets(other).requires_grad_(other == player)
        torch.stack(list(game.losses(player, batch, fakes).values())).sum().backward()
    game.requires_grad_(True)


def of_samplers() -> list[list[str]]:
    """A line for each sampler."""
    return [["sampler", "million parameters, G + D", "GFLOP"], *(of_sampler(*one) for one in SAMPLERS.items())]


def of_translators() -> list[list[str]]:
    """A line for each net and for a step of each translator."""
    rows = [["what", "million parameters", "GFLOP"]]
    rows += [of_net(name, 256, 256) for name in (*get_args(nets.GeneratorName), "basic")]
    rows += [of_net(name, 256, 256, antialias=True) for name in ("basic", "resnet_9blocks", "unet_256", "res_unet_32")]
    rows += [of_encoder()]
    rows += [of_net(name, 128, 128, 32) for name in ("res_unet_32", "swin_unetr")]
    rows += [of_net("res_unet_32", 128, 128, 32, antialias=True)]
    return rows + [of_step(name, settings) for name, settings in STEPS.items()]


if __name__ == "__main__":
    print(columns(of_samplers() if sys.argv[1:] == ["samplers"] else of_translators()))
