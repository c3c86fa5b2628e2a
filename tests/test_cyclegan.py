"""CycleGAN against a derivation of its own in plain torch, and its memory of older fakes."""

from __future__ import annotations

import pytest
import torch
from test_golden import fill, play, waves
from torch import Tensor, nn

from medgan.errors import ConfigError, InputError
from medgan.models import Batch, CycleGAN, CycleGANSettings
from medgan.models.pool import Pool

SMALL = {"generator": {"name": "resnet_6blocks", "width": 4}, "discriminator": {"width": 4}}


# --- the published step, written down a second time -------------------------------------------------------------------


class Norm(nn.Module):
    """Each channel of each sample to mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect") for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + Norm()(self.two(Norm()(self.one(x)).relu()))


def generator(width: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, width, 7, padding=3, padding_mode="reflect"), Norm(), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, 2, 1), Norm(), nn.ReLU()),
        *(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), Norm(), nn.ReLU()),
        *(Residual(4 * width) for _ in range(6)),
        *(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1), Norm(), nn.ReLU()),
        *(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1), Norm(), nn.ReLU()),
        *(nn.Conv2d(width, 1, 7, padding=3, padding_mode="reflect"), nn.Tanh()),
    )


def discriminator(width: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(width, 2 * width, 4, 2, 1), Norm(), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(2 * width, 4 * width, 4, 2, 1), Norm(), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(4 * width, 8 * width, 4, 1, 1), Norm(), nn.LeakyReLU(0.2)),
        nn.Conv2d(8 * width, 1, 4, 1, 1),
    )


def published(a: Tensor, b: Tensor, width: int, *, num_steps: int) -> list[dict[str, float]]:
    """Generators first, then discriminators, one Adam each; six generator passes and all others one by one."""
    nets = {name: make(width).double() for name, make in {"ab": generator, "ba": generator}.items()}
    nets |= {name: discriminator(width).double() for name in ("on_a", "on_b")}
    for net in nets.values():
        fill(net)
    makers, judges = (
        torch.optim.Adam([p for name in names for p in nets[name].parameters()], lr=2e-4, betas=(0.5, 0.999))
        for names in (("ab", "ba"), ("on_a", "on_b"))
    )
    return [published_step(nets, makers, judges, a, b) for _ in range(num_steps)]


def published_step(
    nets: dict[str, nn.Sequential], makers: torch.optim.Adam, judges: torch.optim.Adam, a: Tensor, b: Tensor
) -> dict[str, float]:
    fake_b, fake_a = nets["ab"](a), nets["ba"](b)
    losses = {
        "G_GAN_b": (nets["on_b"](fake_b) - 1).square().mean(),
        "G_GAN_a": (nets["on_a"](fake_a) - 1).square().mean(),
        "G_cycle_a": 10 * (nets["ba"](fake_b) - a).abs().mean(),
        "G_cycle_b": 10 * (nets["ab"](fake_a) - b).abs().mean(),
        "G_identity_b": 10 * 0.5 * (nets["ab"](b) - b).abs().mean(),
        "G_identity_a": 10 * 0.5 * (nets["ba"](a) - a).abs().mean(),
    }
    makers.zero_grad()
    sum(losses.values(), torch.zeros(())).backward()
    makers.step()
    judged = {}
    for domain, real, fake in (("b", b, fake_b.detach()), ("a", a, fake_a.detach())):
        judged[f"D_real_{domain}"] = (nets[f"on_{domain}"](real) - 1).square().mean() / 2
        judged[f"D_fake_{domain}"] = nets[f"on_{domain}"](fake).square().mean() / 2
    judges.zero_grad()
    sum(judged.values(), torch.zeros(())).backward()
    judges.step()
    return {name: float(loss.detach()) for name, loss in (losses | judged).items()}


@pytest.mark.parametrize(("size", "width"), [(32, 16), pytest.param(128, 64, marks=pytest.mark.slow)])
def test_three_training_steps_are_the_published_ones(size: int, width: int) -> None:
    nets = {"generator": {"name": "resnet_6blocks", "width": width}, "discriminator": {"width": width}}
    settings = CycleGANSettings.parse(nets)
    game = CycleGAN(settings, in_channels=1, out_channels=1, spatial_dims=2).double()
    fill(game)
    a, b = waves(1, size, 0, 1), waves(1, size, 0.5, 1.5) ** 3
    # How far rounding is carried is measured, by a change of the input in its last digits; it grows tenfold a step.
    exact, shaken = (published(image, b, width, num_steps=3) for image in (a, a * (1 + 1e-15)))
    for ours, theirs, moved in zip(play(game, Batch(a, b), num_steps=3), exact, shaken, strict=True):
        carried = max(abs(moved[name] / theirs[name] - 1) for name in theirs)
        assert carried < 1e-7, "the comparison would mean nothing"
        assert ours == pytest.approx(theirs, rel=1e-11 + 20 * carried)


def test_it_is_the_published_one_by_default() -> None:
    assert CycleGANSettings().model_dump() == {
        "name": "cyclegan",
        "generator": {"name": "resnet_9blocks", "width": 64, "norm": "instance", "dropout": False, "antialias": False}
        | {"upsample": "transposed", "padding": "zeros", "recompute": False},
        "discriminator": {"name": "basic", "num_layers": None, "width": 64, "norm": "instance", "antialias": False},
        "gan": "lsgan",
        "lambda_a": 10.0,
        "lambda_b": 10.0,
        "lambda_identity": 0.5,
        "pool": 50,
    }
    assert CycleGAN.order == ("generator", "discriminator")


def small(**values: object) -> CycleGAN:
    torch.manual_seed(0)
    return CycleGANSettings.parse(SMALL | values).build(in_channels=1, out_channels=1, spatial_dims=2)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_merged_passes_change_no_number(norm: str) -> None:
    """Under instance norm samples do not see one another; under batch norm passes stay apart."""
    nets = {player: values | {"norm": norm} for player, values in SMALL.items()}
    game, (a, b) = small(**nets).double(), waves(1, 32, 0, 1)[:, None]
    fakes = game.generate(Batch(a, b))
    alone = {"b": game.translate(a), "same_b": game.translate(b), "a": game.translate(b, "a")}
    alone["same_a"] = game.translate(a, "a")
    for name, image in alone.items():
        torch.testing.assert_close(fakes[name], image, rtol=0, atol=1e-12)


def test_domains_may_differ_in_channels_without_identity() -> None:
    with pytest.raises(ConfigError, match=r"lambda_identity: a has 2 channels and b 1"):
        CycleGANSettings().build(in_channels=2, out_channels=1, spatial_dims=2)
    settings = CycleGANSettings.parse(SMALL | {"lambda_identity": 0})
    game = settings.build(in_channels=2, out_channels=1, spatial_dims=2)
    batch = Batch(torch.rand(1, 2, 32, 32), torch.rand(1, 1, 32, 32))
    (seen,) = play(game, batch, num_steps=1)
    assert {name for name in seen if "identity" in name} == set()
    assert game.translate(torch.rand(1, 1, 32, 32), "a").shape == (1, 2, 32, 32)


def test_a_and_b_may_differ_in_size() -> None:
    (seen,) = play(small(), Batch(torch.rand(2, 1, 32, 32), torch.rand(1, 1, 48, 40)), num_steps=1)
    assert torch.tensor(list(seen.values())).isfinite().all()


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(InputError, match="to a or b; seen to='c'"):
        small().translate(torch.rand(1, 1, 32, 32), to="c")


# --- the pool ---------------------------------------------------------------------------------------------------------


def images(*values: float) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1)


def test_the_pool_returns_what_it_stores_until_it_is_full() -> None:
    pool = Pool(3)
    assert pool(images(1, 2)).flatten().tolist() == [1, 2]
    assert pool(images(3)).flatten().tolist() == [3]
    assert pool.images.flatten().tolist() == [1, 2, 3]


def test_a_full_pool_gives_the_new_image_or_an_old_one_half_of_the_time_each() -> None:
    torch.manual_seed(0)
    pool, old = Pool(50), 0
    pool(images(*range(50)))
    for value in range(50, 4050):
        held = set(pool.images.flatten().tolist())
        given = float(pool(images(value)))
        assert given == value or given in held
        if given == value:
            assert set(pool.images.flatten().tolist()) == held
        else:
            old += 1
            assert set(pool.images.flatten().tolist()) == held - {given} | {value}
    assert abs(old - 2000) < 4 * 1000**0.5  # four standard deviations


def test_every_place_is_drawn_alike() -> None:
    torch.manual_seed(0)
    pool, drawn = Pool(4), [0] * 4
    pool(images(*range(4)))
    for value in range(4, 4004):
        before = pool.images.flatten().tolist()
        given = float(pool(images(value)))
        if given != value:
            drawn[before.index(given)] += 1
    assert max(abs(count - sum(drawn) / 4) for count in drawn) < 5 * (sum(drawn) * 3 / 16) ** 0.5


def test_a_pool_of_none_lets_all_pass() -> None:
    pool = Pool(0)
    assert pool(images(1, 2)).flatten().tolist() == [1, 2]
    assert pool.images.numel() == 0


@pytest.mark.parametrize("filled", [0, 2, 5])
def test_the_pool_is_saved_and_resumed(filled: int) -> None:
    one, other = Pool(3), Pool(3)
    other(images(9))
    for value in range(filled):
        one(images(value))
    other.load_state_dict(one.state_dict())
    for pool in (one, other):
        torch.manual_seed(1)
        pool.given = torch.cat([pool(images(value)) for value in range(20, 40)])
    assert torch.equal(one.given, other.given)
    assert torch.equal(one.images, other.images)


def test_the_discriminator_learns_from_older_fakes() -> None:
    game = small(pool=1)
    first, second = Batch(*waves(1, 32, 0, 1)[:, None].float()), Batch(*waves(1, 32, 2, 3)[:, None].float())
    game.losses("discriminator", first, game.generate(first))
    stored = game.pools["b"].images.clone()
    assert torch.equal(stored, game.generate(first)["b"].detach())
    for _ in range(8):  # until the coin falls for it
        game.losses("discriminator", second, game.generate(second))
    assert torch.equal(game.pools["b"].images, game.generate(second)["b"].detach())
