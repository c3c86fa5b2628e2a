"""Surface distances against a literal double loop, MONAI, SimpleITK, and shapes whose distances are known."""

from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import binary_erosion, gaussian_filter

from medgan.errors import GeometryError, InputError
from medgan.metrics import surfaces
from medgan.metrics.surfaces import (
    diagonal_mm,
    hausdorff,
    hd95,
    mean_surface_distance,
    surface,
    surface_dice,
    surface_distances,
)

SPACING = (0.8, 1.1, 2.5)
ONE = (1.0, 1.0, 1.0)


def blob(seed, shape=(24, 28, 20), share=0.3, smooth=2.0):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    return noise > np.quantile(noise, 1 - share)


def ball(shape, centre, radius, spacing=ONE):
    axes = [(np.arange(n) - c) * s for n, c, s in zip(shape, centre, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 <= radius**2


def looped_surface(mask):
    """Voxel by voxel: is one of the six neighbours outside the mask, or outside the volume?"""
    axes = [k for k in range(3) if mask.shape[k] > 1] or [0]
    found = []
    for at in np.argwhere(mask).tolist():
        around = [(*at[:k], at[k] + step, *at[k + 1 :]) for k in axes for step in (-1, 1)]
        if not all(min(n) >= 0 and all(i < s for i, s in zip(n, mask.shape, strict=True)) and mask[n] for n in around):
            found.append(tuple(at))
    return found


def looped_distances(a, b, spacing):
    """From each surface voxel of a to all of b's."""
    other = looped_surface(b)
    return [
        min(
            math.dist(
                [i * s for i, s in zip(p, spacing, strict=True)], [i * s for i, s in zip(q, spacing, strict=True)]
            )
            for q in other
        )
        for p in looped_surface(a)
    ]


def batched(mask):
    return torch.from_numpy(np.ascontiguousarray(mask))[None, None]


masks = st.builds(
    lambda shape, seed, share: np.random.default_rng(seed).random(shape) < share,
    st.tuples(*[st.integers(1, 6)] * 3),
    st.integers(0, 10**6),
    st.sampled_from((0.1, 0.5, 0.9)),
)
pairs = st.builds(
    lambda shape, seed, shares: tuple(
        np.random.default_rng((seed, share)).random(shape) < share / 10 for share in shares
    ),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 10), st.integers(1, 10)),
)


@settings(max_examples=60, deadline=None)
@given(masks)
def test_the_surface_is_the_definition_voxel_by_voxel(mask):
    assert [tuple(at) for at in np.argwhere(surface(mask)).tolist()] == looped_surface(mask)


def test_the_surface_is_what_erosion_takes_away():
    mask = blob(0)
    assert np.array_equal(surface(mask), mask & ~binary_erosion(mask))
    assert np.array_equal(surface(mask, open_ends=True), mask & ~binary_erosion(mask, border_value=1))
    assert (surface(mask) & ~surface(mask, open_ends=True)).any()


@settings(max_examples=80, deadline=None)
@given(pairs, st.tuples(*[st.sampled_from((0.3, 1.0, 2.5))] * 3))
def test_distances_are_those_of_a_double_loop(pair, spacing):
    a, b = pair
    found = surface_distances(a, b, spacing)
    if a.any() and b.any():
        for ours, expected in zip(
            found, (looped_distances(a, b, spacing), looped_distances(b, a, spacing)), strict=True
        ):
            assert sorted(ours) == pytest.approx(sorted(expected), abs=1e-12)
    else:
        assert np.isinf(np.concatenate(found)).all()


@pytest.mark.parametrize("spacing", [ONE, SPACING])
@pytest.mark.parametrize("seeds", [(0, 1), (2, 3)])
def test_the_numbers_are_those_of_monai(seeds, spacing):
    a, b = (blob(seed) for seed in seeds)
    pair = {"y_pred": batched(a), "y": batched(b), "include_background": True, "spacing": list(spacing)}
    percentile = compute_hausdorff_distance(**pair, percentile=95).item()
    assert hd95(a, b, spacing) == pytest.approx(percentile, abs=2e-5)
    rounded = [torch.from_numpy(one.astype(np.float32)) for one in surface_distances(a, b, spacing)]
    assert max(torch.quantile(one, 0.95).item() for one in rounded) == percentile  # to the last bit, in its float32
    assert hausdorff(a, b, spacing) == pytest.approx(compute_hausdorff_distance(**pair).item(), rel=1e-6)
    mean = compute_average_surface_distance(**pair, symmetric=True).item()
    assert mean_surface_distance(a, b, spacing) == pytest.approx(mean, rel=1e-6)
    for tolerance in (0.5, 1.27, 3.3):  # no distance between voxels is near these: MONAI's are rounded to float32
        expected = compute_surface_dice(**pair, class_thresholds=[tolerance]).item()
        assert surface_dice(a, b, spacing, tolerance_mm=tolerance) == pytest.approx(expected, rel=1e-6)


def test_the_hausdorff_distance_of_balls_is_that_of_simple_itk():
    a, b = ball((40, 40, 24), (16, 18, 12), 13, SPACING), ball((40, 40, 24), (22, 20, 11), 9, SPACING)
    images = [sitk.GetImageFromArray(one.astype(np.uint8).transpose(2, 1, 0)) for one in (a, b)]
    for image in images:
        image.SetSpacing(SPACING)
    measured = sitk.HausdorffDistanceImageFilter()
    measured.Execute(*images)
    assert hausdorff(a, b, SPACING) == pytest.approx(measured.GetHausdorffDistance(), rel=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_planes_are_as_far_apart_as_they_were_moved(axis, shift):
    index = np.indices((12, 13, 14))[axis]
    found = surface_distances(index < 5, index < 5 + shift, SPACING, open_ends=True)
    expected = pytest.approx(shift * SPACING[axis], abs=1e-12)
    assert found.mean() == expected
    assert found.hd95() == expected
    assert found.hausdorff() == expected
    assert found.dice(shift * SPACING[axis]) == 1


def test_a_moved_box_has_the_distances_that_follow_from_its_faces():
    a, b = np.zeros((2, 20, 20, 20), dtype=bool)
    a[4:10, 5:12, 5:12], b[6:12, 5:12, 5:12] = True, True
    # Of each 7 × 7 face that is moved by 2 one distance is 2; where the side walls overlap there is none, and a voxel
    # within the other box is as far from its walls as it lies deep.
    face = [min(2, y, z) for y, z in itertools.product((0, 1, 2, 3, 2, 1, 0), repeat=2)]
    outer = [2] * 49 + [1] * 24  # the far face, and the ring behind it
    inner = face
    expected = sum(outer + inner) / surface(a).sum()
    assert mean_surface_distance(a, b, ONE) == pytest.approx(expected, abs=1e-12)
    assert hausdorff(a, b, (0.5, 1, 1)) == 1.0


def test_concentric_balls_are_as_far_apart_as_their_radii():
    shape, centre, spacing = (61, 61, 25), (30, 30, 12), (1, 1, 2.5)
    small, large = ball(shape, centre, 15, spacing), ball(shape, centre, 25, spacing)
    found = surface_distances(small, large, spacing)
    assert found.mean() == pytest.approx(10, abs=0.5)
    assert found.hd95() == pytest.approx(10, abs=1.5)
    assert abs(np.concatenate(found) - 10).max() < 2.5


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_neither_order_nor_axes_matter_and_lengths_scale(pair):
    a, b = pair
    numbers = [m(a, b, SPACING) for m in (mean_surface_distance, hd95, hausdorff)]
    for other in (
        [m(b, a, SPACING) for m in (mean_surface_distance, hd95, hausdorff)],
        [m(a[::-1], b[::-1], SPACING) for m in (mean_surface_distance, hd95, hausdorff)],
        [
            m(a.transpose(2, 0, 1), b.transpose(2, 0, 1), (2.5, 0.8, 1.1))
            for m in (mean_surface_distance, hd95, hausdorff)
        ],
        [m(a, b, np.multiply(SPACING, 3)) / 3 for m in (mean_surface_distance, hd95, hausdorff)],
    ):
        assert other == pytest.approx(numbers, abs=1e-12, nan_ok=True)
    mean, high, most = numbers
    if a.any() and b.any():
        assert mean <= most + 1e-12  # a mean of equal numbers may be the next one above
        assert high <= most
        assert most < diagonal_mm(a.shape, SPACING)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_surface_dice_lies_in_its_range_and_grows_with_the_tolerance(pair):
    a, b = pair
    if a.any() or b.any():
        shares = [surface_dice(a, b, SPACING, tolerance_mm=mm) for mm in (0, 0.9, 2, 100)]
        assert 0 <= shares[0] <= shares[1] <= shares[2] <= shares[3] <= 1
        assert shares[3] == (a.any() and b.any())


@settings(max_examples=30, deadline=None)
@given(masks.filter(np.any))
def test_a_shape_is_at_no_distance_from_itself(mask):
    assert hausdorff(mask, mask, SPACING) == mean_surface_distance(mask, mask, SPACING) == 0
    assert surface_dice(mask, mask, SPACING, tolerance_mm=0) == 1


def test_a_distance_equal_to_the_tolerance_is_within():
    a, b = np.zeros((2, 9, 3, 3), dtype=bool)
    a[1], b[4] = True, True
    assert 3 * 0.7 > 2.1 or 3 * 0.1 > 0.3  # rounding that the tolerance has to stand
    assert surface_dice(a, b, (0.7, 1, 1), tolerance_mm=2.1) == 1
    assert surface_dice(a, b, (0.1, 1, 1), tolerance_mm=0.3) == 1


def test_empty_masks():
    full, none = np.ones((3, 3, 3)), np.zeros((3, 3, 3))
    for a, b in ((full, none), (none, full), (none, none)):
        assert all(math.isnan(m(a, b, ONE)) for m in (mean_surface_distance, hd95, hausdorff))
    assert surface_dice(full, none, ONE, tolerance_mm=1) == surface_dice(none, full, ONE, tolerance_mm=1) == 0
    assert math.isnan(surface_dice(none, none, ONE, tolerance_mm=1))


def test_a_single_slice_is_scored_in_two_dimensions():
    a, b = blob(4, (40, 40, 3))[:, :, :1], blob(5, (40, 40, 3))[:, :, :1]
    flat = {"y_pred": batched(a[:, :, 0]), "y": batched(b[:, :, 0]), "include_background": True, "spacing": [0.8, 1.1]}
    assert hd95(a, b, SPACING) == pytest.approx(compute_hausdorff_distance(**flat, percentile=95).item(), rel=1e-6)


def test_a_thin_shape_in_a_volume_is_not_taken_for_a_slice():
    a, b = np.zeros((2, 9, 9, 9), dtype=bool)
    a[2:7, 2:7, 4], b[3:6, 3:6, 4] = True, True
    assert surface(a).sum() == 25
    pair = {"y_pred": batched(a), "y": batched(b), "include_background": True}
    assert mean_surface_distance(a, b, ONE) == pytest.approx(
        compute_average_surface_distance(**pair, symmetric=True).item(), rel=1e-6
    )


def test_open_ends_change_nothing_where_no_end_is_met():
    a, b = (np.pad(blob(seed), 1) for seed in (8, 9))
    for cut, uncut in zip(
        surface_distances(a, b, SPACING), surface_distances(a, b, SPACING, open_ends=True), strict=True
    ):
        assert np.array_equal(np.sort(cut), np.sort(uncut))


def test_layout_and_dtype_do_not_matter():
    a, b = blob(6), blob(7)
    expected = hd95(a, b, SPACING)
    twice = np.zeros((48, 28, 20))
    twice[::2] = a
    for other in (np.asfortranarray(a), a.astype(np.int16) * 7, a.astype(np.float32), twice[::2], a[::-1][::-1]):
        assert hd95(other, b, SPACING) == expected


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, -1, 1), (1, 1, math.nan), (1, math.inf, 1), 1.0])
def test_a_spacing_that_is_none_is_refused(spacing):
    with pytest.raises(InputError, match="three lengths in mm above 0"):
        hd95(np.ones((2, 2, 2)), np.ones((2, 2, 2)), spacing)


@pytest.mark.parametrize("tolerance", [-1, math.nan, math.inf])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(InputError, match="a tolerance is a finite length"):
        surface_dice(np.ones((2, 2, 2)), np.ones((2, 2, 2)), ONE, tolerance_mm=tolerance)


@pytest.mark.parametrize("shape", [(2, 2, 3), (2, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(GeometryError, match="of one shape"):
        hd95(np.ones((2, 2, 2)), np.ones(shape), ONE)
    with pytest.raises(GeometryError, match="3-D"):
        hd95(np.ones((2, 2)), np.ones((2, 2)), ONE)


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(surfaces).failed == 0
