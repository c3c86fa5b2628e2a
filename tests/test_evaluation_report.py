"""The report of an evaluation: its pictures against the volumes, its page in a browser, its tables for a paper."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import browser
import numpy as np
import pytest
from PIL import Image
from test_report import Page

from medgan import Grid, Synthesis, Volume, write
from medgan.errors import GeometryError, InputError
from medgan.evaluate import score, summarise
from medgan.phantom import head, patient_grid
from medgan.pictures import slice_picture
from medgan.prep import Intensity, in_contract_unit
from medgan.report import evaluation, gallery, viewer
from medgan.report.cases import CaseImages, read_case
from medgan.report.evaluation import evaluation_report
from medgan.report.gallery import Panel, cropped, on_one_grid
from medgan.report.paper import latex, paper_tables
from medgan.report.viewer import MOST_SLICES, view

NAMES = ("p10", "p2", "Ünïcødé-漢字", "<script>alert('x')</script>", 'o\'Brien & "Söhne"/2')


# --- pictures ---------------------------------------------------------------------------------------------------------


def volume(seed, shape=(40, 44, 30), spacing=(1.0, 1.0, 3.0), unit="HU"):
    x, y, z = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    array = 300 * np.sin(x + seed) * np.cos(2 * y) + 200 * z
    return Volume(array.astype(np.float32), Grid.regular(shape, spacing_mm=spacing), unit, "CT")


def panel(seed=0, **options):
    ref = volume(seed, **options)
    made = ref.with_array(ref.array * 0.9).marked(Synthesis("pix2pix", "ab" * 32, "1.0"))
    return Panel("p1", None, made, ref, None, 100.0, window=(-300, 900))


def decoded(uri):
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    image.load()
    return image


@pytest.mark.parametrize("turned", ["RAS", "LPI", "SAR"])
def test_sheets_hold_the_slices_of_the_volumes(turned):
    shown = panel()
    shelf = view(Panel("p1", None, shown.synthetic.reorient(turned), shown.reference, None, 1.0, (-300, 900)), "why", 1)
    volumes = cropped(on_one_grid(shown))
    assert [stack.axis for stack in shelf.stacks] == ["axial", "coronal", "sagittal"]
    for stack, across in zip(shelf.stacks, (2, 1, 0), strict=True):
        length = shown.reference.array.shape[across]
        number = min(length, MOST_SLICES)
        assert len(stack.places) == number <= stack.columns * stack.rows < number + stack.columns
        for role, uri in (("synthetic", stack.made), ("reference", stack.real)):
            sheet = np.asarray(decoded(uri).convert("L"), dtype=float)
            assert sheet.shape == (stack.rows * stack.height, stack.columns * stack.width)
            for k in (0, number // 2, number - 1):
                index = int((k + 0.5) * length / number)
                expected = slice_picture(
                    volumes[role], stack.axis, index, window=(-300, 900), longest_px=viewer.LONGEST_PX
                )
                top, left = k // stack.columns * stack.height, k % stack.columns * stack.width
                tile = sheet[top : top + stack.height, left : left + stack.width]
                assert np.abs(tile - expected).mean() < 3


def test_pictures_have_the_shape_of_the_body():
    axial, coronal, sagittal = view(panel(), "", 1).stacks
    extent = {"x": 40.0, "y": 44.0, "z": 90.0}
    for stack, (across, up) in ((axial, "xy"), (coronal, "xz"), (sagittal, "yz")):
        assert stack.width / stack.height == pytest.approx(extent[across] / extent[up], rel=0.02)
        assert max(stack.width, stack.height) == viewer.LONGEST_PX
    assert [stack.sides for stack in (axial, coronal, sagittal)] == ["RLAP", "RLSI", "APSI"]
    assert axial.places[0] == "0 mm S"
    assert axial.places[-1] == "87 mm S"


def test_only_the_synthetic_sheet_says_that_it_is_synthetic():
    for stack in view(panel(), "", 1).stacks:
        assert (
            b"algorithmicMedia" in decoded(stack.made).info["xmp"]
            or b"trainedAlgorithmicMedia" in decoded(stack.made).info["xmp"]
        )
        assert "xmp" not in decoded(stack.real).info or not decoded(stack.real).info["xmp"]
        assert "synthetic" in stack.made_alt
        assert "synthetic" not in stack.real_alt


def test_single_slices_and_constant_or_broken_images_make_sheets():
    for array in (np.zeros((5, 4, 1)), np.full((5, 4, 3), np.nan), np.full((1, 1, 1), np.inf)):
        flat = Volume(array, Grid.regular(array.shape), "HU")
        shelf = view(Panel("p", None, flat, flat, None, 1.0), "", 1)
        assert all(len(stack.places) >= 1 for stack in shelf.stacks)


def test_what_lies_on_another_grid_is_resampled_and_marked(tmp_path):
    ref = volume(0)
    coarse = Volume(
        volume(0, (20, 22, 15)).array, Grid.regular((20, 22, 15), spacing_mm=(2, 2, 6), origin_mm=(0.5, 0.5, 1.5)), "HU"
    )
    write(ref, tmp_path / "ref.nii.gz")
    write(coarse, tmp_path / "pred.nii.gz")
    found = read_case(CaseImages("p", tmp_path / "pred.nii.gz", tmp_path / "ref.nii.gz", tmp_path / "pred.nii.gz"))
    assert found.pred.array.shape == found.source.array.shape == ref.array.shape
    assert found.pred.synthetic.model == "an unknown model"
    assert found.ref.synthetic is None
    assert found.mask is None
    away = Volume(coarse.array, Grid.regular((20, 22, 15), origin_mm=(900, 0, 0)), "HU")
    write(away, tmp_path / "away.nii.gz")
    with pytest.raises(GeometryError):
        read_case(CaseImages("p", tmp_path / "away.nii.gz", tmp_path / "ref.nii.gz"))


# --- the page ---------------------------------------------------------------------------------------------------------


def blank(row, case="lost/one"):
    kept = {"case": case, "status": "no prediction", "note": "no prediction: not scored", "unit": "", "dtype": ""}
    return {**dict.fromkeys(row), **kept, "preset": row["preset"], "range": row["range"], "mask": False}


def scored_case(folder, number, case):
    phantom = head(number, grid=patient_grid(0, number + 1, size=32))
    ct = phantom.ct.array.astype(np.float32)
    noise = np.random.default_rng(number).normal(0, 10 + 8 * number, ct.shape)
    made = phantom.ct.with_array(np.rint(0.9 * ct + noise).astype(np.int16)).marked(Synthesis("pix2pix", "ab" * 32))
    acquired = {"ref": phantom.ct, "source": phantom.mr, "mask": phantom.body}
    volumes = {"pred": made} | {role: replace(one, synthetic=None) for role, one in acquired.items()}
    paths = {role: write(one, folder / f"{number}_{role}.nii.gz") for role, one in volumes.items()}
    row = score(made, volumes["ref"], volumes["mask"], case=case)
    bone = (phantom.ct.array > 300) & (phantom.body.array != 0)
    error = float(np.abs(made.array - ct)[bone].mean())
    parts = {"mae_bone": error, "mae_soft_tissue": error / 3, "bias_bone": -error, "dice_bone": 0.9, "hd95_bone": 2.5}
    return {**row, **parts, "patient": f"P{number // 2}"}, CaseImages(
        case, *(paths[role] for role in ("pred", "ref", "source", "mask"))
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Rows of five scored cases and one without a prediction, and the images of the five."""
    folder = tmp_path_factory.mktemp("images")
    found = [scored_case(folder, number, case) for number, case in enumerate(NAMES)]
    rows = [row for row, _ in found]
    return [*rows, blank(rows[0])], [images for _, images in found]


@pytest.fixture(scope="module")
def path(evaluated, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "new" / "report.html"
    provenance = {"versions": {"medgan": "1.0"}, "sha256": {case: {"pred": "ab" * 32} for case in NAMES}, "seed": 0}
    config = {"preset": "synthrad2023", "value_range": None, "note": "</script><b>x"}
    assert evaluation_report(*evaluated, target, provenance=provenance, settings=config, title="A <b>& B") == target
    return target


@pytest.fixture(scope="module")
def page(path):
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_is_whole_escaped_and_loads_nothing(path, page):
    html = path.read_text(encoding="utf-8")
    for text in ("<script>alert", "<b>& B", "</script><b>x"):
        assert text not in html
    assert len(page.all("script")) == 1
    for _, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,", "data:image/webp;base64,"))
    assert not re.search(r"https?://|url\(|@import", html)
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    for text in (*NAMES, "A <b>& B", "</script><b>x", "Not for diagnostic use.", f"p10: pred {'ab' * 32}"):
        assert text in page.text


def test_the_summary_is_that_of_the_rows_and_says_what_is_missing(page, evaluated):
    rows, _ = evaluated
    assert "5 of 6 cases were scored; 1 no prediction." in page.text
    assert "no prediction: not scored: lost/one" in page.text
    mae = summarise(rows)["mae"]
    assert f"{mae['mean']:.1f} [{mae['bca95_low']:.1f} to {mae['bca95_high']:.1f}]" in re.sub(r"\s+", " ", page.text)
    assert "Preset synthrad2023, range −1024 to 3000 HU, predictions read as int16" in page.text


def test_every_case_has_its_numbers(page, evaluated):
    rows, _ = evaluated
    names = [name for name in summarise(rows) if any(row[name] is not None for row in rows)]
    shown = {float(attrs["value"]) for attrs in page.all("data")}
    assert {row[name] for row in rows for name in names if row[name] is not None} <= shown


def test_synthetic_pictures_say_so_and_others_do_not(page):
    pictures = [(attrs["src"], attrs["alt"]) for attrs in page.all("img") if "pictures of" not in attrs["alt"]]
    assert len(pictures) == 3 * (3 * 4 + 1) + 3 * 3 * 2
    for uri, alt in pictures:
        image = decoded(uri)
        marked = "Synthetic" in getattr(image, "text", {}) or b"lgorithmicMedia" in image.info.get("xmp", b"")
        assert marked == ("synthetic" in alt), alt
    assert page.text.count("synthetic") > 0
    tags = [attrs for attrs in page.all("span") if attrs.get("class") in ("tag", "tag made")]
    assert len(tags) == 3 * 3 + 3 * 3


def test_the_worst_cases_are_hung_and_the_best_and_median_can_be_paged(page, evaluated):
    rows, _ = evaluated
    worst = sorted((row for row in rows if row["mae"] is not None), key=lambda row: -row["mae"])
    assert [attrs["aria-label"] for attrs in page.all("section", **{"class": "exhibit"})] == [
        f"Case {row['case']}" for row in worst[:3]
    ]
    assert [attrs["aria-label"] for attrs in page.all("section", **{"class": "viewer"})] == [
        f"Slices of case {worst[k]['case']}" for k in (0, 2, 4)
    ]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes a page, its pictures small, and parses it."""
    monkeypatch.setattr(viewer, "LONGEST_PX", 40)
    monkeypatch.setattr(gallery, "_LONGEST_PX", 40)

    def parsed(rows, cases, **options):
        target = evaluation_report(rows, cases, tmp_path / "r.html", provenance={}, settings={}, **options)
        return Page(target.read_text(encoding="utf-8"))

    return parsed


def test_images_are_read_one_case_at_a_time_and_sources_only_to_be_shown(evaluated, written):
    read = []

    def load(images):
        read.append(images)
        return read_case(images)

    rows, cases = evaluated
    written(rows, cases, load=load, num_worst=1)
    assert [one.case for one in read[:5]] == list(NAMES)
    assert all(one.source is None for one in read[:5])
    assert len(read) == 5 + 3


def test_no_case_has_to_be_hung(evaluated, written):
    page = written(*evaluated, num_worst=0)
    assert page.all("section", **{"class": "exhibit"}) == []
    assert len(page.all("section", **{"class": "viewer"})) == 3


def test_another_metric_ranks_the_cases(evaluated, written):
    rows, cases = evaluated
    best = max(rows, key=lambda row: row["mae"] or 0)["case"]
    turned = [{**row, "psnr": -row["psnr"]} if row["psnr"] is not None else row for row in rows]
    shown = written(turned, cases, worst_by="psnr").all("section", **{"class": "viewer"})
    assert shown[-1]["aria-label"] == f"Slices of case {best}"
    with pytest.raises(InputError, match="'hd95' was not computed"):
        written(rows, cases, worst_by="hd95")


def test_what_is_infinitely_good_is_shown_as_such_and_ranked_as_the_best(evaluated, written):
    rows, cases = evaluated
    rows = [{**rows[0], "psnr": None, "infinite": "psnr"}, *rows[1:]]
    page = written(rows, cases, worst_by="psnr")
    assert [attrs["aria-label"] for attrs in page.all("section", **{"class": "viewer"})][
        -1
    ] == f"Slices of case {NAMES[0]}"
    assert "Infinity" in {attrs["value"] for attrs in page.all("data")}
    text = re.sub(r"\s+", " ", page.text)
    assert "4 + 1 ∞" in text
    assert "∞: infinitely good, as PSNR without an error, and in no mean." in text
    assert "PSNR ∞ dB" in written(rows, cases[:1], worst_by="psnr").text
    assert "infinitely good" not in written(*evaluated).text


def test_pages_of_few_or_no_cases(evaluated, written):
    rows, cases = evaluated
    written([], [])
    assert "0 of 1 case was scored; 1 no prediction." in written(rows[-1:], []).text
    assert written(rows, []).all("img") == []
    one = written(rows[:1], cases[:1])
    assert [attrs["aria-label"] for attrs in one.all("section", **{"class": "viewer"})] == ["Slices of case p10"]
    two = written(rows[:2], cases)
    assert len(two.all("section", **{"class": "viewer"})) == 2
    bare = CaseImages("p10", cases[0].pred, cases[0].ref)
    assert len(written(rows[:1], [bare]).all("img")) == 3 * 3 + 1 + 6


def test_images_that_are_gone_or_differ_in_unit(evaluated, tmp_path, written):
    rows, cases = evaluated
    with pytest.raises(InputError, match="gone"):
        written(rows, [CaseImages("p10", tmp_path / "gone.nii.gz", cases[0].ref)])
    mixed = [{**rows[0], "unit": "a.u."}, *rows[1:]]
    assert written(mixed, cases).all("img") == []


def test_ranges_of_other_units_are_told_and_taken_from_the_images(evaluated, written):
    rows, cases = evaluated
    other = [{**row, "unit": "a.u.", "range": [0.0, 1.0 + k % 2]} for k, row in enumerate(rows[:5])]
    page = written(other, cases)
    assert "range 0 to (1 … 2, by case) a.u." in page.text
    told = re.search(r"Values beyond −?(\d+)\S* to (\d+)\S* a\.u\.", page.text)
    assert told
    assert int(told[2]) > 500


@pytest.mark.slow
def test_twenty_cases_of_noise_stay_below_ten_megabytes(tmp_path):
    rng, shape = np.random.default_rng(0), (256, 256, 64)
    grid = Grid.regular(shape, spacing_mm=(1, 1, 3))
    rows, cases = [], []
    for number in range(20):
        images = [Volume(rng.normal(0, 300, shape).astype(np.int16), grid, "HU", "CT") for _ in range(3)]
        paths = [write(one, tmp_path / f"{number}_{k}.nii") for k, one in enumerate(images)]
        numbers = {"mae": 100.0 + number, "range": [-1024.0, 3000.0], "preset": "p", "mask": False, "unit": "HU"}
        rows.append({"case": f"p{number}", "status": "scored", "dtype": "int16/int16", "note": "", **numbers})
        cases.append(CaseImages(f"p{number}", *paths))
    target = evaluation_report(rows, cases, tmp_path / "r.html", provenance={}, settings={})
    assert 4e6 < target.stat().st_size < 10e6


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    if browser.CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with browser.chromium() as one:
        yield one


@pytest.fixture
def tab(chromium, path):
    chromium.media()
    chromium.open(path)
    yield chromium
    assert chromium.log == []
    assert [url for url in chromium.requests if not url.startswith("data:")] == [path.as_uri()]


def test_the_browser_sees_errors_and_requests(chromium, tmp_path):
    """The proof that the tests below could fail."""
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.warn("oh"); throw new Error("no")</script>')
    chromium.media()
    chromium.resize(400)
    chromium.call("Page.navigate", url=bad.as_uri())
    chromium.run("new Promise((done) => setTimeout(done, 300))")
    assert any("Error: no" in line for line in chromium.log)
    assert any("oh" in line for line in chromium.log)
    assert "http://127.0.0.1:9/x.png" in chromium.requests


def column(tab, number=0):
    cells = f"[...document.querySelectorAll('#case-table tbody tr')].map((row) => row.cells[{number}].textContent)"
    return tab.run(cells)


def heads(tab):
    return tab.run(
        "[...document.querySelectorAll('#case-table thead th')].map((head) => head.innerText.split('\\n')[0].trim())"
    )


def sorts(tab):
    return tab.run("[...document.querySelectorAll('#case-table thead th')].map((head) => head.ariaSort)")


def test_the_table_sorts_by_click_and_missing_numbers_come_last(tab, evaluated):
    rows = [row for row in evaluated[0] if row["mae"] is not None]
    assert set(sorts(tab)) == {"none"}
    expected = [row["case"] for row in sorted(rows, key=lambda row: row["psnr"])]
    place = heads(tab).index("PSNR")
    tab.click("#case-table thead button", place)
    assert column(tab) == [*expected, "lost/one"]
    assert sorts(tab)[place] == "ascending"
    tab.click("#case-table thead button", place)
    assert column(tab) == [*expected[::-1], "lost/one"]
    assert sorts(tab).count("descending") == 1


def test_infinite_numbers_are_greater_than_all_others(chromium, evaluated, tmp_path):
    rows, _ = evaluated
    rows = [rows[0], {**rows[1], "psnr": None, "infinite": "psnr"}, {**rows[2], "psnr": None}, *rows[3:5]]
    chromium.media()
    chromium.open(evaluation_report(rows, [], tmp_path / "r.html", provenance={}, settings={}))
    chromium.click("#case-table thead button", heads(chromium).index("PSNR"))
    assert column(chromium)[3:] == [NAMES[1], NAMES[2]]
    chromium.click("#case-table thead button", heads(chromium).index("PSNR"))
    assert column(chromium)[0] == NAMES[1]
    assert column(chromium)[-1] == NAMES[2]


def test_the_table_sorts_by_keyboard_and_names_by_their_numbers(tab):
    tab.focus("#case-table thead button", 0)
    tab.press("Enter")
    names = column(tab)
    assert names.index("p2") < names.index("p10")
    assert sorts(tab)[0] == "ascending"
    tab.press(" ")
    assert column(tab) == names[::-1]
    assert sorts(tab)[0] == "descending"


def test_the_slices_page_by_mouse_and_keyboard(tab):
    before = tab.pixels(".compare", 1)
    places = tab.run("document.querySelectorAll('.slice')[1].dataset.places").split("|")
    tab.focus(".slice", 1)
    tab.press("ArrowRight", 3)
    after = tab.pixels(".compare", 1)
    assert np.abs(after.astype(int) - before).max() > 30
    middle = len(places) // 2
    assert tab.run("document.querySelectorAll('.stack output')[1].textContent") == places[middle + 3]
    assert tab.run("document.querySelectorAll('.slice')[1].getAttribute('aria-valuetext')") == places[middle + 3]
    tab.click(".slice", 1, at=(0.01, 0.5))
    assert tab.run("document.querySelectorAll('.slice')[1].value") == "0"
    assert np.abs(tab.pixels(".compare", 1).astype(int) - after).max() > 30
    tab.press("End")
    assert tab.run("document.querySelectorAll('.stack output')[1].textContent") == places[-1]


def test_the_page_shows_the_slice_that_the_slider_names(tab):
    """The whole synthetic layer beside the tile of its sheet."""
    tab.run("document.querySelector('.stack').style.setProperty('--cut', '100%')")
    stack = "document.querySelector('.stack')"
    sheet = decoded(tab.run(f"{stack}.querySelector('.layer.made img').src")).convert("L")
    columns, rows = tab.run(f"['--columns', '--rows'].map((name) => Number({stack}.style.getPropertyValue(name)))")
    width, height = sheet.width // columns, sheet.height // rows
    for number in (0, columns + 1):
        tab.run(f"document.querySelector('.slice').value = {number}")
        tab.run("document.querySelector('.slice').dispatchEvent(new Event('input'))")
        seen = Image.fromarray(tab.pixels(".compare")).convert("L")
        left, top = number % columns * width, number // columns * height
        tile = sheet.crop((left, top, left + width, top + height)).resize(seen.size, Image.Resampling.BILINEAR)
        inner = (slice(30, -30), slice(30, -30))
        assert np.corrcoef(np.asarray(seen)[inner].ravel(), np.asarray(tile)[inner].ravel())[0, 1] > 0.97


def cut(tab, number=0):
    return float(tab.run(f"document.querySelectorAll('.stack')[{number}].style.getPropertyValue('--cut')").rstrip("%"))


def test_the_handle_moves_by_mouse_and_keyboard(tab):
    before = tab.pixels(".compare")
    tab.drag(".cut", 0, (0.5, 0.5), (0.9, 0.5))
    assert cut(tab) == pytest.approx(90, abs=4)
    after = tab.pixels(".compare")
    changed = np.abs(after.astype(int) - before).max(axis=(0, 2)) > 8
    between = slice(int(0.55 * changed.size), int(0.85 * changed.size))
    assert changed[between].mean() > 0.6
    assert changed[: int(0.4 * changed.size)].mean() < 0.1
    tab.focus(".cut", 0)
    tab.press("ArrowLeft", 5)
    assert cut(tab) == pytest.approx(85, abs=4)


def test_arrows_up_and_down_on_a_picture_page_through(tab):
    tab.focus(".cut", 2)
    value = int(tab.run("document.querySelectorAll('.slice')[2].value"))
    before = tab.pixels(".compare", 2)
    tab.press("ArrowUp", 2)
    assert int(tab.run("document.querySelectorAll('.slice')[2].value")) == value + 2
    assert (tab.pixels(".compare", 2) != before).any()
    tab.press("ArrowDown", 99)
    assert tab.run("document.querySelectorAll('.slice')[2].value") == "0"
    assert tab.run("document.querySelectorAll('.cut')[2].value") == "50"


def test_everything_that_can_be_used_can_be_reached_by_tab(tab):
    tab.run("document.querySelector('.skip').focus()")
    seen = set()
    for _ in range(200):
        tab.press("Tab")
        seen.add(tab.run("document.activeElement.className + document.activeElement.tagName"))
    assert {"cutINPUT", "sliceINPUT", "BUTTON", "scrollDIV"} <= seen


TOO_WIDE = """[...document.querySelectorAll('body *')]
    .filter((one) => one.getBoundingClientRect().width && one.getBoundingClientRect().right > innerWidth + 1)
    .filter((one) => !one.closest('.layer, .scroll, figure, .hidden'))
    .map((one) => one.tagName + '.' + one.className)"""


def test_a_narrow_window_needs_no_sideways_scrolling(tab):
    tab.resize(400)
    assert tab.run("document.documentElement.scrollWidth") <= 400
    assert tab.run(TOO_WIDE) == []


def test_print_cuts_nothing_and_shows_middle_slices(tab):
    tab.focus(".slice", 0)
    middle = tab.pixels(".compare", 0).shape
    tab.press("End")
    tab.resize(690)
    tab.media("print")
    assert middle
    assert tab.run("document.documentElement.scrollWidth") <= 690
    boxes = "[...document.querySelectorAll('.scroll, figure, pre, table')]"
    assert tab.run(f"{boxes}.filter((one) => one.scrollWidth > one.clientWidth + 1).length") == 0
    assert tab.run(TOO_WIDE.replace(", .scroll, figure", "")) == []
    left = "getComputedStyle(document.querySelector('.layer img')).left"
    first = "document.querySelector('.stack').style.getPropertyValue('--middle-column')"
    width = tab.run("document.querySelector('.layer').getBoundingClientRect().width")
    assert float(tab.run(left).removesuffix("px")) == pytest.approx(-width * int(tab.run(first)), abs=1)
    shown = tab.run("[...document.querySelectorAll('.slice, .cut')].filter((one) => one.checkVisibility()).length")
    assert shown == 0
    printed = tab.run(
        "[...document.querySelectorAll('table.cases')].filter((one) => one.checkVisibility())"
        ".flatMap((one) => [...one.tHead.rows[0].cells].filter((cell) => cell.matches(':not(.text, :first-child)')))"
        ".map((cell) => cell.innerText.split('\\n')[0].trim())"
    )
    listed = tab.run("[...document.querySelectorAll('.summary tbody th')].map((one) => one.innerText.trim())")
    assert len(listed) > 6
    assert all(full.startswith(name) for full, name in zip(listed, printed, strict=True))
    assert tab.pdf().startswith(b"%PDF")


def test_dark_and_light_differ_and_text_stands_out(tab):
    ink = "getComputedStyle(document.querySelector('#case-table tbody td')).color"
    light = tab.run(ink)
    tab.media("screen", "dark")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert tab.run(ink) != light
    sticky = "getComputedStyle(document.querySelector('#case-table tbody th')).backgroundColor"
    assert tab.run(sticky) == "rgb(20, 23, 27)"


def test_pages_of_other_reports_keep_their_policy_of_no_scripts():
    source = Path(evaluation.__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    assert "script-src" not in source


def test_predictions_in_normalised_values_are_shown_beside_references_in_the_same(tmp_path):
    mr = head(0, grid=patient_grid(0, 1, size=32)).mr
    made = in_contract_unit(mr, Intensity(modality="MR", times_median=(0, 2)))
    write(mr, tmp_path / "ref.nii.gz")
    write(made.marked(Synthesis("pix2pix")), tmp_path / "pred.nii.gz")
    found = read_case(CaseImages("p", tmp_path / "pred.nii.gz", tmp_path / "ref.nii.gz"))
    assert found.pred.unit == found.ref.unit == "normalised"
    assert found.pred.array == pytest.approx(found.ref.array, rel=1e-5, abs=1e-3)


# --- tables for a paper -----------------------------------------------------------------------------------------------


def test_tables_for_a_paper_hold_the_numbers(evaluated, tmp_path):
    rows, _ = evaluated
    summary, tex, cases = paper_tables(rows, tmp_path / "paper")
    with summary.open(encoding="utf-8", newline="") as file:
        lines = {line["metric"]: line for line in csv.DictReader(file)}
    expected = summarise(rows)
    assert list(lines) == list(expected)
    assert lines["psnr"]["better"] == "higher is better"
    assert lines["mae_bone"]["unit"] == "HU"
    for name, numbers in expected.items():
        assert [float(lines[name][key] or "nan") for key in numbers] == [
            pytest.approx(math.nan if value is None else value, rel=1e-12, nan_ok=True) for value in numbers.values()
        ]
    with cases.open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [line["case"] for line in listed] == [*NAMES, "lost/one"]
    assert float(listed[2]["mae"]) == rows[2]["mae"]
    assert listed[-1]["mae"] == ""
    text = tex.read_text(encoding="utf-8")
    mae = expected["mae"]
    spread, interval = rf"{mae['mean']:.1f} $\pm$ {mae['sd']:.1f}", f"{mae['bca95_low']:.1f}, {mae['bca95_high']:.1f}"
    assert rf"MAE [HU] $\downarrow$ & {spread} & {interval} & " in text
    body = [line for line in text.splitlines() if " & " in line]
    assert all(line.count("&") == 4 and line.endswith(r"\\") for line in body)
    assert len(body) == 1 + len(expected)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    assert re.search(r"\\toprule.*\\midrule.*\\bottomrule", text, re.DOTALL)


def test_one_case_and_none_make_tables(evaluated, tmp_path):
    rows, _ = evaluated
    _, tex, _ = paper_tables(rows[:1], tmp_path)
    assert f"MAE [HU] $\\downarrow$ & {rows[0]['mae']:.1f} & -- & {rows[0]['mae']:.1f}" in tex.read_text(
        encoding="utf-8"
    )
    summary, _, cases = paper_tables([], tmp_path)
    assert len(summary.read_text().splitlines()) == len(cases.read_text().splitlines()) == 1


def test_latex_has_no_bare_special_letter():
    assert latex("a_b & 50% of #1 {x} ~ ^ $5 \\ σ − ±") == (
        r"a\_b \& 50\% of \#1 \{x\} \textasciitilde{} \textasciicircum{} \$5 \textbackslash{} $\sigma$ $-$ $\pm$"
    )
