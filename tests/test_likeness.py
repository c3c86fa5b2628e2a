"""Sets of images compared: what is measured, its floors, and folders of files from anywhere."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import linalg, ndimage

from medgan import Grid, Volume, featured, write
from medgan.cases import Case, write_cases
from medgan.errors import InputError
from medgan.featured import Look, Store, find_images
from medgan.likeness import SCHEMA, likeness
from medgan.metrics.distribution import against_test, frechet_distance, kernel_distance, kid
from medgan.metrics.image import ms_ssim_2025
from medgan.metrics.radiomics import NAMES
from medgan.metrics.sets import COMPONENTS, FEWEST, FeatureSet, compare_sets
from medgan.metrics.ssim import ms_ssim_2003

Array = npt.NDArray[Any]


def rows(count: int, width: int, seed: int, shift: float = 0.0) -> FeatureSet:
    """Two rows a patient, alike."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((count // 2, width)).repeat(2, axis=0) + 0.5 * rng.standard_normal((count, width))
    return FeatureSet(own + shift, [f"{seed}-{n // 2}" for n in range(count)])


# --- features ---------------------------------------------------------------------------------------------------------


def shift_from_floor(name: str, per_patient: tuple[int, int]) -> float:
    """Mean of value less floor over draws of one population, in standard errors."""
    found = []
    for seed in range(30):
        synthetic, real = rows(160, 6, 1000 + seed), rows(80, 6, seed)
        sets = [
            FeatureSet(one.rows[:: 2 // per], one.patients[:: 2 // per])
            for one, per in zip((synthetic, real), per_patient, strict=True)
        ]
        found.append(compare_sets(*sets, splits=4, seed=seed).scores[name])
    apart = np.array([one.value - one.floor for one in found])
    return float(apart.mean() / (apart.std(ddof=1) / math.sqrt(len(found))))


@pytest.mark.parametrize("name", ["frechet_distance", "kid", "precision", "recall", "density", "coverage"])
@pytest.mark.parametrize("per_patient", [(1, 1), (2, 2), (2, 1)])
def test_one_population_lies_at_its_floor(name: str, per_patient: tuple[int, int]) -> None:
    """Also where images of a patient are alike: both sides are of as many patients."""
    assert abs(shift_from_floor(name, per_patient)) < 4


def test_more_people_on_the_synthetic_side_are_told_of() -> None:
    single = rows(80, 6, 2)
    single = FeatureSet(single.rows[::2], single.patients[::2])
    (note,) = compare_sets(single, rows(80, 6, 1)).notes
    assert note.startswith("40 synthetic images are of 40 patients, as many real ones of 20, ")
    assert shift_from_floor("frechet_distance", (1, 2)) < -4  # as the note says
    assert abs(shift_from_floor("kid", (1, 2))) < 4
    assert compare_sets(rows(80, 6, 2), rows(80, 6, 1)).notes == ()
    (note,) = compare_sets(single, rows(80, 6, 1), rows(40, 6, 3)).notes
    assert "as many real ones of 20, " in note


def test_another_population_lies_above_the_floor() -> None:
    far = compare_sets(rows(60, 6, 3, shift=1.5), rows(80, 6, 1))
    for name in ("frechet_distance", "kid"):
        assert far.scores[name].low > far.scores[name].floor_high
    for name in ("precision", "recall", "coverage"):
        assert far.scores[name].high < far.scores[name].floor_low
    assert far.kid.low > 0
    near = compare_sets(rows(60, 6, 2), rows(80, 6, 1))
    assert near.kid.low < 0 < near.kid.high


def test_a_kind_of_image_that_is_never_made_costs_recall_and_coverage_not_precision() -> None:
    def of_two_kinds(seed: int) -> FeatureSet:
        both = rows(120, 5, seed)
        kind = np.arange(120) // 2 % 2
        return FeatureSet(both.rows + 8 * kind[:, None] * np.eye(5)[0], both.patients)

    real, synthetic = of_two_kinds(1), of_two_kinds(2)
    kept = [place for place in range(120) if place // 2 % 2 == 0]
    dropped = FeatureSet(synthetic.rows[kept], [synthetic.patients[place] for place in kept])
    found = compare_sets(dropped, real).scores
    for name in ("recall", "coverage"):
        assert found[name].high < found[name].floor_low
        assert found[name].value < 0.75 * found[name].floor
    for name in ("precision", "density"):
        assert found[name].value > found[name].floor_low
    for name in ("frechet_distance", "kid"):
        assert found[name].low > found[name].floor_high


def test_all_features_are_used_where_there_are_four_images_for_each() -> None:
    found = compare_sets(rows(60, 6, 2), rows(80, 6, 1))
    assert (found.num_compared, found.num_axes, found.reduced, found.notes) == (40, 6, False, ())
    assert (found.num_synthetic, found.num_real, found.num_real_patients, found.num_features) == (60, 80, 40, 6)


def test_more_features_than_images_are_brought_to_fewer_axes() -> None:
    found = compare_sets(rows(60, 90, 2), rows(80, 90, 1))
    assert (found.num_compared, found.num_axes, found.reduced) == (40, 10, True)
    assert math.isfinite(found.scores["frechet_distance"].value)
    many = compare_sets(rows(400, 200, 2), rows(400, 200, 1), splits=2)
    assert many.num_axes == COMPONENTS


def test_the_axes_are_those_of_the_real_images_alone() -> None:
    synthetic, real, test = rows(60, 90, 2), rows(80, 90, 1), rows(60, 90, 3)
    found = compare_sets(synthetic, real, test, standardised=False, splits=1)
    axes = linalg.eigh(np.cov(real.rows, rowvar=False))[1][:, -15:]
    assert found.num_axes == 15
    for side, value in (
        (synthetic, found.scores["frechet_distance"].value),
        (test, found.scores["frechet_distance"].floor),
    ):
        assert value == pytest.approx(frechet_distance(real.rows @ axes, side.rows @ axes), rel=1e-8)


def test_few_images_have_a_kernel_distance_alone() -> None:
    found = compare_sets(rows(8, 5, 2), rows(22, 5, 1))
    assert set(found.scores) == {"kid"}
    assert found.num_axes == 0
    assert found.notes == (
        f"no Fréchet distance and no neighbourhoods: 8 images in the smallest set, {FEWEST} are the least",
    )


def test_the_distance_is_that_of_the_normal_distributions() -> None:
    """Beside a test set there are no halves: it can be had from all rows by the matrix square root."""
    synthetic, real, test = rows(60, 4, 2, 0.3), rows(80, 4, 1), rows(60, 4, 3)
    found = compare_sets(synthetic, real, test, standardised=False, splits=1)
    for side, value in (
        (synthetic, found.scores["frechet_distance"].value),
        (test, found.scores["frechet_distance"].floor),
    ):
        a, b = (np.cov(one.rows, rowvar=False) for one in (real, side))
        apart = ((real.rows.mean(0) - side.rows.mean(0)) ** 2).sum()
        assert value == pytest.approx(apart + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real), rel=1e-8)
    assert found.scores["kid"].value == pytest.approx(found.kid.value)
    owners: dict[str, Any] = {"fake_patients": synthetic.patients, "within_patients": False}
    assert found.kid == kid(real.rows, synthetic.rows, real.patients, **owners)


def test_units_of_features_do_not_matter_where_they_are_standardised() -> None:
    scale = np.array([1e-3, 1.0, 1e4, 7.0, 1.0, 30.0])
    synthetic, real = rows(60, 6, 2, 0.5), rows(80, 6, 1)
    scaled = [FeatureSet(one.rows * scale + 5 * scale, one.patients) for one in (synthetic, real)]
    found, other = compare_sets(synthetic, real), compare_sets(*scaled)
    assert found.scores["kid"].value == pytest.approx(other.scores["kid"].value)
    assert found.scores["frechet_distance"].value == pytest.approx(other.scores["frechet_distance"].value)
    assert compare_sets(*scaled, standardised=False).scores["kid"].value > 1e6


def test_a_feature_that_is_equal_in_all_real_images_is_told_of() -> None:
    synthetic, real = rows(60, 4, 2), rows(80, 4, 1)
    real.rows[:, 2] = 7
    found = compare_sets(synthetic, real)
    assert found.notes == (
        "1 features are equal in all real images and not in the synthetic ones: no score counts them",
    )
    synthetic.rows[:, 2] = 7
    assert compare_sets(synthetic, real).notes == ()


def test_more_rows_than_can_be_compared_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medgan.metrics.sets.MOST_ROWS", 50)
    found = compare_sets(rows(60, 4, 2), rows(80, 4, 1))
    assert found.notes == (
        "50 of 60 synthetic rows were drawn at random to be compared",
        "50 of 80 real rows were drawn at random to be compared",
    )
    assert (found.num_synthetic, found.num_real) == (60, 80)


def test_images_of_one_patient_are_not_compared_with_each_other() -> None:
    real, synthetic = rows(12, 3, 1), rows(10, 3, 2)
    kernels = {
        name: [(x @ y / 3 + 1) ** 3 for (x, p), (y, q) in pairs if p != q]
        for name, pairs in (
            ("real", itertools.product(zip(real.rows, real.patients, strict=True), repeat=2)),
            ("synthetic", itertools.product(zip(synthetic.rows, synthetic.patients, strict=True), repeat=2)),
        )
    }
    between = [(x @ y / 3 + 1) ** 3 for x in real.rows for y in synthetic.rows]
    expected = np.mean(kernels["real"]) + np.mean(kernels["synthetic"]) - 2 * np.mean(between)
    found = kernel_distance(real.rows, synthetic.rows, real.patients, synthetic.patients)
    assert found == pytest.approx(expected)
    owners: dict[str, Any] = {"fake_patients": synthetic.patients, "within_patients": False}
    assert kid(real.rows, synthetic.rows, real.patients, **owners).value == found
    with pytest.raises(InputError, match="all images of a set are of one patient"):
        kernel_distance(real.rows, synthetic.rows, ["p"] * 12)


def test_patients_with_several_images_make_no_difference_where_there_is_none() -> None:
    """Of one population: the mean over many draws is 0 without their own pairs, and is not with them."""
    pairs = [(rows(16, 2, seed), rows(16, 2, seed + 500)) for seed in range(200)]
    apart = [kernel_distance(a.rows, b.rows, a.patients, b.patients) for a, b in pairs]
    together = [kernel_distance(a.rows, b.rows) for a, b in pairs]
    error = np.std(apart) / np.sqrt(len(apart))
    assert abs(np.mean(apart)) < 3 * error
    assert np.mean(together) > np.mean(apart) + 3 * error


def test_both_sides_beside_a_test_set_are_of_as_many_images() -> None:
    seen: list[tuple[int, int]] = []

    def score(a: Array, b: Array) -> dict[str, float]:
        seen.append((len(a), len(b)))
        return {"mean": float(b.mean())}

    found = against_test(score, np.zeros((9, 1)), np.ones((20, 1)), np.full((7, 1), 3.0), splits=3)
    assert seen == [(9, 7)] * 6
    assert (found["mean"].value, found["mean"].floor) == (1, 3)
    seen.clear()
    against_test(score, np.zeros((9, 1)), np.ones((4, 1)), np.full((7, 1), 3.0), splits=1)
    assert seen == [(9, 4)] * 2


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ((rows(4, 3, 1), rows(6, 3, 2)), "seen: 3 real; the least are 2 synthetic, 4 real"),
        ((rows(2, 3, 1), rows(8, 3, 2)), "seen: 1 synthetic; the least"),
        (
            (rows(8, 3, 1), rows(8, 3, 2), rows(2, 3, 3)),
            "seen: 1 real test; the least are 2 synthetic, 2 real, 2 real t",
        ),
        ((rows(8, 3, 1), rows(8, 4, 2)), r"\(3 synthetic, 4 real\)"),
        ((rows(8, 3, 1), rows(8, 3, 2), rows(8, 3, 2)), "4 patients are in both real sets"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(sets: tuple[FeatureSet, ...], told: str) -> None:
    with pytest.raises(InputError, match=told):
        compare_sets(*sets)


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((2, 3)), np.full((3, 2), np.nan), np.ones((3, 0))])
def test_rows_that_are_no_features_are_refused(wrong: Array) -> None:
    with pytest.raises(InputError, match="features are"):
        FeatureSet(wrong, ["a", "b", "c"])


# --- files ------------------------------------------------------------------------------------------------------------


def image(seed: int, shape: Sequence[int] = (14, 12, 10), bright: float = 0.0) -> Array:
    noise = np.random.default_rng(seed).standard_normal(tuple(shape))
    return np.rint(400 * ndimage.gaussian_filter(noise, 1.0) + bright).astype(np.int16)


def folder(place: Path, count: int, first: int, *, unit: str = "HU", bright: float = 0.0, per: int = 1) -> Path:
    """Files `p003_1.nii.gz`: patient and number."""
    for number in range(count):
        volume = Volume(image(first + number, bright=bright), Grid.regular((14, 12, 10)), unit)
        write(volume, place / f"p{first + number // per:03d}_{number % per}.nii.gz")
    return place


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Alike synthetic images, brighter ones, and two real images of each of 14 patients."""
    home = tmp_path_factory.mktemp("sets")
    return {
        "alike": folder(home / "alike", 14, 500),
        "brighter": folder(home / "brighter", 14, 600, bright=400),
        "real": folder(home / "real", 28, 100, per=2),
        "test": folder(home / "test", 14, 300),
    }


def of_cases(place: Path) -> dict[str, str]:
    return {path.name.removesuffix(".nii.gz"): path.name[:4] for path in place.glob("*.nii.gz")}


def test_a_set_of_the_same_kind_is_as_near_as_real_images_and_a_brighter_one_is_not(sets: dict[str, Path]) -> None:
    patients = of_cases(sets["real"])
    near = likeness(sets["alike"], sets["real"], patients=patients, pairs=0)
    far = likeness(sets["brighter"], sets["real"], patients=patients, pairs=0)
    assert near.counts == {"synthetic": {"images": 14, "patients": 14}, "real": {"images": 28, "patients": 14}}
    kind = near.scores["radiomic"]
    assert kind.scores["kid"].value <= kind.scores["kid"].floor_high
    assert far.scores["radiomic"].kid.low > kind.kid.high
    for name in ("frechet_distance", "kid"):
        assert far.scores["radiomic"].scores[name].low > far.scores["radiomic"].scores[name].floor_high
    assert (near.unit, near.window, near.notes, near.diversity) == ("HU", (-1024, 3071), (), {})


def test_what_sets_two_sets_apart_most_is_named(sets: dict[str, Path], tmp_path: Path) -> None:
    found = likeness(sets["brighter"], sets["real"], patients=of_cases(sets["real"]), pairs=0, out=tmp_path)
    (told,) = (note for note in found.scores["radiomic"].notes if note.startswith("farthest apart"))
    with (tmp_path / "features-radiomic.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    ours, real = ([row for row in table if row["set"] == name] for name in ("synthetic", "real"))

    def apart(name: str) -> float:
        own, others = (np.array([float(row[name]) for row in one]) for one in (ours, real))
        return float((own.mean() - others.mean()) / others.std())

    first, *_ = sorted(NAMES, key=lambda name: -abs(apart(name)))
    assert told.startswith(f"farthest apart, in SD of the real images: {first} {apart(first):+.3g}, ")


def test_all_of_it_is_written_and_is_the_same_again(sets: dict[str, Path], tmp_path: Path) -> None:
    def compare() -> Any:
        return likeness(
            sets["alike"],
            sets["real"],
            features=["radiomic", "hand-made"],
            patients=of_cases(sets["real"]),
            pairs=2,
            out=tmp_path,
        )

    found = compare()
    told = json.loads((tmp_path / "likeness.json").read_text())
    assert told["schema"] == SCHEMA
    assert told == json.loads(json.dumps(found.to_json()))
    assert set(told["scores"]) == {"radiomic", "hand-made"}
    assert list(told["settings"]["features"]) == ["radiomic", "hand-made"]
    with (tmp_path / "features-radiomic.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["case", "patient", "set", *NAMES]
    assert len(table) == 1 + 14 + 28
    assert [row[2] for row in table[1:]] == ["synthetic"] * 14 + ["real"] * 28
    assert found.to_json() == compare().to_json()


def test_json_is_as_published(sets: dict[str, Path], tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[1] / "docs/reference/likeness.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    one_size_each = tmp_path / "sizes"
    for count in range(6):
        volume = Volume(image(count, (12 + count, 12, 12)), Grid.regular((12 + count, 12, 12)))
        write(volume, one_size_each / f"{count}.nii.gz")
    told = [
        likeness(sets["alike"], sets["real"], real_test=sets["test"], features=["radiomic", "hand-made"], pairs=3),
        likeness(one_size_each, one_size_each),  # no pairs of one size, no window, no neighbourhoods
        likeness(sets["alike"], sets["real"], pairs=0, window=(-200, 300)),
    ]
    for found in told:
        check.validate(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    plain = told[0].to_json()
    assert set(plain["diversity"]) == set(plain["counts"]) == {"synthetic", "real", "real test"}
    assert plain["settings"]["features"]["radiomic"] == "radiomic-1 bin_width=25.0"
    for wrong in ({"schema": "medgan.likeness/2"}, {"scores": {}}, {"window": [0]}, {"counts": {"synthetic": {}}}):
        assert not check.is_valid({**plain, **wrong}), wrong


def test_what_is_known_is_not_computed_again_and_what_was_stopped_goes_on(
    sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    read = featured.read

    def watched(path: Path) -> Volume:
        calls.append(path)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return read(path)

    def compare(**how: Any) -> Any:
        calls.clear()
        return likeness(sets["alike"], sets["real"], out=tmp_path, **how)

    monkeypatch.setattr(featured, "read", watched)
    stop = 20
    with pytest.raises(KeyboardInterrupt):
        compare(pairs=0)
    assert not (tmp_path / "likeness.json").exists()
    stop = 0
    first = compare(pairs=0)
    assert len(calls) == 2 + 42 - 17  # the first of each set, for its unit, and what was not done before
    assert compare(pairs=0) == first or compare(pairs=0).to_json() == first.to_json()
    assert len(calls) == 2
    assert len(calls) < len(compare(pairs=3).counts) + 20
    assert compare(pairs=3).diversity["real"].num_pairs == 3
    assert len(calls) == 2
    compare(pairs=0, window=(-100, 100))
    assert len(calls) == 2 + 42


def test_another_image_of_the_same_name_is_read_anew(sets: dict[str, Path], tmp_path: Path) -> None:
    place = folder(tmp_path / "own", 4, 700)
    first = likeness(place, sets["real"], out=tmp_path, pairs=0)
    folder(place, 4, 700, bright=100)
    assert likeness(place, sets["real"], out=tmp_path, pairs=0).to_json()["scores"] != first.to_json()["scores"]


def test_a_damaged_memory_is_made_anew(sets: dict[str, Path], tmp_path: Path) -> None:
    first = likeness(sets["alike"], sets["real"], out=tmp_path, pairs=0)
    for path in (tmp_path / "features").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert likeness(sets["alike"], sets["real"], out=tmp_path, pairs=0).to_json() == first.to_json()


def test_real_images_of_other_patients_make_the_floor(sets: dict[str, Path]) -> None:
    found = likeness(sets["brighter"], sets["real"], real_test=sets["test"], pairs=0)
    assert found.counts["real test"] == {"images": 14, "patients": 14}
    scores = found.scores["radiomic"].scores
    assert scores["frechet_distance"].low > scores["frechet_distance"].floor_high
    assert found.scores["radiomic"].num_compared == 14


def test_diversity_is_the_mean_over_pairs_of_different_patients(sets: dict[str, Path]) -> None:
    found = likeness(sets["alike"], sets["real"], patients=of_cases(sets["real"]), pairs=4)
    images = find_images(sets["real"], "real", of_cases(sets["real"]))
    order = np.random.default_rng(0).permutation(len(images))
    pairs = [(images[a], images[b]) for a, b in itertools.pairwise(order) if images[a].patient != images[b].patient]
    look = Look("HU", (-1024.0, 3071.0))
    expected = [ms_ssim_2025(look.at(a)[0], look.at(b)[0], None, (-1024, 3071)) for a, b in pairs[:4]]
    diversity = found.diversity["real"]
    assert diversity is not None
    assert diversity.mean == pytest.approx(np.mean(expected))
    assert diversity.low <= diversity.mean <= diversity.high
    assert (diversity.num_pairs, diversity.kind) == (4, "ms_ssim_2025")


def test_collapse_is_seen_in_the_pairs(tmp_path: Path) -> None:
    for number in range(4):
        for name, seed in (("collapsed", 0), ("real", number)):
            values = np.clip(image(seed, (48, 50, 1)) + 500, 0, 1000) + number
            write(Volume(values.astype(np.int16), Grid.regular((48, 50, 1))), tmp_path / name / f"{number}.nii.gz")
    found = likeness(tmp_path / "collapsed", tmp_path / "real", pairs=5)
    collapsed, real = found.diversity["synthetic"], found.diversity["real"]
    assert collapsed is not None and real is not None  # noqa: PT018
    assert collapsed.mean > 0.99 > real.high
    assert real.kind == "ms_ssim_2003, 3 scales"
    assert found.unit == "a.u."
    assert found.window is None
    assert "each through its own window" in found.describe()


def test_pictures_and_tables_of_cases_are_sets_too(tmp_path: Path) -> None:
    cases = []
    for number in range(8):
        for name in ("synthetic", "real"):
            values = image(number + 10 * (name == "real"), (16, 14, 1))
            write(Volume(values, Grid.regular((16, 14, 1)), "HU"), tmp_path / name / f"{number}.png")
        cases.append(Case(f"c{number}", f"p{number // 2}", "train", {"b": tmp_path / "real" / f"{number}.png"}))
    found = likeness(tmp_path / "synthetic", write_cases(cases, tmp_path / "cases.csv"), pairs=0)
    assert found.counts == {"synthetic": {"images": 8, "patients": 8}, "real": {"images": 8, "patients": 4}}


def test_patients_are_told_by_the_path_or_by_a_table(sets: dict[str, Path], tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"{case},{name}\n" for case, name in of_cases(sets["real"]).items()))
    by_table = find_images(sets["real"], "real", table)
    assert len(by_table) == 28
    assert {one.case: one.patient for one in by_table} == of_cases(sets["real"])
    by_path = find_images(Path(f"{sets['real']}/{{patient}}_*.nii.gz"), "real")
    assert [one.patient for one in by_path] == sorted(of_cases(sets["real"]).values())
    assert by_path[1].case == "p100_1.nii.gz"


def test_a_path_names_cases_too(sets: dict[str, Path]) -> None:
    found = find_images(Path(f"{sets['alike'].parent}/*like/{{case}}_0.nii.gz"), "synthetic", {"p501": "anna"})
    assert [(one.case, one.patient) for one in found][:2] == [("p500", "p500"), ("p501", "anna")]
    with pytest.raises(InputError, match=r"\{case\}_9\.nii: nothing there fits this rule"):
        find_images(Path(f"{sets['alike']}/{{case}}_9.nii"), "synthetic")
    with pytest.raises(InputError, match="nothing there fits"):
        find_images(Path("nowhere/at/all/{patient}/*.nii.gz"), "synthetic")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("case,name\na,b\n", "columns case and patient"),
        ("", "columns case and patient"),
        ("case,patient\na,b\na,c\n", "names a case twice"),
        ("case,patient\na,\n", "without its patient"),
    ],
)
def test_tables_that_tell_no_patients_are_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text(text)
    with pytest.raises(InputError, match=told):
        find_images(tmp_path, "real", tmp_path / "patients.csv")


def test_real_images_without_patients_are_told_of(sets: dict[str, Path]) -> None:
    (note,) = likeness(sets["alike"], sets["real"], pairs=0).notes
    assert "each real image counts as a patient of its own" in note


def test_units_that_contradict_each_other_are_refused(sets: dict[str, Path], tmp_path: Path) -> None:
    for unit in ("Bq/ml", "normalised"):
        other = folder(tmp_path / unit.replace("/", ""), 4, 700, unit=unit)
        with pytest.raises(InputError, match=r"is in (HU|Bq/ml|normalised), others"):
            likeness(other, sets["real"], pairs=0)
    unknown = folder(tmp_path / "unknown", 14, 700, unit="a.u.")
    assert (
        likeness(unknown, sets["real"], pairs=0).notes[0] == "synthetic images state no unit and are taken to be in HU"
    )
    with pytest.raises(InputError, match="normalised"):
        likeness(tmp_path / "normalised", unknown, pairs=0)
    mixed = folder(tmp_path / "mixed", 4, 700)
    folder(mixed, 4, 800, unit="Bq/ml")
    with pytest.raises(InputError, match=r"p800_0\.nii\.gz: is in Bq/ml, others are in HU"):
        likeness(mixed, sets["real"], pairs=0)


def test_a_file_that_cannot_be_used_is_named(sets: dict[str, Path], tmp_path: Path) -> None:
    place = folder(tmp_path, 4, 700)
    (place / "p701_0.nii.gz").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"p701_0\.nii\.gz"):
        likeness(place, sets["real"], pairs=0)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"features": []}, "no features are named"),
        ({"features": ["inception"]}, "no such features"),
        ({"window": (5, 5)}, "the lower first; seen 5 and 5"),
        ({"window": (0, math.inf)}, "two finite values"),
        ({"patients": "nowhere.csv"}, "cannot be read as a table of patients"),
        ({"real_test": "nowhere"}, "nowhere"),
        ({"features": ["random-conv"]}, None),
    ],
)
def test_what_cannot_be_asked_for_is_refused(how: dict[str, Any], told: str | None, sets: dict[str, Path]) -> None:
    if told is None:
        assert likeness(sets["alike"], sets["real"], pairs=0, **how).scores.keys() == {"random-conv"}
        return
    with pytest.raises(InputError, match=told):
        likeness(sets["alike"], sets["real"], pairs=0, **how)


def test_features_that_hang_on_the_size_are_refused_for_images_of_several(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number, side in enumerate((12, 40, 12, 40)):
            write(
                Volume(image(number, (side, side, 1)), Grid.regular((side, side, 1))),
                tmp_path / name / f"{number}.nii.gz",
            )
    with pytest.raises(InputError, match="random-conv makes 128 and 384 features of images of different sizes"):
        likeness(tmp_path / "a", tmp_path / "b", features=["random-conv"], pairs=0)
    found = likeness(tmp_path / "a", tmp_path / "b", pairs=9)
    assert found.diversity["synthetic"] is not None
    assert found.diversity["synthetic"].num_pairs == 2  # of those of one size


def test_a_report_for_people_names_scores_by_their_features(sets: dict[str, Path]) -> None:
    text = likeness(sets["brighter"], sets["real"], patients=of_cases(sets["real"]), pairs=2).describe()
    assert "14 synthetic of 14 patients, 28 real of 14 patients; HU, -1024 to 3071" in text
    for told in (
        "FD-radiomic",
        "KID-radiomic",
        "; real ",
        "KID-radiomic, all",
        "lower is better",
        "Coverage ",
        "2 pairs",
    ):
        assert told in text
    assert "FID" not in text


def test_own_windows_make_shares_of_the_images_own_range(tmp_path: Path) -> None:
    values = np.arange(1000.0).reshape(10, 10, 10)
    write(Volume(values.astype(np.int16), Grid.regular((10, 10, 10))), tmp_path / "x" / "1.nii.gz")
    (one,) = find_images(tmp_path / "x", "real")
    array, window, spacing = Look("a.u.", None).at(one)
    assert window == (0, 1)
    assert spacing == (1, 1, 1)
    low, high = np.percentile(values, [0.5, 99.5])
    np.testing.assert_allclose(array, np.clip((values - low) / (high - low), 0, 1))


def test_slices_that_are_too_small_have_no_similarity() -> None:
    assert math.isnan(featured._ms_ssim(np.zeros((9, 9, 1)), np.zeros((9, 9, 1)), (0.0, 1.0))[0])
    first, second = image(1, (30, 1, 25)), image(2, (30, 1, 25))
    value, scales = featured._ms_ssim(first, second, (-1024.0, 3071.0))
    assert scales == 2
    assert value == ms_ssim_2003(first, second, None, (-1024.0, 3071.0), axis=1, num_scales=2)


def test_nothing_is_remembered_without_a_folder() -> None:
    store = Store(None)
    store.put("key", np.ones(3))
    assert store.get("key") is None
