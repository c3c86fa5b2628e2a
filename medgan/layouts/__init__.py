"""Where the images of a folder are and whose: a file for each way in which people lay out their scans.

Each has a function `find` that takes the folder and, by role, what the user calls the images there, and returns the
cases with what there is of them, in no split yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from medgan.cases import Case
from medgan.layouts import bids, decathlon, patterns, synthrad

__all__ = ["FIND"]

FIND: dict[str, Callable[[Path, Mapping[str, str]], list[Case]]] = {
    "patterns": patterns.find,
    "bids": bids.find,
    "decathlon": decathlon.find,
    "synthrad": synthrad.find,
}
