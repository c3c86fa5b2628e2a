"""Phantoms of known factors: the images follow them, and measuring finds them again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medgan.augment.audit import audit
from medgan.augment.masks import mask_is_valid, mask_scores
from medgan.augment.select import Selection, select
from medgan.errors import InputError
from medgan.imageset import ImageSet
from medgan.phantom import draw_factors, factor_distances, factor_images, measure
from medgan.phantom.factors import BACKGROUND, ORGAN, Factors, render

SHAPES = [(16, 16), (28, 28), (64, 64), (24, 40), (16, 16, 16), (32, 32, 32), (16, 20, 24)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_measured_factors_agree_with_the_truth(shape: tuple[int, ...]) -> None:
    images = factor_images(100, size=shape, seed=11)
    truth, seen = draw_factors(100, size=shape, seed=11), measure(images.x)
    assert (seen.lesion == truth.lesion).mean() >= 0.99
    assert np.quantile(abs(seen.radius_px - truth.radius_px), 0.95) < 0.2
    assert np.quantile(abs(seen.stretch - truth.stretch), 0.95) < 0.05
    assert np.quantile(abs(seen.centre_px - truth.centre_px), 0.95) < 0.25
    assert np.nanquantile(abs(seen.contrast - truth.contrast), 0.95) < 0.12
    assert np.nanquantile(abs(seen.lesion_px - truth.lesion_px), 0.95) < 0.5
    assert max(factor_distances(seen, truth).values()) < 0.15


def test_an_image_follows_its_factors_by_hand() -> None:
    """Levels of background, organ and lesion, and areas, without texture."""
    one = Factors(
        radius_px=np.array([9.0]),
        stretch=np.array([1.2]),
        centre_px=np.array([[15.0, 17.0]]),
        lesion=np.array([True]),
        contrast=np.array([0.6]),
        lesion_px=np.array([[13.0, 19.0]]),
    )
    image, mask = render(one, (32, 32), texture=0, mask="organ")[0].double()
    assert float(image[0, 0]) == pytest.approx(BACKGROUND, abs=1e-6)
    assert float(image[13, 19]) == pytest.approx(ORGAN + 0.6, abs=1e-3)
    assert float(image[21, 14]) == pytest.approx(ORGAN, abs=0.01)
    assert float((mask > 0).sum()) == pytest.approx(np.pi * 81, rel=0.03)
    rows = (mask > 0).nonzero()
    assert float(rows[:, 0].double().std() / rows[:, 1].double().std()) == pytest.approx(1.2**2, rel=0.03)
    assert float(rows.double().mean(dim=0)[1]) == pytest.approx(17, abs=0.1)


def test_a_lesions_mask_ends_at_half_its_height() -> None:
    both = factor_images(20, size=48, seed=2, mask="lesion")
    ill = draw_factors(20, size=48, seed=2).lesion
    pixels = (both.x[:, 1] > 0).sum(dim=(1, 2)).numpy()
    assert (pixels[~ill] == 0).all()
    area = np.pi * 2 * np.log(2) * (0.08 * 48) ** 2  # of the circle of half width σ √(2 ln 2)
    assert pixels[ill].mean() == pytest.approx(area, rel=0.05)
    assert set(both.x[:, 1].flatten().tolist()) == {-1.0, 1.0}


@settings(max_examples=15, deadline=None)
@given(num=st.integers(1, 30), seed=st.integers(0, 99), share=st.floats(0, 1), long=st.integers(12, 20))
def test_draws_are_repeatable_and_a_smaller_set_begins_a_larger(num: int, seed: int, share: float, long: int) -> None:
    images = factor_images(num, size=(12, long), seed=seed, lesion_share=share)
    larger = factor_images(num + 7, size=(12, long), seed=seed, lesion_share=share)
    assert torch.equal(images.x, larger.x[:num])
    assert images.names == list(larger.names[:num])
    assert images.x.abs().max() <= 1
    owners = set(images.patients)
    assert len(owners) <= num <= 2 * len(owners)
    ill = {
        patient for patient, label in zip(images.patients, images.conditions["class"], strict=True) if label == "lesion"
    }
    assert abs(len(ill) - share * len(owners)) < 1


def test_seeds_and_patients() -> None:
    a, b = (factor_images(40, size=16, seed=seed) for seed in (0, 1))
    assert not set(a.patients) & set(b.patients)
    assert not torch.equal(a.x, b.x)
    assert len({x.numpy().tobytes() for x in a.x}) == 40
    radii: dict[str, tuple[str, str]] = {}
    for patient, radius, label in zip(a.patients, a.conditions["radius_px"], a.conditions["class"], strict=True):
        assert radii.setdefault(patient, (radius, label)) == (radius, label)
    assert len(radii) < 40


def test_distances_see_a_shifted_factor_and_a_lost_one() -> None:
    truth = draw_factors(400, size=32, seed=0)
    wider = Factors(**{**vars(truth), "radius_px": truth.radius_px + 1.6})  # half of the range 3.2
    assert factor_distances(truth, wider)["radius_px"] == pytest.approx(0.5, abs=0.06)
    healthy = measure(factor_images(50, size=32, seed=1, lesion_share=0).x)
    distances = factor_distances(truth, healthy)
    assert distances["lesion"] == pytest.approx(0.5, abs=0.03)
    assert distances["contrast"] == 1
    assert "contrast" not in factor_distances(healthy, healthy)


def test_noise_and_empty_images_measure_without_a_crash() -> None:
    empty = measure(-torch.ones(2, 1, 20, 20))
    assert np.isnan(empty.radius_px).all()
    assert not empty.lesion.any()
    noise = measure(torch.rand(4, 1, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    assert max(factor_distances(draw_factors(100, size=20), noise).values()) > 0.9


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 8}, "12 pixels"),
        ({"size": (16,)}, "2 or 3 axes"),
        ({"num": 0}, "1 or more"),
        ({"seed": -1}, "seed"),
        ({"lesion_share": 1.5}, "between 0 and 1"),
        ({"contrast": (0.5, 0.2)}, "contrast"),
        ({"texture": -0.1}, "texture"),
    ],
)
def test_bad_numbers_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        factor_images(**{"num": 2, "size": 16, **wrong})  # type: ignore[arg-type]


def organs(num: int, seed: int) -> torch.Tensor:
    return factor_images(num, size=32, seed=seed, mask="organ").x[:, 1:]


def test_masks_of_other_patients_are_valid_and_broken_ones_are_not() -> None:
    real, good = organs(60, 0), organs(40, 1)
    assert mask_is_valid(good, like=real).mean() > 0.9
    torn = good.clone()
    torn[:, :, 1:4, 1:4] = 1  # a part of its own
    empty, full, grey = -torch.ones_like(good), torch.ones_like(good), good * 0.3
    for broken in (torn, empty, full, grey):
        assert not mask_is_valid(broken, like=real).any()


def test_an_empty_mask_is_valid_where_real_ones_are_empty() -> None:
    real = factor_images(40, size=32, seed=0, mask="lesion").x[:, 1:]
    assert mask_is_valid(-torch.ones(3, 1, 32, 32), like=real).all()
    tiny = -torch.ones(1, 1, 32, 32)
    tiny[0, 0, 16, 16] = 1
    assert not mask_is_valid(tiny, like=real).any()


def test_a_mask_of_a_whole_image_set_keeps_its_order() -> None:
    images = factor_images(6, size=24, seed=3, mask="organ")
    spoilt = images.x.clone()
    spoilt[2, 1] = 1
    kept = ImageSet(spoilt, images.names, images.patients).where(mask_is_valid(spoilt[:, 1:], like=images.x[:, 1:]))
    assert list(kept.names) == [name for number, name in enumerate(images.names) if number != 2]


def test_masks_are_scored_beside_real_ones() -> None:
    """Those of other patients like real ones; empty ones could each be real, and are too many; torn ones could not."""
    real, fresh = (factor_images(80, size=24, seed=seed, mask="lesion") for seed in (0, 1))
    good = mask_scores(real, fresh, 0)
    assert good["valid_masks"].value > 0.9
    assert good["filled_masks"].value == pytest.approx(good["filled_masks"].floor, abs=0.15)
    empty, torn = (ImageSet(x, fresh.names, fresh.patients) for x in (fresh.x.clone(), fresh.x.clone()))
    empty.x[:, 1] = -1
    torn.x[:, 1, ::2, ::2] = 1
    assert mask_scores(real, empty, 0)["valid_masks"].value == 1
    assert mask_scores(real, empty, 0)["filled_masks"].value == 0
    assert mask_scores(real, torn, 0)["valid_masks"].value == 0


@pytest.mark.parametrize(("spoil", "said"), [(-1.0, "filled_masks"), (1.0, "valid_masks")])
def test_an_audit_looks_at_masks(spoil: float, said: str) -> None:
    train, held_out, made = (factor_images(60, size=16, seed=seed, mask="lesion") for seed in (0, 1, 2))
    held_out, made = (
        ImageSet(one.x, names, names)
        for one, names in ((held_out, [f"H{n}" for n in range(60)]), (made, [f"S{n}" for n in range(60)]))
    )
    found = audit(train, made, held_out, with_masks=True)
    assert [one.level for one in found.reasons if "_masks" in one.measured] == ["PASS", "PASS"]
    made.x[:, 1] = spoil
    found = audit(train, made, held_out, with_masks=True)
    assert [one.measured.split()[0] for one in found.reasons if "_masks" in one.measured and one.level != "PASS"] == [
        said
    ]
    assert not audit(train, made, held_out).masks


def test_images_with_masks_that_could_not_be_real_are_dropped() -> None:
    train, made = (factor_images(40, size=16, seed=seed, mask="organ") for seed in (0, 1))
    made.x[3, 1] = 1
    chosen = select(made, train, Selection(valid_masks=True), with_masks=True)
    assert "mask" in [reason.rule for reason in chosen.decisions[3].reasons]
    assert len(chosen.images) > 30
    with pytest.raises(InputError, match="goes by masks"):
        select(made, train, Selection(valid_masks=True))
