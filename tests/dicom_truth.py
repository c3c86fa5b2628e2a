"""What DICOM files themselves say: every stored frame with its values and its place, read by pydicom alone.

Nothing here knows medgan, NIfTI or any converter: these are the formulas of PS3.3 C.7.6.2.1.1 (image plane), C.7.6.16
(functional groups), C.11.1 (modality LUT) and PS3.5 8.1 (bits stored), and for a mosaic Siemens' own CSA header.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

Array = npt.NDArray[Any]
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
GREY = {"MONOCHROME1", "MONOCHROME2"}
NO_IMAGES = ("Segmentation", "RT Dose", "Parametric Map")  # grids of something else than an image's values


class Unjudgeable(Exception):
    """A file that states no grey values, or no place for them."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One stored picture.

    Args:
        path: its file.
        index: its number in the file: of a frame, or of a tile of a mosaic.
        values: (rows, columns) float64, rescaled as its header says.
        origin: RAS mm of the centre of the first pixel.
        down: RAS mm from one row to the next.
        across: RAS mm from one column to the next.
        kind: `frame`, `tile` or `localizer`.
        order: what tells in which order frames at one place were taken.
        b_value: s/mm², None where none is stated.
        gradient: RAS unit vector of the diffusion gradient, None where none is stated.
    """

    path: Path
    index: int
    values: Array
    origin: Array
    down: Array
    across: Array
    kind: str = "frame"
    order: tuple[float, ...] = ()
    b_value: float | None = None
    gradient: Array | None = None

    @property
    def name(self) -> str:
        return f"{self.path.name}[{self.index}]"

    @property
    def normal(self) -> Array:
        normal = np.cross(self.across, self.down)
        return np.asarray(normal / np.linalg.norm(normal))

    def places(self, rows: Array, columns: Array) -> Array:
        """(n, 3) RAS mm of the centres of pixels."""
        return np.asarray(self.origin + rows[:, None] * self.down + columns[:, None] * self.across)


@contextmanager
def quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def frames_of(path: Path) -> list[Frame]:
    """All frames of one file.

    Raises:
        Unjudgeable: with the reason.
    """
    try:
        return frames_as_stated(path)
    except Unjudgeable:
        raise
    except BaseException as error:  # whatever pydicom, nibabel or a decoder raises on it: no truth can be had
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Unjudgeable(f"not readable ({type(error).__name__})") from error


def frames_as_stated(path: Path) -> list[Frame]:
    with quietly():
        dataset = opened(path)
        refuse_what_has_no_values(dataset)
        pixels = decoded(dataset)
        if "PerFrameFunctionalGroupsSequence" in dataset:
            return [enhanced_frame(path, dataset, pixels, n) for n in range(len(pixels))]
        if len(pixels) > 1:
            raise Unjudgeable("several frames without a place of their own")
        if "MOSAIC" in (dataset.get("ImageType") or ()):
            return tiles(path, dataset, pixels[0])
        return [classic_frame(path, dataset, pixels[0])]


def opened(path: Path) -> Dataset:
    start = path.read_bytes()[:132]
    if start[128:] != b"DICM" and start[:1] not in {b"\x02", b"\x08"}:
        raise Unjudgeable("no DICOM file to whoever looks at its beginning")
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, _ = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset


def refuse_what_has_no_values(dataset: Dataset) -> None:
    sop_class = dataset.get("SOPClassUID")
    name = sop_class.name if sop_class else ""
    if "PixelData" not in dataset:
        raise Unjudgeable("no pixels")
    if dataset.get("PhotometricInterpretation") not in GREY:
        raise Unjudgeable(f"colour ({dataset.get('PhotometricInterpretation')})")
    if name.startswith(NO_IMAGES):
        raise Unjudgeable(f"no image ({name})")
    if "ModalityLUTSequence" in dataset:
        raise Unjudgeable("values by a table")


def decoded(dataset: Dataset) -> Array:
    """(frames, rows, columns) of stored integers: only the bits that are stored, with their sign."""
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns).astype(np.int64)
    if dataset.file_meta.TransferSyntaxUID.is_compressed and not dataset.file_meta.TransferSyntaxUID.is_deflated:
        return np.asarray(pixels)
    bits, lowest = int(dataset.BitsStored), int(dataset.HighBit) + 1 - int(dataset.BitsStored)
    if lowest < 0 or not 0 < bits + lowest <= dataset.BitsAllocated:
        raise Unjudgeable("bits that do not fit")
    pixels = (pixels >> lowest) & ((1 << bits) - 1)
    if dataset.PixelRepresentation:
        pixels = np.where(pixels >> (bits - 1), pixels - (1 << bits), pixels)
    return np.asarray(pixels)


def classic_frame(path: Path, dataset: Dataset, pixels: Array) -> Frame:
    plane = (dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient"), dataset.get("PixelSpacing"))
    kind = "localizer" if "LOCALIZER" in (dataset.get("ImageType") or ()) else "frame"
    order = tuple(number(dataset.get(key)) for key in ("TemporalPositionIdentifier", "AcquisitionNumber"))
    values = rescaled(pixels, dataset.get("RescaleSlope"), dataset.get("RescaleIntercept"))
    b_value, gradient = diffusion(dataset)
    return placed(path, 0, values, plane, kind, (*order, number(dataset.get("InstanceNumber"))), b_value, gradient)


def enhanced_frame(path: Path, dataset: Dataset, pixels: Array, n: int) -> Frame:
    """A frame by its functional groups: its own before the shared ones."""
    own = dataset.PerFrameFunctionalGroupsSequence[n]
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]

    def macro(sequence: str) -> Dataset:
        return next((groups[sequence][0] for groups in (own, shared) if groups.get(sequence)), Dataset())

    plane = (
        macro("PlanePositionSequence").get("ImagePositionPatient"),
        macro("PlaneOrientationSequence").get("ImageOrientationPatient"),
        macro("PixelMeasuresSequence").get("PixelSpacing"),
    )
    scale = macro("PixelValueTransformationSequence")
    values = rescaled(pixels[n], scale.get("RescaleSlope"), scale.get("RescaleIntercept"))
    order = (number(macro("FrameContentSequence").get("TemporalPositionIndex")), float(n))
    b_value, gradient = diffusion(macro("MRDiffusionSequence"))
    return placed(path, n, values, plane, "frame", order, b_value, gradient)


def diffusion(holder: Dataset) -> tuple[float | None, Array | None]:
    """The standard's own b-value and direction (C.8.13.5.9), where a file has them."""
    b_value = holder.get("DiffusionBValue")
    holder = (holder.get("DiffusionGradientDirectionSequence") or [holder])[0]
    vector = holder.get("DiffusionGradientOrientation")
    gradient = None if vector is None else LPS_TO_RAS * np.array(vector, float)
    return (None if b_value is None else float(b_value)), gradient


def placed(  # noqa: PLR0917
    path: Path,
    index: int,
    values: Array,
    plane: tuple[Any, Any, Any],
    kind: str,
    order: tuple[float, ...],
    b_value: float | None = None,
    gradient: Array | None = None,
) -> Frame:
    position, orientation, spacing = (floats(value) for value in plane)
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
        raise Unjudgeable("no place in the patient")
    if not all(np.isfinite(part).all() for part in (position, orientation, spacing)):
        raise Unjudgeable("a place that is not finite")
    across, down = LPS_TO_RAS * orientation[:3] * spacing[1], LPS_TO_RAS * orientation[3:] * spacing[0]
    return Frame(path, index, values, LPS_TO_RAS * position, down, across, kind, order, b_value, gradient)


def tiles(path: Path, dataset: Dataset, pixels: Array) -> list[Frame]:
    """The slices of a Siemens mosaic: its position is that of the whole sheet laid around the first slice's centre."""
    count, normal = mosaic_header(dataset)
    side = math.ceil(math.sqrt(count))
    if not np.abs(np.cross(normal, classic_frame(path, dataset, pixels).normal)).max() < 1e-3:  # NaN too
        raise Unjudgeable("a mosaic whose slices do not follow the normal of its picture")
    if pixels.shape[0] % side or pixels.shape[1] % side:
        raise Unjudgeable("a mosaic that its tiles do not fill")
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    sheet = classic_frame(path, dataset, pixels)
    gap = float(dataset.SpacingBetweenSlices)
    first = sheet.origin + sheet.across * (pixels.shape[1] - columns) / 2 + sheet.down * (pixels.shape[0] - rows) / 2
    made = []
    for n in range(count):
        top, left = rows * (n // side), columns * (n % side)
        values = sheet.values[top : top + rows, left : left + columns]
        order = (float(dataset.get("InstanceNumber") or 0),)
        made.append(Frame(path, n, values, first + n * gap * normal, sheet.down, sheet.across, "tile", order))
    return made


def mosaic_header(dataset: Dataset) -> tuple[int, Array]:
    """Number of tiles and the RAS direction from tile to tile, by the CSA header, else by the protocol in it."""
    from nibabel.nicom import csareader

    csa = csareader.get_csa_header(dataset)
    if csa and (count := csareader.get_n_mosaic(csa)):
        return int(count), LPS_TO_RAS * np.array(csareader.get_slice_normal(csa), float)
    if (0x0029, 0x1020) not in dataset:
        raise Unjudgeable("a mosaic that does not say how many tiles it has")
    protocol = bytes(dataset[0x0029, 0x1020].value).decode("latin1")
    count = int(entry(protocol, r"lSize"))
    ends = [
        LPS_TO_RAS * [entry(protocol, rf"asSlice\[{n}\]\.sPosition\.d{axis}") for axis in ("Sag", "Cor", "Tra")]
        for n in (0, count - 1)
    ]
    # Slices may be stored from either end of the plan; the sheet lies around the centre of the one stored first.
    ends.sort(key=lambda end: float(np.linalg.norm(end - sheet_centre(dataset))))
    return count, np.asarray((ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0]))


def sheet_centre(dataset: Dataset) -> Array:
    along, down = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    down_mm, along_mm = np.array(dataset.PixelSpacing, float) * (dataset.Rows, dataset.Columns)
    return LPS_TO_RAS * (np.array(dataset.ImagePositionPatient, float) + (along * along_mm + down * down_mm) / 2)


def entry(protocol: str, key: str) -> float:
    found = re.search(rf"sSliceArray\.{key}\s*=\s*(\S+)", protocol)
    return float(found[1]) if found else 0.0


def rescaled(pixels: Array, slope: Any, intercept: Any) -> Array:
    return np.asarray(pixels * (1.0 if slope in {None, ""} else float(slope)) + number(intercept))


def number(value: Any) -> float:
    return 0.0 if value in {None, ""} else float(value)


def floats(value: Any) -> Array:
    try:
        return np.array([float(part) for part in (value or ())])
    except (TypeError, ValueError):
        return np.array([])
