"""medgan utility: the tables of a study → whether a synthetic set helps a task, on real patients not seen before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from medgan.atomic import replacing
from medgan.augment.sets import MANIFEST, contract_of, read_manifest, read_real, read_synthetic
from medgan.augment.utility import Utility, UtilitySettings, utility
from medgan.errors import InputError
from medgan.progress import say
from medgan.report.utility import utility_report
from medgan.splits import table_split_hash

__all__ = ["Tried", "try_set"]

ROWS, TOLD = "utility.jsonl", "utility.json"


@dataclass(frozen=True)
class Tried:
    """A study of utility and what was written of it.

    Args:
        utility: the verdict and all scores.
        report: `utility.json`.
    """

    utility: Utility
    report: Path


def try_set(
    real: Path | str,
    synthetic: Path | str,
    settings: UtilitySettings,
    *,
    test: Path | str | None = None,
    selection: Path | str | None = None,
    out: Path | str | None = None,
    device: str = "auto",
) -> Tried:
    """Train a small net with and without the synthetic set, and try it on real test patients.

    A study that was stopped goes on where it was: a line of `utility.jsonl` is a training that is done.

    Args:
        real: the table of cases from which the set's generator learnt; its split train is trained on.
        synthetic: the folder of the set.
        settings: the task, the arms, how much of what, how often.
        test: a table of cases of other patients; if not given, the split test of `real`. The split val, by which the
            generator's best weights were chosen, is never taken.
        selection: a table of part of the set, such as one without near copies.
        out: the folder for `utility.jsonl` and `utility.json`; the set's if not given.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: if there are no test images, the set is not marked synthetic, or the sets do not fit the task.
    """
    folder = Path(synthetic)
    place, contract = Path(out or folder), contract_of(folder)
    train = read_real(Path(real), contract, splits=("train",))
    splits = ("train", "val", "test") if test else ("test",)
    tried = read_real(Path(test or real), contract, splits=splits, label="Reading test images")
    if train is None or tried is None:
        raise InputError(f"{test or real}: needs cases in the splits train and test; index with other --fractions")
    made = read_synthetic(folder, contract, Path(selection) if selection else None)
    if test is None:
        _tell_other_split(folder, Path(real))
    place.mkdir(parents=True, exist_ok=True)
    found = utility(train, made, tried, settings, rows=place / ROWS, device=device)
    with replacing(place / TOLD) as temporary:
        temporary.write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")
    utility_report(found, place / "utility.html")
    return Tried(found, place / TOLD)


def _tell_other_split(folder: Path, real: Path) -> None:
    """A generator that learnt from another fold's table has seen patients who are test in this one."""
    split = read_manifest(folder / MANIFEST).get("split_sha256")
    if split and split != table_split_hash(real):
        say(
            f"Warning: {folder} was made by a generator that learnt from another split than {real}'s, and may have "
            "seen its test patients; train one on this table, or name --test patients that neither has seen"
        )
