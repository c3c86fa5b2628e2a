"""A trained sampler → a folder of synthetic images, their table of cases, and a manifest to make them again from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import medgan
from medgan.atomic import replacing
from medgan.augment.plan import Plan, Wish, planned
from medgan.augment.sets import MANIFEST, TABLE, read_manifest
from medgan.augment.volumes import volume_of
from medgan.cases import Case, write_cases
from medgan.data import flat_axis
from medgan.device import channels_last, pick_device, settle
from medgan.errors import InputError, OutputError
from medgan.formats import read, write
from medgan.formats.dicom import Subject
from medgan.formats.npz import StoredSet, write_set
from medgan.formats.png import mark_text, write_png
from medgan.models.base import Sampler
from medgan.processes import gathered, is_first, share
from medgan.progress import say, track
from medgan.run import SamplingRun, open_sampling_run
from medgan.sampling import contact_sheet, latent, make

__all__ = ["Sampled", "sample", "sample_again"]

SHEET, IMAGES, SET = "contact_sheet.png", "images", "set.npz"
ENDINGS = {"nifti": ".nii.gz", "dicom": "", "png": ".png", "npz": ".nii.gz"}
SHOWN = 32
BLOCK = 16


@dataclass(frozen=True)
class Sampled:
    """One synthetic image.

    Args:
        name: of its case; its patient is nobody and has the same name.
        number: in its set, from 0.
        paths: of its channels, by role.
        conditions: what it was asked for.
    """

    name: str
    number: int
    paths: Mapping[str, Path]
    conditions: Mapping[str, str] = field(default_factory=dict)


def sample(
    run: Path | SamplingRun,
    out: Path | str,
    *,
    num: int | None = None,
    seed: int = 0,
    conditions: Mapping[str, str] | None = None,
    balance: str | None = None,
    truncation: float | None = None,
    least_patients: int = 10,
    format: str = "nifti",  # noqa: A002 - the name of the option
    device: str = "auto",
) -> list[Sampled]:
    """Make synthetic images by a trained run; those that are there already from the same call are not made again.

    The folder holds `images/`, a table of cases in which each image is its own patient, all in the split train, a
    contact sheet, and `manifest.json`, from which `sample_again` makes the same bytes on the same machine. Images are
    made in blocks of a fixed number, so that nothing hangs on how many processes share the work or where it was
    stopped.

    Args:
        run: the folder of a sampler's run.
        out: the folder, new or of the same call.
        num: how many images; not with `balance`.
        seed: another seed, other images.
        conditions: what all images are asked for; what is not named comes as often as in the training images.
        balance: `max` or a number of images: as many of each class are made as its training images lack to that.
        truncation: see the model's card; None for none, which keeps the diversity.
        least_patients: classes with fewer training patients are refused: their images would be of persons.
        format: `nifti`, `dicom`, `png`, or `npz` for NIfTI and, beside it, all of it in one file, `set.npz`.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        RunError: if the folder is no run of a sampler.
        InputError: for conditions that the run does not know, or a class of too few patients.
        OutputError: if `out` holds something else or cannot be written.
    """
    run = run if isinstance(run, SamplingRun) else open_sampling_run(Path(run))
    if format not in ENDINGS:
        raise InputError(f"format {format!r} is unknown; accepted: {', '.join(ENDINGS)}")
    if truncation is not None and not truncation > 0:
        raise InputError(f"truncation is above 0, or left out for none; seen {truncation:g}")
    wish = Wish(num, seed, dict(conditions or {}), balance, truncation, least_patients)
    return _fulfil(run, Path(out), planned(run, wish), format, device)


def sample_again(
    manifest: Path | str, run: Path | SamplingRun, out: Path | str, *, device: str = "auto"
) -> list[Sampled]:
    """Make the set of a manifest once more.

    Raises:
        InputError: if it is no manifest, or was made by another run.
    """
    told = read_manifest(Path(manifest))
    run = run if isinstance(run, SamplingRun) else open_sampling_run(Path(run))
    if told["weights_sha256"] != run.weights_sha256:
        raise InputError(f"{manifest}: was made by other weights than those of {run.path}; name the run that made it")
    wish = Wish(**told["wish"])
    return _fulfil(run, Path(out), planned(run, wish), told["format"], device, made=told["made"])


# --- making -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    run: SamplingRun
    game: Sampler
    device: torch.device
    out: Path
    plan: Plan
    format: str
    made: datetime

    def name(self, number: int) -> str:
        return f"SYN-{self.run.weights_sha256[:8]}-{self.plan.wish.seed}-{number:05d}"

    def path(self, number: int, role: str) -> Path:
        roles = self.run.config.prep.roles
        tail = f"_{role}" if len(roles) > 1 else ""
        return self.out / IMAGES / f"{self.name(number)}{tail}{ENDINGS[self.format]}"

    def sampled(self, number: int) -> Sampled:
        paths = {role: self.path(number, role) for role in self.run.config.prep.roles}
        return Sampled(self.name(number), number, paths, self.plan.of(number))


def _fulfil(
    run: SamplingRun, out: Path, plan: Plan, format_: str, device: str, *, made: str | None = None
) -> list[Sampled]:
    facts = {"format": format_, "wish": asdict(plan.wish), **_facts(run)}
    place, game = pick_device(device), run.sampler()
    now = made or datetime.now().isoformat(timespec="seconds")
    made = gathered(_claim(out, facts, now) if is_first() else "")[0]
    settle(game, place, run.config.train.precision, channels_last(run.config.spatial_dims))
    job = _Job(run, game, place, out, plan, format_, datetime.fromisoformat(made))
    blocks = [range(begin, min(begin + BLOCK, plan.num)) for begin in range(0, plan.num, BLOCK)]
    own = share(blocks)
    todo = [block for block in own if not all(_is_there(job, number) for number in block)]
    if len(todo) < len(own):
        say(f"{out}: {len(own) - len(todo)} of {len(own)} blocks of images are there already")
    for block in track(todo, f"Sampling, {BLOCK} images at a time"):
        _make_block(job, block)
    gathered(True)
    done = [job.sampled(number) for number in range(plan.num)]
    if is_first():
        _tell(job, done)
    return done


def _is_there(job: _Job, number: int) -> bool:
    return all(path.exists() for path in job.sampled(number).paths.values())


def _make_block(job: _Job, block: range) -> None:
    images = _images(job, block)
    for number, image in zip(block, images, strict=True):
        for role, channel in zip(job.run.config.prep.roles, image, strict=True):
            path = job.path(number, role)
            if not path.exists():
                _write(job, number, role, channel, path)


def _images(job: _Job, block: Sequence[int]) -> Tensor:
    """(N, C, *spatial) in [-1, 1], by blocks of one size: another number at once may change the last digits."""
    z = latent(job.plan.wish.seed, [*block, *[0] * (BLOCK - len(block))], job.game.latent_size)
    asked = {name: [*(job.plan.of(number)[name] for number in block)] for name in job.run.config.conditions}
    filled = {name: [*values, *[values[0]] * (BLOCK - len(block))] for name, values in asked.items()}
    truncation = job.plan.wish.truncation
    made = make(job.game, z, job.run.config, filled, device=job.device, truncation=truncation)[: len(block)]
    if not bool(made.isfinite().all()):
        raise InputError(f"{job.run.path}: its generator makes values that are no numbers; train again")
    return made


def _write(job: _Job, number: int, role: str, channel: Tensor, path: Path) -> None:
    mark = job.run.synthesis(
        seed=job.plan.wish.seed,
        number=number,
        conditions=job.plan.of(number),
        truncation=job.plan.wish.truncation,
    )
    volume, image = volume_of(job.run, role, channel, mark), job.run.config.prep.images.get(role)
    limits = image.output_range if image else None
    write(volume, path, subject=_nobody(job, number, role), description=f"{role} by {mark.model}", limits=limits)


def _nobody(job: _Job, number: int, role: str) -> Subject | None:
    """Whom a DICOM image is of: all channels of an image are series of one study."""
    if job.format != "dicom":
        return None
    whole = f"{job.run.weights_sha256} {json.dumps(asdict(job.plan.wish))} {number}"
    subject = Subject.sampled(job.name(number), seed=whole, time=job.made)
    return replace(subject, seed=f"{whole} {role}")


# --- what is told of it -----------------------------------------------------------------------------------------------


def _claim(out: Path, facts: Mapping[str, Any], made: str) -> str:
    """Take the folder for this call, images of two calls are never mixed; when the call was first made."""
    manifest = out / MANIFEST
    if manifest.exists():
        held = read_manifest(manifest)
        if other := [key for key, value in facts.items() if held.get(key) != value]:
            raise OutputError(f"{out}: holds samples made otherwise ({', '.join(other)}); name another folder")
        return str(held["made"])
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: is a folder with something in it; name a new or empty one")
    with replacing(manifest) as temporary:
        temporary.write_text(json.dumps({**facts, "made": made}, indent=1) + "\n", encoding="utf-8")
    return made


def _facts(run: SamplingRun) -> dict[str, Any]:
    return {
        "synthetic": True,
        "medgan": medgan.__version__,
        "torch": torch.__version__,
        "model": run.config.model.name,
        "weights_sha256": run.weights_sha256,
        "split_sha256": run.card.get("split_sha256"),
        "contract": run.config.prep.model_dump(mode="json"),
        "patch": list(run.config.patch),
        "slices": run.config.slices,
        "conditions": list(run.config.conditions),
        "block": BLOCK,
    }


def _tell(job: _Job, done: Sequence[Sampled]) -> None:
    """The table, the contact sheet, and the manifest with a line an image."""
    cases = [Case(one.name, one.name, "train", one.paths, one.conditions) for one in done]
    write_cases(cases, job.out / TABLE)
    shown = range(min(SHOWN, len(done)))
    captions = [" ".join([str(number), *job.plan.of(number).values()]) for number in shown]
    picture = contact_sheet(_images_in_blocks(job, shown), captions)
    mark = job.run.synthesis(seed=job.plan.wish.seed, number=0, conditions={})
    write_png(picture, job.out / SHEET, text=mark_text(mark))
    if job.format == "npz":
        write_set(_stored(job, done), job.out / SET)
    lines = [_line(job, one) for one in done]
    with replacing(job.out / MANIFEST) as temporary:
        told = {key: value for key, value in read_manifest(job.out / MANIFEST).items() if key != "images"}
        temporary.write_text(json.dumps({**told, "images": lines}, indent=1) + "\n", encoding="utf-8")


def _stored(job: _Job, done: Sequence[Sampled]) -> StoredSet:
    """All images and masks as they were written, in one array."""
    roles, flat = job.run.config.prep.roles, flat_axis(job.run.config.patch)
    volumes = [[read(one.paths[role]) for role in roles] for one in done]
    arrays = np.array([[volume.array for volume in row] for row in volumes], dtype=np.float32)
    return StoredSet(
        images=arrays if flat is None else arrays.squeeze(flat + 2),
        names=[one.name for one in done],
        synthetic=[row[0].synthetic for row in volumes],
        conditions={name: [one.conditions[name] for one in done] for name in job.run.config.conditions},
        spacing_mm=[mm for axis, mm in enumerate(job.run.config.prep.spacing_mm) if axis != flat],
        units=[volume.unit for volume in volumes[0]],
        modalities=[volume.modality for volume in volumes[0]],
    )


def _images_in_blocks(job: _Job, shown: range) -> Tensor:
    return torch.cat([_images(job, shown[begin : begin + BLOCK]) for begin in range(0, len(shown), BLOCK)])


def _line(job: _Job, one: Sampled) -> dict[str, Any]:
    z = latent(job.plan.wish.seed, [one.number], job.game.latent_size)
    return {
        "name": one.name,
        "number": one.number,
        "latent_sha256": hashlib.sha256(z.numpy().tobytes()).hexdigest(),
        "conditions": dict(one.conditions),
        "files_sha256": {role: _digest(path) for role, path in one.paths.items()},
    }


def _digest(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
