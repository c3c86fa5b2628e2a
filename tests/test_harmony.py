"""harmony: against loops written from the papers; a change of gain and offset is not seen; states survive JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgan.errors import GeometryError, InputError
from medgan.harmony import Nyul, Percentile, WhiteStripe, ZScore, from_json
from medgan.volume import Grid, Volume

Array = npt.NDArray[Any]
GRID = Grid.regular((24, 20, 16))


def brainy(seed: int, gain: float = 1.0, offset: float = 0.0) -> Volume:
    """CSF, grey and white matter at 100, 300 and 500 ± 30, a quarter of it outside the mask."""
    rng = np.random.default_rng(seed)
    tissue = rng.choice([100.0, 300.0, 500.0], GRID.shape, p=[0.1, 0.5, 0.4])
    array = tissue + rng.normal(0, 30, GRID.shape)
    array[:6] = rng.normal(0, 5, array[:6].shape)
    return Volume(gain * array + offset, GRID, "a.u.", "MR")


def mask() -> Volume:
    array = np.ones(GRID.shape, np.uint8)
    array[:6] = 0
    return Volume(array, GRID, "label")


def fitted_nyul() -> Nyul:
    cohort = [brainy(seed, gain=1 + seed, offset=10 * seed) for seed in range(4)]
    return Nyul().fitted(cohort, [mask()] * 4)


METHODS: list[Any] = [
    Percentile(), Percentile(low=5, high=90), ZScore(), WhiteStripe(contrast="t1"), WhiteStripe(contrast="flair"),
    fitted_nyul(),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=repr)
@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.05, 40), offset=st.floats(-500, 500), seed=st.integers(0, 50))
def test_a_change_of_gain_and_offset_is_not_seen(method: Any, gain: float, offset: float, seed: int) -> None:
    plain, changed = (method.apply(one, mask()) for one in (brainy(seed), brainy(seed, gain, offset)))
    np.testing.assert_allclose(changed.array, plain.array, rtol=1e-3, atol=2e-3 * np.abs(plain.array).max())


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_states_survive_json_and_units_say_what_was_done(method: Any) -> None:
    again = from_json(json.loads(json.dumps(method.to_json())))
    assert again == method
    done = method.apply(brainy(7), mask())
    np.testing.assert_array_equal(again.apply(brainy(7), mask()).array, done.array)
    assert done.unit == f"normalised:{method.name}"
    assert (done.modality, done.array.dtype) == ("MR", np.float32)
    assert done.grid is GRID


def sorted_inside(volume: Volume) -> list[float]:
    return sorted(volume.array[mask().array > 0].tolist())


def percentile(values: list[float], share: float) -> float:
    """Linear between the order statistics."""
    place = share / 100 * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])


def test_percentiles_and_z_scores_are_those_of_a_loop() -> None:
    image = brainy(3)
    values = sorted_inside(image)
    low, high = percentile(values, 1), percentile(values, 99)
    np.testing.assert_allclose(Percentile().apply(image, mask()).array, (image.array - low) / (high - low), atol=1e-5)
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    np.testing.assert_allclose(ZScore().apply(image, mask()).array, (image.array - mean) / deviation, atol=1e-5)


def test_nyul_is_that_of_the_paper() -> None:
    """Standard scale: mean over images of landmarks mapped linearly; then each piece is mapped linearly to its own."""
    cohort = [brainy(seed, gain=1 + seed, offset=10 * seed) for seed in range(4)]
    percents = Nyul().percentiles
    rows = [[percentile(sorted_inside(image), p) for p in percents] for image in cohort]
    ends = [[(mark - row[0]) / (row[-1] - row[0]) * 100 for mark in row] for row in rows]
    scale = [sum(row[number] for row in ends) / len(ends) for number in range(len(percents))]
    state = fitted_nyul()
    np.testing.assert_allclose(state.scale, scale, atol=1e-9)
    marks = [percentile(sorted_inside(brainy(9)), p) for p in percents]
    made = state.apply(brainy(9), mask()).array
    for index in np.ndindex(6, 5, 4):
        place = tuple(4 * i for i in index)
        value = brainy(9).array[place]
        piece = max(0, min(sum(value >= mark for mark in marks) - 1, len(marks) - 2))
        slope = (scale[piece + 1] - scale[piece]) / (marks[piece + 1] - marks[piece])
        assert made[place] == pytest.approx(scale[piece] + slope * (value - marks[piece]), abs=1e-3)


def test_nyul_keeps_the_order_of_values() -> None:
    image = brainy(5)
    order = np.argsort(image.array, axis=None)
    assert (np.diff(fitted_nyul().apply(image, mask()).array.ravel()[order]) >= 0).all()


@pytest.mark.parametrize(("contrast", "white"), [("t1", 500), ("t2", 300), ("flair", 300)])
def test_the_stripe_is_around_the_right_peak(contrast: Any, white: float) -> None:
    """The brightest of T1; elsewhere the highest, which in this image is that of the grey matter."""
    method, image = WhiteStripe(contrast=contrast), brainy(11)
    made = method.apply(image, mask())
    zero = image.array.ravel()[np.abs(made.array.ravel()).argmin()]
    assert zero == pytest.approx(white, abs=12)
    values = sorted_inside(image)
    rank = sum(value < zero for value in values) / len(values)
    stripe = [value for value in values if percentile(values, 100 * (rank - 0.05)) <= value]
    stripe = [value for value in stripe if value <= percentile(values, 100 * (rank + 0.05))]
    slope = np.polyfit(image.array.ravel(), made.array.ravel(), 1)[0]
    assert 1 / slope == pytest.approx(np.std(stripe), rel=0.2)


def test_a_t1_in_which_white_matter_has_no_peak_is_refused() -> None:
    array = np.where(brainy(0).array > 400, 300, brainy(0).array)
    smooth = array + np.random.default_rng(1).normal(0, 40, GRID.shape)
    with pytest.raises(InputError, match="no peak of its own"):
        WhiteStripe(contrast="t1").apply(brainy(0).with_array(smooth), mask())


def test_what_has_no_scale_is_refused() -> None:
    image = brainy(0)
    with pytest.raises(InputError, match="at least 3 volumes; seen 2"):
        Nyul().fitted([image, image], [mask(), mask()])
    with pytest.raises(InputError, match="call fitted"):
        Nyul().apply(image, mask())
    with pytest.raises(InputError, match="percentiles of the image coincide"):
        fitted_nyul().apply(image.with_array(np.where(image.array > 450, image.array, 0)), mask())
    with pytest.raises(GeometryError, match="the mask is on"):
        ZScore().apply(image, mask().crop((0, 0, 0), (4, 4, 4)))
    with pytest.raises(InputError, match="the mask holds 0 voxels"):
        ZScore().apply(image, mask().with_array(np.zeros(GRID.shape, np.uint8)))
    with pytest.raises(InputError, match="constant or not finite"):
        Percentile().apply(image.with_array(np.ones(GRID.shape)), mask())
    with pytest.raises(InputError, match="no state of a harmonisation"):
        from_json({"name": "magic"})
    for wrong in ({"low": 60, "high": 40}, {"low": 5, "middle": 3}):
        with pytest.raises(InputError, match="no state of a harmonisation"):
            from_json({"name": "percentile", **wrong})
