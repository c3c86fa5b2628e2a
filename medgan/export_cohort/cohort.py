"""What of a cohort is handed over: which roles are images, which is the label, and what they are called there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medgan.cases import Case, listed
from medgan.errors import InputError, MedganError
from medgan.formats import read, read_header, write
from medgan.formats.sidecar import sidecar_path
from medgan.leaks import voxel_hash
from medgan.volume import Volume

__all__ = ["Cohort", "Labels", "cohort_of", "copied", "labelled", "refuse_lacking", "refuse_other_grids", "write_json"]

KNOWN = {
    "t1": "T1w",
    "t2": "T2w",
    "flair": "FLAIR",
    "pd": "PDw",
    "t1c": "T1c",
    "t1post": "T1c",
    "CT": "ct",
    "PT": "pet",
}
SAME_GRID_MM = 0.1


@dataclass(frozen=True)
class Cohort:
    """What is handed over.

    Args:
        title: of the folder that is made.
        cases: with the roles that count.
        images: names by role, in the order of the channels.
        label: role of what is segmented, None for nothing.
        others: further label maps, the mask among them.
        synthetic: roles in which an image says that it is synthetic.
        folds: the cases of each fold.
    """

    title: str
    cases: Sequence[Case]
    images: Mapping[str, str]
    label: str | None
    others: tuple[str, ...]
    synthetic: frozenset[str]
    folds: Sequence[Sequence[Case]] = ()

    @property
    def marked(self) -> list[str]:
        """Names of what is synthetic among channels and label."""
        names = {**self.images, **({self.label: "label"} if self.label else {})}
        return [name for role, name in names.items() if role in self.synthetic]

    def of(self, *splits: str) -> list[Case]:
        """The cases of these splits."""
        return [case for case in self.cases if case.split in splits]


@dataclass(frozen=True)
class Labels:
    """The values of a label image, background first, and the numbers that stand for them in the files."""

    values: tuple[int, ...]

    def to_json(self) -> dict[str, int]:
        """Numbers by name; a label that had another number is named by it."""
        return {"background" if value == 0 else f"label_{value}": number for number, value in enumerate(self.values)}

    def renumbered(self, volume: Volume) -> Volume:
        """0, 1, 2 … without gaps."""
        numbers = np.searchsorted(self.values, np.rint(volume.array).astype(np.int64))
        return volume.with_array(numbers.astype(np.uint8 if len(self.values) < 256 else np.int32), unit="label")


def cohort_of(
    cases: Sequence[Case], label: str | None, names: Mapping[str, str], folds: Sequence[Sequence[Case]], title: str
) -> Cohort:
    """Look which roles are labels, and name the others.

    Raises:
        InputError: if a role is not there, or images cannot be used: all of them are named.
    """
    _refuse_unusable(cases)
    seen = {role: _first(cases, role) for role in dict.fromkeys(role for case in cases for role in case.images)}
    if unknown := [role for role in (*names, *([label] if label else [])) if role not in seen]:
        raise InputError(f"{listed(unknown)}: no column of the table (seen: {', '.join(seen)})")
    marks = {role: read(path) for role, path in seen.items()}
    images = {role: one for role, one in marks.items() if role not in (label, "mask") and one.unit != "label"}
    if not images:
        raise InputError(f"the table has no images, only labels ({', '.join(seen)}); give one that has")
    called = {role: names.get(role) or KNOWN.get(role) or KNOWN.get(one.modality, role) for role, one in images.items()}
    if len(set(called.values())) < len(called):
        raise InputError(f"images have one name: {called}; name them apart, such as by --name a=T1w --name b=FLAIR")
    others = tuple(role for role in seen if role not in images and role != label)
    synthetic = frozenset(role for role, one in marks.items() if one.synthetic is not None)
    return Cohort(title, cases, called, label, others, synthetic, folds)


def copied(path: Path, to: Path) -> Volume | None:
    """A compressed NIfTI as it is, with its JSON file; anything else is read and written, and returned."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.name.endswith(".nii.gz"):
        shutil.copyfile(path, to)
        if sidecar_path(path).is_file():
            shutil.copyfile(sidecar_path(path), sidecar_path(to))
        return None
    volume = read(path)
    write(volume, to)
    return volume


def labelled(cases: Iterable[Case], role: str) -> Labels:
    """The values that a label image has in all cases.

    Raises:
        InputError: if one is negative or no whole number.
    """
    values: set[int] = {0}
    for case in cases:
        if role in case.images:
            array = read(case.images[role]).array
            found = np.unique(array)
            if (found < 0).any() or (found != np.rint(found)).any():
                raise InputError(f"{case.name}: {role} is no label image: it holds {listed(map(str, found))}")
            values |= {int(value) for value in found}
    return Labels(tuple(sorted(values)))


def refuse_other_grids(case: Case, roles: Sequence[str]) -> None:
    """Refuse images of a case that do not lie on one grid.

    Raises:
        InputError: naming the case.
    """
    there = [role for role in roles if role in case.images]
    for first, role in ((there[0], other) for other in there[1:]):
        one, other = (read_header(case.images[name]).grid for name in (first, role))
        if not one.same_as(other, tolerance_mm=SAME_GRID_MM):
            raise InputError(
                f"{case.name}: {first} and {role} are on different grids ({one.describe()}, {other.describe()}); "
                "bring them onto one by medgan prepare"
            )


def refuse_lacking(wanted: Iterable[tuple[Case, Sequence[str]]], who: str) -> None:
    """Refuse cases without what a layout wants of them.

    Args:
        wanted: the roles of each case.
        who: wants them.

    Raises:
        InputError: naming the cases.
    """
    lacking = [f"{case.name} has no {role}" for case, roles in wanted for role in roles if role not in case.images]
    if lacking:
        raise InputError(
            f"{who} wants every channel and label of a case: {listed(lacking)}; leave these cases out (--exclude)"
        )


def write_json(path: Path, values: Any) -> None:
    """Plain values, as text that people can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _refuse_unusable(cases: Sequence[Case]) -> None:
    """Other tools would fall over them late, or not at all."""
    if lines := [f"{case.name}: {reason}" for case in cases if (reason := _doubt(case))]:
        raise InputError(
            f"{len(lines)} cases cannot be exported: {listed(lines)}; mend them, or leave them out (--exclude)"
        )


def _doubt(case: Case) -> str:
    """Why a case cannot be used, or nothing; masks and labels may be empty, and alike."""
    seen: dict[str, str] = {}
    for role, path in case.images.items():
        try:
            volume = read(path)
        except (MedganError, OSError) as error:
            return f"{role}: {error}"
        if role != "mask" and volume.unit != "label" and volume.array.min() == volume.array.max():
            return f"{role} is constant ({volume.array.flat[0]:g} everywhere)"
        if (found := voxel_hash(volume)) in seen:
            return f"{seen[found]} and {role} are the same image"
        seen |= {found: role} if found else {}
    return ""


def _first(cases: Sequence[Case], role: str) -> Path:
    return next(case.images[role] for case in cases if role in case.images)
