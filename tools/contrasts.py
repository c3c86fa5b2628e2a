"""One contrast, two, and two of which one may be missing: T1 (+ T2) → FLAIR on real brains, each held out once.

    python tools/contrasts.py DATA --out FOLDER [key=value ...]

DATA holds a folder a patient with skull-stripped t1.nii.gz, t2.nii.gz and flair.nii.gz on one grid. For each patient
three short trainings of configs/t1_t2_to_flair.yaml, with the supervised net of tools/compare_models.py since they are
too short for a GAN, and a map of intensities see all the others. Validation needs a case, and there is none to spare:
it is the held-out one, looked at once, after the last step, so that nothing is chosen by it. What this prints is the
table of docs/how-to/multi-contrast.md, results.json holds the rows behind it. A study that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from compare_models import MODELS as RECIPES

from medgan import Volume, evaluate, index, read, train, translate, write
from medgan.cases import Case, read_cases, write_cases
from medgan.evaluate import Row
from medgan.run import Run
from medgan.study import study
from medgan.tables import columns

CONFIG = Path(__file__).parents[1] / "configs" / "t1_t2_to_flair.yaml"
SHORT = [
    *RECIPES["supervised"],
    "train.batch=4",
    "train.steps=400",
    "train.validate_every=100000",
    "train.checkpoint_every=100",
]
MODELS = {
    "T1": ["prep.contrasts={}", "prep.contrast_dropout=0"],
    "T1 + T2": ["prep.contrast_dropout=0"],
    "T1 + T2, dropout": [],
}
MISSING = {"T1": {"": "T1"}, "T1 + T2": {"": "T1 + T2"}, "T1 + T2, dropout": {"": "T1 + T2", "t2": "T1", "a": "T2"}}
MAP = "monotone intensity map"
METRICS = ("mae", "psnr", "ssim")
Results = dict[tuple[str, str], list[Row]]


def found(data: Path, out: Path) -> list[Case]:
    """The patients, each with a mask of its brain: where the T1 is not zero."""
    table = out / "patients.csv"
    if not table.exists():
        t2, scans = {"t2": "t2.nii.gz"}, out / "scans.csv"
        cases = index(data, a="t1.nii.gz", contrasts=t2, b="flair.nii.gz", out=scans, split="train")
        write_cases([_masked(case, out / "masks") for case in cases], table)
    return read_cases(table)


def _masked(case: Case, folder: Path) -> Case:
    t1 = read(case.images["a"])
    mask = write(Volume((t1.array != 0).astype(np.uint8), t1.grid, "label"), folder / f"{case.name}.nii.gz")
    return replace(case, images={**case.images, "mask": mask})


def held_out(cases: Sequence[Case], one: Case, folder: Path) -> Path:
    """The table in which one patient is held out and all others are to train on."""
    shared = [replace(case, split="val" if case.patient == one.patient else "train") for case in cases]
    return write_cases(shared, folder / "cases.csv")


def without(table: Path, role: str) -> Path:
    """The table with the column of a role empty; the table itself where none is named."""
    if not role:
        return table
    cases = [replace(case, images={r: p for r, p in case.images.items() if r != role}) for case in read_cases(table)]
    return write_cases(cases, table.with_name(f"without_{role}.csv"))


def scored(run: Run, missing: str) -> list[Row]:
    """The held-out patient by a run, from what is left of the sources, inside the brain."""
    table, out = run.config.cases, run.path.with_name(f"without {missing}" if missing else "whole")
    translate(run, without(table, missing), out, split="val")
    return evaluate(out, table, split="val", run=run.path)


def compared(table: Path, out: Path, overrides: Sequence[str]) -> Results:
    """Rows of the held-out patient, by what a model was trained on and what it then sees."""
    results: Results = {}
    for model, changed in MODELS.items():
        run = train(CONFIG, [f"cases={table}", *SHORT, *changed, *overrides], out=out / model / "run")
        results |= {(model, seen): scored(run, missing) for missing, seen in MISSING[model].items()}
        if not run.config.prep.contrasts:
            results[MAP, model] = study(run, out / model / "whole", split="val").results[MAP]
    return results


def compare(data: Path, out: Path, overrides: Sequence[str] = ()) -> Results:
    """Rows of all patients, each held out once."""
    results: Results = {}
    cases = found(data, out)
    for one in cases:
        own = compared(held_out(cases, one, out / one.name), out / one.name, overrides)
        results = {key: [*results.get(key, []), *rows] for key, rows in own.items()}
    told = {f"{model}; sees {seen}": rows for (model, seen), rows in results.items()}
    (out / "results.json").write_text(json.dumps(told, indent=2) + "\n")
    return results


def table(results: Mapping[tuple[str, str], Sequence[Row]]) -> str:
    """Means over the patients, and the error of each."""
    names = [f"MAE {row['case']}" for row in next(iter(results.values()))]
    return columns([["trained on", "sees", "MAE", "PSNR", "SSIM", *names], *_lines(results)])


def _lines(results: Mapping[tuple[str, str], Sequence[Row]]) -> Iterator[list[str]]:
    for (model, seen), rows in results.items():
        mae, psnr, ssim = (np.mean([row[name] for row in rows]) for name in METRICS)
        yield [model, seen, f"{mae:.1f}", f"{psnr:.2f}", f"{ssim:.3f}", *(f"{row['mae']:.1f}" for row in rows)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", default=[])
    given = parser.parse_intermixed_args()
    print(table(compare(given.data, given.out, given.overrides)))
