"""Predictions, references, masks, σ maps and segmentations of the same case, found in folders, files and tables.

A path may be a rule instead: in `out/{case}/ct.nii.gz` the name that stands for `{case}` is the case, and `{patient}`,
where it stands too, the patient. `*` stands for any part of a name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medgan.cases import read_cases
from medgan.errors import InputError
from medgan.names import loosely

__all__ = ["MAPS", "Match", "map_path", "match"]

MAPS = ("std", "cycle")
_VOLUMES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
_NAMED = ("case", "patient")
_NAME = r"[^/]+?"


@dataclass(frozen=True)
class Match:
    """Where the volumes of one case are; None for what is missing.

    `refused` says why it is not to be scored, `hint` which case on the other side may be meant.
    """

    case: str
    pred: Path | None
    ref: Path | None
    mask: Path | None
    std: Path | None = None
    pred_labels: Path | None = None
    ref_labels: Path | None = None
    source: Path | None = None
    patient: str = ""
    refused: str = ""
    hint: str = ""

    @property
    def paths(self) -> dict[str, Path]:
        """What is there, by role."""
        roles = ("pred", "ref", "mask", "std", "pred_labels", "ref_labels", "source")
        return {role: path for role in roles if (path := getattr(self, role)) is not None}


@dataclass(frozen=True)
class _Found:
    """Volumes by case, the path at which they were found, and what else a table or a rule tells of the cases."""

    path: Path
    cases: dict[str, Path]
    patients: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Path] = field(default_factory=dict)


def map_path(image: Path, kind: str) -> Path:
    """Where the map of a kind (`std`, `cycle`) lies that belongs to an image: beside it.

    Example:
        >>> map_path(Path("out/p1.nii.gz"), "std").as_posix(), map_path(Path("ct"), "std").as_posix()
        ('out/p1_std.nii.gz', 'ct_std')
    """
    image = image if image.name.strip(".") else image.resolve()  # `.` and `..` have no name of their own
    stem = _stem(image)
    return image.with_name(f"{stem}_{kind}{image.name[len(stem) :]}")


def match(
    pred: Path,
    ref: Path,
    *,
    mask: Path | None = None,
    split: str | None = None,
    std: Path | None = None,
    labels: tuple[Path, Path] | None = None,
    source: Path | None = None,
) -> list[Match]:
    """Volumes by case: a case without a prediction or a reference is there, with None in its place.

    Args:
        pred: a volume, a folder of volumes named by case, or a rule with `{case}` or `{patient}` in it.
        ref: likewise, or a table of cases, whose role `b` is the reference and whose masks and patients count.
        mask: likewise, for all cases if it is one volume; a table's masks if not given.
        split: which cases of a table; all if not given.
        std: standard deviations of the predictions, likewise; what lies beside them as `map_path` tells if not given.
        labels: segmentations of predictions and of references, likewise.
        source: what was translated, likewise; a table's role `a` if not given.

    Raises:
        InputError: if a path cannot be used, no case matches, a case is there twice or has no mask while others have
            one, or none of the standard deviations that were named.
    """
    refs, masks = _references(ref, mask, split)
    matches = _matched(pred, refs, masks, None if std is None else _find(std))
    sources = refs.sources if source is None else _find(source).cases
    matches = [replace(one, source=sources.get(one.case)) for one in matches]
    return matches if labels is None else list(_with_labels(matches, *map(_find, labels)))


def _references(ref: Path, mask: Path | None, split: str | None) -> tuple[_Found, _Found | None]:
    """References and masks, from a table of cases or from paths."""
    if ref.suffix.lower() != ".csv":
        if split:
            raise InputError(f"split {split!r} goes with a table of cases; {ref} is none")
        return _find(ref), None if mask is None else _find(mask)
    cases = read_cases(ref, split=split, required=("b",))
    masks = {case.name: case.images["mask"] for case in cases if "mask" in case.images}
    of_table = _Found(ref, masks) if masks else None
    patients = {case.name: case.patient for case in cases}
    sources = {case.name: case.images["a"] for case in cases if "a" in case.images}
    refs = _Found(ref, {case.name: case.images["b"] for case in cases}, patients, sources)
    return refs, of_table if mask is None else _find(mask)


def _matched(pred: Path, refs: _Found, masks: _Found | None, stds: _Found | None) -> list[Match]:
    found = _find(pred)
    preds, patients = _without_maps(found.cases, refs.cases), {**found.patients, **refs.patients}
    if _is_single(pred, preds) and _is_single(refs.path, refs.cases):
        preds = dict.fromkeys(refs.cases, next(iter(preds.values())))
    both = [case for case in refs.cases if case in preds]
    if not both:
        seen = f"{pred} has {_some(preds)}, {refs.path} has {_some(refs.cases)}"
        hints = "".join(f" ({case}: {_hint(case, refs.cases)})" for case in preds if _hint(case, refs.cases))
        raise InputError(
            f"no case is in both: {seen}{hints}; name them alike, or name rules such as FOLDER/{{case}}_ct.nii.gz"
        )
    inside, spread = _masks(masks, both), _stds(stds, {case: preds[case] for case in both})
    cases = sorted({**refs.cases, **preds})
    return [
        Match(
            case,
            preds.get(case),
            refs.cases.get(case),
            inside.get(case),
            spread.get(case),
            patient=patients.get(case, case),
            hint="" if case in both else _hint(case, preds if case in refs.cases else refs.cases),
        )
        for case in cases
    ]


def _hint(case: str, others: Iterable[str]) -> str:
    """The case of the other side whose name differs only in capitals or white space."""
    near = next((repr(other) for other in others if loosely(other) == loosely(case)), "")
    return near and f"the other side has {near}, which differs only in capitals or white space"


def _with_labels(matches: Iterable[Match], preds: _Found, refs: _Found) -> Iterator[Match]:
    """The same with segmentations; a single one belongs to the only case."""
    matches = list(matches)
    both = [one.case for one in matches if one.pred and one.ref]
    of_pred, of_ref = (
        dict.fromkeys(both, next(iter(found.cases.values())))
        if _is_single(found.path, found.cases) and len(both) == 1
        else found.cases
        for found in (preds, refs)
    )
    if not of_ref.keys() & set(both):
        raise InputError(
            f"{refs.path}: segmentations of {_some(of_ref)}, but scored are {_some(both)}; name them alike"
        )
    for one in matches:
        yield replace(one, pred_labels=of_pred.get(one.case), ref_labels=of_ref.get(one.case))


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
    if any(f"{{{name}}}" in str(path) for name in _NAMED):
        return _by_rule(path)
    return _Found(path, _find_cases(path))


def _by_rule(rule: Path) -> _Found:
    """What a path with names in braces describes."""
    fixed = next(parent for parent in rule.parents if not re.search(r"[{*]", str(parent)))
    pattern = _regex(rule.relative_to(fixed).as_posix())
    seen = [(path, found) for path in sorted(fixed.rglob("*")) if (found := pattern.fullmatch(_inside(path, fixed)))]
    cases = [(_name(found, "case", "patient"), _name(found, "patient", "case"), path) for path, found in seen]
    if not cases:
        raise InputError(
            f"{rule}: nothing there fits this rule; {{case}} stands for the name of a case, * for any part"
        )
    by_case = _once([(case, path) for case, _, path in cases], rule)
    return _Found(rule, by_case, {case: patient for case, patient, _ in cases})


def _regex(rule: str) -> re.Pattern[str]:
    parts = re.split(r"(\{case\}|\{patient\}|\*)", unicodedata.normalize("NFC", rule))
    told: set[str] = set()
    return re.compile("".join(_piece(part, told) for part in parts))


def _piece(part: str, told: set[str]) -> str:
    """A name stands for the same text wherever it stands."""
    if part == "*":
        return "[^/]*"
    if part.strip("{}") not in _NAMED or not part.startswith("{"):
        return re.escape(part)
    name = part.strip("{}")
    if name in told:
        return f"(?P={name})"
    told.add(name)
    return f"(?P<{name}>{_NAME})"


def _inside(path: Path, folder: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(folder).as_posix())


def _name(found: re.Match[str], *names: str) -> str:
    told = found.groupdict()
    return next(told[name] for name in names if told.get(name))


def _once(cases: Sequence[tuple[str, Path]], place: Path) -> dict[str, Path]:
    """By case; none may be there twice."""
    by_case: dict[str, Path] = {}
    for case, path in cases:
        if case in by_case:
            raise InputError(f"{place}: case {case!r} is there twice, {by_case[case].name} and {path.name}; keep one")
        by_case[case] = path
    return by_case


def _find_cases(path: Path) -> dict[str, Path]:
    """Volumes by case."""
    if path.is_file():
        return {_case_of(path): path}
    if not path.is_dir():
        raise InputError(
            f"{path}: is not there; give a volume, a DICOM folder, a folder of cases or a rule with {{case}}"
        )
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    homes = [entry for entry in entries if entry.is_dir() or entry.name.lower().endswith(_VOLUMES)]
    if entries and not homes:
        return {path.name: path}
    if not homes:
        raise InputError(f"{path}: is empty; name the folder that holds the cases")
    return _once([(_case_of(home), _volume_of(home)) for home in homes], path)


def _case_of(path: Path) -> str:
    """The name of a case, composed: some systems store é as two letters, others as one."""
    return unicodedata.normalize("NFC", _stem(path))


def _stem(path: Path) -> str:
    suffix = next((suffix for suffix in _VOLUMES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def _volume_of(home: Path) -> Path:
    if not home.is_dir():
        return home  # also a link to what is gone: that is for the one who reads it to tell
    images = sorted(path for path in home.iterdir() if path.name.lower().endswith(_VOLUMES))
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
