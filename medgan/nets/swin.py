"""MONAI's SwinUNETR: a transformer with shifted windows as encoder, convolutions on the way up.

This module imports MONAI's networks, which takes a second; `medgan.nets` imports it when such a net is built.
"""

from __future__ import annotations

from monai.networks import nets as monai_nets
from torch import Tensor, nn

from medgan.nets.layers import InstanceNorm, Layers, Net

__all__ = ["SwinUNETR"]

HALVINGS = 5  # one in the embedding, one behind each of the four stages


class SwinUNETR(Net):
    """The published net: windows of 7 voxels, stages of 2 blocks with 3, 6, 12 and 24 heads.

    Widths double from `width` at half of the size to 16 times that. The output is a plain conv; in evaluation it is
    cut to [-1, 1], in training not, so that what lies at the ends of the range keeps its gradient. The weights are
    drawn as MONAI does.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        layers: number of spatial axes and norm of the convs; inside the transformer it is layer norm.
        width: channels of the embedding, a multiple of 12.
        dropout: whether the transformer drops half of its features behind each linear layer.
        recompute: whether its parts are computed again in the backward pass instead of being kept.

    Source:
        Hatamizadeh et al. 2022, "Swin UNETR", arXiv:2201.01266, §3; Liu et al. 2021, arXiv:2103.14030, for the
        windows.
    """

    keeps_own_weights = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: Layers,
        *,
        width: int = 24,
        dropout: bool = False,
        recompute: bool = False,
    ) -> None:
        size = 2**HALVINGS
        super().__init__(layers.spatial_dims, divisor=size, smallest=size, norms_below=True, recompute=recompute)
        self.body = monai_nets.SwinUNETR(
            in_channels=in_channels,
            out_channels=out_channels,
            feature_size=width,
            norm_name=layers.norm_name,
            drop_rate=0.5 if dropout else 0.0,
            use_checkpoint=recompute,
            spatial_dims=layers.spatial_dims,
        )
        _mend(self.body, layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *spatial) to (N, out_channels, *spatial)."""
        y = self.at_any_size(self._all_stages, x)
        return y if self.training else y.clamp(-1, 1)

    def _all_stages(self, x: Tensor) -> Tensor:
        """As the forward pass of MONAI, part by part; the transformer keeps less by itself."""
        net, run = self.body, self.run
        *tokens, last = net.swinViT(x, net.normalize)
        seen = zip((net.encoder1, net.encoder2, net.encoder3, net.encoder4), (x, *tokens), strict=False)
        skips = [*(run(encoder, features) for encoder, features in seen), tokens[-1]]
        y = run(net.encoder10, last)
        for up in (net.decoder5, net.decoder4, net.decoder3, net.decoder2, net.decoder1):
            y = run(up, y, skips.pop())
        image: Tensor = net.out(y)
        return image


def _mend(net: nn.Module, layers: Layers) -> None:
    """Put our own layers where those of PyTorch go wrong on a CPU; names and weights stay."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.InstanceNorm2d | nn.InstanceNorm3d):
                setattr(parent, name, InstanceNorm(child.eps))
            elif isinstance(child, nn.Conv3d) and child.padding == (1, 1, 1):
                own = layers.conv(child.in_channels, child.out_channels, 3, padding=1, bias=child.bias is not None)
                own.load_state_dict(child.state_dict())
                setattr(parent, name, own)
