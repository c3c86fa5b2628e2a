"""gzip by zlib and by ISA-L: seconds and size of what `convert` writes, level by level.

    python tools/bench/packing.py VOLUME.nii.gz [--rounds 5]

The voxels of the file are packed in turn by each way, on one core; sizes are per cent of the raw bytes.
"""

from __future__ import annotations

import argparse
import statistics
import zlib
from functools import partial
from pathlib import Path

from interleaved import rounds
from isal import isal_zlib

from medgan import read
from medgan.tables import columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    raw = read(options.volume).array.tobytes(order="F")
    ways = {f"zlib {level}": partial(zlib.compress, raw, level) for level in (1, 4, 6)}
    ways |= {f"ISA-L {level}": partial(isal_zlib.compress, raw, level) for level in range(4)}
    taken = rounds(ways, options.rounds)
    told = [
        (name, f"{statistics.median(taken[name]):.2f}", f"{100 * len(way()) / len(raw):.1f}")
        for name, way in ways.items()
    ]
    print(f"{options.volume}: {len(raw) / 1e6:.0f} MB\n{columns([('way', 'seconds', '% of raw'), *told])}")


if __name__ == "__main__":
    main()
