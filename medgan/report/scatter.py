"""How synthetic values scatter about real ones, over all cases, in the memory of a few histograms.

Values beyond the limits count as the limits themselves; voxels that are not finite in both images do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.errors import GeometryError

__all__ = [
    "Agreement",
    "CalibrationBin",
    "CaseMeans",
    "Limits",
    "by_patient",
    "calibration_curve",
    "coarser",
    "histogram_2d",
    "histogram_quantile",
    "limits_of_agreement",
]

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Range = tuple[float, float]

REF_BINS, PRED_BINS = 256, 1024
MEAN_BINS, DIFFERENCE_BINS = 128, 2048
CURVE_BINS = 64
LEAST_VOXELS = 30  # a bin of fewer tells of chance
_NORMAL_95 = 1.96
_SLAB_VOXELS = 2**20
_MOST = float(np.finfo(np.float32).max)  # larger values are no image's, and their squares no numbers


@dataclass(frozen=True)
class CaseMeans:
    """The mean values of one case over the voxels that count."""

    case: str
    patient: str
    ref: float
    pred: float
    num_voxels: int

    @property
    def mean(self) -> float:
        """Of both images."""
        return (self.ref + self.pred) / 2

    @property
    def difference(self) -> float:
        """Synthetic − real."""
        return self.pred - self.ref


@dataclass(frozen=True)
class CalibrationBin:
    """Voxels of about the same real value: their mean real value, and the synthetic values there."""

    ref: float
    mean: float
    q1: float
    q3: float
    num_voxels: int


@dataclass(frozen=True)
class Limits:
    """Between which 95 % of normally distributed differences lie; low and high are None for fewer than two."""

    mean: float
    low: float | None
    high: float | None


class Agreement:
    """Histograms of synthetic and real values that grow case by case.

    Args:
        limits: lowest and highest value told apart, in the unit of the images.
    """

    def __init__(self, limits: Range) -> None:
        low, high = limits
        self.limits: Range = (float(low), float(high) if high > low else float(low) + 1)
        self.joint: Counts = np.zeros((REF_BINS, PRED_BINS), dtype=np.int64)
        self.spread: Counts = np.zeros((MEAN_BINS, DIFFERENCE_BINS), dtype=np.int64)
        self.ref_sums, self.pred_sums = np.zeros(REF_BINS), np.zeros(REF_BINS)
        self.cases: list[CaseMeans] = []
        self.num_skipped = 0
        self._differences = np.zeros(3)  # number, sum, sum of squares

    @property
    def difference_limits(self) -> Range:
        """The widest differences told apart."""
        width = self.limits[1] - self.limits[0]
        return -width, width

    def add(self, case: str, pred: Array, ref: Array, mask: Array | None = None, *, patient: str = "") -> None:
        """Count one more case.

        Args:
            case: its name.
            pred: (X, Y, Z) synthetic values.
            ref: (X, Y, Z) real values.
            mask: (X, Y, Z), any non-zero voxel counts; None is the whole volume.
            patient: whose it is; the case is its own patient if not given.

        Raises:
            GeometryError: if the shapes differ.
        """
        shapes = {one.shape for one in (pred, ref, mask) if one is not None}
        if len(shapes) > 1:
            raise GeometryError(f"case {case!r}: images differ in shape: {', '.join(map(str, sorted(shapes)))}")
        sums, number = np.zeros(2), 0
        for made, real in _slabs(pred, ref, mask):
            finite = (np.abs(made) <= _MOST) & (np.abs(real) <= _MOST)
            self.num_skipped += int(finite.size - finite.sum())
            self._count(made[finite], real[finite])
            sums += real[finite].sum(), made[finite].sum()
            number += int(finite.sum())
        if number:
            ref_mean, pred_mean = (sums / number).tolist()
            self.cases.append(CaseMeans(case, patient or case, ref_mean, pred_mean, number))

    def _count(self, pred: Array, ref: Array) -> None:
        low, high = self.limits
        difference = pred - ref
        self._differences += difference.size, difference.sum(), (difference**2).sum()
        middle = np.clip((pred + ref) / 2, low, high)
        pred, ref = np.clip(pred, low, high), np.clip(ref, low, high)
        self.joint += histogram_2d(ref, pred, (self.limits, self.limits), (REF_BINS, PRED_BINS))
        self.spread += histogram_2d(
            middle, difference, (self.limits, self.difference_limits), (MEAN_BINS, DIFFERENCE_BINS)
        )
        place = _bins(ref, self.limits, REF_BINS)
        self.ref_sums += np.bincount(place, ref, minlength=REF_BINS)
        self.pred_sums += np.bincount(place, pred, minlength=REF_BINS)

    @property
    def num_voxels(self) -> int:
        """How many counted."""
        return int(self._differences[0])

    def voxel_limits(self) -> Limits | None:
        """Limits of agreement over all voxels; None if there are none."""
        number, total, squares = self._differences.tolist()
        if not number:
            return None
        mean = total / number
        if number < 2:
            return Limits(mean, None, None)
        reach = _NORMAL_95 * (max(squares - number * mean**2, 0) / (number - 1)) ** 0.5
        return Limits(mean, mean - reach, mean + reach)

    def error_quantile(self, share: float) -> float:
        """The absolute difference that this share of all voxels does not exceed, to a bin's width."""
        counts = self.spread.sum(axis=0)
        folded = counts[DIFFERENCE_BINS // 2 :] + counts[: DIFFERENCE_BINS // 2][::-1]
        return histogram_quantile(folded, (0.0, self.difference_limits[1]), share)


def histogram_2d(x: Array, y: Array, limits: tuple[Range, Range], bins: tuple[int, int]) -> Counts:
    """Counts (bins of x, bins of y); values beyond the limits count in the outermost bins.

    Example:
        >>> histogram_2d(np.array([0.1, 0.9, 7]), np.array([0.1, 0.1, 0.9]), ((0, 1), (0, 1)), (2, 2)).tolist()
        [[1, 0], [1, 1]]
    """
    place = _bins(x, limits[0], bins[0]) * bins[1] + _bins(y, limits[1], bins[1])
    return np.bincount(place, minlength=bins[0] * bins[1]).reshape(bins)


def coarser(counts: Counts, shape: tuple[int, int]) -> Counts:
    """Counts (M, N) in fewer bins; each number of bins is a divisor of what there was.

    Example:
        >>> coarser(np.arange(8).reshape(2, 4), (1, 2)).tolist()
        [[10, 18]]
    """
    rows, columns = counts.shape[0] // shape[0], counts.shape[1] // shape[1]
    return np.asarray(counts.reshape(shape[0], rows, shape[1], columns).sum(axis=(1, 3)))


def histogram_quantile(counts: Counts, limits: Range, share: float) -> float:
    """The value below which a share of the counts lies, spread evenly within each bin; NaN where nothing was counted.

    Example:
        >>> histogram_quantile(np.array([2, 2]), (0.0, 10.0), 0.75)
        7.5
    """
    total = counts.sum()
    if not total:
        return float("nan")
    edges = np.linspace(*limits, counts.size + 1)
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    upper = int(np.searchsorted(cumulative, share * total).clip(1, counts.size))
    inside = (share * total - cumulative[upper - 1]) / (counts[upper - 1] or 1)
    return float(edges[upper - 1] + inside * (edges[upper] - edges[upper - 1]))


def calibration_curve(agreement: Agreement, num_bins: int = CURVE_BINS) -> list[CalibrationBin]:
    """Mean and quartiles of the synthetic values by real value, in bins of at least 30 voxels.

    Quartiles are those of a histogram: exact to a 1024th of the range.

    Args:
        agreement: all cases.
        num_bins: a divisor of 256.
    """
    joint = coarser(agreement.joint, (num_bins, PRED_BINS))
    refs, preds = (sums.reshape(num_bins, -1).sum(axis=1) for sums in (agreement.ref_sums, agreement.pred_sums))
    numbers = joint.sum(axis=1)
    return [
        CalibrationBin(
            ref=float(refs[k] / numbers[k]),
            mean=float(preds[k] / numbers[k]),
            q1=histogram_quantile(joint[k], agreement.limits, 0.25),
            q3=histogram_quantile(joint[k], agreement.limits, 0.75),
            num_voxels=int(numbers[k]),
        )
        for k in range(num_bins)
        if numbers[k] >= LEAST_VOXELS
    ]


def limits_of_agreement(differences: Sequence[float]) -> Limits:
    """Mean ± 1.96 sample standard deviations of at least one difference.

    Source:
        Bland and Altman, "Statistical methods for assessing agreement", Lancet 327, 1986.

    Example:
        >>> limits_of_agreement([-1.0, 0.0, 1.0])
        Limits(mean=0.0, low=-1.96, high=1.96)
    """
    values = np.asarray(differences, dtype=np.float64)
    mean = float(values.mean())
    if values.size < 2:
        return Limits(mean, None, None)
    reach = _NORMAL_95 * float(values.std(ddof=1))
    return Limits(mean, mean - reach, mean + reach)


def by_patient(cases: Sequence[CaseMeans]) -> list[CaseMeans]:
    """One for each patient: the mean of the cases, each of the same weight."""
    found: dict[str, list[CaseMeans]] = {}
    for one in cases:
        found.setdefault(one.patient, []).append(one)
    return [_joined(patient, ones) for patient, ones in found.items()]


def _joined(patient: str, ones: Sequence[CaseMeans]) -> CaseMeans:
    ref, pred = (sum(values) / len(ones) for values in zip(*((one.ref, one.pred) for one in ones), strict=True))
    return CaseMeans(", ".join(one.case for one in ones), patient, ref, pred, sum(one.num_voxels for one in ones))


def _bins(values: Array, limits: Range, number: int) -> Counts:
    low, high = limits
    place = np.floor((np.clip(values, low, high) - low) * (number / (high - low))).astype(np.int64)
    return np.minimum(place, number - 1)


def _slabs(pred: Array, ref: Array, mask: Array | None) -> Iterator[tuple[Array, Array]]:
    """Values that count, float64, a slab of the volume at a time."""
    step = max(1, _SLAB_VOXELS // max(1, ref[0].size))
    for start in range(0, len(ref), step):
        part = slice(start, start + step)
        inside = slice(None) if mask is None else mask[part] != 0
        yield (
            np.asarray(pred[part], dtype=np.float64)[inside].ravel(),
            np.asarray(ref[part], dtype=np.float64)[inside].ravel(),
        )
