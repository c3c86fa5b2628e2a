"""Memory that a translation of a large scan takes beyond the scan itself; the net does nothing.

python tools/bench/large_volume.py [--size 512 512 600]
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from medgan import Grid, Volume
from medgan.prep import Intensity, from_network, to_network
from medgan.sliding import predict

CT = Intensity(modality="CT", unit="HU", range=(-1024, 2000))


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=[512, 512, 600])
    size = tuple(parser.parse_args().size)
    array = np.zeros(size, dtype=np.int16)
    array[...] = np.arange(size[2], dtype=np.int16)
    scan = Volume(array, Grid.regular(size), "HU", "CT")
    before, began = peak_gib(), time.perf_counter()
    x = to_network(scan, CT)
    y = predict(torch.nn.Identity(), x, patch=(256, 256, 1), overlap=0.25)
    made = from_network(y, scan, CT)
    apart = float(np.abs(made.array[::8, ::8] - array[::8, ::8]).max())
    seconds = time.perf_counter() - began
    print(f"{size}: {peak_gib() - before:.2f} GiB beyond the scan of {array.nbytes / 2**30:.2f} GiB, {seconds:.0f} s")
    print(f"largest difference {apart:.1e} HU")


if __name__ == "__main__":
    main()
