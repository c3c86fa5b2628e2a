"""Rules of the standard on one file: attributes that its class demands, its identity, its modality.

Source: PS3.3 Annex A and C, PS3.10 section 7.1 (file meta information).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from pydicom import Dataset

from medgan.formats.dicom.elements import number, text
from medgan.formats.dicom.lint.complaint import Checks
from medgan.formats.dicom.lint.image import SCANNER_CLASSES, Image, claimed_scanner, items
from medgan.formats.dicom.lint.iod import Lack, attributes_of, iod_of

__all__ = ["CHECKS"]

_ACCEPTED_MODALITIES = {
    "computed-radiography-image": {"CR"},
    "ct-image": {"CT"},
    "digital-intra-oral-x-ray-image": {"IO"},
    "digital-mammography-x-ray-image": {"MG"},
    "digital-x-ray-image": {"DX", "PX"},
    "enhanced-ct-image": {"CT"},
    "enhanced-mr-color-image": {"MR"},
    "enhanced-mr-image": {"MR"},
    "enhanced-pet-image": {"PT"},
    "legacy-converted-enhanced-ct-image": {"CT"},
    "legacy-converted-enhanced-mr-image": {"MR"},
    "legacy-converted-enhanced-pet-image": {"PT"},
    "mr-image": {"MR"},
    "nuclear-medicine-image": {"NM"},
    "positron-emission-tomography-image": {"PT"},
    "rt-dose": {"RTDOSE"},
    "rt-image": {"RTIMAGE"},
    "rt-plan": {"RTPLAN"},
    "rt-structure-set": {"RTSTRUCT"},
    "segmentation": {"SEG"},
    "ultrasound-image": {"IVUS", "US"},
    "ultrasound-multi-frame-image": {"IVUS", "US"},
    "x-ray-angiographic-image": {"XA"},
    "x-ray-radiofluoroscopic-image": {"RF"},
}
_ENHANCED = ("enhanced-ct-image", "enhanced-mr-image", "enhanced-pet-image")
_GROUPS = ("FrameContentSequence", "PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence")
_PER_FRAME = "PerFrameFunctionalGroupsSequence"
# Modules that tell how a kind of scanner makes an image.
_SCANNERS = {"CT": ("ct-image",), "MR": ("mr-image",), "PT": ("pet-series", "pet-isotope", "pet-image")}
_RESCALE = {"RescaleIntercept", "RescaleSlope", "RescaleType"}  # many MR files carry them, though MR does not list them
_NAMED_IN_CREATOR = re.compile(r"(?<![A-Z0-9])(MR|CT|PT|PET)[0-9]?(?![A-Z0-9])")


def damaged_file(image: Image) -> Iterator[str]:
    """A file that cannot be parsed."""
    if image.broken:
        yield f"{image.broken}; copy it again"


def damaged_value(image: Image) -> Iterator[str]:
    """An attribute that cannot be decoded, or whose value is of another kind than it should be."""
    for tag in image.damaged:
        yield f"{tag} cannot be decoded"


def unknown_class(image: Image) -> Iterator[str]:
    """A class that is retired, private or newer than the table: its attributes are not judged."""
    if not image.broken and iod_of(text(image.dataset, "SOPClassUID")) is None:
        yield "the attributes of its SOP class are not judged: it is retired, private or unknown to the table"


def type_1_absent(image: Image) -> Iterator[str]:
    """An attribute of type 1 that is not there."""
    yield from (_absent(lack) for lack in image.lacks if lack.kind == "1" and not (lack.module or lack.is_empty))


def type_1_empty(image: Image) -> Iterator[str]:
    """An attribute of type 1 without a value."""
    yield from (_absent(lack) for lack in image.lacks if lack.kind == "1" and lack.is_empty and not lack.module)


def type_2_absent(image: Image) -> Iterator[str]:
    """An attribute of type 2 that is not there."""
    yield from (_absent(lack) for lack in image.lacks if lack.kind == "2" and not lack.module)


def conditional_absent(image: Image) -> Iterator[str]:
    """An attribute of type 1C or 2C that is not there, or of 1C empty, though its condition holds."""
    yield from (_absent(lack) for lack in image.lacks if lack.kind in {"1C", "2C"} and not lack.module)


def incomplete_module(image: Image) -> Iterator[str]:
    """An optional module of which something is there, and something that it demands is not."""
    for lack in image.lacks:
        if lack.module:
            yield f"{_absent(lack)} of the module {lack.module.replace('-', ' ')}, which is in use"


def extra_attributes(image: Image) -> Iterator[str]:
    """Attributes that the class does not list; allowed, as a standard extended SOP class."""
    own = [key for key in image.extras if key not in _foreign(image)]
    if own:
        yield f"its class does not list {', '.join(sorted(own))}"


def foreign_attributes(image: Image) -> Iterator[str]:
    """Attributes that tell how a scanner of another kind makes an image, such as EchoTime in a CT."""
    found = sorted(_foreign(image))
    if found:
        yield f"a file of this class states what belongs to another kind of scanner: {', '.join(found)}"


def foreign_private_group(image: Image) -> Iterator[str]:
    """Private attributes of a scanner of another kind, such as SIEMENS MR HEADER in a CT."""
    own = claimed_scanner(image.dataset)
    if not own:
        return
    for creator in sorted({*image.creators}):
        named = {kind.replace("PET", "PT") for kind in _NAMED_IN_CREATOR.findall(creator.upper().replace("_", " "))}
        if named and own not in named:
            yield f"a {own} file holds private attributes of {creator!r}; leave them out of what is not that scanner's"


def modality_of_class(image: Image) -> Iterator[str]:
    """Modality and SOP class that do not fit one another."""
    accepted = _ACCEPTED_MODALITIES.get(_name(image), set())
    modality = text(image.dataset, "Modality")
    if accepted and modality and modality not in accepted:
        yield f"Modality is {modality!r}, but the SOP class is that of {' or '.join(sorted(accepted))}"


def frame_count(image: Image) -> Iterator[str]:
    """Not one item of PerFrameFunctionalGroupsSequence a frame."""
    frames, count = items(image.dataset, _PER_FRAME), number(image.dataset, "NumberOfFrames") or 1
    if frames and len(frames) != count:
        yield f"{_PER_FRAME} has {len(frames)} items, NumberOfFrames is {count:g}"


def functional_group_absent(image: Image) -> Iterator[str]:
    """A frame of an enhanced CT, MR or PET as a scanner made it, whose place or number is not told."""
    parts = text(image.dataset, "ImageType").split("\\")
    if _name(image) not in _ENHANCED or parts[0] not in {"ORIGINAL", "MIXED"}:
        return
    frames, shared = items(image.dataset, _PER_FRAME), items(image.dataset, "SharedFunctionalGroupsSequence")
    for group in _GROUPS:
        if not any(items(one, group) for one in shared) and not all(items(one, group) for one in frames or [Dataset()]):
            yield f"{group} is neither shared nor in every frame"


def file_meta(image: Image) -> Iterator[str]:
    """File meta information that names another object than the file holds."""
    for key in ("SOPClassUID", "SOPInstanceUID"):
        named, held = text(image.meta, f"MediaStorage{key}"), text(image.dataset, key)
        if named and named != held:
            yield f"MediaStorage{key} is not the {key} of the file"


def no_file_meta(image: Image) -> Iterator[str]:
    """No preamble and meta information: a data set as it goes over a network, not a DICOM file."""
    if not image.broken and not text(image.meta, "MediaStorageSOPInstanceUID"):
        yield "has no file meta information that names its object; a DICOM file starts with one"


CHECKS: Checks = {
    "error": (
        damaged_file,
        damaged_value,
        type_1_absent,
        type_1_empty,
        type_2_absent,
        conditional_absent,
        modality_of_class,
        frame_count,
        functional_group_absent,
        file_meta,
    ),
    "warning": (incomplete_module, foreign_attributes, foreign_private_group, no_file_meta),
    "note": (unknown_class, extra_attributes),
}


def _name(image: Image) -> str:
    """What the table calls the class, "" if it does not know it."""
    iod = iod_of(text(image.dataset, "SOPClassUID"))
    return iod.name if iod else ""


def _absent(lack: Lack) -> str:
    return f"{' > '.join(lack.path)} {'is empty' if lack.is_empty else 'is absent'}: type {lack.kind}"


def _foreign(image: Image) -> set[str]:
    own = claimed_scanner(image.dataset)
    others = _foreign_to(own) if own else frozenset()
    return {key for key in others if key in image.dataset and not image.dataset[key].is_empty}


@cache
def _foreign_to(scanner: str) -> frozenset[str]:
    """What the modules of the other scanners list, and the class of this one does not."""
    iod = iod_of(SCANNER_CLASSES[scanner])
    told = {key for kind in _SCANNERS.keys() - {scanner} for module in _SCANNERS[kind] for key in attributes_of(module)}
    return frozenset(key for key in told - _RESCALE if iod is not None and not iod.knows(key))
