"""The Medical Segmentation Decathlon, and nnU-Net's first raw format: images named in a `dataset.json`.

Source: http://medicaldecathlon.com; https://arxiv.org/abs/2106.05735
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medgan.cases import Case, listed
from medgan.errors import CasesError

__all__ = ["find"]

_TABLE = "dataset.json"
_LABEL = "label"
_LISTS = ("training", "validation", "test")
_EXTENSIONS = (".nii.gz", ".nii")


def find(folder: Path, wanted: Mapping[str, str]) -> list[Case]:
    """The entries `training`, `validation` and `test` of a dataset.json, each a case and a patient of its own.

    Args:
        folder: with dataset.json.
        wanted: by role the name of a modality as `modality` has it, in capitals or not, or `label`. Where there are
            several modalities, each is a file: a list as `image`, or `x_0000.nii.gz`, `x_0001.nii.gz` … for `x.nii.gz`.

    Returns:
        The cases; where a label is wanted, only those that have one.

    Raises:
        CasesError: if the file is missing or another, a modality is unknown, or one file holds several modalities.
            Images that are not there are for the caller to find, case by case.

    Example:
        With `"modality": {"0": "FLAIR", "1": "T1w"}`, `{"a": "T1w"}` finds `imagesTr/x_0001.nii.gz` as a of the case x.
    """
    table = _table(folder)
    modalities = _modalities(table, folder)
    channels = {role: _channel(text, role, modalities, folder) for role, text in wanted.items()}
    entries = _entries(table, folder)
    if None in channels.values():
        entries = {name: entry for name, entry in entries.items() if entry.get(_LABEL)}
    if not entries:
        raise CasesError(f"{folder / _TABLE}: names no image" + " with a label" * (None in channels.values()))
    return [_case(folder, name, entry, channels, modalities) for name, entry in sorted(entries.items())]


# --- the table --------------------------------------------------------------------------------------------------------


def _table(folder: Path) -> dict[str, Any]:
    path = folder / _TABLE
    if not path.is_file():
        there = listed(one.name + "/" * one.is_dir() for one in sorted(folder.iterdir())) or "nothing"
        raise CasesError(f"{folder}: has no {_TABLE}; give the folder of one task. It holds: {there}")
    try:
        table = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CasesError(f"{path}: cannot be read ({error}); mend it, or copy it again") from None
    wrong = [key for key in _LISTS if not isinstance(table, dict) or not isinstance(table.get(key) or [], list)]
    if wrong or not isinstance(table.get("training"), list):
        raise CasesError(f"{path}: is no table of the Decathlon: it has no list `{(wrong or _LISTS)[0]}`")
    return dict(table)


def _modalities(table: Mapping[str, Any], folder: Path) -> list[str]:
    """Their names, in the order of the channels."""
    named = table.get("modality") or table.get("channel_names")
    if not isinstance(named, dict) or sorted(named) != sorted(map(str, range(len(named)))):
        raise CasesError(f'{folder / _TABLE}: has no `modality` such as {{"0": "FLAIR", "1": "T1w"}}; seen: {named!r}')
    return [str(named[str(number)]) for number in range(len(named))]


def _channel(text: str, role: str, modalities: list[str], folder: Path) -> int | None:
    """The number of a modality; None is the label."""
    names = [name.lower() for name in modalities]
    if text.lower() in names:
        return names.index(text.lower())
    if text.lower() == _LABEL:
        return None
    raise CasesError(
        f"{folder / _TABLE}: has no modality {text!r}, wanted as {role}; there are: {', '.join([*modalities, _LABEL])}"
    )


def _entries(table: Mapping[str, Any], folder: Path) -> dict[str, Mapping[str, Any]]:
    """What the table says of each case, by name."""
    listed_ = [one for key in _LISTS for one in table.get(key) or []]
    entries = [{"image": one} if isinstance(one, str) else one for one in listed_]
    if wrong := [one for one in entries if not isinstance(one, dict) or not _images(one)]:
        raise CasesError(f"{folder / _TABLE}: entries without an `image`: {listed(map(repr, wrong), most=2)}")
    names = [_name(one) for one in entries]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise CasesError(f"{folder / _TABLE}: names images twice: {listed(twice)}; remove one of each")
    return dict(zip(names, entries, strict=True))


def _images(entry: Mapping[str, Any]) -> list[str]:
    image = entry.get("image")
    images = [image] if isinstance(image, str) else image
    return images if isinstance(images, list) and all(isinstance(one, str) and one for one in images) else []


def _name(entry: Mapping[str, Any]) -> str:
    images = _images(entry)
    name = _stem(Path(images[0]))[0].name
    return name.removesuffix("_0000") if len(images) > 1 else name


def _stem(path: Path) -> tuple[Path, str]:
    """A path without its extension, and the extension."""
    extension = next((one for one in _EXTENSIONS if path.name.endswith(one)), path.suffix)
    return path.with_name(path.name.removesuffix(extension)), extension


# --- the images -------------------------------------------------------------------------------------------------------


def _case(
    folder: Path, name: str, entry: Mapping[str, Any], channels: Mapping[str, int | None], modalities: list[str]
) -> Case:
    images = {
        role: folder / str(entry[_LABEL]) if channel is None else _image(folder, name, entry, channel, modalities)
        for role, channel in channels.items()
    }
    return Case(name, name, "", images)


def _image(folder: Path, name: str, entry: Mapping[str, Any], channel: int, modalities: list[str]) -> Path:
    images = _images(entry)
    if len(images) not in (1, len(modalities)):
        raise CasesError(f"{name} has {len(images)} images, but there are {len(modalities)} modalities; give one each")
    if len(images) > 1:
        return folder / images[channel]
    whole = folder / images[0]
    stem, extension = _stem(whole)
    apart = stem.with_name(f"{stem.name}_{channel:04d}{extension}")
    if apart.exists():
        return apart
    if len(modalities) == 1 or not whole.exists():
        return whole
    raise CasesError(
        f"{whole}: is one file for {len(modalities)} modalities ({', '.join(modalities)}), a 4-D image; "
        f"medgan reads 3-D ones: split each once, by nibabel.four_to_three or fslsplit, into files named "
        f"{stem.name}_0000{extension}, {stem.name}_0001{extension} … beside it, and index again"
    )
