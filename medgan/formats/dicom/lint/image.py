"""One file as the linter sees it: its header, and what its pixels are like."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from medgan.formats.dicom.codestream import check_frames
from medgan.formats.dicom.elements import (
    DAMAGE,
    looks_like_dicom,
    number,
    numbers,
    open_dicom,
    quietly,
    stored_bytes,
    text,
    values,
)
from medgan.formats.dicom.lint.iod import Iod, Lack, iod_of, lacks
from medgan.formats.dicom.mark import NOT_FOR_DIAGNOSIS

__all__ = [
    "SCANNER_CLASSES",
    "Image",
    "Pixels",
    "claimed_scanner",
    "finite",
    "is_synthetic",
    "items",
    "open_image",
    "synthesizers",
]

SCANNER_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
_PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_OTHER_RESCALES = {"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ModalityLUTSequence"}
_REPEATING_GROUPS = {*range(0x5000, 0x5100, 2), *range(0x6000, 0x6100, 2)}


@dataclass(frozen=True)
class Pixels:
    """What the pixels of a file are like, in stored values.

    Args:
        low: the least; None where there are none, or they cannot be decoded.
        high: the greatest.
        num_bytes: that the file holds, uncompressed; None where they are compressed.
        needed_bytes: that its matrix takes.
        beyond_bits: how many pixels of an uncompressed image have bits set above BitsStored.
        num_padding: how many have the value PixelPaddingValue.
        undecodable: the kind of error if they cannot be decoded, else "".
    """

    low: float | None = None
    high: float | None = None
    num_bytes: int | None = None
    needed_bytes: int = 0
    beyond_bits: int = 0
    num_padding: int = 0
    undecodable: str = ""


@dataclass(frozen=True, eq=False)
class Image:
    """One DICOM file, image or not.

    Args:
        path: of the file.
        dataset: its header, pixels left out; where `slim`, only what rules across files look at.
        pixels: what they are like.
        damaged: keywords or tags of attributes that cannot be decoded; they are left out of the dataset.
        meta: the file meta information.
        values: the least and the greatest value after the rescale, as a window sees them; None for colour, no pixels,
            or a rescale that is not one line for all.
        broken: why the file cannot be parsed at all, "" if it can.
        lacks: attributes that its class demands and it has not.
        extras: keywords of standard attributes with a value that its class does not list.
        creators: who made its private attributes, as PrivateCreator; "" for one that does not say so.
    """

    path: Path
    dataset: Dataset
    pixels: Pixels = field(default_factory=Pixels)
    damaged: tuple[str, ...] = ()
    meta: Dataset = field(default_factory=Dataset)
    values: tuple[float, float] | None = None
    broken: str = ""
    lacks: tuple[Lack, ...] = ()
    extras: tuple[str, ...] = ()
    creators: tuple[str, ...] = ()

    @property
    def series(self) -> str:
        """SeriesInstanceUID, "" where there is none."""
        return text(self.dataset, "SeriesInstanceUID")

    @property
    def uid(self) -> str:
        """SOPInstanceUID, "" where there is none."""
        return text(self.dataset, "SOPInstanceUID")

    @property
    def is_slice(self) -> bool:
        """True for a classic image, one a file, with a place in the patient."""
        return self.position is not None and self.orientation is not None and self.spacing is not None

    @cached_property
    def position(self) -> tuple[float, ...] | None:
        """ImagePositionPatient, LPS mm."""
        return numbers(self.dataset, "ImagePositionPatient", 3)

    @cached_property
    def orientation(self) -> tuple[float, ...] | None:
        """ImageOrientationPatient: unit vectors along a row and along a column."""
        return numbers(self.dataset, "ImageOrientationPatient", 6)

    @cached_property
    def spacing(self) -> tuple[float, ...] | None:
        """PixelSpacing: mm from row to row, mm from column to column."""
        return numbers(self.dataset, "PixelSpacing", 2)

    def slim(self, keywords: Collection[str]) -> Image:
        """The same with the named attributes only."""
        kept = Dataset()
        for key in keywords:
            if key in self.dataset:
                kept[key] = self.dataset[key]
        return replace(self, dataset=kept)


def finite(dataset: Dataset, key: str) -> list[float]:
    """The numbers of a value of any length; none if one of them is no finite number."""
    return list(numbers(dataset, key, len(values(dataset, key))) or ())


def items(dataset: Dataset, key: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent."""
    return list(dataset.get(key) or [])


def claimed_scanner(dataset: Dataset) -> str:
    """CT, MR or PT if a file is an image of one of these classes: as Modality says, else as the class does."""
    by_class = {uid: kind for kind, uid in SCANNER_CLASSES.items()}.get(text(dataset, "SOPClassUID"), "")
    modality = text(dataset, "Modality")
    return modality if by_class and modality in SCANNER_CLASSES else by_class


def is_synthetic(dataset: Dataset) -> bool:
    """True if a header says in any of the usual places that no scanner made the image."""
    if text(dataset, "SyntheticData") == "YES" or synthesizers(dataset):
        return True
    codes = [
        (text(item, "CodeValue"), text(item, "CodingSchemeDesignator"))
        for item in items(dataset, "DerivationCodeSequence")
    ]
    told = " ".join(text(dataset, key).lower() for key in ("SeriesDescription", "ImageComments"))
    return ("SYNTHESIS", "99MEDGAN") in codes or NOT_FOR_DIAGNOSIS in told


def synthesizers(dataset: Dataset) -> list[Dataset]:
    """Items of ContributingEquipmentSequence that name what made a synthetic image."""
    return [
        item
        for item in items(dataset, "ContributingEquipmentSequence")
        if any(text(code, "CodeValue") == "109100" for code in items(item, "PurposeOfReferenceCodeSequence"))
    ]


def open_image(path: Path) -> Image | None:
    """Read a file whole; None if it is not DICOM, or is a DICOMDIR."""
    with quietly():
        try:
            with path.open("rb") as file:
                start = file.read(132)
            if not looks_like_dicom(start):
                return None
            dataset = open_dicom(path, pixels=True)
        except OSError as error:
            return Image(path, Dataset(), broken=f"cannot be read ({error.strerror or error})")
        except DAMAGE as error:
            return Image(path, Dataset(), broken=f"its header is damaged ({type(error).__name__})")
        if "SOPClassUID" in dataset or "Modality" in dataset:
            return _image(path, dataset)
        is_cut = start[128:] == b"DICM" and "DirectoryRecordSequence" not in dataset
        return Image(path, Dataset(), broken="its header is cut off") if is_cut else None


def _image(path: Path, dataset: Dataset) -> Image:
    damaged = (*_drop_damaged(dataset.file_meta), *_drop_damaged(dataset))
    pixels = _pixels(dataset)
    iod = iod_of(text(dataset, "SOPClassUID"))
    missing = tuple(dict.fromkeys(lacks(dataset, iod))) if iod else ()
    extras, creators = tuple(_extras(dataset, iod)) if iod else (), tuple(_creators(dataset))
    for key in _PIXELS:
        dataset.pop(key, None)
    return Image(
        path, dataset, pixels, damaged, dataset.file_meta, _values(dataset, pixels), "", missing, extras, creators
    )


def _values(dataset: Dataset, pixels: Pixels) -> tuple[float, float] | None:
    is_grey = text(dataset, "PhotometricInterpretation").startswith("MONOCHROME")
    if pixels.low is None or pixels.high is None or not is_grey or _OTHER_RESCALES & set(dataset.dir("Sequence")):
        return None
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept") or 0.0
    ends = [(1.0 if slope is None else slope) * end + intercept for end in (pixels.low, pixels.high)]
    return min(ends), max(ends)


def _extras(dataset: Dataset, iod: Iod) -> Iterator[str]:
    """Overlays and curves have a group each; what the dictionary does not know has no keyword."""
    for element in dataset:
        is_judged = element.keyword and element.tag.group not in _REPEATING_GROUPS and element.tag.element
        if is_judged and not element.is_empty and not iod.knows(element.keyword):
            yield element.keyword


def _creators(dataset: Dataset) -> Iterator[str]:
    """Blocks of each odd group; a group that names nobody counts as one block of nobody."""
    private = [element for element in dataset if element.tag.is_private]
    for group in sorted({element.tag.group for element in private}):
        named = [one.value for one in private if one.tag.group == group and one.tag.is_private_creator]
        yield from (str(name or "") for name in named or [""])


def _drop_damaged(dataset: Dataset) -> Iterator[str]:
    """pydicom decodes an element when it is first looked at, so all of it is looked at here."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
            inner = [one for item in element.value for one in item.iterall()] if element.VR == "SQ" else []
            is_damaged = any(_is_of_another_kind(one) for one in (element, *inner))
        except (*DAMAGE, OSError):
            is_damaged = True
        if is_damaged:
            del dataset[tag]
            yield str(tag)


def _is_of_another_kind(element: DataElement) -> bool:
    """True if what should be items, bytes, or text and numbers was stored as another of these three."""
    if not element.keyword or element.tag.is_private:
        return False
    accepted = dictionary_VR(element.tag)
    if "SQ" in (accepted, element.VR):
        return accepted != element.VR
    is_bytes = all(vr.startswith("O") for vr in accepted.split(" or "))
    return is_bytes and not isinstance(element.value, (bytes, bytearray, type(None)))


# --- pixels -----------------------------------------------------------------------------------------------------------


def _pixels(dataset: Dataset) -> Pixels:
    held = next((key for key in _PIXELS if key in dataset), "")
    if not held:
        return Pixels()
    is_plain = _syntax(dataset) in _PLAIN
    needed = _needed_bytes(dataset)
    facts = Pixels(num_bytes=len(stored_bytes(dataset, held)) if is_plain else None, needed_bytes=needed)
    if is_plain and (facts.num_bytes or 0) < needed:
        return facts
    try:
        check_frames(dataset)
        array = pixel_array(dataset, raw=True, decoding_plugin=_plugin(dataset))
    except (*DAMAGE, MemoryError, RuntimeError) as error:
        return replace(facts, undecodable=type(error).__name__)
    return _measured(dataset, array, facts)


def _syntax(dataset: Dataset) -> str:
    return text(dataset.file_meta, "TransferSyntaxUID")


def _plugin(dataset: Dataset) -> str:
    """Decoders that raise on damaged data; others that may be installed (GDCM, pylibjpeg-rle) end the program."""
    syntax = _syntax(dataset)
    return "" if syntax in _PLAIN else "pydicom" if syntax == RLELossless else "pylibjpeg"


def _measured(dataset: Dataset, array: npt.NDArray[Any], facts: Pixels) -> Pixels:
    padding = number(dataset, "PixelPaddingValue")
    return replace(
        facts,
        low=float(array.min()),
        high=float(array.max()),
        num_padding=0 if padding is None else int(np.count_nonzero(array == padding)),
        beyond_bits=_beyond_bits(dataset) if facts.num_bytes is not None else 0,
    )


def _needed_bytes(dataset: Dataset) -> int:
    keys = ("NumberOfFrames", "SamplesPerPixel", "Rows", "Columns")
    counts = [max(1, int(number(dataset, key) or 1)) for key in keys]
    num_bits = math.prod(counts) * int(number(dataset, "BitsAllocated") or 8)
    if text(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        num_bits = num_bits * 2 // 3
    return (num_bits + 7) // 8


def _beyond_bits(dataset: Dataset) -> int:
    """How many pixels have bits above BitsStored that are neither 0 nor repeat the sign."""
    bits = number(dataset, "BitsStored")
    if number(dataset, "BitsAllocated") != 16 or bits is None or not 0 < bits < 16:
        return 0
    order = ">" if _syntax(dataset) == ExplicitVRBigEndian else "<"
    content = stored_bytes(dataset, "PixelData")[: _needed_bytes(dataset) // 2 * 2]
    above = np.frombuffer(content, f"{order}u2") >> int(bits)
    sign = 0xFFFF >> int(bits) if number(dataset, "PixelRepresentation") == 1 else 0
    return int(np.count_nonzero((above != 0) & (above != sign)))
