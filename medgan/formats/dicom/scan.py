"""What DICOM series lie in a folder, told by one pass over the headers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from medgan.errors import DicomError, InputError
from medgan.formats.dicom.elements import name_of
from medgan.formats.dicom.header_pass import read_headers
from medgan.formats.dicom.headers import Header
from medgan.formats.dicom.repair import Repair, is_moving, plan
from medgan.formats.dicom.sound import refuse_unsound, without_copies, without_damage
from medgan.formats.dicom.split import Part, split
from medgan.formats.dicom.stack import Stack, count, depth_mm, listed, prove
from medgan.formats.dicom.times import volumes_of, without_incomplete
from medgan.volume import Grid

__all__ = ["Series", "find_series", "is_dicom"]

T = TypeVar("T")
_LONGEST_NAME = 60
_DIRECTORY = "DICOMDIR"


@dataclass(frozen=True)
class Series:
    """What the headers of one series say: pictures of one quantity on one stack, once or at several moments.

    Args:
        uid: SeriesInstanceUID; "" for files whose header is too damaged to name one.
        files: in the order of the slices where they are a stack, else by name.
        modality: DICOM's code, such as `MR`.
        description: SeriesDescription.
        number: SeriesNumber.
        rows: pixels along a column of the picture.
        columns: pixels along a row of the picture.
        num_slices: number of pictures of one volume; of all, where they are no stack. Repeated files do not count.
        transfer_syntax: name of the encoding; several are joined by a comma.
        synthetic: True if a file says that it is synthetic data.
        patient_id: identity; to be shown only to those who ask for it.
        problems: what is wrong or was repaired, and first of all why the series is no volume; names files, never
            patients.
        grid: where the voxels of the volume are that is read; None where there is none.
        image_type: ImageType of the first file.
        sop_class: name of the first file's SOP class.
        study_uid: StudyInstanceUID.
        frame_of_reference_uid: FrameOfReferenceUID; series that share it share their coordinates.
        num_volumes: more than one for a 4-D series.
        labels: what sets it apart from the others of its SeriesInstanceUID, such as `e2`, `phase` or `localizer`.
        notes: what people should know, though nothing is wrong: values are as the scanner stored them.
        stacks: the slices of each volume, in the order of time.
    """

    uid: str
    files: tuple[Path, ...]
    modality: str
    description: str
    number: int | None
    rows: int
    columns: int
    num_slices: int
    transfer_syntax: str
    synthetic: bool
    patient_id: str = field(repr=False)
    problems: tuple[str, ...]
    grid: Grid | None
    image_type: tuple[str, ...] = ()
    sop_class: str = ""
    study_uid: str = ""
    frame_of_reference_uid: str = ""
    num_volumes: int = 1
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stacks: tuple[Stack, ...] = field(default=(), repr=False)
    repair: Repair = field(default_factory=Repair, repr=False)

    @property
    def name(self) -> str:
        """A name for files: number, description and labels, without anything that a file's name cannot hold."""
        number = "" if self.number is None else str(self.number)
        words = _word(self.description)[:_LONGEST_NAME].strip("-") or _word(self.modality)
        labels = self.labels or (("localizer",) if self.is_localizer else ())
        return "_".join(part for part in (number, words, *map(_word, labels)) if part) or "series"

    @property
    def is_localizer(self) -> bool:
        """True if it was taken to find one's way."""
        return "LOCALIZER" in self.image_type

    @property
    def is_screenshot(self) -> bool:
        """True for a captured picture without a place in the patient, such as a dose report."""
        return self.grid is None and self.sop_class.startswith("Secondary Capture")

    @property
    def uids(self) -> frozenset[str]:
        """SeriesInstanceUID, and the SOPInstanceUID of each slice; without those that files do not state."""
        slices = (header.instance_uid for stack in self.stacks for header in stack.headers)
        return frozenset({self.uid, *slices} - {""})

    def describe(self) -> str:
        """One line for people, without patient data."""
        number = "" if self.number is None else f"{self.number} "
        labels = f" {' '.join(self.labels)}" if self.labels else ""
        size = f"{self.num_slices} slices" + (f", {self.num_volumes} volumes" if self.num_volumes > 1 else "")
        return f"{number}{self.modality} {self.description!r}{labels} ({size})"


def _word(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")


def is_dicom(path: Path) -> bool:
    """True if a file is DICOM, or if a folder holds such a file somewhere; told by content, not by name."""
    return any(_is_dicom_file(file) for file in _files(Path(path)))


def find_series(path: Path, *, repair: Repair | None = None) -> list[Series]:
    """All image series in a folder and its sub-folders, or those in a file; only headers are read.

    Files that are no DICOM images (reports, a DICOMDIR, anything else) are passed over.

    Args:
        path: a folder, a file, or the DICOMDIR of a disc.
        repair: what may be done about slices that are missing, lean or are not evenly apart; see `Repair`.

    Returns:
        Series sorted by study, SeriesNumber and SeriesInstanceUID; parts of one SeriesInstanceUID follow one another,
        the largest stack first.

    Raises:
        InputError: if there is no such file or folder.
    """
    files = list(_files(Path(path)))
    headers = read_headers(files)
    strays = [header.path for header in headers if header.stray]
    groups: dict[str, list[Header]] = {}
    for header in (header for header in headers if not header.stray):
        groups.setdefault(header.series_uid, []).append(header)
    found = [one for group in groups.values() for one in _series_of(group, repair or Repair())]
    found = [_with_strays(one, strays) for one in found] if strays else found
    return sorted(found, key=lambda one: (one.study_uid, one.number is None, one.number or 0, one.uid))


def _with_strays(series: Series, strays: Sequence[Path]) -> Series:
    """A file beside its slices that is named like one may be one, damaged beyond recognition."""
    folders = {file.parent for file in series.files}
    near = listed([path.name for path in strays if path.parent in folders])
    if not near or series.grid is None:
        return series
    told = f"{near}: named like DICOM, but begins otherwise; if it was a slice of this series, it is missing"
    return replace(series, problems=(*series.problems, told))


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file() and path.name.upper() == _DIRECTORY:
        path = path.parent  # the table of a disc, whose files lie beside it
    if path.is_file():
        yield path
    for folder, subfolders, names in os.walk(path):
        subfolders.sort()
        yield from (file for name in sorted(names) if (file := Path(folder, name)).is_file())


def _is_dicom_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or any(not header.stray for header in read_headers([path]))


# --- from the pictures of one SeriesInstanceUID to series -------------------------------------------------------------


def _series_of(headers: list[Header], repair: Repair) -> list[Series]:
    try:
        whole, lost = without_damage(headers, drop=repair.fill)
        single = without_copies(whole)
        refuse_unsound(single)
        parts = split(single)
    except DicomError as error:
        return [_refused(Part(tuple(headers)), str(error))]
    num_copies = len(whole) - len(single)
    copies = (f"{count(num_copies, 'file repeats', 'files repeat')} another one, left out",) if num_copies else ()
    return [one for part in parts for one in _series(part, repair, (*copies, *lost))]


def _refused(part: Part, reason: str) -> Series:
    return _described(part, part.headers, (reason,))


def _series(part: Part, repair: Repair, told: tuple[str, ...]) -> list[Series]:
    """One series; or one for each volume, where they do not lie at one place."""
    headers, lost = without_incomplete(part.headers) if repair.fill else (part.headers, "")
    part, told = Part(tuple(headers), part.labels), (*told, lost) if lost else told
    try:
        volumes, by = volumes_of(part.headers)
        stacks = [prove(volume) for volume in volumes]
    except DicomError as error:
        return [_refused(part, str(error))]
    if not is_moving(stacks):
        return [_of_stacks(part, stacks, by, repair, told)]
    told = (*told, f"{len(stacks)} volumes that lie at different places, as of a moving head; each is a series here")
    single = [Part(stack.headers, (*part.labels, f"t{number}")) for number, stack in enumerate(stacks, start=1)]
    return [_of_stacks(one, [stack], "", repair, told) for one, stack in zip(single, stacks, strict=True)]


def _of_stacks(part: Part, stacks: Sequence[Stack], by: str, repair: Repair, told: tuple[str, ...]) -> Series:
    try:
        planned = plan(stacks[0], repair)
    except DicomError as error:
        return _refused(part, str(error))
    problems = (*told, *planned.told, *_odd(stacks[0]))
    return replace(
        _described(part, [one for stack in stacks for one in stack.headers], problems),
        num_slices=len(stacks[0].headers),
        grid=planned.grid,
        num_volumes=len(stacks),
        notes=(*_notes(part.headers), *((f"{len(stacks)} volumes, told apart by {by}",) if by else ())),
        stacks=tuple(stacks),
        repair=repair,
    )


def _described(part: Part, ordered: Sequence[Header], problems: tuple[str, ...]) -> Series:
    first = ordered[0]
    return Series(
        uid=first.series_uid,
        files=tuple(_unique(header.path for header in ordered)),
        modality=first.modality,
        description=first.description,
        number=first.number,
        rows=first.rows,
        columns=first.columns,
        num_slices=sum(header.frames for header in ordered),
        transfer_syntax=", ".join(_unique(name_of(header.transfer_syntax) for header in ordered)),
        synthetic=any(header.synthetic for header in ordered),
        patient_id=first.patient_id,
        problems=problems,
        grid=None,
        image_type=first.image_type,
        sop_class=name_of(first.sop_class),
        study_uid=first.study_uid,
        frame_of_reference_uid=first.frame_uid,
        labels=part.labels,
    )


def _odd(stack: Stack) -> Iterator[str]:
    """What the headers say of themselves that their positions contradict or cannot prove."""
    if len(stack.headers) < 2:
        if depth_mm(stack.headers[0]) is None:
            yield "a single slice that states neither SliceThickness nor SpacingBetweenSlices; 1 mm is assumed"
        return
    gap, stated = float(stack.gaps.mean()), stack.headers[0].stated_gap
    near = {gap, float(np.linalg.norm(stack.step))}  # some scanners state it along the table, some along the normal
    if stated is not None and stack.is_even and min(abs(abs(stated) - one) for one in near) > 0.01 * gap:
        yield f"the slices lie {gap:.4g} mm apart, SpacingBetweenSlices says {stated:.4g} mm; positions count"
    if len(stack.headers) == 2:
        yield "two slices cannot prove an even gap"


def _notes(headers: Sequence[Header]) -> Iterator[str]:
    if any(header.photometric == "MONOCHROME1" for header in headers):
        yield "MONOCHROME1: low values are meant to be shown bright; values are kept as stored"
    if any(header.padding for header in headers):
        yield "PixelPaddingValue: voxels outside the scan hold a filler; values are kept as stored"
    if any(header.lossy for header in headers):
        yield "lossy compression: values are not those of the scanner"


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
