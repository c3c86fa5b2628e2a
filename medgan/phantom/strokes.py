"""The parts of the head that are drawn one over the other, in the mean head's frame.

All stand at |x|: what is drawn on one side is there on both, until the warp of `Traits` makes the sides differ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medgan.phantom.shapes import Array, Ball, Shape, Tube, Vector
from medgan.phantom.tissue import Tissue
from medgan.phantom.traits import Traits

__all__ = ["Stroke", "airways", "bones", "brain_core", "openings", "orbits", "paint", "soft_parts", "spine"]

Labels = npt.NDArray[np.uint8]
BONE, SPONGY, AIR = Tissue.CORTICAL_BONE, Tissue.SPONGY_BONE, Tissue.AIRWAY
UPPER_ARCH = ((33.0, 28.0), (30.0, 46.0), (23.0, 60.0), (12.0, 70.0), (0.0, 73.0))


class Stroke(NamedTuple):
    """One shape of one tissue.

    Args:
        tissue: what it is made of.
        shape: where it is.
        grow_mm: how far it reaches beyond the shape.
        front_mm: it ends at this y.
    """

    tissue: Tissue
    shape: Shape
    grow_mm: float = 0
    front_mm: float = 1e3


def paint(labels: Labels, points: Array, strokes: tuple[Stroke, ...]) -> None:
    """Draw strokes in their order over `labels` (N,) at points (3, N) in mm, in place."""
    if not len(labels):
        return
    low, high = points.min(axis=1), points.max(axis=1)
    for tissue, shape, grow_mm, front_mm in strokes:
        start, stop = shape.box[0] - grow_mm, shape.box[1] + grow_mm
        stop[1] = min(stop[1], front_mm)
        if (start > high).any() or (stop < low).any():
            continue
        near = np.flatnonzero(_between(points, start, stop))
        labels[near[shape.distance(points[:, near]) < grow_mm]] = tissue


def soft_parts() -> tuple[Stroke, ...]:
    """Muscles of chewing, the tongue and the lining of the nose."""
    return (
        Stroke(Tissue.MUSCLE, Ball((68, 12, -12), (12, 34, 40))),
        Stroke(Tissue.MUSCLE, Ball((55, 26, -84), (8, 15, 27))),
        Stroke(Tissue.MUSCLE, Ball((31, 16, -68), (10, 13, 19))),
        Stroke(Tissue.MUSCLE, Ball((0, 40, -95), (23, 31, 17))),
        Stroke(Tissue.MUCOSA, Ball((0, 58, -53), (16, 38, 23))),
        Stroke(Tissue.MUSCLE, Tube(((28, 66, -100), (0, 80, -96)), (6, 6))),
        Stroke(Tissue.MUCOSA, Ball((0, 94, -56), (9, 13, 12))),
    )


def bones(traits: Traits) -> tuple[Stroke, ...]:
    """The bones of the face and of the base of the skull."""
    return (
        Stroke(BONE, _orbit(), 2.2, front_mm=67),
        Stroke(BONE, Tube(((6, 82, -19), (24, 79, -13), (46, 66, -17), (51, 58, -30)), (4, 5, 4, 4))),
        Stroke(BONE, Tube(((38, 66, -53), (54, 54, -49), (67, 22, -47), (71, -10, -45)), (6, 6, 2.6, 3))),
        Stroke(SPONGY, Tube(((40, 64, -53), (53, 54, -49)), (3, 3))),
        Stroke(BONE, _maxillary(traits), 2),
        Stroke(BONE, Tube(((0, 85, -22), (0, 95, -39)), (4, 2.5))),
        Stroke(BONE, Tube(((14, 78, -30), (17, 75, -62)), (4, 5))),
        Stroke(BONE, Ball((0, 47, -83), (28, 29, 9))),
        Stroke(Tissue.MUSCLE, Ball((0, 45, -87), (26, 29, 10))),
        *_jaw(Tube(tuple((x, y, -81.0) for x, y in UPPER_ARCH), (6,) * 5)),
        *_jaw(_mandible()),
        *_teeth(-90),
        *_teeth(-101),
        Stroke(BONE, Ball((0, 12, -37), (19, 19, 15))),
        Stroke(SPONGY, Tube(((0, -2, -38), (0, -20, -63)), (10, 8))),
        Stroke(BONE, Tube(((15, 16, -45), (14, 14, -72)), (3, 2.5))),
        Stroke(Tissue.PETROUS_BONE, Tube(((62, -27, -46), (18, -4, -42)), (10, 5))),
        Stroke(BONE, Ball((60, -38, -56), (14, 16, 22))),
        Stroke(SPONGY, Ball((60, -38, -58), (11, 13, 18))),
        Stroke(BONE, Ball((20, -33, -68), (8, 13, 7))),
        Stroke(BONE, Ball((12, 79, -13), (17, 10, 16))),
        Stroke(SPONGY, Ball((12, 78, -13), (14, 8, 13))),
        *(Stroke(BONE, lobe, 1.6) for lobe in _frontal(traits)),
    )


def spine() -> tuple[Stroke, ...]:
    """The upper neck: vertebrae, the canal and the cord in it."""
    levels = (-103.0, -122.0, -141.0, -160.0)
    atlas = (Ball((22, -34, -79), (11, 9, 9)), Tube(((24, -38, -80), (14, -60, -81), (0, -64, -81)), (4, 4, 4)))
    axis = (Ball((0, -19, -88), (6, 6, 15)), Ball((14, -30, -96), (13, 9, 6)))
    bodies = tuple(Ball((0, -19, level), (13, 10, 8)) for level in levels)
    arches = tuple(Tube(((15, -28, z), (17, -42, z), (0, -62, z - 5)), (5, 5, 4)) for z in levels)
    vertebrae: tuple[Shape, ...] = (*atlas, *axis, *bodies, *arches)
    canal = Tube(((0, -40, -58), (0, -42, -70), (0, -42, -180)), (17, 14, 9))
    cord = Tube(((0, -36, -50), (0, -40, -70), (0, -42, -180)), (9, 7, 5))
    return (
        *(Stroke(BONE, shape) for shape in vertebrae),
        *(Stroke(SPONGY, shape, -2.2) for shape in vertebrae),
        Stroke(Tissue.CSF, canal),
        Stroke(Tissue.BRAIN_STEM, cord),
    )


def airways(traits: Traits, rng: np.random.Generator) -> tuple[Stroke, ...]:
    """Nasal cavity, sinuses, throat and the cells of the temporal bone."""
    cells = [(9.0 + 4 * (row % 2), 32.0 + 8.5 * row, -31.0 - 5 * deep) for row in range(6) for deep in range(2)]
    return (
        *(Stroke(AIR, Ball(cell, _scaled((4.5, 4.2, 4.0), traits.sinuses))) for cell in cells),
        Stroke(AIR, Ball((9.5, 14, -38), _scaled((8, 11, 9), traits.sinuses))),
        Stroke(AIR, _maxillary(traits)),
        *(Stroke(AIR, lobe) for lobe in _frontal(traits)),
        Stroke(AIR, Ball((7.5, 55, -54), (5.5, 36, 19))),
        Stroke(Tissue.MUCOSA, Ball((10, 54, -66), (4.2, 28, 5.5))),
        Stroke(Tissue.MUCOSA, Ball((10, 50, -52), (3.5, 24, 4.5))),
        Stroke(AIR, Tube(((0, 22, -62), (0, 7, -70), (0, 3, -100), (0, 4, -180)), (9, 8, 6, 9))),
        Stroke(AIR, Ball((49, -21, -43), (4, 6, 6))),
        *_mastoid_cells(traits, rng),
    )


def openings() -> tuple[Stroke, ...]:
    """Where air comes in: nostrils and ear canals, the only strokes that pierce the skin."""
    return (
        Stroke(AIR, Tube(((6, 99, -66), (7, 86, -63)), (3.4, 4))),
        Stroke(AIR, Tube(((90, -25, -43), (68, -24, -45), (52, -21, -43)), (5, 3.4, 3))),
    )


def orbits() -> tuple[Stroke, ...]:
    """Fat, eye muscles, optic nerves and eyes."""
    apex, eye = (15.0, 22.0, -29.0), (32.0, 61.0, -33.0)
    ends = ((43.5, 60, -33), (22, 64, -33), (32, 60, -22.5), (32, 60, -43.5))
    middles = ((38, 42, -32), (19, 44, -33), (27, 42, -22), (27, 42, -42))
    muscles = [Tube((apex, middle, end), (1.5, 2.6, 1)) for middle, end in zip(middles, ends, strict=True)]
    return (
        Stroke(Tissue.FAT, _orbit(), 0, front_mm=76),
        *(Stroke(Tissue.MUSCLE, muscle) for muscle in muscles),
        Stroke(Tissue.CSF, Tube((apex, (25, 40, -32), eye), (2.4, 2.9, 2.9))),
        Stroke(Tissue.WHITE, Tube(((9, 8, -25), apex, (25, 40, -32), eye), (2, 1.6, 1.8, 1.8))),
        Stroke(Tissue.MUSCLE, Ball(eye, (12.4, 12.4, 12.4))),
        Stroke(Tissue.VITREOUS, Ball(eye, (11.3, 11.3, 11.3))),
        Stroke(Tissue.VITREOUS, Ball((32, 69.5, -33), (5.5, 5, 5.5))),
        Stroke(Tissue.LENS, Ball((32, 68.5, -33), (4.8, 2.2, 4.8))),
    )


def brain_core(traits: Traits) -> tuple[Stroke, ...]:
    """Brain stem, nuclei and ventricles."""
    deep, stem = Tissue.DEEP_GREY, Tissue.BRAIN_STEM
    wide = traits.ventricles
    horns = Tube(
        ((8, 31, 4), (7, 18, 15), (8, -4, 22), (13, -28, 20), (24, -44, 9), (22, -66, 3)),
        tuple(wide * radius for radius in (4, 5, 4.5, 5, 6.5, 1.6)),
    )
    return (
        Stroke(Tissue.WHITE, Tube(((9, -20, -14), (19, -8, 6)), (7, 8))),
        Stroke(Tissue.GREY, Ball((5, -2, -9), (5, 9, 7))),
        Stroke(deep, Tube(((0, 3, -13), (0, 3, -23)), (1.3, 5))),
        Stroke(stem, Tube(((0, -22, -2), (0, -25, -16)), (11, 13))),
        Stroke(stem, Tube(((8, -17, -10), (7, -22, -22)), (7, 8))),
        Stroke(stem, Ball((0, -23, -31), (18, 14, 15))),
        Stroke(stem, Tube(((0, -31, -40), (0, -36, -54), (0, -40, -72)), (12, 9, 7))),
        Stroke(Tissue.CEREBELLUM_WHITE, Tube(((14, -28, -32), (22, -48, -36)), (6, 7))),
        Stroke(deep, Ball((26, 3, 2), (6, 19, 11), (0, 0, -12))),
        Stroke(Tissue.WHITE, Ball((19.5, -2, 0), (2.0, 12, 9), (0, 0, -14))),
        Stroke(deep, Ball((11, -18, 7), (8.5, 15, 9.5), (0, 0, 18))),
        Stroke(deep, Tube(((13, 24, 5), (13, 10, 15), (16, -16, 23)), (6, 5, 2.5))),
        Stroke(Tissue.GREY, Tube(((25, -8, -20), (30, -26, -13)), (7, 5))),
        Stroke(Tissue.CSF, horns),
        Stroke(Tissue.CSF, Ball((9, 8, 16), (3.5 * wide, 20, 6.5 * wide), (0, 28, 0))),
        Stroke(Tissue.CSF, Tube(((24, -44, 9), (31, -36, -8), (34, -10, -20)), _scaled((5, 2.6, 1.8), wide))),
        Stroke(Tissue.CSF, Ball((0, -12, 3), (1.6 * wide, 18, 13))),
        Stroke(Tissue.CSF, Tube(((0, -29, 0), (0, -36, -22)), (1.1, 1.1))),
        Stroke(Tissue.CSF, Ball((0, -41, -34), _scaled((9, 4.5, 12), 0.5 + 0.5 * wide))),
    )


def _between(points: Array, start: Array, stop: Array) -> npt.NDArray[np.bool_]:
    inside = (points[2] >= start[2]) & (points[2] <= stop[2])
    for axis in (0, 1):
        inside &= (points[axis] >= start[axis]) & (points[axis] <= stop[axis])
    return np.asarray(inside)


def _scaled(radii: Vector, factor: float) -> Vector:
    x, y, z = radii
    return x * factor, y * factor, z * factor


def _orbit() -> Tube:
    return Tube(((33, 64, -34), (28, 48, -34), (15, 20, -30)), (18, 16, 5))


def _maxillary(traits: Traits) -> Ball:
    x, y, z = _scaled((12.5, 17, 16), traits.sinuses)
    return Ball((31, 50, -61), (x, y, z), (0, 0, 15))


def _frontal(traits: Traits) -> tuple[Ball, ...]:
    x, y, z = _scaled((7, 5.5, 11), traits.sinuses)
    return Ball((8.5, 81.5, -12), (x, y, z)), Ball((20, 78.5, -11), (0.9 * x, 0.8 * y, 0.7 * z))


def _mandible() -> Tube:
    knots = ((0, 74, -116), (22, 64, -115), (40, 38, -110), (50, 10, -102), (51, 2, -82), (51, -3, -52))
    return Tube(knots, (8, 7.5, 7, 6, 5, 4.5))


def _jaw(shape: Tube) -> tuple[Stroke, Stroke]:
    return Stroke(BONE, shape), Stroke(SPONGY, shape, -2.4)


def _teeth(level_mm: float) -> tuple[Stroke, ...]:
    knots = np.array(UPPER_ARCH)
    length = np.r_[0, np.linalg.norm(np.diff(knots, axis=0), axis=1).cumsum()]
    at = np.linspace(2, length[-1] - 4, 8)
    places = zip(np.interp(at, length, knots[:, 0]), np.interp(at, length, knots[:, 1]), strict=True)
    return tuple(Stroke(Tissue.TOOTH, Ball((float(x), float(y), level_mm), (3.4, 3.4, 7))) for x, y in places)


def _mastoid_cells(traits: Traits, rng: np.random.Generator) -> tuple[Stroke, ...]:
    spots = rng.uniform(-1, 1, (60, 3))
    spots = spots[np.linalg.norm(spots, axis=1) < 1] * (11, 12, 18) + (60, -38, -56)
    sizes = rng.uniform(1.6, 3.4, len(spots)) * traits.sinuses
    return tuple(
        Stroke(AIR, Ball((x, y, z), (r, r, r))) for (x, y, z), r in zip(spots.tolist(), sizes.tolist(), strict=True)
    )
