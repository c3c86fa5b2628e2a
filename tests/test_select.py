"""select: each rule drops what it should, every decision is on record, and what it costs is said."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from conftest import needs_shared
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medgan.augment.limits import STATISTICS, Limits
from medgan.augment.select import Selected, Selection, select
from medgan.augment.variety import bias_of
from medgan.errors import ConfigError, InputError
from medgan.imageset import ImageSet
from medgan.metrics.features import RandomConv
from medgan.metrics.reduction import Reduction


def images(count: int, seed: int, side: int = 16) -> Tensor:
    """Smooth textures, every one another."""
    rng = np.random.default_rng(seed)
    x, y = np.indices((side, side)) / side
    waves = [
        sum(height * np.sin(2 * np.pi * (k * (x * a + y * b) + c)) for k, (height, a, b, c) in enumerate(one, 1))
        for one in rng.uniform(0, 1, (count, 4, 4))
    ]
    return torch.from_numpy(np.clip(np.array(waves) / 3, -1, 1).astype(np.float32))[:, None]


def a_set(x: Tensor, prefix: str, classes: tuple[str, ...] = ("a", "b")) -> ImageSet:
    names = [f"{prefix}{number}" for number in range(len(x))]
    return ImageSet(x, names, names, {"class": [classes[number % len(classes)] for number in range(len(x))]})


TRAIN, MADE, HELD = a_set(images(60, 0), "t"), a_set(images(40, 1), "s"), a_set(images(50, 2), "h")


def reasons(found: Selected) -> dict[str, list[str]]:
    return {one.name: [reason.rule for reason in one.reasons] for one in found.decisions}


def test_without_rules_all_stays():
    found = select(MADE, TRAIN, Selection(), held_out=HELD, condition="class")
    assert list(found.images.names) == list(MADE.names)
    assert all(one.kept for one in found.decisions)
    assert found.bias.before == found.bias.after == found.bias.by_chance
    assert found.bias.classes == {"a": (20, 20), "b": (20, 20)}


# --- the rules --------------------------------------------------------------------------------------------------------


def test_the_lowest_scores_of_each_class_go():
    scores = np.arange(40.0) + 100 * (np.arange(40) % 2)  # class b scores higher throughout
    found = select(MADE, TRAIN, Selection(lowest_scores=0.25), condition="class", scores=scores)
    dropped = [place for place, one in enumerate(found.decisions) if not one.kept]
    assert dropped == list(range(10))
    assert found.decisions[0].reasons[0].told == "critic score 0 below 9.5"  # 0, 2, …, 38: a quarter below 9.5
    assert found.decisions[3].score == 103
    all_one = select(MADE, TRAIN, Selection(lowest_scores=0.25), scores=scores)
    assert {one.label for one in all_one.decisions if not one.kept} == {""}
    assert [place for place, one in enumerate(all_one.decisions) if not one.kept] == list(range(0, 20, 2))


def test_what_a_classifier_takes_for_another_class_goes():
    own = np.linspace(0.02, 0.98, 40)
    truth = np.array(MADE.conditions["class"])
    probabilities = {label: np.where(truth == label, own, 1 - own) for label in ("a", "b")}
    found = select(MADE, TRAIN, Selection(min_confidence=0.5), condition="class", probabilities=probabilities)
    assert [one.kept for one in found.decisions] == (own >= 0.5).tolist()
    assert [one.confidence for one in found.decisions] == pytest.approx(own.tolist())
    assert found.decisions[0].reasons[0].told == "probability 0.02 of its class a below 0.5"


def test_limits_are_percentiles_of_training_images_moved_apart():
    """Against a slow loop in numpy, statistic by statistic."""
    x = torch.cat([TRAIN.x, 0.5 * TRAIN.x.flip(2) - 0.2], dim=1)
    limits = Limits.learnt(x, 0.25)
    for channel in range(2):
        table = []
        for image in x[:, channel].numpy():
            share = np.count_nonzero(image > limits.thresholds[channel]) / image.size
            levels = [np.percentile(image, one) for one in (1, 50, 99)]
            table.append([image.mean(), image.std(), *levels, share])
        for which, column in enumerate(np.array(table).T):
            low, high = np.quantile(column, 0.01), np.quantile(column, 0.99)
            lowest = low - 0.25 * (high - low)
            if STATISTICS[which] in ("spread", "foreground share"):
                lowest = max(lowest, low / 2)
            assert limits.low[channel, which] == pytest.approx(lowest, abs=3e-6)
            assert limits.high[channel, which] == pytest.approx(high + 0.25 * (high - low), abs=3e-6)


def test_the_threshold_parts_background_and_organ():
    x = torch.full((30, 1, 12, 12), -0.9)
    for number in range(30):
        x[number, :, : 3 + number % 4] = 0.6
    limits = Limits.learnt(x, 0.0)
    assert -0.9 <= limits.thresholds[0] < 0.6
    assert (limits.low[0, 5], limits.high[0, 5]) == pytest.approx((3 / 12, 6 / 12), abs=1e-5)
    bigger = x[:1].clone()
    bigger[0, :, :9] = 0.6
    assert "foreground share 0.75 outside 0.25 to 0.5" in limits.broken(bigger)[0]
    assert limits.broken(x[:4]) == [[], [], [], []]


@pytest.mark.parametrize(
    ("change", "statistic"),
    [
        (lambda x: x + 3, "mean"),
        (lambda x: x * 10, "spread"),
        (lambda x: x * 0 + x.mean(), "spread"),
        (lambda x: x - 9 * (torch.arange(x.numel()).reshape(x.shape) % 20 == 0), "1st percentile"),
    ],
    ids=["bright", "contrasty", "flat", "holes"],
)
def test_what_training_images_never_show_goes(change, statistic):
    x = MADE.x.clone()
    x[7] = change(x[7])
    before = select(MADE, TRAIN, Selection(margin=1.0))
    found = select(a_set(x, "s"), TRAIN, Selection(margin=1.0))
    assert before.decisions[7].kept
    assert [one.name for one in found.decisions if not one.kept] == ["s7"]
    assert any(reason.told.startswith(statistic) for reason in found.decisions[7].reasons)
    assert statistic in STATISTICS


def test_a_channel_is_named_where_there_are_several():
    two = ImageSet(torch.cat([TRAIN.x, TRAIN.x], dim=1), TRAIN.names, TRAIN.patients, TRAIN.conditions)
    made = ImageSet(torch.cat([MADE.x, MADE.x + 5], dim=1), MADE.names, MADE.patients, MADE.conditions)
    with pytest.raises(InputError, match="no image is left of 40"):
        select(made, two, Selection(margin=0.25))
    told = Limits.learnt(two.x, 0.25).broken(made.x)
    assert all("of channel 1" in line for line in told[0])


@pytest.mark.parametrize("dims", [2, 3])
def test_copies_of_training_images_go_also_turned_and_noisy(dims):
    draw = torch.Generator().manual_seed(0)
    train, made = TRAIN, MADE
    if dims == 3:
        deep = [one.x[..., None] * torch.linspace(0.5, 1, 12) for one in (train, made)]
        train, made = (ImageSet(x, s.names, s.patients, s.conditions) for x, s in zip(deep, (train, made), strict=True))
    x = made.x.clone()
    x[:4] = train.x[:4]
    x[4:8] = train.x[4:8].flip(2)
    x[8:12] = (train.x[8:12] + 0.1 * torch.randn(train.x[8:12].shape, generator=draw)).clamp(-1, 1)
    planted = ImageSet(x, made.names, made.patients, made.conditions)
    found = select(planted, train, Selection(nearest=0.5), condition="class")
    assert all(one.reasons[0].rule == "training image" for one in found.decisions[:12])
    assert sum(one.kept for one in found.decisions[12:]) >= 26
    assert found.decisions[0].distance == pytest.approx(0, abs=1e-3)
    assert all(one.distance is not None and one.distance > 0.05 for one in found.decisions[12:])


def test_near_copies_among_training_images_hide_no_copies():
    """Twins in the training set bring low quantiles of its distances to 0; the median stays."""
    twins = torch.cat([TRAIN.x, TRAIN.x[:9] + 0.001])
    names = [*TRAIN.names, *(f"twin{number}" for number in range(9))]
    train = ImageSet(twins, names, names)
    x = MADE.x.clone()
    x[:5] = (TRAIN.x[20:25] + 0.03).clamp(-1, 1)
    found = select(a_set(x, "s"), train, Selection(nearest=0.5))
    assert [one.kept for one in found.decisions[:5]] == [False] * 5


def test_of_repeated_images_the_best_stays():
    x = MADE.x.clone()
    x[[3, 9, 20]] = x[[3]] + torch.tensor([0.0, 0.002, 0.001])[:, None, None, None]
    scores = np.zeros(40)
    scores[9] = 1
    made = a_set(x, "s")
    kept = {
        name for name, why in reasons(select(made, TRAIN, Selection(nearest=0.3), scores=scores)).items() if not why
    }
    assert kept & {"s3", "s9", "s20"} == {"s9"}
    found = select(made, TRAIN, Selection(nearest=0.3))
    assert reasons(found)["s3"] == []
    assert reasons(found)["s9"] == reasons(found)["s20"] == ["repeat"]
    assert "to s3, not above" in found.decisions[9].reasons[0].told


def test_k_centres_cover_within_twice_the_best_radius():
    """Against all choices of three of twelve points: greedy is at most twice as far (Gonzalez 1985)."""
    from itertools import combinations

    from medgan.augment.select import _centres

    for seed in range(20):
        points = np.random.default_rng(seed).normal(size=(12, 2))
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)
        chosen = _centres(distances, 3)
        best = min(distances[:, list(three)].min(axis=1).max() for three in combinations(range(12), 3))
        assert len(set(chosen)) == 3
        assert distances[:, chosen].min(axis=1).max() <= 2 * best
        assert chosen[0] == distances.mean(axis=1).argmin()


def test_the_most_different_of_each_class_stay():
    base = images(4, 5)
    x = torch.cat([base[[number // 2 % 4]] + 0.001 * number for number in range(16)])  # eight twins in each class
    found = select(a_set(x, "s"), TRAIN, Selection(per_class=4), condition="class")
    kept = [place for place, one in enumerate(found.decisions) if one.kept]
    assert found.bias.classes == {"a": (8, 4), "b": (8, 4)}
    assert Counter(place % 2 for place in kept) == {0: 4, 1: 4}
    for side in (0, 1):
        assert {place // 2 % 4 for place in kept if place % 2 == side} == {0, 1, 2, 3}
    assert {one.reasons[0].told for one in found.decisions if not one.kept} == {
        "not among the 4 most different of a", "not among the 4 most different of b",
    }  # fmt: skip


def test_equal_images_can_all_be_centres():
    same = a_set(MADE.x[:1].repeat(6, 1, 1, 1), "s")
    assert len(select(same, TRAIN, Selection(per_class=3), condition="class").images) == 6
    assert len(select(same, TRAIN, Selection(per_class=2), condition="class").images) == 4


def test_reasons_add_up():
    x = MADE.x.clone()
    x[0] += 5
    found = select(a_set(x, "s"), TRAIN, Selection(lowest_scores=0.1, margin=1.0), scores=np.arange(40.0))
    assert {reason.rule for reason in found.decisions[0].reasons} == {"score", "limits"}


@settings(max_examples=15, deadline=None)
@given(
    lowest=st.sampled_from([0.0, 0.2, 0.5]),
    margin=st.sampled_from([None, 0.0, 0.3]),
    nearest=st.sampled_from([None, 0.2, 0.6]),
    per_class=st.sampled_from([None, 1, 5]),
)
def test_every_image_is_kept_or_has_a_reason(lowest, margin, nearest, per_class):
    rules = Selection(lowest_scores=lowest, margin=margin, nearest=nearest, per_class=per_class)
    scores = np.random.default_rng(0).normal(size=40)
    found = select(MADE, TRAIN, rules, condition="class", scores=scores)
    assert [one.name for one in found.decisions] == list(MADE.names)
    assert list(found.images.names) == [one.name for one in found.decisions if one.kept]
    assert found.bias.before.num_images == 40
    assert found.bias.after.num_images == found.bias.by_chance.num_images == len(found.images)
    counts = Counter(one.label for one in found.decisions if one.kept)
    assert {label: after for label, (_, after) in found.bias.classes.items()} == counts
    again = select(MADE, TRAIN, rules, condition="class", scores=scores)
    assert (again.decisions, again.bias) == (found.decisions, found.bias)
    json.dumps([one.to_json() for one in found.decisions] + [found.bias.to_json()])


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_choosing_one_corner_costs_coverage_that_chance_does_not():
    """All images on the dark side go: coverage and recall fall by more than by losing as many at random."""
    brightness = torch.linspace(-0.6, 0.6, 80)[:, None, None, None]
    made = a_set((images(80, 1) * 0.4 + brightness).clamp(-1, 1), "s")
    held = a_set((images(80, 2) * 0.4 + brightness).clamp(-1, 1), "h")
    train = a_set((images(80, 3) * 0.4 + brightness).clamp(-1, 1), "t")
    scores = made.x.mean(dim=(1, 2, 3)).numpy()
    bias = select(made, train, Selection(lowest_scores=0.6), held_out=held, scores=scores).bias
    assert bias.real == "held-out"
    assert bias.after.coverage < bias.by_chance.coverage - 0.15 < bias.before.coverage
    assert bias.after.recall < bias.by_chance.recall - 0.15


def test_coverage_and_recall_are_shares_of_real_images():
    """Against slow loops over the same features."""
    kept = np.arange(40) % 3 != 0
    bias = bias_of(RandomConv(), TRAIN, MADE, [""] * 40, kept=kept, held_out=HELD)
    learnt = RandomConv()(TRAIN.x)
    reduce = Reduction.fit(learnt, 32)
    real, made = reduce(RandomConv()(HELD.x)), reduce(RandomConv()(MADE.x))[kept]

    def radius(rows: np.ndarray, place: int) -> float:
        return float(sorted(np.linalg.norm(rows - rows[place], axis=1))[5])

    covered = [np.linalg.norm(made - one, axis=1).min() <= radius(real, place) for place, one in enumerate(real)]
    recalled = [
        any(np.linalg.norm(one - made[place]) <= radius(made, place) for place in range(len(made))) for one in real
    ]
    assert bias.after.coverage == pytest.approx(np.mean(covered))
    assert bias.after.recall == pytest.approx(np.mean(recalled))
    assert (bias.after.num_images, bias.before.num_images) == (26, 40)


def test_too_few_images_have_no_variety():
    found = select(MADE, TRAIN, Selection(per_class=2), condition="class")
    assert found.bias.real == "training"
    assert (found.bias.after.coverage, found.bias.by_chance.recall) == (None, None)
    assert found.bias.before.coverage is not None


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_class_does_not_vanish_unless_told():
    scores = np.where(np.array(MADE.conditions["class"]) == "a", 0.1, 0.9)
    probabilities = {"a": scores, "b": scores}
    rules: dict[str, Any] = {"min_confidence": 0.5}
    with pytest.raises(
        InputError, match=r"no image of a is left of 20 \(dropped for confidence 20\); loosen these rules, or"
    ):
        select(MADE, TRAIN, Selection(**rules), condition="class", probabilities=probabilities)
    told = select(MADE, TRAIN, Selection(**rules, may_vanish=True), condition="class", probabilities=probabilities)
    assert told.bias.classes == {"a": (20, 0), "b": (20, 20)}
    none = {"a": scores * 0, "b": scores * 0}
    with pytest.raises(InputError, match="no image is left of 40; loosen the rules"):
        select(MADE, TRAIN, Selection(**rules, may_vanish=True), condition="class", probabilities=none)


@pytest.mark.parametrize(
    ("rules", "more", "why"),
    [
        ({"lowest_scores": 0.1}, {}, "lowest_scores goes by critic scores, and none are given"),
        ({"lowest_scores": 0.1}, {"scores": [1.0]}, r"critic scores of shape \(1,\); give one finite number"),
        ({"lowest_scores": 0.1}, {"scores": [np.nan] * 40}, "one finite number"),
        ({"min_confidence": 0.5}, {}, "min_confidence goes by a classifier's probabilities"),
        ({"min_confidence": 0.5}, {"probabilities": {"a": [1.0] * 40}}, "tells a, but images are of ''; name the"),
        ({}, {"condition": "age"}, r"knows no condition 'age' \(seen: class\)"),
        ({}, {"held_out": a_set(images(9, 0, side=12), "h")}, r"differ in channels or size: .*held-out \(1, 12, 12\)"),
    ],
)  # fmt: skip
def test_what_a_rule_lacks_is_named(rules, more, why):
    with pytest.raises(InputError, match=why):
        select(MADE, TRAIN, Selection(**rules), **more)


def test_limits_and_distances_need_enough_to_learn_from():
    with pytest.raises(InputError, match="learnt from 20 training images or more; seen 5"):
        select(MADE, TRAIN.take(range(5)), Selection(margin=0.1))
    alone = ImageSet(TRAIN.x, TRAIN.names, ["p"] * 60)
    with pytest.raises(InputError, match="all of one patient"):
        select(MADE, alone, Selection(nearest=0.5))
    with pytest.raises(InputError, match="40 synthetic and 0 training images"):
        select(MADE, TRAIN.take([]), Selection())


@pytest.mark.parametrize(
    "wrong",
    [{"lowest_scores": 1}, {"min_confidence": 2}, {"margin": -1}, {"nearest": 0}, {"per_class": 0}, {"quantile": 0.1}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Selection.parse(wrong)


# --- real images ------------------------------------------------------------------------------------------------------


@needs_shared
def test_real_images_pass_and_copies_of_them_do_not(shared):
    with np.load(shared / "pneumoniamnist_train_val.npz") as arrays:
        x = torch.from_numpy(arrays["train_images"][:450].astype(np.float32) / 127.5 - 1)[:, None]
        labels = [str(label) for label in arrays["train_labels"][:450].ravel()]
    names = [f"x{number}" for number in range(450)]
    real = ImageSet(x, names, names, {"class": labels})
    train, honest = real.take(range(300)), real.take(range(300, 450))
    rules = Selection(margin=0.25, nearest=0.5)
    passed = select(honest, train, rules, condition="class")
    assert len(passed.images) >= 140
    draw = torch.Generator().manual_seed(0)
    noisy = (train.x[:150] + 0.02 * torch.randn(150, 1, 28, 28, generator=draw)).clamp(-1, 1)
    copies = ImageSet(noisy, honest.names, honest.patients, train.take(range(150)).conditions)
    with pytest.raises(InputError, match="dropped for training image"):
        select(copies, train, rules)
