"""One training, declared: YAML and dotted overrides in, frozen settings out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
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

# Of the schedule `plateau`: it waits for that many validations in vain, as the reference implementation does.
PLATEAU_PATIENCE = 5

# Settings that name files: in a YAML file relative to that file, on the command line to the working folder.
PATHS = {("cases",), ("model", "perceptual", "vgg19")}


class TrainSettings(Settings):
    """How long, how fast, how exact.

    Args:
        steps: generator steps in all.
        batch: patches a step, over all processes.
        accumulate: in how many parts, one after the other, a process does its share of the batch: less memory, and
            the same step but for batch norm, which sees a part at a time.
        clip: largest L2 norm of a player's gradient, which is scaled down to it; 0 for no limit.
        lr: of Adam, for both players.
        betas: of Adam.
        decay: how the learning rate falls: `linear` or `cosine` to zero, by `step` to a tenth each time, or on a
            `plateau` to a fifth each time, which is when six validations (after the warmup) have no MAE that is 1 %
            below the least.
        decay_from: share of the steps after which it falls; by `step`, also the share between one time and the next.
            Not for `plateau`.
        warmup: steps in which the learning rate rises to `lr`; transformers want some.
        ema: decay of the running average of the generator's weights, which is what the run keeps; 0 for none.
        precision: `bf16` computes in bfloat16 where that is safe (autocast), `fp16` on a GPU in float16 with scaled
            losses; weights stay float32.
        channels_last: memory layout of tensors in which convolutions often run faster.
        validate_every: steps between translations of the whole validation volumes.
        patience: validations that may be no better than the best one before the training ends; 0 for all steps.
        checkpoint_every: steps between saved states; a killed run goes on from the last one.
        log_every: steps between lines in metrics.jsonl.
        compile: translate the nets by `torch.compile`, which takes minutes before the first step and needs a C++
            compiler; numbers change in the last digits.
        deterministic: refuse operations whose result may differ from run to run on a GPU, at some cost in speed; on a
            CPU there are none.
        workers: processes that cut and augment patches; 0 does it in the training process.
        seed: of initial weights, order, patches, augmentation and dropout.
    """

    steps: int = Field(default=20_000, ge=1)
    batch: int = Field(default=1, ge=1)
    accumulate: int = Field(default=1, ge=1)
    clip: float = Field(default=0.0, ge=0)
    lr: float = Field(default=2e-4, gt=0, lt=1)
    betas: tuple[float, float] = (0.5, 0.999)
    decay: Literal["linear", "cosine", "step", "plateau"] = "linear"
    decay_from: float = Field(default=0.5, ge=0, le=1)
    warmup: int = Field(default=0, ge=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["32", "bf16", "fp16"] = "32"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    validate_every: int = Field(default=1000, ge=1)
    patience: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    workers: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _a_step_has_a_length(self) -> TrainSettings:
        if self.decay == "step" and not self.decay_from:
            raise ValueError("decay_from: 0 would be a step without end; give the share of the steps between two")
        return self

    @model_validator(mode="after")
    def _a_plateau_can_be_seen(self) -> TrainSettings:
        if self.decay != "plateau":
            return self
        if self.decay_from != type(self).model_fields["decay_from"].default:
            raise ValueError("decay_from: a plateau begins when validation gets no better, not at a step; leave it out")
        seen = [at for at in range(self.validate_every, self.steps, self.validate_every) if at >= self.warmup]
        if len(seen) < (least := PLATEAU_PATIENCE + 2):
            raise ValueError(
                f"validate_every: {self.validate_every} leaves {len(seen)} validations between the warmup and the last "
                f"step, and a plateau is not seen in less than {least}; lower it or take another decay"
            )
        return self

    @model_validator(mode="after")
    def _whole_parts(self) -> TrainSettings:
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate: {self.accumulate} parts of a batch of {self.batch} are unequal; change one")
        return self


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

    @property
    def weigh(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The weights of a patch from its target and its share of body; None where all voxels count alike."""
        return None if self.weights == Weights() else partial(self.weights.of, intensity=self.prep.b)

    @property
    def memory_format(self) -> torch.memory_format:
        """How images of the network lie in memory."""
        if not self.train.channels_last:
            return torch.contiguous_format
        return torch.channels_last if self.spatial_dims == 2 else torch.channels_last_3d

    @property
    def spatial_dims(self) -> int:
        """2 for patches one voxel thick, else 3."""
        return 3 if flat_axis(self.patch) is None else 2

    @property
    def in_channels(self) -> int:
        """Channels of the source: its contrasts, and those of the slices on either side."""
        return len(self.prep.sources) * (1 + 2 * self.neighbours)

    @property
    def required(self) -> tuple[str, ...]:
        """Roles that every case of training and validation must have; without pairs none."""
        return (*self.prep.required, "b") if self.model.paired else ()

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
    values, home = _read_yaml(Path(path)), Path(path).resolve().parent
    for key in PATHS:
        if (holder := _holder(values, key)) is not None:
            holder[key[-1]] = _resolved(".".join(key), holder[key[-1]], home)
    for override in overrides:
        _override(values, override)
    return Config.parse(values)


def _holder(values: dict[str, Any], key: Sequence[str]) -> dict[str, Any] | None:
    """The settings in which a path stands, if it does."""
    inner: Any = values
    for part in key[:-1]:
        inner = inner.get(part) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) and isinstance(inner.get(key[-1]), str) else None


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
    if (*parents, last) in PATHS:
        values[last] = _resolved(key, text, Path())


def _resolved(key: str, path: str, home: Path) -> str:
    """An absolute path."""
    try:
        return str((home / path).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null in the name
        raise ConfigError(f"{key}: {path!r} is no path ({error}); name a file") from None
