"""Does everything in a place say that it is synthetic? Asked before a set of images is trusted to be what it claims."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medgan.errors import InputError
from medgan.formats import itk, nifti, npz, png

__all__ = ["is_marked", "missing_marks"]

_NAMES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".png", ".dcm", ".ima")


def is_marked(path: Path) -> bool:
    """True if every image in a file or folder bears all marks of a synthetic image; see `missing_marks`.

    Raises:
        InputError: if there is no image, or one cannot be read.
    """
    return not missing_marks(path)


def missing_marks(path: Path) -> tuple[str, ...]:
    """What is missing of the marks of synthetic images: a line for each file that lacks some, none if all is there.

    Looked at are NIfTI, MetaImage, NRRD, PNG and DICOM files, which are told by content, and sets of images in `.npz`
    files. What counts is in the image itself: a JSON file beside it may be lost.

    | format | has to have |
    |---|---|
    | NIfTI, MetaImage, NRRD | a comment or a description that says synthetic |
    | PNG | the text Synthetic, medgan's comment, and DigitalSourceType in its XMP |
    | DICOM | SyntheticData YES, Synthesizing Equipment, ImageType DERIVED |
    | npz | a mark for each image |

    Args:
        path: a file, or a folder with all that is below it.

    Raises:
        InputError: if there is no image, or one cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: does not exist; give a file or folder of images")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    found = {file: lacks for file in files if (lacks := _lacks(file)) is not None}
    if not found:
        raise InputError(f"{path}: holds no image; give NIfTI, MetaImage, NRRD, PNG, DICOM or .npz files")
    return tuple(f"{_name(file, path)}: lacks {', '.join(lacks)}" for file, lacks in found.items() if lacks)


def _lacks(file: Path) -> tuple[str, ...] | None:
    """What one file lacks; None if it is no image."""
    if nifti.is_nifti(file):
        return () if nifti.read_mark(file) else ("a comment that it is synthetic",)
    if itk.is_itk(file):
        return () if itk.read_mark(file) else ("a comment that it is synthetic",)
    if png.is_png(file):
        return png.missing_marks(png.open_png(file, grey=False).text)
    if file.suffix == ".npz":
        return tuple(_unmarked(file))
    from medgan.formats import dicom

    if dicom.is_dicom(file):
        return dicom.missing_marks(file)
    return ("an image, though it is named like one",) if file.name.lower().endswith(_NAMES) else None


def _unmarked(file: Path) -> Iterator[str]:
    marks = npz.read_marks(file)
    if bare := sum(mark is None for mark in marks):
        yield f"a mark of {bare} of its {len(marks)} images"


def _name(file: Path, root: Path) -> str:
    return str(file) if file == root else file.relative_to(root).as_posix()
