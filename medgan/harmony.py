"""Bring MR of several scanners to one scale of intensity: percentiles, z-scores, Nyúl's landmarks, white stripe.

All have one shape: `METHOD(...).fitted(volumes, masks)` gives a state, `state.apply(volume, mask)` a float32 volume in
the unit `normalised:METHOD`, and `from_json(state.to_json())` the same state again. Only Nyúl's learns from volumes;
the others look at each image alone, and their states are their settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from scipy.ndimage import gaussian_filter1d

from medgan.errors import GeometryError, InputError
from medgan.settings import Settings
from medgan.volume import Volume

__all__ = ["Harmony", "Nyul", "Percentile", "WhiteStripe", "ZScore", "from_json"]

Values = npt.NDArray[np.float64]
_LEAST_VOLUMES = 3
_LEAST_VOXELS = 1000
_LEAST_RANK = 0.6  # of the white matter among the voxels of a brain in T1
_SPREAD = 1e-6  # of values that differ at all, as a share of the largest


class Percentile(Settings):
    """Two percentiles in the mask become 0 and 1.

    Args:
        low, high: of the values in the mask, %.

    Example:
        >>> from medgan.volume import Grid
        >>> image = Volume(np.arange(1001.0).reshape(1001, 1, 1), Grid.regular((1001, 1, 1)))
        >>> all_of_it = image.with_array(np.ones_like(image.array))
        >>> float(Percentile(low=0, high=50).apply(image, all_of_it).array.max())
        2.0
    """

    name: Literal["percentile"] = "percentile"
    low: float = Field(default=1, ge=0, lt=100)
    high: float = Field(default=99, gt=0, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> Percentile:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self

    def fitted(self, volumes: Iterable[Volume], masks: Iterable[Volume]) -> Percentile:  # noqa: ARG002
        """Itself: nothing is learnt."""
        return self

    def apply(self, volume: Volume, mask: Volume) -> Volume:
        """The volume on the new scale, outside the mask as well.

        Raises:
            GeometryError: if the mask lies on another grid.
            InputError: if it holds hardly any voxels, or all of one value.
        """
        low, high = np.percentile(_inside(volume, mask), [self.low, self.high])
        return _scaled(volume, low, high - low, self.name)

    def to_json(self) -> dict[str, Any]:
        """The state in plain numbers."""
        return self.model_dump(mode="json")


class ZScore(Settings):
    """The mean in the mask becomes 0, the standard deviation 1."""

    name: Literal["zscore"] = "zscore"

    def fitted(self, volumes: Iterable[Volume], masks: Iterable[Volume]) -> ZScore:  # noqa: ARG002
        """Itself: nothing is learnt."""
        return self

    def apply(self, volume: Volume, mask: Volume) -> Volume:
        """As of `Percentile`."""
        values = _inside(volume, mask)
        return _scaled(volume, values.mean(), values.std(), self.name)

    def to_json(self) -> dict[str, Any]:
        """The state in plain numbers."""
        return self.model_dump(mode="json")


class WhiteStripe(Settings):
    """The mean of normal white matter becomes 0, the standard deviation of it 1.

    White matter is found by its peak in the smoothed histogram of the brain: in T1 the brightest peak, in T2 and FLAIR
    the highest one, as published. The stripe is what lies within ±`width` of that peak in rank. In FLAIR grey and white
    matter share one peak: the stripe holds both.

    Args:
        contrast: `t1`, `t2` or `flair`.
        width: half of the stripe, as a share (0..1) of the voxels.

    Source:
        Shinohara et al. 2014, "Statistical normalization techniques for magnetic resonance imaging", NeuroImage:
        Clinical 6. The histogram is smoothed by a Gaussian here, by a spline there.
    """

    name: Literal["white_stripe"] = "white_stripe"
    contrast: Literal["t1", "t2", "flair"]
    width: float = Field(default=0.05, gt=0, lt=0.5)

    def fitted(self, volumes: Iterable[Volume], masks: Iterable[Volume]) -> WhiteStripe:  # noqa: ARG002
        """Itself: nothing is learnt."""
        return self

    def apply(self, volume: Volume, mask: Volume) -> Volume:
        """As of `Percentile`; the mask is the brain.

        Raises:
            GeometryError, InputError: as of `Percentile`; and where white matter has no peak of its own in T1.
        """
        values = np.sort(_inside(volume, mask))
        rank = np.searchsorted(values, _peak(values, brightest=self.contrast == "t1")) / len(values)
        if self.contrast == "t1" and rank < _LEAST_RANK:
            raise InputError(
                f"white matter has no peak of its own: the brightest one lies above {rank:.0%} of the brain alone; "
                "where white matter is known, use zscore in a mask of it, else another method"
            )
        low, high = np.quantile(values, np.clip([rank - self.width, rank + self.width], 0, 1))
        stripe = values[(values >= low) & (values <= high)]
        return _scaled(volume, stripe.mean(), stripe.std(), self.name)

    def to_json(self) -> dict[str, Any]:
        """The state in plain numbers."""
        return self.model_dump(mode="json")


class Nyul(Settings):
    """Percentiles of each image become those of a cohort, and what lies between them is stretched evenly.

    Args:
        percentiles: the landmarks, increasing, %.
        scale: where they go, 0 to 100, of a fitted state; None before.

    Source:
        Nyúl and Udupa 1999, Magnetic Resonance in Medicine 42(6); Nyúl, Udupa, Zhang 2000, IEEE TMI 19(2).
    """

    name: Literal["nyul"] = "nyul"
    percentiles: tuple[float, ...] = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
    scale: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _increasing(self) -> Nyul:
        if len(self.percentiles) < 2 or min(np.diff(self.percentiles)) <= 0 or not 0 <= self.percentiles[0] < 100:
            raise ValueError(f"percentiles are two or more increasing numbers from 0 to 100; seen {self.percentiles}")
        if self.percentiles[-1] > 100:
            raise ValueError(f"percentiles end at 100; seen {self.percentiles[-1]:g}")
        if self.scale and (len(self.scale) != len(self.percentiles) or min(np.diff(self.scale)) <= 0):
            raise ValueError("a scale is as long as percentiles, and increasing")
        return self

    def fitted(self, volumes: Iterable[Volume], masks: Iterable[Volume]) -> Nyul:
        """The mean of the landmarks of all volumes, each brought to 0 and 100 by its first and last.

        Raises:
            GeometryError: if a mask lies on another grid than its volume.
            InputError: for fewer than three volumes; where landmarks coincide, as in a mask full of zeros.
        """
        return self.fitted_to([self.landmarks(volume, mask) for volume, mask in zip(volumes, masks, strict=True)])

    def fitted_to(self, rows: Sequence[Values]) -> Nyul:
        """As `fitted`, of the landmarks of each volume.

        Raises:
            InputError: for fewer than three volumes.
        """
        if len(rows) < _LEAST_VOLUMES:
            raise InputError(f"a standard scale needs at least {_LEAST_VOLUMES} volumes; seen {len(rows)}")
        ends = [(row - row[0]) / (row[-1] - row[0]) * 100 for row in rows]
        return self.model_copy(update={"scale": tuple(np.mean(ends, axis=0).tolist())})

    def apply(self, volume: Volume, mask: Volume) -> Volume:
        """The volume on the standard scale; beyond the landmarks the outermost pieces go on.

        Raises:
            GeometryError: if the mask lies on another grid.
            InputError: if the state is not fitted, or landmarks coincide.
        """
        if self.scale is None:
            raise InputError("Nyúl's method learns its scale from a cohort: call fitted(volumes, masks) first")
        seen, scale = self.landmarks(volume, mask), np.array(self.scale)
        array = volume.without_padding().array.astype(np.float64)
        found = np.interp(array, seen, scale)
        slopes = np.diff(scale)[[0, -1]] / np.diff(seen)[[0, -1]]
        found += np.minimum(array - seen[0], 0) * slopes[0] + np.maximum(array - seen[-1], 0) * slopes[1]
        return volume.with_array(found.astype(np.float32), unit=f"normalised:{self.name}")

    def to_json(self) -> dict[str, Any]:
        """The state in plain numbers."""
        return self.model_dump(mode="json")

    def landmarks(self, volume: Volume, mask: Volume) -> Values:
        """The percentiles of an image in its mask.

        Raises:
            GeometryError: if the mask lies on another grid.
            InputError: where they coincide, as in a mask full of zeros.
        """
        found = np.percentile(_inside(volume, mask), self.percentiles)
        if min(np.diff(found)) <= _SPREAD * float(np.abs(found).max()):
            raise InputError(
                "percentiles of the image coincide in the mask; is it full of zeros, or of few grey levels?"
            )
        return np.asarray(found)


Harmony = Annotated[Percentile | ZScore | WhiteStripe | Nyul, Field(discriminator="name")]
_ANY: TypeAdapter[Percentile | ZScore | WhiteStripe | Nyul] = TypeAdapter(Harmony)


def from_json(state: dict[str, Any]) -> Percentile | ZScore | WhiteStripe | Nyul:
    """A state as `to_json` wrote it.

    Raises:
        InputError: if it is none.
    """
    try:
        return _ANY.validate_python(state)
    except ValidationError as error:
        raise InputError(f"this is no state of a harmonisation: {error.errors()[0]['msg']}") from None


def _inside(volume: Volume, mask: Volume) -> Values:
    if not mask.grid.same_as(volume.grid):
        raise GeometryError(f"the mask is on {mask.grid.describe()}, the image on {volume.grid.describe()}")
    values = volume.without_padding().array[mask.array != 0].astype(np.float64)
    if len(values) < _LEAST_VOXELS:
        raise InputError(f"the mask holds {len(values)} voxels; at least {_LEAST_VOXELS} are needed for a scale")
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        raise InputError("the image is constant or not finite in the mask; it has no scale of its own")
    return np.asarray(values)


def _scaled(volume: Volume, zero: float, one: float, name: str) -> Volume:
    """(values − zero) / one."""
    if not one > 0:
        raise InputError("the values that make the scale are all the same; is the mask full of zeros?")
    array = (volume.without_padding().array.astype(np.float32) - np.float32(zero)) / np.float32(one)
    return volume.with_array(array, unit=f"normalised:{name}")


def _peak(values: Values, *, brightest: bool) -> float:
    """Of the smoothed histogram between the 0.5th and the 99.5th percentile: the last high peak, or the highest."""
    from scipy.signal import find_peaks  # it brings 45 MB along, of which most preparations need nothing

    low, high = np.percentile(values, [0.5, 99.5])
    counts, edges = np.histogram(values, bins=200, range=(low, high))
    smooth = gaussian_filter1d(counts.astype(np.float64), 4)
    middles = (edges[1:] + edges[:-1]) / 2
    places, _ = find_peaks(smooth, height=0.3 * smooth.max(), prominence=0.03 * smooth.max())
    best: Sequence[int] = places.tolist() if brightest and len(places) else [int(smooth.argmax())]
    return float(middles[best[-1]])
