"""Checkerboards and borders: what doubles sizes by interpolation, and what mirrors the image beyond its edge."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medgan import nets
from medgan.errors import ConfigError
from medgan.models import Pix2pixSettings
from medgan.nets.layers import Layers

SIZES = {"unet_32": (64, 32, 32), "resnet_6blocks": (16, 8, 8), "res_unet_16": (32, 32, 32)}
GENERATORS = tuple(SIZES)
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def make(name: str, dims: int = 2, norm: str = "batch", seed: int = 0, **options: Any) -> nets.Net:
    torch.manual_seed(seed)
    return nets.build(name, 1, 1, norm, spatial_dims=dims, width=4, **options).double()


def from_constant(net: nets.Net, size: int) -> Tensor:
    """What fresh weights make of a constant image: tiny values, so that no tanh and no clamp hides anything."""
    with torch.no_grad():
        return net.eval()(torch.full((1, 1, *(size,) * net.spatial_dims), 0.5, dtype=torch.float64))


def checkerboard(y: Tensor) -> float:
    """Energy of period 2 along x as a share of all energy, a quarter of the image at each edge left out."""
    inner = y[(..., *[slice(n // 4, -n // 4) for n in y.shape[2:]])]
    energies = torch.fft.rfft(inner, dim=2).abs().square().mean((0, 1, *range(3, y.ndim)))
    return float(energies[-1] / energies.sum())


@pytest.mark.parametrize("name", GENERATORS)
def test_a_transposed_conv_draws_a_checkerboard_and_a_resize_none(name: str) -> None:
    """Before any training: Odena et al. 2016, §"Deconvolution & Overlap"."""
    drawn, resized = (
        [checkerboard(from_constant(make(name, seed=seed, **options), 64)) for seed in range(3) for options in variants]
        for variants in ([{}], [{"upsample": "resize"}, {"antialias": True}])
    )
    assert max(resized) < 0.002 * min(drawn)


@pytest.mark.parametrize(("dims", "size"), [(2, 64), (3, 32)])
@pytest.mark.parametrize("name", GENERATORS)
def test_resized_and_reflected_a_constant_image_stays_constant_up_to_its_edge(name: str, dims: int, size: int) -> None:
    """Zeros beyond the edge are an edge themselves, and transposed convs tell neighbours apart."""

    def roughness(**options: Any) -> float:
        y = from_constant(make(name, dims, **options), size)
        return float(y.std() / y.mean().abs())

    assert roughness(upsample="resize", padding="reflect") < 1e-12
    assert roughness(antialias=True, padding="reflect") < 1e-12
    assert roughness(upsample="resize") > 1e-2
    assert roughness(padding="reflect") > 1e-4


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_a_resize_is_linear_interpolation_and_a_conv(dims: int, kernel: int) -> None:
    layers = Layers(dims, "instance", upsample="resize")
    blur, conv = layers.doubling(3, 2, kernel, bias=True)
    x = torch.randn(2, 3, *(4, 5, 3)[:dims])
    larger = F.interpolate(x, scale_factor=2, mode="bilinear" if dims == 2 else "trilinear", align_corners=False)
    convolve = F.conv2d if dims == 2 else F.conv3d
    torch.testing.assert_close(conv(blur(x)), convolve(larger, conv.weight, conv.bias, padding=1))  # type: ignore[arg-type]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("channels", "kernel", "stride"), [(2, 3, 1), (2, 3, 2), (128, 4, 2)])
def test_reflection_is_of_the_voxels_inside_the_edge(dims: int, channels: int, kernel: int, stride: int) -> None:
    """Also of a conv so wide that with zeros beyond the edge it is computed in another way."""
    layers = Layers(dims, "instance", padding="reflect")
    conv = layers.conv(channels, channels, kernel, stride=stride, padding=1, bias=True)
    x = torch.randn(1, channels, *(6, 8, 4)[:dims])
    convolve = F.conv2d if dims == 2 else F.conv3d
    expected = convolve(F.pad(x, [1] * 2 * dims, mode="reflect"), conv.weight, conv.bias, stride)  # type: ignore[arg-type]
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("options", [{"upsample": "resize"}, {"padding": "reflect"}, {"antialias": True}])
def test_sizes_layouts_and_gradients(name: str, dims: int, options: dict[str, Any]) -> None:
    """The same in channels last."""
    net = make(name, dims, "instance", **options).train()
    assert net.divisor == make(name, dims).divisor
    x = torch.randn(1, 1, *SIZES[name][:dims], dtype=torch.float64)
    gradients = []
    for memory_format in (torch.contiguous_format, CHANNELS_LAST[dims]):
        net.to(memory_format=memory_format).zero_grad()
        y = net(x.to(memory_format=memory_format))
        assert y.shape == x.shape
        y.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    plain, last = gradients
    assert len(plain) == sum(p.numel() for p in net.parameters())
    assert float((last - plain).norm() / plain.norm()) < 1e-9


def test_reflection_needs_two_voxels_below() -> None:
    net = make("res_unet_16", norm="instance", padding="reflect")
    assert net.smallest == 2 * net.divisor
    net.smallest = net.divisor  # what would happen without that rule
    with pytest.raises(RuntimeError, match="Padding size"):
        net(torch.zeros(1, 1, net.divisor, 4 * net.divisor).double())


@pytest.mark.parametrize("options", [{"upsample": "resize"}, {"padding": "reflect"}, {"antialias": True}])
@pytest.mark.parametrize("name", GENERATORS)
def test_bf16_is_near_the_exact_result(name: str, options: dict[str, Any]) -> None:
    """In 3-D, down to sizes where convs of torch 2.13 go wrong on a CPU."""
    net = make(name, 3, "instance", **options)
    x = torch.randn(1, 1, *SIZES[name], dtype=torch.float64)
    exact = net(x).detach()
    with torch.autocast("cpu", torch.bfloat16):
        y = net.float()(x.float())
    assert float((y.detach().double() - exact).norm() / exact.norm()) < 0.1
    y.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_names_of_weights_stay_where_only_padding_changes() -> None:
    for name in GENERATORS:
        plain, reflected = make(name).state_dict(), make(name, padding="reflect").state_dict()
        assert {key: value.shape for key, value in plain.items()} == {k: v.shape for k, v in reflected.items()}
        assert all(torch.equal(plain[key], reflected[key]) for key in plain)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "resnet_9blocks", "antialias": True, "upsample": "resize"}, "upsample: antialias doubles sizes by"),
        ({"name": "res_unet_16", "antialias": True, "upsample": "resize"}, "upsample: antialias doubles sizes by"),
        ({"name": "swin_unetr", "width": 24, "upsample": "resize"}, "upsample belongs to .*not to swin_unetr; leave"),
        ({"name": "swin_unetr", "width": 24, "padding": "reflect"}, "padding belongs to .*not to swin_unetr; leave"),
        ({"upsample": "nearest"}, "generator.upsample: .*'transposed' or 'resize'"),
        ({"padding": "edge"}, "generator.padding: .*'zeros' or 'reflect'"),
    ],
)
def test_what_has_no_effect_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pix2pixSettings.parse({"generator": values})


@pytest.mark.parametrize("options", [{"upsample": "resize"}, {"padding": "reflect"}])
def test_discriminators_have_neither(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not to basic; leave it out"):
        nets.build("basic", 1, **options)
    with pytest.raises(ConfigError, match="unknown key"):
        Pix2pixSettings.parse({"discriminator": options})


def test_unknown_names_are_told() -> None:
    with pytest.raises(ConfigError, match="unknown upsample 'nearest'; accepted: transposed, resize"):
        nets.build("unet_32", 1, upsample="nearest")  # type: ignore[arg-type]
