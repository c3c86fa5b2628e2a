"""`medgan evaluate` as a command: rules, regions, segmentations, limits, the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import medgan

from medgan import Grid, Volume, write
from medgan.errors import InputError
from medgan.judge import judge

BOTH = (Path("x"), Path("y"))
GRID = Grid.regular((24, 22, 20), spacing_mm=(2, 2, 2))


def head(seed: int) -> Volume:
    """A ball of tissue with a shell of bone, HU."""
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in GRID.shape), indexing="ij"))
    radius = np.sqrt((places**2).sum(0))
    noise = np.random.default_rng(seed).normal(0, 20, GRID.shape)
    tissue = np.where(radius > 0.75, 900.0, 40.0)
    return Volume(np.where(radius > 0.9, -1000, tissue + noise).astype(np.int16), GRID, "HU", "CT")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for n in (1, 2, 3):
        real = head(n)
        write(real, tmp_path / "data" / f"p{n}" / "ct.nii.gz")
        write(real.with_array(real.array + np.int16(10 * n)), tmp_path / "out" / f"p{n}_sct.nii.gz")
        write(Volume((real.array > -500).astype(np.uint8), GRID, "label"), tmp_path / "data" / f"p{n}" / "body.nii.gz")
    return tmp_path


def rules(study: Path) -> list[object]:
    return [
        study / "out/{case}_sct.nii.gz",
        study / "data/{case}/ct.nii.gz",
        "--mask",
        study / "data/{case}/body.nii.gz",
    ]


def test_a_study_by_rules_with_regions_and_a_report(study: Path) -> None:
    done = medgan("evaluate", *rules(study), "--region", "default", "--out", study / "scores")
    assert done.code == 0
    record = json.loads((study / "scores" / "metrics.json").read_text())
    assert [round(row["mae"]) for row in record["rows"]] == [10, 20, 30]
    assert [round(row["bias_bone"]) for row in record["rows"]] == [10, 20, 30]
    assert "MAE, bone" in done.out
    page = (study / "scores" / "report.html").read_text(encoding="utf-8")
    assert page.count("p3") > 1
    assert f"report: {study / 'scores' / 'report.html'}" in done.out


@pytest.mark.parametrize(("limit", "code"), [("mae=25", 0), ("mae=15", 1), ("psnr=30", 0), ("psnr=60", 1)])
def test_limits_set_the_exit_code(study: Path, limit: str, code: int) -> None:
    done = medgan("evaluate", *rules(study), "--fail-under", limit)
    assert done.code == code
    assert ("FAILED" in done.out) is bool(code)


def test_a_missing_case_is_loud_and_fails_a_limit(study: Path) -> None:
    (study / "out" / "p2_sct.nii.gz").unlink()
    done = medgan("evaluate", *rules(study))
    assert done.code == 0
    assert "1 of 3 cases were NOT scored" in done.out
    assert "p2: no prediction: not scored" in done.out
    assert medgan("evaluate", *rules(study), "--fail-under", "mae=1000").code == 1


def test_segmentations_by_rule(study: Path) -> None:
    for n in (1, 2, 3):
        shutil.copy(study / "data" / f"p{n}" / "body.nii.gz", study / "out" / f"p{n}_seg.nii.gz")
    options = ["--pred-labels", study / "out/{case}_seg.nii.gz", "--ref-labels", study / "data/{case}/body.nii.gz"]
    done = medgan("evaluate", *rules(study), *options, "--label", "body=1", "--json")
    assert [row["dice_body"] for row in json.loads(done.out)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"regions": ["bone"]}, r"a region is NAME=LOW\.\.HIGH"),
        ({"limits": ["mae"]}, "'mae' is no name and number; write it as in --fail-under mae=80"),
        ({"limits": ["mae=nan"]}, "'mae=nan' is no name and number"),
        ({"limits": ["mae=inf"]}, "'mae=inf' is no name and number"),
        ({"limits": ["=80"]}, "'=80' is no name and number"),
        ({"limits": ["mae=1", "mae = 2"]}, "a name is given twice, as in --fail-under mae=80; seen mae=1, mae = 2"),
        ({"limits": ["mea=80"]}, "no measure is called 'mea'"),
        ({"names": ["liver"]}, "'liver' is no name and number; write it as in --label liver=5"),
        ({"names": ["liver=5"]}, "labels are names in segmentations: give --pred-labels and --ref-labels"),
        ({"names": ["liver=2.5"], "labels": BOTH}, "whole numbers, each with one name; seen liver=2.5"),
        (
            {"names": ["liver=5", "spleen=5"], "labels": BOTH},
            "whole numbers, each with one name; seen liver=5, spleen=5",
        ),
        ({"labels": (Path("x"), None)}, "segmentations are compared in pairs"),
    ],
)
def test_what_cannot_be_understood_is_told(study: Path, wrong: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        judge(study / "out/{case}_sct.nii.gz", study / "data/{case}/ct.nii.gz", **wrong)  # type: ignore[arg-type]


def test_a_limit_on_what_was_not_computed_is_told(study: Path) -> None:
    with pytest.raises(InputError, match="ssim_wang2004: not computed"):
        judge(study / "out/{case}_sct.nii.gz", study / "data/{case}/ct.nii.gz", limits=["ssim_wang2004=0.9"])


def test_what_cannot_be_held_is_told_before_a_case_is_scored(study: Path) -> None:
    with pytest.raises(InputError, match="no measure is called 'mea'"):
        judge(Path("nowhere"), study / "data/{case}/ct.nii.gz", limits=["mea=80"])


@pytest.mark.parametrize("option", [("--processes", "0"), ("--tolerance", "-1")])
def test_numbers_that_mean_nothing_are_wrong_usage(study: Path, option: tuple[str, str]) -> None:
    done = medgan("evaluate", *rules(study), *option)
    assert (done.code, done.out) == (2, "")
    assert f"Invalid value for '{option[0]}'" in done.err
