"""Results of several methods, read from files, joined by case and proved to be comparable."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.cases import listed
from medgan.errors import InputError
from medgan.metrics.measures import measure

__all__ = ["Joined", "Results", "is_results", "join", "read_results", "results_of"]

Row = Mapping[str, Any]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

SCORED, NO_REFERENCE = "scored", "no reference"
CONDITIONS = ("preset", "range", "unit", "mask")
ALIKE = (*CONDITIONS, "num_voxels", "wepl_curve", "wepl_angles")  # of a case, for its scores to be comparable
_FILE = "metrics.json"
_IMAGE = re.compile(r"\.(nii(\.gz)?|mha|mhd|nrrd|dcm)$|^[^.]+$")


@dataclass(frozen=True)
class Results:
    """What one method scored.

    Args:
        method: its name.
        rows: by case.
        sha256: of the files behind a row, by case and role; empty where that is not recorded.
        meant: what words in the names of columns stand for, as `region bone`: `200..inf`, where that is recorded.
        version: of medgan, where that is recorded.
    """

    method: str
    rows: Mapping[str, Row]
    sha256: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    meant: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True)
class Joined:
    """Results of M methods on the same N cases.

    Args:
        methods: their names.
        cases: that have a reference, in order of name.
        patients: whose they are; the case where no patient is named.
        missing: (N, M) where a method has no score: there is no prediction, or it was refused.
        values: (N, M) by measure; NaN where there is no number.
        without_reference: cases that are left out, as there is nothing to compare them with.
        conditions: what holds for all scores: `preset`, `range`, `unit`, `mask`; "various" where cases differ.
        left_out: measures that are not compared, and why.
        warnings: what makes the comparison less than it seems.
    """

    methods: tuple[str, ...]
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    missing: Flags
    values: Mapping[str, Floats]
    without_reference: tuple[str, ...]
    conditions: Mapping[str, str]
    left_out: Mapping[str, str]
    warnings: tuple[str, ...]

    def cases_where(self, flags: Flags) -> tuple[str, ...]:
        """The cases that are marked among the N."""
        return tuple(self.cases[k] for k in np.flatnonzero(flags))

    def patients_where(self, flags: Flags) -> tuple[str, ...]:
        """Whose the marked cases are."""
        return tuple(self.patients[k] for k in np.flatnonzero(flags))


def is_results(path: Path, *, to_score: bool = False) -> bool:
    """Whether a path holds scores rather than predictions: a JSON or CSV file, or the folder that `evaluate` wrote.

    Args:
        path: of a method.
        to_score: that folders of predictions are scored: then scores that lie among images, perhaps of older ones, are
            not taken for their scores.
    """
    if path.suffix.lower() in {".json", ".csv"}:
        return True
    among_images = to_score and any(_IMAGE.search(file.name.lower()) for file in path.rglob("*") if file.is_file())
    return (path / _FILE).is_file() and not among_images


def read_results(method: str, path: Path) -> Results:
    """Scores that `evaluate` wrote, or a table of another tool that has a column `case` and columns named as measures.

    Args:
        method: name of the method.
        path: metrics.json, metrics.csv, or the folder of metrics.json.

    Raises:
        InputError: if the file cannot be read, holds no rows, a case twice, or no number where one belongs.
    """
    file = path / _FILE if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read; name metrics.json or metrics.csv of `medgan evaluate`") from error
    record = _of_csv(text, file) if file.suffix.lower() == ".csv" else _of_json(text, file)
    found = results_of(method, record["rows"], sha256=record.get("sha256") or {}, source=str(file))
    return replace(found, meant=_meant(record), version=str(_part(record, "versions").get("medgan", "")))


def results_of(
    method: str, rows: Iterable[Row], *, sha256: Mapping[str, Mapping[str, str]] | None = None, source: str = ""
) -> Results:
    """The same of rows in memory.

    Args:
        method: name of the method.
        rows: as `evaluate` returns them.
        sha256: of the files behind each row.
        source: where they come from, for messages.

    Raises:
        InputError: as `read_results`.
    """
    where = source or f"method {method!r}"
    rows = list(rows)
    if not rows or not all(isinstance(row, Mapping) and row.get("case") for row in rows):
        raise InputError(f"{where}: holds no table of results; each row names its `case`")
    by_case = {str(row["case"]): _clean(row, where) for row in rows}
    if len(by_case) < len(rows):
        raise InputError(f"{where}: holds a case twice; keep one row for each")
    return Results(method, by_case, sha256 or {})


def join(results: Sequence[Results], metrics: Sequence[str] | None = None) -> Joined:
    """Scores of several methods by case, proved to be comparable.

    Args:
        results: of two methods or more.
        metrics: what to compare; all measures that have a direction and that every method has if not given.

    Raises:
        InputError: if scores were made differently, no case is shared, or a measure that is asked for is not there.
    """
    _refuse_unlike(results)
    cases = sorted({case for one in results for case, row in one.rows.items() if _status(row) != NO_REFERENCE})
    everywhere = {case for one in results for case in one.rows}
    shared = [case for case in cases if all(_is_scored(one.rows.get(case)) for one in results)]
    if not shared:
        raise InputError("no case is scored for every method; score them on the same cases, named alike")
    values, left_out = _values(results, cases, metrics)
    return Joined(
        methods=tuple(one.method for one in results),
        cases=tuple(cases),
        patients=_patients(results, cases),
        missing=np.array([[_is_missing(one.rows.get(case)) for one in results] for case in cases]),
        values=values,
        without_reference=tuple(sorted(everywhere - set(cases))),
        conditions={key: _common(results, shared, key) for key in CONDITIONS},
        left_out=left_out,
        warnings=(*_other_files(results, shared), *_other_versions(results)),
    )


# --- reading ----------------------------------------------------------------------------------------------------------


def _of_csv(text: str, file: Path) -> dict[str, Any]:
    table = csv.DictReader(text.splitlines())
    if "case" not in (table.fieldnames or ()):
        seen = (text.splitlines() or [""])[0][:80]
        raise InputError(
            f"{file}: holds no table of results; each row names its `case`, columns are separated by commas and named "
            f"as measures (mae, psnr …); seen: {seen!r}"
        )
    return {"rows": list(table)}


def _of_json(text: str, file: Path) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: is no JSON (line {error.lineno}: {error.msg}); name what evaluate wrote") from error
    record = {"rows": record} if isinstance(record, list) else record
    if not isinstance(record, dict) or not isinstance(record.get("rows"), list):
        raise InputError(f"{file}: holds no `rows`; name metrics.json of `medgan evaluate`")
    return record


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a file, where it has one."""
    found = record.get(name)
    return found if isinstance(found, Mapping) else {}


def _meant(record: Mapping[str, Any]) -> dict[str, str]:
    settings = _part(record, "settings")
    regions = [str(text).partition("=") for text in settings.get("regions") or ()]
    labels = {f"label {name}": str(number) for number, name in _part(settings, "labels").items()}
    across = {"slices across": str(settings["across"])} if "across" in settings else {}
    return {f"region {name}": limits for name, _, limits in regions} | labels | across


def _clean(row: Row, where: str) -> Row:
    """A row whose measures are numbers, and whose conditions are text, whichever file it comes from."""
    numbers = {name: _number(value, name, row, where) for name, value in row.items() if _is_measure(name)}
    return {**row, **numbers, **{key: _text(row.get(key)) for key in ALIKE}}


def _is_measure(name: Any) -> bool:
    try:
        measure(str(name))
    except InputError:
        return False
    return True


def _number(value: Any, name: str, row: Row, where: str) -> float:
    if value is None or value == "":
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        seen = f"case {str(row['case'])!r}, column {name}: {value!r}"
        raise InputError(f"{where}: {seen} is no number; leave it empty where there is none") from error


def _text(value: Any) -> str:
    """A condition as it stands in CSV, where a range is `low..high`."""
    if isinstance(value, list | tuple):
        return "..".join(f"{number:g}" for number in value)
    return "" if value is None else str(value)


# --- joining ----------------------------------------------------------------------------------------------------------


def _status(row: Row) -> str:
    return str(row.get("status") or SCORED)


def _is_scored(row: Row | None) -> bool:
    return row is not None and _status(row) == SCORED


def _is_missing(row: Row | None) -> bool:
    """Without a prediction; a case without a reference is not the method's fault."""
    return row is None or _status(row) not in {SCORED, NO_REFERENCE}


def _refuse_unlike(results: Sequence[Results]) -> None:
    for first, second in combinations(results, 2):
        _refuse_other_meanings(first, second)
        for case in sorted(first.rows.keys() & second.rows.keys()):
            one, other = first.rows[case], second.rows[case]
            if _is_scored(one) and _is_scored(other):
                _refuse_unlike_rows(case, first.method, second.method, [(k, one[k], other[k]) for k in ALIKE])


def _refuse_other_meanings(first: Results, second: Results) -> None:
    apart = [key for key in first.meant if second.meant.get(key, first.meant[key]) != first.meant[key]]
    if apart:
        seen = f"{first.meant[apart[0]]} for {first.method!r}, {second.meant[apart[0]]} for {second.method!r}"
        raise InputError(f"{apart[0]} is {seen}; score all methods with one meaning of it")


def _refuse_unlike_rows(case: str, first: str, second: str, seen: Sequence[tuple[str, str, str]]) -> None:
    apart = next(((key, a, b) for key, a, b in seen if a and b and a != b), None)
    if apart:
        key, a, b = apart
        raise InputError(
            f"case {case!r} was scored unlike: {key} is {a} for {first!r}, {b} for {second!r}; score all methods with "
            "one preset, range, unit and mask"
        )


def _common(results: Sequence[Results], cases: Sequence[str], key: str) -> str:
    seen = {one.rows[case][key] for one in results for case in cases if one.rows[case][key]}
    return seen.pop() if len(seen) == 1 else "various" if seen else ""


def _values(
    results: Sequence[Results], cases: Sequence[str], metrics: Sequence[str] | None
) -> tuple[dict[str, Floats], dict[str, str]]:
    """Numbers by measure, and the measures that are not compared."""
    seen = dict.fromkeys(name for one in results for row in one.rows.values() for name in row if _is_measure(name))
    unknown = [name for name in metrics or () if name not in seen]
    if unknown:
        raise InputError(f"{listed(unknown)}: not among the results, which have {listed(seen, most=40) or 'none'}")
    tables = {name: _table(results, cases, name) for name in metrics or seen}
    left_out = {name: reason for name, table in tables.items() if (reason := _why_not(results, name, table))}
    if metrics and left_out:
        raise InputError("; ".join(f"{name}: {reason}" for name, reason in left_out.items()))
    if len(left_out) == len(tables):
        raise InputError("the results have no measure to compare: none with a direction that every method has")
    return {name: table for name, table in tables.items() if name not in left_out}, left_out


def _table(results: Sequence[Results], cases: Sequence[str], name: str) -> Floats:
    rows = [[one.rows.get(case, {}) for one in results] for case in cases]
    return np.array([[row.get(name, math.nan) if _is_scored(row) else math.nan for row in line] for line in rows])


def _why_not(results: Sequence[Results], name: str, table: Floats) -> str:
    if not measure(name).better:
        return "no value of it is better than another"
    empty = [one.method for one, column in zip(results, np.isfinite(table).T, strict=True) if not column.any()]
    if empty:
        return f"{listed(empty)} has no number of it"
    return "" if np.isfinite(table).all(axis=1).any() else "no case has a number of it for every method"


def _patients(results: Sequence[Results], cases: Sequence[str]) -> tuple[str, ...]:
    """Whose each case is; a case that no result names a patient for is its own."""
    told = [{str(one.rows.get(case, {}).get("patient") or "") for one in results} - {"", case} for case in cases]
    apart = [case for case, names in zip(cases, told, strict=True) if len(names) > 1]
    if apart:
        raise InputError(f"the results name different patients for {listed(apart)}; a case is of one person")
    return tuple(min(names, default=case) for case, names in zip(cases, told, strict=True))


def _other_files(results: Sequence[Results], cases: Sequence[str]) -> Iterator[str]:
    for role, what in (("ref", "references"), ("mask", "masks")):
        seen = [{one.sha256.get(case, {}).get(role, "") for one in results} - {""} for case in cases]
        num = sum(len(hashes) > 1 for hashes in seen)
        if num:
            yield f"the {what} of {num} of {len(cases)} cases are different files for different methods"


def _other_versions(results: Sequence[Results]) -> Iterator[str]:
    seen = {one.version: one.method for one in results if one.version}
    if len(seen) > 1:
        told = ", ".join(f"{version} for {method}" for version, method in seen.items())
        yield f"scored by different versions of medgan ({told}): score them again where numbers may have changed"
