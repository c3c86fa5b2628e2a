"""Where the patient is in an image, and where the brain: masks, and images without all that is around."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medgan.errors import GeometryError, InputError
from medgan.metrics.regions import BODY_HU
from medgan.prep import dark_threshold
from medgan.volume import Grid, Volume

__all__ = ["body", "brain", "without_background"]

Mask = npt.NDArray[np.bool_]
_AIR_HU = -1000
_COARSE_MM = 3.0
_THIN_MM = 6.0  # half of it either way: what is thinner is a sheet, or an ear
_EAR_ML = 20.0
_NOISES, _LEAST_OF_OTSU = 4.0, 0.15


def body(volume: Volume) -> Volume:
    """The patient without air, couch and holders: a mask on the volume's grid.

    Above −500 HU, or in other units above four times the noise of the air, at most Otsu's threshold; of that the
    largest part, without sheets thinner than 6 mm that hang on it (couch, cup, mask) unless they are as small as an ear
    (20 ml); its holes filled in space, then axial slice by slice: sinuses and airways too, where a slice shows them
    closed. Where a couch touches the skin, its sheet counts as skin.

    Args:
        volume: CT in HU, or an image in which air is darkest.

    Returns:
        uint8, 1 in the patient, unit `label`.

    Raises:
        InputError: if the image is constant or not finite, or nothing in it is denser than air.

    Example:
        >>> image = np.full((30, 30, 6), -1000.0)
        >>> image[8:22, 8:22], image[14, 14], image[:, 2] = 40, -900, 0  # a patient with an airway, and a couch
        >>> int(body(Volume(image, Grid.regular(image.shape, spacing_mm=(3, 3, 3)), "HU")).array.sum()) == 14 * 14 * 6
        True
    """
    array = volume.without_padding().array
    if not np.isfinite(array).all() or array.min() == array.max():
        raise InputError("the image is constant or not finite; there is no body to find in it")
    dense = array > (BODY_HU if volume.unit == "HU" else _above_noise(array))
    if not dense.any():
        raise InputError("nothing in the image is denser than air; is its unit right?")
    found = _largest(dense & _without_sheets(dense, volume.grid))
    return Volume(_filled(found, volume.grid).astype(np.uint8), volume.grid, "label")


def without_background(volume: Volume, mask: Volume, *, value: float | None = None) -> Volume:
    """The image with nothing outside a mask.

    Args:
        volume: any image.
        mask: on the same grid; any non-zero voxel is kept.
        value: put elsewhere, in the volume's unit; if not given −1000 in HU, otherwise the image's lowest.

    Raises:
        GeometryError: if the mask lies on another grid.
        InputError: if the voxels' type cannot hold the value.

    Example:
        >>> line = Volume(np.array([[[5], [7], [9]]], dtype=np.int16), Grid.regular((1, 3, 1)), "HU")
        >>> kept = line.with_array(np.array([[[0], [1], [0]]]))
        >>> without_background(line, kept).array.ravel().tolist()
        [-1000, 7, -1000]
    """
    if not mask.grid.same_as(volume.grid):
        raise GeometryError(f"the mask is on {mask.grid.describe()}, the image on {volume.grid.describe()}")
    image = volume.without_padding()
    air = value if value is not None else _AIR_HU if image.unit == "HU" else image.array.min()
    if not _holds(image.array.dtype, float(air)):
        raise InputError(f"a voxel of type {image.array.dtype} cannot hold {air:g}; give another value")
    return image.with_array(np.where(mask.array != 0, image.array, image.array.dtype.type(air)))


def brain(volume: Volume) -> Volume:
    """The brain in T1-weighted MR with its skull, by deepbet: a mask on the volume's grid. Takes seconds and 1 GB.

    Args:
        volume: T1-weighted MR of a whole head; on other images the network was not trained.

    Returns:
        uint8, 1 in the brain (with CSF around it and in it), unit `label`.

    Raises:
        InputError: if deepbet is not installed or sees no brain.

    Source:
        Fisch et al. 2024, "deepbet: Fast brain extraction of T1-weighted MRI using convolutional neural networks",
        Computers in Biology and Medicine 179.
    """
    net = _deepbet()
    upright = volume.without_padding().reorient("RAS")
    try:
        shares = net.run_model(np.ascontiguousarray(upright.array, dtype=np.float32))
        found = net.postprocess(shares > 0.5)
    except (AssertionError, ValueError) as error:
        raise InputError("deepbet sees no brain in the image; it knows T1-weighted MR of whole heads") from error
    return Volume(np.asarray(found > 0, dtype=np.uint8), upright.grid, "label").reorient(volume.grid.orientation)


def _deepbet() -> Any:
    try:
        from deepbet.bet import BrainExtraction
    except ModuleNotFoundError:
        raise InputError("deepbet is not installed: pip install 'medgan[features]'") from None
    return BrainExtraction(no_gpu=True)


def _above_noise(array: npt.NDArray[Any]) -> float:
    """Four times the noise of the air, which fills most of what Otsu's threshold calls dark; at most that threshold.

    Dim tissue lies between. The median of Rayleigh's distribution is 1.18 σ above its lower end.
    """
    otsu, low = dark_threshold(array), float(array.min())
    noise = (float(np.median(array[array <= otsu])) - low) / np.sqrt(2 * np.log(2))
    return float(min(otsu, low + max(_NOISES * noise, _LEAST_OF_OTSU * (otsu - low))))


def _without_sheets(dense: Mask, grid: Grid) -> Mask:
    """Where sheets are not: by a look at every third millimetre."""
    factors = [max(1, round(_COARSE_MM / spacing)) for spacing in grid.spacing_mm]
    coarse = dense[tuple(slice(None, None, factor) for factor in factors)]
    spacing = np.multiply(grid.spacing_mm, factors)
    thick = _largest(_opened(coarse, spacing))
    if not thick.any():
        return np.ones_like(dense)
    reach = _eroded_mm(spacing) + _COARSE_MM / 2
    around = np.asarray(ndimage.distance_transform_edt(~thick, sampling=spacing) <= reach)
    kept = around | _small_parts(coarse & ~around, float(np.prod(spacing)))
    for axis, factor in enumerate(factors):
        kept = np.repeat(kept, factor, axis=axis)
    return kept[tuple(map(slice, dense.shape))]


def _opened(mask: Mask, spacing_mm: npt.NDArray[np.float64]) -> Mask:
    """Without what is thinner than a ball; the ends of the image are open."""
    padded = np.pad(mask, 3, mode="edge")
    core = ndimage.distance_transform_edt(padded, sampling=spacing_mm) > _eroded_mm(spacing_mm)
    return np.asarray(core[3:-3, 3:-3, 3:-3])


def _eroded_mm(spacing_mm: npt.NDArray[np.float64]) -> float:
    """More than a voxel, from whose middle the next one is always as far."""
    return max(_THIN_MM / 2, 1.01 * float(spacing_mm.max()))


def _small_parts(mask: Mask, voxel_mm3: float) -> Mask:
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel()) * voxel_mm3 / 1000
    sizes[0] = np.inf
    return np.asarray(sizes[labels] <= _EAR_ML)


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = sum(np.bincount(plane.ravel(), minlength=count + 1) for plane in labels)  # of all at once it copies them
    return np.asarray(labels == np.argmax(np.asarray(sizes)[1:]) + 1)


def _filled(mask: Mask, grid: Grid) -> Mask:
    """Holes in space, then those that an axial slice shows closed."""
    upright = next(axis for axis, side in enumerate(grid.orientation) if side in "IS")
    found = _without_holes(mask, (0, 1, 2))
    return _without_holes(found, tuple(axis for axis in range(3) if axis != upright))


def _without_holes(mask: Mask, axes: tuple[int, ...]) -> Mask:
    """What no way along these axes leads out of is filled."""
    cross = ndimage.generate_binary_structure(3, 1)
    for axis in {0, 1, 2} - {*axes}:
        cross.swapaxes(0, axis)[[0, 2]] = False
    labels, count = ndimage.label(~mask, cross)
    is_open = np.zeros(count + 1, dtype=bool)
    for axis in axes:
        is_open[labels.swapaxes(0, axis)[[0, -1]]] = True
    is_open[0] = False
    return np.stack([~is_open[plane] for plane in labels])


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whole numbers in range for integers; for others what does not become infinite."""
    if np.issubdtype(dtype, np.integer):
        return value.is_integer() and bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.array(value).astype(dtype)))
