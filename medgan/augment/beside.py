"""An image beside a real one, to be looked at."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from medgan.metrics.features import Array
from medgan.pictures import diverging, grey

__all__ = ["beside"]


def beside(ours: Tensor, real: Tensor) -> list[Array]:
    """Three pictures, (H, W) and (H, W, 3) uint8: both images, and what ours has less (blue) or more (red).

    Of several channels the first, of a volume its middle slice; turned as axes that run right, anterior, superior are
    hung by radiologists.

    Args:
        ours: (C, X, Y[, Z]) in [-1, 1].
        real: the same shape.
    """
    pictures = [_plane(image) for image in (ours, real)]
    return [*(grey(picture, (-1, 1)) for picture in pictures), diverging(pictures[0] - pictures[1], 1)]


def _plane(image: Tensor) -> Array:
    """(Y, X) float64 of (C, X, Y[, Z]), anterior up and the patient's right on the left."""
    first = image[0].double().numpy()
    flat = first[:, :, first.shape[2] // 2] if first.ndim == 3 else first
    return np.asarray(flat[::-1, ::-1].T)
