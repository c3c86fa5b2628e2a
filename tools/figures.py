"""Draw the figures of the documentation.

```
python tools/figures.py phantom
python tools/figures.py demo FOLDER             # what `medgan demo --out FOLDER` has made
python tools/figures.py calibration FOLDER      # what tools/uncertainty.py has made
```
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from medgan.cases import read_cases
from medgan.formats import read
from medgan.formats.png import synthetic_text, write_png
from medgan.phantom import head
from medgan.pictures import Axis, diverging, montage, plane, slice_picture
from medgan.translate import output_path
from medgan.volume import Grid, Volume

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CT_WINDOW_HU = (-500.0, 1300.0)
ERROR_LIMIT_HU = 300.0
TILE_PX = 220
ACROSS: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
DEMO_CUTS: tuple[tuple[Axis, float], ...] = (("axial", 0.3), ("axial", 0.55), ("sagittal", 0.5))
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


def demo(folder: Path) -> Path:
    """The first held-out patient of a demo in three planes: source, synthetic, reference, signed error."""
    case = read_cases(folder / "cases.csv", split="test")[0]
    source, reference = read(case.images["a"]), read(case.images["b"])
    synthetic = read(output_path(case, folder / "translated"))
    mask = read(case.images["mask"]).reorient(source.grid.orientation)
    path = IMAGES / "demo.png"
    rows = [_row([source, synthetic, reference, mask], *cut) for cut in DEMO_CUTS]
    write_png(montage(rows), path, text=synthetic_text(synthetic.synthetic))
    return path


def calibration(folder: Path) -> Path:
    """How large the errors of held-out patients are where three planes differ: as `medgan evaluate` draws it."""
    return Path(shutil.copyfile(folder / "3 planes" / "scores" / "calibration.png", IMAGES / "calibration.png"))


FIGURES: dict[str, Callable[..., Path]] = {"phantom": phantom, "demo": demo, "calibration": calibration}


def _row(volumes: list[Volume], axis: Axis, height: float) -> list[Grey]:
    """Four pictures of the plane at a share of the volume; the error in colours, inside the mask."""
    source, synthetic, reference, mask = volumes
    bright = float(np.percentile(source.array[mask.array > 0], 99.5))
    index = round(height * (source.reorient("RAS").grid.shape[ACROSS[axis]] - 1))
    error = reference.with_array((synthetic.array.astype(np.float32) - reference.array) * (mask.array > 0))
    return [
        slice_picture(source, axis, index, window=(0, bright), longest_px=TILE_PX),
        slice_picture(synthetic, axis, index, window=CT_WINDOW_HU, longest_px=TILE_PX),
        slice_picture(reference, axis, index, window=CT_WINDOW_HU, longest_px=TILE_PX),
        diverging(plane(error, axis, index, longest_px=TILE_PX), ERROR_LIMIT_HU),
    ]


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


def main(name: str, *folders: str) -> None:
    """Draw the named figure."""
    print(FIGURES[name](*map(Path, folders)))


if __name__ == "__main__":
    main(*sys.argv[1:])
