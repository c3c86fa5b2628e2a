"""Any net as a judge of likeness: a TorchScript file, which is a program of its own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medgan.errors import ConfigError
from medgan.nets.perceptual import PerceptualDistance, content_of

__all__ = ["ScriptDistance"]

TAKEN = "accepted is a net of patches (N, C, X, Y) or (N, C, X, Y, Z) in [-1, 1], of the size that is trained on"
ACCEPTED = "accepted is a tensor (N, C, …) of floating point, or a tuple or list of such"
# What files that are cut short and nets that are shown what they were not made for raise.
FAILURES = (torch.jit.Error, RuntimeError, ValueError, TypeError, LookupError, AttributeError)


class ScriptDistance(PerceptualDistance):
    """How differently a TorchScript net sees two images in [-1, 1]: the mean L1 distance of what it returns.

    That is a tensor (N, C, …), or a tuple or list of such, each of which counts alike. The net is shown whole images,
    (N, C, X, Y) or (N, C, X, Y, Z) float32, frozen and in evaluation mode. It is run as it stands, without the
    optimisation of its first passes that would let the last digits hang on how often it has been called.

    A TorchScript file is a program: load only those that you trust. One that lies in a run folder is refused, as runs
    travel, and nothing in them is run.

    Args:
        path: as `torch.jit.save` writes it.
        channels: of the images.
    """

    def __init__(self, path: Path, channels: int) -> None:
        super().__init__("torchscript", partial(_read, path))
        self.path, self.channels = path, channels

    def require_size(self, size: Sequence[int]) -> None:
        """Refuse a net that cannot see patches (X, Y) or (X, Y, Z), voxels: it is tried on one.

        Raises:
            ConfigError: telling what was seen.
        """
        shape = (1, self.channels, *size)
        x = torch.linspace(-1, 1, self.channels * size[0]).reshape(*shape[:3], *[1] * (len(size) - 1)).expand(shape)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            if not all(bool(y.isfinite().all()) for y in self._at(x.device, x.dtype)(x)):
                raise _misfit(self.path, f"returns values that are no numbers for {_told(x)}", "take another net")

    def _moved(self, net: nn.Module, device: torch.device) -> nn.Module:
        return net.moved(device) if isinstance(net, _Script) else super()._moved(net, device)

    def _shown(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y


class _Script(nn.Module):
    """(N, C, *spatial) to what a TorchScript net returns, if that can be compared."""

    def __init__(self, net: torch.jit.ScriptModule, path: Path) -> None:
        super().__init__()
        self.net, self.path = net.eval(), path
        for parameter in net.parameters():
            parameter.requires_grad_(False)

    def moved(self, device: torch.device) -> _Script:
        """On a device, by way of a file in memory: `.to` leaves a net's constants where they are."""
        held = io.BytesIO()
        torch.jit.save(self.net, held)
        return _Script(_loaded(held.getvalue(), self.path, device), self.path)

    def forward(self, x: Tensor) -> list[Tensor]:
        try:
            with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                held = self.net(x)
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            told = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise _misfit(self.path, f"does not take {_told(x)} ({told})", TAKEN) from None
        return self._comparable(list(held) if isinstance(held, tuple | list) else [held], x)

    def _comparable(self, held: list[Any], x: Tensor) -> list[Tensor]:
        if not held or not all(_fits(y, len(x)) for y in held):
            seen = ", ".join(_told(y) for y in held) or "nothing"
            raise _misfit(self.path, f"returns {seen} for {_told(x)}", ACCEPTED)
        if torch.is_grad_enabled() and x.requires_grad and not any(y.requires_grad for y in held):
            raise _misfit(self.path, "returns what has no gradient", "take a net without no_grad and detach")
        return [y.to(x.dtype) for y in held]


def _fits(y: Any, count: int) -> bool:
    return isinstance(y, Tensor) and y.ndim > 1 and len(y) == count and y.is_floating_point()


def _told(x: Any) -> str:
    return f"{x.dtype} {tuple(x.shape)}".removeprefix("torch.") if isinstance(x, Tensor) else type(x).__name__


def _read(path: Path) -> tuple[nn.Module, str]:
    content = content_of(path, "torchscript", "a file written by torch.jit.save")
    if run := next((folder for folder in path.resolve().parents if _is_run(folder)), None):
        told = f"lies in the run folder {run}, from which no code is run"
        raise _misfit(path, told, "copy it elsewhere if you trust it")
    return _Script(_loaded(content, path, torch.device("cpu")), path), hashlib.sha256(content).hexdigest()


def _is_run(folder: Path) -> bool:
    """As `medgan.run` knows one, which stands far below."""
    return (folder / "config.yaml").is_file() and (folder / "card.json").is_file()


def _loaded(content: bytes, path: Path, device: torch.device) -> torch.jit.ScriptModule:
    try:
        return torch.jit.load(io.BytesIO(content), map_location=device)  # type: ignore[no-untyped-call, no-any-return]
    except FAILURES as error:
        told = (str(error) or type(error).__name__).partition("\n")[0].partition(". ")[0]
        raise _misfit(path, f"is no TorchScript ({told})", "write one by torch.jit.script(net.eval()).save") from None


def _misfit(path: Path, seen: str, wanted: str) -> ConfigError:
    return ConfigError(f"model.perceptual.torchscript: {path} {seen}; {wanted}")
