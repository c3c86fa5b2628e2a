"""How bright, how varied and how filled images are, and whether one lies outside of what training images show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from skimage.filters import threshold_otsu
from torch import Tensor

from medgan.errors import InputError

__all__ = ["STATISTICS", "Limits"]

Array = npt.NDArray[Any]
STATISTICS = ("mean", "spread", "1st percentile", "median", "99th percentile", "foreground share")
_ENDS_AT_0 = (False, True, False, False, False, True)
_RANGE = (1, 99)  # percentiles of training images
_FEWEST = 20
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Limits:
    """Between what the statistics of an image, of each channel by itself, have to lie.

    Args:
        thresholds: (C,) value above which a voxel is foreground: in a channel that holds a mask, of the organ.
        low: (C, 6), of `STATISTICS`, in the unit of the images; the last one a share, 0 to 1.
        high: (C, 6).
    """

    thresholds: Array
    low: Array
    high: Array

    @classmethod
    def learnt(cls, x: Tensor, margin: float) -> Self:
        """From training images: their 1st and 99th percentile, moved apart by `margin` times their distance.

        Spread and foreground share, which end at 0, keep at least half of the 1st percentile, so that a blank image is
        always outside. Foreground is what lies above Otsu's threshold of all training voxels of a channel.

        Args:
            x: (N, C, X, Y) or (N, C, X, Y, Z).
            margin: 0 or more.

        Raises:
            InputError: if there are fewer than 20 images, of which no limits can be told.

        Source:
            Otsu 1979, IEEE Transactions on Systems, Man and Cybernetics 9.
        """
        if len(x) < _FEWEST:
            raise InputError(
                f"limits are learnt from {_FEWEST} training images or more; seen {len(x)}; leave the margin out"
            )
        thresholds = np.array([float(threshold_otsu(channel.numpy())) for channel in x.float().transpose(0, 1)])
        low, high = np.percentile(_statistics(x, thresholds), _RANGE, axis=0)
        beyond = margin * (high - low)
        lowest = np.where(_ENDS_AT_0, np.maximum(low - beyond, low / 2), low - beyond)
        return cls(thresholds, lowest - _ROUNDING, high + beyond + _ROUNDING)

    def broken(self, x: Tensor) -> list[list[str]]:
        """For each image what lies outside, in words."""
        found = _statistics(x, self.thresholds)
        outside = (found < self.low) | (found > self.high)
        return [
            [
                self._told(float(found[image, channel, which]), channel, which)
                for channel, which in np.argwhere(which_of)
            ]
            for image, which_of in enumerate(outside)
        ]

    def _told(self, value: float, channel: int, which: int) -> str:
        low, high = self.low[channel, which], self.high[channel, which]
        place = f" of channel {channel}" if len(self.thresholds) > 1 else ""
        return f"{STATISTICS[which]}{place} {value:.3g} outside {low:.3g} to {high:.3g}"


def _statistics(x: Tensor, thresholds: Array) -> Array:
    """(N, C, 6): `STATISTICS` of each channel of each image."""
    values = x.float().flatten(2).numpy()
    low, median, high = np.percentile(values, (1, 50, 99), axis=2)
    share = (values > thresholds[None, :, None]).mean(axis=2)
    return np.stack([values.mean(axis=2), values.std(axis=2), low, median, high, share], axis=2)
