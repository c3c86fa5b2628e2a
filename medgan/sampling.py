"""What a sampler learns from, and how it is examined: whole images, and sets of samples against held-out images."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medgan.cases import Case, listed, read_cases
from medgan.conditions import Condition, encode
from medgan.config import SamplingConfig
from medgan.device import autocast
from medgan.errors import CasesError, ConfigError
from medgan.exam import EXAMINED, HeldOutSet, look, told_as_set
from medgan.kept import read_studies
from medgan.models.base import Game, Sampler
from medgan.pictures import captioned, grey, montage
from medgan.processes import is_first
from medgan.validate import SMALL, Scores
from medgan.views import Views, views_of

__all__ = ["SamplingLesson", "contact_sheet", "latent", "make", "sampling_cases"]

CHUNK = 64
COLUMNS, ROWS = 8, 4
READABLE_PX = 64


def sampling_cases(config: SamplingConfig, split: str) -> list[Case]:
    """The cases of a split with all that a sampler learns from.

    Raises:
        CasesError: if an image or a condition is missing, there is no training case, or a class has none.
        ConfigError: if the training ends by a validation error and there is nothing to validate by.
    """
    cases = read_cases(
        config.cases,
        split=split,
        required=config.required,
        conditions=list(config.conditions),
        exclude=config.exclude,
    )
    if split == "train" and not cases:
        raise CasesError(f"{config.cases}: has no case in the split train; index with another --split")
    if split == "train":
        _refuse_missing_classes(config, cases)
    if split == "val" and config.train.patience and not cases:
        raise ConfigError(f"train.patience: goes by held-out images, and {config.cases} has no case in the split val")
    return cases


def _refuse_missing_classes(config: SamplingConfig, cases: Sequence[Case]) -> None:
    for name, condition in config.conditions.items():
        seen = {case.conditions[name] for case in cases}
        if missing := [value for value in condition.classes if value not in seen]:
            raise CasesError(
                f"{config.cases}: no training case is of {name} {listed(missing)}; add some, or leave the class out of "
                f"conditions.{name}.classes"
            )


class SamplingLesson:
    """What a sampler learns from and is examined by.

    Args:
        config: of the training.
        training: its cases.
        validation: cases of other patients, to which samples are compared; without any nothing is scored.

    Attributes:
        patches: what is learnt from.
        criterion: the score by which the best weights are kept: lower is better.
        goals: the scores that patience goes by, and whether more (1) or less (-1) is better.
        pictured: what the pictures of an exam show.

    Raises:
        CasesError: if there are fewer images than a batch holds, or all of them are of one value.
    """

    criterion = "fd"
    goals: ClassVar[Mapping[str, int]] = {"fd": -1, "coverage": 1}
    pictured = "samples"

    def __init__(self, config: SamplingConfig, training: Sequence[Case], validation: Sequence[Case]) -> None:
        self.config, self.training = config, training
        self.patches = self._views(training, "Reading training cases", balance=config.balance)
        self.held_out = self._views(validation, "Reading validation cases") if validation else None
        _refuse_few(config, self.patches)

    def _views(self, cases: Sequence[Case], label: str, balance: str | None = None) -> Views:
        config = self.config
        views = views_of(read_studies(cases, config.prep, label, config.train.workers), config.patch, config.slices)
        return Views(
            views, config.patch, config.augment, config.train.seed, conditions=config.conditions, balance=balance
        )

    def exam(self, shadow: Game, device: torch.device) -> tuple[Scores, npt.NDArray[np.uint8] | None]:
        """How far samples are from held-out images, how many of those they come near to, and what they look like."""
        config, game = self.config, cast(Sampler, shadow)
        places = np.random.default_rng(config.train.seed).integers(len(self.patches.data), size=config.samples)
        conditions = {name: [values[place] for place in places] for name, values in self.patches.known.items()}
        z = latent(config.train.seed, range(config.samples), game.latent_size)
        fakes = make(game, z, config, conditions, device=device)
        return self._scores(fakes), contact_sheet(fakes) if is_first() else None

    def _scores(self, fakes: Tensor) -> Scores:
        return {} if self.held_out is None or len(self.held_out.data) < 2 else self._real.scores(fakes)

    @cached_property
    def _real(self) -> HeldOutSet:
        learnt, unseen = (views.all.x for views in (self.patches, cast(Views, self.held_out)))
        return HeldOutSet(learnt, unseen, most=self.config.samples, seed=self.config.train.seed)

    def look(self, game: Game, device: torch.device) -> dict[str, float]:
        """How the players do on training and held-out images."""
        return look(game, [self.patches, *([self.held_out] if self.held_out else [])], self.config, device)

    def told(self, scores: Scores) -> str:
        """The scores in words."""
        if not scores:
            return "no validation case to compare samples with; these weights are kept"
        return told_as_set(scores, "samples")

    def facts(self) -> Mapping[str, Any]:
        """How many images and patients there are, in all and of each class, and where the numbers lie; never who."""
        return {
            "num_train_images": len(self.patches.data),
            "conditions": {name: self._seen(name, condition) for name, condition in self.config.conditions.items()},
        }

    def _seen(self, name: str, condition: Condition) -> dict[str, Any]:
        """Of a class: its images and patients; of a number: the share of images nearest to each knot."""
        values = self.patches.known[name]
        if not condition.classes:
            nearest = np.argmax([condition.encode(value, name) for value in values], axis=1)
            return {"images_by_knot": np.bincount(nearest, minlength=condition.knots).tolist()}
        patients: dict[str, set[str]] = defaultdict(set)
        for view in self.patches.data:
            patients[view.study.conditions[name]].add(view.study.patient)
        return {
            "images_by_class": {one: values.count(one) for one in condition.classes},
            "patients_by_class": {one: len(patients[one]) for one in condition.classes},
        }


def _refuse_few(config: SamplingConfig, views: Views) -> None:
    if len(views.data) < config.train.batch:
        raise CasesError(
            f"{config.cases}: has {len(views.data)} training images, fewer than train.batch, {config.train.batch}; "
            "add some or lower it"
        )
    if all(float(view.study.x.amin()) == float(view.study.x.amax()) for view in views.data[:EXAMINED]):
        first = views.data[0].study
        raise CasesError(
            f"{first.name}: all its voxels come out as {float(first.x.amin()):g} in the network's range of -1 to 1; "
            "check the range in prep.images against the unit of the files"
        )


def latent(seed: int, numbers: Sequence[int], size: int) -> Tensor:
    """(N, size) normal random numbers, each row by its own number alone: no image hangs on those it is made with.

    Args:
        seed: of the set.
        numbers: of the images in the set, from 0.
        size: of a row.
    """
    rows = [np.random.default_rng((seed, number)).standard_normal(size, dtype=np.float32) for number in numbers]
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def make(
    game: Sampler,
    z: Tensor,
    config: SamplingConfig,
    conditions: Mapping[str, Sequence[str]],
    *,
    device: torch.device,
    truncation: float | None = None,
) -> Tensor:
    """(N, C, *spatial) float32 in [-1, 1] on the CPU: an image a row.

    Args:
        game: in evaluation mode, on the device.
        z: (N, latent_size) normal random numbers.
        config: of its training.
        conditions: of each image, by name.
        device: where the game is.
        truncation: see `Sampler.sample`.
    """
    wanted, parts = encode(config.conditions, conditions), []
    chunk = max(1, min(CHUNK, SMALL // math.prod(config.patch)))
    for begin in range(0, len(z), chunk):
        rows = slice(begin, begin + chunk)
        asked = None if wanted is None else wanted[rows].to(device)
        with autocast(device, config.train.precision):
            parts.append(game.sample(z[rows].to(device), asked, truncation).float().cpu())
    return torch.cat(parts)


def contact_sheet(
    x: Tensor, captions: Sequence[str] = (), *, rows: int = ROWS, columns: int = COLUMNS
) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: the first images, all channels one above the other; of volumes the middle slice.

    With captions, a line below each, small images are enlarged so that these can be read.
    """
    planes = x[: rows * columns]
    planes = planes if planes.ndim == 4 else planes[..., planes.shape[-1] // 2]
    tiles = [np.concatenate([grey(channel.T[::-1], (-1, 1)) for channel in image]) for image in planes.numpy()]
    if captions:
        larger = -(-READABLE_PX // tiles[0].shape[1])
        tiles = [
            captioned(tile.repeat(larger, 0).repeat(larger, 1), text)
            for tile, text in zip(tiles, captions, strict=True)
        ]
    return montage([tiles[begin : begin + columns] for begin in range(0, len(tiles), columns)])
