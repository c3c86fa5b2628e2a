"""Whether the values of an image can be what they are said to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medgan.volume import Volume

__all__ = ["Fault", "doubts"]

Array = npt.NDArray[Any]
_MOST = 1e18  # whose square 32 bits still hold
_NO_AIR_ABOVE_HU = -200
_SOFT_TISSUE_BELOW_HU, _SOFT_TISSUE_ABOVE_HU = 500, -700
_CLIPPED_SHARE, _SPOILT_SHARE, _WRAPPED_SHARE = 1e-3, 1e-2, 1e-4
# What programs scale an image to when its unit is lost.
_SCALED = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


@dataclass(frozen=True)
class Fault:
    """What is wrong with a case.

    Args:
        kind: one word for it, such as `offset`.
        reason: what was seen.
        remedy: what to do.
        excludes: True if the case must not be learned from as it is.
    """

    kind: str
    reason: str
    remedy: str
    excludes: bool = True


def doubts(volume: Volume, name: str = "the image") -> list[Fault]:
    """What speaks against the values of an image; of one in HU also against these being HU.

    | kind | seen |
    |---|---|
    | `constant` | all voxels are equal |
    | `not finite` | NaN or infinite voxels |
    | `too large` | values beyond 1e18, of which no program can make squares |
    | `inverted` | the corners are far brighter than the middle |
    | `clipped` | too many voxels at the greatest value: excluded from 1 %, told from 0.1 % |
    | `wrapped` | neighbours that differ by all that 8 or 16 bits hold: values ran over the end |
    | `scaled` | exactly from 0 to 1, -1 to 1 or 0 to 255: excluded if it is said to be in HU, else told |
    | `offset` | in HU, but tissue in the middle is above 500 or below -700, and air not at -1000 |
    | `no air` | in HU, but nothing below -200; told, not excluded |

    Args:
        volume: the image; its padding does not count.
        name: of the image, for reasons.

    Example:
        >>> from medgan.phantom import head
        >>> from medgan.volume import Grid
        >>> ct = head(1, grid=Grid.regular((24, 30, 20), spacing_mm=(8, 8, 8), origin_mm=(-92, -116, -75))).ct
        >>> [fault.kind for fault in doubts(ct)], [fault.kind for fault in doubts(ct.with_array(ct.array + 1000))]
        ([], ['offset'])
    """
    array = volume.without_padding().array
    if not np.isfinite(array).all():
        count = int(array.size - np.isfinite(array).sum())
        return [Fault("not finite", f"{name} has {count} voxels that are no numbers", "export it again")]
    if max(abs(float(array.min())), abs(float(array.max()))) > _MOST:
        return [Fault("too large", f"{name} has values beyond {_MOST:g}", "export it again: no scanner measures such")]
    if array.min() == array.max():
        return [Fault("constant", f"all voxels of {name} are {array.flat[0]:g}", "export it again, or leave it out")]
    if wrapped := list(_wrapped(array, name)):
        return wrapped
    of_unit = _not_hu(array, name) if volume.unit == "HU" else _scaled(array, name)
    return [*_inverted(array, name), *_clipped(array, name), *of_unit]


def _inverted(array: Array, name: str) -> Iterator[Fault]:
    corners, middle = _corners(array), float(np.median(_middle(array)))
    low, high = np.percentile(array[::2, ::2, ::2], [1, 99])
    if corners - middle > 0.3 * (high - low):
        reason = f"the corners of {name} are brighter ({corners:g}) than its middle ({middle:g})"
        yield Fault("inverted", reason, "turn its values round, or export it again without inversion")


def _clipped(array: Array, name: str) -> Iterator[Fault]:
    """More voxels at the greatest value than in the two hundredths of the range below it."""
    low, high = float(array.min()), float(array.max())
    at_most = int(np.count_nonzero(array == high))
    just_below = int(np.count_nonzero(array > high - 0.02 * (high - low))) - at_most
    share = at_most / array.size
    if at_most > max(just_below, 10) and share > _CLIPPED_SHARE and not _is_binary(array):
        remedy = "export it again without a window, or set `prep.range` below the clipped values"
        yield Fault("clipped", f"{share:.1%} of the voxels of {name} are {high:g}", remedy, share > _SPOILT_SHARE)


def _wrapped(array: Array, name: str) -> Iterator[Fault]:
    """Hardly any anatomy goes from one end of the range to the other between two voxels, and none does it often."""
    span = float(array.max()) - float(array.min())
    bits = next((bits for bits in (8, 16) if 0.98 * 2**bits < span < 2**bits), None)
    if bits is None or _is_binary(array):
        return
    leaps = [np.abs(np.diff(array[::2].astype(np.float32), axis=axis)) > 0.9 * 2**bits for axis in (1, 2)]
    share = float(np.mean([leap.mean() for leap in leaps]))
    if share > _WRAPPED_SHARE:
        reason = f"{share:.2%} of neighbours in {name} differ by nearly 2^{bits}: values ran over the end of the type"
        yield Fault("wrapped", reason, "export it again with more bits")


def _scaled(array: Array, name: str) -> Iterator[Fault]:
    low, high = float(array.min()), float(array.max())
    if (low, high) in _SCALED and not _is_binary(array):
        reason = f"{name} goes from exactly {low:g} to {high:g}, as if each volume were scaled by itself"
        yield Fault("scaled", reason, "see whether its values can be compared between cases", excludes=False)


def _not_hu(array: Array, name: str) -> Iterator[Fault]:
    low, high = float(array.min()), float(array.max())
    if (low, high) in _SCALED:
        reason = f"{name} is said to be in HU, but goes from exactly {low:g} to {high:g}"
        yield Fault("scaled", reason, "export it again in HU: what scales each volume cannot be undone")
        return
    middle, corners = float(np.median(_middle(array))), _corners(array)
    if middle > max(_SOFT_TISSUE_BELOW_HU, corners) and low > _NO_AIR_ABOVE_HU:
        reason = f"{name} is said to be in HU, but its middle is {middle:g} and its lowest value {low:g}"
        yield Fault("offset", reason, "subtract what was added, often 1000 or 1024")
    elif middle < _SOFT_TISSUE_ABOVE_HU and corners < middle - 500:
        reason = f"{name} is said to be in HU, but its middle is {middle:g} and its corners {corners:g}"
        yield Fault("offset", reason, "apply the rescale intercept (often -1000 or -1024) once, not twice")
    elif low > _NO_AIR_ABOVE_HU:
        reason = f"{name} is said to be in HU, but nothing is below {low:g}"
        yield Fault("no air", reason, "set the background to -1000, or check the unit", excludes=False)


def _corners(array: Array) -> float:
    """Median of the eight corners, each a tenth of the sides: air, in most scans."""
    ends = [(slice(max(1, size // 10)), slice(-max(1, size // 10), None)) for size in array.shape]
    x, y, z = ends
    return float(np.median(np.concatenate([array[i, j, k].ravel() for i in x for j in y for k in z])))


def _middle(array: Array) -> Array:
    return array[tuple(slice(size // 3, size - size // 3) for size in array.shape)]


def _is_binary(array: Array) -> bool:
    return bool(((array == array.min()) | (array == array.max())).all())
