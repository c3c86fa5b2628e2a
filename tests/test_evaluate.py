"""Evaluation of files: cases are matched, geometry and units proved, nothing is dropped."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgan import Grid, Volume, evaluate
from medgan.cases import Case, write_cases
from medgan.errors import GeometryError, InputError
from medgan.evaluate import score, summarise
from medgan.formats import write
from medgan.formats.dicom import Subject
from medgan.metrics import PRESETS
from medgan.scoring import Scoring

AFFINE = np.diag([1.5, 1.0, 2.0, 1.0])
SHAPE = (12, 10, 9)
CODES = ["".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]


def ct(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(100, 300, shape).astype(np.float32)


def save(path, array, affine=AFFINE, unit=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    if unit:
        path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps({"Units": unit}))
    return path


@pytest.fixture
def study(tmp_path):
    """Three cases with predictions off by 1, 2 and 3, and masks."""
    for number in (1, 2, 3):
        ref = ct(number)
        save(tmp_path / "ref" / f"case{number}.nii.gz", ref, unit="HU")
        save(tmp_path / "pred" / f"case{number}.nii.gz", ref + np.float32(number), unit="HU")
        save(tmp_path / "mask" / f"case{number}.nii.gz", (ref > 0).astype(np.uint8))
    return tmp_path


def test_rows_are_the_metrics_of_each_case(study):
    rows = evaluate(study / "pred", study / "ref", mask=study / "mask")
    assert [row["case"] for row in rows] == ["case1", "case2", "case3"]
    for number, row in enumerate(rows, start=1):
        ref = ct(number)
        expected = PRESETS["synthrad2023"].score(ref + np.float32(number), ref, ref > 0)
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12)
        assert row["mae"] == pytest.approx(number, abs=1e-4)
        assert row["num_voxels"] == (ref > 0).sum()
        assert row["mask"] is True
        assert (row["status"], row["preset"], row["range"]) == ("scored", "synthrad2023", [-1024, 3000])
        assert (row["unit"], row["dtype"], row["note"]) == ("HU", "float32/float32", "")


def test_without_a_mask_the_whole_volume_counts(study):
    row = evaluate(study / "pred", study / "ref")[0]
    assert row["mask"] is False
    assert row["num_voxels"] == math.prod(SHAPE)


def test_two_single_volumes_match_whatever_their_names(study):
    rows = evaluate(study / "pred" / "case1.nii.gz", study / "ref" / "case2.nii.gz", preset="synthrad2025")
    assert [row["case"] for row in rows] == ["case2"]
    assert 0 < rows[0]["ms_ssim"] < 1
    assert "ssim" not in rows[0]


def test_subfolders_are_cases_too(tmp_path):
    for case in ("a", "b"):
        save(tmp_path / "ref" / case / "image.nii.gz", ct())
        save(tmp_path / "pred" / f"{case}.nii", ct() + np.float32(5))
    assert [row["mae"] for row in evaluate(tmp_path / "pred", tmp_path / "ref")] == pytest.approx([5, 5], abs=1e-4)
    save(tmp_path / "ref" / "b" / "second.nii.gz", ct())
    with pytest.raises(InputError, match=r"several volumes \(image.nii.gz, second.nii.gz\)"):
        evaluate(tmp_path / "pred", tmp_path / "ref")


def test_missing_and_extra_predictions_are_rows_and_counted(study):
    (study / "pred" / "case2.nii.gz").unlink()
    save(study / "pred" / "stranger.nii.gz", ct())
    rows = evaluate(study / "pred", study / "ref", out=study / "out")
    assert {row["case"]: row["status"] for row in rows} == {
        "case1": "scored",
        "case2": "no prediction",
        "case3": "scored",
        "stranger": "no reference",
    }
    assert all(row["mae"] is None and row["note"] for row in rows if row["status"] != "scored")
    record = json.loads((study / "out" / "metrics.json").read_text())
    assert record["counts"] == {"scored": 2, "no prediction": 1, "no reference": 1}
    assert record["summary"]["mae"]["n"] == 2


def test_written_numbers_are_those_returned(study):
    rows = evaluate(study / "pred", study / "ref", mask=study / "mask", out=study / "out")
    record = json.loads((study / "out" / "metrics.json").read_text())
    assert record["rows"] == rows
    assert record["summary"] == summarise(rows)
    assert record["versions"]["numpy"] == np.__version__
    content = (study / "ref" / "case3.nii.gz").read_bytes()
    assert record["sha256"]["case3"]["ref"] == hashlib.sha256(content).hexdigest()
    with (study / "out" / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(line["psnr"]) for line in table] == [row["psnr"] for row in rows]
    assert table[0]["range"] == "-1024..3000"
    assert sorted(path.name for path in (study / "out").iterdir()) == ["metrics.csv", "metrics.json", "rows.jsonl"]


def test_results_can_be_written_again(study):
    for _ in range(2):
        evaluate(study / "pred", study / "ref", out=study / "out")


def test_an_infinite_psnr_is_null_with_a_note(study):
    rows = evaluate(study / "ref", study / "ref", out=study / "out")
    assert all(row["psnr"] is None and "psnr is infinite" in row["note"] for row in rows)
    assert all(row["mae"] == 0 and row["ssim"] == pytest.approx(1) for row in rows)
    numbers = summarise(rows)["psnr"]
    assert [numbers.pop(name) for name in ("n", "num_patients", "num_undefined", "num_infinite")] == [0, 0, 0, 3]
    assert set(numbers.values()) == {None}


def test_an_undefined_ms_ssim_is_null_with_a_note():
    mask = np.zeros(SHAPE)
    mask[0, 0, 0] = 1
    ref = Volume(ct(), Grid(SHAPE, AFFINE), unit="HU")
    row = score(ref.with_array(ref.array + 1), ref, ref.with_array(mask), how=Scoring("synthrad2025"))
    assert row["ms_ssim"] is None
    assert "ms_ssim is undefined" in row["note"]
    assert row["mae"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("orientation", CODES)
def test_axes_may_run_differently_on_the_same_grid(orientation):
    ref = Volume(ct(), Grid(SHAPE, AFFINE), unit="HU")
    mask = ref.with_array(ref.array > 0)
    pred = ref.with_array(ref.array * np.float32(0.9))
    straight = score(pred, ref, mask)
    turned = score(pred.reorient(orientation), ref, mask.reorient("LPS"))
    assert {k: turned[k] for k in ("mae", "psnr", "ssim")} == pytest.approx(
        {k: straight[k] for k in ("mae", "psnr", "ssim")}, rel=1e-12
    )


@settings(deadline=None, max_examples=30)
@given(
    row=st.integers(0, 2),
    column=st.integers(0, 3),
    amount=st.floats(0.02, 50),
)
def test_another_geometry_is_refused(row, column, amount):
    ref = Volume(ct(), Grid(SHAPE, AFFINE))
    affine = AFFINE.copy()
    affine[row, column] += amount
    other = Volume(ct(), Grid(SHAPE, affine))
    assert not ref.grid.same_as(other.grid)
    with pytest.raises(GeometryError, match=r"'p7'.*prediction is not on the reference's grid.*12×10×9"):
        score(other, ref, case="p7")
    with pytest.raises(GeometryError, match="mask is not on the reference's grid"):
        score(ref, ref, other)


def test_another_shape_is_refused():
    ref = Volume(ct(), Grid(SHAPE, AFFINE))
    with pytest.raises(GeometryError, match=r"11×10×9 at 1.5×1×2 mm RAS and 12×10×9 at"):
        score(ref.crop((0, 0, 0), (11, 10, 9)), ref)


def test_units_that_contradict_are_refused_and_unstated_ones_noted():
    ref = Volume(ct(), Grid(SHAPE, AFFINE), unit="HU")
    unstated = ref.with_array(ref.array + 1, unit="a.u.")
    with pytest.raises(InputError, match="'p7': the prediction is in Bq/ml, the reference in HU"):
        score(ref.with_array(ref.array, unit="Bq/ml"), ref, case="p7")
    row = score(unstated, ref)
    assert (row["unit"], row["note"]) == ("HU", "the prediction states no unit, taken as HU")
    row = score(ref, unstated)
    assert (row["unit"], row["note"]) == ("HU", "the reference states no unit, taken as HU")
    row = score(unstated, unstated.with_array(ref.array))
    assert (row["unit"], row["note"]) == ("a.u.", "the range is the preset's for HU, the unit is a.u.")


def test_another_range_is_used_and_said(study):
    row = evaluate(study / "pred", study / "ref", value_range=(0, 500))[0]
    expected = PRESETS["synthrad2023"].score(ct(1) + np.float32(1), ct(1), None, (0, 500))
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert row["range"] == [0, 500]
    assert row["note"] == "the range is not the preset's"


def test_one_mask_serves_all_cases_and_none_may_lack_its_own(study):
    save(study / "one.nii.gz", np.ones(SHAPE, np.uint8))
    rows = evaluate(study / "pred", study / "ref", mask=study / "one.nii.gz")
    assert {row["num_voxels"] for row in rows} == {math.prod(SHAPE)}
    (study / "mask" / "case2.nii.gz").unlink()
    with pytest.raises(InputError, match="no mask for case2"):
        evaluate(study / "pred", study / "ref", mask=study / "mask")


def test_an_empty_mask_is_named(study):
    save(study / "mask" / "case3.nii.gz", np.zeros(SHAPE, np.uint8))
    row = evaluate(study / "pred", study / "ref", mask=study / "mask")[2]
    assert (row["status"], row["mae"]) == ("refused", None)
    assert row["note"].startswith("case 'case3': the mask is empty")


def test_paths_that_cannot_be_used_are_refused(study):
    with pytest.raises(InputError, match="is not there"):
        evaluate(study / "nowhere", study / "ref")
    (study / "empty").mkdir()
    with pytest.raises(InputError, match="is empty"):
        evaluate(study / "empty", study / "ref")
    save(study / "other" / "x.nii.gz", ct())
    save(study / "other" / "y.nii.gz", ct())
    with pytest.raises(InputError, match=r"no case is in both: .* has x, y, .* has case1, case2, case3"):
        evaluate(study / "other", study / "ref")
    with pytest.raises(InputError, match=r"preset 'ours' is unknown \(accepted: synthrad2023, synthrad2025, .*\)"):
        evaluate(study / "pred", study / "ref", preset="ours")
    save(study / "ref" / "case1.nii", ct())
    with pytest.raises(InputError, match=r"case 'case1' is there twice, case1\.nii and case1\.nii\.gz"):
        evaluate(study / "pred", study / "ref")


def test_a_damaged_file_is_an_error_of_ours(study):
    (study / "pred" / "case1.nii.gz").write_bytes(b"no image")
    row = evaluate(study / "pred", study / "ref")[0]
    assert row["status"] == "refused"
    assert "case1.nii.gz" in row["note"]


def test_summary_statistics_are_numpys():
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    rows = [{"status": "scored", "mae": value, "psnr": None} for value in values]
    rows += [{"status": "no prediction", "mae": None, "psnr": None}]
    mae = summarise(rows)["mae"]
    assert (mae["n"], mae["num_undefined"]) == (5, 0)
    assert mae["mean"] == pytest.approx(np.mean(values))
    assert mae["sd"] == pytest.approx(np.std(values, ddof=1))
    assert (mae["median"], mae["min"], mae["max"]) == (3, 1, 9)
    assert (mae["q1"], mae["q3"]) == (1.5, 4)
    assert summarise(rows)["psnr"]["num_undefined"] == 5
    one = summarise(rows[:1])["mae"]
    assert (one["mean"], one["sd"], one["ci95_low"]) == (3, None, None)


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        mae = summarise([{"status": "scored", "mae": value} for value in rng.normal(50, 10, 30)])["mae"]
        hits += mae["ci95_low"] <= 50 <= mae["ci95_high"]
    assert 0.88 <= hits / 200 <= 0.98


def test_dicom_is_scored_against_nifti(tmp_path):
    array = np.round(ct(shape=(16, 14, 10))).astype(np.int16)
    volume = Volume(array, Grid(array.shape, AFFINE), unit="HU", modality="CT")
    shifted = volume.with_array(array + np.int16(3))
    for case in ("p1", "p2"):
        write(volume, tmp_path / "ref" / f"{case}.nii.gz")
        write(shifted, tmp_path / "pred" / case, subject=Subject())
    rows = evaluate(tmp_path / "pred", tmp_path / "ref")
    assert [row["case"] for row in rows] == ["p1", "p2"]
    assert [row["mae"] for row in rows] == [3, 3]
    assert rows[0]["unit"] == "HU"
    assert [row["mae"] for row in evaluate(tmp_path / "pred" / "p1", tmp_path / "ref" / "p2.nii.gz")] == [3]


def test_references_and_masks_come_from_a_table_of_cases(tmp_path: Path) -> None:
    grid = Grid.regular((9, 9, 9))
    array = np.arange(729, dtype=np.int16).reshape(9, 9, 9)
    cases = []
    for name, split in (("p1", "test"), ("p2", "test"), ("p3", "train")):
        home = tmp_path / "cohort" / name
        home.mkdir(parents=True)
        write(Volume(array + 9 * (split == "train"), grid, "HU", "CT"), home / "ct.nii.gz")
        write(Volume((array > 300).astype(np.uint8), grid, "label"), home / "mask.nii.gz")
        cases.append(Case(name, name, split, {"b": home / "ct.nii.gz", "mask": home / "mask.nii.gz"}))
    write_cases(cases, tmp_path / "cases.csv")
    write(Volume((array + 5).astype(np.int16), grid, "HU", "CT"), tmp_path / "pred" / "p1.nii.gz")
    rows = evaluate(tmp_path / "pred", tmp_path / "cases.csv", split="test")
    assert [(row["case"], row["status"]) for row in rows] == [("p1", "scored"), ("p2", "no prediction")]
    assert rows[0]["mae"] == 5
    assert rows[0]["num_voxels"] == 729 - 301
    with pytest.raises(InputError, match="goes with a table"):
        evaluate(tmp_path / "pred", tmp_path / "cohort", split="test")


def test_normalised_values_are_not_compared_with_others() -> None:
    volume = Volume(np.full((8, 8, 8), 700.0), Grid.regular((8, 8, 8)), "normalised", "MR")
    with pytest.raises(InputError, match="--run"):
        score(volume, volume.with_array(volume.array, unit="a.u."))
    assert score(volume, volume, how=Scoring(value_range=(0, 2500)))["unit"] == "normalised"


def test_an_evaluation_without_a_run_waits_for_no_network_library() -> None:
    code = "import sys, medgan.evaluate; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "monai"}.isdisjoint(loaded)


def test_a_file_against_itself_is_told(tmp_path: Path) -> None:
    volume = Volume(np.arange(512.0).reshape(8, 8, 8), Grid.regular((8, 8, 8)), unit="HU")
    path = write(volume, tmp_path / "ct.nii.gz")
    (row,) = evaluate(path, path)
    assert "the prediction and the reference are one file" in row["note"]
