"""From folders to an archive: each file, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medgan.formats.pacs import Outcome, Peer, Sent, archive_at, parcels
from medgan.progress import track

__all__ = ["exit_code", "push", "sent_json", "sent_lines"]

_FINE = {Outcome.STORED, Outcome.WARNING, Outcome.DUPLICATE}
_LISTED = 8  # so many files of one fate stand in a list, the rest is counted


def push(paths: Iterable[Path | str], peer: str, *, decompress: bool = False) -> list[Sent]:
    """Send DICOM files to an archive, each in its own transfer syntax.

    Args:
        paths: files and folders, which are searched with their sub-folders; what is no DICOM there is not sent, and
            told.
        peer: `dicom://[CALLING@]AET@host:port` or `https://host/dicom-web`.
        decompress: send what is compressed, where the archive does not take that, as plain pixels.

    Returns:
        One for each file that was looked at, in order.

    Raises:
        InputError: if a path is missing, a file that is named itself is no DICOM, or the archive cannot be reached or
            refuses us.
    """
    ready, others = parcels(Path(path) for path in paths)
    if not ready:
        return others
    archive = archive_at(Peer.parse(peer))
    sent = track(archive.store(ready, decompress=decompress), "Sending", total=len(ready))
    return sorted([*others, *sent], key=lambda one: one.path)


def exit_code(sent: Sequence[Sent]) -> int:
    """0 if all is stored, 3 with warnings, 4 if some is not, 1 if nothing is, 5 if there was nothing to send."""
    outcomes = {one.outcome for one in sent}
    if outcomes <= {Outcome.SKIPPED}:
        return 5
    if outcomes == {Outcome.STORED}:
        return 0
    if not outcomes & {Outcome.REFUSED, Outcome.UNSENT}:
        return 3
    return 4 if outcomes & _FINE else 1


def sent_json(sent: Sequence[Sent]) -> list[dict[str, Any]]:
    """Plain values."""
    return [
        {"path": str(one.path), "outcome": one.outcome.value, "code": one.code, "reason": one.reason} for one in sent
    ]


def sent_lines(sent: Sequence[Sent]) -> str:
    """How many files met which fate, and of those that are not simply stored which."""
    counts = Counter(one.outcome for one in sent)
    told = ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])
    lines = [told or "nothing to send"]
    for outcome in Outcome:
        those = [one for one in sent if one.outcome is outcome and outcome is not Outcome.STORED]
        lines += [f"  {outcome.value}: {one.path}: {one.reason}" for one in those[:_LISTED]]
        lines += [f"  and {len(those) - _LISTED} more"] if len(those) > _LISTED else []
    return "\n".join(lines)
