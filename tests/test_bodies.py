"""bodies: masks of the phantom's body whose truth is known, with a couch and without; the brain of a real scan."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medgan import bodies
from medgan.bodies import body, brain, without_background
from medgan.errors import GeometryError, InputError
from medgan.formats import read
from medgan.phantom import Head, head, patient_grid
from medgan.volume import Grid, Volume

Array = npt.NDArray[Any]


@pytest.fixture(scope="module", params=[(1, 64), (2, 96)], ids=["6 mm slices", "4 mm slices, upside down"])
def phantom(request: pytest.FixtureRequest) -> Head:
    number, size = request.param
    return head(4, grid=patient_grid(3, number, size=size))


def dice(one: Array, other: Array) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def couch(truth: Volume, gap_mm: float) -> Array:
    """A plate of 4 mm behind the head, at least a voxel thick."""
    back = truth.grid.to_world(np.moveaxis(np.indices(truth.array.shape), 0, -1))[..., 1]
    start = back[truth.array > 0].min() - gap_mm
    return np.asarray((back < start) & (back > start - max(4, truth.grid.spacing_mm[0])) & (truth.array == 0))


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_the_body_is_that_of_the_phantom(phantom: Head, modality: str) -> None:
    image, truth = getattr(phantom, modality), phantom.body.array > 0
    found = body(image)
    assert dice(found.array > 0, truth) >= 0.98
    assert (found.array.dtype, found.unit) == (np.uint8, "label")
    assert found.grid.same_as(image.grid)


@pytest.mark.parametrize(("modality", "bright"), [("ct", 200), ("mr", 400)])
def test_a_couch_is_left_out(phantom: Head, modality: str, bright: int) -> None:
    """All of it where there is a gap; where it touches, all but what lies on the skin."""
    image, truth = getattr(phantom, modality), phantom.body.array > 0
    for gap_mm, kept in ((3 * phantom.ct.grid.spacing_mm[0], 0.0), (0, 0.2)):
        plate = couch(phantom.body, gap_mm)
        found = body(image.with_array(np.where(plate, bright, image.array))).array > 0
        assert (found & plate).sum() <= kept * plate.sum()
        assert dice(found, truth) >= 0.98


def test_noise_is_no_body(phantom: Head) -> None:
    noise = np.random.default_rng(0).normal(0, 60, phantom.ct.array.shape)
    assert dice(body(phantom.ct.with_array(phantom.ct.array + noise)).array > 0, phantom.body.array > 0) >= 0.98


def test_the_order_of_axes_does_not_matter(phantom: Head) -> None:
    turned = body(phantom.ct.reorient("SPL")).reorient(phantom.ct.grid.orientation)
    assert dice(turned.array > 0, body(phantom.ct).array > 0) > 0.995


def test_images_without_a_body_are_refused() -> None:
    grid = Grid.regular((8, 8, 8))
    with pytest.raises(InputError, match="constant or not finite"):
        body(Volume(np.zeros(grid.shape), grid))
    with pytest.raises(InputError, match="nothing in the image is denser than air"):
        body(Volume(np.linspace(-1000, -900, 512).reshape(grid.shape), grid, "HU"))


def test_outside_the_mask_is_air() -> None:
    grid = Grid.regular((2, 2, 2))
    image = Volume(np.arange(8, dtype=np.int16).reshape(grid.shape) + 3, grid, "a.u.", "MR")
    mask = Volume((image.array > 6).astype(np.uint8), grid, "label")
    assert without_background(image, mask).array.ravel().tolist() == [3, 3, 3, 3, 7, 8, 9, 10]
    assert without_background(image, mask, value=-5).array.min() == -5
    assert without_background(image, mask, value=0.0).array.dtype == np.int16
    assert without_background(image, mask, value=0.0).array.min() == 0
    for value in (0.5, 40000.0, float("nan")):
        with pytest.raises(InputError, match="int16 cannot hold"):
            without_background(image, mask, value=value)
    real = image.with_array(image.array.astype(np.float32))
    assert without_background(real, mask, value=0.5).array.min() == 0.5
    with pytest.raises(InputError, match=r"float32 cannot hold 1e\+39"):
        without_background(real, mask, value=1e39)
    with pytest.raises(GeometryError, match="the mask is on"):
        without_background(image, mask.crop((0, 0, 0), (1, 2, 2)))
    with pytest.raises(InputError, match="uint8 cannot hold -1000"):
        without_background(mask, mask, value=-1000)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepbet") is None, reason="deepbet is not installed")
def test_the_brain_of_a_real_scan_is_where_the_data_set_says(shared: Path) -> None:
    """Also on a scan whose axes run to the left and to the back, with the neck."""
    folder = shared / "nichart_t1_flair_3d2mm" / "Subj01"
    truth = read(folder / "brainmask.nii.gz")
    assert dice(brain(read(folder / "t1.nii.gz")).array > 0, truth.array > 0) > 0.93
    whole = brain(read(shared / "nichart_unregistered_pairs" / "Subj01" / "t1.nii.gz"))
    assert whole.grid.orientation == "LPS"
    places = np.rint(whole.grid.to_index(truth.grid.to_world(np.argwhere(truth.array > 0)))).astype(int)
    assert whole.array[tuple(places.T)].mean() > 0.9
    with pytest.raises(InputError, match="sees no brain"):
        brain(Volume(np.zeros((32, 32, 32), np.float32), Grid.regular((32, 32, 32))))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(0, 1, 2), (1, 2), (0, 2), (0, 1)]))
def test_holes_are_those_of_scipy(seed: int, axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 12, 3)) < rng.uniform(0.3, 0.9)
    planes = [mask] if len(axes) == 3 else np.moveaxis(mask, 3 - sum(axes), 0)
    filled = [ndimage.binary_fill_holes(plane) for plane in planes]
    expected = filled[0] if len(axes) == 3 else np.moveaxis(np.stack(filled), 0, 3 - sum(axes))
    assert np.array_equal(bodies._without_holes(mask, axes), expected)
