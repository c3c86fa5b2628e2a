"""Who is in train, val and test: always whole patients, the same for the same patients and seed, in any order."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medgan.cases import SPLITS, Case, listed
from medgan.errors import CasesError

__all__ = [
    "Sharing",
    "fold_by_patient",
    "read_split",
    "split_by_patient",
    "split_hash",
    "strata_of",
    "table_paths",
    "table_split_hash",
]


@dataclass(frozen=True)
class Sharing:
    """How the cases of a table are shared out.

    Args:
        fractions: shares of the patients in train, val and test; with folds, train and val share what is not in the
            fold by the first two.
        seed: another seed, another split.
        split: all cases into this one.
        file: a fixed split, see `read_split`.
        folds: as many tables, in each of which another fold of the patients is test.
        stratify: the condition that is shared out as evenly as the patients.
    """

    fractions: Sequence[float] = (0.7, 0.15, 0.15)
    seed: int = 0
    split: str | None = None
    file: Path | None = None
    folds: int | None = None
    stratify: str | None = None

    def __post_init__(self) -> None:
        ways = {"split": self.split, "split_file": self.file, "folds": self.folds}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1 or (self.stratify and given not in ([], ["folds"])):
            told = given + ["stratify"] * bool(self.stratify)
            raise CasesError(f"{' and '.join(told)} contradict each other; give one, or folds and stratify")
        if self.split not in (None, *SPLITS):
            raise CasesError(f"unknown split {self.split!r} (accepted: {', '.join(SPLITS)})")
        _refuse_fractions(self.fractions)

    def tables(self, cases: Sequence[Case]) -> list[list[Case]]:
        """The cases with their splits: once, or once a fold."""
        if self.folds is None:
            return [_put(cases, self._split_of(cases))]
        strata = strata_of(cases, self.stratify)
        layers = {patient: f"{roles} {strata.get(patient, '')}" for patient, roles in _roles(cases).items()}
        fold_of = fold_by_patient(layers, folds=self.folds, seed=self.seed, strata=layers)
        return [self._without(cases, fold_of, number) for number in range(self.folds)]

    def _split_of(self, cases: Sequence[Case]) -> Mapping[str, str]:
        if self.split:
            return dict.fromkeys({case.patient for case in cases}, self.split)
        if self.file:
            return _listed_split(cases, self.file)
        return self._drawn(cases, self.fractions, self.seed)

    def _drawn(self, cases: Sequence[Case], fractions: Sequence[float], seed: int) -> dict[str, str]:
        """Patients with only a, with only b and with both are shared out one by one, so that each split has some."""
        strata, alike = strata_of(cases, self.stratify), defaultdict(list)
        for patient, roles in _roles(cases).items():
            alike[roles].append(patient)
        drawn = [split_by_patient(own, fractions=fractions, seed=seed, strata=strata) for own in alike.values()]
        return {patient: split for part in drawn for patient, split in part.items()}

    def _without(self, cases: Sequence[Case], fold_of: Mapping[str, int], number: int) -> list[Case]:
        """The table in which a fold is test; the seed of the rest differs, so that folds validate on different ones."""
        train, val, _ = self.fractions
        if not train > 0:
            raise CasesError(f"folds need patients to train on; the first of the fractions is {train}")
        rest = [case for case in cases if fold_of[case.patient] != number]
        drawn = self._drawn(rest, (train / (train + val), val / (train + val), 0.0), self.seed + number + 1)
        return _put(cases, {patient: drawn.get(patient, "test") for patient in fold_of})


def split_by_patient(
    patients: Iterable[str],
    *,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Put each patient into train, val or test: the same for the same set of patients and seed, in any order.

    Each split with a fraction above zero gets a patient as soon as there are three.

    Args:
        patients: names; repeated ones count once.
        fractions: shares of train, val and test; they add up to 1.
        seed: another seed, another split.
        strata: what each patient belongs to, such as a site. The shares are met within one patient in each stratum as
            well as in all, unless a split would have nobody.

    Raises:
        CasesError: if the fractions are not three shares that add up to 1.

    Example:
        >>> Counter(split_by_patient([f"p{n}" for n in range(20)]).values())
        Counter({'train': 14, 'val': 3, 'test': 3})
    """
    _refuse_fractions(fractions)
    places = _shared_out(_layers(patients, strata or {}, seed), fractions)
    return {patient: SPLITS[place] for patient, place in places.items()}


def fold_by_patient(
    patients: Iterable[str], *, folds: int, seed: int = 0, strata: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Put each patient into one of several folds of equal size, within one patient, in each stratum and in all.

    Args:
        patients: names; repeated ones count once.
        folds: how many, two at least; they are counted from 0.
        seed: another seed, other folds.
        strata: what each patient belongs to, such as a site.

    Raises:
        CasesError: if there are fewer folds than two, or fewer patients than folds.

    Example:
        >>> sorted(fold_by_patient("abcdef", folds=3).values())
        [0, 0, 1, 1, 2, 2]
    """
    people = set(patients)
    if not 2 <= folds <= len(people):
        raise CasesError(f"there are {len(people)} patients; folds are from 2 to as many, not {folds}")
    return _shared_out(_layers(people, strata or {}, seed), [1 / folds] * folds)


def table_paths(table: Path, folds: int | None) -> list[Path]:
    """Where the tables of folds lie; the table itself if there are none.

    Example:
        >>> [path.name for path in table_paths(Path("cases.csv"), 2)]
        ['cases_fold1of2.csv', 'cases_fold2of2.csv']
    """
    if folds is None:
        return [table]
    return [table.with_name(f"{table.stem}_fold{one}of{folds}{table.suffix}") for one in range(1, folds + 1)]


def split_hash(cases: Iterable[Case]) -> str:
    """SHA-256 of who is in which split, whatever the images, the cases and their order.

    It tells of no single patient: who guesses it right has guessed the names and splits of all.

    Example:
        >>> split_hash([Case("c", "p1", "train", {})])[:12]
        'ad9fa339ed74'
    """
    return _hash((case.patient, case.split) for case in cases)


def table_split_hash(path: Path) -> str:
    """The `split_hash` of a table of cases or another fixed split; no image need be there.

    Raises:
        CasesError: as `read_split`.
    """
    return _hash(read_split(path).items())


def _hash(pairs: Iterable[tuple[str, str]]) -> str:
    lines = sorted({f"{patient}:{split}" for patient, split in pairs})
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_split(path: Path) -> dict[str, str]:
    """A fixed split by patient: a CSV file with the columns patient and split; a table of cases is one as well.

    Raises:
        CasesError: if it is none, knows another split, or has a patient in two.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CasesError(f"{path}: cannot be read as a split ({error})") from None
    pairs = {((row.get("patient") or "").strip(), (row.get("split") or "").strip()) for row in rows}
    if not pairs or any(not patient or split not in SPLITS for patient, split in pairs):
        raise CasesError(f"{path}: is a CSV file with the columns patient and split ({', '.join(SPLITS)}), none empty")
    if twice := sorted(patient for patient, count in Counter(patient for patient, _ in pairs).items() if count > 1):
        raise CasesError(f"{path}: has patients in two splits: {listed(twice)}; give each one")
    return dict(pairs)


def strata_of(cases: Sequence[Case], column: str | None) -> dict[str, str]:
    """What a condition says of each patient; nothing if no column is named.

    Raises:
        CasesError: if it is not known of a case, or differs between the cases of a patient.
    """
    if column is None:
        return {}
    name = column.removeprefix("condition:")
    if lacking := [case.name for case in cases if name not in case.conditions]:
        known = sorted({name for case in cases for name in case.conditions})
        raise CasesError(
            f"stratify: {name} is not known of {listed(lacking)}; known are: {', '.join(known) or 'none'}; give a "
            "table of conditions that has it"
        )
    values: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        values[case.patient].add(case.conditions[name])
    if wrong := [f"{patient} is {' and '.join(sorted(own))}" for patient, own in values.items() if len(own) > 1]:
        raise CasesError(f"stratify: {name} differs between cases of a patient: {listed(wrong)}; take what does not")
    return {patient: next(iter(own)) for patient, own in values.items()}


# --- sharing out ------------------------------------------------------------------------------------------------------


def _refuse_fractions(fractions: Sequence[float]) -> None:
    if len(fractions) != len(SPLITS) or not min(fractions) >= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise CasesError(f"fractions are the shares of train, val and test and add up to 1; seen: {list(fractions)}")


def _layers(patients: Iterable[str], strata: Mapping[str, str], seed: int) -> list[list[str]]:
    """The patients of each stratum, in an order that their names and the seed alone decide."""
    order = sorted(set(patients), key=lambda patient: (hashlib.sha256(f"{seed}:{patient}".encode()).digest(), patient))
    layers: dict[str, list[str]] = defaultdict(list)
    for patient in order:
        layers[strata.get(patient, "")].append(patient)
    return [layers[name] for name in sorted(layers)]


def _shared_out(layers: Sequence[Sequence[str]], fractions: Sequence[float]) -> dict[str, int]:
    """The number of the share that each patient is in; those of a layer that follow each other are together."""
    places: dict[str, int] = {}
    for layer, counts in zip(layers, _counts([len(layer) for layer in layers], fractions), strict=True):
        shares = [k for k, count in enumerate(counts) for _ in range(count)]
        places |= dict(zip(layer, shares, strict=True))
    return places


def _counts(sizes: Sequence[int], fractions: Sequence[float]) -> list[list[int]]:
    """Whole numbers near `size * fraction` in each layer, whose sums over the layers are near as well.

    Each layer rounds up where most is owed, what the layers before have left owing counted in. With three shares what
    is owed stays below one: a share that is passed over is at most the second of three that add up to one, or the
    third of three that add up to two, and none is below minus one. With equal shares it is dealing in turn.
    """
    counts: list[list[int]] = []
    owed = [0.0] * len(fractions)
    for size in sizes:
        exact = [size * fraction for fraction in fractions]
        counts.append(_rounded(exact, owed, size))
        owed = [debt + share - count for debt, share, count in zip(owed, exact, counts[-1], strict=True)]
    _fill_empty(counts, sizes, fractions)
    return counts


def _rounded(exact: Sequence[float], owed: Sequence[float], total: int) -> list[int]:
    """Whole numbers, at most one from each share, that add up to the total."""
    counts = [int(share + 1e-9) for share in exact]
    between = [k for k in range(len(exact)) if exact[k] - counts[k] > 1e-9]
    by_debt = sorted(between, key=lambda k: (counts[k] - exact[k] - owed[k], k))
    for k in by_debt[: total - sum(counts)]:
        counts[k] += 1
    return counts


def _fill_empty(counts: list[list[int]], sizes: Sequence[int], fractions: Sequence[float]) -> None:
    """A share that nobody is in takes one from the largest, in the layer that has given it most."""
    for k, fraction in enumerate(fractions):
        sums = [sum(column) for column in zip(*counts, strict=True)]
        if sum(sizes) < len(fractions) or fraction == 0 or sums[k]:
            continue
        donor = sums.index(max(sums))
        rows = [row for row in range(len(counts)) if counts[row][donor]]
        most = max(rows, key=lambda row: counts[row][donor] - sizes[row] * fractions[donor])
        counts[most][donor] -= 1
        counts[most][k] += 1


# --- tables -----------------------------------------------------------------------------------------------------------


def _put(cases: Sequence[Case], split_of: Mapping[str, str]) -> list[Case]:
    return [replace(case, split=split_of[case.patient]) for case in cases]


def _roles(cases: Sequence[Case]) -> dict[str, str]:
    """What there is of each patient: "a", "b" or "a b"."""
    roles: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        roles[case.patient] |= case.images.keys() & {"a", "b"}
    return {patient: " ".join(sorted(own)) for patient, own in roles.items()}


def _listed_split(cases: Sequence[Case], path: Path) -> dict[str, str]:
    split_of = read_split(path)
    if missing := sorted({case.patient for case in cases} - split_of.keys()):
        raise CasesError(f"{path}: has no line for the patients {listed(missing)}; add them, or move their images away")
    return split_of
