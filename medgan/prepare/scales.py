"""The scale of each image of a cohort: what is learnt of it, and how it travels to new patients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from medgan.errors import ConfigError, InputError
from medgan.harmony import Nyul, Percentile, WhiteStripe, ZScore, from_json
from medgan.prepare.plan import Plan
from medgan.volume import Volume

__all__ = ["Scale", "Scales", "fitted_scales", "read_scale", "read_scales", "unfitted"]

SCHEMA = "medgan.harmonisation/1"
Scale: TypeAlias = Percentile | ZScore | WhiteStripe | Nyul
Learnt = Callable[[], tuple[Iterable[Volume], Iterable[Volume]]]  # images and masks, one case at a time


@dataclass(frozen=True)
class Scales:
    """The scales of a cohort.

    Args:
        by_role: of each image that is harmonised.
        keys: of the cases that they were learnt from.
    """

    by_role: Mapping[str, Scale]
    keys: Sequence[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """As a file holds it; it names no case."""
        return json.dumps({"schema": SCHEMA, "scales": self._plain(), "learnt_from": list(self.keys)}, indent=2)

    @property
    def digest(self) -> str:
        """Of the scales alone."""
        return sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    def _plain(self) -> dict[str, Any]:
        return {role: scale.to_json() for role, scale in self.by_role.items()}


def unfitted(plan: Plan) -> list[str]:
    """Roles of the images whose scale has to be learnt from a cohort."""
    return [role for role, method in plan.harmonised.items() if isinstance(method, Nyul) and method.scale is None]


def fitted_scales(plan: Plan, learnt: Mapping[str, Learnt], keys: Sequence[str] = ()) -> Scales:
    """The scales of a plan, learnt from cases where that is needed; from one that cannot be used nothing is learnt.

    Raises:
        InputError: if the cases are too few; the role is named.
    """
    scales: dict[str, Scale] = dict(plan.harmonised)
    for role, method in plan.harmonised.items():
        if role in learnt and isinstance(method, Nyul):
            scales[role] = _learnt(method, role, learnt[role])
    return Scales(scales, keys)


def _learnt(method: Nyul, role: str, cases: Learnt) -> Nyul:
    rows, reasons = [], []
    for volume, mask in zip(*cases(), strict=True):
        try:
            rows.append(method.landmarks(volume, mask))
        except InputError as error:
            reasons.append(str(error))
    try:
        return method.fitted_to(rows)
    except InputError as error:
        left_out = f"; of {len(reasons)} nothing could be learnt: {reasons[0]}" if reasons else ""
        told = f"images.{role}.harmonise: {error}{left_out} (learnt from the cases of the split train)"
        raise InputError(told) from None


def read_scales(path: Path, plan: Plan) -> Scales:
    """The scales that a cohort has left behind, for a plan.

    Raises:
        ConfigError: if the file is none, or of other images or methods.
    """
    told = _read(path)
    found = {role: _state(told["scales"].get(role), path, role) for role in plan.harmonised}
    for role, method in plan.harmonised.items():
        if _bare(found[role]) != _bare(method):
            raise ConfigError(f"harmonisation: {path}: {role} was harmonised by {_bare(found[role])} there; name that")
    return Scales(found, told["learnt_from"])


def read_scale(path: Path, role: str) -> Scale:
    """The scale of one image.

    Raises:
        ConfigError: if the file is none, or knows no such image.
    """
    return _state(_read(path)["scales"].get(role), path, role)


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"harmonisation: {path}: cannot be read ({error}); name what medgan prepare left behind"
        ) from None
    is_one = isinstance(told, dict) and told.get("schema") == SCHEMA and isinstance(told.get("scales"), dict)
    if not is_one or not isinstance(told.get("learnt_from"), list):
        raise ConfigError(f"harmonisation: {path}: is no harmonisation.json of medgan prepare; name one")
    return dict(told)


def _state(told: Any, path: Path, role: str) -> Scale:
    if not isinstance(told, dict):
        raise ConfigError(f"harmonisation: {path}: knows no image {role}; name the file of a cohort that has it")
    try:
        return from_json(told)
    except InputError as error:
        raise ConfigError(f"harmonisation: {path}: {role}: {error}") from None


def _bare(scale: Scale) -> dict[str, Any]:
    """A method without what it has learnt."""
    return scale.model_dump(mode="json", exclude={"scale"})
