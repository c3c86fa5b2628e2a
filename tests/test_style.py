"""StyleGAN2's nets against the formulas of the papers, written out sample by sample; and what samples hang on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medgan.augment.inversion import find_style
from medgan.errors import InputError
from medgan.nets.equalised import (
    GAIN,
    EqualConv,
    EqualLinear,
    ModulatedConv,
    blurred_down,
    doubled,
    leaky,
    shrinking,
)
from medgan.nets.style import StyleDiscriminator, StyleGenerator, mixed, spread

SIZES = [(16, 16), (20, 9), (1, 8), (12, 10, 5), (8, 8, 1)]
NAMES = ["x".join(map(str, size)) for size in SIZES]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generator(size: tuple[int, ...] = (16, 16), condition_size: int = 0, channels: int = 1) -> StyleGenerator:
    """Small, and as if it had learnt to use its noise."""
    torch.manual_seed(0)
    net = StyleGenerator(8, channels, size, condition_size=condition_size, width=4, max_width=12, style_size=6)
    for conv in net.convs:
        nn.init.constant_(conv.strength, 0.3)
    return net.eval()


def kernel_1331(axes: int) -> Tensor:
    kernel = torch.ones(())
    for _ in range(axes):
        kernel = kernel[..., None] * torch.tensor([1.0, 3, 3, 1]) / 8
    return kernel


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(("up", "demodulate"), [(False, False), (False, True), (True, True)])
def test_a_styled_conv_is_a_conv_with_weights_of_its_own_for_each_sample(axes: int, up: bool, demodulate: bool) -> None:
    """As published: eq. 1 and 3, one sample at a time; doubling by zeros between voxels, conv and blur 1 3 3 1."""
    torch.manual_seed(1)
    layer = ModulatedConv(3, 5, 3, 4, axes, up=up, demodulate=demodulate, gain=1.7)
    x, style = noise(2, 3, *range(4, 4 + axes)), noise(2, 4, seed=1)
    conv = F.conv2d if axes == 2 else F.conv3d
    for sample, own, seen in zip(x, style, layer(x, style), strict=True):
        scales = own @ layer.to_scales.weight.T / 2 + layer.to_scales.bias  # √4 entries
        weight = layer.weight / math.sqrt(3 * 3**axes) * scales.view(1, 3, *[1] * axes)
        if demodulate:
            weight = weight / (weight.square().flatten(1).sum(1) + 1e-8).sqrt().view(5, *[1] * (axes + 1))
        if up:
            between = torch.zeros(1, 3, *(2 * n - 1 for n in sample.shape[1:]))
            between[(0, slice(None), *[slice(None, None, 2)] * axes)] = sample
            flipped = weight.flip(list(range(2, 2 + axes)))  # a transposed convolution
            whole = conv(F.pad(between, [2] * 2 * axes), flipped)
            blur = kernel_1331(axes).expand(5, 1, *[4] * axes)
            expected = conv(F.pad(whole, [1] * 2 * axes), blur, groups=5) * 2**axes
        else:
            expected = conv(sample[None], weight, padding=1)
        torch.testing.assert_close(seen[None], expected * 1.7, rtol=1e-4, atol=1e-5)


def test_the_same_by_grouped_convolution() -> None:
    """The form of the reference implementation: the batch in the channels, a group for each sample."""
    torch.manual_seed(1)
    layer = ModulatedConv(6, 4, 3, 5, 2)
    x, style = noise(3, 6, 8, 7), noise(3, 5, seed=1)
    weight = (layer.weight * layer.scale)[None] * layer.to_scales(style)[:, None, :, None, None]
    weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    grouped = F.conv2d(x.reshape(1, 18, 8, 7), weight.reshape(12, 6, 3, 3), padding=1, groups=3).view(3, 4, 8, 7)
    torch.testing.assert_close(layer(x, style), grouped, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [2, 3])
def test_demodulated_output_has_variance_1_under_any_style(axes: int) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(16, 32, 3, 8, axes)
    nn.init.normal_(layer.to_scales.weight, std=5)  # scales of all sizes
    x = noise(8, 16, *[24 if axes == 2 else 10] * axes)
    inside = layer(x, noise(8, 8, seed=1))[(..., *[slice(1, -1)] * axes)]
    per_channel = inside.transpose(0, 1).flatten(1).var(1)
    assert per_channel.mean().item() == pytest.approx(1, abs=0.03)
    per_sample = inside.flatten(1).var(1)
    assert per_sample.min() > 0.8
    assert per_sample.max() < 1.2
    layer.demodulate = False
    free = layer(x, noise(8, 8, seed=1)).flatten(1).var(1)
    assert free.max() / free.min() > 2  # so there was something to be brought to 1


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_halving_conv_blurs_and_takes_every_second_voxel(axes: int, kernel: int) -> None:
    torch.manual_seed(0)
    layer = EqualConv(2, 3, kernel, axes, down=True, bias=False, gain=1.3)
    x = noise(2, 2, *[8, 6, 4][:axes])
    conv = F.conv2d if axes == 2 else F.conv3d
    margin = kernel // 2 + 1
    blurred = conv(F.pad(x, [margin] * 2 * axes), kernel_1331(axes).expand(2, 1, *[4] * axes), groups=2)
    expected = conv(blurred, layer.weight / math.sqrt(2 * kernel**axes) * 1.3, stride=2)
    assert layer(x).shape == (2, 3, *[4, 3, 2][:axes])
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_learning_rates_are_equal() -> None:
    """A step of Adam changes what a layer does by lr times the root of its inputs' sizes, whatever its fan-in."""
    for ins in (4, 64):
        torch.manual_seed(0)
        layer = EqualLinear(ins, 2000, lr_multiplier=0.01, bias_init=1.0)
        y = layer(noise(1, ins)).detach()
        size = float(noise(1, ins).square().mean())
        assert float(y.mean()) == pytest.approx(1, abs=4 * math.sqrt(size / 2000))
        assert float(y.var()) == pytest.approx(size, rel=0.15)
        assert float(layer.weight.detach().std()) == pytest.approx(
            100, rel=0.05
        )  # so 0.01 is a hundredth of the usual step


def test_gain_keeps_the_size_of_what_passes_a_rectifier() -> None:
    x = noise(4, 64, 32, 32)
    torch.manual_seed(0)
    y = leaky(EqualConv(64, 64, 3, 2, gain=GAIN)(x)).detach()[..., 1:-1, 1:-1]
    assert float(y.square().mean()) == pytest.approx((1 + 0.2**2) / 2 * 2, rel=0.05)


@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
@settings(max_examples=20, deadline=None)
def test_doubling_is_linear_interpolation(length: int, width: int, odd: bool) -> None:
    x = noise(2, 3, length, width)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    size = (2 * length - odd, 2 * width)
    torch.testing.assert_close(doubled(x, size), expected[:, :, : size[0]])


@given(st.lists(st.integers(1, 300), min_size=2, max_size=3))
def test_sizes_halve_rounded_up_to_4_to_7_voxels(size: list[int]) -> None:
    sizes = shrinking(size)
    assert sizes[0] == tuple(size)
    assert max(sizes[-1]) <= 7
    assert max(sizes[-1]) >= 4 or len(sizes) == 1
    for halvings, seen in enumerate(sizes):
        assert seen == tuple(math.ceil(n / 2**halvings) for n in size)


@pytest.mark.parametrize("size", SIZES, ids=NAMES)
def test_every_size_is_drawn_and_judged_and_all_weights_learn(size: tuple[int, ...]) -> None:
    drawer = generator(size, condition_size=3, channels=2).train()
    judge = StyleDiscriminator(2, size, condition_size=3, width=4, max_width=12)
    condition = torch.softmax(noise(4, 3), 1)
    images, styles = drawer(noise(4, 8), condition, mixing=0.5, with_styles=True)
    assert images.shape == (4, 2, *size)
    assert styles.shape == (4, drawer.num_styles, 6)
    logits = judge(images, condition)
    assert logits.shape == (4, 1)
    logits.square().sum().backward()
    without = [name for net in (drawer, judge) for name, p in net.named_parameters() if p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for net in (drawer, judge) for p in net.parameters())


@pytest.mark.parametrize("size", [(16, 16), (9, 6, 5)], ids=["2d", "3d"])
def test_slopes_of_the_nets_have_slopes(size: tuple[int, ...]) -> None:
    drawer, judge = generator(size), StyleDiscriminator(1, size, width=4, max_width=8).double()
    x = noise(2, 1, *size).double().requires_grad_()
    [slope] = torch.autograd.grad(judge(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    weight = judge.blocks[0].first.weight
    place, step = (0, 0, *[1] * len(size)), 1e-6
    squares = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[place] += sign * step
        [slope] = torch.autograd.grad(judge(x).sum(), x)
        squares.append(float(slope.square().sum()))
        with torch.no_grad():
            weight[place] -= sign * step
    assert float(weight.grad[place]) == pytest.approx((squares[0] - squares[1]) / (2 * step), rel=1e-4, abs=1e-7)
    images, styles = drawer(noise(2, 8), with_styles=True)
    [slope] = torch.autograd.grad(images.square().sum(), styles, create_graph=True)
    slope.square().sum().backward()
    assert all(p.grad is not None for p in drawer.convs.parameters() if p.ndim)


def test_an_image_hangs_on_its_own_z_and_on_nothing_beside_it() -> None:
    net, z, condition = generator(condition_size=2), noise(5, 8), torch.softmax(noise(5, 2, seed=1), 1)
    with torch.no_grad():
        together = net(z, condition, truncation=0.7)
        torch.manual_seed(123)
        again = net(z, condition, truncation=0.7)
        alone = torch.cat([net(z[n : n + 1], condition[n : n + 1], truncation=0.7) for n in range(5)])
        backwards = net(z.flip(0), condition.flip(0), truncation=0.7).flip(0)
    assert torch.equal(together, again)  # torch's global random numbers have no part in it
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)  # sums of other batches round otherwise
    torch.testing.assert_close(backwards, together, rtol=1e-5, atol=1e-5)
    assert torch.equal(net.noise_of(z)[3], net.noise_of(z[3:4])[0])
    assert float(net.noise_of(z).std()) == pytest.approx(1, abs=0.1)
    assert not torch.equal(net.noise_of(z)[0], net.noise_of(z)[1])


def test_in_training_noise_comes_from_the_global_random_numbers() -> None:
    net, z = generator().train(), noise(2, 8)
    torch.manual_seed(1)
    first = net(z)
    second = net(z)
    torch.manual_seed(1)
    assert torch.equal(net(z), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("conditions", [0, 3])
def test_truncation_0_draws_one_image_and_less_truncation_more_different_ones(conditions: int) -> None:
    net, z = generator(condition_size=conditions), noise(12, 8)
    condition = torch.eye(3)[torch.zeros(12, dtype=torch.long)] if conditions else None
    still = torch.zeros(1, net.num_noise)
    distances = []
    with torch.no_grad():
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            images = net.synthesis(net.styles(z, condition, truncation=share), still).flatten(1)
            distances.append(float(torch.pdist(images).mean()))
        assert torch.equal(net.styles(z, condition, truncation=1.0), net.styles(z, condition))
        none = net.styles(z, condition, truncation=0.0)
        assert torch.equal(none, none[:1].expand_as(none))
    assert distances[0] < 1e-5  # rounding differs from place to place in a batch
    assert distances == sorted(distances)
    assert min(np.diff(distances)) > 0


def test_the_mean_style_is_that_of_the_weights_and_of_each_condition() -> None:
    net = generator(condition_size=2).mapping
    condition = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    with torch.no_grad():
        means = net.mean(condition)
        many = net(noise(40000, 8, seed=5), condition[:1].expand(40000, -1))
        error = many.std(0) * (1 / math.sqrt(1024) + 1 / math.sqrt(40000))
        assert ((means[0] - many.mean(0)).abs() < 4 * error).all()
        assert torch.equal(means[0], means[2])
        assert not torch.allclose(means[0], means[1], atol=1e-3)
        assert torch.equal(net.mean(condition[1:2])[0], means[1])
        for layer in net.layers:
            layer.weight.mul_(1.1)
        assert not torch.equal(net.mean(condition), means)


def test_mixing_changes_a_sample_from_one_layer_on_and_only_some_samples() -> None:
    torch.manual_seed(0)
    styles, others = torch.zeros(4000, 6, 2), torch.ones(4000, 6, 2)
    taken = mixed(styles, others, 0.4)
    layers = taken[..., 0]
    assert torch.equal(taken[..., 0], taken[..., 1])
    assert (layers.diff(dim=1) >= 0).all()  # once the other style, always the other style
    assert (layers[:, 0] == 0).all()  # the coarsest is one's own
    is_mixed = layers.sum(1) > 0
    assert float(is_mixed.float().mean()) == pytest.approx(0.4, abs=4 * math.sqrt(0.24 / 4000))
    counts = torch.bincount(layers[is_mixed].sum(1).long(), minlength=6)[1:]
    assert counts.min() > 0.8 * is_mixed.sum() / 5  # every layer is drawn


def test_a_late_style_leaves_what_was_drawn_before_it() -> None:
    """All maps up to the changed layer are the same to the bit, the maps behind it are not."""
    net = generator((32, 32))
    seen: list[list[Tensor]] = []
    for conv in net.convs:
        conv.register_forward_hook(lambda module, inputs, output: seen[-1].append(output))
    styles, still = net.styles(noise(2, 8)).clone(), torch.zeros(1, net.num_noise)
    changed = styles.clone()
    changed[:, 3:] = net.styles(noise(2, 8, seed=9))[:, 3:]
    with torch.no_grad():
        for given_styles in (styles, changed):
            seen.append([])
            net.synthesis(given_styles, still)
    same = [torch.equal(one, other) for one, other in zip(*seen, strict=True)]
    assert same == [True, True, True, False, False, False, False]


def test_a_generator_for_conditions_asks_for_one() -> None:
    with pytest.raises(InputError, match="conditions of 2 entries; seen none"):
        generator(condition_size=2)(noise(1, 8))


def test_a_mix_of_two_classes_is_drawn_between_them() -> None:
    """The embedding is linear: half of two classes is not the same as a third thing far away."""
    net = generator(condition_size=2).mapping
    z = noise(64, 8)
    with torch.no_grad():
        a, b, both = (net(z, torch.tensor([kind]).expand(64, -1)) for kind in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]))
    assert float((a - both).norm()) < float((a - b).norm())
    assert float((b - both).norm()) < float((a - b).norm())


def test_a_discriminator_asks_whether_image_and_condition_go_together() -> None:
    """Its logit is affine in the condition: that is what a projection means."""
    torch.manual_seed(0)
    judge = StyleDiscriminator(1, (8, 8), condition_size=3, width=4).eval()
    x = noise(4, 1, 8, 8)
    with torch.no_grad():
        rows = [judge(x, torch.eye(3)[kind].expand(4, -1)) for kind in range(3)]
        weights = torch.tensor([0.2, 0.5, 0.3])
        soft = judge(x, weights.expand(4, -1))
        expected = sum(w * row for w, row in zip(weights, rows, strict=True))
        torch.testing.assert_close(soft, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(rows[0], rows[1], atol=1e-3)


@pytest.mark.parametrize(("number", "group"), [(8, 4), (6, 3), (4, 4), (7, 1), (2, 2), (1, 1), (10, 2)])
def test_spread_is_the_standard_deviation_within_groups(number: int, group: int) -> None:
    x = noise(number, 3, 2, 5)
    seen = spread(x)
    assert seen.shape == (number, 1, 2, 5)
    groups = number // group
    for sample in range(number):
        members = x[sample % groups :: groups].numpy()
        expected = np.sqrt(members.var(0) + 1e-8).mean()
        np.testing.assert_allclose(seen[sample].numpy(), expected, rtol=1e-4)


def test_a_discriminator_sees_that_all_samples_are_the_same() -> None:
    torch.manual_seed(0)
    judge = StyleDiscriminator(1, (8, 8), width=4)
    x = noise(4, 1, 8, 8)
    with torch.no_grad():
        among_others, among_copies = judge(x)[:1], judge(x[:1].repeat(4, 1, 1, 1))
    assert not torch.allclose(among_others, among_copies[:1], atol=1e-4)
    assert torch.equal(among_copies, among_copies[:1].expand(4, 1))


def test_a_style_is_found_again() -> None:
    """An image of the generator's own, without noise: the error falls to a small part of that of the mean image."""
    net = generator((16, 16))
    with torch.no_grad():
        for to_image in net.to_images:
            to_image.conv.weight.mul_(0.3)  # into [-1, 1], as learnt images are
        hidden = net.mapping(noise(2, 8, seed=3))
        x = net.synthesis(net.for_all_sizes(hidden), torch.zeros(1, net.num_noise))
        assert x.abs().max() < 1
    before = {name: p.clone() for name, p in net.named_parameters()}
    start, found = find_style(net, x, steps=0), find_style(net, x, steps=200)
    assert found.style.shape == (2, 6)
    assert found.image.shape == x.shape
    assert (found.error < 0.1 * start.error).all()
    torch.testing.assert_close(found.error, (found.image - x).abs().mean((1, 2, 3)))
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert all(p.grad is None for p in net.parameters())


def test_what_was_never_drawn_is_not_found() -> None:
    net = generator((16, 16))
    foreign = torch.where(torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5, -1.0, 1.0)
    assert float(find_style(net, foreign, steps=100).error) > 0.5


@pytest.mark.parametrize("axes", [2, 3])
def test_halving_an_even_map_keeps_its_mean_inside(axes: int) -> None:
    x = torch.ones(1, 1, *[12] * axes)
    assert torch.equal(blurred_down(x)[(..., *[slice(1, -1)] * axes)], torch.ones(1, 1, *[4] * axes))


def test_bfloat16_draws_about_the_same() -> None:
    net, z = generator(), noise(4, 8)
    judge = StyleDiscriminator(1, (16, 16), width=4)
    with torch.no_grad():
        exact = net(z)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = net(z)
            logits = judge(rounded)
    assert float((rounded.float() - exact).abs().mean()) < 0.03 * float(exact.std())
    assert torch.isfinite(logits).all()
