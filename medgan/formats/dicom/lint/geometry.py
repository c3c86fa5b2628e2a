"""Rules on where the slices of a series lie.

Source: PS3.3 C.7.6.2 (Image Plane).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medgan.formats.dicom.elements import number
from medgan.formats.dicom.lint.complaint import Checks, Found
from medgan.formats.dicom.lint.image import Image, is_synthetic

__all__ = ["CHECKS", "KEPT"]

KEPT = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
    "InstanceNumber",
)
_SLACK_MM, _SLACK = 0.03, 0.01  # of a place on an even ladder: mm, or a share of the gap


def orientation_not_unit(images: Sequence[Image]) -> Found:
    """ImageOrientationPatient whose vectors are not of length 1 and at right angles."""
    bad = [image.path for image in images if image.orientation is not None and not _is_unit(image.orientation)]
    if bad:
        yield "the vectors of ImageOrientationPatient are not of length 1 and at right angles", bad


def not_uniform(images: Sequence[Image]) -> Found:
    """A synthetic series whose slices differ in matrix, orientation or spacing."""
    stacks = _stacks(images)
    if len(stacks) > 1 and any(is_synthetic(image.dataset) for image in images):
        odd = [image.path for stack in stacks[1:] for image in stack]
        yield "slices differ from the others in matrix, orientation or pixel spacing", odd


def several_stacks(images: Sequence[Image]) -> Found:
    """A series of several stacks, such as a localizer of three planes."""
    stacks = _stacks(images)
    if len(stacks) > 1 and not any(is_synthetic(image.dataset) for image in images):
        odd = [image.path for stack in stacks[1:] for image in stack]
        yield f"slices of {len(stacks)} matrices, orientations or pixel spacings in one series", odd


def slice_twice(images: Sequence[Image]) -> Found:
    """Several slices at one place in a synthetic series."""
    for stack in _stacks(images):
        seen = np.round(_positions(stack), 3)
        twice = [image.path for image, place in zip(stack, seen, strict=True) if (seen == place).all(axis=1).sum() > 1]
        if twice and any(is_synthetic(image.dataset) for image in stack):
            yield "several slices lie at one place", twice


def slice_gaps(images: Sequence[Image]) -> Found:
    """Uneven gaps along the normal: slices are missing, or were scanned so."""
    for stack in _stacks(images):
        gaps = np.diff(_ladder(stack))
        if len(gaps) > 1 and gaps.max() - gaps.min() > max(_SLACK_MM, _SLACK * float(np.median(gaps))):
            told = f"gaps between slices run from {gaps.min():.3f} to {gaps.max():.3f} mm: are slices missing?"
            yield told, [image.path for image in stack]


def slice_shift(images: Sequence[Image]) -> Found:
    """Slices off the line that the others lie on."""
    for stack in _stacks(images):
        heights, places = _heights(stack), _positions(stack)
        if len(_ladder(stack)) < 3:
            continue
        line = np.column_stack([heights, np.ones_like(heights)])
        off = np.linalg.norm(places - line @ np.linalg.lstsq(line, places, rcond=None)[0], axis=1)
        if off.max() > 0.1:
            told = f"slices lie up to {off.max():.2f} mm beside the line of the others"
            yield told, [image.path for image, one in zip(stack, off, strict=True) if one > 0.1]


def spacing_between_slices(images: Sequence[Image]) -> Found:
    """SpacingBetweenSlices that is not the distance of the positions."""
    for stack in _stacks(images):
        gap, step = _gap(stack), _step(stack)  # under a gantry tilt some scanners state the one, some the other
        slack = max(_SLACK_MM, _SLACK * gap)
        stated = [abs(number(image.dataset, "SpacingBetweenSlices") or gap) for image in stack]
        off = [min(abs(one - gap), abs(one - step)) for one in stated]
        bad = [image.path for image, one in zip(stack, off, strict=True) if one > slack]
        if gap and bad:
            yield f"SpacingBetweenSlices is not the {gap:.3f} mm from position to position", bad


def slice_thickness(images: Sequence[Image]) -> Found:
    """Slices much thicker or thinner than their distance."""
    for stack in _stacks(images):
        gap = _gap(stack)
        thickness = [number(image.dataset, "SliceThickness") or gap for image in stack]
        bad = [image.path for image, one in zip(stack, thickness, strict=True) if not gap / 2 <= one <= gap * 2]
        if gap and bad:
            yield f"SliceThickness is less than half, or more than twice the {gap:.3f} mm from slice to slice", bad


def slice_location(images: Sequence[Image]) -> Found:
    """SliceLocation of a synthetic series that does not step as the positions do."""
    for stack in _stacks(images):
        found = [number(image.dataset, "SliceLocation") for image in stack]
        if len(stack) < 2 or None in found or not any(is_synthetic(image.dataset) for image in stack):
            continue
        stated = np.abs(np.diff(np.array(found, dtype=float)))
        along_normal = np.diff(_heights(stack))
        from_place_to_place = np.linalg.norm(np.diff(_positions(stack), axis=0), axis=1)  # differs under a gantry tilt
        if min(np.abs(stated - steps).max() for steps in (along_normal, from_place_to_place)) > 0.1:
            yield "SliceLocation does not step from slice to slice as the positions do", [image.path for image in stack]


def instance_number_twice(images: Sequence[Image]) -> Found:
    """Slices of a synthetic series that share an InstanceNumber."""
    numbers = [number(image.dataset, "InstanceNumber") for image in images]
    counts = Counter(numbers)
    twice = [image.path for image, one in zip(images, numbers, strict=True) if one is not None and counts[one] > 1]
    if twice and any(is_synthetic(image.dataset) for image in images):
        yield "files share an InstanceNumber", twice


def instance_number_order(images: Sequence[Image]) -> Found:
    """InstanceNumber of a synthetic series that does not run along the normal."""
    for stack in _stacks(images):
        numbers = [number(image.dataset, "InstanceNumber") for image in stack]
        if None in numbers or not any(is_synthetic(image.dataset) for image in stack):
            continue
        signs = np.sign(np.diff(np.array(numbers, dtype=float)))
        if len({*signs.tolist()} - {0.0}) > 1:
            yield "InstanceNumber does not run along the slices", [image.path for image in stack]


CHECKS: Checks = {
    "error": (orientation_not_unit, slice_twice),
    "warning": (
        not_uniform,
        slice_gaps,
        slice_shift,
        spacing_between_slices,
        instance_number_twice,
        instance_number_order,
    ),
    "note": (several_stacks, slice_thickness, slice_location),
}


def _is_unit(orientation: tuple[float, ...]) -> bool:
    axes = np.array(orientation).reshape(2, 3)
    return bool(np.abs(axes @ axes.T - np.eye(2)).max() < 1e-3)


def _stacks(images: Sequence[Image]) -> list[list[Image]]:
    """Slices of one matrix, orientation and spacing, each stack in the order of its normal, the greatest first."""
    stacks: list[list[Image]] = []
    for image in (one for one in images if one.is_slice):
        fitting = next((stack for stack in stacks if _are_alike(stack[0], image)), None)
        if fitting is None:
            stacks.append([image])
        else:
            fitting.append(image)
    ordered = [[stack[place] for place in np.argsort(_heights(stack), kind="stable")] for stack in stacks]
    return sorted(ordered, key=len, reverse=True)


def _are_alike(one: Image, other: Image) -> bool:
    if any(number(one.dataset, key) != number(other.dataset, key) for key in ("Rows", "Columns")):
        return False
    places = [(*(image.orientation or ()), *(image.spacing or ())) for image in (one, other)]
    return all(abs(a - b) < 1e-4 for a, b in zip(*places, strict=True))


def _positions(stack: Sequence[Image]) -> npt.NDArray[np.float64]:
    return np.array([image.position for image in stack], dtype=np.float64)


def _heights(stack: Sequence[Image]) -> npt.NDArray[np.float64]:
    """Along the normal, mm."""
    axes = np.array(stack[0].orientation, dtype=np.float64).reshape(2, 3)
    return np.asarray(_positions(stack) @ np.cross(*axes))


def _gap(stack: Sequence[Image]) -> float:
    """The usual distance along the normal, mm; 0 of a single slice."""
    gaps = np.diff(_ladder(stack))
    return float(np.median(gaps)) if len(gaps) else 0.0


def _step(stack: Sequence[Image]) -> float:
    """The usual distance from position to position, mm; 0 of a single slice."""
    steps = np.linalg.norm(np.diff(_positions(stack), axis=0), axis=1)
    steps = steps[steps > 1e-3]
    return float(np.median(steps)) if len(steps) else 0.0


def _ladder(stack: Sequence[Image]) -> npt.NDArray[np.float64]:
    """The heights that differ, from low to high."""
    heights = np.sort(_heights(stack))
    return np.asarray(heights[np.concatenate([[True], np.diff(heights) > 1e-3])])
