"""A training step of pix2pix, unet_256: medgan's against the published procedure in plain torch.

python tools/bench/pix2pix_step.py [--size 256] [--batch 1] [--rounds 9] [--threads 2] [--device cpu]
"""

from __future__ import annotations

from published import Pix2pixStep, Unet, patchgan, same_weights
from steps import measure, options
from torch import nn

from medgan.models.base import Game


def plain(game: Game, device: str, *, dropout: float = 0.5) -> Pix2pixStep:
    nets = Unet(1, 1, dropout=dropout), patchgan(2, nn.BatchNorm2d)
    same_weights(game.generators["b"], nets[0])
    same_weights(game.discriminators["b"], nets[1])
    return Pix2pixStep(*(net.to(device) for net in nets))


if __name__ == "__main__":
    measure("pix2pix", plain, options(__doc__, rounds=9), steps=3)
