"""Named sets of paired metrics, each with its range, so that numbers of two papers can be compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from medgan.metrics.errors import bias, gradient_error, mae, nmse, psnr, rmse, tolerant_mae
from medgan.metrics.image import (
    ms_ssim_2025,
    ms_ssim_2025_fixed,
    ms_ssim_2025_rescues,
    ssim_2023,
    ssim_2023_fixed,
    ssim_2023_rescues,
)
from medgan.metrics.information import nmi
from medgan.metrics.pairs import RANGE_2023, RANGE_2025, Array, Pair, Range, Spacing
from medgan.metrics.ssim import ms_ssim_2003, nc_ssim, smallest_axis, ssim_2004

__all__ = ["PRESETS", "Metric", "Note", "Preset"]

Metric = Callable[[Array, Array, Array | None, Range, Spacing | None], float]
_AXIAL = 2  # across slices of a volume in RAS order


class Note(NamedTuple):
    """What is out of the ordinary about a pair.

    Args:
        text: for people.
        explains: the metrics that it leaves without a number.
    """

    text: str
    explains: tuple[str, ...] = ()


Policy = Callable[[Pair, Collection[str]], Iterator[Note]]  # of a pair, in a preset of these metrics


@dataclass(frozen=True)
class Preset:
    """A named set of metrics with the range that belongs to it.

    Args:
        name: as written in every row of results.
        value_range: lowest and highest value, HU.
        metrics: what is computed, by name of the column: see `medgan.metrics.measures`.
        policies: what is told of a pair that is out of the ordinary.
    """

    name: str
    value_range: Range
    metrics: Mapping[str, Metric]
    policies: tuple[Policy, ...] = ()

    def score(
        self,
        pred: Array,
        ref: Array,
        mask: Array | None = None,
        value_range: Range | None = None,
        *,
        spacing_mm: Spacing | None = None,
    ) -> dict[str, float]:
        """All metrics of the preset for one pair (X, Y, Z).

        Args:
            pred: (X, Y, Z).
            ref: (X, Y, Z).
            mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
            value_range: in place of the preset's.
            spacing_mm: distances of neighbouring voxels, by axis; without it what is per mm is NaN.

        Raises:
            GeometryError: if the shapes differ.
            InputError: if the mask is empty, or the range or the spacing is none.
        """
        limits = value_range or self.value_range
        return {name: metric(pred, ref, mask, limits, spacing_mm) for name, metric in self.metrics.items()}

    def told(self, pred: Array, ref: Array, mask: Array | None = None) -> list[Note]:
        """Why numbers of a pair are undefined, and which of them a policy of the preset gave; nothing for most."""
        pair = Pair.of(pred, ref, mask)
        return [note for policy in self.policies for note in policy(pair, self.metrics)]

    def notes(self, pred: Array, ref: Array, mask: Array | None = None) -> list[str]:
        """The same as text alone.

        Example:
            >>> from numpy import zeros
            >>> thin = zeros((9, 9, 1))
            >>> PRESETS["synthrad2023-fixed"].notes(thin, thin)
            ['ssim: the mask is all border, so none of it is left out']
        """
        return [note.text for note in self.told(pred, ref, mask)]


def _plain(metric: Callable[[Array, Array, Array | None], float]) -> Metric:
    return lambda pred, ref, mask, _limits, _spacing: metric(pred, ref, mask)


def _ranged(metric: Callable[[Array, Array, Array | None, Range], float]) -> Metric:
    return lambda pred, ref, mask, limits, _spacing: metric(pred, ref, mask, limits)


def _finite(metric: Metric) -> Metric:
    """NaN where a voxel of the mask is not finite, also of a metric that clips it."""

    def strict(pred: Array, ref: Array, mask: Array | None, limits: Range, spacing: Spacing | None) -> float:
        known = Pair.of(pred, ref, mask).is_finite()
        return metric(pred, ref, mask, limits, spacing) if known else float("nan")

    return strict


def _gradient_error(pred: Array, ref: Array, mask: Array | None, _: Range, spacing: Spacing | None) -> float:
    return float("nan") if spacing is None else gradient_error(pred, ref, mask, spacing_mm=spacing)


def _unfinished(pair: Pair, metrics: Collection[str]) -> Iterator[Note]:
    """Of presets whose metrics look at the mask alone."""
    if not pair.is_finite():
        yield Note("undefined: a voxel of the mask is not finite", tuple(metrics))


def _unfinished_anywhere(pair: Pair, metrics: Collection[str]) -> Iterator[Note]:
    if not pair.is_finite(anywhere=True):
        text = "SSIM of wang2004 is undefined: a voxel of the volume is not finite, and windows reach beyond the mask"
        yield Note(text, tuple(_column(name, metrics) for name in _WANG))


def _too_small(pair: Pair, metrics: Collection[str]) -> Iterator[Note]:
    shape = [pair.ref.shape[pair.order.index(axis)] for axis in range(3)]
    for name, num_scales in {"ssim": 1, "ms_ssim": 5}.items():
        fewest, label = smallest_axis(num_scales), name.upper().replace("_", "-")
        for what, suffix, axes in (("in 3-D", "", shape), ("in slices", "_2d", shape[:_AXIAL])):
            if min(axes) < fewest:
                seen = " × ".join(map(str, axes))
                text = f"{label} of wang2004 {what} is undefined: it needs {fewest} voxels an axis, seen {seen}"
                yield Note(text, (_column(f"{name}{suffix}", metrics),))


def _column(name: str, metrics: Collection[str]) -> str:
    """What a metric of Wang is called in a preset that has another SSIM, too, and in one that has not."""
    longer = _long(name)
    return longer if longer in metrics else name


def _long(name: str) -> str:
    return name.replace("ssim", "ssim_wang2004")


def _rescued_2023(pair: Pair, _: Collection[str]) -> Iterator[Note]:
    yield from map(Note, ssim_2023_rescues(pair.inside))


def _rescued_2025(pair: Pair, _: Collection[str]) -> Iterator[Note]:
    yield from map(Note, ms_ssim_2025_rescues(pair.inside))


_ERRORS = {"mae": _plain(mae), "psnr": _ranged(psnr)}
_WANG: dict[str, Metric] = {
    "ssim": _ranged(ssim_2004),
    "ms_ssim": _ranged(ms_ssim_2003),
    "ssim_2d": _ranged(lambda *pair: ssim_2004(*pair, axis=_AXIAL)),
    "ms_ssim_2d": _ranged(lambda *pair: ms_ssim_2003(*pair, axis=_AXIAL)),
}
_FULL: dict[str, Metric] = {
    **{name: _plain(metric) for name, metric in {"mae": mae, "bias": bias, "rmse": rmse, "nmse": nmse}.items()},
    "psnr": _ranged(psnr),
    "ssim": _ranged(ssim_2023_fixed),
    "ms_ssim": _ranged(ms_ssim_2025_fixed),
    "nc_ssim": _ranged(nc_ssim),
    **{_long(name): metric for name, metric in _WANG.items()},
    "nmi": _ranged(nmi),
    "gradient_error": _gradient_error,
    "tolerant_mae": _plain(tolerant_mae),
}


def _preset(name: str, value_range: Range, metrics: Mapping[str, Metric], *policies: Policy) -> Preset:
    return Preset(name, value_range, MappingProxyType(dict(metrics)), policies)


def _all_finite(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    return {name: _finite(metric) for name, metric in metrics.items()}


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _preset("synthrad2023", RANGE_2023, {**_ERRORS, "ssim": _ranged(ssim_2023)}),
            _preset("synthrad2025", RANGE_2025, {**_ERRORS, "ms_ssim": _ranged(ms_ssim_2025)}),
            _preset(
                "synthrad2023-fixed",
                RANGE_2023,
                _all_finite({**_ERRORS, "ssim": _ranged(ssim_2023_fixed)}),
                _unfinished,
                _rescued_2023,
            ),
            _preset(
                "synthrad2025-fixed",
                RANGE_2025,
                _all_finite({**_ERRORS, "ms_ssim": _ranged(ms_ssim_2025_fixed)}),
                _unfinished,
                _rescued_2025,
            ),
            _preset(
                "wang2004",
                RANGE_2025,
                _all_finite({**_ERRORS, **_WANG}),
                _unfinished,
                _unfinished_anywhere,
                _too_small,
            ),
            _preset(
                "full",
                RANGE_2025,
                _all_finite(_FULL),
                _unfinished,
                _unfinished_anywhere,
                _rescued_2023,
                _rescued_2025,
                _too_small,
            ),
        )
    }
)
