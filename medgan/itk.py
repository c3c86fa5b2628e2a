"""What SimpleITK is handed and hands back: images, matrices and one thread. It has LPS, all else here RAS+ mm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import InputError
from medgan.volume import Grid, Volume

__all__ = ["LPS", "array_of", "image_of", "matrix_of", "one_thread", "place", "simpleitk"]

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # to and from RAS


@contextmanager
def one_thread(sitk: Any) -> Iterator[None]:
    """Sums hang on how many threads there are, and SimpleITK counts them in more places than one can set each."""
    kept = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(kept)


def simpleitk() -> Any:
    """The library, which is an extra.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import SimpleITK
    except ModuleNotFoundError:
        raise InputError("SimpleITK is not installed: pip install 'medgan[registration]'") from None
    return SimpleITK


def image_of(sitk: Any, volume: Volume) -> Any:
    """SimpleITK's image of a volume, at the same place."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.T))
    place(image, volume.grid)
    return image


def place(image: Any, grid: Grid) -> None:
    """Put an image of SimpleITK where a grid is."""
    affine = LPS @ grid.affine
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / grid.spacing_mm).ravel().tolist())


def array_of(sitk: Any, image: Any) -> npt.NDArray[Any]:
    """(X, Y, Z) values of an image of SimpleITK."""
    return np.asarray(sitk.GetArrayFromImage(image)).T


def matrix_of(transform: Any) -> npt.NDArray[np.float64]:
    """(4, 4) RAS+ mm of an affine transform of SimpleITK."""
    at = np.array([transform.TransformPoint(point) for point in np.vstack([np.zeros(3), np.eye(3)]).tolist()])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = (at[1:] - at[0]).T, at[0]
    return np.asarray(LPS @ matrix @ LPS)
