"""What users of samplers and of synthetic sets get wrong: one line that says what to do, and nothing half written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bad_input import Bad, copied, cut, without
from command_line import medgan, tree, untrained_run
from test_bad_input import assert_one_line, in_a_process, no_parts, small_disk, words
from test_sample import CONFIG, digests

from medgan import read, write
from medgan.augment.sample import sample
from medgan.phantom.images import write_images
from medgan.train import train

SAMPLE = "sample {bad}/run --num 2 --out {bad}/set --device cpu"
MADE = "audit {good}/set/cases.csv {bad}/made"
ROWS = [
    # the run
    Bad("no run", SAMPLE, r"bad/run: is no run folder.*name one made by train"),
    Bad("a translator", "sample {good}/translator --num 2 --out {bad}/set", r"translator: .*translat"),
    Bad("a sampler asked to translate", "translate {good}/run x.nii.gz {bad}/o.nii.gz", r"run: .*samples images"),
    Bad("a run cut short", SAMPLE, r"weights\.safetensors.* damaged", copied("run", cut("weights.safetensors"))),
    Bad("no weights", SAMPLE, r"bad/run: .*weights", copied("run", without("weights.safetensors"))),
    Bad("no config", SAMPLE, r"bad/run: .*config\.yaml", copied("run", without("config.yaml"))),
    Bad("no card", SAMPLE, r"bad/run: .*card\.json", copied("run", without("card.json"))),
    Bad("half a card", SAMPLE, r"card\.json", copied("run", cut("card.json"))),
    # wishes
    Bad("no number", "sample {good}/run --out {bad}/set", r"say how many images"),
    Bad(
        "a class of a run without any",
        "sample {good}/plain --num 2 --condition class=lesion --out {bad}/set",
        r"class: no condition of the run \(accepted: none: it learnt without",
    ),
    Bad("balance without classes", "sample {good}/plain --balance max --out {bad}/set", r"class"),
    Bad("no value", "sample {good}/run --num 2 --condition class --out {bad}/set", r"class: give each as name=value"),
    Bad(
        "a class of few patients",
        "sample {good}/run --num 2 --least-patients 99 --out {bad}/set",
        r"fewer than 99 patients.*--least-patients|least_patients",
    ),
    Bad("a full folder", "sample {good}/run --num 2 --out {good}", r"good\S*: is a folder with something in it"),
    Bad("a file as folder", "sample {good}/run --num 2 --out {good}/c.yaml", r"c\.yaml"),
    Bad(
        "half a manifest",
        "sample {good}/run --again {bad}/made/manifest.json --out {bad}/set",
        r"manifest\.json: cannot be read as a manifest",
        copied("made", cut("manifest.json")),
    ),
    Bad(
        "the manifest of another run",
        "sample {good}/plain --again {good}/made/manifest.json --out {bad}/set",
        r"made by other weights",
    ),
    # tables to learn from
    Bad(
        "an image cut short",
        "train {bad}/c.yaml --out {bad}/run --device cpu",
        r"is damaged or cut short.*copy or convert it again",
        lambda bad, good: [copied("set", cut(_first(good)))(bad, good), copied("c.yaml")(bad, good)],
    ),
    Bad(
        "constant images",
        "train {bad}/c.yaml --out {bad}/run --device cpu",
        r"all its voxels come out as 0",
        lambda bad, good: [copied("set", _constant)(bad, good), copied("c.yaml")(bad, good)],
    ),
    Bad(
        "fewer images than the batch", "train {good}/c.yaml train.batch=199 --out {bad}/run", r"fewer than train\.batch"
    ),
    Bad(
        "a class that nobody has",
        "train {good}/c.yaml conditions.class.classes=[healthy,cyst] --out {bad}/run",
        r"no training case is of class cyst",
    ),
    Bad("no column", "train {good}/c.yaml conditions.age.range=[0,9] --out {bad}/run", r"condition:age"),
    # sets
    Bad("no set", MADE, r"manifest\.json: cannot be read as a manifest"),
    Bad(
        "an image that is gone",
        MADE,
        r"names 1 files that are not there",
        copied("made", lambda path: next(path.glob("images/*.gz")).unlink()),
    ),
    Bad("no table", MADE, r"cases\.csv", copied("made", without("cases.csv"))),
    Bad(
        "unmarked images",
        MADE,
        r"do not say that they are synthetic",
        copied("made", lambda path: [_unmark(file) for file in path.glob("images/*")]),
    ),
    Bad("real images as a set", "audit {good}/set/cases.csv {good}/set", r"manifest\.json"),
    Bad("another table", "audit {good}/c.yaml {good}/made", r"c\.yaml"),
    Bad("features of no file", "audit {good}/set/cases.csv {good}/made --features inception", r"inception"),
    Bad("no such condition", "audit {good}/set/cases.csv {good}/made --within age", r"age"),
    Bad("another run", "audit {good}/set/cases.csv {good}/made --run {good}/translator", r"translator"),
    Bad("a rule that is none", "select {good}/set/cases.csv {good}/made best=3", r"best: unknown key"),
    Bad("no rule", "select {good}/set/cases.csv {good}/made", r"Missing argument", code=2),
    Bad("a task that is none", "utility {good}/set/cases.csv {good}/made task.name=detection", r"detection"),
    Bad("a net that is none", "utility {good}/set/cases.csv {good}/made task.net=vit ratios=[0.1]", r"vit"),
    Bad(
        "more synthetic images than there are",
        "utility {good}/set/cases.csv {good}/made steps=1 ratios=[50]",
        r"50 asks for \d+ synthetic images.*sample more",
    ),
    Bad("no masks to segment", "utility {good}/set/cases.csv {good}/made task.name=segmentation ratios=[0.1]", r"mask"),
    Bad("project by another model", "project {good}/run {good}/set/cases.csv --out {bad}/o", r"only a stylegan2"),
    Bad("shared where something is", "export {good}/run --share {good}/made", r"made: "),
    Bad(
        "augment by a sampler", "augment {good}/set/cases.csv --run {good}/run --out {bad}/o", r"run: .*samples images"
    ),
]


def _first(good: Path) -> str:
    return next((good / "set").rglob("*.nii.gz")).relative_to(good / "set").as_posix()


def _constant(path: Path) -> None:
    for file in path.glob("*.nii.gz"):
        image = read(file)
        write(image.with_array(np.full_like(image.array, 500)), file)


def _unmark(file: Path) -> None:
    if file.suffix == ".json":
        file.unlink()
        return
    image = nib.load(file)
    nib.save(nib.Nifti1Image(image.get_fdata(dtype="float32"), image.affine), file)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def good(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all is well: a table, runs with and without conditions, a translator, and a set."""
    folder = tmp_path_factory.mktemp("good")
    write_images(folder / "set", num=200, size=16, seed=1)
    (folder / "c.yaml").write_text(CONFIG)
    train(folder / "c.yaml", out=folder / "run", device="cpu")
    plain = ["conditions={}", "model={name: dcgan, width: 4, width_d: 4, latent_size: 8}"]
    train(folder / "c.yaml", plain, out=folder / "plain", device="cpu")
    untrained_run(folder / "translator", tiny_cohort / "tiny.yaml")
    sample(folder / "run", folder / "made", num=24, least_patients=1, device="cpu")
    return folder


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_one_line_says_what_to_do_and_nothing_is_left(case: Bad, good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    case.make(bad, good)
    before = tree(tmp_path), tree(good)
    done = medgan(*words(case.command, good, bad))
    assert_one_line(done, case.says, case.code)
    assert (tree(tmp_path), tree(good)) == before


def test_a_set_that_fills_a_disk_is_completed_when_there_is_room(good: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ("sample", good / "run", "--num", 60, "--device", "cpu", "--out", disk / "set")
    with small_disk(disk, "120k"):
        done = in_a_process(*command)
        assert_one_line(done, r"cannot be written \(No space left on device\); choose")
        assert no_parts(disk)
        there = len(list((disk / "set" / "images").glob("*.nii.gz")))
        assert 0 < there < 60
        assert not (disk / "set" / "cases.csv").exists()
        shutil.copytree(disk / "set", tmp_path / "moved")
    assert medgan("sample", good / "run", "--num", 60, "--device", "cpu", "--out", tmp_path / "moved").code == 0
    manifest = tmp_path / "moved" / "manifest.json"
    assert medgan("sample", good / "run", "--again", manifest, "--device", "cpu", "--out", tmp_path / "whole").code == 0
    assert digests(tmp_path / "moved") == digests(tmp_path / "whole")
    assert len(json.loads(manifest.read_text())["images"]) == 60
