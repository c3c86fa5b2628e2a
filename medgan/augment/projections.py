"""Real images, drawn again by a StyleGAN2 as well as it can: what it has learnt, and whom it knows by heart."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medgan.atomic import replacing
from medgan.augment.beside import beside
from medgan.augment.inversion import Inversion, find_style
from medgan.augment.volumes import volume_of
from medgan.cases import read_cases
from medgan.conditions import encode
from medgan.device import pick_device, settle
from medgan.errors import CasesError, InputError, OutputError
from medgan.formats import write
from medgan.formats.png import write_png
from medgan.imageset import ImageSet
from medgan.metrics.membership import Membership, membership
from medgan.nets.style import StyleGenerator
from medgan.pictures import montage
from medgan.progress import track
from medgan.run import SamplingRun, open_sampling_run
from medgan.views import image_set
from medgan.volume import Synthesis

__all__ = ["Projected", "project"]

AT_ONCE, SHOWN = 16, 12
IMAGES, STYLES, TABLE, PICTURE = "images", "styles.npy", "projections.csv", "projections.png"


@dataclass(frozen=True)
class Projected:
    """What came of the images of a table.

    Args:
        names: of the images.
        splits: of each.
        errors: (N,) mean absolute difference of each from what was drawn, as a share of the range of its channels.
        known: whether errors tell training patients from held-out ones; None without two patients of each.
        picture: the images that were drawn worst: real, drawn, and the difference. It shows patients.
    """

    names: Sequence[str]
    splits: Sequence[str]
    errors: Sequence[float]
    known: Membership | None
    picture: Path

    @property
    def means(self) -> Mapping[str, float]:
        """The mean error by split."""
        splits = list(dict.fromkeys(self.splits))
        return {
            split: float(np.mean([error for error, own in zip(self.errors, self.splits, strict=True) if own == split]))
            for split in splits
        }


def project(
    run: Path | str | SamplingRun,
    table: Path | str,
    out: Path | str,
    *,
    split: str | None = None,
    num: int = 64,
    steps: int = 300,
    device: str = "auto",
) -> Projected:
    """Find for real images the styles by which a StyleGAN2 draws what is most like them.

    Writes what was drawn, the styles (N, style_size) in the order of the table of errors, and a picture. A lesion that
    is in an image and not in what was drawn was not learnt. Training images that are drawn better than images of other
    patients are known by heart.

    Args:
        run: of a `stylegan2`, or its folder.
        table: of cases with the columns that the run learnt.
        out: a new folder.
        split: train, val or test; all if not given.
        num: at most so many images of each split, spread over it.
        steps: of the search for each.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        RunError: if the folder is no run of a sampler.
        InputError: if it is one of another model.
        CasesError: if the table has no such cases.
        OutputError: if `out` holds something.
    """
    run, out = run if isinstance(run, SamplingRun) else open_sampling_run(Path(run)), Path(out)
    generator = _generator(run, device)
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: is a folder with something in it; name a new or empty one")
    images, splits = _real(run, Path(table), split, num)
    found = _found(generator, run, images, steps)
    for place, name in enumerate(images.names):
        _write(run, found.image[place], name, out)
    errors = [float(error) / 2 for error in found.error]
    _write_table(images.names, splits, errors, out / TABLE)
    with replacing(out / STYLES) as temporary:
        np.save(temporary.open("wb"), found.style.numpy())
    return Projected(images.names, splits, errors, _known(images, splits, errors), _pictured(images, found, out))


def _generator(run: SamplingRun, device: str) -> StyleGenerator:
    game, place = run.sampler(), pick_device(device)
    generator = getattr(game, "maker", None)
    if not isinstance(generator, StyleGenerator):
        raise InputError(f"{run.path}: is a {run.config.model.name}, and only a stylegan2 has styles to search")
    settle(game, place, "32")
    return generator.requires_grad_(False)


def _real(run: SamplingRun, table: Path, split: str | None, num: int) -> tuple[ImageSet, list[str]]:
    config = run.config
    cases = read_cases(table, split=split, required=config.required, conditions=list(config.conditions))
    if not cases:
        raise CasesError(f"{table}: has no case{f' in the split {split}' if split else ''}")
    split_of = {case.patient: case.split for case in cases}
    known, label = list(config.conditions), "Reading real images"
    images = image_set(cases, config.prep, config.patch, label, least_area=config.slices, conditions=known)
    splits = [split_of[patient] for patient in images.patients]
    places = [[place for place, own in enumerate(splits) if own == split] for split in dict.fromkeys(splits)]
    chosen = [place for of_split in places for place in _spread(of_split, num)]
    return images.take(chosen), [splits[place] for place in chosen]


def _spread(places: Sequence[int], num: int) -> list[int]:
    """At most so many of them, evenly."""
    return [places[round(at)] for at in np.linspace(0, len(places) - 1, min(num, len(places)))]


def _found(generator: StyleGenerator, run: SamplingRun, images: ImageSet, steps: int) -> Inversion:
    asked, device = encode(run.config.conditions, images.conditions), next(generator.parameters()).device
    parts = []
    for begin in track(list(range(0, len(images), AT_ONCE)), f"Searching styles, {AT_ONCE} images at a time"):
        rows = slice(begin, begin + AT_ONCE)
        condition = None if asked is None else asked[rows].to(device)
        parts.append(find_style(generator, images.x[rows].to(device), condition=condition, steps=steps))
    return Inversion(*(torch.cat([part[field].cpu() for part in parts]) for field in range(3)))


def _write(run: SamplingRun, image: Tensor, name: str, out: Path) -> None:
    model, roles = run.config.model.name, run.config.prep.roles
    mark = Synthesis(
        model=model,
        weights_sha256=run.weights_sha256,
        version=run.synthesis(seed=0, number=0, conditions={}).version,
        description=f"drawn by {model} as like an image of a subject as it can, not for diagnostic use",
    )
    for role, channel in zip(roles, image, strict=True):
        tail = f"_{role}" if len(roles) > 1 else ""
        write(volume_of(run, role, channel, mark), out / IMAGES / f"{name}{tail}.nii.gz")


def _write_table(names: Sequence[str], splits: Sequence[str], errors: Sequence[float], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream)
        lines.writerow(["image", "split", "error"])
        lines.writerows((name, split, f"{error:.6f}") for name, split, error in zip(names, splits, errors, strict=True))


def _known(images: ImageSet, splits: Sequence[str], errors: Sequence[float]) -> Membership | None:
    """Of the errors as an attacker would use them: who is drawn well is taken for one of the training."""
    sides = [[place for place, split in enumerate(splits) if (split == "train") is learnt] for learnt in (True, False)]
    patients = [[images.patients[place] for place in side] for side in sides]
    if min(len(set(side)) for side in patients) < 2:
        return None
    members, others = (-np.array(errors)[side] for side in sides)
    return membership(members, others, *patients)


def _pictured(images: ImageSet, found: Inversion, out: Path) -> Path:
    worst = [int(place) for place in found.error.argsort(descending=True)[:SHOWN]]
    picture = montage([beside(found.image[place], images.x[place]) for place in worst])
    shows = {"Shows": "drawn by a network | image of a patient | difference; do not pass on"}
    write_png(picture, out / PICTURE, text=shows)
    return out / PICTURE
