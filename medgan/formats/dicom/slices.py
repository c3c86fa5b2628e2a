"""The pictures of a series with their pixels, each file opened once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from medgan.errors import DicomError
from medgan.formats.dicom.elements import DAMAGE, open_dicom
from medgan.formats.dicom.frames import pictures
from medgan.formats.dicom.headers import Header
from medgan.formats.dicom.mark import synthesis_of
from medgan.formats.dicom.pixels import pixels_of
from medgan.formats.dicom.scale import Scale, Scaling, scale_of
from medgan.formats.dicom.source import remembered
from medgan.volume import Synthesis

__all__ = ["Key", "Slice", "key_of", "slices_of"]

Array = npt.NDArray[Any]
Key = tuple[Path, int]


@dataclass(frozen=True, eq=False)
class Slice:
    """One picture.

    Args:
        pixels: (rows, columns) as stored.
        scale: what they mean.
        synthetic: what made it, if no scanner did.
        header: what a derived series may ask for, if it is to be remembered.
    """

    pixels: Array
    scale: Scale
    synthetic: Synthesis | None = None
    header: Dataset | None = None

    def values(self, dtype: Any) -> Array:
        """(rows, columns) in the unit; as int16 only where `fits_int16`."""
        if self.scale.is_one:
            return self.pixels
        if dtype == np.int16:
            return np.asarray(self.pixels.astype(np.int32) + int(self.scale.intercept))
        return np.asarray(self.pixels * self.scale.slope + self.scale.intercept)

    @property
    def fits_int16(self) -> bool:
        """True if that type holds every value exactly."""
        slope, intercept = self.scale.slope, self.scale.intercept
        if slope != 1 or intercept != round(intercept) or self.pixels.dtype.kind not in "iu":
            return False
        limits = np.iinfo(np.int16)
        lowest, highest = int(self.pixels.min()) + intercept, int(self.pixels.max()) + intercept
        return bool(lowest >= limits.min and highest <= limits.max)


def key_of(header: Header) -> Key:
    """What a picture is found by: its file, and its frame in it."""
    return header.path, header.frame


def slices_of(headers: Iterable[Header], *, remember: bool, scaling: Scaling) -> dict[Key, Slice]:
    """Every picture.

    Raises:
        DicomError: if a file cannot be read, decoded or scaled; it names the file.
    """
    found: dict[Key, Slice] = {}
    for path, group in groupby(sorted(headers, key=key_of), key=lambda header: header.path):
        try:
            found |= {key_of(header): one for header, one in _of_file(path, list(group), remember, scaling)}
        except OSError as error:
            raise DicomError(f"{path.name}: cannot be read ({error.strerror or error}); check the file") from error
        except DAMAGE as error:
            raise DicomError(f"{path.name}: its header is damaged ({type(error).__name__}); send it again") from error
    return found


def _of_file(path: Path, headers: Sequence[Header], remember: bool, scaling: Scaling) -> Iterator[tuple[Header, Slice]]:
    plain, scale = headers[0].plain, headers[0].scale
    if plain is not None and scale is not None and scaling == "stated" and not remember:
        yield headers[0], Slice(plain.read(path, headers[0].rows, headers[0].columns), scale)
        return
    dataset = open_dicom(path, pixels=True)
    pixels, told = pixels_of(dataset, path), list(pictures(dataset))
    for header in headers:
        own = told[header.frame].dataset
        kept = remembered(own, header.frame + 1 if len(told) > 1 and not header.across else None) if remember else None
        scale = scale_of(own, path.name, scaling)
        yield header, Slice(_cut(pixels, header, path), scale, synthesis_of(own), kept)


def _cut(pixels: Array, header: Header, path: Path) -> Array:
    """The picture of a frame, or of a tile."""
    if header.across:
        down, right = divmod(header.frame, header.across)
        rows, columns = down * header.rows, right * header.columns
        picture = pixels[rows : rows + header.rows, columns : columns + header.columns]
    else:
        picture = pixels[header.frame] if pixels.ndim == 3 else pixels
    if picture.shape != (header.rows, header.columns):
        raise DicomError(f"{path.name}: holds {pixels.shape} pixels, not what its header says; send it again")
    return picture
