"""Folders of whatever layout, told by patterns of paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from medgan.cases import Case, listed
from medgan.errors import CasesError

__all__ = ["find"]

Key = tuple[str, str]  # patient and case, as the folder names them
_FIELDS = ("patient", "case")


def find(folder: Path, wanted: Mapping[str, str]) -> list[Case]:
    """The cases whose paths fit patterns.

    Args:
        folder: that the patterns are relative to.
        wanted: a pattern by role, such as `{patient}/t1.nii.gz`, or `t1.nii.gz`, which means the same.

    Raises:
        CasesError: if a pattern is none, fits nothing, or fits two images of a case.

    Example:
        `{"a": "{patient}/{case}/t1.nii.gz"}` finds `P1/2021/t1.nii.gz` as a of the case P1_2021 of the patient P1.
    """
    patterns = _patterns(wanted)
    of_role = {role: _matches(folder, role, pattern) for role, pattern in patterns.items()}
    for role in (role for role in of_role if not of_role[role]):
        place = next((path.parent for images in of_role.values() for path in images.values()), folder)
        raise CasesError(f"nothing below {folder} fits {patterns[role]} as {role}; {place} holds: {_content(place)}")
    keys = sorted({key for images in of_role.values() for key in images})
    return [_case(key, {role: images[key] for role, images in of_role.items() if key in images}) for key in keys]


def _patterns(wanted: Mapping[str, str]) -> dict[str, str]:
    patterns = {role: _with_fields(role, pattern.strip("/")) for role, pattern in wanted.items()}
    fields = {role: {field for field in _FIELDS if f"{{{field}}}" in pattern} for role, pattern in patterns.items()}
    if len({frozenset(own) for own in fields.values()}) > 1:
        shown = ", ".join(f"{role}: {pattern}" for role, pattern in patterns.items())
        raise CasesError(f"the patterns hold different fields: {shown}; use the same fields in each")
    return patterns


def _with_fields(role: str, pattern: str) -> str:
    unknown = sorted(set(re.findall(r"\{(.*?)\}", pattern)) - set(_FIELDS))
    if unknown or not pattern or ".." in Path(pattern).parts:
        raise CasesError(
            f"pattern of {role}: {pattern!r} is not accepted; it is a path below the folder, "
            "with the fields {patient} and {case}, such as {patient}/t1.nii.gz"
        )
    return pattern if "{" in pattern else f"{{patient}}/{pattern}"


def _case(key: Key, images: Mapping[str, Path]) -> Case:
    return Case(_name(key), key[0] or key[1], "", images)


def _matches(folder: Path, role: str, pattern: str) -> dict[Key, Path]:
    found: dict[Key, Path] = {}
    for path in sorted(folder.glob(re.sub(r"\{.*?\}", "*", pattern))):
        match = _expression(pattern).fullmatch(path.relative_to(folder).as_posix())
        if match is None:
            continue
        fields = match.groupdict()
        key = (fields.get("patient", ""), fields.get("case", ""))
        if key in found:
            raise CasesError(
                f"{_name(key)} has two images as {role}: {found[key]} and {path}; narrow the pattern {pattern}"
            )
        found[key] = path
    return found


def _expression(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression; a field that comes again stands for the same text."""
    text, seen = "", set()
    for part in re.split(r"(\{.*?\}|\*)", pattern):
        name = part.strip("{}")
        if part == "*":
            text += "[^/]*"
        elif part.startswith("{"):
            text += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)"
            seen.add(name)
        else:
            text += re.escape(part)
    return re.compile(text)


def _name(key: Key) -> str:
    return "_".join(part for part in key if part)


def _content(folder: Path) -> str:
    return listed((path.name + "/" * path.is_dir() for path in sorted(folder.iterdir())), most=5) or "nothing"
