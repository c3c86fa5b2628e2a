"""What a training tells of itself: lines in metrics.jsonl, curves and pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.board import Board
from medgan.processes import is_first
from medgan.run import AnyRun

__all__ = ["Journal"]


class Journal:
    """The journal of a run, of which the lines after `step` are void; of several processes the first one writes it.

    Raises:
        OutputError: here and in the methods, if it cannot be written.
    """

    def __init__(self, run: AnyRun, *, step: int) -> None:
        self.run, self.board = run, None
        if is_first():
            run.forget_after(step)
            self.board = Board(run.path / "tb", step=step)

    def lines(self) -> list[dict[str, Any]]:
        """All lines so far."""
        return self.run.metrics()

    def write(self, step: int, **content: Any) -> None:
        """A line; numbers in dicts, such as `loss={"G_L1": 3.1}`, become points of curves, such as `loss/G_L1`."""
        if self.board is None:
            return
        self.run.log({"step": step, **content})
        for kind, values in content.items():
            for name, value in values.items() if isinstance(values, Mapping) else ():
                if value is not None:
                    self.board.curve(f"{kind}/{name}", value, step)

    def picture(self, name: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        """A picture, (height, width, 3)."""
        if self.board is not None:
            self.board.picture(name, pixels, step)
