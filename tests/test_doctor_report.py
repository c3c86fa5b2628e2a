"""The page of a training: charts to scale, alarms with step, reason and remedy, and the vitals behind them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_models import small_batch, small_game
from test_report import Page
from torch import nn

import medgan
from medgan.doctor import alarms, examine, spells
from medgan.errors import RunError
from medgan.models import Batch, Pix2pixSettings
from medgan.report import Report, report, write_report
from medgan.report.charts import LINE_HEIGHT, LINE_WIDTH, MOST_POINTS, Family, draw_family
from medgan.report.training import course
from medgan.run import Run
from medgan.train import train

HEALTHY = {
    "right_real_b": 0.7,
    "right_fake_b": 0.6,
    "right_held_out_b": 0.65,
    "logit_real_b": 0.3,
    "logit_fake_b": -0.2,
    "logit_held_out_b": 0.25,
    "logit_held_out_fake_b": -0.15,
    "variety_b": 0.9,
    "spread_b": 0.95,
}
LOSSES = {"G_GAN": 1.0, "G_L1": 9.0, "D_fake": 0.3, "D_real": 0.3}


def history(*vitals: dict[str, float], maes: tuple[float, ...] = ()) -> list[dict[str, Any]]:
    """Ten logged steps, a validation and a check-up, as often as there are vitals."""
    lines: list[dict[str, Any]] = []
    for number, one in enumerate(vitals):
        logged = {"loss": LOSSES, "grad": {"generator": 1.0, "discriminator": 0.5}}
        lines += [{"step": step} | logged for step in range(10 * number + 1, 10 * number + 11)]
        step = 10 * number + 10
        if maes:
            lines.append({"step": step, "val": {"mae": maes[number], "psnr": None}})
        lines.append({"step": step, "vitals": HEALTHY | one, "alarms": []})
    return lines


def names(lines: list[dict[str, Any]]) -> list[str]:
    return [alarm.name for alarm in alarms(lines)]


WON = {"right_real_b": 0.99, "right_fake_b": 1.0}
BLIND = {"right_real_b": 0.5, "right_fake_b": 0.55}
LOST = "the discriminator of b tells nothing apart"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (history(BLIND, BLIND, BLIND), [LOST]),
        (history({}, {"right_real_b": 0.9, "right_fake_b": 0.1}, BLIND, BLIND), [LOST]),
        (history(BLIND, BLIND, BLIND, maes=(60, 60, 59.6)), [LOST]),
        (history({}, BLIND, BLIND, BLIND, maes=(80, 60, 61, 60)), [LOST]),
        (history(*[BLIND] * 6, maes=(80, 70, 65, 60, 60, 60)), [LOST]),
        (history({"spread_b": 0.4}), ["the contrast of the fakes of b is off"]),
        (history({"spread_b": 2.5}), ["the contrast of the fakes of b is off"]),
        (history({}, {}, {}, {}, maes=(60, 67, 68, 70)), ["validation gets worse"]),
        (history({}, {}, {}, {}, {}, maes=(80, 60, 67, 90, 70)), ["validation gets worse"]),
        (history({}, {}, {}, {}, {}, {}, {}, maes=(80, 60, 62, 64, 67, 69, 70)), ["validation gets worse"]),
        ([*history({}, {}), *[{"step": 21, "grad": {"generator": 1.0, "discriminator": 1e-4}}] * 3],
         ["the discriminator's gradient vanishes"]),
    ],
)  # fmt: skip
def test_new_illnesses_have_alarms(lines: list[dict[str, Any]], expected: list[str]) -> None:
    assert names(lines) == expected


@pytest.mark.parametrize(
    "lines",
    [
        history({}),
        history(BLIND, BLIND),
        history(BLIND, {}, BLIND),
        history(BLIND, BLIND, BLIND, maes=(80, 70, 65)),  # its error falls: the game goes on
        history(BLIND, BLIND, BLIND, maes=(80, 70, 75)),
        history(*[BLIND] * 5, maes=(80, 70, 65, 60, 58)),
        history(BLIND, BLIND, {"right_real_b": 0.8, "right_fake_b": 0.4}),
        history({"spread_b": 0.55}, {"spread_b": 1.9}),
        history({}, {}, {}, {}, maes=(60, 67, 68, 65)),
        history({}, {}, {}, maes=(60, 90, 90)),
        history({}, {}, {}, {}, maes=(90, 80, 70, 60)),
        [*history({}), {"step": 11, "grad": {"generator": 1.0}}],
    ],
)
def test_there_is_none_without_cause(lines: list[dict[str, Any]]) -> None:
    assert names(lines) == []


def test_spread_is_the_deviation_within_an_image_as_a_share() -> None:
    """Fakes of half the contrast vary half as much inside, whatever they do from patch to patch."""
    game, batch = small_game(Pix2pixSettings), small_batch()
    assert batch.b is not None
    game.generators["b"] = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        game.generators["b"].weight.fill_(0.5)
        game.generators["b"].bias.fill_(0.1)
    seen = examine(game, Batch(batch.b, batch.b))
    assert seen["spread_b"] == pytest.approx(0.5, rel=1e-5)
    assert seen["variety_b"] == pytest.approx(0.5, rel=1e-5)
    alone = examine(game, Batch(batch.b[:1], batch.b[:1]))
    assert alone["spread_b"] == pytest.approx(0.5, rel=1e-5)
    assert "variety_b" not in alone  # of one patch nothing differs from another


def test_held_out_images_are_judged_by_their_signs_too() -> None:
    game, batch = small_game(Pix2pixSettings), small_batch()

    class Halves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([1.0, 1.0, 1.0, -2.0]).reshape(1, 1, 2, 2).expand(len(x), 1, 2, 2)

    game.discriminators["b"] = Halves()
    seen = examine(game, batch, batch)
    assert (seen["right_held_out_b"], seen["logit_held_out_b"]) == (0.75, 0.25)


def test_a_spell_lasts_from_its_first_check_up_to_the_one_without_it() -> None:
    found = spells(history({}, {"spread_b": 0.4}, {"spread_b": 0.3}, {}, {"spread_b": 0.4} | {"variety_b": 0.1}))
    told = [(spell.alarm.name, spell.since, spell.until) for spell in found]
    assert told == [
        ("the contrast of the fakes of b is off", 20, 40),
        ("the fakes of b are all alike", 50, None),
        ("the contrast of the fakes of b is off", 50, None),
    ]
    assert "40%" in found[0].alarm.reason  # as it was when it began


def test_a_discriminator_that_guesses_is_told_once_the_error_stands_still() -> None:
    found = spells(history(*[BLIND] * 8, maes=(80, 70, 65, 60, 58, 58, 57.9, 58)))
    assert [(spell.alarm.name, spell.since, spell.until) for spell in found] == [(LOST, 70, None)]


def test_what_was_said_while_training_is_what_the_page_says(tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = ["model.lambda_l1=100000", "train.validate_every=2", "train.log_every=1"]
    run = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    lines = run.metrics()
    said = {(line["step"], alarm["name"]) for line in lines for alarm in line.get("alarms", [])}
    spans = [(spell.alarm.name, spell.since, spell.until or math.inf) for spell in spells(lines)]
    steps = [line["step"] for line in lines if "alarms" in line]
    assert said == {(step, name) for name, since, until in spans for step in steps if since <= step < until}
    assert "the discriminator has no say" in {name for _, name in said}
    html = report(run).read_text(encoding="utf-8")
    assert "the discriminator has no say" in Page(html).text
    older = [line | {k: [one["name"] for one in line[k]] for k in line.keys() & {"alarms"}} for line in lines]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in older))
    assert report(run).read_text(encoding="utf-8") == html


def test_lines_are_drawn_to_scale_and_long_ones_thinned() -> None:
    family = Family("x", {"one": [(0, 0.0), (50, 10.0), (100, 5.0)], "other": [(10, 1.0)]})
    chart = draw_family(family, 100, {50: "1, 2"})
    assert chart is not None
    (line,) = chart.lines  # a single point is no line
    assert line.path == f"M0,{LINE_HEIGHT:g} L{LINE_WIDTH / 2:g},0 L{LINE_WIDTH:g},{LINE_HEIGHT / 2:g}"
    assert line.last.label == "5"
    assert [(mark.at, mark.label) for mark in chart.marks] == [(LINE_WIDTH / 2, "1, 2")]
    flicker = [(step, float(step % 2)) for step in range(1000)]
    steady = draw_family(Family("x", {"one": flicker}, limits=(0, 1)), 999, {})
    assert steady is not None
    heights = {float(place.split(",")[1]) for place in steady.lines[0].path[1:].split(" L")}
    assert steady.lines[0].path.count(" L") < MOST_POINTS
    assert max(heights) - min(heights) < 0.25 * LINE_HEIGHT  # means of neighbours, not every n-th
    assert steady.lines[0].last.x == LINE_WIDTH


def test_a_logarithmic_axis_has_decades_and_leaves_zeros_out() -> None:
    points = [(0, 0.0), (1, 0.01), (2, 1.0), (3, float("nan")), (4, 100.0)]
    chart = draw_family(Family("grad", {"generator": points}, logarithmic=True), 4, {})
    assert chart is not None
    assert [tick.label for tick in chart.y_ticks] == ["0.01", "0.1", "1", "10", "100"]
    heights = [float(place.split(",")[1]) for place in chart.lines[0].path[1:].split(" L")]
    assert heights == [LINE_HEIGHT, LINE_HEIGHT / 2, 0]
    flat = draw_family(Family("grad", {"generator": [(0, 1.0), (1, 1.0)]}, logarithmic=True), 1, {})
    assert flat is not None
    assert len(flat.y_ticks) == 2
    assert draw_family(Family("grad", {"generator": [(0, 0.0), (1, 0.0)]}, logarithmic=True), 1, {}) is None


def test_shares_add_up_to_all_that_is_minimised() -> None:
    chart = next(c for c in course(history({}, {})).charts if c.family.name == "What the generator minimises")
    assert chart.family.lines["G_GAN"][0] == (1, pytest.approx(10))
    assert chart.family.lines["G_L1"][-1] == (20, pytest.approx(90))
    assert (chart.y_ticks[0].label, chart.y_ticks[-1].label) == ("0", "100")


def test_the_page_shows_every_quantity_and_every_alarm(tmp_path: Path) -> None:
    lines = history({}, {"spread_b": 0.4}, WON, WON, maes=(90, 70, 60, 65))
    path = write_report(tmp_path / "r.html", Report("T", [], {}, training=lines, error_unit="HU"))
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    for name in (
        *("Validation MAE", "What the generator minimises", "Losses of the discriminator", "Length of the gradients"),
        *("Discriminator of b: patches judged rightly", "Discriminator of b: mean verdict"),
        *("real, validation", "fakes, validation"),
        "Fakes of b: how much brightness varies",
    ):
        assert name in page.text
    assert "Discriminator of a" not in page.text
    first, second = spells(lines)
    for number, spell in enumerate((first, second), start=1):
        for told in (spell.alarm.name, spell.alarm.reason, spell.alarm.remedy, f"{spell.since} to"):
            assert told in page.text
        assert html.count(f'text-anchor="middle">{number}</text>') >= 7  # in every chart
    assert "https://" not in html
    assert page.all("script") == []
    assert "Results" not in page.text  # there are none


def test_a_healthy_training_is_told_to_be_so(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", Report("T", [], {}, training=history({}, {}, {})))
    page = Page(path.read_text(encoding="utf-8"))
    assert "The doctor raised no alarm at its 3 check-ups." in page.text
    assert page.all("table") == []


def test_a_model_without_a_discriminator_has_a_page(tmp_path: Path) -> None:
    lines = [{"step": n, "loss": {"G_L1": 1 / n}, "grad": {"generator": 1.0}} for n in range(1, 9)]
    lines += [{"step": 8, "vitals": {"variety_b": 0.9, "spread_b": 0.9}, "alarms": []}]
    page = Page(write_report(tmp_path / "r.html", Report("T", [], {}, training=lines)).read_text(encoding="utf-8"))
    assert "Length of the gradients" in page.text
    assert "Discriminator" not in page.text


@pytest.mark.parametrize(
    "line",
    [
        {"step": 3, "loss": None},
        {"step": 3, "loss": [1, 2]},
        {"step": 3, "vitals": {"right_real_b": None}},
        {"step": 3, "grad": {"generator": math.nan, "discriminator": math.inf}},
        {"step": 3, "val": {"mae": None}},
        {"step": 3},
    ],
)
def test_odd_lines_are_left_out(line: dict[str, Any], tmp_path: Path) -> None:
    lines = [*history({}, {}), line]
    Page(write_report(tmp_path / "r.html", Report("T", [], {}, training=lines)).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("doctor") / "run"
    return train(tiny_cohort / "tiny.yaml", ["train.steps=4", "train.validate_every=2"], out=out, device="cpu")


def test_a_report_of_a_run_lies_in_it_or_where_it_is_wanted(run: Run, tmp_path: Path) -> None:
    assert report(run.path) == run.path / "report.html"
    assert medgan.report(run, tmp_path / "page.html") == tmp_path / "page.html"
    text = Page((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "Training of pix2pix, MR → CT" in text
    assert "Step 4 of 4." in text
    errors = [line["val"]["mae"] for line in run.metrics() if "val" in line]
    assert f"mean over the patients {errors[-1]:.3g}" in text


def test_a_run_that_has_logged_nothing_is_refused(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match="has logged nothing yet; let it train until step 1"):
        report(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": {"G_L1": 1.0}}) + "\n")
    assert report(tmp_path / "run").exists()
