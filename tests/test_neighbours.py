"""2.5-D: a slice is seen among its neighbours, in the same order in training and in use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgan import Grid, Volume, read, translate
from medgan.config import load
from medgan.cost import estimate
from medgan.data import Augment, Pair, Patches, Size, UnpairedPatches
from medgan.errors import ConfigError
from medgan.sliding import predict
from medgan.train import train

PLAIN = Augment(flip_axes=(), rotate_deg=0, scale=0, gamma=0, noise=0)
FLAT: dict[int, Size] = {0: (1, 8, 8), 1: (8, 1, 8), 2: (8, 8, 1)}
every_axis = pytest.mark.parametrize("axis", [0, 1, 2])


def ramp(axis: int, length: int = 10) -> torch.Tensor:
    """(1, 10, 10, 10) whose value is the number of the slice, in tenths."""
    shape = [length if other == axis else 1 for other in range(3)]
    return (torch.arange(length) / length).reshape(1, *shape).expand(1, length, length, length).contiguous()


def pair_of(x: torch.Tensor) -> Pair:
    shape = tuple(x.shape[1:])
    volume, everywhere = Volume(np.zeros(shape), Grid.regular(shape)), np.ones(shape, dtype=bool)  # type: ignore[arg-type]
    return Pair("p", x, everywhere, volume, x, volume, everywhere)


@every_axis
def test_the_channels_are_the_slices_in_the_order_of_their_position(axis: int) -> None:
    patches = Patches([pair_of(ramp(axis))], FLAT[axis], PLAIN, seed=0, neighbours=2)
    for item in (patches[k] for k in range(30)):
        assert item["a"].shape == (5, 8, 8)
        assert item["b"].shape == (1, 8, 8)
        centre = round(float(item["b"].max()) * 10)
        numbers = [round(float(channel.max()) * 10) for channel in item["a"]]
        assert numbers == [n if 0 <= n < 10 else -10 for n in range(centre - 2, centre + 3)]


@every_axis
def test_in_use_they_are_the_same(axis: int) -> None:
    """A net that returns one of its channels moves the volume by as many slices; beyond the ends is background."""
    x = ramp(axis)
    for channel in range(5):
        y = predict(lambda window, c=channel: window[:, c : c + 1], x, patch=FLAT[axis], neighbours=2)  # type: ignore[misc]
        numbers = [round(float(y.select(axis + 1, n).max()) * 10) for n in range(10)]
        assert numbers == [n + channel - 2 if 0 <= n + channel - 2 < 10 else -10 for n in range(10)]


def test_without_neighbours_the_patches_are_those_of_before() -> None:
    noisy = replace(pair_of(ramp(2)), x=torch.rand(1, 10, 10, 10, generator=torch.Generator().manual_seed(0)))
    flat, deep = (Patches([noisy], (8, 8, 1), PLAIN, seed=3, neighbours=count) for count in (0, 1))
    for k in range(5):
        torch.testing.assert_close(flat[k]["a"], deep[k]["a"][1:2], rtol=0, atol=0)
        torch.testing.assert_close(flat[k]["b"], deep[k]["b"], rtol=0, atol=0)


def test_all_channels_move_alike() -> None:
    same = replace(pair_of(ramp(2, 30)), x=ramp(0, 30), b=ramp(0, 30))
    patches = Patches([same], (6, 6, 1), Augment(rotate_deg=20, scale=0.1, gamma=0, noise=0), seed=1, neighbours=1)
    inside = [item for item in (patches[k] for k in range(20)) if item["a"].min() > -1]
    assert len(inside) > 5
    for item in inside:
        assert all(torch.equal(channel, item["b"][0]) for channel in item["a"])


def test_a_run_sees_neighbours_from_training_to_translation(tiny_cohort: Path, tmp_path: Path) -> None:
    run = train(tiny_cohort / "tiny.yaml", ["neighbours=1", "train.steps=5"], out=tmp_path / "run", device="cpu")
    (first, *_) = run.translator().generators.parameters()
    assert first.shape[1] == 3
    translate(run.path, tiny_cohort / "p4_mr.nii.gz", tmp_path / "o.nii.gz", device="cpu")
    out, source = read(tmp_path / "o.nii.gz"), read(tiny_cohort / "p4_mr.nii.gz")
    assert out.grid.same_as(source.grid)
    assert out.unit == "HU"
    assert "neighbours: 1" in estimate(tiny_cohort / "tiny.yaml", ["neighbours=1"], device="cpu")


def numbers_of(image: torch.Tensor) -> list[int]:
    return [round(float(channel.max()) * 10) for channel in image]


@every_axis
def test_without_pairs_both_sides_come_with_their_neighbours(axis: int) -> None:
    scans = [pair_of(ramp(axis))]
    patches = UnpairedPatches(scans, scans, FLAT[axis], PLAIN, seed=0, neighbours=1)
    seen = [numbers_of(item[role]) for item in (patches[k] for k in range(30)) for role in ("a", "b")]
    assert {tuple(numbers) for numbers in seen} <= {
        tuple(n if 0 <= n < 10 else -10 for n in range(centre - 1, centre + 2)) for centre in range(10)
    }
    assert len({numbers[1] for numbers in seen}) > 5


@every_axis
def test_of_slices_that_are_made_along_the_middle_one_is_kept(axis: int) -> None:
    x = ramp(axis)
    assert torch.allclose(predict(lambda window: window, x, patch=FLAT[axis], neighbours=2, kept=2), x)


UNPAIRED = {
    "cyclegan": "model={name: cyclegan, generator: {name: resnet_6blocks, width: 2}, "
    "discriminator: {name: n_layers, num_layers: 1, width: 4}}",
    "cut": "model={name: cut, generator: {name: resnet_6blocks, width: 2}, "
    "discriminator: {name: n_layers, num_layers: 1, width: 4}, num_patches: 8}",
}


@pytest.mark.parametrize("name", UNPAIRED)
def test_a_run_without_pairs_makes_the_neighbours_along(name: str, tiny_cohort: Path, tmp_path: Path) -> None:
    """Scored and examined, and translated slice by slice, on the grid of the source."""
    overrides = [UNPAIRED[name], "neighbours=1", "augment.gamma=0", "augment.noise=0", "train.steps=4"]
    run = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / "run", device="cpu")
    nets = run.translator().generators
    assert nets["b"](torch.zeros(1, 3, 16, 16)).shape == (1, 3, 16, 16)
    assert run.best["mae"] is not None
    assert any("vitals" in line for line in run.metrics())
    both_ways = name == "cyclegan"
    (there,) = translate(
        run.path, tiny_cohort / "p4_mr.nii.gz", tmp_path / "ct.nii.gz", cycle=both_ways, vary="flips", samples=2
    )
    ct, source = read(there.path), read(tiny_cohort / "p4_mr.nii.gz")
    assert ct.grid.same_as(source.grid)
    assert (ct.unit, len(there.maps)) == ("HU", 1 + both_ways)
    if both_ways:
        (back,) = translate(run.path, tiny_cohort / "p4_ct.nii.gz", tmp_path / "mr.nii.gz", to="a", device="cpu")
        assert read(back.path).unit == "normalised"
    assert "neighbours: 1" in estimate(tiny_cohort / "tiny.yaml", overrides, device="cpu")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["patch=[16, 16, 4]"], r"neighbours: belongs to patches one voxel thick"),
        (["neighbours=-1"], r"neighbours: .*greater than or equal to 0"),
    ],
)
def test_what_has_no_neighbours_is_refused(tiny_cohort: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(tiny_cohort / "tiny.yaml", ["neighbours=1", *overrides])
