"""What changes while training: the game, its average and its optimizers; new, restored, and saved."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from medgan.config import Config
from medgan.device import pick_device
from medgan.errors import RunError
from medgan.models.base import Game, Player, Translator
from medgan.run import Run

__all__ = ["Learner", "fabric_for", "memory_format", "new_game", "new_learner", "save_learner", "set_up"]


@dataclass
class Learner:
    """All that changes while training."""

    game: Translator
    shadow: Translator  # the running average of the game's generators: what is validated and kept
    optimizers: dict[Player, torch.optim.Optimizer]
    step: int = 0
    best: dict[str, float | None] = field(default_factory=dict)


def new_game(config: Config) -> Translator:
    """The game of the config with the weights that the seed gives; a patch that its nets cannot take is refused."""
    torch.manual_seed(config.train.seed)
    game = config.build()
    game.require_size([size for size in config.patch if size > 1])
    return game


def new_learner(game: Translator, run: Run, fabric: Fabric) -> Learner:
    """The game, its average and its optimizers: new, or as the last checkpoint left them."""
    shadow = copy.deepcopy(game).eval().requires_grad_(False)
    shadow.discriminators, shadow.helpers = nn.ModuleDict(), nn.ModuleDict()
    state = run.load_state()
    if state:
        _restore(game, state["game"], run)
        _restore(shadow, state["shadow"], run)
    for each in (game, shadow):
        each.to(fabric.device).to(memory_format=memory_format(run.config))  # type: ignore[call-overload]
    optimizers = set_up(game, fabric, run.config, state)
    return Learner(game, shadow, optimizers, **({"step": state["step"], "best": state["best"]} if state else {}))


def _restore(game: Game, tensors: dict[str, Tensor], run: Run) -> None:
    try:
        game.load_state_dict(tensors)
    except (RuntimeError, TypeError) as error:
        told = str(error).splitlines()[:2][-1].strip()
        raise RunError(f"{run.state_path}: is of another net ({told}); delete it to start the run anew") from None


def set_up(
    game: Game, fabric: Fabric, config: Config, state: dict[str, Any] | None
) -> dict[Player, torch.optim.Optimizer]:
    """An Adam for each player, its nets wrapped in place for the device and precision of the fabric."""
    optimizers: dict[Player, torch.optim.Optimizer] = {}
    for player in game.order:
        nets = game.nets(player)
        adam = torch.optim.Adam(nets.parameters(), lr=config.train.lr, betas=config.train.betas, fused=True)
        if state:
            adam.load_state_dict(state["optimizers"][player])
        for home in cast(Iterable[nn.ModuleDict], nets):
            for name, net in list(home.items()):
                home[name] = fabric.setup_module(net)
        optimizers[player] = cast(torch.optim.Optimizer, fabric.setup_optimizers(adam))
    return optimizers


def save_learner(run: Run, learner: Learner) -> None:
    """Replace the checkpoint of the run by the learner as it is."""
    optimizers = {player: optimizer.state_dict() for player, optimizer in learner.optimizers.items()}
    run.save_state(
        {
            "step": learner.step,
            "best": learner.best,
            "game": learner.game.state_dict(),
            "shadow": learner.shadow.state_dict(),
            "optimizers": optimizers,
        }
    )


def fabric_for(config: Config, device: str) -> Fabric:
    """Lightning Fabric on one device in the precision of the config."""
    precision = {"32": "32-true", "bf16": "bf16-mixed"}[config.train.precision]
    return Fabric(accelerator=pick_device(device).type, devices=1, precision=cast(Any, precision))


def memory_format(config: Config) -> torch.memory_format:
    """How tensors of a training lie in memory."""
    if not config.train.channels_last:
        return torch.contiguous_format
    return torch.channels_last if config.spatial_dims == 2 else torch.channels_last_3d
