"""A network over a whole volume: slice by slice or block by block, overlapping windows blended by a Gaussian."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from medgan.data import BACKGROUND, Size, flat_axis
from medgan.device import autocast
from medgan.progress import track

__all__ = ["predict"]

SIGMA = 1 / 8  # of the window
CPU = torch.device("cpu")
Net = Callable[[Tensor], Tensor]


@torch.inference_mode()
def predict(
    net: Net,
    x: Tensor,
    *,
    patch: Size,
    neighbours: int = 0,
    overlap: float = 0.5,
    batch: int = 8,
    device: torch.device = CPU,
    precision: str = "32",
    label: str = "",
) -> Tensor:
    """Translate a volume through windows of the size that the network was trained on.

    Args:
        net: (N, C, *window) → (N, C', *window) on `device`; `window` is `patch` without its axis of size 1, if any.
        x: (C, X, Y, Z) in [-1, 1].
        patch: window in voxels; an axis of size 1 is the one across slices, which are then translated one by one.
        neighbours: slices on either side that the network sees as channels, with patches one voxel thick.
        overlap: share of a window that its neighbour covers again; the results are blended with Gaussian weights.
        batch: windows that go through the network together.
        device: where the network is; the volume and the result stay on the device of `x`.
        precision: `32`, or `bf16` to run the network (alone) in bfloat16 where that is safe.
        label: shown beside the progress; nothing is shown without one.

    Returns:
        (C', X, Y, Z) on the device of `x`.
    """
    flat = flat_axis(patch)
    ticks = iter(track(count(), label)) if label else count()

    def ticking(window: Tensor) -> Tensor:
        next(ticks)
        with autocast(device, precision):
            return net(window).to(torch.float32)

    slices = x[None] if flat is None else _with_neighbours(x.movedim(flat + 1, 0), neighbours)
    y = sliding_window_inference(
        slices,
        roi_size=[size for axis, size in enumerate(patch) if axis != flat],
        sw_batch_size=batch,
        predictor=ticking,
        overlap=overlap,
        roi_weight_map=_bell([size for axis, size in enumerate(patch) if axis != flat], device),
        padding_mode="constant",
        cval=BACKGROUND,
        sw_device=device,
        device=x.device,
    )
    return torch.as_tensor(y[0] if flat is None else y.movedim(0, flat + 1))


def _with_neighbours(slices: Tensor, neighbours: int) -> Tensor:
    """(S, C, U, V) to (S, C · (1 + 2 · neighbours), U, V): each slice among those around it, or background."""
    margin = slices.new_full((neighbours, *slices.shape[1:]), BACKGROUND)
    padded = torch.cat([margin, slices, margin])
    return torch.cat([padded[first : first + len(slices)] for first in range(1 + 2 * neighbours)], 1)


def _bell(window: list[int], device: torch.device) -> Tensor:
    """The Gaussian weights of a window's voxels.

    MONAI's own are cut off from below at 0.001; where two axes are near their ends, as along every face of a volume,
    that makes them flat, and the edges of the windows show.
    """
    weights = torch.ones((), device=device)
    for size in window:
        distance = (torch.arange(size, device=device) - (size - 1) / 2) / (size * SIGMA)
        weights = weights[..., None] * torch.exp(-0.5 * distance**2)
    return weights
