"""How players are examined: on patches they learn from and on held-out ones, and by the sets of images they make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medgan.config import AnyConfig
from medgan.data import AllPatches, batches
from medgan.doctor import examine
from medgan.metrics.distribution import frechet_distance, kid, neighbourhoods
from medgan.metrics.features import Array, RandomConv
from medgan.metrics.reduction import Reduction
from medgan.models.base import Game
from medgan.validate import Scores, at_once
from medgan.views import Views

__all__ = ["EXAMINED", "HeldOutSet", "look", "told_as_set"]

EXAMINED, LOOKS = 8, 6  # patches of a look, and how often: under batch norm one look says little
COMPONENTS, NEIGHBOURS = 32, 5
SCORES = ("fd", "kid", "coverage")


def look(
    game: Game, sources: Sequence[AllPatches | Views], config: AnyConfig, device: torch.device
) -> dict[str, float]:
    """How the players do on patches of training cases and, where there is a second source, of validation cases."""
    streams = [batches(source, batch=EXAMINED, start=0, stop=LOOKS) for source in sources]
    looks = [
        examine(
            game,
            *(batch.to(device, memory_format=config.memory_format) for batch in together),
            at_once=at_once(config),
        )
        for together in zip(*streams, strict=True)
    ]
    return {name: sum(one[name] for one in looks) / LOOKS for name in looks[0]}


class HeldOutSet:
    """Held-out images, with which sets of as many made ones are compared, by features whose scale is that of training.

    Args:
        learnt: (N, C, *spatial) images of training, in [-1, 1].
        unseen: (M, C, *spatial) held-out ones, 2 or more.
        most: images that a set has. Scores hang on it, so no more of training are compared either.
        seed: which of those are.

    Attributes:
        floor: what images of training score: as near as real images of other patients come.
    """

    def __init__(self, learnt: Tensor, unseen: Tensor, *, most: int, seed: int) -> None:
        features = [RandomConv()(x) for x in (learnt, unseen)]
        least = min(*map(len, features), most)
        self._reduced = Reduction.fit(features[0], min(COMPONENTS, least - 1))
        own, self._real = (self._reduced(one) for one in features)
        some = own[np.random.default_rng(seed).permutation(len(own))[:most]]
        self.floor = {f"{name}_of_training_images": value for name, value in _distances(self._real, some).items()}

    def scores(self, fakes: Tensor) -> Scores:
        """Of made images (K, C, *spatial): `fd`, `kid` and `coverage`, None if they are no numbers, and the floor."""
        if not bool(fakes.isfinite().all()):
            return dict.fromkeys((*SCORES, *self.floor))
        return {**_distances(self._real, self._reduced(RandomConv()(fakes))), **self.floor}


def told_as_set(scores: Scores, made: str) -> str:
    """The scores of a set in words.

    Args:
        scores: as `HeldOutSet.scores` returns them.
        made: what the images are called.
    """
    far, covered, floor = (scores[name] for name in ("fd", "coverage", "fd_of_training_images"))
    if far is None or covered is None:
        return f"the {made} are no numbers"
    return f"FD-random-conv {far:.3g} (training images: {floor:.3g}), coverage {covered:.1%} of held-out images"


def _distances(real: Array, fake: Array) -> dict[str, float]:
    """Of images from held-out ones, by features of both."""
    shares = neighbourhoods(real, fake, min(NEIGHBOURS, len(real) - 1, len(fake) - 1))
    values = frechet_distance(real, fake), kid(real, fake, resamples=1).value, shares.coverage
    return dict(zip(SCORES, values, strict=True))
