"""Gamma against closed forms, pymedphys, a search by SciPy in every cell, and samples taken one after the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize

from medgan.errors import GeometryError, InputError
from medgan.metrics.gamma import PRECISION, gamma, gamma_pass_rate, gamma_scores
from medgan.metrics.multilinear import Surface


def plan(shape, spacing_mm, seed=0):
    """Two beams that cross, Gy, and the same a little displaced, scaled and noisy."""
    rng = np.random.default_rng(seed)
    doses = []
    for shift_mm in (0.0, 1.2):
        axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
        first, second, *rest = np.meshgrid(*axes, indexing="ij")
        edge = [n * s / 4 for n, s in zip(shape, spacing_mm, strict=True)]
        dose = 40 / (1 + np.exp((abs(first - shift_mm) - edge[0]) / 3)) + 20 / (1 + np.exp((abs(second) - edge[1]) / 4))
        for third in rest:
            dose /= 1 + np.exp((abs(third) - edge[2]) / 3)
        doses.append(dose)
    return np.maximum(doses[1] * 1.015 + gaussian_filter(rng.normal(0, 1.5, shape), 1), 0), doses[0]


def steepest(dose, spacing_mm):
    """No slope of the interpolated dose is greater."""
    slopes = [abs(np.diff(dose, axis=axis)).max() / s for axis, s in enumerate(spacing_mm)]
    return float(np.linalg.norm(slopes))


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0.0, 1.0, 3.0, 5.0])
@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 7), (1, 6, 5), (1, 1, 4), (1, 1, 1)])
def test_a_uniform_offset_is_its_share_of_the_tolerance(percent, shape):
    ref = np.full(shape, 60.0)
    found = gamma(ref * (1 + percent / 100), ref, spacing_mm=(2,) * len(shape))
    assert found == pytest.approx(percent / 3, abs=1e-12)


@pytest.mark.parametrize("shift_mm", [0.3, -1.0, 2.5])
@pytest.mark.parametrize("slopes", [(0.8, 0, 0), (0.5, -0.7, 0.2), (-0.1, 0.02, 0.9)])
def test_a_displaced_ramp_is_as_far_as_the_plane_is(shift_mm, slopes):
    """c / √(1 + |G|²), where c is the difference in ΔD at one place and G the slope in ΔD per Δd."""
    spacing, shape = (1.5, 2.0, 2.5), (20, 18, 14)
    x, y, z = (n * s for n, s in zip(np.indices(shape), spacing, strict=True))
    ref = 60 + slopes[0] * x + slopes[1] * y + slopes[2] * z
    difference = shift_mm * slopes[0] + 0.4
    found = gamma(ref + difference, ref, spacing_mm=spacing, normalisation=100)
    inner = (slice(3, -3),) * 3
    expected = abs(difference) / 3 / np.sqrt(1 + np.square(slopes).sum())
    assert found[inner] == pytest.approx(np.full(ref[inner].shape, expected), abs=1e-9)


@pytest.mark.parametrize("height", [2.0, 10.0, 50.0])
def test_a_displaced_step_is_as_far_as_its_interpolated_flank(height):
    """Beside the step lies a flank one voxel wide; its nearest point is found by projection."""
    ref = np.where(np.arange(30) >= 10, 50 + height, 50.0)[None].repeat(4, axis=0)
    evaluated = np.roll(ref, 2, axis=1)
    evaluated[:, :2] = 50
    found = gamma(evaluated, ref, spacing_mm=(1, 1), normalisation=100)
    start, way = np.array([1 / 3, -height / 3]), np.array([1 / 3, height / 3])  # from voxel 10 to where the flank is
    along = np.clip(-start @ way / (way @ way), 0, 1)
    assert found[:, 10] == pytest.approx(min(np.linalg.norm(start + along * way), height / 3, 2), abs=1e-9)
    assert found[:, 20:] == pytest.approx(0, abs=0)


def test_local_takes_each_voxels_own_dose():
    ref = np.array([[10.0, 10.0, 10.0], [100.0, 100.0, 100.0]])
    found = gamma(ref + 0.6, ref, spacing_mm=(1e6, 1e6), local=True, max_gamma=9)
    assert found[0] == pytest.approx(2, rel=1e-3)
    assert found[1] == pytest.approx(0.2, rel=1e-3)


# --- others -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(("shape", "spacing_mm"), [((40, 36), (2.5, 2.0)), ((20, 18, 14), (2.5, 2.0, 3.0))])
@pytest.mark.parametrize("settings_", [(10, 3, 3), (20, 3, 3), (10, 2, 2)])
def test_pymedphys_finds_nothing_lower_and_hardly_more(shape, spacing_mm, local, settings_):
    """Its samples lie on shells mm / fraction apart, and as near within a shell: none is farther from any place than
    √¾ of that, and so none higher than the surface rises over that way."""
    pymedphys = pytest.importorskip("pymedphys")
    fraction, percent, mm = settings_
    evaluated, ref = plan(shape, spacing_mm)
    axes = tuple(np.arange(n) * s for n, s in zip(shape, spacing_mm, strict=True))
    theirs = pymedphys.gamma(
        axes, ref, axes, evaluated, percent, mm, lower_percent_dose_cutoff=20, interp_fraction=fraction, max_gamma=2,
        local_gamma=local, interp_algo="scipy",
    )  # fmt: skip
    ours = gamma(
        evaluated, ref, spacing_mm=spacing_mm, dose_percent=percent, distance_mm=mm, cutoff_percent=20, local=local
    )
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    known = ~np.isnan(ours)
    excess = (theirs - ours)[known]
    assert excess.min() > -PRECISION
    dose = percent / 100 * (ref[known] if local else ref.max())
    step = np.sqrt(0.75) / fraction
    bound = step * np.sqrt(1 + (steepest(evaluated, spacing_mm) * mm / dose) ** 2)
    assert (excess <= bound).all()
    near_one = 100 * np.mean((ours[known] <= 1) & (ours[known] > 1 - bound))
    assert 0 <= gamma_pass_rate(ours) - gamma_pass_rate(theirs) <= near_one


def test_pymedphys_comes_down_to_it_with_more_samples():
    pymedphys = pytest.importorskip("pymedphys")
    spacing_mm = (2.5, 2.0, 3.0)
    evaluated, ref = plan((14, 12, 8), spacing_mm)
    evaluated = np.roll(evaluated, 1, axis=0)  # 2.5 mm
    axes = tuple(np.arange(n) * s for n, s in zip(ref.shape, spacing_mm, strict=True))
    ours = gamma(evaluated, ref, spacing_mm=spacing_mm, dose_percent=2, distance_mm=2)
    excesses, rates = [], []
    for fraction in (5, 10):
        theirs = pymedphys.gamma(
            axes, ref, axes, evaluated, 2, 2, lower_percent_dose_cutoff=10, interp_fraction=fraction, max_gamma=2,
            interp_algo="scipy",
        )  # fmt: skip
        excesses.append(np.nanmean(theirs - ours))
        rates.append(gamma_pass_rate(theirs))
    assert 20 < gamma_pass_rate(ours) < 95
    assert 0 < excesses[1] < 0.6 * excesses[0] < 0.06
    assert rates[0] < rates[1] <= gamma_pass_rate(ours) < rates[1] + 3  # percent of the voxels


def interpolated(values, place):
    """Linear along one axis after the other."""
    for x in place:
        values = values[0] + x * (values[1] - values[0])
    return values


def in_cells(evaluated, value, voxel, spacing, tolerance):
    """The least gamma of one voxel, by SciPy's search in every cell of the grid from several places."""
    best = min(abs(evaluated[voxel] - value) / tolerance, 2.0)
    for cell in itertools.product(*(range(n - 1) for n in evaluated.shape)):
        corners = evaluated[tuple(slice(c, c + 2) for c in cell)]

        def square(place, corners=corners, cell=cell):
            way = (np.asarray(cell) + place - voxel) * spacing
            return float(way @ way + ((interpolated(corners, place) - value) / tolerance) ** 2)

        for start in itertools.product((0.2, 0.8), repeat=len(cell)):
            found = minimize(square, start, bounds=[(0, 1)] * len(cell), method="L-BFGS-B", options={"ftol": 1e-14})
            best = min(best, np.sqrt(found.fun))
    return best


@pytest.mark.parametrize(("shape", "contrast"), [((4, 4), 0.1), ((4, 3), 1.0), ((2, 3, 3), 0.1), ((2, 2, 3), 1.0)])
def test_a_search_in_every_cell_finds_the_same(shape, contrast):
    rng = np.random.default_rng(4)
    spacing = np.array([1.0, 2.0, 1.5])[: len(shape)]
    ref, evaluated = (5 + contrast * rng.random(shape) for _ in range(2))
    found = gamma(evaluated, ref, spacing_mm=spacing, dose_percent=1, distance_mm=3)
    for voxel in np.ndindex(shape):
        expected = in_cells(evaluated, ref[voxel], voxel, spacing / 3, 0.01 * ref.max())
        assert found[voxel] <= expected + PRECISION
        assert found[voxel] >= expected - 1e-3 * contrast  # SciPy's searches may all end in other hollows


def sampled(evaluated, ref, spacing, tolerance, per_voxel):
    """Gamma over places one after the other, a fraction of a voxel apart, of a 2-D dose; the definition."""
    rows, columns = evaluated.shape
    least = np.full(ref.shape, np.inf)
    for i in range((rows - 1) * per_voxel + 1):
        for j in range((columns - 1) * per_voxel + 1):
            x, y = i / per_voxel, j / per_voxel
            a, b = min(int(x), rows - 2), min(int(y), columns - 2)
            u, v = x - a, y - b
            low = (1 - v) * evaluated[a, b] + v * evaluated[a, b + 1]
            high = (1 - v) * evaluated[a + 1, b] + v * evaluated[a + 1, b + 1]
            dose = (1 - u) * low + u * high
            for p, q in np.ndindex(ref.shape):
                way = ((x - p) * spacing[0]) ** 2 + ((y - q) * spacing[1]) ** 2
                least[p, q] = min(least[p, q], np.sqrt(way / 9 + ((dose - ref[p, q]) / tolerance) ** 2))
    return least


@pytest.mark.parametrize("seed", [0, 1])
def test_samples_one_after_the_other_come_down_to_it(seed):
    rng, spacing, per_voxel = np.random.default_rng(seed), (1.5, 2.5), 40
    ref, evaluated = (5 + rng.random((4, 4)) for _ in range(2))
    tolerance = 0.03 * ref.max()
    found = gamma(evaluated, ref, spacing_mm=spacing, max_gamma=10)
    reached = sampled(evaluated, ref, spacing, tolerance, per_voxel)
    assert (found <= reached + PRECISION).all()
    apart = np.linalg.norm(spacing) / 2 / per_voxel  # from any place to the next sample
    assert (reached - found <= apart * np.hypot(1 / 3, steepest(evaluated, spacing) / tolerance)).all()


# --- what has to hold -------------------------------------------------------------------------------------------------


doses = hnp.arrays(np.float64, st.tuples(*[st.integers(2, 4)] * 3), elements=st.floats(0, 1, width=16))


@settings(deadline=None, max_examples=12)
@given(doses, st.randoms(use_true_random=False))
def test_it_is_never_above_the_difference_on_the_spot_and_turns_with_the_grid(evaluated, random):
    rng = np.random.default_rng(random.randrange(2**32))
    ref = 0.5 + rng.random(evaluated.shape)
    found = gamma(evaluated, ref, spacing_mm=(1, 2, 3), cutoff_percent=0)
    assert (found <= np.minimum(abs(evaluated - ref) / (0.03 * ref.max()), 2) + 1e-12).all()
    turned = gamma(
        evaluated.transpose(2, 0, 1)[::-1], ref.transpose(2, 0, 1)[::-1], spacing_mm=(3, 1, 2), cutoff_percent=0
    )
    assert turned == pytest.approx(found.transpose(2, 0, 1)[::-1], abs=2 * PRECISION)
    scaled = gamma(8 * evaluated, 8 * ref, spacing_mm=(2, 4, 6), distance_mm=6, cutoff_percent=0)
    assert scaled == pytest.approx(found, abs=1e-9)


def test_equal_doses_have_none():
    _, ref = plan((12, 10, 8), (2, 2, 2))
    found = gamma(ref, ref, spacing_mm=(2, 2, 2))
    assert np.nanmax(found) == 0
    assert gamma_scores(ref, ref, spacing_mm=(2, 2, 2)) == {"gamma_pass": 100.0, "gamma_mean": 0.0}


def test_greater_criteria_forgive_more():
    evaluated, ref = plan((16, 14, 12), (2, 2, 2))
    strict, loose = (gamma_scores(evaluated, ref, spacing_mm=(2, 2, 2), dose_percent=p, distance_mm=p) for p in (1, 3))
    assert strict["gamma_pass"] < loose["gamma_pass"]
    assert strict["gamma_mean"] > loose["gamma_mean"]


def test_memory_order_and_type_of_the_arrays_do_not_matter():
    evaluated, ref = (np.rint(100 * dose) for dose in plan((12, 10, 8), (2, 2, 3)))
    mask = ref > 2000
    expected = gamma(evaluated, ref, mask, spacing_mm=(2, 2, 3))
    assert expected.shape == ref.shape
    wide = np.zeros((24, 10, 8))
    wide[::2] = ref
    for e, r, m in (
        (evaluated.astype(np.uint16), np.asfortranarray(ref), mask.astype(np.int8)),
        (np.asfortranarray(evaluated), ref.astype(np.int32), np.asfortranarray(mask)),
        (evaluated.astype(np.float32), wide[::2], mask * 7),
    ):
        assert gamma(e, r, m, spacing_mm=(2, 2, 3)) == pytest.approx(expected, abs=PRECISION, nan_ok=True)


def test_one_slice_is_the_plane_it_shows():
    evaluated, ref = plan((20, 16), (2, 2))
    flat = gamma(evaluated, ref, spacing_mm=(2, 2))
    assert gamma(evaluated[:, None], ref[:, None], spacing_mm=(2, 5, 2))[:, 0] == pytest.approx(
        flat, nan_ok=True, abs=0
    )


def test_what_is_left_out_is_nan():
    _, ref = plan((12, 10, 8), (2, 2, 2))
    mask = np.zeros(ref.shape)
    mask[3:9] = 1
    found = gamma(ref * 1.02, ref, mask, spacing_mm=(2, 2, 2), cutoff_percent=50)
    assert np.array_equal(~np.isnan(found), (mask > 0) & (ref >= 0.5 * ref.max()))
    faint = ref < 0.1 * ref.max()
    assert np.isnan(gamma(ref, ref, faint, spacing_mm=(2, 2, 2))).all()
    scores = gamma_scores(ref, ref, faint, spacing_mm=(2, 2, 2))
    assert np.isnan(list(scores.values())).all()
    assert np.isnan(gamma_pass_rate(np.array([np.nan])))


def test_local_leaves_out_voxels_without_dose():
    ref = np.array([[0.0, 1e-300, 50.0]])
    assert np.isnan(gamma(ref, ref, spacing_mm=(1, 1), cutoff_percent=0, local=True)).tolist() == [[True, True, False]]


def test_values_above_the_greatest_are_cut():
    ref = np.full((4, 4, 4), 10.0)
    assert (gamma(ref * 3, ref, spacing_mm=(1, 1, 1)) == 2.0).all()
    assert (gamma(ref * 3, ref, spacing_mm=(1, 1, 1), max_gamma=5) == 5.0).all()


def test_a_gamma_of_one_passes():
    ref = np.full((4, 4, 4), 0.7)
    assert gamma_scores(ref * 1.03, ref, spacing_mm=(1, 1, 1))["gamma_pass"] == 100


def test_the_normalisation_sets_tolerance_and_cutoff():
    ref = np.array([[10.0, 60.0, 100.0]]).repeat(3, axis=0)
    found = gamma(ref + 1, ref, spacing_mm=(1e6, 1e6), normalisation=200, cutoff_percent=25)
    assert np.isnan(found[0]).tolist() == [True, False, False]
    assert found[:, 2] == pytest.approx(1 / 6)


def test_noise_without_shape_ends():
    """Far more hollows than any dose has."""
    rng = np.random.default_rng(0)
    evaluated, ref = rng.random((2, 9, 9, 9))
    found = Surface(evaluated, (0.8, 0.8, 0.8), 2.0).distances(
        np.unravel_index(np.arange(ref.size), ref.shape), ref.ravel(), np.full(ref.size, 0.003)
    )
    assert np.isfinite(found).all()
    assert found.mean() < 2


REF = np.full((3, 4, 5), 2.0)


@pytest.mark.parametrize(
    ("evaluated", "ref", "error", "said"),
    [
        (REF[:2], REF, GeometryError, "one shape"),
        (REF[0, 0], REF[0, 0], GeometryError, "2-D or 3-D"),
        (REF[:0], REF[:0], GeometryError, "2-D or 3-D"),
        (-REF, REF, InputError, "evaluated dose is negative"),
        (REF, REF - 3, InputError, "reference dose is negative"),
        (REF, REF * 0, InputError, "0 everywhere"),
        (REF * np.nan, REF, InputError, "NaN or infinite"),
        (REF, REF * np.inf, InputError, "NaN or infinite"),
    ],
)
def test_what_is_no_dose_is_refused(evaluated, ref, error, said):
    with pytest.raises(error, match=said):
        gamma(evaluated, ref, spacing_mm=(1,) * ref.ndim)


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"dose_percent": 0}, "dose_percent"),
        ({"distance_mm": -1}, "distance_mm"),
        ({"distance_mm": np.nan}, "distance_mm"),
        ({"max_gamma": np.inf}, "max_gamma"),
        ({"cutoff_percent": 101}, "cutoff_percent"),
        ({"normalisation": 0}, "normalisation"),
        ({"spacing_mm": (1, 1)}, "spacing_mm"),
        ({"spacing_mm": (1, 1, 0)}, "spacing_mm"),
        ({"mask": REF * 0}, "mask is empty"),
    ],
)
def test_settings_that_are_none_are_refused(settings_, said):
    with pytest.raises(InputError, match=said):
        gamma(REF, REF, **{"spacing_mm": (1, 1, 1), **settings_})
