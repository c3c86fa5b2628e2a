"""How synthetic values agree with real ones, as charts with two axes: places that the template draws in SVG."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medgan.metrics.measures import MEASURES, base_of, measure
from medgan.report.charts import Dot, Reach, ReachChart, Tick, draw_reaches, label_of, path_of, scale, ticks
from medgan.report.scatter import (
    DIFFERENCE_BINS,
    MEAN_BINS,
    REF_BINS,
    Agreement,
    CaseMeans,
    Limits,
    by_patient,
    calibration_curve,
    coarser,
    limits_of_agreement,
)

__all__ = ["Heat", "Plot", "agreement_plots", "region_bars"]

Array = npt.NDArray[Any]
Range = tuple[float, float]
Scale = Callable[[float], float]
Summary = Mapping[str, Mapping[str, float | int | None]]

SIDE, FLAT = 340.0, 260.0
_LABEL_STEP = 14.0
_TAIL = 1e-4  # the share of differences that may lie beyond the axis on either side
_PALE, _DARK = (205, 222, 238), (4, 48, 98)  # from one voxel to the most in a bin; the page inverts them on black


@dataclass(frozen=True)
class Heat:
    """Counts in two dimensions as a picture, and the bar that says what its colours mean, from bottom to top."""

    uri: str
    x: float
    y: float
    width: float
    height: float
    bar: str
    bar_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Plot:
    """A chart with two axes in a frame of width × height.

    Args:
        name: what it shows.
        note: how to read it.
        told: its numbers in words, for those who cannot see it.
        x_name: of the axis below, with the unit.
        y_name: of the axis at the left, with the unit.
        x_ticks: marks on the axis below.
        y_ticks: marks on the axis at the left.
        height: of the frame.
        heat: counts behind all else.
        band: path of an area.
        line: path of a curve.
        ideal: path of where all would lie if both images were the same.
        dots: a dot a case.
        rules: horizontal lines with their labels; the first is the mean.
        rule_labels: places of the labels, apart from one another.
        width: of the frame.
    """

    name: str
    note: str
    told: str
    x_name: str
    y_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    height: float
    heat: Heat | None = None
    band: str = ""
    line: str = ""
    ideal: str = ""
    dots: tuple[Dot, ...] = ()
    rules: tuple[Tick, ...] = ()
    rule_labels: tuple[Tick, ...] = ()
    width: float = SIDE


def agreement_plots(agreement: Agreement, unit: str) -> list[Plot]:
    """Calibration, joint histogram, and the differences of patients and of voxels; those that have data.

    Args:
        agreement: all cases.
        unit: of the images.
    """
    plots = [_calibration(agreement, unit), _joint(agreement, unit)]
    if agreement.cases:
        plots.append(_patients(by_patient(agreement.cases), unit))
    return [plot for plot in (*plots, _voxels(agreement, unit)) if plot is not None]


# --- synthetic against real -------------------------------------------------------------------------------------------


def _calibration(agreement: Agreement, unit: str) -> Plot | None:
    bins = calibration_curve(agreement)
    if not bins:
        return None
    values = [value for one in bins for value in (one.ref, one.mean, one.q1, one.q3)]
    marks = ticks(min(values), max(values))
    x_of, y_of = scale(marks[0], marks[-1], SIDE), scale(marks[-1], marks[0], SIDE)
    upper, lower = ([(x_of(one.ref), y_of(getattr(one, name))) for one in bins] for name in ("q3", "q1"))
    farthest = max(bins, key=lambda one: abs(one.mean - one.ref))
    return Plot(
        name="Calibration",
        note="mean synthetic value (line) and the middle half (band) where the real value is that of the axis below; "
        "on the dashed line synthetic is real",
        told=f"mean synthetic value by real value; farthest off at {_number(farthest.ref)}: {_number(farthest.mean)}",
        **_same_axes(unit, marks, x_of, y_of),
        height=SIDE,
        band=f"{path_of([*upper, *reversed(lower)])} Z",
        line=path_of([(x_of(one.ref), y_of(one.mean)) for one in bins]),
        ideal=_diagonal(),
    )


def _joint(agreement: Agreement, unit: str) -> Plot | None:
    counts = coarser(agreement.joint, (REF_BINS, REF_BINS))
    if not counts.any():
        return None
    start, stop = _span(counts, 0, 1)
    low, high = _edges(agreement.limits, REF_BINS, (start, stop))
    x_of, y_of = scale(low, high, SIDE), scale(high, low, SIDE)
    return Plot(
        name="Joint histogram",
        note="how many voxels have a pair of values; on the dashed line both are the same",
        told=f"{agreement.num_voxels} voxels of {len(agreement.cases)} cases, {_number(low)} to {_number(high)} {unit}",
        **_same_axes(unit, [mark for mark in ticks(low, high) if low <= mark <= high], x_of, y_of),
        height=SIDE,
        heat=_heat(counts[start:stop, start:stop], (SIDE, SIDE)),
        ideal=_diagonal(),
    )


def _same_axes(unit: str, marks: Sequence[float], x_of: Scale, y_of: Scale) -> dict[str, Any]:
    return {
        "x_name": f"Reference, {unit}",
        "y_name": f"Synthetic, {unit}",
        "x_ticks": tuple(Tick(x_of(mark), label_of(mark)) for mark in marks),
        "y_ticks": tuple(Tick(y_of(mark), label_of(mark)) for mark in marks),
    }


def _diagonal() -> str:
    return path_of([(0, SIDE), (SIDE, 0)])


# --- differences ------------------------------------------------------------------------------------------------------


def _patients(ones: Sequence[CaseMeans], unit: str) -> Plot:
    limits = limits_of_agreement([one.difference for one in ones])
    means = [one.mean for one in ones]
    x_marks, y_marks = ticks(min(means), max(means)), ticks(*_reach(limits, [one.difference for one in ones]))
    x_of, y_of = scale(x_marks[0], x_marks[-1], SIDE), scale(y_marks[-1], y_marks[0], FLAT)
    named = [(one, f"{one.case}: {_signed(one.difference)} {unit} at {_number(one.mean)}") for one in ones]
    return Plot(
        name="Bland–Altman, patients",
        note="a dot a patient: mean difference against mean value, over the voxels that count; between the dashed "
        "lines 95 % of patients are expected",
        told=f"{len(ones)} patients; {_limits_told(limits, unit)}",
        **_difference_axes(unit, [Tick(x_of(mark), label_of(mark)) for mark in x_marks], y_marks, y_of),
        dots=tuple(Dot(x_of(one.mean), y_of(one.difference), label) for one, label in named),
        **_rules(limits, y_of),
    )


def _voxels(agreement: Agreement, unit: str) -> Plot | None:
    limits = agreement.voxel_limits()
    if limits is None:
        return None
    columns = _span(agreement.spread, 0)
    rows = _central(agreement, limits)
    low, high = _edges(agreement.limits, MEAN_BINS, columns)
    bottom, top = _edges(agreement.difference_limits, DIFFERENCE_BINS, rows)
    counts = _thinned(agreement.spread[slice(*columns), slice(*rows)], MEAN_BINS)
    x_of, y_of = scale(low, high, SIDE), scale(top, bottom, FLAT)
    x_ticks = [Tick(x_of(mark), label_of(mark)) for mark in ticks(low, high) if low <= mark <= high]
    y_marks = [mark for mark in ticks(bottom, top) if bottom <= mark <= top]
    return Plot(
        name="Bland–Altman, voxels",
        note="how many voxels have a difference at a mean value, full colour for "
        f"{int(counts.max()):,} and each step the same factor; one in 5000 may lie beyond the frame",
        told=f"{agreement.num_voxels} voxels; {_limits_told(limits, unit)}",
        **_difference_axes(unit, x_ticks, y_marks, y_of),
        heat=_heat(counts, (SIDE, FLAT)),
        **_rules(limits, y_of),
    )


def _difference_axes(unit: str, x_ticks: Sequence[Tick], y_marks: Sequence[float], y_of: Scale) -> dict[str, Any]:
    return {
        "x_name": f"Mean of both, {unit}",
        "y_name": f"Synthetic − reference, {unit}",
        "x_ticks": tuple(x_ticks),
        "y_ticks": tuple(Tick(y_of(mark), label_of(mark)) for mark in y_marks),
        "height": FLAT,
    }


def _rules(limits: Limits, y_of: Scale) -> dict[str, Any]:
    values = {"mean": limits.mean, "+1.96 SD": limits.high, "−1.96 SD": limits.low}
    rules = tuple(Tick(y_of(value), f"{name} {_signed(value)}") for name, value in values.items() if value is not None)
    return {"rules": rules, "rule_labels": _apart(rules)}


def _apart(rules: Sequence[Tick]) -> tuple[Tick, ...]:
    """The same labels moved so that none covers another: above and below that of the mean, which stays."""
    mean, *others = rules
    return (
        mean,
        *(
            Tick(
                min(one.at, mean.at - _LABEL_STEP) if one.label.startswith("+") else max(one.at, mean.at + _LABEL_STEP),
                one.label,
            )
            for one in others
        ),
    )


def _reach(limits: Limits, values: Sequence[float]) -> Range:
    all_values = [*values, 0.0, *(value for value in (limits.low, limits.high) if value is not None)]
    return min(all_values), max(all_values)


def _limits_told(limits: Limits, unit: str) -> str:
    told = f"mean difference {_signed(limits.mean)} {unit}"
    if limits.low is None or limits.high is None:
        return told
    return f"{told}, limits of agreement {_signed(limits.low)} to {_signed(limits.high)} {unit}"


def _central(agreement: Agreement, limits: Limits) -> tuple[int, int]:
    """The bins of differences without the tails, with zero and the limits of agreement among them."""
    share = np.cumsum(agreement.spread.sum(axis=0)) / agreement.num_voxels
    start, stop = int(np.searchsorted(share, _TAIL)), int(np.searchsorted(share, 1 - _TAIL)) + 1
    low, high = agreement.difference_limits
    kept = [(value - low) / (high - low) * DIFFERENCE_BINS for value in _reach(limits, ())]
    start, stop = min(start, math.floor(kept[0])), max(stop, math.ceil(kept[1]))
    return _whole(max(start - 1, 0), min(stop + 1, DIFFERENCE_BINS), MEAN_BINS, DIFFERENCE_BINS)


# --- counts as colours ------------------------------------------------------------------------------------------------


def _span(counts: Array, *axes: int) -> tuple[int, int]:
    """From the first bin that is used on any of these axes to behind the last."""
    found = np.concatenate([np.flatnonzero(counts.any(axis=1 - axis)) for axis in axes])
    return int(found.min()), int(found.max()) + 1


def _edges(limits: Range, number: int, span: tuple[int, int]) -> Range:
    low, high = limits
    return low + (high - low) * span[0] / number, low + (high - low) * span[1] / number


def _thinned(counts: Array, most: int) -> Array:
    """Counts (M, N) with neighbours summed, so that at most so many columns are left; N is what `_whole` gives."""
    share = -(-counts.shape[1] // most)
    return np.asarray(counts.reshape(len(counts), -1, share).sum(axis=2))


def _whole(start: int, stop: int, most: int, number: int) -> tuple[int, int]:
    """Bins start to stop of so many, and some more, so that at most `most` groups of equal size hold them."""
    share = -(-(stop - start) // most)
    length = -(-(stop - start) // share) * share
    stop = min(start + length, number)
    return stop - length, stop


def _heat(counts: Array, size: tuple[float, float]) -> Heat:
    """Logarithmic: each step of colour is the same factor; where nothing was counted the page shows through."""
    most = max(int(counts.max()), 10)
    level = np.where(counts > 0, 1 + np.rint(254 * np.log10(np.maximum(counts, 1)) / math.log10(most)), 0)
    decades = range(math.floor(math.log10(most)) + 1)
    return Heat(
        uri=_palette_png(level.T[::-1]),
        x=0,
        y=0,
        width=size[0],
        height=size[1],
        bar=_palette_png(np.arange(255, 0, -1)[:, None]),
        bar_ticks=tuple(Tick(1 - power / math.log10(most), _power(power)) for power in decades),
    )


def _palette_png(level: Array) -> str:
    """Levels 1 to 255 in blue, 0 transparent."""
    share = (np.arange(256)[:, None] - 1) / 254
    colours = np.rint(np.array(_PALE) + np.clip(share, 0, 1) * (np.array(_DARK) - np.array(_PALE)))
    image = Image.fromarray(np.ascontiguousarray(level, dtype=np.uint8), mode="P")
    image.putpalette(colours.astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True, transparency=0)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _power(power: int) -> str:
    return {0: "1", 1: "10"}.get(power, "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(power)))


# --- regions ----------------------------------------------------------------------------------------------------------


def region_bars(summary: Summary, unit: str) -> list[ReachChart]:
    """For each measure that was computed of several regions: the mean of each region, and its interval.

    Args:
        summary: as `medgan.evaluate.summarise` gives it.
        unit: of the images.
    """
    groups: dict[str, dict[str, tuple[Reach, Reach | None]]] = {}
    for name, numbers in summary.items():
        base, part = _parted(name)
        if part and numbers["mean"] is not None:
            groups.setdefault(base, {})[f"{part}, n = {numbers['n']}"] = (_reach_of(numbers), None)
    charts = [_bars(base, lines, unit) for base, lines in groups.items() if len(lines) > 1]
    return [chart for chart in charts if chart is not None]


def _bars(base: str, lines: Mapping[str, tuple[Reach, Reach | None]], unit: str) -> ReachChart | None:
    column = measure(base)
    heading = ", ".join(part for part in (column.label, column.in_unit(unit)) if part)
    note = "mean over the cases and its 95 % BCa interval over patients"
    return draw_reaches(f"{heading}, by region", lines, note=note, mark=0.0)


def _parted(name: str) -> tuple[str, str]:
    """The measure and the region of a column; no region for variants and for what was computed over all that counts."""
    base, label = base_of(name), measure(name).label
    whole, comma, part = label.partition(", ")
    return base, part if comma and whole == MEASURES[base].label and base != "coverage" else ""


def _reach_of(numbers: Mapping[str, float | int | None]) -> Reach:
    mean, low, high = (numbers[name] for name in ("mean", "bca95_low", "bca95_high"))
    middle = float(mean or 0)
    return Reach(middle, middle if low is None else low, middle if high is None else high)


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
