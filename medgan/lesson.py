"""What a translator learns from, and how it is examined: patches of training cases, volumes of validation cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch

from medgan.cases import Case, read_cases
from medgan.config import Config
from medgan.data import AllPatches, Pair, Patches, Scan, UnpairedPatches, batches, read_pairs, read_scans
from medgan.doctor import examine
from medgan.errors import CasesError, ConfigError
from medgan.models.base import Game, Translator
from medgan.processes import all_of, is_first, share
from medgan.validate import Scores, at_once, mean, score, show, translate_scan

__all__ = ["EXAMINED", "LOOKS", "TranslationLesson", "translation_cases"]

EXAMINED, LOOKS = 8, 6  # patches of a look, and how often: under batch norm one look says little


class TranslationLesson:
    """What a translator learns from and is examined by.

    Args:
        config: of the training.
        training: its cases.
        validation: cases of other patients; each process translates its share of them.

    Attributes:
        patches: what is learnt from.
        held_out: what is translated and, where it has a target, scored.
        unseen: what the players are examined on beside what they learn from, by the first process.
        criterion: the score by which the best weights are kept: lower is better.
        goals: the scores that patience goes by, and whether more (1) or less (-1) is better.
        pictured: what the pictures of an exam show.
    """

    criterion = "mae"
    goals: ClassVar[Mapping[str, int]] = {"mae": -1}
    pictured = "source_synthetic_target_error"

    def __init__(self, config: Config, training: Sequence[Case], validation: Sequence[Case]) -> None:
        self.config = config
        self.patches: AllPatches = _patches(config, training)
        self.held_out = _held_out(config, share([case for case in validation if "a" in case.images]))
        self.unseen = _unseen(config, self.held_out, validation) if is_first() else None

    def exam(self, shadow: Game, device: torch.device) -> tuple[Scores, npt.NDArray[np.uint8] | None]:
        """The errors of the validation volumes, in the unit of b; from the first process a picture of some slices."""
        game, value_range = cast(Translator, shadow), self.config.prep.b.output_range
        fakes = [translate_scan(game, scan, self.config, device) for scan in self.held_out]
        own = [score(*pair, value_range) for pair in zip(fakes, self.held_out, strict=True)]
        return mean(all_of(own)), show(fakes, self.held_out, value_range) if is_first() else None

    def look(self, game: Game, device: torch.device) -> dict[str, float]:
        """How the players do on patches of training and validation cases."""
        config, sources = self.config, [self.patches, *([self.unseen] if self.unseen else [])]
        streams = [batches(source, batch=EXAMINED, start=0, stop=LOOKS) for source in sources]
        looks = [
            examine(
                game,
                *(batch.to(device, memory_format=config.memory_format) for batch in together),
                at_once=at_once(config),
            )
            for together in zip(*streams, strict=True)
        ]
        return {name: sum(look[name] for look in looks) / LOOKS for name in looks[0]}

    def told(self, scores: Scores) -> str:
        """The scores in words."""
        if not scores:
            return "no validation case has a target to score by; these weights are kept"
        said = ", ".join(f"{name.upper()} {value:.4g}" for name, value in scores.items() if value is not None)
        return f"{said}; MAE in {self.config.prep.b.output_unit}, PSNR in dB"

    def facts(self) -> Mapping[str, Any]:
        """What else is said of the training data in the card."""
        return {}


def translation_cases(config: Config, split: str) -> list[Case]:
    """The cases of a split that the model can use: those with all images, or without pairs all.

    Raises:
        CasesError: if there are none, or without pairs no image to translate from or, in training, to.
        ConfigError: if the learning rate or the end goes by a validation error that no case tells.
    """
    cases = read_cases(config.cases, split=split, required=config.required, exclude=config.exclude)
    for role in ("a", "b") if split == "train" else ("a",):
        if not any(role in case.images for case in cases):
            image = "" if config.model.paired else f" with an image {role}"
            raise CasesError(
                f"{config.cases}: has no case{image} in the split {split}; add some or index with another --split"
            )
    if split == "val":
        _refuse_blind(config, cases)
    return cases


def _refuse_blind(config: Config, validation: Sequence[Case]) -> None:
    by_error = {"decay: plateau": config.train.decay == "plateau", "patience": config.train.patience > 0}
    asked = [f"train.{name}" for name, is_so in by_error.items() if is_so]
    if asked and not any({"a", "b"} <= case.images.keys() for case in validation):
        raise ConfigError(
            f"{asked[0]}: goes by the validation error, and no case of the split val in {config.cases} has both images "
            "to tell it; add pairs there, or do without"
        )


def _patches(config: Config, cases: Sequence[Case]) -> AllPatches:
    what, workers = "Reading training cases", config.train.workers
    settings = (config.patch, config.augment, config.train.seed)
    if config.model.paired:
        pairs = read_pairs(cases, config.prep, what, workers)
        dropout = config.prep.contrast_dropout
        return Patches(pairs, *settings, neighbours=config.neighbours, weigh=config.weigh, contrast_dropout=dropout)
    a, b = (read_scans(cases, role, config.prep, f"{what}, {role}", workers) for role in ("a", "b"))
    return UnpairedPatches(a, b, *settings, neighbours=config.neighbours)


def _held_out(config: Config, cases: Sequence[Case]) -> list[Scan]:
    """Pairs where the cases have both images; only those can be scored."""
    both = [case for case in cases if {"a", "b"} <= case.images.keys()]
    alone = [case for case in cases if case not in both]
    what, workers = "Reading validation cases", config.train.workers
    pairs = read_pairs(both, config.prep, what, workers) if both else []
    return [*pairs, *(read_scans(alone, "a", config.prep, f"{what}, a", workers) if alone else [])]


def _unseen(config: Config, held_out: Sequence[Scan], cases: Sequence[Case]) -> AllPatches:
    """Patches cut as those of training: without pairs b is read by itself, also where it lies on a."""
    settings = (config.patch, config.augment, config.train.seed)
    if config.model.paired:
        return Patches([one for one in held_out if isinstance(one, Pair)], *settings, neighbours=config.neighbours)
    having = [case for case in cases if "b" in case.images]
    what, workers = "Reading validation cases, b", config.train.workers
    b = read_scans(having, "b", config.prep, what, workers) if having else []
    return UnpairedPatches(held_out, b, *settings, neighbours=config.neighbours)
