"""Scores, intervals and corrected p-values, each against a derivation of its own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medgan.augment.statistics import auc, macro_auc, paired_difference, patient_draws, recalls
from medgan.metrics.statistics import holm

NUMBERS = st.lists(st.tuples(st.integers(-4, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=25)


@settings(max_examples=100, deadline=None)
@given(rows=NUMBERS)
def test_auc_counts_pairs(rows: list[tuple[int, bool, int]]) -> None:
    """Against the definition, pair by pair: images weighted w count as w images."""
    pairs = [
        (high[2] * low[2], (high[0] > low[0]) + 0.5 * (high[0] == low[0]))
        for high, low in itertools.product([r for r in rows if r[1]], [r for r in rows if not r[1]])
    ]
    total = sum(weight for weight, _ in pairs)
    scores, positive, weights = (np.array(column) for column in zip(*rows, strict=True))
    if total:
        expected = sum(weight * won for weight, won in pairs) / total
        assert auc(scores, positive, weights[None].astype(float))[0] == pytest.approx(expected)


def test_auc_is_the_rank_sum_statistic_and_turns_with_the_classes() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.normal(size=200).round(1), rng.random(200) < 0.3
    u = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert auc(scores, positive)[0] == pytest.approx(u / positive.sum() / (~positive).sum())
    assert auc(scores, ~positive)[0] == pytest.approx(1 - auc(scores, positive)[0])
    assert auc(np.exp(scores), positive)[0] == pytest.approx(auc(scores, positive)[0])


def test_macro_auc_is_the_mean_of_each_class_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(90, 3)), rng.integers(0, 3, 90)
    logits[np.arange(90), labels] += 1
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    each = [auc(chances[:, k], labels == k)[0] for k in range(3)]
    assert macro_auc(logits, labels)[0] == pytest.approx(np.mean(each))
    shifted = logits + rng.normal(size=(90, 1))
    assert macro_auc(shifted, labels)[0] == pytest.approx(np.mean(each))


def test_confident_logits_are_not_tied() -> None:
    """The probabilities of the second class are 1 for both of the first two images."""
    logits, labels = np.array([[0.0, 50, 0], [0, 60, 0], [0, 0, 60]]), [0, 1, 2]
    assert (1 / (1 + 2 * np.exp(-logits[:2, 1])) == 1).all()
    assert macro_auc(logits, labels)[0] == 1


def test_recalls_are_counted_by_hand() -> None:
    logits = [[2, 1, 0], [0, 1, 0], [0, 3, 4], [1, 0, 0], [0, 0, 9]]
    labels = [0, 1, 1, 2, 2]
    assert recalls(logits, labels)[0].tolist() == [1, 0.5, 0.5]
    assert recalls(logits, labels, np.array([[1.0, 3, 1, 0, 2]]))[0].tolist() == [1, 0.75, 1]


def test_draws_keep_patients_whole_and_classes_alive() -> None:
    patients = ["a", "b", "a", "c", "d", "d"]
    draws = patient_draws(patients, num=500, seed=3)
    assert draws.shape == (501, 6)
    assert (draws[0] == 1).all()
    assert (draws[:, 0] == draws[:, 2]).all()
    assert (draws[:, 4] == draws[:, 5]).all()
    assert np.allclose(draws[:, [0, 1, 3, 4]].sum(axis=1), 4)
    assert (draws > 0).all()
    assert np.array_equal(draws, patient_draws(patients, num=500, seed=3))


def test_draws_vary_a_mean_as_much_as_its_standard_error_says() -> None:
    values = np.random.default_rng(0).exponential(size=30)
    draws = patient_draws([f"p{number}" for number in range(30)], num=20000)[1:]
    assert (draws @ values / 30).std() == pytest.approx(stats.sem(values), rel=0.03)


def test_without_noise_of_patients_the_difference_is_a_paired_t_test() -> None:
    """Scores that are the same for every draw leave the spread over seeds alone."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.8, 0.05, 6), rng.normal(0.75, 0.05, 6)
    flat = np.ones((1, 50))
    found = paired_difference(a[:, None] * flat, b[:, None] * flat, num_patients=40)
    expected = stats.ttest_rel(a, b)
    low, high = expected.confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(a - b))
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))


def test_without_noise_of_seeds_the_difference_is_a_bootstrap_over_patients() -> None:
    values = np.random.default_rng(3).normal(0.1, 1, 80)
    draws = patient_draws([str(number) for number in range(80)], num=20000)
    scores = np.tile(draws @ values / 80, (5, 1))
    found = paired_difference(scores, np.zeros_like(scores), num_patients=80)
    expected = stats.ttest_1samp(values, 0)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    assert found.p == pytest.approx(expected.pvalue, rel=0.05)


def test_the_same_scores_differ_by_nothing_and_sides_mirror() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 5, 100))
    same = paired_difference(a, a, num_patients=9)
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    one, other = paired_difference(a, b, num_patients=9), paired_difference(b, a, num_patients=9)
    assert (one.mean, one.low, one.high, one.p) == pytest.approx((-other.mean, -other.high, -other.low, other.p))


@pytest.mark.parametrize(
    ("seeds", "patients", "both"), [(0.05, 0, 0), (0, 0.3, 0), (0.05, 0.3, 0.3), (0, 0, 1)], ids=str
)
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: float, patients: float, both: float) -> None:
    """400 studies of 5 seeds and 60 patients of 2 images with a true difference of 0.1."""
    rng = np.random.default_rng(5)
    names = [f"p{number // 2}" for number in range(120)]
    held = 0
    for study in range(400):
        draws = patient_draws(names, num=200, seed=study)
        truth = 0.1 + seeds * rng.normal(size=(5, 1)) + patients * np.repeat(rng.normal(size=(1, 60)), 2, axis=1)
        scores = (truth + both * rng.normal(size=(5, 120))) @ draws.T / draws.sum(axis=1)
        found = paired_difference(scores, np.zeros_like(scores), num_patients=60)
        held += found.low <= 0.1 <= found.high
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert held / 400 > 0.92


def test_holm_on_an_example_by_hand() -> None:
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, and .04 raised to the .06 before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@settings(max_examples=100, deadline=None)
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8), level=st.floats(0.01, 0.5))
def test_holm_rejects_what_the_step_down_rule_rejects(p: list[float], level: float) -> None:
    rejected = set()
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[place] * (len(p) - rank) > level:
            break
        rejected.add(place)
    assert {place for place, corrected in enumerate(holm(p)) if corrected <= level} == rejected
