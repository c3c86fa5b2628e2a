"""How good samplers are where the truth is known: phantoms of an organ, half of them with a lesion, over some seeds.

    python tools/sampler_checks.py --out FOLDER [--models stylegan2 dcgan …] [--seeds 3] [--steps 1500] [--size 16]

`gap closed` is of the root of the Fréchet distance between an untrained generator (0) and other real images (1), all
measured in the same way; it flatters, since an untrained generator makes nothing like an image. Factors are measured in
the images: Kolmogorov-Smirnov distance of their histograms to those of real images. `label` is the share of images that
show what they were asked for, TSTR the AUC of a classifier that was trained on samples alone and tried on real images;
both need a model with conditions. `shuffled` is the control: the same training with its labels shuffled.

A second table tells which weights a score would keep: at which step it was best, and the coverage of validation images
there.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from medgan.augment.tasks import Classification, fit_and_score
from medgan.cases import read_cases, write_cases
from medgan.imageset import ImageSet
from medgan.learner import new_game
from medgan.metrics.distribution import frechet_distance, gap_closed, neighbourhoods
from medgan.metrics.features import RandomConv
from medgan.metrics.reduction import Reduction
from medgan.models.base import Sampler
from medgan.phantom import factor_distances, factor_images, measure
from medgan.phantom.images import write_images
from medgan.run import SamplingRun, open_sampling_run
from medgan.sampling import latent, make
from medgan.tables import columns
from medgan.train import train

Scores = dict[str, float | None]
CLASSES = ("healthy", "lesion")
NUM_TRAIN, NUM_JUDGED, COMPONENTS = 1000, 500, 16
MODELS: dict[str, dict[str, Any]] = {
    "dcgan": {"model": {"name": "dcgan", "width": 32, "width_d": 32}, "lr": 2e-4, "betas": [0.5, 0.999]},
    "wgan": {"model": {"name": "wgan", "width": 32, "width_d": 32, "critic_moves": 3}, "lr": 2e-4, "betas": [0.0, 0.9]},
    "cgan": {"model": {"name": "cgan", "width": 32, "width_d": 32}, "lr": 2e-4, "betas": [0.0, 0.9]},
    "stylegan2": {
        "model": {"name": "stylegan2", "width": 16, "max_width": 64, "latent_size": 32, "style_size": 64}
        | {"r1": 0.02, "path_length": 0},
        "lr": 2.5e-3,
        "betas": [0.0, 0.99],
    },
    "r3gan": {"model": {"name": "r3gan", "width": 16, "max_width": 64, "gamma": 0.2}, "lr": 5e-4, "betas": [0.0, 0.9]},
}
CONDITIONAL = ("cgan", "stylegan2", "r3gan")


def main() -> None:
    """Train each model with each seed, and print what came of it."""
    args = _arguments()
    results: dict[str, list[Scores]] = {}
    kept: list[tuple[str, ...]] = [("model", "seed", *(f"{score}: step, coverage" for score in ("kid", "fd", "last")))]
    for name, seed, is_shuffled in _jobs(args):
        label = f"{name}, shuffled" if is_shuffled else name
        run = _trained(args, name, seed, shuffled=is_shuffled)
        scores = _scores(run, args.size, seed, conditional=name in CONDITIONAL)
        results.setdefault(label, []).append(scores)
        kept.append((label, str(seed), *_kept(run)))
        print(f"{label}, seed {seed}: {scores}", flush=True)
        (args.out / "checks.json").write_text(json.dumps(results, indent=1) + "\n")
    head = ("model", *next(iter(results.values()))[0])
    print(columns([head, *((label, *_summary(of_seeds)) for label, of_seeds in results.items())]))
    print(columns(kept))


def _jobs(args: argparse.Namespace) -> list[tuple[str, int, bool]]:
    jobs = [(name, seed, False) for name in args.models for seed in range(args.seeds)]
    shuffled = [name for name in args.models if name in CONDITIONAL][:1] if args.shuffled else []
    return [*jobs, *((name, seed, True) for name in shuffled for seed in range(args.seeds))]


def _summary(of_seeds: list[Scores]) -> list[str]:
    """Mean and range over the seeds."""
    told = []
    for name in of_seeds[0]:
        known = [value for scores in of_seeds if (value := scores[name]) is not None]
        told.append(f"{np.mean(known):.2f} ({min(known):.2f}–{max(known):.2f})" if known else "")
    return told


def _kept(run: SamplingRun) -> list[str]:
    """Where KID and FD were least, and the end: step and coverage."""
    exams = [(line["step"], line["val"]) for line in run.metrics() if "val" in line]
    chosen = [min(exams, key=lambda exam: float(exam[1][score])) for score in ("kid", "fd")]
    return [f"{step}, {scores['coverage']:.2f}" for step, scores in (*chosen, exams[-1])]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--shuffled", action="store_true", help="also the control with shuffled labels")
    return parser.parse_args()


def _trained(args: argparse.Namespace, name: str, seed: int, *, shuffled: bool) -> SamplingRun:
    table = args.out / f"set_{seed}" / "cases.csv"
    if not table.exists():
        write_images(table.parent, num=NUM_TRAIN + NUM_JUDGED, size=args.size, seed=100 + seed)
    table = _shuffled(table, seed) if shuffled else table
    label = f"{name}_shuffled" if shuffled else name
    return open_sampling_run(train(_config(args, name, seed, table, label), out=args.out / f"{label}_{seed}").path)


def _shuffled(table: Path, seed: int) -> Path:
    cases, rng = read_cases(table), np.random.default_rng(seed)
    labels = [cases[place].conditions["class"] for place in rng.permutation(len(cases))]
    mixed = [
        type(case)(case.name, case.patient, case.split, case.images, {"class": label})
        for case, label in zip(cases, labels, strict=True)
    ]
    return write_cases(mixed, table.with_name("shuffled.csv"))


def _config(args: argparse.Namespace, name: str, seed: int, table: Path, label: str) -> Path:
    chosen = MODELS[name]
    every = max(args.steps // 15, 1)
    values = {
        "cases": str(table.resolve()),
        "prep": {"images": {"image": {"modality": "MR", "range": [0, 1000]}}, "spacing_mm": [1, 1, 1]},
        "patch": [args.size, args.size, 1],
        "conditions": {"class": {"classes": list(CLASSES)}} if name in CONDITIONAL else {},
        "model": chosen["model"],
        "train": {"steps": args.steps, "batch": 32, "lr": chosen["lr"], "betas": chosen["betas"], "ema": 0.99}
        | {"decay_from": 1.0, "validate_every": every, "checkpoint_every": every, "log_every": 50, "seed": seed},
    }
    path: Path = args.out / f"{label}_{seed}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def _scores(run: SamplingRun, size: int, seed: int, *, conditional: bool) -> Scores:
    real, other = (factor_images(NUM_JUDGED, size=size, seed=9000 + 2 * seed + one) for one in range(2))
    made = _made(run, run.sampler(), conditional=conditional)
    untrained = _made(run, new_game(run.config).eval(), conditional=conditional)  # type: ignore[arg-type]
    reduction = Reduction.fit(RandomConv()(real.x), COMPONENTS)
    truth, floor, ceiling, got = (reduction(RandomConv()(x.x)) for x in (real, other, untrained, made))
    closed = gap_closed(*(math.sqrt(frechet_distance(truth, x)) for x in (got, floor, ceiling)))
    near, near_real = neighbourhoods(truth, got), neighbourhoods(truth, floor)
    apart = factor_distances(measure(real.x), measure(made.x))
    label, tstr = _labels(made, real, seed) if conditional else (None, None)
    return {
        "gap closed": closed,
        "coverage": near.coverage,
        "of real": near_real.coverage,
        "precision": near.precision,
        "recall": near.recall,
        "KS radius": apart["radius_px"],
        "label": label,
        "TSTR": tstr,
    }


def _made(run: SamplingRun, game: Sampler, *, conditional: bool) -> ImageSet:
    labels = [CLASSES[number % 2] for number in range(NUM_JUDGED)]
    z = latent(1, range(NUM_JUDGED), game.latent_size)
    x = make(game, z, run.config, {"class": labels} if conditional else {}, device=torch.device("cpu"))
    names = [f"SYN-{number}" for number in range(NUM_JUDGED)]
    return ImageSet(x, names, names, {"class": labels})


def _labels(made: ImageSet, real: ImageSet, seed: int) -> tuple[float, float]:
    shown = measure(made.x).lesion
    asked = np.array([label == "lesion" for label in made.conditions["class"]])
    task = Classification(condition="class").settled(made)
    outcome = fit_and_score(task, made, real, steps=150, seed=seed)
    return float((shown == asked).mean()), task.summary(outcome)["auc"]


if __name__ == "__main__":
    main()
