"""An evaluation with its report and its limits: what `medgan evaluate` does."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan.errors import InputError
from medgan.evaluate import Row, evaluate
from medgan.metrics.measures import measure
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
    limit, segmentations = _limits(limits), _both(*labels)
    label_names = _label_names(names, are_asked=segmentations is not None)
    asked: dict[str, Any] = {"regions": _regions(regions), "label_names": label_names or None, "labels": segmentations}
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


def _limits(texts: Sequence[str]) -> dict[str, float]:
    """By metric; what is none is told before hours of scoring."""
    limits = _numbers(texts, "--fail-under mae=80")
    for name in limits:
        measure(name)
    return limits


def _label_names(texts: Sequence[str], *, are_asked: bool) -> dict[int, str]:
    numbers = _numbers(texts, "--label liver=5")
    if numbers and not are_asked:
        raise InputError("labels are names in segmentations: give --pred-labels and --ref-labels, or no --label")
    names = {int(number): name for name, number in numbers.items()}
    if len(names) < len(numbers) or any(number % 1 for number in numbers.values()):
        raise InputError(f"labels are whole numbers, each with one name; seen {', '.join(texts)}")
    return names


def _numbers(texts: Sequence[str], example: str) -> dict[str, float]:
    """By name, each once."""
    numbers = dict(_named(text, example) for text in texts)
    if len(numbers) < len(texts):
        raise InputError(f"a name is given twice, as in {example}; seen {', '.join(texts)}")
    return numbers


def _named(text: str, example: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    with suppress(ValueError):
        if name.strip() and math.isfinite(float(number)):
            return name.strip(), float(number)
    raise InputError(f"{text!r} is no name and number; write it as in {example}")


def _regions(texts: Sequence[str]) -> tuple[Region, ...]:
    own = tuple(parse_region(text) for text in texts if text != _DEFAULT)
    return (*HU_REGIONS, *own) if _DEFAULT in texts else own


def _both(pred: Path | None, ref: Path | None) -> tuple[Path, Path] | None:
    if (pred is None) != (ref is None):
        raise InputError("segmentations are compared in pairs: give --pred-labels and --ref-labels, or neither")
    return None if pred is None or ref is None else (pred, ref)
