"""Line and dot charts as numbers that the template draws in SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from medgan.evaluate import Row
from medgan.report.tables import Heading, headings, metric_names, shown

__all__ = ["Curve", "Dot", "LineChart", "StripChart", "Tick", "draw_curve", "draw_strips", "ticks"]

LINE_WIDTH, LINE_HEIGHT = 420.0, 190.0
STRIP_WIDTH, STRIP_STEP = 760.0, 26.0


@dataclass(frozen=True)
class Curve:
    """A quantity as training went on.

    Args:
        name: such as `Validation MAE`.
        points: (step, value), by ascending step.
        unit: of the value, "" if it has none.
    """

    name: str
    points: Sequence[tuple[int, float]]
    unit: str = ""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """A point with what it stands for."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class LineChart:
    """A learning curve in a frame of LINE_WIDTH × LINE_HEIGHT."""

    curve: Curve
    line: str
    last: Dot
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: float = LINE_WIDTH
    height: float = LINE_HEIGHT


@dataclass(frozen=True)
class StripChart:
    """One metric: a line of dots, one a case, for each method; thin lines join the dots of a case."""

    heading: Heading
    methods: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    means: tuple[Dot, ...]
    joins: tuple[str, ...]
    x_ticks: tuple[Tick, ...]
    height: float
    width: float = STRIP_WIDTH


def draw_curve(curve: Curve) -> LineChart:
    """Lay out a learning curve of at least two points; values that are not finite are left out."""
    points = [(step, value) for step, value in curve.points if math.isfinite(value)] or [(0, 0.0)]
    steps, values = [float(step) for step, _ in points], [value for _, value in points]
    x_marks, y_marks = ticks(min(steps), max(steps)), ticks(min(values), max(values))
    x_of = _scale(min(steps), max(steps), LINE_WIDTH)
    y_of = _scale(y_marks[-1], y_marks[0], LINE_HEIGHT)
    places = [(x_of(step), y_of(value)) for step, value in points]
    return LineChart(
        curve=curve,
        line=_path(places),
        last=Dot(*places[-1], f"{values[-1]:.4g}".replace("-", "−")),
        x_ticks=tuple(Tick(x_of(mark), _label(mark)) for mark in x_marks if min(steps) <= mark <= max(steps)),
        y_ticks=tuple(Tick(y_of(mark), _label(mark)) for mark in y_marks),
    )


def draw_strips(results: Mapping[str, Sequence[Row]]) -> list[StripChart]:
    """A chart for each metric that has a number."""
    charts = zip(metric_names(results), headings(results), strict=True)
    return [_strips(name, heading, results) for name, heading in charts if _values(name, results)]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers, about `count` of them, from at or below `low` to at or above `high`.

    Example:
        >>> ticks(3.2, 17.9)
        [0.0, 5.0, 10.0, 15.0, 20.0]
    """
    span = (high - low) or abs(high) or 1.0
    raw = span / (count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 12) for number in range(first, max(last, first + 1) + 1)]


def _strips(name: str, heading: Heading, results: Mapping[str, Sequence[Row]]) -> StripChart:
    marks = ticks(min(_values(name, results)), max(_values(name, results)))
    x_of = _scale(marks[0], marks[-1], STRIP_WIDTH)
    y_of = {method: STRIP_STEP * (number + 0.5) for number, method in enumerate(results)}
    dots = {
        (method, row["case"]): Dot(x_of(row[name]), y_of[method], f"{row['case']}: {shown(name, row[name])}")
        for method, rows in results.items()
        for row in rows
        if row.get(name) is not None
    }
    cases = dict.fromkeys(case for _, case in dots)
    paths = [[dots[method, case] for method in results if (method, case) in dots] for case in cases]
    return StripChart(
        heading=heading,
        methods=tuple(Tick(y, method) for method, y in y_of.items()),
        dots=tuple(dots.values()),
        means=tuple(_mean(dots, method, y) for method, y in y_of.items() if any(m == method for m, _ in dots)),
        joins=tuple(_path([(dot.x, dot.y) for dot in path]) for path in paths if len(path) > 1),
        x_ticks=tuple(Tick(x_of(mark), _label(mark)) for mark in marks),
        height=STRIP_STEP * len(results),
    )


def _values(name: str, results: Mapping[str, Sequence[Row]]) -> list[float]:
    return [row[name] for rows in results.values() for row in rows if row.get(name) is not None]


def _mean(dots: Mapping[tuple[str, str], Dot], method: str, y: float) -> Dot:
    places = [dot.x for (owner, _), dot in dots.items() if owner == method]
    return Dot(round(sum(places) / len(places), 2), y, "mean")


def _scale(low: float, high: float, length: float) -> Callable[[float], float]:
    """From values to places: linear, `low` at 0 and `high` at `length`."""
    factor = length / ((high - low) or 1.0)
    return lambda value: round((value - low) * factor, 2)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:g},{y:g}" for x, y in places)


def _label(value: float) -> str:
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}").replace("-", "−").replace(",", "\u202f")
