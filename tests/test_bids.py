"""The JSON file beside an image: what dcm2niix says too, it says alike; who the patient is, it does not say."""

from __future__ import annotations

import json
import math
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from medgan.formats.dicom.bids import KEYWORDS, acquisition
from medgan.formats.dicom.deidentify.profile import ACTIONS, action_of
from medgan.formats.sidecar import Marks

REAL = [
    "dcm_qa_ct/Philips_S21610/S2010",
    "dcm_qa_decubitus/HFS_3_t1_fl2d_sag",
    *(
        f"dicom2nifti/tests/data/{name}/anatomical/001"
        for name in ("siemens", "ge", "philips", "hitachi", "hyperfine", "generic")
    ),
    "dicom2nifti/tests/data/siemens/dti_classic/001",
    "dicom2nifti/tests/data/ge/dti/002",
]


def headers(folder: Path) -> list[Dataset]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [dcmread(path, force=True, stop_before_pixels=True) for path in folder.rglob("*") if path.is_file()]
    return [header for header in found if "Rows" in header]


# --- the same as dcm2niix ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_real_fields_agree_with_dcm2niix(shared: Path, tmp_path: Path, name: str) -> None:
    package = pytest.importorskip("dcm2niix")
    folder = shared / "dicom" / name
    words = [package.bin, "-o", tmp_path, "-f", "x", "-b", "o", folder]
    subprocess.run(words, check=False, capture_output=True)  # it leaves 1 for odd volumes, and the file all the same
    theirs = json.loads(next(tmp_path.glob("x*.json")).read_text())
    mine = [acquisition(header) for header in headers(folder)]
    common = sorted(theirs.keys() & mine[0].keys() - {"Manufacturer", "ImageType"})
    assert len(common) >= 3
    for key in common:
        assert any(_same(one.get(key), theirs[key]) for one in mine), key
    if "Manufacturer" in theirs:
        assert mine[0]["Manufacturer"].lower().startswith(theirs["Manufacturer"].lower())
    # dcm2niix splits words and adds one.
    assert {word for part in mine[0]["ImageType"] for word in part.split("_")} <= set(theirs["ImageType"])


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, int | float) and isinstance(mine, int | float):
        return math.isclose(mine, theirs, rel_tol=1e-5)  # six digits
    return bool(mine == theirs)


def test_how_much_is_told_of_a_real_scan(shared: Path) -> None:
    told = acquisition(headers(shared / "dicom" / REAL[1])[0])
    assert {
        "MagneticFieldStrength": 3,
        "EchoTime": 0.00246,
        "RepetitionTime": 0.3,
        "FlipAngle": 80,
    }.items() <= told.items()
    assert len(told) > 20


def test_units_are_those_of_bids() -> None:
    header, tracer, nuclide = Dataset(), Dataset(), Dataset()
    nuclide.CodeMeaning = "^18^Fluorine"
    tracer.Radiopharmaceutical, tracer.RadionuclideCodeSequence = "FDG", Sequence([nuclide])
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = "370000000", "6586.2"
    tracer.RadiopharmaceuticalStartTime = "101500"
    header.RadiopharmaceuticalInformationSequence = Sequence([tracer])
    header.ActualFrameDuration, header.ReconstructionMethod, header.DecayCorrection = "120000", "OSEM 3i 21s", "START"
    assert acquisition(header) == {
        "TracerName": "FDG",
        "TracerRadionuclide": "18^Fluorine",
        "InjectedRadioactivity": 370,
        "InjectedRadioactivityUnits": "MBq",
        "RadionuclideHalfLife": 6586.2,
        "FrameDuration": [120],
        "ReconMethodName": "OSEM 3i 21s",
        "DecayCorrection": "START",
    }
    ct = Dataset()
    ct.KVP, ct.ExposureTime, ct.Exposure, ct.ConvolutionKernel = "120", "875", "300", ["UB", "3"]
    assert acquisition(ct) == {"KVP": 120, "ExposureTime": 0.875, "XRayExposure": 300, "ConvolutionKernel": "UB\\3"}


# --- and nobody's name ------------------------------------------------------------------------------------------------

PLANTED = "Planted^Zebra"
_DATES = {"DA": "19700606", "TM": "060606", "DT": "19700606060606", "UI": "1.2.3.19700606"}
_OF_THE_TRACER = ("Radiopharmaceutical", "RadionuclideTotalDose", "RadionuclideHalfLife", "RadionuclideCodeSequence")


@pytest.mark.parametrize("keyword", [*KEYWORDS, *_OF_THE_TRACER, "RadionuclidePositronFraction", "CodeMeaning"])
def test_the_profile_lets_every_attribute_stand(keyword: str) -> None:
    assert action_of(Tag(keyword)) == ""
    assert action_of(Tag("PatientName"))


def planted() -> Dataset:
    """A header in which every text attribute that the profile acts on bears the mark, at the top and in an item."""
    header = Dataset()
    for tag in filter(dictionary_has_tag, ACTIONS):
        vr = dictionary_VR(tag)
        if vr in {"PN", "LO", "SH", "LT", "ST", "UT", "UC", "AE"}:
            header.add_new(tag, vr, PLANTED)
        elif vr in _DATES:
            header.add_new(tag, vr, _DATES[vr])
    header.add_new((0x0029, 0x0010), "LO", PLANTED)
    header.add_new((0x0029, 0x1010), "UN", PLANTED.encode())
    return header


@pytest.mark.filterwarnings("ignore")
def test_planted_identifiers_never_appear(shared: Path) -> None:
    for name in REAL:
        for header in headers(shared / "dicom" / name)[:2]:
            header.update({tag: element for tag, element in planted().items() if not element.is_private})
            tracer = planted()
            tracer.Radiopharmaceutical = "FDG"
            header.RadiopharmaceuticalInformationSequence = Sequence([tracer])
            told = acquisition(header)
            text = json.dumps(Marks("a.u.", "MR").to_json("", told))
            assert told["TracerName"] == "FDG"
            assert not [word for word in ("zebra", "planted", "1970", "0606") if word in text.lower()]


def test_planting_reaches_hundreds_of_attributes() -> None:
    header = planted()
    assert len(header) > 300
    assert {"PatientName", "InstitutionName", "StationName", "DeviceSerialNumber"} <= set(header.dir())
    assert {"StudyDescription", "ProtocolName", "AcquisitionDate", "SOPInstanceUID"} <= set(header.dir())


@pytest.mark.filterwarnings("ignore")
def test_long_texts_are_left_out() -> None:
    header = Dataset()
    header.add_new((0x0018, 0x0024), "SH", "A name of seventy letters, which no sequence has, " * 2)
    assert acquisition(header) == {}


# --- damage -----------------------------------------------------------------------------------------------------------


def test_values_that_are_none_are_left_out() -> None:
    header = Dataset()
    for keyword in KEYWORDS:
        if dictionary_VR(keyword) in {"DS", "IS"}:
            header.add_new(keyword, "LO", "nan")
        elif dictionary_VR(keyword) == "SQ":
            header.add_new(keyword, "SQ", [])
        else:
            header.add_new(keyword, dictionary_VR(keyword), None)
    assert acquisition(header) == {}
    assert acquisition(Dataset()) == {}


@pytest.mark.filterwarnings("ignore")
def test_damaged_headers_raise_nothing_and_give_json(shared: Path, tmp_path: Path) -> None:
    content = next(path for path in sorted((shared / "dicom" / REAL[1]).iterdir()) if path.is_file()).read_bytes()[
        :20000
    ]
    rng, told = np.random.default_rng(0), 0
    for _ in range(100):
        damaged = bytearray(content)
        for place in rng.integers(300, 6000, 60):
            damaged[place] = rng.integers(256)
        (tmp_path / "x.dcm").write_bytes(bytes(damaged))
        try:
            header = dcmread(tmp_path / "x.dcm", force=True, stop_before_pixels=True)
        except Exception:  # pydicom's own business
            continue
        fields = acquisition(header)
        json.dumps(fields, allow_nan=False)
        told += bool(fields)
    assert told > 50


def test_marks_count_more_than_what_is_told_about_the_scan() -> None:
    fields = Marks("HU", "CT").to_json("head", {"Modality": "MR", "EchoTime": 0.1, "SlicePositions": [[0, 0, 1.5]]})
    assert (fields["Modality"], fields["Units"], fields["SeriesDescription"]) == ("CT", "HU", "head")
    assert (fields["EchoTime"], fields["SlicePositions"]) == (0.1, [[0, 0, 1.5]])
    assert Marks().to_json("", {"EchoTime": 0.1}).keys() == {"EchoTime", "GeneratedBy"}
