"""Paired metrics beside those of the challenges, each against scikit-image, SciPy, MONAI or its definition in loops."""

from __future__ import annotations

import doctest
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.regression import compute_ms_ssim
from scipy.ndimage import binary_erosion, correlate1d, gaussian_filter, generate_binary_structure, uniform_filter
from skimage.metrics import normalized_mutual_information, normalized_root_mse, structural_similarity
from test_metrics import analytic, noisy, skimage_ssim, whole_ms_ssim

from medgan import Grid, Volume, read
from medgan.errors import GeometryError, InputError
from medgan.metrics import errors, image, information, pairs, presets, ssim, streams, windows
from medgan.metrics.errors import bias, gradient_error, mae, nmse, psnr, rmse, tolerant_mae
from medgan.metrics.image import ms_ssim_2025, ms_ssim_2025_fixed, ssim_2023, ssim_2023_fixed
from medgan.metrics.information import nmi
from medgan.metrics.presets import PRESETS
from medgan.metrics.ssim import ms_ssim_2003, nc_ssim, smallest_axis, ssim_2004
from medgan.metrics.streams import LoopMetric, PairedScores

Array = npt.NDArray[Any]
RANGE = (-1024.0, 3071.0)
L = RANGE[1] - RANGE[0]
C1, C2 = (0.01 * L) ** 2, (0.03 * L) ** 2
WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
SPACING = (0.7, 1.1, 3.0)
NEW = [bias, rmse, nmse, tolerant_mae, nmi, nc_ssim, ssim_2004, ms_ssim_2003, ssim_2023_fixed, ms_ssim_2025_fixed]


def textured(shape: tuple[int, ...], seed: int = 0) -> tuple[Array, Array, Array]:
    """A pair with structure of several sizes, so that no scale is trivial, and a mask with holes."""
    rng = np.random.default_rng(seed)
    ref = sum(gaussian_filter(rng.normal(0, 1, shape), s) * 250 * (1 + s**1.5) for s in (0, 1, 3))
    pred = ref + 0.6 * sum(gaussian_filter(rng.normal(0, 1, shape), s) * 200 * (1 + s**1.5) for s in (0, 2))
    return pred - 100, ref, gaussian_filter(rng.normal(0, 1, shape), 1.5) > -0.05


def skimage_map(pred: Array, ref: Array, limits: tuple[float, float] = RANGE) -> tuple[float, Array]:
    """Wang 2004 as scikit-image has it, of images that start at 0."""
    x, y = (one.astype(np.float64) - limits[0] for one in (ref, pred))
    width = limits[1] - limits[0]
    settings_ = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": width}
    mean, everywhere = structural_similarity(x, y, full=True, **settings_)
    return float(mean), everywhere


# --- wang2004 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(24, 31, 40), (11, 12, 90), (64, 11, 13)])
def test_ssim_in_volumes_is_that_of_scikit_image(shape: tuple[int, ...]) -> None:
    pred, ref, mask = textured(shape)
    mean, everywhere = skimage_map(pred, ref)
    core = (slice(5, -5),) * 3
    assert ssim_2004(pred, ref, value_range=RANGE) == pytest.approx(mean, abs=1e-12)
    assert ssim_2004(pred, ref, mask, RANGE) == pytest.approx(everywhere[core][mask[core]].mean(), abs=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_ssim_in_slices_is_the_mean_of_those_of_scikit_image(axis: int) -> None:
    pred, ref, mask = textured((23, 17, 19))
    slices = [np.moveaxis(one, axis, 0) for one in (pred, ref, mask)]
    slices[2][3] = False  # a slice without a mask is none
    seen = [skimage_map(p, r)[1][5:-5, 5:-5] for p, r in zip(*slices[:2], strict=True)]
    kept = [one[m[5:-5, 5:-5]].mean() for one, m in zip(seen, slices[2], strict=True) if m[5:-5, 5:-5].any()]
    assert len(kept) == len(seen) - 1
    assert ssim_2004(pred, ref, None, RANGE, axis=axis) == pytest.approx(np.mean([s.mean() for s in seen]), abs=1e-12)
    assert ssim_2004(pred, ref, mask, RANGE, axis=axis) == pytest.approx(np.mean(kept), abs=1e-12)


def whole_ms_ssim_2003(pred: Array, ref: Array, mask: Array, weights: Array = WEIGHTS) -> float:
    """Wang 2003 of whole arrays in any number of dimensions, from SciPy's Gaussian filter."""
    x, y, result = ref - RANGE[0], pred - RANGE[0], 1.0
    core = (slice(5, -5),) * x.ndim
    for level, weight in enumerate(weights):
        ux, uy, xx, yy, xy = (gaussian_filter(one, 1.5, truncate=3.5)[core] for one in (x, y, x * x, y * y, x * y))
        found = (2 * (xy - ux * uy) + C2) / (xx - ux**2 + yy - uy**2 + C2)
        if level == len(weights) - 1:
            found = found * (2 * ux * uy + C1) / (ux**2 + uy**2 + C1)
        kept = found[mask[core]]
        result *= max(kept.mean(), 0) ** weight if kept.size else np.nan
        x, y, mask = halve(x), halve(y), halve(1.0 * mask) > 0
    return result


def halve(array: Array) -> Array:
    """Means of two along every axis; a last odd one is left out."""
    for axis in range(array.ndim):
        lines = np.moveaxis(array, axis, 0)
        even = len(lines) // 2 * 2
        array = np.moveaxis((lines[0:even:2] + lines[1:even:2]) / 2, 0, axis)
    return array


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_ms_ssim_of_few_scales_is_the_definition(num_scales: int) -> None:
    pred, ref, mask = textured((45, 50, 61))
    weights = WEIGHTS[:num_scales] / WEIGHTS[:num_scales].sum()
    for used in (mask, np.ones_like(mask)):
        expected = whole_ms_ssim_2003(pred, ref, used, weights)
        assert 0.2 < expected < 0.99
        assert ms_ssim_2003(pred, ref, used, RANGE, num_scales=num_scales) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("axis", [0, 2])
def test_ms_ssim_in_slices_is_the_definition_and_monais(axis: int) -> None:
    pred, ref, mask = (np.moveaxis(one, 0, axis) for one in textured((3, 177, 190)))
    slices = [np.moveaxis(one, axis, 0) for one in (pred, ref, mask)]
    for used, given_mask in ((np.ones_like(slices[2]), None), (slices[2], mask)):
        expected = np.mean([whole_ms_ssim_2003(*one) for one in zip(*slices[:2], used, strict=True)])
        assert ms_ssim_2003(pred, ref, given_mask, RANGE, axis=axis) == pytest.approx(expected, abs=1e-11)
    p, r = (torch.from_numpy(one[:, None] - RANGE[0]) for one in slices[:2])
    monai = compute_ms_ssim(p, r, spatial_dims=2, data_range=L).mean().item()
    assert ms_ssim_2003(pred, ref, None, RANGE, axis=axis) == pytest.approx(monai, abs=2e-5)  # MONAI's sums are float32


def test_ms_ssim_of_five_scales_in_a_volume_is_the_definition() -> None:
    pred, ref, mask = textured((176, 177, 178))
    expected = whole_ms_ssim_2003(pred, ref, mask)
    assert 0.2 < expected < 0.99
    assert ms_ssim_2003(pred, ref, mask, RANGE) == pytest.approx(expected, abs=1e-11)


def test_ms_ssim_of_a_volume_that_is_too_small_is_undefined_and_said_to_be() -> None:
    assert smallest_axis(5) == 176
    cube = np.zeros((176, 20, 176))
    assert np.isnan(ms_ssim_2003(cube, cube))
    assert ms_ssim_2003(cube, cube, axis=1) == pytest.approx(1)
    assert np.isnan(ms_ssim_2003(cube[:175], cube[:175], axis=1))
    notes = PRESETS["wang2004"].notes(cube, cube)
    assert "MS-SSIM of wang2004 in 3-D is undefined: it needs 176 voxels an axis, seen 176 × 20 × 176" in notes
    assert "MS-SSIM of wang2004 in slices is undefined: it needs 176 voxels an axis, seen 176 × 20" in notes
    assert not any(note.startswith("SSIM") for note in notes)
    with pytest.raises(InputError, match="1 to 5 scales; seen 6"):
        ms_ssim_2003(cube, cube, num_scales=6)


def test_a_structure_that_is_turned_round_gives_zero() -> None:
    _, ref, _ = textured((50, 50, 50))
    assert ms_ssim_2003(-ref, ref, num_scales=2) == 0


# --- normalised convolution -------------------------------------------------------------------------------------------


def looped_nc(pred: Array, ref: Array, mask: Array) -> dict[tuple[int, ...], float]:
    """SSIM of the voxels of the mask alone, one window after the other, by centre."""
    one = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    kernel = one[:, None, None] * one[None, :, None] * one[None, None, :]
    found = {}
    for centre in map(tuple, np.argwhere(mask)):
        box = tuple(slice(max(c - 5, 0), c + 6) for c in centre)
        part = tuple(slice(max(5 - c, 0), 5 - c + n) for c, n in zip(centre, mask.shape, strict=True))
        w, x, y = kernel[part] * mask[box], ref[box] - RANGE[0], pred[box] - RANGE[0]
        w, x, y = w[w > 0] / w.sum(), x[w > 0], y[w > 0]
        ux, uy = (w * x).sum(), (w * y).sum()
        vx, vy, vxy = (w * (x - ux) ** 2).sum(), (w * (y - uy) ** 2).sum(), (w * (x - ux) * (y - uy)).sum()
        found[centre] = (2 * ux * uy + C1) * (2 * vxy + C2) / ((ux**2 + uy**2 + C1) * (vx + vy + C2))
    return found


@pytest.mark.parametrize("shape", [(13, 12, 15), (5, 20, 4), (1, 16, 9)])
def test_masked_windows_are_the_definition_window_by_window(shape: tuple[int, ...]) -> None:
    pred, ref, mask = textured(shape)
    for used in (mask, np.ones_like(mask)):
        expected = np.mean(list(looped_nc(pred, ref, used).values()))
        assert nc_ssim(pred, ref, used, RANGE) == pytest.approx(expected, abs=1e-11)


def test_masked_windows_inside_the_mask_are_those_of_wang() -> None:
    pred, ref, _ = textured((13, 12, 15))
    found, everywhere = looped_nc(pred, ref, np.ones(ref.shape, bool)), skimage_map(pred, ref)[1]
    inside = [c for c in found if all(5 <= at < n - 5 for at, n in zip(c, ref.shape, strict=True))]
    assert len(inside) == 30
    assert [found[c] for c in inside] == pytest.approx([everywhere[c] for c in inside], abs=1e-12)
    assert ssim_2004(pred, ref, None, RANGE) == pytest.approx(np.mean([found[c] for c in inside]), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    seed=st.integers(0, 10**6),
    what=st.sampled_from([0.0, 1e6, np.nan, np.inf, -np.inf]),
)
def test_nothing_outside_the_mask_moves_masked_windows(shape: tuple[int, ...], seed: int, what: float) -> None:
    pred, ref, mask = noisy(shape, seed)
    mask.flat[seed % mask.size] = True
    made, real = np.where(mask, pred, what), np.where(mask, ref, -what)
    assert nc_ssim(made, real, mask) == nc_ssim(pred, ref, mask)
    for metric in (bias, rmse, nmse, tolerant_mae, nmi, ssim_2023_fixed):
        assert metric(made, real, mask) == pytest.approx(metric(pred, ref, mask), rel=0, abs=0, nan_ok=True)
    found = [gradient_error(p, r, mask, spacing_mm=SPACING) for p, r in ((made, real), (pred, ref))]
    assert found[0] == pytest.approx(found[1], rel=0, abs=0, nan_ok=True)


# --- fixed variants ---------------------------------------------------------------------------------------------------


def literal_fixed_ssim(pred: Array, ref: Array, mask: Array) -> float:
    """The published map on the whole volume; where its crop leaves nothing, no crop."""
    x, y = (np.where(mask, np.clip(a, -1024, 3000), -1024) + 1024 for a in (ref, pred))
    values = literal_map(x, y, 4024)
    core = np.zeros_like(mask)
    core[3:-3, 3:-3, 3:-3] = mask[3:-3, 3:-3, 3:-3]
    return float(values[core if core.any() else mask].mean())


def literal_map(x: Array, y: Array, width: float) -> Array:
    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    ux, uy, xx, yy, xy = (uniform_filter(one, 7) for one in (x, y, x * x, y * y, x * y))
    vx, vy, vxy = (343 / 342 * v for v in (xx - ux**2, yy - uy**2, xy - ux * uy))
    return np.asarray((2 * ux * uy + c1) * (2 * vxy + c2) / ((ux**2 + uy**2 + c1) * (vx + vy + c2)))


def literal_fixed_ms_ssim(pred: Array, ref: Array, mask: Array) -> tuple[float, set[str]]:
    """The published one on whole volumes, the policies taken where a scale has no mask; which were taken."""
    x, y = (np.where(mask, np.clip(a, *RANGE), RANGE[0]) - RANGE[0] for a in (ref, pred))
    widths = [(max(97 - n, 0) // 2, max(97 - n, 0) - max(97 - n, 0) // 2) for n in ref.shape]
    x, y, mask = (np.pad(a, widths, mode="edge") for a in (x, y, mask))
    result, taken = 1.0, set()
    for level, weight in enumerate(WEIGHTS):
        if level:
            x, y, before = lowered(x), lowered(y), mask
            mask = mask[::2, ::2, ::2]
            if not mask.any():
                taken.add("touched")
                mask = np.zeros_like(mask)
                for place in np.argwhere(before):
                    mask[tuple(min((at + 1) // 2, n - 1) for at, n in zip(place, mask.shape, strict=True))] = True
        kept = np.zeros_like(mask)
        kept[3:-3, 3:-3, 3:-3] = mask[3:-3, 3:-3, 3:-3]
        if not kept.any():
            taken.add("border")
            kept = mask
        result *= np.clip((np.maximum(literal_map(x, y, L)[kept], 0) ** weight).mean(), 0, 1)
    return float(result), taken


def lowered(array: Array) -> Array:
    for axis in range(3):
        array = correlate1d(array, [0.5, 0.5, 0], axis, mode="constant")
    return array[::2, ::2, ::2]


@settings(max_examples=25, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 16)] * 3), seed=st.integers(0, 10**6), share=st.sampled_from([0.02, 0.5, 1.0]))
def test_ssim_fixed_is_the_definition(shape: tuple[int, ...], seed: int, share: float) -> None:
    pred, ref, _ = noisy(shape, seed)
    mask = np.random.default_rng(seed).random(shape) < share
    mask.flat[seed % mask.size] = True
    fixed, original = ssim_2023_fixed(pred, ref, mask), ssim_2023(pred, ref, mask)
    assert fixed == pytest.approx(literal_fixed_ssim(pred, ref, mask), abs=1e-11)
    assert fixed == original or np.isnan(original)
    assert np.isnan(original) == bool(image.ssim_2023_rescues(mask))


@pytest.mark.parametrize(
    ("shape", "inside", "expected"),
    [
        ((97, 98, 130), np.s_[20:90, 20:80, 10:110], set()),
        ((110, 99, 97), np.s_[5:30, 5:30, 5:30], {"border"}),
        ((97, 97, 97), np.s_[51:52, 51:52, 51:52], {"border", "touched"}),
        ((98, 98, 98), np.s_[97:, 97:, 97:], {"border", "touched"}),
        ((60, 1, 40), np.s_[10:40, :, 10:30], set()),
        ((97, 97, 97), np.s_[33:64:2, 33:64:2, 33:64:2], {"touched"}),
    ],
)
def test_ms_ssim_fixed_is_the_definition(shape: tuple[int, ...], inside: Any, expected: set[str]) -> None:
    pred, ref, _ = textured(shape)
    mask = np.zeros(shape, bool)
    mask[inside] = True
    number, taken = literal_fixed_ms_ssim(pred, ref, mask)
    told = " ".join(image.ms_ssim_2025_rescues(mask))
    signs = {"border": "all border", "touched": "touches"}
    assert taken == expected == {word for word, sign in signs.items() if sign in told}
    assert 0.1 < number < 1
    assert ms_ssim_2025_fixed(pred, ref, mask) == pytest.approx(number, abs=1e-11)
    original = whole_ms_ssim(pred, ref, mask)
    assert (number == pytest.approx(original, abs=1e-11)) if not taken else np.isnan(original)


def test_presets_that_are_fixed_are_equal_to_the_originals_where_these_have_numbers() -> None:
    arrays = analytic()
    for name in ("synthrad2023", "synthrad2025"):
        fixed = PRESETS[f"{name}-fixed"]
        assert fixed.score(*arrays) == PRESETS[name].score(*arrays)
        assert fixed.notes(*arrays) == []
        assert fixed.value_range == PRESETS[name].value_range


@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["synthrad2023-fixed", "synthrad2025-fixed", "wang2004", "full"])
def test_a_voxel_that_is_not_finite_leaves_no_number_and_is_told(name: str, what: float) -> None:
    for which in range(2):
        pair = [one.copy() for one in textured((12, 13, 14))[:2]]
        pair[which][6, 6, 6] = what
        scores = PRESETS[name].score(*pair, spacing_mm=SPACING)
        assert all(np.isnan(value) for value in scores.values())
        assert "undefined: a voxel of the mask is not finite" in PRESETS[name].notes(*pair)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_errors_are_their_formulas() -> None:
    pred, ref, mask = textured((21, 22, 23))
    p, r = pred[mask], ref[mask]
    assert mae(pred, ref, mask) == pytest.approx(np.abs(p - r).mean(), rel=1e-12)
    assert bias(pred, ref, mask) == pytest.approx((p - r).mean(), rel=1e-12)
    assert rmse(pred, ref, mask) == pytest.approx(np.sqrt(((p - r) ** 2).mean()), rel=1e-12)
    assert nmse(pred, ref, mask) == pytest.approx(normalized_root_mse(r, p) ** 2, rel=1e-12)
    assert bias(ref - 7, ref) == pytest.approx(-7)
    assert rmse(pred, ref, mask) ** 2 == pytest.approx(bias(pred, ref, mask) ** 2 + (p - r).var(), rel=1e-9)


def test_an_error_relative_to_nothing_is_undefined() -> None:
    zero = np.zeros((4, 4, 4))
    assert np.isnan(nmse(zero + 1, zero))


@pytest.mark.parametrize("shape", [(21, 22, 23), (3, 3, 3), (4, 60, 5)])
def test_gradient_error_is_that_of_numpys_gradients(shape: tuple[int, ...]) -> None:
    pred, ref, mask = textured(shape)
    mask[1, 1, 1] = mask[0, 1, 1] = mask[2, 1, 1] = mask[1, 0, 1] = mask[1, 2, 1] = mask[1, 1, 0] = mask[1, 1, 2] = True
    made, real = (np.sqrt(sum(np.square(one) for one in np.gradient(image_, *SPACING))) for image_ in (pred, ref))
    for used in (mask, np.ones_like(mask)):
        kept = binary_erosion(used, generate_binary_structure(3, 1))
        expected = np.abs(made - real)[kept].mean()
        assert gradient_error(pred, ref, used, spacing_mm=SPACING) == pytest.approx(expected, rel=1e-12)


def test_gradient_error_without_neighbours_is_undefined() -> None:
    cube = np.zeros((9, 9, 2))
    assert np.isnan(gradient_error(cube, cube, spacing_mm=SPACING))
    assert np.isnan(PRESETS["full"].score(*analytic((12, 12, 12)))["gradient_error"])  # without a spacing
    for spacing in ((1, 1), (1, 0, 1), (1, np.nan, 1), (1, -1, 1)):
        with pytest.raises(InputError, match="three positive numbers"):
            gradient_error(cube, cube, spacing_mm=spacing)


def looped_tolerant(pred: Array, ref: Array, mask: Array, reach: int) -> float:
    directions = []
    for one, other in ((pred, ref), (ref, pred)):
        least = []
        for centre in np.argwhere(mask):
            box = tuple(slice(max(at - reach, 0), at + reach + 1) for at in centre)
            least.append(np.abs(one[tuple(centre)] - other[box][mask[box]]).min())
        directions.append(np.mean(least))
    return float(max(directions))


@pytest.mark.parametrize("reach", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(9, 8, 7), (1, 12, 5)])
def test_tolerant_mae_is_the_definition(shape: tuple[int, ...], reach: int) -> None:
    pred, ref, mask = textured(shape)
    expected = looped_tolerant(pred, ref, mask, reach)
    assert tolerant_mae(pred, ref, mask, tolerance=reach) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 12)] * 3), seed=st.integers(0, 10**6))
def test_tolerance_only_lowers_the_error_and_favours_neither_image(shape: tuple[int, ...], seed: int) -> None:
    pred, ref, mask = noisy(shape, seed)
    mask.flat[0] = True
    found = [tolerant_mae(pred, ref, mask, tolerance=reach) for reach in range(3)]
    assert found[0] == pytest.approx(mae(pred, ref, mask), rel=1e-12)
    assert found[0] >= found[1] >= found[2] >= 0
    assert tolerant_mae(ref, pred, mask) == found[1]


def test_tolerance_forgives_a_shift_but_no_lost_bone() -> None:
    ref = np.zeros((20, 20, 20))
    ref[8:12, 8:12, 8:12] = 1000
    ref[3, :, 3] = 1000
    lost = ref.copy()
    lost[3, :, 3] = 0
    assert tolerant_mae(np.roll(ref, 1, axis=0), ref) == 0 < mae(np.roll(ref, 1, axis=0), ref)
    assert tolerant_mae(lost, ref) == mae(lost, ref) == 1000 * 20 / 20**3
    for tolerance in (-1, 0.5):
        with pytest.raises(InputError, match="whole number of voxels"):
            tolerant_mae(ref, ref, tolerance=tolerance)  # type: ignore[arg-type]


# --- information ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.int16])
@pytest.mark.parametrize("num_bins", [2, 64, 100])
def test_nmi_is_that_of_scikit_image(dtype: Any, num_bins: int) -> None:
    pred, ref, mask = textured((21, 22, 23))
    pred, ref = pred.astype(dtype), ref.astype(dtype)
    limits = (-500.0, 700.0)
    edges = np.linspace(*limits, num_bins + 1)
    p, r = (np.clip(one[mask].astype(float), *limits) for one in (pred, ref))
    expected = normalized_mutual_information(p, r, bins=[edges, edges])
    assert 1 < expected < 2
    assert nmi(pred, ref, mask, limits, num_bins=num_bins) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(low=st.integers(-2000, 2000), width=st.integers(1, 5000), num_bins=st.integers(2, 300))
def test_values_on_edges_fall_into_the_bins_of_numpy(low: int, width: int, num_bins: int) -> None:
    edges = np.linspace(low, low + width, num_bins + 1)
    beside = (np.nextafter(edges, way) for way in (-np.inf, np.inf))
    values = np.concatenate([edges, *beside, [low - 9, low + 9 * width]])
    inside = np.clip(values, edges[0], edges[-1])
    counts = np.bincount(information._bins(values, edges), minlength=num_bins)
    assert counts.tolist() == np.histogramdd(inside[:, None], bins=[edges])[0].astype(int).tolist()


def test_nmi_knows_a_map_of_intensities_and_an_unrelated_image() -> None:
    rng = np.random.default_rng(0)
    ref = rng.integers(0, 8, (30, 30, 30))
    assert nmi(7 - ref, ref, None, (0, 8), num_bins=8) == pytest.approx(2)
    unrelated = rng.permuted(ref.ravel()).reshape(ref.shape)
    assert nmi(unrelated, ref, None, (0, 8), num_bins=8) == pytest.approx(1, abs=1e-3)
    assert nmi(0 * ref, ref, None, (0, 8)) == 1
    assert np.isnan(nmi(0 * ref, 0 * ref, None, (0, 8)))
    with pytest.raises(InputError, match="2 bins or more"):
        nmi(ref, ref, num_bins=1)


# --- all of them ------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(*[st.integers(11, 24)] * 3),
    seed=st.integers(0, 10**6),
    order=st.permutations((0, 1, 2)),
    flips=st.sets(st.integers(0, 2)),
    slab=st.sampled_from([1, 500, 10**9]),
)
def test_neither_memory_order_nor_direction_nor_tiles_change_a_number(
    shape: tuple[int, ...], seed: int, order: tuple[int, ...], flips: set[int], slab: int
) -> None:
    arrays, spacing = noisy(shape, seed), [SPACING[axis] for axis in order]
    moved = [np.flip(a.transpose(order), tuple(flips)) for a in arrays]
    metrics = [m for m in NEW if m not in {ms_ssim_2003, ms_ssim_2025_fixed}]
    expected = [metric(*arrays) for metric in metrics]
    expected += [gradient_error(*arrays, spacing_mm=SPACING), ssim_2004(*arrays, axis=order[1])]
    with pytest.MonkeyPatch.context() as patch:
        for module in (pairs, windows, errors):
            patch.setattr(module, "_SLAB_VOXELS", slab)
        patch.setattr(windows, "_TILE_VOXELS", slab)
        patch.setattr(windows, "_FEWEST_ROWS", 1)
        patch.setattr(windows, "_PLANES", 1 + seed % 9)
        patch.setattr(windows, "_BAND", 1 + seed % 9)
        seen = [metric(*moved) for metric in metrics]
        seen += [gradient_error(*moved, spacing_mm=spacing), ssim_2004(*moved, axis=1)]
    assert seen == pytest.approx(expected, rel=1e-10, nan_ok=True)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, ">i2", ">f4", np.float32, bool])
def test_stored_types_do_not_wrap_round(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    pred, ref = (rng.integers(0, 255, (13, 14, 15)).astype(dtype) for _ in range(2))
    wide = pred.astype(float), ref.astype(float)
    scores = [PRESETS["full"].score(*pair, spacing_mm=SPACING) for pair in ((pred, ref), wide, (pred, wide[1]))]
    assert scores[0] == pytest.approx(scores[1], rel=0, nan_ok=True)
    assert scores[2] == pytest.approx(scores[1], rel=0, nan_ok=True)


def test_images_may_lie_in_memory_each_in_its_own_way() -> None:
    pred, ref, mask = textured((12, 13, 14))
    mixed = np.asfortranarray(pred), ref[::-1].copy()[::-1], np.ascontiguousarray(mask.T).T
    expected = PRESETS["full"].score(pred, ref, mask, spacing_mm=SPACING)
    assert PRESETS["full"].score(*mixed, spacing_mm=SPACING) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("metric", NEW)
def test_arrays_that_do_not_fit_are_refused(metric: Any) -> None:
    cube = np.zeros((8, 8, 8))
    with pytest.raises(GeometryError, match=r"\(8, 8, 8\), \(8, 8, 7\)"):
        metric(cube, cube[..., 1:])
    with pytest.raises(GeometryError):
        metric(cube[0], cube[0])
    with pytest.raises(InputError, match="mask is empty"):
        metric(cube, cube, cube)
    with pytest.raises(InputError, match="real numbers"):
        metric(cube.astype(complex), cube)
    with pytest.raises(InputError, match="real numbers"):
        metric(cube, cube.astype(str))


@pytest.mark.parametrize("metric", [nmi, nc_ssim, ssim_2004, ms_ssim_2003, ssim_2023_fixed, ms_ssim_2025_fixed, psnr])
def test_a_range_that_is_none_is_refused(metric: Any) -> None:
    with pytest.raises(InputError, match="two finite numbers"):
        metric(np.zeros((8, 8, 8)), np.zeros((8, 8, 8)), None, (3, 3))


def test_an_axis_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="axis 3"):
        ssim_2004(np.zeros((8, 8, 8)), np.zeros((8, 8, 8)), axis=3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (12, 12, 1), (6, 30, 30), (11, 11, 11), (0, 3, 3)])
def test_small_volumes_have_numbers_or_none_but_no_accident(shape: tuple[int, ...]) -> None:
    pred, ref = textured((30, 30, 30))[0][: shape[0], : shape[1], : shape[2]], np.zeros(shape)
    for preset in PRESETS.values():
        if not ref.size:
            with pytest.raises(InputError, match="mask is empty"):
                preset.score(pred, ref)
            continue
        scores = preset.score(pred, ref, spacing_mm=SPACING)
        assert not any(np.isinf(value) for value in scores.values())
        assert np.isfinite(scores["mae"])


def test_constant_images_and_equal_images() -> None:
    ref = np.full((20, 20, 20), 40.0)
    found = PRESETS["full"].score(ref, ref, spacing_mm=SPACING)
    assert found["psnr"] == np.inf
    assert [found[name] for name in ("mae", "bias", "rmse", "nmse", "gradient_error", "tolerant_mae")] == [0] * 6
    ones = [found[name] for name in ("ssim", "ms_ssim", "nc_ssim", "ssim_wang2004", "ssim_wang2004_2d")]
    assert ones == pytest.approx([1] * 5, abs=1e-12)
    assert np.isnan(found["nmi"])


def test_real_scans_against_scikit_image(shared: Path) -> None:
    folder = shared / "nichart_t1_flair_3d2mm" / "Subj14"
    t1, flair, mask = (read(folder / f"{name}.nii.gz").array for name in ("t1", "flair", "brainmask"))
    limits = (float(flair.min()), float(flair.max()))
    made, real, inside = t1 * 0.5, flair.astype(np.float64), mask > 0
    everywhere = skimage_map(made, real, limits)[1]
    core = (slice(5, -5),) * 3
    assert ssim_2004(made, flair, mask, limits) == pytest.approx(everywhere[core][inside[core]].mean(), abs=1e-11)
    assert ssim_2023(made, flair, mask, limits) == pytest.approx(skimage_ssim(made, real, inside, *limits), abs=1e-11)
    expected = whole_ms_ssim(made, real, inside, *limits)
    assert ms_ssim_2025(made, flair, mask, limits) == pytest.approx(expected, abs=1e-11)
    edges = np.linspace(*limits, 101)
    expected = normalized_mutual_information(*(np.clip(a[inside], *limits) for a in (made, real)), bins=[edges, edges])
    assert nmi(made, flair, mask, limits) == pytest.approx(expected, abs=1e-12)


# --- streams ----------------------------------------------------------------------------------------------------------


def batch(number: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    ref = rng.normal(0, 300, (number, 1, 8, 9, 10))
    return ref + rng.normal(0, 50, ref.shape), ref


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 6), max_size=4), order=st.randoms(use_true_random=False))
def test_any_partition_gives_the_same_numbers(cuts: list[int], order: Any) -> None:
    pred, ref = batch(6)
    whole = PairedScores("synthrad2023-fixed")
    whole.update(pred, ref)
    parts = []
    for start, stop in itertools.pairwise([0, *sorted(cuts), 6]):
        parts.append(PairedScores("synthrad2023-fixed"))
        parts[-1].update(pred[start:stop], ref[start:stop])
    order.shuffle(parts)
    merged = PairedScores("synthrad2023-fixed")
    for part in parts:
        merged.merge(part)
    assert merged.compute() == whole.compute()
    assert len(merged.rows) == 6


def test_streams_are_the_preset_case_by_case() -> None:
    pred, ref = batch(3)
    mask = np.abs(ref) < 200
    scores = PairedScores("full", value_range=(-900, 900), spacing_mm=SPACING)
    scores.update(pred, ref, mask, case=["a", "b", "c"])
    scores.update(pred[0, 0], ref[0, 0], case="d")
    assert [row["case"] for row in scores.rows] == ["a", "b", "c", "d"]
    expected = PRESETS["full"].score(pred[1, 0], ref[1, 0], mask[1, 0], (-900, 900), spacing_mm=SPACING)
    assert {name: scores.rows[1][name] for name in expected} == pytest.approx(expected, rel=0, nan_ok=True)
    assert scores.compute()["mae"] == pytest.approx(np.mean([row["mae"] for row in scores.rows]))
    assert scores.num_undefined["ms_ssim_wang2004"] == 4
    assert np.isnan(scores.compute()["ms_ssim_wang2004"])
    scores.reset()
    assert np.isnan(scores.compute()["mae"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int16])
def test_tensors_are_arrays(dtype: torch.dtype) -> None:
    pred, ref = (torch.from_numpy(one).to(dtype) for one in batch(2))
    pred = pred.requires_grad_() if dtype.is_floating_point else pred
    scores, expected = PairedScores(), PairedScores()
    scores.update(pred, ref)
    expected.update(*(one.detach().double().numpy() for one in (pred, ref)))
    assert scores.compute() == expected.compute()


def test_channels_are_images_and_may_share_a_mask() -> None:
    (pred, ref), mask = batch(4), np.zeros((2, 1, 8, 9, 10))
    mask[:, :, 2:6] = 1
    scores = PairedScores()
    scores.update(pred.reshape(2, 2, 8, 9, 10), ref.reshape(2, 2, 8, 9, 10), mask)
    assert [row["channel"] for row in scores.rows] == [0, 1, 0, 1]
    assert [row["mae"] for row in scores.rows] == [mae(pred[n, 0], ref[n, 0], mask[0, 0]) for n in range(4)]


def test_streams_refuse_what_does_not_fit() -> None:
    pred, ref = batch(2)
    scores = PairedScores()
    with pytest.raises(GeometryError, match="one shape"):
        scores.update(pred, ref[:1])
    with pytest.raises(GeometryError, match=r"seen \(1, 8, 9, 10\)"):
        scores.update(pred[0], ref[0])
    with pytest.raises(GeometryError, match="one shape"):
        scores.update(pred, ref, ref[:, :, 1:])
    with pytest.raises(InputError, match="1 names for 2 images"):
        scores.update(pred, ref, case="a")
    with pytest.raises(InputError, match="mask is empty"):
        scores.update(pred, ref, 0 * ref)
    assert scores.rows == []
    with pytest.raises(InputError, match="unknown"):
        PairedScores("ssim")
    with pytest.raises(InputError, match="can be merged"):
        scores.merge(PairedScores("synthrad2025"))


def test_loops_of_monai_and_ignite_find_what_they_call() -> None:
    pred, ref = batch(3)
    values = [mae(p, r) for p, r in zip(pred[:, 0], ref[:, 0], strict=True)]
    metric = LoopMetric("mae")
    assert metric(torch.from_numpy(pred[:2]), torch.from_numpy(ref[:2])).ravel().tolist() == values[:2]
    assert metric([torch.from_numpy(pred[2])], [torch.from_numpy(ref[2])]).shape == (1, 1)
    assert metric.aggregate().item() == pytest.approx(np.mean(values))
    metric.reset()
    metric.update((pred[:1], ref[:1]))
    assert metric.compute() == values[0]
    with pytest.raises(InputError, match="no metric 'dice'"):
        LoopMetric("dice")
    with pytest.raises(GeometryError, match="one length"):
        metric([pred[0]], [])


@pytest.mark.parametrize("module", [pairs, windows, errors, image, information, ssim, presets, streams])
def test_examples_are_right(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_volumes_are_told_where_they_are_compared():
    volume = Volume(np.zeros((4, 4, 4)), Grid.regular((4, 4, 4)))
    with pytest.raises(InputError, match=r"medgan\.score"):
        mae(volume, volume)
