"""One training, declared: YAML and dotted overrides in, frozen settings out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias, cast

import torch
import yaml
from pydantic import Field, model_validator
from torch import Tensor

from medgan import declared
from medgan.conditions import Condition
from medgan.data import Augment, Weights, flat_axis
from medgan.declared import read_yaml
from medgan.device import channels_last
from medgan.errors import ConfigError
from medgan.models import SAMPLERS, Kind, ModelSettings, Sampler, SamplerSettings, Translator, build, build_sampler
from medgan.prep import Prep, SamplingPrep
from medgan.schedule import TrainSettings
from medgan.settings import Settings

__all__ = [
    "AnyConfig",
    "Config",
    "SamplingConfig",
    "TrainSettings",
    "Training",
    "dump",
    "load",
    "load_translation",
    "overridden",
]

UNCHANGED = Augment(flip_axes=(), rotate_deg=0, scale=0, gamma=0, noise=0)

# Settings that name files: in a YAML file relative to that file, on the command line to the working folder.
PATHS = {("cases",), ("exclude",), ("model", "perceptual", "vgg19"), ("model", "perceptual", "torchscript")}


class Training(Settings):
    """What every training depends on.

    Args:
        cases: the table of cases; in a YAML file relative to that file.
        exclude: a list of cases to leave out, such as `exclude.csv` of `medgan check`; likewise.
        patch: size in voxels (RAS axes); one of them 1 for 2-D, `[96, 96, 1]` for axial slices.
        train: steps, learning rate, precision, seed.
    """

    cases: Path
    exclude: Path | None = None
    patch: tuple[int, int, int]
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _patch_in_range(self) -> Self:
        if min(self.patch) < 1:
            raise ValueError("patch: its three sizes are at least 1")
        return self

    @property
    def memory_format(self) -> torch.memory_format:
        """How images of the network lie in memory."""
        return channels_last(self.spatial_dims) if self.train.channels_last else torch.contiguous_format

    @property
    def spatial_dims(self) -> int:
        """2 for patches one voxel thick, else 3."""
        return 3 if flat_axis(self.patch) is None else 2

    @property
    def size(self) -> tuple[int, ...]:
        """Of a patch as the networks see it, without its flat axis, voxels."""
        flat = flat_axis(self.patch)
        return tuple(size for axis, size in enumerate(self.patch) if axis != flat)


class Config(Training):
    """Everything that the training of a translator depends on.

    Args:
        cases, exclude, patch, train: as for every training.
        prep: the intensity contract and the spacing.
        augment: random changes of training patches.
        model: the game and its networks.
        weights: how much each voxel counts in losses that compare a translation with its target.
        neighbours: slices on either side of a 2-D patch that the network sees as further channels of the source
            (2.5-D); 0 for none. Without pairs it makes as many slices as it sees, of which the middle one is kept.
        overlap: of windows when whole volumes are translated.
    """

    prep: Prep
    augment: Augment = Augment()
    model: ModelSettings
    weights: Weights = Weights()
    neighbours: int = Field(default=0, ge=0, le=16)
    overlap: float = Field(default=0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _tint_of_pairs_alone(self) -> Config:
        if not self.model.paired and (self.augment.gamma or self.augment.noise):
            raise ValueError(
                f"augment: {self.model.name} learns without pairs, and would learn to make images of that contrast "
                "and noise; set augment.gamma and augment.noise to 0"
            )
        return self

    @model_validator(mode="after")
    def _neighbours_of_a_slice(self) -> Config:
        if self.neighbours and flat_axis(self.patch) is None:
            raise ValueError("neighbours: belongs to patches one voxel thick, such as [96, 96, 1]; a block has its own")
        return self

    @model_validator(mode="after")
    def _contrasts_of_pairs(self) -> Config:
        if self.prep.contrasts and not self.model.paired:
            raise ValueError(
                f"prep.contrasts: {self.model.name} learns without pairs, from one image a case; leave them out"
            )
        return self

    @model_validator(mode="after")
    def _weights_of_pairs(self) -> Config:
        if not self.model.paired and self.weights != Weights():
            raise ValueError(f"weights: {self.model.name} compares nothing with a target; leave them out")
        return self

    @model_validator(mode="after")
    def _weights_have_effect(self) -> Config:
        (low, high), unit = self.prep.b.output_range, self.prep.b.output_unit
        for region in self.weights.regions:
            if region.range[0] > high or region.range[1] < low:
                seen = f"{region.range[0]:g} to {region.range[1]:g}"
                raise ValueError(
                    f"weights.regions: nothing lies at {seen}, as the target is clipped to {low:g} to {high:g} {unit}; "
                    "name a range of these values"
                )
        if not self.weights.of_values(self._steps_of_weights()).any():
            raise ValueError("weights.regions: all values of the target have the weight 0, so nothing is learnt")
        return self

    def _steps_of_weights(self) -> Tensor:
        """Values of the target in its unit, of which each of its weights is that of one at least."""
        low, high = self.prep.b.output_range
        ends = {low, high, *(end for region in self.weights.regions for end in region.range)}
        steps = torch.tensor(sorted(end for end in ends if low <= end <= high))
        return torch.cat([steps, (steps[1:] + steps[:-1]) / 2])

    @property
    def weigh(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The weights of a patch from its target and its share of body; None where all voxels count alike."""
        return None if self.weights == Weights() else partial(self.weights.of, intensity=self.prep.b)

    @property
    def in_channels(self) -> int:
        """Channels of the source: its contrasts, and those of the slices on either side."""
        return len(self.prep.sources) * (1 + 2 * self.neighbours)

    @property
    def neighbours_made(self) -> int:
        """Slices on either side that are made along: those seen, where what is made has to pass for a source again."""
        return 0 if self.model.paired else self.neighbours

    @property
    def out_channels(self) -> int:
        """Channels of what the network makes: a slice or block, and the slices that are made along."""
        return 1 + 2 * self.neighbours_made

    @property
    def required(self) -> tuple[str, ...]:
        """Roles that every case of training and validation must have; without pairs none."""
        return (*self.prep.required, "b") if self.model.paired else ()

    def build(self) -> Translator:
        """The game with fresh weights from torch's global random numbers."""
        channels = {"in_channels": self.in_channels, "out_channels": self.out_channels}
        return cast(Translator, build(self.model, **channels, spatial_dims=self.spatial_dims))


class SamplingConfig(Training):
    """Everything that the training of a sampler depends on.

    Args:
        cases, patch, train: as for every training; the patch is the whole image that is made.
        prep: the intensity contract and the spacing.
        conditions: what images are asked to show, by the name of a column `condition:<name>`.
        slices: of a volume that is learnt slice by slice: those in which the body covers at least this share of the
            area that it has in its largest slice.
        balance: the condition whose classes come equally often, however many images they have; null for as they come.
        augment: random changes of training images. What is changed here is made, too: of mirrored training images come
            mirrored samples.
        model: the game and its networks.
        samples: images made for a validation.
    """

    prep: SamplingPrep
    conditions: dict[str, Condition] = Field(default_factory=dict)
    slices: float = Field(default=0.5, gt=0, le=1)
    balance: str | None = None
    augment: Augment = UNCHANGED
    model: SamplerSettings
    samples: int = Field(default=256, ge=16, le=10_000)

    @model_validator(mode="after")
    def _as_they_are(self) -> SamplingConfig:
        if self.augment.gamma or self.augment.noise:
            raise ValueError("augment: samples would have that contrast and noise; set gamma and noise to 0")
        if self.train.decay == "plateau":
            raise ValueError("train.decay: a plateau of an error is not known for samplers; take another one")
        if self.train.precision == "fp16":
            raise ValueError("train.precision: gradients of gradients leave the range of fp16; take bf16 or 32")
        if self.train.compile:
            raise ValueError("train.compile: torch.compile knows no gradients of gradients; set it to false")
        if self.slices != type(self).model_fields["slices"].default and self.spatial_dims == 3:
            raise ValueError("slices: belongs to patches one voxel thick; leave it out")
        if self.balance is not None and not (self.balance in self.conditions and self.conditions[self.balance].classes):
            raise ValueError(f"balance: {self.balance!r} is no condition with classes; name one or leave it out")
        return self

    @model_validator(mode="after")
    def _conditions_have_effect(self) -> SamplingConfig:
        if self.conditions and self.model.conditional == "never":
            raise ValueError(f"conditions: {self.model.name} makes images without any; leave them out")
        if not self.conditions and self.model.conditional == "always":
            raise ValueError(f"conditions: {self.model.name} needs one at least; take dcgan for none")
        return self

    @property
    def required(self) -> tuple[str, ...]:
        """Roles that every case must have."""
        return self.prep.roles

    @property
    def kind(self) -> Kind:
        """Of the images that are made."""
        return Kind(
            channels=len(self.prep.roles),
            size=self.size,
            groups=tuple(condition.width for condition in self.conditions.values()),
            modality=next(iter(self.prep.images.values())).modality,
            masks=int(self.prep.mask is not None),
        )

    def build(self) -> Sampler:
        """The game with fresh weights from torch's global random numbers."""
        return build_sampler(self.model, self.kind)


AnyConfig: TypeAlias = Config | SamplingConfig


def load(path: Path, overrides: Sequence[str] = ()) -> AnyConfig:
    """Read a YAML file and apply `dotted.key=value` overrides; the model's name tells which kind it is.

    Raises:
        InputError: if the file is missing or is no YAML.
        ConfigError: for unknown keys and values out of range, each named by its full key.
    """
    values = overridden(read_yaml(Path(path), PATHS), overrides)
    return SamplingConfig.parse(values) if _samples(values) else Config.parse(values)


def load_translation(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The same for what only a translator can do.

    Raises:
        ConfigError: also for the config of a sampler.
    """
    config = load(path, overrides)
    if not isinstance(config, Config):
        raise ConfigError(f"{path}: its model {config.model.name} samples images; name the config of a translator")
    return config


def _samples(values: Mapping[str, Any]) -> bool:
    model = values.get("model")
    return isinstance(model, dict) and model.get("name") in SAMPLERS


def dump(config: AnyConfig) -> str:
    """The resolved config as YAML, every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain values, changed by `dotted.key=value` texts.

    Raises:
        ConfigError: for a text of another form.

    Example:
        >>> overridden({"train": {"steps": 5}}, ["train.lr=0.1"])
        {'train': {'steps': 5, 'lr': 0.1}}
    """
    return declared.overridden(values, overrides, PATHS)
