"""The residual generator of CycleGAN."""

from __future__ import annotations

from torch import Tensor, nn

from medgan.nets.layers import Layers, Net

__all__ = ["ResNet"]


class ResNet(Net):
    """Two halvings, `num_blocks` residual blocks at a quarter of the size, two doublings, tanh.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, in [-1, 1].
        layers: number of spatial axes and norm.
        num_blocks: 9 is `resnet_9blocks`, 6 is `resnet_6blocks`.
        width: channels at full size (ngf).
        dropout: whether the blocks drop half of their features between the two convs.

    Source:
        Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
        arXiv:1703.10593, §7.2, after Johnson et al. 2016, arXiv:1603.08155.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: Layers,
        *,
        num_blocks: int = 9,
        width: int = 64,
        dropout: bool = False,
    ) -> None:
        # Reflection by one voxel at a quarter of the size needs two voxels there.
        super().__init__(layers.spatial_dims, divisor=4, smallest=8)
        blocks = [_Block(width * 4, layers, dropout=dropout) for _ in range(num_blocks)]
        self.body = nn.Sequential(
            *(layers.reflect(3), *_normed(layers.conv(in_channels, width, 7, bias=layers.bias), width, layers)),
            *_normed(layers.conv(width, width * 2, 3, stride=2, padding=1, bias=layers.bias), width * 2, layers),
            *_normed(layers.conv(width * 2, width * 4, 3, stride=2, padding=1, bias=layers.bias), width * 4, layers),
            *blocks,
            *_normed(layers.conv_up(width * 4, width * 2, 3, bias=layers.bias), width * 2, layers),
            *_normed(layers.conv_up(width * 2, width, 3, bias=layers.bias), width, layers),
            *(layers.reflect(3), layers.conv(width, out_channels, 7, bias=True), nn.Tanh()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *spatial) to (N, out_channels, *spatial)."""
        self.require_size(x.shape[2:])
        y: Tensor = self.body(x)
        return y


class _Block(nn.Module):
    """x + conv(relu(conv(x))), each conv padded by reflection and normed; no activation after the sum."""

    def __init__(self, channels: int, layers: Layers, *, dropout: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(layers.reflect(1), *_normed(layers.conv(channels, channels, 3, bias=layers.bias), channels, layers)),
            *([nn.Dropout(0.5)] if dropout else []),
            *(layers.reflect(1), layers.conv(channels, channels, 3, bias=layers.bias), layers.norm(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


def _normed(conv: nn.Module, channels: int, layers: Layers) -> tuple[nn.Module, ...]:
    return conv, layers.norm(channels), nn.ReLU(inplace=True)
