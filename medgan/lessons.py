"""What a training reads before its first step, whatever it trains: settings, cases, and what is learnt from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch

from medgan.cases import Case
from medgan.config import AnyConfig, Config, Training, load
from medgan.errors import ConfigError
from medgan.leaks import refuse_leaks
from medgan.lesson import TranslationLesson, translation_cases
from medgan.models.base import Game
from medgan.sampling import SamplingLesson, sampling_cases
from medgan.validate import Scores

__all__ = ["Lesson", "cases_of", "goals_of", "lesson_of", "load_config", "read_ahead"]


class Lesson(Protocol):
    """What a game learns from, and how it is examined: `TranslationLesson` or `SamplingLesson`."""

    patches: Any  # a MONAI data set
    criterion: str
    goals: ClassVar[Mapping[str, int]]
    pictured: str

    def exam(self, shadow: Game, device: torch.device) -> tuple[Scores, npt.NDArray[np.uint8] | None]:
        """How good the averaged generators are, and from the first process a picture of what they make."""

    def look(self, game: Game, device: torch.device) -> dict[str, float]:
        """How the players do, for the doctor."""

    def told(self, scores: Scores) -> str:
        """The scores in words."""

    def facts(self) -> Mapping[str, Any]:
        """What else is said of the training data in the card: how much; never who."""


def read_ahead(config: AnyConfig | Path | str, overrides: Sequence[str] = ()) -> None:
    """Read all that a training will read, which is kept, so that the training starts at the speed of the disk.

    Args:
        config: the settings of the training, or a YAML file of them.
        overrides: `dotted.key=value`, applied to the file.

    Raises:
        ConfigError: for settings that do not fit one another.
        CasesError: for a table that cannot be used, or has one image in two splits.
        InputError: if an image is not what the settings say.
    """
    config = load_config(config, overrides)
    training, validation = cases_of(config, "train"), cases_of(config, "val")
    refuse_leaks(config.cases, config.train.workers)
    lesson_of(config, training, validation)


def load_config(config: AnyConfig | Path | str, overrides: Sequence[str]) -> AnyConfig:
    """A config as it is, or read from its file."""
    if not isinstance(config, Training):
        return load(Path(config), overrides)
    if overrides:
        raise ConfigError("overrides go with a config file; make the Config itself with other values")
    return config


def cases_of(config: AnyConfig, split: str) -> list[Case]:
    """The cases of a split that the model can use.

    Raises:
        CasesError: if there are none, or they lack what the model needs.
        ConfigError: if the settings ask for what these cases cannot give.
    """
    return translation_cases(config, split) if isinstance(config, Config) else sampling_cases(config, split)


def lesson_of(config: AnyConfig, training: Sequence[Case], validation: Sequence[Case]) -> Lesson:
    """What this game learns from and is examined by, of cases that are read here."""
    if isinstance(config, Config):
        return TranslationLesson(config, training, validation)
    return SamplingLesson(config, training, validation)


def goals_of(config: AnyConfig) -> Mapping[str, int]:
    """The scores that patience goes by, and whether more (1) or less (-1) is better."""
    return (TranslationLesson if isinstance(config, Config) else SamplingLesson).goals
