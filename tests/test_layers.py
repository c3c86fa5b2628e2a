"""The import table: a module imports only from rows above its own, and third parties stay where they belong."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import medgan

PACKAGE = Path(medgan.__file__).parent
ROWS = [
    {"errors"},
    {"settings", "processes", "declared", "names"},
    {"volume", "atomic", "progress", "imageset"},
    {"resample"},
    {"formats", "prep", "nets", "losses", "penalties", "metrics", "pictures", "baselines", "itk"},
    {"cases", "cache", "device", "conditions", "schedule", "alignment", "plausible", "bodies", "coverage", "published"},
    {"bias", "harmony", "layouts", "leaks", "splits", "artefacts", "outliers", "registration"},
    {"findings"},
    {"models", "check", "inspect", "lint", "convert", "deidentify", "index", "match", "phantom", "pull", "push"},
    {"scoring", "gamma", "phantoms", "scans"},
    {"kept", "jitter", "ledger", "diagram", "board", "results", "featured"},
    {"data", "likeness", "prepare", "export_cohort"},
    {"config", "sliding", "transforms", "views"},
    {"run"},
    {"validate", "journal", "doctor", "learner", "play", "uncertainty"},
    {"exam"},
    {"lesson", "sampling"},
    {"lessons"},
    {"ensemble", "train", "import_weights"},
    {"translate", "evaluate", "cost"},
    {"study", "report", "serve_dicom", "compare"},
    {"augment", "judge"},
    {"demo", "tables"},
    {"cli"},
    {"__init__", "__main__"},
]
HOMES = {
    "pydicom": {"formats"},
    "pynetdicom": {"formats"},
    "dicomweb_client": {"formats"},
    "requests": {"formats"},
    "nibabel": {"formats"},
    "deepbet": {"bodies"},
    "SimpleITK": {"formats", "itk"},
    "typer": {"cli"},
    "rich": {"progress"},
    "tensorboard": {"board"},
    "monai": {"augment", "data", "nets", "sliding", "transforms", "views"},
    "lightning_fabric": {"learner", "play", "processes", "train"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The top-level module or package that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, type-checking blocks aside."""
    for node in ast.walk(_without_type_checking(ast.parse(path.read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test))]
    return tree


def row(name: str) -> int:
    """The row of a room."""
    return next(number for number, rooms in enumerate(ROWS) if name in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_come_from_rows_above(path: Path) -> None:
    own = room(path)
    for name in imports(path):
        parts = name.split(".")
        if (
            parts[0] == "medgan"
            and len(parts) > 1
            and (PACKAGE / parts[1]).with_suffix(".py").exists() | (PACKAGE / parts[1]).is_dir()
        ):
            assert parts[1] == own or row(parts[1]) < row(own), f"{own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_parties_stay_home(path: Path) -> None:
    for name in imports(path):
        home = HOMES.get(name.split(".")[0])
        assert home is None or room(path) in home, f"{room(path)} imports {name}"


def test_every_room_has_a_row() -> None:
    assert {room(path) for path in FILES} == set().union(*ROWS)


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, medgan, medgan.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "monai", "numpy", "scipy", "skimage", "nibabel", "pydicom", "pydantic", "lightning_fabric"}
    assert heavy.isdisjoint(loaded)


def test_metrics_of_arrays_import_no_torch() -> None:
    """Nor do those that need it hide behind the ones that do not."""
    code = (
        "import sys, medgan.metrics as metrics\n"
        "late = set(metrics._OF_TORCH)\n"
        "assert late < set(metrics.__all__)\n"
        "assert all(getattr(metrics, name) is not None for name in metrics.__all__ if name not in late)\n"
        "import numpy as np\n"
        "assert metrics.PRESETS['full'].score(np.ones((12, 12, 12)), np.zeros((12, 12, 12)), None)['mae'] == 1\n"
        "assert not {'torch', 'monai'} & set(sys.modules), 'torch'\n"
        "assert all(getattr(metrics, name) is not None for name in late)\n"
        "assert callable(metrics.membership) and callable(metrics.gamma) and callable(metrics.calibration)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_report_of_results_imports_no_torch() -> None:
    code = "import sys, medgan.judge; assert not {'torch', 'monai'} & set(sys.modules), 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_verb_stays_a_function_after_its_module_is_imported() -> None:
    code = "import medgan, medgan.index, medgan.cases; from medgan.index import index; assert medgan.index is index"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_docs_show_these_rows() -> None:
    page = (PACKAGE.parent / "docs/concepts/architecture.md").read_text()
    shown = [set(re.findall(r"`(\w+)`", names)) for names in re.findall(r"^\| \d+ \| (.+) \|$", page, re.MULTILINE)]
    assert shown == ROWS[:-1]
