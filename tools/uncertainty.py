"""Dropout samples, an ensemble of seeds and the fusion of three planes, on real brains: image, σ, and σ put right.

    python tools/uncertainty.py DATA --out FOLDER [key=value ...]

DATA is the folder that tools/t1_to_flair.py takes. Five short trainings of one recipe are joined in three ways. The
factor that σ lacks is measured on the validation patients alone; what it brings is told on the held-out ones. What it
prints is a table of docs/how-to/uncertainty.md, `python tools/figures.py calibration FOLDER` draws the picture there,
results.json holds the rows behind it. A study that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compare_models import cohort

from medgan import evaluate, read, train, translate, write
from medgan.evaluate import Row, summarise
from medgan.match import map_path
from medgan.run import Run
from medgan.tables import columns

SHORT = ["train.batch=4", "train.steps=300", "train.validate_every=300", "train.checkpoint_every=100"]
RECIPE = ["model.generator.dropout=true", *SHORT]
RUNS = {
    "axial": [],
    "coronal": ["patch=[64,1,64]"],
    "sagittal": ["patch=[1,64,64]"],
    "seed 1": ["train.seed=1"],
    "seed 2": ["train.seed=2"],
}
IMAGE = {"MAE": "mae", "PSNR": "psnr", "SSIM": "ssim", "roughness": "slice_roughness"}
SIGMA = {"±68 %": "coverage_68", "±95 %": "coverage_95", "ENCE": "ence", "rank corr.": "spearman"}
SCALED = ("±68 %", "±95 %", "ENCE")


@dataclass(frozen=True)
class Way:
    """How the runs are joined: the first one, those with it, and how often each translates a source."""

    run: str
    joined: tuple[str, ...] = ()
    samples: int | None = None


WAYS = {
    "axial": Way("axial"),
    "coronal": Way("coronal"),
    "sagittal": Way("sagittal"),
    "6 dropout samples": Way("axial", samples=6),
    "3 seeds": Way("axial", ("seed 1", "seed 2")),
    "3 planes": Way("axial", ("coronal", "sagittal")),
}


@dataclass(frozen=True)
class Found:
    """What became of one way, on the held-out cases.

    Args:
        rows: as `medgan.evaluate` tells them.
        factor: by which σ is too small on the validation cases; None where there is no σ.
        scaled: the rows with σ times the factor.
    """

    rows: list[Row]
    factor: float | None = None
    scaled: list[Row] = field(default_factory=list)


def trained(out: Path, data: Path, overrides: Sequence[str]) -> dict[str, Run]:
    """The runs, by name; one that was stopped goes on."""
    config, table = cohort(out, data)
    settings = {name: [f"cases={table}", *RECIPE, *changed, *overrides] for name, changed in RUNS.items()}
    return {name: train(config, own, out=out / "runs" / name) for name, own in settings.items()}


def measured(way: Way, runs: Mapping[str, Run], out: Path) -> Found:
    """Translate and score; roughness is from bottom to top for all, across the slices of the axial run."""
    first, table = runs[way.run], runs[way.run].config.cases
    scoring: dict[str, Any] = {"run": runs["axial"].path}
    joined = [runs[name] for name in way.joined]
    has_sigma = bool(joined or way.samples)
    for split in ("val", "test") if has_sigma else ("test",):
        translate(first, table, out / split, split=split, samples=way.samples, with_runs=joined)
    rows = evaluate(out / "test", table, split="test", out=out / "scores", **scoring)
    if not has_sigma:
        return Found(rows)
    factor = lacking(evaluate(out / "val", table, split="val", **scoring))
    maps = scaled_maps(out / "test", [row["case"] for row in rows], factor, out / "scaled")
    return Found(rows, factor, evaluate(out / "test", table, split="test", std=maps, out=out / "rescored", **scoring))


def lacking(rows: Sequence[Row]) -> float:
    """The factor by which σ would have to be multiplied over all cases, which count alike: `sigma_scale` joined."""
    return math.sqrt(sum(row["sigma_scale"] ** 2 for row in rows) / len(rows))


def scaled_maps(folder: Path, cases: Sequence[str], factor: float, out: Path) -> Path:
    """The maps of σ in a folder of translations times a factor, written into another folder."""
    for case in cases:
        place = map_path(folder / f"{case}.nii.gz", "std")
        sigma = read(place)
        write(sigma.with_array(sigma.array * factor), out / place.name)
    return out


def table(results: Mapping[str, Found]) -> str:
    """Means over the held-out cases, by way; the last columns are those of σ times the factor."""
    head = ["", *IMAGE, *SIGMA, "factor", *(f"then {name}" for name in SCALED)]
    num_cases = len(next(iter(results.values())).rows)
    return columns([head, *([name, *_cells(found)] for name, found in results.items())]) + f"\n{num_cases} cases"


def _cells(found: Found) -> list[str]:
    image = _means(found.rows, IMAGE.values())
    if found.factor is None:
        return [*image, *[""] * (len(SIGMA) + 1 + len(SCALED))]
    return [
        *image,
        *_means(found.rows, SIGMA.values()),
        f"{found.factor:.2f}",
        *_means(found.scaled, (SIGMA[name] for name in SCALED)),
    ]


def _means(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    means = summarise(rows)
    return ["" if (mean := means[name]["mean"]) is None else _shown(name, mean) for name in names]


def _shown(name: str, mean: float) -> str:
    if name.startswith("coverage"):
        return f"{mean:.0%}"
    return f"{mean:.1f}" if name == "mae" else f"{mean:.2f}" if name in ("psnr", "slice_roughness") else f"{mean:.3f}"


def compare(data: Path, out: Path, overrides: Sequence[str] = ()) -> dict[str, Found]:
    """All ways, on patients that no run has seen."""
    out.mkdir(parents=True, exist_ok=True)
    runs = trained(out, data, overrides)
    results = {name: measured(way, runs, out / name) for name, way in WAYS.items()}
    told = {name: vars(found) for name, found in results.items()}
    (out / "results.json").write_text(json.dumps(told, indent=2) + "\n")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", default=[])
    given = parser.parse_intermixed_args()
    print(table(compare(given.data, given.out, given.overrides)))
