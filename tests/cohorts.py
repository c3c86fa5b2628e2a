"""Small cohorts with planted faults: heads known at every point, scanned on grids that differ in all ways."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from medgan import Grid, Volume, write
from medgan.cases import Case, write_cases

SPLITS = ("train", "train", "train", "val", "test")
PLAN: dict[str, Any] = {
    "images": {
        "a": {"modality": "MR", "background": 0},
        "b": {"modality": "CT", "unit": "HU", "background": -1000, "clip": [-1000, 2000]},
    },
    "spacing_mm": [5, 5, 5],
    "mask": {"source": "body", "of": "b"},
    "crop_mm": 10,
}


def grid_of(shape: Sequence[int], spacing_mm: Sequence[float], turn_deg: Sequence[float], axes: str = "RAS") -> Grid:
    """A grid around the origin, turned in the world, its axes running to these sides."""
    turn = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    origin = -turn @ ((np.array(shape) - 1) * spacing_mm / 2)
    grid = Grid.regular(shape, spacing_mm=spacing_mm, direction=turn, origin_mm=origin)
    return Volume(np.zeros(grid.shape, np.uint8), grid).reorient(axes).grid


def places(grid: Grid) -> np.ndarray:
    """(X, Y, Z, 3) world positions of all voxels, mm."""
    return grid.to_world(np.stack(np.indices(grid.shape), axis=-1))


def inside(at: np.ndarray, seed: int) -> np.ndarray:
    """How deep in a head of that number places lie: 1 in its middle, 0 on its skin, below 0 outside."""
    size = 1 + 0.05 * np.random.default_rng(seed).uniform(-1, 1, 3)
    return np.asarray(1 - np.sqrt((((at - [3, -2, 1]) / ([52, 62, 56] * size)) ** 2).sum(axis=-1)))


def mr(grid: Grid, seed: int, *, gain: float = 1.0, bias: float = 0.0) -> Volume:
    """Brain with waves in it, under bright fat; brighter to one side by `bias`."""
    at = places(grid)
    deep, waves = inside(at, seed), np.sin(at[..., 0] / 11 + seed) * np.cos(at[..., 1] / 13) + at[..., 2] / 90
    values = np.where(deep > 0.15, 300 + 60 * waves, 520) * (1 + bias * at[..., 0] / 60)
    noise = np.random.default_rng([seed, 1]).uniform(0, 9, grid.shape)
    return Volume((gain * np.where(deep > 0, values, 0) + noise).astype(np.int16), grid, "a.u.", "MR")


def ct(grid: Grid, seed: int) -> Volume:
    """The same brain, in a skull."""
    at = places(grid)
    deep = inside(at, seed)
    values = np.select(
        [deep > 0.15, deep > 0.06, deep > 0], [40 + 20 * np.sin(at[..., 0] / 11 + seed), 900, -80], -1000
    )
    return Volume(np.rint(values).astype(np.int16), grid, "HU", "CT")


def scan_grids(seed: int) -> tuple[Grid, Grid]:
    """Of MR and CT of a patient: of other voxels, axes and directions."""
    axes = ("RAS", "LPS", "SPR", "ALI", "PIR")
    return (
        grid_of((28, 32, 24), (5, 5, 6), (2, 3, -4), axes[seed % 5]),
        grid_of((34, 38, 20), (4, 4, 8), (0, 0, 0), axes[(seed + 2) % 5]),
    )


def write_patient(folder: Path, seed: int, *, gain: float = 1.0) -> dict[str, Path]:
    """a.nii.gz and b.nii.gz of a patient, in place, by role."""
    grid_a, grid_b = scan_grids(seed)
    a = write(mr(grid_a, seed, gain=gain), folder / f"p{seed}" / "mr.nii.gz")
    return {"a": a, "b": write(ct(grid_b, seed), folder / f"p{seed}" / "ct.nii.gz")}


def write_table(folder: Path, *, splits: Sequence[str] = SPLITS) -> Path:
    """A table of patients p0, p1 … with scanners that differ in gain."""
    cases = [
        Case(f"p{k}", f"p{k}", split, write_patient(folder, k, gain=1 + 0.4 * k), {"site": "ab"[k % 2]})
        for k, split in enumerate(splits)
    ]
    return write_cases(cases, folder / "cases.csv")


def write_plan(path: Path, **changes: Any) -> Path:
    """The plan, with other settings."""
    path.write_text(yaml.safe_dump({**PLAN, **changes}))
    return path
