"""Penalties on critics whose slopes are known, and against derivatives written out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medgan.penalties import clip_weights_, gradient_penalty, path_length, r1, relativistic, squared_slopes

SHAPES = [(4, 1, 5, 6), (3, 2, 4, 3, 5)]


def images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_gradient_penalty_of_a_linear_critic(shape: tuple[int, ...], target: float) -> None:
    """The slope of x ↦ ⟨w, x⟩ is w wherever it is taken."""
    weight = images(shape[1:], seed=1)

    def critic(x: Tensor) -> Tensor:
        return (x * weight).flatten(1).sum(1)

    length = math.sqrt(sum(float(w) ** 2 for w in weight.flatten()))
    seen = gradient_penalty(critic, images(shape), images(shape, 2), target=target)
    assert float(seen) == pytest.approx((length - target) ** 2, rel=1e-5)


def test_gradient_penalty_looks_on_the_line_between_at_a_place_drawn_for_each_sample() -> None:
    places: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        places.append(x.detach())
        return x.flatten(1).sum(1)

    torch.manual_seed(0)
    gradient_penalty(critic, torch.ones(2000, 2, 3, 3), torch.zeros(2000, 2, 3, 3))
    share = places[0].flatten(1)
    assert torch.equal(share, share[:, :1].expand_as(share))  # one place a sample, not one a channel or voxel
    assert share.min() >= 0
    assert share.max() <= 1
    assert float(share[:, 0].mean()) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 2000))
    assert float(share[:, 0].var()) == pytest.approx(1 / 12, rel=0.1)


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_r1_of_a_quadratic_critic(shape: tuple[int, ...]) -> None:
    """The slope of x ↦ a/2 ‖x‖² is a x."""
    x = images(shape)
    expected = sum((3.0 * float(v)) ** 2 for v in x.flatten()) / shape[0] / 2
    seen = r1(lambda x: 1.5 * x.square().flatten(1).sum(1, keepdim=True), x)
    assert float(seen.detach()) == pytest.approx(expected, rel=1e-5)


def test_what_the_critic_learns_from_penalties_is_the_second_derivative() -> None:
    """Both by how the penalty changes when a weight changes, in float64."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 4, 1)).double()
    real, fake = images((3, 1, 4, 4)).double(), images((3, 1, 4, 4), 1).double()
    weight = net[0].weight

    def penalty() -> Tensor:
        torch.manual_seed(1)
        return gradient_penalty(net, real, fake) + r1(net, real)

    [learnt] = torch.autograd.grad(penalty(), weight)
    for place in [(0, 0, 0, 0), (2, 0, 1, 2)]:
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
            values.append(float(penalty().detach()))
            with torch.no_grad():
                weight[place] -= step
        assert float(learnt[place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_images_get_no_gradient_from_penalties() -> None:
    real, fake = images((2, 1, 4, 4)).requires_grad_(), images((2, 1, 4, 4), 1).requires_grad_()
    weight = torch.ones(1, requires_grad=True)

    def critic(x: Tensor) -> Tensor:
        return weight * x.square().flatten(1).sum(1)

    (gradient_penalty(critic, real, fake) + r1(critic, real)).backward()
    assert real.grad is None
    assert fake.grad is None
    assert weight.grad is not None


def test_a_dead_critic_gets_a_slope_of_nothing_and_not_nan() -> None:
    weight = torch.zeros(1, requires_grad=True)
    penalty = gradient_penalty(lambda x: weight * x.flatten(1).sum(1), images((2, 1, 4, 4)), images((2, 1, 4, 4), 1))
    penalty.backward()
    assert float(penalty.detach()) == 1
    assert weight.grad is not None
    assert float(weight.grad) == 0


def test_logits_at_hand_give_the_same_as_a_second_look() -> None:
    x = images((4, 1, 3, 3)).requires_grad_()

    def critic(x: Tensor) -> Tensor:
        return x.pow(3).flatten(1).sum(1, keepdim=True)

    slopes = squared_slopes(critic(x), x)
    assert slopes.shape == (4,)
    assert torch.equal(slopes.mean() / 2, r1(critic, x))
    torch.testing.assert_close(slopes, torch.tensor([sum((3 * v * v) ** 2 for v in row) for row in x.flatten(1)]))


def test_under_autocast_lengths_are_as_precise_as_float32() -> None:
    """A bfloat16 sum of 4096 squares would be off by more than one in a hundred; slopes themselves are rounded."""
    x = torch.full((2, 1, 64, 64), 0.5)
    weight = torch.full((1, 4096), 1 + 2**-7)  # a bfloat16 number
    with torch.autocast("cpu", torch.bfloat16):
        seen = r1(lambda x: nn.functional.linear(x.flatten(1), weight), x)
    assert seen.dtype == torch.float32
    assert float(seen) == pytest.approx(4096 * (1 + 2**-7) ** 2 / 2, rel=1e-6)


def test_every_sixteenth_step_times_sixteen_teaches_as_much_as_every_step() -> None:
    """Gradients of the penalty on a critic that stands still, summed over 32 steps."""
    weight = torch.tensor(2.0, requires_grad=True)

    def slope() -> float:
        penalty = r1(lambda x: weight * x.flatten(1).sum(1), torch.zeros(1, 1, 2, 2))  # ½ · 4 w²
        return float(torch.autograd.grad(penalty, weight)[0])

    assert sum(slope() for _ in range(32)) == sum(16 * slope() for step in range(32) if step % 16 == 0) == 32 * 8


def test_path_length_against_the_whole_jacobian() -> None:
    """Jᵀ y by a Jacobian computed entry by entry, y drawn again from the same seed."""
    torch.manual_seed(0)
    matrix = torch.randn(2 * 9, 3 * 4)

    def draw(styles: Tensor) -> Tensor:
        return torch.tanh(styles.flatten(1) @ matrix.T).view(-1, 2, 3, 3)

    styles = torch.randn(5, 3, 4, requires_grad=True)
    torch.manual_seed(7)
    penalty, mean = path_length(draw(styles), styles, torch.tensor(0.4), decay=0.25)
    torch.manual_seed(7)
    noise = torch.randn(5, 2, 3, 3) / 3
    lengths = []
    for sample in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda s: draw(s[None])[0], styles[sample].detach())
        slope = torch.einsum("cxy,cxysd->sd", noise[sample], jacobian)
        lengths.append(math.sqrt(float(slope.square().sum(1).mean())))
    expected_mean = 0.4 + 0.25 * (sum(lengths) / 5 - 0.4)
    assert float(mean) == pytest.approx(expected_mean, rel=1e-5)
    assert float(penalty.detach()) == pytest.approx(
        sum((length - expected_mean) ** 2 for length in lengths) / 5, rel=1e-4
    )
    assert not mean.requires_grad
    penalty.backward()
    assert styles.grad is not None


def test_even_paths_cost_nothing_once_the_mean_has_arrived() -> None:
    """An orthogonal generator changes its image as much as its style: |Jᵀ y| is the same up to the length of y."""
    styles = torch.randn(1, 1, 64, requires_grad=True)
    turn = torch.linalg.qr(images((64, 64)))[0]
    torch.manual_seed(0)
    length = (torch.randn(1, 1, 8, 8) / 8).square().sum().sqrt()
    torch.manual_seed(0)
    penalty, mean = path_length((styles @ turn).view(1, 1, 8, 8), styles, length)
    assert float(penalty.detach()) == pytest.approx(0, abs=1e-9)
    assert float(mean) == pytest.approx(float(length))


@given(st.floats(-80, 80), st.floats(-80, 80))
@settings(max_examples=50)
def test_relativistic_loss_is_its_formula_and_hangs_on_the_difference_alone(above: float, below: float) -> None:
    def loss(shift: float) -> float:
        pair = torch.tensor([[above + shift], [below + shift]], dtype=torch.double)
        return float(relativistic(pair[:1], pair[1:]))

    assert loss(0) == pytest.approx(math.log1p(math.exp(below - above)), rel=1e-9)
    assert loss(5) == pytest.approx(loss(0), abs=1e-9)


def test_relativistic_loss_compares_pairs_and_not_means() -> None:
    above, below = torch.tensor([[4.0], [0.0]]), torch.tensor([[0.0], [4.0]])
    expected = (math.log1p(math.exp(-4)) + math.log1p(math.exp(4))) / 2
    assert float(relativistic(above, below)) == pytest.approx(expected, rel=1e-6)


def test_clipping_leaves_no_weight_beyond_and_the_others_alone() -> None:
    net = nn.Linear(3, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.5, -0.5, 0.005], [-0.005, 0.01, 0.02]]))
    clip_weights_(net, 0.01)
    expected = torch.tensor([[0.01, -0.01, 0.005], [-0.005, 0.01, 0.01]])
    assert torch.equal(net.weight, expected)
    assert float(net.bias.detach().abs().max()) <= 0.01
