"""Fingerprints of images, each made once: kept in the cache under the identity of the files."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medgan.atomic import replacing
from medgan.cache import FINGERPRINT, code_digest, open_store
from medgan.errors import OutputError
from medgan.formats import read
from medgan.leaks.looks import Look, is_map, look_of
from medgan.volume import Volume

__all__ = ["Fingerprint", "fingerprint", "voxel_hash"]

FORMAT = 3


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """By what an image is known again.

    Args:
        voxels: as `voxel_hash` has it.
        look: its edges, see `look_of`; None if it has none to compare.
        is_blank: whether all its voxels are equal.
    """

    voxels: str
    look: Look | None
    is_blank: bool = False


def fingerprint(path: Path, size_mm: float) -> Fingerprint:
    """The fingerprint of an image, from the cache where its files have not been touched since.

    Raises:
        InputError: if the image cannot be read.
    """
    folder = open_store().folder
    if folder is None:
        return _made(read(path), size_mm)
    place = folder / f"{_key(path, size_mm)}{FINGERPRINT}"
    if (kept := _kept(place)) is not None:
        return kept
    made = _made(read(path), size_mm)
    with suppress(OutputError, OSError):  # a full or locked cache costs time, nothing else
        _keep(place, made)
    return made


def voxel_hash(volume: Volume) -> str:
    """SHA-256 of the values in RAS order, in whatever format; "" of one value alone and of maps of labels.

    Small structures make equal maps of different people.
    """
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(volume.reorient("RAS").array, dtype=np.float32)
    if array.min() == array.max() or is_map(array):
        return ""
    digest = hashlib.sha256(f"{array.shape}".encode())
    digest.update(array.data)
    return digest.hexdigest()


def _made(volume: Volume, size_mm: float) -> Fingerprint:
    voxels = voxel_hash(volume)
    is_blank = not voxels and bool(volume.array.min() == volume.array.max())
    return Fingerprint(voxels, look_of(volume, size_mm) if voxels else None, is_blank)


def _key(path: Path, size_mm: float) -> str:
    """Of the files where they are, and the code that reads them: also a change that keeps size and date moves the last
    change of a file.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    seen = [(str(file.resolve()), *_touched(file)) for file in files]
    return hashlib.sha256(json.dumps([FORMAT, code_digest(), size_mm, seen]).encode()).hexdigest()


def _touched(file: Path) -> tuple[int, int, int]:
    seen = file.stat()
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def _kept(place: Path) -> Fingerprint | None:
    try:
        with np.load(place, allow_pickle=False) as held:
            look = np.asarray(held["look"], np.int8)
            found = Fingerprint(str(held["voxels"]), look if look.size else None, bool(held["is_blank"]))
        os.utime(place)
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
        return None
    return found


def _keep(place: Path, made: Fingerprint) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(place) as temporary:
        temporary.touch(mode=0o600)
        with temporary.open("wb") as stream:
            look = np.empty(0) if made.look is None else made.look
            np.savez_compressed(stream, voxels=made.voxels, look=look, is_blank=made.is_blank)
