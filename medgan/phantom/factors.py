"""Images of an organ with or without a lesion, drawn from known factors, and the factors measured back from images.

What a sampler of images ought to reproduce is known here to the last number: the histograms of the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.stats import ks_2samp
from torch import Tensor

from medgan.errors import InputError
from medgan.imageset import ImageSet

__all__ = ["CLASSES", "Factors", "draw_factors", "factor_distances", "factor_images", "measure", "render"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Mask = Literal["", "organ", "lesion"]
CLASSES = ("healthy", "lesion")
BACKGROUND, ORGAN = -0.8, -0.3
EDGE_PX = 0.4
LESION_WIDTH = 0.08  # standard deviation of a lesion as a share of the shortest side
SMOOTH_SHARE = 0.8  # of the variance of the texture; the rest is white
SMOOTH_PX = 1.0
LEAST_SIZE = 12


@dataclass(frozen=True, eq=False)
class Factors:
    """What N images of D axes were drawn from, or what was measured in them; NaN for the lesion of a healthy image.

    Args:
        radius_px: (N,) of the organ, the geometric mean of its half axes.
        stretch: (N,) half axis along the first axis, in units of `radius_px`; the others are alike.
        centre_px: (N, D) of the organ.
        lesion: (N,) whether there is one.
        contrast: (N,) of the lesion's middle to the organ, in units of the image.
        lesion_px: (N, D) place of the lesion's middle.
    """

    radius_px: Floats
    stretch: Floats
    centre_px: Floats
    lesion: Bools
    contrast: Floats
    lesion_px: Floats

    def __len__(self) -> int:
        return len(self.radius_px)

    def half_axes_px(self) -> Floats:
        """(N, D) half axes of the organs."""
        others = self.centre_px.shape[1] - 1
        return np.stack([self.stretch] + [self.stretch ** (-1 / others)] * others, axis=1) * self.radius_px[:, None]

    def columns(self) -> dict[str, Floats]:
        """Every factor as a list of numbers by its name; those of lesions leave the healthy images out.

        Example:
            >>> list(draw_factors(4, size=32).columns())[2:]
            ['centre_px_0', 'centre_px_1', 'lesion', 'contrast', 'lesion_px_0', 'lesion_px_1']
        """
        table: dict[str, Floats] = {}
        for field in fields(self):
            values = np.asarray(getattr(self, field.name), float)
            split = {f"{field.name}_{axis}": column for axis, column in enumerate(values.T)} if values.ndim > 1 else {}
            table |= split or {field.name: values}
        return {name: column[~np.isnan(column)] for name, column in table.items()}


def factor_images(
    num: int,
    *,
    size: int | Sequence[int],
    spatial_dims: int = 2,
    seed: int = 0,
    lesion_share: float = 0.5,
    contrast: tuple[float, float] = (0.3, 0.8),
    texture: float = 0.04,
    mask: Mask = "",
) -> ImageSet:
    """Images of an ellipse with a soft edge, low texture and, in some, a Gaussian lesion; their factors are known.

    The same arguments give the same images to the bit, and `draw_factors` the factors; a smaller `num` gives the
    first of them. Patients have one image or two, of one organ and one class. Another seed gives other patients.

    Args:
        num: of images.
        size: pixels along each axis, or along every one of `spatial_dims`; 12 or more.
        spatial_dims: 2 or 3, where `size` is one number.
        seed: which patients.
        lesion_share: share of patients with a lesion, evenly spread over their numbers.
        contrast: least and greatest contrast of a lesion.
        texture: standard deviation of the texture; the lower the contrast beside it, the harder a lesion is to see.
        mask: `organ` or `lesion` gives a second channel, 1 where it is and −1 elsewhere.

    Returns:
        Images (N, 1 or 2, X, Y[, Z]) with the conditions `class` (`healthy`, `lesion`) and `radius_px`.

    Raises:
        InputError: if a number is out of its range.

    Example:
        >>> images = factor_images(4, size=(24, 32), seed=1)
        >>> images.x.shape, images.patients
        (torch.Size([4, 1, 24, 32]), ['F1-0000', 'F1-0001', 'F1-0001', 'F1-0002'])
        >>> images.conditions["class"]
        ['healthy', 'lesion', 'lesion', 'healthy']
    """
    shape = _shape(size, spatial_dims)
    factors = draw_factors(num, size=shape, seed=seed, lesion_share=lesion_share, contrast=contrast)
    owners = _owners(num, seed)
    return ImageSet(
        x=render(factors, shape, texture=texture, seed=seed, mask=mask),
        names=[f"F{seed}-{patient:04d}-{image}" for patient, image in owners],
        patients=[f"F{seed}-{patient:04d}" for patient, _ in owners],
        conditions={
            "class": [CLASSES[int(ill)] for ill in factors.lesion],
            "radius_px": [f"{radius:.4f}" for radius in factors.radius_px],
        },
    )


def draw_factors(
    num: int,
    *,
    size: int | Sequence[int],
    spatial_dims: int = 2,
    seed: int = 0,
    lesion_share: float = 0.5,
    contrast: tuple[float, float] = (0.3, 0.8),
) -> Factors:
    """The factors of `factor_images` with the same arguments.

    All are even between limits: radii between 0.24 and 0.34 of the shortest side, stretch between 0.85 and 1.18,
    centres within ±0.08 of each side around its middle, contrasts between theirs; lesions lie in the inner half.

    Raises:
        InputError: if a number is out of its range.

    Example:
        >>> draw_factors(3, size=32, contrast=(0.5, 0.5)).contrast.tolist()
        [nan, 0.5, nan]
    """
    shape = np.array(_shape(size, spatial_dims))
    _refuse_odd_numbers(num, seed, lesion_share, contrast)
    owners = _owners(num, seed)
    ill = np.array([_is_ill(patient, lesion_share) for patient, _ in owners])
    organ = np.array([_patient_rng(seed, patient).random(3)[1:] for patient, _ in owners])
    draws = [_image_rng(seed, patient, image) for patient, image in owners]
    place = np.array([rng.random(len(shape)) for rng in draws])
    height = np.array([rng.random() for rng in draws])
    offset = np.array([_in_ball(rng, len(shape)) for rng in draws])
    healthy = Factors(
        radius_px=shape.min() * (0.24 + 0.10 * organ[:, 0]),
        stretch=np.exp(np.log(1.18) * (2 * organ[:, 1] - 1)),
        centre_px=(shape - 1) / 2 + 0.08 * shape * (2 * place - 1),
        lesion=ill,
        contrast=np.where(ill, contrast[0] + (contrast[1] - contrast[0]) * height, np.nan),
        lesion_px=np.full((num, len(shape)), np.nan),
    )
    spots = healthy.centre_px + 0.5 * healthy.half_axes_px() * offset
    return Factors(**{**vars(healthy), "lesion_px": np.where(ill[:, None], spots, np.nan)})


def render(factors: Factors, size: Sequence[int], *, texture: float = 0.04, seed: int = 0, mask: Mask = "") -> Tensor:
    """(N, 1 or 2, X, Y[, Z]) images in [-1, 1] of these factors.

    Args:
        factors: of N images.
        size: pixels along each axis.
        texture: standard deviation of the texture.
        seed: of the texture; image n has its own.
        mask: `organ` or `lesion` gives a second channel, 1 where it is and −1 elsewhere; a lesion's ends at half
            its contrast.

    Raises:
        InputError: if the texture is negative.
    """
    if texture < 0:
        raise InputError(f"texture {texture}: is a standard deviation; give 0 or more")
    points = np.indices(size).astype(np.float64)
    halves = factors.half_axes_px()
    stack = np.empty((len(factors), 2 if mask else 1, *size), np.float32)
    for number in range(len(factors)):
        organ = _organ(points, factors.centre_px[number], halves[number])
        spot = _spot(points, factors.lesion_px[number]) if factors.lesion[number] else np.zeros(organ.shape)
        height = np.nan_to_num(factors.contrast[number])
        image = BACKGROUND + organ * (ORGAN - BACKGROUND + height * spot)
        image += texture * _texture(organ.shape, np.random.default_rng([seed, number, 3]))
        stack[number, 0] = image.clip(-1, 1)
        if mask:
            stack[number, 1] = np.where((organ if mask == "organ" else organ * spot) > 0.5, 1, -1)
    return torch.from_numpy(stack)


def measure(x: Tensor, *, least_contrast: float = 0.2) -> Factors:
    """The factors of images of `factor_images`, estimated from the images alone.

    The organ is the largest connected part above the middle between background and organ; of its pixels the number
    gives the radius, the mean the centre, the second moments the stretch. A lesion of the known width is fitted by
    least squares, together with the level of the organ, at every pixel inside; the best fit of positive contrast is
    the lesion if its contrast reaches `least_contrast`.

    On images drawn with the defaults, 16 pixels wide or more, in 2-D or 3-D, fewer than one lesion in 100 images is
    missed or made up, and 95 % of radii are within 0.2 px of the truth, of stretches within 0.05, of centres within
    0.25 px, of contrasts within 0.12 and of places of lesions within 0.5 px.

    Args:
        x: (N, C, X, Y[, Z]) images in [-1, 1], of which the first channel is measured.
        least_contrast: below it an image counts as healthy.

    Returns:
        The factors; all of them NaN where there is no organ at all.
    """
    rows = [_measured(image, least_contrast) for image in x[:, 0].double().numpy()]
    radius, stretch, centre, contrast, place = (np.array(column) for column in zip(*rows, strict=True))
    return Factors(radius, stretch, centre, ~np.isnan(contrast), contrast, place)


def factor_distances(a: Factors, b: Factors) -> dict[str, float]:
    """Kolmogorov–Smirnov distance between the histograms of each factor, 0 (alike) to 1 (apart).

    A factor that neither has (no lesion in either) is left out; one that a single side has is 1 apart.

    Example:
        >>> distances = factor_distances(draw_factors(500, size=32), draw_factors(500, size=32, seed=1))
        >>> max(distances.values()) < 0.15
        True
    """
    pairs = {name: (column, b.columns()[name]) for name, column in a.columns().items()}
    return {
        name: float(ks_2samp(ours, theirs).statistic) if len(ours) and len(theirs) else 1.0
        for name, (ours, theirs) in pairs.items()
        if len(ours) or len(theirs)
    }


def _shape(size: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    shape = (size,) * spatial_dims if isinstance(size, int) else tuple(size)
    if len(shape) not in {2, 3} or min(shape) < LEAST_SIZE:
        raise InputError(f"size {shape} of phantoms: give 2 or 3 axes of {LEAST_SIZE} pixels or more")
    return shape


def _refuse_odd_numbers(num: int, seed: int, lesion_share: float, contrast: tuple[float, float]) -> None:
    if num < 1 or seed < 0:
        raise InputError(f"{num} phantoms of seed {seed}: give 1 or more, and a seed of 0 or more")
    if not 0 <= lesion_share <= 1:
        raise InputError(f"lesion_share {lesion_share}: give a share between 0 and 1")
    if not 0 < contrast[0] <= contrast[1] <= 1 - ORGAN:
        raise InputError(f"contrast {contrast}: give a least and a greatest, above 0 and up to {1 - ORGAN}")


def _owners(num: int, seed: int) -> list[tuple[int, int]]:
    """The patient and the number of each image."""
    owners: list[tuple[int, int]] = []
    patient = 0
    while len(owners) < num:
        has_two = _patient_rng(seed, patient).random() < 0.5
        owners += [(patient, 0), (patient, 1)] if has_two else [(patient, 0)]
        patient += 1
    return owners[:num]


def _is_ill(patient: int, share: float) -> bool:
    """Evenly spread: every second patient for a share of a half."""
    return int((patient + 1) * share + 1e-9) > int(patient * share + 1e-9)


def _patient_rng(seed: int, patient: int) -> np.random.Generator:
    return np.random.default_rng([seed, patient])


def _image_rng(seed: int, patient: int, image: int) -> np.random.Generator:
    return np.random.default_rng([seed, patient, image, 1])


def _in_ball(rng: np.random.Generator, dims: int) -> Floats:
    """A random point of the unit ball, evenly."""
    direction = rng.standard_normal(dims)
    return np.asarray(direction / np.linalg.norm(direction) * rng.random() ** (1 / dims))


def _along(points: Floats, vector: Floats) -> Floats:
    """A vector (D,), to be used with points (D, X, Y[, Z])."""
    return vector.reshape(-1, *[1] * (points.ndim - 1))


def _organ(points: Floats, centre: Floats, half_axes: Floats) -> Floats:
    """1 inside, 0 outside, and a logistic edge of EDGE_PX between."""
    distance = np.sqrt((((points - _along(points, centre)) / _along(points, half_axes)) ** 2).sum(axis=0))
    depth_px = (1 - distance) * half_axes.prod() ** (1 / len(half_axes))
    return np.asarray(1 / (1 + np.exp(-depth_px / EDGE_PX)))


def _width(size: Sequence[int]) -> float:
    return LESION_WIDTH * min(size)


def _spot(points: Floats, middle: Floats) -> Floats:
    squares = ((points - _along(points, middle)) ** 2).sum(axis=0)
    return np.asarray(np.exp(-squares / (2 * _width(points.shape[1:]) ** 2)))


def _texture(size: Sequence[int], rng: np.random.Generator) -> Floats:
    """Standard deviation 1: smooth blobs and a little white noise."""
    smooth = ndimage.gaussian_filter(rng.standard_normal(size), SMOOTH_PX, mode="wrap")
    white = rng.standard_normal(size)
    return np.asarray(np.sqrt(SMOOTH_SHARE) * smooth / smooth.std() + np.sqrt(1 - SMOOTH_SHARE) * white)


def _measured(image: Floats, least_contrast: float) -> tuple[float, float, Floats, float, Floats]:
    """Radius, stretch and centre of the organ, contrast and place of the lesion."""
    nowhere = np.full(image.ndim, np.nan)
    organ = _largest_part(image > (BACKGROUND + ORGAN) / 2)
    if organ.sum() < 2**image.ndim:
        return np.nan, np.nan, nowhere, np.nan, nowhere
    places = np.argwhere(organ)
    variances = places.var(axis=0) + 1 / 12  # a pixel has a width of its own
    dims = image.ndim
    ratio = variances[0] / np.exp(np.log(variances[1:]).mean())
    contrast, place = _fitted_lesion(image, organ)
    found = contrast >= least_contrast
    return (
        _ball_radius(len(places), dims),
        float(ratio ** ((dims - 1) / (2 * dims))),
        places.mean(axis=0),
        contrast if found else np.nan,
        place if found else nowhere,
    )


def _largest_part(inside: Bools) -> Bools:
    parts, count = ndimage.label(inside)
    if count == 0:
        return inside
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def _ball_radius(volume: float, dims: int) -> float:
    return float(np.sqrt(volume / np.pi) if dims == 2 else np.cbrt(3 * volume / (4 * np.pi)))


def _fitted_lesion(image: Floats, organ: Bools) -> tuple[float, Floats]:
    """Contrast and place of the Gaussian which, over a level of its own, explains most of the organ's inside.

    At each place the least-squares fit of level + height · Gaussian has a closed form in five sums, four of which
    are convolutions with the Gaussian or its square.
    """
    inside = ndimage.binary_erosion(organ, iterations=1)
    weights = inside.astype(float)
    width = _width(image.shape)
    bells = _bell_sums(weights, width)
    squares = _bell_sums(weights, width / np.sqrt(2))
    products = _bell_sums(weights * image, width)
    count, total = weights.sum(), (weights * image).sum()
    spread = squares - bells**2 / max(count, 1)
    height = (products - bells * total / max(count, 1)) / np.maximum(spread, 1e-9)
    gain = np.where(inside & (height > 0), height**2 * spread, -1)
    best = np.unravel_index(int(gain.argmax()), gain.shape)
    return float(height[best]) if gain[best] > 0 else 0.0, np.array(best, float) + _vertex(gain, best)


def _bell_sums(values: Floats, width: float) -> Floats:
    """Sums of values times a Gaussian of height 1 around every pixel."""
    size = (2 * np.pi * width**2) ** (values.ndim / 2)
    return np.asarray(size * ndimage.gaussian_filter(values, width, mode="constant"))


def _vertex(gain: Floats, best: tuple[np.intp, ...]) -> Floats:
    """How far from the best pixel the parabola through it and its neighbours peaks, per axis."""
    shift = np.zeros(gain.ndim)
    for axis, middle in enumerate(best):
        line = gain[tuple(slice(None) if other == axis else place for other, place in enumerate(best))]
        if 0 < middle < len(line) - 1 and min(line[middle - 1], line[middle + 1]) > 0:
            left, top, right = line[middle - 1 : middle + 2]
            shift[axis] = 0.5 * (left - right) / min(left - 2 * top + right, -1e-12)
    return shift
