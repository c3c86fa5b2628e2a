"""DICOM objects of many pictures, made for tests: enhanced multi-frame MR, and Siemens mosaics with a CSA header."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from dicom_folders import make_slices, set_pixels, texts
from pydicom import Dataset
from pydicom.uid import EnhancedMRImageStorage, generate_uid

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Part:
    """One frame of an enhanced object.

    Args:
        pixels: (rows, columns) uint16.
        position: LPS mm of the first pixel.
        directions: LPS unit vectors along a row and along a column of pixels.
        stack: index of its place along the normal, from 1.
        time: TemporalPositionIndex, from 1.
        slope: RescaleSlope.
        echo_ms: EffectiveEchoTime, None where it is not stated.
        kind: ComplexImageComponent: MAGNITUDE, PHASE, REAL or IMAGINARY.
        b_value: s/mm², None where it is not stated.
        gradient: LPS unit vector.
    """

    pixels: Array
    position: Array
    directions: tuple[Any, Any]
    stack: int = 1
    time: int = 1
    slope: float = 1
    echo_ms: float | None = None
    kind: str = "MAGNITUDE"
    b_value: float | None = None
    gradient: Sequence[float] | None = None


def enhanced_mr(parts: Sequence[Part], *, spacing: tuple[float, float] = (1.5, 1.0), gap: float = 2.5) -> Dataset:
    """An Enhanced MR Image (PS3.3 A.36.2) of frames in the given order; what they have in common is shared."""
    one = make_slices(parts[0].pixels[None], spacing=spacing)[0]
    for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "EchoTime"):
        delattr(one, key)
    one.SOPClassUID, one.SOPInstanceUID = EnhancedMRImageStorage, generate_uid()
    one.ImageType = ["ORIGINAL", "PRIMARY", "OTHER", "NONE"]
    one.NumberOfFrames = len(parts)
    set_pixels(one, np.concatenate([part.pixels for part in parts]))
    one.Rows = parts[0].pixels.shape[0]
    one.DimensionOrganizationSequence = [dataset(DimensionOrganizationUID=generate_uid())]
    pointers = [(0x00209111, 0x00209056), (0x00209111, 0x00209057), (0x00209111, 0x00209128)]
    one.DimensionIndexSequence = [
        dataset(DimensionIndexPointer=pointer, FunctionalGroupPointer=group) for group, pointer in pointers
    ]
    measures = dataset(PixelSpacing=texts(spacing), SliceThickness=f"{gap:.6g}", SpacingBetweenSlices=f"{gap:.6g}")
    one.SharedFunctionalGroupsSequence = [dataset(PixelMeasuresSequence=[measures])]
    one.PerFrameFunctionalGroupsSequence = [groups_of(part) for part in parts]
    return one


def groups_of(part: Part) -> Dataset:
    content = dataset(StackID="1", InStackPositionNumber=part.stack, TemporalPositionIndex=part.time)
    content.DimensionIndexValues = [1, part.stack, part.time]
    content.FrameAcquisitionNumber = part.time
    orientation = dataset(ImageOrientationPatient=texts([*part.directions[0], *part.directions[1]]))
    groups = dataset(
        FrameContentSequence=[content],
        PlanePositionSequence=[dataset(ImagePositionPatient=texts(part.position))],
        PlaneOrientationSequence=[orientation],
        PixelValueTransformationSequence=[
            dataset(RescaleSlope=f"{part.slope:.8g}", RescaleIntercept="0", RescaleType="US")
        ],
        MRImageFrameTypeSequence=[
            dataset(FrameType=["ORIGINAL", "PRIMARY", "OTHER", "NONE"], ComplexImageComponent=part.kind)
        ],
    )
    if part.echo_ms is not None:
        groups.MREchoSequence = [dataset(EffectiveEchoTime=part.echo_ms)]
    if part.b_value is not None:
        groups.MRDiffusionSequence = [diffusion_of(part)]
    return groups


def diffusion_of(part: Part) -> Dataset:
    made = dataset(DiffusionBValue=part.b_value, DiffusionDirectionality="DIRECTIONAL" if part.gradient else "NONE")
    if part.gradient:
        made.DiffusionGradientDirectionSequence = [dataset(DiffusionGradientOrientation=list(part.gradient))]
    return made


def dataset(**attributes: Any) -> Dataset:
    made = Dataset()
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def mosaic(
    tiles: Array,
    *,
    directions: tuple[Any, Any],
    origin: Any,
    spacing: tuple[float, float] = (2.0, 2.0),
    gap: float = 3.0,
    along: int = 1,
    number: int = 1,
    **attributes: Any,
) -> Dataset:
    """A Siemens mosaic (one time point) as its scanners write it.

    Args:
        tiles: (slices, rows, columns) uint16.
        directions: LPS unit vectors along a row and along a column of pixels.
        origin: LPS mm of the centre of the first pixel of the first slice.
        spacing: mm from row to row, mm from column to column.
        gap: mm from slice to slice.
        along: 1 where slices follow each other along rows × columns, −1 against it.
        number: InstanceNumber and AcquisitionNumber.
        attributes: more attributes.
    """
    count, rows, columns = tiles.shape
    side = math.ceil(math.sqrt(count))
    sheet = np.zeros((side * rows, side * columns), np.uint16)
    for n, tile in enumerate(tiles):
        top, left = rows * (n // side), columns * (n % side)
        sheet[top : top + rows, left : left + columns] = tile
    across, down = (np.array(direction, float) for direction in directions)
    # The position that a mosaic states is that of the whole sheet laid around the centre of its first slice.
    margin = across * spacing[1] * columns + down * spacing[0] * rows
    corner = np.array(origin) - margin * (side - 1) / 2
    one = make_slices(sheet[None], directions=directions, origin=corner, spacing=spacing, gap=gap, **attributes)[0]
    one.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    one.Manufacturer, one.SpacingBetweenSlices = "SIEMENS", f"{gap:.6g}"
    one.InstanceNumber = one.AcquisitionNumber = number
    one.AcquisitionTime = f"1011{number:02d}"
    one.AcquisitionMatrix = [rows, 0, 0, columns]
    normal = along * np.cross(across, down)
    block = one.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x08, "CS", "IMAGE NUM 4")
    tags = {"AcquisitionMatrixText": [f"{columns}p*{rows}"], "NumberOfImagesInMosaic": [str(count)]}
    block.add_new(0x10, "OB", csa({**tags, "SliceNormalVector": [f"{x:.8f}" for x in normal]}))
    return one


def csa(tags: Mapping[str, Sequence[str]]) -> bytes:
    """A CSA2 header (`SV10`): tags of text items, each padded to four bytes."""
    content = b"SV10\4\3\2\1" + struct.pack("<2I", len(tags), 77)
    for name, items in tags.items():
        content += struct.pack(
            "<64si4s3i", name.encode(), len(items), b"LO\0\0" if "Text" in name else b"FD\0\0", 4, 6, 77
        )
        for item in [*items, *[""] * (6 - len(items))]:
            value = item.encode() + b"\0" if item else b""
            content += struct.pack("<4i", len(value), len(value), 77, len(value)) + value + bytes(-len(value) % 4)
    return content + bytes(-len(content) % 4)
