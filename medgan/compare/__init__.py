"""Methods compared on the same cases: paired tests, effect sizes and a ranking, over patients."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import scipy

from medgan import __version__
from medgan.compare.comparison import Comparison, Contest, How, Missing, Pair, comparison_of
from medgan.compare.files import latex, write_comparison
from medgan.compare.names import named
from medgan.compare.results import Results, is_results, join, read_results, results_of
from medgan.errors import InputError
from medgan.metrics.statistics import RESAMPLES
from medgan.processes import is_first

__all__ = ["Comparison", "Contest", "Pair", "compare", "compare_results", "latex"]

MOST_RESAMPLES = 10_000_000


def compare(
    methods: Mapping[str, Path | str] | Sequence[Path | str],
    *,
    ref: Path | str | None = None,
    mask: Path | str | None = None,
    preset: str | None = None,
    metrics: Sequence[str] | None = None,
    missing: Missing = "complete",
    out: Path | str | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare methods on the same cases, measure by measure.

    A method is a folder of predictions, which is scored by `medgan.evaluate` against `ref`; or scores that are there
    already: metrics.json or metrics.csv, the folder that `evaluate` wrote them into, or a CSV file of another tool with
    a column `case` and columns named as measures. Scores of different preset, range, unit, mask or number of voxels are
    refused. Measures without a better end are left out, and told.

    Args:
        methods: two or more paths, by name if they are a mapping or written NAME=PATH.
        ref: references; needed where predictions are to be scored.
        mask: masks for the scoring.
        preset: for the scoring; that of `evaluate` if not given.
        metrics: measures to compare; all that every method has if not given.
        missing: `complete` leaves out a case that any method lacks; `worst` ranks a method last where it has no
            score.
        out: folder for comparison.json, comparison.csv, pairs.csv, comparison.tex, and the scores of each method that
            was scored.
        seed: of all draws.
        resamples: of the bootstrap.

    Raises:
        InputError: if there are fewer than two methods, a path cannot be used, scores were made differently, no case is
            shared, or a measure is not there.
        OutputError: if `out` cannot be written.
    """
    paths = named(methods)
    _refuse_nonsense(missing, resamples)
    asked = {name: value for name, value in {"mask": mask, "preset": preset}.items() if value is not None}
    scored = {name: is_results(path, to_score=ref is not None) for name, path in paths.items()}
    _refuse_idle([paths[name] for name in paths if not scored[name]], ref, asked)
    target = None if out is None else Path(out)
    results = [
        read_results(name, path) if scored[name] else _evaluated(name, path, {"ref": ref, **asked}, target)
        for name, path in paths.items()
    ]
    return compare_results(results, metrics=metrics, missing=missing, out=target, seed=seed, resamples=resamples)


def compare_results(
    results: Sequence[Results],
    *,
    metrics: Sequence[str] | None = None,
    missing: Missing = "complete",
    out: Path | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """The same of scores that are in memory; see `compare`.

    Args:
        results: of two methods or more.
        metrics: measures to compare; all if not given.
        missing: what a missing prediction counts.
        out: folder for the files.
        seed: of all draws.
        resamples: of the bootstrap.
    """
    _refuse_nonsense(missing, resamples)
    versions = {"medgan": __version__, "numpy": np.__version__, "scipy": scipy.__version__}
    versions["python"] = platform.python_version()
    found = comparison_of(join(results, metrics), How(missing, seed, resamples), versions)
    if out is not None and is_first():
        write_comparison(found, out)
    return found


def _evaluated(name: str, path: Path, asked: Mapping[str, Any], out: Path | None) -> Results:
    from medgan.evaluate import evaluate

    home = None if out is None else out / (re.sub(r"[^\w.-]+", "_", name).strip(".") or "method")
    return results_of(name, evaluate(path, **asked, out=home), source=str(path))


def _refuse_idle(unscored: Sequence[Path], ref: Path | str | None, asked: Mapping[str, Any]) -> None:
    """Predictions without references, and references without predictions."""
    if unscored and ref is None:
        raise InputError(f"{unscored[0]}: holds no metrics.json; name the references that it is scored against (ref)")
    if not unscored and (ref is not None or asked):
        raise InputError("every method is scored already: ref, mask and preset have nothing to do; leave them out")


def _refuse_nonsense(missing: str, resamples: int) -> None:
    if missing not in get_args(Missing):
        raise InputError(f"missing is {missing!r} (accepted: {', '.join(get_args(Missing))})")
    if not 100 <= resamples <= MOST_RESAMPLES:
        raise InputError(f"resamples is {resamples}; accepted are 100 to {MOST_RESAMPLES:,}, and 10,000 do")
