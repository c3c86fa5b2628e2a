"""The page of an evaluation: the numbers, the worst cases, slices to page through, and how values agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medgan.errors import InputError
from medgan.evaluate import Row, summarise
from medgan.progress import track
from medgan.report.cases import CaseImages, CaseVolumes, read_case
from medgan.report.gallery import Exhibit, Panel, hang
from medgan.report.page import write_page
from medgan.report.plots import agreement_plots, region_bars
from medgan.report.reliability import reliabilities
from medgan.report.scatter import Agreement
from medgan.report.scores import (
    SCORED,
    Column,
    Ranking,
    Summary,
    case_rows,
    columns_of,
    conditions,
    counted,
    headline,
    noted,
    ranked,
    some,
    summary_rows,
)
from medgan.report.viewer import Viewer, view

__all__ = ["CaseImages", "CaseVolumes", "evaluation_report", "read_case"]

Facts = Mapping[str, Any]
Load = Callable[[CaseImages], CaseVolumes]
Range = tuple[float, float]

NUM_WORST = 3
MOST_PRINTED = 100  # cases in the table on paper
MOST_COUNTED = 100  # cases whose voxels are counted: a hundred have hundreds of millions, and are read in minutes
_SAMPLED_CASES = 3
_TAILS_PERCENT = (0.1, 99.9)
_ERROR_SHARE = 0.99
_GALLERY_SHARE = 3 / 7  # of the pixels that a page of panels alone may have; the sheets of slices need the rest
_COLUMNS_IN_PRINT = 6


def evaluation_report(
    rows: Sequence[Row],
    cases: Sequence[CaseImages],
    path: Path | str,
    *,
    provenance: Facts,
    settings: Facts,
    title: str = "Evaluation of synthetic images",
    worst_by: str | None = None,
    num_worst: int = NUM_WORST,
    load: Load = read_case,
) -> Path:
    """Write the page of an evaluation: one HTML file that needs no network, below 10 MB for 20 cases.

    Images are read one case at a time, twice those that are shown. Charts are over the voxels of the masks, of at most
    100 cases that are spread evenly from the worst to the best; the page says so where there are more.

    Args:
        rows: as `medgan.evaluate` returns them; cases that were not scored are shown as such.
        cases: where their images are; a case without images has its numbers only, no cases at all no pictures.
        path: of the page.
        provenance: versions, seeds, hashes, by name; what is a mapping itself is listed.
        settings: of the evaluation, by name.
        title: of the page.
        worst_by: metric by which cases are ranked; the first of the rows if not given.
        num_worst: how many of the worst cases are shown: the more, the smaller each picture.
        load: reads a case; to be given where images were brought to another unit or grid before they were scored.

    Returns:
        The path.

    Raises:
        InputError: if `worst_by` is no metric of the rows, or an image cannot be read.
        GeometryError: if images of a case do not overlap.
        OutputError: if the page cannot be written.
    """
    summary = summarise(rows)
    if worst_by and worst_by not in summary:
        raise InputError(f"worst_by {worst_by!r} was not computed (computed: {', '.join(summary) or 'nothing'})")
    ranking = ranked(rows, worst_by or next(iter(summary), ""))
    pictures = _pictures(_study(rows, cases, ranking, load), num_worst)
    return write_page(
        path,
        "evaluation.html.j2",
        title=title,
        places=_places(pictures),
        ranked_by=ranking.by,
        unranked=some(ranking.unranked),
        **_numbers(rows, summary),
        **_tables(rows, columns_of(summary, rows), ranking),
        **pictures,
        provenance=_listed(provenance),
        settings=_listed(settings),
    )


def _numbers(rows: Sequence[Row], summary: Summary) -> dict[str, Any]:
    """What the page tells without looking at an image."""
    columns, scored = columns_of(summary, rows), _scored(rows)
    return {
        "counted": counted(rows),
        "conditions": conditions(scored.values()),
        "summary": summary_rows(summary, columns),
        "bars": region_bars(summary, _unit(scored.values())),
        "reliabilities": reliabilities({"the predictions": rows}),
        "notes": noted(rows),
    }


def _tables(rows: Sequence[Row], columns: Sequence[Column], ranking: Ranking) -> dict[str, Any]:
    """The table of all cases, and what of it a printed page has room for."""
    lines = case_rows(rows, columns)
    worst = (
        set((ranking.cases or ranking.unranked)[:MOST_PRINTED])
        if len(rows) > MOST_PRINTED
        else {line.case for line in lines}
    )
    printed = [line for line in lines if line.case in worst]
    return {
        "columns": columns,
        "has_patients": any(str(row.get("patient") or row["case"]) != str(row["case"]) for row in rows),
        "case_rows": lines,
        "print_columns": _groups(columns, is_cut=len(printed) < len(lines)),
        "print_rows": printed,
    }


def _pictures(study: _Study, num_worst: int) -> dict[str, Any]:
    """What the page shows of the images; nothing where there are none, or of several units."""
    if not study.order or not study.unit:
        return {"gallery": Gallery((), ()), "plots": [], "skipped": 0, "limits": "", "whose": ""}
    counted_cases = _spread(study)
    agreement = _agreement(counted_cases, study)
    return {
        "gallery": _gallery(Choice(study.order[:num_worst], _paged(study.order, study.by)), study, agreement),
        "plots": agreement_plots(agreement, study.unit),
        "skipped": agreement.num_skipped,
        "limits": _limits_told(agreement, study.unit),
        "whose": _whose(len(counted_cases), len(study.order)),
    }


# --- what all cases have together -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Study:
    """The scored cases that have images.

    Args:
        rows: by case.
        images: by case, in the order of the rows.
        order: the cases, the worst first.
        by: the metric of that order; none if there is no order.
        unit: of all images; none where they differ.
        load: reads a case.
    """

    rows: Mapping[str, Row]
    images: Mapping[str, CaseImages]
    order: tuple[str, ...]
    by: str
    unit: str
    load: Load


def _study(rows: Sequence[Row], cases: Sequence[CaseImages], ranking: Ranking, load: Load) -> _Study:
    scored = _scored(rows)
    images = {one.case: one for one in cases if one.case in scored}
    order = tuple(case for case in (ranking.cases or ranking.unranked) if case in images)
    return _Study(scored, images, order, ranking.by if ranking.cases else "", _unit(scored.values()), load)


def _scored(rows: Sequence[Row]) -> dict[str, Row]:
    return {str(row["case"]): row for row in rows if row["status"] == SCORED}


def _unit(scored: Iterable[Row]) -> str:
    """Of all images; none where they differ."""
    units = {str(row["unit"]) for row in scored}
    return units.pop() if len(units) == 1 else ""


def _spread(study: _Study) -> list[CaseImages]:
    """All cases, or so many that are spread evenly from the worst to the best, in the order of the rows."""
    total = len(study.order)
    number = min(total, MOST_COUNTED)
    chosen = {study.order[int((k + 0.5) * total / number)] for k in range(number)}
    return [one for one in study.images.values() if one.case in chosen]


def _whose(number: int, total: int) -> str:
    return "all cases" if number == total else f"{number} of {total} cases, spread evenly from the worst to the best"


def _agreement(cases: Sequence[CaseImages], study: _Study) -> Agreement:
    found = Agreement(_limits(cases, study))
    for images in track(cases, "report"):
        volumes = _in_ras(study.load(replace(images, source=None)))
        mask = None if volumes.mask is None else volumes.mask.array
        patient = str(study.rows[images.case].get("patient") or "")
        found.add(images.case, volumes.pred.array, volumes.ref.array, mask, patient=patient)
    return found


def _in_ras(volumes: CaseVolumes) -> CaseVolumes:
    mask = None if volumes.mask is None else volumes.mask.reorient("RAS")
    return CaseVolumes(volumes.pred.reorient("RAS"), volumes.ref.reorient("RAS"), None, mask)


def _limits(cases: Sequence[CaseImages], study: _Study) -> Range:
    """For HU the range of the rows; else the central values of a few cases, since units differ from scan to scan."""
    rows = [study.rows[one.case] for one in cases]
    if study.unit == "HU":
        return min(row["range"][0] for row in rows), max(row["range"][1] for row in rows)
    few = [cases[k] for k in sorted({0, len(cases) // 2, len(cases) - 1})][:_SAMPLED_CASES]
    ends = [_tails(study.load(one)) for one in few]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _tails(volumes: CaseVolumes) -> Range:
    volumes = _in_ras(volumes)
    inside = np.ones(volumes.ref.array.shape, bool) if volumes.mask is None else volumes.mask.array != 0
    values = [one.array[inside & np.isfinite(one.array)] for one in (volumes.ref, volumes.pred)]
    ends = [np.percentile(one, _TAILS_PERCENT) for one in values if one.size]
    return (min(float(low) for low, _ in ends), max(float(high) for _, high in ends)) if ends else (0.0, 1.0)


def _limits_told(agreement: Agreement, unit: str) -> str:
    low, high = (f"{value:.4g}".replace("-", "−") for value in agreement.limits)
    return f"{low} to {high} {unit}"


# --- pictures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gallery:
    """The worst cases as strips with their numbers in a line, and cases to page through."""

    worst: tuple[tuple[Exhibit, str], ...]
    viewers: tuple[Viewer, ...]


@dataclass(frozen=True)
class Choice:
    """Which cases are hung, the worst first, and which are paged through, and why."""

    worst: tuple[str, ...]
    paged: Mapping[str, str]


def _gallery(chosen: Choice, study: _Study, agreement: Agreement) -> Gallery:
    limit, room = _round(agreement.error_quantile(_ERROR_SHARE)), math.ceil(len(chosen.worst) / _GALLERY_SHARE)
    exhibits: dict[str, Exhibit] = {}
    viewers: dict[str, Viewer] = {}
    for case in dict.fromkeys((*chosen.worst, *chosen.paged)):
        panel = _panel(case, study.load(study.images[case]), limit)
        if case in chosen.worst:
            exhibits[case] = hang(panel, room)
        if case in chosen.paged:
            viewers[case] = view(panel, chosen.paged[case], len(chosen.paged))
    return Gallery(
        tuple((exhibits[case], headline(study.rows[case])) for case in chosen.worst),
        tuple(viewers[case] for case in chosen.paged),
    )


def _paged(order: Sequence[str], by: str) -> dict[str, str]:
    """Which cases are paged through, and why: the best, the median and the worst, as far as they are different."""
    if len(order) == 1 or not by:
        return {order[0]: "the only case" if len(order) == 1 else "the first case"}
    return {
        order[0]: f"the worst by {by}",
        order[len(order) // 2]: f"the median by {by}",
        order[-1]: f"the best by {by}",
    }


def _panel(case: str, volumes: CaseVolumes, limit: float) -> Panel:
    return Panel(case, volumes.source, volumes.pred, volumes.ref, volumes.mask, limit)


def _round(value: float) -> float:
    """Up to 1, 2 or 5 times a power of ten; 1 where there is no error."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= value * 0.999)


def _places(pictures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sections that the page has."""
    places = {"summary": "Summary", "cases": "Case by case"}
    places |= {"worst": "Worst cases"} if pictures["gallery"].worst else {}
    places |= {"slices": "Slice by slice"} if pictures["gallery"].viewers else {}
    places |= {"agreement": "Agreement of values"} if pictures["plots"] else {}
    return list((places | {"settings": "Settings", "provenance": "Provenance"}).items())


# --- words ------------------------------------------------------------------------------------------------------------


def _groups(columns: Sequence[Column], *, is_cut: bool) -> list[list[int]]:
    """Numbers of the columns that a sheet of paper has room for; none where the table of the screen will do."""
    numbers = list(range(len(columns)))
    if len(columns) <= _COLUMNS_IN_PRINT and not is_cut:
        return []
    return [numbers[start : start + _COLUMNS_IN_PRINT] for start in range(0, len(columns), _COLUMNS_IN_PRINT)]


def _listed(facts: Facts) -> list[tuple[str, list[str]]]:
    """Each fact as the lines that tell it."""
    return [(str(name), _lines(value)) for name, value in facts.items()]


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name}: {_told(one)}" for name, one in value.items()] or ["–"]
    return [_told(value)]


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_told(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_told, value))
    return "–" if value is None else str(value)
