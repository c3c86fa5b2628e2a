"""The semantic linter: does a DICOM file or series say the truth about what it holds?

It judges more than validators of single attributes do: whether modality, class, values, window, references, geometry
and marks of synthetic data fit one another, across the files of a series, and against the series it was made from.
"""

from medgan.formats.dicom.lint.complaint import Complaint, Severity
from medgan.formats.dicom.lint.judge import RULES, lint_files

__all__ = ["RULES", "Complaint", "Severity", "lint_files"]
