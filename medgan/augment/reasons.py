"""What an audit makes of its numbers: thresholds, and a sentence for each.

A test of distances can fail a set; none can certify one. So PASS says that nothing was found, never that nothing is
there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from medgan.metrics.distribution import Floored, Interval
from medgan.metrics.membership import Membership
from medgan.metrics.memorisation import Beside, Copies, Exchanged

__all__ = [
    "Level",
    "Memory",
    "Reason",
    "differ",
    "of_classes",
    "of_critic",
    "of_likeness",
    "of_masks",
    "of_memory",
    "of_split",
    "worst",
]

Level = Literal["PASS", "REVIEW", "FAIL"]
_LEVELS: tuple[Level, ...] = ("PASS", "REVIEW", "FAIL")

# Chance of a false alarm over all tests of memory together; each has its part (Bonferroni).
ALPHA = 0.01
# What is certain but no larger may come from training alone: a model that has learnt is a little nearer to what it
# learnt from. A copier of one image in ten moves both numbers to 0.55. Our own choice.
CLEAR = 0.55
# Where independent sets reach this by chance, a copier of two images in five would not stand out. Our own choice.
BLIND = 0.7
# Of independent images less than about 1 % are hits; five times that, and not by chance, are too many.
USUAL_HITS, MANY_HITS = 0.01, 0.05
# Hits of one or two patients may be one chance; of a collapsed model all images are hits at once.
SEVERAL_PATIENTS = 3
# An independent image comes within half the smallest distance of R real ones with a chance of about 1/(8 R), less where
# images vary in more than three ways. One may be a twin whom the table does not know of; several in a hundred may not.
MANY_STARK = 3
# Of what real images score. A tenth: nothing is covered but a few modes (trained GANs that had collapsed in trials had
# 0.02 and less, real images 0.96). A half: the generator misses much. Our own choice.
COLLAPSED, POOR = 0.1, 0.5


@dataclass(frozen=True)
class Reason:
    """One thing that was looked at.

    Args:
        level: what it says of the set by itself.
        measured: what was measured, and what was found.
        threshold: what would have been another level.
        meaning: what that means for who wants to share or train on the set.
    """

    level: Level
    measured: str
    threshold: str
    meaning: str


@dataclass(frozen=True)
class Memory:
    """What one space of distances says about memory; None where it takes held-out images to say.

    Args:
        space: `pixels`, or the name of features.
        closer_to_train: share of synthetic images closer to a training than to a held-out patient.
        copies: near copies.
        patients_hit: how many training patients have a near copy.
        distance_ratio: median ratio of distances to the nearest and second nearest training patient.
        authenticity: share of images that are authentic.
        share_below: share nearer to training than 1 % of training images are to other patients.
        membership: of training images, by minus the distance to the nearest synthetic image.
        effective_number: how many fresh real images the set is worth.
    """

    space: str
    closer_to_train: Exchanged | None
    copies: Copies
    patients_hit: int
    distance_ratio: Beside
    authenticity: Beside
    share_below: Beside
    membership: Membership | None
    effective_number: Interval


def worst(reasons: Iterable[Reason]) -> Level:
    """The gravest level.

    Example:
        >>> worst([Reason("PASS", "", "", ""), Reason("REVIEW", "", "", "")])
        'REVIEW'
    """
    return max((reason.level for reason in reasons), key=_LEVELS.index, default="PASS")


def of_memory(memories: tuple[Memory, ...], *, images: int, biased: bool, fewest_p: float) -> Iterator[Reason]:
    """What the tests of memory say.

    Args:
        memories: one for each space.
        images: how many synthetic images there are.
        biased: whether training and held-out images differ by more than chance.
        fewest_p: the smallest p that exchanging so few patients can give.
    """
    alpha = ALPHA / (3 * len(memories))
    for memory in memories:
        yield _of_copies(memory, images, alpha)
        if memory.closer_to_train is not None:
            yield _of_closer(memory.space, memory.closer_to_train, alpha, biased)
        if memory.membership is not None:
            yield _of_membership(memory.space, memory.membership, alpha, biased)
    if memories[0].closer_to_train is None:
        yield Reason(
            "REVIEW",
            "no held-out real images were given",
            "held-out patients, whom the generator has not seen",
            "without them a generator that copies a little cannot be told from one that is merely good: give some",
        )
    elif fewest_p > alpha:
        yield Reason(
            "REVIEW",
            f"so few patients that no exchange of them can be rarer than {fewest_p:.2g}",
            f"rarer than {alpha:.2g}, which about a dozen patients, half of them held out, allow",
            "too few patients to tell copying from chance: that nothing was found says nothing",
        )


def _of_copies(memory: Memory, images: int, alpha: float) -> Reason:
    found = memory.copies
    excess = found.excess is not None and found.excess.p <= alpha and found.excess.value > USUAL_HITS
    several = found.stark > 0 or memory.patients_hit >= SEVERAL_PATIENTS
    many = found.of_train > MANY_HITS * images and found.chance <= alpha and several
    plain = found.stark >= MANY_STARK and found.stark > USUAL_HITS * images
    level: Level = "FAIL" if excess or many or plain else "REVIEW" if found.stark or found.chance <= ALPHA else "PASS"
    beside = "" if found.excess is None else f", {found.of_holdout} of held-out ones (p {found.excess.p:.2g})"
    return Reason(
        level,
        f"near copies ({memory.space}): {found.of_train} of {images} images, of {memory.patients_hit} training "
        f"patients (by chance with p {found.chance:.2g}){beside}; {found.stark} at less than half of any distance "
        "between real patients",
        f"FAIL: {USUAL_HITS:.0%} more than of held-out patients, or above {MANY_HITS:.0%} and of several patients, at "
        f"p ≤ {alpha:.2g}; or {MANY_STARK} and above {USUAL_HITS:.0%} at less than half; REVIEW: p ≤ {ALPHA:g}, or one "
        "at less than half",
        _MEANING_COPIES[level],
    )


_MEANING_COPIES: Mapping[Level, str] = {
    "PASS": "no more images lie close to a training patient than chance brings about",
    "REVIEW": "some images may show a training patient: look at the pairs, drop near copies, audit again",
    "FAIL": "images show training patients; whoever knows a patient's scan would find it again: do not share",
}


def _of_closer(space: str, found: Exchanged, alpha: float, biased: bool) -> Reason:
    sure, blind = found.p <= alpha, found.high > BLIND
    level = _graded(sure, found.value > CLEAR, biased, blind)
    return Reason(
        level,
        f"closer to training than to held-out patients ({space}): {found.value:.1%} of the images; independent ones "
        f"have {found.low:.1%} to {found.high:.1%} (p {found.p:.2g})",
        f"FAIL: above {CLEAR:.0%} at p ≤ {alpha:.2g}; REVIEW: p ≤ {alpha:.2g} alone, or independent ones reach "
        f"{BLIND:.0%}",
        _meaning(level, sure, "images keep to the training patients beyond what any real patient is like"),
    )


def _of_membership(space: str, found: Membership, alpha: float, biased: bool) -> Reason:
    sure = found.exchanged.p <= alpha and found.auc.low > 0.5 and found.difference > 0
    level = _graded(sure, found.auc.value > CLEAR, biased, found.exchanged.high > BLIND)
    return Reason(
        level,
        f"who was a training patient, told from the images ({space}): {_attack(found)}",
        f"FAIL: AUC above {CLEAR:g} at p ≤ {alpha:.2g}, its interval above 0.5 and it above the control; REVIEW: no "
        f"higher than {CLEAR:g}, or chance reaches {BLIND:g}",
        _meaning(level, sure, "the images give away who was in the training set"),
    )


def _graded(sure: bool, clear: bool, biased: bool, blind: bool) -> Level:
    if sure:
        return "FAIL" if clear and not biased else "REVIEW"
    return "REVIEW" if blind else "PASS"


def _meaning(level: Level, sure: bool, finding: str) -> str:
    if level == "PASS":
        return "nothing was found that chance does not explain; this certifies nothing"
    if level == "FAIL":
        return f"{finding}: do not share"
    if sure:
        return f"{finding}, but a little, or the two sets of patients differ by more than chance: look into it"
    return "too few patients, or images too much alike, to tell: that nothing was found says nothing"


def of_critic(found: Membership | None) -> Iterator[Reason]:
    """What the critic gives away. The synthetic images do not fail by it, since it need not be shared."""
    if found is None:
        return
    tells = found.exchanged.p <= ALPHA and found.auc.low > 0.5
    yield Reason(
        "REVIEW" if tells else "PASS",
        f"who was a training patient, told by the critic: {_attack(found)}",
        f"REVIEW: p ≤ {ALPHA:g}, and the interval of AUC above 0.5",
        "never share the critic (discriminator) of this run" if tells else "nothing was found; keep the critic anyway",
    )


def _attack(found: Membership) -> str:
    return (
        f"AUC {found.auc.value:.3f} ({found.auc.low:.3f} to {found.auc.high:.3f}, p {found.exchanged.p:.2g}), "
        f"{found.difference:+.3f} against halves of the members; {found.tpr.value:.1%} of them found at 1 % of false "
        f"alarms ({found.tpr.low:.1%} to {found.tpr.high:.1%})"
    )


def differ(found: Exchanged | None) -> bool:
    """Whether training and held-out images differ by more than chance."""
    return found is not None and found.p <= ALPHA


def of_split(found: Exchanged | None, shared: int) -> Iterator[Reason]:
    """Whether training and held-out patients can be compared at all.

    Args:
        found: how training and held-out images differ, if there are any.
        shared: how many images are, voxel for voxel, those of another patient.
    """
    if found is not None:
        yield Reason(
            "REVIEW" if differ(found) else "PASS",
            f"training against held-out images: kernel distance {found.value:.3g}; patients split at random have "
            f"{found.low:.3g} to {found.high:.3g} (p {found.p:.2g})",
            f"REVIEW: p ≤ {ALPHA:g}",
            "the two were not split at random (scanner, site, time?), so that being closer to training need not be "
            "memory: hold out patients at random"
            if differ(found)
            else "the two are alike, so that a difference between them is the generator's",
        )
    if shared:
        yield Reason(
            "REVIEW",
            f"{shared} real images are, voxel for voxel, those of another patient",
            "REVIEW: any",
            "one person under two names, or one image twice: tests of memory lose their edge; remove them",
        )


def of_likeness(scores: Mapping[str, Floored]) -> Iterator[Reason]:
    """Whether the set looks and varies as real images do."""
    coverage = scores["coverage"]
    level: Level = "FAIL" if _below(coverage, COLLAPSED) else "REVIEW" if _below(coverage, POOR) else "PASS"
    yield _of_score(
        "coverage", coverage, level, "real images have a synthetic neighbour", "a few modes are all it makes"
    )
    for name, good, bad in (
        ("recall", "real images could be made", "much of what is real is never made"),
        ("precision", "images look real", "many images look like none that are real"),
        ("spread_ratio", "images vary as real ones do", "images vary less than real ones: collapse, or truncation"),
    ):
        yield _of_score(name, scores[name], "REVIEW" if _below(scores[name], POOR) else "PASS", good, bad)


def of_classes(classes: Mapping[str, Mapping[str, Floored] | None]) -> Iterator[Reason]:
    """The same within each class: None where a class has too few synthetic or real images to say."""
    for name, scores in classes.items():
        if scores is None:
            yield Reason(
                "REVIEW",
                f"class {name}: too few images to compare",
                "more than a dozen real images of four patients, and more than five synthetic ones",
                "nothing is known of this class",
            )
        else:
            for score in ("coverage", "spread_ratio"):
                low = _below(scores[score], POOR)
                good, bad = "the class varies as it does in real images", "the class has collapsed within itself"
                yield _of_score(f"class {name}: {score}", scores[score], "REVIEW" if low else "PASS", good, bad)


def of_masks(scores: Mapping[str, Floored]) -> Iterator[Reason]:
    """Whether masks that were made along can be trained on; nothing of images without."""
    for name, good, bad in (
        ("valid_masks", "masks could be real ones", "many masks are of no size or in too many parts"),
        ("filled_masks", "masks show something as often as real ones", "most masks are empty"),
    ):
        if name in scores:
            yield _of_score(name, scores[name], "REVIEW" if _below(scores[name], POOR) else "PASS", good, bad)


def _below(score: Floored, share: float) -> bool:
    """Whether all splits agree that a score is below a share of what real images have."""
    return score.high < share * score.floor


def _of_score(name: str, score: Floored, level: Level, good: str, bad: str) -> Reason:
    collapsed = f"FAIL: below {COLLAPSED:.0%} of it; " if name == "coverage" else ""
    return Reason(
        level,
        f"{name} {score.value:.3g} ({score.low:.3g} to {score.high:.3g}); real images {score.floor:.3g}",
        f"{collapsed}REVIEW: below {POOR:.0%} of what real images have, in every split",
        good if level == "PASS" else f"{bad}: of little use for training",
    )
