"""Calibration of σ and consistency of slices: each number against its definition written out, then through evaluate."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from command_line import medgan, untrained_run
from PIL import Image
from scipy import stats
from scipy.ndimage import gaussian_filter

from medgan import Grid, Synthesis, Volume, evaluate, write
from medgan.cases import Case, write_cases
from medgan.diagram import draw_calibration
from medgan.errors import GeometryError, InputError
from medgan.evaluate import score, summarise
from medgan.formats.dicom import Subject
from medgan.metrics import LEVELS, calibration, slice_jump, slice_roughness
from medgan.report import Report, write_report

Array = npt.NDArray[Any]
SHAPE = (24, 20, 16)
GRID = Grid.regular(SHAPE, spacing_mm=(1, 1, 2))
NUMBERS = [
    *("coverage_50", "coverage_68", "coverage_80", "coverage_90", "coverage_95"),
    *("miscalibration", "ence", "spearman", "sigma_scale", "mean_sigma", "zero_sigma_share"),
]


def trial(seed: int = 0, factor: float = 1.0, shape: tuple[int, ...] = SHAPE) -> tuple[Array, Array, Array, Array]:
    """Prediction, reference, σ and mask; errors are normal with `factor` times σ."""
    rng = np.random.default_rng(seed)
    ref, sigma = rng.normal(0, 300, shape), rng.gamma(2, 20, shape) + 1
    return ref + factor * sigma * rng.standard_normal(shape), ref, sigma, rng.random(shape) < 0.8


# --- calibration ------------------------------------------------------------------------------------------------------


def test_normal_errors_of_the_stated_size_are_calibrated() -> None:
    """To four standard errors of a share of N independent voxels."""
    pred, ref, sigma, mask = trial(shape=(60, 60, 60))
    found, count = calibration(pred, ref, sigma, mask), int(mask.sum())
    for level, share in zip(LEVELS, found.coverage, strict=True):
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / count)
    assert found.scale == pytest.approx(1, abs=4 / math.sqrt(2 * count))
    assert found.miscalibration < 0.003
    assert found.ence < 0.02
    assert found.mean_sigma == pytest.approx(sigma[mask].mean())
    for one in found.bins:
        assert one.rmse == pytest.approx(one.sigma, rel=4 / math.sqrt(2 * one.count))


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
def test_a_wrong_size_shows_as_its_factor(factor: float) -> None:
    """σ too small by a factor: it is the scale, and coverage is that of a z divided by it."""
    pred, ref, sigma, _ = trial(factor=factor, shape=(60, 60, 60))
    found = calibration(pred, ref, sigma)
    assert found.scale == pytest.approx(factor, rel=0.01)
    assert found.ence == pytest.approx(abs(1 - factor), rel=0.02)
    for level, share in zip(LEVELS, found.coverage, strict=True):
        z = NormalDist().inv_cdf((1 + level) / 2)
        assert share == pytest.approx(2 * NormalDist().cdf(z / factor) - 1, abs=0.005)


def test_every_number_is_its_definition() -> None:
    pred, ref, sigma, mask = trial(3, factor=1.7)
    sigma = sigma.round(0)  # with ties
    found = calibration(pred, ref, sigma, mask)
    e, s = np.abs(pred - ref)[mask], sigma[mask]
    for level, share in zip(LEVELS, found.coverage, strict=True):
        assert share == np.mean(e <= NormalDist().inv_cdf((1 + level) / 2) * s)
    levels = [k / 100 for k in range(1, 100)]
    shares = [np.mean(e <= NormalDist().inv_cdf((1 + level) / 2) * s) for level in levels]
    gaps = [abs(a - b) for a, b in zip(levels, shares, strict=True)]
    assert found.miscalibration == pytest.approx(sum(gaps) / 99, abs=1e-12)
    assert found.scale == pytest.approx(math.sqrt(sum((a / b) ** 2 for a, b in zip(e, s, strict=True)) / len(e)))
    assert found.spearman == pytest.approx(stats.spearmanr(e, s).statistic, abs=1e-11)
    pairs, bins, start = sorted(zip(s, range(len(s)), e, strict=True)), [], 0
    for number in range(10):  # equal counts, the first bins one longer
        stop = start + len(pairs) // 10 + (number < len(pairs) % 10)
        part = pairs[start:stop]
        bins.append([math.sqrt(sum(p[k] ** 2 for p in part) / len(part)) for k in (0, 2)])
        start = stop
    assert [[one.sigma, one.rmse] for one in found.bins] == [pytest.approx(one) for one in bins]
    assert found.ence == pytest.approx(sum(abs(a - b) / a for a, b in bins) / 10)


def test_voxels_without_spread_are_counted_and_divide_nothing() -> None:
    error, sigma = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    error[0], sigma[0, 0] = 3.0, 2.0  # 4 wrong voxels, of which 2 say so; 4 right ones that say nothing
    found = calibration(error, np.zeros_like(error), sigma)
    assert found.zero_share == 0.75
    assert found.scale == 1.5
    assert found.coverage == (0.5, 0.5, 0.5, 0.75, 0.75)  # 3 / 2 lies inside 1.645 σ, outside 1.282 σ
    assert [one.count for one in found.bins] == [1, 1]


def test_what_is_not_defined_is_not_a_number() -> None:
    flat = calibration(np.ones((2, 2, 2)), np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))
    assert all(math.isnan(value) for value in (flat.scale, flat.ence, flat.spearman))
    assert (flat.bins, flat.coverage, flat.miscalibration) == ((), (0, 0, 0, 0, 0), pytest.approx(0.5))


def test_calibration_refuses_what_is_none() -> None:
    pred, ref, sigma, mask = trial()
    with pytest.raises(InputError, match=r"never negative; seen -5; is this the image itself\?"):
        calibration(pred, ref, np.where(sigma == sigma.max(), -5.0, sigma))
    with pytest.raises(InputError, match="the mask is empty"):
        calibration(pred, ref, sigma, np.zeros_like(mask))
    with pytest.raises(GeometryError, match="of one shape"):
        calibration(pred, ref, sigma[1:])


# --- slices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slice_metrics_are_their_definitions(axis: int) -> None:
    pred, ref, _, mask = trial(1, shape=(7, 6, 5))

    def change(image: Array, along: int) -> float:
        total = 0.0
        for place in np.ndindex(image.shape):
            after = tuple(index + (number == along) for number, index in enumerate(place))
            if after[along] < image.shape[along] and mask[place] and mask[after]:
                total += abs(image[after] - image[place])
        return total

    within = [other for other in range(3) if other != axis]
    r_across = change(pred, axis) / change(ref, axis)
    r_within = sum(change(pred, other) for other in within) / sum(change(ref, other) for other in within)
    assert slice_roughness(pred, ref, mask, axis) == pytest.approx(r_across / r_within, rel=1e-12)
    error, jumps = np.moveaxis(pred - ref, axis, 0), []
    inside = np.moveaxis(mask, axis, 0)
    for k in range(len(error) - 1):
        both = [place for place in np.ndindex(error[k].shape) if inside[k][place] and inside[k + 1][place]]
        jumps.append(abs(sum(error[k + 1][place] - error[k][place] for place in both) / len(both)))
    assert slice_jump(pred, ref, mask, axis) == pytest.approx(sum(jumps) / len(jumps), rel=1e-12)


def smooth(seed: int) -> Array:
    """A volume that changes alike along all axes, to the last digit."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((32, 32, 32)), 2, mode="wrap") * 1000
    return np.asarray(noise + noise.transpose(1, 2, 0) + noise.transpose(2, 0, 1))


def test_flicker_shows_and_blur_does_not() -> None:
    """1 for an image as good, as blurred or as noisy in all directions; more for slices that were made one by one."""
    ref = smooth(0)
    flickering = ref + np.random.default_rng(1).normal(0, 40, 32)
    between = (flickering + np.roll(flickering, 1, 2) + np.roll(flickering, -1, 2)) / 3
    assert slice_roughness(ref, ref) == 1
    assert slice_roughness(ref / 2 + 40, ref) == pytest.approx(1)
    assert slice_roughness(ref + smooth(1), ref) == pytest.approx(1)
    assert slice_roughness(flickering, ref) > 1.3
    assert slice_roughness(between, ref) < 1.05
    assert slice_jump(ref + 100, ref) == pytest.approx(0, abs=1e-9)
    assert slice_jump(flickering, ref) == pytest.approx(40 * 2 / math.sqrt(math.pi), rel=0.3)  # of two normal draws
    assert slice_jump(flickering, ref, axis=0) < 0.01 * slice_jump(flickering, ref)
    assert slice_jump(between, ref) < 0.5 * slice_jump(flickering, ref)


def test_slices_without_neighbours_have_no_number() -> None:
    ref = np.random.default_rng(0).random((4, 4, 1))
    assert math.isnan(slice_roughness(ref + 1, ref))
    assert math.isnan(slice_jump(ref + 1, ref))
    assert math.isnan(slice_roughness(np.zeros((3, 3, 3)), np.zeros((3, 3, 3))))
    with pytest.raises(GeometryError, match="3-D and of one shape"):
        slice_jump(ref, ref[1:])


# --- evaluate ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three cases in folders pred, ref and mask; σ of two of them beside the predictions."""
    for number in range(3):
        pred, ref, sigma, mask = (array.astype(np.float32) for array in trial(number, factor=2))
        write(Volume(pred, GRID, "HU", "CT"), tmp_path / f"pred/p{number}.nii.gz")
        write(Volume(ref, GRID, "HU", "CT"), tmp_path / f"ref/p{number}.nii.gz")
        write(Volume(mask.astype(np.uint8), GRID, "label"), tmp_path / f"mask/p{number}.nii.gz")
        if number < 2:
            write(Volume(sigma, GRID, "HU", "CT"), tmp_path / f"pred/p{number}_std.nii.gz")
    return tmp_path


def test_maps_beside_predictions_are_found(study: Path) -> None:
    rows = evaluate(study / "pred", study / "ref", mask=study / "mask", out=study / "out")
    assert [row["case"] for row in rows] == ["p0", "p1", "p2"]
    pred, ref, sigma, mask = (array.astype(np.float32).astype(float) for array in trial(1, factor=2))
    found = calibration(pred, ref, sigma, mask)
    expected = [*found.coverage, found.miscalibration, found.ence, found.spearman, found.scale]
    expected += [found.mean_sigma, found.zero_share]
    assert [rows[1][name] for name in NUMBERS] == pytest.approx(expected)
    assert rows[1]["sigma_scale"] == pytest.approx(2, rel=0.05)
    assert rows[1]["error_by_sigma"][3] == {
        "sigma": pytest.approx(found.bins[3].sigma),
        "rmse": pytest.approx(found.bins[3].rmse),
        "count": found.bins[3].count,
    }
    assert [rows[2][name] for name in [*NUMBERS, "error_by_sigma"]] == [None] * 12
    assert rows[2]["mae"] > 0


def test_what_is_written_of_calibration(study: Path) -> None:
    rows = evaluate(study / "pred", study / "ref", out=study / "out")
    record = json.loads((study / "out/metrics.json").read_text())
    assert record["rows"] == rows
    assert record["summary"] == summarise(rows)
    assert record["summary"]["sigma_scale"]["mean"] == pytest.approx(
        (rows[0]["sigma_scale"] + rows[1]["sigma_scale"]) / 2
    )
    assert record["summary"]["ence"]["num_undefined"] == 1
    assert set(record["sha256"]["p0"]) == {"pred", "ref", "std"}
    with (study / "out/metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert float(table[0]["coverage_95"]) == rows[0]["coverage_95"]
    assert table[2]["coverage_95"] == ""
    assert "error_by_sigma" not in table[0]
    drawn = np.asarray(Image.open(study / "out/calibration.png"))
    assert np.array_equal(drawn, draw_calibration(rows))


def test_without_maps_nothing_is_said_of_calibration(study: Path) -> None:
    (row,) = evaluate(study / "pred/p2.nii.gz", study / "ref/p2.nii.gz", out=study / "out")
    assert not set(NUMBERS) & set(row)
    assert sorted(path.name for path in (study / "out").iterdir()) == ["metrics.csv", "metrics.json", "rows.jsonl"]


def test_maps_may_be_named(study: Path) -> None:
    """By case, with or without the ending; then every prediction needs one."""
    maps = study / "maps"
    for number, name in enumerate(("p0", "p1_std", "p2")):
        write(Volume(np.full(SHAPE, number + 1.0), GRID), maps / f"{name}.nii.gz")
    rows = evaluate(study / "pred", study / "ref", std=maps)
    assert [row["mean_sigma"] for row in rows] == [1, 2, 3]
    (maps / "p2.nii.gz").unlink()
    with pytest.raises(InputError, match="maps: no standard deviation for p2; every prediction needs one"):
        evaluate(study / "pred", study / "ref", std=maps)
    (row,) = evaluate(study / "pred/p2.nii.gz", study / "ref/p2.nii.gz", std=maps / "p1_std.nii.gz")
    assert row["mean_sigma"] == 2


def test_a_case_that_is_called_so_stays_a_case(study: Path) -> None:
    write(Volume(trial(9)[1], GRID, "HU", "CT"), study / "ref/p0_std.nii.gz")
    rows = evaluate(study / "pred", study / "ref")
    assert [row["case"] for row in rows if row["status"] == "scored"] == ["p0", "p0_std", "p1", "p2"]


def test_maps_in_folders_of_cases_and_of_series(tmp_path: Path) -> None:
    pred, ref, sigma, _ = (array.astype(np.float32) for array in trial(4))
    mark = Synthesis("pix2pix", quantity="standard deviation")
    for case in ("p1", "p2"):
        write(Volume(ref, GRID, "HU", "CT"), tmp_path / f"ref/{case}.nii.gz")
    write(Volume(pred, GRID, "HU", "CT"), tmp_path / "pred/p1/ct.nii.gz")
    write(Volume(sigma, GRID, "HU", "CT", mark), tmp_path / "pred/p1/ct_std.nii.gz")
    write(Volume(np.rint(pred), GRID, "HU", "CT"), tmp_path / "pred/p2", subject=Subject())
    write(Volume(sigma, GRID, "HU", "CT", mark), tmp_path / "pred/p2_std", subject=Subject())
    one, two = evaluate(tmp_path / "pred", tmp_path / "ref")
    assert one["mean_sigma"] == pytest.approx(sigma.mean(), rel=1e-5)
    assert two["mean_sigma"] == pytest.approx(sigma.mean(), rel=1e-4)
    assert two["sigma_scale"] == pytest.approx(one["sigma_scale"], rel=0.01)
    (alone,) = evaluate(tmp_path / "pred/p2", tmp_path / "ref/p2.nii.gz")
    assert alone["ence"] == two["ence"]


@pytest.mark.parametrize(
    ("std", "says"),
    [
        (Volume(np.full(SHAPE, -1.0), GRID), "standard deviation is negative somewhere"),
        (Volume(np.ones(SHAPE), GRID, "Bq/ml"), "prediction is in HU, its standard deviation in Bq/ml"),
        (Volume(np.ones(SHAPE), GRID, "HU", "CT", Synthesis("pix2pix")), "standard deviation is an image"),
        (Volume(np.ones(SHAPE), GRID, "HU", "CT", Synthesis("m", quantity="cycle residual")), "is cycle residual"),
    ],
)
def test_what_is_no_standard_deviation_is_refused(std: Volume, says: str) -> None:
    pred, ref, _, _ = trial()
    with pytest.raises(InputError, match=f"case 'p7': .*{says}"):
        score(Volume(pred, GRID, "HU"), Volume(ref, GRID, "HU"), case="p7", std=std)


def test_a_map_elsewhere_or_taken_for_the_image_is_refused() -> None:
    pred, ref, sigma, _ = trial()
    image, truth = Volume(pred, GRID, "HU"), Volume(ref, GRID, "HU")
    with pytest.raises(GeometryError, match="standard deviation is not on the reference's grid"):
        score(image, truth, std=Volume(sigma, Grid.regular(SHAPE)))
    mark = Synthesis("pix2pix", quantity="standard deviation")
    with pytest.raises(InputError, match="the prediction is the standard deviation of an image; name the image"):
        score(Volume(sigma, GRID, "HU", "CT", mark), truth)


def test_axes_of_a_map_may_run_differently() -> None:
    pred, ref, sigma, _ = trial()
    image, truth, std = (Volume(array, GRID, "HU") for array in (pred, ref, sigma))
    straight, turned = (score(image.reorient(o), truth, std=std.reorient(o)) for o in ("RAS", "ILP"))
    assert straight == turned


@pytest.mark.parametrize(("patch", "axes", "across"), [("[16, 16, 1]", "RAS", "z"), ("[1, 16, 8]", "PLS", "y")])
def test_slices_are_those_of_the_run(patch: str, axes: str, across: str, tiny_cohort: Path, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", tiny_cohort / "tiny.yaml", f"patch={patch}", f"prep.axes={axes}")
    pred, ref, _, _ = (array.astype(np.float32) for array in trial(2))
    write(Volume(pred, GRID, "HU", "CT"), tmp_path / "pred.nii.gz")
    write(Volume(ref, GRID, "HU", "CT").reorient("SPL"), tmp_path / "ref.nii.gz")
    (row,) = evaluate(tmp_path / "pred.nii.gz", tmp_path / "ref.nii.gz", run=run.path, out=tmp_path / "out")
    axis = "xyz".index(across)
    assert row["slice_roughness"] == pytest.approx(slice_roughness(pred, ref, axis=axis))
    assert row["slice_jump"] == pytest.approx(slice_jump(pred, ref, axis=axis))
    assert json.loads((tmp_path / "out/metrics.json").read_text())["settings"]["across"] == across


def test_one_slice_has_a_note() -> None:
    ref = Volume(trial()[1][:, :, :1], Grid.regular((24, 20, 1)), "HU")
    row = score(ref.with_array(ref.array + 3), ref)
    assert (row["slice_roughness"], row["slice_jump"]) == (None, None)
    assert "slice_jump is undefined: there are no neighbours to compare" in row["note"]


# --- pictures and commands --------------------------------------------------------------------------------------------


def test_the_diagram_draws_what_the_rows_say() -> None:
    """The thick blue line of a calibrated σ lies on the dashed diagonal, that of one too small below and above it."""
    slopes = {}
    for factor in (1.0, 3.0):
        pred, ref, sigma, _ = (
            Volume(array, Grid.regular((40, 40, 40)), "HU") for array in trial(0, factor, (40, 40, 40))
        )
        drawn = draw_calibration([score(pred, ref, std=sigma)]).astype(int)
        down, right = (np.abs(drawn - (5, 80, 155)).sum(axis=2) < 30).nonzero()
        starts = {"coverage": 74, "error": 74 + 320 + 96}
        for name, start in starts.items():
            inside = (right >= start) & (right < start + 320)
            x, y = right[inside] - start, 40 + 320 - down[inside]
            slopes[name, factor] = float((x @ y) / (x @ x))
    assert slopes["coverage", 1] == pytest.approx(1, abs=0.03)
    assert slopes["error", 1] == pytest.approx(1, abs=0.03)
    assert slopes["coverage", 3] == pytest.approx(0.45, abs=0.1)  # 2 Φ(z / 3) - 1 against 2 Φ(z) - 1
    assert slopes["error", 3] == pytest.approx(3, abs=0.15)


def test_the_command_shows_calibration(study: Path) -> None:
    done = medgan("evaluate", study / "pred", study / "ref", "--mask", study / "mask")
    (row, _, _) = json.loads(medgan("evaluate", study / "pred", study / "ref", "--mask", study / "mask", "--json").out)
    lines = done.out.splitlines()
    assert lines[0].split() == ["case", "mae", "psnr", "ssim", "slice_roughness", "slice_jump"]
    head = next(number for number, line in enumerate(lines) if "miscalibration" in line)
    shown = lines[head + 1].split()
    assert shown[0] == "p0"
    names = [*NUMBERS[:9], "sigma_scale"]
    assert [float(value) for value in shown[1:]] == pytest.approx(
        [row[name] for name in [*NUMBERS[:5], "miscalibration", "ence", "spearman", "sigma_scale"]], abs=6e-5
    ), names
    assert [line.split()[0] for line in lines[head + 1 :]] == ["p0", "p1", "mean"]
    assert "miscalibration" not in medgan("evaluate", study / "pred/p2.nii.gz", study / "ref/p2.nii.gz").out


def test_the_report_shows_calibration(study: Path) -> None:
    rows = evaluate(study / "pred", study / "ref")
    page = write_report(study / "r.html", Report("R", [], {"mine": rows, "other": evaluate(study / "pred/p2.nii.gz",
                        study / "ref/p2.nii.gz")})).read_text()  # fmt: skip
    assert page.count("Standard deviation of mine") == 1
    assert "Standard deviation of other" not in page
    mean = summarise(rows)["coverage_95"]["mean"]
    assert f"{100 * (mean or 0):.0f} % for 95 %" in page


def test_a_table_is_sampled_and_judged(tiny_cohort: Path, tmp_path: Path) -> None:
    """The whole way: σ of a run where evaluate finds it."""
    run = untrained_run(tmp_path / "run", tiny_cohort / "tiny.yaml")
    table = tiny_cohort / "cases.csv"
    assert medgan("translate", run.path, table, tmp_path / "made", "--samples", "3").code == 0
    rows = json.loads(medgan("evaluate", tmp_path / "made", table, "--json").out)
    assert [row["case"] for row in rows if row["status"] == "refused"] == ["p0", "p1", "p2"]  # were trained on
    scored = [row for row in rows if row["status"] == "scored"]
    assert [row["case"] for row in scored] == ["p3", "p4"]
    assert all(row["mean_sigma"] > 0 and 0 <= row["coverage_95"] <= 1 for row in scored)


def test_masks_of_a_table_go_with_maps(study: Path) -> None:
    cases = [
        Case(f"p{n}", f"p{n}", "test", {"b": study / f"ref/p{n}.nii.gz", "mask": study / f"mask/p{n}.nii.gz"})
        for n in range(3)
    ]
    write_cases(cases, study / "cases.csv")
    assert evaluate(study / "pred", study / "cases.csv") == evaluate(study / "pred", study / "ref", mask=study / "mask")
