"""What scans lie in a folder, and what is odd about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError, MedganError
from medgan.formats import dicom, grey, is_nifti_name, itk, nifti, npz, png
from medgan.progress import track
from medgan.volume import Grid, Volume

__all__ = ["Finding", "inspect"]

Array = npt.NDArray[Any]
_DICOM_NAMES = (".dcm", ".dicom", ".ima")
_MAX_ANISOTROPY = 5.0


@dataclass(frozen=True)
class Finding:
    """One scan, or one file that should be one, or one set of images.

    Args:
        path: relative to what was inspected: a file, or the folder of a DICOM series.
        kind: `dicom`, `nifti`, `metaimage`, `nrrd`, `png`, or `npz` for a set of images.
        series: SeriesInstanceUID, "" for NIfTI.
        description: SeriesDescription.
        name: of a DICOM series, as `--series` takes it and `convert` names files.
        modality: DICOM's code, "" where it is not recorded.
        shape: (X, Y, Z), of each image in a set; None, as all that follows, where the scan cannot be read.
        spacing_mm: distance between voxel centres along each array axis, mm.
        num_volumes: more than one for a 4-D series.
        orientation: to which side of the patient each array axis runs, such as `RAS`; "" for a set, which records none.
        obliquity_deg: the most that an array axis is turned away from its anatomical axis, degrees.
        minimum: smallest value, in `unit`.
        maximum: greatest value, in `unit`.
        unit: "" where it is not recorded.
        dtype: of the values, as read.
        synthetic: True if the scan, or every image of the set, says that no scanner made it.
        problems: what is odd or was repaired, a line each.
        notes: what people should know, though nothing is wrong, a line each.
        error: why the scan cannot be read; "" if it can.
        patient: the identifier in the DICOM header, only if it was asked for.
    """

    path: str
    kind: str
    series: str = ""
    description: str = ""
    name: str = ""
    num_volumes: int = 1
    modality: str = ""
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str = ""
    obliquity_deg: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    dtype: str = ""
    synthetic: bool = False
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    patient: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def inspect(path: Path, *, identity: bool = False) -> list[Finding]:
    """Find every DICOM series, NIfTI file, PNG and set of images under a path, read it and say what is odd about it.

    A scan that cannot be read is a finding with an `error`.

    Args:
        path: a folder or one file.
        identity: also tell the patient identifiers that DICOM headers hold.

    Raises:
        InputError: if there is nothing at the path.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: does not exist; give a folder or a file with scans")
    files = _files(path)
    series = [part for one in dicom.find_series(path) for part in _parts(one)]
    known = {file for one in series for file in one.files}
    others = [file for file in files if file not in known]
    looks: list[Callable[[], Finding]] = [partial(_dicom, one, path, identity) for one in series]
    looks += [partial(_nifti, file, path) for file in others if _is_nifti(file)]
    looks += [partial(_itk, file, path) for file in others if _is_itk(file)]
    looks += [partial(_png, file, path) for file in others if _is_png(file)]
    looks += [partial(_npz, file, path) for file in others if _may_be_set(file)]
    looks += [partial(_no_dicom, file, path) for file in others if _is_false_dicom(file)]
    found = (look() for look in track(looks, "inspect"))
    return sorted(found, key=lambda one: (one.path, one.modality, one.description, one.series))


def _parts(series: dicom.Series) -> list[dicom.Series]:
    """The series, or, where copies of it in several folders spoil one another, the series of each folder."""
    folders = sorted({file.parent for file in series.files})
    if series.grid is not None or len(folders) == 1:
        return [series]
    parts = [
        part
        for folder in folders
        for part in dicom.find_series(folder)
        if (part.uid, part.labels) == (series.uid, series.labels)
    ]
    return parts if any(part.grid is not None and part.num_slices > 1 for part in parts) else [series]


# --- one finding ------------------------------------------------------------------------------------------------------


def _dicom(series: dicom.Series, root: Path, identity: bool) -> Finding:
    place = series.files[0] if len(series.files) == 1 else Path(os.path.commonpath(series.files))
    finding = Finding(
        path=_relative(place, root),
        kind="dicom",
        series=series.uid,
        description=series.description,
        name=series.name,
        num_volumes=series.num_volumes,
        modality=series.modality,
        synthetic=series.synthetic,
        patient=series.patient_id if identity else "",
    )
    if series.grid is None:
        return replace(finding, error="; ".join(series.problems) or "is no regular volume")
    finding = replace(_placed(finding, series.grid), problems=series.problems, notes=series.notes)
    return _read(finding, place, lambda: dicom.read_volumes(series, remember=False))


def _nifti(file: Path, root: Path) -> Finding:
    finding = Finding(path=_relative(file, root), kind="nifti")
    try:
        grid, oddities = nifti.read_set_grid(file), nifti.oddities(file)
    except MedganError as error:
        return replace(finding, error=_without(error, file))
    return _read(replace(_placed(finding, grid), problems=oddities), file, lambda: nifti.read_set(file))


def _itk(file: Path, root: Path) -> Finding:
    finding = Finding(path=_relative(file, root), kind="nrrd" if file.name.lower().endswith("rrd") else "metaimage")
    try:
        grid, oddities = itk.read_grid(file), itk.oddities(file)
    except MedganError as error:
        return replace(finding, error=_without(error, file))
    return _read(replace(_placed(finding, grid), problems=oddities), file, lambda: [itk.read(file)])


def _png(file: Path, root: Path) -> Finding:
    finding = Finding(path=_relative(file, root), kind="png")
    try:
        grid, oddities = grey.read_grid(file), grey.oddities(file)
    except MedganError as error:
        return replace(finding, error=_without(error, file))
    return _read(replace(_placed(finding, grid), problems=oddities), file, lambda: [grey.read(file)])


def _npz(file: Path, root: Path) -> Finding:
    finding = Finding(path=_relative(file, root), kind="npz")
    try:
        held = npz.read_set(file)
    except MedganError as error:
        return replace(finding, error=_without(error, file))
    num_images, num_channels, x, y, z = (*held.images.shape, 1)[:5]
    dx, dy, dz = (*held.spacing_mm, 1.0)[:3]
    num_marked = sum(made is not None for made in held.synthetic)
    some = (f"{num_images - num_marked} of {num_images} images have no mark of being synthetic",)
    return replace(
        finding,
        description=f"{num_images} images of {num_channels} {'channel' if num_channels == 1 else 'channels'}",
        modality=", ".join(one for one in dict.fromkeys(held.modalities) if one),
        shape=(x, y, z),
        spacing_mm=(dx, dy, dz),
        minimum=float(held.images.min()),
        maximum=float(held.images.max()),
        unit=", ".join(dict.fromkeys(held.units)),
        dtype=str(held.images.dtype),
        synthetic=num_marked == num_images,
        problems=some if 0 < num_marked < num_images else (),
    )


def _no_dicom(file: Path, root: Path) -> Finding:
    return Finding(_relative(file, root), "dicom", error="is named like DICOM, but is not DICOM")


def _placed(finding: Finding, grid: Grid) -> Finding:
    return replace(
        finding,
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        orientation=grid.orientation,
        obliquity_deg=_obliquity_deg(grid),
    )


def _read(finding: Finding, place: Path, read: Callable[[], list[Volume]]) -> Finding:
    try:
        volumes = read()
    except MedganError as error:
        return replace(finding, error=_without(error, place))
    volume = volumes[0]
    recorded = volume.modality or volume.unit != "a.u."
    finding = replace(
        finding,
        modality=volume.modality,
        num_volumes=len(volumes),
        minimum=min(float(one.array.min()) for one in volumes),
        maximum=max(float(one.array.max()) for one in volumes),
        unit=volume.unit if recorded else "",
        dtype=str(volume.array.dtype),
        synthetic=volume.synthetic is not None,
    )
    geometry = () if finding.kind == "png" else _geometry(volume.grid)  # of a picture its thickness is a formality
    return replace(finding, problems=(*finding.problems, *geometry, *_values(finding, volume.array)))


# --- what is odd ------------------------------------------------------------------------------------------------------


def _geometry(grid: Grid) -> Iterator[str]:
    spacing = sorted(grid.spacing_mm)
    if grid.is_sheared:
        yield "the array axes are not at right angles, as under a gantry tilt"
    if spacing[2] > _MAX_ANISOTROPY * spacing[0]:
        yield f"voxels are {spacing[2] / spacing[0]:.1f} times as long as wide"
    if min(grid.shape) == 1:
        yield "a single slice"


def _values(finding: Finding, array: Array) -> Iterator[str]:
    low, high = finding.minimum or 0.0, finding.maximum or 0.0
    if low == high:
        yield f"all voxels are {low:g}"
        return
    if not finding.unit and -2100 <= low <= -900 and high >= 300:
        yield "no unit recorded; the values look like HU"
    if finding.unit == "HU" and low >= 0:
        yield "in HU, but no value is below 0"
    if not _looks_like_labels(array, low):
        yield from _clipping(array, low, high)


def _clipping(array: Array, low: float, high: float) -> Iterator[str]:
    """Too many voxels at the greatest value: more than in the two hundredths of the range below it."""
    at_most = int(np.count_nonzero(array == high))
    just_below = int(np.count_nonzero(array > high - 0.02 * (high - low))) - at_most
    if at_most > max(just_below, 1e-4 * np.count_nonzero(array), 10):
        yield f"the values look clipped: {at_most} voxels are {high:g}, {just_below} just below"


def _looks_like_labels(array: Array, background: float) -> bool:
    """True for integers that neighbours share, as in masks and segmentations: their steps are no clipping."""
    first, second = array[:-1], array[1:]
    inside = (first != background) & (second != background)
    num_inside, num_same = int(np.count_nonzero(inside)), int(np.count_nonzero(inside & (first == second)))
    return num_same > 0.6 * num_inside and np.array_equal(array, np.rint(array))


def _obliquity_deg(grid: Grid) -> float:
    largest = np.abs(grid.direction).max(axis=0)
    return round(float(np.degrees(np.arccos(np.clip(largest, 0, 1)).max())), 2)


# --- files ------------------------------------------------------------------------------------------------------------


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _is_nifti(file: Path) -> bool:
    """By content or name, so that a damaged one is told; of a pair only the header, no hidden files of the system."""
    if file.name.startswith(".") or file.name.endswith((".img", ".img.gz")):
        return False
    return is_nifti_name(file) or nifti.is_nifti(file)


def _is_itk(file: Path) -> bool:
    return not file.name.startswith(".") and (itk.is_itk_name(file) or itk.is_itk(file))


def _is_png(file: Path) -> bool:
    return not file.name.startswith(".") and (png.is_png(file) or file.suffix.lower() == ".png")


def _may_be_set(file: Path) -> bool:
    """False for other files, and for other arrays than those of a set."""
    return file.suffix == ".npz" and not file.name.startswith(".") and npz.may_be_set(file)


def _is_false_dicom(file: Path) -> bool:
    named = file.suffix.lower() in _DICOM_NAMES and not file.name.startswith(".")
    return named and not dicom.is_dicom(file)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else path.name


def _without(error: MedganError, file: Path) -> str:
    """The message without the path that the finding already names."""
    return str(error).removeprefix(f"{file}: ")
