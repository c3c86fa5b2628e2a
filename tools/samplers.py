"""What a sampler is worth on labelled images: train it, sample, audit, and ask whether its images help a classifier.

    python tools/samplers.py pneumonia ../shared/data/pneumoniamnist_train_val.npz --out FOLDER
    python tools/samplers.py tumour ../shared/data/brain_tumor_mri_64_training.npz --out FOLDER
    python tools/samplers.py phantom --out FOLDER

Each stage is left out where its result is there already, so that it can be stopped and gone on with. The splits are by
image, equal ones left out: these sets tell no patients, so pictures of one person may lie on both sides.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import yaml

from medgan.augment.gate import audit_set
from medgan.augment.sample import sample
from medgan.augment.tasks import Classification
from medgan.augment.trial import try_set
from medgan.augment.utility import UtilitySettings
from medgan.cases import read_cases
from medgan.formats import read_header
from medgan.imageset import ImageSet
from medgan.phantom.images import write_images, write_table
from medgan.tables import tried_lines
from medgan.train import train

CONDITION = "class"
SPLITS = {"pneumonia": (1000, 700), "tumour": (600, 300)}  # images to train on, to hold out; the rest are for the test
STEPS = {"pneumonia": 3000, "tumour": 2000, "phantom": 3000}


def main() -> None:
    """Run all stages and print what came of each."""
    args = _arguments()
    table = args.out / "set" / "cases.csv"
    if not table.exists():
        _write_set(args.what, args.source, args.out / "set", args.seed)
    config = _config(args, table)
    run = train(config, out=args.out / "run", device=args.device)
    num = run.card["num_train_images"]  # type: ignore[attr-defined]
    sample(run.path, args.out / "made", num=num, least_patients=2, device=args.device)
    audited = audit_set(table, args.out / "made", run=run.path)
    print(f"audit: {audited.audit.verdict}; held-out scores: {json.dumps(run.best)}")
    _ask(args.out, table, args.fractions, args.task_steps, args.device)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(STEPS))
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=("stylegan2", "cgan"), default="stylegan2")
    parser.add_argument("--steps", type=int, help="of the sampler's training")
    parser.add_argument("--task-steps", type=int, default=200, help="of each classifier's")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.1, 1.0], help="of the real images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def _write_set(what: str, source: Path | None, folder: Path, seed: int) -> None:
    if source is None:
        write_images(folder, num=1200, size=32, seed=seed)
        return
    images = _images(source, seed)
    num_train, num_held = SPLITS[what]
    splits = {
        patient: "train" if place < num_train else "val" if place < num_train + num_held else "test"
        for place, patient in enumerate(images.patients)
    }
    write_table(images, folder, splits)


def _images(source: Path, seed: int) -> ImageSet:
    """All images of a file in a random order; rows of pictures run from anterior or superior down."""
    held = np.load(source, allow_pickle=False)
    if "images" in held:
        names = [str(name) for name in held["classes"]]
        pixels, labels = held["images"], [names[label] for label in held["labels"].ravel()]
    else:
        pixels = np.concatenate([held["train_images"], held["val_images"]])
        numbers = np.concatenate([held["train_labels"], held["val_labels"]]).ravel()
        labels = [("normal", "pneumonia")[number] for number in numbers]
    order = _different(pixels, np.random.default_rng(seed).permutation(len(pixels)))
    x = torch.from_numpy(pixels[order].astype(np.float32) / 127.5 - 1).transpose(1, 2).flip(2)[:, None]
    ids = [f"image{number:04d}" for number in order]
    return ImageSet(x.contiguous(), ids, ids, {CONDITION: [labels[place] for place in order]})


def _different(pixels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The places of images in that order, of equal ones the first alone: the others would leak between splits."""
    _, first = np.unique(pixels[order].reshape(len(order), -1), axis=0, return_index=True)
    return order[np.sort(first)]


def _config(args: argparse.Namespace, table: Path) -> Path:
    images = _size(table)
    settings = {
        "stylegan2": {
            "model": {"name": "stylegan2", "width": 16, "max_width": 64, "latent_size": 64, "style_size": 64}
            | {"r1": round(0.0002 * images[0] * images[1] / 32, 4), "path_length": 0},
            "train": {"lr": 0.0025, "betas": [0.0, 0.99], "ema": 0.997},
        },
        "cgan": {
            "model": {"name": "cgan", "width": 32, "width_d": 32, "latent_size": 64},
            "train": {"lr": 0.0002, "betas": [0.0, 0.9], "ema": 0.99},
        },
    }[args.model]
    schedule = {
        "steps": args.steps or STEPS[args.what],
        "batch": 32,
        "decay_from": 1.0,
        "validate_every": 250,
        "checkpoint_every": 250,
    }
    values = {
        "cases": str(table.resolve()),
        "prep": {"images": {"image": {"modality": "MR", "range": [0, 1000]}}, "spacing_mm": [1, 1, 1]},
        "patch": [*images, 1],
        "conditions": {CONDITION: {"classes": _classes(table)}},
        "model": settings["model"],
        "train": settings["train"] | schedule | {"seed": args.seed},
    }
    path = args.out / f"{args.what}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def _classes(table: Path) -> list[str]:
    """The classes in a table, by the alphabet."""
    return sorted({case.conditions[CONDITION] for case in read_cases(table)})


def _size(table: Path) -> tuple[int, int]:
    """Of the first image, pixels."""
    shape = read_header(read_cases(table)[0].images["image"]).grid.shape
    return shape[0], shape[1]


def _ask(out: Path, table: Path, fractions: list[float], steps: int, device: str) -> None:
    settings = UtilitySettings(task=Classification(condition=CONDITION), fractions=tuple(fractions), steps=steps)
    print(tried_lines(try_set(table, out / "made", settings, out=out, device=device)))


if __name__ == "__main__":
    main()
