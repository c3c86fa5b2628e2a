"""Does a set of synthetic images help my task? Arms of training, the same test set, and a verdict."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator

from medgan.augment.arms import ARMS, Job, num_added, training_set
from medgan.augment.checks import Sets, refuse_leaks, refuse_unfit
from medgan.augment.classic import Classic
from medgan.augment.rows import Row, RowFile
from medgan.augment.statistics import patient_draws
from medgan.augment.tasks import Classification, Task, fit_and_score
from medgan.augment.verdict import Against, Cell, Verdict, against_real, headline, verdicts
from medgan.errors import InputError, TrainingError
from medgan.imageset import ImageSet
from medgan.progress import track
from medgan.settings import Settings

__all__ = ["ArmScores", "Utility", "UtilitySettings", "utility"]

DRAWS = 1000


class UtilitySettings(Settings):
    """What a study runs.

    Args:
        task: the net and what it learns.
        arms: of `medgan.augment.arms`; an arm with synthetic images needs its controls beside it.
        ratios: synthetic images, or duplicates, added for each real one.
        fractions: shares of the real patients to train on, 1 among them, on which the verdict is. Mind that the
            synthetic images were learnt from all of them and so flatter the smaller shares.
        seeds: how often each arm is trained, each time with another choice of images, order and start; 5 or more.
        steps: of the optimiser, the same in every arm.
        classic: the random changes of the arms with `classic`.
    """

    task: Task = Classification()
    arms: tuple[str, ...] = tuple(ARMS)
    ratios: tuple[float, ...] = (1.0,)
    fractions: tuple[float, ...] = (1.0,)
    seeds: int = Field(default=5, ge=5, le=100)
    steps: int = Field(default=300, ge=1)
    classic: Classic = Classic()

    @field_validator("arms", "ratios", "fractions")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values or len(set(values)) < len(values):
            raise ValueError("give one or more, each once")
        return values

    @field_validator("ratios", "fractions")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values) <= 0:
            raise ValueError("give numbers above 0")
        return values

    @model_validator(mode="after")
    def _judged_fairly(self) -> UtilitySettings:
        if unknown := [name for name in self.arms if name not in ARMS]:
            raise ValueError(f"arms: {unknown[0]!r} is none of {', '.join(ARMS)}")
        judged = [arm for arm in map(ARMS.__getitem__, self.arms) if arm.in_sweep and arm.added == "synthetic"]
        if not judged:
            raise ValueError("arms: none adds synthetic images to real ones; give real+synthetic or the like")
        needed = [name for arm in judged for name in ("real", arm.plain, arm.duplicates)]
        if missing := [name for name in needed if name not in self.arms]:
            raise ValueError(f"arms: {missing[0]} is missing, against which {judged[-1].name} is judged; add it")
        if max(self.fractions) != 1:
            raise ValueError(
                "fractions: give shares of the real patients up to 1, and 1 itself, which the verdict is on"
            )
        if "classic" in self.model_fields_set and not any(ARMS[name].classic for name in self.arms):
            raise ValueError("classic: no arm changes its images; add real+classic, or leave this out")
        return self

    def jobs(self) -> list[Job]:
        """All trainings, seed by seed."""
        return [job for seed in range(self.seeds) for job in self._jobs_of(seed)]

    def _jobs_of(self, seed: int) -> list[Job]:
        arms = [ARMS[name] for name in self.arms]
        sweep = [
            Job(arm.name, ratio, fraction, seed)
            for fraction in self.fractions
            for arm in arms
            if arm.in_sweep
            for ratio in (self.ratios if arm.added else (None,))
        ]
        return sweep + [Job(arm.name, None, None, seed) for arm in arms if not arm.in_sweep]


@dataclass(frozen=True)
class ArmScores:
    """Scores of one arm over the seeds.

    Args:
        cell: of the arm.
        mean: of each score by its name.
        sd: sample standard deviation of each.
        values: of the score that decides, seed by seed.
    """

    cell: Cell
    mean: Mapping[str, float]
    sd: Mapping[str, float]
    values: Sequence[float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.cell._asdict(), "mean": self.mean, "sd": self.sd, "values": self.values}


@dataclass(frozen=True, eq=False)
class Utility:
    """What a study of utility found.

    Args:
        settings: of the study, with the classes of its task.
        num_images: in the sets `train`, `synthetic` and `test`.
        rows: every training.
        arms: the scores of every arm at every ratio and fraction.
        against_real: differences to training on the real images alone.
        verdicts: on every arm that adds synthetic images to real ones.
        verdict: on all the real images: `helps`, `no evidence` or `harms`.
        reason: for it, in a sentence.
    """

    settings: UtilitySettings
    num_images: Mapping[str, int]
    rows: Sequence[Row] = field(repr=False)
    arms: Sequence[ArmScores]
    against_real: Sequence[Against]
    verdicts: Sequence[Verdict]
    verdict: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the outcomes of single images."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "metric": self.settings.task.metric,
            "num_images": dict(self.num_images),
            "seconds": sum(row.seconds for row in self.rows),
            "arms": [one.to_json() for one in self.arms],
            "against_real": [one.to_json() for one in self.against_real],
            "verdicts": [one.to_json() for one in self.verdicts],
            "settings": self.settings.model_dump(mode="json"),
        }


def utility(
    train: ImageSet,
    synthetic: ImageSet,
    test: ImageSet,
    settings: UtilitySettings | None = None,
    *,
    rows: Path | str | None = None,
    device: str = "cpu",
) -> Utility:
    """Train a net with and without synthetic images, try it on real patients of whom none was seen, and judge.

    Every arm makes the same number of steps; those of a seed share their real images and their start. Differences are
    paired, over patients and seeds (`statistics.paired_difference`). For `helps`, real and synthetic images together
    must beat every arm without synthetic images: the real ones alone, with as many duplicates instead, and with
    classic augmentation; `verdict.verdicts` says it exactly.

    Args:
        train: real images to train on, the same that the synthetic ones were learnt from.
        synthetic: images of the same size and conditions.
        test: real images of other patients.
        settings: of the study; the defaults if None.
        rows: JSONL file that gets a line for each training; those that it holds already are not run again, so that a
            study can be stopped, gone on with, and given more seeds, ratios, fractions or arms.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: if patients or images are shared with the test set, sizes differ, there are fewer than two classes
            or one is missing, synthetic images are too few, or the file holds rows of another study.
        TrainingError: if a net diverges.
        OutputError: if the file cannot be written.
    """
    plan = settings or UtilitySettings()
    plan = plan.model_copy(update={"task": plan.task.settled(train)})
    sets = Sets(train, synthetic, test)
    refuse_leaks(sets)
    refuse_unfit(sets, plan.task, alone=any(not ARMS[name].in_sweep for name in plan.arms))
    _refuse_beyond(sets, plan)
    with torch.random.fork_rng(devices=[]):
        plan.task.build(train.x[:2])  # a net that does not fit is refused before anything is written
    known = RowFile(Path(rows), _fingerprint(plan, sets)) if rows else None
    done = {row.job: row for row in known.rows} if known else {}
    for job in track([job for job in plan.jobs() if job not in done], "utility"):
        done[job] = _trained(job, plan, sets, device)
        if known:
            known.add(done[job])
    return _judged(plan, [done[job] for job in plan.jobs()], sets)


def _trained(job: Job, plan: UtilitySettings, sets: Sets, device: str) -> Row:
    arm, start = ARMS[job.arm], time.perf_counter()
    outcome = fit_and_score(
        plan.task,
        training_set(job, sets.train, sets.synthetic, plan.task),
        sets.synthetic if arm.on_synthetic else sets.test,
        steps=plan.steps,
        seed=job.seed,
        classic=plan.classic if arm.classic else None,
        device=device,
    )
    if not np.isfinite(outcome).all():
        raise TrainingError(f"task.lr: the net of {job.arm} diverged at {plan.task.rate:g}; give a lower one")
    return Row(job, plan.task.summary(outcome), round(time.perf_counter() - start, 3), outcome)


def _judged(plan: UtilitySettings, rows: Sequence[Row], sets: Sets) -> Utility:
    draws = patient_draws(sets.test.patients, num=DRAWS)
    cells: dict[Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault(Cell(row.job.arm, row.job.ratio, row.job.fraction), []).append(row)
    scores = {
        cell: np.stack([plan.task.score(row.outcome, draws) for row in members])
        for cell, members in cells.items()
        if cell.fraction is not None
    }
    num_patients = len(set(sets.test.patients))
    told = verdicts(scores, num_patients=num_patients)
    return Utility(
        plan,
        {name: len(images) for name, images in sets._asdict().items()},
        rows,
        [_arm_scores(cell, members, plan.task.metric) for cell, members in cells.items()],
        against_real(scores, num_patients=num_patients),
        told,
        *headline(told, plan.task.metric),
    )


def _arm_scores(cell: Cell, rows: Sequence[Row], metric: str) -> ArmScores:
    columns = {name: [row.scores[name] for row in rows] for name in rows[0].scores}
    mean = {name: float(np.mean(values)) for name, values in columns.items()}
    return ArmScores(cell, mean, {name: float(np.std(x, ddof=1)) for name, x in columns.items()}, columns[metric])


def _refuse_beyond(sets: Sets, plan: UtilitySettings) -> None:
    """Settings that these sets do not allow."""
    dims = sets.train.x.dim() - 2
    if odd := [axis for axis in plan.classic.flip_axes if axis >= dims]:
        raise InputError(f"classic.flip_axes: {odd[0]} is no axis of {dims}-D images, whose axes are 0 to {dims - 1}")
    ratio, num_real = max(plan.ratios), len(sets.train)
    most = num_added(num_real, ratio * max(plan.fractions))
    if most > len(sets.synthetic):
        raise InputError(
            f"ratios: {ratio:g} asks for {most} synthetic images beside {num_real} real ones, and there are "
            f"{len(sets.synthetic)}; sample more, or give a lower ratio"
        )


def _fingerprint(plan: UtilitySettings, sets: Sets) -> str:
    """Of all that a row's numbers hang on besides its job."""
    digest = hashlib.sha256(plan.model_dump_json(include={"task", "steps", "classic"}).encode())
    for images in sets:
        digest.update(images.x.numpy().tobytes())
        digest.update(repr((images.x.shape, list(images.patients), list(plan.task.kinds(images)))).encode())
    return digest.hexdigest()
