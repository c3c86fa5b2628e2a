"""Volume ↔ network tensor: `to_network`, and right below it the way back, `from_network`.

Geometry inverts by grid, intensity by settings; both are saved with the run, and there is no history of transforms.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy import ndimage
from skimage.filters import threshold_otsu

from medgan.errors import InputError
from medgan.resample import resample
from medgan.settings import Settings
from medgan.volume import Grid, Volume, slabs

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BACKGROUND",
    "NORMALISED_UNIT",
    "Intensity",
    "Prep",
    "SamplingPrep",
    "check",
    "clipped_share",
    "dark_threshold",
    "foreground",
    "from_network",
    "in_contract_unit",
    "in_source_unit",
    "network_grid",
    "to_channels",
    "to_network",
]

Array = npt.NDArray[Any]
BACKGROUND = -1.0  # of the network's range: beyond the ends of a scan, and where a contrast is missing
NORMALISED_UNIT = "normalised"
MEDIAN_IS = 1000.0
AIR_HU = -200.0
CAP_PERCENTILE = 98
_ROLE = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("a", "b", "mask", "case", "patient", "split")


class Intensity(Settings):
    """What the numbers of one image mean, and which of them reach the network's [-1, 1].

    Either `range` (fixed, in `unit`: CT, SUV, quantitative maps) or `times_median` (MR, whose numbers have no unit:
    each image is scaled by the median of its own foreground). With `times_median` the run's output unit is
    `normalised`: the median of an image's foreground is 1000.

    Args:
        modality: DICOM's code (`MR`, `CT`, `PT`).
        unit: of the files and, with `range`, of the output.
        range: lowest and highest value kept, in `unit`; what lies outside is clipped.
        times_median: lowest and highest value kept, as multiples of the median of the foreground.
    """

    modality: str
    unit: str = "a.u."
    range: tuple[float, float] | None = None
    times_median: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one_window(self) -> Intensity:
        if (self.range is None) == (self.times_median is None):
            raise ValueError("give either range (fixed, in unit) or times_median (of each image)")
        low, high = self.range or self.times_median or (0, 0)
        if low >= high:
            raise ValueError(f"the lower end {low:g} must be below the upper end {high:g}")
        return self

    @property
    def output_unit(self) -> str:
        """Unit of what `from_network` returns."""
        return self.unit if self.range else NORMALISED_UNIT

    @property
    def output_range(self) -> tuple[float, float]:
        """The values, in `output_unit`, of -1 and 1: a property of the run, never of the case."""
        low, high = self.times_median or (0, 0)
        return self.range or (low * MEDIAN_IS, high * MEDIAN_IS)


class Prep(Settings):
    """The contract of a run on both sides of the network.

    Args:
        a: the source images.
        b: the target images.
        contrasts: further sources by their role in the table of cases, such as `t2`: images of the same patient on the
            grid of a, which the network sees as channels behind a, in the order of the alphabet.
        contrast_dropout: probability that a source is blanked in a training patch, never all of them. Above 0 a scan
            may be translated that lacks sources, and trained on that lacks some besides a.
        spacing_mm: voxel spacing that the network sees, in the order of its axes; None keeps each image's own.
        axes: the sides to which the network's axes run; `PLS` shows it axial slices as viewers do, row by row.
    """

    a: Intensity
    b: Intensity
    contrasts: dict[str, Intensity] = Field(default_factory=dict)
    contrast_dropout: float = Field(default=0, ge=0, le=0.9)
    spacing_mm: tuple[float, float, float] | None = Field(default=None)
    axes: str = "RAS"

    def towards(self, to: str) -> Prep:
        """The contract of a translation to "b", or with both sides exchanged to "a"."""
        return self if to == "b" else Prep(a=self.b, b=self.a, spacing_mm=self.spacing_mm, axes=self.axes)

    @property
    def sources(self) -> dict[str, Intensity]:
        """What the network sees, by role, in the order of its channels."""
        return {"a": self.a, **dict(sorted(self.contrasts.items()))}

    @property
    def required(self) -> tuple[str, ...]:
        """The roles of the sources that every training case must have."""
        return ("a",) if self.contrast_dropout else tuple(self.sources)

    def refuse_missing(self, roles: Collection[str], name: str) -> None:
        """Refuse a case that lacks sources without which the run cannot do.

        Raises:
            InputError: naming the case and what it lacks.
        """
        missing = [role for role in self.sources if role not in roles]
        if len(missing) == len(self.sources):
            raise InputError(f"{name}: has no source; at least one of {', '.join(self.sources)} is needed")
        if missing and not self.contrast_dropout:
            raise InputError(
                f"{name}: has no {' and no '.join(missing)}, and all of {', '.join(self.sources)} are needed; "
                "add what is missing (--contrast for one volume, a column of a table), or do without by a run that "
                "was trained with prep.contrast_dropout above 0"
            )

    @model_validator(mode="after")
    def _contrasts_are_roles(self) -> Prep:
        wrong = [role for role in self.contrasts if role in _TAKEN or not _ROLE.fullmatch(role)]
        if wrong:
            raise ValueError(
                f"contrasts are named by a column of the table in lower case, other than {', '.join(_TAKEN)}; "
                f"seen {', '.join(map(repr, wrong))}"
            )
        if self.contrast_dropout and not self.contrasts:
            raise ValueError("contrast_dropout: there is one source alone, which is always seen; set it to 0")
        return self

    @model_validator(mode="after")
    def _positive(self) -> Prep:
        if self.spacing_mm and min(self.spacing_mm) <= 0:
            raise ValueError("spacing_mm must be positive")
        return self

    @model_validator(mode="after")
    def _three_sides(self) -> Prep:
        _refuse_axes(self.axes)
        return self


class SamplingPrep(Settings):
    """The contract of a run that makes images of nothing.

    Args:
        images: what it makes, by role in the table of cases: several are channels of one image, in this order.
        mask: the role of a label image that it makes as well, as a last channel: above 0 or not.
        spacing_mm: voxel spacing of what it sees and makes, in the order of its axes.
        axes: the sides to which the network's axes run.
    """

    images: dict[str, Intensity] = Field(min_length=1)
    mask: str | None = None
    spacing_mm: tuple[float, float, float]
    axes: str = "RAS"

    def of_samples(self) -> SamplingPrep:
        """The contract by which samples of a run are read: they are in the unit of its output, and not scaled again."""
        images = {
            role: Intensity(modality=one.modality, unit=one.output_unit, range=one.output_range)
            for role, one in self.images.items()
        }
        return self.model_copy(update={"images": images})

    @property
    def roles(self) -> tuple[str, ...]:
        """Of the channels, in their order."""
        return (*self.images, *([self.mask] if self.mask else []))

    @model_validator(mode="after")
    def _sound(self) -> SamplingPrep:
        wrong = [role for role in self.roles if role in ("case", "patient", "split") or not _ROLE.fullmatch(role)]
        if wrong or len(set(self.roles)) < len(self.roles):
            raise ValueError(f"images and mask are different columns of the table, in lower case; seen {self.roles}")
        if min(self.spacing_mm) <= 0:
            raise ValueError("spacing_mm must be positive")
        _refuse_axes(self.axes)
        return self


def to_network(
    volume: Volume,
    intensity: Intensity,
    spacing_mm: tuple[float, float, float] | None = None,
    axes: str = "RAS",
) -> Tensor:
    """A volume as the network sees it: the run's axes and spacing, values in [-1, 1].

    Returns:
        (1, X, Y, Z) float32 on `network_grid(volume.grid, spacing_mm)`.

    Example:
        >>> ct = Volume(np.array([[[-1000, 0, 3000]]], dtype=np.int16), Grid.regular((1, 1, 3)), "HU", "CT")
        >>> to_network(ct, Intensity(modality="CT", unit="HU", range=(-1000, 1000))).flatten().tolist()
        [-1.0, 0.0, 1.0]
    """
    import torch

    low, high = _window(volume, intensity)
    placed = resample(volume, network_grid(volume.grid, spacing_mm, axes))
    scaled = np.empty(placed.array.shape, np.float32)
    np.subtract(placed.array, low, out=scaled, dtype=np.float32, casting="same_kind")
    scaled *= np.float32(2 / (high - low))
    scaled -= 1
    return torch.from_numpy(scaled.clip(-1, 1, out=scaled))[None]


def to_channels(volumes: Mapping[str, Volume], prep: Prep) -> Tensor:
    """All sources of a case, which lie on one grid, as the network sees them; background where one is missing.

    Returns:
        (C, X, Y, Z) float32, a channel for each of `prep.sources`.

    Raises:
        InputError: if one is missing and may not be.
    """
    import torch

    prep.refuse_missing(volumes, "the input")
    grid = network_grid(next(iter(volumes.values())).grid, prep.spacing_mm, prep.axes)
    channels = [
        to_network(volumes[role], intensity, prep.spacing_mm, prep.axes)
        if role in volumes
        else torch.full((1, *grid.shape), BACKGROUND)
        for role, intensity in prep.sources.items()
    ]
    return torch.cat(channels) if len(channels) > 1 else channels[0]


def from_network(
    x: Tensor,
    like: Volume,
    intensity: Intensity,
    spacing_mm: tuple[float, float, float] | None = None,
    axes: str = "RAS",
    *,
    overwrite: bool = False,
) -> Volume:
    """The network's image in the unit of the run, on the very grid of `like`.

    Args:
        x: (1, X, Y, Z) in [-1, 1] on `network_grid(like.grid, spacing_mm)`.
        like: the volume that went in; its grid and header are kept.
        intensity: of the target.
        spacing_mm, axes: as given to `to_network`.
        overwrite: whether the values of `x` may be changed on the way: less memory for what is not needed again.

    Returns:
        float32 values in `intensity.output_unit`, within `intensity.output_range`.
    """
    low, high = intensity.output_range
    given = x[0].float().cpu().numpy()
    values = given.clip(-1, 1, out=given if overwrite else None)
    values += 1
    values *= np.float32((high - low) / 2)
    values += np.float32(low)
    seen = Volume(values, network_grid(like.grid, spacing_mm, axes), intensity.output_unit, intensity.modality)
    placed = resample(seen, like.grid, overwrite=True)
    return replace(placed, grid=like.grid, header=like.header, synthetic=like.synthetic)


def network_grid(grid: Grid, spacing_mm: tuple[float, float, float] | None, axes: str = "RAS") -> Grid:
    """Axes that run to those sides; the outer faces of the outermost voxels stay where they are."""
    ras = Volume(np.broadcast_to(np.uint8(0), grid.shape), grid).reorient(axes).grid
    if spacing_mm is None:
        return ras
    extent = np.array(ras.shape) * ras.spacing_mm
    shape = np.maximum(np.rint(extent / spacing_mm), 1).astype(int)
    scale = extent / shape / ras.spacing_mm
    affine = ras.affine.copy()
    affine[:3, 3] = ras.to_world((scale - 1) / 2)
    affine[:3, :3] *= scale
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def foreground(array: Array) -> npt.NDArray[np.bool_]:
    """The patient without the air around: Otsu's threshold, the largest component, holes filled. (X, Y, Z) bool."""
    if array.min() == array.max():
        return np.ones(array.shape, dtype=bool)
    mask = array > dark_threshold(array)
    labels, count = ndimage.label(mask)
    if count > 1:
        sizes = np.zeros(count + 1, np.int64)
        for part in slabs(labels.shape):  # of 64 bits a voxel where they are counted
            sizes += np.bincount(labels[part].ravel(), minlength=count + 1)
        mask = labels == sizes[1:].argmax() + 1
    return np.asarray(ndimage.binary_fill_holes(mask), dtype=bool)


def in_contract_unit(volume: Volume, intensity: Intensity) -> Volume:
    """A real image in the unit of a run's output, so that both can be compared; nothing is clipped."""
    if intensity.range:
        return volume
    scale = np.float32(MEDIAN_IS / _median(volume))
    return volume.with_array(volume.array.astype(np.float32) * scale, unit=NORMALISED_UNIT)


def in_source_unit(volume: Volume, source: Volume, intensity: Intensity) -> Volume:
    """An image in the unit of a contract in that of a source, as `in_contract_unit` undone for it."""
    if intensity.range:
        return volume
    scale = np.float32(_median(source) / MEDIAN_IS)
    return volume.with_array(np.multiply(volume.array, scale, dtype=np.float32), unit=source.unit)


def clipped_share(volume: Volume, intensity: Intensity) -> float:
    """Share (0..1) of the foreground voxels that lie outside the window and are clipped."""
    low, high = _window(volume, intensity)
    values = volume.array[foreground(volume.array)]
    return float(np.mean((values < low) | (values > high)))


def check(volume: Volume, intensity: Intensity, name: str) -> None:
    """Refuse an image of another modality or unit than the contract's.

    A file that does not say what it holds (plain NIfTI) is believed to hold what the contract says, unless Hounsfield
    units are expected and there is no air in it.

    Raises:
        InputError: naming what was seen and what is accepted.
    """
    if volume.modality and volume.modality != intensity.modality:
        raise InputError(f"{name}: its modality is {volume.modality}, accepted is {intensity.modality}")
    if volume.unit not in ("a.u.", intensity.unit):
        raise InputError(f"{name}: its unit is {volume.unit}, accepted is {intensity.unit}")
    if intensity.unit == "HU" and volume.unit != "HU" and volume.array.min() > AIR_HU:
        raise InputError(
            f"{name}: its lowest value is {volume.array.min():g} and it names no unit, so these are hardly HU "
            "(air is -1000); convert it from DICOM or subtract 1024"
        )


def _refuse_axes(axes: str) -> None:
    if [sum(side in pair for side in axes) for pair in ("LR", "AP", "IS")] != [1, 1, 1] or len(axes) != 3:
        raise ValueError(f"axes are three letters, one of each pair R/L, A/P, S/I; seen {axes!r}")


def dark_threshold(array: Array) -> float:
    """Otsu's, of values capped below the brightest few: vessels and metal must not draw it above the tissue."""
    sample = (array[::2, ::2, ::2] if array.size > 1e6 else array).ravel()
    cap = sample.dtype.type(np.percentile(sample, CAP_PERCENTILE))  # integers stay so, and get bins of their own
    capped = np.minimum(sample, cap)
    return float(threshold_otsu(capped if capped.max() > capped.min() else sample))


def _window(volume: Volume, intensity: Intensity) -> tuple[np.float32, np.float32]:
    scale = 1.0 if intensity.range else _median(volume)
    low, high = intensity.range or intensity.times_median or (0, 0)
    return np.float32(low * scale), np.float32(high * scale)


def _median(volume: Volume) -> float:
    """Of the foreground: it hardly feels how much scalp, fat or vessel an image holds, as high percentiles do."""
    median = float(np.median(volume.array[foreground(volume.array)]))
    if not median > 0:
        raise InputError(
            f"the median of the image's foreground is {median:g}, by which it cannot be scaled; set range instead"
        )
    return median
