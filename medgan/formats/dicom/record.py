"""What is kept of a series beside its voxels: how it was acquired, when each volume began, where each slice lay.

None of it tells who the patient is: times are differences, places are millimetres in the scanner.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from medgan.formats.dicom.bids import acquisition
from medgan.formats.dicom.diffusion import Diffusion, diffusion, gradients_of
from medgan.formats.dicom.elements import DAMAGE, number, open_dicom, quietly
from medgan.formats.dicom.frames import pictures
from medgan.formats.dicom.headers import Header
from medgan.formats.dicom.scan import Series
from medgan.formats.dicom.stack import LPS_TO_RAS, Stack
from medgan.formats.gradients import Gradients

__all__ = ["about", "gradients", "times_s"]

_NEAR = 0.05  # clocks of scanners stray from the repetition time by less than this share of it


def about(series: Series) -> dict[str, Any]:
    """Entries for a JSON file: how the series was acquired, and the place of each slice where a grid cannot say it."""
    first = series.stacks[0]
    with quietly():
        told = acquisition(_first_header(first))
    if first.headers[0].photometric == "MONOCHROME1":
        told["PhotometricInterpretation"] = "MONOCHROME1"  # low values are meant to be shown bright
    is_exact = first.grid is not None and not first.lean_deg and series.grid is not None and not _is_filled(series)
    return told if is_exact else told | _places(first)


def gradients(series: Series) -> tuple[Gradients | None, tuple[str, ...]]:
    """How diffusion was weighted in each volume, None where it was not; and what could not be told, each once."""
    readings = _readings(series)
    return gradients_of(readings), tuple(dict.fromkeys(one.problem for one in readings if one and one.problem))


def _readings(series: Series) -> list[Diffusion | None]:
    if series.modality != "MR" or series.num_volumes < 2:
        return []
    with quietly():
        return [diffusion(_first_header(stack)) for stack in series.stacks]


def times_s(series: Series) -> list[float] | None:
    """When each volume began, seconds after the first; None where files do not tell, or tell one time for all."""
    if series.num_volumes < 2:
        return None
    clock = [_clock_s(stack.headers[0]) for stack in series.stacks]
    step = _repetition_s(series)
    if any(time is None for time in clock) or np.diff(np.array(clock, float)).min() <= 0:
        return None
    times = [float(time) for time in np.array(clock, float) - float(clock[0] or 0)]
    if step and abs(times[-1] / (len(times) - 1) - step) < _NEAR * step:
        return [index * step for index in range(len(times))]
    return times


def _repetition_s(series: Series) -> float | None:
    try:
        with quietly():
            stated = number(_first_header(series.stacks[0]), "RepetitionTime")
    except DAMAGE:
        return None
    return None if stated is None else stated / 1000


def _clock_s(header: Header) -> float | None:
    """Seconds of the day at which a picture was taken."""
    stated = header.told("AcquisitionDateTime")[8:] or header.told("AcquisitionTime") or header.told("ContentTime")
    digits = stated.split("+")[0].split("-")[0].replace(":", "")
    try:
        return int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + float(digits[4:] or 0)
    except ValueError:
        return None


def _is_filled(series: Series) -> bool:
    return series.grid is not None and series.grid.shape[2] != len(series.stacks[0].headers)


def _places(stack: Stack) -> dict[str, Any]:
    """In RAS+ mm, as the affine is: the first pixel of each slice, and where rows and columns of pixels run."""
    return {
        "SlicePositions": _rounded(stack.places @ LPS_TO_RAS[:3, :3]),
        "SliceDirections": _rounded(stack.axes[:2] @ LPS_TO_RAS[:3, :3]),
        "SlicePixelSpacing": list(stack.headers[0].pixel_spacing or ()),
    }


def _rounded(values: Any) -> list[list[float]]:
    return [[round(float(value), 6) + 0.0 for value in row] for row in values]


def _first_header(stack: Stack) -> Dataset:
    first: Header = stack.headers[0]
    return _told(first.path)[first.frame]


@lru_cache(maxsize=1)
def _told(path: Path) -> Sequence[Dataset]:
    return [picture.dataset for picture in pictures(open_dicom(path, pixels=False))]
