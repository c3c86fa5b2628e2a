"""Whether a table of cases is worth training on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgan.cli.base import AsJson, app, printed

__all__ = ["check"]


@app.command()
def check(
    table: Annotated[Path, typer.Argument(metavar="CASES", help="The table of cases.")],
    hu: Annotated[list[str] | None, typer.Option(help="A role in HU, where files do not say so; repeatable.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for report.html, check.csv, findings.csv and exclude.csv.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Cases looked at at once.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Look at every pair: grids, values, shift, rotation, mirroring, copies; exit code 1 if some should be left out."""
    from medgan.check import check as run
    from medgan.report.check import check_report
    from medgan.tables import columns

    checked = run(table, out=out, hu=hu or (), processes=processes)
    if out is not None:
        check_report(checked, out / "report.html")
    text = "\n".join([columns(checked.rows()), "", *checked.lines()])
    printed([case.to_json() for case in checked.cases], text, as_json)
    raise typer.Exit(checked.exit_code)
