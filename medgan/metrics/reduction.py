"""Features made comparable, and fewer: less their mean, over their spread, turned to principal axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Reduction"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reduction:
    """Features made comparable: less their mean, over their standard deviation, and brought to principal axes.

    It is fitted once, on real images, and applied to all sets alike. A feature that does not vary where it was fitted
    is left out.
    """

    mean: Array
    axes: Array

    @classmethod
    def fit(cls, features: Array, components: int | None) -> Reduction:
        """From features (N, d), keeping at most `components` axes, those of largest variance first; None turns nothing.

        Images that it was fitted on spread more along its axes than others do, the more so the more axes there are for
        an image. Without axes that is as good as nothing.

        Example:
            >>> rows = np.array([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
            >>> Reduction.fit(rows, 8)(rows).shape
            (3, 1)
        """
        mean, spread = features.mean(axis=0), features.std(axis=0)
        scale = np.where(spread > 1e-9 * (1 + np.abs(mean)), spread, np.inf)
        if components is None:
            return cls(mean, np.diag(1 / scale))
        _, lengths, axes = np.linalg.svd((features - mean) / scale, full_matrices=False)
        rank = max(1, int((lengths > 1e-9 * lengths[0]).sum()))
        return cls(mean, (axes[: min(rank, components)] / scale).T)

    def __call__(self, features: Array) -> Array:
        """(N, components) of features (N, d)."""
        return np.asarray((features - self.mean) @ self.axes, dtype=np.float64)
