"""How well an image's own foreground predicts the brightness of its brain: the figures behind `times_median`.

    python tools/scaling.py DATA

DATA holds a folder a scan with t1.nii.gz, flair.nii.gz and brainmask.nii.gz. Printed is the coefficient of variation,
over scans, of the brain's median divided by a statistic of the whole foreground.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medgan import read
from medgan.prep import foreground
from medgan.tables import columns

Array = npt.NDArray[np.floating]
STATISTICS: dict[str, Callable[[Array], float]] = {
    "1 (as scanned)": lambda _: 1.0,
    "99.5th percentile": lambda values: float(np.percentile(values, 99.5)),
    "95th percentile": lambda values: float(np.percentile(values, 95)),
    "mean": lambda values: float(values.mean()),
    "median": lambda values: float(np.median(values)),
}


def ratios(data: Path, role: str) -> dict[str, list[float]]:
    """Brain median over each statistic, by scan."""
    found: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        image = read(folder / f"{role}.nii.gz").array.astype(float)
        brain = float(np.median(image[read(folder / "brainmask.nii.gz").array > 0]))
        for name, statistic in STATISTICS.items():
            found[name].append(brain / statistic(image[foreground(image)]))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    spread = {role: ratios(data, role) for role in ("t1", "flair")}
    rows = [[name, *(f"{np.std(r[name]) / np.mean(r[name]):.1%}" for r in spread.values())] for name in STATISTICS]
    print(columns([["brain median divided by", *spread], *rows]))
