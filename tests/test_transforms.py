"""The steps of a preparation in MONAI's Compose: what they do there is what medgan prepare does, and can be undone."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cohorts import PLAN, grid_of, inside, places, write_plan, write_table
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    RandAffined,
    ScaleIntensityRanged,
)

from medgan import Grid, Volume, read, write
from medgan.cases import read_cases
from medgan.errors import ConfigError, InputError
from medgan.phantom import head
from medgan.prepare import prepare
from medgan.prepare.place import STAYS, placed
from medgan.prepare.plan import Plan
from medgan.prepare.way import halfway
from medgan.transforms import (
    BiasCorrectd,
    BodyMaskd,
    BrainMaskd,
    FillBackgroundd,
    Harmonised,
    OneGridd,
    Registerd,
)

LOADING = [LoadImaged(["a", "b"]), EnsureChannelFirstd(["a", "b"])]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_table(folder)
    return folder


@pytest.fixture(scope="module")
def files(scans: Path) -> list[dict[str, str]]:
    return [{role: str(path) for role, path in case.images.items()} for case in read_cases(scans / "cases.csv")]


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], np.ndarray]:
    """A head whose CT was moved, with its organs; and how."""
    folder = tmp_path_factory.mktemp("apart")
    phantom = head(2, grid=Grid.regular((50, 60, 42), spacing_mm=(4, 4, 4), origin_mm=(-98, -118, -84)))
    motion = grid_of((2, 2, 2), (1, 1, 1), (3, -4, 6)).affine.copy()
    motion[:3, 3] = [9, -7, 5]
    grid = Grid(phantom.ct.grid.shape, motion @ phantom.ct.grid.affine)
    images = {
        "a": phantom.mr,
        "b": Volume(phantom.ct.array, grid, "HU", "CT"),
        "organs": Volume(phantom.labels.array, grid, "label"),
    }
    return {role: str(write(image, folder / f"{role}.nii.gz")) for role, image in images.items()}, motion


def as_volume(image: MetaTensor, unit: str = "a.u.") -> Volume:
    return Volume(image[0].numpy(), Grid(tuple(image.shape[1:]), image.affine.numpy()), unit)


def chain(*more: Any, **options: Any) -> Compose:
    return Compose([*LOADING, Orientationd(["a", "b"], axcodes="RAS"), *more], **options)


def test_a_chain_makes_what_prepare_makes(scans: Path, files: list[dict[str, str]], tmp_path: Path) -> None:
    """Voxel for voxel what is not interpolated; of the rest the same but for the blur before larger voxels."""
    changes = {"spacing_mm": None, "crop_mm": 0}
    done = prepare(scans / "cases.csv", write_plan(tmp_path / "plan.yaml", **changes), out=tmp_path / "out")
    assert done.exit_code == 0
    steps = chain(
        OneGridd(["a", "b"], "a"),
        BodyMaskd("b", unit="HU", modality="CT"),
        FillBackgroundd(["a", "b"], value=[0, -1000]),
        CropForegroundd(["a", "b", "mask"], source_key="mask", margin=0, allow_smaller=False),
        ScaleIntensityRanged("b", -1000, 2000, -1000, 2000, clip=True),
    )
    for k, item in enumerate(files):
        made = steps(item)
        out = {role: read(tmp_path / "out" / f"p{k}" / f"{role}.nii.gz") for role in ("a", "b", "mask")}
        onto = {role: as_volume(made[role]) for role in out}
        mask, other = (placed(one["mask"], STAYS, out["a"].grid, order=0).array > 0 for one in (out, onto))
        assert 2 * (mask & other).sum() / (mask.sum() + other.sum()) > 0.97
        a, b = (placed(onto[role], STAYS, out["a"].grid, outside=0).array for role in ("a", "b"))
        both = mask & other
        assert np.array_equal(np.rint(a)[both], out["a"].array[both])
        deep = inside(places(out["b"].grid), k) > 0.35
        assert np.abs(b - out["b"].array)[deep & both].max() < 3


@pytest.mark.parametrize("axes", ["RAS", "SPL"])
def test_one_grid_is_that_of_prepare_and_comes_back(files: list[dict[str, str]], axes: str) -> None:
    steps = Compose([*LOADING, Orientationd(["a", "b"], axcodes=axes), OneGridd(["a", "b"], "a", (3, 4, 5))])
    made, raw = steps(files[1]), Compose(LOADING)(files[1])
    volumes = {role: read(Path(path)) for role, path in files[1].items()}
    plan = Plan.parse({**PLAN, "orientation": axes, "spacing_mm": [3, 4, 5], "crop_mm": None})
    reference = halfway(volumes, plan).volumes["a"]
    for role in ("a", "b"):
        assert as_volume(made[role]).grid.same_as(reference.grid, tolerance_mm=1e-3)
    back = steps.inverse(made)
    for role in ("a", "b"):
        assert back[role].shape == raw[role].shape
        assert np.allclose(back[role].affine, raw[role].affine, atol=1e-4)
        grid = as_volume(raw[role]).grid
        deep = inside(places(grid), 1) > 0.45
        assert np.abs(back[role][0].numpy() - raw[role][0].numpy())[deep].mean() < 15


def test_lazy_gives_the_same_place_and_nearly_the_same_values(files: list[dict[str, str]]) -> None:
    now, later = (
        Compose([*LOADING, Orientationd(["a", "b"], axcodes="RAS"), OneGridd(["a", "b"], "a", (4, 4, 4))], lazy=lazy)
        for lazy in (False, True)
    )
    one, other = now(files[2]), later(files[2])
    for role in ("a", "b"):
        assert not other[role].pending_operations
        assert as_volume(one[role]).grid.same_as(as_volume(other[role]).grid, tolerance_mm=1e-3)
        deep = inside(places(as_volume(one[role]).grid), 2) > 0.45
        assert np.abs(one[role][0].numpy() - other[role][0].numpy())[deep].mean() < 5


def test_registration_comes_back(apart: tuple[dict[str, str], np.ndarray]) -> None:
    files, motion = apart
    keys = ["a", "b", "organs"]
    steps = Compose(
        [LoadImaged(keys), EnsureChannelFirstd(keys), Registerd("b", "a", along={"organs": "b"}, outside=-1000)]
    )
    raw, made = Compose(steps.transforms[:2])(files), steps(files)
    assert made["b"].shape == made["a"].shape == made["organs"].shape
    assert np.allclose(made["b"].affine, made["a"].affine)
    labels = made["organs"][0].numpy()
    body = raw["organs"][0].numpy() > 0
    assert (labels == raw["organs"][0].numpy())[body].mean() > 0.9  # the voxels were moved in the world alone
    found = np.array(made["b"].applied_operations[-1]["extra_info"]["matrix"])
    skin = places(as_volume(raw["a"]).grid)[body][::50]
    distance = skin @ (found - motion)[:3, :3].T + (found - motion)[:3, 3]
    assert np.linalg.norm(distance, axis=1).mean() < 1
    back = steps.inverse(made)
    assert np.allclose(back["b"].affine, raw["b"].affine, atol=1e-4)
    assert (back["organs"][0].numpy() == raw["organs"][0].numpy()).mean() > 0.95
    assert set(np.unique(back["organs"])) <= set(np.unique(raw["organs"]))


def test_what_was_made_of_an_image_is_brought_back_to_its_grid(files: list[dict[str, str]]) -> None:
    """Invertd, as after a network."""
    steps = chain(OneGridd(["a", "b"], "a", (4, 4, 4)))
    made = steps(files[0])
    made["pred"] = MetaTensor(made["b"] * 2).copy_meta_from(made["b"])
    undo = Invertd("pred", steps, orig_keys="b", nearest_interp=False)
    back, raw = undo(made)["pred"], Compose(LOADING)(files[0])["b"]
    assert back.shape == raw.shape
    deep = inside(places(as_volume(raw).grid), 0) > 0.5
    assert np.abs(back[0].numpy() / 2 - raw[0].numpy())[deep].mean() < 15


def test_workers_and_caches(files: list[dict[str, str]]) -> None:
    steps = chain(
        OneGridd(["a", "b"], "a", (6, 6, 6)),
        BodyMaskd("b", unit="HU", modality="CT"),
        FillBackgroundd(["a", "b"], "mask", [0, -1000]),
        CropForegroundd(["a", "b", "mask"], source_key="mask"),
    )
    again = pickle.loads(pickle.dumps(steps))
    one = steps(files[0])
    assert torch.equal(again(files[0])["b"], one["b"])
    for loader in (
        DataLoader(Dataset(files[:3], steps), batch_size=1, num_workers=2),
        DataLoader(
            CacheDataset(files[:3], Compose([*steps.transforms, RandAffined(["a", "b"], prob=0)]), progress=False)
        ),
    ):
        batches = list(loader)
        assert len(batches) == 3
        assert torch.equal(batches[0]["b"][0], one["b"])
        assert np.allclose(batches[0]["b"].affine[0], one["b"].affine)
        assert set(np.unique(batches[0]["mask"])) == {0, 1}


def test_bias_is_taken_out(files: list[dict[str, str]], scans: Path, tmp_path: Path) -> None:
    from cohorts import mr, scan_grids

    grid = scan_grids(0)[0]
    biased = write(mr(grid, 0, bias=0.4), tmp_path / "a.nii.gz")
    steps = Compose([LoadImaged("a"), EnsureChannelFirstd("a"), BiasCorrectd("a")])
    raw, made = (one({"a": str(biased)})["a"] for one in (Compose(steps.transforms[:2]), steps))
    assert np.allclose(raw.affine, made.affine)
    at, deep = places(grid), inside(places(grid), 0) > 0.3
    side = at[..., 0] > 3
    tilt = [float(one[0].numpy()[deep & side].mean() / one[0].numpy()[deep & ~side].mean()) for one in (raw, made)]
    assert tilt[0] > 1.25
    assert abs(tilt[1] - 1) < 0.5 * abs(tilt[0] - 1)


def test_a_cohorts_scale_in_a_chain(scans: Path, tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.yaml", spacing_mm=None)
    prepare(scans / "cases.csv", plan, ["images.a.harmonise={name: nyul}"], out=tmp_path / "out")
    prepare(scans / "cases.csv", plan, out=tmp_path / "raw")
    keys = ["a", "mask"]
    steps = Compose(
        [LoadImaged(keys), EnsureChannelFirstd(keys), Harmonised("a", tmp_path / "out" / "harmonisation.json")]
    )
    steps = pickle.loads(pickle.dumps(steps))
    for k in range(5):
        made = steps({role: str(tmp_path / "raw" / f"p{k}" / f"{role}.nii.gz") for role in keys})["a"]
        reference = read(tmp_path / "out" / f"p{k}" / "a.nii.gz")
        assert np.allclose(made[0].numpy(), reference.array, rtol=1e-5, atol=1e-5)
        assert np.allclose(made.affine, reference.grid.affine, atol=1e-4)
    with pytest.raises(ConfigError, match="b"):
        Harmonised("b", tmp_path / "out" / "harmonisation.json")


def test_what_cannot_be_is_said(files: list[dict[str, str]]) -> None:
    with pytest.raises(InputError, match="name one"):
        BodyMaskd(["a", "b"])
    with pytest.raises(InputError, match="name one"):
        BrainMaskd(["a", "b"])
    with pytest.raises(InputError, match="goes along with an image that is not moved"):
        Registerd("b", "a", along={"organs": "c"})
    with pytest.raises(InputError, match="3 values are given for 2 keys"):
        FillBackgroundd(["a", "b"], value=[1, 2, 3])
    with pytest.raises(InputError, match="an item has no mask"):
        FillBackgroundd("a")(Compose(LOADING)(files[0]))
    with pytest.raises(InputError, match="MetaTensor"):
        BodyMaskd("a")({"a": torch.zeros(1, 4, 4, 4)})


def test_missing_images_are_left_out_where_that_is_allowed(files: list[dict[str, str]]) -> None:
    alone = Compose([LoadImaged("a"), EnsureChannelFirstd("a")])({"a": files[0]["a"]})
    made = OneGridd(["a", "b"], "a", (6, 6, 6), allow_missing_keys=True)(alone)
    assert "b" not in made
    assert as_volume(made["a"]).grid.spacing_mm == pytest.approx((6, 6, 6))


def test_a_table_of_synthetic_images_keeps_its_marks(files: list[dict[str, str]]) -> None:
    item = Compose(LOADING)(files[0])
    item["a"].meta["synthetic"] = "pix2pix"
    made = FillBackgroundd("a", "mask", 0.0)(BodyMaskd("b", unit="HU", modality="CT")(OneGridd(["a", "b"], "a")(item)))
    assert made["a"].meta["synthetic"] == "pix2pix"
