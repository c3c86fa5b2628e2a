"""The commands as a user meets them: what they print, how they exit, and the main job from end to end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import yaml
from command_line import medgan, tree, untrained_run
from conftest import TINY_CONFIG, tiny_pair

import medgan as package
from medgan import read, write
from medgan.cases import read_cases
from medgan.config import load
from medgan.formats.dicom import Subject
from medgan.splits import split_hash

VERBS = ["convert", "demo", "evaluate", "import-weights", "index", "inspect", "train", "translate"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a name that is hard on shells and formats, with `scans` of five patients as DICOM, a table of them
    and a config, and a run of ten steps: everything by the command line."""
    place = tmp_path_factory.mktemp("place") / "50 % größer, née 日本"
    for number in range(5):
        subject = Subject(patient_id=f"SECRET-{number}")
        for name, volume in zip(("mr", "ct"), tiny_pair(number), strict=True):
            write(volume, place / "scans" / f"p{number}" / name, subject=subject)
    (place / "tiny.yaml").write_text(TINY_CONFIG)
    argv = ["--a", "mr", "--b", "ct", "--fractions", "0.6", "0.2", "0.2", "--out", place / "cases.csv"]
    done = medgan("index", place / "scans", *argv)
    assert done.out == f"{place / 'cases.csv'}: 5 cases of 5 patients (train 3, val 1, test 1), split 859e4879914b\n"
    done = medgan("train", place / "tiny.yaml", "--out", place / "run", "--device", "cpu")
    assert (done.code, done.out, done.warned) == (0, f"{place / 'run'}\n", ())
    return place


# --- the program ------------------------------------------------------------------------------------------------------


def test_the_program_and_the_module_are_one() -> None:
    """As installed, and without installing."""
    program = Path(sys.executable).with_name("medgan")
    for command in ([str(program)] if program.exists() else [], [sys.executable, "-m", "medgan"]):
        if command:
            done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
            assert done.stdout == f"medgan {package.__version__}\n"


def test_version_and_help() -> None:
    assert medgan("--version").out == f"medgan {package.__version__}\n"
    assert medgan().out == medgan("--help").out or medgan().err
    told = medgan("--help").out
    assert [verb for verb in VERBS if f"  {verb}" not in told] == []
    assert "Synthetic images always say so." in " ".join(told.split())


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_command_tells_every_option(verb: str) -> None:
    done = medgan(verb, "--help")
    assert done.code == 0
    assert done.out.startswith("Usage: ")
    assert "--help" in done.out
    assert not done.err


@pytest.mark.parametrize("verb", ["inspect", "train", "translate", "evaluate", "convert", "index"])
def test_a_command_without_arguments_says_what_is_missing(verb: str) -> None:
    done = medgan(verb)
    assert done.code == 2
    assert done.err.startswith("Usage: ")
    assert "Missing" in done.error


# --- looking and converting -------------------------------------------------------------------------------------------


def test_inspect_tells_scans_and_no_patient(place: Path) -> None:
    done = medgan("inspect", place / "scans")
    assert done.code == 0
    assert len([line for line in done.out.splitlines() if " dicom " in line]) == 10
    assert "24×20×8 at 2×2×5 mm" in done.out
    assert "SECRET" not in done.out + done.err
    assert medgan("inspect", place / "scans", "--identity").out.count("SECRET-") == 10


def test_inspect_as_json(place: Path) -> None:
    found = json.loads(medgan("inspect", place / "scans", "--json").out)
    assert [one["path"] for one in found][:2] == ["p0/ct", "p0/mr"]
    assert (found[0]["modality"], found[0]["unit"], found[0]["shape"]) == ("CT", "HU", [24, 20, 8])
    assert all(one["error"] == "" and one["patient"] == "" for one in found)


def test_inspect_of_nothing(tmp_path: Path) -> None:
    assert medgan("inspect", tmp_path).out == "no DICOM series and no NIfTI file here\n"
    assert json.loads(medgan("inspect", tmp_path, "--json").out) == []


def test_names_that_are_no_text_are_printed(tmp_path: Path) -> None:
    """A file name in Latin-1 on a system that speaks UTF-8."""
    write(tiny_pair(0)[0], tmp_path / "x.nii.gz")
    try:
        (tmp_path / "x.nii.gz").rename(tmp_path / b"gr\xf6\xdfe.nii.gz".decode(errors="surrogateescape"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    command = [sys.executable, "-X", "utf8", "-m", "medgan", "inspect", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=False, env={"PYTHONIOENCODING": "utf-8:strict"})
    assert done.returncode == 0
    assert b"gr\\udcf6\\udcdfe.nii.gz" in done.stdout


def test_convert_there_and_back(place: Path, tmp_path: Path) -> None:
    source = place / "scans/p0/ct"
    there = medgan("convert", source, tmp_path / "x.nii.gz")
    assert (there.code, there.out) == (0, f"{tmp_path / 'x.nii.gz'}\n")
    back = medgan("convert", tmp_path / "x.nii.gz", tmp_path / "back", "--like", source)
    assert (back.code, back.out) == (0, f"{tmp_path / 'back'}\n")
    first, last = read(source), read(tmp_path / "back")
    assert np.array_equal(first.array, last.array)
    assert np.array_equal(first.grid.affine, last.grid.affine)
    assert nib.load(tmp_path / "x.nii.gz").shape == (24, 20, 8)


def test_convert_one_series_of_several(place: Path, tmp_path: Path) -> None:
    number = pydicom.dcmread(next((place / "scans/p0/ct").iterdir())).SeriesInstanceUID
    assert medgan("convert", place / "scans/p0", tmp_path / "x.nii", "--series", number).code == 0
    assert read(tmp_path / "x.nii").modality == "CT"


def test_index_splits_and_says_how(place: Path, tmp_path: Path) -> None:
    cases = read_cases(place / "cases.csv")
    assert {case.name for case in cases} == {"p0", "p1", "p2", "p3", "p4"}
    argv = ["index", place / "scans", "--a", "mr", "--b", "ct", "--split", "test", "--out", tmp_path / "c.csv"]
    told = re.fullmatch(r"(.*): 5 cases of 5 patients \(test 5\), split ([0-9a-f]{12})\n", medgan(*argv).out)
    assert told
    assert told[1] == str(tmp_path / "c.csv")
    assert split_hash(read_cases(tmp_path / "c.csv")).startswith(told[2])
    assert all(case.images["a"].is_dir() for case in read_cases(tmp_path / "c.csv"))


# --- training ---------------------------------------------------------------------------------------------------------


def test_dry_run_prints_a_config_that_is_the_same_again(place: Path, tmp_path: Path) -> None:
    argv = ["train", place / "tiny.yaml", "train.steps=7", "model.generator.width=3", "--dry-run"]
    done = medgan(*argv, "--out", tmp_path / "run", "--device", "cpu")
    (tmp_path / "again.yaml").write_text(done.out)
    assert load(tmp_path / "again.yaml") == load(place / "tiny.yaml", ["train.steps=7", "model.generator.width=3"])
    told = [line for line in done.out.splitlines() if line.startswith("#")]
    assert told[0] == "# 3 training cases, 1 validation cases"
    assert [word for word in ("million parameters", "s a step here", "GiB") if word not in done.out] == []
    assert not (tmp_path / "run").exists()


def test_overrides_are_kept_with_the_run(place: Path, tmp_path: Path) -> None:
    argv = ["train", place / "tiny.yaml", "train.steps=2", "train.validate_every=2", "--device", "cpu"]
    done = medgan(*argv, "--out", tmp_path / "run")
    assert done.code == 0
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["train"]["steps"] == 2
    assert "step 2 of 2: MAE " in done.err
    assert "MAE in HU, PSNR in dB" in done.err


def test_a_second_time_there_is_nothing_to_do(place: Path) -> None:
    before = tree(place / "run")
    done = medgan("train", place / "tiny.yaml", "--out", place / "run", "--device", "cpu")
    assert (done.code, done.out) == (0, f"{place / 'run'}\n")
    assert done.error == f"{place / 'run'}: its 10 steps are done"
    assert tree(place / "run") == before


def test_a_run_names_no_patient(place: Path) -> None:
    for name, content in tree(place / "run").items():
        assert "SECRET" not in name
        assert b"SECRET" not in (content if isinstance(content, bytes) else content.encode()), name


# --- translating and scoring ------------------------------------------------------------------------------------------


def test_dicom_in_dicom_out_scored(place: Path, tmp_path: Path) -> None:
    """The main job, from the scanner's series to a number."""
    done = medgan("translate", place / "run", place / "scans/p1/mr", tmp_path / "ct", "--device", "cpu")
    assert (done.code, done.err, done.warned) == (0, "", ())
    assert done.out.startswith(f"{tmp_path / 'ct'}: -1000 … 1000 HU; ")
    made = [pydicom.dcmread(path) for path in (tmp_path / "ct").iterdir()]
    assert {(one.Modality, one.SyntheticData, one.PatientID) for one in made} == {("CT", "YES", "SECRET-1")}
    argv = ["evaluate", tmp_path / "ct", place / "scans/p1/ct", "--run", place / "run", "--out", tmp_path / "scores"]
    scored = medgan(*argv, "--json")
    (row,) = json.loads(scored.out)
    synthetic, real = read(tmp_path / "ct"), read(place / "scans/p1/ct")
    assert row["mae"] == pytest.approx(np.abs(synthetic.array.astype(float) - real.array).mean())
    assert (row["status"], row["unit"]) == ("scored", "HU")
    assert json.loads((tmp_path / "scores/metrics.json").read_text())["rows"][0]["mae"] == row["mae"]
    assert (tmp_path / "scores/metrics.csv").read_text().startswith("case,patient,status,")
    table = medgan(*argv[:-2])
    assert f"{row['mae']:.2f}" in table.out
    assert "SECRET" not in scored.out + scored.err + table.out + (tmp_path / "scores/metrics.json").read_text()


def test_nifti_in_nifti_out_as_json(place: Path, tmp_path: Path) -> None:
    write(tiny_pair(1)[0], tmp_path / "100% mr.nii.gz")
    done = medgan("translate", place / "run", tmp_path / "100% mr.nii.gz", tmp_path / "o.nii.gz", "--json")
    (told,) = json.loads(done.out)
    assert told["path"] == str(tmp_path / "o.nii.gz")
    assert (told["case"], told["unit"], told["low"], told["high"]) == ("100% mr", "HU", -1000, 1000)
    assert read(tmp_path / "o.nii.gz").synthetic is not None


def test_a_table_is_translated_and_scored(place: Path, tmp_path: Path) -> None:
    argv = ["translate", place / "run", place / "cases.csv", tmp_path / "made"]
    done = medgan(*argv)
    assert [line.partition(":")[0] for line in done.out.splitlines()] == [
        str(tmp_path / f"made/p{n}") for n in range(5)
    ]
    again = medgan(*argv)
    assert again.out == "nothing was left to translate\n"
    assert again.err == f"{tmp_path / 'made'}: 5 of 5 cases are there already\n"
    rows = json.loads(medgan("evaluate", tmp_path / "made", place / "cases.csv", "--split", "test", "--json").out)
    scored = [row for row in rows if row["status"] == "scored"]
    assert [row["case"] for row in scored] == [case.name for case in read_cases(place / "cases.csv", split="test")]


def test_batch_and_overlap_are_heard(place: Path, tmp_path: Path) -> None:
    for name, options in {"a": ["--batch", "1"], "b": ["--batch", "5"], "c": ["--overlap", "0.9"]}.items():
        assert medgan("translate", place / "run", place / "scans/p1/mr", tmp_path / name, *options).code == 0
    a, b, c = (read(tmp_path / name).array for name in "abc")
    assert np.abs(a - b).max() <= 1
    assert np.abs(a - c).max() > 1


def test_trust_is_an_option(place: Path, tmp_path: Path) -> None:
    argv = ["translate", place / "run", place / "scans/p1/ct", tmp_path / "out"]
    refused = medgan(*argv)
    assert refused.code == 1
    assert "its modality is CT, accepted is MR; if you know better, say so with --trust" in refused.error
    write(tiny_pair(1)[0], tmp_path / "pt", subject=Subject())
    for path in (tmp_path / "pt").iterdir():
        header = pydicom.dcmread(path)
        header.Modality = "PT"
        header.save_as(path)
    assert medgan(*argv[:2], tmp_path / "pt", tmp_path / "out").code == 1
    assert medgan(*argv[:2], tmp_path / "pt", tmp_path / "out", "--trust").code == 0


def test_a_run_that_was_copied_without_its_checkpoint_translates(place: Path, tmp_path: Path) -> None:
    """What travels between hospitals: three small files."""
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "card.json", "weights.safetensors"):
        shutil.copy(place / "run" / name, tmp_path / "run")
    assert medgan("translate", tmp_path / "run", place / "scans/p1/mr", tmp_path / "one").code == 0
    assert medgan("translate", place / "run", place / "scans/p1/mr", tmp_path / "two").code == 0
    assert np.array_equal(read(tmp_path / "one").array, read(tmp_path / "two").array)


def test_an_untrained_run_is_a_run(place: Path, tmp_path: Path) -> None:
    """The stand-in that other tests use is what `open_run` takes for a run."""
    untrained_run(tmp_path / "run", place / "tiny.yaml")
    assert medgan("translate", tmp_path / "run", place / "scans/p1/mr", tmp_path / "out").code == 0
