"""The studies that the docs quote, on thumb-sized images: who is held out, and that numbers are what they say."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import tiny_pair
from scipy.stats import norm

from medgan import Volume, read, write
from medgan.cases import read_cases
from medgan.formats.sidecar import sidecar_path
from medgan.prep import in_contract_unit
from medgan.run import open_run

Array = npt.NDArray[Any]
TOOLS = Path(__file__).parents[1] / "tools"
TINY = ["train.steps=2", "train.batch=2", "model.generator.width=2"]
TINY_JUDGE = ["model.discriminator.width=4", "model.discriminator.num_layers=1"]


@pytest.fixture(scope="module")
def tools() -> Iterator[None]:
    """The scripts import one another by their names, as they do when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        yield


def scans(folder: Path, names: list[str]) -> Path:
    """A folder a patient: T1, T2 and FLAIR that follow from one another, zero outside a ball, and a mask of it."""
    for seed, name in enumerate(names):
        t1, _ = tiny_pair(seed)
        ball = t1.array > 100
        images = {"t1": t1.array, "t2": 900 - t1.array, "flair": 200 + t1.array // 2}
        for role, array in images.items():
            write(t1.with_array(np.where(ball, array, 0).astype(np.int16)), folder / name / f"{role}.nii.gz")
        write(Volume(ball.astype(np.uint8), t1.grid, "label"), folder / name / "brainmask.nii.gz")
    return folder


def errors_and_sigmas(out: Path, split: str, run: Path) -> list[tuple[Array, Array]]:
    """By case: prediction − reference, and σ, of the voxels in the mask."""
    target = open_run(run).config.prep.b
    found = []
    for case in read_cases(out / "cases.csv", split=split):
        made = out / "3 planes" / split / f"{case.name}.nii.gz"
        images = [read(path).array for path in (made, made.with_name(f"{case.name}_std.nii.gz"))]
        reference = in_contract_unit(read(case.images["b"]), target).array
        inside = read(case.images["mask"]).array > 0
        found.append((images[0][inside] - reference[inside], images[1][inside].astype(np.float64)))
    return found


# --- uncertainty ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sure(tools: None) -> ModuleType:
    return importlib.import_module("uncertainty")


@pytest.fixture(scope="module")
def joined(sure: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Any, Any]]:
    home = tmp_path_factory.mktemp("uncertainty")
    data = scans(home / "data", [f"Subj{number}" for number in range(13, 19)])
    return home, sure.compare(data, home / "out", [*TINY, *TINY_JUDGE])


def test_the_factor_is_the_one_of_the_validation_patients(joined: tuple[Path, dict[Any, Any]]) -> None:
    out = joined[0] / "out"
    ratios = [(e[s > 0] / s[s > 0]) ** 2 for e, s in errors_and_sigmas(out, "val", out / "runs" / "axial")]
    expected = np.sqrt(np.mean([ratio.mean() for ratio in ratios]))
    assert joined[1]["3 planes"].factor == pytest.approx(expected, rel=1e-5)


def test_the_factor_is_tried_on_the_held_out_patients(joined: tuple[Path, dict[Any, Any]]) -> None:
    out, found = joined[0] / "out", joined[1]["3 planes"]
    held_out = errors_and_sigmas(out, "test", out / "runs" / "axial")
    assert [row["case"] for row in found.scaled] == [case.name for case in read_cases(out / "cases.csv", split="test")]
    for factor, rows in ((1.0, found.rows), (found.factor, found.scaled)):
        for row, (error, sigma) in zip(rows, held_out, strict=True):
            for level in (0.68, 0.95):
                inside = np.mean(np.abs(error) <= norm.ppf(0.5 + level / 2) * factor * sigma)
                assert row[f"coverage_{100 * level:.0f}"] == pytest.approx(inside, abs=2 / error.size)


def test_scaling_sigma_leaves_the_image_alone(joined: tuple[Path, dict[Any, Any]]) -> None:
    for found in joined[1].values():
        for row, scaled in zip(found.rows, found.scaled, strict=False):
            assert [row[name] for name in ("mae", "psnr", "spearman")] == [
                scaled[name] for name in ("mae", "psnr", "spearman")
            ]
            assert scaled["mean_sigma"] == pytest.approx(found.factor * row["mean_sigma"], rel=1e-5)


def test_the_table_has_a_line_for_each_way(sure: ModuleType, joined: tuple[Path, dict[Any, Any]]) -> None:
    head, *lines, count = sure.table(joined[1]).splitlines()
    assert count == "2 cases"
    assert [line[: max(map(len, sure.WAYS))].strip() for line in lines] == list(sure.WAYS)
    assert len(head) == max(map(len, (head, *lines)))
    assert (joined[0] / "out" / "3 planes" / "scores" / "calibration.png").exists()


def test_what_is_there_is_not_done_again(sure: ModuleType, joined: tuple[Path, dict[Any, Any]]) -> None:
    home, before = joined
    made = [*(home / "out" / "runs").rglob("weights.safetensors"), *(home / "out").rglob("test/*.nii.gz")]
    assert len(made) == len(sure.RUNS) + sum(len(found.rows) + len(found.scaled) for found in before.values())
    times = [path.stat().st_mtime_ns for path in made]
    assert sure.table(sure.compare(home / "data", home / "out", [*TINY, *TINY_JUDGE])) == sure.table(before)
    assert [path.stat().st_mtime_ns for path in made] == times


# --- contrasts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(tools: None) -> ModuleType:
    return importlib.import_module("contrasts")


@pytest.fixture(scope="module")
def compared(several: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Any, Any]]:
    home = tmp_path_factory.mktemp("contrasts")
    return home, several.compare(scans(home / "data", ["p1", "p2"]), home / "out", TINY)


def test_each_patient_is_held_out_once_and_never_trained_on(compared: tuple[Path, dict[Any, Any]]) -> None:
    for name, other in (("p1", "p2"), ("p2", "p1")):
        cases = read_cases(compared[0] / "out" / name / "cases.csv")
        assert {case.name: case.split for case in cases} == {name: "val", other: "train"}
    assert all([row["case"] for row in rows] == ["p1", "p2"] for rows in compared[1].values())


def test_weights_are_those_after_the_last_step(compared: tuple[Path, dict[Any, Any]]) -> None:
    """The held-out patient is looked at once, so it can choose nothing."""
    for run in (compared[0] / "out").rglob("run"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "val" in line] == [2]
        assert open_run(run).best["step"] == 2


@pytest.mark.parametrize(("place", "seen"), [("whole", "from a, t2"), ("without t2", "a without t2")])
def test_images_say_from_what_they_were_made(compared: tuple[Path, dict[Any, Any]], place: str, seen: str) -> None:
    made = compared[0] / "out" / "p1" / "T1 + T2, dropout" / place / "p1.nii.gz"
    assert seen in sidecar_path(made).read_text()


def test_errors_are_those_of_the_images_in_the_brain(
    several: ModuleType, compared: tuple[Path, dict[Any, Any]]
) -> None:
    home, results = compared
    for name, model, place, seen in (
        ("p2", "T1", "whole", "T1"),
        ("p1", "T1 + T2", "whole", "T1 + T2"),
        ("p2", "T1 + T2, dropout", "without a", "T2"),
    ):
        folder = home / "out" / name / model
        target = open_run(folder / "run").config.prep.b
        reference = in_contract_unit(read(home / "data" / name / "flair.nii.gz"), target).array
        brain = read(home / "data" / name / "t1.nii.gz").array != 0
        made = read(folder / place / f"{name}.nii.gz").array
        row = next(row for row in results[model, seen] if row["case"] == name)
        assert row["mae"] == pytest.approx(np.abs(made - reference)[brain].mean(), rel=1e-4)
        assert f"{row['mae']:.1f}" in several.table(results)
