"""What `medgan check` finds of planted faults, how often it is wrong about clean pairs, and how well it places b.

    python tools/check_faults.py phantom [--patients 60] [--processes 2] [--rows rows.csv]
    python tools/check_faults.py t1_flair ../shared/data/nichart_t1_flair_3d2mm
    python tools/check_faults.py registration ../shared/data/nichart_unregistered_pairs

The first two print the tables of docs/how-to/check.md: faults planted into MR and CT of phantoms, or into real T1 and
FLAIR that are registered. The faults are resampled onto the grid of the pair, so that its header tells nothing. The
third sets the shift beside that of a registration by SimpleITK. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scipy.stats import binomtest

from medgan import Grid, Volume, read
from medgan.check import examined
from medgan.findings import CheckedCase
from medgan.phantom import head, patient_grid
from medgan.prep import foreground
from medgan.processes import copies
from medgan.progress import track
from medgan.resample import resample
from medgan.tables import columns

Array = npt.NDArray[Any]
SEED = 77
CUT_SHARE = 0.15
# What counts as the right name of a fault.
NAMES = {
    "clean": (),
    "shifted by 3 mm": ("shifted",),
    "shifted by 10 mm": ("shifted",),
    "rotated by 5°": ("turned",),
    "flipped left/right": ("mirrored",),
    "wrong patient": ("anatomy",),
    "field of view cut by 15 %": ("cut",),
    "3 slices lost, the rest moved up": ("anatomy", "cut", "shifted"),
    "HU + 1000": ("offset",),
    "inverted": ("inverted",),
    "16 bits run over": ("wrapped",),
    "ghosts of 5 %": ("ghosts",),
}
SHIFTED_MM = {"clean": 0.0, "shifted by 3 mm": 3.0, "shifted by 10 mm": 10.0}
TOLD_ONLY = ("ghosts of 5 %",)


@dataclass(frozen=True)
class Row:
    """What was found of one pair: which fault was planted, whether it is left out and why, and how it is placed."""

    case: str
    fault: str
    excluded: bool
    kinds: tuple[str, ...]
    planted_mm: tuple[float, float, float]
    shift_mm: tuple[float, ...]
    uncertainty_mm: tuple[float, ...]
    rotation_deg: float
    disagreement_mm: float
    mirror_gain: float
    nmi: float
    uncovered: float

    @property
    def named(self) -> bool:
        return bool(set(NAMES[self.fault]) & set(self.kinds))


# --- planting ---------------------------------------------------------------------------------------------------------


def moved(volume: Volume, shift_mm: Array, turn: Array, centre: Array) -> Volume:
    """The content of a volume turned about a world point and shifted, on the same grid."""
    pose = np.eye(4)
    pose[:3, :3] = turn
    pose[:3, 3] = centre + shift_mm - turn @ centre
    way = np.linalg.inv(volume.grid.affine) @ np.linalg.inv(pose) @ volume.grid.affine
    array = volume.array.astype(np.float32)
    placed = ndimage.affine_transform(array, way, order=1, mode="constant", cval=float(array.min()))
    return volume.with_array(np.rint(placed).astype(np.int16))


def cut(volume: Volume, rng: np.random.Generator) -> Volume:
    """Air in the last 15 % of the body at a side drawn at random."""
    body, array = foreground(volume.array), volume.array.copy()
    axis, at_end = int(rng.integers(3)), bool(rng.integers(2))
    places = np.flatnonzero(body.any(axis=tuple(k for k in range(3) if k != axis)))
    depth = round(CUT_SHARE * (places[-1] - places[0] + 1))
    gone = slice(places[-1] - depth + 1, None) if at_end else slice(None, places[0] + depth)
    np.moveaxis(array, axis, 0)[gone] = array.min()
    return volume.with_array(array)


def lost(volume: Volume, rng: np.random.Generator) -> Volume:
    """Three neighbouring slices of the middle third removed along the last axis, blank ones added at its end."""
    count = volume.array.shape[2]
    place = int(rng.integers(count // 3, 2 * count // 3))
    left = np.delete(volume.array, range(place, place + 3), axis=2)
    blank = np.full((*left.shape[:2], 3), volume.array.min(), left.dtype)
    return volume.with_array(np.concatenate([left, blank], axis=2))


def ran_over(volume: Volume) -> Volume:
    """Stored times a gain that brings the brightest percent over the end of 16 bits."""
    values = volume.array.astype(np.float64) - float(volume.array.min())
    return volume.with_array((values * 32767 / np.percentile(values, 99)).astype(np.int64).astype(np.int16))


def ghosted(volume: Volume) -> Volume:
    """A copy of 5 % half a field of view away along the second axis."""
    values = volume.array.astype(np.float64)
    return volume.with_array(np.rint(values + 0.05 * np.roll(values, values.shape[1] // 2, axis=1)).astype(np.int16))


def pairs(a: Volume, b: Volume, other: Volume, rng: np.random.Generator) -> Iterator[tuple[str, Volume, Volume, Array]]:
    """The clean pair and one with each fault: its name, both images, and by how much b was shifted, mm."""
    still, none, axis = np.eye(3), np.zeros(3), rng.standard_normal(3)
    way = axis / np.linalg.norm(axis)
    centre = a.grid.to_world(ndimage.center_of_mass(foreground(a.array)))
    turn = Rotation.from_rotvec(np.radians(5) * way).as_matrix()
    left_right = next(k for k, letter in enumerate(a.grid.orientation) if letter in "RL")
    yield "clean", a, b, none
    yield "shifted by 3 mm", a, moved(b, 3 * way, still, centre), 3 * way
    yield "shifted by 10 mm", a, moved(b, 10 * way, still, centre), 10 * way
    yield "rotated by 5°", a, moved(b, none, turn, centre), none
    yield "flipped left/right", a, b.with_array(np.flip(b.array, left_right).copy()), none
    yield "wrong patient", a, other, none
    yield "field of view cut by 15 %", a, cut(b, rng), none
    yield "3 slices lost, the rest moved up", a, lost(b, rng), none
    if b.unit == "HU":
        yield "HU + 1000", a, b.with_array(b.array + 1000), none
    yield "inverted", a, b.with_array(b.array.max() - b.array + b.array.min()), none
    yield "16 bits run over", a, ran_over(b), none
    if b.unit == "HU":
        yield "ghosts of 5 %", ghosted(a), b, none


# --- cohorts ----------------------------------------------------------------------------------------------------------


def of_phantom(number: int, size: int, seed: int) -> list[Row]:
    """MR and CT of a phantom, clean; of every fourth one also with each fault."""
    grid = patient_grid(seed, number, size=size)
    one = head(1000 * seed + number, grid=grid)
    rng = np.random.default_rng([seed, number, 5])
    if number % 4:
        return [looked_at(f"p{number}", "clean", one.mr, one.ct, np.zeros(3))]
    other = head(1000 * seed + 500 + number, grid=grid).ct
    return [looked_at(f"p{number}", *planted) for planted in pairs(one.mr, one.ct, other, rng)]


def of_real(folder: Path, names: Sequence[str], number: int) -> list[Row]:
    t1, flair = (read(folder / names[number] / f"{role}.nii.gz") for role in ("t1", "flair"))
    stranger = read(folder / names[(number + 1) % len(names)] / "flair.nii.gz")
    rng = np.random.default_rng([SEED, number])
    return [looked_at(names[number], *one) for one in pairs(t1, flair, centred(stranger, t1), rng)]


def centred(volume: Volume, like: Volume) -> Volume:
    """On the grid of another, the middles of both bodies at one place."""
    middles = [one.grid.to_world(ndimage.center_of_mass(foreground(one.array))) for one in (volume, like)]
    affine = volume.grid.affine.copy()
    affine[:3, 3] += middles[1] - middles[0]
    return resample(Volume(volume.array, Grid(volume.grid.shape, affine), volume.unit), like.grid)


def looked_at(case: str, fault: str, a: Volume, b: Volume, planted_mm: Array) -> Row:
    found = examined(case, {"a": a, "b": b})
    kinds = tuple(dict.fromkeys(one.kind for one in found.faults))
    return Row(case, fault, found.is_excluded, kinds, tuple(planted_mm.tolist()), *placed(found))


def placed(found: CheckedCase) -> tuple[Any, ...]:
    pose = found.pose
    if pose is None:
        return (np.nan,) * 3, (np.nan,) * 3, np.nan, np.nan, np.nan, np.nan, np.nan
    numbers = pose.turn_deg, pose.disagreement_mm, pose.mirror_gain, pose.nmi, found.uncovered
    return pose.shift_mm, pose.uncertainty_mm, *numbers


# --- tables -----------------------------------------------------------------------------------------------------------


def share(hits: Sequence[bool]) -> str:
    """As `29/30 = 97 % (83–99 %)`."""
    count, of = sum(hits), len(hits)
    low, high = binomtest(count, of).proportion_ci(method="wilson")
    return f"{count}/{of} = {count / of:.0%} ({low:.0%}–{high:.0%})"


def found_table(rows: Sequence[Row]) -> list[list[str]]:
    table = [["planted", "left out", "named rightly", "else named"]]
    for fault, right in NAMES.items():
        own = [row for row in rows if row.fault == fault]
        if not own:
            continue
        others = sorted({kind for row in own for kind in row.kinds} - set(right))
        counts = ", ".join(f"{kind} {sum(kind in row.kinds for row in own)}" for kind in others)
        named = share([row.named for row in own]) if right else ""
        told = "" if fault in TOLD_ONLY else share([row.excluded for row in own])
        table.append([fault, told, named, counts])
    return table


def place_table(rows: Sequence[Row]) -> list[list[str]]:
    """Errors of the shift along single axes, and how often the truth is within two standard errors of it."""
    table = [["planted", "error, mm: median", "95 %", "greatest", "truth within 2 standard errors"]]
    for fault in SHIFTED_MM:
        own = [row for row in rows if row.fault == fault]
        error = np.abs([np.subtract(row.shift_mm, row.planted_mm) for row in own])
        within = error <= 2 * np.array([row.uncertainty_mm for row in own])
        cells = [f"{value:.2f}" for value in (np.median(error), np.percentile(error, 95), error.max())]
        table.append([fault, *cells, share(within.ravel().tolist())])
    return table


def write_rows(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Row.__dataclass_fields__)
        writer.writerows([getattr(row, name) for name in Row.__dataclass_fields__] for row in rows)


# --- beside SimpleITK -------------------------------------------------------------------------------------------------


def by_simpleitk(a: Path, b: Path, point_mm: Array) -> Array:
    """Where a rigid registration by Mattes' mutual information puts a point of a in b, minus the point; RAS mm.

    It looks where `check` does, at the body of a and 4 mm around it, and starts from the headers, from the middles of
    both images and from those of their brightness; the best end counts.
    """
    fixed, moving = (SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32) for path in (a, b))
    body = foreground(SimpleITK.GetArrayFromImage(fixed))
    mask = SimpleITK.GetImageFromArray(ndimage.binary_dilation(body, iterations=2).astype(np.uint8))
    mask.CopyInformation(fixed)
    starts = [SimpleITK.Euler3DTransform()]
    starts += [SimpleITK.CenteredTransformInitializer(fixed, moving, starts[0], mode) for mode in (0, 1)]
    _, found = min((registered(fixed, moving, mask, start) for start in starts), key=lambda end: end[0])
    lps = point_mm * (-1, -1, 1)
    return np.asarray((np.array(found.TransformPoint(lps.tolist())) - lps) * (-1, -1, 1))


def registered(fixed: Any, moving: Any, mask: Any, start: Any) -> tuple[float, Any]:
    way = SimpleITK.ImageRegistrationMethod()
    way.SetMetricAsMattesMutualInformation(50)
    way.SetMetricFixedMask(mask)
    way.SetMetricSamplingStrategy(way.RANDOM)
    way.SetMetricSamplingPercentage(0.2, 1)
    way.SetInterpolator(SimpleITK.sitkLinear)
    way.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100)
    way.SetOptimizerScalesFromPhysicalShift()
    way.SetShrinkFactorsPerLevel([4, 2, 1])
    way.SetSmoothingSigmasPerLevel([2, 1, 0])
    way.SetInitialTransform(start, inPlace=False)
    found = way.Execute(fixed, moving)
    return way.GetMetricValue(), found


def registration_table(folder: Path) -> list[list[str]]:
    """By patient: the shift that check tells, its standard errors, and SimpleITK's."""
    table = [["patient", "check: right front up, mm", "standard errors", "SimpleITK", "distance, mm"]]
    for name in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        paths = [folder / name / f"{role}.nii.gz" for role in ("t1", "flair")]
        t1, flair = map(read, paths)
        pose = examined(name, {"a": t1, "b": flair}).pose
        assert pose is not None, name
        other = by_simpleitk(paths[0], paths[1], t1.grid.to_world(ndimage.center_of_mass(foreground(t1.array))))
        cells = [" ".join(f"{mm:+.1f}" for mm in shift) for shift in (pose.shift_mm, pose.uncertainty_mm, other)]
        table.append([name, *cells, f"{pose.distance_mm:.1f}"])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", choices=("phantom", "t1_flair", "registration"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args()
    if given.cohort == "registration":
        return print(columns(registration_table(given.folder)))
    look: Callable[[int], list[Row]] = partial(of_phantom, size=given.size, seed=given.seed)
    numbers: Sequence[int] = range(1, given.patients + 1)
    if given.cohort == "t1_flair":
        names = sorted(path.name for path in given.folder.iterdir() if path.is_dir())
        look, numbers = partial(of_real, given.folder, names), range(len(names))
    with copies(given.processes, "looks at pairs") as over:
        rows = [row for own in track(over(look, numbers), "pairs", len(numbers)) for row in own]
    if given.rows:
        write_rows(rows, given.rows)
    print(columns(found_table(rows)), columns(place_table(rows)), sep="\n\n")
    return None


if __name__ == "__main__":
    main()
