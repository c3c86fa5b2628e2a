"""A table of cases → the folder that another tool expects: the Decathlon's and MONAI's, BIDS derivatives, nnU-Net's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from medgan.atomic import refuse_full_folder, replacing
from medgan.cases import read_cases
from medgan.errors import InputError
from medgan.export_cohort import bids, decathlon, nnunet
from medgan.export_cohort.cohort import Cohort, cohort_of

__all__ = ["LAYOUTS", "export_cohort"]

LAYOUTS: dict[str, Callable[[Cohort, Path], None]] = {
    "decathlon": decathlon.lay_out,
    "bids": bids.lay_out,
    "nnunet": nnunet.lay_out,
}


def export_cohort(
    table: Path | str,
    to: str,
    out: Path | str,
    *,
    label: str | None = None,
    names: Mapping[str, str] | None = None,
    folds: Sequence[Path | str] = (),
    exclude: Path | str | None = None,
) -> Path:
    """Copy the images of a table into the layout of another tool; images that are synthetic say so there too.

    Args:
        table: of cases, as `medgan index` and `medgan prepare` write it.
        to: `decathlon`, `bids` or `nnunet`.
        out: a new folder; for nnU-Net named as it wants it, such as `Dataset501_Brain`.
        label: the role that is segmented; what other roles of labels there are (unit `label`) is left out, but in BIDS.
        names: of the images there, by role, such as T1w; for t1, t2, flair and CT they are known.
        folds: tables of folds, as `medgan index --folds` writes them, for nnU-Net's cross-validation.
        exclude: a list of cases to leave out, such as `exclude.csv` of `medgan check`.

    Returns:
        The folder.

    Raises:
        CasesError: if a table cannot be used.
        InputError: if the layout is unknown, a role is not in the table, a name cannot stand there, images cannot be
            read, are of one value or the same in two roles, or those of a case are not on one grid where the layout
            wants that.
        OutputError: if the folder cannot be written or holds something.
    """
    out = Path(out)
    if to not in LAYOUTS:
        raise InputError(f"{to}: is no layout (accepted: {', '.join(LAYOUTS)})")
    refuse_full_folder(out)
    without = Path(exclude) if exclude else None
    cases, *others = (read_cases(Path(one), required=(), exclude=without, present=False) for one in (table, *folds))
    found = cohort_of(cases, label, names or {}, others, out.name)
    with replacing(out) as temporary:
        temporary.mkdir()
        LAYOUTS[to](found, temporary)
    return out
