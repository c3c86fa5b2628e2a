"""What a translator learns from, and how it is examined: patches of training cases, volumes of validation cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medgan.cases import Case, read_cases
from medgan.config import Config
from medgan.data import AllPatches, Batches, Pair, Patches, Scan, UnpairedPatches, batches, read_pairs, read_scans
from medgan.device import autocast
from medgan.errors import CasesError, ConfigError
from medgan.exam import EXAMINED, HeldOutSet, look, told_as_set
from medgan.models.base import Batch, Game, Translator
from medgan.processes import all_of, gathered, is_first, share
from medgan.validate import Scores, at_once, mean, score, show, translate_scan

__all__ = ["TranslationLesson", "translation_cases"]

COMPARED = 192  # patches of a set


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
        criterion: the score by which the best weights are kept: lower is better. `mae` where a validation case has both
            images; without pairs `fd`, how far translations are, as a set, from held-out images of b.
        goals: the scores that patience goes by, and whether more (1) or less (-1) is better; there is one of them.
        pictured: what the pictures of an exam show.
    """

    goals: ClassVar[Mapping[str, int]] = {"mae": -1, "fd": -1}
    pictured = "source_synthetic_target_error"

    def __init__(self, config: Config, training: Sequence[Case], validation: Sequence[Case]) -> None:
        self.config, self.criterion = config, "mae" if _has_pairs(validation) else "fd"
        self.patches: AllPatches = _patches(config, training)
        self.held_out = _held_out(config, share([case for case in validation if "a" in case.images]))
        self.unseen = _unseen(config, self.held_out, validation) if is_first() else None

    def exam(self, shadow: Game, device: torch.device) -> tuple[Scores, npt.NDArray[np.uint8] | None]:
        """The errors of the validation volumes, in the unit of b; from the first process a picture of some slices."""
        game, value_range = cast(Translator, shadow), self.config.prep.b.output_range
        fakes = [translate_scan(game, scan, self.config, device) for scan in self.held_out]
        own = [score(*pair, value_range) for pair in zip(fakes, self.held_out, strict=True)]
        scores = mean(all_of(own)) if self.criterion == "mae" else gathered(self.resemblance(game, device))[0]
        return scores, show(fakes, self.held_out, value_range) if is_first() else None

    def resemblance(self, game: Translator, device: torch.device) -> Scores:
        """Of patches made of held-out a, by the first process where there are both: how far from held-out b, as a set.

        Beside it what patches of b from training score: as near as real images of other patients come.
        """
        if not isinstance(self.unseen, UnpairedPatches) or not self.unseen.has_both:
            return {}
        fakes = [self._made(game, batch, device) for batch in self._compared(self.unseen)]
        return self._real.scores(torch.cat(fakes))

    def _made(self, game: Translator, batch: Batch, device: torch.device) -> Tensor:
        a, _ = batch.to(device, memory_format=self.config.memory_format).both()
        with torch.no_grad(), autocast(device, self.config.train.precision):
            parts = [game.translate(part) for part in torch.split(a, at_once(self.config))]
        return self._own(torch.cat(parts)).float().cpu()

    def _own(self, slices: Tensor) -> Tensor:
        """Of a slice and its neighbours the slice itself, (N, 1, *spatial)."""
        return slices[:, self.config.neighbours_made].unsqueeze(1)

    def _compared(self, patches: AllPatches) -> Batches:
        """The same ones at every validation."""
        return batches(patches, batch=EXAMINED, start=0, stop=COMPARED // EXAMINED)

    @cached_property
    def _real(self) -> HeldOutSet:
        learnt, unseen = (
            torch.cat([self._own(batch.images()) for batch in self._compared(patches)])
            for patches in (self.patches, cast(AllPatches, self.unseen))
        )
        return HeldOutSet(learnt, unseen, most=COMPARED, seed=self.config.train.seed)

    def look(self, game: Game, device: torch.device) -> dict[str, float]:
        """How the players do on patches of training and validation cases."""
        return look(game, [self.patches, *([self.unseen] if self.unseen else [])], self.config, device)

    def told(self, scores: Scores) -> str:
        """The scores in words."""
        if not scores:
            return "no validation case has a target to score by; these weights are kept"
        if "fd" in scores:
            return told_as_set(scores, "translations")
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


def _has_pairs(cases: Sequence[Case]) -> bool:
    return any({"a", "b"} <= case.images.keys() for case in cases)


def _refuse_blind(config: Config, validation: Sequence[Case]) -> None:
    if _has_pairs(validation):
        return
    if config.train.decay == "plateau":
        raise ConfigError(
            f"train.decay: plateau: goes by the validation error, and no case of the split val in {config.cases} has "
            "both images to tell it; add pairs there, or do without"
        )
    if config.train.patience and not any("b" in case.images for case in validation):
        raise ConfigError(
            f"train.patience: goes by validation, and no case of the split val in {config.cases} has an image b to "
            "compare with; add some there, paired or not, or do without"
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
