"""NIfTI-1 and NIfTI-2, single files and pairs, compressed or not, told by content.

Where the voxels are. A header may hold two answers. medgan takes the sform if its code is above 0, else the qform if
its code is above 0, else it refuses: a file without either does not know left from right. Where both are set and
differ, the sform wins, as in nibabel, SPM and FreeSurfer, and `inspect` reports the difference. A spatial unit of
metres or micrometres is converted; an unknown one counts as millimetres.

What the numbers mean. Slope and intercept are applied, and integers stay integers where that is exact. Unit, modality
and the mark of a synthetic image come from the JSON file beside the image, else from a comment inside it, else from
the description field. Without any of them the unit is `a.u.` and the modality "".

A volume is 3-D. An image of four axes is a set of volumes on one grid: `read_set` and `write_set`.
"""

from medgan.formats.nifti.header import is_nifti
from medgan.formats.nifti.reading import (
    Space,
    oddities,
    read,
    read_gradients,
    read_grid,
    read_mark,
    read_set,
    read_set_grid,
)
from medgan.formats.nifti.writing import write, write_set

__all__ = [
    "Space",
    "is_nifti",
    "oddities",
    "read",
    "read_gradients",
    "read_grid",
    "read_mark",
    "read_set",
    "read_set_grid",
    "write",
    "write_set",
]
