"""inspect: every scan is found, and told what it is; one that cannot be read is a finding, not an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medgan.errors import InputError
from medgan.formats import read, write
from medgan.formats.dicom import Subject
from medgan.inspect import Finding, inspect
from medgan.volume import Grid, Synthesis, Volume

GRID = Grid.regular((12, 10, 8), spacing_mm=(1, 2, 3))
NOISE = np.random.default_rng(0).normal(300, 80, GRID.shape)


def plain(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, GRID.affine if affine is None else affine), path)
    return path


def only(path: Path, **options: Any) -> Finding:
    (finding,) = inspect(path, **options)
    return finding


def test_a_series_is_told_whole(tmp_path: Path) -> None:
    ct = Volume((NOISE - 700).astype(np.int16), GRID, unit="HU", modality="CT")
    write(ct, tmp_path / "p1/ct", subject=Subject(patient_id="SECRET-7"), description="head")
    finding = only(tmp_path)
    assert (finding.path, finding.kind, finding.modality, finding.description) == ("p1/ct", "dicom", "CT", "head")
    assert (finding.shape, finding.spacing_mm) == ((12, 10, 8), pytest.approx((1, 2, 3)))
    assert finding.orientation == read(tmp_path / "p1/ct").grid.orientation
    assert (finding.minimum, finding.maximum) == (ct.array.min(), ct.array.max())
    assert (finding.unit, finding.dtype, finding.synthetic, finding.error) == ("HU", "int16", False, "")
    assert finding.obliquity_deg == 0


def test_identity_is_told_only_if_asked_for(tmp_path: Path) -> None:
    ct = Volume((NOISE - 700).astype(np.int16), GRID, unit="HU", modality="CT")
    write(ct, tmp_path / "ct", subject=Subject(patient_id="SECRET-7", patient_name="Secret^Name"))
    assert "SECRET" not in json.dumps(only(tmp_path).to_json()).upper()
    assert only(tmp_path, identity=True).patient == "SECRET-7"


def test_a_plain_nifti_has_no_unit(tmp_path: Path) -> None:
    finding = only(plain(tmp_path / "t1.nii.gz", NOISE.astype(np.float32)))
    assert (finding.path, finding.kind, finding.unit, finding.modality) == ("t1.nii.gz", "nifti", "", "")
    assert (finding.dtype, finding.problems, finding.error) == ("float32", (), "")
    assert (finding.minimum, finding.maximum) == (NOISE.astype(np.float32).min(), NOISE.astype(np.float32).max())


def test_a_marked_nifti_is_synthetic(tmp_path: Path) -> None:
    write(Volume(NOISE, GRID, modality="MR", synthetic=Synthesis("pix2pix")), tmp_path / "x.nii")
    finding = only(tmp_path)
    assert (finding.synthetic, finding.modality, finding.unit) == (True, "MR", "a.u.")


def test_obliquity_is_nibabels(tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (5, 10, 15), degrees=True).as_matrix() * (1, 2, 3)
    finding = only(plain(tmp_path / "x.nii", NOISE, turn))
    assert finding.obliquity_deg == pytest.approx(np.degrees(nib.affines.obliquity(turn).max()), abs=0.01)


def sheared() -> np.ndarray:
    affine = np.diag([1.0, 1, 3, 1])
    affine[1, 2] = 1
    return affine


@pytest.mark.parametrize(
    ("array", "affine", "said"),
    [
        (NOISE * 4 - 2000 - (NOISE * 4 - 2000).min() - 1024, None, "the values look like HU"),
        (np.minimum(NOISE, 350), None, "the values look clipped: "),
        (np.full(GRID.shape, 7.0), None, "all voxels are 7"),
        (NOISE, sheared(), "not at right angles"),
        (NOISE, np.diag([1.0, 1, 6, 1]), "voxels are 6.0 times as long as wide"),
        (NOISE[:, :, :1], None, "a single slice"),
    ],
)
def test_what_is_odd_is_said(tmp_path: Path, array: np.ndarray, affine: np.ndarray | None, said: str) -> None:
    finding = only(plain(tmp_path / "x.nii", array.astype(np.float32), affine))
    assert any(said in problem for problem in finding.problems), finding.problems


def test_hu_without_anything_below_water_is_odd(tmp_path: Path) -> None:
    write(Volume(np.abs(NOISE), GRID, unit="HU", modality="CT"), tmp_path / "x.nii")
    assert only(tmp_path).problems == ("in HU, but no value is below 0",)


def test_masks_and_labels_are_not_clipped(tmp_path: Path) -> None:
    blocks = np.kron(np.arange(24).reshape(4, 3, 2), np.ones((3, 3, 4)))[: GRID.shape[0], : GRID.shape[1]]
    plain(tmp_path / "labels.nii", blocks.astype(np.uint8), np.eye(4))
    plain(tmp_path / "mask.nii", (NOISE > 300).astype(np.uint8))
    assert [finding.problems for finding in inspect(tmp_path)] == [(), ()]


def test_what_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    good = plain(tmp_path / "a/good.nii.gz", NOISE.astype(np.float32))
    (tmp_path / "a/cut.nii.gz").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "a/empty.nii").touch()
    plain(tmp_path / "four.nii", np.zeros((3, 3, 3, 4), np.int16))
    plain(tmp_path / "nan.nii", np.full((3, 3, 3), np.nan, np.float32))
    (tmp_path / "junk.dcm").write_text("not DICOM")
    (tmp_path / "notes.txt").write_text("not a scan")
    (tmp_path / "._good.nii.gz").write_text("left by another system")
    found = {finding.path: finding for finding in inspect(tmp_path)}
    assert set(found) == {"a/good.nii.gz", "a/cut.nii.gz", "a/empty.nii", "four.nii", "nan.nii", "junk.dcm"}
    assert found["a/good.nii.gz"].error == ""
    assert "damaged or cut short" in found["a/cut.nii.gz"].error
    assert "it is empty" in found["a/empty.nii"].error
    assert (found["four.nii"].num_volumes, found["four.nii"].error) == (4, "")
    assert "27 of 27 voxels are NaN" in found["nan.nii"].error
    assert "not DICOM" in found["junk.dcm"].error
    assert found["nan.nii"].shape == (3, 3, 3)


def test_a_missing_slice_is_said(tmp_path: Path) -> None:
    ct = Volume((NOISE - 700).astype(np.int16), GRID, unit="HU", modality="CT")
    sorted(write(ct, tmp_path / "ct", subject=Subject()).iterdir())[3].unlink()
    finding = only(tmp_path)
    assert "missing" in finding.error
    assert finding.shape is None


def test_a_spoiled_copy_beside_a_series_does_not_hide_it(tmp_path: Path) -> None:
    ct = Volume((NOISE - 700).astype(np.int16), GRID, unit="HU", modality="CT")
    write(ct, tmp_path / "one", subject=Subject())
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    sorted((tmp_path / "two").iterdir())[3].write_bytes(b"")
    changed = sorted((tmp_path / "two").iterdir())[4]
    changed.write_bytes(changed.read_bytes()[:-100] + bytes(100))
    found = {finding.path: finding for finding in inspect(tmp_path)}
    assert found["one"].shape == (12, 10, 8)
    assert found["two"].error


def test_a_missing_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        inspect(tmp_path / "nowhere")


def test_an_empty_place_has_no_findings(tmp_path: Path) -> None:
    assert inspect(tmp_path) == []


def test_a_finding_is_json(tmp_path: Path) -> None:
    plain(tmp_path / "x.nii", NOISE)
    fields = json.loads(json.dumps(only(tmp_path).to_json()))
    assert fields["shape"] == [12, 10, 8]
    assert fields["kind"] == "nifti"


def test_real_scans_are_all_found(shared: Path) -> None:
    found = inspect(shared / "dicom")
    by_path = {finding.path: finding for finding in found}
    assert sum(finding.kind == "nifti" for finding in found) == len(list((shared / "dicom").rglob("*.nii.gz")))
    sagittal = by_path["dcm_qa_decubitus/HFS_3_t1_fl2d_sag"]
    assert (sagittal.shape, sagittal.orientation, sagittal.error) == ((256, 256, 35), "PIR", "")
    assert "gantry tilt" in by_path["dcm_qa_ct/Philips_S21610/S2010"].problems[0]
    assert by_path["dicom2nifti/tests/data/siemens/dti_classic/001"].num_volumes == 2
    assert by_path["dicom2nifti/tests/data/siemens/dti_classic/001_ground_truth.nii.gz"].num_volumes == 2
    assert "missing" in by_path["dicom2nifti/tests/data/failing/sliceincrement/001"].error


def test_real_pairs_have_nothing_odd(shared: Path) -> None:
    found = inspect(shared / "nichart_t1_flair_3d2mm")
    assert len(found) == 13 * 4
    assert {(finding.problems, finding.error) for finding in found} == {((), "")}
