"""Synthetic sets on disk, and real images as those were learnt from: both as a network sees them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgan.cases import Case, listed, read_cases
from medgan.errors import InputError
from medgan.formats.marks import missing_marks
from medgan.imageset import ImageSet
from medgan.prep import SamplingPrep
from medgan.views import image_set

__all__ = ["MANIFEST", "TABLE", "Contract", "contract_of", "read_manifest", "read_real", "read_synthetic"]

MANIFEST, TABLE = "manifest.json", "cases.csv"
_TOLD = {"weights_sha256", "wish", "format", "made", "contract", "patch", "slices", "conditions"}


@dataclass(frozen=True)
class Contract:
    """How images of a set are read.

    Args:
        prep: of the run that made it.
        patch: size of an image, voxels.
        slices: least area of the body in a slice of a real volume, as a share of that in its largest slice.
        conditions: what is known of each image.
    """

    prep: SamplingPrep
    patch: tuple[int, int, int]
    slices: float
    conditions: tuple[str, ...]


def contract_of(folder: Path) -> Contract:
    """The contract of a synthetic set, as its manifest tells.

    Raises:
        InputError: if there is no manifest in it, or a damaged one.
    """
    told = read_manifest(Path(folder) / MANIFEST)
    prep = SamplingPrep.parse(told["contract"], f"{folder / MANIFEST}: contract")
    x, y, z = told["patch"]
    return Contract(prep, (x, y, z), told["slices"], tuple(told["conditions"]))


def read_manifest(path: Path) -> dict[str, Any]:
    """What the manifest of a synthetic set tells.

    Raises:
        InputError: if it is none, or damaged.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as a manifest ({error}); name a set that medgan sampled") from None
    if not isinstance(told, dict) or not told.keys() >= _TOLD:
        raise InputError(f"{path}: is no manifest of a set of samples; name a set that medgan sampled")
    return told


def read_real(
    table: Path, contract: Contract, *, splits: Sequence[str], label: str = "Reading real images"
) -> ImageSet | None:
    """The real images of some splits of a table, or None if there are none.

    Raises:
        CasesError: if the table cannot be used, or lacks a column.
        InputError: if an image is not what the contract says.
    """
    cases = _cases(table, contract, splits)
    return _images(cases, contract.prep, contract, label) if cases else None


def read_synthetic(folder: Path, contract: Contract, table: Path | None = None) -> ImageSet:
    """The images of a synthetic set.

    Args:
        folder: as `medgan sample` wrote it.
        contract: of the set.
        table: of its cases, such as a selection; all of them if not given.

    Raises:
        InputError: if an image does not say that it is synthetic: then who gets it would take it for a patient's.
    """
    cases = _cases(table or folder / TABLE, contract, ("train",))
    if not cases:
        raise InputError(f"{folder}: has no images in its table")
    paths = [path for case in cases for path in case.images.values()]
    if unmarked := [line for path in paths for line in missing_marks(path)]:
        raise InputError(
            f"{folder}: images do not say that they are synthetic ({listed(unmarked, most=3)}); sample them again, or "
            "leave these out of its table"
        )
    return _images(cases, contract.prep.of_samples(), contract, "Reading synthetic images")


def _cases(table: Path, contract: Contract, splits: Sequence[str]) -> list[Case]:
    cases = read_cases(table, required=contract.prep.roles, conditions=contract.conditions)
    return [case for case in cases if case.split in splits]


def _images(cases: Sequence[Case], prep: SamplingPrep, contract: Contract, label: str) -> ImageSet:
    return image_set(cases, prep, contract.patch, label, least_area=contract.slices, conditions=contract.conditions)
