"""BIDS derivatives: `sub-01/ses-1/anat/sub-01_ses-1_space-T1w_desc-prepared_FLAIR.nii.gz`, each with its JSON file.

Source: https://bids-specification.readthedocs.io/en/stable/derivatives/common-data-types.html
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medgan import __version__
from medgan.cases import Case, listed
from medgan.errors import InputError
from medgan.export_cohort.cohort import Cohort, copied, refuse_other_grids, write_json
from medgan.formats.sidecar import sidecar_path

__all__ = ["lay_out"]

_VERSION = "1.10.0"
_WORD = re.compile(r"[A-Za-z0-9]+")
_PROVENANCE = "provenance.json"
# Suffixes of anat/ in BIDS 1.10; CT is none, nor is PET in this folder. Validators are told to leave others alone.
_SUFFIXES = {
    "T1w", "T2w", "PDw", "T2starw", "FLAIR", "PDT2", "inplaneT1", "inplaneT2", "angio", "UNIT1", "T1map", "T2map",
    "T2starmap", "R1map", "R2map", "R2starmap", "PDmap", "MTRmap", "MTsat", "T1rho", "MWFmap", "MTVmap", "Chimap",
    "S0map", "M0map",
}  # fmt: skip


def lay_out(cohort: Cohort, folder: Path) -> None:
    """Every image, mask and label map, participants.tsv with the splits, and dataset_description.json.

    Raises:
        InputError: if an image has no name that BIDS accepts, two patients would become one subject, or images of
            a case lie on different grids: all are named by the space of the first.
    """
    wrong = [
        f"{role} ({name})" for role, name in cohort.images.items() if name in ("a", "b") or not _WORD.fullmatch(name)
    ]
    if wrong:
        raise InputError(f"{listed(wrong)}: BIDS wants a suffix; name it, such as by --name a=T1w")
    names = _names(cohort)
    for case in cohort.cases:
        refuse_other_grids(case, list(case.images))
        _write(cohort, case, folder, names[case.name])
    description = {
        "Name": cohort.title,
        "BIDSVersion": _VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medgan", "Version": __version__, "Description": "medgan prepare and export-cohort"}],
    }
    write_json(folder / "dataset_description.json", description)
    (folder / "README").write_text("\n".join(_read_me(cohort)) + "\n", encoding="utf-8")
    if foreign := _foreign(cohort):
        (folder / ".bidsignore").write_text("".join(f"*_{name}.*\n" for name in foreign), encoding="utf-8")
    _participants(cohort, folder, names)


def _foreign(cohort: Cohort) -> list[str]:
    """Names of images that are no suffixes of BIDS."""
    return sorted(set(cohort.images.values()) - _SUFFIXES)


def _read_me(cohort: Cohort) -> Iterator[str]:
    kind = "partly synthetic" if cohort.synthetic else "of patients"
    yield f"{cohort.title}: images {kind}, exported by medgan {__version__}."
    yield ""
    yield f"Of each participant all lie on one grid: {', '.join(cohort.images.values())}; masks and label maps as well."
    yield "What was done to each stands in its JSON file: under Description, and with all parameters under MedganSteps."
    yield "Which participants a model may learn from stands in participants.tsv."
    if cohort.synthetic:
        yield "What is synthetic says so by SyntheticData in its JSON file."
    if foreign := _foreign(cohort):
        yield f"BIDS has no name for {', '.join(foreign)}; such files are named alike, and listed in .bidsignore."


def _names(cohort: Cohort) -> dict[str, tuple[str, str]]:
    """Subject and session of each case; the session is "" where a patient has one case."""
    subjects = {case.patient: _plain(case.patient.removeprefix("sub-")) for case in cohort.cases}
    twice = [name for name, count in Counter(subjects.values()).items() if count > 1 or not name]
    if twice:
        raise InputError(f"patients become one subject of BIDS, whose names are letters and digits: {listed(twice)}")
    counts = Counter(case.patient for case in cohort.cases)
    return {
        case.name: (subjects[case.patient], _session(case) if counts[case.patient] > 1 else "") for case in cohort.cases
    }


def _session(case: Case) -> str:
    return _plain(case.name.removeprefix(case.patient).lstrip("_").removeprefix("ses-")) or "1"


def _plain(text: str) -> str:
    return "".join(_WORD.findall(text))


def _write(cohort: Cohort, case: Case, folder: Path, name: tuple[str, str]) -> None:
    subject, session = name
    space = cohort.images[next(role for role in cohort.images if role in case.images)]
    home = Path(f"sub-{subject}", f"ses-{session}" if session else "", "anat")
    stem = "_".join([*home.parts[:-1], f"space-{space}"])
    files = {role: home / f"{stem}_{_ending(cohort, role)}.nii.gz" for role in case.images}
    for role, path in case.images.items():
        to = folder / files[role]
        if to.exists():
            raise InputError(f"{case.name}: two images become {to.name}; name them apart, or give other sessions")
        copied(path, to)
        beside = sidecar_path(to)
        told = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        write_json(beside, {**told, **_about(cohort, path.parent, role, files)})


def _ending(cohort: Cohort, role: str) -> str:
    if role in cohort.images:
        return f"desc-prepared_{cohort.images[role]}"
    return "desc-prepared_mask" if role == "mask" else f"desc-{_plain(role)}_dseg"


def _about(cohort: Cohort, place: Path, role: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """What BIDS asks of a derivative, from the provenance beside the image where there is one."""
    steps = _provenance(place).get("steps", [])
    own = [step for step in steps if step.get("role") in (None, role)]
    masked: dict[str, Any] = next((step for step in steps if step.get("step") == "mask"), {})
    brain = masked.get("source") == "brain"
    told: dict[str, Any] = {"SpatialReference": next(files[role].name for role in cohort.images if role in files)}
    told["Description"] = _in_words([step["step"] for step in own])
    if role in cohort.images:
        told["SkullStripped"] = brain and any(step.get("step") == "background" for step in own)
    elif role == "mask":
        told["Type"] = "Brain" if brain else "ROI"
        told |= {"Sources": [f"bids::{files[masked['of']].as_posix()}"]} if masked.get("of") in files else {}
    return told | ({"MedganSteps": own} if steps else {})


def _in_words(steps: Sequence[str]) -> str:
    if not steps:
        return "As it stood in a table of cases; what was done to it before is not known."
    return f"Prepared by medgan: {', '.join(dict.fromkeys(steps))}; parameters under MedganSteps.".replace("_", " ")


def _provenance(folder: Path) -> dict[str, Any]:
    path = folder / _PROVENANCE
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); prepare its case again, or remove it") from None
    return told if isinstance(told, dict) else {}


def _participants(cohort: Cohort, folder: Path, names: dict[str, tuple[str, str]]) -> None:
    rows = {f"sub-{names[case.name][0]}": case.split for case in cohort.cases}
    with (folder / "participants.tsv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerows([["participant_id", "split"], *sorted(rows.items())])
    levels = {"train": "learnt from", "val": "chosen by", "test": "tested on"}
    about = {"split": {"Description": "which part of the data the participant is in", "Levels": levels}}
    write_json(folder / "participants.json", about)
