"""What changes while training: the game, its average and its optimizers; new, restored, and saved."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from medgan.config import AnyConfig
from medgan.device import pick_device
from medgan.errors import ConfigError, RunError, TrainingError
from medgan.models.base import Game, Player
from medgan.models.players import GeneratorSettings
from medgan.nets import misfit
from medgan.processes import PATIENCE, gathered, is_first, part_at_exit, place
from medgan.progress import say
from medgan.run import AnyRun

__all__ = [
    "Learner",
    "fabric_for",
    "lay_out",
    "memory_told",
    "new_game",
    "new_learner",
    "operations_named",
    "save_learner",
    "set_up",
]

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
# What asks for the operations that torch knows in no deterministic form on a GPU.
USERS = {
    "reflection_pad": "resnet generators, padding: reflect and antialias pad by reflection",
    "upsample": "upsample: resize, antialias and registration interpolate",
    "avg_pool3d": "in 3-D, res_unet generators and discriminator.scales take means of blocks",
    "grid_sampler": "registration bends images, adaptive changes of samplers move them",
    "nll_loss": "cut compares places by cross entropy",
}


@dataclass
class Learner:
    """All that changes while training."""

    game: Game
    shadow: Game  # the running average of the game's generators: what is validated and kept
    optimizers: dict[Player, torch.optim.Optimizer]
    step: int = 0
    best: dict[str, float | None] = field(default_factory=dict)
    exams: dict[int, dict[str, float | None]] = field(default_factory=dict)  # scores of all validations, by their step


def new_game(config: AnyConfig) -> Game:
    """The game of the config with the weights that the seed gives; a patch that its nets cannot take is refused."""
    torch.manual_seed(config.train.seed)
    game = config.build()
    game.require_size(config.size)
    return game


def new_learner(game: Game, run: AnyRun, fabric: Fabric) -> Learner:
    """The game, its average and its optimizers: new, or as the last checkpoint left them."""
    shadow = copy.deepcopy(game).eval().requires_grad_(False)
    shadow.discriminators, shadow.helpers = nn.ModuleDict(), nn.ModuleDict()
    state = run.load_state()
    if state:
        _restore(game, state["game"] | _own_buffers(state, run), run)
        _restore(shadow, state["shadow"], run)
    lay_out(game, fabric.device, run.config)
    lay_out(shadow, fabric.device, run.config)
    optimizers = set_up(game, fabric, run.config, state)
    if not state:
        return Learner(game, shadow, optimizers)
    fabric.strategy.precision.load_state_dict(state.get("precision", {}))
    so_far = {"step": state["step"], "best": state["best"], "exams": state.get("exams", {})}
    return Learner(game, shadow, optimizers, **so_far)


def _own_buffers(state: Mapping[str, Any], run: AnyRun) -> dict[str, Tensor]:
    """What this process alone knew, such as the fakes that its discriminators remember."""
    buffers: list[dict[str, Tensor]] = state.get("buffers", [{}])
    if len(buffers) != place().count:
        say(
            f"{run.path}: was left by {len(buffers)} processes and goes on with {place().count}: well, but not digit "
            "for digit as it would have"
        )
    return buffers[min(place().rank, len(buffers) - 1)]


def lay_out(game: Game, device: torch.device, config: AnyConfig) -> None:
    """Move to the device; on a GPU also the weights lie in the order of the images.

    On a CPU the fused optimizer would copy such weights to and fro, and convolutions reorder them anyway.
    """
    game.to(device)
    if device.type != "cpu":
        game.to(memory_format=config.memory_format)  # type: ignore[call-overload]


def _restore(game: Game, tensors: dict[str, Tensor], run: AnyRun) -> None:
    try:
        game.load_state_dict(tensors)
    except (RuntimeError, TypeError) as error:
        told = str(error).splitlines()[:2][-1].strip()
        raise RunError(f"{run.state_path}: is of another net ({told}); delete it to start the run anew") from None


def set_up(
    game: Game, fabric: Fabric, config: AnyConfig, state: dict[str, Any] | None
) -> dict[Player, torch.optim.Optimizer]:
    """An Adam for each player, its nets wrapped in place for the device and precision of the fabric."""
    optimizers: dict[Player, torch.optim.Optimizer] = {}
    for player in game.order:
        nets = game.nets(player)
        # Fabric cannot clip what a fused optimizer unscales itself.
        fused = config.train.precision != "fp16"
        adam = torch.optim.Adam(nets.parameters(), lr=config.train.lr, betas=config.train.betas, fused=fused)
        if state:
            adam.load_state_dict(state["optimizers"][player])
        for home in cast(Iterable[nn.ModuleDict], nets):
            for name, net in list(home.items()):
                if config.train.compile:
                    net.compile()
                if not game.takes_slopes:  # which Fabric's wrapper does not let through
                    home[name] = fabric.setup_module(net)
        optimizers[player] = cast(torch.optim.Optimizer, fabric.setup_optimizers(adam))
    return optimizers


def save_learner(run: AnyRun, learner: Learner, fabric: Fabric) -> None:
    """Replace the checkpoint of the run by the learner as it is; all processes take part, the first one writes."""
    state: dict[str, Any] = {"step": learner.step, "best": learner.best, "exams": learner.exams}
    if fabric.world_size > 1:
        state["buffers"] = gathered(_buffers(learner.game))
    if precision := fabric.strategy.precision.state_dict():
        state["precision"] = precision
    state |= {"game": learner.game.state_dict(), "shadow": learner.shadow.state_dict()}
    state["optimizers"] = {player: optimizer.state_dict() for player, optimizer in learner.optimizers.items()}
    if is_first():
        run.save_state(state)


def _buffers(game: Game) -> dict[str, Tensor]:
    """What a game knows besides its weights, on the CPU."""
    entries = game.state_dict(keep_vars=True).items()
    return {name: value.cpu() for name, value in entries if not isinstance(value, nn.Parameter)}


class _Together(DDPStrategy):
    """Processes that average gradients when asked to, see `medgan.play`; nets stay as they are."""

    def setup_module(self, module: nn.Module) -> Any:
        return module


def fabric_for(config: AnyConfig, device: str) -> Fabric:
    """Lightning Fabric in the precision of the config, on one device or on those of all processes of this job.

    Raises:
        ConfigError: for float16 on a CPU, or a batch that the processes cannot share equally.
    """
    settings, kind, here = config.train, pick_device(device).type, place()
    if settings.precision == "fp16" and kind == "cpu":
        raise ConfigError("train.precision: fp16 is for GPUs; on a CPU take bf16 or 32")
    if settings.batch % (here.count * settings.accumulate):
        raise ConfigError(
            f"train.batch: {settings.batch} patches cannot be shared by {here.count} processes in "
            f"{settings.accumulate} equal parts each; take a multiple of {here.count * settings.accumulate}"
        )
    _be_deterministic(settings.deterministic)
    how: dict[str, Any] = {"plugins": [LightningEnvironment()], "devices": 1}
    if here.count > 1:
        how = {"strategy": _Together(timeout=PATIENCE), "devices": here.local_count, "num_nodes": here.machines}
    fabric = Fabric(accelerator=kind, precision=cast(Any, PRECISIONS[settings.precision]), **how)
    fabric.launch()
    if here.count > 1:
        part_at_exit()
    return fabric


def _be_deterministic(wanted: bool) -> None:
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
    torch.use_deterministic_algorithms(wanted)


@contextmanager
def operations_named() -> Iterator[None]:
    """Where `train.deterministic` forbids an operation, tell which one it was and what asks for it.

    Raises:
        ConfigError: for torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        before, refusal, _ = str(error).partition(" does not have a deterministic implementation")
        if not refusal:
            raise
        operation = before.rpartition("\n")[2]
        users = [user for part, user in USERS.items() if part in operation]
        raise ConfigError(
            f"train.deterministic: torch has no deterministic {operation}, which this training needs; set it to false"
            + "".join(f", or do without ({user})" for user in users)
        ) from None


@contextmanager
def memory_told(config: AnyConfig, device: torch.device) -> Iterator[None]:
    """Where memory runs out, tell what to lower.

    Raises:
        TrainingError: for torch's own errors, of which that of a CPU is a plain RuntimeError, and Python's.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_of_memory(error):
            raise
        settings, size = config.train, "×".join(map(str, config.patch))
        part = settings.batch // (settings.accumulate * place().count)
        raise TrainingError(
            f"{device} has too little memory for {part} patches of {size} at once; {_cures(config, part)}"
        ) from error


def _is_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _cures(config: AnyConfig, part: int) -> str:
    """What makes a step smaller, the harmless first."""
    net, takes_it = getattr(config.model, "generator", None), False
    if isinstance(net, GeneratorSettings) and not net.recompute:
        takes_it = not misfit(net.name, net.width, {"recompute": True})
    cures = ["raise train.accumulate"] * (part > 1) + ["set model.generator.recompute"] * takes_it
    sizes = ["train.batch"] * (part > 1) + ["patch"]
    return ", ".join([*cures, f"lower {', '.join(sizes)} or the width of the nets"])
