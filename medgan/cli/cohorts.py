"""Whether a table of cases is worth training on, and how it becomes one that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from medgan.cli.base import AsJson, app, printed
from medgan.errors import ConfigError

__all__ = ["check", "export_cohort", "prepare"]


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


@app.command()
def prepare(
    table: Annotated[Path, typer.Argument(metavar="CASES", help="The table of cases.")],
    config: Annotated[Path, typer.Argument(help="A YAML file, as configs/prepare_mr_ct.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="spacing_mm=[1,1,1]")] = None,
    out: Annotated[Path, typer.Option(help="A folder; the same command goes on where it was stopped.")] = Path(
        "prepared"
    ),
    exclude: Annotated[
        Path | None, typer.Option(help="exclude.csv of medgan check: left out but for what is mended here.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Cases prepared at once.")] = 1,
    training: Annotated[
        list[Path] | None,
        typer.Option("--for", metavar="CONFIG", help="Of a training, whose first start then waits for the disk alone."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register, resample, mask, harmonise: what CONFIG declares, written down case by case."""
    from medgan.prepare import prepare as run

    _refuse_bad(training or ())
    done = run(table, config, overrides or (), out=out, exclude=exclude, processes=processes)
    from medgan.report.prepare import prepare_report  # only now: what it brings along is not held beside the volumes

    prepare_report(done, out)
    printed(done.to_json(), "\n".join(done.lines()), as_json)
    if done.table:
        _read_ahead(training or (), done.table, processes)
    raise typer.Exit(done.exit_code)


def _refuse_bad(configs: Sequence[Path]) -> None:
    """Before hours of work, not after them."""
    if configs:
        from medgan.cache import open_store
        from medgan.config import load

        if open_store().folder is None:
            raise ConfigError("--for: keeps what it reads in the cache, and MEDGAN_CACHE=off; leave one of both out")
        for config in configs:
            try:
                load(config)
            except ConfigError as error:
                raise ConfigError(f"--for {config}: {error}") from None


def _read_ahead(configs: Sequence[Path], table: Path, processes: int) -> None:
    if configs:
        from medgan.lessons import read_ahead

        for config in configs:
            read_ahead(config, [f"cases={table}", f"train.workers={processes}"])


@app.command(name="export-cohort")
def export_cohort(
    table: Annotated[Path, typer.Argument(metavar="CASES", help="The table of cases.")],
    to: Annotated[str, typer.Argument(help="decathlon, bids or nnunet.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    label: Annotated[str | None, typer.Option(help="The role to be segmented, for decathlon and nnunet.")] = None,
    fold: Annotated[list[Path] | None, typer.Option(help="A table of a fold, for nnunet; repeatable.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="Of an image there, as a=T1w; repeatable.")] = None,
    exclude: Annotated[Path | None, typer.Option(help="exclude.csv of medgan check: cases to leave out.")] = None,
) -> None:
    """Lay out the images of a table as other tools want them."""
    from medgan.cases import by_role
    from medgan.export_cohort import export_cohort as run

    names = by_role(name or (), example="a=T1w")
    typer.echo(run(table, to, out, label=label, names=names, folds=fold or (), exclude=exclude))
