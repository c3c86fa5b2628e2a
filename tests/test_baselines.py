"""Intensity maps against the minimax formula of isotonic regression and against plain averages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgan.baselines import ConditionalMean, MonotoneMap
from medgan.errors import GeometryError, InputError


def minimax(values, weights):
    """Least-squares rising fit: at i, the greatest over a ≤ i of the least over b ≥ i of the mean of a..b."""
    means = [
        [np.average(values[a : b + 1], weights=weights[a : b + 1]) if a <= b else np.nan for b in range(len(values))]
        for a in range(len(values))
    ]
    return [max(min(means[a][b] for b in range(i, len(values))) for a in range(i + 1)) for i in range(len(values))]


levels = st.lists(st.tuples(st.integers(0, 9), st.integers(-50, 50)), min_size=1, max_size=60)


@settings(deadline=None)
@given(levels)
def test_monotone_map_is_the_least_squares_one(voxels):
    source, target = (np.array(part, dtype=float).reshape(1, 1, -1) for part in zip(*voxels, strict=True))
    fitted = MonotoneMap.fit([(source, target, None)])
    values, counts = np.unique(source, return_counts=True)
    means = [target[source == value].mean() for value in values]
    rising = np.array(minimax(means, counts))
    falling = -np.array(minimax(-np.array(means), counts))
    costs = [float((counts * (fit - means) ** 2).sum()) for fit in (rising, falling)]
    ours = float((counts * (fitted.apply(values) - means) ** 2).sum())
    assert ours == pytest.approx(min(costs), abs=1e-8)
    steps = np.diff(fitted.target)
    assert (steps >= -1e-9).all() if fitted.rising else (steps <= 1e-9).all()


@settings(deadline=None)
@given(levels)
def test_conditional_mean_of_few_levels_is_the_mean_at_each(voxels):
    source, target = (np.array(part, dtype=float).reshape(1, 1, -1) for part in zip(*voxels, strict=True))
    fitted = ConditionalMean.fit([(source, target, None)])
    expected = [target[source == value].mean() for value in source.ravel()]
    assert fitted.apply(source).ravel() == pytest.approx(expected, abs=1e-9)


def test_many_levels_are_binned_into_equal_shares():
    rng = np.random.default_rng(0)
    source = rng.gamma(2, 100, (40, 40, 20))
    target = np.sqrt(source) + rng.normal(0, 1, source.shape)
    fitted = ConditionalMean.fit([(source, target, None)], num_bins=64)
    chunks = np.array_split(np.argsort(source.ravel()), 64)
    assert len(fitted.source) == 64
    assert fitted.source == pytest.approx([source.ravel()[chunk].mean() for chunk in chunks], rel=1e-2)
    assert fitted.target == pytest.approx([target.ravel()[chunk].mean() for chunk in chunks], rel=1e-2)
    assert np.abs(fitted.apply(source) - np.sqrt(source)).mean() < 0.15


def test_a_falling_relation_is_found_and_only_the_mask_counts():
    rng = np.random.default_rng(1)
    cases = []
    for _ in range(2):
        source = rng.uniform(0, 100, (10, 10, 10))
        mask = source > 20
        cases.append((source, np.where(mask, 50 - source / 2, 1e6), mask))
    fitted = MonotoneMap.fit(cases)
    assert not fitted.rising
    assert fitted.apply(np.array([30.0, 60.0, 90.0])) == pytest.approx([35, 20, 5], abs=0.3)
    assert fitted.apply(np.array([-1e9, 1e9])) == pytest.approx([40, 0], abs=0.3)


def test_integers_and_any_shape_are_mapped():
    source = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    fitted = MonotoneMap.fit([(source, source * 3, None)])
    assert fitted.apply(source[0]).tolist() == (source[0] * 3).tolist()
    assert fitted.apply(source).dtype == np.float64


def test_more_data_than_bins_with_ties_keeps_the_background_apart():
    source = np.concatenate([np.zeros(5000), np.linspace(1, 2, 1000)]).reshape(1, 1, -1)
    fitted = ConditionalMean.fit([(source, np.where(source == 0, -1000, 40.0), None)], num_bins=16)
    assert fitted.apply(np.array([0.0, 2.0])) == pytest.approx([-1000, 40])


@pytest.mark.parametrize("method", [MonotoneMap, ConditionalMean])
def test_nothing_to_fit_on_is_refused(method):
    cube = np.zeros((2, 2, 2))
    with pytest.raises(InputError, match="no voxel"):
        method.fit([])
    with pytest.raises(InputError, match="no voxel"):
        method.fit([(cube, cube, cube)])
    with pytest.raises(GeometryError, match="differ in shape"):
        method.fit([(cube, cube[1:], None)])
