"""VGG-19 as a judge of likeness: a net that was trained on photographs, given by a file, never trained here."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from medgan.errors import ConfigError
from medgan.nets.perceptual import PerceptualDistance, content_of

__all__ = ["vgg19"]

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


def vgg19(path: Path) -> PerceptualDistance:
    """Likeness as VGG-19 sees it.

    The features are those behind relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1, with weights 1/32, 1/16, 1/8, 1/4 and
    1.

    Args:
        path: a state dict of torchvision's `vgg19`, .pth or .safetensors; it may be narrower. What is not
            `features.N.weight` or `.bias` is not used.

    Source:
        Layers and weights as in the reference implementation of Wang et al. 2018, arXiv:1711.11585, which does not
        normalise by ImageNet's mean and deviation as is done here. The net: Simonyan & Zisserman 2015,
        arXiv:1409.1556, table 1, E.
    """
    return PerceptualDistance("vgg19", partial(_read, path), weights=WEIGHTS, smallest=SMALLEST)


class _VGG19(nn.Module):
    """(N, 1, X, Y) in [-1, 1] to what comes out behind the first conv of each stage."""

    def __init__(self, convs: Mapping[int, nn.Conv2d]) -> None:
        super().__init__()
        self.convs = nn.ModuleDict({str(number): conv for number, conv in convs.items()})

    def forward(self, x: Tensor) -> list[Tensor]:
        x, seen = ((x + 1) / 2 - _filled(x, MEAN)) / _filled(x, STD), []
        for number, stage in enumerate(STAGES):
            x = F.max_pool2d(x, 2) if number else x
            for place, conv in enumerate(stage):
                x = F.relu(self.convs[str(conv)](x))
                if place == 0:
                    seen.append(x)
        return seen


def _filled(x: Tensor, values: Sequence[float]) -> Tensor:
    """(channels, 1, 1), filled where x is: a GPU would have to wait for a tensor copied from the host."""
    return torch.stack([x.new_full((1, 1), value) for value in values])


def _read(path: Path) -> tuple[nn.Module, str]:
    content = content_of(path, "vgg19", "a state dict of torchvision's vgg19")
    net = _VGG19(dict(_convs(_tensors(content, path), path)))
    return net.eval().requires_grad_(False), hashlib.sha256(content).hexdigest()


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


def _convs(tensors: Mapping[str, Any], path: Path) -> Iterator[tuple[int, nn.Conv2d]]:
    """Each conv by its number, in their order, each taking what the one before gives."""
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
        yield conv, _conv(weight.detach().float(), bias.detach().float())


def _conv(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1, device="meta")
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    return conv


def _not_vgg(path: Path, told: str) -> ConfigError:
    return ConfigError(
        f"model.perceptual.vgg19: {path} is no VGG-19 in torchvision's layout ({told}); "
        "name a state dict of its vgg19, .pth or .safetensors"
    )
