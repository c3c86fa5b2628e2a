"""Tables of results: summed up, judged against limits, written, and taken up again where a run was broken off."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import scipy

from medgan import __version__
from medgan.atomic import replacing
from medgan.errors import InputError, OutputError
from medgan.metrics.measures import MEASURES, base_of, measure
from medgan.metrics.statistics import RESAMPLES, summary
from medgan.processes import place
from medgan.scoring import SCORED, Row

__all__ = [
    "SCHEMA",
    "Scored",
    "failures",
    "kept",
    "metric_columns",
    "number_of",
    "remember",
    "summarise",
    "write_results",
]

SCHEMA = "medgan.evaluation/1"
_NO_CELLS = ("error_by_sigma",)  # a list of bins is no cell
_SEED = 0


@dataclass(frozen=True)
class Scored:
    """What became of one case.

    Args:
        key: a hash of the files (by path, size and time) and of the settings: the same key, the same row.
        row: of the table.
        sha256: of the contents of its files, by role.
        files: where they are, by role.
    """

    key: str
    row: Row
    sha256: Mapping[str, str]
    files: Mapping[str, str]


def metric_columns(rows: Sequence[Row]) -> list[str]:
    """The columns that hold metrics, in the order of `MEASURES`, parts behind their wholes."""
    names = dict.fromkeys(name for row in rows for name in row)
    order = list(MEASURES)
    known = [name for name in names if _is_metric(name)]
    return sorted(known, key=lambda name: (order.index(base_of(name)), list(names).index(name)))


def _is_metric(name: str) -> bool:
    return any(name == base or name.startswith(f"{base}_") for base in MEASURES) and name not in _NO_CELLS


# --- summed up --------------------------------------------------------------------------------------------------------


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, float | int | None]]:
    """Over the scored rows, by metric: how many numbers there are, and where they lie.

    `n` numbers of `num_patients`, `num_undefined` scored rows without one, `num_infinite` that are infinitely good and
    in none of the others, `mean`, `sd` (sample), `median`, `q1`, `q3`, `min`, `max`, and three intervals of 95 % by
    bootstrap over patients (10,000 resamples and the seed of `compare`): `ci95_low` and `ci95_high` of the mean
    (percentile), `bca95_…` of the mean (bias-corrected and accelerated; what tables and pages show), `median_ci95_…`
    of the median (percentile). What the number of patients does not allow is None.

    Args:
        rows: as `evaluate` returns them.

    Example:
        >>> rows = [{"status": "scored", "mae": value} for value in (1.0, 2.0, 6.0)]
        >>> summarise(rows)["mae"]["mean"]
        3.0
    """
    scored = [row for row in rows if row["status"] == SCORED]
    patients = tuple(str(row.get("patient") or row.get("case") or n) for n, row in enumerate(scored))
    names = metric_columns(rows)
    return {name: dict(_statistics(tuple(number_of(row, name) for row in scored), patients)) for name in names}


def number_of(row: Row, name: str) -> float | None:
    """A metric of a row; infinite only where that is good, None where there is no number.

    Example:
        >>> number_of({"psnr": None, "ssim": None, "infinite": "psnr"}, "psnr")
        inf
    """
    number = row.get(name)
    if name in (row.get("infinite") or "").split(", "):
        return math.inf
    return None if number is None or not math.isfinite(number) else float(number)


@lru_cache(maxsize=256)  # the file, the page, the tables and the limits of an evaluation all ask for the same
def _statistics(numbers: tuple[float | None, ...], patients: tuple[str, ...]) -> Mapping[str, float | int | None]:
    values = [math.nan if number is None else number for number in numbers]
    found = summary(values, patients, seed=_SEED, resamples=RESAMPLES)
    told = found.to_json()
    names = ("n", "num_undefined", "num_patients", "mean", "sd", "median", "q1", "q3", "min", "max")
    infinite = numbers.count(math.inf)
    intervals = {
        f"{of}_{end}": told[ci][end]
        for of, ci in {"ci95": "mean_ci", "bca95": "mean_bca", "median_ci95": "median_ci"}.items()
        for end in ("low", "high")
    }
    counts = {"num_undefined": told["num_undefined"] - infinite, "num_infinite": infinite}
    return {name: told[name] for name in names} | counts | intervals


def failures(rows: Sequence[Row], limits: Mapping[str, float]) -> list[str]:
    """Why results miss limits: means that are worse, numbers that are undefined, cases that were not scored.

    What is infinitely good, as the PSNR of an image without error, is in no mean, and misses no limit.

    Args:
        rows: as `evaluate` returns them.
        limits: by metric, the worst mean that passes; worse is above or below it as the metric goes, or farther off.

    Raises:
        InputError: if a metric of a limit was not computed.

    Example:
        >>> rows = [{"case": "p1", "status": "scored", "mae": 90.0, "unit": "HU"}]
        >>> failures(rows, {"mae": 80.0})
        ['mae: the mean is 90, worse than 80']
    """
    if not limits:
        return []
    means = summarise(rows)
    unknown = [name for name in limits if name not in means]
    if unknown:
        raise InputError(f"{', '.join(unknown)}: not computed, so no limit can be held (computed: {', '.join(means)})")
    unscored = [str(row["case"]) for row in rows if row["status"] != SCORED]
    told = [f"{len(unscored)} of {len(rows)} cases were not scored: {', '.join(unscored[:5])}"] if unscored else []
    return [*told, *(line for name, limit in limits.items() for line in _failure(name, means[name], limit))]


def _failure(name: str, numbers: Mapping[str, float | int | None], limit: float) -> list[str]:
    mean, column = numbers["mean"], measure(name)
    if numbers["num_undefined"] or (mean is None and not numbers["num_infinite"]):
        return [f"{name}: undefined in {numbers['num_undefined']} cases"]
    worse = mean is not None and column.badness(mean) > column.badness(limit)
    return [f"{name}: the mean is {mean:.6g}, worse than {limit:g}"] if worse else []


# --- written ----------------------------------------------------------------------------------------------------------


def write_results(out: Path, scored: Sequence[Scored], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write `metrics.csv` and `metrics.json`; returns what the latter holds, `docs/reference/evaluation.schema.json`.

    Raises:
        OutputError: if `out` cannot be written.
    """
    rows = [one.row for one in scored]
    record = {
        "schema": SCHEMA,
        "summary": summarise(rows),
        "counts": {status: sum(row["status"] == status for row in rows) for status in _statuses(rows)},
        "rows": rows,
        "settings": dict(settings),
        "bootstrap": {"over": "patients", "resamples": RESAMPLES, "seed": _SEED},
        "versions": versions(),
        "files": {one.row["case"]: dict(one.files) for one in scored},
        "sha256": {one.row["case"]: {role: seen for role, seen in one.sha256.items() if seen} for one in scored},
    }
    with replacing(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with replacing(out / "metrics.csv") as temporary, _opened(temporary) as file:
        columns = [name for name in rows[0] if name not in _NO_CELLS]
        table = csv.DictWriter(file, fieldnames=columns, extrasaction="ignore")
        table.writeheader()
        table.writerows({**row, "range": "{:g}..{:g}".format(*row["range"])} for row in rows)
    return record


def _opened(path: Path) -> TextIO:
    """A table to be written; bytes in the name of a case that are no text are escaped."""
    return path.open("w", newline="", encoding="utf-8", errors="backslashreplace")


def _statuses(rows: Sequence[Row]) -> list[str]:
    usual = (SCORED, "no prediction", "no reference")
    return list(dict.fromkeys((*usual, *(row["status"] for row in rows))))


def versions() -> dict[str, str]:
    """Of what computes."""
    return {
        "medgan": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }


# --- broken off and taken up again ------------------------------------------------------------------------------------


def key_of(paths: Mapping[str, Path], settings: Mapping[str, Any]) -> str:
    """Of a case: the same files, untouched, and the same settings give the same key."""
    files = {role: [(str(file), *_touched(file)) for file in _files(path)] for role, path in sorted(paths.items())}
    told = json.dumps([files, settings, versions()], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Of a file its content's, of a folder that of its files' hashes in order: names do not matter.

    Nothing where there is nothing, or nothing that may be read.
    """
    if path.is_file():
        with suppress(OSError), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return ""
    hashes = sorted(map(sha256_of, _files(path)))
    return hashlib.sha256("".join(hashes).encode()).hexdigest() if hashes else ""


def _files(path: Path) -> list[Path]:
    """None at the end of a link to what is gone."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else []


def _touched(file: Path) -> tuple[int, int]:
    seen = file.stat()
    return seen.st_size, seen.st_mtime_ns


def kept(out: Path) -> dict[str, Scored]:
    """What an earlier run over the same place has scored, by key; a line that was not finished does not count."""
    lines = [line for file in sorted(out.glob("rows*.jsonl")) for line in file.read_text("utf-8").split("\n")]
    found = [Scored(**told) for line in lines if (told := _parsed(line))]
    return {one.key: one for one in found}


def _parsed(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) and told.keys() == {"key", "row", "sha256", "files"} else {}


def remember(out: Path, scored: Iterable[Scored]) -> Iterator[Scored]:
    """Pass on what is scored, each written down before the next begins; every process of a job has its own file.

    A refused case is not written down, and so is tried again: its file may have become readable without being touched.

    Raises:
        OutputError: if the file cannot be written.
    """
    file = out / f"rows{place().rank or ''}.jsonl"
    for one in scored:
        line = {"key": one.key, "row": one.row, "sha256": dict(one.sha256), "files": dict(one.files)}
        if one.row["status"] == SCORED:
            _append(file, "\n" + json.dumps(line, allow_nan=False) + "\n")  # what was killed may have left half a line
        yield one


def _append(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({error.strerror or error}); choose another place") from error
