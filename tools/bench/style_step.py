"""StyleGAN2's nets as medgan computes them against the plain way of the reference implementation: the same maths.

    python tools/bench/style_step.py [--size 32 32] [--width 32] [--batch 16] [--rounds 9] [--threads 1] [--device cpu]

The plain way gives each sample convolution weights of its own, in groups, and blurs by convolutions of the whole kernel
of 4 voxels a side. Both nets carry the same weights, and their images and slopes are compared before they are timed. A
training step is that of both players: non-saturating losses on a batch, R1 in one step of sixteen and path lengths of
half a batch in one of four, as shares of a step. medgan's nets lie in memory as `medgan sample` lays them, the plain
ones as torch does by itself.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from interleaved import machine, rounds, table
from torch import Tensor, nn

from medgan.device import channels_last, laid_out
from medgan.nets import equalised
from medgan.nets.equalised import EqualConv, ModulatedConv
from medgan.nets.style import StyleDiscriminator, StyleGenerator
from medgan.penalties import path_length, r1

LATENT = 64


def blurred(x: Tensor, margin: int, *, stride: int = 1, gain: float = 1.0) -> Tensor:
    """By one depthwise convolution of the whole kernel."""
    kernel = torch.ones((), device=x.device, dtype=x.dtype)
    for _ in range(x.ndim - 2):
        kernel = kernel[..., None] * x.new_tensor([1.0, 3, 3, 1]) / 8
    conv = F.conv2d if x.ndim == 4 else F.conv3d
    x = F.pad(x, [side for n in reversed(x.shape[2:]) for side in (margin, margin + (stride == 2) * (n % 2))])
    return conv(x, (kernel * gain).expand(x.shape[1], 1, *kernel.shape), stride=stride, groups=x.shape[1])


class PlainModulated(ModulatedConv):
    """A group of channels for each sample, whose weights are scaled as its style asks."""

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        number, axes, size = len(x), x.ndim - 2, x.shape[2:]
        scales = self.to_scales(style).view(number, 1, -1, *[1] * axes)
        weight = (self.weight * self.scale)[None] * scales
        if self.demodulate:
            weight = weight * (weight.square().flatten(2).sum(2) + 1e-8).rsqrt().view(number, -1, 1, *[1] * axes)
        weight = weight * self.gain
        x = x.reshape(1, -1, *size)
        if not self.up:
            conv = F.conv2d if axes == 2 else F.conv3d
            y = conv(x, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=number)
            return y.view(number, -1, *size)
        transposed = F.conv_transpose2d if axes == 2 else F.conv_transpose3d
        y = transposed(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=number)
        return blurred(y.view(number, -1, *y.shape[2:]), 1, gain=2.0**axes)


class PlainConv(EqualConv):
    """Blurs by a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.down:
            return super().forward(x)
        weight, bias = self.weight * self.scale, None if self.bias is None else self.bias * self.gain
        if weight.shape[-1] == 1:
            return equalised.conv_same(blurred(x, 1, stride=2), weight, bias)
        odd = [side for n in reversed(x.shape[2:]) for side in (0, n % 2)]
        conv = F.conv2d if x.ndim == 4 else F.conv3d
        return conv(blurred(F.pad(x, odd), 2), weight, bias, stride=2)


def plain(net: nn.Module) -> nn.Module:
    """A copy of the net that computes the plain way."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, ModulatedConv):
            module.__class__ = PlainModulated
        elif isinstance(module, EqualConv):
            module.__class__ = PlainConv
    return net


class Game:
    """Both nets, and what a training does with them."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module, x: Tensor) -> None:
        self.generator, self.discriminator = cast(StyleGenerator, generator), cast(StyleDiscriminator, discriminator)
        self.x, self.z = x, torch.randn(len(x), LATENT, generator=torch.Generator().manual_seed(0)).to(x.device)

    def sample(self) -> Tensor:
        self.generator.eval()
        with torch.inference_mode():
            return self.generator(self.z)

    def players(self) -> None:
        self.generator.train()
        fake = self.generator(self.z)
        self.learn(self.discriminator, F.softplus(-self.discriminator(self.x)), self.discriminator(fake.detach()))
        self.learn(self.generator, -self.discriminator(fake))

    def slope(self) -> None:
        self.learn(self.discriminator, r1(self.discriminator, self.x))

    def paths(self) -> None:
        images, styles = self.generator.train()(self.z[: len(self.z) // 2], with_styles=True)
        self.learn(self.generator, path_length(images, styles, torch.zeros((), device=images.device))[0])

    def learn(self, net: nn.Module, *losses: Tensor) -> None:
        weights = list(net.parameters())
        torch.autograd.grad(sum(loss.mean() for loss in losses), weights, allow_unused=True)


def compare(ours: Game, theirs: Game) -> None:
    """That it is the same maths: images, and what the discriminator's weights learn from a penalty on its slope."""
    torch.testing.assert_close(ours.sample(), theirs.sample(), rtol=1e-3, atol=1e-4)
    learnt = [
        torch.autograd.grad(r1(game.discriminator, game.x), game.discriminator.conv.weight)[0]
        for game in (ours, theirs)
    ]
    torch.testing.assert_close(*learnt, rtol=1e-2, atol=1e-3 * float(learnt[0].abs().max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[32, 32])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    nets = (
        StyleGenerator(LATENT, 1, options.size, width=options.width),
        StyleDiscriminator(1, options.size, width=options.width),
    )
    x = torch.rand(options.batch, 1, *options.size, device=options.device) * 2 - 1
    theirs = Game(*(plain(net).to(options.device) for net in nets), x)
    layout = channels_last(len(options.size))
    ours = Game(*(net.to(options.device).to(memory_format=layout) for net in nets), laid_out(x, layout))  # type: ignore[call-overload]
    compare(ours, theirs)
    print(f"{machine()}\n{'×'.join(map(str, options.size))}, width {options.width}, batch {options.batch}, float32")
    parts: dict[str, Callable[[Game], object]] = {
        "sampling": Game.sample,
        "both players": Game.players,
        "R1": Game.slope,
        "path length": Game.paths,
    }
    ways = {
        f"{name}: {who}": lambda part=part, game=game: part(game)
        for name, part in parts.items()
        for who, game in (("plain", theirs), ("medgan", ours))
    }
    taken = rounds(ways, options.rounds, warm=2)
    for name in parts:
        print(table({who: taken[f"{name}: {who}"] for who in ("plain", "medgan")}).replace("\n", f"   ({name})\n", 1))
    whole = {
        who: [
            a + b / 16 + c / 4 for a, b, c in zip(*(taken[f"{part}: {who}"] for part in list(parts)[1:]), strict=True)
        ]
        for who in ("plain", "medgan")
    }
    print(table(whole).replace("\n", "   (training step: players + R1 / 16 + path length / 4)\n", 1))


if __name__ == "__main__":
    main()
