"""The table of attribute types that `medgan inspect --lint` judges by, made from the tables that highdicom carries.

    python tools/iods.py

writes medgan/formats/dicom/lint/iods.json and prints what it holds. highdicom (MIT) ships PS3.3 as 23 MB of JSON: a row
for every attribute at every depth. Here each distinct list of attributes is kept once, and of nested attributes only
those that an item may have to have, so 100,000 rows become 0.2 MB.

A list is one line, `ImageType 1,InstanceNumber,DerivationCodeSequence 3>7`: keyword, type (3 where none is written),
and after `>` the number of the list that each item of the sequence follows. An IOD is one line too, `M0 U3`: usage and
number of each module.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

OUT = Path(__file__).parents[1] / "medgan" / "formats" / "dicom" / "lint" / "iods.json"
NAMES = ("iod_module_map", "module_attribute_map", "sop_class_iod_map")
# Which rows of these count hangs on the kind of each content item, which the tables do not tell.
UNJUDGED = ("sr-document-content",)
FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
Tree = dict[str, tuple[str, "Tree"]]


def main() -> None:
    iods, modules, classes = tables()
    used = {name: sorted({module["key"] for module in iods[name]} & set(modules)) for name in set(classes.values())}
    lists: list[str] = []
    for name in UNJUDGED:
        modules[name] = [row | {"type": "3"} for row in modules[name] if not row["path"]]
    numbers = {name: number_of(tree(modules[name]), lists) for name in sorted(set().union(*used.values()))}
    places = {name: place for place, name in enumerate(numbers)}
    table = {
        "source": f"DICOM PS3.3 as carried by highdicom {version('highdicom')}",
        "classes": dict(sorted(classes.items())),
        "iods": {name: by_usage(iods[name], places) for name in sorted(used)},
        "modules": [f"{name}>{number}" for name, number in numbers.items()],
        "lists": lists,
    }
    OUT.write_text(json.dumps(table, indent=0, separators=(",", ":")) + "\n")
    print(f"{OUT}: {len(classes)} classes, {len(used)} IODs, {len(numbers)} modules, {len(lists)} lists of attributes")


def tables() -> tuple[dict[str, Any], ...]:
    """highdicom's tables: modules by IOD, attributes by module, IODs by SOP class."""
    spec = find_spec("highdicom")
    if spec is None or spec.origin is None:
        raise SystemExit("highdicom is not installed: pip install highdicom")
    folder = Path(spec.origin).parent / "_standard"
    return tuple(json.loads((folder / f"{name}.json").read_text()) for name in NAMES)


def tree(rows: list[dict[str, Any]]) -> Tree:
    """The attributes of a module, those of items below their sequences."""
    root: Tree = {}
    for row in rows:
        if tag_for_keyword(row["keyword"]) is None:  # an overlay's: such attributes have a group for each overlay
            continue
        node = root
        for key in row["path"]:
            node = node.setdefault(key, ("3", {}))[1]
        kept = node.get(row["keyword"], ("", {}))[1]
        node[row["keyword"]] = (type_of(row), kept)
    return root


def type_of(row: dict[str, Any]) -> str:
    """A functional group may be shared or per frame, so neither place has to hold it."""
    is_group = len(row["path"]) == 1 and row["path"][0] in FUNCTIONAL_GROUPS
    return "3" if is_group or row["type"] in {None, "None"} else str(row["type"])


def number_of(node: Tree, lists: list[str], *, nested: bool = False) -> int:
    """The number of a list; it is appended if there is none like it."""
    parts = []
    for key, (kind, below) in node.items():
        child = number_of(below, lists, nested=True) if below else -1
        if nested and kind == "3" and (child < 0 or not lists[child]):
            continue
        below_it = f">{child}" if child >= 0 and lists[child] else ""
        parts.append(key + (f" {kind}" if kind != "3" or below_it else "") + below_it)
    line = ",".join(parts)
    if line not in lists:
        lists.append(line)
    return lists.index(line)


def by_usage(rows: list[dict[str, str]], places: dict[str, int]) -> str:
    """Modules of an IOD: mandatory, conditional, user's option."""
    return " ".join(f"{row['usage']}{places[row['key']]}" for row in rows if row["key"] in places)


if __name__ == "__main__":
    main()
