"""The published procedures in plain torch: what the benchmarks compare with.

Nets and steps of pix2pix (arXiv:1611.07004) and CycleGAN (arXiv:1703.10593) as their papers and the behaviour of
their reference implementation describe them: every pass on its own, layers as torch ships them, optimizers with
torch's defaults, losses read out after every step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Unet(nn.Module):
    """unet_256 with batch norm."""

    def __init__(self, ins: int, outs: int, *, downs: int = 8, width: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(downs)]
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, (before, after) in enumerate(zip([ins, *widths], widths, strict=False)):
            conv = nn.Conv2d(before, after, 4, 2, 1, bias=False)
            act = [nn.LeakyReLU(0.2, True)] if level else []
            norm = [nn.BatchNorm2d(after)] if 0 < level < downs - 1 else []
            self.downs.append(nn.Sequential(*act, conv, *norm))
        for level in reversed(range(downs)):
            below = widths[level] * (1 if level == downs - 1 else 2)
            above = [outs, *widths][level]
            conv = nn.ConvTranspose2d(below, above, 4, 2, 1, bias=level == 0)
            tail: list[nn.Module] = [nn.BatchNorm2d(above)] if level else [nn.Tanh()]
            tail += [nn.Dropout(dropout)] if 4 <= level < downs - 1 else []
            self.ups.append(nn.Sequential(nn.ReLU(True), conv, *tail))

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for down in self.downs:
            x = down(x)
            seen.append(x)
        x = self.ups[0](seen.pop())
        for up in self.ups[1:]:
            x = up(torch.cat([seen.pop(), x], 1))
        return x


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        convs = [
            [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width), nn.ReLU(True)][: 4 - last]
            for last in (0, 1)
        ]
        self.body = nn.Sequential(*convs[0], *convs[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def resnet(ins: int, outs: int, *, blocks: int = 9, width: int = 64) -> nn.Sequential:
    """resnet_9blocks with instance norm."""

    def normed(conv: nn.Module, channels: int) -> list[nn.Module]:
        return [conv, nn.InstanceNorm2d(channels), nn.ReLU(True)]

    w = width
    return nn.Sequential(
        *(nn.ReflectionPad2d(3), *normed(nn.Conv2d(ins, w, 7), w)),
        *normed(nn.Conv2d(w, 2 * w, 3, 2, 1), 2 * w),
        *normed(nn.Conv2d(2 * w, 4 * w, 3, 2, 1), 4 * w),
        *(Residual(4 * w) for _ in range(blocks)),
        *normed(nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, 1), 2 * w),
        *normed(nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), w),
        *(nn.ReflectionPad2d(3), nn.Conv2d(w, outs, 7), nn.Tanh()),
    )


def patchgan(ins: int, norm: type[nn.Module], *, width: int = 64) -> nn.Sequential:
    """The 70 × 70 PatchGAN."""
    layers: list[nn.Module] = [nn.Conv2d(ins, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for before, after, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        conv = nn.Conv2d(before * width, after * width, 4, stride, 1, bias=norm is nn.InstanceNorm2d)
        layers += [conv, norm(after * width), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


def adam(*nets: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam([p for net in nets for p in net.parameters()], lr=2e-4, betas=(0.5, 0.999))


def _need_gradients(nets: list[nn.Module], need: bool) -> None:
    for net in nets:
        for p in net.parameters():
            p.requires_grad = need


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    loss.backward()
    optimizer.step()


class Pix2pixStep:
    """One training step a call."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        self.g, self.d = generator, discriminator
        self.of_g, self.of_d = adam(generator), adam(discriminator)

    def __call__(self, a: Tensor, b: Tensor) -> dict[str, float]:
        fake = self.g(a)
        _need_gradients([self.d], True)
        self.of_d.zero_grad()
        on_fake, on_real = self.d(torch.cat([a, fake.detach()], 1)), self.d(torch.cat([a, b], 1))
        d_fake = F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        d_real = F.binary_cross_entropy_with_logits(on_real, torch.ones_like(on_real))
        _step(self.of_d, (d_fake + d_real) * 0.5)
        _need_gradients([self.d], False)
        self.of_g.zero_grad()
        on_fake = self.d(torch.cat([a, fake], 1))
        fool = F.binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))
        near = 100 * F.l1_loss(fake, b)
        _step(self.of_g, fool + near)
        losses = {"D_fake": 0.5 * d_fake, "D_real": 0.5 * d_real, "G_GAN": fool, "G_L1": near}
        return {name: loss.item() for name, loss in losses.items()}


class CycleGANStep:
    """One training step a call: six generator passes, a discriminator pass for each image."""

    def __init__(self, g_b: nn.Module, g_a: nn.Module, d_b: nn.Module, d_a: nn.Module, *, pool: int = 50) -> None:
        self.g_b, self.g_a, self.d_b, self.d_a = g_b, g_a, d_b, d_a
        self.of_g, self.of_d = adam(g_b, g_a), adam(d_b, d_a)
        self.pools: dict[str, list[Tensor]] = {"a": [], "b": []}
        self.size = pool

    def __call__(self, a: Tensor, b: Tensor) -> dict[str, float]:
        fake_b = self.g_b(a)
        cycle_a = self.g_a(fake_b)
        fake_a = self.g_a(b)
        cycle_b = self.g_b(fake_a)
        _need_gradients([self.d_b, self.d_a], False)
        self.of_g.zero_grad()
        losses = {"G_identity_b": 5 * F.l1_loss(self.g_b(b), b), "G_identity_a": 5 * F.l1_loss(self.g_a(a), a)}
        for name, judge, fake in (("b", self.d_b, fake_b), ("a", self.d_a, fake_a)):
            verdict = judge(fake)
            losses[f"G_GAN_{name}"] = F.mse_loss(verdict, torch.ones_like(verdict))
        losses |= {"G_cycle_a": 10 * F.l1_loss(cycle_a, a), "G_cycle_b": 10 * F.l1_loss(cycle_b, b)}
        _step(self.of_g, torch.stack(list(losses.values())).sum())
        _need_gradients([self.d_b, self.d_a], True)
        self.of_d.zero_grad()
        for name, judge, real, fake in (("b", self.d_b, b, fake_b), ("a", self.d_a, a, fake_a)):
            old = torch.cat(list(self._from_pool(name, fake.detach())))
            on_real, on_fake = judge(real), judge(old)
            losses[f"D_real_{name}"] = 0.5 * F.mse_loss(on_real, torch.ones_like(on_real))
            losses[f"D_fake_{name}"] = 0.5 * F.mse_loss(on_fake, torch.zeros_like(on_fake))
            (losses[f"D_real_{name}"] + losses[f"D_fake_{name}"]).backward()
        self.of_d.step()
        return {name: loss.item() for name, loss in losses.items()}

    def _from_pool(self, name: str, fakes: Tensor) -> Iterator[Tensor]:
        pool = self.pools[name]
        for fake in fakes.split(1):
            if len(pool) < self.size:
                pool.append(fake.clone())
                yield fake
            elif random.random() > 0.5:
                place = random.randrange(self.size)
                yield pool[place]
                pool[place] = fake.clone()
            else:
                yield fake


def same_weights(ours: nn.Module, plain: nn.Module) -> None:
    """Give a plain net the weights of one of ours; the entries of both stand in the same order."""
    values = [value.clone() for value in ours.state_dict().values()]
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
