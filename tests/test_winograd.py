"""Winograd's convolution: the same numbers, gradients and gradients of gradients as torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gemm import assert_alike, drawn, gradients
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from medgan import nets
from medgan.device import settle
from medgan.nets import winograd
from medgan.nets.convs import Conv2d

LAST = torch.channels_last


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(3, 14), st.integers(3, 14)),
    numbers=st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(2, 5)),
    padding=st.integers(0, 1),
    at_once=st.integers(1, 6),
    odds=st.tuples(st.booleans(), st.booleans()),
)
def test_it_is_the_convolution(
    sizes: tuple[int, int], numbers: tuple[int, int, int], padding: int, at_once: int, odds: tuple[bool, bool]
) -> None:
    torch.manual_seed(0)
    (samples, ins, outs), (last, biased) = numbers, odds
    x = drawn(samples, ins, *sizes, layout=LAST if last else torch.contiguous_format)
    weight, bias = drawn(outs, ins, 3, 3), [drawn(outs)] if biased else []
    theirs = F.conv2d(x, weight, *(bias or [None]), 1, padding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "TILES_AT_ONCE", at_once)
        assert_alike(winograd.conv_3(x, weight, *(bias or [None]), padding), theirs, x, weight, *bias)


def test_one_gradient_alone_is_right_too() -> None:
    x, weight = drawn(1, 3, 9, 6), drawn(2, 3, 3, 3)
    for wanted in (x, weight):
        frozen = [one if one is wanted else one.detach() for one in (x, weight)]
        ours, theirs = (way(*frozen, None).pow(2).sum() for way in (winograd.conv_3, F.conv2d))
        torch.testing.assert_close(*(torch.autograd.grad(y, wanted)[0] for y in (ours, theirs)))


def penalty(y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """What a gradient penalty on the input makes of the weights."""
    (to_x,) = torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)
    return torch.autograd.grad(to_x.pow(2).sum(), (x, weight))


def test_gradients_of_gradients() -> None:
    x, weight = drawn(2, 3, 9, 6), drawn(4, 3, 3, 3)
    seen = penalty(winograd.conv_3(x, weight, None, 1), x, weight)
    wanted = penalty(F.conv2d(x, weight, None, 1, 1), x, weight)
    for one, other in zip(seen, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-9)


def test_shapes_are_known_without_values() -> None:
    with FakeTensorMode():
        x, weight = torch.empty(1, 3, 9, 6, requires_grad=True), torch.empty(2, 3, 3, 3, requires_grad=True)
        y = winograd.conv_3(x, weight, None, 1)
        y.sum().backward()
        assert y.shape == (1, 2, 9, 6)
        assert x.grad is not None
        assert x.grad.shape == x.shape


def test_the_error_in_float32_stays_below_two_millionths() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 34, 34).relu(), torch.randn(256, 256, 3, 3)
    exact = F.conv2d(x.double(), weight.double())
    error, plain = (float((way(x, weight, None) - exact).norm() / exact.norm()) for way in (winograd.conv_3, F.conv2d))
    assert plain < error < 2e-6
    assert error < 10 * plain


def test_the_points_halve_the_error_of_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """And bring the largest one down to a third or less."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 34, 34).relu(), torch.randn(256, 256, 3, 3)
    exact = F.conv2d(x.double(), weight.double())
    ours = winograd.conv_3(x, weight, None) - exact
    monkeypatch.setattr(winograd, "POINTS", (0.0, 1.0, -1.0, 2.0, -2.0))
    for name, matrix in zip(("INPUT", "WEIGHT", "OUTPUT"), winograd._base_change(), strict=True):
        monkeypatch.setattr(winograd, name, matrix)
    published = winograd.conv_3(x, weight, None) - exact
    assert published.norm() > 1.8 * ours.norm()
    assert published.abs().max() > 3 * ours.abs().max()


def enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "FEWEST_TILES", 1)


@pytest.mark.parametrize(("norm", "last"), [("instance", False), ("instance", True), ("batch", True)])
def test_a_generator_takes_it_and_is_the_same(norm: str, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nets.build("resnet_6blocks", 1, 1, norm, spatial_dims=2, width=4).double()
    x = torch.randn(1, 1, 32, 24, dtype=torch.float64)
    if last:
        net, x = net.to(memory_format=LAST), x.to(memory_format=LAST)
    taken: list[tuple[int, ...]] = []
    real = winograd.conv_3
    monkeypatch.setattr(
        winograd, "conv_3", lambda x, *rest, **more: (taken.append(tuple(x.shape)), real(x, *rest, **more))[1]
    )
    theirs = gradients(net, x)
    assert not taken
    enough(monkeypatch)
    ours = gradients(net, x)
    assert taken == 12 * [(1, 16, 10, 8)]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_a_settled_layer_keeps_its_weights_as_it_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    enough(monkeypatch)
    conv, x = Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 8, 8)
    made: list[Tensor] = []
    real = winograd.kernel_of
    monkeypatch.setattr(winograd, "kernel_of", lambda weight: (made.append(weight), real(weight))[1])
    settle(conv, torch.device("cpu"), "32")
    first = conv(x)
    assert len(made) == 1
    with torch.no_grad():
        conv.weight *= 2  # it learns nevertheless
    torch.testing.assert_close(conv(x) - conv.bias.view(-1, 1, 1), 2 * (first - conv.bias.view(-1, 1, 1)))
    assert len(made) == 2
    assert set(conv.state_dict()) == {"weight", "bias"}


def test_weights_made_for_inference_alone_are_taken_too(monkeypatch: pytest.MonkeyPatch) -> None:
    enough(monkeypatch)
    with torch.inference_mode():
        conv, x = Conv2d(4, 4, 3, padding=1), torch.randn(1, 4, 8, 8)
        settle(conv, torch.device("cpu"), "32")
        torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, 1, 1), rtol=1e-4, atol=1e-5)


def test_in_bfloat16_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    enough(monkeypatch)
    monkeypatch.setattr(winograd, "kernel_of", None)
    settle(Conv2d(4, 4, 3), torch.device("cpu"), "bf16")


@pytest.mark.parametrize(
    ("layer", "size", "paid"),
    [
        (nn.Conv2d(256, 256, 3), 66, True),  # a block of the published CycleGAN
        (nn.Conv2d(256, 256, 3, padding=1), 64, True),
        (nn.Conv2d(256, 256, 3), 34, False),  # too few tiles
        (nn.Conv2d(512, 512, 3), 66, False),  # too many weights for them
        (nn.Conv2d(128, 256, 3), 66, False),  # too few channels
        (nn.Conv2d(256, 256, 3, stride=2), 130, False),
        (nn.Conv2d(256, 256, 3, dilation=2), 66, False),
        (nn.Conv2d(256, 256, 3, groups=2), 66, False),
        (nn.Conv2d(256, 256, 5), 66, False),
    ],
)
def test_it_is_taken_where_it_pays(layer: nn.Conv2d, size: int, paid: bool) -> None:
    x = torch.zeros(1, layer.in_channels, size, size)
    assert winograd.pays(layer, x) == paid
    assert not winograd.pays(layer, x.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not winograd.pays(layer, x)
