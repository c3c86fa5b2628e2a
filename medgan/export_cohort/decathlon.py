"""The Medical Segmentation Decathlon's `dataset.json`, as MONAI reads it.

Source: http://medicaldecathlon.com; monai.data.load_decathlon_datalist
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgan import __version__
from medgan.cases import Case
from medgan.export_cohort.cohort import Cohort, copied, labelled, refuse_lacking, refuse_other_grids, write_json

__all__ = ["lay_out"]

_FOLDERS = {"train": ("Tr", "training"), "val": ("Tr", "validation"), "test": ("Ts", "test")}


def lay_out(cohort: Cohort, folder: Path) -> None:
    """imagesTr, labelsTr, imagesTs, labelsTs and dataset.json, a file a channel; validation has a list of its own.

    Raises:
        InputError: if a case lacks a channel, or its images are on several grids.
    """
    refuse_lacking(((case, list(cohort.images)) for case in cohort.cases), "the Decathlon")
    for case in cohort.cases:
        refuse_other_grids(case, [*cohort.images, *([cohort.label] if cohort.label else [])])
    entries = {key: [_entry(cohort, case, folder) for case in cohort.of(split)] for split, (_, key) in _FOLDERS.items()}
    labels = labelled(cohort.cases, cohort.label).values if cohort.label else ()
    about = {
        "name": cohort.title,
        "description": f"exported by medgan {__version__}",
        "tensorImageSize": "3D" if len(cohort.images) == 1 else "4D",
        "modality": {str(number): name for number, name in enumerate(cohort.images.values())},
        "synthetic": cohort.marked,
        "labels": {str(value): "background" if value == 0 else f"label_{value}" for value in labels},
        **{f"num{key.capitalize()}": len(one) for key, one in entries.items()},
    }
    write_json(
        folder / "dataset.json", {**about, **{key: one for key, one in entries.items() if one or key != "validation"}}
    )


def _entry(cohort: Cohort, case: Case, folder: Path) -> dict[str, Any]:
    end, _ = _FOLDERS[case.split]
    several = len(cohort.images) > 1
    images = []
    for number, role in enumerate(cohort.images):
        images.append(f"images{end}/{case.name}{f'_{number:04d}' if several else ''}.nii.gz")
        copied(case.images[role], folder / images[-1])
    entry: dict[str, Any] = {"image": images if several else images[0], "patient": case.patient, **case.conditions}
    if cohort.label and cohort.label in case.images:
        entry["label"] = f"labels{end}/{case.name}.nii.gz"
        copied(case.images[cohort.label], folder / entry["label"])
    return entry
