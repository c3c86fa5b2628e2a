"""How strongly and in which direction diffusion was weighted, in the words of each vendor.

The standard's attributes come first. Older files say it in private ones:

| vendor | b value | direction | its frame |
|---|---|---|---|
| standard, Philips, Toshiba, Hitachi | (0018,9087) | (0018,9089) | patient |
| Siemens | (0019,xx0C) or CSA `B_value` | (0019,xx0E), CSA `DiffusionGradientDirection`, `B_matrix` | patient |
| Philips, old | (2001,xx03) | (2005,xxB0), (2005,xxB1), (2005,xxB2) | patient |
| GE | (0043,xx39), with 1e9 added by newer software | (0019,xxBB), (0019,xxBC), (0019,xxBD) | frequency, phase, slice |
| United Imaging | (0065,xx09) | (0065,xx37) | image |

Source: PS3.3 C.8.13.5.9 (MR Diffusion Macro); NA-MIC wiki, "DICOM for DWI and DTI"; the vendors' notes in dcm2niix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from medgan.formats.dicom.csa import csa
from medgan.formats.dicom.elements import DAMAGE, number, numbers, text
from medgan.formats.dicom.private import Block, private_numbers
from medgan.formats.gradients import Gradients

__all__ = ["Diffusion", "diffusion", "gradients_of"]

Array = npt.NDArray[np.float64]
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_SIEMENS = Block("SIEMENS", 0x0019, "SIEMENS MR HEADER")
_PHILIPS_B = Block("PHILIPS", 0x2001, "Philips Imaging DD 001")
_PHILIPS_G = Block("PHILIPS", 0x2005, "Philips MR Imaging DD 001")
_GE_B = Block("GE", 0x0043, "GEMS_PARM_01")
_GE_G = Block("GE", 0x0019, "GEMS_ACQU_01")
_UIH = Block("UIH", 0x0065, "Image Private Header")
_CANON = re.compile(r"b\s*=\s*([0-9.]+)\s*\(")
_GE_FLAGS = 100_000  # above these digits newer GE software keeps other things
_WHOLE_VECTOR = (0.03, 0.97)  # GE: a shorter gradient means a weaker weighting, but one near 0 is none


class Diffusion(NamedTuple):
    """How one image was weighted.

    Args:
        b_value: s/mm².
        direction_lps: unit vector in DICOM's patient axes; None where no direction was, or none is known.
        problem: why the direction is not known, for people; "" where it is, or there is none.
    """

    b_value: float
    direction_lps: tuple[float, float, float] | None
    problem: str = ""


def diffusion(dataset: Dataset, frame: int | None = None) -> Diffusion | None:
    """What a file, or one frame of it, says of its weighting; None where it says nothing.

    Args:
        dataset: the header of a file; attributes that are damaged count as absent.
        frame: index of a frame of a multi-frame file, from 0.
    """
    readers: tuple[Callable[[Dataset], Diffusion | None], ...]
    readers = (_ge, partial(_standard, frame=frame), _siemens, _philips, _uih, _canon)
    for read in readers:
        try:
            found = read(dataset)
        except DAMAGE:
            continue
        if found is not None:
            return found
    return None


def gradients_of(readings: Sequence[Diffusion | None]) -> Gradients | None:
    """The table of a series' volumes, one reading each; a silent volume among others has b = 0 (Toshiba's way).

    None where no volume says anything, or none is weighted.
    """
    told = [reading or Diffusion(0.0, None) for reading in readings]
    if not any(reading.b_value > 0 for reading in told):
        return None
    directions = [np.multiply(reading.direction_lps or (0.0, 0.0, 0.0), _LPS_TO_RAS) for reading in told]
    return Gradients(np.array([reading.b_value for reading in told]), np.array(directions).reshape(-1, 3))


def _standard(dataset: Dataset, frame: int | None) -> Diffusion | None:
    for item in _macros(dataset, frame):
        b_value = number(item, "DiffusionBValue")
        if b_value is not None:
            holders = [*(item.get("DiffusionGradientDirectionSequence") or ()), item]
            vectors = (numbers(holder, "DiffusionGradientOrientation", 3) for holder in holders)
            return Diffusion(b_value, _unit(next((vector for vector in vectors if vector), None), b_value))
    return None


def _macros(dataset: Dataset, frame: int | None) -> Iterator[Dataset]:
    """Where a frame's diffusion macro may be: its own groups, those that all frames share, the file itself."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [frames[frame]] if frame is not None and frame < len(frames) else []
    for group in (*groups, *(dataset.get("SharedFunctionalGroupsSequence") or ()), dataset):
        yield from group.get("MRDiffusionSequence") or ()
    yield dataset


def _siemens(dataset: Dataset) -> Diffusion | None:
    b_values = private_numbers(dataset, _SIEMENS, 0x0C, "IS")
    if b_values:
        vector = private_numbers(dataset, _SIEMENS, 0x0E, "FD") or _of_matrix(
            private_numbers(dataset, _SIEMENS, 0x27, "FD")
        )
        return Diffusion(b_values[0], _unit(vector, b_values[0]))
    entries = csa(dataset, "image")
    b_values = _floats(entries.get("B_value", ()))
    if not b_values:
        return None
    vector = _floats(entries.get("DiffusionGradientDirection", ())) or _of_matrix(_floats(entries.get("B_matrix", ())))
    return Diffusion(b_values[0], _unit(vector, b_values[0]))


def _philips(dataset: Dataset) -> Diffusion | None:
    b_values = private_numbers(dataset, _PHILIPS_B, 0x03, "FL")
    if not b_values:
        return None
    parts = [private_numbers(dataset, _PHILIPS_G, offset, "FL") for offset in (0xB0, 0xB1, 0xB2)]
    vector = tuple(part[0] for part in parts if part)
    return Diffusion(b_values[0], _unit(vector, b_values[0]))


def _ge(dataset: Dataset) -> Diffusion | None:
    """GE's directions run along frequency, phase and slice, of which only the axial frame is established."""
    b_values = private_numbers(dataset, _GE_B, 0x39, "IS")
    if not b_values:
        return None
    b_value = float(int(b_values[0]) % _GE_FLAGS)
    parts = [private_numbers(dataset, _GE_G, offset, "DS") for offset in (0xBB, 0xBC, 0xBD)]
    vector = tuple(part[0] for part in parts if part)
    length = math.hypot(*vector)
    if b_value == 0 or len(vector) < 3 or length < _WHOLE_VECTOR[0]:
        return Diffusion(b_value, None) if b_value or length else None
    b_value = float(round(b_value * length**2)) if length < _WHOLE_VECTOR[1] else b_value
    axes, problem = _ge_axes(dataset)
    return Diffusion(b_value, None if axes is None else _unit(axes @ np.array(vector), b_value), problem)


def _ge_axes(dataset: Dataset) -> tuple[Array | None, str]:
    """Patient axes of (frequency, phase, slice) in the columns, or why they are not known."""
    axes, encoding = _image_axes(dataset), text(dataset, "InPlanePhaseEncodingDirection").upper()
    if axes is None or abs(axes[2, 2]) < max(abs(axes[0, 2]), abs(axes[1, 2])):
        return None, "GE's gradient directions are known for axial slices only"
    if not text(dataset, "PatientPosition").upper().startswith("HFS"):
        return None, "GE's gradient directions are known only for patients who lie head first and supine"
    row, column, normal = axes.T
    if encoding.startswith("COL"):
        return np.stack([row, column, -normal], axis=1), ""
    if encoding.startswith("ROW"):
        return np.stack([-column, row, -normal], axis=1), ""
    return None, "GE's gradient directions need the direction of phase encoding (0018,1312), which is missing"


def _uih(dataset: Dataset) -> Diffusion | None:
    b_values = private_numbers(dataset, _UIH, 0x09, "FD")
    if not b_values:
        return None
    vector, axes = private_numbers(dataset, _UIH, 0x37, "FD"), _image_axes(dataset)
    if len(vector) != 3 or not any(vector):
        return Diffusion(b_values[0], None)
    if axes is None:
        return Diffusion(b_values[0], None, "the gradient directions are those of an image whose axes are missing")
    return Diffusion(b_values[0], _unit(axes @ np.array(vector), b_values[0]))


def _canon(dataset: Dataset) -> Diffusion | None:
    """Canon's classic files speak in a comment, and of image axes whose sense no document tells."""
    if not text(dataset, "Manufacturer").upper().startswith(("CANON", "TOSHIBA")):
        return None
    found = _CANON.search(text(dataset, "ImageComments"))
    problem = "the gradient directions in Canon's comments are in undocumented axes"
    return Diffusion(float(found.group(1)), None, problem) if found else None


def _image_axes(dataset: Dataset) -> Array | None:
    """Unit vectors, in the columns, along a row of pixels, along a column of pixels, and their normal."""
    orientation = numbers(dataset, "ImageOrientationPatient", 6)
    if orientation is None:
        return None
    row, column = np.reshape(orientation, (2, 3))
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _unit(vector: Sequence[float] | Array | None, b_value: float) -> tuple[float, float, float] | None:
    """A direction of length 1; None for an image that is not weighted, or weighted alike in all directions."""
    values = np.asarray(() if vector is None else vector, dtype=np.float64)
    length = float(np.linalg.norm(values)) if values.shape == (3,) else 0.0
    if b_value <= 0 or not math.isfinite(length) or length < 1e-6:
        return None
    x, y, z = (float(value) for value in values / length)
    return x, y, z


def _of_matrix(matrix: Sequence[float]) -> tuple[float, ...]:
    """The direction of a b matrix (xx, xy, xz, yy, yz, zz): its longest axis, whose sign is free."""
    if len(matrix) != 6 or not all(map(math.isfinite, matrix)):
        return ()
    xx, xy, xz, yy, yz, zz = matrix
    values, vectors = np.linalg.eigh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return tuple(float(part) for part in vectors[:, 2]) if values[2] > 0 else ()


def _floats(texts: Sequence[str]) -> tuple[float, ...]:
    return tuple(float(part) for part in texts)
