"""Evaluation of many cases: killed and taken up again, in bounded memory, and a page that stays small and quick."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from command_line import medgan

from medgan import Grid, Volume, progress, write
from medgan.evaluate import evaluate
from medgan.judge import report_of
from medgan.report import evaluation
from medgan.report.cases import CaseImages, CaseVolumes, read_case
from medgan.report.evaluation import evaluation_report
from medgan.report.scores import noted

GRID = Grid.regular((12, 11, 10), spacing_mm=(2, 2, 3))
PROGRAM = [sys.executable, "-c", "from medgan.cli import main; main()"]
Rows = list[dict[str, Any]]


def volumes(number: int) -> dict[str, Volume]:
    rng = np.random.default_rng(number)
    real = Volume(np.round(rng.normal(40, 200, GRID.shape)).astype(np.int16), GRID, "HU", "CT")
    wrong = real.with_array(real.array + np.round(rng.normal(number % 7, 20, GRID.shape)).astype(np.int16))
    return {"pred": wrong, "ref": real, "mask": Volume((real.array > -150).astype(np.uint8), GRID, "label")}


def cohort(home: Path, number: int) -> Path:
    for k in range(number):
        for role, one in volumes(k).items():
            write(one, home / role / f"p{k:04d}.nii")
    return home


def words(home: Path, out: str, *options: str) -> list[str]:
    return [
        "evaluate",
        str(home / "pred"),
        str(home / "ref"),
        "--mask",
        str(home / "mask"),
        "--out",
        str(home / out),
        *options,
    ]


def written(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name != "rows.jsonl"}


def num_kept(out: Path) -> int:
    kept = out / "rows.jsonl"
    return kept.read_text().count('"key"') if kept.exists() else 0


def broken_off(home: Path, way: signal.Signals, *, after: int, processes: int) -> subprocess.Popen[str]:
    """The command, stopped when so many more cases are scored; all its processes get what Ctrl-C sends."""
    before = num_kept(home / "out")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*PROGRAM, *words(home, "out", "--json", "--processes", str(processes))]
    running = subprocess.Popen(command, start_new_session=True, **pipes)
    until(lambda: num_kept(home / "out") >= before + after or running.poll() is not None)
    assert running.poll() is None, "it was done before it could be stopped"
    (os.kill if way is signal.SIGKILL else os.killpg)(running.pid, way)
    running.wait()
    return running


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


def lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux copies processes")
def test_killed_and_interrupted_it_leaves_no_process_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    home = cohort(tmp_path, 400)
    subprocess.run([*PROGRAM, *words(home, "whole")], check=True, capture_output=True)
    for way, processes in ((signal.SIGKILL, 2), (signal.SIGINT, 1), (signal.SIGINT, 2)):
        stopped = broken_off(home, way, after=40, processes=processes)
        until(lambda group=stopped.pid: not lives(group), 10)
        out, err = stopped.communicate()
        assert not out
        assert "Traceback" not in err
        assert not (home / "out" / "metrics.json").exists()
    assert 120 <= num_kept(home / "out") < 400
    subprocess.run([*PROGRAM, *words(home, "out", "--processes", "2")], check=True, capture_output=True)
    assert num_kept(home / "out") == 400
    assert written(home / "out") == written(home / "whole")


PEAK = """
import resource, sys
from medgan.cli import main
try: main()
finally:
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        print(resource.getrusage(who).ru_maxrss // 1024, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise elsewhere")
def test_ten_times_the_cases_need_the_memory_of_a_few_rows(tmp_path: Path) -> None:
    home = cohort(tmp_path, 1000)
    peaks = {}
    for number in (100, 1000):
        for k in range(number, 1000):
            (home / "pred" / f"p{k:04d}.nii").rename(home / f"p{k:04d}.nii")
        command = [sys.executable, "-c", PEAK, *words(home, str(number), "--processes", "2")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[number] = [int(line) for line in done.stderr.split()[-2:]]
        for k in range(number, 1000):
            (home / f"p{k:04d}.nii").rename(home / "pred" / f"p{k:04d}.nii")
    (parent, worker), (parent_of_few, worker_of_few) = peaks[1000], peaks[100]
    assert parent - parent_of_few < 40  # MB; all images are 8, rows and the page about 15
    assert worker - worker_of_few < 20


def test_progress_goes_to_standard_error_and_json_to_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    home = cohort(tmp_path, 3)
    (home / "pred" / "p0001.nii").write_bytes(b"")
    done = medgan(*words(home, "out", "--json"))
    assert [row["status"] for row in json.loads(done.out)] == ["scored", "refused", "scored"]
    assert "evaluate: 2 of 3" in done.err
    assert "report: 2 of 2" in done.err


# --- the page of many cases -------------------------------------------------------------------------------------------


def many(number: int) -> Rows:
    """Rows of cases with one error each, in an order of their own, a few not scored."""
    errors = np.random.default_rng(0).permutation(number) / 10 + 20
    held = {"preset": "synthrad2023", "range": [-1024.0, 3000.0], "mask": True, "unit": "HU", "dtype": "int16/int16"}
    rows: Rows = []
    for k, mae in enumerate(errors.tolist()):
        numbers = {"mae": mae, "mae_bone": 2 * mae, "psnr": 40 - mae / 100, "ssim": 1 - mae / 1000, "bias": -mae / 5}
        row = {
            "case": f"p{k:04d}",
            "patient": f"P{k // 2}",
            "status": "scored",
            "note": "a note of many",
            **held,
            **numbers,
        }
        rows.append(row | {"num_voxels": 99})
    for row in rows[5:50]:
        row |= {
            "status": "no prediction",
            "note": "no prediction: not scored",
            **dict.fromkeys(("mae", "psnr", "ssim")),
        }
    return rows


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows, list[CaseImages]]:
    """The page of 3,000 cases, their rows, and what was read for it."""
    folder = tmp_path_factory.mktemp("big")
    paths = {role: write(one, folder / f"{role}.nii") for role, one in volumes(0).items()}
    rows, read = many(3000), list[CaseImages]()

    def load(images: CaseImages) -> CaseVolumes:
        read.append(images)
        return read_case(images)

    cases = [CaseImages(row["case"], paths["pred"], paths["ref"], None, paths["mask"]) for row in rows]
    page = evaluation_report(rows, cases, folder / "r.html", provenance={}, settings={}, load=load)
    return page, rows, read


def test_a_hundred_cases_are_counted_from_the_worst_to_the_best_and_the_page_says_so(
    big: tuple[Path, Rows, list[CaseImages]],
) -> None:
    page, rows, read = big
    order = [row["case"] for row in sorted(rows, key=lambda row: -(row["mae"] or 0)) if row["mae"] is not None]
    counted, pictured = read[: evaluation.MOST_COUNTED], [one.case for one in read[evaluation.MOST_COUNTED :]]
    places = sorted(order.index(one.case) for one in counted)
    assert len(order) == 2955
    assert set(np.diff(places)) == {29, 30}
    assert (places[0], places[-1]) == (14, 2940)
    assert pictured == [*order[:3], order[len(order) // 2], order[-1]]
    text = page.read_text(encoding="utf-8")
    assert "Every voxel of the masks of 100 of 2955 cases, spread evenly from the worst to the best" in text
    assert text.count("</svg>") < 20
    assert len(text) < 5e6


def test_names_in_notes_and_rows_on_paper_are_cut(big: tuple[Path, Rows, list[CaseImages]]) -> None:
    text = big[0].read_text(encoding="utf-8")
    assert "no prediction: not scored: p0005, p0006," in text
    assert "p0024 and 25 more" in text
    assert "Printed are the 100 worst of 3000 cases by MAE" in text
    tables = text.split("<table ")[2:]
    assert [one.count('<th scope="row">') for one in tables] == [3000, 100]


@pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")
def test_the_table_of_3000_cases_sorts_in_its_own_box(big: tuple[Path, Rows, list[CaseImages]]) -> None:
    page, rows, _ = big
    with browser.chromium() as tab:
        tab.media()
        tab.open(page)
        assert tab.run("document.documentElement.scrollHeight") < 12_000
        assert tab.run("document.querySelector('.tall').getBoundingClientRect().height") < 900
        started = time.monotonic()
        tab.click("#case-table thead button", 3)
        assert time.monotonic() - started < 5
        names = tab.run("[...document.querySelectorAll('#case-table tbody th')].map((one) => one.textContent)")
        known = [row for row in rows if row["mae"] is not None]
        assert names[:2955] == [row["case"] for row in sorted(known, key=lambda row: row["mae"])]
        tab.run("document.querySelector('.tall').scrollTop = 9999")
        head = "document.querySelector('#case-table thead th').getBoundingClientRect().top"
        assert tab.run(f"{head} - document.querySelector('.tall').getBoundingClientRect().top") == pytest.approx(
            0, abs=2
        )
        tab.media("print")
        shown = "[...document.querySelectorAll('table.cases')].filter((one) => one.checkVisibility())"
        assert tab.run(f"{shown}.map((one) => one.tBodies[0].rows.length)") == [100]
        assert tab.log == []


def test_notes_that_differ_from_case_to_case_are_cut() -> None:
    note = "the range is the preset's; it needs 176 voxels, seen"
    told = noted([{"case": f"p{n}", "status": "scored", "note": f"{note} {n}"} for n in range(3000)])
    assert told[:2] == [("the range is the preset's", "every case"), ("it needs 176 voxels, seen 0", "p0")]
    assert (len(told), told[-1][0]) == (41, "2961 more notes")


def test_the_reason_of_a_refused_case_stays_whole() -> None:
    reason = "p2.nii: 1 of 9 voxels are NaN; replace them by a background value"
    assert noted([{"case": "p2", "status": "refused", "note": reason}]) == [(reason, "p2")]


def test_hashes_of_many_cases_are_told_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = cohort(tmp_path, 3)
    evaluate(home / "pred", home / "ref", out=home / "out")
    full = report_of(home / "out").read_text(encoding="utf-8")
    assert all(
        seen in full
        for case in json.loads((home / "out" / "metrics.json").read_text())["sha256"].values()
        for seen in case.values()
    )
    monkeypatch.setattr("medgan.judge._MOST_HASHED", 2)
    cut = report_of(home / "out").read_text(encoding="utf-8")
    assert len(re.findall(r"\b[0-9a-f]{64}\b", cut)) == 1
    assert "the files of 3 cases in metrics.json" in cut
