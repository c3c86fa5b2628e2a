"""A training step of CycleGAN, resnet_9blocks: medgan's against the published procedure in plain torch.

python tools/bench/cyclegan_step.py [--size 256] [--batch 1] [--rounds 3] [--threads 2] [--device cpu]
"""

from __future__ import annotations

from published import CycleGANStep, patchgan, resnet, same_weights
from steps import measure, options
from torch import nn

from medgan.models.base import Game


def plain(game: Game, device: str, *, dropout: float = 0.0) -> CycleGANStep:  # noqa: ARG001 - published without
    nets = {name: (resnet(1, 1), patchgan(1, nn.InstanceNorm2d)) for name in ("b", "a")}
    for name, (generator, discriminator) in nets.items():
        same_weights(game.generators[name], generator)
        same_weights(game.discriminators[name], discriminator)
    (g_b, d_b), (g_a, d_a) = nets.values()
    return CycleGANStep(*(net.to(device) for net in (g_b, g_a, d_b, d_a)))


if __name__ == "__main__":
    measure("cyclegan", plain, options(__doc__, rounds=3), steps=2)
