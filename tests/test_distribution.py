"""Features of images, and numbers of sets of them, each against its definition written out."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, ndimage, signal, stats

from medgan.errors import InputError
from medgan.metrics.distribution import (
    against_real,
    expected_coverage,
    frechet_distance,
    gap_closed,
    kernel_distance,
    kid,
    mean_correlation,
    neighbourhoods,
    patient_halves,
    spread_ratio,
)
from medgan.metrics.features import (
    Features,
    HandMade,
    RandomConv,
    TorchScript,
    extractor,
    mirrored,
    mirrors,
    shrunk,
)
from medgan.metrics.reduction import Reduction

Array = npt.NDArray[Any]
SHAPES = [(1, 28, 28), (2, 8, 8), (1, 33, 50), (1, 8, 9, 12), (2, 16, 16, 16)]


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth noise in [-1, 1]."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, [0, 0, *(1.5,) * (len(shape) - 2)])
    return torch.from_numpy(np.clip(smooth / np.abs(smooth).max(), -1, 1)).float()


def rows(count: int, width: int, seed: int = 0, scale: float = 1.0) -> Array:
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((count, width)) @ rng.standard_normal((width, width)) + rng.standard_normal(
        width
    )


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("features", [HandMade(), RandomConv()], ids=lambda features: features.name)
def test_features_are_of_each_image_by_itself(features: Features, shape: tuple[int, ...]) -> None:
    x = images(5, *shape)
    found = features(x)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert len(np.unique(found.round(9), axis=0)) == 5
    assert np.array_equal(features(x), found)
    np.testing.assert_allclose(features(x[[3, 1]]), found[[3, 1]], atol=1e-6)


@pytest.mark.parametrize("features", [HandMade(), RandomConv()], ids=lambda features: features.name)
def test_features_of_a_constant_image_are_finite(features: Features) -> None:
    assert np.isfinite(features(torch.full((2, 1, 9, 9), -1.0))).all()


def test_channels_have_their_own_hand_made_features() -> None:
    x = images(3, 2, 20, 17)
    both, each = HandMade()(x), [HandMade()(x[:, channel : channel + 1]) for channel in (0, 1)]
    np.testing.assert_allclose(both, np.concatenate(each, axis=1), atol=1e-12)


def test_hand_made_intensities_are_those_of_scipy() -> None:
    x = images(1, 1, 31, 26)
    values, found = x.double().numpy().ravel(), HandMade()(x)[0]
    shares = np.histogram(values, 32, (-1, 1))[0] / values.size
    expected = [
        *np.quantile(values, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99], method="closest_observation"),
        *(values.mean(), values.std(), stats.skew(values), stats.kurtosis(values)),
        *(np.histogram(values, 8, (-1, 1))[0] / values.size),
        stats.entropy(shares, base=2),
    ]
    np.testing.assert_allclose(found[7:20], expected[7:], atol=1e-9)
    np.testing.assert_allclose(found[:7], expected[:7], atol=0.01)  # of the ways to define a quantile


def test_hand_made_edges_and_places_are_those_of_their_definitions() -> None:
    x = images(1, 1, 24, 18)
    image, found = x[0, 0].double().numpy(), HandMade()(x)[0]
    along, across = np.diff(image, axis=0)[:, :-1], np.diff(image, axis=1)[:-1]
    length = np.hypot(along, across)
    assert found[20:22] == pytest.approx([length.mean(), length.std()])
    assert found[23] == pytest.approx(np.abs(ndimage.laplace(image, mode="nearest")).mean())
    half = image.reshape(12, 2, 9, 2).mean(axis=(1, 3))
    assert found[27] == pytest.approx(np.abs(ndimage.laplace(half, mode="nearest")).mean())
    assert found[32] == pytest.approx((image - np.kron(half, np.ones((2, 2)))).std())
    centre = np.add(ndimage.center_of_mass(image + 1), 0.5) / image.shape
    assert found[[34, 36]] == pytest.approx(centre)
    assert found[38:40] == pytest.approx([np.abs(image - image[::-1]).mean(), np.abs(image - image[:, ::-1]).mean()])


def test_random_responses_are_convolutions_and_zero_sum_filters_ignore_brightness() -> None:
    x = images(2, 1, 14, 12)
    found, brighter = RandomConv()(x), RandomConv()(0.5 * x + 0.25)
    rng = np.random.default_rng((0, 2, 1))
    weight = rng.standard_normal((16, 1, 9))
    weight[::2] -= weight[::2].mean(axis=2, keepdims=True)
    weight /= np.linalg.norm(weight.reshape(16, 9), axis=1)[:, None, None]
    bias = 0.1 * rng.standard_normal(16)
    image = x[1, 0].double().numpy()
    response = np.stack([signal.correlate2d(image, w.reshape(3, 3), "valid") for w in weight[:, 0]])
    response = np.abs(response + bias[:, None, None])
    np.testing.assert_allclose(found[1, :16], response.mean(axis=(1, 2)), atol=1e-5)
    np.testing.assert_allclose(found[1, 16:32], response.std(axis=(1, 2)), atol=1e-5)
    assert np.array_equal(found, RandomConv(seed=0)(x))
    assert not np.allclose(found, RandomConv(seed=1)(x), atol=1e-3)
    flat = RandomConv()(torch.stack([torch.full((1, 14, 12), value) for value in (0.0, 0.7)]))
    np.testing.assert_allclose(flat[0, :16:2], flat[1, :16:2], atol=1e-6)  # zero-sum: a flat image is as good as none
    assert np.abs(flat[0, 1:16:2] - flat[1, 1:16:2]).max() > 0.1
    assert brighter.shape == found.shape


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 16, 10), (1, 8, 8, 8), (1, 8, 9, 10)], ids=str)
def test_mirrored_features_do_not_know_which_way_round_an_image_is(shape: tuple[int, ...]) -> None:
    x = images(3, *shape)
    views = list(mirrors(x))
    assert len(views) == 2 ** (len(shape) - 1) * (2 if shape[1] == shape[2] else 1)
    assert len({view.numpy().tobytes() for view in views}) == len(views)
    expected = mirrored(RandomConv(), x)
    for view in views:
        np.testing.assert_allclose(mirrored(RandomConv(), view), expected, atol=1e-5)


@pytest.mark.parametrize("sides", [(64, 50), (28, 28), (40, 33, 20)])
def test_shrinking_knows_no_direction(sides: tuple[int, ...]) -> None:
    x = images(2, 1, *sides)
    small = shrunk(x, 16)
    assert max(small.shape[2:]) <= 16
    for axis in range(2, x.ndim):
        torch.testing.assert_close(shrunk(x.flip(axis), 16), small.flip(axis))
    assert shrunk(x, None) is x


class Net(torch.nn.Module):
    """Means of the quarters of an image, or something that is no feature."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "nan":
            return torch.log(-torch.ones(len(x), 3))
        if self.kind == "images":
            return x
        if self.kind == "one":
            return x.flatten(1)[:1]
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def saved(kind: str, folder: Path) -> Path:
    path = folder / f"my-{kind}.pt"
    torch.jit.script(Net(kind)).save(str(path))
    return path


def test_a_users_network_gives_features_named_by_its_file(tmp_path: Path) -> None:
    features, x = extractor(str(saved("net", tmp_path))), images(70, 1, 8, 12)
    assert features.name == "my-net"
    np.testing.assert_allclose(features(x)[:, 0], x[:, 0, :4, :6].mean(dim=(1, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "told"), [("nan", "not finite"), ("images", "(3, 1, 8, 8)"), ("one", "(1, 64)")], ids=str
)
def test_wrong_outputs_of_a_users_network_are_refused(kind: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        TorchScript(saved(kind, tmp_path))(images(3, 1, 8, 8))
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_network_that_does_not_take_the_images_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not take images of"):
        TorchScript(saved("net", tmp_path))(images(3, 1, 8, 8, 8))
    with pytest.raises(InputError, match="accepted: random-conv, hand-made"):
        extractor(str(tmp_path / "none.pt"))
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(InputError, match="no TorchScript model"):
        extractor(str(tmp_path / "text.pt"))


@pytest.mark.parametrize("shape", [(3, 1, 7, 9), (3, 1, 9), (0, 1, 9, 9)], ids=str)
def test_images_that_have_no_features_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="sides of 8 or more"):
        RandomConv()(torch.zeros(shape))


def test_reduction_makes_components_uncorrelated_and_largest_first() -> None:
    features = np.column_stack([rows(200, 6), np.full(200, 3.0)])
    reduce = Reduction.fit(features, 4)
    found = reduce(features)
    covariance = np.cov(found, rowvar=False)
    correlation = np.corrcoef(features[:, :6], rowvar=False)
    np.testing.assert_allclose(np.diag(covariance) * 199 / 200, np.linalg.eigvalsh(correlation)[::-1][:4], atol=1e-9)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-9)
    moved = features[:1] + np.array([0, 0, 0, 0, 0, 0, 9.0])
    np.testing.assert_allclose(reduce(moved), found[:1], atol=1e-9)  # what did not vary is left out
    plain = Reduction.fit(features, None)(features)
    np.testing.assert_allclose(plain[:, :6].std(axis=0), 1)


# --- distances of sets ------------------------------------------------------------------------------------------------


def test_frechet_distance_is_that_of_the_matrix_square_root() -> None:
    real, fake = rows(60, 5, 1), rows(40, 5, 2)
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    expected = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_one_feature_is_of_means_and_deviations() -> None:
    real, fake = rows(30, 1, 1), rows(50, 1, 2)
    expected = (real.mean() - fake.mean()) ** 2 + (real.std(ddof=1) - fake.std(ddof=1)) ** 2
    assert frechet_distance(real, fake) == pytest.approx(expected)


def test_frechet_distance_of_too_few_images_is_refused() -> None:
    with pytest.raises(InputError, match="more than 5 images a set; seen 5; reduce the features first"):
        frechet_distance(rows(60, 5), rows(5, 5))


def test_kernel_distance_is_the_unbiased_sum_over_pairs() -> None:
    real, fake = rows(7, 3, 1, 0.3), rows(5, 3, 2, 0.3)

    def k(x: Array, y: Array) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = [np.mean([k(x, y) for x, y in itertools.permutations(some, 2)]) for some in (real, fake)]
    expected = sum(within) - 2 * np.mean([k(x, y) for x, y in itertools.product(real, fake)])
    assert kernel_distance(real, fake) == pytest.approx(expected)
    assert kid(real, fake).value == pytest.approx(expected)
    with pytest.raises(InputError, match="two images or more"):
        kid(real, fake[:1])


def test_kernel_distance_of_one_distribution_is_zero_on_average_and_its_interval_holds_it() -> None:
    draws = [np.random.default_rng(seed).standard_normal((2, 30, 4)) for seed in range(300)]
    found = np.array([kernel_distance(*draw) for draw in draws])
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(len(found))
    intervals = [kid(*draw, resamples=100) for draw in draws[:40]]
    assert sum(one.low <= 0 <= one.high for one in intervals) >= 34


def test_interval_of_the_kernel_distance_resamples_patients() -> None:
    """Ten copies of each image are no more people: the interval is that of the few, not of the many."""
    rng = np.random.default_rng(0)
    few, fake = rng.standard_normal((12, 3)) + 1, rng.standard_normal((300, 3))
    many, owners = np.repeat(few, 10, axis=0), [str(number // 10) for number in range(120)]
    naive, right, single = kid(many, fake), kid(many, fake, owners), kid(few, fake)
    width = {name: one.high - one.low for name, one in (("naive", naive), ("right", right), ("single", single))}
    assert width["right"] > 2 * width["naive"]
    assert right.low <= naive.value <= right.high
    assert width["right"] == pytest.approx(width["single"], rel=0.8)


def slow_neighbourhoods(real: Array, fake: Array, k: int) -> list[float]:
    """The definitions, image by image."""

    def radius(some: Array, place: int) -> float:
        return float(sorted(np.linalg.norm(some[place] - other) for other in np.delete(some, place, axis=0))[k - 1])

    holds = [[np.linalg.norm(r - f) <= radius(real, i) for f in fake] for i, r in enumerate(real)]
    held = [[np.linalg.norm(r - f) <= radius(fake, j) for j, f in enumerate(fake)] for r in real]
    return [
        float(np.mean(np.any(holds, axis=0))),
        float(np.mean(np.any(held, axis=1))),
        float(np.sum(holds) / (k * len(fake))),
        float(np.mean(np.any(holds, axis=1))),
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 15), st.integers(4, 15), st.integers(1, 3), st.integers(0, 10**6))
def test_neighbourhoods_are_those_of_their_definitions(num_real: int, num_fake: int, k: int, seed: int) -> None:
    real, fake = rows(num_real, 2, seed), rows(num_fake, 2, seed + 1)
    found = neighbourhoods(real, fake, k)
    expected = slow_neighbourhoods(real, fake, k)
    assert [found.precision, found.recall, found.density, found.coverage] == pytest.approx(expected)


def test_neighbourhoods_see_what_is_wrong() -> None:
    rng = np.random.default_rng(0)
    real, fresh = rng.standard_normal((2, 300, 4))
    good, far = neighbourhoods(real, fresh), neighbourhoods(real, fresh + 20)
    collapsed = neighbourhoods(real, fresh[:1] + 0.01 * rng.standard_normal((300, 4)))
    assert min(good.precision, good.recall, good.coverage) > 0.85
    assert good.density == pytest.approx(1, abs=0.2)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    assert collapsed.precision > 0.9
    assert max(collapsed.recall, collapsed.coverage) < 0.1
    with pytest.raises(InputError, match="6 images a set; seen 5"):
        neighbourhoods(real[:5], fresh)


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize(("num_real", "num_fake", "k"), [(40, 40, 5), (30, 80, 5), (50, 20, 1)])
def test_expected_coverage_is_met_whatever_the_distribution(num_real: int, num_fake: int, k: int, width: int) -> None:
    rng = np.random.default_rng(0)
    draws = [rng.exponential(size=(num_real + num_fake, width)) for _ in range(150)]
    found = [neighbourhoods(draw[:num_real], draw[num_real:], k).coverage if k < num_fake else 0.0 for draw in draws]
    assert np.mean(found) == pytest.approx(expected_coverage(num_real, num_fake, k), abs=4 * np.std(found) / 150**0.5)


# --- variety ----------------------------------------------------------------------------------------------------------


def test_mean_correlation_is_that_of_all_pairs() -> None:
    x = rows(9, 12)
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(x, 2)]
    assert mean_correlation(x) == pytest.approx(np.mean(pairs))
    assert mean_correlation(np.concatenate([x[:1]] * 3)) == pytest.approx(1)
    assert mean_correlation(np.ones((2, 5))) == 0
    with pytest.raises(InputError, match="two images or more"):
        mean_correlation(x[:1])


def test_spread_ratio_sees_a_collapse_within_classes_alone() -> None:
    real = rows(400, 3)
    assert spread_ratio(real, 0.25 * real + 7) == pytest.approx(0.25)
    classes = np.repeat([[0.0] * 3, [50.0] * 3], 200, axis=0)
    collapsed = classes + 0.01 * real
    assert spread_ratio(classes + real, collapsed) > 0.9
    assert spread_ratio((classes + real)[:200], collapsed[:200]) < 0.02
    with pytest.raises(InputError, match="that differ"):
        spread_ratio(np.ones((5, 2)), real[:, :2])


# --- beside real images -----------------------------------------------------------------------------------------------


def test_halves_share_no_patient_and_leave_none_out() -> None:
    patients = [str(number % 7) for number in range(40)]
    for seed in range(20):
        a, b = patient_halves(patients, np.random.default_rng(seed))
        assert sorted([*a, *b]) == list(range(40))
        assert not {patients[place] for place in a} & {patients[place] for place in b}
        assert len({patients[place] for place in a}) == 3
    with pytest.raises(InputError, match="two patients"):
        patient_halves(["p", "p"], np.random.default_rng(0))


def score(real: Array, fake: Array) -> dict[str, float]:
    return {"fd": frechet_distance(real, fake), "coverage": neighbourhoods(real, fake).coverage}


def test_fresh_images_score_as_real_ones_do_and_bad_ones_do_not() -> None:
    rng = np.random.default_rng(3)
    real, fresh = rng.standard_normal((2, 300, 6))
    patients = [str(number) for number in range(300)]
    good, bad = (against_real(score, real, fake, patients) for fake in (fresh, 0.1 * fresh + 1))
    assert good["fd"].floor == bad["fd"].floor
    assert good["fd"].value == pytest.approx(good["fd"].floor, rel=0.6)
    assert good["coverage"].value == pytest.approx(good["coverage"].floor, abs=0.05)
    assert bad["fd"].low > 4 * bad["fd"].floor_high
    assert bad["coverage"].high < bad["coverage"].floor_low
    assert good == against_real(score, real, fresh, patients)
    assert good != against_real(score, real, fresh, patients, seed=1)


def test_both_sides_are_of_as_many_images() -> None:
    seen: list[tuple[int, int]] = []

    def counts(real: Array, fake: Array) -> dict[str, float]:
        seen.append((len(real), len(fake)))
        return {"n": float(len(fake))}

    patients = [str(number // 4) for number in range(40)]
    for count in (7, 200):
        found = against_real(counts, np.zeros((40, 1)), np.zeros((count, 1)), patients, splits=3)["n"]
        assert found.value == found.floor == min(count, 20)
    assert {real for real, _ in seen} == {20}


def test_both_sides_are_of_as_many_patients() -> None:
    """A row is the number of its patient; B has 5 patients of 4 images."""
    real, patients = np.repeat(np.arange(10.0), 4)[:, None], [str(number // 4) for number in range(40)]

    def counts(_: Array, other: Array) -> dict[str, float]:
        each = np.unique(other, return_counts=True)[1]
        return {"images": float(len(other)), "patients": float(len(each)), "most": float(each.max())}

    for num_fake, per, expected in ((40, 4, (20, 5, 4)), (40, 2, (20, 10, 2)), (6, 2, (6, 3, 2)), (3, 1, (3, 3, 1))):
        fake = np.repeat(np.arange(num_fake // per), per)
        found = against_real(
            counts, real, fake[:, None].astype(float), patients, fake_patients=list(map(str, fake)), splits=5
        )
        assert (found["images"].value, found["patients"].value, found["most"].value) == expected
        assert found["images"].floor == expected[0]
        assert found["patients"].floor == min(5, expected[1])


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 1))
def test_gap_closed_is_how_far_between_ceiling_and_floor(floor: float, ceiling: float, share: float) -> None:
    if abs(floor - ceiling) < 1e-3:
        return
    assert gap_closed(ceiling + share * (floor - ceiling), floor, ceiling) == pytest.approx(share, abs=1e-6)


def test_a_gap_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no gap"):
        gap_closed(1.0, 2.0, 2.0)
