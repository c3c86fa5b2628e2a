"""The command line: each command parses, calls the function of its name, and prints."""

from __future__ import annotations

import atexit
import gc
import sys
from io import TextIOWrapper

import typer

from medgan.cli import clinic, cohorts, scans, scores, sets
from medgan.cli.base import app
from medgan.errors import MedganError

__all__ = ["app", "clinic", "cohorts", "main", "scans", "scores", "sets"]


def main() -> None:
    """Run the command line; what medgan refuses, or the system refuses it, becomes one red line and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    if sys.argv[1:] == ["--version"]:
        from medgan import __version__

        typer.echo(f"medgan {__version__}")
        return
    # Imports make objects by the hundred thousand: to look them through again and again, and once more at the end, when
    # the system takes all memory back at once, is a sixth of the time of a short command.
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)
    try:
        app()
    except (MedganError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        typer.secho(f"Error: {' '.join(_told(error).split())}", fg=typer.colors.RED, err=True)
        sys.exit(1)


def _told(error: Exception) -> str:
    if isinstance(error, OSError):  # at a path that no function could even look at
        return f"{error.filename or 'the system'}: {error.strerror or error}; check the path and its permissions"
    return str(error)
