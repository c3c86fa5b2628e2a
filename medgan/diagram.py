"""Calibration as a picture: how often σ covers the error, and how large errors are where σ says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from medgan.metrics import LEVELS

__all__ = ["draw_calibration"]

Point = tuple[float, float]
Lines = list[list[Point]]
Row = Mapping[str, Any]

_FINER = 3  # drawn larger, then reduced: lines without steps
_SIDE, _LEFT, _TOP, _GAP, _BELOW = 320, 74, 40, 96, 62
_SIZE = (_LEFT + 2 * _SIDE + _GAP + 24, _TOP + _SIDE + _BELOW)
_INK, _GRID, _IDEAL, _CASE, _MEAN = (40, 40, 40), (228, 228, 228), (120, 120, 120), (178, 200, 222), (5, 80, 155)


def draw_calibration(rows: Sequence[Row]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: two diagrams, a thin line for each case, a thick one for their mean; dashed is perfect.

    Left: share of voxels inside prediction ± z·σ against the nominal one; below the dashed line σ is too small.
    Right: root mean square error of voxels of about the same σ against that σ; above the dashed line σ is too small.

    Args:
        rows: of `medgan.evaluate`; those without calibration are passed over.
    """
    told = [row for row in rows if row.get("error_by_sigma")]
    covered = [[(level, row[f"coverage_{100 * level:.0f}"]) for level in LEVELS] for row in told]
    binned = [[(one["sigma"], one["rmse"]) for one in row["error_by_sigma"]] for row in told]
    unit = next((row["unit"] for row in told), "")
    canvas = Image.new("RGB", (_FINER * _SIZE[0], _FINER * _SIZE[1]), "white")
    draw = ImageDraw.Draw(canvas)
    most = max((value for line in binned for point in line for value in point), default=1.0) or 1.0
    _panel(draw, _LEFT, covered, 1.0, ("Reliability", "nominal coverage", "observed coverage"))
    _panel(draw, _LEFT + _SIDE + _GAP, binned, most, ("Error", f"standard deviation, {unit}", f"RMSE, {unit}"))
    return np.asarray(canvas.resize(_SIZE, Image.Resampling.LANCZOS))


def _panel(draw: ImageDraw.ImageDraw, left: int, lines: Lines, most: float, words: tuple[str, str, str]) -> None:
    marks = _marks(most)
    top = max(most, marks[-1])

    def place(point: Point) -> Point:
        return left + _SIDE * point[0] / top, _TOP + _SIDE * (1 - point[1] / top)

    _axes(draw, left, [(place((mark, mark)), f"{mark:g}") for mark in marks], words)
    _dashed(draw, place((0, 0)), place((top, top)))
    for line in lines:
        _line(draw, [place(point) for point in line], _CASE, 1.4)
    _line(draw, [place(point) for point in _mean(lines)], _MEAN, 2.6, dots=True)


def _mean(lines: Lines) -> list[Point]:
    """The mean of the cases, point by point; only of those that have all points."""
    longest = max((len(line) for line in lines), default=0)
    whole = np.array([line for line in lines if len(line) == longest])
    return [(float(x), float(y)) for x, y in whole.mean(axis=0)] if len(whole) else []


def _marks(most: float) -> list[float]:
    """Round numbers from 0 to at or above `most`, about five."""
    raw = most / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    return [round(step * number, 12) for number in range(math.ceil(most / step - 1e-9) + 1)]


def _axes(draw: ImageDraw.ImageDraw, left: int, marks: list[tuple[Point, str]], words: tuple[str, str, str]) -> None:
    title, below, beside = words
    for (x, y), label in marks:
        _line(draw, [(left, y), (left + _SIDE, y)], _GRID, 1)
        _line(draw, [(x, _TOP), (x, _TOP + _SIDE)], _GRID, 1)
        _text(draw, (left - 8, y), label, "rm")
        _text(draw, (x, _TOP + _SIDE + 8), label, "mt")
    _text(draw, (left, 16), f"{title}: {beside}", "lm", 15)
    _text(draw, (left + _SIDE / 2, _TOP + _SIDE + 32), below, "mt", 14)


def _dashed(draw: ImageDraw.ImageDraw, start: Point, end: Point, count: int = 40) -> None:
    xs, ys = (np.linspace(a, b, 2 * count) for a, b in zip(start, end, strict=True))
    for k in range(0, 2 * count, 2):
        _line(draw, [(xs[k], ys[k]), (xs[k + 1], ys[k + 1])], _IDEAL, 1.2)


def _line(
    draw: ImageDraw.ImageDraw, points: list[Point], colour: tuple[int, int, int], width: float, *, dots: bool = False
) -> None:
    fine = [(_FINER * x, _FINER * y) for x, y in points]
    draw.line(fine, fill=colour, width=round(_FINER * width), joint="curve")
    for x, y in fine if dots else ():
        draw.circle((x, y), _FINER * 3.4, fill=colour)


def _text(draw: ImageDraw.ImageDraw, place: Point, words: str, anchor: str, size: int = 13) -> None:
    x, y = (_FINER * value for value in place)
    draw.text((x, y), words, fill=_INK, anchor=anchor, font=ImageFont.load_default(_FINER * size))
