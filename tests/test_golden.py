"""Parity with the published networks and training: numbers of the reference implementation in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from medgan import nets
from medgan.models import Batch, Game, Pix2pix, Pix2pixSettings

PARAMETERS = {
    # name: {(in, out, norm): count}
    "unet_256": {
        (3, 3, "batch"): 54_413_955,
        (3, 3, "instance"): 54_409_603,
        (1, 1, "batch"): 54_407_809,
        (1, 1, "instance"): 54_403_457,
        (2, 1, "batch"): 54_408_833,
        (2, 1, "instance"): 54_404_481,
    },
    "unet_128": {
        (3, 3, "batch"): 41_828_995,
        (3, 3, "instance"): 41_825_667,
        (1, 1, "batch"): 41_822_849,
        (1, 1, "instance"): 41_819_521,
        (2, 1, "batch"): 41_823_873,
        (2, 1, "instance"): 41_820_545,
    },
    "resnet_9blocks": {
        (3, 3, "batch"): 11_383_427,
        (3, 3, "instance"): 11_378_179,
        (1, 1, "batch"): 11_370_881,
        (1, 1, "instance"): 11_365_633,
        (2, 1, "batch"): 11_374_017,
        (2, 1, "instance"): 11_368_769,
    },
    "resnet_6blocks": {
        (3, 3, "batch"): 7_841_411,
        (3, 3, "instance"): 7_837_699,
        (1, 1, "batch"): 7_828_865,
        (1, 1, "instance"): 7_825_153,
        (2, 1, "batch"): 7_832_001,
        (2, 1, "instance"): 7_828_289,
    },
    "basic": {
        (1, 1, "batch"): 2_763_585,
        (1, 1, "instance"): 2_762_689,
        (2, 1, "batch"): 2_764_609,
        (2, 1, "instance"): 2_763_713,
        (3, 1, "batch"): 2_765_633,
        (3, 1, "instance"): 2_764_737,
        (4, 1, "batch"): 2_766_657,
        (4, 1, "instance"): 2_765_761,
        (6, 1, "batch"): 2_768_705,
        (6, 1, "instance"): 2_767_809,
    },
    "pixel": {
        (1, 1, "batch"): 8_704,
        (1, 1, "instance"): 8_577,
        (2, 1, "batch"): 8_768,
        (2, 1, "instance"): 8_641,
        (3, 1, "batch"): 8_832,
        (3, 1, "instance"): 8_705,
        (4, 1, "batch"): 8_896,
        (4, 1, "instance"): 8_769,
        (6, 1, "batch"): 9_024,
        (6, 1, "instance"): 8_897,
    },
}
PARAMETERS_N_LAYERS = {1: 136_513, 2: 663_361, 3: 2_765_633, 4: 6_960_961, 5: 11_156_289}

OUTPUTS = {
    # (name, in, norm, size): mean, unbiased std, y[0, 0, 0, 0], y[0, -1, 7, 5]
    ("unet_256", 1, "batch", 256): (0.0016403285, 0.4708723079, 0.3990506133, -0.3471007646),
    ("unet_128", 1, "batch", 128): (0.0005806355, 0.4958008866, -0.1112022125, 0.8239038758),
    ("resnet_9blocks", 1, "instance", 128): (-0.0012717847, 0.0502245393, -0.0917522523, 0.0042421205),
    ("resnet_6blocks", 1, "instance", 128): (-0.0011802774, 0.0500037594, -0.0854139436, 0.0356581003),
    ("basic", 2, "batch", 128): (0.0062034593, 0.0202467088, 0.0003393705, 0.0151778112),
    ("basic", 1, "instance", 128): (0.0064662746, 0.0231144037, 0.0324496012, -0.0010651453),
    ("pixel", 1, "instance", 128): (0.0098663612, 0.0660814422, 0.0000436515, -0.0312920889),
}
PIX2PIX_STEPS = (
    {"D_fake": 0.6963337082, "D_real": 0.6902181100, "G_GAN": 0.7856755298, "G_L1": 56.1035993821},
    {"D_fake": 0.6640515797, "D_real": 0.7823284812, "G_GAN": 0.7722008491, "G_L1": 54.5415925058},
)
LAST_DIGIT = 0.6e-10


def waves(channels: int, size: int, *phases: float) -> Tensor:
    """(N, channels, size, size) float64, one sample a phase."""
    steps = 0.01 * torch.arange(channels * size**2, dtype=torch.float64)
    return torch.stack([torch.sin(steps + phase).reshape(channels, size, size) for phase in phases])


@torch.no_grad()
def fill(net: nn.Module) -> None:
    """Conv weights 0.02·sin(i) in their own order, biases 0, batch norm weights 1."""
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim == 1:
            parameter.fill_(1)
        else:
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64))
            parameter.copy_(0.02 * wave.reshape(parameter.shape))


def play(game: Game, batch: Batch, *, num_steps: int) -> Iterator[dict[str, float]]:
    """Training as published, the shortest way: one Adam a player, the other player frozen."""
    adams = {
        player: torch.optim.Adam(game.nets(player).parameters(), lr=2e-4, betas=(0.5, 0.999)) for player in game.order
    }
    for _ in range(num_steps):
        seen: dict[str, float] = {}
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
        yield seen


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_of_the_published_nets(name: str) -> None:
    with torch.device("meta"):
        counts = {key: sum(p.numel() for p in nets.build(name, *key).parameters()) for key in PARAMETERS[name]}
    assert counts == PARAMETERS[name]


@pytest.mark.parametrize("num_layers", PARAMETERS_N_LAYERS)
def test_parameter_counts_of_deeper_discriminators(num_layers: int) -> None:
    net = nets.build("n_layers", 3, num_layers=num_layers)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS_N_LAYERS[num_layers]


@pytest.mark.parametrize(("name", "norm", "entries"), [("unet_256", "batch", 82), ("resnet_9blocks", "instance", 48)])
def test_number_of_state_dict_entries(name: str, norm: str, entries: int) -> None:
    with torch.device("meta"):
        assert len(nets.build(name, 3, 3, norm).state_dict()) == entries


@pytest.mark.parametrize("case", OUTPUTS, ids=lambda case: f"{case[0]}-{case[2]}")
def test_outputs_agree_to_the_last_digit(case: tuple[str, int, str, int]) -> None:
    name, channels, norm, size = case
    net = nets.build(name, channels, 1, norm).double()
    fill(net)
    with torch.no_grad():
        y = net(waves(channels, size, 0, 1))
    seen = (float(y.mean()), float(y.std()), float(y[0, 0, 0, 0]), float(y[0, -1, 7, 5]))
    assert seen == pytest.approx(OUTPUTS[case], rel=0, abs=LAST_DIGIT)


def test_two_training_steps_of_pix2pix() -> None:
    settings = Pix2pixSettings.parse({"generator": {"name": "unet_128", "dropout": False}})
    game = Pix2pix(settings, in_channels=1, out_channels=1, spatial_dims=2).double()
    fill(game)
    batch = Batch(waves(1, 128, 0, 1), waves(1, 128, 0.5, 1.5) ** 3)
    for seen, published in zip(play(game, batch, num_steps=2), PIX2PIX_STEPS, strict=True):
        halved = {name: loss / 2 if name.startswith("D_") else loss for name, loss in published.items()}
        assert seen == pytest.approx(halved, rel=0, abs=LAST_DIGIT)
