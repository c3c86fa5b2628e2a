"""Images of cases on different sides of a line that show one person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from medgan.cases import Case
from medgan.errors import MedganError
from medgan.formats import Header, read_header
from medgan.leaks.fingerprint import Fingerprint, fingerprint
from medgan.leaks.looks import LEAST_LIKENESS, LEAST_SPECTRUM, Look, coarseness_mm, likeness, spectrum_of
from medgan.processes import all_of, copies, share
from medgan.progress import track

__all__ = ["Leak", "Seen", "leaks", "look_at"]

Side = Callable[[Case], Hashable]
Kind = Literal["voxels", "uid", "patient id", "look"]
_IN_WORDS: dict[Kind, str] = {
    "voxels": "the same image, voxel for voxel",
    "uid": "the same series or slices, by their UIDs",
    "patient id": "one PatientID in their DICOM headers",
    "look": "look alike",
}
Spectra = Mapping[int, npt.NDArray[np.float32]]  # by the identity of what was seen
_Image = tuple[Case, str, Path, Header | Exception]  # a case, one of its images, and what its file says
_AT_ONCE = 512  # looks whose likeness to all others is in memory


@dataclass(frozen=True, eq=False)
class Seen:
    """An image of a case, as far as it can betray whose it is; `error` says why it could not be read.

    Args:
        case: whose it is.
        role: which of its images.
        header: what its file says.
        fingerprint: of what it shows.
        error: why one of them is missing.
    """

    case: Case
    role: str
    header: Header | None = None
    fingerprint: Fingerprint | None = None
    error: str = ""


@dataclass(frozen=True)
class Leak:
    """Two images of different sides that are of one person, or may be.

    Args:
        one: an image.
        other: that on the other side.
        kind: what they have in common.
        likeness: of their looks (0..1); 1 where it was not asked.
    """

    one: Seen
    other: Seen
    kind: Kind
    likeness: float = 1.0

    @property
    def is_proven(self) -> bool:
        """False for a suspicion: PatientIDs may be placeholders, and different people may look alike."""
        return self.kind in ("voxels", "uid")

    def describe(self, *, with_splits: bool = False) -> str:
        """One line: which cases, in which splits, in which images, and why."""
        cases = (self.one.case, self.other.case)
        names = (f"{case.name} in {case.split}" if with_splits else case.name for case in cases)
        roles = dict.fromkeys((self.one.role, self.other.role))
        value = f" ({self.likeness:.2f} of 1)" if self.kind == "look" else ""
        return f"{' and '.join(names)}, {' and '.join(roles)}: {_IN_WORDS[self.kind]}{value}"


def look_at(cases: Sequence[Case], *, like: Sequence[Case] = (), workers: int = 0) -> list[Seen]:
    """Fingerprints of all images but masks, by the processes of a job together.

    Args:
        cases: whose images are looked at.
        like: cases with which they are to be compared, as coarsely as those.
        workers: copies of each process that look at images at once; below 2 it does so itself.

    Returns:
        One for each image, in order; those that cannot be read with an error.
    """
    images = [(case, role, path) for case in cases for role, path in case.images.items() if role != "mask"]
    headers = {path: _header(path) for case in [*cases, *like] for path in _images(case)}
    grids = [held.grid for path in _paths(like or cases) if isinstance(held := headers[path], Header)]
    if not grids:
        return [Seen(case, role, error=str(headers[path])) for case, role, path in images]
    size_mm = coarseness_mm(grids)
    own = [(*image, headers[image[2]]) for image in share(images)]
    with copies(min(workers, len(own)), "looks for leaks") as over:
        part = list(track(over(partial(_seen, size_mm), own), "looking for leaks", len(own)))
    # Those of other processes came as copies; images of one case are known by having the same one.
    return [replace(one, case=case) for one, (case, *_) in zip(all_of(part), images, strict=True)]


def leaks(seen: Iterable[Seen], side: Side) -> list[Leak]:
    """Images of one person on different sides: what is proven first, one leak for each two cases.

    Args:
        seen: images.
        side: of a case: its split, say. Within a side nothing is a leak.
    """
    seen, found = list(seen), dict[frozenset[Hashable], Leak]()
    for leak in (*_proven(seen, side), *_suspected(seen, side)):
        cases = frozenset((one.case.name, side(one.case)) for one in (leak.one, leak.other))
        found.setdefault(cases, leak)
    return list(found.values())


def _images(case: Case) -> Iterator[Path]:
    yield from (path for role, path in case.images.items() if role != "mask")


def _paths(cases: Sequence[Case]) -> Iterator[Path]:
    yield from (path for case in cases for path in _images(case))


def _header(path: Path) -> Header | Exception:
    try:
        return read_header(path)
    except (MedganError, OSError) as error:
        return error


def _seen(size_mm: float, image: _Image) -> Seen:
    case, role, path, header = image
    if isinstance(header, Exception):
        return Seen(case, role, error=str(header))
    try:
        return Seen(case, role, header, fingerprint(path, size_mm))
    except (MedganError, OSError) as error:
        return Seen(case, role, header, error=str(error))


# --- what proves it ---------------------------------------------------------------------------------------------------


def _proven(seen: Sequence[Seen], side: Side) -> Iterator[Leak]:
    by_voxels: dict[str, list[Seen]] = defaultdict(list)
    by_uid: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        if one.fingerprint and one.fingerprint.voxels:
            by_voxels[one.fingerprint.voxels].append(one)
        for uid in one.header.uids if one.header else ():
            by_uid[uid].append(one)
    yield from _across(by_voxels.values(), side, "voxels")
    yield from _across(by_uid.values(), side, "uid")


def _across(groups: Iterable[list[Seen]], side: Side, kind: Kind) -> Iterator[Leak]:
    """Each image of a group beside the first before it that is on another side."""
    for group in groups:
        for place, other in enumerate(group):
            if one := next((one for one in group[:place] if _is_across(one, other, side)), None):
                yield Leak(one, other, kind)


def _is_across(one: Seen, other: Seen, side: Side) -> bool:
    return side(one.case) != side(other.case)


# --- what makes one think of it ---------------------------------------------------------------------------------------


def _suspected(seen: Sequence[Seen], side: Side) -> Iterator[Leak]:
    by_id: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        if one.header and (identifier := one.header.patient_id.strip()):
            by_id[identifier].append(one)
    yield from _across(by_id.values(), side, "patient id")
    looks = {id(one): look for one in seen if one.fingerprint and (look := one.fingerprint.look) is not None}
    shown = [one for one in seen if id(one) in looks]
    spectra = {id(one): spectrum_of(looks[id(one)]) for one in shown}
    of_case: dict[int, dict[str, Seen]] = defaultdict(dict)
    for one in shown:
        of_case[id(one.case)][one.role] = one
    for one, other in _candidates(shown, spectra, side):
        yield from _alike(of_case[id(one.case)], of_case[id(other.case)], looks, spectra)


def _candidates(shown: Sequence[Seen], spectra: Spectra, side: Side) -> Iterator[tuple[Seen, Seen]]:
    """Images of different cases, once for two cases, whose spectra are alike: cheap, so that all can be compared."""
    kinds: dict[tuple[str, int], list[Seen]] = defaultdict(list)
    for one in shown:
        kinds[one.role, len(spectra[id(one)])].append(one)
    found: set[tuple[int, int]] = set()
    for group in kinds.values():
        for first, second in _near(np.stack([spectra[id(one)] for one in group])):
            one, other = group[first], group[second]
            if _is_across(one, other, side) and (id(one.case), id(other.case)) not in found:
                found.add((id(one.case), id(other.case)))
                yield one, other


def _near(spectra: npt.NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    for start in range(0, len(spectra), _AT_ONCE):
        rows, columns = np.nonzero(spectra[start : start + _AT_ONCE] @ spectra.T >= LEAST_SPECTRUM)
        pairs = zip((rows + start).tolist(), columns.tolist(), strict=True)
        yield from ((row, column) for row, column in pairs if row < column)


def _alike(
    images: Mapping[str, Seen], others: Mapping[str, Seen], looks: Mapping[int, Look], spectra: Spectra
) -> Iterator[Leak]:
    """What two cases have in common, in the mean over the images that both have: people differ in one, not in all."""
    pairs = [
        (images[role], others[role])
        for role in images
        if role in others and len(spectra[id(images[role])]) == len(spectra[id(others[role])])
    ]
    if np.mean([spectra[id(one)] @ spectra[id(other)] for one, other in pairs]) < LEAST_SPECTRUM:
        return
    values = [likeness(looks[id(one)], looks[id(other)]) for one, other in pairs]
    if (value := float(np.mean(values))) >= LEAST_LIKENESS:
        yield Leak(*pairs[int(np.argmax(values))], "look", value)
