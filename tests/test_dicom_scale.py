"""Values: padding that no network sees, Philips' floating-point values, standardised uptake."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dicom_folders import make_slices, ramp, save, texts
from pydicom import Dataset
from pydicom.sequence import Sequence as Items

from medgan import formats
from medgan.convert import convert
from medgan.errors import DicomError
from medgan.formats.dicom import Repair, read
from medgan.formats.sidecar import of_json
from medgan.prep import Intensity, to_network
from medgan.scans import read_sources
from medgan.volume import Grid, Volume

PET = "1.2.840.10008.5.1.4.1.1.128"


# --- padding ----------------------------------------------------------------------------------------------------------


def padded(value: int, vr: str = "SS", limit: int | None = None) -> list[Dataset]:
    """A CT whose first column of pixels lies outside the circle."""
    pixels = (ramp() % 900).astype(np.int16) - 200
    pixels[:, :, 0] = value
    slices = make_slices(pixels, modality="CT", RescaleIntercept="-24")
    for one in slices:
        one.add_new("PixelPaddingValue", vr, value % 65536 if vr == "US" else value)
        if limit is not None:
            one.add_new("PixelPaddingRangeLimit", vr, limit)
    return slices


@pytest.mark.parametrize("vr", ["SS", "US"])
@pytest.mark.parametrize("value", [-2000, 30000, -32768])
def test_padding_is_kept_as_stored_and_becomes_air_before_a_network(tmp_path, vr, value):
    volume = read(save(padded(value, vr), tmp_path))
    assert volume.padding == (value - 24, value - 24)
    assert (volume.array[0] == value - 24).all()
    seen = volume.without_padding()
    assert (seen.array[0] == -1000).all()
    assert np.array_equal(seen.array[1:], volume.array[1:])
    assert seen.padding is None


def test_padding_may_be_a_range(tmp_path):
    slices = padded(-2000, limit=-1500)
    for one in slices:
        one.PixelData = one.PixelData.replace(np.int16(-2000).tobytes(), np.int16(-1700).tobytes())
    volume = read(save(slices, tmp_path))
    assert volume.padding == (-2024, -1524)
    assert (volume.without_padding().array[0] == -1000).all()


def test_padding_is_air_for_a_run(tmp_path):
    from medgan.prep import Prep

    intensity = {"modality": "CT", "unit": "HU", "range": (-1000, 1000)}
    prep = Prep(a=intensity, b=intensity)
    source = read_sources({"a": save(padded(30000), tmp_path)}, prep, "case")["a"]
    assert to_network(source, Intensity(**intensity))[0].min() == -1
    assert to_network(source, Intensity(**intensity))[0].max() < 1


def test_padding_does_not_mix_into_tissue_where_slices_are_resampled(tmp_path):
    slices = padded(30000)
    for index, one in enumerate(slices):
        one.ImagePositionPatient = texts([-20 + 0.8 * index, -30, 10 + 2.5 * index])
    volume = read(save(slices, tmp_path))
    assert volume.array.max() < 1000
    assert read(tmp_path, repair=Repair(resample=False)).array.max() == 30000 - 24


@pytest.mark.parametrize("name", ["x.nii.gz", "x.mha", "x.nrrd"])
@pytest.mark.parametrize("slope", ["1", "0.1"])
def test_padding_is_known_in_other_formats_too(tmp_path, name, slope):
    slices = padded(-2000)
    for one in slices:
        one.RescaleSlope = slope
    (done,) = convert(save(slices, tmp_path / "ct"), tmp_path / name)
    volume, source = formats.read(done.path), read(tmp_path / "ct")
    assert volume.padding == source.padding
    seen = volume.reorient(source.grid.orientation).without_padding()
    assert (seen.array[0] == -1000).all()
    assert np.array_equal(seen.array[1:], source.array[1:])


@pytest.mark.parametrize("said", [["a", 1], [1], [2, 1], [True, 2], "1", {"low": 1}, [float("nan"), 1]])
def test_a_padding_that_is_no_range_counts_as_none(said):
    assert of_json(json.dumps({"Modality": "CT", "PixelPaddingRange": said})).padding is None


def test_values_made_of_others_have_no_padding():
    volume = Volume(np.zeros((2, 2, 2), np.int16), Grid.regular((2, 2, 2)), "HU", padding=(-2000, -2000))
    assert volume.with_array(volume.array + 1).padding is None
    assert volume.reorient("LPS").padding == (-2000, -2000)
    assert volume.without_padding().array.max() == 0


def test_in_other_units_air_is_the_lowest_value_measured():
    array = np.array([[[-5.0, 1.0, 2.0]]])
    volume = Volume(array, Grid.regular((1, 1, 3)), "a.u.", padding=(-5.0, -5.0))
    assert volume.without_padding().array.ravel().tolist() == [1.0, 1.0, 2.0]


# --- Philips ----------------------------------------------------------------------------------------------------------


def test_philips_floating_point_values(tmp_path):
    """FP = DV / (RS · SS), DV = SV · RS + RI; DICOM's (2005,100E) is SS."""
    slices = make_slices(ramp(), RescaleSlope="2.5", RescaleIntercept="-40", Manufacturer="Philips Medical Systems")
    for one in slices:
        one.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.0125)
    save(slices, tmp_path)
    displayed, floating = read(tmp_path).array, read(tmp_path, scaling="philips").array
    assert displayed == pytest.approx(ramp().transpose(2, 1, 0) * 2.5 - 40)
    assert floating == pytest.approx(displayed / (2.5 * np.float32(0.0125)), rel=1e-6)


def test_others_have_no_floating_point_values(tmp_path):
    with pytest.raises(DicomError, match=r"000\.dcm: has no scale slope of Philips"):
        read(save(make_slices(ramp()), tmp_path), scaling="philips")


# --- uptake -----------------------------------------------------------------------------------------------------------


def pet(**changes: object) -> list[Dataset]:
    """70 kg, 350 MBq of F-18 injected one hour before the scan, slopes of its own for every slice."""
    drug = Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = "350000000", "6586.2"
    drug.RadiopharmaceuticalStartTime = "090000.00"
    told: dict[str, object] = {
        "Modality": "PT", "SOPClassUID": PET, "Units": "BQML", "PatientWeight": "70", "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY", "SCAT"], "SeriesDate": "20200102", "SeriesTime": "100000",
        "AcquisitionDate": "20200102", "AcquisitionTime": "100500", "RescaleIntercept": "0",
        "RadiopharmaceuticalInformationSequence": Items([drug]),
    }  # fmt: skip
    slices = make_slices(ramp())
    for index, one in enumerate(slices):
        for key, value in {**told, "RescaleSlope": texts([0.5 + index])[0], **changes}.items():
            if key in drug:
                setattr(drug, key, value)
            elif value is not None:
                setattr(one, key, value)
    return slices


def stated() -> np.ndarray:
    return (ramp() * (0.5 + np.arange(6))[:, None, None]).transpose(2, 1, 0)


@pytest.mark.parametrize(
    ("changes", "dose_left"),
    [
        ({}, 350e6 * 0.5 ** (3600 / 6586.2)),
        ({"DecayCorrection": "ADMIN"}, 350e6),
        ({"RadiopharmaceuticalStartTime": "233000"}, 350e6 * 0.5 ** (10.5 * 3600 / 6586.2)),
        ({"RadionuclideHalfLife": "1223.4", "RadiopharmaceuticalStartTime": "0945"}, 350e6 * 0.5 ** (900 / 1223.4)),
    ],
    ids=["start", "admin", "the evening before", "C-11"],
)
def test_uptake_by_body_weight(tmp_path, changes, dose_left):
    volume = read(save(pet(**changes), tmp_path), scaling="suv")
    assert volume.unit == "SUV"
    assert volume.array == pytest.approx(stated() * 70_000 / dose_left, rel=1e-5)


def test_uptake_that_the_header_already_has(tmp_path):
    assert read(save(pet(Units="GML"), tmp_path), scaling="suv").array == pytest.approx(stated(), rel=1e-6)


def test_philips_counts_have_a_factor_of_their_own(tmp_path):
    slices = pet(Units="CNTS", Manufacturer="Philips")
    for one in slices:
        one.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.00025")
    assert read(save(slices, tmp_path), scaling="suv").array == pytest.approx(stated() * 0.00025, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"Modality": "MR"}, "is no PET"),
        ({"Units": "CNTS"}, "without Philips' SUV factor"),
        ({"Units": "PROPCNTS"}, "values are in PROPCNTS"),
        ({"PatientWeight": None}, "PatientWeight is absent"),
        ({"RadionuclideTotalDose": "0"}, "RadionuclideTotalDose is absent or no positive number"),
        ({"RadionuclideHalfLife": ""}, "RadionuclideHalfLife is absent"),
        ({"CorrectedImage": ["DECY"]}, "not corrected for ATTN"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is NONE"),
        ({"RadiopharmaceuticalStartTime": ""}, "does not tell when the dose was given"),
        ({"SeriesTime": "110000"}, "do not tell when the scan started"),
        ({"RadionuclideHalfLife": "10"}, "which cannot be"),
    ],
)
def test_uptake_is_refused_where_the_header_lacks_what_it_needs(tmp_path, changes, why):
    with pytest.raises(DicomError, match=why) as seen:
        read(save(pet(**changes), tmp_path), scaling="suv")
    assert "000.dcm" in str(seen.value)
