"""Settings name the full key of what is wrong, also inside a union of kinds."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from medgan.errors import ConfigError
from medgan.settings import Settings


class Cup(Settings):
    name: Literal["cup"] = "cup"
    size_ml: int = Field(200, ge=1)


class Plate(Settings):
    name: Literal["plate"] = "plate"
    width_mm: int = 200


class Table(Settings):
    first: Annotated[Cup | Plate, Field(discriminator="name")] = Cup()
    guests: tuple[int, ...] = ()
    cups: tuple[Cup, ...] = ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frst": 1}, "kitchen.frst: unknown key (accepted here: first, guests, cups)"),
        (
            {"first": {"name": "plate", "size_ml": 3}},
            "kitchen.first.size_ml: unknown key (accepted here: name, width_mm)",
        ),
        ({"first": {"name": "cup", "size": 3}}, "kitchen.first.size: unknown key (accepted here: name, size_ml)"),
        ({"first": {"size_ml": 3}}, "kitchen.first.name: missing"),
        ({"first": {"name": "fork"}}, "kitchen.first.name: 'fork' is none of 'cup', 'plate'"),
        (
            {"first": {"name": "cup", "size_ml": 0}},
            "kitchen.first.size_ml: Input should be greater than or equal to 1 (seen: 0)",
        ),
        ({"cups": [{"size_ml": 1}, {"size": 2}]}, "kitchen.cups.1.size: unknown key"),
        ({"guests": [1, "x"]}, "kitchen.guests.1: "),
    ],
)
def test_what_is_wrong_is_named_by_its_full_key(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Table.parse(values, "kitchen")
    assert message in str(error.value)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"guests.*extra"):
        Table.parse({"guests": "x", "extra": 1})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Cup().size_ml = 3  # type: ignore[misc]
