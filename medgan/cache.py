"""Prepared volumes on disk, so that each is prepared once: kept under a hash of all that they come from.

A training reads the same scans again whenever it starts: to go on, or with other settings. What the network sees of
them is kept in a folder of the user, one file a case, and mapped into memory from there: what a patch does not touch is
not read, and runs side by side share one copy.

```
MEDGAN_CACHE      the folder, or `off`; without it the place where the system keeps such things
MEDGAN_CACHE_GIB  its size, 20 if not given; what was not used for longest makes room
```

The files hold images of patients. The folder is for its owner alone, and `medgan cache --clear` empties it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from medgan.atomic import replacing
from medgan.errors import ConfigError, InputError, OutputError
from medgan.formats.sidecar import sidecar_path
from medgan.progress import say

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FINGERPRINT", "Cached", "Entry", "Store", "cache", "code_digest", "digest", "key_of", "open_store"]

FORMAT = 1
GIB = 2**30
LIMIT_GIB = 20.0
OFF = ("off", "0", "no", "false")
SUFFIX = ".safetensors"
FINGERPRINT = ".npz"  # of an image, see `medgan.leaks`
ABANDONED_S = 24 * 3600  # after which a half-written file has no writer any more
BEGAN = time.time()
CHUNK = 2**20
PREPARING = ("prep.py", "resample.py", "scans.py", "kept.py", "volume.py", "formats/**/*.py")


@dataclass(frozen=True)
class Entry:
    """What is kept of a case: arrays, and facts about them as plain values."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Cached:
    """What lies in the cache.

    Args:
        folder: where; None if it is switched off.
        entries: prepared cases.
        size_bytes: of all of them.
        limit_bytes: that they may take.
        removed: prepared cases that were there and are not any more.
    """

    folder: Path | None
    entries: int
    size_bytes: int
    limit_bytes: int
    removed: int = 0


def cache(*, clear: bool = False) -> Cached:
    """Tell where prepared volumes are kept and how much there is.

    Args:
        clear: delete all of them first. A training that runs keeps what it has.

    Raises:
        ConfigError: if MEDGAN_CACHE_GIB is no size.
        OutputError: if a file cannot be deleted.
    """
    store = open_store()
    entries = store.entries()
    for path in [*entries, *store.abandoned(0)] if clear else []:
        _delete(path)
    left = store.entries()
    return Cached(
        store.folder, _prepared(left), sum(left.values()), store.limit_bytes, _prepared(entries) - _prepared(left)
    )


def _prepared(entries: Mapping[Path, int]) -> int:
    return sum(path.suffix == SUFFIX for path in entries)


def open_store() -> Store:
    """The cache that the environment asks for.

    Raises:
        ConfigError: if MEDGAN_CACHE_GIB is no size.
    """
    wanted, size = os.environ.get("MEDGAN_CACHE", ""), os.environ.get("MEDGAN_CACHE_GIB", str(LIMIT_GIB))
    try:
        limit = float(size) * GIB
    except ValueError:
        limit = -1
    if not 0 <= limit < float("inf"):
        raise ConfigError(f"MEDGAN_CACHE_GIB: {size!r} is no size; give GiB such as 20, or MEDGAN_CACHE=off for none")
    if wanted.lower() in OFF:
        return Store(None, 0)
    return Store(Path(wanted) if wanted else _usual_folder(), int(limit))


def _usual_folder() -> Path | None:
    """Where the system keeps what can be made again; None for a user without a home."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "medgan" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "medgan"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "medgan"


class Store:
    """A folder of entries, one file each; several trainings may use it at once.

    Args:
        folder: where; None keeps nothing.
        limit_bytes: what `trim` leaves.

    Attributes:
        is_open: whether what is made can be kept.
        added: how many entries were, of which `trim` tells.
    """

    def __init__(self, folder: Path | None, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self.is_open, self.added = folder is not None, 0

    def recall(self, key: str, make: Callable[[], Entry]) -> Entry:
        """What is kept under the key, mapped into memory; made, and kept, where there is nothing or it is damaged."""
        if self.folder is None:
            return make()
        path = self.folder / f"{key}{SUFFIX}"
        if (kept := _read(path, key)) is not None:
            return kept
        made = make()
        if self.is_open:
            self._keep(path, key, made)
        return (_read(path, key) if self.is_open else None) or made

    def put(self, key: str, make: Callable[[], Entry]) -> bool:
        """Make an entry for later, unless it is there or cannot be kept; tells whether it was."""
        if self.folder is None or not self.is_open or (path := self.folder / f"{key}{SUFFIX}").is_file():
            return False
        self._keep(path, key, make())
        return self.is_open

    def _keep(self, path: Path, key: str, entry: Entry) -> None:
        """Write an entry; where that fails, say so once and do without."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(path) as temporary:
                _write(temporary, key, entry)
            self.added += 1
        except (OutputError, OSError, SafetensorError) as error:
            say(f"Prepared volumes stay in memory: {error}")
            self.is_open = False

    def trim(self) -> None:
        """Delete what was not used for longest until the rest is within the limit; what this process uses stays."""
        if self.added:
            say(f"Prepared cases kept in {self.folder}: {self.added} more; `medgan cache --clear` deletes them")
        for path in self.abandoned(ABANDONED_S):
            with suppress(OSError):
                path.unlink()
        entries = self.entries()
        total = sum(entries.values())
        for path, size in sorted(entries.items(), key=lambda item: _used_last(item[0])):
            if total <= self.limit_bytes or _used_last(path) >= BEGAN:
                return
            with suppress(OSError):
                path.unlink()
            total -= size

    def entries(self) -> dict[Path, int]:
        """The files, fingerprints among them, and their sizes in bytes."""
        files = [] if self.folder is None else [*self.folder.glob(f"*{SUFFIX}"), *self.folder.glob(f"*{FINGERPRINT}")]
        found = [path for path in files if _is_key(path.stem)]
        return {path: size for path in found if (size := _size(path)) is not None}

    def abandoned(self, age_s: float) -> list[Path]:
        """Files that a writer left behind when it was killed, so many seconds ago."""
        parts = [] if self.folder is None else self.folder.glob(".*.part.*")
        return [path for path in parts if time.time() - _used_last(path) >= age_s]


def key_of(facts: Mapping[str, Any]) -> str:
    """The key of what is made from these plain values: whatever the result depends on has to be among them.

    Example:
        >>> key_of({"spacing_mm": 1, "axes": "RAS"}) == key_of({"axes": "RAS", "spacing_mm": 1})
        True
    """
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def digest(path: Path) -> str:
    """A hash of all that reading a scan depends on: the bytes of its files, whatever they are called and wherever.

    Args:
        path: a NIfTI file (with its header file and its JSON file), a DICOM file, or the folder of a series.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        found = sorted(_hash(file) for file in _files(Path(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (file for file in path.rglob("*") if file.is_file())
        return
    yield path
    yield from (other for other in (sidecar_path(path), *_partners(path)) if other != path and other.is_file())


def _partners(path: Path) -> list[Path]:
    """The other half of a NIfTI image in two files."""
    name = path.name.removesuffix(".gz")
    stem, _, kind = name.rpartition(".")
    other = {"img": "hdr", "hdr": "img"}.get(kind.lower())
    return [path.with_name(f"{stem}.{other}{end}") for end in ("", ".gz")] if other else []


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache
def code_digest() -> str:
    """A hash of the code that prepares volumes, medgan's own and versions of others': other code, other keys."""
    home = Path(__file__).parent
    sources = [file.read_bytes() for pattern in PREPARING for file in sorted(home.glob(pattern))]
    versions = [version(name).encode() for name in ("numpy", "scipy", "scikit-image")]
    return hashlib.sha256(b"\n".join([*versions, *sources])).hexdigest()


# --- one entry --------------------------------------------------------------------------------------------------------


def _write(path: Path, key: str, entry: Entry) -> None:
    from safetensors.torch import save_file  # torch takes seconds to import, and not all that look here need it

    tensors = {name: tensor.contiguous() for name, tensor in entry.tensors.items()}
    told = {"key": key, "facts": entry.facts, "crc32": {name: _crc32(tensor) for name, tensor in tensors.items()}}
    path.touch(mode=0o600)
    save_file(tensors, path, metadata={"medgan": json.dumps(told)})
    path.chmod(0o600)


def _read(path: Path, key: str) -> Entry | None:
    """The entry of a file, or None if it is not there, damaged, or another's."""
    try:
        _fetch(path)
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["medgan"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - is no dict
        whole = told["key"] == key and told["crc32"] == {name: _crc32(tensor) for name, tensor in tensors.items()}
        now = time.time()
        os.utime(path, (now, now))
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, RuntimeError):
        return None
    return Entry(tensors, told["facts"]) if whole else None


def _fetch(path: Path) -> None:
    """Bring a file into the memory of the system in one go: page by page, as it is touched, a disk is far slower."""
    block = bytearray(CHUNK)
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass


def _crc32(tensor: Tensor) -> int:
    """Of the bytes, part by part, so that a large tensor need not be in memory at once."""
    import torch

    flat = tensor.flatten().view(torch.uint8).numpy().data
    value = 0
    for start in range(0, len(flat), CHUNK):
        value = zlib.crc32(flat[start : start + CHUNK], value)
    return value


def _is_key(name: str) -> bool:
    return len(name) == 64 and not set(name) - set("0123456789abcdef")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # another training has just removed it
        return None


def _used_last(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be deleted ({error.strerror}); delete it by hand") from error
