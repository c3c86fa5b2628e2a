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
from medgan.metrics.measures import measure
from medgan.progress import track
from medgan.report.cases import CaseImages, CaseVolumes, read_case
from medgan.report.gallery import Exhibit, Panel, hang
from medgan.report.page import write_page
from medgan.report.plots import Plot, agreement_plots, region_bars
from medgan.report.reliability import reliabilities
from medgan.report.scatter import Agreement
from medgan.report.scores import SCORED, Column, case_rows, columns_of, counted, headline, noted, summary_rows
from medgan.report.viewer import Viewer, view

__all__ = ["CaseImages", "CaseVolumes", "evaluation_report", "ranked", "read_case"]

Facts = Mapping[str, Any]
Load = Callable[[CaseImages], CaseVolumes]
Range = tuple[float, float]

NUM_WORST = 3
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

    Images are read one case at a time, twice those that are shown. Charts are over the voxels of the masks.

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
    columns = columns_of(summary, rows)
    if worst_by and worst_by not in summary:
        raise InputError(f"worst_by {worst_by!r} was not computed (computed: {', '.join(summary) or 'nothing'})")
    ranking = ranked(rows, worst_by or next(iter(summary), ""))
    scored = {str(row["case"]): row for row in rows if row["status"] == SCORED}
    shown = {one.case: one for one in cases if one.case in scored}
    unit = _unit(scored.values())
    agreement = _agreement(shown, scored, load) if shown and unit else None
    chosen = _choice(ranking, shown, num_worst)
    gallery = _gallery(chosen, shown, scored, agreement, load) if chosen and agreement else Gallery((), ())
    plots = agreement_plots(agreement, unit) if agreement else []
    return write_page(
        path,
        "evaluation.html.j2",
        title=title,
        places=_places(gallery, plots),
        counted=counted(rows),
        conditions=_conditions(scored.values()),
        summary=summary_rows(summary, columns),
        columns=columns,
        print_columns=_groups(columns),
        has_patients=any(str(row.get("patient") or row["case"]) != str(row["case"]) for row in rows),
        case_rows=case_rows(rows, columns),
        notes=noted(rows),
        ranking=ranking,
        gallery=gallery,
        plots=plots,
        skipped=agreement.num_skipped if agreement else 0,
        limits=_limits_told(agreement, unit),
        bars=region_bars(summary, unit),
        reliabilities=reliabilities({"the predictions": rows}),
        provenance=_listed({**provenance}),
        settings=_listed({**settings}),
    )


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
    known = [row for row in scored if row.get(by) is not None]
    order = sorted(known, key=lambda row: -column.badness(float(row[by])))
    unranked = tuple(str(row["case"]) for row in scored if row.get(by) is None)
    return Ranking(column.label, tuple(str(row["case"]) for row in order), unranked)


# --- what all cases have together -------------------------------------------------------------------------------------


def _unit(scored: Iterable[Row]) -> str:
    """Of all images; none where they differ."""
    units = {str(row["unit"]) for row in scored}
    return units.pop() if len(units) == 1 else ""


def _agreement(shown: Mapping[str, CaseImages], scored: Mapping[str, Row], load: Load) -> Agreement:
    found = Agreement(_limits(list(shown.values()), scored, load))
    for images in track(list(shown.values()), "report"):
        volumes = _in_ras(load(replace(images, source=None)))
        mask = None if volumes.mask is None else volumes.mask.array
        patient = str(scored[images.case].get("patient") or "")
        found.add(images.case, volumes.pred.array, volumes.ref.array, mask, patient=patient)
    return found


def _in_ras(volumes: CaseVolumes) -> CaseVolumes:
    mask = None if volumes.mask is None else volumes.mask.reorient("RAS")
    return CaseVolumes(volumes.pred.reorient("RAS"), volumes.ref.reorient("RAS"), None, mask)


def _limits(shown: Sequence[CaseImages], scored: Mapping[str, Row], load: Load) -> Range:
    """For HU the range of the rows; else the central values of a few cases, since units differ from scan to scan."""
    rows = [scored[one.case] for one in shown]
    if all(row["unit"] == "HU" for row in rows):
        return min(row["range"][0] for row in rows), max(row["range"][1] for row in rows)
    few = [shown[k] for k in sorted({0, len(shown) // 2, len(shown) - 1})][:_SAMPLED_CASES]
    ends = [_tails(load(one)) for one in few]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _tails(volumes: CaseVolumes) -> Range:
    volumes = _in_ras(volumes)
    inside = np.ones(volumes.ref.array.shape, bool) if volumes.mask is None else volumes.mask.array != 0
    values = [one.array[inside & np.isfinite(one.array)] for one in (volumes.ref, volumes.pred)]
    ends = [np.percentile(one, _TAILS_PERCENT) for one in values if one.size]
    return (min(float(low) for low, _ in ends), max(float(high) for _, high in ends)) if ends else (0.0, 1.0)


def _limits_told(agreement: Agreement | None, unit: str) -> str:
    if agreement is None:
        return ""
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


def _choice(ranking: Ranking, shown: Mapping[str, CaseImages], num_worst: int) -> Choice | None:
    order = [case for case in (ranking.cases or ranking.unranked) if case in shown]
    return Choice(tuple(order[:num_worst]), _paged(order, ranking.by)) if order else None


def _gallery(
    chosen: Choice,
    shown: Mapping[str, CaseImages],
    scored: Mapping[str, Row],
    agreement: Agreement,
    load: Load,
) -> Gallery:
    limit, room = _round(agreement.error_quantile(_ERROR_SHARE)), math.ceil(len(chosen.worst) / _GALLERY_SHARE)
    exhibits: dict[str, Exhibit] = {}
    viewers: dict[str, Viewer] = {}
    for case in dict.fromkeys((*chosen.worst, *chosen.paged)):
        panel = _panel(case, load(shown[case]), limit)
        if case in chosen.worst:
            exhibits[case] = hang(panel, room)
        if case in chosen.paged:
            viewers[case] = view(panel, chosen.paged[case], len(chosen.paged))
    return Gallery(
        tuple((exhibits[case], headline(scored[case])) for case in chosen.worst),
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


def _places(gallery: Gallery, plots: Sequence[Plot]) -> list[tuple[str, str]]:
    """The sections that the page has."""
    places = {"summary": "Summary", "cases": "Case by case"}
    places |= {"worst": "Worst cases"} if gallery.worst else {}
    places |= {"slices": "Slice by slice"} if gallery.viewers else {}
    places |= {"agreement": "Agreement of values"} if plots else {}
    return list((places | {"settings": "Settings", "provenance": "Provenance"}).items())


# --- words ------------------------------------------------------------------------------------------------------------


def _conditions(scored: Iterable[Row]) -> list[str]:
    """Under which conditions the numbers were computed, a sentence for each that occurs, and of how many cases."""
    found: dict[tuple[str, str], list[Range]] = {}
    for row in scored:
        found.setdefault(_condition(row), []).append((row["range"][0], row["range"][1]))
    lines = [(f"{preset}, range {_ranges(ranges)} {rest}", len(ranges)) for (preset, rest), ranges in found.items()]
    return [line + (f" Cases: {number}." if len(lines) > 1 else "") for line, number in lines]


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


def _groups(columns: Sequence[Column]) -> list[list[int]]:
    """Numbers of the columns that a sheet of paper has room for; none where one sheet holds all."""
    if len(columns) <= _COLUMNS_IN_PRINT:
        return []
    numbers = list(range(len(columns)))
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
