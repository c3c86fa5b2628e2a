"""alignment: planted shifts, turns and mirrored images are found; real pairs are placed as SimpleITK places them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

from medgan.alignment import _NUM_BINS, _nmi, misalignment, shrunk
from medgan.errors import GeometryError, InputError
from medgan.formats import read, write
from medgan.metrics import nmi
from medgan.phantom import Head, head, patient_grid
from medgan.prep import foreground
from medgan.volume import Grid, Volume

Registration = Callable[[Path, Path, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def heads() -> list[Head]:
    return [head(4000 + number, grid=patient_grid(4, number, size=64)) for number in (1, 2)]


def moved(volume: Volume, shift_mm: tuple[float, float, float] = (0, 0, 0), turn_deg: float = 0) -> Volume:
    """The same voxels elsewhere: shifted, after a turn about the upright axis through the origin."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", turn_deg, degrees=True).as_matrix()
    pose[:3, 3] = shift_mm
    return Volume(volume.array, Grid(volume.grid.shape, pose @ volume.grid.affine), volume.unit, volume.modality)


# --- planted truth ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0, 0, 0), (3, 0, 0), (0, -6, 8)])
def test_a_shift_is_found_within_its_uncertainty(heads: list[Head], shift: tuple[float, float, float]) -> None:
    found = misalignment(heads[0].mr, moved(heads[0].ct, shift))
    error = np.abs(np.subtract(found.shift_mm, shift))
    assert (error < 3 * np.array(found.uncertainty_mm)).all()
    assert error.max() < 1
    assert max(found.uncertainty_mm) < 1
    assert found.turn_deg < 1
    assert found.mirror_gain < 0
    assert found.distance_mm == pytest.approx(np.linalg.norm(found.shift_mm))


def test_roles_exchanged_the_shift_is_the_opposite(heads: list[Head]) -> None:
    found = misalignment(moved(heads[0].ct, (10, 0, 0)), heads[0].mr)
    assert found.shift_mm == pytest.approx((-10, 0, 0), abs=1)


def test_a_turn_is_found_with_its_axis_and_sense(heads: list[Head]) -> None:
    found = misalignment(heads[0].mr, moved(heads[0].ct, turn_deg=5))
    assert found.rotation_deg == pytest.approx((0, 0, 5), abs=1.2)
    assert found.disagreement_mm < 2.5


def test_a_mirrored_image_tells_more_when_mirrored_back(heads: list[Head]) -> None:
    ct = heads[1].ct
    found = misalignment(heads[1].mr, Volume(ct.array[::-1].copy(), ct.grid, "HU", "CT"))
    assert found.mirror_gain > 0.3
    assert found.nmi_mirrored > found.nmi


def test_two_patients_do_not_fit(heads: list[Head]) -> None:
    same, other = misalignment(heads[0].mr, heads[0].ct), misalignment(heads[0].mr, heads[1].ct)
    assert same.disagreement_mm < 1.5
    assert other.disagreement_mm > 2.5
    assert other.nmi < same.nmi
    assert other.mirror_gain < 0.3


# --- real scans and independent references ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_simpleitk() -> Iterator[Registration]:
    """A rigid registration; it stands in tools/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "tools")
        yield importlib.import_module("check_faults").by_simpleitk


def test_real_pairs_are_ranked(shared: Path) -> None:
    far = {}
    for name in ("Subj01", "Subj05", "Subj15"):
        folder = shared / "nichart_unregistered_pairs" / name
        found = misalignment(read(folder / "t1.nii.gz"), read(folder / "flair.nii.gz"))
        assert found.mirror_gain < 0
        far[name] = found.distance_mm
    assert far["Subj01"] < 2
    assert 10 < far["Subj05"] < far["Subj15"] < 35


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Subj01", "Subj05", "Subj15"])
def test_real_pairs_are_placed_as_by_simpleitk(shared: Path, by_simpleitk: Registration, name: str) -> None:
    paths = [shared / "nichart_unregistered_pairs" / name / f"{role}.nii.gz" for role in ("t1", "flair")]
    t1, flair = map(read, paths)
    middle = t1.grid.to_world(center_of_mass(foreground(t1.array)))
    found = misalignment(t1, flair)
    np.testing.assert_allclose(found.shift_mm, by_simpleitk(paths[0], paths[1], middle), atol=1)


@pytest.mark.slow
def test_a_planted_shift_is_that_of_simpleitk_too(
    heads: list[Head], by_simpleitk: Registration, tmp_path: Path
) -> None:
    mr, ct = heads[0].mr, moved(heads[0].ct, (6, -4, 3))
    paths = [write(volume, tmp_path / f"{name}.nii.gz") for name, volume in (("mr", mr), ("ct", ct))]
    middle = mr.grid.to_world(center_of_mass(foreground(mr.array)))
    reference = by_simpleitk(paths[0], paths[1], middle)
    np.testing.assert_allclose(reference, (6, -4, 3), atol=1)
    np.testing.assert_allclose(misalignment(mr, ct).shift_mm, reference, atol=1)


def test_registered_real_pairs_lie_upon_one_another(shared: Path) -> None:
    for name in ("Subj02", "Subj11"):
        folder = shared / "nichart_t1_flair_3d2mm" / name
        found = misalignment(read(folder / "t1.nii.gz"), read(folder / "flair.nii.gz"))
        assert found.distance_mm < 1
        assert found.turn_deg < 1
        assert found.disagreement_mm < 1


def test_information_is_that_of_the_metric() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, _NUM_BINS, (9, 8, 7))
    b = (a + rng.integers(0, 3, a.shape)) % _NUM_BINS
    reference = nmi(a, b, None, (0, _NUM_BINS), num_bins=_NUM_BINS)
    assert _nmi(a.ravel(), b.ravel()) == pytest.approx(reference, abs=1e-12)
    half_known = np.where(np.arange(b.size) % 3 == 0, -1, b.ravel())
    kept = half_known >= 0
    assert _nmi(a.ravel(), half_known) == pytest.approx(
        nmi(a.ravel()[kept][:, None, None], half_known[kept][:, None, None], None, (0, 24), num_bins=24), abs=1e-12
    )


def test_smaller_volumes_stay_in_their_place() -> None:
    grid = patient_grid(3, 1, size=200)
    x = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))[..., 0]
    small = shrunk(Volume(x, grid))
    assert small.grid.shape < grid.shape
    expected = small.grid.to_world(np.moveaxis(np.indices(small.grid.shape), 0, -1))[..., 0]
    np.testing.assert_allclose(small.array, expected, atol=1e-3)


# --- what cannot be judged --------------------------------------------------------------------------------------------


def test_what_cannot_be_judged_is_refused(heads: list[Head]) -> None:
    mr, ct = heads[0].mr, heads[0].ct
    with pytest.raises(GeometryError, match="hardly anything in common"):
        misalignment(mr, moved(ct, (500, 0, 0)))
    with pytest.raises(InputError, match="b is constant"):
        misalignment(mr, ct.with_array(np.zeros_like(ct.array)))
    with pytest.raises(GeometryError, match="16 ml are needed"):
        misalignment(mr.crop((30, 30, 10), (34, 34, 12)), ct)
    with pytest.raises(GeometryError, match="shows 0 ml"):
        misalignment(mr, ct, mr.with_array(np.zeros_like(mr.array)))


def test_a_mask_says_where_to_look(heads: list[Head]) -> None:
    found = misalignment(heads[0].mr, moved(heads[0].ct, (4, 0, 0)), heads[0].body)
    assert found.shift_mm == pytest.approx((4, 0, 0), abs=1)
