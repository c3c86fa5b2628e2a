"""Everything that medgan raises on purpose.

```
MedganError
├── InputError        a path, table or argument that cannot be used
│   ├── DicomError    files that do not prove to be one stack of slices
│   ├── NiftiError    a NIfTI file that is damaged, not finite or has no usable affine
│   ├── GeometryError grids that do not fit one another, or are no grids at all
│   └── CasesError    a table of cases that is empty, broken or leaks patients between splits
├── ConfigError       a setting that is unknown or out of range, named by its full key
├── RunError          a run folder that is missing, damaged or of another version
├── TrainingError     a training that diverged or ran out of memory
└── OutputError       a place that cannot be written
```

A message says what was seen, what is accepted and what to do. The command line prints it in one red line
and exits with 1; anything else that escapes is a bug in medgan.
"""

__all__ = [
    "CasesError",
    "ConfigError",
    "DicomError",
    "GeometryError",
    "InputError",
    "MedganError",
    "NiftiError",
    "OutputError",
    "RunError",
    "TrainingError",
]


class MedganError(Exception):
    """The root of the tree: catch this to catch all that medgan raises on purpose."""


class InputError(MedganError):
    """A path, table or argument that cannot be used."""


class DicomError(InputError):
    """DICOM files that do not prove to be one stack of slices."""


class NiftiError(InputError):
    """A NIfTI file that is damaged, not finite or has no usable affine."""


class GeometryError(InputError):
    """Grids that do not fit one another, or are no grids at all."""


class CasesError(InputError):
    """A table of cases that is empty, broken or leaks patients between splits."""


class ConfigError(MedganError):
    """A setting that is unknown or out of range, named by its full key."""


class RunError(MedganError):
    """A run folder that is missing, damaged or of another version."""


class TrainingError(MedganError):
    """A training that diverged, with losses that are not finite or exploded, or that ran out of memory."""


class OutputError(MedganError):
    """A place that cannot be written: no permission, no space, or in use."""
