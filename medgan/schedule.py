"""How long, how fast and how exactly a game is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from medgan.settings import Settings

__all__ = ["PLATEAU_PATIENCE", "TrainSettings"]

# Of the schedule `plateau`: it waits for that many validations in vain, as the reference implementation does.
PLATEAU_PATIENCE = 5


class TrainSettings(Settings):
    """How long, how fast, how exact.

    Args:
        steps: generator steps in all.
        batch: patches a step, over all processes.
        accumulate: in how many parts, one after the other, a process does its share of the batch: less memory, and
            the same step but for batch norm, which sees a part at a time.
        clip: largest L2 norm of a player's gradient, which is scaled down to it; 0 for no limit.
        lr: of Adam, for both players.
        betas: of Adam.
        decay: how the learning rate falls: `linear` or `cosine` to zero, by `step` to a tenth each time, or on a
            `plateau` to a fifth each time, which is when six validations (after the warmup) have no MAE that is 1 %
            below the least.
        decay_from: share of the steps after which it falls; by `step`, also the share between one time and the next.
            Not for `plateau`.
        warmup: steps in which the learning rate rises to `lr`; transformers want some.
        ema: decay of the running average of the generator's weights, which is what the run keeps; 0 for none.
        precision: `bf16` computes in bfloat16 where that is safe (autocast), `fp16` on a GPU in float16 with scaled
            losses; weights stay float32.
        channels_last: memory layout of tensors in which convolutions often run faster.
        validate_every: steps between translations of the whole validation volumes.
        patience: validations that may be no better than the best one before the training ends; 0 for all steps.
        checkpoint_every: steps between saved states; a killed run goes on from the last one.
        log_every: steps between lines in metrics.jsonl.
        compile: translate the nets by `torch.compile`, which takes minutes before the first step and needs a C++
            compiler; numbers change in the last digits.
        deterministic: refuse operations whose result may differ from run to run on a GPU, at some cost in speed; on a
            CPU there are none.
        workers: processes that read cases, cut and augment patches; 0 does it in the training process.
        seed: of initial weights, order, patches, augmentation and dropout.
    """

    steps: int = Field(default=20_000, ge=1)
    batch: int = Field(default=1, ge=1)
    accumulate: int = Field(default=1, ge=1)
    clip: float = Field(default=0.0, ge=0)
    lr: float = Field(default=2e-4, gt=0, lt=1)
    betas: tuple[float, float] = (0.5, 0.999)
    decay: Literal["linear", "cosine", "step", "plateau"] = "linear"
    decay_from: float = Field(default=0.5, ge=0, le=1)
    warmup: int = Field(default=0, ge=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Literal["32", "bf16", "fp16"] = "32"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    validate_every: int = Field(default=1000, ge=1)
    patience: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    workers: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _a_step_has_a_length(self) -> TrainSettings:
        if self.decay == "step" and not self.decay_from:
            raise ValueError("decay_from: 0 would be a step without end; give the share of the steps between two")
        return self

    @model_validator(mode="after")
    def _a_plateau_can_be_seen(self) -> TrainSettings:
        if self.decay != "plateau":
            return self
        if self.decay_from != type(self).model_fields["decay_from"].default:
            raise ValueError("decay_from: a plateau begins when validation gets no better, not at a step; leave it out")
        seen = [at for at in range(self.validate_every, self.steps, self.validate_every) if at >= self.warmup]
        if len(seen) < (least := PLATEAU_PATIENCE + 2):
            raise ValueError(
                f"validate_every: {self.validate_every} leaves {len(seen)} validations between the warmup and the last "
                f"step, and a plateau is not seen in less than {least}; lower it or take another decay"
            )
        return self

    @model_validator(mode="after")
    def _whole_parts(self) -> TrainSettings:
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate: {self.accumulate} parts of a batch of {self.batch} are unequal; change one")
        return self
