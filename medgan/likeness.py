"""How alike a folder of synthetic images and one of real images are, and how varied: sets of any tool, unpaired."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medgan.atomic import replacing
from medgan.device import pick_device
from medgan.errors import InputError
from medgan.featured import Image, Look, Patients, Row, Store, features_of, find_images, settled, similarities
from medgan.metrics.floors import Floored
from medgan.metrics.measures import SET_MEASURES
from medgan.metrics.networks import CT_BIN_WIDTH_HU, ImageFeatures, Slices, image_features
from medgan.metrics.sets import REAL, SYNTHETIC, TEST, FeatureSet, SetScores, compare_sets
from medgan.processes import is_first
from medgan.results import versions

__all__ = ["SCHEMA", "Diversity", "Likeness", "likeness"]

Array = npt.NDArray[Any]
Range = tuple[float, float]

SCHEMA = "medgan.likeness/1"
_RESAMPLES = 2000
_NUM_NAMED = 3  # features that are told of as the farthest apart
_LABELS = {"frechet_distance": "FD", "kid": "KID"}
_BETTER = {"higher": "higher is better", "lower": "lower is better"}


@dataclass(frozen=True)
class Diversity:
    """How alike the images of one set are to each other: of random pairs, of different patients.

    Args:
        mean: MS-SSIM of the pairs, 0 to 1; 1 where all images are equal.
        low: of its 95 % interval, from resampling pairs.
        high: likewise.
        num_pairs: that were compared.
        kind: `ms_ssim_2025` of volumes, `ms_ssim_2003` with its number of scales of slices.
    """

    mean: float
    low: float
    high: float
    num_pairs: int
    kind: str


@dataclass(frozen=True)
class Likeness:
    """How alike two sets of images are.

    Args:
        scores: by the name of the features.
        diversity: by set, `synthetic`, `real` and `real test`; None where no two images have one size.
        counts: images and patients of each set.
        unit: of the images.
        window: what features see of the values: two values of the unit; None where each image has its own, from its
            0.5 to its 99.5 % quantile, and is seen as shares of that.
        settings: what was asked for; of features what tells them from others, of a network its hash.
        notes: what to know when reading it.
    """

    scores: Mapping[str, SetScores]
    diversity: Mapping[str, Diversity | None]
    counts: Mapping[str, Mapping[str, int]]
    unit: str
    window: Range | None
    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the schema that they follow; numbers that are not finite are None."""
        return {"schema": SCHEMA, **_plain(asdict(self)), "versions": {**versions(), "torch": torch.__version__}}

    def describe(self) -> str:
        """Lines for people."""
        counted = ", ".join(f"{n['images']} {name} of {n['patients']} patients" for name, n in self.counts.items())
        seen = "each through its own window" if self.window is None else "{:g} to {:g}".format(*self.window)
        lines = [f"{counted}; {self.unit}, {seen}", "each score: value; the same of real images beside real ones"]
        for name, found in self.scores.items():
            lines += ["", _basis(name, found), *_table(name, found), *(f"  note: {note}" for note in found.notes)]
        if self.diversity:
            lines += ["", "MS-SSIM of pairs within a set; above that of real images, they are too much alike"]
            lines += [f"  {name:<12}{_of_pairs(found)}" for name, found in self.diversity.items()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def likeness(
    synthetic: Path | str,
    real: Path | str,
    *,
    features: Sequence[str] = ("radiomic",),
    patients: Patients | None = None,
    real_test: Path | str | None = None,
    out: Path | str | None = None,
    window: Range | None = None,
    slices: Slices = "mean",
    every: int = 4,
    pairs: int = 100,
    splits: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> Likeness:
    """Compare a set of synthetic images with a set of real ones, whatever made them; no pairs are needed.

    Images are read one at a time and never resampled; only their features are kept. With `out` these are remembered
    there by the content of the files, so that what was stopped goes on, and a second call computes nothing again.

    Args:
        synthetic: a folder of volumes or pictures, a path with `{case}` or `{patient}` in it, or a table of cases.
        real: likewise. Images of one patient are never on both sides of a comparison of real images: which they are is
            told by a table of cases, by `{patient}` in the path, or by `patients`.
        features: names or files of what makes them, see `medgan.metrics.networks.image_features`.
        patients: a CSV file with columns `case` and `patient`, or the same as a mapping; an image of which nothing
            tells the patient is of one of its own.
        real_test: real images of other patients, beside which the synthetic ones are judged; halves of the real
            patients if not given.
        out: folder for `likeness.json`, `features-NAME.csv` of each kind of features, and what is remembered.
        window: what features see of the values, in the unit of the images. If not given, -1024 to 3071 of HU, else of
            each image from its own 0.5 to its 99.5 % quantile.
        slices: networks of pictures see the slices of a volume; `mean` makes one row of them, `each` a row of each.
        every: of how many axial slices they see one.
        pairs: of images of a set, at most, whose MS-SSIM is measured; 0 leaves it out.
        splits: of the real patients.
        seed: of everything random.
        device: auto, cpu or cuda, for networks.

    Raises:
        InputError: if a path, the features or the window cannot be used, units contradict each other, there are too few
            images, or a package is missing.
        OutputError: if `out` cannot be written.
    """
    sets = _sets({SYNTHETIC: synthetic, REAL: real, TEST: real_test}, patients)
    look, notes = settled(sets, window)
    makers = _makers(features, look, {"slices": slices, "every": every, "device": str(pick_device(device))})
    store = Store(None if out is None else Path(out) / "features")
    rows = {group: features_of(images, makers, look, store) for group, images in sets.items()}
    places = _told({"synthetic": synthetic, "real": real, "real_test": real_test})
    how = {"slices": slices, "every": every, "pairs": pairs, "splits": splits, "seed": seed}
    found = Likeness(
        scores={make.name: _scores(make, sets, rows, splits=splits, seed=seed) for make in makers},
        diversity=_diversities(sets, rows, look, store, pairs=pairs, seed=seed),
        counts={group: _counted(images) for group, images in sets.items()},
        unit=look.unit,
        window=look.window,
        settings={**places, "features": {make.name: make.identity for make in makers}, **how},
        notes=(*notes, *_lone_patients(sets)),
    )
    if out is not None and is_first():
        _write(Path(out), found, makers, sets, rows)
    return found


def _sets(places: Mapping[str, Path | str | None], patients: Patients | None) -> dict[str, list[Image]]:
    named = {group: Path(place) for group, place in places.items() if place is not None}
    return {group: find_images(place, group, patients) for group, place in named.items()}


def _makers(names: Sequence[str], look: Look, how: Mapping[str, Any]) -> list[ImageFeatures]:
    if not names:
        raise InputError("no features are named; name one or more, such as radiomic")
    width = CT_BIN_WIDTH_HU if look.unit == "HU" else None
    makers = [image_features(name, bin_width=width, **how) for name in dict.fromkeys(names)]
    if len({make.name for make in makers}) < len(makers):
        raise InputError("two kinds of features have one name; give their files different names")
    return makers


def _scores(
    make: ImageFeatures,
    sets: Mapping[str, Sequence[Image]],
    rows: Mapping[str, Sequence[Row]],
    *,
    splits: int,
    seed: int,
) -> SetScores:
    of_set = {group: _feature_set(make.name, images, rows[group]) for group, images in sets.items()}
    found = compare_sets(
        of_set[SYNTHETIC], of_set[REAL], of_set.get(TEST), standardised=make.has_units, splits=splits, seed=seed
    )
    farthest = _farthest(make.columns, of_set[SYNTHETIC].rows, of_set[REAL].rows) if make.columns else []
    return replace(found, notes=(*found.notes, *farthest))


def _farthest(names: Sequence[str], synthetic: Array, real: Array) -> list[str]:
    """The features whose means differ most: they rule the distances, and say what to look at."""
    spread = real.std(axis=0)
    varied = spread > 1e-9 * (1 + np.abs(real.mean(axis=0)))
    apart = np.where(varied, synthetic.mean(axis=0) - real.mean(axis=0), 0) / np.where(varied, spread, 1)
    most = np.argsort(-np.abs(apart), kind="stable")[:_NUM_NAMED]
    return [f"farthest apart, in SD of the real images: {', '.join(f'{names[n]} {apart[n]:+.3g}' for n in most)}"]


def _feature_set(name: str, images: Sequence[Image], rows: Sequence[Row]) -> FeatureSet:
    sizes = {row[name].shape[1] for row in rows}
    if len(sizes) > 1:
        counts = " and ".join(map(str, sorted(sizes)))
        raise InputError(f"{name} makes {counts} features of images of different sizes; choose features of any size")
    owners = [image.patient for image, row in zip(images, rows, strict=True) for _ in row[name]]
    return FeatureSet(np.concatenate([row[name] for row in rows]), owners)


def _diversities(
    sets: Mapping[str, Sequence[Image]],
    rows: Mapping[str, Sequence[Row]],
    look: Look,
    store: Store,
    *,
    pairs: int,
    seed: int,
) -> dict[str, Diversity | None]:
    """By set; of none where no pairs are asked for."""
    found = {
        group: similarities(images, rows[group], look, store, most=pairs, seed=seed)
        for group, images in sets.items()
        if pairs
    }
    return {group: _diversity(told, seed) for group, told in found.items()}


def _diversity(found: Sequence[tuple[float, str]], seed: int) -> Diversity | None:
    values = np.array([value for value, _ in found if math.isfinite(value)])
    if not values.size:
        return None
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, values.size, (_RESAMPLES, values.size))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    kinds = dict.fromkeys(kind for _, kind in found)
    return Diversity(float(values.mean()), float(low), float(high), values.size, " and ".join(kinds))


def _counted(images: Sequence[Image]) -> dict[str, int]:
    return {"images": len(images), "patients": len({image.patient for image in images})}


def _lone_patients(sets: Mapping[str, Sequence[Image]]) -> list[str]:
    real = sets[REAL]
    if any(image.patient != image.case for image in real):
        return []
    return ["each real image counts as a patient of its own; name patients if some have several, or floors are too low"]


# --- for people -------------------------------------------------------------------------------------------------------


def _basis(name: str, found: SetScores) -> str:
    counts = f"{found.num_synthetic} synthetic, {found.num_real} real of {found.num_real_patients} patients"
    axes = f", FD in {found.num_axes} principal axes" if found.reduced and found.num_axes else ""
    return f"{name}: {found.num_features} features; {counts}; {found.num_compared} or more on each side{axes}"


def _table(name: str, found: SetScores) -> list[str]:
    lines = {_label(score, name): _line(score, one) for score, one in found.scores.items()}
    lines[f"{_label('kid', name)}, all"] = f"{found.kid.value:.4g} (95 % {found.kid.low:.4g} to {found.kid.high:.4g})"
    return [f"  {label:<{max(map(len, lines))}}  {line}" for label, line in lines.items()]


def _label(score: str, name: str) -> str:
    """As it belongs into a paper: a distance bears the name of its features."""
    return f"{_LABELS[score]}-{name}" if score in _LABELS else SET_MEASURES[score].label


def _line(score: str, one: Floored) -> str:
    better = _BETTER.get(SET_MEASURES[score].better, "")
    sides = (one.value, one.low, one.high), (one.floor, one.floor_low, one.floor_high)
    told = ("{:.4g} ({:.4g} to {:.4g})".format(*side) for side in sides)
    return "; real ".join(told) + (f"; {better}" if better else "")


def _of_pairs(found: Diversity | None) -> str:
    if found is None:
        return "no two images of one size"
    return f"{found.mean:.4f} ({found.low:.4f} to {found.high:.4f}), {found.num_pairs} pairs, {found.kind}"


# --- for files --------------------------------------------------------------------------------------------------------


def _write(
    out: Path,
    found: Likeness,
    makers: Sequence[ImageFeatures],
    sets: Mapping[str, Sequence[Image]],
    rows: Mapping[str, Sequence[Row]],
) -> None:
    for make in makers:
        _write_features(out / f"features-{make.name}.csv", make, sets, rows)
    with replacing(out / "likeness.json") as temporary:
        temporary.write_text(json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_features(
    path: Path, make: ImageFeatures, sets: Mapping[str, Sequence[Image]], rows: Mapping[str, Sequence[Row]]
) -> None:
    size = rows[REAL][0][make.name].shape[1]
    columns = make.columns or [str(number) for number in range(size)]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "patient", "set", *columns])
        for group, images in sets.items():
            for image, row in zip(images, rows[group], strict=True):
                writer.writerows([image.case, image.patient, group, *one.tolist()] for one in row[make.name])


def _told(paths: Mapping[str, Path | str | None]) -> dict[str, str | None]:
    return {name: None if path is None else str(path) for name, path in paths.items()}


def _plain(value: Any) -> Any:
    """The same with None for every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
