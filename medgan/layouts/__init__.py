"""Where the images of a folder are and whose: a file for each way in which people lay out their scans.

Each has a function `find` that takes the folder and, by role, what the user calls the images there, and returns the
cases with what there is of them, in no split yet. A DICOM tree also needs a place for links, see `dicom.find`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from medgan.cases import Case, listed
from medgan.layouts import bids, decathlon, patterns, synthrad
from medgan.progress import say

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
    cases = _FIND[layout](folder, wanted)
    if layout != "decathlon" and (others := _passed_over(folder, cases, "sub" if layout == "bids" else "")):
        say(f"Passed over, as nothing in them is named as wanted: {listed(others)}")
    return cases


def _passed_over(folder: Path, cases: list[Case], start: str) -> list[str]:
    """Folders beside those of patients in which nothing was found, such as one whose files are called otherwise."""
    images = [path for case in cases for path in case.images.values() if path.is_relative_to(folder)]
    used = {path.relative_to(folder).parts[0] for path in images}
    there = [one.name for one in sorted(folder.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    return [name for name in there if len(used) > 1 and name not in used and name.casefold().startswith(start)]
