"""A net that has seen one scanner on patients of others: T1 → FLAIR, sources harmonised in several ways or not at all.

    python tools/other_scanner.py DATA --out FOLDER [--steps 400] [--seed 0]

DATA holds three folders: nichart_t1_flair_3d2mm (trained on), NC_lgg_t1_flair_t1c_2d128 (39 patients with tumours,
thick slices) and openms_cross_mni2mm (2 patients with multiple sclerosis). All are reduced to the brain: by the masks
that came with them, or found by deepbet. Only the source is harmonised: what the target is scaled by stays the same,
so errors of all ways are in one unit. What it prints are the tables of docs/concepts/harmonisation.md; what was stopped
goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml
from t1_to_flair import CONFIG, FRACTIONS, PATIENTS
from unregistered_pairs import METRICS, SETTINGS, means

from medgan import Volume, index, prepare, read, train, write
from medgan.bodies import brain
from medgan.cases import Case, read_cases, write_cases
from medgan.compare import compare_results
from medgan.compare.comparison import Comparison
from medgan.compare.results import results_of
from medgan.compare.text import interval, number
from medgan.evaluate import Row
from medgan.metrics.statistics import CI
from medgan.progress import track
from medgan.study import study
from medgan.tables import columns

TRAINED, LGG, OPENMS = "nichart_t1_flair_3d2mm", "NC_lgg_t1_flair_t1c_2d128", "openms_cross_mni2mm"
HARMONISED = ("percentile", "zscore", "nyul")  # white stripe refuses half of these T1
RAW, MEDIAN, GAMMA = "raw numbers", "median", ", gamma"  # the source's curve drawn anew for each patch of training
WAYS = (RAW, MEDIAN, MEDIAN + GAMMA, *HARMONISED, "percentile" + GAMMA)
METHODS = {"supervised": "net", "monotone intensity map": "map"}


def of_one_scanner(data: Path, out: Path) -> list[Case]:
    """The cohort that is trained on, with patients of the same scanner held out."""
    roles = {"a": "t1.nii.gz", "b": "flair.nii.gz", "mask": "brainmask.nii.gz"}
    return index(data / TRAINED, **roles, out=out / "one_scanner.csv", fractions=FRACTIONS, patients=PATIENTS)


def of_others(folder: Path, out: Path) -> Iterator[Case]:
    """Patients of other scanners, each with a mask of the brain."""
    for place in track(sorted(path for path in folder.iterdir() if path.is_dir()), f"Brains of {folder.name}"):
        images = {
            "a": place / "t1.nii.gz",
            "b": place / "flair.nii.gz",
            "mask": out / "brains" / f"{place.name}.nii.gz",
        }
        if not images["mask"].exists():
            t1 = read(images["a"])
            write(stripped_brain(t1) if folder.name == OPENMS else brain(t1), images["mask"])
        yield Case(place.name, place.name, "test", images)


def stripped_brain(volume: Volume) -> Volume:
    """What is left of an image whose skull was taken off."""
    return Volume((volume.array > 0).astype(np.uint8), volume.grid, "label")


def prepared(table: Path, way: str, place: Path) -> Path:
    """Brains alone; the source harmonised, unless the way does without."""
    image = {"modality": "MR", "background": 0}
    harmonised = way.removesuffix(GAMMA) in HARMONISED
    source = {**image, "harmonise": {"name": way.removesuffix(GAMMA)} if harmonised else None}
    settings = place / "plan.yaml"
    place.mkdir(exist_ok=True)
    settings.write_text(yaml.safe_dump({"images": {"a": source, "b": image}, "mask": {"source": "given"}}))
    return Path(prepare(table, settings, out=place / "cohort").table or "")


def source_range(table: Path) -> list[float]:
    """Percentiles 0.1 and 99.9 of all brain voxels of the training cases."""
    cases = read_cases(table, split="train")
    brains = [read(case.images["a"]).array[read(case.images["mask"]).array > 0] for case in cases]
    return [round(float(end), 4) for end in np.percentile(np.concatenate(brains), [0.1, 99.9])]


def scored(table: Path, way: str, place: Path, given: argparse.Namespace) -> dict[str, list[Row]]:
    """Rows of the held-out cases by method: the net's, and those of maps fitted on the same training cases."""
    window = "times_median: [0, 2.5]" if way.startswith(MEDIAN) else f"range: {source_range(table)}"
    scale = way.removesuffix(GAMMA)
    unit = f"normalised:{scale}" if scale in HARMONISED else "a.u."
    prep = f'prep={{a: {{modality: MR, unit: "{unit}", {window}}}, b: {{modality: MR, times_median: [0, 2.5]}}}}'
    schedule = [f"train.{key}={given.steps}" for key in ("steps", "validate_every", "checkpoint_every")]
    schedule.append(f"train.seed={given.seed}")
    settings = [*SETTINGS, "augment.gamma=0.5"] if way.endswith(GAMMA) else SETTINGS
    run = train(CONFIG, [f"cases={table}", prep, *settings, *schedule], out=place / "run", device="cpu")
    return study(run, place / "made", device="cpu").results


def compared(rows: dict[str, list[Row]], cases: Sequence[Case], out: Path) -> Comparison:
    names = {case.name for case in cases if case.split == "test"}
    patient_of = {case.name: case.patient for case in cases}
    ours = {
        method: [{**row, "patient": patient_of[row["case"]]} for row in found if row["case"] in names]
        for method, found in rows.items()
    }
    found = [results_of(method, mine) for method, mine in ours.items()]
    return compare_results(found, metrics=METRICS, out=out)


def gains(found: Comparison) -> Iterator[list[str]]:
    """How far the net that sees sources scaled by their median is ahead of the others (Hodges–Lehmann)."""
    yield [f"{MEDIAN}, net, ahead of", "MAE lower by", "better in"]
    for pair in found.contests["mae"].pairs:
        sign = {pair.first: 1, pair.second: -1}.get(f"{MEDIAN}, net")
        if sign:
            ends = sorted((sign * pair.gain.ci.low, sign * pair.gain.ci.high))
            wins = pair.wins.wins if sign > 0 else pair.wins.losses
            other = pair.second if sign > 0 else pair.first
            cells = f"{number(sign * pair.gain.value, 1)} {interval(CI(*ends, pair.gain.ci.how), 1)}"
            yield [other, cells, f"{wins} of {pair.num_patients} patients"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    cohorts = {"the same scanner": of_one_scanner(given.data, given.out)}
    cohorts |= {name: list(of_others(given.data / name, given.out)) for name in (LGG, OPENMS)}
    table = write_cases([case for cases in cohorts.values() for case in cases], given.out / "cases.csv")
    rows: dict[str, list[Row]] = {}
    for way in WAYS:
        place = given.out / way.replace(", ", "_").replace(" ", "_")
        found = scored(prepared(table, way, place), way, place, given)
        rows |= {f"{way}, {name}": found[method] for method, name in METHODS.items()}
    for name, cases in cohorts.items():
        found = compared(rows, cases, given.out / "comparison" / name.replace(" ", "_"))
        print(f"\n{name}: {found.num_cases} cases of {found.num_patients} patients", columns(means(found)), sep="\n\n")
        print("", columns(list(gains(found))), sep="\n")


if __name__ == "__main__":
    main()
