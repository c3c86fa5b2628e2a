"""Draw the figures of the documentation: `python tools/figures.py NAME …` (all of them without a name)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from medgan.phantom import head
from medgan.volume import Grid

IMAGES = Path(__file__).parents[1] / "docs" / "images"
Grey = npt.NDArray[np.uint8]


def phantom() -> Path:
    """One phantom: axial, sagittal and coronal slices in MR (top) and in CT's bone and brain windows (below)."""
    grid = Grid.regular((142, 176, 142), spacing_mm=(1.35, 1.35, 1.35), origin_mm=(-95, -119, -95))
    one = head(0, grid=grid)
    mr, ct = one.mr.array.astype(np.float32), one.ct.array.astype(np.float32)
    bright = float(np.percentile(mr[one.body.array > 0], 98.5))
    cuts = [(2, -62), (2, -33), (2, -10), (2, 10), (2, 38), (0, -30), (0, 5), (1, 58), (1, -18)]
    windows = ((mr, 0, bright), (ct, -500, 1700), (ct, -20, 90))
    rows = [np.hstack([_tile(_windowed(*window), grid, *cut) for cut in cuts]) for window in windows]
    return _save(np.vstack(rows), "phantom")


FIGURES: dict[str, Callable[[], Path]] = {"phantom": phantom}


def _windowed(values: npt.NDArray[np.float32], low: float, high: float) -> Grey:
    return np.asarray((np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8))


def _tile(volume: Grey, grid: Grid, axis: int, place_mm: float) -> Grey:
    """One slice of a RAS grid, anterior or superior up, the patient's left on the right, padded to one height."""
    index = round((place_mm - grid.affine[axis, 3]) / grid.spacing_mm[axis])
    upright = np.take(volume, index, axis=axis).T[::-1]
    facing = upright if axis == 0 else upright[:, ::-1]
    missing = grid.shape[1] - facing.shape[0]
    return np.pad(facing, ((missing // 2, missing - missing // 2), (0, 0)))


def _save(picture: Grey, name: str) -> Path:
    path = IMAGES / f"{name}.png"
    IMAGES.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).quantize(48).save(path, optimize=True)
    return path


def main(names: list[str]) -> None:
    """Draw the named figures."""
    for name in names or FIGURES:
        print(FIGURES[name]())


if __name__ == "__main__":
    main(sys.argv[1:])
