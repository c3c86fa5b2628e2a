"""The command line run in this process, and a run folder to run it on: what a user types and sees, without the wait."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch

from medgan.cli import main
from medgan.config import load
from medgan.models import build
from medgan.run import Run, start_run

# What Python shows to users who did not ask for more.
SILENT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


@dataclass(frozen=True)
class Done:
    """What a command left behind: its exit code, what it printed, and the warnings that users would have seen."""

    code: int
    out: str
    err: str
    warned: tuple[str, ...] = ()

    @property
    def error(self) -> str:
        """The last line on standard error."""
        return (self.err.splitlines() or [""])[-1]


def medgan(*argv: object) -> Done:
    """Run `medgan ARGV…` as the shell would; only what `main` lets escape is raised here."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["medgan", *map(str, argv)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(record=True) as seen,
    ):
        warnings.simplefilter("default")
        for category in SILENT:
            warnings.simplefilter("ignore", category)
        code = _exit_code()
    return Done(code, out.getvalue(), err.getvalue(), tuple(str(warning.message) for warning in seen))


def _exit_code() -> int:
    try:
        main()
    except SystemExit as leave:
        return 0 if leave.code is None else int(leave.code)
    return 0


def untrained_run(path: Path, config: Path, *overrides: str) -> Run:
    """A whole run folder around random weights, large enough that images come out of them; in no time."""
    settings = load(config, overrides)
    run = start_run(path, settings)
    torch.manual_seed(0)
    game = build(settings.model, in_channels=1, out_channels=1, spatial_dims=settings.spatial_dims)
    for weights in game.generators.parameters():
        if weights.ndim > 1:
            torch.nn.init.kaiming_normal_(weights)
    run.save_weights(game.generators.state_dict(), {"step": 1, "mae": 1.0, "psnr": 1.0, "ssim": 1.0})
    return run


def tree(folder: Path) -> dict[str, bytes | str]:
    """All that is in a folder, links by their target, files by their bytes."""
    return {path.relative_to(folder).as_posix(): _content(path) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> bytes | str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return "folder" if path.is_dir() else path.read_bytes()
