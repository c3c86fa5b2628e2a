"""Nothing is half written: a file or folder appears under its name only when it is whole."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medgan.errors import OutputError

__all__ = ["refuse_full_folder", "replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path`, to be written as a file or made as a folder; it takes its name on success.

    A file replaces an older one. A folder replaces nothing but an empty folder that is no mount point.

    Raises:
        OutputError: if the place cannot be written, is full, is a mount point, or is a folder with something in it.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "new" / "note.txt"
        >>> with replacing(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    place = path.absolute()  # `.` has no name of its own
    # The suffix stays last: writers choose the format by it.
    temporary = place.parent / f".{uuid.uuid4().hex[:8]}.part.{place.name}"
    try:
        refuse_full_folder(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.EBUSY and path.is_dir():
            raise _mounted(path) from error
        raise OutputError(f"{_final(path)}: cannot be written ({_reason(error)}); choose another place") from error
    finally:
        _remove(temporary)


def _final(path: Path) -> str:
    """The name under which people will know it, also inside a folder that is temporary itself."""
    return re.sub(r"\.[0-9a-f]{8}\.part\.", "", str(path))


def _reason(error: OSError) -> str:
    """What the system said; pydicom raises it anew with a traceback for a message."""
    if error.strerror is None and isinstance(error.__cause__, OSError):
        return _reason(error.__cause__)
    return error.strerror or str(error)


def refuse_full_folder(path: Path) -> None:
    """What `replacing` would refuse after the work, refused before it.

    Raises:
        OutputError: if `path` is a folder with something in it, or a mount point, such as a volume of a container.
    """
    if path.is_dir() and any(path.iterdir()):
        raise OutputError(f"{path}: is a folder with something in it; name a new or empty one")
    if path.is_dir() and os.path.ismount(path):
        raise _mounted(path)


def _mounted(path: Path) -> OutputError:
    return OutputError(
        f"{path}: is a mount point, and what is written appears whole by taking its place; name a folder inside it"
    )


def _remove(path: Path) -> None:
    """Quietly: an error here would hide the one for which it is removed."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()
