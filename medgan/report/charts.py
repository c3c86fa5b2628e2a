"""Line and dot charts as numbers that the template draws in SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass

from medgan.evaluate import Row
from medgan.report.tables import Heading, headings, metric_names, shown

__all__ = [
    "Curve",
    "Dot",
    "Family",
    "FamilyChart",
    "Line",
    "LineChart",
    "Reach",
    "ReachChart",
    "ReachLine",
    "StripChart",
    "Tick",
    "draw_curve",
    "draw_dots",
    "draw_family",
    "draw_reaches",
    "draw_strips",
    "label_of",
    "path_of",
    "scale",
    "ticks",
]

LINE_WIDTH, LINE_HEIGHT = 420.0, 190.0
MOST_POINTS = 200
MOST_DECADES = 6
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
class Family:
    """Quantities that are compared as training went on, in one frame.

    Args:
        name: of what they have in common.
        lines: points (step, value) of each quantity by its name, by ascending step.
        unit: of all values, "" if they have none.
        limits: least and largest value of the axis; those of the values if None.
        logarithmic: whether each step of the axis is ten times the one before; values of 0 or less are left out.
        note: what to know when reading it.
    """

    name: str
    lines: Mapping[str, Sequence[tuple[int, float]]]
    unit: str = ""
    limits: tuple[float, float] | None = None
    logarithmic: bool = False
    note: str = ""


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
class Line:
    """One quantity of a family: its path and what it is at the end."""

    name: str
    path: str
    last: Dot


@dataclass(frozen=True)
class FamilyChart:
    """The lines of a family in a frame of LINE_WIDTH × LINE_HEIGHT; marks are places on the axis of steps."""

    family: Family
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...]
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


@dataclass(frozen=True)
class Reach:
    """A number and where it lies: between two others."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ReachLine:
    """A number with its interval in a frame, and beside it what it is to be compared with."""

    label: str
    y: float
    own: Reach
    beside: Reach | None
    title: str


@dataclass(frozen=True)
class ReachChart:
    """Numbers with their intervals, a line each; all that a line holds but its label and title are places."""

    name: str
    note: str
    lines: tuple[ReachLine, ...]
    x_ticks: tuple[Tick, ...]
    mark: float | None
    height: float
    width: float = STRIP_WIDTH


def draw_curve(curve: Curve) -> LineChart:
    """Lay out a learning curve of at least two points; values that are not finite are left out."""
    points = [(step, value) for step, value in curve.points if math.isfinite(value)] or [(0, 0.0)]
    steps, values = [float(step) for step, _ in points], [value for _, value in points]
    x_marks, y_marks = ticks(min(steps), max(steps)), ticks(min(values), max(values))
    x_of = scale(min(steps), max(steps), LINE_WIDTH)
    y_of = scale(y_marks[-1], y_marks[0], LINE_HEIGHT)
    places = [(x_of(step), y_of(value)) for step, value in points]
    return LineChart(
        curve=curve,
        line=path_of(places),
        last=Dot(*places[-1], f"{values[-1]:.4g}".replace("-", "−")),
        x_ticks=tuple(Tick(x_of(mark), label_of(mark)) for mark in x_marks if min(steps) <= mark <= max(steps)),
        y_ticks=tuple(Tick(y_of(mark), label_of(mark)) for mark in y_marks),
    )


def draw_family(family: Family, last_step: int, marks: Mapping[int, str]) -> FamilyChart | None:
    """Lay out the lines of a family that have two points or more; None if there are none.

    Of long lines the means over equal numbers of points are drawn; values that are not finite are left out.

    Args:
        family: what to draw.
        last_step: the end of the axis of steps, which begins at 0.
        marks: labels of steps to be marked.
    """
    known = {name: _thinned(_drawable(family, points)) for name, points in family.lines.items()}
    known = {name: points for name, points in known.items() if len(points) > 1}
    if not known:
        return None
    x_of = scale(0, last_step, LINE_WIDTH)
    y_marks, y_of = _y_axis(family, [value for points in known.values() for _, value in points])
    return FamilyChart(
        family=family,
        lines=tuple(
            _line(name, [(x_of(step), y_of(value)) for step, value in points], points[-1][1])
            for name, points in known.items()
        ),
        x_ticks=tuple(Tick(x_of(mark), label_of(mark)) for mark in ticks(0, last_step) if mark <= last_step),
        y_ticks=tuple(Tick(y_of(mark), label_of(mark)) for mark in y_marks),
        marks=tuple(Tick(x_of(step), label) for step, label in marks.items()),
    )


def _drawable(family: Family, points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    least = 0.0 if family.logarithmic else -math.inf
    return [(step, value) for step, value in points if math.isfinite(value) and value > least]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over equal numbers of neighbours, the last of them at the end, so that at most MOST_POINTS are left."""
    share = -(-len(points) // MOST_POINTS) or 1
    groups = [points[max(end - share, 0) : end] for end in range(len(points), 0, -share)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in reversed(groups)]


def _y_axis(family: Family, values: Sequence[float]) -> tuple[list[float], Callable[[float], float]]:
    low, high = family.limits or (min(values), max(values))
    if not family.logarithmic:
        marks = ticks(low, high)
        return marks, scale(marks[-1], marks[0], LINE_HEIGHT)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    stride = -(-(last - first) // MOST_DECADES)
    place = scale(last, first, LINE_HEIGHT)
    return [10.0**power for power in range(first, last + 1, stride)], lambda value: place(math.log10(value))


def _line(name: str, places: Sequence[tuple[float, float]], last: float) -> Line:
    return Line(name, path_of(places), Dot(*places[-1], f"{last:.3g}".replace("-", "−")))


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
    known = {
        method: {str(row["case"]): row[name] for row in rows if row.get(name) is not None}
        for method, rows in results.items()
    }
    return draw_dots(heading, known, lambda value: shown(name, value))


def draw_dots(heading: Heading, results: Mapping[str, Mapping[str, float]], show: Callable[[float], str]) -> StripChart:
    """A line of dots for each method.

    Args:
        heading: of what the dots stand for.
        results: values of each case by its name, of each method by its name; one value at least.
        show: a value in words.
    """
    values = [value for cases in results.values() for value in cases.values()]
    marks = ticks(min(values), max(values))
    x_of = scale(marks[0], marks[-1], STRIP_WIDTH)
    y_of = {method: STRIP_STEP * (number + 0.5) for number, method in enumerate(results)}
    dots = {
        (method, case): Dot(x_of(value), y_of[method], f"{case}: {show(value)}")
        for method, cases in results.items()
        for case, value in cases.items()
    }
    cases = dict.fromkeys(case for _, case in dots)
    paths = [[dots[method, case] for method in results if (method, case) in dots] for case in cases]
    return StripChart(
        heading=heading,
        methods=tuple(Tick(y, method) for method, y in y_of.items()),
        dots=tuple(dots.values()),
        means=tuple(_mean(dots, method, y) for method, y in y_of.items() if any(m == method for m, _ in dots)),
        joins=tuple(path_of([(dot.x, dot.y) for dot in path]) for path in paths if len(path) > 1),
        x_ticks=tuple(Tick(x_of(mark), label_of(mark)) for mark in marks),
        height=STRIP_STEP * len(results),
    )


def draw_reaches(
    name: str,
    lines: Mapping[str, tuple[Reach, Reach | None]],
    *,
    note: str = "",
    limits: tuple[float, float] | None = None,
    mark: float | None = None,
) -> ReachChart | None:
    """Numbers with their intervals on one axis; lines whose number is not finite are left out, None if that is all.

    Args:
        name: of what they have in common.
        lines: a number, and what it is to be compared with, by label.
        note: what to know when reading them.
        limits: what the axis holds at least; the values alone if None.
        mark: a number on the axis that all are to be compared with.
    """
    known = {label: (own, beside) for label, (own, beside) in lines.items() if _is_finite(own)}
    reaches = [one for pair in known.values() for one in pair if one is not None and _is_finite(one)]
    if not reaches:
        return None
    values = [x for one in reaches for x in astuple(one)] + [x for x in (mark,) if x is not None]
    low, high = limits or (values[0], values[0])
    marks = ticks(min(low, *values), max(high, *values))
    x_of = scale(marks[0], marks[-1], STRIP_WIDTH)
    return ReachChart(
        name=name,
        note=note,
        lines=tuple(_reach_line(number, label, *pair, x_of) for number, (label, pair) in enumerate(known.items())),
        x_ticks=tuple(Tick(x_of(tick), label_of(tick)) for tick in marks),
        mark=None if mark is None else x_of(mark),
        height=STRIP_STEP * len(known),
    )


def _reach_line(number: int, label: str, own: Reach, beside: Reach | None, x_of: Callable[[float], float]) -> ReachLine:
    other = beside if beside is not None and _is_finite(beside) else None
    title = f"{label}: {_told(own)}" + (f"; beside it {_told(other)}" if other else "")
    places = Reach(*map(x_of, astuple(own))), Reach(*map(x_of, astuple(other))) if other else None
    return ReachLine(label, STRIP_STEP * (number + 0.5), *places, title)


def _is_finite(reach: Reach) -> bool:
    return all(map(math.isfinite, astuple(reach)))


def _told(reach: Reach) -> str:
    return f"{reach.value:.3g} ({reach.low:.3g} to {reach.high:.3g})".replace("-", "−")


def _values(name: str, results: Mapping[str, Sequence[Row]]) -> list[float]:
    return [row[name] for rows in results.values() for row in rows if row.get(name) is not None]


def _mean(dots: Mapping[tuple[str, str], Dot], method: str, y: float) -> Dot:
    places = [dot.x for (owner, _), dot in dots.items() if owner == method]
    return Dot(round(sum(places) / len(places), 2), y, "mean")


def scale(low: float, high: float, length: float) -> Callable[[float], float]:
    """From values to places: linear, `low` at 0 and `high` at `length`."""
    factor = length / ((high - low) or 1.0)
    return lambda value: round((value - low) * factor, 2) + 0.0  # which makes 0 of −0


def path_of(places: Sequence[tuple[float, float]]) -> str:
    """The path of an SVG through places."""
    return "M" + " L".join(f"{x:g},{y:g}" for x, y in places)


def label_of(value: float) -> str:
    """A number at the side of an axis."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}").replace("-", "−").replace(",", "\u202f")
