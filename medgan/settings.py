"""Settings: frozen, typed, and closed to unknown keys."""

from __future__ import annotations

from reprlib import Repr
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from medgan.errors import ConfigError

__all__ = ["Settings"]

_SEEN = Repr()  # of a few words: a value may be a whole file, or nested without end
_SEEN.maxstring = 80


class Settings(BaseModel):
    """The base of every group of settings: frozen, unknown keys refused, no code in it.

    Example:
        >>> class Cup(Settings):
        ...     size_ml: int = 200
        >>> Cup.parse({"size": 3}, "kitchen.cup")
        Traceback (most recent call last):
        medgan.errors.ConfigError: kitchen.cup.size: unknown key (accepted here: size_ml)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "") -> Self:
        """Check plain values and build the settings from them.

        Args:
            values: nested dicts, lists, numbers and strings, as YAML gives them.
            where: key path put before every key that a message names.

        Raises:
            ConfigError: for an unknown key, a wrong type or a value out of range; all of them in one message.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError("; ".join(_lines(error, cls, where))) from None


def _lines(error: ValidationError, root: type[BaseModel], where: str) -> list[str]:
    return [_line(item, root, where) for item in error.errors()]


def _line(item: ErrorDetails, root: type[BaseModel], where: str) -> str:
    keys, _ = _follow(root, item["loc"])
    path = ".".join([*([where] if where else []), *keys])
    match item["type"]:
        case "extra_forbidden":
            _, homes = _follow(root, item["loc"][:-1])
            accepted = dict.fromkeys(name for home in homes for name in home.model_fields)
            return f"{path}: unknown key (accepted here: {', '.join(accepted)})"
        case "missing":
            return f"{path}: missing, and it has no default"
        case "union_tag_not_found":
            return f"{path}.name: missing; it says which of the kinds this is"
        case "union_tag_invalid":
            return f"{path}.name: {item['ctx']['tag']!r} is none of {item['ctx']['expected_tags']}"
    where_to = f"{path}: " if path else ""
    # What is wrong with several keys together tells which; to show them all would bury it.
    seen = "" if item["type"] == "value_error" and not keys else f" (seen: {_SEEN.repr(item['input'])})"
    return f"{where_to}{item['msg'].removeprefix('Value error, ')}{seen}"


def _follow(root: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys that a user wrote on the way to an error, and the settings that may stand there.

    In a union told apart by `name`, pydantic puts the member's name into the way; a user did not write it.
    """
    keys: list[str] = []
    models = [root]
    for part in loc:
        named = [model for model in models if _name(model) == part]
        keys += [] if named else [str(part)]
        fields = [model.model_fields[str(part)] for model in models if part in model.model_fields]
        models = named or [inner for field in fields for inner in _models_in(field.annotation)]
    return keys, models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _name(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("name")
    return field.default if field else None
