"""The attributes of a dataset as text, at every depth, whatever state they are in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from medgan.formats.dicom.elements import DAMAGE

__all__ = ["TEXT_VRS", "Leaf", "leaves", "leaves_of", "vr_of"]

TEXT_VRS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
_ASCII_VRS = {"AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"}
_LONGEST_UNKNOWN = 1024


@dataclass(frozen=True)
class Leaf:
    """An attribute that is no sequence, and the dataset that it stands in.

    Args:
        owner: the dataset, or the item of a sequence.
        tag: of the attribute.
        vr: its value representation, that of the standard where the file names none.
        texts: its values, if they are text, trimmed; empty ones are left out.
    """

    owner: Dataset
    tag: BaseTag
    vr: str
    texts: tuple[str, ...]


def leaves(dataset: Dataset) -> Iterator[Leaf]:
    """Every attribute of a dataset and of the items in it."""
    for tag in list(dataset.keys()):
        yield from leaves_of(dataset, tag)


def leaves_of(dataset: Dataset, tag: BaseTag) -> Iterator[Leaf]:
    """One attribute, or if it is a sequence those of its items."""
    vr = vr_of(dataset, tag)
    if vr != "SQ":
        yield Leaf(dataset, tag, vr, tuple(_texts(dataset, tag, vr)))
        return
    items = _element(dataset, tag)
    for item in items.value if isinstance(items, DataElement) and isinstance(items.value, Sequence) else ():
        yield from leaves(item)


def vr_of(dataset: Dataset, tag: BaseTag) -> str:
    """The value representation of an attribute, UN if nobody knows it."""
    element: Any = dataset.get_item(tag)
    if element is not None and element.VR and element.VR != "UN":
        return str(element.VR)
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _texts(dataset: Dataset, tag: BaseTag, vr: str) -> Iterator[str]:
    if vr not in TEXT_VRS and vr != "UN":
        return
    raw: Any = dataset.get_item(tag)
    element = raw if isinstance(raw, RawDataElement) and vr in _ASCII_VRS else _element(dataset, tag)
    value: Any = element.value if element is not None else None
    for part in value if isinstance(value, (MultiValue, list, tuple)) else [value]:
        yield from (text for one in _text(part, vr).split("\\") if (text := one.strip(" \0\r\n\t")))


def _text(part: Any, vr: str) -> str:
    if not isinstance(part, bytes):
        return "" if part is None else str(part)
    if vr == "UN" and (len(part) > _LONGEST_UNKNOWN or not part.rstrip(b"\0").decode("latin-1").isprintable()):
        return ""
    return part.decode("latin-1")


def _element(dataset: Dataset, tag: BaseTag) -> DataElement | RawDataElement | None:
    """Decoded, or as it stands in the file if it cannot be."""
    try:
        return dataset[tag]
    except DAMAGE:
        return dataset.get_item(tag)
