"""gzip, the fast way.

Written by ISA-L at its level 2: six times as fast as zlib at level 4, for files that are some 13 % larger. Neither
time nor name are in the file, so that the same image gives the same file; which bytes they are is up to the version
of ISA-L and the kind of processor.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from isal import igzip as _reading
from isal import igzip_threaded as _writing
from isal import isal_zlib

__all__ = ["LONGEST_REASON", "MAX_RATIO", "PACKING_DAMAGE", "is_gzip", "opened", "packing", "unpacked"]

MAX_RATIO = 1040  # no byte of a deflate stream becomes more
PACKING_DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, cast(Any, isal_zlib.error))
LONGEST_REASON = 300  # letters of a message that quotes a damaged file
_GZIP = b"\x1f\x8b"
_LEVEL = 2
_BLOCK = 1 << 20
_THREADS = min(4, os.cpu_count() or 1)
_igzip: Any = _reading
_igzip_threaded: Any = _writing


def is_gzip(path: Path) -> bool:
    """True if a file starts as gzip does."""
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed if they start as gzip does."""
    if is_gzip(path):
        with _igzip.open(path, "rb") as stream:
            yield cast(BinaryIO, stream)
    else:
        with path.open("rb") as plain:
            yield plain


def unpacked(stream: BinaryIO) -> BinaryIO:
    """The decompressed bytes of a stream that stands where gzip starts."""
    return cast(BinaryIO, _igzip.GzipFile(fileobj=stream, mode="rb"))


@contextmanager
def packing(stream: BinaryIO) -> Iterator[BinaryIO]:
    """A stream that compresses into another one, by threads of its own; their number does not change the bytes."""
    with _igzip_threaded.open(stream, "wb", compresslevel=_LEVEL, threads=_THREADS, block_size=_BLOCK) as packed:
        yield cast(BinaryIO, packed)
