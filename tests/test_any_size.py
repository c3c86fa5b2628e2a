"""Any size of scan: through windows and without, the image comes out on its own grid, voxel for voxel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medgan import Grid, Volume, nets
from medgan.errors import InputError
from medgan.models import Pix2pixSettings, build
from medgan.run import Run
from medgan.sliding import predict
from medgan.train import train
from medgan.translate import translate_volume

GENERATORS = ("unet_32", "resnet_6blocks", "res_unet_16", "swin_unetr")
# Thinner than a stride, one voxel thin, odd, a multiple along one axis only.
ODD = {2: [(5, 7), (1, 33), (33, 64), (64, 50), (1, 1)], 3: [(5, 7, 33), (1, 20, 16), (17, 1, 1), (32, 32, 9)]}


def make(name: str, dims: int, norm: str = "batch", **options: Any) -> nets.Net:
    torch.manual_seed(0)
    width = 12 if name == "swin_unetr" else 2
    return nets.build(name, 1, 2, norm, spatial_dims=dims, width=width, **options).eval()


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def repeated(x: Tensor, size: list[int]) -> Tensor:
    """Filled up at the far ends with the last voxel along each axis."""
    for axis, n in enumerate(size, start=2):
        last = x.narrow(axis, x.shape[axis] - 1, 1)
        x = torch.cat([x, *[last] * (n - x.shape[axis])], axis)
    return x


# SwinUNETR takes seconds in 3-D.
EVERY_NET = [(name, 2) for name in GENERATORS] + [
    pytest.param(name, 3, marks=[pytest.mark.slow] if name == "swin_unetr" else []) for name in GENERATORS
]


@pytest.mark.parametrize(("name", "dims"), EVERY_NET)
@torch.no_grad()
def test_a_net_in_evaluation_takes_every_size_and_moves_nothing(name: str, dims: int) -> None:
    """It gives what it gives for the image continued by its edge, at the same indices."""
    net = make(name, dims, "instance")
    for size in ODD[dims]:
        x = noise(1, 1, *size)
        larger = [max(net.smallest, -(-n // net.divisor) * net.divisor) for n in size]
        if net.norms_below and max(larger) == net.divisor:
            larger[0] *= 2
        expected = net(repeated(x, larger))
        assert expected.shape[2:] == tuple(larger)
        y = net(x)
        assert y.shape == (1, 2, *size)
        assert torch.equal(y, expected[(..., *[slice(n) for n in size])])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("res_unet_16", {"padding": "reflect"}),
        ("res_unet_16", {"upsample": "resize"}),
        ("res_unet_16", {"recompute": True}),
    ]
    + [(name, {"antialias": True}) for name in GENERATORS if nets.can_antialias(name)],
)
@torch.no_grad()
def test_so_do_its_variants(name: str, options: dict[str, Any]) -> None:
    for dims in (2, 3) if "antialias" in options else (2,):
        for size in ODD[dims]:
            y = make(name, dims, **options)(noise(2, 1, *size))
            assert y.shape == (2, 2, *size)
            assert y.isfinite().all()


@pytest.mark.parametrize("name", GENERATORS)
def test_training_is_strict(name: str) -> None:
    net = make(name, 2).train()
    for size in [(33, 64), (5, 7)]:
        with pytest.raises(InputError, match="does not fit the net"):
            net(noise(2, 1, *size))
    with pytest.raises(InputError, match="takes 2 axes"):
        net.eval()(noise(1, 1, 64, 64, 64))


def test_a_game_translates_every_size_but_trains_on_none_that_does_not_fit() -> None:
    torch.manual_seed(0)
    values = {"generator": {"name": "unet_32", "width": 2}, "discriminator": {"width": 2}}
    game = build(Pix2pixSettings.parse(values), in_channels=1, out_channels=1, spatial_dims=2).eval()
    with torch.no_grad():
        assert game.translate(noise(1, 1, 45, 70)).shape == (1, 1, 45, 70)  # type: ignore[operator]
    with pytest.raises(InputError, match="45×70 does not fit"):
        game.require_size((45, 70))


def test_a_discriminator_cuts_nothing() -> None:
    """Its map of logits is smaller than the image in any case."""
    judge = nets.build("n_layers", 1, num_layers=1, width=2).eval()
    assert judge(noise(1, 1, 33, 40)).shape[2:] == (14, 18)


PATCHES = [(16, 16, 1), (1, 32, 16), (16, 1, 16), (16, 16, 16), (32, 8, 16)]


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20)),
    patch=st.sampled_from(PATCHES),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.8]),
)
@settings(max_examples=40, deadline=None)
def test_windows_give_back_every_voxel_where_it_was(
    size: tuple[int, int, int], patch: tuple[int, int, int], overlap: float
) -> None:
    x = noise(1, *size)
    y = predict(lambda window: torch.cat([window, -window], 1), x, patch=patch, overlap=overlap)
    torch.testing.assert_close(y, torch.cat([x, -x]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("size", [(5, 4, 3), (33, 70, 2), (1, 64, 1), (65, 33, 1)])
@torch.no_grad()
def test_windows_of_every_net_cover_volumes_that_are_smaller_thinner_or_odd(
    name: str, size: tuple[int, int, int]
) -> None:
    y = predict(make(name, 2), noise(1, *size), patch=(64, 32, 1))
    assert y.shape == (2, *size)
    assert y.isfinite().all()


def test_what_lies_inside_one_window_is_what_the_net_makes_of_it() -> None:
    """A volume smaller than a window is surrounded by background, in its middle, and cut out again."""
    net, x = make("resnet_6blocks", 3), noise(1, 5, 7, 3)
    y = predict(net, x, patch=(16, 16, 16))
    margins = [(16 - n) // 2 for n in x.shape[1:]]
    behind = [16 - n - low for n, low in zip(x.shape[1:], margins, strict=True)]
    ends = [end for pair in zip(reversed(margins), reversed(behind), strict=True) for end in pair]
    with torch.no_grad():
        window = net(F.pad(x, ends, value=-1.0)[None])[0]
    inner = [slice(low, low + n) for low, n in zip(margins, x.shape[1:], strict=True)]
    torch.testing.assert_close(y, window[(slice(None), *inner)], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def run(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A 2-D training of one step, windows of 16 × 16; 0 to 200 a.u. and -1000 to 1000 HU are what the net sees."""
    overrides = ["train.steps=1", "train.validate_every=1", "prep.a={modality: MR, unit: a.u., range: [0, 200]}"]
    return train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path_factory.mktemp("size") / "run", device="cpu")


@pytest.mark.parametrize("shape", [(5, 4, 3), (17, 33, 9), (24, 1, 8), (16, 16, 1), (40, 15, 2)])
def test_a_marker_stays_at_its_voxel(run: Run, shape: tuple[int, int, int]) -> None:
    """From volume to volume: the grid is that of the source, exactly, and the brightest voxel the same."""
    game = run.translator()
    game.generators["b"] = nn.Identity()
    rng = np.random.default_rng(sum(shape))
    place = tuple(int(rng.integers(n)) for n in shape)
    array = rng.uniform(90, 110, shape).astype(np.float32)
    array[place] = 180
    volume = Volume(array, Grid.regular(shape, spacing_mm=(1.5, 2, 4), origin_mm=(-10, 20, 300)), "a.u.", "MR")
    made = translate_volume(run, volume, game=game)
    assert made.grid == volume.grid
    assert np.unravel_index(made.array.argmax(), shape) == place
    assert np.abs(made.array - (array - 100) * 10).max() < 0.01


def test_a_run_translates_them_by_its_own_net(run: Run) -> None:
    for shape in [(5, 4, 3), (17, 33, 2)]:
        array = np.random.default_rng(0).uniform(0, 300, shape).astype(np.float32)
        made = translate_volume(run, Volume(array, Grid.regular(shape), "a.u.", "MR"))
        assert made.array.shape == shape
        assert np.isfinite(made.array).all()
