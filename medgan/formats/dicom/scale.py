"""From stored integers to values in a unit: slope, intercept and what a value of 1 means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydicom import Dataset

from medgan.errors import DicomError
from medgan.formats.dicom.elements import number, text
from medgan.formats.dicom.mark import unit_of
from medgan.formats.dicom.private import Block, private_numbers
from medgan.formats.dicom.suv import suv_factor

__all__ = ["SCALE_KEYS", "SCALINGS", "Scale", "Scaling", "scale_of"]

Scaling = Literal["stated", "philips", "suv"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
SCALE_KEYS = (
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "DoseGridScaling",
    "DoseUnits",
    "Units",
    "DerivationDescription",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
_PHILIPS = Block("PHILIPS", 0x2005, "Philips MR Imaging DD 001")
_SCALE_SLOPE = 0x0E


@dataclass(frozen=True)
class Scale:
    """value = stored * slope + intercept, in the unit."""

    slope: float
    intercept: float
    unit: str
    padding: tuple[int, int] | None = None  # stored values that stand for no measurement

    @property
    def padding_values(self) -> tuple[float, float] | None:
        """The same in the unit, lowest first."""
        if self.padding is None:
            return None
        low, high = sorted(stored * self.slope + self.intercept for stored in self.padding)
        return low, high

    @property
    def is_one(self) -> bool:
        """True if the stored integers are the values."""
        return (self.slope, self.intercept) == (1.0, 0.0)


def scale_of(dataset: Dataset, name: str, scaling: Scaling = "stated") -> Scale:
    """How the stored integers of a picture become values.

    Args:
        dataset: the header of one picture.
        name: of its file, for messages.
        scaling: `stated` is RescaleSlope and RescaleIntercept, Philips' displayed values among them. `philips` gives
            Philips MR's floating-point values, which are comparable between scans: displayed / (slope · scale slope).
            `suv` gives PET as standardised uptake by body weight.

    Raises:
        DicomError: if the header has a table instead of a slope, a slope of 0, or not what the scaling needs.
    """
    stated = _stated(dataset, name)
    if scaling == "philips":
        return _philips(dataset, stated, name)
    if scaling == "suv":
        factor = suv_factor(dataset, name)
        return Scale(stated.slope * factor, stated.intercept * factor, "SUV", stated.padding)
    return stated


def _stated(dataset: Dataset, name: str) -> Scale:
    if "ModalityLUTSequence" in dataset:
        raise DicomError(f"{name}: maps its values by a table (ModalityLUTSequence); accepted is slope and intercept")
    key = "DoseGridScaling" if text(dataset, "Modality") == "RTDOSE" else "RescaleSlope"
    slope, intercept = _finite(dataset, key, name), _finite(dataset, "RescaleIntercept", name)
    if slope == 0:
        raise DicomError(f"{name}: {key} is 0, which leaves no image; send the series again")
    return Scale(1.0 if slope is None else slope, intercept or 0.0, _unit(dataset), _padding(dataset))


def _finite(dataset: Dataset, key: str, name: str) -> float | None:
    value = number(dataset, key)
    if value is None and text(dataset, key):
        raise DicomError(f"{name}: {key} is no finite number, so its values are unsure; send the series again")
    return value


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """PixelPaddingValue, up to PixelPaddingRangeLimit if there is one; PS3.3 C.7.5.1.1.2."""
    ends = [_stored(dataset, key) for key in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    told = [end for end in ends if end is not None]
    return None if ends[0] is None else (min(told), max(told))


def _stored(dataset: Dataset, key: str) -> int | None:
    """A value of the pixels' own kind, whatever kind its element claims to be."""
    value: Any = dataset.get(key)
    signed, bits = number(dataset, "PixelRepresentation") == 1, int(number(dataset, "BitsAllocated") or 16)
    if isinstance(value, bytes) and value:
        value = int.from_bytes(value[: bits // 8], "little")
    if not isinstance(value, int):
        return None
    unsigned = value % (1 << bits)
    return unsigned - (1 << bits) if signed and unsigned >= 1 << (bits - 1) else unsigned


def _unit(dataset: Dataset) -> str:
    modality = text(dataset, "Modality")
    if modality == "CT" and "RescaleIntercept" in dataset and text(dataset, "RescaleType") in {"", "HU"}:
        return "HU"
    if modality == "RTDOSE" and text(dataset, "DoseUnits") == "GY":
        return "Gy"
    return "Bq/ml" if modality == "PT" and text(dataset, "Units") == "BQML" else unit_of(dataset) or "a.u."


def _philips(dataset: Dataset, stated: Scale, name: str) -> Scale:
    told = private_numbers(dataset, _PHILIPS, _SCALE_SLOPE, "FL")
    if len(told) != 1 or told[0] <= 0:
        raise DicomError(
            f"{name}: has no scale slope of Philips (2005,100E); only Philips MR has floating-point values"
        )
    return Scale(1 / told[0], stated.intercept / (stated.slope * told[0]), stated.unit, stated.padding)
