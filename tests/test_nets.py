"""Nets: sizes, layouts, dimensions, and the norm that PyTorch gets wrong."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medgan import nets
from medgan.errors import ConfigError, InputError
from medgan.nets.layers import Layers

GENERATORS = tuple(name for name in get_args(nets.GeneratorName) if name != "swin_unetr")  # test_swin.py has that one
DISCRIMINATORS = get_args(nets.DiscriminatorName)
RECEPTIVE_FIELDS = {1: 16, 2: 34, 3: 70, 4: 142, 5: 286}
MAPS_OF_256 = {1: 126, 2: 62, 3: 30, 4: 14, 5: 6}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def normed_gradient_error(
    norm: nn.Module, *, samples: int, spatial_dims: int, dtype: torch.dtype, gradient_channels_last: bool
) -> float:
    """Relative error of the input gradient against the formula in float64."""
    shape, axes = (samples, 6, *(9, 10, 7)[:spatial_dims]), tuple(range(2, 2 + spatial_dims))
    exact, arriving = noise(*shape, dtype=torch.float64).requires_grad_(), noise(*shape, seed=1, dtype=torch.float64)
    centred = exact - exact.mean(axes, keepdim=True)
    (centred / (exact.var(axes, correction=0, keepdim=True) + 1e-5).sqrt() * arriving).sum().backward()
    x, gradient = exact.detach().to(dtype).requires_grad_(), arriving.to(dtype)
    if gradient_channels_last:
        gradient = gradient.contiguous(memory_format=CHANNELS_LAST[spatial_dims])
    norm(x).backward(gradient)
    assert exact.grad is not None
    assert x.grad is not None
    return float((x.grad.double() - exact.grad).norm() / exact.grad.norm())


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("gradient_channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_instance_norm_has_the_right_gradient_in_every_layout(
    spatial_dims: int, samples: int, gradient_channels_last: bool, dtype: torch.dtype, tolerance: float
) -> None:
    error = normed_gradient_error(
        nets.InstanceNorm(),
        samples=samples,
        spatial_dims=spatial_dims,
        dtype=dtype,
        gradient_channels_last=gradient_channels_last,
    )
    assert error < tolerance


def test_the_guard_above_sees_the_fault_of_pytorch() -> None:
    """`nn.InstanceNorm2d` fails the same check; where a torch is mended, our layer is no longer needed."""
    error = normed_gradient_error(
        nn.InstanceNorm2d(6), samples=1, spatial_dims=2, dtype=torch.float32, gradient_channels_last=True
    )
    if error < 1e-6:
        pytest.skip(f"nn.InstanceNorm2d is right in torch {torch.__version__}: medgan's InstanceNorm can go")
    assert error > 0.1


def test_instance_norm_is_the_same_function_as_pytorch_and_knows_no_mode() -> None:
    x = noise(3, 4, 8, 6, dtype=torch.float64)
    norm = nets.InstanceNorm()
    torch.testing.assert_close(norm(x), nn.InstanceNorm2d(4)(x))
    torch.testing.assert_close(norm.eval()(x), nn.InstanceNorm2d(4)(x))
    assert not norm.state_dict()


def soil_the_heap() -> None:
    """Leave freed memory full of NaN, so that a kernel that reads what it never wrote is found out."""
    for power in range(4, 18):
        torch.full((2**power,), float("nan"))


TINY = [(2, 2, 2), (3, 3, 3), (3, 2, 4), (4, 2, 2), (8, 2, 8), (3, 4, 8), (4, 4, 4), (5, 4, 4)]
TINY_UP = [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 1, 2), (1, 2, 1), (2, 2, 2)]


@pytest.mark.parametrize(
    ("kind", "size"),
    [(kind, size) for kind in ("halve", "keep") for size in TINY] + [("double", size) for size in TINY_UP],
)
def test_tiny_volumes_have_the_right_gradients_in_bf16(kind: str, size: tuple[int, int, int]) -> None:
    """Where the bare convs of torch 2.13 read or write foreign memory on a CPU."""
    layers = Layers(3, "instance")
    if kind == "double":
        conv, published = layers.conv_up(16, 8, 4, bias=True), nn.ConvTranspose3d(16, 8, 4, 2, 1)
    else:
        stride = 2 if kind == "halve" else 1
        conv = layers.conv(16, 8, 4, stride=stride, padding=1, bias=True)
        published = nn.Conv3d(16, 8, 4, stride, 1)
    if kind == "keep" and min(size) < 3:
        size = (max(size), 3, 3)
    published.double().load_state_dict(conv.state_dict())
    exact = noise(2, 16, *size, dtype=torch.float64).requires_grad_()
    y = published(exact)
    torch.testing.assert_close(conv.double()(exact), y)
    arriving = noise(*y.shape, seed=1, dtype=torch.float64)
    y.backward(arriving)
    conv.bfloat16()
    for _ in range(2):
        conv.zero_grad()
        soil_the_heap()
        x = exact.detach().bfloat16().requires_grad_()
        conv(x).backward(arriving.bfloat16())
        for seen, true in ((x.grad, exact.grad), (conv.weight.grad, published.weight.grad)):
            assert seen is not None
            assert true is not None
            assert float((seen.double() - true).norm() / true.norm()) < 0.02


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_generators_keep_the_size_and_stay_within_one(name: str, norm: str) -> None:
    net = nets.build(name, 3, 2, norm, width=2)
    size = max(net.divisor, 16)
    y = (net.eval() if name.startswith("res_unet") else net)(10 * noise(2, 3, size, 2 * size))
    assert y.shape == (2, 2, size, 2 * size)
    assert y.abs().max() <= 1


@pytest.mark.parametrize("name", ["unet_32", "resnet_6blocks", "basic", "n_layers", "pixel"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_volumes_by_the_same_code(name: str, norm: str) -> None:
    net = nets.build(name, 2, 1, norm, spatial_dims=3, width=2)
    y = net(noise(1, 2, 32, 32, 64))
    assert y.ndim == 5
    assert y.isfinite().all()
    if name in GENERATORS:
        assert y.shape == (1, 1, 32, 32, 64)


@torch.no_grad()
def copy_into_one_plane(flat: nn.Module, deep: nn.Module) -> None:
    """Give a volume net the kernels of an image net in the planes that pass z on unchanged, and 0 elsewhere."""
    for image_layer, volume_layer in zip(flat.modules(), deep.modules(), strict=True):
        if isinstance(volume_layer, nn.Conv3d | nn.ConvTranspose3d):
            # z = 2i − 1 + k, so the kernel planes 1 and 2 of a doubling make the even and the odd planes.
            planes = (
                [1, 2] if isinstance(volume_layer, nn.ConvTranspose3d) else [(volume_layer.kernel_size[0] - 1) // 2]
            )
            volume_layer.weight.zero_()
            volume_layer.weight[..., planes] = image_layer.weight[..., None]  # type: ignore[index]
            if volume_layer.bias is not None:
                volume_layer.bias.copy_(image_layer.bias)  # type: ignore[arg-type]
        elif isinstance(volume_layer, nn.BatchNorm3d):
            volume_layer.load_state_dict(image_layer.state_dict())


@pytest.mark.parametrize("name", ["unet_32", "resnet_6blocks", "basic", "pixel"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_volume_net_that_does_nothing_along_z_is_the_image_net(name: str, norm: str) -> None:
    flat, deep = (nets.build(name, 1, 1, norm, spatial_dims=dims, width=2).double() for dims in (2, 3))
    copy_into_one_plane(flat, deep)
    x = noise(2, 1, 32, 32, dtype=torch.float64)
    y, planes = flat(x), deep(x[..., None].expand(-1, -1, -1, -1, 32))
    torch.testing.assert_close(planes, y[..., None].expand_as(planes))


@pytest.mark.parametrize("num_layers", RECEPTIVE_FIELDS)
def test_patchgan_sees_the_published_patch(num_layers: int) -> None:
    """Only the voxels of one patch change one logit (seen by its gradient; in eval mode batch norm mixes nothing)."""
    net = nets.build("n_layers", 1, width=2, num_layers=num_layers).double().eval()
    x = noise(1, 1, 400, 400, dtype=torch.float64).requires_grad_()
    logits = net(x)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    assert x.grad is not None
    rows = x.grad[0, 0].abs().sum(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == RECEPTIVE_FIELDS[num_layers]


@pytest.mark.parametrize("num_layers", MAPS_OF_256)
def test_patchgan_maps_of_256(num_layers: int) -> None:
    net = nets.build("n_layers", 1, width=1, num_layers=num_layers)
    assert net(noise(1, 1, 256, 256)).shape == (1, 1, MAPS_OF_256[num_layers], MAPS_OF_256[num_layers])


def test_dropout_sits_in_the_inner_levels_and_only_in_training() -> None:
    counts = {
        name: sum(isinstance(layer, nn.Dropout) for layer in nets.build(name, 1, dropout=True, width=1).modules())
        for name in GENERATORS
    }
    assert counts == {
        "unet_256": 3,
        "unet_128": 2,
        "unet_64": 1,
        "unet_32": 0,
        "resnet_9blocks": 9,
        "resnet_6blocks": 6,
        "res_unet_32": 26,
        "res_unet_16": 20,
    }
    net, x = nets.build("unet_64", 1, dropout=True, width=2), noise(1, 1, 64, 64)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize("name", ["unet_32", "resnet_6blocks", "basic", "pixel"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_channels_last_gives_the_same_outputs_and_gradients(name: str, norm: str, spatial_dims: int) -> None:
    """At batch 1, where PyTorch's instance norm goes wrong."""
    net = nets.build(name, 1, 1, norm, spatial_dims=spatial_dims, width=2).double()
    x = noise(1, 1, *(32,) * spatial_dims, dtype=torch.float64)
    gradients = []
    for memory_format in (torch.contiguous_format, CHANNELS_LAST[spatial_dims]):
        net.to(memory_format=memory_format).zero_grad()
        net(x.to(memory_format=memory_format)).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    for plain, last in zip(*gradients, strict=True):
        torch.testing.assert_close(last, plain, rtol=1e-8, atol=1e-11)


def test_the_input_is_left_as_it_was() -> None:
    for name in (*GENERATORS, *DISCRIMINATORS):
        net = nets.build(name, 1, width=1)
        x = noise(1, 1, 256, 256)
        net(x)
        assert torch.equal(x, noise(1, 1, 256, 256)), name


@given(size=st.lists(st.integers(1, 80), min_size=2, max_size=2), name=st.sampled_from(["unet_32", "resnet_6blocks"]))
@settings(max_examples=30, deadline=None)
def test_a_generator_takes_a_size_or_says_which(size: list[int], name: str) -> None:
    net = nets.build(name, 1, width=1)
    fits = all(n % net.divisor == 0 and n >= net.smallest for n in size)
    if fits:
        assert net(noise(2, 1, *size)).shape[2:] == tuple(size)
    else:
        with pytest.raises(InputError, match=f"{size[0]}×{size[1]} .* at least {net.smallest} and a multiple of"):
            net(noise(2, 1, *size))


@given(size=st.lists(st.integers(1, 60), min_size=2, max_size=2), num_layers=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_a_discriminator_takes_every_size_that_leaves_a_logit(size: list[int], num_layers: int) -> None:
    net = nets.build("n_layers", 1, norm="instance", width=1, num_layers=num_layers)
    if min(size) >= net.smallest:
        assert net(noise(1, 1, *size)).isfinite().all()
    else:
        with pytest.raises(InputError, match="pad"):
            net(noise(1, 1, *size))
        with pytest.raises((RuntimeError, ValueError)):  # nothing that would have worked is refused
            net.body(noise(1, 1, *size))


def test_a_volume_into_an_image_net_is_refused() -> None:
    with pytest.raises(InputError, match="takes 2 axes"):
        nets.build("basic", 1, width=1)(noise(1, 1, 32, 32, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("unet_512", 1), "unknown net 'unet_512'; accepted: unet_256, .*resnet_9blocks.*basic, n_layers, pixel"),
        (("unet_256", 1, 1, "layer"), "unknown norm 'layer'; accepted: batch, instance"),
        (("unet_256", 0), "in_channels is a whole number of at least 1; seen 0"),
        (("unet_256", 1, -1), "out_channels is a whole number of at least 1; seen -1"),
        (("unet_256", 1, 1, "batch", False, 4), "spatial_dims is a whole number from 2 to 3; seen 4"),
        (("basic", 1, 1, "batch", True), "a discriminator has no dropout"),
    ],
)
def test_bad_arguments_name_what_is_accepted(arguments: tuple[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        nets.build(*arguments)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet_32", {"width": 0}, "width is a whole number of at least 1; seen 0"),
        ("n_layers", {"num_layers": 6}, "num_layers is a whole number from 1 to 5; seen 6"),
        ("basic", {"num_layers": 2}, "num_layers belongs to the net n_layers alone"),
        ("unet_32", {"num_layers": 2}, "num_layers belongs to the net n_layers alone"),
    ],
)
def test_bad_options_name_what_is_accepted(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        nets.build(name, 1, **options)


def test_weights_are_drawn_as_published() -> None:
    net = nets.build("unet_128", 1, width=32)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.numel() > 10_000:
            assert float(parameter.detach().mean()) == pytest.approx(0, abs=1e-3)
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.05)
    norms = torch.cat([p.detach() for n, p in net.named_parameters() if n.endswith("weight") and p.ndim == 1])
    assert float(norms.mean()) == pytest.approx(1, abs=0.002)
    assert float(norms.std()) == pytest.approx(0.02, rel=0.1)


def test_weights_come_from_the_seed_alone() -> None:
    def drawn(seed: int) -> list[Tensor]:
        net = nets.build("unet_32", 1, width=2)
        nets.init_weights(net, torch.Generator().manual_seed(seed))
        return [p.detach() for p in net.parameters()]

    assert all(torch.equal(x, y) for x, y in zip(drawn(3), drawn(3), strict=True))
    assert not torch.equal(drawn(3)[0], drawn(4)[0])
