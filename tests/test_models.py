"""What every game must do: these tests apply to all members of the union of settings by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

import pytest
import torch
from torch import Tensor, nn

from medgan.errors import ConfigError, InputError
from medgan.models import Batch, Game, ModelSettings, Pix2pix, Pix2pixSettings, Player, Translator, build
from medgan.settings import Settings

SMALL = {"generator": {"name": "unet_32", "width": 8, "dropout": False}, "discriminator": {"width": 8}}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def members(annotation: Any) -> list[type[Settings]]:
    """The classes of settings in a union, annotated or not."""
    if isinstance(annotation, type):
        return [annotation]
    parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [member for part in parts for member in members(part)]


every_model = pytest.mark.parametrize("member", members(ModelSettings), ids=lambda member: member().name)
every_size = pytest.mark.parametrize("spatial_dims", [2, 3])


def small_nets(member: type[Settings]) -> dict[str, dict[str, Any]]:
    """Nets for quick tests, a residual generator where the model takes no U-Net."""
    nets = {name: value for name, value in SMALL.items() if name in member.model_fields}
    accepted = get_args(type(member().generator).model_fields["name"].annotation)  # type: ignore[attr-defined]
    return nets if "unet_32" in accepted else nets | {"generator": {"name": "resnet_6blocks", "width": 2}}


def small_game(member: type[Settings], spatial_dims: int = 2, **others: Any) -> Game:
    torch.manual_seed(0)
    return build(member.parse(small_nets(member) | others), in_channels=1, out_channels=1, spatial_dims=spatial_dims)  # type: ignore[arg-type]


def small_batch(spatial_dims: int = 2, samples: int = 2) -> Batch:
    """A smooth image and a function of it."""
    steps = torch.linspace(-2, 2, 32)
    a = torch.stack([torch.stack(torch.meshgrid(*[steps] * spatial_dims, indexing="ij")).sum(0).sin()] * samples)
    a = a[:, None] * torch.linspace(0.5, 1, samples).reshape(-1, *[1] * (spatial_dims + 1))
    return Batch(a, 1 - 2 * a.square())


def exact(batch: Batch) -> Batch:
    """In float64."""
    return Batch(*(None if x is None else x.double() for x in (batch.a, batch.b)))


def step(game: Game, batch: Batch, adams: dict[Player, torch.optim.Optimizer]) -> dict[str, float]:
    """One move of each player, the other one frozen."""
    seen = {}
    fakes = game.generate(batch)
    for player in game.order:
        for other in game.order:
            game.nets(other).requires_grad_(other == player)
        losses = game.losses(player, batch, fakes)
        adams[player].zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        adams[player].step()
        seen |= {name: float(loss.detach()) for name, loss in losses.items()}
    game.requires_grad_(True)
    return seen


def new_adams(game: Game, lr: float = 2e-4) -> dict[Player, torch.optim.Optimizer]:
    return {p: torch.optim.Adam(game.nets(p).parameters(), lr=lr, betas=(0.5, 0.999)) for p in game.order}


def gradients(net: nn.Module) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None]


def assert_gradients_stay(new_game: Callable[[], Game], batch: Batch) -> None:
    """The losses of a player reach all that it owns and nothing of the other's."""
    for player in ("generator", "discriminator"):
        game = new_game()
        fakes = game.generate(batch)
        other: Player = "discriminator" if player == "generator" else "generator"
        game.nets(other).requires_grad_(False)
        torch.stack(list(game.losses(player, batch, fakes).values())).sum().backward()
        assert len(gradients(game.nets(player))) == len(list(game.nets(player).parameters()))
        assert all(g.isfinite().all() for g in gradients(game.nets(player)))
        assert not gradients(game.nets(other)), f"the losses of the {player} leak into the {other}"


def assert_bfloat16_stays_finite(game: Game, batch: Batch) -> None:
    adams = new_adams(game)
    with torch.autocast("cpu", torch.bfloat16):
        seen = [step(game, batch, adams) for _ in range(2)]
    assert all(torch.tensor(list(losses.values())).isfinite().all() for losses in seen)
    assert all(p.isfinite().all() for p in game.parameters())


def assert_channels_last_trains_alike(new_game: Callable[[], Game], batch: Batch) -> None:
    """In float64: PyTorch's own instance norm would train on wrong gradients here at batch 1."""
    results = []
    for memory_format in (torch.contiguous_format, CHANNELS_LAST[batch.both()[0].ndim - 2]):
        game = new_game().double().to(memory_format=memory_format)
        adams = new_adams(game)
        results.append([step(game, exact(batch).to(memory_format=memory_format), adams) for _ in range(3)])
    for plain, last in zip(*results, strict=True):
        assert last == pytest.approx(plain, rel=1e-6)


@every_model
@every_size
def test_losses_are_named_scalars_and_finite(member: type[Settings], spatial_dims: int) -> None:
    game, batch = small_game(member, spatial_dims), small_batch(spatial_dims)
    fakes = game.generate(batch)
    names: list[str] = []
    for player in game.order:
        losses = game.losses(player, batch, fakes)
        names += losses
        for name, loss in losses.items():
            assert loss.shape == (), name
            assert loss.isfinite(), name
            assert loss.requires_grad, name
    assert len(names) == len(set(names))


@every_model
@every_size
@pytest.mark.parametrize(("ins", "outs"), [(3, 3), (1, 3), (5, 2)])
def test_any_number_of_channels_is_learnt(member: type[Settings], spatial_dims: int, ins: int, outs: int) -> None:
    """Where one net reads both domains they have as many; CycleGAN does without the identity otherwise."""
    name, alike = member().name, ins == outs  # type: ignore[attr-defined]
    if name == "cut" and not alike:
        with pytest.raises(ConfigError, match="cut reads a and its fakes by one encoder"):
            build(member.parse(small_nets(member)), in_channels=ins, out_channels=outs, spatial_dims=spatial_dims)  # type: ignore[arg-type]
        return
    others: dict[str, Any] = {} if alike or name != "cyclegan" else {"lambda_identity": 0.0}
    settings: Any = member.parse(small_nets(member) | others)
    game = build(settings, in_channels=ins, out_channels=outs, spatial_dims=spatial_dims)
    a, b = small_batch(spatial_dims, samples=1).both()
    batch = Batch(
        a.repeat_interleave(ins, 1),
        b.repeat_interleave(outs, 1) * torch.linspace(0.5, 1, outs).reshape(outs, *[1] * spatial_dims),
    )
    seen = step(game, batch, new_adams(game))
    assert all(torch.tensor(loss).isfinite() for loss in seen.values())
    assert game.translate(batch.both()[0]).shape == batch.both()[1].shape  # type: ignore[operator]


@every_model
def test_gradients_stay_with_their_player(member: type[Settings]) -> None:
    assert_gradients_stay(lambda: small_game(member), small_batch())


@every_model
def test_discriminator_losses_leave_the_generator_alone_even_unfrozen(member: type[Settings]) -> None:
    game, batch = small_game(member), small_batch()
    losses = game.losses("discriminator", batch, game.generate(batch))
    torch.stack(list(losses.values())).sum().backward()
    assert not gradients(game.generators)


@every_model
def test_players_own_all_parameters_once(member: type[Settings]) -> None:
    game = small_game(member)
    owned = [id(p) for player in game.order for p in game.nets(player).parameters()]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in game.parameters()}


@every_model
def test_one_batch_is_learnt_by_heart(member: type[Settings]) -> None:
    # Batch norm: under instance norm a net could not tell the two samples, which differ in brightness alone.
    wide = {name: value | {"width": 8, "norm": "batch"} for name, value in small_nets(member).items()}
    game, batch = small_game(member, **wide), small_batch()
    if not isinstance(game, Translator):
        pytest.skip("only a translator has a truth to learn")
    a, b = batch.pair()
    returns = "a" in game.generators

    def distance() -> float:
        """Of what it makes to the truth; without pairs, of what it makes of that to where it came from.

        Without pairs and a way back, of the values that it makes to those of b, wherever they are.
        """
        with torch.no_grad():
            fake = game.translate(a)
            if member.paired:
                return float((fake - b).abs().mean())
            if returns:
                return float((game.translate(fake, "a") - a).abs().mean())
            return float((fake.flatten().sort().values - b.flatten().sort().values).abs().mean())

    before, adams = distance(), new_adams(game, lr=2e-3)
    for _ in range(40):
        step(game, batch, adams)
    assert distance() < (0.3 if member.paired else 0.5 if returns else 0.8) * before


@every_model
def test_a_saved_game_plays_on_alike(member: type[Settings]) -> None:
    game, batch = small_game(member), small_batch()
    step(game, batch, new_adams(game))
    other = small_game(member)
    other.load_state_dict(game.state_dict())
    torch.manual_seed(1)
    one = step(game, batch, new_adams(game))
    torch.manual_seed(1)
    assert step(other, batch, new_adams(other)) == one


@every_model
@every_size
def test_bf16_autocast_stays_finite(member: type[Settings], spatial_dims: int) -> None:
    assert_bfloat16_stays_finite(small_game(member, spatial_dims), small_batch(spatial_dims))


@pytest.mark.parametrize(
    ("member", "spatial_dims"),
    [
        pytest.param(member, dims, marks=[pytest.mark.slow] if (member().name, dims) == ("cut", 3) else [])
        for member in members(ModelSettings)
        for dims in (2, 3)
    ],
)
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_channels_last_trains_alike(member: type[Settings], spatial_dims: int, norm: str) -> None:
    changed = {name: value | {"norm": norm} for name, value in small_nets(member).items()}
    assert_channels_last_trains_alike(
        lambda: small_game(member, spatial_dims, **changed), small_batch(spatial_dims, samples=1)
    )


@every_model
def test_patches_that_do_not_fit_are_refused_before_training(member: type[Settings]) -> None:
    game = small_game(member)
    side = max(game.divisor, 32)
    game.require_size((side * 2, side))
    with pytest.raises(InputError, match="does not fit the net"):
        game.require_size((33, 7))


@every_model
def test_settings_survive_plain_values(member: type[Settings]) -> None:
    settings = member()
    assert member.parse(settings.model_dump()) == settings


def test_pix2pix_is_the_published_one_by_default() -> None:
    assert Pix2pixSettings().model_dump() == {
        "name": "pix2pix",
        "generator": {"name": "unet_256", "width": 64, "norm": "batch", "dropout": True, "antialias": False}
        | {"upsample": "transposed", "padding": "zeros", "recompute": False},
        "discriminator": {"name": "basic", "num_layers": None, "width": 64, "norm": "batch", "antialias": False}
        | {"scales": 1},
        "gan": "vanilla",
        "lambda_l1": 100.0,
        "lambda_feature": 0.0,
        "perceptual": None,
        "registration": None,
    }
    assert small_game(Pix2pixSettings).order == ("discriminator", "generator")


def test_a_group_given_in_part_keeps_the_other_defaults() -> None:
    assert Pix2pixSettings.parse({"generator": {"width": 8}}).generator.dropout is True


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lambda_l2": 1}, r"model\.lambda_l2: unknown key .*lambda_l1"),
        ({"generator": {"wdth": 8}}, r"model\.generator\.wdth: unknown key \(accepted here: name, width, norm, drop"),
        ({"generator": {"name": "unet_512"}}, r"model\.generator\.name: .*'unet_32'"),
        ({"generator": {"width": 0}}, r"model\.generator\.width: .*greater than or equal to 1"),
        ({"discriminator": {"name": "n_layers", "num_layers": 6}}, r"model\.discriminator\.num_layers: .*equal to 5"),
        ({"discriminator": {"num_layers": 2}}, r"model\.discriminator: num_layers belongs to .* n_layers"),
        ({"gan": "wgan"}, r"model\.gan: .*'vanilla', 'lsgan' or 'hinge'"),
        ({"lambda_l1": -1}, r"model\.lambda_l1: .*greater than or equal to 0"),
        ({"name": "pixpix"}, r"model\.name: 'pixpix' is none of 'pix2pix', 'supervised'"),
    ],
)
def test_bad_settings_are_named_by_their_key(values: dict[str, Any], message: str) -> None:
    class Config(Settings):
        model: ModelSettings = Pix2pixSettings()

    with pytest.raises(ConfigError, match=message):
        Config.parse({"model": {"name": "pix2pix"} | values})


@pytest.mark.parametrize("gan", ["vanilla", "lsgan", "hinge"])
def test_pix2pix_plays_with_every_loss_and_several_channels(gan: str) -> None:
    settings = Pix2pixSettings.parse(SMALL | {"gan": gan})
    game = Pix2pix(settings, in_channels=3, out_channels=2, spatial_dims=2)
    batch = Batch(torch.randn(2, 3, 32, 32).tanh(), torch.randn(2, 2, 32, 32).tanh())
    seen = step(game, batch, new_adams(game))
    assert seen.keys() == {"D_fake", "D_real", "G_GAN", "G_L1"}
    assert torch.tensor(list(seen.values())).isfinite().all()


def test_l1_of_pix2pix_counts_the_mask_only() -> None:
    game, batch = small_game(Pix2pixSettings, lambda_l1=10.0), small_batch()
    assert batch.b is not None
    mask = torch.zeros_like(batch.b)
    mask[..., :8, :] = 1
    fakes = game.generate(batch)
    masked = game.generator_losses(Batch(batch.a, batch.b, mask), fakes)["G_L1"]
    expected = 10 * (fakes["b"] - batch.b).abs()[..., :8, :].mean()
    assert float(masked.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_pix2pix_translates_one_way_and_needs_pairs() -> None:
    game, batch = small_game(Pix2pixSettings), small_batch()
    assert isinstance(game, Translator)
    assert batch.a is not None
    assert game.translate(batch.a).shape == batch.a.shape
    with pytest.raises(InputError, match="from a to b only; seen to='a'"):
        game.translate(batch.a, to="a")
    with pytest.raises(InputError, match="learns from a and b"):
        game.generate(Batch(batch.a))
    with pytest.raises(InputError, match=r"seen a \(2, 1, 32, 32\) and b \(2, 1, 32, 16\)"):
        Batch(batch.a, batch.a[..., :16]).pair()


def test_a_batch_moves_as_a_whole() -> None:
    batch = small_batch().to("meta")
    assert batch.a is not None
    assert batch.b is not None
    assert batch.mask is None
    assert batch.a.device.type == batch.b.device.type == "meta"
    moved = small_batch().to(memory_format=torch.channels_last)
    assert moved.a is not None
    assert moved.a.is_contiguous(memory_format=torch.channels_last)
