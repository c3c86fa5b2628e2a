"""What is measured of the players between two steps."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import torch
from torch import Tensor

from medgan.models.base import Batch, Fakes, Game, Verdicts
from medgan.models.noise import FromNoise
from medgan.nets import statistics_kept

__all__ = ["examine", "gradient_lengths"]


@torch.no_grad()
def examine(
    game: Game, training: Batch, held_out: Batch | None = None, *, at_once: int | None = None
) -> dict[str, float]:
    """The numbers of a game between two steps, by domain; it is left as it was.

    Batch norms see as many patches together as in `at_once`, so that with them, and with dropout, the numbers hang on
    it a little; near the batch of a step it tells how the players do there. All others are the same.

    Args:
        game: as it trains.
        training: patches of training cases, of different places or patients.
        held_out: patches of validation cases, of one domain or both, if there are any to judge.
        at_once: patches that go through the nets together; all if not given.
    """
    with statistics_kept(game):
        fakes, verdicts = _played(game, training, at_once)
        unseen = _of_held_out(game, training, held_out, at_once) if held_out else {}
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


def _of_held_out(game: Game, training: Batch, held_out: Batch, at_once: int | None) -> dict[str, float]:
    """Of real images of the domains that there are, and of what is made of them.

    A game takes both domains: for a missing one patches of training cases stand in, of which nothing is said.
    """
    a, b = (training.a if held_out.a is None else held_out.a), (training.b if held_out.b is None else held_out.b)
    _, verdicts = _played(game, replace(held_out, a=a, b=b), at_once)
    seen: dict[str, float] = {}
    for domain, (real, fake) in verdicts.items():
        own, source = (held_out.a, held_out.b) if domain == "a" else (held_out.b, held_out.a)
        if own is not None:
            seen[f"right_held_out_{domain}"] = float((real > 0).float().mean())
            seen[f"logit_held_out_{domain}"] = float(real.float().mean())
        if source is not None:
            seen[f"logit_held_out_fake_{domain}"] = float(fake.float().mean())
    return seen


def _played(game: Game, batch: Batch, at_once: int | None) -> tuple[Fakes, Verdicts]:
    """The fakes of each domain and what is said of them; of whatever else a game makes, a part is held at a time."""
    fakes: dict[str, list[Tensor]] = defaultdict(list)
    verdicts: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for part in batch.parts(at_once):
        made = game.generate(part)
        for domain, verdict in game.judge(part, made).items():
            verdicts[domain].append(verdict)
        for domain in made.keys() & {"a", "b"}:
            fakes[domain].append(made[domain])
    judged = {domain: _centred(game, *map(torch.cat, zip(*said, strict=True))) for domain, said in verdicts.items()}
    return {domain: torch.cat(images) for domain, images in fakes.items()}, judged


def _centred(game: Game, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    middle = 0 if game.centred else (real.mean() + fake.mean()) / 2
    return real - middle, fake - middle


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
