"""What ails the game of a translator."""

from __future__ import annotations

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

__all__ = ["of_translator"]

NO_SAY = 0.01
BETTER = 0.99  # of the least error before


def of_translator(lines: Sequence[Mapping[str, Any]]) -> Iterator[Alarm]:
    """The alarms that the lines of its metrics.jsonl give cause for."""
    losses, errors = of_kind(lines, "loss"), [scores["mae"] for scores in of_kind(lines, "val") if "mae" in scores]
    yield from _of_vitals(of_kind(lines, "vitals"), gets_better=_gets_better(errors))
    yield from _of_gradients(of_kind(lines, "grad"))
    yield from _of_losses(losses[-1] if losses else {})
    yield from _of_errors(errors)


def _gets_better(errors: Sequence[float]) -> bool:
    """Whether one of the last validations but the first of them was clearly better than all before."""
    before, since = errors[: 1 - LONG_AGO], errors[1 - LONG_AGO :]
    return bool(before) and min(since) < BETTER * min(before)


def _of_vitals(vitals: Sequence[Mapping[str, float]], *, gets_better: bool) -> Iterator[Alarm]:
    for domain in ("a", "b"):
        last = [{name.removesuffix(f"_{domain}"): x for name, x in one.items()} for one in vitals[-LONG_AGO:]]
        yield from _of_discriminator(domain, last, gets_better=gets_better)
        yield from _of_fakes(domain, last[-1] if last else {})


def _of_discriminator(domain: str, last: Sequence[Mapping[str, float]], *, gets_better: bool) -> Iterator[Alarm]:
    rights = [(one["right_real"], one["right_fake"]) for one in last if one.keys() >= {"right_real", "right_fake"}]
    if len(rights) > 1 and all(min(right) > SURE for right in rights[-2:]):
        yield Alarm(
            f"the discriminator of {domain} has won",
            f"it judged more than {SURE:.0%} of the patches rightly, twice in a row, so it has little to teach",
            "Make it weaker (model.discriminator.width, num_layers), take gan: lsgan, or train it on more patients",
        )
    lost = len(rights) == LONG_AGO and all(sum(right) / 2 < GUESSING for right in rights)
    if lost and not gets_better:
        yield Alarm(
            f"the discriminator of {domain} tells nothing apart",
            f"it judged less than {GUESSING:.0%} of the patches rightly, {LONG_AGO} times in a row; a guess is 50%",
            "Unless the fakes look real already, make it stronger (model.discriminator.width, num_layers)",
        )
    if last and (told := by_heart(last[-1])):
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


def _of_gradients(lines: Sequence[Mapping[str, float]]) -> Iterator[Alarm]:
    for player in ("generator", "discriminator"):
        if lengths := faded(lines, player, freaks=1):  # those of a discriminator are ten times as long at times
            yield Alarm(
                f"the {player}'s gradient vanishes",
                "its length is {:.2g}, and was {:.2g} in the beginning".format(*lengths),
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
