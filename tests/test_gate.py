"""medgan audit, select, utility and export on the folders that people have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from command_line import medgan

from medgan import read, write
from medgan.augment.export import export
from medgan.augment.gate import audit_set
from medgan.augment.sample import sample
from medgan.augment.sets import contract_of, read_real, read_synthetic
from medgan.cases import read_cases
from medgan.errors import InputError, RunError
from medgan.phantom.images import write_images
from medgan.run import open_sampling_run
from medgan.train import train

CONFIG = """
cases: set/cases.csv
prep: {images: {image: {modality: MR, range: [0, 1000]}}, spacing_mm: [1, 1, 1]}
patch: [16, 16, 1]
conditions: {class: {classes: [healthy, lesion]}}
model: {name: cgan, width: 4, width_d: 4, latent_size: 8}
train: {steps: 4, batch: 8, validate_every: 2, checkpoint_every: 2}
samples: 32
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of phantoms, the run of a sampler, a set that it made, and one that copies its training images."""
    folder = tmp_path_factory.mktemp("gate")
    write_images(folder / "set", num=240, size=16, seed=2)
    (folder / "c.yaml").write_text(CONFIG)
    train(folder / "c.yaml", out=folder / "run", device="cpu")
    sample(folder / "run", folder / "made", num=120, device="cpu")
    shutil.copytree(folder / "made", folder / "copies")
    _copy_training_images(folder)
    return folder


def _copy_training_images(folder: Path) -> None:
    """The images of the set become those of the training with 1 % of noise, and say that they are synthetic."""
    originals = read_cases(folder / "set" / "cases.csv", split="train")
    rng = np.random.default_rng(0)
    for case, original in zip(read_cases(folder / "copies" / "cases.csv"), originals, strict=False):
        path, source = case.images["image"], read(original.images["image"])
        marked = read(path)
        noisy = np.clip(source.array + rng.normal(0, 10, source.array.shape), 0, 1000).astype(np.float32)
        write(marked.with_array(noisy), path)


def test_copies_of_patients_fail_and_noise_does_not(home: Path, tmp_path: Path) -> None:
    copied = medgan("audit", home / "set" / "cases.csv", home / "copies", "--drop-near-copies", "--out", tmp_path)
    assert copied.code == 1
    assert "FAIL" in copied.out
    told = json.loads((tmp_path / "audit.json").read_text())
    assert told["verdict"] == "FAIL"
    assert (tmp_path / "audit_pairs.png").exists()
    left = home / "copies" / "cases_without_near_copies.csv"
    assert not left.exists() or len(read_cases(left)) < 20
    assert len(told["near_copies"]) > 100
    honest = audit_set(home / "set" / "cases.csv", home / "made", run=home / "run", out=tmp_path / "honest")
    near = [reason for reason in honest.audit.reasons if reason.measured.startswith(("near copies", "closer to"))]
    assert near
    assert all(reason.level != "FAIL" for reason in near)  # an untrained generator copies nobody
    assert any(
        reason.measured.startswith("who was a training patient, told by the critic") for reason in honest.audit.reasons
    )


def test_an_audit_names_no_patient(home: Path, tmp_path: Path) -> None:
    audit_set(home / "set" / "cases.csv", home / "copies", out=tmp_path)
    told = (tmp_path / "audit.json").read_text()
    assert not [case.name for case in read_cases(home / "set" / "cases.csv") if case.name in told]


def test_a_set_that_does_not_say_what_it_is_is_refused(home: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(home / "made", bare)
    path = read_cases(bare / "cases.csv")[3].images["image"]
    plain = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(plain.get_fdata(), plain.affine), path)
    with pytest.raises(InputError, match="do not say that they are synthetic"):
        audit_set(home / "set" / "cases.csv", bare)
    (bare / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="no manifest"):
        audit_set(home / "set" / "cases.csv", bare)


def test_samples_are_read_as_the_run_made_them(home: Path) -> None:
    """In the run's own scale, next to real images in the same: the values come back to within those of a file."""
    contract = contract_of(home / "made")
    made = read_synthetic(home / "made", contract)
    first = read(read_cases(home / "made" / "cases.csv")[0].images["image"])
    np.testing.assert_allclose(made.x[0, 0].numpy(), first.array[..., 0] / 500 - 1, atol=1e-5)
    assert made.names[0] == made.patients[0]
    real = read_real(home / "set" / "cases.csv", contract, splits=("train",))
    assert real is not None
    assert real.x.shape[1:] == made.x.shape[1:]
    assert set(real.conditions["class"]) == {"healthy", "lesion"}


def test_a_run_is_shared_without_what_tells_of_patients(home: Path, tmp_path: Path) -> None:
    shared = export(home / "run", tmp_path / "shared")
    assert {file.name for file in shared.iterdir()} == {"config.yaml", "card.json", "weights.safetensors"}
    said = (shared / "config.yaml").read_text() + (shared / "card.json").read_text()
    assert str(home) not in said
    assert "cases_sha256" not in said
    again = sample(shared, tmp_path / "made", num=4, seed=7, device="cpu")
    first = sample(home / "run", tmp_path / "own", num=4, seed=7, device="cpu")
    for one, other in zip(again, first, strict=True):
        assert one.paths["image"].read_bytes() == other.paths["image"].read_bytes()
    weights = (shared / "weights.safetensors").read_bytes()
    assert b"discriminator" not in weights
    assert open_sampling_run(shared).weights_sha256 == open_sampling_run(home / "run").weights_sha256
    with pytest.raises(RunError, match=r"state\.pt"):
        audit_set(home / "set" / "cases.csv", home / "made", run=shared, out=tmp_path / "audit")


def test_a_selection_is_a_table_and_says_why(home: Path) -> None:
    done = medgan("select", home / "set" / "cases.csv", home / "copies", "nearest=0.5", "may_vanish=true")
    assert done.code in (0, 1)
    assert done.code == 0 or "left" in done.error  # all are copies
    done = medgan("select", home / "set" / "cases.csv", home / "made", "lowest_scores=0.25", "--run", home / "run")
    assert done.code == 0, done.err
    assert len(read_cases(home / "made" / "selected.csv")) == pytest.approx(90, abs=2)
    told = json.loads((home / "made" / "selection.json").read_text())
    assert sum(bool(one["reasons"]) for one in told["decisions"]) == 120 - len(
        read_cases(home / "made" / "selected.csv")
    )
    assert "coverage" in done.out
    bad = medgan("select", home / "set" / "cases.csv", home / "made", "lowest_scores=0.25")
    assert "name the run that made the set by --run" in bad.error


def test_a_study_of_utility_goes_on_where_it_was(home: Path, tmp_path: Path) -> None:
    ask = ("utility", home / "set" / "cases.csv", home / "made", "task.condition=class", "steps=2", "--out", tmp_path)
    few = ('arms=["real","real+duplicates","real+synthetic"]', "ratios=[0.5]", "--device", "cpu")
    done = medgan(*ask, *few)
    assert done.code == 0, done.err
    lines = (tmp_path / "utility.jsonl").read_text().splitlines()
    again = medgan(*ask, *few)
    assert again.out == done.out
    assert (tmp_path / "utility.jsonl").read_text().splitlines() == lines
    told = json.loads((tmp_path / "utility.json").read_text())
    assert told["verdict"] in ("helps", "no evidence", "harms")
    assert told["verdict"] in done.out


def test_what_a_study_cannot_be_made_of_is_refused(home: Path, tmp_path: Path) -> None:
    table = home / "set" / "cases.csv"
    done = medgan("utility", table, home / "made", "task.condition=age", "--out", tmp_path)
    assert done.code == 1
    assert "age" in done.error
    done = medgan("utility", table, home / "made", "task.net=resnet_9000", "ratios=[0.5]", "--out", tmp_path)
    assert done.code == 1
    assert "resnet_9000" in done.error
    done = medgan("utility", table, tmp_path / "nothing", "--out", tmp_path)
    assert done.code == 1
    assert "manifest" in done.error
