"""What the docs show is run: python blocks as they stand, medgan commands against the real options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from typer.main import get_command

from medgan import Grid, Volume, write
from medgan.cli import app
from medgan.config import Config, SamplingConfig
from medgan.formats.dicom import Subject
from medgan.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every block in a language."""
    found = [(path, match) for path in PAGES for match in BLOCK.finditer(path.read_text())]
    return [(str(path.relative_to(ROOT)), match[2]) for path, match in found if match[1] == language]


def command_lines() -> list[tuple[str, list[str]]]:
    """(page, words) of every medgan command; a line may go on after a backslash, and end in a comment."""
    lines = [(page, line) for page, text in blocks("bash") for line in text.replace("\\\n", " ").splitlines()]
    words = [(page, shlex.split(line.partition(" #")[0])) for page, line in lines if re.match(r"\s*medgan ", line)]
    return [(page, line) for page, line in words if len(line) > 1 and line[1] in COMMANDS]


def make_volumes(folder: Path) -> None:
    """Three cases in folders `pred`, `ref` and `masks`, and DICOM in `scans`, for blocks that read files."""
    grid = Grid.regular((12, 12, 12))
    write(Volume(np.zeros(grid.shape, np.int16), grid, "HU", "CT"), folder / "scans" / "ct", subject=Subject())
    for case in ("case1", "case2", "case3"):
        array = np.random.default_rng(len(case)).normal(0, 300, grid.shape).astype(np.int16)
        write(Volume(array, grid, "HU", "CT"), folder / "ref" / f"{case}.nii.gz")
        write(Volume((array + 5).astype(np.int16), grid, "HU", "CT"), folder / "pred" / f"{case}.nii.gz")
        write(Volume(np.ones(grid.shape, np.uint8), grid, "label"), folder / "masks" / f"{case}.nii.gz")


@pytest.mark.parametrize(("page", "text"), blocks("python"), ids=lambda value: value if len(value) < 60 else "")
def test_python_blocks_run(page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_volumes(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, page, "exec"), {"__name__": "docs"})


@pytest.mark.parametrize(("page", "words"), command_lines(), ids=lambda value: value if isinstance(value, str) else "")
def test_commands_have_the_options_that_the_docs_give_them(page: str, words: list[str]) -> None:
    parameters = COMMANDS[words[1]].params
    options = {name for one in parameters for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    unknown = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
    assert set(unknown) <= options, f"{page}: {' '.join(words)}"


def test_there_is_something_to_run() -> None:
    assert len(blocks("python")) >= 3
    assert len(command_lines()) >= 20


def test_links_between_pages_lead_somewhere() -> None:
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def inner_settings(annotation: Any) -> list[type[Settings]]:
    """The classes of settings that a field may hold, within unions, tuples and dicts."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [one for part in get_args(annotation) for one in inner_settings(part)]


def keys(settings: type[Settings], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a config; those of groups are told by their table."""
    for name, field in settings.model_fields.items():
        groups = inner_settings(field.annotation)
        for group in groups:
            yield from keys(group, f"{prefix}{name}.")
        if not groups:
            yield f"{prefix}{name}"


def test_every_key_of_a_config_is_in_its_reference() -> None:
    told = (ROOT / "docs" / "reference" / "config.md").read_text()
    whole = {*keys(Config), *keys(SamplingConfig)}
    shared = re.compile(r"(prep\.\w+|conditions|weights\.regions)\.")  # whose keys one table tells, or an example

    def is_told(key: str) -> bool:
        leaf = key.rpartition(".")[2]
        by_leaf = f"`{leaf}`" in told or f"{leaf}:" in told
        return f"`{key}`" in told or f"`.{leaf}`" in told or (shared.match(key) is not None and by_leaf)

    assert len(whole) > 100
    assert [key for key in sorted(whole) if not is_told(key)] == []
