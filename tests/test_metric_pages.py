"""Every measure has one page in the docs that says of it what the code says, and whose example prints what it shows."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from medgan.metrics.measures import MEASURES, Measure, measure

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


def said_of(one: Measure) -> tuple[str, str]:
    """Unit and direction in the words of the pages."""
    unit = "of the images" + one.unit.removeprefix("image").replace("/", " per ") if "image" in one.unit else one.unit
    return unit or "none", DIRECTIONS[one.better]


def base(column: str) -> str:
    """The measure that a column, such as `ssim_2d`, is one of."""
    return max((name for name in MEASURES if f"{column}_".startswith(f"{name}_")), key=len)


def section(page: Path, heading: str) -> str:
    return page.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(page: Path) -> list[tuple[str, list[str]]]:
    """(column, the other cells) of the table of a page."""
    return [(name, rest.split(" | ")) for name, rest in ROW.findall(section(page, "Unit and direction"))]


def test_every_measure_has_one_page() -> None:
    owners = Counter(name for page in PAGES for name in {base(column) for column, _ in rows(page)})
    assert owners == Counter(MEASURES.keys())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_named_by_its_measure_and_has_all_headings(page: Path) -> None:
    assert page.stem in {base(column) for column, _ in rows(page)}
    assert [line[3:] for line in page.read_text().splitlines() if line.startswith("## ")] == HEADINGS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_units_and_directions_are_those_of_the_code(page: Path) -> None:
    for column, (unit, better, *_) in rows(page):
        assert (unit, better) == said_of(measure(column)), column


def test_the_table_of_all_is_that_of_the_code() -> None:
    told = {name: rest.split(" | ") for name, rest in ROW.findall((FOLDER / "index.md").read_text())}
    told = {name: cells for name, cells in told.items() if len(cells) == 4}
    owner = {base(column): page.name for page in PAGES for column, _ in rows(page)}
    wanted = {name: [f"[{one.label}]({owner[name]})", *said_of(one)] for name, one in MEASURES.items()}
    assert {name: cells[:3] for name, cells in told.items()} == wanted


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_an_example_prints_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = EXAMPLE.findall(section(page, "Example"))[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page.name, "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out == shown
