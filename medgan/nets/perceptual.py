"""Likeness as a net sees it that was trained elsewhere: given by a file or a package, never trained here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from medgan.errors import ConfigError, InputError

__all__ = ["PerceptualDistance", "content_of"]


class PerceptualDistance:
    """How differently a trained net sees two images in [-1, 1]: a weighted sum of L1 distances of its features.

    Each channel is taken for a grey image. Volumes are seen as all their slices along one axis, drawn anew from torch's
    global random numbers at each call; so each axis counts alike.

    The net is read when it is first needed and moves to where the images are. It is no module: no checkpoint, no file
    of weights and no optimizer holds anything of it, and copies of a game share it.

    Args:
        setting: the key under `model.perceptual` that names the net.
        read: gives the net, (N, 1, X, Y) in [-1, 1] to tensors, frozen, in evaluation mode and on the CPU, and the
            SHA-256 of its file.
        weights: of the distances of these tensors, one each; none for their mean.
        smallest: side of an image that the net takes, voxels.

    Source:
        Johnson et al. 2016, arXiv:1603.08155, §3.2.
    """

    def __init__(
        self,
        setting: str,
        read: Callable[[], tuple[nn.Module, str]],
        *,
        weights: Sequence[float] = (),
        smallest: int = 1,
    ) -> None:
        self.setting, self.weights, self.smallest = setting, weights, smallest
        self.sha256 = ""  # of the file, once it is read
        self._read = read
        self._net: nn.Module | None = None
        self._place: tuple[torch.device, torch.dtype | None] = torch.device("cpu"), None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: nothing in it ever changes, and a second net would only take room."""
        return self

    def load(self) -> nn.Module:
        """The net, read if that has not been done. Random numbers go on as if it had always been there.

        Raises:
            ConfigError: if it cannot be read or is another one than was asked for.
        """
        if self._net is None:
            with torch.random.fork_rng(devices=[]):
                self._net, self.sha256 = self._read()
        return self._net

    def require_size(self, size: Sequence[int]) -> None:
        """Refuse patches (X, Y) or (X, Y, Z), voxels, of which the net would leave nothing.

        Raises:
            InputError: naming the size and what would fit.
        """
        if min(size) < self.smallest:
            seen = "×".join(str(n) for n in size)
            raise InputError(
                f"a patch of {seen} is smaller than the perceptual loss takes, {self.smallest} voxels a side; "
                "cut larger ones or set model.perceptual to null"
            )

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of x to y, (N, C, *spatial) both; y gets no gradient. In float32 or better, also under autocast.

        Raises:
            ConfigError: if the net, read now, is another one than was asked for.
        """
        precise = torch.promote_types(x.dtype, torch.float32)
        net = self._at(x.device, precise)
        x, y = self._shown(x.to(precise), y.to(precise))
        with torch.autocast(x.device.type, enabled=False):
            with torch.no_grad():
                wanted: list[Tensor] = net(y)
            seen: list[Tensor] = net(x)
            pairs = zip(self.weights or [1 / len(seen)] * len(seen), seen, wanted, strict=True)
            return torch.stack([weight * (ours - theirs).abs().mean() for weight, ours, theirs in pairs]).sum()

    def _at(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The net where the images are; its weights are gone through once, not at every call."""
        net = self.load()
        if self._place != (device, dtype):
            net = net if self._place[0] == device else self._moved(net, device)
            self._net = net = net.to(dtype)
            self._place = device, dtype
        return net

    def _moved(self, net: nn.Module, device: torch.device) -> nn.Module:
        return net.to(device)

    def _shown(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What the net is to see of them."""
        axis = 2 if x.ndim == 4 else 2 + int(torch.randint(3, ()))
        return _slices(x, axis), _slices(y, axis)


def content_of(path: Path, setting: str, wanted: str) -> bytes:
    """What a file holds.

    Args:
        path: of it.
        setting: the key under `model.perceptual` that names it.
        wanted: what it should be.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise ConfigError(f"model.perceptual.{setting}: {path} cannot be read ({told}); name {wanted}") from None


def _slices(x: Tensor, axis: int) -> Tensor:
    """(N, C, X, Y), or (N, C, X, Y, Z) cut along an axis, to (N · C · slices, 1, two axes)."""
    flat = x if x.ndim == 4 else x.movedim(axis, 2)
    return flat.reshape(-1, 1, *flat.shape[-2:])
