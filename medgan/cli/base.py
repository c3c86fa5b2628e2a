"""The program that commands are added to, and the options and the output that they share."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from medgan.processes import is_first

__all__ = ["AsJson", "Device", "app", "printed"]

app = typer.Typer(
    name="medgan",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Translate one imaging modality into another, and judge the result. Synthetic images always say so.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options of all commands; `main` reads --debug itself, since errors reach it after this returns."""


def printed(values: Any, text: str, as_json: bool) -> None:
    """Once, however many processes share the job."""
    if not is_first():
        return
    typer.echo(json.dumps(values, indent=2, allow_nan=False) if as_json else text)
