"""A folder of patients as a clinic would export them, for trying everything out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medgan.atomic import replacing
from medgan.errors import InputError
from medgan.formats import write
from medgan.formats.dicom import Subject
from medgan.phantom.scan import head
from medgan.phantom.shapes import rotation
from medgan.progress import track
from medgan.volume import Grid

__all__ = ["patient_grid", "write_cohort"]


def write_cohort(folder: Path, *, num_patients: int, seed: int = 0, size: int = 96) -> Path:
    """Write patients `PHANTOM01`, …: MR and CT as DICOM series of one study, and a mask of the body as NIfTI.

    ```
    PHANTOM01/mr/IM0001.dcm …    PHANTOM01/ct/IM0001.dcm …    PHANTOM01/body.nii.gz
    ```

    Patients differ in anatomy and in grid, as `patient_grid` tells; the same seed writes the same images.

    Args:
        folder: a new folder or one without these patients.
        num_patients: how many, 1 to 99.
        seed: which patients.
        size: pixels from side to side, at least 16; the other numbers of pixels and slices follow from it.

    Returns:
        The folder.

    Raises:
        InputError: if a number is out of its range.
        OutputError: if the folder cannot be written or holds these patients.
    """
    folder = Path(folder)
    _refuse_odd_numbers(num_patients, seed, size)
    for number in track(range(1, num_patients + 1), "phantoms", total=num_patients):
        _write_patient(folder / f"PHANTOM{number:02d}", seed=seed, number=number, size=size)
    return folder


def patient_grid(seed: int, number: int, *, size: int = 96) -> Grid:
    """The grid of one patient: axial but a few degrees oblique, off-centre, with slices thicker than pixels.

    Spacing in plane and between slices, centre and tilt are random. Every second patient's slices run from head to
    feet, the others' from feet to head.

    Args:
        seed: of the cohort.
        number: of the patient, from 1.
        size: pixels from side to side.
    """
    rng = np.random.default_rng([seed, number, 1])
    shape = np.array([size, round(1.22 * size), round(size * 40 / 96)])
    extent_mm = np.array([190, 232, 158]) * rng.uniform(1, 1.06, 3)
    # Pixels are square.
    spacing = extent_mm[[0, 0, 2]] / shape[[0, 0, 2]]
    upright = np.diag([-1.0, -1.0, 1.0 if number % 2 else -1.0])
    direction = rotation(tuple(rng.uniform(-5, 5, 3))) @ upright
    centre = np.array([0, 2, 12]) + rng.uniform(-4, 4, 3)
    origin = centre - direction @ (spacing * (shape - 1) / 2)
    return Grid.regular(shape.tolist(), spacing_mm=spacing.tolist(), origin_mm=origin.tolist(), direction=direction)


def _refuse_odd_numbers(num_patients: int, seed: int, size: int) -> None:
    if not 1 <= num_patients <= 99:
        raise InputError(f"{num_patients} phantom patients: a cohort has 1 to 99; give a number in that range")
    if seed < 0 or size < 16:
        raise InputError(f"seed {seed} and size {size}: give a seed of 0 or more and a size of 16 or more")


def _write_patient(folder: Path, *, seed: int, number: int, size: int) -> None:
    phantom = head(1000 * seed + number, grid=patient_grid(seed, number, size=size))
    subject = Subject(
        patient_id=folder.name, patient_name=f"Phantom^{number:02d}", study_description="Phantom of the head"
    )
    with replacing(folder) as temporary:
        write(phantom.mr, temporary / "mr", subject=subject, description="T1-weighted phantom")
        write(phantom.ct, temporary / "ct", subject=subject, description="CT phantom")
        write(phantom.body, temporary / "body.nii.gz", description="Body of the phantom")
