"""The tissues of the phantom and how bright scanners see them."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from medgan.phantom.shapes import Array

__all__ = ["Tissue", "flair_table", "hu_table", "mr_table"]


class Tissue(IntEnum):
    """Values of the label map."""

    BACKGROUND = 0
    AIRWAY = 1
    SKIN = 2
    FAT = 3
    MUSCLE = 4
    MUCOSA = 5
    CORTICAL_BONE = 6
    SPONGY_BONE = 7
    PETROUS_BONE = 8
    TOOTH = 9
    CSF = 10
    GREY = 11
    WHITE = 12
    DEEP_GREY = 13
    BRAIN_STEM = 14
    CEREBELLUM_GREY = 15
    CEREBELLUM_WHITE = 16
    LESION = 17
    BLOOD = 18
    DURA = 19
    VITREOUS = 20
    LENS = 21


# (HU at 120 kV, T1-weighted and FLAIR signal relative to the strongest usual fat).
# Air and bone are both dark in MR and 2000 HU apart in CT, and CSF lies between muscle and brain in CT alone:
# no function of MR intensity gives CT.
_SEEN = {
    Tissue.BACKGROUND: (-1000, 0.0, 0.0),
    Tissue.AIRWAY: (-1000, 0.0, 0.0),
    Tissue.SKIN: (40, 0.50, 0.45),
    Tissue.FAT: (-95, 1.0, 0.75),
    Tissue.MUSCLE: (55, 0.36, 0.35),
    Tissue.MUCOSA: (42, 0.42, 0.50),
    Tissue.CORTICAL_BONE: (1250, 0.03, 0.03),
    Tissue.SPONGY_BONE: (560, 0.42, 0.30),
    Tissue.PETROUS_BONE: (1600, 0.03, 0.03),
    Tissue.TOOTH: (2200, 0.01, 0.01),
    Tissue.CSF: (8, 0.13, 0.08),
    Tissue.GREY: (38, 0.45, 0.62),
    Tissue.WHITE: (30, 0.66, 0.48),
    Tissue.DEEP_GREY: (40, 0.51, 0.55),
    Tissue.BRAIN_STEM: (31, 0.61, 0.50),
    Tissue.CEREBELLUM_GREY: (38, 0.46, 0.60),
    Tissue.CEREBELLUM_WHITE: (31, 0.65, 0.48),
    Tissue.LESION: (23, 0.30, 0.95),
    Tissue.BLOOD: (58, 0.25, 0.12),
    Tissue.DURA: (62, 0.30, 0.30),
    Tissue.VITREOUS: (9, 0.11, 0.08),
    Tissue.LENS: (75, 0.34, 0.30),
}


def hu_table() -> Array:
    """(22,) Hounsfield units of each tissue, by label."""
    return np.array([_SEEN[tissue][0] for tissue in Tissue], np.float32)


def mr_table() -> Array:
    """(22,) T1-weighted signal of each tissue, by label, fat = 1."""
    return np.array([_SEEN[tissue][1] for tissue in Tissue], np.float32)


def flair_table() -> Array:
    """(22,) FLAIR signal of each tissue, by label: water dark, the lesion bright, grey matter brighter than white."""
    return np.array([_SEEN[tissue][2] for tissue in Tissue], np.float32)
