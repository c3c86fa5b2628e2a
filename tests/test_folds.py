"""Under cross-validation a network, and a generator that makes images for it, see their fold's training part alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import TINY_CONFIG, tiny_pair

from medgan import read, train, write
from medgan.augment.sets import _TOLD
from medgan.augment.trial import _tell_other_split
from medgan.cases import read_cases
from medgan.index import index
from medgan.lessons import cases_of, load_config
from medgan.run import Run
from medgan.splits import split_hash

FOLDS = 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of three folds of six patients, and a config beside them."""
    folder = tmp_path_factory.mktemp("folds")
    for number in range(6):
        for name, volume in zip(("mr", "ct"), tiny_pair(number), strict=True):
            write(volume, folder / f"p{number}" / f"{name}.nii.gz")
    index(folder, a="mr.nii.gz", b="ct.nii.gz", out=folder / "cases.csv", folds=FOLDS)
    (folder / "tiny.yaml").write_text(TINY_CONFIG)
    return folder


def tables(cohort: Path) -> list[Path]:
    return [cohort / f"cases_fold{number}of{FOLDS}.csv" for number in range(1, FOLDS + 1)]


def test_each_patient_is_test_once_and_then_not_learnt_from(cohort: Path) -> None:
    tested: list[str] = []
    for table in tables(cohort):
        config = load_config(cohort / "tiny.yaml", [f"cases={table}"])
        learnt = {case.patient for split in ("train", "val") for case in cases_of(config, split)}
        held_out = {case.patient for case in read_cases(table, split="test")}
        assert learnt | held_out == {f"p{number}" for number in range(6)}
        assert not learnt & held_out
        tested += held_out
    assert sorted(tested) == [f"p{number}" for number in range(6)]


def trained(cohort: Path, table: Path, out: Path) -> Run:
    run = train(cohort / "tiny.yaml", [f"cases={table}"], out=out, device="cpu")
    assert isinstance(run, Run)
    return run


def test_weights_do_not_hang_on_the_images_of_the_test_patients(cohort: Path, tmp_path: Path) -> None:
    table = tables(cohort)[0]
    first = trained(cohort, table, tmp_path / "run")
    other = Path(shutil.copytree(cohort, tmp_path / "other"))
    for case in read_cases(other / table.name, split="test"):
        for path in case.images.values():
            image = read(path)
            write(image.with_array(image.array[::-1] + 7), path)
    second = trained(other, other / table.name, tmp_path / "again")
    assert first.weights_sha256 == second.weights_sha256
    assert first.card["split_sha256"] == second.card["split_sha256"] == split_hash(read_cases(table))
    third = trained(cohort, tables(cohort)[1], tmp_path / "third")
    assert third.card["split_sha256"] != first.card["split_sha256"]


def test_a_set_of_another_fold_is_told(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = split_hash(read_cases(tables(cohort)[0]))
    (tmp_path / "manifest.json").write_text(json.dumps({**dict.fromkeys(_TOLD), "split_sha256": split}))
    _tell_other_split(tmp_path, tables(cohort)[0])
    assert not capsys.readouterr().err
    _tell_other_split(tmp_path, tables(cohort)[1])
    assert "may have seen its test patients" in capsys.readouterr().err
