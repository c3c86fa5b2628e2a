"""What ails the game of a sampler."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medgan.doctor.signs import (
    GUESSING,
    LITTLE_SPREAD,
    LITTLE_VARIETY,
    LONG_AGO,
    MUCH_SPREAD,
    SURE,
    WORSE,
    Alarm,
    by_heart,
    faded,
    of_kind,
)

__all__ = ["of_sampler"]

# Calibrated on trainings of 400 to 900 steps on phantoms, a check-up every 50: healthy ones of 5 models, some with a
# player that stands still or learns five or a hundred times as fast, some on a tenth of the patients.
COLLAPSED, HALFWAY = 0.1, 0.5  # of what training images cover of held-out ones
FALLEN = 0.5
LOST = 4
KNOWN_FOR, KNOWN_BETTER = 5, 0.1
MOST_CHANGED = 0.799  # of what adaptive changes may reach
_HOLD = "hold it by model.penalties, model.r1 or model.gamma, whichever the model has"


def of_sampler(lines: Sequence[Mapping[str, Any]]) -> Iterator[Alarm]:
    """The alarms that the lines of its metrics.jsonl give cause for."""
    vitals = [{name.removesuffix("_b"): x for name, x in one.items()} for one in of_kind(lines, "vitals")]
    scores = [one for one in of_kind(lines, "val") if one.keys() >= {"fd", "coverage"}]
    yield from _of_missing_numbers(lines)
    yield from _of_players(vitals, scores)
    yield from _of_memory(vitals)
    yield from _of_samples(vitals[-2:])
    yield from _of_scores(scores)
    yield from _of_faint_gradients(of_kind(lines, "grad"))


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
    told = [by_heart(one) for one in last]
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
    if lengths := faded(lines, "generator"):
        yield Alarm(
            "the generator's gradient vanishes",
            "its length is {:.2g}, and was {:.2g} in the beginning".format(*lengths),
            f"Lower train.lr, do not take gan: saturating, and if the discriminator has won, {_HOLD}",
        )
