"""A trained run over new volumes: unit, range, marks, refusals, windows, tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgan import Grid, Volume, read, translate, write
from medgan.errors import InputError, MedganError, OutputError, RunError
from medgan.formats.dicom import Subject
from medgan.run import Run
from medgan.sliding import predict
from medgan.train import train
from medgan.translate import translate_volume


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    overrides = ["train.steps=4", "train.validate_every=4"]
    return train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path_factory.mktemp("runs") / "run", device="cpu")


@pytest.fixture(scope="module")
def mr(tiny_cohort: Path) -> Volume:
    return read(tiny_cohort / "p4_mr.nii.gz")


@pytest.mark.parametrize("size", [(11, 9, 5), (3, 20, 2), (16, 16, 4), (5, 5, 1)])
@pytest.mark.parametrize("patch", [(8, 8, 1), (8, 1, 8), (1, 8, 8), (8, 8, 4)])
def test_windows_of_a_net_that_changes_nothing_give_the_volume_back(
    size: tuple[int, int, int], patch: tuple[int, int, int]
) -> None:
    x = torch.rand(1, *size) * 2 - 1
    y = predict(lambda window: window, x, patch=patch, overlap=0.5, batch=3)
    torch.testing.assert_close(y, x, atol=1e-5, rtol=0)


def test_windows_leave_no_seams() -> None:
    """A net that darkens the border of its window gives a smooth image, not a grid."""
    ramp = torch.linspace(0, 1, 8)
    fall = torch.minimum(ramp, ramp.flip(0))[:, None] * torch.minimum(ramp, ramp.flip(0))[None]
    y = predict(lambda window: window * fall, torch.ones(1, 40, 40, 1), patch=(8, 8, 1), overlap=0.75, batch=4)
    inner = y[0, 8:-8, 8:-8, 0]
    plain = predict(lambda window: window * fall, torch.ones(1, 40, 40, 1), patch=(8, 8, 1), overlap=0.0, batch=4)
    assert inner.std() < 0.2 * plain[0, 8:-8, 8:-8, 0].std()


def test_batch_and_device_change_nothing_and_overlap_little(run: Run, mr: Volume) -> None:
    one, four = (translate_volume(run, mr, batch=batch).array for batch in (1, 4))
    np.testing.assert_allclose(one, four, atol=0.05)
    again = translate_volume(run, mr, batch=4).array
    np.testing.assert_array_equal(four, again)


def test_the_output_is_in_the_unit_and_range_of_the_run(run: Run, mr: Volume) -> None:
    ct = translate_volume(run, mr)
    assert (ct.unit, ct.modality) == ("HU", "CT")
    assert ct.grid is mr.grid
    assert -1000 <= ct.array.min() <= ct.array.max() <= 1000
    assert ct.synthetic is not None
    assert ct.synthetic.weights_sha256 == run.weights_sha256


def test_a_file_says_what_made_it(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    (done,) = translate(run, tiny_cohort / "p4_mr.nii.gz", tmp_path / "ct.nii.gz")
    back = read(tmp_path / "ct.nii.gz")
    assert back.synthetic == run.synthesis
    assert (back.unit, back.modality) == ("HU", "CT")
    assert (done.unit, done.low, done.high) == ("HU", -1000, 1000)
    assert 0 <= done.clipped_share < 0.2
    assert 0 <= done.saturated_share <= 1


def test_the_share_of_clipped_voxels_is_told(run: Run, mr: Volume, tmp_path: Path) -> None:
    bright = mr.array.copy()
    body = bright > 100
    chosen = np.flatnonzero(body.ravel())[::40]
    bright[np.unravel_index(chosen, bright.shape)] = 5000
    write(mr.with_array(bright), tmp_path / "mr.nii.gz")
    (done,) = translate(run, tmp_path / "mr.nii.gz", tmp_path / "ct.nii.gz")
    assert done.clipped_share == pytest.approx(0.025, abs=0.015)


def test_dicom_becomes_dicom_on_the_same_slices(run: Run, mr: Volume, tmp_path: Path) -> None:
    write(mr, tmp_path / "mr", subject=Subject())
    translate(run, tmp_path / "mr", tmp_path / "ct")
    source, ct = read(tmp_path / "mr"), read(tmp_path / "ct")
    assert ct.grid.same_as(source.grid, tolerance_mm=1e-9)
    assert (ct.unit, ct.modality, ct.array.dtype) == ("HU", "CT", np.int16)
    expected = translate_volume(run, source).array
    np.testing.assert_allclose(ct.array, expected, atol=0.51)


def test_the_wrong_image_is_refused_unless_told(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"modality is CT.*--trust"):
        translate(run, tiny_cohort / "p4_ct.nii.gz", tmp_path / "o.nii.gz")
    assert not (tmp_path / "o.nii.gz").exists()
    with pytest.raises(MedganError, match="median"):  # HU of soft tissue and air: told to trust, it still must scale
        translate(run, _shifted(tiny_cohort / "p4_ct.nii.gz", tmp_path), tmp_path / "o.nii.gz", trust=True)


def _shifted(path: Path, folder: Path) -> Path:
    volume = read(path)
    write(volume.with_array((volume.array - 3000).astype(np.int16)), folder / "shifted.nii.gz")
    return folder / "shifted.nii.gz"


def test_nifti_needs_a_file_name(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"name it \.nii\.gz"):
        translate(run, tiny_cohort / "p4_mr.nii.gz", tmp_path / "folder")


def test_a_table_is_translated_and_not_twice(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    done = translate(run, tiny_cohort / "cases.csv", tmp_path / "out", split="train")
    assert [one.case for one in done] == ["p0", "p1", "p2"]
    (tmp_path / "out" / "p1.nii.gz").unlink()
    assert [one.case for one in translate(run, tiny_cohort / "cases.csv", tmp_path / "out", split="train")] == ["p1"]


def test_results_of_two_runs_are_not_mixed(run: Run, tiny_cohort: Path, tmp_path: Path) -> None:
    translate(run, tiny_cohort / "cases.csv", tmp_path / "out", split="test")
    other = train(tiny_cohort / "tiny.yaml", ["train.steps=1", "train.seed=5"], out=tmp_path / "other", device="cpu")
    with pytest.raises(OutputError, match="other weights"):
        translate(other, tiny_cohort / "cases.csv", tmp_path / "out", split="val")


def test_a_run_without_weights_is_refused(run: Run, mr: Volume, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no weights yet"):
        translate_volume(replace(run, path=tmp_path), mr)


def test_a_grid_of_another_size_than_the_training_is_taken(run: Run) -> None:
    small = Volume(np.random.default_rng(0).uniform(50, 400, (7, 5, 3)), Grid.regular((7, 5, 3)), "a.u.", "MR")
    assert translate_volume(run, small).array.shape == (7, 5, 3)
