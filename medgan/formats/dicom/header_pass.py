"""One pass over files: what the header of each says of its pictures, told without reading their pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medgan.formats.dicom.alike import Seen, header_of_plain
from medgan.formats.dicom.elements import DAMAGE, looks_like_dicom, name_of, number, open_dicom, quietly, text
from medgan.formats.dicom.frames import pictures
from medgan.formats.dicom.headers import Header, header_of
from medgan.formats.dicom.mosaic import is_mosaic
from medgan.processes import copies
from medgan.progress import track

__all__ = ["read_headers"]

_AT_ONCE = 170  # files that one process takes, which say much the same
_MANY = 2000  # for fewer, the processes cost what they save
_MOST_PROCESSES = 16
_SUFFIXES = {".dcm", ".ima"}  # an empty file of such a name is a slice that has not arrived
_PLAIN = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian}


def read_headers(files: Sequence[Path]) -> list[Header]:
    """What files say of their pictures, in their order; nothing of those that are no DICOM images.

    Thousands of files are read by several processes, where the system can start them safely.
    """
    blocks = [files[begin : begin + _AT_ONCE] for begin in range(0, len(files), _AT_ONCE)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    count = min(2 * cores, _MOST_PROCESSES) if cores > 1 and len(files) >= _MANY else 1  # half wait for the disk
    with copies(count, f"reads the headers of {len(files)} files") as over:
        read = over(_of_files, blocks)
        label = f"Reading headers, {_AT_ONCE} files at a time"
        shown = track(read, label, len(blocks)) if len(files) >= _MANY else read
        return [header for headers in shown for header in headers]


def _of_files(files: Sequence[Path]) -> list[Header]:
    seen = Seen()
    return [header for path in files for header in _of_file(path, seen)]


def _of_file(path: Path, seen: Seen) -> list[Header]:
    try:
        with path.open("rb") as file, quietly():
            start = file.read(132)
            if not start and path.suffix.lower() in _SUFFIXES:
                return [Header(path, damage="is empty")]
            if not looks_like_dicom(start):
                return [Header(path, stray=True)] if path.suffix.lower() in _SUFFIXES else []
            header = header_of_plain(path, file, seen)
            return _parsed(path, file) if header is None else [header]
    except OSError as error:
        return [Header(path, damage=f"cannot be read ({error.strerror or error})")]


def _parsed(path: Path, file: BinaryIO) -> list[Header]:
    series = ""
    file.seek(0)
    try:
        dataset = open_dicom(file, pixels=False)
        series = text(dataset, "SeriesInstanceUID")
        if "SOPClassUID" not in dataset and "Modality" not in dataset:
            return _without_class(path, file, dataset)
        if "Rows" not in dataset or "Columns" not in dataset:
            return _without_matrix(path, dataset)
        truncated, is_tiled = _is_truncated(file, dataset), is_mosaic(dataset)
        return [header_of(path, dataset, picture, truncated, is_tiled) for picture in pictures(dataset)]
    except DAMAGE as error:
        return [Header(path, series_uid=series, damage=f"its header is damaged ({type(error).__name__})")]


def _without_class(path: Path, file: BinaryIO, dataset: Dataset) -> list[Header]:
    file.seek(128)
    if file.read(4) != b"DICM" or "DirectoryRecordSequence" in dataset:
        return []
    return [Header(path, damage="its header is cut off")]


def _without_matrix(path: Path, dataset: Dataset) -> list[Header]:
    """Reports, plans and states have no matrix; a header of an image class without one has lost it."""
    if "Image Storage" not in name_of(text(dataset, "SOPClassUID")):
        return []
    return [Header(path, series_uid=text(dataset, "SeriesInstanceUID"), damage="its header is cut off")]


def _is_truncated(file: BinaryIO, dataset: Dataset) -> bool:
    """True if the rest of the file is too short for its pixels; compressed ones are of any length but none."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        return False
    here = file.tell()
    held = file.seek(0, 2) - here
    counts = [int(number(dataset, key) or 1) for key in ("NumberOfFrames", "SamplesPerPixel", "Rows", "Columns")]
    needed = 0 if syntax not in _PLAIN else (math.prod(counts) * int(number(dataset, "BitsAllocated") or 16) + 7) // 8
    return held < 8 + needed
