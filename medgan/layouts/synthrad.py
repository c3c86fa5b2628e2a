"""SynthRAD 2023 and 2025: a folder a patient, `1PA001/mr.nii.gz ct.nii.gz mask.nii.gz`, at any depth.

The identifier says the task (1: MR, 2: CBCT to CT), the region, the centre and a number.

Source: https://arxiv.org/abs/2303.16320, https://arxiv.org/abs/2502.17609
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from medgan.cases import Case, listed
from medgan.errors import CasesError

__all__ = ["REGIONS", "find", "named"]

REGIONS = {"B": "brain", "P": "pelvis", "HN": "head-neck", "AB": "abdomen", "TH": "thorax"}
_IDENTIFIER = re.compile(rf"[12]({'|'.join(REGIONS)})([A-Z])\d+", re.IGNORECASE)
_SOURCES = ("mr", "cbct")
_EXTENSIONS = (".nii.gz", ".nii", ".mha")

Found = dict[Path, dict[str, Path]]  # the images of a folder by their names without extension


def named(folder: Path, a: str | None, b: str | None, mask: str | None) -> tuple[str, str, str | None]:
    """What the images are called, where the user does not say: mr or cbct to ct, with the mask.

    Raises:
        CasesError: if there are images of both tasks, or of none.
    """
    there = {name for images in _found(folder).values() for name in images}
    sources = [name for name in _SOURCES if name in there]
    if a is None and len(sources) != 1:
        others = f"has no images called mr or cbct; there are: {listed(sorted(there))}"
        seen = "has mr and cbct" if sources else others
        raise CasesError(f"{folder}: {seen}; say which to translate from (--a), or give the folder of one task")
    return a or sources[0], b or "ct", mask or ("mask" if "mask" in there else None)


def find(folder: Path, wanted: Mapping[str, str]) -> list[Case]:
    """The patients of a SynthRAD folder, with region and centre as conditions where their identifiers tell.

    Args:
        folder: with the patients' folders in it, or in folders of it.
        wanted: by role the name of the file without extension: mr, cbct, ct, mask.

    Raises:
        CasesError: if there are no such images, or a patient is there twice.

    Example:
        `1PA001/mr.nii.gz` belongs to the case and patient 1PA001, `condition:region` is pelvis, `condition:centre` A.
    """
    found = {place: images for place, images in _found(folder).items() if images.keys() & set(wanted.values())}
    there = {name for images in found.values() for name in images}
    if lacking := [f"{text} (as {role})" for role, text in wanted.items() if text not in there]:
        everything = sorted({name for images in _found(folder).values() for name in images})
        raise CasesError(f"{folder}: has no images called {listed(lacking)}; there are: {', '.join(everything)}")
    _refuse_twice(found)
    cases = [_case(place.name, wanted, images) for place, images in found.items()]
    return sorted(cases, key=lambda case: case.name)


def _case(name: str, wanted: Mapping[str, str], images: Mapping[str, Path]) -> Case:
    match = _IDENTIFIER.fullmatch(name)
    known = {"region": REGIONS[match[1].upper()], "centre": match[2].upper()} if match else {}
    return Case(name, name, "", {role: images[text] for role, text in wanted.items() if text in images}, known)


def _found(folder: Path) -> Found:
    found: Found = defaultdict(dict)
    for path in sorted(folder.glob("**/*")):
        extension = next((one for one in _EXTENSIONS if path.name.lower().endswith(one)), None)
        if extension and path.parent != folder and not path.name.startswith("."):
            name = path.name[: -len(extension)].lower()
            if name in found[path.parent]:
                raise CasesError(
                    f"{path.parent}: has two images called {name}, {found[path.parent][name].name} and "
                    f"{path.name}; keep one"
                )
            found[path.parent][name] = path
    if not found:
        raise CasesError(f"{folder}: has no folders with images, as SynthRAD has: 1PA001/mr.nii.gz, ct.nii.gz")
    return found


def _refuse_twice(found: Found) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for place in found:
        places[place.name].append(str(place))
    if twice := [" and ".join(own) for own in places.values() if len(own) > 1]:
        raise CasesError(f"patients are there twice: {listed(twice)}; index one of these folders at a time")
