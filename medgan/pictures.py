"""Pictures of volumes as radiologists hang them: the patient's right on the left side, pixels square."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from medgan.errors import InputError
from medgan.volume import Volume

__all__ = ["Axis", "captioned", "colour_bar", "diverging", "grey", "montage", "plane", "slice_picture"]

Array = npt.NDArray[Any]
Axis = Literal["axial", "coronal", "sagittal"]

CAPTION_PX = 12
# Array axes of an LPI volume (right to left, anterior to posterior, superior to inferior) by the plane across them.
_ACROSS = {"sagittal": 0, "coronal": 1, "axial": 2}
# The blue and red of equal lightness that ColorBrewer's RdBu ends in, and its half-way steps.
_BLUE_WHITE_RED = ((5, 80, 155), (103, 169, 207), (250, 250, 250), (239, 138, 98), (170, 20, 40))


def plane(volume: Volume, axis: Axis = "axial", index: int | None = None, *, longest_px: int | None = None) -> Array:
    """(H, W) float32: one plane of a volume in its unit, seen as a radiologist hangs it, with square pixels.

    Axial and coronal: the patient's right is on the left. Axial: anterior is up. Coronal and sagittal: superior is
    up. Sagittal: anterior is on the left.

    Args:
        volume: in any orientation.
        axis: which plane.
        index: number of the plane from the patient's left, posterior or inferior side; the middle one if not given.
        longest_px: length of the picture's longer side, to which it is scaled linearly; otherwise a pixel is as
            large as the plane's smaller voxel spacing.

    Raises:
        InputError: if the axis is unknown or the index lies outside the volume.
    """
    if axis not in _ACROSS:
        raise InputError(f"axis {axis!r} is unknown (accepted: {', '.join(sorted(_ACROSS))})")
    across, display = _ACROSS[axis], volume.reorient("LPI")
    length = display.grid.shape[across]
    index = length // 2 if index is None else index
    if not 0 <= index < length:
        raise InputError(f"{axis} plane {index} is outside the volume (accepted: 0 to {length - 1})")
    values = np.moveaxis(display.array, across, 0)[length - 1 - index].T  # np.take would copy all of a reordered volume
    column_mm, row_mm = (mm for number, mm in enumerate(display.grid.spacing_mm) if number != across)
    return _scaled(np.asarray(values, dtype=np.float32), row_mm, column_mm, longest_px)


def grey(values: Array, window: tuple[float, float]) -> Array:
    """(H, W) uint8: black at the window's lower end and below, white at its upper end and above.

    Raises:
        InputError: if the window's ends are not in order.

    Example:
        >>> grey(np.array([[-5.0, 0.0, 5.0, 20.0]]), (0, 10)).tolist()
        [[0, 0, 128, 255]]
    """
    low, high = window
    if not low < high:
        raise InputError(f"a window is two numbers, the lower first; seen {low:g} and {high:g}")
    share = np.clip((np.nan_to_num(np.asarray(values, dtype=np.float64), nan=low) - low) / (high - low), 0, 1)
    return np.asarray(np.rint(255 * share), dtype=np.uint8)


def slice_picture(
    volume: Volume,
    axis: Axis = "axial",
    index: int | None = None,
    *,
    window: tuple[float, float],
    longest_px: int | None = None,
) -> Array:
    """(H, W) uint8: one plane of a volume in grey; see `plane` and `grey`.

    Args:
        volume: in any orientation.
        axis: which plane.
        index: number of the plane from the patient's left, posterior or inferior side; the middle one if not given.
        window: values shown black and white, in the volume's unit.
        longest_px: length of the picture's longer side.

    Raises:
        InputError: if axis, index or window cannot be used.
    """
    return grey(plane(volume, axis, index, longest_px=longest_px), window)


def diverging(error: Array, limit: float) -> Array:
    """(H, W, 3) uint8: signed errors (H, W) from blue (−limit and below) over white (0) to red (limit and above).

    Raises:
        InputError: if the limit is not positive.

    Example:
        >>> diverging(np.array([[-9.0, 0.0, 9.0]]), 9).tolist()
        [[[5, 80, 155], [250, 250, 250], [170, 20, 40]]]
    """
    if not limit > 0:
        raise InputError(f"the limit of an error picture is a positive number; seen {limit:g}")
    share = np.clip(np.nan_to_num(np.asarray(error, dtype=np.float64)) / limit, -1, 1)
    stops = np.linspace(-1, 1, len(_BLUE_WHITE_RED))
    channels = [np.interp(share, stops, [colour[c] for colour in _BLUE_WHITE_RED]) for c in range(3)]
    return np.asarray(np.rint(np.stack(channels, axis=-1)), dtype=np.uint8)


def colour_bar(height: int, width: int) -> Array:
    """(H, W, 3) uint8: the colours of `diverging`, from +limit on top to −limit at the bottom."""
    return diverging(np.repeat(np.linspace(1, -1, height)[:, None], width, axis=1), 1)


def montage(rows: Sequence[Sequence[Array]], *, gap_px: int = 2, background: int = 255) -> Array:
    """(H, W, 3) uint8: pictures (h, w) or (h, w, 3) in rows, each in the middle of its cell.

    Raises:
        InputError: if there is no picture.

    Example:
        >>> montage([[np.zeros((4, 6), np.uint8)] * 2], gap_px=2).shape
        (4, 14, 3)
    """
    if not any(len(row) for row in rows):
        raise InputError("a montage needs at least one picture")
    heights = [max((picture.shape[0] for picture in row), default=0) for row in rows]
    num_columns = max(len(row) for row in rows)
    widths = [max(row[column].shape[1] for row in rows if column < len(row)) for column in range(num_columns)]
    canvas_shape = (sum(heights) + gap_px * (len(heights) - 1), sum(widths) + gap_px * (num_columns - 1), 3)
    canvas = np.full(canvas_shape, background, dtype=np.uint8)
    for number, row in enumerate(rows):
        top = sum(heights[:number]) + gap_px * number
        for column, picture in enumerate(row):
            left = sum(widths[:column]) + gap_px * column
            _paste(canvas[top : top + heights[number], left : left + widths[column]], picture)
    return canvas


def captioned(picture: Array, text: str) -> Array:
    """(H + 12, W) uint8: a grey picture (H, W) with a line of text below, cut at its end.

    Example:
        >>> captioned(np.zeros((4, 40), np.uint8), "17").shape
        (16, 40)
    """
    strip = Image.new("L", (picture.shape[1], CAPTION_PX), 255)
    ImageDraw.Draw(strip).text((1, CAPTION_PX / 2), text, fill=0, anchor="lm", font=_font())
    return np.concatenate([picture, np.asarray(strip)])


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(CAPTION_PX - 2)


def _paste(cell: Array, picture: Array) -> None:
    top, left = ((outer - inner) // 2 for outer, inner in zip(cell.shape, picture.shape[:2], strict=False))
    coloured = picture if picture.ndim == 3 else picture[..., None]
    cell[top : top + picture.shape[0], left : left + picture.shape[1]] = coloured


def _scaled(values: Array, row_mm: float, column_mm: float, longest_px: int | None) -> Array:
    height_mm, width_mm = values.shape[0] * row_mm, values.shape[1] * column_mm
    pixel_mm = max(height_mm, width_mm) / longest_px if longest_px else min(row_mm, column_mm)
    size = max(1, round(width_mm / pixel_mm)), max(1, round(height_mm / pixel_mm))
    if size == (values.shape[1], values.shape[0]):
        return values
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
