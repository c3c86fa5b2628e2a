"""Results of several methods, read from files, joined by case and proved to be comparable."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.cases import listed
from medgan.errors import InputError
from medgan.metrics.measures import measure

__all__ = ["Joined", "Results", "is_results", "join", "named", "read_results", "results_of"]

Row = Mapping[str, Any]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

SCORED, NO_REFERENCE = "scored", "no reference"
ALIKE = ("preset", "range", "unit", "mask", "num_voxels")  # of a case, for its scores to be comparable
_FILE = "metrics.json"
_IMAGE = re.compile(r"\.(nii(\.gz)?|mha|mhd|nrrd|dcm)$|^[^.]+$")


@dataclass(frozen=True)
class Results:
    """What one method scored.

    Args:
        method: its name.
        rows: by case.
        sha256: of the files behind a row, by case and role; empty where that is not recorded.
    """

    method: str
    rows: Mapping[str, Row]
    sha256: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


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


def named(methods: Mapping[str, Path | str] | Sequence[Path | str]) -> dict[str, Path]:
    """Paths by the name of their method: as given by `NAME=PATH`, else as much of a path's end as tells them apart.

    Raises:
        InputError: if there are fewer than two methods, or two have one name or one path.

    Example:
        >>> list(named(["out/pix2pix/metrics.json", "baseline=out/other"]))
        ['pix2pix', 'baseline']
    """
    if isinstance(methods, str | Path):
        raise InputError(f"a comparison needs two methods or more; seen one: {methods}")
    given = list(methods.items()) if isinstance(methods, Mapping) else [_given(one) for one in methods]
    paths = [Path(path) for _, path in given]
    if len(paths) < 2:
        raise InputError(f"a comparison needs two methods or more; seen {listed(map(str, paths)) or 'none'}")
    if len({path.absolute() for path in paths}) < len(paths):
        raise InputError(f"{listed(map(str, paths))}: a path is given twice; a method is compared with others")
    own = iter(_telling([path for name, path in zip([n for n, _ in given], paths, strict=True) if not name]))
    names = [name or next(own) for name, _ in given]
    if len(set(names)) < len(names):
        raise InputError(f"{listed(names)}: two methods have one name; give them as NAME=PATH")
    return dict(zip(names, paths, strict=True))


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
    record = _of_csv(text) if file.suffix.lower() == ".csv" else _of_json(text, file)
    return results_of(method, record["rows"], sha256=record.get("sha256") or {}, source=str(file))


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
        conditions={key: _common(results, shared, key) for key in ALIKE[:-1]},
        left_out=left_out,
        warnings=tuple(_other_files(results, shared)),
    )


# --- names of methods -------------------------------------------------------------------------------------------------


def _given(word: Path | str) -> tuple[str, Path]:
    name, equals, path = str(word).partition("=")
    return (name, Path(path)) if equals and name and path and not Path(word).exists() else ("", Path(word))


def _telling(paths: Sequence[Path]) -> list[str]:
    """The fewest last parts of paths that make all of them different, without those in which all end."""
    ends = [_parts(path) for path in paths]
    while len(ends) > 1 and min(map(len, ends)) > 1 and len({parts[-1] for parts in ends}) == 1:
        ends = [parts[:-1] for parts in ends]  # `x/scores` and `y/scores` are x and y
    for length in range(1, max(map(len, ends), default=0) + 1):
        names = ["/".join(parts[-length:]) for parts in ends]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _parts(path: Path) -> tuple[str, ...]:
    """Parts of a path that name a method: without what stands for the case, and without the file of the scores."""
    parts = (path if path.name.strip(".") else path.resolve()).parts
    rule = next((k for k, part in enumerate(parts) if re.search(r"[{*]", part)), len(parts))
    parts = parts[:rule] or parts
    if len(parts) > 1 and re.fullmatch(r"metrics\.(json|csv)", parts[-1]):
        return parts[:-1]
    return (*parts[:-1], re.sub(r"\.(json|csv)$", "", parts[-1]))


# --- reading ----------------------------------------------------------------------------------------------------------


def _of_csv(text: str) -> dict[str, Any]:
    return {"rows": list(csv.DictReader(text.splitlines()))}


def _of_json(text: str, file: Path) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: is no JSON (line {error.lineno}: {error.msg}); name what evaluate wrote") from error
    record = {"rows": record} if isinstance(record, list) else record
    if not isinstance(record, dict) or not isinstance(record.get("rows"), list):
        raise InputError(f"{file}: holds no `rows`; name metrics.json of `medgan evaluate`")
    return record


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
        for case in sorted(first.rows.keys() & second.rows.keys()):
            one, other = first.rows[case], second.rows[case]
            if _is_scored(one) and _is_scored(other):
                _refuse_unlike_rows(case, first.method, second.method, [(k, one[k], other[k]) for k in ALIKE])


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
