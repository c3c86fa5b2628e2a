"""What the linter says, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["SEVERITIES", "Checks", "Complaint", "Found", "Severity", "rule_name"]

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
# What a rule finds: a line that tells it, and the files that it is about, where these are not all that it was shown.
Found = Iterator[tuple[str, Sequence[Path]]]
# The rules of one kind by their severity; each is a function whose name is the rule's.
Checks = Mapping[Severity, tuple[Callable[..., Any], ...]]


@dataclass(frozen=True)
class Complaint:
    """One thing that is wrong, in one or many files of a series.

    Args:
        rule: the name to look up in docs/how-to/lint.md, such as `stale-window`.
        severity: an `error` breaks the standard or misleads, a `warning` is probably wrong, a `note` is odd.
        message: what was seen and what is right; names attributes and files, never values that identify a person.
        series: SeriesInstanceUID; "" where the complaint is about several series or about a file that names none.
        files: where it was seen.
    """

    rule: str
    severity: Severity
    message: str
    series: str
    files: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        plain = {"rule": self.rule, "severity": self.severity, "message": self.message, "series": self.series}
        return {**plain, "files": [str(path) for path in self.files]}


def rule_name(check: Callable[..., Any]) -> str:
    """The name of the rule that a function is.

    Example:
        >>> def stale_window(): ...
        >>> rule_name(stale_window)
        'stale-window'
    """
    return check.__name__.replace("_", "-")
