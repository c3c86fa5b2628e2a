"""A process that translates, apart from the service: a damaged file may bring it down without harm."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from medgan.errors import MedganError, OutputError, RunError
from medgan.formats.dicom import Series, find_series
from medgan.formats.pacs import settle_uids
from medgan.formats.pacs.receipts import Answer
from medgan.processes import follow_parent

if TYPE_CHECKING:
    from medgan.run import Run

__all__ = ["Facts", "Worker"]

_STDERR = "stderr.txt"


@dataclass(frozen=True)
class Facts:
    """What the service has to know of a run.

    Args:
        weights_sha256: of its weights.
        modality: of its source.
        required: roles of the sources that it cannot do without.
    """

    weights_sha256: str
    modality: str
    required: tuple[str, ...] = ("a",)


class Worker:
    """A run at work in a process of its own, which alone holds the network; started again if it falls.

    Args:
        run: the run folder.
        device: `auto`, `cpu` or `cuda`.
        work: a folder for what lasts as long as a translation; emptied at each.

    Raises:
        RunError: if the run cannot be used.
    """

    facts: Facts

    def __init__(self, run: Path, device: str, work: Path) -> None:
        self._run, self._device, self._work = run, device, work
        self._process: BaseProcess | None = None
        self._line: Connection | None = self._start()

    def translate(self, source: Path, out: Path) -> Answer:
        """Translate what fits the run of the files of one SeriesInstanceUID.

        Args:
            source: their folder.
            out: gets a folder of each derived series.

        Raises:
            OutputError: if it cannot be written now, or the run cannot be used now.
            RunError: if the run cannot be loaded.
        """
        _empty(self._work, but=_STDERR)
        line = self._line or self._start()
        try:
            line.send((str(source), str(out)))
            answer: Answer | None = line.recv()
        except (EOFError, OSError):
            shutil.rmtree(out, ignore_errors=True)  # a series that was made before it fell has no lasting UIDs yet
            return Answer(refused=[self._obituary()])
        finally:
            _empty(self._work, but=_STDERR)
        if answer is None:
            raise OutputError(f"{out}: cannot be written, or the run cannot be used; look at both")
        return answer

    def close(self) -> None:
        """Stop it, whatever it is doing."""
        if self._process is not None and self._line is not None:
            self._process.kill()
            self._process.join()
            self._line.close()
        self._process = self._line = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        job = (theirs, str(self._run), str(self._work), self._device)
        self._process, self._line = context.Process(target=_work, args=job, daemon=True), ours
        self._process.start()
        theirs.close()
        try:
            told: Facts | MedganError = ours.recv()
        except (EOFError, OSError):
            raise RunError(f"{self._run}: cannot be loaded; {self._obituary()}") from None
        if isinstance(told, MedganError):
            self.close()
            raise told
        self.facts = told
        return ours

    def _obituary(self) -> str:
        if self._process is not None:
            self._process.join()
        code = self._process.exitcode if self._process is not None else None
        lines = (self._work / _STDERR).read_text(errors="replace").splitlines()
        self.close()
        return f"the translation crashed (exit code {code}): {lines[-1] if lines else 'no message'}"


def _work(line: Connection, run: str, work: str, device: str) -> None:
    """The process: silent, since a traceback may name a person, and gone when the service is."""
    sys.stderr = (Path(work) / _STDERR).open("w", buffering=1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    follow_parent()
    from medgan.run import open_run

    try:
        opened = open_run(Path(run))
        prep = opened.config.prep
        line.send(Facts(opened.weights_sha256, prep.a.modality, prep.required))
    except MedganError as error:
        line.send(error)
        return
    while True:
        source, out = line.recv()
        try:
            line.send(_answer(opened, Path(source), Path(out), Path(work), device))
        except (OutputError, RunError, OSError):
            line.send(None)


def _answer(run: Run, source: Path, out: Path, work: Path, device: str) -> Answer:
    answer = Answer()
    for number, series in enumerate(find_series(source)):
        made = out / f"{number:03d}"
        if series.synthetic or series.modality != run.config.prep.a.modality:
            answer.passed_over.append(f"{series.modality}{' synthetic' if series.synthetic else ''}")
        elif series.is_localizer:
            answer.passed_over.append(f"{series.modality} localizer")
        elif why := _translated(run, _linked(series, work / made.name), made, device):
            answer.refused.append(why)
        else:
            images = sorted(file.stem for file in series.files)
            answer.made[made.name] = settle_uids(made, run.weights_sha256, made.name, *images)
    return answer


def _translated(run: Run, source: Path, out: Path, device: str) -> str:
    """Nothing, or why it cannot be done; what is not the series' fault is raised."""
    from medgan.translate import translate

    try:
        translate(run, source, out, device=device)
    except (OutputError, RunError):
        raise
    except MedganError as error:
        return str(error)
    return ""


def _linked(series: Series, folder: Path) -> Path:
    """A folder of this series alone: others may share its SeriesInstanceUID."""
    folder.mkdir()
    for file in series.files:
        (folder / file.name).hardlink_to(file)
    return folder


def _empty(folder: Path, but: str = "") -> None:
    for path in folder.iterdir():
        if path.name != but:
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
