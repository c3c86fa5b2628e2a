"""The judge of DICOM reading: every stored frame must lie in some output volume where its own header says.

    python tests/dicom_oracle.py PATH... [--tool medgan] [--tool dcm2niix] [--list]

A frame is *found* where the nearest voxels to its pixels' centres are within 0.05 mm of them and hold its values, equal
or correlated by more than 0.99995 where a tool scales them otherwise. Positions are those of the patient, so a flip,
swapped axes or a wrong order of slices is seen. Where frames are not found, the volume may be a resampled one: then its
values, interpolated at the true place of the pixels, are compared. A slab of an output volume that no frame claims is
*invented*. All truth comes from `dicom_truth`, which knows no converter.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from dicom_tools import TOOLS, Run, Tool
from dicom_truth import Frame, Unjudgeable, frames_of
from pydicom.errors import InvalidDicomError
from scipy import ndimage

Array = npt.NDArray[Any]
NEAR_MM = 0.05
CORRELATION = 0.99995
TISSUE_HU = -500
PIXELS = 4096  # of a frame that are looked up; its corners are always among them
LOOSE = {"test_files", "data", "nibabel"}  # folders of files that have nothing to do with one another
GAP_MM = 0.05  # by which the gaps of a regular series may differ


@dataclass(frozen=True, eq=False)
class Output:
    """A NIfTI file: (X, Y, Z, T) values and RAS affine."""

    path: Path
    array: Array
    affine: Array


@dataclass(frozen=True)
class Slot:
    """Where a frame was found: a slab of one volume at one time."""

    volume: int
    time: int
    axis: int
    index: int


@dataclass(frozen=True)
class Case:
    """One series: files that belong together, and its frames or the reason why it cannot be judged.

    Args:
        reason: why it is not judged; "" where it is.
        shape: see `shape_of`.
    """

    name: str
    files: tuple[Path, ...]
    frames: tuple[Frame, ...]
    reason: str = ""
    shape: str = ""

    @property
    def judged(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Verdict:
    """How the frames of one series came out.

    Args:
        frames: how many there are.
        found: how many lie at their place.
        equal: how many of these have exactly the rescaled values.
        invented: slabs of output volumes that no frame claims.
        error: mean |difference| at the true places of pixels (tissue only in CT) in the best volume; 0 where all are
            found, NaN where there is no output.
        covered: share of the pixels that lie inside of that volume.
        lost: names of the frames that were not found; localizers may be left out.
        places: for each frame the slots that hold it.
    """

    frames: int
    found: int
    equal: int
    invented: int
    error: float
    covered: float = 1.0
    lost: tuple[str, ...] = ()
    places: tuple[tuple[Slot, ...], ...] = field(default=(), repr=False)

    @property
    def right(self) -> bool:
        return not self.lost


# --- looking up -------------------------------------------------------------------------------------------------------


def loaded(path: Path) -> Output:
    image = nibabel.load(path)
    array = np.asanyarray(image.dataobj)
    array = array.reshape(*array.shape[:3], *(1,) * (3 - array.ndim), -1) if array.ndim != 4 else array
    return Output(path, array, np.asarray(image.affine))


def chosen_pixels(shape: tuple[int, int], count: int = PIXELS) -> tuple[Array, Array]:
    """Rows and columns of some pixels, the corners first."""
    rows, columns = shape
    corners = np.array([0, columns - 1, (rows - 1) * columns, rows * columns - 1])
    rng = np.random.default_rng(rows * columns)
    others = np.arange(rows * columns) if rows * columns <= count else rng.integers(0, rows * columns, count)
    chosen = np.unique(np.concatenate([corners, others]))
    return chosen // columns, chosen % columns


def indices_of(places: Array, affine: Array) -> Array:
    inverse = np.linalg.inv(affine)
    return np.asarray(places @ inverse[:3, :3].T + inverse[:3, 3])


def slots(frame: Frame, outputs: Sequence[Output]) -> list[tuple[Slot, bool]]:
    """Where a frame lies with its values, and whether they are equal there."""
    rows, columns = chosen_pixels((frame.values.shape[0], frame.values.shape[1]))
    places, wanted = frame.places(rows, columns), frame.values[rows, columns]
    found = []
    for number, output in enumerate(outputs):
        voxels = np.rint(indices_of(places, output.affine)).astype(int)
        if not is_near(voxels, places, output):
            continue
        spread = np.ptp(voxels, axis=0)
        axis = int(np.argmin(np.where(spread == 0, -np.array(output.array.shape[:3]), 1)) if (spread == 0).any() else 2)
        for time in range(output.array.shape[3]):
            seen = output.array[voxels[:, 0], voxels[:, 1], voxels[:, 2], time].astype(np.float64)
            if holds(seen, wanted):
                found.append((Slot(number, time, axis, int(voxels[0, axis])), is_equal(seen, wanted)))
    return found


def is_near(voxels: Array, places: Array, output: Output) -> bool:
    if (voxels < 0).any() or (voxels >= output.array.shape[:3]).any():
        return False
    there = voxels @ output.affine[:3, :3].T + output.affine[:3, 3]
    return bool(np.linalg.norm(there - places, axis=1).max() < NEAR_MM)


def is_equal(seen: Array, wanted: Array) -> bool:
    return bool(np.abs(seen - wanted).max() <= 1e-5 * max(1.0, float(np.abs(wanted).max())))


def holds(seen: Array, wanted: Array) -> bool:
    if is_equal(seen, wanted):
        return True
    if np.ptp(seen) == 0 or np.ptp(wanted) == 0:
        return False
    return bool(np.corrcoef(seen, wanted)[0, 1] > CORRELATION)


def interpolated_error(frames: Sequence[Frame], output: Output, *, tissue: bool) -> tuple[float, float]:
    """Mean |difference| at the true places of pixels, at the best time for each frame, and the share inside."""
    total, count, inside, asked = 0.0, 0, 0, 0
    for frame in frames:
        rows, columns = chosen_pixels((frame.values.shape[0], frame.values.shape[1]), 4 * PIXELS)
        wanted = frame.values[rows, columns]
        counted = wanted > TISSUE_HU if tissue else np.ones(len(wanted), bool)
        indices = inside_by_a_hair(indices_of(frame.places(rows, columns)[counted], output.affine), output).T
        errors = []
        for time in range(output.array.shape[3]):
            volume = output.array[..., time].astype(np.float64)
            seen = ndimage.map_coordinates(volume, indices, order=1, mode="constant", cval=np.nan)
            errors.append(np.abs(seen - wanted[counted]))
        best = min(errors, key=np.nansum)
        total, count = total + float(np.nansum(best)), count + int(np.isfinite(best).sum())
        inside, asked = inside + int(np.isfinite(best).sum()), asked + int(counted.sum())
    return (total / count if count else np.nan), (inside / asked if asked else 0.0)


def inside_by_a_hair(indices: Array, output: Output) -> Array:
    """Places that rounding puts a fiftieth of a voxel outside of the volume lie on its border."""
    nearest = np.clip(indices, 0, np.array(output.array.shape[:3]) - 1)
    return np.asarray(np.where(np.abs(nearest - indices) < 0.02, nearest, indices))


def judge(frames: Sequence[Frame], outputs: Sequence[Output], *, tissue: bool = False) -> Verdict:
    """How all frames of a series came out in the volumes that a converter wrote of it."""
    where = [slots(frame, outputs) for frame in frames]
    found = [places for places in where if places]
    claimed = {slot for places in found for slot, _ in places}
    equal = sum(any(same for _, same in places) for places in found)
    slabs = sum(output.array.shape[3] * output.array.shape[axis_of(claimed, n)] for n, output in enumerate(outputs))
    error, covered = (0.0, 1.0) if len(found) == len(frames) else (np.nan, 0.0)
    if len(found) < len(frames) and outputs:
        tried = [interpolated_error(frames, output, tissue=tissue) for output in outputs]
        error, covered = min(tried, key=lambda one: (np.isnan(one[0]), one[0]))
    lost = tuple(one.name for one, at in zip(frames, where, strict=True) if not at and one.kind != "localizer")
    places = tuple(tuple(slot for slot, _ in at) for at in where)
    return Verdict(len(frames), len(found), equal, slabs - len(claimed), error, covered, lost, places)


def axis_of(claimed: Iterable[Slot], volume: int) -> int:
    """The axis along which a volume's slabs are counted: the one that its frames were found along."""
    return next((slot.axis for slot in claimed if slot.volume == volume), 2)


# --- series -----------------------------------------------------------------------------------------------------------


def case_of(name: str, files: Sequence[Path]) -> Case:
    frames: list[Frame] = []
    try:
        for path in files:
            frames += frames_of(path)
    except Unjudgeable as reason:
        return Case(name, tuple(files), (), f"{path.name}: {reason}" if len(files) > 1 else str(reason))
    if all(frame.kind == "localizer" for frame in frames):
        return Case(name, tuple(files), tuple(frames), "localizer")
    return Case(name, tuple(files), tuple(frames), "", shape_of(frames))


def shape_of(frames: Sequence[Frame]) -> str:
    """`even`, `tilted`, `uneven`, `several` orientations or sizes, or a `mosaic`: what the places of frames make."""
    if frames[0].kind == "tile":
        return "mosaic"
    first = frames[0]
    axes = [np.concatenate([frame.across, frame.down]) for frame in frames]
    if np.abs(np.array(axes) - axes[0]).max() > 1e-3 or len({frame.values.shape for frame in frames}) > 1:
        return "several"
    heights = np.array([frame.origin @ first.normal for frame in frames])
    order = np.argsort(heights)
    origins = np.array([frames[n].origin for n in order])[np.diff(heights[order], prepend=-np.inf) > 1e-3]
    steps = np.diff(origins, axis=0)
    if not len(steps):
        return "even"
    sideways = np.linalg.norm(steps - (steps @ first.normal)[:, None] * first.normal, axis=1)
    gaps = steps @ first.normal
    names = ["uneven"] * bool(np.ptp(gaps) > GAP_MM) + ["tilted"] * bool((sideways > 0.01 * gaps).any())
    return " ".join(names) or "even"


def cases_in(root: Path) -> Iterator[Case]:
    """One case a folder and SeriesInstanceUID; in a folder of loose test files without series, one a file."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        uid = series_uid(path)
        if uid is not None:
            groups.setdefault((path.parent, uid), []).append(path)
    for (folder, _), files in groups.items():
        loose = folder.name in LOOSE
        for part in [[path] for path in files] if loose else [files]:
            name = str((part[0] if loose else folder).relative_to(root))
            yield case_of(name if name != "." else root.name, part)


def bundled(folder: Path) -> list[Path]:
    """Folders of the DICOM files that pydicom, pydicom-data and nibabel bring with them, as far as installed."""
    roots = [home("pydicom") / "data" / "test_files"]
    if find_spec("data_store"):
        roots.append(home("data_store") / "data")
    unpacked = folder / "nibabel"
    unpacked.mkdir(parents=True, exist_ok=True)
    for path in sorted((home("nibabel") / "nicom" / "tests" / "data").glob("*.dcm*")):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        (unpacked / path.name.removesuffix(".gz")).write_bytes(content)
    return [*roots, unpacked]


def home(package: str) -> Path:
    found = find_spec(package)
    assert found
    assert found.origin
    return Path(found.origin).parent


def series_uid(path: Path) -> str | None:
    """None for what is no DICOM image."""
    import pydicom

    try:
        dataset = pydicom.dcmread(
            path, force=True, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "Rows"]
        )
        return str(dataset.get("SeriesInstanceUID", "")) if "Rows" in dataset else None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, struct.error, InvalidDicomError):
        return None


# --- a tool on a series -----------------------------------------------------------------------------------------------


def converted(case: Case, tool: Tool, folder: Path) -> tuple[Run, Verdict]:
    """A tool's run on a folder that holds the files of one case only."""
    source = folder / "in"
    source.mkdir(parents=True)
    for n, path in enumerate(case.files):
        (source / f"{n:04d}_{path.name}").symlink_to(path)
    run = tool(source, folder / "out")
    outputs = [loaded(path) for path in run.files]
    tissue = any(frame.values.min() < TISSUE_HU < frame.values.max() for frame in case.frames)
    return run, judge(case.frames, outputs, tissue=tissue)


def line_of(case: Case, run: Run, verdict: Verdict) -> str:
    state = "right" if verdict.right else "REFUSED" if run.code and not run.files else "MOVED"
    if state == "MOVED" and case.shape != "even":
        state = f"resampled {verdict.error:.3g}"
    last = " ".join((run.said.strip().splitlines() or [""])[-1].split())[:110] if state == "REFUSED" else ""
    figures = f"{verdict.found}/{verdict.frames} equal {verdict.equal} invented {verdict.invented}"
    return f"{case.name:52.52} {case.shape:13} rc {run.code} {len(run.files)} files {figures:34} {state} {last}"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("--tool", action="append", choices=TOOLS)
    parser.add_argument("--list", action="store_true", help="only say what can be judged")
    parser.add_argument("--bundled", action="store_true", help="also what pydicom, pydicom-data and nibabel bring")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as unpacked:
        paths = [*options.paths, *(bundled(Path(unpacked)) if options.bundled else [])]
        table_of([case for path in paths for case in cases_in(path)], options)
    return 0


def table_of(cases: Sequence[Case], options: argparse.Namespace) -> None:
    for case in cases:
        if not case.judged:
            say(f"{case.name:52.52} not judged: {case.reason}")
    judged = [case for case in cases if case.judged]
    say(f"{len(judged)} of {len(cases)} series are judged, {sum(len(case.frames) for case in judged)} frames")
    for name in () if options.list else options.tool or ["medgan"]:
        right = 0
        say(f"--- {name}")
        for case in judged:
            with tempfile.TemporaryDirectory() as folder:
                run, verdict = converted(case, TOOLS[name], Path(folder))
            right += verdict.right
            say(line_of(case, run, verdict))
        say(f"{name}: every frame of {right} of {len(judged)} series lies where its header says")


if __name__ == "__main__":
    sys.exit(main())
