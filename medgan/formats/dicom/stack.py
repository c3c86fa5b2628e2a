"""The slices of one volume: where each of them lies, and the refusals of what is no stack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import DicomError
from medgan.formats.dicom.headers import Header
from medgan.volume import Grid

__all__ = [
    "ANGLE_TOLERANCE",
    "LPS_TO_RAS",
    "SAME_PLACE_MM",
    "Stack",
    "axes_of",
    "count",
    "depth_mm",
    "heights_of",
    "listed",
    "middle",
    "named",
    "places_of",
    "position_tolerance_mm",
    "prove",
]

Array = npt.NDArray[Any]
SAME_PLACE_MM = 0.005  # images nearer than this along the normal are at one place
ANGLE_TOLERANCE = (
    1e-3  # rad by which the slices' step may lean off their normal (0.06 degrees), as Grid.is_sheared has it
)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_LEAST_RUN = 3  # as many wider gaps in a row at one end are a protocol, not a loss
_NAMED = 8  # so many files stand in a message, the rest is counted


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices of one volume in the order of their normal, each at a place of its own.

    Args:
        headers: one a slice.
        axes: (3, 3) LPS unit vectors in rows: along a row of pixels, along a column of pixels, the slices' normal.
        places: (N, 3) LPS mm of the first pixel of each slice, as stated.
        step: (3,) LPS mm from slice to slice; the mean where they are not even.
    """

    headers: tuple[Header, ...]
    axes: Array
    places: Array
    step: Array

    @cached_property
    def heights(self) -> Array:
        """(N,) mm along the normal."""
        return np.asarray(self.places @ self.axes[2])

    @cached_property
    def lean_deg(self) -> float:
        """By how much the stack leans off its normal, as under a gantry tilt, degrees; 0 within the tolerance."""
        along = float(self.step @ self.axes[2])
        angle = math.atan(float(np.linalg.norm(self.step - along * self.axes[2])) / along)
        return math.degrees(angle) if angle > ANGLE_TOLERANCE else 0.0

    @cached_property
    def gaps(self) -> Array:
        """(N - 1,) mm from slice to slice along the normal."""
        return np.diff(self.heights)

    @cached_property
    def is_even(self) -> bool:
        """True if all slices lie on one ladder of equal steps."""
        if len(self.headers) < 3:
            return True
        index = np.arange(len(self.heights))
        off = float(np.abs(self.heights - np.polyval(np.polyfit(index, self.heights, 1), index)).max())
        return off <= position_tolerance_mm(middle(self.gaps))

    @cached_property
    def num_missing(self) -> int:
        """How many slices an even ladder would have beside these; 0 where none fits, or where the gap changes once."""
        if self.is_even:
            return 0
        steps = self.gaps / middle(self.gaps)
        fits = float(np.abs(steps - steps.round()).max()) < 0.1 and steps.min() > 0.5
        return int(steps.round().sum()) - len(steps) if fits and not _changes_once(steps.round()) else 0

    @cached_property
    def grid(self) -> Grid | None:
        """(columns, rows, slices), RAS+ mm, where the slices are even; it is sheared where the stack leans."""
        return self.nominal_grid if self.is_even else None

    @property
    def nominal_grid(self) -> Grid:
        """As `grid`, of slices that are taken to be even."""
        return self.grid_of(self.places[0], self.step, len(self.headers))

    def grid_of(self, first: Array, step: Array, num_slices: int) -> Grid:
        """A grid with these pictures' axes.

        DICOM gives [gap between rows, gap between columns]; a row of pixels runs along the first array axis.
        """
        header = self.headers[0]
        row_gap, column_gap = header.pixel_spacing or (math.nan, math.nan)
        affine = np.eye(4)
        affine[:3, :3] = LPS_TO_RAS @ np.column_stack([self.axes[0] * column_gap, self.axes[1] * row_gap, step])
        affine[:3, 3] = LPS_TO_RAS @ first
        return Grid((header.columns, header.rows, num_slices), affine)

    def missing(self) -> str:
        """Between which slices others are missing, for people."""
        wide = np.flatnonzero(self.gaps > 1.5 * middle(self.gaps))
        return listed([f"{self.at(int(i))} and {self.at(int(i) + 1)}" for i in wide])

    def at(self, index: int) -> str:
        """File and height of a slice, for people."""
        return f"{self.headers[index].name} ({self.heights[index]:.2f} mm)"


def middle(values: Array) -> float:
    """The median; numpy's own imports masked arrays at its first call, 10 ms of a short command."""
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _changes_once(steps: Array) -> bool:
    """True if the gap is wider from some slice on, as scanned: thin slices at the base of a skull, thick ones above."""
    wide = np.flatnonzero(steps > 1)
    is_run = len(wide) >= _LEAST_RUN and wide[-1] - wide[0] + 1 == len(wide) and len(set(steps[wide])) == 1
    return is_run and (wide[0] == 0 or wide[-1] == len(steps) - 1)


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
    """The stack that the slices of one volume are: parallel, each at a place of its own, along one line.

    Raises:
        DicomError: if they are none; the message says why, which files show it, and what to do.
    """
    axes = axes_of(headers[0])
    if len(headers) == 1:
        place = np.array([headers[0].position])
        return Stack(tuple(headers), axes, place, axes[2] * (depth_mm(headers[0]) or 1.0))
    ordered = sorted(headers, key=lambda header: (float(np.dot(header.position or (), axes[2])), header.name))
    places = np.array([header.position for header in ordered])
    _refuse_one_place(ordered, places @ axes[2])
    _refuse_sideways(ordered, places, axes[2])
    return Stack(tuple(ordered), axes, places, (places[-1] - places[0]) / (len(places) - 1))


def axes_of(header: Header) -> Array:
    """(3, 3) LPS unit vectors in rows: along a row of pixels, along a column of pixels, and the slices' normal."""
    row, column = np.array(header.orientation).reshape(2, 3)
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    normal = np.cross(row, column)
    return np.array([row, column, normal / np.linalg.norm(normal)])


def heights_of(headers: Sequence[Header], axes: Array) -> Array:
    """(N,) mm along the normal."""
    return np.asarray(np.array([header.position for header in headers]) @ axes[2])


def places_of(heights: Array) -> list[int]:
    """(N,) which place each slice is at, counted along the normal; slices at one height share it."""
    order = np.argsort(heights, kind="stable")
    steps = np.diff(heights[order], prepend=-math.inf) > SAME_PLACE_MM
    place = np.empty(len(heights), int)
    place[order] = np.cumsum(steps) - 1
    return [int(where) for where in place]


def listed(items: Sequence[str]) -> str:
    """The first few, and how many more."""
    rest = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + rest


def named(headers: Sequence[Header]) -> str:
    """Names of files."""
    return listed([header.name for header in headers])


def count(number: int, one: str, many: str) -> str:
    """A number and the words that go with it."""
    return f"{number} {one if number == 1 else many}"


def depth_mm(header: Header) -> float | None:
    """How deep a single slice is by its own word; None where it does not say."""
    return next((abs(gap) for gap in (header.thickness, header.stated_gap) if gap), None)


def _refuse_one_place(ordered: list[Header], heights: Array) -> None:
    if heights[-1] - heights[0] <= SAME_PLACE_MM:
        raise DicomError(f"all {len(ordered)} images lie at one place, {named(ordered)}; keep one of them")


def _refuse_sideways(ordered: list[Header], places: Array, normal: Array) -> None:
    """Slices may shift sideways as they rise, evenly, as under a gantry tilt; not otherwise."""
    offsets = places - places[0]
    heights = offsets @ normal
    sideways = offsets - np.outer(heights, normal)
    lean = heights @ sideways / (heights @ heights)
    shifts = np.linalg.norm(sideways - np.outer(heights, lean), axis=1)
    shifts -= shifts.min()
    if shifts.max() > position_tolerance_mm(middle(np.diff(heights))):
        odd = [ordered[int(i)] for i in np.argsort(-shifts)]
        raise DicomError(
            f"the slices are shifted sideways by up to {shifts.max():.2f} mm, most of all {odd[0].name}; "
            "they are no one stack, move the odd ones out of the folder"
        )
