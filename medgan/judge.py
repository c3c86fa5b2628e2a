"""An evaluation with its report and its limits: what `medgan evaluate` does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan.errors import InputError
from medgan.evaluate import Row, evaluate
from medgan.metrics.regions import HU_REGIONS, Region, parse_region
from medgan.processes import is_first
from medgan.report.evaluation import CaseImages, evaluation_report
from medgan.report.paper import paper_tables
from medgan.results import failures
from medgan.scoring import SCORED

__all__ = ["Judged", "judge", "report_of"]

_DEFAULT = "default"
_MOST_HASHED = 100  # cases whose hashes a page lists


@dataclass(frozen=True)
class Judged:
    """What an evaluation came to.

    Args:
        rows: one a case, as `medgan.evaluate` returns them.
        failures: why limits were missed; empty where they hold.
        page: the report, where one was written.
    """

    rows: list[Row]
    failures: list[str]
    page: Path | None

    def told(self) -> str:
        """For people: what was not scored, the limits that were missed, and where the report is."""
        unscored = sum(row["status"] != SCORED for row in self.rows)
        head = [f"{unscored} of {len(self.rows)} cases were NOT scored"] if unscored else []
        page = [f"report: {self.page}"] if self.page else []
        return "".join(f"\n{line}" for line in (*head, *(f"FAILED {reason}" for reason in self.failures), *page))


def judge(
    pred: Path,
    ref: Path,
    *,
    regions: Sequence[str] = (),
    labels: tuple[Path | None, Path | None] = (None, None),
    names: Sequence[str] = (),
    limits: Sequence[str] = (),
    **choices: Any,
) -> Judged:
    """Evaluate, write the report where results are written, and hold the limits.

    Args:
        pred: predictions.
        ref: references.
        regions: as `bone=200..3071`; `default` stands for air, lung, soft tissue and bone.
        labels: segmentations of predictions and of references; both or none.
        names: of the numbers in them, as `liver=5`.
        limits: the worst means that pass, as `mae=80`.
        choices: of `medgan.evaluate`.

    Raises:
        InputError: if a text cannot be understood, or one kind of segmentations is missing; and as `evaluate` does.
    """
    limit = dict(_named(text, "--fail-under mae=80") for text in limits)
    label_names = {int(number): name for name, number in (_named(text, "--label liver=5") for text in names)}
    asked: dict[str, Any] = {"regions": _regions(regions), "label_names": label_names or None, "labels": _both(*labels)}
    rows = evaluate(pred, ref, **asked, **choices)
    out = choices.get("out")
    page = report_of(Path(out)) if out is not None and is_first() else None
    return Judged(rows, failures(rows, limit), page)


def report_of(out: Path) -> Path:
    """Write `report.html`, and tables for a paper (CSV, LaTeX), beside the results that `evaluate` wrote.

    Raises:
        InputError: if an image cannot be read any more.
        OutputError: if the page cannot be written.
    """
    record = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    cases = [_images(row["case"], record["files"][row["case"]]) for row in record["rows"] if row["status"] == SCORED]
    facts = {name: record[name] for name in ("versions", "bootstrap", "schema")}
    facts |= {"sha256": _listed(record["sha256"])}
    settings = {name: value for name, value in record["settings"].items() if value not in (None, [], "")}
    paper_tables(record["rows"], out)
    return evaluation_report(record["rows"], cases, out / "report.html", provenance=facts, settings=settings)


def _listed(hashes: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]] | str:
    """By case; of many cases, where they stand."""
    if len(hashes) <= _MOST_HASHED:
        return hashes
    whole = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    return f"the files of {len(hashes)} cases in metrics.json, and of the table there (as sorted JSON) {whole}"


def _images(case: str, files: Mapping[str, str]) -> CaseImages:
    source, mask = (None if role not in files else Path(files[role]) for role in ("source", "mask"))
    return CaseImages(case, Path(files["pred"]), Path(files["ref"]), source, mask)


def _named(text: str, example: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError as error:
        raise InputError(f"{text!r} is no name and number; write it as in {example}") from error


def _regions(texts: Sequence[str]) -> tuple[Region, ...]:
    own = tuple(parse_region(text) for text in texts if text != _DEFAULT)
    return (*HU_REGIONS, *own) if _DEFAULT in texts else own


def _both(pred: Path | None, ref: Path | None) -> tuple[Path, Path] | None:
    if (pred is None) != (ref is None):
        raise InputError("segmentations are compared in pairs: give --pred-labels and --ref-labels, or neither")
    return None if pred is None or ref is None else (pred, ref)
