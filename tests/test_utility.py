"""Utility: what each arm trains on, what is refused, going on with a study, and verdicts where the truth is known."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medgan.augment.arms import ARMS, Job, training_set
from medgan.augment.classic import Classic
from medgan.augment.statistics import Difference
from medgan.augment.tasks import Classification, Segmentation, Task, fit, fit_and_score, outcomes
from medgan.augment.utility import UtilitySettings, utility
from medgan.augment.verdict import Cell, headline, verdicts
from medgan.errors import ConfigError, InputError, OutputError, TrainingError
from medgan.imageset import ImageSet
from medgan.phantom import factor_images

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of a user's own net
PLAIN = ("real", "real+duplicates", "real+synthetic")


def faint(num: int, seed: int, size: int = 16) -> ImageSet:
    """Lesions that 20 images do not suffice to learn."""
    return factor_images(num, size=size, seed=seed, contrast=(0.2, 0.5), texture=0.1)


@pytest.fixture(scope="module")
def tiny_net(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user's own net, as TorchScript."""
    torch.manual_seed(0)
    first = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    path = tmp_path_factory.mktemp("net") / "tiny.pt"
    torch.jit.script(nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(256, 2))).save(path)
    return str(path)


@pytest.fixture(scope="module")
def sets() -> dict[str, ImageSet]:
    return {"train": faint(20, 0), "synthetic": faint(240, 1), "test": faint(300, 2)}


def shuffled(images: ImageSet) -> ImageSet:
    labels = np.random.default_rng(0).permutation(images.conditions["class"]).tolist()
    return replace(images, conditions={"class": labels})


def copies(images: ImageSet, num: int) -> ImageSet:
    """Synthetic images which are training images."""
    places = [place % len(images) for place in range(num)]
    names = [f"SYN-{number}" for number in range(num)]
    labels = [images.conditions["class"][place] for place in places]
    return ImageSet(images.x[places], names, names, {"class": labels})


# Verdicts where the truth is known


def test_fresh_images_help(sets: dict[str, ImageSet], tiny_net: str) -> None:
    settings = UtilitySettings(task=Classification(net=tiny_net, lr=0.003), arms=PLAIN, ratios=(12,), steps=120)
    found = utility(**sets, settings=settings)
    assert found.verdict == "helps", found.reason
    means = {one.cell.arm: one.mean["auc"] for one in found.arms}
    assert means["real+synthetic"] > max(means["real"], means["real+duplicates"]) + 0.05


def test_wrong_labels_harm(sets: dict[str, ImageSet], tiny_net: str) -> None:
    train = factor_images(60, size=16, seed=0)
    test = factor_images(150, size=16, seed=2)
    synthetic = shuffled(factor_images(250, size=16, seed=1))
    task = Classification(net=tiny_net, lr=0.003)
    settings = UtilitySettings(task=task, arms=(*PLAIN, "synthetic"), ratios=(4,), steps=60)
    found = utility(train, synthetic, test, settings)
    assert found.verdict == "harms", found.reason
    alone = next(one for one in found.arms if one.cell.arm == "synthetic")
    assert alone.mean["auc"] == pytest.approx(0.5, abs=0.15)


def test_copies_of_the_training_images_are_no_evidence(sets: dict[str, ImageSet], tiny_net: str) -> None:
    settings = UtilitySettings(task=Classification(net=tiny_net, lr=0.003), arms=PLAIN, ratios=(8,), steps=60)
    found = utility(sets["train"], copies(sets["train"], 160), sets["test"], settings)
    assert found.verdict == "no evidence", found.reason
    against_copies = found.verdicts[0].controls["real+duplicates"]
    assert against_copies.low < 0 < against_copies.high


# What each arm trains on


def made(arm: str, ratio: float | None = None, fraction: float | None = 1.0, seed: int = 0) -> ImageSet:
    train, synthetic = factor_images(30, size=12, seed=0, lesion_share=0.3), factor_images(80, size=12, seed=1)
    return training_set(Job(arm, ratio, fraction, seed), train, synthetic, Classification().settled(train))


def test_duplicates_are_real_images_of_the_kinds_that_the_synthetic_ones_have() -> None:
    added, again = made("real+synthetic", 2), made("real+duplicates", 2)
    assert len(added) == len(again) == 90
    assert Counter(added.conditions["class"]) == Counter(again.conditions["class"])
    assert torch.equal(added.x[:30], again.x[:30])
    real = {x.numpy().tobytes() for x in again.x[:30]}
    assert all(x.numpy().tobytes() in real for x in again.x)
    assert not any(x.numpy().tobytes() in real for x in added.x[30:])
    assert len({x.numpy().tobytes() for x in added.x[30:]}) == 60
    times = Counter(name.split()[-1] for name in again.names[30:])
    for label in ("healthy", "lesion"):
        own = [
            times[name]
            for name, kind in zip(again.names[:30], again.conditions["class"], strict=False)
            if kind == label
        ]
        assert max(own) - min(own) <= 1


def test_arms_of_a_seed_share_their_images_and_seeds_differ() -> None:
    assert torch.equal(made("real+synthetic", 0.5).x, made("real+classic+synthetic", 0.5).x)
    assert not torch.equal(made("real+synthetic", 0.5).x, made("real+synthetic", 0.5, seed=1).x)
    assert len(made("real+synthetic", 0.5)) == 45
    assert torch.equal(made("real").x, made("real+classic", seed=9).x)
    assert len(made("synthetic", fraction=None)) == 80
    assert len(made("TRTS", fraction=None)) == 30


def test_a_fraction_is_of_patients_of_every_kind_and_part_of_a_larger_one() -> None:
    small, large = made("real", fraction=0.2), made("real", fraction=0.5)
    assert set(small.patients) < set(large.patients) < set(made("real").patients)
    assert set(small.conditions["class"]) == {"healthy", "lesion"}
    everyone = made("real")
    for patient in small.patients:  # with all images
        assert list(small.patients).count(patient) == list(everyone.patients).count(patient)
    assert set(made("real", fraction=0.01).conditions["class"]) == {"healthy", "lesion"}
    assert set(made("real", fraction=0.2, seed=1).patients) != set(small.patients)


def test_every_cell_is_run_once_for_each_seed() -> None:
    jobs = UtilitySettings(ratios=(0.5, 2), fractions=(0.25, 1)).jobs()
    assert len(jobs) == len(set(jobs)) == 5 * (2 * (2 + 4 * 2) + 2)
    assert sum(job.ratio is not None for job in jobs) == 5 * 2 * 4 * 2


# The nets


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("net", ["densenet_small", "resnet_small"])
def test_a_classifier_learns_lesions(net: str, dims: int) -> None:
    train, test = (factor_images(80, size=16, spatial_dims=dims, seed=seed) for seed in (0, 1))
    task = Classification(net=net).settled(train)
    outcome = fit_and_score(task, train, test, steps=40, seed=0)
    assert outcome.shape == (80, 3)
    told = task.summary(outcome)
    assert told["auc"] > 0.8
    assert told["balanced_accuracy"] == pytest.approx((told["recall healthy"] + told["recall lesion"]) / 2)


@pytest.mark.parametrize("size", [(18, 25), (14, 12, 16)], ids=str)
def test_a_segmenter_finds_organs_of_any_size(size: tuple[int, ...]) -> None:
    """Better than the one mask that is best for all."""
    train, test = (factor_images(30, size=size, seed=seed, mask="organ") for seed in (0, 1))
    task = Segmentation(batch=8).settled(train)
    mean = task.parts(train)[1].mean(dim=0, keepdim=True)
    fixed = float(task.outcome((mean - 0.5).expand(30, *mean.shape[1:]), task.parts(test)[1])[:, 0].mean())
    outcome = fit_and_score(task, train, test, steps=80, seed=0, classic=Classic())
    assert outcome.shape == (30, 2)
    assert task.summary(outcome)["dice"] > fixed + 0.05


def test_the_dice_by_hand() -> None:
    truth = torch.zeros(3, 1, 2, 4)
    truth[0, 0, 0] = 1
    logits = torch.full((3, 1, 2, 4), -1.0)
    logits[0, 0, 0, :2] = logits[1, 0, 1, 1] = 1
    outcome = Segmentation().outcome(logits, truth).numpy()
    assert outcome[:, 0] == pytest.approx([2 * 2 / (2 + 4), 0, 1])
    assert outcome[:, 1].tolist() == [1, float(truth[1].any()), 0]
    told = Segmentation().summary(outcome)
    filled = outcome[:, 1] > 0
    assert told["dice_of_filled"] == pytest.approx(outcome[filled, 0].mean())
    assert told["left_empty"] == pytest.approx(outcome[~filled, 0].mean())
    assert Segmentation().score(outcome, np.array([[1.0, 1, 0], [0, 2, 6]])) == pytest.approx([1 / 3, 0.75])


def test_the_loss_weighs_classes_alike() -> None:
    images = ImageSet(torch.zeros(8, 1, 2, 2), "abcdefgh", "abcdefgh", {"class": ["b", *"aaaaaa", "b"]})
    task = Classification().settled(images)
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    places = torch.tensor([1, 0, 0, 0, 0, 0, 0, 1])
    expected = torch.nn.functional.cross_entropy(logits, places, weight=torch.tensor([8 / 12, 8 / 4]))
    assert task.loss(logits, task.parts(images)[1]) == pytest.approx(float(expected))


def test_training_repeats_to_the_bit_and_leaves_random_numbers_alone() -> None:
    train = faint(20, 0)
    task = Classification().settled(train)
    torch.manual_seed(5)
    first = torch.rand(3)
    torch.manual_seed(5)
    one = fit_and_score(task, train, train, steps=5, seed=3, classic=Classic())
    assert torch.equal(torch.rand(3), first)
    assert np.array_equal(one, fit_and_score(task, train, train, steps=5, seed=3, classic=Classic()))
    assert not np.array_equal(one, fit_and_score(task, train, train, steps=5, seed=4, classic=Classic()))


def test_a_users_net_starts_anew_each_time(tiny_net: str) -> None:
    train = faint(20, 0)
    task = Classification(net=tiny_net).settled(train)
    nets = [fit(task, train, steps=3, seed=0) for _ in range(2)]
    assert np.array_equal(*(outcomes(task, net, train) for net in nets))


# Classic augmentation


def test_classic_changes_turn_and_shift_as_they_say() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.arange(12.0).reshape(1, 1, 3, 4).repeat(64, 1, 1, 1)
    still = {"rotate_deg": 0, "scale": 0, "shift": 0}
    flipped = Classic(flip_axes=(1,), **still).changed(x, draw)
    mirrored = [torch.allclose(one, x[0].flip(2), atol=1e-4) for one in flipped]
    assert all(hit or torch.allclose(one, x[0], atol=1e-4) for hit, one in zip(mirrored, flipped, strict=True))
    assert 16 < sum(mirrored) < 48
    ramp = torch.arange(32.0).repeat(32, 1)[None, None].repeat(200, 1, 1, 1)  # value = place along the last axis
    shifted = Classic(flip_axes=(), rotate_deg=0, scale=0, shift=0.1).changed(ramp, draw)
    moves = shifted[:, 0, 16, 16] - 16
    assert moves.abs().max() <= 3.2 + 1e-3
    assert moves.std() == pytest.approx(3.2 / 3**0.5, rel=0.15)


def test_a_rotation_of_an_oblong_image_keeps_circles_round() -> None:
    x, y = np.indices((24, 48))
    disc = torch.tensor(((x - 11.5) ** 2 + (y - 23.5) ** 2 < 64).astype(np.float32))[None, None].repeat(20, 1, 1, 1)
    turned = Classic(flip_axes=(), rotate_deg=90, scale=0, shift=0).changed(disc, torch.Generator().manual_seed(0))
    assert (turned - disc).abs().mean() < 0.03
    bar = torch.zeros(40, 1, 33, 33)
    bar[:, :, 16, 4:29] = 1
    angles = []
    for one in Classic(flip_axes=(), rotate_deg=30, scale=0, shift=0).changed(bar, torch.Generator().manual_seed(1)):
        rows, columns = np.nonzero(one[0].numpy() > 0.5)
        angles.append(np.degrees(np.arctan(np.polyfit(columns, rows, 1)[0])))
    assert max(np.abs(angles)) <= 31
    assert np.std(angles) == pytest.approx(30 / 3**0.5, rel=0.3)


def test_masks_move_with_their_images() -> None:
    both = factor_images(6, size=(16, 20, 18), seed=0, mask="organ").x
    changed = Classic().changed(both, torch.Generator().manual_seed(0))
    inside = changed[:, :1][changed[:, 1:] > 0.9]
    assert inside.mean() > -0.4
    assert changed[:, :1][changed[:, 1:] < -0.9].mean() < -0.7


# Verdicts by rule


def told(means: dict[str, float], noise: float = 0.001, fraction: float = 1.0) -> dict[Cell, np.ndarray]:
    """Scores of 5 seeds and 200 draws around these means."""
    rng = np.random.default_rng(0)
    return {
        Cell(arm, 1.0 if ARMS[arm].added else None, fraction): mean + noise * rng.normal(size=(5, 201))
        for arm, mean in means.items()
    }


def words(scores: dict[Cell, np.ndarray]) -> list[str]:
    return [one.word for one in verdicts(scores, num_patients=50)]


def test_an_arm_must_beat_every_control_to_help() -> None:
    means = {"real": 0.7, "real+duplicates": 0.75, "real+synthetic": 0.8}
    assert words(told(means)) == ["helps"]
    assert words(told({**means, "real+duplicates": 0.85})) == ["no evidence"]
    assert words(told({**means, "real+classic": 0.85})) == ["no evidence"]
    assert words(told({**means, "real+synthetic": 0.65})) == ["harms"]
    assert words(told({**means, "real+synthetic": 0.65, "real": 0.6})) == ["no evidence"]
    assert words(told(means, noise=0.2)) == ["no evidence"]


def test_harm_is_told_against_the_plain_arm() -> None:
    means = {
        "real": 0.6, "real+duplicates": 0.6, "real+classic": 0.8, "real+classic+duplicates": 0.8,
        "real+synthetic": 0.65, "real+classic+synthetic": 0.75,
    }  # fmt: skip
    assert words(told(means)) == ["no evidence", "harms"]
    word, reason = headline(verdicts(told(means), num_patients=50), "auc")
    assert word == "harms"
    assert "against real+classic," in reason


def test_p_values_are_corrected_within_a_fraction() -> None:
    """Beside a cell that loses to its duplicates (p = 1) the smaller p is doubled; another fraction changes nothing."""
    means = {"real": 0.7, "real+duplicates": 0.7, "real+synthetic": 0.72}
    scores = told(means, noise=0.01)
    alone = verdicts(scores, num_patients=50)[0]
    worse = {"real+duplicates": 0.1, "real+synthetic": 0}
    other = {cell._replace(ratio=2.0): values + worse[cell.arm] for cell, values in scores.items() if cell.ratio}
    both = verdicts({**scores, **other}, num_patients=50)
    assert both[1].p_holm == 1
    assert both[0].p_holm == pytest.approx(2 * alone.p_holm)
    elsewhere = {cell._replace(fraction=0.5): values for cell, values in scores.items()}
    assert verdicts({**scores, **elsewhere}, num_patients=50)[1].p_holm == alone.p_holm
    assert alone.p_holm == max(difference.p for difference in alone.controls.values())


def test_the_headline_is_that_of_all_real_images() -> None:
    means = {"real": 0.7, "real+duplicates": 0.7, "real+synthetic": 0.8}
    scores = {**told(means, fraction=0.1), **told({**means, "real+synthetic": 0.7}, noise=0.05)}
    found = verdicts(scores, num_patients=50)
    assert [one.word for one in found] == ["helps", "no evidence"]
    assert headline(found, "auc")[0] == "no evidence"


# Going on


def test_a_study_goes_on_where_it_was_stopped(sets: dict[str, ImageSet], tiny_net: str, tmp_path: Path) -> None:
    settings = UtilitySettings(task=Classification(net=tiny_net), arms=PLAIN, ratios=(2,), steps=3)
    path = tmp_path / "rows.jsonl"
    whole = utility(**sets, settings=settings, rows=path).to_json()
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + 15
    path.write_text("\n".join(lines[:8]) + "\n" + lines[8][:40])  # killed while it wrote
    again = utility(**sets, settings=settings, rows=path).to_json()
    assert len(path.read_text().splitlines()) == 1 + 15
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    json.dumps(again, allow_nan=False)
    before = path.stat().st_size
    wider = settings.model_copy(update={"ratios": (2, 4), "seeds": 6})
    found = utility(**sets, settings=wider, rows=path)
    assert path.stat().st_size > before
    assert len(found.rows) == 6 * 5
    kept = {row.job: row for row in found.rows}
    first = json.loads(lines[1])
    row = kept[Job(first["arm"], first["ratio"], first["fraction"], first["seed"])]
    assert row.to_json()["outcome"] == first["outcome"]
    with pytest.raises(InputError, match="another study"):
        utility(**sets, settings=settings.model_copy(update={"steps": 4}), rows=path)
    with pytest.raises(InputError, match="another study"):
        utility(**{**sets, "synthetic": shuffled(sets["synthetic"])}, settings=settings, rows=path)


@pytest.mark.parametrize("content", ["hello\n", "[1]\n", '{"study": ', "\x00\n"])
def test_a_file_of_something_else_is_refused(content: str, sets: dict[str, ImageSet], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        utility(**sets, rows=path)
    assert path.read_text() == content


def test_a_place_that_cannot_be_written_is_told(sets: dict[str, ImageSet], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        utility(**sets, rows=tmp_path / "file" / "rows.jsonl")


# What is refused


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"arms": ["real", "real+synthetic"]}, "real.duplicates is missing"),
        ({"arms": ["real+duplicates", "real+synthetic"]}, "real is missing"),
        ({"arms": ["real", "synthetic"]}, "none adds synthetic"),
        ({"arms": ["real", "real"]}, "each once"),
        ({"arms": ["reel"]}, "'reel' is none of"),
        ({"ratios": [0]}, "above 0"),
        ({"ratios": []}, "one or more"),
        ({"fractions": [1, 2]}, "up to 1"),
        ({"fractions": [0.5]}, "1 itself"),
        ({"seeds": 3}, "seeds"),
        ({"classic": {"flip_axes": [3]}}, "flip_axes"),
        ({"arms": PLAIN, "classic": {"shift": 0.1}}, "no arm changes"),
        ({"task": {"name": "regression"}}, "regression"),
        ({"task": {"name": "segmentation", "condition": "class"}}, "condition"),
    ],
)
def test_settings_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        UtilitySettings.parse(wrong, "utility")


def relabelled(images: ImageSet, label: str) -> ImageSet:
    return replace(images, conditions={"class": [label] * len(images)})


def test_sets_are_refused(sets: dict[str, ImageSet]) -> None:
    train, synthetic, test = sets["train"], sets["synthetic"], sets["test"]
    same = synthetic.joined(replace(test.take([3]), names=["x"], patients=["SYN-1"]))
    cases: list[tuple[dict[str, ImageSet], str]] = [
        ({"test": train}, "patient F0-0000 is in the training images"),
        ({"synthetic": test}, "in the synthetic images and in the test set"),
        ({"synthetic": same}, "1 images of the test set are among the synthetic images as well"),
        ({"train": relabelled(train, "lesion")}, "all of the class 'lesion'"),
        ({"test": relabelled(test, "lesion")}, "0 patients of the class 'healthy'"),
        ({"test": relabelled(test, "cyst")}, "'cyst' is none of"),
        ({"synthetic": relabelled(synthetic, "lesion")}, "no image of the class 'healthy'"),
        ({"synthetic": replace(synthetic, conditions={})}, "'class' is no condition"),
        ({"synthetic": synthetic.take(range(9))}, "asks for 20 synthetic images"),
        ({"synthetic": faint(30, 1, size=20)}, r"\(1, 20, 20\)"),
        ({"test": test.take([])}, "has 0 images"),
        ({"train": replace(train, x=train.x * float("nan"))}, "not finite"),
    ]
    for wrong, said in cases:
        with pytest.raises(InputError, match=said):
            utility(**{**sets, **wrong})


def test_a_minority_class_alone_may_be_added(sets: dict[str, ImageSet], tiny_net: str) -> None:
    settings = UtilitySettings(task=Classification(net=tiny_net), arms=PLAIN, steps=2)
    lesions = sets["synthetic"].where([label == "lesion" for label in sets["synthetic"].conditions["class"]])
    assert len(utility(sets["train"], lesions, sets["test"], settings).rows) == 15


def test_nets_and_changes_are_refused(sets: dict[str, ImageSet], tiny_net: str, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no net")
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.ReLU())).save(tmp_path / "dull.pt")
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(256, 3))).save(tmp_path / "three.pt")
    cases: list[tuple[Task, str]] = [
        (Classification(net="resnet50"), "none of densenet_small, resnet_small"),
        (Classification(net=str(tmp_path)), "none of"),
        (Classification(net=str(tmp_path / "text.pt")), "is no TorchScript file"),
        (Classification(net=str(tmp_path / "dull.pt")), "no weights that can be trained"),
        (Classification(net=str(tmp_path / "three.pt")), r"makes \(3,\) of an image, and \(2,\)"),
    ]
    for task, said in cases:
        with pytest.raises(InputError, match=said):
            utility(**sets, settings=UtilitySettings(task=task))
    with pytest.raises(InputError, match=r"does not take images of \(1, 20, 20\)"):
        fit(Classification(net=tiny_net).settled(faint(4, 0)), faint(4, 0, size=20), steps=1, seed=0)
    with pytest.raises(InputError, match="2 is no axis of 2-D images"):
        utility(**sets, settings=UtilitySettings(classic=Classic(flip_axes=(0, 2))))
    with pytest.raises(InputError, match="one channel alone"):
        utility(**sets, settings=UtilitySettings(task=Segmentation()))


def test_a_training_that_diverges_says_so(sets: dict[str, ImageSet], tiny_net: str) -> None:
    settings = UtilitySettings(task=Classification(net=tiny_net, lr=1e30), arms=PLAIN, steps=5)
    with pytest.raises(TrainingError, match=r"task\.lr"):
        utility(**sets, settings=settings)


def test_segmentation_runs_the_whole_study() -> None:
    train, synthetic, test = (
        factor_images(num, size=16, seed=seed, mask="lesion") for seed, num in enumerate((12, 12, 30))
    )
    settings = UtilitySettings(task=Segmentation(), arms=(*PLAIN, "TRTS"), steps=3)
    found = utility(train, synthetic, test, settings)
    assert {one.cell.arm for one in found.arms} == {*PLAIN, "TRTS"}
    assert all(0 <= row.scores["dice"] <= 1 for row in found.rows)
    assert isinstance(found.against_real[0].difference, Difference)
    assert found.to_json()["metric"] == "dice"
