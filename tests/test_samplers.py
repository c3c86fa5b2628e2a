"""What every sampler must do: these tests apply to all members of the union of settings by themselves."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from test_models import assert_gradients_stay, members
from torch import Tensor, nn

from medgan.device import channels_last
from medgan.models import (
    GAN,
    SAMPLERS,
    WGAN,
    Batch,
    CGANSettings,
    DCGANSettings,
    GANSettings,
    Kind,
    Sampler,
    SamplerSettings,
    StyleGAN2,
    StyleGAN2Settings,
    WGANSettings,
    build_sampler,
)
from medgan.models.noise import Penalties, truncated
from medgan.play import play
from medgan.settings import Settings

SMALL = {"width": 4, "width_d": 4, "latent_size": 6, "style_size": 8}
SIZES = {2: (16, 12), 3: (8, 8, 12)}
every_sampler = pytest.mark.parametrize("member", members(SamplerSettings), ids=lambda member: member().name)
every_size = pytest.mark.parametrize("spatial_dims", [2, 3])


def small(member: type[Settings], **others: Any) -> Any:
    return member.parse({name: value for name, value in SMALL.items() if name in member.model_fields} | others)


def kind_for(member: type[Settings], spatial_dims: int = 2, channels: int = 2) -> Kind:
    groups = () if member.conditional == "never" else (2, 3)  # type: ignore[attr-defined]
    return Kind(channels, SIZES[spatial_dims], groups, "MR", masks=channels - 1)


def small_game(member: type[Settings], spatial_dims: int = 2, **others: Any) -> Sampler:
    torch.manual_seed(0)
    return build_sampler(small(member, **others), kind_for(member, spatial_dims))


def small_batch(member: type[Settings], spatial_dims: int = 2, samples: int = 4) -> Batch:
    draw, kind = torch.Generator().manual_seed(1), kind_for(member, spatial_dims)
    images = torch.rand(samples, kind.channels, *kind.size, generator=draw) * 2 - 1
    condition = torch.cat([torch.eye(2)[torch.arange(samples) % 2], torch.eye(3)[torch.arange(samples) % 3]], 1)
    return Batch(b=images, condition=condition if kind.groups else None)


def adams(game: Sampler, lr: float = 1e-3) -> dict[Any, torch.optim.Optimizer]:
    fabric = Fabric(accelerator="cpu", devices=1)
    own = {p: torch.optim.Adam(game.nets(p).parameters(), lr=lr, betas=(0.0, 0.99)) for p in game.order}
    return {player: fabric.setup_optimizers(adam) for player, adam in own.items()}  # type: ignore[misc]


def trained(game: Sampler, batch: Batch, steps: int) -> list[dict[str, Tensor]]:
    fabric, own = Fabric(accelerator="cpu", devices=1), adams(game)
    return [play(game, [batch], own, fabric) for _ in range(steps)]


def test_the_union_is_the_registry() -> None:
    assert tuple(member().name for member in members(SamplerSettings)) == SAMPLERS  # type: ignore[attr-defined]


@every_sampler
@every_size
def test_losses_are_named_scalars_and_finite(member: type[Settings], spatial_dims: int) -> None:
    game, batch = small_game(member, spatial_dims), small_batch(member, spatial_dims)
    for losses in trained(game, batch, 2):
        assert any(name.startswith("G_") for name in losses)
        assert any(name.startswith("D_") for name in losses)
        assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())


@every_sampler
def test_gradients_stay_with_their_player(member: type[Settings]) -> None:
    """Some weights of a residual net begin without effect, so of those reached it is asked that there are some."""
    if small_game(member).settings.name == "r3gan":  # type: ignore[union-attr]
        pytest.skip("its last convs begin at 0: their gradients are tested after a step, below")
    assert_gradients_stay(lambda: small_game(member), small_batch(member))


@every_sampler
def test_all_weights_learn(member: type[Settings]) -> None:
    game, batch = small_game(member), small_batch(member)
    before = {name: value.clone() for name, value in game.named_parameters()}
    trained(game, batch, 18)
    still = [name for name, value in game.named_parameters() if torch.equal(value, before[name])]
    differences_alone = member().name in ("wgan", "r3gan")  # type: ignore[attr-defined]
    assert still == ["discriminators.b.head.bias"] * differences_alone


@every_sampler
@every_size
def test_a_sample_hangs_on_its_own_numbers_alone(member: type[Settings], spatial_dims: int) -> None:
    game, batch = small_game(member, spatial_dims), small_batch(member, spatial_dims)
    trained(game, batch, 1)
    game.eval()
    z = torch.randn(4, game.latent_size)
    with torch.no_grad():
        together = game.sample(z, batch.condition)
        alone = game.sample(z[2:3], None if batch.condition is None else batch.condition[2:3])
    assert together.shape == (4, 2, *SIZES[spatial_dims])
    assert together.abs().max() <= 1
    torch.testing.assert_close(alone, together[2:3], rtol=1e-4, atol=1e-5)
    assert not torch.equal(together[0], together[2])


@every_sampler
def test_a_saved_game_plays_on_alike(member: type[Settings]) -> None:
    """Counters of lazy penalties, mean path lengths, strengths of changes are part of the state."""
    game, batch = small_game(member), small_batch(member)
    trained(game, batch, 3)
    copy = build_sampler(small(member), kind_for(member))
    copy.load_state_dict(game.state_dict())
    results = []
    for one in (game, copy):
        torch.manual_seed(5)
        results.append([{k: float(v) for k, v in losses.items()} for losses in trained(one, batch, 18)])
    assert results[0] == results[1]


@every_sampler
@every_size
def test_a_step_in_bfloat16_stays_finite(member: type[Settings], spatial_dims: int) -> None:
    """Penalties take gradients inside of losses, which Fabric's own wrapper of nets refuses."""
    torch.manual_seed(0)
    game, batch = small_game(member, spatial_dims), small_batch(member, spatial_dims)
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    for losses in (play(game, [batch], adams(game), fabric) for _ in range(2)):
        assert all(loss.isfinite() for loss in losses.values())
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in game.parameters())


@every_sampler
@every_size
def test_channels_last_trains_and_draws_alike(member: type[Settings], spatial_dims: int) -> None:
    """Under the same random numbers; by one step, as a game of two magnifies the last digits."""
    results = []
    for layout in (torch.contiguous_format, channels_last(spatial_dims)):
        game = small_game(member, spatial_dims).to(memory_format=layout)  # type: ignore[call-overload]
        batch = small_batch(member, spatial_dims)
        z = torch.randn(4, game.latent_size, generator=torch.Generator().manual_seed(3))
        drawn = copy.deepcopy(game).eval().maker(z, batch.condition)
        torch.manual_seed(2)
        results.append((trained(game, batch.to(memory_format=layout), 1), drawn))
    (plain, image), (last, same) = results
    torch.testing.assert_close(same, image, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(last, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@every_sampler
def test_a_batch_of_one_is_enough_but_for_batch_norm(member: type[Settings]) -> None:
    for losses in trained(small_game(member), small_batch(member, samples=1), 1):
        assert all(loss.isfinite() for loss in losses.values())


@every_sampler
def test_settings_survive_plain_values(member: type[Settings]) -> None:
    settings = member()
    assert type(settings).parse(settings.model_dump(mode="json")) == settings


@every_sampler
def test_truncation_lowers_the_diversity(member: type[Settings]) -> None:
    game, batch = small_game(member), small_batch(member)
    trained(game, batch, 2)
    game.eval()
    z = torch.randn(32, game.latent_size)
    condition = None if batch.condition is None else batch.condition[:1].expand(32, -1)
    with torch.no_grad():
        spreads = [game.sample(z, condition, t).std(0).mean() for t in (0.1, 0.5, 0.8)]
    assert spreads[0] < spreads[1] < spreads[2]


def test_truncated_numbers_are_those_of_the_cut_distribution() -> None:
    """Against what rejection gives, the published way."""
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    cut, kept = truncated(z, 0.7), z[z.abs() < 0.7]
    assert cut.abs().max() <= 0.7
    assert float(cut.std()) == pytest.approx(float(kept.std()), rel=0.01)
    for share in (0.1, 0.3, 0.8):
        assert float(cut.quantile(share)) == pytest.approx(float(kept.quantile(share)), abs=0.01)


@pytest.mark.parametrize("told", ["projection", "concat", "classifier"])
def test_what_is_asked_for_reaches_both_players(told: str) -> None:
    game, batch = small_game(CGANSettings, told=told), small_batch(CGANSettings)
    trained(game, batch, 1)
    game.eval()
    z, others = torch.randn(4, 6), batch.condition.flip(1)  # type: ignore[union-attr]
    with torch.no_grad():
        assert not torch.allclose(game.sample(z, batch.condition), game.sample(z, others))
        judged = [game.discriminators["b"](batch.images(), one) for one in (batch.condition, others)]
    assert torch.allclose(*judged) == (told == "classifier")  # which guesses instead of being told


def test_the_classifier_is_cross_entropy_on_logits() -> None:
    """No softmax before it, as some of the public code has."""
    game, batch = small_game(CGANSettings, told="classifier"), small_batch(CGANSettings)
    guess = torch.randn(4, 5)
    wanted = torch.stack(
        [
            -(batch.condition[:, part] * guess[:, part].log_softmax(1)).sum(1).mean()  # type: ignore[index]
            for part in (slice(0, 2), slice(2, 5))
        ]
    ).mean()
    assert float(game.mistaken(guess, batch)) == pytest.approx(float(wanted))  # type: ignore[operator]


def test_wgan_is_the_published_one_by_default() -> None:
    game = WGAN(WGANSettings(), Kind(1, (16, 16)))
    assert game.warm_ups == 4
    assert game.penalties == Penalties(gradient=10)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in game.discriminators.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in game.generators.modules())


def test_clipped_weights_stay_within_their_bounds_where_they_judge() -> None:
    game = small_game(WGANSettings, gradient_penalty=0, clip=0.01)
    trained(game, small_batch(WGANSettings), 3)
    game.generator_losses(small_batch(WGANSettings), game.generate(small_batch(WGANSettings)))
    assert max(float(p.detach().abs().max()) for p in game.discriminators.parameters()) <= 0.01
    with pytest.raises(Exception, match="gradient_penalty or by clip"):
        WGANSettings.parse({"clip": 0.01})


def test_a_lazy_penalty_adds_up_to_the_eager_one() -> None:
    """The critic stands still here: over 16 moves both are paid alike."""
    paid = {}
    for every in (1, 16):
        game = small_game(DCGANSettings, norm="none", penalties={"r1": 2.0, "every": every})
        batch = small_batch(DCGANSettings)
        fakes = {name: fake.detach() for name, fake in game.generate(batch).items()}
        moves = [game.discriminator_losses(batch, fakes).get("D_R1", torch.zeros(())) for _ in range(16)]
        paid[every] = float(torch.stack(moves).sum().detach())
    assert paid[16] == pytest.approx(paid[1], rel=1e-5)
    assert paid[1] > 0


def test_the_saturating_loss_leaves_the_generator_without_a_gradient() -> None:
    """Where the discriminator is sure of its fakes, as it is early on: the reason for the other loss."""
    slopes = {}
    for name in ("vanilla", "saturating"):
        torch.manual_seed(0)
        game = GAN(small(GANSettings, gan=name), Kind(1, (8, 8)))
        with torch.no_grad():
            game.critic.head.bias.fill_(-8.0)
        batch = Batch(b=torch.zeros(4, 1, 8, 8))
        sum(game.generator_losses(batch, game.generate(batch)).values()).backward()  # type: ignore[union-attr]
        slopes[name] = float(torch.stack([p.grad.norm() for p in game.generators.parameters()]).norm())  # type: ignore[union-attr]
    assert slopes["saturating"] < 1e-2 * slopes["vanilla"]


def test_path_lengths_are_paid_when_due_and_their_mean_follows() -> None:
    game = small_game(StyleGAN2Settings, path_every=4, adaptive=None)
    assert isinstance(game, StyleGAN2)
    seen = trained(game, small_batch(StyleGAN2Settings), 9)
    assert [step for step, losses in enumerate(seen) if "G_path" in losses] == [0, 4, 8]
    assert float(game.mean_length) > 0


def test_changes_follow_how_well_the_discriminator_knows_the_images() -> None:
    """Up by the batch over 500,000 where all signs are +1, and down to no less than 0."""
    game = small_game(StyleGAN2Settings)
    game.follow(torch.ones(5000, 1))  # type: ignore[operator]
    assert float(game.adaptive.p) == pytest.approx(0.01)  # type: ignore[union-attr, arg-type]
    game.follow(-torch.ones(50_000, 1))  # type: ignore[operator]
    assert float(game.adaptive.p) == 0  # type: ignore[union-attr, arg-type]


def ring(number: int, sigma: float = 0.05) -> Tensor:
    """Points of eight normal distributions around a circle, as images of two channels and one voxel."""
    angle = torch.randint(8, (number,)) * math.pi / 4
    return (0.8 * torch.stack([angle.cos(), angle.sin()], 1) + sigma * torch.randn(number, 2))[..., None, None]


def modes(points: Tensor, sigma: float = 0.05) -> tuple[int, float]:
    """How many of the eight have at least a fifth of their share, and the share of points within 3 σ of one."""
    angle = torch.arange(8) * math.pi / 4
    distance, nearest = torch.cdist(points, 0.8 * torch.stack([angle.cos(), angle.sin()], 1)).min(1)
    near = distance < 3 * sigma
    counts = torch.bincount(nearest[near], minlength=8)
    return int((counts > len(points) / 40).sum()), float(near.float().mean())


def on_the_ring(settings: GANSettings, seed: int, steps: int) -> tuple[int, float]:
    """Modes and share of good points of the running average after a training."""
    torch.manual_seed(seed)
    game = GAN(settings, Kind(2, (1, 1)))
    fabric, own = Fabric(accelerator="cpu", devices=1), adams(game, 1e-3)
    average = [p.detach().clone() for p in game.generators.parameters()]
    for _ in range(steps):
        play(game, [Batch(b=ring(128))], own, fabric)
        torch._foreach_lerp_(average, [p.detach() for p in game.generators.parameters()], 0.01)
    with torch.no_grad():
        for own_weight, mean in zip(game.generators.parameters(), average, strict=True):
            own_weight.copy_(mean)
        return modes(game.maker(torch.randn(2000, settings.latent_size))[..., 0, 0])


RING = {"latent_size": 16, "width": 64, "bounded": False}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_modes_of_a_ring_are_covered(seed: int) -> None:
    covered, good = on_the_ring(GANSettings.parse({**RING, "penalties": {"r1": 1.0}}), seed, 4000)
    assert covered == 8
    assert good > 0.8


def test_an_untrained_generator_covers_no_ring() -> None:
    """The control: what the test above asks is not true of anything."""
    assert on_the_ring(GANSettings.parse(RING), 0, 0)[0] == 0
