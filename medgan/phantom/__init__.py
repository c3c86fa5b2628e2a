"""Phantoms made in memory: docs, tests and the demo need no download.

Paired anatomical phantoms of the head for translation, and small images of known factors for sampling.
"""

from medgan.phantom.anatomy import Anatomy, Lesion
from medgan.phantom.cohort import patient_grid, write_cohort
from medgan.phantom.factors import Factors, draw_factors, factor_distances, factor_images, measure
from medgan.phantom.scan import Head, default_grid, head
from medgan.phantom.tissue import Tissue

__all__ = [
    "Anatomy",
    "Factors",
    "Head",
    "Lesion",
    "Tissue",
    "default_grid",
    "draw_factors",
    "factor_distances",
    "factor_images",
    "head",
    "measure",
    "patient_grid",
    "write_cohort",
]
