"""Settings: frozen, typed, and closed to unknown keys."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from medgan.errors import ConfigError

__all__ = ["Settings"]


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
    return [_line(dict(item), root, where) for item in error.errors()]


def _line(item: dict[str, Any], root: type[BaseModel], where: str) -> str:
    path = ".".join(str(part) for part in (where, *item["loc"]) if part != "")
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key{_accepted(root, item['loc'])}"
    if item["type"] == "missing":
        return f"{path}: missing, and it has no default"
    return f"{path}: {item['msg'].removeprefix('Value error, ')} (seen: {item['input']!r})"


def _accepted(root: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    model = _model_at(root, loc[:-1])
    return f" (accepted here: {', '.join(model.model_fields)})" if model else ""


def _model_at(model: type[BaseModel] | None, loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    for part in loc:
        options = _models_in(model.model_fields[str(part)].annotation) if model and part in model.model_fields else []
        named = [option for option in options if _tag(option) == part]
        stays = model if _tag(model) == part else None  # a union's loc names the member that was tried
        model = next(iter([*named, *options]), stays)
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _tag(model: type[BaseModel] | None) -> Any:
    """The literal `name` by which a union tells its members apart."""
    field = model.model_fields.get("name") if model else None
    return field.default if field else None
