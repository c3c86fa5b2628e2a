"""Whether one person is on both sides of a split: by identifiers, by voxels, and by what images look like.

Equal voxels and equal UIDs prove it. A likeness of looks is a suspicion: it finds copies that were resampled, rescaled,
cropped or saved in another type, and often another scan of the same person.
"""

from medgan.leaks.compare import Leak, Seen, leaks, look_at
from medgan.leaks.fingerprint import voxel_hash
from medgan.leaks.looks import coarseness_mm, is_map, likeness, look_of
from medgan.leaks.table import refuse_leaks, trained_on

__all__ = [
    "Leak",
    "Seen",
    "coarseness_mm",
    "is_map",
    "leaks",
    "likeness",
    "look_at",
    "look_of",
    "refuse_leaks",
    "trained_on",
    "voxel_hash",
]
