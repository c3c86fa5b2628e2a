"""Tests of memory and membership: each number against its definition, and each test against a generator that knows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medgan.errors import InputError
from medgan.metrics.distribution import kernel_distance
from medgan.metrics.features import HandMade, mirrors
from medgan.metrics.membership import area_under_curve, membership, split_difference, true_positive_rate
from medgan.metrics.memorisation import (
    authenticity,
    closer_to_train,
    copies,
    distance_ratio,
    effective_number,
    exchanged,
    hits,
    share_below,
)
from medgan.metrics.nearness import Nearness
from medgan.metrics.spaces import correlation, in_features, in_pixels

Array = npt.NDArray[Any]
FEW = 199  # exchanges, where no small p is asked for


def nearness(train: Array, synthetic: Array, holdout: Array | None, patients: Sequence[int] | None = None) -> Nearness:
    """Euclidean distances of rows; each row a patient of its own if none are named."""
    real = train if holdout is None else np.concatenate([train, holdout])

    def distances(x: Array, y: Array) -> Array:
        return np.linalg.norm(x[:, None] - y[None], axis=2)

    owners = np.arange(len(real)) if patients is None else np.asarray(patients)
    return Nearness(
        "rows", distances(synthetic, real), distances(real, real), distances(synthetic, synthetic), owners, len(train)
    )


def draws(seed: int, *counts: int, width: int = 6) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((count, width)) for count in counts]


def noisy(rows: Array, seed: int = 0, scale: float = 0.02) -> Array:
    return rows + scale * np.random.default_rng(seed).standard_normal(rows.shape)


# --- distances --------------------------------------------------------------------------------------------------------


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, shape)).float()


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 9, 12), (1, 8, 9, 10)], ids=str)
def test_pixels_see_through_mirrors_brightness_and_contrast(shape: tuple[int, ...]) -> None:
    train, fresh = pictures(4, *shape), pictures(3, *shape, seed=1)
    patients = list("abcd")
    for view in mirrors(0.5 * train - 0.2):
        if view.shape == train.shape:
            near = in_pixels(train, view, None, patients)
            np.testing.assert_allclose(np.diag(near.synthetic), 0, atol=2e-3)
    near = in_pixels(train, fresh, None, patients)
    assert near.synthetic.min() > 0.5
    np.testing.assert_allclose(near.real, near.real.T)
    np.testing.assert_allclose(near.among, near.among.T)


def test_pixel_distance_is_the_largest_correlation_over_turns_and_steps() -> None:
    a, b = pictures(1, 1, 10, 10), pictures(1, 1, 10, 10, seed=1)
    best = -1.0
    for turns, mirror, dx, dy in itertools.product(range(4), (False, True), (-1, 0, 1), (-1, 0, 1)):
        view = np.rot90(a[0, 0].double().numpy(), turns)
        view = np.roll(view[::-1] if mirror else view, (dx, dy), (0, 1))
        best = max(best, np.corrcoef(view.ravel(), b[0, 0].double().numpy().ravel())[0, 1])
    near = in_pixels(a, b, None, ["p"])
    assert near.synthetic[0, 0] == pytest.approx(np.sqrt(2 - 2 * best), abs=1e-6)


def test_constant_images_are_alike_and_unlike_all_others() -> None:
    train = torch.cat([torch.zeros(1, 1, 8, 8), pictures(1, 1, 8, 8)])
    near = in_pixels(train, torch.full((1, 1, 8, 8), 0.7), None, ["p", "q"])
    np.testing.assert_allclose(near.synthetic, [[0, np.sqrt(2)]], atol=1e-6)


def test_features_are_weighed_by_all_real_images() -> None:
    train, held, ours = (pictures(5, 1, 8, 10, seed=seed) for seed in range(3))
    near = in_features(HandMade(), train, ours, held, [str(number) for number in range(10)])
    real = np.mean([HandMade()(view) for view in mirrors(torch.cat([train, held]))], axis=0)
    made = np.mean([HandMade()(view) for view in mirrors(ours)], axis=0)
    scale = real.std(axis=0)
    used = scale > 1e-6
    expected = np.linalg.norm((made[0] - real[7])[used] / scale[used])
    assert near.synthetic[0, 7] == pytest.approx(expected, abs=1e-5)
    assert near.num_train == 5


def test_correlation_finds_the_mirror_image() -> None:
    image, other = pictures(2, 1, 12, 9)
    found, view = correlation(0.3 * image.flip(1) + 0.1, image)
    assert found == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(view, image.flip(1))
    assert abs(correlation(other, image)[0]) < 0.5


def test_patients_must_be_named() -> None:
    with pytest.raises(InputError, match="2 real images and 1 patients"):
        in_pixels(pictures(2, 1, 8, 8), pictures(2, 1, 8, 8), None, ["p"])


# --- closer to train --------------------------------------------------------------------------------------------------


def share_over_all_draws(synthetic: Array, train: Array, holdout: Array) -> float:
    """The definition: every way of drawing as many of the larger set, ties counted half."""

    def share(one: Array, other: Array) -> float:
        to_one, to_other = (np.abs(synthetic - some.T).min(axis=1) for some in (one, other))
        return float(np.mean((to_one < to_other) + 0.5 * (to_one == to_other)))

    size = min(len(train), len(holdout))
    ways = itertools.product(itertools.combinations(train, size), itertools.combinations(holdout, size))
    return float(np.mean([share(np.array(one), np.array(other)) for one, other in ways]))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6), st.booleans())
def test_share_is_the_mean_over_all_draws(num_train: int, num_held: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    sets = [rng.integers(0, 4 if ties else 10**6, (count, 1)).astype(float) for count in (8, num_train, num_held)]
    found = closer_to_train(nearness(sets[1], sets[0], sets[2]), exchanges=2)
    assert found.value == pytest.approx(share_over_all_draws(*sets), abs=1e-9)


def test_share_is_of_patients_not_of_images() -> None:
    """A patient with many images stands for one: images of it that are farther away change nothing."""
    train, held, ours = draws(0, 6, 6, 40)
    plain = closer_to_train(nearness(train, ours, held), exchanges=2).value
    more = np.concatenate([train, np.full((30, 6), 50.0)])
    many = nearness(more, ours, held, [*range(6), *[0] * 30, *range(6, 12)])
    assert closer_to_train(many, exchanges=2).value == pytest.approx(plain)


@pytest.mark.parametrize(("num_train", "num_held"), [(40, 40), (60, 12), (12, 60)])
def test_p_of_an_independent_generator_is_uniform(num_train: int, num_held: int) -> None:
    found = [closer_to_train(nearness(*sets), exchanges=FEW) for sets in _trials(60, num_train, 50, num_held)]
    assert stats.kstest([one.p for one in found], "uniform").pvalue > 0.001
    assert np.mean([one.value for one in found]) == pytest.approx(0.5, abs=4 * 0.12 / np.sqrt(60))
    inside = sum(one.low <= one.value <= one.high for one in found)
    assert inside >= 50


def _trials(count: int, *counts: int) -> list[list[Array]]:
    return [draws(seed, *counts) for seed in range(count)]


def test_collapse_is_not_taken_for_memory() -> None:
    """All images at one point: the share is 0 or 1 by chance, and binomial intervals would call it certain."""
    shares, alarms = [], 0
    for seed in range(40):
        train, ours, held = draws(seed, 40, 1, 40)
        found = closer_to_train(nearness(train, noisy(ours.repeat(50, axis=0), scale=1e-3), held), exchanges=FEW)
        shares.append(found.value)
        alarms += found.p <= 0.01
    binomial = [stats.binomtest(round(50 * share), 50, 0.5, alternative="greater").pvalue for share in shares]
    assert sum(p <= 0.01 for p in binomial) > 10
    assert alarms == 0


def test_share_of_copiers() -> None:
    train, fresh, held = draws(0, 300, 300, 300)
    for copied, expected in ((300, 1.0), (100, 2 / 3)):
        ours = np.concatenate([noisy(train[:copied]), fresh[copied:]])
        found = closer_to_train(nearness(train, ours, held), exchanges=999)
        assert found.p == 0.001
        assert found.value == pytest.approx(expected, abs=3 * np.sqrt(0.25 / 200))
    with pytest.raises(InputError, match="without held-out patients"):
        closer_to_train(nearness(train, fresh, None))


def test_exchange_counts_itself_and_ties() -> None:
    is_train = np.array([True, True, False, False])
    flat = exchanged(lambda named: 1.0, is_train, exchanges=99)
    assert (flat.value, flat.low, flat.high, flat.p) == (1, 1, 1, 1)
    first = exchanged(lambda named: float(named[0] & named[1]), is_train, exchanges=2999)
    assert first.p == pytest.approx(1 / 6, abs=0.03)  # one of the six ways to choose two of four


# --- near copies ------------------------------------------------------------------------------------------------------


def test_hits_are_those_of_their_definition() -> None:
    train, fresh, held = draws(1, 30, 40, 20)
    ours = np.concatenate([noisy(train[:5], scale=0.1), fresh])
    near = nearness(train, ours, held)
    real = np.concatenate([train, held])

    def two_nearest(row: Array, others: Array) -> list[float]:
        return sorted(float(np.linalg.norm(row - other)) for other in others)[:2]

    among = np.array([two_nearest(row, np.delete(real, place, axis=0)) for place, row in enumerate(real)])
    ratios = among[:, 0] / among[:, 1]
    limits = [max(np.quantile(v, 0.01, method="lower"), np.median(v) / 2) for v in (among[:, 0], ratios)]
    found = hits(near)
    for place, row in enumerate(ours):
        nearest, second = two_nearest(row, real)
        assert found.near[place] == (nearest < limits[0] and nearest / second < limits[1])
        assert found.stark[place] == (nearest < among[:, 0].min() / 2 and nearest / second < ratios.min() / 2)
    assert found.near[:5].all()
    assert found.patient[:5].tolist() == [0, 1, 2, 3, 4]


def test_twins_among_patients_hide_no_copies() -> None:
    """Where some real patients have a twin in the set, the smallest distances say nothing; half the median does."""
    train, held = draws(0, 100, 100)
    train[60:64] = noisy(train[70:74], scale=1e-3)
    found = hits(nearness(train, noisy(train[:60]), held))
    assert found.near.all()
    assert not found.stark.any()
    assert 8 / 200 <= found.usual < 0.06


def test_equal_images_of_two_patients_set_no_limit() -> None:
    train, held = draws(0, 60, 60)
    train[1] = train[0]
    found = hits(nearness(train, noisy(train[2:20]), held))
    assert found.near.all()
    assert found.stark.any()


def test_copies_count_patients_and_not_images() -> None:
    """Forty images of one patient may be one coincidence; forty of forty are none."""
    train, fresh, held = draws(0, 60, 60, 60)
    one = nearness(train, np.concatenate([noisy(train[:1].repeat(40, axis=0)), fresh]), held)
    many = nearness(train, np.concatenate([noisy(train[:40]), fresh]), held)
    few, found = copies(one, hits(one), exchanges=999), copies(many, hits(many), exchanges=999)
    assert few.of_train >= 40
    assert found.of_train >= 40
    assert few.excess is not None
    assert found.excess is not None
    assert few.excess.p > 0.3
    assert found.excess.p == 0.001
    assert found.excess.value == pytest.approx((found.of_train - found.of_holdout) / 100)
    assert found.stark > 10


def test_chance_of_hits_is_that_of_drawing_ranks() -> None:
    """Of P + N values in random order, how often are at least h of the N below all but k of the P?"""
    train, fresh = draws(2, 20, 12)
    near = nearness(train, np.concatenate([noisy(train[:3]), fresh[3:]]), None)
    found = hits(near)
    usual = round(found.usual * 20)
    rng, count, trials = np.random.default_rng(0), copies(near, found).of_train, 20000
    below = [int((row[20:] < np.sort(row[:20])[usual]).sum()) for row in rng.random((trials, 32))]
    expected = np.mean(np.array(below) >= count)
    assert count >= 3
    assert copies(near, found).chance == pytest.approx(expected, abs=4 * np.sqrt(expected / trials) + 1e-4)
    assert copies(near, found).excess is None


def test_independent_images_are_seldom_hits() -> None:
    shares, stark = [], 0
    for seed in range(10):
        near = nearness(*draws(seed, 80, 80, 80))
        found = hits(near)
        shares.append(found.near.mean())
        stark += int(found.stark.sum())
        assert copies(near, found, exchanges=FEW).chance > 0.001
    assert np.mean(shares) < 0.02
    assert stark <= 2


def test_hits_need_three_patients() -> None:
    with pytest.raises(InputError, match="three patients"):
        hits(nearness(*draws(0, 2, 5), None))


# --- numbers of the literature ----------------------------------------------------------------------------------------


def test_ratio_authenticity_and_share_are_those_of_their_definitions() -> None:
    train, ours, held = draws(4, 25, 30, 20)
    near = nearness(train, ours, held)
    gap = [min(np.linalg.norm(row - o) for o in np.delete(train, i, axis=0)) for i, row in enumerate(train)]
    for found, rows in (("synthetic", ours), ("holdout", held)):
        to_train = np.linalg.norm(rows[:, None] - train[None], axis=2)
        ordered = np.sort(to_train, axis=1)
        nearest = to_train.argmin(axis=1)
        authentic = np.mean([ordered[place, 0] >= gap[nearest[place]] for place in range(len(rows))])
        assert getattr(distance_ratio(near), found) == pytest.approx(np.median(ordered[:, 0] / ordered[:, 1]))
        assert getattr(authenticity(near), found) == pytest.approx(authentic)
        assert getattr(share_below(near), found) == pytest.approx(np.mean(ordered[:, 0] < np.quantile(gap, 0.01)))
    alone = nearness(train, ours, None)
    assert authenticity(alone).holdout is None


def test_an_image_is_compared_with_other_patients_than_its_own() -> None:
    """Three slices of each patient, close together: a fresh patient is as authentic as if there were one of each."""
    train, ours = draws(0, 40, 200)
    slices, owners = noisy(train.repeat(3, axis=0), scale=1e-3), np.arange(40).repeat(3)
    one, many = authenticity(nearness(train, ours, None)), authenticity(nearness(slices, ours, None, owners))
    assert many.synthetic == pytest.approx(one.synthetic, abs=0.03)


# --- effective number -------------------------------------------------------------------------------------------------


def test_effective_number_is_that_of_its_definition() -> None:
    train, ours, held = draws(0, 30, 25, 20, width=3)
    near = nearness(train, ours, held)
    found = hits(near)
    kept = ours[~(found.near & (found.patient < 30))]
    apart = [row for i, row in enumerate(kept) if all(np.linalg.norm(row - o) >= found.below[0] for o in kept[:i])]
    pool = np.concatenate([held, apart])
    nearest = [int(np.argsort(np.linalg.norm(pool - row, axis=1))[1]) for row in pool]
    pairs = [nearest[place] for place in range(20) if nearest[nearest[place]] == place]
    a, b = sum(partner >= 20 for partner in pairs), sum(partner < 20 for partner in pairs)
    assert effective_number(near, found).value == pytest.approx(min(19 * a / b, len(apart)))


@pytest.mark.parametrize("count", [30, 100, 300])
def test_fresh_images_are_worth_their_number(count: int) -> None:
    values = []
    for seed in range(25):
        near = nearness(*draws(seed, 100, count, 100))
        values.append(effective_number(near, hits(near), resamples=2).value / count)
    assert 0.8 < np.median(values) <= 1


def test_repeats_means_and_copies_are_worth_next_to_nothing() -> None:
    train, fresh, held = draws(0, 100, 100, 100)
    for ours, most in (
        (noisy(train), 1),
        (noisy(fresh[:4].repeat(25, axis=0)), 4),
        (noisy(np.zeros((100, 6)), scale=0.3), 10),  # near to everything, like to nothing
    ):
        near = nearness(train, ours, held)
        found = effective_number(near, hits(near))
        assert found.low <= found.value <= most
        assert found.high <= 20


# --- membership -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_area_under_curve_is_the_share_of_pairs(positive: list[int], negative: list[int]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p, n in itertools.product(positive, negative)]
    assert area_under_curve(np.array(positive, float), np.array(negative, float)) == pytest.approx(np.mean(pairs))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_true_positive_rate_is_the_best_at_that_many_false_ones(positive: list[int], negative: list[int]) -> None:
    p, n = np.array(positive, float), np.array(negative, float)
    allowed = [float((p > t).mean()) for t in n if (n > t).mean() <= 0.1]
    assert true_positive_rate(p, n, rate=0.1) == max(allowed)


def names(letter: str, count: int, each: int = 1) -> list[str]:
    return [f"{letter}{number // each}" for number in range(count)]


def test_membership_of_a_leak_and_of_none() -> None:
    rng = np.random.default_rng(0)
    leak = membership(rng.normal(1, 1, 200), rng.normal(0, 1, 150), names("m", 200), names("o", 150))
    none = membership(rng.normal(0, 1, 200), rng.normal(0, 1, 150), names("m", 200), names("o", 150))
    truth = stats.norm.cdf(1 / np.sqrt(2))
    assert leak.auc.low < truth < leak.auc.high
    assert leak.exchanged.p < 0.001
    assert leak.difference == pytest.approx(leak.auc.value - leak.control)
    assert leak.difference > 0.2
    assert leak.tpr.low <= leak.tpr.value <= leak.tpr.high
    assert none.auc.low < 0.5 < none.auc.high
    assert none.exchanged.p > 0.01
    assert abs(none.difference) < 0.1
    # of two halves of 100 the AUC has a standard deviation of √(201/(12·100²)), and |N(0, 1)| a mean of √(2/π)
    assert leak.control == pytest.approx(0.5 + np.sqrt(201 / 120000) * np.sqrt(2 / np.pi), abs=0.006)


def test_membership_is_of_people() -> None:
    """Twenty images of each of ten people, all alike: no more is known than of ten."""
    rng = np.random.default_rng(1)
    members, others = rng.normal(0.3, 1, 10).repeat(20), rng.normal(0, 1, 10).repeat(20)
    by_patient = membership(members, others, names("m", 200, 20), names("o", 200, 20))
    by_image = membership(members, others, names("m", 200), names("o", 200))
    assert by_patient.auc.value == by_image.auc.value
    assert by_patient.auc.high - by_patient.auc.low > 3 * (by_image.auc.high - by_image.auc.low)
    assert by_patient.control > 0.55 > by_image.control


def test_membership_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(InputError, match="two patients"):
        membership(np.ones(3), np.ones(2), ["a"] * 3, ["b", "c"])
    with pytest.raises(InputError, match="as many scores"):
        membership(np.ones(3), np.ones(2), ["a", "b"], ["c", "d"])


def test_a_split_by_scanner_is_told_from_a_split_at_random() -> None:
    train, held = draws(0, 120, 80)
    is_train, patients = np.arange(100) < 60, np.arange(200) // 2
    even = split_difference(np.concatenate([train, held]), patients, is_train)
    shifted = split_difference(np.concatenate([train, held + 0.6]), patients, is_train)
    assert even.p > 0.01
    assert shifted.p < 0.01
    assert even.value == pytest.approx(kernel_distance(train, held))
