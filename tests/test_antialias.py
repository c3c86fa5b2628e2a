"""U-Nets whose sizes are halved by blurs: against a definition of their own, and steadier as the image moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_models import new_adams, small_batch, step
from torch import Tensor, nn

from medgan import nets
from medgan.errors import ConfigError, InputError
from medgan.models import Pix2pixSettings
from medgan.nets import gemm
from medgan.nets.layers import BlurDown
from medgan.train import train

CONVS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SMALLEST = {
    ("unet_32", 2): (32, 32),
    ("unet_32", 3): (32,) * 3,
    ("res_unet_16", 2): (32, 16),
    ("res_unet_16", 3): (32, 16, 16),
}
EACH = tuple(SMALLEST)


def make(name: str, dims: int = 2, norm: str = "instance", seed: int = 0, width: int = 4, **options: Any) -> nets.Net:
    torch.manual_seed(seed)
    return nets.build(name, 1, 1, norm, spatial_dims=dims, width=width, **options).double()


# --- what they are ----------------------------------------------------------------------------------------------------


def blurred(x: Tensor) -> Tensor:
    """½ of every second voxel and ¼ of the two beside it, along each axis; beyond the edge comes the image mirrored."""
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        places = torch.arange(0, n, 2)
        before, behind = (places - 1).abs(), n - 1 - (n - 2 - places).abs()
        x = x.index_select(axis, places) / 2 + (x.index_select(axis, before) + x.index_select(axis, behind)) / 4
    return x


def doubled(x: Tensor) -> Tensor:
    """¾ of the nearer and ¼ of the farther neighbour, along each axis; beyond the edge comes the last voxel."""
    for axis in range(2, x.ndim):
        places = torch.arange(x.shape[axis])
        before, behind = (x.index_select(axis, (places + to).clamp(0, len(places) - 1)) / 4 for to in (-1, 1))
        x = torch.stack([before + 0.75 * x, 0.75 * x + behind], axis + 1).flatten(axis, axis + 1)
    return x


class Hand:
    """Does one layer after the other with a net's parameters, in their order."""

    def __init__(self, net: nn.Module, dims: int, norm: str) -> None:
        self.parameters: Iterator[Tensor] = iter(list(net.parameters()))
        self.norm, self.convolve = norm, F.conv2d if dims == 2 else F.conv3d

    def conv(self, x: Tensor, *, bias: bool | None = None) -> Tensor:
        """Keeps the size: zeros beyond the edge."""
        weight = next(self.parameters)
        biased = self.norm == "instance" if bias is None else bias
        y: Tensor = self.convolve(x, weight, next(self.parameters) if biased else None, padding=weight.shape[-1] // 2)  # type: ignore[operator]
        return y

    def normed(self, x: Tensor) -> Tensor:
        axes = [axis for axis in range(x.ndim) if axis != 1 and (axis or self.norm == "batch")]
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        y = (x - mean) / (variance + 1e-5).sqrt()
        if self.norm == "instance":
            return y
        weight, bias = (next(self.parameters).reshape(-1, *[1] * (x.ndim - 2)) for _ in range(2))
        return weight * y + bias


def unet_by_hand(hand: Hand, x: Tensor, num_downs: int) -> Tensor:
    skips = []
    for level in range(num_downs):
        x = hand.conv(x)
        if 0 < level < num_downs - 1:
            x = hand.normed(x)
        x = blurred(F.relu(x) if level == num_downs - 1 else F.leaky_relu(x, 0.2))
        skips.append(x)
    x = skips.pop()
    for skip in reversed(skips):
        x = torch.cat([skip, hand.normed(hand.conv(doubled(F.relu(x))))], 1)
    return hand.conv(doubled(F.relu(x)), bias=True).tanh()


def res_unet_by_hand(hand: Hand, x: Tensor, num_downs: int, width: int) -> Tensor:
    """Parameters stand in the order of encoder, doublings, merges, head; doublings and merges take turns."""
    x, skips, channels = F.leaky_relu(hand.normed(hand.conv(x)), 0.01), [], width
    for stage in range(num_downs + 1):
        for block in range((1, 3, 4, 6, 6)[stage]):
            halves = stage > 0 and block == 0
            inner = F.leaky_relu(hand.normed(hand.conv(x)), 0.01)
            inner = hand.normed(hand.conv(blurred(inner) if halves else inner))
            around = blurred(x) if halves else x
            widens = channels != inner.shape[1]
            x = F.leaky_relu(inner + (hand.normed(hand.conv(around)) if widens else around), 0.01)
            channels = x.shape[1]
        skips.append(x)
    x = skips.pop()
    biased = hand.norm == "instance"
    rest = list(hand.parameters)
    ups, merges = rest[: num_downs * (1 + biased)], rest[num_downs * (1 + biased) :]
    for skip in reversed(skips):
        hand.parameters = iter(ups)
        x = hand.conv(doubled(x))
        ups = list(hand.parameters)
        hand.parameters = iter(merges)
        x = F.leaky_relu(hand.normed(hand.conv(torch.cat([x, skip], 1))), 0.01)
        merges = list(hand.parameters)
    hand.parameters = iter(merges)
    return hand.conv(x, bias=True)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("name", "dims"), EACH)
def test_they_are_convs_that_keep_the_size_and_blurs_that_halve_it(name: str, norm: str, dims: int) -> None:
    """Output and the gradient of the input, in training; every parameter is used up."""
    net = make(name, dims, norm, width=2, antialias=True).train()
    wide_awake(net)
    x = image(32, dims, samples=4 - dims)[(..., *[slice(n) for n in SMALLEST[name, dims]])].requires_grad_()
    hand = Hand(net, dims, norm)
    expected = unet_by_hand(hand, x, 5) if name == "unet_32" else res_unet_by_hand(hand, x, 4, 2)
    assert next(hand.parameters, None) is None
    y = net(x)
    assert float(y.detach().std()) > 0.01
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    towards = torch.randn_like(x)
    (seen,), (wanted,) = (torch.autograd.grad((z * towards).sum(), [x]) for z in (y, expected))
    torch.testing.assert_close(seen, wanted, rtol=1e-7, atol=1e-9)


def test_the_innermost_blur_takes_two_voxels_to_their_mean() -> None:
    x = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(BlurDown(3).double()(x), x.mean((2, 3, 4), keepdim=True))
    torch.testing.assert_close(blurred(x), x.mean((2, 3, 4), keepdim=True))


# --- what they are for ------------------------------------------------------------------------------------------------


def image(n: int, dims: int, *, seed: int = 0, samples: int = 1) -> Tensor:
    """Noise whose amplitude falls with its frequency, as that of scans does; of standard deviation 1."""
    axes = tuple(range(2, 2 + dims))
    x = torch.randn(samples, 1, *[n] * dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    frequencies = torch.meshgrid(*[torch.fft.fftfreq(n, dtype=torch.float64)] * dims, indexing="ij")
    falling = (sum(f.square() for f in frequencies) + 1 / n**2) ** -0.5
    x = torch.fft.ifftn(torch.fft.fftn(x, dim=axes) * falling, dim=axes).real
    return x / x.std()


@torch.no_grad()
def wide_awake(net: nn.Module) -> None:
    """Weights under which every path counts.

    With those of a fresh net, N(0, 0.02), what a residual U-Net makes comes from its uppermost stage alone, which
    halves nothing. A voxel behind a transposed conv of stride 2 is made of a share of the kernel.
    """
    convs = [layer for layer in net.modules() if isinstance(layer, CONVS)]
    for layer in convs:
        taps = layer.weight[0, 0].numel() / (2 ** (layer.weight.ndim - 2) if layer.transposed else 1)
        layer.weight.normal_(0, (2 / (layer.in_channels * taps)) ** 0.5)
    convs[-1].weight.mul_(0.1)  # far from where tanh is flat


@torch.no_grad()
def unsteadiness(net: nets.Net, n: int, steps: int = 1, *, seed: int = 0) -> float:
    """By how much the image of an object changes as the object moves along all axes, in standard deviations.

    0 if the result moves along with it; √2 if it becomes another one altogether. The middle half is looked at.
    """
    dims = net.spatial_dims
    x = image(n + steps, dims, seed=seed).float()
    here, there = (net(x[(..., *[slice(low, low + n)] * dims)]) for low in (steps, 0))
    still, moved = (y[(..., *[slice(n // 4 + low, n - n // 4 + low)] * dims)] for y, low in ((here, 0), (there, steps)))
    assert float(still.std()) > 1e-3
    return float((still - moved).square().mean().sqrt() / still.std())


@pytest.mark.parametrize(("name", "dims"), EACH)
def test_they_are_steadier_than_with_strides_as_the_image_moves_by_a_voxel(name: str, dims: int) -> None:
    """Also than with strides and a decoder that interpolates; the same draws of weights and images for all three."""
    for seed in range(3 if dims == 2 else 1):
        strides, resized, blurs = (
            unsteadiness(awake(name, dims, seed, **options), 64 if dims == 2 else 32, seed=seed)
            for options in ({}, {"upsample": "resize"}, {"antialias": True})
        )
        assert strides > 0.8
        assert blurs < 0.6 * strides
        assert blurs < resized


@pytest.mark.parametrize("name", ["unet_32", "res_unet_16"])
def test_the_measure_above_looks_at_the_same_place_of_the_object(name: str) -> None:
    """Strides bear a movement by half of what they stride in all: only the innermost maps become others."""
    net = awake(name, 2, 0)
    assert unsteadiness(net, 128, net.divisor // 2) < 0.5 * unsteadiness(net, 128, 1)


def awake(name: str, dims: int, seed: int, **options: Any) -> nets.Net:
    net = make(name, dims, seed=seed, width=8 if dims == 2 else 4, **options).float()
    wide_awake(net)
    return net


# --- what they take ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("name", "dims"), EACH)
def test_the_smallest_patches_are_those_of_the_nets_with_strides(name: str, dims: int, norm: str, padding: str) -> None:
    """One sample, in training, where the innermost maps have a voxel along most axes; what is smaller is refused."""
    net, strided = (
        make(name, dims, norm, width=2, padding=padding, antialias=blurs).train() for blurs in (True, False)
    )
    assert (net.divisor, net.smallest, net.norms_below) == (strided.divisor, strided.smallest, strided.norms_below)
    size = SMALLEST[name, dims] if net.smallest == net.divisor else (32,) * dims
    y = net(torch.randn(1, 1, *size, dtype=torch.float64))
    assert y.shape[2:] == size
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    with pytest.raises(InputError, match=f"each at least {net.smallest} and a multiple of {net.divisor}"):
        net(torch.zeros(1, 1, *size[:-1], size[-1] // 2, dtype=torch.float64))


def test_a_residual_u_net_still_needs_two_voxels_below() -> None:
    with pytest.raises(InputError, match="16×16 does not fit the net ResUNet: one side at least has to be 32 or more"):
        make("res_unet_16", antialias=True).train()(torch.zeros(1, 1, 16, 16, dtype=torch.float64))


# --- what else must stay ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet_32", "res_unet_16"])
def test_blurs_are_no_weights(name: str) -> None:
    """As many entries, and those of the net with strides are not taken for them."""
    net, strided = make(name, antialias=True), make(name)
    assert len(net.state_dict()) == len(strided.state_dict())
    assert not any("kernel" in key or "halve" in key for key in net.state_dict() | strided.state_dict())
    with pytest.raises(RuntimeError, match="Error"):
        net.load_state_dict(strided.state_dict())


@pytest.mark.parametrize("name", ["unet_32", "res_unet_16"])
def test_weights_that_were_kept_make_the_same_net(name: str) -> None:
    net, other = (make(name, norm="batch", seed=seed, antialias=True).eval() for seed in (0, 1))
    x = torch.randn(1, 1, 64, 32, dtype=torch.float64)
    assert not torch.equal(net(x), other(x))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x))


@pytest.mark.parametrize("name", ["unet_32", "unet_128", "res_unet_16"])
def test_no_product_stands_in_for_their_convs(name: str) -> None:
    """They are of kernels 3 and 1 and stride 1, products of 4 and 2; with strides they go on standing in."""
    with torch.device("meta"):
        built = [nets.build(name, 1, width=64, antialias=blurs) for blurs in (True, False)]
    convs, strided = ([layer for layer in net.modules() if isinstance(layer, CONVS)] for net in built)
    assert {(layer.kernel_size[0], layer.stride[0]) for layer in convs} <= {(3, 1), (1, 1)}
    assert not any(gemm.pays(layer, torch.empty(1, layer.in_channels, 2, 2)) for layer in convs)
    assert any(gemm.pays(layer, torch.empty(1, layer.in_channels, 2, 2)) for layer in strided) == (
        name != "res_unet_16"
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [("swin_unetr", "whose patches MONAI's transformer merges in its own way"), ("pixel", "which halves nothing")],
)
def test_what_cannot_be_antialiased_says_why(name: str, why: str) -> None:
    assert not nets.can_antialias(name)
    with pytest.raises(
        ConfigError, match=f"antialias belongs to U-Nets, resnets and PatchGANs, not to {name}, {why}; set"
    ):
        nets.build(name, 1, width=24, antialias=True)


@pytest.mark.parametrize(("name", "patch"), [("unet_32", "[32, 32, 1]"), ("res_unet_16", "[32, 16, 1]")])
def test_a_training_of_two_steps(tiny_cohort: Path, tmp_path: Path, name: str, patch: str) -> None:
    """Through the loop, into a run folder and out of it."""
    overrides = [f"model.generator.name={name}", "model.generator.antialias=true", f"patch={patch}"]
    steps = ["train.steps=2", "train.validate_every=2", "train.checkpoint_every=2"]
    run = train(tiny_cohort / "tiny.yaml", [*overrides, *steps], out=tmp_path / "run", device="cpu")
    net = run.translator().generators["b"]
    assert sum(isinstance(layer, BlurDown) for layer in net.modules()) == (5 if name == "unet_32" else 8)
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ["unet_32", "res_unet_16"])
def test_two_steps_in_3d_move_every_weight(name: str) -> None:
    """The second step is another one than the first."""
    generator = {"name": name, "width": 2, "antialias": True}
    judge = {"name": "n_layers", "num_layers": 1, "width": 2}
    torch.manual_seed(0)
    settings = Pix2pixSettings.parse({"generator": generator, "discriminator": judge})
    game = settings.build(in_channels=1, out_channels=1, spatial_dims=3)
    before = [p.detach().clone() for p in game.generators.parameters()]
    batch, adams = small_batch(3, samples=1), new_adams(game)
    losses = [step(game, batch, adams)["G_L1"] for _ in range(2)]
    assert losses[0] != losses[1]
    assert all(bool((p != was).any()) for p, was in zip(game.generators.parameters(), before, strict=True))
