"""The proof that slices are one regular grid, and the refusals of all that is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from medgan.errors import DicomError
from medgan.formats.dicom.headers import DAMAGE, Header, differing, name_of, open_dicom, quietly
from medgan.volume import Grid

__all__ = ["ANGLE_TOLERANCE", "SAME_PLACE_MM", "Stack", "notes", "position_tolerance_mm", "prove"]

Array = npt.NDArray[Any]
SAME_PLACE_MM = 0.005  # images nearer than this along the normal are at one place
ANGLE_TOLERANCE = (
    1e-3  # rad by which the slices' step may lean off their normal (0.06 degrees), as Grid.is_sheared has it
)
_DIRECTION_TOLERANCE = 1e-4  # per component of ImageOrientationPatient, and relative for PixelSpacing
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_NAMED = 3  # so many files stand in a message, the rest is counted


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices that prove to be one grid: in the order of its last axis, each place once.

    Args:
        headers: one a slice.
        grid: (columns, rows, slices), RAS+ mm.
        copies: number of files left out because they repeat another one exactly.
    """

    headers: tuple[Header, ...]
    grid: Grid
    copies: int = 0


def position_tolerance_mm(gap_mm: float) -> float:
    """How far a slice may lie off its place on an even ladder of this gap, mm.

    0.03 mm allows for scanners that round positions to hundredths; thick slices may be off by 1 % of their gap,
    and thin ones never by more than 10 % of it.

    Example:
        >>> [round(position_tolerance_mm(gap), 3) for gap in (0.1, 1, 5)]
        [0.01, 0.03, 0.05]
    """
    return min(max(0.03, 0.01 * gap_mm), 0.1 * gap_mm)


def prove(headers: Sequence[Header]) -> Stack:
    """The regular grid that the slices of one series lie on.

    Raises:
        DicomError: if they do not lie on one; the message says why, which files show it, and what to do.
    """
    _refuse_damaged(headers)
    single = _without_copies(headers)
    _refuse_other_kinds(single)
    _refuse_truncated(single)
    _refuse_placeless(single)
    _refuse_two_scans(single)
    _refuse_mixed(single)
    columns = _in_plane(single[0])
    if len(single) == 1:
        return Stack((single[0],), _grid(single[0], columns, _lone_step(single[0], columns)), len(headers) - 1)
    ordered = _along(single, columns[2])
    places = np.array([header.position for header in ordered])
    _refuse_shared_places(ordered, places @ columns[2])
    _refuse_sideways(ordered, places, columns[2])
    _refuse_gaps(ordered, places @ columns[2])
    step = (places[-1] - places[0]) / (len(ordered) - 1)
    grid = _grid(ordered[0], columns, step, len(ordered))
    return Stack(tuple(ordered), grid, len(headers) - len(single))


def notes(stack: Stack) -> list[str]:
    """What is odd about slices that are a grid all the same."""
    headers, gap = stack.headers, stack.grid.spacing_mm[2]
    stated = headers[0].stated_gap
    found = {
        f"{_count(stack.copies, 'file repeats', 'files repeat')} another one, left out": stack.copies > 0,
        f"the slices lie {gap:.4g} mm apart, SpacingBetweenSlices says {stated or 0:.4g} mm; positions count": (
            len(headers) > 1 and stated is not None and abs(abs(stated) - gap) > 0.01 * gap
        ),
        "two slices cannot prove an even gap": len(headers) == 2,
        "MONOCHROME1: low values are meant to be shown bright; values are kept as stored": any(
            header.photometric == "MONOCHROME1" for header in headers
        ),
        "PixelPaddingValue: voxels outside the scan hold a filler; values are kept as stored": any(
            header.padding for header in headers
        ),
        "lossy compression: values are not those of the scanner": any(header.lossy for header in headers),
    }
    return [note for note, is_so in found.items() if is_so]


def _listed(items: Sequence[str]) -> str:
    rest = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + rest


def _named(headers: Sequence[Header]) -> str:
    return _listed([header.name for header in headers])


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _refuse_damaged(headers: Sequence[Header]) -> None:
    damaged = [header for header in headers if header.damage]
    if damaged:
        raise DicomError(
            f"{_named(damaged)}: {damaged[0].damage}; send the series again, or remove the file if it is of another one"
        )


def _refuse_truncated(headers: Sequence[Header]) -> None:
    truncated = [header for header in headers if header.truncated]
    if truncated:
        raise DicomError(
            f"{_named(truncated)}: truncated, the file ends before its {truncated[0].rows}×{truncated[0].columns} "
            "pixels do; send the series again"
        )


def _without_copies(headers: Sequence[Header]) -> list[Header]:
    first: dict[str, Header] = {}
    kept = []
    for header in headers:
        earlier = first.setdefault(header.instance_uid, header)
        if earlier is header or not header.instance_uid:
            kept.append(header)
        elif not _same_content(earlier, header):
            raise DicomError(
                f"{_with_folder(earlier)} and {_with_folder(header)} have one SOPInstanceUID but differ in content; "
                "remove the wrong one"
            )
    return kept


def _with_folder(header: Header) -> str:
    return f"{header.path.parent.name}/{header.name}"


def _same_content(a: Header, b: Header) -> bool:
    if a.path.read_bytes() == b.path.read_bytes():
        return True
    try:
        with quietly():
            return _content(a) == _content(b)
    except DAMAGE:
        return False


def _content(header: Header) -> Dataset:
    return open_dicom(header.path, pixels=True)


def _refuse_other_kinds(headers: Sequence[Header]) -> None:
    for header in headers:
        if kind := _other_kind(header):
            raise DicomError(f"{header.name}: {kind}; accepted are grey slices, one a file")


def _other_kind(header: Header) -> str:
    name = name_of(header.sop_class)
    if header.samples != 1:
        return f"a colour image ({header.photometric or header.samples}, {name})"
    if header.frames > 1 or name.startswith(("Enhanced", "Legacy Converted", "Multi-frame")):
        return f"a multi-frame object of {header.frames} frames ({name}); convert it to single frames first"
    return "a mosaic, many slices tiled into one picture; convert it to single slices first" if header.mosaic else ""


def _refuse_placeless(headers: Sequence[Header]) -> None:
    for header in headers:
        lacking = [key for key, value in _geometry(header).items() if value is None]
        name = name_of(header.sop_class)
        why = f"no geometry, {' and '.join(lacking)} missing ({name})" if lacking else _bad_geometry(header)
        if why:
            raise DicomError(f"{header.name}: {why}; accepted are slices with a position in the patient")


def _geometry(header: Header) -> dict[str, tuple[float, ...] | None]:
    return {
        "ImagePositionPatient": header.position,
        "ImageOrientationPatient": header.orientation,
        "PixelSpacing": header.pixel_spacing,
    }


def _bad_geometry(header: Header) -> str:
    row, column = np.array(header.orientation).reshape(2, 3)
    lengths = np.linalg.norm([row, column], axis=1)
    if np.abs(lengths - 1).max() > ANGLE_TOLERANCE or abs(row @ column) > ANGLE_TOLERANCE:
        return f"ImageOrientationPatient {list(header.orientation or ())} is not two unit vectors at right angles"
    if min(header.pixel_spacing or (0,)) <= 0 or min(header.rows, header.columns) < 1:
        return f"PixelSpacing {list(header.pixel_spacing or ())} of {header.rows}×{header.columns} pixels is no grid"
    return ""


def _refuse_two_scans(headers: Sequence[Header]) -> None:
    """A series is of one patient in one frame of reference; else its positions have nothing to do with one another."""
    keys = {"PatientID": "patient_id", "StudyInstanceUID": "study_uid", "FrameOfReferenceUID": "frame_uid"}
    for key, field in keys.items():
        odd = [header for header in headers if getattr(header, field) != getattr(headers[0], field)]
        if odd:
            raise DicomError(
                f"{headers[0].name} and {_named(odd)} are of one series but differ in {key}; "
                "they are two scans mixed up, keep one"
            )


def _refuse_mixed(headers: Sequence[Header]) -> None:
    groups: list[list[Header]] = []
    for header in headers:
        fitting = next((group for group in groups if not _differences(group[0], header)), None)
        groups.append([header]) if fitting is None else fitting.append(header)
    if len(groups) > 1:
        groups.sort(key=len, reverse=True)
        odd = [header for group in groups[1:] for header in group]
        scout = " (a localizer is mixed in)" if any("LOCALIZER" in h.image_type for h in odd) else ""
        raise DicomError(
            f"{_named(odd)}: not of one stack with the other {len(groups[0])} slices, they differ in "
            f"{' and '.join(_differences(groups[0][0], odd[0]))}{scout}; move them out of the folder"
        )


def _differences(a: Header, b: Header) -> list[str]:
    spacing_a, spacing_b = np.array(a.pixel_spacing), np.array(b.pixel_spacing)
    found = {
        "matrix": (a.rows, a.columns) != (b.rows, b.columns),
        "orientation": np.abs(np.subtract(a.orientation or (), b.orientation or ())).max() > _DIRECTION_TOLERANCE,
        "pixel spacing": bool((np.abs(spacing_a - spacing_b) > _DIRECTION_TOLERANCE * spacing_a).any()),
    }
    return [name for name, is_so in found.items() if is_so]


def _in_plane(header: Header) -> Array:
    """(3, 3) LPS unit vectors in rows: along a row of pixels, along a column of pixels, and the slices' normal."""
    row, column = np.array(header.orientation).reshape(2, 3)
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    normal = np.cross(row, column)
    return np.array([row, column, normal / np.linalg.norm(normal)])


def _lone_step(header: Header, columns: Array) -> Array:
    gap = next((abs(gap) for gap in (header.thickness, header.stated_gap) if gap), None)
    if gap is None:
        raise DicomError(
            f"{header.name}: a single slice that states neither SliceThickness nor SpacingBetweenSlices has no depth; "
            "accepted are slices that state one of them"
        )
    return np.asarray(columns[2] * gap)


def _along(headers: Sequence[Header], normal: Array) -> list[Header]:
    return sorted(headers, key=lambda header: (float(np.dot(header.position or (), normal)), header.name))


def _refuse_shared_places(ordered: list[Header], heights: Array) -> None:
    starts = np.flatnonzero(np.diff(heights, prepend=-math.inf) > SAME_PLACE_MM)
    counts = np.diff(starts, append=len(heights))
    if counts.max() == 1:
        return
    first = int(starts[counts > 1][0])
    together = ordered[first : first + int(counts[counts > 1][0])]
    told = f"; they differ in {', '.join(differing(together))}" if differing(together) else ""
    here = f"{_named(together)} at {heights[first]:.2f} mm{told}"
    if len(counts) == 1:
        raise DicomError(f"all {counts[0]} images lie at one place, {here}; keep one of them")
    if (counts > 1).mean() > 0.5:
        raise DicomError(
            f"a 4-D series: up to {counts.max()} images at each of {len(counts)} places (time points, echoes, "
            f"b-values, or magnitude and phase), such as {here}; keep one image a place"
        )
    shared = _count(int((counts > 1).sum()), "place holds", "places hold")
    raise DicomError(f"{shared} more than one image: {here}; remove the wrong ones")


def _refuse_sideways(ordered: list[Header], places: Array, normal: Array) -> None:
    offsets = places - places[0]
    heights = offsets @ normal
    sideways = offsets - np.outer(heights, normal)
    lean = heights @ sideways / (heights @ heights)
    shifts = np.linalg.norm(sideways - np.outer(heights, lean), axis=1)
    shifts -= shifts.min()
    if shifts.max() > position_tolerance_mm(float(np.median(np.diff(heights)))):
        odd = [ordered[int(i)] for i in np.argsort(-shifts)]
        raise DicomError(
            f"the slices are shifted sideways by up to {shifts.max():.2f} mm, most of all {odd[0].name}; "
            "they are no one stack, move the odd ones out of the folder"
        )
    angle = math.atan(float(np.linalg.norm(lean)))
    if angle > ANGLE_TOLERANCE:
        raise DicomError(
            f"gantry tilt: the {len(ordered)} slices are stacked at {math.degrees(angle):.1f} degrees off their normal "
            f"(from {ordered[0].name} on); resample them to a straight grid first, for example with dcm2niix"
        )


def _refuse_gaps(ordered: list[Header], heights: Array) -> None:
    gaps = np.diff(heights)
    index = np.arange(len(heights))
    ladder = np.polynomial.Polynomial.fit(index, heights, 1)
    gap = float(np.median(gaps))
    if np.abs(heights - ladder(index)).max() <= position_tolerance_mm(gap):
        return
    steps = gaps / gap
    wide = [int(i) for i in np.flatnonzero(steps > 1.5)]
    where = _listed([f"{_at(ordered, heights, i)} and {_at(ordered, heights, i + 1)}" for i in wide])
    if wide and np.abs(steps - steps.round()).max() < 0.1:
        count = int(steps.round().sum()) - len(steps)
        raise DicomError(
            f"{_count(count, 'slice is', 'slices are')} missing (or the gap is wider there), between {where}; "
            "send the series again"
        )
    widest = int(gaps.argmax())
    raise DicomError(
        f"the gap between slices varies from {gaps.min():.3f} to {gaps.max():.3f} mm (widest between "
        f"{_at(ordered, heights, widest)} and {_at(ordered, heights, widest + 1)}); slices are missing, or the series "
        "needs to be resampled to an even grid first"
    )


def _at(ordered: list[Header], heights: Array, index: int) -> str:
    return f"{ordered[index].name} ({heights[index]:.2f} mm)"


def _grid(first: Header, columns: Array, step: Array, num_slices: int = 1) -> Grid:
    """DICOM gives [gap between rows, gap between columns]; a row of pixels runs along the first array axis."""
    row_gap, column_gap = first.pixel_spacing or (math.nan, math.nan)
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ np.column_stack([columns[0] * column_gap, columns[1] * row_gap, step])
    affine[:3, 3] = _LPS_TO_RAS @ np.array(first.position)
    return Grid((first.columns, first.rows, num_slices), affine)
