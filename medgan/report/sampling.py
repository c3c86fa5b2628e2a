"""How the training of a sampler went: what it scored beside training images, what it made, and why it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medgan.doctor import spells
from medgan.errors import RunError
from medgan.formats.png import data_uri, encode_png
from medgan.report.charts import Family, draw_family
from medgan.report.page import write_page
from medgan.report.series import Lines, Points, marks, picked, series
from medgan.report.training import Course, split_told
from medgan.run import SamplingRun

__all__ = ["Sheet", "sampling_course", "sampling_report"]

PERCENT = (0.0, 100.0)
MOST_SHEETS, WIDEST_PX = 6, 900
NO_END = "The training has not ended: it is under way, or was stopped and goes on by the same command."


@dataclass(frozen=True)
class Sheet:
    """Samples of one validation.

    Args:
        step: of the training.
        uri: the picture.
        told: whether it is the last one or that of the weights that are kept, "" if neither.
    """

    step: int
    uri: str
    told: str


@dataclass(frozen=True)
class ScoreLine:
    """The scores of one set of images, in words."""

    name: str
    fd: str
    kid: str
    coverage: str


@dataclass(frozen=True)
class ClassLine:
    """What was learnt from of one class, or near one value of a number."""

    condition: str
    value: str
    images: int
    patients: int | None


def sampling_report(run: SamplingRun, path: Path) -> Path:
    """Write the page of a sampler's training, also of one that is not over.

    Args:
        run: of the sampler.
        path: of the page.

    Returns:
        The path.

    Raises:
        RunError: if the run has logged nothing yet or is damaged.
        OutputError: if the page cannot be written.
    """
    lines, config = run.metrics(), run.config
    if not lines:
        raise RunError(f"{run.path}: has logged nothing yet; let it train until step {config.train.log_every}")
    scores, sheets, learnt = _scores(run, lines), _sheets(run), _classes(run)
    places = {"results": scores, "pictures": sheets, "training": True, "images": True, "provenance": True}
    names = {"results": "Results", "pictures": "Samples", "training": "Training", "images": "Training images"}
    return write_page(
        path,
        "sampling.html.j2",
        title=f"Training of {config.model.name}, {', '.join(i.modality for i in config.prep.images.values())} images",
        places=[(place, names.get(place, place.capitalize())) for place, there in places.items() if there],
        lead=f"Step {lines[-1]['step']} of {config.train.steps}.",
        end=_end(lines, config.train.steps),
        scores=scores,
        num_made=config.samples,
        sheets=sheets,
        course=sampling_course(lines),
        counts=_counts(run),
        classes=learnt,
        provenance=_provenance(run),
    )


def _end(lines: Lines, steps: int) -> str:
    """Why it ended; runs of older versions do not say it, but may be through with their steps."""
    done = f"its {steps} steps are done" if lines[-1]["step"] >= steps else ""
    reason = lines[-1].get("stopped", done)
    return f"Why the training ended: {reason}." if reason else NO_END


# --- scores -----------------------------------------------------------------------------------------------------------


def _scores(run: SamplingRun, lines: Lines) -> list[ScoreLine]:
    """Of the kept weights, at the end, and of training images; nothing where there were no held-out images."""
    scored = [line for line in lines if isinstance(line.get("val"), Mapping) and "fd" in line["val"]]
    if not scored:
        return []
    kept, last = run.best if run.weights_path.is_file() else {}, scored[-1]
    training = {name: last["val"].get(f"{name}_of_training_images") for name in ("fd", "kid", "coverage")}
    found = [_score_line(f"Samples of the weights that are kept, step {kept['step']:.0f}", kept)] if kept else []
    return [
        *found,
        _score_line(f"Samples at step {last['step']}", last["val"]),
        _score_line("Training images, for comparison", training),
    ]


def _score_line(name: str, values: Mapping[str, float | None]) -> ScoreLine:
    fd, kid = ("–" if (far := values.get(one)) is None else f"{far:.3g}".replace("-", "−") for one in ("fd", "kid"))
    coverage = values.get("coverage")
    return ScoreLine(name, fd, kid, "–" if coverage is None else f"{100 * coverage:.1f} %")


# --- charts -----------------------------------------------------------------------------------------------------------


def sampling_course(lines: Lines) -> Course:
    """What the lines of a sampler's metrics.jsonl tell: charts, and what the doctor said.

    Args:
        lines: as `SamplingRun.metrics` gives them.
    """
    found = spells(lines, samples=True)
    last_step = max((line["step"] for line in lines), default=0)
    charts = [draw_family(family, last_step, marks(found)) for family in _families(lines)]
    return Course(tuple(chart for chart in charts if chart), tuple(found), sum("vitals" in line for line in lines))


def _families(lines: Lines) -> Iterable[Family]:
    scores, losses, vitals = (series(lines, kind) for kind in ("val", "loss", "vitals"))
    names = {"fd": "samples", "fd_of_training_images": "training images"}
    yield Family("FD-random-conv to held-out images", picked(scores, names), logarithmic=True)
    names = {"coverage": "samples", "coverage_of_training_images": "training images"}
    covered = picked(scores, names, times=100)
    yield Family("Held-out images with a sample nearby (coverage)", covered, "%", PERCENT)
    for player, who in (("G", "generator"), ("D", "discriminator")):
        terms = {name: points for name, points in losses.items() if name.startswith(f"{player}_")}
        yield Family(f"Losses of the {who}", terms, note="they do not tell how good the samples are")
    yield from _of_vitals(vitals)
    note = "at the steps that were logged"
    yield Family("Length of the gradients", series(lines, "grad"), logarithmic=True, note=note)


def _of_vitals(vitals: Mapping[str, Points]) -> Iterable[Family]:
    sorts = {"real": "real, training", "fake": "samples", "held_out": "real, held out"}
    rights = picked(vitals, {f"right_{sort}_b": name for sort, name in sorts.items()}, times=100)
    yield Family("Discriminator: images judged rightly", rights, "%", PERCENT, note="a guess is 50%")
    verdicts = picked(vitals, {f"logit_{sort}_b": name for sort, name in sorts.items()})
    yield Family("Discriminator: mean verdict", verdicts, note="held out below training: it learns by heart")
    names = {
        "variety_b": "from image to image",
        "variety_within_b": "from image to image of what was asked for",
        "spread_b": "inside an image",
    }
    yield Family("Samples: how much brightness varies", picked(vitals, names), note="1 is as among real images")
    changed = picked(vitals, {"changed": "each change"}, times=100)
    yield Family("Adaptive changes: how often", changed, "%", PERCENT, note="80% is the most")


# --- pictures ---------------------------------------------------------------------------------------------------------


def _sheets(run: SamplingRun) -> list[Sheet]:
    """Some of the contact sheets, from the first to the last, the one of the kept weights among them."""
    paths = {int(path.stem.removeprefix("step_")): path for path in sorted(run.images.glob("step_*.png"))}
    kept = int(run.best.get("step") or 0) if run.weights_path.is_file() else 0
    shown = _spread_out(sorted(paths), kept)
    return [Sheet(step, _picture(paths[step]), _told(step, kept, max(paths))) for step in shown]


def _spread_out(steps: Sequence[int], kept: int) -> list[int]:
    """At most MOST_SHEETS of them, the first, the last and `kept` included.

    Example:
        >>> _spread_out([10, 20, 30, 40, 50, 60, 70, 80, 90], kept=20)
        [10, 20, 30, 50, 70, 90]
    """
    if len(steps) <= MOST_SHEETS:
        return list(steps)
    chosen = {steps[round(place)] for place in np.linspace(0, len(steps) - 1, MOST_SHEETS - 1)}
    return sorted(chosen | ({kept} & set(steps)))


def _told(step: int, kept: int, last: int) -> str:
    return ", ".join([*(["of the weights that are kept"] if step == kept else []), *(["last"] if step == last else [])])


def _picture(path: Path) -> str:
    """The picture with its marks, made smaller if need be."""
    try:
        with Image.open(path) as image:
            if image.width <= WIDEST_PX:
                return data_uri(path.read_bytes())
            text = {str(name): str(value) for name, value in getattr(image, "text", {}).items()}
            size = WIDEST_PX, round(image.height * WIDEST_PX / image.width)
            pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))
    except (OSError, SyntaxError, ValueError) as error:
        raise RunError(f"{path}: is no picture of a validation ({error}); delete it") from None
    return data_uri(encode_png(pixels, text=text))


# --- the card ---------------------------------------------------------------------------------------------------------


def _counts(run: SamplingRun) -> dict[str, str]:
    known = {
        "num_train_images": "images",
        "num_train_patients": "patients",
        "num_val_patients": "held-out patients",
    }
    return {label: f"{run.card[name]}" for name, label in known.items() if name in run.card}


def _classes(run: SamplingRun) -> list[ClassLine]:
    found: list[ClassLine] = []
    for name, condition in run.config.conditions.items():
        seen: Mapping[str, Any] = run.card.get("conditions", {}).get(name, {})
        patients = seen.get("patients_by_class", {})
        found += [ClassLine(name, one, n, patients.get(one)) for one, n in seen.get("images_by_class", {}).items()]
        low, high = condition.range or (0.0, 0.0)
        knots = np.linspace(low, high, condition.knots)
        by_knot = zip(knots, seen.get("images_by_knot", ()), strict=False)
        found += [ClassLine(name, f"around {knot:g}", count, None) for knot, count in by_knot]
    return found


def _provenance(run: SamplingRun) -> dict[str, str]:
    config, train = run.config, run.config.train
    model = ", ".join(f"{name} {value}" for name, value in config.model.model_dump(mode="json").items())
    known = {
        "run": str(run.path),
        "model": model,
        "image": f"{' × '.join(map(str, config.size))} voxels, {len(config.prep.roles)} channels",
        "batch": str(train.batch),
        "learning rate": f"{train.lr:g}",
        "seed": str(train.seed),
        **split_told(run.card),
        "patience": f"{train.patience} validations" if train.patience else "none: all steps are made",
        "medgan": str(run.card.get("medgan", "")),
    }
    return known | ({"weights": f"sha256:{run.weights_sha256}"} if run.weights_path.is_file() else {})
