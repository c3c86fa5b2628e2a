"""Methods compared measure by measure: summaries, paired tests, effect sizes and a ranking, all over patients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from medgan.cases import listed
from medgan.compare.results import Joined
from medgan.metrics.measures import Measure, measure
from medgan.metrics.paired import (
    Shift,
    Tested,
    Wins,
    differences,
    hodges_lehmann,
    permutation,
    rank_biserial,
    wilcoxon,
    win_rate,
)
from medgan.metrics.statistics import Ranking, Summary, holm, owners_of, plain, rank_stability, summary

__all__ = ["Comparison", "Contest", "How", "Missing", "Pair", "comparison_of"]

Floats = npt.NDArray[np.float64]
Missing = Literal["complete", "worst"]
SCHEMA = "medgan.comparison/1"
LEVEL = 0.05
FEW = 10  # patients, with whom a bootstrap interval of 95 % holds the mean in about 90 % of studies


@dataclass(frozen=True)
class How:
    """How a comparison is made.

    Args:
        missing: what a case without a score counts: `complete` leaves it out for all methods; `worst` does so for
            means and sizes of differences, and ranks the method last in tests, win rates and rankings.
        seed: of all draws.
        resamples: of the bootstrap.
    """

    missing: Missing
    seed: int
    resamples: int


@dataclass(frozen=True)
class Pair:
    """One method against another, by one measure. A gain is positive where the first is better, whichever way that is.

    Args:
        first: the one.
        second: the other.
        num_patients: over whom Wilcoxon's test, `rank_biserial` and `wins` go; the rest is over those of the contest.
        mean_gain: mean over patients, in the unit of the measure.
        median_gain: likewise.
        gain: Hodges–Lehmann estimate and its interval.
        wilcoxon: signed-rank test.
        wilcoxon_holm: its p-value, adjusted over all pairs of the measure.
        permutation: sign-flip test of the mean.
        permutation_holm: its p-value, adjusted likewise.
        rank_biserial: −1 to 1; NaN where both are equal in every patient.
        wins: in how many patients the first is better.
    """

    first: str
    second: str
    num_patients: int
    mean_gain: float
    median_gain: float
    gain: Shift
    wilcoxon: Tested
    wilcoxon_holm: float
    permutation: Tested
    permutation_holm: float
    rank_biserial: float
    wins: Wins

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "first": self.first,
            "second": self.second,
            "num_patients": self.num_patients,
            "gain": self.gain.value,
            "gain_ci": self.gain.ci.to_json(),
            "mean_gain": self.mean_gain,
            "median_gain": self.median_gain,
            "wilcoxon": {**asdict(self.wilcoxon), "p_holm": self.wilcoxon_holm},
            "permutation": {**asdict(self.permutation), "p_holm": self.permutation_holm},
            "rank_biserial": plain(self.rank_biserial),
            "wins": {**asdict(self.wins), "ci": self.wins.ci.to_json()},
        }


@dataclass(frozen=True)
class Contest:
    """All methods by one measure, on the same cases.

    Args:
        measure: what is measured, and which way is better; its unit is that of the values.
        num_cases: with a number for every method.
        num_patients: whose these are.
        undefined: by method, the cases it has predicted that have no number here; they are left out for all methods.
        summaries: by method.
        ranking: of the methods, in their order.
        pairs: each method against each later one.
    """

    measure: Measure
    num_cases: int
    num_patients: int
    undefined: Mapping[str, tuple[str, ...]]
    summaries: Mapping[str, Summary]
    ranking: Ranking
    pairs: tuple[Pair, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        order = zip(self.summaries.items(), self.ranking.mean_rank, self.ranking.rank, self.ranking.share, strict=True)
        return {
            **asdict(self.measure),
            "num_cases": self.num_cases,
            "num_patients": self.num_patients,
            "undefined": {method: list(cases) for method, cases in self.undefined.items()},
            "methods": [
                {"method": method, **found.to_json(), "mean_rank": mean, "rank": rank, "rank_share": list(share)}
                for (method, found), mean, rank, share in order
            ],
            "tau": self.ranking.tau,
            "pairs": [pair.to_json() for pair in self.pairs],
        }


@dataclass(frozen=True)
class Comparison:
    """What `medgan.compare` found.

    Args:
        methods: their names.
        num_cases: that have a reference.
        num_patients: whose these are.
        missing: by method, the cases without a score: there is no prediction, or it was refused.
        without_reference: cases that are left out, as there is nothing to compare them with.
        conditions: `preset`, `range`, `unit` and `mask` of all scores.
        contests: by measure.
        left_out: measures that are not compared, and why.
        warnings: what makes the comparison less than it seems.
        how: how it was made.
        versions: of the software.
    """

    methods: tuple[str, ...]
    num_cases: int
    num_patients: int
    missing: Mapping[str, tuple[str, ...]]
    without_reference: tuple[str, ...]
    conditions: Mapping[str, str]
    contests: Mapping[str, Contest]
    left_out: Mapping[str, str]
    warnings: tuple[str, ...]
    how: How
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As plain values, without NaN."""
        return {
            "schema": SCHEMA,
            "methods": list(self.methods),
            "cases": {
                "num": self.num_cases,
                "num_patients": self.num_patients,
                "missing": {method: list(cases) for method, cases in self.missing.items()},
                "without_reference": list(self.without_reference),
            },
            "conditions": dict(self.conditions),
            "policy": {"missing": self.how.missing, **POLICY, "missing_means": MISSING[self.how.missing]},
            "measures": [contest.to_json() for contest in self.contests.values()],
            "left_out": dict(self.left_out),
            "warnings": list(self.warnings),
            "settings": {"seed": self.how.seed, "resamples": self.how.resamples},
            "versions": dict(self.versions),
        }

    def describe(self) -> str:
        """For a terminal: tables of methods and of pairs, what the paper could say, and what to mind."""
        from medgan.compare.text import described

        return described(self)


POLICY = {
    "unit_of_analysis": "the patient: cases of a patient are averaged before tests and ranks, and drawn together",
    "gain": "positive where the first method of a pair is better",
    "holm": "over all pairs of methods of one measure",
    "ranking": "methods are ranked in each patient and ordered by their mean rank",
}
MISSING: Mapping[str, str] = {
    "complete": "cases that lack a number for any method are left out for all methods",
    "worst": "a missing prediction ranks last in Wilcoxon's test, win rates and rankings; means, sizes of differences "
    "and the permutation test are over the cases that have a number for every method",
}


def comparison_of(joined: Joined, how: How, versions: Mapping[str, str]) -> Comparison:
    """The comparison of results that were joined.

    Args:
        joined: results of all methods on the same cases.
        how: policy, seed and resamples.
        versions: of the software, for the record.
    """
    contests = {name: _contest(joined, name, how) for name in joined.values}
    missing = {method: joined.cases_where(joined.missing[:, k]) for k, method in enumerate(joined.methods)}
    return Comparison(
        methods=joined.methods,
        num_cases=len(joined.cases),
        num_patients=len(set(joined.patients)),
        missing=missing,
        without_reference=joined.without_reference,
        conditions=joined.conditions,
        contests=contests,
        left_out=joined.left_out,
        warnings=(*joined.warnings, *_missing_told(missing, how, len(joined.cases)), *_warnings(contests, joined)),
        how=how,
        versions=versions,
    )


def _contest(joined: Joined, name: str, how: How) -> Contest:
    values, one = joined.values[name], measure(name)
    complete = np.all(np.isfinite(values), axis=1)
    patients = joined.patients_where(complete)
    badness = np.array([[one.badness(value) for value in row] for row in values])
    sizes = _by_patient(badness[complete], patients)
    order = _with_worst(badness, joined) if how.missing == "worst" else sizes
    return Contest(
        measure=Measure(name, one.label, one.in_unit(joined.conditions["unit"]), one.better),
        num_cases=int(complete.sum()),
        num_patients=len(sizes),
        undefined=dict(_undefined(values, joined)),
        summaries={
            method: summary(values[complete, k], patients, seed=how.seed, resamples=how.resamples)
            for k, method in enumerate(joined.methods)
        },
        ranking=rank_stability(order, seed=how.seed, resamples=how.resamples),
        pairs=tuple(_pairs(joined.methods, sizes, order, how.seed)),
    )


def _by_patient(rows: Floats, patients: Sequence[str]) -> Floats:
    """(P, M) the mean over the cases of each patient."""
    owner = owners_of(patients, len(rows))
    return np.stack([np.bincount(owner, weights=column) for column in rows.T], axis=1) / np.bincount(owner)[:, None]


def _with_worst(badness: Floats, joined: Joined) -> Floats:
    """(P, M) likewise over all cases that any method has predicted, a missing prediction being infinitely bad."""
    filled = np.where(joined.missing, np.inf, badness)
    kept = ~np.any(np.isnan(filled), axis=1) & ~np.all(joined.missing, axis=1)
    return _by_patient(filled[kept], joined.patients_where(kept))


def _undefined(values: Floats, joined: Joined) -> Iterator[tuple[str, tuple[str, ...]]]:
    lost = ~np.isfinite(values) & ~joined.missing
    yield from ((method, joined.cases_where(lost[:, k])) for k, method in enumerate(joined.methods) if lost[:, k].any())


def _pairs(methods: Sequence[str], sizes: Floats, order: Floats, seed: int) -> Iterator[Pair]:
    """Each method against each later one; `sizes` and `order` are how bad they are, by patient and method."""
    numbers = list(combinations(range(len(methods)), 2))
    gains = [differences(sizes[:, j], sizes[:, i]) for i, j in numbers]
    orders = [differences(order[:, j], order[:, i]) for i, j in numbers]
    ranked, flipped = [wilcoxon(one) for one in orders], [permutation(one, seed=seed) for one in gains]
    adjusted = zip(holm([test.p for test in ranked]), holm([test.p for test in flipped]), strict=True)
    for k, ((i, j), (ranked_holm, flipped_holm)) in enumerate(zip(numbers, adjusted, strict=True)):
        yield Pair(
            first=methods[i],
            second=methods[j],
            num_patients=orders[k].size,
            mean_gain=float(gains[k].mean()),
            median_gain=float(np.median(gains[k])),
            gain=hodges_lehmann(gains[k]),
            wilcoxon=ranked[k],
            wilcoxon_holm=ranked_holm,
            permutation=flipped[k],
            permutation_holm=flipped_holm,
            rank_biserial=rank_biserial(orders[k]),
            wins=win_rate(orders[k]),
        )


# --- warnings ---------------------------------------------------------------------------------------------------------


def _missing_told(missing: Mapping[str, Sequence[str]], how: How, num_cases: int) -> Iterator[str]:
    for method, cases in missing.items():
        if cases:
            seen = f"{method} has no score in {len(cases)} of {num_cases} cases ({listed(cases)})"
            flattery = "left out for all methods, which flatters one that fails where it is hard; see missing=worst"
            yield f"{seen}: {flattery if how.missing == 'complete' else 'it ranks last there; means leave them out'}"


def _warnings(contests: Mapping[str, Contest], joined: Joined) -> Iterator[str]:
    if joined.without_reference:
        yield f"left out, without a reference: {listed(joined.without_reference)}"
    yield from _few(contests.values())
    for contest in contests.values():
        for method, cases in contest.undefined.items():
            yield f"{contest.measure.label} of {method} has no value for {listed(cases)}: left out for all methods"
    for first, second in combinations(range(len(joined.methods)), 2):
        same = [name for name, values in joined.values.items() if _are_same(values[:, first], values[:, second])]
        if same:
            names = f"{joined.methods[first]} and {joined.methods[second]}"
            yield f"{names} have the same values in every case ({', '.join(same)}): are they the same images?"


def _are_same(a: Floats, b: Floats) -> bool:
    known = np.isfinite(a) & np.isfinite(b)
    return bool((a[known] == b[known]).all())


def _few(contests: Iterable[Contest]) -> Iterator[str]:
    """Measures on so few patients that no test can find anything, or that intervals are too narrow."""
    by_count: dict[tuple[int, int], list[str]] = {}
    for contest in contests:
        num = min(pair.num_patients for pair in contest.pairs)
        by_count.setdefault((num, len(contest.pairs)), []).append(contest.measure.name)
    for (num, num_pairs), names in by_count.items():
        least = min(1.0, num_pairs * 2.0 ** (1 - num))
        who = "a single patient: there is no interval, and" if num == 1 else f"{num} patients:"
        if least >= LEVEL:
            yield f"{who} no test of {', '.join(names)} can be significant, as the smallest adjusted p is {least:.2g}"
        if 1 < num < FEW:
            yield f"{num} patients: bootstrap intervals of {', '.join(names)} hold the truth less often than 95 % say"
