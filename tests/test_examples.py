"""The examples in docstrings are right: every number that one shows is computed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import medgan

MODULES = [found.name for found in pkgutil.walk_packages(medgan.__path__, "medgan.") if found.name != "medgan.__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_right(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


def test_there_are_examples() -> None:
    parser = doctest.DocTestFinder()
    modules = [importlib.import_module(name) for name in MODULES]
    assert sum(len(one.examples) for module in modules for one in parser.find(module, module.__name__)) > 200
