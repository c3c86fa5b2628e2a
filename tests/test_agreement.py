"""How values agree, as the report of an evaluation counts and draws it: against numpy, voxel for voxel."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medgan.errors import GeometryError
from medgan.report import scatter
from medgan.report.plots import agreement_plots, region_bars
from medgan.report.scatter import (
    Agreement,
    CaseMeans,
    by_patient,
    calibration_curve,
    coarser,
    histogram_2d,
    histogram_quantile,
    limits_of_agreement,
)
from medgan.report.scores import ranked

LIMITS = (-1000.0, 1000.0)


def pair(seed=0, shape=(20, 24, 12)):
    rng = np.random.default_rng(seed)
    ref = rng.normal(0, 300, shape)
    return ref * 0.8 + rng.normal(20, 60, shape), ref


def agreement_of(*pairs, limits=LIMITS, mask=None):
    found = Agreement(limits)
    for number, (pred, ref) in enumerate(pairs):
        found.add(f"p{number}", pred, ref, mask)
    return found


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_histograms_are_those_of_numpy(seed, columns, rows):
    x, y = np.random.default_rng(seed).uniform(-1, 2, (2, 200))
    limits = ((-1.0, 2.0), (-1.0, 2.0))
    expected, _, _ = np.histogram2d(x, y, bins=(columns, rows), range=limits)
    assert (histogram_2d(x, y, limits, (columns, rows)) == expected).all()


def test_values_beyond_the_limits_count_at_the_rim():
    counts = histogram_2d(np.array([-9.0, 0.5, 9.0]), np.array([9.0, 0.5, 1.0]), ((0, 1), (0, 1)), (2, 2))
    assert counts.tolist() == [[0, 1], [0, 2]]


def test_coarser_counts_are_sums_of_their_neighbours():
    counts = np.arange(24).reshape(4, 6)
    expected = [
        [sum(counts[i, j] for i in (2 * a, 2 * a + 1) for j in range(3 * b, 3 * b + 3)) for b in (0, 1)] for a in (0, 1)
    ]
    assert coarser(counts, (2, 2)).tolist() == expected


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.75, 0.99])
def test_quantiles_of_a_histogram_are_those_of_the_values_to_a_bin(share):
    values = np.random.default_rng(3).normal(0, 1, 50_000)
    counts, _ = np.histogram(values, bins=400, range=(-4, 4))
    assert histogram_quantile(counts, (-4, 4), share) == pytest.approx(np.quantile(values, share), abs=8 / 400)


def test_quantiles_of_nothing_are_undefined_and_of_one_bin_within_it():
    assert math.isnan(histogram_quantile(np.zeros(4, np.int64), (0, 1), 0.5))
    assert histogram_quantile(np.array([0, 0, 8, 0]), (0.0, 4.0), 0.5) == 2.5
    assert histogram_quantile(np.array([0, 0, 8, 0]), (0.0, 4.0), 0.0) == 0.0


def test_the_calibration_curve_is_that_of_the_voxels_themselves():
    pairs = [pair(0), pair(1)]
    pred, ref = (np.clip(np.concatenate([one[k].ravel() for one in pairs]), *LIMITS) for k in (0, 1))
    edges = np.linspace(*LIMITS, 65)
    curve = calibration_curve(agreement_of(*pairs))
    expected = []
    for k in range(64):
        inside = (ref >= edges[k]) & ((ref < edges[k + 1]) | (k == 63))
        if inside.sum() >= 30:
            expected.append((ref[inside], pred[inside]))
    assert len(curve) == len(expected) > 10
    for one, (refs, preds) in zip(curve, expected, strict=True):
        assert one.num_voxels == refs.size
        assert one.ref == pytest.approx(refs.mean(), rel=1e-12)
        assert one.mean == pytest.approx(preds.mean(), rel=1e-12)
        # np.quantile interpolates between values, which lie up to their own distance apart.
        gap = np.diff(np.sort(preds)).max() + 2000 / 1024
        assert one.q1 == pytest.approx(np.quantile(preds, 0.25), abs=gap)
        assert one.q3 == pytest.approx(np.quantile(preds, 0.75), abs=gap)


def test_limits_of_agreement_are_those_of_bland_and_altman():
    differences = [-9.0, 4.0, 13.0, -2.0, 7.5]
    found = limits_of_agreement(differences)
    assert found.mean == np.mean(differences)
    assert (found.low, found.high) == pytest.approx(
        (
            np.mean(differences) - 1.96 * np.std(differences, ddof=1),
            np.mean(differences) + 1.96 * np.std(differences, ddof=1),
        )
    )
    assert limits_of_agreement([3.0]).low is None


def test_differences_of_voxels_are_those_of_numpy():
    pairs = [pair(0), pair(1)]
    found = agreement_of(*pairs)
    difference = np.concatenate([(pred - ref).ravel() for pred, ref in pairs])
    middle = np.concatenate([((pred + ref) / 2).ravel() for pred, ref in pairs])
    limits = found.voxel_limits()
    assert limits.mean == pytest.approx(difference.mean(), rel=1e-10)
    assert limits.high - limits.mean == pytest.approx(1.96 * difference.std(ddof=1), rel=1e-10)
    expected, _, _ = np.histogram2d(
        np.clip(middle, *LIMITS), difference, bins=(128, 2048), range=(LIMITS, (-2000.0, 2000.0))
    )
    assert (found.spread == expected).all()
    assert found.error_quantile(0.99) == pytest.approx(np.quantile(np.abs(difference), 0.99), abs=4000 / 2048)


def test_means_of_cases_and_of_patients():
    found = Agreement(LIMITS)
    for number, patient in enumerate(("a", "b", "a")):
        found.add(f"c{number}", *pair(number), patient=patient)
    expected = [(pred.mean() - ref.mean(), (pred.mean() + ref.mean()) / 2) for pred, ref in map(pair, range(3))]
    assert [(one.difference, one.mean) for one in found.cases] == [pytest.approx(one) for one in expected]
    a, b = by_patient(found.cases)
    assert (a.case, a.patient, b.case) == ("c0, c2", "a", "c1")
    assert a.difference == pytest.approx((expected[0][0] + expected[2][0]) / 2)
    assert by_patient([CaseMeans("x", "x", 1.0, 2.0, 5)])[0].difference == 1.0


def test_only_what_lies_in_the_mask_counts_and_slabs_change_nothing(monkeypatch):
    pred, ref = pair()
    mask = np.zeros(ref.shape, np.uint8)
    mask[3:15, 4:20, 2:9] = 7
    whole = agreement_of((pred, ref), mask=mask)
    inside = mask > 0
    alone = agreement_of((pred[inside].reshape(12, 16, 7), ref[inside].reshape(12, 16, 7)))
    monkeypatch.setattr(scatter, "_SLAB_VOXELS", 300)
    slabs = agreement_of((np.asfortranarray(pred), ref[::-1][::-1]), mask=mask)
    for one in (alone, slabs):
        assert (one.joint == whole.joint).all()
        assert (one.spread == whole.spread).all()
        assert one.cases[0].difference == pytest.approx(whole.cases[0].difference)
    assert whole.num_voxels == inside.sum() == whole.joint.sum() == whole.spread.sum()


def test_integers_and_floats_count_alike():
    pred, ref = (np.rint(one) for one in pair())
    apart = agreement_of((pred.astype(np.int16), ref.astype(np.float32)))
    assert (apart.joint == agreement_of((pred, ref)).joint).all()
    assert apart.voxel_limits() == agreement_of((pred, ref)).voxel_limits()


def test_voxels_that_are_not_finite_are_left_out_and_counted():
    pred, ref = pair()
    pred[0, 0, :3] = np.nan
    ref[1, 1, 1] = np.inf
    found = agreement_of((pred, ref))
    assert found.num_skipped == 4
    assert found.num_voxels == ref.size - 4
    assert np.isfinite(found.cases[0].difference)
    nothing = agreement_of((np.full((3, 3, 3), np.nan), np.zeros((3, 3, 3))))
    assert (nothing.cases, nothing.num_voxels, nothing.voxel_limits()) == ([], 0, None)
    assert agreement_plots(nothing, "HU") == []


@pytest.mark.parametrize("value", [0.0, 5000.0])
def test_constant_images_and_single_slices_are_drawn(value):
    constant = np.full((9, 8, 1), value)
    plots = agreement_plots(agreement_of((constant, constant)), "HU")
    assert [plot.name for plot in plots] == [
        "Calibration",
        "Joint histogram",
        "Bland–Altman, patients",
        "Bland–Altman, voxels",
    ]
    assert agreement_plots(agreement_of((constant, constant), limits=(7.0, 7.0)), "HU")


def test_images_of_other_shapes_are_refused():
    with pytest.raises(GeometryError, match="'p0'"):
        agreement_of((np.zeros((2, 3, 4)), np.zeros((2, 3, 5))))
    with pytest.raises(GeometryError):
        agreement_of(pair(), mask=np.ones((2, 2, 2)))


def test_an_empty_mask_adds_no_case():
    assert agreement_of(pair(), mask=np.zeros((20, 24, 12))).cases == []


def test_charts_are_to_scale():
    found = agreement_of(pair(0), pair(1), pair(2))
    curve, _, patients, _ = agreement_plots(found, "HU")
    bins = calibration_curve(found)
    places = [tuple(map(float, one.split(","))) for one in curve.line[1:].split(" L")]
    marks = [(tick.at, float(tick.label.replace("−", "-").replace("\u202f", ""))) for tick in curve.x_ticks]
    per_unit = (marks[-1][0] - marks[0][0]) / (marks[-1][1] - marks[0][1])
    for (x, y), one in zip(places, bins, strict=True):
        assert x == pytest.approx(marks[0][0] + (one.ref - marks[0][1]) * per_unit, abs=0.02)
        assert y == pytest.approx(curve.height - (one.mean - marks[0][1]) * per_unit, abs=0.02)
    assert [rule.label.split()[0] for rule in patients.rules] == ["mean", "+1.96", "−1.96"]
    assert patients.rules[1].at < patients.rules[0].at < patients.rules[2].at
    assert len(patients.dots) == 3


def levels(plot):
    """(H, W): which colour each bin of a chart has, 0 where nothing was counted."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(plot.heat.uri.partition(",")[2]))))


def test_the_joint_histogram_is_drawn_with_real_values_to_the_right_and_synthetic_ones_up():
    found = agreement_of(pair(0), pair(1))
    drawn = levels(agreement_plots(found, "HU")[1])
    counts = coarser(found.joint, (256, 256))
    used = np.flatnonzero(counts.any(axis=0) | counts.any(axis=1))
    shown = counts[used[0] : used[-1] + 1, used[0] : used[-1] + 1]
    assert ((drawn > 0) == (shown > 0).T[::-1]).all()
    assert drawn.max() == drawn[np.unravel_index(shown.T[::-1].argmax(), shown.shape)] == 255
    assert set(drawn[shown.T[::-1] == 1]) == {1}


def test_too_high_values_are_drawn_above_zero():
    _, ref = pair()
    for sign in (1, -1):
        plot = agreement_plots(agreement_of((ref + sign * 500, ref)), "HU")[3]
        rows = np.flatnonzero(levels(plot).any(axis=1)) / len(levels(plot))
        zero = next(tick.at for tick in plot.y_ticks if tick.label == "0") / plot.height
        assert (rows.max() < zero) if sign > 0 else (rows.min() >= zero - 0.02)
        assert plot.rules[0].label == ("mean +500" if sign > 0 else "mean −500")


def test_labels_of_lines_that_lie_together_stay_apart():
    same = Agreement(LIMITS)
    for number in range(3):
        _, ref = pair(number)
        same.add(f"p{number}", ref + 500 + 1e-3 * number, ref)
    labels = agreement_plots(same, "HU")[2].rule_labels
    assert sorted(abs(a.at - labels[0].at) for a in labels[1:])[0] >= 14


def test_bars_are_drawn_for_measures_with_regions():
    numbers = {"n": 3, "num_undefined": 0, "mean": 10.0, "bca95_low": 8.0, "bca95_high": 12.0}
    alone = {**numbers, "n": 1, "mean": -4.0, "bca95_low": None, "bca95_high": None}
    nothing = {**alone, "n": 0, "mean": None}
    columns = {"mae": numbers, "mae_bone": numbers, "mae_lung": numbers, "hd95_body": numbers, "coverage_50": numbers}
    columns |= {"bias_bone": numbers, "bias_soft_tissue": alone, "dice_bone": nothing, "dice_lung": nothing}
    columns |= dict.fromkeys(("coverage_80", "ssim", "ssim_wang2004", "ssim_wang2004_2d"), numbers)
    charts = region_bars(columns, "HU")
    assert [chart.name for chart in charts] == ["MAE, HU, by region", "Bias, HU, by region"]
    assert [line.label for line in charts[1].lines] == ["bone, n = 3", "soft tissue, n = 1"]
    bone, tissue = charts[1].lines
    assert tissue.own.value < charts[1].mark < bone.own.low < bone.own.value < bone.own.high
    assert tissue.own.low == tissue.own.value == tissue.own.high


def test_cases_are_ranked_by_what_is_worse_for_the_metric():
    values = {"a": 3.0, "b": -5.0, "c": None, "d": 1.0}
    rows = [{"case": case, "status": "scored", "bias": value, "psnr": value} for case, value in values.items()]
    assert ranked(rows, "bias").cases == ("b", "a", "d")
    assert ranked(rows, "psnr").cases == ("b", "d", "a")
    assert ranked(rows, "psnr").unranked == ("c",)
    assert ranked([{**rows[0], "status": "no prediction"}], "psnr").cases == ()
