"""Folders of DICOM slices, made for tests: a clean series, and all that can be wrong with one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


def texts(values: Iterable[float]) -> list[str]:
    return [str(format_number_as_ds(float(value) + 0.0)) for value in values]


def make_slices(
    pixels: npt.NDArray[Any],
    *,
    directions: tuple[Any, Any] = AXIAL,
    origin: Any = (-20.0, -30.0, 10.0),
    spacing: tuple[float, float] = (1.5, 1.0),
    gap: float = 2.5,
    modality: str = "MR",
    step: Any = None,
    **attributes: Any,
) -> list[Dataset]:
    """One dataset a slice.

    Args:
        pixels: (slices, rows, columns) stored integers.
        directions: LPS unit vectors along a row of pixels and along a column of pixels.
        origin: LPS mm of the first pixel of the first slice.
        spacing: DICOM's PixelSpacing: mm from row to row, mm from column to column.
        gap: mm from slice to slice along the normal.
        modality: MR or CT.
        step: LPS mm from slice to slice, if not along the normal.
        attributes: more attributes of all slices, or other values of these.
    """
    normal = np.cross(*directions)
    step = normal * gap if step is None else np.asarray(step)
    uids = {key: generate_uid() for key in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    made = []
    for index, picture in enumerate(np.asarray(pixels)):
        one = _common(modality)
        one.update(uids)
        one.SOPInstanceUID = generate_uid()
        one.InstanceNumber = index + 1
        one.ImagePositionPatient = texts(np.asarray(origin) + index * step)
        one.ImageOrientationPatient = texts([*directions[0], *directions[1]])
        one.PixelSpacing, one.SliceThickness = texts(spacing), texts([gap])[0]
        set_pixels(one, picture)
        for key, value in attributes.items():
            setattr(one, key, value)
        made.append(one)
    return made


def _common(modality: str) -> Dataset:
    one = Dataset()
    one.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    one.Modality, one.ImageType = modality, ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "M"]
    one.PatientName, one.PatientID = "Secret^Person", "SECRET-ID"
    one.PatientBirthDate, one.PatientSex, one.PatientPosition = "19700101", "O", "HFS"
    one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "20200102", "101112", "7", "ACC1"
    one.ReferringPhysicianName, one.PositionReferenceIndicator = "Some^Doctor", ""
    one.SeriesNumber, one.SeriesDescription, one.BodyPartExamined = 3, "made for a test", "BRAIN"
    one.Manufacturer, one.ManufacturerModelName = "ScannerMaker", "Scanner 3000"
    if modality == "CT":
        one.RescaleIntercept, one.RescaleSlope, one.RescaleType, one.KVP = "-1024", "1", "HU", "120"
    else:
        one.ScanningSequence, one.SequenceVariant, one.EchoTime, one.RepetitionTime = "SE", "NONE", "12.5", "500"
        one.ScanOptions, one.MRAcquisitionType, one.EchoTrainLength = "", "2D", "1"
    return one


def set_pixels(one: Dataset, picture: npt.NDArray[Any]) -> None:
    signed = np.asarray(picture).dtype.kind == "i"
    one.Rows, one.Columns = picture.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, int(signed)
    one.add_new("PixelData", "OW", np.ascontiguousarray(picture, "<i2" if signed else "<u2").tobytes())


def save(slices: Iterable[Dataset], folder: Path, *, pattern: str = "{:03d}.dcm", syntax: str = "") -> Path:
    """Write slices as files named by their order here."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, one in enumerate(slices):
        save_one(one, folder / pattern.format(index), syntax=syntax)
    return folder


def save_one(one: Dataset, path: Path, *, syntax: str = "") -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    one.file_meta = meta
    dcmwrite(path, one, enforce_file_format=True)
    return path


def ramp(num_slices: int = 6, rows: int = 8, columns: int = 10) -> npt.NDArray[np.uint16]:
    """Pixels that all differ."""
    return np.arange(num_slices * rows * columns, dtype=np.uint16).reshape(num_slices, rows, columns)


def joined(*groups: list[Dataset]) -> list[Dataset]:
    """Files of one series."""
    first = groups[0][0]
    files = [one for group in groups for one in group]
    for number, one in enumerate(files, start=1):
        one.SeriesInstanceUID, one.StudyInstanceUID = first.SeriesInstanceUID, first.StudyInstanceUID
        one.FrameOfReferenceUID, one.InstanceNumber = first.FrameOfReferenceUID, number
    return files


def leaning(degrees: float = 18.5, heights: Any = None, pixels: Any = None, modality: str = "CT") -> list[Dataset]:
    """A smooth object, sampled where each slice lies."""
    heights = np.arange(8) * 2.5 if heights is None else np.asarray(heights)
    places = [np.array([-20.0, -30 + h * np.tan(np.radians(degrees)), 10 + h]) for h in heights]
    made = make_slices(np.zeros((len(heights), 40, 32), np.uint16), modality=modality, spacing=(1.5, 1.0))
    for one, place in zip(made, places, strict=True):
        one.ImagePositionPatient = texts(place)
        rows, columns = np.mgrid[0:40, 0:32]
        one.PixelData = (scene(place[0] + columns, place[1] + 1.5 * rows, place[2]) + 1024).astype("<u2").tobytes()
    return made


def scene(x: Any, y: Any, z: Any) -> np.ndarray:
    """HU at LPS mm: smooth, and different everywhere."""
    return np.rint(300 * np.sin(x / 9) + 200 * np.cos(y / 11) + 12 * np.asarray(z))
