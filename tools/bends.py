"""Does a non-rigid registration take a bend out again, and what does it do to images that were not bent?

    pip install 'medgan[elastix]'
    python tools/bends.py DATA [--people 4] [--heads 2] [--widths 60 30 0] [--jobs 1]

FLAIR of nichart's people and CT of phantoms are bent by known smooth fields, without their affine part, and laid back
upon T1 and MR. Rigid errors that FLAIR came with are taken out first, by `medgan.registration`. Told are the mean error
in the brain or head in mm and normalised mutual information there, both before and after; what is refused counts as it
was. What it prints is the table of docs/concepts/harmonisation.md.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medgan import Grid, Volume, read
from medgan.errors import GeometryError
from medgan.itk import array_of, image_of, one_thread, place, simpleitk
from medgan.metrics import nmi
from medgan.phantom import head
from medgan.registration import Registration, deform, register

Field = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Images = tuple[Volume, Volume, Mask]
Method = Callable[[Volume, Volume, Mask], Field]
LPS = np.array([-1.0, -1.0, 1.0])
MEAN_MM, WIDTHS_MM = 3.0, (60.0, 30.0, 0.0)
AROUND_MM = 6.0
HEADS = Grid.regular((90, 114, 100), spacing_mm=(2, 2, 2), origin_mm=(-89, -113, -99))


@dataclass(frozen=True, eq=False)
class Pair:
    """A fixed image, a moving one that was bent, and how: `bend` leads from each place of `moving` to that of `fixed`.

    Args:
        inside: the voxels that count.
        body: the voxels that are looked at, before they are widened.
        bend: (X, Y, Z, 3) RAS mm.
    """

    fixed: Volume
    moving: Volume
    inside: Mask
    body: Mask
    bend: Field


def places(grid: Grid) -> Field:
    """(X, Y, Z, 3) world positions of the voxels."""
    return np.asarray(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)))


def bend_of(grid: Grid, inside: Mask, mean_mm: float, width_mm: float, seed: int) -> Field:
    """Smooth noise, alike over `width_mm` (half of its correlation), without its affine part in a mask.

    Its mean length there is `mean_mm`.
    """
    rng, sigma = np.random.default_rng(seed), width_mm / np.sqrt(16 * np.log(2))
    noise = [ndimage.gaussian_filter(rng.standard_normal(grid.shape), sigma / grid.spacing_mm) for _ in range(3)]
    field = np.stack(noise, axis=-1)
    at = np.concatenate([places(grid), np.ones((*grid.shape, 1))], axis=-1)
    field -= at @ np.linalg.lstsq(at[inside], field[inside])[0]
    return np.asarray(field * (mean_mm / np.linalg.norm(field[inside], axis=-1).mean()))


def sampled(values: Field, grid: Grid, at: Field, order: int = 1) -> Field:
    """Values, or vectors, at world positions."""
    index = np.moveaxis(grid.to_index(at), -1, 0)
    parts = values[..., None] if values.ndim == 3 else values
    found = [ndimage.map_coordinates(part, index, order=order, mode="nearest") for part in np.moveaxis(parts, -1, 0)]
    return np.asarray(found[0] if values.ndim == 3 else np.stack(found, axis=-1))


def bent(images: Images, body: Mask, mean_mm: float, width_mm: float, seed: int) -> Pair:
    """The moving image of a pair, bent; as it is for 0 mm."""
    fixed, moving, inside = images
    if not mean_mm:
        return Pair(fixed, moving, inside, body, np.zeros((*fixed.grid.shape, 3)))
    bend = bend_of(fixed.grid, inside, mean_mm, width_mm, seed)
    array = sampled(moving.array.astype(np.float64), moving.grid, places(fixed.grid) + bend, order=3)
    clipped = np.clip(array, moving.array.min(), moving.array.max()).astype(np.float32)
    return Pair(fixed, moving.with_array(clipped), inside, body, bend)


def errors_mm(pair: Pair, found: Field) -> Field:
    """(N,) distances in the fixed image between each voxel that counts and the one it is laid upon."""
    at = places(pair.fixed.grid)[pair.inside]
    there = at + found[pair.inside]
    return np.asarray(np.linalg.norm(there + sampled(pair.bend, pair.fixed.grid, there) - at, axis=-1))


def likeness(pair: Pair, found: Field) -> float:
    """Normalised mutual information of what counts, both cut at their 0.2 % extremes."""
    grid = pair.fixed.grid
    moved = sampled(pair.moving.array.astype(np.float64), grid, places(grid)[pair.inside] + found[pair.inside])
    both = (values[:, None, None] for values in (pair.fixed.array[pair.inside], moved))
    scaled = [(cut - cut.min()) / np.ptp(cut) for cut in (np.clip(a, *np.percentile(a, [0.2, 99.8])) for a in both)]
    return nmi(scaled[0], scaled[1], None, (0, 1), num_bins=32)


# --- the methods ------------------------------------------------------------------------------------------------------


def cut(volume: Volume) -> Volume:
    """Without the brightest and darkest few voxels."""
    return volume.with_array(np.clip(volume.array, *np.percentile(volume.array, [0.2, 99.8])).astype(np.float32))


def edges(volume: Volume) -> Volume:
    """How steep the values are, from 0 to 1."""
    steep = ndimage.gaussian_gradient_magnitude(cut(volume).array, 1.0)
    return volume.with_array(np.clip(steep / np.percentile(steep, 99), 0, 1).astype(np.float32))


def elastix(fixed: Volume, moving: Volume, _: Mask, *, stiffness: float) -> Field:
    """What `medgan.registration` does, more or less stiff."""
    found = deform(fixed, moving, Registration(np.eye(4)), elastix={"Metric1Weight": stiffness})
    return np.asarray(found.at(places(fixed.grid)), dtype=np.float64)


def splines(fixed: Volume, moving: Volume, near: Mask) -> Field:
    """SimpleITK: B-splines under Mattes' mutual information, 80 and then 40 mm between nodes, few iterations."""
    sitk = simpleitk()
    a, b = (image_of(sitk, cut(one)) for one in (fixed, moving))
    nodes = [max(1, round(n * mm / 80)) for n, mm in zip(fixed.grid.shape, fixed.grid.spacing_mm, strict=True)]
    way = sitk.ImageRegistrationMethod()
    way.SetNumberOfThreads(1)
    way.SetMetricAsMattesMutualInformation(32)
    way.SetMetricFixedMask(image_of(sitk, fixed.with_array(near.astype(np.uint8))))
    way.SetMetricSamplingStrategy(way.RANDOM)
    way.SetMetricSamplingPercentage(0.1, 1)
    way.SetInterpolator(sitk.sitkLinear)
    way.SetShrinkFactorsPerLevel([2, 1])
    way.SetSmoothingSigmasPerLevel([2, 1])
    way.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    way.SetOptimizerAsLBFGS2(numberOfIterations=20)
    way.SetInitialTransformAsBSpline(sitk.BSplineTransformInitializer(a, nodes, order=3), True, [1, 2])
    with one_thread(sitk):
        found = way.Execute(a, b)
        field = sitk.TransformToDisplacementField(
            found, sitk.sitkVectorFloat64, a.GetSize(), a.GetOrigin(), a.GetSpacing(), a.GetDirection()
        )
    return vectors(sitk, field)


def demons(fixed: Volume, moving: Volume, _: Mask) -> Field:
    """SimpleITK: diffeomorphic demons of how steep the images are, three levels."""
    sitk = simpleitk()
    a, b = (image_of(sitk, edges(one)) for one in (fixed, moving))
    way = sitk.DiffeomorphicDemonsRegistrationFilter()
    way.SetNumberOfThreads(1)
    way.SetNumberOfIterations(60)
    way.SmoothDisplacementFieldOn()
    way.SetStandardDeviations(3.0)
    way.SmoothUpdateFieldOn()
    way.SetUpdateFieldStandardDeviations(1.0)
    field = sitk.Image(a.GetSize(), sitk.sitkVectorFloat64)
    place(field, fixed.grid)
    with one_thread(sitk):
        for shrink in (4, 2, 1):
            level = [sitk.Shrink(sitk.SmoothingRecursiveGaussian(one, float(shrink)), [shrink] * 3) for one in (a, b)]
            level = level if shrink > 1 else [a, b]
            start = sitk.Resample(field, level[0], sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkVectorFloat64)
            field = way.Execute(*level, start)
    return vectors(sitk, field)


def vectors(sitk: Any, field: Any) -> Field:
    """(X, Y, Z, 3) RAS mm of a field of SimpleITK."""
    return np.asarray(np.moveaxis(array_of(sitk, field), 0, -1) * LPS, dtype=np.float64)


METHODS: dict[str, Method] = {
    "elastix, bending energy × 50": partial(elastix, stiffness=50),
    "elastix, bending energy × 500": partial(elastix, stiffness=500),
    "SimpleITK B-spline": splines,
    "SimpleITK demons of edges": demons,
}


# --- the study --------------------------------------------------------------------------------------------------------


def person(folder: Path) -> tuple[Images, Mask]:
    """T1, FLAIR in the place that rigid registration gives it, the brain; and the head."""
    t1, flair, brain = (read(folder / f"{name}.nii.gz") for name in ("t1", "flair", "brainmask"))
    placed = register(t1, flair, mask=brain).moved(flair, t1.grid, order=3, outside=0)
    return (t1, placed, brain.array > 0), np.asarray(t1.array > 0)


def phantom(seed: int) -> tuple[Images, Mask]:
    """MR, CT and the body, twice."""
    one = head(seed, grid=HEADS)
    body = one.body.array > 0
    return (one.mr, one.ct, body), body


@dataclass(frozen=True)
class Row:
    """What one method did to one pair: errors in mm, likeness, CPU seconds; refused is left as it was."""

    kind: str
    width_mm: float
    method: str
    before: float
    after: float
    nmi_before: float
    nmi_after: float
    seconds: float
    is_refused: bool = False


def judged(kind: str, load: Callable[[], tuple[Images, Mask]], width_mm: float, seed: int) -> list[Row]:
    """Every method on one pair; a width of 0 is no bend."""
    images, body = load()
    pair = bent(images, body, MEAN_MM if width_mm else 0.0, width_mm, seed)
    near = ndimage.distance_transform_edt(~body, sampling=pair.fixed.grid.spacing_mm) <= AROUND_MM
    still = np.zeros_like(pair.bend)
    before = Row(kind, width_mm, "", errors_mm(pair, still).mean(), 0.0, likeness(pair, still), 0.0, 0.0)
    return [measured(before, name, pair, near) for name in METHODS]


def measured(before: Row, name: str, pair: Pair, near: Mask) -> Row:
    start = time.process_time()
    try:
        found = METHODS[name](pair.fixed, pair.moving, near)
    except GeometryError as error:
        print(f"{name}: {error}", file=sys.stderr)
        found, before = np.zeros_like(pair.bend), replace(before, is_refused=True)
    seconds = time.process_time() - start
    after = float(errors_mm(pair, found).mean())
    row = replace(before, method=name, after=after, nmi_after=likeness(pair, found), seconds=seconds)
    print(row, file=sys.stderr, flush=True)
    return row


def table(rows: Iterable[Row]) -> str:
    """Means over the pairs of a kind, in Markdown."""
    lines = [
        "| images | planted | method | error mm | worst | refused | mutual information | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    key = lambda row: (row.kind, -row.width_mm, list(METHODS).index(row.method))  # noqa: E731
    for (kind, width, _), group in itertools.groupby(sorted(rows, key=key), key=key):
        some = list(group)
        bend = f"{MEAN_MM:g} mm over {-width:g} mm" if width else "none"
        mean = {name: np.mean([getattr(row, name) for row in some]) for name in ("before", "after", "seconds")}
        refused = sum(row.is_refused for row in some)
        alike = [np.mean([row.nmi_before for row in some]), np.mean([row.nmi_after for row in some])]
        lines.append(
            f"| {len(some)} {kind} | {bend} | {some[0].method} | {mean['before']:.1f} → {mean['after']:.1f} "
            f"| {max(row.after for row in some):.1f} | {refused} "
            f"| {alike[0]:.3f} → {alike[1]:.3f} | {mean['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--widths", type=float, nargs="+", default=WIDTHS_MM, help="of the bends, mm; 0 is no bend")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    folders = sorted((given.data / "nichart_t1_flair_3d2mm").iterdir())[: given.people]
    loads = [("T1 ← FLAIR", partial(person, folder)) for folder in folders]
    loads += [("MR ← CT", partial(phantom, seed)) for seed in range(given.heads)]
    with ProcessPoolExecutor(given.jobs) as pool:
        jobs = [
            pool.submit(judged, kind, load, width, seed)
            for width in given.widths
            for seed, (kind, load) in enumerate(loads)
        ]
        print(table(row for job in jobs for row in job.result()))


if __name__ == "__main__":
    main()
