"""SwinUNETR: MONAI's net, our sizes, norms and ways of saving."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import SwinUNETR as Published
from safetensors.torch import load_file
from test_models import members, new_adams, small_batch, step
from torch import Tensor, nn

from medgan import nets, read, translate, write
from medgan.errors import ConfigError, InputError
from medgan.models import Batch, CUTSettings, Game, ModelSettings, Pix2pixSettings, SupervisedSettings, build
from medgan.train import train

SIZE = {2: (64, 32), 3: (64, 32, 32)}
EVERY_MODEL = [member for member in members(ModelSettings) if member is not CUTSettings]


def make(dims: int = 2, norm: str = "instance", *, channels: tuple[int, int] = (2, 1), seed: int = 0) -> nets.Net:
    torch.manual_seed(seed)
    return nets.build("swin_unetr", *channels, norm, spatial_dims=dims, width=12)


def image(dims: int, channels: int = 2) -> Tensor:
    return torch.randn(2, channels, *SIZE[dims], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("dims", "norm"), [(2, "batch"), (2, "instance"), (3, "instance")])
def test_it_is_the_published_net_with_the_published_initial_weights(dims: int, norm: str) -> None:
    """The same names, numbers and, from the same seed, outputs, as MONAI's own net and its own forward pass."""
    torch.manual_seed(0)
    own = Published(in_channels=2, out_channels=1, feature_size=12, norm_name=norm, spatial_dims=dims)
    net = make(dims, norm)
    state = net.state_dict()
    assert [name.removeprefix("body.") for name in state] == list(own.state_dict())
    own.load_state_dict({name.removeprefix("body."): value for name, value in state.items()})
    torch.testing.assert_close(net(image(dims)), own(image(dims)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [12, 24])
def test_its_weights_are_as_many_as_the_layers_say(width: int) -> None:
    """Counted by hand for 2-D, 1 → 1 channels: a transformer of four stages, nine residual blocks, five doublings."""
    torch.manual_seed(0)
    net = nets.build("swin_unetr", 1, 1, "instance", width=width)
    heads, window = (3, 6, 12, 24), 7
    count = 4 * width + width  # the embedding of 2×2 voxels
    for stage, number in enumerate(heads):
        c = width * 2**stage
        attention = 4 * c * c + 4 * c + number * (2 * window - 1) ** 2
        perceptron = 8 * c * c + 5 * c
        count += 2 * (attention + perceptron + 4 * c)  # two blocks with two layer norms each
        count += 4 * c * 2 * c + 2 * 4 * c  # four voxels become one of twice the channels

    def block(ins: int, outs: int) -> int:
        return 9 * ins * outs + 9 * outs * outs + (ins * outs if ins != outs else 0)

    count += block(1, width) + sum(block(c * width, c * width) for c in (1, 2, 4, 16))
    for ins, outs in ((16, 8), (8, 4), (4, 2), (2, 1), (1, 1)):
        count += 4 * ins * outs * width**2 + block(2 * outs * width, outs * width)
    count += width + 1  # the head
    assert sum(p.numel() for p in net.parameters()) == count


def test_weights_are_not_those_of_a_gan() -> None:
    """Linear layers and convs keep the uniform numbers of PyTorch, layer norms start at 1; the seed decides."""
    net = make()
    nets.init_weights(net)
    assert all(torch.equal(a, b) for a, b in zip(make().parameters(), net.parameters(), strict=True))
    assert not torch.equal(next(make(seed=1).parameters()), next(net.parameters()))
    for module in net.modules():
        if isinstance(module, nn.Linear):
            assert float(module.weight.detach().abs().max()) <= 1 / math.sqrt(module.in_features)
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_only_sound_layers_are_in_it(dims: int) -> None:
    """PyTorch's instance norm has wrong gradients in channels_last; its Conv3d is wrong on tiny maps in bfloat16."""
    kinds = [type(module) for module in make(dims).modules()]
    assert not {nn.InstanceNorm2d, nn.InstanceNorm3d} & set(kinds)
    assert kinds.count(nets.InstanceNorm) == 26
    plain = [m for m in make(dims).modules() if type(m) is nn.Conv3d]
    assert all(max(m.kernel_size) <= 2 for m in plain)


@pytest.mark.parametrize(
    ("dims", "norm", "dtype", "tolerance"),
    [
        (2, "batch", torch.float64, 1e-10),
        (2, "instance", torch.float64, 1e-10),
        (3, "instance", torch.float32, 1e-3),  # in float64 it takes a minute
    ],
)
def test_channels_last_gives_the_same_gradients(dims: int, norm: str, dtype: torch.dtype, tolerance: float) -> None:
    net, x, gradients = make(dims, norm).to(dtype), image(dims).to(dtype)[:1], []
    for memory_format in (torch.contiguous_format, torch.channels_last if dims == 2 else torch.channels_last_3d):
        net.to(memory_format=memory_format).zero_grad()  # type: ignore[call-overload]
        net(x.to(memory_format=memory_format)).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert len(gradients[0]) == sum(p.numel() for p in net.parameters())
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < tolerance


@pytest.mark.parametrize("dims", [2, 3])
def test_bf16_is_near_the_exact_result(dims: int) -> None:
    net, x = make(dims), image(dims)
    exact = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    assert float((y.float() - exact).detach().norm() / exact.detach().norm()) < 0.05
    y.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_in_evaluation_the_image_is_cut_to_its_range_and_in_training_not() -> None:
    net, x = make(), 100 * image(2)
    with torch.no_grad():
        net.body.out.conv.conv.bias.fill_(3)  # type: ignore[union-attr, operator]
        assert net(x).max() > 1
        assert net.eval()(x).abs().max() <= 1


@pytest.mark.parametrize("size", [(33, 64), (32, 32), (16, 64), (64,), (64, 64, 64)])
def test_sizes_that_do_not_fit_are_refused_in_training(size: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="does not fit the net SwinUNETR"):
        make()(torch.zeros(2, 2, *size))


@pytest.mark.parametrize(
    ("member", "dims"),
    [*((member, 2) for member in EVERY_MODEL), (SupervisedSettings, 3)],
    ids=lambda given: given if isinstance(given, int) else given().name,
)
def test_every_model_plays_with_it(member: type, dims: int) -> None:
    torch.manual_seed(0)
    values = {"generator": {"name": "swin_unetr", "width": 12}, "discriminator": {"width": 4}}
    settings = member.parse({key: value for key, value in values.items() if key in member.model_fields})
    game = build(settings, in_channels=1, out_channels=1, spatial_dims=dims)
    half = small_batch(dims, samples=1)
    batch = Batch(*(torch.cat([x, x.flip(2)], 2) for x in half.both()))
    seen = step(game, batch, new_adams(game))
    assert torch.tensor(list(seen.values())).isfinite().all()
    assert copied_alike(game, batch)


def copied_alike(game: Game, batch: Batch) -> bool:
    """Whether a deep copy, as the running average is, translates alike and shares nothing."""
    shadow = copy.deepcopy(game).eval()
    game.eval()
    assert batch.a is not None
    with torch.no_grad():
        alike = torch.equal(shadow.translate(batch.a), game.translate(batch.a))  # type: ignore[operator]
        next(shadow.parameters()).zero_()
    return alike and bool(next(game.parameters()).any())


def test_it_learns_one_batch_by_heart() -> None:
    torch.manual_seed(0)
    settings = SupervisedSettings.parse({"generator": {"name": "swin_unetr", "width": 12}})
    game = build(settings, in_channels=1, out_channels=1, spatial_dims=2)
    x = torch.linspace(-2, 2, 64)
    a = (x[:, None] + x[None, :32]).sin()[None, None]
    batch, adams = Batch(a, 1 - 2 * a.square()), new_adams(game, lr=2e-3)
    losses = [step(game, batch, adams)["G_L1"] for _ in range(25)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 64}, "width: that of swin_unetr is a multiple of 12; seen 64; set it to 24 or 48"),
        (
            {"width": 24, "antialias": True},
            "antialias belongs to .* not to swin_unetr, whose patches MONAI's transformer merges",
        ),
        ({"width": 24, "upsample": "resize"}, "upsample belongs to"),
    ],
)
def test_settings_that_do_not_fit_it_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"generator: {message}"):
        Pix2pixSettings.parse({"generator": {"name": "swin_unetr"} | values})


def test_cut_needs_the_inside_of_a_resnet() -> None:
    with pytest.raises(ConfigError, match=r"generator\.name"):
        CUTSettings.parse({"generator": {"name": "swin_unetr", "width": 24}})


def test_dropout_is_that_of_the_transformer() -> None:
    net = nets.build("swin_unetr", 1, dropout=True, width=12)
    shares = [module.p for module in net.modules() if isinstance(module, nn.Dropout)]
    assert sorted(set(shares)) == [0.0, 0.5]
    x = image(2, 1)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_the_nets_are_there_without_monai() -> None:
    code = "import sys, medgan.nets; assert not any(name.startswith('monai') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_training_stops_goes_on_saves_and_translates(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 2-D through the loop: exact resume, safe files, and a volume that is no multiple of anything."""
    overrides = ["model.generator={name: swin_unetr, width: 12, dropout: true, norm: batch, recompute: true}"]
    overrides += ["patch=[64, 32, 1]", "train.steps=3", "train.validate_every=3", "train.checkpoint_every=1"]
    whole = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "whole", device="cpu")
    loop = import_module("medgan.train")
    kept = loop._step
    monkeypatch.setattr(loop, "_step", lambda learner, *rest: kill() if learner.step == 2 else kept(learner, *rest))
    with pytest.raises(KeyboardInterrupt):
        train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "parts", device="cpu")
    monkeypatch.undo()
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 2
    parts = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "parts", device="cpu")
    assert parts.weights_sha256 == whole.weights_sha256
    weights = load_file(whole.weights_path)
    assert all(name.startswith("b.body.") for name in weights)
    (done,) = translate(whole, tiny_cohort / "p4_mr.nii.gz", tmp_path / "ct.nii.gz", device="cpu")
    made, source = read(done.path), read(tiny_cohort / "p4_mr.nii.gz")
    assert made.grid.same_as(source.grid)
    assert np.isfinite(made.array).all()
    write(made, tmp_path / "again.nii.gz")


def kill() -> None:
    raise KeyboardInterrupt
