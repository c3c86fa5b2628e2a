"""De-identification of DICOM files by the Basic Profile of PS3.15."""

from medgan.formats.dicom.deidentify.file import BASIC_PROFILE, MODIFIED_DATES, Choices, Cleaned, deidentify_file
from medgan.formats.dicom.deidentify.profile import EDITION
from medgan.formats.dicom.deidentify.pseudonyms import Pseudonyms, read_patients

__all__ = [
    "BASIC_PROFILE",
    "EDITION",
    "MODIFIED_DATES",
    "Choices",
    "Cleaned",
    "Pseudonyms",
    "deidentify_file",
    "read_patients",
]
