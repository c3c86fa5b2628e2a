"""Values become the 16-bit integers of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.valuerep import format_number_as_ds

from medgan.errors import InputError
from medgan.volume import Volume

__all__ = ["CT_RANGE_HU", "Stored", "scaled", "stored"]

Array = npt.NDArray[Any]
CT_RANGE_HU = (-1024, 3071)  # what a CT of 12 bits can hold; synthetic values beyond it are clipped
_ROUNDING = 1e-3  # of the range of values: the most that rounding to whole numbers may cost
_LARGEST = 32767


@dataclass(frozen=True, eq=False)
class Stored:
    """Integers and the slope that leads back to the values.

    Args:
        pixels: (X, Y, Z) int16.
        slope: value of a step of 1, as a DICOM decimal string; "1" where the integers are the values.
        remark: what was done to the values, for people.
        window: centre and width that show the image, in its unit.
    """

    pixels: Array
    slope: str
    remark: str
    window: tuple[float, float]


def stored(volume: Volume, *, modality: str, clip: bool) -> Stored:
    """The integers to store for a volume.

    Whole numbers are stored where the values are whole or rounding costs little: for CT always (to 1 HU), else if it
    costs less than 0.1 % of the range. Other values are scaled to 16 bits, zero staying zero.

    Args:
        volume: finite values.
        modality: `CT`, `MR` or `PT`.
        clip: clip a CT to `CT_RANGE_HU`.

    Raises:
        InputError: if a value is NaN or infinite.
    """
    values = volume.array
    _refuse_not_finite(values)
    if modality == "CT" and clip:
        return _clipped(values)
    extreme = max(abs(float(values.min())), abs(float(values.max())))
    if extreme <= _LARGEST and (modality == "CT" or _is_whole(values)):
        return Stored(_rounded(values), "1", "", _window(values, modality))
    return scaled(volume, modality=modality)


def scaled(volume: Volume, *, modality: str = "") -> Stored:
    """The integers to store for a volume whose small values count: all 16 bits are used, zero staying zero.

    Args:
        volume: finite values.
        modality: whose usual window is set; that of the values if not given.

    Raises:
        InputError: if a value is NaN or infinite.
    """
    values = volume.array
    _refuse_not_finite(values)
    extreme = max(abs(float(values.min())), abs(float(values.max())))
    slope = str(format_number_as_ds(extreme / _LARGEST or 1.0))
    remark = f"values scaled to 16 bits by a slope of {slope}"
    return Stored(_rounded(values.astype(np.float64) / float(slope)), slope, remark, _window(values, modality))


def _refuse_not_finite(values: Array) -> None:
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise InputError(f"{count} voxels are NaN or infinite; DICOM holds finite values only, replace them first")


def _clipped(values: Array) -> Stored:
    low, high = CT_RANGE_HU
    count = int(((values < low) | (values > high)).sum())
    remark = f"values clipped to [{low}, {high}] HU ({count} voxels)"
    return Stored(_rounded(np.clip(values, low, high)), "1", remark, _window(values, "CT"))


def _rounded(values: Array) -> Array:
    return np.asarray(np.rint(values).astype(np.int16))


def _is_whole(values: Array) -> bool:
    if values.dtype.kind in "iub":
        return True
    lost = float(np.abs(values - np.rint(values)).max())
    return lost <= _ROUNDING * float(np.ptp(values))


def _window(values: Array, modality: str) -> tuple[float, float]:
    if modality == "CT":
        return 40.0, 400.0
    low, high = (float(value) for value in np.percentile(values, (1, 99)))
    return (low + high) / 2, high - low
