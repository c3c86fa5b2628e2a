"""On real brains: minutes-long trainings beat what needs no network, on patients that they have not seen."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from medgan import read
from medgan.cases import read_cases
from medgan.evaluate import summarise

TOOLS = Path(__file__).parents[1] / "tools"
MAPS = {"monotone intensity map", "mean target given source"}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("t1_to_flair")


def error_of_the_source(table: Path) -> float:
    """The mean absolute error of T1 taken for FLAIR, both with the median of their brain at 1000."""
    errors = []
    for case in read_cases(table, split="test"):
        inside = read(case.images["mask"]).array > 0
        t1, flair = (read(case.images[role]).array[inside] for role in ("a", "b"))
        errors.append(1000 * np.abs(t1 / np.median(t1) - flair / np.median(flair)).mean())
    return float(np.mean(errors))


@pytest.mark.slow
def test_three_models_with_equal_steps(tool: ModuleType, shared: Path, tmp_path: Path) -> None:
    """A third of the steps of the table in docs/models/index.md, on the same four scans of held-out people."""
    compare = importlib.import_module("compare_models")
    data, models = shared / "nichart_t1_flair_3d2mm", ["pix2pix", "supervised", "cyclegan"]
    short = ["train.steps=330", "train.validate_every=330"]
    results = compare.compare(tmp_path, data, models, short)
    assert set(results) == {*models, *MAPS}
    scored = [[row["case"] for row in rows] for rows in results.values()]
    assert scored == [["Subj07", "Subj15", "Subj16", "Subj18"]] * 5
    for model in models:
        lines = [json.loads(line) for line in (tmp_path / model / "run" / "metrics.jsonl").read_text().splitlines()]
        assert max(line["step"] for line in lines) == 330
    means = {
        method: {name: summarise(rows)[name]["mean"] for name in compare.METRICS[:3]}
        for method, rows in results.items()
    }
    for model in ("pix2pix", "supervised"):
        for method in MAPS:
            assert means[model]["mae"] < means[method]["mae"], (model, method)
            assert means[model]["ssim"] > means[method]["ssim"], (model, method)
    assert means["cyclegan"]["mae"] < 0.9 * error_of_the_source(tmp_path / "cases.csv")
    assert all(method in compare.table(results) for method in results)


def test_one_person_is_in_one_split(tool: ModuleType, shared: Path, tmp_path: Path) -> None:
    """Subj15 and Subj16 are the same person, which only the list of patients tells."""
    roles = {"a": "t1.nii.gz", "b": "flair.nii.gz", "mask": "brainmask.nii.gz"}
    data = shared / "nichart_t1_flair_3d2mm"
    for seed in range(4):
        cases = tool.index(data, **roles, out=tmp_path / f"{seed}.csv", seed=seed, patients=tool.PATIENTS)
        splits = {case.name: case.split for case in cases}
        assert splits["Subj15"] == splits["Subj16"]
        assert len({case.patient for case in cases}) == 12
