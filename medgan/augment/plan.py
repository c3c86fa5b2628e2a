"""What a set of samples shall show: how many of each class, and which numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medgan.conditions import Condition
from medgan.errors import InputError, RunError
from medgan.run import SamplingRun

__all__ = ["Plan", "Wish", "planned"]


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Args:
        num: how many images; None where `balance` says it.
        seed: of the set.
        conditions: what all images are asked for, by name.
        balance: `max` or a number of images; None for none.
        truncation: how far noise is held back; None for not at all.
        least_patients: of training, that a class must have.
    """

    num: int | None
    seed: int
    conditions: dict[str, str]
    balance: str | None
    truncation: float | None
    least_patients: int


@dataclass(frozen=True)
class Plan:
    """What each image of a set shall show.

    Args:
        wish: what was asked for.
        values: by name, a value an image.
        num: how many images.
    """

    wish: Wish
    values: Mapping[str, list[str]]
    num: int

    def of(self, number: int) -> dict[str, str]:
        """What one image shall show."""
        return {name: values[number] for name, values in self.values.items()}


def planned(run: SamplingRun, wish: Wish) -> Plan:
    """The plan for a wish, drawn from its seed alone.

    Raises:
        InputError: for an unknown condition or value, a class of too few patients, or a wish for nothing.
    """
    conditions = run.config.conditions
    _refuse_odd(wish, conditions)
    seen = _seen(run) if conditions else {}
    values = _balanced(wish, conditions, seen) if wish.balance else {}
    num = len(next(iter(values.values()))) if values else wish.num or 0
    for number, (name, condition) in enumerate(conditions.items()):
        rng = np.random.default_rng((wish.seed, number, 1))
        values.setdefault(name, _given(wish, name, condition, num) or _as_seen(condition, seen[name], num, rng))
        _refuse_few_patients(name, set(values[name]), seen[name], wish.least_patients)
    return Plan(wish, {name: values[name] for name in conditions}, num)


def _refuse_odd(wish: Wish, conditions: Mapping[str, Condition]) -> None:
    accepted = ", ".join(conditions) or "none: it learnt without"
    if unknown := [name for name in wish.conditions if name not in conditions]:
        raise InputError(f"{', '.join(unknown)}: no condition of the run (accepted: {accepted})")
    if (wish.num is None) == (wish.balance is None):
        raise InputError("say how many images are wanted, or how many each class shall have: one of num and balance")
    if wish.num is not None and not 1 <= wish.num <= 99_999:
        raise InputError(f"from 1 to 99999 images are made at once; seen {wish.num}")
    if wish.seed < 0:
        raise InputError(f"a seed is 0 or more; seen {wish.seed}")


def _seen(run: SamplingRun) -> dict[str, Any]:
    seen = run.card.get("conditions")
    if not isinstance(seen, dict) or seen.keys() != run.config.conditions.keys():
        raise RunError(f"{run.path / 'card.json'}: does not tell what the training images showed; copy it anew")
    return seen


def _balanced(wish: Wish, conditions: Mapping[str, Condition], seen: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of each class as many as it lacks."""
    names = [name for name, condition in conditions.items() if condition.classes and name not in wish.conditions]
    if len(names) != 1:
        told = ", ".join(names) or "none"
        raise InputError(f"balance evens out the classes of one condition, and those open are {told}; fix the others")
    counts: dict[str, int] = seen[names[0]]["images_by_class"]
    wanted = max(counts.values()) if wish.balance == "max" else _number(wish.balance or "")
    values = [one for one, count in counts.items() for _ in range(max(wanted - count, 0))]
    if not values:
        raise InputError(f"balance: each class of {names[0]} has {wanted} training images or more; nothing to make")
    return {names[0]: values}


def _number(text: str) -> int:
    if not text.isdigit():
        raise InputError(f"balance: {text!r} is neither max nor a number of images")
    return int(text)


def _given(wish: Wish, name: str, condition: Condition, num: int) -> list[str]:
    if name not in wish.conditions:
        return []
    condition.encode(wish.conditions[name], name)  # refuses what the run does not know
    return [wish.conditions[name]] * num


def _as_seen(condition: Condition, seen: Mapping[str, Any], num: int, rng: np.random.Generator) -> list[str]:
    """As often as in the training images; numbers evenly around the knots."""
    if condition.classes:
        counts = np.array([seen["images_by_class"][one] for one in condition.classes], dtype=np.float64)
        return [condition.classes[place] for place in rng.choice(len(counts), num, p=counts / counts.sum())]
    low, high = condition.range or (0, 1)
    counts = np.array(seen["images_by_knot"], dtype=np.float64)
    knots = rng.choice(len(counts), num, p=counts / counts.sum()) + rng.uniform(-0.5, 0.5, num)
    places = np.clip(knots / (condition.knots - 1), 0, 1)
    return [f"{low + place * (high - low):.6g}" for place in places]


def _refuse_few_patients(name: str, asked: set[str], seen: Mapping[str, Any], least: int) -> None:
    patients: Mapping[str, int] = seen.get("patients_by_class", {})
    few = [f"{one} ({patients[one]})" for one in sorted(asked) if patients.get(one, least) < least]
    if few:
        raise InputError(
            f"{name}: {', '.join(few)} was learnt from fewer than {least} patients, so what is made of it may be "
            "images of those persons; lower --least-patients if that is acceptable, or ask for other classes"
        )
