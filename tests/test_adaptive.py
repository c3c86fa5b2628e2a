"""Adaptive augmentation: what each change does, how often, that gradients pass, and how p follows the discriminator."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from medgan.errors import ConfigError
from medgan.nets.adaptive import Adaptive, Operation, operations_for
from medgan.nets.warp import warped

ALL: tuple[Operation, ...] = get_args(Operation)
SHAPES = [(6, 2, 12, 9), (5, 1, 8, 6, 7)]
IDS = ["2d", "3d"]


def images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def changed(x: Tensor, *operations: Operation, p: float = 1.0, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return Adaptive(operations, x.ndim - 2, p=p)(x)


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_p_0_is_the_identity_and_draws_nothing(shape: tuple[int, ...]) -> None:
    x = images(shape)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert Adaptive(ALL, len(shape) - 2)(x) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
@pytest.mark.parametrize("name", ALL)
def test_each_operation_at_p_1_changes_samples_and_is_seeded(name: Operation, shape: tuple[int, ...]) -> None:
    x = images(shape)
    once, again, other = (changed(x, name, seed=seed) for seed in (1, 1, 2))
    assert once.shape == x.shape
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert not torch.equal(once, x)
    assert torch.isfinite(once).all()


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("flip", "quarter_turn")])
def test_samples_are_struck_with_probability_p_one_by_one_and_the_others_stay_to_the_bit(name: Operation) -> None:
    x = images((3000, 1, 8, 8))
    same = (changed(x, name, p=0.3) == x).flatten(1).all(1)
    none_of_those = 1 / 4 if name == "shift" else 0  # up to one voxel, rounded: half are 0 along each axis
    share = float((~same).float().mean())
    assert share == pytest.approx(0.3 * (1 - none_of_those), abs=4 * math.sqrt(0.25 / 3000))


def test_changes_strike_independently_of_each_other() -> None:
    x = images((4000, 1, 8, 8))
    out = changed(x, "flip", "brightness", p=0.5)
    offset = (out - x).flatten(1)
    offset_flipped = (out - x.flip(2)).flatten(1)
    flipped = offset_flipped.std(1) < 1e-3
    plain = offset.std(1) < 1e-3
    assert (flipped ^ plain).all()
    bright = torch.where(flipped, offset_flipped.mean(1), offset.mean(1)).abs() > 1e-4
    share = 4 * math.sqrt(0.25 / 4000)
    assert float(flipped.float().mean()) == pytest.approx(0.25, abs=share)  # half of those that are struck
    assert float(bright.float().mean()) == pytest.approx(0.5, abs=share)
    assert float((flipped & bright).float().mean()) == pytest.approx(0.125, abs=share)


@pytest.mark.parametrize("shape", [(400, 2, 6, 6), (400, 1, 5, 5, 4)], ids=IDS)
def test_quarter_turns_are_those_of_the_first_two_axes(shape: tuple[int, ...]) -> None:
    x = images(shape)
    out = changed(x, "quarter_turn")
    counts = []
    for turns in range(4):
        turned = x.rot90(turns, (2, 3))
        counts.append(int(((out - turned).abs().flatten(1).amax(1) < 1e-4).sum()))
    assert sum(counts) == 400
    assert all(abs(count - 100) < 4 * math.sqrt(400 * 3 / 16) for count in counts)


def test_a_shift_moves_by_whole_voxels_and_brings_in_background() -> None:
    x = images((300, 1, 16, 24))
    out = changed(x, "shift")
    seen = set()
    for before, after in zip(x[:, 0], out[:, 0], strict=True):
        fits = []
        for right in range(-2, 3):
            for down in range(-3, 4):
                moved = torch.full((16, 24), -1.0)
                to = (slice(max(0, -right), 16 - max(0, right)), slice(max(0, -down), 24 - max(0, down)))
                of = (slice(max(0, right), 16 - max(0, -right)), slice(max(0, down), 24 - max(0, -down)))
                moved[to] = before[of]
                if (moved - after).abs().max() < 1e-4:
                    fits.append((right, down))
        assert len(fits) == 1
        seen.add(fits[0])
    assert {right for right, _ in seen} == {-2, -1, 0, 1, 2}  # an eighth of 16
    assert {down for _, down in seen} == {-3, -2, -1, 0, 1, 2, 3}


@pytest.mark.parametrize("axes", [2, 3])
def test_a_cutout_is_a_box_of_half_of_each_side_filled_with_background(axes: int) -> None:
    n = 16 if axes == 2 else 8
    out = changed(torch.ones(4000 if axes == 2 else 1000, 1, *[n] * axes), "cutout")
    assert set(out.unique().tolist()) == {-1.0, 1.0}
    # A voxel's middle lies in the box when the box's middle lies within n/4 of it, evenly drawn over the side.
    middles = torch.arange(n) + 0.5
    share = (torch.minimum(middles + n / 4, torch.tensor(float(n))) - (middles - n / 4).clamp(min=0)) / n
    expected = share
    for _ in range(axes - 1):
        expected = expected[..., None] * share
    assert torch.allclose((out < 0).float().mean((0, 1)), expected, atol=5 * math.sqrt(0.25 / len(out)))


def test_rotation_and_scale_keep_the_middle_and_stay_within_their_limits() -> None:
    """A line from the middle outwards: where its end comes to lie tells angle and length."""
    x = -torch.ones(500, 1, 65, 65)
    x[:, :, 48, 32] = 1.0
    places = torch.arange(65.0) - 32

    def ends(out: Tensor) -> tuple[Tensor, Tensor]:
        weight = (out[:, 0] + 1) / (out[:, 0] + 1).sum((1, 2), keepdim=True)
        return (weight.sum(2) * places).sum(1), (weight.sum(1) * places).sum(1)

    right, down = ends(changed(x, "rotate"))
    angle = torch.rad2deg(torch.atan2(down, right))
    assert angle.abs().max() < 10.1
    assert angle.abs().max() > 9
    assert float(angle.mean()) == pytest.approx(0, abs=4 * 10 / math.sqrt(3 * 500))
    assert torch.hypot(right, down).sub(16).abs().max() < 0.05
    right, down = ends(changed(x, "scale"))
    doublings = torch.log2(right / 16)
    assert down.abs().max() < 1e-3
    assert float(doublings.std()) == pytest.approx(0.2, rel=0.15)
    assert float(doublings.mean()) == pytest.approx(0, abs=4 * 0.2 / math.sqrt(500))


def test_intensities_change_as_described() -> None:
    x = torch.linspace(-1, 1, 9).view(1, 1, 3, 3).repeat(3000, 1, 1, 1)
    bright = changed(x, "brightness") - x
    assert bright.flatten(1).std(1).max() < 1e-6
    assert float(bright.mean((1, 2, 3)).std()) == pytest.approx(0.1, rel=0.1)
    contrast = changed(x, "contrast")
    assert (contrast[:, 0, 0, 0] == -1).all()  # air stays air
    factors = (contrast[:, 0, 2, 2] + 1) / 2
    torch.testing.assert_close(contrast + 1, (x + 1) * factors.view(-1, 1, 1, 1))
    assert float(factors.log2().std()) == pytest.approx(0.25, rel=0.1)
    gamma = changed(x, "gamma")
    assert torch.equal(gamma[:, 0, 0, 0], x[:, 0, 0, 0])
    assert torch.equal(gamma[:, 0, 2, 2], x[:, 0, 2, 2])
    assert (gamma.flatten(1).diff(dim=1) > 0).all()  # order is kept
    middle = gamma[:, 0, 1, 1]
    assert middle.abs().max() <= 1 / 3
    assert middle.abs().max() > 0.3
    noisy = changed(torch.zeros(1000, 1, 32, 32), "noise").flatten(1).std(1)
    assert float(noisy.mean()) == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.1)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_blur_is_at_most_binomial_and_keeps_the_sum(axes: int) -> None:
    x = -torch.ones(500, 1, *[9] * axes)
    x[(slice(None), 0, *[4] * axes)] = 1.0
    out = changed(x, "blur") + 1
    torch.testing.assert_close(out.flatten(1).sum(1), torch.full((500,), 2.0))
    row = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    most = row
    for _ in range(axes - 1):
        most = most[..., None] * row
    inside = out[(slice(None), 0, *[slice(2, 7)] * axes)] / 2
    sharp = torch.zeros_like(most)
    sharp[(2,) * axes] = 1
    share = (1 - inside[(slice(None), *[2] * axes)]) / (1 - most[(2,) * axes])
    assert float(share.mean()) == pytest.approx(0.5, abs=4 / math.sqrt(12 * 500))
    expected = sharp + share.view(-1, *[1] * axes) * (most - sharp)
    torch.testing.assert_close(inside, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 5, 4), (2, 1, 3, 4, 3)], ids=IDS)
def test_gradients_and_their_gradients_pass_through_all_operations(shape: tuple[int, ...]) -> None:
    x = images(shape).double().requires_grad_()
    pipe = Adaptive(ALL, len(shape) - 2, p=0.9).double()

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return pipe(x)

    assert torch.autograd.gradcheck(seeded, x)
    assert torch.autograd.gradgradcheck(lambda x: seeded(x).sin(), x)
    assert not torch.equal(seeded(x), x)


@pytest.mark.parametrize("shape", [(3, 2, 7, 5), (2, 1, 5, 6, 4)], ids=IDS)
def test_warping_interpolates_linearly_between_voxels(shape: tuple[int, ...]) -> None:
    """Against a sum over the neighbours of every voxel, one by one."""
    axes, x = len(shape) - 2, images(shape)
    places = torch.eye(axes + 1).repeat(shape[0], 1, 1) + 0.2 * images((shape[0], axes + 1, axes + 1), 1)
    places[:, -1] = torch.eye(axes + 1)[-1]
    seen = warped(x, places)
    middle = [(n - 1) / 2 for n in shape[2:]]
    for sample in range(shape[0]):
        for index in [(0,) * axes, tuple(n - 1 for n in shape[2:]), tuple(n // 2 for n in shape[2:])]:
            offset = torch.tensor([i - m for i, m in zip(index, middle, strict=True)] + [1.0])
            point = (places[sample] @ offset)[:axes] + torch.tensor(middle)
            value = torch.zeros(shape[1])
            for corner in torch.cartesian_prod(*[torch.arange(n) for n in shape[2:]]):
                weight = (1 - (point - corner).abs()).clamp(min=0).prod()
                value += weight * x[(sample, slice(None), *corner.tolist())]
            torch.testing.assert_close(seen[(sample, slice(None), *index)], value, rtol=1e-4, atol=1e-5)


def test_masks_move_with_their_images_and_keep_their_values() -> None:
    mask = torch.where(images((50, 1, 16, 16)) > 0, 1.0, -1.0)
    pair = torch.cat([mask, mask], 1)  # an image that looks like its mask
    torch.manual_seed(0)
    out = Adaptive(("shift", "flip", "cutout"), 2, p=0.9, num_images=1)(pair)
    assert torch.equal(out[:, 0], out[:, 1])
    assert not torch.equal(out, pair)
    torch.manual_seed(0)
    out = Adaptive(("brightness", "contrast", "gamma", "blur", "noise"), 2, p=0.9, num_images=1)(pair)
    assert torch.equal(out[:, 1], pair[:, 1])
    assert not torch.equal(out[:, 0], pair[:, 0])


def test_p_moves_by_images_over_half_a_million_towards_the_target() -> None:
    pipe = Adaptive(("shift",), 2)
    pipe.follow(0.9, 64)
    assert float(pipe.p) == pytest.approx(64 / 500_000, rel=1e-6)
    pipe.follow(0.61, 1000)
    assert float(pipe.p) == pytest.approx(1064 / 500_000, rel=1e-6)
    pipe.follow(0.6, 1000)
    assert float(pipe.p) == pytest.approx(1064 / 500_000, rel=1e-6)
    pipe.follow(-1.0, 1000)
    assert float(pipe.p) == pytest.approx(64 / 500_000, rel=1e-4)
    pipe.follow(0.5, 1000)
    assert float(pipe.p) == 0
    pipe.follow(0.5, 100, target=0.4)
    assert float(pipe.p) == pytest.approx(100 / 500_000, rel=1e-6)


def test_p_stops_at_the_limit_and_says_so() -> None:
    pipe = Adaptive(("shift",), 2, p=0.7999)
    assert not pipe.is_exhausted
    pipe.follow(1.0, 10_000)
    assert float(pipe.p) == pytest.approx(0.8)
    assert pipe.is_exhausted
    pipe.follow(0.0, 64)
    assert not pipe.is_exhausted


def test_p_is_saved_and_changed_in_place() -> None:
    pipe, other = Adaptive(("shift",), 2), Adaptive(("shift",), 2)
    held = pipe.p
    pipe.follow(1.0, 5000)
    other.load_state_dict(pipe.state_dict())
    assert pipe.p is held
    assert float(other.p) == pytest.approx(0.01)


def test_no_preset_mirrors_or_inverts_and_ct_keeps_its_values() -> None:
    for modality in ("CT", "MR", "PT", "US", "DX", "CR", "MG", "XX", ""):
        assert {"flip", "quarter_turn"}.isdisjoint(operations_for(modality))
        assert set(operations_for(modality)) <= set(ALL)
    x = torch.full((200, 1, 9, 9), 0.25)
    out = changed(x, *operations_for("CT"), p=0.8)[:, :, 4, 4]  # the middle: nothing comes in from beyond the edge
    assert ((out - 0.25).abs().lt(1e-5) | (out == -1)).all()
    assert {"brightness", "contrast", "gamma"} <= set(operations_for("MR"))
    assert {"brightness", "contrast"}.isdisjoint(operations_for("PT"))


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown operation 'lumaflip'; accepted: flip, quarter_turn"):
        Adaptive(("shift", "lumaflip"), 2)  # type: ignore[arg-type]


def test_the_order_of_operations_does_not_hang_on_how_they_are_listed() -> None:
    x = images((8, 1, 8, 8))
    assert torch.equal(changed(x, "cutout", "noise", "rotate"), changed(x, "rotate", "noise", "cutout"))


def test_under_autocast_places_are_as_precise_as_without() -> None:
    x = images((16, 1, 64, 64))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = changed(x, "shift", "rotate", "scale")
    torch.testing.assert_close(rounded, changed(x, "shift", "rotate", "scale"), rtol=0, atol=0)
