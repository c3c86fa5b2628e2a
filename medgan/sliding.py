"""A network over a whole volume: slice by slice or block by block, overlapping windows blended by a Gaussian.

The weights of a window are products of one factor an axis, and so are their sums over all windows: each factor is
divided by its sum beforehand, and what the windows give is added up straight into the result. Nothing else as large as
the volume is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product

import torch
import torch.nn.functional as F
from torch import Tensor

from medgan.data import Size, flat_axis
from medgan.device import autocast, laid_out
from medgan.prep import BACKGROUND
from medgan.progress import track

__all__ = ["predict"]

SIGMA = 1 / 8  # of the window
CPU = torch.device("cpu")
Net = Callable[[Tensor], Tensor]
Window = tuple[int, int, int]  # numbers of its places along the three axes


@torch.inference_mode()
def predict(
    net: Net,
    x: Tensor,
    *,
    patch: Size,
    neighbours: int = 0,
    kept: int | None = None,
    overlap: float = 0.5,
    batch: int = 8,
    device: torch.device = CPU,
    precision: str = "32",
    memory_format: torch.memory_format = torch.contiguous_format,
    label: str = "",
) -> Tensor:
    """Translate a volume through windows of the size that the network was trained on.

    Args:
        net: (N, C, *window) → (N, C', *window) on `device`; `window` is `patch` without its axis of size 1, if any.
        x: (C, X, Y, Z) in [-1, 1].
        patch: window in voxels; an axis of size 1 is the one across slices, which are then translated one by one.
        neighbours: slices on either side that the network sees as channels, with patches one voxel thick.
        kept: the one channel that is kept of what the network makes; all if not given.
        overlap: share of a window that its neighbour covers again; the results are blended with Gaussian weights.
        batch: windows that go through the network together.
        device: where the network is; the volume and the result stay on the device of `x`.
        precision: `32`, or `bf16` to run the network (alone) in bfloat16 where that is safe.
        memory_format: in which the windows are given to the network.
        label: shown beside the progress; nothing is shown without one.

    Returns:
        (C', X, Y, Z) float32 on the device of `x`.
    """
    flat = flat_axis(patch)
    padded, margins = _padded(x, patch)
    axes = [_Axis(length, size, overlap, x.device) for length, size in zip(padded.shape[1:], patch, strict=True)]
    groups, y = _groups(axes, batch), x.new_empty(0)
    with autocast(device, precision):
        for group in track(groups, label) if label else groups:
            cut = _stacked([_cut(padded, axes, window, flat, neighbours) for window in group])
            made = net(laid_out(cut.to(device), memory_format))
            seen = (made if kept is None else made[:, kept : kept + 1]).to(x.device, torch.float32)
            y = y if len(y) else seen.new_zeros((seen.shape[1], *padded.shape[1:]))
            for window, one in zip(group, seen if flat is None else seen.unsqueeze(flat + 2), strict=True):
                _blend(y, one, axes, window)
    inner = (slice(low, low + length) for low, length in zip(margins, x.shape[1:], strict=True))
    return y[(slice(None), *inner)]


@dataclass(frozen=True)
class _Axis:
    """The places of windows along one axis: evenly apart, the last one at the end.

    Args:
        length: of the axis, voxels.
        size: of a window.
        overlap: share of a window that its neighbour covers again.
        device: of the volume.
    """

    length: int
    size: int
    overlap: float
    device: torch.device

    @cached_property
    def starts(self) -> list[int]:
        step = max(int(self.size * (1 - self.overlap)), 1)
        return sorted({min(first, self.length - self.size) for first in range(0, self.length - self.size + step, step)})

    @cached_property
    def factors(self) -> list[Tensor]:
        """The share of each window in each of its voxels: (size,) a window; over all windows they add up to 1."""
        distance = (torch.arange(self.size, dtype=torch.float64) - (self.size - 1) / 2) / (self.size * SIGMA)
        bell, total = torch.exp(-0.5 * distance**2), torch.zeros(self.length, dtype=torch.float64)
        for start in self.starts:
            total[start : start + self.size] += bell
        return [(bell / total[start : start + self.size]).float().to(self.device) for start in self.starts]


def _blend(y: Tensor, one: Tensor, axes: Sequence[_Axis], window: Window) -> None:
    """Add what a window gives, (C, X, Y, Z), to its place in the whole, by its share in each voxel."""
    along_x, along_y, along_z = (axis.factors[number] for axis, number in zip(axes, window, strict=True))
    y[(slice(None), *_box(axes, window))].addcmul_(one * (along_y[:, None] * along_z), along_x[:, None, None])


def _groups(axes: Sequence[_Axis], size: int) -> list[list[Window]]:
    """All windows, in groups that go through the network together."""
    x, y, z = (range(len(axis.starts)) for axis in axes)
    windows = product(x, y, z)
    return list(iter(lambda: list(islice(windows, size)), []))


def _stacked(windows: list[Tensor]) -> Tensor:
    """(N, …); one alone is not copied."""
    return torch.stack(windows) if len(windows) > 1 else windows[0][None]


def _padded(x: Tensor, patch: Size) -> tuple[Tensor, list[int]]:
    """At least as large as a window, with background on both sides, and the number of voxels in front of each axis."""
    missing = [max(size - length, 0) for size, length in zip(patch, x.shape[1:], strict=True)]
    sides = [side for gap in reversed(missing) for side in (gap // 2, gap - gap // 2)]
    return F.pad(x, sides, value=BACKGROUND) if any(missing) else x, [gap // 2 for gap in missing]


def _box(axes: Sequence[_Axis], window: Window) -> tuple[slice, ...]:
    starts = (axis.starts[number] for axis, number in zip(axes, window, strict=True))
    return tuple(slice(start, start + axis.size) for start, axis in zip(starts, axes, strict=True))


def _cut(x: Tensor, axes: Sequence[_Axis], window: Window, flat: int | None, neighbours: int) -> Tensor:
    """(C, X, Y, Z), or where slices are translated (C · (1 + 2 · neighbours), U, V), background beyond the ends."""
    box = list(_box(axes, window))
    if flat is None:
        return x[(slice(None), *box)]
    own = box[flat].start
    slices = []
    for place in range(own - neighbours, own + neighbours + 1):
        box[flat] = slice(min(max(place, 0), axes[flat].length - 1), None)
        seen = x[(slice(None), *box)].select(flat + 1, 0)
        slices.append(seen if 0 <= place < axes[flat].length else torch.full_like(seen, BACKGROUND))
    return torch.cat(slices)
