"""The doctor: right numbers, an alarm for each thing that goes wrong, and none without cause."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from test_models import new_adams, small_batch, small_game, step
from torch import Tensor, nn

from medgan.doctor import alarms, examine, gradient_lengths, spells
from medgan.models import CycleGANSettings, Pix2pixSettings
from medgan.models.base import Batch, Translator
from medgan.train import train

HEALTHY = {
    "right_real_b": 0.7,
    "right_fake_b": 0.6,
    "logit_real_b": 0.3,
    "logit_fake_b": -0.2,
    "logit_held_out_b": 0.25,
    "logit_held_out_fake_b": -0.15,
    "variety_b": 0.9,
    "spread_b": 0.9,
    "right_held_out_b": 0.7,
}
LOSSES = {"G_GAN": 1.0, "G_L1": 9.0, "D_fake": 0.3, "D_real": 0.3}


def lines(*vitals: dict[str, float], grad: float = 1.0, **losses: float) -> list[dict[str, Any]]:
    lengths = [1.0] * 15 + [grad] * 5
    logged = [{"step": n, "loss": LOSSES | losses, "grad": {"generator": x}} for n, x in enumerate(lengths, start=1)]
    return [*logged, *({"step": n, "vitals": HEALTHY | one} for n, one in enumerate(vitals or [{}], start=21))]


def names(found: list[dict[str, Any]]) -> list[str]:
    return [alarm.name for alarm in alarms(found)]


WON = {"right_real_b": 0.99, "right_fake_b": 1.0}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lines(WON, WON), ["the discriminator of b has won"]),
        (lines({"variety_b": 0.1}), ["the fakes of b are all alike"]),
        (
            lines({"right_real_b": 0.9, "right_fake_b": 0.8, "logit_real_b": 2.0, "logit_held_out_b": 0.1}),
            ["the discriminator of b knows the training images by heart"],
        ),
        (lines(grad=1e-4), ["the generator's gradient vanishes"]),
        (lines(G_GAN=0.01), ["the discriminator has no say"]),
    ],
)
def test_each_illness_has_an_alarm_of_its_own(found: list[dict[str, Any]], expected: list[str]) -> None:
    assert names(found) == expected
    (alarm,) = alarms(found)
    assert alarm.reason in str(alarm)
    assert alarm.remedy in str(alarm)


@pytest.mark.parametrize(
    "found",
    [
        [],
        lines(),
        lines(WON, {}),
        lines({}, WON),
        lines(WON, {"right_fake_b": 0.9, "right_real_b": 1.0}),
        lines({"variety_b": 0.4}),
        lines({"logit_held_out_b": 0.1}),
        lines({"right_real_b": 0.9, "right_fake_b": 0.7, "logit_real_b": 2.0, "logit_held_out_b": 0.1}),
        lines({"right_real_b": 0.3, "right_fake_b": 0.8, "logit_real_b": -0.03, "logit_held_out_b": -0.08}),
        lines(grad=0.05),
        lines(G_GAN=0.2),
        lines(G_GAN=1.0, G_L1=0.0),
        [{"step": 1, "loss": {"G_L1": 3.0}, "grad": {"generator": 0.0}}],
    ],
)
def test_there_is_none_without_cause(found: list[dict[str, Any]]) -> None:
    assert names(found) == []


def a_training(lengths: Sequence[float], player: str = "generator") -> list[dict[str, Any]]:
    """A line every 20 steps with the length of a gradient, a check-up every 1,000."""
    found: list[dict[str, Any]] = []
    for number, length in enumerate(lengths, start=1):
        found.append({"step": 20 * number, "grad": {player: length}})
        found += [{"step": 20 * number, "vitals": HEALTHY}] if number % 50 == 0 else []
    return found


def healthy(count: int = 500) -> list[float]:
    """Gradients scatter, and become shorter as a game settles: here to a tenth."""
    rng = np.random.default_rng(0)
    return [float(x) for x in np.geomspace(100, 10, count) * rng.lognormal(0, 0.5, count)]


judged = pytest.mark.parametrize(  # of samplers that of the generator alone
    ("player", "samples"), [("generator", False), ("discriminator", False), ("generator", True)]
)


@judged
@pytest.mark.parametrize(
    ("since", "factor"), [(0, 0), (60, 1e-4), (300, 1e-4), (400, 0), (900, 1e-4), (3100, 1e-4), (9000, 1e-4)]
)
def test_a_gradient_that_is_gone_is_told_until_the_end(since: int, factor: float, player: str, samples: bool) -> None:
    lengths = [length * (factor if n * 20 > since else 1) for n, length in enumerate(healthy(), start=1)]
    found = spells(a_training(lengths, player), samples=samples)
    told = [(spell.alarm.name, spell.since, spell.until) for spell in found if "gradient" in spell.alarm.name]
    first_check = since // 1000 * 1000 + 1000
    assert told == [(f"the {player}'s gradient vanishes", first_check, None)]


@judged
@pytest.mark.parametrize(
    "lengths",
    [
        healthy(),
        [*healthy(499), 0.01],
        [*healthy(498), 0.01, 0.0],
        [math.inf, *healthy(499)],  # the scale of fp16 has to settle first
        [*healthy(498), math.nan, math.nan],
        [*healthy(10)],
    ],
    ids=["scatters", "one line", "two lines", "begins without end", "ends without number", "short"],
)
def test_a_gradient_that_is_there_is_no_cause(lengths: list[float], player: str, samples: bool) -> None:
    found = [alarm.name for alarm in alarms(a_training(lengths, player), samples=samples)]
    assert not any("gradient" in name for name in found)


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_one_freak_is_no_beginning(player: str) -> None:
    """A discriminator's first ten gradients were seen to be one of 42 among some of 4, and to be of 1 in the end."""
    assert alarms(a_training([1.0, 3.0, 500.0, *healthy(500)[-490:]], player)) == []


def test_a_gradient_that_comes_back_ends_its_alarm() -> None:
    lengths = [length * (1e-4 if 3000 < n * 20 <= 6000 else 1) for n, length in enumerate(healthy(), start=1)]
    (spell,) = spells(a_training(lengths))
    assert (spell.since, spell.until) == (4000, 7000)


def test_domains_are_told_apart() -> None:
    sick = {name.replace("_b", "_a"): value for name, value in (HEALTHY | WON).items()}
    assert names(lines(sick, sick)) == ["the discriminator of a has won"]


class Told(nn.Module):
    """A discriminator that says for each sample what it is told."""

    def __init__(self, *verdicts: float) -> None:
        super().__init__()
        self.verdicts = list(verdicts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 1, 2, 2), self.verdicts.pop(0))


def test_the_numbers_are_what_they_say() -> None:
    game, batch = small_game(Pix2pixSettings), small_batch()
    game.discriminators["b"] = Told(2.0, -1.0, 0.5, 3.0)
    seen = examine(game, batch, batch)
    assert seen["logit_real_b"] == 2
    assert seen["logit_fake_b"] == -1
    assert (seen["logit_held_out_b"], seen["logit_held_out_fake_b"]) == (0.5, 3)
    assert (seen["right_real_b"], seen["right_fake_b"]) == (1, 1)
    with torch.no_grad():
        fake = game.generate(batch)["b"]
    assert batch.b is not None
    assert seen["variety_b"] == pytest.approx(float(fake.std(0).mean() / batch.b.std(0).mean()), rel=1e-5)


def test_least_squares_are_parted_in_the_middle() -> None:
    """Labels 0 and 1: what scores 0.4 is taken for a fake."""
    game = small_game(Pix2pixSettings, gan="lsgan")
    game.discriminators["b"] = Told(0.4, 0.4)
    seen = examine(game, small_batch())
    assert (seen["right_real_b"], seen["right_fake_b"]) == (0, 1)
    assert seen["logit_real_b"] == pytest.approx(-0.1)
    assert "logit_held_out_b" not in seen


@pytest.mark.parametrize("there", ["a", "b"])
def test_of_one_domain_held_out_nothing_is_said_of_the_other(there: Literal["a", "b"]) -> None:
    """What it lacks is stood in for by training images, real or as the source of fakes."""
    game, batch = small_game(CycleGANSettings), small_batch()
    assert batch.a is not None
    assert batch.b is not None
    other = Batch(-batch.a, batch.b / 2)
    held_out = Batch(a=other.a) if there == "a" else Batch(b=other.b)
    seen = examine(game, batch, held_out)
    all_seen = examine(game, batch, other)
    made = "b" if there == "a" else "a"
    told = {f"right_held_out_{there}", f"logit_held_out_{there}", f"logit_held_out_fake_{made}"}
    assert {name for name in seen if "held_out" in name} == told
    assert {name: seen[name] for name in told} == pytest.approx({name: all_seen[name] for name in told}, rel=1e-5)


@pytest.mark.parametrize("settings", [Pix2pixSettings, CycleGANSettings])
def test_examining_changes_nothing(settings: type[Any]) -> None:
    game, batch = small_game(settings), small_batch()
    step(game, batch, new_adams(game))
    before = {name: tensor.clone() for name, tensor in game.state_dict().items()}
    seen = examine(game, batch, batch)
    assert all(torch.equal(before[name], tensor) for name, tensor in game.state_dict().items())
    assert {name for name in seen if name.startswith("variety")} == {f"variety_{to}" for to in game.generators}
    assert all(torch.tensor(value).isfinite() for value in seen.values())


def test_a_generator_of_one_image_has_no_variety() -> None:
    game = small_game(Pix2pixSettings)
    assert isinstance(game, Translator)
    game.generators["b"] = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Tanh())
    nn.init.zeros_(game.generators["b"][0].weight)
    assert examine(game, small_batch())["variety_b"] == 0


def test_the_length_of_a_gradient() -> None:
    game, batch = small_game(Pix2pixSettings), small_batch()
    step(game, batch, new_adams(game))
    for player, length in gradient_lengths(game).items():
        squares = [p.grad.square().sum() for p in game.nets(player).parameters() if p.grad is not None]  # type: ignore[arg-type]
        assert float(length) == pytest.approx(float(torch.stack(squares).sum().sqrt()), rel=1e-5)


def test_a_training_logs_its_vitals(tiny_cohort: Path, tmp_path: Path) -> None:
    run = train(tiny_cohort / "tiny.yaml", out=tmp_path / "run", device="cpu")
    found = [line for line in run.metrics() if "vitals" in line]
    assert [line["step"] for line in found] == [5, 10]
    assert found[0]["vitals"].keys() == HEALTHY.keys()
    assert all(line["grad"].keys() == {"generator", "discriminator"} for line in run.metrics() if "loss" in line)


def test_an_alarm_is_told_once_while_it_lasts(
    tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A weight so large that the discriminator has no say."""
    overrides = ["model.lambda_l1=100000", "train.validate_every=2"]
    run = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    assert capsys.readouterr().err.count("Warning: the discriminator has no say: the adversarial terms are 0.0") == 1
    told = [line["alarms"] for line in run.metrics() if "alarms" in line]
    assert len(told) == 5
    assert all("the discriminator has no say" in {alarm["name"] for alarm in alarms} for alarms in told)


def test_the_log_holds_what_was_seen_and_what_helps(
    tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each alarm whole, as the lines so far give cause for it, and as the console says it."""
    run = train(tiny_cohort / "tiny.yaml", ["model.lambda_l1=100000"], out=tmp_path / "run", device="cpu")
    found, said = run.metrics(), capsys.readouterr().err
    checked = [number for number, line in enumerate(found) if "alarms" in line]
    for number in checked:
        assert found[number]["alarms"] == [asdict(alarm) for alarm in alarms(found[: number + 1])]
    alarm = next(one for one in found[checked[0]]["alarms"] if one["name"] == "the discriminator has no say")
    assert alarm.keys() == {"name", "reason", "remedy"}
    assert f"Warning: {alarm['name']}: {alarm['reason']}. {alarm['remedy']}" in said.replace("\n", " ")


@pytest.mark.parametrize("form", [dict, lambda alarm: alarm["name"]], ids=["whole", "older log: names alone"])
def test_what_is_known_is_not_told_again(
    form: Callable[[dict[str, str]], Any],
    tiny_cohort: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After a stop it goes by the log."""
    config, overrides = tiny_cohort / "tiny.yaml", ["model.lambda_l1=100000", "train.validate_every=2"]
    with monkeypatch.context() as patch:
        patch.setattr(import_module("medgan.train"), "_over", lambda learner, _: stop() if learner.step == 6 else "")
        with pytest.raises(KeyboardInterrupt):
            train(config, overrides, out=tmp_path / "run", device="cpu")
    assert "Warning: the discriminator has no say" in capsys.readouterr().err
    log = tmp_path / "run" / "metrics.jsonl"
    found = [json.loads(line) for line in log.read_text().splitlines()]
    told = [
        line | {"alarms": [form(alarm) for alarm in line["alarms"]]} if "alarms" in line else line for line in found
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in told))
    train(config, overrides, out=tmp_path / "run", device="cpu")
    assert "Warning: the discriminator has no say" not in capsys.readouterr().err


def stop() -> str:
    raise KeyboardInterrupt


def test_patience_ends_a_training_that_gets_no_better(
    tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a learning rate of next to nothing every validation is like the first."""
    overrides = ["train.lr=1e-12", "train.ema=0", "train.patience=2", "train.validate_every=1", "train.steps=50"]
    overrides += ["model.generator.norm=instance", "train.checkpoint_every=50"]
    run = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    said = capsys.readouterr().err
    assert "mae of 2 validations have not been better" in said
    done = [line["step"] for line in run.metrics() if "val" in line]
    assert done[-1] == run.best["step"] + 2  # type: ignore[operator]
    again = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    assert [line["step"] for line in again.metrics() if "val" in line] == done
    assert "mae of 2 validations have not been better" in capsys.readouterr().err
