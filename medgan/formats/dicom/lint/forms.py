"""Rules on the form of values: whether they are what their VR and VM say.

Source: PS3.5 section 6.2 (value representations), 9.1 (UIDs); PS3.6 (VR and VM of each attribute).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.valuerep import validate_value

from medgan.formats.dicom.lint.complaint import Checks
from medgan.formats.dicom.lint.image import Image

__all__ = ["CHECKS"]

_FORMS = {
    "AE": "at most 16 characters",
    "AS": "three digits and one of D, W, M, Y",
    "CS": "at most 16 of capitals, digits, space and underscore",
    "DA": "a date as YYYYMMDD",
    "DS": "a number of at most 16 characters",
    "DT": "a moment as YYYYMMDDHHMMSS",
    "IS": "a whole number of at most 12 characters",
    "LO": "at most 64 characters",
    "PN": "at most 64 characters in each of at most three groups",
    "SH": "at most 16 characters",
    "ST": "at most 1024 characters",
    "TM": "a time as HHMMSS",
    "UI": "at most 64 digits and dots, no part of which starts with 0",
}


def uid_form(image: Image) -> Iterator[str]:
    """A UID that is none."""
    yield from _misformed(image.dataset, {"UI"})


def value_form(image: Image) -> Iterator[str]:
    """A value that is not in the form of its VR."""
    yield from _misformed(image.dataset, {*_FORMS} - {"UI"})


def value_count(image: Image) -> Iterator[str]:
    """More or fewer values than the attribute takes."""
    for element in _standard(image.dataset):
        accepted = dictionary_VM(element.tag)
        if element.VR != "SQ" and element.VM and not _is_count(element.VM, accepted):
            yield f"{element.keyword} has {element.VM} values; it takes {accepted}"


def value_representation(image: Image) -> Iterator[str]:
    """An attribute stored with another VR than it has."""
    for element in _standard(image.dataset):
        accepted = dictionary_VR(element.tag)
        if element.VR not in {*accepted.split(" or "), "UN"}:
            yield f"{element.keyword} is stored as {element.VR}; it is {accepted}"


CHECKS: Checks = {"error": (uid_form,), "warning": (value_form, value_count, value_representation)}


def _misformed(dataset: Dataset, vrs: set[str]) -> Iterator[str]:
    for element in _standard(dataset):
        if element.VR in vrs and not all(_is_in_form(element.VR, one) for one in _parts(element)):
            yield f"{element.keyword} is no valid {element.VR}: {_FORMS[element.VR]}"


def _standard(dataset: Dataset) -> Iterator[DataElement]:
    """Elements at all levels that the dictionary knows by a keyword of their own."""
    return (element for element in dataset.iterall() if element.keyword and not element.tag.is_private)


def _parts(element: DataElement) -> list[Any]:
    return list(element.value) if element.VM > 1 else [element.value]


def _is_in_form(vr: str, value: Any) -> bool:
    written = getattr(value, "original_string", None)
    try:
        validate_value(vr, str(value if written is None else written).strip(" \0") if value is not None else "", RAISE)
    except ValueError:
        return False
    return True


def _is_count(count: int, accepted: str) -> bool:
    """True if a number of values is one that a VM such as 1, 2-n, 3-3n or 1-8 allows."""
    low, _, high = accepted.partition("-")
    if not high:
        return count == int(low)
    step = int(high.removesuffix("n") or 1)
    if high.endswith("n"):
        return count >= int(low) and count % step == 0
    return int(low) <= count <= int(high)
