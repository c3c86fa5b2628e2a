"""Shapes and smooth noise in millimetres, evaluated at any points: what the phantom is drawn with.

Points are (3, N) float32, one row each for x, y and z. A distance is negative inside a shape. It is exact for
tubes and a close estimate near the surface of ellipsoids and of everything joined smoothly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

__all__ = ["Array", "Ball", "Lattice", "Shape", "Tube", "Vector", "Waves", "fold", "join", "rotation"]

Array = npt.NDArray[np.float32]
Vector = tuple[float, float, float]


class Shape(Protocol):
    """Something with an inside."""

    @property
    def box(self) -> Array:
        """(2, 3) lowest and highest corner of a box around it, mm."""

    def distance(self, points: Array) -> Array:
        """(N,) signed distance to the surface, mm, negative inside."""


@dataclass(frozen=True)
class Ball:
    """An ellipsoid.

    Args:
        centre: x, y, z in mm.
        radii: semi-axes in mm.
        turn_deg: turned about the x, then the y, then the z axis, degrees.
    """

    centre: Vector
    radii: Vector
    turn_deg: Vector = (0, 0, 0)

    @cached_property
    def box(self) -> Array:
        """(2, 3) corners of a box around it, mm."""
        reach = np.linalg.norm(rotation(self.turn_deg) * np.array(self.radii), axis=1)
        return np.stack([self.centre - reach, self.centre + reach]).astype(np.float32)

    def distance(self, points: Array) -> Array:
        """(N,) distance by the first-order estimate k0 (k0 - 1) / k1, mm."""
        local = points - np.array(self.centre, np.float32)[:, None]
        if any(self.turn_deg):
            local = rotation(self.turn_deg).T.astype(np.float32) @ local
        local /= np.array(self.radii, np.float32)[:, None]
        k0 = _norm(local)
        local /= np.array(self.radii, np.float32)[:, None]
        return np.asarray(k0 * (k0 - 1) / np.maximum(_norm(local), np.float32(1e-6)))


@dataclass(frozen=True)
class Tube:
    """A chain of cones with round joints.

    Args:
        knots: points along it, mm.
        radii: its radius at each knot, mm.
    """

    knots: tuple[Vector, ...]
    radii: tuple[float, ...]

    @cached_property
    def box(self) -> Array:
        """(2, 3) corners of a box around it, mm."""
        knots, radii = np.array(self.knots), np.array(self.radii)[:, None]
        return np.stack([(knots - radii).min(axis=0), (knots + radii).max(axis=0)]).astype(np.float32)

    def distance(self, points: Array) -> Array:
        """(N,) distance to the nearest of its parts, mm."""
        ends = list(zip(self.knots, self.radii, strict=True))
        parts = [_cone_distance(points, *a, *b) for a, b in itertools.pairwise(ends)]
        return np.asarray(np.minimum.reduce(parts))


@dataclass(frozen=True, eq=False)
class Waves:
    """Smooth noise of mean 0 and variance 1: a sum of plane waves, hence the same at any point for ever."""

    directions: Array
    phases: Array

    @classmethod
    def drawn(cls, rng: np.random.Generator, *, wavelength_mm: float, count: int = 6, spread: float = 0.25) -> Waves:
        """Waves of random direction whose lengths lie within `spread` of `wavelength_mm`."""
        directions = rng.standard_normal((count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = wavelength_mm * rng.uniform(1 - spread, 1 + spread, (count, 1))
        phases = rng.uniform(0, 2 * np.pi, (count, 1))
        return cls((2 * np.pi / lengths * directions).astype(np.float32), phases.astype(np.float32))

    def __call__(self, points: Array) -> Array:
        """(N,) the noise at points (3, N) in mm."""
        total = np.cos(self.directions @ points + self.phases).sum(axis=0)
        return np.asarray(total * np.float32(np.sqrt(2 / len(self.phases))))


@dataclass(frozen=True, eq=False)
class Lattice:
    """A costly smooth field, kept at lattice points and interpolated linearly between them.

    Args:
        values: (X, Y, Z) float32.
        start_mm: position of the first lattice point.
        step_mm: distance between lattice points.
    """

    values: Array
    start_mm: Vector
    step_mm: float

    def __call__(self, points: Array) -> Array:
        """(N,) the field at points (3, N) in mm; beyond the lattice its nearest value."""
        index = (points - np.array(self.start_mm, np.float32)[:, None]) / np.float32(self.step_mm)
        return np.asarray(map_coordinates(self.values, index, order=1, mode="nearest", output=np.float32))


def join(distances: Iterable[Array], softness_mm: float) -> Array:
    """The union of shapes, its inner edges filleted over about `softness_mm` (polynomial smooth minimum)."""
    total, *others = distances
    for other in others:
        blend = np.clip(0.5 + 0.5 * (other - total) / softness_mm, 0, 1, dtype=np.float32)
        total = other + blend * (total - other) - softness_mm * blend * (1 - blend)
    return np.asarray(total, dtype=np.float32)


def fold(points: Array) -> Array:
    """(3, N) points with |x| for x: what stands on the right side stands for both.

    Example:
        >>> fold(np.array([[-2], [3], [4]], np.float32))[:, 0].tolist()
        [2.0, 3.0, 4.0]
    """
    return np.stack([np.abs(points[0]), points[1], points[2]])


def rotation(turn_deg: Vector) -> npt.NDArray[np.float64]:
    """(3, 3) rotation about the x, then the y, then the z axis.

    Example:
        >>> (rotation((0, 0, 90)) @ [1, 0, 0]).round().tolist()
        [0.0, 1.0, 0.0]
    """
    matrix = np.eye(3)
    for axis, degrees in enumerate(turn_deg):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn, (i, j) = np.eye(3), ((axis + 1) % 3, (axis + 2) % 3)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = cosine, -sine, sine, cosine
        matrix = turn @ matrix
    return matrix


def _norm(points: Array) -> Array:
    return np.asarray(np.sqrt(np.einsum("cn,cn->n", points, points)))


def _cone_distance(points: Array, a: Vector, radius_a: float, b: Vector, radius_b: float) -> Array:
    start = np.array(a, np.float32)
    along = np.array(b, np.float32) - start
    offset = points - start[:, None]
    share = np.clip(along @ offset / max(float(along @ along), 1e-9), 0, 1, dtype=np.float32)
    return np.asarray(_norm(offset - along[:, None] * share) - (radius_a + np.float32(radius_b - radius_a) * share))
