"""Whether DICOM files say the truth about what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan.errors import InputError
from medgan.formats.dicom.lint import Complaint, lint_files
from medgan.progress import track

__all__ = ["Verdict", "lint"]


@dataclass(frozen=True)
class Verdict:
    """What the linter says of all files below a path.

    Args:
        root: the path.
        num_files: DICOM files that were judged.
        complaints: what is wrong, by series, errors first.
    """

    root: Path
    num_files: int
    complaints: tuple[Complaint, ...]

    @property
    def exit_code(self) -> int:
        """1 if there is an error, 3 if there are warnings only, 0 if there are at most notes."""
        severities = {one.severity for one in self.complaints}
        return 1 if "error" in severities else 3 if "warning" in severities else 0

    def to_json(self) -> list[dict[str, Any]]:
        """The complaints as plain values."""
        return [one.to_json() for one in self.complaints]

    def describe(self) -> str:
        """Lines for people: the complaints of each series, and how many there are."""
        return "\n".join([*self._lines(), self._summary()])

    def _lines(self) -> Iterator[str]:
        series = None
        for one in self.complaints:
            if one.series != series:
                series = one.series
                yield f"series {series}" if series else "all series"
            yield f"  {one.severity:7} {one.rule}: {one.message} ({self._files(one.files)})"

    def _files(self, files: Sequence[Path]) -> str:
        names = [
            path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name for path in files
        ]
        first = names[0] if names[0] != "." else self.root.name
        return first if len(names) == 1 else f"{len(names)} files, first {first}"

    def _summary(self) -> str:
        counts = Counter(one.severity for one in self.complaints)
        told = ", ".join(
            f"{counts[one]} {one}s" if counts[one] != 1 else f"1 {one}" for one in ("error", "warning", "note")
        )
        return f"{self.num_files} DICOM files: {told}"


def lint(path: Path, *, source: Path | None = None) -> Verdict:
    """Judge all DICOM files below a path, one by one, series by series and all together.

    Args:
        path: a file or a folder.
        source: a file or folder of the series that the judged ones were made from: patient, study, frame of reference,
            places and references are compared. Without it, sources are looked for below `path`.

    Raises:
        InputError: if there is no such path, or it holds no DICOM.
    """
    files, sources = _files(Path(path)), _files(Path(source)) if source is not None else []
    num_files, complaints = lint_files(track(files, "lint"), source_files=sources)
    if not num_files:
        raise InputError(f"{path}: holds no DICOM file; give a DICOM file or a folder with some")
    return Verdict(Path(path), num_files, tuple(complaints))


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path}: does not exist; give a DICOM file or a folder with some")
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
