"""DICOM in and out: the only place in medgan that knows DICOM's LPS axes.

Files become a `Volume` only where they prove to be one stack of slices; everything else is refused with its reason.
"""

from medgan.formats.dicom.choose import chosen
from medgan.formats.dicom.mark import missing_marks
from medgan.formats.dicom.read import read, read_series, read_volumes
from medgan.formats.dicom.repair import Repair
from medgan.formats.dicom.scan import Series, find_series, is_dicom
from medgan.formats.dicom.source import Source
from medgan.formats.dicom.subject import Subject, uid_from
from medgan.formats.dicom.write import write

__all__ = [
    "Repair",
    "Series",
    "Source",
    "Subject",
    "chosen",
    "find_series",
    "is_dicom",
    "missing_marks",
    "read",
    "read_series",
    "read_volumes",
    "uid_from",
    "write",
]
