"""One step of a game: in parts, with limits, in other precisions."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from medgan.config import Config
from medgan.doctor import gradient_lengths
from medgan.errors import ConfigError
from medgan.learner import USERS, fabric_for, new_game, new_learner, operations_named, save_learner, set_up
from medgan.models import CUTSettings, Pix2pixSettings
from medgan.models.base import Batch, Game
from medgan.play import play
from medgan.run import Run
from medgan.train import train

NETS = {
    "generator": {"name": "resnet_6blocks", "width": 2, "norm": "instance", "dropout": False},
    "discriminator": {"name": "n_layers", "num_layers": 1, "width": 4, "norm": "instance"},
}
MODELS = {
    "pix2pix": {"name": "pix2pix", **NETS},
    "supervised": {"name": "supervised", **NETS},
    "cyclegan": {"name": "cyclegan", **NETS, "pool": 0},
}


def config(model: dict[str, object], **settings: object) -> Config:
    prep = {"a": {"modality": "MR", "times_median": [0, 2]}, "b": {"modality": "CT", "range": [-1000, 1000]}}
    augment = {"gamma": 0, "noise": 0}
    whole = {"cases": "-", "prep": prep, "patch": [16, 16, 1], "augment": augment, "model": model}
    return Config.parse({**whole, "train": settings})


def images(number: int = 4) -> Batch:
    torch.manual_seed(1)
    a, b = torch.rand(2, number, 1, 16, 16) * 2 - 1
    return Batch(a, b)


def masked_images() -> Batch:
    """Patches that hold more and more of a body, and one that holds none."""
    batch = images()
    shares = torch.tensor([0.9, 0.5, 0.1, 0.0]).reshape(4, 1, 1, 1)
    return replace(batch, mask=(torch.rand(4, 1, 16, 16) < shares) * 2.0)


def after(
    settings: Config, steps: int = 3, *, fabric: Fabric | None = None, batch: Batch | None = None
) -> tuple[Game, list[dict[str, Tensor]]]:
    """A game after some steps on one batch, and their losses."""
    fabric = fabric or fabric_for(settings, "cpu")
    game = new_game(settings)
    optimizers = set_up(game, fabric, settings, None)
    parts, losses = (batch or images()).split(settings.train.accumulate), []
    for step in range(steps):
        torch.manual_seed(step)
        losses.append(play(game, parts, optimizers, fabric, clip=settings.train.clip))
    return game, losses


DISTANCES = {"name": "supervised", **NETS, "lambda_ssim": 1.0, "lambda_gradient": 1.0}


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        *[(model, images()) for model in MODELS.values()],
        *[(model, masked_images()) for model in (MODELS["pix2pix"], DISTANCES)],
    ],
    ids=[*MODELS, "pix2pix masked", "distances masked"],
)
def test_parts_of_a_batch_are_the_batch(model: dict[str, object], batch: Batch) -> None:
    """Biases in front of instance norm have no effect, and Adam moves them by rounding errors; losses are float32."""
    whole, wanted = after(config(model, batch=4), fabric=precise(), batch=batch)
    parts, losses = after(config(model, batch=4, accumulate=2), fabric=precise(), batch=batch)
    for one, other in zip(parts.parameters(), whole.parameters(), strict=True):
        if one.ndim > 1:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)
    for seen, right in zip(losses, wanted, strict=True):
        torch.testing.assert_close(seen, right, rtol=1e-5, atol=0)


def precise() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="64-true")


def test_both_players_see_the_same_fakes_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator makes them anew: with the same dropout, and batch norm counts them once."""
    model = {**MODELS["pix2pix"], "generator": {**NETS["generator"], "norm": "batch", "dropout": True}}
    settings = config(model, batch=4, accumulate=2)
    game, seen = new_game(settings), []
    fabric = fabric_for(settings, "cpu")
    optimizers = set_up(game, fabric, settings, None)
    real = game.losses
    monkeypatch.setattr(
        game, "losses", lambda player, batch, fakes: (seen.append(fakes["b"].detach()), real(player, batch, fakes))[1]
    )
    play(game, images().split(2), optimizers, fabric)
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])
    counts = {int(value) for name, value in game.generators.state_dict().items() if name.endswith("tracked")}
    assert counts == {2}


def test_a_gradient_longer_than_the_limit_is_scaled_down() -> None:
    free, _ = after(config(MODELS["pix2pix"], batch=4), steps=1)
    limited, _ = after(config(MODELS["pix2pix"], batch=4, clip=0.5), steps=1)
    wide, _ = after(config(MODELS["pix2pix"], batch=4, clip=1e6), steps=1)
    assert gradient_lengths(free)["generator"] > 1
    assert gradient_lengths(limited)["generator"] == pytest.approx(0.5, rel=1e-4)
    for one, other in zip(wide.parameters(), free.parameters(), strict=True):
        assert torch.equal(one, other)


def test_unequal_parts_are_refused() -> None:
    with pytest.raises(ConfigError, match="accumulate: 3 parts of a batch of 4"):
        config(MODELS["pix2pix"], batch=4, accumulate=3)


def test_float16_is_for_gpus() -> None:
    with pytest.raises(ConfigError, match="fp16 is for GPUs"):
        fabric_for(config(MODELS["pix2pix"], precision="fp16"), "cpu")


def scaled() -> Fabric:
    """Float16 with scaled losses, which `fabric_for` gives on a GPU, on a CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=2)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    fabric.launch()
    return fabric


def test_float16_scales_losses_and_skips_what_overflows(tmp_path: Path) -> None:
    settings, fabric = config(MODELS["pix2pix"], batch=4, precision="fp16", clip=1.0), scaled()
    game, losses = after(settings, steps=6, fabric=fabric)
    assert all(loss.isfinite() for step in losses for loss in step.values())
    assert all(parameter.isfinite().all() for parameter in game.parameters())
    scale = fabric.strategy.precision.state_dict()["scale"]
    assert scale != 2.0**20
    run = Run(tmp_path, settings)
    learner = new_learner(new_game(settings), run, fabric)
    save_learner(run, learner, fabric)
    fresh = scaled()
    new_learner(new_game(settings), run, fresh)
    assert fresh.strategy.precision.state_dict()["scale"] == scale


def test_deterministic_algorithms_are_asked_for_while_wanted() -> None:
    fabric_for(config(MODELS["pix2pix"], deterministic=True), "cpu")
    assert torch.are_deterministic_algorithms_enabled()
    fabric_for(config(MODELS["pix2pix"]), "cpu")
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_deterministic_training(tiny_cohort: Path, tmp_path: Path) -> None:
    run = train(
        tiny_cohort / "tiny.yaml", ["train.deterministic=true", "train.steps=2"], out=tmp_path / "r", device="cpu"
    )
    fabric_for(config(MODELS["pix2pix"]), "cpu")
    assert run.best["step"] == 2


def test_an_operation_that_is_not_deterministic_is_named(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`put_` is one that torch refuses on a CPU too; the same folder takes the other setting afterwards."""
    loop, settings = import_module("medgan.train"), ["train.steps=2", "train.deterministic=true"]
    monkeypatch.setattr(loop, "play", lambda *_, **__: torch.zeros(3).put_(torch.tensor([0]), torch.ones(1)))
    with pytest.raises(
        ConfigError, match=r"^train\.deterministic: torch has no deterministic put_, which .* to false$"
    ):
        train(tiny_cohort / "tiny.yaml", settings, out=tmp_path / "r", device="cpu")
    monkeypatch.undo()
    fabric_for(config(MODELS["pix2pix"]), "cpu")
    assert train(tiny_cohort / "tiny.yaml", settings[:1], out=tmp_path / "r", device="cpu").best["step"] == 2


def refused(operation: str) -> str:
    """What is told of an operation that torch has on a CPU alone."""
    torch_says = f"{operation} does not have a deterministic implementation, but you set 'torch.use_deterministic_"
    with pytest.raises(ConfigError) as error, operations_named():
        raise RuntimeError(torch_says)
    return str(error.value)


def test_what_asks_for_the_operation_is_named() -> None:
    told = refused("reflection_pad2d_backward_out_cuda")
    assert "no deterministic reflection_pad2d_backward_out_cuda" in told
    assert told.endswith("or do without (resnet generators, padding: reflect and antialias pad by reflection)")
    with pytest.raises(RuntimeError, match="out of memory"), operations_named():
        raise RuntimeError("out of memory")


class Operations(TorchDispatchMode):
    """Notes the names of the operations that torch does, also in backward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


UNET = {"name": "unet_32", "width": 2}
JUDGE = NETS["discriminator"]


@pytest.mark.parametrize(
    ("model", "spatial_dims", "parts"),
    [
        ({}, 2, set()),
        ({}, 3, set()),
        ({"lambda_feature": 1.0}, 3, set()),
        ({"generator": NETS["generator"]}, 3, {"reflection_pad"}),
        ({"generator": {**UNET, "padding": "reflect"}}, 2, {"reflection_pad"}),
        ({"discriminator": {**JUDGE, "antialias": True}}, 2, {"reflection_pad"}),
        ({"generator": {**UNET, "upsample": "resize"}}, 3, {"upsample"}),
        ({"generator": {**NETS["generator"], "antialias": True}}, 2, {"reflection_pad", "upsample"}),
        ({"generator": {**UNET, "antialias": True}}, 3, {"reflection_pad", "upsample"}),
        ({"registration": {"width": 2}}, 2, {"grid_sampler", "upsample"}),
        ({"discriminator": {**JUDGE, "scales": 2}}, 3, {"avg_pool3d"}),
        ({"discriminator": {**JUDGE, "scales": 2}}, 2, set()),
    ],
)
def test_operations_are_asked_for_by_what_is_told(model: dict[str, Any], spatial_dims: int, parts: set[str]) -> None:
    settings = Pix2pixSettings.parse({"generator": UNET, "discriminator": JUDGE, **model})
    assert asked_for(settings, [32] * spatial_dims) == parts


def test_so_do_cut_and_residual_u_nets() -> None:
    nets = {"generator": {**NETS["generator"], "antialias": False}, "discriminator": {**JUDGE, "antialias": False}}
    assert asked_for(CUTSettings.parse(nets), [32, 32]) == {"reflection_pad", "nll_loss"}
    deep = Pix2pixSettings.parse({"generator": {"name": "res_unet_32", "width": 2}, "discriminator": JUDGE})
    assert asked_for(deep, [64, 32, 32]) == {"avg_pool3d"}
    assert asked_for(deep, [64, 32]) == set()
    blurred = {"generator": {"name": "res_unet_32", "width": 2, "antialias": True}, "discriminator": JUDGE}
    assert asked_for(Pix2pixSettings.parse(blurred), [64, 32, 32]) == {"reflection_pad", "upsample"}


def asked_for(settings: CUTSettings | Pix2pixSettings, size: list[int]) -> set[str]:
    """Which of the named operations a step of a game does."""
    torch.manual_seed(0)
    game = settings.build(in_channels=1, out_channels=1, spatial_dims=len(size))
    optimizers = {player: torch.optim.SGD(game.nets(player).parameters()) for player in game.order}
    batch = Batch(*(torch.rand(1, 1, *size) for _ in range(2)))
    with Operations() as seen:
        play(game, [batch], optimizers, precise())
    return {part for part in USERS for name in seen.names if part in name}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, g++ is not there")
def test_compiled_nets_train_alike(tiny_cohort: Path, tmp_path: Path) -> None:
    settings = ["train.steps=4", "model.generator.dropout=false"]
    plain = train(tiny_cohort / "tiny.yaml", settings, out=tmp_path / "plain", device="cpu")
    compiled = train(tiny_cohort / "tiny.yaml", [*settings, "train.compile=true"], out=tmp_path / "fast", device="cpu")
    one, other = plain.load_state(), compiled.load_state()
    assert one is not None
    assert other is not None
    for name, value in one["game"].items():
        torch.testing.assert_close(other["game"][name], value, rtol=1e-3, atol=1e-4)
