"""What a folder of translations holds: by what it was made, where each case lies, images and their maps together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from medgan.atomic import replacing
from medgan.cases import Case
from medgan.errors import OutputError
from medgan.formats import write
from medgan.formats.sidecar import sidecar_path
from medgan.match import map_path
from medgan.volume import Volume

__all__ = ["claim", "discard", "output_path", "refuse_taken", "write_all"]

LEDGER = "translation.json"


def claim(out: Path, facts: Mapping[str, Any]) -> None:
    """Take a folder for translations made in one way: results of two are never mixed.

    Args:
        out: the folder; made if it is not there.
        facts: by what and how they are made, as plain values; written into the folder's ledger, `translation.json`.

    Raises:
        OutputError: if it holds translations made in another way, naming the difference, or cannot be written.
    """
    ledger = out / LEDGER
    if not ledger.exists():
        with replacing(ledger) as temporary:
            temporary.write_text(json.dumps(facts) + "\n")
    elif (held := _held(ledger)) != facts:
        raise OutputError(f"{out}: holds translations {_difference(held, facts)}; name another folder")


def output_path(case: Case, out: Path, role: str = "a") -> Path:
    """Where the translation of a case of a table lies: a DICOM folder or a NIfTI file, as its source is."""
    return out / (case.name if case.images[role].is_dir() else f"{case.name}.nii.gz")


def refuse_taken(paths: Sequence[Path]) -> None:
    """Refuse places where something lies already.

    Raises:
        OutputError: naming the first.
    """
    for path in paths:
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise OutputError(f"{path}: exists already; choose another name or remove it")


def write_all(image: Volume, out: Path, maps: Mapping[str, Volume]) -> dict[str, Path]:
    """Write an image and the maps that belong to it, of all or none; where the image is, its maps are whole.

    Args:
        image: the translation.
        out: its path.
        maps: by kind (`std`, `cycle`); each says by its mark what its values are.

    Returns:
        The paths of the maps by kind.

    Raises:
        OutputError: if a place cannot be written.
    """
    paths = {kind: map_path(out, kind) for kind in maps}
    with ExitStack() as undo:
        for kind, volume in maps.items():
            write(volume, paths[kind], description=_description(volume))
            undo.callback(discard, paths[kind])
        write(image, out)
        undo.pop_all()
    return paths


def discard(path: Path) -> None:
    """Remove a map, whether a DICOM folder or a NIfTI file with what lies beside it; quietly if there is none."""
    shutil.rmtree(path, ignore_errors=True)
    if not path.is_dir():
        path.unlink(missing_ok=True)
        sidecar_path(path).unlink(missing_ok=True)


def _description(volume: Volume) -> str:
    """Short, since a series' description has 64 letters and half of them say that it is synthetic."""
    quantity = volume.synthetic.quantity if volume.synthetic else ""
    return f"{quantity.capitalize()} of {volume.modality}"


def _difference(held: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    if held.get("weights_sha256") != facts.get("weights_sha256"):
        return "by other weights"
    if held.get("to") != facts.get("to"):
        return "of another direction"
    changed = [key for key in {**held, **facts} if held.get(key) != facts.get(key)]
    return "made otherwise: " + ", ".join(f"{key} {_said(held, key)} there, {_said(facts, key)} now" for key in changed)


def _said(facts: Mapping[str, Any], key: str) -> str:
    value = facts.get(key, "not given")
    return f"{len(value)} other runs" if isinstance(value, list) else str(value)


def _held(ledger: Path) -> dict[str, Any]:
    try:
        told = json.loads(ledger.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{ledger}: cannot be read ({error}); name another folder") from None
    return told if isinstance(told, dict) else {}
