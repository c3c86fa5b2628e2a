"""How well the organs of a segmentation agree: Dice, HD95 and surface Dice of each label, and their means.

An organ that is lost counts with the worst value that each score has, so that losing one never improves a mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from medgan.errors import GeometryError, InputError
from medgan.metrics.surfaces import SurfaceDistances, checked_spacing, diagonal_mm, surface_distances

__all__ = ["MAX_LABEL", "TOLERANCE_MM", "label_scores", "synthrad2025_label_scores"]

Array = npt.NDArray[Any]
Box = tuple[slice, ...]

MAX_LABEL = 65535
TOLERANCE_MM = 2.0

_SLAB_VOXELS = 2**20
_SCORES = ("dice", "hd95", "surface_dice")


def label_scores(
    pred: Array,
    ref: Array,
    *,
    spacing_mm: Sequence[float],
    labels: Mapping[int, str] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, float]:
    """Scores of one segmentation, by column.

    `dice_<label>` 2|A∩B| / (|A| + |B|), no unit; `hd95_<label>` in mm and `surface_dice_<label>`, no unit, as in
    `medgan.metrics.surfaces`. `dice`, `hd95` and `surface_dice` are their means over the labels of the reference.

    A label of the reference that the prediction lacks is lost: Dice 0, surface Dice 0, HD95 the diagonal of the volume
    in mm, which no distance in it can exceed; `num_lost` counts them. A label that only the prediction has is invented:
    `num_invented` counts them; it takes no part in the means, and has columns (with the same worst values) only where
    `labels` names it. A label that neither has, has no column. The means are NaN where the reference has no label.

    Args:
        pred: (X, Y, Z) labels: whole numbers of any dtype, 0 is the background.
        ref: (X, Y, Z) likewise.
        spacing_mm: distance between voxel centres along each array axis.
        labels: names of the labels that count; all count, named by their numbers, if not given.
        tolerance_mm: of the surface Dice.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if a map holds other than whole numbers from 0 to 65535, or spacing, labels or tolerance are none.

    Example:
        >>> ref = np.zeros((4, 4, 4), dtype=np.uint8)
        >>> ref[:2], ref[3] = 1, 2
        >>> found = label_scores(np.where(ref == 1, 1, 0), ref, spacing_mm=(1, 1, 1), labels={1: "liver", 2: "spleen"})
        >>> found["dice_liver"], found["dice_spleen"], found["dice"], found["num_lost"]
        (1.0, 0.0, 0.5, 1)
    """
    found = _Pair.of(pred, ref, spacing_mm)
    names = _names(found, labels)
    scores = {label: _scores(found, label, tolerance_mm) for label in names if found.has(label)}
    real = [label for label in scores if found.num_ref[label]]
    means = {name: _mean([scores[label][i] for label in real]) for i, name in enumerate(_SCORES)}
    return {
        **means,
        "num_lost": sum(not found.num_pred[label] for label in real),
        "num_invented": len(scores) - len(real),
        **{
            f"{score}_{names[label]}": value
            for label, values in scores.items()
            if labels is not None or label in real
            for score, value in zip(_SCORES, values, strict=True)
        },
    }


def synthrad2025_label_scores(
    pred: Array, ref: Array, *, spacing_mm: Sequence[float], labels: Iterable[int] | None = None
) -> dict[str, float]:
    """`dice` and `hd95` as the challenge computes them: a lost organ takes no part in the mean HD95, and improves it.

    Both are means over the labels of the reference, HD95 over those only that the prediction has too; it is 0, the best
    value there is, where every organ is lost. Where nothing is lost, they are those of `label_scores`. NaN where the
    reference has no label, for which the challenge has no rule.

    Args:
        pred: (X, Y, Z) labels: whole numbers of any dtype, 0 is the background.
        ref: (X, Y, Z) likewise.
        spacing_mm: distance between voxel centres along each array axis.
        labels: those that count; all if not given.

    Raises:
        GeometryError: if the shapes differ.
        InputError: if a map holds other than whole numbers from 0 to 65535, or spacing or labels are none.

    Source:
        The evaluation container of SynthRAD2025, which rounds to float32 on the way.

    Example:
        >>> ref = np.zeros((4, 4, 4), dtype=np.uint8)
        >>> ref[:2], ref[3] = 1, 2
        >>> synthrad2025_label_scores(np.where(ref == 1, 1, 0), ref, spacing_mm=(1, 1, 1))
        {'dice': 0.5, 'hd95': 0.0}
    """
    found = _Pair.of(pred, ref, spacing_mm)
    names = _names(found, None if labels is None else {label: str(label) for label in labels})
    real = [label for label in names if found.num_ref[label]]
    kept = [_distances(found, label).hd95() for label in real if found.num_pred[label]]
    return {"dice": _mean([_dice(found, label) for label in real]), "hd95": _mean(kept) if kept or not real else 0.0}


@dataclass(frozen=True)
class _Pair:
    """Two label maps, how many voxels each label has in them and in both at once, and where they are."""

    pred: Array
    ref: Array
    spacing: list[float]
    num_pred: Array
    num_ref: Array
    num_both: Array
    boxes: tuple[list[Box | None], list[Box | None]]

    @classmethod
    def of(cls, pred: Array, ref: Array, spacing_mm: Sequence[float]) -> _Pair:
        spacing = checked_spacing(spacing_mm)
        if np.shape(pred) != np.shape(ref) or np.ndim(ref) != 3:
            raise GeometryError(f"two label maps are 3-D and of one shape; seen {np.shape(pred)} and {np.shape(ref)}")
        pred, ref = _label_map(pred, "prediction"), _label_map(ref, "reference")
        counts = np.zeros((3, MAX_LABEL + 1), dtype=np.int64)
        for p, r in _slabs(pred, ref):
            counts += [np.bincount(values, minlength=MAX_LABEL + 1) for values in (p, r, r[p == r])]
        boxes = (find_objects(pred), find_objects(ref))
        return cls(pred, ref, spacing.tolist(), counts[0], counts[1], counts[2], boxes)

    def has(self, label: int) -> bool:
        return bool(self.num_pred[label] or self.num_ref[label])

    def in_both(self, label: int) -> bool:
        return bool(self.num_pred[label] and self.num_ref[label])

    def box(self, label: int) -> Box:
        """Where a label is in either map, and one voxel beyond."""
        seen = [boxes[label - 1] for boxes in self.boxes if label <= len(boxes)]
        sides = zip(*(box for box in seen if box is not None), strict=True)
        return tuple(slice(max(min(s.start for s in side) - 1, 0), max(s.stop for s in side) + 1) for side in sides)


def _scores(found: _Pair, label: int, tolerance_mm: float) -> tuple[float, float, float]:
    """Dice, HD95 and surface Dice of a label that is in one map at least."""
    distances = _distances(found, label)
    hd95 = distances.hd95() if found.in_both(label) else diagonal_mm(found.ref.shape, found.spacing)
    return _dice(found, label), hd95, distances.dice(tolerance_mm)


def _dice(found: _Pair, label: int) -> float:
    return float(2 * found.num_both[label] / (found.num_pred[label] + found.num_ref[label]))


def _distances(found: _Pair, label: int) -> SurfaceDistances:
    box = found.box(label)
    return surface_distances(found.pred[box] == label, found.ref[box] == label, found.spacing)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _names(found: _Pair, labels: Mapping[int, str] | None) -> dict[int, str]:
    """By label, those that count."""
    if labels is None:
        seen = np.flatnonzero(found.num_pred + found.num_ref)
        return {int(label): str(label) for label in seen if label}
    odd = [label for label in labels if not (isinstance(label, int | np.integer) and 0 < label <= MAX_LABEL)]
    if odd or not labels:
        seen_labels = f"seen {odd[0]!r}" if odd else "none is given"
        raise InputError(f"labels are whole numbers from 1 to {MAX_LABEL}, 0 is the background; {seen_labels}")
    if len({*labels.values(), ""}) <= len(labels):
        raise InputError(f"every label has a name of its own; seen {', '.join(map(repr, labels.values()))}")
    return {int(label): name for label, name in labels.items()}


def _label_map(image: Array, what: str) -> Array:
    """As uint8 or uint16, proved to hold whole numbers that fit."""
    image = np.asarray(image)
    if image.dtype.kind not in "biuf":
        raise InputError(f"a segmentation holds whole numbers; the {what} is {image.dtype}")
    if image.dtype in (np.uint8, np.uint16):
        return image
    if image.dtype == bool:
        return image.view(np.uint8)
    for (part,) in _slabs(image):
        odd = part[~((part >= 0) & (part <= np.float64(MAX_LABEL)) & (part == np.floor(part)))]
        if odd.size:
            raise InputError(
                f"a segmentation holds whole numbers from 0 to {MAX_LABEL}, one for each organ; the {what} holds "
                f"{odd[0]:g}; of probabilities give the most likely label of each voxel"
            )
    return image.astype(np.uint16)


def _slabs(*images: Array) -> Iterator[tuple[Array, ...]]:
    """The same voxels of all images as lines, part by part, along the axis that is slowest in the last one's memory."""
    axis = int(np.argmax(np.abs(images[-1].strides)))
    planes = [np.moveaxis(image, axis, 0) for image in images]
    step = max(1, _SLAB_VOXELS * len(planes[0]) // max(1, planes[0].size))
    for start in range(0, len(planes[0]), step):
        yield tuple(image[start : start + step].ravel() for image in planes)
