"""Translating 256 × 256 slices: medgan's generators against the same nets in plain torch, one slice at a time.

python tools/bench/inference.py [--rounds 7] [--threads 2] [--device cpu]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from interleaved import gflop, machine, peaks, rounds, table
from published import Unet, resnet, same_weights
from torch import Tensor, nn

from medgan import nets
from medgan.device import autocast, laid_out, settle

SIZE = 256
NETS = {"pix2pix": ("unet_256", "batch", Unet), "CycleGAN": ("resnet_9blocks", "instance", resnet)}


def plain(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)


def ours(net: nn.Module, x: Tensor, precision: str, layout: torch.memory_format) -> Callable[[], Tensor]:
    """As `medgan.sliding` calls a net."""
    settle(net, x.device, precision, layout)

    @torch.inference_mode()
    def way() -> Tensor:
        with autocast(x.device, precision):
            return net(laid_out(x, layout)).float()

    return way


def measure(name: str, number: int, device: torch.device) -> None:
    arch, norm, make = NETS[name]
    torch.manual_seed(0)
    net = nets.build(arch, 1, 1, norm)
    reference = make(1, 1)
    same_weights(net, reference)
    reference = reference.to(device).eval()
    x = torch.rand(1, 1, SIZE, SIZE, device=device) * 2 - 1
    plain(reference.train(), x)  # so that batch norm has statistics
    net.load_state_dict(dict(zip(net.state_dict(), reference.state_dict().values(), strict=True)))
    wanted = plain(reference.eval(), x)
    ways: dict[str, Callable[[], object]] = {"plain torch, fp32": lambda: plain(reference, x)}
    for precision in ("32", "bf16"):
        for layout in (torch.contiguous_format, torch.channels_last):
            copy = nets.build(arch, 1, 1, norm)
            copy.load_state_dict(net.state_dict())
            suffix = ", channels_last" if layout == torch.channels_last else ""
            label = f"medgan {'bf16' if precision == 'bf16' else 'fp32'}{suffix}"
            ways[label] = way = ours(copy.eval(), x, precision, layout)
            print(f"{name}, {label}: at most {(way() - wanted).abs().max():.1e} from plain torch, in [-1, 1]")
    work, best = gflop(lambda: plain(reference, x)), peaks(device.type)
    print(f"{name}, a slice: {work:.0f} GFLOP, at least {1e3 * work / best['fp32']:.0f} ms in fp32")
    print(table(rounds(ways, number), gflop=work, peaks=best))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine())
    for name in NETS:
        measure(name, options.rounds, torch.device(options.device))


if __name__ == "__main__":
    main()
