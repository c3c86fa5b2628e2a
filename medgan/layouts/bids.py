"""BIDS: `sub-01/[ses-1/]anat/sub-01[_ses-1][_acq-hr]_T1w.nii.gz`, and trees of the same kind below `derivatives/`.

Source: https://bids-specification.readthedocs.io/en/stable/common-principles.html
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medgan.cases import Case, listed
from medgan.errors import CasesError

__all__ = ["find"]

Session = tuple[str, str]  # subject and session, the latter "" where there are none
_NAME = re.compile(r"((?:[a-zA-Z0-9]+-[a-zA-Z0-9+]+_)*)([a-zA-Z0-9]+)")
_EXTENSION = re.compile(r"\.nii(\.gz)?$")
_OF_CASES = ("sub", "ses")


@dataclass(frozen=True)
class _Named:
    """What a name says: `acq-hr_T1w` has the entity acq and the suffix T1w."""

    entities: Mapping[str, str]
    suffix: str

    def __str__(self) -> str:
        return "_".join([*(f"{key}-{value}" for key, value in self.entities.items()), self.suffix])

    @property
    def within(self) -> _Named:
        """What tells it from the other images of its session."""
        return _Named({key: value for key, value in self.entities.items() if key not in _OF_CASES}, self.suffix)

    def fits(self, wanted: _Named) -> bool:
        return self.suffix == wanted.suffix and wanted.entities.items() <= self.entities.items()


def find(folder: Path, wanted: Mapping[str, str]) -> list[Case]:
    """The sessions of a BIDS folder, each a case of its subject.

    Args:
        folder: with `sub-…` folders.
        wanted: by role the name of its images without subject and session: a suffix, `T1w`, with entities where they
            are needed, `acq-hr_T1w`, and before it the tree if it is not the folder itself,
            `derivatives/brains/desc-brain_mask`. Of several images that fit, the one that has no other entities is
            taken.

    Raises:
        CasesError: if there are no subjects, no image has the name, or several images of a session fit alike.

    Example:
        `{"a": "T1w"}` finds `sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz` as a of the case sub-01_ses-2 of sub-01.
    """
    of_role = {role: _chosen(folder, role, text) for role, text in wanted.items()}
    sessions = sorted({session for images in of_role.values() for session in images})
    return [_case(one, {role: images[one] for role, images in of_role.items() if one in images}) for one in sessions]


def _case(session: Session, images: Mapping[str, Path]) -> Case:
    return Case("_".join(part for part in session if part), session[0], "", images)


def _chosen(folder: Path, role: str, text: str) -> dict[Session, Path]:
    """The image that a role wants, by session."""
    tree, _, name = text.strip("/").rpartition("/")
    wanted, images = _parsed(name, role), _images(folder / tree)
    fitting: dict[Session, dict[Path, _Named]] = defaultdict(dict)
    for path, named in images.items():
        if named.fits(wanted):
            fitting[_session(named)][path] = named
    if not fitting:
        there = _counted(named.within for named in images.values())
        raise CasesError(f"{folder / tree}: no image is named {name}, wanted as {role}; there are: {there}")
    return {session: _only(session, role, wanted, found) for session, found in fitting.items()}


def _only(session: Session, role: str, wanted: _Named, found: Mapping[Path, _Named]) -> Path:
    exact = [path for path, named in found.items() if named.within == wanted.within]
    paths = exact or list(found)
    if len(paths) > 1:
        apart = f"choose by naming what tells them apart: {found[paths[1]].within}"
        names = [path.name for path in paths]
        shown = names if len(set(names)) == len(names) else map(str, paths)
        raise CasesError(
            f"{'_'.join(filter(None, session))} has {len(paths)} images named {wanted}, wanted as {role}: "
            f"{listed(shown)}; {'remove one of them' if exact else apart}"
        )
    return paths[0]


def _parsed(name: str, role: str) -> _Named:
    match = _NAME.fullmatch(name)
    if match is None:
        raise CasesError(
            f"{name!r}, wanted as {role}, is no BIDS name; give a suffix, with entities where they are needed, such as "
            "T1w, acq-hr_T1w or derivatives/brains/desc-brain_mask"
        )
    return _Named(dict(re.findall(r"([^_-]+)-([^_]+)", match[1])), match[2])


def _images(tree: Path) -> dict[Path, _Named]:
    """Every image of a tree that is named as BIDS wants it."""
    _refuse_other_trees(tree)
    named = {path: _EXTENSION.sub("", path.name) for path in sorted(tree.glob("sub-*/**/*.nii*"))}
    parsed = {path: _parsed(name, "") for path, name in named.items() if _NAME.fullmatch(name)}
    return {path: one for path, one in parsed.items() if "sub" in one.entities}


def _refuse_other_trees(tree: Path) -> None:
    if any(tree.glob("sub-*")):
        return
    near = tree if tree.is_dir() else next(parent for parent in tree.parents if parent.is_dir())
    there = listed(path.name + "/" * path.is_dir() for path in sorted(near.iterdir())) or "nothing"
    raise CasesError(f"{tree}: has no folders sub-…, as BIDS has: sub-01/anat/sub-01_T1w.nii.gz; {near} holds: {there}")


def _session(named: _Named) -> Session:
    session = named.entities.get("ses")
    return f"sub-{named.entities['sub']}", f"ses-{session}" if session else ""


def _counted(names: Iterable[_Named]) -> str:
    counts: Sequence[tuple[str, int]] = sorted(Counter(map(str, names)).items())
    return listed((f"{name} ({count})" for name, count in counts), most=12) or "none"
