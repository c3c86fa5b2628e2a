"""Weights of voxels: by tissue and body, from the config into the losses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_neighbours import PLAIN, pair_of

from medgan.config import load
from medgan.data import Augment, Pair, Patches, Region, Weights
from medgan.errors import ConfigError
from medgan.prep import Intensity
from medgan.train import train

CT = Intensity(modality="CT", unit="HU", range=(-1000, 3000))
BONE, FAT = Region(range=(300, 3000), weight=4), Region(range=(-150, -30), weight=0.5)


def in_hu(*values: float) -> torch.Tensor:
    """As the network sees them."""
    return (torch.tensor(values) + 1000) / 2000 - 1


def test_tissues_count_by_their_values() -> None:
    b = in_hu(-1000, -151, -150, -100, -30, 0, 299, 300, 1500, 3000)
    weights = Weights(regions=(BONE, FAT)).of(b, torch.ones(10), CT)
    assert weights.tolist() == [1, 1, 0.5, 0.5, 0.5, 1, 1, 4, 4, 4]


def test_the_later_region_counts() -> None:
    everything = Region(range=(-1000, 3000), weight=2)
    assert Weights(regions=(everything, BONE)).of(in_hu(0, 500), torch.ones(2), CT).tolist() == [2, 4]
    assert Weights(regions=(BONE, everything)).of(in_hu(0, 500), torch.ones(2), CT).tolist() == [2, 2]


def test_outside_the_body_nothing_counts_if_asked() -> None:
    body = torch.tensor([1.0, 0.6, 0.4, 0.0])
    assert Weights(body_only=True, regions=(BONE,)).of(in_hu(500, 0, 500, 0), body, CT).tolist() == [4, 1, 0, 0]
    assert Weights(regions=(BONE,)).of(in_hu(500, 0, 500, 0), body, CT).tolist() == [4, 1, 4, 1]


def test_units_of_mr_targets() -> None:
    """`normalised`: 1000 is the median of the foreground."""
    mr = Intensity(modality="MR", times_median=(0, 2))
    bright = Weights(regions=(Region(range=(1500, 2000), weight=3),))
    assert bright.of(torch.tensor([-1.0, 0.0, 0.4, 0.6, 1.0]), torch.ones(5), mr).tolist() == [1, 1, 1, 3, 3]


@pytest.fixture
def half() -> Pair:
    """The target's values are its body's: 1 in it, -1 outside, so that one can be told from the other."""
    body = np.zeros((24, 24, 24), dtype=bool)
    body[:12] = True
    signed = torch.from_numpy(body)[None] * 2.0 - 1
    return replace(pair_of(signed), body=body)


@pytest.mark.parametrize("patch", [(10, 10, 1), (10, 10, 6)])
@pytest.mark.parametrize("augment", [PLAIN, Augment(rotate_deg=20, scale=0.1, gamma=0, noise=0)])
def test_the_body_moves_with_the_images(half: Pair, patch: tuple[int, int, int], augment: Augment) -> None:
    patches = Patches([half], patch, augment, seed=0, weigh=lambda _, body: body)
    for item in (patches[k] for k in range(20)):
        torch.testing.assert_close(item["mask"], (item["b"] + 1) / 2, rtol=0, atol=1e-6)


def test_weights_change_no_patch(half: Pair) -> None:
    plain, weighed = (Patches([half], (10, 10, 1), Augment(), seed=2, weigh=w) for w in (None, lambda b, _: b))
    for k in range(5):
        assert "mask" not in plain[k]
        assert all(torch.equal(plain[k][role], weighed[k][role]) for role in "ab")


def test_they_reach_the_losses(tiny_cohort: Path, tmp_path: Path) -> None:
    """Where no voxel counts the L1 loss is nothing; where all count alike it is as without weights."""
    seen = {}
    for name, override in {
        "none": [],
        "equal": ["weights.regions=[{range: [-9999, 9999], weight: 7}]"],
        "no voxel": ["weights.regions=[{range: [-9999, 9999], weight: 0}, {range: [987.001, 987.002], weight: 1}]"],
        "body": ["weights.body_only=true"],
    }.items():
        run = train(tiny_cohort / "tiny.yaml", ["train.steps=1", *override], out=tmp_path / name, device="cpu")
        seen[name] = run.metrics()[0]["loss"]["G_L1"]
    assert seen["equal"] == pytest.approx(seen["none"], rel=1e-5)
    assert seen["no voxel"] == 0
    assert 0 < seen["body"] != pytest.approx(seen["none"], rel=1e-3)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["weights.regions=[{range: [300, 300], weight: 1}]"], r"weights\.regions\.0: the lower end 300 must be below"),
        (["weights.regions=[{range: [0, 300], weight: -1}]"], r"weights\.regions\.0\.weight: .*greater than or equal"),
        (["weights.regions=[{range: [0, 300]}]"], r"weights\.regions\.0\.weight: missing"),
        (["weights.body=true"], r"weights\.body: unknown key \(accepted here: body_only, regions\)"),
        (
            ["weights.body_only=true", "model={name: cyclegan}", "augment.gamma=0", "augment.noise=0"],
            r"weights: cyclegan compares nothing with a target",
        ),
    ],
)
def test_what_cannot_be_weighed_is_refused(tiny_cohort: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(tiny_cohort / "tiny.yaml", overrides)
