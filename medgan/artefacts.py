"""What scanners leave in an image besides anatomy, and what they leave out of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medgan.alignment import shrunk
from medgan.plausible import Fault
from medgan.prep import foreground
from medgan.volume import Volume

__all__ = ["Artefacts", "artefacts"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
SIDES = {"R": "right", "L": "left", "A": "front", "P": "back"}
METAL_HU, SOLID_HU = 3000, -400
MOST_CUT, MOST_OUTSIDE_ML, MOST_METAL_ML = 0.1, 20.0, 0.1
MOST_GHOSTING = 0.02
_AIR_MM, _LEAST_AIR = 8.0, 500


@dataclass(frozen=True)
class Artefacts:
    """What was seen of one image. None: it cannot be told of such an image.

    Args:
        body_ml: volume of the largest bright thing, its holes filled, ml.
        cut: the greatest share (0..1) of the right, left, front or back border of the image that is body.
        cut_side: which border that is.
        outside_ml: of the largest solid thing beside the body (couch, holders, cushions), ml; only in HU.
        metal_ml: above 3000 HU, ml; only in HU.
        ghosting: how much brighter air is in line with the body along one axis than along another, as a share of the
            body's median: copies of what moved lie there. Only where there is air that is not blank, and not in HU.
        blank_slices: slices of one value between others.
        repeated_slices: slices equal to the one before.
    """

    body_ml: float
    cut: float
    cut_side: str
    outside_ml: float | None
    metal_ml: float | None
    ghosting: float | None
    blank_slices: int
    repeated_slices: int

    def faults(self, name: str) -> Iterator[Fault]:
        """What of it people should know; only blank and repeated slices exclude a case.

        Args:
            name: of the image, for reasons.
        """
        yield from self._of_slices(name)
        if not self.blank_slices:  # they split the body, and what is left of it tells nothing
            yield from self._of_body(name)

    def _of_body(self, name: str) -> Iterator[Fault]:
        if self.cut > MOST_CUT:
            reason = f"the body touches the {self.cut_side} border of {name} with {self.cut:.0%} of it"
            yield Fault("truncated", reason, "keep what was cut off out of scores, by a mask", excludes=False)
        if (self.outside_ml or 0) > MOST_OUTSIDE_ML:
            reason = f"{name} shows {self.outside_ml:.0f} ml of something solid beside the body"
            yield Fault("couch", reason, "set what is outside of the body to air, or give a mask", excludes=False)
        if (self.metal_ml or 0) > MOST_METAL_ML:
            reason = f"{name} has {self.metal_ml:.1f} ml above {METAL_HU} HU, which is metal"
            yield Fault("metal", reason, "look at its streaks", excludes=False)
        if (self.ghosting or 0) > MOST_GHOSTING:
            reason = f"air of {name} is brighter along one axis by {self.ghosting:.1%} of the body"
            yield Fault("ghosts", reason, "look whether the patient moved", excludes=False)

    def _of_slices(self, name: str) -> Iterator[Fault]:
        if self.blank_slices:
            reason = f"{self.blank_slices} slices of {name} are blank between others"
            yield Fault("slices", reason, "export it again, or cut them off")
        if self.repeated_slices:
            reason = f"{self.repeated_slices} slices of {name} equal the one before"
            yield Fault("slices", reason, "export it again, or resample it from what is there")


def artefacts(volume: Volume) -> Artefacts:
    """Look for what was cut off, lies beside the body, is of metal, moved or is missing.

    Args:
        volume: finite and not constant; only one with the unit HU is asked for couch and metal.

    Source:
        Ghosting: the ratio of Giannelli et al. 2010, J Appl Clin Med Phys 11(4), between all axes of the image.

    Example:
        >>> from medgan.phantom import head
        >>> from medgan.volume import Grid
        >>> grid = Grid.regular((48, 60, 40), spacing_mm=(4, 4, 4), origin_mm=(-94, -118, -75))
        >>> seen = artefacts(head(1, grid=grid).ct)
        >>> seen.metal_ml, seen.blank_slices
        (0.0, 0)
    """
    volume = volume.without_padding()
    small = shrunk(volume)
    body = foreground(small.array)
    voxel_ml = float(np.abs(np.linalg.det(small.grid.affine[:3, :3]))) / 1000
    cut, side = _cut(small, body)
    in_hu = volume.unit == "HU"
    return Artefacts(
        float(body.sum()) * voxel_ml,
        cut,
        side,
        _outside(small.array, body, small.grid.spacing_mm) * voxel_ml if in_hu else None,
        _metal_ml(volume) if in_hu else None,
        None if in_hu else _ghosting(small.array, body, small.grid.spacing_mm),
        *_lost_slices(volume.array),
    )


def _cut(small: Volume, body: Mask) -> tuple[float, str]:
    """The share of the border that is body, where it is greatest, and the name of that border."""
    found = [(0.0, "")]
    for axis, upper in enumerate(small.grid.orientation):
        for index, letter in ((-1, upper), (0, _opposite(upper))):
            if letter in SIDES:
                found.append((float(np.take(body, index, axis).mean()), SIDES[letter]))
    return max(found)


def _opposite(letter: str) -> str:
    pairs = {"R": "L", "A": "P", "S": "I"}
    return (pairs | {lower: upper for upper, lower in pairs.items()})[letter]


def _outside(array: Array, body: Mask, spacing_mm: tuple[float, float, float]) -> int:
    """Voxels of the largest solid thing beside the body."""
    near = ndimage.distance_transform_edt(~body, sampling=spacing_mm) < _AIR_MM / 2
    labels, count = ndimage.label((array > SOLID_HU) & ~near)
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0


def _metal_ml(volume: Volume) -> float:
    voxel_ml = float(np.abs(np.linalg.det(volume.grid.affine[:3, :3]))) / 1000
    return float(np.count_nonzero(volume.array >= METAL_HU)) * voxel_ml


def _ghosting(array: Array, body: Mask, spacing_mm: tuple[float, float, float]) -> float | None:
    """Means of air in line with the body along each axis alone: their range, against the median of the body."""
    bright = array > np.percentile(array[body], 1)
    air = ndimage.distance_transform_edt(~(body | bright), sampling=spacing_mm) > _AIR_MM
    if not air.any() or np.mean(array[air] == array.min()) > 0.5:
        return None
    shadows = [np.broadcast_to(body.any(axis=axis, keepdims=True), body.shape) & air for axis in range(3)]
    alone = [own & (np.sum(shadows, axis=0) == 1) for own in shadows]
    means = [float(array[own].mean()) for own in alone if own.sum() > _LEAST_AIR]
    level = float(np.median(array[body])) - float(array[air].min())
    return (max(means) - min(means)) / level if len(means) > 1 and level > 0 else None


def _lost_slices(array: Array) -> tuple[int, int]:
    """How many slices along any axis are blank between others, and how many equal the one before."""
    blank = repeated = 0
    for axis in range(3):
        slices = np.moveaxis(array, axis, 0)
        flat = np.array([one.min() == one.max() for one in slices])
        there = np.flatnonzero(~flat)
        if len(there):
            blank = max(blank, int(flat[there[0] : there[-1]].sum()))
        same = (np.array_equal(one, other) for one, other in zip(slices[1:], slices[:-1], strict=True))
        repeated = max(repeated, sum(equal and not empty for equal, empty in zip(same, flat[1:], strict=True)))
    return blank, repeated
