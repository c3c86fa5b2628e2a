"""What the discriminator of a run says of images: what it was trained to know, and so who was in its training."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch

from medgan.augment.sets import contract_of
from medgan.conditions import encode
from medgan.errors import RunError
from medgan.imageset import ImageSet
from medgan.metrics.features import Array
from medgan.models.noise import FromNoise
from medgan.run import open_sampling_run

__all__ = ["critic_scores"]

AT_ONCE = 64


@torch.no_grad()
def critic_scores(run: Path, synthetic: Path, images: ImageSet) -> Array:
    """(N,) the logits of the discriminator of the last checkpoint, higher for more real.

    Args:
        run: the folder of a sampler's run.
        synthetic: the folder of a set that it made.
        images: of the same size and conditions.

    Raises:
        RunError: if the run made no such set, or its checkpoint is gone, as in a run that was exported.
    """
    opened = open_sampling_run(run)
    if contract_of(synthetic).prep != opened.config.prep:
        raise RunError(f"{run}: made no set as {synthetic} is; name the run that made it")
    state = opened.load_state()
    if state is None:
        raise RunError(f"{run}: has no state.pt, in which its discriminator is kept; leave --run out")
    game = cast(FromNoise, opened.config.build())
    game.load_state_dict(state["game"])
    game.eval()
    asked = encode(opened.config.conditions, images.conditions)
    rows = [slice(begin, begin + AT_ONCE) for begin in range(0, len(images), AT_ONCE)]
    logits = [game.critic(images.x[part], None if asked is None else asked[part]).flatten() for part in rows]
    return np.concatenate([part.double().numpy() for part in logits])
