"""A pair prepared: CPU seconds of each step, peak memory, and how fast a prepared cohort is read again.

    python tools/bench/prepare.py [--shape 256 256 180] [--spacing 1] [--rounds 3] [--work FOLDER] [--mask body]

The pair is a phantom head, MR with a bias field and noise, CT 9 mm off and turned by 6°, both float32 in .nii.gz. It is
prepared by N4, rigid registration, a body mask, background, crop and clip, without deformable registration, each time
by a fresh process on one thread: its CPU seconds with all imports, and its peak memory, that of a process that only
imports the same taken off. "of the volumes" is that memory over both images in float32. As many processes more are
watched by a profiler for the CPU seconds of their steps; told are medians.

Then the cases are read as the first epoch of a training reads them (`medgan.read` of each image of the table), beside
their bytes alone and their bytes unpacked, from files that have left the cache of the system.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np
from interleaved import forgotten, machine
from scipy import ndimage
from scipy.spatial.transform import Rotation

import medgan
from medgan import Grid, Volume
from medgan.cases import Case, read_cases, write_cases
from medgan.formats.packed import opened
from medgan.phantom.scan import head
from medgan.tables import columns

PLAN = """
images:
  a: {modality: MR, bias_field: true, background: 0}
  b: {modality: CT, unit: HU, background: -1000, clip: [-1024, 3071]}
registration: {kind: rigid}
mask: {MASK}
crop_mm: 10
"""
MASKS = {"body": "{source: body, of: b}", "brain": "{source: brain, of: a}"}
COARSE_MM = 4.0
ALONE = "import medgan.prepare, SimpleITK"
PREPARES = "import sys; from medgan.prepare import prepare; done = prepare(*sys.argv[1:3], out=sys.argv[3]); "
PREPARES += "assert done.exit_code == 0, done"
# getrusage's peak would be the parent's, where that is higher.
MEASURED = "; import json, resource; r = resource.getrusage(resource.RUSAGE_SELF); "
MEASURED += "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')); "
MEASURED += "print(json.dumps([r.ru_utime + r.ru_stime, 1024 * int(peak.split()[1])]))"
PROFILED = "import sys, time, cProfile, json, pstats; from medgan.prepare import prepare; watch = cProfile.Profile("
PROFILED += "time.process_time); watch.runcall(lambda: prepare(*sys.argv[1:3], out=sys.argv[3])); seen = pstats.Stats("
PROFILED += "watch).stats; print(json.dumps([[file, name, took[3]] for (file, _, name), took in seen.items()]))"
STEPS = {
    "hash of the files": ("prepare/records.py", "_sha256"),
    "reading": ("formats/__init__.py", "read"),
    "registration": ("registration/__init__.py", "lay"),
    "second look at it": ("prepare/verify.py", "verified"),
    "resampling": ("prepare/way.py", "resample"),
    "N4": ("medgan/bias.py", "corrected"),
    "mask": ("prepare/way.py", "find_mask"),
    "background to air": ("prepare/way.py", "clear_background"),
    "pictures": ("prepare/picture.py", "_rows"),
    "writing": ("prepare/records.py", "write_case"),
}


def make(work: Path, shape: tuple[int, int, int], spacing: float) -> Path:
    """The table of one pair; the head is made coarsely and made finer by interpolation, with noise of its own."""
    rng, extent = np.random.default_rng(0), np.array(shape) * spacing
    coarse = Grid.regular((extent / COARSE_MM).astype(int), spacing_mm=(COARSE_MM,) * 3, origin_mm=-extent / 2)
    scanned = head(1, grid=coarse)
    turned = Rotation.from_euler("xyz", [3, -2, 5], degrees=True).as_matrix()
    places = {"a": np.eye(4), "b": np.eye(4)}
    places["b"][:3, :3], places["b"][:3, 3] = turned, [6, -5, 4]
    images = {}
    for role, volume, sigma in (("a", scanned.mr, 8), ("b", scanned.ct, 10)):
        fine = ndimage.zoom(volume.array.astype(np.float32), np.array(shape) / coarse.shape, order=1)
        if role == "a":
            x = np.linspace(-1, 1, shape[0])[:, None, None]
            fine *= (1 + 0.3 * x).astype(np.float32)
        fine += rng.normal(0, sigma, shape).astype(np.float32)
        fine = np.abs(fine) if role == "a" else fine  # a magnitude, as MR is
        grid = Grid(shape, places[role] @ Grid.regular(shape, spacing_mm=(spacing,) * 3, origin_mm=-extent / 2).affine)
        images[role] = medgan.write(Volume(fine, grid, volume.unit, volume.modality), work / f"{role}.nii.gz")
    return write_cases([Case("p1", "p1", "train", images)], work / "cases.csv")


def told(code: str, *arguments: object) -> Any:
    """What a process of its own, on one thread, prints as its last line of JSON."""
    one_thread = {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    argv = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=os.environ | one_thread)
    return json.loads(done.stdout.splitlines()[-1])


def fresh(code: str, *arguments: object) -> tuple[float, float]:
    """CPU seconds and peak bytes of a process of its own."""
    cpu, peak = told(code + MEASURED, *arguments)
    return cpu, peak


def steps(table: Path, plan: Path, out: Path) -> dict[str, float]:
    """CPU seconds of each step of one preparation."""
    shutil.rmtree(out, ignore_errors=True)
    seen = told(PROFILED, table, plan, out)
    return {
        step: next(took for path, called, took in seen if path.endswith(file) and called == name)
        for step, (file, name) in STEPS.items()
    }


def unpacked(file: Path) -> None:
    with opened(file) as stream:
        while stream.read(1 << 20):
            pass


def timed(read: Callable[[Path], object], files: list[Path]) -> float:
    """Seconds by the clock for all files, from the disk."""
    forgotten(files)
    begun = time.perf_counter()
    for file in files:
        read(file)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 256, 180])
    parser.add_argument("--spacing", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--mask", choices=MASKS, default="body")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp())
    table = make(work, tuple(args.shape), args.spacing)
    (work / "plan.yaml").write_text(PLAN.replace("{MASK}", MASKS[args.mask]))
    print(machine())
    both = 2 * 4 * float(np.prod(args.shape))
    idle = fresh(ALONE)[1]
    rows = [["round", "CPU s", "peak MB", "of the volumes", "with imports"]]
    for number in range(args.rounds):
        shutil.rmtree(work / f"out{number}", ignore_errors=True)  # of an earlier measurement, which would be kept
        cpu, peak = fresh(PREPARES, table, work / "plan.yaml", work / f"out{number}")
        rows.append(
            [str(number), f"{cpu:.1f}", f"{peak / 1e6:.0f}", f"{(peak - idle) / both:.2f}", f"{peak / both:.2f}"]
        )
    print(columns(rows), "\n")
    parts = [steps(table, work / "plan.yaml", work / "profiled") for _ in range(args.rounds)]
    print(columns([["step", "CPU s"], *([step, f"{median(one[step] for one in parts):.1f}"] for step in STEPS)]), "\n")
    made = read_cases(work / "out0" / "cases.csv", required=())
    files = [path for case in made for path in case.images.values()]
    ways: dict[str, Callable[[Path], object]] = {
        "bytes": lambda file: file.read_bytes(),
        "bytes, unpacked": unpacked,
        "medgan.read": medgan.read,
        "nibabel": lambda file: np.asarray(nib.load(file).dataobj),
    }
    seconds = {name: median(timed(way, files) for _ in range(args.rounds)) for name, way in ways.items()}
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    table_of = [["read from disk", "s", "MB/s packed"]]
    table_of += [[name, f"{took:.2f}", f"{megabytes / took:.0f}"] for name, took in seconds.items()]
    print(columns(table_of))


if __name__ == "__main__":
    main()
