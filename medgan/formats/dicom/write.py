"""A volume becomes a DICOM series of its own, which says what it is and where it comes from."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medgan.atomic import replacing
from medgan.errors import GeometryError, InputError
from medgan.formats.dicom.attributes import KINDS, kind_of
from medgan.formats.dicom.derive import Order, slices_like, slices_of
from medgan.formats.dicom.elements import quietly
from medgan.formats.dicom.source import Source
from medgan.formats.dicom.stored import scaled, stored
from medgan.formats.dicom.straighten import onto_slices
from medgan.formats.dicom.subject import Subject
from medgan.formats.sidecar import sampling_to_json
from medgan.volume import Grid, Volume

__all__ = ["write"]

Array = npt.NDArray[Any]


def write(
    volume: Volume,
    folder: Path,
    *,
    like: Volume | None = None,
    subject: Subject | None = None,
    description: str = "",
) -> Path:
    """Write a volume as a new DICOM series of CT, MR or PET slices, one file each.

    The series is derived: it has new series and instance UIDs and keeps patient, study, frame of reference and the
    exact position of every slice of its source. It names its source images, and if the volume is synthetic it says so
    (SyntheticData, Synthesizing Equipment, "not for diagnostic use"). Values are stored as 16-bit integers: HU for
    CT, clipped to [-1024, 3071] where synthetic; whole numbers for MR, or where rounding would cost more than 0.1 %
    of the range, scaled integers with a RescaleSlope (which MR files may carry, though the standard does not list it).
    A map that belongs to an image, such as its standard deviation, is always scaled, and says what it is.

    Args:
        volume: what to write; on the grid of its source up to flipped or swapped axes.
        folder: a new or empty folder.
        like: a volume read from DICOM whose series is the source; the volume's own header if not given.
        subject: whom a made-up scan without a source is of. For a sampled image it is `Subject.sampled`: then equal
            images become equal files, and a modality other than CT, MR and PT becomes a Secondary Capture.
        description: SeriesDescription; one that tells is made up if not given.

    Returns:
        The folder, with files `IM0001.dcm` on, in the order of the slices.

    Raises:
        GeometryError: if the volume is not on its source's grid, or has none and is sheared.
        InputError: if there is neither source nor subject, or DICOM has no place for its modality, unit or values.
        OutputError: if the folder cannot be written or has something in it.
    """
    source = _source(volume, like, subject)
    volume = _with_modality(volume, like, capture=bool(subject and subject.seed))
    placed = _straight(volume) if source is None else _on_slices(volume, source)
    synthetic, is_map = volume.synthetic is not None, bool(volume.synthetic and volume.synthetic.quantity)
    order = Order(
        volume=placed,
        stored=scaled(placed) if is_map else stored(placed, modality=volume.modality, clip=synthetic),
        description=description,
        now=subject.study_time if subject and subject.seed else datetime.now(),
        seed=subject.seed if subject else "",
    )
    with quietly():
        datasets = slices_of(order, subject or Subject()) if source is None else slices_like(order, source)
        with replacing(Path(folder)) as temporary:
            temporary.mkdir()
            for number, dataset in enumerate(datasets, start=1):
                _save(dataset, temporary / f"IM{number:04d}.dcm")
    return Path(folder)


def _source(volume: Volume, like: Volume | None, subject: Subject | None) -> Source | None:
    if like is not None and subject is not None:
        raise InputError("both a source series (like) and a subject are given; a series has one of them")
    if like is not None and not isinstance(like.header, Source):
        raise InputError("the volume given as like was not read from DICOM; read it from the source series")
    if subject is not None:
        return None
    if like is not None and like.synthetic is None and volume.synthetic and sampling_to_json(volume.synthetic):
        raise InputError("the image was drawn from noise, so it is of no patient and takes no source series (like)")
    header = volume.header if like is None else like.header
    if not isinstance(header, Source):
        raise InputError("a DICOM series needs a patient and a place: pass the source series (like), or a subject")
    return header


def _with_modality(volume: Volume, like: Volume | None, *, capture: bool) -> Volume:
    """The volume with its modality, or where it knows none, with modality and unit of its source.

    An image that may be a Secondary Capture can have any modality, and OT (other) where it knows none.
    """
    if not volume.modality and like is not None and volume.unit == "a.u.":
        volume = volume.with_array(volume.array, modality=like.modality, unit=like.unit)
    if capture:
        volume = volume.with_array(volume.array, modality=_code(volume.modality or "OT"))
    kind = kind_of(volume.modality) if capture else KINDS.get(volume.modality)
    if kind is None:
        raise InputError(f"modality {volume.modality!r} cannot be written as DICOM; accepted are {', '.join(KINDS)}")
    if volume.unit not in kind.units:
        accepted = " or ".join(kind.units)
        raise InputError(
            f"this {volume.modality} volume is in {volume.unit!r}; DICOM's {volume.modality} is in {accepted}"
        )
    return volume


def _code(modality: str) -> str:
    if not re.fullmatch(r"[A-Z0-9_ ]{1,16}", modality):
        raise InputError(f"modality {modality!r} is no code of DICOM; give one in capitals, such as CT, MR, DX or OT")
    return modality


def _straight(volume: Volume) -> Volume:
    """The volume with its axes as near to DICOM's own (left, posterior, superior) as flips and swaps bring them."""
    if volume.grid.is_sheared:
        raise GeometryError(f"a grid without right angles cannot be written as slices ({volume.grid.describe()})")
    turned = volume.reorient("LPS")
    if np.linalg.det(turned.grid.affine[:3, :3]) > 0:
        return turned
    # Left-handed: slices must run along the normal of their rows and columns.
    return volume.reorient("LPI")


def _on_slices(volume: Volume, source: Source) -> Volume:
    """The volume on the source's slices, whose places are theirs alone: from the straight grid it is resampled."""
    exact = source.stack.grid
    if exact is not None and (not source.resampled or _lies_on(volume, exact)):
        return _onto(volume, exact)
    placed = _onto(volume, source.grid)
    array = onto_slices(placed.array, source.grid, source.stack)
    return replace(placed, array=array, grid=source.stack.nominal_grid)


def _lies_on(volume: Volume, grid: Grid) -> bool:
    try:
        _onto(volume, grid)
    except GeometryError:
        return False
    return True


def _onto(volume: Volume, grid: Grid) -> Volume:
    """The volume with its axes in the order and sense of another grid, which it must then lie on."""
    overlap = grid.direction.T @ volume.grid.direction
    order = [int(axis) for axis in np.abs(overlap).argmax(axis=1)]
    if sorted(order) != [0, 1, 2]:
        raise _elsewhere(volume.grid, grid, "their axes do not fit")
    flips = [bool(overlap[new, old] < 0) for new, old in enumerate(order)]
    affine = np.eye(4)
    start = [0, 0, 0]
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        start[old] = volume.grid.shape[old] - 1 if flip else 0
        affine[:3, new] = volume.grid.affine[:3, old] * (-1 if flip else 1)
    affine[:3, 3] = volume.grid.to_world(start)
    array = np.flip(volume.array.transpose(order), axis=tuple(axis for axis in range(3) if flips[axis]))
    placed = Grid(array.shape, affine)
    if placed.shape != grid.shape:
        raise _elsewhere(volume.grid, grid, "their shapes differ")
    if not placed.same_as(grid):
        raise _elsewhere(volume.grid, grid, f"they lie up to {placed.distance_mm(grid):.3g} mm apart")
    return Volume(array, grid, volume.unit, volume.modality, volume.synthetic, volume.header)


def _elsewhere(seen: Grid, wanted: Grid, why: str) -> GeometryError:
    return GeometryError(
        f"the volume ({seen.describe()}) is not on the grid of its source series ({wanted.describe()}): {why}; "
        "resample it onto that grid first"
    )


def _save(dataset: Dataset, path: Path) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dcmwrite(path, dataset, enforce_file_format=True)
