"""Summaries, intervals, paired tests and rankings: against scipy, published numbers, literal loops and simulation."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medgan.errors import InputError
from medgan.metrics import statistics
from medgan.metrics.paired import (
    differences,
    hodges_lehmann,
    permutation,
    rank_biserial,
    wilcoxon,
    win_rate,
)
from medgan.metrics.statistics import CI, draws, holm, owners_of, rank_stability, summary

# Hollander & Wolfe 1973, p. 29 (Hamilton depression scale), as in the examples of R's wilcox.test.
DEPRESSION_BEFORE = (1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30)
DEPRESSION_AFTER = (0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29)
# Darwin's maize, eighths of an inch, crossed less self-fertilised; Fisher 1935, "The Design of Experiments", ch. III.
DARWIN = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)

SMALL = st.lists(st.integers(-5, 5), min_size=1, max_size=9)


# --- summary ----------------------------------------------------------------------------------------------------------


def test_places_and_spread() -> None:
    values = np.random.default_rng(0).lognormal(size=31)
    found = summary(values)
    assert (found.n, found.num_undefined, found.num_patients) == (31, 0, 31)
    assert found.mean == pytest.approx(math.fsum(values) / 31, rel=1e-14)
    assert found.sd == pytest.approx(math.sqrt(math.fsum((values - values.mean()) ** 2) / 30), rel=1e-13)
    assert (found.median, found.min, found.max) == (sorted(values)[15], min(values), max(values))
    assert (found.q1, found.q3) == pytest.approx((np.percentile(values, 25), np.percentile(values, 75)), rel=1e-14)


@pytest.mark.parametrize(("how", "field"), [("percentile", "mean_ci"), ("BCa", "mean_bca")])
@pytest.mark.parametrize("seed", [0, 7])
def test_intervals_of_the_mean_are_scipys_on_the_same_draws(how: str, field: str, seed: int) -> None:
    values = np.random.default_rng(5).lognormal(size=23)
    found = getattr(summary(values, seed=seed, resamples=4000), field)
    rng = np.random.default_rng(seed)
    expected = stats.bootstrap((values,), np.mean, method=how, n_resamples=4000, rng=rng).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.how == how


@pytest.mark.parametrize("size", [8, 9])
def test_interval_of_the_median_is_scipys_on_the_same_draws(size: int) -> None:
    values = np.random.default_rng(5).normal(size=size).round(1)
    rng = np.random.default_rng(0)
    expected = stats.bootstrap((values,), np.median, method="percentile", n_resamples=3000, rng=rng).confidence_interval
    found = summary(values, resamples=3000).median_ci
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.parametrize("how", ["percentile", "BCa"])
def test_all_cases_of_a_patient_are_drawn_together(how: str) -> None:
    """Against scipy's bootstrap of patients, whose statistic gathers their cases in a loop."""
    rng = np.random.default_rng(2)
    patients = np.repeat(["d", "a", "c", "b", "f", "e"], [1, 3, 2, 2, 5, 1])
    values = rng.normal(size=patients.size) + np.repeat(rng.normal(0, 3, 6), [1, 3, 2, 2, 5, 1])
    values = np.round(64 * values) / 64  # sums are exact, so that scipy too sees which means are equal
    names = list(dict.fromkeys(patients))

    def mean(drawn, axis=-1):
        rows = drawn.reshape(-1, drawn.shape[-1])
        means = [np.concatenate([values[patients == names[int(k)]] for k in row]).mean() for row in rows]
        return np.array(means).reshape(drawn.shape[:-1])

    drawn = np.random.default_rng(0)
    expected = stats.bootstrap(
        (np.arange(6.0),), mean, method=how, n_resamples=1500, rng=drawn, vectorized=True
    ).confidence_interval
    one = summary(values, patients, resamples=1500)
    found = one.mean_ci if how == "percentile" else one.mean_bca
    assert (found.low, found.high, found.how) == (
        pytest.approx(expected.low, rel=1e-12),
        pytest.approx(expected.high, rel=1e-12),
        how,
    )


def test_median_over_patients_is_that_of_all_cases_drawn() -> None:
    patients, values = np.array(list("aabbbcd")), np.array([1.0, 9, 2, 2, 5, 7, 3])
    medians = []
    for block in draws(4, resamples=400):
        for row in block:
            cases = [v for k, times in enumerate(row) for v in np.tile(values[patients == "abcd"[k]], times)]
            medians.append(np.median(cases))
    expected = np.quantile(medians, (0.025, 0.975))
    found = summary(values, patients, resamples=400).median_ci
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-14)


def test_patients_with_one_case_each_are_cases() -> None:
    values = np.random.default_rng(1).normal(size=12)
    assert summary(values, [f"p{k}" for k in range(12)][::-1]) == summary(values)


def test_one_seed_one_answer_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values, patients = np.random.default_rng(1).normal(size=40), np.arange(40) // 2
    whole = summary(values, patients.tolist(), seed=3, resamples=501)
    assert whole == summary(values, patients.tolist(), seed=3, resamples=501)
    assert whole != summary(values, patients.tolist(), seed=4, resamples=501)
    monkeypatch.setattr(statistics, "_BLOCK", 7 * 20)
    parts = summary(values, patients.tolist(), seed=3, resamples=501)
    for name in ("mean_ci", "median_ci", "mean_bca"):
        found, expected = getattr(parts, name), getattr(whole, name)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_many_cases_of_few_patients_need_little_memory() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    tracemalloc.start()
    found = summary(values, (np.arange(5000) % 2).tolist(), resamples=2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # 2,000 × 5,000 numbers are 80 MB
    assert found.num_patients == 2


def test_draws_count_whole_resamples() -> None:
    blocks = list(draws(5, seed=1, resamples=30))
    table = np.concatenate(blocks)
    assert table.shape == (30, 5)
    assert (table.sum(axis=1) == 5).all()


def test_what_is_undefined_is_counted_and_left_out() -> None:
    found = summary([1.0, None, 3.0, float("nan"), float("inf"), 8.0])  # type: ignore[list-item]
    assert (found.n, found.num_undefined, found.num_patients) == (3, 3, 3)
    known = summary([1.0, 3.0, 8.0])
    assert (found.mean, found.mean_ci, found.mean_bca) == (known.mean, known.mean_ci, known.mean_bca)


def test_too_little_to_tell_is_named() -> None:
    none = summary([])
    assert none.n == 0
    assert math.isnan(none.mean)
    assert none.mean_ci.how == "none: no value"
    one = summary([4.0])
    assert (one.mean, one.median, one.min, one.max) == (4, 4, 4, 4)
    assert math.isnan(one.sd)
    assert one.mean_ci.how == one.mean_bca.how == one.median_ci.how == "none: one patient"
    twice = summary([4.0, 5.0], ["p", "p"])
    assert (twice.sd, twice.mean_ci.how) == (pytest.approx(0.5**0.5), "none: one patient")
    text = one.to_json()
    assert text["sd"] is None
    assert text["mean_ci"] == {"low": None, "high": None, "how": "none: one patient"}


def test_equal_values_have_an_interval_without_width() -> None:
    found = summary([0.1] * 7)
    assert found.sd == pytest.approx(0, abs=1e-16)
    assert found.mean_bca == found.mean_ci == CI(0.1, 0.1, "percentile, all values are equal")


def test_bca_without_a_value_falls_back_and_says_so() -> None:
    """Two patients with the same cases: no patient left out changes the mean, so the acceleration is 0/0."""
    found = summary([1.0, 4.0, 1.0, 4.0], ["a", "a", "b", "b"], resamples=200)
    assert found.mean_bca.how.startswith("percentile, BCa has no value")
    assert (found.mean_bca.low, found.mean_bca.high) == (found.mean_ci.low, found.mean_ci.high)


def test_tiny_values_have_the_intervals_of_large_ones() -> None:
    values = np.random.default_rng(0).lognormal(size=9)
    for scale in (2.0**-900, 2.0**400):
        found, large = summary(scale * values).mean_bca, summary(values).mean_bca
        assert (found.low / scale, found.high / scale, found.how) == (large.low, large.high, "BCa")


@pytest.mark.parametrize("values", [[[1.0]], ["high"], 3.0])
def test_what_is_no_row_of_numbers_is_refused(values: object) -> None:
    with pytest.raises(InputError, match=r"row|numbers"):
        summary(values)  # type: ignore[arg-type]


def test_as_many_patients_as_values() -> None:
    with pytest.raises(InputError, match="2 patients for 3 values"):
        summary([1.0, 2.0, 3.0], ["a", "b"])
    assert owners_of(["z", "a", "z"], 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_intervals_hold_the_true_mean_as_often_as_the_theory_says(kind: str) -> None:
    """n = 40: near 95 % for normal values; for skewed ones short of it, BCa less so than percentile."""
    rng, trials, hits = np.random.default_rng(11), 600, {"mean_ci": 0, "mean_bca": 0}
    for _ in range(trials):
        values = rng.normal(size=40) if kind == "normal" else rng.exponential(size=40)
        found = summary(values, seed=int(rng.integers(2**31)), resamples=600)
        for name in hits:
            ci = getattr(found, name)
            hits[name] += ci.low <= (0 if kind == "normal" else 1) <= ci.high
    error = 3.5 * math.sqrt(0.95 * 0.05 / trials)
    if kind == "normal":
        assert all(abs(count / trials - 0.94) < error for count in hits.values()), hits
    else:
        assert 0.95 - 0.025 - error < hits["mean_ci"] / trials < 0.95, hits
        assert hits["mean_bca"] > hits["mean_ci"]


def test_cases_of_a_patient_as_if_they_were_patients_make_intervals_too_narrow() -> None:
    """30 patients with 5 alike cases each: drawn as patients 93 % hold the mean, drawn as cases 63 %."""
    rng, trials, hits = np.random.default_rng(3), 300, np.zeros(2)
    patients = np.repeat(np.arange(30), 5).tolist()
    for _ in range(trials):
        values = np.repeat(rng.normal(size=30), 5) + rng.normal(0, 0.3, 150)
        found = [summary(values, who, resamples=300).mean_ci for who in (patients, None)]
        hits += [ci.low <= 0 <= ci.high for ci in found]
    together, singly = hits / trials
    assert together > 0.89
    assert singly < 0.75


# --- paired tests -----------------------------------------------------------------------------------------------------


def test_wilcoxon_on_published_data() -> None:
    """R: V = 40, one-sided p = 0.01953; Darwin's maize: V = 96, p = 0.04126."""
    found = wilcoxon(differences(DEPRESSION_BEFORE, DEPRESSION_AFTER))
    assert (found.p, found.num, found.how) == (pytest.approx(2 * 0.01953, abs=1e-5), 9, "exact")
    assert wilcoxon(DARWIN).p == pytest.approx(0.04126, abs=5e-6)


@settings(max_examples=60, deadline=None)
@given(values=SMALL)
def test_wilcoxon_is_exact_also_with_ties_and_zeros(values: list[int]) -> None:
    """Against the definition: all signs of the ranks at hand."""
    gains = np.array([v for v in values if v], dtype=float)
    ranks = stats.rankdata(np.abs(gains))
    sums = [
        sum(r for r, up in zip(ranks, signs, strict=True) if up)
        for signs in itertools.product([0, 1], repeat=len(gains))
    ]
    seen = ranks[gains > 0].sum()
    expected = min(1.0, 2 * min(np.mean([s <= seen for s in sums]), np.mean([s >= seen for s in sums])))
    assert wilcoxon(values).p == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 5, 6, 13, 30, 50])
def test_wilcoxon_without_ties_is_scipys_exact_one(size: int) -> None:
    gains = np.random.default_rng(size).normal(0.3, 1, size)
    assert wilcoxon(gains).p == pytest.approx(stats.wilcoxon(gains, method="exact").pvalue, rel=1e-10)


def test_wilcoxon_of_many_is_scipys_normal_one() -> None:
    gains = np.random.default_rng(0).normal(0.2, 1, 51).round(1)
    found = wilcoxon(gains)
    expected = stats.wilcoxon(gains[gains != 0], correction=False, method="asymptotic").pvalue
    assert found.p == pytest.approx(expected) if found.how == "normal" else (gains != 0).sum() <= 50
    many = np.random.default_rng(0).normal(0.2, 1, 80)
    assert wilcoxon(many).how == "normal"
    assert wilcoxon(many).p == pytest.approx(stats.wilcoxon(many, method="asymptotic").pvalue, rel=1e-12)
    assert wilcoxon(many).p == pytest.approx(stats.wilcoxon(many, method="exact").pvalue, rel=0.1)


def test_infinite_differences_are_the_largest() -> None:
    assert wilcoxon([np.inf, 1.0, 2.0, -0.5]).p == wilcoxon([9.0, 1.0, 2.0, -0.5]).p
    assert rank_biserial([np.inf, -1.0, -np.inf]) == pytest.approx((2.5 - 1 - 2.5) / 6)
    assert win_rate([np.inf, -np.inf, 0]).rate == 0.5


def test_permutation_on_fishers_own_example() -> None:
    """863 of 32,768 sums are as large as that of Darwin's data or larger, as many as small: p = 1726 / 32768."""
    found = permutation(DARWIN)
    assert (found.p, found.how, found.num) == (1726 / 32768, "exact", 15)


@settings(max_examples=60, deadline=None)
@given(values=SMALL)
def test_permutation_of_few_goes_through_all_signs(values: list[int]) -> None:
    sums = [abs(sum(np.multiply(values, signs))) for signs in itertools.product([-1, 1], repeat=len(values))]
    assert permutation(values).p == pytest.approx(np.mean([s >= abs(sum(values)) for s in sums]), rel=1e-12)


def test_permutation_is_scipys() -> None:
    gains = np.random.default_rng(4).normal(0.4, 1, 12)
    exact = stats.permutation_test((gains,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert permutation(gains).p == pytest.approx(exact, rel=1e-12)


def test_permutation_of_many_draws_signs_and_is_never_zero() -> None:
    gains = np.random.default_rng(4).normal(0.35, 1, 30)
    found = permutation(gains, seed=5, resamples=20_000)
    assert found.how == "Monte Carlo"
    assert found.p == permutation(gains, seed=5, resamples=20_000).p
    expected = stats.ttest_1samp(gains, 0).pvalue
    assert found.p == pytest.approx(expected, abs=4 * math.sqrt(expected / 20_000) + 0.005)
    assert permutation(np.ones(40), resamples=999).p == 1 / 1000


def test_rounding_does_not_undo_a_tie() -> None:
    """0.1 + 0.2 + 0.3 reversed sums to another float; an exact test has to count it as equal."""
    gains = np.array([0.1, 0.2, 0.3])
    assert permutation(gains).p == 2 / 8
    assert permutation([0.1, 0.2, -0.3]).p == 1
    assert differences([0.1 + 0.2], [0.3]).tolist() == [0.0]
    assert differences([0.9, 0.5], [0.8, 0.4]).tolist() == [0.1, 0.1]
    assert differences([1e-310], [2e-310]).tolist() == pytest.approx([-1e-310])


def test_no_difference_is_no_evidence() -> None:
    for test in (wilcoxon, permutation):
        found = test([0.0, 0.0, 0.0])
        assert (found.p, found.num) == (1.0, 0)
    assert math.isnan(rank_biserial([0.0, 0.0]))
    assert (win_rate([0.0, 0.0]).rate, win_rate([0.0, 0.0]).ties) == (0.5, 2)
    assert hodges_lehmann([0.0, 0.0]).value == 0
    assert math.isnan(hodges_lehmann([]).value)
    assert math.isnan(win_rate([]).rate)


@pytest.mark.parametrize("test", [wilcoxon, permutation])
def test_level_holds_where_there_is_no_difference(test) -> None:
    """Type I error of 5 % over 1,500 experiments on 12 skewed but symmetric differences with ties."""
    rng = np.random.default_rng(8)
    experiments = (rng.choice([-1, 1], (1500, 12)) * rng.exponential(size=(1500, 12)).round(1)).tolist()
    found = np.mean([test(one).p <= 0.05 for one in experiments])
    assert found < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)
    assert found > 0.02


@pytest.mark.slow
def test_level_holds_where_signs_are_drawn() -> None:
    rng = np.random.default_rng(8)
    found = np.mean([permutation(rng.standard_t(3, 25), seed=k, resamples=999).p <= 0.05 for k in range(4000)])
    assert abs(found - 0.05) < 3.5 * math.sqrt(0.05 * 0.95 / 4000)


# --- effect sizes -----------------------------------------------------------------------------------------------------


def test_hodges_lehmann_on_published_data() -> None:
    """R, wilcox.test(..., conf.int = TRUE): estimate 0.46, interval 0.010 to 0.786."""
    found = hodges_lehmann(differences(DEPRESSION_BEFORE, DEPRESSION_AFTER))
    assert found.value == pytest.approx(0.46, abs=1e-12)
    assert (found.ci.low, found.ci.high, found.ci.how) == (pytest.approx(0.010), pytest.approx(0.786), "exact")


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.integers(-20, 20), min_size=1, max_size=30))
def test_hodges_lehmann_is_the_median_of_all_means_of_two(values: list[int]) -> None:
    means = [(values[i] + values[j]) / 2 for i in range(len(values)) for j in range(i, len(values))]
    assert hodges_lehmann(values).value == np.median(means)


@pytest.mark.parametrize("size", [6, 7, 12, 20, 50, 51, 90])
def test_the_interval_holds_the_shifts_that_the_test_does_not_reject(size: int) -> None:
    gains = np.random.default_rng(size).normal(1, 2, size)
    ci = hodges_lehmann(gains).ci
    step = 1e-6
    for end, inwards in ((ci.low, step), (ci.high, -step)):
        assert wilcoxon(gains - end - inwards).p > 0.05 - 2e-3
        assert wilcoxon(gains - end + inwards).p <= 0.05 + 2e-3


@pytest.mark.parametrize("size", [51, 60, 90])
def test_beyond_fifty_the_interval_is_that_of_the_exact_distribution_to_one_place(size: int) -> None:
    """Every mean of two is another, so that an end tells its place among them; the ways to each sum are counted."""
    gains = np.random.default_rng(size).normal(size=size)
    means = sorted((gains[i] + gains[j]) / 2 for i in range(size) for j in range(i, size))
    ways = np.ones(1, dtype=object)
    for rank in range(1, size + 1):
        ways = np.concatenate([ways, np.zeros(rank, dtype=object)]) + np.concatenate(
            [np.zeros(rank, dtype=object), ways]
        )
    exact = next(k for k, count in enumerate(np.cumsum(ways)) if 40 * count >= 2**size)
    ci = hodges_lehmann(gains).ci
    assert ci.how == "normal"
    assert abs(np.searchsorted(means, ci.low - 1e-12) + 1 - exact) <= 1
    assert len(means) - np.searchsorted(means, ci.high - 1e-12) == np.searchsorted(means, ci.low - 1e-12) + 1


def test_five_patients_have_no_interval_six_have() -> None:
    five = hodges_lehmann([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (five.value, five.ci.how) == (3, "none: 5 patients are too few for 95 %")
    assert math.isnan(five.ci.low)
    six = hodges_lehmann([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).ci
    assert (six.low, six.high) == (1, 6)


@settings(max_examples=60, deadline=None)
@given(values=SMALL)
def test_rank_biserial_by_hand(values: list[int]) -> None:
    gains = [v for v in values if v]
    ranks = {k: sum((abs(o) < abs(v)) + (abs(o) == abs(v)) / 2 for o in gains) + 0.5 for k, v in enumerate(gains)}
    total = sum(ranks.values())
    expected = sum(math.copysign(ranks[k], v) for k, v in enumerate(gains)) / total if gains else math.nan
    assert rank_biserial(values) == pytest.approx(expected, nan_ok=True, abs=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(9, 1), (10, 0), (0, 10), (17, 3), (1, 0)])
def test_wilsons_interval_is_scipys(wins: int, losses: int) -> None:
    found = win_rate([1.0] * wins + [-1.0] * losses)
    expected = stats.binomtest(wins, wins + losses).proportion_ci(method="wilson")
    assert (found.wins, found.losses, found.ties) == (wins, losses, 0)
    assert (found.ci.low, found.ci.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_ties_count_half() -> None:
    found = win_rate([1.0, 0.0, 0.0, -2.0, 3.0])
    assert (found.wins, found.ties, found.losses, found.rate) == (2, 2, 1, 0.6)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-50, 50), min_size=1, max_size=14))
def test_swapping_the_methods_turns_every_sign(values: list[float]) -> None:
    ours, theirs = np.array(values), np.array(values)[::-1]
    there, back = differences(theirs, ours), differences(ours, theirs)
    assert hodges_lehmann(there).value == pytest.approx(-hodges_lehmann(back).value)
    assert rank_biserial(there) == pytest.approx(-rank_biserial(back), nan_ok=True)
    assert win_rate(there).rate == pytest.approx(1 - win_rate(back).rate)
    assert wilcoxon(there).p == pytest.approx(wilcoxon(back).p)
    assert permutation(there).p == pytest.approx(permutation(back).p)


@pytest.mark.parametrize("function", [wilcoxon, permutation, hodges_lehmann, rank_biserial, win_rate])
def test_a_nan_is_refused(function) -> None:
    for gains in ([1.0, math.nan], [[1.0]]):
        with pytest.raises(InputError, match="one a patient"):
            function(gains)
    if function in {permutation, hodges_lehmann}:
        with pytest.raises(InputError, match="finite"):
            function([1.0, math.inf])


def test_scores_are_paired() -> None:
    for a, b in (([1.0], [1.0, 2.0]), ([math.nan], [1.0]), ([[1.0]], [[1.0]])):
        with pytest.raises(InputError, match="two rows of one length"):
            differences(a, b)
    assert differences([np.inf, np.inf, 1.0], [np.inf, 2.0, np.inf]).tolist() == [0, np.inf, -np.inf]


def test_holm_is_the_one_of_r() -> None:
    """R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


# --- ranking ----------------------------------------------------------------------------------------------------------


def test_ranking_by_hand() -> None:
    found = rank_stability([[1.0, 2.0, 2.0], [3.0, 1.0, 2.0], [1.0, 5.0, 9.0]])
    assert found.mean_rank == pytest.approx((5 / 3, (2.5 + 1 + 2) / 3, (2.5 + 2 + 3) / 3))
    assert found.rank == (1, 2, 3)
    assert rank_stability([[1.0, 1.0, 2.0]]).rank == (1, 1, 3)


def test_stability_is_that_of_a_literal_loop() -> None:
    badness = np.random.default_rng(1).normal([0, 0.4, 0.5, 2], 1, (7, 4)).round(1)
    found = rank_stability(badness, seed=2, resamples=300)
    share, taus = np.zeros((4, 4)), []
    for block in draws(7, seed=2, resamples=300):
        for row in block:
            table = np.array([stats.rankdata(badness[k]) for k in range(7) for _ in range(row[k])])
            ranks = stats.rankdata(table.mean(axis=0).round(9), method="min").astype(int)
            for method, rank in enumerate(ranks):
                share[method, rank - 1] += 1 / 300
            taus.append(stats.kendalltau(found.rank, ranks).statistic)
    assert np.array(found.share) == pytest.approx(share, abs=1e-12)
    assert found.tau == pytest.approx(np.nan_to_num(taus).mean(), abs=1e-12)


def test_a_clear_order_is_firm_and_none_is_not() -> None:
    clear = rank_stability(np.arange(60).reshape(20, 3))
    assert (clear.rank, clear.tau) == ((1, 2, 3), 1.0)
    assert np.array(clear.share).tolist() == np.eye(3).tolist()
    level = rank_stability(np.ones((20, 3)))
    assert (level.rank, level.tau) == ((1, 1, 1), 0.0)
    noise = rank_stability(np.random.default_rng(0).normal(size=(400, 2)))
    assert 0.02 < noise.share[0][0] < 0.98


def test_infinitely_bad_is_last() -> None:
    found = rank_stability([[1.0, np.inf], [3.0, 2.0], [0.0, np.inf]])
    assert (found.rank, found.mean_rank) == ((1, 2), (pytest.approx(4 / 3), pytest.approx(5 / 3)))


def test_equal_up_to_rounding_is_equal() -> None:
    assert rank_stability([[0.1 + 0.2, 0.3, 50.0]]).rank == (1, 1, 3)


@pytest.mark.parametrize("table", [[1.0, 2.0], np.empty((0, 3)), [[1.0, math.nan]]])
def test_a_ranking_needs_a_whole_table(table: object) -> None:
    with pytest.raises(InputError, match="for each patient and method"):
        rank_stability(table)  # type: ignore[arg-type]
