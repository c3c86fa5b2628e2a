"""Made-up patients as scanners and archives leave them, with what is wrong known: to learn the way, and to test it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medgan.atomic import replacing
from medgan.errors import InputError
from medgan.formats import write
from medgan.formats.dicom import Subject, uid_from
from medgan.phantom import Anatomy, Tissue, patient_grid
from medgan.phantom.scan import Sampled, ct_of, mr_of, sampled
from medgan.phantom.shapes import rotation
from medgan.phantom.tissue import flair_table, mr_table
from medgan.progress import track
from medgan.volume import Grid, Volume

__all__ = ["Planted", "phantoms"]

Floats = npt.NDArray[np.float64]
FEWEST, MOST = 6, 99
CENTRE_MM = np.array([0.0, -10.0, 10.0])  # of a head: it turns about this place
EXPORT_OFFSET = 1024  # of a CT whose rescale intercept was lost on the way
SHIFT_MM = 9.0
COUCH_MM = (-149.0, -133.0)  # below and above, seen from the patient's front
COUCH_WIDTH_MM = 200.0
ENHANCED = (Tissue.LESION, Tissue.BLOOD, Tissue.MUCOSA)


@dataclass(frozen=True)
class Planted:
    """What is wrong with one image, seen from the first of its case.

    Args:
        patient: as the folder names him or her.
        image: as the folder names it.
        right_mm, front_mm, up_mm: where the middle of the head lies.
        distance_mm: the length of that.
        turn_deg: by how much it is turned.
        fault: what no registration mends.
    """

    patient: str
    image: str
    right_mm: float
    front_mm: float
    up_mm: float
    distance_mm: float
    turn_deg: float
    fault: str = ""


def phantoms(out: Path | str, *, layout: str = "dicom", num: int = 12, seed: int = 0) -> Path:
    """Write made-up patients as they come from scanners, in a layout that `index` finds, and say what was planted.

    ```
    dicom     disc01/00001 …            MR with localizer, T1 and T1 with contrast agent, CT of another day; all in one
    bids      sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz _FLAIR.nii.gz; some have two sessions
    synthrad  1BA001/mr.nii.gz ct.nii.gz mask.nii.gz    registered, on one grid, as the challenge publishes them
    ```

    In `dicom` and `bids` images of a patient have grids of their own, and the patient has moved in between. CT shows a
    couch. The last patient's second image is another person's; in `dicom` and `synthrad` the last but one's CT has
    lost its offset (HU + 1024); in `synthrad` the third from the end lies 9 mm off. `planted.csv` holds all of that.

    Args:
        out: a new folder.
        layout: `dicom`, `bids` or `synthrad`.
        num: of patients, 6 to 99.
        seed: other seeds, other patients; the same seed writes the same images.

    Returns:
        The folder.

    Raises:
        InputError: if there is no such layout, or a number is out of its range.
        OutputError: if the folder cannot be written or has something in it.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r} (accepted: {', '.join(LAYOUTS)})")
    if not FEWEST <= num <= MOST or seed < 0:
        raise InputError(f"{num} patients, seed {seed}: give {FEWEST} to {MOST} patients and a seed of 0 or more")
    with replacing(Path(out)) as temporary:
        temporary.mkdir()
        patients = [Patient(number, num, seed) for number in range(1, num + 1)]
        planted = [one for each in track(patients, "phantoms") for one in LAYOUTS[layout](temporary, each)]
        _write_planted(planted, temporary / "planted.csv")
        if layout == "bids":
            described = {"Name": "Phantoms of medgan, synthetic", "BIDSVersion": "1.9.0", "DatasetType": "raw"}
            (temporary / "dataset_description.json").write_text(json.dumps(described, indent=2) + "\n")
    return Path(out)


def _write_planted(planted: list[Planted], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(field.name for field in fields(Planted))
        table.writerows(map(astuple, planted))


@dataclass(frozen=True)
class Patient:
    """One of `num`, counted from 1."""

    number: int
    num: int
    seed: int

    @property
    def from_end(self) -> int:
        return self.num - self.number

    @cached_property
    def anatomy(self) -> Anatomy:
        return _anatomy(self.seed, self.number)

    @property
    def second_anatomy(self) -> Anatomy:
        """Whose second image it is: of the last patient, somebody else's."""
        return _anatomy(self.seed, self.number + 500) if self.from_end == 0 else self.anatomy

    def rng(self, use: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.number, 7, use])

    def ct(self, grid: Grid, motion: Floats, *, couch: bool) -> Volume:
        """A CT; of the last but one, without its offset."""
        image = ct_of(_seen(self.second_anatomy, grid, motion), self.rng(2))
        values = np.maximum(image.array, _couch(grid)) if couch else image.array
        lost = EXPORT_OFFSET if self.from_end == 1 else 0
        return Volume((values + lost).astype(np.int16), grid, "HU", "CT", image.synthetic)

    def planted(self, name: str, image: str, motion: Floats, *, is_ct: bool = True) -> Planted:
        moved = (motion @ [*CENTRE_MM, 1])[:3] - CENTRE_MM
        turn = np.degrees(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1)))
        fault = {0: "another person's", 1: f"HU + {EXPORT_OFFSET}" if is_ct else ""}.get(self.from_end, "")
        right, front, up, distance, turned = (round(float(value), 2) for value in (*moved, np.linalg.norm(moved), turn))
        return Planted(name, image, right, front, up, distance, turned, fault)


def _anatomy(seed: int, number: int) -> Anatomy:
    return Anatomy.drawn(np.random.default_rng([1000 * seed + number, 0]))


def _seen(anatomy: Anatomy, grid: Grid, motion: Floats) -> Sampled:
    """A head that has moved, on a grid."""
    return sampled(anatomy, Grid(grid.shape, np.linalg.inv(motion) @ grid.affine))


def _placed(image: Volume, grid: Grid) -> Volume:
    return Volume(image.array, grid, image.unit, image.modality, image.synthetic)


# --- how patients move, and where scanners look -----------------------------------------------------------------------


def _motion(rng: np.random.Generator) -> Floats:
    """(4, 4) 3 to 12 mm in any direction, and some degrees about each axis."""
    shift = rng.standard_normal(3)
    shift *= rng.uniform(3, 12) / np.linalg.norm(shift)
    return _moved(shift, rng.normal(0, 2, 3))


def _moved(shift_mm: Floats, turn_deg: Floats) -> Floats:
    motion = np.eye(4)
    x, y, z = (float(angle) for angle in turn_deg)
    motion[:3, :3] = rotation((x, y, z))
    motion[:3, 3] = CENTRE_MM - motion[:3, :3] @ CENTRE_MM + shift_mm
    return motion


def _straight(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], centre_mm: Floats) -> Grid:
    """Axial, as CT lies: axes to the left, back and top."""
    direction = np.diag([-1.0, -1.0, 1.0])
    origin = centre_mm - direction @ (np.array(spacing_mm) * (np.array(shape) - 1) / 2)
    return Grid.regular(shape, spacing_mm=spacing_mm, origin_mm=origin, direction=direction)


def _ct_grid(rng: np.random.Generator) -> Grid:
    return _straight((110, 116, 54), (2.4, 2.4, 3.0), np.array([0, -15, 12]) + rng.uniform(-3, 3, 3))


def _flair_grid(rng: np.random.Generator) -> Grid:
    return _straight((100, 112, 32), (2.2, 2.2, 5.0), np.array([0, 0, 12]) + rng.uniform(-3, 3, 3))


def _couch(grid: Grid) -> npt.NDArray[np.float32]:
    """(X, Y, Z) HU of a table of foam between two plates."""
    x, y, _ = np.moveaxis(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)
    low, high = COUCH_MM
    is_wide, is_plate = np.abs(x) < COUCH_WIDTH_MM / 2, (np.abs(y - low) < 1.5) | (np.abs(y - high) < 1.5)
    return np.select([is_wide & is_plate, is_wide & (y > low) & (y < high)], [120, -900], -1024).astype(np.float32)


# --- layouts ----------------------------------------------------------------------------------------------------------


def _write_dicom(folder: Path, patient: Patient) -> Iterator[Planted]:
    """All files of both studies in one folder, numbered, as an archive sends them."""
    name, disc = f"PHANTOM{patient.number:02d}", folder / f"disc{patient.number:02d}"
    grid, motion = patient_grid(patient.seed, patient.number), _motion(patient.rng(1))
    seen = _seen(patient.anatomy, grid, np.eye(4))
    enhanced = np.where(np.isin(np.arange(len(Tissue)), ENHANCED), 0.9, mr_table()).astype(np.float32)
    localizer = _straight((64, 64, 3), (4.0, 4.0, 30.0), np.array([0.0, 0, 12]))
    mr, ct = _subject(name, "MR of the head", 3, patient.seed), _subject(name, "CT of the head", 9, patient.seed)
    series = [
        (mr, "Localizer", mr_of(_seen(patient.anatomy, localizer, np.eye(4)), patient.rng(5))),
        (mr, "T1 tra", mr_of(seen, patient.rng(3))),
        (mr, "T1 tra GD", mr_of(seen, patient.rng(3), enhanced)),
        (ct, "Planning CT", patient.ct(_ct_grid(patient.rng(4)), motion, couch=True)),
    ]
    for number, (subject, description, image) in enumerate(series):
        write(image, disc / str(number), subject=subject, description=description)
    files = sorted(disc.rglob("*.dcm"))
    for number, file in enumerate(files, start=1):
        file.rename(disc / f"{number:05d}")
    for number in range(len(series)):
        (disc / str(number)).rmdir()
    yield patient.planted(name, "Planning CT", motion)


def _subject(name: str, description: str, day: int, seed: int) -> Subject:
    """With identifiers that are the same at each writing: by them `index` names cases."""
    return Subject(
        patient_id=name,
        patient_name=name.replace("M", "M^", 1),
        study_uid=uid_from("phantoms", str(seed), name, description),
        frame_of_reference_uid=uid_from("phantoms", str(seed), name, description, "place"),
        study_description=description,
        study_time=datetime(2025, 6, day, 9, 30),
    )


def _write_bids(folder: Path, patient: Patient) -> Iterator[Planted]:
    """T1w and FLAIR; of every fourth patient from the second on in two sessions."""
    for session in (1, 2)[: 2 if patient.number % 4 == 2 else 1]:
        name = f"sub-{patient.number:02d}_ses-{session}"
        place = folder / f"sub-{patient.number:02d}" / f"ses-{session}" / "anat"
        motion, rng = _motion(patient.rng(10 * session)), patient.rng(10 * session + 1)
        grid = patient_grid(patient.seed, patient.number + 100 * (session - 1))
        write(mr_of(_seen(patient.anatomy, grid, np.eye(4)), rng), place / f"{name}_T1w.nii.gz")
        grid = _flair_grid(rng)
        flair = mr_of(_seen(patient.second_anatomy, grid, motion), rng, flair_table())
        write(_placed(flair, grid), place / f"{name}_FLAIR.nii.gz")
        yield patient.planted(name, "FLAIR", motion, is_ct=False)


def _write_synthrad(folder: Path, patient: Patient) -> Iterator[Planted]:
    """On one grid, of two centres, registered but for some tenths of a millimetre; of one patient for much more."""
    name = f"1B{'AB'[patient.number % 2]}{patient.number:03d}"
    grid, rng = patient_grid(patient.seed, patient.number), patient.rng(1)
    wrong = np.array([4.0, 7.0, 4.0]) * SHIFT_MM / 9 if patient.from_end == 2 else np.zeros(3)
    motion = _moved(wrong + rng.normal(0, 0.15, 3), np.zeros(3))
    seen = _seen(patient.anatomy, grid, np.eye(4))
    write(mr_of(seen, patient.rng(3)), folder / name / "mr.nii.gz")
    write(patient.ct(grid, motion, couch=False), folder / name / "ct.nii.gz")
    body = (seen.labels != Tissue.BACKGROUND).astype(np.uint8)
    write(Volume(body, grid, "label"), folder / name / "mask.nii.gz")
    yield patient.planted(name, "ct", motion)


LAYOUTS: dict[str, Callable[[Path, Patient], Iterator[Planted]]] = {
    "dicom": _write_dicom,
    "bids": _write_bids,
    "synthrad": _write_synthrad,
}
