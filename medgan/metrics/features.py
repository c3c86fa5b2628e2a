"""Numbers that describe an image, for comparing sets of images: all at hand, nothing is downloaded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from medgan.errors import InputError

__all__ = [
    "Features",
    "HandMade",
    "RandomConv",
    "TorchScript",
    "extractor",
    "mirrored",
    "mirrors",
    "shrunk",
]

Array = npt.NDArray[np.float64]
SMALLEST_SIDE = 8
_CHUNK_VOXELS = 2**19  # of images that are worked on at once: they and their responses stay in the cache
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_CONV = {2: F.conv2d, 3: F.conv3d}
_POOL: dict[int, Callable[..., Tensor]] = {2: F.avg_pool2d, 3: F.avg_pool3d}
_GRID: dict[int, Callable[..., Tensor]] = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


class Features(Protocol):
    """What turns images (N, C, X, Y[, Z]) in [-1, 1] into rows (N, d) float64, each image by itself."""

    @property
    def name(self) -> str:
        """Stands in the name of every score that is made with it: FD-random-conv is no FID."""

    def __call__(self, x: Tensor) -> Array:
        """(N, d) float64 of images (N, C, X, Y[, Z])."""


def extractor(name: str) -> Features:
    """The features that a name stands for: `random-conv`, `hand-made`, or the path of a TorchScript file.

    Raises:
        InputError: if there is no such file, or it holds no TorchScript model.

    Example:
        >>> extractor("hand-made")(torch.zeros(2, 1, 16, 16)).shape
        (2, 40)
    """
    match name:
        case "random-conv":
            return RandomConv()
        case "hand-made":
            return HandMade()
    return TorchScript(name)


@dataclass(frozen=True)
class HandMade:
    """Intensities, edges and place of what is bright, in the manner of radiomics: 40 numbers a channel, 43 in 3-D.

    In this order, for each channel:

    - 7 quantiles: 1, 5, 25, 50, 75, 95 and 99 %;
    - mean, standard deviation, skewness, excess kurtosis (0 for a constant image);
    - shares (0..1) of voxels in 8 equal bins of [-1, 1];
    - entropy of 32 equal bins of [-1, 1], in bits;
    - at full, half and quarter size (means of 2 and 4 voxels a side): mean, standard deviation and 95 % quantile of
      the length of the gradient, and mean of |Laplacian|;
    - standard deviation of the detail that halving and quartering take away: full − half, half − quarter;
    - along each axis: centre of brightness and its spread, both as a share of the side, brightness being value + 1;
    - along each axis: mean |image − its mirror image|.

    Example:
        >>> ramp = torch.linspace(-1, 1, 101).expand(1, 1, 101, 101)
        >>> [round(float(number), 2) for number in HandMade()(ramp)[0, :7]]
        [-0.98, -0.9, -0.5, 0.0, 0.5, 0.9, 0.98]
    """

    name: str = "hand-made"

    def __call__(self, x: Tensor) -> Array:
        """(N, 40·C) or, of volumes, (N, 43·C) float64.

        Raises:
            InputError: if images are smaller than 8 along an axis.
        """
        return _by_chunk(x, _hand_made)


@dataclass(frozen=True)
class RandomConv:
    """Responses of a small convolutional network whose weights are random and never trained.

    Images are looked at in up to four sizes, each with half the sides of the one before (a side below 16 is not
    halved). In each: 16 filters of 3 voxels a side and a bias, |·|; then, with stride 2, 16 filters of 3 voxels a
    side over these, |·|. Kept are the mean and the standard deviation of all 32 responses over the image, and the
    means of the second 16 over the halves of each axis (4 or 8 cells): 128 numbers a size in 2-D, 192 in 3-D.
    Weights are normal, each filter of length 1; those of the first layer sum to 0 in every second filter, so that
    half of them see edges alone. They hang on the seed, the number of channels and nothing else.

    Random filters followed by pooling keep much of what tells textures apart, and no image set has shaped them:
    Saxe et al. 2011, "On Random Weights and Unsupervised Feature Learning".

    Args:
        seed: of the weights.
        longest_side: larger images are first brought to at most this by means of 2, 3 … voxels; None leaves them.

    Example:
        >>> RandomConv()(torch.zeros(5, 1, 28, 20)).shape
        (5, 256)
    """

    seed: int = 0
    longest_side: int | None = None
    name: str = "random-conv"

    def __call__(self, x: Tensor) -> Array:
        """(N, 128·sizes) or, of volumes, (N, 192·sizes) float64.

        Raises:
            InputError: if images are smaller than 8 along an axis.
        """
        dims, channels = x.ndim - 2, x.shape[1]
        rng = np.random.default_rng((self.seed, dims, channels))
        layers = [(_filters(rng, channels, dims), _filters(rng, _WIDTH, dims)) for _ in range(_SIZES)]
        return _by_chunk(shrunk(x, self.longest_side), lambda part: _responses(part, layers))


class TorchScript:
    """Features of a model that was saved by `torch.jit.save`; it is called by the name of its file.

    Args:
        path: the file. The model takes (N, C, X, Y[, Z]) float32 in [-1, 1] and returns (N, d), finite.
        device: where it works.

    Raises:
        InputError: if it cannot be read, or is no TorchScript model.
    """

    def __init__(self, path: Path | str, device: torch.device | str = "cpu") -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self.device = torch.device(device)
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such features (accepted: random-conv, hand-made, a TorchScript file)")
        try:
            self._model = torch.jit.load(str(self.path), map_location=self.device).eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{self.path}: no TorchScript model; write one by torch.jit.script(net).save") from error

    def __call__(self, x: Tensor) -> Array:
        """(N, d) float64.

        Raises:
            InputError: if the model does not take such images, or returns anything but finite (N, d).
        """
        return _by_chunk(x, self._checked)

    @property
    def first_filter(self) -> tuple[int, ...]:
        """(out, in, X, Y[, Z]) of the first convolution's weights, which tell what it takes; () where there is none."""
        return next((tuple(weight.shape) for weight in self._model.parameters() if weight.ndim > 3), ())

    def _checked(self, x: Tensor) -> Tensor:
        try:
            found = self._model(x.to(self.device))
        except RuntimeError as error:
            told = str(error).strip().splitlines()[-1]
            raise InputError(f"{self.path}: does not take images of {tuple(x.shape[1:])} ({told})") from error
        wrong = not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(x)
        if wrong or not bool(torch.isfinite(found).all()):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            seen = shape if wrong else f"numbers that are not finite, {shape},"
            raise InputError(f"{self.path}: returns {seen} for {len(x)} images; features are ({len(x)}, d), finite")
        return torch.as_tensor(found, dtype=torch.float64, device="cpu")


def mirrors(x: Tensor) -> Iterator[Tensor]:
    """The images as they are and in every other way in which training may turn them: 4 to 8 in 2-D, 8 or 16 in 3-D.

    They are mirrored along every choice of axes, and the first two axes are exchanged where they are of one length,
    which makes quarter turns of it.

    Args:
        x: (N, C, X, Y) or (N, C, X, Y, Z).

    Example:
        >>> len(list(mirrors(torch.zeros(1, 1, 8, 8)))), len(list(mirrors(torch.zeros(1, 1, 8, 9))))
        (8, 4)
    """
    spatial = range(2, x.ndim)
    turned = [x, x.transpose(2, 3)] if x.shape[2] == x.shape[3] else [x]
    for image in turned:
        for count in range(len(spatial) + 1):
            for axes in itertools.combinations(spatial, count):
                yield image.flip(axes)


def shrunk(x: Tensor, longest_side: int | None) -> Tensor:
    """(N, C, …) with no side above `longest_side`: means of as few voxels along each axis as bring it there.

    Where the side does not divide, neighbouring means share a voxel, and are the same for a mirrored image.

    Example:
        >>> shrunk(torch.zeros(1, 1, 64, 30), 32).shape
        torch.Size([1, 1, 32, 30])
    """
    if longest_side is None or max(x.shape[2:]) <= longest_side:
        return x
    sides = [math.ceil(side / math.ceil(side / longest_side)) for side in x.shape[2:]]
    with torch.inference_mode():
        return torch.cat([_GRID[x.ndim - 2](part.float(), sides) for part in torch.split(x, 64)])


def mirrored(features: Features, x: Tensor) -> Array:
    """(N, d): the mean of the features over all `mirrors`, so that an image and its mirror image have the same."""
    total, count = np.zeros(1), 0
    for view in mirrors(x):
        total, count = total + features(view), count + 1
    return np.asarray(total / count, dtype=np.float64)


def _by_chunk(x: Tensor, rows: Callable[[Tensor], Tensor]) -> Array:
    """(N, d) float64: the rows of images, a few images at a time."""
    if x.ndim not in (4, 5) or not len(x) or min(x.shape[2:]) < SMALLEST_SIDE:
        raise InputError(
            f"images of shape {tuple(x.shape)}: features are of (N, C, X, Y) or (N, C, X, Y, Z), at least one image, "
            f"sides of {SMALLEST_SIDE} or more"
        )
    size = max(1, _CHUNK_VOXELS // math.prod(x.shape[1:]))
    with torch.inference_mode():
        return np.concatenate([rows(part).double().numpy() for part in torch.split(x.float().cpu(), size)])


# --- hand-made --------------------------------------------------------------------------------------------------------


def _hand_made(x: Tensor) -> Tensor:
    flat = x.double().flatten(0, 1)
    sizes = [flat, *(_smaller(flat, factor) for factor in (2, 4))]
    found = [_intensities(flat.flatten(1))]
    found += [_edges(size) for size in sizes]
    found += [torch.stack([_detail(sizes[0], 2), _detail(sizes[1], 2)], dim=1), _place(flat), _asymmetry(flat)]
    return torch.cat(found, dim=1).reshape(len(x), -1)


def _smaller(x: Tensor, factor: int) -> Tensor:
    """(N, X, Y[, Z]) by means of `factor` voxels a side; what is left over at the end is dropped."""
    return _POOL[x.ndim - 1](x[:, None], factor)[:, 0]


def _intensities(values: Tensor) -> Tensor:
    count = values.shape[1]
    ordered = values.sort(dim=1).values
    quantiles = ordered[:, [round(share * (count - 1)) for share in _QUANTILES]]
    mean, spread = values.mean(1, keepdim=True), values.std(1, correction=0, keepdim=True)
    normal = torch.where(spread > 1e-9, (values - mean) / spread.clamp(min=1e-9), 0.0)
    kurtosis = (normal**4).mean(1, keepdim=True) - 3 * (spread > 1e-9)
    shares = _shares(values, 32)
    entropy = -(shares * shares.clamp(min=1e-300).log2()).sum(1, keepdim=True)
    coarse = shares.reshape(len(values), 8, 4).sum(2)
    return torch.cat([quantiles, mean, spread, (normal**3).mean(1, keepdim=True), kurtosis, coarse, entropy], dim=1)


def _shares(values: Tensor, bins: int) -> Tensor:
    """(N, bins): shares of the voxels in equal bins of [-1, 1]; what lies beyond is in the outer ones."""
    place = ((values + 1) * (bins / 2)).floor().clamp(0, bins - 1).long()
    counts = torch.zeros(len(values), bins, dtype=torch.float64)
    return counts.scatter_add_(1, place, torch.ones_like(values)) / values.shape[1]


def _edges(x: Tensor) -> Tensor:
    """(N, 4): of the length of the gradient its mean, standard deviation and 95 % quantile; mean |Laplacian|."""
    axes = range(1, x.ndim)
    steps = [x.diff(dim=axis)[tuple(_but_last(x, other, axis) for other in range(x.ndim))] for axis in axes]
    length = torch.stack(steps).square().sum(0).sqrt().flatten(1)
    upper = length.sort(dim=1).values[:, round(0.95 * (length.shape[1] - 1))]
    return torch.stack([length.mean(1), length.std(1, correction=0), upper, _curvature(x)], dim=1)


def _but_last(x: Tensor, other: int, axis: int) -> slice:
    """All but the last voxel of the other axes, so that differences along all axes fit one another."""
    return slice(None) if other in (0, axis) else slice(0, x.shape[other] - 1)


def _curvature(x: Tensor) -> Tensor:
    """(N,): mean |Laplacian|, the image going on beyond its border as it ends there."""
    padded = F.pad(x[:, None], (1, 1) * (x.ndim - 1), mode="replicate")[:, 0]
    second = torch.zeros_like(x)
    for axis in range(1, x.ndim):
        line = padded[tuple(slice(None) if other in (0, axis) else slice(1, -1) for other in range(x.ndim))]
        second += line.diff(n=2, dim=axis)
    return second.abs().flatten(1).mean(1)


def _detail(x: Tensor, factor: int) -> Tensor:
    """(N,): standard deviation of what means of `factor` voxels a side take away."""
    coarse = _smaller(x, factor)
    for axis in range(1, x.ndim):
        coarse = coarse.repeat_interleave(factor, dim=axis)
    covered = x[tuple(slice(0, length) for length in coarse.shape)]
    return (covered - coarse).flatten(1).std(1, correction=0)


def _place(x: Tensor) -> Tensor:
    """(N, 2·axes): along each axis the centre of brightness and its spread, as shares of the side."""
    weight = (x + 1).clamp(min=0) + 1e-12
    found = []
    for axis in range(1, x.ndim):
        along = weight.sum(dim=[other for other in range(1, x.ndim) if other != axis])
        along = along / along.sum(1, keepdim=True)
        position = (torch.arange(x.shape[axis], dtype=torch.float64) + 0.5) / x.shape[axis]
        centre = along @ position
        found += [centre, ((position - centre[:, None]).square() * along).sum(1).sqrt()]
    return torch.stack(found, dim=1)


def _asymmetry(x: Tensor) -> Tensor:
    return torch.stack([(x - x.flip(axis)).abs().flatten(1).mean(1) for axis in range(1, x.ndim)], dim=1)


# --- random network ---------------------------------------------------------------------------------------------------

_WIDTH = 16
_SIZES = 4


def _filters(rng: np.random.Generator, channels: int, dims: int) -> tuple[Tensor, Tensor]:
    """Weights (16, channels, 3, 3[, 3]) of length 1, every second of sum 0, and biases of a tenth."""
    weight = rng.standard_normal((_WIDTH, channels, 3**dims))
    weight[::2] -= weight[::2].mean(axis=2, keepdims=True)
    weight /= np.sqrt((weight**2).sum(axis=(1, 2), keepdims=True))
    bias = 0.1 * rng.standard_normal(_WIDTH)
    return torch.from_numpy(weight.reshape(_WIDTH, channels, *(3,) * dims)).float(), torch.from_numpy(bias).float()


def _responses(x: Tensor, layers: list[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]) -> Tensor:
    dims, found = x.ndim - 2, []
    for first, second in layers:
        fine = _CONV[dims](x, *first).abs()
        coarse = _CONV[dims](fine, *second, stride=2).abs()
        cells = _GRID[dims](coarse, 2).flatten(1)
        found.append(torch.cat([*_moments(fine), *_moments(coarse), cells], dim=1))
        factor = [2 if side >= 2 * SMALLEST_SIDE else 1 for side in x.shape[2:]]
        if max(factor) == 1:
            break
        x = _POOL[dims](x, factor)
    return torch.cat(found, dim=1)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    flat = x.flatten(2)
    mean = flat.mean(2, keepdim=True)
    return mean[:, :, 0], (flat - mean).square_().mean(2).sqrt()  # five times as fast as Tensor.std
