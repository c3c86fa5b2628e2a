"""The marks by which a DICOM file says that it is synthetic, and what made it."""

from __future__ import annotations

import re
from datetime import datetime

from pydicom import Dataset

from medgan.formats.dicom.attributes import EQUIPMENT
from medgan.formats.dicom.headers import text
from medgan.volume import Synthesis

__all__ = [
    "NOT_FOR_DIAGNOSIS",
    "acquisition_item",
    "code",
    "is_acquisition",
    "synthesis_of",
    "synthesizing_item",
    "unit_of",
    "unit_remark",
]

NOT_FOR_DIAGNOSIS = "synthetic, not for diagnostic use"
_SYNTHESIZING, _ACQUISITION = "109100", "109101"
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
    told = (weights, quantity, synthesis.description)
    item.ContributionDescription = "; ".join(part for part in told if part)[:1024]
    return item


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
    return Synthesis(
        model=text(items[-1], "ManufacturerModelName") or "unknown",
        weights_sha256=weights.group(1) if weights else "",
        version=text(items[-1], "SoftwareVersions"),
        description=rest[quantity.end() :] if quantity else rest,
        quantity=quantity.group(1) if quantity else "",
    )


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
