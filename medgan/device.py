"""Where tensors live and in which precision they are computed with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from medgan.errors import ConfigError
from medgan.nets.convs import Conv2d
from medgan.processes import place

__all__ = ["autocast", "channels_last", "laid_out", "pick_device", "settle"]


def pick_device(name: str) -> torch.device:
    """`cpu`, `cuda`, or with `auto` a GPU where there is one; each process of a machine takes its own GPU.

    Raises:
        ConfigError: for another name, or for `cuda` where torch sees no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: {name!r} is none of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda was asked for, but torch sees no GPU here; use cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", place().local_rank % torch.cuda.device_count())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """With `bf16`, or on a GPU `fp16`, compute in that type where that is safe; otherwise change nothing."""
    if precision == "fp16":
        return torch.autocast(device.type, dtype=torch.float16, enabled=device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def channels_last(spatial_dims: int) -> torch.memory_format:
    """The layout in which convolutions are fastest as a rule: the channels of a voxel side by side."""
    return torch.channels_last if spatial_dims == 2 else torch.channels_last_3d


def laid_out(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """(N, C, *spatial) in a memory format, also where there is one channel.

    Torch calls such an image contiguous in every format and leaves it as it is; the first convolution then takes it
    for channels_first, and with it all that follow.

    Example:
        >>> laid_out(torch.zeros(2, 1, 3, 4), torch.channels_last).stride()
        (12, 1, 4, 1)
    """
    if memory_format == torch.contiguous_format:
        return x.contiguous()
    strides = [x.shape[1]]
    for size in reversed(x.shape[3:]):
        strides.insert(0, strides[0] * size)
    return torch.empty_strided(x.shape, (strides[0] * x.shape[2], 1, *strides), dtype=x.dtype, device=x.device).copy_(x)


def settle(
    net: nn.Module,
    device: torch.device,
    precision: str,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> None:
    """Move a net that will not learn any more to where it works; what is done to weights on every call is done once.

    That is what `autocast` rounds; and on a CPU, in float32, wide convolutions keep their weights in another base, too.
    """
    net.to(device).to(memory_format=memory_format)  # type: ignore[call-overload]
    rounded = autocast(device, precision)
    for layer in net.modules():
        if rounded._enabled and isinstance(layer, _ConvNd | nn.Linear):
            layer.to(rounded.fast_dtype)
        elif device.type == "cpu" and isinstance(layer, Conv2d):
            layer.settle()
