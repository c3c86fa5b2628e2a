"""T1 → FLAIR on real brains: index, train, translate held-out patients, score beside two intensity maps.

    python tools/t1_to_flair.py DATA --out FOLDER [key=value ...]

DATA holds a folder a scan with t1.nii.gz, flair.nii.gz and brainmask.nii.gz, and patients.csv beside the script says
which scans are of one person. What it prints is the table of docs/benchmarks/t1_to_flair.md; results.json holds the
rows behind it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from medgan import index, train
from medgan.evaluate import summarise
from medgan.study import Study, study
from medgan.tables import columns

HERE = Path(__file__).parent
CONFIG = HERE.parent / "configs" / "t1_to_flair.yaml"
PATIENTS = HERE / "t1_to_flair_patients.csv"
FRACTIONS = (0.6, 0.15, 0.25)
METRICS = ("mae", "psnr", "ssim")


def run(data: Path, out: Path, overrides: list[str], *, seed: int = 0, device: str = "auto") -> Study:
    """The whole protocol; a run that was stopped goes on."""
    table = out / "cases.csv"
    if not table.exists():
        roles = {"a": "t1.nii.gz", "b": "flair.nii.gz", "mask": "brainmask.nii.gz"}
        index(data, **roles, out=table, fractions=FRACTIONS, seed=seed, patients=PATIENTS)
    settings = [f"cases={table}", f"train.seed={seed}", *overrides]
    done = train(CONFIG, settings, out=out / "run", device=device)
    found = study(done, out / "translated", device=device)
    (out / "results.json").write_text(json.dumps(found.results, indent=2) + "\n")
    return found


def table(found: Study) -> str:
    """Mean ± standard deviation over the held-out cases, by method."""
    rows = [["method", "cases", *METRICS]]
    for method, scored in found.results.items():
        summary = summarise(scored)
        cells = [f"{summary[name]['mean']:.4g} ± {summary[name]['sd']:.2g}" for name in METRICS]
        rows.append([method, str(summary["mae"]["n"]), *cells])
    return columns(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    print(table(run(given.data, given.out, given.overrides, seed=given.seed, device=given.device)))
