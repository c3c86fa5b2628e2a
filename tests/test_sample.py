"""medgan train and medgan sample: the run of a sampler, and the sets that are made by it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import medgan
from PIL import Image
from resuming import killed_and_whole, state
from test_processes import start

from medgan import read
from medgan.augment.sample import sample, sample_again
from medgan.cases import read_cases
from medgan.errors import CasesError, ConfigError, InputError, OutputError, RunError
from medgan.phantom.images import write_images
from medgan.run import SamplingRun, open_run, open_sampling_run
from medgan.train import train

CONFIG = """
cases: set/cases.csv
prep:
  images:
    image: {modality: MR, range: [0, 1000]}
  spacing_mm: [1, 1, 2]
patch: [16, 16, 1]
conditions: {class: {classes: [healthy, lesion]}}
model: {name: cgan, width: 4, width_d: 4, latent_size: 8}
train: {steps: 6, batch: 8, lr: 0.001, ema: 0.9, validate_every: 3, checkpoint_every: 3, log_every: 1}
samples: 32
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table of phantoms, the config of a sampler, and its run."""
    folder = tmp_path_factory.mktemp("sampler")
    write_images(folder / "set", num=80, size=16, seed=1)
    (folder / "c.yaml").write_text(CONFIG)
    train(folder / "c.yaml", out=folder / "run", device="cpu")
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_run_tells_what_it_learnt_from_and_of_whom_nothing(home: Path) -> None:
    run = open_sampling_run(home / "run")
    cases = read_cases(home / "set" / "cases.csv", split="train", required=["image"], conditions=["class"])
    counts = run.card["conditions"]["class"]
    assert sum(counts["images_by_class"].values()) == run.card["num_train_images"] == len(cases)
    assert sum(counts["patients_by_class"].values()) == len({case.patient for case in cases})
    said = (home / "run" / "card.json").read_text() + (home / "run" / "metrics.jsonl").read_text()
    assert not [case.name for case in cases if case.name in said]
    lines = run.metrics()
    scores = {"fd", "kid", "coverage"}
    assert scores | {f"{name}_of_training_images" for name in scores} == lines[-3]["val"].keys()
    assert "right_held_out_b" in lines[-2]["vitals"]


def test_a_killed_training_goes_on_to_the_bit(home: Path, tmp_path: Path) -> None:
    killed_and_whole(home / "c.yaml", [], tmp_path, kills=[2, 5])
    assert state(home / "run")["step"] == 6


def test_a_set_holds_images_table_sheet_and_manifest(home: Path, tmp_path: Path) -> None:
    done = sample(home / "run", tmp_path / "set", num=20, seed=3, conditions={"class": "lesion"}, device="cpu")
    cases = read_cases(tmp_path / "set" / "cases.csv", conditions=["class"])
    assert [case.name for case in cases] == [case.patient for case in cases] == [one.name for one in done]
    assert {case.split for case in cases} == {"train"}
    assert {case.conditions["class"] for case in cases} == {"lesion"}
    volume = read(cases[0].images["image"])
    assert volume.array.shape == (16, 16, 1)
    assert volume.unit == "a.u."
    assert volume.modality == "MR"
    assert volume.grid.spacing_mm == (1, 1, 2)
    assert 0 <= volume.array.min() < volume.array.max() <= 1000
    assert volume.synthetic is not None
    assert volume.synthetic.weights_sha256 == open_sampling_run(home / "run").weights_sha256
    assert (volume.synthetic.seed, volume.synthetic.number) == (3, 0)
    assert volume.synthetic.conditions == {"class": "lesion"}
    told = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert told["synthetic"] is True
    assert len({line["latent_sha256"] for line in told["images"]}) == 20
    sheet = Image.open(tmp_path / "set" / "contact_sheet.png")
    assert sheet.size == (8 * 64 + 7 * 2, 3 * (64 + 12) + 2 * 2)  # each with its number and class below
    assert '"Seed": 3' in sheet.info["Comment"]


@pytest.mark.parametrize("form", ["nifti", "dicom", "png", "npz"])
def test_a_set_is_made_again_from_its_manifest_to_the_byte(home: Path, tmp_path: Path, form: str) -> None:
    sample(home / "run", tmp_path / "one", num=5, truncation=1.5, format=form, device="cpu")
    sample_again(tmp_path / "one" / "manifest.json", home / "run", tmp_path / "two", device="cpu")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    image = read_cases(tmp_path / "one" / "cases.csv")[0].images["image"]
    assert read(image).synthetic is not None


def test_an_image_hangs_on_seed_and_number_not_on_how_many_there_are(home: Path, tmp_path: Path) -> None:
    few = sample(home / "run", tmp_path / "few", num=3, conditions={"class": "lesion"}, device="cpu")
    many = sample(home / "run", tmp_path / "many", num=18, conditions={"class": "lesion"}, device="cpu")
    other = sample(home / "run", tmp_path / "other", num=3, seed=1, conditions={"class": "lesion"}, device="cpu")
    for one, same, different in zip(few, many, other, strict=False):
        np.testing.assert_array_equal(read(one.paths["image"]).array, read(same.paths["image"]).array)
        assert not np.array_equal(read(one.paths["image"]).array, read(different.paths["image"]).array)


def test_a_stopped_set_is_completed_and_equal(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a full disk: what is there stays, what is missing comes, and the whole is as if nothing had been."""
    from importlib import import_module

    module = import_module("medgan.augment.sample")
    real, calls = module.write, []

    def full(*args: Any, **options: Any) -> Path:
        calls.append(args)
        if len(calls) == 8:
            raise OutputError("no space left")
        return real(*args, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(module, "write", full)
    with pytest.raises(OutputError):
        sample(home / "run", tmp_path / "set", num=20, device="cpu")
    assert len(list((tmp_path / "set" / "images").glob("*.nii.gz"))) == 7
    assert not (tmp_path / "set" / "cases.csv").exists()
    monkeypatch.setattr(module, "write", real)
    sample(home / "run", tmp_path / "set", num=20, device="cpu")
    sample_again(tmp_path / "set" / "manifest.json", home / "run", tmp_path / "whole", device="cpu")
    assert digests(tmp_path / "set") == digests(tmp_path / "whole")


SHARED_WORK = """
import sys, torch
from pathlib import Path
from medgan.augment.sample import sample

torch.set_num_threads(1)
sample(Path(sys.argv[1]), Path(sys.argv[2]), num=40, seed=2, device="cpu")
"""


@pytest.mark.slow
def test_two_processes_make_the_set_of_one(home: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SHARED_WORK)
    start(str(tmp_path / "script.py"), home / "run", tmp_path / "two")
    sample_again(tmp_path / "two" / "manifest.json", home / "run", tmp_path / "one", device="cpu")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_classes_come_as_in_training_or_fill_up_what_lacks(home: Path, tmp_path: Path) -> None:
    counts = open_sampling_run(home / "run").card["conditions"]["class"]["images_by_class"]
    done = sample(home / "run", tmp_path / "to", balance="40", device="cpu")
    made = {name: sum(one.conditions["class"] == name for one in done) for name in counts}
    assert made == {name: 40 - count for name, count in counts.items()}
    seen = sample(home / "run", tmp_path / "seen", num=60, device="cpu")
    share = sum(one.conditions["class"] == "lesion" for one in seen) / 60
    assert share == pytest.approx(counts["lesion"] / sum(counts.values()), abs=0.2)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"num": 3, "conditions": {"age": "3"}}, "age: no condition of the run .accepted: class"),
        ({"num": 3, "conditions": {"class": "tumour"}}, "'tumour' is none of the classes healthy, lesion"),
        ({"num": 3, "least_patients": 1000}, "learnt from fewer than 1000 patients"),
        ({}, "say how many images"),
        ({"num": 3, "balance": "max"}, "one of num and balance"),
        ({"balance": "many"}, "neither max nor a number"),
        ({"balance": "1"}, "nothing to make"),
        ({"num": 0}, "from 1 to 99999"),
        ({"num": 3, "seed": -1}, "a seed is 0 or more"),
        ({"num": 3, "truncation": 0.0}, "truncation is above 0"),
        ({"num": 3, "format": "jpeg"}, "format 'jpeg' is unknown"),
    ],
)
def test_wishes_that_cannot_be_fulfilled_are_refused(
    home: Path, tmp_path: Path, wish: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        sample(home / "run", tmp_path / "set", **wish, device="cpu")
    assert not (tmp_path / "set").exists()


def test_sets_of_two_calls_are_never_mixed(home: Path, tmp_path: Path) -> None:
    sample(home / "run", tmp_path / "set", num=2, device="cpu")
    with pytest.raises(OutputError, match="made otherwise"):
        sample(home / "run", tmp_path / "set", num=3, device="cpu")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="something in it"):
        sample(home / "run", tmp_path / "full", num=3, device="cpu")


def test_runs_of_two_kinds_are_not_taken_for_one_another(home: Path) -> None:
    with pytest.raises(RunError, match="samples images"):
        open_run(home / "run")
    assert isinstance(open_sampling_run(home / "run"), SamplingRun)


def test_a_damaged_run_is_told(home: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(home / "run", tmp_path / "run")
    weights = tmp_path / "run" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RunError, match="damaged"):
        sample(tmp_path / "run", tmp_path / "set", num=2, device="cpu")


@pytest.mark.parametrize(
    ("overrides", "error", "told"),
    [
        (["train.batch=100"], CasesError, "fewer than train.batch"),
        (["conditions.class.classes=[healthy, lesion, cyst]"], CasesError, "no training case is of class cyst"),
        (["conditions.class.classes=[healthy, cyst]"], CasesError, "no training case is of class cyst"),
        (["prep.images.image.range=[5000, 6000]"], CasesError, "all its voxels come out as -1"),
        (["conditions={}"], ConfigError, "cgan needs one at least"),
        (["model={name: dcgan}"], ConfigError, "dcgan makes images without any"),
        (["conditions={age: {range: [0, 1]}}"], CasesError, "condition:age"),
        (["augment.gamma=0.2"], ConfigError, r"samples would have that contrast and noise; set gamma and noise to 0$"),
        (["train.decay=plateau"], ConfigError, "plateau"),
        (["train.precision=fp16"], ConfigError, "range of fp16"),
        (["train.compile=true"], ConfigError, "gradients of gradients"),
        (["balance=age"], ConfigError, "no condition with classes"),
        (["model.name=gan3"], ConfigError, "gan3"),
    ],
)
def test_what_a_sampler_cannot_learn_from_is_refused(
    home: Path, tmp_path: Path, overrides: list[str], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        train(home / "c.yaml", overrides, out=tmp_path / "run", device="cpu")


def test_image_and_mask_are_sampled_together(tmp_path: Path) -> None:
    write_images(tmp_path / "set", num=40, size=16, seed=1, with_mask=True)
    text = (
        CONFIG.replace("  spacing_mm", "  mask: mask\n  spacing_mm")
        .replace("cgan", "stylegan2")
        .replace("width_d: 4, ", "style_size: 8, max_width: 8, ")
    )
    (tmp_path / "c.yaml").write_text(text)
    train(tmp_path / "c.yaml", ["train.steps=2", "train.validate_every=2"], out=tmp_path / "run", device="cpu")
    done = sample(tmp_path / "run", tmp_path / "made", num=3, least_patients=1, device="cpu")
    mask = read(done[0].paths["mask"])
    assert set(np.unique(mask.array)) <= {0, 1}
    assert mask.synthetic is not None
    assert read(done[0].paths["image"]).grid.same_as(mask.grid)


def test_volumes_are_sampled_from_the_same_code(tmp_path: Path) -> None:
    write_images(tmp_path / "set", num=24, size=16, spatial_dims=3, seed=1)
    (tmp_path / "c.yaml").write_text(CONFIG.replace("[16, 16, 1]", "[16, 16, 12]").replace("[1, 1, 2]", "[1, 1, 1]"))
    train(tmp_path / "c.yaml", ["train.steps=2", "train.validate_every=2"], out=tmp_path / "run", device="cpu")
    done = sample(tmp_path / "run", tmp_path / "made", num=2, least_patients=1, device="cpu")
    volume = read(done[0].paths["image"])
    assert volume.array.shape == (16, 16, 12)
    np.testing.assert_allclose(volume.grid.to_world((np.array(volume.array.shape) - 1) / 2), 0, atol=1e-9)


def test_the_command_line(home: Path, tmp_path: Path) -> None:
    ask = ("sample", home / "run", "--num", 3, "--device", "cpu", "--condition")
    done = medgan(*ask, "class=lesion", "--out", tmp_path / "set")
    assert done.code == 0, done.err
    assert "3 synthetic images (3 of class lesion)" in done.out
    bad = medgan(*ask, "lesion", "--out", tmp_path / "bad")
    assert bad.code == 1
    assert "give each as name=value" in bad.error
    wrong = medgan("translate", home / "run", "x.nii.gz", tmp_path / "y.nii.gz")
    assert "samples images; name the run of a translator" in wrong.error


def test_sampling_takes_no_part_in_the_global_random_numbers(home: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = sample(home / "run", tmp_path / "one", num=2, device="cpu")
    torch.manual_seed(1)
    second = sample(home / "run", tmp_path / "two", num=2, device="cpu")
    for a, b in zip(first, second, strict=True):
        assert a.paths["image"].read_bytes() == b.paths["image"].read_bytes()
