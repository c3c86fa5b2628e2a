"""One head, known at every point of the world: which tissue is where."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medgan.phantom import strokes
from medgan.phantom.brain import Brain
from medgan.phantom.shapes import Array, Ball, Tube, Waves, fold, join
from medgan.phantom.strokes import Stroke, paint
from medgan.phantom.tissue import Tissue
from medgan.phantom.traits import Traits

__all__ = ["Anatomy", "Lesion"]

Labels = npt.NDArray[np.uint8]
CHUNK = 20_000
REACH_MM = np.array([120.0, 145.0, 125.0])
INNER_TABLE_MM = 1.8
OUTER_TABLE_MM = 1.9
SKIN_MM = 1.9
ALONG_NECK = np.array([[1], [1], [0.4]], np.float32)
VAULT = Ball((0, -15, 15), (70, 91, 65))
FOSSAE = (
    Ball((42, -5, -27), (27, 31, 22)),
    Ball((0, -58, -33), (55, 43, 31)),
    Ball((0, -58, -8), (61, 47, 40)),
    Ball((0, -22, -24), (25, 22, 22)),
    Tube(((0, -34, -40), (0, -41, -68)), (24, 15)),
)
RIDGES = (Tube(((66, -28, -47), (18, -4, -42)), (13, 7)), Ball((26, 54, -46), (46, 27, 25)))
FACE = (
    Ball((0, 34, -45), (66, 53, 54)),
    Ball((0, 40, -98), (50, 46, 36)),
    Ball((0, 76, -113), (18, 14, 14)),
    Ball((0, 82, -86), (22, 9, 9)),
    Ball((0, 82, -54), (19, 16, 19)),
    Ball((48, 12, -18), (30, 44, 46)),
)
NECK = Tube(((0, -32, -60), (0, -36, -120), (0, -36, -400)), (58, 52, 54))
SOCKET = Ball((36, 92, -34), (17, 13, 11))
EAR = Ball((77, -30, -40), (6, 17, 30), (0, 12, 24))


@dataclass(frozen=True)
class Lesion:
    """A mass in the white matter.

    Args:
        centre_mm: RAS+ world position.
        radius_mm: mean radius; its edge wobbles by about a sixth.
    """

    centre_mm: tuple[float, float, float]
    radius_mm: float


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Tissues as a function of world position, the same on whatever grid they are sampled.

    Args:
        traits: the head's measures.
        brain: what is in the skull.
        strokes: what lies on the skull; face and base of the skull; the spine; openings of the skin.
        noise: noise by which the thickness of the skull varies.
        lesion: the mass.
    """

    traits: Traits
    brain: Brain
    strokes: tuple[tuple[Stroke, ...], ...]
    noise: Waves
    lesion: Lesion

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Anatomy:
        """A random adult's head with a lesion in its white matter."""
        traits = Traits.drawn(rng)
        brain = Brain.drawn(traits, rng)
        face = (*strokes.bones(traits), *strokes.airways(traits, rng), *strokes.orbits())
        parts = (strokes.soft_parts(), face, strokes.spine(), strokes.openings())
        healthy = cls(traits, brain, parts, Waves.drawn(rng, wavelength_mm=70), Lesion((0, 0, 0), 0))
        return replace(healthy, lesion=_find_place(healthy, rng))

    def labels_at(self, positions_mm: npt.ArrayLike) -> Labels:
        """Tissue labels (…) at RAS+ world positions (…, 3) in mm.

        Example:
            >>> int(Anatomy.drawn(np.random.default_rng(7)).labels_at((0, 0, 400)))
            0
        """
        positions = np.asarray(positions_mm, dtype=np.float64)
        flat = positions.reshape(-1, 3).T
        labels = np.empty(flat.shape[1], np.uint8)
        for start in range(0, len(labels), CHUNK):
            labels[start : start + CHUNK] = self._labels(flat[:, start : start + CHUNK])
        return labels.reshape(positions.shape[:-1])

    def _labels(self, world: npt.NDArray[np.float64]) -> Labels:
        labels = np.zeros(world.shape[1], np.uint8)
        near = np.flatnonzero(((world[:2] / REACH_MM[:2, None]) ** 2).sum(axis=0) + (world[2] > REACH_MM[2]) < 1)
        if len(near):
            labels[near] = self._tissues(self.traits.to_head(world[:, near]))
            self._add_lesion(labels, world)
        return labels

    def _tissues(self, points: Array) -> Labels:
        folded = fold(points)
        noise = self.noise(points)
        cavity = join([VAULT.distance(_egg(folded)), *(fossa.distance(folded) for fossa in FOSSAE)], 9)
        cavity = -join([-cavity, *(ridge.distance(folded) for ridge in RIDGES)], 5)
        skull = self._skull_mm(folded, noise)
        hull = self._hull(folded, cavity - skull)
        labels = np.zeros(len(hull), np.uint8)
        body = np.flatnonzero(hull < 0)
        labels[body] = self._outside_the_brain(folded[:, body], hull[body], cavity[body], skull[body])
        inside = np.flatnonzero((cavity < 0) & (hull < 0))
        labels[inside] = self.brain.labels(points[:, inside], cavity[inside])
        _, _, spine, openings = self.strokes
        paint(labels, folded, spine)
        _paint_where((hull < 0) & (cavity > INNER_TABLE_MM), labels, folded, openings)
        return labels

    def _skull_mm(self, folded: Array, noise: Array) -> Array:
        """(N,) thickness of the skull: thin at the temples, thick at brow and back."""
        x, y, z = folded
        temple = np.exp(-(((x - 72) / 24) ** 2) - ((y - 8) / 36) ** 2 - ((z + 8) / 28) ** 2)
        ends = 0.25 * np.clip(np.abs(y + 15) / 90, 0, 1) ** 2
        return np.asarray(self.traits.skull_mm * np.maximum(1 + ends - 0.5 * temple + 0.1 * noise, 0.45))

    def _hull(self, folded: Array, skull: Array) -> Array:
        """(N,) distance to the skin, mm."""
        nose = Tube(((0, 84, -22), (0, 100 + self.traits.nose_mm, -54), (0, 90, -62)), (6, 10, 11))
        head = join([skull - self.traits.scalp_mm, *(part.distance(folded) for part in FACE)], 14)
        head = join([head, NECK.distance(folded)], 18)
        head = -join([-head, SOCKET.distance(folded)], 6)
        wing = Ball((10, 94, -61), (7, 10, 7)).distance(folded)
        return join([join([head, nose.distance(folded), wing], 10), EAR.distance(folded)], 6)

    def _outside_the_brain(self, folded: Array, hull: Array, cavity: Array, skull: Array) -> Labels:
        labels = np.full(len(hull), Tissue.FAT, np.uint8)
        planes = np.abs(self.traits.texture(folded * ALONG_NECK)) < 0.13 + 0.5 * (folded[1] > 20)
        muscle = ~planes & (hull < -SKIN_MM - self.traits.fat_mm)
        skull_ends = folded[2] < -72
        labels[muscle & ((cavity > skull) | skull_ends)] = Tissue.MUSCLE
        bone = (cavity <= skull) & ~skull_ends
        spongy = (cavity > INNER_TABLE_MM) & (cavity < skull - OUTER_TABLE_MM)
        labels[bone] = Tissue.CORTICAL_BONE
        labels[bone & spongy] = Tissue.SPONGY_BONE
        soft, hard, _, _ = self.strokes
        _paint_where((cavity > skull) & (hull < -SKIN_MM), labels, folded, soft)
        _paint_where((cavity > INNER_TABLE_MM) & (hull < -SKIN_MM), labels, folded, hard)
        labels[hull > -SKIN_MM] = Tissue.SKIN
        return labels

    def _add_lesion(self, labels: Labels, world: npt.NDArray[np.float64]) -> None:
        offset = (world - np.array(self.lesion.centre_mm)[:, None]).astype(np.float32)
        distance = np.linalg.norm(offset, axis=0)
        near = np.flatnonzero(distance < 1.5 * self.lesion.radius_mm)
        edge = self.lesion.radius_mm * (1 + 0.16 * self.traits.texture(1.5 * offset[:, near]))
        host = np.isin(labels[near], (Tissue.WHITE, Tissue.GREY))
        labels[near[(distance[near] < edge) & host]] = Tissue.LESION


def _egg(folded: Array) -> Array:
    """Points at which the vault is an ellipsoid: it is wider behind than in front."""
    return np.stack([folded[0] * (1 + 0.0013 * (folded[1] + 25)), folded[1], folded[2]])


def _paint_where(allowed: npt.NDArray[np.bool_], labels: Labels, folded: Array, strokes: tuple[Stroke, ...]) -> None:
    """Paint where it is allowed, in place."""
    where = np.flatnonzero(allowed)
    drawn = labels[where]
    paint(drawn, folded[:, where], strokes)
    labels[where] = drawn


def _find_place(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """The most solidly white of random places in either hemisphere."""
    side = rng.choice([-1, 1])
    spots = np.stack([side * rng.uniform(18, 48, 300), rng.uniform(-70, 50, 300), rng.uniform(2, 55, 300)])
    centres = anatomy.traits.to_world(spots.astype(np.float32))
    shell = rng.standard_normal((3, 60))
    shell *= anatomy.traits.lesion_mm * rng.uniform(0, 1, 60) / np.linalg.norm(shell, axis=0)
    around = anatomy.labels_at((centres[:, :, None] + shell[:, None, :]).transpose(1, 2, 0))
    best = int((around == Tissue.WHITE).mean(axis=1).argmax())
    x, y, z = centres[:, best].tolist()
    return Lesion((x, y, z), anatomy.traits.lesion_mm)
