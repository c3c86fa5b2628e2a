"""The way of a voxel between a volume and the network, and back."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medgan import Grid, Volume
from medgan.errors import ConfigError, GeometryError, InputError
from medgan.prep import (
    Intensity,
    Prep,
    check,
    clipped_share,
    foreground,
    from_network,
    in_contract_unit,
    network_grid,
    to_network,
)
from medgan.resample import blurred, resample

HU = Intensity(modality="CT", unit="HU", range=(-1000, 1000))
MR = Intensity(modality="MR", times_median=(0, 2))
ORIENTATIONS = ["".join(letters) for axes in permutations(("RL", "AP", "SI")) for letters in product(*axes)]


def oblique(shape: tuple[int, int, int], turn: Rotation, origin: tuple[float, float, float]) -> Grid:
    return Grid.regular(shape, spacing_mm=(0.8, 1.1, 3), origin_mm=origin, direction=turn.as_matrix())


turns = st.tuples(*(st.floats(-180, 180),) * 3).map(lambda a: Rotation.from_euler("xyz", a, degrees=True))
origins = st.tuples(*(st.floats(-300, 300),) * 3)


@settings(max_examples=60, deadline=None)
@given(turns, origins, st.integers(0, 10_000))
def test_way_there_and_back_is_the_identity_on_any_grid(turn: Rotation, origin: tuple[float, ...], seed: int) -> None:
    grid = oblique((4, 5, 3), turn, origin)  # type: ignore[arg-type]
    array = np.random.default_rng(seed).integers(-1000, 1001, grid.shape).astype(np.int16)
    volume = Volume(array, grid, "HU", "CT", header="kept")
    back = from_network(to_network(volume, HU), volume, HU)
    assert back.grid is grid
    assert back.header == "kept"
    assert (back.unit, back.modality) == ("HU", "CT")
    np.testing.assert_allclose(back.array, array, atol=1e-3)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_network_axes_are_ras_whatever_the_array_order(orientation: str) -> None:
    ras = Volume(np.full((5, 6, 7), -1000, dtype=np.int16), Grid.regular((5, 6, 7)), "HU", "CT")
    ras.array[4, 3, 1] = 1000
    x = to_network(ras.reorient(orientation), HU)
    assert x.shape == (1, 5, 6, 7)
    assert torch.nonzero(x[0] > 0).tolist() == [[4, 3, 1]]


def test_the_window_is_fixed_or_of_each_image() -> None:
    array = np.linspace(0, 100, 5 * 5 * 5).reshape(5, 5, 5)
    quantitative = Volume(array, Grid.regular((5, 5, 5)), "HU", "CT")
    assert to_network(quantitative, HU).max() == pytest.approx(0.1)
    scaled = to_network(quantitative.with_array(array * 7, unit="a.u.", modality="MR"), MR)
    same = to_network(quantitative.with_array(array, unit="a.u.", modality="MR"), MR)
    torch.testing.assert_close(scaled, same)


def test_the_median_is_that_of_the_foreground() -> None:
    array = np.zeros((20, 20, 20))
    array[5:15, 5:15, 5:15] = np.random.default_rng(0).uniform(150, 250, (10, 10, 10))
    volume = Volume(array, Grid.regular((20, 20, 20)), "a.u.", "MR")
    assert foreground(array).sum() == 1000
    normalised = in_contract_unit(volume, MR)
    assert normalised.unit == "normalised"
    median = np.median(array[5:15, 5:15, 5:15])
    np.testing.assert_allclose(normalised.array, array / median * 1000, rtol=1e-5)
    np.testing.assert_allclose(to_network(volume, MR)[0], (array / median - 1).clip(-1, 1), atol=1e-6)
    assert MR.output_range == (0, 2000)
    narrow = Intensity(modality="MR", times_median=(0, 1))
    assert clipped_share(volume, narrow) == pytest.approx(0.5, abs=2e-3)


def test_a_few_very_bright_voxels_do_not_hide_the_tissue() -> None:
    array = np.random.default_rng(0).uniform(0, 10, (20, 20, 20))
    array[5:15, 5:15, 5:15] += 150
    plain = foreground(array)
    array[6:9, 6:9, 6:9] = 30_000
    np.testing.assert_array_equal(foreground(array), plain)


def test_foreground_has_no_holes_and_one_piece() -> None:
    array = np.zeros((16, 16, 16))
    array[4:12, 4:12, 4:12] = 100
    array[7:9, 7:9, 7:9] = 0
    array[0, 0, 0] = 100
    assert foreground(array).sum() == 8**3


@settings(max_examples=25, deadline=None)
@given(turns, origins)
def test_resampling_finds_world_positions(turn: Rotation, origin: tuple[float, ...]) -> None:
    """A linear ramp in world coordinates is reproduced exactly by linear interpolation on any grid."""
    slope = np.array([3.0, -2.0, 5.0])
    outer = Grid.regular((40, 40, 40), spacing_mm=(2, 2, 2), origin_mm=np.subtract(origin, 39))
    indices = np.moveaxis(np.indices(outer.shape), 0, -1)
    ramp = Volume(outer.to_world(indices) @ slope, outer)
    inner = Grid.regular((6, 5, 4), spacing_mm=(1.5, 1.9, 2), origin_mm=origin, direction=turn.as_matrix())
    found = resample(ramp, inner)
    expected = inner.to_world(np.moveaxis(np.indices(inner.shape), 0, -1)) @ slope
    np.testing.assert_allclose(found.array, expected, atol=1e-2)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, 9),) * 3),
    wanted=st.tuples(st.tuples(*(st.sampled_from([0.5, 0.75, 1.0, 1.3, 3.1]),) * 3), st.sampled_from(ORIENTATIONS)),
    placed=st.tuples(turns, st.tuples(*(st.sampled_from([0.0, -0.37, 0.5, 1.0]),) * 3)),
    order=st.sampled_from([0, 1]),
    layout=st.sampled_from("CF"),
)
def test_parallel_axes_are_interpolated_as_any_others(
    shape: tuple[int, int, int], wanted: Any, placed: Any, order: int, layout: Any
) -> None:
    """One axis after another gives what SciPy gives for all at once; ties of nearest neighbours are avoided."""
    array = np.random.default_rng(0).integers(-1000, 3000, shape).astype(np.int16, order=layout)
    turn, shift = placed
    volume = Volume(array, Grid.regular(shape, direction=turn.as_matrix()))
    seen = network_grid(volume.grid, *wanted)
    assume(max(seen.shape) > 1 or max(shift) < 1)  # a single voxel would lie apart from the old ones
    affine = seen.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (np.array(shift) + 1e-4)
    found = resample(volume, Grid(seen.shape, affine), order=order)
    way = np.linalg.inv(volume.grid.affine) @ affine
    smooth = blurred(volume, seen) if order else array
    expected = ndimage.affine_transform(smooth, way, output_shape=seen.shape, order=order, mode="nearest")
    assert found.array.dtype == expected.dtype
    np.testing.assert_allclose(found.array, expected, atol=1e-2 if order else 0)


def test_network_grid_keeps_the_field_of_view() -> None:
    grid = Grid.regular((10, 8, 5), spacing_mm=(1, 1, 4), origin_mm=(3, -7, 11))
    coarse = network_grid(grid, (2, 2, 4))
    assert coarse.shape == (5, 4, 5)
    for corner in ((-0.5, -0.5, -0.5), (1.0, 1.0, 1.0)):
        at_edge = [np.where(np.array(corner) < 0, -0.5, np.array(g.shape) - 0.5) for g in (grid, coarse)]
        np.testing.assert_allclose(grid.to_world(at_edge[0]), coarse.to_world(at_edge[1]), atol=1e-9)


def test_coarse_and_back_keeps_smooth_images() -> None:
    grid = oblique((48, 40, 12), Rotation.from_euler("z", 8, degrees=True), (20, -30, 5))
    x, y, z = np.moveaxis(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)
    volume = Volume(300 * np.sin(x / 12) * np.cos(y / 15) + 5 * z, grid, "HU", "CT")
    spacing = (1.6, 1.6, 3.0)
    back = from_network(to_network(volume, HU, spacing), volume, HU, spacing)
    inner = np.s_[3:-3, 3:-3, 1:-1]
    assert np.abs(back.array - volume.array)[inner].max() < 12


def test_shrinking_does_not_alias() -> None:
    """A checkerboard of single voxels becomes its mean, not its pattern."""
    fine = Grid.regular((32, 32, 32))
    checkers = (np.indices(fine.shape).sum(0) % 2 * 1000).astype(np.int16)
    coarse = resample(Volume(checkers, fine), network_grid(fine, (4, 4, 4)))
    assert np.abs(coarse.array[1:-1, 1:-1, 1:-1] - 500).max() < 25


def test_grids_that_do_not_meet_are_refused() -> None:
    here = Volume(np.zeros((4, 4, 4)), Grid.regular((4, 4, 4)))
    with pytest.raises(GeometryError, match="mm apart"):
        resample(here, Grid.regular((4, 4, 4), origin_mm=(500, 0, 0)))


@pytest.mark.parametrize(
    ("unit", "modality", "low", "message"),
    [("HU", "CT", -1000, "modality is CT"), ("HU", "", -1000, "unit is HU")],
)
def test_the_wrong_image_is_refused(unit: str, modality: str, low: float, message: str) -> None:
    volume = Volume(np.full((3, 3, 3), low), Grid.regular((3, 3, 3)), unit, modality)
    with pytest.raises(InputError, match=message):
        check(volume, Intensity(modality="MR", times_median=(0, 2)), "scan.nii.gz")


def test_a_ct_without_air_and_unit_is_not_taken_for_hu() -> None:
    shifted = Volume(np.arange(27.0).reshape(3, 3, 3), Grid.regular((3, 3, 3)))
    with pytest.raises(InputError, match="hardly HU"):
        check(shifted, HU, "scan.nii.gz")
    check(shifted.with_array(shifted.array - 1024), HU, "scan.nii.gz")


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be scaled"):
        to_network(Volume(np.zeros((3, 3, 3)), Grid.regular((3, 3, 3))), MR)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"modality": "CT"}, "either range"),
        ({"modality": "CT", "range": [5, 5]}, "lower end"),
        ({"modality": "CT", "times_median": [3, 2]}, "lower end"),
        ({"modality": "CT", "range": [0, 1], "windw": 3}, "prep.b.windw: unknown key"),
    ],
)
def test_settings_out_of_range_name_their_key(values: dict[str, object], key: str) -> None:
    good = {"modality": "MR", "times_median": [0, 2]}
    with pytest.raises(ConfigError, match=key):
        Prep.parse({"a": good, "b": values}, "prep")
