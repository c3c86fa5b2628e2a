"""Gamma of files: RT dose as pydicom bundles it, NIfTI beside it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from medgan import Grid, Volume, read, write
from medgan.errors import GeometryError, InputError, MedganError, OutputError
from medgan.gamma import gamma
from medgan.metrics.gamma import gamma as gamma_of
from medgan.metrics.gamma import gamma_pass_rate


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """`ref.dcm`, an RT dose in Gy, and `eval.dcm`, the same with 2 % more and its frames in the other order."""
    folder = tmp_path_factory.mktemp("plans")
    dose = pydicom.dcmread(get_testdata_file("rtdose.dcm"))
    dose.DoseUnits = "GY"
    dose.save_as(folder / "ref.dcm")
    dose.DoseGridScaling = float(dose.DoseGridScaling) * 1.02
    dose.PixelData = dose.pixel_array[::-1].tobytes()
    dose.GridFrameOffsetVector = [-float(offset) for offset in dose.GridFrameOffsetVector]
    dose.ImagePositionPatient = [*dose.ImagePositionPatient[:2], dose.ImagePositionPatient[2] + 70]
    dose.save_as(folder / "eval.dcm")
    return folder


def test_rt_dose_is_compared_where_its_voxels_are(plans, tmp_path):
    out = tmp_path / "maps" / "gamma.nii.gz"
    found = gamma(plans / "eval.dcm", plans / "ref.dcm", out=out)
    ref = pydicom.dcmread(plans / "ref.dcm")
    dose = ref.pixel_array.T * float(ref.DoseGridScaling)
    expected = gamma_of(1.02 * dose, dose, spacing_mm=(10, 10, 5))
    assert found.gamma_pass == pytest.approx(gamma_pass_rate(expected))
    assert found.gamma_mean == pytest.approx(np.nanmean(expected), abs=1e-5)
    assert found.num_voxels == dose.size == sum(found.histogram)
    assert (found.unit, found.notes) == ("Gy", ())
    assert found.max_evaluated == pytest.approx(1.02 * dose.max())
    assert found.settings["normalisation"] == pytest.approx(dose.max())
    written = read(out)
    assert written.unit == "gamma"
    assert written.padding == (-1, -1)
    assert written.grid.same_as(read(plans / "ref.dcm").reorient("RAS").grid)
    assert written.reorient("LPS").array == pytest.approx(expected, abs=1e-4)


def test_a_result_is_plain_values_and_lines(plans):
    found = gamma(plans / "eval.dcm", plans / "ref.dcm", local=True, dose_percent=1, distance_mm=1)
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["settings"]["local"] is True
    assert told["settings"]["dose_percent"] == 1
    assert len(told["edges"]) == len(told["histogram"]) + 1 == 21
    assert found.describe().startswith("1 % / 1 mm local, cutoff 10 %: ")
    assert "1500 voxels of 10×10×15" in found.describe()


def test_json_is_as_published(plans, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[1] / "docs/reference/gamma.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    low, mask = np.ones((4, 4, 4)), np.ones((4, 4, 4))
    low[0], mask[0] = 40, 0
    saved(tmp_path / "low.nii.gz", low, "a.u.")
    saved(tmp_path / "mask.nii.gz", mask, "label")
    told = [
        gamma(plans / "eval.dcm", plans / "ref.dcm", out=tmp_path / "map.nii.gz").to_json(),
        gamma(tmp_path / "low.nii.gz", tmp_path / "low.nii.gz", local=True, distance_mm=2).to_json(),
        gamma(tmp_path / "low.nii.gz", tmp_path / "low.nii.gz", mask=tmp_path / "mask.nii.gz").to_json(),
    ]
    for one in told:
        check.validate(json.loads(json.dumps(one, allow_nan=False)))
    assert told[2]["gamma_pass"] is None
    for wrong in ({"schema": "medgan.gamma/2"}, {"gamma_pass": "98 %"}, {"histogram": [0.5]}):
        assert not check.is_valid({**told[0], **wrong})


def test_dicom_and_nifti_of_one_dose_agree(plans, tmp_path):
    ref = read(plans / "ref.dcm")
    write(ref.reorient("SLA"), tmp_path / "ref.nii.gz")
    assert gamma(tmp_path / "ref.nii.gz", plans / "ref.dcm").gamma_mean == 0


def saved(path, array, unit="Gy", spacing_mm=(2, 2, 2)):
    return write(
        Volume(np.asarray(array, np.float32), Grid.regular(np.shape(array), spacing_mm=spacing_mm), unit), path
    )


def test_a_mask_says_where_it_counts(tmp_path):
    ref = np.full((6, 5, 4), 40.0)
    judged, mask = ref.copy(), np.zeros(ref.shape)
    judged[:3], mask[4:] = 60, 1
    for name, array in (("ref", ref), ("eval", judged), ("mask", mask), ("empty", 0 * mask)):
        saved(tmp_path / f"{name}.nii.gz", array, "Gy" if name in {"ref", "eval"} else "label")
    paths = tmp_path / "eval.nii.gz", tmp_path / "ref.nii.gz"
    assert gamma(*paths).gamma_pass == pytest.approx(100 * 4 / 6)  # a voxel beside those that agree is 2 of 3 mm away
    found = gamma(*paths, mask=tmp_path / "mask.nii.gz")
    assert (found.gamma_pass, found.num_voxels, found.gamma_mean) == (100, 40, 0)
    with pytest.raises(InputError, match="mask is empty"):
        gamma(*paths, mask=tmp_path / "empty.nii.gz")


def test_no_voxel_above_the_cutoff_is_none_not_a_number(tmp_path):
    ref, mask = np.full((6, 5, 4), 1.0), np.ones((6, 5, 4))
    ref[0], mask[0] = 40, 0
    saved(tmp_path / "ref.nii.gz", ref)
    saved(tmp_path / "mask.nii.gz", mask, "label")
    found = gamma(tmp_path / "ref.nii.gz", tmp_path / "ref.nii.gz", mask=tmp_path / "mask.nii.gz")
    assert (found.gamma_pass, found.gamma_mean, found.num_voxels) == (None, None, 0)
    assert "no voxel reaches the cutoff" in found.describe()
    json.dumps(found.to_json(), allow_nan=False)


def test_a_unit_that_is_not_stated_is_told(tmp_path):
    ref = np.full((4, 4, 4), 40.0)
    saved(tmp_path / "ref.nii.gz", ref)
    saved(tmp_path / "silent.nii.gz", ref, "a.u.")
    one = gamma(tmp_path / "silent.nii.gz", tmp_path / "ref.nii.gz")
    assert one.unit == "Gy"
    assert one.notes == (f"{tmp_path / 'silent.nii.gz'} states no unit, taken as Gy",)
    both = gamma(tmp_path / "silent.nii.gz", tmp_path / "silent.nii.gz")
    assert (both.unit, both.notes) == ("a.u.", ("neither dose states its unit",))


def test_what_is_no_pair_of_doses_is_refused(tmp_path):
    ref = np.full((4, 4, 4), 40.0)
    for name, array, unit, spacing in (
        ("ref", ref, "Gy", (2, 2, 2)),
        ("ct", ref, "HU", (2, 2, 2)),
        ("coarse", ref, "Gy", (2, 2, 3)),
        ("small", ref[1:], "Gy", (2, 2, 2)),
        ("zero", 0 * ref, "Gy", (2, 2, 2)),
        ("negative", -ref, "Gy", (2, 2, 2)),
    ):
        saved(tmp_path / f"{name}.nii.gz", array, unit, spacing)
    cases: list[tuple[str, str, type[MedganError], str]] = [
        ("ct", "ref", InputError, "is in HU, which is no dose"),
        ("coarse", "ref", GeometryError, "3 mm apart; resample"),
        ("small", "ref", GeometryError, "4×4×4 at 2×2×2 mm RAS; resample"),
        ("ref", "zero", InputError, "0 everywhere"),
        ("negative", "ref", InputError, "negative"),
        ("nothing", "ref", InputError, "does not exist"),
    ]
    for judged, other, error, said in cases:
        with pytest.raises(error, match=said):
            gamma(tmp_path / f"{judged}.nii.gz", tmp_path / f"{other}.nii.gz")
    with pytest.raises(GeometryError, match="coarse"):
        gamma(tmp_path / "ref.nii.gz", tmp_path / "ref.nii.gz", mask=tmp_path / "coarse.nii.gz")


def test_axes_that_are_not_at_right_angles_are_refused(tmp_path):
    affine = np.diag([2.0, 2, 2, 1])
    affine[1, 2] = 0.4
    path = write(Volume(np.ones((4, 4, 4), np.float32), Grid((4, 4, 4), affine), "Gy"), tmp_path / "tilted.nii.gz")
    with pytest.raises(GeometryError, match="right angles"):
        gamma(path, path)


@pytest.mark.parametrize("name", ["map", "map.png", "ref.nii.gz"])
def test_a_map_is_a_new_nifti_file(tmp_path, name):
    path = saved(tmp_path / "ref.nii.gz", np.ones((4, 4, 4)))
    before = Path(path).read_bytes()
    with pytest.raises(OutputError, match=r"map of gamma|another name"):
        gamma(path, path, out=tmp_path / name)
    assert Path(path).read_bytes() == before


def test_volumes_in_memory_have_the_gamma_of_their_files(plans):
    of_files = gamma(plans / "eval.dcm", plans / "ref.dcm")
    of_volumes = gamma(read(plans / "eval.dcm"), read(plans / "ref.dcm"))
    assert of_volumes.gamma_pass == of_files.gamma_pass
    assert (of_volumes.evaluated, of_volumes.mask) == ("in memory", "")


def test_what_is_wrong_with_a_volume_is_told_by_its_role(plans):
    ref = read(plans / "ref.dcm")
    smaller = Volume(ref.array[1:], Grid(ref.array[1:].shape, ref.grid.affine), unit="Gy")
    with pytest.raises(GeometryError, match="the evaluated dose is not on the grid of the reference dose"):
        gamma(smaller, ref)
    with pytest.raises(GeometryError, match="the mask is not on the grid"):
        gamma(ref, ref, mask=smaller)
