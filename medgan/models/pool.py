"""The discriminator's memory of older fakes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Pool"]


class Pool(nn.Module):
    """Returns now a new fake, now one that it remembers, so that the discriminator does not forget.

    While it holds fewer than `size` images it stores each and returns it. Later, for each image by the toss of a
    coin, it returns the image itself, or a random stored one whose place the image takes. What is stored is a buffer:
    saved and resumed with the game.

    Args:
        size: images that it holds; 0 returns each as it is.

    Source:
        Shrivastava et al. 2017, arXiv:1612.07828, §2.3, in the form of Zhu et al. 2017, arXiv:1703.10593, §4.
    """

    images: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial), detached, to the same shape."""
        if self.size == 0:
            return x
        return torch.cat([self._exchange(image) for image in torch.split(x, 1)])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images = torch.cat([self.images.to(image), image]) if len(self.images) else image.clone()
            return image
        if torch.rand(()) < 0.5:
            return image
        place = int(torch.randint(self.size, ()))
        old = self.images[place : place + 1].clone()
        self.images[place] = image[0]
        return old

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take as many images as were saved."""
        if f"{prefix}images" in state_dict:
            self.images = torch.empty_like(state_dict[f"{prefix}images"], device=self.images.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
