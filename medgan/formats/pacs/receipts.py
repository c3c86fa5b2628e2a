"""What was made of a study: so that what comes late is known, and what was made can be traced. UIDs, no names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

__all__ = ["Answer", "Receipt", "earlier_images"]


@dataclass
class Answer:
    """What became of the files of one SeriesInstanceUID, which may be several series.

    Args:
        made: SOPInstanceUIDs of each derived series, by its folder.
        refused: why others could not be made.
        passed_over: what is not translated.
    """

    made: dict[str, list[str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


@dataclass
class Receipt:
    """What was made of a study.

    Args:
        weights_sha256: of the run.
        sources: names of the images (UIDs) that came of each series that was looked at, now and earlier.
        made: SOPInstanceUIDs of each derived series, by its folder.
        refused: why, by series.
        repeated: series of which nothing new came.
        passed_over: what the run does not translate.
    """

    weights_sha256: str = ""
    sources: dict[str, list[str]] = field(default_factory=dict)
    made: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    @property
    def why_refused(self) -> str:
        """A line a series."""
        return "\n".join(f"{name}: {why}" for name, why in self.refused.items())

    def add(self, series: str, images: Iterable[str], answer: Answer) -> None:
        """Note what became of a series; what the run does not translate leaves no trace but its kind."""
        self.made |= {f"{series}/{name}": uids for name, uids in answer.made.items()}
        self.passed_over += answer.passed_over
        if answer.refused:
            self.refused[series] = "; ".join(answer.refused)
        if answer.made or answer.refused:
            self.sources[series] = sorted(images)

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(vars(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """What was written; keys that others added are passed over."""
        told: dict[str, Any] = json.loads(path.read_text())
        return cls(**{key: told[key] for key in vars(cls())})


def earlier_images(receipts: Iterable[Path]) -> dict[str, set[str]]:
    """Names of all images of each series that some receipts tell of."""
    images: dict[str, set[str]] = {}
    for receipt in receipts:
        for series, names in Receipt.read(receipt).sources.items():
            images.setdefault(series, set()).update(names)
    return images
