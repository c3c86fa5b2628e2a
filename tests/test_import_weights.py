"""Weights of the published nets, defined here a second time and in plain torch, give the same images as a run."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import medgan, tree
from conftest import tiny_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medgan import import_weights, read, write
from medgan.config import load
from medgan.errors import ConfigError, InputError, OutputError, RunError
from medgan.prep import from_network, to_network
from medgan.run import Run, open_run, plan_run
from medgan.translate import translate_volume

CONFIG = """
prep:
  a: {modality: MR, times_median: [0, 2]}
  b: {modality: CT, unit: HU, range: [-1000, 1000]}
patch: [PATCH, PATCH, 1]
"""
PATCH = {"unet_256": 256, "unet_128": 128, "unet_64": 64, "unet_32": 32, "resnet_9blocks": 24, "resnet_6blocks": 24}
SMALL = "resnet_6blocks"


# --- the published nets -----------------------------------------------------------------------------------------------


class Level(nn.Module):
    """A level of the U-Net around the one below it: its layers, and its input beside them unless it is outermost."""

    def __init__(self, layers: list[nn.Module], *, outermost: bool) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.outermost = outermost

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y if self.outermost else torch.cat([x, y], 1)


class UNet(nn.Module):
    def __init__(self, downs: int, width: int, norm: str, *, dropout: bool, ins: int, outs: int) -> None:
        super().__init__()
        widths = [width * factor for factor in (1, 2, 4, 8, 8, 8, 8, 8)[:downs]]
        bias, level = norm == "instance", None
        for depth in reversed(range(downs)):
            above = widths[depth - 1] if depth else ins
            down = nn.Conv2d(above, widths[depth], 4, 2, 1, bias=bias)
            inner = widths[depth] * (1 if level is None else 2)
            up = nn.ConvTranspose2d(inner, above if depth else outs, 4, 2, 1, bias=bias or not depth)
            below = [] if level is None else [level]
            if depth == 0:
                layers = [down, *below, nn.ReLU(), up, nn.Tanh()]
            else:
                normed = [] if level is None else [normalise(norm, widths[depth])]
                layers = [nn.LeakyReLU(0.2), down, *normed, *below, nn.ReLU(), up, normalise(norm, above)]
                if dropout and level is not None and above == width * 8:
                    layers.append(nn.Dropout(0.5))
            level = Level(layers, outermost=depth == 0)
        self.model = level

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class Block(nn.Module):
    def __init__(self, width: int, norm: str, dropout: bool, *, padding: str = "reflect") -> None:
        super().__init__()
        conv = partial(nn.Conv2d, width, width, 3, bias=norm == "instance")
        before = partial(nn.ReflectionPad2d, 1)
        front = [before(), conv()] if padding == "reflect" else [conv(padding=1)]
        back = [before(), conv()] if padding == "reflect" else [conv(padding=1)]
        dropped = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(
            *front, normalise(norm, width), nn.ReLU(), *dropped, *back, normalise(norm, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv_block(x)
        return y


class ResNet(nn.Module):
    def __init__(
        self, blocks: int, width: int, norm: str, *, dropout: bool, ins: int, outs: int, padding: str = "reflect"
    ) -> None:
        super().__init__()
        bias = norm == "instance"
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(ins, width, 7, bias=bias)]
        layers += [normalise(norm, width), nn.ReLU()]
        for seen in (width, width * 2):
            layers += [nn.Conv2d(seen, seen * 2, 3, 2, 1, bias=bias), normalise(norm, seen * 2), nn.ReLU()]
        layers += [Block(width * 4, norm, dropout, padding=padding) for _ in range(blocks)]
        for seen in (width * 4, width * 2):
            up = nn.ConvTranspose2d(seen, seen // 2, 3, 2, 1, output_padding=1, bias=bias)
            layers += [up, normalise(norm, seen // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, outs, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


def normalise(norm: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels)


def published(
    arch: str = SMALL, norm: str = "instance", *, dropout: bool = False, ins: int = 1, outs: int = 1, seed: int = 0,
    width: int = 4,
) -> nn.Module:  # fmt: skip
    """A net in evaluation mode whose every number counts: weights, biases, statistics."""
    torch.manual_seed(seed)
    number = int(re.findall(r"\d+", arch)[0])
    kind = partial(UNet, number.bit_length() - 1) if arch.startswith("unet") else partial(ResNet, number)
    net: nn.Module = kind(width, norm, dropout=dropout, ins=ins, outs=outs)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                tensor.fill_(7)
            elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.1)
            else:
                tensor.mul_(2.0)
    return net.eval()


class Place:
    """A folder with a config, weights that are saved there, and runs that are made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = folder / "latest_net_G.pth"
        self.run = folder / "run"

    def config(self, arch: str = SMALL, extra: str = "") -> Path:
        path = self.folder / "contract.yaml"
        path.write_text(CONFIG.replace("PATCH", str(PATCH[arch])) + extra)
        return path

    def save(self, held: object, name: str = "latest_net_G.pth", **how: Any) -> Path:
        torch.save(held, self.folder / name, **how)
        return self.folder / name

    def made(self, held: object, arch: str = SMALL, *overrides: str, **options: Any) -> Run:
        return import_weights(self.save(held), overrides, config=self.config(arch), out=self.run, **options)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def noise(arch: str, channels: int = 1) -> Tensor:
    return torch.rand(2, channels, PATCH[arch], PATCH[arch], generator=torch.Generator().manual_seed(5)) * 2 - 1


@torch.no_grad()
def assert_same(run: Run, net: nn.Module, arch: str, to: str = "b") -> None:
    x = noise(arch)
    wanted = net(x)
    assert wanted.std() > 0.05
    assert not torch.equal(wanted[0], wanted[1])
    assert (run.translator().translate(x, to) - wanted).abs().max() <= 1e-6


# --- the same images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["unet_256", "unet_128", "unet_32", "resnet_9blocks", "resnet_6blocks"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("dropout", [False, True])
def test_a_net_of_the_reference_makes_the_same_images_here(arch: str, norm: str, dropout: bool, place: Place) -> None:
    net = published(arch, norm, dropout=dropout)
    run = place.made(net.state_dict(), arch)
    assert_same(run, net, arch)
    generator = run.config.model.generator
    assert (generator.name, generator.norm, generator.width) == (arch, norm, 4)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_dropout_moves_the_layers_of_a_block_and_changes_no_weight(norm: str) -> None:
    """What makes the names of the two differ; were it not so, the test above would prove less."""
    plain, dropping = (published(norm=norm, dropout=dropout).state_dict() for dropout in (False, True))
    assert list(plain) != list(dropping)
    assert all(torch.equal(one, other) for one, other in zip(plain.values(), dropping.values(), strict=True))


def test_parameter_counts_of_the_nets_above_are_the_published_ones() -> None:
    counts = {
        ("unet_256", "batch", 3): 54_413_955, ("unet_128", "instance", 1): 41_819_521,
        ("resnet_9blocks", "instance", 3): 11_378_179, ("resnet_6blocks", "batch", 1): 7_828_865,
    }  # fmt: skip
    for (arch, norm, channels), count in counts.items():
        with torch.device("meta"):
            number = int(re.findall(r"\d+", arch)[0])
            kind = partial(UNet, number.bit_length() - 1) if arch.startswith("unet") else partial(ResNet, number)
            net = kind(64, norm, dropout=True, ins=channels, outs=channels)
        assert sum(p.numel() for p in net.parameters()) == count, arch


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_from_the_file_to_the_image_in_its_unit(norm: str, place: Place) -> None:
    """Import, translate a NIfTI file by command, read it: what the net makes of the contract's tensor, in its unit."""
    net = published("unet_32", norm)
    place.save(net.state_dict())
    config, source = place.config("unet_32"), place.folder / "mr.nii.gz"
    write(tiny_pair(3)[0], source)
    done = medgan("import-weights", place.weights, "--config", config, "--arch", "unet_32", "--out", place.run)
    assert (done.code, done.err, done.warned) == (0, "", ())
    assert done.out == (
        f"{place.run}: MR to CT, by unet_32 with {norm} norm, width 4; evaluation mode, as in the reference "
        "implementation with --eval\n"
    )
    assert medgan("translate", place.run, source, place.folder / "ct.nii.gz", "--device", "cpu").code == 0
    volume, prep = read(source), load(place.run / "config.yaml").prep
    x = to_network(volume, prep.a)
    padded = torch.full((8, 1, 32, 32), -1.0)  # the 24×20 of the source in the middle of a window
    padded[:, 0, 4:28, 6:26] = x[0].movedim(2, 0)
    with torch.no_grad():
        y = net(padded)[:, :, 4:28, 6:26]
    wanted, seen = from_network(y[:, 0].movedim(0, 2)[None], volume, prep.b), read(place.folder / "ct.nii.gz")
    assert wanted.array.std() > 20
    assert np.abs(seen.array - wanted.array).max() <= 1e-3  # HU, of a range of 2000 in float32
    assert (seen.unit, seen.modality) == ("HU", "CT")
    assert seen.grid.same_as(volume.grid)
    assert seen.synthetic is not None
    assert seen.synthetic.weights_sha256 == open_run(place.run).weights_sha256


def test_two_generators_go_both_ways(place: Place) -> None:
    there, back = published(seed=1), published(seed=2)
    weights, other = place.save(there.state_dict(), "7_net_G_A.pth"), place.save(back.state_dict(), "7_net_G_B.pth")
    done = medgan("import-weights", weights, "--back", other, "--config", place.config(), "--out", place.run)
    assert done.code == 0, done.err
    assert "MR to CT, and back by --to a, by resnet_6blocks with instance norm, width 4" in done.out
    run = open_run(place.run)
    assert_same(run, there, SMALL, "b")
    assert_same(run, back, SMALL, "a")
    assert run.config.model.name == "cyclegan"
    ct = tiny_pair(0)[1]
    made = translate_volume(run, ct, to="a")
    assert (made.unit, made.modality) == ("normalised", "MR")
    assert [one["file"] for one in card(run)["imported"]["generators"].values()] == [weights.name, other.name]


def test_neighbouring_slices_as_channels(place: Place) -> None:
    net = published(ins=3)
    run = place.made(net.state_dict(), SMALL, "neighbours=1")
    x = noise(SMALL, 3)
    with torch.no_grad():
        assert (run.translator().translate(x) - net(x)).abs().max() <= 1e-6
    assert run.config.in_channels == 3


# --- the run ----------------------------------------------------------------------------------------------------------


def card(run: Run) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((run.path / "card.json").read_text())
    return told


def test_the_card_says_where_the_weights_are_from_and_claims_no_training(place: Place) -> None:
    import hashlib

    told = card(place.made(published().state_dict()))
    imported = told["imported"]
    assert imported["origin"].startswith("imported from the reference implementation")
    assert imported["generators"] == {
        "b": {
            "file": "latest_net_G.pth",
            "sha256": hashlib.sha256(place.weights.read_bytes()).hexdigest(),
            "net": "resnet_6blocks with instance norm, 1 → 1 channels, width 4",
        }
    }
    assert (told["seed"], told["cases_sha256"]) == (None, None)
    assert not [key for key in told if "train" in key or "best" in key or "started" in key]
    assert told["contract"]["b"]["range"] == [-1000, 1000]
    assert "synthetic" in told["intended_use"]


def test_the_config_keeps_what_was_given_and_nothing_of_a_training(place: Place) -> None:
    extra = (
        "cases: missing.csv\nmodel: {name: pix2pix, lambda_l1: 7}\ntrain: {steps: 9, precision: bf16}\noverlap: 0.25\n"
    )
    config = place.config(extra=extra)
    place.save(published().state_dict())
    run = import_weights(place.weights, ["prep.b.range=[-500, 500]"], config=config, out=place.run)
    written = yaml.safe_load((place.run / "config.yaml").read_text())
    generator = {"name": SMALL, "width": 4, "norm": "instance", "dropout": False}
    assert generator.items() <= written["model"].pop("generator").items()
    assert written["model"] == {"name": "pix2pix"}
    assert written["train"] == {"precision": "bf16"}
    assert (written["overlap"], written["prep"]["b"]["range"]) == (0.25, [-500, 500])
    assert written["cases"] == "/dev/null"
    assert run.config.prep.b.range == (-500, 500)
    assert run.best == {}


def test_a_config_that_trains_is_a_contract_as_well(place: Place) -> None:
    """The shipped ones say more than is needed, and for a pair of generators some of it does not hold."""
    weights = place.save(published().state_dict())
    config = Path(__file__).parents[1] / "configs/t1_to_flair.yaml"
    run = import_weights(weights, config=config, back=weights, out=place.run)
    assert run.config.patch == (64, 64, 1)


def test_no_training_goes_on_from_imported_weights(place: Place, tiny_cohort: Path) -> None:
    place.made(published().state_dict())
    before = tree(place.run)
    with pytest.raises(RunError, match=r"run: holds imported weights, which no training goes on from; name a new"):
        plan_run(place.run, load(tiny_cohort / "tiny.yaml"))
    done = medgan("train", tiny_cohort / "tiny.yaml", "--out", place.run, "--device", "cpu")
    assert (done.code, "imported weights" in done.error) == (1, True)
    assert tree(place.run) == before


# --- oddities of files ------------------------------------------------------------------------------------------------

State = dict[str, Tensor]


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def with_old_statistics(state: State) -> State:
    """As torch before 0.4 saved instance norm: statistics behind every conv but the last, which no net ever used."""
    convs = [name for name, tensor in state.items() if tensor.ndim == 4]
    for name in convs[:-1]:
        head, _, number = name.removesuffix(".weight").rpartition(".")
        channels = state[name.replace("weight", "bias")].shape
        for entry in ("running_mean", "running_var"):
            state[f"{head}.{int(number) + 1}.{entry}"] = torch.full(channels, 99.0)
        state[f"{head}.{int(number) + 1}.num_batches_tracked"] = torch.tensor(3)
    return state


def shuffled(state: State) -> State:
    return {name: state[name] for name in sorted(state, key=lambda name: name[::-1])}


WRAPPED: dict[str, Callable[[State], object]] = {
    "DataParallel": prefixed("module."),
    "torch.compile": prefixed("_orig_mod."),
    "DDP of a compiled net": prefixed("module._orig_mod."),
    "a compiled DDP net": prefixed("_orig_mod.module."),
    "state_dict": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    "model": lambda state: {"model": prefixed("module.")(state)},
    "parameters": lambda state: {
        name: nn.Parameter(value) if value.is_floating_point() else value for name, value in state.items()
    },
    "alphabetical": lambda state: {name: state[name] for name in sorted(state)},
    "any order": shuffled,
}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize(("arch", "norm"), [(SMALL, "batch"), ("unet_32", "instance"), ("resnet_9blocks", "instance")])
def test_wrappers_and_order_change_nothing(how: str, arch: str, norm: str, place: Place) -> None:
    net = published(arch, norm)
    assert_same(place.made(WRAPPED[how](net.state_dict()), arch), net, arch)


@pytest.mark.parametrize("arch", [SMALL, "unet_32"])
def test_old_statistics_of_instance_norm_are_dropped(arch: str, place: Place) -> None:
    net = published(arch, "instance")
    if arch == SMALL:
        state = with_old_statistics(net.state_dict())
    else:
        state = net.state_dict()
        state["model.model.1.model.2.running_mean"] = state["model.model.1.model.2.running_var"] = torch.ones(8)
    run = place.made(state, arch)
    assert_same(run, net, arch)
    assert not [name for name in run.translator().state_dict() if "running" in name and "generators" in name]


def test_statistics_of_batch_norm_are_kept_and_may_lack_their_count(place: Place) -> None:
    net = published(norm="batch")
    state = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
    assert_same(place.made(state), net, SMALL)


def test_the_count_of_batches_is_kept(place: Place) -> None:
    kept = place.made(published(norm="batch").state_dict()).translator().generators.state_dict()
    assert {int(value) for name, value in kept.items() if "num_batches" in name} == {7}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_other_floats_become_float32_and_that_is_said(
    dtype: torch.dtype, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    net = published(norm="batch").to(dtype)
    run = place.made(net.state_dict())
    assert f"latest_net_G.pth: {str(dtype)[6:]} became float32" in capsys.readouterr().err.replace("\n", "")
    assert_same(run, net.float(), SMALL)


def test_the_file_format_of_torch_before_1_6(place: Place) -> None:
    net = published()
    place.save(net.state_dict(), _use_new_zipfile_serialization=False)
    assert_same(import_weights(place.weights, config=place.config(), out=place.run), net, SMALL)


# --- colours ----------------------------------------------------------------------------------------------------------


COLOURS = ("red", "green", "blue")
CHANNELS = [(3, 3), (3, 1), (1, 3)]
SUMMED = "the first convolution's kernels are added up over red, green and blue"


def coloured(arch: str = SMALL, norm: str = "instance", ins: int = 3, outs: int = 3, **options: Any) -> nn.Module:
    """A net whose first kernels are multiples of 2⁻¹⁰, so that float32 holds their sums exactly."""
    net = published(arch, norm, ins=ins, outs=outs, **options)
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_((first.weight * 1024).round() / 1024)
    return net


@torch.no_grad()
def assert_grey(run: Run, net: nn.Module, arch: str, keep: str, *, to: str = "b", ins: int = 3) -> None:
    """In float64, and in float32, where only the order of additions differs."""
    for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 3e-5)):
        x = noise(arch).to(dtype)
        made = net.to(dtype)(x.repeat(1, ins, 1, 1))
        at = COLOURS.index(keep) if made.shape[1] == 3 else 0
        wanted = made[:, at : at + 1]
        seen = run.translator().to(dtype).translate(x, to)
        assert wanted.std() > 0.05
        assert made.shape[1] == 1 or (made - wanted).abs().mean() > 0.05  # the others are not it
        assert (seen - wanted).abs().max() <= atol


@pytest.mark.parametrize("arch", ["unet_128", "unet_32", "resnet_9blocks", "resnet_6blocks"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("channels", "keep"), [*zip(CHANNELS, COLOURS, strict=True)])
def test_a_net_of_grey_pictures_in_colour_makes_one_of_them(
    arch: str, norm: str, channels: tuple[int, int], keep: str, place: Place
) -> None:
    net = coloured(arch, norm, *channels)
    run = place.made(net.state_dict(), arch, grey=keep)
    assert_grey(run, net, arch, keep, ins=channels[0])
    assert run.config.in_channels == 1


@pytest.mark.parametrize("arch", ["unet_256", SMALL])
def test_sums_that_float32_rounds(arch: str, place: Place) -> None:
    net = published(arch, "batch", ins=3, outs=3)
    run = place.made(net.double().state_dict(), arch, grey="red")
    x = noise(arch).double()
    with torch.no_grad():
        wanted = net(x.repeat(1, 3, 1, 1))[:, :1]
        assert (run.translator().double().translate(x) - wanted).abs().max() <= 1e-6


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize(("arch", "norm"), [(SMALL, "batch"), ("unet_32", "instance")])
def test_colours_by_all_names(how: str, arch: str, norm: str, place: Place) -> None:
    net = coloured(arch, norm, dropout=True)
    assert_grey(place.made(WRAPPED[how](net.state_dict()), arch, grey="blue"), net, arch, "blue")


@pytest.mark.parametrize("channels", [((3, 3), (3, 3)), ((1, 3), (3, 1)), ((3, 1), (1, 3))])
def test_colours_both_ways(channels: tuple[tuple[int, int], tuple[int, int]], place: Place) -> None:
    there, back = (coloured(SMALL, "instance", *one, seed=seed) for seed, one in enumerate(channels))
    other = place.save(back.state_dict(), "latest_net_G_B.pth")
    run = place.made(there.state_dict(), SMALL, back=other, grey="green")
    assert_grey(run, there, SMALL, "green", to="b", ins=channels[0][0])
    assert_grey(run, back, SMALL, "green", to="a", ins=channels[1][0])


@pytest.mark.parametrize(
    ("channels", "done"),
    [
        ((3, 3), f"{SUMMED}, green is kept of what the net makes"),
        ((3, 1), SUMMED),
        ((1, 3), "green is kept of what the net makes"),
    ],
)
def test_the_card_and_a_line_say_what_became_of_colours(
    channels: tuple[int, int], done: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    told = card(place.made(coloured(SMALL, "batch", *channels).state_dict(), grey="green"))["imported"]["generators"]
    counts = "{} → {} channels".format(*channels)
    assert told["b"]["net"] == f"resnet_6blocks with batch norm, {counts}, width 4"
    assert told["b"]["grey"] == done
    line = capsys.readouterr().err.replace("\n", " ")
    assert f"{counts} became 1 → 1: {done}" in re.sub(r" +", " ", line)


@pytest.mark.parametrize("keep", COLOURS)
@pytest.mark.parametrize(("arch", "norm"), [("unet_32", "batch"), (SMALL, "instance")])
def test_from_a_file_of_colours_to_the_image_in_its_unit(keep: str, arch: str, norm: str, place: Place) -> None:
    """Import, translate a NIfTI file by command: what the net makes of the slices in red, green and blue."""
    net, size = coloured(arch, norm), PATCH[arch]
    place.save(net.state_dict())
    source, made = place.folder / "mr.nii.gz", place.folder / "ct.nii.gz"
    write(tiny_pair(3)[0], source)
    config = place.config(arch)
    done = medgan("import-weights", place.weights, "--config", config, "--grey", keep, "--out", place.run)
    assert (done.code, done.warned) == (0, ())
    assert f"MR to CT, by {arch} with {norm} norm, width 4; evaluation mode" in done.out
    assert medgan("translate", place.run, source, made, "--device", "cpu").code == 0
    volume, prep = read(source), load(place.run / "config.yaml").prep
    x, (rows, columns) = to_network(volume, prep.a), ((size - 24) // 2, (size - 20) // 2)
    padded = torch.full((8, 3, size, size), -1.0)  # the 24×20 of the source in the middle of a window
    window = (slice(rows, rows + 24), slice(columns, columns + 20))
    padded[:, :, *window] = x.movedim(3, 0).repeat(1, 3, 1, 1)
    with torch.no_grad():
        y = net(padded)[:, COLOURS.index(keep), *window]
    wanted = from_network(y.movedim(0, 2)[None], volume, prep.b)
    assert wanted.array.std() > 20
    assert np.abs(read(made).array - wanted.array).max() <= 1e-2  # HU, of a range of 2000 in float32


@pytest.mark.parametrize(
    ("channels", "argv", "says"),
    [
        ((3, 3), [], r"3 → 3 channels, width 4; medgan makes .*: add --grey green if its pictures were grey, .*nc 1$"),
        ((1, 3), [], r"1 → 3 channels, width 4; medgan makes images of one channel: add --grey green if"),
        ((3, 1), [], r"3 → 1 ch.*; set neighbours=1 .*, or add --grey green if it saw one grey picture as red, gr"),
        ((2, 3), [], r"2 → 3 channels, width 4; medgan makes images of one channel: train with --input_nc 1 --output"),
        ((1, 2), [], r"1 → 2 channels, width 4; medgan makes images of one channel: train with --input_nc 1 --output"),
        ((1, 1), ["--grey", "red"], r"1 → 1 channels, width 4; --grey makes one channel of three: leave it out$"),
        ((2, 1), ["--grey", "red"], r"2 → 1 channels, width 4; --grey makes one channel of three: leave it out$"),
        ((6, 3), ["--grey", "red"], r"6 → 3 channels, width 4; --grey makes one channel of three: leave it out$"),
        ((3, 3), ["--grey", "mean"], r"--grey mean: is none of the three channels .* \(accepted: red, green, blue\)$"),
        (
            (3, 3),
            ["--grey", "red", "neighbours=1"],
            r"neighbours: 1 makes 3 channels .*latest_net_G\.pth looks like .* 1 → 1 channels, width 4 by --grey; set",
        ),
    ],
)  # fmt: skip
def test_colours_are_made_grey_where_that_is_said_and_means_something(
    channels: tuple[int, int], argv: list[str], says: str, place: Place
) -> None:
    ins, outs = channels
    place.save(published(ins=ins, outs=outs).state_dict())
    refused(place, *argv, says=says)


# --- what is refused --------------------------------------------------------------------------------------------------


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this ran",)


def changed(**options: Any) -> Callable[[], State]:
    return lambda: dict(published(**options).state_dict())


def without(name: str) -> State:
    return {key: value for key, value in published().state_dict().items() if key != name}


def patchgan(convs: int) -> State:
    widths = [1, 4, 8, 16, 32][:convs]
    pairs = [*pairwise(widths), (widths[-1], 1)]
    return {f"model.{3 * at}.weight": torch.ones(outs, ins, 4, 4) for at, (ins, outs) in enumerate(pairs)}


def affine_instance() -> State:
    state = dict(published().state_dict())
    return state | {"model.2.weight": torch.ones(4), "model.2.bias": torch.ones(4)}


NO_STATE = r"the state dict of a generator is expected, .*latest_net_G\.pth$"
NOT_HELD: dict[str, tuple[Callable[[], object], str]] = {
    "a whole net": (published, rf"holds code \(\S*{__name__}\.ResNet\), and medgan runs none; save the state_dict\(\)"),
    "code": (Code, r"holds code \(\S*print\), and medgan runs none"),
    "code in a dict": (lambda: {"state_dict": published().state_dict(), "x": Code()}, r"holds code \(\S*print\)"),
    "a tensor": (lambda: torch.ones(3), rf"holds a Tensor; {NO_STATE}"),
    "an empty dict": (dict, rf"holds nothing, an empty dict; {NO_STATE}"),
    "an empty inner dict": (lambda: {"state_dict": {}}, r"holds nothing, an empty dict"),
    "no tensors": (lambda: {"epoch": 3, "loss": 0.1}, rf"holds 2 entries \(epoch, loss\), which .*; {NO_STATE}"),
    "two nets": (
        lambda: {"netG_A": published().state_dict(), "netG_B": published().state_dict()},
        r"holds 2 entries \(netG_A, netG_B\), which are not all tensors",
    ),
    "numbers for names": (lambda: {1: torch.ones(2)}, r"holds 1 entries \(1\)"),
    "a net twice": (
        lambda: published().state_dict() | prefixed("module.")(published().state_dict()),
        r"holds tensors twice, with and without",
    ),
    "a discriminator": (lambda: patchgan(5), rf"is a discriminator \(PatchGAN of 5 conv.*, which makes no.*{NO_STATE}"),
    "a pixel discriminator": (
        lambda: {"net.0.weight": torch.ones(4, 2, 1, 1), "net.2.weight": torch.ones(8, 4, 1, 1)},
        r"is a discriminator \(pixel\)",
    ),
    "foreign names": (
        lambda: {"encoder.0.weight": torch.ones(4, 1, 7, 7)},
        rf"'encoder\.0\.weight' is no name of the published nets; {NO_STATE}",
    ),
    "blur kernels": (
        lambda: published().state_dict() | {"model.6.filt": torch.ones(8, 1, 3, 3)},
        r"'model\.6\.filt' is no name of the published nets",
    ),
    "linear layers": (lambda: {"model.0.weight": torch.ones(4, 4)}, r"holds 0 two-dimensional convolutions"),
    "volumes": (lambda: {"model.1.weight": torch.ones(4, 1, 7, 7, 7)}, r"holds 0 two-dimensional convolutions"),
    "other kernels": (
        lambda: {f"model.{at}.weight": torch.ones(4, 4, 3, 3) for at in range(9)} | {"model.0.bias": torch.ones(4)},
        r"looks like no generator .*\(9 convolutions, the first 4×4×3×3, the last 4×4×3×3\)",
    ),
    "zero padding": (
        lambda: ResNet(6, 4, "instance", dropout=False, ins=1, outs=1, padding="zero").state_dict(),
        r"its blocks are padded by zeros; medgan has",
    ),
    "affine instance norm": (affine_instance, r"instance norm with weights of its own; medgan has batch norm, and"),
    "no norm": (
        lambda: {name: value for name, value in published(norm="batch").state_dict().items() if value.ndim == 4},
        r"is of a net with no norm; medgan has batch norm",
    ),
    "another depth": (
        changed(arch="resnet_4blocks"),
        r"looks like resnet_4blocks with instance norm, 1 → 1 channels, width 4; medgan has unet_256, .*resnet_6blocks",
    ),
    "one too many": (
        lambda: published().state_dict() | {"model.99.bias": torch.ones(4)},
        r"looks like resnet_6blocks .*, but model\.99\.bias is one too many \(37 tensors, 36 belong\); copy it anew",
    ),
    "statistics too many": (
        lambda: published(norm="batch").state_dict() | {"model.99.running_mean": torch.ones(4)},
        r"model\.99\.running_mean is one too many",
    ),
    "a bias missing": (
        lambda: without("model.4.bias"),
        r"but model\.7\.weight is 16×8×3×3, and a bias of 8 belongs there \(35 tensors, 36 belong\)",
    ),
    "the last one missing": (lambda: without("model.23.bias"), r"but its last ones are missing \(35 tensors, 36 belo"),
    "a conv missing": (
        lambda: without("model.10.conv_block.1.weight"),
        r"looks like resnet_5blocks with instance norm",
    ),
    "another shape": (
        lambda: published().state_dict() | {"model.4.weight": torch.ones(8, 4, 5, 5)},
        r"but model\.4\.weight is 8×4×5×5, and a weight of 8×4×3×3 belongs there",
    ),
    "statistics missing": (
        lambda: {k: v for k, v in published(norm="batch").state_dict().items() if k != "model.2.running_var"},
        r"but .* belongs there \(",
    ),
    "not finite": (
        lambda: published().state_dict() | {"model.4.bias": torch.full((8,), torch.nan)},
        r"model\.4\.bias holds values that are not finite; name a file of an earlier epoch",
    ),
    "beyond float32": (
        lambda: published().state_dict() | {"model.4.bias": torch.full((8,), 1e300, dtype=torch.float64)},
        r"model\.4\.bias holds values that are not finite",
    ),
    "whole numbers": (
        lambda: published().state_dict() | {"model.4.bias": torch.ones(8, dtype=torch.int8)},
        r"model\.4\.bias is torch\.int8, torch\.strided; weights are dense floating",
    ),
}
NO_FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, r"latest_net_G\.pth: cannot be read \(No such file or directory\); name a file such as latest"),
    "empty": (b"", rf"is cut short, damaged or no file of torch\.save; {NO_STATE}"),
    "text": (b"hello world", r"is cut short, damaged or no"),
    "a pickle": (b"\x80\x04\x8c\x05hello\x94.", r"is cut short, damaged or no|holds a str"),
    "a zip of nothing": (b"PK\x05\x06" + bytes(18), r"is cut short, damaged or no"),
}


def refused(place: Place, *argv: object, says: str) -> None:
    """One line, exit code 1, and the folder as it was."""
    config = place.config() if not (place.folder / "contract.yaml").exists() else place.folder / "contract.yaml"
    before = tree(place.folder)
    done = medgan("import-weights", place.weights, "--config", config, "--out", place.run, *argv)
    assert done.code == 1, done
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("Error: ")
    assert re.search(says, done.err.rstrip()), done.err
    assert (done.out, done.warned) == ("", ())
    assert tree(place.folder) == before


@pytest.mark.parametrize("name", NOT_HELD)
def test_what_is_no_generator_is_told(name: str, place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    make, says = NOT_HELD[name]
    place.save(make())
    refused(place, says=rf"latest_net_G\.pth: .*{says}")
    assert "this ran" not in capfd.readouterr().out


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_of_weights_is_told(name: str, place: Place) -> None:
    content, says = NO_FILES[name]
    if content is not None:
        place.weights.write_bytes(content)
    refused(place, says=says)


def test_a_folder_is_no_file(place: Place) -> None:
    place.weights.mkdir()
    refused(place, says=r"latest_net_G\.pth: cannot be read \(Is a directory\); name a file")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_that_was_cut_short(share: float, legacy: bool, place: Place) -> None:
    content = place.save(published().state_dict(), _use_new_zipfile_serialization=not legacy).read_bytes()
    place.weights.write_bytes(content[: int(len(content) * share)])
    refused(place, says=r"is cut short, damaged or no file of torch\.save")


@given(place_in_file=st.floats(0, 1), content=st.binary(min_size=1, max_size=6), legacy=st.booleans())
@settings(max_examples=60, deadline=None)
def test_damage_anywhere_is_an_input_error_or_none(
    place_in_file: float, content: bytes, legacy: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = Place(tmp_path_factory.mktemp("damage"))
    state = {name: value for name, value in published(width=1).state_dict().items() if value.numel() < 20}
    whole = bytearray(place.save(state, _use_new_zipfile_serialization=not legacy).read_bytes())
    start = int(place_in_file * (len(whole) - len(content)))
    whole[start : start + len(content)] = content
    place.weights.write_bytes(whole)
    with pytest.raises(InputError):  # incomplete anyhow
        import_weights(place.weights, config=place.config(), out=place.run)
    assert not place.run.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"arch": "unet_256"}, r"looks like resnet_6blocks with instance norm, 1 → 1 channels, width 4; name that"),
        ({"arch": "unet"}, r"--arch unet: is no generator of the .* \(accepted: unet_256, unet_128, .*resnet_6blocks"),
    ],
)  # fmt: skip
def test_another_net_than_was_said(options: dict[str, str], says: str, place: Place) -> None:
    place.save(published().state_dict())
    refused(place, *(word for name, value in options.items() for word in (f"--{name}", value)), says=says)


def test_the_example_of_a_wrong_arch(place: Place) -> None:
    place.save(published("unet_128", "batch", ins=3, outs=3).state_dict())
    refused(
        place, "--arch", "unet_256", says=r"looks like unet_128 with batch norm, 3 → 3 channels, width 4; name that"
    )


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("patch=[24, 24, 24]", r"patch: \[24, 24, 24\] is a block, and the net of .* takes slices; make one of its"),
        ("patch=[22, 24, 1]", r"patch: a patch of 22×24 does not fit the net ResNet: .* multiple of 4"),
        (
            "neighbours=1",
            r"neighbours: 1 makes 3 channels of 1 source.*, but .* looks like .*; set neighbours=0 if it saw 0 slices",
        ),
        ("cases=cases.csv", r"cases: has no effect on weights that are trained; accepted: prep, patch, neighbours, ov"),
        ("model.lambda_l1=3", r"model\.lambda_l1: has no effect on weights that are trained"),
        ("train.steps=3", r"train\.steps: has no effect"),
        ("prepp.a=1", r"prepp\.a: has no effect"),
        ("patch", r"patch: an override is key=value"),
        ("prep.b.range=[1, 0]", r"prep\.b: the lower end 1 must be below"),
    ],
)
def test_a_contract_that_does_not_fit(override: str, says: str, place: Place) -> None:
    place.save(published().state_dict())
    refused(place, override, says=says)


@pytest.mark.parametrize(
    ("ins", "says"),
    [(3, r"set neighbours=1 if it saw 1 slices on either side, or add --grey"), (2, r"no number fits$")],
)
def test_several_channels_in_are_neighbours_or_colours(ins: int, says: str, place: Place) -> None:
    place.save(published(ins=ins).state_dict())
    refused(place, says=says)


def test_a_config_is_needed_and_says_what_it_lacks(place: Place) -> None:
    place.save(published().state_dict())
    done = medgan("import-weights", place.weights, "--out", place.run)
    assert (done.code, "Missing option '--config'" in done.error) == (2, True)
    (place.folder / "contract.yaml").write_text("patch: [24, 24, 1]\n")
    refused(place, says=r"prep: missing, and it has no default")
    (place.folder / "contract.yaml").unlink()
    with pytest.raises(InputError, match=r"contract\.yaml: cannot be read"):
        import_weights(place.weights, config=place.folder / "contract.yaml", out=place.run)


def test_two_kinds_of_net_are_no_pair(place: Place) -> None:
    place.save(published().state_dict())
    other = place.save(published("resnet_9blocks").state_dict(), "G_B.pth")
    says = r"latest_net_G\.pth looks like resnet_6blocks .*, .*G_B\.pth looks like resnet_9blocks .*one kind of net"
    refused(place, "--back", other, says=says)


def test_neighbours_there_and_back(place: Place) -> None:
    """Nets of three slices that make three are a run, of which the middle one is kept."""
    nets = {to: published(ins=3, outs=3, seed=number).eval() for number, to in enumerate(("b", "a"))}
    for to, net in nets.items():
        torch.save(net.state_dict(), place.weights.with_name(f"{to}.pth"))
    files = place.weights.with_name("b.pth"), "--back", place.weights.with_name("a.pth")
    done = medgan("import-weights", *files, "neighbours=1", "--config", place.config(), "--out", place.run)
    assert done.code == 0, done.err
    translator = open_run(place.run).translator()
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    for to, net in nets.items():
        with torch.no_grad():
            torch.testing.assert_close(translator.translate(x, to), net(x), rtol=0, atol=3e-5)


def test_without_their_neighbours_slices_have_no_way_back(place: Place) -> None:
    place.save(published(ins=3).state_dict())
    says = r"neighbours: 1 takes nets that turn slices .* 3 → 3 channels, but .* looks like .* 3 → 1 .*one by one"
    refused(place, "neighbours=1", "--back", place.weights, says=says)


def test_a_place_that_is_taken(place: Place) -> None:
    place.made(published().state_dict())
    before = tree(place.run)
    with pytest.raises(OutputError, match=r"run: is a folder with something in it; name a new or empty one"):
        import_weights(place.weights, config=place.config(), out=place.run)
    assert tree(place.run) == before


def test_nothing_is_half_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    place.save(published().state_dict())
    monkeypatch.setattr(Run, "write_card", full)
    refused(place, says=r"run: cannot be written \(No space left on device\); choose")


def test_errors_are_of_the_tree(place: Place) -> None:
    place.save(published().state_dict())
    with pytest.raises(ConfigError):
        import_weights(place.weights, ["patch=[22, 22, 1]"], config=place.config(), out=place.run)
    with pytest.raises(InputError):
        import_weights(place.folder / "none.pth", config=place.config(), out=place.run)


# --- which side is up -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("spacing", ["null", "[2, 2, 5]"])
def test_a_net_of_pictures_gets_slices_as_viewers_show_them(norm: str, spacing: str, place: Place) -> None:
    """Rows to the back, columns to the left; what it makes comes back to its place."""
    net = published("resnet_6blocks", norm)
    run = place.made(net.state_dict(), SMALL, "prep.axes=PLS", f"prep.spacing_mm={spacing}")
    volume, _ = tiny_pair(1)
    prep = run.config.prep
    shown = torch.flip(to_network(volume, prep.a)[0], (0, 1)).transpose(0, 1)
    padded = torch.full((8, 1, 24, 24), -1.0)
    padded[:, 0, 2:22] = shown.movedim(2, 0)
    with torch.no_grad():
        made = net(padded)[:, 0, 2:22].movedim(0, 2)
    wanted = from_network(torch.flip(made.transpose(0, 1), (0, 1))[None], volume, prep.b)
    seen = translate_volume(run, volume)
    assert wanted.array.std() > 20
    np.testing.assert_allclose(seen.array, wanted.array, rtol=0, atol=1e-2)


@pytest.mark.parametrize("axes", ["PL", "PLX", "PPS", "pls", "RLS"])
def test_axes_are_three_sides(axes: str, place: Place) -> None:
    with pytest.raises(ConfigError, match=r"prep: axes are three letters, one of each pair"):
        place.made(published(SMALL, "batch").state_dict(), SMALL, f"prep.axes={axes}")
