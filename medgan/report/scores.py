"""The numbers of an evaluation as its tables show them: each metric summed up, and every case."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from medgan.evaluate import Row
from medgan.metrics.measures import MEASURES, measure
from medgan.report.tables import MISSING, Cell, shown
from medgan.results import number_of

__all__ = [
    "CaseScores",
    "Column",
    "Ranking",
    "Summary",
    "SummaryRow",
    "case_rows",
    "columns_of",
    "conditions",
    "counted",
    "headline",
    "noted",
    "ranked",
    "some",
    "summary_rows",
]

Numbers = Mapping[str, float | int | None]
Summary = Mapping[str, Numbers]
Range = tuple[float, float]

SCORED = "scored"
_MOST_IN_A_LINE = 6
_MOST_NAMED, _MOST_NOTES = 20, 40
_INFINITE = "∞"
_WAYS = {
    "higher": ("↑", "higher is better"),
    "lower": ("↓", "lower is better"),
    "zero": ("→ 0", "nearer to 0 is better"),
    "one": ("→ 1", "nearer to 1 is better"),
    "": ("", "no value is better than another"),
}


@dataclass(frozen=True)
class Column:
    """A metric at the head of its numbers: an arrow says which way is better, `told` in words."""

    name: str
    label: str
    unit: str
    arrow: str
    told: str


@dataclass(frozen=True)
class SummaryRow:
    """One metric over all cases, in words; `n` numbers, and scored cases that are `infinite`ly good or `undefined`."""

    column: Column
    mean: str
    interval: str
    sd: str
    median: str
    iqr: str
    n: int
    infinite: int
    undefined: int


@dataclass(frozen=True)
class CaseScores:
    """One case: a cell for each metric, and what there is to know."""

    case: str
    patient: str
    status: str
    cells: tuple[Cell, ...]
    note: str


def columns_of(summary: Summary, rows: Sequence[Row]) -> list[Column]:
    """The metrics of a summary, with the unit of the images that were scored."""
    unit = " / ".join(sorted({str(row["unit"]) for row in rows if row.get("unit")}))
    return [_column(name, unit) for name in summary]


def summary_rows(summary: Summary, columns: Sequence[Column]) -> list[SummaryRow]:
    """A line for each metric."""
    return [_summary_row(column, summary[column.name]) for column in columns]


def case_rows(rows: Sequence[Row], columns: Sequence[Column]) -> list[CaseScores]:
    """A line for each case, also those that were not scored."""
    return [
        CaseScores(
            str(row["case"]),
            str(row.get("patient") or ""),
            str(row["status"]),
            tuple(_cell(one.name, number_of(row, one.name)) for one in columns),
            str(row.get("note") or ""),
        )
        for row in rows
    ]


def counted(rows: Sequence[Row]) -> str:
    """How many cases were scored, and what became of the others.

    Example:
        >>> counted([{"status": "scored"}, {"status": "scored"}, {"status": "no prediction"}])
        '2 of 3 cases were scored; 1 no prediction.'
    """
    counts = Counter(str(row["status"]) for row in rows)
    others = "".join(f"; {number} {status}" for status, number in counts.items() if status != SCORED)
    noun, were = ("case", "was") if len(rows) == 1 else ("cases", "were")
    return f"{counts[SCORED]} of {len(rows)} {noun} {were} scored{others}."


@dataclass(frozen=True)
class Ranking:
    """Scored cases by one metric, the worst first; `unranked` have no number."""

    by: str
    cases: tuple[str, ...]
    unranked: tuple[str, ...]


def ranked(rows: Sequence[Row], by: str) -> Ranking:
    """Scored cases, the worst first; of equals the one that comes first.

    Args:
        rows: as `medgan.evaluate` returns them.
        by: a metric.

    Raises:
        InputError: if it is none.

    Example:
        >>> rows = [{"case": case, "status": "scored", "psnr": psnr} for case, psnr in (("a", 30.0), ("b", 20.0))]
        >>> ranked(rows, "psnr").cases
        ('b', 'a')
    """
    scored = [row for row in rows if row["status"] == SCORED]
    if not by:
        return Ranking("", (), tuple(str(row["case"]) for row in scored))
    column = measure(by)
    numbers = {str(row["case"]): number_of(row, by) for row in scored}
    badness = {case: column.badness(number) for case, number in numbers.items() if number is not None}
    order = sorted(badness, key=lambda case: -badness[case])
    return Ranking(column.label, tuple(order), tuple(case for case in numbers if case not in badness))


def conditions(scored: Iterable[Row]) -> list[str]:
    """Under which conditions numbers were computed, a sentence for each that occurs, and of how many cases."""
    found: dict[tuple[str, str], list[Range]] = {}
    for row in scored:
        found.setdefault(_condition(row), []).append((row["range"][0], row["range"][1]))
    lines = [(f"{preset}, range {_ranges(ranges)} {rest}", len(ranges)) for (preset, rest), ranges in found.items()]
    return [line + (f" Cases: {number}." if len(lines) > 1 else "") for line, number in lines]


def headline(row: Row) -> str:
    """The numbers of one case over all its voxels, in one line.

    Example:
        >>> headline({"case": "p1", "mae": 52.31, "mae_bone": 99.0, "psnr": None, "unit": "HU"})
        'MAE 52.3 HU · PSNR –'
    """
    whole = [name for name in row if name in MEASURES][:_MOST_IN_A_LINE]
    columns = [_column(name, str(row["unit"])) for name in whole]
    return " · ".join(
        " ".join((one.label, number.text, *([one.unit] if one.unit and number.value is not None else [])))
        for one in columns
        for number in [_cell(one.name, number_of(row, one.name))]
    )


def noted(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """What the notes of the rows say, with the cases that it is about; of very many the first, and how many more.

    Example:
        >>> scored = {"status": "scored"}
        >>> noted([{"case": "p1", "note": "no unit; a hole", **scored}, {"case": "p2", "note": "no unit", **scored}])
        [('no unit', 'every case'), ('a hole', 'p1')]
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        for part in _parts(row):
            found.setdefault(part, []).append(str(row["case"]))
    every = len(rows) > 1
    told = [(part, "every case" if every and len(ones) == len(rows) else some(ones)) for part, ones in found.items()]
    more = [(f"{len(told) - _MOST_NOTES} more notes", "see the note of each case in metrics.csv")]
    return told if len(told) <= _MOST_NOTES else told[:_MOST_NOTES] + more


def _parts(row: Row) -> list[str]:
    """A scored case may have several notes, any other has one reason."""
    note = str(row.get("note") or "")
    parts = note.split("; ") if row["status"] == SCORED else [note]
    return [part for part in parts if part]


def some(cases: Sequence[str]) -> str:
    """Names of cases in a line, cut after twenty.

    Example:
        >>> some([f"p{n}" for n in range(3000)])[-27:]
        'p17, p18, p19 and 2980 more'
    """
    more = f" and {len(cases) - _MOST_NAMED} more" if len(cases) > _MOST_NAMED else ""
    return ", ".join(cases[:_MOST_NAMED]) + more


def _cell(name: str, number: float | None) -> Cell:
    return Cell(number, _INFINITE if number == math.inf else shown(name, number))


def _column(name: str, unit: str) -> Column:
    found = measure(name)
    return Column(name, found.label, found.in_unit(unit), *_WAYS[found.better])


def _summary_row(column: Column, numbers: Numbers) -> SummaryRow:
    mean, sd, median, q1, q3, low, high = (
        numbers[key] for key in ("mean", "sd", "median", "q1", "q3", "bca95_low", "bca95_high")
    )

    def told(value: float | int | None) -> str:
        return shown(column.name, value, like=mean)

    return SummaryRow(
        column,
        mean=told(mean),
        interval=MISSING if low is None else f"{told(low)} to {told(high)}",
        sd=told(sd),
        median=told(median),
        iqr=MISSING if q1 is None else f"{told(q1)} to {told(q3)}",
        n=int(numbers["n"] or 0),
        infinite=int(numbers.get("num_infinite") or 0),
        undefined=int(numbers["num_undefined"] or 0),
    )


def _condition(row: Row) -> tuple[str, str]:
    """What stands before the range, and behind it."""
    where = "inside the mask" if row["mask"] else "over whole volumes, no mask"
    pred, _, ref = str(row["dtype"]).partition("/")
    read = f"predictions read as {pred}, references as {ref}, " if ref else ""
    return f"Preset {row['preset']}", f"{row['unit']}, {read}computed in float64, {where}."


def _ranges(ranges: Sequence[Range]) -> str:
    lows, highs = ({values[end] for values in ranges} for end in (0, 1))
    return f"{_among(lows)} to {_among(highs)}"


def _among(values: set[float]) -> str:
    low, high = _number(min(values)), _number(max(values))
    return low if len(values) == 1 else f"({low} … {high}, by case)"


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")
