"""The phantoms of known factors as files and a table, for trying samplers out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medgan.atomic import replacing
from medgan.cases import Case, write_cases
from medgan.formats import write
from medgan.imageset import ImageSet
from medgan.phantom.factors import factor_images
from medgan.progress import track
from medgan.splits import split_by_patient
from medgan.volume import Grid, Volume

__all__ = ["RANGE", "write_images", "write_table"]

RANGE = (0.0, 1000.0)  # of the files, arbitrary units
NAMES = ("image", "mask")


def write_images(
    folder: Path, *, num: int, size: int | Sequence[int], spatial_dims: int = 2, seed: int = 0, with_mask: bool = False
) -> Path:
    """Write phantoms of an organ, half of them with a lesion, and the table `cases.csv`, split by patient.

    The column `image` names NIfTI files (1 mm voxels, values 0 to 1000), `mask` the lesion, `condition:class` is
    `healthy` or `lesion`.

    Args:
        folder: a new folder.
        num: how many images.
        size: pixels a side, or of each side.
        spatial_dims: 2 or 3.
        seed: another seed, other images.
        with_mask: also write masks of the lesions.

    Returns:
        The table.

    Raises:
        InputError: if a number is out of its range.
        OutputError: if the folder cannot be written or has something in it.
    """
    images = factor_images(num, size=size, spatial_dims=spatial_dims, seed=seed, mask="lesion" if with_mask else "")
    return write_table(images, folder, split_by_patient(images.patients, seed=seed))


def write_table(images: ImageSet, folder: Path, splits: dict[str, str]) -> Path:
    """Write images of [-1, 1] as NIfTI files of `RANGE`, further channels as masks, and their table of cases.

    Args:
        images: at most two channels, of which the second is a mask.
        folder: a new folder.
        splits: of each patient.
    """
    with replacing(folder) as temporary:
        temporary.mkdir()
        cases = [
            _case(images, number, temporary, splits[images.patients[number]])
            for number in track(range(len(images)), "Writing images")
        ]
        write_cases(cases, temporary / "cases.csv")
    return folder / "cases.csv"


def _case(images: ImageSet, number: int, folder: Path, split: str) -> Case:
    name, x = images.names[number], images.x[number].numpy()
    paths = {role: folder / f"{name}{'' if role == 'image' else f'_{role}'}.nii.gz" for role in NAMES[: len(x)]}
    flat = x if x.ndim == 4 else x[..., None]
    grid = Grid.regular((flat.shape[1], flat.shape[2], flat.shape[3]))
    low, high = RANGE
    values = np.rint(low + (flat[0] + 1) * (high - low) / 2).astype(np.int16)
    write(Volume(values, grid, "a.u.", "MR"), paths["image"])
    if "mask" in paths:
        write(Volume((flat[1] > 0).astype(np.uint8), grid), paths["mask"])
    conditions = {key: column[number] for key, column in images.conditions.items()}
    return Case(name, images.patients[number], split, paths, conditions)
