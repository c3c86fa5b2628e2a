"""Gamma of two dose grids: medgan beside pymedphys, CPU seconds, in turn.

    python tools/bench/gamma.py [--rounds 3] [--shape 128 128 64] [--fraction 10] [--shift 1]

The dose is two crossed beams in 2.5 × 2.5 × 3 mm voxels, the evaluated one displaced by `--shift` mm, 1 % higher and
with noise of 0.5 %; cutoff 10 %, greatest gamma 2. pymedphys interpolates by SciPy (its own way needs numba, and is not
timed here) and samples `--fraction` steps to the distance criterion. "Above" is by how much its gamma exceeds that of
medgan, which is proved to be the minimum to 0.0001. CPU seconds are those of all threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pymedphys
from interleaved import machine

from medgan.metrics.gamma import gamma, gamma_pass_rate
from medgan.tables import columns

Array = npt.NDArray[np.float64]
Way = Callable[[], Array]
SPACING_MM = (2.5, 2.5, 3.0)


def beams(shape: tuple[int, ...], shift_mm: float) -> Array:
    """Gy."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, SPACING_MM, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    edges = [n * s / 4 for n, s in zip(shape, SPACING_MM, strict=True)]
    across = 1 / (1 + np.exp((abs(x - shift_mm) - edges[0]) / 3))
    along = 1 / (1 + np.exp((abs(y) - edges[1]) / 4))
    return np.asarray((40 * across + 20 * along) / (1 + np.exp((abs(z) - edges[2]) / 3)) * (1 + 0.1 * np.sin(y / 40)))


def cpu_seconds(way: Way) -> tuple[float, Array]:
    """Of one call, and what it returned."""
    began = time.process_time()
    found = way()
    return time.process_time() - began, found


def main() -> None:
    """A table for 3 %/3 mm and 2 %/2 mm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=3, default=(128, 128, 64))
    parser.add_argument("--fraction", type=int, default=10)
    parser.add_argument("--shift", type=float, default=1.0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    ref = beams(tuple(asked.shape), 0)
    noise = np.random.default_rng(0).normal(0, 0.3, ref.shape)
    evaluated = np.maximum(1.01 * beams(tuple(asked.shape), asked.shift) + noise, 0)
    rows = [["", "voxels", "medgan s", "pymedphys s", "ratio", "above, mean", "max", "pass %", "pymedphys %"]]
    for percent in (3.0, 2.0):
        ways = _ways(evaluated, ref, percent, asked.fraction)
        rows.append([f"{percent:g} %/{percent:g} mm", *_figures(*ways, asked.rounds)])
    print(f"{machine()}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '')}\n{columns(rows)}")


def _ways(evaluated: Array, ref: Array, percent: float, fraction: int) -> tuple[Way, Way]:
    axes = tuple(np.arange(n) * s for n, s in zip(ref.shape, SPACING_MM, strict=True))
    theirs: dict[str, Any] = {"lower_percent_dose_cutoff": 10, "interp_fraction": fraction, "interp_algo": "scipy"}

    def ours() -> Array:
        return gamma(evaluated, ref, spacing_mm=SPACING_MM, dose_percent=percent, distance_mm=percent)

    def sampled() -> Array:
        return np.asarray(pymedphys.gamma(axes, ref, axes, evaluated, percent, percent, max_gamma=2, **theirs))

    return ours, sampled


def _figures(ours: Way, theirs: Way, rounds: int) -> list[str]:
    taken = []
    for _ in range(rounds):
        (own_s, found), (their_s, sampled) = cpu_seconds(ours), cpu_seconds(theirs)
        taken.append((own_s, their_s, their_s / own_s))
    above = (sampled - found)[~np.isnan(found)]
    times = [f"{statistics.median(column):.3g}" for column in zip(*taken, strict=True)]
    rates = [f"{gamma_pass_rate(gammas):.3f}" for gammas in (found, sampled)]
    return [str(above.size), *times, f"{above.mean():.4f}", f"{above.max():.4f}", *rates]


if __name__ == "__main__":
    main()
