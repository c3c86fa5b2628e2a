"""Where the images of a folder are and whose: a file for each way in which people lay out their scans.

Each has a function `find` that takes the folder and, by role, what the user calls the images there, and returns the
cases with what there is of them, in no split yet. A DICOM tree also needs a place for links, see `dicom.find`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from medgan.cases import Case
from medgan.layouts import bids, decathlon, patterns, synthrad

__all__ = ["LAYOUTS", "find"]

_FIND: dict[str, Callable[[Path, Mapping[str, str]], list[Case]]] = {
    "patterns": patterns.find,
    "bids": bids.find,
    "decathlon": decathlon.find,
    "synthrad": synthrad.find,
}
LAYOUTS = (*_FIND, "dicom")


def find(layout: str, folder: Path, wanted: Mapping[str, str], *, table: Path) -> list[Case]:
    """The cases in a folder.

    Args:
        layout: one of `LAYOUTS`.
        folder: with the scans.
        wanted: what the user calls the images of each role.
        table: that will name them; beside it there may be need for a folder of links, `cases_series` for `cases.csv`.

    Raises:
        CasesError: as the layout's own `find`.
    """
    if layout == "dicom":
        from medgan.layouts import dicom  # most other layouts need no pydicom

        return dicom.find(folder, wanted, links=table.with_name(f"{table.stem}_series"))
    return _FIND[layout](folder, wanted)
