"""Grid and Volume against nibabel.orientations and plain arithmetic, on any right-angled, oblique or sheared grid."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from nibabel import orientations
from scipy.spatial.transform import Rotation

from medgan.errors import GeometryError
from medgan.volume import Grid, Synthesis, Volume

CODES = [
    "".join(letters) for axes in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*axes)
]
lengths = st.floats(0.2, 8.0)


@st.composite
def grids(draw: st.DrawFn, *, sheared: bool = True) -> Grid:
    """Any grid: permuted, flipped, oblique up to 40 degrees, sheared a little."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    start = orientations.inv_ornt_aff(orientations.axcodes2ornt(tuple(draw(st.sampled_from(CODES)))), (2, 2, 2))[:3, :3]
    turn = Rotation.from_rotvec(draw(st.tuples(*[st.floats(-0.4, 0.4)] * 3))).as_matrix()
    shear = np.eye(3)
    shear[2, 1] = draw(st.floats(-0.3, 0.3)) if sheared else 0.0
    affine = np.eye(4)
    affine[:3, :3] = shear @ turn @ start * np.array(draw(st.tuples(lengths, lengths, lengths)))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return Grid(shape, affine)


def numbered(grid: Grid) -> Volume:
    return Volume(np.arange(np.prod(grid.shape)).reshape(grid.shape), grid, unit="HU", modality="CT")


@given(grids())
def test_orientation_is_nibabels_where_the_nearest_axis_is_clear(grid: Grid) -> None:
    largest = np.sort(np.abs(grid.direction), axis=0)
    assume((largest[2] - largest[1]).min() > 0.05 and len(set(np.abs(grid.direction).argmax(axis=0))) == 3)
    assert tuple(grid.orientation) == nib.aff2axcodes(grid.affine)


@given(grids(), st.sampled_from(CODES))
def test_reorient_moves_no_voxel(grid: Grid, code: str) -> None:
    volume = numbered(grid)
    turned = volume.reorient(code)
    assert turned.grid.orientation == code
    index = np.argwhere(np.ones(turned.array.shape))
    home = np.rint(grid.to_index(turned.grid.to_world(index))).astype(int)
    assert np.array_equal(turned.array[tuple(index.T)], volume.array[tuple(home.T)])
    assert np.allclose(grid.to_world(home), turned.grid.to_world(index), atol=1e-8)
    assert (turned.unit, turned.modality) == ("HU", "CT")


@given(grids(sheared=False), st.sampled_from(CODES))
def test_reorient_does_what_nibabel_does(grid: Grid, code: str) -> None:
    assume(tuple(grid.orientation) == nib.aff2axcodes(grid.affine))
    volume = numbered(grid)
    change = orientations.ornt_transform(
        orientations.io_orientation(grid.affine), orientations.axcodes2ornt(tuple(code))
    )
    turned = volume.reorient(code)
    assert np.array_equal(turned.array, orientations.apply_orientation(volume.array, change))
    assert np.allclose(turned.grid.affine, grid.affine @ orientations.inv_ornt_aff(change, grid.shape), atol=1e-9)


@given(grids(), st.sampled_from(CODES))
def test_reorient_there_and_back(grid: Grid, code: str) -> None:
    volume = numbered(grid)
    back = volume.reorient(code).reorient(grid.orientation)
    assert np.array_equal(back.array, volume.array)
    assert back.grid.same_as(grid, tolerance_mm=1e-8)


@given(grids(), st.data())
def test_crop_leaves_voxels_where_they_were(grid: Grid, data: st.DataObject) -> None:
    start = [data.draw(st.integers(0, n - 1)) for n in grid.shape]
    stop = [data.draw(st.integers(first + 1, n)) for first, n in zip(start, grid.shape, strict=True)]
    volume = numbered(grid)
    part = volume.crop(start, stop)
    assert part.array.shape == tuple(np.subtract(stop, start))
    assert np.allclose(part.grid.to_world((0, 0, 0)), grid.to_world(start))
    last = np.array(part.array.shape) - 1
    assert np.allclose(part.grid.to_world(last), grid.to_world(np.array(stop) - 1))
    assert part.array[tuple(last)] == volume.array[tuple(np.array(stop) - 1)]


@given(grids(), st.tuples(*[st.floats(-20, 20)] * 3))
def test_to_world_is_nibabels_and_to_index_its_inverse(grid: Grid, index: tuple[float, float, float]) -> None:
    assert np.allclose(grid.to_world(index), nib.affines.apply_affine(grid.affine, index))
    assert np.allclose(grid.to_index(grid.to_world(index)), index, atol=1e-6)
    many = np.tile(index, (2, 5, 1))
    assert grid.to_index(many).shape == grid.to_world(many).shape == (2, 5, 3)
    assert np.allclose(grid.to_index(grid.to_world(many)), many, atol=1e-6)


@given(grids())
def test_spacing_is_nibabels(grid: Grid) -> None:
    assert np.allclose(grid.spacing_mm, nib.affines.voxel_sizes(grid.affine))


@settings(max_examples=30)
@given(grids(), st.floats(0.02, 50))
def test_a_shifted_grid_is_another_one(grid: Grid, shift: float) -> None:
    affine = grid.affine.copy()
    affine[1, 3] += shift
    moved = Grid(grid.shape, affine)
    assert grid.distance_mm(moved) == pytest.approx(shift)
    assert not grid.same_as(moved)
    assert grid.same_as(moved, tolerance_mm=shift * 1.01)
    assert grid.same_as(grid)


@pytest.mark.parametrize(("degrees", "sheared"), [(0.0, False), (0.02, False), (0.2, True), (18.5, True)])
def test_shear_is_seen_from_a_twentieth_of_a_degree_on(degrees: float, sheared: bool) -> None:
    affine = np.diag([0.5, 0.5, 3.0, 1.0])
    affine[1, 2] = 3.0 * np.tan(np.radians(degrees))
    assert Grid((4, 4, 4), affine).is_sheared is sheared


def test_a_grid_cannot_be_changed_from_outside() -> None:
    affine = np.eye(4)
    grid = Grid((2, 2, 2), affine)
    affine[0, 0] = 5
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 5


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.diag([1, 1, 0, 1]), np.full((4, 4), np.nan), np.eye(3)])
def test_an_affine_that_is_none_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError, match="affine"):
        Grid((2, 2, 2), affine)


def test_parallel_axes_are_refused() -> None:
    affine = np.eye(4)
    affine[:3, 1] = affine[:3, 0] * 2
    with pytest.raises(GeometryError, match="singular"):
        Grid((2, 2, 2), affine)


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 0), (2, 2, 2, 2)])
def test_a_shape_that_is_none_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="three axes"):
        Grid(shape, np.eye(4))  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["RAR", "RA", "XYZ", "RASL", ""])
def test_an_orientation_that_is_none_is_refused(code: str) -> None:
    with pytest.raises(GeometryError, match="one letter each"):
        numbered(Grid.regular((2, 2, 2))).reorient(code)


def test_array_and_grid_must_agree() -> None:
    with pytest.raises(GeometryError, match="differ in shape"):
        Volume(np.zeros((2, 2, 3)), Grid.regular((2, 2, 2)))


def test_with_array_and_marked_keep_the_rest() -> None:
    volume = numbered(Grid.regular((2, 2, 2)))
    made = volume.with_array(np.zeros((2, 2, 2)), unit="a.u.", modality="MR").marked(Synthesis("pix2pix"))
    assert made.grid is volume.grid
    assert (made.unit, made.modality, made.synthetic) == ("a.u.", "MR", Synthesis("pix2pix"))
    assert volume.synthetic is None
