"""Whole images of cases as samplers see them: which slices, where they are cut, in which order they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medgan import Grid, Volume, write
from medgan.cases import Case
from medgan.conditions import Condition
from medgan.errors import GeometryError, InputError
from medgan.jitter import Augment
from medgan.prep import Intensity, SamplingPrep
from medgan.scans import Study, read_study
from medgan.views import Views, image_set, views_of

PLAIN = Augment(flip_axes=(), rotate_deg=0, scale=0, gamma=0, noise=0)
MR = Intensity(modality="MR", range=(0, 1000))


def study(name: str = "p1", *, shape: tuple[int, int, int] = (12, 10, 6), kind: str = "a") -> Study:
    """Each voxel tells its place; the body is a box off the middle."""
    x, y, z = np.indices(shape)
    body = np.zeros(shape, dtype=bool)
    body[2:8, 1:5, 1:4] = True
    body[2:4, 1:3, 4] = True
    values = (x + 100 * y + 10_000 * z).astype(np.float32)
    return Study(name, name, torch.from_numpy(values)[None], body, {"kind": kind})


def test_slices_are_those_with_enough_of_the_body() -> None:
    """24 voxels in the largest slices, 4 in the one above them."""
    assert [view.place for view in views_of([study()], (12, 10, 1), 0.5)] == [1, 2, 3]
    assert [view.place for view in views_of([study()], (12, 10, 1), 0.1)] == [1, 2, 3, 4]
    assert [view.name for view in views_of([study()], (12, 10, 1), 1)] == ["p1_001", "p1_002", "p1_003"]
    assert [view.name for view in views_of([study()], (12, 10, 6), 0.5)] == ["p1"]
    assert [view.place for view in views_of([study()], (1, 10, 6), 0.5)] == list(range(2, 8))


def test_an_image_lies_in_the_middle_of_the_body_or_of_the_scan() -> None:
    """Along x the patch is smaller: the body's middle, 5, within it. Along y it is larger: the scan's."""
    image = Views(views_of([study()], (4, 14, 1), 0.5), (4, 14, 1), PLAIN, 0).all
    assert image.x.shape == (3, 1, 4, 14)
    first = image.x[0, 0]
    assert first[:, 2:12].tolist() == [[x + 100 * y + 10_000 for y in range(10)] for x in range(3, 7)]
    assert (first[:, :2] == -1).all()
    assert (first[:, 12:] == -1).all()


def test_a_patch_is_not_moved_beyond_the_scan_for_the_body() -> None:
    """The body's middle is 3 along y; a patch of 8 of 10 voxels would begin before the first."""
    image = Views(views_of([study()], (12, 8, 1), 0.5), (12, 8, 1), PLAIN, 0).all
    assert image.x[0, 0, 0].tolist() == [100 * y + 10_000 for y in range(8)]


def test_every_image_comes_once_before_any_comes_again_and_hangs_on_its_place_alone() -> None:
    views = Views(views_of([study(), study("p2")], (12, 10, 1), 0.5), (12, 10, 1), PLAIN, 3)
    seen = [float(views[item]["b"].mean()) for item in range(12)]
    assert sorted(seen[:6]) == sorted(seen[6:])
    again = Views(views.data, (12, 10, 1), PLAIN, 3)
    assert [float(again[item]["b"].mean()) for item in (7, 2, 9)] == [seen[7], seen[2], seen[9]]


def test_balanced_classes_come_equally_often() -> None:
    studies = [study("p1", kind="a"), study("p2", kind="b"), study("p3", kind="b"), study("p4", kind="b")]
    kinds = {"kind": Condition(classes=("a", "b"))}
    size = (12, 10, 6)
    views = Views(views_of(studies, size, 0.5), size, PLAIN, 0, conditions=kinds, balance="kind")
    drawn = torch.stack([views[item]["condition"] for item in range(12)])
    assert drawn.sum(0).tolist() == [6, 6]
    plain = Views(views.data, size, PLAIN, 0, conditions=kinds)
    assert torch.stack([plain[item]["condition"] for item in range(12)]).sum(0).tolist() == [3, 9]


def test_a_moved_image_stays_in_range_and_size() -> None:
    prepared = study()
    moved = Study("p1", "p1", prepared.x / 60_000, prepared.body, prepared.conditions)
    views = Views(
        views_of([moved], (8, 8, 1), 0.5),
        (8, 8, 1),
        Augment(flip_axes=(0,), rotate_deg=20, scale=0.2, gamma=0, noise=0),
        0,
    )
    images = torch.stack([views[item]["b"] for item in range(9)])
    assert images.shape == (9, 1, 8, 8)
    assert not torch.equal(images[:3], images[3:6])


def case(folder: Path, **volumes: Volume) -> Case:
    for role, volume in volumes.items():
        write(volume, folder / f"{role}.nii.gz")
    return Case("p1", "p1", "train", {role: folder / f"{role}.nii.gz" for role in volumes}, {"kind": "a"})


def test_channels_and_mask_of_a_case(tmp_path: Path) -> None:
    grid = Grid.regular((6, 5, 4), spacing_mm=(2, 2, 2))
    rng = np.random.default_rng(0)
    t1, t2 = (Volume(rng.integers(0, 1000, grid.shape).astype(np.int16), grid, "a.u.", "MR") for _ in range(2))
    mask = Volume(rng.integers(0, 3, grid.shape).astype(np.uint8), grid)
    prep = SamplingPrep(images={"t1": MR, "t2": MR}, mask="mask", spacing_mm=(2, 2, 2))
    seen = read_study(case(tmp_path, t1=t1, t2=t2, mask=mask), prep)
    assert seen.x.shape == (3, 6, 5, 4)
    np.testing.assert_allclose(seen.x[0].numpy(), t1.array / 500 - 1, atol=1e-6)
    np.testing.assert_allclose(seen.x[1].numpy(), t2.array / 500 - 1, atol=1e-6)
    np.testing.assert_array_equal(seen.x[2].numpy(), np.where(mask.array > 0, 1, -1))
    found = image_set([case(tmp_path, t1=t1, t2=t2, mask=mask)], prep, (6, 5, 4), "Reading", conditions=["kind"])
    assert found.names == ["p1"]
    assert found.conditions == {"kind": ["a"]}
    torch.testing.assert_close(found.x[0], seen.x)


def test_channels_on_other_grids_are_refused(tmp_path: Path) -> None:
    one, other = (Grid.regular((6, 5, 4), origin_mm=(x, 0, 0)) for x in (0, 3))
    images = [Volume(np.arange(120, dtype=np.int16).reshape(6, 5, 4), grid, "a.u.", "MR") for grid in (one, other)]
    prep = SamplingPrep(images={"t1": MR, "t2": MR}, spacing_mm=(1, 1, 1))
    with pytest.raises(GeometryError, match="p1, t2: its grid"):
        read_study(case(tmp_path, t1=images[0], t2=images[1]), prep)


def test_nothing_to_look_at_is_refused() -> None:
    with pytest.raises(InputError, match="no images"):
        image_set([], SamplingPrep(images={"t1": MR}, spacing_mm=(1, 1, 1)), (4, 4, 1), "Reading")
