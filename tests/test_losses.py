"""Losses against their formulas, written out in NumPy."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medgan.errors import ConfigError
from medgan.losses import GanMode, gan, l1, l2, patch_nce

LOGITS = np.array([[-3.0, -1.0, -0.5], [0.0, 0.25, 4.0]])

FORMULAS = {
    # mode: real, fake, fool
    "vanilla": (
        lambda x: -np.log(1 / (1 + np.exp(-x))),
        lambda x: -np.log(1 - 1 / (1 + np.exp(-x))),
        lambda x: -np.log(1 / (1 + np.exp(-x))),
    ),
    "saturating": (
        lambda x: -np.log(1 / (1 + np.exp(-x))),
        lambda x: -np.log(1 - 1 / (1 + np.exp(-x))),
        lambda x: np.log(1 - 1 / (1 + np.exp(-x))),
    ),
    "lsgan": (lambda x: (x - 1) ** 2, lambda x: x**2, lambda x: (x - 1) ** 2),
    "hinge": (lambda x: np.maximum(0, 1 - x), lambda x: np.maximum(0, 1 + x), lambda x: -x),
    "wgan": (lambda x: -x, lambda x: x, lambda x: -x),
}


def test_every_mode_has_a_formula_here() -> None:
    assert set(FORMULAS) == set(get_args(GanMode))


@pytest.mark.parametrize("mode", FORMULAS)
@pytest.mark.parametrize("role", [0, 1, 2], ids=["real", "fake", "fool"])
def test_adversarial_losses_are_their_formulas(mode: str, role: int) -> None:
    expected = FORMULAS[mode][role](LOGITS).mean()
    assert float(gan(mode)[role](torch.tensor(LOGITS))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mode", FORMULAS)
def test_each_loss_pulls_the_logits_its_own_way(mode: str) -> None:
    def slope(role: int) -> float:
        logit = torch.zeros(1, requires_grad=True)
        return float(torch.autograd.grad(gan(mode)[role](logit), logit)[0])

    real, fake, fool = slope(0), slope(1), slope(2)
    assert real < 0
    assert fake > 0 or mode == "lsgan"  # least squares rests at its label, 0
    assert fool < 0


@given(st.floats(-1e4, 1e4))
def test_adversarial_losses_stay_finite(logit: float) -> None:
    for mode in FORMULAS:
        for loss in gan(mode)[:3]:
            x = torch.tensor([logit], requires_grad=True)
            value = loss(x)
            assert value.isfinite()
            assert torch.autograd.grad(value, x)[0].isfinite()


def test_half_precision_is_averaged_in_single() -> None:
    x = torch.full((1000,), 0.1, dtype=torch.bfloat16)
    assert gan("wgan").fake(x).dtype == torch.float32
    assert float(gan("wgan").fake(x)) == pytest.approx(float(x[0]), rel=1e-6)
    assert l1(x, torch.zeros_like(x)).dtype == torch.float32
    assert l1(x.double(), torch.zeros(1000)).dtype == torch.float64


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown GAN mode 'wgangp'; accepted: vanilla, saturating, lsgan"):
        gan("wgangp")


def test_distances_within_a_mask_count_nothing_else() -> None:
    x, y = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 9.0)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, 1, 2] = mask[1, 0, 3, 3] = True
    y[0, :, 1, 2], y[1, :, 3, 3] = 1.0, -3.0
    assert float(l1(x, y, mask)) == 2.0
    assert float(l2(x, y, mask)) == 5.0


def test_a_mask_that_keeps_all_changes_nothing_and_an_empty_one_gives_zero() -> None:
    x, y = torch.randn(2, 1, 5, 5), torch.randn(2, 1, 5, 5)
    assert float(l1(x, y, torch.ones(2, 1, 5, 5))) == pytest.approx(float(l1(x, y)), rel=1e-6)
    x.requires_grad_()
    nothing: Tensor = l1(x, y, torch.zeros(2, 1, 5, 5))
    assert float(nothing.detach()) == 0
    assert not torch.autograd.grad(nothing, x)[0].any()


def unit(*shape: int, seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def test_patch_nce_is_its_formula() -> None:
    q, k = unit(2, 7, 5, seed=0), unit(2, 7, 5, seed=1)
    expected, x, y = [], q.numpy(), k.numpy()
    for image in range(2):
        for place in range(7):
            own = np.exp(np.dot(x[image, place], y[image, place]) / 0.3)
            others = sum(np.exp(np.dot(x[image, place], y[image, j]) / 0.3) for j in range(7) if j != place)
            expected.append(-np.log(own / (own + others)))
    assert float(patch_nce(q, k, 0.3)) == pytest.approx(np.mean(expected), rel=1e-12)


def test_keys_get_no_gradient() -> None:
    q, k = unit(1, 4, 3, seed=0).requires_grad_(), unit(1, 4, 3, seed=1).requires_grad_()
    patch_nce(q, k).backward()
    assert k.grad is None
    assert q.grad is not None
    assert q.grad.abs().sum() > 0


def test_the_contrast_stays_exact_under_bf16() -> None:
    q, k = unit(2, 64, 16, seed=0).float(), unit(2, 64, 16, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert float(patch_nce(q, k)) == pytest.approx(float(patch_nce(q.double(), k.double())), rel=1e-5)
        assert patch_nce(q.bfloat16(), k.bfloat16()).dtype == torch.float32
