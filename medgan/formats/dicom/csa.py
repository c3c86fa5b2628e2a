"""The header inside the header of Siemens' classic files (CSA): a table of named texts in a private attribute."""

from __future__ import annotations

import struct
from typing import Literal

from pydicom import Dataset

from medgan.formats.dicom.private import Block, private_bytes

__all__ = ["csa", "csa_of_bytes"]

_BLOCK = Block("SIEMENS", 0x0029, "SIEMENS CSA HEADER")
_OFFSETS = {"image": 0x10, "series": 0x20}
_MAGIC = b"SV10"
_NAME = 64
_TAG = struct.Struct(f"<{_NAME}si4s3i")  # name, multiplicity, kind of value, its number, number of items, a check value
_ITEM = struct.Struct("<4i")
_CHECKS = {77, 205}
_MOST_TAGS = 4096


def csa(dataset: Dataset, which: Literal["image", "series"] = "image") -> dict[str, list[str]]:
    """The entries of a file's CSA header: their names, and their texts without empty ones.

    Entries such as `NumberOfImagesInMosaic`, `SliceNormalVector`, `MosaicRefAcqTimes`, `B_value`,
    `DiffusionGradientDirection`. A header that is absent or damaged gives what could be read up to the damage, which
    may be nothing; it raises nothing.

    Args:
        dataset: of one file.
        which: the header of the image, or that of its series.
    """
    return csa_of_bytes(private_bytes(dataset, _BLOCK, _OFFSETS[which]))


def csa_of_bytes(content: bytes) -> dict[str, list[str]]:
    """As `csa`, of the bytes of the attribute."""
    try:
        return _entries(content)
    except struct.error:
        return {}


def _entries(content: bytes) -> dict[str, list[str]]:
    is_new = content[:4] == _MAGIC  # since software VB13; files before it start with the number of tags
    count, check = struct.unpack_from("<2i", content, 8 if is_new else 0)
    if check not in _CHECKS or not 0 < count <= _MOST_TAGS:
        return {}
    place, base, entries = 16 if is_new else 8, 0, dict[str, list[str]]()
    for number in range(count):
        try:
            name, multiplicity, _, _, num_items, check = _TAG.unpack_from(content, place)
            if check not in _CHECKS or num_items < 0:
                break
            base = num_items if number == 0 else base
            items, place = _items(content, place + _TAG.size, num_items, -1 if is_new else base)
        except (struct.error, ValueError):
            break
        entries[_text(name)] = [item for item in items[: multiplicity or None] if item]
    return entries


def _items(content: bytes, place: int, count: int, base: int) -> tuple[list[str], int]:
    """The texts of one entry and where the next entry starts.

    The length of a text is the second number before it; in the old form the first one, less the number of items that
    the first entry of the table has.
    """
    items = []
    for _ in range(count):
        first, second, _, _ = _ITEM.unpack_from(content, place)
        place += _ITEM.size
        length = second if base < 0 else first - base
        if length < 0 or place + length > len(content):
            if base >= 0:  # the old form ends an entry so, where items are not used
                break
            raise ValueError("an item is longer than the header")
        items.append(_text(content[place : place + length]))
        place += -(-length // 4) * 4
    return items, place


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("latin-1").strip()
