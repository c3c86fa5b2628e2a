"""Convolutions as matrix products: the same numbers and gradients as torch's own, in every layout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from medgan import nets
from medgan.nets import gemm
from medgan.nets.layers import Layers

CONV = {2: F.conv2d, 3: F.conv3d}
CONV_UP = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def drawn(*shape: int, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    x = torch.randn(*shape, dtype=torch.float64)
    return (x.to(memory_format=layout) if x.ndim > 3 else x).requires_grad_()


def assert_alike(ours: Tensor, theirs: Tensor, *inputs: Tensor) -> None:
    """In value and in the gradients of a random sum; the gradient of a weight lies as the weight does."""
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    towards = torch.randn_like(theirs)
    seen, wanted = (torch.autograd.grad((y * towards).sum(), inputs) for y in (ours, theirs))
    for one, other in zip(seen, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)
    assert seen[1].is_contiguous() == inputs[1].is_contiguous()


@settings(max_examples=60, deadline=None)
@given(
    halves=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    samples=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    last=st.booleans(),
    biased=st.booleans(),
)
def test_a_product_is_the_convolution(
    halves: list[int], samples: int, channels: tuple[int, int], last: bool, biased: bool
) -> None:
    torch.manual_seed(0)
    spatial, (ins, outs) = len(halves), channels
    layout = LAST[spatial] if last else torch.contiguous_format
    bias = [drawn(outs)] if biased else []
    x = drawn(samples, ins, *(2 * half for half in halves), layout=layout)
    weight = drawn(outs, ins, *[4] * spatial, layout=layout)
    theirs = CONV[spatial](x, weight, *(bias or [None]), 2, 1)
    assert_alike(gemm.conv_4_2(x, weight, *(bias or [None])), theirs, x, weight, *bias)
    x = drawn(samples, ins, *halves, layout=layout)
    weight = drawn(ins, outs, *[4] * spatial, layout=layout)
    theirs = CONV_UP[spatial](x, weight, *(bias or [None]), 2, 1)
    assert_alike(gemm.conv_up_4_2(x, weight, *(bias or [None])), theirs, x, weight, *bias)


def test_in_bfloat16_a_bias_leaves_the_type_alone() -> None:
    torch.manual_seed(0)
    large, small, weight, bias = (torch.randn(*shape) for shape in ((1, 4, 8, 8), (1, 4, 4, 4), (4, 4, 4, 4), (4,)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pairs = [
            (gemm.conv_4_2(large, weight, bias), F.conv2d(large, weight, bias, 2, 1)),
            (gemm.conv_up_4_2(small, weight, bias), F.conv_transpose2d(small, weight, bias, 2, 1)),
        ]
    for ours, theirs in pairs:
        assert ours.dtype == theirs.dtype == torch.bfloat16
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("spatial", "size", "width"), [(2, 64, 16), (3, 32, 8)])
def test_a_unet_takes_the_products_where_they_pay_and_is_the_same(
    spatial: int, size: int, width: int, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = nets.build(f"unet_{size}", 1, 1, "instance", spatial_dims=spatial, width=width).double()
    x = torch.randn(2, 1, *[2 * size, *[size] * (spatial - 1)], dtype=torch.float64)
    if last:
        net, x = net.to(memory_format=LAST[spatial]), x.to(memory_format=LAST[spatial])
    taken = []
    for name in ("conv_4_2", "conv_up_4_2"):
        real = getattr(gemm, name)
        monkeypatch.setattr(gemm, name, lambda *args, real=real, name=name: (taken.append(name), real(*args))[1])
    monkeypatch.setattr(gemm, "WEIGHTS_A_PLACE", 16)
    with_products = gradients(net, x)
    assert {"conv_4_2", "conv_up_4_2"} == set(taken)
    monkeypatch.setattr(gemm, "MOST_PLACES", 0)
    taken.clear()
    without = gradients(net, x)
    assert not taken
    for one, other in zip(with_products, without, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def gradients(net: torch.nn.Module, x: Tensor) -> list[Tensor]:
    """Of what matters; biases in front of instance norm get rounding errors alone."""
    y = net(x)
    weights = [p for p in net.parameters() if p.ndim > 1]
    return [y, *torch.autograd.grad(y.square().sum(), weights)]


def test_large_maps_small_weights_and_other_kernels_stay_with_torch() -> None:
    conv = torch.nn.Conv2d(512, 512, 4, 2, 1)
    assert gemm.pays(conv, torch.empty(1, 512, 16, 16))
    assert gemm.pays(conv, torch.empty(8, 512, 8, 8))
    assert not gemm.pays(conv, torch.empty(16, 512, 8, 8))
    assert not gemm.pays(conv, torch.empty(1, 512, 32, 32))
    assert not gemm.pays(conv, torch.empty(1, 512, 8, 8, device="meta"))
    assert not gemm.pays(torch.nn.Conv2d(64, 64, 4, 2, 1), torch.empty(1, 64, 8, 8))
    assert not gemm.pays(torch.nn.Conv2d(512, 512, 3, 2, 1), torch.empty(1, 512, 8, 8))
    assert not gemm.pays(torch.nn.Conv2d(512, 512, 4, 1, 1), torch.empty(1, 512, 8, 8))
    assert gemm.pays(torch.nn.ConvTranspose2d(512, 512, 4, 2, 1), torch.empty(8, 512, 4, 4))
    assert not gemm.pays(torch.nn.ConvTranspose2d(512, 512, 4, 2, 1), torch.empty(16, 512, 4, 4))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("stride", "size"), [(1, 16), (2, 16), (1, 4), (1, 2)])
def test_a_single_sample_in_3d_is_convolved_by_the_fast_library(stride: int, size: int, last: bool) -> None:
    """With and without gradients; against float64."""
    torch.manual_seed(0)
    conv = Layers(3, "instance").conv(6, 4, 3, stride=stride, padding=1, bias=True)
    x = torch.randn(1, 6, size, size, size).requires_grad_()
    seen_by_torch = x.to(memory_format=torch.channels_last_3d) if last else x
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as told:
        still = conv(seen_by_torch)
    assert not any("slow_conv3d" in event.key for event in told.key_averages())
    y = conv(seen_by_torch)
    towards = torch.randn_like(y)
    seen = torch.autograd.grad((y * towards).sum(), [x, conv.weight, conv.bias])
    exact = [t.detach().double().requires_grad_() for t in (x, conv.weight, conv.bias)]
    z = F.conv3d(*exact, stride, 1)
    wanted = torch.autograd.grad((z * towards.double()).sum(), exact)
    for one, other in zip([y, still, *seen], [z, z, *wanted], strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=2e-4)


def test_enough_voxels_are_convolved_beside_an_empty_sample() -> None:
    conv = Layers(3, "instance").conv(2, 2, 3, padding=1, bias=True)
    with profile(activities=[ProfilerActivity.CPU]) as told:
        conv(torch.randn(1, 2, 16, 16, 16)).sum().backward()
    assert not any("slow_conv3d" in event.key for event in told.key_averages())
