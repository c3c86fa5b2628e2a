"""The page of a check: every case with its verdict, what was found, and pictures of the worst."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.feature import canny

from medgan.alignment import shrunk
from medgan.errors import GeometryError, MedganError
from medgan.findings import Checked, CheckedCase
from medgan.formats import read
from medgan.formats.png import data_uri, encode_png
from medgan.pictures import Axis, grey, plane
from medgan.prep import foreground
from medgan.report.page import write_page
from medgan.resample import resample
from medgan.volume import Volume

__all__ = ["check_report"]

Array = npt.NDArray[Any]
NUM_SHOWN = 10
LOOKS = {"leave out": "bad", "prepare": "unsure", "look": "unsure", "good": "good"}
_LONGEST_PX, _TILE_PX, _EDGE = 220, 22, (255, 176, 0)
_PLANES: tuple[tuple[Axis, int], ...] = (("axial", 2), ("coronal", 1), ("sagittal", 0))


@dataclass(frozen=True)
class Shown:
    """Pictures of a case.

    Args:
        case: what was found of it.
        rows: what a row of pictures is called, and its pictures as (URI, words).
        missing: why there are none.
    """

    case: CheckedCase
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    missing: str = ""


def check_report(checked: Checked, path: Path | str) -> Path:
    """Write the page of a check as one HTML file; it shows and names patients.

    The pictures of the ten worst cases are read anew: the edges of b over a, and squares of a and b in turn, as both
    lie, in the three planes through the middle of the body.

    Args:
        checked: what was found.
        path: of the page.

    Raises:
        OutputError: if the page cannot be written.
    """
    names = {"cases": "Cases", "findings": "What was found", "pictures": "Pictures"}
    counts = Counter(case.verdict for case in checked.cases)
    worst = [case for case in checked.cases if case.faults][:NUM_SHOWN]
    return write_page(
        path,
        "check.html.j2",
        title="Check of a table of cases",
        places=list(names.items()),
        counts=[(verdict, counts[verdict]) for verdict in LOOKS if counts[verdict]],
        looks=LOOKS,
        cases=checked.cases,
        shown=[_shown(case) for case in worst],
    )


def _shown(case: CheckedCase) -> Shown:
    roles = case.pair or tuple(case.traces)[:1]
    try:
        volumes = [read(case.images[role]).without_padding() for role in roles]
        return Shown(case, tuple(_rows(volumes, roles)) if volumes else (), "" if volumes else "no image can be shown")
    except (MedganError, OSError) as error:
        return Shown(case, missing=str(error))


def _rows(volumes: list[Volume], roles: tuple[str, ...]) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    a = shrunk(volumes[0])
    places = np.rint(np.argwhere(foreground(a.array)).mean(axis=0)).astype(int)
    first = _pictures(a, places)
    if len(volumes) == 1:
        yield roles[0], _encoded(first, roles[0])
        return
    second = _pictures(_on_grid_of(a, volumes[1]), places)
    names = f"{roles[1]} over {roles[0]}"
    outlined = [_outlined(one, other) for one, other in zip(first, second, strict=True)]
    yield f"edges of {names}", _encoded(outlined, f"edges of {names}")
    squares = [_squares(one, other) for one, other in zip(first, second, strict=True)]
    yield f"{roles[0]} and {roles[1]} in squares", _encoded(squares, f"squares of {roles[0]} and {roles[1]}")


def _on_grid_of(a: Volume, b: Volume) -> Volume:
    """Black where b has no voxel: a border that went on would look like anatomy."""
    try:
        placed = resample(shrunk(b), a.grid)
    except GeometryError:
        return a.with_array(np.zeros(a.grid.shape, np.float32))
    index = b.grid.to_index(a.grid.to_world(np.moveaxis(np.indices(a.grid.shape), 0, -1)))
    inside = ((index > -0.5) & (index < np.array(b.grid.shape) - 0.5)).all(axis=-1)
    return placed.with_array(np.where(inside, placed.array, placed.array.min()))


def _pictures(volume: Volume, places: npt.NDArray[np.int_]) -> list[Array]:
    """(H, W) uint8 of each plane through a place, seen as a radiologist hangs it."""
    low, high = (float(value) for value in np.percentile(volume.array, (1, 99.5)))
    window = (low, high if high > low else low + 1)
    turned = volume.reorient("RAS").grid
    world = turned.to_index(volume.grid.to_world(places))
    index = np.clip(np.rint(world), 0, np.array(turned.shape) - 1).astype(int)
    drawn = [plane(volume, axis, int(index[across]), longest_px=_LONGEST_PX) for axis, across in _PLANES]
    return [grey(values, window) for values in drawn]


def _outlined(a: Array, b: Array) -> Array:
    """(H, W, 3): a in grey under the edges of b."""
    picture = np.repeat(a[..., None], 3, axis=-1)
    picture[canny(b.astype(np.float64) / 255, sigma=1.5, low_threshold=0.03, high_threshold=0.08)] = _EDGE
    return picture


def _squares(a: Array, b: Array) -> Array:
    rows, columns = np.indices(a.shape) // _TILE_PX
    return np.where((rows + columns) % 2 == 0, a, b)


def _encoded(pictures: list[Array], what: str) -> tuple[tuple[str, str], ...]:
    names = [axis for axis, _ in _PLANES]
    text = {"Shows": "a patient; do not pass on"}
    return tuple(
        (data_uri(encode_png(one, text=text)), f"{what}, {axis}") for one, axis in zip(pictures, names, strict=True)
    )
