"""nnU-Net's raw folder: `imagesTr/CASE_0000.nii.gz` a channel, `labelsTr`, dataset.json, and the splits.

Source: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medgan import __version__
from medgan.cases import Case
from medgan.errors import InputError
from medgan.export_cohort.cohort import Cohort, copied, labelled, refuse_lacking, refuse_other_grids, write_json
from medgan.formats import read, write

__all__ = ["lay_out"]

_NAME = re.compile(r"Dataset\d{3}_\w+")


def lay_out(cohort: Cohort, folder: Path) -> None:
    """The cases of train and val with their labels in …Tr, those of test in …Ts; with folds, all are in …Tr.

    nnU-Net wants splits_final.json in its folder of preprocessed data; put it there once that is made.

    Raises:
        InputError: if the folder has another name than nnU-Net wants, a case lacks a channel or its label, or its
            images are on several grids.
    """
    if not _NAME.fullmatch(cohort.title):
        raise InputError(f"{cohort.title}: nnU-Net wants folders named such as Dataset501_Brain; name it so")
    if cohort.label is None:
        raise InputError("nnU-Net learns to segment: say which role is the label (--label)")
    train = cohort.cases if cohort.folds else cohort.of("train", "val")
    _refuse_incomplete(cohort, train)
    labels = labelled(cohort.cases, cohort.label)
    for case in cohort.cases:
        end = "Tr" if case in train else "Ts"
        for number, role in enumerate(cohort.images):
            copied(case.images[role], folder / f"images{end}" / f"{case.name}_{number:04d}.nii.gz")
        if cohort.label in case.images:
            home = folder / f"labels{end}"
            home.mkdir(exist_ok=True)
            write(labels.renumbered(read(case.images[cohort.label])), home / f"{case.name}.nii.gz")
    about = {
        "name": cohort.title,
        "description": f"exported by medgan {__version__}",
        "channel_names": {str(number): _channel(name) for number, name in enumerate(cohort.images.values())},
        "labels": labels.to_json(),
        "numTraining": len(train),
        "file_ending": ".nii.gz",
        "synthetic": cohort.marked,
    }
    write_json(folder / "dataset.json", about)
    write_json(folder / "splits_final.json", _splits(cohort))


def _channel(name: str) -> str:
    """nnU-Net keeps HU as they are where a channel is called CT, and scales all others by image."""
    return "CT" if name.lower() == "ct" else name


def _refuse_incomplete(cohort: Cohort, train: Sequence[Case]) -> None:
    wanted = {
        case.name: [*cohort.images, *([cohort.label] if cohort.label and case in train else [])]
        for case in cohort.cases
    }
    refuse_lacking(((case, wanted[case.name]) for case in cohort.cases), "nnU-Net")
    for case in cohort.cases:
        refuse_other_grids(case, wanted[case.name])


def _splits(cohort: Cohort) -> list[dict[str, list[str]]]:
    """In each fold the patients of its test are what nnU-Net validates on; without folds those of val."""
    if cohort.folds:
        return [
            {
                "train": sorted(case.name for case in fold if case.split != "test"),
                "val": sorted(case.name for case in fold if case.split == "test"),
            }
            for fold in cohort.folds
        ]
    return [{"train": sorted(c.name for c in cohort.of("train")), "val": sorted(c.name for c in cohort.of("val"))}]
