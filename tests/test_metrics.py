"""The paired metrics against published numbers, scikit-image, and slow versions written from the definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter
from scipy.signal import fftconvolve
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from medgan.errors import GeometryError, InputError
from medgan.metrics import PRESETS, mae, ms_ssim_2025, pairs, psnr, ssim_2023, windows
from medgan.metrics.measures import measure

SHAPE = (64, 56, 48)


def analytic(shape=SHAPE, phase=0.0):
    """A head-like pair in HU with values beyond both ranges, from a formula: prediction, reference, mask."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    r = np.sqrt((x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.95) ** 2)
    gt = np.where(r > 1, -1000.0, 40 + 60 * np.sin(9 * x + phase) * np.cos(7 * y) + 25 * np.sin(13 * z))
    gt = np.where((r > 0.82) & (r <= 1), 900 + 400 * np.sin(11 * (x + y) + phase), gt)
    gt = np.where((x - 0.25) ** 2 + (y + 0.1) ** 2 + z**2 < 0.04, 3400, gt)
    gt = np.where((x + 0.3) ** 2 + (y - 0.2) ** 2 + (z - 0.1) ** 2 < 0.03, -1100, gt)
    pred = gt + 35 * np.sin(17 * x - 5 * z + phase) + 20 * np.cos(23 * y * z) - 0.06 * np.maximum(gt, 0)
    return pred, gt, r <= 1.05


def noisy(shape, seed=0, spread=900.0):
    rng = np.random.default_rng(seed)
    ref = rng.normal(200, spread, shape)
    return ref + rng.normal(0, spread / 4, shape), ref, rng.random(shape) < 0.4


def skimage_ssim(pred, ref, mask, low=-1024.0, high=3000.0):
    """SynthRAD2023 in whole-volume arrays, on scikit-image's map."""
    pred, ref = (np.where(mask, np.clip(a.astype(np.float64), low, high), low) - low for a in (pred, ref))
    _, ssim_map = structural_similarity(ref, pred, win_size=7, gaussian_weights=False, data_range=high - low, full=True)
    core = (slice(3, -3),) * 3
    kept = ssim_map[core][mask[core]]
    return kept.mean() if kept.size else np.nan


def looped_ssim(pred, ref, mask, low=-1024.0, high=3000.0):
    """The definition, one window after the other."""
    pred, ref = (np.where(mask, np.clip(a, low, high), low) - low for a in (pred, ref))
    c1, c2 = (0.01 * (high - low)) ** 2, (0.03 * (high - low)) ** 2
    values = []
    for centre in itertools.product(*(range(3, n - 3) for n in ref.shape)):
        if mask[centre]:
            x, y = (a[tuple(slice(c - 3, c + 4) for c in centre)].ravel() for a in (ref, pred))
            (vx, vxy), (_, vy) = np.cov(x, y)
            ux, uy = x.mean(), y.mean()
            values.append((2 * ux * uy + c1) * (2 * vxy + c2) / ((ux**2 + uy**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


def whole_ms_ssim(pred, ref, mask, low=-1024.0, high=3071.0):
    """SynthRAD2025 in whole-volume arrays: SciPy's filters, the powers factor by factor."""
    pred, ref = (np.where(mask, np.clip(a.astype(np.float64), low, high), low) - low for a in (pred, ref))
    widths = [(max(97 - n, 0) // 2, max(97 - n, 0) - max(97 - n, 0) // 2) for n in ref.shape]
    x, y, mask = (np.pad(a, widths, mode="edge") for a in (ref, pred, mask))
    c1, c2 = (0.01 * (high - low)) ** 2, (0.03 * (high - low)) ** 2
    core, result = (slice(3, -3),) * 3, 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363, 0.1333):
        ux, uy = uniform_filter(x, 7), uniform_filter(y, 7)
        vx, vy, vxy = (
            343 / 342 * (uniform_filter(a * b, 7) - m)
            for a, b, m in ((x, x, ux * ux), (y, y, uy * uy), (x, y, ux * uy))
        )
        sx, sy = np.sqrt(np.maximum(vx, 0)), np.sqrt(np.maximum(vy, 0))
        luminance = np.maximum((2 * ux * uy + c1) / (ux**2 + uy**2 + c1), 0) ** weight
        contrast = np.maximum((2 * sx * sy + c2) / (vx + vy + c2), 0) ** weight
        structure = np.maximum((vxy + c2 / 2) / (sx * sy + c2 / 2), 0) ** weight
        kept = (luminance * contrast * structure)[core][mask[core]]
        result *= np.clip(kept.mean(), 0, 1) if kept.size else np.nan
        x, y = (fftconvolve(a, np.ones((2, 2, 2)) / 8, mode="same")[::2, ::2, ::2] for a in (x, y))
        mask = mask[::2, ::2, ::2]
    return result


@pytest.mark.parametrize(
    ("preset", "metric", "value"),
    [
        ("synthrad2023", "mae", 37.1035999258),
        ("synthrad2023", "psnr", 39.2054528397),
        ("synthrad2023", "ssim", 0.9923559740),
        ("synthrad2025", "mae", 37.1035999258),
        ("synthrad2025", "psnr", 39.3573715206),
        ("synthrad2025", "ms_ssim", 0.9986779797),
    ],
)
def test_the_published_check_values(preset, metric, value):
    pred, ref, mask = analytic()
    assert mask.sum() == 67_496
    assert PRESETS[preset].score(pred, ref, mask)[metric] == pytest.approx(value, abs=1e-10, rel=0)


@pytest.mark.parametrize("shape", [(41, 30, 52), (7, 9, 40), (64, 20, 33)])
@pytest.mark.parametrize("masked", [True, False])
def test_ssim_is_that_of_scikit_image(shape, masked):
    pred, ref, mask = noisy(shape)
    used = mask if masked else np.ones(shape, dtype=bool)
    ours = ssim_2023(pred, ref, mask if masked else None)
    assert ours == pytest.approx(skimage_ssim(pred, ref, used), abs=1e-12)


def test_ssim_is_the_definition_window_by_window():
    pred, ref, mask = noisy((11, 10, 12))
    assert ssim_2023(pred, ref, mask) == pytest.approx(looped_ssim(pred, ref, mask), abs=1e-12)


@pytest.mark.parametrize("shape", [SHAPE, (100, 98, 97), (130, 20, 101), (8, 96, 110)])
@pytest.mark.parametrize("phase", [0.0, 1.3])
def test_ms_ssim_is_the_definition_with_and_without_padding(shape, phase):
    pred, ref, mask = analytic(shape, phase)
    expected = whole_ms_ssim(pred, ref, mask)
    assert 0.9 < expected < 1
    assert ms_ssim_2025(pred, ref, mask) == pytest.approx(expected, abs=1e-11)


def test_ms_ssim_of_noise_and_of_a_mask_in_a_corner():
    pred, ref, _ = noisy((70, 99, 104))
    mask = np.zeros(ref.shape, dtype=bool)
    mask[30:, 45:, 5:80] = True
    expected = whole_ms_ssim(pred, ref, mask)
    assert 0.3 < expected < 0.995
    assert ms_ssim_2025(pred, ref, mask) == pytest.approx(expected, abs=1e-11)


def test_ms_ssim_keeps_no_negative_factor():
    pred, ref, mask = noisy((97, 97, 97))
    assert ms_ssim_2025(-pred, ref, mask) == pytest.approx(whole_ms_ssim(-pred, ref, mask), abs=1e-11)


def test_psnr_is_that_of_scikit_image():
    pred, ref, mask = noisy((9, 8, 7), spread=2000)
    x, y = (np.clip(a, -1024, 3000)[mask] for a in (ref, pred))
    assert psnr(pred, ref, mask) == pytest.approx(peak_signal_noise_ratio(x, y, data_range=4024), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(7, 22)] * 3),
    seed=st.integers(0, 10**6),
    order=st.permutations((0, 1, 2)),
    flips=st.sets(st.integers(0, 2)),
    slab=st.sampled_from([1, 2000, 10**9]),
)
def test_neither_memory_order_nor_direction_nor_slabs_change_a_number(shape, seed, order, flips, slab):
    arrays = noisy(shape, seed)
    moved = [np.flip(a.transpose(order), tuple(flips)) for a in arrays]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_SLAB_VOXELS", slab)
        patch.setattr(windows, "_FEWEST_ROWS", 1)
        patch.setattr(windows, "_TILE_VOXELS", slab)
        seen = [metric(*moved) for metric in (mae, psnr, ssim_2023)]
    expected = [metric(*arrays) for metric in (mae, psnr)] + [skimage_ssim(*arrays)]
    assert seen == pytest.approx(expected, abs=1e-10, nan_ok=True)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8, np.float32])
def test_stored_types_do_not_wrap_round(dtype):
    rng = np.random.default_rng(0)
    pred, ref = (rng.integers(0, 255, (9, 10, 11)).astype(dtype) for _ in range(2))
    wide = pred.astype(float), ref.astype(float)
    for metric in (mae, psnr, ssim_2023):
        assert metric(pred, ref) == metric(*wide)


def test_what_lies_outside_the_mask_does_not_count():
    pred, ref, mask = noisy((20, 21, 22))
    other = np.where(mask, pred, 1e4)
    for preset in PRESETS.values():
        seen, expected = (preset.score(one, ref, mask, spacing_mm=(1, 1, 1)) for one in (other, pred))
        beyond = {name for name in seen if "wang" in name or ("wang" in preset.name and "ssim" in name)}
        kept = {name: value for name, value in seen.items() if name not in beyond}
        assert len(kept) >= 2
        assert kept == pytest.approx({name: expected[name] for name in kept}, rel=0, abs=0, nan_ok=True)


def test_any_nonzero_mask_value_counts():
    pred, ref, mask = noisy((9, 9, 9))
    assert mae(pred, ref, mask * 7) == mae(pred, ref, mask) == mae(pred, ref, mask * -0.5)


def test_identical_images():
    _, ref, mask = noisy((20, 21, 22))
    assert mae(ref, ref, mask) == 0
    assert psnr(ref, ref, mask) == float("inf")
    assert ssim_2023(ref, ref, mask) == pytest.approx(1, abs=1e-12)
    assert ms_ssim_2025(ref, ref) == pytest.approx(1, abs=1e-12)


def test_psnr_clips_and_mae_does_not():
    ref = np.full((2, 2, 2), 3000.0)
    assert mae(ref + 500, ref) == 500
    assert psnr(ref + 500, ref) == float("inf")


def test_a_mask_only_at_the_border_has_no_ssim():
    pred, ref, _ = noisy((12, 12, 12))
    mask = np.zeros(ref.shape, dtype=bool)
    mask[:3] = True
    assert np.isnan(ssim_2023(pred, ref, mask))
    assert np.isnan(ssim_2023(pred[:6], ref[:6]))


def test_a_mask_lost_on_a_coarse_scale_gives_nan_as_in_the_original():
    pred, ref, _ = noisy((97, 97, 97))
    mask = np.zeros(ref.shape, dtype=bool)
    mask[51, 51, 51] = True
    assert np.isnan(whole_ms_ssim(pred, ref, mask))
    assert np.isnan(ms_ssim_2025(pred, ref, mask))


def test_a_prediction_that_is_not_finite_scores_nan():
    pred, ref, mask = noisy((20, 21, 22))
    pred[tuple(np.argwhere(mask)[len(np.argwhere(mask)) // 2])] = np.nan
    assert all(np.isnan(value) for preset in PRESETS.values() for value in preset.score(pred, ref, mask).values())


@pytest.mark.parametrize("metric", [mae, psnr, ssim_2023, ms_ssim_2025])
def test_arrays_that_do_not_fit_are_refused(metric):
    cube = np.zeros((8, 8, 8))
    with pytest.raises(GeometryError, match=r"\(8, 8, 8\), \(8, 8, 7\)"):
        metric(cube, cube[..., 1:])
    with pytest.raises(GeometryError):
        metric(cube, cube, cube[1:])
    with pytest.raises(GeometryError):
        metric(cube[0], cube[0])
    with pytest.raises(InputError, match="mask is empty"):
        metric(cube, cube, cube)


@pytest.mark.parametrize("value_range", [(1, 1), (5, 2), (0, float("nan")), (0, float("inf"))])
@pytest.mark.parametrize("metric", [psnr, ssim_2023, ms_ssim_2025])
def test_a_range_that_is_none_is_refused(metric, value_range):
    with pytest.raises(InputError, match="two finite numbers"):
        metric(np.zeros((8, 8, 8)), np.zeros((8, 8, 8)), None, value_range)


def test_presets_say_their_range_and_every_metric_its_direction():
    assert PRESETS["synthrad2023"].value_range == (-1024, 3000)
    assert PRESETS["synthrad2025"].value_range == (-1024, 3071)
    assert all(measure(name).better for preset in PRESETS.values() for name in preset.metrics)


def test_better_images_score_better_by_the_stated_direction():
    _, ref, mask = analytic()
    noise = np.random.default_rng(0).normal(0, 1, ref.shape)
    for preset in PRESETS.values():
        near, far = (preset.score(ref + level * noise, ref, mask, spacing_mm=(1, 1, 2)) for level in (20, 200))
        known = [name for name, value in near.items() if np.isfinite(value)]
        assert len(known) >= 3
        assert all(measure(name).badness(near[name]) < measure(name).badness(far[name]) for name in known)
