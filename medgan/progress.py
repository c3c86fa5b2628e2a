"""Progress of long work, on standard error: a bar for people, a line now and then for log files.

Of processes that share a job the first one speaks for all.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from medgan.processes import is_first

__all__ = ["say", "track"]

T = TypeVar("T")
LOG_EVERY_S = 10.0


def say(line: str) -> None:
    """One line of news on standard error."""
    if not is_first():
        return
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show how far along they are."""
    total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
    return _bar(items, label, total) if sys.stderr.isatty() and is_first() else _log(items, label, total)


def _bar(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track as rich_track

    return iter(rich_track(items, description=label, total=total, console=Console(stderr=True), transient=True))


def _log(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    begun = last = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > LOG_EVERY_S:
            last = time.monotonic()
            say(f"{label}: {number}" + (f" of {total}{_left(last - begun, number, total)}" if total else ""))


def _left(passed_s: float, number: int, total: int) -> str:
    """How long it will take at this pace.

    Example:
        >>> _left(90, 3, 9)
        ', about 3 min left'
    """
    left_s = passed_s / number * (total - number)
    return f", about {left_s / 60:.0f} min left" if left_s > 90 else f", about {left_s:.0f} s left" if left_s else ""
