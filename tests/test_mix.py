"""Synthetic sets and random transforms in people's own MONAI code: loaders, caches, workers, seeds, and the marks."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import untrained_run
from conftest import tiny_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, ThreadDataLoader, decollate_batch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Flipd,
    Lambdad,
    LoadImaged,
    Orientationd,
    RandCropByPosNegLabeld,
    RandGaussianNoised,
    ScaleIntensityd,
    SelectItemsd,
    SqueezeDimd,
)
from monai.utils import set_determinism

from medgan import Grid, Volume, read, write
from medgan.augment import mix
from medgan.augment.mix import MixedDataset, SyntheticDataset
from medgan.augment.sample import sample
from medgan.augment.sources import made_by
from medgan.augment.transforms import RandSample, RandSampled, RandTranslate, RandTranslated
from medgan.augment.translated import augment
from medgan.cases import Case, read_cases, write_cases
from medgan.errors import CasesError, GeometryError, InputError, RunError
from medgan.phantom.images import write_images
from medgan.run import Run, SamplingRun, open_run, open_sampling_run
from medgan.sampling import latent
from medgan.train import train
from medgan.translate import translate_volume

CONFIG = """
cases: set/cases.csv
prep:
  images:
    image: {modality: MR, range: [0, 1000]}
  spacing_mm: [1, 1, 2]
patch: [16, 12, 1]
conditions: {class: {classes: [healthy, lesion]}}
model: {name: cgan, width: 4, width_d: 4, latent_size: 8}
train: {steps: 2, batch: 8, lr: 0.001, ema: 0.9, validate_every: 2, checkpoint_every: 2, log_every: 1}
samples: 32
"""
LOADING = (LoadImaged(("image",), reader="NibabelReader"), EnsureChannelFirstd(("image",)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of phantoms, a sampler's run of slices and one of volumes with masks (axes PLS), and a set by each."""
    folder = tmp_path_factory.mktemp("mix")
    for name, size, with_mask in (("flat", (16, 12), False), ("deep", (12, 16, 12), True)):
        place = folder / name
        write_images(place / "set", num=24, size=size, spatial_dims=len(size), seed=1, with_mask=with_mask)
        text = CONFIG if name == "flat" else CONFIG.replace("[16, 12, 1]", "[16, 12, 12]").replace("1, 1, 2", "1, 1, 1")
        if with_mask:
            text = text.replace("  spacing_mm", "  mask: mask\n  axes: PLS\n  spacing_mm")
        (place / "c.yaml").write_text(text)
        train(place / "c.yaml", out=place / "run", device="cpu")
        sample(place / "run", place / "made", num=10, seed=5, least_patients=1, device="cpu")
    return folder


@pytest.fixture(scope="module")
def translator(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return untrained_run(tmp_path_factory.mktemp("runs") / "run", tiny_cohort / "tiny.yaml")


@pytest.fixture
def flat(home: Path) -> SamplingRun:
    return open_sampling_run(home / "flat" / "run")


@pytest.fixture
def deep(home: Path) -> SamplingRun:
    return open_sampling_run(home / "deep" / "run")


def real_files(home: Path, *more: str, num: int = 8) -> list[dict[str, Any]]:
    """The list of dicts that people give to MONAI."""
    cases = read_cases(home / "flat" / "set" / "cases.csv")[:num]
    return [{"image": str(case.images["image"]), "class": case.conditions["class"]} for case in cases]


def squeezed(x: MetaTensor) -> MetaTensor:
    """(C, X, Y, 1) to (C, X, Y): at the top of the module, since workers get it pickled."""
    return x.squeeze(-1)


FLAT = (*LOADING, Lambdad("image", squeezed))


def slice_of(values: float = 300.0, shape: tuple[int, ...] = (1, 16, 12), **meta: Any) -> MetaTensor:
    """An image of the size of the run of slices, with one voxel of twice its value."""
    x = torch.full(shape, values)
    x[0, 3, 4] *= 2
    return MetaTensor(x, affine=torch.eye(4, dtype=torch.float64), meta=meta)


def expected(run: SamplingRun, seed: int, shown: str) -> torch.Tensor:
    """(C, *patch without its flat axis) in [-1, 1]: what the generator makes, without any code of this part."""
    z = latent(seed, [0], run.config.model.latent_size)
    asked = torch.tensor([[float(shown == one) for one in run.config.conditions["class"].classes]])
    with torch.no_grad():
        return run.sampler().sample(z, asked)[0]


# --- sets -------------------------------------------------------------------------------------------------------------


def test_items_are_what_the_files_hold(home: Path) -> None:
    data = SyntheticDataset(home / "deep" / "made")
    cases = read_cases(home / "deep" / "made" / "cases.csv")
    assert len(data) == len(cases) == 10
    for item, case in zip(data, cases, strict=True):
        assert set(item) == {"image", "label", "class", "synthetic"}
        for key, role in (("image", "image"), ("label", "mask")):
            volume = read(case.images[role])
            np.testing.assert_array_equal(item[key].numpy()[0], volume.array)
            np.testing.assert_array_equal(item[key].affine.numpy(), volume.grid.affine)
            assert item[key].dtype == torch.float32
            assert item[key].meta["synthetic"] == made_by(volume.synthetic) != ""
            assert item[key].meta["filename_or_obj"] == str(case.images[role])
        assert (item["class"], item["synthetic"]) == (case.conditions["class"], True)


def test_items_are_what_monai_would_read(home: Path) -> None:
    data = SyntheticDataset(home / "deep" / "made")
    files = [{"image": str(case.images["image"])} for case in read_cases(home / "deep" / "made" / "cases.csv")]
    for own, other in zip(data, Dataset(files, Compose(LOADING)), strict=True):
        assert own["image"].shape == other["image"].shape == (1, 16, 12, 12)
        torch.testing.assert_close(own["image"].as_tensor(), other["image"].as_tensor())
        torch.testing.assert_close(own["image"].affine, other["image"].affine)


def test_slices_are_two_dimensional(home: Path) -> None:
    item = SyntheticDataset(home / "flat" / "made")[0]
    assert item["image"].shape == (1, 16, 12)
    assert item["image"].pixdim.tolist()[:2] == [1, 1]
    flipped = Flipd("image", spatial_axis=0)(item)["image"]
    np.testing.assert_array_equal(flipped.numpy(), item["image"].numpy()[:, ::-1])


@pytest.mark.parametrize("form", ["png", "dicom", "npz"])
def test_sets_of_all_formats(home: Path, tmp_path: Path, form: str) -> None:
    sample(home / "flat" / "run", tmp_path / "set", num=2, seed=5, least_patients=1, format=form, device="cpu")
    for one, other in zip(SyntheticDataset(tmp_path / "set"), SyntheticDataset(home / "flat" / "made"), strict=False):
        turned = read(Path(one["image"].meta["filename_or_obj"])).reorient("RAS").array[..., 0]
        np.testing.assert_allclose(turned, other["image"].numpy()[0], atol=0.6)
        assert one["image"].meta["synthetic"] == other["image"].meta["synthetic"]


def test_own_transforms_come_behind_loading(home: Path) -> None:
    own = Compose([Orientationd(("image", "label"), "LPS", labels=None), ScaleIntensityd("image")])
    item = SyntheticDataset(home / "deep" / "made", own)[0]
    plain = SyntheticDataset(home / "deep" / "made")[0]
    values = read(Path(plain["image"].meta["filename_or_obj"])).reorient("LPS").array
    span = values.max() - values.min()
    np.testing.assert_allclose(item["image"].numpy()[0], (values - values.min()) / span, atol=1e-6)
    assert item["image"].meta["synthetic"] == plain["image"].meta["synthetic"]


def test_part_of_a_set(home: Path, tmp_path: Path) -> None:
    cases = read_cases(home / "flat" / "made" / "cases.csv")[3:5]
    table = write_cases(cases, tmp_path / "selection.csv")
    data = SyntheticDataset(home / "flat" / "made", table=table)
    assert [item["class"] for item in data] == [case.conditions["class"] for case in cases]


def test_images_without_a_mark_are_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "flat" / "made", tmp_path / "set")
    real = Path(real_files(home)[0]["image"])
    victim = read_cases(tmp_path / "set" / "cases.csv")[2].images["image"]
    shutil.copy(real, victim)
    with pytest.raises(InputError, match=f"do not say that they are synthetic.*{victim.name}"):
        SyntheticDataset(tmp_path / "set")


def test_what_is_no_set_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: cannot be read as a manifest"):
        SyntheticDataset(home / "flat" / "set")
    with pytest.raises(CasesError, match=r"cases\.csv"):
        SyntheticDataset(tmp_path)


def test_keys_that_clash_or_are_not_there_are_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "deep" / "made", tmp_path / "set")
    table = tmp_path / "set" / "cases.csv"
    table.write_text(table.read_text().replace("condition:class", "condition:label"))
    with pytest.raises(InputError, match=r"would be called label"):
        SyntheticDataset(tmp_path / "set")
    assert set(SyntheticDataset(tmp_path / "set", labels={"mask": "mask"})[0]) == {
        "image", "mask", "label", "synthetic",
    }  # fmt: skip
    assert set(SyntheticDataset(tmp_path / "set", labels={})[0]) == {"image", "label", "synthetic"}
    with pytest.raises(InputError, match=r"no label image organ .there are: mask"):
        SyntheticDataset(tmp_path / "set", labels={"label": "organ"})
    lines = table.read_text().splitlines()
    cells = lines[4].split(",")
    lines[4] = ",".join("" if cell.endswith("_mask.nii.gz") else cell for cell in cells)
    table.write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"{cells[0]} has no mask"):
        SyntheticDataset(tmp_path / "set", labels={"mask": "mask"})


@pytest.fixture(scope="module")
def augmented(translator: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labelled MR of four patients and the set `train` that is made of three of them, `test` of one."""
    folder = tmp_path_factory.mktemp("augmented")
    cases = []
    for number, split in enumerate(("train", "train", "train", "test")):
        mr, ct = tiny_pair(number)
        label = Volume((ct.array > -500).astype(np.uint8), ct.grid, "label").reorient("LPS")
        images = {"a": write(mr, folder / f"q{number}.nii.gz"), "organ": write(label, folder / f"q{number}_o.nii.gz")}
        cases.append(Case(f"q{number}", f"q{number}", split, images, {"class": "c"} if number else {}))
    write_cases(cases, folder / "t.csv")
    for split in ("train", "test"):
        augment(translator, folder / "t.csv", folder / split, split=split, device="cpu")
    return folder


def test_an_augmented_table_comes_with_its_labels(augmented: Path) -> None:
    data = SyntheticDataset(augmented / "train")
    assert [item["class"] for item in data] == ["", "c", "c"]
    for item, case in zip(data, read_cases(augmented / "train" / "cases.csv"), strict=True):
        image = read(case.images["b"])
        np.testing.assert_array_equal(item["image"].numpy()[0], image.array)
        np.testing.assert_array_equal(
            item["label"].numpy()[0], read(augmented / f"{case.name}_o.nii.gz").reorient("RAS").array
        )
        assert item["image"].meta["synthetic"].startswith("MR to CT by pix2pix")
        assert item["label"].meta["synthetic"] == ""


def test_images_of_held_out_patients_come_only_when_asked_for(augmented: Path) -> None:
    with pytest.raises(InputError, match="no image in the split train, but in test"):
        SyntheticDataset(augmented / "test")
    assert len(SyntheticDataset(augmented / "test", split="test")) == 1


def test_a_label_that_was_moved_since_is_refused(augmented: Path, tmp_path: Path) -> None:
    shutil.copytree(augmented, tmp_path / "all")
    label = read(tmp_path / "all" / "q1_o.nii.gz")
    write(replace(label, array=label.array[:, :, ::-1]).crop((0, 0, 0), (24, 20, 7)), tmp_path / "all" / "q1_o.nii.gz")
    table = tmp_path / "all" / "train" / "cases.csv"
    table.write_text(table.read_text().replace(str(augmented), str(tmp_path / "all")))
    data = SyntheticDataset(tmp_path / "all" / "train")
    assert data[0]["label"].shape == (1, 24, 20, 8)
    with pytest.raises(GeometryError, match="q1: organ is not on the grid of its image"):
        data[1]


# --- mixed ------------------------------------------------------------------------------------------------------------


def numbers(count: int, sign: int = 1) -> list[dict[str, int]]:
    return [{"image": sign * (number + 1)} for number in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    real=st.integers(0, 30),
    made=st.integers(0, 60),
    ratio=st.floats(0, 3),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
)
def test_as_many_as_asked_for_and_never_more(real: int, made: int, ratio: float, seed: int, epoch: int) -> None:
    if int(ratio * real + 1e-9) > made:
        with pytest.raises(InputError, match="make more, or lower it"):
            MixedDataset(numbers(real), numbers(made, -1), ratio, seed)
        return
    mixed = MixedDataset(numbers(real), numbers(made, -1), ratio, seed)
    mixed.set_epoch(epoch)
    items = list(mixed)
    drawn = [item["image"] for item in items if item["synthetic"]]
    assert [item["image"] for item in items if not item["synthetic"]] == [number + 1 for number in range(real)]
    assert len(mixed) == len(items) == real + len(drawn)
    assert len(drawn) <= ratio * real + 1e-6 < len(drawn) + 1 + 1e-6
    assert len(set(drawn)) == len(drawn)
    assert [mixed.is_synthetic(index) for index in range(len(mixed))] == [item["synthetic"] for item in items]
    assert all(mixed[index] == items[index] for index in reversed(range(len(mixed))))


def test_each_epoch_is_another_draw_and_comes_again(home: Path) -> None:
    mixed = MixedDataset(numbers(10), numbers(40, -1), ratio=1, seed=3)
    draws = []
    for epoch in (0, 1, 2, 1):
        mixed.set_epoch(epoch)
        draws.append([item["image"] for item in mixed][10:])
    assert draws[1] == draws[3]
    assert len({tuple(draw) for draw in draws}) == 3
    other = MixedDataset(numbers(10), numbers(40, -1), ratio=1, seed=4)
    assert [item["image"] for item in other][10:] != draws[0]
    seen: Counter[int] = Counter()
    for epoch in range(400):
        mixed.set_epoch(epoch)
        seen.update(mixed.place(index) for index in range(10, 20))
    assert len(seen) == 40
    assert max(abs(count - 100) for count in seen.values()) < 50  # 100 on average, √75 the standard deviation


def test_negative_places_and_the_end_are_those_of_a_list() -> None:
    mixed = MixedDataset(numbers(3), numbers(3, -1), ratio=1)
    assert mixed[-6] == {"image": 1, "synthetic": False}
    assert mixed[-1] == mixed[5]
    assert mixed.is_synthetic(-1)
    with pytest.raises(IndexError):
        mixed[6]
    assert len(mixed[2:4]) == 2


@pytest.mark.parametrize(("ratio", "seed"), [(-0.1, 0), (float("nan"), 0), (float("inf"), 0), (1, -1)])
def test_odd_ratios_and_seeds_are_refused(ratio: float, seed: int) -> None:
    with pytest.raises(InputError, match="are 0 or more"):
        MixedDataset(numbers(3), numbers(3), ratio, seed)
    with pytest.raises(InputError, match="counted from 0"):
        MixedDataset(numbers(3), numbers(3)).set_epoch(-1)


def test_items_of_other_kinds_are_refused() -> None:
    with pytest.raises(InputError, match=r"items of a mixed set are dicts.*tuple"):
        MixedDataset([(1, 2)], numbers(1))[0]
    mixed = MixedDataset([{"image": 1}], [{"image": 2, "class": "x"}])
    _ = mixed[0]
    with pytest.raises(InputError, match=r"real items have the keys image, synthetic, and synthetic ones class, image"):
        mixed[1]
    alike = MixedDataset([{"image": 1}], [{"image": 2, "class": "x"}], transform=SelectItemsd(("image", "synthetic")))
    assert [item["image"] for item in alike] == [1, 2]


def test_crops_of_an_item_all_say_what_it_is(home: Path) -> None:
    crops = RandCropByPosNegLabeld(("image", "label"), "label", (4, 4, 4), num_samples=3)
    real = [{"image": torch.rand(1, 8, 8, 8), "label": torch.ones(1, 8, 8, 8), "class": "x"}]
    mixed = MixedDataset(Dataset(real, crops), SyntheticDataset(home / "deep" / "made", crops))
    (batch,) = DataLoader(mixed, batch_size=2)
    assert batch["image"].shape == (6, 1, 4, 4, 4)
    assert batch["synthetic"].tolist() == [False] * 3 + [True] * 3


def test_a_batch_says_in_its_meta_which_are_synthetic(home: Path) -> None:
    mixed = MixedDataset(Dataset(real_files(home, num=2), Compose(FLAT)), SyntheticDataset(home / "flat" / "made"))
    (batch,) = DataLoader(mixed, batch_size=4)
    assert batch["synthetic"].tolist() == [False, False, True, True]
    said = [one["image"].meta["synthetic"] for one in decollate_batch(batch)]
    assert said[:2] == ["", ""]
    assert all(text.startswith("MR made of random numbers by cgan") for text in said[2:])


@pytest.mark.parametrize("way", [SqueezeDimd("image", dim=-1), Lambdad("image", squeezed)])
def test_slices_of_all_ways_go_into_one_batch(home: Path, way: Any) -> None:
    """MONAI leaves an affine of (3, 3) where an axis was squeezed by its own transform, and else of (4, 4)."""
    real = Dataset(real_files(home, num=2), Compose([*LOADING, way]))
    mixed = MixedDataset(real, SyntheticDataset(home / "flat" / "made"))
    (batch,) = DataLoader(mixed, batch_size=4)
    assert batch["image"].affine.shape == (4, 4, 4)
    np.testing.assert_array_equal(batch["image"][0].affine[:2, :2].numpy(), real[0]["image"].affine[:2, :2].numpy())
    made = RandSampled("image", home / "flat" / "run", prob=1)(real[0])["image"]
    assert made.affine.shape == real[0]["image"].affine.shape


def test_what_is_cached_stays_as_it_is() -> None:
    """Marks are put on what is given out, not into other people's items."""
    item = {"image": slice_of()}
    mixed = MixedDataset([item], [{"image": slice_of()}])
    assert mixed[0]["image"].meta["synthetic"] == ""
    assert mixed[1]["image"].meta["synthetic"] == "synthetic"
    assert set(item) == {"image"}
    assert "synthetic" not in item["image"].meta


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_draw_the_same_in_every_epoch(home: Path, persistent: bool) -> None:
    """Also workers that live on, which got their copy of the set before the epoch was set."""
    real = Dataset(real_files(home, num=4), Compose(FLAT))
    mixed = MixedDataset(real, SyntheticDataset(home / "flat" / "made"), ratio=1, seed=1)
    loader = DataLoader(mixed, batch_size=4, num_workers=2, persistent_workers=persistent)
    for epoch in range(3):
        mixed.set_epoch(epoch)
        alone = torch.cat([batch["image"].as_tensor() for batch in DataLoader(mixed, batch_size=4)])
        shared = torch.cat([batch["image"].as_tensor() for batch in loader])
        assert torch.equal(alone, shared)


def test_a_cache_reads_each_image_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    monkeypatch.setattr(mix, "read", lambda path: (reads.append(path), read(path))[1])
    noise = RandGaussianNoised("image", prob=1)
    cached = CacheDataset(
        SyntheticDataset(home / "flat" / "made"), Compose([ScaleIntensityd("image"), noise]), progress=False
    )
    mixed = MixedDataset(Dataset(real_files(home), Compose(FLAT)), cached, ratio=1)
    seen = []
    for epoch in range(3):
        mixed.set_epoch(epoch)
        seen.append([mixed[index]["image"] for index in range(8, 16)])
    assert len(reads) == 10
    assert seen[0][0].meta["synthetic"].startswith("MR made of")


# --- samples while training -------------------------------------------------------------------------------------------


def test_a_sample_is_what_the_generator_makes_in_the_unit_of_the_files(flat: SamplingRun) -> None:
    transform = RandSample(flat, prob=1, conditions={"class": "lesion"}).set_random_state(1)
    made = transform(slice_of(filename_or_obj="patient7.nii.gz", patient_name="Doe"))
    values = (expected(flat, transform.seed, "lesion") + 1) * 500
    torch.testing.assert_close(made.as_tensor(), values, atol=1e-3, rtol=0)
    assert made.meta["synthetic"] == made_by(flat.synthesis(seed=0, number=0, conditions={}))
    assert made.meta["filename_or_obj"] == f"SYN-{flat.weights_sha256[:8]}-{transform.seed}"
    assert "patient_name" not in made.meta


@pytest.mark.parametrize("side", ["RAS", "LPS", "LAS", "RPS"])
def test_a_sample_lies_as_the_image_does(flat: SamplingRun, side: str) -> None:
    transform = RandSample(flat, prob=1, conditions={"class": "healthy"}).set_random_state(2)
    affine = np.diag([-1.0 if "L" in side else 1.0, -1.0 if "P" in side else 1.0, 1.0, 1.0])
    made = transform(MetaTensor(slice_of().as_tensor(), affine=torch.tensor(affine)))
    values = (expected(flat, transform.seed, "healthy") + 1).numpy() * 500
    values = values[:, :: -1 if "L" in side else 1, :: -1 if "P" in side else 1]
    np.testing.assert_allclose(made.numpy(), values, atol=1e-3)
    np.testing.assert_array_equal(made.affine.numpy(), affine)


def test_a_sample_of_a_seed_is_the_first_image_of_the_set_of_that_seed(home: Path, flat: SamplingRun) -> None:
    first = SyntheticDataset(home / "flat" / "made")[0]
    made, mask = RandSample(flat).source.sampled(slice_of(), 5, {"class": first["class"]})
    torch.testing.assert_close(made.as_tensor(), first["image"].as_tensor(), atol=1e-3, rtol=0)
    assert mask is None


def test_pictures_read_by_monai_lie_as_is_told(home: Path, flat: SamplingRun, tmp_path: Path) -> None:
    """Of the first image of a set as PNG, read by MONAI, and a sample of the same numbers, all pixels agree."""
    sample(home / "flat" / "run", tmp_path / "set", num=1, seed=5, least_patients=1, format="png", device="cpu")
    (case,) = read_cases(tmp_path / "set" / "cases.csv")
    picture = Compose([LoadImaged("image"), EnsureChannelFirstd("image")])({"image": str(case.images["image"])})[
        "image"
    ]
    made, _ = RandSample(flat, axes="LPS").source.sampled(picture, 5, case.conditions)
    np.testing.assert_allclose(made.numpy(), picture.numpy() / 65535 * 1000, atol=0.01)


def test_a_plain_tensor_is_taken_to_lie_as_the_run_does_unless_told(flat: SamplingRun) -> None:
    plain = slice_of().as_tensor()
    as_run = RandSample(flat, prob=1, conditions={"class": "healthy"}).set_random_state(2)(plain)
    told = RandSample(flat, prob=1, conditions={"class": "healthy"}, axes="LPS").set_random_state(2)(plain)
    assert isinstance(as_run, MetaTensor)
    np.testing.assert_array_equal(told.numpy(), as_run.numpy()[:, ::-1, ::-1])


def test_volumes_of_a_run_with_axes_of_its_own_come_with_their_masks(deep: SamplingRun) -> None:
    """The run's axes are posterior, left, superior; the item is an array of right, anterior, superior."""
    transform = RandSampled("image", deep, prob=1, label="label").set_random_state(4)
    image = slice_of(shape=(1, 12, 16, 12))
    label = MetaTensor(torch.zeros(1, 12, 16, 12, dtype=torch.uint8), affine=image.affine)
    item = transform({"image": image, "label": label, "class": "lesion"})
    made = expected(deep, transform.seed, "lesion").numpy()
    turned = made[:, ::-1, ::-1].transpose(0, 2, 1, 3)
    np.testing.assert_allclose(item["image"].numpy()[0], (turned[0] + 1) * 500, atol=1e-3)
    np.testing.assert_array_equal(item["label"].numpy()[0], turned[1] > 0)
    assert item["label"].dtype == torch.uint8
    assert item["label"].meta["synthetic"] == item["image"].meta["synthetic"] != ""
    assert item["synthetic"] is True


def test_samples_have_the_median_of_the_image_that_they_replace(home: Path, tmp_path: Path) -> None:
    """Where the run scales each image by the median of its foreground, 1000 of the run is that median."""
    text = (home / "flat" / "c.yaml").read_text().replace("range: [0, 1000]", "times_median: [0, 2]")
    (tmp_path / "c.yaml").write_text(text.replace("set/", f"{home}/flat/set/"))
    run = train(tmp_path / "c.yaml", out=tmp_path / "run", device="cpu")
    assert isinstance(run, SamplingRun)
    ball = torch.zeros(1, 16, 12)
    ball[0, 4:12, 3:9] = 70.0
    transform = RandSample(run, prob=1, conditions={"class": "lesion"}).set_random_state(1)
    made = transform(MetaTensor(ball, affine=torch.eye(4)))
    torch.testing.assert_close(made.as_tensor(), (expected(run, transform.seed, "lesion") + 1) * 70, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int16, torch.uint8])
def test_samples_have_the_type_of_the_image(flat: SamplingRun, dtype: torch.dtype) -> None:
    plain = RandSample(flat, prob=1, conditions={"class": "lesion"}).set_random_state(1)(slice_of(100))
    made = RandSample(flat, prob=1, conditions={"class": "lesion"}).set_random_state(1)(slice_of(100).to(dtype))
    assert made.dtype == dtype
    wanted = plain.numpy().clip(0, 255) if dtype == torch.uint8 else plain.numpy()
    assert np.abs(made.numpy().astype(np.float64) - wanted).max() <= 0.5


@pytest.mark.parametrize("value", ["lesion", np.str_("lesion")])
def test_what_is_shown_is_what_the_item_says(flat: SamplingRun, value: str) -> None:
    transform = RandSampled("image", flat, prob=1, conditions={"class": "diagnosis"}).set_random_state(3)
    item = transform({"image": slice_of(), "diagnosis": value})
    torch.testing.assert_close(
        item["image"].as_tensor(), (expected(flat, transform.seed, "lesion") + 1) * 500, atol=1e-3, rtol=0
    )
    assert "'shows lesion'" not in item["image"].meta["synthetic"]


def test_the_probability_holds_and_other_images_stay_as_they_are(flat: SamplingRun) -> None:
    transform = RandSampled("image", flat, prob=0.25).set_random_state(0)
    original = slice_of(filename_or_obj="x.nii.gz")
    items = [transform({"image": original, "class": "healthy", "age": 3}) for _ in range(200)]
    share = sum(item["synthetic"] for item in items) / 200
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 200)
    for item in items:
        assert item["synthetic"] == bool(item["image"].meta["synthetic"])
        assert item["synthetic"] or torch.equal(item["image"].as_tensor(), original.as_tensor())
    assert "synthetic" not in original.meta
    kept = next(item for item in items if not item["synthetic"])
    assert kept["image"].meta["filename_or_obj"] == "x.nii.gz"
    assert kept["age"] == 3
    assert len({item["image"].sum().item() for item in items if item["synthetic"]}) > 30


def test_an_item_that_was_synthetic_stays_so(home: Path, flat: SamplingRun) -> None:
    item = RandSampled("image", flat, prob=0)(SyntheticDataset(home / "flat" / "made")[0])
    assert item["synthetic"] is True
    assert item["image"].meta["synthetic"] != ""


def test_misuse_of_samples_is_told(home: Path, flat: SamplingRun, deep: SamplingRun, translator: Run) -> None:
    item = {"image": slice_of(), "class": "lesion"}
    one = RandSampled("image", flat, prob=1)
    for bad, told in (
        (item | {"image": slice_of(shape=(1, 12, 16))}, "an image of 12×16×1 voxels is given, and the run .* 16×12×1"),
        (item | {"image": slice_of(shape=(2, 16, 12))}, "an image of 2 channels is given"),
        (item | {"image": slice_of(0.4)}, "put this transform before those that scale intensities"),
        (item | {"label": torch.ones(1, 16, 12)}, "label: of the size of image, and would not belong"),
        (item | {"class": "cyst"}, "class: 'cyst' is none of the classes healthy, lesion"),
        ({"image": slice_of()}, "an item has no class"),
        (item | {"image": torch.ones(16, 12)}, r"an image is \(C, X, Y\)"),
    ):
        with pytest.raises(InputError, match=told):
            one(bad)
    with pytest.raises(InputError, match="a sample takes the place of one image"):
        RandSampled(("image", "other"), flat)
    with pytest.raises(InputError, match="age: none of the run"):
        RandSampled("image", flat, conditions={"age": "age"})
    with pytest.raises(InputError, match="makes no mask"):
        RandSampled("image", flat, label="label")
    with pytest.raises(InputError, match="truncation is above 0"):
        RandSample(flat, truncation=0)
    with pytest.raises(RunError, match="name the run of a sampler"):
        RandSample(translator.path)
    with pytest.raises(RunError, match="name the run of a translator"):
        RandTranslate(flat.path)
    onehot = {"image": slice_of(shape=(1, 12, 16, 12)), "label": torch.zeros(3, 12, 16, 12), "class": "lesion"}
    with pytest.raises(InputError, match="a mask has one channel"):
        RandSampled("image", deep, prob=1, label="label")(onehot)
    with pytest.raises(KeyError):
        one({"class": "lesion"})
    assert RandSampled("image", flat, prob=1, allow_missing_keys=True)({"class": "x"})["class"] == "x"


# --- translations while training --------------------------------------------------------------------------------------


def item_of(number: int = 0, orientation: str = "RAS", dtype: type = np.float32) -> tuple[dict[str, Any], Volume]:
    mr, ct = (volume.reorient(orientation) for volume in tiny_pair(number))
    image = torch.from_numpy(np.ascontiguousarray(mr.array.astype(dtype)))[None]
    label = torch.from_numpy(np.ascontiguousarray((ct.array > 0).astype(np.uint8)))[None]
    affine = torch.tensor(mr.grid.affine)
    meta = {"filename_or_obj": f"p{number}.nii.gz"}
    return {"image": MetaTensor(image, affine=affine, meta=meta), "label": MetaTensor(label, affine=affine)}, mr


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAL"])
def test_a_translation_is_that_of_medgan_translate_on_the_grid_of_the_item(translator: Run, orientation: str) -> None:
    item, mr = item_of(orientation=orientation)
    made = RandTranslated("image", translator, prob=1)(item)
    wanted = translate_volume(translator, mr, overlap=translator.config.overlap)
    np.testing.assert_array_equal(made["image"].numpy()[0], wanted.array)
    assert torch.equal(made["image"].affine, item["image"].affine)
    assert made["label"] is item["label"]
    assert made["image"].meta["filename_or_obj"] == "p0.nii.gz"
    assert made["image"].meta["synthetic"] == made_by(translator.synthesis())
    assert made["synthetic"] is True
    assert "synthetic" not in item["image"].meta


def test_affines_in_lps_are_understood(translator: Run) -> None:
    """MONAI keeps those of ITK files as they are, if it is told to, and says so."""
    item, mr = item_of()
    flipped = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)) @ item["image"].affine
    image = MetaTensor(item["image"].as_tensor(), affine=flipped, meta={"space": "LPS"})
    made = RandTranslate(translator, prob=1)(image)
    np.testing.assert_array_equal(made.numpy()[0], translate_volume(translator, mr).array)


def test_a_run_of_its_own_axes_and_spacing(tiny_cohort: Path, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", tiny_cohort / "tiny.yaml", "prep.axes=PLS", "prep.spacing_mm=[3, 2, 5]")
    item, mr = item_of(orientation="LPS")
    made = RandTranslated("image", run, prob=1)(item)["image"]
    np.testing.assert_array_equal(made.numpy()[0], translate_volume(run, mr).array)


def test_slices_are_translated_by_a_run_of_slices(translator: Run) -> None:
    item, mr = item_of()
    one = item["image"][..., 4].as_tensor()
    made = RandTranslate(translator, prob=1, axes="RAS")(one)
    volume = Volume(mr.array[..., 4:5], Grid.regular((24, 20, 1)), "a.u.", "MR")
    np.testing.assert_array_equal(made.numpy()[0], translate_volume(translator, volume).array[..., 0])


def test_the_history_of_an_image_goes_on(translator: Run, tiny_cohort: Path) -> None:
    keys = ("image",)
    loading = Compose([*LOADING, Orientationd(keys, "LPS", labels=None)])
    item = loading({"image": str(tiny_cohort / "p1_mr.nii.gz")})
    made = RandTranslated(keys, translator, prob=1)(item)
    back = loading.inverse(made)["image"]
    direct = translate_volume(translator, read(tiny_cohort / "p1_mr.nii.gz"))
    np.testing.assert_allclose(back.numpy().reshape(direct.array.shape), direct.array, atol=1e-3)


def test_all_images_of_an_item_or_none(translator: Run) -> None:
    transform = RandTranslated(("image", "later"), translator, prob=0.5, allow_missing_keys=True).set_random_state(0)
    first, second = item_of(0)[0]["image"], item_of(1)[0]["image"]
    said = []
    for _ in range(12):
        made = transform({"image": first, "later": second})
        said.append((bool(made["image"].meta["synthetic"]), bool(made["later"].meta["synthetic"]), made["synthetic"]))
    assert set(said) == {(True, True, True), (False, False, False)}
    assert transform({"other": 1}).keys() == {"other", "synthetic"}


def test_what_was_synthetic_before_is_told(home: Path, translator: Run) -> None:
    item, _ = item_of()
    item["image"].meta["synthetic"] = "MR by a phantom"
    text = RandTranslated("image", translator, prob=1)(item)["image"].meta["synthetic"]
    assert text.startswith("MR to CT by pix2pix")
    assert text.endswith("of what was: MR by a phantom")


def test_misuse_of_translations_is_told(tiny_cohort: Path, translator: Run, tmp_path: Path) -> None:
    item, _ = item_of()
    back = "prep.a={modality: CT, unit: HU, range: [-1000, 1000]}"
    of_ct = untrained_run(tmp_path / "ct", tiny_cohort / "tiny.yaml", back, "augment.gamma=0")
    blocks = untrained_run(tmp_path / "blocks", tiny_cohort / "tiny.yaml", "patch=[8, 8, 8]")
    contrasts = "prep.contrasts={t2: {modality: MR, times_median: [0, 2]}}"
    from medgan.config import load
    from medgan.run import start_run

    several = start_run(tmp_path / "several", load(tiny_cohort / "tiny.yaml", [contrasts]))
    with pytest.raises(RunError, match="sees a, t2 together"):
        RandTranslate(several.path)
    for run, image, told in (
        (translator, torch.cat([item["image"]] * 2), "an image of 2 channels is given"),
        (translator, item["image"].as_tensor(), "an image without affine is given"),
        (of_ct, item["image"] / 1000, "put this transform before those that scale intensities"),
        (blocks, item["image"][..., 0], "a slice is given"),
    ):
        with pytest.raises(InputError, match=told):
            RandTranslate(run, prob=1)(image)
    with pytest.raises(RunError, match="translates to b alone"):
        RandTranslate(translator, prob=1, to="a")(item["image"])


# --- in people's own code ---------------------------------------------------------------------------------------------


def pipeline(home: Path, prob: float = 0.5) -> Compose:
    """Loading, then a chance of a sample, then more chance."""
    random = [RandSampled("image", home / "flat" / "run", prob=prob), RandGaussianNoised("image", prob=0.5, std=5)]
    return Compose([*FLAT, *random])


def batches_of(loader: DataLoader) -> tuple[torch.Tensor, list[bool]]:
    batches = list(loader)
    told = [synthetic for one in batches for synthetic in one["synthetic"].tolist()]
    return torch.cat([one["image"].as_tensor() for one in batches]), told


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_are_as_repeatable_as_they_are_with_monais_own_transforms(home: Path, workers: int) -> None:
    data = Dataset(real_files(home), pipeline(home))
    passes = []
    for seed in (7, 7, 8):
        set_determinism(seed)
        passes.append(batches_of(DataLoader(data, batch_size=4, num_workers=workers, shuffle=True)))
    set_determinism(None)
    assert torch.equal(passes[0][0], passes[1][0])
    assert passes[0][1] == passes[1][1]
    assert not torch.equal(passes[0][0], passes[2][0])
    assert len(set(passes[0][1])) == 2


@pytest.mark.slow
def test_spawned_workers_open_the_run_themselves(home: Path) -> None:
    data = Dataset(real_files(home, num=2), pipeline(home, prob=1))
    data[0]  # opened here already, and left behind
    loader = DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="spawn")
    assert batches_of(loader)[1] == [True, True]


def test_thread_loaders(home: Path, translator: Run, tiny_cohort: Path) -> None:
    data = Dataset(real_files(home), pipeline(home))
    assert len(batches_of(ThreadDataLoader(data, batch_size=4, num_workers=0))[1]) == 8
    threads = ThreadDataLoader(data, batch_size=2, num_workers=2, use_thread_workers=True)
    assert len(batches_of(threads)[1]) == 8


def test_pickles_leave_the_net_behind_and_copies_share_it(home: Path, translator: Run) -> None:
    for transform, item in (
        (RandSampled("image", home / "flat" / "run", prob=1), {"image": slice_of(), "class": "lesion"}),
        (RandTranslated("image", translator.path, prob=1), item_of()[0]),
    ):
        before = len(pickle.dumps(transform.set_random_state(3)))
        first = transform.set_random_state(3)(item)["image"]
        opened = transform.source.game if isinstance(transform, RandSampled) else transform.source.member
        assert len(pickle.dumps(transform)) < before + 300
        again = pickle.loads(pickle.dumps(transform)).set_random_state(3)(item)["image"]
        assert torch.equal(first.as_tensor(), again.as_tensor())
        twin = copy.deepcopy(transform)
        assert (twin.source.game if isinstance(twin, RandSampled) else twin.source.member) is opened
        assert torch.equal(first.as_tensor(), twin.set_random_state(3)(item)["image"].as_tensor())


def test_caches_keep_what_comes_before_and_not_the_samples(home: Path) -> None:
    data = CacheDataset(real_files(home, num=4), pipeline(home, prob=1), progress=False)
    once, again = ([data[index]["image"].as_tensor() for index in range(4)] for _ in range(2))
    assert not any(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_opening_a_run_takes_no_part_in_the_global_random_numbers(home: Path, translator: Run) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    RandSampled("image", home / "flat" / "run", prob=1).set_random_state(1)({"image": slice_of(), "class": "lesion"})
    RandTranslated("image", translator.path, prob=1).set_random_state(1)(item_of()[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_all_of_it_in_one_training(home: Path) -> None:
    """Real images, some replaced by samples as they come, and a synthetic set beside them, through workers."""
    real = CacheDataset(real_files(home), pipeline(home, prob=0.3), progress=False)
    mixed = MixedDataset(real, SyntheticDataset(home / "flat" / "made"), ratio=1, seed=1)
    classes = Lambdad("class", ("healthy", "lesion").index)
    loader = DataLoader(Dataset(mixed, classes), batch_size=4, shuffle=True, num_workers=2)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * 12, 2))
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3)
    for epoch in range(2):
        mixed.set_epoch(epoch)
        synthetic = 0
        for batch in loader:
            loss = torch.nn.functional.cross_entropy(net(batch["image"].as_tensor() / 1000), batch["class"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            synthetic += int(batch["synthetic"].sum())
            told = [bool(text) for text in batch["image"].meta["synthetic"]]
            assert told == batch["synthetic"].tolist()
        assert 8 <= synthetic <= 16
    assert torch.isfinite(loss)


def test_open_runs_are_taken_too(translator: Run) -> None:
    assert RandTranslate(open_run(translator.path)).source.run.path == translator.path
