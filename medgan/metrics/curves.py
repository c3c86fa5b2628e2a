"""What Hounsfield units are worth relative to water: curves of stopping power or of electron density."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError

__all__ = ["CURVES", "PHOTONS", "PROTONS", "Curve", "curve_of", "read_curve"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """What Hounsfield units are worth relative to water: straight between points, level beyond the first and the last.

    Args:
        hu: of the points, rising.
        values: of the points, relative to water.
        name: for people.

    Raises:
        InputError: if there are not two points, the HU do not rise, or a value is negative, not finite or below the
            one before.

    Example:
        >>> PROTONS(np.array([-1000.0, 0.0, 1000.0])).round(4).tolist()
        [0.0011, 1.0, 1.529]
    """

    hu: tuple[float, ...]
    values: tuple[float, ...]
    name: str = "a curve"

    def __post_init__(self) -> None:
        if len(self.hu) != len(self.values) or len(self.hu) < 2:
            raise InputError(f"{self.name}: has two or more pairs of HU and value; seen {len(self.hu)} pairs")
        if not np.isfinite([*self.hu, *self.values]).all() or min(self.values) < 0:
            raise InputError(f"{self.name}: HU are finite numbers, and values finite and 0 or more")
        stays = [f"{low:g} before {high:g}" for low, high in pairwise(self.hu) if low >= high]
        if stays:
            raise InputError(f"{self.name}: HU rise from pair to pair; seen {stays[0]}")
        falls = [f"{low:g} before {high:g}" for low, high in pairwise(self.values) if low > high]
        if falls:
            raise InputError(f"{self.name}: values do not fall where HU rise; seen {falls[0]}")

    def __call__(self, hu: Array) -> Floats:
        """Values relative to water, float64; NaN where the HU are not finite."""
        hu = np.asarray(hu, dtype=np.float64)
        return np.where(np.isfinite(hu), np.interp(hu, self.hu, self.values), np.nan)


PROTONS = Curve((-1000, 0, 41.46, 3000), (0.00106, 1, 1.04867, 2.5312), "proton stopping power, Schneider 1996")
PHOTONS = Curve((-1000, 100.58, 3000), (0, 1.10058, 2.58746), "electron density, Thomas 1999")
CURVES: Mapping[str, Curve] = MappingProxyType({"protons": PROTONS, "photons": PHOTONS})
_OF_WATER = (0.9, 1.1)  # what a value at 0 HU may be


def curve_of(name: str | Path) -> Curve:
    """A curve by its name in `CURVES`, or one that is in a file.

    Raises:
        InputError: if there is neither, or as `read_curve`.

    Example:
        >>> curve_of("protons").name
        'proton stopping power, Schneider 1996'
    """
    if str(name) in CURVES:
        return CURVES[str(name)]
    if not Path(name).is_file():
        accepted = ", ".join(CURVES)
        raise InputError(
            f"curve {str(name)!r} is unknown (accepted: {accepted}, or a file of lines as 0,1.0: HU, value)"
        )
    return read_curve(Path(name))


def read_curve(path: Path) -> Curve:
    """A curve from a text file: a HU and its value in each line, between them a comma, semicolon, tab or space.

    Empty lines, lines that start with `#` and one line of headings at the top are skipped.

    Raises:
        InputError: if the file cannot be read, a line is no pair of numbers, water is not about 1, or as `Curve`.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text; a curve is a file of lines as 0,1.0 (HU, value)") from error
    rows = [(number, re.split(r"[,;\s]+", line.strip(" \t,;"))) for number, line in enumerate(lines, 1)]
    rows = [(number, words) for number, words in rows if words[0] and not words[0].startswith("#")]
    if rows and not any(_is_number(word) for word in rows[0][1]):
        rows = rows[1:]
    for number, words in rows:
        if len(words) != 2 or not all(map(_is_number, words)):
            raise InputError(f"{path}, line {number}: is {' '.join(words)!r}; a line is a HU and its value, as 0,1.0")
    hu, values = (tuple(float(words[column]) for _, words in rows) for column in (0, 1))
    curve = Curve(hu, values, str(path))
    _refuse_absolute(curve)
    return curve


def _refuse_absolute(curve: Curve) -> None:
    """Such as densities in g/l."""
    low, high = _OF_WATER
    water = float(curve(np.array(0.0)))
    if not low <= water <= high:
        raise InputError(f"{curve.name}: values are relative to water, about 1 at 0 HU; seen {water:g} there")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
