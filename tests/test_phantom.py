"""The phantom: known exactly, shaped like a head, and the same wherever it is sampled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import medgan
from medgan.errors import InputError, OutputError
from medgan.phantom import Anatomy, Head, Tissue, head, patient_grid, write_cohort
from medgan.phantom.shapes import Ball, Tube, Waves, join, rotation
from medgan.phantom.traits import Traits
from medgan.volume import Grid

BONE = (Tissue.CORTICAL_BONE, Tissue.SPONGY_BONE, Tissue.PETROUS_BONE, Tissue.TOOTH)
BRAIN = tuple(range(Tissue.GREY, Tissue.LESION + 1))
SEEDS = range(6)


def whole_head(step_mm: float, bottom_mm: float = -90.0) -> Grid:
    low, high = np.array([-99.0, -120.0, bottom_mm]), np.array([99.0, 122.0, 99.0])
    return Grid.regular(((high - low) / step_mm).astype(int), spacing_mm=[step_mm] * 3, origin_mm=low)


def places(grid: Grid) -> np.ndarray:
    return grid.to_world(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))


@pytest.fixture(scope="module")
def one() -> Head:
    return head(4, grid=whole_head(2))


@pytest.fixture(scope="module")
def anatomies() -> list[Anatomy]:
    return [Anatomy.drawn(np.random.default_rng([seed, 0])) for seed in SEEDS]


@pytest.fixture(scope="module")
def volumes_ml(anatomies: list[Anatomy]) -> np.ndarray:
    """(seeds, tissues) volumes, counted on a grid of 3 mm."""
    where = places(whole_head(3))
    counts = [np.bincount(anatomy.labels_at(where).ravel(), minlength=len(Tissue)) for anatomy in anatomies]
    return np.array(counts) * 0.027


# --- it is known exactly ----------------------------------------------------------------------------------------------


@settings(max_examples=5, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-40, 40)] * 3),
    origin=st.tuples(*[st.floats(-60, 20)] * 3),
    spacing=st.tuples(*[st.floats(0.7, 6)] * 3),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
)
def test_any_two_grids_see_the_same_head(turn, origin, spacing, flips):
    shape = np.array([14, 12, 9])
    grid = Grid.regular(shape, spacing_mm=spacing, origin_mm=origin, direction=rotation(turn))
    far = np.where(np.array(flips) < 0, shape - 1, 0)
    turned = Grid.regular(
        shape, spacing_mm=spacing, origin_mm=grid.to_world(far), direction=rotation(turn) @ np.diag(flips)
    )
    finer = Grid.regular(shape * 2, spacing_mm=np.array(spacing) / 2, origin_mm=origin, direction=rotation(turn))
    labels = head(2, grid=grid).labels.array
    assert np.array_equal(head(2, grid=turned).labels.array[:: flips[0], :: flips[1], :: flips[2]], labels)
    assert np.array_equal(head(2, grid=finer).labels.array[::2, ::2, ::2], labels)


def test_labels_are_the_anatomy_at_the_centres_of_voxels():
    grid = patient_grid(0, 2, size=40)
    phantom = head(9, grid=grid)
    assert np.array_equal(phantom.labels.array, phantom.anatomy.labels_at(places(grid)))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_lesion_is_where_it_says_and_not_on_the_other_side(seed, anatomies):
    anatomy = anatomies[seed]
    x, y, z = anatomy.lesion.centre_mm
    ball = np.random.default_rng(0).standard_normal((400, 3))
    ball *= 0.6 * anatomy.lesion.radius_mm / np.linalg.norm(ball, axis=1, keepdims=True)
    assert (anatomy.labels_at(ball + np.array([x, y, z])) == Tissue.LESION).mean() > 0.9
    assert not (anatomy.labels_at(ball + np.array([-x, y, z])) == Tissue.LESION).any()


def test_lesions_come_on_both_sides(anatomies):
    sides = {np.sign(anatomy.lesion.centre_mm[0]) for anatomy in anatomies}
    assert sides == {-1.0, 1.0}


def test_the_lesion_is_seen_in_an_oblique_scan_at_its_world_place():
    grid = patient_grid(1, 2)
    phantom = head(4, grid=grid)
    labels, mr, ct = phantom.labels.array, phantom.mr.array, phantom.ct.array
    centre = np.array(ndimage.center_of_mass(labels == Tissue.LESION))
    assert np.linalg.norm(grid.to_world(centre) - phantom.lesion.centre_mm) < 3
    i, j, k = np.rint(grid.to_index(phantom.lesion.centre_mm)).astype(int)
    white = labels == Tissue.WHITE
    assert mr[i, j, k] < 0.7 * np.median(mr[white])
    assert abs(float(ct[i, j, k]) - np.median(ct[white])) < 40


def test_eyes_are_in_front_and_the_cerebellum_is_behind_and_below(one):
    centre = {
        tissue: one.labels.grid.to_world(ndimage.center_of_mass(one.labels.array == tissue))
        for tissue in (Tissue.VITREOUS, Tissue.CEREBELLUM_GREY, Tissue.WHITE)
    }
    assert centre[Tissue.VITREOUS][1] > 40
    assert centre[Tissue.CEREBELLUM_GREY][1] < -30
    assert centre[Tissue.CEREBELLUM_GREY][2] < centre[Tissue.WHITE][2] - 25


def test_to_world_inverts_to_head():
    traits = Traits.drawn(np.random.default_rng(5))
    points = np.random.default_rng(6).uniform(-80, 80, (3, 500)).astype(np.float32)
    assert np.abs(traits.to_head(traits.to_world(points)) - points).max() < 1e-3


# --- it is a head -----------------------------------------------------------------------------------------------------


def test_volumes_are_those_of_adults(volumes_ml):
    brain = volumes_ml[:, list(BRAIN)].sum(axis=1)
    cerebellum = volumes_ml[:, [Tissue.CEREBELLUM_GREY, Tissue.CEREBELLUM_WHITE]].sum(axis=1)
    assert ((brain > 1100) & (brain < 1600)).all(), brain
    assert ((cerebellum > 100) & (cerebellum < 175)).all(), cerebellum
    ratio = volumes_ml[:, Tissue.GREY] / volumes_ml[:, Tissue.WHITE]
    assert ((ratio > 1.0) & (ratio < 1.7)).all(), ratio
    eyes = volumes_ml[:, [Tissue.VITREOUS, Tissue.LENS]].sum(axis=1)
    assert ((eyes > 8) & (eyes < 15)).all(), eyes


def test_heads_differ(volumes_ml):
    brain = volumes_ml[:, list(BRAIN)].sum(axis=1)
    assert brain.std() > 40
    for tissue in (Tissue.CSF, Tissue.FAT, Tissue.SPONGY_BONE, Tissue.LESION, Tissue.AIRWAY):
        assert volumes_ml[:, tissue].std() > 0.05 * volumes_ml[:, tissue].mean(), tissue


def test_sides_differ_a_little(one):
    labels = one.labels.array
    grey = labels == Tissue.GREY
    mirrored = places(one.labels.grid) * (-1, 1, 1)
    other = one.anatomy.labels_at(mirrored) == Tissue.GREY
    assert 2 * (grey & other).sum() / (grey.sum() + other.sum()) < 0.8
    body = labels > 0
    other_body = one.anatomy.labels_at(mirrored) > 0
    assert 2 * (body & other_body).sum() / (body.sum() + other_body.sum()) > 0.9


@pytest.mark.parametrize("seed", [2, 3])
def test_the_skull_is_closed_above_the_great_foramen(seed, anatomies):
    labels = anatomies[seed].labels_at(places(whole_head(1.5, bottom_mm=-45)))
    rooms, _ = ndimage.label(~np.isin(labels, BONE))
    inside = np.bincount(rooms[labels == Tissue.WHITE]).argmax()
    outside = (labels == Tissue.BACKGROUND) | (labels == Tissue.SKIN) | (labels == Tissue.FAT)
    assert not (outside & (rooms == inside)).any()
    assert (rooms[labels == Tissue.GREY] == inside).mean() > 0.99


def test_air_inside_the_head_belongs_to_the_body(one):
    labels, body = one.labels.array, one.body.array
    assert body[labels == Tissue.AIRWAY].all()
    assert not body[labels == Tissue.BACKGROUND].any()
    assert 30 < (labels == Tissue.AIRWAY).sum() * 0.008 < 150
    frontal = places(one.labels.grid)[labels == Tissue.AIRWAY]
    assert ((frontal[:, 1] > 65) & (frontal[:, 2] > -25)).any()


# --- its scans --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tissue", "low", "high"),
    [  # usual values in the literature; the mean over voxels with no other tissue around
        (Tissue.BACKGROUND, -1005, -995),
        (Tissue.AIRWAY, -1005, -995),
        (Tissue.FAT, -105, -80),
        (Tissue.MUSCLE, 50, 60),
        (Tissue.CSF, 4, 12),
        (Tissue.GREY, 35, 42),
        (Tissue.WHITE, 26, 33),
        (Tissue.VITREOUS, 4, 14),
        (Tissue.SPONGY_BONE, 400, 750),
        (Tissue.PETROUS_BONE, 1500, 1700),
    ],
)
def test_hounsfield_units_within_each_tissue(one, tissue, low, high):
    inner = ndimage.binary_erosion(one.labels.array == tissue, np.ones((3, 3, 3)))
    assert inner.sum() > 5
    assert low < one.ct.array[inner].mean() < high


def test_cortical_bone_is_dense(one):
    values = one.ct.array[one.labels.array == Tissue.CORTICAL_BONE]
    assert 700 < np.median(values) < 1500
    assert np.percentile(values, 95) > 1150


def test_voxels_at_edges_are_mixtures(one):
    labels, ct = one.labels.array, one.ct.array
    edge = ndimage.binary_dilation(labels == Tissue.BACKGROUND) & (labels == Tissue.SKIN)
    assert ((ct[edge] > -900) & (ct[edge] < -100)).mean() > 0.2


def test_no_function_of_mr_gives_ct(one):
    body = one.body.array > 0
    mr, ct = one.mr.array[body].astype(float), one.ct.array[body].astype(float)
    dark = mr < 0.1 * np.percentile(mr, 95)
    assert (ct[dark] < -800).mean() > 0.05
    assert (ct[dark] > 800).mean() > 0.2
    bins = np.digitize(mr, np.percentile(mr, np.arange(1, 100)))
    best = np.array([ct[bins == b].mean() for b in range(100)])[bins]
    assert np.abs(ct - best).mean() > 80


def test_white_matter_is_brighter_than_grey_than_csf(one):
    signal = {t: np.median(one.mr.array[one.labels.array == t]) for t in (Tissue.WHITE, Tissue.GREY, Tissue.CSF)}
    assert signal[Tissue.WHITE] > 1.2 * signal[Tissue.GREY] > 1.2**2 * signal[Tissue.CSF]


def test_noise_of_mr_in_air_is_rayleigh(one):
    air = one.mr.array[ndimage.binary_erosion(one.labels.array == Tissue.BACKGROUND, iterations=3)]
    assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)


def test_noise_of_ct_is_that_of_a_scanner(one):
    inner = ndimage.binary_erosion(one.labels.array == Tissue.BACKGROUND, iterations=3)
    assert one.ct.array[inner].std() == pytest.approx(7, rel=0.05)


def test_units_modalities_and_the_mark_of_what_is_artificial(one):
    assert (one.mr.unit, one.mr.modality, one.mr.array.dtype) == ("a.u.", "MR", np.int16)
    assert (one.ct.unit, one.ct.modality, one.ct.array.dtype) == ("HU", "CT", np.int16)
    assert one.labels.unit == one.body.unit == "label"
    for volume in (one.mr, one.ct, one.labels, one.body):
        assert volume.synthetic is not None
        assert (volume.synthetic.model, volume.synthetic.version) == ("medgan.phantom", medgan.__version__)


def test_same_seed_same_bytes_and_another_seed_another_head():
    grid = patient_grid(0, 1, size=32)
    first, again, other = head(11, grid=grid), head(11, grid=grid), head(12, grid=grid)
    for name in ("labels", "mr", "ct", "body"):
        assert getattr(first, name).array.tobytes() == getattr(again, name).array.tobytes()
        assert getattr(first, name).array.tobytes() != getattr(other, name).array.tobytes()


def test_the_unit_of_mr_is_arbitrary():
    grid = patient_grid(0, 1, size=24)
    whites = [np.percentile(head(seed, grid=grid).mr.array, 95) for seed in range(6)]
    assert max(whites) > 1.3 * min(whites)


def test_a_grid_of_air_is_scanned_too():
    phantom = head(0, grid=Grid.regular((2, 3, 4), origin_mm=(300, 0, 0)))
    assert not phantom.body.array.any()
    assert phantom.ct.array.max() < -950


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="seed -1"):
        head(-1)


# --- the cohort -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "scans", num_patients=2, seed=3, size=48)


@pytest.mark.parametrize("number", [1, 2])
def test_a_written_patient_reads_back_as_it_was(cohort, number):
    grid = patient_grid(3, number, size=48)
    phantom = head(3000 + number, grid=grid)
    for name in ("mr", "ct", "body.nii.gz"):
        back = medgan.read(cohort / f"PHANTOM0{number}" / name).reorient(grid.orientation)
        assert back.grid.same_as(grid, tolerance_mm=1e-3)
        assert np.array_equal(back.array, getattr(phantom, name.split(".")[0]).array)
        assert back.synthetic is not None


def test_series_of_a_patient_share_study_and_frame_of_reference(cohort):
    def uids(number: int, name: str) -> tuple[str, str]:
        file = pydicom.dcmread(sorted((cohort / f"PHANTOM0{number}" / name).iterdir())[0])
        assert file.PatientID == f"PHANTOM0{number}"
        assert name.upper() == file.Modality
        return file.StudyInstanceUID, file.FrameOfReferenceUID

    assert uids(1, "mr") == uids(1, "ct")
    assert uids(2, "mr") == uids(2, "ct")
    assert not set(uids(1, "mr")) & set(uids(2, "mr"))


def test_grids_of_patients_are_oblique_anisotropic_and_differ():
    grids = [patient_grid(0, number) for number in range(1, 7)]
    assert [grid.orientation for grid in grids] == ["LPS", "LPI"] * 3
    for grid in grids:
        x, y, z = grid.spacing_mm
        assert x == pytest.approx(y)
        assert 1.6 <= x <= 2.2
        assert 3 <= z <= 4.3
        assert np.abs(np.abs(grid.direction) - np.eye(3)).max() > 0.005
    assert len({grid.affine.tobytes() for grid in grids}) == 6


def test_an_older_cohort_is_not_overwritten(cohort):
    with pytest.raises(OutputError, match="PHANTOM01"):
        write_cohort(cohort, num_patients=1, seed=0, size=16)


@pytest.mark.parametrize(
    "wrong", [{"num_patients": 0}, {"num_patients": 1, "size": 4}, {"num_patients": 1, "seed": -2}]
)
def test_a_cohort_of_odd_numbers_is_refused(tmp_path, wrong):
    with pytest.raises(InputError, match="give"):
        write_cohort(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


# --- what it is drawn with --------------------------------------------------------------------------------------------


def test_distances_to_a_ball_and_a_tube():
    points = np.array([[13, 0, 0], [0, 0, 8], [0, 3, 4]], np.float32).T
    assert Ball((0, 0, 0), (10, 10, 10)).distance(points) == pytest.approx([3, -2, -5], abs=1e-4)
    tube = Tube(((0, 0, 0), (10, 0, 0)), (2, 2))
    assert tube.distance(points) == pytest.approx([1, 6, 3], abs=1e-4)


@given(turn=st.tuples(*[st.floats(-180, 180)] * 3), radii=st.tuples(*[st.floats(1, 30)] * 3))
def test_a_box_holds_its_ball_and_touches_it(turn, radii):
    ball = Ball((5, -3, 2), radii, turn)
    surface = np.random.default_rng(0).standard_normal((3, 4000))
    surface /= np.linalg.norm(surface, axis=0)
    points = rotation(turn) @ (np.array(radii)[:, None] * surface) + np.array([[5], [-3], [2]])
    slack = 0.03 * max(radii)
    assert (points.min(axis=1) >= ball.box[0] - 1e-4).all()
    assert (points.max(axis=1) <= ball.box[1] + 1e-4).all()
    assert np.abs(points.max(axis=1) - ball.box[1]).max() < slack
    assert np.abs(ball.distance(points.astype(np.float32))).max() < 1e-3 * max(radii)


def test_waves_have_mean_zero_and_variance_one():
    points = np.random.default_rng(1).uniform(-5000, 5000, (3, 100_000)).astype(np.float32)
    noise = Waves.drawn(np.random.default_rng(2), wavelength_mm=30)(points)
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.var() == pytest.approx(1, abs=0.03)


def test_a_soft_union_lies_within_a_quarter_of_its_softness_of_the_hard_one():
    a, b = np.random.default_rng(3).uniform(-20, 20, (2, 1000)).astype(np.float32)
    gap = np.minimum(a, b) - join([a, b], 8)
    assert gap.min() > -1e-5
    assert gap.max() == pytest.approx(2, abs=0.1)
