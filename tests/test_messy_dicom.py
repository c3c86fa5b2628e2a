"""One clean series made messy in nineteen ways: read rightly or refused by naming files; never wrong with exit 0."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dicom_folders import save, texts
from dicom_oracle import Output, judge, loaded
from dicom_tools import dcm2niix, has, medgan
from dicom_truth import frames_of
from messy_folders import VARIANTS, Outcome, clean_series, frames_in, made_up, missing_slice, outcome, two_series
from pydicom import Dataset
from pydicom.uid import generate_uid

Array = npt.NDArray[Any]
REFUSED = {"missing slice", "truncated file", "same place twice, new UID"}
BRIEFLY = {"clean", "slope of each slice", "missing slice", "truncated file", "localizers in the series"}
SILENT = {"clean", "slope of each slice", "shuffled InstanceNumber", "nested sub-folders", "two series in one folder"}


def test_there_are_nineteen() -> None:
    assert len(VARIANTS) == 19
    assert set(VARIANTS) > REFUSED


@pytest.fixture(scope="module")
def real(shared: Path) -> list[Dataset]:
    return clean_series(shared / "dicom" / "dcm_qa_decubitus" / "HFS_3_t1_fl2d_sag")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_made_up_series(variant: str, tmp_path: Path) -> None:
    seen = converted(variant, made_up(), tmp_path)
    agrees(variant, seen)
    if variant in SILENT:
        assert seen.run.code == 0


@pytest.mark.parametrize(
    "variant", [name if name in BRIEFLY else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]
)
def test_the_real_series(variant: str, real: list[Dataset], tmp_path: Path) -> None:
    agrees(variant, converted(variant, copy.deepcopy(real), tmp_path))


def converted(variant: str, slices: list[Dataset], folder: Path) -> Outcome:
    expected = VARIANTS[variant](slices, folder / "in")
    return outcome(expected, medgan(), folder / "in", folder / "out")


def agrees(variant: str, seen: Outcome) -> None:
    assert seen.word == ("refused" if variant in REFUSED else "right"), (seen.run, seen.verdict)
    assert not seen.unnamed, seen.run.said
    assert seen.run.code in ({1} if variant in REFUSED else {0, 3})
    assert "Secret" not in seen.run.said
    assert "SECRET" not in seen.run.said


@pytest.mark.parametrize("variant", ["missing slice", "same place twice, new UID", "localizers in the series"])
@pytest.mark.skipif(not has("dcm2niix"), reason="dcm2niix is not installed")
def test_the_verdicts_are_not_blind(variant: str, tmp_path: Path) -> None:
    """What dcm2niix is known to make of these folders is seen."""
    expected = VARIANTS[variant](made_up(), tmp_path / "in")
    seen = outcome(expected, dcm2niix, tmp_path / "in", tmp_path / "out")
    assert seen.word == ("wrong, rc 0" if variant in REFUSED else "right")


# --- repairs that are asked for ---------------------------------------------------------------------------------------


def test_a_missing_slice_is_filled_between_its_neighbours_and_told(tmp_path: Path) -> None:
    slices = made_up()
    expected = missing_slice(slices, tmp_path / "in")
    seen = outcome(expected, medgan("--fill"), tmp_path / "in", tmp_path / "out")
    assert seen.run.code == 3, seen.run.said
    assert (seen.verdict.found, seen.verdict.invented) == (11, 1)
    (output,) = [loaded(path) for path in seen.run.files]
    before, after = (frame.values for frame in frames_in(expected)[5:7])
    filled = judge_of_values((before + after) / 2, slices[6], output)
    assert filled <= 0.51, "whole numbers may be rounded"
    problems = " ".join(str(one["problems"]) for one in seen.run.report)
    assert all(name in problems for name in expected.offending), problems


def judge_of_values(values: Array, place: Dataset, output: Output) -> float:
    """The largest difference between a volume and values that ought to lie where a slice would have been."""
    folder = Path(str(output.path) + ".expected")
    (path,) = save([place], folder).iterdir()
    frame = frames_of(path)[0]
    rows, columns = (index.ravel() for index in np.indices(values.shape))
    voxels = np.linalg.inv(output.affine) @ np.c_[frame.places(rows, columns), np.ones(len(rows))].T
    x, y, z = np.rint(voxels[:3]).astype(int)
    assert np.abs(voxels[:3] - [x, y, z]).max() < 0.02
    return float(np.abs(output.array[x, y, z, 0] - values.ravel()).max())


def test_several_missing_slices_are_filled(tmp_path: Path) -> None:
    slices = made_up()
    kept = [one for n, one in enumerate(slices) if n not in {2, 7, 8}]
    folder = save(kept, tmp_path / "in")
    run = medgan("--fill")(folder, tmp_path / "out")
    frames = [frame for path in sorted(folder.iterdir()) for frame in frames_of(path)]
    verdict = judge(frames, [loaded(path) for path in run.files])
    assert (run.code, verdict.found, verdict.invented) == (3, 9, 3), run.said


def test_uneven_gaps_are_resampled_where_asked_and_told(tmp_path: Path) -> None:
    """Slices every 3 mm, then every 4 mm, of a picture that is linear along z: any right resampling shows just that."""
    heights = [0.0, 3, 6, 9, 12, 16, 20, 24, 28]
    slices = made_up(len(heights))
    normal = np.cross(*np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3))
    origin = np.array(slices[0].ImagePositionPatient, float)
    for one, height in zip(slices, heights, strict=True):
        one.ImagePositionPatient = texts(origin + height * normal)
        one.PixelData = np.full(one.Rows * one.Columns, 100 + 40 * height, "<u2").tobytes()
    folder = save(slices, tmp_path / "in")
    frames = [frame for path in sorted(folder.iterdir()) for frame in frames_of(path)]
    run = medgan("--resample")(folder, tmp_path / "out")
    assert run.code == 3, run.said
    assert "resampled" in " ".join(str(one["problems"]) for one in run.report)
    verdict = judge(frames, [loaded(path) for path in run.files])
    assert verdict.error < 1
    assert verdict.covered > 0.99


def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    """In the pixels, at their last byte, in the header, in the meta header, in the preamble."""
    slices = made_up(5)
    whole = len(slices[0].PixelData)
    for cut in (1, whole // 2, whole, whole + 400, whole + 900):
        folder = save(copy.deepcopy(slices), tmp_path / f"{cut}")
        victim = folder / "002.dcm"
        victim.write_bytes(victim.read_bytes()[:-cut])
        run = medgan()(folder, tmp_path / f"out{cut}")
        assert (run.code, run.files) == (1, []), (cut, run.said)
        assert "002.dcm" in run.said or "001.dcm" in run.said, run.said


# --- how much of a folder was converted -------------------------------------------------------------------------------


def test_one_bad_series_does_not_stop_the_other(tmp_path: Path) -> None:
    expected = two_series(made_up(), tmp_path / "in")
    victim = expected.files[9]
    victim.write_bytes(victim.read_bytes()[:-50])
    run = medgan()(tmp_path / "in", tmp_path / "out")
    assert run.code == 4
    assert len(run.files) == 1
    good = [frame for path in expected.files[0::2] for frame in frames_of(path)]
    verdict = judge(good, [loaded(run.files[0])])
    assert (verdict.found, verdict.invented) == (12, 0)
    assert sorted(bool(one["error"]) for one in run.report) == [False, True]
    assert victim.name in run.said


def test_several_series_do_not_fit_into_one_file(tmp_path: Path) -> None:
    two_series(made_up(), tmp_path / "in")
    run = medgan()(tmp_path / "in", tmp_path / "out.nii.gz")
    assert run.code == 1
    assert not (tmp_path / "out.nii.gz").exists()
    assert "the other" in run.said


def test_nothing_to_convert(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    assert medgan()(folder, tmp_path / "empty").code == 5
    (folder / "notes.txt").write_text("nothing here")
    run = medgan()(folder, tmp_path / "notes")
    assert (run.code, run.files) == (5, [])
    assert "Traceback" not in run.said


def test_a_report_names_every_series_file_and_problem(tmp_path: Path) -> None:
    expected = VARIANTS["lying SliceThickness"](made_up(), tmp_path / "in")
    run = medgan()(tmp_path / "in", tmp_path / "out")
    (entry,) = run.report
    assert entry["error"] == ""
    assert Path(str(entry["path"])) in run.files
    assert sorted(Path(name).name for name in entry["files"]) == [path.name for path in expected.files]  # type: ignore[attr-defined]
    assert re.search("SpacingBetweenSlices", str(entry["problems"]))
    assert run.code == 3


def test_files_of_two_persons_in_one_series_are_not_stacked(tmp_path: Path) -> None:
    slices = made_up()
    for one in slices[6:]:
        one.PatientID, one.StudyInstanceUID = "ANOTHER", generate_uid()
    run = medgan()(save(slices, tmp_path / "in"), tmp_path / "out")
    assert "ANOTHER" not in run.said
    frames = [frame for path in sorted((tmp_path / "in").iterdir()) for frame in frames_of(path)]
    if run.files:
        verdict = judge(frames, [loaded(path) for path in run.files])
        assert len(run.files) == 2, "each person's slices for themselves"
        assert (verdict.found, verdict.invented) == (12, 0)
    else:
        assert run.code == 1
