"""registration: planted motions are found again, images land where they belong, and what went wrong is refused."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medgan import registration
from medgan.errors import GeometryError, InputError
from medgan.formats import read
from medgan.itk import image_of, matrix_of
from medgan.phantom import Head, head, patient_grid
from medgan.registration import Registration, found, register
from medgan.volume import Grid, Volume

Array = npt.NDArray[Any]
TURN, SHIFT = (5.0, -4.0, 8.0), (12.0, -9.0, 15.0)
FAR_TURN, FAR_SHIFT = (10.9, -30.2, -23.9), (-45.2, 33.3, 21.2)  # 40 degrees, 60 mm


@pytest.fixture(scope="module")
def phantom() -> Head:
    """Oblique, off-centre, its voxels 2.1×2.1×4 mm."""
    return head(3, grid=patient_grid(3, 3, size=96))


def pose(turn_deg: Any, shift_mm: Any, centre: Any = (0, 0, 0)) -> Array:
    """(4, 4): a turn about a point, then a shift."""
    found = np.eye(4)
    found[:3, :3] = Rotation.from_rotvec(np.radians(turn_deg)).as_matrix()
    found[:3, 3] = np.asarray(centre) + shift_mm - found[:3, :3] @ centre
    return found


def planted(volume: Volume, motion: Array) -> Volume:
    """The same voxels, moved in the world."""
    grid = Grid(volume.grid.shape, motion @ volume.grid.affine)
    return Volume(volume.array, grid, volume.unit, volume.modality)


def places(mask: Volume) -> Array:
    return mask.grid.to_world(np.argwhere(mask.array > 0)[::31])


def error_mm(found: Registration, truth: Array, at: Array) -> Array:
    """(N,) distances between where both put the places."""
    here = at @ found.matrix[:3, :3].T + found.matrix[:3, 3]
    return np.asarray(np.linalg.norm(here - at @ truth[:3, :3].T - truth[:3, 3], axis=1))


def angle_deg(one: Array, other: Array) -> float:
    return float(np.degrees(np.linalg.norm(Rotation.from_matrix(one[:3, :3].T @ other[:3, :3]).as_rotvec())))


# --- planted truth ----------------------------------------------------------------------------------------------------


def test_a_rigid_motion_between_mr_and_ct_is_found_over_the_whole_head(phantom: Head) -> None:
    centre = places(phantom.body).mean(axis=0)
    truth = pose(TURN, SHIFT, centre)
    found = register(phantom.mr, planted(phantom.ct, truth))
    assert error_mm(found, truth, places(phantom.body)).max() < 0.5
    assert angle_deg(found.matrix, truth) < 0.5
    middle = np.array(found.centre_mm)
    assert np.linalg.norm(middle - centre) < 5
    assert found.translation_mm == pytest.approx(truth[:3, :3] @ middle + truth[:3, 3] - middle, abs=0.4)
    assert found.rotation_deg == pytest.approx(TURN, abs=0.5)
    assert found.nmi_after > found.nmi_before + 0.05
    assert found.overlap > 0.95


def test_axes_run_in_any_order_and_one_image_may_have_the_voxels_of_the_search(phantom: Head) -> None:
    """Left-handed ones, too; and nothing is resampled of 2 mm."""
    centre = places(phantom.body).mean(axis=0)
    even = Grid.regular((104, 104, 104), spacing_mm=(2, 2, 2), origin_mm=centre - 103)
    truth = pose(TURN, SHIFT, centre)
    found = register(head(3, grid=even).mr, planted(phantom.ct, truth).reorient("SAR"))
    assert error_mm(found, truth, places(phantom.body)).max() < 0.5


@pytest.mark.slow
def test_an_affine_is_found_and_a_rigid_one_stays_rigid(phantom: Head) -> None:
    stretch = np.diag([1.05, 0.96, 1.03, 1.0])
    stretch[0, 1] = 0.03
    truth = pose((0, 0, 4), (5, 0, -6)) @ stretch
    moving, at = planted(phantom.ct, truth), places(phantom.body)
    affine, rigid = (register(phantom.mr, moving, kind=kind) for kind in ("affine", "rigid"))  # type: ignore[arg-type]
    assert error_mm(rigid, truth, at).mean() > 3
    assert error_mm(affine, truth, at).mean() < 0.7
    np.testing.assert_allclose(rigid.matrix[:3, :3] @ rigid.matrix[:3, :3].T, np.eye(3), atol=1e-6)


@pytest.mark.slow
def test_grids_may_be_sheared(phantom: Head) -> None:
    shear = np.eye(4)
    shear[1, 2] = 0.3
    grid = Grid(phantom.mr.grid.shape, phantom.mr.grid.affine @ shear)
    tilted = head(3, grid=grid).ct
    assert tilted.grid.is_sheared
    truth = pose((0, 3, 0), (6, 0, 0))
    assert error_mm(register(phantom.mr, planted(tilted, truth)), truth, places(phantom.body)).max() < 0.8


def test_what_lies_right_stays_and_the_same_seed_gives_the_same_bytes(phantom: Head) -> None:
    same = register(phantom.mr, phantom.mr)
    assert error_mm(same, np.eye(4), places(phantom.body)).max() < 0.05
    moving = planted(phantom.ct, pose((0, 0, 3), (400, 4, 0)))  # as they lie they do not meet
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    first = register(phantom.mr, moving, seed=4)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(3)
    try:
        second = register(phantom.mr, moving, seed=4)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert first.matrix.tobytes() == second.matrix.tobytes()
    assert first.to_json() == second.to_json()
    assert np.isnan(first.nmi_before)
    assert error_mm(first, pose((0, 0, 3), (400, 4, 0)), places(phantom.body)).max() < 0.5


# --- the algebra ------------------------------------------------------------------------------------------------------

numbers = st.floats(-40, 40, allow_nan=False).map(lambda value: round(value, 3))
triples = st.tuples(numbers, numbers, numbers)


@settings(max_examples=40, deadline=None)
@given(triples, triples, triples)
def test_matrices_of_simpleitk_are_told_in_ras(turn: Any, shift: Any, centre: Any) -> None:
    """A transform of SimpleITK, asked for a point in LPS, and our matrix, asked for it in RAS, agree."""
    transform = sitk.Euler3DTransform()
    transform.SetCenter(centre)
    transform.SetRotation(*np.radians(turn).tolist())
    transform.SetTranslation(shift)
    point = np.array([13.0, -7.0, 29.0])
    lps = np.array(transform.TransformPoint((point * (-1, -1, 1)).tolist()))
    matrix = matrix_of(transform)
    np.testing.assert_allclose(matrix[:3, :3] @ point + matrix[:3, 3], lps * (-1, -1, 1), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(triples, triples, triples)
def test_what_a_matrix_does_is_told_in_numbers_and_undone(turn: Any, shift: Any, centre: Any) -> None:
    found = Registration(pose(turn, shift, centre), centre_mm=centre)
    assert found.translation_mm == pytest.approx(shift, abs=1e-9)
    assert found.rotation_deg == pytest.approx(turn, abs=1e-6)
    back = found.inverse()
    np.testing.assert_allclose(back.matrix @ found.matrix, np.eye(4), atol=1e-9)
    assert np.linalg.norm(back.translation_mm) == pytest.approx(np.linalg.norm(shift), abs=1e-6)
    assert json.loads(json.dumps(found.to_json()))["nmi_before"] is None


def test_images_of_simpleitk_are_where_the_volume_is(phantom: Head) -> None:
    image = image_of(sitk, phantom.ct)
    for index in ((0, 0, 0), (5, 7, 3)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(lps * (-1, -1, 1), phantom.ct.grid.to_world(index), atol=1e-6)
        assert image[index] == phantom.ct.array[index]


# --- moved ------------------------------------------------------------------------------------------------------------


def ramp(grid: Grid) -> Volume:
    """A value that is linear in the world: any linear interpolation is exact."""
    x, y, z = np.moveaxis(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)
    return Volume(2 * x - y + 0.5 * z, grid)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.floats(-15, 15)] * 3), st.tuples(*[st.floats(-6, 6)] * 3), st.sampled_from([1, 3]))
@example((0.0, 0.0, 0.002), (0.0, 0.0, 0.0), 1)
def test_moved_asks_the_moving_image_where_the_matrix_says(turn: Any, shift: Any, order: int) -> None:
    """A turn that moves no voxel, 1 mm wide, by a thousandth of it is not made."""
    onto = Grid.regular((9, 8, 7), spacing_mm=(2, 3, 2.5), origin_mm=(-8, -10, -7))
    around = Grid.regular((70, 70, 70), direction=np.diag([-1, 1, -1]), origin_mm=(35, -35, 35))
    found = Registration(pose(turn, shift))
    moved = found.moved(ramp(around), onto, order=order, outside=-999)
    there = onto.to_world(np.moveaxis(np.indices(onto.shape), 0, -1)) @ found.matrix[:3, :3].T + found.matrix[:3, 3]
    neglected = 1e-3 * (2 + 1 + 0.5) if max(map(abs, turn)) < 0.05 else 0
    np.testing.assert_allclose(moved.array, there @ (2, -1, 0.5), atol=2e-5 + neglected)
    assert moved.array.dtype == np.float32
    assert moved.grid.same_as(onto)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_outside_is_where_no_voxel_of_the_moving_image_lies(seed: int, turned: bool) -> None:
    rng = np.random.default_rng(seed)
    source, onto = (
        Grid.regular(
            rng.integers(1, 12, 3).tolist(),
            spacing_mm=rng.uniform(0.5, 4, 3).tolist(),
            origin_mm=rng.uniform(-9, 3, 3).tolist(),
            direction=Rotation.random(random_state=rng.integers(10**6)).as_matrix() if turned else np.eye(3),
        )
        for _ in range(2)
    )
    array = np.zeros(onto.shape)
    found._fill_outside(array, 1, source, onto)
    index = source.to_index(onto.to_world(np.moveaxis(np.indices(onto.shape), 0, -1)))
    beyond = (index < -0.5 - 1e-6) | (index > np.array(source.shape) - 0.5 + 1e-6)
    np.testing.assert_array_equal(array > 0, beyond.any(axis=-1))


def test_turning_alone_blurs_nothing() -> None:
    """A checkerboard of 1 mm, asked for at its own voxel centres through a turned grid of the same voxels."""
    grid = Grid.regular((21, 21, 21), origin_mm=(-10, -10, -10))
    array = (np.indices(grid.shape).sum(axis=0) % 2).astype(np.float32)
    onto = Grid.regular((1, 1, 1), direction=pose((0, 0, 45), (0, 0, 0))[:3, :3], origin_mm=(1, 2, 0))
    assert Registration(np.eye(4)).moved(Volume(array, grid), onto, outside=0).array.item() == array[11, 12, 10]


def test_labels_keep_their_numbers_and_outside_is_what_was_asked_for() -> None:
    grid = Grid.regular((8, 8, 8))
    labels = Volume(np.random.default_rng(0).integers(1, 9, grid.shape).astype(np.uint8), grid, "label")
    moved = Registration(pose((0, 0, 0), (3, 0, 0))).moved(labels, grid, order=0, outside=0)
    assert moved.array.dtype == np.uint8
    np.testing.assert_array_equal(moved.array[:5], labels.array[3:])
    assert not moved.array[5:].any()
    whole = Registration(np.eye(4)).moved(labels, grid, order=1, outside=7)
    np.testing.assert_array_equal(whole.array, labels.array)
    assert not np.shares_memory(whole.array, labels.array)


def test_cubic_does_not_overshoot_and_padding_is_not_smeared() -> None:
    grid = Grid.regular((16, 6, 6))
    array = np.full(grid.shape, -1000, np.int16)
    array[8:] = 1000
    found = Registration(pose((0, 0, 0), (0.4, 0, 0)))
    moved = found.moved(Volume(array, grid, "HU", "CT"), grid, order=3, outside=-1000)
    assert (moved.array.min(), moved.array.max()) == (-1000, 1000)
    array[:3] = -3000
    padded = Volume(array, grid, "HU", "CT", padding=(-3000, -3000))
    assert found.moved(padded, grid, outside=-1000).array.min() == -1000


# --- what cannot be right ---------------------------------------------------------------------------------------------


def test_what_cannot_be_right_is_refused(phantom: Head) -> None:
    mr, ct = phantom.mr, phantom.ct
    with pytest.raises(InputError, match="the moving image is constant"):
        register(mr, ct.with_array(np.zeros_like(ct.array)))
    with pytest.raises(InputError, match="not finite"):
        register(mr, ct.with_array(np.where(ct.array > 0, np.nan, 1.0)))
    with pytest.raises(GeometryError, match="16 ml"):
        register(mr, ct, mask=mr.with_array(np.zeros_like(mr.array)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"overlap": 0.3}, "only 30%"),
        ({"nmi_after": float("nan")}, "shows too little"),
        ({"nmi_before": 1.2, "nmi_after": 1.1}, "fell from 1.200 to 1.100"),
        ({"matrix": pose((0, 0, 60), (0, 0, 0))}, "turned by 60°"),
        ({"matrix": np.diag([1.4, 1, 1, 1])}, "stretched by 1.40"),
    ],
)
def test_a_result_that_no_patient_explains_is_refused(wrong: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = {"matrix": np.eye(4), "nmi_before": float("nan"), "nmi_after": 1.2, "overlap": 0.9}
    registration._refuse_wrong(Registration(**good))
    with pytest.raises(GeometryError, match=said):
        registration._refuse_wrong(Registration(**{**good, **wrong}))


def test_without_simpleitk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, phantom: Head) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "SimpleITK":
            raise ModuleNotFoundError(name=name)
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "SimpleITK")
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"pip install 'medgan\[registration\]'"):
        register(phantom.mr, phantom.ct)


# --- real scans -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "turn", "shift"), [("Subj02", TURN, SHIFT), ("Subj03", FAR_TURN, FAR_SHIFT)])
def test_a_planted_motion_between_real_t1_and_flair_is_found(shared: Path, name: str, turn: Any, shift: Any) -> None:
    """Beyond what these two, which others have registered, are told apart by as they lie."""
    folder = shared / "nichart_t1_flair_3d2mm" / name
    t1, flair, brain = (read(folder / f"{role}.nii.gz") for role in ("t1", "flair", "brainmask"))
    truth = pose(turn, shift, places(brain).mean(axis=0))
    found = register(t1, planted(flair, truth))
    assert error_mm(found, truth, places(brain)).max() < 0.5


@pytest.mark.parametrize(
    "name", ["Subj05", pytest.param("Subj01", marks=pytest.mark.slow), pytest.param("Subj15", marks=pytest.mark.slow)]
)
def test_real_pairs_land_where_others_have_put_them(shared: Path, name: str) -> None:
    """Where the data set's own registration has put FLAIR is found by laying FLAIR on that: the same image, moved."""
    theirs = shared / "nichart_t1_flair_3d2mm" / name
    t1, flair = (read(shared / "nichart_unregistered_pairs" / name / f"{role}.nii.gz") for role in ("t1", "flair"))
    registered, brain = read(theirs / "flair.nii.gz"), read(theirs / "brainmask.nii.gz")
    reference = register(registered, flair, mask=brain).matrix
    found = register(t1, flair)
    left, before = (error_mm(one, reference, places(brain)).mean() for one in (found, Registration(np.eye(4))))
    assert left < min(1, 0.6 * before)
    moved = found.moved(flair, registered.grid, outside=0).array
    inside = brain.array > 0
    assert np.corrcoef(moved[inside], registered.array[inside])[0, 1] > 0.92
