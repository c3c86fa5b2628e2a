"""The audit of a synthetic set: copiers fail, whatever they look like; honest generators do not; collapse is seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import needs_shared
from torch import Tensor

from medgan.augment.audit import Audit, CriticScores, audit, near_copies, pairs_picture
from medgan.errors import InputError
from medgan.imageset import ImageSet
from medgan.metrics.features import HandMade

SIDE, COUNT = 28, 100


def phantoms(count: int, seed: int) -> Tensor:
    """(N, 1, 28, 28): an ellipse of any size, place, angle and contrast; in every second a lesion somewhere in it."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2, indexing="ij")
    images = []
    for number in range(count):
        (cx, cy), (a, b), angle = rng.uniform(-0.25, 0.25, 2), rng.uniform(0.4, 0.7, 2), rng.uniform(0, np.pi)
        u, v = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle), (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        image = rng.uniform(0.6, 1.2) / (1 + np.exp(12 * (np.hypot(u / a, v / b) - 1))) - 0.9
        if number % 2:
            lx, ly = cx + rng.uniform(-0.3, 0.3), cy + rng.uniform(-0.3, 0.3)
            image += rng.uniform(0.3, 0.7) * np.exp(
                -((x - lx) ** 2 + (y - ly) ** 2) / (2 * rng.uniform(0.08, 0.18) ** 2)
            )
        images.append(image + 0.03 * rng.standard_normal(image.shape))
    return torch.from_numpy(np.clip(np.stack(images), -1, 1)).float()[:, None]


def noisy(x: Tensor, share: float = 0.01, seed: int = 0) -> Tensor:
    """With noise of a share of the range, which is 2."""
    return x + 2 * share * torch.from_numpy(np.random.default_rng(seed).standard_normal(x.shape)).float()


def named(x: Tensor, letter: str, each: int = 1) -> ImageSet:
    patients = [f"{letter}{number // each}" for number in range(len(x))]
    labels = ["lesion" if number % 2 else "none" for number in range(len(x))]
    return ImageSet(x, [f"{letter}{number}" for number in range(len(x))], patients, {"label": labels})


def sets(seed: int, count: int = COUNT) -> tuple[ImageSet, Tensor, ImageSet]:
    """Training images, fresh images, and held-out images."""
    train, fresh, held = (phantoms(count, 10 * seed + part) for part in range(3))
    return named(train, "t"), fresh, named(held, "h")


def failed(found: Audit) -> str:
    return "; ".join(reason.measured for reason in found.reasons if reason.level == "FAIL")


def quality_is_excellent(found: Audit) -> bool:
    """What every score of quality says: as good as real images, or better."""
    scores = found.likeness
    return (
        scores["FD-random-conv"].value < 1.3 * scores["FD-random-conv"].floor
        and all(
            scores[name].value > 0.9 * scores[name].floor for name in ("precision", "recall", "coverage", "density")
        )
        and scores["spread_ratio"].value == pytest.approx(1, abs=0.1)
    )


# --- acceptance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_a_copier_fails_although_every_score_of_quality_praises_it(seed: int) -> None:
    train, _, held = sets(seed)
    for holdout in (held, None):
        found = audit(train, named(noisy(train.x), "SYN-"), holdout, seed=seed)
        assert quality_is_excellent(found)
        assert found.verdict == "FAIL"
        assert len(found.near_copies) > 0.95 * COUNT
        assert max(one.effective_number.value for one in found.memory) < 0.1 * COUNT


def test_a_copier_that_mirrors_turns_and_brightens_fails() -> None:
    train, _, held = sets(3)
    turned = torch.cat([train.x[:30].flip(2), train.x[30:60].flip(3) * 0.8 + 0.1, train.x[60:].rot90(1, (2, 3))])
    for holdout in (held, None):
        found = audit(train, named(noisy(turned), "SYN-"), holdout)
        assert found.verdict == "FAIL"
        assert "near copies (pixels): 100 of 100" in failed(found)


@pytest.mark.parametrize("seed", range(2))
def test_a_copier_of_a_third_fails_although_every_score_of_quality_praises_it(seed: int) -> None:
    train, fresh, held = sets(seed, 180)
    mixed = torch.cat([noisy(train.x[:60]), fresh[60:]])
    for holdout in (held, None):
        found = audit(train, named(mixed, "SYN-"), holdout, seed=seed)
        assert quality_is_excellent(found)
        assert found.verdict == "FAIL"
        copied = {f"SYN-{number}" for number in range(60)}
        assert len(copied & set(found.near_copies)) > 55
        assert len(set(found.near_copies) - copied) < 5


def test_what_is_left_without_near_copies_passes() -> None:
    train, fresh, held = sets(5, 80)
    mixed = named(torch.cat([noisy(train.x[:40]), fresh[40:]]), "SYN-")
    copied = near_copies(train, mixed, held)
    assert copied == audit(train, mixed, held).near_copies
    left = mixed.where([name not in copied for name in mixed.names])
    assert audit(train, left, held).verdict == "PASS"


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_generator_does_not_fail(seed: int) -> None:
    train, fresh, held = sets(100 + seed)
    found, blind = (audit(train, named(fresh, "SYN-"), holdout, seed=seed) for holdout in (held, None))
    assert found.verdict == "PASS", failed(found)
    assert blind.verdict == "REVIEW", failed(blind)
    assert [reason.measured for reason in blind.reasons if reason.level == "REVIEW"] == [
        "no held-out real images were given"
    ]
    assert all(0.4 * COUNT < one.effective_number.value <= COUNT for one in found.memory)


@pytest.mark.parametrize("count", [12, 16, 24])
def test_of_few_patients_nothing_is_certain_but_full_copies(count: int) -> None:
    train, fresh, held = sets(7, count)
    honest, copier = (audit(train, named(x, "SYN-"), held) for x in (fresh, noisy(train.x)))
    assert honest.verdict in {"PASS", "REVIEW"}
    assert copier.verdict == "FAIL"
    assert audit(train, named(fresh, "SYN-")).verdict == "REVIEW"


def test_of_a_handful_of_patients_the_verdict_is_review() -> None:
    train, fresh = named(phantoms(12, 0), "t", 3), phantoms(20, 1)
    found = audit(train, named(fresh, "SYN-"), named(phantoms(6, 2), "h", 3))
    assert found.verdict == "REVIEW"
    assert any("so few patients" in reason.measured for reason in found.reasons)


def test_a_collapsed_generator_does_not_pass_and_is_not_called_a_copier() -> None:
    train, fresh, held = sets(8)
    collapsed = noisy(fresh[:2].repeat(COUNT // 2, 1, 1, 1), 0.02)  # four lie at the limit of what is seen
    found = audit(train, named(collapsed, "SYN-"), held)
    assert found.verdict in {"REVIEW", "FAIL"}
    assert "patient" not in failed(found)
    poor = [reason.measured.split()[0] for reason in found.reasons if reason.level != "PASS"]
    assert {"coverage", "recall"} <= set(poor)
    assert max(one.effective_number.value for one in found.memory) <= 4


def test_a_class_that_collapsed_alone_is_seen_within_it() -> None:
    train, fresh, held = sets(9)
    x = fresh.clone()
    x[1::2] = noisy(fresh[1:2].repeat(COUNT // 2, 1, 1, 1))
    found = audit(train, named(x, "SYN-"), held, within="label")
    seen = {reason.measured.split(" 0.")[0]: reason.level for reason in found.reasons if "class" in reason.measured}
    assert seen["class lesion: coverage"] == seen["class lesion: spread_ratio"] == "REVIEW"
    assert {level for name, level in seen.items() if "none" in name} == {"PASS"}
    missing = audit(
        train, named(fresh, "SYN-").where([number % 2 == 0 for number in range(COUNT)]), held, within="label"
    )
    assert missing.classes["lesion"] is None
    assert any(reason.measured == "class lesion: too few images to compare" for reason in missing.reasons)


@needs_shared
def test_real_radiographs(shared: Path) -> None:
    """A third of them stands for an honest generator. They name no patients, so that twins are to be expected."""
    with np.load(shared / "pneumoniamnist_train_val.npz") as held:
        x = torch.from_numpy(held["train_images"]).float()[:, None] / 127.5 - 1
    order = np.random.default_rng(0).permutation(len(x))
    a, b, c = (x[order[part * 150 : (part + 1) * 150]] for part in range(3))
    train, holdout = named(a, "t"), named(b, "h")
    assert audit(train, named(c, "SYN-"), holdout).verdict in {"PASS", "REVIEW"}
    assert audit(train, named(noisy(a), "SYN-"), holdout).verdict == "FAIL"
    assert audit(train, named(noisy(a).flip(2), "SYN-")).verdict == "FAIL"


# --- other sets -------------------------------------------------------------------------------------------------------


def test_volumes_of_several_channels() -> None:
    def volumes(count: int, seed: int) -> Tensor:
        flat = phantoms(count, seed)
        depth = torch.linspace(0.6, 1, 8)
        return torch.stack([flat[:, 0, ::2, ::2, None] * depth, flat[:, 0, ::2, ::2, None] * depth.flip(0)], dim=1)

    train, held = named(volumes(40, 0), "t"), named(volumes(40, 1), "h")
    honest, copier = (
        audit(train, named(volumes(40, 2), "SYN-"), held),
        audit(train, named(noisy(train.x.flip(2)), "S"), held),
    )
    assert honest.verdict == "PASS", failed(honest)
    assert copier.verdict == "FAIL"
    assert pairs_picture(copier, train, named(noisy(train.x.flip(2)), "S"), count=2).shape == (30, 46, 3)


def test_slices_of_one_patient_are_no_copies_of_one_another() -> None:
    """Six slices a patient, all alike: fresh patients pass, and copies of slices of few patients do not."""

    def slices(patients: int, seed: int) -> Tensor:
        return noisy(phantoms(patients, seed).repeat_interleave(6, dim=0), 0.02, seed)

    train, held = named(slices(18, 0), "t", 6), named(slices(18, 1), "h", 6)
    honest = audit(train, named(slices(18, 2), "SYN-"), held)
    assert honest.verdict != "FAIL", failed(honest)
    x = slices(18, 2)
    x[:12] = noisy(train.x[:12])
    found = audit(train, named(x, "SYN-"), held)
    assert found.verdict == "FAIL"
    assert set(found.near_copies) >= {f"SYN-{number}" for number in range(12)}
    assert 2 <= found.memory[0].patients_hit <= 4


# --- critic, split, twins ---------------------------------------------------------------------------------------------


def test_a_critic_that_tells_members_is_not_to_be_shared() -> None:
    train, fresh, held = sets(11)
    rng = np.random.default_rng(0)
    none = CriticScores(rng.normal(0, 1, COUNT), rng.normal(0, 1, COUNT))
    found = [
        audit(train, named(fresh, "SYN-"), held, critic=critic)
        for critic in (none, replace(none, train=none.train + 2))
    ]
    assert [one.verdict for one in found] == ["PASS", "REVIEW"]
    assert found[1].critic is not None
    assert found[1].critic.auc.low > 0.85
    assert any("never share the critic" in reason.meaning for reason in found[1].reasons)


def test_a_holdout_from_another_scanner_is_told_and_is_no_proof_of_copying() -> None:
    train, fresh, held = sets(12)
    other = ImageSet(torch.nn.functional.avg_pool2d(held.x, 5, 1, 2) * 0.8, held.names, held.patients)
    found = audit(train, named(fresh, "SYN-"), other)
    assert any("not split at random" in reason.meaning and reason.level == "REVIEW" for reason in found.reasons)
    assert found.verdict == "REVIEW", failed(found)
    assert audit(train, named(noisy(train.x), "SYN-"), other).verdict == "FAIL"


def test_equal_images_of_two_patients_are_told() -> None:
    train, fresh, held = sets(13)
    x = held.x.clone()
    x[5] = train.x[7]
    found = audit(train, named(fresh, "SYN-"), named(x, "h"))
    assert found.verdict == "REVIEW"
    assert any(reason.measured.startswith("2 real images are, voxel for voxel") for reason in found.reasons)


# --- what comes of it -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_audit_as_json_without_names_of_patients() -> None:
    train, fresh, held = sets(14, 40)
    synthetic = named(torch.cat([noisy(train.x[:10]), fresh[10:]]), "SYN-")
    train = ImageSet(train.x, [f"case-{name}" for name in train.names], [f"person-{name}" for name in train.patients])
    found = audit(train, synthetic, held, likeness=HandMade(), features=HandMade(), seed=3)
    text = found.to_json()
    assert text == audit(train, synthetic, held, likeness=HandMade(), features=HandMade(), seed=3).to_json()
    plain = json.loads(text)
    assert plain["verdict"] == "FAIL"
    assert plain["counts"] == {
        "train_images": 40,
        "train_patients": 40,
        "synthetic_images": 40,
        "holdout_images": 40,
        "holdout_patients": 40,
    }
    assert plain["near_copies"][:3] == ["SYN-0", "SYN-1", "SYN-2"]
    assert {"FD-hand-made", "KID-hand-made", "coverage", "spread_ratio"} <= set(plain["likeness"])
    assert [one["space"] for one in plain["memory"]] == ["pixels", "hand-made"]
    assert "case-" not in text
    assert "person-" not in text
    assert all({"level", "measured", "threshold", "meaning"} == set(reason) for reason in plain["reasons"])


def test_no_verdict_is_called_proof() -> None:
    train, fresh, held = sets(15, 60)
    found = audit(train, named(fresh, "SYN-"), held)
    text = found.to_json()
    assert "this certifies nothing" in text
    for word in ("safe", "private", "anonymous", "guarantee"):
        assert word not in text


def test_the_picture_shows_the_nearest_pairs_mirrored_back() -> None:
    train, fresh, held = sets(16, 40)
    synthetic = named(torch.cat([fresh[:39], train.x[5:6].flip(3)]), "SYN-")
    found = audit(train, synthetic, held)
    assert (found.pairs[0].synthetic, found.pairs[0].train) == (39, 5)
    assert found.pairs[0].correlation == pytest.approx(1, abs=1e-6)
    assert [pair.distance for pair in found.pairs] == sorted(pair.distance for pair in found.pairs)
    picture = pairs_picture(found, train, synthetic, count=3)
    assert picture.dtype == np.uint8
    assert picture.shape == (3 * SIDE + 4, 3 * SIDE + 4, 3)
    ours, real, difference = picture[:SIDE, :SIDE], picture[:SIDE, 30:58], picture[:SIDE, 60:]
    assert (ours == real).all()
    assert (difference == 250).all()  # white: no difference
    shown = np.rint((synthetic.x[39, 0].double().numpy()[::-1, ::-1].T + 1) * 127.5)
    assert np.abs(ours[..., 0] - shown).max() <= 1
    assert not (picture[30:58, :SIDE] == picture[30:58, 30:58]).all()
    with pytest.raises(InputError, match="of the sets that it was made of"):
        pairs_picture(found, held.take(range(20)), synthetic)


# --- what cannot be audited -------------------------------------------------------------------------------------------


def small() -> tuple[ImageSet, ImageSet, ImageSet]:
    train, fresh, held = sets(17, 14)
    return train, named(fresh, "SYN-"), held


def test_sets_of_other_sizes_are_refused() -> None:
    train, synthetic, held = small()
    cropped = named(synthetic.x[..., :20], "SYN-")
    with pytest.raises(InputError, match=r"synthetic images are of \(1, 28, 20\), training images of \(1, 28, 28\)"):
        audit(train, cropped, held)


def test_values_that_are_not_finite_are_refused() -> None:
    train, synthetic, held = small()
    held.x[3, 0, 4, 4] = float("nan")
    with pytest.raises(InputError, match="held-out images hold values that are not finite"):
        audit(train, synthetic, held)


def test_patients_on_both_sides_are_refused() -> None:
    train, synthetic, _ = small()
    with pytest.raises(InputError, match=r"2 patients are both in training and held out \(t0, t1\)"):
        audit(train, synthetic, named(train.x[:2], "t"))


def test_one_held_out_patient_is_refused() -> None:
    train, synthetic, held = small()
    with pytest.raises(InputError, match="a single patient"):
        near_copies(train, synthetic, named(held.x, "h", 14))


@pytest.mark.parametrize(("count", "each", "made"), [(8, 1, 14), (14, 7, 14), (14, 1, 5)])
def test_too_little_to_say_anything_is_refused(count: int, each: int, made: int) -> None:
    train, synthetic, held = small()
    with pytest.raises(InputError, match="too few for an audit"):
        audit(named(train.x[:count], "t", each), synthetic.take(range(made)), held)


def test_scores_of_a_critic_that_do_not_fit_are_refused() -> None:
    train, synthetic, held = small()
    with pytest.raises(InputError, match="only beside held-out images"):
        audit(train, synthetic, critic=CriticScores(np.ones(14), np.ones(0)))
    with pytest.raises(InputError, match="13 and 14 scores"):
        audit(train, synthetic, held, critic=CriticScores(np.ones(13), np.ones(14)))
    with pytest.raises(InputError, match="not all finite"):
        audit(train, synthetic, held, critic=CriticScores(np.full(14, np.nan), np.ones(14)))


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(InputError, match=r"condition 'age' is not known of both sets \(training: label\)"):
        audit(*small(), within="age")
