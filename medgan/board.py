"""Curves and pictures for TensorBoard, on the disk as soon as they are logged.

TensorBoard's own writer does it later, in a thread, whose errors (a full disk) nobody can catch.
"""

from __future__ import annotations

import io
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image, scalar

from medgan.errors import OutputError

__all__ = ["Board"]


class Board:
    """An event file in a folder; what an older one there says of steps after `step` is void.

    Raises:
        OutputError: here and in the methods, if it cannot be written.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path = Path(folder) / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
        self._write(file_version="brain.Event:2")
        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def curve(self, name: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._write(step=step, summary=scalar(name, value))  # type: ignore[no-untyped-call]

    def picture(self, name: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        """A picture, (height, width, 3)."""
        self._write(step=step, summary=image(name, pixels, dataformats="HWC"))  # type: ignore[no-untyped-call]

    def _write(self, **content: Any) -> None:
        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **content).SerializeToString())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(record.getvalue())
        except OSError as error:
            told = f"cannot be written ({error.strerror}); make room and run the same command again"
            raise OutputError(f"{self.path}: {told}") from error
