"""Radiomic features: the published values of IBSI's digital phantom, scikit-image, SciPy, and definitions as loops."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from skimage.feature import graycomatrix, graycoprops

from medgan.errors import GeometryError, InputError
from medgan.metrics import slabs
from medgan.metrics.grey_levels import Discretisation, cooccurrence, texture
from medgan.metrics.radiomics import NAMES, intensities, radiomics, sharpness

Array = npt.NDArray[Any]

# (Z, Y, X); 0 is outside the region.
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
).transpose(2, 1, 0)
# IBSI reference manual, digital phantom: intensity-based statistics, histogram, GLCM in 3-D averaged over directions.
PUBLISHED = {
    "mean": 2.15,
    "variance": 3.05,
    "skewness": 1.08,
    "kurtosis": -0.355,
    "minimum": 1,
    "p10": 1,
    "median": 1,
    "p90": 4,
    "maximum": 6,
    "interquartile_range": 3,
    "mean_absolute_deviation": 1.55,
    "robust_mean_absolute_deviation": 1.11,
    "energy": 567,
    "root_mean_square": 2.77,
    "entropy": 1.27,
    "uniformity": 0.512,
    "joint_maximum": 0.503,
    "joint_variance": 3.1,
    "joint_entropy": 2.4,
    "angular_second_moment": 0.303,
    "contrast": 5.32,
    "correlation": 0.157,
    "difference_average": 1.43,
    "difference_variance": 3.06,
    "difference_entropy": 1.56,
    "sum_entropy": 1.92,
    "inverse_difference": 0.677,
    "inverse_difference_moment": 0.618,
    "information_correlation_1": -0.157,
    "information_correlation_2": 0.52,
}
WHOLE_LEVELS = Discretisation(width=1, value_range=(1, 7))


def smooth(*shape: int, seed: int = 0) -> Array:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return 100 * ndimage.gaussian_filter(noise, 1.2)


def test_the_digital_phantom_has_the_published_values() -> None:
    found = radiomics(PHANTOM, PHANTOM > 0, grey_levels=WHOLE_LEVELS)
    assert {name: float(f"{found[name]:.3g}") for name in PUBLISHED} == PUBLISHED


def test_names_are_those_of_what_is_found_in_their_order() -> None:
    assert tuple(radiomics(smooth(9, 8, 7))) == NAMES
    assert len(set(NAMES)) == len(NAMES) == 38


# --- intensities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16"])
def test_intensities_are_those_of_scipy(dtype: str) -> None:
    values = (smooth(4000) + 20).astype(dtype)
    exact = values.astype(np.float64)
    found = intensities(values)
    p10, p25, p75, p90 = np.percentile(exact, [10, 25, 75, 90])
    middle = exact[(exact >= p10) & (exact <= p90)]
    expected = {
        "mean": exact.mean(),
        "variance": exact.var(),
        "skewness": stats.skew(exact),
        "kurtosis": stats.kurtosis(exact),
        "p25": p25,
        "median": np.median(exact),
        "interquartile_range": p75 - p25,
        "mean_absolute_deviation": np.abs(exact - exact.mean()).mean(),
        "robust_mean_absolute_deviation": np.abs(middle - middle.mean()).mean(),
        "energy": (exact**2).sum(),
        "root_mean_square": np.sqrt((exact**2).mean()),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-11)


def test_a_constant_region_has_no_shape_of_its_histogram() -> None:
    found = radiomics(np.full((6, 6, 6), 0.1))
    undefined = {"skewness", "kurtosis", "correlation", "information_correlation_1", "information_correlation_2"}
    assert {name for name, value in found.items() if math.isnan(value)} == undefined
    assert found["entropy"] == found["contrast"] == found["gradient_1"] == 0
    assert found["angular_second_moment"] == found["uniformity"] == 1


# --- grey levels ------------------------------------------------------------------------------------------------------


def test_a_fixed_number_of_bins_covers_the_range_of_the_region() -> None:
    image = np.array([[[-5.0, 0.0, 2.5, 5.0, 9.99, 10.0]]])
    levels, count = Discretisation(bins=4).levels(image, image >= 0)
    assert (levels.tolist(), count) == ([[[0, 1, 2, 3, 4, 4]]], 4)


def test_bins_of_a_fixed_width_begin_at_the_low_end() -> None:
    image = np.array([[[-2000.0, -1024.0, -1000.0, -999.0, 0.0, 3071.0, 5000.0]]])
    levels, count = Discretisation(width=25, value_range=(-1024, 3071)).levels(image, np.ones(image.shape, bool))
    assert (levels.tolist(), count) == ([[[1, 1, 1, 2, 41, 164, 164]]], 164)


def test_levels_of_any_type_are_those_of_the_definition() -> None:
    image = smooth(11, 7, 5)
    low, high = image.min(), image.max()
    expected = np.minimum(np.floor(8 * (image - low) / (high - low)) + 1, 8)
    assert np.array_equal(Discretisation(bins=8).levels(image, image > -np.inf)[0], expected)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"bins": 1}, "2 to 1024 bins"),
        ({"bins": 5000}, "2 to 1024 bins"),
        ({"width": 0.0}, "width above 0"),
        ({"width": math.nan}, "width above 0"),
        ({"value_range": (3.0, 3.0)}, "the lower first"),
        ({"value_range": (0.0, math.inf)}, "finite"),
    ],
)
def test_what_is_no_binning_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Discretisation(**wrong)


def test_bins_that_are_too_narrow_are_refused() -> None:
    with pytest.raises(InputError, match="5001 grey levels from 0 to 5000; at most 1024"):
        radiomics(np.array([[0.0, 5000.0]]), grey_levels=Discretisation(width=1))


# --- texture ----------------------------------------------------------------------------------------------------------


def literal_matrices(levels: Array, count: int) -> list[Array]:
    """Counted voxel by voxel, for each pair of opposite directions."""
    half = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    matrices = []
    for step in half:
        matrix = np.zeros((count, count))
        for place in np.ndindex(levels.shape):
            other = tuple(np.add(place, step))
            if all(0 <= k < n for k, n in zip(other, levels.shape, strict=True)) and levels[place] and levels[other]:
                matrix[levels[place] - 1, levels[other] - 1] += 1
                matrix[levels[other] - 1, levels[place] - 1] += 1
        if matrix.any():
            matrices.append(matrix / matrix.sum())
    return matrices


@pytest.mark.parametrize("shape", [(5, 6, 7), (6, 5, 1), (1, 1, 4)], ids=str)
def test_neighbours_are_counted_in_every_direction(shape: tuple[int, ...]) -> None:
    levels = np.random.default_rng(1).integers(0, 5, shape)
    np.testing.assert_allclose(cooccurrence(levels, 4), literal_matrices(levels, 4), atol=1e-15)


def test_a_volume_has_thirteen_directions_and_a_slice_four() -> None:
    assert cooccurrence(np.ones((3, 3, 3), int)).shape == (13, 1, 1)
    assert cooccurrence(np.ones((3, 3), int)).shape == (4, 1, 1)


def test_texture_of_a_slice_is_that_of_scikit_image() -> None:
    levels = np.random.default_rng(2).integers(1, 9, (40, 31)).astype(np.uint8)
    levels[5:20, 4:16] = 3
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    matrix = graycomatrix(levels - 1, [1], angles, levels=8, symmetric=True, normed=True)
    found = texture(cooccurrence(levels, 8))
    pairs = {
        "contrast": "contrast",
        "difference_average": "dissimilarity",
        "inverse_difference_moment": "homogeneity",
        "angular_second_moment": "ASM",
        "correlation": "correlation",
        "joint_variance": "variance",
    }
    expected = {ours: float(graycoprops(matrix, theirs).mean()) for ours, theirs in pairs.items()}
    expected["joint_entropy"] = float(graycoprops(matrix, "entropy").mean() / np.log(2))  # in nats there
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-11)


def literal_texture(p: Array) -> dict[str, float]:
    """Sums over i and j as IBSI writes them."""
    level, bits = range(1, len(p) + 1), lambda shares: -sum(s * math.log2(s) for s in shares if s > 0)
    cells = [(i, j, p[i - 1, j - 1]) for i in level for j in level]
    own = [sum(p[i - 1]) for i in level]
    mean = sum(i * share for i, share in zip(level, own, strict=True))
    variance = sum((i - mean) ** 2 * share for i, share in zip(level, own, strict=True))
    apart = [sum(s for i, j, s in cells if abs(i - j) == k) for k in range(len(p))]
    added = [sum(s for i, j, s in cells if i + j == k) for k in range(2, 2 * len(p) + 1)]
    average = sum(k * share for k, share in enumerate(apart))
    joint, alone = bits([s for _, _, s in cells]), bits(own)
    first = -sum(s * math.log2(own[i - 1] * own[j - 1]) for i, j, s in cells if s > 0)
    second = bits([a * b for a in own for b in own])
    return {
        "joint_maximum": max(s for _, _, s in cells),
        "joint_variance": variance,
        "joint_entropy": joint,
        "angular_second_moment": sum(s * s for _, _, s in cells),
        "contrast": sum((i - j) ** 2 * s for i, j, s in cells),
        "correlation": (sum(i * j * s for i, j, s in cells) - mean**2) / variance,
        "difference_average": average,
        "difference_variance": sum((k - average) ** 2 * share for k, share in enumerate(apart)),
        "difference_entropy": bits(apart),
        "sum_entropy": bits(added),
        "inverse_difference": sum(s / (1 + abs(i - j)) for i, j, s in cells),
        "inverse_difference_moment": sum(s / (1 + (i - j) ** 2) for i, j, s in cells),
        "information_correlation_1": (joint - first) / alone,
        "information_correlation_2": math.sqrt(1 - math.exp(-2 * (second - joint))),
    }


def test_texture_is_that_of_its_sums_averaged_over_directions() -> None:
    levels = np.random.default_rng(3).integers(0, 7, (6, 6, 6))
    each = [literal_texture(matrix) for matrix in literal_matrices(levels, 6)]
    expected = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    assert texture(cooccurrence(levels, 6)) == pytest.approx(expected, rel=1e-11)


def test_a_region_without_neighbours_has_no_texture() -> None:
    found = radiomics(np.array([[[7.0]]]))
    assert found["mean"] == 7
    assert all(math.isnan(found[name]) for name in ("contrast", "joint_entropy", "gradient_1", "laplacian_4"))


# --- sharpness --------------------------------------------------------------------------------------------------------


def test_slopes_are_those_of_numpy_and_scipy_in_mm() -> None:
    image, spacing = smooth(14, 12, 13), (0.7, 2.0, 1.5)
    inside = np.random.default_rng(4).random(image.shape) > 0.3
    inner = (slice(1, -1),) * 3
    steps = np.gradient(image, *spacing)
    curves = [ndimage.correlate1d(image, [1, -2, 1], axis) / spacing[axis] ** 2 for axis in range(3)]
    kept = inside[inner]
    found = sharpness(image, inside, spacing)
    assert found["gradient_1"] == pytest.approx(np.sqrt(sum(step**2 for step in steps)[inner][kept].mean()))
    assert found["laplacian_1"] == pytest.approx(np.sqrt((sum(curves)[inner][kept] ** 2).mean()))


def test_coarser_scales_are_those_of_means() -> None:
    image, everywhere = smooth(16, 20, 12), np.ones((16, 20, 12), bool)
    fours = image.reshape(4, 4, 5, 4, 3, 4).mean(axis=(1, 3, 5))
    found = sharpness(image, everywhere, (1, 1, 2))
    coarse = sharpness(fours, np.ones(fours.shape, bool), (4, 4, 8))
    assert found["gradient_4"] == pytest.approx(coarse["gradient_1"], rel=1e-12)
    assert found["laplacian_4"] == pytest.approx(coarse["laplacian_1"], rel=1e-12)


def test_a_mean_counts_where_all_its_voxels_are_inside() -> None:
    image = smooth(16, 16, 16)
    inside = np.zeros(image.shape, bool)
    inside[:9] = True
    changed = np.where(np.arange(16)[:, None, None] > 11, 1e6, image)
    found, other = (sharpness(one, inside, (1, 1, 1)) for one in (image, changed))
    assert found["gradient_2"] == pytest.approx(other["gradient_2"])


def test_a_slice_has_slopes_along_its_own_axes() -> None:
    image = smooth(20, 24)
    assert radiomics(image, spacing_mm=(2, 3)) == radiomics(image[:, :, None], spacing_mm=(2, 3, 9))


# --- any array --------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), flips=st.sets(st.integers(0, 2)), order=st.permutations((0, 1, 2)))
def test_features_do_not_know_which_way_an_image_lies(seed: int, flips: set[int], order: tuple[int, ...]) -> None:
    image, spacing = smooth(7, 12, 13, seed=seed), np.array([1.0, 2.0, 3.0])
    mask = np.random.default_rng(seed).random(image.shape) > 0.4
    turned, turned_mask = (np.flip(one, tuple(flips)).transpose(order) for one in (image, mask))
    found = radiomics(turned, turned_mask, spacing_mm=spacing[list(order)])
    expected = radiomics(image, mask, spacing_mm=spacing)
    if not flips:  # an odd axis loses its last voxel at coarser scales, whichever end that is
        assert found == pytest.approx(expected, rel=1e-9, nan_ok=True)
    fine = [name for name in NAMES if name[-2:] not in ("_2", "_4") or "correlation" in name]
    assert {name: found[name] for name in fine} == pytest.approx({name: expected[name] for name in fine}, rel=1e-9)


def test_layout_and_type_change_nothing() -> None:
    image = np.rint(smooth(13, 17, 11)).astype(np.int16)
    mask = image > -40
    expected = radiomics(image, mask)
    wide = np.zeros((26, 17, 22), np.int16)
    wide[::2, :, ::2] = image
    for same in (np.asfortranarray(image), wide[::2, :, ::2], image.astype(np.float32), image.astype(np.float64)):
        assert radiomics(same, mask.astype(np.uint8) * 3) == pytest.approx(expected, rel=1e-12)


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = smooth(23, 9, 14)
    expected = radiomics(image, image > -30)
    monkeypatch.setattr(slabs, "VOXELS", 200)
    assert radiomics(image, image > -30) == pytest.approx(expected, rel=1e-11)


def test_values_that_are_not_finite_make_nothing_of_all_unless_they_are_outside() -> None:
    image = smooth(8, 8, 8)
    expected = radiomics(image, image > 0)
    image[4, 4, 4] = math.nan
    assert all(math.isnan(value) for value in radiomics(image).values())
    hollow = image.copy()
    hollow[0, 0, 0] = math.inf
    mask = np.zeros(image.shape, bool)
    mask[:3, 5:, 5:] = True
    assert math.isfinite(radiomics(hollow, mask)["contrast"])
    assert math.isfinite(expected["contrast"])


@pytest.mark.parametrize(
    ("image", "mask", "spacing", "error"),
    [
        (np.zeros(5), None, (1, 1, 1), GeometryError),
        (np.zeros((5, 5, 5)), np.ones((5, 5, 4)), (1, 1, 1), GeometryError),
        (np.zeros((5, 5, 5)), None, (1, 1), GeometryError),
        (np.zeros((5, 5, 5)), None, (1, 1, 0), GeometryError),
        (np.zeros((5, 5, 5)), None, (1, 1, math.nan), GeometryError),
        (np.zeros((5, 5, 5)), np.zeros((5, 5, 5)), (1, 1, 1), InputError),
    ],
)
def test_what_has_no_features_is_refused(
    image: Array, mask: Array | None, spacing: tuple[float, ...], error: Any
) -> None:
    with pytest.raises(error):
        radiomics(image, mask, spacing_mm=spacing)
