"""Is the game healthy? Numbers beside the losses, and alarms that name a reason and a remedy.

Losses of a GAN do not tell how good its images are, and hardly whether both players still learn. These numbers do:

```
right_real, right_fake   share of the patches that the discriminator judges rightly; 0.5 is a guess
logit_real, logit_fake   its mean verdict, above 0 for real, on images that it was trained on and on fakes of them
logit_held_out           its mean verdict on real images of validation patients
variety                  how much fakes of different patches differ, as a share of how much real ones do
```

The length of each player's gradient stands beside the losses.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from medgan.models.base import Batch, Game

__all__ = ["Alarm", "alarms", "examine", "gradient_lengths"]

SURE = 0.98
LITTLE_VARIETY = 0.3
VANISHED = 0.01
NO_SAY = 0.01
LEARNT = 0.75
KNOWN_BY_HEART = 0.5
ENOUGH_LINES = 10


@dataclass(frozen=True)
class Alarm:
    """Something that goes wrong.

    Args:
        name: short, the same each time.
        reason: what was seen.
        remedy: what to change.
    """

    name: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}. {self.remedy}"


@torch.no_grad()
def examine(game: Game, training: Batch, held_out: Batch | None = None) -> dict[str, float]:
    """The numbers of a game between two steps, by domain; it is left as it was.

    Args:
        game: as it trains.
        training: patches of training cases, of different places or patients.
        held_out: patches of validation cases, if there are any to judge.
    """
    with _statistics_kept(game):
        fakes = game.generate(training)
        verdicts = game.judge(training, fakes)
        unseen = game.judge(held_out, game.generate(held_out)) if held_out else {}
    seen: dict[str, float] = {}
    for domain, (real, fake) in verdicts.items():
        seen[f"right_real_{domain}"] = float((real > 0).float().mean())
        seen[f"right_fake_{domain}"] = float((fake < 0).float().mean())
        seen[f"logit_real_{domain}"] = float(real.float().mean())
        seen[f"logit_fake_{domain}"] = float(fake.float().mean())
    seen |= {f"logit_held_out_{domain}": float(real.float().mean()) for domain, (real, _) in unseen.items()}
    for domain, own in {"a": training.a, "b": training.b}.items():
        if domain in fakes and own is not None and len(own) > 1:
            seen[f"variety_{domain}"] = float(_variety(fakes[domain]) / _variety(own).clamp(min=1e-8))
    return seen


def gradient_lengths(game: Game) -> dict[str, Tensor]:
    """The L2 norm of each player's gradient, as the last step left it."""
    found = {player: [p.grad for p in game.nets(player).parameters() if p.grad is not None] for player in game.order}
    return {
        player: torch.stack(torch._foreach_norm(gradients)).norm() for player, gradients in found.items() if gradients
    }


def alarms(lines: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    """What the lines of metrics.jsonl so far give cause to say about the last of them."""
    vitals = [line["vitals"] for line in lines if line.get("vitals")]
    lengths = [line["grad"]["generator"] for line in lines if line.get("grad")]
    losses = [line["loss"] for line in lines if line.get("loss")]
    return [*_of_vitals(vitals), *_of_gradients(lengths), *_of_losses(losses[-1] if losses else {})]


def _of_vitals(vitals: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    for domain in ("a", "b"):
        last = [{name.removesuffix(f"_{domain}"): x for name, x in one.items()} for one in vitals[-2:]]
        if len(last) == 2 and all(min(one.get("right_real", 0), one.get("right_fake", 0)) > SURE for one in last):
            yield Alarm(
                f"the discriminator of {domain} has won",
                f"it judged more than {SURE:.0%} of the patches rightly, twice in a row, so it has little to teach",
                "Make it weaker (model.discriminator.width, num_layers), take gan: lsgan, or train it on more patients",
            )
        if last and (told := _by_heart(last[-1])):
            yield Alarm(
                f"the discriminator of {domain} knows the training images by heart",
                told,
                "Augment more, make it weaker (model.discriminator.width), or train on more patients",
            )
        if last and last[-1].get("variety", 1) < LITTLE_VARIETY:
            yield Alarm(
                f"the fakes of {domain} are all alike",
                f"they vary {last[-1]['variety']:.0%} as much as real images do (mode collapse)",
                "Raise the weight of the loss that holds them to their source, or lower train.lr",
            )


def _by_heart(vitals: Mapping[str, float]) -> str:
    if "logit_held_out" not in vitals or min(vitals["right_real"], vitals["right_fake"]) < LEARNT:
        return ""  # what it cannot tell it does not know
    real, fake, unseen = vitals["logit_real"], vitals["logit_fake"], vitals["logit_held_out"]
    if real - unseen <= KNOWN_BY_HEART * (real - fake):
        return ""
    return f"real images score {real:.2g} in training but {unseen:.2g} in validation, fakes {fake:.2g}"


def _of_gradients(lengths: Sequence[float]) -> Iterator[Alarm]:
    if len(lengths) > ENOUGH_LINES and lengths[-1] < VANISHED * statistics.median(lengths):
        yield Alarm(
            "the generator's gradient vanishes",
            f"its length is {lengths[-1]:.2g}, the median so far {statistics.median(lengths):.2g}",
            "Lower train.lr, or take gan: lsgan or hinge",
        )


def _of_losses(losses: Mapping[str, float]) -> Iterator[Alarm]:
    terms = {name: abs(loss) for name, loss in losses.items() if name.startswith("G_")}
    adversarial = [loss for name, loss in terms.items() if name.startswith("G_GAN")]
    if adversarial and sum(adversarial) < NO_SAY * sum(terms.values()):
        yield Alarm(
            "the discriminator has no say",
            f"the adversarial terms are {sum(adversarial) / sum(terms.values()):.2%} of what the generator minimises",
            "Lower the weights of the other losses (model.lambda_...) if its images shall look real",
        )


def _variety(x: Tensor) -> Tensor:
    """Standard deviation over the batch, averaged over all voxels."""
    return x.float().std(0).mean()


@contextmanager
def _statistics_kept(game: Game) -> Iterator[None]:
    """Batch norm works as in training, but learns nothing from it."""
    norms = [module for module in game.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
