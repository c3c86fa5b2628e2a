"""What is measured of the players between two steps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from medgan.models.base import Batch, Game
from medgan.models.noise import FromNoise
from medgan.nets import statistics_kept

__all__ = ["examine", "gradient_lengths"]


@torch.no_grad()
def examine(game: Game, training: Batch, held_out: Batch | None = None) -> dict[str, float]:
    """The numbers of a game between two steps, by domain; it is left as it was.

    Args:
        game: as it trains.
        training: patches of training cases, of different places or patients.
        held_out: patches of validation cases, of one domain or both, if there are any to judge.
    """
    with statistics_kept(game):
        fakes = game.generate(training)
        verdicts = game.judge(training, fakes)
        unseen = _of_held_out(game, training, held_out) if held_out else {}
    seen: dict[str, float] = {}
    for domain, (real, fake) in verdicts.items():
        seen[f"right_real_{domain}"] = float((real > 0).float().mean())
        seen[f"right_fake_{domain}"] = float((fake < 0).float().mean())
        seen[f"logit_real_{domain}"] = float(real.float().mean())
        seen[f"logit_fake_{domain}"] = float(fake.float().mean())
    seen |= unseen
    for domain, own in {"a": training.a, "b": training.b}.items():
        if domain in fakes and own is not None:
            likeness = _likeness(fakes[domain].float(), own.float(), training.condition)
            seen |= {f"{name}_{domain}": value for name, value in likeness.items()}
    if isinstance(game, FromNoise) and game.adaptive is not None:
        seen["changed"] = float(game.adaptive.p)
    return seen


def _of_held_out(game: Game, training: Batch, held_out: Batch) -> dict[str, float]:
    """Of real images of the domains that there are, and of what is made of them.

    A game takes both domains: for a missing one patches of training cases stand in, of which nothing is said.
    """
    a, b = (training.a if held_out.a is None else held_out.a), (training.b if held_out.b is None else held_out.b)
    whole = replace(held_out, a=a, b=b)
    seen: dict[str, float] = {}
    for domain, (real, fake) in game.judge(whole, game.generate(whole)).items():
        own, source = (held_out.a, held_out.b) if domain == "a" else (held_out.b, held_out.a)
        if own is not None:
            seen[f"right_held_out_{domain}"] = float((real > 0).float().mean())
            seen[f"logit_held_out_{domain}"] = float(real.float().mean())
        if source is not None:
            seen[f"logit_held_out_fake_{domain}"] = float(fake.float().mean())
    return seen


def _likeness(fakes: Tensor, real: Tensor, condition: Tensor | None) -> dict[str, float]:
    """Deviations of fakes as shares of those of real images: over the batch, and over the voxels of an image."""
    seen = {"spread": _share(_deviation(fakes.flatten(1), 1), _deviation(real.flatten(1), 1))}
    if len(real) > 1:
        seen["variety"] = _share(_deviation(fakes, 0), _deviation(real, 0))
    if condition is not None and len(real) > condition.shape[1]:
        seen["variety_within"] = _share(_deviation_within(fakes, condition), _deviation_within(real, condition))
    return seen


def _share(part: Tensor, whole: Tensor) -> float:
    return float(part / whole.clamp(min=1e-8))


def _deviation_within(x: Tensor, condition: Tensor) -> Tensor:
    """Over the batch, of what the condition does not tell: of a class, deviations from its mean.

    In general those from the least squares fit of each voxel to the condition, which of classes is their means.
    """
    known = condition.float()
    told = known @ torch.linalg.pinv(known)
    left = x.flatten(1) - told @ x.flatten(1)
    deviation: Tensor = (left.square().sum(0) / (len(x) - told.trace()).clamp(min=1)).sqrt().mean()
    return deviation


def _deviation(x: Tensor, axis: int) -> Tensor:
    return x.std(axis).mean()


def gradient_lengths(game: Game) -> dict[str, Tensor]:
    """The L2 norm of each player's gradient, as the last step left it."""
    found = {player: [p.grad for p in game.nets(player).parameters() if p.grad is not None] for player in game.order}
    return {
        player: torch.stack(torch._foreach_norm(gradients)).norm() for player, gradients in found.items() if gradients
    }
