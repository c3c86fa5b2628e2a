"""Splits and folds: whole patients, near their shares in all and in each stratum, and always the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from medgan.cases import SPLITS, Case
from medgan.errors import CasesError
from medgan.splits import Sharing, fold_by_patient, read_split, split_by_patient, split_hash, strata_of, table_paths

# --- splitting --------------------------------------------------------------------------------------------------------

names = st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), min_size=1, max_size=60)
shares = st.tuples(*[st.integers(0, 10)] * 3).filter(any).map(lambda parts: tuple(part / sum(parts) for part in parts))


@given(names, shares, st.integers(0, 5), st.randoms())
def test_a_split_is_a_function_of_the_set_and_the_seed(
    patients: set[str], fractions: tuple[float, ...], seed: int, shuffle: Random
) -> None:
    split = split_by_patient(sorted(patients), fractions=fractions, seed=seed)
    order = sorted(patients) * 2
    shuffle.shuffle(order)
    assert split_by_patient(order, fractions=fractions, seed=seed) == split
    assert set(split) == patients


@given(names, shares, st.integers(0, 5))
def test_the_shares_are_met(patients: set[str], fractions: tuple[float, ...], seed: int) -> None:
    counts = Counter(split_by_patient(patients, fractions=fractions, seed=seed).values())
    for name, fraction in zip(SPLITS, fractions, strict=True):
        if fraction == 0:
            assert counts[name] == 0
        elif len(patients) >= 3:
            assert counts[name] >= 1
        if len(patients) * min(share for share in fractions if share > 0) >= 1:
            assert abs(counts[name] - fraction * len(patients)) < 1 + 1e-6


def test_another_seed_is_another_split() -> None:
    patients = [f"p{n}" for n in range(40)]
    assert len({tuple(sorted(split_by_patient(patients, seed=seed).items())) for seed in range(10)}) == 10


def test_a_new_patient_leaves_most_others_where_they_were() -> None:
    before = split_by_patient([f"p{n}" for n in range(40)])
    after = split_by_patient([f"p{n}" for n in range(41)])
    assert sum(before[name] != after[name] for name in before) <= 4


def test_every_patient_comes_into_every_split_equally_often() -> None:
    patients = [f"p{n}" for n in range(10)]
    in_test = Counter(
        name
        for seed in range(600)
        for name, split in split_by_patient(patients, fractions=(0.6, 0.2, 0.2), seed=seed).items()
        if split == "test"
    )
    # 600 draws with p = 0.2: 120 ± 4.5 standard deviations of 9.8.
    assert all(76 < in_test[name] < 164 for name in patients)


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5), ()])
def test_shares_that_are_none_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(CasesError, match="add up to 1"):
        split_by_patient(["p"], fractions=fractions)


# --- strata -----------------------------------------------------------------------------------------------------------

sites = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), st.sampled_from("ABCDE"), min_size=1, max_size=60)


def by_site(site_of: dict[str, str]) -> dict[str, list[str]]:
    patients = defaultdict(list)
    for patient, site in site_of.items():
        patients[site].append(patient)
    return patients


@given(sites, shares, st.integers(0, 5))
def test_shares_are_met_in_each_stratum_and_in_all(
    site_of: dict[str, str], fractions: tuple[float, ...], seed: int
) -> None:
    split_of = split_by_patient(site_of, fractions=fractions, seed=seed, strata=site_of)
    assert set(split_of) == set(site_of)
    if len(site_of) * min(share for share in fractions if share > 0) < 1:
        return  # somebody may have been taken from a split that has more, see the next test
    for own in [list(site_of), *by_site(site_of).values()]:
        counts = Counter(split_of[patient] for patient in own)
        for split, fraction in zip(SPLITS, fractions, strict=True):
            assert abs(counts[split] - fraction * len(own)) < 1 + 1e-6


@given(sites, shares, st.integers(0, 5))
def test_nobody_is_left_out_for_strata(site_of: dict[str, str], fractions: tuple[float, ...], seed: int) -> None:
    counts = Counter(split_by_patient(site_of, fractions=fractions, seed=seed, strata=site_of).values())
    for split, fraction in zip(SPLITS, fractions, strict=True):
        assert (fraction > 0) >= (counts[split] > 0)
        assert counts[split] > 0 or fraction == 0 or len(site_of) < 3


@given(sites, st.integers(0, 5), st.randoms())
def test_strata_keep_a_split_a_function_of_the_set(site_of: dict[str, str], seed: int, shuffle: Random) -> None:
    order = list(site_of) * 2
    shuffle.shuffle(order)
    again = {patient: site_of[patient] for patient in order}
    assert split_by_patient(order, seed=seed, strata=again) == split_by_patient(site_of, seed=seed, strata=site_of)


def test_many_small_sites_do_not_all_go_into_train() -> None:
    """Each site rounded alone would put all of its two patients into train."""
    site_of = {f"p{n}": f"s{n // 2}" for n in range(40)}
    counts = Counter(split_by_patient(site_of, strata=site_of).values())
    assert counts == {"train": 28, "val": 6, "test": 6}


@given(sites, st.integers(0, 5))
def test_one_stratum_is_none(site_of: dict[str, str], seed: int) -> None:
    one = dict.fromkeys(site_of, "A")
    assert split_by_patient(site_of, seed=seed, strata=one) == split_by_patient(site_of, seed=seed)


# --- folds ------------------------------------------------------------------------------------------------------------


@given(sites.filter(lambda site_of: len(site_of) >= 2), st.integers(2, 12), st.integers(0, 5))
def test_folds_are_equal_in_each_stratum_and_in_all(site_of: dict[str, str], folds: int, seed: int) -> None:
    folds = min(folds, len(site_of))
    fold_of = fold_by_patient(site_of, folds=folds, seed=seed, strata=site_of)
    assert set(fold_of) == set(site_of)
    for own in [list(site_of), *by_site(site_of).values()]:
        counts = Counter(fold_of[patient] for patient in own)
        sizes = [counts[fold] for fold in range(folds)]
        assert max(sizes) - min(sizes) <= 1


def test_another_seed_is_other_folds() -> None:
    patients = [f"p{n}" for n in range(40)]
    assert len({tuple(fold_by_patient(patients, folds=4, seed=seed).items()) for seed in range(10)}) == 10


@pytest.mark.parametrize("folds", [-1, 0, 1, 4])
def test_folds_that_cannot_be_are_refused(folds: int) -> None:
    with pytest.raises(CasesError, match=f"there are 3 patients; folds are from 2 to as many, not {folds}"):
        fold_by_patient("abc", folds=folds)


def cohort(site_of: dict[str, str]) -> list[Case]:
    """Two cases a patient."""
    images = {"a": Path("a"), "b": Path("b")}
    return [Case(f"{p}_{n}", p, "", images, {"site": site}) for p, site in site_of.items() for n in range(2)]


@given(sites.filter(lambda site_of: len(site_of) >= 4), st.integers(2, 4), st.integers(0, 3))
def test_each_patient_is_tested_once_and_in_one_split(site_of: dict[str, str], folds: int, seed: int) -> None:
    cases = cohort(site_of)
    tables = Sharing(seed=seed, folds=folds, stratify="site").tables(cases)
    tested: Counter[str] = Counter()
    for table in tables:
        assert [case.name for case in table] == [case.name for case in cases]
        splits = defaultdict(set)
        for case in table:
            splits[case.patient].add(case.split)
        assert all(len(own) == 1 for own in splits.values())
        tested.update(patient for patient, own in splits.items() if own == {"test"})
    assert tested == dict.fromkeys(site_of, 1)


def test_the_rest_of_a_fold_is_train_and_val() -> None:
    tables = Sharing((0.6, 0.2, 0.2), folds=5).tables(cohort({f"p{n:02}": "A" for n in range(20)}))
    for table in tables:
        assert Counter(case.split for case in table) == {"train": 24, "val": 8, "test": 8}
    validated = [frozenset(case.patient for case in table if case.split == "val") for table in tables]
    assert len(set(validated)) == 5


def test_folds_have_some_of_what_has_only_a_or_only_b() -> None:
    cases = [Case(f"{role}{n}", f"{role}{n}", "", {role: Path(role)}) for role in "ab" for n in range(6)]
    for table in Sharing(folds=3).tables(cases):
        assert Counter((case.split, *case.images) for case in table if case.split == "test") == {
            ("test", "a"): 2,
            ("test", "b"): 2,
        }


def test_folds_without_anyone_to_train_on_are_refused() -> None:
    with pytest.raises(CasesError, match="folds need patients to train on"):
        Sharing((0, 0.5, 0.5), folds=2).tables(cohort({"p": "A", "q": "A"}))


def test_tables_of_folds_say_which_they_are() -> None:
    assert table_paths(Path("x/cases.csv"), None) == [Path("x/cases.csv")]
    assert table_paths(Path("x/cases.csv"), 2) == [Path("x/cases_fold1of2.csv"), Path("x/cases_fold2of2.csv")]


# --- ways -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        ({"split": "test", "folds": 3}, "split and folds contradict"),
        ({"split": "test", "file": Path("x")}, "split and split_file contradict"),
        ({"file": Path("x"), "stratify": "site"}, "split_file and stratify contradict"),
        ({"split": "training"}, "unknown split 'training'"),
    ],
)
def test_ways_that_contradict_each_other_are_refused(ways: dict[str, object], said: str) -> None:
    with pytest.raises(CasesError, match=said):
        Sharing(**ways)  # type: ignore[arg-type]


def test_strata_are_of_patients() -> None:
    cases = cohort({"p": "A", "q": "B"})
    assert strata_of(cases, "site") == strata_of(cases, "condition:site") == {"p": "A", "q": "B"}
    with pytest.raises(CasesError, match="scanner is not known of p_0; p_1; q_0; q_1; known are: site"):
        strata_of(cases, "scanner")
    moved = Case("p_2", "p", "", cases[0].images, {"site": "B"})
    with pytest.raises(CasesError, match="site differs between cases of a patient: p is A and B"):
        strata_of([*cases, moved], "site")


# --- fixed splits -----------------------------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    (folder / "split.csv").write_text(text)
    return folder / "split.csv"


def test_a_split_is_taken_from_a_file(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffpatient, split\np,val\nq,test\nnot here,train\n")
    tables = Sharing(file=path).tables(cohort({"p": "A", "q": "A"}))
    assert [[case.split for case in table] for table in tables] == [["val", "val", "test", "test"]]


def test_a_table_of_cases_is_a_split(tmp_path: Path) -> None:
    path = written(tmp_path, "case,patient,split,a\np_0,p,val,a.nii\np_1,p,val,b.nii\n")
    assert read_split(path) == {"p": "val"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("patient,split\np,val\n", "has no line for the patients q"),
        ("patient,split\np,val\nq,test\np,train\n", "patients in two splits: p"),
        ("patient,split\np,validation\nq,test\n", "columns patient and split"),
        ("patient,split\n,val\nq,test\n", "columns patient and split"),
        ("patient\np\nq\n", "columns patient and split"),
        ("", "columns patient and split"),
    ],
)
def test_a_file_that_is_no_split_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CasesError, match=said):
        Sharing(file=written(tmp_path, text)).tables(cohort({"p": "A", "q": "A"}))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CasesError, match="cannot be read as a split"):
        read_split(tmp_path / "nowhere.csv")


# --- the hash ---------------------------------------------------------------------------------------------------------


def test_the_hash_is_of_patients_and_splits_alone() -> None:
    # printf 'p:train\nq:test' | sha256sum
    known = "202cdd7eadc1aa80a03dca99208c5f652f26596c0395f43064d85c0e562bd8e3"
    cases = [Case("1", "p", "train", {"a": Path("x")}), Case("2", "q", "test", {"a": Path("y")})]
    assert split_hash(cases) == known
    again = [Case("9", "q", "test", {"b": Path("z")}), cases[0], Case("3", "p", "train", {})]
    assert split_hash(again) == known
    assert split_hash([cases[0]]) != known
    assert split_hash([cases[0], Case("2", "q", "val", {})]) != known
