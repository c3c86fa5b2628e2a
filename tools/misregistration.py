"""Pairs that lie apart: pix2pix with and without its registration net, on phantoms whose CT is moved.

    python tools/misregistration.py --out FOLDER [--steps 1500]

24 patients to train on, the CT of each moved by up to 4 voxels along two axes; 4 others, whose images lie on one
another, judge. What it prints is the table of docs/models/pix2pix.md; a comparison that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import shift

from medgan import read, train, translate, write
from medgan.cases import Case, read_cases, write_cases
from medgan.metrics import mae, psnr, ssim_2023
from medgan.phantom import head
from medgan.phantom.cohort import patient_grid
from medgan.tables import columns

PATIENTS, SEED, FAR = 30, 7, 4.0
RANGE_HU, BONE_HU, SOFT_HU = (-1024.0, 1600.0), 300.0, -200.0
CONFIG = """
cases: moved.csv
prep:
  a: {modality: MR, times_median: [0, 2.5]}
  b: {modality: CT, unit: HU, range: [-1024, 1600]}
patch: [64, 64, 1]
augment: {flip_axes: [0], rotate_deg: 8, scale: 0.08, gamma: 0.2, noise: 0.02}
model:
  name: pix2pix
  generator: {name: unet_32, width: 16, norm: batch, dropout: false}
  discriminator: {name: n_layers, num_layers: 2, width: 16, norm: batch}
  gan: lsgan
  lambda_l1: 100
train: {steps: 1500, batch: 8, lr: 0.001, decay_from: 0.5, ema: 0.99, validate_every: 1500, checkpoint_every: 500}
overlap: 0.25
"""
WAYS = {
    "moved CT, plain": ("moved", []),
    "moved CT, registration": ("moved", ["model.registration={width: 16}"]),
    "moved CT, registration, `lambda_l1` 20": ("moved", ["model.registration={width: 16}", "model.lambda_l1=20"]),
    "CT in its place, plain": ("true", []),
}


def split_of(number: int) -> str:
    return "train" if number <= PATIENTS - 6 else "val" if number <= PATIENTS - 4 else "test"


def make_cohort(folder: Path) -> None:
    """Tables `moved.csv` and `true.csv`; but for training patients they are the same."""
    tables: dict[str, list[Case]] = {"moved": [], "true": []}
    for number in range(1, PATIENTS + 1):
        phantom, name = head(7000 + number, grid=patient_grid(SEED, number, size=64)), f"p{number}"
        by = np.random.default_rng([5, number]).uniform(-FAR, FAR, 3) * (1, 1, 0)
        moved = np.rint(shift(phantom.ct.array.astype(np.float64), by, order=1, mode="nearest")).astype(np.int16)
        images = {"mr": phantom.mr, "true": phantom.ct, "moved": phantom.ct.with_array(moved), "mask": phantom.body}
        places = {kind: write(image, folder / f"{name}_{kind}.nii.gz") for kind, image in images.items()}
        for kind, cases in tables.items():
            b = places[kind if split_of(number) == "train" else "true"]
            cases.append(Case(name, name, split_of(number), {"a": places["mr"], "b": b, "mask": places["mask"]}))
    for kind, cases in tables.items():
        write_cases(cases, folder / f"{kind}.csv")


def scores(run: Path, table: Path, out: Path) -> list[float]:
    """Means over the held-out patients: MAE in the body, in bone, in soft tissue (HU), PSNR (dB), SSIM."""
    translate(run, table, out, split="test")
    found = []
    for case in read_cases(table, split="test"):
        fake, true = (read(path).array.astype(float) for path in (out / f"{case.name}.nii.gz", case.images["b"]))
        mask = read(case.images["mask"]).array > 0
        bone, soft = mask & (true > BONE_HU), mask & (true > SOFT_HU) & (true <= BONE_HU)
        errors = [mae(fake, true, inside) for inside in (mask, bone, soft)]
        found.append([*errors, psnr(fake, true, mask, RANGE_HU), ssim_2023(fake, true, mask, RANGE_HU)])
    return [float(value) for value in np.mean(found, axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not (given.out / "true.csv").exists():
        make_cohort(given.out)
    (given.out / "config.yaml").write_text(CONFIG)
    rows = [["trained on", "MAE, HU", "in bone", "in soft tissue", "PSNR, dB", "SSIM"]]
    for number, (name, (table, settings)) in enumerate(WAYS.items()):
        cases, place = given.out / f"{table}.csv", given.out / f"way_{number}"
        run = train(given.out / "config.yaml", [f"cases={cases}", f"train.steps={given.steps}", *settings], out=place)
        rows.append([name, *(f"{value:.4g}" for value in scores(run.path, cases, given.out / f"made_{number}"))])
    print(columns(rows))


if __name__ == "__main__":
    main()
