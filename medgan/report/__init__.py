"""One self-contained HTML file that shows what was done, how good it is, and how to do it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from medgan import __version__
from medgan.atomic import replacing
from medgan.evaluate import Row
from medgan.report.charts import Curve, draw_curve, draw_strips
from medgan.report.gallery import Panel, hang
from medgan.report.tables import case_table, conditions, duels, headings, notes, score_line, summary_table

__all__ = ["Curve", "Panel", "Report", "write_report"]


@dataclass(frozen=True)
class Report:
    """All that a report shows.

    Args:
        title: of the page.
        lead: what was done, a plain paragraph each.
        results: rows of `medgan.evaluate` by method; the first method is the one that the report is about.
        panels: cases shown in pictures.
        curves: learning curves.
        provenance: versions, seeds, hashes and settings, by name.
        commands: lines to type to get the same again.
    """

    title: str
    lead: Sequence[str]
    results: Mapping[str, Sequence[Row]]
    panels: Sequence[Panel] = ()
    curves: Sequence[Curve] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()


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
    page = _page(report)
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _page(report: Report) -> str:
    loader = PackageLoader("medgan.report", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    first = next(iter(report.results.values()), ())
    return environment.get_template("report.html.j2").render(
        report=report,
        version=__version__,
        headings=headings(report.results),
        summary=summary_table(report.results),
        conditions=conditions(report.results),
        duels=duels(report.results),
        strips=draw_strips(report.results),
        cases=case_table(report.results),
        notes=notes(report.results),
        exhibits=[(hang(panel, len(report.panels)), score_line(first, panel.case)) for panel in report.panels],
        curves=[draw_curve(curve) for curve in report.curves if len(curve.points) > 1],
    )
