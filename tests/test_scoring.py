"""Evaluation of many cases: refusals are rows, runs go on where they were, limits hold, results have a schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import jsonschema
import numpy as np
import pytest

from medgan import Grid, Volume, evaluate, write
from medgan import evaluate as evaluate_function
from medgan.errors import GeometryError, InputError
from medgan.metrics.regions import Region
from medgan.metrics.slices import slice_jump, slice_roughness
from medgan.prep import resample
from medgan.results import failures, summarise
from medgan.scoring import Scoring, score
from medgan.volume import Synthesis

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "reference" / "evaluation.schema.json").read_text())
GRID = Grid.regular((16, 14, 12), spacing_mm=(1.5, 1, 2), origin_mm=(3, -4, 50))


def ct(seed: int = 0, grid: Grid = GRID, unit: str = "HU", modality: str = "CT") -> Volume:
    values = np.random.default_rng(seed).normal(100, 300, grid.shape).astype(np.float32)
    return Volume(values, grid, unit, modality)


def plus(volume: Volume, amount: float) -> Volume:
    return volume.with_array(volume.array + np.float32(amount))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Four cases with predictions off by 1, 2, 3 and 4 HU."""
    for n in (1, 2, 3, 4):
        write(ct(n), tmp_path / "ref" / f"p{n}.nii.gz")
        write(plus(ct(n), n), tmp_path / "pred" / f"p{n}.nii.gz")
    return tmp_path


def maes(rows: list[dict[str, object]]) -> dict[object, object]:
    return {row["case"]: None if row["mae"] is None else round(float(str(row["mae"])), 3) for row in rows}


# --- what cannot be compared ------------------------------------------------------------------------------------------


def test_a_refused_case_is_a_row_with_its_reason(study: Path) -> None:
    write(ct(2, Grid.regular((9, 9, 9))), study / "pred" / "p2.nii.gz")
    (study / "pred" / "p3.nii.gz").write_bytes(b"no image")
    rows = evaluate(study / "pred", study / "ref", out=study / "out")
    assert [row["status"] for row in rows] == ["scored", "refused", "refused", "scored"]
    assert "not on the reference's grid" in rows[1]["note"]
    assert "p3.nii.gz" in rows[2]["note"]
    record = json.loads((study / "out" / "metrics.json").read_text())
    assert record["counts"] == {"scored": 2, "no prediction": 0, "no reference": 0, "refused": 2}
    assert record["summary"]["mae"]["n"] == 2


def test_where_all_are_refused_the_reason_is_raised(study: Path) -> None:
    for n in (1, 2, 3, 4):
        write(ct(n, Grid.regular((9, 9, 9))), study / "pred" / f"p{n}.nii.gz")
    with pytest.raises(InputError, match=r"case 'p1': .*not on the reference's grid.*and 3 more cases are refused"):
        evaluate(study / "pred", study / "ref")


def test_swapped_arguments_are_seen_by_the_marks() -> None:
    made = ct().marked(Synthesis("cut", None))
    with pytest.raises(InputError, match="swap them if they are in the wrong order"):
        score(ct(), made)
    assert score(made, ct())["status"] == "scored"


def test_another_modality_is_refused() -> None:
    with pytest.raises(InputError, match="the prediction is MR, the reference CT"):
        score(ct(modality="MR"), ct())
    assert score(ct(modality=""), ct())["status"] == "scored"


@pytest.mark.parametrize(("apart", "tolerance", "fits"), [(0.02, 0.01, False), (0.02, 0.05, True), (0.4, 0.05, False)])
def test_the_tolerance_is_in_mm(apart: float, tolerance: float, fits: bool) -> None:
    affine = GRID.affine.copy()
    affine[0, 3] += apart
    moved = Volume(ct().array, Grid(GRID.shape, affine), "HU", "CT")
    if fits:
        assert score(moved, ct(), how=Scoring(tolerance_mm=tolerance))["mae"] == 0
    else:
        with pytest.raises(GeometryError, match=f"{apart:.3g} mm apart"):
            score(moved, ct(), how=Scoring(tolerance_mm=tolerance))


def test_resampling_is_asked_for_and_told(study: Path) -> None:
    coarse = Grid.regular((9, 9, 9), spacing_mm=(3, 2, 3), origin_mm=(3, -4, 50))
    write(ct(1, coarse), study / "pred" / "p1.nii.gz")
    row = evaluate(study / "pred", study / "ref", resample=True)[0]
    expected = score(resample(ct(1, coarse), GRID), ct(1))
    assert row["mae"] == pytest.approx(expected["mae"], rel=1e-6)
    assert row["note"].startswith("the prediction was resampled to the reference (linear, from 9×9×9 at 3×2×3 mm RAS; ")


def test_what_lies_outside_a_resampled_prediction_is_counted() -> None:
    half = Grid.regular((8, 14, 12), spacing_mm=(1.5, 1, 2), origin_mm=(3, -4, 50))
    row = score(ct(1, half), ct(1), how=Scoring(resample=True))
    assert "50 % of the reference lie outside it and repeat its rim" in row["note"]


# --- many cases -------------------------------------------------------------------------------------------------------


def scored_cases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cases that are scored from now on."""
    import sys

    module, seen = sys.modules[evaluate_function.__module__], []
    real = module.score

    def watched(*args: object, **options: object) -> object:
        seen.append(str(options["case"]))
        return real(*args, **options)

    monkeypatch.setattr(module, "score", watched)
    return seen


def test_a_second_run_does_nothing_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(study / "pred", study / "ref", out=study / "out")
    seen = scored_cases(monkeypatch)
    assert evaluate(study / "pred", study / "ref", out=study / "out") == first
    assert not seen
    write(plus(ct(2), 9), study / "pred" / "p2.nii.gz")
    assert maes(evaluate(study / "pred", study / "ref", out=study / "out"))["p2"] == 9
    assert seen == ["p2"]
    evaluate(study / "pred", study / "ref", out=study / "out", preset="synthrad2025")
    assert seen == ["p2", "p1", "p2", "p3", "p4"]


def test_a_run_that_was_broken_off_goes_on(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = scored_cases(monkeypatch)
    with monkeypatch.context() as patched:
        import sys

        module = sys.modules[evaluate_function.__module__]
        watched = module.score

        def until_p3(*args: object, **options: object) -> object:
            if options["case"] == "p3":
                raise KeyboardInterrupt
            return watched(*args, **options)

        patched.setattr(module, "score", until_p3)
        with pytest.raises(KeyboardInterrupt):
            evaluate(study / "pred", study / "ref", out=study / "out")
    with (study / "out" / "rows.jsonl").open("a") as file:
        file.write('{"key": "half a li')  # as of a process that was killed
    assert seen == ["p1", "p2"]
    rows = evaluate(study / "pred", study / "ref", out=study / "out")
    assert seen == ["p1", "p2", "p3", "p4"]
    assert maes(rows) == {"p1": 1, "p2": 2, "p3": 3, "p4": 4}
    assert maes(evaluate(study / "pred", study / "ref", out=study / "out")) == maes(rows)
    assert seen == ["p1", "p2", "p3", "p4"]


def test_several_processes_give_the_same_rows(study: Path) -> None:
    alone = evaluate(study / "pred", study / "ref", out=study / "one")
    assert evaluate(study / "pred", study / "ref", out=study / "two", processes=2) == alone
    records = [json.loads((study / place / "metrics.json").read_text()) for place in ("one", "two")]
    assert records[0] == records[1]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux copies processes")
def test_several_processes_are_several(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = scored_cases(monkeypatch)
    evaluate(study / "pred", study / "ref", processes=2)
    assert not seen  # the copies did it


# --- summary, limits, schema ------------------------------------------------------------------------------------------


def test_intervals_are_over_patients() -> None:
    rng = np.random.default_rng(0)
    values, patients = rng.normal(50, 10, 12), np.repeat(list("abcd"), 3)
    rows = [
        {"case": str(n), "patient": patient, "status": "scored", "mae": value}
        for n, (value, patient) in enumerate(zip(values, patients, strict=True))
    ]
    told = summarise(rows)["mae"]
    means = values.reshape(4, 3).mean(1)
    drawn = np.array([means[np.array(pick)] for pick in np.ndindex(4, 4, 4, 4)]).mean(1)  # every resample there is
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert (told["ci95_low"], told["ci95_high"]) == pytest.approx((low, high), abs=1.0)
    alone = summarise([{**row, "patient": row["case"]} for row in rows])["mae"]
    assert alone["mean"] == told["mean"]
    assert (alone["ci95_low"], alone["ci95_high"]) != (told["ci95_low"], told["ci95_high"])
    assert summarise([{**row, "patient": "a"} for row in rows])["mae"]["ci95_low"] is None


@pytest.mark.parametrize(
    ("metric", "value", "limit", "holds"),
    [
        ("mae", 79.0, 80.0, True),
        ("mae", 81.0, 80.0, False),
        ("psnr", 29.0, 30.0, False),
        ("psnr", 31.0, 30.0, True),
        ("bias", -12.0, 10.0, False),
        ("bias", -8.0, 10.0, True),
        ("dice_bone", 0.7, 0.8, False),
        ("hd95_liver", 3.0, 4.0, True),
        ("slice_roughness", 0.8, 1.1, False),
        ("slice_roughness", 0.95, 1.1, True),
    ],
)
def test_limits_go_the_way_of_their_metric(metric: str, value: float, limit: float, holds: bool) -> None:
    rows = [{"case": "p1", "status": "scored", metric: value}]
    assert (not failures(rows, {metric: limit})) is holds


def test_a_missing_case_or_number_fails_every_limit(study: Path) -> None:
    (study / "pred" / "p2.nii.gz").unlink()
    rows = evaluate(study / "pred", study / "ref")
    assert failures(rows, {"mae": 1000}) == ["1 of 4 cases were not scored: p2"]
    rows = [{"case": "p1", "status": "scored", "mae": 1.0}, {"case": "p2", "status": "scored", "mae": None}]
    assert failures(rows, {"mae": 1000}) == ["mae: undefined in 1 cases"]
    with pytest.raises(InputError, match=r"ssim: not computed, so no limit can be held \(computed: mae\)"):
        failures(rows, {"ssim": 0.9})


def test_results_are_of_their_schema(study: Path) -> None:
    (study / "pred" / "p2.nii.gz").unlink()
    write(ct(3, Grid.regular((9, 9, 9))), study / "pred" / "p3.nii.gz")
    write(plus(ct(4), 0), study / "pred" / "p4.nii.gz")  # an infinite PSNR
    evaluate(study / "pred", study / "ref", out=study / "out", regions=[Region("bone", 200, 3071)])
    jsonschema.validate(json.loads((study / "out" / "metrics.json").read_text()), SCHEMA)


# --- regions and segmentations ----------------------------------------------------------------------------------------


def test_regions_have_columns_of_their_own(study: Path) -> None:
    row = evaluate(study / "pred", study / "ref", regions=[Region("bone", 200, 3071)])[1]
    inside = ct(2).array >= 200
    error = (plus(ct(2), 2).array.astype(float) - ct(2).array)[inside]
    assert row["mae_bone"] == pytest.approx(np.abs(error).mean(), rel=1e-9)
    assert row["bias_bone"] == pytest.approx(error.mean(), rel=1e-9)
    with pytest.raises(InputError, match=r"regions are ranges of HU, the images are in a\.u\."):
        score(ct(unit="a.u.", modality="MR"), ct(unit="a.u.", modality="MR"), how=Scoring(regions=(Region("x", 0, 1),)))


def test_segmentations_have_columns_by_label(study: Path) -> None:
    organs = np.zeros(GRID.shape, np.uint8)
    organs[2:8, 2:8, 2:8], organs[9:14, 3:9, 3:9] = 1, 5
    lost = np.where(organs == 5, 0, organs).astype(np.uint8)
    for n in (1, 2, 3, 4):
        write(Volume(organs, GRID, "label"), study / "seg" / f"p{n}.nii.gz")
        write(Volume(lost if n == 2 else organs, GRID, "label"), study / "made" / f"p{n}.nii.gz")
    (study / "made" / "p3.nii.gz").unlink()
    rows = evaluate(
        study / "pred", study / "ref", labels=(study / "made", study / "seg"), label_names={5: "liver", 1: "spleen"}
    )
    assert [row["dice_liver"] for row in rows] == [1, 0, None, 1]
    assert [row["dice_spleen"] for row in rows] == [1, 1, None, 1]
    assert rows[1]["hd95_liver"] > rows[0]["hd95_liver"] == 0
    assert "no segmentation" in rows[2]["note"]


# --- consistency of slices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_the_same_in_slabs_and_beside_nothing(
    order: Literal["C", "F"], axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plane by plane the sums are those of the whole, and what lies outside the mask is not looked at."""
    rng = np.random.default_rng(0)
    pred, ref = (np.asarray(rng.normal(0, 100, (9, 8, 7)), order=order) for _ in range(2))
    mask = rng.random(ref.shape) < 0.7
    whole = [metric(pred, ref, mask, axis) for metric in (slice_roughness, slice_jump)]
    monkeypatch.setattr("medgan.metrics.pairs._SLAB_VOXELS", 1)
    holed = [np.where(mask, image, hole) for image, hole in ((pred, np.nan), (ref, np.inf))]
    assert [metric(*holed, mask, axis) for metric in (slice_roughness, slice_jump)] == pytest.approx(whole, rel=1e-12)
