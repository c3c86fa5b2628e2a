"""Samplers: what the doctor says of them, why their training ended, and the pages of training, audit and utility."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from test_report import Page
from torch import Tensor, nn

import medgan
from medgan.augment.audit import Audit, Pair
from medgan.augment.gate import audit_set
from medgan.augment.reasons import Memory, Reason
from medgan.augment.sample import sample
from medgan.augment.tasks import Classification
from medgan.augment.utility import ArmScores, Utility, UtilitySettings
from medgan.augment.verdict import Cell, against_real, headline, verdicts
from medgan.cases import read_cases
from medgan.doctor import alarms, examine, spells
from medgan.errors import RunError, TrainingError
from medgan.formats.png import write_png
from medgan.metrics.distribution import Floored, Interval
from medgan.metrics.membership import Membership
from medgan.metrics.memorisation import Beside, Copies, Exchanged
from medgan.models import CGANSettings, Kind, StyleGAN2Settings, build_sampler
from medgan.models.base import Batch
from medgan.models.noise import FromNoise
from medgan.phantom.images import write_images
from medgan.report import report
from medgan.report.audit import audit_report
from medgan.report.charts import STRIP_WIDTH, Reach, draw_reaches
from medgan.report.sampling import MOST_SHEETS, WIDEST_PX, sampling_course
from medgan.report.utility import utility_report
from medgan.run import SamplingRun, open_sampling_run
from medgan.sampling import SamplingLesson
from medgan.train import _last_gain, train

Lines = list[dict[str, Any]]
VITALS = {
    "right_real": 0.7,
    "right_fake": 0.6,
    "right_held_out": 0.68,
    "logit_real": 0.3,
    "logit_fake": -0.2,
    "logit_held_out": 0.25,
    "variety": 1.0,
    "variety_within": 0.9,
    "spread": 1.0,
    "changed": 0.1,
}
FLOOR = {"fd_of_training_images": 0.5, "coverage_of_training_images": 0.9}
WON = {"right_real": 1.0, "right_fake": 0.99}
LOST = {"right_real": 0.5, "right_fake": 0.5}
BY_HEART = {"right_real": 0.9, "right_fake": 0.8, "logit_real": 2.0, "logit_held_out": 0.1}
CONFUSED = {"right_real": 0.6, "right_held_out": 0.4, "logit_real": 0.1, "logit_fake": 0.0, "logit_held_out": -0.1}


def history(*seen: dict[str, float], covered: tuple[float, ...] | None = None, fd: tuple[float, ...] = ()) -> Lines:
    """Ten logged steps, a validation and a check-up, as often as there are vitals; coverage of 0.6 unless told."""
    lines: Lines = []
    for number, one in enumerate(seen):
        logged = {"loss": {"G_GAN": 0.7, "D_real": 0.6}, "grad": {"generator": 1.0, "discriminator": 2.0}}
        lines += [{"step": step} | logged for step in range(10 * number + 1, 10 * number + 11)]
        step = 10 * number + 10
        score = {"fd": fd[number] if fd else 5.0, "coverage": covered[number] if covered else 0.6}
        lines.append({"step": step, "val": score | FLOOR})
        lines.append({"step": step, "vitals": {f"{name}_b": x for name, x in (VITALS | one).items()}})
        lines[-1]["vitals"]["changed"] = lines[-1]["vitals"].pop("changed_b")
    return lines


def with_grad(lines: Lines, *generator: float) -> Lines:
    grads = [{"generator": length, "discriminator": 2.0} for length in generator]
    return [*lines, *({"step": step, "grad": grad} for step, grad in enumerate(grads, start=lines[-1]["step"] + 1))]


def names(lines: Lines) -> list[str]:
    return [alarm.name for alarm in alarms(lines, samples=True)]


# --- the doctor -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (history(WON, WON, covered=(0.1, 0.1)), "the discriminator has won"),
        (history(WON, WON, covered=(0.2, 0.1)), "the discriminator has won"),
        (history(LOST, LOST, LOST, LOST, covered=(0.2, 0.3, 0.25, 0.2)), "the generator has won"),
        (history(BY_HEART, BY_HEART), "the discriminator knows the training images by heart"),
        (history(*[CONFUSED] * 5), "the discriminator knows the training images by heart"),
        (history({"changed": 0.8}), "adaptive changes are at their strongest"),
        (history({"variety": 0.2}), "the samples are all alike"),
        (history({"variety": 0.7, "variety_within": 0.05}), "the samples of a class are all alike"),
        (history({"spread": 0.3}, {"spread": 0.4}), "the contrast of the samples is off"),
        (history({"spread": 3.0}, {"spread": 0.4}), "the contrast of the samples is off"),
        (history({}, {}, {}, covered=(0.08, 0.0, 0.08)), "few kinds of images are made"),
        (history(*[{}] * 5, covered=(0.3, 0.8, 0.39, 0.3, 0.2), fd=(9, 5, 6, 7, 8)), "the samples get worse"),
        (with_grad(history({}, {}), *[0.009] * 3), "the generator's gradient vanishes"),
        ([*history({}), {"step": 11, "grad": {"generator": math.nan}}], "numbers are missing"),
        ([*history({}), {"step": 11, "val": {"fd": None, "coverage": None}}], "numbers are missing"),
    ],
)
def test_each_illness_of_a_sampler_has_an_alarm_of_its_own(lines: Lines, expected: str) -> None:
    assert names(lines) == [expected]
    (alarm,) = alarms(lines, samples=True)
    assert alarm.remedy
    assert not re.search(r"\bb\b|model\.discriminator|lsgan|lambda|patch", str(alarm))  # settings of translators


@pytest.mark.parametrize(
    "lines",
    [
        [],
        history({}),
        history(WON),
        history(WON, {}, WON, covered=(0.1, 0.1, 0.1)),
        history(WON, WON, covered=(0.1, 0.2)),  # it gets better: the game goes on
        history(WON, WON, covered=(0.5, 0.46)),  # half of what training images cover
        history(LOST, LOST, LOST, covered=(0.2, 0.2, 0.2)),
        history(LOST, LOST, LOST, LOST, covered=(0.2, 0.2, 0.2, 0.3)),
        history(LOST, LOST, LOST, LOST),
        history(BY_HEART, {}, BY_HEART),
        history(*[CONFUSED] * 4),
        history(*[CONFUSED | {"right_held_out": 0.55}] * 5),
        history(*[CONFUSED | {"logit_held_out": 0.05}] * 5),
        history({"spread": 0.3}, {}),
        history({"variety": 0.4, "variety_within": 0.35}),
        history({"changed": 0.79}),
        history({}, {}, {}, covered=(0.0, 0.0, 0.01)),  # the beginning of a training
        history({}, {}, {}, covered=(0.0, 0.0, 0.3)),
        history(*[{}] * 5, covered=(0.3, 0.8, 0.39, 0.3, 0.2), fd=(9, 5, 6, 7, 5)),  # by one score alone
        history(*[{}] * 5, covered=(0.3, 0.8, 0.39, 0.3, 0.45), fd=(9, 5, 6, 7, 8)),
        with_grad(history({}, {}), *[0.02] * 5),
        with_grad(history({}, {}), 0.009, 0.009),
        [*history({}), {"step": 11, "val": {}}],  # no held-out images
    ],
)
def test_there_is_none_without_cause(lines: Lines) -> None:
    assert names(lines) == []


def test_without_held_out_images_the_discriminator_alone_is_judged() -> None:
    blind = [line for line in history(*[WON] * 3) if "val" not in line]
    assert names(blind) == ["the discriminator has won"]
    assert names([line for line in history(*[LOST] * 5) if "val" not in line]) == []  # a guess may be success


def test_a_gradient_that_was_gone_from_the_start_is_missed() -> None:
    """The median of all lines would be tiny, too."""
    lengths = [1.0, 0.1, 0.02, *[0.005] * 20]
    lines: Lines = [{"step": n, "grad": {"generator": length}} for n, length in enumerate(lengths, start=1)]
    assert names(lines) == ["the generator's gradient vanishes"]
    assert "0.005, and was 1 in the beginning" in alarms(lines, samples=True)[0].reason


def test_missing_numbers_are_counted() -> None:
    bad = [{"step": n, "loss": {"G_GAN": math.inf}, "grad": {"generator": math.nan}} for n in (11, 12)]
    (alarm,) = alarms([*history({}), *bad], samples=True)
    assert alarm.reason.startswith("2 of 14 lines")


class Told(nn.Module):
    """A generator of given images."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.images


def game_that_makes(images: Tensor, groups: tuple[int, ...]) -> FromNoise:
    settings = CGANSettings(width=4, width_d=4, latent_size=4)
    game = cast(FromNoise, build_sampler(settings, Kind(1, (16, 16), groups)))
    game.generators["b"] = Told(images)
    return game


def test_variety_within_is_that_around_the_mean_of_each_class() -> None:
    """Classes that lie far apart make up for samples that are all alike, but not within a class."""
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 0])
    real = rng.normal(0, 0.5, (8, 1, 16, 16)) + labels[:, None, None, None]
    fake = rng.normal(0, 0.05, (8, 1, 16, 16)) + labels[:, None, None, None]
    batch = Batch(b=torch.tensor(real).float(), condition=torch.eye(3)[labels])
    seen = examine(game_that_makes(torch.tensor(fake).float(), (3,)), batch)

    def pooled(x: np.ndarray) -> float:
        squares = sum(((x[labels == one] - x[labels == one].mean(0)) ** 2).sum(0) for one in range(3))
        return float(np.sqrt(squares / (8 - 3)).mean())

    assert seen["variety_within_b"] == pytest.approx(pooled(fake) / pooled(real), rel=1e-4)
    assert seen["variety_b"] == pytest.approx(fake.std(0, ddof=1).mean() / real.std(0, ddof=1).mean(), rel=1e-4)
    assert seen["variety_within_b"] < 0.15
    assert seen["variety_b"] > 0.5


def test_variety_within_leaves_out_what_a_number_tells() -> None:
    rng = np.random.default_rng(1)
    share = rng.uniform(size=8)
    known = np.stack([share, 1 - share], axis=1)  # between two knots
    real, fake = (rng.normal(0, sd, (8, 1, 16, 16)) + 3 * share[:, None, None, None] for sd in (0.4, 0.1))
    batch = Batch(b=torch.tensor(real).float(), condition=torch.tensor(known).float())
    seen = examine(game_that_makes(torch.tensor(fake).float(), (2,)), batch)

    def left(x: np.ndarray) -> float:
        flat = x.reshape(8, -1)
        fit = known @ np.linalg.lstsq(known, flat, rcond=None)[0]
        return float(np.sqrt(((flat - fit) ** 2).sum(0) / 6).mean())

    assert seen["variety_within_b"] == pytest.approx(left(fake) / left(real), rel=1e-4)


def test_variety_within_needs_more_images_than_classes() -> None:
    labels = torch.eye(8)
    seen = examine(
        game_that_makes(torch.randn(8, 1, 16, 16), (8,)), Batch(b=torch.randn(8, 1, 16, 16), condition=labels)
    )
    assert "variety_within_b" not in seen
    assert "variety_b" in seen


def test_the_strength_of_adaptive_changes_is_a_vital() -> None:
    settings = StyleGAN2Settings(width=4, max_width=8, latent_size=4, style_size=4, path_length=0)
    game = cast(FromNoise, build_sampler(settings, Kind(1, (16, 16))))
    assert game.adaptive is not None
    game.adaptive.p.fill_(0.25)
    assert examine(game, Batch(b=torch.randn(4, 1, 16, 16)))["changed"] == 0.25


# --- runs -------------------------------------------------------------------------------------------------------------

CONFIG = """
cases: set/cases.csv
prep: {images: {image: {modality: MR, range: [0, 1000]}}, spacing_mm: [1, 1, 1]}
patch: [16, 16, 1]
conditions: {class: {classes: [healthy, lesion]}}
model: {name: cgan, width: 4, width_d: 4, latent_size: 8}
train: {steps: 8, batch: 8, lr: 0.001, ema: 0.9, validate_every: 1, checkpoint_every: 4, log_every: 1}
samples: 32
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of phantoms, the config of a sampler, and its run."""
    folder = tmp_path_factory.mktemp("sampler")
    write_images(folder / "set", num=160, size=16, seed=1)
    (folder / "c.yaml").write_text(CONFIG)
    train(folder / "c.yaml", out=folder / "run", device="cpu")
    return folder


@pytest.fixture(scope="module")
def run(home: Path) -> SamplingRun:
    return open_sampling_run(home / "run")


def stops(run: Any) -> list[Any]:
    return [line["stopped"] for line in run.metrics() if "stopped" in line]


def test_why_a_training_ended_is_in_its_log_and_its_card(home: Path, run: SamplingRun) -> None:
    assert run.metrics()[-1] == {"step": 8, "stopped": "its 8 steps are done"}
    assert run.card["stopped"] == "its 8 steps are done"
    assert run.card["best"]["step"] == run.best["step"]
    assert run.card["num_train_images"] > 50  # what it said before
    train(home / "c.yaml", out=run.path, device="cpu")
    assert len(stops(run)) == 1


def test_patience_is_a_reason_and_a_kill_before_it_was_told_loses_nothing(home: Path, tmp_path: Path) -> None:
    still = ["train.lr=1e-12", "train.ema=0", "train.patience=2", "train.steps=50", "train.checkpoint_every=50"]
    run = train(home / "c.yaml", still, out=tmp_path / "run", device="cpu")
    (told,) = stops(run)
    assert re.fullmatch(r"ended at step \d+: fd and coverage of 2 validations have not been better", told)
    assert run.card["stopped"] == told
    lines = run.metrics()
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    (run.path / "card.json").write_text(json.dumps({k: v for k, v in run.card.items() if k != "stopped"}))
    again = train(home / "c.yaml", still, out=run.path, device="cpu")
    assert (again.metrics(), again.card["stopped"]) == (lines, told)


def test_patience_waits_while_one_of_the_scores_gets_better() -> None:
    """The weights of the lowest distance are kept all the same."""
    goals = SamplingLesson.goals
    far, covered = (9.0, 5.0, 6.0, 7.0, 8.0, None), (0.1, 0.2, 0.2, 0.4, 0.3, None)
    exams: dict[int, dict[str, float | None]] = {
        10 * step: {"fd": x, "coverage": y} for step, (x, y) in enumerate(zip(far, covered, strict=True), start=1)
    }
    seen = [_last_gain(dict(list(exams.items())[:count]), goals) for count in range(len(exams) + 1)]
    assert seen == [0, 10, 20, 20, 40, 40, 40]
    assert _last_gain(exams, {"fd": -1}) == 20


def test_divergence_is_a_reason_and_forgotten_by_a_training_that_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = import_module("medgan.train")
    real = loop._step

    def step(learner: Any, *rest: Any) -> Any:
        losses = real(learner, *rest)
        return losses | ({"G_GAN": torch.tensor(math.nan)} if learner.step == 6 else {})

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", step)
        with pytest.raises(TrainingError, match="diverged"):
            train(home / "c.yaml", out=tmp_path / "run", device="cpu")
    run = open_sampling_run(tmp_path / "run")
    assert run.metrics()[-1]["step"] == 6
    assert stops(run)[0].startswith("the losses diverged by step 6 (G_GAN nan)")
    assert str(tmp_path) not in (run.path / "metrics.jsonl").read_text()
    assert "the losses diverged by step 6" in Page(report(run).read_text(encoding="utf-8")).text
    train(home / "c.yaml", out=run.path, device="cpu")
    assert stops(run) == ["its 8 steps are done"]


def test_what_was_said_while_training_is_what_the_page_says(run: SamplingRun) -> None:
    lines = run.metrics()
    said = {(line["step"], alarm["name"]) for line in lines for alarm in line.get("alarms", [])}
    spans = [(one.alarm.name, one.since, one.until or math.inf) for one in spells(lines, samples=True)]
    steps = [line["step"] for line in lines if "alarms" in line]
    assert said == {(step, name) for name, since, until in spans for step in steps if since <= step < until}
    assert said  # eight steps make no images
    assert {"variety_within_b"} < {name for line in lines for name in line.get("vitals", {})}


@pytest.fixture(scope="module")
def training_page(run: SamplingRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    assert report(run.path, path) == path
    return path.read_text(encoding="utf-8")


def assert_loads_nothing(html: str) -> None:
    page = Page(html)
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"https?://|url\(|@import|<script", html)
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'")


def pictures(html: str) -> list[Image.Image]:
    found = [attrs["src"].partition(",")[2] for attrs in Page(html).all("img")]
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_the_page_of_a_sampler_is_complete(training_page: str, run: SamplingRun) -> None:
    assert_loads_nothing(training_page)
    text = Page(training_page).text
    last = [line["val"] for line in run.metrics() if "val" in line][-1]
    seen = run.card["conditions"]["class"]
    for told in (
        *("Training of cgan, MR images", "Step 8 of 8. Why the training ended: its 8 steps are done."),
        *("Synthetic, not for diagnostic use", "Length of the gradients", "Losses of the generator"),
        *("FD-random-conv to held-out images", "Discriminator: images judged rightly"),
        f"{last['fd']:.3g}",
        f"{last['kid']:.3g}".replace("-", "−"),
        f"{100 * last['coverage']:.1f} %",
        f"{run.best['fd']:.3g}",
        f"{last['fd_of_training_images']:.3g}",
        f"{last['kid_of_training_images']:.3g}".replace("-", "−"),
        f"sha256:{run.weights_sha256}",
        *(alarm.alarm.reason for alarm in spells(run.metrics(), samples=True)),
    ):
        assert told in text
    cells = re.findall(r"<td class=\"text\">(\w+)</td><td>(\d+)</td><td>(\d+)</td>", training_page)
    assert cells == [
        (k, str(seen["images_by_class"][k]), str(seen["patients_by_class"][k])) for k in seen["images_by_class"]
    ]


def test_no_case_is_named_on_it(training_page: str, home: Path) -> None:
    cases = read_cases(home / "set" / "cases.csv")
    assert not [case.name for case in cases if case.name in training_page]


def test_its_pictures_say_that_they_are_synthetic(training_page: str, run: SamplingRun) -> None:
    shown = pictures(training_page)
    assert len(shown) == min(MOST_SHEETS, 8)
    assert all(image.text["Synthetic"].startswith("yes: made by cgan") for image in shown)  # type: ignore[attr-defined]
    text = Page(training_page).text
    assert f"Step {run.best['step']}, of the weights that are kept" in text
    assert "Step 1" in text
    assert "last" in text


def copied(run: SamplingRun, folder: Path) -> SamplingRun:
    shutil.copytree(run.path, folder / "run")
    return open_sampling_run(folder / "run")


def test_large_pictures_are_made_smaller_and_keep_their_mark(run: SamplingRun, tmp_path: Path) -> None:
    other = copied(run, tmp_path)
    for path in other.images.iterdir():
        write_png(np.zeros((300, 2 * WIDEST_PX, 3), np.uint8), path, text={"Synthetic": "yes: so it says"})
    shown = pictures(report(other).read_text(encoding="utf-8"))
    assert {image.size for image in shown} == {(WIDEST_PX, 150)}
    assert {image.text["Synthetic"] for image in shown} == {"yes: so it says"}  # type: ignore[attr-defined]


def test_a_training_that_goes_on_has_a_page(run: SamplingRun, tmp_path: Path) -> None:
    other = copied(run, tmp_path)
    lines = [line for line in other.metrics() if line["step"] <= 5]
    (other.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (other.path / "weights.safetensors").unlink()
    for path in other.images.iterdir():
        path.unlink()
    html = report(other).read_text(encoding="utf-8")
    assert "Step 5 of 8. The training has not ended: it is under way" in Page(html).text
    assert Page(html).all("img") == []


def test_without_held_out_images_nothing_is_scored(run: SamplingRun, tmp_path: Path) -> None:
    other = copied(run, tmp_path)
    lines = [line | {"val": {}} if "val" in line else line for line in other.metrics()]
    (other.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = Page(report(other).read_text(encoding="utf-8")).text
    assert "Results" not in text
    assert "KID-random-conv" not in text


def test_damaged_runs_are_refused(run: SamplingRun, tmp_path: Path) -> None:
    other = copied(run, tmp_path)
    next(iter(sorted(other.images.iterdir()))).write_bytes(b"nothing")
    with pytest.raises(RunError, match="is no picture of a validation"):
        report(other)
    (other.path / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match="has logged nothing yet; let it train until step 1"):
        medgan.report(other.path)


def test_coverage_is_drawn_beside_that_of_training_images() -> None:
    course = sampling_course(history({}, {}, {}, covered=(0.1, 0.3, 0.5)))
    chart = next(one for one in course.charts if "coverage" in one.family.name)
    assert chart.family.lines == {
        "samples": [(10, 10.0), (20, 30.0), (30, 50.0)],
        "training images": [(10, 90.0), (20, 90.0), (30, 90.0)],
    }
    assert course.num_checks == 3
    assert course.spells == ()


# --- charts -----------------------------------------------------------------------------------------------------------


def test_intervals_are_drawn_to_scale() -> None:
    lines = {"one": (Reach(2.0, 1.0, 4.0), Reach(3.0, 0.0, 4.0)), "none": (Reach(math.nan, 0.0, 1.0), None)}
    chart = draw_reaches("x", lines, mark=1.0)
    assert chart is not None
    (line,) = chart.lines
    assert line.own == Reach(STRIP_WIDTH / 2, STRIP_WIDTH / 4, STRIP_WIDTH)
    assert line.beside == Reach(0.75 * STRIP_WIDTH, 0, STRIP_WIDTH)
    assert chart.mark == STRIP_WIDTH / 4
    assert [tick.label for tick in chart.x_ticks] == ["0", "1", "2", "3", "4"]
    assert line.title == "one: 2 (1 to 4); beside it 3 (0 to 4)"
    wide = draw_reaches("x", {"one": (Reach(2.0, 1.0, 4.0), None)}, limits=(0, 8))
    assert wide is not None
    assert wide.lines[0].own.value == STRIP_WIDTH / 4
    assert draw_reaches("x", {"none": (Reach(math.inf, 0.0, 1.0), None)}) is None


# --- audit ------------------------------------------------------------------------------------------------------------


def floored(value: float, floor: float) -> Floored:
    return Floored(value, value - 0.02, value + 0.02, floor, floor - 0.01, floor + 0.01)


def an_audit() -> Audit:
    attack = Membership(
        Interval(0.83, 0.78, 0.88), Exchanged(0.83, 0.4, 0.6, 0.001), Interval(0.2, 0.1, 0.3), 0.5, 0.33
    )
    memory = Memory(
        space="pixels",
        closer_to_train=Exchanged(0.97, 0.41, 0.58, 0.001),
        copies=Copies(17, 1, 3, 0.0001, Exchanged(0.2, -0.01, 0.01, 0.001)),
        patients_hit=9,
        distance_ratio=Beside(0.31, 0.92),
        authenticity=Beside(0.123, 0.87),
        share_below=Beside(0.456, None),
        membership=attack,
        effective_number=Interval(41.0, 30.0, 52.0),
    )
    return Audit(
        verdict="FAIL",
        reasons=(
            Reason("PASS", "coverage <fine>", "t3", "m3"),
            Reason("FAIL", "near copies 17", "t1", "m1"),
            Reason("REVIEW", "the split", "t2", "m2"),
        ),
        counts={
            "train_images": 60,
            "train_patients": 50,
            "synthetic_images": 80,
            "holdout_images": 40,
            "holdout_patients": 33,
        },
        likeness={"coverage": floored(0.71, 0.93), "FD-random-conv": floored(3.25, 1.5)},
        masks={},
        classes={"lesion": {"coverage": floored(0.52, 0.9)}, "rare": None},
        memory=(memory,),
        critic=attack,
        split=Exchanged(0.0, -1.0, 1.0, 0.5),
        pairs=(Pair(4, 11, 0.0123, 0.045, 0.998),),
        near_copies=("SYN-7", "SYN-9"),
        seed=3,
    )


def test_the_page_of_an_audit_has_verdict_reasons_and_numbers(tmp_path: Path) -> None:
    html = audit_report(an_audit(), None, tmp_path / "a.html").read_text(encoding="utf-8")
    assert_loads_nothing(html)
    page = Page(html)
    assert page.text.index("near copies 17") < page.text.index("the split") < page.text.index("coverage <fine>")
    assert "coverage <fine>" not in html  # escaped
    for told in (
        *("1 FAIL, 1 REVIEW, 1 PASS", "Do not share this set", "SYN-7, SYN-9", "60 images of 50 patients"),
        *("17, of 9 training patients", "0.31", "0.92", "0.123", "0.456", "41 (30 to 52)", "0.998"),
        *("m1", "m2", "m3", "t1", "t2", "t3"),
    ):
        assert told in page.text
    assert page.text.index("FAIL") < page.text.index("Reasons")
    for title in (
        "all images: 0.71 (0.69 to 0.73); beside it 0.93 (0.92 to 0.94)",
        "class lesion: 0.52 (0.5 to 0.54); beside it 0.9 (0.89 to 0.91)",
        "closer to training (pixels): 0.97 (0.97 to 0.97); beside it 0.5 (0.41 to 0.58)",
        "membership by the critic, AUC: 0.83 (0.78 to 0.88); beside it 0.5 (0.4 to 0.6)",
    ):
        assert f"<title>{title}</title>" in html


def test_patients_are_shown_only_if_wanted_and_then_the_page_warns(tmp_path: Path) -> None:
    without = audit_report(an_audit(), None, tmp_path / "a.html").read_text(encoding="utf-8")
    assert Page(without).all("img") == []
    assert "shows no image" in Page(without).text
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    shown = audit_report(an_audit(), picture, tmp_path / "b.html").read_text(encoding="utf-8")
    assert_loads_nothing(shown)
    assert Page(shown).text.index("This page shows patients") < Page(shown).text.index("Reasons")
    (image,) = pictures(shown)
    assert (np.asarray(image) == picture).all()
    assert image.text == {"Shows": "patients; do not pass on"}  # type: ignore[attr-defined]


def test_an_audit_without_held_out_images_has_a_page(tmp_path: Path) -> None:
    found = an_audit()
    bare = replace(found.memory[0], closer_to_train=None, membership=None, authenticity=Beside(0.5, None))
    counts = {**found.counts, "holdout_images": 0, "holdout_patients": 0}
    blind = replace(found, memory=(bare,), critic=None, split=None, pairs=(), near_copies=(), classes={}, counts=counts)
    text = Page(audit_report(blind, None, tmp_path / "a.html").read_text(encoding="utf-8")).text
    assert "No held-out real images were given" in text
    assert "Near copies" not in text


def test_an_audit_of_folders_writes_the_page_without_patients(home: Path, tmp_path: Path) -> None:
    sample(home / "run", tmp_path / "made", num=40, device="cpu")
    done = audit_set(home / "set" / "cases.csv", tmp_path / "made", out=tmp_path / "out")
    html = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert_loads_nothing(html)
    assert Page(html).all("img") == []
    assert all(reason.measured in Page(html).text for reason in done.audit.reasons)
    assert not [case.name for case in read_cases(home / "set" / "cases.csv") if case.name in html]


# --- utility ----------------------------------------------------------------------------------------------------------


def a_study(gain: float) -> Utility:
    """Of five seeds and two shares: with synthetic images scores are higher by a gain."""
    arms = ("real", "real+duplicates", "real+synthetic", "synthetic")
    settings = UtilitySettings(task=Classification(), arms=arms, fractions=(0.25, 1.0))
    rng, scores, told = np.random.default_rng(0), {}, []
    for job in (job for job in settings.jobs() if job.seed == 0):
        cell = Cell(job.arm, job.ratio, job.fraction)
        level = 0.8 + (gain if "synthetic" in job.arm else 0.0)
        drawn = level + rng.normal(0, 0.001, (5, 21))
        if cell.fraction is not None:
            scores[cell] = drawn
        values = [float(value) for value in drawn[:, 0]]
        mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
        told.append(ArmScores(cell, {"auc": mean, "recall lesion": 0.5}, {"auc": sd, "recall lesion": 0.1}, values))
    found = verdicts(scores, num_patients=30)
    counts = {"train": 40, "synthetic": 80, "test": 30}
    against = against_real(scores, num_patients=30)
    return Utility(settings, counts, [], told, against, found, *headline(found, "auc"))


@pytest.mark.parametrize(("gain", "word"), [(0.05, "helps"), (0.0, "no evidence"), (-0.05, "harms")])
def test_the_page_of_a_study_has_verdict_scores_and_differences(gain: float, word: str, tmp_path: Path) -> None:
    study = a_study(gain)
    assert study.verdict == word
    html = utility_report(study, tmp_path / "u.html").read_text(encoding="utf-8")
    assert_loads_nothing(html)
    page = Page(html)
    assert page.text.index(word) < page.text.index("What synthetic images add")
    assert study.reason in page.text
    for arm in study.arms:
        assert f"{arm.mean['auc']:.3f} ± {arm.sd['auc']:.3f}" in page.text
        for seed, value in enumerate(arm.values, start=1):
            assert f"<title>seed {seed}: {value:.3f}</title>" in html
    for one in study.verdicts:
        for control, found in one.controls.items():
            assert f"<title>− {control}: {found.mean:.3g} ({found.low:.3g} to".replace("-", "−") in html
    assert page.text.index("Beside all real patients") < page.text.index("Beside 25 % of the real patients")
    assert "flatter a smaller share" in page.text
    assert "TRTS" in page.text


def test_a_dot_is_a_seed_and_lines_join_seeds(tmp_path: Path) -> None:
    html = utility_report(a_study(0.05), tmp_path / "u.html").read_text(encoding="utf-8")
    page = Page(html)
    dots = [attrs for attrs in page.all("circle") if attrs["class"].startswith("dot") and attrs["r"] == "4.2"]
    in_strips, differences = 5 * (3 + 3 + 1), 2 * 2
    assert len(dots) == in_strips + differences
    assert len([one for one in page.all("path") if one["class"] == "join"]) == 2 * 5
    assert len([one for one in page.all("line") if one["class"] == "mean"]) == 3 + 3 + 1
