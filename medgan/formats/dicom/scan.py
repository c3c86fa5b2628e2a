"""What DICOM series lie in a folder, told by one pass over the headers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medgan.errors import DicomError, InputError
from medgan.formats.dicom.headers import Header, name_of, read_header
from medgan.formats.dicom.stack import Stack, notes, prove
from medgan.volume import Grid

__all__ = ["Series", "find_series", "is_dicom"]


@dataclass(frozen=True)
class Series:
    """What the headers of one series say.

    Args:
        uid: SeriesInstanceUID; "" for files whose header is too damaged to name one.
        files: in the order of the slices where they are a grid, else by name.
        modality: DICOM's code, such as `MR`.
        description: SeriesDescription.
        number: SeriesNumber.
        rows: pixels along a column of the picture.
        columns: pixels along a row of the picture.
        num_slices: number of images: frames of multi-frame files count, repeated files do not.
        transfer_syntax: name of the encoding; several are joined by a comma.
        synthetic: True if a file says that it is synthetic data.
        patient_id: identity; to be shown only to those who ask for it.
        problems: what is odd, and first of all why the series is no volume; names files, never patients.
        grid: where the voxels are; None where they prove no regular grid.
        image_type: ImageType of the first file.
        sop_class: name of the first file's SOP class.
        study_uid: StudyInstanceUID.
        frame_of_reference_uid: FrameOfReferenceUID; series that share it share their coordinates.
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

    def describe(self) -> str:
        """One line for people, without patient data."""
        number = "" if self.number is None else f"{self.number} "
        return f"{number}{self.modality} {self.description!r} ({self.num_slices} slices)"


def is_dicom(path: Path) -> bool:
    """True if a file is DICOM, or if a folder holds such a file somewhere; told by content, not by name."""
    return any(_is_dicom_file(file) for file in _files(Path(path)))


def find_series(path: Path) -> list[Series]:
    """All image series in a folder and its sub-folders, or the one in a file; only headers are read.

    Files that are no DICOM images (reports, a DICOMDIR, anything else) are passed over.

    Returns:
        Series sorted by study, SeriesNumber and SeriesInstanceUID.

    Raises:
        InputError: if there is no such file or folder.
    """
    headers = [header for file in _files(Path(path)) if (header := read_header(file)) is not None]
    groups: dict[str, list[Header]] = {}
    for header in headers:
        groups.setdefault(header.series_uid, []).append(header)
    found = [_series(group) for group in groups.values()]
    return sorted(found, key=lambda one: (one.study_uid, one.number is None, one.number or 0, one.uid))


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file():
        yield path
    for folder, subfolders, names in os.walk(path):
        subfolders.sort()
        yield from (file for name in sorted(names) if (file := Path(folder) / name).is_file())


def _is_dicom_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or read_header(path) is not None


def _series(headers: list[Header]) -> Series:
    stack, problems = _proof(headers)
    first = stack.headers[0] if stack else headers[0]
    return Series(
        uid=first.series_uid,
        files=tuple(header.path for header in (stack.headers if stack else headers)),
        modality=first.modality,
        description=first.description,
        number=first.number,
        rows=first.rows,
        columns=first.columns,
        num_slices=_num_slices(stack, headers),
        transfer_syntax=", ".join(_unique(name_of(header.transfer_syntax) for header in headers)),
        synthetic=any(header.synthetic for header in headers),
        patient_id=first.patient_id,
        problems=tuple(problems),
        grid=stack.grid if stack else None,
        image_type=first.image_type,
        sop_class=name_of(first.sop_class),
        study_uid=first.study_uid,
        frame_of_reference_uid=first.frame_uid,
    )


def _num_slices(stack: Stack | None, headers: list[Header]) -> int:
    return len(stack.headers) if stack else sum(header.frames for header in headers)


def _proof(headers: list[Header]) -> tuple[Stack | None, list[str]]:
    try:
        stack = prove(headers)
    except DicomError as error:
        return None, [str(error)]
    return stack, notes(stack)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
