"""medgan export-cohort: what is laid out is read back by those for whom it is, and by medgan."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from cohorts import inside, places, write_plan, write_table
from command_line import medgan
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImage

from medgan import Synthesis, Volume, index, read, write
from medgan.cases import Case, read_cases, write_cases
from medgan.errors import InputError, OutputError
from medgan.export_cohort import export_cohort
from medgan.formats.marks import missing_marks
from medgan.prepare import prepare

MADE = Synthesis("pix2pix", "ab" * 32, "0.1.0")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared cohort with a label map (values 0, 2, 5) and CT that is synthetic."""
    folder = tmp_path_factory.mktemp("scans")
    cases = []
    for case in read_cases(write_table(folder)):
        ct = read(case.images["b"])
        deep = inside(places(ct.grid), int(case.name[1:]))
        organs = Volume((2 * (deep > 0.2) + 3 * (deep > 0.5)).astype(np.uint8), ct.grid, "label")
        write(ct.marked(MADE), case.images["b"])
        images = {**case.images, "organs": write(organs, folder / case.name / "organs.nii.gz")}
        cases.append(replace(case, images=images))
    plan = write_plan(folder / "plan.yaml", labels={"organs": "b"})
    return prepare(write_cases(cases, folder / "cases.csv"), plan, out=folder / "out").table or folder


def told(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def same(one: Path, other: Path) -> bool:
    a, b = read(one), read(other)
    return bool(np.array_equal(a.array, b.array)) and a.grid.same_as(b.grid, tolerance_mm=1e-4) and a.unit == b.unit


def test_monai_reads_the_decathlon(table: Path, tmp_path: Path) -> None:
    done = medgan("export-cohort", table, "decathlon", tmp_path / "Task", "--label", "organs", "--name", "a=T1w")
    assert (done.code, done.out) == (0, f"{tmp_path / 'Task'}\n")
    about = told(tmp_path / "Task" / "dataset.json")
    assert about["modality"] == {"0": "T1w", "1": "ct"}
    assert about["labels"] == {"0": "background", "2": "label_2", "5": "label_5"}
    assert about["synthetic"] == ["ct"]
    assert (about["numTraining"], about["numValidation"], about["numTest"]) == (3, 1, 1)
    for key, split in (("training", "train"), ("validation", "val"), ("test", "test")):
        items = load_decathlon_datalist(tmp_path / "Task" / "dataset.json", True, key)
        cases = read_cases(table, split=split)
        assert [item["patient"] for item in items] == [case.patient for case in cases]
        for item, case in zip(items, cases, strict=True):
            assert all(same(Path(one), case.images[role]) for one, role in zip(item["image"], "ab", strict=True))
            assert same(Path(item["label"]), case.images["organs"])
            image = LoadImage(ensure_channel_first=True)(item["image"])
            assert image.shape == (2, *read(case.images["a"]).array.shape)
            assert np.allclose(image.affine, read(case.images["a"]).grid.affine, atol=1e-4)


def test_medgan_indexes_the_decathlon(table: Path, tmp_path: Path) -> None:
    export_cohort(table, "decathlon", tmp_path / "Task", label="organs", names={"a": "T1w"})
    found = tmp_path / "again.csv"
    index(tmp_path / "Task", layout="decathlon", a="T1w", b="ct", mask="label", out=found)
    again = {case.name: case for case in read_cases(found)}
    for case in read_cases(table):
        if case.split != "val":  # which is MONAI's list, and not the Decathlon's
            assert same(again[case.name].images["b"], case.images["b"])
            assert same(again[case.name].images["mask"], case.images["organs"])


def test_one_channel_is_one_file(table: Path, tmp_path: Path) -> None:
    cases = [replace(case, images={role: case.images[role] for role in ("a", "organs")}) for case in read_cases(table)]
    one = write_cases(cases, tmp_path / "one.csv")
    export_cohort(one, "decathlon", tmp_path / "Task", label="organs")
    entry = told(tmp_path / "Task" / "dataset.json")["training"][0]
    assert entry["image"] == "imagesTr/p0.nii.gz"
    assert load_decathlon_datalist(tmp_path / "Task" / "dataset.json")[0]["label"].endswith("labelsTr/p0.nii.gz")


def test_bids_derivatives_are_read_back(table: Path, tmp_path: Path) -> None:
    done = medgan("export-cohort", table, "bids", tmp_path / "study", "--name", "a=T1w")
    assert done.code == 0, done.error
    about = told(tmp_path / "study" / "dataset_description.json")
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "medgan"
    names = {"a": "desc-prepared_T1w", "b": "desc-prepared_ct", "mask": "desc-prepared_mask"}
    index(tmp_path / "study", layout="bids", **names, out=tmp_path / "again.csv")
    again = {case.patient: case for case in read_cases(tmp_path / "again.csv")}
    for case in read_cases(table):
        assert all(same(again[f"sub-{case.patient}"].images[role], case.images[role]) for role in names)
        home = tmp_path / "study" / f"sub-{case.patient}" / "anat"
        assert (home / f"sub-{case.patient}_space-T1w_desc-organs_dseg.nii.gz").is_file()
        side = told(home / f"sub-{case.patient}_space-T1w_desc-prepared_ct.json")
        assert side["SkullStripped"] is False
        assert side["SyntheticData"] is True
        assert side["SpatialReference"] == f"sub-{case.patient}_space-T1w_desc-prepared_T1w.nii.gz"
        assert {step["step"] for step in side["MedganSteps"]} >= {"resample", "crop", "clip"}
    with (tmp_path / "study" / "participants.tsv").open() as stream:
        rows = {row["participant_id"]: row["split"] for row in csv.DictReader(stream, delimiter="\t")}
    assert rows == {f"sub-{case.patient}": case.split for case in read_cases(table)}


def test_the_validator_of_bids_finds_no_error(table: Path, tmp_path: Path) -> None:
    """Masks, maps of labels, sessions, what is synthetic, and CT, of which BIDS knows nothing."""
    validator = shutil.which(
        "bids-validator-deno", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if validator is None:
        pytest.skip("needs the validator of BIDS: pip install bids-validator-deno")
    first, second, *others = read_cases(table)
    twice = [replace(one, name=f"p0_ses-{k}", patient="p0", split="train") for k, one in enumerate((first, second))]
    cases = write_cases([*twice, *others], tmp_path / "cases.csv")
    export_cohort(cases, "bids", tmp_path / "study", names={"a": "T1w"})
    done = subprocess.run([validator, tmp_path / "study", "--json"], capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert {issue["code"] for issue in issues} <= {"TOO_FEW_AUTHORS", "SIDECAR_KEY_RECOMMENDED"}
    lacking = {(issue["subCode"], issue["location"].rpartition("_")[2]) for issue in issues if "subCode" in issue}
    assert lacking <= {("Description", "/participants.tsv")}
    (tmp_path / "study" / ".bidsignore").unlink()
    done = subprocess.run([validator, tmp_path / "study", "--json"], capture_output=True, text=True, check=False)
    assert {issue["code"] for issue in json.loads(done.stdout)["issues"]["issues"]} >= {"NOT_INCLUDED"}


def test_bids_names_one_space_for_one_grid_alone(table: Path, tmp_path: Path) -> None:
    cases = read_cases(table)
    other = write(read(cases[0].images["b"]).crop((1, 1, 1), (9, 9, 9)), tmp_path / "other.nii.gz")
    moved = [*cases[1:], replace(cases[0], images={**cases[0].images, "b": other})]
    with pytest.raises(InputError, match="p0: a and b are on different grids"):
        export_cohort(write_cases(moved, tmp_path / "m.csv"), "bids", tmp_path / "study", names={"a": "T1w"})
    assert not (tmp_path / "study").exists()


def test_sessions_of_a_patient_stay_apart(table: Path, tmp_path: Path) -> None:
    train = read_cases(table, split="train")[:2]
    cases = [replace(case, name=f"sub-01_ses-{k}", patient="sub-01") for k, case in enumerate(train)]
    export_cohort(write_cases(cases, tmp_path / "two.csv"), "bids", tmp_path / "study", names={"a": "T1w"})
    assert sorted(path.name for path in (tmp_path / "study" / "sub-01").iterdir()) == ["ses-0", "ses-1"]


def test_names_that_bids_does_not_know_are_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name it, such as by --name a=T1w"):
        export_cohort(table, "bids", tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_nnunet_finds_what_it_wants(table: Path, tmp_path: Path) -> None:
    """Its documented checks, computed anew: channels, labels without gaps, one grid a case, splits that fit."""
    home = tmp_path / "Dataset501_Head"
    done = medgan("export-cohort", table, "nnunet", home, "--label", "organs", "--name", "a=T1w")
    assert done.code == 0, done.error
    about = told(home / "dataset.json")
    assert about["channel_names"] == {"0": "T1w", "1": "CT"}
    assert list(about["labels"].values()) == list(range(len(about["labels"])))
    assert about["labels"]["background"] == 0
    labelled = sorted(path.name.removesuffix(".nii.gz") for path in (home / "labelsTr").glob("*.nii.gz"))
    assert labelled == ["p0", "p1", "p2", "p3"]
    assert about["numTraining"] == len(labelled)
    for name in labelled:
        label = nib.load(home / "labelsTr" / f"{name}.nii.gz")
        channels = [nib.load(home / "imagesTr" / f"{name}_{n:04d}{about['file_ending']}") for n in range(2)]
        assert all(one.shape == label.shape and np.allclose(one.affine, label.affine) for one in channels)
        assert set(np.unique(label.get_fdata())) == {0, 1, 2}
        assert np.array_equal(
            np.array([0, 2, 5])[label.get_fdata().astype(int)], read(table.parent / name / "organs.nii.gz").array
        )
    assert sorted(path.name for path in (home / "imagesTs").glob("*.nii.gz")) == ["p4_0000.nii.gz", "p4_0001.nii.gz"]
    splits = json.loads((home / "splits_final.json").read_text())
    assert splits == [{"train": ["p0", "p1", "p2"], "val": ["p3"]}]
    assert not missing_marks(home / "imagesTr" / "p0_0001.nii.gz")


def test_folds_become_splits(table: Path, tmp_path: Path) -> None:
    cases = read_cases(table)
    folds = [
        write_cases(
            [replace(c, split="test" if n % 2 == k else "train") for n, c in enumerate(cases)], tmp_path / f"{k}.csv"
        )
        for k in range(2)
    ]
    home = export_cohort(table, "nnunet", tmp_path / "Dataset007_Folds", label="organs", folds=folds)
    splits = json.loads((home / "splits_final.json").read_text())
    assert [split["val"] for split in splits] == [["p0", "p2", "p4"], ["p1", "p3"]]
    assert all(sorted(split["train"] + split["val"]) == [f"p{k}" for k in range(5)] for split in splits)
    assert len(list((home / "labelsTr").glob("*.nii.gz"))) == 5


def test_what_nnunet_cannot_take_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Dataset501_Brain"):
        export_cohort(table, "nnunet", tmp_path / "mine", label="organs")
    with pytest.raises(InputError, match="--label"):
        export_cohort(table, "nnunet", tmp_path / "Dataset501_X")
    cases = read_cases(table)
    lacking = [*cases[1:], replace(cases[0], images={"a": cases[0].images["a"], "organs": cases[0].images["organs"]})]
    with pytest.raises(InputError, match="p0 has no b"):
        export_cohort(write_cases(lacking, tmp_path / "l.csv"), "nnunet", tmp_path / "Dataset501_X", label="organs")
    other = write(read(cases[0].images["b"]).crop((1, 1, 1), (9, 9, 9)), tmp_path / "other.nii.gz")
    moved = [*cases[1:], replace(cases[0], images={**cases[0].images, "b": other})]
    with pytest.raises(InputError, match="p0: a and b are on different grids"):
        export_cohort(write_cases(moved, tmp_path / "m.csv"), "nnunet", tmp_path / "Dataset501_X", label="organs")
    assert not (tmp_path / "Dataset501_X").exists()


def test_what_cannot_be_used_is_left_out_by_name(table: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"no scan")
    cases = read_cases(table)
    bad = replace(cases[1], images={**cases[1].images, "b": tmp_path / "bad.nii.gz"})
    spoilt = write_cases([cases[0], bad, *cases[2:]], tmp_path / "spoilt.csv")
    asked = ("export-cohort", spoilt, "bids", tmp_path / "study", "--name", "a=T1w")
    refused = medgan(*asked)
    assert refused.code == 1
    assert "p1" in refused.error
    assert "--exclude" in refused.error
    (tmp_path / "exclude.csv").write_text("case,reason\np1,damaged\n")
    assert medgan(*asked, "--exclude", tmp_path / "exclude.csv").code == 0
    assert not (tmp_path / "study" / "sub-p1").exists()
    assert (tmp_path / "study" / "sub-p0").is_dir()


def test_wrong_words_are_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no layout"):
        export_cohort(table, "zip", tmp_path / "x")
    with pytest.raises(InputError, match="no column of the table"):
        export_cohort(table, "decathlon", tmp_path / "x", label="liver")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(OutputError, match="something in it"):
        export_cohort(table, "decathlon", tmp_path / "full")


def test_images_that_are_no_nifti_are_written_anew(table: Path, tmp_path: Path) -> None:
    case = read_cases(table)[0]
    image = write(read(case.images["a"]), tmp_path / "a.mha")
    one = write_cases([Case("p", "p", "train", {"a": image})], tmp_path / "one.csv")
    export_cohort(one, "decathlon", tmp_path / "Task")
    assert same(tmp_path / "Task" / "imagesTr" / "p.nii.gz", case.images["a"])
