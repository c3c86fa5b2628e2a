"""A comparison as files: JSON for programs, CSV for spreadsheets, LaTeX for the paper."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medgan.atomic import replacing
from medgan.compare.comparison import Comparison, Contest, Pair
from medgan.compare.text import PAIR_COLUMNS, conditions_line, heading, mean_cells, pair_cells
from medgan.metrics.statistics import plain

__all__ = ["latex", "write_comparison"]

Row = dict[str, Any]
_NO_TEXT = "backslashreplace"  # bytes in the name of a method
_ESCAPED = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "–": "--",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
}


def write_comparison(found: Comparison, out: Path) -> None:
    """Write comparison.json, comparison.csv, pairs.csv and comparison.tex into a folder.

    Raises:
        OutputError: if it cannot be written.
    """
    contests = list(found.contests.values())
    with replacing(out / "comparison.json") as temporary:
        temporary.write_text(json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _write_csv(out / "comparison.csv", [row for contest in contests for row in _method_rows(contest)])
    _write_csv(out / "pairs.csv", [_pair_row(contest, pair) for contest in contests for pair in contest.pairs])
    with replacing(out / "comparison.tex") as temporary:
        temporary.write_text(latex(found), encoding="utf-8", errors=_NO_TEXT)


def latex(found: Comparison) -> str:
    """Both tables, for a document that uses the package booktabs."""
    contests = list(found.contests.values())
    how = (
        f"{conditions_line(found)}. Mean over cases and 95 % confidence interval (BCa bootstrap over patients, "
        f"{found.how.resamples} resamples); n: cases with a number for every method, the others are left out; bold: "
        "first by mean rank over patients."
    )
    pairs = (
        "Gain: by how much the first method is better (Hodges–Lehmann estimate and 95 % confidence interval). p: "
        "two-sided Wilcoxon signed-rank test over patients and sign-flip permutation test, adjusted by Holm's method "
        "over the pairs of a measure. r: matched-pairs rank-biserial correlation."
    ) + (" A missing prediction ranks last in Wilcoxon's test, r and the last column." * (found.how.missing == "worst"))
    return (
        "% needs \\usepackage{booktabs}\n"
        + _table(["Measure", "n", *found.methods], [_mean_row(one) for one in contests], how)
        + _table(
            PAIR_COLUMNS,
            [[_tex(cell) for cell in pair_cells(contest, pair)] for contest in contests for pair in contest.pairs],
            pairs,
        )
    )


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors=_NO_TEXT) as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _method_rows(contest: Contest) -> Iterator[Row]:
    ranking = contest.ranking
    ranks = zip(ranking.mean_rank, ranking.rank, ranking.share, strict=True)
    for (method, found), (mean_rank, rank, share) in zip(contest.summaries.items(), ranks, strict=True):
        numbers = ("mean", "sd", "median", "q1", "q3", "min", "max")
        yield {
            **_measure(contest),
            "method": method,
            "num_cases": found.n,
            "num_patients": found.num_patients,
            **{name: plain(getattr(found, name)) for name in numbers},
            **{f"mean_bca_{end}": plain(getattr(found.mean_bca, end)) for end in ("low", "high")},
            **{f"mean_percentile_{end}": plain(getattr(found.mean_ci, end)) for end in ("low", "high")},
            **{f"median_percentile_{end}": plain(getattr(found.median_ci, end)) for end in ("low", "high")},
            "mean_rank": mean_rank,
            "rank": rank,
            "share_first": share[0],
        }


def _pair_row(contest: Contest, pair: Pair) -> Row:
    return {
        **_measure(contest),
        "first": pair.first,
        "second": pair.second,
        "num_patients": pair.num_patients,
        "gain": plain(pair.gain.value),
        "gain_low": plain(pair.gain.ci.low),
        "gain_high": plain(pair.gain.ci.high),
        "mean_gain": pair.mean_gain,
        "median_gain": pair.median_gain,
        **_test_row("wilcoxon", pair.wilcoxon.p, pair.wilcoxon_holm, pair.wilcoxon.how),
        **_test_row("permutation", pair.permutation.p, pair.permutation_holm, pair.permutation.how),
        "rank_biserial": plain(pair.rank_biserial),
        "wins": pair.wins.wins,
        "ties": pair.wins.ties,
        "losses": pair.wins.losses,
        "win_rate": pair.wins.rate,
        "win_rate_low": pair.wins.ci.low,
        "win_rate_high": pair.wins.ci.high,
    }


def _measure(contest: Contest) -> Mapping[str, str]:
    one = contest.measure
    return {"measure": one.name, "label": one.label, "unit": one.unit, "better": one.better}


def _test_row(name: str, p: float, adjusted: float, how: str) -> Row:
    return {f"p_{name}": p, f"p_{name}_holm": adjusted, f"{name}_how": how}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    columns = "l" * len(head)
    body = [" & ".join(row) + r" \\" for row in rows]
    titles = " & ".join(map(_tex, head)) + r" \\"
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        titles,
    ]
    return "\n".join([*lines, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _mean_row(contest: Contest) -> list[str]:
    cells = [_tex(heading(contest)), str(contest.num_cases)]
    for mean, ci, is_first in mean_cells(contest):
        shown = rf"\textbf{{{_tex(mean)}}}" if is_first else _tex(mean)
        cells.append(f"{shown} {_tex(ci)}".rstrip())
    return cells


def _tex(text: str) -> str:
    return "".join(_ESCAPED.get(sign, sign) for sign in text)
