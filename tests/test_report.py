"""The report: whole in one file, its numbers those of the rows, its pictures those of the volumes."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medgan import Grid, Synthesis, Volume
from medgan.errors import GeometryError, InputError
from medgan.evaluate import score, summarise
from medgan.pictures import slice_picture
from medgan.report import Curve, Panel, Report, write_report
from medgan.report.charts import draw_curve, draw_strips, ticks

VOID = {"meta", "img", "br", "link", "line", "path", "circle", "input"}


class Page(HTMLParser):
    """Tags with their attributes in order, the text, and whether all tags are closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag, **wanted):
        return [attrs for name, attrs in self.tags if name == tag and wanted.items() <= attrs.items()]


def scan(seed, orientation="RAS", spacing=(2.0, 2.0, 3.0)):
    rng = np.random.default_rng(seed)
    shape = (24, 28, 18)
    array = rng.normal(100, 200, shape).astype(np.float32)
    array[4:19, 4:23, 3:14] += 500
    return Volume(array, Grid.regular(shape, spacing_mm=spacing), unit="HU", modality="CT").reorient(orientation)


def panel(case="p1", seed=0, error_limit=50.0):
    ref = scan(seed)
    inside = np.zeros(ref.array.shape, np.uint8)
    inside[4:19, 4:23, 3:14] = 1
    mask = ref.with_array(inside)
    made = ref.with_array(ref.array + 10).marked(Synthesis("pix2pix", "ab" * 32, "0.1.0"))
    source = ref.with_array(2000 - ref.array, unit="a.u.", modality="MR")
    return Panel(case, source, made, ref, mask, error_limit, window=(0, 1000))


def rows(offset, cases=("p1", "p2", "p3")):
    result = []
    for seed, case in enumerate(cases):
        ref = scan(seed)
        noise = np.random.default_rng(seed).normal(0, offset, ref.array.shape)
        result.append(score(ref.with_array(ref.array + noise), ref, case=case))
    return result


@pytest.fixture(scope="module")
def report():
    return Report(
        title="MR to CT <b>& back",
        lead=["What was done.", "And why."],
        results={"pix2pix": rows(10), "intensity map": rows(40)},
        panels=[panel("p1"), panel("p2", seed=1)],
        curves=[Curve("Validation MAE", [(0, 90.0), (100, 40.0), (200, 30.0)], "HU")],
        provenance={"Seed": "7", "Weights": "sha256:" + "ab" * 32},
        commands=["medgan train a.yaml", "medgan evaluate pred ref --out <out>"],
    )


@pytest.fixture(scope="module")
def html(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    assert write_report(path, report) == path
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_nothing_is_loaded_from_elsewhere(html, page):
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attrs.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"https?://|url\(|@import", html)
    assert page.all("script") == []
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'")


def test_text_is_escaped_and_complete(html, page, report):
    assert "<b>& back" not in html
    assert report.title in page.text
    for text in (*report.lead, *report.provenance.values(), *report.commands, "Not for diagnostic use."):
        assert text in page.text


def test_the_summary_is_that_of_the_rows(page, report):
    numbers = [float(attrs["value"]) for attrs in page.all("data")]
    expected = [summarise(rows)[name]["mean"] for rows in report.results.values() for name in ("mae", "psnr", "ssim")]
    assert numbers[:6] == expected
    assert "better by MAE in 3 of 3 cases, PSNR in 3 of 3 cases, SSIM in 3 of 3 cases" in page.text


def test_every_case_has_its_numbers_and_the_better_is_bold(page, report):
    cells = page.all("data")[6:]
    expected = [
        rows[number][name]
        for number in range(3)
        for name in ("mae", "psnr", "ssim")
        for rows in report.results.values()
    ]
    assert [float(attrs["value"]) for attrs in cells] == expected
    assert ["class" in attrs for attrs in cells] == [True, False] * 9


def test_pictures_are_those_of_the_volumes(page, report):
    images = page.all("img")
    assert len(images) == 2 * (3 * 4 + 1)
    decoded = {attrs["alt"]: decode(attrs["src"]) for attrs in images}
    assert all(attrs["alt"] for attrs in images)
    shown = report.panels[0]
    # The mask reaches from 4 to 18, 4 to 22, 3 to 13; the margin is 1, 2 and 1 voxels.
    cropped = shown.reference.crop((3, 2, 2), (20, 25, 15))
    where = np.argwhere(shown.mask.array).mean(axis=0).round().astype(int) - (3, 2, 2)
    for axis, across in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
        expected = slice_picture(cropped, axis, int(where[across]), window=(0, 1000), longest_px=320)
        assert (np.asarray(decoded[f"p1, {axis}, reference CT"]) == expected).all()


def test_synthetic_pictures_say_so_inside_and_others_do_not(page):
    for attrs in page.all("img"):
        text = decode(attrs["src"]).text
        assert ("Synthetic" in text) == ("synthetic" in attrs["alt"])


def test_errors_are_red_where_too_high_and_white_outside_the_mask(page):
    error = np.asarray(
        decode(next(a["src"] for a in page.all("img") if a["alt"] == "p1, axial, synthetic minus reference"))
    )
    assert error[0, 0].tolist() == [250, 250, 250]
    red, _, blue = error[error.shape[0] // 2, error.shape[1] // 2].astype(int)
    assert red > blue


def test_twenty_cases_of_pure_noise_stay_below_ten_megabytes(tmp_path):
    noise = Volume(np.random.default_rng(0).normal(0, 100, (60, 60, 60)), Grid.regular((60, 60, 60)))
    panels = [Panel(f"p{number}", noise, noise, noise.with_array(-noise.array), None, 100) for number in range(20)]
    path = write_report(tmp_path / "report.html", Report("Noise", [], {"m": rows(5)}, panels))
    assert 1e6 < path.stat().st_size < 10e6


def test_missing_numbers_are_shown_as_missing_and_their_notes_listed(tmp_path):
    scored = score(scan(0), scan(0), case="p1")
    missing = {
        **scored,
        "case": "p2",
        "status": "no prediction",
        "mae": None,
        "ssim": None,
        "note": "no prediction: not scored",
    }
    html = write_report(tmp_path / "r.html", Report("T", [], {"m": [scored, missing]})).read_text(encoding="utf-8")
    page = Page(html)
    assert "psnr is infinite: no error is left in the range: p1 (m)" in page.text
    assert "no prediction: not scored: p2 (m)" in page.text
    assert page.text.count("–") == 5  # the mean PSNR, the PSNR of p1, and all three of p2


def test_an_empty_report_is_a_page(tmp_path):
    Page(write_report(tmp_path / "r.html", Report("T", [], {})).read_text(encoding="utf-8"))


def test_volumes_on_other_grids_or_bad_limits_are_refused(tmp_path):
    good = panel()
    moved = Volume(good.synthetic.array, Grid.regular(good.synthetic.grid.shape), unit="HU")
    bad = Panel("p9", good.source, moved, good.reference, None, 50)
    with pytest.raises(GeometryError, match="'p9': the synthetic is not on the reference's grid"):
        write_report(tmp_path / "r.html", Report("T", [], {}, [bad]))
    with pytest.raises(InputError, match="positive"):
        write_report(tmp_path / "r.html", Report("T", [], {}, [panel(error_limit=0)]))
    assert not (tmp_path / "r.html").exists()


def test_orientation_does_not_change_a_picture(tmp_path):
    straight = panel()
    turned = Panel(
        "p1",
        straight.source.reorient("LPS"),
        straight.synthetic.reorient("SAL"),
        straight.reference.reorient("PIR"),
        straight.mask,
        50,
        (0, 1000),
    )
    pages = [
        write_report(tmp_path / f"{number}.html", Report("T", [], {}, [shown])).read_text(encoding="utf-8")
        for number, shown in enumerate((straight, turned))
    ]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3.2, 17.9), (-0.013, 0.02), (5, 5), (0, 0), (-7, -7), (1e5, 3e6)])
def test_ticks_are_round_and_span_the_values(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 8
    assert np.diff(marks) == pytest.approx(marks[1] - marks[0])


def test_curves_are_drawn_to_scale():
    chart = draw_curve(Curve("loss", [(0, 0.0), (50, 10.0), (75, float("nan")), (100, 5.0)]))
    places = [tuple(map(float, place.split(","))) for place in chart.line[1:].split(" L")]
    width, height = chart.width, chart.height
    assert places == [(0, height), (width / 2, 0), (width, height / 2)]
    assert chart.last.label == "5"


def test_strips_join_the_dots_of_a_case():
    chart = draw_strips({"a": rows(10), "b": rows(20)[:2]})[0]
    assert len(chart.dots) == 5
    assert len(chart.joins) == 2
    assert len(chart.means) == 2
    assert chart.means[0].x == pytest.approx(np.mean([dot.x for dot in chart.dots[:3]]), abs=0.01)


def decode(uri):
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    image.load()
    return image
