"""The page of a preparation: what was done to each case and what is left to doubt, worst first, and its picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from medgan.prepare import Prepared, PreparedCase
from medgan.prepare.cohort import PAGE, REFUSED
from medgan.prepare.records import PICTURE, read_provenance
from medgan.report.page import write_page

__all__ = ["prepare_report"]


@dataclass(frozen=True)
class Moved:
    """A registration of a case.

    Args:
        role: the image that was moved.
        told: the step in the provenance.
    """

    role: str
    told: Mapping[str, Any]

    @property
    def left_mm(self) -> float:
        """How far it lies off afterwards, as another search sees it; below 0 where that could not tell."""
        return float((self.told["verified"] or {}).get("left_mm", -1.0))

    @property
    def shift_mm(self) -> float:
        """How far it was shifted."""
        return _length(self.told["translation_mm"])

    @property
    def turn_deg(self) -> float:
        """How far it was turned."""
        return _length(self.told["rotation_deg"])


@dataclass(frozen=True)
class Shown:
    """A prepared case.

    Args:
        name: of it.
        grid: that all its images are on.
        moved: what was registered.
        mask_ml: volume of the mask; None where there is none.
        lost: share of the mask where an image was not measured.
        clipped: share of voxels that were cut off, by role.
        notes: what people should know.
        picture: its path, seen from the page; "" if it is not there.
    """

    name: str
    grid: str
    moved: tuple[Moved, ...]
    mask_ml: float | None
    lost: float
    clipped: Mapping[str, float]
    notes: tuple[str, ...]
    picture: str

    @property
    def badness(self) -> tuple[float, float, float, str]:
        """By which cases are ordered: notes, then what is left of the shift, then what the mask has lost."""
        left = max((one.left_mm for one in self.moved), default=-1.0)
        return -len(self.notes), -left, -self.lost, self.name


def prepare_report(done: Prepared, folder: Path | str) -> Path:
    """Write `report.html` into the folder of a preparation; it names and shows patients.

    It loads the pictures that lie in the folders of the cases: move the folder as a whole. The same cohort gives the
    same page, and one that is there already is not touched.

    Args:
        done: what became of the cases.
        folder: that they were prepared in.

    Raises:
        OutputError: if the page cannot be written.
    """
    home = Path(folder)
    refused = [case for case in done.cases if case.status == REFUSED]
    shown = sorted((_shown(case, home) for case in done.cases if case not in refused), key=lambda one: one.badness)
    names = {"refused": "Refused", "cases": "Cases", "pictures": "Pictures"}
    places = [(place, name) for place, name in names.items() if refused or place != "refused"]
    return write_page(
        home / PAGE,
        "prepare.html.j2",
        title="Preparation of a cohort",
        places=places,
        refused=refused,
        shown=shown,
        has_notes=sum(bool(one.notes) for one in shown),
        summary=" ".join(_summary(shown)),
    )


def _shown(case: PreparedCase, home: Path) -> Shown:
    folder = home / case.name
    told = read_provenance(folder)
    steps: list[Mapping[str, Any]] = told["steps"]
    mask: Mapping[str, Any] = next((step for step in steps if step["step"] == "mask"), {})
    return Shown(
        case.name,
        next(iter(told["results"].values()))["grid"],
        tuple(Moved(step["role"], step) for step in steps if step["step"] == "register"),
        mask.get("volume_ml"),
        mask.get("lost_share", 0.0),
        {step["role"]: step["clipped_share"] for step in steps if step["step"] == "clip"},
        tuple(told["notes"]),
        f"{case.name}/{PICTURE}" if (folder / PICTURE).is_file() else "",
    )


def _summary(shown: list[Shown]) -> Iterator[str]:
    """What the registrations of all have left."""
    seen = [(one.left_mm, case.name) for case in shown for one in case.moved if one.left_mm >= 0]
    if seen:
        worst, name = max(seen)
        middle = median(left for left, _ in seen)
        yield f"After registration {len(seen)} images lie {middle:.1f} mm off (median),"
        yield f"at most {worst:.1f} mm ({name})."


def _length(vector: list[float]) -> float:
    return float(sum(value**2 for value in vector) ** 0.5)
