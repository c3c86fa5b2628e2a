"""What nets and training steps cost: parameters, and floating-point operations counted by torch, at 256 × 256.

    python tools/flops.py

prints the figures of docs/models/: a multiplication with its addition counts as two. Nothing is computed: the tensors
have shapes and no values.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast, get_args

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from medgan import nets
from medgan.config import load
from medgan.models import Batch, CUTSettings, CycleGANSettings, ModelSettings, Pix2pixSettings, SupervisedSettings
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


if __name__ == "__main__":
    rows = [["what", "million parameters", "GFLOP"]]
    rows += [of_net(name, 256, 256) for name in (*get_args(nets.GeneratorName), "basic")]
    rows += [of_net(name, 256, 256, antialias=True) for name in ("basic", "resnet_9blocks")]
    rows += [of_encoder()]
    rows += [of_net(name, 128, 128, 32) for name in ("res_unet_32", "swin_unetr")]
    rows += [of_step(name, settings) for name, settings in STEPS.items()]
    print(columns(rows))
