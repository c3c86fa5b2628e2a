"""A node of a hospital's DICOM network: studies in, derived series out, nothing lost or doubled by a restart.

Each study is a folder that moves from one place of the queue to the next by a rename:

    incoming/STUDY     it is arriving; every image was on the disk before its sender heard so
    ready/JOB          it is whole
    translated/JOB     its derived series, with UIDs that would be the same if they were made again; the source is gone
    sent/JOB.json      the archive has them; what was made of what, in UIDs
    refused/JOB        what cannot be translated or is not taken, with the reason in reason.txt
"""

from __future__ import annotations

import contextlib
import fcntl
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medgan.errors import InputError, OutputError, RunError
from medgan.formats.pacs import Intake, Peer, Receiver, ae_title, listening
from medgan.serve_dicom.desk import Desk, lay_out, log
from medgan.serve_dicom.worker import Worker

__all__ = ["serve_dicom"]

LOOK_EVERY_S = 0.2
_LOCAL = {"127.0.0.1", "::1", "localhost"}


def serve_dicom(
    run: Path | str,
    folder: Path | str,
    *,
    port: int,
    aet: str,
    allow: Sequence[str],
    send_to: str,
    host: str = "127.0.0.1",
    quiet_s: float = 30.0,
    device: str = "auto",
) -> None:
    """Take studies over DICOM, translate what fits a run, and send the derived series on; until SIGTERM or Ctrl-C.

    Of a study every series of the run's source modality that is no localizer and not synthetic is translated; one study
    at a time. A study of which nothing can be translated is put aside with the reason, and the service goes on. Sending
    is tried again until the archive answers. Call it from the main thread, and in a script behind
    `if __name__ == "__main__"`: the network runs in a process of its own.

    Args:
        run: a run folder, of a run that sees one source.
        folder: the queue; a service started on it again goes on where the last one was stopped, by whatever.
        port: where others send to.
        aet: our AE title; senders must use it.
        allow: AE titles of those who may send; others are rejected.
        send_to: `dicom://[CALLING@]AET@host:port` or `https://host/dicom-web`.
        host: the address that listens; this machine alone by default.
        quiet_s: seconds without a new image after which a study is whole.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        RunError: if the run cannot be used, or needs several sources.
        InputError: if an address or title is none, or the port cannot be had.
        OutputError: if the folder cannot be written, or another service is at work on it.
    """
    receiver, peer = _receiver(port, aet, allow, host), Peer.parse(send_to)
    with (
        _stoppable(),
        contextlib.suppress(KeyboardInterrupt),
        warnings.catch_warnings(action="ignore"),  # pydicom's quote what they are about
        _sole(Path(folder)) as place,
        contextlib.closing(Worker(Path(run), device, place / "work")) as worker,
    ):
        _refuse_several(Path(run), worker.facts.required)
        desk = Desk(worker, place, send_to)
        intake = Intake(desk.place("incoming"), desk.place("ready"), quiet_s)
        with listening(receiver, intake.take, intake.closed) as bound:
            log(f"listening as {receiver.aet} at {host}:{bound}; translations go to {peer}")
            _work(desk, intake)
    log("stopped")


def _receiver(port: int, aet: str, allow: Sequence[str], host: str) -> Receiver:
    if not allow:
        raise InputError("nobody may send: name the AE titles of those who may (--allow)")
    if host not in _LOCAL:
        log(f"open to other machines at {host}: DICOM is not encrypted, and AE titles are no passwords")
    return Receiver(ae_title(aet), port, host, tuple(ae_title(one) for one in allow))


def _refuse_several(run: Path, required: Sequence[str]) -> None:
    if len(required) > 1:
        raise RunError(f"{run}: needs {', '.join(required)} of a patient; a run of one source can be served")


def _work(desk: Desk, intake: Intake) -> None:
    while True:
        for job in intake.settle():
            log(f"{job.name}: {sum(1 for _ in job.rglob('*.dcm'))} images arrived")
        if not desk.step():
            time.sleep(LOOK_EVERY_S)


@contextlib.contextmanager
def _sole(folder: Path) -> Iterator[Path]:
    """The folder laid out for this service alone; the system lets go of it however the service ends."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); choose another place") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(f"{folder}: another service is at work on it; stop that one, or name another") from None
        lay_out(folder)
        yield folder


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does."""

    def stop(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
