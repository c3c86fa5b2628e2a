"""What can be asked of an archive, in whatever language it is asked, and where it can be had to send."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from medgan.formats.pacs.outbox import Parcel, Sent
from medgan.formats.pacs.query import Found, Query

__all__ = ["Archive", "Closed", "Keep", "Receiver", "Taken"]

Keep = Callable[[bytes], object]
"""Takes one instance as a whole file; raises InputError if it is not wanted, OutputError if it cannot be kept."""
Taken = Callable[[bytes, int], object]
"""Likewise, with a number of the sender."""
Closed = Callable[[int, bool], None]
"""Hears that a sender hung up: released as agreed (True), or cut off."""


@dataclass(frozen=True)
class Receiver:
    """Where others may send to.

    Args:
        aet: what we are called; senders must use this name.
        port: TCP port; 0 for a free one.
        host: the address of ours that listens; this machine alone by default.
        allow: AE titles of those who may send; anybody if empty.
    """

    aet: str
    port: int
    host: str = "127.0.0.1"
    allow: tuple[str, ...] = ()


class Archive(Protocol):
    """A PACS, over DIMSE or DICOMweb."""

    def find(self, query: Query) -> list[Found]:
        """The series that fit."""

    def instances(self, found: Found) -> dict[str, str]:
        """SOP class by SOPInstanceUID of a series; empty where the archive does not tell."""

    def fetch(self, found: Found, classes: Collection[str], keep: Keep) -> str:
        """Have the archive send a series, each instance in its own transfer syntax; "" or what went wrong."""

    def store(self, parcels: Sequence[Parcel], *, decompress: bool) -> Iterator[Sent]:
        """Send files, one after another, and tell what became of each."""
