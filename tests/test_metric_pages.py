"""Every measure has one page in the docs that says of it what the code says, and whose example prints what it shows."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from medgan.metrics.measures import MEASURES, SET_MEASURES, Measure, base_of, measure
from medgan.metrics.presets import PRESETS

FOLDER = Path(__file__).parents[1] / "docs" / "metrics"
HEADINGS = [
    "Formula",
    "Unit and direction",
    "When there is no number",
    "Pitfalls",
    "Other tools",
    "Example",
    "Source",
]
PAGES = [path for path in sorted(FOLDER.glob("*.md")) if "\n## Unit and direction\n" in path.read_text()]
ROW = re.compile(r"^\| `([a-z0-9_]+?)(?:_<\w+>)?` \| (.+) \|$", re.MULTILINE)
EXAMPLE = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
DIRECTIONS = {"higher": "higher", "lower": "lower", "zero": "nearer to 0", "one": "nearer to 1", "": "neither"}
ALL = {*MEASURES.values(), *SET_MEASURES.values()}


def said_of(one: Measure) -> list[str]:
    """Unit and direction in the words of the pages."""
    unit = "of the images" + one.unit.removeprefix("image").replace("/", " per ") if "image" in one.unit else one.unit
    return [unit or "none", DIRECTIONS[one.better]]


def section(page: Path, heading: str) -> str:
    return page.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(page: Path, heading: str = "Unit and direction") -> list[tuple[str, list[str]]]:
    """(column, the other cells) of the table of a page."""
    return [(name, rest.split(" | ")) for name, rest in ROW.findall(section(page, heading))]


def owned(page: Path) -> set[Measure]:
    """The measures that a page is about."""
    return {
        SET_MEASURES[column] if "`medgan likeness`" in cells else MEASURES[base_of(column)]
        for column, cells in rows(page)
    }


def test_every_measure_has_one_page() -> None:
    assert Counter(one for page in PAGES for one in owned(page)) == Counter(ALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_named_by_its_measure_and_has_all_headings(page: Path) -> None:
    assert page.stem in {one.name for one in owned(page)}
    assert [line[3:] for line in page.read_text().splitlines() if line.startswith("## ")] == HEADINGS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_units_and_directions_are_those_of_the_code(page: Path) -> None:
    for column, cells in rows(page):
        one = SET_MEASURES[column] if "`medgan likeness`" in cells else measure(column)
        assert cells[:2] == said_of(one), column


def test_the_table_of_all_is_that_of_the_code() -> None:
    told = sorted((name, *cells[:3]) for name, cells in rows(FOLDER / "index.md", "All measures"))
    pages = {one: page.name for page in PAGES for one in owned(page)}
    assert told == sorted((one.name, f"[{one.label}]({pages[one]})", *said_of(one)) for one in ALL)


def test_the_table_of_all_names_the_presets_that_have_a_measure() -> None:
    originals = {name for name in PRESETS if not name.endswith("-fixed")}
    for name, cells in rows(FOLDER / "index.md", "All measures"):
        told = originals if "every preset" in cells[-1] else {one for one in originals if f"`{one}`" in cells[-1]}
        have = {one for one in originals if name in map(base_of, PRESETS[one].metrics)}
        assert told == have or "`medgan likeness`" in cells, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_an_example_prints_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = EXAMPLE.findall(section(page, "Example"))[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page.name, "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out == shown
