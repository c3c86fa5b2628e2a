"""How much of one image another one shows: by their grids, and by where the body is in each."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgan.prep import foreground
from medgan.resample import resample
from medgan.volume import Grid, Volume

__all__ = ["overlap_of", "uncovered_of"]

_NEAR_MM = 15.0
_FLAT = 0.2  # of the largest section of a body, at its end


def overlap_of(a: Grid, b: Grid) -> float:
    """Share (0..1) of a's field of view that b's covers.

    Example:
        >>> overlap_of(Grid.regular((8, 8, 8)), Grid.regular((4, 8, 8)))
        0.5
    """
    sides = [np.linspace(-0.5 + size / 64, size - 0.5 - size / 64, 32) for size in a.shape]
    index = b.to_index(a.to_world(np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)))
    return float(((index >= -0.5) & (index <= np.array(b.shape) - 0.5)).all(axis=-1).mean())


def uncovered_of(a: Volume, b: Volume, mask: Volume | None) -> float:
    """Share (0..1) of a body that the other image does not show, as both lie; with a mask, of what is inside it.

    Of a's what is farther than 15 mm from b's, and of either what lies beyond a plane where the other ends as if cut.

    Args:
        a: an image with air around the body, of voxels of some 2 mm.
        b: the other one, on any grid.
        mask: what counts, above 0, on any grid.
    """
    one, other = (volume.with_array(foreground(volume.array)) for volume in (a, b))
    of_one, of_other = _within(one, mask), _within(other, mask)
    return max(_far(of_one, other), _beyond(of_one, other), _beyond(of_other, one))


def _within(body: Volume, mask: Volume | None) -> Volume:
    """All of it where the mask has no part of it: that is a fault of its own."""
    if mask is None:
        return body
    inside = resample(mask.with_array((mask.array > 0).astype(np.uint8)), body.grid, order=0).array > 0
    return body.with_array(body.array & inside) if (body.array & inside).any() else body


def _far(body: Volume, other: Volume) -> float:
    """Share of a body that is farther than 15 mm from another."""
    shown = resample(other.with_array(other.array.astype(np.uint8)), body.grid, order=0).array > 0
    if not shown.any():
        return 1.0
    away_mm = ndimage.distance_transform_edt(~shown, sampling=body.grid.spacing_mm)
    return float((away_mm[body.array] > _NEAR_MM).mean())


def _beyond(body: Volume, other: Volume) -> float:
    """Share of a body inside another's grid that is beyond a plane of it where the other ends with much of its section.

    Heads taper off; what is blank from one plane on was not measured. Beyond the grid itself, its header tells.
    """
    places = other.grid.to_index(body.grid.to_world(np.argwhere(body.array)))
    inside = ((places >= -0.5) & (places <= np.array(other.grid.shape) - 0.5)).all(axis=1)
    shares = [0.0]
    for axis in range(3):
        sections = other.array.sum(axis=tuple(k for k in range(3) if k != axis))
        shown = np.flatnonzero(sections)
        for end, away in ((shown[0], -1), (shown[-1], 1)):
            if sections[end] > _FLAT * sections.max():
                shares.append(float((inside & ((places[:, axis] - end) * away > 1)).mean()))
    return max(shares)
