"""The lower stages of EfficientNet-lite0, as a judge of likeness."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

__all__ = ["SMALLEST", "LiteStages"]

ENDS = (1, 3, 5, 11)  # the blocks before which sizes are 1/2, 1/4, 1/8 and 1/16, to the next halving
SMALLEST = 2 ** len(ENDS)


class LiteStages(nn.Module):
    """(N, 1, X, Y) in [-1, 1] to what leaves the last block at each of 1/2, 1/4, 1/8 and 1/16 of the size.

    A grey image goes into all three channels as it does in the score of that name: 0 to 255, less 127 and over 128.

    Args:
        net: EfficientNet-lite0 of the package efficientnet-lite-pytorch.

    Source:
        Tan and Le 2019, arXiv:1905.11946, table 1: stages 2 to 4 and 6.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        parts = cast(Any, net)
        self.stem = nn.Sequential(parts._conv_stem, parts._bn0, parts._swish)
        self.stages = nn.ModuleList(parts._blocks[begin:end] for begin, end in zip((0, *ENDS), ENDS, strict=False))

    def forward(self, x: Tensor) -> list[Tensor]:
        x, seen = self.stem(((127.5 * (x + 1) - 127) / 128).expand(-1, 3, -1, -1)), []
        for stage in self.stages:
            for block in cast(nn.ModuleList, stage):
                x = block(x)
            seen.append(x)
        return seen
