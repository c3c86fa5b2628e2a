"""Whether the pairs of a table are worth training on: geometry, values, registration and copies, case by case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.alignment import Misalignment, misalignment, shrunk
from medgan.artefacts import Artefacts, artefacts
from medgan.cases import Case, read_cases, tell_alike
from medgan.coverage import overlap_of, uncovered_of
from medgan.errors import CasesError, InputError, MedganError, OutputError
from medgan.findings import Checked, CheckedCase, write_findings
from medgan.formats import read
from medgan.leaks import is_map, voxel_hash
from medgan.outliers import outliers
from medgan.plausible import Fault, doubts
from medgan.processes import copies
from medgan.progress import track
from medgan.volume import Grid, Volume

__all__ = ["Checked", "CheckedCase", "check", "examined", "pose_faults"]

MOST_SHIFT_MM, MOST_TURN_DEG = 2.0, 2.0
MOST_DISAGREEMENT_MM, LEAST_MIRROR_GAIN = 2.5, 0.25
SAME_GRID_MM = 0.1
_NO_IMAGE = {"not finite", "too large", "constant"}
MOST_UNCOVERED = 0.02
_LEAST_OVERLAP, _USUAL_OVERLAP = 0.5, 0.95
_Pair = tuple[str, float, float | None, Misalignment | None, list[Fault]]


def check(table: Path, *, out: Path | None = None, hu: Sequence[str] = (), processes: int = 1) -> Checked:
    """Look at every case of a table: can its images be read, do they lie upon one another, are their values plausible?

    The first image of a case (`a` where there is one) is compared with each other one but masks and label maps, and
    then the cases with one another. A case that cannot be read, as its file is missing or damaged, is a finding; the
    others go on.

    Args:
        table: of cases, as `medgan index` writes it.
        out: a folder for `check.csv`, all that was measured, `findings.csv`, and `exclude.csv`, the cases to leave out.
        hu: roles that are in HU, where files do not say so (plain NIfTI).
        processes: that look at cases at once.

    Raises:
        CasesError: if the table cannot be used, or has no such role.
        OutputError: if the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from medgan.cases import Case, write_cases
        >>> from medgan.formats import write
        >>> folder = Path(tempfile.mkdtemp())
        >>> image = write(Volume(np.zeros((8, 8, 8), np.int16), Grid.regular((8, 8, 8))), folder / "a.nii.gz")
        >>> found = check(write_cases([Case("p1", "p1", "train", {"a": image})], folder / "cases.csv"))
        >>> found.exit_code, found.cases[0].faults[0].kind
        (1, 'constant')
    """
    cases = read_cases(Path(table), required=(), present=False)
    _refuse_unknown(hu, cases, table)
    tell_alike(cases, table)
    with _writable(out and Path(out)), copies(min(processes, len(cases)), "checks cases") as over:
        found = list(track(over(partial(_read_and_examined, hu=tuple(hu)), cases), "check", len(cases)))
    checked = Checked(tuple(sorted(_compared_with_others(found), key=_badness)))
    if out is not None:
        write_findings(checked, Path(out))
    return checked


def examined(name: str, volumes: Mapping[str, Volume], *, patient: str = "") -> CheckedCase:
    """Look at the images of one case, `a` first, the unit of each known.

    Args:
        name: of the case.
        volumes: by role; `mask` and what holds labels are no images.
        patient: whose they are.
    """
    images = {role: volume.without_padding() for role, volume in volumes.items() if not _is_labels(role, volume)}
    doubted = {role: doubts(volume, role) for role, volume in images.items()}
    faults = [fault for own in doubted.values() for fault in own]
    sound = {role: image for role, image in images.items() if not {one.kind for one in doubted[role]} & _NO_IMAGE}
    plausible = {role: image for role, image in sound.items() if not any(one.excludes for one in doubted[role])}
    traces = {role: artefacts(volume) for role, volume in plausible.items()}
    faults += [fault for role, seen in traces.items() for fault in seen.faults(role)] + list(
        _of_labels(volumes, images)
    )
    first = next(iter(images), "")
    pairs = [_pair(sound, first, role, volumes.get("mask")) for role in sound if role != first and first in sound]
    faults += [
        fault for role, *_, own in pairs for fault in own if fault.kind != "cut" or {first, role} <= traces.keys()
    ]
    role, overlap, uncovered, pose, _ = max(pairs, key=_apart) if pairs else ("", None, None, None, [])
    return CheckedCase(
        name,
        patient or name,
        grids={role: volume.grid.describe() for role, volume in volumes.items()},
        pair=(first, role) if role else (),
        overlap=overlap,
        uncovered=uncovered,
        pose=pose,
        traces=traces,
        numbers=_numbers(plausible, traces, pose),
        digests={role: voxel_hash(volume) for role, volume in images.items()},
        faults=_in_order(faults),
    )


@contextmanager
def _writable(folder: Path | None) -> Iterator[None]:
    """Find out before the work whether its results can be written; an interrupt leaves no new folder."""
    if folder is None:
        yield
        return
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        told = (
            "is a file; name a folder" if folder.is_file() else f"cannot be written ({error.strerror}); choose another"
        )
        raise OutputError(f"{folder}: {told}") from None
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _in_order(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: not fault.excludes))


def _refuse_unknown(hu: Sequence[str], cases: Sequence[Case], table: Path) -> None:
    roles = dict.fromkeys(role for case in cases for role in case.images)
    if unknown := [role for role in hu if role not in roles]:
        raise CasesError(f"{table}: has no role {', '.join(unknown)} to be in HU (seen: {', '.join(roles)})")


def _badness(case: CheckedCase) -> tuple[bool, int, int, float, str]:
    excluding = sum(fault.excludes for fault in case.faults)
    beyond_repair = case.is_excluded and not case.is_mendable
    return not beyond_repair, -excluding, -len(case.faults), -case.pose.distance_mm if case.pose else 0.0, case.name


def _read_and_examined(case: Case, hu: Sequence[str]) -> CheckedCase:
    volumes: dict[str, Volume] = {}
    faults: list[Fault] = []
    for role in sorted(case.images, key=lambda role: role != "a"):
        try:
            volume = read(case.images[role])
        except (MedganError, OSError) as error:
            faults.append(Fault("unreadable", f"{role} cannot be read ({error})", "replace the file"))
        else:
            volumes[role] = replace(volume, unit="HU") if role in hu else volume
    try:
        seen = examined(case.name, volumes, patient=case.patient)
    except (MedganError, MemoryError, RuntimeError, ValueError, ArithmeticError) as error:
        seen = CheckedCase(case.name, case.patient)
        faults.append(Fault("not judged", f"it cannot be looked at ({error})", "look at its images"))
    return replace(seen, images=dict(case.images), faults=_in_order([*faults, *seen.faults]))


# --- geometry ---------------------------------------------------------------------------------------------------------


def _apart(pair: _Pair) -> float:
    return pair[3].distance_mm if pair[3] else -1.0


def _pair(images: Mapping[str, Volume], first: str, role: str, mask: Volume | None) -> _Pair:
    """How another image fits the first: what of it is covered, how it lies, and what is wrong."""
    a, b, names = images[first], images[role], f"{first} and {role}"
    overlap = overlap_of(a.grid, b.grid)
    faults = [*_of_grids(a.grid, b, names), *_of_overlap(overlap, names)]
    try:
        pose, uncovered = misalignment(a, b), uncovered_of(shrunk(a), shrunk(b), mask)
    except InputError as error:
        doubt = Fault("not judged", f"{names}: {error}", "look at them", excludes=False)
        return role, overlap, None, None, [*faults, doubt]
    of_pose = list(pose_faults(pose, names))
    cut = [] if any(fault.kind in ("shifted", "mirrored") for fault in of_pose) else _of_cut(uncovered, names)
    return role, overlap, uncovered, pose, [*faults, *of_pose, *cut]


def _of_grids(grid: Grid, b: Volume, names: str) -> Iterator[Fault]:
    turned = b.reorient(grid.orientation).grid
    if not grid.same_as(turned, tolerance_mm=SAME_GRID_MM):
        far = f", corners up to {grid.distance_mm(turned):.1f} mm apart" if grid.shape == turned.shape else ""
        reason = f"{names} are on different grids: {grid.describe()}, {b.grid.describe()}{far}"
        yield Fault("grids", reason, "register them, and resample one onto the other (medgan prepare)")


def _of_overlap(overlap: float, names: str) -> Iterator[Fault]:
    if overlap < _USUAL_OVERLAP:
        reason = f"{names} have {overlap:.0%} of the first one's field of view in common"
        yield Fault("field of view", reason, "crop both to what they share", overlap < _LEAST_OVERLAP)


def _of_cut(uncovered: float, names: str) -> Iterator[Fault]:
    if uncovered > MOST_UNCOVERED:
        reason = f"{uncovered:.0%} of the body in one of {names} is where the other shows none"
        yield Fault("cut", reason, "crop both to what they share, or give a mask of it")


def pose_faults(pose: Misalignment, names: str) -> Iterator[Fault]:
    """What two images that should lie upon one another give reason to doubt.

    Args:
        pose: how they lie.
        names: of both, as a sentence has them.
    """
    if pose.mirror_gain > LEAST_MIRROR_GAIN:
        reason = f"{names} fit better if one is mirrored left to right ({pose.mirror_gain:+.0%} of information)"
        yield Fault("mirrored", reason, "look which one has the wrong orientation in its header, and correct that")
    elif pose.disagreement_mm > MOST_DISAGREEMENT_MM:
        reason = f"parts of {names} fit at places {pose.disagreement_mm:.1f} mm apart, whatever shift and rotation"
        yield Fault("anatomy", reason, "look whether both are of one patient and one posture")
    else:
        yield from _of_place(pose, names)


def _of_place(pose: Misalignment, names: str) -> Iterator[Fault]:
    if pose.distance_mm > max(MOST_SHIFT_MM, pose.distance_uncertainty_mm):
        reason = f"{names} lie {pose.distance_mm:.1f} ± {pose.distance_uncertainty_mm:.1f} mm apart"
        yield Fault("shifted", reason, "register them (medgan prepare)")
    if pose.turn_deg > MOST_TURN_DEG:
        yield Fault("turned", f"{names} are turned by {pose.turn_deg:.1f}°", "register them (medgan prepare)")


def _is_labels(role: str, volume: Volume) -> bool:
    """Files of other programs do not say so; then a and b are images all the same."""
    return role == "mask" or volume.unit == "label" or (role not in ("a", "b") and is_map(volume.array))


def _of_labels(volumes: Mapping[str, Volume], images: Mapping[str, Volume]) -> Iterator[Fault]:
    for role in (role for role in volumes if role not in images):
        for first, image in list(images.items())[:1]:
            if not volumes[role].reorient(image.grid.orientation).grid.same_as(image.grid, tolerance_mm=SAME_GRID_MM):
                told = f"{volumes[role].grid.describe()}, {image.grid.describe()}"
                yield Fault("mask", f"{role} and {first} are on different grids: {told}", f"resample the {role}")
    if "mask" in volumes:
        yield from _of_mask(volumes["mask"].array)


def _of_mask(mask: npt.NDArray[Any]) -> Iterator[Fault]:
    if not mask.any():
        yield Fault("mask", "the mask is empty", "draw it, or leave the cell empty")
    elif ((mask != 0) & (mask != mask.max())).any():
        reason = f"the mask has values from {mask.min():g} to {mask.max():g}, and all but 0 count"
        yield Fault("mask", reason, "see whether it is one, or an image or probabilities", excludes=False)


# --- the cohort -------------------------------------------------------------------------------------------------------


def _compared_with_others(cases: Sequence[CheckedCase]) -> list[CheckedCase]:
    """With what only the whole table tells: copies and outliers."""
    found: dict[str, list[Fault]] = {case.name: [] for case in cases}
    seen: dict[str, str] = {}
    for case in cases:
        found[case.name] += _copies(case, seen)
    for one in outliers({case.name: case.numbers for case in cases}):
        reason = f"{one.name} is {one.value:.4g}, in the cohort {one.usual:.4g} (robust z {one.z:+.0f})"
        found[one.case].append(Fault("outlier", reason, "look at it", excludes=False))
    return [replace(case, faults=_in_order([*case.faults, *found[case.name]])) for case in cases]


def _copies(case: CheckedCase, seen: dict[str, str]) -> Iterator[Fault]:
    """Images that another role or an earlier case has too, voxel for voxel; remembers those of this case."""
    own: dict[str, str] = {}
    for role, digest in ((role, digest) for role, digest in case.digests.items() if digest):
        if digest in own:
            yield Fault("copy", f"{own[digest]} and {role} are the same image", "correct the table")
        elif digest in seen:
            yield Fault("copy", f"{role} is the same image as in {seen[digest]}", "keep one of the two cases")
        own.setdefault(digest, role)
    for digest in own:
        seen.setdefault(digest, case.name)


def _numbers(
    images: Mapping[str, Volume], traces: Mapping[str, Artefacts], pose: Misalignment | None
) -> dict[str, float]:
    """What is compared with other cases: voxels, size and brightness of the body, and what a tells of b."""
    found: dict[str, float] = {} if pose is None else {"nmi": pose.nmi}
    for role, volume in images.items():
        found[f"{role}_voxel_mm"] = max(volume.grid.spacing_mm)
        found[f"{role}_body_ml"] = traces[role].body_ml
        values = volume.array[::2, ::2, ::2]
        level = float(np.median(values[values > values.mean()]))
        if volume.unit != "HU" and level > 0:
            found[f"{role}_level_au"] = level
    return found
