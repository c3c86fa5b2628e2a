"""What memory holds: of a volume that is translated, and of the patches that go through nets between two steps."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import medgan
from test_models import small_batch, small_game
from torch import Tensor, nn

from medgan import learner, validate
from medgan.config import Config, load
from medgan.doctor import examine
from medgan.errors import TrainingError
from medgan.models import CUTSettings, CycleGANSettings, Kind, Pix2pixSettings, WGANSettings, build_sampler
from medgan.models.base import Batch
from medgan.nets import Net
from medgan.processes import Place
from medgan.validate import at_once, restate

ROOT = Path(__file__).parents[1]
TRAIN = importlib.import_module("medgan.train")
# What each mode of translating holds at most beyond the scan, in images of float32 as large as the scan: 6.8 of a CT of
# 512 × 512 × 600 are 4 GiB.
MOST = {"flips": 6.2, "cycle": 6, "coarser-samples": 6.2}


def test_a_translation_holds_a_few_images() -> None:
    """Scaled down, but not so far that what is allocated comes out of what was free."""
    command = [sys.executable, "tools/bench/large_volume.py", "--size", "256", "256", "200", "--modes", *MOST]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=True)
    held = {row.split()[0]: float(row.split()[2]) for row in done.stdout.splitlines()[1:]}
    assert held.keys() == MOST.keys()
    assert {mode: images for mode, images in held.items() if images > MOST[mode]} == {}


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


# --- between two steps ------------------------------------------------------------------------------------------------


def test_a_large_patch_goes_alone_and_small_ones_together(tiny_cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chunk(patch: str, batch: int, accumulate: int = 1) -> int:
        settings = [f"patch={patch}", f"train.batch={batch}", f"train.accumulate={accumulate}"]
        return at_once(load(tiny_cohort / "tiny.yaml", settings))

    assert [chunk(patch, 1) for patch in ("[16, 16, 1]", "[256, 256, 1]", "[512, 512, 1]")] == [8, 8, 2]
    assert [chunk(patch, 1) for patch in ("[64, 64, 64]", "[96, 96, 96]", "[128, 128, 64]")] == [2, 1, 1]
    assert [chunk("[96, 96, 96]", 4, accumulate) for accumulate in (1, 2, 4)] == [4, 2, 1]
    assert chunk("[256, 256, 1]", 16) == 16
    monkeypatch.setattr(validate, "place", lambda: Place(rank=1, count=2))
    assert chunk("[96, 96, 96]", 4, 2) == 1


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The most samples that a net has seen together since last asked."""
    seen: list[int] = []

    def note(_net: nn.Module, given: tuple[Any, ...]) -> None:
        seen.append(len(given[0]))

    def most() -> int:
        found = max(seen)
        seen.clear()
        return found

    init = Net.__init__

    def hooked(self: Net, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        self.register_forward_pre_hook(note)

    monkeypatch.setattr(Net, "__init__", hooked)
    return most


@pytest.mark.parametrize("settings", [["train.batch=1"], ["train.batch=4", "train.accumulate=2"]])
def test_no_more_patches_go_together_than_in_a_step(
    settings: list[str],
    widths: Callable[[], int],
    tiny_cohort: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of patches that count as large: in a step, while statistics are taken, in a validation and in a check-up."""
    most: dict[str, int] = {}

    def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **options: Any) -> Any:
            made = work(*args, **options)
            most[name] = widths()
            return made

        return done

    monkeypatch.setattr(validate, "SMALL", 0)
    for name in ("_step", "restate", "_check_up"):
        monkeypatch.setattr(TRAIN, name, watched(name, getattr(TRAIN, name)))
    lesson = importlib.import_module("medgan.lesson")
    monkeypatch.setattr(lesson, "translate_scan", watched("translate_scan", lesson.translate_scan))
    overrides = ["patch=[16, 16, 8]", "train.steps=1", *settings]
    TRAIN.train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    assert most == dict.fromkeys(("_step", "restate", "translate_scan", "_check_up"), most["_step"])


@pytest.mark.parametrize("settings", [Pix2pixSettings, CycleGANSettings, CUTSettings])
@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_a_check_up_in_parts_tells_the_same(settings: type[Any], at_once: int) -> None:
    nets = {"generator": {"name": "resnet_6blocks", "width": 2, "norm": "instance", "dropout": False}}
    judge = {"discriminator": {"name": "n_layers", "num_layers": 1, "width": 4, "norm": "instance"}}
    game, batch = small_game(settings, **nets, **judge), small_batch(samples=6)
    whole = examine(game, batch, batch)
    assert examine(game, batch, batch, at_once=at_once) == pytest.approx(whole, rel=1e-4, abs=1e-5)


def test_a_critic_is_centred_over_all_parts() -> None:
    """Whose middle is anywhere: that of a part would be another one."""
    kind = Kind(channels=1, size=(32, 32))
    game, batch = build_sampler(WGANSettings(width=2, width_d=2), kind), Batch(b=small_batch(samples=6).b)
    game.generate = lambda part: {"b": part.images() * 0.5 - 0.2}  # type: ignore[method-assign]
    whole = examine(game.eval(), batch, batch)
    assert whole["logit_real_b"] == pytest.approx(-whole["logit_fake_b"])
    assert examine(game, batch, batch, at_once=2) == pytest.approx(whole, rel=1e-4, abs=1e-5)


def test_parts_are_equal_and_as_few_as_may_be() -> None:
    batch = small_batch(samples=8)
    sizes = [[len(part.images()) for part in batch.parts(most)] for most in (None, 8, 7, 3, 1)]
    assert sizes == [[8], [8], [4, 4], [2, 2, 2, 2], [1] * 8]


# --- statistics of batch norms ----------------------------------------------------------------------------------------


class Normed(nn.Module):
    """A game of a single batch norm, which sees the images as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def generate(self, batch: Batch) -> dict[str, Tensor]:
        return {"b": self.norm(batch.images())}


@pytest.mark.parametrize("at_once", [None, 4, 2, 1])
def test_statistics_in_parts_are_those_of_the_batch(at_once: int | None) -> None:
    """Also of single samples, which differ more from one another than inside."""
    torch.manual_seed(0)
    batches = [torch.randn(4, 2, 32, 32) + 3 * torch.randn(4, 2, 1, 1) for _ in range(3)]
    game = Normed()
    restate(game, [Batch(b=batch) for batch in batches], at_once=at_once)  # type: ignore[arg-type]
    mean, variance = (torch.stack([how(batch, dim=(0, 2, 3)) for batch in batches]) for how in (torch.mean, torch.var))
    torch.testing.assert_close(game.norm.running_mean, mean.mean(0))
    torch.testing.assert_close(game.norm.running_var, variance.mean(0), rtol=2e-3, atol=0)
    assert (game.norm.training, game.norm.momentum) == (False, 0.1)


# --- too little of it -------------------------------------------------------------------------------------------------

CPU_SAYS = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 9 GiB"


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("new_learner", torch.OutOfMemoryError("CUDA")),
        ("_step", MemoryError()),
        ("_validate", RuntimeError(CPU_SAYS)),
    ],
)
def test_a_training_without_memory_says_what_to_lower(
    where: str, error: Exception, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starve(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(TRAIN, where, starve)
    done = medgan("train", tiny_cohort / "tiny.yaml", "--out", tmp_path / "run", "--device", "cpu")
    assert done.code == 1
    assert re.search(
        r"cpu has too little memory for 2 patches of 16×16×1 at once; raise train.accumulate, set "
        r"model.generator.recompute, lower train.batch, patch or the width of the nets$",
        done.error,
    )


def test_only_what_helps_is_told(tiny_cohort: Path) -> None:
    recomputed = ["train.batch=2", "train.accumulate=2", "model.generator.recompute=true"]
    unet = ["train.batch=1", "patch=[32, 32, 1]", "model.generator.name=unet_32"]
    for overrides in (recomputed, unet):
        config = load(tiny_cohort / "tiny.yaml", overrides)
        assert isinstance(config, Config)
        with (
            pytest.raises(TrainingError, match="at once; lower patch or the width of the nets"),
            learner.memory_told(config, torch.device("cpu")),
        ):
            raise MemoryError


def test_other_errors_pass(tiny_cohort: Path) -> None:
    config = load(tiny_cohort / "tiny.yaml")
    with pytest.raises(RuntimeError, match="shape"), learner.memory_told(config, torch.device("cpu")):
        raise RuntimeError("shape")
