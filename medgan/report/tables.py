"""The numbers of a report, as its tables show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medgan.evaluate import Row, summarise
from medgan.metrics.measures import measure

__all__ = [
    "CaseLine",
    "Cell",
    "Heading",
    "SummaryLine",
    "case_table",
    "conditions",
    "duels",
    "headings",
    "metric_names",
    "notes",
    "score_line",
    "shown",
    "summary_table",
]

Results = Mapping[str, Sequence[Row]]
_LABELS = {"mae": "MAE", "psnr": "PSNR", "ssim": "SSIM", "ms_ssim": "MS-SSIM"}
MISSING = "–"


@dataclass(frozen=True)
class Heading:
    """A metric at the head of a column."""

    label: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True)
class Cell:
    """A number, how it is printed, what stands beside it, and whether it is the best of its kind."""

    value: float | None
    text: str
    spread: str = ""
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class SummaryLine:
    """One method over all cases."""

    method: str
    num_cases: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class CaseLine:
    """One case: for each metric, a cell for each method."""

    case: str
    cells: tuple[Cell, ...]


def metric_names(results: Results) -> list[str]:
    """The metrics that any row has."""
    rows = [row for rows in results.values() for row in rows]
    return [name for name in _LABELS if any(name in row for row in rows)]


def headings(results: Results) -> list[Heading]:
    """A heading for each metric."""
    units = {row["unit"] for rows in results.values() for row in rows if row["unit"]}
    unit_of = {"mae": " / ".join(sorted(units)), "psnr": "dB"}
    return [
        Heading(_LABELS[name], unit_of.get(name, ""), measure(name).better == "higher")
        for name in metric_names(results)
    ]


def summary_table(results: Results) -> list[SummaryLine]:
    """A line for each method: mean, standard deviation and interval of each metric; the best mean is marked."""
    summaries = {method: summarise(rows) for method, rows in results.items()}
    columns = [_summary_column(name, summaries) for name in metric_names(results)]
    return [
        SummaryLine(method, sum(row["status"] == "scored" for row in rows), tuple(column[method] for column in columns))
        for method, rows in results.items()
    ]


def case_table(results: Results) -> list[CaseLine]:
    """A line for each case, in the order of their first appearance."""
    by_case = {method: {row["case"]: row for row in rows} for method, rows in results.items()}
    cases = dict.fromkeys(case for rows in by_case.values() for case in rows)
    return [CaseLine(case, tuple(_case_cells(case, by_case, metric_names(results)))) for case in cases]


def conditions(results: Results) -> list[str]:
    """Under which conditions the numbers were computed, a sentence for each that occurs."""
    rows = [row for rows in results.values() for row in rows if row["status"] == "scored"]
    return list(dict.fromkeys(_condition(row) for row in rows))


def duels(results: Results) -> list[str]:
    """In how many cases the first method is better than each other one, by metric."""
    if not results:
        return []
    own, *rivals = results
    first, *others = ({row["case"]: row for row in rows} for rows in results.values())
    return [
        f"{own} against {method}: better by "
        + ", ".join(_wins(name, first, other) for name in metric_names(results))
        + "."
        for method, other in zip(rivals, others, strict=True)
    ]


def notes(results: Results) -> list[tuple[str, list[str]]]:
    """Each note of the rows, with where it applies."""
    found: dict[str, list[str]] = {}
    for method, rows in results.items():
        for row in rows:
            if row["note"]:
                found.setdefault(row["note"], []).append(f"{row['case']} ({method})")
    num_rows = sum(len(rows) for rows in results.values())
    return [(note, places if len(places) < num_rows else ["every case"]) for note, places in found.items()]


def score_line(rows: Sequence[Row], case: str) -> str:
    """The numbers of one case in one line; empty if it was not scored."""
    row = next((row for row in rows if row["case"] == case and row["status"] == "scored"), None)
    if row is None:
        return ""
    heads = headings({"": [row]})
    names = metric_names({"": [row]})
    return " · ".join(
        f"{head.label} {shown(name, row[name])} {head.unit}".rstrip() for name, head in zip(names, heads, strict=True)
    )


def shown(metric: str, value: float | None, *, like: float | None = None) -> str:
    """A number with the digits that its metric deserves, or those of a number that it stands beside.

    Example:
        >>> shown("psnr", 28.256), shown("ssim", 0.91237), shown("mae", 0.05123), shown("mae", 148.35)
        ('28.26', '0.9124', '0.0512', '148.3')
        >>> shown("mae", 1.06, like=148.35)
        '1.1'
    """
    if value is None:
        return MISSING
    return f"{value:.{_digits(metric, abs(value if like is None else like))}f}".replace("-", "−")


def _digits(metric: str, size: float) -> int:
    unit = measure(metric).unit
    if unit and unit != "dB":
        return 1 if size >= 10 else 2 if size >= 1 else 4
    return 2 if unit else 4 if size >= 0.001 or not size else 6


def _summary_column(name: str, summaries: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> dict[str, Cell]:
    column = {method: summary.get(name, {}) for method, summary in summaries.items()}
    best = _best(name, [numbers.get("mean") for numbers in column.values()])
    return {method: _summary_cell(name, numbers, best) for method, numbers in column.items()}


def _summary_cell(name: str, numbers: Mapping[str, float | None], best: float | None) -> Cell:
    mean, sd, low, high = (numbers.get(key) for key in ("mean", "sd", "bca95_low", "bca95_high"))
    return Cell(
        value=mean,
        text=shown(name, mean),
        spread="" if sd is None else f"± {shown(name, sd, like=mean)}",
        interval="" if low is None else f"{shown(name, low, like=mean)} to {shown(name, high, like=mean)}",
        best=mean is not None and mean == best,
    )


def _case_cells(case: str, by_case: Mapping[str, Mapping[str, Row]], names: Sequence[str]) -> list[Cell]:
    cells = []
    for name in names:
        values = [rows.get(case, {}).get(name) for rows in by_case.values()]
        best = _best(name, values) if len(values) > 1 else None
        cells += [Cell(value, shown(name, value), best=value is not None and value == best) for value in values]
    return cells


def _best(name: str, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known, key=measure(name).badness) if len(known) > 1 else None


def _condition(row: Row) -> str:
    low, high = (f"{value:g}".replace("-", "−") for value in row["range"])
    where = "inside the mask" if row["mask"] else "over whole volumes, no mask"
    return f"Preset {row['preset']}, range {low} to {high} {row['unit']}, {where}."


def _wins(name: str, first: Mapping[str, Row], other: Mapping[str, Row]) -> str:
    pairs = [(row.get(name), other.get(case, {}).get(name)) for case, row in first.items()]
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    badness = measure(name).badness
    wins = sum(badness(ours) < badness(theirs) for ours, theirs in known)
    return f"{_LABELS[name]} in {wins} of {len(known)} cases"
