"""The trainings of a utility study, one a line of a file, so that a study goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medgan.atomic import replacing
from medgan.augment.arms import Job
from medgan.augment.tasks import Outcomes
from medgan.errors import InputError, OutputError

__all__ = ["Row", "RowFile"]


@dataclass(frozen=True, eq=False)
class Row:
    """What one training came to.

    Args:
        job: which.
        scores: on all images that it was tried on, by name.
        seconds: it took.
        outcome: (N, K) of each image, as the task tells.
    """

    job: Job
    scores: Mapping[str, float]
    seconds: float
    outcome: Outcomes

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes the same to the bit."""
        outcome = [[float(f"{value:.9g}") for value in values] for values in self.outcome.tolist()]
        return {**asdict(self.job), "scores": dict(self.scores), "seconds": self.seconds, "outcome": outcome}

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Row:
        """The row of a line."""
        job = Job(line["arm"], line["ratio"], line["fraction"], line["seed"])
        return cls(job, line["scores"], line["seconds"], np.array(line["outcome"], np.float32))


class RowFile:
    """A JSONL file: a line that says of which study it is, and a line a training.

    Args:
        path: of the file, which is made if it is not there; a last line that a kill cut short is dropped.
        study: fingerprint of the study.

    Attributes:
        rows: that the file held.

    Raises:
        InputError: if it holds rows of another study, or something else.
        OutputError: if it cannot be written.
    """

    def __init__(self, path: Path, study: str) -> None:
        self.path = path
        lines = _lines(path)
        if lines and lines[0].get("study") != study:
            raise InputError(
                f"{path}: holds the rows of another study (other images, task, steps or classic augmentation); "
                "name another file"
            )
        try:
            self.rows = [Row.from_json(line) for line in lines[1:]]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: is damaged ({error!r} in a row); mend it or delete it") from None
        with replacing(path) as temporary:
            whole = [{"study": study}, *(row.to_json() for row in self.rows)]
            temporary.write_text("".join(json.dumps(line) + "\n" for line in whole), encoding="utf-8")

    def add(self, row: Row) -> None:
        """Append a line."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row.to_json()) + "\n")
        except OSError as error:
            told = f"cannot be written ({error.strerror}); make room and run the same command again"
            raise OutputError(f"{self.path}: {told}") from None


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); name another file") from None
    if text and not (lines and all(isinstance(line, dict) for line in lines)):
        raise InputError(f"{path}: holds something else than the rows of a study; name another file")
    return lines
