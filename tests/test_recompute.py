"""Recomputing: the same training to the bit, in less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_models import new_adams, step
from torch import Tensor

from medgan import nets
from medgan.errors import ConfigError
from medgan.models import Batch, CUTSettings, CycleGANSettings, Pix2pixSettings, build
from medgan.train import train

SIZES = {"resnet_6blocks": (12, 8, 16), "res_unet_16": (32, 16, 16), "swin_unetr": (64, 32)}
EVERY = [
    (name, norm, dims)
    for name in SIZES
    for norm in ("batch", "instance")
    for dims in ((2,) if name == "swin_unetr" else (2, 3))
]


def make(name: str, norm: str, dims: int, *, recompute: bool, **options: Any) -> nets.Net:
    torch.manual_seed(0)
    width = 12 if name == "swin_unetr" else 4
    return nets.build(name, 2, 1, norm, True, dims, width=width, recompute=recompute, **options)


def image(name: str, dims: int) -> Tensor:
    return torch.randn(2, 2, *SIZES[name][:dims], generator=torch.Generator().manual_seed(1))


def gone_through(net: nets.Net, x: Tensor) -> list[Tensor]:
    """Output, gradients of input and weights, buffers, and the random numbers that come next."""
    x = x.clone().requires_grad_()
    torch.manual_seed(2)
    y = net(x)
    drawn = torch.rand(3)
    y.square().mean().backward()
    grads = [p.grad for p in (x, *net.parameters())]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    return [y.detach(), drawn, torch.rand(3), *net.buffers(), *(grad for grad in grads if grad is not None)]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("name", "norm", "dims"), EVERY)
def test_gradients_and_statistics_are_the_same_to_the_bit(name: str, norm: str, dims: int) -> None:
    """With dropout, and with batch norms, whose statistics a second pass would move a second time."""
    plain, saving = (
        gone_through(make(name, norm, dims, recompute=recompute), image(name, dims)) for recompute in (False, True)
    )
    assert equal(plain, saving)


@pytest.mark.parametrize("name", SIZES)
def test_the_guard_above_sees_dropout_and_statistics(name: str) -> None:
    """Without the random numbers or the context of the first pass the results differ."""
    net = make(name, "batch", 2, recompute=False)
    once = [tensor.clone() for tensor in gone_through(net, image(name, 2))]
    net.zero_grad()
    assert not equal(once, gone_through(net, image(name, 2)))  # the statistics have moved
    torch.manual_seed(3)
    assert not torch.equal(net(image(name, 2)), net(image(name, 2)))  # dropout draws anew


@pytest.mark.parametrize("options", [{"upsample": "resize"}, {"padding": "reflect"}, {"antialias": True}])
@pytest.mark.parametrize("name", ["resnet_6blocks", "res_unet_16"])
def test_other_layers_go_with_it(name: str, options: dict[str, Any]) -> None:
    x = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(1))
    plain, saving = (gone_through(make(name, "batch", 2, recompute=r, **options), x) for r in (False, True))
    assert equal(plain, saving)


@pytest.mark.parametrize("settings", [Pix2pixSettings, CycleGANSettings, CUTSettings])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_games_play_the_same(settings: type[Any], norm: str) -> None:
    """Also where the discriminator moves first, where a generator is used twice, and where its inside is looked at."""
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    batch, seen = Batch(x * 2 - 1, 1 - x), []
    for recompute in (False, True):
        torch.manual_seed(0)
        generator = {"name": "resnet_6blocks", "width": 2, "dropout": True, "norm": norm, "recompute": recompute}
        judge = {"name": "n_layers", "num_layers": 1, "width": 2}
        game = build(
            settings.parse({"generator": generator, "discriminator": judge}),
            in_channels=1,
            out_channels=1,
            spatial_dims=2,
        )
        adams = new_adams(game)
        seen.append([step(game, batch, adams) for _ in range(3)])
        seen[-1].append({name: tensor.sum() for name, tensor in game.state_dict().items()})
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", SIZES)
def test_mixed_precision_is_kept_in_the_second_pass(name: str) -> None:
    results = []
    for recompute in (False, True):
        net = make(name, "batch", 2, recompute=recompute)
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16):
            y = net(image(name, 2))
        y.float().square().mean().backward()
        results.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert equal(*results)


@pytest.mark.parametrize(("name", "share"), [("resnet_6blocks", 0.25), ("res_unet_16", 0.35), ("swin_unetr", 0.35)])
def test_less_is_kept(name: str, share: float) -> None:
    """Weights, which are kept in any case, are not counted."""
    x, kept = torch.randn(1, 2, 64, 64), []
    for recompute in (False, True):
        net = make(name, "instance", 2, recompute=recompute)
        own = {p.untyped_storage().data_ptr() for p in net.parameters()}
        held: dict[int, int] = {}

        def note(x: Tensor, own: set[int] = own, held: dict[int, int] = held) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                held[storage.data_ptr()] = storage.nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            y = net(x)
        kept.append(sum(held.values()))
        del y
    assert kept[1] < share * kept[0]


def test_nothing_is_kept_or_done_twice_without_gradients() -> None:
    net = make("resnet_6blocks", "batch", 2, recompute=True)
    with torch.no_grad():
        assert not net(image("resnet_6blocks", 2)).requires_grad
    assert net.eval()(image("resnet_6blocks", 2)).requires_grad


@pytest.mark.parametrize("name", ["basic", "unet_32"])
def test_where_it_saves_nothing_it_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"recompute belongs to the generators .* not to {name}; leave it out"):
        nets.build(name, 1, recompute=True)


def test_a_training_is_the_same_to_the_bit(tiny_cohort: Path, tmp_path: Path) -> None:
    """Through the loop, with its random numbers, its average and its statistics."""
    hashes = []
    for recompute in ("false", "true"):
        overrides = [f"model.generator.recompute={recompute}", "train.steps=3", "train.validate_every=3"]
        run = train(tiny_cohort / "tiny.yaml", overrides, out=tmp_path / recompute, device="cpu")
        hashes.append(run.weights_sha256)
    assert hashes[0] == hashes[1]
