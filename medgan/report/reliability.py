"""How right the standard deviations of a method are, as the report shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medgan.diagram import draw_calibration
from medgan.evaluate import Row, summarise
from medgan.formats.png import data_uri, encode_png

__all__ = ["Reliability", "reliabilities"]

_LABELS = {
    "miscalibration": "miscalibration",
    "ence": "ENCE",
    "spearman": "rank correlation with the error",
    "sigma_scale": "factor that it would have to be multiplied by",
}


@dataclass(frozen=True)
class Reliability:
    """The diagram of one method, and its numbers as a sentence."""

    method: str
    uri: str
    sentence: str


def reliabilities(results: Mapping[str, Sequence[Row]]) -> list[Reliability]:
    """One for each method whose predictions have standard deviations."""
    told = {method: [row for row in rows if row.get("error_by_sigma")] for method, rows in results.items()}
    return [
        Reliability(method, data_uri(encode_png(draw_calibration(rows))), _sentence(rows))
        for method, rows in told.items()
        if rows
    ]


def _sentence(rows: Sequence[Row]) -> str:
    means = {name: numbers["mean"] for name, numbers in summarise(rows).items()}
    covered = [name for name in means if name.startswith("coverage_")]
    shares = ", ".join(f"{_percent(means[name])} for {name.removeprefix('coverage_')} %" for name in covered)
    others = ", ".join(f"{label} {_number(means[name])}" for name, label in _LABELS.items())
    return f"Mean over {len(rows)} cases: coverage {shares}; {others}."


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}".replace("-", "−")
