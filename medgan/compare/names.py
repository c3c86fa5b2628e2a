"""What methods are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medgan.cases import listed
from medgan.errors import InputError

__all__ = ["named"]


def named(methods: Mapping[str, Path | str] | Sequence[Path | str]) -> dict[str, Path]:
    """Paths by the name of their method: as given by `NAME=PATH`, else as much of a path's end as tells them apart.

    Raises:
        InputError: if there are fewer than two methods, or two have one name or one path.

    Example:
        >>> list(named(["out/pix2pix/metrics.json", "baseline=out/other"]))
        ['pix2pix', 'baseline']
    """
    if isinstance(methods, str | Path):
        raise InputError(f"a comparison needs two methods or more; seen one: {methods}")
    given = list(methods.items()) if isinstance(methods, Mapping) else [_given(one) for one in methods]
    paths = [Path(path) for _, path in given]
    if len(paths) < 2:
        raise InputError(f"a comparison needs two methods or more; seen {listed(map(str, paths)) or 'none'}")
    if len({path.absolute() for path in paths}) < len(paths):
        raise InputError(f"{listed(map(str, paths))}: a path is given twice; a method is compared with others")
    own = iter(_telling([path for name, path in zip([n for n, _ in given], paths, strict=True) if not name]))
    names = [name or next(own) for name, _ in given]
    if len(set(names)) < len(names):
        raise InputError(f"{listed(names)}: two methods have one name; give them as NAME=PATH")
    return dict(zip(names, paths, strict=True))


def _given(word: Path | str) -> tuple[str, Path]:
    name, equals, path = str(word).partition("=")
    return (name, Path(path)) if equals and name and path and not Path(word).exists() else ("", Path(word))


def _telling(paths: Sequence[Path]) -> list[str]:
    """The fewest last parts of paths that make all of them different, without those in which all end."""
    ends = [_parts(path) for path in paths]
    while len(ends) > 1 and min(map(len, ends)) > 1 and len({parts[-1] for parts in ends}) == 1:
        ends = [parts[:-1] for parts in ends]  # `x/scores` and `y/scores` are x and y
    for length in range(1, max(map(len, ends), default=0) + 1):
        names = ["/".join(parts[-length:]) for parts in ends]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _parts(path: Path) -> tuple[str, ...]:
    """Parts of a path that name a method: without what stands for the case, and without the file of the scores."""
    parts = (path if path.name.strip(".") else path.resolve()).parts
    rule = next((k for k, part in enumerate(parts) if re.search(r"[{*]", part)), len(parts))
    parts = parts[:rule] or parts
    if len(parts) > 1 and re.fullmatch(r"metrics\.(json|csv)", parts[-1]):
        return parts[:-1]
    return (*parts[:-1], re.sub(r"\.(json|csv)$", "", parts[-1]))
