"""DICOM trees of any shape, such as an archive sends or a disc holds: whose a file is and what it shows, its header
says, not its path.

Source: https://dicom.nema.org/medical/dicom/current/output/chtml/part03/chapter_A.html (patient, study, series)
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from medgan.cases import Case, listed
from medgan.errors import CasesError, OutputError
from medgan.formats.dicom import Series, find_series
from medgan.names import loosely
from medgan.progress import say

__all__ = ["find"]

Study = tuple[str, str]  # patient and study, as they are named in the table; "" for all studies of a patient
Found = dict[Study, dict[str, list[Series]]]  # what fits each role


@dataclass(frozen=True)
class _Rule:
    """Which series a role means: `MR:*T1*|*MPRAGE*|!*GD*`."""

    text: str

    @property
    def modality(self) -> str:
        return self.text.partition(":")[0].strip().upper()

    @property
    def patterns(self) -> list[str]:
        return [part.strip().lower() for part in (self.text.partition(":")[2] or "*").split("|")]

    def fits(self, series: Series) -> bool:
        described = series.description.strip().lower()
        wanted = [pattern for pattern in self.patterns if not pattern.startswith("!")] or ["*"]
        unwanted = [pattern[1:] for pattern in self.patterns if pattern.startswith("!")]
        is_named = any(fnmatchcase(described, pattern) for pattern in wanted)
        is_out = any(fnmatchcase(described, pattern) for pattern in unwanted)
        return series.modality == self.modality and is_named and not is_out


def find(folder: Path, wanted: Mapping[str, str], *, links: Path) -> list[Case]:
    """The studies of a DICOM tree, each a case of the patient whose PatientID it has.

    Patients and cases are named by hashes of PatientID and StudyInstanceUID, so that neither is printed or stands in a
    table. A study without a PatientID is taken for a person of its own. Where no study of a patient has all images, and
    all of them together have each once, they are one case.

    Args:
        folder: with DICOM files, however they lie in it; others are passed over.
        wanted: by role a modality and, behind a colon, what the series description is like: `CT`, `MR:T1*`,
            `MR:*T1*|*MPRAGE*|!*GD*`, where `|` stands between alternatives and `!` before what must not fit. Capitals
            do not matter. Localizers, screenshots and what is no volume are passed over.
        links: a folder for links to the files of series that share theirs with others: a table names folders.

    Raises:
        CasesError: if nothing fits a rule, or several series of a study fit one.
        OutputError: if links cannot be made.

    Example:
        `{"a": "MR:T1*", "b": "CT"}` finds the only MR series called T1… and the only CT of each study.
    """
    rules = {role: _rule(text, role) for role, text in wanted.items()}
    found = find_series(folder)
    _tell_unusable(found, rules)
    usable = [one for one in found if _is_usable(one)]
    of_study = _joined(_by_study(usable, rules), rules)
    _refuse_nothing(folder, rules, usable, of_study)
    _refuse_several(of_study, rules)
    places = _Places(found, links)
    return [_case(study, images, places) for study, images in sorted(of_study.items())]


def _rule(text: str, role: str) -> _Rule:
    rule = _Rule(text)
    if not rule.modality.isalnum() or not all(pattern.strip("!") for pattern in rule.patterns):
        raise CasesError(
            f"{text!r}, wanted as {role}, is no rule for series; give a modality and, behind a colon, what the "
            "description is like: CT, MR:T1* or MR:*T1*|!*GD*"
        )
    return rule


def _by_study(usable: Sequence[Series], rules: Mapping[str, _Rule]) -> Found:
    found: Found = defaultdict(lambda: defaultdict(list))
    for one in usable:
        for role in (role for role, rule in rules.items() if rule.fits(one)):
            found[_study(one)][role].append(one)
    return found


def _joined(of_study: Found, rules: Mapping[str, _Rule]) -> Found:
    """With one case of all studies of a patient, where none of them has all images and together they have each once."""
    of_patient: dict[str, list[Study]] = defaultdict(list)
    for study in of_study:
        of_patient[study[0]].append(study)
    joined = dict(of_study)
    for patient, studies in of_patient.items():
        all_of = {role: [one for study in studies for one in of_study[study].get(role, ())] for role in rules}
        is_whole = any(of_study[study].keys() == rules.keys() for study in studies)
        if not is_whole and all(len(images) == 1 for images in all_of.values()):
            joined = {study: images for study, images in joined.items() if study not in studies}
            joined[patient, ""] = all_of
    return joined


def _is_usable(series: Series) -> bool:
    is_scan = not (series.is_localizer or series.is_screenshot)
    return is_scan and series.grid is not None and series.num_volumes == 1


def _study(series: Series) -> Study:
    study = _named("s", series.study_uid)
    identifier = series.patient_id.strip()
    return _named("p", identifier) if identifier else f"p{study}", study


def _named(letter: str, text: str) -> str:
    return letter + hashlib.sha256(text.encode()).hexdigest()[:8]


def _case(study: Study, images: Mapping[str, Sequence[Series]], places: _Places) -> Case:
    name = _name(study)
    return Case(name, study[0], "", {role: places.of(series, f"{name}_{role}") for role, (series,) in images.items()})


def _name(study: Study) -> str:
    return "_".join(part for part in study if part)


# --- what is told and refused -----------------------------------------------------------------------------------------


def _tell_unusable(found: Sequence[Series], rules: Mapping[str, _Rule]) -> None:
    """Of series that fit a rule and yet are no image, and of files that name no series."""
    fitting = [one for one in found if any(rule.fits(one) for rule in rules.values())]
    for one in fitting:
        if not _is_usable(one) and not one.is_localizer:
            say(f"Passed over {_common(one)}, {one.describe()}: {_reason(one)}")
    if damaged := [str(path) for one in found for path in _damaged(one)]:
        say(f"Passed over {len(damaged)} files that are too damaged to tell of a series: {listed(damaged)}")
    if nameless := {one.study_uid for one in fitting if _is_usable(one) and not one.patient_id.strip()}:
        say(
            f"Warning: {len(nameless)} studies have no PatientID; each is taken for a person of its own, unless you "
            "say otherwise by `patients`"
        )
    _tell_alike({one.patient_id.strip() for one in fitting if _is_usable(one)} - {""})


def _tell_alike(identifiers: set[str]) -> None:
    """By the names that they have in the table."""
    groups: dict[str, list[str]] = defaultdict(list)
    for identifier in sorted(identifiers):
        groups[loosely(identifier)].append(_named("p", identifier))
    if people := [" and ".join(own) for own in groups.values() if len(own) > 1]:
        say(
            f"Warning: PatientIDs differ only in capitals or white space: those of {listed(people)}; if they are of "
            "one person, say so by `patients`"
        )


def _reason(series: Series) -> str:
    if series.num_volumes > 1:
        return f"is 4-D ({series.num_volumes} volumes); medgan convert writes them, then give one of them"
    return "; ".join(series.problems[:1]) or "is no regular volume"


def _damaged(series: Series) -> tuple[Path, ...]:
    return () if series.rows else series.files


def _refuse_nothing(
    folder: Path,
    rules: Mapping[str, _Rule],
    usable: Sequence[Series],
    of_study: Mapping[Study, Mapping[str, Sequence[Series]]],
) -> None:
    if not usable:
        raise CasesError(f"{folder}: holds no DICOM series that is a volume; medgan inspect tells what there is")
    there = {role for images in of_study.values() for role in images}
    if lacking := [f"{rules[role].text} (as {role})" for role in rules if role not in there]:
        names = sorted({f"{one.modality}:{one.description}" for one in usable})
        raise CasesError(f"{folder}: no series fits {listed(lacking)}; there are: {listed(names, most=12)}")


def _refuse_several(of_study: Mapping[Study, Mapping[str, Sequence[Series]]], rules: Mapping[str, _Rule]) -> None:
    lines = [
        f"{_name(study)}, {role} ({rules[role].text}): {listed(sorted(one.describe() for one in images))}"
        for study, roles in sorted(of_study.items())
        for role, images in roles.items()
        if len(images) > 1
    ]
    if lines:
        raise CasesError(
            f"{len(lines)} rules fit several series of a study: {listed(lines, most=2)}; narrow them by what the "
            "descriptions have (MR:T1*tra*) or must not have (MR:T1*|!*GD*)"
        )


# --- where a series lies ----------------------------------------------------------------------------------------------


class _Places:
    """What a table can name: the file of a series, its folder if no other series lies in it, or a folder of links.

    Args:
        found: all series of the tree.
        links: the folder for folders of links.
    """

    def __init__(self, found: Sequence[Series], links: Path) -> None:
        self.links = links
        self.below: dict[Path, set[int]] = defaultdict(set)
        self.owners: dict[Path, set[int]] = defaultdict(set)
        self.damaged = [path for one in found for path in _damaged(one)]
        for one in found:
            for file in one.files:
                self.owners[file].add(id(one))
                for parent in file.parents:
                    self.below[parent].add(id(one))

    def of(self, series: Series, name: str) -> Path:
        """The path that reads as this series alone."""
        if shared := [str(file) for file in series.files if len(self.owners[file]) > 1]:
            raise CasesError(f"{listed(shared, most=2)}: hold several series each; medgan convert takes them apart")
        if len(series.files) == 1:
            return series.files[0]
        folder = _common(series)
        return folder if self.below[folder] == {id(series)} else _linked(self.links / name, self._files(series))

    def _files(self, series: Series) -> list[Path]:
        """With damaged files beside them: one may be a slice of it, so that what reads the series has to see them."""
        folders = {file.parent for file in series.files}
        return [*series.files, *(file for file in self.damaged if file.parent in folders)]


def _common(series: Series) -> Path:
    return series.files[0] if len(series.files) == 1 else Path(os.path.commonpath(series.files))


def _linked(place: Path, files: Sequence[Path]) -> Path:
    """A folder of links to files; links of an earlier time are replaced, nothing else is."""
    home = Path(os.path.abspath(place))  # noqa: PTH100 - links stay links
    try:
        place.mkdir(parents=True, exist_ok=True)
        _clear(place)
        for number, file in enumerate(files, start=1):
            (place / f"{number:05d}.dcm").symlink_to(os.path.relpath(os.path.abspath(file), home))  # noqa: PTH100
    except OSError as error:
        told = error.strerror or error
        raise OutputError(f"{place}: cannot hold links ({told}); put the table elsewhere by --out") from None
    return place


def _clear(place: Path) -> None:
    entries: Iterator[Path] = place.iterdir()
    for entry in list(entries):
        if not entry.is_symlink():
            raise OutputError(f"{place}: holds {entry.name}, which is no link of medgan's; move it away")
        entry.unlink()
