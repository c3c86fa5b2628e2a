"""One training step of any game: the fakes once, then each player's move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed

from medgan.models.base import Batch, Fakes, Game, Losses, Player
from medgan.nets import statistics_kept

__all__ = ["play"]


def play(
    game: Game,
    parts: Sequence[Batch],
    optimizers: Mapping[Player, torch.optim.Optimizer],
    fabric: Fabric,
    *,
    order: Sequence[Player] | None = None,
    clip: float = 0.0,
) -> Losses:
    """Each player of the game moves once, and the losses are returned by name, averaged over the parts.

    Args:
        game: changed in place.
        parts: the batch, or equal parts of it; one part at a time is in memory, and its gradients add up to those of
            the whole.
        optimizers: of each player.
        fabric: device, precision, and the processes whose gradients are averaged.
        order: the players that move; those of the game if not given.
        clip: largest L2 norm of a player's gradient; 0 for no limit.
    """
    order, parts = game.order if order is None else order, _as_parts(parts)
    with _precision(game, fabric):
        scenes = [_Scene(game, part, alone=len(parts) == 1 and "generator" in order) for part in parts]
    seen: Losses = {}
    for player in order:
        for other in game.order:
            game.nets(other).requires_grad_(other == player)
        optimizers[player].zero_grad()
        for scene in scenes:
            with _precision(game, fabric):
                losses = game.losses(player, scene.batch, scene.fakes(player))
            fabric.backward(torch.stack(list(losses.values())).sum() / len(parts))
            for name, loss in losses.items():
                seen[name] = seen.get(name, 0) + loss.detach() / len(parts)
        _average(game, player)
        if clip:
            fabric.clip_gradients(game.nets(player), optimizers[player], max_norm=clip, error_if_nonfinite=False)
        optimizers[player].step()
    game.requires_grad_(True)
    return seen


def _as_parts(parts: Sequence[Batch]) -> Sequence[Batch]:
    """Parts that know of all masks of the batch, here and in the other processes: some hold more of a body than others.

    Without that a voxel would count more in a part that holds little of it.
    """
    masks = [part.mask for part in parts if part.mask is not None]
    if not masks or (len(parts) == 1 and not _has_company()):
        return parts
    mean = torch.cat(masks).mean(0, keepdim=True)
    if _has_company():
        _average_over_processes(mean)
    return [replace(part, mean_mask=mean) for part in parts]


def _precision(game: Game, fabric: Fabric) -> AbstractContextManager[None]:
    """Of the whole step, where nets do not bring their own."""
    return fabric.autocast() if game.takes_slopes else nullcontext()


class _Scene:
    """A batch and its fakes.

    Alone, the fakes are made once and keep their graph from the first player's move to the generator's. Among others
    that would fill the memory, so they are made anew for the generator, from the same random numbers.
    """

    def __init__(self, game: Game, batch: Batch, *, alone: bool) -> None:
        self.game, self.batch, self.alone = game, batch, alone
        self.seed = 0 if alone else int(torch.randint(2**62, ()))
        self.made = game.generate(batch) if alone else None

    def fakes(self, player: Player) -> Fakes:
        """For the generator with their graph; for the discriminator it does not matter."""
        if self.made is not None and (self.alone or player == "discriminator"):
            return self.made
        torch.manual_seed(self.seed)
        if player == "discriminator":
            with torch.no_grad(), statistics_kept(self.game):
                return self.game.generate(self.batch)
        fakes = self.game.generate(self.batch)
        self.made = {name: fake.detach() for name, fake in fakes.items()}
        return fakes


def _average(game: Game, player: Player) -> None:
    """Replace the player's gradients by their mean over all processes.

    By hand, after the backward pass: the players of a game call a net several times a step and with and without
    gradients, which torch's DistributedDataParallel is not made for.
    """
    if not _has_company():
        return
    gradients = [p.grad for p in game.nets(player).parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    _average_over_processes(flat)
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _has_company() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1


def _average_over_processes(x: Tensor) -> None:
    """In place; the same shape in all of them."""
    distributed.all_reduce(x)
    x /= distributed.get_world_size()
