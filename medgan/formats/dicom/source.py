"""What a volume remembers of the DICOM files that it came from."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom import DataElement, Dataset
from pydicom.tag import BaseTag, Tag

from medgan.formats.dicom.attributes import KNOWN
from medgan.formats.dicom.elements import DAMAGE
from medgan.formats.dicom.stack import Stack
from medgan.volume import Grid

__all__ = ["Source", "remembered"]

_KNOWN_TAGS = {Tag(key) for key in KNOWN}


@dataclass(frozen=True, eq=False)
class Source:
    """A series of slices without their pixels: what a derived series takes over from them.

    Args:
        grid: of the volume that was read from them, RAS+ mm.
        slices: one dataset a slice, in the order of their normal, each as `remembered`.
        stack: where the slices lie.
        resampled: True if the grid is not that of the slices, because they lean, are not even or some are missing.
    """

    grid: Grid
    slices: tuple[Dataset, ...]
    stack: Stack
    resampled: bool = False


def remembered(dataset: Dataset, frame: int | None = None) -> Dataset:
    """The attributes of a file that a derived series may ask for; those that are damaged count as absent.

    Args:
        dataset: of a classic file, or a frame laid flat.
        frame: the number of the frame in its file, from 1; None for a classic file.
    """
    kept = Dataset()
    for tag in _KNOWN_TAGS.intersection(dataset.keys()):
        try:
            kept[tag] = _decoded(dataset, tag)
        except DAMAGE:
            continue
    if frame is not None:
        kept.ReferencedFrameNumber = frame
    return kept


def _decoded(dataset: Dataset, tag: BaseTag) -> DataElement:
    """pydicom decodes an element when it is first looked at, so all of it is looked at here."""
    element = dataset[tag]
    for item in element.value if element.VR == "SQ" else ():
        item.remove_private_tags()
        for _ in item.iterall():
            pass
    return element
