"""How well leaks are suspected: likeness of different people, of copies that were changed, and of two scans of one.

Usage: python tools/bench/leaks.py SHARED_DATA_FOLDER [number of phantoms]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from medgan.cases import Case
from medgan.formats import read
from medgan.leaks import Leak, Seen, leaks
from medgan.leaks.fingerprint import Fingerprint, voxel_hash
from medgan.leaks.looks import (
    LEAST_LIKENESS,
    LEAST_SPECTRUM,
    Look,
    coarseness_mm,
    likeness,
    look_of,
    spectrum_of,
)
from medgan.phantom import write_cohort
from medgan.volume import Grid, Volume

Images = Mapping[tuple[str, str], Volume]  # by patient and role
Looks = Mapping[tuple[str, str], Look]


def main(shared: Path, num_phantoms: int) -> None:
    """Print a block of lines for each cohort."""
    nichart = shared / "nichart_t1_flair_3d2mm"
    show("NiChart T1/FLAIR, 2 mm", cohort(nichart, ("t1", "flair")), {"Subj15", "Subj16"})
    mni = {**cohort(shared / "openms_cross_mni2mm", ("t1", "t1post", "t2", "flair"))}
    mni |= {("template", role): read(shared / "templates_mni2mm" / f"{role}.nii.gz") for role in ("t1", "t2")}
    show("Open MS and a template, MNI space", mni)
    lgg = cohort(shared / "NC_lgg_t1_flair_t1c_2d128", ("t1", "flair"))
    show("LGG T1/FLAIR, 5 mm slices", lgg)
    show("LGG, the middle slice alone", {key: middle(volume) for key, volume in lgg.items()})
    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder), num_patients=num_phantoms)
        images = {
            (place.name, role): read(place / role) for place in sorted(Path(folder).iterdir()) for role in ("mr", "ct")
        }
    show("phantoms", images)
    cost()


def cohort(folder: Path, roles: tuple[str, ...]) -> dict[tuple[str, str], Volume]:
    """Images by patient and role."""
    paths = [(role, path) for role in roles for path in sorted(folder.glob(f"*/{role}.nii.gz"))]
    return {(path.parent.name, role): read(path) for role, path in paths}


def middle(volume: Volume) -> Volume:
    """The slice in the middle."""
    z = volume.grid.shape[2] // 2
    return volume.crop((0, 0, z), (*volume.grid.shape[:2], z + 1))


def show(name: str, images: Images, same: set[str] | None = None) -> None:
    """Lines of one cohort."""
    size_mm = coarseness_mm([volume.grid for volume in images.values()])
    began = time.process_time()
    found = {key: look for key, volume in images.items() if (look := look_of(volume, size_mm)) is not None}
    spent = (time.process_time() - began) / len(images)
    print(f"\n## {name}: {len(images)} images, {len(found)} with a look, {size_mm:.2f} mm, {1000 * spent:.0f} ms each")
    cases = {patient: Case(patient, patient, "", {}) for patient, _ in found}
    seen = [Seen(cases[patient], role, None, Fingerprint("", look)) for (patient, role), look in found.items()]
    told = leaks(seen, lambda case: case.patient)
    alarms = [leak for leak in told if {leak.one.case.name, leak.other.case.name} != same]
    num_pairs = len(cases) * (len(cases) - 1) // 2 - (same is not None)
    print(f"different people: {num_pairs} pairs, {len(alarms)} alarms: {'; '.join(map(Leak.describe, alarms))}")
    print("one person:", *(leak.describe() for leak in told if leak not in alarms))
    pairs = [(one, other) for one, other in combinations(found, 2) if one[1] == other[1] and {one[0], other[0]} != same]
    values = np.array([compare(found[one], found[other]) for one, other in pairs])
    print(
        f"single images of different people: {len(pairs)}, {sum(is_alarm(*value) for value in values)} over both limits"
    )
    print(f"  greatest likeness {values[:, 0].max():.2f}, spectrum {values[:, 1].max():.2f}")
    for change, changed in changes().items():
        print(f"{change:32}", caught(found, images, changed, size_mm))


def cost() -> None:
    """CPU seconds of a fingerprint, and of comparing a thousand of such images."""
    rng = np.random.default_rng(0)
    large = blobs(rng, (256, 256, 180), 1.0)
    print(f"\n## a fingerprint of {large.grid.describe()}")
    for when in ("first of a process", "next"):
        began = time.process_time()
        voxel_hash(large)
        hashed = time.process_time()
        look_of(large, 4.0)
        print(f"{when:20} hash {hashed - began:.2f} s, look {time.process_time() - hashed:.2f} s")
    looks = [look_of(blobs(rng, (64, 64, 45), 4.0), 4.0) for _ in range(1000)]
    seen = [Seen(Case(str(n), str(n), "", {}), "a", None, Fingerprint(str(n), look)) for n, look in enumerate(looks)]
    made = time.process_time()
    found = leaks(seen, lambda case: case.patient)
    print(f"1,000 images with one another: {time.process_time() - made:.1f} s, {len(found)} alarms")


def blobs(rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: float) -> Volume:
    """Something smooth with noise on it."""
    coarse = rng.normal(500, 200, (16, 16, 12))
    array = ndimage.zoom(coarse, np.array(shape) / coarse.shape, order=1) + rng.normal(0, 20, shape)
    return Volume(array.astype(np.int16), Grid.regular(shape, spacing_mm=(spacing_mm,) * 3))


def caught(
    found: Mapping[tuple[str, str], Look], images: Images, changed: Callable[[Volume], Volume], size_mm: float
) -> str:
    """How many of at most 30 changed copies are found."""
    values = []
    for key in list(found)[:30]:
        look = look_of(changed(images[key]), size_mm)
        values.append((0.0, 0.0) if look is None else compare(found[key], look))
    hits = sum(is_alarm(*value) for value in values)
    least = np.min(np.array(values), axis=0)
    return f"{hits} of {len(values)} found; least likeness {least[0]:.2f}, spectrum {least[1]:.2f}"


def compare(one: Look, other: Look) -> tuple[float, float]:
    """Likeness and likeness of the spectra."""
    return likeness(one, other), float(spectrum_of(one) @ spectrum_of(other))


def is_alarm(value: float, spectrum: float) -> bool:
    """Whether a pair is told."""
    return value >= LEAST_LIKENESS and spectrum >= LEAST_SPECTRUM


def changes() -> dict[str, Callable[[Volume], Volume]]:
    """What people do to a copy."""
    rng = np.random.default_rng(0)
    return {
        "8 bits, other scale": lambda v: v.with_array(np.clip(unit(v) * 200, 0, 255).astype(np.uint8)),
        "gamma 0.7": lambda v: v.with_array(np.clip(unit(v), 0, 1) ** 0.7),
        "negative": lambda v: v.with_array(1 - unit(v)),
        "noise, 5% of the range": lambda v: v.with_array(unit(v) + rng.normal(0, 0.05, v.array.shape)),
        "voxels 1.3 times as small": lambda v: zoomed(v, 1.3),
        "voxels 1.7 times as large": lambda v: zoomed(v, 0.6),
        "cropped by 5% on each side": lambda v: cropped(v, 0.05),
        "cropped by 10% on each side": lambda v: cropped(v, 0.1),
        "turned by 2°": lambda v: v.with_array(ndimage.rotate(unit(v), 2, reshape=False, order=1)),
        "turned by 5°": lambda v: v.with_array(ndimage.rotate(unit(v), 5, reshape=False, order=1)),
        "mirrored left to right": lambda v: v.with_array(v.array[::-1].copy()),
    }


def unit(volume: Volume) -> Any:
    """Values from 0 to about 1."""
    array = np.asarray(volume.array, np.float32)
    low, high = float(array.min()), float(np.percentile(array, 99.9))
    return (array - low) / (high - low)


def zoomed(volume: Volume, factor: float) -> Volume:
    """Resampled in place."""
    factors = [factor if side > 1 else 1 for side in volume.grid.shape]
    array = ndimage.zoom(unit(volume), factors, order=1)
    affine = volume.grid.affine.copy()
    affine[:3, :3] *= np.array(volume.grid.shape) / np.array(array.shape)
    return Volume(array, Grid(array.shape, affine))


def cropped(volume: Volume, share: float) -> Volume:
    """Without a share of each side."""
    cut = [int(share * side) for side in volume.grid.shape]
    return volume.crop(cut, [side - one for side, one in zip(volume.grid.shape, cut, strict=True)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 12)
