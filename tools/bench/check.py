"""`medgan check` of one pair of 256 × 256 × 180: CPU seconds and memory beyond the two images.

    python tools/bench/check.py [--rounds 3]

A phantom of the head is drawn on a coarse grid, interpolated to 0.8 × 0.95 × 0.85 mm, given fresh noise and kept as
int16; reading files is not counted. A pair that fits badly, mirrored to begin with, takes longest and is timed too.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc

import numpy as np
from interleaved import machine

from medgan import Grid, Volume
from medgan.check import examined
from medgan.phantom import head
from medgan.resample import resample
from medgan.tables import columns

FINE = Grid.regular((256, 256, 180), spacing_mm=(0.8, 0.95, 0.85), origin_mm=(-102, -122, -85))
COARSE = Grid.regular((82, 98, 62), spacing_mm=(2.5, 2.5, 2.5), origin_mm=(-102, -122, -85))


def pair() -> tuple[Volume, Volume]:
    phantom, rng = head(5, grid=COARSE), np.random.default_rng(0)
    found = []
    for volume, noise in ((phantom.mr, 0.013 * 1000), (phantom.ct, 7.0)):
        fine = resample(volume.with_array(volume.array.astype(np.float32)), FINE)
        noisy = fine.array + noise * rng.standard_normal(FINE.shape, dtype=np.float32)
        found.append(fine.with_array(np.rint(noisy).astype(np.int16)))
    return found[0], found[1]


def cpu_seconds(a: Volume, b: Volume, rounds: int) -> str:
    times = []
    for _ in range(rounds):
        began = time.process_time()
        examined("bench", {"a": a, "b": b})
        times.append(time.process_time() - began)
    return f"{statistics.median(times):.1f} ({min(times):.1f}–{max(times):.1f})"


def peak_mib(a: Volume, b: Volume) -> float:
    """Of all arrays beyond the two images, as Python's own accounting sees them."""
    tracemalloc.start()
    examined("bench", {"a": a, "b": b})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    a, b = pair()
    rows = [["pair", "CPU s"], ["clean", cpu_seconds(a, b, rounds)]]
    rows += [["mirrored", cpu_seconds(a, b.with_array(b.array[::-1].copy()), rounds)]]
    both_mib, beyond_mib = (a.array.nbytes + b.array.nbytes) / 2**20, peak_mib(a, b)
    print(machine(), columns(rows), sep="\n\n")
    print(f"\nBoth images: {both_mib:.0f} MiB. Beyond them: {beyond_mib:.0f} MiB at most.")


if __name__ == "__main__":
    main()
