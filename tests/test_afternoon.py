"""The guide to an afternoon with one's own data is walked as it stands, and prints what it shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medgan.phantoms import Patient, _motion

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/how-to/own-data.md"
BLOCK = re.compile(r"```(bash|)\n(.*?)```", re.DOTALL)
PASSING = re.compile(r"^[\w ]+: \d+ of \d+(, about .* left)?$|^Prepared cases kept in")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?![\w])")
NEAR, SHARE = 0.5, 0.1  # mm, HU or whatever is printed: other processors round otherwise
SLOW = ("train", "translate", "evaluate", "report")


def section(name: str) -> str:
    """The text below a heading, up to the next one of its kind."""
    return re.split(r"^## ", PAGE.read_text().split(f"\n## {name}\n")[1], flags=re.MULTILINE)[0]


def walk(name: str) -> Iterator[tuple[list[list[str]], list[str]]]:
    """Commands, and the lines that are shown below them; none where nothing is."""
    blocks = [(match[1], match[2]) for match in BLOCK.finditer(section(name))]
    for number, (language, text) in enumerate(blocks):
        if language == "bash":
            after = blocks[number + 1] if number + 1 < len(blocks) else ("bash", "")
            commands = [shlex.split(line) for line in text.replace("\\\n", " ").strip().splitlines()]
            yield commands, [] if after[0] == "bash" else after[1].splitlines()


def said(command: list[str], folder: Path) -> list[str]:
    """What a command prints, without progress and where the cache is; an error ends no walk: the page shows some."""
    assert command[0] == "medgan"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MEDGAN_CACHE": str(folder / "cache")}
    words = [sys.executable, "-m", *command]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return [line for line in (done.stderr + done.stdout).splitlines() if line and not PASSING.search(line)]


def parted(line: str) -> tuple[str, list[float]]:
    """A line without its numbers and the width of its columns, and the numbers."""
    return " ".join(NUMBER.sub("#", line).split()), [float(number) for number in NUMBER.findall(line)]


def assert_alike(seen: list[str], shown: list[str]) -> None:
    """The same lines in any order, but for numbers that are nearly equal."""
    ours, theirs = sorted(map(parted, seen)), sorted(map(parted, shown))
    assert [words for words, _ in ours] == [words for words, _ in theirs]
    for (words, mine), (_, wanted) in zip(ours, theirs, strict=True):
        assert all(abs(a - b) <= max(NEAR, SHARE * abs(b)) for a, b in zip(mine, wanted, strict=True)), (words, mine)


def errors_mm(folder: Path) -> list[float]:
    """How far places in each patient's brain are from where the motion that was planted puts them, means."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2000, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    at = directions * rng.uniform(size=(2000, 1)) ** (1 / 3) * [65, 80, 60] + [0, -15, 15]
    places = np.column_stack([at, np.ones(len(at))])
    found = []
    for path in folder.glob("prepared/*/provenance.json"):
        told = json.loads(path.read_text())
        disc = (folder / f"cases_series/{told['case']}_b/00001.dcm").readlink().parent.name
        motion = _motion(Patient(int(disc.removeprefix("disc")), 12, 0).rng(1))
        matrix = next(np.array(step["matrix_ras_mm"]) for step in told["steps"] if step["step"] == "register")
        found.append(float(np.linalg.norm((places @ (matrix - motion).T)[:, :3], axis=1).mean()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DICOM", "BIDS", "SynthRAD"])
def test_the_walk_prints_what_the_guide_shows(name: str, tmp_path: Path) -> None:
    """Up to the second check for all three; training and what follows for DICOM."""
    for place in ("configs", "medgan"):
        (tmp_path / place).symlink_to(ROOT / place)
    steps = 0
    for commands, shown in walk(name):
        if not shown or (name != "DICOM" and commands[0][1] in SLOW):
            continue
        lines = [line for command in commands for line in said(command, tmp_path)]
        assert_alike(lines, [line for line in shown if line])
        steps += 1
    assert steps >= 6
    if name == "DICOM":
        errors = errors_mm(tmp_path)
        told = re.search(r"off by ([\d.]+) mm in the median.* by ([\d.]+) mm in the\s+worst", PAGE.read_text())
        assert told is not None
        assert [np.median(errors), max(errors)] == pytest.approx([float(told[1]), float(told[2])], abs=0.05)


def test_each_walk_goes_from_looking_to_a_second_look() -> None:
    for name in ("DICOM", "BIDS", "SynthRAD"):
        verbs = [command[1] for commands, _ in walk(name) for command in commands]
        assert list(dict.fromkeys(verbs))[:5] == ["phantoms", "inspect", "index", "check", "prepare"]
        assert verbs.count("check") == 2


def test_a_number_that_is_off_is_noticed() -> None:
    shown = ["case  mae", "p1  112.9", "p2  98.1"]
    assert_alike(["case  mae", "p2  98.3", "p1  112.9"], shown)
    for wrong in (["case  mae", "p1  140.0", "p2  98.1"], ["case  mae", "p1  112.9"], ["case  psnr", *shown[1:]]):
        with pytest.raises((AssertionError, ValueError)):
            assert_alike(wrong, shown)
