"""What a sampler made, as a volume in its unit."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from medgan.run import SamplingRun
from medgan.volume import Grid, Synthesis, Volume

__all__ = ["volume_of"]

_SIDES = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def volume_of(run: SamplingRun, role: str, channel: Tensor, mark: Synthesis) -> Volume:
    """A channel in its unit, on a grid of the run's spacing whose middle is at the origin.

    Args:
        run: that made it.
        role: of the channel.
        channel: (*size) in [-1, 1].
        mark: by what it was made.
    """
    prep, values = run.config.prep, channel.numpy()
    if role == prep.mask:
        array, unit, modality = (values > 0).astype(np.uint8), "a.u.", ""
    else:
        low, high = prep.images[role].output_range
        array = ((values.clip(-1, 1) + 1) * np.float32((high - low) / 2) + np.float32(low)).astype(np.float32)
        unit, modality = prep.images[role].output_unit, prep.images[role].modality
    return Volume(array.reshape(run.config.patch), _grid(run), unit, modality, mark)


def _grid(run: SamplingRun) -> Grid:
    shape, spacing = run.config.patch, run.config.prep.spacing_mm
    direction = np.array([_SIDES[side] for side in run.config.prep.axes], dtype=np.float64).T
    middle = direction @ ((np.array(shape) - 1) / 2 * spacing)
    return Grid.regular(shape, spacing_mm=spacing, origin_mm=[-float(mm) for mm in middle], direction=direction)
