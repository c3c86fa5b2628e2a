"""One training, declared: YAML and dotted overrides in, frozen settings out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import Field, model_validator
from torch import Tensor

from medgan.data import Augment, Weights, flat_axis
from medgan.errors import ConfigError, InputError
from medgan.models import ModelSettings, Translator, build
from medgan.prep import Prep
from medgan.settings import Settings

__all__ = ["Config", "TrainSettings", "dump", "load"]

# PyYAML lets more than its own error through: `2001-99-99`, `!!bool 7`, `!!int ""`, a thousand open brackets.
NO_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)


class TrainSettings(Settings):
    """How long, how fast, how exact.

    Args:
        steps: generator steps in all.
        batch: patches a step.
        lr: of Adam, for both players.
        betas: of Adam.
        decay_from: share of the steps after which the learning rate falls linearly to zero.
        ema: decay of the running average of the generator's weights, which is what the run keeps; 0 for none.
        precision: `bf16` computes in bfloat16 where that is safe (autocast); weights stay float32.
        channels_last: memory layout of tensors in which convolutions often run faster.
        validate_every: steps between translations of the whole validation volumes.
        patience: validations that may be no better than the best one before the training ends; 0 for all steps.
        checkpoint_every: steps between saved states; a killed run goes on from the last one.
        log_every: steps between lines in metrics.jsonl.
        workers: processes that cut and augment patches; 0 does it in the training process.
        seed: of initial weights, order, patches, augmentation and dropout.
    """

    steps: int = Field(default=20_000, ge=1)
    batch: int = Field(default=1, ge=1)
    lr: float = Field(default=2e-4, gt=0, lt=1)
    betas: tuple[float, float] = (0.5, 0.999)
    decay_from: float = Field(default=0.5, ge=0, le=1)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["32", "bf16"] = "32"
    channels_last: bool = False
    validate_every: int = Field(default=1000, ge=1)
    patience: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    workers: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**31)


class Config(Settings):
    """Everything that a training depends on.

    Args:
        cases: the table of cases; in a YAML file relative to that file.
        prep: the intensity contract and the spacing.
        patch: size in voxels (RAS axes); one of them 1 for 2-D, `[96, 96, 1]` for axial slices.
        augment: random changes of training patches.
        model: the game and its networks.
        train: steps, learning rate, precision, seed.
        weights: how much each voxel counts in losses that compare a translation with its target.
        neighbours: slices on either side of a 2-D patch that the network sees as further channels of the source
            (2.5-D); 0 for none.
        overlap: of windows when whole volumes are translated.
    """

    cases: Path
    prep: Prep
    patch: tuple[int, int, int]
    augment: Augment = Augment()
    model: ModelSettings
    train: TrainSettings = TrainSettings()
    weights: Weights = Weights()
    neighbours: int = Field(default=0, ge=0, le=16)
    overlap: float = Field(default=0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _patch_in_range(self) -> Config:
        if min(self.patch) < 1:
            raise ValueError("patch: its three sizes are at least 1")
        return self

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
        if self.neighbours and not self.model.paired:
            raise ValueError(f"neighbours: {self.model.name} makes single slices, which have none; set it to 0")
        return self

    @model_validator(mode="after")
    def _weights_of_pairs(self) -> Config:
        if not self.model.paired and self.weights != Weights():
            raise ValueError(f"weights: {self.model.name} compares nothing with a target; leave them out")
        return self

    @property
    def weigh(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The weights of a patch from its target and its share of body; None where all voxels count alike."""
        return None if self.weights == Weights() else partial(self.weights.of, intensity=self.prep.b)

    @property
    def spatial_dims(self) -> int:
        """2 for patches one voxel thick, else 3."""
        return 3 if flat_axis(self.patch) is None else 2

    @property
    def in_channels(self) -> int:
        """Channels of the source: its slice, and those on either side of it."""
        return 1 + 2 * self.neighbours

    def build(self) -> Translator:
        """The game with fresh weights from torch's global random numbers."""
        game = build(self.model, in_channels=self.in_channels, out_channels=1, spatial_dims=self.spatial_dims)
        return cast(Translator, game)


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `dotted.key=value` overrides.

    Raises:
        InputError: if the file is missing or is no YAML.
        ConfigError: for unknown keys and values out of range, each named by its full key.
    """
    values = _read_yaml(Path(path))
    if isinstance(values.get("cases"), str):
        values["cases"] = _resolved(values["cases"], Path(path).resolve().parent)
    for override in overrides:
        _override(values, override)
    return Config.parse(values)


def dump(config: Config) -> str:
    """The resolved config as YAML, every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from None
    except NO_YAML as error:
        raise InputError(f"{path}: is no YAML ({' '.join(str(error).split())}); correct it there") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no settings; see configs/ for complete examples")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override}: an override is key=value with dots in the key, such as train.steps=2000")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key}: {parent} holds a value, not settings")
    try:
        values[last] = yaml.safe_load(text)
    except NO_YAML:
        raise ConfigError(f"{key}: {text!r} cannot be read as a YAML value; quote it if it is text") from None
    if key == "cases":
        values[last] = _resolved(text, Path())


def _resolved(path: str, home: Path) -> str:
    """The absolute path of the table of cases."""
    try:
        return str((home / path).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null in the name
        raise ConfigError(f"cases: {path!r} is no path ({error}); name a table of cases") from None
