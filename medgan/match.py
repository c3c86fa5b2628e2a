"""Predictions, references, masks and σ maps of the same case, found in folders, files and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medgan.cases import read_cases
from medgan.errors import InputError

__all__ = ["MAPS", "Match", "map_path", "match"]

MAPS = ("std", "cycle")
_NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Match:
    """Where the volumes of one case are; None for what is missing."""

    case: str
    pred: Path | None
    ref: Path | None
    mask: Path | None
    std: Path | None = None


@dataclass(frozen=True)
class _Found:
    """Volumes by case, and the path at which they were found."""

    path: Path
    cases: dict[str, Path]


def map_path(image: Path, kind: str) -> Path:
    """Where the map of a kind (`std`, `cycle`) lies that belongs to an image: beside it.

    Example:
        >>> map_path(Path("out/p1.nii.gz"), "std").as_posix(), map_path(Path("ct"), "std").as_posix()
        ('out/p1_std.nii.gz', 'ct_std')
    """
    image = image if image.name.strip(".") else image.resolve()  # `.` and `..` have no name of their own
    stem = _case_of(image)
    return image.with_name(f"{stem}_{kind}{image.name[len(stem) :]}")


def match(
    pred: Path, ref: Path, mask: Path | None = None, split: str | None = None, std: Path | None = None
) -> list[Match]:
    """Volumes by case: a case without a prediction or a reference is there, with None in its place.

    Args:
        pred: a volume, or a folder of volumes named by case.
        ref: likewise, or a table of cases, whose role `b` is the reference and whose masks count.
        mask: likewise, for all cases if it is one volume; a table's masks if not given.
        split: which cases of a table; all if not given.
        std: standard deviations of the predictions, likewise; what lies beside them as `map_path` tells if not given.

    Raises:
        InputError: if a path cannot be used, no case matches, or a case has no mask while others have one, or none of
            the standard deviations that were named.
    """
    return _matched(pred, *_references(ref, mask, split), None if std is None else _find(std))


def _references(ref: Path, mask: Path | None, split: str | None) -> tuple[_Found, _Found | None]:
    """References and masks, from a table of cases or from paths."""
    if ref.suffix.lower() != ".csv":
        if split:
            raise InputError(f"split {split!r} goes with a table of cases; {ref} is none")
        return _find(ref), None if mask is None else _find(mask)
    cases = read_cases(ref, split=split, required=("b",))
    masks = {case.name: case.images["mask"] for case in cases if "mask" in case.images}
    of_table = _Found(ref, masks) if masks else None
    return _Found(ref, {case.name: case.images["b"] for case in cases}), of_table if mask is None else _find(mask)


def _matched(pred: Path, refs: _Found, masks: _Found | None, stds: _Found | None) -> list[Match]:
    preds = _without_maps(_find_cases(pred), refs.cases)
    if _is_single(pred, preds) and _is_single(refs.path, refs.cases):
        preds = dict.fromkeys(refs.cases, next(iter(preds.values())))
    both = [case for case in refs.cases if case in preds]
    if not both:
        seen = f"{pred} has {_some(preds)}, {refs.path} has {_some(refs.cases)}"
        raise InputError(f"no case is in both: {seen}; name them alike")
    inside, spread = _masks(masks, both), _stds(stds, {case: preds[case] for case in both})
    cases = sorted({**refs.cases, **preds})
    return [Match(case, preds.get(case), refs.cases.get(case), inside.get(case), spread.get(case)) for case in cases]


def _without_maps(preds: dict[str, Path], refs: Mapping[str, Path]) -> dict[str, Path]:
    """Predictions without the maps that lie beside them, unless there is such a case."""
    maps = {f"{case}_{kind}" for case in preds for kind in MAPS} - refs.keys()
    return {case: path for case, path in preds.items() if case not in maps}


def _stds(found: _Found | None, preds: Mapping[str, Path]) -> dict[str, Path]:
    """Standard deviations by case."""
    if found is None:
        beside = {case: map_path(path, "std") for case, path in preds.items()}
        return {case: path for case, path in beside.items() if path.exists()}
    if _is_single(found.path, found.cases) and len(preds) == 1:
        return dict.fromkeys(preds, next(iter(found.cases.values())))
    named = {case: found.cases.get(f"{case}_std", found.cases.get(case)) for case in preds}
    missing = [case for case, path in named.items() if path is None]
    if missing:
        raise InputError(f"{found.path}: no standard deviation for {_some(missing)}; every prediction needs one")
    return {case: path for case, path in named.items() if path is not None}


def _masks(found: _Found | None, cases: list[str]) -> dict[str, Path]:
    if found is None:
        return {}
    path, masks = found.path, found.cases
    if _is_single(path, masks):
        return dict.fromkeys(cases, next(iter(masks.values())))
    missing = [case for case in cases if case not in masks]
    if missing:
        raise InputError(f"{path}: no mask for {_some(missing)}; every case to score needs one, or give no masks")
    return masks


def _find(path: Path) -> _Found:
    return _Found(path, _find_cases(path))


def _find_cases(path: Path) -> dict[str, Path]:
    """Volumes by case."""
    if path.is_file():
        return {_case_of(path): path}
    if not path.is_dir():
        raise InputError(f"{path}: is not there; give a NIfTI file, a DICOM folder or a folder of cases")
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    homes = [entry for entry in entries if entry.is_dir() or entry.name.lower().endswith(_NIFTI)]
    if entries and not homes:
        return {path.name: path}
    cases = {_case_of(home): _volume_of(home) for home in homes}
    if len(cases) < max(len(homes), 1):
        odd = "holds a case twice; keep one of each" if homes else "is empty; name the folder that holds the cases"
        raise InputError(f"{path}: {odd}")
    return cases


def _case_of(path: Path) -> str:
    suffix = next((suffix for suffix in _NIFTI if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def _volume_of(home: Path) -> Path:
    images = [home] if home.is_file() else sorted(p for p in home.iterdir() if p.name.lower().endswith(_NIFTI))
    maps = {map_path(image, kind) for image in images for kind in MAPS}
    images = [image for image in images if image not in maps]
    if len(images) > 1:
        names = _some([image.name for image in images])
        raise InputError(
            f"{home}: holds several volumes ({names}); a case has one, so point to folders that hold one each"
        )
    return images[0] if images else home


def _is_single(path: Path, cases: Mapping[str, Path]) -> bool:
    return len(cases) == 1 and (path.is_file() or list(cases.values()) == [path])


def _some(cases: Mapping[str, Path] | Sequence[str]) -> str:
    names = list(cases)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
