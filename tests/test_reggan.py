"""pix2pix of pairs that lie apart: the bending, the net that finds it, and what the players see of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from resuming import assert_translates, killed_and_whole, state
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter, map_coordinates, shift
from test_models import (
    assert_bfloat16_stays_finite,
    assert_channels_last_trains_alike,
    assert_gradients_stay,
    exact,
    new_adams,
    small_batch,
    step,
)

from medgan import write
from medgan.cases import Case, write_cases
from medgan.errors import ConfigError
from medgan.losses import roughness
from medgan.models import Batch, Pix2pix, Pix2pixSettings
from medgan.nets.registration import RegistrationNet, warp
from medgan.phantom import head, patient_grid
from medgan.train import train

SMALL: dict[str, dict[str, Any]] = {
    "generator": {"name": "unet_32", "width": 4, "dropout": False},
    "discriminator": {"name": "n_layers", "num_layers": 1, "width": 4},
    "registration": {"width": 4},
}
DIMS = pytest.mark.parametrize("spatial_dims", [2, 3])


def registered(spatial_dims: int = 2, **values: Any) -> Pix2pix:
    torch.manual_seed(0)
    settings = Pix2pixSettings.parse(SMALL | values)
    return settings.build(in_channels=1, out_channels=1, spatial_dims=spatial_dims)


def awake(game: Pix2pix) -> Pix2pix:
    """With displacements of about a voxel."""
    torch.nn.init.normal_(game.helpers["registration"].head.weight, std=0.1)  # type: ignore[union-attr,arg-type]
    return game


def bent(x: np.ndarray[Any, Any], displacement: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same by scipy: one sample, one channel."""
    return map_coordinates(x, np.indices(x.shape) + displacement, order=1, mode="nearest")


# --- the bending ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 14), (8, 7, 11), (5, 1), (6, 1, 3)])
def test_bending_is_that_of_scipy(shape: tuple[int, ...]) -> None:
    """Also where it reaches beyond the edge, for several samples and channels, on axes of one voxel."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, *shape))
    displacement = rng.uniform(-6, 6, (2, len(shape), *shape))
    seen = warp(torch.tensor(x), torch.tensor(displacement)).numpy()
    for sample in range(2):
        for channel in range(3):
            expected = bent(x[sample, channel], displacement[sample])
            np.testing.assert_allclose(seen[sample, channel], expected, rtol=0, atol=1e-12)


@DIMS
def test_no_displacement_changes_nothing(spatial_dims: int) -> None:
    x = torch.randn(2, 2, *[13] * spatial_dims)
    torch.testing.assert_close(warp(x, torch.zeros(2, spatial_dims, *x.shape[2:])), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_displacement_says_where_a_voxel_comes_from(axis: int) -> None:
    x, displacement = torch.randn(1, 1, 6, 7, 8), torch.zeros(1, 3, 6, 7, 8)
    displacement[:, axis] = 2
    seen = warp(x, displacement).movedim(2 + axis, 0)
    torch.testing.assert_close(seen[:-2], x.movedim(2 + axis, 0)[2:], rtol=0, atol=1e-5)


def test_bending_keeps_single_precision_under_bfloat16() -> None:
    x, displacement = torch.randn(1, 1, 200, 50), torch.rand(1, 2, 200, 50)
    expected = warp(x, displacement)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(warp(x, displacement), expected)
        assert warp(x.bfloat16(), displacement.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("shape", [(8, 5), (5, 6, 7)])
def test_roughness_is_that_of_numpy(shape: tuple[int, ...]) -> None:
    field = np.random.default_rng(0).normal(size=(2, len(shape), *shape))
    expected = sum((np.diff(field, axis=2 + axis) ** 2).mean() for axis in range(len(shape)))
    assert float(roughness(torch.tensor(field))) == pytest.approx(expected, rel=1e-12)
    assert float(roughness(torch.full((1, len(shape), *shape), 7.0))) == 0


# --- the net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (33, 7), (1, 5), (16, 9, 3)])
def test_the_net_takes_any_size_and_starts_with_no_displacement(size: tuple[int, ...]) -> None:
    net = RegistrationNet(3, len(size), width=2)
    field = net(torch.randn(2, 1, *size), torch.randn(2, 2, *size))
    assert field.shape == (2, len(size), *size)
    assert not field.any()


@DIMS
def test_it_learns_how_far_an_image_has_moved(spatial_dims: int) -> None:
    """Smooth noise, moved by a few voxels: inside, the displacement is the one that was made."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    side, true = (40, (3, -2)) if spatial_dims == 2 else (16, (2, -1, 1))
    noise = gaussian_filter(rng.normal(size=[side + 8] * spatial_dims), 2)
    whole = torch.tensor(noise / noise.std() / 2, dtype=torch.float32)
    there = tuple(slice(4, 4 + side) for _ in true)
    moved = tuple(slice(4 + d, 4 + d + side) for d in true)
    moving, fixed = whole[there][None, None], whole[moved][None, None]  # fixed(p) = moving(p + true)
    net = RegistrationNet(2, spatial_dims, width=8 if spatial_dims == 2 else 4)
    adam = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(60):
        field = net(moving, fixed)
        loss = (warp(moving, field) - fixed).abs().mean() + 0.5 * roughness(field)
        adam.zero_grad()
        loss.backward()
        adam.step()
    inner = field.detach()[(0, slice(None), *[slice(5, -5)] * spatial_dims)].flatten(1).mean(1)
    assert inner.tolist() == pytest.approx(true, abs=0.35)


# --- the game ---------------------------------------------------------------------------------------------------------


@DIMS
def test_losses_are_those_of_the_bent_fake(spatial_dims: int) -> None:
    game = awake(registered(spatial_dims, lambda_l1=20.0)).double()
    batch = exact(small_batch(spatial_dims))
    _, b = batch.pair()
    mask = (torch.rand_like(b) > 0.4).double()
    fake = torch.rand_like(b) * 2 - 1
    with torch.no_grad():
        field = game.helpers["registration"](fake, b).numpy()
        losses = game.generator_losses(Batch(batch.a, b, mask), {"b": fake})
    assert np.abs(field).max() > 0.2
    error = [np.abs(bent(fake[n, 0].numpy(), field[n]) - b[n, 0].numpy()) * mask[n, 0].numpy() for n in range(2)]
    smooth = sum((np.diff(field, axis=2 + axis) ** 2).mean() for axis in range(spatial_dims))
    assert losses.keys() == {"G_GAN", "G_correction", "G_smooth"}
    assert float(losses["G_correction"]) == pytest.approx(20 * np.sum(error) / float(mask.sum()), rel=1e-10)
    assert float(losses["G_smooth"]) == pytest.approx(10 * smooth, rel=1e-12)  # 10 against 20, as published


def test_at_the_start_the_fake_is_compared_as_it_is() -> None:
    game, batch = registered(), small_batch()
    fakes = game.generate(batch)
    losses, (_, b) = game.generator_losses(batch, fakes), batch.pair()
    expected = 100 * float((fakes["b"] - b).abs().mean().detach())
    assert float(losses["G_correction"].detach()) == pytest.approx(expected, rel=1e-5)
    assert float(losses["G_smooth"].detach()) == 0


def test_the_discriminator_sees_no_source() -> None:
    """Next to the source it would know true pairs by their lying apart."""
    game, batch = registered(), small_batch()
    a, b = batch.pair()
    assert game.discriminators["b"].body[0].in_channels == 1  # type: ignore[index,union-attr]
    assert torch.equal(game.verdicts(a, b)[0], game.verdicts(-a, b)[0])
    fakes = game.generate(batch)
    one = game.discriminator_losses(batch, fakes)
    other = game.discriminator_losses(Batch(a.flip(2), b), fakes)
    assert {name: float(x.detach()) for name, x in one.items()} == {n: float(x.detach()) for n, x in other.items()}


@DIMS
def test_the_net_learns_with_the_generator_and_stays_with_it(spatial_dims: int) -> None:
    assert_gradients_stay(lambda: awake(registered(spatial_dims)), small_batch(spatial_dims))
    game = registered(spatial_dims)
    owned = [id(p) for player in game.order for p in game.nets(player).parameters()]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in game.parameters()}


def test_a_saved_game_plays_on_alike() -> None:
    game, batch = registered(), small_batch()
    step(game, batch, new_adams(game))
    other = registered()
    other.load_state_dict(game.state_dict())
    assert step(other, batch, new_adams(other)) == step(game, batch, new_adams(game))


@DIMS
def test_channels_last_and_bfloat16_train_alike(spatial_dims: int) -> None:
    narrow = {"generator": SMALL["generator"] | {"width": 2}, "registration": {"width": 2}}
    assert_channels_last_trains_alike(
        lambda: awake(registered(spatial_dims, **narrow)), small_batch(spatial_dims, samples=1)
    )
    assert_bfloat16_stays_finite(awake(registered(spatial_dims, **narrow)), small_batch(spatial_dims, samples=1))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"registration": {}, "lambda_l1": 0}, r"registration learns from the L1 loss, and lambda_l1 is 0"),
        ({"registration": {}, "lambda_feature": 10}, r"lambda_feature compares fake and target place by place"),
        ({"registration": {"lambda_smooth": 0}}, r"model\.registration\.lambda_smooth: .*greater than 0"),
        ({"registration": {"smooth": 1}}, r"model\.registration\.smooth: unknown key .*lambda_smooth, width"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Pix2pixSettings.parse(values, "model")


@pytest.mark.parametrize("patch", ["[16, 16, 1]", "[16, 16, 8]"])
def test_it_trains_resumes_and_translates(patch: str, tiny_cohort: Path, tmp_path: Path) -> None:
    overrides = ["model.registration={width: 2}", f"patch={patch}", "train.steps=3", "train.validate_every=3"]
    overrides += ["train.checkpoint_every=2", "train.lr=0.01"]
    _, whole = killed_and_whole(tiny_cohort / "tiny.yaml", overrides, tmp_path, kills=[3])
    saved: Any = state(whole.path)
    assert saved["game"]["helpers.registration.head.weight"].any()
    assert whole.metrics()[0]["loss"].keys() == {"D_fake", "D_real", "G_GAN", "G_correction", "G_smooth"}
    assert {name.split(".")[0] for name in load_file(whole.weights_path)} == {"b"}
    assert not any(name.startswith("helpers.") for name in saved["shadow"])
    assert_translates(whole, tiny_cohort, tmp_path / "o.nii.gz")


# --- what it is for ---------------------------------------------------------------------------------------------------


LOOSE = """
cases: cases.csv
prep:
  a: {modality: MR, times_median: [0, 2.5]}
  b: {modality: CT, unit: HU, range: [-1024, 1600]}
patch: [48, 48, 1]
model:
  name: pix2pix
  generator: {name: resnet_6blocks, width: 8, norm: batch, dropout: false}
  discriminator: {name: n_layers, num_layers: 2, width: 8}
  gan: lsgan
train: {steps: 400, batch: 4, lr: 0.001, ema: 0.98, validate_every: 400}
overlap: 0
"""


def loose_cohort(folder: Path) -> Path:
    """Sixteen phantoms, the CT of the training ones moved by up to 3 voxels along both axes of a slice."""
    cases = []
    for number in range(1, 17):
        phantom, rng = head(number, grid=patient_grid(0, number, size=48)), np.random.default_rng(number)
        split, moved = ("val" if number == 16 else "train"), phantom.ct.array.astype(np.float32)
        if split == "train":
            moved = shift(moved, (*rng.uniform(-3, 3, 2), 0), order=1, mode="nearest")
        images = {"a": folder / f"{number}_mr.nii.gz", "b": folder / f"{number}_ct.nii.gz"}
        write(phantom.mr, images["a"])
        write(phantom.ct.with_array(moved), images["b"])
        cases.append(Case(f"p{number}", f"p{number}", split, images))
    (folder / "loose.yaml").write_text(LOOSE)
    write_cases(cases, folder / "cases.csv")
    return folder / "loose.yaml"


@pytest.mark.slow
def test_pairs_that_lie_apart_teach_more_with_registration(tmp_path: Path) -> None:
    """As many steps, scored by a patient whose images lie on one another."""
    config = loose_cohort(tmp_path)
    plain = train(config, out=tmp_path / "plain", device="cpu")
    bent = train(config, ["model.registration={width: 8}"], out=tmp_path / "bent", device="cpu")
    errors = [run.best["mae"] for run in (plain, bent)]
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[1] < 0.85 * errors[0]
