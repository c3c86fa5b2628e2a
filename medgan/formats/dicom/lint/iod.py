"""Which attributes a file of a class has to have, and whether it has them.

Source: PS3.3, Annex A (modules of each class) and Annex C (attributes of each module), as a table made by
tools/iods.py. Types: 1 there and with a value, 2 there, 1C and 2C likewise under a condition, 3 optional.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pydicom import Dataset

from medgan.formats.dicom.lint.conditions import is_required

__all__ = ["Attribute", "Iod", "Lack", "attributes_of", "iod_of", "lacks"]

_STRICTEST_FIRST = ("1", "2", "1C", "2C", "3")


@dataclass(frozen=True)
class Attribute:
    """One attribute of a list.

    Args:
        kind: its type: 1, 2, 1C, 2C or 3.
        items: number of the list that each item of the sequence follows; -1 if there is none.
    """

    kind: str
    items: int = -1


Attributes = dict[str, Attribute]


@dataclass(frozen=True)
class Iod:
    """What a class of objects is made of.

    Args:
        name: such as `ct-image`.
        mandatory: attributes, by keyword, of the modules that every file has.
        optional: attributes of each other module, by the module's name.
    """

    name: str
    mandatory: Attributes
    optional: dict[str, Attributes]

    def knows(self, keyword: str) -> bool:
        """True if some module of the class lists an attribute."""
        return keyword in self.mandatory or any(keyword in module for module in self.optional.values())


@dataclass(frozen=True)
class Lack:
    """An attribute that is not there or has no value, though it has to.

    Args:
        kind: its type.
        is_empty: True if it is there, without a value.
        path: keywords down to it.
        module: name of the module in use that asks for it, "" for what every file of the class has.
    """

    kind: str
    is_empty: bool
    path: tuple[str, ...]
    module: str = ""


@cache
def iod_of(sop_class: str) -> Iod | None:
    """What files of a class are made of; None for a class that the table does not know.

    Example:
        >>> iod_of("1.2.840.10008.5.1.4.1.1.2").mandatory["KVP"].kind
        '2'
    """
    name = _table()["classes"].get(sop_class)
    if name is None:
        return None
    modules: dict[str, list[str]] = {"M": [], "C": [], "U": []}
    for one in _table()["iods"][name].split():
        modules[one[0]].append(_table()["modules"][int(one[1:])])
    mandatory: Attributes = {}
    for module in modules["M"]:
        _merge(mandatory, _module(module))
    optional = {module.split(">")[0]: _module(module) for usage in "CU" for module in modules[usage]}
    return Iod(name, mandatory, optional)


def attributes_of(module: str) -> Attributes:
    """The attributes of a module, such as `ct-image`."""
    return _module(next(one for one in _table()["modules"] if one.startswith(f"{module}>")))


def lacks(dataset: Dataset, iod: Iod) -> Iterator[Lack]:
    """What a file lacks of its class's mandatory modules, and of the others that it has something of."""
    yield from _missing(dataset, iod.mandatory, (), dataset, "")
    for name, attributes in iod.optional.items():
        own = {key: attribute for key, attribute in attributes.items() if key not in iod.mandatory}
        if any(key in dataset and not dataset[key].is_empty for key in own):
            yield from _missing(dataset, own, (), dataset, name)


def _missing(
    item: Dataset, attributes: Attributes, path: tuple[str, ...], root: Dataset, module: str
) -> Iterator[Lack]:
    for key, attribute in attributes.items():
        here = (*path, key)
        if key not in item:
            if attribute.kind in {"1", "2"} or (attribute.kind in {"1C", "2C"} and is_required(key, item, root)):
                yield Lack(attribute.kind, False, here, module)
            continue
        element = item[key]
        if element.is_empty:
            if attribute.kind == "1" or (attribute.kind == "1C" and is_required(key, item, root)):
                yield Lack(attribute.kind, True, here, module)
        elif element.VR == "SQ" and attribute.items >= 0:
            for one in element.value:
                yield from _missing(one, _list(attribute.items), here, root, module)


def _merge(attributes: Attributes, more: Attributes) -> None:
    """Of an attribute that several modules list, the strictest type counts, and the items of the last, most special."""
    for key, attribute in more.items():
        known = attributes.get(key, attribute)
        kind = min(known.kind, attribute.kind, key=_STRICTEST_FIRST.index)
        attributes[key] = Attribute(kind, attribute.items if attribute.items >= 0 else known.items)


def _module(module: str) -> Attributes:
    return _list(int(module.split(">")[1]))


@cache
def _list(number: int) -> Attributes:
    line: str = _table()["lists"][number]
    return dict(_attribute(part) for part in line.split(",") if part)


def _attribute(part: str) -> tuple[str, Attribute]:
    keyword, _, rest = part.partition(" ")
    kind, _, items = rest.partition(">")
    return keyword, Attribute(kind or "3", int(items) if items else -1)


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads((files("medgan.formats.dicom.lint") / "iods.json").read_text(encoding="ascii"))
    return table
