"""HD95 of ten organs in label maps of 256 × 256 × 128: medgan against MONAI and SimpleITK, in CPU seconds.

    python tools/bench/surfaces.py [--rounds 5]

Each way takes two label maps and gives the HD95 of each organ; `label_scores` gives Dice, surface Dice and means too.
MONAI is called organ by organ, as in the evaluation of SynthRAD2025. SimpleITK's way is the recipe of its examples, a
distance map of each contour, on the whole volume and on the box that holds an organ. Ratios are MONAI's CPU seconds
over those of a way, round by round. Below stands how far each way's HD95 is from medgan's at most, in mm.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import SimpleITK
import torch
from interleaved import machine, table
from monai.metrics import compute_hausdorff_distance

from medgan.metrics.labels import label_scores
from medgan.metrics.surfaces import hd95, joint_box

Labels = npt.NDArray[np.uint8]
Way = Callable[[], list[float]]

SHAPE, SPACING, ORGANS = (256, 256, 128), (1.0, 1.0, 2.5), range(1, 11)


def organs(shift: float) -> Labels:
    """Ten ellipsoids of 14 to 40 voxels half-axis, with a wavy surface."""
    rng, found = np.random.default_rng(5), np.zeros(SHAPE, dtype=np.uint8)
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    wave = 0.08 * np.sin(x / 4 + shift) * np.sin(y / 5) * np.sin(z / 3 + shift)
    for organ in ORGANS:
        cx, cy, cz = rng.uniform((50, 50, 34), (206, 206, 94))
        rx, ry, rz = rng.uniform((16, 16, 14), (40, 40, 28))
        inside = ((x - cx - shift) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1 + wave
        found[inside] = organ
    return found


def by_medgan(pred: Labels, ref: Labels) -> list[float]:
    return [hd95(pred == organ, ref == organ, SPACING) for organ in ORGANS]


def by_monai(pred: Labels, ref: Labels) -> list[float]:
    found = []
    for organ in ORGANS:
        one, other = (torch.from_numpy(labels == organ)[None, None] for labels in (pred, ref))
        of_organ = compute_hausdorff_distance(one, other, include_background=True, percentile=95, spacing=list(SPACING))
        found.append(of_organ.item())
    return found


def by_simple_itk(pred: Labels, ref: Labels, *, crop: bool) -> list[float]:
    found = []
    for organ in ORGANS:
        one, other = pred == organ, ref == organ
        box = joint_box(one, other) if crop else (slice(None),) * 3
        found.append(_itk_hd95(_image(one[box]), _image(other[box])))
    return found


def _image(mask: npt.NDArray[np.bool_]) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(SPACING[::-1])
    return image


def _itk_hd95(one: SimpleITK.Image, other: SimpleITK.Image) -> float:
    contours = [SimpleITK.LabelContour(image) for image in (one, other)]
    maps = [
        SimpleITK.Abs(SimpleITK.SignedMaurerDistanceMap(c, squaredDistance=False, useImageSpacing=True))
        for c in contours
    ]
    edges = [SimpleITK.GetArrayViewFromImage(contour) != 0 for contour in contours]
    directed = [SimpleITK.GetArrayViewFromImage(maps[1 - k])[edges[k]] for k in (0, 1)]
    return max(float(np.percentile(distances, 95)) for distances in directed)


def cpu_seconds(ways: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
    """Of each way in each round, all ways in turn, after a round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if number:
                taken[name].append(time.process_time() - began)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    pred, ref = organs(2.0), organs(0.0)
    ways: dict[str, Way] = {
        "MONAI": lambda: by_monai(pred, ref),
        "SimpleITK, whole volume": lambda: by_simple_itk(pred, ref, crop=False),
        "SimpleITK, box of the organ": lambda: by_simple_itk(pred, ref, crop=True),
        "medgan hd95": lambda: by_medgan(pred, ref),
        "medgan label_scores": lambda: list(label_scores(pred, ref, spacing_mm=SPACING).values()),
    }
    print(machine(), "\n")
    print(table(cpu_seconds(ways, rounds)), "\n")
    ours = by_medgan(pred, ref)
    for name in list(ways)[:3]:
        print(f"{name}: {np.abs(np.subtract(ways[name](), ours)).max():.1e} mm from medgan")


if __name__ == "__main__":
    main()
