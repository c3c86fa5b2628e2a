"""CUT against a derivation of its own in plain torch, antialiased nets, and the contrast of patches."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy import ndimage
from test_golden import play, waves
from torch import Tensor, nn

from medgan import nets
from medgan.errors import ConfigError, InputError
from medgan.models import CUT, Batch, CUTSettings, Pix2pixSettings
from medgan.models.cut import PatchHeads
from medgan.nets.layers import BlurDown, Layers
from medgan.train import train

SMALL = {"generator": {"name": "resnet_6blocks", "width": 4}, "discriminator": {"width": 4}}
FAST = {"lambda_nce": 10, "identity": False, "flip": True}
TAPS = (0, 4, 8, 12, 16)
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def small(spatial_dims: int = 2, channels: int = 1, **values: Any) -> CUT:
    torch.manual_seed(0)
    built = CUTSettings.parse(SMALL | values)
    return built.build(in_channels=channels, out_channels=channels, spatial_dims=spatial_dims)


# --- the published step, written down a second time -------------------------------------------------------------------


class Norm(nn.Module):
    """Each channel of each sample to mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect") for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + Norm()(self.two(Norm()(self.one(x)).relu()))


class Down(nn.Module):
    """Weights 1, 2, 1 along both axes, stride 2, edges reflected."""

    def forward(self, x: Tensor) -> Tensor:
        row = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype)
        weights = (row[:, None] * row / 16).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weights, stride=2, groups=x.shape[1])


class Up(nn.Module):
    """Every second voxel empty, then weights 1, 3, 3, 1 along both axes, edges repeated."""

    def forward(self, x: Tensor) -> Tensor:
        row = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
        weights = (row[:, None] * row / 16).expand(x.shape[1], 1, 4, 4)
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, weights, stride=2, padding=3, groups=x.shape[1])


def generator(width: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.ReflectionPad2d(3), nn.Conv2d(1, width, 7), Norm(), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), Norm(), nn.ReLU(), Down()),
        *(nn.Conv2d(2 * width, 4 * width, 3, padding=1), Norm(), nn.ReLU(), Down()),
        *(Residual(4 * width) for _ in range(6)),
        *(Up(), nn.Conv2d(4 * width, 2 * width, 3, padding=1), Norm(), nn.ReLU()),
        *(Up(), nn.Conv2d(2 * width, width, 3, padding=1), Norm(), nn.ReLU()),
        *(nn.Conv2d(width, 1, 7, padding=3, padding_mode="reflect"), nn.Tanh()),
    )


def discriminator(width: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, width, 4, padding=1), nn.LeakyReLU(0.2), Down()),
        *(nn.Conv2d(width, 2 * width, 4, padding=1), Norm(), nn.LeakyReLU(0.2), Down()),
        *(nn.Conv2d(2 * width, 4 * width, 4, padding=1), Norm(), nn.LeakyReLU(0.2), Down()),
        *(nn.Conv2d(4 * width, 8 * width, 4, padding=1), Norm(), nn.LeakyReLU(0.2)),
        nn.Conv2d(8 * width, 1, 4, padding=1),
    )


def heads(width: int) -> nn.ModuleList:
    channels = (1, 2 * width, 4 * width, 4 * width, 4 * width)
    return nn.ModuleList(nn.Sequential(nn.Linear(c, 256), nn.ReLU(), nn.Linear(256, 256)) for c in channels)


@torch.no_grad()
def draw(net: nn.Module) -> None:
    """The same weights for nets of the same shapes; drawn, as those of a wave are so alike that rounding shows."""
    rng = torch.Generator().manual_seed(9)
    for parameter in net.parameters():
        parameter.copy_(0.05 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64))


def encode(net: nn.Sequential, x: Tensor) -> list[Tensor]:
    seen = []
    for number, layer in enumerate(net[:17]):
        x = layer(x)
        if number in TAPS:
            seen.append(x)
    return seen


def published_nce(g: nn.Sequential, f: nn.ModuleList, source: Tensor, fake: Tensor, *, mirrored: bool) -> Tensor:
    """One image, one place and one sum of exponentials at a time."""
    losses = []
    seen = [x.flip(2) if mirrored else x for x in encode(g, fake)]
    for head, key, query in zip(f, encode(g, source), seen, strict=True):
        rows, columns = key.shape[2:]
        places = torch.randperm(rows * columns)[:256]
        if mirrored:  # medgan draws places of the mirrored image: the same ones, counted from the other side
            places = (rows - 1 - places // columns) * columns + places % columns
        both = []
        for x in (query, key):
            y = head(x.permute(0, 2, 3, 1).reshape(len(x), rows * columns, -1)[:, places])
            both.append(y / (y.square().sum(-1, keepdim=True).sqrt() + 1e-7))
        for image in range(len(source)):
            alike = (both[0][image] @ both[1][image].detach().T / 0.07).exp()
            losses.append(-(alike.diagonal() / alike.sum(1)).log().mean() / len(source))
    return torch.stack(losses).sum() / 5


def published(a: Tensor, b: Tensor, width: int, *, num_steps: int, fast: bool) -> list[dict[str, float]]:
    """D first, then G and F; one Adam each."""
    g, d, f = generator(width).double(), discriminator(width).double(), heads(width).double()
    for net in (g, d, f):
        draw(net)
    adams = [torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (g, d, f)]
    torch.manual_seed(3)
    return [published_step((g, d, f), adams, a, b, fast=fast) for _ in range(num_steps)]


def published_step(
    players: tuple[nn.Sequential, nn.Sequential, nn.ModuleList], adams: list[Any], a: Tensor, b: Tensor, *, fast: bool
) -> dict[str, float]:
    (g, d, f), mirrored = players, fast and bool(torch.rand(()) < 0.5)
    fake = g(a.flip(2) if mirrored else a)
    judged = {"D_real": (d(b) - 1).square().mean() / 2, "D_fake": d(fake.detach()).square().mean() / 2}
    adams[1].zero_grad()
    sum(judged.values(), torch.zeros(())).backward()
    adams[1].step()
    losses = {"G_GAN": (d(fake) - 1).square().mean()}
    share = 10 if fast else 0.5
    losses["G_NCE"] = share * published_nce(g, f, a, fake, mirrored=mirrored)
    if not fast:
        losses["G_NCE_identity"] = share * published_nce(g, f, b, g(b), mirrored=False)
    for adam in (adams[0], adams[2]):
        adam.zero_grad()
    sum(losses.values(), torch.zeros(())).backward()
    for adam in (adams[0], adams[2]):
        adam.step()
    return {name: float(loss.detach()) for name, loss in (losses | judged).items()}


@pytest.mark.parametrize("fast", [False, True], ids=["cut", "fastcut"])
def test_training_steps_are_the_published_ones(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    nets_8 = {"generator": {"name": "resnet_6blocks", "width": 8}, "discriminator": {"width": 8}}
    game = small(**nets_8, **(FAST if fast else {})).double()
    for home in (game.generators, game.discriminators, game.helpers):
        draw(home)
    a, b = waves(1, 32, 0, 1), waves(1, 32, 0.5, 1.5) ** 3
    torch.manual_seed(3)
    ours = list(play(game, Batch(a, b), num_steps=4))
    coins, toss = [], torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size: coins.append(toss(*size)) or coins[-1])
    theirs = published(a, b, 8, num_steps=4, fast=fast)
    assert {bool(coin < 0.5) for coin in coins} == ({True, False} if fast else set())
    for seen, expected in zip(ours, theirs, strict=True):
        assert seen == pytest.approx(expected, rel=1e-10)


def test_it_is_the_published_one_by_default() -> None:
    assert CUTSettings().model_dump() == {
        "name": "cut",
        "generator": {"name": "resnet_9blocks", "width": 64, "norm": "instance", "dropout": False, "antialias": True}
        | {"upsample": "transposed", "padding": "zeros", "recompute": False},
        "discriminator": {"name": "basic", "num_layers": None, "width": 64, "norm": "instance", "antialias": True},
        "gan": "lsgan",
        "lambda_nce": 1.0,
        "identity": True,
        "flip": False,
        "num_patches": 256,
        "temperature": 0.07,
    }
    assert CUT.order == ("discriminator", "generator")
    with torch.device("meta"):
        game = CUTSettings().build(in_channels=3, out_channels=3, spatial_dims=2)
    # Counted by hand: 3 x 3 convs cost the same with a stride or a blur; F is five times (c + 1)·256 + 257·256.
    assert sum(p.numel() for p in game.generators.parameters()) == 11_378_179
    assert sum(p.numel() for p in game.discriminators.parameters()) == 2_764_737
    assert sum(p.numel() for p in game.helpers.parameters()) == sum(
        (c + 1) * 256 + 257 * 256 for c in (3, 128, 256, 256, 256)
    )


# --- the game ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("flip", [False, True])
def test_keys_are_what_a_pass_of_the_encoder_alone_would_see(norm: str, flip: bool) -> None:
    """Also where the fake was made of a mirrored image, and where passes are merged."""
    players = {player: values | {"norm": norm} for player, values in SMALL.items()}
    game, (a, b) = small(**players, flip=flip).double(), waves(1, 32, 0, 1)[:, None]
    torch.manual_seed(0)
    assert torch.rand(()) < 0.5
    torch.manual_seed(0)
    fakes, net = game.generate(Batch(a, b)), game.generators["b"]
    for name, image in {"b": a, "same_b": b}.items():
        shown = image.flip(2) if flip else image
        torch.testing.assert_close(fakes[name], net(shown), rtol=0, atol=1e-12)
        for tap, seen in zip(TAPS, encode(net.body, image), strict=True):
            assert not fakes[f"{name}_key_{tap}"].requires_grad
            expected = seen.flip(2) if flip else seen
            torch.testing.assert_close(fakes[f"{name}_key_{tap}"], expected, rtol=0, atol=1e-12)


def test_the_decoder_runs_once_a_step() -> None:
    game, runs = small(), {"encoder": 0, "decoder": 0}
    body = game.generators["b"].body
    for name, layer in {"encoder": body[16], "decoder": body[18]}.items():
        layer.register_forward_hook(lambda *_, name=name: runs.update({name: runs[name] + 1}))
    list(play(game, Batch(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)), num_steps=1))
    assert runs == {"encoder": 2, "decoder": 1}


def test_taps_are_the_same_activations_without_antialiasing() -> None:
    plain = nets.build("resnet_9blocks", 2, 1, "instance", width=2)
    blurred = nets.build("resnet_9blocks", 2, 1, "instance", width=2, antialias=True)
    assert tuple(blurred.taps) == TAPS
    assert list(plain.taps.values()) == list(blurred.taps.values()) == [2, 4, 8, 8, 8]
    for net in (plain, blurred):
        *seen, image = net(torch.rand(1, 2, 32, 32), (*net.taps, -1))
        assert [x.shape[1] for x in seen] == list(net.taps.values())
        kinds = [type(net.body[tap]).__name__ for tap in net.taps]
        assert [kind.lstrip("_") for kind in kinds] == ["ReflectionPad2d", "Conv2d", "Conv2d", "Block", "Block"]
        blocks = [place for place, layer in enumerate(net.body) if type(layer).__name__ == "_Block"]
        assert list(net.taps)[3:] == [blocks[0], blocks[4]]
        assert image.shape == (1, 1, 32, 32)


def test_no_layer_writes_over_what_was_tapped() -> None:
    net = small().generators["b"].double()
    x = waves(1, 32, 0)
    for seen, alone in zip(net(x, (*TAPS, -1)), encode(net.body, x), strict=False):
        assert torch.equal(seen, alone)


def test_one_encoder_needs_one_number_of_channels() -> None:
    with pytest.raises(ConfigError, match=r"a has 2 channels and b 1; .*cyclegan with model.lambda_identity=0"):
        CUTSettings().build(in_channels=2, out_channels=1, spatial_dims=2)
    (seen,) = play(small(channels=3), Batch(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)), num_steps=1)
    assert torch.tensor(list(seen.values())).isfinite().all()


def test_a_unet_has_no_taps_and_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"generator\.name: .*'resnet_9blocks' or 'resnet_6blocks'"):
        CUTSettings.parse({"generator": {"name": "unet_256"}})


def test_the_identity_can_be_left_out() -> None:
    game, batch = small(identity=False), Batch(torch.rand(2, 1, 32, 32), torch.rand(1, 1, 48, 40))
    (seen,) = play(game, batch, num_steps=1)
    assert seen.keys() == {"D_real", "D_fake", "G_GAN", "G_NCE"}


def test_a_and_b_may_differ_in_size() -> None:
    (seen,) = play(small(), Batch(torch.rand(2, 1, 32, 32), torch.rand(1, 1, 48, 40)), num_steps=1)
    assert torch.tensor(list(seen.values())).isfinite().all()


def test_it_translates_one_way_and_judges_both() -> None:
    game, batch = small(), Batch(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32))
    with pytest.raises(InputError, match="from a to b only; seen to='a'"):
        game.translate(torch.rand(1, 1, 32, 32), to="a")
    assert batch.b is not None
    fakes = game.generate(batch)
    real, fake = game.judge(batch, fakes)["b"]
    torch.testing.assert_close(real, game.discriminators["b"](batch.b) - 0.5)
    torch.testing.assert_close(fake, game.discriminators["b"](fakes["b"]) - 0.5)


def test_weights_start_small_as_published() -> None:
    """Xavier with gain 0.02, F included."""
    game = small(generator={"name": "resnet_6blocks", "width": 32}, discriminator={"width": 32})
    big = [p for p in game.parameters() if p.numel() > 20_000]
    assert len(big) > 10
    for p in big:
        fans = (p.shape[0] + p.shape[1]) * p[0, 0].numel()
        assert float(p.detach().std()) == pytest.approx(0.02 * (2 / fans) ** 0.5, rel=0.05)


MODEL = "{name: cut, generator: {name: resnet_6blocks, width: 2}, discriminator: {name: n_layers, num_layers: 1}}"
TINY = [f"model={MODEL}", "model.discriminator.width=2", "augment.gamma=0", "augment.noise=0", "train.steps=4"]


@pytest.mark.parametrize("flip", ["false", "true"])
def test_a_stopped_training_goes_on_to_the_bit(
    flip: str, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places, coins and F included."""
    overrides = [*TINY, f"model.flip={flip}", "train.checkpoint_every=1", "train.validate_every=4"]
    straight = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "straight", device="cpu")
    module = import_module("medgan.train")
    real = module._step

    def step(learner: Any, *rest: Any) -> Any:
        if learner.step == 2:
            raise KeyboardInterrupt
        return real(learner, *rest)

    monkeypatch.setattr(module, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "stopped", device="cpu")
    monkeypatch.undo()
    assert torch.load(tmp_path / "stopped/state.pt", weights_only=True)["step"] == 2
    resumed = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "stopped", device="cpu")
    assert resumed.weights_sha256 == straight.weights_sha256
    one, other = (torch.load(run.state_path, weights_only=True)["game"] for run in (straight, resumed))
    assert any(name.startswith("helpers.") for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert set(load_file(straight.weights_path)) == set(straight.translator().generators.state_dict())


def test_it_trains_on_volumes_in_bf16_and_channels_last(tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = [*TINY, "patch=[8, 8, 8]", "train.precision=bf16", "train.channels_last=true", "train.steps=2"]
    run = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    assert run.config.spatial_dims == 3
    assert np.isfinite(run.best["mae"])


# --- the contrast -----------------------------------------------------------------------------------------------------


def test_a_constant_image_gives_chance_and_finite_gradients() -> None:
    """All places look alike: nothing tells them apart, and a feature of length 0 divides by no 0."""
    game = small(num_patches=50)
    batch = Batch(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))
    losses = game.losses("generator", batch, game.generate(batch))
    assert float(losses["G_NCE"].detach()) == pytest.approx(0.5 * np.log(50), rel=1e-3)
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in game.nets("generator").parameters() if p.grad is not None)


def test_heads_read_the_places_that_they_are_told() -> None:
    f = PatchHeads([3], width=8).double()
    x = waves(3, 6, 0, 1)
    (seen,) = f([x], [torch.tensor([0, 35, 8])])
    assert seen.shape == (2, 3, 8)
    torch.testing.assert_close(seen.norm(dim=-1), torch.ones(2, 3, dtype=torch.float64), rtol=1e-5, atol=0)
    for number, (row, column) in enumerate(((0, 0), (5, 5), (1, 2))):
        alone = f.heads[0](x[:, :, row, column])
        torch.testing.assert_close(seen[:, number], alone / (alone.norm(dim=-1, keepdim=True) + 1e-7))


def test_places_are_fresh_and_hang_on_the_seed_alone() -> None:
    game, batch = small(num_patches=20), Batch(*waves(1, 32, 0, 1)[:, None].float())
    fakes = game.generate(batch)

    def nce(seed: int) -> float:
        torch.manual_seed(seed)
        return float(game.generator_losses(batch, fakes)["G_NCE"].detach())

    assert nce(1) == nce(1)
    assert nce(1) != nce(2)


# --- antialiasing -----------------------------------------------------------------------------------------------------


@given(size=st.lists(st.integers(2, 9), min_size=2, max_size=3))
@settings(max_examples=20, deadline=None)
def test_blur_down_is_a_filter_and_every_second_voxel(size: list[int]) -> None:
    x = np.random.default_rng(0).normal(size=size)
    expected = x
    for axis in range(len(size)):
        expected = ndimage.convolve1d(expected, [0.25, 0.5, 0.25], axis=axis, mode="mirror")
    seen = BlurDown(len(size)).double()(torch.tensor(x)[None, None])[0, 0]
    np.testing.assert_allclose(seen, expected[(slice(None, None, 2),) * len(size)], rtol=1e-12, atol=1e-14)


@given(size=st.lists(st.integers(1, 6), min_size=2, max_size=3))
@settings(max_examples=20, deadline=None)
def test_blur_up_is_a_filter_between_empty_voxels(size: list[int]) -> None:
    x = np.random.default_rng(0).normal(size=size)
    padded = np.pad(x, 1, mode="edge")
    sparse = np.zeros([2 * n for n in padded.shape])
    sparse[(slice(None, None, 2),) * len(size)] = padded
    for axis in range(len(size)):
        sparse = ndimage.convolve1d(sparse, [0.25, 0.75, 0.75, 0.25], axis=axis, mode="constant", origin=-1)
    seen = Layers(len(size), "instance", antialias=True).blur_up()(torch.tensor(x)[None, None])[0, 0]
    np.testing.assert_allclose(seen, sparse[tuple(slice(2, 2 + 2 * n) for n in size)], rtol=1e-12, atol=1e-14)


def moved_by_one(net: nn.Module, size: int) -> float:
    """How much a net's output changes as its input moves by one voxel, as a share of how much it varies."""
    noise = torch.randn(1, 1, size + 1, size + 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = net(noise[..., 1:, 1:]), net(noise[..., :-1, :-1])
    return float((one - other).square().mean().sqrt() / one.std())


def test_nets_are_steadier_under_a_shift_with_blurs_than_with_strides() -> None:
    steadiness = {}
    for antialias in (False, True):
        torch.manual_seed(0)
        net = nets.build("n_layers", 1, norm="instance", width=8, num_layers=3, antialias=antialias)
        steadiness[antialias] = moved_by_one(net, 96)
    assert steadiness[True] < 0.6 * steadiness[False]


@pytest.mark.parametrize(("num_layers", "field"), [(1, 18), (2, 40), (3, 84), (4, 172), (5, 348)])
def test_the_antialiased_patchgan_sees_the_patch_that_its_docstring_says(num_layers: int, field: int) -> None:
    net = nets.build("n_layers", 1, width=1, num_layers=num_layers, antialias=True).double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.abs_().add_(1)  # nothing cancels
    x = torch.ones(1, 1, 480, 480, dtype=torch.float64, requires_grad=True)
    logits = net(x)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    assert x.grad is not None
    rows = x.grad[0, 0].abs().sum(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == field
    assert net(torch.zeros(1, 1, 256, 256, dtype=torch.float64)).shape[-1] == 256 // 2**num_layers - 2


@given(size=st.lists(st.integers(1, 60), min_size=2, max_size=2), num_layers=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_an_antialiased_discriminator_takes_every_size_that_leaves_a_logit(size: list[int], num_layers: int) -> None:
    net = nets.build("n_layers", 1, norm="instance", width=1, num_layers=num_layers, antialias=True)
    if min(size) >= net.smallest:
        assert net(torch.rand(1, 1, *size)).isfinite().all()
    else:
        with pytest.raises((RuntimeError, ValueError)):  # nothing that would have worked is refused
            net.body(torch.rand(1, 1, *size))


@pytest.mark.parametrize("name", ["resnet_6blocks", "basic"])
def test_blurs_add_no_weights(name: str) -> None:
    plain, blurred = (nets.build(name, 1, 1, "batch", width=2, antialias=antialias) for antialias in (False, True))
    assert len(plain.state_dict()) == len(blurred.state_dict())
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in blurred.parameters())


@pytest.mark.parametrize("name", ["resnet_6blocks", "basic"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_antialiased_nets_are_the_same_in_channels_last(name: str, spatial_dims: int) -> None:
    torch.manual_seed(0)  # some draws stand where a ReLU turns, which multiplies what rounding does
    net = nets.build(name, 1, 1, "instance", spatial_dims=spatial_dims, width=2, antialias=True)
    x, gradients = torch.randn(1, 1, *(24,) * spatial_dims), []
    for memory_format in (torch.contiguous_format, CHANNELS_LAST[spatial_dims]):
        net.to(memory_format=memory_format).zero_grad()
        net(x.to(memory_format=memory_format)).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-3


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_blurs_have_the_right_gradient_in_bf16(spatial_dims: int) -> None:
    """Down to the smallest sizes, where convs of torch 2.13 go wrong on a CPU."""
    layers = Layers(spatial_dims, "instance", antialias=True)
    for layer, size in ((layers.blur_down(), 2), (layers.blur_down(), 5), (layers.blur_up(), 1), (layers.blur_up(), 3)):
        exact = torch.randn(2, 16, *(size,) * spatial_dims, dtype=torch.float64, requires_grad=True)
        y = layer.double()(exact)
        y.square().sum().backward()
        x = exact.detach().bfloat16().requires_grad_()
        layer.bfloat16()(x).float().square().sum().backward()
        assert x.grad is not None
        assert exact.grad is not None
        assert float((x.grad.double() - exact.grad).norm() / exact.grad.norm()) < 0.02


@pytest.mark.parametrize("name", ["swin_unetr", "pixel"])
def test_antialiasing_without_effect_is_refused(name: str) -> None:
    told = f"antialias belongs to U-Nets, resnets and PatchGANs, not to {name}"
    with pytest.raises(ConfigError, match=told):
        nets.build(name, 1, width=24, antialias=True)
    player = "generator" if name == "swin_unetr" else "discriminator"
    with pytest.raises(ConfigError, match=f"{player}: {told}"):
        Pix2pixSettings.parse({player: {"name": name, "width": 24, "antialias": True}})
