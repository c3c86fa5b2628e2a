"""Features of images by the name of what makes them: built-in ones, trained networks from packages, a user's own file.

A network sees an image through a window, two values of the image's unit: the lower is its black, the higher its white.
Whatever makes the features, its name belongs into the name of the score: none of these is Inception, and a distance
measured in them is no FID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from medgan.errors import InputError
from medgan.metrics.features import Features, HandMade, RandomConv, TorchScript
from medgan.metrics.grey_levels import Discretisation
from medgan.metrics.pretrained import DeepBet, EfficientNetLite, Onnx, sha256_of
from medgan.metrics.radiomics import NAMES, radiomics

__all__ = [
    "BUILT_IN",
    "ImageFeatures",
    "OfImages",
    "Radiomic",
    "image_features",
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Range = tuple[float, float]
Slices = Literal["mean", "each"]

BUILT_IN = ("radiomic", "hand-made", "random-conv", "deepbet", "efficientnet-lite0")
CT_BIN_WIDTH_HU = 25.0


class ImageFeatures(Protocol):
    """What turns one image into rows of features."""

    @property
    def name(self) -> str:
        """Stands in the name of every score that is made with it."""

    @property
    def identity(self) -> str:
        """Differs wherever the rows of an image may differ: what they are remembered by."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the features; none where they are but numbered."""

    @property
    def has_units(self) -> bool:
        """Whether features are of different kinds, to be compared by how much each varies, or all of one kind."""

    def __call__(self, image: Array, window: Range, spacing_mm: Sequence[float]) -> Floats:
        """(rows, d) of an image (X, Y, Z), its axes running to the right, to the front and up."""


def image_features(
    name: str, *, slices: Slices = "mean", every: int = 4, bin_width: float | None = None, device: str = "cpu"
) -> ImageFeatures:
    """The features that a name stands for.

    Args:
        name: `radiomic`, `hand-made`, `random-conv`, `deepbet`, `efficientnet-lite0`, or the path of a network:
            TorchScript, ONNX (`.onnx`), or weights of EfficientNet-lite (a state dict or `.safetensors`).
        slices: networks of pictures look at the slices of a volume; `mean` makes one row of them, `each` a row of each.
        every: of how many axial slices they look at one; those that are one grey throughout are left out.
        bin_width: of grey levels, in the unit of the image, for `radiomic`; 32 bins of the window if not given.
        device: where a network works, for torch.

    Raises:
        InputError: if there is no such file, it holds no network that is known, or a package is missing, which it
            names.

    Example:
        >>> ramp = np.linspace(0, 100, 512).reshape(8, 8, 8)
        >>> image_features("radiomic")(ramp, (0, 100), (1, 1, 1)).shape
        (1, 38)
    """
    if every < 1:
        raise InputError(f"every: one slice of {every}; accepted is 1 or more")
    cut: dict[str, Any] = {"every": every, "each": slices == "each"}
    match name:
        case "radiomic":
            return Radiomic(bin_width)
        case "hand-made":
            return OfImages(HandMade(), "hand-made-1", has_units=True, **cut)
        case "random-conv":
            return OfImages(RandomConv(), "random-conv-1", has_units=True, **cut)
        case "deepbet":
            bet = DeepBet(device)
            return OfImages(bet, bet.identity, dims=3, **cut)
        case "efficientnet-lite0":
            lite = EfficientNetLite(device=device)
            return OfImages(lite, lite.identity, dims=2, **cut)
    return _own(Path(name), cut, device)


@dataclass(frozen=True)
class Radiomic:
    """The features of `medgan.metrics.radiomics`, of the image clipped to the window.

    Where one is undefined, as of a constant image, it is 0: a blank image is to be far from all others, not to be left
    out.

    Args:
        bin_width: of grey levels in the unit of the image, the first from the window's lower end; 32 bins of the
            window if not given.
    """

    bin_width: float | None = None
    name: str = "radiomic"
    columns: Sequence[str] = NAMES
    has_units: bool = True

    @property
    def identity(self) -> str:
        """The version of the features, and their bins."""
        return f"radiomic-1 bin_width={self.bin_width}"

    def __call__(self, image: Array, window: Range, spacing_mm: Sequence[float]) -> Floats:
        """(1, 38).

        Raises:
            InputError: if a voxel is not finite.
        """
        if not np.isfinite(image).all():
            raise InputError("a voxel of the image is not finite")
        levels = Discretisation(width=self.bin_width, value_range=window if window[0] < window[1] else None)
        found = radiomics(np.clip(image, *window), spacing_mm=spacing_mm, grey_levels=levels)
        return np.asarray(np.nan_to_num(np.array([list(found.values())])))


@dataclass(frozen=True, eq=False)
class OfImages:
    """Rows of an image by what takes tensors in [-1, 1], the window's ends.

    Slices are cut along the axis of one voxel, if there is one, else along the third; they hang as radiologists hang
    them (of an axial one the patient's right is on the left, the front on top).

    Args:
        features: takes (N, C, X, Y) or (N, C, X, Y, Z).
        version: of it: differs wherever its rows differ.
        dims: 2 where it looks at slices, 3 at volumes; None where it takes either: then slices of what has but one.
        channels: how often the image is repeated.
        every: of how many slices it looks at one.
        each: whether each slice makes a row, or all of them their mean.
        columns: names of the features.
        has_units: whether features are of different kinds.
    """

    features: Features
    version: str
    dims: int | None = None
    channels: int = 1
    every: int = 4
    each: bool = False
    columns: Sequence[str] = ()
    has_units: bool = False

    @property
    def name(self) -> str:
        """That of the network."""
        return self.features.name

    @property
    def identity(self) -> str:
        """The network, and which slices it sees."""
        return f"{self.version} dims={self.dims} every={self.every} each={self.each}"

    def __call__(self, image: Array, window: Range, spacing_mm: Sequence[float]) -> Floats:  # noqa: ARG002
        """(rows, d).

        Raises:
            InputError: if the network does not take such an image.
        """
        flat = self.dims == 2 or (self.dims is None and min(image.shape) == 1)
        if not flat and min(image.shape) < 8:
            seen = "×".join(map(str, image.shape))
            raise InputError(f"{self.name} looks at volumes of 8 voxels a side or more; seen {seen}")
        x = torch.from_numpy(_slices(image, window, self.every) if flat else _scaled(image, window)[None])[:, None]
        rows = self.features(x.expand(-1, self.channels, *x.shape[2:]))
        return rows if self.each else np.asarray(rows.mean(axis=0, keepdims=True))


# --- images -----------------------------------------------------------------------------------------------------------


def _scaled(image: Array, window: Range) -> npt.NDArray[np.float32]:
    low, high = window
    scaled = (np.clip(image, low, high).astype(np.float32) - low) * (2 / (high - low) if high > low else 0) - 1
    return np.ascontiguousarray(scaled, dtype=np.float32)


def _slices(image: Array, window: Range, every: int) -> npt.NDArray[np.float32]:
    """(S, rows, columns): every so many, as many missing at one end as at the other."""
    axis = image.shape.index(1) if 1 in image.shape else 2
    stack = np.moveaxis(image, axis, 0)
    chosen = stack[(len(stack) - 1) % every // 2 :: every]
    told = chosen[[piece.min() < piece.max() for piece in chosen]]
    hung = (told if len(told) else chosen)[:, ::-1, ::-1].transpose(0, 2, 1)
    return _scaled(hung, window)


# --- networks ---------------------------------------------------------------------------------------------------------


def _own(path: Path, cut: Mapping[str, Any], device: str) -> OfImages:
    """A network in a file: what it takes is told by its first convolution."""
    if not path.is_file():
        raise InputError(f"{path}: no such features (accepted: {', '.join(BUILT_IN)}, or the file of a network)")
    if path.suffix == ".onnx":
        net: TorchScript | Onnx = Onnx(path, device)
    elif _is_torchscript(path):
        net = TorchScript(path, device)
    else:
        lite = EfficientNetLite(path, device)
        return OfImages(lite, lite.identity, dims=2, **cut)
    shape = net.first_filter
    dims, channels = (len(shape) - 2, shape[1]) if len(shape) in (4, 5) else (None, 1)
    return OfImages(net, f"own-1 {sha256_of(path)}", dims=dims, channels=channels, **cut)


def _is_torchscript(path: Path) -> bool:
    try:
        torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError):
        return False
    return True
