"""What pix2pixHD adds: discriminators at several sizes, distances of their features, and of those of VGG-19."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import assert_translates, killed_and_whole, state
from safetensors.torch import load_file, save_file
from test_models import (
    assert_bfloat16_stays_finite,
    assert_channels_last_trains_alike,
    assert_gradients_stay,
    exact,
    new_adams,
    small_batch,
    step,
)
from torch import Tensor, nn

from medgan.config import load
from medgan.errors import ConfigError, InputError
from medgan.losses import feature_distance
from medgan.models import CUTSettings, CycleGANSettings, Pix2pix, Pix2pixSettings, SupervisedSettings
from medgan.models.conditional import PairedDiscriminatorSettings
from medgan.models.players import DiscriminatorSettings
from medgan.nets.patchgan import MultiScale, PatchGAN
from medgan.nets.vgg import vgg19
from medgan.train import train

GENERATOR = {"name": "unet_32", "width": 2, "dropout": False}
ANY_SIZE = {"name": "resnet_6blocks", "width": 2}
JUDGE = {"name": "n_layers", "num_layers": 1, "width": 4}
DIMS = pytest.mark.parametrize("spatial_dims", [2, 3])


def hd(spatial_dims: int = 2, **values: Any) -> Pix2pix:
    torch.manual_seed(0)
    settings = Pix2pixSettings.parse({"generator": GENERATOR, "discriminator": JUDGE | {"scales": 2}} | values)
    return settings.build(in_channels=1, out_channels=1, spatial_dims=spatial_dims)


def halved(x: Tensor) -> Tensor:
    """Means over three voxels about every second one, and over two where the third lies outside, by plain sums."""
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        parts = [
            x.narrow(axis, max(i - 1, 0), min(i + 2, n) - max(i - 1, 0)).sum(axis, keepdim=True) for i in range(0, n, 2)
        ]
        counts = [min(i + 2, n) - max(i - 1, 0) for i in range(0, n, 2)]
        x = torch.cat([part / count for part, count in zip(parts, counts, strict=True)], axis)
    return x


def layers_of(judge: nn.Module, x: Tensor) -> list[Tensor]:
    """What stands behind each activation, and the logits, layer by layer."""
    seen = []
    for layer in judge.body:  # type: ignore[union-attr]
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            seen.append(x)
    return [*seen, x]


# --- several sizes ----------------------------------------------------------------------------------------------------


def test_one_scale_is_the_discriminator_that_was_there() -> None:
    torch.manual_seed(3)
    plain = DiscriminatorSettings().build(2, 2)
    torch.manual_seed(3)
    one = PairedDiscriminatorSettings().build(2, 2)
    assert type(one) is type(plain) is PatchGAN
    assert one.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), plain.parameters(), strict=True))


@DIMS
@pytest.mark.parametrize("side", [24, 25, 27])
def test_the_image_is_halved_as_published(spatial_dims: int, side: int) -> None:
    """By means of three that leave out what lies beyond the edge; each judge is fed the half of the one before."""
    settings = PairedDiscriminatorSettings.parse(JUDGE | {"scales": 3, "norm": "instance"})
    net = settings.build(1, spatial_dims).double()
    fed: list[Tensor] = []
    for judge in net.judges:  # type: ignore[union-attr]
        judge.register_forward_hook(lambda _m, inputs, _y: fed.append(inputs[0]))
    x = torch.randn(1, 1, *[side] * spatial_dims, dtype=torch.float64)
    logits = net(x)
    wanted = [x, halved(x), halved(halved(x))]
    assert [y.shape for y in fed] == [y.shape for y in wanted]
    for seen, expected in zip(fed, wanted, strict=True):
        torch.testing.assert_close(seen, expected, rtol=0, atol=1e-14)
    for judge, y, verdict in zip(net.judges, wanted, logits, strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(verdict, judge.body(y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_least_size_is_known_and_enough(scales: int, num_layers: int) -> None:
    settings = PairedDiscriminatorSettings(name="n_layers", num_layers=num_layers, width=2, scales=scales)
    net = settings.build(1, 2)
    least = net.smallest
    assert torch.stack([y.isfinite().all() for y in [*net(torch.rand(2, 1, least, least))]]).all()
    with pytest.raises(InputError, match=f"each at least {least}"):
        net(torch.rand(2, 1, least - 1, least))
    size, halvings = least - 1, scales - 1
    for _ in range(halvings):
        size = (size + 1) // 2
    assert size < 3 * 2**num_layers  # it is really too small for the last judge


def test_patches_too_small_for_the_last_scale_are_refused_before_training() -> None:
    game = hd(discriminator=JUDGE | {"scales": 3}, generator=ANY_SIZE)
    game.require_size((24, 24))
    with pytest.raises(InputError, match=r"20×20 does not fit the net MultiScale: .* at least 21"):
        game.require_size((20, 20))


@DIMS
@pytest.mark.parametrize("gan", ["vanilla", "lsgan", "hinge"])
def test_losses_are_summed_over_scales(spatial_dims: int, gan: str) -> None:
    """Equation 3: a sum over the discriminators, each with its own mean; the discriminator's half as in pix2pix."""
    game, batch = hd(spatial_dims, gan=gan).double(), exact(small_batch(spatial_dims))
    a, b = batch.pair()
    fakes = {"b": torch.rand_like(b)}
    real, fake = {}, {}
    for logits, image in ((real, b), (fake, fakes["b"])):
        x = torch.cat([a, image], 1)
        logits |= {
            n: judge.body(y).detach() for n, (judge, y) in enumerate(zip(judges(game), (x, halved(x)), strict=True))
        }
    formulas: dict[str, Any] = {
        "vanilla": (lambda x: (1 + (-x).exp()).log(), lambda x: (1 + x.exp()).log(), lambda x: (1 + (-x).exp()).log()),
        "lsgan": (lambda x: (x - 1) ** 2, lambda x: x**2, lambda x: (x - 1) ** 2),
        "hinge": (lambda x: (1 - x).clamp(min=0), lambda x: (1 + x).clamp(min=0), lambda x: -x),
    }
    on_real, on_fake, fool = formulas[gan]
    losses = game.discriminator_losses(batch, fakes) | game.generator_losses(batch, fakes)
    seen = {name: loss.detach() for name, loss in losses.items()}
    assert float(seen["D_real"]) == pytest.approx(0.5 * sum(float(on_real(x).mean()) for x in real.values()), rel=1e-12)
    assert float(seen["D_fake"]) == pytest.approx(0.5 * sum(float(on_fake(x).mean()) for x in fake.values()), rel=1e-12)
    assert float(seen["G_GAN"]) == pytest.approx(sum(float(fool(x).mean()) for x in fake.values()), rel=1e-12)
    assert seen.keys() == {"D_real", "D_fake", "G_GAN", "G_L1"}


def judges(game: Pix2pix) -> list[nn.Module]:
    net = game.discriminators["b"]
    assert isinstance(net, MultiScale)
    return list(net.judges)


def test_every_scale_has_a_say_in_what_the_doctor_sees() -> None:
    game, batch = hd(), small_batch()
    real, fake = game.judge(batch, game.generate(batch))["b"]
    a, b = batch.pair()
    x = torch.cat([a, b], 1)
    expected = [judge.body(y).flatten(1) for judge, y in zip(judges(game), (x, halved(x)), strict=True)]
    torch.testing.assert_close(real, torch.cat(expected, 1))
    assert fake.shape == real.shape


@pytest.mark.parametrize("settings", [CycleGANSettings, CUTSettings])
def test_models_without_pairs_have_one_scale(settings: Any) -> None:
    with pytest.raises(ConfigError, match=r"discriminator\.scales: unknown key \(accepted here: name, num_layers"):
        settings.parse({"discriminator": {"scales": 2}})


@pytest.mark.parametrize("scales", [0, 4])
def test_scales_are_one_to_three(scales: int) -> None:
    with pytest.raises(ConfigError, match=r"model\.discriminator\.scales: .*(greater|less) than or equal to"):
        Pix2pixSettings.parse({"discriminator": {"scales": scales}}, "model")


# --- features of the discriminator ------------------------------------------------------------------------------------


@DIMS
@pytest.mark.parametrize(("scales", "num_layers"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_features_are_matched_as_published(spatial_dims: int, scales: int, num_layers: int) -> None:
    """Equation 4, with 4 / (number of layers + 1) for each layer and 1 / (number of discriminators)."""
    judge = JUDGE | {"num_layers": num_layers, "scales": scales}
    game = hd(spatial_dims, lambda_feature=10.0, discriminator=judge).double()
    batch = exact(small_batch(spatial_dims))
    a, b = batch.pair()
    fakes = {"b": torch.rand_like(b)}
    real, fake = torch.cat([a, b], 1), torch.cat([a, fakes["b"]], 1)
    distance = 0.0
    for net in judges(game) if scales > 1 else [game.discriminators["b"]]:
        features = list(zip(layers_of(net, fake)[:-1], layers_of(net, real)[:-1], strict=True))
        assert len(features) == num_layers + 1
        for x, y in features:
            distance += 4 / (num_layers + 1) / scales * float((x - y).abs().mean().detach())
        real, fake = halved(real), halved(fake)
    losses = game.generator_losses(batch, fakes)
    assert float(losses["G_feature"].detach()) == pytest.approx(10 * distance, rel=1e-12)
    plain = hd(spatial_dims, discriminator=judge).double().generator_losses(batch, fakes)
    assert float(losses["G_GAN"].detach()) == pytest.approx(float(plain["G_GAN"].detach()), rel=1e-12)


def test_features_of_single_voxels_and_of_blurred_halves_are_matched_too() -> None:
    for judge in ({"name": "pixel", "width": 4}, JUDGE | {"antialias": True}):
        game, batch = hd(lambda_feature=1.0, discriminator=judge), small_batch()
        seen = game.look(*batch.pair())
        assert [len(scale) for scale in seen] == [3]
        torch.testing.assert_close(seen[0][-1], game.verdicts(*batch.pair())[0])


def test_the_discriminator_looks_at_the_fake_once() -> None:
    game, batch = hd(lambda_feature=10.0), small_batch()
    fakes = game.generate(batch)
    looks: list[bool] = []
    game.discriminators["b"].register_forward_hook(lambda _m, inputs, _y: looks.append(inputs[0].requires_grad))
    game.generator_losses(batch, fakes)
    assert looks == [True, False]  # the fake, and the true image without gradient


def test_the_true_image_gets_no_gradient() -> None:
    x, y = (torch.rand(1, 2, 3, requires_grad=True) for _ in range(2))
    feature_distance([[x, x], [x]], [[y, y], [y]]).backward()
    assert x.grad is not None
    assert y.grad is None


def test_a_game_without_features_is_not_asked_for_them() -> None:
    assert "G_feature" not in hd().generator_losses(small_batch(), hd().generate(small_batch()))


@DIMS
def test_gradients_stay_with_their_player(spatial_dims: int) -> None:
    assert_gradients_stay(lambda: hd(spatial_dims, lambda_feature=10.0), small_batch(spatial_dims))


@DIMS
def test_channels_last_and_bfloat16_train_alike(spatial_dims: int) -> None:
    assert_channels_last_trains_alike(lambda: hd(spatial_dims, lambda_feature=10.0), small_batch(spatial_dims))
    assert_bfloat16_stays_finite(hd(spatial_dims, lambda_feature=10.0), small_batch(spatial_dims))


def test_features_alone_teach() -> None:
    """Without an L1 loss, as pix2pixHD has none, the fake comes near to the truth all the same."""
    wide = GENERATOR | {"width": 8}
    game, batch = hd(lambda_feature=10.0, lambda_l1=0.0, gan="lsgan", generator=wide), small_batch()
    a, b = batch.pair()
    before = float((game.translate(a) - b).abs().mean().detach())
    adams = new_adams(game, lr=2e-3)
    for _ in range(60):
        step(game, batch, adams)
    assert float((game.translate(a) - b).abs().mean().detach()) < 0.5 * before


def test_supervised_takes_scales_and_features_if_it_has_a_discriminator() -> None:
    nets = {"generator": ANY_SIZE}
    with pytest.raises(ConfigError, match="lambda_feature compares what the discriminator sees, and there is none"):
        SupervisedSettings.parse(nets | {"lambda_feature": 1})
    settings = SupervisedSettings.parse(nets | {"lambda_feature": 1, "discriminator": JUDGE | {"scales": 2}})
    game = settings.build(in_channels=1, out_channels=1, spatial_dims=2)
    assert step(game, small_batch(), new_adams(game)).keys() == {"D_fake", "D_real", "G_L1", "G_GAN", "G_feature"}


# --- VGG-19 -----------------------------------------------------------------------------------------------------------

WIDTHS = (4, 4, 6, 6, 8, 8, 8, 8, 10, 10, 10, 10, 5)  # of the 13 convs up to the last one that is used
WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)


def published_vgg() -> nn.Sequential:
    """Table 1, column E of the paper in torchvision's layout, narrow, up to relu5_1, with random weights."""
    generator, layers, ins = torch.Generator().manual_seed(0), nn.Sequential(), 3
    plan: list[int | str] = [*WIDTHS[:2], "M", *WIDTHS[2:4], "M", *WIDTHS[4:8], "M", *WIDTHS[8:12], "M", WIDTHS[12]]
    for item in plan:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2, 2))
            continue
        conv = nn.Conv2d(ins, item, 3, padding=1)
        with torch.no_grad():
            conv.weight.normal_(0, (2 / (9 * ins)) ** 0.5, generator=generator)
            conv.bias.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
        layers.extend([conv, nn.ReLU()])
        ins = item
    return layers


def as_torchvision() -> dict[str, Tensor]:
    return {f"features.{name}": tensor for name, tensor in published_vgg().state_dict().items()}


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save(as_torchvision() | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


def features_of(x: Tensor) -> Iterator[Tensor]:
    """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of grey images in [-1, 1], in float64."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
    y = (torch.cat([x, x, x], 1) * 0.5 + 0.5 - mean) / deviation
    for number, layer in enumerate(published_vgg().double()):
        y = layer(y)
        if number in (1, 6, 11, 20, 29):
            yield y


def distance_of(x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        pairs = zip(WEIGHTS, features_of(x), features_of(y), strict=True)
        return float(sum(weight * (ours - theirs).abs().mean() for weight, ours, theirs in pairs))


def test_the_perceptual_distance_is_that_of_the_published_net(vgg: Path) -> None:
    x, y = (torch.rand(2, 1, 37, 32, dtype=torch.float64) * 2 - 1 for _ in range(2))
    assert float(vgg19(vgg)(x, y)) == pytest.approx(distance_of(x, y), rel=1e-10)


def test_each_channel_is_a_grey_image(vgg: Path) -> None:
    x, y = (torch.rand(2, 3, 16, 20, dtype=torch.float64) * 2 - 1 for _ in range(2))
    grey = [z.reshape(6, 1, 16, 20) for z in (x, y)]
    assert float(vgg19(vgg)(x, y)) == pytest.approx(distance_of(*grey), rel=1e-10)


def test_volumes_are_seen_slice_by_slice_along_an_axis_by_chance(vgg: Path) -> None:
    x, y = (torch.rand(1, 1, 17, 16, 20, dtype=torch.float64) * 2 - 1 for _ in range(2))
    along = {}
    for axis in range(3):
        slices = [torch.cat(z.unbind(axis + 2)) for z in (x, y)]
        along[axis] = distance_of(*slices)
    perceptual, seen = vgg19(vgg), []
    for seed in range(24):
        torch.manual_seed(seed)
        value = float(perceptual(x, y))
        nearest = min(along, key=lambda axis: abs(along[axis] - value))
        assert value == pytest.approx(along[nearest], rel=1e-10)
        seen.append(nearest)
    assert set(seen) == {0, 1, 2}
    torch.manual_seed(5)
    assert float(perceptual(x, y)) == pytest.approx(along[seen[5]], rel=1e-10)  # the seed decides


def test_it_teaches_the_fake_alone_and_stays_exact_under_bfloat16(vgg: Path) -> None:
    x, y = (torch.rand(1, 1, 16, 16, requires_grad=True) for _ in range(2))
    perceptual = vgg19(vgg)
    with torch.autocast("cpu", torch.bfloat16):
        loss = perceptual(x, y)
    assert float(loss.detach()) == pytest.approx(distance_of(x.detach().double(), y.detach().double()), rel=1e-5)
    loss.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    assert y.grad is None
    assert float(perceptual(y, y).detach()) == 0


def test_both_kinds_of_file_hold_the_same(vgg: Path, tmp_path: Path) -> None:
    save_file(as_torchvision(), tmp_path / "vgg.safetensors")
    x, y = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16)
    assert float(vgg19(vgg)(x, y)) == float(vgg19(tmp_path / "vgg.safetensors")(x, y))


def test_it_is_no_part_of_the_game(vgg: Path) -> None:
    plain, game = hd(), hd(perceptual={"vgg19": str(vgg), "weight": 10})
    game.require_size((32, 32))
    assert game.state_dict().keys() == plain.state_dict().keys()
    assert len(list(game.parameters())) == len(list(plain.parameters()))
    assert {id(p) for player in game.order for p in game.nets(player).parameters()} == {
        id(p) for p in game.parameters()
    }
    assert game.perceptual is not None
    assert len(game.perceptual.sha256) == 64


@DIMS
def test_its_loss_is_weighted_and_named(vgg: Path, spatial_dims: int) -> None:
    game = hd(spatial_dims, perceptual={"vgg19": str(vgg), "weight": 3}).double()
    batch = exact(small_batch(spatial_dims))
    fakes = {"b": torch.rand_like(batch.pair()[1])}
    torch.manual_seed(1)
    seen = float(game.generator_losses(batch, fakes)["G_perceptual"])
    torch.manual_seed(1)
    assert seen == pytest.approx(3 * float(vgg19(vgg)(fakes["b"], batch.pair()[1])), rel=1e-12)


def damaged(folder: Path, kind: str) -> Path:
    """A file that is no VGG-19."""
    tensors, path = as_torchvision(), folder / ("bad.safetensors" if kind == "safetensors by name" else "bad.pth")
    others: dict[str, dict[str, Tensor]] = {
        "with norms": {"features.5.weight": torch.ones(4)},
        "one channel": {"features.0.weight": torch.ones(4, 1, 3, 3)},
        "bias of another": {"features.28.bias": torch.ones(4)},
        "not finite": {"features.28.bias": torch.full((5,), float("nan"))},
    }
    if kind == "a folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("hello")
    elif kind == "code":
        torch.save(published_vgg(), path)
    elif kind == "a list":
        torch.save(list(tensors.values()), path)
    elif kind == "another net":
        torch.save({name: x for name, x in tensors.items() if not name.startswith("features.16.")}, path)
    elif kind != "no file":
        torch.save(tensors | others.get(kind, {}), path)
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[:2000])
    return path


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("no file", r"bad\.pth cannot be read \(No such file"),
        ("a folder", r"bad\.pth cannot be read \(Is a directory"),
        ("text", r"bad\.pth is no VGG-19 in torchvision's layout \(it is no file of tensors"),
        ("cut short", r"it is no file of tensors"),
        ("code", r"it is no file of tensors"),
        ("a list", r"it holds a list"),
        ("safetensors by name", r"bad\.safetensors is no VGG-19 .*it is no file of tensors"),
        ("another net", r"features\.16\.weight and \.bias are not there"),
        ("with norms", r"features\.5 has the shapes 4 and 6 where \(any\)×4×3×3 was expected"),
        ("one channel", r"features\.0 has the shapes 4×1×3×3 and 4 where \(any\)×3×3×3"),
        ("bias of another", r"features\.28 has the shapes 5×10×3×3 and 4"),
        ("not finite", r"features\.28 holds values that are no numbers"),
    ],
)
def test_wrong_files_are_told_before_training(
    kind: str, told: str, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = damaged(tmp_path, kind)
    with pytest.raises(ConfigError, match=rf"model\.perceptual\.vgg19: .*{told}") as error:
        train(tiny_cohort / "tiny.yaml", [f"model.perceptual={{vgg19: {path}}}"], out=tmp_path / "run", device="cpu")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_patches_of_which_nothing_would_be_left_are_refused(vgg: Path) -> None:
    game = hd(discriminator=JUDGE, generator=ANY_SIZE, perceptual={"vgg19": str(vgg)})
    game.require_size((16, 16))
    with pytest.raises(InputError, match="a patch of 12×16 is smaller than the perceptual loss takes, 16 voxels"):
        game.require_size((12, 16))


@pytest.mark.parametrize(
    ("values", "told"), [({"vgg16": "x"}, "vgg16: unknown key"), ({"vgg19": "x", "weight": 0}, "greater than 0")]
)
def test_settings_of_the_perceptual_loss(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.perceptual\.?.*{told}"):
        Pix2pixSettings.parse({"perceptual": values}, "model")


def test_the_file_is_looked_for_beside_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "cases": "cases.csv",
        "patch": [16, 16, 1],
        "model": {"name": "pix2pix", "perceptual": {"vgg19": "v.pth"}},
    }
    values["prep"] = {"a": {"modality": "MR", "times_median": [0, 2]}, "b": {"modality": "CT", "range": [0, 1]}}
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "c.yaml").write_text(json.dumps(values))
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path / "here" / "c.yaml").model.perceptual.vgg19 == tmp_path / "here" / "v.pth"
    other = load(tmp_path / "here" / "c.yaml", ["model.perceptual.vgg19=v.pth"])
    assert other.model.perceptual.vgg19 == tmp_path / "v.pth"


# --- the whole --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", ["[16, 16, 1]", "[16, 16, 16]"])
def test_it_trains_resumes_and_translates_without_the_file(
    patch: str, vgg: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.pth"
    mine.write_bytes(vgg.read_bytes())
    overrides = [
        f"patch={patch}",
        "model.discriminator.scales=2",
        "model.lambda_feature=10",
        f"model.perceptual={{vgg19: {mine}, weight: 10}}",
        *("train.steps=3", "train.validate_every=3", "train.checkpoint_every=2"),
    ]
    _, whole = killed_and_whole(tiny_cohort / "tiny.yaml", overrides, tmp_path, kills=[3])
    names = {"D_fake", "D_real", "G_GAN", "G_feature", "G_L1", "G_perceptual"}
    assert whole.metrics()[0]["loss"].keys() == names
    assert {name.split(".")[0] for name in load_file(whole.weights_path)} == {"b"}
    game: Any = state(whole.path)["game"]
    assert all(name.startswith(("generators.", "discriminators.")) for name in game)
    assert any(name.startswith("discriminators.b.judges.1.") for name in game)
    held = json.loads((whole.path / "card.json").read_text())["files_sha256"]
    assert held == {"perceptual.vgg19": hashlib.sha256(mine.read_bytes()).hexdigest()}
    mine.unlink()
    assert_translates(whole, tiny_cohort, tmp_path / "o.nii.gz")
