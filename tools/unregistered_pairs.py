"""What pairs that lie apart cost, and what registering them gives back: T1 → FLAIR on real brains.

    python tools/unregistered_pairs.py DATA --out FOLDER [--folds 3] [--steps 400] [--seed 0]

DATA is that of tools/t1_to_flair.py, whose FLAIR lie on T1. Each FLAIR is moved by a drawn rigid motion, through its
header alone, and brought back onto the grid of T1: as the header says, or registered. Trainings on either, and on the
pairs as they came, are judged on patients held out, each once, by the pairs as they came. What it prints are the tables
of docs/concepts/registration-error.md; what was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation
from t1_to_flair import CONFIG, PATIENTS

from medgan import Grid, Volume, index, read, train, translate, write
from medgan.cases import Case, read_cases, write_cases
from medgan.compare import compare_results
from medgan.compare.comparison import Comparison
from medgan.compare.results import results_of
from medgan.compare.text import heading, interval, mean_cells, number
from medgan.config import load
from medgan.evaluate import Row, evaluate, score
from medgan.prep import in_contract_unit
from medgan.progress import track
from medgan.registration import register
from medgan.resample import resample
from medgan.scoring import Scoring
from medgan.splits import table_paths
from medgan.tables import columns

# Standard deviation of the motion along each axis, mm, and about it, degrees.
MOTIONS = {"1 mm, 0.5°": (1.0, 0.5), "2 mm, 1°": (2.0, 1.0), "5 mm, 2.5°": (5.0, 2.5)}
AS_CAME, BY_HEADER, REGISTERED = "as they came", "by the header", "registered"
METRICS = ["mae", "psnr", "ssim"]
SETTINGS = [
    "model={name: supervised, generator: {name: res_unet_32, width: 12, norm: batch}}",
    "weights={body_only: true}",
    *("train.lr=0.001", "train.ema=0.99", "train.betas=[0.9, 0.999]", "train.precision=bf16", "overlap=0.25"),
]


@dataclass(frozen=True)
class Way:
    """How the FLAIR that are trained on were laid upon T1."""

    motion: str
    laid: str

    @property
    def name(self) -> str:
        return AS_CAME if self.laid == AS_CAME else f"moved by {self.motion}; {self.laid}"

    @property
    def folder(self) -> str:
        return "_".join(re.findall(r"[a-z0-9.]+", self.name))


WAYS = [Way("", AS_CAME), *(Way(motion, laid) for motion in MOTIONS for laid in (BY_HEADER, REGISTERED))]


def motion_of(name: str, case: Case, centre_mm: np.ndarray) -> np.ndarray:
    """(4, 4), world to world: about the middle of the image."""
    shift_mm, turn_deg = MOTIONS[name]
    rng = np.random.default_rng([int(shift_mm), *case.name.encode()])
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(rng.normal(0, turn_deg, 3), degrees=True).as_matrix()
    motion[:3, 3] = centre_mm - motion[:3, :3] @ centre_mm + rng.normal(0, shift_mm, 3)
    return motion


def lay(case: Case, way: Way) -> tuple[Volume, float]:
    """The FLAIR on the grid of T1 again, and how far its brain then lies from where it was: mean distance, mm."""
    t1, flair, mask = (read(case.images[role]) for role in ("a", "b", "mask"))
    centre = flair.grid.to_world((np.array(flair.grid.shape) - 1) / 2)
    motion = motion_of(way.motion, case, centre)
    moved = replace(flair, grid=Grid(flair.grid.shape, motion @ flair.grid.affine))
    found = register(t1, moved) if way.laid == REGISTERED else None
    back = np.eye(4) if found is None else found.matrix
    brain = t1.grid.to_world(np.argwhere(mask.array > 0))
    apart = np.linalg.norm(placed(back, brain) - placed(motion, brain), axis=1).mean()
    return resample(moved, t1.grid) if found is None else found.moved(moved, t1.grid, outside=0), float(apart)


def placed(matrix: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return np.asarray(positions @ matrix[:3, :3].T + matrix[:3, 3])


def lay_all(cases: list[Case], way: Way, out: Path) -> dict[str, float]:
    """Write the laid images, unless they are there; how far each lies off, mm."""
    told = out / way.folder / "apart_mm.json"
    if not told.exists():
        apart = {}
        for case in track(cases, f"Laying, {way.name}"):
            laid, apart[case.name] = lay(case, way)
            write(laid, out / way.folder / f"{case.name}.nii.gz")
        told.write_text(json.dumps(apart, indent=2) + "\n")
    return dict(json.loads(told.read_text()))


def with_laid(table: Path, way: Way, out: Path) -> Path:
    """The table, but for the held-out cases with the laid images."""
    if way.laid == AS_CAME:
        return table
    laid = [case if case.split == "test" else of_way(case, way, out) for case in read_cases(table)]
    return write_cases(laid, out / f"{way.folder}-{table.name}")


def of_way(case: Case, way: Way, out: Path) -> Case:
    return replace(case, images={**case.images, "b": out / way.folder / f"{case.name}.nii.gz"})


def judged(table: Path, way: Way, out: Path, given: argparse.Namespace) -> list[Row]:
    """Train on one fold, translate who is held out, score by the pairs as they came."""
    place = out / f"{way.folder}-{table.stem}"
    schedule = [f"train.{key}={given.steps}" for key in ("steps", "validate_every", "checkpoint_every")]
    schedule.append(f"train.seed={given.seed}")
    run = train(CONFIG, [f"cases={with_laid(table, way, out)}", *SETTINGS, *schedule], out=place, device="cpu")
    translate(run, table, place / "made", split="test", device="cpu")
    return evaluate(place / "made", table, split="test", run=place)


def compared(rows: Mapping[Way, list[Row]], out: Path) -> Comparison:
    return compare_results([results_of(way.name, scored) for way, scored in rows.items()], metrics=METRICS, out=out)


def means(found: Comparison) -> list[list[str]]:
    """Means over cases with their intervals over patients, a row a method."""
    contests = [found.contests[name] for name in METRICS]
    cells = [[f"{mean} {ci}" for mean, ci, _ in mean_cells(one)] for one in contests]
    return [["", *map(heading, contests)], *([name, *row] for name, *row in zip(found.methods, *cells, strict=True))]


def gains(found: Comparison) -> Iterator[list[str]]:
    """How much the pairs as they came are ahead of the others: Hodges–Lehmann, and how often."""
    yield ["as they came, ahead of", "MAE lower by", "SSIM higher by", "MAE better in"]
    for mae, ssim in zip(found.contests["mae"].pairs, found.contests["ssim"].pairs, strict=True):
        if mae.first == AS_CAME:
            values = [f"{number(one.gain.value, k)} {interval(one.gain.ci, k)}" for one, k in ((mae, 1), (ssim, 3))]
            yield [mae.second, *values, f"{mae.wins.wins} of {mae.num_patients} patients"]


def distances(apart: Mapping[Way, Mapping[str, float]]) -> Iterator[list[str]]:
    """How far off the pairs are."""
    yield ["pairs", "apart, mm: median", "least", "most"]
    for way, found in apart.items():
        values = list(found.values())
        yield [way.name, f"{np.median(values):.2f}", f"{min(values):.2f}", f"{max(values):.2f}"]


def alone(case: Case, way: Way, out: Path) -> Row:
    """What lying apart counts in an evaluation: the laid image scored as if it were a flawless translation."""
    intensity = load(CONFIG).prep.b
    laid, true = (
        in_contract_unit(read(path), intensity) for path in (of_way(case, way, out).images["b"], case.images["b"])
    )
    how = Scoring(value_range=intensity.output_range)
    return {**score(laid, true, read(case.images["mask"]), case=case.name, how=how), "patient": case.patient}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    roles = {"a": "t1.nii.gz", "b": "flair.nii.gz", "mask": "brainmask.nii.gz"}
    table, out = given.out / "cases.csv", given.out
    cases = index(given.data, **roles, out=table, folds=given.folds, fractions=(0.8, 0.2, 0), patients=PATIENTS)
    moved = [way for way in WAYS if way.laid != AS_CAME]
    apart = {way: lay_all(cases, way, out) for way in moved}
    folds = table_paths(table, given.folds)
    trained = {way: [row for fold in folds for row in judged(fold, way, out, given)] for way in WAYS}
    laid = {way: [alone(case, way, out) for case in cases] for way in moved}
    judged_alone, judged_trained = compared(laid, out / "laid"), compared(trained, out / "trained")
    print(columns(list(distances(apart))))
    print("\nThe laid FLAIR against FLAIR", columns(means(judged_alone)), sep="\n\n")
    print("\nTranslations of nets that were trained on the pairs", columns(means(judged_trained)), sep="\n\n")
    print("", columns(list(gains(judged_trained))), sep="\n")


if __name__ == "__main__":
    main()
