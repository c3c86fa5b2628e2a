"""One self-contained HTML file that shows what was done, how good it is, and how to do it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgan.errors import RunError
from medgan.evaluate import Row
from medgan.report.charts import Curve, draw_curve, draw_strips
from medgan.report.gallery import Panel, hang
from medgan.report.page import write_page
from medgan.report.reliability import reliabilities
from medgan.report.tables import case_table, conditions, duels, headings, notes, score_line, summary_table

if TYPE_CHECKING:
    from medgan.run import AnyRun, Run

__all__ = ["Curve", "Panel", "Report", "report", "write_report"]


@dataclass(frozen=True)
class Report:
    """All that a report shows.

    Args:
        title: of the page.
        lead: what was done, a plain paragraph each.
        results: rows of `medgan.evaluate` by method; the first method is the one that the report is about.
        panels: cases shown in pictures.
        curves: learning curves.
        training: lines of metrics.jsonl, as `Run.metrics` gives them: how the training went and what the doctor said.
        error_unit: unit of the validation errors in them.
        provenance: versions, seeds, hashes and settings, by name.
        commands: lines to type to get the same again.
    """

    title: str
    lead: Sequence[str]
    results: Mapping[str, Sequence[Row]]
    panels: Sequence[Panel] = ()
    curves: Sequence[Curve] = ()
    training: Sequence[Mapping[str, Any]] = ()
    error_unit: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()


def report(run: Path | AnyRun, out: Path | str | None = None) -> Path:
    """Show how a training went: losses, vitals and validation scores by step, and what the doctor said.

    Args:
        run: a run folder of a translator or a sampler, also of a training that is not over.
        out: the page, one HTML file; `report.html` in the run folder if not given.

    Returns:
        The page.

    Raises:
        RunError: if the run cannot be used, or has logged nothing yet.
        OutputError: if the page cannot be written.
    """
    from medgan.report.sampling import sampling_report  # these import torch, which reports of results do not need
    from medgan.run import RunFolder, SamplingRun, open_any_run

    run = run if isinstance(run, RunFolder) else open_any_run(Path(run))
    path = run.path / "report.html" if out is None else Path(out)
    return sampling_report(run, path) if isinstance(run, SamplingRun) else _translation_report(run, path)


def _translation_report(run: Run, path: Path) -> Path:
    from medgan.report.training import split_told  # imports torch

    lines = run.metrics()
    if not lines:
        raise RunError(f"{run.path}: has logged nothing yet; let it train until step {run.config.train.log_every}")
    page = Report(
        title=f"Training of {run.config.model.name}, {run.config.prep.a.modality} → {run.config.prep.b.modality}",
        lead=[f"Step {lines[-1]['step']} of {run.config.train.steps}.", *_end(lines[-1])],
        results={},
        provenance={
            "run": str(run.path),
            "patch": " × ".join(map(str, run.config.patch)),
            "batch": str(run.config.train.batch),
            "learning rate": f"{run.config.train.lr:g}",
            "seed": str(run.config.train.seed),
            **split_told(run.card),
        },
        training=lines,
        error_unit=run.config.prep.b.output_unit,
    )
    return write_report(path, page)


def _end(last: Mapping[str, Any]) -> list[str]:
    return [f"Why the training ended: {last['stopped']}."] if "stopped" in last else []


def write_report(path: Path | str, report: Report) -> Path:
    """Write the report as one HTML file that needs no network and no other file; for 20 cases it is below 10 MB.

    Args:
        path: of the file.
        report: what it shows.

    Returns:
        The path.

    Raises:
        GeometryError: if the volumes of a panel do not lie on one grid.
        InputError: if an error limit or a window of a panel cannot be used.
        OutputError: if the place cannot be written.
    """
    from medgan.report.training import course  # imports torch

    first = next(iter(report.results.values()), ())
    return write_page(
        path,
        "report.html.j2",
        report=report,
        headings=headings(report.results),
        summary=summary_table(report.results),
        conditions=conditions(report.results),
        duels=duels(report.results),
        strips=draw_strips(report.results),
        reliabilities=reliabilities(report.results),
        cases=case_table(report.results),
        notes=notes(report.results),
        exhibits=[(hang(panel, len(report.panels)), score_line(first, panel.case)) for panel in report.panels],
        curves=[draw_curve(curve) for curve in report.curves if len(curve.points) > 1],
        course=course(report.training, report.error_unit),
    )
