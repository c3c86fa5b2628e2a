"""VGG-19 as a judge of likeness: a net that was trained on photographs, given by a file, never trained here."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load as load_safetensors
from torch import Tensor

from medgan.errors import ConfigError, InputError

__all__ = ["PerceptualDistance"]

# The convs of each stage, by their numbers in torchvision's `features`; ReLUs follow them, maxima of 2 end a stage.
STAGES = ((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28,))
WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of the outputs of each stage's first conv
SMALLEST = 2 ** (len(STAGES) - 1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for images in [0, 1]
# What torch.load and the pickle reader in it raise on files that are cut short or of another kind.
NO_WEIGHTS = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(pickle.UnpicklingError, struct.error, safetensors.SafetensorError),
)


class PerceptualDistance:
    """How differently VGG-19 sees two images in [-1, 1]: a weighted sum of L1 distances of its features.

    The features are those behind relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1, with weights 1/32, 1/16, 1/8, 1/4 and
    1. Each channel is taken for a grey image. Volumes are seen as all their slices along one axis, drawn anew from
    torch's global random numbers at each call; so each axis counts alike.

    The net is read from the file when it is first needed and moves to where the images are. It is no module: no
    checkpoint, no file of weights and no optimizer holds anything of it.

    Args:
        path: a state dict of torchvision's `vgg19`, .pth or .safetensors; it may be narrower. What is not
            `features.N.weight` or `.bias` is not used.

    Source:
        Johnson et al. 2016, arXiv:1603.08155, §3.2; layers and weights as in the reference implementation of Wang et
        al. 2018, arXiv:1711.11585, which does not normalise by ImageNet's mean and deviation as is done here. The net:
        Simonyan & Zisserman 2015, arXiv:1409.1556, table 1, E.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = ""  # of the file, once it is read
        self._convs: dict[int, tuple[Tensor, Tensor]] = {}

    def load(self) -> None:
        """Read the file, if that has not been done.

        Raises:
            ConfigError: if it cannot be read or holds no VGG-19.
        """
        if not self._convs:
            content = _content(self.path)
            self._convs = dict(_convs(_tensors(content, self.path), self.path))
            self.sha256 = hashlib.sha256(content).hexdigest()

    def require_size(self, size: Sequence[int]) -> None:
        """Refuse patches (X, Y) or (X, Y, Z), voxels, of which nothing would be left after four halvings.

        Raises:
            InputError: naming the size and what would fit.
        """
        if min(size) < SMALLEST:
            seen = "×".join(str(n) for n in size)
            raise InputError(
                f"a patch of {seen} is smaller than the perceptual loss takes, {SMALLEST} voxels a side; "
                "cut larger ones or set model.perceptual to null"
            )

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of x to y, (N, C, *spatial) both; y gets no gradient. In float32 or better, also under autocast.

        Raises:
            ConfigError: if the file, read now, holds no VGG-19.
        """
        self.load()
        precise = torch.promote_types(x.dtype, torch.float32)
        self._convs = {n: (w.to(x.device, precise), b.to(x.device, precise)) for n, (w, b) in self._convs.items()}
        axis = 2 if x.ndim == 4 else 2 + int(torch.randint(3, ()))
        with torch.autocast(x.device.type, enabled=False):
            with torch.no_grad():
                wanted = list(self._features(_slices(y.to(precise), axis)))
            seen = self._features(_slices(x.to(precise), axis))
            pairs = zip(WEIGHTS, seen, wanted, strict=True)
            return torch.stack([weight * (ours - theirs).abs().mean() for weight, ours, theirs in pairs]).sum()

    def _features(self, x: Tensor) -> Iterator[Tensor]:
        """(N, 1, X, Y) in [-1, 1] to what comes out behind the first conv of each stage."""
        x = ((x + 1) / 2 - x.new_tensor(MEAN).reshape(3, 1, 1)) / x.new_tensor(STD).reshape(3, 1, 1)
        for number, stage in enumerate(STAGES):
            x = F.max_pool2d(x, 2) if number else x
            for place, conv in enumerate(stage):
                x = F.relu(F.conv2d(x, *self._convs[conv], padding=1))
                if place == 0:
                    yield x


def _slices(x: Tensor, axis: int) -> Tensor:
    """(N, C, X, Y), or (N, C, X, Y, Z) cut along an axis, to (N · C · slices, 1, two axes)."""
    flat = x if x.ndim == 4 else x.movedim(axis, 2)
    return flat.reshape(-1, 1, *flat.shape[-2:])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"model.perceptual.vgg19: {path} cannot be read ({told}); name a state dict of torchvision's vgg19"
        ) from None


def _tensors(content: bytes, path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(content)
        held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except NO_WEIGHTS as error:
        told = (str(error) or type(error).__name__).partition("\n")[0].partition(". ")[0]
        raise _not_vgg(path, f"it is no file of tensors: {told}") from None
    if not isinstance(held, Mapping):
        raise _not_vgg(path, f"it holds a {type(held).__name__}")
    return held


def _convs(tensors: Mapping[str, Any], path: Path) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """The weight and the bias of each conv, in their order, each taking what the one before gives."""
    channels = 3
    for conv in (conv for stage in STAGES for conv in stage):
        weight, bias = (tensors.get(f"features.{conv}.{kind}") for kind in ("weight", "bias"))
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
            raise _not_vgg(path, f"features.{conv}.weight and .bias are not there")
        if weight.ndim != 4 or weight.shape[1:] != (channels, 3, 3) or bias.shape != weight.shape[:1]:
            seen = " and ".join("×".join(map(str, x.shape)) for x in (weight, bias))
            raise _not_vgg(path, f"features.{conv} has the shapes {seen} where (any)×{channels}×3×3 was expected")
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise _not_vgg(path, f"features.{conv} holds values that are no numbers")
        channels = len(weight)
        yield conv, (weight.detach().float(), bias.detach().float())


def _not_vgg(path: Path, told: str) -> ConfigError:
    return ConfigError(
        f"model.perceptual.vgg19: {path} is no VGG-19 in torchvision's layout ({told}); "
        "name a state dict of its vgg19, .pth or .safetensors"
    )
