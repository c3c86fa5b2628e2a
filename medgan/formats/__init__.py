"""Reading and writing scans: what a path holds is told by its content, not by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medgan.errors import DicomError, InputError, OutputError
from medgan.formats import itk, nifti
from medgan.volume import Grid, Volume

if TYPE_CHECKING:
    from medgan.formats.dicom import Series, Subject

__all__ = ["Header", "is_nifti_name", "read", "read_header", "write"]

_ACCEPTED = "give a NIfTI, MetaImage or NRRD file, a DICOM file or the folder of a DICOM series, or a grey PNG"
_PICTURES = {b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"RIFF": "WebP"}
_NIFTI_NAMES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")


@dataclass(frozen=True)
class Header:
    """What a scan tells without its voxels.

    Args:
        grid: where the voxels are.
        modality: DICOM's code, "" where it is not known.
        patient_id: the identifier in a DICOM header, "" in NIfTI; it identifies a person and is never printed.
        uids: of the DICOM series and of its slices; none in NIfTI. They lead to a person in the archive.
    """

    grid: Grid
    modality: str = ""
    patient_id: str = field(default="", repr=False)
    uids: frozenset[str] = field(default=frozenset(), repr=False)


def read(path: Path, *, series: str | None = None) -> Volume:
    """Read one scan: (X, Y, Z) voxels in the unit that it states, on a grid in RAS+ mm.

    Args:
        path: a NIfTI, MetaImage or NRRD file, a grey PNG, a DICOM file, or a folder with a DICOM series.
        series: SeriesInstanceUID, SeriesNumber or SeriesDescription, where a folder holds several DICOM series.

    Raises:
        InputError: if the path holds no scan; as NiftiError or DicomError, if it is one that cannot be used.
    """
    path = _existing(path)
    if _holds_nifti(path):
        return nifti.read(path)
    if _holds_itk(path):
        return itk.read(path)
    if _holds_png(path):
        from medgan.formats import grey

        return grey.read(path)
    from medgan.formats import dicom

    try:
        return dicom.read(path, series=series)
    except DicomError as error:  # which names files, but not their folder
        raise DicomError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error


def read_header(path: Path) -> Header:
    """Where the voxels of a scan are, and whose they are, without reading them.

    Raises:
        InputError: as `read`, as far as the headers tell.
    """
    path = _existing(path)
    if _holds_nifti(path):
        return Header(nifti.read_grid(path))
    if _holds_itk(path):
        return Header(itk.read_grid(path))
    if _holds_png(path):
        from medgan.formats import grey

        return Header(grey.read_grid(path))
    found = _only_series(path)
    if found.grid is None:
        raise DicomError(f"{path}: {'; '.join(found.problems) or 'is no regular volume'}")
    return Header(found.grid, found.modality, found.patient_id, found.uids)


def write(
    volume: Volume,
    path: Path,
    *,
    like: Volume | None = None,
    subject: Subject | None = None,
    description: str = "",
    limits: tuple[float, float] | None = None,
) -> Path:
    """Write one scan, in the format that its name says; a name without an ending is a folder of DICOM.

    `.nii` and `.nii.gz` are NIfTI, `.mha` and `.mhd` MetaImage, `.nrrd` NRRD, and `.png` one slice as a picture.

    Args:
        volume: to be written.
        path: of the new file or folder.
        like: a volume read from the study that a DICOM series is to join; its space code is taken for NIfTI.
        subject: the person that a DICOM series without `like` is of; other files name nobody.
        description: one line, the series' description; a PNG has none.
        limits: the values, in the volume's unit, that a PNG shows black and white; see `medgan.formats.grey.write`.

    Raises:
        InputError: if a PNG cannot hold the volume.
        OutputError: if the name says no format, or the place cannot be written.
    """
    path = Path(path)
    if path.name.endswith((".nii", ".nii.gz")):
        return nifti.write(volume, path, like=like, description=description)
    if path.name.endswith(itk.ENDINGS):
        return itk.write(volume, path, description=description)
    if path.name.endswith(".png"):
        from medgan.formats import grey

        return grey.write(volume, path, limits=limits)
    if path.suffix and not path.is_dir():
        raise OutputError(
            f"{path}: the ending {path.suffix} is not written; end the name in .nii or .nii.gz for NIfTI, in "
            ".mha, .mhd or .nrrd for ITK, or give it no ending for a folder of DICOM; one slice may also be a .png"
        )
    from medgan.formats import dicom

    return dicom.write(volume, path, like=like, subject=subject, description=description)


def is_nifti_name(path: Path) -> bool:
    """True if the name is one that NIfTI files have."""
    return path.name.lower().endswith(_NIFTI_NAMES)


def _existing(path: Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: does not exist; {_ACCEPTED}")
    return path


def _holds_nifti(path: Path) -> bool:
    """True for NIfTI, False for what is ITK's or PNG or may be DICOM; anything else is refused."""
    if path.is_dir() or _holds_png(path) or _holds_itk(path):
        return False
    if nifti.is_nifti(path):
        return True
    from medgan.formats import dicom

    if dicom.is_dicom(path):
        return False
    # A damaged file of that name: the reader says what is wrong with it.
    if is_nifti_name(path):
        return True
    _refuse_other_pictures(path)
    seen = f"a file of {path.stat().st_size} bytes ending in {path.suffix or 'nothing'}"
    raise InputError(f"{path}: is neither NIfTI, MetaImage, NRRD nor DICOM (seen: {seen}); {_ACCEPTED}")


def _holds_itk(path: Path) -> bool:
    """True for MetaImage and NRRD, and for damaged files of such names: the reader says what is wrong with them."""
    return path.is_file() and (itk.is_itk(path) or itk.is_itk_name(path))


def _holds_png(path: Path) -> bool:
    from medgan.formats import png

    return path.is_file() and png.is_png(path)


def _refuse_other_pictures(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(4)
    kind = next((name for magic, name in _PICTURES.items() if start.startswith(magic)), "")
    if kind:
        raise InputError(f"{path}: is a {kind} picture; of pictures medgan reads grey PNG of 8 or 16 bits, convert it")
    if path.suffix == ".npz":
        raise InputError(f"{path}: is a set of images; one by one they are read as NIfTI, DICOM or PNG")


def _only_series(path: Path) -> Series:
    from medgan.formats import dicom

    found = dicom.chosen(dicom.find_series(path), None, path)
    if found.num_volumes > 1:
        raise DicomError(f"{path}: {found.describe()} is 4-D, accepted is one volume; give one of them")
    return found
