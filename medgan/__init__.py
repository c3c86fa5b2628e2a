"""medgan: translate, sample and judge medical images.

The verbs are functions of this package (`medgan.train`, `medgan.translate`, …) and commands of the same name.
Nothing heavy is imported before it is needed.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medgan.augment.choose import choose as select
    from medgan.augment.export import export
    from medgan.augment.gate import audit_set as audit
    from medgan.augment.sample import sample
    from medgan.augment.trial import try_set as utility
    from medgan.cache import cache
    from medgan.check import check
    from medgan.compare import compare
    from medgan.convert import convert
    from medgan.deidentify import deidentify
    from medgan.demo import demo
    from medgan.errors import MedganError
    from medgan.evaluate import evaluate
    from medgan.export_cohort import export_cohort
    from medgan.formats import read, write
    from medgan.gamma import gamma
    from medgan.import_weights import import_weights
    from medgan.index import index
    from medgan.inspect import inspect
    from medgan.likeness import likeness
    from medgan.phantoms import phantoms
    from medgan.prepare import prepare
    from medgan.pull import pull
    from medgan.push import push
    from medgan.report import report
    from medgan.scoring import Scoring, score
    from medgan.serve_dicom import serve_dicom
    from medgan.train import train
    from medgan.translate import translate
    from medgan.volume import Grid, Synthesis, Volume

__version__ = "0.1.0"
__all__ = [
    "Grid",
    "MedganError",
    "Scoring",
    "Synthesis",
    "Volume",
    "__version__",
    "audit",
    "cache",
    "check",
    "compare",
    "convert",
    "deidentify",
    "demo",
    "evaluate",
    "export",
    "export_cohort",
    "gamma",
    "import_weights",
    "index",
    "inspect",
    "likeness",
    "phantoms",
    "prepare",
    "project",
    "pull",
    "push",
    "read",
    "report",
    "sample",
    "score",
    "select",
    "serve_dicom",
    "train",
    "translate",
    "utility",
    "write",
]

_VERBS = (
    "cache",
    "check",
    "compare",
    "convert",
    "deidentify",
    "demo",
    "evaluate",
    "export_cohort",
    "gamma",
    "import_weights",
    "index",
    "inspect",
    "likeness",
    "phantoms",
    "prepare",
    "pull",
    "push",
    "report",
    "serve_dicom",
    "train",
    "translate",
)
_HOMES = {
    **{verb: (verb, verb) for verb in _VERBS},
    **{name: ("volume", name) for name in ("Grid", "Synthesis", "Volume")},
    **{name: ("formats", name) for name in ("read", "write")},
    **{name: ("scoring", name) for name in ("Scoring", "score")},
    "MedganError": ("errors", "MedganError"),
    "audit": ("augment.gate", "audit_set"),
    "export": ("augment.export", "export"),
    "project": ("augment.projections", "project"),
    "sample": ("augment.sample", "sample"),
    "select": ("augment.choose", "choose"),
    "utility": ("augment.trial", "try_set"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medgan' has no attribute {name!r}")
    module, function = _HOMES[name]
    return getattr(importlib.import_module(f"medgan.{module}"), function)


class _Package(types.ModuleType):
    """A verb stays its function: importing the module of the same name does not hide it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS and isinstance(value, types.ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
