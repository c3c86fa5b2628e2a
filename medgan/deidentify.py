"""A folder of DICOM files becomes one that no longer says whose they are, as far as headers go."""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from medgan import __version__
from medgan.atomic import refuse_full_folder, replacing
from medgan.errors import DicomError, InputError, OutputError
from medgan.formats.dicom.deidentify import (
    BASIC_PROFILE,
    EDITION,
    MODIFIED_DATES,
    Choices,
    Cleaned,
    Pseudonyms,
    deidentify_file,
    read_patients,
)
from medgan.progress import track

__all__ = ["REPORT", "Deidentified", "Refusal", "Released", "deidentify"]

REPORT = "deidentification.json"
_KEY_BYTES = 32
_LEAK = "held a removed value after all (leak check)"


@dataclass(frozen=True)
class Refusal:
    """A file that was not released.

    Args:
        path: of the old file, relative to the folder; it may name a person.
        reason: without a word from the file.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Released:
    """A new file, by its new identifiers.

    Args:
        path: relative to the new folder.
        subject: the new PatientID.
        study_uid: the new StudyInstanceUID.
        series_uid: the new SeriesInstanceUID.
        modality: DICOM's code.
        may_show_face: True for CT, MR and PET of the head, or of nobody knows what.
        replaced: attributes that the profile keeps, but that repeated something removed, by keyword.
        num_searched: how many removed values were looked for.
    """

    path: str
    subject: str
    study_uid: str
    series_uid: str
    modality: str
    may_show_face: bool
    replaced: Counter[str]
    num_searched: int


@dataclass(frozen=True)
class Deidentified:
    """What was released and what was not.

    Args:
        out: the new folder; it exists only if something was released.
        released: the new files.
        refused: files that were not released.
        num_others: files that are not DICOM, and DICOMDIRs; they are not copied.
        num_repeated: files that became the same as another one, to the byte.
        is_key_kept: False if the key was drawn for this run and is gone.
        dates: `removed`, or `shifted`.
        allowed_burned_in: True if images were released that do not say whether there is text in their pixels.
    """

    out: Path
    released: tuple[Released, ...]
    refused: tuple[Refusal, ...]
    num_others: int
    num_repeated: int
    is_key_kept: bool
    dates: str
    allowed_burned_in: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        """What has to be looked at by somebody before the files are given away."""
        faces = len({one.series_uid for one in self.released if one.may_show_face})
        found = []
        if faces:
            found.append(
                f"{faces} series show a head, or do not say what they show: FACES ARE NOT REMOVED, and can be "
                "recognised in a CT, MR or PET of the head"
            )
        if self.allowed_burned_in:
            found.append("images were released that may have text in their pixels: look at each of them")
        return tuple(found)

    @property
    def exit_code(self) -> int:
        """0 all released, 1 none, 3 all with warnings, 4 some not released, 5 there was no DICOM file."""
        if not self.released:
            return 1 if self.refused else 5
        if self.refused:
            return 4
        return 3 if self.warnings else 0

    def to_record(self) -> dict[str, Any]:
        """What the report in the new folder holds: counts and new identifiers, nothing of the old files."""
        codes = [BASIC_PROFILE, *([MODIFIED_DATES] if self.dates == "shifted" else [])]
        return {
            "made_by": f"medgan {__version__}",
            "profile": f"DICOM PS3.15 {EDITION}, Table E.1-1",
            "codes": [f"{value} {meaning}" for value, meaning in codes],
            "dates": self.dates,
            "key": "of a key file" if self.is_key_kept else "drawn for this run and not kept",
            "files": len(self.released),
            "patients": len({one.subject for one in self.released}),
            "studies": len({one.study_uid for one in self.released}),
            "series": self._series(),
            "not_released": dict(Counter(refusal.reason for refusal in self.refused)),
            "not_dicom": self.num_others,
            "repeated": self.num_repeated,
            "also_replaced": dict(sum((one.replaced for one in self.released), Counter())),
            "leak_check": {
                "values_searched": sum(one.num_searched for one in self.released),
                "files_with_leaks": sum(refusal.reason == _LEAK for refusal in self.refused),
            },
            "warnings": list(self.warnings),
        }

    def to_json(self) -> dict[str, Any]:
        """The report for who gave the old files: also names the ones that were not released."""
        refused = [{"path": refusal.path, "reason": refusal.reason} for refusal in self.refused]
        return {**self.to_record(), "out": str(self.out) if self.released else "", "refused": refused}

    def describe(self) -> str:
        """A few lines for people."""
        record = self.to_record()
        lines = [
            f"{self.out}: {_counted(record, 'files', 'patients', 'studies')}, {len(record['series'])} series"
            if self.released
            else "nothing was released",
            f"leak check: {record['leak_check']['values_searched']} removed values searched in the new files, "
            f"found in {record['leak_check']['files_with_leaks']}",
            *(f"{keyword}: replaced in {number} places" for keyword, number in record["also_replaced"].items()),
            *(f"not released: {refusal.path}: {refusal.reason}" for refusal in self.refused),
            f"not copied: {self.num_others} files that are not DICOM images" if self.num_others else "",
            "" if self.is_key_kept else "the key was not kept: other files of these people will get other identifiers",
            *(f"WARNING: {warning}" for warning in self.warnings),
        ]
        return "\n".join(line for line in lines if line)

    def _series(self) -> list[dict[str, Any]]:
        counts = Counter((one.subject, one.study_uid, one.series_uid, one.modality) for one in self.released)
        keys = ("patient", "study_uid", "series_uid", "modality")
        return [{**dict(zip(keys, of, strict=True)), "files": number} for of, number in sorted(counts.items())]


def deidentify(
    source: Path,
    out: Path,
    *,
    key: Path | None = None,
    patients: Path | None = None,
    shift_dates: bool = False,
    allow_burned_in: bool = False,
) -> Deidentified:
    """De-identify the DICOM files below a folder by the Basic Profile of PS3.15, and check the new files for leaks.

    Names, identifiers, dates, descriptions, private attributes, overlays and more are removed, emptied or replaced, at
    every depth; UIDs are replaced consistently. Text that is part of the pixels, and faces, stay: images that may have
    text in their pixels are not released, heads are flagged.

    Args:
        source: a folder, or a file.
        out: a new or empty folder; it gets a report, `deidentification.json`, too.
        key: file with the secret that new identifiers derive from, written if it is not there. The same key gives the
            same identifiers. Whoever has it can tell which old ones became which; without one, a key is drawn and lost.
        patients: CSV with the columns patient_id and new_id, for identifiers of your own.
        shift_dates: move all dates of a person by one offset of up to ten years, instead of removing them.
        allow_burned_in: also release images that do not say whether there is text in their pixels.

    Returns:
        What was released, and what was not and why.

    Raises:
        InputError: if there is nothing at source, or key or patients cannot be used.
        OutputError: if `out` or the key cannot be written.
    """
    source, out = Path(source), Path(out)
    if not source.exists():
        raise InputError(f"{source}: does not exist; give a folder or a file with DICOM")
    refuse_full_folder(out)
    table = read_patients(Path(patients)) if patients else None
    choices = Choices(Pseudonyms(_secret(key, out), table), shift_dates, allow_burned_in)
    files = _files(source)
    with ExitStack() as stack:
        shelf = _Shelf(out, stack)
        for file in track(files, "de-identify"):
            shelf.put(_tried(file, source, choices))
        done = Deidentified(
            out,
            tuple(shelf.released),
            tuple(shelf.refused),
            shelf.num_others,
            shelf.num_repeated,
            is_key_kept=key is not None,
            dates="shifted" if shift_dates else "removed",
            allowed_burned_in=allow_burned_in,
        )
        if done.released:
            (shelf.folder / REPORT).write_text(json.dumps(done.to_record(), indent=2) + "\n")
    return done


# --- one file after the other -----------------------------------------------------------------------------------------


def _files(source: Path) -> list[Path]:
    """All of them, listed before the first new one is written; pipes and the like are none."""
    if source.is_file():
        return [source]
    found = [Path(folder) / name for folder, _, names in os.walk(source) for name in names]
    return sorted(file for file in found if file.is_file())


def _tried(file: Path, source: Path, choices: Choices) -> Cleaned | Refusal | None:
    place = file.name if file == source else str(file.relative_to(source))
    try:
        cleaned = deidentify_file(file, choices)
    except DicomError as error:
        return Refusal(place, str(error))
    return Refusal(place, _LEAK) if cleaned and cleaned.num_leaks else cleaned


class _Shelf:
    """Puts new files into a new folder, which is begun when there is something to put."""

    def __init__(self, out: Path, stack: ExitStack) -> None:
        self.released: list[Released] = []
        self.refused: list[Refusal] = []
        self.num_others = 0
        self.num_repeated = 0
        self._out, self._stack = out, stack

    @cached_property
    def folder(self) -> Path:
        """Where the files are until all of them are there."""
        folder = self._stack.enter_context(replacing(self._out))
        folder.mkdir()
        return folder

    def put(self, one: Cleaned | Refusal | None) -> None:
        """Save a file, or count what is none."""
        if one is None:
            self.num_others += 1
        elif isinstance(one, Refusal):
            self.refused.append(one)
        else:
            self._save(one)

    def _save(self, one: Cleaned) -> None:
        folder = self.folder.joinpath(one.subject, _short(one.study_uid), _short(one.series_uid))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{_short(one.instance_uid)}.dcm"
        number = 1
        while path.exists():  # two files of one SOPInstanceUID
            if path.read_bytes() == one.content:
                self.num_repeated += 1
                return
            number += 1
            path = folder / f"{_short(one.instance_uid)}-{number}.dcm"
        path.write_bytes(one.content)
        self.released.append(
            Released(
                str(path.relative_to(self.folder)),
                one.subject,
                one.study_uid,
                one.series_uid,
                one.modality,
                one.may_show_face,
                one.replaced,
                one.num_searched,
            )
        )


def _counted(record: dict[str, Any], *keys: str) -> str:
    singular = {"files": "file", "patients": "patient", "studies": "study"}
    return ", ".join(f"{record[key]} {singular[key] if record[key] == 1 else key}" for key in keys)


def _short(uid: str) -> str:
    """A name of a file or folder for a new UID."""
    return sha256(uid.encode()).hexdigest()[:16]


# --- the key ----------------------------------------------------------------------------------------------------------


def _secret(key: Path | None, out: Path) -> bytes:
    if key is None:
        return secrets.token_bytes(_KEY_BYTES)
    key = Path(key)
    if out.resolve() in key.resolve().parents:
        raise InputError(f"{key}: a key must not lie beside what it made; keep it out of {out}")
    if not key.exists():
        _write_key(key)
    try:
        secret = bytes.fromhex(key.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise InputError(f"{key}: cannot be read as a key; name a new file to have one made") from error
    if len(secret) < _KEY_BYTES:
        raise InputError(f"{key}: is no key of {_KEY_BYTES} bytes; name a new file to have one made")
    return secret


def _write_key(key: Path) -> None:
    """A new secret, for its owner's eyes only from the first moment on."""
    try:
        with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
    except OSError as error:
        raise OutputError(f"{key}: the key cannot be written ({error.strerror}); choose another place") from error
