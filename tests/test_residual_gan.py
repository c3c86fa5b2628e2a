"""The residual nets: any size, nothing but what a sample itself holds, and blocks that begin as nothing."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.errors import InputError
from medgan.nets.residual_gan import ResidualDiscriminator, ResidualGenerator
from medgan.penalties import r1, relativistic

SIZES = [(16, 16), (20, 9), (12, 10, 5), (8, 8, 1)]
NAMES = ["x".join(map(str, size)) for size in SIZES]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def nets(size: tuple[int, ...], conditions: int = 0, **more: int) -> tuple[ResidualGenerator, ResidualDiscriminator]:
    torch.manual_seed(0)
    options = {"condition_size": conditions, "width": 8, "max_width": 16} | more
    return ResidualGenerator(8, 2, size, **options), ResidualDiscriminator(2, size, **options)


@pytest.mark.parametrize("size", SIZES, ids=NAMES)
def test_every_size_is_drawn_and_judged_and_all_weights_learn(size: tuple[int, ...]) -> None:
    """Two steps of the relativistic game with both penalties: the last conv of a block is 0 before the first."""
    generator, judge = nets(size, conditions=3, blocks=2)
    condition, real = torch.softmax(noise(4, 3), 1), noise(4, 2, *size)
    players = [torch.optim.Adam(net.parameters(), 1e-3, (0.0, 0.9)) for net in (judge, generator)]
    for _ in range(2):
        for player in players:
            fake = generator(noise(4, 8), condition)
            assert fake.shape == (4, 2, *size)
            logits = judge(real, condition), judge(fake, condition)
            assert logits[0].shape == (4, 1)
            loss = relativistic(*(logits if player is players[0] else logits[::-1]))
            if player is players[0]:
                loss = loss + r1(lambda x: judge(x, condition), real) + r1(lambda x: judge(x, condition), fake)
            for net in (generator, judge):
                net.zero_grad()
            loss.backward()
            player.step()
    for net in (generator, judge):
        idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert idle == ["head.bias"] * (net is judge)  # both images have it, so their difference has not


@pytest.mark.parametrize("size", [(8, 8), (6, 5, 4)], ids=["2d", "3d"])
def test_a_block_begins_as_nothing_and_is_its_formula(size: tuple[int, ...]) -> None:
    _, judge = nets(size, width=16)
    block, axes = judge.stages[0][0], len(size)
    x = noise(2, 16, *size)
    assert torch.equal(block(x), x)
    torch.nn.init.normal_(block.third.weight)
    conv = F.conv2d if axes == 2 else F.conv3d
    inner = F.leaky_relu(conv(x, block.first.weight, block.first.bias), 0.2)
    parts = []
    for part, weight in zip(inner.split(16, 1), block.second.weight.split(16), strict=True):  # 16 channels see 16
        parts.append(conv(part, weight, padding=1))
    expected = x + conv(F.leaky_relu(torch.cat(parts, 1), 0.2), block.third.weight)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def test_weights_begin_as_in_the_initialisation_for_nets_without_norms() -> None:
    """He's for a slope of 0.2, times L^(−1/4) for L blocks of three convs."""
    torch.manual_seed(0)
    judge = ResidualDiscriminator(1, (32, 32), width=64, max_width=64, blocks=2)
    block = judge.stages[1][0]
    expected = math.sqrt(2 / 1.04) * (2 * 4) ** -0.25  # four sizes: 32, 16, 8 and 4 voxels
    assert float(block.first.weight.detach().std()) == pytest.approx(expected / 8, rel=0.05)
    assert float(block.second.weight.detach().std()) == pytest.approx(expected / 12, rel=0.05)  # √(16 · 9)


def test_a_sample_hangs_on_no_other() -> None:
    generator, judge = nets((16, 16))
    z = noise(5, 8)
    with torch.no_grad():
        images = generator(z)
        alone = torch.cat([generator(row[None]) for row in z])
        torch.testing.assert_close(images, alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(judge(images), torch.cat([judge(x[None]) for x in images]), rtol=1e-4, atol=1e-5)


def test_a_discriminator_knows_where_its_features_are() -> None:
    """Not pooled: the same map turned round is another image."""
    _, judge = nets((8, 8))
    x = noise(4, 2, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(judge(x), judge(x.flip(2)), atol=1e-3)


def test_the_logit_is_affine_in_the_condition() -> None:
    _, judge = nets((8, 8), conditions=2)
    x = noise(3, 2, 8, 8)
    with torch.no_grad():
        first, second, middle = (
            judge(x, torch.tensor([kind]).expand(3, -1)) for kind in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5])
        )
    torch.testing.assert_close(middle, (first + second) / 2, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first, second, atol=1e-3)


def test_a_generator_for_conditions_asks_for_one() -> None:
    generator, _ = nets((8, 8), conditions=2)
    with pytest.raises(InputError, match="conditions of 2 entries; seen none"):
        generator(noise(1, 8))
