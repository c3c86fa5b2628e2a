"""Private attributes, looked up by their creator: the number of a private block may change on the way of a file.

Some programs that remove identities drop the creators and keep the attributes. In a group that names no creator at all
the block is taken to be the first, as scanners number it, if the file still names the vendor.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.tag import Tag

from medgan.formats.dicom.elements import DAMAGE, text

__all__ = ["Block", "private_bytes", "private_items", "private_numbers"]

_FIRST_BLOCK = 0x10
_FORMATS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "UL": "I", "US": "H"}


@dataclass(frozen=True)
class Block:
    """A block of private attributes.

    Args:
        vendor: what Manufacturer starts with, in capitals.
        group: an odd number.
        creator: the name that reserves the block.
    """

    vendor: str
    group: int
    creator: str


def private_numbers(dataset: Dataset, block: Block, offset: int, vr: str) -> tuple[float, ...]:
    """The numbers of a private attribute; none where it is absent, or holds something else.

    Args:
        dataset: a file, or an item of a sequence.
        block: where the attribute lies.
        offset: its last two digits.
        vr: how its bytes are to be read where the file does not say: `DS` or `IS` for text, `FD`, `FL`, `SL`, `US`, …
    """
    try:
        element = _element(dataset, block, offset)
        return () if element is None else _numbers(element.value, vr, _order(dataset))
    except DAMAGE:
        return ()


def private_bytes(dataset: Dataset, block: Block, offset: int) -> bytes:
    """The bytes of a private attribute; none where it is absent, or was read as something else."""
    try:
        element = _element(dataset, block, offset)
        return element.value if element is not None and isinstance(element.value, bytes) else b""
    except DAMAGE:
        return b""


def private_items(dataset: Dataset, block: Block, offset: int) -> list[Dataset]:
    """The items of a private sequence; none where it is absent, or was read as something else."""
    try:
        element = _element(dataset, block, offset)
        return list(element.value) if element is not None and element.VR == "SQ" else []
    except DAMAGE:
        return []


def _element(dataset: Dataset, block: Block, offset: int) -> DataElement | None:
    number = _number(dataset, block)
    tag = Tag(block.group, (number << 8) + offset)
    return dataset[tag] if number and tag in dataset else None


def _number(dataset: Dataset, block: Block) -> int:
    """The number under which a block lies in this dataset, 0 where it lies in none."""
    tags = list(dataset.keys())
    named = {tag.element: dataset[tag].value for tag in tags if tag.group == block.group and tag.element < 0x100}
    for number, creator in named.items():
        if _trimmed(creator) == block.creator:
            return int(number)
    is_vendor = text(dataset, "Manufacturer").upper().startswith(block.vendor)
    return _FIRST_BLOCK if not named and is_vendor else 0


def _trimmed(creator: Any) -> str:
    name = creator.decode("ascii", "replace") if isinstance(creator, bytes) else str(creator)
    return name.strip(" \0")


def _order(dataset: Dataset) -> str:
    return ">" if dataset.original_encoding[1] is False else "<"


def _numbers(value: Any, vr: str, order: str) -> tuple[float, ...]:
    if isinstance(value, bytes) and vr in _FORMATS:
        letter = _FORMATS[vr]
        whole = len(value) // struct.calcsize(letter) * struct.calcsize(letter)
        return tuple(float(number) for (number,) in struct.iter_unpack(f"{order}{letter}", value[:whole]))
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        value = [part for part in value.replace("\0", " ").split("\\") if part.strip()]
    parts = value if hasattr(value, "__iter__") else [value]
    return tuple(float(part) for part in parts if part is not None and part != "")
