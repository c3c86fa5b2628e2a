"""The tables of an evaluation for a paper: CSV with all digits, and LaTeX (booktabs) with those that are printed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medgan.atomic import replacing
from medgan.evaluate import Row, summarise
from medgan.report.scores import Column, Summary, SummaryRow, columns_of, summary_rows
from medgan.report.tables import MISSING

__all__ = ["latex", "paper_tables"]

_NO_TEXT = "backslashreplace"  # bytes in the name of a case
_KEPT = ("case", "patient", "status", "preset", "unit", "num_voxels", "mask", "note")
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "−": "$-$",
    "±": r"$\pm$",
    "–": "--",
    "→": r"$\to$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "σ": r"$\sigma$",
}


def paper_tables(rows: Sequence[Row], out: Path | str) -> tuple[Path, Path, Path]:
    """Write `summary.csv`, `summary.tex` and `cases.csv` into a folder.

    `summary.csv` has a line for each metric: label, unit, which way is better, and the statistics of
    `medgan.evaluate.summarise` with all their digits. `summary.tex` has the same as a table of the package booktabs:
    mean ± sample standard deviation, its 95 % interval (BCa), median and interquartile range. `cases.csv` has a line
    for each case, also for those that were not scored; what is missing is an empty cell.

    Args:
        rows: as `medgan.evaluate` returns them.
        out: a folder, made if it is not there; files of these names are replaced.

    Returns:
        The three paths.

    Raises:
        OutputError: if a file cannot be written.
    """
    summary = summarise(rows)
    columns = columns_of(summary, rows)
    names = [name for name in _KEPT if any(name in row for row in rows)]
    statistics = list(dict.fromkeys(key for numbers in summary.values() for key in numbers))
    cases = [[row.get(name) for name in (*names, *summary)] for row in rows]
    folder = Path(out)
    return (
        _written_csv(
            folder / "summary.csv",
            ("metric", "label", "unit", "better", *statistics),
            _lines(summary, columns, statistics),
        ),
        _written(folder / "summary.tex", _table(summary_rows(summary, columns), rows)),
        _written_csv(folder / "cases.csv", (*names, *summary), cases),
    )


def latex(text: str) -> str:
    r"""Text as LaTeX prints it.

    Example:
        >>> print(latex("MAE_1 ↓ 50 %"))
        MAE\_1 $\downarrow$ 50 \%
    """
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _lines(summary: Summary, columns: Sequence[Column], statistics: Sequence[str]) -> Iterable[list[Any]]:
    for column in columns:
        numbers: Mapping[str, Any] = summary[column.name]
        yield [column.name, column.label, column.unit, column.told, *(numbers[key] for key in statistics)]


def _table(lines: Sequence[SummaryRow], rows: Sequence[Row]) -> str:
    body = [" & ".join(_cells(line)) + r" \\" for line in lines]
    statuses = ", ".join(f"{count} {status}" for status, count in _counts(rows).items())
    return "\n".join(
        [
            f"% {latex(statuses)}; mean and SD over cases, interval of the mean by BCa bootstrap over patients",
            r"\begin{tabular}{lrrrr}",
            r"\toprule",
            r"Metric & Mean $\pm$ SD & 95\,\% CI & Median [IQR] & $n$ \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _cells(line: SummaryRow) -> list[str]:
    unit = f" [{line.column.unit}]" if line.column.unit else ""
    arrow = f" {line.column.arrow}" if line.column.arrow else ""
    spread = "" if line.sd == MISSING else f" ± {line.sd}"
    middle = "" if line.iqr == MISSING else f" [{line.iqr.replace(' to ', ', ')}]"
    words = (f"{line.column.label}{unit}{arrow}", f"{line.mean}{spread}", line.interval.replace(" to ", ", "))
    return [latex(word) for word in (*words, f"{line.median}{middle}", str(line.n))]


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    statuses = [str(row["status"]) for row in rows]
    return {status: statuses.count(status) for status in dict.fromkeys(statuses)}


def _written_csv(path: Path, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> Path:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors=_NO_TEXT) as file:
        table = csv.writer(file)
        table.writerow(head)
        table.writerows(lines)
    return path


def _written(path: Path, text: str) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=_NO_TEXT)
    return path
