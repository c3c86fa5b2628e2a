"""Leaks between the splits of a table, and between what was trained on and what is tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medgan.cases import Case, listed, read_cases, tell_alike
from medgan.errors import CasesError
from medgan.leaks.compare import Leak, leaks, look_at
from medgan.progress import say

__all__ = ["refuse_leaks", "trained_on"]


def refuse_leaks(table: Path, workers: int = 0) -> None:
    """Refuse a table with one image in two splits; tell of cases in different splits that may be of one person.

    Patients whose names differ only in capitals or white space are told, in whatever split.

    A PatientID that cases of two splits share is told only: it may be a placeholder, and `medgan index` has asked.

    Args:
        table: of cases.
        workers: copies of this process that look at images at once; below 2 it does so itself.

    Raises:
        CasesError: if images in different splits are equal, voxel for voxel, or share a UID; names the cases.
    """
    cases = read_cases(table, required=())
    tell_alike(cases, table)
    seen = look_at(cases, workers=workers)
    found = leaks(seen, lambda case: case.split)
    proven = [_told(leak) for leak in found if leak.is_proven]
    if proven:
        raise CasesError(
            f"{table}: {len(proven)} leaks between splits: {listed(proven)}; put all cases of a person into one split, "
            "by `medgan index` with `--patients`, or by hand"
        )
    if found:
        say(
            f"Warning: {table}: in different splits, but maybe of one person: {listed(map(_told, found))}; look at them"
        )
    if bad := [f"{one.case.name}, {one.role}: {one.error}" for one in seen if one.error]:
        say(f"Warning: {table}: not looked at for leaks, as they cannot be read: {listed(bad)}")


def trained_on(training: Sequence[Case], tested: Sequence[Case]) -> dict[str, str]:
    """Which of the tested cases were trained on, by name, and how that shows; what only seems so is told.

    Args:
        training: the cases of a run.
        tested: others, of any table.
    """
    known = [replace(case, split="train") for case in training]
    new = [replace(case, split="test") for case in tested]
    found = leaks([*look_at(known), *look_at(new, like=known)], lambda case: case.split)
    if suspected := [_told(leak) for leak in found if not leak.is_proven]:
        say(f"Warning: tested cases that may be of people who were trained on: {listed(suspected)}; look at them")
    proven = [leak for leak in found if leak.is_proven]
    reasons = [(seen.case, _told(leak)) for leak in proven for seen in (leak.one, leak.other)]
    return {case.name: told for case, told in reasons if case.split == "test"}


def _told(leak: Leak) -> str:
    return leak.describe(with_splits=True)
