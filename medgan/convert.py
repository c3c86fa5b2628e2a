"""Scans from one format to another: voxels, grid and unit stay, and whatever had to be done to them is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medgan.atomic import refuse_full_folder
from medgan.errors import InputError, MedganError, OutputError
from medgan.formats import dicom, is_nifti_name, itk, nifti, read, write
from medgan.formats.dicom import Repair, Series, record
from medgan.formats.dicom.scale import SCALINGS, Scaling
from medgan.progress import track
from medgan.volume import Volume

__all__ = ["FORMATS", "Converted", "convert", "status"]

FORMATS = {"nifti": ".nii.gz", "mha": ".mha", "nrrd": ".nrrd", "dicom": ""}
_FILES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".png")


@dataclass(frozen=True)
class Converted:
    """What became of one scan.

    Args:
        path: what was written; None where it was refused.
        series: SeriesInstanceUID, "" where the scan was no DICOM.
        description: of the series, for people; it names no patient.
        files: what it was read from.
        problems: what was repaired or left out, and what people should check.
        notes: what people should know, though nothing is wrong.
        error: why it was refused; "" if it was not.
    """

    path: Path | None
    series: str = ""
    description: str = ""
    files: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        paths = {"path": str(self.path or ""), "files": [str(file) for file in self.files]}
        return asdict(self) | paths


def convert(
    source: Path,
    out: Path,
    *,
    like: Path | None = None,
    series: str | None = None,
    to: str | None = None,
    repair: Repair | None = None,
    scaling: str = "stated",
) -> list[Converted]:
    """Convert every DICOM series of a folder, or one scan.

    Args:
        source: a folder with DICOM, a DICOM file, or a NIfTI, MetaImage, NRRD or PNG file.
        out: a name that ends in `.nii`, `.nii.gz`, `.mha`, `.mhd`, `.nrrd` or `.png` gets one scan. A name without an
            ending is a new or empty folder: for DICOM it gets a file for every series, for any other scan, or with
            `like`, it is the folder of a new DICOM series.
        like: the DICOM series whose study and patient a new DICOM series joins. A file that records no unit and no
            modality takes those of this series.
        series: which series of `source` (SeriesInstanceUID, SeriesNumber, SeriesDescription or name), if it holds
            several.
        to: `nifti`, `mha`, `nrrd` or `dicom`, for a folder; the default is as said for `out`.
        repair: what may be done about slices that are missing, lean or are not evenly apart.
        scaling: of DICOM values: `stated`, `philips` for Philips MR's floating-point values, `suv` for PET.

    Returns:
        What became of each scan; none if the folder holds no DICOM.

    Raises:
        InputError: if source or like cannot be read, or `to` is no format; for a folder of several series a series
            that is refused is told in what is returned.
        GeometryError: if a DICOM series cannot say the grid.
        OutputError: if `out` exists already or cannot be written.
    """
    source, out = Path(source), Path(out)
    _refuse_existing(out)
    if to is not None and to not in FORMATS:
        raise InputError(f"--to {to}: is no format; give {', '.join(FORMATS)}")
    values = _scaling(scaling)
    is_scans = source.is_dir() or (source.is_file() and dicom.is_dicom(source))
    if not is_scans:
        return [_file(source, out, like, to)]
    found = dicom.find_series(source, repair=repair)
    if series is not None or _is_file(out):
        found = [dicom.chosen(found, series, source)] if found else []
    if _is_file(out):
        return [_written(one, out, values, like) for one in found]
    if like is not None or to == "dicom":
        return [_written(dicom.chosen(found, None, source), out, values, like)] if found else []
    return _all(found, out, FORMATS[to or "nifti"], values)


def status(done: Sequence[Converted]) -> int:
    """The exit code that tells what became of scans.

    0 all is well; 3 all are written, with problems to look at; 4 some are refused; 1 all are refused; 5 there is none.
    """
    refused = sum(bool(one.error) for one in done)
    if not done:
        return 5
    if refused:
        return 1 if refused == len(done) else 4
    return 3 if any(one.problems for one in done) else 0


def _refuse_existing(out: Path) -> None:
    if out.is_file():
        raise OutputError(f"{out}: exists already; choose another name or remove it")
    refuse_full_folder(out)


def _scaling(name: str) -> Scaling:
    known = next((one for one in SCALINGS if one == name), None)
    if known is None:
        raise InputError(f"--scaling {name}: is none; give {', '.join(SCALINGS)}")
    return known


def _is_file(out: Path) -> bool:
    return out.name.lower().endswith(_FILES)


def _file(source: Path, out: Path, like: Path | None, to: str | None) -> Converted:
    volume, template = read(source), read(like) if like else None
    if to not in {None, "dicom"} and not _is_file(out):
        out = out / f"{_stem(source)}{FORMATS[to or '']}"
    return Converted(write(_with_meaning_of(volume, template), out, like=template), files=(source,))


def _stem(source: Path) -> str:
    return next((source.name[: -len(end)] for end in (".nii.gz", *_FILES) if source.name.endswith(end)), source.name)


def _with_meaning_of(volume: Volume, template: Volume | None) -> Volume:
    """The volume, with the template's unit and modality if it has none recorded."""
    if template is None or volume.modality or volume.unit != "a.u.":
        return volume
    return replace(volume, unit=template.unit, modality=template.modality)


# --- series -----------------------------------------------------------------------------------------------------------


def _all(found: Sequence[Series], out: Path, ending: str, scaling: Scaling) -> list[Converted]:
    """A file for each series, the others going on where one is refused."""
    jobs = list(zip(found, _names(found), strict=True))
    return [_attempt(one, out / f"{name}{ending}", scaling) for one, name in track(jobs, "convert")]


def _names(found: Sequence[Series]) -> Iterator[str]:
    """Names of files, each once, also where upper and lower case count as the same."""
    taken: dict[str, int] = {}
    for one in found:
        number = taken[one.name.lower()] = taken.get(one.name.lower(), 0) + 1
        yield one.name if number == 1 else f"{one.name}_{number}"


def _attempt(series: Series, out: Path, scaling: Scaling) -> Converted:
    try:
        return _written(series, out, scaling)
    except OutputError:
        raise
    except MedganError as error:
        return replace(_told(series), error=str(error))


def _told(series: Series) -> Converted:
    told = series.problems if series.grid is not None else ()
    return Converted(None, series.uid, series.describe(), series.files, told, series.notes)


def _written(series: Series, out: Path, scaling: Scaling, like: Path | None = None) -> Converted:
    if is_nifti_name(out):
        return _nifti(series, out, scaling)
    if itk.is_itk_name(out):
        return replace(
            _told(series), path=itk.write(dicom.read_series(series, scaling=scaling), out, about=record.about(series))
        )
    template = read(like) if like else None
    volume = dicom.read_series(series, scaling=scaling)
    return replace(_told(series), path=write(_with_meaning_of(volume, template), out, like=template))


def _nifti(series: Series, out: Path, scaling: Scaling) -> Converted:
    volumes, told = dicom.read_volumes(series, scaling=scaling, remember=False), _told(series)
    gradients, unknown = record.gradients(series)
    times_s, about = record.times_s(series), record.about(series)
    path = nifti.write_set(volumes, out, times_s=times_s, gradients=gradients, about=about)
    return replace(told, path=path, problems=(*told.problems, *unknown))
