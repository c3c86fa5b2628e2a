"""Even out what the coils of an MR scanner make brighter on one side than on the other: N4, by SimpleITK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.bodies import body
from medgan.errors import GeometryError, InputError
from medgan.itk import array_of, image_of, one_thread, simpleitk
from medgan.prep import network_grid
from medgan.resample import resample
from medgan.volume import Grid, Volume

__all__ = ["corrected"]

_COARSE_MM, _LOOK_MM = 6.0, 3.0
_LEAST_VOXELS = 500
_STANDS_STILL = 1e-4


def corrected(
    volume: Volume,
    mask: Volume | None = None,
    *,
    rounds: Sequence[int] = (30, 20, 15),
    mesh_mm: float = 200.0,
) -> Volume:
    """The image divided by its smooth field, which is found at 6 mm and applied at full resolution.

    The field is scaled to a mean logarithm of 0 in the mask, so that the image stays about as bright as it was.

    Args:
        volume: MR of no negative values.
        mask: what to look at, on the same grid; the body if not given. Voxels of value 0 are never looked at, but
            divided as well.
        rounds: iterations at most at each level; each level halves the distance between nodes of the B-spline.
        mesh_mm: that distance at the first level, mm.

    Returns:
        float32 values in the unit of the volume.

    Raises:
        GeometryError: if the mask lies on another grid.
        InputError: if values are negative or not finite, hardly anything is in the mask, or SimpleITK is not installed.

    Source:
        Tustison et al. 2010, "N4ITK: improved N3 bias correction", IEEE TMI 29(6).

    Example:
        >>> from medgan.volume import Grid
        >>> x, y, z = np.indices((40, 40, 40)) - 20
        >>> array = np.where(x**2 + y**2 + z**2 < 15**2, 100 + 20 * (x % 8 > 3), 0) * np.exp(0.03 * y)
        >>> image = Volume(array, Grid.regular(array.shape, spacing_mm=(4, 4, 4)), "a.u.", "MR")
        >>> even = corrected(image).array
        >>> [round(float(one[20, 30, 20] / one[20, 10, 20]), 1) for one in (array, even)]
        [1.8, 1.0]
    """
    image = volume.without_padding()
    if not np.isfinite(image.array).all() or image.array.min() < 0:
        raise InputError("N4 takes logarithms: values must be finite and not below 0; is this MR?")
    if mask is not None and not mask.grid.same_as(volume.grid):
        raise GeometryError(f"the mask is on {mask.grid.describe()}, the image on {volume.grid.describe()}")
    field = _log_field(image, _body(image) if mask is None else mask, rounds, mesh_mm)
    return image.with_array(np.multiply(image.array, np.exp(-field, out=field), out=field, casting="same_kind"))


def _body(image: Volume) -> Volume:
    """As a look at every third millimetre tells it, which is enough for the smooth."""
    steps = [max(1, int(_LOOK_MM / spacing + 0.01)) for spacing in image.grid.spacing_mm]
    array = image.array[tuple(slice(None, None, step) for step in steps)]
    return body(replace(image, array=array, grid=Grid(array.shape, image.grid.affine @ np.diag([*steps, 1.0]))))


def _log_field(volume: Volume, mask: Volume, rounds: Sequence[int], mesh_mm: float) -> npt.NDArray[np.float32]:
    """(X, Y, Z) logarithm of the field at every voxel; beyond the box of the mask it goes on as it ends there."""
    sitk: Any = simpleitk()
    coarse, inside = _seen(volume, mask)
    with one_thread(sitk):
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(list(rounds))
        n4.SetConvergenceThreshold(_STANDS_STILL)
        extent = np.multiply(coarse.grid.shape, coarse.grid.spacing_mm)
        n4.SetNumberOfControlPoints([max(1, round(mm / mesh_mm)) + 3 for mm in extent])
        seen = image_of(sitk, coarse)
        n4.Execute(seen, image_of(sitk, coarse.with_array(inside.astype(np.uint8))))
        field = array_of(sitk, n4.GetLogBiasFieldAsImage(seen)).astype(np.float32)
    field -= field[inside].mean(dtype=np.float64)
    return np.array(resample(coarse.with_array(field), volume.grid).array)


def _seen(volume: Volume, mask: Volume) -> tuple[Volume, npt.NDArray[np.bool_]]:
    """What N4 looks at: the image in large voxels, as far as the mask reaches, and which of them count."""
    grid = network_grid(volume.grid, _coarse(volume.grid.spacing_mm))
    coarse = resample(volume.with_array(volume.array.astype(np.float32, copy=False)), grid)
    looked_at = resample(mask.with_array((mask.array != 0).astype(np.uint8)), grid, order=0)
    inside = (looked_at.array > 0) & (coarse.array > 0)
    if inside.sum() < _LEAST_VOXELS:
        raise InputError(f"N4 needs at least {_LEAST_VOXELS} voxels of {_COARSE_MM:g} mm above 0; seen {inside.sum()}")
    places = np.argwhere(inside)
    start, stop = places.min(axis=0).tolist(), (places.max(axis=0) + 1).tolist()
    window = tuple(slice(first, last) for first, last in zip(start, stop, strict=True))
    return coarse.crop(start, stop), inside[window]


def _coarse(spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = (max(_COARSE_MM, spacing) for spacing in spacing_mm)
    return x, y, z
