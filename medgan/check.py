"""Whether the pairs of a table are worth training on: geometry, values, registration and copies, case by case."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medgan.alignment import Misalignment, misalignment
from medgan.atomic import replacing
from medgan.cases import Case, listed, read_cases
from medgan.errors import CasesError, InputError, MedganError
from medgan.formats import read
from medgan.plausible import Fault, doubts
from medgan.progress import track
from medgan.volume import Grid, Volume

__all__ = ["Checked", "CheckedCase", "check"]

MOST_SHIFT_MM, MOST_TURN_DEG = 2.0, 2.0
MOST_DISAGREEMENT_MM, LEAST_MIRROR_GAIN = 2.5, 0.3
SAME_GRID_MM = 0.1
_LEAST_OVERLAP, _USUAL_OVERLAP = 0.5, 0.95


@dataclass(frozen=True)
class CheckedCase:
    """What was found of one case. What was measured is that of the pair farthest apart, if there are several contrasts.

    Args:
        name: of the case.
        patient: whose it is.
        grids: of each image, in words, by role.
        overlap: share (0..1) of the first image's field of view that the other one covers; None without a pair.
        pose: how the other image lies; None where that could not be told.
        faults: what is wrong, what excludes the case first.
    """

    name: str
    patient: str
    grids: Mapping[str, str]
    overlap: float | None
    pose: Misalignment | None
    faults: tuple[Fault, ...]

    @property
    def is_excluded(self) -> bool:
        """True if the case must not be learned from as it is."""
        return any(fault.excludes for fault in self.faults)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        pose = self.pose and {**asdict(self.pose), "distance_mm": self.pose.distance_mm}
        return {
            "case": self.name,
            "patient": self.patient,
            "excluded": self.is_excluded,
            "grids": dict(self.grids),
            "overlap": self.overlap,
            "pose": pose,
            "faults": [asdict(fault) for fault in self.faults],
        }

    def cells(self) -> list[str]:
        """Of its row in the table for people."""
        pose, overlap = self.pose, self.overlap
        return [
            self.name,
            "leave out" if self.is_excluded else "look" if self.faults else "good",
            "" if overlap is None else f"{overlap:.0%}",
            "" if pose is None else f"{pose.distance_mm:.1f} ± {pose.distance_uncertainty_mm:.1f}",
            "" if pose is None else " ".join(f"{shift:+.1f}" for shift in pose.shift_mm),
            "" if pose is None else f"{pose.turn_deg:.1f}",
            ", ".join(dict.fromkeys(fault.kind for fault in self.faults)),
        ]


@dataclass(frozen=True)
class Checked:
    """What was found of a table.

    Args:
        cases: worst first.
    """

    cases: tuple[CheckedCase, ...]

    @property
    def exit_code(self) -> int:
        """1 if a case should be left out, else 0."""
        return int(any(case.is_excluded for case in self.cases))

    def rows(self) -> list[list[str]]:
        """The table for people, its header first."""
        head = ["case", "verdict", "overlap", "apart, mm", "right front up, mm", "turned, °", "found"]
        return [head, *(case.cells() for case in self.cases)]

    def lines(self) -> Iterator[str]:
        """What was found and what to do, a line each, then how many cases are to be left out."""
        for case in self.cases:
            yield from (f"{case.name}: {fault.kind}: {fault.reason}; {fault.remedy}" for fault in case.faults)
        excluded = sum(case.is_excluded for case in self.cases)
        yield f"{excluded} of {len(self.cases)} cases should be left out"


def check(table: Path, *, out: Path | None = None, hu: Sequence[str] = ()) -> Checked:
    """Look at every case of a table: can its images be read, do they lie upon one another, are their values plausible?

    The first image of a case (`a` where there is one) is compared with each other one but `mask`. A case that cannot be
    read is a finding; the others go on.

    Args:
        table: of cases, as `medgan index` writes it.
        out: a folder for `check.csv`, all that was measured, `findings.csv`, and `exclude.csv`, the cases to leave out.
        hu: roles that are in HU, where files do not say so (plain NIfTI).

    Raises:
        CasesError: if the table cannot be used, or has no such role.
        OutputError: if the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from medgan.cases import Case, write_cases
        >>> from medgan.formats import write
        >>> folder = Path(tempfile.mkdtemp())
        >>> image = write(Volume(np.zeros((8, 8, 8), np.int16), Grid.regular((8, 8, 8))), folder / "a.nii.gz")
        >>> found = check(write_cases([Case("p1", "p1", "train", {"a": image})], folder / "cases.csv"))
        >>> found.exit_code, found.cases[0].faults[0].kind
        (1, 'constant')
    """
    cases = read_cases(Path(table), required=())
    _refuse_unknown(hu, cases, table)
    digests: dict[str, str] = {}
    found = [_checked(case, hu, digests) for case in track(cases, "check")]
    checked = Checked(tuple(sorted(found, key=_badness)))
    if out is not None:
        _write(checked, Path(out))
    return checked


def _refuse_unknown(hu: Sequence[str], cases: Sequence[Case], table: Path) -> None:
    roles = dict.fromkeys(role for case in cases for role in case.images)
    if unknown := [role for role in hu if role not in roles]:
        raise CasesError(f"{table}: has no role {', '.join(unknown)} to be in HU (seen: {', '.join(roles)})")


def _badness(case: CheckedCase) -> tuple[int, int, float, str]:
    excluding = sum(fault.excludes for fault in case.faults)
    return -excluding, -len(case.faults), -case.pose.distance_mm if case.pose else 0.0, case.name


def _checked(case: Case, hu: Sequence[str], digests: dict[str, str]) -> CheckedCase:
    volumes, faults = _read(case, hu)
    images = {role: volume for role, volume in volumes.items() if role != "mask"}
    for role, volume in images.items():
        faults += doubts(volume, role)
    faults += [*_copies(case, images, digests), *_of_mask(volumes)]
    sound = {role for role in images if np.ptp(images[role].array) > 0}
    pairs = [_compared(images, role) for role in list(images)[1:] if {role, next(iter(images))} <= sound]
    faults += [fault for _, _, own in pairs for fault in own]
    overlap, pose, _ = max(pairs, key=_apart) if pairs else (None, None, None)
    grids = {role: volume.grid.describe() for role, volume in volumes.items()}
    ordered = sorted(faults, key=lambda fault: not fault.excludes)
    return CheckedCase(case.name, case.patient, grids, overlap, pose, tuple(ordered))


def _apart(pair: tuple[float, Misalignment | None, list[Fault]]) -> float:
    return pair[1].distance_mm if pair[1] else -1.0


def _read(case: Case, hu: Sequence[str]) -> tuple[dict[str, Volume], list[Fault]]:
    volumes, faults = {}, []
    for role in sorted(case.images, key=lambda role: role != "a"):
        try:
            volume = read(case.images[role])
        except MedganError as error:
            faults.append(Fault("unreadable", f"{role} cannot be read ({error})", "replace the file"))
        else:
            volumes[role] = replace(volume, unit="HU") if role in hu else volume
    return volumes, faults


# --- geometry ---------------------------------------------------------------------------------------------------------


def _compared(images: Mapping[str, Volume], role: str) -> tuple[float, Misalignment | None, list[Fault]]:
    """How another image fits the first: the share of its place that is covered, how it lies, and what is wrong."""
    first, a = next(iter(images.items()))
    b, names = images[role], f"{first} and {role}"
    overlap = _overlap(a.grid, b.grid)
    faults = [*_of_grids(a.grid, b.grid, names), *_of_overlap(overlap, names)]
    try:
        pose = misalignment(a, b)
    except InputError as error:
        return overlap, None, [*faults, Fault("not judged", f"{names}: {error}", "look at them", excludes=False)]
    return overlap, pose, [*faults, *_of_pose(pose, names)]


def _of_grids(a: Grid, b: Grid, names: str) -> Iterator[Fault]:
    if not a.same_as(b, tolerance_mm=SAME_GRID_MM):
        far = f", corners up to {a.distance_mm(b):.1f} mm apart" if a.shape == b.shape else ""
        reason = f"{names} are on different grids: {a.describe()}, {b.describe()}{far}"
        yield Fault("grids", reason, "register them, then resample one onto the other")


def _of_overlap(overlap: float, names: str) -> Iterator[Fault]:
    if overlap < _USUAL_OVERLAP:
        reason = f"{names} have {overlap:.0%} of the first one's field of view in common"
        yield Fault("field of view", reason, "crop both to what they share", overlap < _LEAST_OVERLAP)


def _overlap(a: Grid, b: Grid) -> float:
    """Share of a's field of view that b covers."""
    sides = [np.linspace(-0.5 + size / 64, size - 0.5 - size / 64, 32) for size in a.shape]
    index = b.to_index(a.to_world(np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)))
    return float(((index >= -0.5) & (index <= np.array(b.shape) - 0.5)).all(axis=-1).mean())


def _of_pose(pose: Misalignment, names: str) -> Iterator[Fault]:
    if pose.mirror_gain > LEAST_MIRROR_GAIN:
        reason = f"{names} fit better if one is mirrored left to right ({pose.mirror_gain:+.0%} of information)"
        yield Fault("mirrored", reason, "look which one has the wrong orientation in its header, and correct that")
    elif pose.disagreement_mm > MOST_DISAGREEMENT_MM:
        reason = f"parts of {names} fit at places {pose.disagreement_mm:.1f} mm apart, whatever shift and rotation"
        yield Fault("anatomy", reason, "look whether both are of one patient and one posture")
    else:
        yield from _of_place(pose, names)


def _of_place(pose: Misalignment, names: str) -> Iterator[Fault]:
    if pose.distance_mm > max(MOST_SHIFT_MM, 2 * pose.distance_uncertainty_mm):
        reason = f"{names} lie {pose.distance_mm:.1f} ± {pose.distance_uncertainty_mm:.1f} mm apart"
        yield Fault("shifted", reason, "register them")
    if pose.turn_deg > MOST_TURN_DEG:
        yield Fault("turned", f"{names} are turned by {pose.turn_deg:.1f}°", "register them")


def _of_mask(volumes: Mapping[str, Volume]) -> Iterator[Fault]:
    if "mask" not in volumes or len(volumes) < 2:
        return
    mask, (first, a) = volumes["mask"], next(iter(volumes.items()))
    if not mask.grid.same_as(a.grid, tolerance_mm=SAME_GRID_MM):
        reason = f"mask and {first} are on different grids: {mask.grid.describe()}, {a.grid.describe()}"
        yield Fault("mask", reason, "resample the mask")
    if not mask.array.any():
        yield Fault("mask", "the mask is empty", "draw it, or leave the cell empty")


# --- copies -----------------------------------------------------------------------------------------------------------


def _copies(case: Case, images: Mapping[str, Volume], digests: dict[str, str]) -> Iterator[Fault]:
    """Images that another role or an earlier case has too, voxel for voxel; remembers those of this case."""
    own: dict[str, str] = {}
    for role, volume in images.items():
        digest = _digest(volume)
        if digest in own:
            yield Fault("copy", f"{own[digest]} and {role} are the same image", "correct the table")
        elif digest in digests:
            yield Fault("copy", f"{role} is the same image as in {digests[digest]}", "keep one of the two cases")
        own.setdefault(digest, role)
    for digest in own:
        digests.setdefault(digest, case.name)


def _digest(volume: Volume) -> str:
    array = np.ascontiguousarray(volume.reorient("RAS").array, dtype=np.float32)
    return hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).hexdigest()


# --- what is left behind ----------------------------------------------------------------------------------------------


def _write(checked: Checked, folder: Path) -> None:
    faults = [(case, fault) for case in checked.cases for fault in case.faults]
    excluded = [case for case in checked.cases if case.is_excluded]
    _table(folder / "check.csv", _MEASURED, (_measured(case) for case in checked.cases))
    _table(
        folder / "findings.csv",
        ["case", "kind", "excludes", "reason", "remedy"],
        ([case.name, one.kind, "yes" if one.excludes else "no", one.reason, one.remedy] for case, one in faults),
    )
    _table(folder / "exclude.csv", ["case", "reason"], ([case.name, _reason(case)] for case in excluded))


def _reason(case: CheckedCase) -> str:
    return listed(fault.reason for fault in case.faults if fault.excludes)


_MEASURED = [
    *("case", "patient", "excluded", "overlap", "shift_right_mm", "shift_front_mm", "shift_up_mm"),
    *("uncertainty_mm", "rotation_deg", "disagreement_mm", "nmi", "nmi_in_place", "nmi_mirrored"),
]


def _measured(case: CheckedCase) -> list[str]:
    head = [case.name, case.patient, "yes" if case.is_excluded else "no"]
    pose, overlap = case.pose, case.overlap
    if pose is None:
        return [*head, "" if overlap is None else f"{overlap:.3f}", *(len(_MEASURED) - 4) * [""]]
    numbers = [*pose.shift_mm, pose.distance_uncertainty_mm, pose.turn_deg, pose.disagreement_mm]
    numbers += [pose.nmi, pose.nmi_in_place, pose.nmi_mirrored]
    return [*head, f"{overlap:.3f}", *(f"{number:.4f}" for number in numbers)]


def _table(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([head, *rows])
