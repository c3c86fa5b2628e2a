"""Is the game healthy? Numbers beside the losses, and alarms that name a reason and a remedy.

Losses of a GAN do not tell how good its images are, and hardly whether both players still learn. These numbers do:

```
right_real, right_fake   share of the patches that the discriminator judges rightly; 0.5 is a guess
right_held_out           the same for real images of validation patients
logit_real, logit_fake   its mean verdict, above 0 for real, on images that it was trained on and on fakes of them
logit_held_out           its mean verdict on real images of validation patients
variety                  how much fakes of different patches differ, as a share of how much real ones do
variety_within           the same of images that are asked for the same: that classes differ does not count
spread                   how far the voxels of fakes lie apart in brightness, as a share of how far real ones do
changed                  share of what the discriminator sees that is changed, in games with adaptive changes
```

The length of each player's gradient stands beside the losses.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from medgan.models.base import Batch, Game
from medgan.models.noise import FromNoise
from medgan.nets import statistics_kept

__all__ = ["Alarm", "Spell", "alarms", "examine", "gradient_lengths", "spells"]

SURE = 0.98
GUESSING = 0.55
LITTLE_VARIETY = 0.3
LITTLE_SPREAD, MUCH_SPREAD = 0.5, 2.0
VANISHED = 0.01
WORSE = 1.1
LONG_AGO = 3
NO_SAY = 0.01
LEARNT = 0.75
KNOWN_BY_HEART = 0.5
ENOUGH_LINES = 10
# Of samplers. Calibrated on trainings of 400 to 900 steps on phantoms, a check-up every 50: healthy ones of 5 models,
# some with a player that stands still or learns five or a hundred times as fast, some on a tenth of the patients.
COLLAPSED, HALFWAY = 0.1, 0.5  # of what training images cover of held-out ones
FALLEN = 0.5
LOST = 4
KNOWN_FOR, KNOWN_BETTER = 5, 0.1
MOST_CHANGED = 0.799  # of what adaptive changes may reach


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


@dataclass(frozen=True)
class Spell:
    """An alarm and how long it lasted.

    Args:
        alarm: as it was when it began.
        since: the step at which it began.
        until: the step at which it was gone; None if it lasts.
    """

    alarm: Alarm
    since: int
    until: int | None = None


@torch.no_grad()
def examine(game: Game, training: Batch, held_out: Batch | None = None) -> dict[str, float]:
    """The numbers of a game between two steps, by domain; it is left as it was.

    Args:
        game: as it trains.
        training: patches of training cases, of different places or patients.
        held_out: patches of validation cases, if there are any to judge.
    """
    with statistics_kept(game):
        fakes = game.generate(training)
        verdicts = game.judge(training, fakes)
        unseen = game.judge(held_out, game.generate(held_out)) if held_out else {}
    seen: dict[str, float] = {}
    for domain, (real, fake) in verdicts.items():
        seen[f"right_real_{domain}"] = float((real > 0).float().mean())
        seen[f"right_fake_{domain}"] = float((fake < 0).float().mean())
        seen[f"logit_real_{domain}"] = float(real.float().mean())
        seen[f"logit_fake_{domain}"] = float(fake.float().mean())
    for domain, (real, _) in unseen.items():
        seen[f"right_held_out_{domain}"] = float((real > 0).float().mean())
        seen[f"logit_held_out_{domain}"] = float(real.float().mean())
    for domain, own in {"a": training.a, "b": training.b}.items():
        if domain in fakes and own is not None:
            likeness = _likeness(fakes[domain].float(), own.float(), training.condition)
            seen |= {f"{name}_{domain}": value for name, value in likeness.items()}
    if isinstance(game, FromNoise) and game.adaptive is not None:
        seen["changed"] = float(game.adaptive.p)
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


def alarms(lines: Sequence[Mapping[str, Any]], *, samples: bool = False) -> list[Alarm]:
    """What the lines of metrics.jsonl so far give cause to say about the last of them.

    Args:
        lines: of a run.
        samples: whether it is that of a sampler, which ails in other ways and has other settings to turn.
    """
    if samples:
        return list(_of_sampler(lines))
    losses, errors = _of_kind(lines, "loss"), _of_kind(lines, "val")
    return [
        *_of_vitals(_of_kind(lines, "vitals")),
        *_of_gradients(_of_kind(lines, "grad")),
        *_of_losses(losses[-1] if losses else {}),
        *_of_errors([scores["mae"] for scores in errors if "mae" in scores]),
    ]


def _of_kind(lines: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, float]]:
    found = [line[kind] for line in lines if isinstance(line.get(kind), Mapping)]
    numbers = [{name: x for name, x in one.items() if isinstance(x, int | float)} for one in found]
    return [one for one in numbers if one]


def spells(lines: Sequence[Mapping[str, Any]], *, samples: bool = False) -> list[Spell]:
    """All alarms that the lines of metrics.jsonl gave cause for at a check-up, in the order in which they began.

    The arguments are those of `alarms`.
    """
    began: dict[str, Spell] = {}
    over: list[Spell] = []
    for number, line in enumerate(lines, start=1):
        if "vitals" in line:
            now = {alarm.name: alarm for alarm in alarms(lines[:number], samples=samples)}
            over += [replace(began.pop(name), until=line["step"]) for name in [*began] if name not in now]
            began = {name: Spell(alarm, line["step"]) for name, alarm in now.items()} | began
    return sorted([*over, *began.values()], key=lambda spell: spell.since)


def _of_vitals(vitals: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    for domain in ("a", "b"):
        last = [{name.removesuffix(f"_{domain}"): x for name, x in one.items()} for one in vitals[-3:]]
        yield from _of_discriminator(domain, last)
        yield from _of_fakes(domain, last[-1] if last else {})


def _of_discriminator(domain: str, last: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    rights = [(one["right_real"], one["right_fake"]) for one in last if one.keys() >= {"right_real", "right_fake"}]
    if len(rights) > 1 and all(min(right) > SURE for right in rights[-2:]):
        yield Alarm(
            f"the discriminator of {domain} has won",
            f"it judged more than {SURE:.0%} of the patches rightly, twice in a row, so it has little to teach",
            "Make it weaker (model.discriminator.width, num_layers), take gan: lsgan, or train it on more patients",
        )
    if len(rights) == 3 and all(sum(right) / 2 < GUESSING for right in rights):
        yield Alarm(
            f"the discriminator of {domain} tells nothing apart",
            f"it judged less than {GUESSING:.0%} of the patches rightly, three times in a row; a guess is 50%",
            "Unless the fakes look real already, make it stronger (model.discriminator.width, num_layers)",
        )
    if last and (told := _by_heart(last[-1])):
        yield Alarm(
            f"the discriminator of {domain} knows the training images by heart",
            told,
            "Augment more, make it weaker (model.discriminator.width), or train on more patients",
        )


def _of_fakes(domain: str, last: Mapping[str, float]) -> Iterator[Alarm]:
    if last.get("variety", 1) < LITTLE_VARIETY:
        yield Alarm(
            f"the fakes of {domain} are all alike",
            f"they vary {last['variety']:.0%} as much as real images do (mode collapse)",
            "Raise the weight of the loss that holds them to their source, or lower train.lr",
        )
    if not LITTLE_SPREAD <= last.get("spread", 1) <= MUCH_SPREAD:
        yield Alarm(
            f"the contrast of the fakes of {domain} is off",
            f"inside a fake brightness varies {last['spread']:.0%} as much as inside a real image",
            "Look at the validation pictures; if they are flat or glaring, lower train.lr and check prep",
        )


def _by_heart(vitals: Mapping[str, float]) -> str:
    needed = {"right_real", "right_fake", "logit_real", "logit_fake", "logit_held_out"}
    if not vitals.keys() >= needed or min(vitals["right_real"], vitals["right_fake"]) < LEARNT:
        return ""  # what it cannot tell it does not know
    real, fake, unseen = vitals["logit_real"], vitals["logit_fake"], vitals["logit_held_out"]
    if real - unseen <= KNOWN_BY_HEART * (real - fake):
        return ""
    return f"real images score {real:.2g} in training but {unseen:.2g} in validation, fakes {fake:.2g}"


def _of_gradients(lines: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    for player in ("generator", "discriminator"):
        lengths = [line[player] for line in lines if player in line]
        if len(lengths) > ENOUGH_LINES and lengths[-1] < VANISHED * (middle := statistics.median(lengths)):
            yield Alarm(
                f"the {player}'s gradient vanishes",
                f"its length is {lengths[-1]:.2g}, the median so far {middle:.2g}",
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


def _of_errors(errors: Sequence[float]) -> Iterator[Alarm]:
    since = len(errors) - 1 - errors.index(min(errors)) if errors else 0
    if since >= LONG_AGO and min(errors[-LONG_AGO:]) > WORSE * min(errors):
        yield Alarm(
            "validation gets worse",
            f"its error is {errors[-1]:.4g} and was {min(errors):.4g}, {since} validations ago",
            "The best weights are kept; set train.patience to stop in time, augment more, or train on more patients",
        )


# --- samplers ---------------------------------------------------------------------------------------------------------

_HOLD = "hold it by model.penalties, model.r1 or model.gamma, whichever the model has"


def _of_sampler(lines: Sequence[Mapping[str, Any]]) -> Iterator[Alarm]:
    vitals = [{name.removesuffix("_b"): x for name, x in one.items()} for one in _of_kind(lines, "vitals")]
    scores = [one for one in _of_kind(lines, "val") if one.keys() >= {"fd", "coverage"}]
    yield from _of_missing_numbers(lines)
    yield from _of_players(vitals, scores)
    yield from _of_memory(vitals)
    yield from _of_samples(vitals[-2:])
    yield from _of_scores(scores)
    yield from _of_faint_gradients(_of_kind(lines, "grad"))


def _of_missing_numbers(lines: Sequence[Mapping[str, Any]]) -> Iterator[Alarm]:
    count = sum(_lacks_numbers(line) for line in lines)
    if count:
        yield Alarm(
            "numbers are missing",
            f"{count} of {len(lines)} lines of the log hold losses, gradients or scores that are no numbers",
            "Lower train.lr, take train.precision: 32, and look for broken cases; the last checkpoint may be unsound",
        )


def _lacks_numbers(line: Mapping[str, Any]) -> bool:
    held = [line[kind] for kind in ("loss", "grad", "val", "vitals") if isinstance(line.get(kind), Mapping)]
    return any(x is None or (isinstance(x, float) and not math.isfinite(x)) for one in held for x in one.values())


def _of_players(vitals: Sequence[Mapping[str, float]], scores: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    """Whether one of them has won; where samples do well, or better than ever, the game goes on."""
    rights = [(one["right_real"], one["right_fake"]) for one in vitals if one.keys() >= {"right_real", "right_fake"}]
    won = len(rights) > 1 and all(min(right) > SURE for right in rights[-2:])
    if won and not _does_well(scores, 2):
        yield Alarm(
            "the discriminator has won",
            f"it judged more than {SURE:.0%} of the images rightly, twice in a row, and the samples get no better",
            f"Make it weaker (model.width_d), {_HOLD}, and do not take gan: saturating",
        )
    lost = len(rights) >= LOST and all(sum(right) / 2 < GUESSING for right in rights[-LOST:])
    if lost and scores and not _does_well(scores, LOST):
        yield Alarm(
            "the generator has won",
            f"the discriminator judged less than {GUESSING:.0%} of the images rightly, {LOST} times in a row (a guess "
            f"is 50%), and the samples cover {_covered(scores[-1])} and no more",
            "Make it stronger (model.width_d), or let it move more often (model.critic_moves, where the model has it)",
        )


def _does_well(scores: Sequence[Mapping[str, float]], last: int) -> bool:
    """Whether half of what can be covered is covered, or more than at the first of the last validations."""
    covered = [one["coverage"] for one in scores[-last:]]
    return bool(covered) and (covered[-1] >= HALFWAY * _reference(scores[-1]) or covered[-1] > covered[0])


def _reference(score: Mapping[str, float]) -> float:
    """Of held-out images, the share that training images cover, or all where that is not known."""
    return score.get("coverage_of_training_images", 1.0)


def _covered(score: Mapping[str, float]) -> str:
    return f"{score['coverage']:.1%} of held-out images (training images: {_reference(score):.0%})"


def _of_memory(vitals: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    last = vitals[-1] if vitals else {}
    if told := _known_twice(vitals[-2:]) or _known_for_long(vitals[-KNOWN_FOR:]):
        yield Alarm(
            "the discriminator knows the training images by heart",
            told,
            "Stop here, or train on more patients, with model.adaptive where the model has it; audit the samples",
        )
    if last.get("changed", 0.0) >= MOST_CHANGED:
        yield Alarm(
            "adaptive changes are at their strongest",
            f"the discriminator sees {last['changed']:.0%} of the images changed and still knows them",
            "There are too few images for this model: stop here, train on more, or make it weaker (model.width)",
        )


def _known_twice(last: Sequence[Mapping[str, float]]) -> str:
    """By a discriminator that tells samples from images; once may be the choice of images."""
    told = [_by_heart(one) for one in last]
    return f"{told[-1]}, twice in a row" if len(told) > 1 and all(told) else ""


def _known_for_long(last: Sequence[Mapping[str, float]]) -> str:
    """By one that hardly tells them apart: on average, samples score between training and held-out images."""
    needed = ("right_real", "right_held_out", "logit_real", "logit_fake", "logit_held_out")
    if len(last) < KNOWN_FOR or not all(one.keys() >= set(needed) for one in last):
        return ""
    right, unseen, real, fake, held_out = (statistics.fmean(one[name] for one in last) for name in needed)
    if not (held_out < fake < real and right - unseen > KNOWN_BETTER):
        return ""
    return (
        f"over {KNOWN_FOR} check-ups it took {right:.0%} of training and {unseen:.0%} of held-out images for real, and "
        "the latter score below samples"
    )


def _of_samples(last: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    for name, whose in (("variety", "samples"), ("variety_within", "samples of a class")):
        if last and last[-1].get(name, 1.0) < LITTLE_VARIETY:
            yield Alarm(
                f"the {whose} are all alike",
                f"they vary {last[-1][name]:.0%} as much as real images do (mode collapse)",
                f"The best weights are kept; lower train.lr, or the discriminator is too sharp: {_HOLD}",
            )
    spreads = [one["spread"] for one in last if "spread" in one]
    if len(spreads) > 1 and not any(LITTLE_SPREAD <= spread <= MUCH_SPREAD for spread in spreads):
        yield Alarm(
            "the contrast of the samples is off",
            f"inside a sample brightness varies {spreads[-1]:.0%} as much as inside a real image, twice in a row",
            "Look at the validation pictures; if they are flat or glaring, lower train.lr and check prep",
        )


def _of_scores(scores: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    last = scores[-LONG_AGO:]
    low = len(last) == LONG_AGO and all(one["coverage"] < COLLAPSED * _reference(one) for one in last)
    if low and not _does_well(scores, LONG_AGO):
        yield Alarm(
            "few kinds of images are made",
            f"samples cover {_covered(last[-1])}, and for {LONG_AGO} validations a tenth of that or less",
            f"If the pictures still get better, train on; else start from other weights (train.seed), and {_HOLD}",
        )
    if len(scores) > LONG_AGO and _got_worse(scores):
        best = max(one["coverage"] for one in scores)
        yield Alarm(
            "the samples get worse",
            f"they cover {_covered(last[-1])} and covered {best:.1%}; FD is {last[-1]['fd']:.3g} and was "
            f"{min(one['fd'] for one in scores):.3g}",
            f"The best weights are kept; set train.patience to stop in time, lower train.lr, or {_HOLD}",
        )


def _got_worse(scores: Sequence[Mapping[str, float]]) -> bool:
    """Both scores, in all of the last validations: alone, one falls where the other rises."""
    covered, far = [one["coverage"] for one in scores], [one["fd"] for one in scores]
    return max(covered[-LONG_AGO:]) < FALLEN * max(covered) and min(far[-LONG_AGO:]) > WORSE * max(min(far), 0.0)


def _of_faint_gradients(lines: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    """Beside the longest of the first lines: half of them may have no gradient any more."""
    lengths = [line["generator"] for line in lines if "generator" in line]
    if len(lengths) > ENOUGH_LINES and lengths[-1] < VANISHED * (first := max(lengths[:ENOUGH_LINES])):
        yield Alarm(
            "the generator's gradient vanishes",
            f"its length is {lengths[-1]:.2g}, and was {first:.2g} in the beginning",
            f"Lower train.lr, do not take gan: saturating, and if the discriminator has won, {_HOLD}",
        )
