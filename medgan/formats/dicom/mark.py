"""The marks by which a DICOM file says that it is synthetic, and what made it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom import Dataset

from medgan.errors import DicomError, InputError
from medgan.formats.dicom.attributes import EQUIPMENT
from medgan.formats.dicom.elements import DAMAGE, open_dicom, quietly, text
from medgan.formats.sidecar import sampling_from_json, sampling_to_json
from medgan.volume import Synthesis

__all__ = [
    "NOT_FOR_DIAGNOSIS",
    "acquisition_item",
    "code",
    "is_acquisition",
    "missing_marks",
    "sampling_remark",
    "synthesis_of",
    "synthesizing_item",
    "unit_of",
    "unit_remark",
]

NOT_FOR_DIAGNOSIS = "synthetic, not for diagnostic use"
_SYNTHESIZING, _ACQUISITION = "109100", "109101"
_LONGEST = 1024  # of a value of DICOM's short text
_SAMPLED = "sampled "
_WEIGHTS = re.compile(r"weights sha256 ([0-9a-f]{64})")
_QUANTITY = re.compile(r"values are the ([a-z ]+)(?:; |$)")
_UNIT = re.compile(r" with medgan \S+; values in unit (\w+)")


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """The item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def synthesizing_item(synthesis: Synthesis, now: datetime) -> Dataset:
    """The item of ContributingEquipmentSequence that names what made a synthetic image."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code(_SYNTHESIZING, "DCM", "Synthesizing Equipment")]
    item.Manufacturer = "medgan"
    item.ManufacturerModelName = synthesis.model[:64]
    if synthesis.version:
        item.SoftwareVersions = synthesis.version[:64]
    item.ContributionDateTime = now.strftime("%Y%m%d%H%M%S")
    weights = f"weights sha256 {synthesis.weights_sha256}" if synthesis.weights_sha256 else ""
    quantity = f"values are the {synthesis.quantity}" if synthesis.quantity else ""
    told = (weights, quantity, _sampled(synthesis), synthesis.description)
    item.ContributionDescription = "; ".join(part for part in told if part)[:_LONGEST]
    return item


def _sampled(synthesis: Synthesis) -> str:
    """What the image was drawn with, for programs; what does not fit must not be cut."""
    fields = sampling_to_json(synthesis)
    told = f"{_SAMPLED}{json.dumps(fields)}" if fields else ""
    if len(told) > _LONGEST // 2:
        raise InputError(
            f"conditions of {len(told)} letters are too long for DICOM, which takes {_LONGEST // 2}; shorten the names"
        )
    return told


def sampling_remark(synthesis: Synthesis | None) -> str:
    """What an image was drawn with, for people; "" for an image that was not drawn.

    Example:
        >>> sampling_remark(Synthesis("dcgan", seed=7, number=3, conditions={"class": "glioma"}, truncation=0.7))
        'seed 7, image 3, class glioma, truncation 0.7'
    """
    if synthesis is None or not sampling_to_json(synthesis):
        return ""
    drawn = {"seed": synthesis.seed, "image": synthesis.number, **synthesis.conditions}
    named = {**drawn, "truncation": synthesis.truncation, "weights sha256": synthesis.weights_sha256 or None}
    return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)


def acquisition_item(source: Dataset) -> Dataset:
    """The item of ContributingEquipmentSequence that names the scanner of the source image."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code(_ACQUISITION, "DCM", "Acquisition Equipment")]
    item.Manufacturer = text(source, "Manufacturer") or "unknown"
    for key in EQUIPMENT:
        if text(source, key):
            item[key] = source[key]
    return item


def is_acquisition(item: Dataset) -> bool:
    """True if an item of ContributingEquipmentSequence names a scanner."""
    return _purpose(item) == _ACQUISITION


def synthesis_of(dataset: Dataset) -> Synthesis | None:
    """What made the image of a file that says that it is synthetic; None where it does not say so."""
    if text(dataset, "SyntheticData") != "YES":
        return None
    items = [item for item in dataset.get("ContributingEquipmentSequence") or [] if _purpose(item) == _SYNTHESIZING]
    if not items:
        return Synthesis(model="unknown")
    described = text(items[-1], "ContributionDescription")
    weights = _WEIGHTS.match(described)
    rest = _WEIGHTS.sub("", described, count=1).removeprefix("; ") if weights else described
    quantity = _QUANTITY.match(rest)
    sampled, description = _split_sampled(rest[quantity.end() :] if quantity else rest)
    return Synthesis(
        model=text(items[-1], "ManufacturerModelName") or "unknown",
        weights_sha256=weights.group(1) if weights else "",
        version=text(items[-1], "SoftwareVersions"),
        description=description,
        quantity=quantity.group(1) if quantity else "",
        **sampling_from_json(sampled),
    )


def _split_sampled(described: str) -> tuple[dict[str, Any], str]:
    """What the image was drawn with, and what follows."""
    if not described.startswith(f"{_SAMPLED}{{"):
        return {}, described
    start = len(_SAMPLED)
    try:
        fields, end = json.JSONDecoder().raw_decode(described[start:])
    except (ValueError, RecursionError):
        return {}, described
    return fields, described[start + end :].removeprefix("; ")


def missing_marks(path: Path) -> tuple[str, ...]:
    """Which of the marks of a synthetic image a file lacks; none if it has them all.

    Raises:
        DicomError: if its header is damaged.
    """
    try:
        with quietly():
            return _missing(open_dicom(path, pixels=False))
    except (*DAMAGE, OSError) as error:
        raise DicomError(f"{path}: its header is damaged ({type(error).__name__}); copy it again") from error


def _missing(dataset: Dataset) -> tuple[str, ...]:
    items = dataset.get("ContributingEquipmentSequence") or []
    lacks = {
        "SyntheticData YES": text(dataset, "SyntheticData") != "YES",
        "Synthesizing Equipment": not any(_purpose(item) == _SYNTHESIZING for item in items),
        "ImageType DERIVED": not text(dataset, "ImageType").startswith("DERIVED"),
    }
    return tuple(what for what, is_missing in lacks.items() if is_missing)


def unit_remark(unit: str) -> str:
    """What DerivationDescription says of a unit that DICOM has no attribute for; "" where it has one."""
    return f"values in unit {unit}" if unit == "normalised" else ""


def unit_of(dataset: Dataset) -> str | None:
    """The unit that `unit_remark` recorded, in files that medgan has derived."""
    recorded = _UNIT.search(text(dataset, "DerivationDescription"))
    return recorded.group(1) if recorded else None


def _purpose(item: Dataset) -> str:
    codes = item.get("PurposeOfReferenceCodeSequence") or [Dataset()]
    return text(codes[0], "CodeValue")
