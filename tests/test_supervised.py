"""Supervised translation: its losses against independent numbers, its net, with and without a discriminator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import SSIMLoss
from skimage.metrics import structural_similarity
from test_models import new_adams, small_batch, step
from torch import nn

from medgan import nets, read, translate
from medgan.errors import ConfigError, InputError
from medgan.losses import gradient_difference, ssim_distance
from medgan.models import Batch, Supervised, SupervisedSettings
from medgan.train import train

SMALL = {"generator": {"width": 4}}
JUDGED = SMALL | {"discriminator": {"name": "n_layers", "num_layers": 1, "width": 4}}


def small(spatial_dims: int = 2, **values: Any) -> Supervised:
    torch.manual_seed(0)
    settings = SupervisedSettings.parse(SMALL | values)
    return settings.build(in_channels=1, out_channels=1, spatial_dims=spatial_dims)


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 25), (16, 14, 13)])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, ...]) -> None:
    """Over the windows that lie inside the image, as the reference computes them when told so."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, shape)
    y = np.clip(x + rng.normal(0, 0.3, shape), -1, 1)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
    _, whole = structural_similarity(x, y, data_range=2.0, full=True, **gaussian)
    inner = whole[tuple(slice(5, -5) for _ in shape)]
    ours = ssim_distance(torch.tensor(x)[None, None], torch.tensor(y)[None, None])
    assert float(ours) == pytest.approx(1 - inner.mean(), rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 26, 21), (2, 1, 15, 14, 12)])
def test_ssim_without_a_mask_is_that_of_monai(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.rand(shape) * 2 - 1
    y = (x + 0.3 * torch.randn(shape)).clamp(-1, 1)
    theirs = SSIMLoss(len(shape) - 2, data_range=2.0, win_size=11)(x, y)
    assert float(ssim_distance(x, y)) == pytest.approx(float(theirs), rel=1e-5)
    everywhere = torch.ones(shape[0], 1, *shape[2:])
    assert float(ssim_distance(x, y, everywhere)) == pytest.approx(float(ssim_distance(x, y)), rel=1e-6)


@pytest.mark.parametrize("shape", [(24, 19), (15, 13, 14)])
def test_ssim_by_tissue_weighs_each_window_by_its_middle(shape: tuple[int, ...]) -> None:
    """Against scikit-image's map of similarities, weighted by hand; two samples, of weights 0 to 4."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2, *shape))
    y = np.clip(x + rng.normal(0, 0.3, x.shape), -1, 1)
    weights = rng.integers(0, 5, x.shape).astype(float)
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
    inner = tuple(slice(5, -5) for _ in shape)
    total = 0.0
    for sample in range(2):
        _, whole = structural_similarity(x[sample], y[sample], data_range=2.0, full=True, **gaussian)
        total += ((1 - whole[inner]) * weights[sample][inner]).sum()
    expected = total / weights[(slice(None), *inner)].sum()
    ours = ssim_distance(*(torch.tensor(image)[:, None] for image in (x, y, weights)))
    assert float(ours) == pytest.approx(expected, rel=1e-9)


def test_ssim_of_no_tissue_is_nothing_and_others_do_not_count() -> None:
    x, y, mask = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    assert float(ssim_distance(x, y, mask)) == 0
    mask[..., :10, :] = 1  # windows about these voxels reach to the 15th
    changed = y.clone()
    changed[..., 15:, :] = 0
    assert float(ssim_distance(x, changed, mask)) == float(ssim_distance(x, y, mask)) > 0


def test_ssim_teaches_and_survives_bfloat16() -> None:
    x, y = torch.rand(2, 1, 24, 24), torch.rand(2, 1, 24, 24).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = ssim_distance(y.bfloat16().float(), x)
    loss.backward()
    assert y.grad is not None
    assert y.grad.isfinite().all()
    assert loss.dtype == torch.float32
    assert float(ssim_distance(x, x)) == pytest.approx(0, abs=1e-6)


def test_gradient_difference_is_that_of_numpy() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 3, 7, 6, 5)), rng.normal(size=(2, 3, 7, 6, 5))
    expected = np.mean([np.abs(np.diff(x, axis=axis) - np.diff(y, axis=axis)).mean() for axis in (2, 3, 4)])
    assert float(gradient_difference(torch.tensor(x), torch.tensor(y))) == pytest.approx(expected, rel=1e-12)


def test_gradient_difference_counts_the_mask_alone() -> None:
    x, mask = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    x[..., 6:, :] = 5
    mask[..., :4, :] = 1
    assert float(gradient_difference(x, torch.zeros_like(x), mask)) == 0
    assert float(gradient_difference(x, torch.zeros_like(x))) == pytest.approx(5 / 7 / 2)


# --- the net ----------------------------------------------------------------------------------------------------------


def test_the_stages_are_those_of_the_presets() -> None:
    """Channels 32 … 320, blocks 1 3 4 6 6 6, one conv a stage on the way up."""
    net = nets.build("res_unet_32", 1, 1, "instance", width=32)
    weights = {name: tuple(p.shape) for name, p in net.named_parameters() if p.ndim > 1}
    blocks = [len({name.split(".")[2] for name in weights if name.startswith(f"stages.{k}.")}) for k in range(6)]
    assert blocks == [1, 3, 4, 6, 6, 6]
    assert [weights[f"stages.{k}.0.body.0.weight"][0] for k in range(6)] == [32, 64, 128, 256, 320, 320]
    assert sorted(shape[1] for name, shape in weights.items() if name.startswith("ups.")) == [32, 64, 128, 256, 320]


@pytest.mark.parametrize("size", [(64, 96), (64, 64, 64)])
def test_every_part_of_it_learns(size: tuple[int, ...]) -> None:
    net = nets.build("res_unet_32", 1, 2, "instance", spatial_dims=len(size), width=2)
    y = net(torch.rand(1, 1, *size))
    assert y.shape == (1, 2, *size)
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_sizes_of_one_voxel_below_are_refused() -> None:
    net = nets.build("res_unet_16", 1, 1, "instance", spatial_dims=3, width=2)
    assert net(torch.rand(1, 1, 32, 16, 16)).shape == (1, 1, 32, 16, 16)
    with pytest.raises(InputError, match=r"16×16×16 does not fit the net ResUNet: one side at least has to be 32"):
        net.require_size((16, 16, 16))


def test_what_is_out_of_range_is_cut_in_use_and_not_in_training() -> None:
    net = nets.build("res_unet_16", 1, 1, "instance", width=2)
    nn.init.constant_(net.head.bias, 3.0)  # type: ignore[union-attr,arg-type]
    x = torch.rand(1, 1, 32, 32)
    assert float(net(x).detach().max()) > 2
    assert float(net.eval()(x).detach().max()) == 1


# --- the game ---------------------------------------------------------------------------------------------------------


def test_without_a_discriminator_there_is_one_player() -> None:
    game = small()
    assert game.order == ("generator",)
    assert len(game.discriminators) == 0
    assert step(game, wide_batch(), new_adams(game)).keys() == {"G_L1"}
    assert game.judge(wide_batch(), {}) == {}


def test_with_one_it_plays_as_pix2pix_does() -> None:
    game = small(**JUDGED)
    assert game.order == ("discriminator", "generator")
    assert step(game, wide_batch(), new_adams(game)).keys() == {"D_fake", "D_real", "G_L1", "G_GAN"}


def wide_batch() -> Batch:
    a, b = small_batch().pair()
    return Batch(torch.cat([a, a.flip(2)], 2).repeat(1, 1, 1, 2), torch.cat([b, b.flip(2)], 2).repeat(1, 1, 1, 2))


def test_each_term_is_weighted() -> None:
    values = {"lambda_l1": 2.0, "lambda_ssim": 3.0, "lambda_gradient": 5.0}
    game, batch = small(**values), wide_batch()
    _, b = batch.pair()
    with torch.no_grad():
        fakes = game.generate(batch)
        losses = game.generator_losses(batch, fakes)
    assert float(losses["G_L1"]) == pytest.approx(2 * float((fakes["b"] - b).abs().mean()), rel=1e-6)
    assert float(losses["G_SSIM"]) == pytest.approx(3 * float(ssim_distance(fakes["b"], b)), rel=1e-6)
    assert float(losses["G_gradient"]) == pytest.approx(5 * float(gradient_difference(fakes["b"], b)), rel=1e-6)


def test_all_distances_count_the_mask() -> None:
    game, batch = small(lambda_ssim=1.0, lambda_gradient=1.0), wide_batch()
    a, b = batch.pair()
    nothing = Batch(a, b, torch.zeros_like(b))
    losses = game.generator_losses(nothing, game.generate(nothing))
    assert {name: float(loss.detach()) for name, loss in losses.items()} == {"G_L1": 0, "G_SSIM": 0, "G_gradient": 0}


def test_patches_smaller_than_a_window_are_refused() -> None:
    small(lambda_ssim=0.0, generator={"name": "resnet_6blocks", "width": 2}).require_size([8, 8])
    with pytest.raises(InputError, match="a patch of 8×8 is smaller than the windows of SSIM"):
        small(lambda_ssim=1.0, generator={"name": "resnet_6blocks", "width": 2}).require_size([8, 8])


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ConfigError, match="so nothing is learnt"):
        SupervisedSettings.parse({"lambda_l1": 0})


@pytest.mark.parametrize("judge", ["null", "{name: n_layers, num_layers: 1, width: 4}"])
def test_it_trains_resumes_and_translates(judge: str, tiny_cohort: Path, tmp_path: Path) -> None:
    game = f"model={{name: supervised, generator: {{name: resnet_6blocks, width: 2}}, discriminator: {judge}}}"
    run = train(tiny_cohort / "tiny.yaml", [game], out=tmp_path / "run", device="cpu")
    assert [line["step"] for line in run.metrics() if "val" in line] == [5, 10]
    translate(run.path, tiny_cohort / "p4_mr.nii.gz", tmp_path / "o.nii.gz", device="cpu")
    assert read(tmp_path / "o.nii.gz").unit == "HU"
