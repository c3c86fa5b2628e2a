"""The pass over the headers of a large folder: by one process and by several, from memory and from the disk.

    python tools/bench/header_pass.py [--copies 15] [--rounds 5]

The folder holds copies of an fMRI of 680 files with headers of some 200 elements. "From the disk" means that the system
was asked to forget the files before; it may keep some, and the disk may remember them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from dicom_in import fmri
from interleaved import machine, table

from medgan.formats.dicom import header_pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        files = copied(Path(folder), options.copies)
        print(f"{len(files)} files; ratio: the time of several processes over that of one")
        for name, before in {"from memory": touch, "from the disk": forget}.items():
            taken: dict[str, list[float]] = {"several processes": [], "one process": []}
            for _, (way, seconds) in product(range(options.rounds), taken.items()):
                for file in files:
                    before(file)
                seconds.append(spent(files, len(files) + 1 if way == "one process" else 0))
            print(f"\n{name}\n{table(taken)}")


def copied(folder: Path, copies: int) -> list[Path]:
    first = fmri(folder / "0")
    for n in range(1, copies):
        shutil.copytree(first, folder / str(n))
    os.sync()
    return sorted(file for file in folder.rglob("*") if file.is_file())


def spent(files: Sequence[Path], many: int) -> float:
    """Seconds, where so many files are enough for several processes."""
    header_pass._MANY = many
    began = time.perf_counter()
    assert len(header_pass.read_headers(files)) == len(files)
    return time.perf_counter() - began


def touch(file: Path) -> None:
    file.read_bytes()


def forget(file: Path) -> None:
    with file.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
