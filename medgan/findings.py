"""What was found of cases: the table for people, the files that are left behind, and which cases to leave out."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medgan.alignment import Misalignment
from medgan.artefacts import Artefacts
from medgan.atomic import replacing
from medgan.cases import MENDS, PREPARATION, listed
from medgan.plausible import Fault

__all__ = ["MENDED", "Checked", "CheckedCase", "write_findings"]

MENDED = ("grids", "shifted", "turned")  # kinds of faults that a registration onto one grid mends

_POSE = (
    *("shift_right_mm", "shift_front_mm", "shift_up_mm", "uncertainty_mm", "rotation_deg", "disagreement_mm"),
    *("nmi", "nmi_in_place", "nmi_mirrored"),
)


@dataclass(frozen=True)
class CheckedCase:
    """What was found of one case. Of several contrasts the pair that lies farthest apart is told.

    Args:
        name: of the case.
        patient: whose it is.
        images: path of the image in each role.
        grids: of each image, in words, by role.
        pair: the two roles that were compared; empty without a pair.
        overlap: share (0..1) of the first image's field of view that the other one covers; None without a pair.
        uncovered: share (0..1) of a body that the other image does not show: of the first one's farther than 15 mm from
            the other one's, or of either beyond a plane where the other ends as if cut; None where not told.
        pose: how the other image lies; None where that could not be told.
        traces: what was seen of each image, by role.
        numbers: what is compared with other cases, by name.
        digests: a hash of the voxels of each image, by role; "" where equal ones would prove nothing.
        faults: what is wrong, what excludes the case first.
    """

    name: str
    patient: str
    images: Mapping[str, Path] = field(default_factory=dict)
    grids: Mapping[str, str] = field(default_factory=dict)
    pair: tuple[str, ...] = ()
    overlap: float | None = None
    uncovered: float | None = None
    pose: Misalignment | None = None
    traces: Mapping[str, Artefacts] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    @property
    def is_excluded(self) -> bool:
        """True if the case must not be learned from as it is."""
        return any(fault.excludes for fault in self.faults)

    @property
    def is_mendable(self) -> bool:
        """True if `medgan prepare` mends all for which the case is excluded."""
        return self.is_excluded and all(fault.kind in MENDED for fault in self.faults if fault.excludes)

    @property
    def verdict(self) -> str:
        """`leave out`, `prepare` (which mends what excludes it), `look` or `good`."""
        if self.is_excluded:
            return "prepare" if self.is_mendable else "leave out"
        return "look" if self.faults else "good"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        pose = self.pose and {**asdict(self.pose), "distance_mm": self.pose.distance_mm}
        return {
            "case": self.name,
            "patient": self.patient,
            "excluded": self.is_excluded,
            "verdict": self.verdict,
            "grids": dict(self.grids),
            "overlap": self.overlap,
            "uncovered": self.uncovered,
            "pose": pose,
            "traces": {role: asdict(trace) for role, trace in self.traces.items()},
            "faults": [asdict(fault) for fault in self.faults],
        }

    def cells(self) -> list[str]:
        """Of its row in the table for people."""
        pose, overlap = self.pose, self.overlap
        return [
            self.name,
            self.verdict,
            "" if overlap is None else f"{overlap:.0%}",
            "" if pose is None else f"{pose.distance_mm:.1f} ± {pose.distance_uncertainty_mm:.1f}",
            "" if pose is None else " ".join(f"{shift:+.1f}" for shift in pose.shift_mm),
            "" if pose is None else f"{pose.turn_deg:.1f}",
            ", ".join(dict.fromkeys(fault.kind for fault in self.faults)),
        ]

    def measured(self) -> dict[str, str]:
        """Of its row in check.csv, by column; what could not be measured is empty."""
        found: dict[str, Any] = {"overlap": self.overlap, "uncovered": self.uncovered}
        if pose := self.pose:
            numbers = [*pose.shift_mm, pose.distance_uncertainty_mm, pose.turn_deg, pose.disagreement_mm]
            found |= dict(zip(_POSE, [*numbers, pose.nmi, pose.nmi_in_place, pose.nmi_mirrored], strict=True))
        for role, trace in self.traces.items():
            found |= {f"{role}_{name}": value for name, value in asdict(trace).items()}
        row = {"case": self.name, "patient": self.patient, "excluded": "yes" if self.is_excluded else "no"}
        return row | {name: _text(value) for name, value in found.items()}


@dataclass(frozen=True)
class Checked:
    """What was found of a table.

    Args:
        cases: worst first.
    """

    cases: tuple[CheckedCase, ...]

    @property
    def excluded(self) -> list[CheckedCase]:
        """The cases to leave out."""
        return [case for case in self.cases if case.is_excluded]

    @property
    def exit_code(self) -> int:
        """1 if a case should be left out, else 0."""
        return int(bool(self.excluded))

    def rows(self) -> list[list[str]]:
        """The table for people, its header first."""
        head = ["case", "verdict", "overlap", "apart, mm", "right front up, mm", "turned, °", "found"]
        return [head, *(case.cells() for case in self.cases)]

    def lines(self) -> Iterator[str]:
        """What was found and what to do, a line a kind, then how many cases are to be left out."""
        of_kind: dict[str, dict[str, Fault]] = defaultdict(dict)
        for case in self.cases:
            for fault in case.faults:
                of_kind[fault.kind].setdefault(case.name, fault)
        for kind, found in of_kind.items():
            name, fault = next(iter(found.items()))
            where = name if len(found) == 1 else f"{len(found)} cases, such as {name}"
            yield f"{kind}: {where}: {fault.reason}; {fault.remedy}"
        mendable = sum(case.is_mendable for case in self.cases)
        mended = f"; medgan prepare mends {mendable} of them" if mendable else ""
        yield f"{len(self.excluded)} of {len(self.cases)} cases should be left out{mended}"


def write_findings(checked: Checked, folder: Path) -> None:
    """Write `check.csv`, `findings.csv` and `exclude.csv`.

    Raises:
        OutputError: if the folder cannot be written.
    """
    rows = [case.measured() for case in checked.cases]
    columns = list(dict.fromkeys(("case", "patient", "excluded", "overlap", "uncovered", *_POSE)))
    columns += [name for name in dict.fromkeys(name for row in rows for name in row) if name not in columns]
    faults = [(case.name, fault) for case in checked.cases for fault in case.faults]
    found = ([name, one.kind, "yes" if one.excludes else "no", one.reason, one.remedy] for name, one in faults)
    _table(folder / "check.csv", columns, ([row.get(name, "") for name in columns] for row in rows))
    _table(folder / "findings.csv", ["case", "kind", "excludes", "reason", "remedy"], found)
    excluded = ([case.name, MENDS if case.is_mendable else "", _reason(case)] for case in checked.excluded)
    _table(folder / "exclude.csv", ["case", PREPARATION, "reason"], excluded)


def _reason(case: CheckedCase) -> str:
    return listed(fault.reason for fault in case.faults if fault.excludes)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _table(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([head, *rows])
