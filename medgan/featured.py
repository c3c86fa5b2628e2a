"""Sets of images on disk as features: found, read one at a time, looked at alike, and remembered by their content."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan import __version__
from medgan.atomic import replacing
from medgan.cache import digest
from medgan.cases import listed, read_cases
from medgan.errors import InputError
from medgan.formats import read
from medgan.match import match
from medgan.metrics.image import ms_ssim_2025
from medgan.metrics.networks import ImageFeatures
from medgan.metrics.ssim import ms_ssim_2003
from medgan.prep import NORMALISED_UNIT
from medgan.processes import all_of, share
from medgan.progress import track

__all__ = ["Image", "Look", "Patients", "Row", "Store", "features_of", "find_images", "settled", "similarities"]

Array = npt.NDArray[Any]
Range = tuple[float, float]
Patients = Path | str | Mapping[str, str]
Row = dict[str, Array]

FULL_CT_HU: Range = (-1024.0, 3071.0)
OWN_QUANTILES = (0.5, 99.5)
UNKNOWN_UNIT = "a.u."
_SHAPE = "shape"
_SMALLEST_WINDOW = 11  # voxels, of the slices' MS-SSIM; each further scale asks for twice as many


@dataclass(frozen=True)
class Image:
    """One image of a set.

    Args:
        case: its name, unique in its set.
        patient: whose it is.
        group: name of the set.
        path: a file, or the folder of a DICOM series.
    """

    case: str
    patient: str
    group: str
    path: Path


@dataclass(frozen=True)
class Look:
    """How all images of a comparison are looked at.

    Args:
        unit: theirs; an image that states none is taken to be in it.
        window: lowest and highest value that are told apart; None where each image has its own.
    """

    unit: str
    window: Range | None

    def at(self, image: Image) -> tuple[Array, Range, tuple[float, float, float]]:
        """Voxels (X, Y, Z) in RAS order, the window to see them through, and their spacing, mm.

        Values of an image with its own window are shares of it, 0 to 1.

        Raises:
            InputError: if it cannot be read or is in another unit.
        """
        volume = read(image.path).without_padding().reorient("RAS")
        _refuse_unit(volume.unit, self.unit, image)
        if self.window is not None:
            return volume.array, self.window, volume.grid.spacing_mm
        low, high = (float(value) for value in np.percentile(volume.array, OWN_QUANTILES))
        if low == high:
            low, high = float(volume.array.min()), float(volume.array.max())
        shares = (volume.array.astype(np.float64) - low) / ((high - low) or 1)
        return np.clip(shares, 0, 1), (0.0, 1.0), volume.grid.spacing_mm


@dataclass(frozen=True)
class Store:
    """Arrays that are remembered in a folder; nothing is, without one."""

    folder: Path | None

    def get(self, key: str) -> Array | None:
        """What was put there; None where there is nothing, or it is damaged."""
        if self.folder is None or not (path := self.folder / f"{key}.npy").is_file():
            return None
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except (OSError, ValueError, EOFError):
            return None

    def put(self, key: str, found: Array) -> None:
        """Remember it, whole or not at all."""
        if self.folder is not None:
            with replacing(self.folder / f"{key}.npy") as temporary:
                np.save(temporary, found, allow_pickle=False)


# --- finding ----------------------------------------------------------------------------------------------------------


def find_images(place: Path, group: str, patients: Patients | None = None) -> list[Image]:
    """The images of one set, by name.

    Args:
        place: a folder of volumes or PNG files, or of a folder a case; a path with `{patient}` or `{case}` in it, where
            `*` stands for any part of a name, as `real/{patient}_*.nii.gz`; or a table of cases, of which the role `b`
            is taken, or the only one there is.
        group: name of the set.
        patients: a CSV file with columns `case` and `patient`, or the same as a mapping; what it does not name keeps
            the patient that the table or the path tells, else is of a patient of its own.

    Raises:
        InputError: if there is no image, or a table cannot be used.
    """
    told = patients if isinstance(patients, Mapping) else _read_patients(Path(patients)) if patients else {}
    if place.suffix.lower() == ".csv":
        found = [(case.name, case.patient, case.images[_role(place, case.images)]) for case in read_cases(place)]
    elif any(name in str(place) for name in ("{case}", "{patient}")):
        found = _by_rule(place)
    elif place.is_dir() and (pictures := sorted(place.glob("*.png"))):
        found = [(path.stem, path.stem, path) for path in pictures]
    else:
        found = [(one.case, one.patient, one.ref) for one in match(place, place) if one.ref is not None]
    return [Image(case, told.get(case, patient or case), group, path) for case, patient, path in found]


def _by_rule(rule: Path) -> list[tuple[str, str, Path]]:
    """Name, patient and path of what fits; a name that is there twice is the path within the folder instead."""
    home = next(parent for parent in rule.parents if not re.search(r"[{*]", str(parent)))
    pattern = re.escape(rule.relative_to(home).as_posix()).replace(r"\*", "[^/]*")
    for name in ("case", "patient"):
        pattern = pattern.replace(rf"\{{{name}\}}", f"(?P<{name}>[^/]+?)", 1).replace(rf"\{{{name}\}}", f"(?P={name})")
    inside = {path.relative_to(home).as_posix(): path for path in sorted(home.rglob("*"))}
    hits = [(name, path, told.groupdict()) for name, path in inside.items() if (told := re.fullmatch(pattern, name))]
    if not hits:
        raise InputError(
            f"{rule}: nothing there fits this rule; a name stands for {{patient}} or {{case}}, * for any part"
        )
    cases = [told.get("case") or told["patient"] for _, _, told in hits]
    names = cases if len(set(cases)) == len(cases) else [name for name, _, _ in hits]
    patients = [told.get("patient") or told["case"] for _, _, told in hits]
    return [(name, patient, path) for name, patient, (_, path, _) in zip(names, patients, hits, strict=True)]


def _role(table: Path, images: Mapping[str, Path]) -> str:
    roles = [role for role in images if role != "mask"]
    if "b" not in roles and len(roles) > 1:
        raise InputError(f"{table}: has the roles {listed(roles)} and no b; name a folder, or a table of one role")
    return "b" if "b" in roles else roles[0]


def _read_patients(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table of patients ({error}); give a CSV file") from None
    if not rows or not {"case", "patient"} <= rows[0].keys():
        raise InputError(f"{path}: a table of patients is CSV with the columns case and patient")
    told = {row["case"]: row["patient"] for row in rows}
    if len(told) < len(rows) or not all(told.values()):
        raise InputError(f"{path}: names a case twice or without its patient; give each case once, with its patient")
    return told


# --- looking ----------------------------------------------------------------------------------------------------------


def settled(sets: Mapping[str, Sequence[Image]], window: Range | None) -> tuple[Look, list[str]]:
    """How all are looked at, told by the first image of each set, with notes on what was assumed.

    Raises:
        InputError: if units contradict each other, or the window is none.
    """
    if window is not None and not (np.isfinite(window).all() and window[0] < window[1]):
        raise InputError(f"a window is two finite values, the lower first; seen {window[0]:g} and {window[1]:g}")
    units = {group: read(images[0].path).unit for group, images in sets.items()}
    stated = set(units.values()) - {UNKNOWN_UNIT}
    unit = stated.pop() if len(stated) == 1 else UNKNOWN_UNIT
    for group, images in sets.items():
        _refuse_unit(units[group], unit, images[0])
    unknown = [group for group, own in units.items() if own != unit]
    notes = [f"{listed(unknown)} images state no unit and are taken to be in {unit}"] if unknown else []
    return Look(unit, window or (FULL_CT_HU if unit == "HU" else None)), notes


def _refuse_unit(seen: str, unit: str, image: Image) -> None:
    """An image that states no unit passes for any that a scanner's file might be in."""
    if seen != unit and (seen != UNKNOWN_UNIT or unit == NORMALISED_UNIT):
        others = f"others are in {unit}" if unit != UNKNOWN_UNIT else "others state no unit, or contradict it"
        raise InputError(f"{image.path}: is in {seen}, {others}; compare sets in one unit")


# --- features ---------------------------------------------------------------------------------------------------------


def features_of(images: Sequence[Image], makers: Sequence[ImageFeatures], look: Look, store: Store) -> list[Row]:
    """For each image its rows (n, d) by the name of the features, and its `shape`; read one at a time.

    Raises:
        InputError: naming the image that cannot be used.
    """
    return all_of([_row(image, makers, look, store) for image in track(share(images), "features")])


def _row(image: Image, makers: Sequence[ImageFeatures], look: Look, store: Store) -> Row:
    content = digest(image.path) if store.folder else ""
    keys = {make.name: _key(content, look, make.identity) for make in makers} | {_SHAPE: _key(content, look, _SHAPE)}
    known = {name: found for name, key in keys.items() if (found := store.get(key)) is not None}
    if len(known) < len(keys):
        made = _made(image, [make for make in makers if make.name not in known], look)
        for name, found in made.items():
            store.put(keys[name], found)
        known |= made
    return known


def _made(image: Image, makers: Sequence[ImageFeatures], look: Look) -> Row:
    array, window, spacing = look.at(image)
    try:
        rows = {make.name: make(array, window, spacing) for make in makers}
    except InputError as error:
        raise InputError(f"{image.path}: {error}") from error
    return {**rows, _SHAPE: np.array(array.shape)}


def _key(content: str, look: Look, *rest: str) -> str:
    text = json.dumps([__version__, content, look.unit, look.window, *rest])
    return hashlib.sha256(text.encode()).hexdigest()[:40]


# --- pairs ------------------------------------------------------------------------------------------------------------


def similarities(
    images: Sequence[Image], rows: Sequence[Row], look: Look, store: Store, *, most: int, seed: int
) -> list[tuple[float, str]]:
    """MS-SSIM of random pairs of images of one shape, of different patients, and which MS-SSIM it is.

    Each image is compared with the next one in a random order, so that each is read once, and no two pairs are the
    same.

    Args:
        images: of one set.
        rows: their features.
        look: how they are looked at.
        store: where numbers are remembered.
        most: pairs at most.
        seed: of the order.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    shapes = {place: tuple(int(n) for n in rows[place][_SHAPE]) for place in order}
    chains = [[place for place in order if shapes[place] == shape] for shape in dict.fromkeys(shapes.values())]
    chosen = [
        (images[first], images[second])
        for chain in chains
        for first, second in itertools.pairwise(chain)
        if images[first].patient != images[second].patient
    ][:most]
    kept = _Kept(look)
    return all_of([_similarity(pair, kept, store) for pair in track(share(chosen), "MS-SSIM of pairs")])


class _Kept:
    """The image that was read last, and the one before: the next pair begins with one of them."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self._held: dict[Path, tuple[Array, Range]] = {}

    def read(self, image: Image) -> tuple[Array, Range]:
        if image.path not in self._held:
            array, window, _ = self.look.at(image)
            self._held = dict([*self._held.items()][-1:]) | {image.path: (array, window)}
        return self._held[image.path]


def _similarity(pair: tuple[Image, Image], kept: _Kept, store: Store) -> tuple[float, str]:
    contents = sorted(digest(image.path) for image in pair) if store.folder else []
    key = _key("-".join(contents), kept.look, "ms-ssim-1")
    if (known := store.get(key)) is not None:
        return float(known[0]), _kind(int(known[1]))
    (first, window), (second, _) = (kept.read(image) for image in pair)
    value, scales = _ms_ssim(first, second, window)
    store.put(key, np.array([value, scales]))
    return value, _kind(scales)


def _ms_ssim(first: Array, second: Array, window: Range) -> tuple[float, int]:
    """Of volumes the one that is defined for any size; of slices as many scales as fit, 0 standing for volumes."""
    if 1 not in first.shape:
        return ms_ssim_2025(first, second, None, window), 0
    flat = first.shape.index(1)
    side = min(length for axis, length in enumerate(first.shape) if axis != flat)
    scales = min(5, (side // _SMALLEST_WINDOW).bit_length())
    if not scales:
        return float("nan"), 1
    pair = [np.clip(image, *window) for image in (first, second)]
    return ms_ssim_2003(pair[0], pair[1], None, window, axis=flat, num_scales=scales), scales


def _kind(scales: int) -> str:
    return f"ms_ssim_2003, {scales} scales" if scales else "ms_ssim_2025"
