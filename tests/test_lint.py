"""The semantic linter: silent on what is right, and for each rule one planted fault that it and no other rule tells."""

from __future__ import annotations

import copy
import importlib.util
import json
import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from command_line import medgan
from dicom_damage import (
    WAYS,
    Damage,
    emptied,
    gone,
    of_another_length,
    of_another_value,
    of_another_vr,
    places,
    repeated,
    steady,
    with_value,
)
from dicom_folders import make_slices, ramp, save, save_one
from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.datadict import tag_for_keyword
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGLSLossless, generate_uid

from medgan.errors import InputError
from medgan.formats.dicom import Subject, read, write
from medgan.formats.dicom.elements import quietly
from medgan.formats.dicom.lint import RULES
from medgan.formats.dicom.lint.image import open_image
from medgan.formats.dicom.lint.iod import iod_of
from medgan.lint import Verdict, lint
from medgan.volume import Grid, Synthesis, Volume

Slices = list[Dataset]
SYNTHESIS = Synthesis("pix2pix", weights_sha256="ab" * 32, version="0.1.0", description="trained on pairs")
needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed"
)


def rules(path: Path, source: Path | None = None) -> set[str]:
    return {complaint.rule for complaint in lint(path, source=source).complaints}


# --- what is right ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`source`, an MR scan; series that medgan makes of it; `scan`, a CT scan."""
    place = tmp_path_factory.mktemp("place")
    save(make_slices(ramp(), SpacingBetweenSlices="2.5"), place / "source")
    pixels = ramp() + np.uint16(800)  # HU from -224 on
    save(make_slices(pixels, modality="CT", AcquisitionNumber="1", Laterality=""), place / "scan")
    mr = read(place / "source")
    hu = mr.with_array(mr.array * np.float32(4) - 1000, unit="HU", modality="CT").marked(SYNTHESIS)
    noise = np.abs(np.random.default_rng(0).normal(0, 1, mr.array.shape)).astype(np.float32)
    write(hu, place / "ct")
    write(mr, place / "rewritten")
    write(mr.marked(SYNTHESIS), place / "mr")
    write(mr.with_array(mr.array * np.float32(10.5), unit="Bq/ml", modality="PT").marked(SYNTHESIS), place / "pet")
    deviation = replace(SYNTHESIS, quantity="standard deviation")
    write(hu.with_array(noise).marked(deviation), place / "ct deviation")
    write(mr.with_array(noise).marked(deviation), place / "mr deviation")
    return place


@pytest.mark.parametrize("name", ["ct", "rewritten", "mr", "pet", "ct deviation"])
def test_what_medgan_derives_from_a_scan_has_no_fault(place: Path, name: str) -> None:
    verdict = lint(place / name, source=place / "source")
    assert (verdict.complaints, verdict.num_files, verdict.exit_code) == ((), 6, 0), verdict.describe()


def test_a_scaled_mr_only_gets_a_note_on_its_rescale(place: Path) -> None:
    verdict = lint(place / "mr deviation", source=place / "source")
    assert [(one.severity, one.message) for one in verdict.complaints] == [
        ("note", "its class does not list RescaleIntercept, RescaleSlope, RescaleType")
    ]


@pytest.mark.parametrize("name", ["source", "scan"])
def test_the_scans_of_these_tests_have_no_fault(place: Path, name: str) -> None:
    assert lint(place / name).complaints == ()


def test_a_scan_and_what_was_made_of_it_have_no_fault_together(place: Path, tmp_path: Path) -> None:
    for name in ("source", "ct", "mr", "pet", "ct deviation"):
        shutil.copytree(place / name, tmp_path / name)
    assert lint(tmp_path).complaints == ()


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "OT", "DX"])
def test_sampled_images_have_no_fault(tmp_path: Path, modality: str) -> None:
    drawn = replace(SYNTHESIS, seed=7, number=3, conditions={"class": "glioma"})
    values = np.random.default_rng(0).normal(0, 300, (12, 10, 1)).astype(np.float32)
    volume = Volume(values, Grid.regular((12, 10, 1)), "HU" if modality == "CT" else "a.u.", modality, drawn)
    subject = Subject.sampled("SYN-000012", seed="7", time=datetime(2026, 1, 2, 3, 4, 5))
    assert lint(write(volume, tmp_path / "out", subject=subject)).complaints == ()


def test_made_up_scans_are_only_asked_for_their_source(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 300, (12, 10, 5)).astype(np.float32)
    volume = Volume(values, Grid.regular((12, 10, 5)), "HU", "CT", Synthesis("phantom"))
    verdict = lint(write(volume, tmp_path / "ct", subject=Subject()))
    assert [one.rule for one in verdict.complaints] == ["no-source-images"]
    assert verdict.exit_code == 0


def test_real_scans_have_no_fault_but_the_one_they_have(shared: Path) -> None:
    """Philips wrote another StudyTime into the localizer than into the scan."""
    assert lint(shared / "dicom" / "dcm_qa_decubitus").complaints == ()
    verdict = lint(shared / "dicom" / "dcm_qa_ct")
    told = [(one.severity, one.rule, one.message.split()[0]) for one in verdict.complaints if one.severity != "note"]
    assert told == [("warning", "study-attributes", "StudyTime")]


def test_on_real_scans_attributes_that_are_told_missing_are_missing(shared: Path) -> None:
    """Three hundred files, stripped by who shared them: every absence told is one, and nothing breaks."""
    verdict = lint(shared / "dicom")
    assert verdict.num_files > 300
    absent = [one for one in verdict.complaints if one.rule in {"type-1-absent", "type-2-absent"}]
    assert len(absent) > 100
    for one in absent:
        keyword = one.message.split()[0]
        assert " > " in one.message or keyword not in pydicom.dcmread(one.files[0], stop_before_pixels=True, force=True)


# --- one fault a rule -------------------------------------------------------------------------------------------------


def every(**attributes: object) -> Callable[[Slices], None]:
    """Give all slices an attribute; None takes it away."""

    def plant(slices: Slices) -> None:
        for one in slices:
            for key, value in attributes.items():
                if value is None:
                    del one[key]
                else:
                    setattr(one, key, value)

    return plant


def last(**attributes: object) -> Callable[[Slices], None]:
    return lambda slices: every(**attributes)(slices[-1:])


def element(key: str, vr: str, value: object) -> Callable[[Slices], None]:
    """With a VR of its own, or a value that pydicom would refuse."""

    def plant(slices: Slices) -> None:
        for one in slices:
            one[key] = DataElement(tag_for_keyword(key), vr, value, validation_mode=IGNORE)

    return plant


def private(creator: str) -> Callable[[Slices], None]:
    def plant(slices: Slices) -> None:
        for one in slices:
            one.private_block(0x0029, creator, create=True).add_new(0x10, "OB", b"header")

    return plant


def moved(index: int, by_mm: tuple[float, float, float]) -> Callable[[Slices], None]:
    def plant(slices: Slices) -> None:
        for one in slices if index == ALL else [slices[index]]:
            one.ImagePositionPatient = [a + b for a, b in zip(one.ImagePositionPatient, by_mm, strict=True)]

    return plant


ALL = 99


def bit_15_set(slices: Slices) -> None:
    for one in slices:
        one.BitsStored, one.HighBit = 12, 11
        one.PixelData = b"\x01\x80" + one.PixelData[2:]


def longer(slices: Slices) -> None:
    for one in slices:
        one.PixelData += bytes(4)


def padding_of_13_bits(slices: Slices) -> None:
    for one in slices:
        one.BitsStored, one.HighBit = 12, 11
        one.add_new("PixelPaddingValue", "US", 5000)


def without_maker(slices: Slices) -> None:
    for one in slices:
        one.ContributingEquipmentSequence = [
            item
            for item in one.ContributingEquipmentSequence
            if item.PurposeOfReferenceCodeSequence[0].CodeValue != "109100"
        ]


def request(slices: Slices) -> None:
    item = Dataset()
    item.ScheduledProcedureStepID = item.RequestedProcedureID = "1"
    every(RequestAttributesSequence=[item])(slices)


def source_of(name: str) -> Callable[[Slices], None]:
    """Rename the source image: to the image itself, or to one that is nowhere, where it is listed or only as source."""

    def plant(slices: Slices) -> None:
        for one in slices:
            uid = one.SOPInstanceUID if name == "itself" else generate_uid()
            one.SourceImageSequence[0].ReferencedSOPInstanceUID = uid
            if name != "unlisted":
                one.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = uid

    return plant


def as_first(key: str, *indices: int) -> Callable[[Slices], None]:
    def plant(slices: Slices) -> None:
        for index in indices:
            slices[index][key] = slices[0][key]

    return plant


def last_twice(slices: Slices) -> None:
    slices[-1].ImagePositionPatient = slices[-2].ImagePositionPatient


def swapped_numbers(slices: Slices) -> None:
    slices[2].InstanceNumber, slices[3].InstanceNumber = slices[3].InstanceNumber, slices[2].InstanceNumber


def oblique(slices: Slices) -> None:
    every(ImageOrientationPatient=[1, 0, 0, 0, 0.9, 0])(slices)


def at_locations(slices: Slices) -> None:
    for index, one in enumerate(slices):
        one.SliceLocation = str(index)


def original_without_derivation(slices: Slices) -> None:
    every(ImageType=["ORIGINAL", "PRIMARY", "OTHER"], DerivationDescription=None)(slices)


def unlabelled(slices: Slices) -> None:
    every(SeriesDescription="nice brain", ImageComments=None)(slices)


# rule -> the series that is spoiled, how, and what it is compared with
PLANTED: dict[str, tuple[str, Callable[[Slices], None]]] = {
    "type-1-absent": ("ct", every(RescaleSlope=None)),
    "type-1-empty": ("ct", every(RescaleSlope="")),
    "type-2-absent": ("ct", every(KVP=None)),
    "conditional-absent": ("ct", every(PatientPosition=None)),
    "incomplete-module": ("scan", every(ContrastBolusVolume="1")),
    "modality-of-class": ("pet", every(Modality="NM")),
    "foreign-attributes": ("scan", every(EchoTime="12")),
    "foreign-private-group": ("scan", private("SIEMENS MR HEADER")),
    "unknown-class": ("scan", every(SOPClassUID="1.2.3.4")),
    "extra-attributes": ("scan", every(DoseUnits="GY")),
    "uid-form": ("scan", element("InstanceCreatorUID", "UI", "1.02.3")),
    "value-form": ("scan", element("AcquisitionDate", "DA", "2020")),
    "value-count": ("scan", element("AcquisitionNumber", "IS", ["1", "2"])),
    "value-representation": ("scan", element("TableHeight", "FD", 1.0)),
    "pixel-length": ("scan", longer),
    "samples": ("scan", every(PhotometricInterpretation="RGB")),
    "bits": ("scan", every(HighBit=14)),
    "rescale-slope": ("scan", every(RescaleSlope="0")),
    "window-width": ("scan", every(WindowCenter="40", WindowWidth="0.5")),
    "bits-beyond": ("source", bit_15_set),
    "smallest-largest": ("scan", element("SmallestImagePixelValue", "US", 3)),
    "series-extremes": ("scan", element("LargestPixelValueInSeries", "US", 900)),
    "padding-beyond-bits": ("source", padding_of_13_bits),
    "image-type-values": ("scan", every(ImageType=["ORIGINAL", "TERTIARY", "AXIAL"])),
    "image-type-value-3": ("scan", every(ImageType=["ORIGINAL", "PRIMARY", "OTHER"])),
    "synthetic-not-derived": ("ct", every(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])),
    "derivation-not-derived": ("scan", every(DerivationDescription="resampled")),
    "synthetic-not-said": ("ct", every(SyntheticData=None)),
    "synthesizing-equipment": ("ct", without_maker),
    "diagnostic-label": ("ct", unlabelled),
    "content-qualification": ("ct", every(ContentQualification="PRODUCT")),
    "private-in-synthetic": ("ct", private("ACME 1.1")),
    "acquisition-claimed": ("mr", every(EchoTime="12")),
    "procedure-step-kept": ("ct", request),
    "no-source-images": ("ct", every(SourceImageSequence=None)),
    "unlisted-source": ("ct", source_of("unlisted")),
    "source-of-itself": ("ct", source_of("itself")),
    "recognizable-features": ("ct", every(RecognizableVisualFeatures=None)),
    "hu-not-stated": ("ct", every(RescaleType=None)),
    "series-identity": ("scan", last(FrameOfReferenceUID="1.2.3")),
    "series-attributes": ("scan", last(ProtocolName="other")),
    "instance-uid-twice": ("scan", as_first("SOPInstanceUID", 3)),
    "stale-window": ("ct", every(WindowCenter="9000")),
    "stale-padding": ("ct", element("PixelPaddingValue", "SS", -2000)),
    "ct-without-air": ("scan", every(RescaleIntercept="0")),
    "orientation-not-unit": ("scan", oblique),
    "not-uniform": ("mr", last(PixelSpacing=["3", "3"])),
    "several-stacks": ("scan", last(PixelSpacing=["3", "3"])),
    "slice-twice": ("mr", last_twice),
    "slice-gaps": ("scan", moved(-1, (0, 0, 2.5))),
    "slice-shift": ("scan", moved(2, (1, 0, 0))),
    "spacing-between-slices": ("scan", every(SpacingBetweenSlices="9")),
    "slice-thickness": ("scan", every(SliceThickness="9")),
    "slice-location": ("mr", at_locations),
    "instance-number-twice": ("mr", as_first("InstanceNumber", 1)),
    "instance-number-order": ("mr", swapped_numbers),
}
# Likewise, compared with the source.
DERIVED: dict[str, tuple[str, Callable[[Slices], None]]] = {
    "source-patient": ("ct", every(PatientSex="F")),
    "source-study": ("ct", every(StudyID="8")),
    "source-frame": ("ct", every(FrameOfReferenceUID="1.2.3")),
    "source-missing": ("ct", source_of("elsewhere")),
    "source-not-named": ("rewritten", every(SourceImageSequence=None)),
    "original-with-source": ("rewritten", original_without_derivation),
    "burned-in-claimed": ("ct", every(BurnedInAnnotation="NO")),
    "geometry-moved": ("ct", moved(ALL, (0, 0, 0.5))),
    "geometry-rounded": ("ct", moved(ALL, (0, 0, 1e-5))),
    "series-number-of-source": ("ct", every(SeriesNumber=3)),
}
# Likewise, where it is the source that is changed.
SOURCES: dict[str, tuple[str, Callable[[Slices], None]]] = {
    "synthetic-lost": ("rewritten", every(SyntheticData="YES")),
    "lossy-lost": ("ct", every(LossyImageCompression="01")),
    "source-window": ("ct", every(WindowCenter="40", WindowWidth="400")),
}


def slices_in(folder: Path) -> Slices:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def spoiled(place: Path, name: str, plant: Callable[[Slices], None], folder: Path) -> Path:
    slices = slices_in(place / name)
    plant(slices)
    with quietly():
        return save(slices, folder)


def check_told(path: Path, rule: str, source: Path | None = None) -> None:
    verdict = lint(path, source=source)
    assert {one.rule for one in verdict.complaints} == {rule}, verdict.describe()
    assert {one.severity for one in verdict.complaints} == {RULES[rule]}
    assert not any(word in verdict.describe() for word in ("Secret", "SECRET", "19700101", "ACC1"))
    assert verdict.exit_code == {"error": 1, "warning": 3, "note": 0}[RULES[rule]]


@pytest.mark.parametrize("rule", PLANTED)
def test_a_planted_fault_is_told_by_its_rule_alone(place: Path, tmp_path: Path, rule: str) -> None:
    name, plant = PLANTED[rule]
    check_told(spoiled(place, name, plant, tmp_path / "spoiled"), rule)


@pytest.mark.parametrize("rule", DERIVED)
def test_a_fault_against_the_source_is_told_by_its_rule_alone(place: Path, tmp_path: Path, rule: str) -> None:
    name, plant = DERIVED[rule]
    check_told(spoiled(place, name, plant, tmp_path / "spoiled"), rule, place / "source")


@pytest.mark.parametrize("rule", SOURCES)
def test_what_a_source_says_is_not_lost(place: Path, tmp_path: Path, rule: str) -> None:
    name, plant = SOURCES[rule]
    check_told(place / name, rule, spoiled(place, "source", plant, tmp_path / "source"))


def test_uids_of_the_source_are_told(place: Path, tmp_path: Path) -> None:
    uid = slices_in(place / "source")[0].SeriesInstanceUID
    folder = spoiled(place, "ct", every(SeriesInstanceUID=uid), tmp_path / "spoiled")
    check_told(folder, "uid-of-source", place / "source")


def test_a_source_is_found_below_the_path(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "source", tmp_path / "source")
    spoiled(place, "ct", moved(ALL, (0, 0, 0.5)), tmp_path / "ct")
    check_told(tmp_path, "geometry-moved")


def test_the_source_is_not_judged_against_itself(place: Path, tmp_path: Path) -> None:
    for name in ("source", "ct"):
        shutil.copytree(place / name, tmp_path / name)
    assert lint(tmp_path, source=tmp_path / "source").complaints == ()


def test_an_undecodable_element_is_told(place: Path, tmp_path: Path) -> None:
    folder = spoiled(place, "scan", every(TableSpeed=1.25), tmp_path / "spoiled")
    for path in folder.iterdir():
        content = path.read_bytes()
        assert content.count(b"\x09\x93FD") == 1
        path.write_bytes(content.replace(b"\x09\x93FD", b"\x09\x93ZZ"))
    check_told(folder, "damaged-value")


def test_a_cut_header_is_told(place: Path, tmp_path: Path) -> None:
    for path in (place / "scan").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:340])
    check_told(tmp_path, "damaged-file")


def test_file_meta_of_another_object_is_told(place: Path, tmp_path: Path) -> None:
    for one in slices_in(place / "scan"):
        one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        pydicom.dcmwrite(tmp_path / f"{one.InstanceNumber}.dcm", one)
    check_told(tmp_path, "file-meta")


def test_a_data_set_without_file_meta_is_told(place: Path, tmp_path: Path) -> None:
    for one in slices_in(place / "scan"):
        del one.file_meta, one.preamble
        bare = Dataset(one)
        pydicom.dcmwrite(tmp_path / f"{one.InstanceNumber}.dcm", bare, implicit_vr=True, little_endian=True)
    check_told(tmp_path, "no-file-meta")


@pytest.mark.parametrize(
    ("syntax", "expected"),
    [(JPEGLSLossless, {"undecodable"}), (JPEGBaseline8Bit, {"undecodable", "lossy-not-said"})],
)
def test_encodings_are_judged(place: Path, tmp_path: Path, syntax: UID, expected: set[str]) -> None:
    one = slices_in(place / "scan")[0]
    one.PixelData = encapsulate([b"no picture at all..."])
    save_one(one, tmp_path / "one.dcm", syntax=syntax)
    assert rules(tmp_path) == expected


def test_a_copied_file_is_told(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "scan", tmp_path / "scan")
    shutil.copy(folder / "000.dcm", folder / "copy.dcm")
    check_told(folder, "copied-file")


SECOND = {
    "patient-identity": {"PatientSex": "F", "StudyInstanceUID": "1.2.1", "FrameOfReferenceUID": "1.2.2"},
    "study-identity": {"PatientID": "OTHER", "FrameOfReferenceUID": "1.2.2"},
    "study-attributes": {"StudyDescription": "another"},
    "frame-of-other-patient": {"PatientID": "OTHER", "StudyInstanceUID": "1.2.1"},
}


@pytest.mark.parametrize("rule", SECOND)
def test_series_that_contradict_one_another_are_told(place: Path, tmp_path: Path, rule: str) -> None:
    def plant(slices: Slices) -> None:
        every(SeriesInstanceUID="1.2.3", **SECOND[rule])(slices)
        for one in slices:
            one.SOPInstanceUID = generate_uid()

    shutil.copytree(place / "scan", tmp_path / "first")
    spoiled(place, "scan", plant, tmp_path / "second")
    check_told(tmp_path, rule)


def test_an_instance_in_two_series_is_told(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "scan", tmp_path / "first")
    spoiled(place, "scan", every(SeriesInstanceUID="1.2.3"), tmp_path / "second")
    check_told(tmp_path, "instance-uid-in-two-series")


def enhanced(frames: int, groups: int) -> Dataset:
    one = make_slices(ramp(1))[0]
    one.SOPClassUID, one.ImageType = "1.2.840.10008.5.1.4.1.1.4.1", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    one.NumberOfFrames, one.PixelData = frames, one.PixelData * frames
    per_frame = Dataset()
    per_frame.FrameContentSequence = per_frame.PixelMeasuresSequence = [Dataset()]
    per_frame.PlaneOrientationSequence = per_frame.PlanePositionSequence = [Dataset()]
    one.SharedFunctionalGroupsSequence = [Dataset()]
    one.PerFrameFunctionalGroupsSequence = [copy.deepcopy(per_frame) for _ in range(groups)]
    return one


def test_frames_are_counted_and_have_places(tmp_path: Path) -> None:
    one = enhanced(3, 3)
    usual = rules(save_one(one, tmp_path / "right.dcm"))
    assert rules(save_one(enhanced(3, 2), tmp_path / "few.dcm")) - usual == {"frame-count"}
    del one.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    assert rules(save_one(one, tmp_path / "one.dcm")) - usual == {"functional-group-absent"}


def test_every_rule_has_its_fault() -> None:
    """Those that the tests above plant by hand are named here."""
    by_hand = {
        "damaged-value", "damaged-file", "file-meta", "no-file-meta", "undecodable", "lossy-not-said",
        "copied-file", "uid-of-source", "instance-uid-in-two-series", "frame-count", "functional-group-absent",
    }  # fmt: skip
    assert {*PLANTED, *DERIVED, *SOURCES, *SECOND, *by_hand} == set(RULES)


# --- liars ------------------------------------------------------------------------------------------------------------


def naive_ct(folder: Path, out: Path, *, change_class: bool) -> Path:
    """What a hurried script does: the MR's headers, new pixels, new UIDs, Modality CT."""
    series = generate_uid()
    slices = slices_in(folder)
    for one in slices:
        one.Modality, one.SeriesInstanceUID, one.SOPInstanceUID = "CT", series, generate_uid()
        if change_class:
            one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        one.PixelData = (one.pixel_array.astype(np.uint16) * 2).tobytes()
    return save(slices, out)


def dciodvfy(path: Path) -> list[str]:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False, errors="replace")
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@needs_dciodvfy
def test_a_lying_copy_that_dciodvfy_passes_is_caught(shared: Path, tmp_path: Path) -> None:
    source = shared / "dicom" / "dcm_qa_decubitus" / "HFS_3_t1_fl2d_sag"
    liar = naive_ct(source, tmp_path / "liar", change_class=False)
    assert all(dciodvfy(path) == [] for path in sorted(liar.iterdir())[:3])
    alone = rules(liar)
    assert alone >= {"modality-of-class", "foreign-attributes", "foreign-private-group", "image-type-value-3"}
    assert alone >= {"smallest-largest", "ct-without-air"}
    beside = rules(liar, source) - alone
    assert beside == {"original-with-source", "source-not-named", "source-window", "series-number-of-source"}
    assert lint(liar).exit_code == 1


def test_a_lying_copy_of_the_right_class_is_caught(place: Path, tmp_path: Path) -> None:
    found = rules(naive_ct(place / "source", tmp_path / "liar", change_class=True))
    assert found >= {"type-1-absent", "type-2-absent", "foreign-attributes", "image-type-value-3", "ct-without-air"}


# --- the table --------------------------------------------------------------------------------------------------------


@cache
def highdicom_tables() -> list[Any]:
    found = importlib.util.find_spec("highdicom")
    if found is None or found.origin is None:
        pytest.skip("highdicom, whose tables of the standard this test uses, is not installed")
    tables = Path(found.origin).parent / "_standard"
    names = ("iod_module_map", "module_attribute_map", "sop_class_iod_map")
    return [json.loads((tables / f"{name}.json").read_text()) for name in names]


def types_in_highdicom(sop_class: str) -> Iterator[tuple[str, str]]:
    iods, modules, classes = highdicom_tables()
    for module in iods[classes[sop_class]]:
        if module["usage"] == "M":
            rows = (row for row in modules[module["key"]] if not row["path"] and row["type"] != "3")
            yield from ((row["keyword"], row["type"]) for row in rows if tag_for_keyword(row["keyword"]))


@pytest.mark.parametrize("end", ["2", "4", "128", "7", "2.1", "4.1", "20", "6.1", "481.2", "66.4", "1.1"])
def test_the_table_is_that_of_highdicom(end: str) -> None:
    sop_class = f"1.2.840.10008.5.1.4.1.1.{end}"
    iod = iod_of(sop_class)
    assert iod is not None
    strictness = ["1", "2", "1C", "2C", "3"]
    types: dict[str, list[int]] = {}
    for keyword, kind in types_in_highdicom(sop_class):
        types.setdefault(keyword, []).append(strictness.index(kind))
    for keyword, kinds in types.items():
        assert strictness.index(iod.mandatory[keyword].kind) == min(kinds), keyword
    assert len(types) > 25


def test_items_of_sequences_are_judged(place: Path, tmp_path: Path) -> None:
    def plant(slices: Slices) -> None:
        for one in slices:
            del one.SourceImageSequence[0].ReferencedSOPClassUID
            del one.DerivationCodeSequence[0].CodeMeaning
            del one.ContributingEquipmentSequence[0].Manufacturer

    told = {one.message for one in lint(spoiled(place, "ct", plant, tmp_path / "spoiled")).complaints}
    module = " of the module general reference, which is in use"
    assert told == {
        "ContributingEquipmentSequence > Manufacturer is absent: type 1",
        f"DerivationCodeSequence > CodeMeaning is absent: type 1{module}",
        f"SourceImageSequence > ReferencedSOPClassUID is absent: type 1{module}",
    }


@needs_dciodvfy
@pytest.mark.parametrize("name", ["ct", "mr", "pet", "rewritten", "source", "scan"])
def test_dciodvfy_misses_what_we_miss(place: Path, tmp_path: Path, name: str) -> None:
    """One attribute of type 1 or 2 less at a time: both complain of it, or neither does."""
    whole = slices_in(place / name)[0]
    iod, checked = iod_of(whole.SOPClassUID), 0
    assert iod is not None
    for keyword, attribute in iod.mandatory.items():
        if attribute.kind not in {"1", "2"} or keyword in {"SOPClassUID", "SOPInstanceUID"}:
            continue
        one = copy.deepcopy(whole)
        del one[keyword]
        path = save_one(one, tmp_path / "one.dcm")
        image = open_image(path)
        assert image is not None
        assert [lack.path for lack in image.lacks if lack.kind == attribute.kind] == [(keyword,)]
        assert any(f"Element=<{keyword}>" in line and "Missing" in line for line in dciodvfy(path)), keyword
        checked += 1
    assert checked > 30


OTHERS = {
    "PatientName": "Other^Person", "PatientBirthDate": "19710101", "PatientSex": "F", "PatientID": "OTHER",
    "StudyDate": "20210101", "StudyTime": "090000", "StudyID": "8", "ReferringPhysicianName": "Another^Doctor",
    "StudyDescription": "other", "PatientAge": "050Y", "PatientSize": "1.5", "PatientWeight": "80",
    "StudyInstanceUID": "1.2.3", "Modality": "OT", "AccessionNumber": "ACC2", "SeriesNumber": 9,
    "SeriesDescription": "other", "SeriesDate": "20210101", "SeriesTime": "100000", "BodyPartExamined": "CHEST",
    "Laterality": "L", "PatientPosition": "HFP", "ProtocolName": "other",
}  # fmt: skip


@pytest.mark.skipif(shutil.which("dcentvfy") is None, reason="dcentvfy (Debian package dicom3tools) is not installed")
@pytest.mark.parametrize("keyword", OTHERS)
def test_dcentvfy_finds_inconsistent_what_we_do(place: Path, tmp_path: Path, keyword: str) -> None:
    folder = spoiled(place, "scan", last(**{keyword: OTHERS[keyword]}), tmp_path / "spoiled")
    done = subprocess.run(["dcentvfy", *folder.iterdir()], capture_output=True, text=True, check=False)
    assert keyword in done.stdout + done.stderr
    told = [one for one in lint(folder).complaints if one.message.startswith(f"{keyword} differs")]
    assert told
    assert all(one.files == (folder / "005.dcm",) for one in told)


# --- people -----------------------------------------------------------------------------------------------------------


def test_the_command(place: Path, tmp_path: Path) -> None:
    done = medgan("inspect", place / "ct", "--lint", "--source", place / "source")
    assert (done.code, done.out, done.warned) == (0, "6 DICOM files: 0 errors, 0 warnings, 0 notes\n", ())
    folder = spoiled(place, "ct", every(WindowCenter="9000"), tmp_path / "window")
    done = medgan("inspect", folder, "--lint")
    assert done.code == 3
    assert "  warning stale-window: " in done.out
    assert "6 files, first 000.dcm" in done.out
    folder = spoiled(place, "ct", every(KVP=None), tmp_path / "kvp")
    done = medgan("inspect", folder, "--lint", "--json")
    assert done.code == 1
    told = json.loads(done.out)
    assert [one["rule"] for one in told] == ["type-2-absent"]
    assert {Path(path).parent for path in told[0]["files"]} == {folder}
    assert told[0]["message"] == "KVP is absent: type 2"


def test_where_there_is_no_dicom_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(InputError, match="holds no DICOM file"):
        lint(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        lint(tmp_path / "nowhere")
    with pytest.raises(InputError, match="does not exist"):
        lint(tmp_path, source=tmp_path / "nowhere")


def test_other_files_are_passed_over_and_reports_are_judged(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "scan", tmp_path / "scan")
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "empty").touch()
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3", "SR"
    save_one(report, tmp_path / "report.dcm")
    verdict = lint(tmp_path)
    assert verdict.num_files == 7
    assert {one.files for one in verdict.complaints} == {(tmp_path / "report.dcm",)}
    assert "ContinuityOfContent is absent: type 1" not in {one.message for one in verdict.complaints}
    assert "ReferencedPerformedProcedureStepSequence is absent: type 2" in {one.message for one in verdict.complaints}


def test_the_docs_tell_every_rule() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "lint.md").read_text()
    told = dict(line.strip("| ").split(" | ")[:2] for line in page.splitlines() if line.startswith("| `"))
    assert {rule.strip("`"): severity for rule, severity in told.items()} == dict(RULES)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, list[bytes]]:
    """The files of series, the same bytes on every day."""
    known: dict[str, str] = {}
    return {name: steady(place / name, known) for name in ("source", "ct", "scan", "pet")}


def judged(contents: Sequence[bytes], folder: Path, source: Path | None = None) -> Verdict | None:
    """What is said of files; None where it is that none of them is DICOM. Anything else that is raised is a fault."""
    with_files(contents, folder)
    try:
        verdict = lint(folder, source=source)
    except InputError as error:
        assert "holds no DICOM" in str(error)  # noqa: PT017
        return None
    assert 1 <= verdict.num_files <= len(contents)
    assert verdict.describe()
    return verdict


def with_files(contents: Sequence[bytes], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number}.dcm").write_bytes(content)
    return folder


def test_the_files_that_are_damaged_are_whole(whole: dict[str, list[bytes]], tmp_path: Path) -> None:
    source = with_files(whole["source"], tmp_path / "source")
    for name in ("ct", "scan", "pet"):
        folder = with_files(whole[name], tmp_path / name)
        assert lint(folder, source=source if name != "scan" else None).complaints == ()
        assert len([*places(whole[name][0])]) >= 50


@pytest.mark.parametrize("name", ["ct", "pet"])
@pytest.mark.parametrize("way", [gone, emptied])
def test_an_element_less_or_without_a_value_breaks_nothing(
    whole: dict[str, list[bytes]], tmp_path: Path, name: str, way: Damage
) -> None:
    """Each element of a file, those in sequences too."""
    content = whole[name][0]
    for place in places(content):
        judged([way(content, place, random.Random(0))], tmp_path)


@pytest.mark.parametrize("way", [of_another_vr, of_another_value, repeated, of_another_length])
def test_a_damaged_element_breaks_nothing(whole: dict[str, list[bytes]], tmp_path: Path, way: Damage) -> None:
    rng = random.Random(way.__name__)
    for _ in range(80):
        content = whole[rng.choice(["ct", "scan", "pet"])][0]
        judged([way(content, rng.choice([*places(content)]), rng)], tmp_path)


def test_damage_all_over_a_series_breaks_nothing(whole: dict[str, list[bytes]], tmp_path: Path) -> None:
    """Several elements of each file, and of its source, in one way for all or in one of its own for each."""
    rng = random.Random(0)
    for _ in range(20):
        name, seeds = rng.choice(["ct", "pet"]), rng.choices(range(9), k=12)
        seeds = seeds if rng.random() < 0.5 else seeds[:1] * 12
        files = [damaged(one, seed) for one, seed in zip([*whole[name], *whole["source"]], seeds, strict=True)]
        source = with_files(files[6:], tmp_path / "source")
        if judged(files[6:], source) is not None:
            judged(files[:6], tmp_path / "made", source)


def damaged(content: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    for _ in range(3):
        content = rng.choice(WAYS)(content, rng.choice([*places(content)]), rng)
    return content


def test_damaged_bytes_break_nothing(whole: dict[str, list[bytes]], tmp_path: Path) -> None:
    """Bytes changed, cut out and put in at random: complaints of whatever kind, never a traceback."""
    rng = random.Random(0)
    files = [content for name in ("ct", "scan", "pet") for content in whole[name][:2]]
    for _ in range(150):
        content = bytearray(rng.choice(files))
        for _ in range(rng.choice([1, 3, 10])):
            where = rng.randrange(128, len(content))
            if rng.random() < 0.3:
                del content[where : where + rng.randrange(1, 5)]
            else:
                content[where : where + 2] = rng.choice([b"SQ", b"UN", b"DS", b"\0\0", b"\xff\xff", b"OW", b"9 "])
        judged([bytes(content)], tmp_path)


def changed(content: bytes, key: str, value: bytes, vr: str = "") -> bytes:
    tag = struct.pack("<2H", *divmod(tag_for_keyword(key) or 0, 1 << 16))
    place = next(place for place in places(content) if content[place.start : place.value].startswith(tag))
    return with_value(content, place, value, vr)


def told_of(content: bytes, folder: Path) -> set[tuple[str, str]]:
    verdict = judged([content], folder)
    assert verdict is not None
    return {(one.rule, one.message) for one in verdict.complaints}


def test_empty_pixels_are_told(whole: dict[str, list[bytes]], tmp_path: Path) -> None:
    assert told_of(changed(whole["scan"][0], "PixelData", b""), tmp_path) == {
        ("conditional-absent", "PixelData is empty: type 1C"),
        ("pixel-length", "PixelData has 0 bytes; its matrix takes 160"),
    }


@pytest.mark.parametrize(("vr", "value"), [("UL", b"\1\0\0\0"), ("FD", bytes(8)), ("DS", b"1\\2"), ("SQ", b"")])
def test_pixels_that_are_no_bytes_are_told(
    whole: dict[str, list[bytes]], tmp_path: Path, vr: str, value: bytes
) -> None:
    assert told_of(changed(whole["scan"][0], "PixelData", value, vr), tmp_path) == {
        ("damaged-value", "(7FE0,0010) cannot be decoded"),
        ("conditional-absent", "PixelData is absent: type 1C"),
    }


def test_items_where_text_belongs_are_told_and_not_printed(whole: dict[str, list[bytes]], tmp_path: Path) -> None:
    item = b"\xfe\xff\x00\xe0" + struct.pack("<L", 14) + b"\x10\0\x10\0PN\x06\0Secret"
    told = told_of(changed(whole["ct"][0], "Modality", item, "SQ"), tmp_path)
    assert ("damaged-value", "(0008,0060) cannot be decoded") in told
    assert not any("Secret" in message for _, message in told)


def test_more_bits_than_there_are_numbers_for_are_told(whole: dict[str, list[bytes]], tmp_path: Path) -> None:
    content = changed(whole["scan"][0], "BitsStored", b"\xff\xff")
    content = content.replace(b"\x28\0\x00\x01US", b"\x28\0\x20\x01US\2\0\3\0\x28\0\x00\x01US")
    assert ("bits", "BitsStored is 65535, more than BitsAllocated 16") in told_of(content, tmp_path)
