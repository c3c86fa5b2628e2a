"""pix2pix, the supervised net and CycleGAN (trained unpaired) with equal steps, on patients that none has seen.

    python tools/compare_models.py [key=value ...] --out FOLDER [--data DATA] [--models pix2pix cyclegan]

With DATA, the folder that tools/t1_to_flair.py takes, T1 → FLAIR on real brains; without, MR → CT on the phantoms of
`medgan demo`. What it prints is a table of docs/models/index.md; a comparison that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from t1_to_flair import CONFIG, FRACTIONS, PATIENTS

import medgan
from medgan import Volume, index, train
from medgan.evaluate import Row, summarise
from medgan.phantom import write_cohort
from medgan.study import Study, study
from medgan.tables import columns

DEMO = Path(medgan.__file__).parent / "demo.yaml"
JUDGE = "discriminator: {name: n_layers, num_layers: 2, width: 32, norm: batch}"
RESNET = "generator: {name: resnet_6blocks, width: 24, norm: batch}"
MODELS = {
    "pix2pix": [],
    "supervised": ["model={name: supervised, generator: {name: res_unet_32, width: 16, norm: batch}}"],
    "cyclegan": [
        f"model={{name: cyclegan, {RESNET}, {JUDGE}, lambda_identity: 0.5}}",
        "augment.gamma=0",
        "augment.noise=0",
        "train.lr=0.0002",
    ],
}
BONE_HU = 300.0
METRICS = ("mae", "psnr", "ssim", "bone_dice")


def cohort(out: Path, data: Path | None) -> tuple[Path, Path]:
    """A config, and the table of cases, which is made if it is not there."""
    table = out / "cases.csv"
    if data is not None:
        roles = {"a": "t1.nii.gz", "b": "flair.nii.gz", "mask": "brainmask.nii.gz"}
        if not table.exists():
            index(data, **roles, out=table, fractions=FRACTIONS, seed=0, patients=PATIENTS)
        return CONFIG, table
    if not table.exists():
        write_cohort(out / "cohort", num_patients=9, seed=0)
        index(out / "cohort", a="mr", b="ct", mask="body.nii.gz", out=table, fractions=FRACTIONS)
    return DEMO, table


def bone_dice(synthetic: Volume, reference: Volume, mask: Volume) -> float:
    """2·|A ∩ B| / (|A| + |B|) of the voxels in the mask that are bone in the one and in the other."""
    inside = mask.array > 0
    a, b = (volume.array[inside] >= BONE_HU for volume in (synthetic, reference))
    return 2 * float(np.sum(a & b)) / max(float(a.sum() + b.sum()), 1.0)


def with_bone(found: Study) -> dict[str, list[Row]]:
    """The rows of the run and of the maps; where the images are CT, the run's with the Dice of bone."""
    own, *maps = found.results
    if found.outcomes[0].reference.unit == "HU":
        for row, one in zip(found.results[own], found.outcomes, strict=True):
            row["bone_dice"] = bone_dice(one.synthetic, one.reference, one.mask)
    return {name: found.results[name] for name in (own, *maps)}


def compare(out: Path, data: Path | None, models: list[str], overrides: list[str]) -> dict[str, list[Row]]:
    """The rows of each model, and of the two intensity maps."""
    config, table = cohort(out, data)
    results: dict[str, list[Row]] = {}
    for model in models:
        run = train(config, [f"cases={table}", *MODELS[model], *overrides], out=out / model / "run")
        results |= with_bone(study(run, out / model / "translated"))
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def table(results: dict[str, list[Row]]) -> str:
    """Mean ± standard deviation over the held-out cases, by method."""
    rows = [["method", "cases", *METRICS]]
    for method, scored in results.items():
        values = {name: [row[name] for row in scored if row.get(name) is not None] for name in METRICS}
        cells = [f"{np.mean(v):.4g} ± {np.std(v, ddof=1):.2g}" if len(v) > 1 else "" for v in values.values()]
        rows.append([method, str(summarise(scored)["mae"]["n"]), *cells])
    return columns(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("overrides", nargs="*", default=[])
    given = parser.parse_intermixed_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(table(compare(given.out, given.data, given.models, given.overrides)))
