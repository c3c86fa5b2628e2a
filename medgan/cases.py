"""The table of cases: which images belong together, whose they are, and in which split they are.

A table is a CSV file with the columns `case`, `patient`, `split` and one column a role (`a`, `b`, `mask`, …) that holds
paths, relative to the table's folder or absolute. Columns `condition:<name>` hold what is known of a case besides: a
class, or a number. All images of one person are in one split.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medgan.atomic import replacing
from medgan.errors import CasesError
from medgan.names import alike, is_case_name, is_text
from medgan.progress import say

__all__ = [
    "FIXED_COLUMNS",
    "MENDS",
    "PREPARATION",
    "SPLITS",
    "Case",
    "by_role",
    "listed",
    "read_cases",
    "read_exclusions",
    "tell_alike",
    "write_cases",
]

FIXED_COLUMNS = ("case", "patient", "split", "a", "b", "mask")
SPLITS = ("train", "val", "test")
PREPARATION, MENDS = "preparation", "mends it"  # a column of lists of exclusions, and what it may say
_KEYS = FIXED_COLUMNS[:3]
_ROLE = re.compile(r"[a-z][a-z0-9_]*")
_CONDITION = "condition:"
_FIRST_ROLES = FIXED_COLUMNS[3:]


@dataclass(frozen=True)
class Case:
    """Images of one person that belong together, on one grid where they are a pair.

    Args:
        name: unique in its table; also the name of what is made from the case.
        patient: the person; may have several cases.
        split: `train`, `val` or `test`.
        images: path of the image in each role.
        conditions: what is known of the case besides, by name: a class, or a number as text.
    """

    name: str
    patient: str
    split: str
    images: Mapping[str, Path]
    conditions: Mapping[str, str] = field(default_factory=dict)


def read_cases(
    path: Path,
    *,
    split: str | None = None,
    required: Sequence[str] | None = None,
    conditions: Sequence[str] = (),
    exclude: Path | None = None,
    to_prepare: bool = False,
    present: bool = True,
) -> list[Case]:
    """Read a table of cases and check it whole.

    Args:
        path: the CSV file.
        split: only the cases of this split, which may be none; all if not given.
        required: roles that every case must have; every column if not given. A case may lack other roles.
        conditions: what must be known of every case.
        exclude: a list of cases that are as if they were not in the table, see `read_exclusions`.
        to_prepare: whether cases of the list stay that a preparation mends.
        present: whether a file that is missing is refused.

    Raises:
        CasesError: if the table is empty, lacks a column, names a case twice, knows another split, has a patient in
            two splits, or if a cell is empty or a file missing; if the list names other cases, or leaves none.
    """
    path = Path(path)
    rows, roles = _rows(path)
    _refuse_split(path, {split} if split else set())
    cases = _kept([_case(row, roles, path.parent) for row in rows], exclude, path, to_prepare=to_prepare)
    _refuse_empty_cells(cases, roles if required is None else required, path)
    _refuse_unknown(cases, conditions, path)
    _check(cases, str(path))
    if present:
        _refuse_missing_files(cases, path)
    return [case for case in cases if split in (None, case.split)]


def read_exclusions(path: Path, *, to_prepare: bool = False) -> dict[str, str]:
    """Which cases not to use, and why: a CSV file with the columns case and reason, as `medgan check` writes it.

    The column reason may be missing; a list of none is one.

    Args:
        path: the file.
        to_prepare: without those whose column preparation says `mends it`.

    Raises:
        CasesError: if it is no such file, or has a line without a case.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CasesError(f"{path}: cannot be read as a list of cases to leave out ({error})") from None
    if "case" not in columns:
        raise CasesError(f"{path}: lacks the column case (seen: {', '.join(columns) or 'nothing'})")
    mended = [to_prepare and (row.get(PREPARATION) or "").strip() == MENDS for row in rows]
    kept = [row for row, is_mended in zip(rows, mended, strict=True) if not is_mended]
    reasons = {(row["case"] or "").strip(): (row.get("reason") or "").strip() for row in kept}
    if "" in reasons:
        raise CasesError(f"{path}: has a line without a case; fill it or remove it")
    return reasons


def write_cases(cases: Sequence[Case], path: Path) -> Path:
    """Write a table of cases; paths below the table's folder are written relative to it, others absolute.

    Raises:
        CasesError: if the cases would make a table that `read_cases` refuses, missing files aside.
        OutputError: if the place cannot be written.
    """
    path = Path(path)
    if not cases:
        raise CasesError(f"{path}: there are no cases to write")
    _check(cases, str(path))
    if wrong := [repr(str(image)) for case in cases for image in case.images.values() if not is_text(image)]:
        raise CasesError(f"{path}: a table holds text, which these names are not: {listed(wrong)}; rename them")
    roles, conditions = _ordered_roles(cases), list(dict.fromkeys(name for case in cases for name in case.conditions))
    home = Path(os.path.abspath(path)).parent  # noqa: PTH100 - links stay links
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*_KEYS, *roles, *(_CONDITION + name for name in conditions)])
        writer.writerows(
            [
                *(case.name, case.patient, case.split),
                *(_cell(case, role, home) for role in roles),
                *(case.conditions.get(name, "") for name in conditions),
            ]
            for case in cases
        )
    return path


def by_role(texts: Iterable[str], *, example: str = "t2=t2.nii.gz") -> dict[str, str]:
    """What a user wrote as `role=text`, by role.

    Args:
        texts: as written.
        example: of a right one, for messages.

    Raises:
        CasesError: if a text has no role, or two have the same.

    Example:
        >>> by_role(["t2=P1/t2.nii.gz"])
        {'t2': 'P1/t2.nii.gz'}
    """
    parts = [text.partition("=") for text in texts]
    wrong = ["".join(part) for part in parts if not _ROLE.fullmatch(part[0]) or not part[2]]
    if wrong:
        raise CasesError(f"{listed(wrong)}: give each as name=value, the name in lower case: {example}")
    if len({role for role, _, _ in parts}) < len(parts):
        raise CasesError(f"{listed(map(''.join, parts))}: a name is given twice; give each once")
    return {role: text for role, _, text in parts}


def listed(lines: Iterable[str], *, most: int = 6) -> str:
    """The lines in one, cut after a handful.

    Example:
        >>> listed("abcd", most=2)
        'a; b; and 2 more'
    """
    lines = list(lines)
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "; ".join([*lines[:most], *more])


def tell_alike(cases: Sequence[Case], what: object) -> None:
    """Warn of what may be one person under two names, and of cases that some file systems take for one.

    Args:
        cases: of one table.
        what: the table or folder, for the line.
    """
    people = alike(case.patient for case in cases)
    names = [line for line in alike(case.name for case in cases) if line not in people]
    differ = "differ only in capitals or white space"
    if people:
        say(f"Warning: {what}: patients {differ}: {listed(people)}; if they are one person, give them one name")
    if names:
        say(f"Warning: {what}: names of cases {differ}: {listed(names)}; some systems take such files for one, rename")


# --- reading ----------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a table, keyed by column, and the columns that are roles."""
    lines = _lines(path)
    columns = [name.strip() for name in lines[0]] if lines else []
    _refuse_columns(columns, path)
    ragged = [str(number) for number, line in enumerate(lines[1:], start=2) if len(line) != len(columns)]
    if ragged:
        raise CasesError(
            f"{path}: the header has {len(columns)} columns, but rows have more or fewer: {listed(ragged)}"
        )
    if len(lines) < 2:
        raise CasesError(f"{path}: has no cases, only a header; make a table by `medgan index`")
    rows = [dict(zip(columns, map(str.strip, line), strict=True)) for line in lines[1:]]
    return rows, [name for name in columns if name not in _KEYS and not name.startswith(_CONDITION)]


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return [line for line in csv.reader(stream) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no CSV text in UTF-8 ({error})"
        raise CasesError(
            f"{path}: cannot be read as a table of cases: {reason}; make one by `medgan index`, or save it as CSV UTF-8"
        ) from None


def _refuse_columns(columns: list[str], path: Path) -> None:
    seen = ", ".join(columns) or "nothing"
    missing = [name for name in _KEYS if name not in columns]
    if missing or len(columns) == len(_KEYS):
        lacking = ", ".join(missing) or "a role such as a"
        is_split_elsewhere = bool(set(";\t") & set(seen))
        remedy = "save it with commas between the cells" if is_split_elsewhere else "make one by `medgan index`"
        raise CasesError(f"{path}: lacks columns: {lacking} (seen, split at commas: {seen}); {remedy}")
    names = [name.removeprefix(_CONDITION) for name in columns if name not in _KEYS]
    wrong = [name for name in names if not _ROLE.fullmatch(name)]
    if wrong or len(set(columns)) < len(columns):
        raise CasesError(
            f"{path}: columns besides case, patient and split are roles, each once, in lower case, or conditions, such "
            f"as {_CONDITION}age; seen: {seen}"
        )


def _case(row: dict[str, str], roles: list[str], home: Path) -> Case:
    images = {role: home / row[role] for role in roles if row[role]}
    known = {key.removeprefix(_CONDITION): row[key] for key in row if key.startswith(_CONDITION) and row[key]}
    return Case(row["case"], row["patient"], row["split"], images, known)


def _kept(cases: list[Case], exclude: Path | None, path: Path, *, to_prepare: bool) -> list[Case]:
    """Without those of the list, whatever is wrong with them."""
    if exclude is None:
        return cases
    if strange := sorted(read_exclusions(exclude).keys() - {case.name for case in cases}):
        raise CasesError(
            f"{exclude}: names cases that are not in {path}: {listed(strange)}; make the list from this table by "
            "`medgan check`, or remove these lines"
        )
    excluded = read_exclusions(exclude, to_prepare=to_prepare)
    kept = [case for case in cases if case.name not in excluded]
    if not kept:
        raise CasesError(f"{exclude}: leaves none of the {len(cases)} cases of {path}; mend what it tells of")
    return kept


def _refuse_empty_cells(cases: list[Case], required: Sequence[str], path: Path) -> None:
    empty = [f"{case.name} has no {role}" for case in cases for role in required if role not in case.images]
    empty += [f"{case.name} has no image" for case in cases if not case.images and not required]
    if empty:
        raise CasesError(f"{path}: empty cells: {listed(empty)}; fill them or remove these cases")


def _refuse_unknown(cases: list[Case], conditions: Sequence[str], path: Path) -> None:
    empty = [f"{case.name} has no {name}" for case in cases for name in conditions if name not in case.conditions]
    if empty:
        columns = ", ".join(_CONDITION + name for name in conditions)
        raise CasesError(f"{path}: empty or missing in the columns {columns}: {listed(empty)}; fill them")


def _refuse_missing_files(cases: list[Case], path: Path) -> None:
    missing = [str(image) for case in cases for image in case.images.values() if not _there(image)]
    if missing:
        raise CasesError(
            f"{path}: names {len(missing)} files that are not there: {listed(missing)}; "
            "paths are relative to the table's folder"
        )


def _there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - pathlib's own raises where a name is too long


# --- what holds for every table ---------------------------------------------------------------------------------------


def _check(cases: Sequence[Case], what: str) -> None:
    _refuse_names(cases, what)
    _refuse_split(what, {case.split for case in cases})
    _refuse_leaks(cases, what)


def _refuse_names(cases: Sequence[Case], what: str) -> None:
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise CasesError(f"{what}: cases named twice: {listed(twice)}; each case needs a name of its own")
    wrong = [repr(case.name) for case in cases if not is_case_name(case.name)]
    if wrong:
        raise CasesError(f"{what}: names of cases become names of files; these cannot: {listed(wrong)}")
    nobody = [case.name for case in cases if not case.patient]
    if nobody:
        raise CasesError(f"{what}: cases without a patient: {listed(nobody)}; without one, leaks cannot be seen")


def _refuse_split(what: object, splits: set[str]) -> None:
    unknown = sorted(splits - set(SPLITS))
    if unknown:
        raise CasesError(f"{what}: unknown split {', '.join(map(repr, unknown))} (accepted: {', '.join(SPLITS)})")


def _refuse_leaks(cases: Sequence[Case], what: str) -> None:
    of_patient: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        of_patient[case.patient].append(case)
    leaks = [own for own in of_patient.values() if len({case.split for case in own}) > 1]
    if leaks:
        lines = [", ".join(f"{case.name} in {case.split}" for case in own) for own in leaks]
        raise CasesError(
            f"{what}: one patient is in two splits: {listed(lines)}; put all cases of a person into one split"
        )


# --- writing ----------------------------------------------------------------------------------------------------------


def _ordered_roles(cases: Sequence[Case]) -> list[str]:
    seen = list(dict.fromkeys(role for case in cases for role in case.images))
    wrong = [role for role in seen if role in _KEYS or not _ROLE.fullmatch(role)]
    if wrong or not seen:
        raise CasesError(f"roles are lower-case names such as a, b, mask; seen: {wrong or 'none'}")
    return [*(role for role in _FIRST_ROLES if role in seen), *(role for role in seen if role not in _FIRST_ROLES)]


def _cell(case: Case, role: str, home: Path) -> str:
    if role not in case.images:
        return ""
    image = Path(os.path.abspath(case.images[role]))  # noqa: PTH100
    text = (image.relative_to(home) if image.is_relative_to(home) else image).as_posix()
    if text == text.strip():
        return text
    return f"{text}/." if text.startswith("/") else f"./{text}/."  # readers strip cells
