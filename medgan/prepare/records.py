"""What lies in the folder of a prepared case, and how it gets there: whole or not at all.

```
provenance.json     what it was made of, and each step
before_after.png    the images as they came and as they went
ROLE.nii.gz         with ROLE.json beside it
```
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from medgan import __version__
from medgan.atomic import replacing
from medgan.cases import Case
from medgan.errors import InputError
from medgan.formats import read, write
from medgan.formats.png import mark_text, write_png
from medgan.formats.sidecar import sidecar_path
from medgan.prepare.way import Half
from medgan.results import sha256_of

__all__ = [
    "PICTURE",
    "PROVENANCE",
    "SCHEMA",
    "Source",
    "is_whole",
    "read_half",
    "read_provenance",
    "sources_of",
    "take_half",
    "write_case",
]

SCHEMA = "medgan.provenance/1"
PROVENANCE, PICTURE = "provenance.json", "before_after.png"
_LIBRARIES = ("numpy", "scipy", "scikit-image", "SimpleITK", "deepbet", "nibabel", "pydicom")


@dataclass(frozen=True)
class Source:
    """A file, or a folder of DICOM, that a case is made of.

    Args:
        path: as the table has it.
        sha256: of its content, with that of the JSON file beside it.
    """

    path: str
    sha256: str


def sources_of(case: Case) -> dict[str, Source]:
    """What a case is made of, by role.

    Raises:
        InputError: if a file is not there, or cannot be read.
    """
    found = {role: Source(str(path), _sha256(path)) for role, path in case.images.items()}
    if missing := [f"{role}: {source.path}" for role, source in found.items() if not source.sha256]:
        raise InputError(f"{'; '.join(missing)}: is not there or cannot be read; correct the table or its path")
    return found


def _sha256(path: Path) -> str:
    own, beside = sha256_of(path), sidecar_path(path)
    return f"{own}+{sha256_of(beside)}" if own and path.is_file() and beside.is_file() and beside != path else own


def read_provenance(folder: Path) -> dict[str, Any]:
    """What the folder of a case tells; nothing where there is none, or a damaged one."""
    with suppress(OSError, ValueError):
        told = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        return told if isinstance(told, dict) and told.get("schema") == SCHEMA else {}
    return {}


def is_whole(folder: Path, key: str) -> bool:
    """Whether a case was made of just this, and all its files are as they were written."""
    told = read_provenance(folder)
    if told.get("key") != key:
        return False
    return all(sha256_of(folder / name) == seen for name, seen in told["files"].items())


def write_case(folder: Path, half: Half, picture: Any, *, case: Case, sources: Mapping[str, Source], key: str) -> None:
    """The folder of a case, in place of an older one.

    Raises:
        OutputError: if it cannot be written.
        NiftiError: if a value is not finite.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with replacing(folder) as temporary:
        temporary.mkdir()
        for role, volume in half.volumes.items():
            write(volume, temporary / f"{role}.nii.gz")
        write_png(picture, temporary / PICTURE, text=_marks(half))
        files = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        _write_json(temporary / PROVENANCE, _provenance(case, half, sources, key) | {"files": files})


def take_half(folder: Path, half: Half, picture: Any) -> None:
    """Put a case aside that waits for the others."""
    shutil.rmtree(folder, ignore_errors=True)
    with replacing(folder) as temporary:
        temporary.mkdir()
        for role, volume in half.volumes.items():
            write(volume, temporary / f"{role}.nii")
        np.save(temporary / "before.npy", picture)
        told = {"roles": list(half.volumes), "steps": list(half.steps), "notes": list(half.notes)}
        _write_json(temporary / "half.json", told)


def read_half(folder: Path) -> tuple[Half, Any]:
    """A case that was put aside, and its picture."""
    told = json.loads((folder / "half.json").read_text(encoding="utf-8"))
    volumes = {role: read(folder / f"{role}.nii") for role in told["roles"]}
    return Half(volumes, tuple(told["steps"]), tuple(told["notes"])), np.load(folder / "before.npy")


def _marks(half: Half) -> dict[str, str]:
    """Of a picture in which something is synthetic."""
    made = next((volume.synthetic for volume in half.volumes.values() if volume.synthetic), None)
    return mark_text(made)


def _provenance(case: Case, half: Half, sources: Mapping[str, Source], key: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "case": case.name,
        "patient": case.patient,
        "key": key,
        "medgan": __version__,
        "libraries": _versions(),
        "sources": {role: {"path": one.path, "sha256": one.sha256} for role, one in sources.items()},
        "results": {
            role: {
                "grid": volume.grid.describe(),
                "affine_ras_mm": volume.grid.affine.tolist(),
                "unit": volume.unit,
                "modality": volume.modality,
                "range": [float(volume.array.min()), float(volume.array.max())],
                "synthetic": volume.synthetic is not None,
            }
            for role, volume in half.volumes.items()
        },
        "steps": list(half.steps),
        "notes": list(half.notes),
    }


@cache
def _versions() -> dict[str, str]:
    """Of what does the work, where it is installed."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
