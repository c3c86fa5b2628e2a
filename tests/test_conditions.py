"""Conditions: classes and numbers as the vector that nets see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medgan.conditions import Condition, encode
from medgan.errors import ConfigError, InputError

SEX, AGE = Condition(classes=("f", "m")), Condition(range=(20, 80), knots=4)


def test_a_class_is_one_entry_and_a_number_lies_between_two() -> None:
    rows = encode({"sex": SEX, "age": AGE}, {"age": ["20", "65"], "sex": ["m", "f"]})
    assert rows is not None
    assert rows.tolist() == [[0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0.75, 0.25]]
    assert encode({}, {}) is None


@given(st.floats(20, 80), st.integers(2, 12))
def test_a_number_can_be_read_from_its_entries(age: float, knots: int) -> None:
    condition = Condition(range=(20, 80), knots=knots)
    entries = condition.encode(repr(age), "age")
    assert len(entries) == condition.width == knots
    assert sum(entries) == pytest.approx(1)
    assert sum(entry > 0 for entry in entries) <= 2
    places = torch.linspace(20, 80, knots).tolist()
    assert sum(entry * place for entry, place in zip(entries, places, strict=True)) == pytest.approx(age, rel=1e-5)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sex": ["x"], "age": ["30"]}, "sex: 'x' is none of the classes f, m"),
        ({"sex": ["f"], "age": ["old"]}, "age: 'old' is no number"),
        ({"sex": ["f"], "age": ["81"]}, "age: 81 is not within 20 to 80"),
        ({"sex": ["f"], "age": ["nan"]}, "age: nan is not within"),
        ({"sex": ["f"]}, "age: not given"),
        ({"sex": ["f"], "age": ["30"], "dose": ["1"]}, "dose: no condition of the run"),
    ],
)
def test_what_the_run_does_not_know_is_refused(values: dict[str, list[str]], told: str) -> None:
    with pytest.raises(InputError, match=told):
        encode({"sex": SEX, "age": AGE}, values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"classes": ["f", "m"], "range": [0, 1]},
        {"range": [1, 1]},
        {"classes": ["f"]},
        {"classes": ["f", "f"]},
        {"classes": ["f", ""]},
        {"classes": ["f", "m"], "knots": 7},
    ],
)
def test_conditions_without_a_meaning_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Condition.parse(values)
