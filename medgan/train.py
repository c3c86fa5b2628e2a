"""The loop, top to bottom: a config and a table of cases in, a run out."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

import medgan
from medgan.board import Board
from medgan.cases import Case, read_cases
from medgan.config import Config, TrainSettings, load
from medgan.data import Pair, Patches, Scan, UnpairedPatches, batches, read_pairs, read_scans
from medgan.doctor import alarms, examine, gradient_lengths
from medgan.errors import CasesError, ConfigError, TrainingError
from medgan.formats.png import synthetic_text, write_png
from medgan.learner import Learner, fabric_for, memory_format, new_game, new_learner, save_learner
from medgan.models.base import Batch, Game, Player
from medgan.progress import say, track
from medgan.run import Run, plan_run, start_run
from medgan.validate import Scores, restate, score, show, translate_scan
from medgan.volume import Synthesis

__all__ = ["StoppedError", "cases_of", "load_config", "play", "train"]

AllPatches = Patches | UnpairedPatches
EXPLODED = 1e6
RESTATE_BATCHES = 16
EXAMINED = 8


class StoppedError(TrainingError):
    """A training that was asked to stop and has saved its state."""


def train(config: Config | Path | str, overrides: Sequence[str] = (), *, out: Path, device: str = "auto") -> Run:
    """Train a translator, or go on where the same training was stopped.

    Args:
        config: the settings, or a YAML file of them.
        overrides: `dotted.key=value`, applied to the file.
        out: the run folder; if it holds the same training, that goes on from its last checkpoint.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: for settings that do not fit one another.
        CasesError: for a table that cannot be used.
        RunError: if `out` holds another training.
        TrainingError: if the losses are no numbers any more or exploded; the last checkpoint is intact.
        StoppedError: after a signal to stop, with the state saved.
    """
    config = load_config(config, overrides)
    training, validation = cases_of(config, "train"), cases_of(config, "val")
    fabric = fabric_for(config, device)
    game = new_game(config)
    run = plan_run(Path(out), config)
    learner = new_learner(game, run, fabric)
    if over := _over(learner, config.train):
        say(f"{run.path}: {over}")
        return run
    if learner.step:
        say(f"{run.path}: going on from step {learner.step}")
    patches = _patches(config, training)
    held_out = _held_out(config, validation)
    start_run(run.path, config).write_card(_card(learner, training, validation))
    _loop(run, learner, fabric, patches, held_out)
    run.write_card(_card(learner, training, validation) | {"best": learner.best})
    return run


def _loop(run: Run, learner: Learner, fabric: Fabric, patches: AllPatches, held_out: Sequence[Scan]) -> None:
    settings, layout = run.config.train, memory_format(run.config)
    stream = batches(patches, batch=settings.batch, start=learner.step, stop=settings.steps, workers=settings.workers)
    run.forget_after(learner.step)
    board = Board(run.path / "tb", step=learner.step)
    window, began, over = _Window(), time.monotonic(), ""
    with _stop_signals() as stop:
        for batch in track(stream, "Training", settings.steps - learner.step):
            window.add(_step(learner, batch.to(fabric.device, memory_format=layout), fabric, settings))
            asked = bool(stop)  # once: a signal that comes later waits for the next step, or nothing would be saved
            last = learner.step == settings.steps or asked
            if last or learner.step % settings.log_every == 0:
                _log(run, board, learner, window.mean(learner.step, run), time.monotonic() - began)
            if learner.step % settings.validate_every == 0 or learner.step == settings.steps:
                _validate(run, learner, held_out, patches, board)
                _check_up(run, learner, held_out, patches, board)
            over = _over(learner, settings)
            if last or over or learner.step % settings.checkpoint_every == 0:
                window.check(learner.step, run)
                save_learner(run, learner)
            if asked:
                raise StoppedError(f"stopped at step {learner.step} of {settings.steps}; the same command goes on")
            if over:
                break
    if learner.step < settings.steps:
        say(over)


def _over(learner: Learner, settings: TrainSettings) -> str:
    """Why there is nothing left to do, or ""."""
    if learner.step >= settings.steps:
        return f"its {settings.steps} steps are done"
    since = learner.step - int(learner.best.get("step") or learner.step)
    if settings.patience and since >= settings.patience * settings.validate_every:
        return f"ended at step {learner.step}: {settings.patience} validations have not been better"
    return ""


def _step(learner: Learner, batch: Batch, fabric: Fabric, settings: Any) -> dict[str, Tensor]:
    # All randomness of a step hangs on its number, so that a resumed run draws what an uninterrupted one draws.
    torch.manual_seed((settings.seed << 32) + learner.step)
    for optimizer in learner.optimizers.values():
        optimizer.param_groups[0]["lr"] = settings.lr * _decay(learner.step, settings.steps, settings.decay_from)
    losses = play(learner.game, batch, learner.optimizers, fabric)
    learner.step += 1
    _follow(learner.shadow, learner.game, settings.ema, learner.step)
    return losses


def play(
    game: Game, batch: Batch, optimizers: Mapping[Player, torch.optim.Optimizer], fabric: Fabric
) -> dict[str, Tensor]:
    """One training step of any game: the fakes once, then each player's move. Returns the named losses."""
    fakes, seen = game.generate(batch), {}
    for player in game.order:
        for other in game.order:
            game.nets(other).requires_grad_(other == player)
        losses = game.losses(player, batch, fakes)
        optimizers[player].zero_grad()
        fabric.backward(torch.stack(list(losses.values())).sum())
        optimizers[player].step()
        seen.update({name: loss.detach() for name, loss in losses.items()})
    game.requires_grad_(True)
    return seen


def _decay(step: int, steps: int, decay_from: float) -> float:
    """1 for the first share of the steps, then a line down to 0."""
    start = decay_from * steps
    return 1.0 if step < start else (steps - step) / (steps - start)


@torch.no_grad()
def _follow(shadow: Game, game: Game, decay: float, step: int) -> None:
    """Move the average towards the game. It warms up, or the random start would stay in it for long."""
    decay = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    old: list[Tensor] = list(shadow.generators.parameters())
    new: list[Tensor] = list(game.generators.parameters())
    torch._foreach_lerp_(old, new, 1 - decay)


def _validate(run: Run, learner: Learner, held_out: Sequence[Scan], patches: AllPatches, board: Board) -> None:
    """Translate the validation volumes by the average, log the errors in the unit of b, keep the best."""
    config, device = run.config, next(learner.shadow.parameters()).device
    sample = batches(patches, batch=max(config.train.batch, 4), start=0, stop=RESTATE_BATCHES)
    moved = (batch.to(device, memory_format=memory_format(config)) for batch in sample)
    restate(learner.shadow, moved, config.train.precision)
    fakes = [translate_scan(learner.shadow, scan, config, device) for scan in held_out]
    scores = score(fakes, held_out, config.prep.b.output_range)
    run.log({"step": learner.step, "val": scores})
    for name, value in scores.items():
        if value is not None:
            board.curve(f"val/{name}", value, learner.step)
    picture = show(fakes, held_out, config.prep.b.output_range)
    board.picture("val/source_synthetic_target_error", picture, learner.step)
    mark = Synthesis(config.model.name, version=medgan.__version__, description=f"validation at step {learner.step}")
    write_png(picture, run.images / f"step_{learner.step:07d}.png", text=synthetic_text(mark))
    _keep_best(run, learner, scores)


def _check_up(run: Run, learner: Learner, held_out: Sequence[Scan], patches: AllPatches, board: Board) -> None:
    """Log how the players do on patches of training and validation cases, and say what is new to worry about."""
    config, device = run.config, next(learner.shadow.parameters()).device
    pairs = [scan for scan in held_out if isinstance(scan, Pair)]
    unseen = Patches(pairs, config.patch, config.augment, config.train.seed, neighbours=config.neighbours)
    seen_then_unseen = [
        next(batches(source, batch=EXAMINED, start=0, stop=1)).to(device, memory_format=memory_format(config))
        for source in (patches, *([unseen] if pairs else []))
    ]
    vitals = examine(learner.game, *seen_then_unseen)
    for name, value in vitals.items():
        board.curve(f"vitals/{name}", value, learner.step)
    lines = run.metrics()
    known: list[str] = next((line["alarms"] for line in reversed(lines) if "alarms" in line), [])
    found = alarms([*lines, {"vitals": vitals}])
    run.log({"step": learner.step, "vitals": vitals, "alarms": [alarm.name for alarm in found]})
    for alarm in (alarm for alarm in found if alarm.name not in known):
        say(f"Warning: {alarm}")


def _keep_best(run: Run, learner: Learner, scores: Scores) -> None:
    """Save the averaged generators if the error is the lowest yet, or always where there is nothing to score.

    An error that is no number never is the lowest.
    """
    mae, least = scores.get("mae"), learner.best.get("mae")
    is_best = not scores or (mae is not None and (least is None or mae < least))
    if is_best:
        learner.best = {"step": learner.step, **scores}
        run.save_weights(learner.shadow.generators.state_dict(), learner.best)
    if not learner.best:
        raise TrainingError(f"{run.path}: the translations at step {learner.step} are no numbers; lower train.lr")
    say(f"step {learner.step} of {run.config.train.steps}: {_told(run, scores, learner.best, is_best=is_best)}")


def _told(run: Run, scores: Scores, best: Mapping[str, float | None], *, is_best: bool) -> str:
    if not scores:
        return "no validation case has a target to score by; these weights are kept"
    said = ", ".join(f"{name.upper()} {value:.4g}" for name, value in scores.items() if value is not None)
    suffix = "" if is_best else f" (best: step {best['step']})"
    return f"{said}{suffix}; MAE in {run.config.prep.b.output_unit}, PSNR in dB"


class _Window:
    """Sums of losses since the last log line, on the device: reading a number there would wait for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        self.sums = {name: self.sums.get(name, 0) + loss for name, loss in losses.items()}
        self.count += 1

    def mean(self, step: int, run: Run) -> dict[str, float]:
        self.check(step, run)
        means = {name: float(total) / max(self.count, 1) for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return means

    def check(self, step: int, run: Run) -> None:
        """Refuse losses that are no numbers or absurdly large, before anything of them is saved."""
        bad = {name: float(x) for name, x in self.sums.items() if not abs(float(x)) <= EXPLODED * max(self.count, 1)}
        if bad:
            shown = ", ".join(f"{name} {value:g}" for name, value in bad.items())
            raise TrainingError(
                f"{run.path}: the losses diverged by step {step} ({shown}); the last checkpoint is intact. "
                "Try train.lr three times lower, train.precision=32, and look for broken cases"
            )


def _log(run: Run, board: Board, learner: Learner, losses: dict[str, float], elapsed_s: float) -> None:
    lengths = {player: float(length) for player, length in gradient_lengths(learner.game).items()}
    run.log({"step": learner.step, "loss": losses, "grad": lengths, "elapsed_s": round(elapsed_s, 2)})
    for kind, values in {"loss": losses, "grad": lengths}.items():
        for name, value in values.items():
            board.curve(f"{kind}/{name}", value, learner.step)


def cases_of(config: Config, split: str) -> list[Case]:
    """The cases of a split that the model can use: those with both images, or without pairs all.

    Raises:
        CasesError: if there are none, or without pairs no image to translate from or, in training, to.
    """
    cases = read_cases(config.cases, split=split, required=("a", "b") if config.model.paired else ())
    for role in ("a", "b") if split == "train" else ("a",):
        if not any(role in case.images for case in cases):
            image = "" if config.model.paired else f" with an image {role}"
            raise CasesError(
                f"{config.cases}: has no case{image} in the split {split}; add some or index with another --split"
            )
    return cases


def _patches(config: Config, cases: Sequence[Case]) -> AllPatches:
    what, settings = "Reading training cases", (config.patch, config.augment, config.train.seed)
    if config.model.paired:
        pairs = read_pairs(cases, config.prep, what)
        return Patches(pairs, *settings, neighbours=config.neighbours, weigh=config.weigh)
    a, b = (read_scans(cases, role, config.prep, f"{what}, {role}") for role in ("a", "b"))
    return UnpairedPatches(a, b, *settings)


def _held_out(config: Config, cases: Sequence[Case]) -> list[Scan]:
    """Pairs where the cases have both images; only those can be scored."""
    both = [case for case in cases if {"a", "b"} <= case.images.keys()]
    pairs = read_pairs(both, config.prep, "Reading validation cases") if both else []
    alone = [case for case in cases if case not in both]
    return [*pairs, *(read_scans(alone, "a", config.prep, "Reading validation cases, a") if alone else [])]


def load_config(config: Config | Path | str, overrides: Sequence[str]) -> Config:
    """A config as it is, or read from its file."""
    if not isinstance(config, Config):
        return load(Path(config), overrides)
    if overrides:
        raise ConfigError("overrides go with a config file; make the Config itself with other values")
    return config


def _card(learner: Learner, training: list[Case], validation: list[Case]) -> dict[str, Any]:
    """What is said of the training data: how much; never who."""
    return {
        "num_train_patients": len({case.patient for case in training}),
        "num_val_patients": len({case.patient for case in validation}),
        "num_parameters": sum(p.numel() for p in learner.shadow.generators.parameters()),
    }


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM fill the list instead of stopping in the middle of a step; a second one stops at once."""
    seen: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        say("stopping after this step; once more to stop at once")

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
