"""The loop, top to bottom: a config and a table of cases in, a run out."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

import medgan
from medgan.cases import Case, read_exclusions
from medgan.config import AnyConfig, TrainSettings
from medgan.data import Batches, batches
from medgan.doctor import alarms, gradient_lengths, names_told
from medgan.errors import TrainingError
from medgan.formats.png import synthetic_text, write_png
from medgan.journal import Journal
from medgan.leaks import refuse_leaks
from medgan.learner import Learner, fabric_for, memory_told, new_game, new_learner, operations_named, save_learner
from medgan.lessons import Lesson, cases_of, goals_of, lesson_of, load_config
from medgan.models.base import Batch, Game, Sampler
from medgan.play import play
from medgan.processes import gathered, is_first, place
from medgan.progress import say, track
from medgan.run import AnyRun, plan_run, start_run
from medgan.schedule import PLATEAU_PATIENCE
from medgan.validate import Scores, at_once, restate
from medgan.volume import Synthesis

__all__ = ["StoppedError", "train"]

EXPLODED, RESTATE_BATCHES = 1e6, 16


class StoppedError(TrainingError):
    """A training that was asked to stop and has saved its state."""


def train(config: AnyConfig | Path | str, overrides: Sequence[str] = (), *, out: Path, device: str = "auto") -> AnyRun:
    """Train a translator or a sampler, or go on where the same training was stopped.

    Started several times by torchrun or srun, the processes share each batch and the validation volumes.

    Args:
        config: the settings, or a YAML file of them.
        overrides: `dotted.key=value`, applied to the file.
        out: the run folder; if it holds the same training, that goes on from its last checkpoint.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: for settings that do not fit one another.
        CasesError: for a table that cannot be used, or has one image in two splits.
        RunError: if `out` holds another training.
        TrainingError: if the losses are no numbers any more or exploded, or memory runs out; the last checkpoint is
            intact.
        StoppedError: after a signal to stop, with the state saved.
    """
    config = load_config(config, overrides)
    training, validation = cases_of(config, "train"), cases_of(config, "val")
    fabric = fabric_for(config, device)
    refuse_leaks(config.cases, config.train.workers)
    game = new_game(config)
    run: AnyRun = plan_run(Path(out), config)
    with memory_told(config, fabric.device):
        learner = new_learner(game, run, fabric)
    if over := _over(learner, config):
        say(f"{run.path}: {over}")
        _tell_end(run, learner, over)
        return run
    if learner.step:
        say(f"{run.path}: going on from step {learner.step}")
    if excluded := _excluded(config):
        say(f"{config.exclude}: leaves out {len(excluded)} of the cases")
    lesson = lesson_of(config, training, validation)
    if is_first():
        start_run(run.path, config).write_card(_card(config, learner, lesson, training, validation))
    with operations_named(), _divergence_told(run, learner), memory_told(config, fabric.device):
        _loop(run, learner, fabric, lesson)
    _tell_end(run, learner, _over(learner, config))
    return run


def _excluded(config: AnyConfig) -> dict[str, str]:
    return {} if config.exclude is None else read_exclusions(config.exclude)


def _loop(run: AnyRun, learner: Learner, fabric: Fabric, lesson: Lesson) -> None:
    settings, layout = run.config.train, run.config.memory_format
    moves = learner.game.warm_ups + 1
    sharing: dict[str, Any] = {"workers": settings.workers, "part": (place().rank, place().count)}
    when: dict[str, Any] = {"start": learner.step, "stop": settings.steps, "turns": moves}
    stream = batches(lesson.patches, batch=settings.batch, **when, **sharing)
    journal, window, over = Journal(run, step=learner.step), _Window(run, stream), ""
    began = time.monotonic() - (_elapsed_s(journal) if is_first() else 0.0)
    with _stop_signals() as stop:
        for batch in track(stream, "Training", settings.steps - learner.step):
            turns = batch.to(fabric.device, memory_format=layout).split(moves)
            window.add(_step(learner, turns, fabric, settings))
            to_save = learner.step % settings.checkpoint_every == 0
            to_log = learner.step % settings.log_every == 0 or to_save  # so that no window spans a checkpoint
            # Once: a signal that comes later waits for the next step. Processes agree when they log.
            asked = any(gathered(bool(stop))) if to_log or place().count == 1 else False
            last = learner.step == settings.steps or asked
            if last or to_log:
                _log(journal, learner, window, time.monotonic() - began)
                window.clear()
            with window.paused():
                if learner.step % settings.validate_every == 0 or learner.step == settings.steps:
                    _validate(run, learner, lesson, journal)
                    if is_first():
                        _check_up(learner, lesson, journal)
                over = _over(learner, run.config)
                if last or over or to_save:
                    window.means(learner.step)
                    save_learner(run, learner, fabric)
            if asked:
                raise StoppedError(f"stopped at step {learner.step} of {settings.steps}; the same command goes on")
            if over:
                break
    if learner.step < settings.steps:
        say(over)


def _log(journal: Journal, learner: Learner, window: _Window, elapsed_s: float) -> None:
    losses, lengths = window.means(learner.step), gradient_lengths(learner.game)
    pace = {"elapsed_s": round(elapsed_s, 2), "data_wait": round(max(gathered(window.data_wait)), 4)}
    rates = {player: optimizer.param_groups[0]["lr"] for player, optimizer in learner.optimizers.items()}
    grad = {player: float(length) for player, length in lengths.items()}
    journal.write(learner.step, loss=losses, grad=grad, lr=rates, **pace)


def _elapsed_s(journal: Journal) -> float:
    """How long the training has taken before it goes on."""
    return float(max((line.get("elapsed_s", 0.0) for line in journal.lines()), default=0.0))


def _over(learner: Learner, config: AnyConfig) -> str:
    """Why there is nothing left to do, or ""."""
    settings, goals = config.train, goals_of(config)
    if learner.step >= settings.steps:
        return f"its {settings.steps} steps are done"
    since = learner.step - _last_gain(learner.exams, goals) if learner.exams else 0
    if settings.patience and since >= settings.patience * settings.validate_every:
        names = " and ".join(name for name in goals if any(name in scores for scores in learner.exams.values()))
        return f"ended at step {learner.step}: {names} of {settings.patience} validations have not been better"
    return ""


def _last_gain(exams: Mapping[int, Scores], goals: Mapping[str, int]) -> int:
    """The last step at which one of the scores was better than ever before; 0 if there was none."""
    gains = [0]
    for name, sign in goals.items():
        best = -math.inf
        for step, scores in exams.items():
            if (value := scores.get(name)) is not None and sign * value > best:
                best = sign * value
                gains.append(step)
    return max(gains)


def _tell_end(run: AnyRun, learner: Learner, reason: str) -> None:
    """Write why the training ended into its log and its card, once; a kill may have come before."""
    if is_first() and "stopped" not in run.card:
        run.log({"step": learner.step, "stopped": reason})
        run.write_card(run.card | {"best": learner.best, "stopped": reason})


@contextmanager
def _divergence_told(run: AnyRun, learner: Learner) -> Iterator[None]:
    """Losses that are no numbers end a training, too; one that goes on from its last checkpoint forgets the line."""
    try:
        yield
    except StoppedError:
        raise
    except TrainingError as error:
        if is_first():
            run.log({"step": learner.step, "stopped": str(error).removeprefix(f"{run.path}: ")})
        raise


def _step(learner: Learner, turns: Sequence[Batch], fabric: Fabric, settings: TrainSettings) -> dict[str, Tensor]:
    """All but the last of the turns are the discriminator's alone."""
    _draw_anew(settings.seed, learner.step)
    for optimizer in learner.optimizers.values():
        optimizer.param_groups[0]["lr"] = settings.lr * _pace(learner.step, settings, learner.exams)
    losses: dict[str, Tensor] = {}
    for number, batch in enumerate(turns, start=1):
        order = learner.game.order if number == len(turns) else ("discriminator",)
        parts = batch.split(settings.accumulate)
        losses |= play(learner.game, parts, learner.optimizers, fabric, order=order, clip=settings.clip)
    learner.step += 1
    _follow(learner.shadow, learner.game, settings.ema, learner.step)
    return losses


def _draw_anew(seed: int, step: int) -> None:
    """All randomness of a step hangs on its number, so that a resumed run draws what an uninterrupted one draws.

    Processes that train together draw different numbers.
    """
    torch.manual_seed((seed << 32) + step)
    if rank := place().rank:
        torch.manual_seed(int(torch.randint(2**62, (rank,))[-1]))


def _pace(step: int, settings: TrainSettings, exams: Mapping[int, Scores]) -> float:
    """The learning rate of a step as a share of `lr`; `exams` are the validations so far, by their step."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.decay == "plateau":
        return warm / 5.0 ** _plateaus(scores.get("mae") for at, scores in exams.items() if at >= settings.warmup)
    start = settings.decay_from * settings.steps
    if settings.decay == "step":
        return float(warm * 0.1 ** (step // start))
    if step < start:
        return warm
    left = (settings.steps - step) / (settings.steps - start)
    return warm * (left if settings.decay == "linear" else (1 - math.cos(math.pi * left)) / 2)


def _plateaus(errors: Iterable[float | None]) -> int:
    """How often the error has got no better, as torch's ReduceLROnPlateau counts for the reference implementation."""
    least, in_vain, plateaus = math.inf, 0, 0
    for error in errors:
        if error is not None and error < 0.99 * least:
            least, in_vain = error, 0
        else:
            in_vain += 1
        if in_vain > PLATEAU_PATIENCE:
            in_vain, plateaus = 0, plateaus + 1
    return plateaus


@torch.no_grad()
def _follow(shadow: Game, game: Game, decay: float, step: int) -> None:
    """Move the average towards the game. It warms up, or the random start would stay in it for long."""
    decay = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    old: list[Tensor] = list(shadow.generators.parameters())
    new: list[Tensor] = list(game.generators.parameters())
    torch._foreach_lerp_(old, new, 1 - decay)


def _validate(run: AnyRun, learner: Learner, lesson: Lesson, journal: Journal) -> None:
    """Examine the average, log its scores, keep the best."""
    config, device = run.config, next(learner.shadow.parameters()).device
    sample = batches(lesson.patches, batch=max(config.train.batch, 4), start=0, stop=RESTATE_BATCHES)
    moved = (batch.to(device, memory_format=config.memory_format) for batch in sample)
    restate(learner.shadow, moved, config.train.precision, at_once=at_once(config))
    scores, picture = lesson.exam(learner.shadow, device)
    journal.write(learner.step, val=scores)
    learner.exams[learner.step] = dict(scores)
    if picture is not None:
        _show(run, learner.step, lesson, picture, journal)
    _keep_best(run, learner, lesson, scores)


def _show(run: AnyRun, step: int, lesson: Lesson, picture: npt.NDArray[np.uint8], journal: Journal) -> None:
    journal.picture(f"val/{lesson.pictured}", picture, step)
    mark = Synthesis(run.config.model.name, version=medgan.__version__, description=f"validation at step {step}")
    write_png(picture, run.images / f"step_{step:07d}.png", text=synthetic_text(mark))


def _check_up(learner: Learner, lesson: Lesson, journal: Journal) -> None:
    """Log how the players do, and say what is new to worry about."""
    vitals = lesson.look(learner.game, next(learner.shadow.parameters()).device)
    lines = journal.lines()
    known = names_told(lines)
    found = alarms([*lines, {"vitals": vitals}], samples=isinstance(learner.game, Sampler))
    journal.write(learner.step, vitals=vitals, alarms=[asdict(alarm) for alarm in found])
    for alarm in (alarm for alarm in found if alarm.name not in known):
        say(f"Warning: {alarm}")


def _keep_best(run: AnyRun, learner: Learner, lesson: Lesson, scores: Scores) -> None:
    """Save the averaged generators if the error is the lowest yet, or always where there is nothing to score.

    An error that is no number never is the lowest.
    """
    error, least = scores.get(lesson.criterion), learner.best.get(lesson.criterion)
    is_best = not scores or (error is not None and (least is None or error < least))
    if is_best:
        learner.best = {"step": learner.step, **scores}
    if is_best and is_first():
        run.save_weights(learner.shadow.generators.state_dict(), learner.best)
    if not learner.best:
        raise TrainingError(f"{run.path}: the images at step {learner.step} are no numbers; lower train.lr")
    suffix = "" if is_best else f" (best: step {learner.best['step']})"
    say(f"step {learner.step} of {run.config.train.steps}: {lesson.told(scores)}{suffix}")


class _Window:
    """Sums of losses since the last log line, on the device: reading a number there would wait for it.

    Args:
        run: for errors.
        stream: the batches that the training asks for.
    """

    def __init__(self, run: AnyRun, stream: Batches) -> None:
        self.run, self.stream = run, stream
        self.clear()

    def clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count, self.began, self.waited = 0, time.monotonic(), self.stream.waited_s

    @property
    def data_wait(self) -> float:
        """The share (0..1) of the time that went by waiting for the next batch; without pauses."""
        return (self.stream.waited_s - self.waited) / max(time.monotonic() - self.began, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not training's: of validations, and of what is saved."""
        began = time.monotonic()
        yield
        self.began += time.monotonic() - began

    def add(self, losses: Mapping[str, Tensor]) -> None:
        self.sums |= {name: self.sums.get(name, 0) + loss for name, loss in losses.items()}
        self.count += 1

    def means(self, step: int) -> dict[str, float]:
        """Over the steps and all processes; no numbers, or absurdly large ones, are refused.

        Raises:
            TrainingError: so that nothing of them is saved.
        """
        own = {name: float(total) / self.count for name, total in self.sums.items()}
        everywhere = gathered(own)
        means = {name: sum(one[name] for one in everywhere) / len(everywhere) for name in own}
        bad = {name: value for name, value in means.items() if not abs(value) <= EXPLODED}
        if bad:
            shown = ", ".join(f"{name} {value:g}" for name, value in bad.items())
            raise TrainingError(
                f"{self.run.path}: the losses diverged by step {step} ({shown}); the last checkpoint is intact. "
                "Try train.lr three times lower, train.precision=32, and look for broken cases"
            )
        return means


def _card(
    config: AnyConfig, learner: Learner, lesson: Lesson, training: list[Case], validation: list[Case]
) -> dict[str, Any]:
    """What is said of the training data: how much; never who."""
    return {
        "files_sha256": learner.game.files(),
        "num_train_patients": len({case.patient for case in training}),
        "num_val_patients": len({case.patient for case in validation}),
        "num_excluded_cases": len(_excluded(config)),
        "num_parameters": sum(p.numel() for p in learner.shadow.generators.parameters()),
        **lesson.facts(),
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
