"""Names of cases and patients: what files and tables can hold, and which may be one name typed twice."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

__all__ = ["alike", "is_case_name", "is_text", "loosely"]

_LONGEST = 200  # bytes; most systems take 255, of which temporary names and endings need some


def is_case_name(name: str) -> bool:
    """Whether files can be named so on any system, and a table holds it as it is.

    Example:
        >>> [is_case_name(name) for name in ("P 1", "P1 ", "../P1", ".P1", "P1\\n", "P" * 300)]
        [True, False, False, False, False, False]
    """
    fits = name == name.strip() and len(name.encode(errors="replace")) <= _LONGEST
    return bool(name) and fits and name.isprintable() and not name.startswith(".") and not set(name) & set("/\\")


def is_text(path: Path) -> bool:
    """Whether a path can stand in a table; names on disk are bytes, whatever they mean.

    Example:
        >>> is_text(Path("Zoë/mr.nii.gz")), is_text(Path("Zo\\udceb"))
        (True, False)
    """
    return not any("\ud800" <= sign <= "\udfff" for sign in str(path))


def loosely(name: str) -> str:
    """What stays of a name that is typed carelessly: letters and signs, but no capitals and no white space.

    Example:
        >>> loosely("P 02 ") == loosely("p02")
        True
    """
    return "".join(unicodedata.normalize("NFKC", name).split()).casefold()


def alike(names: Iterable[str]) -> list[str]:
    """Names that differ only in capitals or white space, in a line each.

    Example:
        >>> alike(["P2", "P1", "p2"])
        ['P2 and p2']
    """
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for name in names:
        groups[loosely(name)][name] = None
    return [" and ".join(own) for own in groups.values() if len(own) > 1]
