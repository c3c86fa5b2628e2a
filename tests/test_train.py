"""Training: resumes bit for bit, survives kills, stops on divergence, keeps the best."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from resuming import assert_same, killed_and_whole, state
from safetensors.torch import load_file

from medgan.cases import Case, read_cases, write_cases
from medgan.config import TrainSettings, load
from medgan.errors import CasesError, ConfigError, InputError, RunError, TrainingError
from medgan.run import Run, open_run, plan_run
from medgan.train import StoppedError, train

module, lesson = import_module("medgan.train"), import_module("medgan.lesson")


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


def test_the_journal_goes_on_as_if_nothing_had_been(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a checkpoint lies between two lines; the time counts on."""
    real, overrides = module._step, ["train.log_every=4"]
    whole = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "whole", device="cpu")

    def step(learner: Any, *rest: Any) -> Any:
        if learner.step == 7:
            raise KeyboardInterrupt
        return real(learner, *rest)

    monkeypatch.setattr(module, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "resumed", device="cpu")
    monkeypatch.setattr(module, "_step", real)
    resumed = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "resumed", device="cpu")
    losses = [{line["step"]: line["loss"] for line in run.metrics() if "loss" in line} for run in (whole, resumed)]
    assert losses[0] == losses[1]
    assert list(losses[0]) == [4, 5, 8, 10]
    times = [line["elapsed_s"] for line in resumed.metrics() if "loss" in line]
    assert times == sorted(times)


def test_pauses_are_not_time_that_batches_were_waited_for(straight: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = SimpleNamespace(now=0.0), SimpleNamespace(waited_s=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    window = module._Window(straight, stream)
    clock.now, stream.waited_s = 4.0, 1.0
    with window.paused():
        clock.now = 100.0
    assert window.data_wait == 0.25


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

    def play(game: object, parts: object, optimizers: object, fabric: object, **how: object) -> dict[str, object]:
        play.calls += 1  # type: ignore[attr-defined]
        losses = real(game, parts, optimizers, fabric, **how)
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
    real, asked = lesson.Patches.__getitem__, []

    def slowly(self: object, index: int) -> object:
        asked.append(index)
        time.sleep(0.2 if len(asked) <= 8 else 0)  # 4 batches of 2; validations ask for more
        return real(self, index)

    quick = train(tiny_cohort / "tiny.yaml", ["train.steps=4"], out=tmp_path / "quick", device="cpu")
    monkeypatch.setattr(lesson.Patches, "__getitem__", slowly)
    slow = train(tiny_cohort / "tiny.yaml", ["train.steps=4"], out=tmp_path / "slow", device="cpu")
    waits = {run.path.name: [line["data_wait"] for line in run.metrics() if "loss" in line] for run in (quick, slow)}
    assert all(0 <= wait <= 1 for wait in waits["quick"])
    assert min(waits["slow"]) > 0.5
    assert max(waits["slow"]) <= 1


def paces(**settings: object) -> list[float]:
    return [module._pace(step, TrainSettings.parse({"steps": 8, **settings}), {}) for step in range(8)]


def test_the_learning_rate_falls_as_told() -> None:
    assert paces() == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert paces(decay="cosine", decay_from=0) == pytest.approx([(1 + np.cos(np.pi * k / 8)) / 2 for k in range(8)])
    assert paces(decay="step", decay_from=0.25) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert paces(decay_from=1, warmup=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    with pytest.raises(ConfigError, match="decay_from: 0 would be a step without end"):
        paces(decay="step", decay_from=0)


@pytest.mark.parametrize(("stepped", "most"), [("after an epoch", 1 / 101), ("before an epoch", 2 / 101)])
def test_the_linear_decay_is_that_of_the_reference_but_for_its_stairs(stepped: str, most: float) -> None:
    """There the rate is held for an epoch; its versions differ in when they step. 100 epochs, and 100 to decay."""
    each, steps = 7, 200 * 7
    told = TrainSettings.parse({"steps": steps})
    epochs = [1 + step // each - (stepped == "after an epoch") for step in range(steps)]
    stairs = [1 - max(0, epoch + 1 - 100) / 101 for epoch in epochs]
    apart = [abs(module._pace(step, told, {}) - stair) for step, stair in enumerate(stairs)]
    assert max(apart) == pytest.approx(most)


def test_the_learning_rate_is_that_of_torch_s_schedulers() -> None:
    """Linear and cosine, stepped by torch itself at every step."""
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


def test_the_journal_tells_the_learning_rate(straight: Run) -> None:
    """Of the step that was just done: 0.001, from the sixth step on down by a fifth of it a step."""
    told = [line["lr"] for line in straight.metrics() if "lr" in line]
    assert [rate["generator"] for rate in told] == pytest.approx([0.001] * 6 + [0.0008, 0.0006, 0.0004, 0.0002])
    assert all(rate["discriminator"] == rate["generator"] for rate in told)


# --- plateaus ---------------------------------------------------------------------------------------------------------


def pace_after(maes: list[float | None], *, every: int = 10, **settings: object) -> float:
    """The share of the learning rate in the step after so many validations."""
    told = TrainSettings.parse({"decay": "plateau", "steps": 10_000, "validate_every": every, **settings})
    return float(module._pace(every * len(maes), told, {every * (n + 1): {"mae": mae} for n, mae in enumerate(maes)}))


@pytest.mark.parametrize(("slope", "least", "most"), [(0, 4, 10), (0.003, 1, 9), (0.01, 0, 5), (0.05, 0, 0)])
@pytest.mark.parametrize("seed", range(5))
def test_plateaus_are_those_of_torch(slope: float, least: int, most: int, seed: int) -> None:
    """With what the reference implementation gives to torch's scheduler, stepped by errors that fall by chance."""
    rng = np.random.default_rng(seed)
    errors = 50 * np.exp(-slope * np.arange(60)) * rng.uniform(0.97, 1.03, 60)
    errors[rng.integers(1, 60, 3)] = np.nan
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, threshold=0.01, patience=5)
    maes: list[float | None] = []
    for error in errors:
        scheduler.step(error)
        maes.append(None if np.isnan(error) else float(error))
        assert pace_after(maes) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert least <= round(np.log(pace_after(maes)) / np.log(0.2)) <= most


def test_the_rate_falls_when_six_validations_have_been_no_better() -> None:
    assert pace_after([]) == 1
    assert pace_after([9.0] * 6) == 1
    assert pace_after([9.0] * 7) == 0.2
    assert pace_after([9.0] * 7 + [1.0] + [9.0] * 5) == 0.2
    assert pace_after([9.0] * 13) == 0.04
    assert pace_after([100 - 0.1 * n for n in range(7)]) == 0.2  # 0.1 % better each time is no better
    assert pace_after([100 - 1.1 * n for n in range(50)]) == 1


def test_validations_in_the_warmup_do_not_count() -> None:
    """There the rate still rises, to where it may fall from."""
    assert pace_after([9.0] * 9, warmup=100) == pytest.approx(0.91)
    assert pace_after([9.0] * 11, warmup=60) == 1  # those at steps 60, 70, ..., 110 count: one and five no better
    assert pace_after([9.0] * 12, warmup=60) == 0.2
    assert pace_after([1.0, *[9.0] * 4, *[8.0] * 6], warmup=60) == 1  # nothing is compared with what came before


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"decay_from": 0.6}, "decay_from: a plateau begins when validation gets no better"),
        ({"steps": 7000}, "validate_every: 1000 leaves 6 validations between the warmup and the last step"),
        ({"steps": 100}, "leaves 0 validations"),
        ({"steps": 7001, "warmup": 1001}, "leaves 6 validations .* not seen in less than 7; lower it"),
    ],
)
def test_a_plateau_that_cannot_be_is_refused(settings: dict[str, object], told: str) -> None:
    TrainSettings.parse({"decay": "plateau", "steps": 7001, "warmup": 1000})
    with pytest.raises(ConfigError, match=told):
        TrainSettings.parse({"decay": "plateau", **settings})


def without_b(cohort: Path, folder: Path, *splits: str) -> Path:
    """The table of the cohort, with the source alone in some splits."""
    cases = [
        Case(case.name, case.patient, case.split, {"a": case.images["a"]} if case.split in splits else case.images)
        for case in read_cases(cohort / "cases.csv")
    ]
    return write_cases(cases, folder / "cases.csv")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("decay=plateau", r"train\.decay: plateau: goes by the validation error, and no case .* val in"),
        ("patience=3", r"train\.patience: goes by validation, and no case .* val in .* has an image b to compare with"),
    ],
)
def test_what_goes_by_validation_needs_something_to_validate_on(
    setting: str, says: str, tiny_cohort: Path, tmp_path: Path
) -> None:
    table = without_b(tiny_cohort, tmp_path, "val")
    game = "{name: cyclegan, generator: {name: resnet_6blocks, width: 2}, discriminator: {width: 2}}"
    overrides = [f"model={game}", "augment.gamma=0", "augment.noise=0", f"cases={table}", f"train.{setting}"]
    with pytest.raises(ConfigError, match=says):
        train(tiny_cohort / "tiny.yaml", [*overrides, *PLATEAU[1:]], out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_when_it_validates_is_part_of_a_training_by_plateaus(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesson, "score", lambda *_: {"mae": 50.0})
    for number, (decay, refused) in enumerate([("linear", False), ("plateau", True)]):
        overrides = [*PLATEAU[1:], f"train.decay={decay}", "train.patience=1"]  # which ends it soon
        run = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / str(number), device="cpu")
        with pytest.raises(RunError, match=r"validate_every \(2 there, 1 now\)") if refused else nullcontext():
            plan_run(run.path, load(tiny_cohort / "tiny.yaml", [*overrides, "train.validate_every=1"]))


PLATEAU = ["train.decay=plateau", "train.validate_every=2", "train.steps=17", "train.checkpoint_every=5"]


def test_a_plateau_is_remembered_by_a_run_that_goes_on(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between validations, once before the rate falls (after 7 validations, at step 14) and once after it."""
    monkeypatch.setattr(lesson, "score", lambda *_: {"mae": 50.0})
    monkeypatch.setattr(module, "_check_up", lambda *_: None)  # takes time and changes nothing
    runs = killed_and_whole(tiny_cohort / "tiny.yaml", PLATEAU, tmp_path, kills=[13, 17])
    for run in runs:
        rates = [line["lr"]["generator"] for line in run.metrics() if "lr" in line]
        assert rates == pytest.approx([0.001] * 14 + [0.0002] * 3)
        assert state(run.path)["exams"] == {key: {"mae": 50.0} for key in [*range(2, 17, 2), 17]}
