"""De-identification: what was planted is gone from every byte, what is left is valid, what cannot go is told."""

from __future__ import annotations

import importlib.util
import json
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from command_line import Done, medgan, tree
from dicom_folders import make_slices, ramp, save, save_one, set_pixels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, dcmread, dcmwrite
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from medgan import Grid, Volume, deidentify
from medgan.deidentify import REPORT, Deidentified
from medgan.errors import DicomError, InputError, OutputError
from medgan.formats import dicom
from medgan.formats.dicom.deidentify import Choices, Cleaned, Pseudonyms, deidentify_file
from medgan.formats.dicom.deidentify.leaks import Removed
from medgan.formats.dicom.deidentify.needs import weakest
from medgan.formats.dicom.deidentify.profile import ACTIONS, action_of
from medgan.formats.dicom.deidentify.pseudonyms import shifted

KEY = bytes(range(32))
CHOICES = Choices(Pseudonyms(KEY))
SHIFTING = Choices(Pseudonyms(KEY), shift_dates=True)
# Each is planted somewhere, and none may be left anywhere, in whatever case.
SECRETS = [
    "Mustermann", "Erika", "Gabler", "PID-4711-X", "19520817", "ACC-99/1", "Dr. Allwissend", "Klinikum Nirgendwo",
    "Knee of Frau M", "Called her son Otto", "20200102", "20200103", "MRT-Nord-2", "SN-314159", "Sesamstrasse 5",
    "+49 555 0100", "1.3.12.2.1107.5.2.99", "Quisquilia", "SCANNERAE", "JohnDoeTrailing", "PREAMBLE-NAME", "0815-ALIAS",
]  # fmt: skip


def siemens_study() -> list[Dataset]:
    """Two series of a study, as a scanner fills them in, with somebody's identity in every corner."""
    study, frame = "1.3.12.2.1107.5.2.99.1", "1.3.12.2.1107.5.2.99.2"
    study_of: dict[str, Any] = {"StudyInstanceUID": study, "FrameOfReferenceUID": frame}
    first, second = (make_slices(ramp(3), **study_of) for _ in range(2))
    for number, series in enumerate((first, second), start=1):
        for index, one in enumerate(series):
            one.SeriesInstanceUID = f"1.3.12.2.1107.5.2.99.3.{number}"
            one.SOPInstanceUID = f"1.3.12.2.1107.5.2.99.4.{number}.{index}"
            _identify(one)
    for one, other in zip(second, first, strict=True):
        one.ReferencedImageSequence = [reference(other)]
        one.SourceImageSequence = [reference(other)]
        series_item = Dataset()
        series_item.SeriesInstanceUID, series_item.ReferencedInstanceSequence = other.SeriesInstanceUID, []
        series_item.ReferencedInstanceSequence = [reference(other)]
        one.ReferencedSeriesSequence = [series_item]
    return [*first, *second]


def reference(other: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = other.SOPClassUID, other.SOPInstanceUID
    return item


def _identify(one: Dataset) -> None:
    one.SpecificCharacterSet = "ISO_IR 100"
    one.PatientName, one.PatientID, one.PatientBirthDate = "Mustermann^Erika", "PID-4711-X", "19520817"
    one.PatientBirthName, one.OtherPatientIDs, one.PatientAge = "Gabler", "0815-ALIAS", "067Y"
    one.PatientAddress, one.PatientTelephoneNumbers = "Sesamstrasse 5", "+49 555 0100"
    one.AccessionNumber, one.ReferringPhysicianName = "ACC-99/1", "Dr. Allwissend"
    one.InstitutionName, one.StationName, one.DeviceSerialNumber = "Klinikum Nirgendwo", "MRT-Nord-2", "SN-314159"
    one.StudyDescription, one.SeriesDescription = "Knee of Frau M", "t1_Mustermann"
    one.StudyComments = "Called her son Otto"
    one.StudyDate, one.SeriesDate, one.AcquisitionDate, one.ContentDate = "20200102", "20200102", "20200103", "20200103"
    one.StudyTime, one.AcquisitionTime, one.AcquisitionDateTime = "101112", "101313", "20200103101313.000000+0100"
    one.BodyPartExamined, one.ProtocolName = "KNEE", "Erika's protocol"
    _hide(one)


def _hide(one: Dataset) -> None:
    """In sequences, private groups, graphics, signatures and what was there before."""
    nested = Dataset()
    nested.PatientID, nested.PatientName, nested.ScheduledProcedureStepDescription = "PID-4711-X", "Mustermann", "Knee"
    one.RequestAttributesSequence = [nested]
    kept = Dataset()
    kept.Manufacturer, kept.InstitutionName, kept.StationName = "ScannerMaker", "Klinikum Nirgendwo", "MRT-Nord-2"
    kept.PatientID = "PID-4711-X"
    one.ContributingEquipmentSequence = [kept]
    one.OriginalAttributesSequence = [nested]
    one.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
    one.add_new(0x00291010, "OB", b"SV10\4\3\2\1 Quisquilia Mustermann ")
    kept.add_new(0x00290010, "LO", "QUISQUILIA PRIVATE")
    kept.add_new(0x00291010, "UN", b"Quisquilia")
    one.add_new(0x50000005, "US", 1)
    one.add_new(0x50003000, "OW", b"Quisquilia")
    one.add_new(0x60000010, "US", 8)
    one.add_new(0x60003000, "OW", b"Quisquilia")
    one.add_new(0x60004000, "LT", "Quisquilia")
    icon = Dataset()
    icon.add_new(0x7FE00010, "OB", b"Quisquilia")
    one.IconImageSequence = [icon]
    signature = Dataset()
    signature.CertificateOfSigner = b"Quisquilia"
    one.DigitalSignaturesSequence = [signature]
    one.DataSetTrailingPadding = b"JohnDoeTrailing "


def save_with_history(datasets: list[Dataset], folder: Path) -> Path:
    """Files named after the patient, with a preamble, a meta header and trailing bytes that tell too."""
    save(datasets, folder / "Mustermann_Erika", pattern="Mustermann-{:03d}.dcm")
    for path in sorted(folder.rglob("*.dcm")):
        one = dcmread(path)
        one.preamble = b"PREAMBLE-NAME".ljust(128, b"\0")
        one.file_meta.SourceApplicationEntityTitle = "SCANNERAE"
        one.file_meta.PrivateInformationCreatorUID, one.file_meta.PrivateInformation = "1.2.3.4", b"Quisquilia"
        dcmwrite(path, one)
        path.write_bytes(path.read_bytes() + b"JohnDoeTrailing ")
    (folder / "Mustermann.json").write_text('{"PatientName": "Mustermann"}')
    (folder / "notes.txt").write_text("Mustermann")
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return save_with_history(siemens_study(), tmp_path / "Mustermann")


def released(out: Path) -> list[Dataset]:
    return [dcmread(path) for path in sorted(out.rglob("*.dcm"))]


def all_items(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from all_items(item)


def one_file(tmp_path: Path, dataset: Dataset, *, choices: Choices = CHOICES, syntax: str = "") -> Cleaned:
    cleaned = deidentify_file(save_one(dataset, tmp_path / "one.dcm", syntax=syntax), choices)
    assert cleaned is not None
    return cleaned


def read_back(cleaned: Cleaned) -> Dataset:
    return dcmread(BytesIO(cleaned.content))


def mr(**attributes: Any) -> Dataset:
    return make_slices(ramp(1), **attributes)[0]


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_nothing_planted_is_left_in_any_byte_or_name(study: Path, tmp_path: Path) -> None:
    done = medgan("deidentify", study, tmp_path / "out")
    assert done.code == 0, done.err
    found = tree(tmp_path / "out")
    assert len(found) > 6
    for name, content in found.items():
        for text in (name.encode(), content if isinstance(content, bytes) else content.encode()):
            for secret in SECRETS:
                for encoding in ("latin-1", "utf-16-le", "utf-16-be"):
                    assert secret.lower().encode(encoding) not in text.lower(), f"{secret} in {name}"
    told = done.out + done.err
    assert not any(secret in told for secret in SECRETS)


def test_nothing_of_the_old_folder_comes_along(study: Path, tmp_path: Path) -> None:
    done = deidentify(study, tmp_path / "out")
    assert {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()} == {".dcm", ".json"}
    assert [path.name for path in (tmp_path / "out").glob("*.json")] == [REPORT]
    assert (len(done.released), done.num_others, done.refused) == (6, 2, ())


def test_pixels_and_geometry_stay(study: Path, tmp_path: Path) -> None:
    deidentify(study, tmp_path / "out")
    before = [dcmread(path) for path in sorted(study.rglob("*.dcm"))]
    after = released(tmp_path / "out")
    keys = (
        "PixelData",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "EchoTime",
        "InstanceNumber",
    )
    for key in keys:
        assert Counter(str(one[key].value) for one in before) == Counter(str(one[key].value) for one in after)


def test_it_says_of_itself_what_was_done(study: Path, tmp_path: Path) -> None:
    deidentify(study, tmp_path / "out")
    for one in released(tmp_path / "out"):
        assert one.PatientIdentityRemoved == "YES"
        assert "PS3.15" in one.DeidentificationMethod
        [item] = one.DeidentificationMethodCodeSequence
        assert (item.CodeValue, item.CodingSchemeDesignator) == ("113100", "DCM")
        assert item.CodeMeaning == "Basic Application Confidentiality Profile"
        assert one.LongitudinalTemporalInformationModified == "REMOVED"


def test_no_private_group_overlay_curve_icon_signature_or_history_is_left(study: Path, tmp_path: Path) -> None:
    deidentify(study, tmp_path / "out")
    gone = ("IconImageSequence", "DigitalSignaturesSequence", "OriginalAttributesSequence", "DataSetTrailingPadding")
    for one in released(tmp_path / "out"):
        for item in all_items(one):
            assert not any(tag.is_private or tag.group & 0xFF00 in {0x5000, 0x6000} for tag in item.keys())  # noqa: SIM118
        assert not any(key in one for key in gone)
        assert one.preamble == bytes(128)
        assert {element.tag.element for element in one.file_meta} <= {0, 1, 2, 3, 0x10, 0x12, 0x13}
        assert one.ContributingEquipmentSequence[0].Manufacturer == "ScannerMaker"
        assert "InstitutionName" not in one.ContributingEquipmentSequence[0]


def test_uids_are_new_and_agree_all_over_the_study(study: Path, tmp_path: Path) -> None:
    deidentify(study, tmp_path / "out")
    files = released(tmp_path / "out")
    assert len({one.StudyInstanceUID for one in files}) == len({one.FrameOfReferenceUID for one in files}) == 1
    series = {
        uid: [one for one in files if one.SeriesInstanceUID == uid] for uid in {f.SeriesInstanceUID for f in files}
    }
    assert sorted(map(len, series.values())) == [3, 3]
    instances = {one.SOPInstanceUID: one for one in files}
    assert len(instances) == 6
    referring = [one for one in files if "ReferencedImageSequence" in one]
    assert len(referring) == 3
    for one in files:
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
        assert one.file_meta.MediaStorageSOPClassUID == one.SOPClassUID == pydicom.uid.MRImageStorage
        for uid in (one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID, one.FrameOfReferenceUID):
            assert uid.startswith("2.25.")
            assert UID(uid).is_valid
    for one in referring:
        [series_item] = one.ReferencedSeriesSequence
        for item in (
            one.ReferencedImageSequence[0],
            one.SourceImageSequence[0],
            *series_item.ReferencedInstanceSequence,
        ):
            other = instances[item.ReferencedSOPInstanceUID]
            assert other.InstanceNumber == one.InstanceNumber
            assert other.SeriesInstanceUID == series_item.SeriesInstanceUID != one.SeriesInstanceUID
            assert item.ReferencedSOPClassUID == pydicom.uid.MRImageStorage


def test_the_same_key_gives_the_same_files_and_another_key_others(study: Path, tmp_path: Path) -> None:
    key = tmp_path / "secret.key"
    for name in ("a", "b"):
        deidentify(study, tmp_path / name, key=key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    for name in ("c", "d"):
        deidentify(study, tmp_path / name)
    sets = [{one.SOPInstanceUID for one in released(tmp_path / name)} for name in ("a", "c", "d")]
    assert not sets[0] & sets[1]
    assert not sets[1] & sets[2]
    assert key.read_text().strip() not in (tmp_path / "a" / REPORT).read_text()


def test_names_of_files_come_from_new_identifiers_only(study: Path, tmp_path: Path) -> None:
    """The same files under other names give the same tree."""
    shutil.copytree(study / "Mustermann_Erika", tmp_path / "other" / "deep" / "er")
    for path in sorted((tmp_path / "other").rglob("*.dcm")):
        path.rename(path.with_name(path.name.replace("Mustermann-", "")).with_suffix(""))
    key = tmp_path / "key"
    deidentify(study / "Mustermann_Erika", tmp_path / "a", key=key)
    deidentify(tmp_path / "other", tmp_path / "b", key=key)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_de_identified_folder_can_be_de_identified_again(study: Path, tmp_path: Path) -> None:
    deidentify(study, tmp_path / "once", shift_dates=True)
    again = deidentify(tmp_path / "once", tmp_path / "twice", shift_dates=True)
    assert (len(again.released), again.refused, again.num_others) == (6, (), 1)


# --- patients and dates -----------------------------------------------------------------------------------------------


def test_patients_get_pseudonyms_that_hang_on_the_key_and_on_nothing_else(tmp_path: Path) -> None:
    people = [mr(PatientID=name, PatientName=name) for name in ("Anna-1", "Anna-1 ", "Bert-2", "", "")]
    cleaned = [one_file(tmp_path, one) for one in people]
    subjects = [one.subject for one in cleaned]
    assert subjects[0] == subjects[1]
    assert len(set(subjects)) == 4  # people without identifier are told apart by their studies
    for one, subject in zip(cleaned, subjects, strict=True):
        assert read_back(one).PatientID == read_back(one).PatientName == subject
    other = one_file(tmp_path, people[0], choices=Choices(Pseudonyms(bytes(32))))
    assert other.subject not in subjects


def test_a_table_of_patients_is_followed(tmp_path: Path) -> None:
    save([mr(PatientID="Anna-1"), mr(PatientID="Bert-2"), mr(PatientID="Carl-3")], tmp_path / "in")
    table = tmp_path / "patients.csv"
    table.write_text("patient_id,new_id\nAnna-1,S001\nBert-2,S002\n")
    done = medgan("deidentify", tmp_path / "in", tmp_path / "out", "--patients", table)
    assert done.code == 4
    assert "not in the table of patients" in done.out
    assert sorted(one.PatientID for one in released(tmp_path / "out")) == ["S001", "S002"]
    assert "Carl-3" not in done.out + done.err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id,new\nA,B\n", "patient_id,new_id"),
        ("", "patient_id,new_id"),
        ("patient_id,new_id\nAnna-1,../../x\n", "line 2"),
        ("patient_id,new_id\nAnna-1,\n", "line 2"),
        ("patient_id,new_id\n,S1\n", "line 2"),
        ("patient_id,new_id\nAnna-1,S1,more\n", "line 2"),
        ("patient_id,new_id\nAnna-1,S1\nAnna-1,S2\n", "line 3"),
        ("patient_id,new_id\nAnna-1,Bert-2\nBert-2,S2\n", "1 new_id"),
        ("patient_id,new_id\n\xe4\n".encode("latin-1"), "UTF-8"),
    ],
)
def test_a_bad_table_of_patients_is_refused_without_naming_anybody(
    tmp_path: Path, content: str | bytes, told: str
) -> None:
    table = tmp_path / "patients.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    save([mr()], tmp_path / "in")
    with pytest.raises(InputError, match=told) as seen:
        deidentify(tmp_path / "in", tmp_path / "out", patients=table)
    assert not any(name in str(seen.value) for name in ("Anna", "Bert"))


def test_shifted_dates_keep_their_distances(tmp_path: Path) -> None:
    early = mr(PatientID="A", StudyDate="20191224", AcquisitionDateTime="20191224101112.5+0100", AcquisitionTime="1011")
    late = mr(PatientID="A", StudyDate="20200301", AcquisitionDate="20200302", PatientBirthDate="19500101")
    other = mr(PatientID="B", StudyDate="20191224")
    a, b, c = (one_file(tmp_path, one, choices=SHIFTING) for one in (early, late, other))
    first, second, third = map(read_back, (a, b, c))
    days = SHIFTING.pseudonyms.days(a.subject)
    assert 1 <= days <= 3650
    assert (day(second.StudyDate) - day(first.StudyDate)).astype(int) == 68
    assert (day("20191224") - day(first.StudyDate)).astype(int) == days
    assert (day(second.AcquisitionDate) - day(second.StudyDate)).astype(int) == 1
    assert first.AcquisitionDateTime == f"{first.StudyDate}101112.5"
    assert first.AcquisitionTime == "1011"
    assert not second.PatientBirthDate
    assert third.StudyDate != first.StudyDate
    codes = [item.CodeValue for item in first.DeidentificationMethodCodeSequence]
    assert (codes, first.LongitudinalTemporalInformationModified) == (["113100", "113107"], "MODIFIED")


def day(text: str) -> np.datetime64:
    return np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:8]}")


@given(st.dates(), st.integers(1, 3650))
def test_a_shift_is_that_of_the_calendar(date: Any, days: int) -> None:
    moved = shifted(f"{date.year:04d}{date.month:02d}{date.day:02d}", days)
    if not moved:
        assert date.toordinal() <= days
    else:
        assert (np.datetime64(date) - day(moved)).astype(int) == days


@pytest.mark.parametrize("value", ["", "soon", "20201301", "2020-01-02", "20200230"])
def test_what_is_no_date_is_not_shifted_but_removed(tmp_path: Path, value: str) -> None:
    assert shifted(value, 5) == ""
    one = read_back(one_file(tmp_path, mr(AcquisitionDate=value, StudyDate=value), choices=SHIFTING))
    assert "AcquisitionDate" not in one
    assert one.StudyDate == ""


def test_no_date_or_time_is_left_where_they_are_removed(study: Path, tmp_path: Path) -> None:
    deidentify(study, tmp_path / "out")
    for one in released(tmp_path / "out"):
        left = {e.keyword for e in one.iterall() if e.VR in {"DA", "DT", "TM"} and e.value}
        assert left == set()


# --- the profile ------------------------------------------------------------------------------------------------------


def test_the_table_has_the_rows_of_the_standard() -> None:
    """Edition 2026c: 655 rows, of which three stand for groups (50xx, 60xx); see also PS3.15, Table E.1-1."""
    assert Counter(ACTIONS.values()) == {
        "X": 412, "U": 55, "D": 93, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2,
    }  # fmt: skip
    assert [action_of(Tag(group, element)) for group, element in ((0x5002, 5), (0x6000, 0x3000), (0x6010, 0x10))] == [
        "X"
    ] * 3


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        ("PatientName", "Z"), ("PatientID", "Z/D"), ("StudyDate", "Z"), ("SeriesDate", "X/D"), ("ContentDate", "Z/D"),
        ("AcquisitionDate", "X/Z"), ("InstitutionName", "X/Z/D"), ("StudyInstanceUID", "U"),
        ("SourceImageSequence", "X/Z/U*"),
        ("PatientAge", "X"), ("OriginalAttributesSequence", "X"), ("ProtocolName", "X/D"), ("SOPClassUID", ""),
        ("Rows", ""), ("Manufacturer", ""), ("CodingSchemeUID", ""), ("ReferencedSOPClassUID", ""), ("EchoTime", ""),
        ("SecondaryReviewerName", "X"), ("ExpiryDate", "X"), ("SOPInstanceUIDOfConcatenationSource", "U"),
    ],
)  # fmt: skip
def test_actions_by_hand(keyword: str, action: str) -> None:
    assert action_of(Tag(keyword)) == action


def test_no_personal_kind_of_attribute_of_the_dictionary_is_kept() -> None:
    """All names of people, dates, times, network names and UIDs that are no class: also those that the table forgot."""
    kept = {keyword_for_tag(tag) for tag in pydicom.datadict.DicomDictionary if not action_of(Tag(tag))}
    kinds = {key: dictionary_VR(tag_for_keyword(key) or 0) for key in kept if key}
    assert not {key for key, vr in kinds.items() if vr in {"PN", "DA", "DT", "TM", "AE"}}
    coding = {"ContextUID", "CodingSchemeUID", "MappingResourceUID"}
    others = {key for key, vr in kinds.items() if vr == "UI"} - coding
    assert all("Class" in key or "TransferSyntax" in key for key in others)


# Of type 1C, where the condition goes with what was removed.
FALL_AWAY = {"ReferencedPerformedProcedureStepSequence", "InstitutionCodeSequence", "ROIInterpreterSequence"}


@pytest.mark.parametrize("name", ["ct-image", "mr-image", "positron-emission-tomography-image", "enhanced-mr-image",
    "enhanced-ct-image", "enhanced-pet-image", "nuclear-medicine-image", "secondary-capture-image", "rt-dose",
    "rt-plan", "rt-structure-set", "segmentation", "digital-x-ray-image", "parametric-map"])  # fmt: skip
def test_what_an_object_must_have_is_left_as_far_as_its_type_asks(name: str, standard: dict[str, Any]) -> None:
    """Against highdicom's copy of PS3.3, attribute by attribute, at every depth of the mandatory modules."""
    uid = next(uid for uid, iod in standard["classes"].items() if iod == name)
    strength = {"1": 3, "1C": 3, "2": 2, "2C": 2}
    weak = []
    for module in (one["key"] for one in standard["iods"][name] if one["usage"] == "M"):
        for row in standard["modules"].get(module, []):
            tag, parent = Tag(row["keyword"]), (row["path"] or [""])[-1]
            action = action_of(tag)
            if "U" in action or not action or any(action_of(Tag(above)) == "X" for above in row["path"]):
                continue
            left = "XZD".index(weakest(action, tag, parent, uid)) + 1
            if left < strength.get(row["type"], 1) and row["keyword"] not in FALL_AWAY:
                weak.append((parent, row["keyword"], row["type"]))
    assert not weak


@pytest.fixture(scope="module")
def standard() -> dict[str, Any]:
    spec = importlib.util.find_spec("highdicom")
    if spec is None or spec.origin is None:
        pytest.skip("highdicom, whose tables of the standard are compared with, is not installed")
    folder = Path(spec.origin).parent / "_standard"
    names = {"iods": "iod_module_map", "modules": "module_attribute_map", "classes": "sop_class_iod_map"}
    return {key: json.loads((folder / f"{name}.json").read_text()) for key, name in names.items()}


_SEQUENCES = [
    "ContributingEquipmentSequence",
    "AnatomicRegionSequence",
    "ReferencedImageSequence",
    "RequestAttributesSequence",
]
_TEXT_VRS = ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "UI", "AE", "UR")
_KNOWN = (tag for tag in ACTIONS if tag in pydicom.datadict.DicomDictionary and tag >> 16 > 2)
_PLANTABLE = sorted(tag for tag in _KNOWN if dictionary_VR(tag) in _TEXT_VRS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(_PLANTABLE), st.lists(st.sampled_from(_SEQUENCES), max_size=3)), max_size=12),
    st.sampled_from(
        [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
    ),
    st.booleans(),
)
def test_an_attribute_of_the_table_is_treated_at_any_depth(
    tmp_path: Path, planted: list[tuple[int, list[str]]], syntax: str, shift: bool
) -> None:
    one = mr()
    for tag, path in planted:
        item = one
        for key in path:
            if not item.get(key):
                setattr(item, key, [Dataset()])
            item = item[key].value[0]
        if tag not in {Tag("SOPInstanceUID")}:
            item[tag] = DataElement(
                tag, dictionary_VR(tag), "1.2.99999" if dictionary_VR(tag) == "UI" else "Quisquilia"
            )
    cleaned = one_file(tmp_path, one, choices=SHIFTING if shift else CHOICES, syntax=syntax)
    assert cleaned.num_leaks == 0
    texts = [str(element.value) for element in read_back(cleaned).iterall() if element.VR != "SQ"]
    assert not any("Quisquilia" in text or "1.2.99999" in text for text in texts)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding_stays_what_it_is(tmp_path: Path, syntax: str) -> None:
    one = mr()
    picture = np.arange(80, dtype=">u2" if syntax == ExplicitVRBigEndian else "<u2")
    one.PixelData = picture.tobytes()
    cleaned = read_back(one_file(tmp_path, one, syntax=syntax))
    assert cleaned.file_meta.TransferSyntaxUID == syntax
    assert cleaned.pixel_array.ravel().tolist() == list(range(80))


def test_files_without_preamble_and_meta_are_read_and_get_both(tmp_path: Path) -> None:
    buffer = BytesIO()
    one = mr()
    one.file_meta = FileMetaDataset()
    dcmwrite(buffer, one, implicit_vr=True, little_endian=True)
    (tmp_path / "bare").write_bytes(buffer.getvalue())
    cleaned = deidentify_file(tmp_path / "bare", CHOICES)
    assert cleaned is not None
    assert read_back(cleaned).file_meta.TransferSyntaxUID == ImplicitVRLittleEndian


def test_what_an_earlier_de_identification_said_is_replaced(tmp_path: Path) -> None:
    one = mr(DeidentificationMethod="by Erika Mustermann", PatientIdentityRemoved="NO")
    cleaned = read_back(one_file(tmp_path, one))
    assert "Erika" not in str(cleaned.DeidentificationMethod)
    assert cleaned.PatientIdentityRemoved == "YES"


def test_well_known_uids_are_not_replaced(tmp_path: Path) -> None:
    talairach = "1.2.840.10008.1.4.1.1"
    assert read_back(one_file(tmp_path, mr(FrameOfReferenceUID=talairach))).FrameOfReferenceUID == talairach


def test_overlays_in_unused_bits_of_the_pixels_are_cleared_and_the_image_stays(tmp_path: Path) -> None:
    one = mr()
    picture = np.arange(80, dtype="<u2").reshape(8, 10)
    set_pixels(one, picture | np.uint16(0x8000))
    one.BitsStored, one.HighBit = 12, 11
    one.add_new(0x60000010, "US", 8)
    one.add_new(0x60000011, "US", 10)
    one.add_new(0x60000100, "US", 16)
    one.add_new(0x60000102, "US", 15)
    cleaned = read_back(one_file(tmp_path, one))
    assert np.array_equal(np.frombuffer(cleaned.PixelData, "<u2").reshape(8, 10), picture)
    one.PixelData, one["PixelData"].VR = encapsulate([b"\xff\xd8 not really \xff\xd9"]), "OB"
    one["PixelData"].is_undefined_length = True
    with pytest.raises(DicomError, match="overlay in compressed pixels"):
        one_file(tmp_path, one, syntax=JPEGLosslessSV1)


# --- leaks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["for Mustermann", "MUSTERMANN_T1", "pid-4711-x", "seen 2020-01-03", "x\\Erika\\y"])
def test_what_repeats_a_removed_value_is_replaced_too(tmp_path: Path, text: str) -> None:
    one = mr()
    _identify(one)
    one.SequenceName = one.ReceiveCoilName = text
    one.AnatomicRegionSequence = [Dataset()]
    one.AnatomicRegionSequence[0].CodeMeaning = text
    cleaned = one_file(tmp_path, one)
    after = read_back(cleaned)
    assert after.ReceiveCoilName == "REMOVED"
    assert cleaned.num_leaks == 0
    assert cleaned.replaced["ReceiveCoilName"] == 1
    assert after.EchoTime == one.EchoTime


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Jürgen"), ("ISO_IR 192", "Михайлов^Иван"), ("GB18030", "王小东^"),
     ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"), ("ISO_IR 192", "Ng^Lee")],
)  # fmt: skip
def test_names_of_every_script_are_found(tmp_path: Path, charset: str, name: str) -> None:
    """In kept text they are replaced; in bytes that nobody can rewrite they make the file stay behind."""
    word = max(name.replace("=", "^").split("^"), key=len)
    one = mr(SpecificCharacterSet=charset.split("\\"), PatientName=name, ReceiveCoilName=f"coil of {word}")
    cleaned = one_file(tmp_path, one)
    assert (read_back(cleaned).ReceiveCoilName, cleaned.num_leaks) == ("REMOVED", 0)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("form", [str.upper, str.lower, str.title])
def test_a_name_in_bytes_that_cannot_be_rewritten_is_a_leak(tmp_path: Path, encoding: str, form: Any) -> None:
    one = mr(PatientName="Müller-Lüdenscheidt^Karl")
    one.RedPaletteColorLookupTableData = b"\1\2" + form("Lüdenscheidt").encode(encoding) + b"\0\0"
    assert one_file(tmp_path, one).num_leaks >= 1
    save([one], tmp_path / "in")
    done = medgan("deidentify", tmp_path / "in", tmp_path / "out")
    assert done.code == 1
    assert "leak check" in done.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_a_leak_is_found_in_pixels_and_behind_deflation(tmp_path: Path, syntax: str) -> None:
    one = mr(PatientID="PID-4711-X")
    one.PixelData = b"\0\0 PID-4711-X " + one.PixelData[14:]
    assert one_file(tmp_path, one, syntax=syntax).num_leaks == 1
    one = mr(PatientID="PID-4711-X")
    one.RedPaletteColorLookupTableData = b"\0\0PID-4711-X\0\0"
    assert one_file(tmp_path, one, syntax=syntax).num_leaks == 1


def test_a_comment_in_a_compressed_image_is_found(tmp_path: Path) -> None:
    one = mr(PatientName="Mustermann^Erika")
    one.PixelData = encapsulate([b"\xff\xd8\xff\xfe\x00\x10 Mustermann  \xff\xd9"])
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
    assert one_file(tmp_path, one, syntax=JPEGLosslessSV1).num_leaks == 1


def test_the_check_itself_misses_nothing_that_was_not_removed(tmp_path: Path) -> None:
    """Bytes of the untouched file against the list of what should have gone: every planted value is seen."""
    one = mr()
    _identify(one)
    content = save_one(one, tmp_path / "one.dcm").read_bytes()
    planted = (
        "PatientName PatientID PatientBirthDate PatientTelephoneNumbers StationName StudyComments SOPInstanceUID "
        "OtherPatientIDs StudyDescription AccessionNumber ReferringPhysicianName StudyDate AcquisitionDateTime"
    )
    for keyword in planted.split():
        removed = Removed()
        removed.take_from(one, Tag(keyword))
        empty = Dataset()
        empty.file_meta = FileMetaDataset()
        empty.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        assert removed.found_in(content, one.PixelData, empty) >= 1, keyword


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientName": "Head^Brain", "BodyPartExamined": "HEAD"},
        {"PatientID": "1234", "InstanceNumber": 1234},
        {"PatientID": "10008"},
        {"PatientName": "Max^Ann", "ReceiveCoilName": "maximum channel"},
        {"PatientName": "Anonymous", "PatientID": "REMOVED"},
        {"PatientName": "medgan^DICOM", "StationName": "MEDGAN"},
        {"StudyID": "MONOCHROME2", "AccessionNumber": "ORIGINAL"},
        {"SeriesDescription": "ScannerMaker"},
        {"StationName": "ScannerMaker", "InstitutionName": "ScannerMaker"},
        {"ProtocolName": "se2d_axial_1", "SequenceName": "se2d_axial_1"},
    ],
)
def test_what_stands_there_by_chance_is_no_leak(tmp_path: Path, attributes: dict[str, Any]) -> None:
    cleaned = one_file(tmp_path, mr(**attributes))
    assert (cleaned.num_leaks, dict(cleaned.replaced)) == (0, {})
    assert cleaned.num_searched > 0


# --- what is not released ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "does not say BurnedInAnnotation NO"),
        ({"SOPClassUID": UltrasoundImageStorage}, "does not say BurnedInAnnotation NO"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "does not say BurnedInAnnotation NO"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "DOSE_INFO"]}, "does not say BurnedInAnnotation NO"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL", "CT_SOM5 PROT"]}, "does not say BurnedInAnnotation NO"),
        ({"SamplesPerPixel": 3}, "does not say BurnedInAnnotation NO"),
        ({"BurnedInAnnotation": "YES"}, "burned into its pixels"),
        ({"SOPClassUID": BasicTextSRStorage}, "cannot be cleaned"),
        ({"SOPClassUID": EncapsulatedPDFStorage}, "cannot be cleaned"),
        ({"SOPClassUID": GrayscaleSoftcopyPresentationStateStorage}, "cannot be cleaned"),
        ({"SOPClassUID": "1.3.12.2.1107.5.9.1"}, "a private or unknown class"),
    ],
)
def test_text_in_pixels_and_in_documents_stays_behind(tmp_path: Path, attributes: dict[str, Any], told: str) -> None:
    save([mr(**attributes), mr(PatientID="other")], tmp_path / "in")
    done = medgan("deidentify", tmp_path / "in", tmp_path / "out", "--json")
    report = json.loads(done.out)
    assert done.code == 4
    assert [one["path"] for one in report["refused"]] == ["000.dcm"]
    assert told in report["refused"][0]["reason"]
    assert len(released(tmp_path / "out")) == 1
    record = json.loads((tmp_path / "out" / REPORT).read_text())
    assert sum(record["not_released"].values()) == 1
    assert "000.dcm" not in (tmp_path / "out" / REPORT).read_text()


def test_an_image_that_says_that_it_has_no_text_is_released(tmp_path: Path) -> None:
    one = mr(SOPClassUID=SecondaryCaptureImageStorage, BurnedInAnnotation="NO")
    assert read_back(one_file(tmp_path, one)).BurnedInAnnotation == "NO"


def test_on_request_images_that_do_not_say_are_released_with_a_warning_and_those_that_do_are_not(
    tmp_path: Path,
) -> None:
    capture = mr(SOPClassUID=SecondaryCaptureImageStorage)
    save([capture, mr(BurnedInAnnotation="YES")], tmp_path / "in")
    done = medgan("deidentify", tmp_path / "in", tmp_path / "out", "--allow-burned-in")
    assert done.code == 4
    assert "look at each of them" in done.out
    [one] = released(tmp_path / "out")
    assert "BurnedInAnnotation" not in one  # nobody has looked


def test_damaged_and_cut_off_files_stay_behind(tmp_path: Path) -> None:
    whole = save_one(mr(), tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "whole.dcm").write_bytes(whole)
    (tmp_path / "in" / "pixels.dcm").write_bytes(whole[:-20])
    (tmp_path / "in" / "meta.dcm").write_bytes(whole[:140])
    (tmp_path / "in" / "empty.dcm").write_bytes(b"")
    done = deidentify(tmp_path / "in", tmp_path / "out")
    assert {one.path for one in done.refused} == {"meta.dcm", "pixels.dcm"}
    assert (len(done.released), done.num_others, done.exit_code) == (1, 1, 4)


def test_wherever_a_file_is_cut_off_it_stays_behind(tmp_path: Path) -> None:
    """Also between two attributes, where nothing is broken: an image without pixels is no image."""
    whole = save_one(mr(), tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "in").mkdir()
    places = range(140, len(whole))
    for place in places:
        (tmp_path / "in" / f"{place}.dcm").write_bytes(whole[:place])
    done = deidentify(tmp_path / "in", tmp_path / "out")
    assert (len(done.released), len(done.refused)) == (0, len(places))


def test_a_directory_of_a_medium_is_not_copied(tmp_path: Path) -> None:
    folder = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests"
    shutil.copy(folder / "DICOMDIR", tmp_path / "DICOMDIR")
    done = medgan("deidentify", tmp_path / "DICOMDIR", tmp_path / "out")
    assert (done.code, "nothing was released" in done.out) == (5, True)


def test_heads_are_flagged_and_it_is_said_that_faces_stay(tmp_path: Path) -> None:
    head, knee = mr(BodyPartExamined="HEAD"), mr(BodyPartExamined="KNEE")
    described, nobody_knows = mr(SeriesDescription="t1_mprage"), mr()
    del described.BodyPartExamined, nobody_knows.BodyPartExamined
    defaced = mr(BodyPartExamined="HEAD", RecognizableVisualFeatures="NO")
    flags = [read_back(one_file(tmp_path, one)).get("RecognizableVisualFeatures")
             for one in (head, knee, described, nobody_knows, defaced)]  # fmt: skip
    assert flags == ["YES", None, "YES", None, "NO"]
    for one, code in ((head, 3), (knee, 0), (nobody_knows, 3), (defaced, 0)):
        folder = tmp_path / f"in{id(one)}"
        save([one], folder)
        done = medgan("deidentify", folder, tmp_path / f"out{id(one)}")
        assert (done.code, "FACES ARE NOT REMOVED" in done.out) == (code, code == 3)


# --- the command ------------------------------------------------------------------------------------------------------


def test_an_empty_folder_gives_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no scan")
    done = medgan("deidentify", tmp_path / "in", tmp_path / "out")
    assert (done.code, (tmp_path / "out").exists()) == (5, False)


def test_repeated_files_are_written_once_and_two_of_one_uid_both(tmp_path: Path) -> None:
    one = mr(BodyPartExamined="KNEE")
    save([one, one], tmp_path / "in")
    one.EchoTime = "99"
    save_one(one, tmp_path / "in" / "other.dcm")
    done = deidentify(tmp_path / "in", tmp_path / "out")
    assert (len(done.released), done.num_repeated) == (2, 1)
    assert sorted(str(one.EchoTime) for one in released(tmp_path / "out")) == ["12.5", "99"]


def test_out_may_lie_below_in(study: Path) -> None:
    assert len(deidentify(study, study / "out").released) == 6


def test_bad_places_and_keys_are_refused_in_one_line(study: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    (tmp_path / "short").write_text("abcd")
    (tmp_path / "words").write_text("no key at all")
    wrong: list[tuple[Any, ...]] = [
        (tmp_path / "nowhere", tmp_path / "out"),
        (study, tmp_path / "full"),
        (study, tmp_path / "out", "--key", tmp_path / "short"),
        (study, tmp_path / "out", "--key", tmp_path / "words"),
        (study, tmp_path / "out", "--key", tmp_path / "out" / "key"),
        (study, tmp_path / "out", "--key", tmp_path / "no" / "folder" / "key"),
        (study, tmp_path / "out", "--patients", tmp_path / "nowhere.csv"),
    ]
    for arguments in wrong:
        done = medgan("deidentify", *arguments)
        assert (done.code, done.out) == (1, ""), arguments
        assert done.err.startswith("Error: ")
        assert "Traceback" not in done.err
        assert not (tmp_path / "out").exists()


def test_a_key_that_cannot_be_written_is_an_output_error(study: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the key cannot be written"):
        deidentify(study, tmp_path / "out", key=tmp_path / "no" / "key")


def test_the_report_counts_and_names_new_identifiers_only(study: Path, tmp_path: Path) -> None:
    done = medgan("deidentify", study, tmp_path / "out", "--json", "--shift-dates")
    told, record = json.loads(done.out), json.loads((tmp_path / "out" / REPORT).read_text())
    assert {key: value for key, value in told.items() if key not in {"out", "refused"}} == record
    assert (record["files"], record["patients"], record["studies"], len(record["series"])) == (6, 1, 1, 2)
    assert (record["not_dicom"], record["leak_check"]["files_with_leaks"]) == (2, 0)
    assert record["leak_check"]["values_searched"] > 100
    assert record["dates"] == "shifted"
    assert {one["series_uid"] for one in record["series"]} == {f.SeriesInstanceUID for f in released(tmp_path / "out")}


# --- against other tools, and on real scans ---------------------------------------------------------------------------


def written_by_medgan(modality: str, folder: Path) -> list[Dataset]:
    unit = {"CT": "HU", "PT": "Bq/ml"}.get(modality, "a.u.")
    volume = Volume(np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3), Grid.regular((4, 5, 3)), unit, modality)
    dicom.write(volume, folder, subject=dicom.Subject(patient_name="Mustermann^Erika", patient_id="PID-4711-X"))
    return [dcmread(path) for path in sorted(folder.glob("*.dcm"))]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "SC"])
@pytest.mark.parametrize("shift", [False, True])
def test_what_is_released_is_still_valid(tmp_path: Path, modality: str, shift: bool) -> None:
    """0 errors of dciodvfy where the file had none before, identified from head to foot."""
    one = written_by_medgan("MR" if modality == "SC" else modality, tmp_path / "in")[1]
    if modality == "SC":
        one.SOPClassUID, one.ConversionType, one.BurnedInAnnotation = SecondaryCaptureImageStorage, "WSD", "NO"
        one.Modality, one.PatientOrientation = "OT", None
        for key in ("ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "EchoTrainLength",
                    "RepetitionTime", "EchoTime", "ImageType"):  # fmt: skip
            if key in one:
                del one[key]
    _identify(one)
    for key in ("Laterality", "DigitalSignaturesSequence", "IconImageSequence", "OriginalAttributesSequence"):
        if key in one:
            del one[key]
    for tag in [tag for tag in one.keys() if tag.group & 0xFF00 in {0x5000, 0x6000}]:  # noqa: SIM118
        del one[tag]
    one.BodyPartExamined = "HEAD"
    one.RequestAttributesSequence[0].clear()
    one.RequestAttributesSequence[0].RequestedProcedureID = "Q7"
    one.RequestAttributesSequence[0].ScheduledProcedureStepID = "Q8"
    one.ContributingEquipmentSequence = []
    del one.ContributingEquipmentSequence, one.DataSetTrailingPadding
    one.PatientAddress, one.AcquisitionNumber = "Sesamstrasse 5", "1"
    before = save_one(one, tmp_path / "before.dcm")
    assert errors_of(before) == []
    (tmp_path / "after.dcm").write_bytes(one_file(tmp_path, one, choices=SHIFTING if shift else CHOICES).content)
    assert errors_of(tmp_path / "after.dcm") == []


def errors_of(path: Path) -> list[str]:
    """What dciodvfy finds, but for one attribute that the Debian build is too old to know."""
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace", check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith("Error") and "(0008,001c)" not in line.lower()]


def test_a_pet_keeps_its_series_date_as_a_dummy(tmp_path: Path) -> None:
    """Type 1 there, and nowhere else."""
    one = mr(SOPClassUID=PositronEmissionTomographyImageStorage, SeriesDate="20200102", AcquisitionDate="20200102")
    pet = read_back(one_file(tmp_path, one))
    assert (pet.SeriesDate, pet.AcquisitionDate) == ("19000101", "")
    other = read_back(one_file(tmp_path, mr(SeriesDate="20200102", AcquisitionDate="20200102")))
    assert "SeriesDate" not in other
    assert "AcquisitionDate" not in other


def test_the_test_files_of_pydicom_are_released_or_told(tmp_path: Path) -> None:
    folder = Path(pydicom.data.__file__).parent / "test_files"
    done: Done = medgan("deidentify", folder, tmp_path / "out", "--json", "--allow-burned-in")
    report = json.loads(done.out)
    assert done.code == 4
    assert report["files"] > 90
    assert done.warned == ()
    assert not [one for one in report["refused"] if "damaged" in one["reason"]]
    assert report["leak_check"]["files_with_leaks"] == 0
    reasons = Counter(one["reason"].split(" (")[0] for one in report["refused"])
    assert reasons["holds text or data that cannot be cleaned"] == 4  # three reports and an ECG
    assert reasons["is cut off: it holds less than its header says, or is an image without pixels"] == 52  # 50 headers
    for one in released(tmp_path / "out"):
        assert one.PatientIdentityRemoved == "YES"
        assert not any(tag.is_private for item in all_items(one) for tag in item.keys())  # noqa: SIM118


def test_a_real_study_comes_through(shared: Path, tmp_path: Path) -> None:
    source = shared / "dicom" / "dcm_qa_decubitus"
    done = deidentify(source, tmp_path / "out", shift_dates=True)
    assert (len(done.released), done.refused, done.exit_code) == (35, (), 3)
    before, after = (dicom.find_series(path) for path in (source, tmp_path / "out"))
    assert len(before) == len(after) == 1
    assert np.array_equal(dicom.read(source).array, dicom.read(tmp_path / "out").array)
    assert np.array_equal(dicom.read(source).grid.affine, dicom.read(tmp_path / "out").grid.affine)


def test_mutated_files_are_released_or_told_and_never_escape(tmp_path: Path) -> None:
    """200 files with bytes changed, lost and put in: a reason or a clean file, nothing else."""
    rng = np.random.default_rng(0)
    folder = Path(pydicom.data.__file__).parent / "test_files"
    names = ("MR_small.dcm", "CT_small.dcm", "rtplan.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "image_dfl.dcm")
    originals = [(folder / name).read_bytes() for name in names]
    seen: Counter[str] = Counter()
    for number in range(200):
        content = bytearray(originals[number % len(originals)])
        for place in rng.integers(0, min(len(content), 4000), rng.integers(1, 10)):
            kept = content[place + rng.integers(0, 20) :] if rng.random() < 0.3 else content[place:]
            content[place:] = rng.bytes(rng.integers(0, 3)) + kept
        (tmp_path / "one").write_bytes(content)
        try:
            cleaned = deidentify_file(tmp_path / "one", Choices(Pseudonyms(KEY), allow_burned_in=True))
        except DicomError:
            seen["refused"] += 1
        else:
            seen["passed over" if cleaned is None else "cleaned"] += 1
            assert cleaned is None or read_back(cleaned).PatientIdentityRemoved == "YES"
    assert min(seen["refused"], seen["cleaned"]) > 20


def test_all_real_scans_are_released_or_told(shared: Path, tmp_path: Path) -> None:
    done: Deidentified = deidentify(shared / "dicom", tmp_path / "out")
    assert len(done.released) > 300
    assert {one.reason.split(" (")[0] for one in done.refused} == {
        "may have text in its pixels and does not say BurnedInAnnotation NO"
    }
    for path in (tmp_path / "out").rglob("*.dcm"):
        assert dcmread(path, stop_before_pixels=True).PatientIdentityRemoved == "YES"
