"""Studies that others send, on disk: growing while they come, whole when they have come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock

from medgan.formats.pacs.inbox import Inbox, file_name
from medgan.progress import say

__all__ = ["CUT", "Intake", "label_of"]

CUT = ".cut"
CUT_OFF = 3  # times as long is waited for the rest of a study that was cut off
OPEN_S = 60.0  # an open line without an image for so long is idle: some senders never hang up


@dataclass
class _Growing:
    last: float
    senders: set[int] = field(default_factory=set)
    writing: int = 0
    cut_off: bool = False
    owed: set[str] = field(default_factory=set)  # images that could not be kept and have not come again

    def is_whole(self, now: float, quiet_s: float) -> bool:
        wait = CUT_OFF * quiet_s if self.cut_off or self.owed else max(quiet_s, OPEN_S) if self.senders else quiet_s
        return not self.writing and now - self.last >= wait


class Intake:
    """The studies that are arriving.

    A study is whole when no image of it has come for a quiet time and its senders have hung up. One whose sender was
    cut off, or that was arriving when the service stopped, gets three times as long for the rest. So does one of which
    images could not be kept; if they do not come again, the name of its folder ends in `.cut`.

    Args:
        incoming: folder of studies that grow, as STUDY/SERIES/INSTANCE.dcm.
        ready: folder that those move to, under a name of their own.
        quiet_s: the quiet time, seconds.
        clock: seconds from anywhere.
    """

    def __init__(
        self, incoming: Path, ready: Path, quiet_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inbox, self._ready, self._quiet_s, self._clock = Inbox(incoming), ready, quiet_s, clock
        self._lock = Lock()
        left = [folder.name for folder in incoming.iterdir() if folder.is_dir()]
        self._growing = {name: _Growing(clock(), cut_off=True) for name in left}

    def take(self, data: bytes, sender: int) -> None:
        """Keep one instance, durably: when this returns, it is ours.

        Raises:
            DicomError: if it is no instance.
            OutputError: if it cannot be written.
        """
        instance = self._inbox.opened(data)
        name = file_name(instance.study_uid)
        with self._lock:
            study = self._growing.setdefault(name, _Growing(self._clock()))
            study.writing += 1
            study.senders.add(sender)
        kept = False
        try:
            self._inbox.keep(data)
            kept = True
        finally:
            with self._lock:
                study.writing -= 1
                study.last = self._clock()
                self._note(study, name, instance.instance_uid, kept)

    def _note(self, study: _Growing, name: str, image: str, kept: bool) -> None:
        if kept:
            study.owed.discard(image)
            return
        if not study.owed:
            say(f"{label_of(name)}: images cannot be kept, and their sender is told; is the disk full?")
        study.owed.add(image)

    def closed(self, sender: int, whole: bool) -> None:
        """A sender hung up: as agreed, so that what it sent is all, or cut off."""
        with self._lock:
            for study in self._growing.values():
                if sender in study.senders:
                    study.senders.remove(sender)
                    study.last, study.cut_off = self._clock(), not whole

    def settle(self) -> list[Path]:
        """Move what is whole to the folder of what is ready, each at once; their new folders."""
        with self._lock:
            names = [name for name, study in self._growing.items() if study.is_whole(self._clock(), self._quiet_s)]
            moved = [self._moved(name) for name in names]
            return [folder for folder in moved if folder.is_dir()]

    def _moved(self, name: str) -> Path:
        ending = CUT if self._growing[name].owed else ""  # in the name, since a full disk takes no note
        folder, target = self._inbox.root / name, self._ready / f"{time.time_ns():020d}-{label_of(name)}{ending}"
        if folder.is_dir():  # nothing was kept where the disk was full
            folder.rename(target)
        del self._growing[name]
        return target


def label_of(name: str) -> str:
    """What a study is called in log lines: a hash, since a UID leads to a person."""
    return sha256(name.encode()).hexdigest()[:12]
