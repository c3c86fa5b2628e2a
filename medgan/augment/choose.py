"""medgan select: a synthetic set → a table of those of its images that are worth training on, and what that costs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from medgan.atomic import replacing
from medgan.augment.critic import critic_scores
from medgan.augment.select import Selected, Selection, select
from medgan.augment.sets import TABLE, contract_of, read_real, read_synthetic
from medgan.augment.tasks import SEE_AT_ONCE, Classification, fit
from medgan.cases import read_cases, write_cases
from medgan.errors import InputError
from medgan.imageset import ImageSet
from medgan.metrics.features import Array

__all__ = ["Chosen", "choose"]

SELECTED, TOLD = "selected.csv", "selection.json"
CLASSIFIER_STEPS = 300


@dataclass(frozen=True)
class Chosen:
    """A selection and what was written of it.

    Args:
        selected: the images, every decision, and what the choice costs.
        table: of the cases that were kept.
    """

    selected: Selected
    table: Path

    @property
    def dropped(self) -> dict[str, int]:
        """How many images each rule dropped; one image may fall under several."""
        return dict(Counter(reason.rule for decision in self.selected.decisions for reason in decision.reasons))


def choose(
    real: Path | str,
    synthetic: Path | str,
    settings: Selection,
    *,
    run: Path | str | None = None,
    condition: str | None = None,
    seed: int = 0,
) -> Chosen:
    """Drop images of a set by rules that are learnt from the training images, and say of each why.

    Written into the folder of the set: `selected.csv`, a table of cases, and `selection.json`, with every decision and
    the declared bias: how much of the held-out images the set covers before and after, and per class how many are left.

    Args:
        real: the table of cases from which the set's generator learnt.
        synthetic: the folder of the set.
        settings: the rules.
        run: that made the set; for `lowest_scores`, which go by its discriminator.
        condition: whose values are the classes; the first of the set if not given.
        seed: of the classifier for `min_confidence`, which is trained on the real training images.

    Raises:
        InputError: if a rule lacks what it goes by, or nothing or no image of a class would be left.
    """
    folder, contract = Path(synthetic), contract_of(Path(synthetic))
    made, train = read_synthetic(folder, contract), read_real(Path(real), contract, splits=("train",))
    if train is None:
        raise InputError(f"{real}: has no case in the split train, from which the rules are learnt")
    if settings.lowest_scores and run is None:
        raise InputError("lowest_scores goes by the discriminator: name the run that made the set by --run")
    condition = condition or next(iter(contract.conditions), None)
    found = select(
        made,
        train,
        settings,
        held_out=read_real(Path(real), contract, splits=("val", "test"), label="Reading held-out images"),
        condition=condition,
        scores=critic_scores(Path(run), folder, made) if run and settings.lowest_scores else None,
        with_masks=contract.prep.mask is not None,
        probabilities=_probabilities(train, made, condition, seed) if settings.min_confidence else None,
    )
    return _written(found, folder)


def _written(found: Selected, folder: Path) -> Chosen:
    kept = set(found.images.names)
    table = write_cases([case for case in read_cases(folder / TABLE) if case.name in kept], folder / SELECTED)
    told = {
        "bias": found.bias.to_json(),
        "decisions": [decision.to_json() for decision in found.decisions],
    }
    with replacing(folder / TOLD) as temporary:
        temporary.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return Chosen(found, table)


@torch.no_grad()
def _probabilities(train: ImageSet, made: ImageSet, condition: str | None, seed: int) -> Mapping[str, Array]:
    """What a classifier of real images gives each class, one a synthetic image."""
    if condition is None:
        raise InputError("min_confidence goes by classes, and the set has none; leave it out")
    task = Classification(condition=condition).settled(train)
    with torch.enable_grad():
        net = fit(task, train, steps=CLASSIFIER_STEPS, seed=seed)
    parts = [net(made.x[begin : begin + SEE_AT_ONCE]).softmax(1) for begin in range(0, len(made), SEE_AT_ONCE)]
    shares = torch.cat(parts).double().numpy()
    return {name: shares[:, place] for place, name in enumerate(task.classes)}
