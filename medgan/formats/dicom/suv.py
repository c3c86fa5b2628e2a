"""Standardised uptake values of PET, by body weight.

SUV = activity concentration · body weight / dose that is left when the scan starts, with 1 ml of tissue taken as 1 g.

Source: QIBA FDG-PET/CT profile, vendor-neutral pseudo-code for SUV calculation; PS3.3 C.8.9.1 (PET Series).
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from pydicom import Dataset

from medgan.errors import DicomError
from medgan.formats.dicom.elements import number, text
from medgan.formats.dicom.private import Block, private_numbers

__all__ = ["suv_factor"]

_PHILIPS = Block("PHILIPS", 0x7053, "Philips PET Private Group")
_SUV_SCALE = 0x00


def suv_factor(dataset: Dataset, name: str) -> float:
    """What a rescaled value is multiplied by to become an SUV by body weight, g/ml.

    Args:
        dataset: the header of one picture.
        name: of its file, for messages.

    Raises:
        DicomError: if the picture is no PET, or its header lacks what is needed; it names what.
    """
    units = text(dataset, "Units")
    if text(dataset, "Modality") != "PT":
        raise DicomError(f"{name}: is no PET, so it has no uptake values; leave the scaling as stated")
    if units == "GML" and text(dataset, "SUVType") in {"", "BW"}:
        return 1.0
    if units == "CNTS":
        return _philips(dataset, name)
    if units != "BQML":
        raise DicomError(f"{name}: its values are in {units or 'no unit'}; uptake values are made from BQML or CNTS")
    _refuse_uncorrected(dataset, name)
    return 1000 * _needed(dataset, "PatientWeight", name) / _dose_left_bq(dataset, name)


def _philips(dataset: Dataset, name: str) -> float:
    told = private_numbers(dataset, _PHILIPS, _SUV_SCALE, "DS")
    if len(told) != 1 or told[0] <= 0:
        raise DicomError(
            f"{name}: counts without Philips' SUV factor (7053,1000); uptake values cannot be made from it"
        )
    return told[0]


def _refuse_uncorrected(dataset: Dataset, name: str) -> None:
    corrected = set(text(dataset, "CorrectedImage").split("\\"))
    lacks = [word for word in ("ATTN", "DECY") if word not in corrected]
    if lacks:
        raise DicomError(f"{name}: is not corrected for {' and '.join(lacks)}; uptake values need both ATTN and DECY")


def _dose_left_bq(dataset: Dataset, name: str) -> float:
    """The injected dose, decayed to the moment that the image is corrected to."""
    drug = next(iter(dataset.get("RadiopharmaceuticalInformationSequence") or []), Dataset())
    dose, half_life = _needed(drug, "RadionuclideTotalDose", name), _needed(drug, "RadionuclideHalfLife", name)
    correction = text(dataset, "DecayCorrection")
    if correction == "ADMIN":
        return dose
    if correction != "START":
        raise DicomError(f"{name}: DecayCorrection is {correction or 'absent'}; accepted are START and ADMIN")
    waited = (_start(dataset, name) - _injected(dataset, drug, name)).total_seconds()
    if not 0 <= waited < 20 * half_life:
        raise DicomError(f"{name}: says that {waited:.0f} s passed from injection to scan, which cannot be; correct it")
    return dose * math.pow(2, -waited / half_life)


def _start(dataset: Dataset, name: str) -> datetime:
    """When the scan started: the series' time, unless it was written after the picture was taken."""
    acquired = _moment(text(dataset, "AcquisitionDate") + text(dataset, "AcquisitionTime"))
    series = _moment(text(dataset, "SeriesDate") + text(dataset, "SeriesTime"))
    start = series if series and acquired and series <= acquired else None
    if start is None:
        raise DicomError(f"{name}: SeriesDate and SeriesTime do not tell when the scan started")
    return start


def _injected(dataset: Dataset, drug: Dataset, name: str) -> datetime:
    """Told with its date, or by its time alone: on the day of the scan or, past midnight, on the day before."""
    told = _moment(text(drug, "RadiopharmaceuticalStartDateTime"))
    if told is not None:
        return told
    same_day = _moment(text(dataset, "SeriesDate") + text(drug, "RadiopharmaceuticalStartTime"))
    if same_day is None or not text(drug, "RadiopharmaceuticalStartTime"):
        raise DicomError(f"{name}: RadiopharmaceuticalStartTime does not tell when the dose was given")
    return same_day if same_day <= _start(dataset, name) else same_day - timedelta(days=1)


def _moment(stated: str) -> datetime | None:
    digits = stated.partition("+")[0].partition("-")[0].replace(":", "")
    whole, _, fraction = digits.partition(".")
    try:
        moment = datetime.strptime(whole.ljust(14, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return moment + timedelta(seconds=float(f"0.{fraction or 0}"))


def _needed(dataset: Dataset, key: str, name: str) -> float:
    value = number(dataset, key)
    if value is None or value <= 0:
        raise DicomError(f"{name}: {key} is absent or no positive number; uptake values cannot be made without it")
    return value
