"""Where tensors live and in which precision they are computed with."""

from __future__ import annotations

import torch

from medgan.errors import ConfigError

__all__ = ["autocast", "pick_device"]


def pick_device(name: str) -> torch.device:
    """`cpu`, `cuda`, or with `auto` a GPU where there is one.

    Raises:
        ConfigError: for another name, or for `cuda` where torch sees no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: {name!r} is none of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda was asked for, but torch sees no GPU here; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """With `bf16`, compute in bfloat16 where that is safe; with `32` change nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
