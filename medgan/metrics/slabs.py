"""Volumes piece by piece: what is worked on stays in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

__all__ = ["VOXELS", "slabs"]

VOXELS = 2**18  # of a slab


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Parts of the first axis of an array, each of about so many voxels.

    Example:
        >>> list(slabs((3, 512, 256)))
        [slice(0, 2, None), slice(2, 3, None)]
    """
    thickness = max(1, VOXELS // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], thickness):
        yield slice(start, min(start + thickness, shape[0]))
