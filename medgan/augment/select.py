"""Choosing among synthetic images, with every decision on record and with what the choice costs in variety.

A choice can make a set look better than its generator is: what is left is closer to the real images, and less of what
they show is covered. So `select` never drops in silence, and states coverage and recall of real images before and
after, beside those of as many images drawn at random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from medgan.augment.limits import Limits
from medgan.augment.masks import mask_is_valid
from medgan.augment.variety import Bias, bias_of, classes_of
from medgan.errors import InputError
from medgan.imageset import ImageSet
from medgan.metrics.features import Features, RandomConv
from medgan.metrics.nearness import Nearness
from medgan.metrics.spaces import in_features, in_pixels
from medgan.settings import Settings

__all__ = ["Decision", "Reason", "Selected", "Selection", "select"]

Array = npt.NDArray[Any]


class Selection(Settings):
    """What is dropped from a set of synthetic images. Each rule is off unless it is set.

    Args:
        lowest_scores: share of each class whose critic scores are the lowest, 0 to below 1.
        min_confidence: least probability that a classifier gives an image's own class, 0 to 1.
        margin: how far a statistic of an image (mean, median, percentiles, spread, share of foreground, a channel each)
            may lie beyond those of training images: beyond their 1st and 99th percentile, as a share of the distance
            between the two.
        nearest: how near an image may be to a training image or to another synthetic one, as a share of the distance
            that is usual between a training image and the nearest one of another patient (the median): 0.5 finds
            copies with noise of 5 % of the range. Where training images themselves are all but equal, honest images
            fall under it too.
        valid_masks: drop images whose mask could not be a real one: of a volume or in more parts than any has.
        per_class: how many images of a class are kept, those that differ the most from one another.
        may_vanish: let a class lose its last image.
    """

    lowest_scores: float = Field(0.0, ge=0, lt=1)
    min_confidence: float = Field(0.0, ge=0, le=1)
    margin: float | None = Field(None, ge=0)
    nearest: float | None = Field(None, gt=0)
    valid_masks: bool = False
    per_class: int | None = Field(None, ge=1)
    may_vanish: bool = False


@dataclass(frozen=True)
class Reason:
    """Why an image was dropped.

    Args:
        rule: `score`, `confidence`, `limits`, `mask`, `training image` (too near to one), `repeat` or `crowd`.
        told: with the numbers, for people.
    """

    rule: str
    told: str


Reasons: TypeAlias = list[list[Reason]]


@dataclass(frozen=True)
class Decision:
    """What became of one image.

    Args:
        name: of the image.
        label: its class, "" where classes were not told apart.
        reasons: why it was dropped, none if it was kept.
        score: of the critic, if given.
        confidence: probability of its own class, if given.
        distance: to the nearest training image, if that was asked for: in pixels 0 for a copy, √2 for what is unlike.
    """

    name: str
    label: str
    reasons: tuple[Reason, ...] = ()
    score: float | None = None
    confidence: float | None = None
    distance: float | None = None

    @property
    def kept(self) -> bool:
        """True if nothing spoke against it."""
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self) | {"kept": self.kept, "reasons": [asdict(reason) for reason in self.reasons]}


@dataclass(frozen=True, eq=False)
class Selected:
    """The images that were kept, what became of each, and what that costs.

    Args:
        images: those that were kept, in their old order.
        decisions: one an image of the whole set, in its order.
        bias: what the choice costs.
    """

    images: ImageSet
    decisions: tuple[Decision, ...]
    bias: Bias


def select(
    synthetic: ImageSet,
    train: ImageSet,
    settings: Selection,
    *,
    held_out: ImageSet | None = None,
    condition: str | None = None,
    scores: Sequence[float] | Array | None = None,
    probabilities: Mapping[str, Sequence[float] | Array] | None = None,
    features: Features | None = None,
    with_masks: bool = False,
) -> Selected:
    """Drop synthetic images by rules, and say of each why.

    Scores, confidence, limits, masks and distance to training images judge each image by itself. Then, of those that
    are left and are as near to one another as copies, the one of the best score stays, or the first; last, the most
    different ones of each class are kept (greedy k-centres, from the most central image on).

    Args:
        synthetic: to choose from.
        train: the images that the generator learnt from: limits and distances are learnt from them.
        settings: what is dropped.
        held_out: real images of other patients, by which variety is measured; the training images if not given.
        condition: the condition whose values are the classes; one class if not given.
        scores: of the critic, one an image; higher is more real.
        probabilities: for each class, what a classifier gives it, one an image.
        features: what distances and variety are of; if not given, distances are of small pixels, whatever way round
            the images lie, and variety is of random convolutions.
        with_masks: whether the last channel of all images is a mask.

    Raises:
        InputError: if a rule lacks what it goes by, sets do not fit one another, or no image, or none of a class, is
            left.

    Source:
        Gonzalez 1985, Theoretical Computer Science 38 (greedy k-centres).
    """
    _refuse_misfits(synthetic, train, held_out)
    labels = _labels(synthetic, condition)
    known = _known(synthetic, settings, labels, scores, probabilities)
    reasons: Reasons = [[] for _ in labels]
    _drop_low_scores(reasons, known, labels, settings.lowest_scores)
    _drop_unsure(reasons, known, labels, settings.min_confidence)
    if settings.margin is not None:
        _drop_outside(reasons, Limits.learnt(train.x, settings.margin), synthetic)
    if settings.valid_masks:
        _drop_invalid(reasons, train, synthetic, with_masks=with_masks)
    if settings.nearest is not None or settings.per_class is not None:
        near = _nearness(features, train, synthetic)
        known["distance"] = near.synthetic.min(axis=1)
        if settings.nearest is not None:
            _drop_copies(reasons, near, _least_distance(near, settings.nearest))
            _drop_repeats(reasons, near, _least_distance(near, settings.nearest), synthetic.names, known.get("score"))
        if settings.per_class is not None:
            _drop_crowd(reasons, near.among, labels, settings.per_class)
    _refuse_vanished(labels, reasons, settings)
    kept = np.array([not told for told in reasons])
    bias = bias_of(features or RandomConv(), train, synthetic, labels, kept=kept, held_out=held_out)
    return Selected(synthetic.where(kept), _decisions(synthetic.names, labels, reasons, known), bias)


def _refuse_misfits(synthetic: ImageSet, train: ImageSet, held_out: ImageSet | None) -> None:
    sets = {"synthetic": synthetic, "training": train, **({} if held_out is None else {"held-out": held_out})}
    shapes = {what: tuple(one.x.shape[1:]) for what, one in sets.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{what} {shape}" for what, shape in shapes.items())
        raise InputError(f"the images of the sets differ in channels or size: {told}; bring them to one")
    if not (len(synthetic) and len(train)):
        raise InputError(f"there are {len(synthetic)} synthetic and {len(train)} training images; give one or more")


def _labels(synthetic: ImageSet, condition: str | None) -> list[str]:
    if condition is None:
        return [""] * len(synthetic)
    if condition not in synthetic.conditions:
        seen = ", ".join(synthetic.conditions) or "none"
        raise InputError(f"the synthetic set knows no condition {condition!r} (seen: {seen}); name one of its own")
    return [str(label) for label in synthetic.conditions[condition]]


def _known(
    synthetic: ImageSet,
    settings: Selection,
    labels: Sequence[str],
    scores: Sequence[float] | Array | None,
    probabilities: Mapping[str, Sequence[float] | Array] | None,
) -> dict[str, Array]:
    """(N,) numbers of each image, by what they are."""
    known: dict[str, Array] = {}
    if scores is not None:
        known["score"] = _column(scores, "critic scores", len(synthetic))
    elif settings.lowest_scores:
        raise InputError("lowest_scores goes by critic scores, and none are given; give them or set it to 0")
    if probabilities is not None:
        known["confidence"] = _own(probabilities, labels)
    elif settings.min_confidence:
        raise InputError("min_confidence goes by a classifier's probabilities, and none are given; or set it to 0")
    return known


def _own(probabilities: Mapping[str, Sequence[float] | Array], labels: Sequence[str]) -> Array:
    """(N,) probability of each image's own class."""
    if strange := [label for label in dict.fromkeys(labels) if label not in probabilities]:
        seen = ", ".join(probabilities) or "none"
        raise InputError(
            f"the classifier tells {seen}, but images are of {', '.join(map(repr, strange))}; name the condition whose "
            "values are its classes"
        )
    columns = {
        label: _column(values, f"probabilities of {label}", len(labels)) for label, values in probabilities.items()
    }
    return np.array([columns[label][place] for place, label in enumerate(labels)])


def _column(values: Sequence[float] | Array, what: str, length: int) -> Array:
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (length,) or not np.isfinite(column).all():
        raise InputError(f"{what} of shape {column.shape}; give one finite number for each of {length} images")
    return column


# --- the rules --------------------------------------------------------------------------------------------------------


def _drop_low_scores(reasons: Reasons, known: Mapping[str, Array], labels: Sequence[str], share: float) -> None:
    for members in classes_of(labels).values() if share else ():
        scores = known["score"][members]
        least = float(np.quantile(scores, share))
        for place, score in zip(members, scores, strict=True):
            if score < least:
                reasons[place].append(Reason("score", f"critic score {score:.3g} below {least:.3g}"))


def _drop_unsure(reasons: Reasons, known: Mapping[str, Array], labels: Sequence[str], least: float) -> None:
    for place, confidence in enumerate(known.get("confidence", ())):
        if confidence < least:
            told = f"probability {confidence:.3g} of its class {labels[place]} below {least:.3g}"
            reasons[place].append(Reason("confidence", told))


def _drop_outside(reasons: Reasons, limits: Limits, synthetic: ImageSet) -> None:
    for own, broken in zip(reasons, limits.broken(synthetic.x), strict=True):
        own.extend(Reason("limits", told) for told in broken)


def _drop_invalid(reasons: Reasons, train: ImageSet, synthetic: ImageSet, *, with_masks: bool) -> None:
    if not with_masks:
        raise InputError("valid_masks goes by masks, and the images have none; leave it out")
    for own, valid in zip(reasons, mask_is_valid(synthetic.x[:, -1:], like=train.x[:, -1:]), strict=True):
        if not valid:
            own.append(Reason("mask", "a mask of a volume or in more parts than any of training"))


def _nearness(features: Features | None, train: ImageSet, synthetic: ImageSet) -> Nearness:
    sets = (train.x, synthetic.x, None, train.patients)
    return in_pixels(*sets) if features is None else in_features(features, *sets)


def _least_distance(near: Nearness, share: float) -> float:
    """A share of the usual distance: of the median, since near copies in real sets would set any low quantile."""
    others = np.where(near.patients[:, None] == near.patients[None, :], np.inf, near.real).min(axis=1)
    if not np.isfinite(others).all():
        raise InputError(
            "the training images are all of one patient, so how near two people are is not known; leave `nearest` out"
        )
    return share * float(np.median(others))


def _drop_copies(reasons: Reasons, near: Nearness, least: float) -> None:
    for own, distance in zip(reasons, near.synthetic.min(axis=1), strict=True):
        if distance <= least:
            told = f"distance {distance:.3g} to a training image, not above {least:.3g}"
            own.append(Reason("training image", told))


def _drop_repeats(reasons: Reasons, near: Nearness, least: float, names: Sequence[str], scores: Array | None) -> None:
    """Of images as near to one another as copies the best stays: that of the highest score, else the first."""
    staying: list[int] = []
    for place in _best_first(_left(reasons), scores):
        twin = next((other for other in staying if near.among[place, other] <= least), None)
        if twin is None:
            staying.append(place)
            continue
        told = f"distance {near.among[place, twin]:.3g} to {names[twin]}, not above {least:.3g}"
        reasons[place].append(Reason("repeat", told))


def _best_first(places: list[int], scores: Array | None) -> list[int]:
    return places if scores is None else sorted(places, key=lambda place: -float(scores[place]))


def _drop_crowd(reasons: Reasons, distances: Array, labels: Sequence[str], count: int) -> None:
    """All but the most different images of each class."""
    left = _left(reasons)
    for label, members in classes_of([labels[place] for place in left]).items():
        places = [left[member] for member in members]
        centres = {places[centre] for centre in _centres(distances[np.ix_(places, places)], count)}
        for place in set(places) - centres:
            told = f"not among the {count} most different{' of ' * bool(label)}{label}"
            reasons[place].append(Reason("crowd", told))


def _left(reasons: Reasons) -> list[int]:
    return [place for place, told in enumerate(reasons) if not told]


def _centres(distances: Array, count: int) -> list[int]:
    """Greedy k-centres: the most central one first, then always the one that is farthest from all chosen ones."""
    chosen = [int(distances.sum(axis=1).argmin())]
    nearest = distances[chosen[0]].copy()
    while len(chosen) < min(count, len(distances)):
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    return chosen


def _refuse_vanished(labels: Sequence[str], reasons: Reasons, settings: Selection) -> None:
    for label, members in classes_of(labels).items():
        if settings.may_vanish or any(not reasons[place] for place in members):
            continue
        often = Counter(rule for place in members for rule in dict.fromkeys(reason.rule for reason in reasons[place]))
        why = ", ".join(f"{rule} {count}" for rule, count in often.most_common())
        raise InputError(
            f"no image{' of ' * bool(label)}{label} is left of {len(members)} (dropped for {why}); loosen these rules, "
            "or set may_vanish"
        )
    if all(reasons):
        raise InputError(f"no image is left of {len(labels)}; loosen the rules")


def _decisions(
    names: Sequence[str], labels: Sequence[str], reasons: Reasons, known: Mapping[str, Array]
) -> tuple[Decision, ...]:
    numbers = {what: [float(value) for value in values] for what, values in known.items()}
    return tuple(
        Decision(name, labels[place], tuple(reasons[place]), **{what: of[place] for what, of in numbers.items()})
        for place, name in enumerate(names)
    )
