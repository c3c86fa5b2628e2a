"""A training step of CycleGAN, 256 × 256, resnet_9blocks: medgan's against the published procedure in plain torch.

python tools/bench/cyclegan_step.py [--size 256] [--batch 1] [--rounds 3] [--threads 2] [--device cpu]
"""

from __future__ import annotations

import argparse

import torch
from interleaved import gflop, machine, peaks, rounds, table
from pix2pix_step import config_of, losses_apart, ours
from published import CycleGANStep, patchgan, resnet, same_weights
from torch import nn


def plain(game: nn.Module, device: str) -> CycleGANStep:
    nets = {name: (resnet(1, 1), patchgan(1, nn.InstanceNorm2d)) for name in ("b", "a")}
    for name, (generator, discriminator) in nets.items():
        same_weights(game.generators[name], generator)
        same_weights(game.discriminators[name], discriminator)
    (g_b, d_b), (g_a, d_a) = nets.values()
    return CycleGANStep(*(net.to(device) for net in (g_b, g_a, d_b, d_a)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    ways = {
        "medgan fp32": {},
        "medgan fp32, channels_last": {"channels_last": True},
        "medgan bf16": {"precision": "bf16"},
        "medgan bf16, channels_last": {"precision": "bf16", "channels_last": True},
    }
    ways = {name: config_of("cyclegan", options.size, batch=options.batch, **kw) for name, kw in ways.items()}
    game = next(iter(ways.values())).build()
    a, b = (torch.rand(options.batch, 1, options.size, options.size, device=options.device) * 2 - 1 for _ in range(2))
    print(machine())
    for name, settings in ways.items():
        apart = losses_apart(ours(game, settings, options.device), plain(game, options.device), a, b, steps=2)
        print(f"{name}: losses of two steps differ from the published ones by {apart:.1e}")
    reference = plain(game, options.device)
    work = gflop(lambda: reference(a, b))
    steps = {"published procedure, fp32": lambda: reference(a, b)}
    for name, settings in ways.items():
        step = ours(game, settings, options.device)
        steps[name] = lambda step=step: step(a, b)
    best = peaks(options.device)
    print(f"CycleGAN step, batch {options.batch}: {work:.0f} GFLOP, at least {work / best['fp32']:.1f} s in fp32")
    print(table(rounds(steps, options.rounds), gflop=work, peaks=best))


if __name__ == "__main__":
    main()
