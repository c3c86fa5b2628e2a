"""The page of an audit: the verdict, everything that was looked at, and how the set stands beside real images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medgan.formats.png import data_uri, encode_png
from medgan.report.charts import Reach, ReachChart, draw_reaches
from medgan.report.page import write_page

if TYPE_CHECKING:
    from medgan.augment.audit import Audit
    from medgan.augment.reasons import Memory, Reason
    from medgan.metrics.distribution import Floored
    from medgan.metrics.membership import Membership
    from medgan.metrics.memorisation import Beside

__all__ = ["audit_report"]

LEVELS = ("FAIL", "REVIEW", "PASS")
TOLD = {
    "FAIL": "Do not share this set, and do not train on it.",
    "REVIEW": "Somebody has to look at the reasons before this set is shared or trained on.",
    "PASS": "Nothing was found. That is no proof that nothing is there: tests of distances can fail a set, none can "
    "certify one.",
}
LOOKS = {"FAIL": "bad", "REVIEW": "unsure", "PASS": "good"}
SCORES = {  # by name: how the chart is called, what its axis holds at least
    "coverage": ("Coverage: real images with a synthetic neighbour", (0.0, 1.0)),
    "recall": ("Recall: real images that could be made", (0.0, 1.0)),
    "precision": ("Precision: synthetic images that look real", (0.0, 1.0)),
    "density": ("Density: how many real neighbourhoods a synthetic image lies in", (0.0, 1.0)),
    "spread_ratio": ("Spread: how much images vary, as a share of real ones", (0.0, 1.0)),
    "mean_correlation": ("Mean correlation of two images of the set; more is more alike", None),
}


@dataclass(frozen=True)
class Distances:
    """What one space of distances says, in words; of synthetic images, and of held-out ones."""

    space: str
    rows: tuple[tuple[str, str, str], ...]


def audit_report(audit: Audit, picture: npt.NDArray[np.uint8] | None, path: Path | str) -> Path:
    """Write the page of an audit: it names no training image and no patient.

    Args:
        audit: what was found.
        picture: the nearest pairs, as `pairs_picture` makes them, or None. They show patients, and so does the page
            then; without them it can be passed on.
        path: of the page.

    Returns:
        The path.

    Raises:
        OutputError: if the page cannot be written.
    """
    reasons = sorted(audit.reasons, key=lambda reason: LEVELS.index(reason.level))
    names = {"reasons": "Reasons", "likeness": "Likeness", "memory": "Memory", "pairs": "Nearest pairs", "sets": "Sets"}
    return write_page(
        path,
        "audit.html.j2",
        title="Audit of a synthetic set",
        places=list(names.items()),
        verdict=audit.verdict,
        told=TOLD[audit.verdict],
        looks=LOOKS,
        counted=_counted(reasons),
        reasons=reasons,
        likeness=[chart for chart in _likeness(audit) if chart],
        classes=list(audit.classes),
        memory=_memory(audit),
        distances=[_distances(memory) for memory in audit.memory],
        pairs=audit.pairs,
        near_copies=audit.near_copies,
        picture=None if picture is None else data_uri(encode_png(picture, text={"Shows": "patients; do not pass on"})),
        sets=_sets(audit),
    )


def _counted(reasons: Iterable[Reason]) -> str:
    """How many of each level, the gravest first."""
    levels = [reason.level for reason in reasons]
    return ", ".join(f"{levels.count(level)} {level}" for level in LEVELS if level in levels)


def _sets(audit: Audit) -> dict[str, str]:
    counts = audit.counts
    held = f"{counts['holdout_images']} images of {counts['holdout_patients']} patients"
    return {
        "training": f"{counts['train_images']} images of {counts['train_patients']} patients",
        "synthetic": f"{counts['synthetic_images']} images",
        "held out": held if counts["holdout_images"] else "none",
        "seed": str(audit.seed),
    }


# --- likeness ---------------------------------------------------------------------------------------------------------


def _likeness(audit: Audit) -> Iterable[ReachChart | None]:
    """A chart for each score: of the whole set, and of each class."""
    groups: dict[str, Mapping[str, Floored]] = {"all images": audit.likeness}
    groups |= {f"class {name}": scores for name, scores in audit.classes.items() if scores is not None}
    known = [name for name in SCORES if name in audit.likeness]
    for score in [*known, *(name for name in audit.likeness if name not in known)]:
        label, limits = SCORES.get(score, (f"{score}: distance to real images; less is better", None))
        lines = {name: _beside_real(scores[score]) for name, scores in groups.items() if score in scores}
        yield draw_reaches(label, lines, limits=limits)


def _beside_real(score: Floored) -> tuple[Reach, Reach]:
    return Reach(score.value, score.low, score.high), Reach(score.floor, score.floor_low, score.floor_high)


# --- memory -----------------------------------------------------------------------------------------------------------


def _memory(audit: Audit) -> ReachChart | None:
    """Shares and areas under curves, 0.5 where nothing is remembered, each beside what chance brings about."""
    lines: dict[str, tuple[Reach, Reach | None]] = {}
    for memory in audit.memory:
        if memory.closer_to_train is not None:
            found = memory.closer_to_train
            own = Reach(found.value, found.value, found.value)
            lines[f"closer to training ({memory.space})"] = own, Reach(0.5, found.low, found.high)
        if memory.membership is not None:
            lines[f"membership, AUC ({memory.space})"] = _attack(memory.membership)
    if audit.critic is not None:
        lines["membership by the critic, AUC"] = _attack(audit.critic)
    return draw_reaches("Memory", lines, note="0.5 if nothing is told", limits=(0.0, 1.0), mark=0.5)


def _attack(found: Membership) -> tuple[Reach, Reach]:
    auc, chance = found.auc, found.exchanged
    return Reach(auc.value, auc.low, auc.high), Reach(0.5, chance.low, chance.high)


def _distances(memory: Memory) -> Distances:
    copies, worth = memory.copies, memory.effective_number
    rows = (
        ("near copies", f"{copies.of_train}, of {memory.patients_hit} training patients", f"{copies.of_holdout}"),
        ("of them nearer than half of any distance between patients", f"{copies.stark}", "–"),
        ("distance to the nearest patient as a share of that to the second", *_both(memory.distance_ratio)),
        ("share nearer to training than 1 % of training images are to one another", *_both(memory.share_below)),
        ("share that is authentic", *_both(memory.authenticity)),
        ("worth as many fresh real images", f"{worth.value:.0f} ({worth.low:.0f} to {worth.high:.0f})", "–"),
    )
    return Distances(memory.space, rows)


def _both(found: Beside) -> tuple[str, str]:
    return _number(found.synthetic), _number(found.holdout)


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}"
