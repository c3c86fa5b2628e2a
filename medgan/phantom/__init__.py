"""Paired anatomical phantoms of the head, made in memory: docs, tests and the demo need no download."""

from medgan.phantom.anatomy import Anatomy, Lesion
from medgan.phantom.cohort import patient_grid, write_cohort
from medgan.phantom.scan import Head, default_grid, head
from medgan.phantom.tissue import Tissue

__all__ = ["Anatomy", "Head", "Lesion", "Tissue", "default_grid", "head", "patient_grid", "write_cohort"]
