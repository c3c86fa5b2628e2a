"""Identifiers that a series keeps however often it is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmwrite

from medgan.formats.dicom.elements import open_dicom, quietly
from medgan.formats.dicom.subject import uid_from

__all__ = ["settle_uids"]


def settle_uids(folder: Path, *seed: str) -> list[str]:
    """Give the files of one series new UIDs that derive from some texts, so that it is the same series next time.

    Args:
        folder: of the series alone, in the order of the files' names.
        seed: texts that only a series made of the same images in the same way has.

    Returns:
        The new SOPInstanceUIDs.
    """
    series_uid, made = uid_from(*seed, "series"), []
    with quietly():
        for index, file in enumerate(_files(folder)):
            dataset = open_dicom(file, pixels=True)
            dataset.SeriesInstanceUID, dataset.SOPInstanceUID = series_uid, uid_from(*seed, "image", str(index))
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dcmwrite(file, dataset, enforce_file_format=True)
            made.append(str(dataset.SOPInstanceUID))
    return made


def _files(folder: Path) -> Sequence[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix == ".dcm")
