"""The headers of a derived series, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds

from medgan import __version__
from medgan.formats.dicom.attributes import HEAD, KINDS, SERIES_WIDE, SLICE_WISE, TYPE_2, kind_of
from medgan.formats.dicom.elements import is_valid, number, text
from medgan.formats.dicom.mark import (
    NOT_FOR_DIAGNOSIS,
    acquisition_item,
    code,
    is_acquisition,
    sampling_remark,
    synthesis_of,
    synthesizing_item,
    unit_remark,
)
from medgan.formats.dicom.source import Source
from medgan.formats.dicom.stored import Stored
from medgan.formats.dicom.subject import Subject, uid_from
from medgan.volume import Volume

__all__ = ["Order", "slices_like", "slices_of"]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_UNITS = {"Bq/ml": "BQML"}
_SIDES = {"S": "H", "I": "F"}  # DICOM says head and foot where NIfTI says superior and inferior


@dataclass(frozen=True, eq=False)
class Order:
    """What is to be written.

    Args:
        volume: on the very grid of the slices, first axis along a row of pixels, last axis from slice to slice.
        stored: its integers.
        description: SeriesDescription, "" for one that is made up.
        now: date and time of writing.
        seed: what the new identifiers derive from, "" for fresh ones.
    """

    volume: Volume
    stored: Stored
    description: str
    now: datetime
    seed: str = ""

    def uid(self, *names: str) -> str:
        """A new identifier; with a seed, the same for the same names."""
        return uid_from(self.seed, *names) if self.seed else str(generate_uid())

    def series_uid(self) -> str:
        """The identifier of the series; with a seed, the same for the same description, place and pixels."""
        stored = self.stored
        parts = (stored.pixels.tobytes(), stored.slope.encode(), self.volume.grid.affine.tobytes())
        return self.uid(self.description, self.volume.modality, *(sha256(part).hexdigest() for part in parts))


def slices_like(order: Order, source: Source) -> Iterator[Dataset]:
    """One dataset a slice, on the slices of a source series."""
    first = source.slices[0]
    synthetic = order.volume.synthetic is not None or any(synthesis_of(one) for one in source.slices)
    common = _taken(first, SERIES_WIDE)
    for key in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not text(common, key):
            setattr(common, key, generate_uid())
    _describe_picture(common, first)
    _describe_series(common, order, synthetic, number(first, "SeriesNumber"))
    common.ContributingEquipmentSequence = _contributors(first, order)
    _describe_derivation(common, order, synthetic, text(first, "Modality"))
    still_acquired = not synthetic and text(first, "Modality") == order.volume.modality
    slice_wise = (*SLICE_WISE, *KINDS[order.volume.modality].acquisition) if still_acquired else SLICE_WISE
    for index, one in enumerate(source.slices):
        yield _slice(order, index, [common, _taken(one, slice_wise), _references(one)])


def slices_of(order: Order, subject: Subject) -> Iterator[Dataset]:
    """One dataset a slice, of a scan that has no source."""
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.PatientName, common.PatientID, common.PatientSex = subject.patient_name, subject.patient_id, subject.sex
    common.StudyInstanceUID, common.FrameOfReferenceUID = subject.study_uid, subject.frame_of_reference_uid
    common.StudyDescription = subject.study_description
    common.StudyDate, common.StudyTime = _date(subject.study_time), _time(subject.study_time)
    common.StudyID, common.PatientPosition = "1", "HFS"
    common.LossyImageCompression = "00"
    if subject.seed:
        _describe_nobody(common)
    synthetic = order.volume.synthetic is not None
    _describe_series(common, order, synthetic, None)
    if order.volume.synthetic is not None:
        common.ContributingEquipmentSequence = [synthesizing_item(order.volume.synthetic, order.now)]
    _describe_derivation(common, order, synthetic, "")
    for index in range(order.volume.grid.shape[2]):
        yield _slice(order, index, [common, _place(order.volume, index)])


def _taken(source: Dataset, keys: Sequence[str]) -> Dataset:
    """The named attributes that a source has, as it has them; without optional times and ages that are none."""
    taken = Dataset()
    for key in keys:
        if key in source and (key in TYPE_2 or is_valid(source[key])):
            taken[key] = source[key]
    return taken


def _describe_nobody(common: Dataset) -> None:
    """An image drawn from noise is of nobody, and nothing is written into it."""
    common.PatientIdentityRemoved, common.DeidentificationMethod = "YES", "synthetic, no subject"
    common.BurnedInAnnotation = "NO"


def _describe_picture(common: Dataset, source: Dataset) -> None:
    common.setdefault("LossyImageCompression", "00")
    if text(source, "BurnedInAnnotation") == "NO":
        common.BurnedInAnnotation = "NO"
    if text(source, "BodyPartExamined").upper() in HEAD:
        common.setdefault("RecognizableVisualFeatures", "YES")


def _describe_series(common: Dataset, order: Order, synthetic: bool, source_number: float | None) -> None:
    kind = kind_of(order.volume.modality)
    common.SOPClassUID, common.Modality, common.ImageType = kind.sop_class, order.volume.modality, list(kind.image_type)
    common.SeriesInstanceUID = order.series_uid()
    # Beside the source in a list of series; DICOM's whole numbers end at 2³¹.
    made_up = [*KINDS, common.Modality].index(common.Modality)  # one number a modality in a study of made-up scans
    common.SeriesNumber = (made_up if source_number is None else 100 * int(abs(source_number) % 1e7)) + _place_of(order)
    common.SeriesDescription = _description(common, order, synthetic)
    for moment in ("Series", "Content", "InstanceCreation"):
        setattr(common, f"{moment}Date", _date(order.now))
        setattr(common, f"{moment}Time", _time(order.now))
    common.Manufacturer = common.ManufacturerModelName = "medgan"
    common.SoftwareVersions = __version__
    common.ContentQualification = "RESEARCH"
    if synthetic:
        common.SyntheticData = "YES"
        common.ImageComments = NOT_FOR_DIAGNOSIS


def _quantity(order: Order) -> str:
    return order.volume.synthetic.quantity if order.volume.synthetic else ""


def _place_of(order: Order) -> int:
    """In a list of series an image stands before the maps that belong to it."""
    return {"": 1, "standard deviation": 2}.get(_quantity(order), 3)


def _description(common: Dataset, order: Order, synthetic: bool) -> str:
    """At most 64 bytes that the file's character set can hold."""
    tail = NOT_FOR_DIAGNOSIS if synthetic else ""
    wanted = order.description or ("" if synthetic else f"{order.volume.modality} rewritten by medgan")
    if synthetic and not wanted:
        wanted = _quantity(order).capitalize() or order.volume.modality
    clean = "".join(letter for letter in wanted.replace("\\", "/") if letter.isprintable())
    if text(common, "SpecificCharacterSet") != "ISO_IR 192":
        clean = clean.encode("ascii", "replace").decode("ascii")
    room = 64 - len(tail) - 2 if tail else 64
    short = clean.encode()[:room].decode(errors="ignore").strip()
    return f"{short}, {tail}" if tail else short


def _contributors(source: Dataset, order: Order) -> list[Dataset]:
    """The equipment that had a part in the image: all that the source names, its scanner, and what made this image."""
    items = list(source.get("ContributingEquipmentSequence") or [])
    if not any(is_acquisition(item) for item in items) and _is_of_scanner(source):
        items.append(acquisition_item(source))
    synthesis = order.volume.synthetic
    if synthesis is not None and synthesis != synthesis_of(source):
        items.append(synthesizing_item(synthesis, order.now))
    return items


def _describe_derivation(common: Dataset, order: Order, synthetic: bool, source_modality: str) -> None:
    made_from = f" from {source_modality}" if source_modality else ""
    maker = f" by {order.volume.synthetic.model}" if order.volume.synthetic else ""
    done = f"Synthesized{maker}{made_from}" if synthetic else f"Rewritten{made_from}"
    unit = unit_remark(order.volume.unit)
    what = f"values are the {_quantity(order)}" if _quantity(order) else ""
    drawn = sampling_remark(order.volume.synthetic)
    told = [f"{done} with medgan {__version__}", unit, what, order.stored.remark, drawn]
    common.DerivationDescription = "; ".join(part for part in told if part)[:1024]
    if synthetic:
        common.DerivationCodeSequence = [code("SYNTHESIS", "99MEDGAN", "Image synthesis")]


def _is_of_scanner(source: Dataset) -> bool:
    return bool(text(source, "Manufacturer")) and not text(source, "ImageType").startswith("DERIVED")


def _references(source: Dataset) -> Dataset:
    """Where a slice comes from: the source image at its place, and the series of that image."""
    if not (text(source, "SOPInstanceUID") and text(source, "SeriesInstanceUID")):
        return Dataset()
    purpose = code("121322", "DCM", "Source Image for Image Processing Operation")
    image, instance, series, references = Dataset(), Dataset(), Dataset(), Dataset()
    for item in (image, instance):
        item.ReferencedSOPClassUID = text(source, "SOPClassUID")
        item.ReferencedSOPInstanceUID = text(source, "SOPInstanceUID")
        if "ReferencedFrameNumber" in source:
            item.ReferencedFrameNumber = source.ReferencedFrameNumber
    image.PurposeOfReferenceCodeSequence = [purpose]
    series.SeriesInstanceUID = text(source, "SeriesInstanceUID")
    series.ReferencedInstanceSequence = [instance]
    references.SourceImageSequence = [image]
    references.ReferencedSeriesSequence = [series]
    return references


def _place(volume: Volume, index: int) -> Dataset:
    """Where a slice of a straight grid is, in DICOM's LPS millimetres."""
    direction, spacing = _LPS_TO_RAS @ volume.grid.direction, volume.grid.spacing_mm
    place = Dataset()
    place.ImagePositionPatient = _decimals(_LPS_TO_RAS @ volume.grid.to_world([0, 0, index]))
    place.ImageOrientationPatient = _decimals([*direction[:, 0], *direction[:, 1]])
    place.PixelSpacing = _decimals([spacing[1], spacing[0]])
    place.SliceThickness = place.SpacingBetweenSlices = _decimals([spacing[2]])[0]
    return place


def _slice(order: Order, index: int, parts: list[Dataset]) -> Dataset:
    dataset = Dataset()
    for part in parts:
        dataset.update(part)
    dataset.SOPInstanceUID = order.uid("image", text(dataset, "SeriesInstanceUID"), str(index))
    dataset.InstanceNumber = index + 1
    _fill_needed(dataset, order, index)
    _fill_pixels(dataset, order, index)
    return dataset


def _fill_needed(dataset: Dataset, order: Order, index: int) -> None:
    for key, value in {**dict.fromkeys(TYPE_2), **kind_of(order.volume.modality).needed}.items():
        if key not in dataset:
            setattr(dataset, key, value)
    if not text(dataset, "BodyPartExamined"):
        dataset.setdefault("Laterality", None)
    if order.volume.modality == "PT":
        del dataset.PatientPosition  # PET tells it by PatientOrientationCodeSequence
        dataset.ImageIndex, dataset.NumberOfSlices = index + 1, order.volume.grid.shape[2]
        dataset.Units = _UNITS.get(order.volume.unit, dataset.Units)
    if "ConversionType" in dataset:
        dataset.PatientOrientation = [_SIDES.get(side, side) for side in order.volume.grid.orientation[:2]]


def _fill_pixels(dataset: Dataset, order: Order, index: int) -> None:
    pixels = order.stored.pixels[:, :, index].T
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.add_new("PixelData", "OW", np.ascontiguousarray(pixels, dtype="<i2").tobytes())
    _fill_rescale(dataset, order)
    centre, width = order.stored.window
    if width >= 1:
        dataset.WindowCenter, dataset.WindowWidth = _decimals([centre, width])


def _fill_rescale(dataset: Dataset, order: Order) -> None:
    """MR has no rescale in its definition, so it gets one only where its values need it."""
    if order.volume.modality == "MR" and order.stored.slope == "1":
        return
    dataset.RescaleIntercept, dataset.RescaleSlope = "0", order.stored.slope
    if order.volume.modality != "PT":
        dataset.RescaleType = "HU" if order.volume.modality == "CT" else "US"


def _decimals(values: Any) -> list[str]:
    # To 14 digits first: just below a power of ten pydicom writes one letter more than the 16 that DICOM allows.
    return [str(format_number_as_ds(float(f"{float(value):.14g}") + 0.0)) for value in values]


def _date(moment: datetime) -> str:
    return moment.strftime("%Y%m%d")


def _time(moment: datetime) -> str:
    return moment.strftime("%H%M%S")
