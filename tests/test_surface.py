"""The public surface is frozen: names, commands and options change here on purpose or not at all."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import medgan
from medgan.cli import app

NAMES = [
    "Grid", "MedganError", "Scoring", "Synthesis", "Volume", "__version__",
    "audit", "cache", "check", "compare", "convert", "deidentify", "demo", "evaluate", "export", "export_cohort",
    "gamma", "import_weights", "index", "inspect", "likeness", "phantoms", "prepare", "project", "pull", "push", "read",
    "report", "sample", "score", "select", "serve_dicom", "train", "translate", "utility", "write",
]  # fmt: skip
COMMANDS = {
    "audit": [
        "real", "synthetic", "--holdout", "--run", "--features", "--within", "--drop-near-copies", "--out",
        "--seed", "--json",
    ],
    "augment": [
        "table", "--run", "--out", "--to", "--role", "--split", "--device", "--batch", "--trust", "--unlabelled",
        "--json",
    ],
    "cache": ["--clear"],
    "check": ["table", "--hu", "--out", "--processes", "--json"],
    "convert": [
        "source", "out", "--like", "--series", "--to", "--fill", "--resample", "--scaling", "--json",
    ],
    "deidentify": ["source", "out", "--key", "--patients", "--shift-dates", "--allow-burned-in", "--json"],
    "demo": ["--out", "--device"],
    "compare": ["methods", "--ref", "--mask", "--preset", "--metric", "--missing", "--seed", "--out", "--json"],
    "evaluate": [
        "pred", "ref", "--mask", "--preset", "--range", "--region", "--pred-labels", "--ref-labels", "--label",
        "--split", "--run", "--std", "--source", "--wepl", "--angle", "--unit", "--resample-to", "--tolerance",
        "--processes", "--fail-under", "--out", "--json",
    ],
    "export": ["run_folder", "--share"],
    "export-cohort": ["table", "to", "out", "--label", "--name", "--fold", "--exclude"],
    "gamma": [
        "evaluated", "reference", "--mask", "--dose", "--distance", "--cutoff", "--local", "--out", "--json",
    ],
    "import-weights": ["weights", "overrides", "--config", "--back", "--arch", "--grey", "--out"],
    "index": [
        "folder", "--layout", "--a", "--b", "--contrast", "--image", "--mask", "--out", "--fractions", "--split",
        "--split-file", "--folds", "--stratify", "--seed", "--patients", "--conditions", "--unpaired",
        "--unregistered", "--leave-out",
    ],
    "inspect": ["path", "--identity", "--lint", "--source", "--json"],
    "likeness": [
        "synthetic", "real", "--features", "--patients", "--real-test", "--window", "--seed", "--device", "--out",
        "--json",
    ],
    "phantoms": ["out", "--layout", "--num", "--seed"],
    "prepare": ["table", "config", "overrides", "--out", "--exclude", "--processes", "--for", "--json"],
    "project": ["run_folder", "table", "--out", "--split", "--num", "--steps", "--device", "--json"],
    "pull": [
        "peer", "out", "--patient", "--study", "--series", "--accession", "--modality", "--date", "--list",
        "--identity", "--move-to", "--port", "--host", "--json",
    ],
    "push": ["paths", "peer", "--decompress", "--json"],
    "report": ["run_folder", "--out"],
    "sample": [
        "run_folder", "--out", "--num", "--seed", "--condition", "--balance", "--truncation", "--least-patients",
        "--format", "--again", "--device", "--json",
    ],
    "select": ["real", "synthetic", "rules", "--run", "--condition", "--seed", "--json"],
    "serve-dicom": [
        "run_folder", "--port", "--aet", "--allow", "--send-to", "--folder", "--host", "--quiet", "--device",
    ],
    "train": ["config", "overrides", "--out", "--device", "--dry-run"],
    "translate": [
        "run_folder", "source", "out", "--contrast", "--to", "--series", "--split", "--device", "--batch", "--overlap",
        "--precision", "--trust",
        "--samples", "--vary", "--seed", "--with", "--triplanar", "--cycle",
        "--json",
    ],
    "utility": ["real", "synthetic", "overrides", "--test", "--selection", "--out", "--device", "--json"],
}  # fmt: skip
VERBS = sorted(COMMANDS)
ON_SETS = ("audit", "export", "project", "sample", "select", "utility")


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(medgan.__path__, "medgan."):
        if found.name != "medgan.__main__":
            yield found.name


def test_the_names_of_the_package() -> None:
    assert sorted(medgan.__all__, key=str.lower) == sorted(NAMES, key=str.lower)
    assert all(getattr(medgan, name) is not None for name in medgan.__all__)


def test_commands_and_options() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    seen = {
        name: [p.opts[0] if p.param_type_name == "option" else p.name for p in command.params]
        for name, command in commands.items()
    }
    assert {name: sorted(options) for name, options in seen.items()} == {
        name: sorted(options) for name, options in COMMANDS.items()
    }


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "augment"])
def test_a_verb_is_a_function_a_module_and_a_command(verb: str) -> None:
    """Those of synthetic sets have their modules in `medgan.augment`, which as a verb is a command alone."""
    name = verb.replace("-", "_")
    module = importlib.import_module(getattr(medgan, name).__module__)
    assert getattr(medgan, name) is getattr(module, getattr(medgan, name).__name__)
    assert verb in ON_SETS or module.__name__ == f"medgan.{name}"
    assert callable(getattr(medgan, name))
    assert "Args:" in (inspect.getdoc(getattr(medgan, name)) or "")


@pytest.mark.parametrize("name", list(modules()))
def test_every_module_names_its_surface_and_documents_it(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    public = getattr(module, "__all__", None)
    assert public is not None, f"{name} has no __all__"
    for thing in (getattr(module, each) for each in public):
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__ == name:
            assert thing.__doc__, f"{name}.{thing.__name__}"


def declared() -> dict[str, Any]:
    return tomllib.loads(Path(medgan.__path__[0]).with_name("pyproject.toml").read_text())


def test_what_lies_in_the_package_is_shipped() -> None:
    package = Path(medgan.__path__[0])
    patterns = declared()["tool"]["setuptools"]["package-data"]["medgan"]
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    other = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert other == shipped


def test_the_oldest_versions_are_those_that_are_promised() -> None:
    """What `make test-oldest` installs."""
    project = declared()["project"]
    used = {**project["optional-dependencies"], "": project["dependencies"]}
    promised = {line for group, lines in used.items() if group not in ("dev", "docs") for line in lines}
    pinned = Path(__file__).with_name("oldest.txt").read_text().splitlines()[1:]
    assert {line.replace("==", ">=") for line in pinned} == promised


@pytest.mark.parametrize("command", [*VERBS, ""])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; sys.argv = ['medgan', *sys.argv[1:]]\n"
        "from medgan.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules)\n"
    )
    argv = [sys.executable, "-c", code, *([command] if command else []), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    # typer itself imports pydantic where it is installed
    heavy = {"torch", "monai", "numpy", "scipy", "skimage", "nibabel", "pydicom", "yaml", "lightning_fabric"}
    assert heavy.isdisjoint(done.stdout.splitlines()[-1].split())
