"""Several ways to do one thing, timed in turn: in a round each way runs once, so that a slow moment slows all."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from medgan.nets.products import product
from medgan.tables import columns

Way = Callable[[], object]


def seconds(way: Way) -> float:
    """Of one call; a GPU is waited for."""
    _wait()
    began = time.perf_counter()
    way()
    _wait()
    return time.perf_counter() - began


def rounds(
    ways: Mapping[str, Way], number: int, *, warm: int = 1, before: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each call, in rounds after some that are not counted; `before` each comes what takes no part in it."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(warm + number):
        for name, way in ways.items():
            before()
            spent = seconds(way)
            if n >= warm:
                taken[name].append(spent)
    return taken


def table(
    taken: Mapping[str, list[float]], *, gflop: float | None = None, peaks: Mapping[str, float] | None = None
) -> str:
    """The first way is the baseline: its seconds over those of each other way, round by round.

    Args:
        taken: as `rounds` returns it.
        gflop: arithmetic of a call, in 10⁹ operations, if each way's share of what the machine can do is wanted.
        peaks: 10⁹ operations a second that the machine does at best, by `fp32` and `bf16`; ways whose name holds
            `bf16` are held against the latter.
    """
    base = next(iter(taken.values()))
    rows = [["", "ms min", "median", "max", "ratio min", "median", "max", *(["of peak"] if gflop else [])]]
    for name, times in taken.items():
        ratios = [one / other for one, other in zip(base, times, strict=True)]
        row = [name, *(f"{1e3 * f(times):.4g}" for f in (min, statistics.median, max))]
        row += [f"{f(ratios):.2f}" for f in (min, statistics.median, max)]
        if gflop and peaks:
            peak = peaks["bf16" if "bf16" in name else "fp32"]
            row.append(f"{gflop / min(times) / peak:.0%} of {peak:.0f} GF/s")
        rows.append(row)
    return columns(rows)


def peaks(device: str = "cpu") -> dict[str, float]:
    """The best rate of a large matrix product, by torch or oneDNN, in 10⁹ operations a second, by precision."""
    size = 8192 if device == "cuda" else 768
    best = {}
    for name, dtype in {"fp32": torch.float32, "bf16": torch.bfloat16}.items():
        x = torch.randn(size, size, device=device, dtype=dtype)
        times = [seconds(lambda x=x, way=way: way(x, x)) for way in (torch.matmul, product) for _ in range(9)]
        best[name] = 2 * size**3 / min(times) / 1e9
    return best


def gflop(way: Way) -> float:
    """10⁹ floating-point operations of convolutions and matrix products in a call; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        way()
    return counter.get_total_flops() / 1e9


def machine() -> str:
    """What the figures were taken on."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
        flags = next((line for line in lines if line.startswith("flags")), "")
        extra = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
        name = f"{name} ({', '.join(extra) or 'no AVX-512'}), {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forgotten(files: Iterable[Path]) -> None:
    """Drop files from the cache of the system."""
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
