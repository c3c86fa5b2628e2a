"""DICOM to .nii.gz: medgan beside dcm2niix, dicom2nifti and SimpleITK, timed in turn.

    python tools/bench/dicom_in.py [--rounds 5] [--series FOLDER]... [--python PYTHON]

Two series are made: 680 files of 80 × 80 (an fMRI: 20 volumes of 34 slices, headers of some 200 elements as scanners
write them) and 54 CT slices of 512 × 512 with noise; `--series` adds folders of real ones. A call reads all files and
writes one .nii.gz. medgan and the other Python packages run warm, in this process; medgan also as the command that
users type, imports included (`--python` names the interpreter of an environment in which medgan is installed as users
have it, without what developers need beside it); dcm2niix is its binary. The first way is the baseline: a ratio below 1
means that medgan is faster than the other way. CPU seconds are those of all threads and children. Memory is the peak of
a fresh process above what it holds once its imports are done, over the bytes of the volume (float32 where a volume is
resampled).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dcm2niix
import dicom2nifti
import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK
from dicom2nifti import settings as dicom2nifti_settings
from interleaved import Way, machine, table
from pydicom import Dataset
from scipy import ndimage

from medgan.convert import convert
from medgan.tables import columns

sys.path.append(str(Path(__file__).parents[2] / "tests"))

from dicom_folders import make_slices, save

Array = npt.NDArray[np.uint16]
IN_CHILD = """
import resource, sys
{imports}
held = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
{call}
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("BYTES", int(peak.split()[1]) * 1024 - held)
"""
# Through a small process: what a forked child reports begins with what its parent held.
OF_CHILD = """
import resource, subprocess
subprocess.run({words!r}, check=True, stdout=subprocess.DEVNULL)
print("BYTES", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


# --- series -----------------------------------------------------------------------------------------------------------


def fmri(folder: Path) -> Path:
    """680 files: the same head 20 times, with noise."""
    rng = np.random.default_rng(0)
    head = 900 * ball((34, 80, 80)) * (1 + 0.2 * texture((34, 80, 80), rng))
    for volume in range(20):
        pixels = (head + rng.rayleigh(20, head.shape)).astype(np.uint16)
        slices = make_slices(pixels, spacing=(3, 3), gap=3.5, TemporalPositionIdentifier=volume + 1)
        for n, one in enumerate(slices):
            one.InstanceNumber = 34 * volume + n + 1
            one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
            scanner_header(one)
        save(slices, folder, pattern=f"{volume:02d}_{{:03d}}.dcm")
    return folder


def ct(folder: Path) -> Path:
    """54 slices of a head in air, with the noise of a CT."""
    rng = np.random.default_rng(1)
    shape = (54, 512, 512)
    hu = np.where(ball(shape) > 0, 1060 + 40 * texture(shape, rng), 24)
    hu = np.clip(hu + rng.normal(0, 12, shape), 0, 4095).astype(np.uint16)
    slices = make_slices(hu, modality="CT", spacing=(0.48, 0.48), gap=2.5)
    for one in slices:
        one.BitsStored, one.HighBit = 12, 11
        scanner_header(one)
    return save(slices, folder)


def scanner_header(one: Dataset) -> None:
    """Elements of no meaning here, as many and as long as a scanner's."""
    block = one.private_block(0x0019, "SOME SCANNER", create=True)
    for n in range(120):
        block.add_new(n + 1, "LO" if n % 2 else "DS", f"value {n}" if n % 2 else f"{n / 7:.6f}")
    referenced = [Dataset(), Dataset()]
    for n, item in enumerate(referenced):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", f"1.2.3.{n}"
    one.ReferencedImageSequence = referenced
    one.private_block(0x0029, "SOME SCANNER", create=True).add_new(0x10, "OB", bytes(range(256)) * 24)


def ball(shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    return np.asarray((places**2).sum(0) < 0.8, np.float64)


def texture(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    coarse = ndimage.gaussian_filter(rng.standard_normal([max(side // 4, 2) for side in shape]), 1.5)
    grown = ndimage.zoom(coarse, [side / small for side, small in zip(shape, coarse.shape, strict=True)], order=1)
    return np.asarray(grown / grown.std())


# --- ways -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One series, and a folder that each way writes into anew."""

    source: Path
    out: Path
    python: str = sys.executable

    def fresh(self) -> Path:
        shutil.rmtree(self.out, ignore_errors=True)
        return self.out

    def by_medgan(self) -> None:
        convert(self.source, self.fresh())

    def by_command(self) -> None:
        run([self.python, "-m", "medgan", "convert", str(self.source), str(self.fresh())], good={0, 3})

    def by_dcm2niix(self) -> None:
        self.fresh().mkdir()
        run([dcm2niix.bin, "-z", "y", "-b", "n", "-o", str(self.out), str(self.source)])

    def by_dicom2nifti(self) -> None:
        self.fresh().mkdir()
        for check in ("orthogonal", "slice_increment"):  # else it refuses a tilt
            getattr(dicom2nifti_settings, f"disable_validate_{check}")()
        with silent():
            dicom2nifti.dicom_series_to_nifti(str(self.source), str(self.out / "x.nii.gz"), reorient_nifti=False)

    def by_simpleitk(self) -> None:
        self.fresh().mkdir()
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(self.source)))
        SimpleITK.WriteImage(reader.Execute(), str(self.out / "x.nii.gz"))


def run(words: Sequence[str], good: frozenset[int] | set[int] = frozenset({0})) -> None:
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode in good, done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def ways(job: Job) -> dict[str, Way]:
    return {
        "medgan, warm": job.by_medgan,
        "medgan, as a command": job.by_command,
        "dcm2niix": job.by_dcm2niix,
        "dicom2nifti, warm": job.by_dicom2nifti,
        "SimpleITK, warm": job.by_simpleitk,
    }


# --- measuring --------------------------------------------------------------------------------------------------------


def spent(way: Way) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    began, used = time.perf_counter(), cpu_seconds()
    way()
    return time.perf_counter() - began, cpu_seconds() - used


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(those: Mapping[str, Way], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Wall and CPU seconds by way, in rounds after one that is not counted."""
    wall: dict[str, list[float]] = {name: [] for name in those}
    cpu: dict[str, list[float]] = {name: [] for name in those}
    for n in range(rounds + 1):
        for name, way in those.items():
            seconds, used = spent(way)
            if n:
                wall[name].append(seconds)
                cpu[name].append(used)
    return wall, cpu


def without_failing(those: Mapping[str, Way]) -> dict[str, Way]:
    """Those ways that can do it at all; the others are told."""
    able: dict[str, Way] = {}
    for name, way in those.items():
        try:
            way()
        except Exception as error:  # a converter says no by raising what it likes
            print(f"{name}: refuses ({type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''})")
            continue
        able[name] = way
    return able


def memory(job: Job, able: Mapping[str, Way]) -> list[list[str]]:
    """Peak bytes of a fresh process over the volume's, by way; dcm2niix's is all that it holds."""
    rows = [["", "peak MiB", "× volume", "output MiB"]]
    paths = f"{str(job.source)!r}, {str(job.out)!r}"
    job_of = f"from pathlib import Path; import dicom_in; job = dicom_in.Job(*map(Path, ({paths})))"
    children = {"medgan, warm": "by_medgan", "dicom2nifti, warm": "by_dicom2nifti", "SimpleITK, warm": "by_simpleitk"}
    for name in able:
        if name == "medgan, as a command":
            continue
        if name in children:
            peak = peak_of_python(IN_CHILD.format(imports=job_of, call=f"job.{children[name]}()"))
        else:
            peak = peak_of_dcm2niix(job)
        files = list(job.out.rglob("*.nii.gz"))
        volume = max(held_bytes(path) for path in files)
        size = sum(path.stat().st_size for path in files)
        rows.append([name, f"{peak / 2**20:.0f}", f"{peak / volume:.2f}", f"{size / 2**20:.1f}"])
    return rows


def peak_of_python(code: str) -> int:
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=where)
    return int(done.stdout.split("BYTES")[1])


def peak_of_dcm2niix(job: Job) -> int:
    job.fresh().mkdir()
    words = [dcm2niix.bin, "-z", "y", "-b", "n", "-o", str(job.out), str(job.source)]
    return peak_of_python(OF_CHILD.format(words=words))


def held_bytes(path: Path) -> int:
    image = nibabel.load(path)
    return int(np.prod(image.shape) * image.get_data_dtype().itemsize)


def compare(name: str, job: Job, rounds: int) -> None:
    print(f"\n{name}: milliseconds; ratio: medgan's time over that of each way")
    able = without_failing(ways(job))
    wall, cpu = timed(able, rounds)
    print(table(wall))
    print("\nthe command over dcm2niix, in rounds of these two alone:")
    alone, _ = timed({"medgan, as a command": job.by_command, "dcm2niix": job.by_dcm2niix}, rounds)
    print(table(alone))
    print("\nof CPU:")
    print(table(cpu))
    print("\nmemory:")
    print(columns(memory(job, able)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--series", type=Path, action="append", default=[], help="a real one; repeatable")
    parser.add_argument("--python", default=sys.executable, help="that runs the command")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        made: dict[str, Callable[[Path], Path]] = {"680 files of 80 × 80": fmri, "54 CT slices of 512 × 512": ct}
        for n, (name, make) in enumerate(made.items()):
            compare(name, Job(make(place / f"{n}"), place / "out", options.python), options.rounds)
        for source in options.series:
            compare(source.name, Job(source, place / "out", options.python), options.rounds)


if __name__ == "__main__":
    main()
