"""Settings as users write them, before they are checked: a YAML file, and `dotted.key=value` on the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medgan.errors import ConfigError, InputError

__all__ = ["overridden", "read_yaml"]

# PyYAML lets more than its own error through: `2001-99-99`, `!!bool 7`, `!!int ""`, a thousand open brackets.
NO_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
Key = tuple[str, ...]


def read_yaml(path: Path, paths: Collection[Key] = ()) -> dict[str, Any]:
    """The plain values of a YAML file.

    Args:
        path: of the file.
        paths: keys of settings that name files, relative to this one; they become absolute.

    Raises:
        InputError: if the file is missing or is no YAML.
        ConfigError: if it holds no settings, or names a path that is none.
    """
    values, home = _read(path), path.resolve().parent
    for key in paths:
        if (holder := _holder(values, key)) is not None:
            holder[key[-1]] = _resolved(".".join(key), holder[key[-1]], home)
    return values


def overridden(values: dict[str, Any], overrides: Sequence[str], paths: Collection[Key] = ()) -> dict[str, Any]:
    """Plain values, changed by `dotted.key=value` texts.

    Args:
        values: as `read_yaml` gives them.
        overrides: the texts, the later ones over the earlier.
        paths: keys of settings that name files, relative to the working folder.

    Raises:
        ConfigError: for a text of another form.

    Example:
        >>> overridden({"train": {"steps": 5}}, ["train.lr=0.1"])
        {'train': {'steps': 5, 'lr': 0.1}}
    """
    for override in overrides:
        _override(values, override, paths)
    return values


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from None
    except NO_YAML as error:
        raise InputError(f"{path}: is no YAML ({' '.join(str(error).split())}); correct it there") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no settings; see configs/ for complete examples")
    return values


def _holder(values: Mapping[str, Any], key: Key) -> dict[str, Any] | None:
    """The settings in which a path stands, if it does."""
    inner: Any = values
    for part in key[:-1]:
        inner = inner.get(part) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) and isinstance(inner.get(key[-1]), str) else None


def _override(values: dict[str, Any], override: str, paths: Collection[Key]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override}: an override is key=value with dots in the key, such as train.steps=2000")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key}: {parent} holds a value, not settings")
    try:
        values[last] = yaml.safe_load(text)
    except NO_YAML:
        raise ConfigError(f"{key}: {text!r} cannot be read as a YAML value; quote it if it is text") from None
    if (*parents, last) in paths and values[last] is not None:
        values[last] = _resolved(key, text, Path())


def _resolved(key: str, path: str, home: Path) -> str:
    """An absolute path."""
    try:
        return str((home / path).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null in the name
        raise ConfigError(f"{key}: {path!r} is no path ({error}); name a file") from None
