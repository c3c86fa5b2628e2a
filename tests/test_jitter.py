"""Random changes: every bit as MONAI's transforms make it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandAdjustContrast, RandAffine, RandFlip, RandGaussianNoise

from medgan.jitter import Augment, Move, Size, Tint, crop_size

PATCHES: list[tuple[Size, int | None]] = [((16, 12, 1), 2), ((14, 1, 9), 1), ((1, 8, 8), 0), ((10, 12, 6), None)]
KINDS = [
    Augment(),
    Augment(flip_axes=(0, 1, 2), rotate_deg=0, scale=0),
    Augment(flip_axes=(), rotate_deg=90, scale=0.3),
    Augment(flip_axes=(2, 0), rotate_deg=0, scale=0.2, gamma=0),
    Augment(flip_axes=(), rotate_deg=0, scale=0, gamma=0.5, noise=0),
    Augment(flip_axes=(), rotate_deg=0, scale=0, gamma=0, noise=0),
]


def of_monai(patch: Size, augment: Augment, flat: int | None) -> Compose:
    axes = [axis for axis in range(3) if axis != flat]
    flips = [RandFlip(prob=0.5, spatial_axis=axes.index(axis)) for axis in augment.flip_axes if axis in axes]
    if augment.rotate_deg == 0 and augment.scale == 0:
        return Compose(flips)
    angle = math.radians(augment.rotate_deg)
    turn = RandAffine(
        prob=1.0,
        rotate_range=angle if flat is not None else (0.0, 0.0, angle),
        scale_range=[(-augment.scale, augment.scale)] * len(axes),
        spatial_size=[patch[axis] for axis in axes],
        mode="bilinear",
        padding_mode="border",
    )
    return Compose([*flips, turn])


def tint_of_monai(augment: Augment) -> Compose:
    gamma = RandAdjustContrast(prob=0.5, gamma=(1 - augment.gamma, 1 + augment.gamma))
    noise = RandGaussianNoise(prob=0.5, std=augment.noise, sample_std=True)
    return Compose([*([gamma] if augment.gamma else []), *([noise] if augment.noise else [])])


@pytest.mark.parametrize(("patch", "flat"), PATCHES)
@pytest.mark.parametrize("augment", KINDS)
def test_moves_are_those_of_monai(patch: Size, flat: int | None, augment: Augment) -> None:
    size = [side for axis, side in enumerate(crop_size(patch, augment, flat)) if axis != flat]
    x = torch.rand(3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    move, reference = Move(patch, augment, flat), of_monai(patch, augment, flat)
    for seed in range(12):
        wanted = reference.set_random_state(seed=seed)(x.clone())
        assert torch.equal(move(x, seed), torch.as_tensor(wanted).clamp(-1, 1)), seed


@pytest.mark.parametrize("augment", KINDS)
def test_tints_are_those_of_monai(augment: Augment) -> None:
    x = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    tint, reference = Tint(augment), tint_of_monai(augment)
    for seed in range(30):
        wanted = reference.set_random_state(seed=seed)(x.clone())
        assert torch.equal(tint(x, seed), torch.as_tensor(wanted).clamp(-1, 1)), seed


def test_what_is_given_is_left_as_it_was() -> None:
    x = torch.rand(1, 20, 20)
    before = x.clone()
    for seed in range(8):
        Move((16, 16, 1), Augment(), 2)(x, seed)
        Tint(Augment(gamma=0.5, noise=0.5))(x, seed)
    assert torch.equal(x, before)


def test_a_turned_patch_lies_inside_its_crop() -> None:
    """No value is made up at the border: of a ramp, the result is the ramp turned and zoomed."""
    augment = Augment(flip_axes=(), rotate_deg=20, scale=0.2)
    size = crop_size((16, 16, 1), augment, 2)
    ramp = (torch.arange(size[0]) - (size[0] - 1) / 2)[None, :, None].expand(1, size[0], size[1]) / 20
    for seed in range(20):
        turned = Move((16, 16, 1), augment, 2)(ramp.contiguous(), seed)[0].numpy()
        slopes = 20 * np.diff(turned, axis=0), 20 * np.diff(turned, axis=1)
        assert np.ptp(slopes[0]) < 1e-4
        assert np.ptp(slopes[1]) < 1e-4
        assert 0.8 * math.cos(math.radians(20)) - 1e-4 < slopes[0].mean() < 1.2 + 1e-4
