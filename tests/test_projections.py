"""medgan project: real images drawn again by a StyleGAN2."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import medgan
from PIL import Image

from medgan import project, read
from medgan.augment.projections import _known, _spread
from medgan.augment.sample import sample
from medgan.cases import Case, read_cases, write_cases
from medgan.errors import CasesError, InputError, OutputError
from medgan.imageset import ImageSet
from medgan.phantom.images import write_images
from medgan.run import open_sampling_run
from medgan.train import train

CONFIG = """
cases: set/cases.csv
prep:
  images: {image: {modality: MR, range: [0, 1000]}}
  mask: mask
  spacing_mm: [1, 1, 1]
patch: [16, 16, 1]
conditions: {class: {classes: [healthy, lesion]}}
model: {name: stylegan2, width: 4, max_width: 8, latent_size: 8, style_size: 8, path_length: 0}
train: {steps: 4, batch: 8, lr: 0.001, ema: 0.9, validate_every: 4, checkpoint_every: 4, log_every: 1}
samples: 32
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projections")
    write_images(folder / "set", num=60, size=16, seed=1, with_mask=True)
    (folder / "c.yaml").write_text(CONFIG)
    train(folder / "c.yaml", out=folder / "run", device="cpu")
    return folder


def test_images_errors_and_styles_are_of_one_order(home: Path, tmp_path: Path) -> None:
    done = project(home / "run", home / "set" / "cases.csv", tmp_path / "out", num=5, steps=20, device="cpu")
    with (tmp_path / "out" / "projections.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == list(done.names)
    assert [row["split"] for row in rows] == list(done.splits)
    assert {split: done.splits.count(split) for split in set(done.splits)} == {"train": 5, "val": 5, "test": 5}  # type: ignore[attr-defined]
    styles = np.load(tmp_path / "out" / "styles.npy", allow_pickle=False)
    assert styles.shape == (15, 8)
    case_of = {case.name: case for case in read_cases(home / "set" / "cases.csv")}
    for name, error in zip(done.names, done.errors, strict=True):
        drawn = read(tmp_path / "out" / "images" / f"{name}_image.nii.gz")
        real = read(case_of[name].images["image"])
        mask = read(tmp_path / "out" / "images" / f"{name}_mask.nii.gz").array
        assert drawn.unit == "a.u."
        assert drawn.modality == "MR"
        assert drawn.synthetic is not None
        assert "drawn by stylegan2" in drawn.synthetic.description
        assert set(np.unique(mask)) <= {0, 1}
        image_error = np.abs(drawn.array - real.array.clip(0, 1000)).mean() / 1000
        assert 0 <= 2 * error - image_error <= 1  # the mean over image and mask
    assert done.means.keys() == {"train", "val", "test"}
    assert Image.open(done.picture).info["Shows"].endswith("do not pass on")


def test_more_steps_come_nearer(home: Path, tmp_path: Path) -> None:
    table = home / "set" / "cases.csv"
    few, many = (
        project(home / "run", table, tmp_path / str(steps), split="val", num=4, steps=steps, device="cpu")
        for steps in (1, 100)
    )
    assert few.names == many.names
    assert many.means["val"] < few.means["val"]
    assert few.known is None  # there is no training image beside them


def test_its_own_images_are_found_again_and_others_are_not(home: Path, tmp_path: Path) -> None:
    """A generator that knew its training images by heart would be told by the errors."""
    sample(home / "run", tmp_path / "made", num=9, least_patients=1, device="cpu")
    own = [
        Case(case.name, case.patient, "train", case.images, case.conditions)
        for case in read_cases(tmp_path / "made" / "cases.csv")
    ]
    others = [case for case in read_cases(home / "set" / "cases.csv") if case.split == "test"][:9]
    table = write_cases([*own, *others], tmp_path / "both.csv")
    done = project(home / "run", table, tmp_path / "out", steps=100, device="cpu")
    assert done.means["train"] < done.means["test"]
    assert done.known is not None
    assert done.known.auc.value > 0.75


def test_errors_alike_tell_nobody() -> None:
    rng, names = np.random.default_rng(0), [f"p{n}" for n in range(200)]
    images = ImageSet(torch.zeros(200, 1, 4, 4), names, names)
    known = _known(images, ["train", "val"] * 100, list(rng.uniform(0, 1, 200)))
    assert known is not None
    assert known.auc.low < 0.5 < known.auc.high


def test_images_are_spread_over_a_split() -> None:
    assert _spread(list(range(10)), 3) == [0, 4, 9]
    assert _spread([5, 7], 3) == [5, 7]


def test_what_cannot_be_drawn_is_refused(home: Path, tmp_path: Path) -> None:
    table = home / "set" / "cases.csv"
    train(home / "c.yaml", ["model={name: cgan, width: 4, width_d: 4}"], out=tmp_path / "cgan", device="cpu")
    with pytest.raises(InputError, match="only a stylegan2 has styles"):
        project(tmp_path / "cgan", table, tmp_path / "out")
    with pytest.raises(OutputError, match="new or empty"):
        project(home / "run", table, home / "run")
    write_cases([case for case in read_cases(table) if case.split == "test"], tmp_path / "test.csv")
    with pytest.raises(CasesError, match="no case in the split val"):
        project(home / "run", tmp_path / "test.csv", tmp_path / "out", split="val")
    assert not (tmp_path / "out").exists()


def test_the_command_tells_errors_by_split(home: Path, tmp_path: Path) -> None:
    arguments = ["project", home / "run", home / "set" / "cases.csv", "--num", 3, "--steps", 2, "--device", "cpu"]
    told = medgan(*arguments, "--out", tmp_path / "a").out
    assert "train: " in told
    assert "of the range, 3 images" in told
    assert "AUC" in told
    values = json.loads(medgan(*arguments, "--out", tmp_path / "b", "--json").out)
    assert len(values["images"]) == 9
    assert 0 <= values["known"]["auc"]["low"] <= values["known"]["auc"]["high"] <= 1
    assert (
        open_sampling_run(home / "run").weights_sha256[:8]
        in read(tmp_path / "a" / "images" / f"{values['images'][0]['image']}_image.nii.gz").synthetic.weights_sha256
    )  # type: ignore[union-attr]
