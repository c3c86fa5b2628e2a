"""A case slice by slice: synthetic over reference in three planes, as sheets of small pictures that a page pages in."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medgan.formats.png import mark_text
from medgan.pictures import grey, plane
from medgan.report.gallery import PLANES, Panel, cropped, on_one_grid, picture_name, place_of, windows
from medgan.volume import Volume

__all__ = ["Stack", "Viewer", "view"]

Array = npt.NDArray[Any]
Window = tuple[float, float]

MOST_SLICES = 24
LONGEST_PX = 224
_QUALITIES = (86, 76, 64, 48, 32, 16, 6, 0)
_BUDGET_BYTES = 3_800_000  # all sheets of a page before base64
_XMP = "XML:com.adobe.xmp"
# What is at the top and at the bottom of the picture.
_UPRIGHT = {"axial": "AP", "coronal": "SI", "sagittal": "SI"}


@dataclass(frozen=True)
class Stack:
    """The slices of one plane, of both images, side by side and row by row on one sheet each.

    Args:
        axis: which plane.
        made: sheet of the synthetic image, as the value of an `src` attribute.
        real: sheet of the reference.
        made_alt: what `made` shows.
        real_alt: what `real` shows.
        columns: pictures side by side on a sheet.
        rows: of pictures on a sheet.
        width: of one picture, pixels, which are square in mm.
        height: of one picture.
        places: where each slice lies, from feet to head, back to front or left to right.
        sides: letters of the left, right, upper and lower side.
    """

    axis: str
    made: str
    real: str
    made_alt: str
    real_alt: str
    columns: int
    rows: int
    width: int
    height: int
    places: tuple[str, ...]
    sides: str

    @property
    def middle(self) -> int:
        """The slice that is shown first, and in print."""
        return len(self.places) // 2


@dataclass(frozen=True)
class Viewer:
    """A case to page through; `why` says why this one was chosen."""

    case: str
    why: str
    made: str
    real: str
    stacks: tuple[Stack, ...]
    caption: str


def view(panel: Panel, why: str, num_viewers: int) -> Viewer:
    """Make the sheets of a case: at most 24 slices a plane, evenly spaced over the mask, at most 224 pixels long.

    Args:
        panel: the case; its error limit is not used.
        why: why this case was chosen.
        num_viewers: how many share the page: the more, the harder the sheets are compressed where they need it.

    Raises:
        GeometryError: if its volumes do not lie on one grid.
        InputError: if the window cannot be used.
    """
    volumes = cropped(on_one_grid(panel))
    window = windows(volumes, panel.window)["reference"]
    budget = _BUDGET_BYTES // (num_viewers * 2 * len(PLANES))
    return Viewer(
        case=panel.case,
        why=why,
        made=picture_name("Synthetic", volumes["synthetic"]),
        real=picture_name("Reference", volumes["reference"]),
        stacks=tuple(_stack(panel.case, volumes, number, window, budget) for number in range(len(PLANES))),
        caption=f"Black to white: {window[0]:.4g} to {window[1]:.4g} {panel.reference.unit}".replace("-", "−"),
    )


def _stack(case: str, volumes: dict[str, Volume], number: int, window: Window, budget: int) -> Stack:
    axis, across, _, sides = PLANES[number]
    reference = volumes["reference"]
    chosen = _chosen(reference.grid.shape[across])
    sheets = {role: _tiles(volumes[role], number, chosen, window) for role in ("synthetic", "reference")}
    height, width = sheets["reference"].shape[1:]
    columns = _columns(len(chosen), width, height)
    alts = {role: f"{case}, {axis} slices, {picture_name(role, volumes[role])}" for role in sheets}
    xmp = mark_text(volumes["synthetic"].synthetic).get(_XMP, "")
    return Stack(
        axis=axis,
        made=_uri(_sheet(sheets["synthetic"], columns), budget, xmp),
        real=_uri(_sheet(sheets["reference"], columns), budget),
        made_alt=alts["synthetic"],
        real_alt=alts["reference"],
        columns=columns,
        rows=-(-len(chosen) // columns),
        width=width,
        height=height,
        places=tuple(place_of(reference, _centre(reference, across, index), number) for index in chosen),
        sides=sides + _UPRIGHT[axis],
    )


def _chosen(length: int) -> list[int]:
    """Slices evenly spread, the outermost not among them where some are left out."""
    number = min(length, MOST_SLICES)
    return [int((k + 0.5) * length / number) for k in range(number)]


def _tiles(volume: Volume, number: int, chosen: Sequence[int], window: Window) -> Array:
    """(N, H, W) uint8."""
    axis = PLANES[number][0]
    return np.stack([grey(plane(volume, axis, index, longest_px=LONGEST_PX), window) for index in chosen])


def _columns(number: int, width: int, height: int) -> int:
    """So that the sheet is about square."""
    return max(1, min(number, round(math.sqrt(number * height / width))))


def _sheet(tiles: Array, columns: int) -> Array:
    """(H, W) uint8: tiles row by row, black where there is none."""
    rows = -(-len(tiles) // columns)
    height, width = tiles.shape[1:]
    full = np.zeros((rows * columns, height, width), dtype=np.uint8)
    full[: len(tiles)] = tiles
    return full.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def _centre(volume: Volume, across: int, index: int) -> list[int]:
    place = [length // 2 for length in volume.grid.shape]
    place[across] = index
    return place


def _uri(pixels: Array, budget: int, xmp: str = "") -> str:
    """As good as the budget allows."""
    encoded = b""
    for quality in _QUALITIES:
        encoded = _webp(pixels, quality, xmp)
        if len(encoded) <= budget:
            break
    return f"data:image/webp;base64,{base64.b64encode(encoded).decode('ascii')}"


def _webp(pixels: Array, quality: int, xmp: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(buffer, format="WEBP", quality=quality, method=2, xmp=xmp.encode())
    return buffer.getvalue()
