"""Windows over a volume: medgan's against MONAI's `sliding_window_inference`, on the same net and windows.

python tools/bench/sliding.py [--rounds 3] [--threads 2] [--device cpu]
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from interleaved import machine, rounds, table
from monai.inferers import sliding_window_inference

from medgan import nets
from medgan.device import settle
from medgan.prep import BACKGROUND
from medgan.sliding import predict

VOLUME, PATCH, OVERLAP = (64, 64, 64), (32, 32, 32), 0.25


def bell() -> torch.Tensor:
    """The Gaussian weights of a window; MONAI's own are cut off at 0.001, which shows at the faces of a volume."""
    weights = torch.ones(())
    for size in PATCH:
        distance = (torch.arange(size) - (size - 1) / 2) / (size / 8)
        weights = weights[..., None] * torch.exp(-0.5 * distance**2)
    return weights


def by_monai(net: torch.nn.Module, x: torch.Tensor, device: torch.device, *, batch: int = 1) -> torch.Tensor:
    with torch.inference_mode():
        y = sliding_window_inference(
            x[None].to(device), PATCH, batch, net, OVERLAP, roi_weight_map=bell().to(device), cval=BACKGROUND
        )
    return torch.as_tensor(y)[0].cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    make = partial(nets.build, "res_unet_16", 1, 1, "instance", spatial_dims=3, width=16)
    net = make().to(device).eval()
    fast = make().eval()
    fast.load_state_dict(net.state_dict())
    settle(fast, device, "bf16")
    last_net = make().eval()
    last_net.load_state_dict(net.state_dict())
    settle(last_net, device, "bf16", torch.channels_last_3d)
    x = torch.rand(1, *VOLUME) * 2 - 1
    ours = partial(predict, x=x, patch=PATCH, overlap=OVERLAP, device=device)
    last = {"memory_format": torch.channels_last_3d}
    ways = {
        "MONAI fp32, batch 1": lambda: by_monai(net, x, device),
        "MONAI fp32, batch 4": lambda: by_monai(net, x, device, batch=4),
        "medgan fp32, batch 1": lambda: ours(net, batch=1),
        "medgan fp32, batch 4": lambda: ours(net, batch=4),
        "medgan bf16, batch 4": lambda: ours(fast, batch=4, precision="bf16"),
        "medgan bf16, batch 4, channels_last": lambda: ours(last_net, batch=4, precision="bf16", **last),
    }
    print(machine())
    wanted = by_monai(net, x, device)
    for name, way in ways.items():
        print(f"{name}: at most {(way() - wanted).abs().max():.1e} from MONAI's, which lies in [-1, 1]")
    print(table(rounds(ways, options.rounds)))
    still = torch.nn.Identity()
    empty = {
        "MONAI, cutting and stitching alone": lambda: by_monai(still, x, torch.device("cpu")),
        "medgan, cutting and stitching alone": lambda: ours(still, batch=1, device=torch.device("cpu")),
    }
    print(table(rounds(empty, 5 * options.rounds)))


if __name__ == "__main__":
    main()
