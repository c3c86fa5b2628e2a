"""One file becomes flat datasets, one a picture, each like the header of a classic single slice.

A classic file is one picture. An enhanced object keeps what its frames share in one place and what is a frame's own in
another (PS3.3 C.7.6.16): both are laid flat. An RT dose has one position and a list of offsets (PS3.3 C.8.8.3). A
mosaic is many slices tiled into one picture, see `medgan.formats.dicom.mosaic`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.tag import BaseTag, Tag

from medgan.formats.dicom.elements import number, numbers, whole
from medgan.formats.dicom.mosaic import Mosaic, mosaic_of

__all__ = ["Picture", "pictures"]

_SHARED, _OWN = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_PIXELS = Tag("PixelData")
# What an enhanced object calls differently from a classic one.
_CLASSIC = {
    "FrameType": "ImageType",
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
    "TemporalPositionIndex": "TemporalPositionIdentifier",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
    "FrameAcquisitionNumber": "AcquisitionNumber",
}
_CLASSIC_TAGS = {Tag(key): Tag(classic) for key, classic in _CLASSIC.items()}
# Groups that tell of other images, and what belongs to the file as a whole.
_FOREIGN = {
    Tag(key) for key in ("ReferencedImageSequence", "DerivationImageSequence", "ConversionSourceAttributesSequence")
}
_OF_FILE = {
    Tag(key)
    for key in (
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "PatientID",
        "Rows",
        "Columns",
    )
}


class Picture:
    """One picture of a file.

    Args:
        dataset: what holds for it, flat.
        frame: its number in the file, or in the mosaic, from 0.
        across: tiles in a row of the mosaic that it is cut from; 0 where it is none.
        standing_for: number of frames that this entry stands for, where their places are not told; else 1.
    """

    def __init__(self, dataset: Dataset, frame: int = 0, across: int = 0, standing_for: int = 1) -> None:
        self.dataset, self.frame, self.across, self.standing_for = dataset, frame, across, standing_for


def pictures(dataset: Dataset) -> Iterator[Picture]:
    """The pictures of a file, in the order in which it stores them.

    Raises:
        ValueError: if it describes another number of frames than it says it has.
    """
    count = whole(number(dataset, "NumberOfFrames")) or 1
    tiled = mosaic_of(dataset) if count == 1 else None
    if tiled is not None:
        yield from _tiles(dataset, tiled)
    elif _OWN in dataset:
        yield from _frames(dataset, count)
    elif count > 1 and "GridFrameOffsetVector" in dataset:
        yield from _layers(dataset, count)
    else:
        yield Picture(dataset, standing_for=count)


def _frames(dataset: Dataset, count: int) -> Iterator[Picture]:
    own = dataset[_OWN].value
    if len(own) != count:
        raise ValueError(f"{count} frames, but {len(own)} are described")
    common = {tag: element for tag, element in dataset.items() if _is_common(tag)}
    common |= _flat(next(iter(dataset.get(_SHARED) or []), Dataset()))
    for index, groups in enumerate(own):
        yield Picture(Dataset({**common, **_flat(groups)}), index)


def _is_common(tag: BaseTag) -> bool:
    return tag not in {Tag(_SHARED), Tag(_OWN), Tag("NumberOfFrames"), _PIXELS}


def _flat(groups: Dataset) -> dict[BaseTag, Any]:
    """The attributes in the items of functional groups, under their classic names too."""
    found: dict[BaseTag, Any] = {}
    known = [tag for tag in groups.keys() if not tag.is_private and tag not in _FOREIGN]  # noqa: SIM118
    for tag in known:
        element = groups[tag]
        items = element.value[0].items() if element.VR == "SQ" and element.value else ()
        found |= {inner: value for inner, value in items if inner not in _OF_FILE}
    for inner in set(found) & set(_CLASSIC_TAGS):
        renamed = Dataset({inner: found[inner]})[inner]
        found[_CLASSIC_TAGS[inner]] = DataElement(_CLASSIC_TAGS[inner], renamed.VR, renamed.value)
    return found | _private(groups)


def _private(groups: Dataset) -> dict[BaseTag, Any]:
    """A vendor's own attributes of a frame: loose ones, and those that Philips keeps as a classic header."""
    found = {tag: element for tag, element in groups.items() if tag.is_private}
    for tag in [tag for tag in found if groups[tag].VR == "SQ" and groups[tag].value]:
        item: Dataset = groups[tag].value[0]
        found |= {inner: element for inner, element in item.items() if inner.is_private}
    return found


def _layers(dataset: Dataset, count: int) -> Iterator[Picture]:
    """The planes of a dose: offsets are along the normal, from the stated position."""
    offsets, place = numbers(dataset, "GridFrameOffsetVector", count), numbers(dataset, "ImagePositionPatient", 3)
    directions = numbers(dataset, "ImageOrientationPatient", 6)
    if offsets is None or place is None or directions is None:
        raise ValueError("a dose without the places of its planes")
    normal = np.cross(directions[:3], directions[3:])
    common = {tag: element for tag, element in dataset.items() if tag != Tag("NumberOfFrames")}
    for index, offset in enumerate(offsets):
        yield Picture(_at(common, np.array(place) + normal * (offset - offsets[0])), index)


def _tiles(dataset: Dataset, tiled: Mosaic) -> Iterator[Picture]:
    common = dict(dataset.items())
    common[Tag("Rows")] = DataElement(Tag("Rows"), "US", tiled.rows)
    common[Tag("Columns")] = DataElement(Tag("Columns"), "US", tiled.columns)
    for index, place in enumerate(tiled.places):
        yield Picture(_at(common, place), index, tiled.across)


def _at(common: dict[BaseTag, Any], place: Any) -> Dataset:
    tag = Tag("ImagePositionPatient")
    return Dataset({**common, tag: DataElement(tag, "DS", [f"{value:.10g}" for value in place])})
