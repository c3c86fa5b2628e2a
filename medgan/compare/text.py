"""A comparison as people read it: digits that the spread deserves, aligned tables, sentences for a paper."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from medgan.metrics.statistics import CI

if TYPE_CHECKING:
    from medgan.compare.comparison import Comparison, Contest, Pair

__all__ = [
    "PAIR_COLUMNS",
    "conditions_line",
    "decimals",
    "described",
    "heading",
    "interval",
    "mean_cells",
    "number",
    "p_value",
    "pair_cells",
    "sentence",
]

NONE = "–"
WAYS = {"lower": "lower is better", "higher": "higher is better", "zero": "best at 0", "one": "best at 1"}
LEVEL = 0.05
PAIR_COLUMNS = ["Measure", "Pair", "Gain", "p Wilcoxon", "p permutation", "r", "Better in"]


def described(found: Comparison) -> str:
    """Tables of methods and of pairs, what the paper could say, and what to mind."""
    contests = list(found.contests.values())
    parts = [
        conditions_line(found),
        "Mean [95 % CI, BCa bootstrap over patients]; * first in the ranking\n"
        + _methods_table(found.methods, contests),
        "Mean rank over patients (share of resamples in which the method is first, alone or with others); τ: "
        "Kendall's, between the ranking and those of resamples\n" + _ranks_table(found.methods, contests),
        "Gain: by how much the first is better (Hodges–Lehmann [95 % CI]); p adjusted by Holm over the pairs of a "
        "measure; r: rank-biserial correlation\n" + _pairs_table(contests),
        "\n".join(sentence(contest) for contest in contests),
        "\n".join(f"! {warning}" for warning in (*_not_compared(found), *found.warnings)),
    ]
    return "\n\n".join(part for part in parts if part)


def _not_compared(found: Comparison) -> Iterator[str]:
    """Measures that are left out, by the reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in found.left_out.items():
        reasons.setdefault(reason, []).append(name)
    yield from (f"not compared: {', '.join(names)} ({reason})" for reason, names in reasons.items())


def conditions_line(found: Comparison) -> str:
    """Which scores of how many cases were compared, in a line."""
    held = found.conditions
    span = held["range"].replace("-", "−").replace("..", " to ")
    masks = {"True": "inside masks", "False": "over whole volumes", "various": "some inside masks"}
    told = [held["preset"], f"range {span} {held['unit']}".rstrip() if span else "", masks.get(held["mask"], "")]
    whose = (
        "each taken as a patient" if found.num_cases == found.num_patients else f"of {_patients(found.num_patients)}"
    )
    num = f"{found.num_cases} case{'s' * (found.num_cases != 1)}"
    cases = f"{len(found.methods)} methods, {num}, {whose}"
    return "; ".join([cases, ", ".join(part for part in told if part)]).removesuffix("; ")


def heading(contest: Contest) -> str:
    """A measure with its unit and its better end: `MAE, HU (lower is better)`."""
    unit = f", {contest.measure.unit}" if contest.measure.unit else ""
    return f"{contest.measure.label}{unit} ({WAYS[contest.measure.better]})"


def decimals(contest: Contest) -> int:
    """How many decimals show three digits of the smallest standard deviation among the methods; at most six."""
    spreads = [found.sd for found in contest.summaries.values() if found.sd > 0]
    means = [abs(found.mean) / 10 for found in contest.summaries.values() if found.mean]
    sizes = spreads or means or [1.0]
    return min(6, max(0, 2 - math.floor(math.log10(min(sizes)))))


def number(value: float, places: int) -> str:
    """A number with so many decimals; a dash where there is none.

    Example:
        >>> number(-3.14159, 2), number(float("nan"), 2)
        ('−3.14', '–')
    """
    if not math.isfinite(value):
        return NONE
    text = f"{value:.{places}f}"
    return (text if float(text) else text.removeprefix("-")).replace("-", "−")


def interval(ci: CI, places: int) -> str:
    """Both ends, or nothing where there is no interval."""
    return f"[{number(ci.low, places)}, {number(ci.high, places)}]" if math.isfinite(ci.low) else ""


def p_value(p: float) -> str:
    """A p-value with three decimals, or two digits where it is small.

    Example:
        >>> p_value(0.03125), p_value(0.0000123), p_value(1.0)
        ('0.031', '<0.001', '1.000')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def sentence(contest: Contest) -> str:
    """What a paper could say of the first two in the ranking."""
    names = sorted(contest.summaries, key=lambda name: contest.ranking.rank[list(contest.summaries).index(name)])
    pair = next(one for one in contest.pairs if {one.first, one.second} == set(names[:2]))
    sign = 1 if pair.first == names[0] else -1
    places, unit = decimals(contest), f" {contest.measure.unit}" if contest.measure.unit else ""
    ends = sorted(sign * end for end in (pair.gain.ci.low, pair.gain.ci.high))
    span = f", 95 % CI {number(ends[0], places)} to {number(ends[1], places)}" if math.isfinite(ends[0]) else ""
    over = "" if pair.num_patients == contest.num_patients else f", n = {contest.num_patients}"
    gain = f"{number(sign * pair.gain.value, places)}{unit} (Hodges–Lehmann estimate{over}{span})"
    label = contest.measure.label
    told = (
        f"{label}: {names[0]} was better than {names[1]} by {gain}"
        if pair.wilcoxon_holm < LEVEL
        else f"{label}: no difference between {names[0]} and {names[1]} was shown: {gain}"
    )
    return f"{told}; {_test(pair, len(contest.pairs))}."


def _test(pair: Pair, num_pairs: int) -> str:
    adjusted = f", Holm-adjusted over {num_pairs} pairs" if num_pairs > 1 else ""
    p = p_value(pair.wilcoxon_holm)
    shown = f"p {p[0]} {p[1:]}" if p.startswith("<") else f"p = {p}"
    return f"Wilcoxon signed-rank test over {_patients(pair.num_patients)}{adjusted}, {shown}"


def _patients(number: int) -> str:
    return f"{number} patient{'s' * (number != 1)}"


def mean_cells(contest: Contest) -> Iterator[tuple[str, str, bool]]:
    """Of each method its mean, the interval of that, and whether it is first in the ranking."""
    places = decimals(contest)
    for found, rank in zip(contest.summaries.values(), contest.ranking.rank, strict=True):
        yield number(found.mean, places), interval(found.mean_bca, places), rank == 1


def pair_cells(contest: Contest, pair: Pair) -> list[str]:
    """What stands in `PAIR_COLUMNS`."""
    places, wins = decimals(contest), pair.wins
    return [
        contest.measure.label,
        f"{pair.first} – {pair.second}",
        f"{number(pair.gain.value, places)} {interval(pair.gain.ci, places)}".rstrip(),
        p_value(pair.wilcoxon_holm),
        p_value(pair.permutation_holm),
        number(pair.rank_biserial, 2),
        f"{wins.wins} of {pair.num_patients}" + (f", {wins.ties} equal" if wins.ties else ""),
    ]


def _methods_table(methods: Sequence[str], contests: Sequence[Contest]) -> str:
    rows = [
        [
            heading(one),
            str(one.num_cases),
            *(f"{mean} {ci}".rstrip() + "*" * first for mean, ci, first in mean_cells(one)),
        ]
        for one in contests
    ]
    return _aligned([["", "cases", *methods], *rows])


def _ranks_table(methods: Sequence[str], contests: Sequence[Contest]) -> str:
    rows = [
        [
            contest.measure.label,
            *(
                f"{mean:.2f} ({100 * share[0]:.0f} %)"
                for mean, share in zip(contest.ranking.mean_rank, contest.ranking.share, strict=True)
            ),
            number(contest.ranking.tau, 2),
        ]
        for contest in contests
    ]
    return _aligned([["", *methods, "τ"], *rows])


def _pairs_table(contests: Sequence[Contest]) -> str:
    return _aligned([PAIR_COLUMNS, *(pair_cells(one, pair) for one in contests for pair in one.pairs)])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first being the header, in aligned columns."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
