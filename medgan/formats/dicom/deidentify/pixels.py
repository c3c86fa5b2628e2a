"""Pixels as they go out: whole, and without overlays in the bits that the image does not use."""

from __future__ import annotations

import math

import numpy as np
from pydicom import Dataset
from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian

from medgan.errors import DicomError
from medgan.formats.dicom.elements import name_of, number, text

__all__ = ["drop_hidden_overlays", "is_cut_off"]


_UNDEFINED = 0xFFFFFFFF
_PIXELS = {Tag("FloatPixelData"), Tag("DoubleFloatPixelData"), Tag("PixelDataProviderURL")}


def is_cut_off(dataset: Dataset) -> bool:
    """True if an attribute, or the pixels, are shorter than they should be, or an image has no pixels at all."""
    if any(isinstance(one, RawDataElement) and _is_short(one) for one in dataset.values()):
        return True
    if "PixelData" not in dataset:
        is_image = "Rows" in dataset or "Image Storage" in name_of(text(dataset, "SOPClassUID"))
        return is_image and _PIXELS.isdisjoint(dataset.keys())
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return not dataset.PixelData
    counts = [int(number(dataset, key) or 1) for key in ("NumberOfFrames", "SamplesPerPixel", "Rows", "Columns")]
    num_bits = math.prod(counts) * int(number(dataset, "BitsAllocated") or 16)
    if text(dataset, "PhotometricInterpretation").endswith("_422"):
        num_bits = num_bits * 2 // 3
    return len(dataset.PixelData or b"") < (num_bits + 7) // 8


def _is_short(element: RawDataElement) -> bool:
    """Bytes behind the end of the data may look like an attribute that is short, but like none that anybody knows."""
    known = dictionary_has_tag(element.tag) and element.length != _UNDEFINED
    return known and element.value is not None and len(element.value) < element.length


def drop_hidden_overlays(dataset: Dataset) -> None:
    """Clear the bits of overlays that lie above or below the bits of the image in each pixel, as old scanners did it.

    Raises:
        DicomError: if they lie in compressed pixels.
    """
    mask = sum({1 << place for place in _hidden_places(dataset)})
    if not mask:
        return
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        raise DicomError("has an overlay in compressed pixels; decompress it first, for example with dcmdjpeg")
    order = ">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    words = np.frombuffer(dataset.PixelData, f"{order}u{int(number(dataset, 'BitsAllocated') or 16) // 8}")
    dataset["PixelData"].value = (words & ~words.dtype.type(mask)).tobytes()


def _hidden_places(dataset: Dataset) -> set[int]:
    """Which bits of a pixel are those of an overlay, and none of the image."""
    if "PixelData" not in dataset:
        return set()
    allocated, stored = (int(number(dataset, key) or 0) for key in ("BitsAllocated", "BitsStored"))
    highest = int(number(dataset, "HighBit") or stored - 1)
    groups = [group for group in range(0x6000, 0x6100, 2) if (group, 0x0010) in dataset]
    places = {_place(dataset, group) for group in groups if (group, 0x3000) not in dataset}
    return {place for place in places if 0 <= place < allocated and not highest - stored < place <= highest}


def _place(dataset: Dataset, group: int) -> int:
    element = dataset.get((group, 0x0102))
    return int(element.value) if element is not None and element.value not in (None, "") else 0
