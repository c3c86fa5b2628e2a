"""Paired metrics in other people's loops: fed batch by batch, merged across processes, asked at the end.

Batches are NumPy arrays or torch tensors on any device; neither torch nor MONAI is imported.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from medgan.errors import GeometryError, InputError
from medgan.metrics.pairs import Array, Range, Spacing, checked_range, checked_spacing
from medgan.metrics.presets import PRESETS, Preset

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["LoopMetric", "PairedScores"]

Images = Any  # an array or a tensor


class PairedScores:
    """The metrics of a preset for each image that comes, and their means.

    Scores are kept image by image, so that any way of cutting a data set into updates, and of merging the parts, gives
    the same numbers to the last digit.

    Args:
        preset: a name of `PRESETS`.
        value_range: lowest and highest value in place of the preset's.
        spacing_mm: distances of neighbouring voxels, by axis, if something is wanted per mm.

    Raises:
        InputError: if the preset is unknown.

    Example:
        >>> ref = np.zeros((2, 1, 8, 8, 8))
        >>> first, second = PairedScores("synthrad2023"), PairedScores("synthrad2023")
        >>> first.update(ref + 4, ref, case=["a", "b"])
        >>> second.update(ref[0, 0] + 1, ref[0, 0], case="c")
        >>> first.merge(second).compute()["mae"]
        3.0
    """

    def __init__(
        self, preset: str = "synthrad2023", value_range: Range | None = None, spacing_mm: Spacing | None = None
    ) -> None:
        if preset not in PRESETS:
            raise InputError(f"preset {preset!r} is unknown (accepted: {', '.join(PRESETS)})")
        self.preset: Preset = PRESETS[preset]
        self.value_range = checked_range(value_range or self.preset.value_range)
        self.spacing_mm = None if spacing_mm is None else checked_spacing(spacing_mm)
        self.rows: list[dict[str, Any]] = []

    def update(
        self, pred: Images, ref: Images, mask: Images | None = None, *, case: str | Sequence[str] | None = None
    ) -> None:
        """Score one more image, or a batch of them.

        Args:
            pred: (N, C, X, Y, Z), or one volume (X, Y, Z). Each channel is an image of its own.
            ref: likewise.
            mask: likewise, or with one channel for all; any non-zero voxel counts.
            case: the name of each of the N, for the rows.

        Raises:
            GeometryError: if the shapes differ or are none of these.
            InputError: if a mask is empty, or there are not as many names as images.
        """
        made, real, inside = _batch(pred), _batch(ref), None if mask is None else _batch(mask)
        if made.shape != real.shape or (inside is not None and not _fits(inside.shape, real.shape)):
            seen = ", ".join(str(one.shape) for one in (made, real, inside) if one is not None)
            raise GeometryError(f"prediction, reference and mask are of one shape; seen {seen}")
        names = _names(case, len(real))
        self.rows += [
            {"case": names[n], "channel": c, **self._scores(made[n, c], real[n, c], here)}
            for n, c, here in _each(real.shape, inside)
        ]

    def merge(self, other: PairedScores) -> Self:
        """Take over what another one was fed; returns itself.

        Raises:
            InputError: if its preset, range or spacing is another.
        """
        mine, theirs = ((one.preset.name, one.value_range, one.spacing_mm) for one in (self, other))
        if mine != theirs:
            raise InputError(f"scores of one preset, range and spacing can be merged; seen {mine} and {theirs}")
        self.rows += other.rows
        return self

    def gathered(self) -> PairedScores:
        """Those of all processes that `torch.distributed` has brought together, in each of them; alone its own.

        Each process waits for the others, so that all have to ask. An image that a sampler gave out twice, to make the
        parts equal, counts twice.
        """
        every = PairedScores(value_range=self.value_range, spacing_mm=self.spacing_mm)
        every.preset, every.rows = self.preset, _of_all_processes(self.rows)
        return every

    def compute(self) -> dict[str, float]:
        """The mean of each metric over all images that have a finite number of it; NaN where none has.

        How many have none is in `num_undefined`: name it beside the mean.
        """
        return {name: _mean(self._finite(name)) for name in self.preset.metrics}

    @property
    def num_undefined(self) -> dict[str, int]:
        """How many images have no finite number of each metric."""
        return {name: len(self.rows) - len(self._finite(name)) for name in self.preset.metrics}

    def reset(self) -> None:
        """Forget all images."""
        self.rows = []

    def _finite(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if math.isfinite(row[name])]

    def _scores(self, pred: Array, ref: Array, mask: Array | None) -> dict[str, float]:
        return self.preset.score(pred, ref, mask, self.value_range, spacing_mm=self.spacing_mm)


class LoopMetric:
    """One metric of a preset, called as loops call theirs.

    As MONAI's cumulative metrics: `metric(y_pred, y)` for each batch, then `aggregate()`, then `reset()`. As Ignite's:
    `metric.attach(engine, name)`; or `reset()`, `update((y_pred, y))` for each batch, `compute()`. As theirs, it tells
    of all processes where `torch.distributed` runs, and all of them have to ask.

    Args:
        name: of the metric.
        preset: a name of `PRESETS` that has it.
        value_range: lowest and highest value in place of the preset's.
        spacing_mm: distances of neighbouring voxels, by axis, if the metric is per mm.
        output_transform: makes (y_pred, y) or (y_pred, y, mask) of an engine's output, for `attach`.
        spatial_dims: 2 for pictures (N, C, X, Y), each of which is scored as a volume of one slice.

    Raises:
        InputError: if the preset is unknown or has no such metric.

    Example:
        >>> metric = LoopMetric("mae")
        >>> metric(np.ones((2, 1, 8, 8, 8)), np.zeros((2, 1, 8, 8, 8)))
        array([[1.],
               [1.]])
        >>> metric.aggregate().item()
        1.0
    """

    def __init__(
        self,
        name: str,
        preset: str = "synthrad2023",
        value_range: Range | None = None,
        spacing_mm: Spacing | None = None,
        *,
        output_transform: Callable[[Any], Any] = lambda output: output,
        spatial_dims: Literal[2, 3] = 3,
    ) -> None:
        self.name, self.scores = name, PairedScores(preset, value_range, spacing_mm)
        self.output_transform, self.spatial_dims = output_transform, spatial_dims
        known = self.scores.preset.metrics
        if name not in known:
            raise InputError(f"preset {preset!r} has no metric {name!r} (accepted: {', '.join(known)})")
        self.scores.preset = replace(self.scores.preset, metrics={name: known[name]})

    def __call__(self, y_pred: Images, y: Images, mask: Images | None = None) -> Array:
        """Take a batch in.

        Args:
            y_pred: (N, C, X, Y, Z), or a list of (C, X, Y, Z), as MONAI's `decollate_batch` makes them; with
                `spatial_dims=2` (N, C, X, Y), or a list of (C, X, Y).
            y: likewise.
            mask: likewise; any non-zero voxel counts.

        Returns:
            (N, C), its scores.

        Raises:
            GeometryError: if the shapes differ or are none of these.
            InputError: if a mask is empty.
        """
        known = len(self.scores.rows)
        if isinstance(y, list | tuple):
            self._update_each(y_pred, y, [None] * len(y) if mask is None else mask)
        else:
            self._take_in(y_pred, y, mask)
        new = self.scores.rows[known:]
        return np.array([row[self.name] for row in new]).reshape(
            -1, 1 + max((row["channel"] for row in new), default=0)
        )

    def update(self, output: Sequence[Images] | Mapping[str, Images]) -> None:
        """Take a batch in: (y_pred, y) or (y_pred, y, mask), or these by name."""
        if isinstance(output, Mapping):
            self(**output)
        else:
            self(*output)

    def attach(self, engine: Engine, name: str) -> None:
        """Let an engine of Ignite, as MONAI's are, measure in each of its epochs: `engine.state.metrics[name]`.

        MONAI's engines call it for what they are given as `key_val_metric` or `additional_metrics`.
        """
        from ignite.engine import Events

        def take_in() -> None:
            self.update(self.output_transform(engine.state.output))

        def tell() -> None:
            engine.state.metrics[name] = float(self.compute())

        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, take_in)
        engine.add_event_handler(Events.EPOCH_COMPLETED, tell)

    def _update_each(self, y_pred: Sequence[Images], y: Sequence[Images], mask: Sequence[Images | None]) -> None:
        if not len(y_pred) == len(y) == len(mask):
            raise GeometryError(f"lists of images are of one length; seen {len(y_pred)}, {len(y)}, {len(mask)}")
        for one, other, inside in zip(y_pred, y, mask, strict=True):
            self._take_in(one[None], other[None], None if inside is None else inside[None])

    def _take_in(self, *images: Images) -> None:
        self.scores.update(*(images if self.spatial_dims == 3 else map(_with_depth, images)))

    def compute(self) -> np.float64:
        """The mean over all images that have a finite number; NaN if none has."""
        return np.float64(self.scores.gathered().compute()[self.name])

    def aggregate(self) -> np.float64:
        """The same as `compute`."""
        return self.compute()

    def reset(self) -> None:
        """Forget all images."""
        self.scores.reset()


def _batch(images: Images) -> Array:
    """(N, C, X, Y, Z), on the CPU."""
    if hasattr(images, "detach"):
        images = images.detach().cpu()
        images = (images.float() if "bfloat16" in str(images.dtype) else images).numpy()
    array = np.asarray(images)
    if array.ndim not in {3, 5}:
        raise GeometryError(f"images are (N, C, X, Y, Z), or one volume (X, Y, Z); seen {array.shape}")
    return array[None, None] if array.ndim == 3 else array


def _with_depth(pictures: Images | None) -> Images | None:
    if pictures is None:
        return None
    if pictures.ndim != 4:
        raise GeometryError(f"pictures are (N, C, X, Y); seen {tuple(pictures.shape)}; spatial_dims=3 is for volumes")
    return pictures[..., None]


def _of_all_processes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where torch is not imported, or has brought no processes together, there is but this one."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        return list(rows)
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def _fits(mask: tuple[int, ...], images: tuple[int, ...]) -> bool:
    return mask == images or mask == (images[0], 1, *images[2:])


def _each(shape: tuple[int, ...], inside: Array | None) -> Iterator[tuple[int, int, Array | None]]:
    """Number, channel and mask of every image."""
    for n, c in product(range(shape[0]), range(shape[1])):
        yield n, c, None if inside is None else inside[n, c % inside.shape[1]]


def _names(case: str | Sequence[str] | None, number: int) -> list[str]:
    if case is None:
        return [""] * number
    names = [case] if isinstance(case, str) else list(case)
    if len(names) != number:
        raise InputError(f"each image has one name; seen {len(names)} names for {number} images")
    return names


def _mean(numbers: list[float]) -> float:
    return math.fsum(numbers) / len(numbers) if numbers else float("nan")
