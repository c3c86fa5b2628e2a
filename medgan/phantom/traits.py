"""What differs from one phantom to the next, drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medgan.phantom.shapes import Array, Vector, Waves, rotation

__all__ = ["Traits"]

Floats = npt.NDArray[np.float64]
WARP_MM = 1.3


@dataclass(frozen=True, eq=False)
class Traits:
    """One head's measures: its pose, its size and how it departs from the mean head.

    Lengths are mm, factors multiply the mean head's. `to_head` takes world positions to the mean head's frame:
    x to the right, y forward, z up, origin near the anterior commissure.
    """

    scale: Vector
    turn_deg: Vector
    shift_mm: Vector
    skull_mm: float
    scalp_mm: float
    fat_mm: float
    csf_mm: float
    cortex_mm: float
    cleft_mm: float
    fold_mm: float
    ventricles: float
    sinuses: float
    nose_mm: float
    lesion_mm: float
    warp: tuple[Waves, Waves, Waves]
    texture: Waves

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Traits:
        """The traits of a random adult."""
        size, age = rng.uniform(0.945, 1.005), rng.uniform()
        return cls(
            scale=_three(size * rng.normal(1, 0.012, 3)),
            turn_deg=_three(rng.normal(0, [3, 2, 3])),
            shift_mm=_three(rng.normal(0, 2.5, 3)),
            skull_mm=rng.uniform(5.5, 8),
            scalp_mm=rng.uniform(5, 8),
            fat_mm=rng.uniform(3.5, 8),
            csf_mm=1.0 + 1.2 * age,
            cortex_mm=rng.uniform(2.7, 3.2),
            cleft_mm=0.35 + 0.5 * age,
            fold_mm=rng.uniform(27, 31),
            ventricles=0.75 + 0.6 * age + rng.uniform(0, 0.25),
            sinuses=rng.uniform(0.8, 1.15),
            nose_mm=rng.normal(0, 2),
            lesion_mm=rng.uniform(6, 10),
            warp=(_slow(rng), _slow(rng), _slow(rng)),
            texture=Waves.drawn(rng, wavelength_mm=24),
        )

    def to_head(self, world: Floats) -> Array:
        """(3, N) positions in the mean head's frame of world positions (3, N), mm."""
        turn = rotation(self.turn_deg).T / np.array(self.scale)[:, None]
        straight = (turn @ (world - np.array(self.shift_mm)[:, None])).astype(np.float32)
        return np.asarray(straight + np.float32(WARP_MM) * np.stack([wave(straight) for wave in self.warp]))

    def to_world(self, head: Array) -> Floats:
        """(3, N) world positions of positions (3, N) in the mean head's frame, mm; the inverse of `to_head`."""
        straight = head.astype(np.float64)
        for _ in range(20):
            straight = head - WARP_MM * np.stack([wave(straight.astype(np.float32)) for wave in self.warp])
        turn = rotation(self.turn_deg) @ np.diag(self.scale)
        return np.asarray(turn @ straight + np.array(self.shift_mm)[:, None])


def _slow(rng: np.random.Generator) -> Waves:
    return Waves.drawn(rng, wavelength_mm=190, count=4)


def _three(values: Floats) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
