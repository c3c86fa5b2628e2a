"""The stored values of a file's pictures, whatever they are encoded in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import JPEGExtended12Bit, RLELossless

from medgan.errors import DicomError
from medgan.formats.dicom.codestream import check_frames
from medgan.formats.dicom.elements import DAMAGE, number, open_dicom

__all__ = ["pixels_of"]

Array = npt.NDArray[Any]


def pixels_of(dataset: Dataset, path: Path) -> Array:
    """(rows, columns) or (frames, rows, columns) integers, as stored.

    Args:
        dataset: read with its pixels.
        path: where it was read from.

    Raises:
        DicomError: if they cannot be decoded; it names the encoding.
    """
    _refuse_shifted(dataset, path)
    try:
        return _decoded(dataset)
    except (*DAMAGE, RuntimeError) as error:
        if dataset.file_meta.get("TransferSyntaxUID") == JPEGExtended12Bit:
            return _by_simpleitk(dataset, path)
        raise DicomError(f"{path.name}: {_undecodable(path)}") from error


def _refuse_shifted(dataset: Dataset, path: Path) -> None:
    """No decoder heeds values that do not begin at the lowest bit; PS3.5 8.1.1 allows no others."""
    high, stored = number(dataset, "HighBit"), number(dataset, "BitsStored")
    if high is not None and stored is not None and high != stored - 1:
        raise DicomError(
            f"{path.name}: keeps {stored:g} bits below bit {high:g} (HighBit); accepted is HighBit = BitsStored - 1"
        )


def _decoded(dataset: Dataset) -> Array:
    """One decoder for each encoding: of others that may be installed some end the whole process on damaged files."""
    check_frames(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == RLELossless:
        dataset.pixel_array_options(decoding_plugin="pydicom")
    elif syntax.is_encapsulated:
        dataset.pixel_array_options(decoding_plugin="pylibjpeg")
    return dataset.pixel_array


def _by_simpleitk(dataset: Dataset, path: Path) -> Array:
    """JPEG Extended of 12 bits, which no other decoder for Python reads."""
    try:
        import SimpleITK
    except ImportError:
        raise DicomError(
            f"{path.name}: {_undecodable(path)}; SimpleITK decodes most files of this encoding: pip install SimpleITK"
        ) from None
    try:
        values = np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO")))
    except RuntimeError as error:
        raise DicomError(f"{path.name}: {_undecodable(path)}") from error
    return _stored(values, dataset)


def _stored(values: Array, dataset: Dataset) -> Array:
    """SimpleITK has applied slope and intercept, and counts a lone picture as a volume."""
    slope, intercept = number(dataset, "RescaleSlope") or 1.0, number(dataset, "RescaleIntercept") or 0.0
    stored = np.rint((values - intercept) / slope).astype(np.int32)
    return stored[0] if stored.ndim == 3 and stored.shape[0] == 1 else stored


def _undecodable(path: Path) -> str:
    syntax = open_dicom(path, pixels=False).file_meta.get("TransferSyntaxUID")
    known = f"{syntax.name} ({syntax})" if syntax else "an encoding that it does not name"
    return (
        f"its pixels, stored as {known}, cannot be decoded: damaged, or an encoding that is not supported; "
        "send it again, or decompress it, for example with dcmdjpeg"
    )
