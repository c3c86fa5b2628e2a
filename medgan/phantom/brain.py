"""The brain: a folded cortex around white matter, the fissures between its parts, and the cerebellum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medgan.phantom.shapes import Array, Ball, Lattice, Waves, fold, join
from medgan.phantom.strokes import Stroke, brain_core, paint
from medgan.phantom.tissue import Tissue
from medgan.phantom.traits import Traits

__all__ = ["Brain"]

Labels = npt.NDArray[np.uint8]
STEP_MM = 2.5
LOW_MM, HIGH_MM = (-76.0, -112.0, -56.0), (76.0, 84.0, 88.0)
CALLOSUM = Ball((0, -6, 4), (40, 40, 27))
INSULA = Ball((41, -3, 2), (1.3, 22, 11))
CISTERNS = (Ball((0, -4, -24), (14, 17, 11)), Ball((0, -25, -14), (19, 13, 13)), Ball((0, -21, -32), (20, 15, 17)))
CEREBELLUM = (Ball((25, -63, -36), (29, 32, 25), (0, 0, 12)), Ball((0, -64, -31), (16, 28, 25)))


@dataclass(frozen=True, eq=False)
class Brain:
    """The contents of the skull.

    Args:
        traits: the head's measures.
        sheets: signed distance to the nearest sheet on which a sulcus lies, mm.
        slow: noise by which depths and gaps vary from place to place.
        core: brain stem, nuclei and ventricles.
    """

    traits: Traits
    sheets: Lattice
    slow: Waves
    core: tuple[Stroke, ...]

    @classmethod
    def drawn(cls, traits: Traits, rng: np.random.Generator) -> Brain:
        """The brain that fits `traits`."""
        return cls(traits, _sheets(traits.fold_mm, rng), Waves.drawn(rng, wavelength_mm=60), brain_core(traits))

    def labels(self, points: Array, cavity: Array) -> Labels:
        """(N,) tissues at points (3, N) in the mean head's frame that lie `cavity` (N,) < 0 mm within the skull."""
        folded = fold(points)
        noise = self.slow(points)
        labels = np.full(len(cavity), Tissue.CSF, np.uint8)
        cerebellum = join([ball.distance(folded) for ball in CEREBELLUM], 6)
        self._paint_cerebrum(labels, points, cavity, cerebellum, noise)
        self._paint_cerebellum(labels, folded, cavity, cerebellum, noise)
        self._paint_midline(labels, points, cavity)
        paint(labels, folded, self.core)
        return labels

    def _paint_cerebrum(self, labels: Labels, points: Array, cavity: Array, cerebellum: Array, noise: Array) -> None:
        folded = fold(points)
        hull = self._hull_depth(folded, cavity, cerebellum, noise)
        fissure = np.minimum(_fissure(points), _sylvian(folded, noise)) - np.float32(self.traits.cleft_mm + 0.2)
        depth = np.minimum(hull, fissure)
        near = np.flatnonzero(depth > 0)
        reach = depth[near] - (14 + 5 * noise[near])
        sheet = np.hypot(self.sheets(points[:, near]), np.maximum(reach, 0)) - np.float32(self.traits.cleft_mm)
        ribbon = np.minimum(depth[near], sheet)
        labels[near[ribbon > 0]] = Tissue.GREY
        labels[near[ribbon > self.traits.cortex_mm]] = Tissue.WHITE

    def _hull_depth(self, folded: Array, cavity: Array, cerebellum: Array, noise: Array) -> Array:
        """(N,) mm within the cerebrum as if it had no folds."""
        cistern = join([ball.distance(folded) for ball in CISTERNS], 6)
        tent = _above_tentorium(folded)
        behind = np.maximum(cerebellum, tent)
        skull_gap = self.traits.csf_mm * (1 + 0.3 * noise)
        return np.asarray(np.minimum.reduce([-cavity - skull_gap, behind - 1.5, cistern, tent]))

    def _paint_cerebellum(self, labels: Labels, folded: Array, cavity: Array, cerebellum: Array, noise: Array) -> None:
        depth = np.minimum.reduce([-cerebellum, -cavity - 3, -_above_tentorium(folded) + 1])
        near = np.flatnonzero(depth > 0)
        x, y, z = folded[:, near]
        folia = np.cos(22 * np.arctan2(z + 36 - 0.2 * x, 38 + y) + 0.01 * x**2 + 3 * noise[near])
        labels[near] = Tissue.CEREBELLUM_GREY
        labels[near[(folia > 0.9) & (depth[near] < 5)]] = Tissue.CSF
        labels[near[depth[near] > 8.5 + 4 * folia]] = Tissue.CEREBELLUM_WHITE

    def _paint_midline(self, labels: Labels, points: Array, cavity: Array) -> None:
        side, arch = np.abs(points[0]), _above_callosum(points)
        callosum = (arch < 0) & (arch > -6) & (side < 18) & (points[2] > -6 + 0.3 * np.abs(points[1]))
        labels[callosum] = Tissue.WHITE
        falx = (np.abs(points[0] - _midline(points)) < 0.6) & (arch > 4) & (points[2] > -4) & (labels == Tissue.CSF)
        labels[falx] = Tissue.DURA
        upper = (points[2] > 24) | ((points[1] < -70) & (points[2] > -16))
        labels[upper & (side < 0.8 * (6.5 + cavity))] = Tissue.BLOOD


def _sheets(fold_mm: float, rng: np.random.Generator) -> Lattice:
    """Signed distance to the zero level of waves that run along the surface of each hemisphere."""
    axes = [np.arange(low, high, STEP_MM, dtype=np.float32) for low, high in zip(LOW_MM, HIGH_MM, strict=True)]
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
    waves, wander = Waves.drawn(rng, wavelength_mm=fold_mm, count=36, spread=0.15), _wander(rng)
    level = waves(_spread(points) + 6 * np.stack([wave(points) for wave in wander])).reshape(
        [len(axis) for axis in axes]
    )
    slope = np.sqrt(sum(part**2 for part in np.gradient(level, STEP_MM)) + (0.25 * 2 * np.pi / fold_mm) ** 2)
    return Lattice((level / slope).astype(np.float32), LOW_MM, STEP_MM)


def _wander(rng: np.random.Generator) -> tuple[Waves, ...]:
    return tuple(Waves.drawn(rng, wavelength_mm=40) for _ in range(3))


def _spread(points: Array) -> Array:
    """(3, N) points moved along rays from their hemisphere's axis to 42 mm from it, so that sulci dive inwards."""
    axis = np.stack([np.where(points[0] < 0, -27, 27), np.clip(points[1], -62, 36), np.full(points.shape[1], 14)])
    ray = points - axis.astype(np.float32)
    return np.asarray(axis + ray * (42 / np.maximum(np.linalg.norm(ray, axis=0), 8)) ** 0.7, dtype=np.float32)


def _midline(points: Array) -> Array:
    return np.asarray(0.8 * np.sin(points[1] / 30) + 0.5 * np.sin(points[2] / 28), dtype=np.float32)


def _fissure(points: Array) -> Array:
    """(N,) mm from the sheet between the hemispheres, which ends at the corpus callosum."""
    return np.asarray(np.hypot(points[0] - _midline(points), np.maximum(-_above_callosum(points), 0)))


def _above_callosum(points: Array) -> Array:
    """(N,) mm from the arch of the corpus callosum outwards."""
    return CALLOSUM.distance(points * np.array([[0], [1], [1]], np.float32))


def _sylvian(folded: Array, noise: Array) -> Array:
    """(N,) mm from the lateral sulcus: a sheet from the side down to the insula, and the cleft over the insula."""
    x, y, z = folded
    along = np.clip(y, -36, 24)
    across = 0.93 * (z - 3 * noise - (-8 + 0.36 * (22 - along)))
    sheet = np.sqrt(across**2 + np.maximum(41 - x, 0) ** 2 + (y - along) ** 2)
    return np.asarray(np.minimum(sheet, INSULA.distance(folded)))


def _above_tentorium(folded: Array) -> Array:
    """(N,) mm above the tent between cerebrum and cerebellum; far above it in front of its edge."""
    x, y, z = folded
    tent = -7 - 0.0062 * x**2 - 0.22 * np.maximum(-48 - y, 0)
    return np.asarray(0.92 * (z - tent) + 3 * np.maximum(y + 36 - 0.35 * x, 0), dtype=np.float32)
