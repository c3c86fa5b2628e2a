"""What a volume remembers of the DICOM files that it came from."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom import Dataset

from medgan.volume import Grid

__all__ = ["Source"]


@dataclass(frozen=True, eq=False)
class Source:
    """A series of slices without their pixels: what a derived series takes over from them.

    Args:
        grid: (columns, rows, slices) where the files put their voxels, RAS+ mm.
        slices: one dataset a slice, in the order of the grid's last axis; no pixels, no private attributes.
    """

    grid: Grid
    slices: tuple[Dataset, ...]
