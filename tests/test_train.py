"""Training: resumes bit for bit, survives kills, stops on divergence, keeps the best."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medgan.config import TrainSettings
from medgan.errors import CasesError, ConfigError, InputError, RunError, TrainingError
from medgan.run import Run, open_run
from medgan.train import StoppedError, train

module = import_module("medgan.train")


def state(run: Path) -> dict[str, object]:
    return torch.load(run / "state.pt", weights_only=True)  # type: ignore[no-any-return]


def assert_same(one: object, other: object) -> None:
    """Equal to the bit, however deep."""
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert torch.equal(one, other)
    elif isinstance(one, list):
        assert isinstance(other, list)
        for x, y in zip(one, other, strict=True):
            assert_same(x, y)
    else:
        assert one == other


@pytest.fixture(scope="module")
def straight(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Ten steps without a break."""
    return train(tiny_cohort / "tiny.yaml", out=tmp_path_factory.mktemp("runs") / "straight", device="cpu")


def test_ten_steps_are_five_a_kill_a_resume_and_five(straight: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    """A kill -9 between steps 7 and 8, after the checkpoint of step 5."""
    code = (
        "import os, signal, sys; from importlib import import_module; t = import_module('medgan.train')\n"
        "real = t._step\n"
        "def step(learner, *rest):\n"
        "    if learner.step == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(learner, *rest)\n"
        "t._step = step\n"
        "import torch; torch.set_num_threads(1)\n"
        "t.train(sys.argv[1], out=sys.argv[2], device='cpu')\n"
    )
    out = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_cohort / "tiny.yaml", out], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert state(out)["step"] == 5
    train(tiny_cohort / "tiny.yaml", out=out, device="cpu")
    assert_same(state(out), state(straight.path))
    assert (out / "weights.safetensors").read_bytes() == straight.weights_path.read_bytes()
    own, other = (
        [{k: v for k, v in line.items() if k not in ("elapsed_s", "data_wait")} for line in run.metrics()]
        for run in (open_run(out), straight)
    )
    assert own == other


@pytest.mark.slow
def test_a_kill_at_any_moment_is_survived(straight: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    """Killed again and again after random times, the run always goes on and ends with the same weights."""
    out, rng = tmp_path / "killed", np.random.default_rng(0)
    command = [sys.executable, "-m", "medgan", "train", str(tiny_cohort / "tiny.yaml"), "train.checkpoint_every=1"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    for _ in range(8):
        process = subprocess.Popen(
            [*command, "--out", str(out), "--device", "cpu"], stderr=subprocess.DEVNULL, env=one_thread
        )
        time.sleep(float(rng.uniform(3, 9)))
        process.kill()
        process.wait()
    subprocess.run([*command, "--out", str(out), "--device", "cpu"], check=True, env=one_thread)
    assert_same(load_file(out / "weights.safetensors"), load_file(straight.weights_path))


def test_a_run_folder_is_whole(straight: Run) -> None:
    names = {path.name for path in straight.path.iterdir()}
    assert names == {"config.yaml", "weights.safetensors", "state.pt", "metrics.jsonl", "card.json", "images", "tb"}
    card = json.loads((straight.path / "card.json").read_text())
    assert card["contract"]["b"] == {"modality": "CT", "unit": "HU", "range": [-1000, 1000], "times_median": None}
    assert card["num_train_patients"] == 3
    assert card["best"] == straight.best
    assert "p0" not in (straight.path / "card.json").read_text()
    assert [line["step"] for line in straight.metrics() if "val" in line] == [5, 10]
    assert [line["step"] for line in straight.metrics() if "loss" in line] == list(range(1, 11))


def test_pictures_say_that_they_are_synthetic(straight: Run) -> None:
    pictures = sorted(straight.images.iterdir())
    assert [path.name for path in pictures] == ["step_0000005.png", "step_0000010.png"]
    assert any("synth" in f"{key} {value}".lower() for key, value in Image.open(pictures[0]).text.items())


def test_weights_hold_the_generator_alone(straight: Run) -> None:
    names = set(load_file(straight.weights_path))
    assert names == set(straight.translator().generators.state_dict())


def test_a_done_run_is_not_done_again(straight: Run, tiny_cohort: Path) -> None:
    before = straight.weights_path.stat().st_mtime_ns
    train(tiny_cohort / "tiny.yaml", out=straight.path, device="cpu")
    assert straight.weights_path.stat().st_mtime_ns == before


def test_another_config_in_the_same_folder_is_refused(straight: Run, tiny_cohort: Path) -> None:
    with pytest.raises(RunError, match=r"train\.lr \(0\.001 there, 0\.01 now\)"):
        train(tiny_cohort / "tiny.yaml", ["train.lr=0.01"], out=straight.path, device="cpu")


def test_a_run_of_another_version_is_refused(straight: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    card = json.loads((straight.path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(card | {"format": 99}))
    (tmp_path / "config.yaml").write_text((straight.path / "config.yaml").read_text())
    with pytest.raises(RunError, match="format 99"):
        open_run(tmp_path)


def test_a_damaged_checkpoint_is_named(tiny_cohort: Path, straight: Run, tmp_path: Path) -> None:
    out = tmp_path / "damaged"
    out.mkdir()
    for name in ("config.yaml", "card.json"):
        (out / name).write_bytes((straight.path / name).read_bytes())
    (out / "state.pt").write_bytes(straight.state_path.read_bytes()[:2000])
    with pytest.raises(RunError, match=r"state\.pt: is damaged"):
        train(tiny_cohort / "tiny.yaml", out=out, device="cpu")


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e9])
def test_diverging_losses_stop_the_run_with_the_checkpoint_intact(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: float
) -> None:
    real = module.play

    def play(game: object, parts: object, optimizers: object, fabric: object, *, clip: float) -> dict[str, object]:
        play.calls += 1  # type: ignore[attr-defined]
        losses = real(game, parts, optimizers, fabric, clip=clip)
        return losses if play.calls < 7 else {**losses, "G_L1": torch.tensor(poison)}  # type: ignore[attr-defined]

    play.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "play", play)
    with pytest.raises(TrainingError, match=r"diverged by step 7 \(G_L1 "):
        train(tiny_cohort / "tiny.yaml", out=tmp_path / "run", device="cpu")
    assert state(tmp_path / "run")["step"] == 5


def test_an_interrupt_saves_the_step_and_the_same_command_goes_on(
    straight: Run, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._step

    def step(learner: object, *rest: object) -> object:
        if learner.step == 3:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGINT)
        return real(learner, *rest)

    monkeypatch.setattr(module, "_step", step)
    with pytest.raises(StoppedError, match="step 4 of 10"):
        train(tiny_cohort / "tiny.yaml", out=tmp_path / "run", device="cpu")
    assert state(tmp_path / "run")["step"] == 4
    monkeypatch.undo()
    train(tiny_cohort / "tiny.yaml", out=tmp_path / "run", device="cpu")
    assert_same(state(tmp_path / "run"), state(straight.path))


def test_bf16_channels_last_and_3d_train(tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = ["patch=[8, 8, 8]", "train.precision=bf16", "train.channels_last=true", "train.steps=2"]
    run = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    assert run.config.spatial_dims == 3
    assert np.isfinite(run.best["mae"])


def test_a_patch_that_the_nets_cannot_take_is_refused(tiny_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="18×16"):
        train(tiny_cohort / "tiny.yaml", ["patch=[18, 16, 1]"], out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_table_without_validation_is_refused(tiny_cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text((tiny_cohort / "cases.csv").read_text().replace(",val,", ",test,"))
    for path in tiny_cohort.glob("*.nii.gz"):
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(CasesError, match="split val"):
        train(tiny_cohort / "tiny.yaml", [f"cases={tmp_path / 'cases.csv'}"], out=tmp_path / "run", device="cpu")


def copy_of_cohort(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_project_may_move_but_its_table_may_not_change(straight: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    moved = copy_of_cohort(tiny_cohort, tmp_path / "moved")
    train(moved / "tiny.yaml", out=straight.path, device="cpu")
    table = (moved / "cases.csv").read_text()
    (moved / "cases.csv").write_text(table.replace("p2,p2,train", "p2,p2,test"))
    with pytest.raises(RunError, match="has changed since"):
        train(moved / "tiny.yaml", out=straight.path, device="cpu")


def test_the_journal_says_how_long_the_training_waited_for_data(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patches that take ten times as long as a step are most of the time."""
    real, asked = module.Patches.__getitem__, []

    def slowly(self: object, index: int) -> object:
        asked.append(index)
        time.sleep(0.2 if len(asked) <= 8 else 0)  # 4 batches of 2; validations ask for more
        return real(self, index)

    quick = train(tiny_cohort / "tiny.yaml", ["train.steps=4"], out=tmp_path / "quick", device="cpu")
    monkeypatch.setattr(module.Patches, "__getitem__", slowly)
    slow = train(tiny_cohort / "tiny.yaml", ["train.steps=4"], out=tmp_path / "slow", device="cpu")
    waits = {run.path.name: [line["data_wait"] for line in run.metrics() if "loss" in line] for run in (quick, slow)}
    assert all(0 <= wait <= 1 for wait in waits["quick"])
    assert min(waits["slow"]) > 0.5
    assert max(waits["slow"]) <= 1


def paces(**settings: object) -> list[float]:
    return [module._pace(step, TrainSettings.parse({"steps": 8, **settings})) for step in range(8)]


def test_the_learning_rate_falls_as_told() -> None:
    assert paces() == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert paces(decay="cosine", decay_from=0) == pytest.approx([(1 + np.cos(np.pi * k / 8)) / 2 for k in range(8)])
    assert paces(decay="step", decay_from=0.25) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert paces(decay_from=1, warmup=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    with pytest.raises(ConfigError, match="decay_from: 0 would be a step without end"):
        paces(decay="step", decay_from=0)


def test_the_learning_rate_is_that_of_torch_s_schedulers() -> None:
    """The reference's linear and cosine policies, stepped by torch itself."""
    steps, parameter = 8, torch.nn.Parameter(torch.zeros(1))
    optimizers = [torch.optim.SGD([parameter], lr=1.0) for _ in range(2)]
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(optimizers[0], lambda step: 1 - max(0, step - 4) / (steps - 4)),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[1], T_max=steps, eta_min=0),
    ]
    seen: list[list[float]] = [[], []]
    for _ in range(steps):
        for rates, optimizer, scheduler in zip(seen, optimizers, schedulers, strict=True):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    assert paces() == pytest.approx(seen[0])
    assert paces(decay="cosine", decay_from=0) == pytest.approx(seen[1])
