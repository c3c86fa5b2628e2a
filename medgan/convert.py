"""One scan from one format to the other, voxels and grid untouched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medgan.errors import OutputError
from medgan.formats import read, write
from medgan.volume import Volume

__all__ = ["convert"]


def convert(source: Path, out: Path, *, like: Path | None = None, series: str | None = None) -> Path:
    """Convert a DICOM series to NIfTI, or NIfTI to a DICOM series.

    Args:
        source: a NIfTI file, a DICOM file or a folder with a DICOM series.
        out: `.nii` or `.nii.gz` for NIfTI, a name without ending for a folder of DICOM; not there yet.
        like: the DICOM series whose study and patient a new DICOM series joins. A NIfTI file that records no unit and
            no modality takes those of this series.
        series: which series of `source` (SeriesInstanceUID, SeriesNumber or SeriesDescription), if it holds several.

    Returns:
        What was written.

    Raises:
        InputError: if source or like cannot be read.
        GeometryError: if a DICOM series cannot say the grid.
        OutputError: if `out` exists already or cannot be written.
    """
    source, out = Path(source), Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out}: exists already; choose another name or remove it")
    volume = read(source, series=series)
    template = read(like) if like else None
    return write(_with_meaning_of(volume, template), out, like=template)


def _with_meaning_of(volume: Volume, template: Volume | None) -> Volume:
    """The volume, with the template's unit and modality if it has none recorded."""
    if template is None or volume.modality or volume.unit != "a.u.":
        return volume
    return replace(volume, unit=template.unit, modality=template.modality)
