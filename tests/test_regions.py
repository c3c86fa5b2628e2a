"""Scores by HU region against literal NumPy, scikit-image, SimpleITK and MONAI, and on shapes with known answers."""

from __future__ import annotations

import doctest
import math
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy.ndimage import binary_fill_holes, gaussian_filter
from skimage.measure import label

from medgan.errors import GeometryError, InputError
from medgan.metrics import regions as regions_module
from medgan.metrics.measures import measure
from medgan.metrics.regions import HU_REGIONS, Region, body, parse_region, region_scores
from medgan.metrics.surfaces import diagonal_mm

SPACING = (0.9, 1.2, 3.0)
LIMITS = {"air": (-math.inf, -950), "lung": (-950, -200), "soft_tissue": (-200, 200), "bone": (200, math.inf)}


def chest(seed=0, shape=(40, 36, 20)):
    """A body in air with two lungs, an airway to the outside, ribs, noise and a couch."""
    x, y, z = (
        np.linspace(-1, 1, n).reshape([-1 if k == axis else 1 for k in range(3)]) for axis, n in enumerate(shape)
    )
    image = np.full(shape, -1000.0)
    image[np.broadcast_to((x / 0.8) ** 2 + (y / 0.7) ** 2 < 1, shape)] = 40
    image[((abs(x) - 0.35) / 0.25) ** 2 + (y / 0.4) ** 2 + (z / 1.2) ** 2 < 1] = -800
    image[(x**2 + y**2 < 0.01) & (z > -0.2)] = -990
    image[np.broadcast_to(abs((x / 0.8) ** 2 + (y / 0.7) ** 2 - 0.85) < 0.08, shape) & (abs(z * 10) % 2 < 1)] = 700
    image[:, -2:] = 100
    return image + gaussian_filter(np.random.default_rng(seed).normal(0, 60, shape), 0.7)


def literal(pred, ref, mask, low, high):
    """The definitions, in whole arrays."""
    in_ref = (ref >= low) & (ref < high) & mask
    in_pred = (pred >= low) & (pred < high) & mask
    error = (pred - ref)[in_ref]
    return {
        "mae": np.abs(error).mean(),
        "bias": error.mean(),
        "volume_error": (in_pred.sum() - in_ref.sum()) * np.prod(SPACING) / 1000,
        "dice": 2 * (in_ref & in_pred).sum() / (in_ref.sum() + in_pred.sum()),
    }


def pair(seed=0):
    ref = chest(seed)
    pred = np.roll(chest(seed + 50), 1, axis=0) * 0.97 + 5
    x, y, _ = np.indices(ref.shape)
    return pred, ref, (x - 20) ** 2 + (y - 18) ** 2 < 17.5**2


def test_numbers_by_region_are_the_definition():
    pred, ref, mask = pair()
    found = region_scores(pred, ref, mask, spacing_mm=SPACING)
    for name, limits in LIMITS.items():
        for score, value in literal(pred, ref, mask, *limits).items():
            assert found[f"{score}_{name}"] == pytest.approx(value, rel=1e-12), (score, name)


def test_the_default_regions_take_each_voxel_once():
    assert {region.name: (region.low, region.high) for region in HU_REGIONS} == LIMITS
    values = np.array([-3000, -950.1, -950, -200.1, -200, 199.9, 200, 3071, 40000])
    assert [int(sum(region.holds(value) for region in HU_REGIONS)) for value in values] == [1] * 9
    pred, ref, _ = pair()
    found = region_scores(pred, ref, spacing_mm=SPACING)
    assert sum(found[f"volume_error_{name}"] for name in LIMITS) == pytest.approx(0, abs=1e-9)


def test_bone_dice_is_that_of_simple_itk():
    pred, ref, mask = pair(1)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray(((image >= 200) & mask).astype(np.uint8)) for image in (ref, pred)))
    found = region_scores(pred, ref, mask, spacing_mm=SPACING)
    assert found["dice_bone"] == pytest.approx(overlap.GetDiceCoefficient(1), abs=1e-12)


def test_surface_distances_are_those_of_monai_where_no_end_of_the_volume_is_met():
    pred, ref, mask = pair(2)
    for image in (pred, ref):
        image[:, :, [0, -1]] = -1000
    found = region_scores(pred, ref, mask, spacing_mm=SPACING)
    for name, shapes in {
        "bone": [(image >= 200) & mask for image in (pred, ref)],
        "body": [body(image, mask) for image in (pred, ref)],
    }.items():
        batch = [torch.from_numpy(shape)[None, None] for shape in shapes]
        mean = compute_average_surface_distance(*batch, include_background=True, symmetric=True, spacing=list(SPACING))
        assert found[f"surface_distance_{name}"] == pytest.approx(mean.item(), rel=1e-6), name
        if name == "bone":
            high = compute_hausdorff_distance(*batch, include_background=True, percentile=95, spacing=list(SPACING))
            assert found["hd95_bone"] == pytest.approx(high.item(), abs=2e-5)


def test_a_body_that_is_moved_is_as_far_away_as_it_was_moved():
    ref = np.full((30, 20, 16), -1000.0)
    ref[:12], pred = 0.0, np.full((30, 20, 16), -1000.0)
    pred[:15] = 0.0  # planes that go on beyond the ends of the volume
    assert region_scores(pred, ref, spacing_mm=SPACING)["surface_distance_body"] == pytest.approx(3 * 0.9)


def test_the_cut_through_a_body_does_not_dilute_its_distance():
    x, y, _ = np.indices((40, 40, 6)) - 19.5
    ref = np.where(x**2 + y**2 < 15**2, 0.0, -1000.0)
    pred = np.where(x**2 + y**2 < 17**2, 0.0, -1000.0)
    found = region_scores(pred, ref, spacing_mm=(1, 1, 1))["surface_distance_body"]
    assert found == pytest.approx(2, abs=0.25)


def test_the_body_is_the_largest_part_filled_slice_by_slice():
    image = chest(3)
    parts = label(image > -500, connectivity=1)
    largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    expected = np.stack([binary_fill_holes(plane) for plane in np.moveaxis(largest, 2, 0)], axis=2)
    found = body(image)
    assert np.array_equal(found, expected)
    assert found[20, 18, 18]  # the airway, which is open to the outside in 3-D
    assert not np.array_equal(found, binary_fill_holes(largest))
    assert not found[:, -2:].any()  # the couch


def test_the_body_stays_in_the_mask_and_may_be_missing():
    image, mask = chest(4), np.zeros((40, 36, 20), dtype=bool)
    mask[12:30, 10:30] = True
    assert not body(image, mask)[~mask].any()
    assert body(image, mask).any()
    assert not body(np.full((5, 5, 5), -1000)).any()


def test_of_parts_of_one_size_the_body_is_one():
    image = np.full((9, 5, 5), -1000)
    image[1:3], image[5:7] = 0, 0
    assert body(image).sum() == 50


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(1, 6)] * 3))
def test_an_image_agrees_with_itself(seed, shape):
    ref = np.random.default_rng(seed).normal(-100, 500, shape)
    found = region_scores(ref, ref, spacing_mm=SPACING)
    for name, value in found.items():
        assert measure(name)
        assert math.isnan(value) or value == (1 if name.startswith("dice") else 0), name


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(1, 6)] * 3))
def test_numbers_lie_in_their_ranges_and_both_ways_agree(seed, shape):
    rng = np.random.default_rng(seed)
    pred, ref = rng.normal(-100, 600, (2, *shape))
    found, swapped = (region_scores(*images, spacing_mm=SPACING) for images in ((pred, ref), (ref, pred)))
    for name, value in found.items():
        top = 1 if name.startswith("dice") else diagonal_mm(shape, SPACING)
        if name.startswith(("dice", "surface", "hd95")):
            assert math.isnan(value) or 0 <= value <= top
            assert swapped[name] == pytest.approx(value, abs=1e-12, nan_ok=True)
        if name.startswith("volume"):
            assert swapped[name] == pytest.approx(-value, abs=1e-12, nan_ok=True)
        if name.startswith("bias") and not math.isnan(value):
            assert abs(value) <= found[name.replace("bias", "mae")] + 1e-9


def test_a_region_that_neither_has_is_undefined():
    found = region_scores(np.full((4, 4, 4), 10), np.full((4, 4, 4), 20), spacing_mm=SPACING)
    assert all(math.isnan(found[f"{score}_bone"]) for score in ("mae", "bias", "volume_error", "dice", "hd95"))
    assert math.isnan(found["surface_distance_bone"])
    assert found["mae_soft_tissue"] == 10


def test_a_region_that_one_of_them_lacks_costs_the_most():
    ref = chest(5)
    without = np.where(ref > 200, 40, ref)
    worst = pytest.approx(diagonal_mm(ref.shape, SPACING))
    lost, invented = region_scores(without, ref, spacing_mm=SPACING), region_scores(ref, without, spacing_mm=SPACING)
    for found in (lost, invented):
        assert found["dice_bone"] == 0
        assert found["surface_distance_bone"] == found["hd95_bone"] == worst
    assert lost["volume_error_bone"] < 0 < invented["volume_error_bone"]
    assert lost["mae_bone"] > 100
    assert math.isnan(invented["mae_bone"])


def test_a_body_that_has_no_surface_is_not_taken_for_a_good_one():
    ref = chest(6)
    everywhere, nowhere = np.zeros_like(ref), np.full_like(ref, -1000)
    for pred in (everywhere, nowhere):
        worst = region_scores(pred, ref, spacing_mm=SPACING)["surface_distance_body"]
        assert worst == pytest.approx(diagonal_mm(ref.shape, SPACING))
    assert region_scores(nowhere, everywhere, spacing_mm=SPACING)["surface_distance_body"] == worst
    assert math.isnan(region_scores(everywhere, everywhere, spacing_mm=SPACING)["surface_distance_body"])


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_a_voxel_that_is_not_finite_leaves_no_number(odd, which):
    pred, ref, mask = pair(7)
    (pred, ref)[which][20, 18, 3] = odd
    assert all(math.isnan(value) for value in region_scores(pred, ref, mask, spacing_mm=SPACING).values())
    mask[20, 18, 3] = False
    assert not any(math.isnan(value) for value in region_scores(pred, ref, mask, spacing_mm=SPACING).values())


def test_layout_dtype_and_slabs_do_not_matter(monkeypatch):
    pred, ref, mask = (np.rint(one) if one.dtype != bool else one for one in pair(8))
    expected = region_scores(pred, ref, mask, spacing_mm=SPACING)
    monkeypatch.setattr(regions_module, "_SLAB_VOXELS", 1500)
    apart = np.zeros((80, 36, 20))
    apart[::2] = ref
    for p, r, m in (
        (pred.astype(np.int16), ref.astype(np.float32), mask.astype(np.uint8) * 5),
        (np.asfortranarray(pred), np.asfortranarray(ref), mask),
        (pred, apart[::2], mask.astype(float)),
    ):
        assert region_scores(p, r, m, spacing_mm=SPACING) == pytest.approx(expected, rel=1e-12)


def test_memory_stays_below_the_images():
    images = [np.kron(one.astype(np.float32), np.ones((6, 6, 4), dtype=np.float32)) for one in pair(10)[:2]]
    tracemalloc.start()
    region_scores(*images, spacing_mm=SPACING)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * sum(image.nbytes for image in images)


def test_int16_does_not_overflow():
    pred, ref = np.full((3, 3, 3), 32767, dtype=np.int16), np.full((3, 3, 3), -32768, dtype=np.int16)
    assert region_scores(pred, ref, spacing_mm=SPACING)["mae_air"] == 65535


def test_regions_can_be_chosen():
    pred, ref, mask = pair(9)
    chosen = [parse_region("gas=..-200"), parse_region("dense=150..")]
    found = region_scores(pred, ref, mask, spacing_mm=SPACING, regions=chosen)
    assert found["dice_gas"] == literal(pred, ref, mask, -math.inf, -200)["dice"]
    assert found["mae_dense"] == pytest.approx(literal(pred, ref, mask, 150, math.inf)["mae"], rel=1e-12)
    assert "hd95_bone" not in found
    assert "surface_distance_body" in found


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("bone=200..3071", Region("bone", 200, 3071)),
        (" lung=-950..-200.5 ", Region("lung", -950, -200.5)),
        ("lung=−950..−200", Region("lung", -950, -200)),
        ("air=..-950", Region("air", -math.inf, -950)),
        ("metal=+3071..", Region("metal", 3071, math.inf)),
        ("all=..", Region("all", -math.inf, math.inf)),
    ],
)
def test_regions_are_read(text, region):
    assert parse_region(text) == region


@pytest.mark.parametrize(
    "text",
    ["", "bone", "bone=200", "bone=200-300", "=1..2", "a b=1..2", "bone=x..2", "bone=1...2", "bone=1..2..3", "ß=1..2"],
)
def test_texts_that_are_no_regions_are_refused(text):
    with pytest.raises(InputError, match=r"NAME=LOW\.\.HIGH"):
        parse_region(text)


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (math.nan, 1), (1, math.nan)])
def test_limits_that_hold_nothing_are_refused(limits):
    with pytest.raises(InputError, match="low limit is below"):
        Region("bone", *limits)


def test_names_that_cannot_be_columns_are_refused():
    with pytest.raises(InputError, match="letters, digits and _"):
        Region("soft tissue", 0, 1)


def test_bad_input_is_refused():
    image = np.zeros((4, 4, 4))
    with pytest.raises(GeometryError, match="of one shape"):
        region_scores(image[1:], image, spacing_mm=SPACING)
    with pytest.raises(GeometryError, match="3-D"):
        region_scores(image[0], image[0], spacing_mm=SPACING)
    with pytest.raises(InputError, match="mask is empty"):
        region_scores(image, image, image, spacing_mm=SPACING)
    with pytest.raises(InputError, match="spacing"):
        region_scores(image, image, spacing_mm=(1, 1))
    for regions in ([], [Region("a", 0, 1), Region("a", 1, 2)]):
        with pytest.raises(InputError, match="names of their own"):
            region_scores(image, image, spacing_mm=SPACING, regions=regions)


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(regions_module).failed == 0
