"""Memory that a translation of a large scan takes beyond the scan itself, in every mode; the net does nothing.

python tools/bench/large_volume.py [--size 512 512 600] [--modes plain cycle]

prints the figures of docs/benchmarks/speed.md. Each mode has a process of its own, whose largest resident size counts;
what it held before the translation (PyTorch, the scan) is taken off.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from medgan import Grid, Volume
from medgan.config import Config
from medgan.ensemble import Ensemble, Member
from medgan.models.base import Translator
from medgan.run import Run
from medgan.tables import columns
from medgan.uncertainty import Sampling

CT = {"modality": "CT", "unit": "HU", "range": [-1024, 2000]}
COARSER, FINER = (1.1, 1.1, 1.1), (0.95, 0.95, 0.95)  # than the scan, mm

ONCE, THREE, FLIPS = Sampling(), Sampling(3, "dropout"), Sampling(3, "flips")


@dataclass(frozen=True)
class Mode:
    """A way to translate.

    Args:
        spacing_mm: that the net sees; None for that of the scan.
        sampling: the passes.
        cycle: whether the way back is gone, too.
    """

    spacing_mm: tuple[float, float, float] | None = None
    sampling: Sampling = ONCE
    cycle: bool = False


MODES = {
    "plain": Mode(),
    "samples": Mode(sampling=THREE),
    "flips": Mode(sampling=FLIPS),
    "cycle": Mode(cycle=True),
    "coarser": Mode(COARSER),
    "coarser-samples": Mode(COARSER, THREE),
    "coarser-flips-cycle": Mode(COARSER, FLIPS, cycle=True),
    "finer": Mode(FINER),
    "finer-samples": Mode(FINER, THREE),
    "finer-flips-cycle": Mode(FINER, FLIPS, cycle=True),
}


class Idle(nn.Module):
    """A translator that gives back what it is given; it has dropout to ask for and drops nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.generators = nn.ModuleDict({"b": nn.Dropout(0.5), "a": nn.Identity()})

    def translate(self, x: Tensor, to: str = "b") -> Tensor:  # noqa: ARG002 (both ways are one)
        return x


@dataclass(frozen=True)
class Spent:
    """What a translation took.

    Args:
        beyond_gib: memory beyond the scan, GiB.
        scan_gib: the scan itself.
        seconds: of time.
        apart: largest difference of the image from the scan, HU.
    """

    beyond_gib: float
    scan_gib: float
    seconds: float
    apart: float


def peak_gib() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def scan_of(size: Sequence[int]) -> Volume:
    """As a DICOM series is read: int16, slice after slice in memory, rows to the left and towards the back."""
    array = np.zeros(tuple(reversed(size)), dtype=np.int16).T
    array[...] = np.arange(size[2], dtype=np.int16)
    return Volume(array, Grid.regular(size, direction=np.diag([-1, -1, 1])), "HU", "CT")


def translate(mode: Mode, size: Sequence[int], folder: Path) -> Spent:
    """Memory and time of one translation in this process."""
    torch.set_num_threads(1)
    scan, ensemble = scan_of(size), _ensemble(mode, size, folder)
    before, began = peak_gib(), time.perf_counter()
    made, _ = ensemble.translate({"a": scan})
    spent, seconds = peak_gib() - before, time.perf_counter() - began
    apart = float(np.abs(made.array[::8, ::8] - scan.array[::8, ::8]).max())
    return Spent(spent, scan.array.nbytes / 2**30, seconds, apart)


def _ensemble(mode: Mode, size: Sequence[int], folder: Path) -> Ensemble:
    prep = {"a": CT, "b": CT, "spacing_mm": mode.spacing_mm}
    patch = [size[0] // 2, size[1] // 2, 1]  # less than what any mode leaves of the scan, so that nothing is padded
    values = {"cases": "none.csv", "patch": patch, "prep": prep, "model": {"name": "cyclegan"}}
    augment = {"flip_axes": [0, 1], "gamma": 0, "noise": 0}
    run = Run(folder, Config.parse(values | {"augment": augment, "overlap": 0.25}))
    run.save_weights({"none": torch.zeros(1)}, {})
    how = {"to": "b", "device": torch.device("cpu"), "batch": 8, "overlap": None}
    member = Member.of(run, **how, game=cast(Translator, Idle()))
    return Ensemble((member,), mode.sampling, mode.cycle)


def in_own_process(name: str, size: Sequence[int], folder: Path) -> Spent:
    """`translate` in a copy of this process, which begins with what this one holds and has no older peak."""
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(its, name, size, folder))
    process.start()
    its.close()
    try:
        return cast(Spent, ours.recv())
    finally:
        process.join()


def _send(pipe: Connection, name: str, size: Sequence[int], folder: Path) -> None:
    pipe.send(translate(MODES[name], size, folder))


def table(names: Sequence[str], size: Sequence[int]) -> str:
    """A row a mode."""
    rows = [["mode", "GiB beyond the scan", "of a float32 image", "seconds", "HU apart"]]
    image_gib = np.prod(size) * 4 / 2**30
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            spent = in_own_process(name, size, Path(folder))
            times = f"{spent.beyond_gib / image_gib:.2f}"
            rows.append([name, f"{spent.beyond_gib:.2f}", times, f"{spent.seconds:.0f}", f"{spent.apart:.1e}"])
    return columns(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=[512, 512, 600])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    asked = parser.parse_args()
    print(table(asked.modes, asked.size))


if __name__ == "__main__":
    main()
