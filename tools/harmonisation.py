"""How far apart two scanners' brains are in intensity, before and after each way to harmonise them.

    python tools/harmonisation.py DATA

Nichart's 12 people are one scanner, openms' 2 another. The distance of two brains is Wasserstein's between their values
in the brain mask, in standard deviations of all values of all brains; `nyul` is fitted on nichart alone. What it prints
is the table of docs/concepts/harmonisation.md.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import wasserstein_distance

from medgan import Volume, read
from medgan.errors import InputError
from medgan.harmony import Nyul, Percentile, WhiteStripe, ZScore

Values = npt.NDArray[np.float64]
Brain = tuple[Volume, Volume]
SAMES = {"Subj16"}  # the same person as Subj15
VOXELS = 20_000


def brains(data: Path, contrast: str) -> dict[str, list[Brain]]:
    """By scanner: images and brain masks."""
    nichart = [folder for folder in sorted((data / "nichart_t1_flair_3d2mm").iterdir()) if folder.name not in SAMES]
    openms = sorted((data / "openms_cross_mni2mm").iterdir())
    stripped = [read(folder / f"{contrast}.nii.gz") for folder in openms]
    return {
        "nichart": [(read(one / f"{contrast}.nii.gz"), read(one / "brainmask.nii.gz")) for one in nichart],
        "openms": [(image, image.with_array((image.array > 0).astype(np.uint8))) for image in stripped],
    }


def values_of(brain: Brain, apply: Callable[[Volume, Volume], Volume]) -> Values | None:
    """Some of the values in the mask, after a method; None where that refuses the image."""
    image, mask = brain
    try:
        made = apply(image, mask)
    except InputError:
        return None
    values = made.array[(mask.array > 0) & (image.array > 0)].astype(np.float64)
    return np.random.default_rng(0).choice(values, min(VOXELS, len(values)), replace=False)


def distances(here: list[Values], there: list[Values]) -> tuple[float, float]:
    """Mean distance of a brain of one scanner to one of the other, and of two of the first scanner."""
    unit = float(np.concatenate([*here, *there]).std())
    between = [wasserstein_distance(a, b) / unit for a, b in itertools.product(here, there)]
    within = [wasserstein_distance(a, b) / unit for a, b in itertools.combinations(here, 2)]
    return float(np.mean(between)), float(np.mean(within))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    print("| contrast | method | between scanners | within nichart | brains |\n|---|---|---|---|---|")
    for contrast in ("t1", "flair"):
        found = brains(data, contrast)
        nyul = Nyul().fitted(*zip(*found["nichart"], strict=True))
        methods = {
            "none": lambda image, _: image,
            "percentile": Percentile().apply,
            "zscore": ZScore().apply,
            "nyul": nyul.apply,
            "white_stripe": WhiteStripe(contrast="t1" if contrast == "t1" else "flair").apply,
        }
        for name, apply in methods.items():
            made = {scanner: [values_of(brain, apply) for brain in some] for scanner, some in found.items()}
            here, there = ([values for values in some if values is not None] for some in made.values())
            between, within = distances(here, there)
            print(f"| {contrast} | {name} | {between:.3f} | {within:.3f} | {len(here)} + {len(there)} |", flush=True)


if __name__ == "__main__":
    main()
