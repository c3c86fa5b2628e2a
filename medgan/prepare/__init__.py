"""A table of cases → a table worth training on: the images of each case upon one another, on one grid and one scale.

What is made is a folder:

```
cases.csv            as the table that came in, without the cases that could not be prepared
CASE/                its images, what was done to them, a picture: see `medgan.prepare.records`
prepare.yaml         the settings, every default written out; with harmonisation.json the way for new patients
prepare.json         what became of each case
report.html          all cases on one page, worst first, where `medgan prepare` was typed: `medgan.report.prepare`
harmonisation.json   what was learnt of the cases in train, where values are harmonised
```

Nothing is half written. A run that was stopped goes on, and one that is repeated does nothing again: a case is known by
the content of its files and by the settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from medgan import __version__
from medgan.cases import Case, listed, read_cases, tell_alike, write_cases
from medgan.errors import CasesError
from medgan.prepare.cohort import (
    KEPT,
    MADE,
    REFUSED,
    SUMMARY,
    TABLE,
    PreparedCase,
    claimed,
    made,
    put,
    refuse_missing_libraries,
    results_of,
    scaled,
)
from medgan.prepare.cohort import left_over as found_left_over
from medgan.prepare.plan import Plan, load
from medgan.progress import say

__all__ = ["Prepared", "PreparedCase", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """What became of a table.

    Args:
        table: of the cases that are prepared; None if there is none.
        cases: in the order of the table that came in.
        left_over: folders of cases that are no longer in the table.
    """

    table: Path | None
    cases: tuple[PreparedCase, ...]
    left_over: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all are prepared, 1 none, 4 some are refused."""
        refused = sum(case.status == REFUSED for case in self.cases)
        return 0 if not refused else 1 if refused == len(self.cases) else 4

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "table": str(self.table or ""),
            "cases": [asdict(case) for case in self.cases],
            "left_over": list(self.left_over),
        }

    def lines(self) -> Iterator[str]:
        """What people should know, a line each, and at the end how many cases are what."""
        for case in self.cases:
            yield from (f"{case.name}: {note}" for note in case.notes if case.status == MADE)
        yield from (f"{case.name}: refused: {case.reason}" for case in self.cases if case.status == REFUSED)
        if self.left_over:
            yield f"no longer in the table, and left as they are: {listed(self.left_over)}"
        counts = {status: sum(case.status == status for case in self.cases) for status in (MADE, KEPT, REFUSED)}
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        yield f"{told}: {self.table}" if self.table else told


def prepare(
    table: Path | str,
    config: Path | str,
    overrides: Sequence[str] = (),
    *,
    out: Path | str,
    exclude: Path | str | None = None,
    processes: int = 1,
) -> Prepared:
    """Prepare every case of a table, as a config declares; what is wrong with one case does not stop the others.

    Values are harmonised by what the cases of the split train have in common; no other patient has a part in it.

    Args:
        table: of cases, as `medgan index` writes it.
        config: a YAML file; see `medgan.prepare.plan`. For new patients, the `prepare.yaml` of the cohort that a model
            was trained on.
        overrides: `dotted.key=value`.
        out: a new folder, or one that a preparation has begun.
        exclude: a list of cases to leave out, such as `exclude.csv` of `medgan check`; those of it that a preparation
            mends are prepared.
        processes: cases that are prepared at once.

    Raises:
        ConfigError: for settings that are unknown, out of range, or need a library that is not installed.
        CasesError: if the table cannot be used, or has columns of which the settings do not know what they are.
        InputError: if values are to be harmonised and no case of train can be prepared.
        OutputError: if the folder cannot be written, or holds something else.
    """
    plan, home = load(Path(config), overrides), Path(out)
    without = Path(exclude) if exclude else None
    cases = read_cases(Path(table), required=(), exclude=without, to_prepare=True, present=False)
    _refuse_undeclared(plan, cases, Path(table))
    tell_alike(cases, table)
    refuse_missing_libraries(plan)
    with claimed(home, plan):
        done = made(cases, plan, scaled(cases, plan, home, processes), home, processes)
        _tell_lost_splits(Path(table), done, cases)
        result = Prepared(_table(done, cases, home), tuple(done), found_left_over(home, cases))
        put(home / SUMMARY, json.dumps({"medgan": __version__, **_summary(result)}, indent=2, ensure_ascii=False))
    return result


def _refuse_undeclared(plan: Plan, cases: Sequence[Case], table: Path) -> None:
    seen = dict.fromkeys(role for case in cases for role in case.images)
    known = {*plan.images, *plan.labels, "mask"}
    if unknown := [role for role in seen if role not in known]:
        raise CasesError(
            f"{table}: has the columns {listed(unknown)}, of which the settings do not tell what they are; name them "
            "under images, or under labels with the image on which they were drawn, or remove them"
        )
    if not seen.keys() & plan.images.keys():
        raise CasesError(f"{table}: has no column {listed(plan.images)}, which the settings prepare; name what it has")


def _tell_lost_splits(table: Path, done: Sequence[PreparedCase], cases: Sequence[Case]) -> None:
    """Of splits that had cases in the table, and have none that is prepared."""
    refused = {case.name for case in done if case.status == REFUSED}
    before = {case.split for case in read_cases(table, required=(), present=False)}
    left = {case.split for case in cases if case.name not in refused}
    if lost := sorted(before - left):
        say(f"Warning: no case of {' and '.join(lost)} is left; index with another --seed or other --fractions")


def _table(done: Sequence[PreparedCase], cases: Sequence[Case], home: Path) -> Path | None:
    """The table of what is prepared; an older one is taken away where there is nothing."""
    good = {case.name for case in done if case.status != REFUSED}
    if not good:
        (home / TABLE).unlink(missing_ok=True)
        return None
    kept = [replace(case, images=results_of(home / case.name)) for case in cases if case.name in good]
    fresh = write_cases(kept, home / f".{TABLE}")
    put(home / TABLE, fresh.read_text(encoding="utf-8"))
    fresh.unlink()
    return home / TABLE


def _summary(result: Prepared) -> dict[str, Any]:
    """What does not hang on when cases were prepared, so that a run that does nothing changes nothing."""
    refused = [case for case in result.cases if case.status == REFUSED]
    return {
        "prepared": [{"name": case.name, "notes": list(case.notes)} for case in result.cases if case not in refused],
        "refused": [{"name": case.name, "reason": case.reason} for case in refused],
        "left_over": list(result.left_over),
    }
