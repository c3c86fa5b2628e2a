"""What is done about slices that are missing, lean, or are not evenly apart, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import DicomError
from medgan.formats.dicom.stack import SAME_PLACE_MM, Stack, count
from medgan.formats.dicom.straighten import ladder_gap_mm, straight_grid, straightened
from medgan.volume import Grid

__all__ = ["Plan", "Repair", "is_moving", "plan"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Repair:
    """What may be done to get one regular grid.

    Args:
        fill: interpolate slices that are missing, damaged or cut off; of a 4-D series leave incomplete volumes out.
        resample: True also resamples where slices seem to be missing, as if the gap were wider there; None resamples
            stacks that lean (gantry tilt) or are not evenly apart; False never resamples: a leaning stack keeps its
            sheared grid, and one that is not even is refused.
    """

    fill: bool = False
    resample: bool | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """How slices become a volume.

    Args:
        grid: of the volume.
        resamples: False where each slice of the grid is one of the slices as they are.
        told: what is done, for people.
    """

    grid: Grid
    resamples: bool = False
    told: tuple[str, ...] = ()

    def apply(self, array: Array, stack: Stack) -> Array:
        """(X, Y, Z) on the grid, of (columns, rows, N) on the slices."""
        return straightened(array, stack, self.grid) if self.resamples else array


def plan(stack: Stack, repair: Repair) -> Plan:
    """How the slices of a volume become a volume on one grid.

    Raises:
        DicomError: if slices are missing or not even and that may not be repaired.
    """
    if stack.grid is not None and not stack.lean_deg:
        return Plan(stack.grid)
    if stack.num_missing and not repair.resample:
        return _filled(stack, repair)
    if repair.resample is False:
        return _as_it_is(stack)
    gap = float(stack.gaps.mean()) if stack.is_even else ladder_gap_mm(stack)
    return Plan(straight_grid(stack, gap), True, tuple(_told(stack, gap)))


def _filled(stack: Stack, repair: Repair) -> Plan:
    lost = count(stack.num_missing, "slice is", "slices are")
    if not repair.fill:
        raise DicomError(
            f"{lost} missing (or the gap is wider there), between {stack.missing()}; send the series again, "
            "or let --fill interpolate what is lost, or --resample take the gaps as they are"
        )
    gap = float(stack.heights[-1] - stack.heights[0]) / (len(stack.gaps) + stack.num_missing)
    lean = (_tilt(stack),) if stack.lean_deg else ()
    told = f"{lost} missing between {stack.missing()}, interpolated from the neighbours"
    return Plan(straight_grid(stack, gap), True, (told, *lean))


def _as_it_is(stack: Stack) -> Plan:
    if stack.grid is None:
        raise DicomError(
            f"{_uneven(stack)}: no one affine can say that; let them be resampled, which is what happens by default"
        )
    return Plan(
        stack.grid, told=(f"gantry tilt: the slices lean by {stack.lean_deg:.1f} degrees, the grid is sheared",)
    )


def _told(stack: Stack, gap_mm: float) -> list[str]:
    uneven = [] if stack.is_even else [f"{_uneven(stack)}, resampled to one every {gap_mm:.4g} mm"]
    return [*([_tilt(stack)] if stack.lean_deg else []), *uneven]


def _tilt(stack: Stack) -> str:
    return f"gantry tilt: the slices lean by {stack.lean_deg:.1f} degrees, resampled to a straight grid"


def _uneven(stack: Stack) -> str:
    widest = int(stack.gaps.argmax())
    return (
        f"the gap between slices varies from {stack.gaps.min():.3f} to {stack.gaps.max():.3f} mm "
        f"(widest between {stack.at(widest)} and {stack.at(widest + 1)})"
    )


def is_moving(stacks: Sequence[Stack]) -> bool:
    """True if the volumes of a 4-D series do not all lie where the first one lies."""
    first = stacks[0].places
    return any(float(np.abs(stack.places - first).max()) > 2 * SAME_PLACE_MM for stack in stacks[1:])
