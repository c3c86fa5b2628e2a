"""A folder of cases evaluated: how much of the time is reading, and how much is computing.

    python tools/bench/evaluation.py [--cases 100] [--shape 256 256 128] [--processes 2] [--rounds 3]
                                     [--preset synthrad2023] [--dtype float32] [--work FOLDER]

Cases are .nii.gz pairs of a noisy phantom with masks around its body. Ways run in turn, and before each the files leave
the cache of the system, so that they come from the disk: their bytes alone; the volumes (`medgan.read`); the same by
nibabel; `medgan.evaluate` with its tables, which also hashes the files. All share the cases among as many processes.
Seconds are those of the whole folder, by the clock and of all processors; "of reading" is by how much the evaluation
takes longer than reading the volumes: below 2, reading is the larger part of it.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
from interleaved import forgotten, machine

import medgan
from medgan import Grid, Volume
from medgan.evaluate import evaluate
from medgan.processes import copies
from medgan.tables import columns

PARTS = ("pred", "ref", "mask")
DISTINCT = 4  # pairs that are made; further cases are copies in files of their own
SPACING_MM = (1.0, 1.0, 2.5)


def make(work: Path, cases: int, shape: tuple[int, int, int], dtype: str) -> None:
    """Cases p000, p001 … in the folders pred, ref and mask."""
    made = [work / part / f"p{n:03d}.nii.gz" for n in range(cases) for part in PARTS]
    for n, path in enumerate(made):
        path.parent.mkdir(parents=True, exist_ok=True)
        original = made[n % (DISTINCT * len(PARTS))]
        if path != original:
            shutil.copyfile(original, path)
        elif n % len(PARTS) == 0:
            for file, volume in zip(made[n:], _case(n, shape, dtype), strict=False):
                medgan.write(volume, _in(file))


def _in(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _case(seed: int, shape: tuple[int, int, int], dtype: str) -> tuple[Volume, Volume, Volume]:
    """Prediction, reference and mask."""
    rng, grid = np.random.default_rng(seed), Grid.regular(shape, spacing_mm=SPACING_MM)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij", sparse=True)
    radius = np.sqrt((x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.95) ** 2)
    body = np.where(radius > 1, -1000, 40 + 60 * np.sin(9 * x) * np.cos(7 * y) + 25 * np.sin(13 * z))
    real, made = (np.asfortranarray((body + rng.normal(0, sigma, shape)).astype(dtype)) for sigma in (15, 30))
    inside = np.asfortranarray((radius <= 1.05).astype(np.uint8))
    return Volume(made, grid, unit="HU"), Volume(real, grid, unit="HU"), Volume(inside, grid, unit="label")


def all_bytes(file: Path) -> int:
    return len(file.read_bytes())


def by_medgan(file: Path) -> int:
    return medgan.read(file).array.size


def by_nibabel(file: Path) -> int:
    return np.asarray(nib.load(file).dataobj).size


def read_all(files: Sequence[Path], processes: int, one: Callable[[Path], int]) -> None:
    forgotten(files)
    with copies(processes, "reads") as over:
        for _ in over(one, files):
            pass


def evaluated(work: Path, files: Sequence[Path], processes: int, preset: str) -> None:
    forgotten(files)
    pred, ref, mask = (work / part for part in PARTS)
    with tempfile.TemporaryDirectory(dir=work) as out:
        evaluate(pred, ref, mask=mask, preset=preset, processes=processes, out=Path(out) / "results")


def spent(way: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of all processors, helpers included."""
    clock, cpu = time.perf_counter(), _cpu_seconds()
    way()
    return time.perf_counter() - clock, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    of = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in of)


def table(taken: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Medians, and ratios to reading volumes, round by round."""
    rows = [["", "clock s", "of reading", "CPU s", "of reading"]]
    for name, pairs in taken.items():
        row = [name]
        for kind in range(2):
            ratios = [one[kind] / other[kind] for one, other in zip(pairs, taken["medgan.read"], strict=True)]
            row += [f"{median(pair[kind] for pair in pairs):.3g}", f"{median(ratios):.2f}"]
        rows.append(row)
    return columns(rows)


def main() -> None:
    """Make the cases, time the ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 128))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="synthrad2023")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    with ExitStack() as stack:
        work = asked.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make(work, asked.cases, tuple(asked.shape), asked.dtype)
        files = sorted(work.glob("*/*.nii.gz"))
        size = sum(file.stat().st_size for file in files)
        ways = {
            "bytes": partial(read_all, files, asked.processes, all_bytes),
            "medgan.read": partial(read_all, files, asked.processes, by_medgan),
            "nibabel": partial(read_all, files, asked.processes, by_nibabel),
            f"evaluate, {asked.preset}": partial(evaluated, work, files, asked.processes, asked.preset),
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, way in ways.items():
                taken[name].append(spent(way))
    print(f"{machine()}, {asked.processes} processes, {asked.cases} cases, {size / 1e9:.2f} GB in files")
    print(table(taken))


if __name__ == "__main__":
    main()
