"""Evaluation of many cases: refusals are rows, runs go on where they were, limits hold, results have a schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import jsonschema
import numpy as np
import pytest
from command_line import medgan

from medgan import Grid, Volume, evaluate, write
from medgan import evaluate as evaluate_function
from medgan.errors import GeometryError, InputError
from medgan.metrics.presets import PRESETS
from medgan.metrics.regions import Region
from medgan.metrics.slices import slice_jump, slice_roughness
from medgan.metrics.water import PROTONS
from medgan.resample import resample
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
    assert row["note"].startswith("the prediction was resampled to the reference (linear, from 9×9×9 at 3×2×3 mm RAS, ")


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
    pred, ref = np.where(mask, pred, np.nan), np.where(mask, ref, np.inf)
    assert [metric(pred, ref, mask, axis) for metric in (slice_roughness, slice_jump)] == pytest.approx(
        whole, rel=1e-12
    )


# --- path lengths of beams --------------------------------------------------------------------------------------------

WATER = Grid.regular((50, 60, 4), spacing_mm=(1, 1, 2))


@pytest.fixture
def beams(tmp_path: Path) -> Path:
    """Water 50 mm deep behind 5 mm of air; 20 mm down 10 mm of bone, twice as dense; the prediction has half of that.

    The target lies 35 to 40 mm below the front. Files run from left to right and from front to back, and say no unit.
    """
    places = np.arange(60)[::-1] - 5.0  # mm below the front, as the array runs from back to front
    target = np.zeros(WATER.shape, np.uint8)
    target[20:30, (places >= 35) & (places < 40)] = 1
    for name, bone in (("ref", 1000), ("pred", 500)):
        depths = np.select([places < 0, (places >= 20) & (places < 30), places < 50], [-1000, bone, 0], -1000)
        image = np.broadcast_to(depths[None, :, None], WATER.shape).astype(np.int16)
        write(Volume(image, WATER).reorient("LPS"), tmp_path / name / "p1.nii.gz")
    write(Volume(target, WATER, "label"), tmp_path / "mask" / "p1.nii.gz")
    (tmp_path / "curve.csv").write_text("HU,RSP\n-1000,0\n1000,2\n")
    return tmp_path


def of_beams(beams: Path, *angles: float) -> dict[str, Any]:
    (row,) = evaluate(
        beams / "pred",
        beams / "ref",
        mask=beams / "mask",
        wepl=beams / "curve.csv",
        angles_deg=angles,
        unit="HU",
        out=beams / "out",
    )
    return row


def test_a_beam_through_bone_too_light_goes_too_far(beams: Path) -> None:
    """From the front it crosses 10 mm that lack half a mm of water each; from behind and from the side it does not."""
    row = of_beams(beams, 0)
    assert (row["wepl_mae"], row["wepl_bias"], row["range_error"]) == pytest.approx((5, -5, 5))
    assert row["range_error_percent"] == pytest.approx(100 * 5 / (39.5 + 10))
    assert row["range_error_p95"] == pytest.approx(5)
    for angle in (90, 180, 270):
        assert [of_beams(beams, angle)[name] for name in ("wepl_mae", "wepl_bias", "range_error")] == [0, 0, 0]
    assert of_beams(beams, 0, 90, 180, 270)["wepl_mae"] == pytest.approx(5 / 4)


def test_curve_and_angles_are_told(beams: Path) -> None:
    row = of_beams(beams, 0, 90)
    curve = str(beams / "curve.csv")
    assert (row["wepl_curve"], row["wepl_angles"]) == (curve, "0, 90")
    assert row["note"].split("; ")[-1] == "no image states its unit, taken as HU"
    record = json.loads((beams / "out" / "metrics.json").read_text())
    assert record["settings"]["wepl"] == {"name": curve, "hu": [-1000, 1000], "values": [0, 2]}
    assert record["settings"]["angles_deg"] == [0, 90]
    jsonschema.validate(record, SCHEMA)
    assert {"wepl_mae", "wepl_bias", "range_error", "range_error_p95", "range_error_percent"} < set(record["summary"])
    (beams / "curve.csv").write_text("-1000,0\n0,1\n1000,3\n")  # another curve, other numbers
    assert of_beams(beams, 0, 90)["wepl_mae"] == pytest.approx(10 / 2)


def test_path_lengths_by_the_command(beams: Path) -> None:
    asked = ["evaluate", beams / "pred", beams / "ref", "--mask", beams / "mask", "--wepl", beams / "curve.csv"]
    done = medgan(*asked, "--unit", "HU", "--angle", "0", "--angle", "180", "--out", beams / "out")
    assert done.code == 0
    assert "WEPL error" in done.out
    assert json.loads(medgan(*asked, "--unit", "HU", "--angle", "0", "--json").out)[0]["range_error"] == pytest.approx(
        5
    )
    for wrong, told in (
        (asked, "a curve of path lengths is one of HU, the images are in a.u.; say --unit HU if they are in HU"),
        ([*asked[:5], "--angle", "90"], "angles are those of beams"),
        ([*asked[:5], "--unit", "HU", "--wepl", "electrons"], "curve 'electrons' is unknown"),
        ([*asked[:5], "--resample-to", "prediction"], "--resample-to prediction is unknown (accepted: reference"),
    ):
        done = medgan(*wrong)
        assert done.code == 1
        assert told in " ".join(done.err.split())


def test_beams_in_tilted_slices_are_noted() -> None:
    turn = np.radians(8)
    direction = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    image = ct(grid=Grid.regular(GRID.shape, direction=direction))
    assert "whose axes are up to 8.0° off" in score(image, image, how=Scoring(wepl=PROTONS))["note"]
    assert "off the patient's" not in score(image, image)["note"]
    assert "off the patient's" not in score(ct(), ct(), how=Scoring(wepl=PROTONS))["note"]


# --- what is no number ------------------------------------------------------------------------------------------------


def test_an_image_without_error_misses_no_limit(study: Path) -> None:
    write(plus(ct(2), 0), study / "pred" / "p2.nii.gz")
    rows = evaluate(study / "pred", study / "ref", out=study / "out")
    assert [row["infinite"] for row in rows] == ["", "psnr", "", ""]
    assert rows[1]["psnr"] is None
    numbers = summarise(rows)["psnr"]
    assert (numbers["n"], numbers["num_undefined"], numbers["num_infinite"]) == (3, 0, 1)
    assert not failures(rows, {"psnr": 30, "ssim": 0.9})
    assert failures(rows, {"psnr": 90})[0].startswith("psnr: the mean is")
    assert not failures(rows[1:2], {"psnr": 90})
    printed = medgan("evaluate", study / "pred", study / "ref", "--fail-under", "psnr=30")
    assert printed.code == 0
    assert "3 (+ 1 infinite)" in printed.out


def test_what_is_undefined_misses_a_limit() -> None:
    hole = ct()
    hole.array[3, 3, 3] = np.nan
    row = score(hole, ct(), case="p1")
    assert (row["mae"], row["infinite"]) == (None, "")
    assert failures([row], {"mae": 1000}) == ["mae: undefined in 1 cases"]
    hole.array[3, 3, 3] = np.inf
    row = score(hole, ct(), case="p1")
    assert (row["mae"], row["infinite"]) == (None, "")  # an infinite error is no perfect one
    assert "mae is undefined: a voxel is not finite" in row["note"]


@pytest.mark.parametrize("preset", ["synthrad2025-fixed", "wang2004", "full"])
def test_each_missing_number_is_explained_once(preset: str) -> None:
    hole = ct()
    hole.array[3, 3, 3] = np.nan
    row = score(hole, ct(), how=Scoring(preset))
    notes = row["note"].split("; ")
    assert notes[0] == "undefined: a voxel of the mask is not finite"
    assert not [note for note in notes if note.startswith(tuple(f"{name} is" for name in PRESETS[preset].metrics))]
    small = score(ct(), plus(ct(), 1), how=Scoring(preset))
    missing = [name for name in PRESETS[preset].metrics if small[name] is None]
    assert len([note for note in small["note"].split("; ") if "undefined" in note]) == len(missing)
    assert missing == [] if preset == "synthrad2025-fixed" else len(missing) in (2, 3, 4)
