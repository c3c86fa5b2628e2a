"""The settings of a perceptual loss, and the distance that they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from torch import nn

from medgan.errors import ConfigError, InputError
from medgan.nets.efficientnet import SMALLEST, LiteStages
from medgan.nets.perceptual import PerceptualDistance
from medgan.nets.torchscript import ScriptDistance
from medgan.nets.vgg import vgg19
from medgan.settings import Settings

__all__ = ["PerceptualSettings"]


class PerceptualSettings(Settings):
    """Nearness to the target as a net sees it that was trained elsewhere; one key of three names the net.

    Training alone needs it. Files are, in a YAML file, relative to that file.

    Attributes:
        vgg19: a file of VGG-19's weights: a state dict of torchvision's `vgg19`, .pth or .safetensors.
        torchscript: a file of any net, as `torch.jit.save` writes it. It is a program: only one that you trust.
        package: `efficientnet-lite0`, from the installed package of its weights.
        weight: against 1 for the adversarial loss.
    """

    vgg19: Path | None = None
    torchscript: Path | None = None
    package: Literal["efficientnet-lite0"] | None = None
    weight: float = Field(default=10.0, gt=0)

    @field_validator("vgg19", "torchscript")
    @classmethod
    def _whole(cls, path: Path | None) -> Path | None:
        return path.absolute() if path else None

    @model_validator(mode="after")
    def _one_net(self) -> PerceptualSettings:
        nets = {"vgg19": self.vgg19, "torchscript": self.torchscript, "package": self.package}
        named = [key for key, net in nets.items() if net is not None]
        if len(named) != 1:
            seen = " and ".join(named) or "none"
            raise ValueError(f"one of vgg19, torchscript and package names the net; seen {seen}; set that one alone")
        return self

    def without_folders(self) -> PerceptualSettings:
        """The same with the names of the files alone, for a config that is given away."""
        files = {"vgg19": self.vgg19, "torchscript": self.torchscript}
        return self.model_copy(update={key: Path(path.name) for key, path in files.items() if path})

    def build(self, channels: int) -> PerceptualDistance:
        """The distance between images of that many channels; nothing is read yet."""
        if self.vgg19:
            return vgg19(self.vgg19)
        if self.torchscript:
            return ScriptDistance(self.torchscript, channels)
        return PerceptualDistance("package", _lite0, smallest=SMALLEST)


def _lite0() -> tuple[nn.Module, str]:
    from medgan.metrics.pretrained import efficientnet_lite0, sha256_of

    try:
        net, weights = efficientnet_lite0()
    except InputError as error:
        raise ConfigError(f"model.perceptual.package: {error}") from None
    return LiteStages(net).eval().requires_grad_(False), sha256_of(weights)
