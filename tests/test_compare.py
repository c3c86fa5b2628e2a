"""Methods compared: joined by case, refused where unlike, judged the right way round, written down."""

from __future__ import annotations

import csv
import json
import math
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from medgan import Grid, Volume, write
from medgan.compare import compare, compare_results, latex
from medgan.compare.names import named
from medgan.compare.results import is_results, read_results, results_of
from medgan.compare.text import number, p_value
from medgan.errors import InputError, MedganError, OutputError
from medgan.metrics.measures import MEASURES, measure
from medgan.metrics.statistics import holm
from medgan.results import summarise

DIRECTED = [name for name, one in MEASURES.items() if one.better]
WAY = {"lower": -1.0, "higher": 1.0, "zero": -1.0, "one": -1.0}


def rows(values, name="mae", *, patients=None, **more):
    """Rows as `evaluate` makes them; None is a case without a prediction."""
    return [
        {
            "case": f"case{k:02}",
            "patient": patients[k] if patients else f"case{k:02}",
            "status": "scored" if value is not None else "no prediction",
            "preset": "synthrad2023",
            "range": [-1024.0, 3000.0],
            name: value,
            "unit": "HU" if value is not None else "",
            "num_voxels": 100 + k if value is not None else 0,
            "mask": value is not None,
            "note": "",
            **more,
        }
        for k, value in enumerate(values)
    ]


def of(name="mae", *, how=None, patients=None, **methods):
    """A comparison of columns of one measure."""
    results = [results_of(method, rows(list(v), name, patients=patients)) for method, v in methods.items()]
    return compare_results(results, resamples=500, **(how or {}))


def only(found):
    """The only contest, and its first pair."""
    (contest,) = found.contests.values()
    return contest, contest.pairs[0]


def save(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": table}))
    return path


# --- directions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIRECTED)
def test_better_on_every_case_is_better_by_every_number(name: str) -> None:
    """Farther from the best end, which is 0 for `zero` and 1 for `one`, on either side of it."""
    rng, better = np.random.default_rng(0), measure(name).better
    near, step = rng.uniform(0.1, 0.4, 12), rng.uniform(0.1, 0.4, 12)
    sign = rng.choice([-1, 1], 12)
    make = {
        "lower": lambda off: off,
        "higher": lambda off: 30 - off,
        "zero": lambda off: sign * off,
        "one": lambda off: 1 + sign * off,
    }[better]
    contest, pair = only(of(name, good=make(near), bad=make(near + step)))
    assert contest.ranking.rank == (1, 2)
    assert (pair.wins.wins, pair.wins.rate, pair.rank_biserial) == (12, 1, 1)
    assert pair.gain.value == pytest.approx(np.median([(a + b) / 2 for k, a in enumerate(step) for b in step[k:]]))
    assert pair.mean_gain == pytest.approx(step.mean())
    assert pair.median_gain == pytest.approx(np.median(step))
    assert 0 < pair.gain.ci.low < pair.gain.value < pair.gain.ci.high
    assert pair.wilcoxon.p == pair.permutation.p == 2 / 2**12


@pytest.mark.parametrize("name", ["mae", "psnr", "bias", "slice_roughness"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scores=st.lists(st.tuples(*[st.floats(-9, 9)] * 2), min_size=2, max_size=10))
def test_swapping_the_methods_turns_the_signs(name: str, scores: list[tuple[float, float]]) -> None:
    a, b = zip(*scores, strict=True)
    there, back = only(of(name, a=a, b=b))[1], only(of(name, b=b, a=a))[1]
    assert there.gain.value == pytest.approx(-back.gain.value)
    assert there.mean_gain == pytest.approx(-back.mean_gain)
    assert there.rank_biserial == pytest.approx(-back.rank_biserial, nan_ok=True)
    assert (there.wins.wins, there.wins.ties) == (back.wins.losses, back.wins.ties)
    assert there.wilcoxon.p == pytest.approx(back.wilcoxon.p)


def test_what_has_no_better_end_is_not_compared_and_told() -> None:
    table = [{**row, "mean_sigma": 2.0, "coverage_50": 0.4} for row in rows([1.0, 2.0])]
    found = compare_results([results_of("a", table), results_of("b", rows([2.0, 3.0]))])
    assert list(found.contests) == ["mae"]
    assert found.left_out["mean_sigma"] == found.left_out["coverage_50"] == "no value of it is better than another"


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_mean_has_the_interval_that_its_evaluation_gave() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(80, 10, 14), rng.normal(70, 10, 14)
    patients = [f"p{n // 2}" for n in range(14)]
    results = [results_of(name, rows(list(v), patients=patients)) for name, v in {"a": a, "b": b}.items()]
    (contest,) = compare_results(results).contests.values()
    told = summarise(rows(list(a), patients=patients))["mae"]
    assert (told["bca95_low"], told["bca95_high"]) == (
        contest.summaries["a"].mean_bca.low,
        contest.summaries["a"].mean_bca.high,
    )


def test_numbers_are_scipys_over_all_pairs() -> None:
    rng = np.random.default_rng(3)
    base = rng.gamma(9, 6, 14)
    columns = {"a": base, "b": base + rng.normal(2, 3, 14), "c": base + rng.normal(4, 3, 14)}
    contest, _ = only(of(**columns))
    pairs = [(p, columns[p.second] - columns[p.first]) for p in contest.pairs]
    assert [(p.first, p.second) for p, _ in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    expected = [stats.wilcoxon(gain, method="exact").pvalue for _, gain in pairs]
    assert [p.wilcoxon.p for p, _ in pairs] == pytest.approx(expected)
    assert [p.wilcoxon_holm for p, _ in pairs] == pytest.approx(holm(expected))
    for pair, gain in pairs:
        signs = {"permutation_type": "samples", "n_resamples": np.inf}
        assert pair.permutation.p == pytest.approx(stats.permutation_test((gain,), np.mean, **signs).pvalue)
        assert pair.mean_gain == pytest.approx(gain.mean())
        assert pair.wins.wins == (gain > 0).sum()
    assert [one.mean for one in contest.summaries.values()] == pytest.approx([v.mean() for v in columns.values()])


def test_cases_of_a_patient_are_averaged_and_drawn_together() -> None:
    patients = ["p1", "p1", "p2", "p3", "p3", "p3", "p4", "p5", "p6"]
    a, b = np.arange(9.0), np.array([3.0, 1, 4, 1, 5, 9, 2, 6, 5])
    contest, pair = only(of(a=a, b=b, patients=patients))
    gains = np.array([np.mean((b - a)[np.array(patients) == p]) for p in sorted(set(patients))])
    assert (contest.num_cases, contest.num_patients, pair.num_patients) == (9, 6, 6)
    assert pair.mean_gain == pytest.approx(gains.mean())
    assert pair.wins.wins == (gains > 0).sum()
    assert pair.permutation.num == (gains != 0).sum()
    assert contest.summaries["a"].mean == a.mean()
    assert contest.summaries["a"].num_patients == 6


def test_of_a_bias_the_size_is_averaged_not_the_sign() -> None:
    """+10 and −10 on two scans of a patient are no bias of 0."""
    _, pair = only(of("bias", a=[10.0, -10.0, 1.0], b=[2.0, 2.0, 1.0], patients=["p", "p", "q"]))
    assert (pair.mean_gain, pair.wins.losses, pair.wins.ties) == (-4, 1, 1)


def test_the_same_seed_gives_the_same_comparison() -> None:
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=25), "b": rng.normal(size=25)}
    assert of(**columns).to_json() == of(**columns).to_json()
    other = of(**columns, how={"seed": 1})
    assert other.to_json() != of(**columns).to_json()
    assert only(other)[1].wilcoxon == only(of(**columns))[1].wilcoxon


# --- what is missing --------------------------------------------------------------------------------------------------


def test_complete_cases_are_those_of_every_method() -> None:
    found = of(a=[1.0, 2, 3, 4], b=[2.0, None, 4, 5], c=[3.0, 4, 5, 6])
    contest, pair = only(found)
    assert (found.num_cases, contest.num_cases) == (4, 3)
    assert found.missing == {"a": (), "b": ("case01",), "c": ()}
    assert contest.undefined == {}
    assert [one.n for one in contest.summaries.values()] == [3, 3, 3]
    assert contest.summaries["a"].mean == pytest.approx(8 / 3)
    assert pair.num_patients == 3
    assert any(re.search(r"b has no score in 1 of 4 cases \(case01\)", line) for line in found.warnings)


def test_a_missing_prediction_can_count_as_the_worst() -> None:
    """b is better wherever it works, but fails in most cases."""
    a, b = [5.0, 5, 5, 5, 5, 5, 5], [4.0, None, None, None, None, None, None]
    contest, pair = only(of(a=a, b=b))
    assert (pair.num_patients, pair.wins.losses, contest.ranking.rank) == (1, 1, (2, 1))
    worst = of(a=a, b=b, how={"missing": "worst"})
    assert "(Hodges–Lehmann estimate, n = 1)" in worst.describe()
    assert "ranks last" in latex(worst)
    contest, pair = only(worst)
    assert (pair.num_patients, pair.wins.wins, pair.wins.losses, contest.ranking.rank) == (7, 6, 1, (1, 2))
    assert pair.mean_gain == -1
    assert contest.num_cases == 1
    assert pair.wilcoxon.p == pytest.approx(stats.wilcoxon([-1, 9, 9, 9, 9, 9, 9], method="approx").pvalue, abs=0.1)
    assert pair.rank_biserial == pytest.approx((6 * 4.5 - 1) / 28)


def test_without_any_prediction_a_case_says_nothing() -> None:
    contest, pair = only(of(a=[1.0, None, 3], b=[2.0, None, None], how={"missing": "worst"}))
    assert (pair.num_patients, pair.wins.wins, contest.num_cases) == (2, 2, 1)


def test_a_case_that_a_file_does_not_have_is_missing() -> None:
    results = [results_of("a", rows([1.0, 2.0, 3.0])), results_of("b", rows([1.0, 2.0]))]
    assert compare_results(results).missing["b"] == ("case02",)


def test_a_refused_case_is_missing_and_one_without_reference_is_not() -> None:
    a, b = rows([1.0, 2.0, 3.0, 4.0]), rows([2.0, 3.0, 4.0, 5.0])
    b[1] |= {"status": "refused", "mae": None}
    a[3] |= {"status": "no reference", "mae": None}
    b[3] |= {"status": "no reference", "mae": None}
    found = compare_results([results_of("a", a), results_of("b", b)])
    assert (found.num_cases, found.without_reference, found.missing["b"]) == (3, ("case03",), ("case01",))
    assert "left out, without a reference: case03" in found.warnings


def test_a_prediction_that_had_no_reference_is_not_held_against_its_method() -> None:
    """Two methods scored against different folders: the case is nobody's failure, and out of all tests."""
    a, b = rows([1.0, 2.0, 3.0]), rows([2.0, 3.0, 4.0])
    b[2] |= {"status": "no reference", "mae": None}
    found = compare_results([results_of("a", a), results_of("b", b)], missing="worst")
    contest, pair = only(found)
    assert (found.missing["b"], dict(contest.undefined)) == ((), {"b": ("case02",)})
    assert pair.num_patients == 2


def test_an_undefined_number_is_left_out_for_all_and_told() -> None:
    a, b = rows([1.0, 2.0, 3.0], "psnr"), rows([1.5, 2.5, 3.5], "psnr")
    a[2]["psnr"] = None
    found = compare_results([results_of("a", a), results_of("b", b)], missing="worst")
    contest, pair = only(found)
    assert (contest.num_cases, pair.num_patients, dict(contest.undefined)) == (2, 2, {"a": ("case02",)})
    assert any("PSNR of a has no value for case02" in line for line in found.warnings)


def test_a_measure_that_one_method_lacks_is_left_out_and_told() -> None:
    table = [{**row, "dice_liver": 0.9} for row in rows([1.0, 2.0])]
    results = [results_of("a", table), results_of("b", rows([2.0, 3.0]))]
    assert compare_results(results).left_out == {"dice_liver": "b has no number of it"}
    with pytest.raises(InputError, match="dice_liver: b has no number of it"):
        compare_results(results, metrics=["dice_liver"])


def test_nothing_in_common_is_refused() -> None:
    one, other = rows([1.0, 2.0]), [{**row, "case": f"x{row['case']}"} for row in rows([1.0, 2.0])]
    with pytest.raises(InputError, match="no case is scored for every method"):
        compare_results([results_of("a", one), results_of("b", other)])
    with pytest.raises(InputError, match="no measure to compare"):
        of("mean_sigma", a=[1.0], b=[2.0])
    crossed = [results_of("a", rows([1.0, math.nan])), results_of("b", rows([math.nan, 1.0]))]
    with pytest.raises(InputError, match="no measure to compare"):
        compare_results(crossed)


# --- what is unlike ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"preset": "synthrad2025"}, "preset is synthrad2023 for 'a', synthrad2025 for 'b'"),
        ({"range": [0.0, 1.0]}, "range is -1024..3000 for 'a', 0..1 for 'b'"),
        ({"unit": "a.u."}, "unit is HU for 'a', a.u. for 'b'"),
        ({"mask": False}, "mask is True for 'a', False for 'b'"),
        ({"num_voxels": 7}, "num_voxels is 100 for 'a', 7 for 'b'"),
    ],
)
def test_scores_that_were_made_unlike_are_refused(change: dict[str, object], seen: str) -> None:
    results = [results_of("a", rows([1.0, 2.0])), results_of("b", rows([1.0, 2.0], **change))]
    with pytest.raises(InputError, match=re.escape(f"case 'case00' was scored unlike: {seen}")):
        compare_results(results)


def scored_with(tmp_path: Path, name: str, value: float, settings: object, version: str = "1.0") -> Path:
    record = {"rows": rows([value] * 6, "mae_bone"), "settings": settings, "versions": {"medgan": version}}
    (tmp_path / name).mkdir()
    (tmp_path / name / "metrics.json").write_text(json.dumps(record))
    return tmp_path / name


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (
            {"regions": ["bone=200..inf"]},
            {"regions": ["bone=300..inf"]},
            "region bone is 200..inf for 'a', 300..inf for 'b'",
        ),
        ({"labels": {"1": "bone"}}, {"labels": {"2": "bone"}}, "label bone is 1 for 'a', 2 for 'b'"),
        ({"across": "z"}, {"across": "x"}, "slices across is z for 'a', x for 'b'"),
        ({"regions": ["bone=200..inf"]}, {"regions": ["air=-inf..-950", "bone=200..inf"]}, ""),
        ({"regions": ["bone=200..inf"]}, {}, ""),
        ({"regions": None, "labels": None}, [], ""),
    ],
)
def test_columns_of_one_name_mean_the_same(tmp_path: Path, ours: object, theirs: object, told: str) -> None:
    paths = [scored_with(tmp_path, "a", 1.0, ours), scored_with(tmp_path, "b", 2.0, theirs)]
    if told:
        with pytest.raises(InputError, match=re.escape(told)):
            compare(paths)
    else:
        assert only(compare(paths, resamples=100))[1].gain.value == 1.0


def test_other_beams_are_refused() -> None:
    how = ({"wepl_curve": "protons", "wepl_angles": "0 90"}, {"wepl_curve": "protons", "wepl_angles": "0"})
    results = [results_of(n, rows([1.0], "wepl_mae", **one)) for n, one in zip("ab", how, strict=True)]
    with pytest.raises(InputError, match="wepl_angles is 0 90 for 'a', 0 for 'b'"):
        compare_results(results)


def test_other_versions_are_told(tmp_path: Path) -> None:
    paths = [scored_with(tmp_path, name, 1.0, {}, version) for name, version in (("a", "1.0"), ("b", "1.1"))]
    found = compare(paths, resamples=100)
    assert any("different versions of medgan (1.0 for a, 1.1 for b)" in line for line in found.warnings)


def test_what_is_not_compared_is_told_to_people() -> None:
    table = [rows([1.0, 2.0], "mae", psnr=30.0, mean_sigma=1.0), rows([2.0, 3.0], "mae", psnr=None, mean_sigma=1.0)]
    text = compare_results([results_of(n, one) for n, one in zip("ab", table, strict=True)], resamples=100).describe()
    assert "! not compared: psnr (b has no number of it)" in text
    assert "! not compared: mean_sigma (no value of it is better than another)" in text


def test_other_references_are_told() -> None:
    hashes = [{"case00": {"ref": "aa", "mask": "m"}}, {"case00": {"ref": "bb", "mask": "m"}}]
    results = [results_of(n, rows([1.0, 2.0]), sha256=h) for n, h in zip("ab", hashes, strict=True)]
    found = compare_results(results)
    assert "the references of 1 of 2 cases are different files for different methods" in found.warnings


def test_patients_may_be_named_by_one_file_but_not_contradicted() -> None:
    named_by_a = [results_of("a", rows([1.0, 2.0], patients=["p", "p"])), results_of("b", rows([1.0, 2.0]))]
    assert compare_results(named_by_a).num_patients == 1
    against = [results_of("a", rows([1.0], patients=["p"])), results_of("b", rows([1.0], patients=["q"]))]
    with pytest.raises(InputError, match="different patients for case00"):
        compare_results(against)


# --- warnings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "methods", "told"), [(5, "ab", True), (6, "ab", False), (6, "abc", True), (7, "abc", False)]
)
def test_too_few_patients_for_any_finding_is_told(size: int, methods: str, told: bool) -> None:
    """2 · 2⁻ⁿ · pairs is the smallest adjusted p; the best case confirms it."""
    columns = {name: np.arange(size) * 1.1 + 10 * k for k, name in enumerate(methods)}
    found = of(**columns)
    least = min(pair.wilcoxon_holm for pair in only(found)[0].pairs)
    assert any("can be significant" in line for line in found.warnings) == told == (least >= 0.05)


def test_a_single_patient_is_told() -> None:
    found = of(a=[1.0, 2.0], b=[2.0, 3.0], patients=["p", "p"])
    assert any(line.startswith("a single patient") for line in found.warnings)
    contest, pair = only(found)
    assert pair.wilcoxon.p == pair.permutation.p == 1
    assert contest.summaries["a"].mean_ci.how == "none: one patient"
    assert "no difference between a and b was shown" in found.describe()


def test_identical_columns_are_told() -> None:
    values = list(np.arange(12.0))
    found = of(a=values, b=values)
    assert any("a and b have the same values in every case (mae)" in line for line in found.warnings)
    contest, pair = only(found)
    assert (pair.wilcoxon.p, pair.wins.ties, pair.gain.value, contest.ranking.rank) == (1, 12, 0, (1, 1))
    assert math.isnan(pair.rank_biserial)
    json.dumps(found.to_json(), allow_nan=False)


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_files_and_folders_of_scores_are_read_alike(tmp_path: Path) -> None:
    a, b = rows([1.0, 2.5, None, 4.0]), rows([2.0, 3.0, 4.0, 5.0])
    file = save(tmp_path / "a" / "metrics.json", a)
    with (tmp_path / "b.csv").open("w", newline="", encoding="utf-8-sig") as out:
        table = csv.DictWriter(out, fieldnames=list(b[0]))
        table.writeheader()
        table.writerows({**row, "range": "-1024..3000"} for row in b)
    found = compare([tmp_path / "a", tmp_path / "b.csv"])
    assert found.methods == ("a", "b")
    expected = compare_results([results_of("a", a), results_of("b", b)])
    assert found.to_json() == expected.to_json()
    (tmp_path / "list.json").write_text(json.dumps(a))
    assert compare({"a": file, "b": tmp_path / "b.csv"}).to_json() == expected.to_json()
    assert compare({"a": tmp_path / "list.json", "b": tmp_path / "b.csv"}).to_json() == expected.to_json()


def test_a_table_of_another_tool_needs_only_cases_and_measures(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("case,mae,ssim,lpips\np1,10,0.9,0.2\np2,12,,0.3\n")
    (tmp_path / "y.csv").write_text("case,mae,ssim,lpips\np1,11,0.8,0.1\np2,11,0.7,0.1\n")
    found = compare([tmp_path / "x.csv", tmp_path / "y.csv"])
    assert {name: one.num_cases for name, one in found.contests.items()} == {"mae": 2, "ssim": 1}
    assert found.conditions == {"preset": "", "range": "", "unit": "", "mask": ""}
    assert found.describe().startswith("2 methods, 2 cases, each taken as a patient\n")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.json", "{", "is no JSON"),
        ("m.json", "{}", "holds no `rows`"),
        ("m.json", "3", "holds no `rows`"),
        ("m.json", "[]", "holds no table of results"),
        ("m.json", '[{"mae": 1}]', "each row names its `case`"),
        ("m.json", '["a"]', "holds no table of results"),
        ("m.json", '[{"case": "a", "mae": [1]}]', r"case 'a', column mae: \[1\] is no number"),
        ("m.csv", "case,mae\na,high\n", "case 'a', column mae: 'high' is no number"),
        ("m.csv", "case,mae\na,1\na,2\n", "holds a case twice"),
        ("m.csv", "case;mae\na;1,5\n", "columns are separated by commas.*seen: 'case;mae'"),
        ("m.csv", "Case,MAE\na,1\n", "named as measures.*seen: 'Case,MAE'"),
        ("m.csv", "case,mae\n", "holds no table of results"),
        ("m.csv", "", "holds no table of results"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_results("a", tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.json", tmp_path / "bytes.json"):
        with pytest.raises(InputError, match="cannot be read"):
            read_results("a", path)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["out/a", "out/b"], ["a", "b"]),
        (["x/pred", "y/pred"], ["x", "y"]),
        (["a/x/pred", "b/x/pred", "b/y/pred"], ["a/x", "b/x", "b/y"]),
        (["pred", "y/pred"], ["pred", "y/pred"]),
        (["x/metrics.json", "y/metrics.csv", "z.json"], ["x", "y", "z"]),
        (["ours=x/pred", "y/pred"], ["ours", "pred"]),
        (["cgan/{case}/ct.nii.gz", "cut/{case}_*.nii.gz"], ["cgan", "cut"]),
    ],
)
def test_methods_are_named_by_what_tells_them_apart(paths: list[str], names: list[str]) -> None:
    assert list(named(paths)) == names


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "two methods or more; seen none"),
        (["a"], "two methods or more; seen a"),
        ("ab", "seen one: ab"),
        (["a", "./a"], "a path is given twice"),
        (["m=a", "m=b"], "two methods have one name"),
    ],
)
def test_fewer_than_two_methods_are_refused(paths: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        named(paths)


def test_scores_among_images_are_not_taken_for_theirs(tmp_path: Path) -> None:
    """They may be those of an older prediction."""
    save(tmp_path / "metrics.json", rows([1.0]))
    assert is_results(tmp_path, to_score=True)
    (tmp_path / "case1.nii.gz").touch()
    assert is_results(tmp_path)
    assert not is_results(tmp_path, to_score=True)


def test_arguments_that_have_nothing_to_do_are_refused(tmp_path: Path) -> None:
    a, b = (save(tmp_path / name / "metrics.json", rows([1.0, 2.0])) for name in "ab")
    for idle in ({"ref": tmp_path}, {"mask": tmp_path}, {"preset": "synthrad2023"}):
        with pytest.raises(InputError, match="every method is scored already"):
            compare([a, b], **idle)
    with pytest.raises(InputError, match="name the references"):
        compare([a, tmp_path])
    with pytest.raises(InputError, match="missing is 'best'"):
        compare([a, b], missing="best")  # type: ignore[arg-type]
    for resamples in (0, 99, 10**9):
        with pytest.raises(InputError, match="resamples is"):
            compare([a, b], resamples=resamples)
    with pytest.raises(InputError, match="fsim: not among the results"):
        compare([a, b], metrics=["fsim"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", ""]), st.sampled_from(["1", "-2e9", "nan", "inf", "", "x", "1e400"])),
        max_size=4,
    )
)
def test_any_table_is_compared_or_refused(tmp_path: Path, cells: list[tuple[str, str]]) -> None:
    """No traceback, whatever the cells are."""
    (tmp_path / "a.csv").write_text("case,mae\n" + "".join(f"{case},{value}\n" for case, value in cells))
    (tmp_path / "b.csv").write_text("case,mae\na,1\nb,2\nc,5\n")
    with suppress(MedganError):
        found = compare([tmp_path / "a.csv", tmp_path / "b.csv"], missing="worst", resamples=100)
        json.dumps(found.to_json(), allow_nan=False)
        assert found.describe()


# --- predictions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """References of seven cases, predictions that are off by little and by much, and one that is missing."""
    rng = np.random.default_rng(0)
    grid = Grid.regular((9, 8, 8))
    for k in range(7):
        truth = rng.normal(0, 300, grid.shape)
        images = {"ref": truth, "good": truth + rng.normal(0, 10, grid.shape)}
        images["bad"] = truth + rng.normal(0, 30, grid.shape)
        for name, image in images.items():
            if (name, k) != ("bad", 6):
                write(Volume(image.astype(np.float32), grid, "HU", "CT"), tmp_path / name / f"case{k}.nii.gz")
    return tmp_path


def test_predictions_are_scored_and_compared(predictions: Path) -> None:
    out = predictions / "out"
    found = compare([predictions / "good", predictions / "bad"], ref=predictions / "ref", out=out)
    pair = found.contests["mae"].pairs[0]
    assert (pair.wins.wins, pair.num_patients, pair.wilcoxon.p) == (6, 6, 2 / 2**6)
    assert pair.gain.value == pytest.approx(20 * math.sqrt(2 / math.pi), rel=0.1)
    assert found.missing == {"good": (), "bad": ("case6",)}
    assert found.conditions["preset"] == "synthrad2023"
    again = compare([out / "good", out / "bad"])
    assert again.to_json() == found.to_json()
    mixed = compare([out / "good", predictions / "bad"], ref=predictions / "ref")
    assert mixed.to_json()["measures"] == found.to_json()["measures"]


def test_scores_with_another_preset_do_not_go_with_new_ones(predictions: Path) -> None:
    compare([predictions / "good", predictions / "bad"], ref=predictions / "ref", out=predictions / "out")
    with pytest.raises(InputError, match="preset is synthrad2023 for 'out/good', synthrad2025 for 'predicted'"):
        compare(
            {"out/good": predictions / "out" / "good", "predicted": predictions / "bad"},
            ref=predictions / "ref",
            preset="synthrad2025",
        )


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def found():
    """Three methods with names that LaTeX would trip over, one of them with a failure."""
    rng = np.random.default_rng(5)
    base = rng.gamma(9, 6, 15)
    table = {
        "ours_v2": base,
        "R&D 100%": base + rng.normal(9, 3, 15),
        "µ-net": [*(base + rng.normal(9, 3, 15))[:-1], None],
    }
    return of(**table)


def test_json_tells_all(found) -> None:
    text = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert text["schema"] == "medgan.comparison/1"
    assert text["cases"]["missing"] == {"ours_v2": [], "R&D 100%": [], "µ-net": ["case14"]}
    assert text["policy"]["missing"] == "complete"
    (one,) = text["measures"]
    assert (one["name"], one["unit"], one["better"], one["num_cases"]) == ("mae", "HU", "lower", 14)
    assert one["methods"][0]["rank"] == 1
    assert len(one["pairs"]) == 3
    assert one["pairs"][0]["wilcoxon"]["p_holm"] >= one["pairs"][0]["wilcoxon"]["p"]
    assert text["conditions"] == {"preset": "synthrad2023", "range": "-1024..3000", "unit": "HU", "mask": "True"}


def test_json_is_as_published(found) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[1] / "docs/reference/comparison.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for one in (found, of(a=[1.0], b=[1.0])):
        jsonschema.Draft202012Validator(schema).validate(one.to_json())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate({**found.to_json(), "measures": [{}]})


def test_description_says_what_the_paper_could(found) -> None:
    text = found.describe()
    assert text.startswith(
        "3 methods, 15 cases, each taken as a patient; synthrad2023, range −1024 to 3000 HU, inside masks"
    )
    assert re.search(r"MAE, HU \(lower is better\) +14 +\d+\.\d \[\d+\.\d, \d+\.\d\]\* ", text)
    assert re.search(
        r"MAE: ours_v2 was better than \S+.* by \d+\.\d HU \(Hodges–Lehmann estimate, 95 % CI \d+\.\d to \d+\.\d\); "
        r"Wilcoxon signed-rank test over 14 patients, Holm-adjusted over 3 pairs, p < 0.001\.",
        text,
    )
    assert "! µ-net has no score in 1 of 15 cases (case14)" in text
    assert max(map(len, text.splitlines())) < 260


def test_the_sentence_turns_with_the_ranking() -> None:
    worse, better = np.arange(8.0) + 20, np.arange(8.0)
    text = of("psnr", first=better, second=worse).describe()
    assert "PSNR: second was better than first by 20.00 dB (Hodges–Lehmann estimate, 95 % CI 20.00 to 20.00)" in text


def test_tables_are_written_whole(found, tmp_path: Path) -> None:
    compare_out = tmp_path / "new" / "out"
    results = [results_of("a", rows([1.0, 2.0, 3.0])), results_of("b", rows([2.0, 4.0, 5.0]))]
    written = compare_results(results, out=compare_out)
    names = {path.name for path in compare_out.iterdir()}
    assert names == {"comparison.json", "comparison.csv", "pairs.csv", "comparison.tex"}
    assert json.loads((compare_out / "comparison.json").read_text()) == json.loads(json.dumps(written.to_json()))
    with (compare_out / "comparison.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["method"] for row in table] == ["a", "b"]
    assert float(table[1]["mean"]) == pytest.approx(11 / 3)
    assert float(table[0]["mean_bca_low"]) == written.contests["mae"].summaries["a"].mean_bca.low
    with (compare_out / "pairs.csv").open(newline="") as file:
        (pair,) = csv.DictReader(file)
    assert (float(pair["gain"]), pair["gain_low"], float(pair["p_wilcoxon"])) == (1.75, "", 0.25)
    compare_results(results, out=compare_out)
    with pytest.raises(OutputError):
        compare_results(results, out=compare_out / "comparison.json")


def test_latex_is_whole_and_escaped(found) -> None:
    text = latex(found)
    assert r"R\&D 100\%" in text
    assert r"ours\_v2" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule") == 2
    assert re.search(r"\\textbf\{\d+\.\d\} \[\d+\.\d, \d+\.\d\]", text)
    for table in text.split(r"\begin{tabular}")[1:]:
        columns = re.match(r"\{(l+)\}", table)
        body = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert columns
        assert all(len(re.findall(r"(?<!\\)&", line)) == len(columns[1]) - 1 for line in body)
    assert not re.search(r"(?<!\\)[%_#]", text.partition("\n")[2])
    assert r"\textbf{$-$5.00}" in latex(of("bias", a=[-4.0, -5.0, -6.0], b=[-7.0, -8.0, -9.0]))
    assert "−" not in text


def test_numbers_are_shown_with_the_digits_they_deserve() -> None:
    assert (number(-0.04, 1), number(12.345, 2), number(math.inf, 1)) == ("0.0", "12.35", "–")
    assert (p_value(0.0009), p_value(0.0494), p_value(1.0)) == ("<0.001", "0.049", "1.000")
    small = of("ssim", a=np.linspace(0.900, 0.910, 9), b=np.linspace(0.901, 0.913, 9)).describe()
    assert "0.90500" in small
    level = of(a=[5.0] * 3, b=[5.0] * 3).describe()
    assert "5.00" in level
